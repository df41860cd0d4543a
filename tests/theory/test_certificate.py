"""The exact proof of certificates: known ones hold, every corrupted one is refused, constants are sharp."""

from fractions import Fraction
from math import e, log

import numpy as np
import pytest
from flint import arb, arb_mat, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theory.certificate import (
    Certificate,
    bounds,
    check,
    free_energy_constant,
    semidefinite,
    smallest_eigenvalue,
)
from theory.errors import InputError
from theory.layer import Head, Layer, rotary_turns
from theory.proposals import approximate
from theory.verdict import Grade, Status
from theory.weights import Weights, rational_matrix

SMALL = st.integers(-3, 3)
FRACTIONS = st.fractions(-2, 2, max_denominator=8)
EYE = [[1, 0], [0, 1]]
TURN = (fmpq(63, 65), fmpq(16, 65))  # an exact rotation by about 14°


def _matrix(draw, size: int, entries=SMALL) -> fmpq_mat:
    return rational_matrix("m", [[draw(entries) for _ in range(size)] for _ in range(size)])


@st.composite
def metrics(draw, size: int) -> fmpq_mat:
    """I + LLᵀ, so its eigenvalues are at least 1."""
    root = _matrix(draw, size, st.integers(-1, 1))
    return root * root.transpose() + rational_matrix("m", np.eye(size))


@st.composite
def certified(draw, kinds=("divergence", "boundedness")):
    """A layer built around its certificate: W = kM + skew, σMV = W + N, and k large enough for N.

    With W_s = kM the block is ⪰ 0 iff (k − η − μ)M ⪰ NM⁻¹Nᵀ/(4μ); as M ⪰ I, ‖N‖_F² ≤ 4μ(k − η − μ) does.
    """
    size, kind = draw(st.integers(1, 3)), draw(st.sampled_from(kinds))
    metric, turn, N = draw(metrics(size)), _matrix(draw, size), _matrix(draw, size, FRACTIONS)
    rate, energy = (draw(st.fractions(Fraction(1, 8), 2, max_denominator=8)) for _ in range(2))
    rate, energy = (fmpq(x.numerator, x.denominator) for x in (rate, energy))
    norm = sum((entry**2 for entry in N.entries()), fmpq(0))
    score = metric * (rate + energy + norm / (4 * energy)) + turn - turn.transpose()
    value = metric.inv() * (score + N) * (1 if kind == "divergence" else -1)
    layer = Layer.of(score, value, draw(st.integers(1, 5)), causal=draw(st.booleans()))
    return Certificate.single(kind, metric, rate, {0: (1, energy)}), layer


def margin(certificate: Certificate, layer: Layer) -> float:
    """An independent oracle for one head without encoding: the smallest of the eigenvalues that must be ≥ 0.

    By the Schur complement instead of the block, so that it shares no formula with the code.
    """
    W, V = (approximate(m) for m in (layer.heads[0].weights.form, layer.heads[0].weights.value))
    M, ((c, mu),) = approximate(certificate.metric), certificate.multipliers[0].values()
    c, mu, eta = (float(Fraction(int(x.p), int(x.q))) for x in (c, mu, certificate.rate))
    sign = 1 if certificate.kind == "divergence" else -1
    least = np.linalg.eigvalsh(M).min()
    if least <= 0 or mu <= 0 or c < 0 or eta <= 0:
        return -1.0 if min(least, mu, c, eta) < 0 else 0.0
    N = sign * M @ V - c * W
    schur = c * (W + W.T) / 2 - (eta + mu) * M - N @ np.linalg.solve(M, N.T) / (4 * mu)
    return float(min(np.linalg.eigvalsh(schur).min(), least))


@given(certified())
@settings(max_examples=30)
def test_a_certificate_built_to_hold_is_proved_exactly(case):
    verdict = check(*case)
    assert verdict.holds, verdict.reason
    assert verdict.grade is Grade.EXACT


