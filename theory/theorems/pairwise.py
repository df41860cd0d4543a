"""T1: pairwise distances in the response metric are monotone."""

from flint import fmpq

from theory.derivation import Argued, FromLemma, Given, Step, along_flow
from theory.hypotheses import A_DEFINITE, A_SYMMETRIC
from theory.instance import Instance
from theory.lemmas.potential import MONOTONE
from theory.notation import A, W, m_i, m_j, sigma, unit, x_i, x_j
from theory.quantities import for_pairs, pair_form, pair_form_rate, quadratic
from theory.theorem import AT_LEAST, EQUAL, Claim, Examples, Planted, Theorem

DISTANCE = Claim(
    "it is a distance",
    r"q_{ij} = (x_i-x_j)^\top(\sigma A)(x_i-x_j) \ge 0",
    AT_LEAST,
    for_pairs(lambda e, i, j: (sigma * pair_form(e, i, j), 0)),
)
MONOTONE_DISTANCE = Claim(
    "it moves one way",
    r"\sigma\,\dot q_{ij} \ge 0",
    AT_LEAST,
    for_pairs(lambda e, i, j: (pair_form_rate(e, i, j), 0)),
)
BALANCE = Claim(
    "distance balance",
    r"\tfrac{d}{dt}(x_i-x_j)^\top A(x_i-x_j) = 2(x_i-x_j)^\top W(m_i-m_j)",
    EQUAL,
    for_pairs(
        lambda e, i, j: (
            pair_form_rate(e, i, j),
            2 * unit * quadratic(e.W, e.token(i) - e.token(j), (e.m.row(i) - e.m.row(j)).T),
        )
    ),
)
MONOTONE_DISTANCES = r"\sigma\tfrac{d}{dt}\,(x_i-x_j)^\top(\sigma A)(x_i-x_j) \ge 0"

PAIRWISE_STEPS = (
    Step(
        along_flow((x_i - x_j).T * A * (x_i - x_j), 2 * (x_i - x_j).T * W * (m_i - m_j)),
        r"Product rule along $\dot x_i = Vm_i$, with $W = AV$ and $A = A^\top$.",
    ),
    Step(FromLemma("L3", MONOTONE), r"The right-hand side is monotone, for any $W$."),
    Step(
        Given(r"(x_i-x_j)^\top(\sigma A)(x_i-x_j) > 0 \text{ unless } x_i = x_j", ("A definite",)),
        r"So the form is a squared distance, up to its sign $\sigma$.",
    ),
    Step(Argued(MONOTONE_DISTANCES, (1, 2, 3)), r"Farther for $\sigma=1$, closer for $\sigma=-1$."),
)

T1 = Theorem(
    id="T1",
    kind="theorem",
    title="Farther or closer",
    statement=r"If $A=A^\top$ is definite, of sign $\sigma$, every pairwise distance "
    r"$(x_i-x_j)^\top(\sigma A)(x_i-x_j)$ is non-decreasing for $A\succ0$ and non-increasing for $A\prec0$, for any $W$.",
    hypotheses=(A_SYMMETRIC, A_DEFINITE),
    claims=(DISTANCE, MONOTONE_DISTANCE, BALANCE),
    steps=PAIRWISE_STEPS,
    source="Stated here from L3 and L4; the two signs are the scenarios 'pd' and 'nd' of arXiv 2512.03058.",
    remark=r"Euclidean distances need not be monotone. For indefinite symmetric $A$ the form still never decreases, "
    r"but it is no distance.",
    concludes="pairwise A-distances move one way (A ≻ 0: apart, A ≺ 0: together)",
    formula=MONOTONE_DISTANCES,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 3], [3, 5]], response=[[1, 0], [0, 10]], tokens=[[1, -1], [-1, 1], [0, 2]]
        ),
        near_miss=Instance.of(
            score=[[1, 0], [0, 1]], response=[[1, 3], [-3, 1]], tokens=[[2, 0], [0, 1], [-1, 1]]
        ),
        missing="A symmetric",
        boundary=Instance.of(score=[[1, 2], [0, 1]], response=[[2, 1], [1, 2]], tokens=[[1, 1], [1, 1]]),
    ),
    wrong=(Planted("twice the balance", scale={unit: fmpq(2)}),),
)
