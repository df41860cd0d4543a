"""R1: a refuted conjecture. C1: the conjecture that stands in its place, with what is proved of it."""

from collections.abc import Callable
from fractions import Fraction

from flint import arb, ctx, fmpq
from sympy import (
    Derivative,
    Determinant,
    I,
    ImmutableMatrix,
    Integer,
    Inverse,
    MatMul,
    Symbol,
    cosh,
    exp,
    eye,
    sinh,
    symbols,
)

from theory.derivation import FIXED, Argued, Equality, Given, Positive, Satisfies, Step
from theory.enclosure import PRECISION
from theory.evaluate import skewness
from theory.hypotheses import A_NEGATIVE, V_HURWITZ, W_POSITIVE, Hypothesis
from theory.instance import Instance
from theory.notation import abscissa, lam, tau_A, tau_W, unit
from theory.quantities import for_tokens, quadratic
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.trajectory import Trajectory, crosses, largest_norm
from theory.verdict import Grade, Verdict, exactly, fails, holds, undecided

# R1: squares under W = [[1, −a], [a, 1]] and A = −[[1, −b], [b, 1]].


def _at_scale_one(decide: Callable[[Instance], Verdict]) -> Callable[[Instance], Verdict]:
    """UNDECIDED for weights that are only known up to a factor such as 1/√d_k."""

    def guarded(instance: Instance) -> Verdict:
        if instance.weights.scale_squared != 1:
            return undecided("W is given up to a scale: pass W itself")
        return decide(instance)

    return guarded


def _normal_form(matrix, sign: int) -> bool:
    """Whether sign·matrix is [[1, −c], [c, 1]] for some c."""
    return matrix.nrows() == 2 and matrix[0, 0] == matrix[1, 1] == sign and matrix[0, 1] == -matrix[1, 0]


