"""T12: absolute encodings at every layer. T13c: rotated values are a change of frame."""

from fractions import Fraction

from flint import fmpq
from sympy import ImmutableDenseMatrix, Matrix

from theory.derivation import FIXED, Argued, Cited, Equality, FromLemma, Given, MatrixIdentity, Step
from theory.hypotheses import A_NEGATIVE, A_SYMMETRIC, V_HURWITZ, W_POSITIVE, W_SYMMETRIC, Hypothesis
from theory.instance import Instance
from theory.notation import W, abscissa, floor, rate_at_zero, unit, x_i, x_j
from theory.quantities import for_pairs, quadratic, symmetric
from theory.system import ExplicitSystem, Setting, explicit_system
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.convergence import CONVERGES
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import identity

SHIFTED = Setting(positions="scores and values")
SCORED = Setting(positions="scores")
TURNED = Setting(rotary=True, rotated_values=True)


def _meaning(e: ExplicitSystem, names) -> ImmutableDenseMatrix:
    """What a matrix of defined quantities stands for."""
    return ImmutableDenseMatrix(names.applyfunc(e.definitions.__getitem__))


# T12: scores and values


def _encoded(e: ExplicitSystem, i: int) -> Matrix:
    """z_i = x_i + p_i as a column."""
    return e.token(i) + e.parameters["positions"].row(i).T


def _energy_rate(e: ExplicitSystem):
    """d/dt ½ Σ z_iᵀ A z_i."""
    return sum(quadratic(symmetric(e.A), _encoded(e, i), e.velocity(i)) for i in range(e.n))


def _energy(e: ExplicitSystem):
    return sum(quadratic(e.A, _encoded(e, i)) for i in range(e.n)) / 2


def _total_score(e: ExplicitSystem):
    total = sum((_encoded(e, i) for i in range(e.n)), Matrix.zeros(e.d, 1))
    return unit * quadratic(e.W, total) / e.n


_plain, _shifted = explicit_system(2, 2), explicit_system(2, 2, SHIFTED)
_at_z = dict(zip(_plain.X, _shifted.X + _shifted.parameters["positions"], strict=True))
EVERY_STATEMENT = r"\dot z_i = V\sum_j\mathrm{softmax}_j(z_i^\top W z_j)\,z_j,\quad z_i = x_i + p_i"

T12 = Theorem(
    id="T12",
    kind="theorem",
    title="Absolute encoding in scores and values",
    setting=SHIFTED,
    statement=r"With $p_i$ added to $x_i$ in scores and values at every layer, $z_i=x_i+p_i$ obeys the system without encoding. So "
    r"$A=A^\top\prec0$ and $W_s\succ0$ imply $x_i(t)\to-p_i$ from every start: tokens with different $p_i$ do not collapse.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, W_POSITIVE),
    claims=(
        Claim(
            "energy is non-negative",
            r"E = -\tfrac12\sum_iz_i^\top Az_i \ge 0",
            AT_LEAST,
            lambda e: [(-_energy(e), 0)],
        ),
        Claim("energy never grows", r"-\dot E \ge 0", AT_LEAST, lambda e: [(_energy_rate(e), 0)]),
        Claim(
            "energy decreases",
            r"-\dot E \ge \tfrac1n S^\top WS,\ S=\sum_iz_i",
            AT_LEAST,
            lambda e: [(_energy_rate(e), _total_score(e))],
        ),
    ),
    steps=(
        Step(
            Equality(_meaning(_shifted, _shifted.s), _meaning(_plain, _plain.s).xreplace(_at_z), kind=FIXED),
            r"At $n=d=2$: the scores with encoding at $X$ are the plain scores at $X+p$.",
        ),
        Step(
            Equality(_meaning(_shifted, _shifted.m), _meaning(_plain, _plain.m).xreplace(_at_z), kind=FIXED),
            r"And so are the means, given the attention.",
        ),
        Step(
            Argued(EVERY_STATEMENT, (1, 2)),
            r"For every $n$ and $d$ alike: tokens enter scores and values as $x_j+p_j$ only, and $\dot z_i=\dot x_i$.",
        ),
        Step(FromLemma("T2", CONVERGES), r"T2 for the tokens $z_i$."),
        Step(
            Argued(r"x_i(t) \to -p_i \text{ from every start}", (3, 4)),
            r"$z_i\to0$; and $x_i-x_j\to p_j-p_i$.",
        ),
    ),
    source="Stated here.",
    remark=r"Every statement about the system without encoding holds of $z_i$, not only T2. An encoding of the input alone needs no "
    r"theorem: it is another start.",
    concludes="x_i(t) → −p_i from every start",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]],
            response=[[-2, 1], [1, -1]],
            tokens=[[1, 2], [0, -1], [3, 1]],
            positions=[[1, 0], [0, 1], [-1, 2]],
            setting=SHIFTED,
        ),
        near_miss=Instance.of(
            score=[[3, -4], [4, 3]],
            response=[[-3, -4], [4, -3]],
            tokens=[[0, 1]],
            positions=[[1, -1]],
            setting=SHIFTED,
        ),
        missing="A symmetric",
        boundary=Instance.of(
            score=[[1, 0], [0, 2]],
            response=[[-1, 0], [0, -3]],
            tokens=[[1, 2], [0, 3]],
            positions=[[-1, -2], [0, -3]],
            setting=SHIFTED,
        ),
    ),
    wrong=(
        Planted("1/n replaced by 2/n", scale={unit: fmpq(2)}),
        Planted("the encoding acts on the scores only", setting=SCORED),
    ),
)


