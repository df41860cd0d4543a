"""An audit as one self-contained HTML page: verdicts, tables that sort, and plots of the report's numbers.

The page shows what the report holds and decides nothing. A number that was computed in floating point is
marked "float" wherever it stands; only bounds and verdicts with the grade exact or interval are shown as
certified, and a grade is about the hypotheses of a statement, not about its derivation.
"""

import math
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, PackageLoader
from markupsafe import Markup, escape

from theory.errors import InputError
from theory.render import TEMPLATES
from tokendyn.files import require_writable, write_text
from tokendyn.report_svg import Line, Value, heat_map, lines, plain, plane, profile

SCHEMA = "tokendyn-audit/2"  # what this page can show
HEAD = "this head alone"
GRADES = (None, "float", "interval", "exact")  # in the order in which they sort

Json = dict[str, Any]


class Cell(NamedTuple):
    """One entry of a table: its text, the number it sorts by, its grade, lines that unfold, a link."""

    text: str
    value: float | None = None
    grade: str | None = None
    more: Sequence[str] = ()
    link: str = ""


class Column(NamedTuple):
    """A column of a table: heading, unit, how a row's cell is read, and what the cells are.

    `kind` is "number" (counted, or certified: the cell has its grade), "float", "verdict" or "text".
    """

    title: str
    unit: str
    cell: Callable[[Any], Cell]
    kind: str = "number"


class Table(NamedTuple):
    """A table of one row per item, named by the first column; with `by_layer` readers can pick a layer."""

    caption: str
    columns: Sequence[Column]
    items: Sequence[Any]
    by_layer: bool = False


class Figure(NamedTuple):
    """A plot and the words under it."""

    svg: Markup
    caption: str


def write_html(report: Json, path: str | PathLike[str]) -> None:
    """Write the page of an audit's report to `path`, whole or not at all.

    Raises InputError if the report is not of the schema shown here, or if the file cannot be written.
    """
    require_writable("--html", str(path))
    write_text(Path(path), html(report))


def require_schema(report: Json, schema: str, command: str) -> None:
    """InputError unless the report is of this schema, which the command writes."""
    if report.get("schema") != schema:
        raise InputError(
            "report",
            got=f"schema {report.get('schema')!r}",
            expected=schema,
            fix=f"make the report anew with this version's `tokendyn {command}`",
        )


def html(report: Json) -> str:
    """The report of `tokendyn.audit.audit` as one HTML page that loads nothing and needs no network.

    Raises InputError if the report is not of the schema shown here.
    """
    require_schema(report, SCHEMA, "audit")
    layers = report["layers"]
    whole = [s for s in report["summary"] if s["about"] != HEAD]
    alone = [s for s in report["summary"] if s["about"] == HEAD]
    return PAGE.get_template("audit.html.jinja").render(
        report=report,
        layers=layers,
        facts=_facts(report),
        speaking=[s for s in whole if s["speaks"]],
        silent=[f"{s['id']} {s['title']}" for s in whole if not s["speaks"]],
        summary=Table("Statements over all audited layers", _summary_columns("layers"), whole),
        head_summary=Table("Statements over all audited heads", _summary_columns("heads"), alone),
        verdicts=Table("Statements by layer", [LAYER, *_verdict_columns(layers)], layers),
        layer_tables=_layer_tables(layers),
        heads=_head_table(layers),
        planes=[_plane(layer) for layer in layers],
        score_profiles=[_profile(layer, "scores", "W_s") for layer in layers],
        response_profiles=[
            _profile(layer, "response", "A_s") for layer in layers if layer["whole"]["response"]
        ],
        maps=_maps(layers),
        trails=_trails(report["activations"]),
        tally=Table("Signs of the theory against what was observed", TALLY, _tally(report)),
        agreement=Table("Every comparison", AGREEMENT, _agreement(report)),
        beyond=any(row["beyond_trained_depth"] for row in (report["activations"] or {}).get("rows", [])),
    )


# Text


def typeset(words: str) -> Markup:
    """Escaped text with subscripts (`W_s`, `λ_min`, `(W_h)_s`), true minus signs and unbroken `> 0`."""
    text = re.sub(r"(?<![\w.])-(?=[\d.])", "−", str(words))
    text = re.sub(r" ([<>=≤≥≻≺≈]) (?=[−\d])", "\u00a0\\1\u00a0", text)
    return Markup(SUBSCRIPT.sub(r"\1<sub>\2</sub>", str(escape(text))))


