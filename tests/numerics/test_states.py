"""Models on disk: every layout is read tensor by tensor, and every kind of bad file is refused."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from numerics import states
from numerics.errors import InputError
from numerics.states import load_state_dict, open_model

Weights = dict[str, Tensor]
SaveRaw = Callable[..., tuple[Path, Weights]]
SaveShards = Callable[..., Path]
CONFIG = {"model_type": "albert", "num_attention_heads": 3}


def weights() -> Weights:
    """Tensors of several shapes and types, no two of which are alike."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding.weight": (7, 4), "layer.0.query.weight": (6, 4), "layer.1.query.weight": (6, 4)}
    state = {key: torch.randn(*shape, generator=generator) for key, shape in shapes.items()}
    return state | {
        "norm.weight": torch.randn(4, generator=generator).to(torch.bfloat16),
        "half.weight": torch.randn(3, 3, generator=generator).half(),
        "double.weight": torch.randn(3, 3, generator=generator).double(),
        "quantised.weight": torch.arange(-4, 4, dtype=torch.int8),
    }


def write(path: Path, state: Weights) -> Path:
    """Writes a state dict as the suffix says, into a folder that is made if need be."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.fixture
def save_shards(tmp_path: Path) -> SaveShards:
    """Writes `weights()` as two shards with an index, beside a config; returns the folder."""

    def save(stem: str = "model", suffix: str = "safetensors") -> Path:
        folder, state = tmp_path / "folder", weights()
        where = {}
        for number, keys in enumerate((list(state)[:3], list(state)[3:]), 1):
            name = f"{stem}-0000{number}-of-00002.{suffix}"
            write(folder / name, {key: state[key] for key in keys})
            where |= dict.fromkeys(keys, name)
        index = {"metadata": {"total_size": 1}, "weight_map": where}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        return folder

    return save


HEADER = {"dim": 12, "hidden": 7, "layers": 5, "heads": 6, "kv_heads": 6, "vocab": 5, "seq": 8}


@pytest.fixture
def save_raw(tmp_path: Path) -> SaveRaw:
    """Writes a file as llama2.c's `export.py` orders it; returns the path and its weights by Meta's names."""

    def save(own_head: bool = False, kv_heads: int = 6, **changed: int) -> tuple[Path, Weights]:
        generator = np.random.default_rng(0)
        d, dk, hidden, vocabulary = 12, 2, HEADER["hidden"], HEADER["vocab"]
        state: Weights = {}

        def block(name: str, *shape: int, layers: int = 0) -> bytes:
            numbers = generator.standard_normal((layers or 1, *shape)).astype("<f4")
            for layer, weight in enumerate(numbers):
                state[f"layers.{layer}.{name}.weight" if layers else f"{name}.weight"] = torch.tensor(weight)
            return numbers.tobytes()

        depth = HEADER["layers"]
        content = [
            block("tok_embeddings", vocabulary, d),
            block("attention_norm", d, layers=depth),
            block("attention.wq", d, d, layers=depth),
            block("attention.wk", kv_heads * dk, d, layers=depth),
            block("attention.wv", kv_heads * dk, d, layers=depth),
            block("attention.wo", d, d, layers=depth),
            block("ffn_norm", d, layers=depth),
            block("feed_forward.w1", hidden, d, layers=depth),
            block("feed_forward.w2", d, hidden, layers=depth),
            block("feed_forward.w3", hidden, d, layers=depth),
            block("norm", d),
            generator.standard_normal((2, HEADER["seq"], dk // 2)).astype("<f4").tobytes(),
        ]
        if own_head:
            content.append(block("output", vocabulary, d))
            changed["vocab"] = -vocabulary
        path = tmp_path / "model.bin"
        header = struct.pack("<7i", *(HEADER | {"kv_heads": kv_heads} | changed).values())
        path.write_bytes(header + b"".join(content))
        return path, state

    return save


def assert_holds(state: states.State, expected: Weights) -> None:
    """The same keys, tensors and types, through every way to ask for them."""
    assert set(state) == set(expected)
    assert len(state) == len(expected)
    for key, tensor in expected.items():
        assert key in state
        assert torch.equal(state[key], tensor)
        assert state[key].dtype == tensor.dtype
        assert state.stored_type(key) == str(tensor.dtype).removeprefix("torch.")
    for ask in (state.__getitem__, state.stored_type):
        with pytest.raises(KeyError, match="absent"):
            ask("absent")


# ---- layouts


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "other.pt", "other.safetensors"])
def test_a_file_gives_its_tensors_and_the_config_beside_it(tmp_path: Path, name: str):
    path = write(tmp_path / name, weights())
    state, config = open_model(path)
    assert_holds(state, weights())
    assert_holds(load_state_dict(str(path)), weights())
    assert config == {}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    assert open_model(path)[1] == CONFIG


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_one_file_is_read(tmp_path: Path, name: str):
    write(tmp_path / name, weights())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    state, config = open_model(tmp_path)
    assert_holds(state, weights())
    assert config == CONFIG


@pytest.mark.parametrize(("stem", "suffix"), [("model", "safetensors"), ("pytorch_model", "bin")])
def test_a_folder_of_shards_is_read_and_so_is_its_index(save_shards: SaveShards, stem: str, suffix: str):
    folder = save_shards(stem, suffix)
    for path in (folder, folder / f"{stem}.{suffix}.index.json"):
        state, config = open_model(path)
        assert_holds(state, weights())
        assert config == CONFIG


def test_of_a_folder_with_both_the_safetensors_are_read(tmp_path: Path):
    write(tmp_path / "pytorch_model.bin", {"old": torch.ones(2)})
    write(tmp_path / "model.safetensors", {"new": torch.ones(2)})
    assert list(load_state_dict(tmp_path)) == ["new"]


@pytest.mark.parametrize("layout", ["file", "shards"])
def test_tensors_of_safetensors_are_read_only_when_asked_for(
    save_shards: SaveShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
):
    asked = []

    class Recorded:
        def __init__(self, path: Path, framework: str) -> None:
            self.file = real(path, framework=framework)

        def __enter__(self) -> "Recorded":
            self.file.__enter__()
            return self

        def __exit__(self, *error: object) -> None:
            self.file.__exit__(*error)

        def keys(self) -> list[str]:
            return self.file.keys()

        def get_tensor(self, key: str) -> Tensor:
            asked.append(key)
            return self.file.get_tensor(key)

    real = states.safe_open
    monkeypatch.setattr(states, "safe_open", Recorded)
    path = save_shards() if layout == "shards" else write(tmp_path / "model.safetensors", weights())
    state = load_state_dict(path)
    assert "layer.0.query.weight" in state
    assert asked == []
    _ = state["layer.1.query.weight"]
    assert asked == ["layer.1.query.weight"]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the mappings of a process")
@pytest.mark.parametrize("layout", ["safetensors", "raw"])
def test_nothing_stays_mapped_once_a_tensor_is_dropped(tmp_path: Path, save_raw: SaveRaw, layout: str):
    path = save_raw()[0] if layout == "raw" else write(tmp_path / "model.safetensors", weights())
    state = load_state_dict(path)
    for key in state:
        assert state[key].isfinite().all()
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("kv_heads", [6, 2, 1])
def test_all_weights_of_a_raw_file_have_metas_names(save_raw: SaveRaw, own_head: bool, kv_heads: int):
    path, expected = save_raw(own_head, kv_heads)
    state, config = open_model(path)
    assert_holds(state, expected)
    assert ("output.weight" in state) == own_head
    assert (config["dim"], config["n_heads"], config["n_kv_heads"]) == (12, 6, kv_heads)


def test_what_follows_the_weights_of_a_raw_file_is_not_read(save_raw: SaveRaw):
    path, expected = save_raw()
    path.write_bytes(path.read_bytes() + b"a tokenizer")
    assert_holds(load_state_dict(path), expected)


@pytest.mark.parametrize("layout", ["raw", "safetensors", "torch"])
def test_the_file_stays_as_it_was_when_a_tensor_is_changed(tmp_path: Path, save_raw: SaveRaw, layout: str):
    path = save_raw()[0] if layout == "raw" else write(tmp_path / f"model.{layout}", weights())
    before = path.read_bytes()
    for weight in load_state_dict(path).values():
        weight.zero_()
    assert path.read_bytes() == before


# ---- bad files


def assert_refused(path: Path, *said: str) -> None:
    """Both ways in refuse `path`, naming the argument and saying every one of `said`."""
    for load in (load_state_dict, open_model):
        with pytest.raises(InputError) as caught:
            load(path)
        assert caught.value.argument == "path"
        assert caught.value.fix
        for words in said:
            assert words in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path):
    assert_refused(tmp_path / "absent.bin", "no such file", "absent.bin")


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path):
    assert_refused(tmp_path, "a folder without", "model.safetensors.index.json", "pytorch_model.bin")


def test_a_folder_in_place_of_a_file_is_refused(tmp_path: Path):
    (tmp_path / "model.safetensors").mkdir()
    assert_refused(tmp_path, "model.safetensors: a folder")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert_refused(tmp_path / "pipe", "not a regular file")


def test_an_empty_safetensors_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    assert_refused(path, "without tensors")


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 20, b"\xff" * 64])
def test_a_safetensors_file_that_is_none_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_refused(path, "a safetensors file that is truncated or damaged")


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, kept: float):
    path = write(tmp_path / "model.safetensors", weights())
    truncate(path, kept)
    assert_refused(path, "a safetensors file that is truncated or damaged")


def truncate(path: Path, kept: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("missing", [1, 4000])
def test_a_truncated_raw_file_is_refused(save_raw: SaveRaw, own_head: bool, missing: int):
    path, _ = save_raw(own_head)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-missing])
    assert_refused(path, f"a truncated file of {size - missing} bytes", f"expected {size} bytes")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"heads": 5}, "dim 12, 5 heads"),
        ({"heads": 4}, "heads of one even size"),
        ({"kv_heads": 4}, "6 heads, 4 of keys and values"),
        ({"layers": 6}, "truncated"),
        ({"dim": -12}, "of another format"),
        ({"heads": 0}, "of another format"),
        ({"layers": 2**30}, "of another format"),
    ],
)
def test_a_raw_file_with_a_wrong_header_is_refused(save_raw: SaveRaw, changed: dict[str, int], said: str):
    path, _ = save_raw(**changed)
    assert_refused(path, said)


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 20, b"\x00" * 64, bytes(range(256))])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert_refused(path, "truncated, damaged or of another format")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, zipped: bool, kept: float):
    path = tmp_path / "model.bin"
    torch.save(weights(), path, _use_new_zipfile_serialization=zipped)
    truncate(path, kept)
    assert_refused(path, "truncated")


class RunsCode:
    """Unpickling this runs code: it would create the file `target`."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({self.target!r}, 'w').close()",)


