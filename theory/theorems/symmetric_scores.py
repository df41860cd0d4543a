"""T5: symmetric scores leave the antisymmetric part of A free."""

from flint import fmpq
from sympy import Add, Derivative, IndexedBase, Integer, Sum, Symbol, exp

from theory.derivation import (
    Argued,
    Cited,
    ConvexMinimum,
    FromLemma,
    Given,
    MatrixIdentity,
    Step,
    SumIdentity,
)
from theory.hypotheses import A_DEFINITE, W_POSITIVE, W_SYMMETRIC
from theory.instance import Instance
from theory.lemmas.softmax import over
from theory.notation import A, V, W, a, b, d, i, j, n, s, sigma, sym, tau, u, unit, w, x, x_i, x_j
from theory.quantities import quadratic, symmetric
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, Claim, Examples, Planted, Theorem
from theory.theorems.convergence import MEAN_BOUND, SCORES, row_of_attention, total

shift = Symbol("u", real=True)
G = IndexedBase("G", real=True)  # e^{s_ij}
score_rate = IndexedBase("r", real=True)
velocity = IndexedBase("v", real=True)


def partition_total(e: ExplicitSystem):
    """F = Σ_ij e^{s_ij}."""
    return Add(*e.Z)


def partition_rate(e: ExplicitSystem):
    """Ḟ along the flow, for any W: Σ_ij e^{s_ij}(ẋ_iᵀWx_j + x_iᵀWẋ_j)."""
    return Add(
        *(
            e.g[p, q]
            * (quadratic(e.W, e.velocity(p), e.token(q)) + quadratic(e.W, e.token(p), e.velocity(q)))
            for p in range(e.n)
            for q in range(e.n)
        )
    )


def dissipation(e: ExplicitSystem):
    """Σ_i g_iᵀA⁻¹g_i/(2Z_i) = Σ_i 2Z_i ẋ_iᵀ A_s ẋ_i, as g_i = 2Z_i W m_i = 2Z_i A ẋ_i."""
    return Add(*(2 * e.Z[p] * quadratic(symmetric(e.A), e.velocity(p)) for p in range(e.n)))


