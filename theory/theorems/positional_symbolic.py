"""S1: a head that is nearly positional and nearly symbolic attends nearly uniformly."""

from itertools import permutations
from math import factorial

from flint import fmpq
from sympy import Add, Expr, IndexedBase, Matrix, Sum

from theory.derivation import FIXED, Argued, Equality, Positive, Satisfies, Step, SumIdentity
from theory.lemmas.softmax import over
from theory.notation import j, k, n, unit
from theory.sums import Definition
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, Claim, Planted, Sides, Theorem
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
                REDUCTION + r"\text{ for } m=1,\dots,5",
                lambda: [_reduces(size) for size in range(1, 6)],
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
