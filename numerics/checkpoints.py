"""Attention layers of real Transformers, from files on disk, read one at a time.

`numerics.states` says which files; an adapter (`numerics.adapters`) says what their keys mean.
"""

import os
from collections.abc import Mapping as AnyMapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

from torch import Tensor

from numerics.adapters import ADAPTERS
from numerics.adapters.base import Adapter, AttentionLayer, Head
from numerics.adapters.mapped import adapter_of
from numerics.adapters.model import Model, find_model
from numerics.errors import InputError
from numerics.mapping import Mapping
from numerics.states import load_state_dict, open_model

__all__ = ["AttentionLayer", "Checkpoint", "Head", "load_checkpoint", "load_state_dict"]

PathLike = str | os.PathLike[str]


class Layers(Sequence[AttentionLayer]):
    """The distinct attention layers of a model, each read from the file whenever it is asked for."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def __len__(self) -> int:
        return len(self._model.numbers)

    @overload
    def __getitem__(self, index: int) -> AttentionLayer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[AttentionLayer]: ...
    def __getitem__(self, index: int | slice) -> AttentionLayer | Sequence[AttentionLayer]:
        chosen = range(len(self))[index]
        return (
            self._model.layer(chosen) if isinstance(chosen, int) else [self._model.layer(i) for i in chosen]
        )


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained model, of which the attention layers are known.

    `architecture` is the model type that the config names, or else the adapter's name. `layers` are the
    distinct attention layers in order; each is read, checked and converted when asked for and not kept, so
    that memory is needed for one. `shared_layers` is the depth through which they are iterated when weights
    are shared over depth; None when every layer is used once, or when no config says the depth. `ignores`
    lists what the attention-only dynamics built from these layers leaves out: a verdict about it is
    not one about the whole model. `config` is what `numerics.states.open_model` found. `model` is for
    `numerics.transformer`, which runs the whole model where it is known.
    """

    architecture: str
    layers: Layers
    shared_layers: int | None
    ignores: tuple[str, ...]
    config: AnyMapping[str, Any]
    model: Model


def load_checkpoint(path: PathLike, heads: int | None = None, mapping: Mapping | None = None) -> Checkpoint:
    """Open the checkpoint at `path` by the adapter whose keys match, or as `mapping` says.

    The number of heads comes from the config that lies beside the weights or in their file; `heads` is needed
    only without one.

    Raises `InputError` as `open_model` does, and if no adapter knows the keys, the config's model type is
    not one that the adapter reads, it has a setting that changes the scores in a way no adapter reads, a key
    of an attention layer is missing, or the number of heads is unknown, contradicts the config or does not
    divide d. Asking for a layer raises it if a weight of the layer has a wrong shape or type or is not
    finite.
    """
    state, config = open_model(path)
    _require_plain(config)
    adapter = _find_adapter(state, config) if mapping is None else _require_match(adapter_of(mapping), state)
    settings, kind = adapter.settings(config), config.get("model_type", config.get("general.architecture"))
    model, said = find_model(adapter, settings, _resolve_heads(settings.heads, adapter, heads), state)
    return Checkpoint(
        architecture=kind if kind in adapter.model_types else adapter.architecture,
        layers=Layers(model),
        shared_layers=settings.depth if adapter.shared else None,
        ignores=adapter.ignores + said + _positions(model) + _assumed(config, adapter, mapping),
        config=config,
        model=model,
    )


def _require_plain(config: AnyMapping[str, Any]) -> None:
    if config.get("quantization_config") is not None:
        raise InputError(
            argument="path",
            got="a model whose config has a quantization_config",
            expected="weights that are what the model computes with",
            fix="save the model dequantised, or use its original or a GGUF file",
        )


def _find_adapter(state: AnyMapping[str, Tensor], config: AnyMapping[str, Any]) -> Adapter:
    kind = config.get("model_type")
    found = [adapter for adapter in ADAPTERS if adapter.matches(state)]
    if found and kind is None:
        return found[0]
    for adapter in found:
        if kind in adapter.model_types:
            return adapter
    if found:
        known = sorted(frozenset().union(*(adapter.model_types for adapter in found)))
        raise InputError(
            argument="path",
            got=f"keys of the {found[0].architecture} adapter with a config of model_type {kind!r}",
            expected="a model_type that computes as these do: " + (", ".join(known) or "none"),
            fix="use such a model, or describe its attention in a --map file if it is the plain one",
        )
    if relative := next((key for key in state if "relative_attention_bias" in key), None):
        raise InputError(
            argument="path",
            got=f"a state dict with {relative!r}: a T5, whose scores have a learned bias for each distance",
            expected="attention whose scores come from queries and keys",
            fix="use a model without it: no statement here is about such scores",
        )
    raise InputError(
        argument="path",
        got=f"a state dict of {len(state)} keys of no known architecture, the first {next(iter(state))!r}",
        expected="the keys of one of: " + ", ".join(dict.fromkeys(a.architecture for a in ADAPTERS)),
        fix="use a checkpoint of one of these, or describe its attention in a --map file",
    )


def _require_match(adapter: Adapter, state: AnyMapping[str, Tensor]) -> Adapter:
    if not adapter.matches(state):
        raise InputError(
            argument="map",
            got=f"the query key {adapter.maps.query!r}, which no key of the state dict fits",
            expected=f"keys such as {next(iter(state))!r}",
            fix="correct the key patterns in the map file",
        )
    return adapter


def _resolve_heads(configured: int | None, adapter: Adapter, heads: int | None) -> int:
    if heads is None and configured is not None:
        return configured
    if type(heads) is not int or heads < 1 or configured not in (None, heads):
        raise InputError(
            argument="heads",
            got=repr(heads),
            expected="a positive whole number"
            if configured is None
            else f"{configured}, as config.json or the file's header says",
            fix=f"put the model's config.json (with {adapter.heads_key}) beside the file, or give their "
            "number (--num-heads)"
            if configured is None
            else "leave --num-heads out, or correct config.json",
        )
    return heads


def _positions(model: Model) -> tuple[str, ...]:
    """What of the mask and of the positions in the scores is left out."""
    settings, said = model.settings, []
    if settings.causal:
        said.append("the causal mask, except where a statement says causal: tokens elsewhere attend to all")
    if settings.rotary_base is not None:
        said.append("the rotary encoding of queries and keys: W is the score matrix at offset 0")
    windows = [size for index in range(len(model.numbers)) if (size := settings.window(index)) is not None]
    if windows:
        said.append(f"the sliding window of {min(windows)} tokens: statements are about no longer sequences")
    return tuple(said)


def _assumed(config: AnyMapping[str, Any], adapter: Adapter, mapping: Mapping | None) -> tuple[str, ...]:
    if config or mapping:
        return ()
    return (f"there is no config: unstated settings are the defaults of {adapter.architecture}",)
