import math
from dataclasses import fields
from functools import partial

import pytest
import torch
from scipy.integrate import solve_ivp

from numerics import AttentionSystem, Outcome, Rotary, integrate
from numerics.dense import interpolate
from numerics.encodings import rotary_turns
from numerics.families import random_tokens, random_value_with_left_eigenvector
from numerics.observables import hyperplane
from numerics.quantities import Event, Observable, Quantity
from numerics.radial import pack, slope
from numerics.rosenbrock import RODAS, inverse, jacobian, solve, stages, supports
from numerics.system import batch_last

f64 = partial(torch.tensor, dtype=torch.float64)


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def variant(name, B=4, n=3, d=2):
    """A batch of systems with the switches that the name tells."""
    W, V = gaussian(2, B, *([2] if "heads" in name else []), d, d, seed=1)
    switches = {}
    if "bias" in name:
        switches["bias"] = gaussian(*W.shape[:-2], n, n, seed=2)
    if "hidden" in name:
        switches["bias"] = gaussian(B, n, n, seed=3).masked_fill(torch.eye(n).roll(1, 1).bool(), -math.inf)
    if "positions" in name:
        switches["positions"] = gaussian(B, n, d, seed=4)
    if "in values" in name:
        switches["positions_in"] = "scores and values"
    if "rotary" in name:
        query, key = gaussian(2, *W.shape, seed=5)
        W, switches["rotary"] = query.mT @ key, Rotary(query, key, rotary_turns(n, d), "turned" in name)
    return AttentionSystem(W, V, causal="causal" in name, sphere="sphere" in name, **switches)


VARIANTS = [
    "plain",
    "causal",
    "hidden",
    "positions",
    "positions in values, causal",
    "rotary",
    "turned rotary",
    "heads, rotary",
    "heads, bias, causal",
    "sphere",
    "sphere, rotary, positions",
]


def tokens(system, n=3, scale=1.0, seed=9):
    x = scale * gaussian(system.batch, n, system.dim, seed=seed)
    return torch.nn.functional.normalize(x, dim=-1) if system.sphere else x


# The parts of a step


@pytest.mark.parametrize("name", VARIANTS)
def test_jacobian_is_the_derivative_of_the_slope(name):
    """Against central differences; half of the rows grow. Their error is about (1e-5)² and 1e-16/1e-5."""
    system = variant(name)
    kernel, u = system.kernel(3), batch_last(tokens(system))
    growing = torch.arange(4) % 2 == 1 if not system.sphere else torch.zeros(4).bool()
    z = pack(u, torch.where(growing, 0.3, 0.0).double())
    steps = 1e-5 * torch.eye(len(z), dtype=z.dtype)[:, :, None]
    columns = [slope(z + e, kernel, growing) - slope(z - e, kernel, growing) for e in steps]
    expected = torch.stack(columns, 1) / 2e-5
    expected[:, -1] = torch.where(growing, expected[:, -1], 0.0)  # r stays 0 in the other rows
    found = jacobian(z, slope(z, kernel, growing), kernel, growing)
    close(found, expected, 1e-7)
    for row in range(4):  # whoever else is there
        own, at, flag = kernel.keep(torch.arange(4) == row), z[:, row : row + 1], growing[row : row + 1]
        alone = jacobian(at, slope(at, own, flag), own, flag if flag.any() else None)
        assert torch.equal(alone[..., 0], found[..., row])


def test_linear_systems_need_their_pivots():
    matrix, right = gaussian(9, 9, 50, seed=1), gaussian(9, 50, seed=2)
    matrix[0, 0] = 0
    close(solve(inverse(matrix), right), torch.linalg.solve(matrix.movedim(-1, 0), right.mT).mT, 1e-9)
    singular = torch.ones(2, 2, 1, dtype=torch.float64)
    assert not solve(inverse(singular), right[:2, :1]).isfinite().any()


def test_order_of_step_error_and_interpolant():
    """Local errors fall like h⁶ for the step, and h⁵ for the embedded solution and the interpolant."""
    system = AttentionSystem(*(gaussian(2, 20, 2, 2, seed=3) / 3))
    kernel, z = system.kernel(3), pack(batch_last(tokens(system)), torch.zeros(20).double())

    def move(h, z=z, pieces=1):
        h = torch.full((20,), h / pieces, dtype=torch.float64)
        for _ in range(pieces):
            start, z_slope = z, slope(z, kernel, None)
            z, found = stages(z, z_slope, h, kernel, None)
        return start, z, found, RODAS.step(start, z_slope, h, kernel, None)

    errors = []
    for h in (0.4, 0.2, 0.1):
        start, z_end, found, step = move(h)
        exact = move(h, pieces=8)[1]
        path = (start, step.z - start, *step.bends)
        middle = interpolate(path, f64(0.4)) - move(0.4 * h, pieces=8)[1]
        errors.append([e.abs().mean() for e in (z_end - exact, z_end - found[-1] - exact, middle)])
    orders = (f64(errors)[:-1] / f64(errors)[1:]).log2()
    assert (orders - f64([6.0, 5.0, 5.0])).abs().max() < 0.4


