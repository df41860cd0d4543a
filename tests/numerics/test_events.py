"""What an integration watches: events, observables, and tokens between output times."""

import math

import pytest
import torch

from numerics import AttentionSystem, Event, InputError, Observable, Outcome, Quantity, integrate
from numerics.families import random_form, random_tokens
from numerics.observables import norms, pencil_minimum, token_energy
from tests.numerics.test_integrate import (
    BOTH,
    assert_same,
    close,
    f64,
    gaussian,
    outcomes,
    scalar,
    times,
    variant,
)

SIZE = Quantity()  # max ‖x_i‖²
DIAMETER = Quantity(of="differences")  # max ‖x_i − x_j‖²


# Events


@BOTH
def test_times_of_exponentials(backend):
    """x = 2e^{±t}: ‖x‖² passes a level at ½ log(level/4), both in plain coordinates and in log-radius."""
    events = (
        Event(SIZE, 100.0),
        Event(SIZE, f64([1e300, 1.0]), rising=True),
        Event(SIZE, 1e-3, rising=False),
        Event(SIZE, f64([0.0, 4.0]), rising=False),
    )
    end = integrate(
        scalar([1.0, -1.0]), f64([[[2.0]], [[2.0]]]), until=400, events=events,
        atol=1e-30, escape=math.inf, backend=backend,
    )  # fmt: skip
    assert outcomes(end) == ["REACHED"] * 2
    up = [math.log(25) / 2, math.log(1e300 / 4) / 2, math.nan, math.nan]
    down = [math.nan, 0.0, math.log(4e3) / 2, 0.0]
    torch.testing.assert_close(end.events, f64([up, down]), rtol=1e-7, atol=1e-7, equal_nan=True)


@BOTH
def test_a_terminal_event_ends_its_row(backend):
    """Later events of that row and its later samples are not recorded; the earliest terminal event counts."""
    events = (
        Event(SIZE, 100.0, terminal=True),
        Event(SIZE, 50.0, terminal=True),
        Event(SIZE, 49.0),
        Event(SIZE, 51.0),
    )
    end = integrate(
        scalar([1.0, -1.0, 1.0]), f64([2.0, 2.0, 8.0]).view(3, 1, 1), times(0, 0.1, 1, 2), events=events,
        observe=(Observable(SIZE), Observable(SIZE, "integral")), backend=backend,
    )  # fmt: skip
    assert outcomes(end) == ["STOPPED", "REACHED", "STOPPED"]
    stop = math.log(50 / 4) / 2
    expected = f64([[math.nan, stop, math.log(49 / 4) / 2, math.nan], [math.nan] * 4])
    torch.testing.assert_close(end.events[:2], expected, rtol=1e-7, atol=1e-7, equal_nan=True)
    assert end.last_time[0] == end.events[0, 1]
    assert end.states[0, :3].isfinite().all()
    assert end.states[0, 3].isnan().all()
    close(end.observed[0], f64([50.0, (50 - 4) / 2]), 1e-6)
    # at the start: 64 is past all levels but the first
    torch.testing.assert_close(end.events[2], f64([math.nan, 0, 0, 0]), rtol=0, atol=0, equal_nan=True)
    assert end.steps[2] == 0
    assert end.last_time[2] == 0
    assert "a terminal event occurred" in end.explain()