# T12b: scores only


def _positions_differ(instance: Instance) -> Verdict:
    if "positions" not in instance.parameters:
        return undecided("the encoding is not given")
    rows = [tuple(map(str, row)) for row in instance.parameters["positions"].tolist()]
    if len(set(rows)) == len(rows):
        return holds(Grade.EXACT, "all p_i differ")
    return fails(Grade.EXACT, "two p_i are equal")


DIFFERENT_POSITIONS = Hypothesis(
    "positions differ", r"p_i \neq p_j \text{ for } i\neq j", "choice", _positions_differ
)


def _separations(e: ExplicitSystem, i: int, j: int):
    p = e.parameters["positions"]
    return quadratic(e.W, p.row(i).T - p.row(j).T), 0


T12b = Theorem(
    id="T12b",
    kind="theorem",
    title="Absolute encoding in the scores only",
    setting=SCORED,
    statement=r"With $p_i$ added in the scores only, $X=0$ is an equilibrium with linearisation $\dot\delta_i=V\sum_jP^0_{ij}\delta_j$, "
    r"$P^0=\mathrm{softmax}(p_i^\top Wp_j)$. If $W=W^\top\succ0$ and the $p_i$ differ, $P^0$ has real positive eigenvalues, the "
    r"smallest $\mu$; so if $V$ is Hurwitz, $X=0$ is locally exponentially stable, and its linearisation decays generically at "
    r"the rate $\mu\,|\max\mathrm{Re}\,\lambda(V)|$.",
    hypotheses=(W_SYMMETRIC, W_POSITIVE, DIFFERENT_POSITIONS, V_HURWITZ),
    claims=(
        Claim("encodings differ", r"(p_i-p_j)^\top W(p_i-p_j) > 0", MORE_THAN, for_pairs(_separations)),
        Claim(
            "attention at zero has positive eigenvalues",
            r"\min\mathrm{Re}\,\lambda(P^0) > 0",
            MORE_THAN,
            lambda e: [(floor, 0)],
        ),
        Claim(
            "rate of the linearisation",
            r"\max\mathrm{Re}\,\lambda(P^0\otimes V) = \mu\max\mathrm{Re}\,\lambda(V)",
            EQUAL,
            lambda e: [(rate_at_zero, unit * floor * abscissa)],
        ),
        Claim(
            "the linearisation is stable",
            r"-\max\mathrm{Re}\,\lambda(P^0\otimes V) > 0",
            MORE_THAN,
            lambda e: [(-rate_at_zero, 0)],
        ),
    ),
    steps=(
        Step(
            MatrixIdentity(
                x_i.T * W * x_j,
                x_i.T * W * x_i / 2 + x_j.T * W * x_j / 2 - (x_i - x_j).T * W * (x_i - x_j) / 2,
            ),
            r"$G_{ij}=e^{p_i^\top Wp_j}$ is the Gaussian kernel of the distance $(p_i-p_j)^\top W(p_i-p_j)$, with row $i$ and column $i$ "
            r"multiplied by $e^{p_i^\top Wp_i/2}$ (read $p$ for $x$).",
        ),
        Step(
            Given(r"(p_i-p_j)^\top W(p_i-p_j) > 0 \text{ for } i\neq j", ("W positive", "positions differ")),
            r"Different positions lie at positive distance.",
        ),
        Step(
            Cited(r"G \succ 0", "schoenberg1938"),
            r"The Gaussian kernel is strictly positive definite on different points.",
        ),
        Step(
            Argued(r"P^0 = D^{-1}G \text{ has real positive eigenvalues}", (1, 2, 3), ("W symmetric",)),
            r"$D$ is the positive diagonal of row sums; $D^{-1}G$ is similar to $D^{-1/2}GD^{-1/2}\succ0$.",
        ),
        Step(
            Argued(
                r"\lambda(P^0\otimes V) = \{\mu_k\nu_l\},\quad \max\mathrm{Re} = \min_k\mu_k\,\max_l\mathrm{Re}\,\nu_l < 0",
                (4,),
                ("V Hurwitz",),
            ),
            r"Eigenvalues of a Kronecker product; $\mu_k>0$ and $\mathrm{Re}\,\nu_l<0$.",
        ),
        Step(
            Cited(r"X=0 \text{ is locally exponentially stable}", "khalil_linearization"),
            r"At $X=0$ the velocity vanishes, and its derivative is $\delta\mapsto P^0\delta V^\top$: attention multiplies $X$, so its own "
            r"derivative drops out.",
        ),
    ),
    source="Stated here.",
    remark=r"Local only: $d=1$, $W=1$, $V=-1$, $p=(1,-1)$ rests at $(-1,1)$ too, and tokens with $x_1-x_2<-2$ "
    r"near it approach it, like $1/t$. Without encoding the approach is no "
    r"faster than $t^{-1/2}$ for generic tokens (T9).",
    concludes="0 is locally exponentially stable, if the p_i differ",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [1, 1]],
            value=[[-1, 3], [0, -2]],
            tokens=[[1, 0], [0, 1]],
            positions=[[1, 0], [0, 1]],
            setting=SCORED,
        ),
        near_miss=Instance.of(
            score=[[2, 1], [1, 1]],
            value=[[1, 3], [0, -2]],
            tokens=[[1, 0], [0, 1]],
            positions=[[1, 0], [0, 1]],
            setting=SCORED,
        ),
        missing="V Hurwitz",
        boundary=Instance.of(
            score=[[1]], value=[[-2]], tokens=[[1]], positions=[[Fraction(1, 2)]], setting=SCORED
        ),
    ),
    wrong=(Planted("twice the rate", scale={unit: fmpq(2)}),),
)