def test_limit_of_size():
    assert supports(64, 4)
    assert not supports(65, 4)
    assert not supports(200, 1)


# Closed forms


def test_one_token_follows_the_linear_flow():
    """x(t) = e^{Vt} x(0)."""
    V, start = gaussian(5, 3, 3, seed=4), gaussian(5, 1, 3, seed=5)
    solution = integrate(AttentionSystem(V, V), start, f64([0.0, 0.4, 2.0]), method="rosenbrock")
    exact = torch.linalg.matrix_exp(V[:, None] * f64([0.0, 0.4, 2.0])[:, None, None]) @ start[:, None].mT
    assert (solution.outcome == Outcome.REACHED).all()
    assert torch.equal(solution.stiff_steps, solution.steps)
    close(solution.states, exact.mT, 3e-6)


def test_without_scores_the_mean_obeys_the_linear_flow():
    """W = 0: x_i(t) = x_i(0) + (e^{Vt} − I) x̄(0)."""
    V, start = gaussian(4, 3, 3, seed=6), gaussian(4, 5, 3, seed=7)
    solution = integrate(AttentionSystem(0 * V, V), start, until=1.5, method="rosenbrock")
    mean = start.mean(1, keepdim=True)
    moved = mean @ torch.linalg.matrix_exp(1.5 * V).mT - mean
    close(solution.states[:, 1], start + moved, 1e-6)


def test_one_side_of_a_hyperplane():
    """T17: e^{λt} min z ≤ z_i(t) ≤ e^{λt} max z for any W; the slack is the tolerance."""
    g = torch.Generator().manual_seed(3)
    rate = torch.arange(1, 5).double() / 8
    V, ell = random_value_with_left_eigenvector(4, 3, rate, g)
    x = random_tokens(4, 4, 3, 1.0, g)
    x = x * hyperplane(x, ell).sign()[..., None]
    solution = integrate(AttentionSystem(gaussian(4, 3, 3, seed=8), V), x, until=3.0, method="rosenbrock")
    end = solution.states[:, 1]
    z, scaled = hyperplane(x, ell), hyperplane(end, ell) * torch.exp(-3 * rate)[:, None]
    slack = 1e-6 * end.abs().amax((1, 2))[:, None]
    assert (scaled >= z.amin(1, keepdim=True) - slack).all()
    assert (scaled <= z.amax(1, keepdim=True) + slack).all()


def test_stiff_rows_are_handed_over():
    """x' = diag(−10⁶, −1) x to t = 10 would take three million explicit steps."""
    V = torch.diag_embed(f64([[-1e6, -1.0], [-1.0, -2.0]]))
    start = f64([[[1.0, 1.0]], [[1.0, 1.0]]])
    solution = integrate(AttentionSystem(V, V), start, until=10.0, backend="torch")
    assert (solution.outcome == Outcome.REACHED).all()
    assert solution.steps[0] < 3000
    assert solution.stiff_steps[0] > 0
    assert solution.stiff_steps[1] == 0
    exact = torch.exp(10.0 * torch.diagonal(V, dim1=1, dim2=2))
    close(solution.states[:, 1, 0], exact, 1e-9)


def test_stiff_divergence():
    """x' = diag(1, −10⁵) x: the radius grows to e^1000 while the other direction is stiff."""
    V = torch.diag_embed(f64([[1.0, -1e5]]))
    start, options = f64([[[0.5, 1.0]]]), {"backend": "torch", "escape": math.inf}
    for method in ("auto", "rosenbrock"):
        solution = integrate(AttentionSystem(V, V), start, until=1000.0, method=method, **options)
        assert solution.outcome.tolist() == [Outcome.REACHED]
        assert solution.stiff_steps[0] > 0
        close(solution.log_norm[0, 1], f64(1000 + math.log(0.5)), 1e-6)


# Against other codes and methods


