"""The main job: true statements stand, false variants and mutated sources do not."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

from theory import hypotheses
from theory.errors import InputError
from theory.instance import Instance
from theory.registry import statement, statements
from tokendyn.moment import from_instance
from tokendyn.probe import alarms, relative_gaps, replay, search, sweep
from tokendyn.registry import entries, rows
from tokendyn.verify import TRUE_STATEMENT, check_statement, trajectories, verify

ROOT = Path(__file__).parents[2]
SOME = ("L1", "L7", "T2", "T4", "T6b", "T8", "T12", "T14", "T16", "T17", "S1", "S3", "R1", "C1")
"""Of every kind and subject; `make verify`, which `make test` runs first, checks all."""
MUTATED = ("T1", "T2", "T3", "T4", "T5", "T17")


def _name(value):
    return getattr(value, "id", None)


@pytest.fixture(scope="module")
def report():
    return verify(SOME, samples=600, jobs=os.cpu_count() or 1)


def test_report_matches_its_schema(report):
    schema = json.loads((ROOT / "docs/verify_schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads(json.dumps(report, allow_nan=False)))


def test_statements_hold(report):
    assert report["verdict"] == "HOLDS"
    assert [r["id"] for r in report["statements"]] == list(SOME)
    assert all(r["problems"] == [] for r in report["statements"])


def test_every_planted_variant_is_caught_and_replays(report):
    for result in report["statements"]:
        assert result["planted"]
        for planted in result["planted"]:
            assert planted["caught"], (result["id"], planted["name"])
            assert replay(planted["counterexample"]).fails


def test_planted_variants_cover_every_hypothesis_and_inequality():
    for theorem in statements().values():
        names = " ".join(variant.name for variant in theorem.planted)
        assert all(h.key in names for h in theorem.hypotheses)
        assert all(c.name in names for c in theorem.claims if c.relation != "==")


def test_counterexamples_are_minimal():
    """Shrinking leaves few tokens, few dimensions and small numbers."""
    theorem, row = statement("T2"), rows()["T2"]
    variant = next(p for p in theorem.planted if p.drop == "W positive")
    found = search(theorem.plant(variant), row, variant, 2000, seed=0).counterexample
    assert found is not None
    assert (found.instance.tokens.nrows(), found.instance.weights.dim) == (1, 1)
    assert max(abs(q) for q in found.instance.tokens.entries()) == 1


def test_results_repeat_for_a_seed():
    first, second = (verify(["L3"], samples=300, seed=5) for _ in range(2))
    assert first == second


def test_processes_change_no_result():
    alone, shared = (verify(["L1", "L6"], samples=70, jobs=jobs) for jobs in (1, 2))
    assert alone == shared


@pytest.mark.parametrize(("theorem", "row"), entries(), ids=_name)
def test_random_sweeps_alone_refute_dropped_hypotheses_of_weights(theorem, row):
    """The floating-point sweep is driven by the hypotheses too: without one it finds a violation."""
    for variant in theorem.planted:
        if variant.drop and theorem.id in MUTATED and variant.drop != "left eigenvector":
            assert sweep(theorem.plant(variant), row, variant, 3000, seed=0).counterexample is not None


@pytest.mark.parametrize("identifier", ["T4", "T17"])
def test_trajectories_refute_a_wrong_rate(identifier):
    theorem, row = statement(identifier), rows()[identifier]
    assert all(c["agrees"] for c in trajectories(theorem, row, TRUE_STATEMENT, seed=0))
    wrong = next(p for p in theorem.wrong if "3" in p.name)
    assert not all(c["agrees"] for c in trajectories(theorem, row, wrong, seed=0))


def test_a_missed_planted_variant_fails_the_statement():
    """A 'planted variant' that is in fact true cannot be caught, and verify must say so."""
    theorem = statement("L3")
    harmless = replace(theorem.planted[0], name="no change", reverse="")
    result = check_statement(replace(theorem, wrong=(harmless,)), rows()["L3"], 60, seed=0)
    assert result["verdict"] == "FAILS"
    assert result["problems"] == ["planted variant not caught: no change"]


def test_a_false_statement_fails_with_a_certified_counterexample():
    theorem = statement("L1")
    false = replace(theorem, claims=tuple(replace(c, reverse=True) for c in theorem.claims))
    result = check_statement(false, rows()["L1"], 60, seed=0)
    assert result["verdict"] == "FAILS"
    assert any("certified counterexample" in problem for problem in result["problems"])


def test_a_claim_that_is_false_only_in_higher_dimension_is_refuted():
    """The exact probe stops at d = 3; random systems reach further, and their alarms are decided."""
    theorem, row = statement("T17"), rows()["T17"]

    def too_fast(e):
        doubled = 2 if e.d >= 4 else 1
        return [(left, doubled * right) for left, right in theorem.claim("no token lags").sides(e)]

    def too_fast_in_floats(moment):
        left, right = row.sides["no token lags"](moment)
        return left, (2 if moment.x.shape[2] >= 4 else 1) * right

    claims = tuple(replace(c, sides=too_fast) if c.name == "no token lags" else c for c in theorem.claims)
    false_row = replace(row, sides={**row.sides, "no token lags": too_fast_in_floats})
    found = sweep(replace(theorem, claims=claims), false_row, TRUE_STATEMENT, 700, seed=0).counterexample
    assert found is not None
    assert found.instance.weights.dim >= 4


def test_an_equality_case_claimed_strictly_is_not_called_true():
    """Equal tokens attain the bound, so ">" is false there; balls cannot tell, and it stays open."""
    theorem, row = statement("T17"), rows()["T17"]
    claims = tuple(replace(c, relation=">") if c.name == "no token lags" else c for c in theorem.claims)
    found = sweep(replace(theorem, claims=claims), row, TRUE_STATEMENT, 700, seed=0)
    assert found.counterexample is not None or found.open_alarms > 0


def test_a_float_result_that_is_not_a_number_raises_an_alarm():
    """Scores of tokens near 1e200 overflow; the exact half must look at such a system."""
    row, claim = rows()["L1"], statement("L1").claim("excess is non-negative")
    moment = from_instance(Instance.of(score=[[1]], value=[[1]], tokens=[[1e200], [-1e200]]))
    assert alarms(claim, relative_gaps(row, claim, moment)).all()


def _variable(key: str) -> str:
    return next(n for n, v in vars(hypotheses).items() if getattr(v, "key", None) == key)


def _mutate(folder: Path, identifier: str, key: str) -> None:
    """Delete one hypothesis from the source of one theorem."""
    source = next(
        p for p in (folder / "theory/theorems").glob("*.py") if f'id="{identifier}"' in p.read_text()
    )
    before, after = source.read_text().split(f'id="{identifier}"')
    line = re.search(r"hypotheses=\((.*?)\),\n", after, flags=re.DOTALL)
    kept = [name for name in re.findall(r"\w+", line[1]) if name != _variable(key)]
    assert len(kept) == len(re.findall(r"\w+", line[1])) - 1
    mutated = after.replace(line[0], f"hypotheses=({', '.join(kept)},),\n", 1)
    source.write_text(before + f'id="{identifier}"' + mutated)


@pytest.mark.parametrize(
    ("identifier", "key"), [(i, h.key) for i in MUTATED for h in statement(i).hypotheses]
)
def test_removing_a_hypothesis_from_the_source_makes_verify_fail(tmp_path, identifier, key):
    shutil.copytree(ROOT / "theory", tmp_path / "theory", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("numerics", "tokendyn"):  # links, so that what Numba has compiled is found
        (tmp_path / package).symlink_to(ROOT / package)
    _mutate(tmp_path, identifier, key)
    command = [sys.executable, "-c", "from tokendyn.cli import main; main()", "verify", identifier]
    done = subprocess.run(
        [*command, "--samples", "1200", "--json", "report.json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (result,) = json.loads((tmp_path / "report.json").read_text())["statements"]
    assert not result["derivation"]["holds"]
    assert result["sweep"]["counterexample"] or result["probe"]["counterexample"]


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ({"identifiers": ["T99"]}, "id"),
        ({"samples": 0}, "samples"),
        ({"jobs": 0}, "jobs"),
        ({"device": "no-such-device"}, "device"),
    ],
)
def test_bad_input(arguments, argument):
    with pytest.raises(InputError) as caught:
        verify(**arguments)
    assert caught.value.argument == argument
