"""Exact weights: the query, key and value matrices as rationals.

A stored float is a dyadic rational, so every float32, float64 or bfloat16 weight is represented exactly.
Convention: weights act on column vectors, so W = QᵀK/√d_k for `q = Q x`; a PyTorch `nn.Linear` stores its
weight in just this orientation.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_mat

from theory.errors import InputError


def rational_matrix(argument: str, values: Any) -> fmpq_mat:
    """A two-dimensional array (or nested list) of ints, Fractions or floats as exact rationals.

    Raises InputError for ragged, empty, non-two-dimensional, complex, non-numeric or non-finite input.
    """
    if isinstance(values, fmpq_mat):
        return values
    try:
        array = np.asarray(values)
    except ValueError:
        array = None
    except (TypeError, RuntimeError) as error:  # PyTorch: bfloat16, or a tensor that requires a gradient
        raise InputError(
            argument,
            got=f"an array that NumPy cannot read ({error})",
            expected="a real matrix",
            fix="for a tensor pass t.detach().cpu().float()",
        ) from error
    if array is None or array.ndim != 2 or 0 in array.shape:
        got = "a ragged nested list" if array is None else f"shape {array.shape}"
        raise InputError(
            argument, got=got, expected="a non-empty matrix (rows, columns)", fix="pass a 2-D array"
        )
    if array.dtype.kind not in "biufO":
        raise InputError(
            argument, got=f"dtype {array.dtype}", expected="real numbers", fix="pass a real array"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            argument,
            got=f"{array[where]} at {where}",
            expected="finite entries",
            fix="remove NaN and infinities from the weights",
        )
    # NumPy rounds integers that stand beside floats in a list, so a list's own entries are taken.
    rows = values if isinstance(values, list | tuple) else array.tolist()
    try:
        entries = [_rational(entry) for row in rows for entry in row]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(
            argument,
            got=f"an entry that is not a finite number ({error})",
            expected="finite real numbers",
            fix="pass numbers",
        ) from error
    return fmpq_mat(array.shape[0], array.shape[1], entries)


def _rational(value: Any) -> fmpq:
    if isinstance(value, fmpq):
        return value
    if isinstance(value, str):
        raise TypeError(f"{value!r} is a string")
    if isinstance(value, np.generic):
        value = value.item()
    fraction = Fraction(value)
    return fmpq(fraction.numerator, fraction.denominator)


def identity(size: int) -> fmpq_mat:
    return fmpq_mat(size, size, [int(i == j) for i in range(size) for j in range(size)])


def symmetric_part(matrix: fmpq_mat) -> fmpq_mat:
    return (matrix + matrix.transpose()) * fmpq(1, 2)


@dataclass(frozen=True)
class Weights:
    """One attention layer as exact matrices.

    `form` is QᵀK (d×d), `value` is V (d×d); the score matrix is W = form/√d_k, with the positive number
    `scale_squared` = 1/d_k kept apart because its root need not be rational. No sign condition depends on it.
    `unit_roundoff` is half the spacing of the stored floats (0 for exact input): the relative size of the
    rounding ball around each weight.
    """

    form: fmpq_mat
    value: fmpq_mat
    scale_squared: fmpq = fmpq(1)
    unit_roundoff: fmpq = fmpq(0)

    def __post_init__(self) -> None:
        for name in ("form", "value"):
            matrix = getattr(self, name)
            if matrix.nrows() != matrix.ncols():
                raise InputError(
                    name,
                    got=f"shape ({matrix.nrows()}, {matrix.ncols()})",
                    expected="a square matrix (d, d)",
                    fix="pass the map from tokens to tokens (for several heads: their sum)",
                )
        if self.form.nrows() != self.value.nrows():
            raise InputError(
                "value",
                got=f"size {self.value.nrows()}",
                expected=f"the size of the scores' matrix, {self.form.nrows()}",
                fix="query and key must have d columns, value must be (d, d)",
            )

    @classmethod
    def of(cls, score: Any, value: Any) -> "Weights":
        """From W and V themselves."""
        return cls(rational_matrix("score", score), rational_matrix("value", value))

    @classmethod
    def from_response(cls, score: Any, response: Any) -> "Weights":
        """From W and an invertible A, with V = A⁻¹W. Raises InputError for a singular or mismatched A."""
        score, response = rational_matrix("score", score), rational_matrix("response", response)
        try:
            value = response.solve(score)
        except (ZeroDivisionError, ValueError) as error:
            raise InputError(
                "response",
                got=f"a {'singular' if isinstance(error, ZeroDivisionError) else 'mismatched'} matrix",
                expected="an invertible matrix of the size of score",
                fix="give V itself where A is not invertible",
            ) from error
        return cls(score, value)

    @classmethod
    def from_projections(cls, query: Any, key: Any, value: Any, scale: Any = None) -> "Weights":
        """From Q, K of shape (d_k, d) and V of shape (d, d); W = scale·QᵀK, by default scale = 1/√d_k.

        Raises InputError for mismatched shapes, non-finite or complex entries, and a scale not positive.
        """
        given = (("query", query), ("key", key), ("value", value))
        query, key, value = (rational_matrix(name, matrix) for name, matrix in given)
        roundoff = max(_unit_roundoff(matrix) for _, matrix in given)
        if (query.nrows(), query.ncols()) != (key.nrows(), key.ncols()):
            raise InputError(
                "key",
                got=f"shape ({key.nrows()}, {key.ncols()})",
                expected=f"the shape of query, ({query.nrows()}, {query.ncols()})",
                fix="pass query and key as (d_k, d), the orientation of nn.Linear.weight",
            )
        if scale is None:
            squared = fmpq(1, query.nrows())
        else:
            try:
                factor = _rational(scale)
            except (TypeError, ValueError, OverflowError):
                factor = fmpq(0)
            squared = factor**2
            if factor <= 0:
                raise InputError(
                    "scale",
                    got=f"{scale}",
                    expected="a positive finite number",
                    fix="leave it out for 1/√d_k",
                )
        return cls(query.transpose() * key, value, squared, roundoff)

    @property
    def dim(self) -> int:
        return self.form.nrows()

    @property
    def scale(self) -> arb:
        """The positive factor of W = scale·form, as a ball."""
        return arb(self.scale_squared).sqrt()

    @cached_property
    def response_exists(self) -> bool:
        """Whether V is invertible, so that A = W V⁻¹ is defined (exact rank)."""
        return self.value.rank() == self.dim

    @cached_property
    def response_form(self) -> fmpq_mat:
        """A/scale = form·V⁻¹, exactly; only for small d (entries grow)."""
        return self.value.transpose().solve(self.form.transpose()).transpose()

    @cached_property
    def congruent_response(self) -> fmpq_mat:
        """VᵀAV/scale = Vᵀ·form: same symmetry and same inertia as A, without an inverse (L5's congruence)."""
        return self.value.transpose() * self.form


def _unit_roundoff(values: Any) -> fmpq:
    dtype = np.asarray(values).dtype
    return _rational(float(np.finfo(dtype).eps)) / 2 if np.issubdtype(dtype, np.floating) else fmpq(0)
