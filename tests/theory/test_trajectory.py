"""Enclosures hold closed forms and an independent integrator's values, and say where they prove nothing."""

import doctest
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import mpmath
import pytest
from flint import arb, arb_mat, ctx, fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import trajectory
from theory.derivation import INTERVAL, Context, Step, check_steps
from theory.errors import DerivationError, InputError
from theory.evaluate import Values
from theory.instance import Instance
from theory.notation import kappa, lam
from theory.quantities import token_energy as energy_in_symbols
from theory.system import Setting
from theory.trajectory import (
    Trajectory,
    crosses,
    enclose,
    exceeds,
    gap,
    largest_norm,
    layers,
    norm,
    token_energy,
)
from theory.velocity import Field, balls
from theory.verdict import Grade, Status, Verdict, fails, holds, undecided

EYE = [[1, 0], [0, 1]]
SPREADING = Instance.of(score=[[2, 1], [-1, 1]], response=[[2, 1], [1, 1]], tokens=[[1, 0], [0, -1], [1, 1]])
CONTRACTING = Instance.of(score=[[2, 1], [1, 2]], value=[[-1, 0], [0, -1]], tokens=[[1, 0], [0, -1], [1, 1]])
SCALAR = Instance.of(score=[[2]], value=[[1]], tokens=[[1]])  # x = e^t
ROTATING = Instance.of(score=EYE, value=[[0, -1], [1, 0]], tokens=[[1, 0]])
R1 = Instance.of(score=[[1, -2], [2, 1]], response=[[-1, 3], [-3, -1]], tokens=[[4, 0], [-2, 3], [-2, -3]])
GAP = Instance.of(score=[[-1]], value=[[1]], tokens=[[1], [2]])
ENCODED = Instance.of(
    score=[[1]],
    value=[[-1]],
    tokens=[[-1], [Fraction(6, 5)]],
    positions=[[1], [-1]],
    setting=Setting(positions="scores"),
)
SMALL = st.fractions(-1, 1, max_denominator=6)


def _matrix(draw, rows: int, columns: int) -> list[list[Fraction]]:
    return [[draw(SMALL) for _ in range(columns)] for _ in range(rows)]


def _close(ball: arb, value: arb, radius: float) -> bool:
    """The ball may hold the value, and is no wider than the radius."""
    return bool(ball.overlaps(value)) and ball.rad() <= radius


# The velocity, against the definitions in symbols


ROTATION = [[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]]
SETTINGS = {
    "plain": Setting(),
    "causal": Setting(causal=True),
    "two heads": Setting(heads=2),
    "encoded scores": Setting(positions="scores"),
    "encoded": Setting(positions="scores and values"),
    "bias": Setting(bias=True, causal=True),
    "rotary": Setting(rotary=True),
    "rotated values": Setting(rotary=True, rotated_values=True),
    "sphere": Setting(sphere=True),
    "several": Setting(causal=True, heads=2, positions="scores", bias=True, sphere=True),
}


@st.composite
def _instances(draw, setting: Setting) -> Instance:
    shapes = {"positions": (3, 2), "bias": (3, 3)} | dict.fromkeys(("query", "key", "W_2", "V_2"), (2, 2))
    given = {name: _matrix(draw, *shapes[name]) for name in setting.needs if name != "rotation"}
    if setting.rotary:
        given["rotation"] = ROTATION
    score = None if setting.rotary else _matrix(draw, 2, 2)
    value, tokens = _matrix(draw, 2, 2), _matrix(draw, 3, 2)
    return Instance.of(score=score, value=value, tokens=tokens, setting=setting, **given)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_velocity_is_that_of_the_definitions(name):
    @given(instance=_instances(SETTINGS[name]))
    @settings(max_examples=4)
    def compare(instance):
        values = Values.at(instance)
        with ctx.workprec(128):
            tokens = balls(instance.tokens)
            velocity = Field(instance).near(tokens)(tokens)
        for i, row in enumerate(velocity):
            for c, entry in enumerate(row):
                assert _close(entry, values.enclose(values.system.v[i, c]), 1e-25)

    compare()