# T13c: rotated values


def _commutes(names: tuple[str, ...]):
    def decide(instance: Instance) -> Verdict:
        if not {"rotation", "query", "key"} <= set(instance.parameters):
            return undecided("Q, K and the rotation are not given")
        turn = instance.parameters["rotation"]
        matrices = [instance.value if name == "value" else instance.parameters[name] for name in names]
        if all(turn * matrix == matrix * turn for matrix in matrices):
            return holds(Grade.EXACT, "the products are equal")
        return fails(Grade.EXACT, "the products differ")

    return decide


def _orthogonal(instance: Instance) -> Verdict:
    if "rotation" not in instance.parameters:
        return undecided("the rotation is not given")
    turn = instance.parameters["rotation"]
    if turn.transpose() * turn == identity(turn.nrows()):
        return holds(Grade.EXACT, "RᵀR = I")
    return fails(Grade.EXACT, "RᵀR differs from I")


ORTHOGONAL = Hypothesis("R orthogonal", r"R^\top R = I", "choice", _orthogonal)
SCORES_COMMUTE = Hypothesis("Q, K commute with R", r"QR=RQ,\ KR=RK", "choice", _commutes(("query", "key")))
VALUES_COMMUTE = Hypothesis("V commutes with R", r"VR = RV", "choice", _commutes(("value",)))


