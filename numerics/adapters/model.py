"""A state dict read by an adapter: finding the model in it, and its layers, maps, norms and biases."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from numerics.adapters.base import Adapter, Settings, State, bad_config
from numerics.adapters.layer import AttentionLayer, Norm, Rotary
from numerics.errors import InputError

CROSS_ATTENTION = re.compile(r".*(crossattention|cross_attn|encoder_attn|EncDecAttention|multihead_attn)\..+")


@dataclass(frozen=True, eq=False)
class Model:
    """An adapter laid over a state dict; `numbers` are those of each distinct layer, in order.

    Every reading method raises `InputError` naming key and adapter if a key is missing, the tensor is not a
    dense floating-point one of the expected shape, or an entry is not finite.
    """

    adapter: Adapter
    settings: Settings
    heads: int
    state: State
    prefix: str
    numbers: tuple[tuple[str, ...], ...]

    def key(self, template: str, index: int = 0) -> str:
        """The full key that a template means in the layer of this index."""
        key = self.prefix + template.format(*self.numbers[index])
        if key not in self.state:
            for ending, older in self.adapter.aliases:
                if key.endswith(ending) and (found := key.removesuffix(ending) + older) in self.state:
                    return found
        return key

    def has(self, template: str | None, index: int = 0) -> bool:
        """Whether the model has the tensor of this template."""
        return template is not None and self.key(template, index) in self.state

    def tensor(self, key: str, shape: tuple[int | None, ...]) -> Tensor:
        """`state[key]` in float64; a None in `shape` accepts any size."""
        for ending in ("_scale", "_scale_inv"):
            if key + ending in self.state:
                got = f"{key!r} with a scale of its own, {key + ending!r}"
                raise bad_weight(got, self.adapter.architecture)
        return read_tensor(self.state, key, shape, self.adapter.architecture)

    def vector(self, template: str, length: int, index: int = 0) -> Float[Tensor, " length"]:
        """The vector under a template."""
        return self.tensor(self.key(template, index), (length,))

    def matrix(
        self, template: str, shape: tuple[int | None, int | None], index: int = 0
    ) -> Float[Tensor, "out in"]:
        """The map (out, in) under a template, transposed if this architecture stores (in, out)."""
        if self.adapter.maps.transposed:
            return self.tensor(self.key(template, index), shape[::-1]).mT
        return self.tensor(self.key(template, index), shape)

    def bias(self, template: str, length: int, index: int = 0) -> Float[Tensor, " length"] | None:
        """The bias of the map or norm under a template, or None if the model has none."""
        key = bias_key(template)
        return self.vector(key, length, index) if self.has(key, index) else None

    def norm(self, template: str, width: int, index: int = 0) -> Norm:
        """The normalisation whose gain is under a template."""
        gain, bias = self.vector(template, width, index), self.bias(template, width, index)
        return Norm(self.adapter.norm_kind, gain, bias, self.settings.eps)

    @cached_property
    def d_model(self) -> int:
        """Length d of a token, from the query map of the first layer."""
        maps, adapter = self.adapter.maps, self.adapter.architecture
        key = self.key(maps.query)
        stored = usable(self.state[key], key, (None, None), adapter)
        return stored.shape[0 if maps.transposed else 1]

    def crosses(self) -> bool:
        """Whether the blocks attend to another sequence too."""
        block = self.key(self.adapter.name).rpartition(".")[0] + "."
        return any(key.startswith(block) and CROSS_ATTENTION.fullmatch(key) for key in self.state)

    def require_keys(self) -> None:
        """`InputError` unless every key of every attention layer is there."""
        maps, adapter = self.adapter.maps, self.adapter
        templates = [maps.query, maps.key, maps.value, maps.output]
        if self.settings.norm_first and adapter.attention_norm:
            templates.append(adapter.attention_norm)
        for index in range(len(self.numbers)):
            for key in (self.key(template, index) for template in templates):
                if key not in self.state:
                    raise _missing(self.state, key, adapter.architecture)

    def layer(self, index: int) -> AttentionLayer:
        """The attention of the layer of this index, counted from 0."""
        settings, maps, d = self.settings, self.adapter.maps, self.d_model
        kv_heads, head_dim = self.head_shape()
        groups = (self.heads, kv_heads, kv_heads)
        weights = self._projections([head_dim * group for group in groups], index)
        biases = self._projection_biases([head_dim * group for group in groups], index)
        query, key, value = (
            _repeated(w, group, self.heads) for w, group in zip(weights, groups, strict=True)
        )
        query_bias, key_bias, value_bias = (
            None if bias is None else _repeated(bias, group, self.heads)
            for bias, group in zip(biases, groups, strict=True)
        )
        scale_squared = settings.scale_squared or Fraction(1, head_dim)
        norm = self.adapter.attention_norm
        return AttentionLayer(
            name=self.key(self.adapter.name, index),
            query=query,
            key=key,
            value=value,
            output=self.matrix(maps.output, (d, self.heads * head_dim), index),
            heads=self.heads,
            kv_heads=kv_heads,
            stored_dtype=self._stored_type(self.key(maps.query, index)),
            scale_squared=scale_squared / (index + 1) ** 2 if settings.scale_by_layer else scale_squared,
            query_bias=query_bias,
            key_bias=key_bias,
            value_bias=value_bias,
            output_bias=self.bias(maps.output, d, index),
            causal=settings.causal,
            window=settings.window(index),
            rotary=self._rotary(head_dim),
            norm=self.norm(norm, d, index) if norm and settings.norm_first else None,
        )

    def head_shape(self) -> tuple[int, int]:
        """The number of key and value heads and the dimension of a head."""
        d, heads, head_dim = self.d_model, self.heads, self.settings.head_dim
        if head_dim is None and d % heads != 0:
            name = self.key(self.adapter.maps.query)
            raise bad_heads(
                heads, f"a divisor of {d}, the width of {name} ({self.adapter.architecture} adapter)"
            )
        kv_heads = self.settings.kv_heads or heads
        if heads % kv_heads != 0:
            raise bad_heads(heads, f"a multiple of {kv_heads}, the number of key and value heads")
        return kv_heads, head_dim or d // heads

    def _projections(self, sizes: list[int], index: int) -> Sequence[Tensor]:
        """Query, key and value map, with as many rows as `sizes` says."""
        maps, d = self.adapter.maps, self.d_model
        if maps.fused:
            return self.matrix(maps.query, (sum(sizes), d), index).split(sizes)
        keys = (maps.query, maps.key, maps.value)
        return [self.matrix(key, (size, d), index) for key, size in zip(keys, sizes, strict=True)]

    def _projection_biases(self, sizes: list[int], index: int) -> Sequence[Tensor | None]:
        maps = self.adapter.maps
        joint = bias_key(maps.query) if maps.fused else maps.joint_bias
        if joint and self.has(joint, index):
            return self.vector(joint, sum(sizes), index).split(sizes)
        if joint:
            return [None] * len(sizes)
        keys = (maps.query, maps.key, maps.value)
        return [self.bias(key, size, index) for key, size in zip(keys, sizes, strict=True)]

    def _stored_type(self, key: str) -> str:
        stored_type = getattr(self.state, "stored_type", None)
        return stored_type(key) if stored_type else str(self.state[key].dtype).removeprefix("torch.")

    def _rotary(self, head_dim: int) -> Rotary | None:
        settings = self.settings
        if settings.rotary_base is None:
            return None
        dims = settings.rotary_dims or head_dim
        if dims % 2 != 0 or dims > head_dim:
            got = f"{dims} rotated entries in heads of {head_dim}"
            raise bad_config(got, f"an even number of at most {head_dim}")
        return Rotary(settings.rotary_base, dims, settings.rotary_layout)


def bias_key(weight_key: str) -> str:
    """The key of the bias of the map under `weight_key`, which ends in `weight`."""
    return weight_key.removesuffix("weight") + "bias"


def _repeated(rows: Tensor, groups: int, heads: int) -> Tensor:
    """One copy of each group's rows for each of its query heads, the heads of a group side by side."""
    if groups == heads:
        return rows
    return rows.unflatten(0, (groups, -1)).repeat_interleave(heads // groups, 0).flatten(0, 1)


def read_tensor(state: State, key: str, shape: tuple[int | None, ...], adapter: str) -> Tensor:
    """`state[key]` as a float64 copy of the stored numbers; a None in `shape` accepts any size.

    Raises `InputError` naming `key` and `adapter` if the key is missing, the tensor is not a dense
    floating-point one of that shape, or an entry is not finite.
    """
    if key not in state:
        raise _missing(state, key, adapter)
    weight = usable(state[key], key, shape, adapter).to(torch.float64, copy=True)
    bad = weight.numel() - int(weight.isfinite().sum())
    if bad:
        raise bad_weight(f"{key!r} with {bad} entries that are NaN or infinite", adapter)
    return weight


def usable(stored: Tensor, key: str, shape: tuple[int | None, ...], adapter: str) -> Tensor:
    """`stored` if it is dense, floating-point and of this shape; else `InputError`."""
    stored = stored.detach()
    if stored.layout != torch.strided or stored.device.type != "cpu" or not stored.is_floating_point():
        got = f"{key!r} of type {stored.dtype}, layout {stored.layout}, device {stored.device.type}"
        raise bad_weight(got, adapter)
    size = tuple(stored.shape)
    fits = len(size) == len(shape) and all(want in (None, got) for want, got in zip(shape, size, strict=True))
    if not fits or 0 in size:
        wanted = " x ".join("any" if want is None else str(want) for want in shape)
        raise bad_weight(f"{key!r} of shape {size} where {wanted} was expected", adapter)
    return stored


def find_model(
    adapter: Adapter, settings: Settings, heads: int, state: State
) -> tuple[Model, tuple[str, ...]]:
    """The model in a state dict that `adapter.matches`, and what has to be said about which part it is.

    Raises `InputError` if it holds two models, has keys that the adapter refuses, if one of its attention
    layers lacks a key, or if the config says fewer layers or another d.
    """
    for pattern, reason in adapter.refuses:
        for key in state:
            if re.fullmatch(pattern, key):
                raise _refused(adapter, key, reason)
    found = [match.groups() for match in map(adapter.pattern.fullmatch, state) if match]
    prefix, said = _audited_part({groups[0] for groups in found}, adapter)
    numbers = [groups[1:] for groups in found if groups[0] == prefix]
    counted = [_counted(set(column)) for column in zip(*numbers, strict=True)]
    if len(counted) == 1 and not adapter.shared and settings.depth is not None:
        counted = [_up_to_depth(counted[0], settings.depth)]
    layers = tuple(tuple(map(str, n)) for n in product(*counted))
    model = Model(adapter, settings, heads, state, prefix, layers)
    model.require_keys()
    if settings.width not in (None, model.d_model):
        got = f"config.json with a width d of {settings.width}"
        raise bad_config(got, f"{model.d_model}, as in {model.key(adapter.maps.query)}")
    model.head_shape()
    return model, said or _cross_attention(state)


def _up_to_depth(found: range, depth: int) -> range:
    """As many layers as the config says; at most one that is missing, whose key is then named."""
    if found.stop > depth:
        got = f"config.json of {depth} layers beside a state dict of {found.stop}"
        raise bad_config(got, "as many layers in both")
    return range(min(depth, found.stop + 1))


def _audited_part(prefixes: set[str], adapter: Adapter) -> tuple[str, tuple[str, ...]]:
    """The prefix of the model to read: the only one, or the encoder's of an encoder-decoder."""
    first = min(prefixes, key=len)
    stem = re.sub(r"(en|de)coder\.$", "", first)
    if prefixes == {f"{stem}encoder.", f"{stem}decoder."}:
        return f"{stem}encoder.", (
            "the decoder, with any cross-attention: the part audited is the encoder's self-attention",
        )
    if len(prefixes) != 1:
        raise InputError(
            argument="path",
            got=f"attention layers under {len(prefixes)} prefixes: {sorted(prefixes)}",
            expected=f"one {adapter.architecture} model",
            fix="save the state dict of one model alone",
        )
    return first, ()


def _cross_attention(state: State) -> tuple[str, ...]:
    crossing = next(filter(CROSS_ATTENTION.fullmatch, state), None)
    if crossing is None:
        return ()
    return (f"cross-attention ({crossing} and others): the part audited is the self-attention",)


def _counted(numbers: set[str]) -> range:
    """From 0 to the largest, or far enough to include one that is missing."""
    return range(1 + min(max(map(int, numbers)), len(numbers)))


def _refused(adapter: Adapter, key: str, reason: str) -> InputError:
    return InputError(
        argument="path",
        got=f"a state dict with {key!r}: {reason}",
        expected=f"attention as the {adapter.architecture} adapter reads it",
        fix="use a model without it: its scores are not those of the attention this project speaks about",
    )


def _missing(state: State, key: str, adapter: str) -> InputError:
    near = get_close_matches(key, state, 1)
    return bad_weight(f"a state dict without {key!r}" + (f", nearest {near[0]!r}" if near else ""), adapter)


def bad_weight(got: str, adapter: str) -> InputError:
    """A tensor of the state dict that cannot be used."""
    return InputError(
        argument="path",
        got=got,
        expected=f"dense finite floating-point matrices under the keys of the {adapter} adapter",
        fix="correct the keys in the map file, or pass the complete state dict of the model"
        if adapter == "mapped"
        else "pass the complete, undamaged and unquantised state dict of the model",
    )


def bad_heads(heads: object, expected: str) -> InputError:
    """A number of heads that cannot be."""
    return InputError(
        argument="heads",
        got=str(heads),
        expected=expected,
        fix="pass the number of attention heads the model was trained with",
    )
