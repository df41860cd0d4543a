"""Refinements for one's own models: attention of a chosen response, rotary + diagonal, a margin to train."""

from numerics.layers.margin import certificate_margin, margin_penalty
from numerics.layers.places import AttentionMaps, attention_maps
from numerics.layers.response import DefiniteResponse, definite_response, plain_weights
from numerics.layers.rotary import RotaryDiagonal

__all__ = [
    "AttentionMaps",
    "DefiniteResponse",
    "RotaryDiagonal",
    "attention_maps",
    "certificate_margin",
    "definite_response",
    "margin_penalty",
    "plain_weights",
]
