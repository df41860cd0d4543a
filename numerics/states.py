"""Models on disk as lazy mappings of key to CPU tensor, with their settings. No code of a file is ever run.

Known are Hugging Face folders, whole or in shards, single files of `torch.save` or safetensors, GGUF files
and raw files of llama2.c.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from numerics import gguf_file, llama2c
from numerics.errors import InputError

PathLike = str | os.PathLike[str]
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What holds the weights of a Hugging Face folder; the first that is there is read."""
INDEX = ".index.json"


class State(Mapping[str, Tensor]):
    """A state dict whose tensors are read when asked for, anew each time: keep what is needed twice.

    The order of the keys is the file's. `read` gives the tensor of a key and `stored_type` the name of its
    type in the file; by default, that of the tensor.
    """

    def __init__(
        self,
        keys: Collection[str],
        read: Callable[[str], Tensor],
        stored_type: Callable[[str], str] | None = None,
    ) -> None:
        self._keys = dict.fromkeys(keys)
        self._read = read
        self._stored_type = stored_type or (lambda key: str(read(key).dtype).removeprefix("torch."))

    def __getitem__(self, key: str) -> Tensor:
        if key not in self._keys:
            raise KeyError(key)
        return self._read(key)

    def stored_type(self, key: str) -> str:
        """In what type the file holds `key`: torch's name ("float32") or GGUF's of a quantised one ("Q4_1").

        Raises KeyError if there is no such key.
        """
        if key not in self._keys:
            raise KeyError(key)
        return self._stored_type(key)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


def open_model(path: PathLike) -> tuple[State, dict[str, Any]]:
    """The weights and the settings of the model at `path`.

    `path` is as for `load_state_dict`. The settings are those of the `config.json` in the same folder, the
    metadata of a GGUF file under its own names (`llama.attention.head_count`) or the header of a llama2.c
    file (`numerics.llama2c.NAMES`); empty where there are none.

    Raises `InputError` as `load_state_dict` does, and if the config is not a JSON object.
    """
    path = Path(path)
    state, settings = _open(path)
    if settings is None:
        settings = _read_config((path if path.is_dir() else path.parent) / "config.json")
    return state, settings


def load_state_dict(path: PathLike) -> State:
    """The weights of the model at `path`, on the CPU, without running its code.

    `path` is a folder with one of `FOLDER_FILES`; such an index of shards; a file of `torch.save` (`.bin`,
    `.pt`, `.pth`) or `.safetensors`; a GGUF file, quantised or not; or a raw one of llama2.c. Each tensor is
    read when it is asked for and not kept, so memory is needed for one at a time; only a file of
    `torch.save` in its format before torch 1.6 is read whole. Tensors may be mapped, not copied: leave the
    file in place while they are in use.

    Raises `InputError` if `path` or a shard is missing, unreadable, truncated, of another format, holds
    anything but tensors under string keys, or names code to run; if a folder has no weights; if a shard
    lacks a key of its index; and, for GGUF, as `numerics.gguf_file.contents` does.
    """
    return _open(Path(path))[0]


def _open(path: Path) -> tuple[State, dict[str, Any] | None]:
    """The weights, and the settings if the file itself has them."""
    if path.is_dir():
        path = _weights_of_folder(path)
    _require_file(path)
    try:
        if path.name.endswith(INDEX):
            return _open_shards(path), None
        if path.suffix == ".safetensors":
            return _open_safetensors(path), None
        if gguf_file.is_gguf(path):
            places, metadata = gguf_file.contents(path)
            return _open_gguf(path, places), metadata
        if header := llama2c.settings(path):
            parts = llama2c.places(path, header)
            return State(parts, lambda key: llama2c.read(path, parts[key])), header
        return _open_pickle(path), None
    except OSError as error:
        raise _bad_file(path, f"a file that cannot be read ({error.strerror})") from error


def _weights_of_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).exists():
            return folder / name
    raise _bad_file(folder, "a folder without any of " + ", ".join(FOLDER_FILES))


def _open_safetensors(path: Path) -> State:
    """The tensors of a safetensors file, which is opened anew for each, so that none stays mapped."""
    try:
        with safe_open(path, framework="pt") as file:
            keys = file.keys()
    except SafetensorError as error:
        raise _bad_file(path, f"a safetensors file that is truncated or damaged ({error})") from error
    if not keys:
        raise _bad_file(path, "a safetensors file without tensors")
    return State(keys, partial(_read_safetensors, path))


def _read_safetensors(path: Path, key: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(key)


def _open_gguf(path: Path, places: Mapping[str, gguf_file.Place]) -> State:
    return State(
        places,
        lambda key: gguf_file.read(path, key, places[key]),
        lambda key: places[key].stored_type,
    )


def _open_pickle(path: Path) -> State:
    tensors = _require_tensors(path, _load_pickle(path))
    return State(tensors, tensors.__getitem__)


def _open_shards(index: Path) -> State:
    """The tensors of the shards beside an index; each shard is checked now, and opened again when needed."""
    where = _read_index(index)

    @lru_cache(maxsize=2)  # a layer may lie across two
    def shard(name: str) -> State:
        path = index.with_name(name)
        _require_file(path)
        return _open_pickle(path) if path.suffix != ".safetensors" else _open_safetensors(path)

    for name in dict.fromkeys(where.values()):
        lacking = [key for key, holder in where.items() if holder == name and key not in shard(name)]
        if lacking:
            raise _bad_file(
                index.with_name(name), f"a shard without {lacking[0]!r}, which {index.name} names"
            )
    return State(where, lambda key: shard(where[key])[key], lambda key: shard(where[key]).stored_type(key))


def _read_index(path: Path) -> dict[str, str]:
    """Which file holds which key."""
    where = _read_object(path).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise _bad_file(path, "an index without a weight_map of keys to files")
    for key, name in where.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise _bad_file(path, f"an index with {name!r} for {key!r}, which is no name of a file beside it")
    return where


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


def _read_config(path: Path) -> dict[str, Any]:
    """The settings in the model's config file; empty if there is no such file."""
    return _read_object(path) if path.exists() else {}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _bad_json(f"{path} that cannot be read as JSON ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise _bad_json(f"{path} holding a {type(found).__name__}")
    return found


def _bad_json(got: str) -> InputError:
    return InputError(
        argument="path",
        got=got,
        expected="a JSON object",
        fix="put the file of the same model there, or, if it is config.json, remove it and give --num-heads",
    )


def _bad_file(path: Path, got: str) -> InputError:
    return InputError(
        argument="path",
        got=f"{path}: {got}",
        expected="a model: a folder with config.json and weights, or one file of tensors under string keys",
        fix="save it with torch.save(model.state_dict(), 'model.pt') and pass that file",
    )
