"""T9, T9b, T9c and L8 in exact arithmetic: the profile, its linearisation, thresholds, sharpness."""

from dataclasses import replace
from fractions import Fraction

import pytest
from flint import arb, ctx, fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st

from theory.derivation import Equality, MatrixIdentity, SumIdentity
from theory.errors import DerivationError, InputError
from theory.instance import Instance
from theory.profile import linearisation, profile, profile_decay, profile_is_stable, profile_size
from theory.registry import quoted_formula, statement
from theory.theorem import sides
from theory.theorems.collapse import A_MINUS_IDENTITY, PROFILE_STABLE, TOKENS_SPAN
from theory.verdict import Grade, Status
from theory.weights import Weights, identity

L8, T9, T9b, T9c = map(statement, ("L8", "T9", "T9b", "T9c"))
MINUS_IDENTITY = [[-1, 0], [0, -1]]
CORNERS = [[1, 1], [1, -1], [-1, 1], [-1, -1]]


def turn(a, b, tokens=None) -> Instance:
    """A turn by arctan(b/a), with A = −I."""
    return Instance.of(score=[[a, -b], [b, a]], response=MINUS_IDENTITY, tokens=tokens)


@st.composite
def contracting(draw):
    """A = Aᵀ ≺ 0 and W with W_s ≻ 0, both diagonally dominant, d ≤ 3."""
    d = draw(st.integers(1, 3))
    entries = st.integers(-3, 3)
    W = [[draw(entries) + 8 * d * (i == j) for j in range(d)] for i in range(d)]
    A = [[draw(entries) if i > j else 0 for j in range(d)] for i in range(d)]
    A = [[A[max(i, j)][min(i, j)] - 8 * d * (i == j) for j in range(d)] for i in range(d)]
    return Instance.of(score=W, response=A)


# The profile


@given(contracting())
@settings(max_examples=30)
def test_the_profile_solves_the_cubic_flow(instance):
    V, W, C = instance.value, instance.form, profile(instance)
    assert V * C * W.transpose() * 2 == -identity(instance.weights.dim)
    half = V * C * W.transpose() * C
    assert half + half.transpose() == -C
    size = -instance.response * C
    assert profile_size(instance).contains(sum((size[i, i] for i in range(C.nrows())), fmpq(0)))


def test_without_w_or_v_inverse_there_is_no_profile():
    for instance in (
        Instance.of(score=[[1, 0], [0, 0]], response=MINUS_IDENTITY),
        Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 0]]),
    ):
        for undefined in (profile, linearisation):
            with pytest.raises(InputError, match=r"singular V or W.*has_profile"):
                undefined(instance)
        assert profile_size(instance).is_nan()
        assert profile_decay(instance).is_nan()
        assert profile_is_stable(instance).status is Status.UNDECIDED


@given(contracting(), st.data())
@settings(max_examples=30)
def test_the_linearisation_is_minus_the_derivative_of_the_cubic_flow_in_log_time(instance, data):
    """The field C + VCWᵀC + CWCVᵀ is quadratic, so a central difference is its derivative exactly."""
    d = instance.weights.dim
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    H = fmpq_mat(d, d)
    entries = fmpq_mat(len(pairs), 1)
    for row, (a, b) in enumerate(pairs):
        H[a, b] = H[b, a] = entries[row, 0] = fmpq(data.draw(st.integers(-3, 3)))

    def field(C):
        half = instance.value * C * instance.form.transpose() * C
        return C + half + half.transpose()

    C = profile(instance)
    derivative = (field(C + H) - field(C - H)) * fmpq(1, 2)
    expected = linearisation(instance) * entries
    assert [-derivative[a, b] for a, b in pairs] == expected.entries()


