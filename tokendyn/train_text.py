"""What a training grid shows: means and paired differences with intervals, and the words for them."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from flint import arb
from rich.console import Console
from rich.table import Table

from numerics.training.canonical import CanonicalGrid
from numerics.training.config import ENCODINGS, SCENARIOS, Grid
from numerics.training.cost import Cost
from tokendyn.sweep_text import duration, size

LEVEL = 0.95
UNRESOLVED = "no difference resolved at this size"
Row = dict[str, Any]


@dataclass(frozen=True)
class Interval:
    """The mean of `count` numbers, and half the length of its interval at `LEVEL`; NaN for a single one."""

    mean: float
    half: float
    count: int

    def __str__(self) -> str:
        return f"{self:.3f}"

    def __format__(self, spec: str) -> str:
        spec = spec or ".3f"
        return f"{self.mean:{spec}}" + ("" if math.isnan(self.half) else f" ± {self.half:{spec}}")

    @property
    def resolved(self) -> bool:
        """Whether 0 lies outside."""
        return abs(self.mean) > self.half


def interval(numbers: Sequence[float]) -> Interval:
    """Student's interval for the mean; it takes the numbers for independent and normal."""
    count = len(numbers)
    if count < 2:
        return Interval(numbers[0], math.nan, count)
    return Interval(mean(numbers), quantile(count - 1) * stdev(numbers) / math.sqrt(count), count)


def quantile(freedom: int) -> float:
    """t with P(|T| ≤ t) = `LEVEL` for Student's T, from the incomplete beta function by bisection."""
    low, high = 0.0, 1e3
    for _ in range(80):
        t = (low + high) / 2
        tail = arb(freedom / (freedom + t * t)).beta_lower(freedom / 2, 0.5, regularized=True)
        low, high = (t, high) if float(tail.mid()) > 1 - LEVEL else (low, t)
    return (low + high) / 2


@dataclass(frozen=True)
class Difference:
    """`first` minus `second`, paired by seed, within one task and `where` all else is equal."""

    task: str
    first: str
    second: str
    where: str
    interval: Interval
    lower_is_better: bool

    @property
    def words(self) -> str:
        if math.isnan(self.interval.half):
            return "one seed: no interval"
        if not self.interval.resolved:
            return UNRESOLVED
        better = self.first if (self.interval.mean < 0) == self.lower_is_better else self.second
        return f"{better} is better"


