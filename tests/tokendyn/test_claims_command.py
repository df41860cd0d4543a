"""`tokendyn probe`, `replay` and `claims` as a user meets them: output, exit codes, files, bad input."""

import json
from pathlib import Path

import pytest
from flint import arb, ctx

from tests.commands import refused, run
from tokendyn.claims.claim import make_claim
from tokendyn.claims.command import library
from tokendyn.claims.record import Counterexample, as_json, read

SMALL = 'title = "Tokens [stay] small"\nconclude = "norm(x[i]) <= 1"\n'


def one_line(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture
def file(tmp_path: Path):
    """Write a claim; returns its path."""

    def _file(text: str, name: str = "claim.toml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return _file


# Probe and replay


def test_a_refuted_claim_from_its_file_to_its_replay(file, tmp_path):
    out, report = tmp_path / "found.json", tmp_path / "report.json"
    result = run("probe", file(SMALL), "--time", 60, "--out", out, "--json", report)
    assert result.exit_code == 1, result.output
    said = one_line(result.stdout)
    assert "Tokens [stay] small: norm(x[i]) <= 1" in said  # no markup is made of brackets
    assert "REFUTED (exact: proved in exact arithmetic)" in said
    assert "tokens = [[" in said
    assert "seed 0" in said
    data = json.loads(report.read_text("utf-8"))
    assert (data["verdict"], data["grade"], data["seed"]) == ("REFUTED", "exact", 0)
    assert data["claim"]["conclude"] == "norm(x[i]) <= 1"
    assert 0 < data["systems"] == sum(data["sizes"].values())
    again = run("replay", out, "--digits", 50)
    assert again.exit_code == 0, again.output
    assert "exact: proved again" in one_line(again.stdout)
    assert "Tokens [stay] small" in again.stdout


def test_replay_shows_fifty_digits(tmp_path):
    claim = make_claim({"conclude": "norm(x[i]) <= 1", "dimension": 2})
    raw = (1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1)
    found = Counterexample(claim, 2, 2, raw, 0, "interval", "by hand", "norm(x[1]) = sqrt(2)")
    path = tmp_path / "found.json"
    path.write_text(json.dumps(as_json(found)), encoding="utf-8")
    for digits in (20, 50):
        with ctx.workprec(300):
            root = arb(2).sqrt().str(digits, radius=False)
        result = run("replay", path, "--digits", digits)
        assert result.exit_code == 0, result.output
        assert root in "".join(result.stdout.split())


def test_replay_refuses_what_is_no_counterexample(tmp_path):
    claim = make_claim({"conclude": "norm(x[i]) <= 1000", "dimension": 2})
    raw = (1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1)
    path = tmp_path / "found.json"
    data = as_json(Counterexample(claim, 2, 2, raw, 0, "exact", "", ""))
    path.write_text(json.dumps(data), encoding="utf-8")
    assert "no such proof" in refused("replay", path)
    path.write_text(json.dumps({**data, "n": 3}), encoding="utf-8")
    assert "checksum" in refused("replay", path)
    path.write_text(json.dumps(data), encoding="utf-8")
    assert "digits" in refused("replay", path, "--digits", 0)


def test_the_same_seed_the_same_counterexample(file, tmp_path):
    claim, rows = file(SMALL), []
    for seed in (1, 1, 2):
        out = tmp_path / "found.json"
        assert run("probe", claim, "--seed", seed, "--out", out).exit_code == 1
        rows.append(read(out))
    assert rows[0] == rows[1]
    assert [row.seen["seed"] for row in rows] == [1, 1, 2]


def test_a_claim_that_stands(tmp_path):
    out, report = tmp_path / "found.json", tmp_path / "report.json"
    result = run(
        "probe", "tokens_move_apart_in_the_response_metric", "--time", 2, "--out", out, "--json", report
    )
    assert result.exit_code == 0, result.output
    said = one_line(result.stdout)
    assert "NOT REFUTED, which proves nothing" in said
    assert "smallest margin" in said
    assert "systems with the hypotheses" in said
    assert not out.exists()
    data = json.loads(report.read_text("utf-8"))
    assert data["grade"] is None
    assert data["largest_violation"] < 1e-5  # what the search calls a violation of a trend
    assert set(data["largest_at"]) == {"n", "d", "raw"}


def test_a_margin_that_only_rounding_makes_negative_is_explained(file):
    big = 10**7
    claim = file(f'conclude = "({big} + x[1][1])**2 - {big}**2 - 2*{big}*x[1][1] == x[1][1]**2"')
    result = run("probe", claim, "--time", 1)
    assert result.exit_code == 0, result.output
    assert "neither proved nor confirmed" in one_line(result.stdout)


def test_a_vacuous_claim(file, tmp_path):
    text = (
        'conclude = "X tends to 0"\nwhere = ["eigmin(W) > 1", "eigmax(W) < 0"]\n[matrices]\nW = "symmetric"\n'
    )
    result = run("probe", file(text), "--time", 1, "--json", tmp_path / "report.json")
    assert result.exit_code == 3, result.output
    assert "VACUOUS" in result.stdout
    assert "the nearest misses one by" in one_line(result.stdout)
    assert json.loads((tmp_path / "report.json").read_text("utf-8"))["verdict"] == "VACUOUS"


def test_a_conclusion_about_more_tokens_than_there_are(file):
    assert "at least 4 tokens" in refused("probe", file('conclude = "at most 3 clusters"\ntokens = 2\n'))


def test_yaml_says_the_same(file):
    claim = file('title: "Tokens [stay] small"\nconclude: "norm(x[i]) <= 1"\n', "claim.yaml")
    yaml, toml = (run("probe", path, "--time", 60) for path in (claim, file(SMALL)))
    assert yaml.exit_code == toml.exit_code == 1
    assert yaml.stdout.splitlines()[:6] == toml.stdout.splitlines()[:6]


# Bad input

BAD = {
    "an unknown entry": ('conclud = "norm(x[i]) <= 1"', "did you mean 'conclude'?"),
    "an unknown name": ('conclude = "norm(gamma) <= 1"\n[vectors]\ngama = "any"', "did you mean gama?"),
    "a token that is not there": ('conclude = "norm(x[9]) <= 1"', "x[9]"),
    "a coordinate that is not there": ('conclude = "x[1][9] <= 1"', "ask for more dimensions"),
    "a vector in place of a number": ('conclude = "x[i] tends to 0"', "got x[i]; expected a number"),
    "a number in place of a matrix": ('conclude = "X tends to 0"\n[define]\nV = "-1"', "eye(d)"),
    "no TOML": ("conclude: X", "see docs/claims.md"),
    "no conclusion": ('title = "nothing"', "conclude"),
    "a function": ('conclude = "frob(W) <= 1"', "frob"),
    "an unknown property": (
        'conclude = "X tends to 0"\n[matrices]\nW = "postive definite"',
        "positive definite",
    ),
    "definitions in a circle": ('conclude = "a <= 1"\n[define]\na = "b_"\nb_ = "a"', "circle"),
    "a range": ('conclude = "X tends to 0"\ntokens = [3, 99]', "tokens"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_claims_are_refused_with_a_fix(name, file):
    text, hint = BAD[name]
    assert hint in refused("probe", file(text), "--time", 1)


def test_files_that_cannot_be_used(file, tmp_path):
    assert "tokendyn claims" in refused("probe", tmp_path / "none.toml")
    assert "--out" in refused("probe", file(SMALL), "--out", tmp_path / "no" / "found.json")
    assert "--json" in refused("probe", file(SMALL), "--json", tmp_path)
    assert "probe --out" in refused("replay", file("[]", "list.json"))


@pytest.mark.parametrize("option", [("--time", "0"), ("--seed", "x"), ("--nothing",)], ids=str)
def test_bad_options(option, file):
    assert run("probe", file(SMALL), *option).exit_code == 2


# The library


def test_the_library_is_listed_with_whole_names():
    result = run("claims")
    assert result.exit_code == 0, result.output
    for name in library():
        assert name in result.stdout
    assert "registry, T14" in one_line(result.stdout)


def test_a_claim_is_found_by_its_name():
    result = run("probe", "every_token_diverges", "--time", 60)
    assert result.exit_code == 1, result.output
    assert "makes every token diverge" in one_line(result.stdout)
