import math
import shutil
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from numerics import AttentionSystem, Event, InputError, Outcome, Quantity, integrate, torch_backend
from numerics.encodings import alibi_bias, rotary_turns, turns_from_matrix
from numerics.families import random_form, random_tokens, random_value_with_left_eigenvector
from numerics.observables import hyperplane, norms

f64 = partial(torch.tensor, dtype=torch.float64)
BOTH = pytest.mark.parametrize("backend", ["auto", "torch"])


def times(*values):
    return f64(values)


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def outcomes(solution):
    return [Outcome(code).name for code in solution.outcome.tolist()]


ROWWISE = (
    "states",
    "log_scale",
    "outcome",
    "steps",
    "stiff_steps",
    "last_time",
    "events",
    "observed",
)


def assert_same(alone, together, rows):
    """Every field of these rows to the last bit, NaN in the same places."""
    for name in ROWWISE:
        expected, actual = getattr(together, name)[rows], getattr(alone, name)
        assert torch.equal(actual.isnan(), expected.isnan()), (rows, name)
        assert torch.equal(actual.nan_to_num(9e99), expected.nan_to_num(9e99)), (rows, name)


# Closed forms


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4))
def test_equal_tokens_follow_the_linear_flow(seed, n, d):
    """n = 1, or all tokens equal: x(t) = e^{Vt} x(0), whatever W (T6)."""
    W, V = gaussian(2, 3, d, d, seed=seed)
    start = gaussian(3, 1, d, seed=seed + 1).repeat(1, n, 1)
    t = times(0.0, 0.3, 1.0, 1.5)
    solution = integrate(AttentionSystem(W, V), start, t)
    exact = torch.einsum("btac,bnc->btna", torch.linalg.matrix_exp(V[:, None] * t[:, None, None]), start)
    assert (solution.outcome == Outcome.REACHED).all()
    close(solution.states, exact, 2e-6)
    assert torch.equal(solution.states, solution.states[:, :, :1].expand_as(solution.states))


def test_without_scores_the_mean_obeys_the_linear_flow():
    """W = 0: ẋ_i = V x̄ for all i, so x_i(t) = x_i(0) + (e^{Vt} − I) x̄(0)."""
    V, start = gaussian(4, 3, 3, seed=1), gaussian(4, 5, 3, seed=2)
    t = times(0.0, 0.7, 2.0)
    solution = integrate(AttentionSystem(torch.zeros_like(V), V), start, t)
    mean = start.mean(1, keepdim=True)
    moved = (
        torch.einsum("btac,bnc->btna", torch.linalg.matrix_exp(V[:, None] * t[:, None, None]), mean)
        - mean[:, None]
    )
    close(solution.states, start[:, None] + moved, 1e-6)


def test_one_side_of_a_hyperplane():
    """T17: e^{λt} min z ≤ z_i(t) ≤ e^{λt} max z for any W; the slack is the tolerance."""
    g = torch.Generator().manual_seed(3)
    rate = torch.arange(1, 7).double() / 8
    V, ell = random_value_with_left_eigenvector(6, 3, rate, g)
    x = random_tokens(6, 4, 3, 1.0, g)
    x = x * hyperplane(x, ell).sign()[..., None]
    t = torch.linspace(0, 4, 9, dtype=torch.float64)
    solution = integrate(AttentionSystem(gaussian(6, 3, 3, seed=4), V), x, t)
    z = torch.einsum("btnd,bd->btn", solution.states, ell)
    scaled = z * torch.exp(-rate[:, None] * t)[..., None]
    slack = 1e-6 * norms(solution.states.flatten(0, 1)).amax(-1).view(6, 9, 1)
    assert (scaled >= scaled[:, :1].amin(-1, keepdim=True) - slack).all()
    assert (scaled <= scaled[:, :1].amax(-1, keepdim=True) + slack).all()


def test_open_counterexample_of_theory_r1_reaches_1e8():
    W, V = times(1, -2, 2, 1).view(1, 2, 2), -times(7, 1, -1, 7).view(1, 2, 2) / 10
    solution = integrate(AttentionSystem(W, V), times(4, 0, -2, 3, -2, -3).view(1, 3, 2), times(0, 40))
    assert norms(solution.states[:, -1]).max() > 1e8


