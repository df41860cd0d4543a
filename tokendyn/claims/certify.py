"""Proofs that one system refutes its claim: exactly, or by outward-rounded balls, never by floats.

`certify` tries the given row first. For statements about the long run it also tries starts, and last simpler
weights, that it makes from the row; the certificate says which row it is about.
"""

import math
import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from flint import arb, ctx, fmpq

from theory.enclosure import rational_point
from theory.errors import InputError
from theory.verdict import Grade
from tokendyn.claims.claim import Claim
from tokendyn.claims.exact import inner, rational
from tokendyn.claims.flow import STEPS, affordable, bits_for, drifted, equilibrium_near, shortly, states_at
from tokendyn.claims.genome import Genome
from tokendyn.claims.invariants import everyone, facts
from tokendyn.claims.language import LanguageError, assignments
from tokendyn.claims.laws import Fact, refuted_by, shown
from tokendyn.claims.starts import candidates
from tokendyn.claims.system import ExactSystem, State, decide, grade, hypotheses

TREND = {"nondecreasing": ">=", "nonincreasing": "<=", "increasing": ">", "decreasing": "<", "constant": "=="}
MOMENTS = (fmpq(1, 2**30), fmpq(1, 2**14), fmpq(1, 2**9))
SPANS = (fmpq(1, 1000), fmpq(1, 50), fmpq(1, 5))
QUICK, SECONDS, MORE_SECONDS = 60, 4.0, 20.0  # steps, and seconds of all enclosures of one call
FEW = 12  # steps: a trend is refuted soon or left open
GRIDS = (2**40, 2**150)  # a row beside an equilibrium is rounded to 1/GRID; the second if hypotheses need it
BESIDE = fmpq(1, 2**36)  # more than a token moves by that rounding, d ≤ 8


@dataclass(frozen=True)
class Certificate:
    """A proof that the row `raw` (of n tokens in dimension d) refutes its claim.

    kind: "instant", "trend", "equilibrium" or the deciding fact's (see `laws.Fact`). grade: "exact" or
    "interval". `reason` is a sentence, `violation` what the quantity does, `time` when. `certify` on the same
    row proves it again. Of an equilibrium the row holds the nearest rationals, and they meet the hypotheses
    too. Where the violation says "almost every start near this one" (T6b), the row may be an exception.
    """

    kind: str
    grade: str
    reason: str
    violation: str
    n: int
    d: int
    raw: tuple[Fraction, ...]
    time: Fraction = Fraction(0)


@dataclass(frozen=True)
class _Effort:
    """Digits that are shown, and the limits of enclosures: steps of each, and when all must end."""

    digits: int
    steps: int
    deadline: float

    @property
    def seconds(self) -> float:
        return max(0.0, self.deadline - clock.monotonic())


Finding = tuple[str, Grade, str, str]
"""kind, grade, reason and violation."""


def certify(
    claim: Claim,
    genome: Genome,
    raw: Sequence[Any],
    time: Any = 0,
    *,
    elsewhere: bool = True,
    thorough: bool = False,
    patient: bool = False,
    digits: int = 12,
) -> Certificate | None:
    """A proof that this row refutes the claim at the given time (layer), or None where none is found.

    `elsewhere` also tries rows made from this one, for statements about the long run. `thorough` looks for
    T11's certificates, for which it needs cvxpy (seconds), and for equilibria, and encloses for up to
    MORE_SECONDS in place of SECONDS; `patient` does so without a limit of time. The violation is shown to
    `digits` digits. Raises InputError for a row of the wrong length, and for a time < 0 or within a layer.
    """
    when = Fraction(time)
    if when < 0 or (claim.step and when.denominator > 1):
        expected = "a number of layers" if claim.step else "a number ≥ 0"
        raise InputError("time", got=str(when), expected=expected, fix="pass one")
    if len(raw) != genome.size:
        got, expected = f"{len(raw)} numbers", f"{genome.size} for n = {genome.n}, d = {genome.d}"
        raise InputError(
            "raw", got=got, expected=expected, fix="take the row and the sizes from one counterexample"
        )
    row = tuple(Fraction(entry) for entry in raw)
    rows = [(genome, row), *(candidates(genome, row) if elsewhere and _about_the_long_run(claim) else ())]
    effort = _effort(digits, thorough, patient)
    with ctx.workprec(bits_for(digits)):
        for tried, entries in rows:
            if found := _of_row(tried, entries, when if entries == row else Fraction(0), effort):
                return found
        for tried, entries in rows if thorough and claim.parsed.asymptotic else ():
            if found := _of_row(tried, entries, Fraction(0), effort, deep=True):
                return found
        return _at_equilibrium(genome, row, effort, elsewhere) if thorough else None


