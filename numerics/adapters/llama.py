"""Llama, with the keys of its authors: causal decoders with rotary encoding and RMS normalisation.

Keys `layers.<layer>.attention.{wq,wk,wv,wo}.weight`, with or without a prefix; settings are named as in
`params.json` (`numerics.llama2c` reads files that hold both). Rows of queries and keys are in interleaved
rotary order: rows 2k and 2k + 1 of a head turn together. Every head has keys and values of its own: grouped
heads are not read.
"""

import re

from numerics.adapters.base import Adapter, AttentionLayer, State, read_layer, single_prefix

_KEY = re.compile(r"(.*)layers\.(\d+)\.attention\.w[qkvo]\.weight")
_PARTS = ("wq", "wk", "wv", "wo")


def matches(state: State) -> bool:
    """Whether the state dict has a Llama attention layer."""
    return any(_KEY.fullmatch(key) for key in state)


def layers(state: State, heads: int) -> tuple[AttentionLayer, ...]:
    """The attention layers in order; their `score_matrix` is that of offset 0, where rotation does nothing.

    Raises `InputError` if the state dict holds two Llama models, if a key is missing or its weight unusable,
    or if `heads` does not divide d.
    """
    found = [match.groups() for key in state if (match := _KEY.fullmatch(key))]
    prefix = single_prefix({prefix for prefix, _ in found}, "Llama")
    names = [f"{prefix}layers.{i}.attention" for i in range(1 + max(int(i) for _, i in found))]
    return tuple(read_layer(state, name, _PARTS, heads, "llama") for name in names)


ADAPTER = Adapter(
    architecture="llama",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "the causal mask: tokens here attend to all tokens",
        "the rotary encoding of queries and keys: W is the score matrix at offset 0",
        "RMS normalisation before attention and before the feed-forward block, with its learned scales",
        "the feed-forward block (SwiGLU)",
        "the embedding and the prediction head",
    ),
    matches=matches,
    layers=layers,
    heads_key="n_heads",
    width_key="dim",
    depth_key=None,
)