@given(contracting())
@settings(max_examples=15)
def test_the_whitened_form_of_the_linearisation(instance):
    """J = WHWᵀ turns L into ½(WA⁻¹JW⁻¹A + transpose), whose whitening is ½(ŴJŴ⁻¹ + Ŵ⁻ᵀJŴᵀ): same spectrum."""
    d, W, A = instance.weights.dim, instance.form, instance.response
    pairs = [(a, b) for a in range(d) for b in range(a, d)]
    columns = []
    for a, b in pairs:
        J = fmpq_mat(d, d)
        J[a, b] = J[b, a] = fmpq(1)
        half = W * A.inv() * J * W.inv() * A * fmpq(1, 2)
        columns.append([half[r, c] + half[c, r] for r, c in pairs])
    assert fmpq_mat(columns).charpoly() == linearisation(instance).charpoly()


# Stability


@pytest.mark.parametrize(
    ("a", "b", "status", "grade"),
    [
        (1, 0, Status.HOLDS, Grade.EXACT),
        (4, 3, Status.HOLDS, Grade.EXACT),
        (1000, 999, Status.HOLDS, Grade.EXACT),
        (1, 1, Status.FAILS, Grade.EXACT),
        (1, -1, Status.FAILS, Grade.EXACT),
        (999, 1000, Status.FAILS, Grade.INTERVAL),
        (3, 4, Status.FAILS, Grade.INTERVAL),
    ],
)
def test_turns_are_stable_below_45_degrees(a, b, status, grade):
    verdict = profile_is_stable(turn(a, b))
    assert (verdict.status, verdict.grade) == (status, grade)
    assert verdict.reason
    decay = profile_decay(turn(a, b))
    assert decay.overlaps(arb(fmpq(a * a - b * b, a * a + b * b)))
    assert float(decay.rad()) < 1e-14


def test_symmetric_scores_are_always_stable():
    """T9: the eigenvalues are ½(λ_i/λ_j + λ_j/λ_i) ≥ 1, here for λ = 1 and 3/2."""
    diagonal = Instance.of(score=[[1, 0], [0, 3]], response=[[-1, 0], [0, -2]])
    mixed = (fmpq(2, 3) + fmpq(3, 2)) / 2
    assert linearisation(diagonal) == fmpq_mat([[1, 0, 0], [0, mixed, 0], [0, 0, 1]])
    full = Instance.of(score=[[2, 1, 0], [1, 3, 1], [0, 1, 1]], response=[[-2, 1, 0], [1, -1, 0], [0, 0, -5]])
    verdict = profile_is_stable(full)
    assert (verdict.status, verdict.grade) == (Status.HOLDS, Grade.EXACT)
    assert profile_decay(full).overlaps(arb(1))


def test_an_irrational_scale_of_the_scores_changes_nothing():
    """W = QᵀK/√2: the profile scales, its linearisation and its size do not."""
    value = turn(3, 4).value
    scaled = Instance(Weights.from_projections([[1, 0], [0, 1]], [[3, -4], [4, 3]], value))
    assert scaled.weights.scale_squared == fmpq(1, 2)
    assert linearisation(scaled) == linearisation(turn(3, 4))
    assert profile_size(scaled).overlaps(profile_size(turn(3, 4)))
    assert profile_is_stable(scaled).fails


def test_beyond_six_dimensions_the_verdict_stays_open():
    d = 7
    W = [[int(i == j) for j in range(d)] for i in range(d)]
    verdict = profile_is_stable(Instance.of(score=W, value=[[-entry for entry in row] for row in W]))
    assert verdict.status is Status.UNDECIDED
    assert "d = 7" in verdict.reason


# Hypotheses


