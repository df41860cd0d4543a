"""`tokendyn heads`: what it reports of small random models, its page, and what it refuses."""

import json
import math
import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from matplotlib.colors import to_hex
from scipy import stats

from numerics.checkpoints import load_checkpoint
from numerics.head_behaviour import measure
from numerics.prompts import COLOURS, NAMES, binding_prompts, read_prompts
from numerics.tokens import encoder
from numerics.transformer import hidden_states
from tests.browser import IN_A_BROWSER, browse
from tests.pages import Page
from theory.errors import InputError
from tokendyn import cli
from tokendyn.heads import KINDS, heads, kind_of, spearman
from tokendyn.heads_report import html
from tokendyn.heads_svg import Axis, Curve, Dot, scatter
from tokendyn.report_svg import SEQUENTIAL

SCHEMA = json.loads(Path(__file__).parents[2].joinpath("docs", "heads_schema.json").read_text("utf-8"))
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
OTHERS = ("Here", "is", "what", "they", "like", ".", "likes", "What", "colour", "does", "?", "[UNK]")
PLANTED = "</script><script>alert('x')</script>"
Json = dict[str, Any]


def save(folder: Path, kind: str, tokenizer: bool = True, **settings: Any) -> Path:
    """A random model of `transformers` whose weights are large enough to attend unevenly."""
    words = [*NAMES, *COLOURS, *OTHERS]
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(words), **settings)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8.0)
    model.save_pretrained(folder)
    if tokenizer:
        ids = {word: number for number, word in enumerate(words)}
        made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
        made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
        made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("llama"), "Llama", num_key_value_heads=2, **SIZES)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("bert"), "Bert", max_position_embeddings=64, **SIZES)


@cache
def measured(folder: Path, **options: Any) -> Json:
    return heads(folder, **{"bindings": 3, "count": 2, **options})


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["heads", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert "Traceback" not in result.stderr
    return result.stderr


def every(report: Json) -> list[Json]:
    return [head for layer in report["layers"] for head in layer["heads"]]


# ---- the command


def test_all_of_it_is_written_and_described_by_the_schema(llama: Path, tmp_path: Path):
    page, file = tmp_path / "heads.html", tmp_path / "heads.json"
    result = run(llama, "--bindings", 3, "--count", 2, "--html", page, "--json", file)
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines())) <= 110
    for words in ("swapped", "rerun", "strongest positional", "Spearman", "no cause", "S1"):
        assert words in result.output
    report = json.loads(file.read_text("utf-8"))
    Draft202012Validator(SCHEMA).validate(report)
    assert report == json.loads(json.dumps(measured(llama)))
    read = Page(page.read_text("utf-8"))
    assert read.resources == []


@pytest.mark.parametrize("mode", ["swapped", "rerun"])
def test_one_mode_alone_gives_the_same_numbers(llama: Path, mode: str):
    one, both = measured(llama, mode=mode), measured(llama)
    other = {"swapped": "rerun", "rerun": "swapped"}[mode]
    assert one["run"]["modes"] == [mode]
    assert other not in one["summary"]
    for alone, beside in zip(every(one), every(both), strict=True):
        assert other not in alone
        assert alone[mode] == beside[mode]
    Draft202012Validator(SCHEMA).validate(one)
    Page(html(one))


def test_the_seed_chooses_the_prompts(llama: Path):
    first, same, other = (measured(llama, seed=seed) for seed in (0, 0, 1))
    assert first == same
    assert first["prompts"] != other["prompts"]
    assert every(first) != every(other)


