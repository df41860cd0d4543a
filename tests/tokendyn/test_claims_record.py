"""Files of counterexamples: written, read and checked again; what was tampered with is refused."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import pytest
from flint import arb, ctx

from tests.tokendyn.test_claims_certify import ANTIPODES, IRRATIONAL, R1, SQUARE
from theory.errors import InputError
from tokendyn.claims import certify as certifying
from tokendyn.claims.certify import certify
from tokendyn.claims.claim import make_claim
from tokendyn.claims.genome import Genome
from tokendyn.claims.record import Counterexample, as_json, from_certificate, from_json, read, replay, write

PLAIN = {"conclude": "norm(x[i]) <= 1"}
ROW = tuple(map(Fraction, (1, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1)))


def _certified(entries, n, d, raw, time=0) -> Counterexample:
    claim = make_claim(entries)
    return from_certificate(claim, certify(claim, Genome(claim, n, d), raw, time), {"seed": 7})


def _at(tmp_path: Path, found: Counterexample) -> Path:
    write(tmp_path / "found.json", found)
    return tmp_path / "found.json"


def test_survives_its_file(tmp_path):
    found = _certified(
        {**PLAIN, "matrices": {"W": "any"}, "scalars": {"c": "> 0"}},
        2,
        2,
        (*ROW[:4], Fraction(1, 3), *ROW[4:]),
    )
    assert read(_at(tmp_path, found)) == found


def test_replays_to_fifty_digits(tmp_path):
    again = replay(read(_at(tmp_path, _certified(PLAIN, 2, 2, ROW))), digits=50)
    assert again.proved
    with ctx.workprec(300):
        assert arb(2).sqrt().str(50, radius=False) in again.lines[0]


def test_replays_a_later_time():
    found = _certified({"conclude": "norm(x[i]) <= 1 + t"}, 2, 2, (2, 0, 0, 2, 1, 0, 0, 1, 1, 0, 1, 0), 1)
    again = replay(found, digits=50)
    with ctx.workprec(300):  # equal tokens under one of W, V = 2I, I: |x(1)| = e or e²
        digits = {arb(k).exp().str(50, radius=False)[:50] for k in (1, 2)}
    assert any(text in again.lines[0] for text in digits)


def test_replays_the_long_run():
    again = replay(_certified(R1, 4, 2, SQUARE))
    assert again.hypotheses.holds
    assert again.certificate.kind == "lower"


def test_replays_as_long_as_it_takes(monkeypatch):
    found = _certified({"conclude": "norm(x[i]) <= 1 + t"}, 2, 2, (2, 0, 0, 2, 1, 0, 0, 1, 1, 0, 1, 0), 1)
    monkeypatch.setattr(certifying, "SECONDS", 0.0)
    assert replay(found, digits=5).proved


def _equilibrium() -> Counterexample:
    claim = make_claim(ANTIPODES)
    found = certify(claim, Genome(claim, 2, 2), IRRATIONAL, elsewhere=False, thorough=True)
    return from_certificate(claim, found)


@pytest.mark.parametrize("digits", [5, 12, 20, 50])
def test_replays_an_equilibrium(digits):
    found = from_json(as_json(_equilibrium()))
    assert replay(found, digits).certificate.kind == "equilibrium"


def test_refuses_a_start_beside_that_of_the_proof():
    """It is near the equilibrium, where no proof about it was found: it leaves."""
    found = _equilibrium()
    raw = (found.raw[0] + Fraction(1, 2**39), *found.raw[1:])
    with pytest.raises(InputError, match="no such proof"):
        replay(dataclasses.replace(found, raw=raw))


def test_refuses_a_start_far_from_the_equilibrium_found_from_it():
    claim = make_claim(
        {"conclude": "consensus", "sphere": True, "tokens": 2, "dimension": 2, "define": {"V": "diag(2, 1)"}}
    )
    raw = tuple(map(Fraction, ("1", "0", "0", "1", "-1/4", "1", "9/8", "1")))  # it reaches consensus
    seen = {"certificate": "equilibrium"}
    with pytest.raises(InputError, match="no such proof"):
        replay(Counterexample(claim, 2, 2, raw, Fraction(0), "interval", "", "", seen))


def _unproved(**entries) -> Counterexample:
    claim = make_claim(entries)
    return Counterexample(claim, 2, 2, ROW, Fraction(1), "float", "seen in floats", "grows", {})


def _seen(conclude: str) -> Counterexample:
    """Three heads with W = V = 1 on the line, tokens 1/2 and 1/4: about e^(3t), not followed in balls."""
    claim = make_claim({"conclude": conclude, "heads": 3, "dimension": 1})
    raw = (Fraction(1),) * 6 + (Fraction(1, 2), Fraction(1, 4))
    return Counterexample(claim, 2, 1, raw, Fraction(1), "float", "seen in floats", "grows", {})


def test_sees_again_what_is_not_proved():
    again = replay(_seen("norm(x[i]) <= 1 + t/100"), digits=30)
    assert not again.proved
    assert any(line.startswith("t = 1: norm(x[i]) = ") for line in again.lines)


def test_refuses_what_floats_do_not_see_again():
    with pytest.raises(InputError, match="no violation"):
        replay(_seen("norm(x[i]) <= 1 + exp(4*t)"))


def test_refuses_a_grade_that_is_better_than_the_proof():
    claim = make_claim({"conclude": "norm(x[i]) <= 1000"})
    with pytest.raises(InputError, match="no such proof"):
        replay(Counterexample(claim, 2, 2, ROW, Fraction(0), "exact", "", ""))
    found = _certified(PLAIN, 2, 2, ROW)  # |x_1| is the root of 2, which is enclosed
    assert found.grade == "interval"
    with pytest.raises(InputError, match="grade exact, and no such proof"):
        replay(dataclasses.replace(found, grade="exact"))


@pytest.mark.parametrize("time", ["-1", "1/2"])
def test_refuses_times_that_no_layer_has(time):
    found = _certified({**PLAIN, "step": "1"}, 2, 2, ROW)
    data = {**as_json(found), "time": time}
    del data["checksum"]
    with pytest.raises(InputError, match="a number of layers"):
        from_json(data)


@pytest.mark.parametrize("number", ["1e9999999", "1/0", "x", 1.5, "1" * 2000])
def test_refuses_numbers_that_it_does_not_write(number):
    data = as_json(_certified(PLAIN, 2, 2, ROW))
    data["raw"][0] = number
    del data["checksum"]
    with pytest.raises(InputError, match="a rational such as"):
        from_json(data)


def test_refuses_systems_outside_the_hypotheses():
    with pytest.raises(InputError, match=r"norm\(x\[1\]\) > 5"):
        replay(_unproved(conclude="X tends to 0", where=["norm(x[1]) > 5"]))


CHANGES = {
    "raw": lambda data: data["raw"].__setitem__(0, "2"),
    "time": lambda data: data.update(time="3"),
    "claim": lambda data: data["claim"].update(conclude="norm(x[i]) <= 2"),
    "n": lambda data: data.update(n=3),
    "grade": lambda data: data.update(grade="certain"),
    "format": lambda data: data.update(format="other"),
    "missing": lambda data: data.pop("reason"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_refuses_changed_files(name):
    data = json.loads(json.dumps(as_json(_certified(PLAIN, 2, 2, ROW))))
    CHANGES[name](data)
    with pytest.raises(InputError):
        from_json(data)


@pytest.mark.parametrize(
    "change",
    [{"raw": ["1"]}, {"raw": ["x"] * 12}, {"raw": 3}, {"n": 99}, {"n": "2"}, {"time": "1/0"}, {"seen": []}],
    ids=str,
)
def test_refuses_numbers_that_make_no_system(change):
    data = {**as_json(_certified(PLAIN, 2, 2, ROW)), **change}
    del data["checksum"]
    with pytest.raises(InputError):
        from_json(data)


@pytest.mark.parametrize("text", ["", "[]", "{}", "not json", '{"format": "tokendyn counterexample 1"}'])
def test_refuses_foreign_files(tmp_path, text):
    path = tmp_path / "foreign.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError):
        read(path)
    with pytest.raises(InputError, match="check the path"):
        read(tmp_path / "none.json")