def cells(rows: Iterable[Row], task: str) -> dict[tuple[str, str], Interval]:
    """The interval of each (scenario, encoding) of a task that has runs, over its seeds."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row["task"] == task:
            found.setdefault((row["scenario"], row["encoding"]), []).append(row["test"])
    return {key: interval(values) for key, values in found.items()}


def differences(rows: Iterable[Row]) -> list[Difference]:
    """Scenarios against unconstrained and against each other, and each encoding against the one before it."""
    rows = list(rows)
    tests = {(r["task"], r["scenario"], r["encoding"], r["seed"]): r["test"] for r in rows}
    seeds = sorted({r["seed"] for r in rows})
    units = {r["task"]: r["metric"] for r in rows}
    found = []

    def compare(
        task: str, first: tuple[str, str], second: tuple[str, str], names: tuple[str, str, str]
    ) -> None:
        pairs = [((task, *first, seed), (task, *second, seed)) for seed in seeds]
        gaps = [tests[a] - tests[b] for a, b in pairs if a in tests and b in tests]
        if gaps:
            found.append(Difference(task, *names, interval(gaps), units[task] == "bits per byte"))

    scenarios = [(name, "unconstrained") for name in SCENARIOS[1:]] + [
        ("pd", "hd"),
        ("hd", "nd"),
        ("pd", "nd"),
    ]
    for task in units:
        for encoding in ENCODINGS:
            for a, b in scenarios:
                compare(task, (a, encoding), (b, encoding), (a, b, encoding))
        for scenario in SCENARIOS:
            for b, a in pairwise(ENCODINGS):
                compare(task, (scenario, a), (scenario, b), (a, b, scenario))
    return found


def caution(found: Sequence[Difference]) -> str:
    """What the intervals do not say."""
    chance = round(len(found) * (1 - LEVEL), 1)
    return (
        f"Intervals: {LEVEL:.0%}, Student's t over the seeds, which vary the start and order of the data; "
        f"the test examples are the same. Of {len(found)} differences about {chance:g} would exclude 0 by "
        "chance alone. All this is measured in floats, at one learning rate: no statement predicts it."
    )


def last_states(layers: Iterable[Row], metric: str, task: str) -> list[Row]:
    """One row per run: `test` is the metric of the tokens after the last block, at the end of training."""
    found: dict[tuple[str, ...], Row] = {}
    for row in layers:
        if row["metric"] == metric and row["task"] == task:
            key = (row["scenario"], row["encoding"], row["seed"])
            place = (int(row["step"]), int(row["state"]))
            if key not in found or place > found[key]["place"]:
                found[key] = {**row, "place": place, "test": float(row["value"])}
    return list(found.values())


def _states_table(layers: Sequence[Row], task: str) -> list[str]:
    """Whether tokens stay apart, by sharpness and cosine after the last block."""
    lines = ["| tokens after the last block | scenario | sharpness | cosine |", "| --- | --- | --- | --- |"]
    sharp, alike = (cells(last_states(layers, metric, task), task) for metric in ("sharpness", "cosine"))
    lines += [f"| {key[1]} | {key[0]} | {value} | {alike.get(key, '–')} |" for key, value in sharp.items()]
    return [*lines, ""] if sharp else []


def markdown(rows: Sequence[Row], grid: str, layers: Sequence[Row] = ()) -> str:
    """The summary as a document."""
    parts = [f"# What came of `{grid}`", "", "Written by `tokendyn train`; not edited.", ""]
    for task, unit in {row["task"]: row["metric"] for row in rows}.items():
        found = cells(rows, task)
        encodings = [e for e in ENCODINGS if any(key[1] == e for key in found)]
        counts = {i.count for i in found.values()}
        parts += [f"## {task}: test {unit}, mean over {max(counts)} seed(s)", ""]
        parts += ["| scenario | " + " | ".join(encodings) + " |", "| --- |" + " --- |" * len(encodings)]
        for scenario in SCENARIOS:
            if any(key[0] == scenario for key in found):
                line = (str(found.get((scenario, e), "–")) for e in encodings)
                parts.append(f"| {scenario} | " + " | ".join(line) + " |")
        parts += ["", *_states_table(layers, task)]
    compared = differences(rows)
    parts += [
        "## Paired differences",
        "",
        "| task | with | difference | mean | |",
        "| --- | --- | --- | --- | --- |",
    ]
    parts += [
        f"| {d.task} | {d.where} | {d.first} − {d.second} | {d.interval} | {d.words} |" for d in compared
    ]
    parts += ["", caution(compared), ""]
    parts += ["## What the audit of the trained weights says", "", promises(rows), ""]
    first = rows[0]
    used = ", ".join(f"{name} {first[name]}" for name in ("tokendyn", "torch") if first.get(name))
    return "\n".join([*parts, f"Versions: {used}; device {first['device']}.", ""])


def promises(rows: Iterable[Row]) -> str:
    """On how many runs the imposed signs of W_s and A_s are proved of the stored weights."""
    counts: dict[str, int] = {}
    for row in rows:
        if row["signs"]:
            counts[row["signs"]] = counts.get(row["signs"], 0) + 1
    if not counts:
        return "No scenario was imposed, so no signs were promised."
    listed = ", ".join(f"{verdict} on {count}" for verdict, count in sorted(counts.items()))
    return (
        f"W_s ≻ 0 and the imposed signs of A_s in every layer of the plain weights: {listed} of "
        f"{sum(counts.values())} refined runs."
    )


def print_summary(rows: Sequence[Row], console: Console) -> None:
    """Means, differences and the audit, on the terminal."""
    for task, unit in {row["task"]: row["metric"] for row in rows}.items():
        found = cells(rows, task)
        table = Table("scenario", title=f"{task}: test {unit}", title_justify="left")
        encodings = [e for e in ENCODINGS if any(key[1] == e for key in found)]
        for encoding in encodings:
            table.add_column(encoding, justify="right")
        for scenario in SCENARIOS:
            if any(key[0] == scenario for key in found):
                table.add_row(scenario, *(str(found.get((scenario, e), "–")) for e in encodings))
        console.print(table)
    compared = differences(rows)
    table = Table("task", "with", "difference", title="Paired by seed", title_justify="left")
    table.add_column("mean", justify="right")
    table.add_column("")
    for d in compared:
        table.add_row(d.task, d.where, f"{d.first} − {d.second}", str(d.interval), d.words)
    console.print(table)
    console.print(caution(compared), style="dim", markup=False)
    console.print(promises(rows), markup=False)


def print_cost(
    grid: Grid | CanonicalGrid, found: Cost, device: str, processes: int, console: Console
) -> None:
    """What the grid would take."""
    console.print(
        f"{grid.count} runs, {grid.steps:,} steps, {found.operations:.2g} operations; the largest model "
        f"has {found.parameters:,} parameters and takes about {size(found.memory)}"
    )
    time = duration(found.seconds / processes)
    console.print(f"roughly {time} on {device} with {processes} process(es), without download and audit")
