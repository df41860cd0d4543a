"""The command `tokendyn figures`."""

import os
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from numerics.fetch import UnavailableError
from paper_figures.figure import ContradictionError, Figure, MissingError
from paper_figures.regenerate import make
from paper_figures.registry import select
from theory.errors import InputError
from tokendyn.verify import require_device

CODES = "Exit codes: 0 all made, 1 data contradict a statement, 2 bad usage or input, 3 something is missing."


@click.command(epilog=CODES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", default="figures", show_default=True, metavar="DIR", help="Where the files go.")
@click.option("--device", default="cpu", show_default=True, help="Torch device for the simulations.")
@click.option("--fresh", is_flag=True, help="Compute and draw again, whatever is stored.")
@click.option("--quick", is_flag=True, help="Fewer systems and samples: for a look, not for a paper.")
@click.option(
    "--list", "listing", is_flag=True, help="Only say what each shows and which statements it is about."
)
def figures(names: tuple[str, ...], out: str, device: str, fresh: bool, quick: bool, listing: bool) -> None:
    """Regenerate figures: all, or those named.

    Each becomes DIR/NAME.pdf and NAME.png, with the data behind it in NAME.*.csv and its caption, parameters,
    seeds and versions in NAME.json. What is stored from an earlier run and still valid is not made again. A
    figure whose data contradict its statement is not drawn.
    """
    chosen, console = select(names), Console(highlight=False)
    if listing:
        _list(chosen, console)
        return
    require_device(device)
    options = {"out": _writable(out), "device": device, "quick": quick, "fresh": fresh}
    codes = [
        _make(figure, f"[{number:2}/{len(chosen)}]", console, **options)
        for number, figure in enumerate(chosen, 1)
    ]
    console.print(f"{codes.count(0)} of {len(chosen)} figures in {out}", markup=False)
    sys.exit(min(filter(None, codes), default=0))


def _list(chosen: list[Figure], console: Console) -> None:
    listed = Table("name", "statements", "shows", box=None, header_style="bold")
    for figure in chosen:
        listed.add_row(figure.name, " ".join(figure.statements), figure.title)
    console.print(listed)


def _writable(out: str) -> Path:
    """The folder, made if need be. InputError if nothing can be written into it."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            "--out",
            got=f"{out} ({os.strerror(error.errno or 0)})",
            expected="a folder that can be written",
            fix="name another one",
        ) from error
    return folder


def _make(figure: Figure, place: str, console: Console, **options) -> int:
    """Make one figure and say so; returns its part of the exit code."""
    begun, name = time.monotonic(), f"{place} {figure.name}"
    try:
        with console.status(name) as status:
            made = make(figure, say=lambda doing: status.update(f"{name}: {doing} …"), **options)
    except ContradictionError as error:
        console.print(f"{name}: CONTRADICTED, not drawn: {error}", style="bold red", markup=False)
        return 1
    except (MissingError, UnavailableError) as error:
        console.print(f"{name}: missing: {error}", style="yellow", markup=False)
        return 3
    except InputError as error:
        console.print(f"{name}: {error}", style="bold red", markup=False)
        return 2
    console.print(f"{name}: {made.how}, {time.monotonic() - begun:.1f} s", markup=False)
    return 0