def test_prompts_of_a_file(llama: Path, tmp_path: Path):
    file = tmp_path / "prompts.txt"
    file.write_text(
        "# two\nAlice likes red . Bob likes blue .\n\nred blue green red likes\n", encoding="utf-8"
    )
    report = heads(llama, prompts=str(file), blocks=2)
    assert [prompt["tokens"] for prompt in report["prompts"]] == [8, 5]
    assert [prompt["blocks"] for prompt in report["prompts"]] == [2, 2]
    assert report["run"]["prompts"] == "prompts.txt"
    assert report["run"]["seed"] is None
    assert report["run"]["temperature"] == 1 / 8
    assert {head["on_target_float"] for head in every(report)} == {None}
    assert report["on_target"] == []
    prompts = read_prompts(file, encoder(llama), 2)
    layers = list(measure(load_checkpoint(llama), prompts, 1 / 8))
    shares = [(layer.entropy / torch.tensor([8.0, 5.0]).log()[:, None]).mean(0) for layer in layers]
    found = [head["entropy_share_float"] for head in every(report)]
    assert found == pytest.approx(torch.cat(shares).tolist(), rel=1e-5)  # six digits are shown
    Draft202012Validator(SCHEMA).validate(report)
    Page(html(report))


def test_the_temperature_is_used(llama: Path):
    cold, warm = (measured(llama, temperature=t) for t in (1e-4, 1e4))
    assert cold["run"]["temperature"] == 1e-4
    assert every(cold)[0]["swapped"] != every(warm)[0]["swapped"]


# ---- what is measured


def test_without_rotary_encoding_swapped_keys_are_symbolic_and_that_is_said(bert: Path):
    report = measured(bert)
    for head in every(report):
        # 1 up to rounding in the sixth digit shown
        assert head["swapped"]["symbolic_float"] == pytest.approx(1, abs=1e-6)
        assert head["swapped"]["centred_float"] == pytest.approx(-1, abs=1e-6)
        assert head["frequencies"] is None
    assert any(head["rerun"]["centred_float"] > -0.99 for head in every(report))
    assert any("symbolic by construction" in note for note in report["notes"])
    assert report["summary"]["swapped"]["correlation"] == {"spearman_float": None, "heads": 0}
    assert "Spearman" not in html(report)


def test_the_note_on_encodings_is_not_made_of_a_rotary_model(llama: Path):
    assert not any("by construction" in note for note in measured(llama)["notes"])


def test_numbers_are_in_their_ranges_and_obey_the_exclusion(llama: Path):
    for head in every(measured(llama)):
        assert 0 < head["entropy_share_float"] <= 1
        assert 0 < head["on_target_float"] < head["on_blocks_float"] < 1
        assert 0 < head["exclusion"]["variance_float"] <= head["exclusion"]["bound_float"]
        assert sum(head["frequencies"]["use_float"]) == pytest.approx(1, abs=1e-5)
        for mode in ("swapped", "rerun"):
            assert -1 <= head[mode]["centred_float"] <= 1
            assert 0 <= min(head[mode]["positional_float"], head[mode]["symbolic_float"]) <= 1


def test_the_mean_frequency_is_the_geometric_mean_by_use(llama: Path):
    report = measured(llama)
    for head in every(report):
        pairs = zip(head["frequencies"]["use_float"], report["frequencies_float"], strict=True)
        mean = math.exp(sum(use * math.log(theta) for use, theta in pairs))
        # the shown shares have six digits each
        assert head["frequencies"]["mean_float"] == pytest.approx(mean, rel=1e-4)


def test_attention_and_variance_are_those_of_the_last_token(llama: Path):
    report, checkpoint = measured(llama, count=1), load_checkpoint(llama)
    (prompt,) = report["prompts"]
    ids = torch.tensor(encoder(llama)(prompt["text"]))
    for layer, block in zip(report["layers"], hidden_states(checkpoint, ids), strict=True):
        logits = checkpoint.layers[block.layer].scores(block.attention_input)[:, -1]
        attention = logits.softmax(-1)
        expected = {
            "on_blocks_float": attention[:, slice(*prompt["span"])].sum(-1),
            "on_target_float": attention[:, prompt["target"]],
            "entropy_float": -(attention * attention.log()).sum(-1),
        }
        for number, head in enumerate(layer["heads"]):
            for key, values in expected.items():
                assert head[key] == pytest.approx(values[number].item(), rel=1e-5)  # six digits are shown
            variance = logits[number].var(correction=0).item()
            assert head["exclusion"]["variance_float"] == pytest.approx(variance, rel=1e-5)
            share = head["entropy_float"] / math.log(prompt["tokens"])
            assert head["entropy_share_float"] == pytest.approx(share, rel=1e-5)


