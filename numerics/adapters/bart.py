"""BART: an encoder-decoder, of which the encoder is read (post-LN). Keys of `transformers`."""

import re
from math import sqrt

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count, flag, need

_LAYER = "encoder.layers.{0}"


def _settings(config: Config) -> Settings:
    need(config, "models with these keys differ in where their norms stand")
    width = count(config, "d_model")
    return Settings(
        heads=count(config, "encoder_attention_heads"),
        width=width,
        depth=count(config, "encoder_layers"),
        eps=1e-5,  # the default of torch's LayerNorm: not in the config
        norm_first=False,
        activation=config.get("activation_function", "gelu"),
        first_position=2,  # the table's first two rows are never used
        embedding_scale=sqrt(width) if width and flag(config, "scale_embedding") else 1.0,
    )


ADAPTER = Adapter(
    architecture="bart",
    model_types=frozenset({"bart"}),
    pattern=re.compile(r"(|.*\.)encoder\.layers\.(\d+)\.self_attn\.[qkv]_proj\.weight"),
    name=f"{_LAYER}.self_attn",
    maps=Maps(
        query=f"{_LAYER}.self_attn.q_proj.weight",
        key=f"{_LAYER}.self_attn.k_proj.weight",
        value=f"{_LAYER}.self_attn.v_proj.weight",
        output=f"{_LAYER}.self_attn.out_proj.weight",
    ),
    settings=_settings,
    heads_key="encoder_attention_heads",
    ignores=(
        "the decoder, causal and with cross-attention: the part audited is the encoder's self-attention",
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation after attention and after the feed-forward block (post-LN)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions, added to the input embeddings once",
        "padding mask and dropout",
    ),
    attention_norm=f"{_LAYER}.self_attn_layer_norm.weight",
    body=Body(
        tokens="shared.weight",
        positions="encoder.embed_positions.weight",
        embedding_norm="encoder.layernorm_embedding.weight",
        up=f"{_LAYER}.fc1.weight",
        down=f"{_LAYER}.fc2.weight",
        mlp_norm=f"{_LAYER}.final_layer_norm.weight",
    ),
)
