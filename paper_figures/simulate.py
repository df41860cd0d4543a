"""The one way in which figures simulate."""

import torch
from torch import Tensor

from numerics import AttentionSystem, integrate


def simulate(system: AttentionSystem, x: Tensor, times: Tensor, device: torch.device, **options) -> Tensor:
    """Tokens (batch, times, n, d) on the CPU, integrated on `device`; options as of `numerics.integrate`."""
    return integrate(system.to(device), x.to(device), times.to(device), **options).states.cpu()
