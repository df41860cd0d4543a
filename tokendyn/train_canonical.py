"""`tokendyn train canonical`: which rotary frequencies solve index, retrieval and partial induction."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from numerics import workers
from numerics.errors import InputError
from numerics.training.canonical import CanonicalGrid, Group, frequencies_name, symbolic_ceiling
from numerics.training.canonical_loop import group_result, train_group
from tokendyn.train_text import LEVEL, Interval, Row, interval

FIGURE = "canonical_tasks"
Report = Callable[[Group, dict[str, Any]], None]


def run_groups(
    grid: CanonicalGrid,
    out: Path,
    *,
    jobs: int = 1,
    device: str = "cpu",
    report: Report = lambda group, done: None,
) -> None:
    """Do what is missing of the grid, each group in a folder of its own below `out`.

    On a CPU in `jobs` processes of one thread. `report` is told each group as it is there. Raises as
    `train_group` does.
    """
    if torch.device(device).type != "cpu":
        for group in grid.groups:
            report(group, train_group(group, out / group.name, device))
        return
    try:
        for number, done in workers.on_cores(partial(_one, grid, out), range(len(grid.groups)), jobs):
            report(grid.groups[number], done)
    except InputError as error:
        if not error.argument.startswith("chunk "):
            raise
        group = grid.groups[int(error.argument.removeprefix("chunk "))]  # its process died three times
        fix = "lower batch or --jobs if memory ran out"
        raise InputError(group.name, error.got, error.expected, fix) from error


def _one(grid: CanonicalGrid, out: Path, number: int) -> dict[str, Any]:
    """Train one group, in this process."""
    group = grid.groups[number]
    return train_group(group, out / group.name)


def canonical_tables(grid: CanonicalGrid, out: Path, device: str) -> dict[str, list[Row]]:
    """What a finished grid measured: `runs`, a row each, and `accuracy` by position for the figure."""
    found: dict[str, list[Row]] = {"runs": [], "accuracy": []}
    for group in grid.groups:
        done = group_result(group, out / group.name, device)
        if done is None:
            raise InputError("out", f"{out / group.name}: not finished", "finished runs", "run it again")
        task = group.problem.name
        found["accuracy"] += [
            {
                "task": task,
                "frequencies": chosen,
                "removed": removed,
                "seed": group.seed,
                "position": position,
                "accuracy": accuracy,
            }
            for chosen, removed, position, accuracy in done["rows"]
        ]
        for chosen in map(frequencies_name, group.frequencies):
            own = {p: a for name, removed, p, a in done["rows"] if name == chosen and removed == 0}
            found["runs"].append(
                {
                    "task": task,
                    "frequencies": chosen,
                    "seed": group.seed,
                    "accuracy": mean(own.values()),
                    "ends_minus_middle": ends_minus_middle(own),
                    "loss": done["losses"][chosen],
                    "steps": group.problem.steps,
                    "parameters": done["parameters"],
                    "identity": done["identity"][:16],
                    "device": torch.device(device).type,
                    "tokendyn": done["versions"]["tokendyn"],
                    "torch": done["versions"]["torch"],
                }
            )
    for rows in found.values():
        rows.sort(key=lambda row: (row["task"], _numbers(row["frequencies"]), row.get("removed", 0)))
    return found


def _numbers(name: str) -> tuple[int, list[float]]:
    """To sort by: first sets of one frequency."""
    numbers = [float(part) for part in name.split("+")]
    return len(numbers), numbers


def ends_minus_middle(by_position: dict[int, float]) -> float:
    """The accuracy at the two ends, less that at the middle half of the positions: > 0 for a U.

    >>> ends_minus_middle({1: 1.0, 2: 0.5, 3: 0.5, 4: 0.5})
    0.25
    """
    positions = sorted(by_position)
    count, quarter = len(positions), len(positions) // 4
    middle = positions[quarter : count - quarter]
    ends = by_position[positions[0]], by_position[positions[-1]]
    return mean(ends) - mean(by_position[position] for position in middle)


def canonical_markdown(found: dict[str, list[Row]], grid: CanonicalGrid) -> str:
    """The summary as a document."""
    seeds = len(grid.config["seeds"])
    parts = [f"# What came of `{grid.name}`", "", "Written by `tokendyn train`; not edited.", ""]
    for task in grid.config["tasks"]:
        parts += [f"## {task}: accuracy in percent over all positions, mean over {seeds} seed(s)", ""]
        parts += ["| frequencies | accuracy | ends − middle | with one pair removed at test |"]
        parts += ["| --- | --- | --- | --- |"]
        for name, (accuracy, shape, removed) in _lines(found, task).items():
            without = "; ".join(f"without {pair}: {value:.1f}" for pair, value in removed)
            parts.append(f"| {name} | {accuracy:.1f} | {shape:.1f} | {without} |")
        parts += ["", ceiling_words(grid, task), ""]
    parts += [caution(), ""]
    first = found["runs"][0]
    used = ", ".join(f"{name} {first[name]}" for name in ("tokendyn", "torch") if first.get(name))
    return "\n".join([*parts, f"Versions: {used}; device {first['device']}.", ""])


def _lines(
    found: dict[str, list[Row]], task: str
) -> dict[str, tuple[Interval, Interval, list[tuple[str, Interval]]]]:
    """For each set: accuracy, ends minus middle, and the accuracy without each of its pairs."""
    own = [row for row in found["runs"] if row["task"] == task]
    names = dict.fromkeys(row["frequencies"] for row in own)
    lines = {}
    for name in names:
        runs = [row for row in own if row["frequencies"] == name]
        accuracy, shape = (
            interval([100 * row[column] for row in runs]) for column in ("accuracy", "ends_minus_middle")
        )
        rows = [row for row in found["accuracy"] if (row["task"], row["frequencies"]) == (task, name)]
        removed = [
            (pair, _over_seeds([row for row in rows if row["removed"] == number]))
            for number, pair in enumerate(name.split("+"), 1)
            if "+" in name
        ]
        lines[name] = accuracy, shape, removed
    return lines


def _over_seeds(rows: Sequence[Row]) -> Interval:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        by_seed.setdefault(row["seed"], []).append(100 * row["accuracy"])
    return interval([mean(values) for values in by_seed.values()])


def ceiling_words(grid: CanonicalGrid, task: str) -> str:
    """What is known of this task before any training."""
    problem = next(group.problem for group in grid.groups if group.problem.name == task)
    ceiling = symbolic_ceiling(problem)
    chance = f"Guessing without looking: {100 / problem.answers:.1f} %."
    if ceiling == 1:
        return chance
    return (
        f"{chance} No model whose frequencies are all 0 can expect more than {100 * float(ceiling):.1f} %: "
        "it gives the same answer for every order of the context."
    )


def caution() -> str:
    """What the numbers do not say."""
    return (
        f"Intervals: {LEVEL:.0%}, Student's t over the seeds; all runs see the same test examples, whose "
        "sampling is left out. All this is measured, of models of one size trained in one way: that a set of "
        "frequencies fails here does not show that no weights would do."
    )


def print_canonical(found: dict[str, list[Row]], grid: CanonicalGrid, console: Console) -> None:
    """Mean accuracies, on the terminal."""
    for task in grid.config["tasks"]:
        table = Table("frequencies", title=f"{task}: accuracy (%)", title_justify="left")
        for column in ("all positions", "ends − middle", "one pair removed"):
            table.add_column(column, justify="right")
        for name, (accuracy, shape, removed) in _lines(found, task).items():
            without = ", ".join(f"−{pair}: {value.mean:.1f}" for pair, value in removed)
            table.add_row(name, f"{accuracy:.1f}", f"{shape:.1f}", without)
        console.print(table)
        console.print(ceiling_words(grid, task), markup=False)
    console.print(caution(), style="dim", markup=False)
