"""Computed data on disk, one folder for each key: found again whole, or computed again.

The key of a figure covers its code and all project code that this imports, its parameters, the house style,
the versions of the libraries and the kind of device.
"""

import ast
import csv
import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from numerics.fetch import cache_folder
from paper_figures.figure import Data, Figure, Parameters, Table
from paper_figures.style import STYLE

PACKAGES = ("theory", "numerics", "tokendyn", "paper_figures")
LIBRARIES = ("matplotlib", "numba", "numpy", "pillow", "sympy", "torch")
ENTRY = "entry.json"
SEAL = "sha256 of the rest"
KEPT = 4
"""Entries of one figure: the full and the quick one, and where one comes from."""


def versions() -> dict[str, str]:
    """Of Python, of this project and of the libraries that data and drawings depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in ("tokendyn", *LIBRARIES)}


def key(figure: Figure, parameters: Parameters, device: str) -> str:
    """The SHA-256 of all that the data and the drawing depend on."""
    modules = imported(figure.compute.__module__) | imported("paper_figures.regenerate")
    sources = {name: checksum(path) for name, path in sorted(modules.items())}
    return digest([figure.name, dict(parameters), device, versions(), sources, checksum(STYLE)])


def digest(content: object) -> str:
    """The SHA-256 of what JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def checksum(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def imported(module: str) -> dict[str, Path]:
    """The project's modules that `module` imports, directly or not, and itself, with their files."""
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if path and name not in found:
            found[name] = path
            waiting += _imports(path)
    return found


@cache
def _file(module: str) -> Path | None:
    """The source of one of the project's modules; None for any other name."""
    if module.split(".")[0] not in PACKAGES:
        return None
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:  # a name inside a module
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """All that a file imports: modules, their packages, and names that may be modules."""
    return tuple(_named(ast.parse(path.read_text(encoding="utf-8"))))


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[: i + 1]) for i in range(len(parts)))


def load(name: str, key: str) -> Data | None:
    """The stored data of a figure, or None if there are none or a byte of them has changed."""
    folder = _folder(name, key)
    try:
        entry = read_sealed(folder / ENTRY)
        if any(checksum(folder / f"{part}.csv") != about["sha256"] for part, about in entry.items()):
            return None
        return {part: read_table(folder / f"{part}.csv", about["columns"]) for part, about in entry.items()}
    except (OSError, ValueError):
        return None


def store(name: str, key: str, data: Data) -> None:
    """Keep the data of a figure, all or nothing."""
    folder = _folder(name, key)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".entry-", dir=folder.parent) as work:
        finished = Path(work, "entry")
        finished.mkdir()
        entry = {}
        for part, columns in data.items():
            write_table(finished / f"{part}.csv", columns)
            kinds = {column: values.dtype.kind for column, values in columns.items()}
            entry[part] = {"columns": kinds, "sha256": checksum(finished / f"{part}.csv")}
        write_sealed(finished / ENTRY, entry)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(finished, folder)
    _forget(folder)


def _forget(newest: Path) -> None:
    """Remove the oldest entries of the same figure, all but KEPT."""
    name = newest.name.rpartition("-")[0]
    entries = sorted(newest.parent.glob(f"{name}-*"), key=lambda folder: folder.stat().st_mtime)
    for folder in entries[:-KEPT]:
        shutil.rmtree(folder)


def write_sealed(path: Path, content: dict) -> None:
    """JSON with a checksum of itself."""
    sealed = {**content, SEAL: digest(content)}
    path.write_text(json.dumps(sealed, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_sealed(path: Path) -> dict:
    """What `write_sealed` wrote. ValueError or OSError if it is not whole."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.pop(SEAL, None) != digest(content):
        raise ValueError("not what was written")
    return content


def _folder(name: str, key: str) -> Path:
    return cache_folder() / "figures" / f"{name}-{key[:16]}"


def write_table(path: Path, columns: Table) -> None:
    """CSV with a header; floats are written so that reading gives the same bits."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))


PARSE = {"f": float, "i": int, "b": "True".__eq__, "U": str}
DTYPES = {"f": np.float64, "i": np.int64, "b": np.bool_, "U": np.str_}
"""Both by the kind of a NumPy dtype."""


def read_table(path: Path, kinds: dict[str, str]) -> Table:
    """What `write_table` wrote, columns of the given kinds."""
    with path.open(encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream)
    columns = zip(*lines, strict=True) if lines else ((),) * len(header)
    return {
        name: np.array([PARSE[kinds[name]](text) for text in column], dtype=DTYPES[kinds[name]])
        for name, column in zip(header, columns, strict=True)
    }
