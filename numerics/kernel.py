"""The velocity of a batch of systems, on tensors whose last axis is the batch.

Sums are added in a fixed order and everything else is elementwise, so no system's rounding depends on its
batch mates; systems of more than LARGE tokens are treated one by one, by ``numerics.tiles``. Weights with
several heads carry their axis before the batch: [heads,] batch below.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import reduce

import torch
from torch import Tensor

from numerics import tiles

LARGE = 64  # where one by one is faster, and needs memory linear in n; below it a batch is
PER_HEAD = ("left", "value", "right", "turns", "bias")


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
    causal: bool = False  # hides j > i besides
    positions: Tensor | None = None  # (n, d, batch)
    encoded_values: bool = False  # attend to y instead of x
    rotated_values: bool = False  # V x_j in the frame of token i: R_iᵀ R_j V x_j
    sphere: bool = False

    @property
    def has_heads(self) -> bool:
        return self.value.ndim == 4

    def keep(self, rows: Tensor) -> "Kernel":
        """The systems selected by a mask (batch,) or an index."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {
            name: part[..., rows]
            for name, part in parts.items()
            if isinstance(part, Tensor) and part.shape[-1] != 1
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


def power_of_two(size: Tensor) -> Tensor:
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


def encoded(x: Tensor, kernel: Kernel, log_radius: Tensor | None = None, add: bool = True) -> Tensor:
    """Tokens x (n, d, batch), the positions over e^log_radius added if ``add``, as (n, d, [1,] batch)."""
    if add and kernel.positions is not None:
        x = x + (kernel.positions if log_radius is None else kernel.positions * torch.exp(-log_radius))
    return x[:, :, None] if kernel.has_heads else x


