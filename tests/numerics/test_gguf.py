"""GGUF files: values against a reading of the blocks by hand, shapes, metadata and damaged files."""

import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind

from numerics.errors import InputError
from numerics.fetch import SOURCES, Source, UnavailableError, fetch
from numerics.states import State, load_state_dict, open_model

Save = Callable[..., Path]
NAME = "blk.0.attn_q.weight"


def numbers(rows: int = 5, columns: int = 64) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes one matrix, stored as `kind`, with some settings; returns the path."""

    def save(kind: Kind = Kind.F32, name: str = "model.gguf", **settings: int) -> Path:
        writer = gguf.GGUFWriter(tmp_path / name, "llama")
        writer.add_head_count(9)
        writer.add_head_count_kv(3)
        writer.add_rope_freq_base(1e5)
        writer.add_token_list(["a", "bé"])
        for key, value in settings.items():
            writer.add_uint16(key.replace("_", "."), value)
        writer.add_tensor(NAME, gguf.quants.quantize(numbers(), kind), raw_dtype=kind)
        writer.add_tensor("output_norm.weight", numbers(1)[0])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / name

    return save


def half(stored: np.ndarray) -> np.ndarray:
    """The 16-bit numbers in two columns of bytes."""
    return stored.copy().view("<f2").astype(np.float32)


def by_hand(stored: bytes, kind: str) -> np.ndarray:
    """Blocks of 32 numbers as ggml's headers describe them: scale, minimum or none, then whole numbers."""
    size = {"Q8_0": 34, "Q4_1": 20}[kind]
    blocks = np.frombuffer(stored, np.uint8).reshape(-1, size)
    if kind == "Q8_0":
        return half(blocks[:, :2]) * blocks[:, 2:].view(np.int8)
    low, high = blocks[:, 4:] & 15, blocks[:, 4:] >> 4
    return half(blocks[:, :2]) * np.concatenate([low, high], 1) + half(blocks[:, 2:4])


@pytest.mark.parametrize(
    ("kind", "stored", "dtype"),
    [
        (Kind.F32, "float32", torch.float32),
        (Kind.F16, "float16", torch.float16),
        (Kind.BF16, "bfloat16", torch.bfloat16),
    ],
)
def test_plain_tensors_are_the_numbers_themselves(save: Save, kind: Kind, stored: str, dtype: torch.dtype):
    state = load_state_dict(save(kind))
    assert set(state) == {NAME, "output_norm.weight"}
    assert torch.equal(state[NAME], torch.tensor(numbers()).to(dtype))
    assert state[NAME].shape == (5, 64)
    assert (state.stored_type(NAME), state.stored_type("output_norm.weight")) == (stored, "float32")


@pytest.mark.parametrize(("kind", "step"), [(Kind.Q8_0, 127), (Kind.Q4_1, 15)])
def test_quantised_tensors_are_the_numbers_of_their_blocks(save: Save, kind: Kind, step: int):
    state = load_state_dict(save(kind))
    weight = state[NAME]
    expected = by_hand(gguf.quants.quantize(numbers(), kind).tobytes(), kind.name).reshape(5, 64)
    assert (weight.dtype, tuple(weight.shape)) == (torch.float32, (5, 64))
    # one multiplication and one addition, rounded to float32, in either order
    torch.testing.assert_close(weight, torch.tensor(expected), rtol=1e-6, atol=1e-6)
    # a quantised number is off by at most one step of its range; more would be another row or column
    assert (weight - torch.tensor(numbers())).abs().max() <= 2 * np.abs(numbers()).max() / step
    assert state.stored_type(NAME) == kind.name


def test_the_metadata_is_the_config_under_its_own_names(save: Save):
    config = open_model(save())[1]
    assert config["general.architecture"] == "llama"
    assert (config["llama.attention.head_count"], config["llama.attention.head_count_kv"]) == (9, 3)
    assert config["llama.rope.freq_base"] == 1e5
    assert config["tokenizer.ggml.tokens"] == ["a", "bé"]


