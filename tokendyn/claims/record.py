"""Counterexamples as files: everything needed to check one anywhere, and the check."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from flint import ctx

from theory.errors import InputError
from theory.verdict import Verdict
from tokendyn.claims.certify import Certificate, certify
from tokendyn.claims.claim import Claim, make_claim
from tokendyn.claims.confirm import confirmed_exactly
from tokendyn.claims.exact import rational
from tokendyn.claims.flow import bits_for, integrated
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import Judge
from tokendyn.claims.language import LanguageError, assignments
from tokendyn.claims.laws import shown
from tokendyn.claims.system import ExactSystem, State, hypotheses

FORMAT = "tokendyn counterexample 1"
GRADES = ("exact", "interval", "float")
ENTRIES = ("format", "claim", "n", "d", "raw", "time", "grade", "reason", "violation", "seen")
NUMBER = re.compile(r"-?\d{1,1000}(/0{0,999}[1-9]\d{0,999})?")
HORIZON = (Fraction(1, 10), Fraction(1, 2), Fraction(1))


@dataclass(frozen=True)
class Counterexample:
    """A system that refutes its claim: n tokens in dimension d made of the raw row, at a time (a layer).

    grade: "exact" or "interval" if proved, "float" if only seen in floating point.
    For statements about the long run `time` is how far it was followed. `seen`: what else is worth keeping,
    such as the kind of certificate, the seed, and what the floats gave.
    """

    claim: Claim
    n: int
    d: int
    raw: tuple[Fraction, ...]
    time: Fraction
    grade: str
    reason: str
    violation: str
    seen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Replay:
    """What a check found: the hypotheses, the certificate (None without one), and the quantities compared.

    `lines` show both sides to the wanted digits, which are proved with the certificate only. `proved`: it was
    found again; without one, floats saw the violation again.
    """

    hypotheses: Verdict
    certificate: Certificate | None
    lines: tuple[str, ...]

    @property
    def proved(self) -> bool:
        return self.certificate is not None


def from_certificate(
    claim: Claim, found: Certificate, seen: Mapping[str, Any] | None = None
) -> Counterexample:
    """The counterexample that a certificate is about."""
    kept = {**(seen or {}), "certificate": found.kind}
    return Counterexample(
        claim, found.n, found.d, found.raw, found.time, found.grade, found.reason, found.violation, kept
    )


def as_json(found: Counterexample) -> dict[str, Any]:
    """Plain data, the numbers as text, with a checksum of them."""
    data = {
        "format": FORMAT,
        "claim": found.claim.describe(),
        "n": found.n,
        "d": found.d,
        "raw": [str(entry) for entry in found.raw],
        "time": str(found.time),
        "grade": found.grade,
        "reason": found.reason,
        "violation": found.violation,
        "seen": dict(found.seen),
    }
    return {**data, "checksum": _checksum(data)}


def _checksum(data: Mapping[str, Any]) -> str:
    """Of the claim and the numbers."""
    kept = {name: data[name] for name in ("claim", "n", "d", "raw", "time")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def write(path: str | Path, found: Counterexample) -> None:
    """Raises InputError where the file cannot be written."""
    text = json.dumps(as_json(found), indent=2, ensure_ascii=False) + "\n"
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _error(f"{path}: {error.strerror}", "a file that can be written", "check the folder") from error


def read(path: str | Path) -> Counterexample:
    """The counterexample in a file. InputError for anything else, and where its numbers were changed."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _error(f"{path}: {error.strerror}", "a counterexample's file", "check the path") from error
    except ValueError as error:
        raise _error(
            f"{path}: {error}", "JSON written by `tokendyn probe --out`", "give that file"
        ) from error
    return from_json(data)


def from_json(data: Any) -> Counterexample:
    """Raises InputError for data that are no counterexample."""
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise _error(
            "data of another kind", f'"format": "{FORMAT}"', "give a file written by `tokendyn probe`"
        )
    missing = [name for name in ENTRIES if name not in data]
    if missing:
        raise _error(f"no {', '.join(missing)}", "a complete record", "give the file as it was written")
    if "checksum" in data and data["checksum"] != _checksum(data):
        fix = "give the file as it was written, or drop the checksum to try numbers of your own"
        raise _error("numbers that do not fit their checksum", "the numbers as written", fix)
    if (
        not isinstance(data["claim"], Mapping)
        or data["grade"] not in GRADES
        or not isinstance(data["seen"], Mapping)
    ):
        raise _error(
            "a claim, grade or notes of another form",
            f"a table, one of {', '.join(GRADES)}, a table",
            "repair it",
        )
    claim, (n, d) = make_claim(data["claim"]), (_size(data, "n"), _size(data, "d"))
    raw = tuple(_number(entry) for entry in data["raw"]) if isinstance(data["raw"], list) else ()
    genome = _genome(claim, n, d)
    if len(raw) != genome.size:
        raise _error(
            f"{len(raw)} raw numbers", f"{genome.size} for this claim", "give the file as it was written"
        )
    time = _number(data["time"])
    if time < 0 or (claim.step and time.denominator != 1):
        wanted = "a number of layers" if claim.step else "a time from 0 on"
        raise _error(f"time {time}", wanted, "give the file as it was written")
    texts = [str(data[name]) for name in ("grade", "reason", "violation")]
    return Counterexample(claim, n, d, raw, time, *texts, seen=dict(data["seen"]))


