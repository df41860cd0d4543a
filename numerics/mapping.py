"""The file of `--map`: which keys of a state dict hold the attention maps, and what is done with them.

A JSON object or a TOML document of the fields of `Mapping`, under the same names; docs/map.md shows one.
"""

import json
import math
import os
import tomllib
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from numerics.errors import InputError

PLACE = "{layer}"
"""Stands in a key pattern for the number of the layer, counted from 0."""
PATTERNS = ("query", "key", "value", "fused", "output", "norm")


@dataclass(frozen=True)
class Mapping:
    """Where the attention of each layer lies, with d the width of a token and dk = `head_dim`.

    `query`, `key`, `value`, `output` and `norm` are the keys of weights, with `{layer}` for the number of the
    layer, counted from 0; without it there is one layer. A bias lies under the key of its weight with `bias`
    in place of the last `weight`, if it is there. `fused` names one matrix instead of the first three: the
    rows of query, key and value, one behind the other, heads*dk, kv_heads*dk and kv_heads*dk of them.
    `layers` is the number of layers; None: as many as the file holds. `transposed` says that the matrices are
    stored (in, out), as GPT-2's are, instead of (out, in), as `torch.nn.Linear`'s.

    `head_dim` None stands for d/heads, `scale`, the factor of the scores, for 1/sqrt(dk), and `rotary_dims`,
    the leading entries of a head's query and key that are turned, for dk. The angle of pair k at position i
    is i * rotary_base**(-2k/rotary_dims); pair k is the entries 2k and 2k + 1 ("interleaved") or k and
    k + rotary_dims/2 ("half-split"). `norm` is the gain of a normalisation that stands before attention, of
    `norm_kind` "layer" or "rms", with `norm_eps` under its root.
    """

    heads: int
    output: str
    causal: bool
    kv_heads: int
    query: str | None = None
    key: str | None = None
    value: str | None = None
    fused: str | None = None
    layers: int | None = None
    transposed: bool = False
    head_dim: int | None = None
    rotary_base: float | None = None
    rotary_layout: Literal["interleaved", "half-split"] | None = None
    rotary_dims: int | None = None
    scale: float | None = None
    norm: str | None = None
    norm_kind: Literal["layer", "rms"] | None = None
    norm_eps: float = 1e-5


NAMES = tuple(field.name for field in fields(Mapping))
REQUIRED = tuple(
    field.name for field in fields(Mapping) if field.default is MISSING and field.name != "kv_heads"
)


def read_mapping(path: str | os.PathLike[str]) -> Mapping:
    """The mapping in the JSON or, by its suffix, `.toml` file at `path`; `kv_heads` is `heads` if not given.

    Raises `InputError`, naming the file and the field, if the file cannot be read, a field is unknown,
    missing, of a wrong type or out of range, or two of them contradict each other.
    """
    path = Path(path)
    given = _parse(path)
    for name in given:
        if name not in NAMES:
            close = get_close_matches(name, NAMES, n=1)
            fix = f"did you mean {close[0]!r}?" if close else "remove it, or see docs/map.md"
            raise _bad(path, f"the unknown field {name!r}", "fields out of " + ", ".join(NAMES), fix)
    for name in REQUIRED:
        if name not in given:
            raise _bad(path, f"no field {name!r}", _expected(name), f"add {name!r}")
    for name, value in given.items():
        if not CHECKS[name][0](value):
            raise _bad(path, f"{name} = {value!r}", _expected(name))
    mapping = Mapping(**{"kv_heads": given["heads"], **given})
    for wrong, got, expected in _contradictions(mapping):
        if wrong:
            raise _bad(path, got, expected)
    return mapping


