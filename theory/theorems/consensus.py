"""T6: equal tokens obey ẋ = Vx, so an unstable V excludes convergence: from some start, and from almost every one."""

from flint import fmpq
from sympy import Abs, Derivative, Sum, Symbol

from theory.derivation import Argued, Cited, Given, Step, SumIdentity
from theory.hypotheses import TOKENS_EQUAL, V_NOT_HURWITZ, V_UNSTABLE
from theory.instance import Instance
from theory.lemmas.expansion import (
    PATH,
    PATH_NORMALISER,
    about,
    attended,
    mean_token,
    q,
    reach,
    spread,
    under,
    y,
)
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import P, abscissa, j, k, tau, unit
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem

common = Symbol("y_a", real=True)


def _linear(e: ExplicitSystem) -> Sides:
    return [(e.v[i, a], unit * (e.V * e.token(i))[a]) for i in range(e.n) for a in range(e.d)]


NOT_CONVERGENT = r"X(t)\not\to0 \text{ from some start with equal tokens}"

T6 = Theorem(
    id="T6",
    kind="theorem",
    title="Necessary condition",
    statement=r"If all tokens start equal they stay equal and $\dot x=Vx$. So if $V$ is not Hurwitz, not every start converges "
    r"to zero, whatever $W$.",
    hypotheses=(V_NOT_HURWITZ, TOKENS_EQUAL),
    claims=(
        Claim("equal tokens are linear", r"\dot x_i = V x_i", EQUAL, _linear),
        Claim(
            "some eigenvalue does not decay",
            r"\max\mathrm{Re}\,\lambda(V) \ge 0",
            AT_LEAST,
            lambda e: [(abscissa, 0)],
        ),
    ),
    steps=(
        Step(
            SumIdentity(Sum(P[j] * common, over(j)), common, SOFTMAX, NORMALISER, needs=("tokens equal",)),
            r"The attended mean of equal tokens is that token, coordinate by coordinate: $m_i = y$, so $\dot x_i = Vy$.",
        ),
        Step(
            Cited(r"x_1=\dots=x_n \text{ is invariant}", "hale1980"),
            r"The flow is smooth, so solutions are unique.",
        ),
        Step(
            Cited(r"e^{Vt}y\to0 \text{ for every } y \iff V \text{ Hurwitz}", "hale1980"), r"Linear systems."
        ),
        Step(
            Given(r"\exists\,y:\ e^{Vt}y\not\to0", ("V not Hurwitz",)),
            r"So an eigenvalue with real part $\ge0$ gives a start that does not converge.",
        ),
        Step(
            Argued(NOT_CONVERGENT, (1, 2, 3, 4)),
            r"It holds for any number of tokens.",
        ),
    ),
    source="Stated here.",
    remark=r"It says that some start fails to converge, not that most do. A Hurwitz $V$ satisfies the necessary condition and "
    r"proves nothing more.",
    formula=NOT_CONVERGENT,
    concludes="not convergent from every start (some equal tokens do not tend to 0)",
    examples=Examples(
        witness=Instance.of(score=[[1, 2], [3, 4]], value=[[1, 2], [0, -3]], tokens=[[1, 2], [1, 2], [1, 2]]),
        near_miss=Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], tokens=[[1, 2], [2, 1]]),
        missing="tokens equal",
        boundary=Instance.of(score=[[1, 0], [0, 1]], value=[[0, -1], [1, 0]], tokens=[[1, 2], [1, 2]]),
    ),
    wrong=(Planted("twice the velocity", scale={unit: fmpq(2)}),),
)


# T6b: almost every start


def _distances_from_the_mean(e: ExplicitSystem) -> Sides:
    """¼ R_i r_a and |(m_i − x̄)_a|, token by token and coordinate by coordinate."""
    mean, found = mean_token(e), []
    for token in range(e.n):
        for axis in range(e.d):
            bound = unit * reach(e.s.row(token)) * reach(e.X.col(axis)) / 4
            found.append((bound, Abs(e.m[token, axis] - mean[axis])))
    return found


NEAR_THE_MEAN = r"|(m_i-\bar x)_a| \le \tfrac14 R_ir_a"
ALMOST_NONE = r"\mathrm{vol}\,\{X(0):\ X(t)\to0\} = 0"

