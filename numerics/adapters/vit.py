"""ViT and DeiT: pre-LN encoders of images, keys of `transformers` with or without a prefix such as `vit.`.

DeiT has a distillation token behind the class token; otherwise the two are alike. In memory, and so in a
state dict that was saved as it is, transformers 5 names the layers' keys anew.
"""

import re
from dataclasses import replace

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, encoder_settings, need

_LAYER = "encoder.layer.{0}"
_BODY = Body(
    patches="embeddings.patch_embeddings.projection.weight",
    first_tokens=("embeddings.cls_token", "embeddings.distillation_token"),
    positions="embeddings.position_embeddings",
    up=f"{_LAYER}.intermediate.dense.weight",
    down=f"{_LAYER}.output.dense.weight",
    mlp_norm=f"{_LAYER}.layernorm_after.weight",
    final_norm="layernorm.weight",
    optional=frozenset({"embeddings.distillation_token"}),
)


def _settings(config: Config) -> Settings:
    return encoder_settings(config, norm_first=True)


def _renamed_settings(config: Config) -> Settings:
    need(config, "models of other kinds have such keys too")
    return _settings(config)


ADAPTER = Adapter(
    architecture="vit",
    model_types=frozenset({"vit", "deit"}),
    pattern=re.compile(r"(|.*\.)encoder\.layer\.(\d+)\.attention\.attention\.(?:query|key|value)\.weight"),
    name=f"{_LAYER}.attention",
    maps=Maps(
        query=f"{_LAYER}.attention.attention.query.weight",
        key=f"{_LAYER}.attention.attention.key.weight",
        value=f"{_LAYER}.attention.attention.value.weight",
        output=f"{_LAYER}.attention.output.dense.weight",
    ),
    settings=_settings,
    heads_key="num_attention_heads",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation before attention and before the feed-forward block (pre-LN), with gain and bias",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions, added to the embedded patches once",
        "the embedding of patches, class and distillation tokens, the final normalisation and the head",
        "dropout",
    ),
    attention_norm=f"{_LAYER}.layernorm_before.weight",
    body=_BODY,
    refuses=((r".*relative_position_bias.*", "relative positions enter the scores"),),
)
RENAMED = replace(
    ADAPTER,
    pattern=re.compile(r"(|.*\.)layers\.(\d+)\.attention\.[qkvo]_proj\.weight"),
    name="layers.{0}.attention",
    maps=Maps(
        query="layers.{0}.attention.q_proj.weight",
        key="layers.{0}.attention.k_proj.weight",
        value="layers.{0}.attention.v_proj.weight",
        output="layers.{0}.attention.o_proj.weight",
    ),
    settings=_renamed_settings,
    attention_norm="layers.{0}.layernorm_before.weight",
    body=replace(
        _BODY,
        up="layers.{0}.mlp.fc1.weight",
        down="layers.{0}.mlp.fc2.weight",
        mlp_norm="layers.{0}.layernorm_after.weight",
    ),
)
