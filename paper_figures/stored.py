"""Results of training runs, read from CSV files: complete, or refused with the place of what is wrong."""

import csv
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from math import inf, isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from paper_figures.figure import Table, table
from theory.errors import InputError, did_you_mean


class Column(NamedTuple):
    """`parse` reads a field and raises for what is not as `expected`; `known` are all values, if few."""

    parse: Callable[[str], Any]
    expected: str
    known: Collection[str] = ()


Columns = Mapping[str, Column]


def _name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return text


NAME = Column(_name, "a name")
INTEGER = Column(np.int64, "an integer")


def one_of(names: Collection[str]) -> Column:
    """One of these names."""
    parse = dict(zip(names, names, strict=True)).__getitem__
    return Column(parse, "one of " + ", ".join(names), names)


def number(expected: str = "a finite number", least: float = -inf, most: float = inf) -> Column:
    """A finite number within these bounds."""

    def parse(text: str) -> float:
        value = float(text)
        if not (isfinite(value) and least <= value <= most):
            raise ValueError(text)
        return value

    return Column(parse, expected)


def read(
    paths: Iterable[str],
    columns: Columns,
    *,
    group: tuple[str, ...],
    run: tuple[str, ...],
    point: tuple[str, ...],
) -> Table:
    """All lines of all files, whose columns may come in any order.

    The columns named in `group`, `run` and `point` say what was measured: each only once, and in all runs of
    a group at the same points. InputError naming file, line and column for all else.
    """
    found: dict[tuple, dict[str, Any]] = {}
    files: dict[tuple, str] = {}
    for path in paths:
        for at, line in _lines(path, columns):
            key = tuple(tuple((name, line[name]) for name in part) for part in (group, run, point))
            if key in found:
                got, expected = f"{_words(key)} again", "one line for each"
                raise InputError(f"{path}, line {at}", got=got, expected=expected, fix="remove one")
            found[key] = line
            files[key[:2]] = path
    for its_group, its_point in dict.fromkeys((key[0], key[2]) for key in found):
        for key, path in files.items():
            if key[0] == its_group and (*key, its_point) not in found:
                got, expected = f"no line of {_words((*key, its_point))}", "all runs at the same points"
                raise InputError(path, got=got, expected=expected, fix="finish that run, or remove its lines")
    return table(**{name: [line[name] for line in found.values()] for name in columns})


def _words(key: tuple) -> str:
    return ", ".join(f"{name} {value}" for part in key for name, value in part)


def _lines(path: str, columns: Columns) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines below the header, with the number that an editor shows for each."""
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            (_, header), *lines = [(reader.line_num, fields) for fields in reader] or [(1, [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, got=str(error), expected="CSV in UTF-8", fix="write it anew") from error
    if sorted(header) != sorted(columns):
        got, expected = ", ".join(header) or "nothing", "the columns " + ", ".join(columns)
        raise InputError(f"{path}, header", got=got, expected=expected, fix="rename, add or remove columns")
    if not lines:
        raise InputError(path, got="a header only", expected="lines below it", fix="remove the file")
    for at, fields in lines:
        where = f"{path}, line {at}"
        if len(fields) != len(header):
            got, expected = f"{len(fields)} fields", f"{len(header)}, as in the header"
            raise InputError(where, got=got, expected=expected, fix="correct the line")
        yield (
            at,
            {
                name: _parse(f"{where}, column {name}", columns[name], text)
                for name, text in zip(header, fields, strict=True)
            },
        )


def _parse(where: str, column: Column, text: str) -> Any:
    try:
        return column.parse(text)
    except (ValueError, KeyError, OverflowError) as error:
        fix = did_you_mean(text, column.known) or "correct the entry"
        raise InputError(where, got=repr(text), expected=column.expected, fix=fix) from error