@given(certified(), st.data())
@settings(max_examples=60)
def test_a_perturbed_certificate_is_judged_as_floats_judge_it_away_from_the_boundary(case, data):
    """Perturbations of every number, some harmless, some not: the oracle decides wherever it is clear."""
    certificate, layer = case
    size = layer.dim
    step = _matrix(data.draw, size, FRACTIONS)
    metric = certificate.metric + (step + step.transpose()) * data.draw(st.sampled_from([0, fmpq(1, 4), 1]))
    (c, mu), shift = certificate.multipliers[0][0], fmpq(1, 8)
    c, mu, rate = (x + shift * data.draw(SMALL) for x in (c, mu, certificate.rate))
    noise = _matrix(data.draw, size, FRACTIONS) * data.draw(st.sampled_from([0, fmpq(1, 4), 1]))
    weights = layer.heads[0].weights
    layer = Layer.of(weights.form + noise, weights.value - noise, layer.n)
    certificate = Certificate.single(certificate.kind, metric, rate, {0: (c, mu)})
    expected = margin(certificate, layer)
    assume(abs(expected) > 1e-6)
    assert check(certificate, layer).status is (Status.HOLDS if expected > 0 else Status.FAILS)


def _beyond(matrix: fmpq_mat, amount: fmpq) -> fmpq_mat:
    """The symmetric matrix pushed out of the definite cone: its (1,1) entry made negative."""
    moved = matrix.tolist()
    moved[0][0] = -amount
    return fmpq_mat(moved)


CORRUPTIONS = {
    "the other kind": lambda c, layer, x: (
        Certificate(
            {"divergence": "boundedness", "boundedness": "divergence"}[c.kind],
            c.metric,
            c.rate,
            c.shares,
            c.multipliers,
        ),
        layer,
    ),
    "M not positive": lambda c, layer, x: (_with(c, metric=_beyond(c.metric, x)), layer),
    "M negated": lambda c, layer, x: (_with(c, metric=-c.metric), layer),
    "η beyond the trace of V": lambda c, layer, x: (_with(c, rate=_trace(layer, c) + x), layer),
    "η not positive": lambda c, layer, x: (_with(c, rate=fmpq(0)), layer),
    "μ beyond W": lambda c, layer, x: (_with(c, energy=_largest_energy(c, layer) + x), layer),
    "μ = 0 though N ≠ 0": lambda c, layer, x: (_with(c, energy=fmpq(0)), _moved(layer, c, x)),
    "μ negative": lambda c, layer, x: (_with(c, energy=-x), layer),
    "c negative": lambda c, layer, x: (_with(c, score=-x), layer),
    "c = 0": lambda c, layer, x: (_with(c, score=fmpq(0)), layer),
    "W negated": lambda c, layer, x: (c, _weights(layer, -1, 1)),
    "V negated": lambda c, layer, x: (c, _weights(layer, 1, -1)),
    "V = 0": lambda c, layer, x: (c, _weights(layer, 1, 0)),
    "W = 0": lambda c, layer, x: (c, _weights(layer, 0, 1)),
}


def _with(c: Certificate, **changes) -> Certificate:
    score, energy = c.multipliers[0][0]
    return Certificate.single(
        c.kind,
        changes.get("metric", c.metric),
        changes.get("rate", c.rate),
        {0: (changes.get("score", score), changes.get("energy", energy))},
    )


def _weights(layer: Layer, of_score: int, of_value: int) -> Layer:
    weights = layer.heads[0].weights
    return Layer.of(weights.form * of_score, weights.value * of_value, layer.n)


def _moved(layer: Layer, c: Certificate, x: fmpq) -> Layer:
    """σMV = W + x·I, so that N = xI does not vanish."""
    score = layer.heads[0].weights.form
    sign = 1 if c.kind == "divergence" else -1
    one = rational_matrix("m", np.eye(layer.dim))
    return Layer.of(score, c.metric.inv() * (score + one * x) * sign, layer.n)