# Enclosures, against closed forms and an independent integrator


@given(data=st.data(), time=st.fractions(0, 1, max_denominator=7))
@settings(max_examples=12)
def test_equal_tokens_follow_the_matrix_exponential(data, time):
    """e^{Vt}x, whatever W; at 300 bits, so that any error of the enclosure shows."""
    value, token = _matrix(data.draw, 2, 2), [data.draw(SMALL), data.draw(SMALL)]
    instance = Instance.of(score=_matrix(data.draw, 2, 2), value=value, tokens=[token, token])
    found = enclose(instance, [time])
    with ctx.workprec(300):
        t = fmpq(time.numerator, time.denominator)
        exact = (arb_mat(instance.value) * arb(t)).exp() * arb_mat(instance.tokens.transpose())
        for i in range(2):
            for c in range(2):
                ball = found.states[0][i, c]
                assert ball.overlaps(exact[c, i])  # itself a ball of radius 1e-80 or less
                assert ball.rad() <= 2e-9 * (1 + abs(exact[c, i]))


def _reference(instance: Instance, time: Fraction, steps: int) -> list[mpmath.mpf]:
    """Gragg's midpoint rule, extrapolated, with an unshifted softmax: nothing is shared with `theory`."""
    real = lambda m: [[mpmath.mpf(int(q.p)) / int(q.q) for q in row] for row in m.tolist()]  # noqa: E731
    W, V, X = real(instance.form), real(instance.value), real(instance.tokens)
    n, d = len(X), len(X[0])

    def velocity(x):
        x, out = [x[k * d : (k + 1) * d] for k in range(n)], []
        for i in range(n):
            query = [mpmath.fdot(x[i], column) for column in zip(*W, strict=True)]
            seen = x[: i + 1] if instance.setting.causal else x
            weights = [mpmath.exp(mpmath.fdot(query, key)) for key in seen]
            mean = [mpmath.fdot(weights, column) / mpmath.fsum(weights) for column in zip(*seen, strict=True)]
            out += [mpmath.fdot(row, mean) for row in V]
        return out

    def midpoint(x, length, count):
        h = length / count
        before, now = x, [a + h * v for a, v in zip(x, velocity(x), strict=True)]
        for _ in range(count - 1):
            before, now = now, [a + 2 * h * v for a, v in zip(before, velocity(now), strict=True)]
        ahead = velocity(now)
        return [(a + b + h * v) / 2 for a, b, v in zip(before, now, ahead, strict=True)]

    x, length = [entry for row in X for entry in row], mpmath.mpf(time.numerator) / time.denominator / steps
    for _ in range(steps):
        counts = range(2, 20, 2)
        table = [midpoint(x, length, count) for count in counts]
        for level in range(1, len(table)):
            for k in range(len(table) - 1, level - 1, -1):
                ratio = (mpmath.mpf(counts[k]) / counts[k - level]) ** 2 - 1
                table[k] = [a + (a - b) / ratio for a, b in zip(table[k], table[k - 1], strict=True)]
        x = table[-1]
    return x


CAUSAL = Instance.of(
    score=[[1, 1], [0, -1]],
    value=[[-1, 1], [0, Fraction(1, 2)]],
    tokens=[[1, 0], [-1, 1], [Fraction(1, 2), -1]],
    setting=Setting(causal=True),
)


@pytest.mark.parametrize(
    "instance", [CONTRACTING, SPREADING, CAUSAL], ids=["contracting", "spreading", "causal"]
)
def test_the_enclosure_holds_independent_high_precision_values(instance):
    """The reference is good to about 1e-15: doubling its steps moves it by less than 1e-14."""
    time = Fraction(1, 5)
    with mpmath.workdps(30):
        coarse, fine = (_reference(instance, time, steps) for steps in (3, 6))
        assert max(abs(a - b) for a, b in zip(coarse, fine, strict=True)) < 1e-14
        with ctx.workprec(100):
            reference = [arb(mpmath.nstr(value, 25), "1e-14") for value in fine]
    state = enclose(instance, [time]).states[0].entries()
    assert all(_close(ball, value, 1e-9) for ball, value in zip(state, reference, strict=True))


