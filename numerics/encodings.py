"""Encodings of token positions: rotary turns of queries and keys, and linear score biases."""

from dataclasses import dataclass

import torch
from torch import Tensor

from numerics.checks import check_choice, check_match, check_shape, check_tensor
from numerics.errors import InputError
from numerics.shapes import Flags, HeadProjections, HeadScores, HeadTokens, Index

LAYOUTS = ("interleaved", "half-split")


@dataclass(frozen=True, eq=False)
class Rotary:
    """Rotary encoding: s_ij = (R_i Q x_i)ᵀ (R_j K x_j), with no further scale.

    query and key are (batch, d_k, d), or (batch, heads, d_k, d). turns are R_0 … R_{N−1} of shape
    (batch, N, d_k, d_k), or (N, d_k, d_k) shared by the batch; n tokens use the first n. They are meant to
    be powers R_i = R^i of a rotation, so that scores depend on positions only through j − i; unchecked.
    ``rotated_values`` turns values too, ẋ_i = R_iᵀ Σ_j P_ij R_j V x_j, which needs d_k = d.
    All are float64, or all float32. Raises InputError for any other shape, dtype or device.
    """

    query: HeadProjections
    key: HeadProjections
    turns: Tensor
    rotated_values: bool = False

    def __post_init__(self):
        check_tensor("query", self.query, "batch d_k d", "batch heads d_k d")
        check_tensor("key", self.key, "batch d_k d", "batch heads d_k d")
        check_shape("key", self.key, self.query.shape, "the shape of query")
        check_tensor("turns", self.turns, "batch N d_k d_k", "N d_k d_k")
        d_k, d = self.query.shape[-2:]
        shape = (self.positions, d_k, d_k) if self.shared else (len(self.query), self.positions, d_k, d_k)
        check_shape("turns", self.turns, shape, "(N, d_k, d_k) or (batch, N, d_k, d_k), as query says")
        for name, part in (("key", self.key), ("turns", self.turns)):
            check_match(name, part, "query", self.query)
        if self.rotated_values and d_k != d:
            fix = "give square Q and K, or leave the values unrotated"
            raise InputError("rotated_values", f"d_k = {d_k}, d = {d}", "d_k = d to turn values", fix)

    @property
    def shared(self) -> bool:
        """Whether the whole batch uses the same turns."""
        return self.turns.ndim == 3

    @property
    def positions(self) -> int:
        """N, the largest number of tokens."""
        return self.turns.shape[-3]

    @property
    def finite(self) -> Flags:
        """Which systems have finite projections and turns."""
        turns = self.turns[None] if self.shared else self.turns
        parts = (self.query, self.key, turns)
        finite = [part.isfinite().flatten(1).all(1) for part in parts]
        return finite[0] & finite[1] & finite[2]

    def rows(self, index: Index) -> "Rotary":
        """The systems selected by a slice, a list, or a mask or index tensor."""
        turns = self.turns if self.shared else self.turns[index]
        return Rotary(self.query[index], self.key[index], turns, self.rotated_values)

    def to(self, device: torch.device | str) -> "Rotary":
        return Rotary(self.query.to(device), self.key.to(device), self.turns.to(device), self.rotated_values)

    def scores(self, x: HeadTokens) -> HeadScores:
        """s_ij of tokens (batch, n, d), or (batch, 1, n, d) if query and key have heads."""
        turns = self.turns[..., : x.shape[-2], :, :]
        turns = turns[:, None] if x.ndim == 4 and not self.shared else turns
        query, key = ((turns @ (x @ part.mT)[..., None])[..., 0] for part in (self.query, self.key))
        return query @ key.mT


def rotary_frequencies(d_rot: int, base: float = 10000.0) -> Tensor:
    """θ_f = base^(−2f/d_rot), f = 0 … d_rot/2 − 1, in radians per position (Su et al., RoFormer, 2021, §3.2).

    Raises InputError unless d_rot is even and positive and base is positive and finite.
    """
    if type(d_rot) is not int or d_rot < 2 or d_rot % 2:
        raise InputError("d_rot", d_rot, "a positive even number", "each frequency turns two coordinates")
    if not 0 < base < float("inf"):
        raise InputError("base", base, "a positive number", "use the default, 10000")
    return base ** (-2 * torch.arange(d_rot // 2, dtype=torch.float64) / d_rot)


def rotary_turns(
    n: int, d_k: int, *, d_rot: int | None = None, base: float = 10000.0, layout: str = "interleaved"
) -> Tensor:
    """R_0 … R_{n−1} of shape (n, d_k, d_k): R_i turns coordinate pair f by the angle i θ_f.

    The first d_rot coordinates turn (all by default), the rest stay. Pair f is (2f, 2f+1) in the layout
    "interleaved" and (f, f + d_rot/2) in "half-split". Raises InputError for an unknown layout, n < 1, an odd
    d_rot or one above d_k.
    """
    check_choice("layout", layout, LAYOUTS)
    _check_count("n", n)
    d_rot = d_k if d_rot is None else d_rot
    frequencies = rotary_frequencies(d_rot, base)
    if d_rot > d_k:
        raise InputError("d_rot", d_rot, f"at most d_k = {d_k}", "turn no more coordinates than there are")
    pairs = torch.arange(d_rot)
    pairs = pairs.view(-1, 2) if layout == "interleaved" else pairs.view(2, -1).mT
    first, second = pairs.unbind(1)
    angles = torch.arange(n, dtype=torch.float64)[:, None] * frequencies
    turns = torch.eye(d_k, dtype=torch.float64).repeat(n, 1, 1)
    turns[:, first, first] = turns[:, second, second] = angles.cos()
    turns[:, second, first] = angles.sin()
    turns[:, first, second] = -angles.sin()
    return turns


def turns_from_matrix(rotation: Tensor, n: int) -> Tensor:
    """R_i = R^i, i = 0 … n−1, of shape (batch, n, d, d), from R (batch, d, d). InputError otherwise."""
    check_tensor("rotation", rotation, "batch d d")
    _check_count("n", n)
    batch, d = rotation.shape[:2]
    check_shape("rotation", rotation, (batch, d, d), "square matrices (batch, d, d)")
    turns = [torch.eye(d, dtype=rotation.dtype, device=rotation.device).expand(batch, d, d)]
    for _ in range(n - 1):
        turns.append(turns[-1] @ rotation)
    return torch.stack(turns, 1)


def alibi_bias(n: int, slope: float | Tensor) -> Tensor:
    """b_ij = −slope · |i − j|, of shape (*slope.shape, n, n): ALiBi (Press et al., 2022, §3).

    Slopes (batch,) or (batch, heads) give a bias for ``AttentionSystem``, a number one to expand. Under a
    causal mask only j ≤ i counts, where |i − j| = i − j. Raises InputError for n < 1 or other slopes.
    """
    _check_count("n", n)
    slope = slope if isinstance(slope, Tensor) else torch.tensor(slope, dtype=torch.float64)
    check_tensor("slope", slope, "", "batch", "batch heads")
    if not slope.isfinite().all():
        raise InputError("slope", slope.tolist(), "finite numbers", "use e.g. 2^(−8h/H) for head h of H")
    position = torch.arange(n, dtype=slope.dtype, device=slope.device)
    return -slope[..., None, None] * (position[:, None] - position).abs()


def _check_count(argument: str, count: object) -> None:
    if type(count) is not int or count < 1:
        raise InputError(argument, count, "a positive whole number", "give at least one position")
