"""One adapter per architecture: which keys of a state dict hold which attention weights."""

from numerics.adapters import albert
from numerics.adapters.base import Adapter

ADAPTERS: tuple[Adapter, ...] = (albert.ADAPTER,)
"""Every known architecture, tried in this order."""
