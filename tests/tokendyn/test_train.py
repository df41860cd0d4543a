"""`tokendyn train`: a small synthetic grid from end to end, and the words for what it shows."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file
from scipy import stats

from numerics.training import make_grid, train
from numerics.training.loop import WEIGHTS
from paper_figures import fig_canonical_tasks
from paper_figures.fig_refinements import COLUMNS
from paper_figures.stored import read
from theory.definiteness import inertia
from theory.weights import rational_matrix
from tokendyn.cli import Commands
from tokendyn.train import audit_run, lock
from tokendyn.train import train as command
from tokendyn.train_canonical import ends_minus_middle
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


# Canonical tasks

CANONICAL = """
seeds = [0, 1]
[tasks.index]
positions = 3
symbols = 3
d_model = 4
batch = 4
steps = 8
warmup = 2
evaluate = 8
frequencies = [0, 1, [0, 1]]
[tasks."partial induction"]
positions = 3
symbols = 3
d_model = 4
batch = 4
steps = 8
warmup = 2
evaluate = 8
frequencies = [0.5]
"""


@pytest.fixture
def canonical(tmp_path):
    """Runs the small grid into these folders, and returns its tables by name with their bytes."""
    (tmp_path / "mini.toml").write_text(CANONICAL)

    def run(out, results, jobs=1):
        places = ["--out", tmp_path / out, "--results", tmp_path / results]
        ran = invoke(tmp_path / "mini.toml", *places, "--jobs", jobs, "--device", "cpu")
        assert ran.exit_code == 0, ran.output
        found = [path for path in (tmp_path / results).rglob("*") if path.is_file()]
        return ran.output, {path.relative_to(tmp_path / results).as_posix(): path for path in found}

    return run


def test_canonical_tasks_are_trained_and_told_and_their_table_is_what_the_figure_reads(canonical):
    output, files = canonical("runs", "results")
    assert {"canonical_tasks/mini.csv"} | {
        f"training/mini/{name}" for name in ("runs.csv", "summary.md", "config.json")
    } == set(files)
    assert "[8/8]" in output
    keys = {"group": ("task",), "run": ("frequencies", "removed", "seed"), "point": ("position",)}
    table = read([str(files["canonical_tasks/mini.csv"])], fig_canonical_tasks.COLUMNS, **keys)
    assert set(zip(table["task"], table["frequencies"], table["removed"], strict=True)) == {
        ("index", "0", 0),
        ("index", "1", 0),
        *(("index", "0+1", removed) for removed in (0, 1, 2)),
        ("partial induction", "0.5", 0),
    }
    runs = rows(files["training/mini/runs.csv"])
    assert len(runs) == 8
    for row in runs:
        own = table["task"] == row["task"]
        own &= (table["frequencies"] == row["frequencies"]) & (table["removed"] == 0)
        own &= table["seed"] == int(row["seed"])
        assert float(row["accuracy"]) == pytest.approx(table["accuracy"][own].mean(), abs=1e-5)
    summary = files["training/mini/summary.md"].read_text()
    assert "without 0: " in summary
    assert "can expect more than 63.0 %" in summary  # 17/27 = E max count / n by hand, for n = 3, 3 symbols
    assert "can expect more than 50.0 %" in summary


def test_a_canonical_grid_that_was_cut_off_ends_alike_with_any_number_of_processes(canonical, tmp_path):
    _, files = canonical("runs", "results")
    before = {name: path.read_bytes() for name, path in files.items()}
    cut = tmp_path / "runs" / "index-1-1"
    kept = (tmp_path / "runs" / "index-2-0" / "done.json").stat().st_mtime_ns
    (cut / "done.json").rename(cut / "done.json.part")  # as a kill in the middle of writing leaves it
    shutil.rmtree(tmp_path / "runs" / "partial-induction-1-0")
    for out, results, jobs in (("runs", "results", 1), ("other", "elsewhere", 2)):
        _, files = canonical(out, results, jobs)
        assert {name: path.read_bytes() for name, path in files.items()} == before
    assert (tmp_path / "runs" / "index-2-0" / "done.json").stat().st_mtime_ns == kept


def test_ends_are_compared_with_the_middle_half():
    by_position = dict(enumerate([0.9, 0.1, 0.2, 0.4, 0.6, 0.8, 0.1, 0.5], 1))
    assert ends_minus_middle(by_position) == pytest.approx(0.7 - 0.5)
    assert ends_minus_middle({at: float(at in (4, 9)) for at in range(1, 13)}) == pytest.approx(-2 / 6)


def test_the_plan_of_canonical_tasks_is_told_without_starting_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = invoke("canonical", "--dry-run", "--device", "cpu")
    assert ran.exit_code == 0
    assert "255 runs" in ran.output
    assert list(tmp_path.iterdir()) == []


def test_canonical_tasks_do_not_share_batches_and_say_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = invoke("canonical", "--device", "cpu")
    assert ran.exit_code == 2
    assert "--jobs" in ran.output