def _square(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    rows = instance.tokens.tolist()
    plane = len(rows) == 4 and len(rows[0]) == 2
    turned = plane and all(rows[k + 1] == [-rows[k][1], rows[k][0]] for k in range(3))
    return exactly(bool(turned and any(rows[0])), "each token is the one before, turned by 90°, none is 0")


def _slopes(instance: Instance) -> tuple[fmpq, fmpq]:
    """a and b, the lower left entries of W and −A."""
    return instance.form[1, 0], -instance.response[1, 0]


def _large(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    if instance.weights.dim != 2 or not instance.has_response:
        return fails(Grade.EXACT, "not two-dimensional, or V is singular")
    a, b = _slopes(instance)
    with ctx.workprec(PRECISION):
        u = arb(instance.tokens[0, 0] ** 2 + instance.tokens[0, 1] ** 2)
        gap = arb(b - a) * (arb(a) * u).sinh() - arb(1 + a * b) * u.sinh()
    if gap > 0:
        return holds(Grade.INTERVAL, f"(b−a) sinh(au) − (1+ab) sinh u = {gap.str(6)}")
    if gap <= 0:
        return fails(Grade.INTERVAL, f"(b−a) sinh(au) − (1+ab) sinh u = {gap.str(6)}")
    return undecided("the balls do not separate the two sides")


W_NORMAL = Hypothesis(
    "W normal form",
    r"W = \begin{pmatrix} 1 & -a \\ a & 1 \end{pmatrix}",
    "weights",
    _at_scale_one(lambda i: exactly(_normal_form(i.form, 1), "W is I plus a multiple of the quarter turn")),
)
A_NORMAL = Hypothesis(
    "A normal form",
    r"A = -\begin{pmatrix} 1 & -b \\ b & 1 \end{pmatrix}",
    "weights",
    _at_scale_one(lambda i: exactly(i.has_response and _normal_form(i.response, -1), "−A likewise")),
)
STEEPER = Hypothesis(
    "steeper response",
    r"b > a > 1",
    "weights",
    lambda i: exactly(
        bool(i.weights.dim == 2 and i.has_response and _slopes(i)[1] > _slopes(i)[0] > 1), "b > a > 1"
    ),
)
SQUARE = Hypothesis("square start", r"x_{k+1} = J x_k,\ x_1 \neq 0,\ n = 4", "start", _square)
LARGE = Hypothesis(
    "large square", r"(b-a)\sinh(au) > (1+ab)\sinh u,\ u = |x_1|^2", "start", _at_scale_one(_large)
)


def _turned(e: ExplicitSystem) -> Sides:
    if e.n != 4 or e.d != 2:
        return []
    return [
        side
        for k in range(3)
        for side in ((e.v[k + 1, 0], -unit * e.v[k, 1]), (e.v[k + 1, 1], unit * e.v[k, 0]))
    ]


def _minors(e: ExplicitSystem) -> Sides:
    """What the conjecture asks of W_s and A_s (2×2)."""
    if e.d != 2:
        return []
    return [
        (e.W[0, 0], Integer(0)),
        (4 * e.W[0, 0] * e.W[1, 1] - (e.W[0, 1] + e.W[1, 0]) ** 2, Integer(0)),
        (-e.A[0, 0], Integer(0)),
        (4 * e.A[0, 0] * e.A[1, 1] - (e.A[0, 1] + e.A[1, 0]) ** 2, Integer(0)),
    ]


a, b = symbols("a b", real=True)
u, r, p, q = symbols("u r p q", positive=True)
x = Symbol("x")
J = ImmutableMatrix([[0, -1], [1, 0]])
EYE = ImmutableMatrix.eye(2)
start = ImmutableMatrix([r, 0])
square = [J**k * start for k in range(4)]
weights = [exp((start.T * (EYE + a * J) * token)[0, 0]) for token in square]
attended = sum((w * token for w, token in zip(weights, square, strict=True)), ImmutableMatrix([0, 0])) / sum(
    weights
)
claimed = r * ImmutableMatrix([sinh(r**2), -sinh(a * r**2)]) / (cosh(r**2) + cosh(a * r**2))
value = -(ImmutableMatrix([[1 + a * b, b - a], [a - b, 1 + a * b]])) / (1 + b**2)
growth = ((b - a) * sinh(a * u) - (1 + a * b) * sinh(u)) / ((1 + b**2) * (cosh(u) + cosh(a * u)))
TWO_AND_THREE = Instance.of(
    score=[[1, -2], [2, 1]],
    response=[[-1, 3], [-3, -1]],
    tokens=[[2, 0], [0, 2], [-2, 0], [0, -2]],
)
TRIANGLE = Instance.of(
    score=[[1, -2], [2, 1]], response=[[-1, 3], [-3, -1]], tokens=[[4, 0], [-2, 3], [-2, -3]]
)
above = 1 + p  # a > 1
monotone = above * cosh(above * u) * sinh(u) - sinh(above * u) * cosh(u)

R1 = Theorem(
    id="R1",
    kind="counterexample",
    title="A stable V does not mend it",
    statement=r"The conjecture '$W_s\succ0$, $A_s\prec0$ and $V$ Hurwitz imply $X(t)\to0$' is false. With "
    r"$W=\begin{pmatrix}1&-a\\a&1\end{pmatrix}$, $A=-\begin{pmatrix}1&-b\\b&1\end{pmatrix}$, $b>a>1$, all three hold, yet "
    r"every square of tokens with $(b-a)\sinh(au)>(1+ab)\sinh u$, $u=|x_i|^2$, grows exponentially.",
    hypotheses=(W_NORMAL, A_NORMAL, STEEPER, SQUARE, LARGE),
    claims=(
        Claim(
            "W and −A have positive definite symmetric parts",
            r"W_s \succ 0,\ A_s \prec 0",
            MORE_THAN,
            _minors,
        ),
        Claim("V is Hurwitz", r"-\max\mathrm{Re}\,\lambda(V) > 0", MORE_THAN, lambda e: [(-abscissa, 0)]),
        Claim(
            "the square grows",
            r"\tfrac{d}{dt}|x_i|^2 > 0",
            MORE_THAN,
            for_tokens(lambda e, i: (2 * quadratic(eye(e.d), e.token(i), e.velocity(i)), 0)),
        ),
        Claim("it stays a square", r"\dot x_{k+1} = J\dot x_k", EQUAL, _turned),
    ),
    steps=(
        Step(
            Equality(attended, claimed, kind=FIXED),
            r"The square $r, Jr, -r, -Jr$: the scores of its first token are $u(1,-a,-1,a)$ with $u=r^2$.",
        ),
        Step(
            Equality(MatMul(Inverse(-(EYE + b * J)), EYE + a * J, evaluate=False), value, kind=FIXED),
            r"The value map $V=A^{-1}W$.",
        ),
        Step(
            Equality(
                Determinant(value - x * EYE),
                (x + (1 + a * b) / (1 + b**2)) ** 2 + ((a - b) / (1 + b**2)) ** 2,
                kind=FIXED,
            ),
            r"Its eigenvalues have real part $-(1+ab)/(1+b^2)$.",
        ),
        Step(
            Positive((1 + a * b).subs({b: a + q}).subs(a, above).expand()),
            r"Negative for $b>a>1$: $V$ is Hurwitz.",
        ),
        Step(
            Equality((value * claimed)[0, 0] / r, growth.subs(u, r**2), kind=FIXED),
            r"Radial speed over radius, $\rho(u)=\dot r/r$: positive iff $(b-a)\sinh(au)>(1+ab)\sinh u$.",
        ),
        Step(
            Argued(r"\text{the tokens stay a square, and } \dot u = 2u\rho(u)", (1, 2, 5)),
            r"$W$, $A$ and $V$ commute with the quarter turn $J$, which permutes the tokens.",
        ),
        Step(
            Equality(Derivative(monotone, u), p * (p + 2) * sinh(above * u) * sinh(u), kind=FIXED),
            r"With $a=1+p$: $\sinh(au)/\sinh u$ has the derivative $g(u)/\sinh^2u$, $g=a\cosh(au)\sinh u-\sinh(au)\cosh u$, "
            r"$g(0)=0$, and this is $g'$.",
        ),
        Step(
            Positive(p * (p + 2) * sinh(above * u) * sinh(u)),
            r"So $\sinh(au)/\sinh u$ increases: once $\rho(u)>0$, it stays so for all larger $u$.",
        ),
        Step(
            Argued(r"\rho(u(0)) > 0 \implies |x_i(t)| \to \infty", (6, 7, 8)),
            r"$u$ increases and $\rho$, continuous and positive with the positive limit $(b-a)/(1+b^2)$, is bounded below: $u$ grows exponentially.",
        ),
        Step(
            Satisfies(
                r"a=2,\ b=3,\ x_1=(2,0) \text{ satisfies } W_s\succ0,\ A_s\prec0,\ V \text{ Hurwitz}",
                lambda: [h.decide(TWO_AND_THREE) for h in (W_POSITIVE, A_NEGATIVE, V_HURWITZ)],
            ),
            r"A rational instance; its squares grow iff $\cosh u>7/2$.",
        ),
        Step(
            Trajectory(
                r"\text{the same weights, } X(0)=\{(4,0),(-2,3),(-2,-3)\}:\ \max_i\|x_i(t)\|>100 \text{ for some } t\le8",
                lambda: [crosses(TRIANGLE, largest_norm, 100, 8)],
            ),
            r"Nor do only squares grow: this start is no orbit of a rotation. Enclosed in balls.",
        ),
    ),
    source="Stated here.",
    remark=r"The weights of this family commute with rotations. It shows nothing of how large the set of divergent starts is, "
    r"nor of general weights near it.",
    concludes="the tempting 'W_s ≻ 0, A_s ≺ 0, V Hurwitz ⇒ convergence' fails on these very weights",
    examples=Examples(
        witness=TWO_AND_THREE,
        near_miss=Instance.of(
            score=[[1, -2], [2, 1]],
            response=[[-1, 3], [-3, -1]],
            tokens=[[1, 0], [0, 1], [-1, 0], [0, -1]],
        ),
        missing="large square",
        boundary=Instance.of(
            score=[[1, Fraction(-3, 2)], [Fraction(3, 2), 1]],
            response=[[-1, 9], [-9, -1]],
            tokens=[[3, 1], [-1, 3], [-3, -1], [1, -3]],
        ),
    ),
    wrong=(Planted("the next corner moves twice as fast", scale={unit: fmpq(2)}),),
)


# C1


def _product(instance: Instance) -> Verdict:
    """τ_W τ_A < 1, by balls; where a symmetric part is not definite, τ is not defined."""
    with ctx.workprec(PRECISION):
        product = skewness(instance.form) * (
            skewness(instance.response) if instance.has_response else arb.nan()
        )
    if product < 1:
        return holds(Grade.INTERVAL, f"τ_W τ_A = {product.str(6)}")
    return (
        fails(Grade.INTERVAL, f"τ_W τ_A = {product.str(6)}")
        if product >= 1
        else undecided("τ_W τ_A stays open")
    )


PRODUCT = Hypothesis("antisymmetric parts bounded", r"\tau_W\tau_A < 1", "weights", _product)

rho, alpha, beta = Symbol("rho", positive=True), Symbol("alpha", real=True), Symbol("beta", real=True)
least, t_W, t_A = symbols("lambda tau_W tau_A", nonnegative=True)
DECAY = r"-\max\mathrm{Re}\,\lambda(V)\,(1+\tau_A^2) \ge \lambda\,(1-\tau_W\tau_A)"

C1 = Theorem(
    id="C1",
    kind="conjecture",
    title="Bounded antisymmetric parts",
    statement=r"Conjecture: $W_s\succ0$, $A_s\prec0$ and $\tau_W\tau_A<1$ imply $X(t)\to0$ from every start, where $\tau_M$ "
    r"is the spectral norm of $|M_s|^{-1/2}M_a|M_s|^{-1/2}$. Proved of it: $V$ is then Hurwitz, "
    r"$-\max\mathrm{Re}\,\lambda(V)\,(1+\tau_A^2)\ge\lambda(1-\tau_W\tau_A)$ with $\lambda$ the smallest eigenvalue of the pencil "
    r"$(W_s,-A_s)$, so equal tokens converge.",
    hypotheses=(W_POSITIVE, A_NEGATIVE, PRODUCT),
    claims=(
        Claim("V is Hurwitz", r"-\max\mathrm{Re}\,\lambda(V) > 0", MORE_THAN, lambda e: [(-abscissa, 0)]),
        Claim(
            "equal tokens decay",
            DECAY,
            AT_LEAST,
            lambda e: [(-abscissa * (1 + tau_A**2), lam * (1 - tau_W * tau_A))],
        ),
    ),
    steps=(
        Step(
            Given(
                r"Vv=\mu v \implies v^*Wv = -\mu\,v^*(-A)v",
                ("W positive", "A negative"),
            ),
            r"$W=AV$; and $v^*(-A)v\neq0$, as its real part $v^*(-A_s)v$ is positive.",
        ),
        Step(
            Argued(
                r"v^*Wv = w(1+i\alpha),\ v^*(-A)v = y(1+i\beta),\ |\alpha|\le\tau_W,\ |\beta|\le\tau_A,\ w\ge\lambda y>0",
                (1,),
            ),
            r"$v^*M_sv$ is real, $v^*M_av$ imaginary, and $|v^*M_av|\le\tau_M\,v^*|M_s|v$.",
        ),
        Step(
            Equality(
                rho * (1 + I * alpha) * (1 - I * beta) / (1 + beta**2),
                rho * (1 + alpha * beta) / (1 + beta**2) + I * rho * (alpha - beta) / (1 + beta**2),
            ),
            r"With $\rho=w/y$: $-\mu=\rho(1+i\alpha)/(1+i\beta)$, real and imaginary part.",
        ),
        Step(
            Argued(DECAY, (2, 3), ("antisymmetric parts bounded",)),
            r"$1+\alpha\beta\ge1-\tau_W\tau_A>0$, $\rho\ge\lambda$, $1+\beta^2\le1+\tau_A^2$.",
        ),
    ),
    source="Stated here. It contains T2 and T5.",
    remark=r"Convergence itself is not proved. The constant 1 cannot be raised: R1's squares diverge for every $b>a>1$, so for "
    r"products arbitrarily close to 1. Full attention is meant: with $n=3$ and a mask that shows token $i$ only $i$ and $i+1$, in a cycle, "
    r"$W=1+i/2$, $-A=1-i/2$ (as $2\times2$ matrices) leave $X=0$ although $\tau_W\tau_A=1/4$.",
    formula=DECAY,
    examples=Examples(
        witness=Instance.of(
            score=[[1, Fraction(-1, 2)], [Fraction(1, 2), 1]],
            response=[[-2, 1], [-1, -2]],
            tokens=[[1, 2], [0, 1]],
        ),
        near_miss=Instance.of(score=[[1, -2], [2, 1]], response=[[-1, -2], [2, -1]], tokens=[[1, 0]]),
        missing="antisymmetric parts bounded",
        boundary=Instance.of(score=[[2]], response=[[-3]], tokens=[[1], [2]]),
    ),
    wrong=(Planted("twice the pencil's λ", scale={lam: fmpq(2)}),),
)
