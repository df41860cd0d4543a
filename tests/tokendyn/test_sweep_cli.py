"""`tokendyn sweep` as a user meets it, and the documentation of its configuration."""

import doctest
import json
import re
import tomllib
from io import StringIO
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from rich.console import Console

from numerics.sweep import compute, make_plan, read_plan
from numerics.sweep_plan import NUMBERS, RUN, SHAPE
from tokendyn import sweep_text
from tokendyn.cli import main

DOCS = Path(__file__).parents[2] / "docs"
CONFIG = """
[run]
until = 0.2
chunk = 4
[grid]
n = [2, 3]
d = 1
response_positive = [0, 1]
replicas = 3
"""


def run(*arguments):
    return CliRunner().invoke(main, ["sweep", *(str(a) for a in arguments)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """(configuration, folder, output) of a sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    config = folder / "config.toml"
    config.write_text(CONFIG)
    return config, folder / "out", run(config, "--out", folder / "out", "--jobs", 1)


def test_a_sweep_prints_what_came_of_it_and_writes_the_table(done):
    config, out, result = done
    assert result.exit_code == 0, result.output
    assert "complete: 12 systems" in result.output
    assert result.output.startswith("computing 12 systems in 4 chunks\n")
    rows = [line for line in result.output.splitlines() if line.startswith("│ ")]
    assert len(rows) == 4
    assert "A₊" in result.output
    assert "W₊" not in result.output.split("λ")[0].split("the same for all")[0]
    assert "score_positive 1" in result.output
    assert pq.read_table(out / "table.parquet").num_rows == 12
    again = run(config, "--out", out)
    assert again.exit_code == 0
    assert "12 of 12 systems are there already" in again.output
    assert again.output.endswith(result.output[result.output.index("What came of the sweep") :])


def test_the_summary_needs_no_configuration_and_names_unfinished_chunks(done):
    config, out, result = done
    assert run(out, "--summary").output in result.output
    label, table = out / "chunks" / "000002.json", out / "table.parquet"
    text, rows = label.read_text(), table.read_bytes()
    label.unlink()
    assert run(out, "--summary").output in result.output  # the table is complete
    table.unlink()
    summary = run(config, "--out", out, "--summary")
    assert summary.exit_code == 0
    assert "8 of 12 systems; unfinished chunks: 2" in summary.output
    label.write_text("[]")
    summary = run(config, "--out", out, "--summary")
    assert "chunk 2 is damaged (its label is unreadable): to be computed again" in summary.output
    assert label.read_text() == "[]"
    label.write_text(text)
    table.write_bytes(rows)


def test_another_configuration_in_the_folder_is_refused(done, tmp_path):
    _, out, _ = done
    (tmp_path / "other.toml").write_text(CONFIG.replace("0.2", "0.3"))
    result = run(tmp_path / "other.toml", "--out", out)
    assert result.exit_code == 2
    assert "config.run.until was 0.2, is 0.3" in result.output
    assert "--new" in result.output
    result = run(tmp_path / "other.toml", "--out", out, "--new", "--jobs", 1)
    assert result.exit_code == 0
    assert "replaced/1" in result.output
    assert json.loads((out / "plan.json").read_text())["config"]["run"]["until"] == 0.3


def test_a_dry_run_writes_nothing(done, tmp_path):
    config, _, _ = done
    result = run(config, "--out", tmp_path / "out", "--dry-run", "--jobs", 2)
    assert result.exit_code == 0, result.output
    assert "12 systems of 2 shape(s) in 4 chunks of up to 4" in result.output
    assert "on 2 core(s)" in result.output
    assert "kB on disk" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (CONFIG.replace("replicas", "replica"), ["--out", "x"], "did you mean 'replicas'"),
        (CONFIG.replace("0.2", "nan"), ["--out", "x"], "positive time"),
        (CONFIG.replace("[2, 3]", "[]"), ["--out", "x"], "empty list"),
        (CONFIG, [], "--out FOLDER"),
        (CONFIG, ["--out", "config.toml/x"], "Not a directory"),
        (CONFIG, ["--summary"], "pass the FOLDER, or add --out FOLDER"),
        (CONFIG.replace("until", "untill"), ["--out", "x"], "did you mean 'until'?\n"),
        ("grid = ", ["--out", "x"], "TOML"),
    ],
)
def test_bad_input_ends_with_one_message_and_code_2(text, options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("config.toml").write_text(text)
    result = run("config.toml", *options)
    assert result.exit_code == 2
    assert result.output.startswith("tokendyn: ")
    assert message in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("jobs", [0, -3])
@pytest.mark.parametrize("mode", ["--dry-run", "--new"])
def test_numbers_of_processes_that_make_no_sense(jobs, mode, done, tmp_path):
    result = run(done[0], "--out", tmp_path / "out", "--jobs", jobs, mode)
    assert result.exit_code == 2
    assert "--jobs" in result.output
    assert "x>=1" in result.output


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(sweep_text.time, "monotonic", lambda: next(clock))
    stream = StringIO()
    with sweep_text.SweepProgress(Console(file=stream)) as progress:
        for done in (100, 200, 300, 400, 500, 600):
            progress.update(done, 600)
    assert stream.getvalue().splitlines() == [
        "100 of 600 systems are there already",
        "300 of 600 systems, about 60 s left",  # 100 systems took 20 s
        "500 of 600 systems, about 20 s left",
    ]


def test_help_reads_well():
    result = run("--help")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_the_documented_configurations_are_complete_and_work():
    text = (DOCS / "sweep.md").read_text(encoding="utf-8")
    grid, random = (tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL))
    assert set(grid["run"]) == set(RUN)
    assert set(grid["grid"]) == {*SHAPE, *NUMBERS, "replicas"}
    assert make_plan(grid).systems > 0
    assert make_plan(random).systems == 100_000
    for path in (DOCS / "sweeps").glob("*.toml"):
        assert read_plan(path).systems >= 10_000


def test_the_documented_columns_are_those_of_the_table():
    text = (DOCS / "sweep.md").read_text(encoding="utf-8")
    section = text.split("## The table")[1].split("```")[0]
    named = set(
        re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in section.splitlines() if "|" in line))
    )
    plan = make_plan(tomllib.loads(CONFIG))
    assert named - {"column"} | {*SHAPE, *NUMBERS} == set(compute(plan, plan.chunk(0)))


def test_the_documented_python_runs():
    assert doctest.testfile(str(DOCS / "sweep.md"), module_relative=False).failed == 0