def test_a_file_is_known_by_its_first_bytes(save: Save):
    assert NAME in load_state_dict(save(name="model.bin"))


def test_the_file_stays_as_it_was_when_a_tensor_is_changed(save: Save):
    path = save()
    before = path.read_bytes()
    load_state_dict(path)[NAME].zero_()
    assert path.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux lists the mappings of a process")
@pytest.mark.parametrize("kind", [Kind.F32, Kind.BF16, Kind.Q4_1])
def test_nothing_stays_mapped_once_a_tensor_is_dropped(save: Save, kind: Kind):
    path = save(kind)
    state, _ = open_model(path)
    assert state[NAME].isfinite().all()
    assert str(path) not in Path("/proc/self/maps").read_text(encoding="utf-8")


# ---- bad files


def assert_refused(path: Path, *said: str) -> None:
    for load in (load_state_dict, open_model):
        with pytest.raises(InputError) as caught:
            load(path)
        for words in said:
            assert words in str(caught.value)


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.95])
def test_a_truncated_file_is_refused(save: Save, kept: float):
    path = save(Kind.Q8_0)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    assert_refused(path, str(path), "empty" if kept == 0 else "truncated")


@pytest.mark.parametrize("content", [b"GGUF", b"hello world\n" * 20, b"\x00" * 64])
def test_a_file_that_is_none_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    assert_refused(path, "truncated, damaged")


def with_type(path: Path, number: int) -> Path:
    """The file with another type, of which ggml has no or some meaning, behind the name and shape (64, 5)."""
    content = path.read_bytes()
    head = NAME.encode() + (2).to_bytes(4, "little") + (64).to_bytes(8, "little") + (5).to_bytes(8, "little")
    place = content.index(head) + len(head)
    path.write_bytes(content[:place] + number.to_bytes(4, "little") + content[place + 4 :])
    return path


def test_an_unknown_type_is_refused(save: Save):
    assert_refused(with_type(save(), 99), "99", "is not a valid GGMLQuantizationType")


def test_a_type_that_cannot_be_undone_is_refused_when_its_tensor_is_read(save: Save):
    state = load_state_dict(with_type(save(), Kind.Q8_1.value))
    assert state.stored_type(NAME) == "Q8_1"
    assert state["output_norm.weight"].shape == (64,)
    with pytest.raises(InputError, match=f"'{NAME}' quantised as Q8_1"):
        _ = state[NAME]


def test_one_of_several_parts_is_refused(save: Save):
    assert_refused(save(split_count=3), "one of 3 parts", "join them")


def test_the_extra_is_named_where_it_is_missing(save: Save, monkeypatch: pytest.MonkeyPatch):
    path = save()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert_refused(path, "pip install 'tokendyn[gguf]'")


# ---- the real one


@pytest.fixture
def smollm2() -> tuple[State, dict[str, object]]:
    def absent(source: Source, folder: Path) -> Path:
        raise UnavailableError(tried="the cache", got="no file", fix="`tokendyn audit smollm2`")

    try:
        return open_model(fetch(SOURCES["smollm2"], download=absent))
    except UnavailableError:
        pytest.skip("smollm2 is not in the cache; `tokendyn audit smollm2` downloads it")


def test_the_cached_smollm2_has_its_published_shape(smollm2: tuple[State, dict[str, object]]):
    state, config = smollm2
    assert config["llama.block_count"] == 30
    assert (config["llama.attention.head_count"], config["llama.attention.head_count_kv"]) == (9, 3)
    assert (state.stored_type("blk.7.attn_q.weight"), state.stored_type("output_norm.weight")) == (
        "Q4_1",
        "float32",
    )
    assert state["blk.7.attn_q.weight"].shape == (576, 576)
    assert state["blk.7.attn_k.weight"].shape == (192, 576)
    assert state["blk.7.ffn_down.weight"].shape == (576, 1536)
    assert state["token_embd.weight"].shape == (49152, 576)
    assert all(state[f"blk.{layer}.attn_v.weight"].isfinite().all() for layer in range(30))
