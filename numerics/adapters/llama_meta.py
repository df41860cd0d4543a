"""Llama with the keys and settings of its authors (`params.json`), as llama2.c has them too.

Rows of queries and keys are in interleaved rotary order: rows 2k and 2k + 1 of a head turn together.
`numerics.llama2c` reads files that hold both weights and settings. Without a config, the base of the rotary
encoding and the epsilon of the norms are those that llama2.c and the first two Llamas have in their code.
"""

import re

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count, positive, require
from numerics.adapters.llama import IGNORES

_LAYER = "layers.{0}"


def _settings(config: Config) -> Settings:
    require(config, "use_scaled_rope", False)
    return Settings(
        heads=count(config, "n_heads"),
        kv_heads=count(config, "n_kv_heads"),
        width=count(config, "dim"),
        depth=count(config, "n_layers"),
        eps=positive(config, "norm_eps", 1e-5),
        norm_first=True,
        causal=True,
        rotary_base=positive(config, "rope_theta", 10000.0),
        rotary_layout="interleaved",
        activation="silu",
    )


ADAPTER = Adapter(
    architecture="llama",
    model_types=frozenset({"llama"}),
    pattern=re.compile(r"(|.*\.)layers\.(\d+)\.attention\.w[qkvo]\.weight"),
    name=f"{_LAYER}.attention",
    maps=Maps(
        query=f"{_LAYER}.attention.wq.weight",
        key=f"{_LAYER}.attention.wk.weight",
        value=f"{_LAYER}.attention.wv.weight",
        output=f"{_LAYER}.attention.wo.weight",
    ),
    settings=_settings,
    heads_key="n_heads",
    ignores=IGNORES,
    attention_norm=f"{_LAYER}.attention_norm.weight",
    norm_kind="rms",
    body=Body(
        tokens="tok_embeddings.weight",
        up=f"{_LAYER}.feed_forward.w3.weight",
        gate=f"{_LAYER}.feed_forward.w1.weight",
        down=f"{_LAYER}.feed_forward.w2.weight",
        mlp_norm=f"{_LAYER}.ffn_norm.weight",
        final_norm="norm.weight",
    ),
)
