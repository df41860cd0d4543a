"""S1: variance of the logits against their deviations under permuted keys."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import Family, Keys, exact_matrix


def _random_logits(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Free logits, or a position part plus a content part of any weight plus a little noise."""
    parts = torch.randn(2, batch, n, dtype=torch.float64, generator=generator)
    noise = torch.randn(batch, n, n, dtype=torch.float64, generator=generator)
    share = torch.rand(3, batch, 1, 1, dtype=torch.float64, generator=generator)
    logits = share[0] * parts[0, :, None] + share[1] * parts[1, ..., None] + share[2] ** 4 * noise
    zero = torch.zeros(batch, 1, 1, dtype=torch.float64)
    return {"score": zero, "value": zero, "tokens": zero.expand(-1, n, -1), "logits": logits}


def _exact_logits(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    zero = [[0]]
    return {"score": zero, "value": zero, "tokens": zero * n, "logits": exact_matrix(draw, n, n)}


def _own(moment: Moment) -> Tensor:
    """λ_j = M_jj, (batch, m)."""
    return moment.parameters["logits"].diagonal(dim1=1, dim2=2)


def _variance(moment: Moment) -> Tensor:
    return _own(moment).var(1, correction=0, keepdim=True)


def _exclusion(moment: Moment) -> tuple[Tensor, Tensor]:
    logits, own = moment.parameters["logits"], _own(moment)
    positional = ((logits - own[:, None, :]) ** 2).sum((1, 2))
    symbolic = ((logits - own[:, :, None]) ** 2).sum((1, 2))
    bound = moment.constant("c") * (positional + symbolic) / moment.n**2
    return bound[:, None], _variance(moment)


def _together(moment: Moment) -> tuple[Tensor, Tensor]:
    own = _own(moment)
    first, second = torch.triu_indices(moment.n, moment.n, 1)
    gaps = (own[:, first] - own[:, second]) ** 2
    bound = 2 * moment.n * moment.constant("c")[:, None] * _variance(moment)
    return bound.expand_as(gaps), gaps


S1 = Row(
    id="S1",
    family=Family(_random_logits, _exact_logits, dimension=1),
    sides={"exclusion": _exclusion, "logits lie together": _together},
)
