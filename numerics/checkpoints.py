"""Attention weights of real Transformers, from files on disk.

A checkpoint is a single state-dict file (`torch.save(model.state_dict(), path)` or safetensors), with the
model's `config.json` beside it where there is one, or a raw file of llama2.c. Loading never runs code from
the file.
"""

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from numerics import llama2c
from numerics.adapters import ADAPTERS
from numerics.adapters.base import Adapter, AttentionLayer, Head, State
from numerics.errors import InputError

__all__ = ["AttentionLayer", "Checkpoint", "Head", "load_checkpoint", "load_state_dict"]

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The attention layers of a trained model.

    `layers` are the distinct attention layers in order. `shared_layers` is the depth through which they are
    iterated when weights are shared over depth; None when every layer is used once, or when no `config.json`
    says the depth. `ignores` lists what the attention-only dynamics built from these layers leaves out: a
    verdict about that dynamics is not a verdict about the whole model.
    """

    architecture: str
    layers: tuple[AttentionLayer, ...]
    shared_layers: int | None
    ignores: tuple[str, ...]


def load_checkpoint(path: PathLike, heads: int | None = None) -> Checkpoint:
    """Read the attention layers of the checkpoint at `path`, by the adapter whose keys match.

    The number of heads comes from `config.json` in the same folder or the header of a llama2.c file; `heads`
    is needed only without one.

    Raises `InputError` as `load_state_dict` does, and if no adapter knows the keys, a key is missing, a
    weight has the wrong shape or is not finite, the number of heads is unknown, contradicts the config or
    does not divide d, or the config is unreadable or of another model.
    """
    path = Path(path)
    state = load_state_dict(path)
    adapter = _find_adapter(state)
    config = llama2c.settings(path) or _read_config(path.with_name("config.json"))
    layers = adapter.layers(state, _resolve_heads(config, adapter, heads))
    _require_width(config, adapter, layers[0])
    return Checkpoint(
        architecture=adapter.architecture,
        layers=layers,
        shared_layers=_config_count(config, adapter.depth_key) if adapter.depth_key else None,
        ignores=adapter.ignores,
    )


def load_state_dict(path: PathLike) -> State:
    """Read a state dict onto the CPU, without running its code.

    The file is one of `torch.save` (`.bin`, `.pt`, `.pth`), a `.safetensors` file, whose tensors are read
    when asked for, or a raw one of llama2.c, of which the attention maps are read. Tensors may be mapped, not
    copied: leave the file in place while they are in use.

    Raises `InputError` if `path` is missing, a folder, unreadable, truncated, of another format, holds
    anything but tensors under string keys, or names code to run.
    """
    path = Path(path)
    _require_file(path)
    try:
        if path.suffix == ".safetensors":
            return _Safetensors(path)
        if raw := llama2c.settings(path):
            return llama2c.read(path, raw)
        return _require_tensors(path, _load_pickle(path))
    except OSError as error:
        raise _bad_file(path, f"a file that cannot be read ({error.strerror})") from error


class _Safetensors(State):
    """The tensors of a safetensors file, each read when asked for."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="pt")
        except SafetensorError as error:
            got = f"a safetensors file that is truncated or damaged ({error})"
            raise _bad_file(path, got) from error
        self._keys = dict.fromkeys(self._file.keys())
        if not self._keys:
            raise _bad_file(path, "a safetensors file without tensors")

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._file.get_tensor(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def _load_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError:
        raise
    except Exception as error:  # damaged bytes can raise anything out of the unpickler
        raise _bad_file(path, _load_failure(error)) from error


def _require_file(path: Path) -> None:
    if os.path.isdir(path):
        raise _bad_file(path, "a folder")
    if not os.path.isfile(path):
        raise _bad_file(path, "not a regular file" if os.path.exists(path) else "no such file")


def _require_tensors(path: Path, loaded: object) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping) or not loaded:
        raise _bad_file(
            path, f"an empty {type(loaded).__name__}" if loaded == {} else f"a {type(loaded).__name__}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise _bad_file(path, f"a mapping with a {type(value).__name__} under {key!r}")
    return dict(loaded)


def _load_failure(error: Exception) -> str:
    """Say why `torch.load` refused; its own message may advise an unsafe option, so it is not repeated."""
    code = re.search(r"GLOBAL ([\w.]+)", str(error))
    if code:
        return f"a pickle that names code, {code[1]}, which was not run"
    return f"a file that is truncated, damaged or of another format ({type(error).__name__})"


def _bad_file(path: Path, got: str) -> InputError:
    return InputError(
        argument="path",
        got=f"{path}: {got}",
        expected="a state dict: one file of tensors under string keys, by torch.save or as safetensors",
        fix="save it with torch.save(model.state_dict(), 'model.pt') and pass that file",
    )


def _find_adapter(state: Mapping[str, Tensor]) -> Adapter:
    for adapter in ADAPTERS:
        if adapter.matches(state):
            return adapter
    raise InputError(
        argument="path",
        got=f"a state dict of {len(state)} keys of no known architecture, the first {next(iter(state))!r}",
        expected="the keys of one of: " + ", ".join(adapter.architecture for adapter in ADAPTERS),
        fix="use a checkpoint of one of these, or add an adapter under numerics/adapters",
    )


def _read_config(path: Path) -> dict[str, Any]:
    """The settings in the model's config file; empty if there is no such file."""
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bad_config(
            f"{path} that cannot be read as JSON ({type(error).__name__})", "a JSON object"
        ) from error
    if not isinstance(config, dict):
        raise _bad_config(f"{path} holding a {type(config).__name__}", "a JSON object")
    return config


def _config_count(config: Mapping[str, Any], key: str) -> int | None:
    """The positive whole number under `key`, or None if the config does not give it."""
    count = config.get(key)
    if count is not None and (type(count) is not int or count < 1):
        raise _bad_config(f"config.json with {key} = {count!r}", "a positive whole number")
    return count


def _resolve_heads(config: Mapping[str, Any], adapter: Adapter, heads: int | None) -> int:
    configured = _config_count(config, adapter.heads_key)
    if heads is None and configured is not None:
        return configured
    if type(heads) is not int or heads < 1 or configured not in (None, heads):
        raise InputError(
            argument="heads",
            got=repr(heads),
            expected="a positive whole number"
            if configured is None
            else f"{configured}, as config.json or the file's header says",
            fix=f"put the model's config.json (with {adapter.heads_key}) beside the file, or pass heads=...",
        )
    return heads


def _require_width(config: Mapping[str, Any], adapter: Adapter, layer: AttentionLayer) -> None:
    configured = _config_count(config, adapter.width_key)
    if configured not in (None, layer.d_model):
        raise _bad_config(
            f"config.json with {adapter.width_key} = {configured}", f"{layer.d_model}, as in {layer.name}"
        )


def _bad_config(got: str, expected: str) -> InputError:
    return InputError(
        argument="path",
        got=got,
        expected=expected,
        fix="put the config.json of the same model beside the file, or remove it and pass heads=...",
    )