SUBSCRIPT = re.compile(r"((?<![A-Za-z])[A-Za-zλΣℓκμ]|\))_(min|max|[a-z0-9])(?![A-Za-z0-9_])")
PAGE = TEMPLATES.overlay(loader=ChoiceLoader([PackageLoader("tokendyn"), PackageLoader("theory")]))
PAGE.filters["typeset"] = typeset


def _facts(report: Json) -> list[tuple[str, str]]:
    """What was audited, as terms and values; absent parts are left out."""
    source, setting = report["source"], report["setting"]
    package = " ".join(filter(None, (source["package"], source["version"])))
    norm = setting["norm_before_attention"]
    folded = ", its gain folded into the weights" if setting["norm_folded"] else ", ignored"
    grouped = setting["kv_heads"] != setting["heads"]
    sharing = f", {setting['kv_heads']} of keys and values" if grouped else ""
    shared = report["shared_layers"]
    facts = [
        ("Package", package),
        ("Licence", source["licence"]),
        ("SHA-256 of the weights", source["sha256"]),
        ("Architecture", report["architecture"]),
        ("Layers", f"{setting['layers']}" + (f", weights shared over a depth of {shared}" if shared else "")),
        ("Heads", f"{setting['heads']} of dimension {setting['head_dim']}{sharing}"),
        ("Token length d", str(setting["d"])),
        ("Mask", "causal" if setting["causal"] else "none: every token attends to every token"),
        ("Rotary encoding", setting["rotary"] or "none"),
        ("Biases", "present, ignored" if setting["biases"] else "none"),
        ("Norm before attention", f"{norm} norm{folded}" if norm else "none"),
        ("Layers audited", _counted(report["layers_audited"], setting["layers"])),
        ("Heads audited", _counted(report["heads_audited"], setting["heads"])),
        ("Weights stored as", _stored(report["layers"])),
    ]
    return [(term, str(value)) for term, value in facts if value]


def _stored(layers: Sequence[Json]) -> str:
    """The types of the weights in the file; of quantised ones, as GGUF names them, also how many bits."""
    types = dict.fromkeys(layer["stored_dtype"] for layer in layers)
    bits = sorted({int(found[1]) for name in types if (found := QUANTISED.match(name))})
    if not bits:
        return ", ".join(types)
    sizes = " and ".join(f"{size}-bit" for size in bits)
    return f"{', '.join(types)}: {sizes} quantised weights; verdicts are about these numbers"


QUANTISED = re.compile(r"[IT]?Q(\d)")


def _counted(chosen: str | list[int], total: int) -> str:
    if chosen == "all" or len(chosen) == total:
        return f"all {total}"
    return f"{', '.join(str(index) for index in chosen)} ({len(chosen)} of {total})"


def why_silent(part: Json, theorem: Json) -> str:
    """The first hypothesis that is not met, with grade, reason and margin."""
    key = theorem["first_unmet"]
    unmet = part["hypotheses"].get(key)
    if unmet is None:
        return f"‘{key}’ is not met." if key else "No reason is recorded."
    how = f"fails ({unmet['grade']})" if unmet["status"] == "FAILS" else "is undecided"
    reason = f": {unmet['reason']}" if unmet["reason"] else ""
    margin = f"; margin {unmet['margin']}" if unmet["margin"] else ""
    return f"‘{key}’ {how}{reason}{margin}."


PAGE.globals["why_silent"] = why_silent


# Cells


def _count(number: int | None) -> Cell:
    return Cell("–") if number is None else Cell(str(number), number)


def _float(number: float | None, digits: int = 4) -> Cell:
    return Cell("–") if number is None else Cell(plain(number, digits), number)


def _bound(verdict: Json) -> Cell:
    """The margin of a verdict, such as "≤ -0.41", with its grade; it sorts by its number."""
    margin = verdict["margin"]
    return Cell(margin, _number(margin), verdict["grade"]) if margin else Cell("open")


def _mirrored(verdict: Json) -> Cell:
    """The bound on the smallest eigenvalue of −M as one on the largest of M: "≤ -2" becomes "≥ 2"."""
    found = _bound(verdict)
    if found.value is None:
        return found
    relation = found.text.rstrip("0123456789.e+-").strip()
    digits = found.text.removeprefix(relation).strip()
    negated = digits.removeprefix("-") if found.value <= 0 else f"-{digits}"
    text = f"{OPPOSITE.get(relation, relation)} {negated}".strip()
    return Cell(text, 0.0 - found.value, found.grade)


