"""Conditions in closed form from the user's own symbolic weights: the request, and the exit code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from theory.conditions import Derived
from theory.conditions import derive as derive_conditions
from theory.errors import InputError, did_you_mean
from theory.verdict import Status

KEYS = (
    "query",
    "key",
    "value",
    "score",
    "response",
    "rotation",
    "context",
    "where",
    "symbols",
    "statements",
    "timeout",
)


def read_request(path: str) -> dict[str, Any]:
    """A JSON object with some of KEYS; numbers keep the digits they are written with, so 0.1 is 1/10.

    Raises InputError for a file that cannot be read, another document, or an unknown key.
    """
    expected = f"a JSON object with keys among {', '.join(KEYS)}"
    fix = 'write for instance {"score": "[[a]]", "value": "[[v]]"}'
    try:
        request = json.loads(Path(path).read_text(encoding="utf-8"), parse_float=str)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError("file", got=f"{path}: {type(error).__name__}", expected=expected, fix=fix) from error
    if not isinstance(request, dict):
        raise InputError("file", got=f"a JSON {type(request).__name__}", expected=expected, fix=fix)
    for key in request:
        if key not in KEYS:
            raise InputError(
                "file", got=f"the key {key!r}", expected=expected, fix=did_you_mean(key, KEYS) or fix
            )
    return request


def answer(request: Mapping[str, Any]) -> Derived:
    """Derive what a request asks for. Raises InputError for input that cannot be used."""
    readers = {"timeout": _seconds, "context": _whole, "symbols": _names, "statements": _names}
    return derive_conditions(
        **{name: readers[name](name, v) if name in readers else v for name, v in request.items()}
    )


def _seconds(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(name, got=repr(value), expected="seconds", fix="write for instance 20") from error


def _whole(name: str, value: Any) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise InputError(
            name, got=repr(value), expected="a whole number", fix="write for instance 3"
        ) from error


def _names(name: str, value: Any) -> list[str]:
    """Names as a list, or as text separated by commas or spaces."""
    parts = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise InputError(
            name, got=repr(value), expected="a list of names", fix='write for instance ["a", "b"]'
        )
    return list(parts)


def exit_code(derived: Derived) -> int:
    """0 if every region is settled (a point or a proof that there is none), else 3."""
    return 3 if any(region.status is Status.UNDECIDED for region in derived.regions) else 0
