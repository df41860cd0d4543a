"""T14, T14b–f: tokens that see only themselves and earlier tokens."""

from collections.abc import Callable
from fractions import Fraction

from flint import fmpq, fmpq_mat
from sympy import (
    Add,
    Derivative,
    Determinant,
    Expr,
    Function,
    ImmutableMatrix,
    Integer,
    LambertW,
    MatrixSymbol,
    Max,
    Min,
    Q,
    Rational,
    Sum,
    Symbol,
    exp,
    sqrt,
    symbols,
)

from theory.definiteness import inertia, positive_definite
from theory.derivation import (
    FIXED,
    Argued,
    Certified,
    Cited,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Satisfies,
    Step,
    SumIdentity,
    along_flow,
)
from theory.eigenpairs import hurwitz, unstable
from theory.hypotheses import A_DEFINITE, A_SYMMETRIC, W_POSITIVE, Hypothesis
from theory.instance import Instance
from theory.lemmas.response import RESPONSE
from theory.lemmas.softmax import FREE_ENERGY, NORMALISER, SOFTMAX, over
from theory.notation import (
    A,
    M,
    P,
    V,
    W,
    Z,
    abscissa,
    d,
    j,
    k,
    lam,
    m_i,
    n,
    norm_V,
    s,
    sigma,
    sym,
    t,
    unit,
    x_i,
)
from theory.quantities import (
    for_tokens,
    pair_form_rate,
    quadratic,
    symmetric,
    token_energy,
    token_energy_rate,
)
from theory.system import ExplicitSystem, Setting
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.convergence import row_of_attention
from theory.theorems.pairwise import T1
from theory.theorems.thresholds import PENCIL_CLAIMS, PENCIL_STEPS
from theory.theorems.thresholds import bound as comparison
from theory.theorems.thresholds import rate as pencil_rate
from theory.verdict import Grade, Verdict, every, exactly, fails, holds, undecided
from theory.weights import symmetric_part

CAUSAL, TWO_HEADS = Setting(causal=True), Setting(causal=True, heads=2)

# Hypotheses


def _decreasing(instance: Instance, metric: fmpq_mat) -> Verdict:
    """M = Mᵀ ≻ 0, (MV_h)_s ⪯ 0 for every head and Σ_h (MV_h)_s ≺ 0."""
    if metric != metric.transpose():
        return fails(Grade.EXACT, "M is not symmetric")
    forms = [symmetric_part(metric * value) * -1 for value in instance.head_values]
    total = sum(forms[1:], forms[0])
    return every([positive_definite(metric), positive_definite(total), *map(_semidefinite, forms)])


def _semidefinite(form: fmpq_mat) -> Verdict:
    found = inertia(form)
    if found is None:
        return undecided("the signs of the pivots stay open")
    signs, grade = found
    return (
        fails(grade, "(MV_h)_s has a positive eigenvalue for some head")
        if signs.negative
        else holds(grade, "Sylvester's law")
    )


def _lyapunov(instance: Instance) -> Verdict:
    metric = instance.parameters.get("metric")
    return hurwitz(instance.value) if metric is None else _decreasing(instance, metric)


def _common(instance: Instance) -> Verdict:
    metric = instance.parameters.get("metric")
    if metric is not None:
        return _decreasing(instance, metric)
    verdict = hurwitz(instance.value_sum)
    return verdict if verdict.fails else undecided("no common metric M of the heads is given")


def _unstable_sum(instance: Instance) -> Verdict:
    return unstable(instance.value_sum)


