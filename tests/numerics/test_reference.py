"""Both back-ends against closed forms, and against DOP853 on a velocity written here in NumPy."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from numerics import AttentionSystem, Outcome, integrate
from numerics.encodings import rotary_turns, turns_from_matrix
from numerics.families import random_form, random_tokens, random_value_with_left_eigenvector
from numerics.observables import hyperplane

f64 = partial(torch.tensor, dtype=torch.float64)


@pytest.fixture(params=["torch", "numba"])
def backend(request):
    return request.param


@pytest.fixture
def solve(backend):
    """The states of ``integrate`` at the given times; every row must get to the end."""

    def states(system, start, times, **options):
        times = torch.as_tensor(times, dtype=torch.float64)
        solution = integrate(
            system, start, times, backend=backend, **{"rtol": 1e-10, "atol": 1e-12, **options}
        )
        assert (solution.outcome == Outcome.REACHED).all()
        return solution.states * solution.log_scale.exp()[..., None, None]

    return states


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance=1e-8):
    """Relative to the largest entry of each trajectory: a hundred steps at rtol 1e-10, and their growth."""
    size = expected.abs().flatten(1).amax(1).view(-1, *[1] * (expected.ndim - 1))
    assert ((actual - expected).abs() <= tolerance * size).all()


# Closed forms


@pytest.mark.parametrize("n", [1, 3])
def test_equal_tokens_follow_the_linear_flow(solve, n):
    """T6: x(t) = e^{Vt} x(0) for a single token, or equal ones, whatever W."""
    W, V, x, t = *gaussian(2, 9, 3, 3, seed=1), gaussian(9, 1, 3, seed=2), f64([0, 0.5, 2])
    exact = torch.matrix_exp(V[:, None] * t[:, None, None]) @ x[:, 0, None, :, None]
    close(solve(AttentionSystem(W, V), x.repeat(1, n, 1), t), exact.mT.expand(-1, -1, n, -1))


NORMAL = gaussian(6, 4, 4, seed=3)
LINEAR = {
    "plain": {},
    "causal": {"causal": True},
    "bias": {"bias": NORMAL},
    "causal with bias": {"causal": True, "bias": NORMAL},
    "hidden tokens": {"bias": torch.where(NORMAL + 2 * torch.eye(4) > 0.2, f64(0.0), -torch.inf)},
    "encoded": {"positions": gaussian(6, 4, 3, seed=5), "positions_in": "scores and values"},
}


@pytest.mark.parametrize("name", LINEAR)
def test_constant_attention_is_a_linear_flow(solve, name):
    """W = 0, P = softmax(bias): x + p = exp(t P ⊗ V) (x(0) + p), where p = 0 without encoding."""
    switches = LINEAR[name]
    V, x, t = gaussian(6, 3, 3, seed=6), gaussian(6, 4, 3, seed=7), f64([0, 0.4, 1.5])
    scores = switches.get("bias", torch.zeros(6, 4, 4)).double()
    if "causal" in switches:
        scores = scores.masked_fill(torch.ones(4, 4).triu(1).bool(), -torch.inf)
    P, p = scores.softmax(-1), switches.get("positions", torch.zeros_like(x))
    exact = []
    for i in range(6):
        flow = torch.matrix_exp(torch.kron(P[i], V[i]) * t[:, None, None])
        exact.append((flow @ (x[i] + p[i]).flatten()).view(3, 4, 3) - p[i])
    close(solve(AttentionSystem(torch.zeros_like(V), V, **switches), x, t), torch.stack(exact))


def test_turned_values_under_constant_attention(solve):
    """Q = 0: ẋ_i = R_iᵀ mean_j(R_j V x_j), so y = R x has ẏ_i = mean_j(R_j V R_jᵀ y_j), a linear flow."""
    V, skew = gaussian(2, 5, 3, 3, seed=8)
    x, t = gaussian(5, 4, 3, seed=9), f64([0, 1])
    turns = turns_from_matrix(torch.matrix_exp(skew - skew.mT), 4)
    zero = torch.zeros_like(V)
    system = AttentionSystem.from_projections(zero, V, V, turns=turns, rotated_values=True)
    each = turns @ V[:, None] @ turns.mT / 4
    row = torch.cat(list(each.unbind(1)), -1)  # (batch, d, n·d), the same for every i
    flow = torch.matrix_exp(row.repeat(1, 4, 1))
    y = (turns @ x[..., None]).flatten(1)[..., None]
    exact = (turns.mT @ (flow @ y).view(5, 4, 3, 1))[..., 0]
    close(solve(system, x, t)[:, 1], exact)


@pytest.mark.parametrize("sign", [1, -1])
def test_two_opposite_numbers(solve, sign):
    """d = 1, tokens ±x: ẋ = v x tanh(w x²), so 2 v t = ∫ ds/(s tanh s) from w x(0)² to w x(t)²."""
    w, x, t = f64([0.3, 1.0, 2.5]), f64([0.5, 1.1, 0.8]), 1.5
    v = sign * f64([0.4, 0.7, 1.2])
    start = torch.stack([x, -x], 1)[..., None]
    end = solve(AttentionSystem(w.view(3, 1, 1), v.view(3, 1, 1)), start, [0, t])[:, 1, :, 0]
    close(end[:, 1:], -end[:, :1])
    for begin, until, rate in zip(
        (w * x**2).tolist(), (w * end[:, 0] ** 2).tolist(), v.tolist(), strict=True
    ):
        integral = quad(lambda s: 1 / (s * math.tanh(s)), begin, until, epsabs=1e-12, epsrel=1e-12)[0]
        assert integral == pytest.approx(2 * rate * t, rel=1e-8)


@pytest.mark.parametrize("variant", ["plain", "causal", "rotary"])
def test_one_side_of_a_hyperplane(solve, variant):
    """T17: e^{λt} min z ≤ z_i(t) ≤ e^{λt} max z for any scores. Slack: errors relative to the norm."""
    g = torch.Generator().manual_seed(11)
    rate = torch.arange(1, 9).double() / 8
    V, ell = random_value_with_left_eigenvector(8, 4, rate, g)
    x = random_tokens(8, 5, 4, 0.5, g)
    x = x * hyperplane(x, ell).sign()[..., None]
    switches = {"causal": variant == "causal", "turns": rotary_turns(5, 4) if variant == "rotary" else None}
    Q, K = gaussian(2, 8, 4, 4, seed=12) / 3
    system = AttentionSystem.from_projections(Q, K, V, **switches)
    t = f64([0, 0.5, 1.5])
    states = solve(system, x, t)
    z = torch.einsum("btnd,bd->btn", states, ell)
    slack = 1e-7 * states.abs().amax((2, 3)) * ell.abs().sum(1)[:, None]
    growth = (rate[:, None] * t).exp()
    assert (z.amin(2) >= growth * z[:, :1].amin(2) - slack).all()
    assert (z.amax(2) <= growth * z[:, :1].amax(2) + slack).all()


def test_growth_beyond_the_range_of_numbers(backend):
    """n = 1, V = λ on the diagonal: log max|x| = λt + log max|x(0)|, here up to 10^1042."""
    rate = f64([0.5, 1.0, 1.5])
    V = rate[:, None, None] * torch.eye(2).double()
    options = {"rtol": 1e-10, "atol": 1e-12, "escape": math.inf, "backend": backend}
    solution = integrate(
        AttentionSystem(gaussian(3, 2, 2, seed=13), V),
        torch.ones(3, 1, 2).double(),
        f64([0, 1600]),
        **options,
    )
    torch.testing.assert_close(solution.log_norm[:, 1], 1600 * rate, rtol=1e-8, atol=0)


def test_collapse_has_a_universal_covariance(solve):
    """T9: Cov⁻¹ grows by 2 Wᵀ(−A)⁻¹W per unit of time, whatever the start.

    The cubic law holds up to terms of higher order in the tokens, a share 1/t of it: within 2 % from t = 100
    on, and three times better at t = 400 than at t = 100.
    """
    g = torch.Generator().manual_seed(14)
    W = random_form(6, 2, positive=2, generator=g)
    A = random_form(6, 2, positive=0, generator=g)
    t = f64([0, 100, 200, 400, 800])
    states = solve(AttentionSystem.from_response(W, A), random_tokens(6, 5, 2, 1.0, g), t, rtol=1e-8)[:, 1:]
    centred = states - states.mean(2, keepdim=True)
    inverse = torch.linalg.inv(centred.mT @ centred / 5)
    slope = inverse.diff(dim=1) / t[1:].diff()[:, None, None]
    expected = -2 * W.mT @ torch.linalg.solve(A, W)
    norm = torch.linalg.matrix_norm
    error = norm(slope - expected[:, None]) / norm(expected)[:, None]
    assert (error[:, 0] < 0.02).all()
    assert (error[:, 2] < error[:, 0] / 3).all()


# Against DOP853


SIZES = ((1, 2), (2, 3), (3, 2), (4, 3), (5, 4))  # (n, d)
OFF_ON = (False, True)
ENCODED, ROTARY = (None, "scores", "scores and values"), (None, "turned", "values")
SWITCHES = list(product(OFF_ON, OFF_ON, ENCODED, ROTARY, OFF_ON, OFF_ON))  # as random_system unpacks them
ROWS, END = 4, 0.4


def random_system(index):
    """ROWS systems of ordinary size with the index-th combination of switches, and their start."""
    causal, biased, encoded, rotary, heads, sphere = SWITCHES[index]
    n, d = SIZES[index % len(SIZES)]
    shape, seed = (ROWS, 2) if heads else (ROWS,), 1000 * index
    Q, K, V = gaussian(3, *shape, d, d, seed=seed)
    switches = {"causal": causal, "sphere": sphere}
    if biased:
        switches["bias"] = gaussian(*shape, n, n, seed=seed + 1)
    if encoded:
        switches |= {"positions": gaussian(ROWS, n, d, seed=seed + 2), "positions_in": encoded}
    if rotary:
        skew = gaussian(ROWS, d, d, seed=seed + 3)
        switches["turns"] = turns_from_matrix(torch.matrix_exp(skew - skew.mT), n)
    x = gaussian(ROWS, n, d, seed=seed + 4)
    x = torch.nn.functional.normalize(x, dim=-1) if sphere else x
    return AttentionSystem.from_projections(Q, K, V, rotated_values=rotary == "values", **switches), x


def velocity(system, row):
    """ẋ(x) of one system in NumPy, token by token from the definition."""
    d = system.dim
    W, V = (part[row].numpy().reshape(-1, d, d) for part in (system.score, system.value))
    p, b = (None if part is None else part[row].numpy() for part in (system.positions, system.bias))
    rotary = system.rotary
    if rotary:
        R = rotary.turns[row].numpy()
        Q, K = (part[row].numpy().reshape(W.shape) for part in (rotary.query, rotary.key))

    def heads(x):
        y = x if p is None else x + p
        for h in range(len(W)):
            scores = y @ W[h] @ y.T
            if rotary:
                queries, keys = (np.einsum("iab,ib->ia", R[: len(x)], y @ part[h].T) for part in (Q, K))
                scores = queries @ keys.T
            if b is not None:
                scores = scores + (b[h] if b.ndim == 3 else b)
            if system.causal:
                scores[np.triu_indices(len(x), 1)] = -np.inf
            weights = np.exp(scores - scores.max(1, keepdims=True))
            weights /= weights.sum(1, keepdims=True)
            values = (y if system.positions_in == "scores and values" else x) @ V[h].T
            if rotary and rotary.rotated_values:
                mean = weights @ np.einsum("jab,jb->ja", R, values)
                yield np.einsum("iab,ia->ib", R, mean)
            else:
                yield weights @ values

    def whole(x):
        total = sum(heads(x))
        return total - (x * total).sum(1, keepdims=True) * x if system.sphere else total

    return whole


@pytest.fixture(scope="module")
def references():
    """(system, start, end at t = END) for each combination of switches, DOP853 at rtol 1e-12, atol 1e-14."""
    found = []
    for index in range(len(SWITCHES)):
        system, x = random_system(index)
        ends = []
        for row in range(ROWS):
            f, shape = velocity(system, row), x.shape[1:]
            y = solve_ivp(
                lambda _, y, f=f, shape=shape: f(y.reshape(shape)).ravel(),
                (0, END),
                x[row].numpy().ravel(),
                "DOP853",
                rtol=1e-12,
                atol=1e-14,
            ).y
            ends.append(y[:, -1].reshape(shape))
        found.append((system, x, torch.from_numpy(np.stack(ends))))
    return found


def test_every_combination_of_switches(solve, references):
    """576 systems; errors relative to the norm of the end.

    Ten to fifty steps of rtol 1e-9 err by less than that each, and the flow may amplify it by e^{‖Df‖ END}:
    one tolerance in the middle, ten at the worst.
    """
    errors = torch.cat(
        [
            (solve(system, x, [0, END], rtol=1e-9)[:, 1] - end).abs().amax((1, 2)) / end.abs().amax((1, 2))
            for system, x, end in references
        ]
    )
    assert len(errors) == 576
    median, p99, largest = errors.quantile(f64([0.5, 0.99, 1.0])).tolist()
    print(f"median {median:.1e}, p99 {p99:.1e}, max {largest:.1e}")
    assert median < 1e-9
    assert p99 < 5e-9
    assert largest < 1e-8
