"""Llama, Mistral and Qwen2 (and models of their layout, such as SmolLM) with the keys of `transformers`.

Pre-LN causal decoders with rotary encoding, RMS normalisation and, mostly, grouped heads. Rows of queries and
keys are in half-split rotary order: rows k and k + dk/2 of a head turn together. The `score_matrix` of a head
is that of offset 0, where rotation does nothing. The base of the rotation is in the config alone, so a
config.json is needed.
"""

import re
from collections.abc import Callable

from numerics.adapters.base import (
    Adapter,
    Body,
    Config,
    Maps,
    Settings,
    count,
    flag,
    need,
    no_window,
    positive,
    require,
)

_LAYER = "layers.{0}"

SWITCHES = ("attention_multiplier", "query_pre_attn_scalar", "attn_logit_softcapping", "use_qk_norm")
"""Of models with such keys that compute scores otherwise."""
IGNORES = (
    "the change of weights from layer to layer: each layer is taken as a system of its own",
    "RMS normalisation before attention and before the feed-forward block, with its learned scales",
    "the feed-forward block (SwiGLU)",
    "biases, where the model has them",
    "the embedding and the prediction head",
)


def _settings(config: Config) -> Settings:
    need(config, "rope_theta, the base of the rotary encoding, is there alone")
    for switch in ("rope_scaling", *SWITCHES):
        require(config, switch, False)
    rotary = config.get("rope_parameters") or {}
    require(rotary, "rope_type", "default")
    require(rotary, "partial_rotary_factor", 1, 1.0)
    base = positive(rotary, "rope_theta", positive(config, "rope_theta", 10000.0))
    return Settings(
        heads=count(config, "num_attention_heads"),
        kv_heads=count(config, "num_key_value_heads", 8 if config.get("model_type") == "mistral" else None),
        head_dim=count(config, "head_dim"),
        width=count(config, "hidden_size"),
        depth=count(config, "num_hidden_layers"),
        eps=positive(config, "rms_norm_eps", 1e-6),
        norm_first=True,
        causal=True,
        window=_window(config),
        rotary_base=base,
        activation=config.get("hidden_act", "silu"),
    )


def _window(config: Config) -> Callable[[int], int | None]:
    """Of Mistral in all layers; of Qwen2, if switched on, in those that the config names."""
    size, kind = count(config, "sliding_window"), config.get("model_type")
    if kind == "mistral":
        size = size if "sliding_window" in config else 4096
        return lambda layer: size
    if size is None or not flag(config, "use_sliding_window"):
        return no_window
    first, kinds = config.get("max_window_layers", 28), config.get("layer_types")
    if kinds is not None:
        return lambda layer: size if kinds[layer] == "sliding_attention" else None
    return lambda layer: size if layer >= first else None


ADAPTER = Adapter(
    architecture="llama",
    model_types=frozenset({"llama", "mistral", "qwen2"}),
    pattern=re.compile(r"(|.*\.)layers\.(\d+)\.self_attn\.[qkvo]_proj\.weight"),
    name=f"{_LAYER}.self_attn",
    maps=Maps(
        query=f"{_LAYER}.self_attn.q_proj.weight",
        key=f"{_LAYER}.self_attn.k_proj.weight",
        value=f"{_LAYER}.self_attn.v_proj.weight",
        output=f"{_LAYER}.self_attn.o_proj.weight",
    ),
    settings=_settings,
    heads_key="num_attention_heads",
    ignores=IGNORES,
    attention_norm=f"{_LAYER}.input_layernorm.weight",
    norm_kind="rms",
    body=Body(
        tokens="embed_tokens.weight",
        up=f"{_LAYER}.mlp.up_proj.weight",
        gate=f"{_LAYER}.mlp.gate_proj.weight",
        down=f"{_LAYER}.mlp.down_proj.weight",
        mlp_norm=f"{_LAYER}.post_attention_layernorm.weight",
        final_norm="norm.weight",
    ),
    refuses=(
        (r".*self_attn\.[qk]_(layer)?norm\..*", "queries and keys are normalised, so scores are not xᵢᵀWxⱼ"),
        (r".*(pre|post)_feedforward_layernorm\..*", "norms stand behind attention too, as in Gemma 2"),
    ),
)
