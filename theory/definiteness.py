"""Sign of a symmetric matrix, by LDLᵀ over the rationals, or by a congruence or LDLᵀ over Arb balls.

Eigenvalues are never used as proof: floats propose a shift, a witness or a congruence; the factorisation, the
witness's quadratic form or Gershgorin's discs prove it. Sylvester's law of inertia makes the signs of the
pivots the signs of the eigenvalues (Golub & Van Loan, Matrix Computations, §4.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

import numpy as np
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

from theory.enclosure import rational_point
from theory.proposals import dyadic, eigenpairs, smallest_pencil_eigenpair
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import identity

EXACT_SIZE = 24  # above this size the pivots' rationals grow too long, and balls take over
BALL_PRECISIONS = (192, 768)  # bits
_SLACK = fmpq(1, 2**30)  # how far below the proposed eigenvalue the proof is attempted


@dataclass(frozen=True)
class Inertia:
    """Numbers of positive, negative and zero eigenvalues."""

    positive: int
    negative: int
    zero: int


def inertia(matrix: fmpq_mat) -> tuple[Inertia, Grade] | None:
    """Inertia of a symmetric rational matrix, or None where the balls stay too wide to tell."""
    if matrix.nrows() <= EXACT_SIZE:
        found = _ldl(matrix)
        return (found, Grade.EXACT) if found else None
    found = _by_congruence(matrix)
    if found:
        return found, Grade.INTERVAL
    for precision in BALL_PRECISIONS:
        with ctx.workprec(precision):
            found = _ldl(arb_mat(matrix))
        if found:
            return found, Grade.INTERVAL
    return None


def _by_congruence(matrix: fmpq_mat) -> Inertia | None:
    """Signs of the diagonal of XMXᵀ, X a guess at the eigenvectors; None unless it dominates every row.

    By Gershgorin a dominant diagonal has the signs of the eigenvalues and makes XMXᵀ regular, hence X too,
    and Sylvester's law applies: nothing is assumed of X. Two matrix products, so fast where d is large.
    """
    try:
        guess = dyadic(np.array([vector.real for _, vector in eigenpairs(matrix)]))
    except (ArithmeticError, ValueError):  # numpy's LinAlgError is a ValueError: the floats gave up
        return None
    with ctx.workprec(BALL_PRECISIONS[0]):
        near_diagonal = (arb_mat(guess) * arb_mat(matrix) * arb_mat(guess.transpose())).tolist()
        positive = negative = 0
        for i, row in enumerate(near_diagonal):
            rest = sum((abs(entry) for j, entry in enumerate(row) if j != i), arb(0))
            positive, negative = positive + (row[i] > rest), negative + (row[i] < -rest)
    return Inertia(positive, negative, 0) if positive + negative == len(near_diagonal) else None


def _ldl(matrix: fmpq_mat | arb_mat) -> Inertia | None:
    """Pivot signs of a diagonally pivoted LDLᵀ with 1×1 and 2×2 blocks; None if a sign stays open."""
    left, positive, negative = list(range(matrix.nrows())), 0, 0
    while left:
        block = _pivot(matrix, left)
        if block is None:
            rest_is_zero = all(matrix[i, j] == 0 for i in left for j in left)
            return Inertia(positive, negative, len(left)) if rest_is_zero else None
        signs = [1, -1] if len(block) == 2 else [1 if matrix[block[0], block[0]] > 0 else -1]
        positive, negative = positive + signs.count(1), negative + signs.count(-1)
        left = [i for i in left if i not in block]
        columns = _submatrix(matrix, range(matrix.nrows()), block)
        matrix = matrix - columns * _submatrix(matrix, block, block).inv() * columns.transpose()
    return Inertia(positive, negative, 0)


def _submatrix(matrix: fmpq_mat | arb_mat, rows: Sequence[int], columns: Sequence[int]) -> fmpq_mat | arb_mat:
    return type(matrix)(len(rows), len(columns), [matrix[i, j] for i in rows for j in columns])


def _pivot(matrix: fmpq_mat | arb_mat, left: list[int]) -> list[int] | None:
    """The largest diagonal entry of certain sign, else a pair whose 2×2 minor is certainly negative."""
    signed = [i for i in left if matrix[i, i] > 0 or matrix[i, i] < 0]
    if signed:
        return [max(signed, key=lambda i: float(arb(abs(matrix[i, i])).mid()))]
    pairs = ((i, j) for a, i in enumerate(left) for j in left[a + 1 :])
    return next(
        ([i, j] for i, j in pairs if matrix[i, i] * matrix[j, j] - matrix[i, j] * matrix[i, j] < 0), None
    )


def positive_definite(form: fmpq_mat, metric: fmpq_mat | None = None, unit: arb | int = 1) -> Verdict:
    """Is the symmetric `form` positive definite? The margin bounds its smallest eigenvalue.

    With a positive definite `metric` the eigenvalues are those of the pencil (form, metric), so that
    (VᵀW)ₛ against VᵀV asks about Aₛ without inverting V. HOLDS comes with a proved lower bound on the
    smallest eigenvalue, FAILS with an exact witness u: uᵀ·form·u ≤ 0. The margin is stated in multiples of
    the positive number `unit`.
    """
    metric = identity(form.nrows()) if metric is None else metric
    try:
        guess, witness = smallest_pencil_eigenpair(form, metric)
    except (ArithmeticError, ValueError):  # numpy's LinAlgError is a ValueError: the floats gave up
        guess, witness = fmpq(0), identity(form.nrows())
    if guess < 0:
        quotient = rayleigh_quotient(form, metric, witness)
        if quotient < 0:
            return fails(
                Grade.EXACT,
                "a vector u with uᵀMu < 0 is known exactly",
                f"≤ {decimal_bound(quotient * unit, ROUND_CEILING)}",
            )
    for bound in _lower_bounds(guess):
        shifted = inertia(form - metric * bound)
        if shifted and shifted[0].negative == 0:
            return holds(
                shifted[1],
                "Sylvester's law: every pivot is positive",
                f"≥ {decimal_bound(bound * unit, ROUND_FLOOR)}",
            )
    found = inertia(form)
    if found is None:
        return undecided("the signs of the pivots stay undetermined at the highest precision")
    if found[0].positive == form.nrows():
        return holds(found[1], "Sylvester's law: every pivot is positive", "> 0")
    return fails(
        found[1], f"Sylvester's law: {found[0].negative} negative and {found[0].zero} zero pivots", "≤ 0"
    )


def _lower_bounds(guess: fmpq) -> list[fmpq]:
    """Positive bounds to try: the guess rounded to four digits if that hardly moves it, and a little less."""
    if guess <= 0:
        return []
    digits = Decimal(f"{Decimal(int(guess.p)) / Decimal(int(guess.q)):.4g}")
    rounded = fmpq(*digits.as_integer_ratio())
    return [rounded] * (abs(rounded - guess) <= guess * _SLACK) + [guess - guess * _SLACK]


def rayleigh_quotient(form: fmpq_mat, metric: fmpq_mat, vector: fmpq_mat) -> fmpq:
    """uᵀ·form·u / uᵀ·metric·u, exactly, for u of shape (d, 1)."""
    return (vector.transpose() * form * vector)[0, 0] / (vector.transpose() * metric * vector)[0, 0]


def decimal(value: fmpq | arb, digits: int = 4) -> str:
    """A short decimal of a rational or ball, for people (the verdict itself was decided exactly)."""
    return arb(value).mid().str(digits, radius=False)


def decimal_bound(value: fmpq | arb, rounding: str) -> str:
    """A four-digit decimal certainly ≤ the value (ROUND_FLOOR) or ≥ it (ROUND_CEILING)."""
    ball = arb(value)
    end = rational_point(ball.lower() if rounding == ROUND_FLOOR else ball.upper())
    return f"{Context(prec=4, rounding=rounding).divide(Decimal(int(end.p)), Decimal(int(end.q))):g}"