def _effort(digits: int, thorough: bool, patient: bool) -> _Effort:
    if patient:
        return _Effort(digits, STEPS, math.inf)
    steps, seconds = (STEPS, MORE_SECONDS) if thorough else (QUICK, SECONDS)
    return _Effort(digits, steps, clock.monotonic() + seconds)


def _about_the_long_run(claim: Claim) -> bool:
    return claim.parsed.asymptotic or claim.parsed.relation in ("increasing", "decreasing")


def _of_row(
    genome: Genome, raw: tuple[Fraction, ...], time: Fraction, effort: _Effort, deep: bool = False
) -> Certificate | None:
    try:
        system = ExactSystem(genome, raw)
        allowed = hypotheses(system)
        found = _finding(system, time, effort, deep) if allowed.holds else None
    except (LanguageError, ZeroDivisionError):
        return None
    if found is None:
        return None
    kind, proof, reason, violation = found
    return Certificate(kind, str(min(proof, allowed.grade)), reason, violation, genome.n, genome.d, raw, time)


def _finding(system: ExactSystem, time: Fraction, effort: _Effort, deep: bool) -> Finding | None:
    conclusion = system.claim.parsed
    if deep:
        from tokendyn.claims.robust import robust_facts

        return _by_facts(system, robust_facts(system), effort.digits)
    if conclusion.kind == "compare":
        return _compared(system, time, effort)
    if conclusion.kind == "trend" and (found := _trend(system, time, effort)):
        return found
    return _by_facts(system, facts(system), effort.digits)


def _by_facts(system: ExactSystem, known: Iterator[Fact], digits: int) -> Finding | None:
    """The first fact that contradicts the conclusion; not of measure zero for almost every start."""
    almost = system.claim.quantifier == "almost every start"
    for fact in known:
        if (fact.generic or not almost) and (found := refuted_by(system, system.claim.parsed, fact, digits)):
            at, says, proof = found
            return fact.kind, proof, fact.reason, says + _where(at)
    return None


def _where(at: dict[str, int]) -> str:
    return f", {', '.join(f'{index} = {number}' for index, number in at.items())}" if at else ""


def _at_equilibrium(
    genome: Genome, raw: tuple[Fraction, ...], effort: _Effort, elsewhere: bool
) -> Certificate | None:
    """A zero of the velocity beside the start; elsewhere too: one that Newton's method or the flow leads to.

    It stays for ever. It need not be rational: the row holds the nearest rationals, and the proof is about
    the balls beside them.
    """
    claim = genome.claim
    if claim.quantifier != "every start" or claim.step or not claim.parsed.asymptotic:
        return None
    system = ExactSystem(genome, raw)
    if not affordable(system, effort.seconds) or not hypotheses(system).holds:
        return None
    for found in _zeros(system, elsewhere):
        if claim.sphere and not _unit(system, found):
            continue
        pinned = system.again(x0=found)
        if not hypotheses(pinned).holds:
            continue
        reason = "an equilibrium is enclosed beside this start (Krawczyk's test)"
        still = Fact("still", everyone(system), Grade.INTERVAL, reason)
        if (decided := _by_facts(pinned, iter([still]), effort.digits)) is None:
            continue
        for row in (_near(genome, raw, found, grid) for grid in GRIDS):
            if hypotheses(ExactSystem(genome, row)).holds:
                return Certificate("equilibrium", "interval", reason, decided[3], genome.n, genome.d, row)
    return None


def _zeros(system: ExactSystem, elsewhere: bool) -> Iterator[State]:
    """Balls around a zero of the velocity beside the start; elsewhere too: any found from it or later."""
    found = equilibrium_near(system, system.x0)
    if found is not None and (elsewhere or _beside(system.x0, found)):
        yield found
    if elsewhere and (found := equilibrium_near(system, drifted(system))) is not None:
        yield found