@pytest.mark.parametrize("save", ["torch", "torch-legacy", "pickle", "folder", "shard"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, save_shards: SaveShards, save: str):
    target, path = tmp_path / "it-ran", tmp_path / "pytorch_model.bin"
    if save == "shard":
        path = save_shards("pytorch_model", "bin") / "pytorch_model-00002-of-00002.bin"
    if save == "pickle":
        path.write_bytes(pickle.dumps({"extra": RunsCode(target)}, protocol=2))
    else:
        state = {**weights(), "extra": RunsCode(target)}
        torch.save(state, path, _use_new_zipfile_serialization=save != "torch-legacy")
    assert_refused(path.parent if save in ("folder", "shard") else path, path.name)
    assert not target.exists()

    pickle.loads(pickle.dumps(RunsCode(target)))  # the trap is a real one
    assert target.exists()


def test_a_whole_saved_module_is_refused_naming_its_class(tmp_path: Path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    assert_refused(tmp_path / "model.pt", "torch.nn.modules.linear.Linear", "was not run")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (torch.ones(3), "a Tensor"),
        ([torch.ones(3)], "a list"),
        ({}, "an empty dict"),
        ({"epoch": 3, "model": torch.ones(2)}, "a int under 'epoch'"),
        ({"state_dict": {"a": torch.ones(2)}}, "a dict under 'state_dict'"),
        ({0: torch.ones(2)}, "under 0"),
    ],
)
def test_anything_but_a_state_dict_is_refused(tmp_path: Path, content: object, said: str):
    torch.save(content, tmp_path / "model.pt")
    assert_refused(tmp_path / "model.pt", said)


