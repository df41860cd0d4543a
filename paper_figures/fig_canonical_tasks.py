"""Accuracy by position on the canonical tasks, for heads that see one rotary frequency: from stored results.

Reads results/canonical_tasks/*.csv, in UTF-8 with a header, one line per measured accuracy:
task ("index", "retrieval" or "partial induction"), frequency (radians per position, ≥ 0), seed (of the
training run), position (a whole number; that of the key the answer depends on), accuracy (0 to 1).
All files together are one set of runs: every run (task, frequency, seed) has all positions of its task, once.
"""

import csv
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page

from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, table
from paper_figures.style import TEXT
from theory.errors import InputError

TASKS = ("index", "retrieval", "partial induction")
MARKERS = "osD^vP*X"
RUN = ("task", "frequency", "seed")


def _task(text: str) -> str:
    if text not in TASKS:
        raise ValueError(text)
    return text


def _frequency(text: str) -> float:
    value = float(text)
    if not (isfinite(value) and value >= 0):
        raise ValueError(text)
    return value


COLUMNS: dict[str, tuple[Callable, str]] = {
    "task": (_task, "one of " + ", ".join(TASKS)),
    "frequency": (_frequency, "a number ≥ 0, radians per position"),
    "seed": (int, "a whole number"),
    "position": (int, "a whole number"),
    "accuracy": (float, "a number from 0 to 1"),
}
"""How each column is read, and what it holds."""


def compute(p: Parameters, device: torch.device) -> Data:
    """All lines of all files. InputError if one cannot be read."""
    lines = [line for path in p["results"] for line in _lines(Path(path))]
    return {"accuracy": table(**dict(zip(COLUMNS, zip(*lines, strict=True), strict=True)))}


def _lines(path: Path) -> Iterator[tuple]:
    try:
        header, *lines = csv.reader(path.read_text(encoding="utf-8-sig").splitlines())
    except ValueError as error:
        expected = "CSV in UTF-8: a header, then one line per accuracy"
        raise InputError(
            str(path), got=str(error), expected=expected, fix="write it anew, or remove it"
        ) from error
    if sorted(header) != sorted(COLUMNS) or not lines:
        raise InputError(
            f"{path}, header",
            got=", ".join(header) if lines else "no line below it",
            expected="the columns " + ", ".join(COLUMNS) + ", and lines below",
            fix="rename or drop columns, or remove the file",
        )
    for number, fields in enumerate(lines, 2):
        yield _line(f"{path}, line {number}", header, fields)


def _line(where: str, header: list[str], fields: list[str]) -> tuple:
    if len(fields) != len(header):
        fix = "complete the line"
        raise InputError(where, got=f"{len(fields)} fields", expected=f"{len(header)} fields", fix=fix)
    found = dict(zip(header, fields, strict=True))
    for column, (read, expected) in COLUMNS.items():
        try:
            found[column] = read(found[column])
        except ValueError as error:
            raise InputError(
                f"{where}, column {column}",
                got=repr(found[column]),
                expected=expected,
                fix="correct the entry",
            ) from error
    return tuple(found[column] for column in COLUMNS)


def check(data: Data, p: Parameters) -> None:
    """Accuracies lie in [0, 1], and every run has each position of its task once."""
    for (task, frequency, seed), run in _runs(data["accuracy"]):
        name = f"{task}, frequency {frequency:g}, seed {seed}"
        beyond = ~((run["accuracy"] >= 0) & (run["accuracy"] <= 1))
        if beyond.any():
            position, accuracy = (run[column][beyond][0] for column in ("position", "accuracy"))
            raise ContradictionError(f"{name}, position {position}: accuracy {accuracy:g} is not from 0 to 1")
        of_task = np.unique(data["accuracy"]["position"][data["accuracy"]["task"] == task])
        if missing := sorted(set(of_task.tolist()) - set(run["position"].tolist())):
            raise ContradictionError(f"{name}: position {missing[0]} is missing")
        if len(run["position"]) > len(of_task):
            raise ContradictionError(f"{name}: a position is there twice")


def _runs(lines: Table) -> Iterator[tuple[tuple, Table]]:
    for run in sorted(set(zip(*(lines[column].tolist() for column in RUN), strict=True))):
        same = [lines[column] == value for column, value in zip(RUN, run, strict=True)]
        yield run, rows(lines, np.logical_and.reduce(same))


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