T6b = Theorem(
    id="T6b",
    kind="theorem",
    title="Almost no start converges",
    statement=r"If $V$ has an eigenvalue with positive real part, the starts from which $X(t)\to0$ have Lebesgue measure zero, "
    r"whatever $W$.",
    hypotheses=(V_UNSTABLE,),
    claims=(
        Claim(
            "attended means are near the mean",
            r"\tfrac14R_ir_a \ge |(m_i-\bar x)_a|,\ R_i=\max_js_{ij}-\min_js_{ij},\ r_a=\max_jx_{ja}-\min_jx_{ja}",
            AT_LEAST,
            _distances_from_the_mean,
        ),
        Claim(
            "some eigenvalue grows",
            r"\max\mathrm{Re}\,\lambda(V) > 0",
            MORE_THAN,
            lambda e: [(abscissa, 0)],
        ),
    ),
    steps=(
        Step(
            SumIdentity(
                Derivative(attended, tau),
                Sum(P[j] * (q[j] - under(q, k)) * (y[j] - under(y, k)), over(j)),
                PATH,
                PATH_NORMALISER,
            ),
            r"Row $i$ along the path $s\mapsto\tau s$, as in L8: $q_j=s_{ij}$, $y_j=x_{ja}$. The attended mean moves at the "
            r"covariance of $q$ and $y$ under $P$.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * (q[j] - about) ** 2, over(j)),
                spread + (under(q, k) - about) ** 2,
                PATH,
                PATH_NORMALISER,
            ),
            r"A variance is smallest about the mean: with $y_0$ midway between the extremes it is at most a quarter of the "
            r"squared range, for $y$ as for $q$.",
        ),
        Step(
            Argued(NEAR_THE_MEAN, (1, 2)),
            r"Cauchy–Schwarz bounds the covariance by $\frac14R_ir_a$ all along the path, from $\bar x$ at $\tau=0$ to $m_i$ at 1.",
        ),
        Step(
            Argued(
                r"F(X)_i=Vm_i:\quad F(0)=0,\ (DF(0)\,\delta)_i=V\bar\delta,\ \lambda(V)\subseteq\lambda(DF(0))",
                (3,),
            ),
            r"$R_i$ is of second order in the tokens, so $m_i-\bar x$ is of third. On equal $\delta_i$ the derivative is $V$.",
        ),
        Step(
            Given(r"\max\mathrm{Re}\,\lambda(DF(0)) > 0", ("V unstable",)),
            r"So 0 has an unstable direction.",
        ),
        Step(
            Cited(
                r"X(t)\in B \text{ for all } t\ge0 \implies X(0)\in M,\quad \mathrm{dim}\,M < nd", "shub1987"
            ),
            r"In some ball $B$ about 0, a manifold $M$ of class $C^1$, tangent to the eigenvectors with $\mathrm{Re}\,\lambda\le0$ and so of "
            r"smaller dimension, has every solution that stays in $B$ from now on.",
        ),
        Step(
            Cited(r"\varphi_t \text{ is a diffeomorphism for every } t", "hale1980"),
            r"The flow is smooth, and by L6's speed limit no solution blows up, forwards or backwards.",
        ),
        Step(
            Argued(ALMOST_NONE, (4, 5, 6, 7)),
            r"If $X(t)\to0$, then $X(k)\in M$ for some whole number $k$: the start lies in a union of countably many $\varphi_k^{-1}(M)$, "
            r"each of measure zero.",
        ),
    ),
    source="Stated here; the argument is that of strict saddles.",
    remark=r"Starts that do converge may exist: $d=1$, $V=1$, $W=-1$, tokens $\{a,-a\}$. It says nothing of boundedness, nor of how "
    r"a start fails to converge. With a mask, a bias, rotary encoding or positions in the scores the derivative at 0 is $P^0\otimes V$, "
    r"with heads $\sum_hP^0_h\otimes V_h$; rows of $P^0$ add up to 1, so on equal $\delta_i$ it is $V$, or $\sum_hV_h$, and the argument "
    r"is the same.",
    formula=ALMOST_NONE,
    concludes="not convergent from almost every start",
    examples=Examples(
        witness=Instance.of(
            score=[[1, 2], [3, 4]], value=[[1, 2], [0, -3]], tokens=[[1, 2], [0, 1], [2, -1]]
        ),
        near_miss=Instance.of(score=[[1, 0], [0, 1]], value=[[-1, 0], [0, -1]], tokens=[[1, 2], [2, 1]]),
        missing="V unstable",
        boundary=Instance.of(score=[[1, 0], [0, 1]], value=[[1, -1], [1, 1]], tokens=[[1, 2], [1, 2]]),
    ),
    wrong=(Planted("1/4 replaced by 1/40", scale={unit: fmpq(1, 10)}),),
)
