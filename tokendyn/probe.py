"""Searching for violations of a statement, and replaying what was found.

Floating point only screens: whatever looks like a violation is decided again by the exact half, at the
same rational numbers. A counterexample is certified or it is none.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction

import torch
from flint import fmpq, fmpq_mat
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.strategies import SearchStrategy
from sympy import Symbol
from torch import Generator, Tensor

from theory.errors import InputError
from theory.instance import Instance
from theory.registry import statement
from theory.system import Setting
from theory.theorem import EQUAL, MORE_THAN, Claim, Planted, Theorem
from theory.verdict import Status, Verdict, undecided
from tokendyn.moment import Moment, from_instance, nearest_float
from tokendyn.row import Row
from tokendyn.sampling import SIZES, exact_sizes, instances, sample

ALARM = 1e-10
"""Relative gap from which a float result is decided exactly.

Sides lose about 1e-14 to rounding (condition numbers of the families stay below 100), so 1e-10 lets no true
violation of that size through and raises few false alarms.
"""


DECIDED = 200
"""How many alarms per batch and claim are decided exactly; the others count as open."""


@dataclass(frozen=True)
class Counterexample:
    """An exact system that satisfies the hypotheses and certainly violates the claim."""

    theorem: str
    planted: str  # name of the planted variant, "" for the statement itself
    claim: str
    instance: Instance
    verdict: Verdict

    def describe(self) -> dict:
        """JSON-able; `replay` takes it back. Numbers are fractions as text."""
        parts = {
            "score": self.instance.form,
            "value": self.instance.value,
            "response": self.instance.given_response,
            "tokens": self.instance.tokens,
        }
        return {
            "theorem": self.theorem,
            "planted": self.planted,
            "claim": self.claim,
            "gap": self.verdict.margin,
            "setting": asdict(self.instance.setting),
            **{name: None if m is None else _text(m) for name, m in parts.items()},
            "parameters": {name: _text(m) for name, m in self.instance.parameters.items()},
        }


def _text(matrix: fmpq_mat) -> list[list[str]]:
    return [[str(entry) for entry in row] for row in matrix.tolist()]


def replay(data: Mapping) -> Verdict:
    """Re-decide a described counterexample exactly: FAILS if it still refutes.

    Raises InputError for a description that names nothing known or does not satisfy the hypotheses.
    """
    try:
        theorem, planted = _variant(data["theorem"], data["planted"])
        claim = next(c for c in theorem.claims if c.name == data["claim"])
        instance = _instance(data)
        if _text(instance.value) != data["value"]:
            raise ValueError("its value is not the one that score and response give")
    except (KeyError, StopIteration, ValueError, TypeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            "counterexample",
            got=f"{type(error).__name__}: {error}",
            expected="what `verify --json` writes",
            fix="pass one entry of a 'counterexample' field unchanged",
        ) from error
    applies = theorem.applies(instance)
    if not applies.holds:
        raise InputError(
            "counterexample",
            got=f"a system outside the hypotheses ({applies.reason})",
            expected="a system that satisfies them",
            fix="pass the stored counterexample unchanged",
        )
    return theorem.judge(claim, instance, planted.scale)


def _variant(identifier: str, name: str) -> tuple[Theorem, Planted]:
    theorem = statement(identifier)
    planted = next((p for p in theorem.planted if p.name == name), Planted(""))
    if planted.name != name:
        raise InputError(
            "planted", got=repr(name), expected=f"a planted variant of {identifier}", fix="see verify"
        )
    return theorem.plant(planted), planted


def _instance(data: Mapping) -> Instance:
    def matrix(rows: list | None):
        return None if rows is None else [[Fraction(entry) for entry in row] for row in rows]

    return Instance.of(
        score=matrix(data["score"]),
        value=None if data["response"] is not None else matrix(data["value"]),
        response=matrix(data["response"]),
        tokens=matrix(data["tokens"]),
        setting=Setting(**data["setting"]),
        **{name: matrix(rows) for name, rows in data["parameters"].items()},
    )


def float_scale(scale: Mapping[Symbol, fmpq]) -> dict[str, float]:
    """The planted constants for the floating-point half."""
    return {symbol.name: nearest_float(q) for symbol, q in scale.items()}


def relative_gaps(row: Row, claim: Claim, moment: Moment) -> Tensor:
    """Smallest margin of the claim per system, (batch,); +inf where the claim has no items (no pairs).

    Relative to the largest side or score of the system (at least 1e-3, as weights are of order 1): the
    rounding that a side can carry is measured by what it was computed from.
    """
    left, right = claim.oriented(*row.sides[claim.name](moment))
    if left.shape[1] == 0:
        return torch.full((len(moment.x),), torch.inf, dtype=left.dtype)
    scores = moment.system.scores(moment.x).flatten(1).abs().amax(1, keepdim=True)
    size = torch.maximum(torch.maximum(left.abs(), right.abs()).amax(1, keepdim=True), scores).clamp(min=1e-3)
    gap = (left - right) / size
    return (-gap.abs() if claim.relation == EQUAL else gap).amin(1)


def alarms(claim: Claim, gaps: Tensor) -> Tensor:
    """Which systems the exact half must look at; NaN always."""
    calm = gaps > ALARM if claim.relation == MORE_THAN else gaps >= -ALARM
    return ~calm


def decide(theorem: Theorem, planted: Planted, claim: Claim, instance: Instance) -> Verdict:
    """What the exact half says of an alarm: FAILS refutes, HOLDS clears, UNDECIDED leaves it open.

    An instance that is not proved to satisfy the hypotheses is open: it was sampled to satisfy them.
    """
    applies = theorem.applies(instance)
    if not applies.holds:
        return undecided(f"the hypotheses are not proved: {applies.reason}")
    return theorem.judge(claim, instance, planted.scale)


@dataclass(frozen=True)
class Sweep:
    """Random systems tried: how many, the smallest margins, and what the exact half said of the alarms."""

    systems: int
    smallest: dict[str, float]  # per claim, relative; identities: minus the largest relative gap
    alarms: int
    open_alarms: int  # alarms that the exact half could not decide, or had no time for
    counterexample: Counterexample | None


def sweep(
    theorem: Theorem, row: Row, planted: Planted, samples: int, seed: int, device: str = "cpu"
) -> Sweep:
    """Check every claim on `samples` random systems that satisfy the hypotheses."""
    smallest = {claim.name: torch.inf for claim in theorem.claims}
    raised = left_open = tried = 0
    for index, (n, d) in enumerate(SIZES):
        batch = -(-samples // len(SIZES))
        generator = Generator().manual_seed(seed * len(SIZES) + index)
        moment = sample(row.family, theorem.keys, theorem.setting, batch, n, d, generator).to(device)
        moment.scale = float_scale(planted.scale)
        gaps_of = {claim.name: relative_gaps(row, claim, moment).cpu() for claim in theorem.claims}
        tried += batch * any(not gaps.isposinf().all() for gaps in gaps_of.values())
        for claim in theorem.claims:
            gaps = gaps_of[claim.name]
            smallest[claim.name] = min(smallest[claim.name], gaps.nan_to_num(nan=-torch.inf).min().item())
            suspects = alarms(claim, gaps).nonzero().flatten()
            raised += len(suspects)
            left_open += max(0, len(suspects) - DECIDED)
            for at in suspects[gaps[suspects].argsort()][:DECIDED].tolist():
                verdict = decide(theorem, planted, claim, instance := moment.exactly(at))
                left_open += verdict.status is Status.UNDECIDED
                if verdict.fails:
                    found = Counterexample(theorem.id, planted.name, claim.name, instance, verdict)
                    return Sweep(tried, smallest, raised, left_open, found)
    return Sweep(tried, smallest, raised, left_open, None)


class _RefutedError(Exception):
    """Carries Hypothesis to the smallest counterexample."""


@dataclass(frozen=True)
class Search:
    """Exact systems tried, and the shrunk counterexample if one was found."""

    tried: int
    counterexample: Counterexample | None


def search(theorem: Theorem, row: Row, planted: Planted, examples: int, seed: int) -> Search:
    """Let Hypothesis look for a counterexample among small exact systems, and shrink what it finds.

    Sizes come smallest first and share the `examples`, so what is found is of the smallest size searched.
    """
    sizes = exact_sizes(row.family, theorem.keys)
    tried = 0
    for n, d in sizes:
        systems = instances(row.family, theorem.keys, theorem.setting, n, d)
        found = _hunt(theorem, row, planted, systems, -(-examples // len(sizes)), seed)
        tried += found.tried
        if found.counterexample:
            return Search(tried, found.counterexample)
    return Search(tried, None)


def _hunt(
    theorem: Theorem, row: Row, planted: Planted, systems: SearchStrategy, examples: int, seed: int
) -> Search:
    seen: list[Counterexample | None] = []
    scale = float_scale(planted.scale)

    @hypothesis_seed(seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        phases=[Phase.generate, Phase.shrink],
    )
    @given(systems)
    def hunt(instance: Instance) -> None:
        seen.append(_refute(theorem, row, planted, instance, scale))
        if seen[-1]:
            raise _RefutedError

    try:
        hunt()
    except _RefutedError:
        return Search(len(seen), seen[-1])
    return Search(len(seen), None)


def _refute(
    theorem: Theorem, row: Row, planted: Planted, instance: Instance, scale: Mapping[str, float]
) -> Counterexample | None:
    moment = from_instance(instance, scale)
    for claim in theorem.claims:
        if alarms(claim, relative_gaps(row, claim, moment)).any():
            verdict = decide(theorem, planted, claim, instance)
            if verdict.fails:
                return Counterexample(theorem.id, planted.name, claim.name, instance, verdict)
    return None
