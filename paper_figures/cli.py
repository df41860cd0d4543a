"""The command `tokendyn figures`."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from numerics import InputError as NumericsInputError
from numerics.fetch import FetchError, UnavailableError, cache_folder
from paper_figures.figure import ContradictionError, Figure, MissingError
from paper_figures.regenerate import make
from paper_figures.registry import select
from theory.errors import InputError
from tokendyn.verify import require_device

CODES = "Exit codes: 0 all made, 1 data contradict a statement, 2 bad usage or input, 3 something is missing."
INTERRUPTED = 130


@click.command(epilog=CODES)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--out", metavar="DIR", help="Where the files go: figures, or figures/quick with --quick.")
@click.option("--device", default="cpu", show_default=True, help="Torch device for the simulations.")
@click.option("--fresh", is_flag=True, help="Compute and draw again, whatever is stored.")
@click.option("--quick", is_flag=True, help="Fewer systems and samples: for a look, not for a paper.")
@click.option("--list", "listing", is_flag=True, help="Only say what each shows, and its statements.")
def figures(
    names: tuple[str, ...], out: str | None, device: str, fresh: bool, quick: bool, listing: bool
) -> None:
    """Regenerate figures: all, or those named.

    Each becomes DIR/NAME.pdf and NAME.png, with the data behind it in NAME.*.csv and its caption, parameters,
    seeds and versions in NAME.json. What is stored from an earlier run and still valid is not made again. A
    figure whose data contradict its statement is not drawn. After an interruption the same command goes on.
    """
    chosen, console = select(names), Console(highlight=False)
    if listing:
        _list(chosen, console)
        return
    require_device(device)
    folder = _writable("--out", out or ("figures/quick" if quick else "figures"))
    _writable("TOKENDYN_CACHE", str(cache_folder()))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left half-written then either
    options = {"out": folder, "device": device, "quick": quick, "fresh": fresh}
    try:
        codes = [
            _make(figure, f"[{number:2}/{len(chosen)}]", console, **options)
            for number, figure in enumerate(chosen, 1)
        ]
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from here")
        sys.exit(INTERRUPTED)
    console.print(f"{codes.count(0)} of {len(chosen)} figures in {folder}", markup=False)
    sys.exit(min(filter(None, codes), default=0))


def _list(chosen: list[Figure], console: Console) -> None:
    listed = Table("name", "statements", "shows", box=None, header_style="bold")
    for figure in chosen:
        listed.add_row(figure.name, " ".join(figure.statements), figure.title)
    console.print(listed)


def _writable(argument: str, path: str) -> Path:
    """The folder, made if need be. InputError if nothing can be written into it."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            argument,
            got=f"{path} ({os.strerror(error.errno or 0)})",
            expected="a folder that can be written",
            fix="name another one",
        ) from error
    return folder


def _make(figure: Figure, place: str, console: Console, out: Path, **options) -> int:
    """Make one figure and say so; returns its part of the exit code."""
    begun, name = time.monotonic(), f"{place} {figure.name}"
    try:
        with console.status(name) as status:
            made = make(figure, out, say=lambda doing: status.update(f"{name}: {doing} …"), **options)
    except ContradictionError as error:
        console.print(f"{name}: CONTRADICTED, not drawn: {error}", style="bold red", markup=False)
        if (out / f"{figure.name}.pdf").exists():
            console.print(f"{name}: {out} still has the figure of an earlier run", markup=False)
        return 1
    except (MissingError, UnavailableError) as error:
        console.print(f"{name}: missing: {error}", style="yellow", markup=False)
        return 3
    except (InputError, NumericsInputError, FetchError) as error:
        console.print(f"{name}: {error}", style="bold red", markup=False)
        return 2
    except OSError as error:
        console.print(f"{name}: not written to {out}: {error.strerror}", style="bold red", markup=False)
        return 2
    console.print(f"{name}: {made.how}, {time.monotonic() - begun:.1f} s", markup=False)
    return 0
