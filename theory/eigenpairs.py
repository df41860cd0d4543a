"""Certified statements about the spectrum of a real matrix: enclosed eigenpairs, Hurwitz or not.

The enclosure is Krawczyk's operator applied to F(u, μ) = (Mu − μu, u_k − 1) (Rump, Verification methods,
Acta Numerica 2010, §13). It needs a simple eigenvalue; multiple ones are settled exactly by Sturm
sequences of the characteristic polynomial when the matrix is small.
"""

from dataclasses import dataclass
from decimal import ROUND_FLOOR

import numpy as np
from flint import acb, acb_mat, arb, ctx, fmpq, fmpq_mat
from sympy import Poly, Rational, Symbol

from theory.definiteness import EXACT_SIZE, decimal_bound, positive_definite
from theory.proposals import eigenpairs, lyapunov_solution
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import identity, symmetric_part

PRECISION = 128  # bits


@dataclass(frozen=True)
class Eigenpair:
    """Balls that contain exactly one eigenvalue and its right eigenvector (one entry scaled to 1)."""

    value: acb
    vector: acb_mat


def enclose_eigenpair(matrix: fmpq_mat, value: complex, vector: np.ndarray) -> Eigenpair | None:
    """A proved enclosure of the eigenpair near a floating-point guess, or None if Krawczyk's test fails."""
    with ctx.workprec(PRECISION):
        return _krawczyk(matrix, value, vector)


