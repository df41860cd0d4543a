"""L4: what the response matrix A = W V⁻¹ does."""

from flint import fmpq
from sympy import IndexedBase, Sum

from theory.derivation import Argued, FromLemma, MatrixIdentity, Step, SumIdentity
from theory.lemmas.potential import MONOTONE
from theory.lemmas.softmax import over
from theory.notation import A, P, V, W, a, b, d, j, m_i, m_j, s, unit, w, x, x_i, x_j
from theory.quantities import attended_score, for_pairs, for_tokens, quadratic
from theory.sums import Definition
from theory.theorem import AT_LEAST, EQUAL, Claim, Planted, Theorem

query = IndexedBase("y", real=True)
SCORES = (Definition(s, lambda key: Sum(query[a] * w[a, b] * x[key, b], over(a, d), over(b, d))),)

RESPONSE = r"x_i^\top A \dot x_i = x_i^\top W m_i = \sum_j P_{ij}s_{ij} = e_i"

L4 = Theorem(
    id="L4",
    kind="lemma",
    title="Response identity",
    statement=r"If $AV = W$ then $x_i^\top A\dot x_i = \sum_j P_{ij}s_{ij} = e_i$, and for pairs "
    r"$(x_i-x_j)^\top A(\dot x_i-\dot x_j)\ge 0$.",
    hypotheses=(),
    claims=(
        Claim(
            "response identity",
            r"x_i^\top A\dot x_i = e_i",
            EQUAL,
            for_tokens(lambda e, i: (quadratic(e.A, e.token(i), e.velocity(i)), unit * attended_score(e, i))),
        ),
        Claim(
            "pairwise response",
            r"(x_i-x_j)^\top A(\dot x_i-\dot x_j)\ge 0",
            AT_LEAST,
            for_pairs(
                lambda e, i, j: (quadratic(e.A, e.token(i) - e.token(j), e.velocity(i) - e.velocity(j)), 0)
            ),
        ),
    ),
    steps=(
        Step(
            MatrixIdentity(x_i.T * A * V * m_i, x_i.T * W * m_i, where={W: A * V}),
            r"$\dot x_i = Vm_i$ and $W = AV$.",
        ),
        Step(
            SumIdentity(
                Sum(query[a] * w[a, b] * Sum(P[j] * x[j, b], over(j)), over(a, d), over(b, d)),
                Sum(P[j] * s[j], over(j)),
                SCORES,
            ),
            r"In coordinates, with $y = x_i$: $y^\top W\sum_j P_j x_j$ is the attended score.",
        ),
        Step(Argued(RESPONSE, (1, 2)), r"The response identity, for one token."),
        Step(
            MatrixIdentity(
                (x_i - x_j).T * A * V * (m_i - m_j), (x_i - x_j).T * W * (m_i - m_j), where={W: A * V}
            ),
            r"The same for a difference of two tokens.",
        ),
        Step(FromLemma("L3", MONOTONE), r"The right-hand side is monotone, for any $W$."),
    ),
    source="Stated here; the name 'response matrix' is ours.",
    remark=r"The pairwise part needs L3's shared potential.",
    formula=RESPONSE,
    wrong=(Planted("twice the attended score", scale={unit: fmpq(2)}),),
)