def test_times_may_be_in_any_order_and_begin_at_the_start():
    found = enclose(CONTRACTING, [1, 0, Fraction(1, 2), 1])
    assert found.times == (1, 0, fmpq(1, 2), 1)
    assert [s.contains(arb_mat(CONTRACTING.tokens)) for s in found.states] == [False, True, False, False]
    assert found.states[0].overlaps(found.states[3])
    assert not found.states[0].overlaps(found.states[2])


def _last_segment(instance: Instance, until: fmpq, bits: int):
    with ctx.workprec(bits):
        return list(trajectory._segments(instance, until, trajectory.TOLERANCE, 200))[-1]


def test_more_bits_give_a_narrower_enclosure_inside_the_wider_one():
    """Each doubling squares the error, up to the bits that are lost on the way (fewer than 30 here)."""
    widths, states = [], []
    for bits in (64, 128, 256):
        segment = _last_segment(CONTRACTING, fmpq(1, 8), bits)
        widths.append(segment.error)
        with ctx.workprec(300):
            states.append(segment.at(fmpq(1, 8)))
    assert all(width < arb(2) ** (30 - bits) for width, bits in zip(widths, (64, 128, 256), strict=True))
    assert all(wide.contains(narrow) for wide, narrow in pairwise(states))


# The bound on the error, against the error itself


def test_a_step_much_too_long_is_bounded_and_the_bound_is_not_slack():
    """p is the cubic Taylor polynomial of e^s on [0, 1]; at s = 1 it lacks e − 8/3 = 0.0516.

    Its defect is s³/6, so a sharp bound of the kind used is e/6 = 0.453.
    """
    with ctx.workprec(128):
        velocity = Field(SCALAR).near([[arb(1)]])
        cubic = trajectory._taylor(velocity, [[arb(1)]], 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trajectory, "_order", lambda: 3)
            bound = trajectory._error(velocity, cubic, arb(0), fmpq(1), arb(9))
        error = arb.const_e() - arb(8) / 3
        assert error < bound < arb("0.4531")


@pytest.mark.parametrize("instance", [CONTRACTING, SPREADING], ids=["contracting", "spreading"])
def test_a_step_from_a_box_holds_the_trajectories_from_its_corners(instance):
    """Every start within 1/1000 of the tokens, in the largest coordinate; corners move apart the fastest."""
    radius, corners = fmpq(1, 1000), ([1] * 6, [-1] * 6, [1, -1, -1, 1, 1, -1])
    with ctx.workprec(64):
        centre = balls(instance.tokens)
        segment, _ = trajectory._segment(Field(instance), centre, arb(radius), fmpq(0), -12, fmpq(1))
        tube = segment.at(segment.length)
    shifts = [fmpq_mat(3, 2, signs) * radius for signs in corners]
    ends = [
        enclose(Instance(instance.weights, instance.tokens + shift), [segment.length]).states[0]
        for shift in shifts
    ]
    assert all(tube.contains(end) for end in ends)
    apart = max(abs(a - b) for a, b in zip(ends[0].entries(), ends[1].entries(), strict=True))
    assert segment.error < 10 * apart  # the tube is not merely wide


@pytest.mark.parametrize(
    ("forgotten", "radius"),
    [("_defect", fmpq(0)), ("_logarithmic_norm", fmpq(1, 10))],
    ids=["defect", "growth"],
)
def test_an_enclosure_that_forgets_a_source_of_error_is_caught(forgotten, radius, monkeypatch):
    """One step from 1 to t = 1 at degree 6; the solution from 1 + radius is (1 + radius)·e."""
    monkeypatch.setattr(trajectory, "_order", lambda: 6)

    def end() -> arb:
        velocity = Field(SCALAR).near([[arb(1)]])
        polynomials = trajectory._taylor(velocity, [[arb(1)]], 6)
        error = trajectory._error(velocity, polynomials, arb(radius), fmpq(1), arb(9))
        return trajectory._Segment(fmpq(0), fmpq(1), polynomials, error).at(fmpq(1))[0, 0]

    with ctx.workprec(128):
        solution = (1 + radius) * arb.const_e()
        assert end().contains(solution)
        monkeypatch.setattr(trajectory, forgotten, lambda *_: arb(0))
        assert not end().overlaps(solution)


