"""The raw files of llama2.c: seven settings as int32, then float32 weights one behind the other.

There is no mark by which to know such a file, only settings that make sense. Of the weights, the attention
maps alone are handed over, under the keys of `numerics.adapters.llama`.
"""

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from numerics.errors import InputError

NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
HEADER = struct.Struct("<7i")
LARGEST = 2**20
"""Of any setting. The first bytes of other formats, pickle, zip or text, are larger numbers."""


def settings(path: Path) -> dict[str, int] | None:
    """What the header of a llama2.c file says; None if these bytes can be no such header.

    A negative `vocab_size` says that the prediction head has weights of its own.
    """
    with path.open("rb") as stream:
        start = stream.read(HEADER.size)
    if len(start) < HEADER.size:
        return None
    found: dict[str, int] = dict(zip(NAMES, HEADER.unpack(start), strict=True))
    sizes = {**found, "vocab_size": abs(found["vocab_size"])}
    return found if all(0 < size < LARGEST for size in sizes.values()) else None


def read(path: Path, about: dict[str, int]) -> dict[str, Tensor]:
    """The attention maps of the file at `path` with settings `about`, mapped, not copied, (out, in).

    Leave the file in place while they are in use. What follows the last weight is left unread. Raises
    `InputError` if the settings contradict each other, heads are grouped, or the file is too short.
    """
    d, depth, heads = about["dim"], about["n_layers"], about["n_heads"]
    if d % (2 * heads) != 0 or about["n_kv_heads"] != heads:
        got = f"dim {d}, {heads} heads, {about['n_kv_heads']} of keys and values"
        raise _bad_file(path, got, "heads of one even size, each with keys and values of its own")
    before = abs(about["vocab_size"]) * d + depth * d
    attention = 4 * depth * d * d
    behind = depth * d + 3 * depth * d * about["hidden_dim"] + d + about["max_seq_len"] * d // heads
    own_head = abs(about["vocab_size"]) * d if about["vocab_size"] < 0 else 0
    size = HEADER.size + 4 * (before + attention + behind + own_head)
    if path.stat().st_size < size:
        raise _bad_file(path, f"a truncated file of {path.stat().st_size} bytes", f"{size} bytes")
    numbers = np.memmap(path, "<f4", "c", HEADER.size + 4 * before, (4, depth, d, d))
    return {
        f"layers.{layer}.attention.{part}.weight": torch.from_numpy(numbers[place, layer])
        for place, part in enumerate(("wq", "wk", "wv", "wo"))
        for layer in range(depth)
    }


def _bad_file(path: Path, got: str, expected: str) -> InputError:
    return InputError(
        argument="path",
        got=f"{path}: {got}",
        expected=f"{expected}, by the header of a llama2.c file",
        fix="pass a complete file of the first llama2.c format, without grouped heads",
    )
