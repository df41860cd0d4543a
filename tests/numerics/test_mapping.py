"""The map file: what it may say, every way to get it wrong, and the worked example of docs/map.md."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from numerics.errors import InputError
from numerics.mapping import Mapping, read_mapping

PAGE = Path(__file__).parents[2] / "docs" / "map.md"
SEPARATE = {"query": "h.{layer}.q", "key": "h.{layer}.k", "value": "h.{layer}.v", "output": "h.{layer}.o"}
LEAST = {**SEPARATE, "heads": 6, "causal": False}


def write(folder: Path, content: object, name: str = "map.json") -> Path:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_what_is_not_said_has_the_usual_value(tmp_path: Path):
    expected = Mapping(heads=6, kv_heads=6, causal=False, **SEPARATE)
    assert read_mapping(write(tmp_path, LEAST)) == expected


def test_every_field_may_be_said_in_json_and_in_toml(tmp_path: Path):
    said = {
        "fused": "a.{layer}.qkv",
        "output": "a.{layer}.out",
        "heads": 6,
        "kv_heads": 2,
        "head_dim": 8,
        "layers": 4,
        "transposed": True,
        "causal": True,
        "scale": 0.5,
        "rotary_base": 1e4,
        "rotary_layout": "interleaved",
        "rotary_dims": 4,
        "norm": "a.{layer}.norm",
        "norm_kind": "rms",
        "norm_eps": 1e-6,
    }
    expected = Mapping(**said)  # pyright: ignore[reportArgumentType]
    toml = "\n".join(f"{name} = {json.dumps(value)}" for name, value in said.items())
    assert read_mapping(write(tmp_path, said)) == expected
    assert read_mapping(write(tmp_path, toml, "map.toml")) == expected
    assert {*said, "query", "key", "value"} == {field.name for field in fields(Mapping)}


def test_one_layer_needs_no_place_for_its_number(tmp_path: Path):
    one = {name: pattern.replace("{layer}.", "") for name, pattern in SEPARATE.items()}
    assert read_mapping(write(tmp_path, LEAST | one | {"layers": 1})).query == "h.q"


def assert_refused(path: Path, *said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_mapping(path)
    assert caught.value.argument == "map"
    for words in (str(path), *said):
        assert words in str(caught.value)


@pytest.mark.parametrize("field", ["head", "kvheads", "Query", "rotary_theta"])
def test_an_unknown_field_is_fatal(tmp_path: Path, field: str):
    assert_refused(write(tmp_path, LEAST | {field: 3}), f"unknown field '{field}'", "rotary_layout")


@pytest.mark.parametrize(("field", "meant"), [("head", "heads"), ("norm_epsilon", "norm_eps")])
def test_a_misspelt_field_is_recognised(tmp_path: Path, field: str, meant: str):
    assert_refused(write(tmp_path, LEAST | {field: 3}), f"did you mean '{meant}'?")


@pytest.mark.parametrize("field", ["heads", "output", "causal"])
def test_a_missing_field_is_named(tmp_path: Path, field: str):
    said = {name: value for name, value in LEAST.items() if name != field}
    assert_refused(write(tmp_path, said), f"no field '{field}'", f"expected {field} to be")


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("heads", 0, "a positive whole number"),
        ("heads", "6", "a positive whole number"),
        ("kv_heads", True, "a positive whole number"),
        ("head_dim", 2.0, "a positive whole number"),
        ("layers", -1, "a positive whole number"),
        ("scale", 0, "a positive number"),
        ("norm_eps", "1e-5", "a positive number"),
        ("rotary_base", float("inf"), "a positive number"),
        ("scale", float("nan"), "a positive number"),
        ("causal", 1, "true or false"),
        ("transposed", "no", "true or false"),
        ("query", "", "the key of a weight"),
        ("query", "h.{i}.q", "{layer} once"),
        ("query", "h.{layer}.{layer}.q", "{layer} once"),
        ("output", ["h.{layer}.o"], "the key of a weight"),
        ("rotary_layout", "neox", '"interleaved" or "half-split"'),
        ("norm_kind", "batch", '"layer" or "rms"'),
        ("norm", None, "the key of a weight"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, field: str, value: object, expected: str):
    path = write(tmp_path, LEAST | {field: value})
    assert_refused(path, f"got {path}: {field} = {value!r}", f"expected {field} to be", expected)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fused": "h.{layer}.qkv"}, "either `fused` alone"),
        ({"output": "o"}, "{layer} in all of"),
        ({"norm": "norm", "norm_kind": "rms"}, "{layer} in all of"),
        ({"kv_heads": 4}, "heads = 6, kv_heads = 4"),
        ({"rotary_base": 1e4}, "rotary_layout = None"),
        ({"rotary_layout": "interleaved"}, "rotary_base = None"),
        ({"rotary_dims": 4}, "without rotary_base"),
        ({"rotary_base": 1e4, "rotary_layout": "interleaved", "rotary_dims": 3}, "an even number"),
        ({"rotary_base": 1e4, "rotary_layout": "interleaved", "head_dim": 5}, "an even number"),
        ({"rotary_base": 1e4, "rotary_layout": "interleaved", "head_dim": 4, "rotary_dims": 6}, "no more"),
        ({"norm": "n.{layer}"}, "norm_kind = None"),
        ({"norm_kind": "rms"}, "norm = None"),
    ],
)
def test_a_contradiction_is_named(tmp_path: Path, changed: dict[str, object], said: str):
    assert_refused(write(tmp_path, LEAST | changed), said)


def test_a_missing_map_of_three_is_named(tmp_path: Path):
    assert_refused(write(tmp_path, {k: v for k, v in LEAST.items() if k != "value"}), "['query', 'key']")


def test_several_layers_need_a_place_for_their_number(tmp_path: Path):
    one = {name: pattern.replace("{layer}.", "") for name, pattern in SEPARATE.items()}
    assert_refused(write(tmp_path, LEAST | one | {"layers": 2}), "layers = 2", "{layer} in every key")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("map.json", "{", "expected JSON"),
        ("map.json", "heads = 3", "expected JSON (or TOML, in a file named .toml)"),
        ("map.json", '{"heads": 3, "heads": 4}', "'heads' is given twice"),
        ("map.json", "[]", "a list"),
        ("map.toml", '{"heads": 3}', "expected TOML"),
        ("map.toml", "heads = 3\nheads = 4", "cannot be parsed"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, content: str, said: str):
    assert_refused(write(tmp_path, content, name), said)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    assert_refused(tmp_path / "absent.json", "No such file")
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe")
    assert_refused(tmp_path / "latin.json", "cannot be parsed")


# ---- docs/map.md


def test_the_page_has_every_field():
    names = set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8").split("| field |")[1]))
    assert {field.name for field in fields(Mapping)} <= names


def test_the_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    write(tmp_path, re.findall(r"```json\n(.*?)```", page, re.DOTALL)[0])
    found: dict[str, Any] = {}
    for step in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(step, found)
    layers = found["checkpoint"].layers
    assert len(layers) == 3
    for number, layer in enumerate(layers):
        name = f"decoder.blocks.{number}.mix"
        fused, output = (found["state"][f"{name}.{part}.weight"].double() for part in ("wqkv", "out"))
        assert (layer.heads, layer.head_dim, layer.d_model, layer.causal) == (4, 8, 32, True)
        # query heads 0 and 1 share the first key head, 2 and 3 the second
        assert torch.equal(layer.head(3).query, fused[24:32])
        assert torch.equal(layer.head(1).key, fused[32:40])
        assert torch.equal(layer.head(2).value, fused[56:64])
        assert torch.equal(layer.head(2).output, output[:, 16:24])
        assert torch.equal(layer.query_bias, found["state"][f"{name}.wqkv.bias"][:32].double())