def test_a_series_too_short_for_a_coefficient_is_refused():
    """flint returns 0 for an unknown coefficient, which would make a remainder vanish."""
    with ctx.workprec(64), trajectory._series(3):
        known = trajectory.arb_series([1, 2, 3])
        assert trajectory._coefficient(known, 2) == 3
        with pytest.raises(ValueError, match="coefficient 3"):
            trajectory._coefficient(known, 3)


# Crossings


@given(threshold=st.fractions(Fraction(11, 10), 20, max_denominator=50))
@settings(max_examples=15)
def test_the_crossing_time_brackets_the_closed_form(threshold):
    """x = e^t passes c at log c."""
    found = crosses(SCALAR, largest_norm, threshold, 4)
    exact = arb(fmpq(threshold.numerator, threshold.denominator)).log()
    assert found.holds
    assert found.grade is Grade.INTERVAL
    assert found.after <= exact <= found.by
    assert found.by - found.after < fmpq(1, 10**5)


def test_a_crossing_downward():
    """x = e^{−t} falls below 1/2 at log 2 = 0.693."""
    falling = Instance.of(score=[[1]], value=[[-1]], tokens=[[1]])
    found = crosses(falling, largest_norm, Fraction(1, 2), 2, downward=True)
    assert found.after <= arb(2).log() <= found.by
    assert crosses(falling, largest_norm, Fraction(1, 2), Fraction(69, 100), downward=True).fails


def test_a_threshold_passed_at_the_start_or_never():
    found = crosses(SCALAR, norm(0), Fraction(1, 2), 1)
    assert (found.status, found.after, found.by) == (Status.HOLDS, 0, 0)
    assert "t = 0" in found.reason
    found = crosses(SCALAR, norm(0), 3, 1)  # e < 3
    assert (found.status, found.grade, found.by) == (Status.FAILS, Grade.INTERVAL, None)
    assert crosses(SCALAR, norm(0), 2, 0).fails


def test_a_threshold_that_is_only_touched_is_undecided():
    found = crosses(ROTATING, largest_norm, 1, 1)
    assert found.status is Status.UNDECIDED
    assert "too close" in found.reason
    assert (found.after, found.by) == (None, None)


def test_a_value_at_a_time():
    with ctx.workprec(128):
        below, above = (arb.const_e() + sign * arb("1e-8") for sign in (-1, 1))
        around = arb.const_e() + arb(0, 1)
    assert exceeds(SCALAR, norm(0), below, 1).holds
    assert exceeds(SCALAR, norm(0), above, 1).fails
    assert exceeds(SCALAR, norm(0), around, 1).status is Status.UNDECIDED
    assert exceeds(SCALAR, norm(0), 1, 1, tolerance=Fraction(1, 10**400)).status is Status.UNDECIDED


@given(data=st.data())
@settings(max_examples=10)
def test_observables_are_those_of_their_names(data):
    tokens, metric = _matrix(data.draw, 3, 2), _matrix(data.draw, 2, 2)
    state = arb_mat(fmpq_mat(Instance.of(score=EYE, value=EYE, tokens=tokens).tokens))
    lengths = [
        mpmath.sqrt(sum(mpmath.mpf(c.numerator) ** 2 / c.denominator**2 for c in row)) for row in tokens
    ]
    apart = mpmath.hypot(
        *(mpmath.mpf(a.numerator) / a.denominator for a in (tokens[0][c] - tokens[2][c] for c in (0, 1)))
    )
    x = tokens[1]
    energy = sum(x[a] * metric[a][b] * x[b] for a in (0, 1) for b in (0, 1)) / 2
    for ball, value in (
        (norm(1)(state), lengths[1]),
        (largest_norm(state), max(lengths)),
        (gap(0, 2)(state), apart),
        (token_energy(metric, 1)(state), mpmath.mpf(energy.numerator) / energy.denominator),
    ):
        assert abs(float(ball.mid()) - float(value)) < 1e-12


