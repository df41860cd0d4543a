"""One adapter per architecture: which keys of a state dict hold which weights, as data."""

from numerics.adapters import (
    albert,
    bart,
    bert,
    distilbert,
    gguf,
    gpt2,
    llama,
    llama_meta,
    torch_modules,
    vit,
)
from numerics.adapters.base import Adapter

ADAPTERS: tuple[Adapter, ...] = (
    albert.ADAPTER,
    bert.BERT,
    bert.ROBERTA,
    distilbert.ADAPTER,
    gpt2.ADAPTER,
    vit.ADAPTER,
    vit.RENAMED,
    bart.ADAPTER,
    llama.ADAPTER,
    llama_meta.ADAPTER,
    gguf.ADAPTER,
    torch_modules.ENCODER,
    torch_modules.ATTENTION,
    torch_modules.SEPARATE,
)
"""Every known architecture, tried in this order."""
