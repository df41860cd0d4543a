"""float32 from end to end, against the same numbers in float64."""

import math

import pytest
import torch

from numerics import AttentionSystem, InputError, integrate
from numerics.families import random_tokens
from numerics.kernel import LARGE

EYE = torch.eye(2)[None]


@pytest.mark.parametrize("n", [5, LARGE + 20])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("sphere", [False, True])
def test_trajectories(n, sign, sphere):
    """rtol 1e-5 per step; over time 2 the flow multiplies errors by at most e^{2·3}, in practice by a few."""
    g = torch.Generator().manual_seed(1)
    G, noise = torch.randn(2, 3, 3, 3, generator=g)
    score, x0 = G @ G.mT / 3, random_tokens(3, n, 3, 1.0, g).float()
    value = sign * score + 0.2 * noise
    x0 = torch.nn.functional.normalize(x0, dim=-1) if sphere else x0
    half = AttentionSystem(score, value, causal=True, sphere=sphere)
    whole = AttentionSystem(score.double(), value.double(), causal=True, sphere=sphere)
    start = torch.nn.functional.normalize(x0.double(), dim=-1) if sphere else x0.double()
    rough = integrate(half, x0, until=2.0, rtol=1e-5, atol=1e-7)
    exact = integrate(whole, start, until=2.0)
    assert rough.states.dtype == rough.times.dtype == torch.float32
    assert rough.outcome.tolist() == exact.outcome.tolist() == [0, 0, 0]
    error = (rough.states.double() - exact.states).abs().amax((1, 2, 3)) / exact.states.abs().amax((1, 2, 3))
    assert error.max() < 2e-4


def test_norms_beyond_float32():
    """Equal tokens obey ẋ = x exactly, to e^200 where float32 ends at e^88.7."""
    x0 = torch.ones(1, 3, 2)
    times = torch.tensor([0.0, 50.0, 80.0, 90.0, 200.0])
    solution = integrate(AttentionSystem(EYE, EYE), x0, times, rtol=1e-5, atol=1e-7, escape=math.inf)
    torch.testing.assert_close(solution.log_norm[0], times, rtol=1e-5, atol=1e-4)
    assert solution.states.isfinite().all()
    assert solution.log_scale[0, :3].tolist() == [0, 0, 0]


def test_the_tolerance_must_be_one_that_float32_resolves():
    """By default it is."""
    system, x = AttentionSystem(EYE, EYE), torch.ones(1, 3, 2)
    with pytest.raises(InputError, match=r"rtol: got 1e-08; .*epsilon 1\.2e-07.*use e\.g\. 1e-05"):
        integrate(system, x, until=1.0, rtol=1e-8)
    end = integrate(system, x, until=1.0).states[:, -1]  # equal tokens: ẋ = x
    torch.testing.assert_close(end, torch.full_like(end, math.e), rtol=1e-4, atol=0)