def _trace(layer: Layer, c: Certificate) -> fmpq:
    """η ≤ min Re λ(σV) ≤ |tr V|/d, necessarily."""
    return abs(sum((layer.value[i, i] for i in range(layer.dim)), fmpq(0))) / layer.dim


def _largest_energy(c: Certificate, layer: Layer) -> fmpq:
    """μM ⪯ cW_s fails in the direction e_1 beyond this."""
    return c.multipliers[0][0][0] * layer.heads[0].weights.form[0, 0] / c.metric[0, 0]


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@given(certified(), st.fractions(Fraction(1, 10**9), 5))
@settings(max_examples=25)
def test_every_corrupted_certificate_is_refused(corruption, case, amount):
    certificate, layer = CORRUPTIONS[corruption](*case, fmpq(amount.numerator, amount.denominator))
    verdict = check(certificate, layer)
    assert verdict.fails, corruption
    assert verdict.grade is Grade.EXACT


@given(certified(), st.fractions(Fraction(1, 1000), 1))
@settings(max_examples=40)
def test_an_asymmetric_metric_is_refused(case, amount):
    certificate, layer = case
    assume(layer.dim > 1)
    rows = certificate.metric.tolist()
    rows[0][1] += fmpq(amount.numerator, amount.denominator)
    verdict = check(_with(certificate, metric=fmpq_mat(rows)), layer)
    assert verdict.fails
    assert "symmetric" in verdict.reason


def test_the_rate_is_decided_to_the_last_bit():
    """d = 1, W = V = M = 1, μ = 0: the condition is 1 − η ≥ 0, for the exact η."""
    layer, tiny = Layer.of([[1]], [[1]], 3), fmpq(1, 2**300)
    for rate, status in ((fmpq(1), Status.HOLDS), (1 + tiny, Status.FAILS), (1 - tiny, Status.HOLDS)):
        assert check(Certificate.single("divergence", [[1]], rate, {0: (1, 0)}), layer).status is status


# What the general condition contains


def test_t4_is_the_case_without_energy_multiplier():
    """A = Aᵀ ≻ 0, M = A, c = 1, μ = 0: the block is W_s − ηA, singular beside zeros, and decided exactly."""
    W, A = rational_matrix("W", [[2, 1], [-1, 1]]), rational_matrix("A", [[2, 1], [1, 1]])
    layer = Layer((Head(Weights.from_response(W, A)),), 3)
    # det(W_s − λA) = (2 − 2λ)(1 − λ) − λ² = λ² − 4λ + 2 has the smallest root 2 − √2 ≈ 0.5858
    assert check(Certificate.single("divergence", A, Fraction(58, 100), {0: (1, 0)}), layer).holds
    assert check(Certificate.single("divergence", A, Fraction(59, 100), {0: (1, 0)}), layer).fails


def test_t15_is_the_case_of_several_heads_without_energy_multipliers():
    """A V_h = c_h W_h, S_h = c_h W_{h,s}: one head alone is only semidefinite, the sum is definite."""
    A, W_1, W_2 = (rational_matrix("m", m) for m in ([[2, 1], [1, 1]], [[1, 3], [-3, 0]], [[0, -1], [1, 1]]))
    scores, c = (W_1, W_2), (fmpq(1), fmpq(2))
    heads = tuple(Head(Weights.of(W, A.inv() * W * c_h)) for W, c_h in zip(scores, c, strict=True))
    shares = (rational_matrix("S", [[1, 0], [0, 0]]), rational_matrix("S", [[0, 0], [0, 2]]))
    multipliers = tuple({0: (c_h, fmpq(0))} for c_h in c)
    layer = Layer(heads, 4)
    found = Certificate("divergence", A, fmpq(1, 4), shares, multipliers)
    assert check(found, layer).holds
    kappa = float(free_energy_constant(arb(3)).mid())
    assert float(bounds(found, layer).constant.mid()) == pytest.approx(3 * kappa)
    assert check(Certificate("divergence", A, fmpq(1), shares, multipliers), layer).fails


