"""One adapter per architecture: which keys of a state dict hold which attention weights."""

from numerics.adapters import albert, bert, llama
from numerics.adapters.base import Adapter

ADAPTERS: tuple[Adapter, ...] = (albert.ADAPTER, bert.ADAPTER, llama.ADAPTER)
"""Every known architecture, tried in this order."""