@BOTH
def test_the_time_of_the_energy_threshold(backend):
    """T4, W = A = I: a token obeys E' ≥ 2E − log n; for a lone token (n = 1) E = E(0) e^{2t} exactly.

    With n tokens the time to a level lies below that of the bound, E ≥ log n/2 + (E(0) − log n/2) e^{2t}.
    """
    g = torch.Generator().manual_seed(1)
    A = random_form(20, 3, positive=3, generator=g)
    W = random_form(20, 3, positive=3, generator=g)
    system, rate = AttentionSystem.from_response(W, A), pencil_minimum(W, A)
    x = random_tokens(20, 4, 3, 4.0, g)
    energy = token_energy(x, A).amax(1)
    floor = math.log(4) / (2 * rate)
    assert (energy > floor).all()
    level = 50 * energy
    latest = ((level - floor) / (energy - floor)).log() / (2 * rate)
    end = integrate(
        system, x, until=100.0, events=(Event(Quantity(A / 2), level, terminal=True),), backend=backend
    )
    assert outcomes(end) == ["STOPPED"] * 20
    assert (end.events[:, 0] <= latest + 1e-6).all()
    exact = integrate(
        system,
        x,
        until=100.0,
        events=(Event(Quantity(A / 2), level),),
        rtol=1e-12,
        atol=1e-13,
        backend="torch",
    )
    close(end.events, exact.events, 1e-6)
    lone = integrate(
        AttentionSystem.from_response(A, A), x[:, :1], until=100.0, backend=backend,
        events=(Event(Quantity(A / 2), 50 * token_energy(x, A)[:, 0], terminal=True),),
    )  # fmt: skip
    close(lone.events, torch.full_like(lone.events, math.log(50) / 2), 1e-7)


@BOTH
def test_every_kind_of_quantity_has_its_events_where_a_fine_trajectory_has_them(backend):
    """Levels between the values at the start and at the end, compared with samples from a tight run."""
    g = torch.Generator().manual_seed(2)
    form = random_form(6, 2, positive=torch.arange(6) % 3, generator=g)
    system, x = AttentionSystem(*gaussian(2, 6, 2, 2, seed=3)), gaussian(6, 4, 2, seed=4)
    t = torch.linspace(0, 1.5, 1501, dtype=torch.float64)
    states = integrate(system, x, t, rtol=1e-11, atol=1e-12, backend="torch").states
    for of in ("tokens", "differences"):
        i, j = torch.triu_indices(4, 4, 1)
        v = states if of == "tokens" else states[:, :, i] - states[:, :, j]
        values = torch.einsum("btnc,bcd,btnd->btn", v, form, v)
        for extremum, fine in (("largest", values.amax(-1)), ("smallest", values.amin(-1))):
            quantity = Quantity(form, of, extremum)
            level = (fine[:, 0] + 2 * fine[:, -1]) / 3
            events = tuple(Event(quantity, level, rising) for rising in (True, False))
            observe = tuple(Observable(quantity, record) for record in ("maximum", "minimum", "integral"))
            found = integrate(system, x, until=1.5, events=events, observe=observe, backend=backend)
            for e, on in enumerate((fine >= level[:, None], fine <= level[:, None])):
                first = torch.where(on.any(1), t[on.double().argmax(1)], torch.nan)
                assert torch.equal(first.isnan(), found.events[:, e].isnan())
                late = (first - found.events[:, e]).nan_to_num()  # the samples are 1e-3 apart
                assert ((late > -1e-6) & (late < 1e-3 + 1e-6)).all()
            # the ends of steps may miss an extremum between them, by little
            size = 1 + fine.abs().amax(1)
            assert ((found.observed[:, 0] - fine.amax(1)).abs() < 0.02 * size).all()
            assert ((found.observed[:, 1] - fine.amin(1)).abs() < 0.02 * size).all()
            close(found.observed[:, 2], torch.trapezoid(fine, t, dim=1), 1e-4)


def test_functions_as_quantities():
    system, x = AttentionSystem(*gaussian(2, 5, 2, 2, seed=5)), gaussian(5, 3, 2, seed=6)

    def largest(x):
        return norms(x).square().amax(1)

    own, known = (
        integrate(system, x, until=2, events=(Event(q, 8.0),), observe=(Observable(q, "integral"),))
        for q in (largest, SIZE)
    )
    torch.testing.assert_close(own.events, known.events, rtol=1e-6, atol=1e-6, equal_nan=True)
    close(own.observed, known.observed, 1e-6)


# Observables