def contracting(scale, B=2, n=3, d=2):
    """Systems whose tokens contract from leader to leader; the larger the tokens, the stiffer."""
    G, H = gaussian(2, B, d, d, seed=11)
    W, A = G @ G.mT / d + torch.eye(d) / 4, -(H @ H.mT / d + torch.eye(d) / 2)
    return AttentionSystem.from_response(W, A), scale * gaussian(B, n, d, seed=12)


@pytest.mark.parametrize(("scale", "until"), [(30.0, 10.0), (300.0, 2.0)])
def test_large_contracting_tokens_agree_with_radau(scale, until):
    """Radau (Hairer & Wanner) at rtol 1e-11; passing from leader to leader amplifies errors a hundredfold."""
    system, start = contracting(scale)
    times = f64([0.0, until / 4, until])
    found = {m: integrate(system, start, times, method=m, backend="torch") for m in ("auto", "rosenbrock")}
    for row in range(2):
        own = system.rows([row])

        def velocity(t, x, own=own):
            return own.velocity(torch.from_numpy(x).view(1, 3, 2)).flatten().numpy()

        kwargs = {"method": "Radau", "rtol": 1e-11, "atol": 1e-11 * scale, "t_eval": times[1:].numpy()}
        exact = solve_ivp(velocity, (0, until), start[row].flatten().numpy(), **kwargs).y.T
        for solution in found.values():
            error = solution.states[row, 1:].flatten(1) - torch.from_numpy(exact)
            assert error.abs().max() < 3e-6 * scale
    assert (found["rosenbrock"].outcome == Outcome.REACHED).all()
    assert (found["rosenbrock"].steps < 2000).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_agrees_with_the_explicit_method(name):
    system = variant(name)
    start = tokens(system)
    pair = [
        integrate(system, start, until=1.0, method=m, backend="torch")
        for m in ("rosenbrock", "dormand-prince")
    ]
    assert (pair[0].outcome == Outcome.REACHED).all()
    close(pair[0].states, pair[1].states, 3e-6)


def test_growth_events_and_records_agree_with_the_explicit_method():
    system, start = AttentionSystem(*gaussian(2, 6, 2, 2, seed=13)), gaussian(6, 3, 2, seed=14)
    size = Quantity(of="differences")
    watched = {
        "events": (Event(Quantity(), 50.0), Event(size, 1e-3, rising=False, terminal=True)),
        "observe": (Observable(size), Observable(size, "integral")),
    }
    pair = [
        integrate(system, start, until=4.0, rtol=1e-9, method=m, backend="torch", **watched)
        for m in ("rosenbrock", "dormand-prince")
    ]
    assert torch.equal(pair[0].outcome, pair[1].outcome)
    assert pair[0].events.isfinite().any()
    close(pair[0].log_norm[:, 1].nan_to_num(), pair[1].log_norm[:, 1].nan_to_num(), 1e-5)
    torch.testing.assert_close(pair[0].events, pair[1].events, rtol=1e-6, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(pair[0].observed, pair[1].observed, rtol=1e-3, atol=1e-6)


def test_a_stiff_row_does_not_depend_on_its_batch_mates():
    """Stiff, ordinary, growing, escaping and unusable rows: every field, bit by bit, alone and together."""
    rates = [
        [-1e5, -1.0],
        [-1.0, -2.0],
        [1.0, -1e5],
        [200.0, 1.0],
        [math.nan, 1.0],
        [-3e5, -0.5],
        [0.3, -2e5],
    ]
    V = torch.diag_embed(f64(rates))
    W, start = gaussian(7, 2, 2, seed=15), gaussian(7, 2, 2, seed=16)
    options = {
        "until": 1.0,
        "escape": 1e60,
        "events": (Event(Quantity(of="differences"), 0.5, rising=False),),
        "observe": (Observable(Quantity()), Observable(Quantity(of="differences"), "integral")),
    }
    for method, rows in (("auto", (2,)), ("rosenbrock", (0, 3, 4))):
        together = integrate(AttentionSystem(W, V), start, method=method, backend="torch", **options)
        assert (together.stiff_steps > 0).sum() >= 3
        for row in rows:
            own = AttentionSystem(W[row : row + 1], V[row : row + 1])
            alone = integrate(own, start[row : row + 1], method=method, backend="torch", **options)
            for field in fields(together):
                pair = getattr(alone, field.name), getattr(together, field.name)
                if isinstance(pair[0], torch.Tensor) and field.name != "times":
                    torch.testing.assert_close(pair[0][0], pair[1][row], rtol=0, atol=0, equal_nan=True)
