"""L1 softmax excess and L2 free energy: one row of attention, any number of scores."""

from flint import fmpq
from sympy import Derivative, IndexedBase, Integer, Max, Sum, Symbol, exp, log, sinh

from theory.derivation import Argued, Certified, Cited, ConvexMinimum, Equality, Positive, Step, SumIdentity
from theory.notation import P, Z, j, k, kappa, n, s, unit
from theory.quantities import attended_score, for_tokens
from theory.sums import Definition, Total
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, Claim, Planted, Theorem

SOFTMAX = (Definition(P, lambda index: exp(s[index]) / Z),)
NORMALISER = (Total(lambda index: exp(s[index]), Z, n),)


def over(index: Symbol, upper: Symbol = n) -> tuple[Symbol, int, Symbol]:
    return index, 1, upper


def _softmax_identity(left, right) -> SumIdentity:
    return SumIdentity(left, right, SOFTMAX, NORMALISER)


excess = Sum((P[j] - 1 / n) * s[j], over(j))
relative_entropies = Sum(P[j] * log(n * P[j]), over(j)) - Sum(log(n * P[j]) / n, over(j))
delta = Symbol("delta", positive=True)
base = Symbol("s", real=True)

EXCESS = r"\sum_j P_j s_j \ge \tfrac1n \sum_j s_j, \text{ with equality iff all } s_j \text{ are equal}"

_L1_STEPS = (
    Step(
        _softmax_identity(excess, relative_entropies),
        r"With $P_j = e^{s_j}/Z$ the excess is $\mathrm{KL}(P\|U)+\mathrm{KL}(U\|P)$, $U$ uniform (Jeffreys).",
    ),
    Step(
        _softmax_identity(excess, Sum((P[j] - P[k]) * (s[j] - s[k]), over(j), over(k)) / (2 * n)),
        r"Chebyshev's sum identity: the excess is a double sum of products of differences.",
    ),
    Step(
        Equality(
            (exp(base + delta) - exp(base)) * delta,
            (2 * exp(base + delta / 2) * delta * sinh(delta / 2)).rewrite(exp),
        ),
        r"One summand, up to the factor $1/(2nZ)$, for two scores that differ by $\delta$.",
    ),
    Step(
        Positive(2 * exp(base + delta / 2) * delta * sinh(delta / 2)),
        r"It is positive for $\delta > 0$, and exchanging the two scores does not change it.",
    ),
    Step(
        Argued(EXCESS, (2, 3, 4)),
        r"A sum of non-negative terms vanishes only if every term does.",
    ),
)


def _mean(entries):
    return sum(entries) / len(entries)


def _excess(e: ExplicitSystem, r: int):
    return attended_score(e, r) - _mean(list(e.s.row(r)))


def _relative_entropies(e: ExplicitSystem, r: int):
    logs = [log(e.n * e.P[r, c]) for c in range(e.n)]
    return sum(e.P[r, c] * logs[c] for c in range(e.n)) - _mean(logs)


def _log_sum_exp_minus_entropy(e: ExplicitSystem, r: int):
    return log(e.Z[r]) + sum(e.P[r, c] * log(e.P[r, c]) for c in range(e.n))


L1 = Theorem(
    id="L1",
    kind="lemma",
    title="Softmax excess",
    statement=r"For $P = \mathrm{softmax}(s)$, $\sum_j (P_j-\frac1n)s_j = \mathrm{KL}(P\|U)+\mathrm{KL}(U\|P) \ge 0$, "
    r"so the attended score is at least the mean score; equality iff all scores are equal.",
    hypotheses=(),
    claims=(
        Claim(
            "excess is Jeffreys' divergence",
            r"\sum_j (P_{ij}-\tfrac1n)s_{ij} = \mathrm{KL}(P_i\|U)+\mathrm{KL}(U\|P_i)",
            EQUAL,
            for_tokens(lambda e, r: (_excess(e, r), unit * _relative_entropies(e, r))),
        ),
        Claim(
            "excess is non-negative",
            r"\sum_j (P_{ij}-\tfrac1n)s_{ij} \ge 0",
            AT_LEAST,
            for_tokens(lambda e, r: (_excess(e, r), 0 * unit)),
        ),
    ),
    steps=_L1_STEPS,
    source="Jeffreys' divergence of softmax and uniform weights; Chebyshev's sum inequality.",
    formula=EXCESS,
    wrong=(Planted("twice Jeffreys' divergence", scale={unit: fmpq(2)}),),
)

gap = IndexedBase("t", real=True)
shift = Symbol("u", real=True)
gap_one = Symbol("t", real=True)
y = Symbol("y", nonnegative=True)
GAPS = (Definition(P, lambda index: exp(-gap[index]) / Z),)
GAP_NORMALISER = (Total(lambda index: exp(-gap[index]), Z, n),)