def test_symmetric_scores_have_a_multiple_of_w_as_metric():
    """W = Wᵀ ≻ 0 and A_s ≻ 0 (T5): M = mW, μ = 1/(2m) works for small m, whatever A_a."""
    W, A = rational_matrix("W", [[2, 1], [1, 3]]), rational_matrix("A", [[1, 50], [-50, 2]])
    layer = Layer((Head(Weights.from_response(W, A)),), 6)
    m, eta = fmpq(1, 2), fmpq(1, 10_000)
    assert check(Certificate.single("divergence", W * m, eta, {0: (1, 1 / (2 * m))}), layer).holds


@pytest.mark.parametrize(("b", "status"), [(Fraction(9, 10), Status.HOLDS), (Fraction(11, 10), Status.FAILS)])
def test_rotations_are_certified_up_to_the_boundary_of_c1(b, status):
    """W = 1 + ia, A = 1 + ib as 2×2 matrices: M = I, μ = 1/2 is best, and holds iff ab < 1. Here a = 1."""
    W, A = [[1, -1], [1, 1]], [[1, -b], [b, 1]]
    layer = Layer((Head(Weights.from_response(W, A)),), 5)
    assert (
        check(Certificate.single("divergence", EYE, Fraction(1, 100), {0: (1, 0.5)}), layer).status is status
    )


@given(st.data())
@settings(max_examples=40)
def test_the_plain_condition_implies_the_sharp_one(data):
    """Whenever W_s ⪰ (ν+η)M and [[νM, N], [Nᵀ, νM]] ⪰ 0 hold, so does `check` with c = 1, μ = ν/2."""
    size = data.draw(st.integers(1, 3))
    metric, N = data.draw(metrics(size)), _matrix(data.draw, size, FRACTIONS)
    nu, eta = (fmpq(data.draw(st.integers(1, 6)), 2) for _ in range(2))
    turn = _matrix(data.draw, size)
    score = metric * (nu + eta) + turn - turn.transpose()
    rows = [
        [*a, *b]
        for left, right in ((metric * nu, N), (N.transpose(), metric * nu))
        for a, b in zip(left.tolist(), right.tolist(), strict=True)
    ]
    assume(semidefinite(fmpq_mat(rows)).holds)
    layer = Layer.of(score, metric.inv() * (score + N), 4)
    assert check(Certificate.plain("divergence", metric, nu, eta), layer).holds


# Encodings, heads, masks


def _rotary(n: int, turns=(TURN,), value=EYE) -> Layer:
    return Layer((Head.rotary(EYE, EYE, value, turns, n, scale=1),), n)


def test_a_rotary_head_of_exact_angles_is_proved_exactly_and_of_balls_by_intervals():
    """N_r = I − R_r: ‖N_r‖ = 2 sin(rθ/2) ≈ 0.248 r, so ν = 1/2 covers |r| ≤ 2 and not r = 3 … 8."""
    plain = Certificate.plain("divergence", EYE, Fraction(1, 2), Fraction(1, 4), [-2, -1, 1, 2])
    exact, balls = _rotary(3), _rotary(3, [arb(16, 0) / 65])
    assert (check(plain, exact).status, check(plain, exact).grade) == (Status.HOLDS, Grade.EXACT)
    assert (check(plain, balls).status, check(plain, balls).grade) == (Status.HOLDS, Grade.INTERVAL)
    longer = Certificate.plain(
        "divergence", EYE, Fraction(1, 2), Fraction(1, 4), [r for r in range(-9, 10) if r]
    )
    verdict = check(longer, _rotary(10))
    assert verdict.fails
    assert "offset -9" in verdict.reason
    assert check(longer, _rotary(10, [arb(16, 0) / 65])).fails


