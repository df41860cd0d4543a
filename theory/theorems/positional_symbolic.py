"""S1: a head that is nearly positional and nearly symbolic attends nearly uniformly. S1b: pure heads."""

from itertools import permutations
from math import factorial

from flint import fmpq
from sympy import Add, Expr, IndexedBase, Matrix, MatrixSymbol, Sum, eye

from theory.derivation import (
    FIXED,
    Argued,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Positive,
    Satisfies,
    Step,
    SumIdentity,
)
from theory.instance import Instance
from theory.lemmas.softmax import over
from theory.notation import W, a, b, d, j, k, n, unit, x_i, x_j
from theory.sums import Definition
from theory.system import ExplicitSystem, Setting
from theory.theorem import AT_LEAST, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.encodings import ORTHOGONAL
from theory.verdict import Verdict, exactly

M, own = IndexedBase("M", real=True), IndexedBase("lambda", real=True)
DIAGONAL = (Definition(own, lambda index: M[index, index]),)
average = Sum(own[j], over(j)) / n
variance = Sum(own[j] ** 2, over(j)) / n - average**2
spread = Sum((own[j] - own[k]) ** 2, over(j), over(k)) / (2 * n**2)
positional = Sum((M[k, j] - own[j]) ** 2, over(j), over(k))
symbolic = Sum((M[j, k] - own[j]) ** 2, over(j), over(k))
slack = Sum((2 * M[k, j] - own[j] - own[k]) ** 2, over(j), over(k)) / (2 * n**2)

EXCLUSION = r"\mathrm{Var}(\lambda) \le \tfrac{1}{m^2}\sum_{j,k}\left[(M_{kj}-\lambda_j)^2+(M_{jk}-\lambda_j)^2\right]"


REDUCTION = (
    r"\|\delta^{\mathrm{pos}}\|^2+\|\delta^{\mathrm{sym}}\|^2 = "
    r"(m-1)!\sum_{j,k}\left[(M_{kj}-\lambda_j)^2+(M_{jk}-\lambda_j)^2\right]"
)


def _reduces(size: int) -> Verdict:
    """Whether ‖δ^pos‖² + ‖δ^sym‖², summed over all permutations of m = size keys, is its reduction."""
    logits = Matrix(size, size, lambda r, c: M[r + 1, c + 1])
    keys = range(size)

    def deviation(content: int, position: int) -> Expr:
        own = logits[position, position]
        return (logits[content, position] - own) ** 2 + (logits[position, content] - own) ** 2

    written = Add(*(deviation(order[c], c) for order in permutations(keys) for c in keys))
    reduced = factorial(size - 1) * Add(*(deviation(r, c) for r in keys for c in keys))
    same = (written - reduced).expand() == 0
    return exactly(same, f"m = {size}, all permutations written out")


def _deviations(e: ExplicitSystem) -> Expr:
    """Σ_jk [(M_kj − λ_j)² + (M_jk − λ_j)²]."""
    logits = e.parameters["logits"]
    pairs = [(r, c) for r in range(e.n) for c in range(e.n)]
    return Add(*((logits[r, c] - logits[c, c]) ** 2 + (logits[c, r] - logits[c, c]) ** 2 for r, c in pairs))


def _variance(e: ExplicitSystem) -> Expr:
    own = e.parameters["logits"].diagonal()
    mean = Add(*own) / e.n
    return Add(*((entry - mean) ** 2 for entry in own)) / e.n


def _gaps(e: ExplicitSystem) -> Sides:
    logits = e.parameters["logits"]
    return [(2 * e.n * unit * _variance(e), (logits[r, r] - logits[c, c]) ** 2) for r, c in e.pairs()]


