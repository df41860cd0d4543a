"""ALBERT: post-LN encoder whose attention weights are shared over all layers.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `albert.`:
`encoder.albert_layer_groups.<group>.albert_layers.<inner>.attention.{query,key,value,dense}.weight`. There is
usually one group of one inner layer, applied `num_hidden_layers` times. With G groups, each is applied
`num_hidden_layers / G` times in a row, its inner layers in order.
"""

import re

from numerics.adapters.base import Adapter, AttentionLayer, State, read_layer, single_prefix

_KEY = re.compile(r"(.*)encoder\.albert_layer_groups\.(\d+)\.albert_layers\.(\d+)\.attention\..+")
_PARTS = ("query", "key", "value", "dense")


def matches(state: State) -> bool:
    """Whether the state dict has an ALBERT attention layer."""
    return any(_KEY.fullmatch(key) for key in state)


def layers(state: State, heads: int) -> tuple[AttentionLayer, ...]:
    """The distinct attention layers, ordered by group and then by inner layer; usually exactly one.

    Raises `InputError` if the state dict holds two ALBERT models, if a key is missing or its weight unusable,
    or if `heads` does not divide d.
    """
    found = [match.groups() for key in state if (match := _KEY.fullmatch(key))]
    prefix = single_prefix({prefix for prefix, _, _ in found}, "ALBERT")
    groups = 1 + max(int(group) for _, group, _ in found)
    inner_layers = 1 + max(int(inner) for _, _, inner in found)
    stem = f"{prefix}encoder.albert_layer_groups"
    return tuple(
        read_layer(state, f"{stem}.{group}.albert_layers.{inner}.attention", _PARTS, heads, "albert")
        for group in range(groups)
        for inner in range(inner_layers)
    )


ADAPTER = Adapter(
    architecture="albert",
    ignores=(
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the map from the embedding width to d, the pooler and the prediction head",
        "padding mask and dropout",
    ),
    matches=matches,
    layers=layers,
    heads_key="num_attention_heads",
    width_key="hidden_size",
    depth_key="num_hidden_layers",
)
