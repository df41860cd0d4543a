"""T2: all tokens converge to zero; and the energy balance that T3 shares."""

from flint import fmpq
from sympy import IndexedBase, Sum

from theory.derivation import Argued, Cited, FromLemma, Given, MatrixIdentity, Step, SumIdentity, along_flow
from theory.hypotheses import A_NEGATIVE, A_SYMMETRIC, W_POSITIVE
from theory.instance import Instance
from theory.lemmas.response import RESPONSE
from theory.lemmas.softmax import over
from theory.notation import A, W, a, b, d, i, j, m_i, n, s, sym, u, unit, w, x, x_i
from theory.quantities import energy, energy_rate, total_score
from theory.sums import Definition
from theory.theorem import AT_LEAST, Claim, Examples, Planted, Theorem

total = IndexedBase("S", real=True)
SCORES = (
    Definition(total, lambda index: Sum(x[i, index], over(i))),
    Definition(s, lambda row, column: Sum(x[row, a] * w[a, b] * x[column, b], over(a, d), over(b, d))),
)
MEAN_BOUND = r"\sum_j P_{ij} s_{ij} \ge \tfrac1n \sum_j s_{ij}, \text{ with equality iff all } s_{ij} \text{ are equal}"
TOTAL_BOUND = r"\sum_i e_i \ge \tfrac1n S^\top W_s S \ge 0,\quad S = \sum_i x_i"


def row_of_attention(formula: str) -> str:
    """L1 for row i: s_j becomes s_ij and P_j becomes P_ij."""
    return formula.replace("P_j", "P_{ij}").replace("s_j", "s_{ij}")


BALANCE_STEPS = (
    Step(
        along_flow(x_i.T * A * x_i / 2, x_i.T * W * m_i),
        r"Energy of one token along $\dot x_i = Vm_i$, with $W=AV$ and $A=A^\top$.",
    ),
    Step(FromLemma("L4", RESPONSE), r"The right-hand side is the attended score $e_i$."),
    Step(
        FromLemma("L1", MEAN_BOUND, row_of_attention),
        r"Row $i$ of attention: the attended score is at least the mean score.",
    ),
    Step(
        SumIdentity(
            Sum(s[i, j], over(i), over(j)) / n,
            Sum(total[a] * w[a, b] * total[b], over(a, d), over(b, d)) / n,
            SCORES,
        ),
        r"Summed over the rows, with $S=\sum_i x_i$.",
    ),
    Step(MatrixIdentity(u.T * W * u, u.T * sym(W) * u), r"Only the symmetric part counts ($u = S$)."),
    Step(
        Argued(TOTAL_BOUND, (2, 3, 4, 5), ("W positive",)),
        r"$W_s\succ0$; equality in the last only for $S=0$.",
    ),
    Step(
        SumIdentity(Sum(s[i, j], over(j)), Sum(x[i, a] * w[a, b] * total[b], over(a, d), over(b, d)), SCORES),
        r"Equality case, prepared: the row sum of the scores is $x_i^\top W S$.",
    ),
    Step(
        Argued(r"\sum_i e_i = 0 \implies X = 0", (3, 5, 6, 7), ("W positive",)),
        r"If $\sum_i e_i = 0$ then $S=0$ and each row is an equality in L1, so $s_{ij}$ does not depend on $j$; the row sum "
        r"$x_i^\top WS$ is 0, so every $s_{ij}=0$; in particular $s_{ii}=x_i^\top W_sx_i=0$, and $W_s\succ0$ gives $x_i=0$.",
    ),
)

DECREASE = Claim(
    "energy decreases",
    r"-\dot E \ge \tfrac1n S^\top W S,\ S = \sum_i x_i",
    AT_LEAST,
    lambda e: [(energy_rate(e), unit * total_score(e) / e.n)],
)

CONVERGES = r"X(t)\to 0 \text{ from every start}"

T2 = Theorem(
    id="T2",
    kind="theorem",
    title="Convergence to zero",
    statement=r"If $A=A^\top\prec0$ and $W_s\succ0$ then $X(t)\to0$ from every start.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, W_POSITIVE),
    claims=(
        Claim(
            "energy is non-negative",
            r"E = -\tfrac12\sum_i x_i^\top Ax_i \ge 0",
            AT_LEAST,
            lambda e: [(-energy(e), 0)],
        ),
        Claim("energy never grows", r"-\dot E \ge 0", AT_LEAST, lambda e: [(energy_rate(e), 0)]),
        DECREASE,
    ),
    steps=(
        *BALANCE_STEPS,
        Step(
            Given(
                r"E = -\tfrac12\sum_i x_i^\top A x_i > 0 \text{ unless } X=0,\text{ and } E\to\infty \text{ as } \|X\|\to\infty",
                ("A negative",),
            ),
            r"$E$ is a Lyapunov function: positive, proper.",
        ),
        Step(
            Argued(r"\dot E = -\sum_i e_i < 0 \text{ unless } X = 0", (1, 2, 6, 7, 8)),
            r"It decreases strictly.",
        ),
        Step(
            Cited(CONVERGES, "khalil_lyapunov"),
            r"Lyapunov's theorem for proper functions.",
        ),
    ),
    source="Stated here; scenario 'nd' of arXiv 2512.03058 with both antisymmetric parts constrained.",
    remark=r"Sufficient only: nothing is claimed where a hypothesis fails. No rate is claimed: equal tokens decay exponentially, generic ones only like $t^{-1/2}$.",
    concludes="X(t) → 0 from every start",
    formula=CONVERGES,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]], response=[[-2, 1], [1, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(score=[[3, -4], [4, 3]], response=[[-3, -4], [4, -3]], tokens=[[1, 0]]),
        missing="A symmetric",
        boundary=Instance.of(score=[[1, 0], [0, 2]], response=[[-1, 0], [0, -3]], tokens=[[1, 2], [1, 2]]),
    ),
    wrong=(Planted("1/n replaced by 2/n", scale={unit: fmpq(2)}),),
)
