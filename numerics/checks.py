"""Checks of arguments shared by the public classes and functions."""

from collections.abc import Iterable
from difflib import get_close_matches

import torch
from torch import Tensor

from numerics.errors import InputError


def check_tensor(argument: str, value: object, *axes: str) -> None:
    """InputError unless value is a tensor, float64 or float32, with axes as one of ``axes`` ("batch n d")."""
    if not isinstance(value, Tensor):
        raise InputError(argument, type(value).__name__, "a torch.Tensor", "torch.as_tensor(value).double()")
    if value.dtype not in (torch.float64, torch.float32):
        raise InputError(argument, value.dtype, "torch.float64 or torch.float32", "convert with .double()")
    if value.ndim not in [len(names.split()) for names in axes]:
        expected = " or ".join(f"axes ({names})" for names in axes)
        raise InputError(argument, f"shape {tuple(value.shape)}", expected, "reshape, or add a batch axis")


def check_shape(argument: str, value: Tensor, shape: Iterable[int], meaning: str) -> None:
    """InputError unless value has this shape, which ``meaning`` describes."""
    if tuple(value.shape) != tuple(shape):
        expected = f"{meaning}, here {tuple(shape)}"
        raise InputError(argument, f"shape {tuple(value.shape)}", expected, "check the axes")


def check_match(argument: str, value: Tensor, other: str, like: Tensor) -> None:
    """InputError unless value has the dtype and the device of ``like``, which messages call ``other``."""
    if value.dtype != like.dtype:
        fix = "convert one with .double() or .float()"
        raise InputError(argument, value.dtype, f"the dtype of {other}, {like.dtype}", fix)
    if value.device != like.device:
        fix = "move one with .to(device)"
        raise InputError(argument, value.device, f"the device of {other} {like.device}", fix)


def check_choice(argument: str, value: object, choices: Iterable[str]) -> None:
    """InputError unless value is one of the choices; says which one was probably meant."""
    choices = list(choices)
    if value not in choices:
        close = get_close_matches(str(value), choices, 1, cutoff=0.4)
        fix = f"did you mean {close[0]!r}?" if close else f"use {choices[0]!r}"
        raise InputError(argument, repr(value), "one of " + ", ".join(map(repr, choices)), fix)
