"""Llama, with the keys of its authors: causal decoders with rotary encoding and RMS normalisation.

Keys `layers.<layer>.attention.{wq,wk,wv,wo}.weight`, with or without a prefix; settings are named as in
`params.json` (`numerics.llama2c` reads files that hold both). Rows of queries and keys are in interleaved
rotary order: rows 2k and 2k + 1 of a head turn together. Every head has keys and values of its own: grouped
heads are not read. The `score_matrix` of a head is that of offset 0, where rotation does nothing.
"""

import re

from numerics.adapters.base import Adapter

ADAPTER = Adapter(
    architecture="llama",
    pattern=re.compile(r"(.*)layers\.(\d+)\.attention\.w[qkvo]\.weight"),
    layer="layers.{}.attention",
    parts=("wq", "wk", "wv", "wo"),
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "the causal mask: tokens here attend to all tokens",
        "the rotary encoding of queries and keys: W is the score matrix at offset 0",
        "RMS normalisation before attention and before the feed-forward block, with its learned scales",
        "the feed-forward block (SwiGLU)",
        "the embedding and the prediction head",
    ),
    heads_key="n_heads",
    width_key="dim",
    depth_key=None,
)
