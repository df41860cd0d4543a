"""T7 and T8: two tempting statements refuted exactly."""

from fractions import Fraction

from flint import fmpq
from sympy import Integer, Matrix, Rational, Symbol, ZeroMatrix, cos, exp, sin, symbols

from theory.derivation import EXACT, Argued, Equality, MatrixIdentity, Positive, Satisfies, Step
from theory.hypotheses import (
    A_MINUS_W_TRANSPOSED,
    A_NEGATIVE,
    STEEP_ROTATION,
    TOKENS_MIRRORED,
    W_POSITIVE,
    W_ROTATION,
)
from theory.notation import W, abscissa, d, u, unit
from theory.system import ExplicitSystem, Instance
from theory.theorem import EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.divergence import T3

theta = Symbol("theta", real=True)
p, h = symbols("p h", positive=True)  # W_11 = p, W_21 = p + h


def rotation(angle) -> Matrix:
    return Matrix([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])


def _half(matrix: Matrix) -> Matrix:
    return (matrix + matrix.T) / 2


FIFTHS = [[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]]
THREE_FOUR_FIVE = Matrix([[3, -4], [4, 3]]) / 5
FAST_ROTATION = Instance.of(
    score=FIFTHS,
    response=[[-q for q in column] for column in zip(*FIFTHS, strict=True)],
    tokens=[[1, 0], [1, 0]],
)
MIRRORED = Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], tokens=[[1, 2], [-1, -2], [0, 0]])
x = Symbol("x")
steep = Matrix([[p, -(p + h)], [p + h, p]])

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
            Equality((-rotation(-theta)).inv() * rotation(theta), -rotation(2 * theta)),
            r"$W=R(\theta)$, $A=-R(-\theta)$ give $V=A^{-1}W=-R(2\theta)$.",
        ),
        Step(
            Equality(_half(rotation(theta)), cos(theta) * Matrix.eye(2)),
            r"$W_s=\cos\theta\,I\succ0$ for $\theta<90^\circ$.",
        ),
        Step(Equality(_half(-rotation(-theta)), -cos(theta) * Matrix.eye(2)), r"$A_s=-\cos\theta\,I\prec0$."),
        Step(
            Equality(
                (-rotation(2 * theta) - x * Matrix.eye(2)).det(),
                (x + cos(2 * theta)) ** 2 + sin(2 * theta) ** 2,
            ),
            r"Eigenvalues of $V$: $-\cos2\theta\pm i\sin2\theta$, unstable for $\theta\in(45^\circ,90^\circ)$.",
        ),
        Step(
            Positive(h * (2 * p + h) / (p**2 + (p + h) ** 2)),
            r"In rationals, $a=p$, $b=p+h$: the growth rate $(b^2-a^2)/(a^2+b^2)$ is positive for $0<a<b$.",
        ),
        Step(
            Equality(
                ((-steep.T).inv() * steep - x * Matrix.eye(2))
                .det()
                .subs(x, h * (2 * p + h) / (p**2 + (p + h) ** 2)),
                (2 * p * (p + h) / (p**2 + (p + h) ** 2)) ** 2,
            ),
            r"At that real part the characteristic polynomial is the square of the imaginary part.",
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
                ((-THREE_FOUR_FIVE.T).inv() * THREE_FOUR_FIVE - x * Matrix.eye(2)).det(),
                (x - Rational(7, 25)) ** 2 + Rational(24, 25) ** 2,
                kind=EXACT,
            ),
            r"The characteristic polynomial of its $V$: eigenvalues $0.28\pm0.96i$.",
        ),
        Step(
            Argued(r"\text{equal tokens spiral outward, } \dot x = Vx", (4, 8)),
            r"By T6 the system does not converge from every start, although both symmetric parts have T2's signs.",
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
    wrong_constants=(Planted("twice the growth rate", scale={unit: fmpq(2)}),),
)


def _minors(matrix: Matrix, sign: int) -> Sides:
    """Trace and determinant of the symmetric part, the first times the sign (d = 2)."""
    half = _half(matrix)
    trace, determinant = sign * half.trace(), half.det() if half.rows == 2 else sign * half.trace()
    return [(trace, Integer(0)), (determinant, Integer(0))]


score = Symbol("s", real=True)
row_one = (exp(score) - exp(-score)) / (exp(score) + exp(-score) + 1)
row_two = (exp(-score) - exp(score)) / (exp(-score) + exp(score) + 1)


def _at_rest(e: ExplicitSystem) -> Sides:
    return [(e.v[2, a], (unit - 1) * e.X[0, a]) for a in range(e.d)] if e.n > 2 else []


def _mirrored(e: ExplicitSystem) -> Sides:
    return [(e.v[0, a], -unit * e.v[1, a]) for a in range(e.d)] if e.n > 1 else []


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
            MatrixIdentity((-u).T * W * u, -(u.T * W * u)),
            r"With $a=u$ and $s=a^\top Wa$ the scores are $\pm s$ and 0.",
        ),
        Step(
            MatrixIdentity(Rational(1, 3) * u + Rational(1, 3) * (-u), ZeroMatrix(d, 1)),
            r"Row 3 has all scores 0, so its weights are $\frac13$: $m_3=0$ and $\dot x_3=0$.",
        ),
        Step(
            Equality(row_one + row_two, Integer(0)),
            r"$m_1=\frac{e^s-e^{-s}}{e^s+e^{-s}+1}\,a$ and $m_2=-m_1$.",
        ),
        Step(
            Argued(r"\{a,-a,0\} \text{ is invariant: } x_3(t)=0 \text{ for all } t", (1, 2, 3)),
            r"The velocity is tangent to this set, and solutions are unique.",
        ),
        Step(
            Satisfies(
                r"W = A = V = I,\ X=\{(1,2),(-1,-2),(0,0)\} \text{ meets the hypotheses of T3}",
                lambda: [hypothesis.decide(MIRRORED) for hypothesis in T3.hypotheses],
            ),
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
    wrong_constants=(Planted("the zero token moves like x_1, or twice the mirror image", scale={unit: fmpq(2)}),),
)
