"""Quantities that claims are made of, in the names of an ExplicitSystem (0-based token indices)."""

from collections.abc import Callable

from sympy import Add, Expr, Matrix, Rational

from theory.system import ExplicitSystem


def for_tokens(item: Callable[[ExplicitSystem, int], tuple]) -> Callable[[ExplicitSystem], list[tuple]]:
    """Sides of a claim about every token."""
    return lambda e: [item(e, i) for i in range(e.n)]


def for_pairs(item: Callable[[ExplicitSystem, int, int], tuple]) -> Callable[[ExplicitSystem], list[tuple]]:
    """Sides of a claim about every pair i < j, in lexicographic order."""
    return lambda e: [item(e, i, j) for i, j in e.pairs()]


def attended_score(e: ExplicitSystem, i: int) -> Expr:
    """e_i = Σ_j P_ij s_ij."""
    return Add(*(e.P[i, j] * e.s[i, j] for j in range(e.n)))


def quadratic(form: Matrix, left: Matrix, right: Matrix | None = None) -> Expr:
    """leftᵀ·form·right as a scalar; right = left by default."""
    return (left.T * form * (left if right is None else right))[0, 0]


def symmetric(form: Matrix) -> Matrix:
    return (form + form.T) * Rational(1, 2)


def token_energy(e: ExplicitSystem, i: int) -> Expr:
    """½ x_iᵀ A x_i."""
    return quadratic(e.A, e.token(i)) / 2


def token_energy_rate(e: ExplicitSystem, i: int) -> Expr:
    """d/dt ½ x_iᵀ A x_i = x_iᵀ A_s ẋ_i."""
    return quadratic(symmetric(e.A), e.token(i), e.velocity(i))


def energy(e: ExplicitSystem) -> Expr:
    """½ Σ x_iᵀ A x_i."""
    return Add(*(token_energy(e, i) for i in range(e.n)))


def energy_rate(e: ExplicitSystem) -> Expr:
    return Add(*(token_energy_rate(e, i) for i in range(e.n)))


def total_score(e: ExplicitSystem) -> Expr:
    """(Σx_i)ᵀ W (Σx_i)."""
    total = Matrix(e.d, 1, lambda r, _: Add(*e.X.col(r)))
    return quadratic(e.W, total)


def pair_form(e: ExplicitSystem, i: int, j: int) -> Expr:
    """(x_i − x_j)ᵀ A (x_i − x_j)."""
    return quadratic(e.A, e.token(i) - e.token(j))


def pair_form_rate(e: ExplicitSystem, i: int, j: int) -> Expr:
    """Its time derivative, 2 (x_i − x_j)ᵀ A_s (ẋ_i − ẋ_j)."""
    return 2 * quadratic(symmetric(e.A), e.token(i) - e.token(j), e.velocity(i) - e.velocity(j))


def hyperplane(e: ExplicitSystem, i: int) -> Expr:
    """z_i = ℓᵀ x_i."""
    return (e.ell.T * e.token(i))[0, 0]


def hyperplane_rate(e: ExplicitSystem, i: int) -> Expr:
    return (e.ell.T * e.velocity(i))[0, 0]
