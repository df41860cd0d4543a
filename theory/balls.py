"""Real matrices with proved error bounds at the speed of BLAS: midpoint-radius arithmetic in float64.

A `Ball` stands for every real matrix M with |M − mid| ≤ rad, entry by entry. Each operation encloses the
exact result for all members of its operands: the midpoint is what the floats give, and the radius adds an
a-priori bound of their rounding error to the spread of the operands (Rump, Verification methods, Acta
Numerica 2010, §§3–9; Higham, Accuracy and Stability of Numerical Algorithms, ch. 3). What is assumed:

- float64 is IEEE double precision, rounded to nearest, with gradual underflow;
- a matrix product is computed as sums of products, in any order, with or without fused multiply-add
  (BLAS does this; a Strassen-like or emulated product does not);
- no overflow: this is checked, as every result must be finite.

Radii are themselves computed in floats; `outward` inflates them past their own rounding errors.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from theory.errors import InputError

UNIT = 2.0**-53  # unit roundoff of float64
TINY = 2.0**-1000  # above the sum of the underflow errors, 2⁻¹⁰⁷⁵ each, of any expression that fits a memory
_SQUARED = 2.0**-500  # the same below a square root
_CHUNK = 64  # a product is summed in chunks of this many terms: error (64 + n/64)·u in place of n·u


def outward(value: np.ndarray, roundings: int) -> np.ndarray:
    """An upper bound of a non-negative expression that floats evaluate to `value`.

    `roundings` counts the rounded operations that one term passes through: each loses at most a factor
    1 − u, and 2u·(roundings + 4) also pays for the three operations here.
    """
    return value * (1 + (roundings + 4) * 2 * UNIT) + TINY


@dataclass(frozen=True, eq=False)
class Ball:
    """All real matrices M with |M − mid| ≤ rad entry by entry; `mid` and `rad` are float64 (r, c).

    Raises InputError for other types, unequal shapes or a negative radius, ArithmeticError where an entry is
    not finite (an operation overflowed).
    """

    mid: np.ndarray
    rad: np.ndarray

    def __post_init__(self) -> None:
        if self.mid.ndim != 2 or 0 in self.mid.shape or self.mid.shape != self.rad.shape:
            raise _shape_error("Ball", self.mid.shape, self.rad.shape, "two equal non-empty shapes (r, c)")
        if not (np.isfinite(self.mid).all() and np.isfinite(self.rad).all()):
            raise ArithmeticError("a ball matrix has an entry outside the range of float64")
        if self.mid.dtype != np.float64 or self.rad.dtype != np.float64:
            got = f"{self.mid.dtype} and {self.rad.dtype}"
            raise InputError("Ball", got=got, expected="float64", fix="use exact() for stored weights")
        if (self.rad < 0).any():
            raise InputError(
                "rad", got="a negative radius", expected="rad ≥ 0", fix="pass its absolute value"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.mid.shape

    @property
    def T(self) -> "Ball":  # noqa: N802 - as in NumPy
        return Ball(self.mid.T, self.rad.T)

    def __getitem__(self, key: Any) -> "Ball":
        """A submatrix; the key must keep two dimensions, as `ball[2:5]` or `ball[:, columns]`."""
        return Ball(self.mid[key], self.rad[key])

    def __neg__(self) -> "Ball":
        return Ball(-self.mid, self.rad)

    @np.errstate(all="ignore")
    def __add__(self, other: "Ball") -> "Ball":
        if self.shape != other.shape:
            raise _shape_error("+", self.shape, other.shape, "equal shapes")
        mid = self.mid + other.mid
        return Ball(mid, outward(self.rad + other.rad + UNIT * np.abs(mid), 3))

    def __sub__(self, other: "Ball") -> "Ball":
        return self + (-other)

    @np.errstate(all="ignore")
    def __mul__(self, factor: "float | Ball") -> "Ball":
        """Multiple by a float, taken as exact, or by a number known as a ball of shape (1, 1)."""
        if not isinstance(factor, Ball):
            factor = Ball(np.array([[float(factor)]]), np.zeros((1, 1)))
        if factor.shape != (1, 1):
            raise _shape_error("*", self.shape, factor.shape, "a number; matrices are multiplied by @")
        return self._times(factor.mid, factor.rad)

    @np.errstate(all="ignore")
    def scale_columns(self, factors: np.ndarray) -> "Ball":
        """self · diag(factors) for exact factors of shape (c,)."""
        return self._times(factors, np.zeros(()))

    def _times(self, factor: np.ndarray, spread: np.ndarray) -> "Ball":
        """Entry by entry, `factor` and its radius `spread` being broadcast."""
        mid = self.mid * factor
        reach = np.abs(self.mid) + self.rad
        return Ball(mid, outward(self.rad * np.abs(factor) + reach * spread + UNIT * np.abs(mid), 5))

    @np.errstate(all="ignore")
    def __matmul__(self, other: "Ball") -> "Ball":
        """|fl(AB) − AB| ≤ γ|A||B| with γ = ku/(1 − ku), k roundings; two or three BLAS products in all."""
        inner = self.shape[1]
        if inner != other.shape[0]:
            raise _shape_error("@", self.shape, other.shape, "(r, k) @ (k, c)")
        starts = range(0, inner, _CHUNK)
        mid = sum(self.mid[:, k : k + _CHUNK] @ other.mid[k : k + _CHUNK] for k in starts)
        roundings = min(inner, _CHUNK) + len(starts)
        left, right = np.abs(self.mid), np.abs(other.mid)
        rad = left @ outward(other.rad + (roundings + 1) * UNIT * right, 3)
        if self.rad.any():
            rad = rad + self.rad @ outward(right + other.rad, 1)
        return Ball(mid, outward(rad, inner + 2))

    def symmetric_part(self) -> "Ball":
        """(M + Mᵀ)/2 of a square M."""
        return (self + self.T) * 0.5

    @np.errstate(all="ignore")
    def magnitude(self) -> np.ndarray:
        """Upper bounds of the absolute entries, (r, c)."""
        return outward(np.abs(self.mid) + self.rad, 1)

    @np.errstate(all="ignore")
    def norm_bound(self) -> float:
        """An upper bound of the spectral norm: the smaller of ‖·‖_F and √(‖·‖₁‖·‖_∞).

        Raises ArithmeticError where both overflow.
        """
        entries = self.magnitude()
        frobenius = outward(np.sqrt((entries * entries).sum()), entries.size + 2) + _SQUARED
        columns, rows = (entries.sum(axis=axis).max() for axis in (0, 1))
        mixed = outward(np.sqrt(columns) * np.sqrt(rows), sum(self.shape) + 3)
        bound = float(min(frobenius, mixed))
        if not np.isfinite(bound):
            raise ArithmeticError("a norm exceeds the range of float64")
        return bound

    @np.errstate(all="ignore")
    def shifted(self, exponent: int) -> "Ball":
        """2^exponent times the matrix, exactly but for entries that underflow."""
        mid, rad = np.ldexp(self.mid, exponent), np.ldexp(self.rad, exponent)
        exact = (np.ldexp(mid, -exponent) == self.mid) & (np.ldexp(rad, -exponent) == self.rad)
        return Ball(mid, np.where(exact, rad, outward(rad, 1)))


def exact(array: Any, argument: str = "matrix") -> Ball:
    """The ball of radius 0 around a real matrix (r, c) whose entries are float64 numbers.

    Floats of up to 64 bits and integers up to 2⁵³ qualify. Raises InputError for anything else: other types,
    other shapes, entries that float64 cannot hold or that are not finite.
    """
    given = np.asarray(array)
    if given.dtype.kind not in "fiu" or given.ndim != 2 or 0 in given.shape:
        raise InputError(
            argument,
            got=f"{given.dtype} of shape {given.shape}",
            expected="a non-empty real matrix (r, c)",
            fix="pass a 2-D array of floats or integers",
        )
    with np.errstate(all="ignore"):
        mid = given.astype(np.float64)
        kept = np.isfinite(mid) & (mid.astype(given.dtype) == given)
    if given.dtype.kind in "iu":
        kept &= np.abs(mid) <= 2.0**53
    if not kept.all():
        raise InputError(
            argument,
            got="an entry that is not finite or needs more than 53 bits",
            expected="entries that float64 holds exactly",
            fix="repair the entry, or convert the matrix to float64 first",
        )
    return Ball(mid, np.zeros_like(mid))


def stack(*blocks: Ball) -> Ball:
    """Balls with equally many columns, one below the other."""
    return Ball(np.vstack([b.mid for b in blocks]), np.vstack([b.rad for b in blocks]))


def inverse_root(number: int) -> Ball:
    """1/√number as a ball of shape (1, 1), for the scale 1/√d_k; `number` is a positive integer ≤ 2⁵³."""
    if not 0 < number <= 2**53:
        raise InputError("number", got=str(number), expected="1 … 2⁵³", fix="pass the head dimension")
    mid = np.array([[1 / np.sqrt(float(number))]])
    return Ball(
        mid, outward(4 * UNIT * mid, 1)
    )  # the root and the quotient are each off by at most a factor 1 ± u


def _shape_error(argument: str, left: tuple[int, ...], right: tuple[int, ...], expected: str) -> InputError:
    return InputError(argument, got=f"shapes {left} and {right}", expected=expected, fix="check the shapes")
