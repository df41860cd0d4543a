"""The adapter that a `--map` file describes: attention alone, for any other state dict."""

import re
from fractions import Fraction

from numerics.adapters.base import Adapter, Maps, Settings
from numerics.errors import InputError
from numerics.mapping import PLACE, Mapping


def adapter_of(mapping: Mapping) -> Adapter:
    """The adapter that reads by `mapping`, whose keys have no prefix."""
    query, key, value = (mapping.fused or part for part in (mapping.query, mapping.key, mapping.value))
    if query is None or key is None or value is None:
        raise InputError("map", "no key of a query, key or value map", "all three, or `fused`", "add them")
    settings = Settings(
        heads=mapping.heads,
        kv_heads=mapping.kv_heads,
        head_dim=mapping.head_dim,
        depth=mapping.layers,
        causal=mapping.causal,
        rotary_base=mapping.rotary_base,
        rotary_layout=mapping.rotary_layout or "half-split",
        rotary_dims=mapping.rotary_dims,
        scale_squared=None if mapping.scale is None else Fraction(mapping.scale) ** 2,
        eps=mapping.norm_eps,
        norm_first=mapping.norm is not None,
    )
    return Adapter(
        architecture="mapped",
        model_types=frozenset(),
        pattern=re.compile("()" + re.escape(query).replace(re.escape(PLACE), r"(\d+)")),
        name=_template(query).removesuffix(".weight"),
        maps=Maps(
            query=_template(query),
            key=_template(key),
            value=_template(value),
            output=_template(mapping.output),
            fused=mapping.fused is not None,
            transposed=mapping.transposed,
        ),
        settings=lambda config: settings,
        heads_key="heads",
        ignores=_ignores(mapping),
        attention_norm=None if mapping.norm is None else _template(mapping.norm),
        norm_kind=mapping.norm_kind or "layer",
    )


def _ignores(mapping: Mapping) -> tuple[str, ...]:
    names = {"layer": "layer", "rms": "RMS"}
    norm = f"{names[mapping.norm_kind or 'layer']} normalisation before attention, with its gain"
    return (
        "the change of weights from layer to layer: each layer is taken as a system of its own",
        *((norm,) if mapping.norm else ()),
        "what the map file does not say: feed-forward blocks, embeddings, other norms, dropout",
        "biases of the query, key, value and output maps",
    )


def _template(pattern: str) -> str:
    return pattern.replace(PLACE, "{0}")