@pytest.mark.parametrize(("value", "status"), [(1, Status.HOLDS), (Fraction(1, 10), Status.FAILS)])
def test_the_self_term_of_a_rotary_head_is_required(value, status):
    """d = 1, W_0 = 10, W_{±1} = 1: the blocks have room, but equal tokens grow like e^{Vt}, and V < η."""
    one = rational_matrix("W", [[1]])
    layer = Layer((Head(Weights.of([[10]], [[value]]), {-1: one, 1: one}),), 2)
    verdict = check(Certificate.single("divergence", [[1]], 0.5, {-1: (1, 1), 1: (1, 1)}), layer)
    assert verdict.status is status
    assert verdict.holds or "self term" in verdict.reason


def test_a_causal_mask_needs_only_the_offsets_it_shows():
    forms = {-1: rational_matrix("W", EYE), 1: -rational_matrix("W", EYE) * 50}
    head, certificate = Head(Weights.of(EYE, EYE), forms), {-1: (1, Fraction(1, 4)), 1: (1, Fraction(1, 4))}
    found = Certificate.single("divergence", EYE, Fraction(1, 4), certificate)
    assert check(found, Layer((head,), 2)).fails
    assert check(found, Layer((head,), 2, causal=True)).holds


@pytest.mark.parametrize("layout", ["interleaved", "half-split"])
@pytest.mark.parametrize("exact", [True, False])
def test_rotary_forms_are_the_turned_products(layout, exact):
    rng = np.random.default_rng(0)
    Q, K = rng.normal(size=(2, 5, 3))
    angle = np.arctan2(16, 63)
    turns = [TURN, TURN] if exact else [(arb(63) / 65).acos()] * 2
    head = Head.rotary(Q, K, np.eye(3), turns, 4, layout=layout)
    pairs = [(0, 1), (2, 3)] if layout == "interleaved" else [(0, 2), (1, 3)]
    for offset in (-3, -1, 2):
        R = np.eye(5)  # the last coordinate does not turn
        for i, j in pairs:
            R[np.ix_((i, j), (i, j))] = [
                [np.cos(offset * angle), -np.sin(offset * angle)],
                [np.sin(offset * angle), np.cos(offset * angle)],
            ]
        form = head.turned[offset]
        found = approximate(form) if exact else np.array([[float(x.mid()) for x in r] for r in form.tolist()])
        assert found == pytest.approx(Q.T @ R @ K, abs=1e-12)
        assert isinstance(form, fmpq_mat if exact else arb_mat)


def test_rotary_angles_follow_the_base():
    assert [float(t.mid()) for t in rotary_turns(6, 1000)] == pytest.approx(
        [1, 1000 ** (-1 / 3), 1000 ** (-2 / 3)]
    )


# Constants


@given(st.lists(st.tuples(st.floats(-6, 6), st.floats(-4, 4)), min_size=1, max_size=6))
@settings(max_examples=200)
def test_the_free_energy_constant_bounds_what_it_should(others):
    """Gap t_j = s_i − s_j and bias b_j − b_i of the other tokens, in floats; rounding is below 1e-12."""
    gaps, biases = np.array(others).T
    weights = np.exp(biases - gaps)
    lost = (weights * np.maximum(gaps, 0)).sum() / (1 + weights.sum())
    assert lost <= float(free_energy_constant(arb(float(np.exp(biases).sum()))).mid()) + 1e-12


