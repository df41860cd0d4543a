"""What an adapter is and what it hands over: the attention weights of one layer, head by head.

This is the border of the project's convention. Checkpoints store linear maps as (out, in) and act on row
vectors, `q = x @ query.T`; the theory's tokens are columns, `q = query x`. The stored matrix is the same one
in both, so `W = query^T key / sqrt(head_dim)` and the value map is `V = output value`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import sqrt
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from numerics.errors import InputError

State = Mapping[str, Tensor]
"""A state dict: parameter name to tensor."""


class Head(NamedTuple):
    """The four maps of one head, each of rank at most dk, acting on column tokens of length d."""

    query: Float[Tensor, "dk d"]
    key: Float[Tensor, "dk d"]
    value: Float[Tensor, "dk d"]
    output: Float[Tensor, "d dk"]

    def score_matrix(self) -> Float[Tensor, "d d"]:
        """`W = query^T key / sqrt(dk)`, so that the score is `s_ij = x_i^T W x_j` (biases left out)."""
        return self.query.mT @ self.key / sqrt(self.query.shape[0])

    def value_map(self) -> Float[Tensor, "d d"]:
        """`V = output value`: what the head adds for an attended mean `m` is `V m` (biases left out)."""
        return self.output @ self.value


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """The attention weights of one layer, as float64 copies of the stored numbers.

    Shapes, with d = `d_model`: `query`, `key`, `value` are (heads*head_dim, d), `output` is
    (d, heads*head_dim). Rows (columns of `output`) of head h are `h*head_dim ... (h+1)*head_dim - 1`.
    `stored_dtype` is the type in the file; every floating type of up to 64 bits converts to float64 exactly,
    so results are about the stored weights, not about a rounding of them. `has_biases` says whether the file
    holds biases for these maps; they are not part of this object.
    """

    name: str
    query: Float[Tensor, "hk d"]
    key: Float[Tensor, "hk d"]
    value: Float[Tensor, "hk d"]
    output: Float[Tensor, "d hk"]
    heads: int
    stored_dtype: str
    has_biases: bool

    @property
    def d_model(self) -> int:
        """Length d of a token."""
        return self.query.shape[1]

    @property
    def head_dim(self) -> int:
        """Rows dk of one head's query map."""
        return self.query.shape[0] // self.heads

    def head(self, h: int) -> Head:
        """Views of the weights of head `h`, counted from 0. Raises `InputError` unless 0 <= h < heads."""
        if not 0 <= h < self.heads:
            raise InputError(
                argument="h",
                got=str(h),
                expected=f"a head number from 0 to {self.heads - 1}",
                fix=f"layer {self.name} has {self.heads} heads, counted from 0",
            )
        rows = slice(h * self.head_dim, (h + 1) * self.head_dim)
        return Head(self.query[rows], self.key[rows], self.value[rows], self.output[:, rows])


@dataclass(frozen=True)
class Adapter:
    """How to read the attention weights of one architecture out of its state dict.

    `pattern` fits the keys by which the architecture is known; its groups are what comes before the model's
    own keys and the numbers of the layer. `layer` with these numbers put in, and then `parts`, are the keys
    of the query, key, value and output maps, without the prefix and the final `.weight`. `heads_key`,
    `width_key` and `depth_key` are the names under which a `config.json` gives the number of heads, d, and
    (for layers that are iterated; else None) the depth.
    """

    architecture: str
    pattern: re.Pattern[str]
    layer: str
    parts: tuple[str, str, str, str]
    ignores: tuple[str, ...]
    heads_key: str
    width_key: str
    depth_key: str | None

    def matches(self, state: State) -> bool:
        """Whether the state dict has an attention layer of this architecture."""
        return any(map(self.pattern.fullmatch, state))

    def layers(self, state: State, heads: int) -> tuple[AttentionLayer, ...]:
        """The distinct attention layers, ordered by their numbers, of a state dict that `matches`.

        Raises `InputError` if it holds two models, if a key is missing or its weight unusable, or if `heads`
        does not divide d.
        """
        found = [match.groups() for match in map(self.pattern.fullmatch, state) if match]
        prefixes, *columns = (set(column) for column in zip(*found, strict=True))
        prefix = _single(prefixes, self.architecture)
        return tuple(
            read_layer(state, prefix + self.layer.format(*numbers), self.parts, heads, self.architecture)
            for numbers in product(*map(_counted, columns))
        )


def read_weight(
    state: State, key: str, shape: tuple[int | None, int | None], adapter: str
) -> Float[Tensor, "out in"]:
    """The matrix `state[key]` as a float64 copy of the stored (out, in) numbers.

    A None in `shape` accepts any size. Raises `InputError` naming `key` and `adapter` if the key is missing,
    the tensor is not a dense floating-point matrix of that shape, or an entry is not finite.
    """
    if key not in state:
        raise _bad_weight(f"a state dict without {key!r}", adapter)
    stored = state[key].detach()
    if stored.layout != torch.strided or stored.device.type != "cpu" or not stored.is_floating_point():
        got = f"{key!r} of type {stored.dtype}, layout {stored.layout}, device {stored.device.type}"
        raise _bad_weight(got, adapter)
    size = tuple(stored.shape)
    if (
        len(size) != 2
        or 0 in size
        or any(want not in (None, got) for want, got in zip(shape, size, strict=True))
    ):
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise _bad_weight(f"{key!r} of shape {size} where {wanted} was expected", adapter)
    weight = stored.to(torch.float64, copy=True)
    bad = weight.numel() - int(weight.isfinite().sum())
    if bad:
        raise _bad_weight(f"{key!r} with {bad} entries that are NaN or infinite", adapter)
    return weight


def read_layer(
    state: State, name: str, parts: tuple[str, str, str, str], heads: int, adapter: str
) -> AttentionLayer:
    """The attention layer whose keys start with `name`; all four maps are square, (d, d).

    `parts` are what the keys of query, key, value and output map say after `name`. Raises `InputError` as
    `read_weight` does, and if `heads` does not divide d.
    """
    keys = [f"{name}.{part}.weight" for part in parts]
    d = read_weight(state, keys[0], (None, None), adapter).shape[1]
    if d % heads != 0:
        raise InputError(
            argument="heads",
            got=str(heads),
            expected=f"a divisor of {d}, the width of {keys[0]} ({adapter} adapter)",
            fix="pass the number of attention heads the model was trained with",
        )
    query, key, value, output = (read_weight(state, key, (d, d), adapter) for key in keys)
    return AttentionLayer(
        name=name,
        query=query,
        key=key,
        value=value,
        output=output,
        heads=heads,
        stored_dtype=str(state[keys[0]].dtype).removeprefix("torch."),
        has_biases=any(f"{name}.{part}.bias" in state for part in parts),
    )


def _counted(numbers: set[str]) -> range:
    """From 0 to the largest, or far enough to include one that is missing."""
    return range(1 + min(max(map(int, numbers)), len(numbers)))


def _single(prefixes: set[str], architecture: str) -> str:
    if len(prefixes) != 1:
        raise InputError(
            argument="path",
            got=f"attention layers under {len(prefixes)} prefixes: {sorted(prefixes)}",
            expected=f"one {architecture} model",
            fix="save the state dict of one model alone",
        )
    return min(prefixes)


def _bad_weight(got: str, adapter: str) -> InputError:
    return InputError(
        argument="path",
        got=got,
        expected=f"dense finite floating-point matrices under the keys of the {adapter} adapter",
        fix="pass the complete, undamaged and unquantised state dict of the model",
    )
