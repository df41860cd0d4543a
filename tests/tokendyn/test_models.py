"""docs/models.md, made from the reports of two small models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from numerics.fetch import UnavailableError
from tokendyn import models
from tokendyn.audit import audit
from tokendyn.models import page

Report = dict[str, Any]
D = 4
KEY = np.array([[2, -1, 0, 1], [1, 2, 0, 0], [0, 0, 2, -1], [-1, 0, 1, 2]], dtype=float)


def write(folder: Path, state: dict[str, np.ndarray], config: Report) -> Path:
    folder.mkdir()
    tensors = {key: torch.tensor(matrix).float().contiguous() for key, matrix in state.items()}
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """A shared ALBERT-like layer with T2, and two Llama layers with V = diag(3, 0, …) and diag(5, 0, …)."""
    folder = tmp_path_factory.mktemp("models")
    name = "encoder.albert_layer_groups.0.albert_layers.0.attention"
    parts = {"query": np.eye(D), "key": KEY, "value": KEY, "dense": -np.eye(D)}
    albert = write(
        folder / "albert",
        {f"{name}.{part}.weight": matrix for part, matrix in parts.items()},
        {"model_type": "albert", "num_attention_heads": 1, "num_hidden_layers": 3},
    )
    state: dict[str, np.ndarray] = {}
    for layer, rate in enumerate((3.0, 5.0)):
        block = f"layers.{layer}"
        state |= {
            f"{block}.self_attn.q_proj.weight": np.eye(D),
            f"{block}.self_attn.k_proj.weight": KEY[:2],
            f"{block}.self_attn.v_proj.weight": np.diag([rate, 0, 0, 0])[:2],
            f"{block}.self_attn.o_proj.weight": np.eye(D),
            f"{block}.input_layernorm.weight": np.ones(D),
        }
    config = {"model_type": "llama", "num_attention_heads": 2, "num_key_value_heads": 1}
    llama = write(folder / "llama", state, config)
    made = {"one": audit(albert), "two": audit(llama)}
    for report, package in zip(made.values(), ("pack-a", "pack-b"), strict=True):
        report["source"] |= {"package": package, "version": "1.0", "licence": "MIT"}
    return made


def cells(line: str) -> list[str]:
    """Of a table's line; an escaped pipe stays in its cell."""
    return [cell.strip().replace("\0", "|") for cell in line.replace("\\|", "\0").strip("|").split("|")]


def tables(text: str) -> list[list[list[str]]]:
    """Each table of a page as rows of cells, its head first."""
    found: list[list[list[str]]] = []
    previous = ""
    for line in text.splitlines():
        if line.startswith("|"):
            if not previous.startswith("|"):
                found.append([])
            found[-1].append(cells(line))
        previous = line
    return found


def whole(report: Report, identifier: str) -> Report:
    """A statement's line in the summary of whole layers."""
    rows = (entry for entry in report["summary"] if entry["about"] != "this head alone")
    return next(entry for entry in rows if entry["id"] == identifier)


def row(table: list[list[str]], identifier: str) -> list[str]:
    return next(line for line in table if line[0] == identifier)


def test_every_table_is_rectangular_and_has_its_rows(reports: dict[str, Report]):
    made = tables(page(reports, {}))
    assert len(made) == 3
    for table in made:
        assert {len(line) for line in table} == {len(table[0])}
        assert set(table[1]) == {"---"}
    about, wholes, heads = made
    assert wholes[0] == ["statement on whole layers", "concludes", "one", "two"]
    assert heads[0] == ["statement on single heads", "concludes", "one", "two"]
    rows = [entry for report in reports.values() for entry in report["summary"]]
    for table, single in ((wholes, False), (heads, True)):
        wanted = {entry["id"] for entry in rows if (entry["about"] == "this head alone") == single}
        assert {line[0] for line in table[2:]} == wanted
    assert [line[0] for line in about[2:]] == ["one", "two"]


def test_the_models_are_described(reports: dict[str, Report]):
    head, _, *rows = tables(page(reports, {}))[0]
    one, two = (dict(zip(head, line, strict=True)) for line in rows)
    assert (one["package"], two["package"]) == ("pack-a 1.0, MIT", "pack-b 1.0, MIT")
    assert (one["architecture"], two["architecture"]) == ("albert", "llama")
    assert (one["layers"], two["layers"], one["d"]) == ("1 used 3 times", "2", "4")
    assert (one["heads"], two["heads"]) == ("1 × 4", "2 × 2 (1 of keys and values)")
    assert (one["attention"], two["attention"]) == ("full", "causal, rotary (half-split)")