OPPOSITE = {"≤": "≥", "≥": "≤", "<": ">", ">": "<"}


def _rate(part: Json) -> Cell:
    """The bound on the largest real λ(V) > 0: "μ ≥ 0.5" as "≥ 0.5"; "none" if there is no such eigenvalue."""
    verdict = part["values"]["real_rate"]
    if verdict["status"] == "FAILS" and not verdict["margin"]:
        return Cell("none", None, verdict["grade"])
    found = _bound(verdict)
    return found._replace(text=_measured(found.text)[1])


def _measured(margin: str) -> tuple[str, str]:
    """What a margin measures, and its number or bound: "μ ≥ 0.5" is of "μ", and "≥ 0.5"."""
    found = re.fullmatch(r"(.*?) ([<>≤≥≈] -?\d\S*)", margin)
    return (found[1], found[2]) if found else ("", margin)


def _margin_cell(margin: str) -> Cell:
    return Cell(_measured(margin)[1], _number(margin))


def _margin_of(found: Json) -> Cell:
    """The hypothesis whose margins a line of the summary holds, and what they measure."""
    measure, _ = _measured(found["margin_smallest"])
    return Cell(": ".join(filter(None, (found["margin_of"], measure))))


def _number(text: str) -> float | None:
    """The number at the end of a margin, such as −0.41 in "≤ -0.41"."""
    found = re.search(r"-?\d+(\.\d+)?(e[-+]?\d+)?$", text)
    return float(found[0]) if found else None


def _sign_count(sign: str, signs: str) -> Callable[[Json], Cell]:
    """A count of an inertia; its grade stands with the number of positive eigenvalues."""

    def cell(part: Json) -> Cell:
        found = part[signs] and part[signs]["inertia"]
        return Cell(str(found[sign]), found[sign], found["grade"]) if found else Cell("open")

    return cell


def _unstable(part: Json) -> Cell:
    """How many eigenvalues of V have positive real part: certified bounds if there are any."""
    bounds = part["values"]["unstable_count"]
    if bounds is None:
        return Cell("–")
    least, most = bounds
    return Cell(f"{least}" if least == most else f"{least} to {most}", least, "interval")


def _of(place: str, name: str) -> Callable[[Json], Cell]:
    """The cell of one float of a part; "–" where the place or the number is absent."""
    return lambda part: _float(part[place] and part[place].get(name))


def _diagonal_entry(part: Json) -> Cell:
    """The bound on the largest entry of D; it is the one on −λ_min(W_s), and as sure as that."""
    bound = part["scores"]["smallest_diagonal"]["largest_entry"]
    return (
        Cell(bound, _number(bound), part["scores"]["positive_definite"]["grade"]) if bound else Cell("open")
    )


def _diagonal(name: str) -> Callable[[Json], Cell]:
    return lambda part: _float(part["scores"]["smallest_diagonal"][name])


def _holding(part: Json) -> Cell:
    """Which statements hold of a part; unfolded, why the others are silent."""
    holds = [t for t in part["theorems"] if t["status"] == "HOLDS"]
    silent = sorted(
        (t for t in part["theorems"] if t["status"] != "HOLDS"), key=lambda t: t["first_unmet"] or ""
    )
    grouped = [(key, list(group)) for key, group in groupby(silent, key=lambda t: t["first_unmet"])]
    why = [
        f"{', '.join(t['id'] for t in group)} silent: {why_silent(part, group[0])}" for _, group in grouped
    ]
    names = ", ".join(f"{t['id']} ({t['grade']})" for t in holds) or "none"
    return Cell(names, len(holds), None, why)


