"""`probe`: try to break a claim for some time, make what is found small, and prove it where that can be."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any

import torch

from theory.errors import InputError
from tokendyn.claims.certify import Certificate, certify
from tokendyn.claims.check import check
from tokendyn.claims.claim import Claim
from tokendyn.claims.confirm import confirmed_exactly, established
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import Judge, Suspect, Tally, fresh, hunt, sizes
from tokendyn.claims.language import LanguageError, as_input_error, assignments
from tokendyn.claims.plain import plain
from tokendyn.claims.record import GRADES, Counterexample, from_certificate
from tokendyn.claims.shrink import fractions, shrunk
from tokendyn.claims.violation import along, times_for

REFUTED, NOT_REFUTED, VACUOUS = "REFUTED", "NOT REFUTED", "VACUOUS"
COARSE = (1, 2, 4, 10, 100)
"""Denominators to round a suspect to before a proof is tried; coarse rounding keeps symmetries."""
HORIZON = 200.0
"""Up to where a counterexample in floats is shown, in units of the system's pace."""
GROWTH = 1e6
"""And up to which size of tokens, relative to the start."""
PLAIN = 0.05
"""Of the time, for plain systems."""
SHARE = 0.25
"""Of the time, for proofs about suspects that floats do not settle."""
PATIENCE = 0.5
"""Share of the time after which a counterexample that is only seen in floats will do."""


@dataclass(frozen=True, eq=False)
class Report:
    """What came of a probe. Nothing here is a proof that a claim holds."""

    claim: Claim
    verdict: str
    found: Counterexample | None
    tally: Tally
    seconds: float
    seed: int

    def describe(self) -> dict[str, Any]:
        """The search as plain data; the counterexample has a file of its own."""
        tally, where = self.tally, self.tally.where
        return {
            "claim": self.claim.describe(),
            "verdict": self.verdict,
            "grade": self.found.grade if self.found else None,
            "systems": tally.tried,
            "drawn": tally.drawn,
            "unsettled": tally.unsettled,
            "largest_violation": tally.worst if math.isfinite(tally.worst) else None,
            "largest_at": None
            if where is None
            else {"n": where[0].n, "d": where[0].d, "raw": where[1].tolist()},
            "sizes": {f"n={n}, d={d}": count for (n, d), count in sorted(tally.sizes.items())},
            "seconds": round(self.seconds, 1),
            "seed": self.seed,
        }


def probe(
    claim: Claim,
    seconds: float = 60.0,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str], None] = lambda stage: None,
) -> Report:
    """Search for a counterexample for at most about `seconds`.

    REFUTED carries the best counterexample found, with its grade; NOT REFUTED what was tried, which proves
    nothing; VACUOUS that no system was found that satisfies the hypotheses: the claim may say nothing.
    Raises InputError for a claim that cannot be evaluated, a time that is not finite, a seed outside
    0 … 2⁶³ − 1, and a device that this machine lacks.
    """
    if not 0 < seconds < math.inf:
        raise InputError("time", got=str(seconds), expected="seconds > 0, finite", fix="e.g. 60")
    if not 0 <= seed < 2**63:
        raise InputError("seed", got=str(seed), expected="0 … 2⁶³ − 1", fix="e.g. 1")
    _require_device(device)
    try:
        return _probe(claim, seconds, seed, device, progress)
    except LanguageError as error:
        raise as_input_error("claim", error) from error


def _probe(claim: Claim, seconds: float, seed: int, device: str, progress: Callable[[str], None]) -> Report:
    check(claim)
    judge, near = Judge(claim, device), Judge(claim)  # what is confirmed and proved is one system: on the CPU
    progress("preparing")
    _warm_up(judge)
    began, tally, best = time.monotonic(), Tally(), None
    prover = _Prover(near, seed, began + seconds)
    progress("searching")
    for suspect in chain(
        plain(near, PLAIN * seconds, seed, tally), hunt(claim, began + 0.85 * seconds, seed, tally, judge)
    ):
        real = established(near, suspect) if suspect.score > 0 else None
        if real:
            progress("found one: making it small, and proving it")
        found = prover.settled(real) if real else prover.proved(suspect)
        if not found:
            tally.refused.add(suspect.key)
        if found and (best is None or GRADES.index(found.grade) < GRADES.index(best.grade)):
            best = found
        if best and (best.grade != "float" or time.monotonic() > began + PATIENCE * seconds):
            break
    if best and best.grade == "float":
        progress("trying harder to prove it")
        best = prover.proved_thoroughly(best)
    tested = tally.tried and (claim.parsed.asymptotic or tally.worst > -torch.inf)
    verdict = REFUTED if best else NOT_REFUTED if tested else VACUOUS
    return Report(claim, verdict, best, tally, time.monotonic() - began, seed)


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        fix = "use cpu, or cuda where there is a GPU and a torch built for it"
        raise InputError(
            "device", got=f"{device} ({reason})", expected="a device of Torch", fix=fix
        ) from error