def test_negative_response_and_score_keep_a_gap():
    """T10: d = 1, W = A = −1, V = 1, tokens 1 and 2: the gap tends to 0.907."""
    one = torch.ones(1, 1, 1).double()
    solution = integrate(AttentionSystem(-one, one), times(1, 2).view(1, 2, 1), times(0, 8))
    assert solution.states[0, -1].diff(dim=0).item() == pytest.approx(0.907, abs=5e-4)


# Against an independent integrator


@pytest.mark.parametrize("n", range(1, 7))
def test_agrees_with_scipy(n):
    """Ten systems for each n, Gaussian W and V, d = 1…4, against DOP853 at rtol 1e-12, atol 1e-14.

    Each of some hundred steps may err by 1e-10 of the largest coordinate, and the flow carries that along:
    an error may grow by e^{‖Df‖t}, while the solution it is measured against grows with it. Agreement to 1e-7
    leaves a factor of ten for what the flow adds.
    """
    t = times(0.0, 0.4, 1.0, 1.5)
    for seed in range(10):
        d = 1 + seed % 4
        W, V = gaussian(2, 1, d, d, seed=100 * n + seed)
        system, start = AttentionSystem(W, V), gaussian(1, n, d, seed=7000 + 100 * n + seed)
        solution = integrate(system, start, t, rtol=1e-10, atol=1e-12)

        w, v = W[0].numpy(), V[0].numpy()

        def velocity(_, y, w=w, v=v, shape=(n, d)):
            x = y.reshape(shape)
            s = x @ w @ x.T
            p = np.exp(s - s.max(1, keepdims=True))
            return (p / p.sum(1, keepdims=True) @ x @ v.T).ravel()

        reference = solve_ivp(
            velocity, (0, 1.5), start.numpy().ravel(), "DOP853", t.numpy(), rtol=1e-12, atol=1e-14
        ).y.T.reshape(len(t), n, d)
        assert np.abs(solution.states[0].numpy() - reference).max() <= 1e-7 * (1 + np.abs(reference).max())


def test_error_follows_the_tolerance():
    system = AttentionSystem(*gaussian(2, 8, 3, 3, seed=11))
    start = gaussian(8, 4, 3, seed=12)
    best = integrate(system, start, times(0, 1), rtol=1e-13, atol=1e-14).states[:, 1]
    errors, steps = [], []
    for rtol in (1e-4, 1e-6, 1e-8, 1e-10):
        solution = integrate(system, start, times(0, 1), rtol=rtol, atol=rtol / 100)
        errors.append((solution.states[:, 1] - best).abs().max().item())
        steps.append(solution.steps.sum().item())
    assert all(later < earlier / 10 for earlier, later in pairwise(errors))
    assert steps == sorted(steps)


def test_more_output_times_change_the_answer_within_tolerance_only():
    system, start = AttentionSystem(*gaussian(2, 5, 3, 3, seed=21)), gaussian(5, 4, 3, seed=22)
    few = integrate(system, start, times(2.0, 3.5))
    many = integrate(system, start, torch.linspace(2.0, 3.5, 61, dtype=torch.float64))
    close(many.states[:, -1], few.states[:, -1], 1e-5)
    assert torch.equal(many.states[:, 0], start)
    assert (many.last_time == 3.5).all()
    shifted = integrate(system, start, times(0.0, 1.5))
    close(shifted.states, few.states, 1e-6)


# Switches


def variant(name, batch, n, d, seed):
    """A random system of the named variant with tokens of ordinary size."""
    q, k, V, p, x = (gaussian(batch, d if m < 3 else n, d, seed=seed + m) for m in range(5))
    heads = gaussian(3, batch, 2, d, d, seed=seed + 5)
    slopes = gaussian(batch, seed=seed + 6).abs()
    switches = {
        "causal": {"causal": True},
        "encoded scores": {"positions": p},
        "encoded scores and values": {"positions": p, "positions_in": "scores and values"},
        "bias": {"bias": alibi_bias(n, slopes)},
        "rotary": {"turns": rotary_turns(n + 2, d, d_rot=2)},
        "rotated values": {"turns": turns_from_matrix(torch.matrix_exp(q - q.mT), n), "rotated_values": True},
        "heads": {},
        "all": {
            "causal": True,
            "positions": p,
            "bias": alibi_bias(n, gaussian(batch, 2, seed=seed + 6).abs()),
            "turns": rotary_turns(n, d, d_rot=2),
        },
        "sphere": {"sphere": True},
        "all on the sphere": {
            "sphere": True,
            "causal": True,
            "positions": p,
            "positions_in": "scores and values",
            "bias": alibi_bias(n, slopes),
            "turns": turns_from_matrix(torch.matrix_exp(q - q.mT), n),
            "rotated_values": True,
        },
    }[name]
    weights = heads if name == "heads" or name.startswith("all") else (q, k, V)
    x = torch.nn.functional.normalize(x, dim=-1) if "sphere" in switches else x
    return AttentionSystem.from_projections(*weights, **switches), x


