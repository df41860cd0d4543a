"""The commands `tokendyn probe`, `tokendyn replay` and `tokendyn claims`."""

from pathlib import Path
from typing import Any

import click
from flint import arb, fmpq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokendyn.claims.claim import Claim, read_claim
from tokendyn.claims.genome import Genome
from tokendyn.claims.probing import REFUTED, VACUOUS, Report
from tokendyn.claims.probing import probe as run_probe
from tokendyn.claims.record import Counterexample, write
from tokendyn.claims.record import replay as run_replay
from tokendyn.claims.system import ExactSystem
from tokendyn.claims.violation import STRICT
from tokendyn.files import require_writable, write_json

LIBRARY = Path(__file__).parent / "library"
STYLES = {"exact": "bold red", "interval": "bold red", "float": "red"}
MEANS = {
    "exact": "proved in exact arithmetic",
    "interval": "proved with enclosures in balls",
    "float": "seen in floating point only, not proved",
}


def library() -> dict[str, Path]:
    """The claims that come with the package, by name."""
    return {path.stem: path for path in sorted(LIBRARY.glob("*.toml"))}


def find(name: str) -> Claim:
    """A claim of the library by its name, or the claim in a file. InputError if it cannot be read."""
    return read_claim(library().get(name, Path(name)))


def print_report(report: Report, console: Console) -> None:
    """The verdict, what it rests on, and the counterexample if there is one."""
    claim, tally = report.claim, report.tally
    console.print(f"[bold]{escape(claim.title or 'claim')}[/]: {escape(claim.conclude)}", highlight=False)
    searched = f"{tally.tried:,} systems with the hypotheses, of {tally.drawn:,} drawn"
    searched += f", in {report.seconds:.1f} s, seed {report.seed}"
    if report.found:
        found = report.found
        console.print(
            f"[{STYLES[found.grade]}]{REFUTED}[/] ({found.grade}: {MEANS[found.grade]})", highlight=False
        )
        print_counterexample(found, console)
    elif report.verdict == VACUOUS and tally.tried:
        says = "the conclusion has no value: too few tokens for its indices, or undefined for all systems"
        console.print(f"[yellow]VACUOUS[/]: {says}", highlight=False)
    elif report.verdict == VACUOUS:
        console.print(
            "[yellow]VACUOUS[/]: no system was found that satisfies the hypotheses", highlight=False
        )
        if tally.nearest > -float("inf"):
            console.print(
                f"the nearest misses one by {-tally.nearest:.3g}, relative to its sides", highlight=False
            )
    else:
        console.print("[cyan]NOT REFUTED[/], which proves nothing", highlight=False)
        genome, raw = tally.where or (None, None)
        if genome is not None and raw is not None:
            margin = 0.0 if -1e-12 < tally.worst < STRICT else -tally.worst  # what rounding leaves is none
            console.print(f"smallest margin {margin:.3g}, at n = {genome.n}, d = {genome.d}", highlight=False)
        else:
            console.print("no run was long enough to tell a margin", highlight=False)
        if tally.unsettled:
            console.print(
                f"{tally.unsettled:,} runs did not settle within the time followed", highlight=False
            )
        if tally.worst > STRICT:
            console.print(
                "A negative margin was seen in floating point, and neither proved nor confirmed.",
                highlight=False,
            )
    console.print(searched, style="dim", highlight=False)


def print_counterexample(found: Counterexample, console: Console) -> None:
    """What is violated and why, with weights and tokens."""
    for text in (found.violation, found.reason):
        if text:
            console.print(text, highlight=False, markup=False, soft_wrap=True)
    print_system(found, console)


def print_system(found: Counterexample, console: Console) -> None:
    """Its weights and tokens, rounded where they are no short fractions."""
    system = ExactSystem(Genome(found.claim, found.n, found.d), found.raw)
    parts = {
        name: value.data for name, value in system.values.items() if not name.startswith("_") and name != "d"
    }
    for name, data in {**parts, "tokens": system.x0, "p": system.p, "b": system.b}.items():
        if data is not None:
            console.print(f"  {name} = {_written(data)}", highlight=False, markup=False, soft_wrap=True)


def _written(data: Any) -> str:
    if isinstance(data, list):
        return "[" + ", ".join(map(_written, data)) + "]"
    text = str(data)
    return text if isinstance(data, fmpq) and len(text) < 12 else f"{float(arb(data).mid()):.6g}"


@click.command(epilog="Exit codes: 0 not refuted, 1 refuted, 2 bad usage or input, 3 vacuous.")
@click.argument("claim", metavar="CLAIM")
@click.option(
    "--time", "seconds", default=60.0, show_default=True, type=click.FloatRange(min=1), help="Seconds."
)
@click.option("--seed", default=0, show_default=True, help="Another seed searches elsewhere.")
@click.option("--device", default="cpu", show_default=True, help="Torch device of the search.")
@click.option("--out", metavar="FILE", help="Where a counterexample goes, for `tokendyn replay`.")
@click.option("--json", "json_path", metavar="FILE", help="Also write the whole report.")
@click.pass_context
def probe(
    ctx: click.Context,
    claim: str,
    seconds: float,
    seed: int,
    device: str,
    out: str | None,
    json_path: str | None,
) -> None:
    """Try to break a claim about token dynamics, and say honestly what came of it.

    CLAIM is a TOML or YAML file (docs/claims.md), or the name of a claim of the library (`tokendyn claims`).
    """
    require_writable("--out", out)
    require_writable("--json", json_path)
    stated = find(claim)
    console = Console() if Console().is_terminal else Console(width=110)
    with console.status("reading") as status:
        report = run_probe(stated, seconds, seed, device, progress=status.update)
    print_report(report, console)
    if report.found and out:
        write(out, report.found)
        console.print(f"written: {out} (tokendyn replay {out})", highlight=False)
    elif out and Path(out).exists():
        console.print(f"{out} is from before: there is no counterexample to write", highlight=False)
    if json_path:
        write_json(json_path, report.describe())
    ctx.exit({REFUTED: 1, VACUOUS: 3}.get(report.verdict, 0))


def print_replay(found: Counterexample, digits: int, console: Console) -> None:
    """Check a counterexample again, from its own data. InputError if it is none."""
    checked = run_replay(found, digits)
    console.print(
        f"[bold]{escape(found.claim.title or 'claim')}[/]: {escape(found.claim.conclude)}", highlight=False
    )
    print_system(found, console)
    console.print(f"hypotheses: {checked.hypotheses}", highlight=False, markup=False)
    for line in checked.lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    said = (
        "proved again"
        if checked.proved
        else "seen again in floating point; neither it nor its digits are proved"
    )
    console.print(f"[bold]{found.grade}[/]: {said}", highlight=False)


@click.command()
def claims() -> None:
    """List the claims that come with the package, with their sources."""
    console = Console() if Console().is_terminal else Console(width=110)
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("claim")
    table.add_column("source")
    for name, path in library().items():
        stated = read_claim(path)
        table.add_row(name, escape(stated.title), escape(stated.source))
    console.print(table)
