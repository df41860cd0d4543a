"""Certified spectra of large real matrices: floats propose eigenvectors, ball arithmetic proves the rest.

Every function takes `Ball` matrices and states something about *every* matrix in them, on the assumptions
about float64 listed in `theory.balls`; a computation that proves nothing returns None, never a guess. The
cost is one LAPACK decomposition and a few matrix products.

A head's matrices have low rank, so feed their factors: `low_rank_spectrum` takes Q over K, and the non-zero
eigenvalues of V_h = O V' (d×d) are those of V'O (d_v×d_v). For A = WV⁻¹ with V regular, A_s has the
inertia of (VᵀW)_s by congruence, which is far sharper than the spectrum of an enclosure of A.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np

from theory.balls import TINY, Ball, outward
from theory.definiteness import Inertia
from theory.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Enclosure:
    """Intervals of the eigenvalues of a symmetric matrix in ascending order: `lower` and `upper`, (n,).

    The i-th smallest eigenvalue, counted with its multiplicity, lies in [lower[i], upper[i]].
    """

    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True, eq=False)
class Discs:
    """Discs whose union holds all eigenvalues of a real matrix: `centres` (n,) complex, `radii` (n,).

    Discs with the same number in `component` (n,) stay clear of all others, and together they hold exactly
    as many eigenvalues, with multiplicities, as they are discs.
    """

    centres: np.ndarray
    radii: np.ndarray
    component: np.ndarray

    def abscissa(self) -> tuple[float, float]:
        """Proved bounds (lower, upper) of max Re λ."""
        left, right = self._sides()
        return max(left.values()), max(right.values())

    def unstable(self) -> tuple[int, int]:
        """The (least, most) number of eigenvalues with positive real part, with multiplicities."""
        left, right = self._sides()
        sizes = {k: int((self.component == k).sum()) for k in left}
        least = sum(size for k, size in sizes.items() if left[k] > 0)
        return least, sum(size for k, size in sizes.items() if right[k] > 0)

    def real_positive(self) -> list[tuple[float, float]]:
        """Intervals (lower, upper), lower > 0, with exactly one real eigenvalue each; ascending.

        The spectrum of a real matrix is its own mirror image in the real axis, and so is a disc with a real
        centre: where such a disc holds one eigenvalue only, that one is its own conjugate.
        """
        alone = np.bincount(self.component, minlength=len(self.component))[self.component] == 1
        chosen = np.flatnonzero(alone & (self.centres.imag == 0))
        low = _down(self.centres.real - self.radii)
        high = _up(self.centres.real + self.radii)
        return sorted((float(low[i]), float(high[i])) for i in chosen if low[i] > 0)

    def _sides(self) -> tuple[dict[int, float], dict[int, float]]:
        """Least and greatest real part that each component can hold."""
        left, right = _down(self.centres.real - self.radii), _up(self.centres.real + self.radii)
        numbers = [int(k) for k in np.unique(self.component)]
        members = {k: self.component == k for k in numbers}
        lows = {k: float(left[m].min()) for k, m in members.items()}
        return lows, {k: float(right[m].max()) for k, m in members.items()}


def _up(value: np.ndarray) -> np.ndarray:
    """Above what three rounded operations without cancellation between them may have lost."""
    return value + (np.abs(value) * 2.0**-50 + TINY)


def _down(value: np.ndarray) -> np.ndarray:
    return value - (np.abs(value) * 2.0**-50 + TINY)


def _none_if_floats_fail(function: Callable[P, T]) -> Callable[P, T | None]:
    """None where an operation overflows or LAPACK finds no decomposition."""

    @wraps(function)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            with np.errstate(all="ignore"):
                return function(*args, **kwargs)
        except (ArithmeticError, np.linalg.LinAlgError):
            return None

    return attempt


@_none_if_floats_fail
def symmetric_spectrum(S: Ball) -> Enclosure | None:
    """Intervals for the eigenvalues of every symmetric matrix in S (n, n); None where none are proved.

    With floats Q ≈ the eigenvectors, D ≈ the eigenvalues, QᵀQ = I + E and R = SQ − QD, the matrix
    QᵀSQ − D = ED + QᵀR has norm at most β = ‖E‖max|D| + ‖Q‖‖R‖, so Weyl's theorem gives the spectrum of
    QᵀSQ, and Ostrowski's (Horn & Johnson, Matrix Analysis, thm 4.5.9) that of S: the quotients lie in
    [1 − ‖E‖, 1 + ‖E‖]. Raises InputError where S is not square.
    """
    _require_square("S", S)
    S, exponent = _normalised(S)
    values, vectors = np.linalg.eigh((S.mid + S.mid.T) / 2)
    Q = _proposal(vectors)
    defect = (Q.T @ Q - _identity(len(values))).norm_bound()
    residual = (S @ Q - Q.scale_columns(values)).norm_bound()
    beta = outward(defect * np.abs(values).max() + np.sqrt(1 + defect) * residual, 5)
    return _ostrowski(values, beta, defect, exponent)


@_none_if_floats_fail
def low_rank_spectrum(B: Ball) -> Enclosure | None:
    """Intervals for the 2r non-zero eigenvalues of S = (QᵀK + KᵀQ)/2, B = [Q; K] of shape (2r, d), 2r ≤ d.

    Proves rank B = 2r as well, so by Sylvester's law (2S = BᵀJB, J = [[0, I], [I, 0]]) r eigenvalues are
    positive, r negative and d − 2r zero, even where an interval touches 0; None where the rows are not
    provably independent. S has its range in that of Bᵀ, so for C = BᵀY with CᵀC ≈ I its non-zero
    eigenvalues are those of the pencil (CᵀSC, CᵀC); they are enclosed as in `symmetric_spectrum`. Y comes
    from floats. Raises InputError for an odd number of rows or 2r > d.
    """
    rows, columns = B.shape
    if rows % 2 or rows > columns:
        raise InputError(
            "B", got=f"shape {B.shape}", expected="(2r, d) with 2r ≤ d", fix="use symmetric_spectrum instead"
        )
    B, exponent = _normalised(B)
    half = rows // 2
    triangle = np.linalg.qr(B.mid.T, mode="r")
    mixed = triangle[:, :half] @ triangle[:, half:].T
    values, vectors = np.linalg.eigh((mixed + mixed.T) / 2)
    C = B.T @ _proposal(np.linalg.solve(triangle, vectors))
    defect = (C.T @ C - _identity(rows)).norm_bound()
    compressed = ((B[:half] @ C).T @ (B[half:] @ C)).symmetric_part()
    beta = (compressed - _proposal(np.diag(values))).norm_bound()
    found = _ostrowski(values, beta, defect, 2 * exponent)
    if found is None:
        return None
    positive = np.arange(rows) >= half
    return Enclosure(
        np.where(positive, np.maximum(found.lower, 0), found.lower),
        np.where(positive, found.upper, np.minimum(found.upper, 0)),
    )


def _ostrowski(values: np.ndarray, beta: float, defect: float, exponent: int) -> Enclosure | None:
    """Eigenvalues of 2^exponent·S from values ± beta for CᵀSC and ‖CᵀC − I‖ ≤ defect."""
    if defect >= 0.5:
        return None
    values = np.sort(values)
    low, high = _down(values - beta), _up(values + beta)
    least, most = _down(1 - defect), _up(1 + defect)
    lower = _down(np.where(low > 0, low / most, low / least))
    upper = _up(np.where(high > 0, high / least, high / most))
    return Enclosure(_down(_unscaled(lower, exponent)), _up(_unscaled(upper, exponent)))


def inertia(enclosure: Enclosure, zeros: int = 0) -> Inertia | None:
    """Signs of the enclosed eigenvalues and of `zeros` known zero ones; None where an interval contains 0."""
    positive, negative = int((enclosure.lower > 0).sum()), int((enclosure.upper < 0).sum())
    return Inertia(positive, negative, zeros) if positive + negative == len(enclosure.lower) else None


@_none_if_floats_fail
def spectrum(V: Ball) -> Discs | None:
    """Discs that hold the eigenvalues of every real matrix in V (n, n); None where none are proved.

    Floats give a real basis X of eigenvectors (real and imaginary parts of a conjugate pair side by side),
    Y ≈ X⁻¹ and a block diagonal Λ ≈ X⁻¹VX. With YX = I + E, ‖E‖_∞ < 1 and R = VX − XΛ,
    X⁻¹VX − Λ = (I + E)⁻¹YR; a unitary change of basis in each pair makes Λ diagonal, and Gershgorin's
    theorem gives the discs. A disc clear of the others then shrinks by a diagonal scaling (Wilkinson, The
    Algebraic Eigenvalue Problem, ch. 2 §15). Raises InputError where V is not square.
    """
    _require_square("V", V)
    V, exponent = _normalised(V)
    values, vectors = np.linalg.eig(V.mid)
    first = np.flatnonzero(values.imag > 0)  # LAPACK puts a pair side by side, this one first
    centres, basis, partner = values.real.astype(complex), vectors.real.copy(), np.arange(len(values))
    centres[first], centres[first + 1] = values[first], values[first].conj()
    basis[:, first + 1] = vectors.imag[:, first]
    partner[first], partner[first + 1] = first + 1, first
    X, Y = _proposal(basis), _proposal(np.linalg.inv(basis))
    rest = _transformed_residual(V, X, Y, centres, partner)
    if rest is None:
        return None
    radii, component = _gershgorin(centres, _unitary_pairs(rest, first))
    centres = _unscaled(centres.real, exponent) + 1j * _unscaled(centres.imag, exponent)
    return Discs(centres, outward(_unscaled(radii, exponent), 1), component)


def _transformed_residual(
    V: Ball, X: Ball, Y: Ball, centres: np.ndarray, partner: np.ndarray
) -> np.ndarray | None:
    """Bounds of |X⁻¹VX − Λ|, entry by entry; None where YX may be singular.

    |(I + E)⁻¹F| ≤ |F| + |E|·|(I + E)⁻¹F|, and no entry of the last factor's column j exceeds
    max_k |F_kj|/(1 − ‖E‖_∞).
    """
    excess = outward((Y @ X - _identity(len(centres))).magnitude().sum(axis=1), len(centres))
    contraction = excess.max()
    if contraction >= 0.5:
        return None
    # X·Λ: column k of Λ has Re λ_k on the diagonal and Im λ_k in the partner's row ([[a, b], [−b, a]]).
    blocks = X.scale_columns(centres.real) + X[:, partner].scale_columns(-centres.imag)
    image = (Y @ (V @ X - blocks)).magnitude()
    second = np.outer(excess, outward(image.max(axis=0) / _down(1 - contraction), 1))
    return outward(image + second, 2)


def _unitary_pairs(bounds: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Bounds of |U*MU| from those of |M|, U = [[1, 1], [i, −i]]/√2 on each pair (k, k + 1), k in `first`."""
    for _ in range(2):
        joined = outward((bounds[first] + bounds[first + 1]) * np.sqrt(0.5), 4)
        bounds = bounds.copy()
        bounds[first] = bounds[first + 1] = joined
        bounds = bounds.T
    return bounds