T5 = Theorem(
    id="T5",
    kind="theorem",
    title="Symmetric scores",
    statement=r"If $W=W^\top\succ0$ and only $A_s$ is definite, of sign $\sigma$, then $F=\sum_{ij}e^{s_{ij}}$ obeys "
    r"$\dot F=\sum_i\frac1{2Z_i}g_i^\top A^{-1}g_i$, $g_i=2Z_iWm_i$: $A_s\prec0$ gives $X\to0$ from every start, $A_s\succ0$ and "
    r"$X(0)\ne0$ give $\max_i\|x_i\|\to\infty$.",
    hypotheses=(W_SYMMETRIC, W_POSITIVE, A_DEFINITE),
    claims=(
        Claim(
            "F is at least n²", r"F \ge n^2", AT_LEAST, lambda e: [(partition_total(e), Integer(e.n) ** 2)]
        ),
        Claim("F moves one way", r"\sigma\dot F \ge 0", AT_LEAST, lambda e: [(sigma * partition_rate(e), 0)]),
        Claim(
            "F's balance",
            r"\dot F = \sum_i \tfrac1{2Z_i} g_i^\top A^{-1} g_i",
            EQUAL,
            lambda e: [(partition_rate(e), unit * dissipation(e))],
        ),
    ),
    steps=(
        Step(MatrixIdentity(x_i.T * W * x_j, x_j.T * W * x_i), r"Scores are symmetric: $W = W^\top$."),
        Step(
            SumIdentity(
                Derivative(Sum(exp(s[i, j] + tau * score_rate[i, j]), over(i), over(j)), tau),
                Sum(exp(s[i, j] + tau * score_rate[i, j]) * score_rate[i, j], over(i), over(j)),
            ),
            r"Chain rule, at $\tau=0$: $\dot F=\sum_{ij}e^{s_{ij}}\dot s_{ij}$, $r_{ij}=\dot s_{ij}$.",
        ),
        Step(
            SumIdentity(
                Sum(
                    G[i, j]
                    * Sum(
                        (velocity[i, a] * x[j, b] + x[i, a] * velocity[j, b]) * w[a, b],
                        over(a, d),
                        over(b, d),
                    ),
                    over(i),
                    over(j),
                ),
                Sum(
                    velocity[i, a] * 2 * Sum(G[i, j] * w[a, b] * x[j, b], over(j), over(b, d)),
                    over(i),
                    over(a, d),
                ),
                symmetric=(w, G),
                needs=("W symmetric",),
            ),
            r"With $G_{ij}=e^{s_{ij}}$, $v_i=\dot x_i$: $\dot F=\sum_i\dot x_i^\top g_i$, $g_i=2\sum_jG_{ij}Wx_j=2Z_iWm_i$.",
        ),
        Step(
            MatrixIdentity(u.T * V * W.I * u, u.T * A.I * u, where={V: A.I * W}, sizes=(1, 2)),
            r"$\dot x_i=Vm_i$ with $m_i=W^{-1}g_i/(2Z_i)$ and $V=A^{-1}W$: each term is $g_i^\top A^{-1}g_i/(2Z_i)$.",
        ),
        Step(
            MatrixIdentity(u.T * A.I * u, (A.I.T * u).T * sym(A) * (A.I.T * u), sizes=(1, 2)),
            r"$A^{-1}$ has the sign of $A_s$ (congruence by $A^{-\top}$).",
        ),
        Step(
            Argued(
                r"\sigma\dot F \ge 0,\text{ with equality only if every } g_i = 0", (3, 4, 5), ("A definite",)
            ),
            r"$\sigma A_s\succ0$; $Z_i>0$.",
        ),
        Step(ConvexMinimum(exp(shift) - 1 - shift, shift, Integer(0)), r"$e^u\ge1+u$, equality only at 0."),
        Step(
            SumIdentity(
                Sum(1 + s[i, j], over(i), over(j)),
                n**2 + Sum(total[a] * w[a, b] * total[b], over(a, d), over(b, d)),
                SCORES,
            ),
            r"So $F\ge n^2+S^\top WS$, $S=\sum_ix_i$.",
        ),
        Step(
            Argued(
                r"F \ge n^2,\text{ equality only if all } s_{ij}=0,\text{ so } s_{ii}=0,\ x_i=0",
                (7, 8),
                ("W positive",),
            ),
            r"$S^\top WS\ge0$.",
        ),
        Step(FromLemma("L1", MEAN_BOUND, row_of_attention), r"For the critical points of $F$."),
        Step(
            Argued(r"g_i = 0\ \forall i \implies X = 0", (8, 10), ("W positive",)),
            r"$g_i=0$ means $Wm_i=0$, so $e_i=x_i^\top Wm_i=0$ for all $i$; then $0=\sum_ie_i\ge\frac1nS^\top WS\ge0$, each row is an "
            r"equality in L1, every $s_{ij}=\frac1nx_i^\top WS=0$, and $s_{ii}=0$ gives $x_i=0$.",
        ),
        Step(
            Given(r"F \ge \sum_i e^{\lambda\|x_i\|^2},\ \lambda=\lambda_{\min}(W)>0", ("W positive",)),
            r"$F$ is proper.",
        ),
        Step(
            Cited(
                r"\text{bounded trajectories approach the set } \{\dot F = 0\} = \{X = 0\}", "khalil_lasalle"
            ),
            r"LaSalle's invariance principle.",
        ),
        Step(
            Argued(
                r"\sigma=-1: X\to0;\qquad \sigma=1,\ X(0)\ne0: \max_i\|x_i\|\to\infty", (6, 9, 11, 12, 13)
            ),
            r"$\sigma=-1$: sublevel sets of $F$ are compact and invariant. $\sigma=1$: a bounded trajectory would approach $X=0$, where "
            r"$F=n^2<F(X(0))$, yet $F$ increases; so the trajectory is unbounded, the increasing proper $F$ tends to $\infty$, and "
            r"$F\le n^2e^{\|W\|\max_i\|x_i\|^2}$ carries $\max_i\|x_i\|$ along.",
        ),
    ),
    source="Stated here.",
    remark=r"With both antisymmetric parts free the conclusion is false: T7.",
    concludes="A_s ≺ 0: X(t) → 0 from every start; A_s ≻ 0: max‖x_i‖ → ∞ from every start but 0",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [1, 1]], response=[[-1, 2], [-2, -1]], tokens=[[1, 0], [0, -1], [1, 1]]
        ),
        near_miss=Instance.of(score=[[3, -4], [4, 3]], response=[[-3, -4], [4, -3]], tokens=[[1, 0], [1, 0]]),
        missing="W symmetric",
        boundary=Instance.of(score=[[2, 1], [1, 1]], response=[[1, 2], [-2, 1]], tokens=[[0, 0], [0, 0]]),
    ),
    wrong=(Planted("twice the balance", scale={unit: fmpq(2)}),),
)
