"""BERT and RoBERTa: post-LN encoders whose layers have weights of their own.

Keys as Hugging Face `transformers` writes them, with or without a prefix such as `bert.`. The two differ in
the settings alone: RoBERTa counts positions from the padding token's number plus one. As a decoder
(`is_decoder`) the model is causal.
"""

import re
from dataclasses import replace

from numerics.adapters.base import (
    OLDER_NORMS,
    Adapter,
    Body,
    Config,
    Maps,
    Settings,
    bad_config,
    encoder_settings,
    flag,
    require,
)

_LAYER = "encoder.layer.{0}"


def _bert(config: Config) -> Settings:
    require(config, "position_embedding_type", "absolute")
    return replace(encoder_settings(config), causal=flag(config, "is_decoder"))


def _roberta(config: Config) -> Settings:
    padding = config.get("pad_token_id", 1)
    if type(padding) is not int or padding < 0:
        raise bad_config(f"config.json with pad_token_id = {padding!r}", "a token number")
    return replace(_bert(config), first_position=padding + 1, padding=padding)


BERT = Adapter(
    architecture="bert",
    model_types=frozenset({"bert"}),
    pattern=re.compile(r"(|.*\.)encoder\.layer\.(\d+)\.attention\.self\.(?:query|key|value)\.weight"),
    name=f"{_LAYER}.attention",
    maps=Maps(
        query=f"{_LAYER}.attention.self.query.weight",
        key=f"{_LAYER}.attention.self.key.weight",
        value=f"{_LAYER}.attention.self.value.weight",
        output=f"{_LAYER}.attention.output.dense.weight",
    ),
    settings=_bert,
    heads_key="num_attention_heads",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions and token types, added to the input embeddings once",
        "the pooler and the prediction head",
        "padding mask and dropout",
    ),
    attention_norm=f"{_LAYER}.attention.output.LayerNorm.weight",
    body=Body(
        tokens="embeddings.word_embeddings.weight",
        positions="embeddings.position_embeddings.weight",
        types="embeddings.token_type_embeddings.weight",
        embedding_norm="embeddings.LayerNorm.weight",
        up=f"{_LAYER}.intermediate.dense.weight",
        down=f"{_LAYER}.output.dense.weight",
        mlp_norm=f"{_LAYER}.output.LayerNorm.weight",
    ),
    aliases=OLDER_NORMS,
    refuses=(
        (r".*\.attention\.self\.(distance|pos|rel|rotary).*", "relative positions enter the scores"),
        (r".*\.rel(ative)?_(pos|attention).*", "relative positions enter the scores"),
    ),
)
ROBERTA = replace(
    BERT,
    architecture="roberta",
    model_types=frozenset({"roberta", "xlm-roberta", "camembert"}),
    settings=_roberta,
)