def test_scores_are_means_over_the_prompts(llama: Path):
    report, checkpoint = measured(llama), load_checkpoint(llama)
    prompts = binding_prompts(encoder(llama), 3, 2, 0)
    for layer, found in zip(
        report["layers"], measure(checkpoint, prompts, report["run"]["temperature"]), strict=True
    ):
        for number, head in enumerate(layer["heads"]):
            for mode in ("swapped", "rerun"):
                for name in ("positional", "symbolic", "centred"):
                    values = getattr(getattr(found, mode), name)[:, number]
                    assert head[mode][f"{name}_float"] == pytest.approx(values.mean().item(), rel=1e-5)
                    logits = getattr(getattr(found, f"{mode}_logits"), name)[:, number].mean().item()
                    assert head[mode]["logits"][f"{name}_float"] == pytest.approx(logits, rel=1e-5)


def test_the_summary_is_that_of_the_heads(llama: Path):
    report = measured(llama)
    for mode in ("swapped", "rerun"):
        found = report["summary"][mode]
        kinds = [head[mode]["kind"] for head in every(report)]
        assert found["kinds"] == {kind: kinds.count(kind) for kind in KINDS}
        for kind in ("positional", "symbolic"):
            assert len(found[kind]) == min(5, kinds.count(kind))
            size = [abs(head["centred_float"]) * head["on_blocks_float"] for head in found[kind]]
            assert size == sorted(size, reverse=True)
        used = [head["frequencies"]["mean_float"] for head in every(report)]
        centred = [head[mode]["centred_float"] for head in every(report)]
        expected = stats.spearmanr(used, centred).statistic
        assert found["correlation"]["heads"] == 8
        assert found["correlation"]["spearman_float"] == pytest.approx(expected, abs=1e-5)


def test_the_heads_on_the_target_are_those_with_the_most_attention_there(llama: Path):
    report = measured(llama)
    most = sorted((head["on_target_float"] for head in every(report)), reverse=True)[:5]
    assert [head["on_target_float"] for head in report["on_target"]] == most
    for found in report["on_target"]:
        head = report["layers"][found["layer"]]["heads"][found["head"]]
        assert head["on_target_float"] == found["on_target_float"]


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ((1.0, 0.2, 1.0, 0.5), "positional"),
        ((0.9, 0.95, 0.5, 0.5), "positional"),
        ((0.2, 1.0, -1.0, 0.5), "symbolic"),
        ((0.95, 0.9, -0.5, 0.949), "symbolic"),
        ((0.95, 0.95, 0.49, 0.5), "both ways"),
        ((0.95, 0.95, -0.49, 0.5), "both ways"),
        ((0.89, 0.2, 0.9, 0.5), "mixed"),
        ((0.2, 0.89, -0.9, 0.5), "mixed"),
        ((0.95, 0.5, 0.4, 0.5), "mixed"),
        ((1.0, 0.2, 1.0, 0.95), "uniform"),
    ],
)
def test_kinds_at_their_thresholds(scores: tuple[float, float, float, float], kind: str):
    assert kind_of(*scores) == kind


def test_rank_correlations_are_those_of_scipy():
    first, second = [3.0, 1.0, 1.0, 7.0, 5.0, 1.0], [0.2, 0.2, -4.0, 9.0, 3.0, 8.0]
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0, 2.0], [1.0, 2.0]) is None


# ---- the page


def test_the_page_shows_the_numbers_of_every_head(llama: Path):
    report = measured(llama)
    source = html(report)
    page = Page(source)
    assert page.resources == []
    assert {"findings", "planes", "maps", "frequencies", "prompts", "model", "heads"} <= page.parts.keys()
    assert source.count("<tr>") == 1 + len(every(report))
    assert "prefers-color-scheme: dark" in source
    for layer in report["layers"]:
        for head in layer["heads"]:
            for mode in ("swapped", "rerun"):
                assert (
                    f"layer {layer['index']}, head {head['head']}, {mode}: {head[mode]['kind']}; " in source
                )


