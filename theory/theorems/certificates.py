"""T11, T11b, T11c, T13, T13b: a metric that certifies growth, or boundedness, of the largest token."""

from collections.abc import Callable
from itertools import accumulate

from flint import fmpq, fmpq_mat
from sympy import (
    Basic,
    Derivative,
    ImmutableDenseMatrix,
    IndexedBase,
    Matrix,
    MatrixSymbol,
    Max,
    Q,
    Sum,
    Symbol,
    cos,
    exp,
    eye,
    sin,
    true,
)

from theory.certificate import block, semidefinite
from theory.definiteness import positive_definite
from theory.derivation import (
    FIXED,
    Argued,
    Cited,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Step,
    SumIdentity,
    along_flow,
)
from theory.hypotheses import A_POSITIVE, A_SYMMETRIC, Hypothesis
from theory.instance import Instance
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import A, M, P, V, W, a, b, d, eta, j, kappa, m_i, nu, sym, t, u, w, x, x_i, x_j
from theory.quantities import for_tokens, quadratic, symmetric
from theory.sums import Definition
from theory.system import ExplicitSystem, Setting
from theory.theorem import AT_LEAST, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.convergence import row_of_attention
from theory.theorems.encodings import ORTHOGONAL
from theory.theorems.thresholds import FREE_ENERGY_OF_ROW
from theory.verdict import Grade, Verdict, every, exactly, fails, undecided
from theory.weights import identity, symmetric_part

ROTARY = Setting(rotary=True)

# Hypotheses on the chosen metric M, multiplier ν and margin η, each decided on its own

Decide = Callable[[Instance, fmpq_mat, fmpq, fmpq], Verdict]


def _chosen(instance: Instance) -> fmpq_mat | None:
    return instance.parameters.get("metric")


def _response(instance: Instance) -> fmpq_mat | None:
    return symmetric_part(instance.response) if instance.has_response else None


def _on_choice(
    key: str,
    formula: str,
    decide: Decide,
    assumption: Basic = true,
    metric: Callable[[Instance], fmpq_mat | None] = _chosen,
) -> Hypothesis:
    """`decide` gets the metric, ν and η too; weights with a scale of their own are left open."""

    def guarded(instance: Instance) -> Verdict:
        form, nu, eta = metric(instance), instance.number("multiplier"), instance.number("margin")
        if form is None or nu is None or eta is None or instance.weights.scale_squared != 1:
            return undecided("M, ν and η are not given, or W is not given itself")
        return decide(instance, form, nu, eta)

    return Hypothesis(key, formula, "choice", guarded, assumption)


def _with_turns(decide: Decide) -> Decide:
    """UNDECIDED without Q, K, R and the tokens, whose number is the length n of the context."""

    def guarded(instance: Instance, *choice) -> Verdict:
        if not {"query", "key", "rotation"} <= set(instance.parameters) or instance.tokens is None:
            return undecided("Q, K, R, or the number of tokens, are not given")
        return decide(instance, *choice)

    return guarded


def _powers(instance: Instance) -> list[fmpq_mat]:
    """R^r, r = 1 … n−1."""
    turn, count = instance.parameters["rotation"], instance.tokens.nrows() - 1  # type: ignore[union-attr]
    return list(accumulate([turn] * count, lambda power, turn: power * turn))


