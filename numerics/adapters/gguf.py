"""Llama and Qwen2 in GGUF files: keys and settings as llama.cpp names them.

The settings start with the architecture's name, as in `llama.attention.head_count`. The converter puts the
rows of Llama's queries and keys in interleaved rotary order; those of Qwen2 stay half-split
(`llama_model_rope_type` in llama.cpp).
"""

import re

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count, positive, require
from numerics.adapters.llama import IGNORES
from numerics.errors import InputError

_LAYER = "blk.{0}"


def _settings(config: Config) -> Settings:
    name = config.get("general.architecture")
    if name not in ADAPTER.model_types:
        raise InputError(
            argument="path",
            got=f"GGUF tensors with general.architecture = {name!r}",
            expected="one of " + ", ".join(sorted(ADAPTER.model_types)),
            fix="convert the model to one of these, or use its original checkpoint",
        )
    about = {key.removeprefix(f"{name}."): value for key, value in config.items()}
    require(about, "rope.scaling.type", "none")
    require(about, "attention.scale")
    head_dim = count(about, "attention.key_length")
    require(about, "attention.value_length", head_dim)
    window = count(about, "attention.sliding_window")
    return Settings(
        heads=count(about, "attention.head_count"),
        kv_heads=count(about, "attention.head_count_kv"),
        head_dim=head_dim,
        width=count(about, "embedding_length"),
        depth=count(about, "block_count"),
        eps=positive(about, "attention.layer_norm_rms_epsilon", 1e-5),
        norm_first=True,
        causal=True,
        window=lambda layer: window,
        rotary_base=positive(about, "rope.freq_base", 10000.0),
        rotary_layout="interleaved" if name == "llama" else "half-split",
        rotary_dims=count(about, "rope.dimension_count"),
        activation="silu",
    )


ADAPTER = Adapter(
    architecture="llama",
    model_types=frozenset({"llama", "qwen2"}),
    pattern=re.compile(r"()blk\.(\d+)\.attn_(?:q|k|v|output)\.weight"),
    name=f"{_LAYER}.attn",
    maps=Maps(
        query=f"{_LAYER}.attn_q.weight",
        key=f"{_LAYER}.attn_k.weight",
        value=f"{_LAYER}.attn_v.weight",
        output=f"{_LAYER}.attn_output.weight",
    ),
    settings=_settings,
    heads_key="attention.head_count",
    ignores=IGNORES,
    attention_norm=f"{_LAYER}.attn_norm.weight",
    norm_kind="rms",
    body=Body(
        tokens="token_embd.weight",
        up=f"{_LAYER}.ffn_up.weight",
        gate=f"{_LAYER}.ffn_gate.weight",
        down=f"{_LAYER}.ffn_down.weight",
        mlp_norm=f"{_LAYER}.ffn_norm.weight",
        final_norm="output_norm.weight",
    ),
    refuses=(
        (r"rope_freqs\.weight", "rotary frequencies are rescaled"),
        (r".*attn_[qk]_norm\..*", "queries and keys are normalised, so scores are not xᵢᵀWxⱼ"),
        (r".*attn_(sinks|rel_b).*", "more than queries and keys enters the scores"),
    ),
)
