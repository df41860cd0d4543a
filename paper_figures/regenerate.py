"""Making figures: compute or take from the cache, check, draw, and put finished files in place."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import torch
from matplotlib import style as matplotlib_style

from paper_figures import cache
from paper_figures.figure import Data, Figure, MissingError, Parameters
from paper_figures.style import STYLE

RESULTS = Path("results")
METADATA = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
"""Nothing in a file that changes from run to run."""
MOVIE_DPI = 100


@dataclass(frozen=True)
class Made:
    """What became of a figure: `how` is "unchanged", "drawn" (from stored data) or "computed"."""

    how: str
    caption: str


def with_results(figure: Figure, quick: bool) -> Parameters:
    """The figure's parameters; with the files it reads, if it reads some. MissingError if there are none."""
    parameters = figure.sized(quick)
    if figure.results:
        found = sorted(RESULTS.glob(figure.results))
        if not found:
            raise MissingError(
                f"no file {RESULTS / figure.results}: it draws the results of training runs. Put them there, "
                f"in the columns that {figure.compute.__module__} describes"
            )
        parameters["results"] = {str(path): cache.checksum(path) for path in found}
    return parameters


def make(
    figure: Figure,
    out: Path,
    *,
    device: str = "cpu",
    quick: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] = lambda message: None,
) -> Made:
    """Put NAME.pdf, NAME.png, NAME.json and NAME.TABLE.csv (and NAME.gif) into the folder `out`.

    NAME.json comes last and holds the checksums of the others, so that a rerun knows a finished figure.
    Raises ContradictionError, leaving `out` as it was, if the data contradict the statement; MissingError or
    numerics.fetch.UnavailableError if what it reads cannot be had.
    """
    parameters = with_results(figure, quick)
    key = cache.key(figure, parameters, torch.device(device).type)
    if not fresh and (caption := _finished(figure.name, key, out)):
        return Made("unchanged", caption)
    data = None if fresh else cache.load(figure.name, key)
    how = "computed" if data is None else "drawn"
    if data is None:
        say("computing")
        data = figure.compute(parameters, torch.device(device))
    figure.accept(data, parameters)
    if how == "computed":
        cache.store(figure.name, key, data)
    say("drawing")
    caption = figure.caption(data, parameters)
    about = {
        "name": figure.name,
        "title": figure.title,
        "statements": figure.statements,
        "caption": caption,
        "parameters": parameters,
        "device": device,
        "versions": cache.versions(),
        "key": key,
    }
    _write(figure, data, parameters, about, out)
    return Made(how, caption)


def _finished(name: str, key: str, out: Path) -> str:
    """The caption of the figure in `out` if it has this key and all its files are intact, else ""."""
    try:
        about = cache.read_sealed(out / f"{name}.json")
        intact = all(cache.checksum(out / file) == found for file, found in about["files"].items())
        return about["caption"] if intact and about["key"] == key else ""
    except (OSError, ValueError):
        return ""


def _write(figure: Figure, data: Data, parameters: Parameters, about: dict, out: Path) -> None:
    """All files into a hidden folder beside their places, then each in one step into its place.

    Tables that an earlier version of the figure left are removed.
    """
    with tempfile.TemporaryDirectory(prefix=f".{figure.name}-", dir=out) as work:
        folder = Path(work)
        for part, columns in data.items():
            cache.write_table(folder / f"{figure.name}.{part}.csv", columns)
        render(figure, data, parameters, folder)
        files = {path.name: cache.checksum(path) for path in sorted(folder.iterdir())}
        manifest = f"{figure.name}.json"
        cache.write_sealed(folder / manifest, {**about, "files": files})
        for name in (*files, manifest):
            os.replace(folder / name, out / name)
        for old in out.glob(f"{figure.name}.*.csv"):
            if old.name not in files:
                old.unlink()


def render(figure: Figure, data: Data, parameters: Parameters, folder: Path) -> None:
    """NAME.pdf and NAME.png, and NAME.gif of a movie, in the house style."""
    with matplotlib.rc_context(), matplotlib_style.context(["default", STYLE]):
        drawn = figure.draw(data, parameters)
        for kind, metadata in METADATA.items():
            drawn.savefig(folder / f"{figure.name}.{kind}", metadata=metadata)
        if figure.animate:
            figure.animate(data, parameters).save(
                folder / f"{figure.name}.gif", writer="pillow", dpi=MOVIE_DPI
            )