@pytest.mark.parametrize("excess", [0.1, 1.0, 9.0, 1e6])
def test_the_free_energy_constant_is_attained(excess):
    kappa = float(free_energy_constant(arb(excess)).mid())
    weight = excess * np.exp(-(1 + kappa))
    assert weight * (1 + kappa) / (1 + weight) == pytest.approx(kappa, rel=1e-12)
    assert kappa <= log(1 + excess)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_the_excess_of_a_bias_is_the_largest_row_sum(n, causal):
    slope, position = Fraction(1, 3), np.arange(n)
    by_slope = Layer.of(EYE, EYE, n, causal=causal, slope=slope)
    matrix = [[-slope * abs(int(i) - int(j)) for j in position] for i in position]
    by_matrix = Layer.of(EYE, EYE, n, causal=causal, bias=matrix)
    weights = np.exp(-np.abs(position[:, None] - position) / 3) * (1 - np.eye(n))
    expected = (np.tril(weights) if causal else weights).sum(1).max()
    for layer in (by_slope, by_matrix):
        assert float(layer.excess(layer.heads[0]).mid()) == pytest.approx(expected, abs=1e-12)
    unbiased = Layer.of(EYE, EYE, n, causal=causal)
    assert float(unbiased.excess(unbiased.heads[0]).mid()) == n - 1


@pytest.mark.parametrize("causal", [True, False])
def test_an_alibi_slope_bounds_contexts_of_any_length(causal):
    any_length = Layer.of(EYE, EYE, None, causal=causal, slope=0.5)
    excess = float(any_length.excess(any_length.heads[0]).mid())
    assert excess == pytest.approx((1 if causal else 2) / (e**0.5 - 1))
    long = Layer.of(EYE, EYE, 200, causal=causal, slope=0.5)
    assert float(long.excess(long.heads[0]).mid()) == pytest.approx(excess)


def test_a_bias_counts_relative_to_the_token_itself():
    """b_ii = 3 hides the others: e^{b_ij − b_ii} = e^{−3}."""
    layer = Layer.of(EYE, EYE, 2, bias=[[3, 0], [0, 3]])
    assert float(layer.excess(layer.heads[0]).mid()) == pytest.approx(np.exp(-3))


def test_bounds_are_upper_bounds_and_carry_the_scale():
    """d_k = 4: W = form/2, so c = 1 on the form is 2 on W and K = 2κ."""
    head = Head(Weights.from_projections(np.eye(4), np.eye(4), np.eye(4)))
    layer = Layer((head,), 10)
    certificate = Certificate.single("divergence", np.diag([1, 2, 3, 4.0]), 0.25, {0: (1, 0)})
    found, kappa = bounds(certificate, layer), 1.1010029972767  # W₀(9/e)
    assert float(found.constant.mid()) == pytest.approx(2 * kappa, rel=1e-9)
    assert float(found.energy.mid()) == pytest.approx(4 * kappa, rel=1e-9)
    assert float(found.norm.mid()) == pytest.approx((8 * kappa) ** 0.5, rel=1e-5)
    assert found.norm.rad() == 0  # a number on the safe side, not a ball around the answer


def test_the_constant_takes_the_largest_score_multiplier_of_each_head():
    one = rational_matrix("W", [[1]])
    layer = Layer((Head(Weights.of([[1]], [[1]]), {-1: one, 1: one}),), 2)
    found = bounds(Certificate.single("divergence", [[1]], 1, {-1: (2, 1), 1: (3, 1)}), layer)
    assert float(found.constant.mid()) == pytest.approx(3 * float(free_energy_constant(arb(1)).mid()))


@given(st.data())
@settings(max_examples=40)
def test_the_smallest_eigenvalue_is_bounded_below_and_nearly_sharp(data):
    metric = data.draw(metrics(data.draw(st.integers(1, 4))))
    bound = smallest_eigenvalue(metric)
    assert semidefinite(metric - rational_matrix("m", np.eye(metric.nrows())) * bound).holds
    assert (
        float(Fraction(int(bound.p), int(bound.q))) >= np.linalg.eigvalsh(approximate(metric)).min() * 0.999
    )


def test_the_smallest_eigenvalue_without_help_from_floats():
    huge = rational_matrix("m", np.eye(3)) * fmpq(10) ** 400
    bound = smallest_eigenvalue(huge)
    assert fmpq(0) < bound <= fmpq(10) ** 400


