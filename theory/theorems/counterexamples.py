"""T7 and T8: two tempting statements refuted exactly."""

from fractions import Fraction

from flint import fmpq
from sympy import (
    Determinant,
    ImmutableMatrix,
    Integer,
    Inverse,
    MatAdd,
    MatMul,
    Matrix,
    Rational,
    Symbol,
    Transpose,
    cos,
    exp,
    sin,
    symbols,
)

from theory.derivation import EXACT, FIXED, Argued, Cited, Equality, FromLemma, Positive, Satisfies, Step
from theory.hypotheses import (
    A_MINUS_W_TRANSPOSED,
    A_NEGATIVE,
    STEEP_ROTATION,
    TOKENS_MIRRORED,
    W_POSITIVE,
    W_ROTATION,
)
from theory.instance import Instance
from theory.notation import abscissa, unit
from theory.quantities import symmetric
from theory.system import ExplicitSystem
from theory.theorem import EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.consensus import NOT_CONVERGENT
from theory.theorems.divergence import DIVERGES, T3

theta, x = Symbol("theta", real=True), Symbol("x")
a, b, h = symbols("a b h", positive=True)


def rotation(angle) -> ImmutableMatrix:
    return ImmutableMatrix([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def product(left: ImmutableMatrix, right: ImmutableMatrix) -> MatMul:
    """left·right, not yet multiplied out."""
    return MatMul(left, right, evaluate=False)


def symmetric_half(matrix: ImmutableMatrix) -> MatMul:
    """(M + Mᵀ)/2, not yet added up."""
    return MatMul(Rational(1, 2), MatAdd(matrix, Transpose(matrix), evaluate=False), evaluate=False)


scaled = ImmutableMatrix([[a, -b], [b, a]])
FIFTHS = [[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]]
THREE_FOUR_FIVE = ImmutableMatrix([[3, -4], [4, 3]]) / 5
FAST_ROTATION = Instance.of(
    score=FIFTHS,
    response=[[-q for q in column] for column in zip(*FIFTHS, strict=True)],
    tokens=[[1, 0], [1, 0]],
)
MIRRORED = Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], tokens=[[1, 2], [-1, -2], [0, 0]])

T7 = Theorem(
    id="T7",
    kind="counterexample",
    title="Both antisymmetric parts free is not enough",
    statement=r"$W_s\succ0$ and $A_s\prec0$ alone do not imply convergence: $W=\begin{pmatrix}a&-b\\b&a\end{pmatrix}$, "
    r"$A=-W^\top$ with $0<a<|b|$ satisfy both, yet $V=A^{-1}W$ is unstable.",
    hypotheses=(W_ROTATION, A_MINUS_W_TRANSPOSED, STEEP_ROTATION),
    claims=(
        Claim(
            "W_s is positive definite",
            r"\mathrm{tr}\,W_s > 0,\ \det W_s > 0",
            MORE_THAN,
            lambda e: _minors(e.W, 1),
        ),
        Claim(
            "A_s is negative definite",
            r"-\mathrm{tr}\,A_s > 0,\ \det A_s > 0",
            MORE_THAN,
            lambda e: _minors(e.A, -1),
        ),
        Claim("V is unstable", r"\max\mathrm{Re}\,\lambda(V) > 0", MORE_THAN, lambda e: [(abscissa, 0)]),
        Claim(
            "its growth rate",
            r"\max\mathrm{Re}\,\lambda(V)\,(a^2+b^2) = b^2-a^2",
            EQUAL,
            lambda e: [
                (abscissa * (e.W[0, 0] ** 2 + e.W[1, 0] ** 2), unit * (e.W[1, 0] ** 2 - e.W[0, 0] ** 2))
            ],
        ),
    ),
    steps=(
        Step(
            Equality(product(Inverse(-rotation(-theta)), rotation(theta)), -rotation(2 * theta), kind=FIXED),
            r"$W=R(\theta)$, $A=-R(-\theta)$ give $V=A^{-1}W=-R(2\theta)$.",
        ),
        Step(
            Equality(symmetric_half(rotation(theta)), cos(theta) * ImmutableMatrix.eye(2), kind=FIXED),
            r"$W_s=\cos\theta\,I$, and $A_s=-\cos\theta\,I$ likewise: $W_s\succ0$ and $A_s\prec0$ for $\theta<90^\circ$.",
        ),
        Step(
            Equality(
                Determinant(-rotation(2 * theta) - x * ImmutableMatrix.eye(2)),
                (x + cos(2 * theta)) ** 2 + sin(2 * theta) ** 2,
                kind=FIXED,
            ),
            r"Eigenvalues of $V$: $-\cos2\theta\pm i\sin2\theta$, unstable for $\theta\in(45^\circ,90^\circ)$.",
        ),
        Step(
            Equality(
                product(Inverse(-scaled.T), scaled),
                ImmutableMatrix([[b**2 - a**2, 2 * a * b], [-2 * a * b, b**2 - a**2]]) / (a**2 + b**2),
                kind=FIXED,
            ),
            r"The same without angles, $W=\begin{pmatrix}a&-b\\b&a\end{pmatrix}$, $A=-W^\top$: $V$ has eigenvalues "
            r"$(b^2-a^2\pm2abi)/(a^2+b^2)$.",
        ),
        Step(
            Positive((b**2 - a**2).subs(b, a + h).factor()),
            r"For $b=a+h$, $h>0$, their real part is positive.",
        ),
        Step(
            Satisfies(
                r"W=\tfrac15\begin{pmatrix}3&-4\\4&3\end{pmatrix},\ A=-W^\top \text{ has } W_s\succ0,\ A_s\prec0",
                lambda: [hypothesis.decide(FAST_ROTATION) for hypothesis in (W_POSITIVE, A_NEGATIVE)],
            ),
            r"A rational instance, from the 3-4-5 triangle.",
        ),
        Step(
            Equality(
                Determinant((-THREE_FOUR_FIVE.T).inv() * THREE_FOUR_FIVE - x * ImmutableMatrix.eye(2)),
                (x - Rational(7, 25)) ** 2 + Rational(24, 25) ** 2,
                kind=EXACT,
            ),
            r"The characteristic polynomial of its $V$: eigenvalues $0.28\pm0.96i$.",
        ),
        Step(
            FromLemma("T6", NOT_CONVERGENT, on=FAST_ROTATION),
            r"Equal tokens of this instance spiral outward.",
        ),
        Step(
            Argued(r"W_s\succ0 \text{ and } A_s\prec0 \text{ do not imply } X(t)\to0", (2, 3, 4, 5, 6, 7, 8)),
            r"Nor for any other $0<a<|b|$: the symmetric parts have T2's signs, and $V$ is unstable.",
        ),
    ),
    source="Stated here; the released parametrisation of arXiv 2512.03058 leaves both antisymmetric parts free.",
    remark=r"It refutes 'symmetric parts decide', not T2 or T5, which ask for a symmetric $A$ or $W$.",
    concludes="the tempting 'W_s ≻ 0, A_s ≺ 0 ⇒ convergence' fails on these very weights",
    examples=Examples(
        witness=FAST_ROTATION,
        near_miss=Instance.of(score=[[4, -3], [3, 4]], response=[[-4, -3], [3, -4]], tokens=[[1, 0]]),
        missing="steep rotation",
        boundary=Instance.of(score=[[1, -2], [2, 1]], response=[[-1, -2], [2, -1]], tokens=[[1, 0]]),
    ),
    wrong=(Planted("twice the growth rate", scale={unit: fmpq(2)}),),
)