def _warm_up(judge: Judge) -> None:
    """Score one row, before the clock starts: the engine is compiled at its first use."""
    genome = Genome(judge.claim, *sizes(judge.claim)[0])
    judge.score(genome, fresh(genome, 1, torch.Generator().manual_seed(0)))


class _Prover:
    """Makes counterexamples of suspects: proved ones where that can be."""

    def __init__(self, judge: Judge, seed: int, deadline: float) -> None:
        self.judge, self.seed, self.deadline = judge, seed, deadline
        self.began, self.spent = time.monotonic(), 0.0

    def proved(self, suspect: Suspect) -> Counterexample | None:
        """A rounding of a suspect that floats do not settle, if it is proved to violate the claim.

        Takes at most a share of the time that has passed.
        """
        if self.spent > SHARE * (time.monotonic() - self.began):
            return None
        for row in (suspect.raw, self.judge.ended(suspect.genome, suspect.raw)):
            for grid in COARSE:
                raw = tuple(Fraction(round(value * grid), grid) for value in row.tolist())
                if found := self._certified(suspect, raw, Fraction(0), elsewhere=grid == COARSE[0]):
                    return found
        return None

    def settled(self, suspect: Suspect) -> Counterexample | None:
        """Shrunk and proved; or as it was found, if only that is proved; or shrunk, in floats."""
        left = self.deadline - time.monotonic()
        small = shrunk(self.judge, suspect, time.monotonic() + left / 3)
        for one in (small, suspect):
            if found := self._certified(one, fractions(one.raw), self._when(one)):
                return found
        if not self.judge.claim.parsed.asymptotic and small.time == 0:
            return None  # exact evaluation, or enclosed short trajectories, do not bear out what floats saw
        exact = confirmed_exactly(self.judge, small.genome, fractions(small.raw))
        return self._in_floats(exact) if exact else None

    def _when(self, suspect: Suspect) -> Fraction:
        """The time of its violation, as a short number."""
        return Fraction(round(suspect.time)) if self.judge.claim.step else Fraction(f"{suspect.time:.3g}")

    def proved_thoroughly(self, found: Counterexample) -> Counterexample:
        """The same counterexample, proved if that can be done with more effort."""
        genome = Genome(self.judge.claim, found.n, found.d)
        proof = certify(self.judge.claim, genome, found.raw, found.time, thorough=True, digits=20)
        return found if proof is None else self._of(proof)

    def _certified(
        self, suspect: Suspect, raw: tuple[Fraction, ...], when: Fraction, elsewhere: bool = True
    ) -> Counterexample | None:
        began = time.monotonic()
        proof = certify(self.judge.claim, suspect.genome, raw, when, elsewhere=elsewhere)
        self.spent += time.monotonic() - began
        return None if proof is None else self._of(proof)

    def _of(self, proof: Certificate) -> Counterexample:
        return from_certificate(self.judge.claim, proof, {"seed": self.seed})

    def _in_floats(self, suspect: Suspect) -> Counterexample:
        genome, claim = suspect.genome, self.judge.claim
        when = self._when(suspect)
        if claim.parsed.asymptotic:
            pace = self.judge.systems(genome, suspect.raw[None]).pace.item()
            when = Fraction(20) if claim.step else Fraction(f"{20 / pace:.3g}")
        says = "floats at several horizons and tolerances agree"
        seen = {"seed": self.seed, "score": suspect.score}
        raw, course = fractions(suspect.raw), self._course(suspect)
        return Counterexample(claim, genome.n, genome.d, raw, when, "float", says, course, seen)

    def _course(self, suspect: Suspect) -> str:
        """What the quantity is at the start and at the end of a run, where it is farthest from the claim."""
        systems = self.judge.systems(suspect.genome, suspect.raw[None])
        with torch.no_grad():
            path = systems.path(times_for(self.judge.claim, HORIZON))
            left, right = along(systems, path)
        sizes = path.states[0].nan_to_num(torch.inf).norm(dim=-1).amax(-1)
        shown = sizes <= GROWTH * sizes[0]  # beside larger tokens, differences are lost
        last = min(int(path.last[0]), int(shown.sum()) - 1) if right is not None else int(path.last[0])
        item = int((left if right is None else (left - right).abs())[0, last].argmax())
        at = list(assignments(systems.claim.parsed.free, suspect.genome.n))[item]
        sides = [f"{left[0, k, item]:.6g} at t = {path.times[0, k]:.4g}" for k in (0, last)]
        conclusion = systems.claim.parsed
        if right is not None and conclusion.right is not None:
            text, value = conclusion.right.text, f"{right[0, last, item]:.6g}"
            sides += [f"{text} = {value}"] if text != value else []  # nobody needs "0 = 0"
        where = [f"{index} = {number}" for index, number in at.items()]
        return f"{conclusion.left.text} = {', '.join([*sides, *where])}"
