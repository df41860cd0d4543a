"""L6: tokens grow at most exponentially; nothing blows up in finite time."""

from flint import fmpq
from sympy import Derivative, Max, Sum, Symbol, exp

from theory.derivation import Cited, Equality, Step, SumIdentity
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import P, j, norm_V, t, unit
from theory.quantities import for_tokens
from theory.theorem import AT_LEAST, Claim, Planted, Theorem

largest = Symbol("r", nonnegative=True)


def _squared_norm(vector):
    return (vector.T * vector)[0, 0]


L6 = Theorem(
    id="L6",
    kind="lemma",
    title="Growth",
    statement=r"$\max_i\|x_i(t)\|\le e^{\|V\|t}\max_i\|x_i(0)\|$: no blow-up in finite time.",
    hypotheses=(),
    claims=(
        Claim(
            "speed limit",
            r"\|V\|^2\max_j\|x_j\|^2 \ge \|\dot x_i\|^2",
            AT_LEAST,
            for_tokens(
                lambda e, i: (
                    unit * norm_V**2 * Max(*(_squared_norm(e.token(j)) for j in range(e.n))),
                    _squared_norm(e.velocity(i)),
                )
            ),
        ),
    ),
    steps=(
        Step(
            SumIdentity(Sum(P[j] * largest, over(j)), largest, SOFTMAX, NORMALISER),
            r"Attention averages: with $\|x_j\| \le r$ for all $j$, the triangle inequality gives "
            r"$\|m_i\| \le \sum_j P_{ij}\|x_j\| \le \sum_j P_{ij}\,r = r$, so $\|\dot x_i\|\le\|V\|\,r$.",
        ),
        Step(
            Cited(r"D^+ \max_i\|x_i\| \le \max_i \|\dot x_i\| \le \|V\|\max_i\|x_i\|", "danskin1966"),
            r"The upper derivative of a maximum is at most that of a maximiser.",
        ),
        Step(
            Equality(Derivative(largest * exp(norm_V * t), t), norm_V * largest * exp(norm_V * t)),
            r"The comparison equation $\dot r = \|V\|r$.",
        ),
        Step(
            Cited(r"\max_i\|x_i(t)\|\le e^{\|V\|t}\max_i\|x_i(0)\|", "khalil_comparison"),
            r"Comparison lemma. The same in any norm.",
        ),
    ),
    source="Grönwall's inequality.",
    wrong=(Planted("half the speed limit", scale={unit: fmpq(1, 2)}),),
)