FREE_ENERGY = r"\sum_j P_j s_j \ge \max_j s_j - \kappa_n, \text{ attained when the others lie } 1+\kappa_n \text{ below}"

_L2_STEPS = (
    Step(
        _softmax_identity(Sum(P[j] * s[j], over(j)), log(Z) + Sum(P[j] * log(P[j]), over(j))),
        r"The attended score is $\mathrm{logsumexp}(s) - H(P)$ (Gibbs' free energy).",
    ),
    Step(
        SumIdentity(
            Sum(P[j] * gap[j], over(j)) - kappa,
            Sum((gap[j] - kappa) * exp(-gap[j]), over(j)) / Z,
            GAPS,
            GAP_NORMALISER,
        ),
        r"Write $s_j = \max s - t_j$ with $t_j \ge 0$; weights do not change under a common shift, so now "
        r"$P_j = e^{-t_j}/Z$ with $Z = \sum_j e^{-t_j}$. "
        r"The claim $\max s - \sum_j P_j s_j \le \kappa$ is that this is $\le 0$.",
    ),
    Step(
        ConvexMinimum(exp(shift) - 1 - shift, shift, 0 * shift),
        r"$e^u \ge 1+u$, with equality only at $u=0$.",
    ),
    Step(
        Equality(
            exp(-1 - kappa) - (gap_one - kappa) * exp(-gap_one),
            exp(-gap_one) * (exp(gap_one - 1 - kappa) - 1 - (gap_one - 1 - kappa)),
        ),
        r"So each term obeys $(t-\kappa)e^{-t} \le e^{-1-\kappa}$, with equality only at $t = 1+\kappa$.",
    ),
    Step(
        Equality((n - 1).subs(n, 1 + kappa * exp(1 + kappa)) * exp(-1 - kappa), kappa),
        r"$\kappa_n = W_0((n-1)/e)$ means $n - 1 = \kappa e^{1+\kappa}$: then $n-1$ such terms add up to at most $\kappa$.",
    ),
    Step(
        Cited(
            r"\kappa e^{\kappa} = (n-1)/e \text{ has the unique solution } \kappa = W_0((n-1)/e) \ge 0",
            "corless1996",
        ),
        r"Definition of Lambert's function on the non-negative half-line.",
    ),
    Step(
        Argued(FREE_ENERGY, (2, 3, 4, 5, 6)),
        r"The largest score has $t = 0$ and contributes $-\kappa$; the other $n-1$ contribute at most $\kappa$ together.",
    ),
    Step(
        Equality(Derivative(y * exp(y) - (exp(y) - 1) * exp(-1), y), exp(y) * (y + 1 - exp(-1))),
        r"$\kappa_n \le \log n$: with $n = e^y$ the function $n\log n - (n-1)/e$ vanishes at $y=0$ and has this slope.",
    ),
    Step(
        Certified(Integer(1), exp(-1)),
        r"The slope is positive for $y \ge 0$, and $\kappa e^\kappa$ increases, so $\kappa_n e^{\kappa_n}\le(\log n)e^{\log n}$ gives $\kappa_n\le\log n$.",
    ),
)

L2 = Theorem(
    id="L2",
    kind="lemma",
    title="Free energy",
    statement=r"$\sum_j P_j s_j = \mathrm{logsumexp}(s) - H(P) \ge \max_j s_j - \kappa_n$ with the sharp constant "
    r"$\kappa_n = W_0((n-1)/e) \le \log n$.",
    hypotheses=(),
    claims=(
        Claim(
            "free-energy identity",
            r"e_i = \log Z_i - H(P_i)",
            EQUAL,
            for_tokens(lambda e, r: (attended_score(e, r), unit * _log_sum_exp_minus_entropy(e, r))),
        ),
        Claim(
            "attended score near the largest",
            r"e_i \ge \max_j s_{ij} - \kappa_n",
            AT_LEAST,
            for_tokens(lambda e, r: (attended_score(e, r), Max(*e.s.row(r)) - kappa)),
        ),
    ),
    steps=_L2_STEPS,
    source="Gibbs' variational principle; the sharp constant is derived here.",
    remark=r"$n$ counts all tokens, duplicates too.",
    formula=FREE_ENERGY,
    wrong=(
        Planted("κ_n replaced by κ_n/2", scale={kappa: fmpq(1, 2)}),
        Planted("κ_n replaced by 0.9·κ_n", scale={kappa: fmpq(9, 10)}),
        Planted("twice the free energy", scale={unit: fmpq(2)}),
    ),
)