VARIANTS = [
    "causal",
    "encoded scores",
    "encoded scores and values",
    "bias",
    "rotary",
    "rotated values",
    "heads",
    "all",
    "sphere",
    "all on the sphere",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_switch_agrees_with_scipy(name):
    """As above; the velocity itself is tested against its definition in test_system."""
    t = times(0.0, 0.4, 1.0)
    for seed in (100, 200):
        system, start = variant(name, 1, 4, 3, seed)
        solution = integrate(system, start, t, rtol=1e-10, atol=1e-12)
        reference = solve_ivp(
            lambda _, y, system=system: system.velocity(f64(y).view(1, 4, 3)).flatten().numpy(),
            (0, 1.0),
            start.flatten().numpy(),
            method="DOP853",
            t_eval=t,
            rtol=1e-12,
            atol=1e-14,
        )
        expected = torch.from_numpy(reference.y.T.copy()).view(1, 3, 4, 3)
        error = (solution.states - expected).abs().max() / (1 + expected.abs().max())
        assert error < 1e-7


@BOTH
@pytest.mark.parametrize("name", VARIANTS)
def test_no_switch_lets_batch_mates_interfere(name, backend):
    system, x = variant(name, 13, 4, 3, 300)
    system.value[3] *= 20  # ends early or late
    system.score[5] = torch.nan
    if not system.sphere:
        x[8] *= 50
    options = {"times": times(0, 0.3, 1, 2), "max_steps": 120, "escape": 1e12, "backend": backend}
    together = integrate(system, x, **options)
    assert {"REACHED", "INVALID"} <= set(outcomes(together))
    for rows in ([0], [3, 12], [8, 5, 1], list(range(12, 0, -1))):
        alone = integrate(system.rows(rows), x[rows], **options)
        assert_same(alone, together, rows)


def test_the_first_token_of_a_causal_system_follows_the_linear_flow():
    """T14c with heads: x_1(t) = exp(t Σ_h V_h) x_1(0), whatever the rest."""
    W, V = gaussian(2, 4, 2, 3, 3, seed=61)
    start, t = gaussian(4, 3, 3, seed=62), times(0, 0.5, 1)
    solution = integrate(AttentionSystem(W, V, causal=True), start, t)
    exact = torch.matrix_exp(V.sum(1)[:, None] * t[:, None, None]) @ start[:, None, 0, :, None]
    close(solution.states[:, :, 0], exact[..., 0], 2e-6)


def test_tokens_encoded_in_scores_and_values_do_not_collapse():
    """T12: x + p obeys the plain system, here a convergent one, so x_i → −p_i."""
    g = torch.Generator().manual_seed(63)
    W, A = random_form(3, 2, positive=2, generator=g), random_form(3, 2, positive=0, generator=g)
    plain, p, start = (
        AttentionSystem.from_response(W, A),
        gaussian(3, 4, 2, seed=64),
        gaussian(3, 4, 2, seed=65),
    )
    t = times(0, 1, 300)
    encoded = AttentionSystem(W, plain.value, positions=p, positions_in="scores and values")
    states = integrate(encoded, start, t).states
    close(states + p[:, None], integrate(plain, start + p, t).states, 1e-5)
    left = norms(states[:, -1] + p).amax(-1) / norms(start + p).amax(-1)
    assert (left < 0.3).all()  # like t^{−1/2}, far from the 0 that x itself would tend to


def test_rotated_values_change_the_frame_only():
    """T13 in the plane, where rotations commute with Q, K, V = a + b·J: R_i x_i obeys the plain system."""
    J = times(0, -1, 1, 0).view(2, 2)
    q, k, V = (a * torch.eye(2).double() + b * J for a, b in gaussian(3, 2, 5, 1, 1, seed=66))
    turns, start, t = rotary_turns(4, 2), gaussian(5, 4, 2, seed=67), times(0, 1)
    system = AttentionSystem.from_projections(q, k, V, turns=turns, rotated_values=True)
    states = integrate(system, start, t).states
    turned = integrate(
        AttentionSystem.from_projections(q, k, V), torch.einsum("nac,bnc->bna", turns, start), t
    )
    close(torch.einsum("nac,btnc->btna", turns, states), turned.states, 1e-5)


# The sphere


def test_tokens_stay_on_the_sphere_even_where_it_repels():
    """V = −I pushes a lone token off any sphere but its own: ẋ = (‖x‖² − 1) x doubles an error every 0.35."""
    V = torch.cat([-torch.eye(3).double()[None], gaussian(5, 3, 3, seed=71)])
    start = torch.nn.functional.normalize(gaussian(6, 4, 3, seed=72), dim=-1)
    solution = integrate(AttentionSystem(gaussian(6, 3, 3, seed=73), V, sphere=True), start, times(0, 1, 50))
    assert outcomes(solution) == ["REACHED"] * 6
    assert ((norms(solution.states.flatten(0, 1)) - 1).abs() < 1e-14).all()


def test_two_tokens_on_a_circle():
    """W = 0, V = I, angle θ between two tokens: θ' = −sin θ, so tan(θ/2) = tan(θ_0/2) e^{−t}."""
    angle = times(0.3, 1.5, 3.0)
    start = torch.stack([torch.stack([angle.cos(), angle.sin()], 1), f64([[1.0, 0.0]] * 3)], 1)
    zero = torch.zeros(3, 2, 2).double()
    system = AttentionSystem(zero, zero + torch.eye(2).double(), sphere=True)
    end = integrate(system, start, times(0, 2)).states[:, 1]
    left = torch.acos((end[:, 0] * end[:, 1]).sum(-1))
    close(left, 2 * torch.atan((angle / 2).tan() * math.exp(-2)), 1e-6)


def test_sphere_starts_on_the_sphere():
    one = torch.eye(2).double().expand(4, 2, 2)
    start = torch.nn.functional.normalize(gaussian(4, 4, 2, seed=74), dim=-1)
    start[3, 1] = torch.inf
    start[1, 2], start[2, 0] = start[1, 2] * 1.001, torch.nan
    system = AttentionSystem(one, one, sphere=True)
    with pytest.raises(InputError, match=r"x0: got tokens off the unit sphere in rows \[1\].*normalize"):
        integrate(system, start, times(0, 1))
    start[1, 2] /= 1.001
    assert outcomes(integrate(system, start, times(0, 1))) == ["REACHED", "REACHED", "INVALID", "INVALID"]


# Outcomes


def mixed_batch():
    """Ordinary, NaN weight, diverging, NaN start, stiff, starting beyond escape, overflowing velocity."""
    eye = torch.eye(2).double()
    V = torch.stack([-eye, eye * torch.nan, 40 * eye, -eye, -1e5 * eye, eye, eye * 1e300])
    W = torch.stack([eye] * 7)
    x = gaussian(7, 3, 2, seed=31)
    x[3, 0, 0] = torch.nan
    x[4] = torch.tensor([[300.0, 0.1], [299.0, 80.0], [-250.0, 30.0]])
    x[5] *= 1e150
    x[6] *= 1e20
    return AttentionSystem(W, V), x


def test_each_row_has_its_own_outcome():
    system, x = mixed_batch()
    solution = integrate(system, x, times(0, 1, 2, 30), max_steps=5000, method="dormand-prince")
    assert outcomes(solution) == ["REACHED", "INVALID", "ESCAPED", "INVALID", "STALLED", "ESCAPED", "INVALID"]
    assert solution.states[0].isfinite().all()
    assert solution.states[[1, 3, 6]].isnan().all()
    assert torch.equal(solution.states[5, 0], x[5])
    assert solution.states[5, 1:].isnan().all()
    assert solution.steps.tolist()[4] == 5000
    assert (solution.steps[[1, 3, 5, 6]] == 0).all()
    assert (solution.last_time[[1, 3, 5, 6]] == 0).all()
    # escaping: e^{40 t} passes 1e100 near t = 100 log(10)/40
    assert solution.last_time[2].item() == pytest.approx(100 * math.log(10) / 40, rel=0.05)
    reached = solution.times[None] <= solution.last_time[:, None]
    reached[[1, 3, 6]] = False
    assert torch.equal(solution.states.isfinite().all((2, 3)), reached)


def test_explain_names_rows_and_what_to_do():
    system, x = mixed_batch()
    text = integrate(system, x, times(0, 30), max_steps=5000, method="dormand-prince").explain()
    assert "REACHED 1 of 7 (rows 0)" in text
    assert "STALLED 1 of 7 (rows 4)" in text
    assert "raise max_steps" in text
    assert "INVALID 3 of 7 (rows 1, 3, 6)" in text
    assert "not a proof of divergence" in text


def test_a_clock_far_from_zero_does_not_stall_fast_systems():
    """At t = 1e12 the clock ticks in 1e-4, far above the step that V = −1e7 needs; elapsed time does not."""
    V = f64([[[-1e7]]])
    solution = integrate(AttentionSystem(torch.zeros_like(V), V), V, times(1e12, 1e12 + 1e-3))
    assert outcomes(solution) == ["REACHED"]
    assert solution.states[0, 1].abs().max() < 1e-9  # from 1e7, after 1e4 times 1/|V|


def test_zero_start_and_empty_batch():
    system = AttentionSystem(*gaussian(2, 1, 2, 2, seed=41))
    solution = integrate(system, torch.zeros(1, 3, 2).double(), times(0, 5))
    assert torch.equal(solution.states, torch.zeros(1, 2, 3, 2).double())
    empty = integrate(system.rows([]), torch.zeros(0, 3, 2).double(), times(0, 5))
    assert empty.states.shape == (0, 2, 3, 2)


def test_a_small_absolute_tolerance_follows_decay():
    system = AttentionSystem(torch.zeros(1, 1, 1).double(), f64([[[-1.0]]]))
    solution = integrate(system, f64([[[1.0]]]), times(0, 60), atol=1e-40)
    assert solution.states[0, -1, 0, 0].item() == pytest.approx(math.exp(-60), rel=1e-5)


# Log-radius


def scalar(rates):
    """One token in dimension one with velocity rate · x: x(t) = e^{rate t} x(0)."""
    V = f64(rates).view(-1, 1, 1)
    return AttentionSystem(torch.ones_like(V), V)


@BOTH
def test_norms_far_beyond_the_largest_number(backend):
    """x(t) = e^{rate t} x(0) up to e^{1200} ≈ 1e521: the log-norm follows, whatever the start."""
    start, t = f64([0.7, 1e-100, 1e200, -3.0]).view(4, 1, 1), times(0, 0.1, 10, 30)
    system = scalar([20.0, 40.0, 30.0, -1.0])
    solution = integrate(system, start, t, escape=math.inf, atol=1e-300, backend=backend)
    assert outcomes(solution) == ["REACHED"] * 4
    exact = start.abs().log().view(4, 1) + system.value.view(4, 1) * t
    assert (solution.log_norm - exact).abs().max() < 1e-5  # some fifty steps of 1e-8 each, and room
    assert torch.equal(solution.log_scale > 0, exact > math.log(1e300))
    assert solution.states.isfinite().all()
    assert (solution.states[3] < 0).all()
    plain = solution.log_scale == 0
    close(solution.states[plain].flatten().abs().log(), exact[plain], 1e-5)


@BOTH
def test_growth_to_1e400_on_one_side_of_a_hyperplane(backend):
    """T17 at norms where plain floats have long overflowed: log z_i(t) − λt stays within its range at 0."""
    g = torch.Generator().manual_seed(81)
    rate = f64([0.5, 1.0, 2.0])
    V, ell = random_value_with_left_eigenvector(3, 2, rate, g)
    x = random_tokens(3, 4, 2, 1.0, g)
    x = x * hyperplane(x, ell).sign()[..., None]
    ends = 400 * math.log(10) / rate
    for row in range(3):
        t, one = times(0, 0.3 * ends[row], ends[row]), slice(row, row + 1)
        system = AttentionSystem(gaussian(3, 2, 2, seed=82)[one], V[one])
        solution = integrate(system, x[one], t, escape=math.inf, backend=backend)
        assert outcomes(solution) == ["REACHED"]
        z = torch.einsum("tnd,d->tn", solution.states[0], ell[row]).log() + solution.log_scale[0][:, None]
        drift = z - rate[row] * t[:, None] - z[0, 0]
        largest = solution.log_norm[0] - z.amax(1)  # an error relative to the largest entry, not to z
        slack = 1e-4 * largest.exp()[:, None]
        assert (drift >= (z[0] - z[0, 0]).min() - slack).all()
        assert (drift <= (z[0] - z[0, 0]).max() + slack).all()


def test_a_row_goes_over_and_comes_back():
    """Growth that passes: V = [[−1, 40], [0, −1]] lifts (0, 1) to about 15, then lets it decay."""
    V = f64([[[-1.0, 40.0], [0.0, -1.0]]])
    start, t = f64([[[0.0, 1.0]]]), torch.linspace(0, 30, 61, dtype=torch.float64)
    solution = integrate(AttentionSystem(torch.zeros_like(V), V), start, t, atol=1e-14, backend="torch")
    exact = torch.stack([40 * t * torch.exp(-t), torch.exp(-t)], -1)
    assert exact.max() > 10  # beyond the 8 at which a growing row goes over
    assert ((solution.states[0, :, 0] - exact).abs() <= 1e-6 * exact[:, :1] + 1e-12).all()


def test_the_same_answer_in_both_coordinates():
    """Equal tokens follow the linear flow (T6), also where it makes them grow."""
    V = gaussian(6, 3, 3, seed=83) + 2 * torch.eye(3).double()
    start = gaussian(6, 1, 3, seed=84).repeat(1, 4, 1)
    t = times(0, 1, 3, 6)
    solution = integrate(AttentionSystem(gaussian(6, 3, 3, seed=85), V, causal=True), start, t)
    exact = torch.einsum("btac,bnc->btna", torch.linalg.matrix_exp(V[:, None] * t[:, None, None]), start)
    size = exact.abs().amax((-2, -1), keepdim=True)
    assert size.max() > 1e4
    assert ((solution.states - exact).abs() <= 1e-5 * size).all()


def test_escape_beyond_the_largest_number_is_a_threshold_too():
    end = integrate(scalar([1.0]), f64([[[1.0]]]), until=2000.0, escape=1e308, rtol=1e-10)
    assert outcomes(end) == ["ESCAPED"]
    assert end.last_time.item() >= 308 * math.log(10)


# Fixed steps


def test_fixed_steps_have_order_four_and_land_on_the_times():
    system, start = AttentionSystem(*gaussian(2, 5, 3, 3, seed=86)), gaussian(5, 4, 3, seed=87)
    t = times(0, 0.3, 1)
    best = integrate(system, start, t, rtol=1e-12, atol=1e-13).states
    errors = []
    for step in (0.02, 0.01, 0.005):
        solution = integrate(system, start, t, method="rk4", step=step)
        errors.append((solution.states - best).abs().amax((0, 2, 3))[1:].max())
        assert (solution.steps == round(1 / step)).all()
        assert (solution.last_time == 1).all()
    assert all(12 < a / b < 20 for a, b in pairwise(errors))  # 2⁴ = 16


def test_fixed_steps_keep_their_own_outcomes():
    system, x = mixed_batch()
    solution = integrate(system, x, times(0, 1, 2), method="rk4", step=0.01)
    assert outcomes(solution) == ["REACHED", "INVALID", "REACHED", "INVALID", "ESCAPED", "ESCAPED", "INVALID"]
    for rows in ([0], [2, 4]):
        alone = integrate(system.rows(rows), x[rows], times(0, 1, 2), method="rk4", step=0.01)
        assert_same(alone, solution, rows)
    short = integrate(system, x, times(0, 1, 2), method="rk4", step=0.01, max_steps=150)
    assert outcomes(short)[0] == "STALLED"
    assert short.states[0, 1].isfinite().all()
    assert short.states[0, 2].isnan().all()
    assert short.last_time[0].item() == pytest.approx(1.5)


# Compiled


def test_the_compiled_back_end_agrees():
    """To rounding: the compiler may fuse and reorder."""
    if not any(map(shutil.which, ("g++", "clang++", "cl"))):
        pytest.skip("torch.compile needs a C++ compiler on the CPU")
    system, x = AttentionSystem(*gaussian(2, 5, 1, 1, seed=88)), gaussian(5, 2, 1, seed=89)
    system.score[3] = torch.nan
    plain, compiled = (
        integrate(system, x, until=3, backend=name, method="dormand-prince") for name in ("torch", "compiled")
    )
    assert torch.equal(plain.outcome, compiled.outcome)
    assert (compiled.states - plain.states)[plain.outcome == Outcome.REACHED].abs().max() < 1e-9


def test_a_failing_compiler_is_named(monkeypatch):
    def broken(*_):
        raise torch_backend.CompileError("no compiler")

    monkeypatch.setattr(torch_backend, "run_compiled", broken)
    with pytest.raises(InputError, match=r"torch.compile failed.*backend='torch'"):
        integrate(ONE, torch.ones(1, 3, 2).double(), until=1, backend="compiled")


# Batch mates


@pytest.mark.parametrize("function", [torch.exp, torch.log])
def test_exp_and_log_do_not_depend_on_where_a_number_lies(function):
    """The platform's part of the promise below."""
    values = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    expected = function(values)
    assert torch.equal(torch.stack([function(v) for v in values]), expected)
    for start in range(40):
        assert torch.equal(function(values[start : start + 37]), expected[start : start + 37])


@BOTH
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 2), (7, 5)])
def test_answers_do_not_depend_on_batch_mates_to_the_last_bit(n, d, backend):
    g = torch.Generator().manual_seed(50 + n)
    W = random_form(37, d, positive=d, generator=g)
    A = random_form(37, d, positive=torch.arange(37) % (d + 1), generator=g)
    system = AttentionSystem.from_response(W, A)
    x = random_tokens(37, n, d, torch.linspace(0.1, 3.0, 37), g)
    system.score[4] = torch.nan
    system.value[9] *= 300  # overflows or is stiff
    x[14] *= 200  # stiff or fast
    x[20] = torch.inf
    t = torch.linspace(0, 2, 7, dtype=torch.float64)
    options = {"times": t, "max_steps": 150, "escape": 1e30, "backend": backend}
    together = integrate(system, x, **options)
    assert {"REACHED", "INVALID"} <= set(outcomes(together))
    for rows in ([0], [5], [36], [9, 14], [3, 4, 20, 11], list(range(36, 0, -2)), list(range(10, 27))):
        alone = integrate(system.rows(rows), x[rows], **options)
        assert_same(alone, together, rows)


