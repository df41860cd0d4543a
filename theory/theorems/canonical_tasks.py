"""S3–S3f: which heads retrieve by content, which index by position, and what their frequencies must be."""

from fractions import Fraction
from functools import partial

from flint import fmpq, fmpq_mat
from sympy import (
    Add,
    Derivative,
    Expr,
    ImmutableMatrix,
    IndexedBase,
    Integer,
    Matrix,
    Min,
    Sum,
    Symbol,
    cos,
    exp,
    log,
    pi,
    sin,
    sqrt,
)

from theory.definiteness import inertia
from theory.derivation import (
    FIXED,
    Argued,
    ConvexMinimum,
    Equality,
    FromLemma,
    Given,
    Positive,
    Step,
    SumIdentity,
)
from theory.hypotheses import TOKENS_EQUAL, Hypothesis
from theory.instance import Instance
from theory.lemmas.softmax import over
from theory.notation import eta, j, n, unit
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.counterexamples import product, rotation, symmetric_half
from theory.theorems.encodings import ORTHOGONAL
from theory.theorems.positional_symbolic import (
    CAUCHY_SCHWARZ,
    POSITION,
    ROTARY,
    asking,
    rotary_logits,
    square,
    y,
)
from theory.verdict import Verdict, exactly, undecided
from theory.weights import identity

theta, r = Symbol("theta", real=True), Symbol("r", real=True)
scale = Symbol("b", real=True)


# S3 and S3b: the general heads, by their logits


def _nearly_pure(instance: Instance, across: bool) -> Verdict:
    """Does every column (`across`: every row) of the logits spread by at most 2η?"""
    deviation = instance.number("margin")
    if "logits" not in instance.parameters or deviation is None:
        return undecided("logits and a deviation η are not given")
    logits = instance.parameters["logits"]
    lines = (logits if across else logits.transpose()).tolist()
    widest = max(max(line) - min(line) for line in lines)
    return exactly(widest <= 2 * deviation, f"the widest spread is {widest}")


NEARLY_POSITIONAL = Hypothesis(
    "nearly positional",
    r"|M_{kj}-\mu_j| \le \eta \text{ for some } \mu",
    "choice",
    partial(_nearly_pure, across=False),
)
NEARLY_SYMBOLIC = Hypothesis(
    "nearly symbolic",
    r"|M_{kj}-\nu_k| \le \eta \text{ for some } \nu",
    "choice",
    partial(_nearly_pure, across=True),
)


def _weight(e: ExplicitSystem, position: int, shift: int) -> Expr:
    """Attention to a position in the text whose contents are moved on by `shift` positions, cyclically."""
    logits = e.parameters["logits"]
    weights = [exp(logits[(c - shift) % e.n, c]) for c in range(e.n)]
    return weights[position] / Add(*weights)


def _share(e: ExplicitSystem) -> Expr:
    """1/(1 + (m − 1) e^{−2η})."""
    return 1 / (1 + (e.n - 1) * exp(-2 * unit * eta))


def _found(e: ExplicitSystem) -> Sides:
    shifts = range(e.n)
    return [
        (_share(e), Add(*(_weight(e, (content + shift) % e.n, shift) for shift in shifts)) / e.n)
        for content in range(e.n)
    ]


def _pointed_at(e: ExplicitSystem) -> Sides:
    return [
        (_share(e), Add(*(_weight(e, position, shift) for shift in range(e.n))) / e.n)
        for position in range(e.n)
    ]


mu = Symbol("mu", real=True)
p, x = Symbol("p", nonnegative=True), Symbol("x", positive=True)
excess, total, m = Symbol("tau", nonnegative=True), Symbol("Z", positive=True), Symbol("m", positive=True)


def _lifted(share: Expr) -> Expr:
    """f(p) = (1 + τ)p/(1 + τp): the share p after its weight is multiplied by 1 + τ."""
    return (1 + excess) * share / (1 + excess * share)


_rest = (1 + excess) * excess * (p - x) ** 2 / ((1 + excess * x) ** 2 * (1 + excess * p))


def _averaged(centre: str, asked: str, texts: str, key: str, bound: str) -> tuple[Step, ...]:
    """Steps of S3 and S3b: `centre` μ_j or ν_k, what is asked for, and why its shares add up to 1."""
    return (
        Step(
            Given(rf"M_{{kj}} \text{{ lies between }} {centre}-\eta \text{{ and }} {centre}+\eta", (key,)),
            r"In a text the keys are the pairs of a content and its position.",
        ),
        Step(
            Equality(
                exp(mu + eta) / (exp(mu + eta) + exp(-eta) * (total - exp(mu))),
                _lifted(exp(mu) / total).subs(excess, exp(2 * eta) - 1),
            ),
            rf"A weight is largest where {asked} gains $\eta$ and all others lose $\eta$: it is at most $f(p)$, "
            rf"$f(p)=\frac{{(1+\tau)p}}{{1+\tau p}}$, $1+\tau=e^{{2\eta}}$, with $p=e^{{{centre}}}/Z$ and $Z$ the sum of $e^{{{centre}}}$.",
        ),
        Step(
            Equality(
                _lifted(x) + _lifted(x).diff(x) * (p - x) - _lifted(p),
                _rest,
            ),
            r"The tangent of $f$ at $x$ less $f$ itself.",
        ),
        Step(Positive(_rest, weak=True), r"So $f$ lies below its tangents."),
        Step(
            Equality(_lifted(1 / m).subs(excess, exp(2 * eta) - 1), 1 / (1 + (m - 1) * exp(-2 * eta))),
            r"The value of $f$ at $x=1/m$.",
        ),
        Step(
            Argued(bound, (1, 2, 3, 4, 5)),
            rf"{texts}, so the $m$ shares $p$ add up to 1 and the tangent at $1/m$ averages to $f(1/m)$.",
        ),
    )


