"""T3: the largest token diverges."""

from flint import fmpq

from theory.derivation import Argued, Cited, Given, Step
from theory.hypotheses import A_POSITIVE, A_SYMMETRIC, START_NONZERO, W_POSITIVE
from theory.instance import Instance
from theory.notation import unit
from theory.quantities import energy, energy_rate, total_score
from theory.theorem import AT_LEAST, MORE_THAN, Claim, Examples, Planted, Theorem
from theory.theorems.convergence import BALANCE_STEPS

INCREASE = Claim(
    "energy increases",
    r"\dot E \ge \tfrac1n S^\top W S,\ S = \sum_i x_i",
    AT_LEAST,
    lambda e: [(energy_rate(e), unit * total_score(e) / e.n)],
)

DIVERGES = r"E(t)\to\infty,\ \max_i\|x_i(t)\|\to\infty"

T3 = Theorem(
    id="T3",
    kind="theorem",
    title="Divergence",
    statement=r"If $A=A^\top\succ0$, $W_s\succ0$ and $X(0)\ne0$ then $E=\frac12\sum_i x_i^\top Ax_i$ increases strictly to "
    r"$\infty$, so $\max_i\|x_i\|\to\infty$.",
    hypotheses=(A_SYMMETRIC, A_POSITIVE, W_POSITIVE, START_NONZERO),
    claims=(
        Claim(
            "energy is positive",
            r"E = \tfrac12\sum_i x_i^\top Ax_i > 0",
            MORE_THAN,
            lambda e: [(energy(e), 0)],
        ),
        Claim("energy grows", r"\dot E > 0", MORE_THAN, lambda e: [(energy_rate(e), 0)]),
        INCREASE,
    ),
    steps=(
        *BALANCE_STEPS,
        Step(
            Given(r"E > 0 \text{ unless } X = 0,\ E\to\infty \text{ iff } \|X\|\to\infty", ("A positive",)),
            r"$E$ is positive and proper.",
        ),
        Step(Given(r"E(0) > 0", ("start nonzero", "A positive")), r"The start is not the equilibrium."),
        Step(
            Argued(r"\dot E = \sum_i e_i > 0 \text{ along the trajectory}", (1, 2, 6, 7, 8, 10)),
            r"It increases strictly.",
        ),
        Step(
            Cited(
                r"E \text{ bounded} \implies \dot E = 0 \text{ on the non-empty } \omega\text{-limit set}",
                "khalil_lasalle",
            ),
            r"LaSalle's invariance principle for a bounded trajectory.",
        ),
        Step(
            Argued(DIVERGES, (8, 9, 10, 11, 12)),
            r"$\dot E=0$ only at $X=0$, where $E = 0 < E(0)$: a bounded $E$ is impossible.",
        ),
    ),
    source="Stated here; scenario 'pd' of arXiv 2512.03058 with both antisymmetric parts constrained.",
    remark=r"It speaks of the largest token. That every token diverges is false: T8. 'Diverges' is as $t\to\infty$ (L6).",
    formula=DIVERGES,
    concludes="max‖x_i‖ → ∞ from every start but 0",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]], response=[[2, 1], [1, 1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(score=[[1, 0], [0, 1]], response=[[1, 0], [0, 1]], tokens=[[0, 0], [0, 0]]),
        missing="start nonzero",
        boundary=Instance.of(score=[[1, 0], [0, 2]], response=[[1, 0], [0, 3]], tokens=[[1, 2], [1, 2]]),
    ),
    wrong=(Planted("1/n replaced by 2/n", scale={unit: fmpq(2)}),),
)