@pytest.mark.parametrize("content", [b"[8]", b"\xff\xfe{"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: bytes):
    path = write(tmp_path / "model.safetensors", weights())
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.json"):
        open_model(path)


# ---- bad shards


SHARDS = [("model", "safetensors"), ("pytorch_model", "bin")]


@pytest.mark.parametrize(("stem", "suffix"), SHARDS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_missing_shard_is_named(save_shards: SaveShards, stem: str, suffix: str, number: int):
    folder = save_shards(stem, suffix)
    name = f"{stem}-0000{number}-of-00002.{suffix}"
    (folder / name).unlink()
    assert_refused(folder, name, "no such file")


@pytest.mark.parametrize(("stem", "suffix"), SHARDS)
def test_a_truncated_shard_is_named(save_shards: SaveShards, stem: str, suffix: str):
    folder = save_shards(stem, suffix)
    truncate(folder / f"{stem}-00002-of-00002.{suffix}", 0.9)
    assert_refused(folder, f"{stem}-00002-of-00002.{suffix}", "truncated")


@pytest.mark.parametrize(("stem", "suffix"), SHARDS)
def test_a_key_that_its_shard_lacks_is_named(save_shards: SaveShards, stem: str, suffix: str):
    folder = save_shards(stem, suffix)
    index = folder / f"{stem}.{suffix}.index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["weight_map"]["layer.0.query.weight"] = f"{stem}-00002-of-00002.{suffix}"
    index.write_text(json.dumps(content), encoding="utf-8")
    assert_refused(folder, f"{stem}-00002-of-00002.{suffix}", "without 'layer.0.query.weight'", index.name)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "holding a list"),
        ("{}", "without a weight_map"),
        ('{"weight_map": {}}', "without a weight_map"),
        ('{"weight_map": ["a"]}', "without a weight_map"),
        ('{"weight_map": {"a": 3}}', "3 for 'a'"),
        ('{"weight_map": {"a": "../other/model.safetensors"}}', "no name of a file beside it"),
    ],
)
def test_a_bad_index_is_refused(save_shards: SaveShards, index: str, said: str):
    folder = save_shards()
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    assert_refused(folder, "model.safetensors.index.json", said)
