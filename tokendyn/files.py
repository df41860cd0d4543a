"""Reading and writing users' files: nothing half-written, every failure a typed error."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np

from theory.errors import InputError


def read_matrix(argument: str, path: str) -> np.ndarray:
    """A matrix from a `.npy` file. Raises InputError if it cannot be read; pickled objects are refused."""
    expected, fix = "a .npy file of numbers", f"write it with numpy.save('{Path(path).stem}.npy', array)"
    try:
        loaded = np.load(path, allow_pickle=False)
    except OSError as error:
        reason = error.strerror or "a file numpy cannot read"
        raise InputError(argument, got=f"{path}: {reason}", expected=expected, fix=fix) from error
    except (ValueError, EOFError) as error:
        got = f"{path}: not plain .npy data (truncated, another format, or pickled objects)"
        raise InputError(argument, got=got, expected=expected, fix=fix) from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise InputError(argument, got=f"{path}: an archive of several arrays", expected=expected, fix=fix)
    return loaded


def read_json(argument: str, path: str):
    """A JSON document. Raises InputError if it cannot be read."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            argument,
            got=f"{path}: {type(error).__name__}",
            expected="a JSON file",
            fix="pass what --json wrote",
        ) from error


def require_writable(argument: str, path: str | None) -> None:
    """InputError now rather than after a long run, if `path` cannot be written."""
    if path is None:
        return
    target = Path(path)
    if target.is_dir() or not target.parent.is_dir() or not os.access(target.parent, os.W_OK):
        raise InputError(
            argument,
            got=str(path),
            expected="a file in an existing, writable folder",
            fix="name a file, in a folder that exists",
        )


def write_json(path: str, data: dict) -> None:
    """Write the whole document or nothing."""
    write_text(Path(path), json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(target: Path, text: str) -> None:
    """Write all of the text or nothing (a temporary file beside it, then a rename)."""
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