S1 = Theorem(
    id="S1",
    kind="theorem",
    title="Positional or symbolic, not both",
    statement=r"Let a head give key content $k$ at position $j$ the logit $M_{kj}$, $j,k\le m$, and let $\lambda_j=M_{jj}$ be its "
    r"logits on the text as it stands. Over all permutations $\pi$ of the keys let $\delta^{\mathrm{pos}}(\pi,j)=M_{\pi(j)j}-\lambda_j$ and "
    r"$\delta^{\mathrm{sym}}(\pi,j)=M_{j\pi(j)}-\lambda_j$. Then $\mathrm{Var}(\lambda)\le(\|\delta^{\mathrm{pos}}\|^2+\|\delta^{\mathrm{sym}}\|^2)/(m!\,m)$, with equality "
    r"iff $M_{kj}=(\lambda_j+\lambda_k)/2$; and $|\log mP_j|\le\sqrt{2m\mathrm{Var}(\lambda)}$ for the attention $P=\mathrm{softmax}(\lambda)$ to these $m$ keys.",
    hypotheses=(),
    claims=(
        Claim("exclusion", EXCLUSION, AT_LEAST, lambda e: [(unit * _deviations(e) / e.n**2, _variance(e))]),
        Claim(
            "logits lie together", r"2m\,\mathrm{Var}(\lambda) \ge (\lambda_j-\lambda_k)^2", AT_LEAST, _gaps
        ),
    ),
    steps=(
        Step(
            Satisfies(
                REDUCTION + r"\text{ for } m=1,\dots,6",
                lambda: [_reduces(size) for size in range(1, 7)],
                kind=FIXED,
            ),
            r"Polynomials in the entries of $M$, each side written out.",
        ),
        Step(
            Argued(REDUCTION + r"\text{ for every } m", (1,)),
            r"For given $j$ and $k$ exactly $(m-1)!$ permutations have $\pi(j)=k$.",
        ),
        Step(
            SumIdentity(variance, spread, DIAGONAL), r"The variance as a mean over pairs; $n$ stands for $m$."
        ),
        Step(
            SumIdentity((positional + symbolic) / n**2 - spread, slack, DIAGONAL),
            r"What the bound leaves, for every $m$.",
        ),
        Step(
            Positive(IndexedBase("y", real=True)[j] ** 2, weak=True),
            r"A sum of squares $y^2$, $y=2M_{kj}-\lambda_j-\lambda_k$: zero iff each vanishes.",
        ),
        Step(Argued(EXCLUSION, (2, 3, 4, 5)), r"So the variance is at most the mean squared deviation."),
        Step(
            Equality(2 * (own[1] ** 2 + own[2] ** 2) - (own[1] - own[2]) ** 2, (own[1] + own[2]) ** 2),
            r"For deviations $\lambda_1,\lambda_2$ from the mean, $(\lambda_1-\lambda_2)^2\le2(\lambda_1^2+\lambda_2^2)\le2m\mathrm{Var}$.",
        ),
        Step(
            Argued(r"|\log mP_j| \le \max\lambda-\min\lambda \le \sqrt{2m\,\mathrm{Var}(\lambda)}", (7,)),
            r"$mP_j=m e^{\lambda_j}/\sum_k e^{\lambda_k}$ lies between $e^{\pm(\max\lambda-\min\lambda)}$.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579; the reduction makes the permutation sums an O(m²) computation.",
    remark=r"A small variance alone does not give uniform attention for growing $m$: $\lambda=(2\log m,0,\dots,0)$ has "
    r"$\mathrm{Var}\to0$ and $P_1=m^2/(m^2+m-1)\to1$.",
    formula=EXCLUSION,
    wrong=(Planted("half the bounds", scale={unit: fmpq(1, 2)}),),
)


# S1b: which heads are pure

ROTARY = Setting(rotary=True)


def rotary_logits(e: ExplicitSystem) -> Matrix:
    """M_kj = (RⁿQx_n)ᵀ(R^jKx_k), (n, n): what content k would score at position j when token n asks."""
    asked = e.turns[-1] * e.parameters["query"] * e.token(e.n - 1)
    keys = [e.parameters["key"] * e.token(content) for content in range(e.n)]
    return Matrix(e.n, e.n, lambda content, position: (asked.T * e.turns[position] * keys[content])[0, 0])


def square(vector: Matrix) -> Expr:
    """|y|² of a column."""
    return (vector.T * vector)[0, 0]


def asking(e: ExplicitSystem) -> Expr:
    """|Qx_n|²."""
    return square(e.parameters["query"] * e.token(e.n - 1))


def _contents_swapped(e: ExplicitSystem) -> Sides:
    logits, key = rotary_logits(e), e.parameters["key"]
    return [
        (unit * asking(e) * square(key * (e.token(p) - e.token(q))), (logits[p, c] - logits[q, c]) ** 2)
        for p, q in e.pairs()
        for c in range(e.n)
    ]


def _positions_swapped(e: ExplicitSystem) -> Sides:
    logits, key = rotary_logits(e), e.parameters["key"]
    moved = {c: e.turns[c] - eye(e.d) for c in range(e.n)}
    return [
        (
            unit * asking(e) * square(moved[q - p] * key * e.token(c)),
            (logits[c, p] - logits[c, q]) ** 2,
        )
        for p, q in e.pairs()
        for c in range(e.n)
    ]


q, y = IndexedBase("q", real=True), IndexedBase("y", real=True)
CAUCHY_SCHWARZ = (
    Step(
        SumIdentity(
            Sum(q[a] ** 2, over(a, d)) * Sum(y[a] ** 2, over(a, d)) - Sum(q[a] * y[a], over(a, d)) ** 2,
            Sum((q[a] * y[b] - q[b] * y[a]) ** 2, over(a, d), over(b, d)) / 2,
        ),
        r"Lagrange's identity.",
    ),
    Step(Positive((q[a] * y[b] - q[b] * y[a]) ** 2, weak=True), r"So $(q^\top y)^2\le|q|^2|y|^2$."),
)
POSITION = r"(M_{ki}-M_{kj})^2 \le |Qx_n|^2\,|(R^{j-i}-I)Kx_k|^2"
CONTENT = r"(M_{kj}-M_{lj})^2 \le |Qx_n|^2\,|K(x_k-x_l)|^2"
p_i, p_j = (MatrixSymbol(name, *x_i.shape) for name in ("p_i", "p_j"))


def _neither() -> list[Verdict]:
    """W = 1, x = p = (0, 1): the logits change with the content and with the position."""
    query, tokens, positions = fmpq(2), (fmpq(0), fmpq(1)), (fmpq(0), fmpq(1))
    logits = [[query * (content + position) for position in positions] for content in tokens]
    return [exactly(logits[0][0] != logits[1][0]), exactly(logits[0][0] != logits[0][1])]


FIFTHS = [[fmpq(3, 5), fmpq(-4, 5)], [fmpq(4, 5), fmpq(3, 5)]]

S1b = Theorem(
    id="S1b",
    kind="theorem",
    title="Which heads are pure",
    setting=ROTARY,
    statement=r"Let the last token ask, $M_{kj}=(R^nQx_n)^\top R^jKx_k$ with an orthogonal $R$. Another content moves a logit by at most "
    r"$|Qx_n||K(x_k-x_l)|$, another position by at most $|Qx_n||(R^{j-i}-I)Kx_k|$. So a rotary head whose keys $Kx_k$ are all equal is "
    r"positional ($M_{kj}$ does not depend on $k$), and a head without encoding, $R=I$, is symbolic ($M_{kj}$ does not depend on $j$).",
    hypotheses=(ORTHOGONAL,),
    claims=(
        Claim("content changed", CONTENT, AT_LEAST, _contents_swapped),
        Claim("position changed", POSITION, AT_LEAST, _positions_swapped),
    ),
    steps=(
        *CAUCHY_SCHWARZ,
        Step(Given(r"|R^ny| = |R^jy| = |y|", ("R orthogonal",)), r"Turns keep lengths."),
        Step(Argued(CONTENT, (1, 2, 3)), r"$q=R^nQx_n$, $y=R^jK(x_k-x_l)$."),
        Step(Argued(POSITION, (1, 2, 3)), r"$q=R^nQx_n$, $y=R^i(R^{j-i}-I)Kx_k$."),
        Step(
            Argued(
                r"K(x_k-x_l)=0:\ M_{kj}=M_{lj};\quad R=I:\ M_{ki}=M_{kj}",
                (4, 5),
            ),
            r"The right-hand sides vanish: with equal keys the head is positional, without encoding symbolic.",
        ),
        Step(
            Argued(r"RKx_k = Kx_k \text{ if } M_{k1}=M_{k2} \text{ for every query}", (5,)),
            r"The query with $R^nQx_n=(R-I)RKx_k$ has $M_{k2}-M_{k1}=|(R-I)RKx_k|^2$. Where no frequency is zero, $R-I$ is regular and "
            r"such keys vanish.",
        ),
        Step(
            FromLemma("S1", EXCLUSION),
            r"If both $M_{kj}=\lambda_j$ and $M_{jk}=\lambda_j$, then $\mathrm{Var}(\lambda)\le0$: a head of both kinds has constant logits.",
        ),
        Step(
            MatrixIdentity(
                (x_i + p_i).T * W * (x_j + p_j), (x_i + p_i).T * W * x_j + (x_i + p_i).T * W * p_j
            ),
            r"With absolute encodings in the scores a logit is a symbolic part plus a positional part.",
        ),
        Step(
            Satisfies(r"W=1,\ x=p=(0,1):\ M_{11}\neq M_{21} \text{ and } M_{11}\neq M_{12}", _neither),
            r"So in general such a head is neither.",
        ),
    ),
    source="Stated here, after arXiv 2511.11579; the first bound needs no more than equal keys, the second no more than slow turns.",
    remark=r"Pure is a property of the logits on this text and its rearrangements, not of the weights alone: a rotary head is positional "
    r"on a text of equal keys and need not be on another. An exact zero is never met in trained weights; the bounds are for nearly "
    r"equal keys and nearly resting ones.",
    formula=POSITION,
    examples=Examples(
        witness=Instance.of(
            query=[[1, 2], [0, 1]],
            key=[[1, 0], [1, 1]],
            value=[[1, 0], [0, 1]],
            rotation=FIFTHS,
            tokens=[[1, 2], [0, -1], [2, 1]],
            setting=ROTARY,
        ),
        near_miss=Instance.of(
            query=[[1]], key=[[1]], value=[[1]], rotation=[[2]], tokens=[[1], [2]], setting=ROTARY
        ),
        missing="R orthogonal",
        boundary=Instance.of(
            query=[[1]], key=[[1]], value=[[1]], rotation=[[-1]], tokens=[[1], [2]], setting=ROTARY
        ),
    ),
    wrong=(Planted("half the bounds", scale={unit: fmpq(1, 2)}),),
)