def _gershgorin(centres: np.ndarray, rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Radii and components of the discs of diag(centres) + M, |M| ≤ rest."""
    size = len(centres)
    radii = outward(rest.sum(axis=1), size)
    gaps = _gaps(centres) - outward(radii[:, None] + radii[None, :], 1)
    gaps = np.where(gaps > 0, _down(gaps), gaps)
    np.fill_diagonal(gaps, 0)
    component = _components(gaps <= 0)
    np.fill_diagonal(gaps, np.inf)
    alone = (gaps > 0).all(axis=1)
    # Column i of M scaled by 1/τ and its row by τ: disc j grows by at most |M_ji|/τ and must stay clear of i.
    scaling = outward(np.max(rest.T / gaps, axis=1, where=gaps > 0, initial=0), 4)
    shrunk = outward(rest.diagonal() + np.minimum(2 * scaling, 1) * radii, 3)
    return np.where(alone, np.minimum(shrunk, radii), radii), component


def _gaps(centres: np.ndarray) -> np.ndarray:
    """Lower bounds of |c_i − c_j|, (n, n)."""
    real = centres.real[:, None] - centres.real[None, :]
    imaginary = centres.imag[:, None] - centres.imag[None, :]
    return _down(np.maximum(np.sqrt(real * real + imaginary * imaginary) - 2.0**-500, 0))


def _components(linked: np.ndarray) -> np.ndarray:
    """A number for each node of an undirected graph, equal exactly on its connected components."""
    labels, previous = np.arange(len(linked)), None
    while not np.array_equal(labels, previous):
        previous = labels
        labels = np.where(linked, labels[None, :], len(labels)).min(axis=1)
    return labels


@_none_if_floats_fail
def solve_right(W: Ball, V: Ball) -> Ball | None:
    """A ball that holds A = WV⁻¹ for all members of W (m, n) and V (n, n); None unless V is provably regular.

    With floats R ≈ V⁻¹ and F = I − VR, ‖F‖_∞ < 1 proves V regular, and A − A₀ = (W − A₀V)R(I − F)⁻¹ for
    any A₀. Raises InputError where the shapes do not fit.
    """
    _require_square("V", V)
    R = _proposal(np.linalg.inv(V.mid))
    size = len(V.mid)
    defect = float(outward((_identity(size) - V @ R).magnitude().sum(axis=1), size).max())
    if defect >= 0.5:
        return None
    guess = _proposal((W @ R).mid)
    first = ((W - guess @ V) @ R).magnitude()
    second = outward(first.sum(axis=1, keepdims=True) * (defect / _down(1 - defect)), size + 2)
    return Ball(guess.mid, outward(first + second, 1))


def smallest_singular_value(B: Ball) -> float:
    """A proved lower bound of the smallest of the min(r, c) singular values of B (r, c), or 0.0.

    With floats Z and τ from the SVD of B (r ≤ c), C = BᵀZ·diag(τ) has nearly orthonormal columns, and
    σ_min(C) ≤ σ_min(B)‖Z‖max τ.
    """
    return _singular_bound(B if B.shape[0] <= B.shape[1] else B.T) or 0.0


@_none_if_floats_fail
def _singular_bound(B: Ball) -> float:
    B, exponent = _normalised(B)
    vectors, values, _ = np.linalg.svd(B.mid, full_matrices=False)
    Z, factors = _proposal(vectors), 1 / values
    C = (B.T @ Z).scale_columns(factors)
    identity = _identity(len(values))
    defect, stretch = (C.T @ C - identity).norm_bound(), (Z.T @ Z - identity).norm_bound()
    if defect >= 1:
        return 0.0
    bound = _down(np.sqrt(1 - defect)) / _up(np.sqrt(1 + stretch) * factors.max())
    return max(float(_down(_unscaled(_down(np.array([bound])), exponent))[0]), 0.0)


def _normalised(ball: Ball) -> tuple[Ball, int]:
    """(ball', e) with ball = 2^e·ball' and entries of ball' near 1, so that no square over- or underflows."""
    exponent = int(np.clip(np.frexp(np.abs(ball.mid).max())[1], -1000, 1000))
    return ball.shifted(-exponent), exponent


def _unscaled(values: np.ndarray, exponent: int) -> np.ndarray:
    scaled = np.ldexp(values, exponent)
    if not np.isfinite(scaled).all():
        raise ArithmeticError("an eigenvalue exceeds the range of float64")
    return scaled


def _proposal(array: np.ndarray) -> Ball:
    """What floats suggest, as an exact matrix. Raises ArithmeticError where they broke down."""
    return Ball(array, np.zeros_like(array))


def _identity(size: int) -> Ball:
    return _proposal(np.eye(size))


def _require_square(argument: str, ball: Ball) -> None:
    if ball.shape[0] != ball.shape[1]:
        raise InputError(argument, got=f"shape {ball.shape}", expected="(n, n)", fix="pass a square matrix")
