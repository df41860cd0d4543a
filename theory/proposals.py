"""Floating-point proposals: guesses that exact arithmetic then proves or rejects.

Nothing here is ever a verdict. Proofs in floats, with bounds on every rounding, are those of `theory.balls`.
"""

import numpy as np
from flint import arb_mat, fmpq, fmpq_mat


def approximate(matrix: fmpq_mat) -> np.ndarray:
    """The nearest float64 matrix. Raises OverflowError where an entry has none."""
    ball = arb_mat(matrix)
    array = np.array([[float(x) for x in row] for row in ball.mid().tolist()])
    if not np.isfinite(array).all():
        raise OverflowError("an entry exceeds the range of floats")
    return array


def dyadic(array: np.ndarray) -> fmpq_mat:
    """The same floats as exact rationals."""
    array = np.atleast_2d(array)
    return fmpq_mat(*array.shape, [fmpq(*float(x).as_integer_ratio()) for x in array.ravel()])


def smallest_pencil_eigenpair(form: fmpq_mat, metric: fmpq_mat) -> tuple[fmpq, fmpq_mat]:
    """A guess at the smallest λ with form·u = λ·metric·u (symmetric, metric ≻ 0) and its vector (d, 1)."""
    root = np.linalg.cholesky(approximate(metric))
    left = np.linalg.solve(root, approximate(form))
    reduced = np.linalg.solve(root, left.T)
    values, vectors = np.linalg.eigh((reduced + reduced.T) / 2)
    vector = np.linalg.solve(root.T, vectors[:, 0])
    return fmpq(*float(values[0]).as_integer_ratio()), dyadic(vector / np.abs(vector).max()).transpose()


def eigenpairs(matrix: fmpq_mat) -> list[tuple[complex, np.ndarray]]:
    """Guesses at all eigenpairs, largest real part first."""
    values, vectors = np.linalg.eig(approximate(matrix))
    order = np.argsort(-values.real, kind="stable")
    return [(complex(values[k]), vectors[:, k]) for k in order]


def lyapunov_solution(matrix: fmpq_mat) -> fmpq_mat | None:
    """A guess at the symmetric M with M·matrix + matrixᵀ·M = −I, or None where the guess breaks down."""
    array = approximate(matrix)
    solve = _lyapunov_by_kronecker if len(array) <= 24 else _lyapunov_by_eigenvectors
    try:
        solution = solve(array)
    except np.linalg.LinAlgError:
        return None
    return dyadic((solution + solution.T) / 2) if np.isfinite(solution).all() else None


def _lyapunov_by_kronecker(array: np.ndarray) -> np.ndarray:
    """O(d⁶), and indifferent to defective eigenvalues."""
    size = len(array)
    identity = np.eye(size)
    operator = np.kron(array.T, identity) + np.kron(identity, array.T)
    return np.linalg.solve(operator, -identity.ravel()).reshape(size, size)


def _lyapunov_by_eigenvectors(array: np.ndarray) -> np.ndarray:
    """O(d³); needs a basis of eigenvectors."""
    values, vectors = np.linalg.eig(array)
    inverse = np.linalg.inv(vectors)
    inner = -(vectors.conj().T @ vectors) / (values.conj()[:, None] + values[None, :])
    return (inverse.conj().T @ inner @ inverse).real