def _krawczyk(matrix: fmpq_mat, value: complex, vector: np.ndarray) -> Eigenpair | None:
    size = matrix.nrows()
    pinned = int(np.abs(vector).argmax())
    guess = [acb(complex(x).real, complex(x).imag) for x in (*(vector / vector[pinned]), value)]
    guess[pinned] = acb(1)
    exact = acb_mat(matrix)
    try:
        inverse = _jacobian(exact, guess, pinned).inv().mid()
    except (ZeroDivisionError, ValueError):
        return None
    vector_guess = acb_mat(size, 1, guess[:-1])
    residual = exact * vector_guess - vector_guess * guess[-1]
    newton = inverse * acb_mat(size + 1, 1, [*residual.entries(), acb(0)])
    radius = 2 * max((abs(x).upper() for x in newton.entries()), key=float) + arb(2) ** (-PRECISION // 2)
    unit_square = acb(arb(0, radius), arb(0, radius))
    spread = acb_mat(size + 1, 1, [unit_square] * (size + 1))
    ball = [centre + unit_square for centre in guess]
    contraction = acb_mat(identity(size + 1)) - inverse * _jacobian(exact, ball, pinned)
    image = contraction * spread - newton
    inside = all(abs(x.real) < radius and abs(x.imag) < radius for x in image.entries())
    if not inside:
        return None
    enclosed = [centre + shift for centre, shift in zip(guess, image.entries(), strict=True)]
    return Eigenpair(enclosed[-1], acb_mat(size, 1, enclosed[:-1]))


def _jacobian(matrix: acb_mat, point: list[acb], pinned: int) -> acb_mat:
    """[[M − μI, −u], [e_kᵀ, 0]] at (u, μ)."""
    size = matrix.nrows()
    rows = [
        [matrix[i, j] - (point[-1] if i == j else 0) for j in range(size)] + [-point[i]] for i in range(size)
    ]
    return acb_mat([*rows, [acb(int(j == pinned)) for j in range(size + 1)]])


def _guesses(matrix: fmpq_mat) -> list[tuple[complex, np.ndarray]]:
    """Guesses at all eigenpairs, or none where an entry overflows or the floats do not converge."""
    try:
        return eigenpairs(matrix)
    except (ArithmeticError, ValueError):
        return []


def hurwitz(matrix: fmpq_mat) -> Verdict:
    """Do all eigenvalues have negative real part?

    HOLDS through an exact Lyapunov matrix, FAILS through the rank, the trace, a coefficient of the
    characteristic polynomial (all exact) or an enclosed eigenvalue (interval). The margin is |max Re λ|.
    """
    size = matrix.nrows()
    guesses = _guesses(matrix)
    if not guesses:
        return undecided("floating point gives no guess at the eigenvalues")
    abscissa = guesses[0][0].real
    if abscissa < 0 and (lyapunov := lyapunov_solution(matrix)) is not None:
        decay = -symmetric_part(lyapunov * matrix)
        proofs = [positive_definite(lyapunov), positive_definite(decay)]
        if all(proof.holds for proof in proofs):
            return holds(min(p.grade for p in proofs), "a Lyapunov matrix proves it", f"≈ {-abscissa:.4g}")
    if matrix.rank() < size:
        return fails(Grade.EXACT, "0 is an eigenvalue", f"≈ {-max(abscissa, 0.0):.4g}")
    if sum((matrix[i, i] for i in range(size)), fmpq(0)) >= 0:
        return fails(
            Grade.EXACT, f"the trace is not negative; max Re λ ≈ {abscissa:.4g}", f"≈ {-abscissa:.4g}"
        )
    for value, vector in guesses[: 2 if size > EXACT_SIZE else size]:
        pair = enclose_eigenpair(matrix, value, vector)
        if pair is not None and pair.value.real > 0:
            real = pair.value.real.str(6, radius=False)
            return fails(Grade.INTERVAL, f"an enclosed eigenvalue has real part {real} > 0", f"-{real}")
    if size <= EXACT_SIZE and any(c <= 0 for c in list(matrix.charpoly())):
        return fails(Grade.EXACT, "its characteristic polynomial has a coefficient ≤ 0", f"≈ {-abscissa:.4g}")
    return undecided("no eigenvalue could be certified on either side", f"≈ {-abscissa:.4g}")


def unstable(matrix: fmpq_mat) -> Verdict:
    """Is there an eigenvalue with positive real part? The margin bounds the largest real part.

    HOLDS by an enclosed eigenvalue (interval) or a positive trace (exact), FAILS if the matrix is Hurwitz.
    An eigenvalue exactly on the imaginary axis, with none to its right, stays UNDECIDED.
    """
    guesses = _guesses(matrix)
    for value, vector in guesses[:2]:
        pair = enclose_eigenpair(matrix, value, vector) if value.real > 0 else None
        if pair is not None and pair.value.real > 0:
            return holds(
                Grade.INTERVAL, "an enclosed eigenvalue", f"≥ {decimal_bound(pair.value.real, ROUND_FLOOR)}"
            )
    mean = sum((matrix[i, i] for i in range(matrix.nrows())), fmpq(0)) / matrix.nrows()
    if mean > 0:
        return holds(Grade.EXACT, "the trace is positive", f"≥ {decimal_bound(mean, ROUND_FLOOR)}")
    verdict = hurwitz(matrix) if guesses and guesses[0][0].real < 0 else undecided("")
    if verdict.holds:
        return fails(verdict.grade, f"Hurwitz: {verdict.reason}", "< 0")
    return undecided("no eigenvalue to the right of the imaginary axis could be certified")


def positive_eigenvalue(matrix: fmpq_mat) -> Verdict:
    """Is there a real eigenvalue λ > 0? The margin bounds the largest certified one."""
    if matrix.nrows() <= EXACT_SIZE:
        roots = _positive_roots(matrix)
        if not roots:
            return fails(Grade.EXACT, "Sturm's theorem: the characteristic polynomial has no root > 0")
        margin = f"μ ≥ {decimal_bound(roots[-1], ROUND_FLOOR)}"
        return holds(Grade.EXACT, "Sturm's theorem isolates a root > 0", margin)
    for value, vector in _guesses(matrix):
        if value.real > 0 and value.imag == 0:
            pair = enclose_eigenpair(matrix, value, vector)
            # The ball around a real centre is its own conjugate, so its only eigenvalue is real.
            if pair is not None and pair.value.real > 0:
                margin = f"μ ≥ {decimal_bound(pair.value.real, ROUND_FLOOR)}"
                return holds(Grade.INTERVAL, "an enclosed real eigenvalue", margin)
    return undecided("no real positive eigenvalue was found to certify")


def _positive_roots(matrix: fmpq_mat) -> list[fmpq]:
    """Lower bounds of the positive eigenvalues, within a relative 2⁻²⁰, ascending."""
    coefficients = [Rational(int(c.p), int(c.q)) for c in list(matrix.charpoly())]
    polynomial = Poly(coefficients[::-1], Symbol("x"), domain="QQ").sqf_part()
    # x = 0 is a root at most once now; without it every isolating interval can be made to exclude 0.
    if polynomial.eval(0) == 0:
        polynomial = polynomial.quo(Poly(polynomial.gen, polynomial.gen))
    found = []
    for (low, high), _ in polynomial.intervals(inf=0):
        while high - low > low / 2**20:
            low, high = polynomial.refine_root(low, high, eps=(high - low) / 1024)
        found.append(low)
    return sorted(fmpq(int(root.p), int(root.q)) for root in found)


def eigenvalues(matrix: fmpq_mat) -> list[acb]:
    """All eigenvalues as balls (multiple ones share a ball), NaN where none are found; small d only."""
    with ctx.workprec(PRECISION):
        return ball_eigenvalues(acb_mat(matrix))


def ball_eigenvalues(matrix: acb_mat) -> list[acb]:
    """The same for a matrix of balls: they contain the eigenvalues of every matrix within."""
    with ctx.workprec(PRECISION):
        try:
            return matrix.eig(multiple=True, maxiter=1000)
        except ValueError:  # FLINT cannot isolate the eigenvalues, e.g. of a nilpotent matrix
            return [acb(arb.nan(), arb.nan())] * matrix.nrows()


def pencil_minimum(form: fmpq_mat, metric: fmpq_mat) -> arb:
    """The smallest eigenvalue of the symmetric pencil (form, metric), metric ≻ 0, as a ball; small d only."""
    smallest, *rest = (value.real for value in eigenvalues(metric.inv() * form))
    for value in rest:
        smallest = smallest.min(value)
    return smallest