# Bad arguments

ONE = AttentionSystem(torch.eye(2).double()[None], torch.eye(2).double()[None])
GOOD = {"system": ONE, "x0": torch.ones(1, 3, 2).double(), "times": times(0, 1)}


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("system", {"system": None}),
        ("x0", {"x0": torch.ones(3, 2).double()}),
        ("x0", {"x0": torch.ones(1, 0, 2).double()}),
        ("x0", {"x0": torch.ones(1, 3, 2)}),
        ("times", {"times": [0.0, 1.0]}),
        ("times", {"times": torch.arange(3)}),
        ("times", {"times": times(0.0)}),
        ("times", {"times": times(0.0, 0.0)}),
        ("times", {"times": times(1.0, 0.0)}),
        ("times", {"times": times(0.0, math.inf)}),
        ("times", {"times": times(0.0, math.nan)}),
        ("times", {"times": times(0, 1)[None]}),
        ("times", {"times": None}),
        ("times", {"until": 1.0}),
        ("until", {"times": None, "until": 0.0}),
        ("until", {"times": None, "until": math.nan}),
        ("until", {"times": None, "until": "1"}),
        ("until", {"times": None, "until": 10**400}),
        ("rtol", {"rtol": 0.0}),
        ("rtol", {"rtol": 1e-17}),
        ("rtol", {"rtol": math.nan}),
        ("atol", {"atol": -1e-9}),
        ("atol", {"atol": 0.0}),
        ("atol", {"atol": math.nan}),
        ("events[0].level", {"events": (Event(Quantity(), "1"),)}),
        ("events[0].quantity.form", {"events": (Event(Quantity(times(1, math.nan, 0, 1).view(2, 2)), 1.0),)}),
        ("max_steps", {"max_steps": 0}),
        ("max_steps", {"max_steps": 1.5}),
        ("max_steps", {"max_steps": math.inf}),
        ("max_steps", {"max_steps": 10**30}),
        ("escape", {"escape": 0.0}),
        ("escape", {"escape": math.nan}),
        ("backend", {"backend": "cuda"}),
        ("backend", {"backend": "numba", "dense": True}),
        ("backend", {"backend": "numba", "method": "rosenbrock"}),
        ("method", {"method": "dopri5"}),
        ("method", {"method": "rk4", "step": 0.1, "dense": True}),
        ("step", {"method": "rk4"}),
        ("step", {"step": 0.1}),
        ("step", {"method": "rk4", "step": 0.0}),
    ],
)
def test_bad_arguments(argument, change):
    with pytest.raises(InputError) as error:
        integrate(**{**GOOD, **change})
    assert error.value.argument == argument


