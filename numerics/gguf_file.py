"""GGUF files of llama.cpp, read with the `gguf` package: an extra, imported where it is used."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from numerics.errors import InputError

MAGIC = b"GGUF"
PLAIN = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}
"""GGUF's names of the types that are stored number by number, and torch's. The others are blocks of bytes."""


class Place(NamedTuple):
    """Where a tensor lies in the file: its first byte, and type and shape of what is stored there.

    `stored_type` is torch's name of a plain type and GGUF's of a quantised one, whose rows are blocks of
    bytes: `shape` counts these bytes.
    """

    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stored_type: str


def is_gguf(path: Path) -> bool:
    """Whether the file at `path` is named or begins as a GGUF file."""
    with path.open("rb") as stream:
        return path.suffix == ".gguf" or stream.read(len(MAGIC)) == MAGIC


def contents(path: Path) -> tuple[dict[str, Place], dict[str, Any]]:
    """Where the tensors of a GGUF file lie, by GGUF's own names, and its metadata as plain values.

    Raises `InputError` without the package `gguf`, or if the file is truncated, damaged, byte-swapped, one of
    several parts, or has a tensor of a type that the package does not know.
    """
    gguf = _package()
    if path.stat().st_size == 0:  # mmap raises an error of its own for an empty file
        raise _bad_file(path, "an empty file")
    try:
        reader = gguf.GGUFReader(path)
        metadata = {name: field.contents() for name, field in reader.fields.items()}
        places = {tensor.name: _place(tensor) for tensor in reader.tensors}
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise anything out of the reader
        raise _bad_file(
            path, f"a GGUF file that is truncated, damaged or of an unknown type ({error})"
        ) from error
    if reader.byte_order != "I":
        raise _bad_file(path, "a GGUF file of the other byte order")
    if (parts := metadata.get("split.count", 1)) > 1:
        raise _bad_file(path, f"one of {parts} parts", "join them with llama-gguf-split --merge")
    if not places:
        raise _bad_file(path, "a GGUF file without tensors")
    return places, metadata


def read(path: Path, name: str, place: Place) -> Tensor:
    """One tensor of a GGUF file, (out, in) as torch has it. A quantised one becomes float32, in full.

    Plain ones are mapped, not copied: leave the file in place while they are in use. Raises `InputError` if
    the package cannot undo the quantisation.
    """
    stored = np.memmap(path, place.dtype, "c", place.start, place.shape)
    if place.stored_type in PLAIN.values() and place.stored_type != "bfloat16":
        return torch.from_numpy(stored)
    gguf = _package()
    if place.stored_type == "bfloat16":
        return torch.from_numpy(stored.view(np.uint16)).view(torch.bfloat16)
    try:
        kind = gguf.GGMLQuantizationType[place.stored_type]
        return torch.from_numpy(np.asarray(gguf.dequantize(np.asarray(stored), kind)))
    except NotImplementedError as error:
        got = f"{name!r} quantised as {place.stored_type}, which the gguf package does not undo"
        raise _bad_file(path, got) from error


def _place(tensor: Any) -> Place:
    if not tensor.data.size:
        raise ValueError(f"{tensor.name} has no entries")
    name: str = tensor.tensor_type.name
    return Place(
        start=tensor.data_offset,
        dtype=tensor.data.dtype,
        shape=tuple(tensor.data.shape),
        stored_type=PLAIN.get(name, name),
    )


def _package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            argument="path",
            got="a GGUF file, without the package that reads it",
            expected="the extra `gguf`",
            fix="pip install 'tokendyn[gguf]'",
        ) from error
    return gguf


def _bad_file(
    path: Path, got: str, fix: str = "download the file again, or convert it with llama.cpp to F16"
) -> InputError:
    return InputError(
        argument="path",
        got=f"{path}: {got}",
        expected="a complete GGUF file whose tensors the gguf package can read",
        fix=fix,
    )
