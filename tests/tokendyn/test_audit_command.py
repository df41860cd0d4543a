"""`tokendyn audit` as a user meets it: every option, bad input, exit codes, nothing half-written."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from jsonschema import Draft202012Validator
from safetensors.torch import save_file
from torch import Tensor

from numerics.errors import InputError
from numerics.fetch import FetchError, UnavailableError
from tests import commands
from tokendyn import audit as module
from tokendyn import cli

SCHEMA = json.loads(Path(__file__).parents[2].joinpath("docs", "audit_schema.json").read_text("utf-8"))
D, HEADS, DEPTH = 12, 3, 2
BERT_PARTS = ("self.query", "self.key", "self.value", "output.dense")

State = dict[str, Tensor]
Report = dict[str, Any]


run, refused = partial(commands.run, "audit"), partial(commands.refused, "audit")


def audited(target: Path, *arguments: object) -> Report:
    """The report that --json writes, of an audit that must succeed."""
    result = run(*arguments, "--json", target)
    assert result.exit_code == 0, result.output
    assert f"full report: {target}" in result.output.replace("\n", "")
    report = json.loads(target.read_text("utf-8"))
    Draft202012Validator(SCHEMA).validate(report)
    return report


def bert_state(depth: int = DEPTH) -> State:
    generator = torch.Generator().manual_seed(0)
    names = [f"encoder.layer.{i}.attention.{part}.weight" for i in range(depth) for part in BERT_PARTS]
    return {name: torch.randn(D, D, generator=generator) for name in names}


def write(folder: Path, state: State, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return write(tmp_path / "bert", bert_state(), model_type="bert", num_attention_heads=HEADS)


def pretrained(folder: Path, name: str, **settings: Any) -> Path:
    """A random model of `transformers` in a folder, with settings of the same names."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**settings)
    getattr(transformers, f"{name}Model")(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {"n_embd": D, "n_layer": DEPTH, "n_head": HEADS, "n_positions": 16}
    return pretrained(tmp_path_factory.mktemp("gpt2"), "GPT2", vocab_size=50, **sizes)


# ---- options


def test_a_plain_audit_prints_and_writes_nothing(bert: Path):
    before = sorted(bert.parent.rglob("*"))
    result = run(bert)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "T6b" in result.output
    assert max(map(len, result.output.splitlines())) <= 110
    assert sorted(bert.parent.rglob("*")) == before


def test_a_file_and_its_folder_are_the_same_model(bert: Path, tmp_path: Path):
    folder, file = (audited(tmp_path / "r.json", path) for path in (bert, bert / "model.safetensors"))
    assert folder["layers"] == file["layers"]
    assert (folder["source"]["name"], file["source"]["name"]) == ("bert", "model.safetensors")


def test_layers_and_heads_are_selected(bert: Path, tmp_path: Path):
    report = audited(tmp_path / "r.json", bert, "--layers", "1", "--heads", "0,2")
    assert [layer["index"] for layer in report["layers"]] == report["layers_audited"] == [1]
    assert [head["head"] for head in report["layers"][0]["heads"]] == report["heads_audited"] == [0, 2]


def test_the_number_of_heads_is_given_without_a_config(tmp_path: Path):
    bare = write(tmp_path / "bare", bert_state())
    assert "--num-heads" in refused(bare) or "heads" in refused(bare)
    report = audited(tmp_path / "r.json", bare, "--num-heads", 4)
    assert report["setting"]["heads"] == len(report["layers"][0]["heads"]) == 4


def test_a_map_says_which_keys_hold_what(bert: Path, tmp_path: Path):
    renamed = {
        key.replace("encoder.layer.", "my.").replace("attention.", ""): tensor
        for key, tensor in bert_state().items()
    }
    own = write(tmp_path / "own", renamed)
    parts = (f"my.{{layer}}.{part}.weight" for part in BERT_PARTS)
    mapping: Report = dict(zip(("query", "key", "value", "output"), parts, strict=True))
    mapping |= {"heads": HEADS, "causal": False}
    (tmp_path / "map.json").write_text(json.dumps(mapping), encoding="utf-8")
    assert "--map" in refused(own)
    mapped = audited(tmp_path / "r.json", own, "--map", tmp_path / "map.json")
    known = audited(tmp_path / "k.json", bert)
    for mine, other in zip(mapped["layers"], known["layers"], strict=True):
        assert (mine["whole"], mine["heads"]) == (other["whole"], other["heads"])


def test_a_norm_is_folded_and_that_is_said(tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    state = {
        f"layers.0.self_attn.{part}_proj.weight": torch.randn(D, D, generator=generator) for part in "qkvo"
    }
    state["layers.0.input_layernorm.weight"] = torch.rand(D, generator=generator) + 0.5
    model = write(tmp_path / "llama", state, model_type="llama", num_attention_heads=HEADS)
    folded, plain = (audited(tmp_path / "r.json", model, *option) for option in (["--fold-norm"], []))
    assert (folded["setting"]["norm_folded"], plain["setting"]["norm_folded"]) == (True, False)
    assert "multiplied in" in " ".join(run(model, "--fold-norm").output.split())
    assert folded["layers"][0]["whole"]["scores"] != plain["layers"][0]["whole"]["scores"]


def test_token_ids_are_run_through_the_model(gpt2: Path, tmp_path: Path):
    (tmp_path / "ids").write_text("3, 14, 15, 9", encoding="utf-8")
    report = audited(tmp_path / "r.json", gpt2, "--ids", tmp_path / "ids")
    assert {row["step"] for row in report["activations"]["rows"]} == set(range(DEPTH + 1))


def test_text_is_run_through_the_model(gpt2: Path, tmp_path: Path):
    words = {word: n for n, word in enumerate(["[UNK]", "the", "cat", "sat"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()  # type: ignore[assignment]
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json"):
        (folder / name).write_bytes((gpt2 / name).read_bytes())
    tokenizer.save(str(folder / "tokenizer.json"))
    (tmp_path / "text").write_text("the cat sat\n", encoding="utf-8")
    (tmp_path / "ids").write_text("1 2 3", encoding="utf-8")
    by_text, by_ids = (
        audited(tmp_path / "r.json", folder, f"--{kind}", tmp_path / kind)["activations"]
        for kind in ("text", "ids")
    )
    assert by_text == by_ids
    assert by_text is not None


def test_an_image_is_run_through_a_vision_model(tmp_path: Path):
    sizes = {"hidden_size": D, "num_hidden_layers": 1, "num_attention_heads": HEADS, "intermediate_size": 20}
    vit = pretrained(tmp_path / "vit", "ViT", **sizes, image_size=8, patch_size=4)
    np.save(tmp_path / "image.npy", np.random.default_rng(0).standard_normal((3, 8, 8)))
    report = audited(tmp_path / "r.json", vit, "--image", tmp_path / "image.npy")
    assert report["activations"]["rows"]


def test_shared_layers_are_run_further_than_trained(tmp_path: Path):
    sizes = {"hidden_size": D, "embedding_size": 6, "num_hidden_layers": 2, "num_attention_heads": HEADS}
    albert = pretrained(tmp_path / "albert", "Albert", vocab_size=50, intermediate_size=20, **sizes)
    (tmp_path / "ids").write_text("3 14 15", encoding="utf-8")
    report = audited(tmp_path / "r.json", albert, "--ids", tmp_path / "ids", "--depth", 5)
    rows = report["activations"]["rows"]
    assert max(row["step"] for row in rows) == 5
    assert {row["step"] for row in rows if row["beyond_trained_depth"]} == {3, 4, 5}


def test_a_certificate_is_looked_for_on_request(tmp_path: Path):
    """V = W = KᵀK: A = I, so a certificate of divergence exists whatever n."""
    state = {f"encoder.layer.0.attention.{part}.weight": torch.eye(3) * 2 for part in BERT_PARTS}
    model = write(tmp_path / "model", state, model_type="bert", num_attention_heads=1)
    found = audited(tmp_path / "r.json", model, "--certify", 4)["layers"][0]["certificate"]
    assert (found["context"], found["kind"], found["verdict"]["status"]) == (4, "divergence", "HOLDS")
    assert audited(tmp_path / "r.json", model)["layers"][0]["certificate"] is None


def test_a_page_is_written(bert: Path, tmp_path: Path):
    result = run(bert, "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "to read in a browser" in result.output
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.lower().startswith("<!doctype html>")
    assert "T6b" in page


# ---- bad input


def test_a_missing_key_is_named_with_its_adapter(tmp_path: Path):
    state = bert_state()
    key = "encoder.layer.1.attention.self.value.weight"
    del state[key]
    said = refused(write(tmp_path / "m", state, model_type="bert", num_attention_heads=HEADS))
    assert f"without '{key}'" in said
    assert "bert adapter" in said


def test_a_wrong_number_of_heads_is_refused(bert: Path, tmp_path: Path):
    assert "a divisor of 12" in refused(write(tmp_path / "m", bert_state()), "--num-heads", 5)
    assert "3, as config.json" in refused(bert, "--num-heads", 4)
    assert "positive whole number" in refused(tmp_path / "m", "--num-heads", 0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_counted(tmp_path: Path, bad: float):
    """In the second layer, so that the first has been audited by then: still nothing is written."""
    state = bert_state()
    key = "encoder.layer.1.attention.self.key.weight"
    state[key][0, :2] = bad
    model = write(tmp_path / "m", state, model_type="bert", num_attention_heads=HEADS)
    assert f"'{key}' with 2 entries that are NaN or infinite" in refused(
        model, "--json", tmp_path / "r.json", "--html", tmp_path / "r.html"
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m"]


def test_whole_numbers_of_a_quantised_model_are_refused(tmp_path: Path):
    state = bert_state() | {"encoder.layer.0.attention.self.key.weight": torch.ones(D, D, dtype=torch.int8)}
    said = refused(write(tmp_path / "m", state, model_type="bert", num_attention_heads=HEADS))
    assert "torch.int8" in said
    assert "unquantised" in said


def test_a_gguf_file_without_its_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(HEADS)
    writer.add_tensor("blk.0.attn_q.weight", np.eye(D, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'tokendyn[gguf]'" in refused(path)


def test_text_without_its_extra_says_what_to_install(
    gpt2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_bytes((gpt2 / name).read_bytes())
    for name in ("tokenizer.json", "text"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert "pip install 'tokendyn[text]'" in refused(tmp_path, "--text", tmp_path / "text")


class Touch:
    """Unpickling it writes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, zipped: bool):
    path = tmp_path / "model.bin"
    state = {**bert_state(), "hook": Touch(tmp_path / "ran")}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    assert "names code" in refused(path, "--num-heads", HEADS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(bert: Path, kept: int):
    file = bert / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    said = refused(bert)
    assert "truncated or damaged" in said
    assert "model.safetensors" in said


def test_a_model_with_cross_attention_is_audited_and_the_part_is_named(tmp_path: Path):
    state = bert_state()
    state["encoder.layer.0.crossattention.self.query.weight"] = torch.randn(D, D)
    model = write(tmp_path / "m", state, model_type="bert", num_attention_heads=HEADS)
    report = audited(tmp_path / "r.json", model)
    said = "cross-attention (encoder.layer.0.crossattention.self.query.weight and others)"
    assert any(left_out.startswith(said) for left_out in report["ignores"])
    assert "the part audited is the self-attention" in " ".join(run(model).output.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--layers", "2"), "numbers from 0 to 1"),
        (("--layers", "one"), "numbers from 0 to 1"),
        (("--heads", "0-3"), "numbers from 0 to 2"),
        (("--text", "a", "--ids", "b"), "--text and --ids"),
        (("--text", "absent"), "absent"),
        (("--ids", "absent"), "absent"),
        (("--image", "absent.npy"), "absent.npy"),
        (("--map", "absent.json"), "absent.json"),
        (("--fold-norm",), "no normalisation before attention"),
    ],
)
def test_options_that_do_not_fit_are_refused(bert: Path, options: tuple[str, ...], said: str):
    assert said in refused(bert, *options)


@pytest.mark.parametrize("options", [("--num-heads", "three"), ("--depth", "1.5"), ("--speed", "1")])
def test_options_of_another_form_are_bad_usage(bert: Path, options: tuple[str, ...]):
    result = run(bert, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr


def test_a_depth_beyond_layers_of_their_own_is_refused(gpt2: Path, tmp_path: Path):
    (tmp_path / "ids").write_text("3 14 15", encoding="utf-8")
    assert "depth" in refused(gpt2, "--ids", tmp_path / "ids", "--depth", DEPTH + 1)


def test_ids_beyond_the_vocabulary_are_refused(gpt2: Path, tmp_path: Path):
    (tmp_path / "ids").write_text("3 50", encoding="utf-8")
    assert "50" in refused(gpt2, "--ids", tmp_path / "ids")


@pytest.mark.parametrize("name", ["absent", "absent.gguf", "bertt"])
def test_a_model_that_is_not_there_is_named(tmp_path: Path, name: str):
    assert "no such file" in refused(tmp_path / name)


def test_an_empty_folder_is_refused(tmp_path: Path):
    assert "a folder without any of model.safetensors" in refused(tmp_path)


# ---- nothing half done


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_where_nothing_can_be_written_is_told_before_any_work(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
):
    def never(*arguments: object, **options: object) -> Report:
        raise AssertionError("the audit began")

    monkeypatch.setattr(cli, "run_audit", never)
    for target in (tmp_path / "no" / "folder" / "file", tmp_path):
        assert option in refused(bert, option, target)
    assert not (tmp_path / "no").exists()


def test_a_failure_leaves_the_report_of_before(bert: Path, tmp_path: Path):
    target = tmp_path / "r.json"
    audited(target, bert)
    before = target.read_bytes()
    refused(bert, "--layers", "9", "--json", target)
    assert target.read_bytes() == before


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_a_failure_while_writing_leaves_nothing(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
):
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    result = run(bert, option, tmp_path / "out")
    assert result.exit_code != 0
    assert [file.name for file in tmp_path.iterdir()] == ["bert"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError(tried="albert", got="no network", fix="try again"), 3),
        (FetchError(tried="albert", got="other bytes", fix="try again"), 2),
        (InputError(argument="path", got="x", expected="y", fix="z"), 2),
    ],
)
def test_exit_codes_tell_what_could_not_be_fetched(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
):
    def failing(source: object) -> Path:
        raise error

    monkeypatch.setattr(module, "fetch", failing)
    result = run("albert")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"tokendyn: {error}\n"