def _metric_positive(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    if metric != metric.transpose():
        return fails(Grade.EXACT, "M differs from its transpose")
    return positive_definite(metric)


def _score_margin(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    return semidefinite(symmetric_part(instance.form - metric * (nu + eta)))


def _margin_positive(instance: Instance) -> Verdict:
    eta = instance.number("margin")
    if eta is None:
        return undecided("η is not given")
    return exactly(eta > 0, f"η = {eta}")


def _semidefinite_block(top: fmpq_mat, corner: fmpq_mat, bottom: fmpq_mat) -> Verdict:
    return semidefinite(symmetric_part(block(top, corner, bottom)))


def _joint_block(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    corner = (metric * instance.value - instance.form) * fmpq(1, 2)
    return _semidefinite_block(
        symmetric_part(instance.form) - metric * (eta + nu / 2), corner, metric * (nu / 2)
    )


def _response_block(sign: int) -> Decide:
    return lambda instance, metric, nu, eta: _semidefinite_block(
        metric * nu, metric * instance.value - instance.form * sign, metric * nu
    )


@_with_turns
def _response_blocks(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    """At the offsets ±1 … ±(n−1), with R^{−r} read as (R^r)ᵀ."""
    query, key, response = instance.parameters["query"], instance.parameters["key"], metric * instance.value
    turns = [turn for power in _powers(instance) for turn in (power, power.transpose())]
    bound = metric * nu
    return every(
        _semidefinite_block(bound, response - query.transpose() * turn * key, bound) for turn in turns
    )


@_with_turns
def _turned_queries(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    query, turn = instance.parameters["query"], instance.parameters["rotation"]
    change = turn - identity(turn.nrows())
    moved = [
        any([*row, *column]) for row, column in zip(change.tolist(), change.transpose().tolist(), strict=True)
    ]
    rows = fmpq_mat(
        [row if turns else [fmpq(0)] * len(row) for row, turns in zip(query.tolist(), moved, strict=True)]
    )
    return semidefinite(metric * nu - rows.transpose() * rows)


@_with_turns
def _turned_keys(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    key = instance.parameters["key"]
    changes = [power * key - key for power in _powers(instance)]
    return every(semidefinite(metric * nu - change.transpose() * change) for change in changes)


def _self_term(instance: Instance, metric: fmpq_mat, nu: fmpq, eta: fmpq) -> Verdict:
    return semidefinite(symmetric_part(metric * instance.value - instance.form + metric * nu))


BLOCK = r"\begin{pmatrix} \nu M & N \\ N^\top & \nu M \end{pmatrix} \succeq 0"
METRIC_POSITIVE = _on_choice("M positive", r"M = M^\top \succ 0", _metric_positive, Q.symmetric(M))
SCORE_MARGIN = _on_choice("score margin", r"W_s \succeq (\nu+\eta)M", _score_margin)
RESPONSE_BLOCK = _on_choice("response block", rf"{BLOCK},\ N = MV - W", _response_block(1))
OPPOSITE_BLOCK = _on_choice("opposite response block", rf"{BLOCK},\ N = MV + W", _response_block(-1))
JOINT_BLOCK = _on_choice(
    "joint block",
    r"\begin{pmatrix} W_s-(\eta+\frac\nu2)M & \frac12(MV-W) \\ \frac12(MV-W)^\top & \frac\nu2M \end{pmatrix} \succeq 0",
    _joint_block,
)
RESPONSE_BLOCKS = _on_choice(
    "response blocks",
    rf"{BLOCK},\ N = MV - Q^\top R^rK,\ r = \pm1,\dots,\pm(n-1)",
    _response_blocks,
)
SELF_TERM = _on_choice("self term", r"(MV - W)_s \succeq -\nu M", _self_term)
MARGIN_POSITIVE = Hypothesis("margin positive", r"\eta > 0", "choice", _margin_positive)
TURNED_QUERIES = _on_choice("turned queries", r"Q^\top\Pi Q \preceq \nu A", _turned_queries, metric=_response)
TURNED_KEYS = _on_choice(
    "turned keys",
    r"K^\top(R^r-I)^\top(R^r-I)K \preceq \nu A,\ 0<r<n",
    _turned_keys,
    metric=_response,
)
RESPONSE_MARGIN = _on_choice("response margin", r"W_s \succeq (\nu+\eta)A", _score_margin, metric=_response)

# Claims

Metric = Callable[[ExplicitSystem], Matrix]


def _energy(metric: Metric, e: ExplicitSystem, i: int):
    """E_i = ½ x_iᵀMx_i."""
    return quadratic(metric(e), e.token(i)) / 2


def _energy_rate(metric: Metric, e: ExplicitSystem, i: int):
    return quadratic(symmetric(metric(e)), e.token(i), e.velocity(i))


def _claims(sign: int, metric: Metric, M: str) -> tuple[Claim, ...]:
    """What all four share, of ±V and E_i = ½ x_iᵀMx_i; `M` is the metric's name."""

    def pairs(e: ExplicitSystem) -> Sides:
        energies = [_energy(metric, e, i) for i in range(e.n)]
        return [
            (
                sign * quadratic(metric(e) * e.V, e.token(i), e.token(k)),
                e.s[i, k] - nu * (energies[i] + energies[k]),
            )
            for i in range(e.n)
            for k in range(e.n)
        ]

    def rates(e: ExplicitSystem) -> Sides:
        energies = [_energy(metric, e, i) for i in range(e.n)]
        return [
            (sign * _energy_rate(metric, e, i), (nu + 2 * eta) * energies[i] - nu * Max(*energies) - kappa)
            for i in range(e.n)
        ]

    return (
        Claim(
            "energy is non-negative",
            rf"E_i = \tfrac12x_i^\top {M}x_i \ge 0",
            AT_LEAST,
            for_tokens(lambda e, i: (_energy(metric, e, i), 0)),
        ),
        Claim("the rate is positive", r"\eta > 0", MORE_THAN, lambda e: [(eta, 0)]),
        Claim("each pair", _pair_text(sign, M), AT_LEAST, pairs),
        Claim("energy inequality", _energy_text(sign), AT_LEAST, rates),
    )


def _mark(sign: int) -> str:
    return "" if sign == 1 else "-"


def _pair_text(sign: int, M: str = "M") -> str:
    return rf"{_mark(sign)}x_i^\top {M}Vx_j \ge s_{{ij}} - \nu(E_i+E_j)"


def _energy_text(sign: int) -> str:
    return rf"{_mark(sign)}\dot E_i \ge (\nu+2\eta)E_i - \nu\max_jE_j - \kappa_n"


# Derivations

N, W_r = MatrixSymbol("N", *W.shape), MatrixSymbol("W_r", *W.shape)
y, q = IndexedBase("y", real=True), IndexedBase("q", real=True)
own, largest, start = Symbol("E_i", real=True), Symbol("E_*", real=True), Symbol("E_0", real=True)
OF_KEYS = (Definition(q, lambda index: Sum(y[a] * w[a, b] * x[index, b], over(a, d), over(b, d))),)
CURVE = r"\frac{\kappa_n}{2\eta} + \left(E(0)-\frac{\kappa_n}{2\eta}\right)e^{%s2\eta t}"
ABOVE = rf"E(t) \ge {CURVE % ''},\quad E = \max_iE_i"
BELOW = rf"E(t) \le {CURVE % '-'},\quad E = \max_iE_i"


def _rate_steps(metric: MatrixSymbol) -> tuple[Step, ...]:
    """Steps 1 and 2: the energy's rate, as an average over keys."""
    return (
        Step(
            along_flow(x_i.T * metric * x_i / 2, x_i.T * metric * V * m_i),
            rf"Energy of one token, as ${metric}={metric}^\top$.",
        ),
        Step(
            SumIdentity(
                Sum(y[a] * w[a, b] * Sum(P[j] * x[j, b], over(j)), over(a, d), over(b, d)),
                Sum(P[j] * q[j], over(j)),
                OF_KEYS,
            ),
            rf"In coordinates, with $y=x_i$ and $w={metric}V$: the rate is the attended mean of $q_j=x_i^\top {metric}Vx_j$.",
        ),
    )


def _block_step(sign: int) -> Step:
    return Step(
        MatrixIdentity(
            nu * x_i.T * M * x_i + sign * (x_i.T * N * x_j + x_j.T * N.T * x_i) + nu * x_j.T * M * x_j,
            2 * nu * (x_i.T * M * x_i / 2 + x_j.T * M * x_j / 2) + 2 * sign * x_i.T * N * x_j,
        ),
        rf"The quadratic form of the block at $(x_i,{_mark(sign)}x_j)$.",
    )


def _split_step(sign: int, form: MatrixSymbol, why: str) -> Step:
    return Step(
        MatrixIdentity(
            sign * x_i.T * M * V * x_j,
            x_i.T * form * x_j + sign * x_i.T * N * x_j,
            where={N: M * V - sign * form},
        ),
        why,
    )


def _steps(
    metric: MatrixSymbol, sign: int, pair_steps: tuple[Step, ...], nu_from: Step, margin: str, positive: str
) -> tuple[Step, ...]:
    """The derivation; `pair_steps` end with the bound on each pair, and name what hypotheses they need.

    `nu_from` says why ν ≥ 0; `margin` and `positive` are the keys of the score margin and of the metric.
    """
    bound = 2 + len(pair_steps)  # the step that bounds each pair
    return (
        *_rate_steps(metric),
        *pair_steps,
        nu_from,
        Step(
            SumIdentity(Sum(P[j] * nu * (own + largest), over(j)), nu * (own + largest), SOFTMAX, NORMALISER),
            r"Averaged over the keys, with $E_j\le E_*$, the largest energy.",
        ),
        Step(
            FromLemma("L2", FREE_ENERGY_OF_ROW, row_of_attention),
            r"The attended score is close to the largest.",
        ),
        Step(
            MatrixIdentity(x_i.T * W * x_i, x_i.T * sym(W) * x_i),
            r"The largest score is at least the self score.",
        ),
        Step(
            Given(
                rf"s_{{ii}} = x_i^\top W_sx_i \ge (\nu+\eta)x_i^\top {metric}x_i = 2(\nu+\eta)E_i", (margin,)
            ),
            r"The margin of the self score.",
        ),
        Step(
            Equality(
                2 * (nu + eta) * own - kappa - nu * (own + largest),
                (nu + 2 * eta) * own - nu * largest - kappa,
            ),
            r"Lower bound on the attended score, less the average of the pairs' bounds.",
        ),
        *_growth_steps(sign, (1, 2, *range(bound, bound + 7)), positive),
    )


def _growth_steps(sign: int, uses: tuple[int, ...], positive: str) -> tuple[Step, ...]:
    """From the bound on each token's rate, which steps `uses` give, to the largest energy over time."""
    curve = kappa / (2 * eta) + (start - kappa / (2 * eta)) * exp(2 * sign * eta * t)
    return (
        Step(
            Argued(_energy_text(sign), uses),
            r"Put together, for every token.",
        ),
        Step(
            Equality(((nu + 2 * eta) * own - nu * largest).subs(own, largest), 2 * eta * largest),
            r"At a largest token.",
        ),
        Step(
            Cited(rf"{_mark(sign)}\dot E \ge 2\eta E - \kappa_n,\quad E = \max_iE_i", "danskin1966"),
            r"The right derivative of a maximum is the largest rate among the maximisers.",
        ),
        Step(
            Given(
                r"\eta > 0,\quad E \text{ is the square of a norm of the largest token}",
                ("margin positive", positive),
            ),
            r"So the threshold $\kappa_n/(2\eta)$ exists, and large $E$ means large tokens.",
        ),
        Step(
            Equality(Derivative(curve, t), sign * (2 * eta * curve - kappa)),
            r"The comparison solution from $E_0=E(0)$.",
        ),
        Step(
            Cited(ABOVE if sign == 1 else BELOW, "khalil_comparison"),
            r"Comparison lemma.",
        ),
    )


def _plain_steps(sign: int, key: str) -> tuple[Step, ...]:
    relation = "MV - W" if sign == 1 else "MV + W"
    pairs = (
        _split_step(sign, W, rf"$N={relation}$, and $s_{{ij}}=x_i^\top Wx_j$."),
        _block_step(sign),
        Step(
            Argued(_pair_text(sign), (3, 4), (key,)),
            r"The block's form is non-negative; this is half of it.",
        ),
    )
    return _steps(
        M,
        sign,
        pairs,
        Step(Given(r"\nu \ge 0", ("M positive", key)), r"The block has $\nu M$ on its diagonal."),
        "score margin",
        "M positive",
    )


def _scaled(*extra: Planted) -> tuple[Planted, ...]:
    return (
        Planted("κ_n replaced by κ_n/2", scale={kappa: fmpq(1, 2)}),
        Planted("ν replaced by ν/2", scale={nu: fmpq(1, 2)}),
        Planted("η replaced by 3η/2", scale={eta: fmpq(3, 2)}),
        *extra,
    )


# T11 and T11b


def _plain(sign: int, tokens: list[list[int]], **changes) -> Instance:
    """d = 1, n = 1: M = ν = 1, η = 1/2, W = 3/2 and N = −ν, so that everything is attained."""
    half = fmpq(1, 2)
    weights = {
        "score": [[3 * half]],
        "value": [[sign * half]],
        "metric": [[1]],
        "multiplier": 1,
        "margin": half,
    }
    return Instance.of(tokens=tokens, **weights | changes)


T11 = Theorem(
    id="T11",
    kind="theorem",
    title="Certificate of divergence",
    statement=r"Let $M=M^\top\succ0$, $\nu$ and $\eta>0$ be such that $W_s\succeq(\nu+\eta)M$ and the block of $\nu M$ and $N=MV-W$ is "
    r"positive semidefinite. Then $E_i=\frac12x_i^\top Mx_i$ obeys $\dot E_i\ge(\nu+2\eta)E_i-\nu\max_jE_j-\kappa_n$, so the largest "
    r"energy obeys $\dot E\ge2\eta E-\kappa_n$: once above $\kappa_n/(2\eta)$ it diverges at least like $e^{2\eta t}$.",
    hypotheses=(METRIC_POSITIVE, SCORE_MARGIN, RESPONSE_BLOCK, MARGIN_POSITIVE),
    claims=_claims(1, lambda e: e.M, "M"),
    steps=_plain_steps(1, "response block"),
    source="Stated here.",
    remark=r"No symmetry of $A$ or $W$ is needed. $\nu\ge0$ follows, and so does $(MV)_s\succeq\eta M$: every eigenvalue of $V$ has "
    r"real part at least $\eta$. Nothing is claimed of a token that is not a largest one, nor below the threshold. Sufficient only; "
    r"T11c asks for less.",
    concludes="max E ≥ κ_n/(2η) + (max E(0) − κ_n/(2η)) e^{2ηt}: divergence above the threshold",
    formula=_energy_text(1),
    examples=Examples(
        witness=Instance.of(
            score=[[4, 1], [-1, 2]],
            value=[[2, fmpq(1, 2)], [-1, fmpq(3, 2)]],
            metric=[[2, 0], [0, 1]],
            multiplier=1,
            margin=fmpq(1, 2),
            tokens=[[1, 2], [0, -1], [3, 1]],
        ),
        near_miss=_plain(1, [[1]], score=[[1]], value=[[-1]], multiplier=2, margin=1),
        missing="score margin",
        boundary=_plain(1, [[1]]),
    ),
    wrong=_scaled(),
)

T11b = Theorem(
    id="T11b",
    kind="theorem",
    title="Certificate of boundedness",
    statement=r"As T11 with $N=MV+W$: then $-\dot E_i\ge(\nu+2\eta)E_i-\nu\max_jE_j-\kappa_n$, so the largest energy obeys "
    r"$\dot E\le-2\eta E+\kappa_n$ and $\limsup_t\max_iE_i\le\kappa_n/(2\eta)$, from every start.",
    hypotheses=(METRIC_POSITIVE, SCORE_MARGIN, OPPOSITE_BLOCK, MARGIN_POSITIVE),
    claims=_claims(-1, lambda e: e.M, "M"),
    steps=_plain_steps(-1, "opposite response block"),
    source="Stated here.",
    remark=r"Here $(MV)_s\preceq-\eta M$ follows, so $V$ is Hurwitz. Convergence to 0 is not claimed.",
    concludes="limsup max E ≤ κ_n/(2η), from every start",
    formula=_energy_text(-1),
    examples=Examples(
        witness=Instance.of(
            score=[[4, 1], [-1, 2]],
            value=[[-2, fmpq(-1, 2)], [1, fmpq(-3, 2)]],
            metric=[[2, 0], [0, 1]],
            multiplier=1,
            margin=fmpq(1, 2),
            tokens=[[1, 2], [0, -1], [3, 1]],
        ),
        near_miss=_plain(-1, [[1]], score=[[1]], value=[[1]], multiplier=2, margin=1),
        missing="score margin",
        boundary=_plain(-1, [[1]]),
    ),
    wrong=_scaled(),
)


# T11c


def _joint_pairs(e: ExplicitSystem) -> Sides:
    energies = [quadratic(e.M, e.token(i)) / 2 for i in range(e.n)]
    return [
        (
            quadratic(e.M * e.V, e.token(i), e.token(k)),
            e.s[i, k] - e.s[i, i] + (nu + 2 * eta) * energies[i] - nu * energies[k],
        )
        for i in range(e.n)
        for k in range(e.n)
    ]


JOINT_PAIR = r"x_i^\top MVx_j \ge s_{ij} - s_{ii} + (\nu+2\eta)E_i - \nu E_j"

T11c = Theorem(
    id="T11c",
    kind="theorem",
    title="Pair certificate",
    statement=r"T11 holds with one joint condition in place of its two: let $M=M^\top\succ0$, $\nu$ and $\eta>0$ make the block of "
    r"$W_s-(\eta+\frac\nu2)M$, $\frac12(MV-W)$ and $\frac\nu2M$ positive semidefinite. Then $E_i=\frac12x_i^\top Mx_i$ obeys "
    r"$\dot E_i\ge(\nu+2\eta)E_i-\nu\max_jE_j-\kappa_n$, and the largest energy diverges at least like $e^{2\eta t}$ once above "
    r"$\kappa_n/(2\eta)$.",
    hypotheses=(METRIC_POSITIVE, JOINT_BLOCK, MARGIN_POSITIVE),
    claims=tuple(
        Claim("each pair", JOINT_PAIR, AT_LEAST, _joint_pairs) if claim.name == "each pair" else claim
        for claim in T11.claims
    ),
    steps=(
        *_rate_steps(M),
        Step(
            MatrixIdentity(
                x_i.T * (sym(W) - (eta + nu / 2) * M) * x_i
                + (x_i.T * (M * V - W) * x_j + x_j.T * (M * V - W).T * x_i) / 2
                + nu * x_j.T * M * x_j / 2,
                x_i.T * M * V * x_j
                - x_i.T * W * x_j
                + x_i.T * W * x_i
                - (nu + 2 * eta) * x_i.T * M * x_i / 2
                + nu * x_j.T * M * x_j / 2,
            ),
            r"The quadratic form of the joint block at $(x_i,x_j)$.",
        ),
        Step(
            Argued(JOINT_PAIR, (3,), ("joint block",)),
            r"It is non-negative, and $s_{ij}=x_i^\top Wx_j$.",
        ),
        Step(
            Given(r"\nu \ge 0", ("M positive", "joint block")),
            r"The block has $\frac\nu2M$ on its diagonal.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * ((nu + 2 * eta) * own - nu * largest), over(j)),
                (nu + 2 * eta) * own - nu * largest,
                SOFTMAX,
                NORMALISER,
            ),
            r"Averaged over the keys, with $E_j\le E_*$, the largest energy.",
        ),
        Step(
            FromLemma("L2", FREE_ENERGY_OF_ROW, row_of_attention),
            r"The attended score is at most $\kappa_n$ below the self score $s_{ii}$, one of the scores.",
        ),
        *_growth_steps(1, (1, 2, 4, 5, 6, 7), "M positive"),
    ),
    source="Stated here; what `tokendyn certify` proves of a layer with one head and without rotary encoding.",
    remark=r"It contains T11, whose block and margin imply the joint block, and T4's threshold for the largest token ($M=A$, $\nu=0$). "
    r"$(M,-V)$ in place of $(M,V)$ certifies boundedness, as T11b does.",
    concludes="max E ≥ κ_n/(2η) + (max E(0) − κ_n/(2η)) e^{2ηt}: divergence above the threshold",
    formula=_energy_text(1),
    examples=Examples(
        witness=Instance.of(
            score=[[2]],
            value=[[3]],
            metric=[[1]],
            multiplier=fmpq(1, 2),
            margin=fmpq(1, 2),
            tokens=[[1], [-2]],
        ),
        near_miss=_plain(1, [[1]], score=[[1]], value=[[-1]], multiplier=2, margin=1),
        missing="joint block",
        boundary=_plain(1, [[1]]),
    ),
    wrong=_scaled(),
)


# T13

BY_OFFSET = (
    r"s_{ij} = x_i^\top Q^\top(R^i)^\top R^jKx_j = x_i^\top W_{j-i}x_j,\quad W_r = Q^\top R^rK,\ W_0 = W"
)

_offset_steps = (
    Step(
        Given(BY_OFFSET, ("R orthogonal",)),
        r"$(R^i)^\top R^j=R^{j-i}$: scores depend on the offset $r=j-i$ only.",
    ),
    _split_step(1, W_r, r"$N=N_r=MV-W_r$ for $j\neq i$, and $N=N_0=MV-W$, $W_r=W$ for $j=i$."),
    _block_step(1),
    Step(
        MatrixIdentity(x_i.T * N * x_i, x_i.T * sym(N) * x_i),
        r"For $j=i$ the symmetric part is all that counts.",
    ),
    Step(
        Argued(_pair_text(1), (3, 4, 5, 6), ("response blocks", "self term")),
        r"For $j\neq i$ half of the block's form; for $j=i$, $x_i^\top N_0x_i\ge-\nu x_i^\top Mx_i=-2\nu E_i$.",
    ),
)

phi = Symbol("phi", real=True)
re_a, im_a, re_w, im_w = (Symbol(name, real=True) for name in ("a_1", "a_2", "w_1", "w_2"))


def _distance(angle):
    """|a − e^{i·angle}w|²."""
    cosine, sine = cos(angle), sin(angle)
    return (re_a - cosine * re_w + sine * im_w) ** 2 + (im_a - cosine * im_w - sine * re_w) ** 2


_no_margin_steps = (
    Step(
        Equality(
            _distance(phi) + _distance(-phi),
            2 * (re_a - cos(phi) * re_w) ** 2
            + 2 * (im_a - cos(phi) * im_w) ** 2
            + 2 * sin(phi) ** 2 * (re_w**2 + im_w**2),
        ),
        r"If $R^rK\zeta=e^{i\varphi}K\zeta$, $\zeta^*M\zeta=1$, then $\zeta^*N_{\pm r}\zeta=a-e^{\pm i\varphi}w$ with "
        r"$a=\zeta^*MV\zeta=a_1+ia_2$, $w=\zeta^*W\zeta=w_1+iw_2$.",
    ),
    Step(
        Argued(
            r"\cos\varphi > 0 \text{ for every eigenvalue } e^{i\varphi} \text{ of } R^r,\ |r|<n,\ \text{if } K \text{ is square}",
            (21,),
            ("self term", "score margin", "response blocks", "margin positive"),
        ),
        r"Here $w_1\ge\nu+\eta$ and $a_1\ge w_1-\nu>0$. If $\cos\varphi\le0$ the right-hand side is at least "
        r"$2(\cos^2\varphi+\sin^2\varphi)w_1^2>2\nu^2$, but the blocks bound the left-hand side by $2\nu^2$.",
    ),
)

SMALL_TURN = [[fmpq(63, 65), fmpq(-16, 65)], [fmpq(16, 65), fmpq(63, 65)]]  # about 14°

T13 = Theorem(
    id="T13",
    kind="theorem",
    title="Rotary encoding: certificate",
    setting=ROTARY,
    statement=r"With rotated queries and keys, $s_{ij}=x_i^\top W_{j-i}x_j$, $W_r=Q^\top R^rK$, $W=W_0$, let $M\succ0$, $\nu$, $\eta>0$ obey "
    r"$W_s\succeq(\nu+\eta)M$, $(MV-W)_s\succeq-\nu M$, and the block of T11 with $N_r=MV-W_r$ for every $r=\pm1,\dots,\pm(n-1)$. Then "
    r"T11's inequality and threshold hold for up to $n$ tokens. With $N_r=MV+W_r$ and $(MV+W)_s\preceq\nu M$ instead, T11b's hold.",
    hypotheses=(ORTHOGONAL, METRIC_POSITIVE, SCORE_MARGIN, SELF_TERM, RESPONSE_BLOCKS, MARGIN_POSITIVE),
    claims=_claims(1, lambda e: e.M, "M"),
    steps=(
        *_steps(
            M,
            1,
            _offset_steps,
            Step(
                Given(r"\nu \ge 0 \text{ for } n \ge 2", ("M positive", "response blocks")),
                r"A block has $\nu M$ on its diagonal; for $n=1$ the next step has $E_*=E_i$ and needs no sign.",
            ),
            "score margin",
            "M positive",
        ),
        Step(
            Argued(
                r"-\dot E_i \ge (\nu+2\eta)E_i - \nu\max_jE_j - \kappa_n \text{ if } N_r = MV + W_r", (14,)
            ),
            r"For $-V$: the same attention, the opposite velocity, and blocks with $-N_r$, which are semidefinite if those with $N_r$ are.",
        ),
        *_no_margin_steps,
    ),
    source="Stated here.",
    remark=r"$W_{-r}\neq W_r^\top$ in general, so both signs of $r$ are needed. The length $n$ of the context is that of the instance. "
    r"With square $Q$ and $K$ no certificate exists once some $R^r$, $r<n$, turns a plane by 90° or more (last step).",
    concludes="rotary encoding, up to n tokens: divergence above κ_n/(2η)",
    formula=_energy_text(1),
    examples=Examples(
        witness=Instance.of(
            query=[[4, -1], [1, 4]],
            key=[[1, 0], [0, 1]],
            value=[[4, 1], [-1, 4]],
            rotation=SMALL_TURN,
            metric=[[1, 0], [0, 1]],
            multiplier=fmpq(9, 4),
            margin=1,
            tokens=[[1, 2], [0, -1], [1, 1]],
            setting=ROTARY,
        ),
        near_miss=Instance.of(
            query=[[4]],
            key=[[1]],
            value=[[2]],
            rotation=[[fmpq(1, 2)]],
            metric=[[1]],
            multiplier=2,
            margin=2,
            tokens=[[0], [1]],
            setting=ROTARY,
        ),
        missing="R orthogonal",
        boundary=Instance.of(
            query=[[fmpq(3, 2)]],
            key=[[1]],
            value=[[fmpq(1, 2)]],
            rotation=[[-1]],
            metric=[[1]],
            multiplier=1,
            margin=fmpq(1, 2),
            tokens=[[1]],
            setting=ROTARY,
        ),
    ),
    wrong=_scaled(),
)


# T13b: the metric A

z, D = MatrixSymbol("z", *x_i.shape), MatrixSymbol("D", *W.shape)
k = Symbol("k", real=True)
TURN = ImmutableDenseMatrix([[cos(phi), -sin(phi)], [sin(phi), cos(phi)]])

_turn_steps = (
    Step(
        Given(BY_OFFSET, ("R orthogonal",)),
        r"$(R^i)^\top R^j=R^{j-i}$: scores depend on the offset $r=j-i$ only.",
    ),
    Step(
        Argued(r"s_{ij} - x_i^\top Wx_j = (\Pi Qx_i)^\top(R^{j-i}-I)Kx_j", (3,)),
        r"The rows of $R^r-I$ outside $\Pi$ vanish.",
    ),
    Step(
        MatrixIdentity(u.T * z, u.T * u / 2 + z.T * z / 2 - (u - z).T * (u - z) / 2),
        r"With $u=\Pi Qx_i$ and $z=(R^{j-i}-I)Kx_j$; the last term is not positive.",
    ),
    Step(
        Given(r"|u|^2 \le 2\nu E_i,\quad |z|^2 \le 2\nu E_j", ("turned queries", "turned keys")),
        r"$|(R^{-r}-I)Kx_j|=|(I-R^r)Kx_j|$, so positive $r$ are enough.",
    ),
    Step(MatrixIdentity(x_i.T * A * V * x_j, x_i.T * W * x_j, where={W: A * V}), r"$W=AV$."),
    Step(Argued(_pair_text(1, "A"), (4, 5, 6, 7)), r"Put together."),
)

_margin_steps = (
    Step(
        MatrixIdentity(A * V - (W_r + D), W - W_r, where={V: A.I * (W + D)}),
        r"A constant $D$ in the scores of every offset, with $AV=W+D$: $\nu$ is what it was.",
    ),
    Step(
        Cited(
            r"\lambda_{\min}(\hat W_s+\hat D_s) \ge \lambda_{\min}(\hat W_s)+\lambda_{\min}(\hat D_s)",
            "horn2012",
        ),
        r"Rayleigh quotients of a sum, with $\hat W=A^{-1/2}WA^{-1/2}$: the largest $\nu+\eta$ grows by $\lambda_{\min}(\hat D_s)$ or more.",
    ),
    Step(
        MatrixIdentity((1 + k) * A * V - (W_r + k * W), W - W_r, where={V: A.I * W}),
        r"$D=kW$ with $V$ tied to $W$, $AV=W$: the metric $(1+k)A$ has the same $N_r$.",
    ),
    Step(
        Argued(r"\delta < (1+k)\lambda_{\min}(\hat W_s) \text{ suffices}", (23,)),
        r"For $k>-1$, $\delta=\max_r\|\hat W_r-\hat W\|$: T13's blocks hold with $\nu=\delta/(1+k)$ in this metric, "
        r"while $(1+k)W_s\succeq(\nu+\eta)(1+k)A$ is unchanged.",
    ),
    Step(
        Equality((TURN - eye(2)).T * (TURN - eye(2)), 4 * sin(phi / 2) ** 2 * eye(2), kind=FIXED),
        r"A pair of coordinates turned by $\varphi=r\theta_f$.",
    ),
    Step(
        Argued(
            r"\delta \le \max_{r,f}2|\sin(r\theta_f/2)|\;\|\Pi QA^{-1/2}\|\,\|\Pi KA^{-1/2}\|",
            (4, 25),
        ),
        r"If $R$ turns pairs of coordinates by angles $\theta_f$; at most twice the product of the two norms.",
    ),
)

T13b = Theorem(
    id="T13b",
    kind="theorem",
    title="Rotary encoding: the margin that partial rotation leaves",
    setting=ROTARY,
    statement=r"Let $AV=W=Q^\top K$, $A=A^\top\succ0$, and let $\Pi$ select the coordinates that $R$ does not fix. If $Q^\top\Pi Q\preceq\nu A$, "
    r"$K^\top(R^r-I)^\top(R^r-I)K\preceq\nu A$ for $0<r<n$, and $W_s\succeq(\nu+\eta)A$ with $\eta>0$, then T13 holds with $M=A$: only the "
    r"turned rows of $Q$ and $K$ use up margin. A constant $D$ added to the scores of all offsets, with $AV=W+D$, leaves $\nu$ alone "
    r"and adds at least $\lambda_{\min}(A^{-1/2}D_sA^{-1/2})$ to $\eta$.",
    hypotheses=(
        A_SYMMETRIC,
        A_POSITIVE,
        ORTHOGONAL,
        TURNED_QUERIES,
        TURNED_KEYS,
        RESPONSE_MARGIN,
        MARGIN_POSITIVE,
    ),
    claims=_claims(1, lambda e: e.A, "A"),
    steps=(
        *_steps(
            A,
            1,
            _turn_steps,
            Step(
                Given(r"\nu \ge 0", ("A positive", "turned queries")), r"$0\preceq Q^\top\Pi Q\preceq\nu A$."
            ),
            "response margin",
            "A positive",
        ),
        *_margin_steps,
    ),
    source="Stated here.",
    remark=r"$D$ is no case of its own: it is $D=Q_0^\top K_0$ for rows $Q_0$, $K_0$ appended to $Q$ and $K$ that $R$ leaves alone (the derivation "
    r"is for any number of rows; instances have square $Q$, $K$). Without such rows, "
    r"that is with square $Q$ and $K$, the hypotheses exclude turns of 90° or more (T13's last step). If $V$ stays tied to $W$, "
    r"$AV=W$, then $D=kW$ with $k>-1$ relaxes $\delta<\lambda$ to $\delta<(1+k)\lambda$, $\lambda=\lambda_{\min}(A^{-1/2}W_sA^{-1/2})$ and "
    r"$\delta=\max_r\|A^{-1/2}(W_r-W)A^{-1/2}\|$; of any other $D$ nothing is claimed.",
    concludes="rotary encoding, up to n tokens: divergence above κ_n/(2η)",
    formula=_energy_text(1),
    examples=Examples(
        witness=Instance.of(
            query=[[fmpq(4, 3), fmpq(-1, 3), 0], [fmpq(1, 3), fmpq(4, 3), 0], [0, fmpq(1, 3), 2]],
            key=[[3, 0, 0], [0, 3, 0], [0, 0, 3]],
            response=[[1, 0, 0], [0, 1, 0], [0, 0, fmpq(3, 2)]],
            rotation=[[*SMALL_TURN[0], 0], [*SMALL_TURN[1], 0], [0, 0, 1]],
            multiplier=fmpq(9, 4),
            margin=1,
            tokens=[[1, 2, 0], [0, -1, 1], [1, 1, 1]],
            setting=ROTARY,
        ),
        near_miss=Instance.of(
            query=[[1]],
            key=[[4]],
            response=[[1]],
            rotation=[[-1]],
            multiplier=1,
            margin=3,
            tokens=[[1], [-1]],
            setting=ROTARY,
        ),
        missing="turned keys",
        boundary=Instance.of(
            query=[[1]],
            key=[[1]],
            response=[[1]],
            rotation=[[1]],
            multiplier=0,
            margin=1,
            tokens=[[2]],
            setting=ROTARY,
        ),
    ),
    wrong=_scaled(),
)
