"""T15: several heads that share one response matrix."""

from collections.abc import Callable

from flint import fmpq, fmpq_mat
from sympy import Add, Expr, Integer, Matrix, MatrixSymbol, Sum, Symbol

from theory.definiteness import positive_definite
from theory.derivation import Argued, Cited, FromLemma, Given, MatrixIdentity, Step, SumIdentity
from theory.hypotheses import A_DEFINITE, A_SYMMETRIC, Hypothesis
from theory.instance import Instance
from theory.lemmas.response import SCORES as SCORES_OF_ROW
from theory.lemmas.response import query
from theory.lemmas.softmax import over
from theory.notation import A, P, a, b, coefficient, d, i, j, kappa, lam, n, s, sigma, sym, u, unit, w, x, x_i
from theory.quantities import energy_rate, for_tokens, quadratic, token_energy, token_energy_rate
from theory.system import ExplicitSystem, Setting
from theory.theorem import AT_LEAST, EQUAL, Claim, Examples, Planted, Theorem
from theory.theorems.convergence import MEAN_BOUND, SCORES, row_of_attention, total
from theory.theorems.thresholds import FREE_ENERGY_OF_ROW
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import symmetric_part

TWO_HEADS = Setting(heads=2)

# Hypotheses

Second = Callable[[Instance, fmpq_mat, fmpq_mat, fmpq], Verdict]


def _with_second_head(decide: Second) -> Callable[[Instance], Verdict]:
    """`decide` gets W_2, V_2 and c_2 too; weights with a scale of their own are left open."""

    def guarded(instance: Instance) -> Verdict:
        given = instance.parameters
        if not {"W_2", "V_2", "coefficient"} <= set(given) or instance.weights.scale_squared != 1:
            return undecided("no second head W_2, V_2, c_2 beside a W without scale")
        return decide(instance, given["W_2"], given["V_2"], given["coefficient"][0, 0])

    return guarded


def _tied(instance: Instance, form: fmpq_mat, value: fmpq_mat, factor: fmpq) -> Verdict:
    if not instance.has_response:
        return undecided("V is singular, so A = W V⁻¹ is not defined")
    tied = instance.response * value == form * factor
    return holds(Grade.EXACT) if tied else fails(Grade.EXACT, "A V_2 ≠ c_2 W_2")


def _positive(instance: Instance, form: fmpq_mat, value: fmpq_mat, factor: fmpq) -> Verdict:
    return positive_definite(symmetric_part(instance.form + form * factor))


def _non_negative(instance: Instance, form: fmpq_mat, value: fmpq_mat, factor: fmpq) -> Verdict:
    return holds(Grade.EXACT) if factor >= 0 else fails(Grade.EXACT, f"c_2 = {factor}")


HEADS_TIED = Hypothesis("heads tied", r"A V_h = c_h W_h,\ c_1 = 1", "weights", _with_second_head(_tied))
COEFFICIENTS = Hypothesis(
    "coefficients non-negative", r"c_h \ge 0", "weights", _with_second_head(_non_negative)
)
HEADS_POSITIVE = Hypothesis(
    "heads positive together",
    r"T_s \succ 0,\ T = \sum_h c_h W_h",
    "weights",
    _with_second_head(_positive),
)

# Quantities


def _factors(e: ExplicitSystem) -> list[Expr]:
    """c_h of every head."""
    return [Integer(1), coefficient][: len(e.heads)]


def _attended(e: ExplicitSystem) -> Expr:
    """Σ_h c_h Σ_i e_i^h."""
    return Add(
        *(
            factor * head.P[r, c] * head.s[r, c]
            for factor, head in zip(_factors(e), e.heads, strict=True)
            for r in range(e.n)
            for c in range(e.n)
        )
    )


def _together(e: ExplicitSystem) -> Matrix:
    """T = Σ_h c_h W_h."""
    return sum(
        (factor * head.W for factor, head in zip(_factors(e), e.heads, strict=True)), Matrix.zeros(e.d, e.d)
    )


def _total_score(e: ExplicitSystem) -> Expr:
    """(Σx_i)ᵀ T (Σx_i)."""
    return quadratic(_together(e), Matrix(e.d, 1, lambda r, _: Add(*e.X.col(r))))


W_h, V_h = MatrixSymbol("W_h", *A.shape), MatrixSymbol("V_h", *A.shape)
m_h = MatrixSymbol("m_i^h", *x_i.shape)
c_h = Symbol("c_h", nonnegative=True)

