"""What `tokendyn sweep` prints: progress, the cost of a plan, and what came of one."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from numerics.solution import Outcome
from numerics.sweep import Estimate
from numerics.sweep_plan import Plan
from numerics.sweep_summary import FAMILY

QUIET_SECONDS = 30
SHOWN_FAMILIES = 40
SHOWN_CHUNKS = 20
HEADINGS = {"score_positive": "W₊", "response_positive": "A₊", "steps": "median steps"}
LEGEND = """\
W₊, A₊: share of positive eigenvalues of the symmetric part
rates:  of log-norm and log-diameter at the end; 5 %, 50 % and 95 % of the systems lie below
All are floats, none a verdict."""


class SweepProgress:
    """A bar with the time left on a terminal, elsewhere a line now and then. Use it as a context."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("systems"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = None
        self.first: tuple[float, int] | None = None
        self.printed = time.monotonic()

    def __enter__(self) -> "SweepProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, message: str) -> None:
        self.console.print(message, markup=False)

    def update(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self.task is None:
            self.task = self.bar.add_task("", total=total, completed=done)
            if done:
                self.say(f"{done:,} of {total:,} systems are there already")
        elif self.first is None:  # time is counted from the first chunk on, without what starting took
            self.first = now, done
        elif now - self.printed > QUIET_SECONDS and done < total and not self.console.is_terminal:
            self.printed = now
            left = (now - self.first[0]) * (total - done) / (done - self.first[1])
            self.say(f"{done:,} of {total:,} systems, about {duration(left)} left")
        self.bar.update(self.task, completed=done)


def print_estimate(plan: Plan, cost: Estimate, jobs: int, console: Console) -> None:
    """What a sweep would compute, and about how long it takes."""
    shapes = len(plan.groups)
    console.print(
        f"{plan.systems:,} systems of {shapes} shape(s) in {plan.chunks:,} chunks of up to {plan.run.chunk:,}"
    )
    console.print(f"about {duration(cost.seconds / jobs)} on {jobs} core(s), {duration(cost.seconds)} on one")
    console.print(f"about {size(cost.size)} on disk, chunks and table together")
    console.print(
        "Measured on a few systems drawn from the whole design; larger chunks are often faster.", style="dim"
    )


def print_summary(summary: dict[str, Any], missing: list[int], console: Console) -> None:
    """Outcomes and rates by family, and what is missing."""
    families = summary["families"]
    varying = [name for name in FAMILY if len({family[name] for family in families}) > 1]
    outcomes = [kind.name for kind in Outcome if kind.name in summary["outcomes"]]
    table = Table(title="What came of the sweep", title_justify="left")
    for name in (*varying, "systems", *outcomes, "norm rate", "diameter rate", "steps"):
        table.add_column(HEADINGS.get(name, name), justify="right", no_wrap=True)
    for family in families[:SHOWN_FAMILIES]:
        table.add_row(
            *(_value(family[name]) for name in varying),
            f"{family['systems']:,}",
            *(f"{family['outcomes'].get(name, 0):,}" for name in outcomes),
            *(_quantiles(family[name]) for name in ("norm_rate", "diameter_rate")),
            "–" if family["steps"] is None else f"{family['steps'][1]:,.0f}",
        )
    console.print(table)
    if len(families) > SHOWN_FAMILIES:
        console.print(f"and {len(families) - SHOWN_FAMILIES} more families")
    if families:
        fixed = ", ".join(f"{name} {_value(families[0][name])}" for name in FAMILY if name not in varying)
        console.print(f"the same for all: {fixed}" if fixed else "", style="dim", markup=False)
    console.print(LEGEND, style="dim", markup=False)
    if missing:
        shown = ", ".join(map(str, missing[:SHOWN_CHUNKS])) + (", …" if len(missing) > SHOWN_CHUNKS else "")
        console.print(f"{summary['systems']:,} of {summary['planned']:,} systems; unfinished chunks: {shown}")
    else:
        console.print(f"complete: {summary['systems']:,} systems")


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _quantiles(values: list[float] | None) -> str:
    return "–" if values is None else "  ".join(f"{v:.2g}" if abs(v) < 99 else f"{v:,.0f}" for v in values)


def duration(seconds: float) -> str:
    """Seconds, minutes, hours or days, whichever reads best."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes as kB, MB, GB or TB."""
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= length:
            return f"{count / length:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"
