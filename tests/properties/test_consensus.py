"""T6b against simulation: with an unstable V, or Σ_h V_h, tokens near zero leave, whatever the switches."""

import pytest
import torch
from torch import Generator, Tensor

from numerics import AttentionSystem, Rotary, integrate, observables
from numerics.encodings import alibi_bias, rotary_turns
from numerics.families import random_tokens

BATCH, N, D, SMALL, FAR, RATE, UNTIL = 40, 5, 4, 1e-6, 1e-3, 0.3, 63.0
"""At RATE, starts of size SMALL reach FAR after log(FAR/SMALL)/RATE = 23 units of time, and by UNTIL unless
less than e^(−12) of them lies in the unstable directions."""


def _gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def _shifted(V: Tensor, abscissa: float) -> Tensor:
    """V plus a multiple of the identity, so that max Re λ(V) = abscissa."""
    return V + (abscissa - observables.spectral_abscissa(V))[:, None, None] * torch.eye(D)


def _system(switch: str, abscissa: float) -> AttentionSystem:
    W, V = _gaussian(BATCH, D, D, seed=1), _shifted(0.3 * _gaussian(BATCH, D, D, seed=2), abscissa)
    if switch == "heads":
        own = 0.3 * _gaussian(BATCH, D, D, seed=3)
        return AttentionSystem(_gaussian(BATCH, 2, D, D, seed=4), torch.stack([own, V - own], 1))
    if switch == "rotary":
        query, key = _gaussian(BATCH, D, D, seed=5), _gaussian(BATCH, D, D, seed=6)
        return AttentionSystem(query.mT @ key, V, rotary=Rotary(query, key, rotary_turns(N, D)))
    if switch == "bias":
        return AttentionSystem(W, V, bias=alibi_bias(N, torch.full((BATCH,), 0.7, dtype=torch.float64)))
    return AttentionSystem(W, V, causal=switch == "causal")


def _left(switch: str, abscissa: float) -> Tensor:
    """Which systems have had a token beyond FAR."""
    x = random_tokens(BATCH, N, D, SMALL, Generator().manual_seed(7))
    times = torch.linspace(0, UNTIL, 200, dtype=torch.float64)
    states = integrate(_system(switch, abscissa), x, times, escape=1.0).states
    return (states.abs().nan_to_num(nan=torch.inf) > FAR).flatten(1).any(1)


@pytest.mark.parametrize("switch", ["none", "causal", "bias", "rotary", "heads"])
def test_tokens_near_zero_leave_if_v_is_unstable_and_only_then(switch):
    assert _left(switch, RATE).all()
    assert not _left(switch, -RATE).any()
