"""BERT and models of its layout: post-LN encoders whose layers have weights of their own.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `bert.`:
`encoder.layer.<layer>.attention.self.{query,key,value}.weight` and `...attention.output.dense.weight`.
"""

import re

from numerics.adapters.base import Adapter, AttentionLayer, State, read_layer, single_prefix

_KEY = re.compile(r"(.*)encoder\.layer\.(\d+)\.attention\.self\.(?:query|key|value)\.weight")
_PARTS = ("self.query", "self.key", "self.value", "output.dense")


def matches(state: State) -> bool:
    """Whether the state dict has a BERT attention layer."""
    return any(_KEY.fullmatch(key) for key in state)


def layers(state: State, heads: int) -> tuple[AttentionLayer, ...]:
    """The attention layers in order.

    Raises `InputError` if the state dict holds two BERT models, if a key is missing or its weight unusable,
    or if `heads` does not divide d.
    """
    found = [match.groups() for key in state if (match := _KEY.fullmatch(key))]
    prefix = single_prefix({prefix for prefix, _ in found}, "BERT")
    names = [f"{prefix}encoder.layer.{i}.attention" for i in range(1 + max(int(i) for _, i in found))]
    return tuple(read_layer(state, name, _PARTS, heads, "bert") for name in names)


ADAPTER = Adapter(
    architecture="bert",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the pooler and the prediction head",
        "padding mask and dropout",
    ),
    matches=matches,
    layers=layers,
    heads_key="num_attention_heads",
    width_key="hidden_size",
    depth_key=None,
)
