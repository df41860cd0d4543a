"""GPT-2: pre-LN causal decoder. Keys of `transformers`, with or without the prefix `transformer.`.

Its maps are of class `Conv1D`, stored (in, out), and query, key and value map are one matrix `c_attn`. Two
switches of the config change the scale of the scores and are honoured: `scale_attn_weights` and
`scale_attn_by_inverse_layer_idx`.
"""

import re
from fractions import Fraction

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count, flag, positive

_LAYER = "h.{0}"


def _settings(config: Config) -> Settings:
    return Settings(
        heads=count(config, "n_head"),
        width=count(config, "n_embd"),
        depth=count(config, "n_layer"),
        eps=positive(config, "layer_norm_epsilon", 1e-5),
        norm_first=True,
        causal=True,
        scale_squared=None if flag(config, "scale_attn_weights", True) else Fraction(1),
        scale_by_layer=flag(config, "scale_attn_by_inverse_layer_idx"),
        activation=config.get("activation_function", "gelu_new"),
    )


ADAPTER = Adapter(
    architecture="gpt2",
    model_types=frozenset({"gpt2"}),
    pattern=re.compile(r"(|.*\.)h\.(\d+)\.attn\.c_(?:attn|proj)\.weight"),
    name=f"{_LAYER}.attn",
    maps=Maps(
        query=f"{_LAYER}.attn.c_attn.weight",
        key=f"{_LAYER}.attn.c_attn.weight",
        value=f"{_LAYER}.attn.c_attn.weight",
        output=f"{_LAYER}.attn.c_proj.weight",
        fused=True,
        transposed=True,
    ),
    settings=_settings,
    heads_key="n_head",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation before attention and before the feed-forward block (pre-LN), with gain and bias",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        "learned absolute positions, added to the input embeddings once",
        "the final normalisation and the prediction head",
        "dropout",
    ),
    attention_norm=f"{_LAYER}.ln_1.weight",
    body=Body(
        tokens="wte.weight",
        positions="wpe.weight",
        up=f"{_LAYER}.mlp.c_fc.weight",
        down=f"{_LAYER}.mlp.c_proj.weight",
        mlp_norm=f"{_LAYER}.ln_2.weight",
        final_norm="ln_f.weight",
    ),
)