@BOTH
def test_integrals_and_extrema_of_exponentials(backend):
    """∫ 4e^{2kt} dt = 2(e^{2kT} − 1)/k, also where a single step in log-radius spans many powers of ten."""
    k = f64([1.0, -1.0, 0.25, 5.0])
    end = integrate(
        scalar(k.tolist()), torch.full((4, 1, 1), 2.0).double(), until=20, backend=backend,
        observe=tuple(Observable(SIZE, record) for record in ("maximum", "minimum", "integral")),
    )  # fmt: skip
    last = 4 * (2 * k * 20).exp()
    expected = torch.stack([last.clamp(min=4), last.clamp(max=4), 2 * ((2 * k * 20).exp() - 1) / k], 1)
    assert ((end.observed - expected).abs() <= 1e-6 * expected.abs() + 1e-9).all()


def test_records_do_not_depend_on_what_else_is_watched():
    system, x = AttentionSystem(*gaussian(2, 5, 2, 2, seed=7)), gaussian(5, 3, 2, seed=8)
    one, other = Observable(SIZE, "integral"), Observable(DIAMETER, "minimum")
    both = integrate(system, x, until=1, observe=(one, other), events=(Event(SIZE, 1e3),), backend="torch")
    for k, item in enumerate((one, other)):
        single = integrate(system, x, until=1, observe=(item,), backend="torch")
        assert torch.equal(single.observed[:, 0], both.observed[:, k])
        assert torch.equal(single.states, both.states)


# Between output times


@pytest.mark.parametrize("name", ["causal", "all", "all on the sphere"])
def test_dense_output_follows_a_tight_reference(name):
    """At rtol 1e-8 the quartic is about as good as the samples, and its error shrinks with rtol."""
    system, x = variant(name, 6, 4, 3, 9)
    t = torch.linspace(0, 1, 41, dtype=torch.float64)
    best = integrate(system, x, t, rtol=1e-12, atol=1e-13).states
    size = best.abs().amax((1, 2, 3), keepdim=True)
    errors = []
    for rtol in (1e-4, 1e-6, 1e-8):
        found = integrate(system, x, times(0, 0.37, 1), rtol=rtol, atol=rtol / 100, dense=True)
        close(found.dense(found.times), found.states, 1e-13)
        errors.append(((found.dense(t) - best).abs() / size).max().item())
    assert errors[2] < 1e-6
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    if system.sphere:
        assert ((norms(found.dense(t).flatten(0, 1)) - 1).abs() < 1e-14).all()


def test_dense_output_ends_where_its_row_ends():
    """Each row at times of its own; NaN before the start and beyond last_time."""
    events = (Event(SIZE, 50.0, terminal=True),)
    system, x = scalar([1.0, -1.0, math.nan]), torch.full((3, 1, 1), 2.0).double()
    end = integrate(system, x, times(0, 1, 3), events=events, dense=True, atol=1e-14)
    stop = end.last_time[0].item()
    t = f64([[-0.1, 0, 1.2, stop, stop + 1e-9], [3, 2.5, 0.1, 3.1, 1], [0, 1, 2, 3, 4]])
    x = end.dense(t)[..., 0, 0]
    exact = 2 * torch.exp(f64([[1.0], [-1.0], [0.0]]) * t)
    exact[0, [0, 4]], exact[1, 3], exact[2] = math.nan, math.nan, math.nan
    torch.testing.assert_close(x, exact, rtol=1e-6, atol=0, equal_nan=True)
    with pytest.raises(InputError, match="t: got shape"):
        end.dense(times(0, 1).expand(2, -1))


def test_dense_output_goes_through_stiff_steps():
    """A lone token of rates −1 and −1e4: the explicit method hands it over; the slow part stays e^{−t}."""
    V = f64([[[-1.0, 0.0], [0.0, -1e4]]])
    x = f64([[[1.0, 1.0]]])
    end = integrate(AttentionSystem(torch.zeros_like(V), V), x, until=5.0, dense=True)
    assert outcomes(end) == ["REACHED"]
    assert end.stiff_steps.item() > 0
    t = torch.linspace(0, 5, 101, dtype=torch.float64)
    close(end.dense(t)[0, :, 0, 0], torch.exp(-t), 1e-6)