def _genome(claim: Claim, n: int, d: int) -> Genome:
    for name, value, (least, most) in (("n", n, claim.tokens), ("d", d, claim.dimension)):
        if not least <= value <= most:
            raise _error(
                f"{name} = {value}", f"{least} … {most}, as the claim says", "it lies outside the hypotheses"
            )
    return Genome(claim, n, d)


def _size(data: Mapping[str, Any], name: str) -> int:
    if type(data[name]) is not int:
        raise _error(f"{name} = {data[name]!r}", "a whole number", "give the file as it was written")
    return data[name]


def _number(text: Any) -> Fraction:
    if not isinstance(text, str) or not NUMBER.fullmatch(text):
        raise _error(repr(text)[:60], "a rational such as -3/8", "give the file as it was written")
    return Fraction(text)


def _error(got: str, expected: str, fix: str) -> InputError:
    return InputError("counterexample", got=got, expected=expected, fix=fix)


def replay(found: Counterexample, digits: int = 50) -> Replay:
    """Check a counterexample from its own data, with quantities to `digits` digits.

    Raises InputError where the system does not satisfy the hypotheses, and where the violation is not proved
    again as well as the record says, or, for one that floats saw, not seen again.
    """
    if type(digits) is not int or not 1 <= digits <= 1000:
        raise InputError("digits", got=repr(digits), expected="1 … 1000", fix="50 are plenty")
    genome = _genome(found.claim, found.n, found.d)
    try:
        with ctx.workprec(bits_for(digits)):
            system = ExactSystem(genome, found.raw)
            allowed = hypotheses(system)
            if allowed.fails:
                raise _error(
                    f"a system with {allowed.reason} false",
                    "the hypotheses of its claim",
                    "it refutes nothing",
                )
    except (LanguageError, ZeroDivisionError) as error:
        raise _error(
            str(error), "a system that its claim can speak of", "give the file as it was written"
        ) from error
    proof = _proved_again(found, genome, digits)
    again = "float" if proof is None else proof.grade
    if GRADES.index(again) > GRADES.index(found.grade) or (proof is None and not _seen_again(found, genome)):
        raise _error(
            f"the grade {found.grade}, and no such proof"
            if proof or found.grade != "float"
            else "no violation",
            "a violation that is found again",
            "it is no such counterexample",
        )
    if proof is not None:
        return Replay(allowed, proof, (f"{proof.violation} ({proof.grade}: {proof.reason})",))
    with ctx.workprec(bits_for(digits)):
        return Replay(allowed, None, _lines(system, found.time, digits))


def _proved_again(found: Counterexample, genome: Genome, digits: int) -> Certificate | None:
    """A proof about this very row: that of an equilibrium may be about another."""
    thorough = _thorough(found)
    proof = certify(
        found.claim, genome, found.raw, found.time,
        elsewhere=False, thorough=thorough, patient=True, digits=digits,
    )  # fmt: skip
    return proof if proof is not None and proof.raw == found.raw else None


def _seen_again(found: Counterexample, genome: Genome) -> bool:
    """Whether the search's own check, in floats, confirms the violation."""
    return confirmed_exactly(Judge(found.claim), genome, found.raw) is not None


def _thorough(found: Counterexample) -> bool:
    return found.seen.get("certificate") in ("lower", "upper", "equilibrium") and found.grade in GRADES[:2]


def _lines(system: ExactSystem, time: Fraction, digits: int) -> tuple[str, ...]:
    """Both sides of the conclusion at the start and at the time of the violation, or along the way.

    The long run is followed to 15 digits only: no state proves what becomes of it.
    """
    whole, far = system.h is not None, system.claim.parsed.asymptotic
    shares = HORIZON if far else (Fraction(1),)
    times = sorted({Fraction(0), *(Fraction(round(time * s)) if whole else time * s for s in shares)})
    digits = min(digits, 15) if far else digits
    states = integrated(system, times, digits)
    return tuple(line for t, x in zip(times, states, strict=True) for line in _sides(system, x, t, digits))


def _sides(system: ExactSystem, x: State, t: Fraction, digits: int) -> list[str]:
    conclusion, evaluate, lines = system.claim.parsed, system.at(x, rational(t)), []
    for at in assignments(conclusion.free, system.n):
        sides = [conclusion.left] if conclusion.right is None else [conclusion.left, conclusion.right]
        texts = [f"{side.text} = {shown(evaluate(side, at).data, digits)}" for side in sides]
        where = ", ".join(f"{index} = {number}" for index, number in at.items())
        lines.append(f"t = {t}: {', '.join(texts)}" + (f" ({where})" if where else ""))
    return lines
