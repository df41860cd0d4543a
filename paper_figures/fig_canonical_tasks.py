"""Accuracy on the canonical tasks, for heads that see chosen rotary frequencies: from stored results.

Reads results/canonical_tasks/*.csv, in UTF-8 with a header, one line per measured accuracy, with the columns
(in any order)

    task         "index", "retrieval" or "partial induction"
    frequencies  those of the head's turned pairs in radians per position, ≥ 0, in ascending order: "0+0.05"
    removed      the pair whose scores were left out at test time, from 1 in this order; 0 if none was
    seed         an integer, of the training run
    position     an integer: that of the token that holds the answer
    accuracy     0 to 1

All files together are one set of runs: every run (task, frequencies, removed, seed) has all positions of its
task, once. Drawn by position are heads of one pair, and by frequency these and heads of two pairs, 0 and θ or
θ twice; other sets are read and not drawn.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.ticker import MaxNLocator

from paper_figures.figure import Data, Figure, Parameters, Table, rows
from paper_figures.stored import INTEGER, Column, number, one_of, read
from paper_figures.style import BLACK, BLUE, GREEN, PURPLE, TEXT, VERMILLION
from theory.errors import InputError

TASKS = ("index", "retrieval", "partial induction")
MARKERS = "osD^vP*X"


def _set(text: str) -> str:
    """The set of frequencies as it was written. ValueError if it is none, or not in this order."""
    numbers = _frequencies(text)
    if not all(0 <= frequency < np.inf for frequency in numbers) or numbers != sorted(numbers):
        raise ValueError(text)
    return text


def _frequencies(text: str) -> list[float]:
    return [float(part) for part in text.split("+")]


COLUMNS: dict[str, Column] = {
    "task": one_of(TASKS),
    "frequencies": Column(_set, "numbers ≥ 0 in ascending order, radians per position, such as 0+0.05"),
    "removed": INTEGER,
    "seed": INTEGER,
    "position": INTEGER,
    "accuracy": number("a number from 0 to 1", least=0, most=1),
}


class Kind(NamedTuple):
    """Heads to be drawn by frequency: the places of 0 and θ in their sets, and the pair removed."""

    label: str
    pairs: str
    removed: int
    color: str
    dashes: Literal["-", "--", ":"]
    marker: str
    width: float


KINDS = (
    Kind(r"one pair, $\theta$", "θ", 0, BLACK, "-", "o", 1.2),
    Kind(r"pairs 0 and $\theta$", "0θ", 0, GREEN, "-", "s", 2.8),
    Kind(r"of these, $\theta$ removed", "0θ", 2, BLUE, "--", "v", 1.2),
    Kind("of these, 0 removed", "0θ", 1, VERMILLION, "--", "^", 1.2),
    Kind(r"two pairs, $\theta$ and $\theta$", "θθ", 0, PURPLE, ":", "D", 1.2),
)


def compute(p: Parameters, device: torch.device) -> Data:
    """All files; InputError for a run that is malformed or incomplete."""
    run = ("frequencies", "removed", "seed")
    found = read(p["results"], COLUMNS, group=("task",), run=run, point=("position",))
    for name, removed in zip(found["frequencies"].tolist(), found["removed"].tolist(), strict=True):
        pairs = len(_frequencies(name))
        if not 0 <= removed <= pairs:
            got, fix = f"pair {removed} removed of frequencies {name}", "count pairs from 1; 0 is none"
            raise InputError("results/canonical_tasks", got=got, expected=f"0 to {pairs}", fix=fix)
    return {"accuracy": found}


def check(data: Data, p: Parameters) -> None:
    """No statement predicts these numbers."""


def draw(data: Data, p: Parameters) -> Page:
    """A column for each task: accuracy by position, a line for each frequency; and by frequency."""
    lines = data["accuracy"]
    tasks = [task for task in TASKS if task in lines["task"]]
    frequencies = sorted({theta for kind in KINDS for theta, _ in _of(lines, kind)}, reverse=True)
    page = Page(figsize=(TEXT, 5.2))
    above, below = page.subfigures(2, 1, squeeze=False)[:, 0]
    upper, lower = (half.subplots(1, len(tasks), sharey=True, squeeze=False)[0] for half in (above, below))
    for task, by_position, by_frequency in zip(tasks, upper, lower, strict=True):
        own = rows(lines, lines["task"] == task)
        _positions(by_position, own, frequencies)
        _compared(by_frequency, own, frequencies[::-1])
        by_position.set_title(task)
    upper[0].set_ylabel("accuracy")
    lower[0].set_ylabel("accuracy, all positions")
    for half, panels, columns in ((above, upper, 8), (below, lower, 3)):
        labelled = {}
        for axes in panels:
            handles, labels = axes.get_legend_handles_labels()
            labelled.update(zip(labels, handles, strict=True))
        half.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=columns)
    return page


def _of(lines: Table, kind: Kind) -> Iterator[tuple[float, Table]]:
    """The frequencies θ of these heads, in ascending order, each with its lines."""
    for name in sorted(set(lines["frequencies"].tolist()), key=_frequencies):
        chosen = _frequencies(name)
        theta = chosen[-1]
        if chosen == [0.0 if place == "0" else theta for place in kind.pairs]:
            part = rows(lines, (lines["frequencies"] == name) & (lines["removed"] == kind.removed))
            if len(part["position"]):
                yield theta, part


def _positions(axes: Axes, lines: Table, frequencies: list[float]) -> None:
    colors = colormaps["viridis"](np.linspace(0, 0.95, len(frequencies)))
    for theta, part in reversed([*_of(lines, KINDS[0])]):
        rank = frequencies.index(theta)
        positions, accuracy = _by_position(part)
        label = rf"$\theta={theta:.3g}$"
        (line,) = axes.plot(positions, accuracy.mean(0), color=colors[rank], label=label)
        line.set(marker=MARKERS[rank % len(MARKERS)], markevery=max(1, len(positions) // 12), markersize=3)
        worst, best = accuracy.min(0), accuracy.max(0)
        axes.fill_between(positions, worst, best, color=colors[rank], alpha=0.25, linewidth=0)
    axes.set(xlabel="position of the answer", ylim=(-0.02, 1.04))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _compared(axes: Axes, lines: Table, frequencies: list[float]) -> None:
    """Means over all positions: a dot for each seed, and a line through the means over seeds."""
    for kind in KINDS:
        found = [
            (frequencies.index(theta), _by_position(part)[1].mean(1)) for theta, part in _of(lines, kind)
        ]
        if not found:
            continue
        (line,) = axes.plot(
            [place for place, _ in found],
            [seeds.mean() for _, seeds in found],
            color=kind.color,
            marker=kind.marker,
            markersize=3.5,
            label=kind.label,
        )
        line.set(linestyle=kind.dashes, linewidth=kind.width, zorder=2 + 1 / kind.width)
        for place, seeds in found:
            axes.scatter(np.full(len(seeds), place), seeds, s=4, color=kind.color, alpha=0.4, linewidth=0)
    axes.set(xlabel=r"frequency $\theta$", ylim=(-0.02, 1.04), xticks=range(len(frequencies)))
    axes.set_xticklabels([f"{theta:.3g}" for theta in frequencies])


def _by_position(part: Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and accuracies (seeds, positions)."""
    order = np.lexsort((part["position"], part["seed"]))
    positions = np.unique(part["position"])
    return positions, part["accuracy"][order].reshape(-1, len(positions))


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    lines, files = data["accuracy"], len(p["results"])
    sets, seeds = (len(np.unique(lines[column])) for column in ("frequencies", "seed"))
    return (
        "Measured accuracy of trained one-layer attention-only Transformers whose single head sees the "
        r"rotary frequencies $\theta$ named and no other dimensions, on canonical tasks. Above: by position "
        "of the answer, the question being behind the last, heads of one pair: means over seeds, and "
        "bands from the worst to the best seed. Below: over all positions, by frequency, a dot for each "
        "seed. Removed: the trained head's scores without that pair, nothing retrained. "
        f"{sets} sets of frequencies, {seeds} {'seed' if seeds == 1 else 'seeds'}, read from {files} stored "
        f"{'file' if files == 1 else 'files'}. No statement proves these shapes."
    )


FIGURE = Figure(
    name="canonical_tasks",
    title="Canonical tasks: accuracy by position and by rotary frequency",
    statements=(),
    parameters={},
    quick={},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
    results="canonical_tasks/*.csv",
)
