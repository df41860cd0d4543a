"""`tokendyn train`: a small synthetic grid from end to end, and the words for what it shows."""

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from scipy import stats

from numerics.training import make_grid, train
from numerics.training.loop import WEIGHTS
from paper_figures.fig_refinements import COLUMNS
from paper_figures.stored import read
from theory.definiteness import inertia
from theory.weights import rational_matrix
from tokendyn.cli import Commands
from tokendyn.train import audit_run, lock
from tokendyn.train import train as command
from tokendyn.train_text import UNRESOLVED, differences, interval, markdown

GRID = """
scenarios = ["unconstrained", "hd"]
seeds = [0, 1]
[tasks.synthetic-text]
encodings = ["absolute", "rotary+D"]
d_model = 8
heads = 2
layers = 2
context = 8
batch = 4
steps = 12
warmup = 2
evaluate_every = 6
evaluate = 16
checkpoint_every = 5
"""


def invoke(*arguments):
    return CliRunner().invoke(Commands(commands={"train": command}), ["train", *map(str, arguments)])


def rows(path):
    with Path(path).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_grid_is_trained_audited_and_told_and_a_rerun_changes_nothing(tmp_path):
    (tmp_path / "mini.toml").write_text(GRID)
    options = [
        tmp_path / "mini.toml",
        "--out",
        tmp_path / "runs",
        "--results",
        tmp_path / "results",
        "--device",
        "cpu",
    ]
    ran = invoke(*options, "--jobs", 1)
    assert ran.exit_code == 0, ran.output
    assert "[8/8]" in ran.output
    own = tmp_path / "results" / "training" / "mini"
    runs, layers, audited = (rows(own / f"{name}.csv") for name in ("runs", "layers", "audit"))
    assert len(runs) == 8
    assert len(layers) == 8 * 2 * 3 * 4  # start and end, three states, four metrics
    assert len(audited) == 8 * 2
    assert {row["signs"] for row in runs if row["scenario"] == "hd"} == {"HOLDS"}
    assert {row["signs"] for row in runs if row["scenario"] == "unconstrained"} == {""}
    for row in audited:
        if row["scenario"] == "hd":
            assert (row["w_positive"], row["a_positive"], row["a_negative"]) == ("8", "4", "4")
            assert row["w_grade"] in ("exact", "interval")
    curves = tmp_path / "results" / "refinements" / "mini.csv"
    columns = {"group": ("experiment",), "run": ("scenario", "encoding", "seed"), "point": ("metric", "step")}
    table = read([str(curves)], COLUMNS, **columns)
    assert set(table["scenario"]) == {"none", "hd"}
    test = next(r for r in runs if (r["scenario"], r["encoding"], r["seed"]) == ("hd", "rotary+D", "1"))
    place = (table["scenario"] == "hd") & (table["encoding"] == "rotary+D") & (table["seed"] == 1)
    place &= table["metric"] == "test bits per byte"
    assert table["value"][place].tolist() == [float(test["test"])]
    before = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.*")}
    assert len(before) == 6
    assert invoke(*options, "--jobs", 1).exit_code == 0
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(("scenario", "negative"), [("pd", 0), ("hd", 4), ("nd", 8)])
def test_the_audit_of_trained_weights_finds_the_imposed_signs(scenario, negative, tmp_path):
    """As exact arithmetic about the numbers in the file does, computed here another way: A = W V⁻¹ itself."""
    settings = {"d_model": 8, "heads": 2, "layers": 1, "context": 8, "batch": 4, "steps": 30, "evaluate": 4}
    tasks = {"synthetic-text": {**settings, "learning_rate": 0.01, "antisymmetric": "scores"}}
    (run,) = make_grid("test", {"scenarios": [scenario], "seeds": [0], "tasks": tasks}).runs
    train(run, tmp_path)
    (figures,) = audit_run(run, tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    query, key, value, output = (
        rational_matrix(name, weights[f"blocks.0.attention.{name}_proj.weight"].astype(float))
        for name in "qkvo"
    )
    scores = query.transpose() * key
    response = scores * (output * value).inv()
    for name, form, count in (("w", scores, 0), ("a", response, negative)):
        found, _ = inertia(form + form.transpose())
        assert (found.positive, found.negative) == (8 - count, count)
        assert (figures[f"{name}_positive"], figures[f"{name}_negative"]) == (8 - count, count)
    assert figures["signs"] == "HOLDS"


def test_intervals_are_students():
    numbers = [1.0, 1.4, 0.9, 2.0]
    low, high = stats.t.interval(0.95, 3, np.mean(numbers), stats.sem(numbers))
    found = interval(numbers)
    assert (found.mean - found.half, found.mean + found.half) == pytest.approx((low, high), rel=1e-6)
    assert np.isnan(interval([1.0]).half)


def table_of(tests, metric="bits per byte"):
    return [
        {
            "task": "t",
            "metric": metric,
            "scenario": scenario,
            "encoding": encoding,
            "seed": seed,
            "test": value,
        }
        for (scenario, encoding), values in tests.items()
        for seed, value in enumerate(values)
    ]


def test_differences_are_paired_by_seed_and_only_resolved_ones_have_a_winner():
    """The seeds differ by 1, the scenarios by 0.1: only pairing resolves that."""
    tests = {
        ("unconstrained", "absolute"): [2.0, 3.0, 4.0],
        ("nd", "absolute"): [1.9, 2.91, 3.89],
        ("pd", "absolute"): [2.1, 2.9, 4.0],
    }
    found = {(d.first, d.second): d for d in differences(table_of(tests))}
    assert found["nd", "unconstrained"].words == "nd is better"
    assert found["nd", "unconstrained"].interval.mean == pytest.approx(-0.1)
    assert found["pd", "unconstrained"].words == UNRESOLVED
    assert {("pd", "nd")} == found.keys() - {("nd", "unconstrained"), ("pd", "unconstrained")}  # no hd
    flipped = {(d.first, d.second): d for d in differences(table_of(tests, "accuracy (%)"))}
    assert flipped["nd", "unconstrained"].words == "unconstrained is better"


def test_one_seed_gives_no_interval_and_encodings_are_compared_in_order():
    tests = {
        ("nd", encoding): [value] for encoding, value in (("absolute", 2), ("rotary", 1), ("rotary+D", 3))
    }
    rows = table_of(tests)
    found = {(d.first, d.second): d for d in differences(rows)}
    assert found["rotary", "absolute"].interval.mean == -1
    assert found["rotary+D", "rotary"].words == "one seed: no interval"
    for row in rows:
        row.update(signs="", device="cpu")
    assert "| nd | 2.000 | 1.000 | 3.000 |" in markdown(rows, "test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tinny"], "did you mean 'tiny'"),
        (["tiny", "--device", "cuda:99"], "--device"),
        (["paper", "--device", "cpu"], "hours"),
    ],
)
def test_what_cannot_be_done_is_said_with_exit_code_2(arguments, message):
    ran = invoke(*arguments)
    assert ran.exit_code == 2
    assert message in ran.output


def test_a_plan_is_told_without_starting_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = invoke("tiny", "--dry-run", "--device", "cpu")
    assert ran.exit_code == 0
    assert "48 runs" in ran.output
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_for_one_process_at_a_time(tmp_path):
    (tmp_path / "mini.toml").write_text(GRID)
    with lock(tmp_path / "runs"):
        ran = invoke(tmp_path / "mini.toml", "--out", tmp_path / "runs", "--device", "cpu")
    assert ran.exit_code == 2
    assert "in use" in ran.output


def test_the_summary_has_the_tokens_after_the_last_block_at_the_end():
    rows = table_of({("nd", "absolute"): [1.0, 2.0]})
    for row in rows:
        row.update(signs="", device="cpu")
    layers = [
        {
            **row,
            "step": step,
            "state": state,
            "metric": metric,
            "value": f"{100 * step + state + row['seed']}",
        }
        for row in rows
        for step in (0, 9)
        for state in (0, 2, 1)
        for metric in ("sharpness", "cosine", "norm")
    ]
    text = markdown(rows, "test", layers)
    assert "| absolute | nd | 902.500 ± 6.353 | 902.500 ± 6.353 |" in text  # 902 and 903; t = 12.706
