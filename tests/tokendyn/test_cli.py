"""The command line as a user meets it: output, exit codes, and errors that name the fix."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from theory.registry import statements
from tokendyn.cli import main

ROTATION = np.array([[0.5, -(3**0.5) / 2], [3**0.5 / 2, 0.5]])  # by 60°


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture
def save(tmp_path):
    """Save Q, K, V as .npy files; returns the options that name them."""

    def _save(query, key, value):
        options = []
        for name, matrix in (("query", query), ("key", key), ("value", value)):
            np.save(tmp_path / f"{name}.npy", matrix)
            options += [f"--{name}", tmp_path / f"{name}.npy"]
        return options

    return _save


def lines_about(output: str, identifier: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"│ {identifier} "))


@pytest.mark.parametrize(
    "command", ["", "verify", "theorems", "notation", "show", "book", "check", "audit", "replay"]
)
def test_help_reads_well(command):
    result = run(*([command] if command else []), "--help")
    assert result.exit_code == 0
    assert result.output.startswith("Usage:")
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_verify_prints_the_table_and_writes_the_report(tmp_path):
    target = tmp_path / "report.json"
    result = run("verify", "l1", "T8", "--samples", 60, "--json", target)
    assert result.exit_code == 0, result.output
    assert "HOLDS" in lines_about(result.output, "L1")
    assert "2/2" in lines_about(result.output, "T8")
    report = json.loads(target.read_text())
    assert [r["id"] for r in report["statements"]] == ["L1", "T8"]
    assert run("replay", target).exit_code == 0


def test_replay_takes_one_counterexample_and_refuses_altered_ones(tmp_path):
    report = tmp_path / "report.json"
    run("verify", "T8", "--samples", 60, "--json", report)
    planted = json.loads(report.read_text())["statements"][0]["planted"]
    one = next(p["counterexample"] for p in planted if "without" in p["name"])
    (tmp_path / "one.json").write_text(json.dumps(one))
    assert "refuted again" in run("replay", tmp_path / "one.json").output
    harmless = {**one, "tokens": [["1"], ["-1"], ["0"]], "score": [["1"]], "value": [["1"]]}
    (tmp_path / "other.json").write_text(json.dumps(harmless))
    assert run("replay", tmp_path / "other.json").exit_code == 1


@pytest.mark.parametrize(
    "change", [{"value": [["7"]]}, {"parameters": {"rate": [["1"]]}}, {"parameters": {"speed": [["1"]]}}]
)
def test_replay_refuses_an_inconsistent_counterexample(tmp_path, change):
    report = tmp_path / "report.json"
    run("verify", "L5", "--samples", 60, "--json", report)
    one = json.loads(report.read_text())["statements"][0]["planted"][1]["counterexample"]
    (tmp_path / "one.json").write_text(json.dumps({**one, **change}))
    assert run("replay", tmp_path / "one.json").exit_code == 2


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        '{"statements": []}',
        '{"theorem": "T8"}',
        '{"theorem": "T8", "planted": "no such", "claim": "x"}',
    ],
)
def test_replay_refuses_what_it_does_not_know(tmp_path, content):
    (tmp_path / "file.json").write_text(content)
    result = run("replay", tmp_path / "file.json")
    assert result.exit_code == 2
    assert "Fix:" in result.output


def test_theorems_lists_every_statement():
    result = run("theorems")
    assert result.exit_code == 0
    assert all(f"\n{identifier}  " in f"\n{result.output}" for identifier in statements())


def test_notation_explains_every_symbol_of_the_flow():
    result = run("notation")
    assert result.exit_code == 0
    assert all(symbol in result.output for symbol in ("W = QᵀK/√", "ẋᵢ = Vmᵢ", "A = WV⁻¹", "κₙ", "ℓ"))


@pytest.mark.parametrize("style", ["text", "markdown", "latex", "html"])
def test_show(style):
    result = run("show", "t2", "--format", style)
    assert result.exit_code == 0
    assert "Khalil" in result.output


def test_check_on_the_rotation_of_t7(save):
    result = run("check", *save(np.eye(2), ROTATION, -ROTATION @ ROTATION), "--scale", 1)
    assert result.exit_code == 3
    second = lines_about(result.output, "T2")
    assert "UNDECIDED" in second
    assert "'A symmetric' FAILS (exact" in second
    sixth = lines_about(result.output, "T6")
    assert "HOLDS" in sixth
    assert "exact" in sixth or "interval" in sixth
    assert "not convergent from every start" in sixth


def test_check_holds_for_chosen_statements_and_integers_are_exact(save):
    options = save(np.eye(2, dtype=int), np.array([[2, 1], [1, 2]]), -np.array([[2, 1], [1, 2]]))
    result = run("check", "T2", "T5", *options)
    assert result.exit_code == 0, result.output
    assert "X(t) → 0 from every start" in lines_about(result.output, "T2")
    assert " T6 " not in result.output


def test_check_of_floats_symmetric_to_rounding_is_undecided(save):
    """A = WV⁻¹ is symmetric only to rounding: neither HOLDS nor FAILS, and the message says so."""
    rng = np.random.default_rng(0)
    W, A = (m @ m.T / 3 + np.eye(3) for m in rng.normal(size=(2, 3, 3)))
    result = run("check", "T3", *save(np.eye(3), W, np.linalg.solve(A, W)))
    assert result.exit_code == 3, result.output
    assert "'A symmetric' UNDECIDED" in lines_about(result.output, "T3")
    assert "rounding of the stored floats" in result.output.replace("\n", " ")


def test_check_of_a_singular_value_map_names_what_still_applies(save):
    result = run("check", *save(np.eye(2), np.eye(2), np.diag([1.0, 0.0])))
    assert result.exit_code == 3
    assert "V is singular" in result.output
    assert "UNDECIDED" in lines_about(result.output, "T2")
    assert "HOLDS" in lines_about(result.output, "T17")


def test_check_in_one_dimension(save):
    result = run("check", "T2", *save([[1.0]], [[2.0]], [[-3.0]]))
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("query", "key", "value", "argument"),
    [
        (np.eye(2), np.eye(3), np.eye(2), "key"),
        (np.eye(2), np.eye(2), np.eye(3), "value"),
        (np.eye(2), np.eye(2), np.ones((2, 3)), "value"),
        (np.ones(2), np.eye(2), np.eye(2), "query"),
        (np.ones((0, 2)), np.ones((0, 2)), np.eye(2), "query"),
        (np.eye(2), np.full((2, 2), np.nan), np.eye(2), "key"),
        (np.eye(2), np.eye(2), np.full((2, 2), np.inf), "value"),
        (np.eye(2) * 1j, np.eye(2), np.eye(2), "query"),
        (np.array([["a"]]), np.eye(1), np.eye(1), "query"),
    ],
)
def test_check_refuses_bad_matrices(save, query, key, value, argument):
    result = run("check", *save(query, key, value))
    assert result.exit_code == 2
    assert result.output.startswith(f"tokendyn: {argument}: got ")
    assert "expected" in result.output
    assert "Fix:" in result.output


def _missing(path: Path) -> None:
    pass


def _text(path: Path) -> None:
    path.write_text("1 2\n3 4\n")


def _truncated(path: Path) -> None:
    np.save(path, np.eye(50))
    path.write_bytes(path.read_bytes()[:200])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _pickled(path: Path) -> None:
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)


def _archive(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, a=np.eye(2))


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_missing, _text, _truncated, _empty, _pickled, _archive, _folder])
def test_check_refuses_unreadable_files(tmp_path, save, make):
    options = save(np.eye(2), np.eye(2), np.eye(2))
    bad = tmp_path / "bad.npy"
    make(bad)
    result = run("check", *options, "--value", bad)
    assert result.exit_code == 2
    assert result.output.startswith("tokendyn: value: got ")
    assert "numpy.save" in result.output


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf"])
def test_check_refuses_a_scale_that_is_not_positive(save, scale):
    result = run("check", *save(np.eye(2), np.eye(2), np.eye(2)), "--scale", scale)
    assert result.exit_code == 2
    assert "scale: got" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "T99"], "id: got 'T99'"),
        (["verify", "--samples", "0"], "samples: got 0"),
        (["verify", "--device", "abacus"], "device: got 'abacus'"),
        (["verify", "--json", "no/such/folder/report.json"], "--json: got"),
        (["show", "T2", "--format", "papyrus"], "format: got 'papyrus'"),
        (["show", "X1"], "id: got 'X1'"),
        (["audit", "no-such-file.bin"], "path: got"),
        (["nonsense"], "No such command"),
        (["check"], "Missing option"),
    ],
)
def test_bad_usage_is_exit_code_2_with_a_message(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(("raised", "code"), [(RuntimeError("odd"), 70), (KeyboardInterrupt(), 130)])
def test_a_defect_or_an_interrupt_is_not_taken_for_a_statement_that_fails(monkeypatch, raised, code):
    def broken():
        raise raised

    monkeypatch.setattr("tokendyn.cli.statements", broken)
    result = run("theorems")
    assert result.exit_code == code
    assert ("interrupted" if code == 130 else "RuntimeError: odd") in result.stderr


def test_nothing_is_written_when_the_input_is_bad(tmp_path):
    target = tmp_path / "report.json"
    assert run("verify", "T99", "--json", target).exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_check_of_a_start_only_statement_is_refused(save):
    result = run("check", "T8", *save(np.eye(2), np.eye(2), np.eye(2)))
    assert result.exit_code == 2
    assert "hypotheses on the weights" in result.output
