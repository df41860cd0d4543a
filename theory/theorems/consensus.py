"""T6: equal tokens obey ẋ = Vx, so convergence from every start needs V Hurwitz."""

from flint import fmpq
from sympy import Sum, Symbol

from theory.derivation import Argued, Cited, Given, Step, SumIdentity
from theory.hypotheses import TOKENS_EQUAL, V_NOT_HURWITZ
from theory.instance import Instance
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import P, abscissa, j, unit
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, Claim, Examples, Planted, Sides, Theorem

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
