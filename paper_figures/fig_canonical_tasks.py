"""Accuracy by position on the canonical tasks, for heads that see one rotary frequency: from stored results.

Reads results/canonical_tasks/*.csv, in UTF-8 with a header, one line per measured accuracy:
task ("index", "retrieval" or "partial induction"), frequency (radians per position, ≥ 0), seed (of the
training run), position (a whole number; that of the key the answer depends on), accuracy (0 to 1).
All files together are one set of runs: every run (task, frequency, seed) has all positions of its task, once.
"""

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page

from paper_figures.figure import Data, Figure, Parameters, Table, rows
from paper_figures.stored import INTEGER, Column, number, one_of, read
from paper_figures.style import TEXT

TASKS = ("index", "retrieval", "partial induction")
MARKERS = "osD^vP*X"
COLUMNS: dict[str, Column] = {
    "task": one_of(TASKS),
    "frequency": number("a number ≥ 0, radians per position", least=0),
    "seed": INTEGER,
    "position": INTEGER,
    "accuracy": number("a number from 0 to 1", least=0, most=1),
}


def compute(p: Parameters, device: torch.device) -> Data:
    """All files; InputError for a run that is malformed or incomplete."""
    run = ("frequency", "seed")
    return {"accuracy": read(p["results"], COLUMNS, group=("task",), run=run, point=("position",))}


def check(data: Data, p: Parameters) -> None:
    """No statement predicts these numbers."""


def draw(data: Data, p: Parameters) -> Page:
    """One panel per task: mean over seeds by position, a line for each frequency."""
    lines = data["accuracy"]
    tasks = [task for task in TASKS if task in lines["task"]]
    frequencies = np.unique(lines["frequency"])[::-1]
    page = Page(figsize=(TEXT, 2.9))
    panels = page.subplots(1, len(tasks), sharey=True, squeeze=False)[0]
    for axes, task in zip(panels, tasks, strict=True):
        _panel(axes, rows(lines, lines["task"] == task), frequencies)
        axes.set_title(task)
    panels[0].set_ylabel("accuracy")
    labelled = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        labelled.update(zip(labels, handles, strict=True))
    page.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=8)
    return page


def _panel(axes: Axes, lines: Table, frequencies: np.ndarray) -> None:
    colors = colormaps["cividis"](np.linspace(0, 0.95, len(frequencies)))
    for rank, (frequency, color) in enumerate(zip(frequencies, colors, strict=True)):
        part = rows(lines, lines["frequency"] == frequency)
        if not len(part["position"]):
            continue
        position, accuracy = _by_position(part)
        marker = MARKERS[rank % len(MARKERS)]
        axes.plot(
            position,
            accuracy.mean(0),
            color=color,
            marker=marker,
            markevery=max(1, len(position) // 8),
            label=rf"$\theta={frequency:.3g}$",
        )
        worst, best = accuracy.min(0), accuracy.max(0)
        axes.fill_between(position, worst, best, color=color, alpha=0.2, linewidth=0)
    axes.set(xlabel="position", ylim=(-0.02, 1.02))


def _by_position(part: Table) -> tuple[np.ndarray, np.ndarray]:
    """Positions, and accuracies (seeds, positions)."""
    order = np.lexsort((part["position"], part["seed"]))
    positions = np.unique(part["position"])
    return positions, part["accuracy"][order].reshape(-1, len(positions))


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    lines, files = data["accuracy"], len(p["results"])
    seeds, frequencies = (len(np.unique(lines[column])) for column in ("seed", "frequency"))
    return (
        "Measured accuracy by position of trained one-layer attention-only Transformers whose heads see one "
        r"rotary frequency $\theta$ each, on canonical tasks: means over seeds (lines), from the worst to "
        f"the best seed (bands). {frequencies} frequencies, {seeds} seeds, read from {files} stored "
        f"{'file' if files == 1 else 'files'}. No statement proves these shapes."
    )


FIGURE = Figure(
    name="canonical_tasks",
    title="Canonical tasks: accuracy by position for each rotary frequency",
    statements=(),
    parameters={},
    quick={},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
    results="canonical_tasks/*.csv",
)