def _minors(matrix: Matrix, sign: int) -> Sides:
    """Trace and determinant of the symmetric part, the first times the sign (d = 2)."""
    half = symmetric(matrix)
    trace, determinant = sign * half.trace(), half.det() if half.rows == 2 else sign * half.trace()
    return [(trace, Integer(0)), (determinant, Integer(0))]


r = Symbol("r", real=True)
pull = (exp(r) - exp(-r)) / (exp(r) + exp(-r) + 1)


def _at_rest(e: ExplicitSystem) -> Sides:
    return [(e.v[2, c], (unit - 1) * e.X[0, c]) for c in range(e.d)] if e.n > 2 else []


def _mirrored(e: ExplicitSystem) -> Sides:
    return [(e.v[0, c], -unit * e.v[1, c]) for c in range(e.d)] if e.n > 1 else []


T8 = Theorem(
    id="T8",
    kind="counterexample",
    title="A token that never leaves zero",
    statement=r"'Every token diverges' is false under T3: tokens $\{a,-a,0\}$ keep their zero token for ever, for any $W$ and $V$.",
    hypotheses=(TOKENS_MIRRORED,),
    claims=(
        Claim("the zero token rests", r"\dot x_3 = 0", EQUAL, _at_rest),
        Claim("the pair stays mirrored", r"\dot x_1 = -\dot x_2", EQUAL, _mirrored),
    ),
    steps=(
        Step(
            Equality(pull.subs(r, -r), -pull),
            r"A query $y$ with $r=y^\top Wa$ has the scores $r$, $-r$ and 0, so its mean is $f(r)\,a$ with the odd function "
            r"$f(r)=\frac{e^r-e^{-r}}{e^r+e^{-r}+1}$.",
        ),
        Step(
            Argued(r"m_1 = f(s)\,a = -m_2,\quad m_3 = f(0)\,a = 0", (1,)),
            r"The queries $a$, $-a$ and 0 have $r=s$, $-s$ and 0, $s=a^\top Wa$.",
        ),
        Step(
            Cited(r"\{a,-a,0\} \text{ is invariant: } x_3(t)=0 \text{ for all } t", "hale1980"),
            r"The velocity is tangent to this set of states, and solutions are unique.",
        ),
        Step(
            Satisfies(
                r"W = A = V = I,\ X=\{(1,2),(-1,-2),(0,0)\} \text{ meets the hypotheses of T3}",
                lambda: [hypothesis.decide(MIRRORED) for hypothesis in T3.hypotheses],
            ),
            r"In exact arithmetic.",
        ),
        Step(
            FromLemma("T3", DIVERGES, on=MIRRORED),
            r"So its largest token diverges while the third stays at 0.",
        ),
    ),
    source="Stated here.",
    remark=r"T4's threshold is what is true of each token.",
    concludes="",
    examples=Examples(
        witness=MIRRORED,
        near_miss=Instance.of(
            score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], tokens=[[1, 2], [-1, -1], [0, 0]]
        ),
        missing="tokens mirrored",
        boundary=Instance.of(score=[[2, 1], [0, 1]], value=[[1, 3], [0, 1]], tokens=[[0, 0], [0, 0], [0, 0]]),
    ),
    wrong=(Planted("the zero token moves like x_1, or twice the mirror image", scale={unit: fmpq(2)}),),
)