# What cannot be proved is said, never shown as an enclosure


def test_too_long_a_horizon_is_undecided_and_its_states_are_unknown():
    found = enclose(R1, [Fraction(1, 100), 10**6], steps=3)
    assert found.verdict.status is Status.UNDECIDED
    assert "3 steps reach only t = 0.0" in found.verdict.reason
    assert all(entry.is_finite() for entry in found.states[0].entries())
    assert all(entry.is_nan() for entry in found.states[1].entries())
    crossing = crosses(R1, largest_norm, 10**9, 10**6, steps=3)
    assert (crossing.status, crossing.by) == (Status.UNDECIDED, None)


def test_a_tolerance_out_of_reach_is_undecided(monkeypatch):
    monkeypatch.setattr(trajectory, "PRECISIONS", (64, 128))
    found = enclose(SPREADING, [1], tolerance=Fraction(1, 10**45))
    assert found.verdict.status is Status.UNDECIDED
    assert "at 128 bits" in found.verdict.reason
    assert all(entry.is_nan() for entry in found.states[0].entries())
    assert layers(SPREADING, 1, 2, tolerance=Fraction(1, 10**45)).verdict.status is Status.UNDECIDED


def test_scores_too_uncertain_for_a_softmax_are_undecided_until_there_are_more_bits(monkeypatch):
    """1/3 is a ball at any precision; at 64 bits scores 10³⁰ times as large differ by more than 10⁹."""
    instance = Instance.of(score=[[10**30]], value=[[1]], tokens=[[Fraction(1, 3)]] * 2)
    found = layers(instance, 1, 2)
    with ctx.workprec(300):
        assert all(entry.contains(fmpq(4, 3)) for entry in found.states[2].entries())
    monkeypatch.setattr(trajectory, "PRECISIONS", (64,))
    for answer in (layers(instance, 1, 2), enclose(instance, [1])):
        assert answer.verdict.status is Status.UNDECIDED
        assert "64 bits" in answer.verdict.reason
        assert all(entry.is_nan() for entry in answer.states[0].entries())


def test_bits_are_added_until_the_tolerance_is_met():
    found = enclose(SCALAR, [1], tolerance=Fraction(1, 10**60))
    assert found.verdict.holds
    with ctx.workprec(300):
        assert found.states[0][0, 0].contains(arb.const_e())
    assert found.states[0][0, 0].rad() < arb("1e-59")


def test_the_working_precision_and_series_length_are_left_as_they_were():
    before = ctx.prec, ctx.cap
    enclose(SCALAR, [1])
    assert (ctx.prec, ctx.cap) == before


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("tokens", lambda: enclose(Instance.of(score=EYE, value=EYE), [1])),
        ("tokens", lambda: layers(Instance.of(score=EYE, value=EYE), 1, 1)),
        ("times", lambda: enclose(SCALAR, [])),
        ("times", lambda: enclose(SCALAR, [1, -1])),
        ("times", lambda: enclose(SCALAR, ["soon"])),
        ("tolerance", lambda: enclose(SCALAR, [1], tolerance=-1)),
        ("until", lambda: crosses(SCALAR, largest_norm, 2, -1)),
        ("until", lambda: crosses(SCALAR, largest_norm, 2, float("inf"))),
        ("threshold", lambda: crosses(SCALAR, largest_norm, arb.nan(), 1)),
        ("index", lambda: crosses(SCALAR, norm(1), 2, 1)),
        ("index", lambda: crosses(SCALAR, gap(0, -1), 2, 1)),
        ("count", lambda: layers(SCALAR, 1, Fraction(1, 2))),
        ("metric", lambda: token_energy([[1], [1, 2]], 0)),
    ],
)
def test_bad_input_names_the_argument(argument, call):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.argument == argument


# Evidence for derivations


def test_a_proved_crossing_is_evidence():
    crossing = Trajectory("x passes 2", lambda: [crosses(SCALAR, largest_norm, 2, 1)])
    assert crossing.claim() == "x passes 2"
    assert crossing.label == INTERVAL
    check_steps([Step(crossing, "Since e > 2.")], Context())


