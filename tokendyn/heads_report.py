"""The report of `tokendyn heads` as one self-contained HTML page: planes, maps, frequencies and a table.

The page shows what the report holds and decides nothing. Every number on it is floating point, measured on
the prompts that it lists.
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from tokendyn.files import require_writable, write_text
from tokendyn.heads_svg import Axis, Curve, Dot, legend, linear, powers, scatter
from tokendyn.heads_text import MODES, said_of_correlation, said_of_exclusion, said_of_run, said_of_target
from tokendyn.report import PAGE, Cell, Column, Table, require_schema
from tokendyn.report_svg import Value, heat_map, plain

SCHEMA = "tokendyn-heads/1"  # what this page can show
UNIT = (0.0, "0"), (0.5, "0.5"), (1.0, "1")
ROOM = 0.04
"""Beyond the ends of an axis of scores, so that dots at 0 and 1 are whole."""
CENTRED = Axis("centred score", -1 - 2 * ROOM, 1 + 2 * ROOM, [(-1.0, "−1"), (0.0, "0"), (1.0, "1")])
CURVES = {"positional": "positional", "symbolic": "symbolic", "other": "others"}
"""Classes of curves by kind of head, and their names."""

Json = dict[str, Any]


class Panel(NamedTuple):
    """Plots that belong side by side, each under its own heading, and the words under all of them."""

    plots: Sequence[tuple[str, Markup]]
    caption: str


def write_html(report: Json, path: str | PathLike[str]) -> None:
    """Write the page of the report to `path`, whole or not at all.

    Raises InputError if the report is not of the schema shown here, or if the file cannot be written.
    """
    require_writable("--html", str(path))
    write_text(Path(path), html(report))


def html(report: Json) -> str:
    """The report of `tokendyn.heads.heads` as one HTML page that loads nothing and needs no network.

    Raises InputError if the report is not of the schema shown here.
    """
    require_schema(report, SCHEMA, "heads")
    modes, heads = report["run"]["modes"], _heads(report)
    return PAGE.get_template("heads.html.jinja").render(
        report=report,
        modes=modes,
        meanings=MODES,
        facts=_facts(report),
        run=said_of_run(report),
        target=said_of_target(report["on_target"]),
        exclusion=said_of_exclusion(report),
        correlations={mode: said_of_correlation(report["summary"][mode]["correlation"]) for mode in modes},
        shades=legend("colour: entropy / log n", 0.0, 1.0),
        planes=_planes(heads, modes, "all layers", 230.0),
        layer_planes=[
            _planes(
                [h for h in heads if h["layer"] == layer["index"]], modes, f"Layer {layer['index']}", 120.0
            )
            for layer in report["layers"]
        ],
        maps=_maps(report, modes),
        used=_used(heads, modes),
        alone=_alone(report, heads),
        shares=_shares(report, heads, modes),
        table_of_heads=Table("Every head", _columns(heads, modes), heads),
    )


def _heads(report: Json) -> list[Json]:
    """Every head of every layer, with its layer and its place in reading order."""
    found = [{"layer": layer["index"], **head} for layer in report["layers"] for head in layer["heads"]]
    return [{"place": place, **head} for place, head in enumerate(found)]


def _facts(report: Json) -> list[tuple[str, str]]:
    source, setting = report["source"], report["setting"]
    grouped = setting["kv_heads"] != setting["heads"]
    sharing = f", {setting['kv_heads']} of keys and values" if grouped else ""
    turning = report["frequencies_float"]
    rotary = f"{setting['rotary']}, {len(turning)} frequencies" if turning else "none"
    facts = [
        ("Package", " ".join(filter(None, (source["package"], source["version"])))),
        ("Licence", source["licence"]),
        ("SHA-256 of the weights", source["sha256"]),
        ("Architecture", report["architecture"]),
        ("Layers", str(setting["layers"])),
        ("Heads", f"{setting['heads']} of dimension {setting['head_dim']}{sharing}"),
        ("Mask", "causal" if setting["causal"] else "none: every token attends to every token"),
        ("Rotary encoding", rotary),
        ("Prompts", f"{report['run']['count']}, {report['run']['prompts']}"),
        ("Temperature", plain(report["run"]["temperature"])),
    ]
    return [(term, value) for term, value in facts if value]


# ---- planes


def _planes(heads: Sequence[Json], modes: Sequence[str], name: str, size: float) -> Panel:
    """Positional against symbolic score, one plane for each mode."""
    x, y = (Axis(score, -ROOM, 1 + ROOM, UNIT) for score in ("positional", "symbolic"))
    plots = [
        (mode, scatter([_dot(head, mode) for head in heads], x, y, f"{mode}, {name}", size=(size, size)))
        for mode in modes
    ]
    return Panel(plots, name)


def _dot(head: Json, mode: str) -> Dot:
    found = head[mode]
    return Dot(
        found["positional_float"], found["symbolic_float"], head["entropy_share_float"], _title(head, mode)
    )


def _title(head: Json, mode: str) -> str:
    found = head[mode]
    scores = ", ".join(
        f"{name} {plain(found[f'{name}_float'])}" for name in ("positional", "symbolic", "centred")
    )
    return (
        f"layer {head['layer']}, head {head['head']}, {mode}: {found['kind']}; {scores}; entropy "
        f"{plain(head['entropy_share_float'])} of log n; {plain(head['on_blocks_float'])} on the blocks"
    )


# ---- maps


def _maps(report: Json, modes: Sequence[str]) -> list[Panel]:
    """A panel for each score, with a map of layers by heads for each mode; then what needs no mode."""
    panels = [
        Panel([(m, _map(report, _score(m, name), f"{name}, {m}", limits)) for m in modes], title)
        for name, title, limits in (
            ("centred", "Centred score: 1 positional, −1 symbolic", (-1.0, 1.0)),
            ("positional", "Positional score", (0.0, 1.0)),
            ("symbolic", "Symbolic score", (0.0, 1.0)),
        )
    ]
    others = (
        ("entropy_share_float", "entropy / log n", (0.0, 1.0)),
        ("on_blocks_float", "attention on the blocks", (0.0, 1.0)),
        ("on_target_float", "attention on the target", None),
    )
    plots = [
        (title, _map(report, _plain(key), title, limits))
        for key, title, limits in others
        if any(head[key] is not None for head in _heads(report))
    ]
    return [*panels, Panel(plots, "Where attention goes on the text as it stands")]


def _score(mode: str, name: str) -> Callable[[Json], float | None]:
    return lambda head: head[mode][f"{name}_float"]


def _plain(key: str) -> Callable[[Json], float | None]:
    return lambda head: head[key]


def _map(
    report: Json, number: Callable[[Json], float | None], title: str, limits: tuple[float, float] | None
) -> Markup:
    layers = report["layers"]
    rows = [[_value(layer, head, number(head), title) for head in layer["heads"]] for layer in layers]
    names = [str(layer["index"]) for layer in layers]
    columns = [str(head["head"]) for head in layers[0]["heads"]]
    diverging = limits is not None and limits[0] < 0
    return heat_map(rows, names, columns, f"{title} of every head", diverging=diverging, limits=limits)


def _value(layer: Json, head: Json, number: float | None, title: str) -> Value:
    shown = "–" if number is None else plain(number)
    return Value(number, f"layer {layer['index']}, head {head['head']}, {title}: {shown}")


# ---- frequencies


def _used(heads: Sequence[Json], modes: Sequence[str]) -> Panel | None:
    """Mean frequency used against the centred score, a dot for each head."""
    turning = [head for head in heads if head["frequencies"] and head["frequencies"]["mean_float"]]
    if not turning:
        return None
    x = powers(
        "mean frequency used (radians per position)", [h["frequencies"]["mean_float"] for h in turning]
    )
    plots = []
    for mode in modes:
        dots = [
            Dot(
                math.log10(head["frequencies"]["mean_float"]),
                head[mode]["centred_float"],
                head["entropy_share_float"],
                f"{_title(head, mode)}; uses {plain(head['frequencies']['mean_float'])}",
            )
            for head in turning
        ]
        label = f"Centred score, {mode}, against the mean frequency used"
        plots.append((mode, scatter(dots, x, CENTRED, label, size=(300.0, 190.0), zero=True)))
    return Panel(plots, "A dot for each head; colour: entropy / log n")


def _alone(report: Json, heads: Sequence[Json]) -> Panel | None:
    """Each rotary frequency as a head of its own: quartiles over all heads of its scores."""
    turning = [head for head in heads if head["frequencies"]]
    if not turning:
        return None
    thetas = report["frequencies_float"]
    x = powers("frequency θ (radians per position)", thetas)
    scores = np.array([head["frequencies"]["centred_float"] for head in turning], dtype=float)
    quartiles = np.nanquantile(scores, (0.25, 0.5, 0.75), axis=0)
    curves = [
        Curve(kind, _along(thetas, values))
        for kind, values in zip(("edge", "middle", "edge"), quartiles, strict=True)
    ]
    label = "Centred score of each rotary frequency alone"
    plots = [("swapped", scatter((), x, CENTRED, label, size=(300.0, 190.0), curves=curves, zero=True))]
    return Panel(plots, f"Median and quartiles over {len(turning)} heads")


def _shares(report: Json, heads: Sequence[Json], modes: Sequence[str]) -> Panel | None:
    """How much each frequency makes of the logits, on average over heads of a kind."""
    thetas = report["frequencies_float"]
    turning = [head for head in heads if head["frequencies"]]
    if not turning:
        return None
    x, plots = powers("frequency θ (radians per position)", thetas), []
    for mode in modes:
        means: dict[str, np.ndarray] = {}
        for kind in CURVES:
            chosen = [h["frequencies"]["use_float"] for h in turning if _curve_of(h[mode]["kind"]) == kind]
            if chosen:
                means[kind] = np.array(chosen, dtype=float).mean(0)
        y = linear("share of the variance", 0.0, 1.05 * max(float(values.max()) for values in means.values()))
        curves = [Curve(kind, _along(thetas, values)) for kind, values in means.items()]
        plots.append(
            (mode, scatter((), x, y, f"Use of frequencies, {mode}", size=(300.0, 150.0), curves=curves))
        )
    return Panel(plots, "Means over the positional, the symbolic and all other heads")


def _curve_of(kind: str) -> str:
    return kind if kind in CURVES else "other"


def _along(thetas: Sequence[float], values: np.ndarray) -> list[tuple[float, float]]:
    """Points in order of log₁₀ θ; what is not finite is left out."""
    points = [(math.log10(theta), float(value)) for theta, value in zip(thetas, values, strict=True)]
    return sorted(point for point in points if math.isfinite(point[1]))


# ---- the table


def _columns(heads: Sequence[Json], modes: Sequence[str]) -> list[Column]:
    columns = [
        Column("Head", "layer.head", lambda head: Cell(f"{head['layer']}.{head['head']}", head["place"]))
    ]
    for mode in modes:
        columns.append(Column("Kind", mode, _kind(mode), "text"))
        columns += [
            Column(name, mode, _of(_score(mode, name)), "float")
            for name in ("positional", "symbolic", "centred")
        ]
        columns.append(
            Column("Spread of centred", f"{mode}, over prompts", _of(_score(mode, "centred_spread")), "float")
        )
        columns.append(Column("Centred, of logits", mode, _of(_of_logits(mode)), "float"))
    columns.append(Column("Entropy", "share of log n", _of(_plain("entropy_share_float")), "float"))
    columns.append(Column("On the blocks", "attention", _of(_plain("on_blocks_float")), "float"))
    if any(head["on_target_float"] is not None for head in heads):
        columns.append(Column("On the target", "attention", _of(_plain("on_target_float")), "float"))
    if any(head["frequencies"] for head in heads):
        columns.append(Column("Mean frequency used", "radians per position", _of(_mean_frequency), "float"))
    columns.append(Column("Var(λ)", "logits²", _of(_exclusion("variance_float")), "float"))
    columns.append(Column("S1’s bound on it", "logits²", _of(_exclusion("bound_float")), "float"))
    return columns


def _kind(mode: str) -> Callable[[Json], Cell]:
    return lambda head: Cell(head[mode]["kind"])


def _of_logits(mode: str) -> Callable[[Json], float | None]:
    return lambda head: head[mode]["logits"]["centred_float"]


def _exclusion(key: str) -> Callable[[Json], float | None]:
    return lambda head: head["exclusion"][key]


def _mean_frequency(head: Json) -> float | None:
    return head["frequencies"] and head["frequencies"]["mean_float"]


def _of(number: Callable[[Json], float | None]) -> Callable[[Json], Cell]:
    def cell(head: Json) -> Cell:
        found = number(head)
        return Cell("–") if found is None else Cell(plain(found), found)

    return cell
