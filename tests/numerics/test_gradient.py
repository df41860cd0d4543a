import math
from functools import partial

import pytest
import torch

from numerics import AttentionSystem, Event, InputError, Outcome, Quantity, Rotary, integrate
from numerics.encodings import rotary_turns

f64 = partial(torch.tensor, dtype=torch.float64)
B, N, D = 2, 3, 2
# gradcheck perturbs by 1e-6, and the steps chosen for the perturbed system differ: at rtol 1e-11 their errors
# are below 1e-5 of the differences, within gradcheck's 1e-3 and 1e-5.
FINE = {"rtol": 1e-11, "atol": 1e-13}


def gaussian(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def square(*heads):
    return gaussian(2, B, *heads, D, D, seed=1).unbind()


def on_sphere(x):
    return torch.nn.functional.normalize(x, dim=-1)


TURNS = rotary_turns(N, D)
BIAS = gaussian(B, 2, N, N, seed=2)
QUERY, KEY, VALUE = gaussian(3, B, D, D, seed=3)
HIDDEN = torch.eye(N, dtype=torch.bool).roll(1, 1)


def rotary(query, key, value, turns, turned):
    return AttentionSystem(query.mT @ key, value, rotary=Rotary(query, key, turns, turned))


VARIANTS = {
    "plain": (AttentionSystem, square()),
    "causal": (partial(AttentionSystem, causal=True), square()),
    "bias": (lambda W, V, b: AttentionSystem(W, V, bias=b), (*square(), BIAS[:, 0])),
    "hidden": (
        lambda W, V, b: AttentionSystem(W, V, bias=b.masked_fill(HIDDEN, -math.inf)),
        (*square(), BIAS[:, 0]),
    ),
    "positions": (
        lambda W, V, p: AttentionSystem(W, V, positions=p, positions_in="scores and values"),
        (*square(), gaussian(B, N, D, seed=4)),
    ),
    "rotary": (partial(rotary, turned=False), (QUERY, KEY, VALUE, TURNS)),
    "turned rotary": (partial(rotary, turned=True), (QUERY, KEY, VALUE, TURNS.expand(B, -1, -1, -1).clone())),
    "heads": (lambda W, V, b: AttentionSystem(W, V, bias=b, causal=True), (*square(2), BIAS)),
    "sphere": (partial(AttentionSystem, sphere=True), square()),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_gradient_by_every_tensor(name):
    build, parts = VARIANTS[name]
    x0 = gaussian(B, N, D, seed=5)

    def states(x0, *parts):
        system = build(*parts)
        x0 = on_sphere(x0) if system.sphere else x0
        return integrate(system, x0, f64([0.0, 0.1, 0.25]), **FINE).states

    inputs = [part.clone().requires_grad_() for part in (x0, *parts)]
    assert torch.autograd.gradcheck(states, inputs, fast_mode=True)


def test_one_token_has_the_gradient_of_the_matrix_exponential():
    """d/dV and d/dx of g · e^{Vt} x, by torch's own derivative of matrix_exp."""
    V, x = gaussian(3, 2, 2, seed=6).requires_grad_(), gaussian(3, 1, 2, seed=7).requires_grad_()
    t, g = f64([0.0, 0.5, 1.5]), gaussian(3, 3, 1, 2, seed=8)
    solution = integrate(AttentionSystem(V, V), x, t, **FINE)
    found = torch.autograd.grad((g * solution.states).sum(), (V, x))
    exact = torch.linalg.matrix_exp(V[:, None] * t[:, None, None]) @ x[:, None].mT
    expected = torch.autograd.grad((g * exact.mT).sum(), (V, x))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_rows_that_do_not_arrive_contribute_only_what_they_reached():
    """Escaped, escaped at the start, out of steps, unusable and arrived rows: finite gradients for all."""
    V = torch.diag_embed(f64([[3.0], [1.0], [-1e5], [math.nan], [-1.0]]).expand(-1, 2)).requires_grad_()
    x = f64([1.0, 200.0, 1.0, 1.0, 1.0])[:, None, None].expand(-1, 1, 2).clone().requires_grad_()
    solution = integrate(AttentionSystem(V, V), x, f64([0.0, 1.0, 2.0]), escape=100.0, max_steps=200)
    names = [Outcome(o).name for o in solution.outcome.tolist()]
    assert names == ["ESCAPED", "ESCAPED", "STALLED", "INVALID", "REACHED"]
    to_x, to_V = torch.autograd.grad(solution.states.nansum(), (x, V))
    t = f64([[0, 1], [0, math.inf], [0, math.inf], [math.inf, math.inf], [0, 1]])
    rate = f64([3.0, 1.0, -1.0, -1.0, -1.0])
    expected = torch.where(t.isfinite(), torch.exp(rate[:, None] * t), 0.0).sum(1)
    expected[4] += math.exp(-2)
    torch.testing.assert_close(to_x[:, 0, 0], expected, rtol=1e-6, atol=1e-9)
    assert to_V.isfinite().all()
    assert not to_V[1:4].any()


def test_gradient_leaves_values_alone():
    """The states are those of the same steps without a gradient; nothing else requires one."""
    (W, V), x = square(), gaussian(B, N, D, seed=9)
    options = {"until": 1.0, "events": (Event(Quantity(), 2.0),)}
    plain = integrate(AttentionSystem(W, V), x, method="dormand-prince", backend="torch", **options)
    solution = integrate(AttentionSystem(W.clone().requires_grad_(), V), x, **options)
    assert solution.states.requires_grad
    assert not any(part.requires_grad for part in (solution.log_scale, solution.events, solution.last_time))
    torch.testing.assert_close(solution.states.detach(), plain.states, rtol=1e-7, atol=1e-9)
    with torch.no_grad():
        assert not integrate(AttentionSystem(W.requires_grad_(), V), x, **options).states.requires_grad


def test_a_row_has_its_own_gradient():
    (W, V), x = square(), gaussian(B, N, D, seed=10).requires_grad_()
    states = integrate(AttentionSystem(W, V), x, until=1.0).states
    assert not torch.autograd.grad(states[0].sum(), x)[0][1].any()


def test_second_derivatives_are_refused():
    (W, V), x = square(), gaussian(B, N, D, seed=11).requires_grad_()
    states = integrate(AttentionSystem(W, V), x, until=1.0).states
    with pytest.raises(InputError, match="differentiated once"):
        torch.autograd.grad(states.square().sum(), x, create_graph=True)


@pytest.mark.parametrize(
    ("argument", "options"),
    [
        ("method", {"method": "rosenbrock"}),
        ("method", {"method": "rk4", "step": 0.1}),
        ("backend", {"backend": "numba"}),
    ],
)
def test_methods_without_gradient_are_refused(argument, options):
    (W, V), x = square(), gaussian(B, N, D, seed=12).requires_grad_()
    with pytest.raises(InputError, match="require a gradient") as error:
        integrate(AttentionSystem(W, V), x, until=1.0, **options)
    assert error.value.argument == argument