def _close_pair(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    if instance.weights.dim != 1 or instance.tokens.nrows() != 3 or not instance.has_response:
        return fails(Grade.EXACT, "not three numbers, or V = 0")
    first, second, third = instance.tokens.entries()
    form, squared = (
        instance.form[0, 0],
        instance.form[0, 0] ** 2 * instance.weights.scale_squared,
    )  # W > 0, W²
    met = first == 0 != second and form > 0 and squared * second**4 <= 1 and fmpq(9, 10) <= third / second < 1
    return exactly(met, f"tokens {first}, {second}, {third}")


LYAPUNOV_METRIC = Hypothesis(
    "Lyapunov metric",
    r"M = M^\top \succ 0,\ MV + V^\top M \prec 0",
    "weights",
    _lyapunov,
    Q.symmetric(M),
)
COMMON_METRIC = Hypothesis(
    "common metric",
    r"M = M^\top \succ 0,\ MV_h + V_h^\top M \preceq 0 \text{ for every } h,\ \sum_h (MV_h + V_h^\top M) \prec 0",
    "weights",
    _common,
    Q.symmetric(M),
)
SUM_UNSTABLE = Hypothesis(
    "sum of values unstable", r"\max \mathrm{Re}\,\lambda(\sum_h V_h) > 0", "weights", _unstable_sum
)
CLOSE_PAIR = Hypothesis(
    "close pair",
    r"d = 1,\ n = 3,\ V \neq 0,\ x_1 = 0,\ 0 < W x_2^2 \le 1,\ \tfrac{9}{10} \le x_3/x_2 < 1",
    "start",
    _close_pair,
)

# Claims


def _norm(e: ExplicitSystem, vector) -> Expr:
    """‖vector‖_M."""
    return sqrt(quadratic(e.M, vector))


def _total_value(e: ExplicitSystem):
    return sum((head.V for head in e.heads[1:]), e.V)


def _first_token(e: ExplicitSystem) -> Sides:
    linear = _total_value(e) * e.token(0)
    return [(e.v[0, a], unit * linear[a]) for a in range(e.d)]


def _push(e: ExplicitSystem, i: int) -> Expr:
    """f_i = Σ_h Σ_{j<i} P^h_ij ‖V_h x_j‖_M, what earlier tokens can do."""
    return Add(*(head.P[i, j] * _norm(e, head.V * e.token(j)) for head in e.heads for j in range(i)))


def _pull(e: ExplicitSystem, i: int) -> Expr:
    """x_iᵀ M Σ_h V_h x_i."""
    return quadratic(e.M * _total_value(e), e.token(i))


def _induction_step(e: ExplicitSystem, i: int) -> tuple:
    own = Min(*(head.P[i, i] for head in e.heads))
    rate = quadratic(symmetric(e.M), e.token(i), e.velocity(i))
    return _norm(e, e.token(i)) * _push(e, i) + own * _pull(e, i), rate


def _later(item: Callable[[ExplicitSystem, int], tuple]) -> Callable[[ExplicitSystem], Sides]:
    """Sides of a claim about every token but the first."""
    return lambda e: [item(e, i) for i in range(1, e.n)]


FIRST_TOKEN = Claim("the first token is linear", r"\dot x_1 = \sum_h V_h x_1", EQUAL, _first_token)
METRIC_CLAIMS = (
    FIRST_TOKEN,
    Claim(
        "energy is non-negative",
        r"E_i = \tfrac12 x_i^\top M x_i \ge 0",
        AT_LEAST,
        for_tokens(lambda e, i: (quadratic(e.M, e.token(i)) / 2, 0)),
    ),
    Claim(
        "a token pulls itself inward",
        r"-x_i^\top M \sum_h V_h x_i \ge 0",
        AT_LEAST,
        for_tokens(lambda e, i: (-_pull(e, i), 0)),
    ),
    Claim(
        "only earlier tokens push",
        r"\|x_i\|_M\, f_i + p_i\, x_i^\top M \sum_h V_h x_i \ge \dot E_i",
        AT_LEAST,
        _later(_induction_step),
    ),
)


def _linear_limit(e: ExplicitSystem, i: int) -> tuple:
    """Squares of both sides of ‖ẋ_k − (1/k) V Σ_{j≤k} x_j‖ ≤ 2 ‖V‖ (1 − e^{−σ_k}) max_{j≤k} ‖x_j‖."""
    scores = [e.s[i, j] for j in range(i + 1)]
    tokens = [e.token(j) for j in range(i + 1)]
    gap = e.velocity(i) - unit * e.V * sum(tokens[1:], tokens[0]) / (i + 1)
    largest = Max(*((token.T * token)[0, 0] for token in tokens))
    reach = 2 * norm_V * (1 - exp(Min(*scores) - Max(*scores)))
    return reach**2 * largest, (gap.T * gap)[0, 0]


def _wrong_way(e: ExplicitSystem) -> Sides:
    return [(-pair_form_rate(e, 1, 2), Integer(0))] if e.n > 2 else []


def _means(e: ExplicitSystem) -> Sides:
    """Z_2 Z_3 (m_3 − m_2) for x_1 = 0 in one dimension."""
    if e.n != 3 or e.d != 1:
        return []
    x, g = e.X, e.g
    closed = x[1] * g[2, 1] + x[2] * g[2, 2] - x[1] * g[1, 1] - (x[1] - x[2]) * g[1, 1] * g[2, 2]
    return [(e.Z[1] * e.Z[2] * (e.m[2, 0] - e.m[1, 0]), unit * closed)]


def _kappa(i: int) -> Expr:
    """κ of a row of i + 1 scores."""
    return unit * LambertW(i * exp(-1))


# T14 and T14d

rho_0, C, decay, pull, spread = symbols("rho_0 C a q S", positive=True)
own, scale = Symbol("p", real=True), Symbol("epsilon", positive=True)
earlier, other = (MatrixSymbol(name, d, 1) for name in "ry")
rho = Function("rho", nonnegative=True)(t)
forced = rho_0 * exp(-pull * t) + C * (exp(-decay * t) - exp(-pull * t)) / (pull - decay)

ALONE = Step(
    SumIdentity(Sum(P[j], over(j)), Integer(1), SOFTMAX, NORMALISER),
    r"Attention averages. Token 1 has one key, itself, so $P_{11}=1$ for every head, whatever the scores.",
)
LINEAR = r"\dot x_1 = \sum_h V_h x_1"
CONVERGES = r"X(t)\to0 \text{ exponentially, from every start}"


def _decay(key: str) -> tuple[Step, ...]:
    """The induction over tokens; `key` names the hypothesis on the metric."""
    return (
        ALONE,
        Step(Argued(LINEAR, (1,)), r"The first token moves alone."),
        Step(
            along_flow(x_i.T * M * x_i / 2, x_i.T * M * V * m_i),
            r"Energy $E_i=\frac12x_i^\top Mx_i=\frac12\rho_i^2$, $\rho_i=\|x_i\|_M$; with several heads the right-hand sides add up.",
        ),
        Step(
            MatrixIdentity(
                x_i.T * M * V * m_i,
                own * x_i.T * sym(M * V) * x_i + x_i.T * M * V * earlier,
                where={m_i: own * x_i + earlier},
            ),
            r"A token sees itself with weight $p=P_{ii}$ and only earlier tokens besides: $m_i=p\,x_i+r$, $r=\sum_{j<i}P_{ij}x_j$.",
        ),
        Step(
            MatrixIdentity(
                (scale * x_i - other).T * M * (scale * x_i - other),
                scale**2 * x_i.T * M * x_i - 2 * scale * x_i.T * M * other + other.T * M * other,
            ),
            r"Cauchy–Schwarz in the metric: the left-hand side is never negative, and $\epsilon=\|y\|_M/\|x_i\|_M$ gives "
            r"$x_i^\top My\le\|x_i\|_M\|y\|_M$.",
        ),
        Step(
            Given(
                r"(MV_h)_s \preceq 0 \text{ for every } h,\quad \sum_h (MV_h)_s \preceq -\mu M \text{ for some } \mu>0",
                (key,),
            ),
            r"A negative definite form lies below a multiple of $-M$.",
        ),
        Step(
            Argued(
                r"\dot E_i \le -2\mu p_i E_i + \rho_i f_i,\quad p_i=\min_h P^h_{ii},\ f_i=\sum_h\sum_{j<i}P^h_{ij}\|V_hx_j\|_M",
                (3, 4, 5, 6),
                (key,),
            ),
            r"Self terms: $\sum_hP^h_{ii}\,x_i^\top(MV_h)_sx_i\le p_i\,x_i^\top\sum_h(MV_h)_sx_i$, since no form is positive. "
            r"The rest: step 5 with $y=V_hx_j$.",
        ),
        Step(
            Equality(Derivative(rho**2 / 2, t), rho * Derivative(rho, t)),
            r"So $D^+\rho_i\le-\mu p_i\rho_i+f_i$ (where $\rho_i=0$, through $\sqrt{\rho_i^2+\epsilon^2}$ with $\epsilon\to0$).",
        ),
        Step(
            Argued(r"\rho_1(t) \le e^{-\mu t}\rho_1(0)", (1, 7, 8)),
            r"Start of the induction: $p_1=1$ and $f_1=0$. Next, let all tokens $j<i$ decay: $f_i\le Ce^{-at}$.",
        ),
        Step(
            Equality(Derivative(C * (1 - exp(-decay * t)) / decay, t), C * exp(-decay * t)),
            r"This integral of the push stays below $C/a$.",
        ),
        Step(
            Cited(r"\rho_i(t) \le \rho_i(0) + C/a", "khalil_comparison"),
            r"As $-\mu p_i\rho_i\le0$: tokens $1,\dots,i$ stay bounded.",
        ),
        Step(
            SumIdentity(Sum(exp(spread) - exp(s[j]), over(j)), n * exp(spread) - Z, (), NORMALISER),
            r"Row $i$ has $i$ scores (here $n$), continuous functions of tokens $1,\dots,i$, so bounded by some $S$. No summand is "
            r"negative, so $Z_i\le i\,e^S$.",
        ),
        Step(
            Argued(r"p_i \ge e^{-2S}/i > 0", (11, 12)),
            r"$P_{ii}=e^{s_{ii}}/Z_i$. Nothing else is used of the scores.",
        ),
        Step(
            Equality(Derivative(forced, t), -pull * forced + C * exp(-decay * t)),
            r"The comparison equation with $q=\mu e^{-2S}/i$; make $a$ smaller if $a=q$.",
        ),
        Step(
            Cited(
                r"\rho_i(t) \le \rho_i(0)\,e^{-qt} + C\,\tfrac{e^{-at}-e^{-qt}}{q-a}",
                "khalil_comparison",
            ),
            r"From steps 8 and 13: token $i$ decays as well.",
        ),
        Step(Argued(CONVERGES, (9, 11, 13, 15), (key,)), r"By induction over the tokens."),
    )


WITH_METRIC = Instance.of(
    score=[[1, 2], [-3, -1]],
    value=[[-1, 4], [0, -2]],
    metric=[[1, 1], [1, 6]],
    tokens=[[1, 2], [0, -1], [3, 1]],
    setting=CAUSAL,
)
UNSTABLE = Instance.of(
    score=[[1, 0], [0, 1]],
    value=[[-1, 0], [0, 1]],
    metric=[[1, 0], [0, 1]],
    tokens=[[1, 2], [0, 1]],
    setting=CAUSAL,
)

T14 = Theorem(
    id="T14",
    kind="theorem",
    title="Causal mask: convergence",
    statement=r"Under a causal mask $X(t)\to0$ from every start if and only if $V$ is Hurwitz, that is if some $M=M^\top\succ0$ has "
    r"$MV+V^\top M\prec0$. Nothing is asked of $W$. Token 1 obeys $\dot x_1=Vx_1$, and "
    r"$\dot E_i\le P_{ii}\,x_i^\top MVx_i+\|x_i\|_M\sum_{j<i}P_{ij}\|Vx_j\|_M$ with $E_i=\frac12x_i^\top Mx_i$.",
    hypotheses=(LYAPUNOV_METRIC,),
    claims=METRIC_CLAIMS,
    steps=(
        *_decay(LYAPUNOV_METRIC.key),
        Step(
            Cited(r"\exists\,M=M^\top\succ0:\ MV+V^\top M\prec0 \iff V \text{ Hurwitz}", "khalil_linear"),
            r"Lyapunov's equation, so step 16 speaks of every Hurwitz $V$.",
        ),
        Step(
            Cited(r"e^{Vt}y\to0 \text{ for every } y \iff V \text{ Hurwitz}", "hale1980"),
            r"Linear systems: if $V$ is not Hurwitz, token 1 does not tend to 0 from some $x_1(0)$ (step 2).",
        ),
        Step(
            Argued(r"X(t)\to0 \text{ from every start} \iff V \text{ Hurwitz}", (2, 16, 17, 18)),
            r"Both directions together.",
        ),
    ),
    source="Stated here.",
    remark=r"Of the scores the proof uses only that row $i$ is a continuous function of tokens $1,\dots,i$, so it holds with finite biases, "
    r"rotary encodings, positions in the scores, and any mask below the diagonal that keeps the diagonal. With positions in the values 0 "
    r"is no equilibrium. Without the mask it is false (R1). Several heads: T14d. No time is claimed: where $W_s$ is indefinite a token may "
    r"hardly see itself, and wait very long.",
    concludes="X(t) → 0 from every start",
    formula=CONVERGES,
    examples=Examples(
        witness=WITH_METRIC,
        near_miss=UNSTABLE,
        missing=LYAPUNOV_METRIC.key,
        boundary=Instance.of(
            score=[[1, 2], [0, 1]],
            value=[[-1, 0], [0, -1]],
            metric=[[1, 0], [0, 2]],
            tokens=[[0, 0], [1, 2]],
            setting=CAUSAL,
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting()),
        Planted("the first token twice as fast", scale={unit: fmpq(2)}),
    ),
    setting=CAUSAL,
)

squared = Symbol("u", positive=True)

T14d = Theorem(
    id="T14d",
    kind="theorem",
    title="Causal heads: convergence",
    statement=r"Under a causal mask with several heads, $X(t)\to0$ from every start if one $M=M^\top\succ0$ has "
    r"$MV_h+V_h^\top M\preceq0$ for every head and $\prec0$ for the sum of the heads. Nothing is asked of the $W_h$.",
    hypotheses=(COMMON_METRIC,),
    claims=METRIC_CLAIMS,
    steps=(
        *_decay(COMMON_METRIC.key),
        Step(
            Equality(
                exp(squared) / (1 + exp(squared)) - 2 / (1 + exp(squared)),
                (exp(squared) - 2) / (1 + exp(squared)),
            ),
            r"A Hurwitz sum alone is not enough. Take $d=1$, $V_1=1$, $V_2=-2$, $W_1=1$, $W_2=-1$ and tokens $(0,x)$: token 1 stays, and with "
            r"$u=x^2$ the heads see token 2 with weights $\frac{e^u}{1+e^u}$ and $\frac1{1+e^u}$, so this is $\dot x/x$.",
        ),
        Step(
            Argued(r"x^2 > \log 2 \implies |x(t)|\to\infty, \text{ though } V_1+V_2 = -1", (1, 17)),
            r"It is positive for $e^u>2$ and grows with $u$.",
        ),
    ),
    source="Stated here.",
    remark=r"Sufficient only. Necessary is that $\sum_hV_h$ be Hurwitz (T14c), which is not enough. Scores: as in T14.",
    concludes="X(t) → 0 from every start",
    examples=Examples(
        witness=Instance.of(
            score=[[1, 2], [-3, -1]],
            value=[[-1, 1], [-1, 0]],
            W_2=[[0, 1], [1, -2]],
            V_2=[[0, -3], [3, -1]],
            metric=[[1, 0], [0, 1]],
            tokens=[[1, 2], [0, -1], [3, 1]],
            setting=TWO_HEADS,
        ),
        near_miss=Instance.of(
            score=[[1]],
            value=[[1]],
            W_2=[[-1]],
            V_2=[[-2]],
            metric=[[1]],
            tokens=[[0], [2]],
            setting=TWO_HEADS,
        ),
        missing=COMMON_METRIC.key,
        boundary=Instance.of(
            score=[[1]],
            value=[[0]],
            W_2=[[-1]],
            V_2=[[-2]],
            metric=[[1]],
            tokens=[[0], [2]],
            setting=TWO_HEADS,
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting(heads=2)),
        Planted("the first token twice as fast", scale={unit: fmpq(2)}),
    ),
    setting=TWO_HEADS,
)

# T14b

value, eigenvalue = symbols("v lambda")
zeta = Function("zeta")(t)
LIMIT = ImmutableMatrix([[value, 0, 0], [value / 2, value / 2, 0], [value / 3, value / 3, value / 3]])

T14b = Theorem(
    id="T14b",
    kind="theorem",
    title="Causal mask: rates",
    statement=r"Under a causal mask let $V$ be Hurwitz and $\alpha=\max\mathrm{Re}\,\lambda(V)<0$. Then "
    r"$\limsup_t\frac1t\log\|x_k(t)\|\le\alpha/k$ from every start, and $\lim_t\frac1t\log\|x_k(t)\|=\alpha/k$ from almost every start: "
    r"token $k$ decays $k$ times more slowly than the first. Nothing is asked of $W$.",
    hypotheses=(LYAPUNOV_METRIC,),
    claims=(
        Claim("the first rate", r"-\alpha > 0", MORE_THAN, lambda e: [(-abscissa, 0)]),
        Claim(
            "close to the linear limit",
            r"2\|V\|(1-e^{-\sigma_k})\max_{j\le k}\|x_j\| \ge \|\dot x_k - \tfrac1k V\sum_{j\le k} x_j\| \text{ (squared)}",
            AT_LEAST,
            _later(_linear_limit),
        ),
    ),
    steps=(
        Step(FromLemma("T14", CONVERGES), r"All tokens decay exponentially."),
        Step(
            SumIdentity(Sum(exp(spread) - exp(s[j]), over(j)), n * exp(spread) - Z, (), NORMALISER),
            r"Row $k$ has $k$ scores (here $n$). With $S=\max_{j\le k}s_{kj}$ no summand is negative, so $Z_k\le k\,e^S$ and "
            r"$P_{kj}\ge e^{-\sigma_k}/k$ with the spread $\sigma_k=\max_{j\le k}s_{kj}-\min_{j\le k}s_{kj}$.",
        ),
        Step(
            SumIdentity(Sum(P[j] - 1 / n, over(j)), Integer(0), SOFTMAX, NORMALISER),
            r"What some weights lack below $1/k$, together at most $1-e^{-\sigma_k}$, others have above it.",
        ),
        Step(
            Argued(
                r"\|\dot x_k - \tfrac1k V\sum_{j\le k} x_j\| \le 2\|V\|(1-e^{-\sigma_k})\max_{j\le k}\|x_j\|",
                (2, 3),
            ),
            r"$\sum_{j\le k}|P_{kj}-\frac1k|\le2(1-e^{-\sigma_k})$. With step 1, $\sigma_k\le2\|W\|\max_{j\le k}\|x_j\|^2\to0$ exponentially.",
        ),
        Step(
            Equality(
                Determinant(LIMIT - eigenvalue * ImmutableMatrix.eye(3)),
                (value - eigenvalue) * (value / 2 - eigenvalue) * (value / 3 - eigenvalue),
                kind=FIXED,
            ),
            r"The limit $\dot x_k=\frac1kV\sum_{j\le k}x_j$ is block triangular, here for three tokens with an eigenvalue $v$ in place of "
            r"$V$: its eigenvalues are those of $V$ divided by $k$.",
        ),
        Step(
            Cited(
                r"\|e^{Vt/k}\| \le C_\delta\, e^{(\alpha/k+\delta)t} \text{ for every } \delta > 0",
                "hale1980",
            ),
            r"Linear systems.",
        ),
        Step(
            Argued(r"\limsup_t \tfrac1t\log\|x_k(t)\| \le \alpha/k \text{ from every start}", (1, 4, 6)),
            r"Induction over $k$: $\dot x_k=\frac1kVx_k+(P_{kk}-\frac1k)Vx_k+g$, where $g=V\sum_{j<k}P_{kj}x_j$ decays faster, like "
            r"$e^{(\alpha/(k-1)+\delta)t}$, and $|P_{kk}-\frac1k|$ is integrable: variation of constants and Grönwall.",
        ),
        Step(
            Equality(
                Derivative(exp(-eigenvalue * t / k) * zeta, t),
                exp(-eigenvalue * t / k) * (Derivative(zeta, t) - eigenvalue * zeta / k),
            ),
            r"Amplitude: $\zeta=\ell^\top x_k$ for a left eigenvector $\ell^\top V=\lambda\ell^\top$ with $\mathrm{Re}\,\lambda=\alpha$.",
        ),
        Step(
            Argued(
                r"e^{-\lambda t/k}\,\ell^\top x_k(t) \to c_k,\quad c_k \neq 0 \implies \lim_t\tfrac1t\log\|x_k(t)\| = \alpha/k",
                (4, 7, 8),
            ),
            r"$\dot\zeta-\frac\lambda k\zeta$ consists of $\ell^\top g$ and the remainder of step 4; both decay faster than $e^{\alpha t/k}$, so "
            r"the derivative is integrable. And $\|\ell\|\,\|x_k\|\ge|\zeta|$.",
        ),
        Step(
            Argued(
                r"c_k \text{ is a real-analytic function of the start, not identically } 0", (1, 4, 5, 6, 9)
            ),
            r"The flow is real-analytic. T14's decay is uniform near every start; and the linear limit is Hurwitz for complex tokens "
            r"too, so the limits are uniform in a complex neighbourhood. With $x_j(0)=0$ for $j<k$ earlier tokens stay at 0, and "
            r"$c_k=\ell^\top x_k(0)\exp(\lambda\int_0^\infty(P_{kk}-\frac1k)\,dt)\neq0$ where $\ell^\top x_k(0)\neq0$.",
        ),
        Step(
            Cited(r"c_k \neq 0 \text{ for almost every start}", "mityagin2020"),
            r"Zeros of a real-analytic function that is not identically 0.",
        ),
        Step(
            Argued(
                r"\lim_t\tfrac1t\log\|x_k(t)\| = \alpha/k \text{ from almost every start}",
                (7, 9, 11),
                (LYAPUNOV_METRIC.key,),
            ),
            r"$V$ is Hurwitz by Lyapunov's theorem.",
        ),
    ),
    source="Stated here.",
    remark=r"For plain scores: a bias or an encoding changes the weights at $X=0$, and with them the rates. Equal tokens are an exception: "
    r"they all decay at the first rate. How long the asymptotics take is not claimed.",
    concludes="token k decays at the rate |max Re λ(V)|/k from almost every start",
    examples=Examples(
        witness=WITH_METRIC,
        near_miss=UNSTABLE,
        missing=LYAPUNOV_METRIC.key,
        boundary=Instance.of(
            score=[[1, 2], [0, 1]],
            value=[[-1, 0], [0, -1]],
            metric=[[1, 0], [0, 2]],
            tokens=[[1, 2], [1, 2]],
            setting=CAUSAL,
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting()),
        Planted("1/k replaced by 2/k", scale={unit: fmpq(2)}),
    ),
    setting=CAUSAL,
)

# T14c

T14c = Theorem(
    id="T14c",
    kind="theorem",
    title="Causal heads: the first token diverges",
    statement=r"Under a causal mask with several heads the first token obeys $\dot x_1=\sum_hV_hx_1$, whatever the scores and the other "
    r"tokens. If $\alpha=\max\mathrm{Re}\,\lambda(\sum_hV_h)>0$, it tends to infinity from almost every start, at least like $e^{\alpha t}$.",
    hypotheses=(SUM_UNSTABLE,),
    claims=(
        FIRST_TOKEN,
        Claim("the sum is unstable", r"\alpha > 0", MORE_THAN, lambda e: [(abscissa, 0)]),
    ),
    steps=(
        ALONE,
        Step(Argued(LINEAR, (1,)), r"The first token moves alone."),
        Step(
            Given(
                r"\ell^\top\sum_hV_h = \lambda\,\ell^\top,\ \ell\neq0,\ \mathrm{Re}\,\lambda = \alpha > 0",
                (SUM_UNSTABLE.key,),
            ),
            r"A left eigenvector, complex if $\lambda$ is.",
        ),
        Step(
            Equality(
                Derivative(exp(-eigenvalue * t) * zeta, t),
                exp(-eigenvalue * t) * (Derivative(zeta, t) - eigenvalue * zeta),
            ),
            r"With $\zeta=\ell^\top x_1$ this is 0, so $\ell^\top x_1(t)=e^{\lambda t}\,\ell^\top x_1(0)$.",
        ),
        Step(
            Argued(
                r"\|x_1(t)\| \ge e^{\alpha t}\,|\ell^\top x_1(0)|/\|\ell\| \to \infty \text{ from almost every start}",
                (2, 3, 4),
            ),
            r"$\ell^\top x_1(0)=0$ only on a proper subspace, which has measure 0.",
        ),
    ),
    source="Stated here.",
    remark=r"It speaks of the first token only. The converse is false: a Hurwitz sum does not make the others converge (T14d).",
    concludes="the first token diverges from almost every start (V = Σ_h V_h)",
    examples=Examples(
        witness=Instance.of(
            score=[[1, 2], [-3, -1]],
            value=[[-1, 1], [-1, 0]],
            W_2=[[0, 1], [1, -2]],
            V_2=[[0, -3], [3, 2]],
            tokens=[[1, 2], [0, -1], [3, 1]],
            setting=TWO_HEADS,
        ),
        near_miss=Instance.of(
            score=[[1]], value=[[1]], W_2=[[-1]], V_2=[[-2]], tokens=[[1], [2]], setting=TWO_HEADS
        ),
        missing=SUM_UNSTABLE.key,
        boundary=Instance.of(
            score=[[1]], value=[[3]], W_2=[[-1]], V_2=[[-2]], tokens=[[0], [2]], setting=TWO_HEADS
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting(heads=2)),
        Planted("the first token twice as fast", scale={unit: fmpq(2)}),
    ),
    setting=TWO_HEADS,
)

# T14e

ratio = Symbol("r", positive=True)
E, F, G = exp(squared), exp(squared * ratio), exp(squared * ratio**2)
second_mean, third_mean = E / (1 + E), (F + ratio * G) / (1 + F + G)
numerator = F + ratio * G - E - (1 - ratio) * E * G
NEARLY_EQUAL = {squared: Integer(1), ratio: Rational(9, 10)}
product = ((ratio - 1) * (third_mean - second_mean)).subs(NEARLY_EQUAL)
CLOSE_TOKENS = Instance.of(score=[[1]], value=[[1]], tokens=[[0], [1], [Fraction(9, 10)]], setting=CAUSAL)

T14e = Theorem(
    id="T14e",
    kind="counterexample",
    title="Causal mask: distances need not be monotone",
    statement=r"T1 fails under a causal mask. In one dimension, for any $V\ne0$ and $W>0$, tokens $(0,x_2,x_3)$ with $Wx_2^2\le1$ and "
    r"$\frac9{10}\le x_3/x_2<1$ have $(x_3-x_2)A(\dot x_3-\dot x_2)<0$: for $A>0$ their distance shrinks, for $A<0$ it grows.",
    hypotheses=(CLOSE_PAIR,),
    claims=(
        Claim(
            "the distance moves the wrong way", r"-(x_3-x_2)A(\dot x_3-\dot x_2) > 0", MORE_THAN, _wrong_way
        ),
        Claim(
            "difference of the means",
            r"Z_2Z_3(m_3-m_2) = x_2e^{s_{32}} + x_3e^{s_{33}} - x_2e^{s_{22}} - (x_2-x_3)e^{s_{22}+s_{33}}",
            EQUAL,
            _means,
        ),
    ),
    steps=(
        Step(
            Equality((third_mean - second_mean) * (1 + E) * (1 + F + G), numerator, kind=FIXED),
            r"With $u=Wx_2^2$ and $r=x_3/x_2$ the means are $m_2=\frac{e^u}{1+e^u}x_2$ and $m_3=\frac{e^{ur}+re^{ur^2}}{1+e^{ur}+e^{ur^2}}x_2$: "
            r"token 3 sees one more token far out than token 2 does. As $r\to1$ this tends to $e^u>0$.",
        ),
        Step(
            Certified(Rational(19, 10), exp(Rational(19, 100)) + exp(Rational(119, 100)) / 10),
            r"For $\frac9{10}\le r<1$ and $0<u\le1$ the numerator is at least $e^{\frac{9u}{10}}+\frac9{10}e^{\frac{81u}{100}}-e^u-\frac1{10}e^{2u}$; "
            r"divided by $e^{\frac{81u}{100}}$ that is at least $1+\frac9{10}-e^{\frac{19}{100}}-\frac1{10}e^{\frac{119}{100}}$.",
        ),
        Step(
            Argued(r"(x_3-x_2)\,A\,(\dot x_3-\dot x_2) = W(x_3-x_2)(m_3-m_2) < 0", (1, 2)),
            r"$A\dot x_i=Wm_i$; $m_3-m_2$ has the sign of $x_2$, and $x_3-x_2$ has the other.",
        ),
        Step(
            Certified(-Rational(27, 5000), product),
            r"At $W=A=V=1$ and tokens $(0,1,\frac9{10})$ this is $(x_3-x_2)(\dot x_3-\dot x_2)$.",
        ),
        Step(Certified(product, -Rational(11, 2000)), r"It is about $-0.0054$."),
        Step(
            Satisfies(
                r"W = A = V = 1 \text{ meets the hypotheses of T1}",
                lambda: [hypothesis.decide(CLOSE_TOKENS) for hypothesis in T1.hypotheses],
            ),
            r"So only the mask is to blame: rows of different length share no potential (L3).",
        ),
    ),
    source="Stated here.",
    remark=r"It refutes T1 under the mask, not T14: for $V<0$ these tokens still tend to 0.",
    concludes="",
    examples=Examples(
        witness=CLOSE_TOKENS,
        near_miss=Instance.of(score=[[1]], value=[[1]], tokens=[[0], [1], [Fraction(1, 2)]], setting=CAUSAL),
        missing=CLOSE_PAIR.key,
        boundary=Instance.of(
            score=[[Fraction(1, 4)]], value=[[-1]], tokens=[[0], [-2], [Fraction(-19, 10)]], setting=CAUSAL
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting()),
        Planted("twice the difference", scale={unit: fmpq(2)}),
    ),
    setting=CAUSAL,
)

# T14f

ROW_BOUND = row_of_attention(FREE_ENERGY).replace(r"\kappa_n", r"\kappa_i")

T14f = Theorem(
    id="T14f",
    kind="theorem",
    title="Causal mask: each token, with a rate",
    statement=r"Under a causal mask, if $A=A^\top$ is definite of sign $\sigma$ and $W_s\succ0$, then $E_i=\frac12x_i^\top(\sigma A)x_i$ obeys "
    r"$\sigma\dot E_i\ge2\lambda E_i-\kappa_i$ with T4's $\lambda$ and $\kappa_i=W_0((i-1)/e)\le\log i$ for token $i$. For $A\succ0$ token $i$ "
    r"diverges at least like $e^{\lambda t}$ once $E_i$ exceeds $\kappa_i/(2\lambda)$; the first token always does, unless it is 0.",
    hypotheses=(A_SYMMETRIC, A_DEFINITE, W_POSITIVE),
    claims=(
        *PENCIL_CLAIMS,
        Claim(
            "energy inequality",
            r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_i",
            AT_LEAST,
            for_tokens(
                lambda e, i: (token_energy_rate(e, i), 2 * lam * sigma * token_energy(e, i) - _kappa(i))
            ),
        ),
    ),
    steps=(
        Step(
            along_flow(x_i.T * A * x_i / 2, x_i.T * W * m_i),
            r"Energy of one token; since $\sigma^2=1$, $\sigma\dot E_i$ is this derivative.",
        ),
        Step(
            FromLemma("L4", RESPONSE),
            r"The right-hand side is the attended score $e_i$, which needs no mask.",
        ),
        Step(
            FromLemma(
                "L2",
                ROW_BOUND,
                lambda formula: row_of_attention(formula).replace(r"\kappa_n", r"\kappa_i"),
            ),
            r"L2 for row $i$, a softmax of $i$ scores: its constant is that of $i$ scores.",
        ),
        Step(
            MatrixIdentity(x_i.T * W * x_i, x_i.T * sym(W) * x_i),
            r"The largest score is at least the self score, which every token sees.",
        ),
        *PENCIL_STEPS,
        Step(Argued(r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_i", (1, 2, 3, 4, 6)), r"Put together."),
        Step(
            Equality(
                Derivative(comparison, t),
                2 * pencil_rate * comparison - Symbol("kappa", nonnegative=True),
            ),
            r"The comparison solution from $E_0$ with $\kappa=\kappa_i$, for $\sigma=1$; for $\sigma=-1$ replace $t$ by $-t$.",
        ),
        Step(
            Cited(
                r"\sigma\left(E_i(t) - \left[\tfrac{\kappa_i}{2\lambda} + \left(E_i(0)-\tfrac{\kappa_i}{2\lambda}\right)e^{2\sigma\lambda t}\right]\right) \ge 0",
                "khalil_comparison",
            ),
            r"Comparison lemma. $\kappa_1=0$, so the first token's threshold is 0.",
        ),
    ),
    source="Stated here, with the sharp constant of L2.",
    remark=r"Nothing is claimed of a token that starts below its threshold when $A\succ0$.",
    concludes="a threshold on each token's energy, 0 for the first",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]],
            response=[[2, 1], [1, 1]],
            tokens=[[3, 2], [0, -1], [3, 1]],
            setting=CAUSAL,
        ),
        near_miss=Instance.of(
            score=[[1, 0], [0, -1]], response=[[1, 0], [0, 1]], tokens=[[1, 2], [2, 1]], setting=CAUSAL
        ),
        missing="W positive",
        boundary=Instance.of(
            score=[[1, 0], [0, 1]], response=[[-1, 0], [0, -1]], tokens=[[2, 1], [1, 1]], setting=CAUSAL
        ),
    ),
    wrong=(
        Planted("without the causal mask", setting=Setting()),
        Planted("κ_i replaced by κ_i/2", scale={unit: fmpq(1, 2)}),
        Planted("λ replaced by 3λ/2", scale={lam: fmpq(3, 2)}),
    ),
    setting=CAUSAL,
)
