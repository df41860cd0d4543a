"""The velocity of a batch of systems, on tensors whose last axis is the batch.

Sums are added in a fixed order and everything else is elementwise, so no system's rounding depends on its
batch mates. Weights with several heads carry their axis before the batch: [heads,] batch below.
"""

from dataclasses import dataclass, fields, replace
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Kernel:
    """What ``flow`` needs of a system of n tokens; a batch axis of length 1 is shared by all systems.

    Scores are s_ij = (R_i leftᵀ y_i)ᵀ (R_j rightᵀ y_j) + bias_ij, with y = x + positions; a missing right or
    R is the identity, so that left is W without rotary encoding and Qᵀ with it.
    """

    left: Tensor  # (d, r, [heads,] batch)
    value: Tensor  # (d, d, [heads,] batch)
    right: Tensor | None = None  # (d, r, [heads,] batch)
    turns: Tensor | None = None  # R_i: (n, r, r, [1,] batch)
    bias: Tensor | None = None  # −inf where j is hidden from i: (n, n, [heads or 1,] batch)
    positions: Tensor | None = None  # (n, d, batch)
    encoded_values: bool = False  # attend to y instead of x
    rotated_values: bool = False  # V x_j in the frame of token i: R_iᵀ R_j V x_j
    sphere: bool = False

    @property
    def has_heads(self) -> bool:
        return self.value.ndim == 4

    def keep(self, mask: Tensor) -> "Kernel":
        """The systems selected by a mask (batch,)."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {
            name: part[..., mask]
            for name, part in parts.items()
            if isinstance(part, Tensor) and part.shape[-1] == len(mask)
        }
        return replace(self, **own)


def contract(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products a @ b of shapes (i, k, …) and (k, j, …), added in the order of k."""
    total = a[:, 0, None] * b[0]
    for k in range(1, len(b)):
        total = total + a[:, k, None] * b[k]
    return total


def turn(turns: Tensor, a: Tensor) -> Tensor:
    """R_i a_i for matrices R (n, j, k, …) and vectors a (n, k, …), added in the order of k."""
    return reduce(torch.add, (turns[:, :, k] * a[:, k, None] for k in range(a.shape[1])))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """a_i · b_i of shape (n, 1, batch) for a and b (n, d, batch)."""
    return reduce(torch.add, (a * b).unbind(1))[:, None]


def on_sphere(x: Tensor) -> Tensor:
    """x_i / ‖x_i‖."""
    return x / inner(x, x).sqrt()


def _power_of_two(size: Tensor) -> Tensor:
    """The largest power of two not above size > 0, so that division by it is exact; 1 where size is 0."""
    return torch.where(size > 0, size / (2 * torch.frexp(size).mantissa), 1.0)


def _scores(queries: Tensor, keys: Tensor, kernel: Kernel) -> Tensor:
    """s_ij without bias (n, n, [heads,] batch) between two scalings (n, d, [1,] batch) of the tokens."""
    queries = contract(queries, kernel.left)
    if kernel.right is not None:
        keys = contract(keys, kernel.right)
    if kernel.turns is not None:
        queries, keys = turn(kernel.turns, queries), turn(kernel.turns, keys)
    return contract(queries, keys.movedim(0, 1))


def encoded(x: Tensor, kernel: Kernel, add: bool = True) -> Tensor:
    """Tokens x (n, d, batch), with the positions added if ``add``, as (n, d, [1,] batch)."""
    x = x + kernel.positions if add and kernel.positions is not None else x
    return x[:, :, None] if kernel.has_heads else x


def stable_attention(x: Tensor, kernel: Kernel) -> Tensor:
    """Attention (n, n, [heads,] batch) of tokens x (n, d, batch), at any finite scale.

    Scores are formed on tokens divided by powers of two, their row maximum is subtracted, and only then are
    they scaled back. At ordinary scale this is the softmax of the plain scores, rounding included; where the
    plain scores overflow, attention still goes to the largest of them. With a bias, which is divided by the
    same powers before it is added, tokens are scaled down only; a bias below the rounding of the scores is
    lost, as in the plain softmax.
    """
    x = encoded(x, kernel)
    size = x.detach().abs().amax(1, keepdim=True)
    if kernel.bias is not None:
        size = size.clamp(min=1)
    own, largest = _power_of_two(size), _power_of_two(size.amax(0, keepdim=True))
    scores, scale = _scores(x / own, x / largest, kernel), (own * largest).clamp(max=1e300)
    if kernel.bias is not None:
        scores = scores + kernel.bias / scale
    excess = scores - scores.amax(1, keepdim=True)
    weights = torch.exp(excess * scale)
    return weights / reduce(torch.add, weights.unbind(1))[:, None]


def attended_mean(x: Tensor, kernel: Kernel) -> Tensor:
    """Σ_j P_ij x_j (n, d, [heads,] batch) of tokens x (n, d, batch), encoded if values are."""
    return contract(stable_attention(x, kernel), encoded(x, kernel, kernel.encoded_values))


def _turned_mean(x: Tensor, kernel: Kernel, turns: Tensor) -> Tensor:
    """R_iᵀ Σ_j P_ij R_j V x_j (n, d, [heads,] batch)."""
    values = contract(encoded(x, kernel, kernel.encoded_values), kernel.value.movedim(0, 1))
    return turn(turns.movedim(1, 2), contract(stable_attention(x, kernel), turn(turns, values)))


def flow(x: Tensor, kernel: Kernel) -> Tensor:
    """Velocities (n, d, batch) of tokens x (n, d, batch)."""
    if kernel.rotated_values and kernel.turns is not None:
        velocity = _turned_mean(x, kernel, kernel.turns)
    else:
        velocity = contract(attended_mean(x, kernel), kernel.value.movedim(0, 1))
    if kernel.has_heads:
        velocity = reduce(torch.add, velocity.unbind(2))
    return velocity - inner(x, velocity) * x if kernel.sphere else velocity
