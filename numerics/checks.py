"""Checks of arguments shared by the public classes and functions."""

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor

from numerics.errors import InputError


def check_tensor(argument: str, value: object, *axes: str) -> None:
    """InputError unless value is a float64 tensor with axes named by one of ``axes``, e.g. "batch n d"."""
    if not isinstance(value, Tensor):
        raise InputError(argument, type(value).__name__, "a torch.Tensor", "torch.as_tensor(value).double()")
    if value.dtype != torch.float64:
        raise InputError(argument, value.dtype, "torch.float64", "convert with .double()")
    if value.ndim not in [len(names.split()) for names in axes]:
        expected = " or ".join(f"axes ({names})" for names in axes)
        raise InputError(argument, f"shape {tuple(value.shape)}", expected, "reshape, or add a batch axis")


def check_shape(argument: str, value: Tensor, shape: Iterable[int], meaning: str) -> None:
    """InputError unless value has this shape, which ``meaning`` describes."""
    if tuple(value.shape) != tuple(shape):
        expected = f"{meaning}, here {tuple(shape)}"
        raise InputError(argument, f"shape {tuple(value.shape)}", expected, "check the axes")


def check_device(argument: str, value: Tensor, other: str, device: torch.device) -> None:
    """InputError unless value lies on the device of ``other``."""
    if value.device != device:
        raise InputError(
            argument, value.device, f"the device of {other} {device}", "move one with .to(device)"
        )


def check_choice(argument: str, value: object, choices: Iterable[str]) -> None:
    """InputError unless value is one of the choices; says which one was probably meant."""
    choices = list(choices)
    if value not in choices:
        close = get_close_matches(str(value), choices, 1, cutoff=0.4)
        fix = f"did you mean {close[0]!r}?" if close else f"use {choices[0]!r}"
        raise InputError(argument, repr(value), "one of " + ", ".join(map(repr, choices)), fix)
