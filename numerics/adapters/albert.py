"""ALBERT: post-LN encoder whose weights are shared over all layers.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `albert.`. There is usually
one group of one inner layer, applied `num_hidden_layers` times. With G groups, each is applied
`num_hidden_layers / G` times in a row, its inner layers in order.
"""

import re

from numerics.adapters.base import (
    OLDER_NORMS,
    Adapter,
    Body,
    Config,
    Maps,
    Settings,
    encoder_settings,
    require,
)

_LAYER = "encoder.albert_layer_groups.{0}.albert_layers.{1}"


def _settings(config: Config) -> Settings:
    require(config, "position_embedding_type", "absolute")
    return encoder_settings(config, activation="gelu_new")


ADAPTER = Adapter(
    architecture="albert",
    model_types=frozenset({"albert"}),
    pattern=re.compile(r"(|.*\.)encoder\.albert_layer_groups\.(\d+)\.albert_layers\.(\d+)\.attention\..+"),
    name=f"{_LAYER}.attention",
    maps=Maps(
        query=f"{_LAYER}.attention.query.weight",
        key=f"{_LAYER}.attention.key.weight",
        value=f"{_LAYER}.attention.value.weight",
        output=f"{_LAYER}.attention.dense.weight",
    ),
    settings=_settings,
    heads_key="num_attention_heads",
    ignores=(
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the map from the embedding width to d, the pooler and the prediction head",
        "padding mask and dropout",
    ),
    attention_norm=f"{_LAYER}.attention.LayerNorm.weight",
    body=Body(
        tokens="embeddings.word_embeddings.weight",
        positions="embeddings.position_embeddings.weight",
        types="embeddings.token_type_embeddings.weight",
        embedding_norm="embeddings.LayerNorm.weight",
        embedding_map="encoder.embedding_hidden_mapping_in.weight",
        up=f"{_LAYER}.ffn.weight",
        down=f"{_LAYER}.ffn_output.weight",
        mlp_norm=f"{_LAYER}.full_layer_layer_norm.weight",
    ),
    aliases=OLDER_NORMS,
    shared=True,
)