@pytest.mark.parametrize(
    ("hypothesis", "instance", "status"),
    [
        (TOKENS_SPAN, turn(1, 0, [[0, 0], [1, 0], [0, 1]]), Status.HOLDS),
        (TOKENS_SPAN, turn(1, 0, [[0, 0], [1, 1], [2, 2], [-5, -5]]), Status.FAILS),
        (TOKENS_SPAN, turn(1, 0, [[1, 0], [0, 1]]), Status.FAILS),
        (TOKENS_SPAN, turn(1, 0, [[1, 0]]), Status.FAILS),
        (TOKENS_SPAN, turn(1, 0), Status.UNDECIDED),
        (A_MINUS_IDENTITY, turn(1, 5), Status.HOLDS),
        (A_MINUS_IDENTITY, Instance.of(score=[[1]], response=[[Fraction(-1001, 1000)]]), Status.FAILS),
        (A_MINUS_IDENTITY, Instance.of(score=[[1]], value=[[0]]), Status.FAILS),
        (A_MINUS_IDENTITY, Instance.of(score=[[1]], value=[[1]]), Status.FAILS),
        (A_MINUS_IDENTITY, Instance(Weights.from_projections([[4]], [[1]], [[-4]])), Status.HOLDS),
        (PROFILE_STABLE, turn(2, 1), Status.HOLDS),
        (PROFILE_STABLE, turn(1, 2), Status.FAILS),
        (PROFILE_STABLE, Instance.of(score=[[1]], value=[[0]]), Status.UNDECIDED),
    ],
)
def test_hypotheses_both_ways(hypothesis, instance, status):
    assert hypothesis.decide(instance).status is status


# Claims


def test_size_and_volume_are_sharp_on_the_profile():
    """Tokens at the corners of a square have C = I, a multiple of C* for A = −I and any turn."""
    instance = turn(4, 3, CORNERS)
    (fast, size) = sides(T9.claim("size falls at the profile's pace"), turn(1, 0, CORNERS))[0]
    assert (fast - size).contains(0)
    (fast, volume) = sides(T9b.claim("volume falls at the profile's pace"), instance)[0]
    assert (fast - volume).contains(0)
    stretched = turn(4, 3, [[2 * x, y] for x, y in CORNERS])
    (fast, volume) = sides(T9b.claim("volume falls at the profile's pace"), stretched)[0]
    assert fast > volume


@pytest.mark.parametrize(
    ("a", "b", "holds"), [(4, 3, True), (999, 998, True), (998, 999, False), (3, 4, False)]
)
def test_flat_covariances_tell_the_threshold_too(a, b, holds):
    """For C = uuᵀ the size claim reads 2 cos²φ ≥ 1: beyond 45° a flat covariance is larger than C*'s pace."""
    instance = turn(Fraction(a), Fraction(b), [[1, 0], [-1, 0]])
    assert T9.judge(T9.claim("size falls at the profile's pace"), instance).holds is holds


def test_the_remainder_of_the_expansion_is_of_fifth_order():
    """Halving the tokens divides bound and remainder by 32, up to the next order."""
    tokens = [[Fraction(q, 100) for q in row] for row in ([2, -4], [6, 2], [-5, 1])]
    halved = [[q / 2 for q in row] for row in tokens]
    claim = L8.claim("cubic expansion")
    for (bound, left), (bound_halved, left_halved) in zip(
        sides(claim, turn(2, 1, tokens)), sides(claim, turn(2, 1, halved)), strict=True
    ):
        assert (bound / bound_halved - 32).contains(0)
        assert abs(float((left / left_halved).mid()) - 32) < 0.5


def test_numbers_of_the_theory():
    """At 75° the flat profile has trace 1/(2cos²75°) = 7.4641."""
    with ctx.workprec(64):
        trace = 1 / (2 * arb.cos_pi_fmpq(fmpq(75, 180)) ** 2)
    assert abs(float(trace.mid()) - 7.4641) < 5e-5


# Derivations


COMPUTED = [
    (theorem.id, number, step.evidence)
    for theorem in (T9, T9b, T9c)
    for number, step in enumerate(theorem.steps, start=1)
    if isinstance(step.evidence, MatrixIdentity | SumIdentity | Equality)
]


@pytest.mark.parametrize(
    ("identifier", "number", "evidence"), COMPUTED, ids=lambda v: str(v) if isinstance(v, str | int) else ""
)
def test_a_wrong_factor_in_any_computed_step_is_noticed(identifier, number, evidence):
    with pytest.raises(DerivationError):
        replace(evidence, right=3 * evidence.right).check(statement(identifier).context(quoted_formula))


def test_the_profile_needs_its_half():
    step = T9.steps[7].evidence
    assert isinstance(step, MatrixIdentity)
    with pytest.raises(DerivationError):
        replace(step, left=2 * step.left).check(T9.context(quoted_formula))