TOTAL_BOUND = r"\dot E = \sum_h c_h\sum_i e_i^h \ge \tfrac1n S^\top T_s S \ge 0,\quad S = \sum_i x_i"
FATE = (
    r"\sigma=-1:\ X(t)\to0 \text{ from every start};\quad"
    r" \sigma=1:\ \max_i\|x_i(t)\|\to\infty \text{ from every start but } 0"
)

T15 = Theorem(
    id="T15",
    kind="theorem",
    title="Several heads",
    statement=r"Let the heads of $\dot x_i=\sum_hV_hm_i^h$ share one response: $AV_h=c_hW_h$ with $c_h\ge0$ ($c_1=1$), $A=A^\top$ definite of "
    r"sign $\sigma$, and $T_s\succ0$ for $T=\sum_hc_hW_h$. Then $X(t)\to0$ from every start for $\sigma=-1$, and "
    r"$\max_i\|x_i\|\to\infty$ from every start but 0 for $\sigma=1$, by the energies of T2 and T3; and each "
    r"$E_i=\frac12x_i^\top(\sigma A)x_i$ obeys $\sigma\dot E_i\ge2\lambda E_i-\kappa_n\sum_hc_h$, $\lambda$ the smallest eigenvalue of "
    r"$(T_s,\sigma A)$.",
    hypotheses=(A_SYMMETRIC, A_DEFINITE, HEADS_TIED, COEFFICIENTS, HEADS_POSITIVE),
    claims=(
        Claim(
            "energies are non-negative",
            r"E_i = \tfrac12x_i^\top(\sigma A)x_i \ge 0",
            AT_LEAST,
            for_tokens(lambda e, i: (sigma * token_energy(e, i), 0)),
        ),
        Claim(
            "energy balance",
            r"\tfrac{d}{dt}\tfrac12\sum_i x_i^\top Ax_i = \sum_h c_h\sum_i e_i^h",
            EQUAL,
            lambda e: [(energy_rate(e), _attended(e))],
        ),
        Claim(
            "energy moves one way",
            r"\tfrac{d}{dt}\tfrac12\sum_i x_i^\top Ax_i \ge 0",
            AT_LEAST,
            lambda e: [(energy_rate(e), 0)],
        ),
        Claim(
            "by how much",
            r"\tfrac{d}{dt}\tfrac12\sum_i x_i^\top Ax_i \ge \tfrac1n S^\top TS,\ S = \sum_i x_i",
            AT_LEAST,
            lambda e: [(energy_rate(e), unit * _total_score(e) / e.n)],
        ),
        Claim(
            "energy of each token",
            r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_n\sum_h c_h",
            AT_LEAST,
            for_tokens(
                lambda e, i: (
                    token_energy_rate(e, i),
                    2 * lam * sigma * token_energy(e, i) - kappa * Add(*_factors(e)),
                )
            ),
        ),
    ),
    steps=(
        Step(
            MatrixIdentity(u.T * A * x_i / 2 + x_i.T * A * u / 2, x_i.T * A * u),
            r"The rate of $\frac12x_i^\top Ax_i$ along any velocity $u=\dot x_i$, as $A=A^\top$; $E$ is their sum in these steps.",
        ),
        Step(Given(r"V_h = c_hA^{-1}W_h", ("heads tied", "A definite")), r"Every head has the response $A$."),
        Step(
            MatrixIdentity(x_i.T * A * V_h * m_h, c_h * x_i.T * W_h * m_h, where={V_h: c_h * A.I * W_h}),
            r"One head's share of $x_i^\top A\dot x_i=\sum_hx_i^\top AV_hm_i^h$.",
        ),
        Step(
            SumIdentity(
                Sum(query[a] * w[a, b] * Sum(P[j] * x[j, b], over(j)), over(a, d), over(b, d)),
                Sum(P[j] * s[j], over(j)),
                SCORES_OF_ROW,
            ),
            r"In coordinates, with $y=x_i$: $x_i^\top W_hm_i^h$ is the attended score $e_i^h$.",
        ),
        Step(
            FromLemma("L1", MEAN_BOUND, row_of_attention),
            r"Row $i$ of a head: its attended score is at least its mean score.",
        ),
        Step(
            SumIdentity(
                Sum(s[i, j], over(i), over(j)) / n,
                Sum(total[a] * w[a, b] * total[b], over(a, d), over(b, d)) / n,
                SCORES,
            ),
            r"Summed over the rows of a head: $\sum_ie_i^h\ge\frac1nS^\top W_hS$, $S=\sum_ix_i$.",
        ),
        Step(
            Argued(TOTAL_BOUND, (1, 2, 3, 4, 5, 6), ("coefficients non-negative", "heads positive together")),
            r"With the weights $c_h$; equality in the last only for $S=0$. No sign of a single $W_h$ is needed.",
        ),
        Step(
            SumIdentity(
                Sum(s[i, j], over(j)), Sum(x[i, a] * w[a, b] * total[b], over(a, d), over(b, d)), SCORES
            ),
            r"Equality case, prepared: a row sum of a head's scores is $x_i^\top W_hS$.",
        ),
        Step(
            Argued(
                r"\dot E = 0 \implies X = 0",
                (5, 7, 8),
                ("coefficients non-negative", "heads positive together"),
            ),
            r"If $\dot E=0$ then $S=0$, so every mean score is 0 and every $e_i^h\ge0$. Where $c_h>0$ they vanish, row $i$ is an equality in "
            r"L1, and all its scores are 0, $s_{ii}^h=x_i^\top W_hx_i$ too. Weighted with $c_h$ they add up to $x_i^\top T_sx_i$: $x_i=0$.",
        ),
        Step(
            Given(
                r"\sigma E > 0 \text{ unless } X=0,\ \sigma E\to\infty \text{ iff } \|X\|\to\infty",
                ("A definite",),
            ),
            r"$\sigma E$ is positive and proper.",
        ),
        Step(
            Cited(r"\sigma=-1:\ X(t)\to0", "khalil_lyapunov"),
            r"Lyapunov's theorem: $-E$ falls strictly unless $X=0$.",
        ),
        Step(
            Cited(
                r"\sigma=1,\ E \text{ bounded} \implies \dot E = 0 \text{ on the non-empty } \omega\text{-limit set}",
                "khalil_lasalle",
            ),
            r"LaSalle's invariance principle.",
        ),
        Step(
            Argued(FATE, (9, 10, 11, 12)),
            r"For $\sigma=1$ and $X(0)\ne0$ a bounded $E$ is impossible: $\dot E=0$ only at $X=0$, where $E=0<E(0)$.",
        ),
        Step(
            FromLemma("L2", FREE_ENERGY_OF_ROW, row_of_attention),
            r"In each head $e_i^h\ge s_{ii}^h-\kappa_n$.",
        ),
        Step(
            MatrixIdentity(x_i.T * W_h * x_i, x_i.T * sym(W_h) * x_i),
            r"With the weights $c_h$ the self scores add up to $x_i^\top T_sx_i$.",
        ),
        Step(
            Cited(r"x_i^\top T_sx_i \ge \lambda\,x_i^\top(\sigma A)x_i = 2\lambda E_i", "horn2012"),
            r"Rayleigh quotient of the pencil $(T_s,\sigma A)$.",
        ),
        Step(
            Argued(
                r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_n\sum_h c_h",
                (1, 2, 3, 4, 14, 15, 16),
                ("coefficients non-negative",),
            ),
            r"Put together.",
        ),
    ),
    setting=TWO_HEADS,
    source="Stated here.",
    remark=r"The derivation is for any number of heads; instances and simulations have two. Single heads may have scores of any sign, as "
    r"long as $T_s\succ0$. Heads with different responses are not covered, nor is a causal mask.",
    concludes="several heads: X(t) → 0 (A ≺ 0), or max‖x_i‖ → ∞ from every start but 0 (A ≻ 0)",
    formula=FATE,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, -1]],
            response=[[-2, 1], [1, -1]],
            W_2=[[1, 0], [2, 4]],
            V_2=[[fmpq(-3, 2), -2], [fmpq(-5, 2), -4]],
            coefficient=fmpq(1, 2),
            tokens=[[1, 2], [0, -1], [3, 1]],
            setting=TWO_HEADS,
        ),
        near_miss=Instance.of(
            score=[[-1]],
            response=[[1]],
            W_2=[[-2]],
            V_2=[[2]],
            coefficient=-1,
            tokens=[[1], [-1]],
            setting=TWO_HEADS,
        ),
        missing="coefficients non-negative",
        boundary=Instance.of(
            score=[[1]],
            response=[[-1]],
            W_2=[[1]],
            V_2=[[-2]],
            coefficient=2,
            tokens=[[2], [2]],
            setting=TWO_HEADS,
        ),
    ),
    wrong=(
        Planted("1/n replaced by 2/n", scale={unit: fmpq(2)}),
        Planted("c_2 replaced by 2c_2", scale={coefficient: fmpq(2)}),
        Planted("λ replaced by 3λ/2", scale={lam: fmpq(3, 2)}),
        Planted("κ_n replaced by κ_n/2", scale={kappa: fmpq(1, 2)}),
        Planted("under a causal mask", setting=Setting(heads=2, causal=True)),
    ),
)