def test_the_bad_entry_of_many_times_is_named():
    t = torch.arange(20.0, dtype=torch.float64)
    t[15] = math.nan
    with pytest.raises(InputError, match="entry 15"):
        integrate(ONE, GOOD["x0"], t)


def test_a_misspelt_choice_is_recognised():
    with pytest.raises(InputError, match="did you mean 'dormand-prince'"):
        integrate(**GOOD, method="dormand_prince")
    with pytest.raises(InputError, match="did you mean 'compiled'"):
        integrate(**GOOD, backend="compile")


# Far from the origin, in time and in space


def test_times_far_from_zero_cost_no_accuracy():
    """Time does not enter the velocity: from 1e15, where the next number is ⅛ away, tokens move as from 0."""
    t = times(0, 1, 4)
    near = integrate(ONE, GOOD["x0"], t, dense=True, events=(Event(Quantity(), 4.0),))
    far = integrate(ONE, GOOD["x0"], 1e15 + t, dense=True, events=(Event(Quantity(), 4.0),))
    assert torch.equal(near.states, far.states)
    assert torch.equal(far.last_time, 1e15 + near.last_time)
    assert torch.equal(far.events, 1e15 + near.events)
    assert torch.equal(far.dense(1e15 + t), near.dense(t))


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_scores_near_the_largest_number_do_not_give_a_wrong_answer(backend):
    """Where scores overflow a back-end may refuse the row, but not go on with equal weights."""
    R, x = times(1, 0.5, -0.3, 0.8).view(1, 2, 2), 3 * times(1, 0.3, -0.2, 0.9, 0.5, -0.4).view(1, 3, 2)
    expected = integrate(AttentionSystem(1e300 * R, R), x, until=0.5, backend="torch").states  # hard maxima
    for size in (1e306, 3e307, 1e308):
        found = integrate(AttentionSystem(size * R, R), x, until=0.5, backend=backend)
        if outcomes(found) == ["REACHED"]:
            close(found.states, expected, 1e-9)
        else:
            assert found.states[:, -1].isnan().all()