def _parse(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text, object_pairs_hook=_once)
    except OSError as error:
        raise _bad(path, f"a file that cannot be read ({error.strerror})", "a JSON or TOML file") from error
    except ValueError as error:
        expected = "TOML" if path.suffix == ".toml" else "JSON (or TOML, in a file named .toml)"
        raise _bad(path, f"a file that cannot be parsed ({error})", expected) from error
    if not isinstance(found, dict):
        raise _bad(path, f"a {type(found).__name__}", "a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is given twice")
    return dict(pairs)


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_size(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # pyright: ignore[reportOperatorIssue]


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    bare = value.replace(PLACE, "", 1)
    return "{" not in bare and "}" not in bare


def _is_flag(value: object) -> bool:
    return type(value) is bool


_COUNT = (_is_count, "a positive whole number")
_SIZE = (_is_size, "a positive number")
_PATTERN = (
    _is_pattern,
    f"the key of a weight, with {PLACE} once, and no other braces, for the layer's number",
)
_FLAG = (_is_flag, "true or false")
CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("heads", "kv_heads", "head_dim", "layers", "rotary_dims"), _COUNT),
    **dict.fromkeys(("rotary_base", "scale", "norm_eps"), _SIZE),
    **dict.fromkeys(PATTERNS, _PATTERN),
    **dict.fromkeys(("causal", "transposed"), _FLAG),
    "rotary_layout": (lambda value: value in ("interleaved", "half-split"), '"interleaved" or "half-split"'),
    "norm_kind": (lambda value: value in ("layer", "rms"), '"layer" or "rms"'),
}
"""What every field must be: a test, and the same in words."""


def _contradictions(m: Mapping) -> list[tuple[bool, str, str]]:
    """Pairs of fields that go wrong together: whether they do, what is given and what is expected."""
    separate = [name for name in ("query", "key", "value") if getattr(m, name) is not None]
    patterns = {name: value for name in PATTERNS if (value := getattr(m, name)) is not None}
    numbered = [name for name, value in patterns.items() if PLACE in value]
    turned = m.head_dim if m.rotary_dims is None else m.rotary_dims
    together = "either `fused` alone, or `query`, `key` and `value`"
    return [
        (m.fused is not None and bool(separate), f"`fused` and {separate}", together),
        (m.fused is None and len(separate) < 3, f"only {separate} and no `fused`", together),
        (
            0 < len(numbered) < len(patterns),
            f"{PLACE} in {numbered} alone",
            f"{PLACE} in all of {list(patterns)}, or in none",
        ),
        (not numbered and m.layers not in (None, 1), f"layers = {m.layers}", f"{PLACE} in every key"),
        (
            m.heads % m.kv_heads != 0,
            f"heads = {m.heads}, kv_heads = {m.kv_heads}",
            "a number of query heads that the number of key and value heads divides",
        ),
        (
            (m.rotary_base is None) != (m.rotary_layout is None),
            f"rotary_base = {m.rotary_base}, rotary_layout = {m.rotary_layout}",
            "both or neither",
        ),
        (
            m.rotary_dims is not None and m.rotary_base is None,
            f"rotary_dims = {m.rotary_dims} without rotary_base",
            "rotary_base and rotary_layout beside it",
        ),
        (
            m.rotary_base is not None and turned is not None and turned % 2 != 0,
            f"{turned} entries to turn",
            "an even number",
        ),
        (
            m.rotary_dims is not None and m.head_dim is not None and m.rotary_dims > m.head_dim,
            f"rotary_dims = {m.rotary_dims}, head_dim = {m.head_dim}",
            "no more rotated entries than a head has",
        ),
        (
            (m.norm is None) != (m.norm_kind is None),
            f"norm = {m.norm!r}, norm_kind = {m.norm_kind!r}",
            "both or neither",
        ),
    ]


def _expected(name: str) -> str:
    return f"{name} to be {CHECKS[name][1]}"


def _bad(path: Path, got: str, expected: str, fix: str = "correct the file; see docs/map.md") -> InputError:
    return InputError(argument="map", got=f"{path}: {got}", expected=expected, fix=fix)