SCORES = [
    Column("W_s: λ > 0", "count", _sign_count("positive", "scores")),
    Column("W_s: λ < 0", "count", _sign_count("negative", "scores")),
    Column("W_s: λ = 0", "count", _sign_count("zero", "scores")),
    Column("λ_min of W_s", "1/length²", lambda part: _bound(part["scores"]["positive_definite"])),
    Column("λ_max of W_s", "1/length²", lambda part: _mirrored(part["scores"]["negative_definite"])),
    Column("‖W_a‖/‖W‖", "0 to 1", _of("scores", "antisymmetric_share_float"), "float"),
    Column("Symmetry score", "−1 to 1", _of("scores", "symmetry_float"), "float"),
    Column("Directionality score", "−1 to 1", _of("scores", "directionality_float"), "float"),
]
DIAGONALS = [
    Column("Smallest D: largest entry", "1/length²", _diagonal_entry),
    Column("Smallest D: trace", "1/length²", _diagonal("trace_float"), "float"),
    Column("Smallest D: bound on the trace", "1/length²", _diagonal("trace_bound_float"), "float"),
]
GROWTH = (
    Column("max Re λ(V)", "1/time", lambda part: _bound(part["values"]["growth"])),
    Column("max Re λ(V)", "1/time", _of("values", "abscissa_float"), "float"),
)
UNSTABLE = (
    Column("Re λ(V) > 0", "count", _unstable),
    Column("Re λ(V) > 0", "count", lambda part: _count(part["values"]["unstable_count_float"]), "float"),
)
RESPONSE = [
    Column("A_s: λ > 0", "count", _sign_count("positive", "response")),
    Column("A_s: λ < 0", "count", _sign_count("negative", "response")),
    Column("‖A_a‖/‖A‖", "0 to 1", _of("response", "antisymmetric_share_float"), "float"),
    Column("Change of A for T2", "share of ‖A‖", _of("response", "change_to_negative_float"), "float"),
    Column("Change of A for T3", "share of ‖A‖", _of("response", "change_to_positive_float"), "float"),
]
LAYER = Column("Layer", "", lambda layer: Cell(str(layer["index"]), layer["index"], link=_anchor(layer)))


def _tie(name: str) -> Callable[[Json], Cell]:
    return lambda layer: _float((layer["heads_tie"] or {}).get(name))


TIES = [
    Column("Distance from T15’s tie, equal c_h‖W_h‖", "0 to 1", _tie("equal_float"), "float"),
    Column("The same, best c_h", "0 to 1", _tie("best_float"), "float"),
    Column("The same, A = Aᵀ", "0 to 1", _tie("symmetric_float"), "float"),
]
HEAD_NAME = Column("Head", "layer.head", lambda part: Cell(f"{part['layer']}.{part['head']}", part["place"]))
TALLY = [
    Column("Statement", "", lambda row: Cell(row["id"], more=[row["statement"]]), "text"),
    Column("System", "", lambda row: Cell(row["system"]), "text"),
    Column("Applies in", "layers", lambda row: Cell(f"{row['applies']} of {row['of']}", row["applies"])),
    Column("Agrees in", "layers", lambda row: _count(row["agrees"]), "float"),
    Column("Disagrees in", "layers", lambda row: _count(row["disagrees"]), "float"),
]
AGREEMENT = [
    Column("Step", "layers", lambda row: _count(row["step"])),
    Column("Statement", "", lambda row: Cell(row["id"], more=[row["statement"]]), "text"),
    Column("System", "", lambda row: Cell(row["system"]), "text"),
    Column("Applies", "", lambda row: Cell(_yes(row["applies"]), more=[row["why"]]), "text"),
    Column("Predicted", "", lambda row: Cell(_shown(row["predicted"])), "text"),
    Column("Observed", "float", lambda row: Cell(_shown(row["observed"])), "text"),
    Column("Agrees", "", lambda row: Cell(_yes(row["agrees"])), "text"),
]


def _summary_columns(kind: str) -> list[Column]:
    return [
        Column("Statement", "", lambda s: Cell(f"{s['id']} {s['title']}"), "text"),
        Column("Speaks on", kind, lambda s: Cell(f"{s['speaks']} of {s['of']}", s["speaks"])),
        Column("Grade", "the weakest", lambda s: _grade_cell(s["grade"]), "verdict"),
        Column("About", "", lambda s: Cell(s["about"].replace("this ", "")), "text"),
        Column("Mostly unmet", "", lambda s: Cell(s["silent_because"] or ""), "text"),
        Column("Margins of", "", _margin_of, "text"),
        Column("Margin", "smallest", lambda s: _margin_cell(s["margin_smallest"])),
        Column("Margin", "largest", lambda s: _margin_cell(s["margin_largest"])),
    ]