# Batch mates


@BOTH
def test_a_thousand_rows_with_every_fate_leave_each_other_alone(backend):
    """NaN, overflow, growth, stiffness, events and observables: every field of a row is the same alone."""
    g = torch.Generator().manual_seed(10)
    W = random_form(1000, 2, positive=2, generator=g)
    A = random_form(1000, 2, positive=torch.arange(1000) % 3, generator=g)
    system = AttentionSystem.from_response(W, A)
    x = random_tokens(1000, 3, 2, torch.linspace(0.1, 3.0, 1000), g)
    system.score[10], system.value[20], x[30] = torch.nan, torch.inf, torch.nan
    x[40] *= 1e200
    x[50] *= 1e-200
    system.value[60] *= 1e3
    stiff = [75, 87]  # A ≺ 0, at a scale where attention is nearly a maximum
    x[stiff] *= 3000
    level = torch.full((1000,), 1e4).double()
    level[stiff] = 1e12
    least = Observable(DIAMETER, "minimum")

    def watched(rows):
        events = (
            Event(DIAMETER, 1e-2, rising=False),
            Event(Quantity(A[rows] / 2), 40.0),
            Event(SIZE, level[rows], terminal=True),
        )
        return {
            "events": events,
            "observe": (least, Observable(Quantity(A[rows], extremum="smallest"), "integral")),
        }

    options = {"times": times(0, 0.3, 1), "max_steps": 2000, "backend": backend}
    together = integrate(system, x, **options, **watched(slice(None)))
    assert {Outcome.REACHED, Outcome.STOPPED, Outcome.INVALID} <= set(together.outcome.tolist())
    assert together.events.isfinite().any(0).all()
    if backend == "torch":  # Numba's steps are so cheap that it hands over much later
        assert (together.stiff_steps[stiff] > 0).all()
    for some in ([999], [50, 60], [40, 30, 20, 10], [*stiff, 5], list(range(990, 0, -37))):
        alone = integrate(system.rows(some), x[some], **options, **watched(some))
        assert_same(alone, together, some)


# Bad arguments


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("events", {"events": Event(SIZE, 1.0)}),
        ("events", {"events": [SIZE]}),
        ("observe", {"observe": (SIZE,)}),
        ("events[0].level", {"events": [Event(SIZE, math.nan)]}),
        ("events[0].level", {"events": [Event(SIZE, torch.ones(3))]}),
        ("events[1].quantity", {"events": [Event(SIZE, 1.0), Event("size", 1.0)]}),
        ("events[0].quantity", {"events": [Event(norms, 1.0)]}),
        ("events[0].quantity.form", {"events": [Event(Quantity(torch.eye(3).double()), 1.0)]}),
        ("events[0].quantity.form", {"events": [Event(Quantity(torch.ones(2).double()), 1.0)]}),
        ("events[0].quantity.of", {"events": [Event(Quantity(of="token"), 1.0)]}),
        ("observe[0].quantity.extremum", {"observe": [Observable(Quantity(extremum="max"))]}),
        ("observe[0].record", {"observe": [Observable(SIZE, "mean")]}),
        ("method", {"events": [Event(SIZE, 1.0)], "method": "rk4", "step": 0.1}),
        ("backend", {"events": [Event(lambda x: x.sum((1, 2)), 1.0)], "backend": "numba"}),
    ],
)
def test_bad_arguments(argument, options):
    system = AttentionSystem(*torch.eye(2).double().expand(2, 2, 2, 2))
    with pytest.raises(InputError) as error:
        integrate(system, torch.ones(2, 3, 2).double(), until=1.0, **options)
    assert error.value.argument == argument


def test_differences_need_two_tokens():
    with pytest.raises(InputError, match="two tokens"):
        integrate(scalar([1.0]), torch.ones(1, 1, 1).double(), until=1, observe=(Observable(DIAMETER),))
