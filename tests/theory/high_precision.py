"""Independent referees for certified spectra: exact rationals, or Arb at a chosen precision; for d ≤ 60.

Nothing of `theory` is used here: a fault there cannot hide a fault there.
"""

from itertools import pairwise

import numpy as np
from flint import acb, acb_mat, arb, ctx, fmpq, fmpq_mat


def rationals(matrix: np.ndarray | fmpq_mat) -> fmpq_mat:
    """A float (or integer) matrix as the rationals that it stores."""
    if isinstance(matrix, fmpq_mat):
        return matrix
    return fmpq_mat(*matrix.shape, [fmpq(*x.as_integer_ratio()) for x in matrix.ravel().tolist()])


def exact_inertia(matrix: np.ndarray | fmpq_mat) -> tuple[int, int, int]:
    """(positive, negative, zero) numbers of eigenvalues of a matrix that has real eigenvalues only.

    Descartes' rule of signs is exact for a polynomial with real roots only: the sign changes of the
    characteristic polynomial count its positive roots.
    """
    coefficients = list(rationals(matrix).charpoly())
    zero = next(k for k, c in enumerate(coefficients) if c != 0)
    signs = [c > 0 for c in coefficients if c != 0]
    positive = sum(a != b for a, b in pairwise(signs))
    return positive, len(coefficients) - 1 - zero - positive, zero


def arb_eigenvalues(matrix: np.ndarray | fmpq_mat, bits: int = 256) -> list[acb]:
    """All eigenvalues of a square matrix as balls, multiple ones repeated.

    Clusters that Arb's eigenvalue solver cannot separate (defective matrices, entries far from 1) are
    isolated as roots of the exact characteristic polynomial.
    """
    exact = rationals(matrix)
    with ctx.workprec(bits):
        try:
            return acb_mat(exact).eig(multiple=True)
        except ValueError:
            roots = exact.charpoly().numer().complex_roots()
            return [root for root, multiplicity in roots for _ in range(int(multiplicity))]


def arb_inertia(matrix: np.ndarray | fmpq_mat, bits: int = 256) -> tuple[int, int, int] | None:
    """(positive, negative, 0) for a symmetric matrix; None where the sign of an eigenvalue stays open."""
    real = [value.real for value in arb_eigenvalues(matrix, bits)]
    positive, negative = sum(x > 0 for x in real), sum(x < 0 for x in real)
    return (positive, negative, 0) if positive + negative == len(real) else None


def contains(mid: np.ndarray, rad: np.ndarray, truth: fmpq_mat) -> bool:
    """Does every entry of the exact matrix lie within rad of mid?"""
    centre, radius = rationals(mid), rationals(rad)
    places = [(i, j) for i in range(truth.nrows()) for j in range(truth.ncols())]
    return all(abs(truth[place] - centre[place]) <= radius[place] for place in places)


def reaches(centre: complex, radius: float, value: acb) -> bool:
    """May the enclosed number lie in the closed disc? No only where Arb proves it outside."""
    with ctx.workprec(512):
        return not abs(value - acb(centre.real, centre.imag)) > arb(radius)