@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("power", [300, 540, 900])
def test_scores_of_a_huge_start_are_those_of_its_direction(power, backend):
    """Beyond 1e154 scores overflow; attention goes to the largest, as at 2^100, so that x(t) just scales."""
    system, x = (
        AttentionSystem(gaussian(8, 2, 2, seed=81), torch.eye(2).double().repeat(8, 1, 1)),
        gaussian(8, 4, 2, seed=82),
    )
    options = {"until": 1.0, "escape": math.inf, "max_steps": 900, "backend": backend}
    small, large = (integrate(system, x * 2.0**k, **options) for k in (100, power))
    both = (small.outcome == Outcome.REACHED) & (large.outcome == Outcome.REACHED)
    assert both.sum() >= 4
    gap = (
        small.states[both, -1]
        - large.states[both, -1] * 2.0 ** (100 - power) * large.log_scale[both, -1].exp()[:, None, None]
    )
    assert (gap.abs().amax((1, 2)) / small.states[both, -1].abs().amax((1, 2)) < 1e-5).all()


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_large_scores_beside_large_tokens_do_not_overflow(backend):
    """e^590 times tokens of size 1e60 is beyond the largest number; x' = −x̄ is not."""
    zero, x = torch.zeros(1, 2, 2).double(), 1e60 * gaussian(1, 3, 2, seed=83)
    system = AttentionSystem(zero, -torch.eye(2).double()[None], bias=torch.full((1, 3, 3), 590.0).double())
    end = integrate(system, x, until=1.0, backend=backend).states[:, -1]
    mean = x.mean(1, keepdim=True)
    close(end / 1e60, (x - mean + math.exp(-1) * mean) / 1e60, 1e-7)