def _tally(report: Json) -> list[Json]:
    """How often each statement applies and agrees with what was observed in each system."""

    groups: dict[tuple[str, str, str], list[Json]] = {}
    for row in _agreement(report):
        groups.setdefault((row["id"], row["system"], row["statement"]), []).append(row)
    return [
        {
            "id": name,
            "system": system,
            "statement": statement,
            "of": len(rows),
            "applies": sum(row["applies"] for row in rows),
            "agrees": sum(row["agrees"] is True for row in rows),
            "disagrees": sum(row["agrees"] is False for row in rows),
        }
        for (name, system, statement), rows in groups.items()
    ]


def _of_whole(column: Column) -> Column:
    """The same column for a layer, read from the layer as a whole."""
    return column._replace(cell=lambda layer: column.cell(layer["whole"]))


def _values(parts: Sequence[Json]) -> list[Column]:
    """The columns about V: floats only where some part has no certified number."""
    rate = Column("Largest real λ(V) > 0", "1/time", _rate)
    return [*_certified(GROWTH, parts), *_certified(UNSTABLE, parts), rate]


def _certified(pair: tuple[Column, Column], parts: Sequence[Json]) -> list[Column]:
    """Of a certified column and one of floats, those that are needed to give every part its number."""
    missing = [pair[0].cell(part).value is None for part in parts]
    if all(missing):
        return [pair[1]]
    return list(pair) if any(missing) else [pair[0]]


def _layer_tables(layers: Sequence[Json]) -> list[Table]:
    values = _values([layer["whole"] for layer in layers])
    columns = {
        "Scores of each layer as a whole": [*map(_of_whole, [*SCORES, *DIAGONALS])],
        "Values and response of each layer as a whole": [*map(_of_whole, [*values, *RESPONSE]), *TIES],
    }
    return [Table(caption, [LAYER, *found], layers) for caption, found in columns.items()]


def _head_table(layers: Sequence[Json]) -> Table:
    heads = _heads(layers)
    holding = Column("Statements that hold", "", _holding, "text")
    columns = [HEAD_NAME, *SCORES, *_values(heads), holding]
    return Table("Every head as if it were alone", columns, heads, by_layer=True)


def _verdict_columns(layers: Sequence[Json]) -> list[Column]:
    """One column for every statement that is judged for a whole layer, in order."""
    titles = {t["id"]: t["title"] for layer in layers for t in layer["whole"]["theorems"]}

    def column(name: str, title: str) -> Column:
        def cell(layer: Json) -> Cell:
            found = next((t for t in layer["whole"]["theorems"] if t["id"] == name), None)
            return (
                _verdict_cell(found["status"], found["grade"], _anchor(layer, name)) if found else Cell("–")
            )

        return Column(name, title, cell, "verdict")

    return [column(name, title) for name, title in titles.items()]


def _grade_cell(grade: str | None) -> Cell:
    return Cell(grade or "silent", GRADES.index(grade), grade)


def _verdict_cell(status: str, grade: str | None, link: str = "") -> Cell:
    """What is proved sorts after what is silent, and exact after interval."""
    if status != "HOLDS":
        return Cell("silent", 0, link=link)
    return Cell("HOLDS", GRADES.index(grade), grade, link=link)


def _anchor(layer: Json, statement: str = "") -> str:
    return f"#layer-{layer['index']}" + (f"-{statement}" if statement else "")


def _heads(layers: Sequence[Json]) -> list[Json]:
    """Every head of every layer, with its layer and its place in reading order."""
    found = [{"layer": layer["index"], **part} for layer in layers for part in layer["heads"]]
    return [{"place": place, **part} for place, part in enumerate(found)]


def _agreement(report: Json) -> list[Json]:
    return (report["activations"] or {}).get("agreement", [])


def _yes(answer: bool | None) -> str:
    return "–" if answer is None else "yes" if answer else "no"


def _shown(value: Any) -> str:
    """A string as it is, a number with four digits, nothing as a dash."""
    if value is None:
        return "–"
    return plain(value, 4) if isinstance(value, int | float) else str(value)


# Plots


def _plane(layer: Json) -> Figure:
    values, index = layer["whole"]["values"], layer["index"]
    eigenvalues = values["spectrum_float"]
    growing, most = values["unstable_count_float"], plain(values["abscissa_float"])
    caption = f"Layer {index}: {growing} of {layer['d']} with Re\u00a0λ > 0, max Re\u00a0λ ≈ {most}"
    return Figure(plane(eigenvalues, f"Eigenvalues of V. {caption}"), caption)