def test_the_page_of_a_model_without_frequencies_has_no_section_on_them(bert: Path):
    assert "frequencies" not in Page(html(measured(bert))).parts


def test_nothing_on_the_page_is_taken_for_markup(llama: Path):
    report = deepcopy(measured(llama))
    report["source"]["name"] = report["prompts"][0]["text"] = PLANTED
    source = html(report)
    assert PLANTED not in source
    Page(source)


def test_a_report_of_another_schema_is_refused(llama: Path):
    with pytest.raises(InputError, match="tokendyn-heads/0"):
        html({**measured(llama), "schema": "tokendyn-heads/0"})


def test_dots_and_curves_stand_where_their_numbers_say():
    """Frame 100 × 50, of x from 0 to 10 and y from −1 to 1: from the left and, as SVG counts, from above."""
    x, y = Axis("x", 0.0, 10.0, ()), Axis("y", -1.0, 1.0, ())
    curves = [Curve("middle", [(0.0, -1.0), (10.0, 1.0)])]
    dots = [Dot(0.0, -1.0, 0.0, "a"), Dot(10.0, 1.0, 1.0, "b"), Dot(5.0, 0.5, None, "c")]
    drawn = scatter(dots, x, y, "plot", size=(100.0, 50.0), curves=curves)
    found = re.findall(r'cx="(.*?)" cy="(.*?)" r=".*?" fill="(.*?)"', drawn)
    (left, bottom), (right, top), (middle, upper) = ((float(a), float(b)) for a, b, _ in found)
    assert (right - left, bottom - top) == (100, 50)
    assert (middle - left, bottom - upper) == (50, 37.5)
    assert [fill for *_, fill in found] == [to_hex(SEQUENTIAL(0.0)), to_hex(SEQUENTIAL(1.0)), "none"]
    assert f"M{found[0][0]} {found[0][1]}L{found[1][0]} {found[1][1]}" in drawn


def test_the_plane_has_the_positional_score_across_and_the_symbolic_one_upwards(llama: Path):
    """In the plane of all layers, swapped: from the ends of its axes, 0.04 beyond 0 and 1, to a tenth."""
    report = measured(llama)
    plane = html(report).split('aria-label="swapped, all layers"')[1].split("</svg>")[0]
    found = [(float(a), float(b)) for a, b in re.findall(r'cx="(.*?)" cy="(.*?)"', plane)]
    for (across, down), head in zip(found, every(report), strict=True):
        assert across == pytest.approx(
            46 + 230 * (head["swapped"]["positional_float"] + 0.04) / 1.08, abs=0.06
        )
        assert down == pytest.approx(8 + 230 * (1.04 - head["swapped"]["symbolic_float"]) / 1.08, abs=0.06)


@IN_A_BROWSER
def test_a_browser_sorts_the_table_and_has_nothing_to_complain_about(llama: Path, tmp_path: Path):
    page = tmp_path / "heads.html"
    page.write_text(html(measured(llama)), encoding="utf-8")
    done = browse(page, "--dump-dom")
    assert "CONSOLE" not in done.stderr
    assert done.stdout.count("<button") == done.stdout.count('<th scope="col"')


# ---- what is refused


def test_bad_input_is_refused_before_the_model_is_run(llama: Path, tmp_path: Path):
    assert "--mode" in refused(llama, "--mode", "sideways")
    assert "--blocks" in refused(llama, "--blocks", 4)
    assert "--html" in refused(llama, "--html", tmp_path / "nowhere" / "x.html")
    assert "--json" in refused(llama, "--json", tmp_path)
    assert "did you mean 'stories15m'" in refused("stories15").lower()
    assert "temperature" in refused(llama, "--count", 1, "--temperature", 0)
    assert "bindings" in refused(llama, "--bindings", 20)
    assert "prompts" in refused(llama, "--prompts", tmp_path / "none.txt")


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path):
    assert "tokenizer" in refused(save(tmp_path, "Llama", tokenizer=False, **SIZES))
