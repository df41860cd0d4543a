"""L3: the log-sum-exp potential φ(y) = log Σ_k exp(yᵀ W x_k), for every n and d."""

from sympy import Derivative, IndexedBase, Sum, Symbol, exp, log

from theory.derivation import Argued, Cited, Positive, Step, SumIdentity
from theory.lemmas.softmax import over
from theory.notation import P, Z, a, b, d, j, k, n, tau, w, x
from theory.quantities import for_pairs, quadratic
from theory.sums import Definition, Total
from theory.theorem import AT_LEAST, Claim, Theorem

p, q, direction = IndexedBase("p", real=True), IndexedBase("q", real=True), IndexedBase("u", real=True)


def _weight(index: Symbol):
    """exp of the score of key `index` at the point z + τu: p_k = zᵀWx_k, q_k = uᵀWx_k."""
    return exp(p[index] + tau * q[index])


ON_LINE = (Definition(P, lambda index: _weight(index) / Z),)
NORMALISER = (Total(_weight, Z, n),)
phi = log(Sum(_weight(k), over(k)))
mean = Sum(P[k] * q[k], over(k))
variance = Sum(P[k] * q[k] ** 2, over(k)) - mean**2
positive_weights = Symbol("P_j", positive=True) * Symbol("P_k", positive=True)
spread = Symbol("q_j", real=True) - Symbol("q_k", real=True)

MONOTONE = r"(x_i-x_j)^\top W (m_i - m_j) \ge 0"

L3 = Theorem(
    id="L3",
    kind="lemma",
    title="Potential",
    statement=r"$\varphi(y)=\log\sum_k e^{y^\top W x_k}$ has gradient $\nabla\varphi(x_i)=Wm_i$ and Hessian "
    r"$W\,\mathrm{Cov}_P(x)\,W^\top\succeq 0$, so $(y-z)^\top(\nabla\varphi(y)-\nabla\varphi(z))\ge 0$ for any $W$.",
    hypotheses=(),
    claims=(
        Claim(
            "monotone gradient",
            MONOTONE,
            AT_LEAST,
            for_pairs(
                lambda e, i, j: (quadratic(e.W, e.token(i) - e.token(j), (e.m.row(i) - e.m.row(j)).T), 0)
            ),
        ),
    ),
    steps=(
        Step(
            SumIdentity(Derivative(phi, tau), mean, ON_LINE, NORMALISER),
            r"Along any line $y = z+\tau u$, with $p_k = z^\top Wx_k$, $q_k = u^\top Wx_k$ and "
            r"$P_k = e^{p_k+\tau q_k}/Z$: the slope is the attended mean of $q$.",
        ),
        Step(
            SumIdentity(
                Sum(P[k] * Sum(direction[a] * w[a, b] * x[k, b], over(a, d), over(b, d)), over(k)),
                Sum(direction[a] * w[a, b] * Sum(P[k] * x[k, b], over(k)), over(a, d), over(b, d)),
            ),
            r"That mean is $u^\top W m(y)$; the direction is arbitrary, so $\nabla\varphi(y) = Wm(y)$.",
        ),
        Step(
            SumIdentity(Derivative(phi, (tau, 2)), variance, ON_LINE, NORMALISER),
            r"The second derivative is the variance of $q_k = u^\top W x_k$ under $P$, that is $u^\top W\,\mathrm{Cov}_P(x)\,W^\top u$.",
        ),
        Step(
            SumIdentity(
                variance, Sum(P[j] * P[k] * (q[j] - q[k]) ** 2, over(j), over(k)) / 2, ON_LINE, NORMALISER
            ),
            r"A variance is a sum of squares.",
        ),
        Step(
            Positive(positive_weights * spread**2, weak=True),
            r"Each summand is non-negative: $\varphi$ is convex along every line.",
        ),
        Step(
            Cited(
                r"\varphi \text{ convex} \implies (y-z)^\top(\nabla\varphi(y)-\nabla\varphi(z)) \ge 0",
                "rockafellar1970",
            ),
            r"The gradient of a convex differentiable function is monotone.",
        ),
        Step(
            Argued(MONOTONE, (2, 3, 4, 5, 6)), r"Take $y = x_i$, $z = x_j$: all tokens share one $\varphi$."
        ),
    ),
    source="Log-sum-exp convexity (Boyd & Vandenberghe, Convex Optimization, §3.1.5).",
    remark=r"Needs one $\varphi$ shared by all tokens: it fails under causal masks and rotary encoding.",
    formula=MONOTONE,
)
