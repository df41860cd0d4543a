"""What a figure is: data computed, data checked against the statement, data drawn. See registry.py."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib import figure
from matplotlib.animation import FuncAnimation

Table = dict[str, np.ndarray]
"""Columns of one length: float64, int64, bool or str."""
Data = dict[str, Table]
Parameters = Mapping[str, Any]
"""Everything that the data depend on besides code, seeds included; values that JSON can hold."""


class ContradictionError(ArithmeticError):
    """The data contradict the statement that the figure is to show, so it is not drawn."""


class MissingError(RuntimeError):
    """A figure needs stored results that are not there."""


@dataclass(frozen=True)
class Figure:
    """One figure of the theory.

    `compute(parameters, device)` returns the data. `check(data, parameters)` raises ContradictionError if
    they contradict a statement. `draw(data, parameters)` is pure; `animate`, where there is one, makes the
    movie that `draw` shows stills of. `caption(data, parameters)` is LaTeX text. `quick` replaces some
    parameters for a fast look. `results` is a glob pattern of files under results/ that the figure reads:
    `compute` and the others find their paths, with their SHA-256, as parameters["results"].
    """

    name: str
    title: str
    statements: tuple[str, ...]
    parameters: Parameters
    quick: Parameters
    compute: Callable[[Parameters, torch.device], Data]
    check: Callable[[Data, Parameters], None]
    draw: Callable[[Data, Parameters], figure.Figure]
    caption: Callable[[Data, Parameters], str]
    animate: Callable[[Data, Parameters], FuncAnimation] | None = None
    results: str = ""

    def sized(self, quick: bool) -> dict[str, Any]:
        """The parameters, at full or at quick size."""
        return {**self.parameters, **(self.quick if quick else {})}

    def accept(self, data: Data, parameters: Parameters) -> None:
        """ContradictionError if a number is not finite (a simulation did not arrive) or `check` objects."""
        for part, columns in data.items():
            for name, column in columns.items():
                if column.dtype.kind == "f" and not np.isfinite(column).all():
                    raise ContradictionError(f"{part}.{name}: a number is not finite, so nothing is shown")
        self.check(data, parameters)


def table(**columns: Any) -> Table:
    """Columns from tensors, arrays, lists or numbers, broadcast to one shape and flattened in C order.

    >>> table(t=[[0.0], [1.0]], token=[0, 1])
    {'t': array([0., 0., 1., 1.]), 'token': array([0, 1, 0, 1])}
    """
    arrays = np.broadcast_arrays(*map(np.asarray, columns.values()))
    return {name: array.ravel() for name, array in zip(columns, arrays, strict=True)}


def rows(data: Table, keep: np.ndarray) -> Table:
    """The rows selected by a mask or an index."""
    return {name: column[keep] for name, column in data.items()}


def stack(tables: Iterable[Table]) -> Table:
    """Tables of the same columns, one below the other."""
    tables = list(tables)
    return {name: np.concatenate([part[name] for part in tables]) for name in tables[0]}
