"""The raw files of llama2.c: seven settings as int32, then float32 weights one behind the other.

There is no mark by which to know such a file, only settings that make sense. The weights are handed over
under the names of Meta's checkpoints. Format: `export.py` (version 0) and `run.c` of karpathy/llama2.c.
"""

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from numerics.errors import InputError

NAMES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
HEADER, TOKEN = struct.Struct("<7i"), struct.Struct("<fi")
LARGEST = 2**20
"""Of any setting. The first bytes of other formats, pickle, zip or text, are larger numbers."""

Place = tuple[int, tuple[int, ...]]
"""Of a weight: its first byte in the file and its shape."""


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


def places(path: Path, about: dict[str, int]) -> dict[str, Place]:
    """Where the weights of the file at `path` with settings `about` lie: name to first byte and (out, in).

    The tables of rotary angles are left out. Raises `InputError` if the settings contradict each other or
    the file is too short; what follows the last weight is not looked at.
    """
    d, heads, groups = about["dim"], about["n_heads"], about["n_kv_heads"]
    if d % (2 * heads) != 0 or heads % groups != 0:
        got = f"dim {d}, {heads} heads, {groups} of keys and values"
        raise _bad_file(path, got, "heads of one even size, in equal groups that share keys and values")
    found, end = {}, HEADER.size
    for name, shape in _weights(about):
        found[name] = (end, shape)
        end += 4 * prod(shape)
    size = path.stat().st_size
    if size < end:
        raise _bad_file(path, f"a truncated file of {size} bytes", f"{end} bytes")
    return {name: place for name, place in found.items() if not name.startswith("freqs")}


def read(path: Path, place: Place) -> Tensor:
    """The float32 weight at `place`, mapped, not copied: leave the file in place while it is in use."""
    start, shape = place
    return torch.from_numpy(np.memmap(path, "<f4", "c", start, shape))


def vocabulary(path: Path, about: dict[str, int]) -> list[tuple[float, bytes]] | None:
    """Score and bytes of each token, as `tokenizer.bin` of llama2.c has them; None if there is none.

    It is that file beside the weights or, in what Emscripten packs into one file, stands behind them. Format:
    the length of the longest token as int32, then for each a float32, an int32 of its length, and its bytes.
    Raises `InputError` if it is damaged.
    """
    weights = _weights(about)
    content = path.read_bytes()[HEADER.size + sum(4 * prod(shape) for _, shape in weights) :]
    beside = path.with_name("tokenizer.bin")
    if not content and not beside.is_file():
        return None
    content, found, at = content or beside.read_bytes(), [], 4
    try:
        for _ in range(abs(about["vocab_size"])):
            score, length = TOKEN.unpack_from(content, at)
            at += TOKEN.size + length
            if length < 1 or at > len(content):
                raise struct.error
            found.append((score, content[at - length : at]))
    except struct.error:
        got = f"a tokenizer of {len(content)} bytes that ends or breaks off at token {len(found)}"
        raise _bad_file(path, got, f"{abs(about['vocab_size'])} tokens") from None
    return found


def _weights(about: dict[str, int]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes in the order of the file."""
    d, hidden, vocabulary = about["dim"], about["hidden_dim"], abs(about["vocab_size"])
    dk = d // about["n_heads"]
    shared = about["n_kv_heads"] * dk
    blocks = (
        ("attention_norm", (d,)),
        ("attention.wq", (d, d)),
        ("attention.wk", (shared, d)),
        ("attention.wv", (shared, d)),
        ("attention.wo", (d, d)),
        ("ffn_norm", (d,)),
        ("feed_forward.w1", (hidden, d)),
        ("feed_forward.w2", (d, hidden)),
        ("feed_forward.w3", (hidden, d)),
    )
    yield "tok_embeddings.weight", (vocabulary, d)
    for part, shape in blocks:
        for layer in range(about["n_layers"]):
            yield f"layers.{layer}.{part}.weight", shape
    yield "norm.weight", (d,)
    yield "freqs_cos", (about["max_seq_len"], dk // 2)
    yield "freqs_sin", (about["max_seq_len"], dk // 2)
    if about["vocab_size"] < 0:
        yield "output.weight", (vocabulary, d)


def _bad_file(path: Path, got: str, expected: str) -> InputError:
    return InputError(
        argument="path",
        got=f"{path}: {got}",
        expected=f"{expected}, by the header of a llama2.c file",
        fix="pass a complete file of the first llama2.c format",
    )