def test_cells_that_speak_give_counts_margins_grade_and_what_they_are_about(reports: dict[str, Report]):
    _, wholes, _ = tables(page(reports, {}))
    assert row(wholes, "T2")[2].startswith("**1/1**")
    assert "(exact, attention-only layer)" in row(wholes, "T2")[2]
    spoken = next(
        e for e in reports["two"]["summary"] if e["id"] == "T17" and e["about"] != "this head alone"
    )
    cell = row(wholes, "T17")[3]
    margins = f"{spoken['margin_smallest']} … {spoken['margin_largest'].removeprefix('μ ≥ ')}"
    assert cell == f"**2/2** {margins} ({spoken['grade']}, single-head idealisation)"
    assert "3" in spoken["margin_smallest"]
    assert "5" in spoken["margin_largest"]


def test_equal_margins_are_given_once(reports: dict[str, Report]):
    heads = tables(page(reports, {}))[2]
    (entry,) = (e for e in reports["one"]["summary"] if e["id"] == "T1" and e["about"] == "this head alone")
    assert entry["margin_smallest"] == entry["margin_largest"]
    assert "…" not in row(heads, "T1")[2]


def test_silent_cells_name_what_is_missing_and_why(reports: dict[str, Report]):
    _, wholes, _ = tables(page(reports, {}))
    for identifier, number, report in (("T3", 2, reports["one"]), ("T2", 3, reports["two"])):
        entry = next(
            e for e in report["summary"] if e["id"] == identifier and e["about"] != "this head alone"
        )
        assert (entry["speaks"], entry["grade"]) == (0, None)
        margins = " … ".join(dict.fromkeys(filter(None, (entry["margin_smallest"], entry["margin_largest"]))))
        reason = margins or entry["silent_reason"]
        assert row(wholes, identifier)[number] == f"silent: {entry['silent_because']} ({reason})"
    assert row(wholes, "T2")[3] == "silent: A symmetric (V is singular, so A = W V⁻¹ is not defined)"


def test_a_statement_that_is_not_asked_of_a_model_has_a_dash(reports: dict[str, Report]):
    _, wholes, _ = tables(page(reports, {}))
    assert row(wholes, "T14c")[2] == "–"
    assert row(wholes, "T14c")[3].startswith("**2/2**")


def test_the_share_of_layers_counts_whole_layers_only(reports: dict[str, Report]):
    assert "speaks on 2 of 3 layers of these models" in page(reports, {})
    assert "speaks on 0 of 1 layers" in page({"one": reports["one"]}, {})


def test_pipes_stay_inside_their_cells(reports: dict[str, Report]):
    text = page(reports, {})
    conclusion = next(e["concludes"] for e in reports["two"]["summary"] if e["id"] == "T14b")
    assert "|" in conclusion
    assert conclusion.replace("|", "\\|") in text
    assert row(tables(text)[1], "T14b")[1] == conclusion
    renamed = json.loads(json.dumps(reports["one"]))
    renamed["source"]["licence"] = "MIT | Apache"
    assert tables(page({"a|b": renamed}, {}))[0][2][:2] == ["a|b", "pack-a 1.0, MIT | Apache"]


def test_models_that_are_missing_are_said(reports: dict[str, Report]):
    text = page({"one": reports["one"]}, {"two": "no network", "three": "wrong checksum"})
    assert "*two is left out: no network.*" in text
    assert "*three is left out: wrong checksum.*" in text
    assert "left out" not in page(reports, {})


def test_what_the_theory_ignores_is_listed_for_each_model(reports: dict[str, Report]):
    ending = page(reports, {}).split("## What the theory ignores in them")[1]
    for name, report in reports.items():
        assert f"- **{name}**: " in ending
        assert all(left_out in ending for left_out in report["ignores"])


def test_the_page_is_written_from_what_can_be_fetched(
    reports: dict[str, Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fetched(name: str, **options: object) -> Report:
        if name == "two":
            raise UnavailableError(tried="the registry", got="no network", fix="try again")
        return reports["one"]

    monkeypatch.setattr(models, "SOURCES", dict.fromkeys(("one", "two")))
    monkeypatch.setattr(models, "audit", fetched)
    monkeypatch.setattr(models, "PAGE", tmp_path / "models.md")
    models.main()
    assert (tmp_path / "models.md").read_text("utf-8") == page({"one": reports["one"]}, {"two": "no network"})
    assert "two: could not be fetched" in capsys.readouterr().out


def test_without_any_model_the_page_says_so():
    text = page({}, {"one": "no network"})
    assert "speaks on 0 of 0 layers" in text
    assert "*one is left out: no network.*" in text


def test_the_page_in_the_docs_has_the_shape_that_is_made_now():
    """`make models` regenerates it; here no model is fetched."""
    text = Path(__file__).parents[2].joinpath("docs", "models.md").read_text("utf-8")
    assert text.startswith(models.INTRODUCTION)
    about, wholes, heads = tables(text)
    names = [line[0] for line in about[2:]]
    assert wholes[0][2:] == heads[0][2:] == names