@pytest.mark.parametrize(
    "verdicts",
    [
        [],
        [fails(Grade.INTERVAL, "never")],
        [undecided("who knows")],
        [Verdict(Status.HOLDS, Grade.FLOAT)],
        [holds(Grade.EXACT), fails(Grade.EXACT)],
    ],
    ids=["none", "fails", "undecided", "float", "one fails"],
)
def test_anything_less_is_not(verdicts):
    with pytest.raises(DerivationError, match="sky"):
        Trajectory("the sky falls", lambda: verdicts).check(Context())


# Worked examples


def test_the_documentation_shows_what_is_computed():
    page = Path(__file__).parents[2] / "docs" / "trajectories.md"
    failures, examples = doctest.testfile(str(page), module_relative=False, encoding="utf-8")
    assert examples > 20
    assert failures == 0


def test_t4_a_token_below_the_threshold_crosses_it():
    instance = Instance.of(score=[[1, 0], [0, 2]], response=EYE, tokens=[[0.5, 0], [0, 1], [0.5, -0.25]])
    values = Values.at(instance)
    threshold = values[kappa] / (2 * values[lam])
    assert values.enclose(energy_in_symbols(values.system, 0)) < threshold
    assert crosses(instance, token_energy(EYE, 0), threshold, 2).holds


def test_r1_the_largest_norm_passes_a_hundred():
    found = crosses(R1, largest_norm, 100, 8)
    assert found.holds
    assert fmpq(765, 100) < found.after < found.by < fmpq(766, 100)


def test_t10_the_gap_tends_to_a_positive_number():
    state = enclose(GAP, [5]).states[0]
    assert gap(0, 1)(state) > fmpq(9074, 10**4)
    assert gap(0, 1)(state) < fmpq(9075, 10**4)


def test_t12_an_encoding_in_the_scores_keeps_tokens_apart():
    """(−1, 1) is an equilibrium, approached like 2/t only: z = x_1 − x_2 + 2 obeys ż ≈ z²/2."""
    rest = enclose(
        Instance.of(
            score=[[1]],
            value=[[-1]],
            tokens=[[-1], [1]],
            positions=[[1], [-1]],
            setting=Setting(positions="scores"),
        ),
        [10],
    )
    assert rest.states[0].contains(arb_mat([[-1], [1]]))
    state = enclose(ENCODED, [10]).states[0]
    assert gap(0, 1)(state) > 2
    assert abs(state[0, 0] + 1) < fmpq(1, 20)
    assert not abs(state[0, 0] + 1) < fmpq(1, 100)
    assert crosses(ENCODED, gap(0, 1), 2, 10, downward=True).fails


def test_t16_a_residual_step_raises_the_energy():
    instance = Instance.of(score=[[1]], value=[[-1]], tokens=[[1], [1], [1], [4]])
    found = layers(instance, 1, 1)
    start, after = (sum((x * x for x in state.entries()), arb(0)) / 2 for state in found.states)
    assert start.contains(fmpq(19, 2))
    assert after > fmpq(102, 10)
    assert found.times == (0, 1)


@given(step=st.fractions(Fraction(1, 5), 1, max_denominator=5), value=SMALL)
@settings(max_examples=8)
def test_layers_of_equal_tokens_are_powers(step, value):
    """(1 + hV)^k x, whatever W."""
    instance = Instance.of(score=[[2]], value=[[value]], tokens=[[1], [1]])
    found = layers(instance, step, 4)
    for k, state in enumerate(found.states):
        exact = (1 + step * value) ** k
        with ctx.workprec(300):  # a ball around the rational itself, far narrower than the enclosure
            assert all(ball.contains(fmpq(exact.numerator, exact.denominator)) for ball in state.entries())
        assert all(ball.rad() < 1e-15 for ball in state.entries())


def test_an_enclosure_gives_up_when_its_time_is_over():
    found = trajectory.enclose(CONTRACTING, [1], seconds=0)
    assert not found.verdict.holds
    assert not found.verdict.fails
    assert "the time allowed" in found.verdict.reason
