"""T9, T9b and T9c: how tokens collapse to zero, and onto which covariance."""

from collections.abc import Callable

from flint import fmpq, fmpq_mat
from sympy import (
    Derivative,
    Determinant,
    Expr,
    ImmutableMatrix,
    IndexedBase,
    Integer,
    MatAdd,
    MatMul,
    Matrix,
    MatrixSymbol,
    Sum,
    Symbol,
    cos,
    exp,
    log,
    sin,
    sqrt,
    symbols,
)

from theory.derivation import (
    FIXED,
    Argued,
    Cited,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Step,
    SumIdentity,
)
from theory.hypotheses import A_NEGATIVE, A_SYMMETRIC, W_POSITIVE, W_ROTATION, W_SYMMETRIC, Hypothesis
from theory.instance import Instance
from theory.lemmas.expansion import EXPANDED, covariance, mean_token
from theory.lemmas.softmax import over
from theory.notation import (
    A,
    V,
    W,
    a,
    b,
    d,
    i,
    j,
    k,
    n,
    profile_decay,
    profile_size,
    t,
    unit,
    w,
)
from theory.profile import profile_is_stable
from theory.quantities import quadratic
from theory.sums import Definition
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.convergence import CONVERGES
from theory.verdict import Verdict, exactly, undecided

# Hypotheses


