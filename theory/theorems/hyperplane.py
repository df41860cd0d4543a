"""T17: tokens on one side of a left eigenvector's hyperplane diverge, at exactly its rate."""

from flint import fmpq
from sympy import Derivative, IndexedBase, Max, Min, Sum, Symbol, exp

from theory.derivation import Argued, Cited, Equality, Given, Step, SumIdentity
from theory.hypotheses import LEFT_EIGENVECTOR, ONE_SIDE, RATE_POSITIVE
from theory.instance import Instance
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import P, a, d, j, rate, t, x, z
from theory.quantities import for_tokens, hyperplane, hyperplane_rate
from theory.sums import Definition
from theory.theorem import AT_LEAST, MORE_THAN, Claim, Examples, Planted, Theorem

normal = IndexedBase("l", real=True)
level = Symbol("q", real=True)
SIDES = (*SOFTMAX, Definition(z, lambda token: Sum(normal[a] * x[token, a], over(a, d))))


def _levels(e):
    return [hyperplane(e, i) for i in range(e.n)]


ENVELOPE = r"e^{\mu t}\min_j z_j(0)\le z_i(t)\le e^{\mu t}\max_j z_j(0)"


T17 = Theorem(
    id="T17",
    kind="theorem",
    title="One side of a hyperplane",
    statement=r"If $\ell^\top V=\mu\ell^\top$ with $\mu>0$ real and $z_i=\ell^\top x_i$ starts positive for every token, then "
    r"$e^{\mu t}\min_jz_j(0)\le z_i(t)\le e^{\mu t}\max_jz_j(0)$: every token diverges, at least at the rate $\mu$ "
    r"(and $z_i$ at exactly that rate), for any $W$.",
    hypotheses=(LEFT_EIGENVECTOR, RATE_POSITIVE, ONE_SIDE),
    claims=(
        Claim(
            "no token lags",
            r"\dot z_i \ge \mu\min_j z_j",
            AT_LEAST,
            for_tokens(lambda e, i: (hyperplane_rate(e, i), rate * Min(*_levels(e)))),
        ),
        Claim(
            "no token leads",
            r"\mu\max_j z_j \ge \dot z_i",
            AT_LEAST,
            for_tokens(lambda e, i: (rate * Max(*_levels(e)), hyperplane_rate(e, i))),
        ),
        Claim(
            "every token moves outward",
            r"\dot z_i > 0",
            MORE_THAN,
            for_tokens(lambda e, i: (hyperplane_rate(e, i), 0)),
        ),
    ),
    steps=(
        Step(
            Given(r"\dot z_i = \ell^\top V m_i = \mu\,\ell^\top m_i", ("left eigenvector",)),
            r"$\dot x_i=Vm_i$.",
        ),
        Step(
            SumIdentity(
                Sum(normal[a] * Sum(P[j] * x[j, a], over(j)), over(a, d)),
                Sum(P[j] * z[j], over(j)),
                SIDES,
                NORMALISER,
            ),
            r"$\ell^\top m_i=\sum_jP_{ij}z_j$, coordinate by coordinate.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * (z[j] - level), over(j)), Sum(P[j] * z[j], over(j)) - level, SOFTMAX, NORMALISER
            ),
            r"An average: take $q=\min z$ (every summand $\ge0$) and $q=\max z$ (every summand $\le0$).",
        ),
        Step(
            Argued(r"\mu\min_jz_j \le \dot z_i \le \mu\max_jz_j", (1, 2, 3), ("rate positive",)),
            r"$\mu>0$ keeps the order.",
        ),
        Step(
            Cited(r"D^+\max z\le\mu\max z,\quad D_+\min z\ge\mu\min z", "danskin1966"),
            r"Derivatives of extremes.",
        ),
        Step(
            Equality(Derivative(level * exp(rate * t), t), rate * level * exp(rate * t)),
            r"The comparison equation.",
        ),
        Step(
            Cited(ENVELOPE, "khalil_comparison"),
            r"Comparison lemma.",
        ),
        Step(
            Argued(
                r"\|x_i(t)\|\ge z_i(t)/\|\ell\| \to \infty \text{ for every } i",
                (7,),
                ("one side", "rate positive"),
            ),
            r"$\min z(0)>0$.",
        ),
    ),
    source="Stated here; it uses only that attention rows are non-negative and sum to 1.",
    remark=r"Holds for any scores, mask, bias, and encoding that acts on the scores only. A token may grow faster than $\mu$ along "
    r"other directions. With several heads $\ell$ must be a left eigenvector of every value map.",
    concludes="every token diverges from starts on one side of a hyperplane, at least at the rate μ",
    formula=ENVELOPE,
    examples=Examples(
        witness=Instance.of(
            score=[[1, -2], [3, 0]],
            value=[[2, 0], [5, -1]],
            ell=[1, 0],
            rate=2,
            tokens=[[1, 3], [2, -4], [5, 0]],
        ),
        near_miss=Instance.of(
            score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], ell=[1, 0], rate=1, tokens=[[1, 0], [-2, 1]]
        ),
        missing="one side",
        boundary=Instance.of(
            score=[[1, 2], [0, 1]], value=[[1, 0], [0, 3]], ell=[1, 0], rate=1, tokens=[[1, 3], [1, 3]]
        ),
    ),
    wrong=(Planted("rate μ replaced by 3μ/2", scale={rate: fmpq(3, 2)}),),
)