def _beside(state: State, found: State) -> bool:
    pairs = (pair for tokens in zip(state, found, strict=True) for pair in zip(*tokens, strict=True))
    return all(abs(arb(a) - b) < BESIDE for a, b in pairs)


def _unit(system: ExactSystem, state: State) -> bool:
    """Whether a zero of v − (x·v)x in these balls consists of unit tokens: x·v(1 − |x|²) = 0 and x·v ≠ 0."""
    along = [inner(x, v) for x, v in zip(state, system.drive(state), strict=True)]
    return all(a > 0 or a < 0 for a in along)


def _near(genome: Genome, raw: tuple[Fraction, ...], state: State, grid: int) -> tuple[Fraction, ...]:
    """The row with the state's tokens, rounded to multiples of 1/grid."""
    part, entries = genome.parts["x"], []
    for token in state:
        centre = [Fraction(str(rational_point(arb(c).mid()))) for c in token]
        if genome.claim.sphere:
            sign = -1 if centre[-1] < 0 else 1
            centre = [*(sign * c / (1 + abs(centre[-1])) for c in centre[:-1]), Fraction(sign)]
        entries += [Fraction(round(c * grid), grid) for c in centre]
    return raw[: part.place.start] + tuple(entries) + raw[part.place.stop :]


# At one instant


def _compared(system: ExactSystem, time: Fraction, effort: _Effort) -> Finding | None:
    conclusion, digits = system.claim.parsed, effort.digits
    assert conclusion.right is not None
    state = states_at(system, [time], digits, effort.steps, effort.seconds)
    if state is None:
        return None
    evaluate = system.at(state[0], rational(time))
    for at in assignments(conclusion.free, system.n):
        left, right = evaluate(conclusion.left, at).data, evaluate(conclusion.right, at).data
        if decide(conclusion.relation, left, right) is False:
            proof = grade(left, right, *(c for token in state[0] for c in token))
            how = "rational arithmetic" if proof is Grade.EXACT else "balls around both sides"
            sides = f"{shown(left, digits)} {conclusion.relation} {shown(right, digits)}"
            text = f"{sides} is false{_where(at)}{_when(time)}"
            return "instant", proof, f"by {how}{_when(time)}", text
    return None


def _when(time: Fraction) -> str:
    return f" at t = {time}" if time else " at the start"


def _trend(system: ExactSystem, time: Fraction, effort: _Effort) -> Finding | None:
    """The quantity at two instants close to each other, until one pair refutes the trend."""
    conclusion, relation = system.claim.parsed, TREND[system.claim.parsed.relation]
    digits = effort.digits
    for early, late, times in _pairs(system, time, effort):
        before, after = (system.at(state, t) for state, t in zip((early, late), times, strict=True))
        for at in assignments(conclusion.free, system.n):
            first, second = (evaluate(conclusion.left, at).data for evaluate in (before, after))
            if decide(relation, second, first) is False:
                proof = grade(first, second)
                span = f"t = {times[0]} … {times[1]}"
                ends = f"from {shown(first, digits)} to {shown(second, digits)}"
                text = f"{conclusion.left.text} goes {ends}, {span}{_where(at)}"
                return "trend", proof, f"two states enclosed at {span}", text
    return None


def _pairs(
    system: ExactSystem, time: Fraction, effort: _Effort
) -> Iterator[tuple[State, State, tuple[fmpq, fmpq]]]:
    digits = effort.digits
    start = states_at(system, [time], digits, effort.steps, effort.seconds)
    if start is None:
        return
    here = rational(time)
    if system.h is not None:
        yield start[0], system.next_layer(start[0]), (here, here + 1)
        return
    for span in MOMENTS if digits <= 12 or system.instance() is None else ():
        later = shortly(system, start[0], span)
        if later is not None:
            yield start[0], later, (here, here + span)
    spans = SPANS if digits <= 12 else (*MOMENTS, *SPANS)
    times = [here, *(here + span for span in spans)]
    states = states_at(system, times, digits, FEW, effort.seconds)
    if states is not None:
        for k in range(len(times) - 1):
            yield states[k], states[k + 1], (times[k], times[k + 1])