def _span(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    first, *others = instance.tokens.tolist()
    differences = [[p - q for p, q in zip(row, first, strict=True)] for row in others]
    rank = fmpq_mat(differences).rank() if differences else 0
    return exactly(rank == instance.weights.dim, f"token differences have rank {rank}")


def _minus_identity(instance: Instance) -> Verdict:
    """W = −V entry by entry, which needs no inverse."""
    weights = instance.weights
    pairs = list(zip(weights.form.entries(), weights.value.entries(), strict=True))
    equal = all(weights.scale_squared * p * p == q * q and p * q <= 0 for p, q in pairs)
    return exactly(equal, "W compared with −V")


TOKENS_SPAN = Hypothesis("tokens span", r"\mathrm{Cov}(X(0)) \succ 0", "start", _span)
PROFILE_STABLE = Hypothesis(
    "profile stable", r"\min\mathrm{Re}\,\lambda(L) > 0", "weights", profile_is_stable
)
A_MINUS_IDENTITY = Hypothesis("A minus identity", r"A = -I", "weights", _minus_identity)

# Quantities


def cubic_field(e: ExplicitSystem) -> Matrix:
    """VCWᵀC + CWCVᵀ, the velocity of C under the cubic flow."""
    C = covariance(e)
    half = e.V * C * e.W.T * C
    return half + half.T


def size(e: ExplicitSystem) -> Expr:
    """tr(−AC)."""
    return -(e.A * covariance(e)).trace()


def size_falls(e: ExplicitSystem) -> Expr:
    """tr(WCWᵀC): under the cubic flow tr(−AC) falls at twice this rate."""
    C = covariance(e)
    return (e.W * C * e.W.T * C).trace()


def volume_rate(e: ExplicitSystem) -> Expr:
    """tr(VCWᵀ): under the cubic flow log det C moves at twice this rate."""
    return (e.V * covariance(e) * e.W.T).trace()


def _determinant(matrix: Matrix) -> Expr:
    return matrix.det(method="laplace")


# Claims


def _stretches(e: ExplicitSystem) -> Sides:
    """Both sides for H = x_ix_jᵀ + x_jx_iᵀ, i < j: symmetric directions in which C may deviate."""
    found = []
    for p, q in e.pairs():
        H = e.token(p) * e.token(q).T + e.token(q) * e.token(p).T
        found.append(((e.W * e.V * H * e.A * H).trace(), (e.W * H * e.W * H).trace()))
    return found


def _volumes(e: ExplicitSystem) -> Sides:
    shape = _determinant(-e.A) * _determinant(e.V) ** 2 * _determinant(covariance(e))
    return [((-volume_rate(e)) ** e.d, unit * Integer(e.d) ** e.d * shape)]


SIZE = Claim("size is non-negative", r"\mathrm{tr}(-AC) \ge 0", AT_LEAST, lambda e: [(size(e), Integer(0))])
MEAN = Claim(
    "the mean is pulled to zero",
    r"\bar x^\top W\bar x \ge 0",
    AT_LEAST,
    lambda e: [(quadratic(e.W, mean_token(e)), Integer(0))],
)
DECAY = Claim(
    "the profile is stable",
    r"\rho = \min\mathrm{Re}\,\lambda(L) > 0",
    MORE_THAN,
    lambda e: [(profile_decay, 0)],
)

# Derivation

c, g, h, theta, kappa_3, delta = (
    IndexedBase(name, real=True) for name in ("c", "g", "h", "theta", "kappa", "delta")
)
velocity = IndexedBase("v", real=True)
e_, r_ = Symbol("e", integer=True), Symbol("r", integer=True)

COVARIANCE = Definition(c, lambda p, r: Sum(delta[j, p] * delta[j, r], over(j)) / n)
CENTRED = (
    COVARIANCE,
    Definition(theta, lambda token, axis: Sum(w[k, axis] * delta[token, k], over(k, d))),
)
CUMULANT = (Definition(kappa_3, lambda p, r, u: Sum(delta[j, p] * delta[j, r] * delta[j, u], over(j)) / n),)
C, H, J, K, Q, F, X, Lam = (
    MatrixSymbol(name, d, d) for name in ("C", "H", "J", "K", "Q", "F", "X", "Lambda")
)
K_squared, W_hat = MatrixSymbol("K^2", d, d), MatrixSymbol(r"\hat{W}", d, d)
u = MatrixSymbol("u", d, 1)
FIELD = V * C * W.T * C + C * W * C * V.T
PROFILE = -W.I * A * W.T.I / 2

SLAVED = r"\bar x_a = -\tfrac12\sum_{bk}\kappa_{abk}(W^\top CW)_{bk} + O(t^{-7/2})"

COVARIANCE_STEP = Step(
    SumIdentity(
        Sum(velocity[i, a] * delta[i, b] + delta[i, a] * velocity[i, b], over(i)) / n,
        Sum(g[a, k] * c[k, b] + c[a, k] * g[b, k], over(k, d)),
        (COVARIANCE, Definition(velocity, lambda token, axis: Sum(g[axis, k] * delta[token, k], over(k, d)))),
    ),
    r"So deviations $\delta_i=x_i-\bar x$ obey $\dot\delta_i=VCW^\top\delta_i$ up to fifth order. With that velocity ($g=VCW^\top$) the covariance "
    r"follows the cubic flow $\dot C=VCW^\top C+CWCV^\top$.",
)

START, TO_PROFILE = Symbol("u_0", positive=True), Symbol("u_*", positive=True)
first, second = symbols("lambda_i lambda_j", positive=True)
k_1, k_2, l_11, l_12, l_22 = symbols("k_1 k_2 l_11 l_12 l_22", real=True)
diagonal = ImmutableMatrix([[k_1, 0], [0, k_2]])
full = ImmutableMatrix([[l_11, l_12], [l_12, l_22]])
falling = 1 / (1 / START + t / TO_PROFILE)
stretch = (first / second + second / first) / 2
BASIS = {A: -Q * Lam.I * Q.T, V: -Q.T.I * Lam * Q.T, W: Q * Q.T, H: Q.T.I * X * Q.I}

CUBIC_LIMIT = (
    r"\text{cubic flow: } tC(t) \to C^* = \tfrac12 W^{-1}(-A)W^{-\top} \text{ from every } C(0)\succ0"
)

T9 = Theorem(
    id="T9",
    kind="theorem",
    title="Universal collapse",
    statement=r"Under T2 with $W=W^\top$: up to fifth order in the tokens deviations from the mean obey $\dot\delta_i=VCW^\top\delta_i$, "
    r"$C=\mathrm{Cov}(X)=\frac1n\sum_i\delta_i\delta_i^\top$, so that $\dot C=VCW^\top C+CWCV^\top$. This cubic flow takes every $C(0)\succ0$ to "
    r"the same profile, $tC(t)\to C^*=\frac12W^{-1}(-A)W^{-\top}$. For the full system and a generic start "
    r"$t\,\mathrm{Cov}(X(t))\to C^*$: the covariance is universal, tokens shrink like $t^{-1/2}$, and the mean follows them like "
    r"$t^{-5/2}$, $\bar x_a=-\frac12\sum_{bk}\kappa_{abk}(W^\top CW)_{bk}+O(t^{-7/2})$, $\kappa_{abk}=\frac1n\sum_i\delta_{ia}\delta_{ib}\delta_{ik}$ the third cumulant.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, W_SYMMETRIC, W_POSITIVE, TOKENS_SPAN),
    claims=(
        SIZE,
        Claim(
            "size falls at the profile's pace",
            r"2u_*\,\mathrm{tr}(WCW^\top C) \ge \mathrm{tr}(-AC)^2,\ u_* = \mathrm{tr}(-AC^*)",
            AT_LEAST,
            lambda e: [(2 * profile_size * size_falls(e), size(e) ** 2)],
        ),
        Claim(
            "volume falls",
            r"-2\,\mathrm{tr}(VCW^\top) > 0",
            MORE_THAN,
            lambda e: [(-2 * volume_rate(e), Integer(0))],
        ),
        Claim(
            "the profile attracts",
            r"\mathrm{tr}(WVHAH) \ge \mathrm{tr}(WHWH),\ H = x_ix_j^\top + x_jx_i^\top",
            AT_LEAST,
            _stretches,
        ),
    ),
    steps=(
        Step(
            Given(
                r"W = QQ^\top,\quad -A = Q\Lambda^{-1}Q^\top,\quad \Lambda = \mathrm{diag}(\lambda_1,\dots,\lambda_d) \succ 0",
                ("A symmetric", "A negative", "W symmetric", "W positive"),
            ),
            r"Two positive definite matrices become diagonal together; $\lambda_i$ are the eigenvalues of the pencil $(W,-A)$.",
        ),
        Step(
            Given(r"C(0) \succ 0", ("tokens span",)),
            r"More than $d$ tokens in general position.",
        ),
        Step(FromLemma("L8", EXPANDED), r"A remainder of fifth order in the tokens."),
        COVARIANCE_STEP,
        Step(
            SumIdentity(
                Sum(theta[i, b] * theta[i, k], over(i)) / n,
                Sum(w[e_, b] * c[e_, r_] * w[r_, k], over(e_, d), over(r_, d)),
                CENTRED,
            ),
            r"The mean, for which the next order is needed. Scores of centred tokens are $s_{ij}=\theta_i^\top\delta_j$ with $\theta_i=W^\top\delta_i$, whose covariance is "
            r"$W^\top CW$.",
        ),
        Step(
            SumIdentity(
                Sum(Sum(theta[i, b] * delta[j, b], over(b, d)) ** 2 * delta[j, a], over(j)) / n,
                Sum(kappa_3[a, b, k] * theta[i, b] * theta[i, k], over(b, d), over(k, d)),
                CUMULANT,
            ),
            r"The second derivative in L8's proof at $\tau=0$, with the third cumulant of the tokens, $\kappa_{abk}=\frac1n\sum_j\delta_{ja}\delta_{jb}\delta_{jk}$.",
        ),
        Step(
            Argued(
                r"\tfrac{d}{dt}\bar x = V(\bar x + CW^\top\bar x + r) + O(|X|^7),\quad r_a = \tfrac12\sum_{bk}\kappa_{abk}(W^\top CW)_{bk}",
                (3, 5, 6),
            ),
            r"Averaged over the tokens; the next cumulant meets the third moment of $\theta$, in seventh order.",
        ),
        Step(
            MatrixIdentity(V * PROFILE * W.T * u, -u / 2, where={V: A.I * W}, sizes=(1, 2)),
            r"The profile: $VC^*W^\top=-\frac12I$ (applied to any $u$), for any $W$. With $A=A^\top$, so $C^*$ symmetric, $C=C^*/t$ solves the cubic "
            r"flow: $VC^*W^\top C^*+C^*WC^*V^\top=-C^*$.",
        ),
        Step(
            MatrixIdentity(A * V, W, where=BASIS, sizes=(1, 2)),
            r"In the coordinates of step 1, $V=-Q^{-\top}\Lambda Q^\top$.",
        ),
        Step(
            MatrixIdentity(
                Lam * Q.T * C * W.T * C * Q,
                Lam * K_squared,
                where={W: Q * Q.T, K_squared: Q.T * C * Q * Q.T * C * Q},
                sizes=(1, 2),
            ),
            r"This is $-Q^\top VCW^\top CQ$. So $K=Q^\top CQ$ obeys $\dot K=-(\Lambda K^2+K^2\Lambda)$.",
        ),
        Step(
            MatrixIdentity(Q.T * PROFILE * Q, Lam.I / 2, where=BASIS, sizes=(1,)),
            r"In these coordinates the profile is $\frac12\Lambda^{-1}$.",
        ),
        Step(
            Equality(
                MatAdd(MatMul(full, diagonal, diagonal), MatMul(diagonal, diagonal, full), evaluate=False),
                ImmutableMatrix(
                    [
                        [2 * k_1**2 * l_11, (k_1**2 + k_2**2) * l_12],
                        [(k_1**2 + k_2**2) * l_12, 2 * k_2**2 * l_22],
                    ]
                ),
                kind=FIXED,
            ),
            r"Profiles $K/t$ solve $\Lambda K^2+K^2\Lambda=K$. In the eigenbasis of $K$ entry $(i,j)$ of the left-hand side is "
            r"$l_{ij}(k_i^2+k_j^2)$, $l_{ij}$ the entries of $\Lambda$ there (here $d=2$).",
        ),
        Step(
            Argued(r"\tfrac12\Lambda^{-1} \text{ is the only nonsingular profile}", (12,)),
            r"Off the diagonal $l_{ij}=0$ unless $k_i=k_j=0$; on it $k_i=0$ or $k_i=1/(2l_{ii})$. So every profile is $\frac12\Lambda^{-1}$ on an "
            r"invariant subspace of $\Lambda$ and 0 on its complement.",
        ),
        Step(
            MatrixIdentity(C.I * FIELD * C.I, C.I * V * C * W.T + W * C * V.T * C.I, sizes=(1, 2)),
            r"Now $\frac{d}{dt}C^{-1}=-C^{-1}\dot CC^{-1}$.",
        ),
        Step(
            MatrixIdentity(W.I * C.I * V * C * W.T, (C * W).I * V * (C * W), sizes=(1, 2)),
            r"With $W=W^\top$ both terms of $\frac{d}{dt}\mathrm{tr}(W^{-1}C^{-1})$ are similar to $-V$ or its transpose: it is the constant "
            r"$-2\,\mathrm{tr}V=2\,\mathrm{tr}\Lambda$.",
        ),
        Step(
            Argued(
                r"\mathrm{tr}\,(tK)^{-1} = \tfrac1t\mathrm{tr}K(0)^{-1} + 2\,\mathrm{tr}\Lambda",
                (1, 2, 14, 15),
            ),
            r"$\mathrm{tr}(W^{-1}C^{-1})=\mathrm{tr}K^{-1}$. So the smallest eigenvalue of $tK$ stays away from 0: no limit is singular.",
        ),
        Step(
            MatrixIdentity(A * (V * C * W.T * C), W * C * W.T * C, where={W: A * V}),
            r"The size $u=\mathrm{tr}(-AC)=\mathrm{tr}(\Lambda^{-1}K)$ falls: $\dot u=-2\,\mathrm{tr}(WCW^\top C)=-2\,\mathrm{tr}K^2$.",
        ),
        Step(
            Cited(
                r"\mathrm{tr}(\Lambda^{-1}K)^2 \le \mathrm{tr}\Lambda^{-2}\,\mathrm{tr}K^2 = 2u_*\,\mathrm{tr}K^2",
                "horn2012_norms",
            ),
            r"Cauchy-Schwarz, with $u_*=\mathrm{tr}(-AC^*)=\frac12\mathrm{tr}\Lambda^{-2}$. So $\dot u\le-u^2/u_*$.",
        ),
        Step(
            Equality(Derivative(falling, t), -(falling**2) / TO_PROFILE),
            r"The comparison equation.",
        ),
        Step(
            Cited(r"\mathrm{tr}(-A\,tC(t)) \le u_*", "khalil_comparison"),
            r"Comparison lemma: $tK$ is bounded.",
        ),
        Step(
            SumIdentity(
                Sum(
                    (h[a, b] * g[b, k] * g[k, a] + g[a, b] * h[b, k] * g[k, a] + g[a, b] * g[b, k] * h[k, a])
                    / 3,
                    over(a, d),
                    over(b, d),
                    over(k, d),
                ),
                Sum(g[a, b] * g[b, k] * h[k, a], over(a, d), over(b, d), over(k, d)),
            ),
            r"$\frac13\mathrm{tr}K^3$ has the gradient $K^2$ (entries $g$ of $K$, $h$ of a change of it). With $\mathcal G(Y)=\Lambda Y+Y\Lambda$, a positive definite map of symmetric "
            r"matrices, $\kappa=tK$ obeys $\frac{d\kappa}{d\log t}=-\mathcal G(\kappa^2-\mathcal G^{-1}\kappa)$: the gradient flow, in the metric of "
            r"$\mathcal G^{-1}$, of $\frac13\mathrm{tr}\kappa^3-\frac12\mathrm{tr}(\kappa\,\mathcal G^{-1}\kappa)$.",
        ),
        Step(
            Cited(
                r"\text{bounded trajectories of a gradient flow approach its critical points}",
                "khalil_lasalle",
            ),
            r"LaSalle's invariance principle.",
        ),
        Step(
            Argued(CUBIC_LIMIT, (8, 10, 11, 13, 16, 20, 21, 22)),
            r"Critical points are the profiles, and only one is nonsingular.",
        ),
        Step(
            Equality((first + second) * (1 / (2 * first) + 1 / (2 * second)) - 1, stretch),
            r"Linearised at $\frac12\Lambda^{-1}$, entry $(i,j)$ of $\kappa-\frac12\Lambda^{-1}$ decays in $\log t$ at this rate.",
        ),
        Step(
            Equality(stretch - 1, (first - second) ** 2 / (2 * first * second)),
            r"It is at least 1, with equality for equal eigenvalues.",
        ),
        Step(
            Equality(1 - (first + second) / (2 * first), (first - second) / (2 * first)),
            r"At a singular profile (index $i$ on its subspace, $j$ off it) entry $(i,j)$ grows at this rate, and entry $(j,j)$ at rate 1. So "
            r"it repels, and for $n\le d$ tokens, whose covariance has rank at most $n-1$ for ever, the one on the $n-1$ smallest $\lambda_i$ attracts.",
        ),
        Step(
            MatrixIdentity(W * H * Q, Q * X, where=BASIS, sizes=(1, 2)),
            r"The same without coordinates: with $H=Q^{-\top}XQ^{-1}$, $WH$ is similar to $X$.",
        ),
        Step(
            MatrixIdentity(W * V * H * A * H * Q, Q * Lam * X * Lam.I * X, where=BASIS, sizes=(1,)),
            r"And $WVHAH$ to $\Lambda X\Lambda^{-1}X$.",
        ),
        Step(
            Argued(
                r"\mathrm{tr}(WVHAH) = \sum_{ij}\tfrac12\left(\tfrac{\lambda_i}{\lambda_j}+\tfrac{\lambda_j}{\lambda_i}\right)X_{ij}^2 \ge \mathrm{tr}(WHWH)",
                (1, 25, 27, 28),
            ),
            r"For every symmetric $H$.",
        ),
        Step(
            MatrixIdentity(
                V * C * W.T, -Q.T.I * Lam * K * Q.T, where={**BASIS, C: Q.T.I * K * Q.I}, sizes=(1, 2)
            ),
            r"$\frac{d}{dt}\log\det C=2\,\mathrm{tr}(VCW^\top)=-2\,\mathrm{tr}(\Lambda K)<0$ for $K\succeq0$, $K\ne0$.",
        ),
        Step(FromLemma("T2", CONVERGES), r"The full system reaches every neighbourhood of 0."),
        Step(
            Cited(
                r"\text{near 0: } \bar x = O(|\delta|^5),\ \dot\delta_i = VCW^\top\delta_i + O(|\delta|^5), \text{ up to } O(e^{-\gamma t})",
                "carr1981",
            ),
            r"Centre manifold: the linear part is $\frac{d}{dt}\bar x=V\bar x$, $V$ Hurwitz, and $\dot\delta_i=0$.",
        ),
        Step(
            Argued(
                r"\text{generic start: } t\,\mathrm{Cov}(X(t)) \to C^*,\ |x_i| = O(t^{-1/2})," + SLAVED,
                (3, 7, 23, 26, 31, 32),
            ),
            r"In $\log t$ the fifth order is a perturbation $O(1/t)$ of the gradient flow. Not computed: that the starts which end in a singular "
            r"profile (or decay exponentially, as equal tokens do) are exceptions. By step 7 the fast variable $\bar x$ settles at $-r$; what it misses, $CW^\top\bar x$ and the rest, is $O(t^{-7/2})$.",
        ),
    ),
    source="Stated here.",
    remark=r"Proved for the cubic flow; for the full system the limit is argued, with 'generic' left unquantified, and measured. Whitened "
    r"token shapes keep the memory of the start: only the covariance is universal. With $n\le d$ tokens $C$ is singular and the limit is $C^*$ "
    r"on the $n-1$ smallest eigenvectors of the pencil $(W,-A)$.",
    concludes="generic starts collapse onto one covariance: t·Cov(X(t)) → ½ W⁻¹(−A)W⁻ᵀ",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [1, 1]], response=[[-2, 1], [1, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(
            score=[[3, -4], [4, 3]], response=[[-1, 0], [0, -1]], tokens=[[5, 0], [-5, 1], [0, -1]]
        ),
        missing="W symmetric",
        boundary=Instance.of(score=[[2]], response=[[-1]], tokens=[[1], [-1]]),
    ),
    wrong=(Planted("the profile halved", scale={profile_size: fmpq(1, 2)}),),
)

# T9b: W not symmetric

shrinking = 1 / (1 / START + 2 * t)

T9b = Theorem(
    id="T9b",
    kind="theorem",
    title="Is the profile stable?",
    statement=r"Under T2 with any $W$, $C^*=\frac12W^{-1}(-A)W^{-\top}$ still solves the cubic flow of T9 as $C^*/t$. Linearised there, $tC-C^*$ moves "
    r"in $\log t$ by $-L$, $L(H)=-(VHW^\top C^*+C^*WHV^\top)$, which is similar to $H\mapsto\frac12(\hat WH\hat W^{-1}+\hat W^{-\top}H\hat W^\top)$, "
    r"$\hat W=(-A)^{-1/2}W(-A)^{-1/2}$, on symmetric $H$. If every eigenvalue of $L$ has positive real part, covariances near $C^*/t$ "
    r"approach it, like $t^{-\rho}$, $\rho=\min\mathrm{Re}\,\lambda(L)$; if one has negative real part, $C^*$ is unstable. Stable or not, "
    r"$t^d\det C(t)\le\det C^*$.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, W_POSITIVE, PROFILE_STABLE),
    claims=(
        SIZE,
        MEAN,
        Claim(
            "volume falls at the profile's pace",
            r"\mathrm{tr}(-W^\top VC)^d \ge d^d\det(-A)(\det V)^2\det C",
            AT_LEAST,
            _volumes,
        ),
        DECAY,
    ),
    steps=(
        Step(
            Given(
                r"C^* = (C^*)^\top \succ 0,\quad S = W^\top(-A)^{-1}W \succ 0,\ \det S = \det(-A)(\det V)^2",
                ("A symmetric", "A negative", "W positive"),
            ),
            r"$W$ is invertible and $V=A^{-1}W$. So $C^*$ is a covariance.",
        ),
        Step(
            Given(r"\mathrm{Re}\,\lambda(L) > 0 \text{ for every eigenvalue}", ("profile stable",)),
            r"For $W=W^\top$ they are the $\frac12(\lambda_i/\lambda_j+\lambda_j/\lambda_i)\ge1$ of T9; otherwise a condition.",
        ),
        Step(FromLemma("L8", EXPANDED), r"A remainder of fifth order in the tokens."),
        COVARIANCE_STEP,
        Step(
            MatrixIdentity(V * PROFILE * W.T * u, -u / 2, where={V: A.I * W}, sizes=(1, 2)),
            r"$VC^*W^\top=-\frac12I$ (applied to any $u$).",
        ),
        Step(
            Argued(r"VC^*W^\top C^* + C^*WC^*V^\top = -C^*", (1, 5)),
            r"By step 5 and its transpose: $C^*/t$ solves the cubic flow.",
        ),
        Step(
            MatrixIdentity(
                V * (C + H) * W.T * (C + H),
                V * C * W.T * C + (V * H * W.T * C + V * C * W.T * H) + V * H * W.T * H,
                sizes=(1, 2),
            ),
            r"In $\log t$ the matrix $tC$ moves at $C+VCW^\top C+CWCV^\top$. Half of the field expanded about $C$, the other half is its transpose: the part "
            r"linear in $H$ is $H+VHW^\top C+VCW^\top H$ plus the transposes of the last two.",
        ),
        Step(
            Argued(r"\text{at } C^*: \quad VHW^\top C^* + C^*WHV^\top = -L(H)", (5, 7)),
            r"$VC^*W^\top H=-\frac12H$ and its transpose cancel $H$.",
        ),
        Step(
            MatrixIdentity(
                A * V, W, where={A: -F * F.T, V: -F.T.I * W_hat * F.T, W: F * W_hat * F.T}, sizes=(1, 2)
            ),
            r"Whitening: with $-A=FF^\top$ and $y_i=F^\top x_i$ scores stay the same, $\hat W=F^{-1}WF^{-\top}$ and $\hat V=-\hat W$; $F=(-A)^{1/2}$ "
            r"is one choice.",
        ),
        Step(
            MatrixIdentity(
                W * (W * H * W.T * C + C * W * H * W.T) * W.T,
                (W * J * W.I + W.T.I * J * W.T) / 2,
                where={H: W.I * J * W.T.I, C: W.I * W.T.I / 2},
                sizes=(1,),
            ),
            r"In whitened coordinates, $A=-I$, $V=-W$, $C^*=\frac12W^{-1}W^{-\top}$ (hats left out): $L$ acts on $J=WHW^\top$ like this.",
        ),
        Step(
            Cited(r"tC(t) \to C^* \text{ once } tC(t) \text{ is near } C^*", "khalil_linearization"),
            r"Lyapunov's indirect method, in $\log t$; it also gives instability for an eigenvalue with negative real part.",
        ),
        Step(
            Cited(
                r"\tfrac{d}{dt}\log\det C = \mathrm{tr}(C^{-1}\dot C) = 2\,\mathrm{tr}(VCW^\top)",
                "horn2012_jacobi",
            ),
            r"Volume under the cubic flow, by Jacobi's formula; $\mathrm{tr}(VCW^\top)=-\mathrm{tr}(SC)$.",
        ),
        Step(
            Cited(r"\tfrac1d\mathrm{tr}(SC) \ge \det(SC)^{1/d}", "hardy1952"),
            r"Arithmetic and geometric mean of the eigenvalues of $SC$, which are those of $S^{1/2}CS^{1/2}\succeq0$.",
        ),
        Step(
            Equality(Derivative(shrinking, t), -2 * shrinking**2),
            r"So $v=\det(SC)^{1/d}$ obeys $\dot v\le-2v^2$, with this comparison equation.",
        ),
        Step(
            Cited(r"t^d\det C(t) \le 2^{-d}/\det S = \det C^*", "khalil_comparison"),
            r"Comparison lemma.",
        ),
        Step(
            Given(r"\bar x^\top W\bar x \ge 0", ("W positive",)),
            r"The linear part $\frac{d}{dt}\bar x=V\bar x$ lowers $-\frac12\bar x^\top A\bar x$ at this rate.",
        ),
    ),
    source="Stated here.",
    remark=r"About the cubic flow near its profile: neither which starts reach that neighbourhood nor what replaces an unstable $C^*$ is claimed (T9c "
    r"answers both for rotations), and an eigenvalue on the imaginary axis decides nothing. That the full system follows the cubic flow is argued as in T9, "
    r"and measured.",
    concludes="covariances near ½ W⁻¹(−A)W⁻ᵀ/t approach it (cubic flow)",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]], response=[[-2, 1], [1, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(
            score=[[3, -4], [4, 3]], response=[[-1, 0], [0, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        missing="profile stable",
        boundary=Instance.of(score=[[2]], response=[[-1]], tokens=[[1], [-1]]),
    ),
    wrong=(Planted("twice the volume's pace", scale={unit: fmpq(2)}),),
)

# T9c: rotations

m_a, m_b = symbols("a b", real=True)
p, r, clock, growth = (Symbol(name, positive=True) for name in ("p", "q", "t", "G"))
turn = ImmutableMatrix([[m_a, -m_b], [m_b, m_a]])
shape = ImmutableMatrix([[p, 0], [0, r]])
p_dot = -2 * p * (m_a**2 * p + m_b**2 * r)
r_dot = -2 * r * (m_b**2 * p + m_a**2 * r)
round_ = 4 * p * r / (p + r) ** 2
path = Symbol("sigma", real=True)
logistic = 1 / (1 + growth * exp(-path))
lag = -m_b / (2 * m_a) * log(clock)
turning = ImmutableMatrix([cos(lag), sin(lag)]) / (m_a * sqrt(2 * clock))
operator = ImmutableMatrix(
    [
        [m_a**2, -2 * m_a * m_b, m_b**2],
        [m_a * m_b, m_a**2 - m_b**2, -m_a * m_b],
        [m_b**2, 2 * m_a * m_b, m_a**2],
    ]
) / (m_a**2 + m_b**2)


def _product(*factors: ImmutableMatrix) -> MatMul:
    """Not yet multiplied out."""
    return MatMul(*factors, evaluate=False)


def _excess(e: ExplicitSystem) -> Expr:
    """a² − b²: positive for turns below 45°."""
    return e.W[0, 0] ** 2 - e.W[1, 0] ** 2


def _plane(
    rates: Callable[[ExplicitSystem, Matrix, Matrix], tuple[Expr, Expr]],
) -> Callable[[ExplicitSystem], Sides]:
    """One identity between C and its velocity under the cubic flow, for d = 2."""

    def sides(e: ExplicitSystem) -> Sides:
        if e.d != 2:
            return []
        left, right = rates(e, covariance(e), cubic_field(e))
        return [(left, unit * right)]

    return sides


def _area_rate(C: Matrix, C_dot: Matrix) -> Expr:
    """d/dt det C."""
    return C[0, 0] * C_dot[1, 1] + C_dot[0, 0] * C[1, 1] - 2 * C[0, 1] * C_dot[0, 1]


def _stretch(e: ExplicitSystem, C: Matrix, C_dot: Matrix) -> tuple[Expr, Expr]:
    """(s² − 4D)˙ = 2sṡ − 4Ḋ, the squared difference of the eigenvalues of C, s = tr C, D = det C."""
    s, D = C.trace(), C.det()
    return 2 * s * C_dot.trace() - 4 * _area_rate(C, C_dot), -4 * e.W[0, 0] ** 2 * s * (s**2 - 4 * D)


T9c = Theorem(
    id="T9c",
    kind="theorem",
    title="Rotations: round or turning",
    statement=r"Let $d=2$, $A=-I$, $W=\begin{pmatrix}a&-b\\b&a\end{pmatrix}$, $a>0$, a turn by $\varphi$, $\tan\varphi=b/a$. Under the cubic flow "
    r"of T9 the roundness $\varepsilon=4\det C/(\mathrm{tr}C)^2$ obeys $\dot\varepsilon=2(a^2-b^2)\,\mathrm{tr}C\,\varepsilon(1-\varepsilon)$. So from every "
    r"$C(0)\succ0$ that is not round: for $|\varphi|<45^\circ$ the profile becomes round, $tC\to C^*=I/(2(a^2+b^2))$; for $|\varphi|>45^\circ$ it becomes flat, of "
    r"rank one, and turns for ever like $-\frac b{2a}\log t$, with $t\,\mathrm{tr}C\to1/(2a^2)$; at $45^\circ$ every roundness persists.",
    hypotheses=(W_ROTATION, A_MINUS_IDENTITY, W_POSITIVE),
    claims=(
        MEAN,
        Claim(
            "size under the cubic flow",
            r"\tfrac{d}{dt}\mathrm{tr}C = -2a^2(\mathrm{tr}C)^2 + 4(a^2-b^2)\det C",
            EQUAL,
            _plane(
                lambda e, C, C_dot: (
                    C_dot.trace(),
                    4 * _excess(e) * C.det() - 2 * e.W[0, 0] ** 2 * C.trace() ** 2,
                )
            ),
        ),
        Claim(
            "area under the cubic flow",
            r"\tfrac{d}{dt}\det C = -2(a^2+b^2)\,\mathrm{tr}C\det C",
            EQUAL,
            _plane(lambda e, C, C_dot: (_area_rate(C, C_dot), -2 * _determinant(e.W) * C.trace() * C.det())),
        ),
        Claim(
            "stretch under the cubic flow",
            r"\tfrac{d}{dt}\Delta = -4a^2\,\mathrm{tr}C\,\Delta,\ \Delta = (\mathrm{tr}C)^2 - 4\det C",
            EQUAL,
            _plane(_stretch),
        ),
        Claim(
            "the threshold is 45°",
            r"(a^2+b^2)\min\mathrm{Re}\,\lambda(L) = a^2-b^2",
            EQUAL,
            lambda e: [(_determinant(e.W) * profile_decay, unit * _excess(e))],
        ),
    ),
    steps=(
        Step(
            Given(r"V = -W,\quad WW^\top = (a^2+b^2)I", ("W rotation", "A minus identity")),
            r"So $C^*=I/(2(a^2+b^2))$, and turning the axes changes neither $W$ nor $V$.",
        ),
        Step(
            Equality(
                MatAdd(
                    _product(-turn, shape, turn.T, shape),
                    _product(shape, turn, shape, -turn.T),
                    evaluate=False,
                ),
                -ImmutableMatrix(
                    [
                        [2 * p * (m_a**2 * p + m_b**2 * r), m_a * m_b * (p**2 - r**2)],
                        [m_a * m_b * (p**2 - r**2), 2 * r * (m_b**2 * p + m_a**2 * r)],
                    ]
                ),
                kind=FIXED,
            ),
            r"The cubic field at $C=\mathrm{diag}(p,q)$, without loss of generality. Its diagonal gives $\dot p$ and $\dot q$.",
        ),
        Step(
            Equality(
                Derivative(round_, p) * p_dot + Derivative(round_, r) * r_dot,
                2 * (m_a**2 - m_b**2) * (p + r) * round_ * (1 - round_),
                kind=FIXED,
            ),
            r"Roundness, $\varepsilon=4pq/(p+q)^2$, by the chain rule.",
        ),
        Step(
            Equality(p_dot + r_dot, -((p + r) ** 2) * (2 * m_a**2 - (m_a**2 - m_b**2) * round_), kind=FIXED),
            r"Trace: $\dot s=-s^2(2a^2-(a^2-b^2)\varepsilon)$, $s=p+q$.",
        ),
        Step(
            Equality(Derivative(logistic, path), logistic * (1 - logistic)),
            r"In the variable $2(a^2-b^2)\int s\,dt$ roundness follows the logistic curve from $1/(1+G)$.",
        ),
        Step(
            Argued(r"\int_0^\infty s\,dt = \infty", (4,), ("W positive",)),
            r"For $0\le\varepsilon\le1$ the bracket in step 4 lies between $a^2+b^2$ and $2a^2>0$, so $s$ is of order $1/t$.",
        ),
        Step(
            Argued(
                r"\varepsilon \to 1 \ (a^2>b^2),\quad \varepsilon \to 0 \ (a^2<b^2),\quad \dot\varepsilon = 0 \ (a^2=b^2)",
                (3, 5, 6),
            ),
            r"From $0<\varepsilon(0)<1$.",
        ),
        Step(
            Argued(r"t\,\mathrm{tr}C \to \tfrac1{a^2+b^2},\quad \tfrac1{2a^2},\quad \tfrac1{2a^2}", (4, 7)),
            r"$\frac{d}{dt}s^{-1}$ tends to the bracket in step 4, at $\varepsilon=1$, at $\varepsilon=0$, and (any $\varepsilon$) at $a^2=b^2$.",
        ),
        Step(
            Equality(
                Derivative(turning, clock), _product(-1 / (2 * m_a * clock) * turn, turning), kind=FIXED
            ),
            r"Rank one, $C=uu^\top$: as $u^\top Wu=a|u|^2$, the cubic field is $-a|u|^2(Wuu^\top+uu^\top W^\top)$, so $\dot u=-a|u|^2Wu$ solves it. This $u$ has "
            r"$|u|^2=1/(2a^2t)$, so $a|u|^2=1/(2at)$, and turns like $-\frac b{2a}\log t$.",
        ),
        Step(
            Equality(
                Determinant(operator - growth * ImmutableMatrix.eye(3)),
                (1 - growth) * (growth**2 - 2 * growth * (m_a**2 - m_b**2) / (m_a**2 + m_b**2) + 1),
                kind=FIXED,
            ),
            r"The operator of T9b is $L(H)=WHW^\top/(a^2+b^2)$; on the entries $(H_{11},H_{12},H_{22})$ it has this matrix. Its eigenvalues are 1 and $e^{\pm2i\varphi}$, so "
            r"$\rho=\cos2\varphi=(a^2-b^2)/(a^2+b^2)$.",
        ),
        Step(
            Given(r"\bar x^\top W\bar x \ge 0", ("W positive",)),
            r"The linear part $\frac{d}{dt}\bar x=V\bar x$ lowers $\frac12|\bar x|^2$ at this rate.",
        ),
    ),
    source="Stated here.",
    remark=r"For the full system this is measured: at $75^\circ$, $a=\cos75^\circ$, $t\,\mathrm{tr}\,\mathrm{Cov}(X(t))$ tends to $1/(2\cos^275^\circ)=7.4641$. A start that is "
    r"exactly round stays round under the cubic flow.",
    concludes="covariances become round (turns below 45°) or flat and turning (beyond)",
    examples=Examples(
        witness=Instance.of(
            score=[[4, -3], [3, 4]], response=[[-1, 0], [0, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(
            score=[[-1, -2], [2, -1]], response=[[-1, 0], [0, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        missing="W positive",
        boundary=Instance.of(score=[[1, -2], [2, 1]], response=[[-1, 0], [0, -1]], tokens=[[1, 2], [-1, -2]]),
    ),
    wrong=(Planted("every rate doubled", scale={unit: fmpq(2)}),),
)
