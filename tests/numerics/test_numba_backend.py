"""What is particular to the Numba back-end. It is compared with Torch wherever a test runs on both."""

import numpy as np
import pytest
import torch
from numba import njit

from numerics import AttentionSystem, Event, Observable, Outcome, Quantity, integrate, numba_backend
from numerics.families import random_form
from numerics.lanes import LANES, Rows, exp, load, rough_log, store


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(a, b):
    """Bitwise, NaN included."""
    return torch.equal(a.view(torch.int64), b.view(torch.int64))


FIELDS = ("states", "log_scale", "last_time", "events", "observed")


# Vectors


@njit
def _each(a, b, c):
    for i in range(64):
        x = load(a, i)
        store(b, i, exp(x))
        store(c, i, rough_log(x))


def test_vector_functions_are_as_accurate_as_they_say():
    x, e, log = Rows(64), Rows(64), Rows(64)
    x.array[:] = np.random.default_rng(0).uniform(-707, 709, x.array.shape)
    _each(x, e, log)
    np.testing.assert_allclose(e.array, np.exp(x.array), rtol=2 * np.finfo(float).eps, atol=0)
    x.array[:] = 10 ** np.random.default_rng(1).uniform(-307, 308, x.array.shape)
    _each(x, e, log)
    np.testing.assert_allclose(log.array, np.log(x.array), rtol=0, atol=2e-6)


def test_exponentials_at_the_ends():
    x, e, log = Rows(64), Rows(64), Rows(64)
    x.array[0] = 0, -708, -1e5, -np.inf, 709, 1, -1, 0.5
    _each(x, e, log)
    least = np.exp(-708)
    np.testing.assert_allclose(e.array[0, [0, 1, 2, 3, 4]], [1, least, least, least, np.exp(709)], rtol=1e-15)


# Systems


def systems(batch, n, d, seed, scale=1.0):
    """Symmetric W ≻ 0, half of the responses negative, half positive definite."""
    g = torch.Generator().manual_seed(seed)
    W = random_form(batch, d, positive=d, generator=g)
    A = random_form(batch, d, positive=(torch.arange(batch) % 2) * d, generator=g)
    return AttentionSystem.from_response(W, A), scale * gaussian(batch, n, d, seed=seed + 1)


def test_code_compiled_for_a_shape_gives_the_same_bits():
    """A batch of WORTH_COMPILING systems has its sizes compiled in; a small one has not."""
    system, x = systems(numba_backend.WORTH_COMPILING, 3, 2, seed=1, scale=3.0)
    options = {
        "until": 2.0,
        "escape": 1e6,
        "events": (Event(Quantity(of="differences"), 1.0),),
        "observe": (Observable(Quantity(), "integral"),),
    }
    many, rows = integrate(system, x, **options), [0, 1, 2, 1000, 2047]
    few = integrate(system.rows(rows), x[rows], **options)
    assert torch.equal(many.steps[rows], few.steps)
    assert all(same(getattr(many, name)[rows], getattr(few, name)) for name in FIELDS)


def test_threads_share_out_the_rows_without_a_trace():
    system, x = systems(300, 3, 2, seed=2)
    alone = integrate(system, x, until=3.0, escape=1e6)
    torch.set_num_threads(3)
    try:
        shared = integrate(system, x, until=3.0, escape=1e6)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(alone.steps, shared.steps)
    assert all(same(getattr(alone, name), getattr(shared, name)) for name in FIELDS)


@pytest.mark.parametrize("scale", [1.0, 30.0])  # at 30 some scores exceed what an exponential can take
def test_one_exponential_for_each_pair_is_enough_for_symmetric_scores(scale, monkeypatch):
    system, x = systems(24, 5, 3, seed=3, scale=scale)
    pairs = integrate(system, x, until=0.3, backend="numba")
    monkeypatch.setattr(numba_backend, "_symmetric", lambda kernel: torch.zeros(1, dtype=torch.bool))
    each = integrate(system, x, until=0.3, backend="numba")
    # The scores themselves round differently: the trajectories agree to the integrator's tolerance.
    torch.testing.assert_close(pairs.states, each.states, rtol=1e-7, atol=1e-7)


def test_a_matrix_that_is_symmetric_but_for_one_entry_is_not_taken_for_symmetric():
    W, V, x = torch.eye(2).double()[None], -torch.eye(2).double()[None], gaussian(1, 3, 2, seed=4)
    bent = W.clone()
    bent[0, 0, 1] = 1e-6
    straight, other = (integrate(AttentionSystem(M, V), x, until=1.0).states for M in (W, bent))
    torch_states = integrate(AttentionSystem(bent, V), x, until=1.0, backend="torch").states
    assert not torch.equal(straight, other)
    torch.testing.assert_close(other, torch_states, rtol=1e-9, atol=1e-9)


def test_rows_without_a_first_velocity_are_invalid_and_leave_nothing():
    """V x overflows in row 1; its neighbours in the lanes are not touched."""
    W, V = torch.eye(2).double().repeat(LANES, 1, 1), -torch.eye(2).double().repeat(LANES, 1, 1)
    x = gaussian(LANES, 3, 2, seed=5)
    V[1], x[1] = 1e300, 1e90 * x[1]
    watched = {"events": (Event(Quantity(), 0.0),), "observe": (Observable(Quantity()),)}
    found = integrate(AttentionSystem(W, V), x, until=1.0, backend="numba", **watched)
    assert found.outcome[1] == Outcome.INVALID
    assert found.states[1].isnan().all()
    assert found.events[1].isnan().all()
    assert found.observed[1].isnan().all()
    keep = [0, *range(2, LANES)]
    alone = integrate(AttentionSystem(W[keep], V[keep]), x[keep], until=1.0, **watched)
    assert all(same(getattr(found, name)[keep], getattr(alone, name)) for name in FIELDS)


def test_a_stiff_row_is_handed_over_before_its_steps_run_out():
    """Contracting tokens of size 300: explicit steps are bounded by stability."""
    g = torch.Generator().manual_seed(6)
    W, A = random_form(2, 2, positive=2, generator=g), random_form(2, 2, positive=0, generator=g)
    system, x = AttentionSystem.from_response(W, A), 300 * gaussian(2, 4, 2, seed=7)
    solution = integrate(system, x, until=2.0, max_steps=4000)
    assert (solution.outcome == Outcome.REACHED).all()
    assert (solution.stiff_steps > 0).any()
    reference = integrate(system, x, until=2.0, method="dormand-prince", rtol=1e-10, max_steps=10**7)
    torch.testing.assert_close(solution.states, reference.states, rtol=1e-6, atol=3e-4)  # 1e-6 of the size
