"""BERT and models of its layout: post-LN encoders whose layers have weights of their own.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `bert.`:
`encoder.layer.<layer>.attention.self.{query,key,value}.weight` and `...attention.output.dense.weight`.
"""

import re

from numerics.adapters.base import Adapter

ADAPTER = Adapter(
    architecture="bert",
    pattern=re.compile(r"(.*)encoder\.layer\.(\d+)\.attention\.self\.(?:query|key|value)\.weight"),
    layer="encoder.layer.{}.attention",
    parts=("self.query", "self.key", "self.value", "output.dense"),
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the pooler and the prediction head",
        "padding mask and dropout",
    ),
    heads_key="num_attention_heads",
    width_key="hidden_size",
    depth_key=None,
)
