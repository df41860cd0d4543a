"""ALBERT: post-LN encoder whose attention weights are shared over all layers.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `albert.`:
`encoder.albert_layer_groups.<group>.albert_layers.<inner>.attention.{query,key,value,dense}.weight`. There is
usually one group of one inner layer, applied `num_hidden_layers` times. With G groups, each is applied
`num_hidden_layers / G` times in a row, its inner layers in order.
"""

import re

from numerics.adapters.base import Adapter

ADAPTER = Adapter(
    architecture="albert",
    pattern=re.compile(r"(.*)encoder\.albert_layer_groups\.(\d+)\.albert_layers\.(\d+)\.attention\..+"),
    layer="encoder.albert_layer_groups.{}.albert_layers.{}.attention",
    parts=("query", "key", "value", "dense"),
    ignores=(
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the map from the embedding width to d, the pooler and the prediction head",
        "padding mask and dropout",
    ),
    heads_key="num_attention_heads",
    width_key="hidden_size",
    depth_key="num_hidden_layers",
)
