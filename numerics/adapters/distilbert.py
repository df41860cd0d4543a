"""DistilBERT: a BERT without token types, under keys of its own, with or without the prefix `distilbert.`."""

import re

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count

_LAYER = "transformer.layer.{0}"


def _settings(config: Config) -> Settings:
    return Settings(
        heads=count(config, "n_heads"),
        width=count(config, "dim"),
        depth=count(config, "n_layers"),
        eps=1e-12,  # in the model's code, not in its config
        norm_first=False,
        activation=config.get("activation", "gelu"),
    )


ADAPTER = Adapter(
    architecture="distilbert",
    model_types=frozenset({"distilbert"}),
    pattern=re.compile(r"(|.*\.)transformer\.layer\.(\d+)\.attention\.[qkv]_lin\.weight"),
    name=f"{_LAYER}.attention",
    maps=Maps(
        query=f"{_LAYER}.attention.q_lin.weight",
        key=f"{_LAYER}.attention.k_lin.weight",
        value=f"{_LAYER}.attention.v_lin.weight",
        output=f"{_LAYER}.attention.out_lin.weight",
    ),
    settings=_settings,
    heads_key="n_heads",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "absolute positions, added to the input embeddings once",
        "the prediction head",
        "padding mask and dropout",
    ),
    attention_norm=f"{_LAYER}.sa_layer_norm.weight",
    body=Body(
        tokens="embeddings.word_embeddings.weight",
        positions="embeddings.position_embeddings.weight",
        embedding_norm="embeddings.LayerNorm.weight",
        up=f"{_LAYER}.ffn.lin1.weight",
        down=f"{_LAYER}.ffn.lin2.weight",
        mlp_norm=f"{_LAYER}.output_layer_norm.weight",
    ),
)
