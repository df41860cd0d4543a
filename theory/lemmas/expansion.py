"""L8: attended means near zero, to fifth order, with an explicit remainder."""

from collections.abc import Iterable

from flint import fmpq
from sympy import (
    Abs,
    Add,
    Derivative,
    Expr,
    IndexedBase,
    Integral,
    Matrix,
    Max,
    Min,
    Rational,
    Sum,
    Symbol,
    exp,
)

from theory.derivation import Argued, Equality, Step, SumIdentity
from theory.lemmas.softmax import over
from theory.notation import P, Z, a, b, d, i, j, k, n, s, tau, unit, w, x
from theory.sums import Definition, Total
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, Claim, Planted, Sides, Theorem

q, y, c = (IndexedBase(name, real=True) for name in ("q", "y", "c"))
about = Symbol("y_0", real=True)


def mean_token(e: ExplicitSystem) -> Matrix:
    """x̄, a column."""
    return Matrix(e.d, 1, lambda r, _: Add(*e.X.col(r)) / e.n)


def covariance(e: ExplicitSystem) -> Matrix:
    """C = (1/n) Σ (x_i − x̄)(x_i − x̄)ᵀ."""
    mean = mean_token(e)
    return e.X.T * e.X / e.n - mean * mean.T


def reach(entries: Iterable[Expr]) -> Expr:
    """Largest minus smallest."""
    entries = tuple(entries)
    return Max(*entries) - Min(*entries)


def _remainders(e: ExplicitSystem) -> Sides:
    """Bound and size of what the cubic expansion leaves, token by token and coordinate by coordinate."""
    C, mean = covariance(e), mean_token(e)
    found = []
    for token in range(e.n):
        left_out = e.m.row(token).T - mean - C * e.W.T * e.token(token)
        for axis in range(e.d):
            bound = unit * reach(e.s.row(token)) ** 2 * reach(e.X.col(axis)) / 8
            found.append((bound, Abs(left_out[axis])))
    return found


def _weight(index: Symbol) -> Expr:
    return exp(tau * q[index])


def under(entry: IndexedBase, index: Symbol) -> Sum:
    """The attended mean of an entry on the path."""
    return Sum(P[index] * entry[index], over(index))


PATH = (Definition(P, lambda index: _weight(index) / Z),)
PATH_NORMALISER = (Total(_weight, Z, n),)
attended = Sum(_weight(j) * y[j], over(j)) / Sum(_weight(k), over(k))
spread = Sum(P[j] * (q[j] - under(q, k)) ** 2, over(j))
third = Sum(P[j] * (q[j] - under(q, k)) ** 2 * (y[j] - under(y, k)), over(j))
RAW = (
    Definition(
        c,
        lambda p, r: (
            Sum(x[j, p] * x[j, r], over(j)) / n - Sum(x[j, p], over(j)) * Sum(x[k, r], over(k)) / n**2
        ),
    ),
    Definition(s, lambda p, r: Sum(x[p, k] * w[k, b] * x[r, b], over(k, d), over(b, d))),
)

EXPANDED = r"|(m_i - \bar x - CW^\top x_i)_a| \le \tfrac18 R_i^2 r_a"

L8 = Theorem(
    id="L8",
    kind="lemma",
    title="Cubic expansion",
    statement=r"With $C=\mathrm{Cov}(X)=\frac1n\sum_i(x_i-\bar x)(x_i-\bar x)^\top$ every coordinate of the attended mean is "
    r"$\bar x+CW^\top x_i$ up to $\frac18R_i^2r_a$, where $R_i=\max_js_{ij}-\min_js_{ij}$ and $r_a=\max_jx_{ja}-\min_jx_{ja}$: a remainder of fifth order "
    r"in the tokens.",
    hypotheses=(),
    claims=(
        Claim(
            "cubic expansion",
            r"\tfrac18 R_i^2 r_a \ge |(m_i - \bar x - CW^\top x_i)_a|,\ R_i = \max_j s_{ij} - \min_j s_{ij},\ r_a = \max_j x_{ja} - \min_j x_{ja}",
            AT_LEAST,
            _remainders,
        ),
    ),
    steps=(
        Step(
            SumIdentity(
                Derivative(attended, tau),
                Sum(P[j] * q[j] * y[j], over(j)) - under(q, j) * under(y, j),
                PATH,
                PATH_NORMALISER,
            ),
            r"Row $i$ along the path $s\mapsto\tau s$: $q_j=s_{ij}$, $y_j=x_{ja}$ one coordinate, $P_j=e^{\tau q_j}/Z$. The attended "
            r"mean moves at the covariance of $q$ and $y$ under $P$.",
        ),
        Step(
            SumIdentity(Derivative(attended, (tau, 2)), third, PATH, PATH_NORMALISER),
            r"Its second derivative is a third central moment.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * (q[j] - about) ** 2, over(j)),
                spread + (under(q, k) - about) ** 2,
                PATH,
                PATH_NORMALISER,
            ),
            r"A variance is smallest about the mean: take $y_0$ midway between the extremes of $q$.",
        ),
        Step(
            Argued(r"\left|\tfrac{d^2}{d\tau^2}\right| \le \tfrac14 R_i^2 r_a", (2, 3)),
            r"So the variance of $q$ is at most $R_i^2/4$, and $|y_j-\bar y|\le r_a$.",
        ),
        Step(
            Equality(Integral(1 - tau, (tau, 0, 1)), Rational(1, 2)),
            r"The weight of Taylor's remainder.",
        ),
        Step(
            SumIdentity(
                Sum(s[i, j] * x[j, a], over(j)) / n - Sum(s[i, j], over(j)) * Sum(x[j, a], over(j)) / n**2,
                Sum(c[a, b] * w[k, b] * x[i, k], over(b, d), over(k, d)),
                RAW,
            ),
            r"At $\tau=0$, where $P=1/n$, the first derivative is $(CW^\top x_i)_a$, $c_{ab}$ the entries of $C=\mathrm{Cov}(X)$.",
        ),
        Step(
            Argued(EXPANDED, (1, 4, 5, 6)),
            r"Taylor's theorem from $\tau=0$ to 1. The bound is of fifth order in the tokens.",
        ),
    ),
    source="Stated here: Taylor's theorem along the scores.",
    remark=r"For any $W$; nothing else of the system is used. The factor $\frac18$ is not claimed to be sharp.",
    formula=EXPANDED,
    wrong=(Planted("1/8 replaced by 1/80", scale={unit: fmpq(1, 10)}),),
)