def _profile(layer: Json, place: str, name: str) -> Figure:
    eigenvalues = layer["whole"][place]["spectrum_float"]
    if not eigenvalues:
        return Figure(Markup(), f"Layer {layer['index']}: not finite in double precision")
    below = sum(value < 0 for value in eigenvalues) / len(eigenvalues)
    low, high = plain(min(eigenvalues)), plain(max(eigenvalues))
    caption = f"Layer {layer['index']}: {100 * below:.0f} % negative, from {low} to {high}"
    return Figure(profile(eigenvalues, f"Eigenvalues of {name}. {caption}"), caption)


Maps = Sequence[tuple[str, Column, bool]]  # title, column, whether the scale is centred on 0


def _map_columns(heads: Sequence[Json]) -> Maps:
    return [
        ("‖W_a‖/‖W‖, antisymmetric share", SCORES[5], False),
        ("λ_min of W_s", SCORES[3], False),
        ("λ_max of W_s", SCORES[4], False),
        ("max Re λ(V_h)", _certified(GROWTH, heads)[-1], False),
        ("Symmetry score", SCORES[6], True),
        ("Directionality score", SCORES[7], True),
    ]


def _maps(layers: Sequence[Json]) -> list[Figure]:
    """One map of layers by heads for each column that has a number."""
    heads = sorted({part["head"] for layer in layers for part in layer["heads"]})
    names = [str(layer["index"]) for layer in layers]
    figures = []
    for title, column, diverging in _map_columns(_heads(layers)):
        rows = [[_value(layer, head, column) for head in heads] for layer in layers]
        if any(value.number is not None for row in rows for value in row):
            drawn = heat_map(
                rows, names, [str(h) for h in heads], f"{title} of every head", diverging=diverging
            )
            figures.append(
                Figure(drawn, f"{title} ({'float' if column.kind == 'float' else 'certified bounds'})")
            )
    return figures


def _value(layer: Json, head: int, column: Column) -> Value:
    part = next((part for part in layer["heads"] if part["head"] == head), None)
    where = f"layer {layer['index']}, head {head}"
    if part is None:
        return Value(None, f"{where}: not audited")
    cell = column.cell(part)
    grade = "float" if column.kind == "float" else cell.grade
    return Value(cell.value, f"{where}: {cell.text}" + (f" ({grade})" if grade else ""))


TRAILS = [
    ("Mean norm of a token", "norm_mean_float", True),
    ("Largest norm", "norm_max_float", True),
    ("First token’s norm over the median of the others", "first_token_ratio_float", True),
    ("Mean cosine between tokens", "cosine_float", False),
    ("Sharpness", "sharpness_float", False),
    ("Mean distance between tokens", "distance_mean_float", True),
    ("Larger share of tokens on one side of T17’s hyperplane", "one_side_share_float", False),
    ("Mean entropy of attention (nats)", "attention_entropy_float", False),
]
SYSTEMS = {"model": "model", "attention only": "attention"}


def _trails(activations: Json | None) -> list[Figure]:
    """What real tokens do, layer by layer: one plot for each of TRAILS that has a number."""
    if activations is None:
        return []
    figures = []
    for title, key, logarithmic in TRAILS:
        curves = [
            Line(
                kind,
                [
                    (r["step"], _observed(r, key, logarithmic))
                    for r in activations["rows"]
                    if r["system"] == name
                ],
            )
            for name, kind in SYSTEMS.items()
        ]
        if any(value.number is not None for curve in curves for _, value in curve.points):
            drawn = lines(curves, title, logarithmic=logarithmic, mark=activations["trained_depth"])
            figures.append(Figure(drawn, title))
    return figures


def _observed(row: Json, key: str, logarithmic: bool) -> Value:
    """A row's number, as log₁₀ where asked; a norm too large for a float is kept as its natural logarithm."""
    number, large = row.get(key), row.get(f"log_{key}")
    where = f"{row['system']}, layer {row['step']}"
    if number is None and large is not None and logarithmic:
        exponent = large / math.log(10)
        return Value(exponent, f"{where}: 10^{plain(exponent, 4)} (float)")
    if number is None or (logarithmic and number <= 0):
        return Value(None, "")
    return Value(math.log10(number) if logarithmic else number, f"{where}: {plain(number, 4)} (float)")
