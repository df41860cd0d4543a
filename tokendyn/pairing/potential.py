"""L3: the gradient of the shared potential is monotone."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import VALUE


def pair_products(left: Tensor, right: Tensor) -> Tensor:
    """(left_i − left_j)·(right_i − right_j) for pairs i < j: (batch, n, d) twice to (batch, pairs)."""
    i, j = torch.triu_indices(left.shape[1], left.shape[1], 1, device=left.device)
    return ((left[:, i] - left[:, j]) * (right[:, i] - right[:, j])).sum(-1)


def monotone_gradient(moment: Moment) -> Tensor:
    return pair_products(moment.x, observables.potential_gradient(moment.system, moment.x, moment.x))


L3 = Row(
    id="L3",
    family=VALUE,
    sides={"monotone gradient": lambda m: (monotone_gradient(m), torch.zeros_like(monotone_gradient(m)))},
)