def _framed(e: ExplicitSystem) -> Matrix:
    """y_i = R^i x_i as rows."""
    return Matrix.vstack(*((turn * e.token(i)).T for i, turn in enumerate(e.turns)))


def _frame_scores(e: ExplicitSystem) -> Sides:
    if not e.turns:
        return []
    y = _framed(e)
    return list(zip(e.s, unit * y * e.parameters["query"].T * e.parameters["key"] * y.T, strict=True))


def _frame_velocities(e: ExplicitSystem) -> Sides:
    if not e.turns:
        return []
    means = e.P * _framed(e) * e.V.T
    moved = Matrix.vstack(*((turn * e.velocity(i)).T for i, turn in enumerate(e.turns)))
    return list(zip(moved, means, strict=True))


FRAME = r"\dot y_i = V\sum_j\mathrm{softmax}_j(y_i^\top Q^\top Ky_j)\,y_j"

T13c = Theorem(
    id="T13c",
    kind="theorem",
    title="Rotated values are a change of frame",
    setting=TURNED,
    statement=r"If keys, queries and values are rotated, $\dot x_i=\sum_jP_{ij}R^{j-i}Vx_j$ with $s_{ij}=(R^iQx_i)^\top(R^jKx_j)$, and "
    r"$Q$, $K$, $V$ commute with the orthogonal $R$, then $y_i=R^ix_i$ obeys the system without encoding. So $|y_i|=|x_i|$ converge "
    r"or diverge as T2–T6 say, and T1 holds of the distances between the $y_i$.",
    hypotheses=(ORTHOGONAL, SCORES_COMMUTE, VALUES_COMMUTE),
    claims=(
        Claim("scores in the frame", r"s_{ij} = y_i^\top Q^\top Ky_j", EQUAL, _frame_scores),
        Claim("velocities in the frame", r"R^i\dot x_i = V\sum_jP_{ij}y_j", EQUAL, _frame_velocities),
    ),
    steps=(
        Step(
            Given(r"R^iQx_i = Qy_i,\quad R^jKx_j = Ky_j", ("Q, K commute with R",)),
            r"So the scores are $s_{ij}=y_i^\top Q^\top Ky_j$.",
        ),
        Step(
            Given(r"R^i\dot x_i = \sum_jP_{ij}R^jVx_j", ("R orthogonal",)),
            r"$R^iR^{j-i}=R^j$; written $R^i(R^i)^\top=I$.",
        ),
        Step(Given(r"R^jVx_j = Vy_j", ("V commutes with R",)), r"The values in the frame."),
        Step(Argued(FRAME, (1, 2, 3)), r"$\dot y_i=R^i\dot x_i$: the system without encoding."),
    ),
    source="Stated here.",
    remark=r"$\sum_jP_{ij}R^jVx_j$, with the values rotated by their own position only, is not of this form. With rotated queries and "
    r"keys but plain values the frame does not help: see T13.",
    concludes="",
    formula=FRAME,
    examples=Examples(
        witness=Instance.of(
            query=[[2, -1], [1, 2]],
            key=[[1, 0], [0, 1]],
            value=[[-1, -3], [3, -1]],
            rotation=[[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]],
            tokens=[[1, 2], [0, -1], [1, 1]],
            setting=TURNED,
        ),
        near_miss=Instance.of(
            query=[[2, -1], [1, 2]],
            key=[[1, 0], [0, 1]],
            value=[[-1, 0], [0, -2]],
            rotation=[[0, -1], [1, 0]],
            tokens=[[1, 2], [0, -1], [1, 1]],
            setting=TURNED,
        ),
        missing="V commutes with R",
        boundary=Instance.of(
            query=[[1]], key=[[1]], value=[[-1]], rotation=[[-1]], tokens=[[1], [2]], setting=TURNED
        ),
    ),
    wrong=(Planted("twice the scores", scale={unit: fmpq(2)}),),
)
