"""ALBERT: post-LN encoder whose attention weights are shared over all layers.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `albert.`:
`encoder.albert_layer_groups.<group>.albert_layers.<inner>.attention.{query,key,value,dense}.weight`. There is
usually one group of one inner layer, applied `num_hidden_layers` times. With G groups, each is applied
`num_hidden_layers / G` times in a row, its inner layers in order.
"""

import re

from numerics.adapters.base import Adapter, AttentionLayer, State, read_weight
from numerics.errors import InputError

_KEY = re.compile(r"(.*)encoder\.albert_layer_groups\.(\d+)\.albert_layers\.(\d+)\.attention\..+")


def matches(state: State) -> bool:
    """Whether the state dict has an ALBERT attention layer."""
    return any(_KEY.fullmatch(key) for key in state)


def layers(state: State, heads: int) -> tuple[AttentionLayer, ...]:
    """The distinct attention layers, ordered by group and then by inner layer; usually exactly one.

    Raises `InputError` if the state dict holds two ALBERT models, if a key is missing or its weight unusable,
    or if `heads` does not divide d.
    """
    found = [match.groups() for key in state if (match := _KEY.fullmatch(key))]
    prefixes = sorted({prefix for prefix, _, _ in found})
    if len(prefixes) != 1:
        raise InputError(
            argument="path",
            got=f"attention layers under {len(prefixes)} prefixes: {prefixes}",
            expected="one ALBERT model",
            fix="save the state dict of one model alone",
        )
    groups = 1 + max(int(group) for _, group, _ in found)
    inner_layers = 1 + max(int(inner) for _, _, inner in found)
    stem = f"{prefixes[0]}encoder.albert_layer_groups"
    return tuple(
        _layer(state, f"{stem}.{group}.albert_layers.{inner}.attention", heads)
        for group in range(groups)
        for inner in range(inner_layers)
    )


def _layer(state: State, name: str, heads: int) -> AttentionLayer:
    """The attention layer whose keys start with `name`; all four maps are square, (d, d)."""
    d = read_weight(state, f"{name}.query.weight", (None, None), "albert").shape[1]
    if d % heads != 0:
        raise InputError(
            argument="heads",
            got=str(heads),
            expected=f"a divisor of {d}, the width of {name}.query.weight (albert adapter)",
            fix="pass the number of attention heads the model was trained with",
        )
    query, key, value, output = (
        read_weight(state, f"{name}.{part}.weight", (d, d), "albert")
        for part in ("query", "key", "value", "dense")
    )
    return AttentionLayer(
        name=name,
        query=query,
        key=key,
        value=value,
        output=output,
        heads=heads,
        stored_dtype=str(state[f"{name}.query.weight"].dtype).removeprefix("torch."),
        has_biases=any(f"{name}.{part}.bias" in state for part in ("query", "key", "value", "dense")),
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