# Balls


@pytest.mark.parametrize(
    ("radius", "shift", "status"),
    [(1e-9, 0.5, Status.HOLDS), (1e-9, -0.5, Status.FAILS), (0.9, 0.5, Status.UNDECIDED)],
)
def test_a_matrix_of_balls_is_decided_for_all_its_members_or_not_at_all(radius, shift, status):
    matrix = arb_mat([[arb(1 + shift, radius), arb(1)], [arb(1), arb(1, radius)]])
    verdict = semidefinite(matrix)
    assert verdict.status is status
    assert verdict.status is Status.UNDECIDED or verdict.grade is Grade.INTERVAL


def test_large_blocks_are_decided_by_balls():
    size = 14  # blocks of 28, beyond what is factored in rationals
    layer = Layer.of(np.eye(size), np.eye(size), 3)
    verdict = check(Certificate.single("divergence", np.eye(size), 0.25, {0: (1, 0.25)}), layer)
    assert (verdict.status, verdict.grade) == (Status.HOLDS, Grade.INTERVAL)


# Input


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: Layer.of(EYE, EYE, 0), "n"),
        (lambda: Layer.of(EYE, EYE, None), "n"),
        (lambda: Layer.of(EYE, EYE, 3, slope=-1), "slope"),
        (lambda: Layer.of(EYE, EYE, 2, slope=1, bias=EYE), "slope"),
        (lambda: Layer.of(EYE, EYE, 3, bias=EYE), "bias"),
        (lambda: Layer.of(EYE, EYE, 2, bias=[[0, float("-inf")], [0, 0]]), "bias"),
        (lambda: Layer.of(EYE, EYE, 3, slope=float("nan")), "slope"),
        (lambda: Layer.of([[1, 2], [3]], EYE, 3), "score"),
        (lambda: Layer.of(EYE, [[1, float("nan")], [0, 1]], 3), "value"),
        (lambda: Layer.of(EYE, [[1]], 3), "value"),
        (lambda: Layer((), 3), "heads"),
        (lambda: Layer((Head(Weights.of(EYE, EYE)), Head(Weights.of([[1]], [[1]]))), 3), "heads"),
        (lambda: Layer((Head.rotary(EYE, EYE, EYE, [TURN], 2),), 3), "turned"),
        (lambda: Layer((Head(Weights.of(EYE, EYE), {1: fmpq_mat(3, 3), -1: fmpq_mat(3, 3)}),), 2), "turned"),
        (lambda: Head.rotary(EYE, EYE, EYE, [TURN, TURN], 2), "turns"),
        (lambda: Head.rotary(EYE, EYE, EYE, [(fmpq(1), fmpq(1))], 2), "turns"),
        (lambda: Head.rotary(EYE, EYE, EYE, [TURN], 2, layout="spiral"), "turns"),
        (lambda: rotary_turns(3), "rotary"),
        (lambda: rotary_turns(4, -1), "rotary"),
        (lambda: rotary_turns(4, float("inf")), "rotary"),
        (lambda: Layer.from_projections([EYE], [EYE, EYE], [EYE], 2), "heads"),
        (lambda: Layer.from_projections([EYE], [EYE], [EYE], None, rotary=10), "n"),
    ],
)
def test_unusable_layers_are_refused(build, argument):
    with pytest.raises(InputError) as caught:
        build()
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "certificate",
    [
        Certificate.single("convergence", EYE, 1, {0: (1, 1)}),
        Certificate.single("divergence", [[1]], 1, {0: (1, 1)}),
        Certificate.single("divergence", EYE, 1, {1: (1, 1)}),
        Certificate("divergence", fmpq_mat(2, 2), fmpq(1), (), ()),
    ],
)
def test_a_certificate_of_another_layer_is_refused(certificate):
    with pytest.raises(InputError, match="certificate: got"):
        check(certificate, Layer.of(EYE, EYE, 2))