def _scales(y: Tensor, kernel: Kernel, log_radius: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Powers of two that divide queries (n, 1, …) and keys (1, 1, …), and what then multiplies the scores."""
    size = y.detach().abs().amax(1, keepdim=True)
    if kernel.bias is not None:
        size = size.clamp(min=1)
    own, largest = power_of_two(size), power_of_two(size.amax(0, keepdim=True))
    bounds, radius = torch.finfo(y.dtype), 1.0
    if log_radius is not None:  # beyond, every difference of scores that rounding leaves decides alone
        radius = torch.exp(log_radius.clamp(max=0.9 * math.log(bounds.max)))
    return own, largest, (own * radius * (largest * radius)).clamp(bounds.tiny, bounds.max)


def stable_attention(x: Tensor, kernel: Kernel, log_radius: Tensor | None = None) -> Tensor:
    """Attention (n, n, [heads,] batch) of tokens e^log_radius x, x (n, d, batch), at any finite scale.

    Scores are formed on tokens divided by powers of two, their row maximum is subtracted, and only then are
    they scaled back. At ordinary scale this is the softmax of the plain scores, rounding included; where the
    plain scores overflow, attention still goes to the largest of them. With a bias, which is divided by the
    same powers before it is added, tokens are scaled down only; a bias below the rounding of the scores is
    lost, as in the plain softmax.
    """
    y = encoded(x, kernel, log_radius)
    own, largest, scale = _scales(y, kernel, log_radius)
    scores = _scores(y / own, y / largest, kernel)
    if kernel.bias is not None:
        scores = scores + kernel.bias / scale
    if kernel.causal:
        hidden = torch.ones(scores.shape[:2], dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(hidden.view(*hidden.shape, *[1] * (scores.ndim - 2)), -torch.inf)
    excess = scores - scores.amax(1, keepdim=True).detach()
    weights = torch.exp(excess * scale)
    return weights / reduce(torch.add, weights.unbind(1))[:, None]


def attended_mean(x: Tensor, kernel: Kernel, log_radius: Tensor | None = None) -> Tensor:
    """Σ_j P_ij x_j (n, d, [heads,] batch) of tokens x (n, d, batch), encoded if values are."""
    if len(x) > LARGE:
        return _one_by_one(x, kernel, log_radius, _large_mean)
    values = encoded(x, kernel, log_radius, kernel.encoded_values)
    return contract(stable_attention(x, kernel, log_radius), values)


def _turned_mean(x: Tensor, kernel: Kernel, turns: Tensor, log_radius: Tensor | None) -> Tensor:
    """R_iᵀ Σ_j P_ij R_j V x_j (n, d, [heads,] batch)."""
    values = encoded(x, kernel, log_radius, kernel.encoded_values)
    values = turn(turns, contract(values, kernel.value.movedim(0, 1)))
    return turn(turns.movedim(1, 2), contract(stable_attention(x, kernel, log_radius), values))


def flow(x: Tensor, kernel: Kernel, log_radius: Tensor | None = None) -> Tensor:
    """Velocities (n, d, batch) of tokens x (n, d, batch).

    With log_radius r (batch,) the tokens are eʳx, and so are the velocities: e⁻ʳ ẋ(eʳx) is returned, which
    neither overflows nor loses the attention where eʳx does. The sphere has no use for it.
    """
    if len(x) > LARGE:
        velocity = _one_by_one(x, kernel, log_radius, _large_velocity)
    elif kernel.rotated_values and kernel.turns is not None:
        velocity = _turned_mean(x, kernel, kernel.turns, log_radius)
    else:
        velocity = contract(attended_mean(x, kernel, log_radius), kernel.value.movedim(0, 1))
    if velocity.ndim == 4:
        velocity = reduce(torch.add, velocity.unbind(2))
    return velocity - inner(x, velocity) * x if kernel.sphere else velocity


# Systems of more than LARGE tokens. A matrix product may round by where in memory its factors lie, so each is
# copied to memory of its own.


def _pick(kernel: Kernel, names: tuple[str, ...], index: int) -> Kernel:
    """The kernel with entry ``index`` of the last axis of the parts named, or entry 0 that all share."""
    parts = {name: part for name in names if (part := getattr(kernel, name)) is not None}
    return replace(kernel, **{k: part[..., index if part.shape[-1] > 1 else 0] for k, part in parts.items()})


def _fresh(part: Tensor) -> Tensor:
    return part.clone(memory_format=torch.contiguous_format)


def _one_by_one(
    x: Tensor, kernel: Kernel, log_radius: Tensor | None, result: Callable[..., Tensor]
) -> Tensor:
    """``result`` of each system and head, as (n, d, [heads,] batch)."""
    systems = []
    for i, tokens in enumerate(x.unbind(-1)):
        own, r = _pick(kernel, (*PER_HEAD, "positions"), i), None if log_radius is None else log_radius[i]
        tokens = _fresh(tokens)
        y = encoded(tokens, own, r).contiguous()
        values = y if kernel.encoded_values else tokens
        if kernel.has_heads:
            heads = [_pick(own, PER_HEAD, h) for h in range(kernel.value.shape[2])]
            systems.append(torch.stack([result(y, values, head, r) for head in heads], -1))
        else:
            systems.append(result(y, values, own, r))
    none = x.new_empty(*x.shape[:2], *kernel.value.shape[2:-1], 0)
    return torch.stack(systems, -1) if systems else none


def _large_mean(y: Tensor, values: Tensor, kernel: Kernel, log_radius: Tensor | None) -> Tensor:
    """Σ_j P_ij values_j (n, d) of one head, of encoded tokens y and values (n, d)."""
    own, largest, scale = _scales(y, kernel, log_radius)
    queries, keys = (y / own) @ _fresh(kernel.left), y / largest
    if kernel.right is not None:
        keys = keys @ _fresh(kernel.right)
    if kernel.turns is not None:
        queries, keys = turn(kernel.turns, queries), turn(kernel.turns, keys)
    return tiles.attend(queries, keys, values, scale, kernel.bias, kernel.causal)


def _large_velocity(y: Tensor, values: Tensor, kernel: Kernel, log_radius: Tensor | None) -> Tensor:
    """The velocity (n, d) that one head gives."""
    value = _fresh(kernel.value.mT)
    if kernel.rotated_values and kernel.turns is not None:
        values = turn(kernel.turns, values @ value)
        return turn(kernel.turns.movedim(1, 2), _large_mean(y, values, kernel, log_radius))
    return _large_mean(y, values, kernel, log_radius) @ value
