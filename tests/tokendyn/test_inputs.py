"""What a user hands the audit: selections of numbers, and files of text, ids and images."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from numerics.checkpoints import Checkpoint, load_checkpoint
from numerics.errors import InputError
from tokendyn.inputs import reader
from tokendyn.selection import selected

# ---- selections


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (None, [0, 1, 2, 3, 4, 5]),
        ("0", [0]),
        ("5", [5]),
        ("0,3-5", [0, 3, 4, 5]),
        ("4, 2 ,0", [0, 2, 4]),
        ("2-2", [2]),
        ("1-3,2-4,2", [1, 2, 3, 4]),
        (" 1 - 2 ", [1, 2]),
    ],
)
def test_selections_name_each_number_once_and_in_order(text: str | None, numbers: list[int]):
    assert selected("--layers", text, 6) == numbers


@given(st.sets(st.integers(0, 40), min_size=1), st.data())
def test_any_way_to_write_a_set_selects_it(wanted: set[int], data: st.DataObject):
    parts = data.draw(st.permutations([str(n) if n % 2 else f"{n}-{n}" for n in wanted]))
    assert selected("--heads", ",".join(parts), 41) == sorted(wanted)


@pytest.mark.parametrize(
    "text", ["", ",", "0,", "-1", "6", "0-6", "3-1", "a", "1.5", "0x1", "1--2", "0-1-2", "all", "²", "1 2"]
)
def test_what_is_no_selection_is_refused_with_an_example(text: str):
    with pytest.raises(InputError) as error:
        selected("--layers", text, 6)
    assert (error.value.argument, error.value.got) == ("--layers", repr(text))
    assert "numbers from 0 to 5" in str(error.value)


# ---- files


@pytest.fixture
def model(tmp_path: Path) -> tuple[Path, Checkpoint]:
    """A GPT-2-like file with a vocabulary of SMILES beside it."""
    state = {
        "h.0.attn.c_attn.weight": torch.eye(4).repeat(1, 3),
        "h.0.attn.c_proj.weight": torch.eye(4),
        "h.0.ln_1.weight": torch.ones(4),
    }
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 2}), encoding="utf-8")
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\nC\nO\n>>\n", encoding="utf-8")
    return tmp_path, load_checkpoint(tmp_path)


def test_nothing_given_is_nothing_to_read():
    assert reader(None, None, None) is None


@pytest.mark.parametrize(
    ("given_files", "said"),
    [
        (("a", "b", None), "--text and --ids"),
        (("a", None, "c"), "--text and --image"),
        ((None, "b", "c"), "--ids and --image"),
        (("a", "b", "c"), "--text and --ids and --image"),
    ],
)
def test_only_one_input_at_a_time(given_files: tuple[str | None, ...], said: str):
    with pytest.raises(InputError) as error:
        reader(*given_files)
    assert error.value.got == said


def test_text_is_cut_by_the_tokenizer_beside_the_weights(model: tuple[Path, Checkpoint], tmp_path: Path):
    (tmp_path / "reaction.txt").write_text("  CCO>>CO\n", encoding="utf-8")
    read = reader(str(tmp_path / "reaction.txt"), None, None)
    assert read is not None
    assert read(*model).tolist() == [1, 3, 3, 4, 5, 3, 4, 2]


def test_ids_are_read_as_written(model: tuple[Path, Checkpoint], tmp_path: Path):
    for name, content in (("a", "3, 1,4\n"), ("b", "[3, 1, 4]"), ("c", "3 1\n4")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        read = reader(None, str(tmp_path / name), None)
        assert read is not None
        assert read(*model).tolist() == [3, 1, 4]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.uint8])
def test_images_are_read_in_double_precision(
    model: tuple[Path, Checkpoint], tmp_path: Path, dtype: type[np.generic]
):
    image = np.arange(24).reshape(3, 2, 4).astype(dtype)
    np.save(tmp_path / "image.npy", image)
    read = reader(None, None, str(tmp_path / "image.npy"))
    assert read is not None
    tensor = read(*model)
    assert tensor.dtype == torch.float64
    assert np.array_equal(tensor.numpy(), image)


def refused(model: tuple[Path, Checkpoint], **given_file: Path) -> InputError:
    files = {"text": None, "ids": None, "image": None} | {k: str(v) for k, v in given_file.items()}
    read = reader(**files)
    assert read is not None  # the file is opened when the model is known, not before
    with pytest.raises(InputError) as error:
        read(*model)
    return error.value


def test_files_that_cannot_be_read_are_named(model: tuple[Path, Checkpoint], tmp_path: Path):
    (tmp_path / "latin").write_bytes("Ärger".encode("latin-1"))
    (tmp_path / "not.npy").write_bytes(b"no array")
    for option in ("text", "ids", "image"):
        error = refused(model, **{option: tmp_path / "absent"})
        assert "absent" in str(error)
    assert "UnicodeDecodeError" in str(refused(model, text=tmp_path / "latin"))
    assert "ids" in refused(model, ids=tmp_path / "latin").expected
    assert "not.npy" in str(refused(model, image=tmp_path / "not.npy"))
    assert refused(model, text=tmp_path).argument == "--text"


def test_empty_text_has_no_tokens(model: tuple[Path, Checkpoint], tmp_path: Path):
    (tmp_path / "empty").write_text(" \n", encoding="utf-8")
    assert "at least one token" in str(refused(model, text=tmp_path / "empty"))


class Touch:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


def test_a_pickled_image_is_refused_and_not_run(model: tuple[Path, Checkpoint], tmp_path: Path):
    array = np.array([Touch(tmp_path / "ran")], dtype=object)
    np.save(tmp_path / "image.npy", array, allow_pickle=True)
    assert "ValueError" in str(refused(model, image=tmp_path / "image.npy"))
    assert not (tmp_path / "ran").exists()


def save_words(path: Path) -> None:
    np.save(path, np.array(["cat", "dog"]))


def save_archive(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, a=np.zeros((3, 2, 2)))


def save_complex(path: Path) -> None:
    np.save(path, np.full((3, 2, 2), 1j))


@pytest.mark.parametrize("save", [save_words, save_archive, save_complex, Path.touch])
def test_an_array_that_is_no_image_is_refused(
    model: tuple[Path, Checkpoint], tmp_path: Path, save: Callable[[Path], None]
):
    """Words, several arrays, complex numbers (a warning today, and half the image lost) and no bytes."""
    save(tmp_path / "image.npy")
    assert refused(model, image=tmp_path / "image.npy").argument == "--image"
