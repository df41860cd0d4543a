"""T2, T3, T13: models trained with the refinements, from stored results: the course of training and its end.

Reads all files results/refinements/*.csv, one number per line, with the columns (in any order)

    experiment   a name, such as "enwik8": a block of panels
    scenario     pd, hd or nd: W_s ≻ 0 and the signs of A_s as imposed; none: nothing imposed
    encoding     none, absolute, rotary, or rotary+D: rotary with the diagonal refinement
    seed         an integer
    step         an integer: steps of the optimiser so far
    metric       a name with its unit, such as "valid bits per byte"
    value        a finite number

A run is an experiment, scenario, encoding and seed. All runs of an experiment have the same metrics at the
same steps. A metric of several steps is drawn as curves, and a metric whose name does not begin with "train"
also by its values at its last step.
"""

from collections.abc import Iterator

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from paper_figures.figure import Data, Figure, Parameters, Table, rows
from paper_figures.stored import INTEGER, NAME, Column, number, one_of, read
from paper_figures.style import BLACK, GREY, TEXT
from paper_figures.style import SCENARIOS as COLOURS

SCENARIOS = {**COLOURS, "none": GREY}
MARKERS = {"pd": "^", "hd": "s", "nd": "v", "none": "o"}
ENCODINGS = {"none": ":", "absolute": "-.", "rotary": "--", "rotary+D": "-"}
"""Line styles."""
COLUMNS: dict[str, Column] = {
    "experiment": NAME,
    "scenario": one_of(tuple(SCENARIOS)),
    "encoding": one_of(tuple(ENCODINGS)),
    "seed": INTEGER,
    "step": INTEGER,
    "metric": NAME,
    "value": number(),
}
ACROSS, HEIGHT, LEGEND = 4, 1.8, 0.35
"""Panels side by side at most; inches for each line of panels and for the legend."""
LATE = 0.2
"""The axis of curves holds all values from this share of the steps on."""
SPECIAL = {letter: "\\" + letter for letter in "&%$#_{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
"""LaTeX's special characters, escaped."""


def compute(p: Parameters, device: torch.device) -> Data:
    """All files; InputError for a run that is malformed or incomplete."""
    run = ("scenario", "encoding", "seed")
    values = read(p["results"], COLUMNS, group=("experiment",), run=run, point=("metric", "step"))
    return {"values": values}


def check(data: Data, p: Parameters) -> None:
    """No statement predicts these numbers."""


def draw(data: Data, p: Parameters) -> Page:
    """A legend, and below it for each experiment its curves and the values at the end."""
    values = data["values"]
    blocks = {name: _of(values, experiment=name) for name in _unique(values["experiment"])}
    lines = [-(-len(_panels(block)) // ACROSS) for block in blocks.values()]
    page = Page(figsize=(TEXT, LEGEND + HEIGHT * sum(lines)))
    heights = [LEGEND, *(HEIGHT * count for count in lines)]
    top, *places = page.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
    _legend(top, values)
    for place, (name, block), count in zip(places, blocks.items(), lines, strict=True):
        place.supylabel(name, fontsize="large", parse_math=False)
        _block(place, block, count)
    return page


def _block(place: SubFigure, block: Table, lines: int) -> None:
    panels = _panels(block)
    grid = list(place.subplots(lines, -(-len(panels) // lines), squeeze=False).flat)
    for axes, (metric, final) in zip(grid, panels, strict=False):
        (_final if final else _curves)(axes, _of(block, metric=metric))
        axes.set_title(metric + (", end" if final else ""), parse_math=False)
    for axes in grid[len(panels) :]:
        axes.axis("off")


def _of(values: Table, **wanted: object) -> Table:
    """The rows with these values in these columns."""
    return rows(values, np.all([values[name] == value for name, value in wanted.items()], axis=0))


def _unique(column: np.ndarray) -> list:
    """In the order in which they come."""
    return list(dict.fromkeys(column.tolist()))


def _panels(block: Table) -> list[tuple[str, bool]]:
    """Metrics, each for its curves (False) or its values at the end (True)."""
    metrics = _unique(block["metric"])
    curves = [(metric, False) for metric in metrics if len(_unique(_of(block, metric=metric)["step"])) > 1]
    return curves + [(metric, True) for metric in metrics if not metric.startswith("train")]


def _groups(values: Table) -> Iterator[tuple[str, str, Table]]:
    """Scenario, encoding and rows, in the order of the tables above."""
    for encoding in ENCODINGS:
        for scenario in SCENARIOS:
            group = _of(values, scenario=scenario, encoding=encoding)
            if len(group["value"]):
                yield scenario, encoding, group


def _curves(axes: Axes, values: Table) -> None:
    """The mean over seeds and the range from the smallest to the largest."""
    for scenario, encoding, group in _groups(values):
        steps = np.unique(group["step"])
        seeds = group["value"][np.argsort(group["step"], kind="stable")].reshape(len(steps), -1)
        colour = SCENARIOS[scenario]
        (line,) = axes.plot(steps, seeds.mean(1), color=colour, marker=MARKERS[scenario], markevery=[-1])
        line.set(linestyle=ENCODINGS[encoding], linewidth=0.9, markersize=3)
        axes.fill_between(steps, seeds.min(1), seeds.max(1), color=colour, alpha=0.15, linewidth=0)
    late = values["value"][values["step"] >= LATE * values["step"].max()]
    room = 0.05 * (late.max() - late.min() or 1)
    axes.set(xlabel="step", ylim=(late.min() - room, late.max() + room))


def _final(axes: Axes, values: Table) -> None:
    """A column for each encoding, in it a place for each scenario."""
    last = _of(values, step=values["step"].max())
    encodings = [name for name in ENCODINGS if name in last["encoding"]]
    scenarios = [name for name in SCENARIOS if name in last["scenario"]]
    for scenario, encoding, group in _groups(last):
        aside = (scenarios.index(scenario) - (len(scenarios) - 1) / 2) * 0.8 / len(scenarios)
        x = encodings.index(encoding) + aside
        axes.scatter(
            np.full(len(group["value"]), x),
            group["value"],
            s=9,
            marker=MARKERS[scenario],
            edgecolors=SCENARIOS[scenario],
            facecolors="none",
        )
        axes.hlines(group["value"].mean(), x - 0.1, x + 0.1, color=BLACK, linewidth=1.3)
    axes.set(xticks=range(len(encodings)), xlim=(-0.5, len(encodings) - 0.5))
    axes.set_xticklabels(encodings, rotation=25, ha="right", rotation_mode="anchor")


def _legend(place: SubFigure, values: Table) -> None:
    handles = []
    for scenario, colour in SCENARIOS.items():
        if scenario in values["scenario"]:
            label = "not constrained" if scenario == "none" else scenario
            handles.append(Line2D([], [], color=colour, marker=MARKERS[scenario], label=label))
    for encoding, dashes in ENCODINGS.items():
        if encoding in values["encoding"]:
            label = "no encoding" if encoding == "none" else encoding
            handles.append(Line2D([], [], color=BLACK, label=label))
            handles[-1].set_linestyle(dashes)
    place.legend(handles=handles, loc="center", ncols=len(handles), handlelength=2.2, columnspacing=1.2)


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    values = data["values"]
    counts = [
        f"{_latex(name)} ({_seeds(_of(values, experiment=name))})" for name in _unique(values["experiment"])
    ]
    return (
        rf"Models trained with the refinements: {', '.join(counts)}. Scenarios impose $W_s \succ 0$ and all "
        "(pd), half (hd) or no (nd) eigenvalues of $A_s$ positive; rotary+D is rotary encoding with the "
        "learned diagonal, of which T13 says nothing. Curves: mean over seeds and range, marked by scenario "
        rf"at the last step; axes hold all values after the first {100 * LATE:g}\% of the steps. End: each "
        "seed at the last step, and means as bars. All this is measured: T2 and T3 are about one attention "
        "layer's flow, and no statement predicts what models learn."
    )


def _seeds(block: Table) -> str:
    counts = {len(np.unique(group["seed"])) for *_, group in _groups(block)}
    fewest, most = min(counts), max(counts)
    return f"{fewest}--{most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"


def _latex(name: str) -> str:
    """The name with LaTeX's special characters escaped."""
    return "".join(SPECIAL.get(letter, letter) for letter in name)


FIGURE = Figure(
    name="refinements",
    title="Models trained with the refinements: the course of training and its end",
    statements=("T2", "T3", "T13"),
    parameters={},
    quick={},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
    results="refinements/*.csv",
)
