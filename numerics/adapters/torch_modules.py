"""State dicts of PyTorch's own `nn.TransformerEncoder` and `nn.MultiheadAttention`.

PyTorch writes no config. One beside the file may give, under the names of the classes' arguments, `nhead`
(or `num_heads`), `norm_first`, `activation`, `layer_norm_eps` and `is_causal`. Whether norms stand before
attention (`norm_first`) cannot be seen in the keys: without it only attention is known. Of an
`nn.Transformer` the encoder is read.
"""

import re

from numerics.adapters.base import Adapter, Body, Config, Maps, Settings, count, flag, positive

_LAYER = "layers.{0}"
_IN_PROJECTION = "in_proj_weight"
_UNSEEN = "a mask given at the call, add_zero_attn and batch_first, which leave no trace in the keys"
_REFUSES = ((r"(.*\.)?bias_[kv]", "a learned token is appended to keys and values (add_bias_kv)"),)


def _attention(config: Config) -> Settings:
    return Settings(
        heads=count(config, "num_heads", count(config, "nhead")),
        width=count(config, "embed_dim", count(config, "d_model")),
        eps=positive(config, "layer_norm_eps", 1e-5),
        norm_first=None,
        causal=flag(config, "is_causal"),
    )


def _encoder(config: Config) -> Settings:
    return Settings(
        heads=count(config, "nhead", count(config, "num_heads")),
        width=count(config, "d_model", count(config, "embed_dim")),
        depth=count(config, "num_layers"),
        eps=positive(config, "layer_norm_eps", 1e-5),
        norm_first=flag(config, "norm_first") if "norm_first" in config else None,
        causal=flag(config, "is_causal"),
        activation=config.get("activation", "relu"),
    )


ENCODER = Adapter(
    architecture="nn.TransformerEncoder",
    model_types=frozenset(),
    pattern=re.compile(r"(|.*\.)layers\.(\d+)\.self_attn\.in_proj_weight"),
    name=f"{_LAYER}.self_attn",
    maps=Maps(
        query=f"{_LAYER}.self_attn.in_proj_weight",
        key=f"{_LAYER}.self_attn.in_proj_weight",
        value=f"{_LAYER}.self_attn.in_proj_weight",
        output=f"{_LAYER}.self_attn.out_proj.weight",
        fused=True,
    ),
    settings=_encoder,
    heads_key="nhead",
    ignores=(
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        "layer normalisation, before or after attention and the feed-forward block (norm_first)",
        "the feed-forward block (MLP)",
        "biases of the query, key, value and output maps",
        _UNSEEN,
    ),
    attention_norm=f"{_LAYER}.norm1.weight",
    body=Body(
        up=f"{_LAYER}.linear1.weight",
        down=f"{_LAYER}.linear2.weight",
        mlp_norm=f"{_LAYER}.norm2.weight",
        final_norm="norm.weight",
        optional=frozenset({"norm.weight"}),
    ),
    refuses=_REFUSES,
)
ATTENTION = Adapter(
    architecture="nn.MultiheadAttention",
    model_types=frozenset(),
    pattern=re.compile(r"(|.*\.)in_proj_weight"),
    name="attention",
    maps=Maps(_IN_PROJECTION, _IN_PROJECTION, _IN_PROJECTION, "out_proj.weight", fused=True),
    settings=_attention,
    heads_key="num_heads",
    ignores=(
        "everything around this attention: norms, feed-forward blocks and embeddings are not in the file",
        "biases of the query, key, value and output maps",
        _UNSEEN,
    ),
    refuses=_REFUSES,
)
SEPARATE = Adapter(
    architecture="nn.MultiheadAttention",
    model_types=frozenset(),
    pattern=re.compile(r"(|.*\.)[qkv]_proj_weight"),
    name="attention",
    maps=Maps(
        "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight", joint_bias="in_proj_bias"
    ),
    settings=_attention,
    heads_key="num_heads",
    ignores=ATTENTION.ignores,
    refuses=_REFUSES,
)