BOUND = r"\frac1m\sum_iP_i \le \frac{1}{1+(m-1)e^{-2\eta}}"
NEEDED = r"2\eta \ge \log\frac{(m-1)\,p}{1-p}"


def _head(logits, margin) -> Instance:
    """A head by its logits; the tokens only say how many keys there are."""
    return Instance.of(score=[[0]], value=[[0]], tokens=[[0]] * len(logits), logits=logits, margin=margin)


def _transposed(rows):
    return [list(column) for column in zip(*rows, strict=True)]


_SLOPED = [[0, 2, -1], [1, 1, -1], [0, 1, 0]]
_RANKED = [[3, 3, 3], [0, 0, 0], [0, 0, 0]]
_ONE_HOT = [[1, 1, 1], [-1, -1, -1], [-1, -1, -1]]

S3 = Theorem(
    id="S3",
    kind="theorem",
    title="Positional heads cannot retrieve",
    statement=r"Let the logits of a head lie within $\eta$ of $\mu_j$, whatever the content: $|M_{kj}-\mu_j|\le\eta$. Over $m$ texts of $m$ "
    r"keys that put the content asked for at position $1,\dots,m$ in turn, its attention weights $P_i$ average at most $1/(1+(m-1)e^{-2\eta})$. So "
    r"an average weight $p$ needs $2\eta\ge\log\frac{(m-1)p}{1-p}$; for a positional head, $\eta=0$, the average is exactly $1/m$.",
    hypotheses=(NEARLY_POSITIONAL,),
    claims=(Claim("content found", BOUND, AT_LEAST, _found),),
    steps=(
        *_averaged(
            r"\mu_j",
            "the content asked for",
            r"The content stands at each position once",
            "nearly positional",
            BOUND,
        ),
        Step(
            Argued(NEEDED, (6,)),
            r"Solved for $\eta$, $p$ the average weight; a fortiori if every text gives at least $p$.",
        ),
        Step(
            Argued(r"\eta=0:\quad \sum_iP_i = \sum_j e^{\mu_j}/Z = 1", (1,)),
            r"With $M_{kj}=\mu_j$ the weights do not depend on the text.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579. The bound is attained.",
    remark=r"A statement about one head's attention, not about a network: an earlier layer may move what is asked for to a known "
    r"position, and the content may be found where it always stands. The claims take the cyclic shifts of one text; the proof asks only "
    r"that the content stands at each position once, and the others may change.",
    formula=BOUND,
    examples=Examples(
        witness=_head(_SLOPED, 1),
        near_miss=_head(_RANKED, 0),
        missing="nearly positional",
        boundary=_head(_ONE_HOT, 1),
    ),
    wrong=(Planted("η instead of 2η", scale={unit: fmpq(1, 2)}),),
)

S3b = Theorem(
    id="S3b",
    kind="theorem",
    title="Symbolic heads cannot index",
    statement=r"Let the logits of a head lie within $\eta$ of $\nu_k$, wherever the content stands: $|M_{kj}-\nu_k|\le\eta$. Over the $m$ cyclic "
    r"shifts of $m$ keys the attention weights $P_i$ on a given position average at most $1/(1+(m-1)e^{-2\eta})$. So an average weight $p$ needs "
    r"$2\eta\ge\log\frac{(m-1)p}{1-p}$; for a symbolic head, $\eta=0$, the average is exactly $1/m$.",
    hypotheses=(NEARLY_SYMBOLIC,),
    claims=(Claim("position found", BOUND, AT_LEAST, _pointed_at),),
    steps=(
        *_averaged(
            r"\nu_k",
            "the content at that position",
            r"Every content stands once at the position, and the texts share $Z$",
            "nearly symbolic",
            BOUND,
        ),
        Step(
            Argued(NEEDED, (6,)),
            r"Solved for $\eta$, $p$ the average weight; a fortiori if every text gives at least $p$.",
        ),
        Step(
            Argued(r"\eta=0:\quad \sum_iP_i = \sum_k e^{\nu_k}/Z = 1", (1,)),
            r"With $M_{kj}=\nu_k$ a weight goes with its content.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579; the mirror image of S3.",
    remark=r"About one text in all its cyclic orders. On a single text, or where a content of its own marks the "
    r"position (an encoding in the token), a symbolic head may well attend to one position.",
    formula=BOUND,
    examples=Examples(
        witness=_head(_transposed(_SLOPED), 1),
        near_miss=_head(_transposed(_RANKED), 0),
        missing="nearly symbolic",
        boundary=_head(_transposed(_ONE_HOT), 1),
    ),
    wrong=(Planted("η instead of 2η", scale={unit: fmpq(1, 2)}),),
)


# S3c and S3e: what a turn can and cannot do


def _speed(instance: Instance, sign: int) -> Verdict:
    """Is sign·(η²I − (R − I)ᵀ(R − I)) ⪰ 0?"""
    turn, speed = instance.parameters.get("rotation"), instance.number("margin")
    if turn is None or speed is None:
        return undecided("R and η are not given")
    if speed < 0 or (speed == 0 and sign < 0):
        return exactly(False, f"η = {speed}")
    one = identity(turn.nrows())
    moved = turn - one
    found = inertia((one * speed**2 - moved.transpose() * moved) * sign)
    if found is None:
        return undecided("the signs of the pivots stay open")
    return Verdict(exactly(found[0].negative == 0).status, found[1], "the inertia of η²I − (R−I)ᵀ(R−I)")


SLOW = Hypothesis(
    "slow turn", r"|(R-I)y| \le \eta\,|y| \text{ for every } y", "choice", partial(_speed, sign=1)
)
FAST = Hypothesis(
    "fast turn", r"|(R-I)y| \ge \eta\,|y| \text{ for every } y,\ \eta>0", "choice", partial(_speed, sign=-1)
)


def _key(e: ExplicitSystem, content: int) -> Matrix:
    return e.parameters["key"] * e.token(content)


def _alike(e: ExplicitSystem) -> Sides:
    logits = rotary_logits(e)
    return [
        (
            (unit * (late - early) * eta) ** 2 * asking(e) * square(_key(e, content)),
            (logits[content, late] - logits[content, early]) ** 2,
        )
        for early, late in e.pairs()
        for content in range(e.n)
    ]


def _among_equals(e: ExplicitSystem) -> Sides:
    """The weight on each position of a text that repeats one content."""
    if e.n == 1:
        return []
    logits, found = rotary_logits(e), []
    for content in range(e.n):
        size = sqrt(asking(e) * square(_key(e, content)))
        weights = [exp(logits[content, position]) for position in range(e.n)]
        found += [(1 / (1 + exp(-unit * eta * size)), weight / Add(*weights)) for weight in weights]
    return found


_moved = rotation(theta) - ImmutableMatrix.eye(2)
TURN_OF_BLOCK = Step(
    Equality(product(_moved.T, _moved), 4 * sin(theta / 2) ** 2 * ImmutableMatrix.eye(2), kind=FIXED),
    r"$(R-I)^\top(R-I)$, block by block: an angle $\theta$ moves $y$ by $2|\sin\frac\theta2||y|$.",
)
COSINE = Equality(symmetric_half(rotation(theta)), cos(theta) * ImmutableMatrix.eye(2), kind=FIXED)
SHORT_OF_ANGLE = (
    Step(
        Equality(Derivative(theta - 2 * sin(theta / 2), theta), 2 * sin(theta / 4) ** 2),
        r"$\theta-2\sin\frac\theta2$ vanishes at 0 and grows, so $2\sin\frac\theta2\le\theta$.",
    ),
)
ALIKE = r"|M_{ki}-M_{kj}| \le |i-j|\,\eta\,|Qx_n||Kx_k|"
BESIDE_EQUAL = r"P_j \le \frac{1}{1+e^{-\eta|Qx_n||Kx_k|}}"

_ONE = {"query": [[1]], "key": [[1]], "value": [[1]]}
_TILTED = {"query": [[1, 1], [0, 1]], "key": [[1, 0], [1, 1]], "value": [[1, 0], [0, 1]]}


def _slow(**parts) -> Instance:
    return Instance.of(setting=ROTARY, **parts)


S3c = Theorem(
    id="S3c",
    kind="theorem",
    title="Low frequencies cannot index",
    setting=ROTARY,
    statement=r"Let the last token ask, $M_{kj}=(R^nQx_n)^\top R^jKx_k$, with an orthogonal $R$ that moves every vector by at most $\eta$ of its "
    r"length: $\eta=2\sin\frac\theta2\le\theta$ if no frequency exceeds $\theta\le\pi$. Then $|M_{ki}-M_{kj}|\le|i-j|\,\eta C$ with $C=|Qx_n||Kx_k|$, and "
    r"a position beside an equal key gets at most $1/(1+e^{-\eta C})$. So weight $p$ on it needs $C\theta\ge\log\frac{p}{1-p}$.",
    hypotheses=(ORTHOGONAL, SLOW),
    claims=(
        Claim("positions look alike", ALIKE, AT_LEAST, _alike),
        Claim("weight beside an equal key", BESIDE_EQUAL, AT_LEAST, _among_equals),
    ),
    steps=(
        Step(FromLemma("S1b", POSITION), r"Another position."),
        Step(
            Given(r"|(R^r-I)y| \le \sum_{s<r}|R^s(R-I)y| \le r\eta|y|", ("R orthogonal", "slow turn")),
            r"$R^r-I=\sum_{s<r}R^s(R-I)$, and $R^s$ keeps lengths.",
        ),
        Step(Argued(ALIKE, (1, 2)), r"Both together, $r=|i-j|$ and $y=Kx_k$."),
        Step(
            Argued(BESIDE_EQUAL, (3,)),
            r"$P_j\le e^{\eta C}P_{j\pm1}\le e^{\eta C}(1-P_j)$, where a neighbour holds the same content (in the claim every position does).",
        ),
        TURN_OF_BLOCK,
        *SHORT_OF_ANGLE,
        Step(
            Argued(r"\log\tfrac{p}{1-p} \le C\cdot2\sin\tfrac\theta2 \le C\theta", (4, 5, 6)),
            r"For all frequencies in $[0,\theta]$, $\theta\le\pi$, the factor $\eta=2\sin\frac\theta2$ serves every block.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579.",
    remark=r"Only for norms of order $C$: a head may pay for a low frequency with a large query or key. The first bound also says what low "
    r"frequencies are good for: over $n$ positions the logit of a content moves by at most $s=(n-1)\eta C$, $C$ the largest over the contents. "
    r"So a lead of more than $2s$ of one content over another survives wherever both are put, and S3b applies with $\frac s2$ for its $\eta$.",
    formula=BESIDE_EQUAL,
    examples=Examples(
        witness=_slow(
            **_TILTED,
            rotation=[[fmpq(7, 25), fmpq(-24, 25)], [fmpq(24, 25), fmpq(7, 25)]],
            margin=fmpq(5, 4),
            tokens=[[1, 2], [0, -1], [1, 1]],
        ),
        near_miss=_slow(**_ONE, rotation=[[-1]], margin=1, tokens=[[1], [1]]),
        missing="slow turn",
        boundary=_slow(**_ONE, rotation=[[-1]], margin=2, tokens=[[1], [1]]),
    ),
    wrong=(Planted("half the turn", scale={unit: fmpq(1, 2)}),),
)


def _over_positions(e: ExplicitSystem) -> Sides:
    logits = rotary_logits(e)
    return [
        (unit * 4 * asking(e) * square(_key(e, content)), (eta * Add(*logits.row(content))) ** 2)
        for content in range(e.n)
    ]


def _log_odds(logits: Matrix, wanted: int, others: int, position: int) -> Expr:
    """Of the wanted content at a position, the other content everywhere else."""
    rest = [exp(logits[others, c]) for c in range(logits.cols) if c != position]
    return logits[wanted, position] - log(Add(*rest))


def _against(e: ExplicitSystem) -> Sides:
    logits, found = rotary_logits(e), []
    for wanted, others in [
        pair for first, second in e.pairs() for pair in ((first, second), (second, first))
    ]:
        odds = Add(*(_log_odds(logits, wanted, others, position) for position in range(e.n)))
        size = sqrt(asking(e) * square(_key(e, wanted) - _key(e, others)))
        found.append((2 * unit * size, eta * (odds + e.n * log(Integer(e.n - 1)))))
    return found


z = IndexedBase("z", real=True)
shift = Symbol("u", real=True)
SUMMED = r"\eta\,|\sum_jM_{kj}| \le 2\,|Qx_n||Kx_k|"
ODDS = r"\frac1n\sum_j\log\frac{P_j}{1-P_j} + \log(n-1) \le \frac{2\,|Qx_n||K(x_k-x_l)|}{n\eta}"

S3e = Theorem(
    id="S3e",
    kind="theorem",
    title="High frequencies cannot retrieve",
    setting=ROTARY,
    statement=r"Let the last token ask, $M_{kj}=(R^nQx_n)^\top R^jKx_k$, with an orthogonal $R$ that moves every vector by at least $\eta>0$ of its "
    r"length: $\eta=2\sin\frac\theta2$ if every frequency lies in $[\theta,2\pi-\theta]$. Then the logits of each content nearly cancel over the positions: "
    r"$|\sum_jM_{kj}|\le2|Qx_n||Kx_k|/\eta$. With $D=|Qx_n||K(x_k-x_l)|$, content $k$ at position $j=1,\dots,n$ in turn and content $l$ at all others, "
    r"the mean log-odds of $k$ exceed those of uniform attention, $-\log(n-1)$, by at most $2D/(n\eta)$. So weight $p$ on $k$ in every text needs "
    r"$n\sin\frac\theta2\,\log\frac{(n-1)p}{1-p}\le D$.",
    hypotheses=(ORTHOGONAL, FAST),
    claims=(
        Claim("logits cancel over the positions", SUMMED, AT_LEAST, _over_positions),
        Claim("mean log-odds", ODDS, AT_LEAST, _against),
    ),
    steps=(
        *CAUCHY_SCHWARZ,
        Step(
            Given(r"|(R-I)\sum_jR^jy| = |R^{n+1}y-Ry| \le 2|y|", ("R orthogonal",)),
            r"The sum telescopes, and turns keep lengths.",
        ),
        Step(
            Given(r"\eta\,|\sum_jR^jy| \le |(R-I)\sum_jR^jy|", ("fast turn",)),
            r"The turn moves every vector.",
        ),
        Step(Argued(SUMMED, (1, 2, 3, 4)), r"$q=R^nQx_n$ against $\sum_jR^jy$, $y=Kx_k$."),
        Step(
            Argued(r"\eta\,|S_k-S_l| \le 2D,\quad S_k = \sum_jM_{kj}", (1, 2, 3, 4)),
            r"The same with $y=K(x_k-x_l)$.",
        ),
        Step(
            ConvexMinimum(exp(shift) - 1 - shift, shift, 0 * shift),
            r"So $\sum_{i\neq j}e^{M_{li}}\ge(n-1)e^{a}$ with the mean $a=(S_l-M_{lj})/(n-1)$ (Jensen).",
        ),
        Step(
            SumIdentity(
                Sum((n - 1) * y[j] - (Sum(z[j], over(j)) - z[j]), over(j)),
                (n - 1) * (Sum(y[j], over(j)) - Sum(z[j], over(j))),
            ),
            r"The sum over $j$ of $M_{kj}-a$, times $n-1$ ($y=M_k$, $z=M_l$): it is $S_k-S_l$.",
        ),
        Step(
            Argued(ODDS, (6, 7, 8)),
            r"The log-odds in text $j$ are $M_{kj}-\log\sum_{i\neq j}e^{M_{li}}\le M_{kj}-a-\log(n-1)$.",
        ),
        TURN_OF_BLOCK,
        Step(
            Argued(r"n\sin\tfrac\theta2\,\log\tfrac{(n-1)p}{1-p} \le D", (9, 10)),
            r"Every frequency in $[\theta,2\pi-\theta]$ moves its block by at least $2\sin\frac\theta2$ of its length.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579; it needs no common period of the turns.",
    remark=r"An average over positions: a content may well be favoured at some of them, and then is disfavoured at others. It bounds "
    r"what many positions allow at norms of order $D$: where $n\theta$ is small it says nothing, nor where one frequency is zero ($\eta=0$).",
    formula=ODDS,
    examples=Examples(
        witness=_slow(
            **_TILTED,
            rotation=[[fmpq(-7, 25), fmpq(-24, 25)], [fmpq(24, 25), fmpq(-7, 25)]],
            margin=fmpq(3, 2),
            tokens=[[1, 2], [0, -1], [1, 1]],
        ),
        near_miss=_slow(**_ONE, rotation=[[1]], margin=1, tokens=[[1], [2], [1]]),
        missing="fast turn",
        boundary=_slow(**_ONE, rotation=[[-1]], margin=2, tokens=[[1], [2], [1]]),
    ),
    wrong=(Planted("half the bound", scale={unit: fmpq(1, 2)}),),
)


# S3d: one angle indexes


Exact = fmpq | Fraction


def turned_within(cosine: Exact, sine: Exact, count: int, halves: int) -> bool:
    """Whether count·θ ≤ halves·π, θ ∈ [0, π] the angle of (cosine, |sine|) ≠ 0, decided exactly."""
    turn, passed, x, y = (cosine, abs(sine)), 0, 1, 0
    for _ in range(count):  # the angle so far: passed·π plus that of (x, y), which lies in [0, π)
        x, y = x * turn[0] - y * turn[1], x * turn[1] + y * turn[0]
        if y < 0 or (y == 0 and x < 0):
            x, y, passed = -x, -y, passed + 1
    return passed < halves or (passed == halves and y == 0)


def _one_turn(instance: Instance) -> Verdict:
    turn = instance.parameters.get("rotation")
    if turn is None or instance.tokens is None:
        return undecided("R and the number of tokens are not given")
    if turn.nrows() != 2:
        return exactly(False, "R is not a turn of the plane")
    c, s = turn[0, 0], turn[1, 0]
    turns = (c or s) and turn[1, 1] == c and turn[0, 1] == -s
    return exactly(bool(turns) and turned_within(c, s, instance.tokens.nrows(), 2), "nθ against a full turn")


def _asks_like_keys(instance: Instance) -> Verdict:
    if not {"query", "key"} <= set(instance.parameters):
        return undecided("Q and K are not given")
    query, key = (instance.parameters[name] for name in ("query", "key"))
    ratios = [q / k for q, k in zip(query.entries(), key.entries(), strict=True) if k]
    gain = ratios[0] if ratios else fmpq(0)
    return exactly(gain >= 0 and query == key * gain, "Q against γK")


ONE_TURN = Hypothesis(
    "within one turn",
    r"R = \rho\begin{pmatrix}\cos\theta&-\sin\theta\\\sin\theta&\cos\theta\end{pmatrix},\ \rho>0,\ n|\theta|\le2\pi",
    "choice",
    _one_turn,
)
QUERY_LIKE_KEY = Hypothesis("query like key", r"Q = \gamma K,\ \gamma\ge0", "weights", _asks_like_keys)


def _step_gap(e: ExplicitSystem) -> Expr:
    return unit * (e.s[0, 0] - e.s[0, 1])


def _own_leads(e: ExplicitSystem) -> Sides:
    return [
        (e.s[row, row] - e.s[row, column], _step_gap(e))
        for row in range(e.n)
        for column in range(e.n)
        if row != column
    ]


def _own_weight(e: ExplicitSystem) -> Sides:
    if e.n == 1:
        return []
    return [(e.P[i, i], 1 / (1 + (e.n - 1) * exp(-_step_gap(e)))) for i in range(e.n)]


LEADS = r"s_{pp}-s_{pj} \ge c\,(1-\cos\theta) \text{ for } j\neq p,\quad c=\gamma|Kx|^2"
OWN_WEIGHT = r"P_{pp} \ge \frac{1}{1+(n-1)e^{-c(1-\cos\theta)}}"
QUARTER = [[0, -1], [1, 0]]
_SAME = {"key": [[1, 0], [0, 1]], "value": [[1, 0], [0, 1]]}

S3d = Theorem(
    id="S3d",
    kind="theorem",
    title="One angle indexes",
    setting=ROTARY,
    statement=r"Let $R$ turn the plane by $\theta$ with $n|\theta|\le2\pi$, all keys be equal, $Kx_j=Kx$, and $Q=\gamma K$. Then the query $\gamma R^pKx$ "
    r"has the logits $c\cos((j-p)\theta)$, $c=\gamma|Kx|^2$: largest at $j=p$, by at least $c(1-\cos\theta)$. So it attends to position $p$ with weight at "
    r"least $1/(1+(n-1)e^{-c(1-\cos\theta)})$, for every $p=1,\dots,n$.",
    hypotheses=(ORTHOGONAL, ONE_TURN, TOKENS_EQUAL, QUERY_LIKE_KEY),
    claims=(
        Claim("the position asked for leads", LEADS, AT_LEAST, _own_leads),
        Claim("weight on it", OWN_WEIGHT, AT_LEAST, _own_weight),
    ),
    steps=(
        Step(
            Given(
                r"s_{pj} = (R^pQx)^\top R^jKx = \gamma(Kx)^\top R^{j-p}Kx",
                ("R orthogonal", "tokens equal", "query like key"),
            ),
            r"Row $p$ of the scores; asked from the last position, the content is $R^{p-n}$ of that query.",
        ),
        Step(
            COSINE,
            r"So $y^\top R_sy=y^\top Ry=\cos\theta\,|y|^2$, and $s_{pj}=c\cos((j-p)\theta)$.",
        ),
        Step(
            Equality(cos(theta) - cos(r * theta), 2 * sin((r + 1) * theta / 2) * sin((r - 1) * theta / 2)),
            r"With $r=|j-p|$; the gap to the neighbours against the others.",
        ),
        Step(
            Argued(LEADS, (2, 3), ("within one turn", "query like key")),
            r"For $1\le r\le n-1$ and $\theta\ge0$ both angles lie between 0 and $\frac n2\theta\le\pi$, where the sine is not negative; and $c\ge0$.",
        ),
        Step(
            Argued(OWN_WEIGHT, (4,)),
            r"$1/P_{pp}=1+\sum_{j\neq p}e^{-(s_{pp}-s_{pj})}$.",
        ),
        Step(
            Equality(cos(2 * pi, evaluate=False), Integer(1), kind=FIXED),
            r"Beyond one turn it fails: at $\theta=\frac\pi2$ and $n=5$ positions 1 and 5 tie.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579.",
    remark=r"A construction, with the norm it takes: at the best angle $\theta=2\pi/n$ the gap is $2c\sin^2\frac\pi n$, so a weight "
    r"above one half takes a $c$ that grows like $n^2$ (the neighbours get $e^{-c(1-\cos\theta)}$ of it each). Keys are equal here; keys at most $\varepsilon$ from $Kx$ cost at most $2|Qx|\varepsilon$ of the gap (S1b).",
    formula=LEADS,
    examples=Examples(
        witness=Instance.of(
            **_SAME,
            query=[[2, 0], [0, 2]],
            rotation=QUARTER,
            tokens=[[1, 2]] * 4,
            setting=ROTARY,
        ),
        near_miss=Instance.of(
            **_SAME, query=[[1, 0], [0, 1]], rotation=QUARTER, tokens=[[1, 0]] * 5, setting=ROTARY
        ),
        missing="within one turn",
        boundary=Instance.of(
            **_SAME, query=[[1, 0], [0, 1]], rotation=QUARTER, tokens=[[1, 0]] * 3, setting=ROTARY
        ),
    ),
    wrong=(Planted("twice the gap", scale={unit: fmpq(2)}),),
)


# S3f: no angle and a small one


def _corner(matrix: fmpq_mat) -> fmpq_mat:
    """The block of the last two coordinates."""
    d = matrix.nrows()
    return fmpq_mat(2, 2, [matrix[d - 2 + row, d - 2 + column] for row in (0, 1) for column in (0, 1)])


def _joined(first: fmpq_mat, corner: fmpq_mat) -> fmpq_mat:
    """The matrix with its last two rows and columns replaced by a diagonal block."""
    d = first.nrows()
    return fmpq_mat(
        d,
        d,
        [
            corner[row - d + 2, column - d + 2]
            if min(row, column) >= d - 2
            else (fmpq(0) if max(row, column) >= d - 2 else first[row, column])
            for row in range(d)
            for column in range(d)
        ],
    )


def _two_parts(instance: Instance) -> Verdict:
    if not {"rotation", "query", "key"} <= set(instance.parameters):
        return undecided("Q, K and R are not given")
    turn, query, key = (instance.parameters[name] for name in ("rotation", "query", "key"))
    d = turn.nrows()
    if d < 3:
        return exactly(False, "no coordinate is left for the content")
    corner, gain, one = _corner(turn), query[d - 1, d - 1], identity(2)
    turns = corner == fmpq_mat([[corner[0, 0], -corner[1, 0]], [corner[1, 0], corner[0, 0]]])
    turns = turns and corner * corner.transpose() == one
    parts = turn == _joined(identity(d), corner) and query == _joined(query, one * gain)
    return exactly(turns and parts and key == identity(d) and gain >= 0, "R, Q and K block by block")


def _half_turn(instance: Instance) -> Verdict:
    turn = instance.parameters.get("rotation")
    if turn is None or instance.tokens is None or turn.nrows() < 2:
        return undecided("R and the number of tokens are not given, or no plane")
    corner = _corner(turn)
    c, s = corner[0, 0], corner[1, 0]
    return exactly(
        bool(c or s) and turned_within(c, s, instance.tokens.nrows() - 1, 1), "(n−1)θ against half a turn"
    )


def _marked_alike(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    marks = {tuple(map(str, row[-2:])) for row in instance.tokens.tolist()}
    return exactly(len(marks) == 1, "the last two coordinates of the tokens")


TWO_PARTS = Hypothesis(
    "two parts",
    r"R = I\oplus\begin{pmatrix}\cos\theta&-\sin\theta\\\sin\theta&\cos\theta\end{pmatrix},\ Q = Q_u\oplus bI,\ K = I,\ b\ge0",
    "weights",
    _two_parts,
)
HALF_TURN = Hypothesis("within half a turn", r"(n-1)|\theta| \le \pi", "choice", _half_turn)
MARKED_ALIKE = Hypothesis("marked alike", r"x_j = (u_j, v),\ v\in\mathbb{R}^2", "start", _marked_alike)


def _recency(e: ExplicitSystem, offset: int) -> Expr:
    """b vᵀR_θ^offset v = b|v|² cos(offset·θ)."""
    v = e.token(e.n - 1)[-2:, :]
    return e.parameters["query"][-1, -1] * (v.T * e.turns[offset][-2:, -2:] * v)[0, 0]


def _content(e: ExplicitSystem, content: int) -> Expr:
    """σ_k = (Q_u u_n)ᵀu_k."""
    asked = e.parameters["query"][:-2, :-2] * e.token(e.n - 1)[:-2, :]
    return (asked.T * e.token(content)[:-2, :])[0, 0]


def _later(e: ExplicitSystem) -> Expr:
    """What one position nearer is worth at least."""
    return unit * (_recency(e, 0) - _recency(e, 1))


def _matching(e: ExplicitSystem, content: int) -> Expr:
    """What the match is worth at least over another content."""
    return _content(e, e.n - 1) - _content(e, content) - (_recency(e, 0) - _recency(e, e.n - 1))


def _later_leads(e: ExplicitSystem) -> Sides:
    logits = rotary_logits(e)
    return [
        (logits[content, late] - logits[content, early], (late - early) * _later(e))
        for early, late in e.pairs()
        if late < e.n - 1
        for content in range(e.n)
    ]


def _match_leads(e: ExplicitSystem) -> Sides:
    logits = rotary_logits(e)
    return [
        (logits[e.n - 1, match] - logits[content, other], _matching(e, content))
        for content in range(e.n - 1)
        for match in range(e.n - 1)
        for other in range(e.n - 1)
        if match != other
    ]


def _last_match(e: ExplicitSystem) -> Sides:
    """Weights in the texts with the match up to a position and another content after it."""
    logits, found = rotary_logits(e), []
    for content in range(e.n - 1):
        bound = 1 / (1 + (e.n - 2) * exp(-Min(_later(e), _matching(e, content))))
        for last in range(e.n - 1):
            keys = [e.n - 1 if position <= last else content for position in range(e.n - 1)]
            weights = [exp(logits[key, position]) for position, key in enumerate(keys)]
            found.append((weights[last] / Add(*weights), bound))
    return found


LATER = r"M_{kj}-M_{ki} \ge (j-i)\,b|v|^2(1-\cos\theta) \text{ for } i<j<n"
MATCH = r"M_{ni}-M_{kj} \ge \sigma_n-\sigma_k-b|v|^2(1-\cos((n-1)\theta)) \text{ for } i\neq j,\ i,j<n"
LAST_MATCH = r"P_l \ge \frac{1}{1+(n-2)e^{-g}},\quad l \text{ the last match}"
_consecutive = cos(r * theta) - cos((r + 1) * theta)


def _induction(content, gain, turn, tokens) -> Instance:
    """A head with one content coordinate: Q = content ⊕ gain·I, R = 1 ⊕ turn."""
    return Instance.of(
        query=[[content, 0, 0], [0, gain, 0], [0, 0, gain]],
        key=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        value=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        rotation=[[1, 0, 0], [0, *turn[0]], [0, *turn[1]]],
        tokens=tokens,
        setting=ROTARY,
    )


_FIFTH = [[Fraction(4, 5), Fraction(-3, 5)], [Fraction(3, 5), Fraction(4, 5)]]

S3f = Theorem(
    id="S3f",
    kind="theorem",
    title="No angle and a small one find the last match",
    setting=ROTARY,
    statement=r"Let tokens be $x_j=(u_j,v)$ with a common mark $v\in\mathbb{R}^2$, let $R$ rest on the contents and turn the marks by $\theta$, "
    r"$(n-1)|\theta|\le\pi$, and let $Q=Q_u\oplus bI$, $K=I$, $b\ge0$. Then the last token gives content $k$ at position $j<n$ the logit "
    r"$\sigma_k+b|v|^2\cos((n-j)\theta)$, $\sigma_k=(Q_uu_n)^\top u_k$. Of two equal contents the later leads by at least $b|v|^2(1-\cos\theta)$, and a match "
    r"($u_k=u_n$) leads any other content by at least $\sigma_n-\sigma_k-b|v|^2(1-\cos((n-1)\theta))$. If the smaller, $g$, is positive, the last "
    r"match $l$ is the maximum, with weight $P_l\ge1/(1+(n-2)e^{-g})$ among the keys $j<n$.",
    hypotheses=(TWO_PARTS, HALF_TURN, MARKED_ALIKE),
    claims=(
        Claim("the later of equal contents leads", LATER, AT_LEAST, _later_leads),
        Claim("a match leads", MATCH, AT_LEAST, _match_leads),
        Claim("weight on the last match", LAST_MATCH, AT_LEAST, _last_match),
    ),
    steps=(
        Step(
            Given(
                r"M_{kj} = \sigma_k + b\,v^\top T^{j-n}v",
                ("two parts", "marked alike"),
            ),
            r"Content and mark do not mix; $T$ is the turn of the marks.",
        ),
        Step(
            COSINE,
            r"So $v^\top T^{j-n}v=|v|^2\cos((n-j)\theta)$: only the symmetric part counts.",
        ),
        Step(
            Equality(
                _consecutive - (1 - cos(theta)),
                4 * sin(theta / 2) * sin(r * theta / 2) * cos((r + 1) * theta / 2),
            ),
            r"One position nearer, from offset $r+1$ to $r$, against $1-\cos\theta$.",
        ),
        Step(
            Argued(LATER, (1, 2, 3), ("within half a turn", "two parts")),
            r"For $\theta\ge0$ and $(r+1)\theta\le(n-1)\theta\le\pi$ no factor is negative, and $b\ge0$; so each of the $j-i$ positions brings "
            r"at least $b|v|^2(1-\cos\theta)$.",
        ),
        Step(
            Argued(MATCH, (1, 2), ("within half a turn", "two parts")),
            r"On $[0,\pi]$ the cosine falls: offsets $0,\dots,n-1$ have it between $\cos((n-1)\theta)$ and 1.",
        ),
        Step(
            Argued(LAST_MATCH, (4, 5)),
            r"Every other key lies at least $g$ below: an earlier match by the first gap, another content by the second.",
        ),
        Step(
            Argued(r"\theta=0:\quad M_{kj} = \sigma_k + b|v|^2", (1, 2)),
            r"Without the angle all matches tie: the head is symbolic, and of $h$ matches each gets at most $1/h$.",
        ),
        Step(
            Equality(scale * (cos(2 * pi, evaluate=False) - cos(pi / 2, evaluate=False)), scale, kind=FIXED),
            r"Beyond half a turn it fails: at $\theta=\frac\pi2$ a match four positions back leads one just before by $b$, $|v|=1$.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579.",
    remark=r"A construction, with the norms it takes: for small $n\theta$ the gap $b|v|^2(1-\cos\theta)$ is about $b|v|^2\theta^2/2$, and the "
    r"content must outweigh about $b|v|^2(n\theta)^2/2$, $n^2$ times as much. The query's own key is left out ($j<n$): it matches too. It says where "
    r"the head looks; to output the value bound to the match the values must carry it.",
    formula=MATCH,
    examples=Examples(
        witness=_induction(5, 2, _FIFTH, [[1, 1, 0], [-1, 1, 0], [1, 1, 0], [1, 1, 0]]),
        near_miss=_induction(
            9, 1, QUARTER, [[1, 1, 0], [-1, 1, 0], [1, 1, 0], [-1, 1, 0], [1, 1, 0], [1, 1, 0]]
        ),
        missing="within half a turn",
        boundary=_induction(3, 1, QUARTER, [[-1, 1, 0], [1, 1, 0], [1, 1, 0]]),
    ),
    wrong=(Planted("twice the gap", scale={unit: fmpq(2)}),),
)
