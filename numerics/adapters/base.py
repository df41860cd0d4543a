"""What an adapter is: keys and settings of one architecture, as data, by which `model` beside this reads."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor

from numerics.adapters.layer import AttentionLayer, Head, NormKind, RotaryLayout
from numerics.errors import InputError

__all__ = ["Adapter", "AttentionLayer", "Body", "Config", "Head", "Maps", "Settings", "State"]

State = Mapping[str, Tensor]
"""A state dict: parameter name to tensor."""
Config = Mapping[str, Any]
"""The settings in a model's config.json, or in the header of its file."""

OLDER_NORMS = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
"""Names from TensorFlow, in the first files of BERT."""


@dataclass(frozen=True)
class Maps:
    """Keys of the four maps of attention; a bias is where `bias` stands in place of the final `weight`.

    If `fused`, the first three are one key, of which query, key and value are the rows in this order.
    `joint_bias` is the key of their biases one behind the other where the matrices are apart. If
    `transposed`, matrices are stored (in, out).
    """

    query: str
    key: str
    value: str
    output: str
    fused: bool = False
    joint_bias: str | None = None
    transposed: bool = False


@dataclass(frozen=True)
class Body:
    """Keys of everything around attention. What is None, or a key in `optional`, the model may be without.

    Embedding: `tokens`, `positions`, `types` are tables; an image model has a convolution `patches` and
    `first_tokens` that stand before the patches. Their sum passes `embedding_norm` and `embedding_map`. A
    model with neither `tokens` nor `patches` takes embedded tokens. In a block: `down(act(up(x)))`, or
    `down(act(gate(x)) * up(x))`, with `mlp_norm`. `final_norm` stands behind the last block.
    """

    up: str
    down: str
    mlp_norm: str
    gate: str | None = None
    tokens: str | None = None
    positions: str | None = None
    types: str | None = None
    patches: str | None = None
    first_tokens: tuple[str, ...] = ()
    embedding_norm: str | None = None
    embedding_map: str | None = None
    final_norm: str | None = None
    optional: frozenset[str] = frozenset()


def no_window(layer: int) -> None:
    """Every layer attends to all tokens its mask leaves."""


@dataclass(frozen=True)
class Settings:
    """What the config says, under one name for every architecture. A None is not given there.

    `heads`, `width` (d), `depth` (blocks applied), `kv_heads` (default: `heads`), `head_dim` (default:
    d/heads), `causal`, `window` (layer index to tokens) and `rotary_...` are as in `AttentionLayer` and
    `Rotary`; `eps` is that of all norms; `norm_first` says that norms stand before attention and MLP
    (pre-LN); `activation` is the MLP's. `scale_squared` (default: 1/head_dim) is divided by (i+1)^2 in layer
    i if `scale_by_layer`. The first token has row `first_position` of the table of positions; where `padding`
    is a token number, only other tokens are counted. `embedding_scale` is a factor of the token embedding.
    """

    heads: int | None
    eps: float
    norm_first: bool | None
    width: int | None = None
    depth: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    causal: bool = False
    window: Callable[[int], int | None] = no_window
    rotary_base: float | None = None
    rotary_layout: RotaryLayout = "half-split"
    rotary_dims: int | None = None
    scale_squared: Fraction | None = None
    scale_by_layer: bool = False
    activation: str = "gelu"
    first_position: int = 0
    padding: int | None = None
    embedding_scale: float = 1.0


@dataclass(frozen=True)
class Adapter:
    """How to read one architecture out of its state dict.

    `pattern` fits the keys by which the architecture is known; its groups are what comes before the model's
    own keys (the prefix) and the numbers of the layer. Every other key is a template without the prefix, with
    `{0}`, `{1}` for these numbers: `name` of the attention layer, `maps`, `attention_norm` and `body` (None:
    only attention is known). `model_types` are the values of `model_type` in configs that mean this
    architecture; others that share keys compute otherwise. `refuses` says of keys (patterns) why a model that
    has them cannot be read. `settings` reads the config; `heads_key` is the name of the number of heads
    there. `aliases` are older endings of keys: for one that is missing, that with the second ending in place
    of the first counts. `shared`: the layers are iterated through the depth.
    """

    architecture: str
    model_types: frozenset[str]
    pattern: re.Pattern[str]
    name: str
    maps: Maps
    settings: Callable[[Config], Settings]
    heads_key: str
    ignores: tuple[str, ...]
    attention_norm: str | None = None
    norm_kind: NormKind = "layer"
    body: Body | None = None
    refuses: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    shared: bool = False

    def matches(self, state: State) -> bool:
        """Whether the state dict has an attention layer of this architecture."""
        return any(map(self.pattern.fullmatch, state))


def bad_config(got: str, expected: str) -> InputError:
    """A setting that does not fit, or that no adapter reads."""
    return InputError(
        argument="path",
        got=got,
        expected=expected,
        fix="put the config.json of the same model beside the file, or remove it and give --num-heads",
    )


def count(config: Config, key: str, default: int | None = None) -> int | None:
    """The positive whole number under `key`; `default` if the config does not give it."""
    found = config.get(key)
    if found is None:
        return default
    if type(found) is not int or found < 1:
        raise bad_config(f"config.json with {key} = {found!r}", "a positive whole number")
    return found


def encoder_settings(config: Config, *, norm_first: bool = False, activation: str = "gelu") -> Settings:
    """Those of an encoder whose config has BERT's names; `activation` where it does not say one."""
    return Settings(
        heads=count(config, "num_attention_heads"),
        width=count(config, "hidden_size"),
        depth=count(config, "num_hidden_layers"),
        eps=positive(config, "layer_norm_eps", 1e-12),
        norm_first=norm_first,
        activation=config.get("hidden_act", activation),
    )


def need(config: Config, why: str) -> None:
    """`InputError` if there is no config, without which the architecture cannot be read."""
    if not config:
        raise InputError(
            argument="path",
            got="no config.json",
            expected=f"one beside the weights, for {why}",
            fix="put the model's config.json beside the file",
        )


def positive(config: Config, key: str, default: float) -> float:
    """The positive number under `key`; `default` if the config does not give it."""
    found = config.get(key)
    if found is None:
        return default
    if type(found) not in (int, float) or not 0 < found < float("inf"):
        raise bad_config(f"config.json with {key} = {found!r}", "a positive number")
    return float(found)


def flag(config: Config, key: str, default: bool = False) -> bool:
    """The switch under `key`; `default` if the config does not give it."""
    found = config.get(key)
    if found is None:
        return default
    if type(found) is not bool:
        raise bad_config(f"config.json with {key} = {found!r}", "true or false")
    return found


def require(config: Config, key: str, *allowed: object) -> None:
    """`InputError` unless the config leaves `key` out or gives it one of these values."""
    if config.get(key) is not None and config[key] not in allowed:
        expected = f"{key} = {' or '.join(map(repr, allowed))}" if allowed else f"no {key}"
        raise InputError(
            argument="path",
            got=f"a config with {key} = {config[key]!r}, which changes the attention scores",
            expected=expected,
            fix="use a model without this setting: no adapter reads it",
        )
