"""The search for a counterexample: random structure, evolution, gradient ascent, over weights and starts."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count as counting
from itertools import islice
from typing import Any

import torch
from torch import Generator, Tensor

from tokendyn.claims.claim import Claim
from tokendyn.claims.dynamics import Systems, started_at
from tokendyn.claims.genome import Genome
from tokendyn.claims.violation import STRICT, feasibility, instant, largest, long_run, times_for, uses_start

BATCH = 512
"""Rows at a time, fewer for systems of more than LARGE = n²d numbers."""
LARGE = 100
ELITE = 48
SLOWEST = 0.01
"""Decay, relative to the norm of V, below which the longest run shows nothing."""
UNSETTLED = -1.0
"""The score of rows with parts too slow for any run."""
NEWTON_STEPS = 6
NEAR = 1e-3
"""By how much starts are changed, relative to the largest entry, to see what almost every start does."""
SUSPECTS, WORST = 3, 2
"""Of a batch, at most; those with the largest scores, before any others: these may all be of one kind."""
SOON, STRONG = 2.0, 4.0
"""The horizon, and the least size of scores, for elites of symmetric rows."""
NEARLY = -0.06
"""Scores of measured rates from which a proof is worth a try: floats allow for an error of 5 %."""


@dataclass
class Tally:
    """What was tried: systems that satisfied the hypotheses, all systems, and the worst seen that settled."""

    tried: int = 0
    drawn: int = 0
    unsettled: int = 0
    worst: float = -torch.inf  # the largest violation score; < 0 while not violated
    nearest: float = -torch.inf  # the largest feasibility of a system that was not
    where: tuple[Genome, Tensor] | None = None
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    refused: set[tuple[float, ...]] = field(default_factory=set)  # keys of suspects that were none

    def add(self, genome: Genome, raw: Tensor, score: Tensor) -> None:
        """Rows (B, size) within the hypotheses, with their scores (B,).

        In the long run, a positive score that is not confirmed is a run that has not settled.
        """
        size = (genome.n, genome.d)
        self.tried += len(raw)
        self.sizes[size] = self.sizes.get(size, 0) + len(raw)
        if genome.claim.parsed.asymptotic:
            self.unsettled += int((score > 0).sum())
            score = torch.where(score > 0, -torch.inf, score)
        best = int(score.argmax())
        if score[best] > self.worst:
            self.worst, self.where = score[best].item(), (genome, raw[best])


@dataclass(frozen=True, eq=False)
class Suspect:
    """A raw row whose system seems to violate its claim, by `score`."""

    genome: Genome
    raw: Tensor  # (size,)
    score: float
    time: float = 0.0  # of the violation, for conclusions at every instant

    @property
    def key(self) -> tuple[float, ...]:
        """The same for starts that differ by a factor, if that makes no difference to the score."""
        row, x = self.raw.clone(), self.genome.parts["x"].place
        row[x] /= row[x].abs().max().clamp(min=1e-300)
        return self.genome.n, self.genome.d, float(f"{self.score:.9g}"), *row.round(decimals=6).tolist()


def sizes(claim: Claim) -> list[tuple[int, int]]:
    """All (n, d), small ones first."""
    (n0, n1), (d0, d1) = claim.tokens, claim.dimension
    found = [(n, d) for n in range(n0, n1 + 1) for d in range(d0, d1 + 1)]
    return sorted(found, key=lambda size: (size[0] * size[1], size))


# Random structure


def fresh(genome: Genome, count: int, g: Generator) -> Tensor:
    """Raw rows of many kinds: scales over decades, zeros, small integers, and structured starts."""
    raw = torch.randn(count, genome.size, generator=g, dtype=torch.float64)
    decades = torch.rand(count, 1, generator=g, dtype=torch.float64)  # of a row: from alike to far apart
    scale = 10 ** (decades * (torch.rand(count, len(genome.parts), generator=g, dtype=torch.float64) * 2 - 1))
    for k, part in enumerate(genome.parts.values()):
        raw[:, part.place] *= scale[:, k : k + 1]
    sparse = torch.rand(count, 1, generator=g) < 0.25
    raw = torch.where(sparse & (torch.rand(raw.shape, generator=g) < 0.4), 0.0, raw)
    whole = torch.rand(count, 1, generator=g) < 0.3
    raw = torch.where(whole, raw.round(), raw)
    return structured(genome, raw, g)


def equivariant(genome: Genome, raw: Tensor) -> Tensor:
    """Rows (d = 2) made to have weights that commute with rotations, and regular polygons as start and p."""
    found = raw.clone()
    for part in genome.parts.values():
        flat = found[:, part.place]
        if part.kind == "matrix":
            along, across = (flat[:, 0] + flat[:, 3]) / 2, (flat[:, 1] - flat[:, 2]) / 2
            flat[:] = torch.stack((along, across, -across, along), 1)
        elif part.kind == "lower":
            flat[:, 1], flat[:, 2] = 0, flat[:, 0]
        elif part.kind in ("diagonal", "signs"):
            flat[:, 1] = flat[:, 0]
        elif part.name in ("x", "p"):
            flat[:] = (_polygon(genome.n) * flat[:, :2].norm(dim=1)[:, None, None]).flatten(1)
    return found


def _polygon(n: int) -> Tensor:
    """The corners (n, 2) of a regular polygon with its centre at 0 and its first corner at (1, 0)."""
    angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    return torch.stack((angle.cos(), angle.sin()), 1).round(decimals=14)


def structured(genome: Genome, raw: Tensor, g: Generator) -> Tensor:
    """Starts with structure in half of the rows: equal, mirrored, polygons, one large, one zero, …"""
    part, n, d = genome.parts["x"], genome.n, genome.d
    x = raw[:, part.place].unflatten(1, (n, d)).clone()
    choice = torch.randint(0, 18, (len(raw),), generator=g)

    def put(kind: int, start: Tensor) -> None:
        chosen = choice == kind
        x[chosen] = start[chosen]

    first = x[:, :1]
    put(0, first.expand_as(x))
    mirrored = x.clone()
    mirrored[:, 1::2] = -mirrored[:, : 2 * (n // 2) : 2]
    if n % 2:
        mirrored[:, -1] = 0
    put(1, mirrored)
    one_zero = x.clone()
    one_zero[torch.arange(len(x)), torch.randint(0, n, (len(x),), generator=g)] = 0
    put(2, one_zero)
    put(3, first * torch.randn(len(x), n, 1, generator=g, dtype=torch.float64))
    small = x.clone()
    small[:, :-1] = x[:, :1] * 0.1
    small[:, -1] = x[:, 0] * 10 ** (torch.rand(len(x), 1, generator=g, dtype=torch.float64) * 1.5)
    put(4, small)
    put(5, x * 10 ** (torch.rand(len(x), 1, 1, generator=g, dtype=torch.float64) * 2))
    if d >= 2:
        polygon = torch.zeros_like(x)
        polygon[..., :2] = x[:, 0].norm(dim=-1)[:, None, None] * _polygon(n)
        put(6, polygon)
        put(7, polygon * 3)
    put(8, first + 0.01 * x)
    two = torch.where((torch.arange(n) % 2 == 0)[None, :, None], x[:, :1], x[:, -1:])
    put(9, two)
    basis = torch.zeros_like(x)
    for k in range(n):
        basis[:, k, k % d] = (-1.0) ** (k // d) * (1 + k // (2 * d))
    put(10, basis * first.abs().amax(-1, keepdim=True))
    put(11, x.abs())
    put(12, x * 10 ** (torch.rand(len(x), n, 1, generator=g, dtype=torch.float64) * 4 - 2))
    raw = raw.clone()
    raw[:, part.place] = x.flatten(1)
    return raw


def mutated(genome: Genome, elite: Tensor, count: int, g: Generator) -> Tensor:
    """Children of elite rows: noise of many sizes, single entries, exchanged parts, scaled tokens."""
    parents = elite[torch.randint(0, len(elite), (count,), generator=g)]
    others = elite[torch.randint(0, len(elite), (count,), generator=g)]
    size = 10 ** (torch.rand(count, 1, generator=g, dtype=torch.float64) * 3 - 3)
    noise = torch.randn(parents.shape, generator=g, dtype=torch.float64) * size * (parents.abs() + 0.3)
    few = torch.rand(parents.shape, generator=g) < 0.2
    kind = torch.randint(0, 6, (count, 1), generator=g)
    child = torch.where(kind == 0, parents + noise, parents + noise * few)
    child = torch.where((kind == 1) & few, 0.0, child)
    child = torch.where(
        kind == 2,
        parents + torch.rand(count, 1, generator=g, dtype=torch.float64) * (others - parents),
        child,
    )
    x = genome.parts["x"].place
    scaled = parents.clone()
    scaled[:, x] *= 10 ** (torch.randn(count, 1, generator=g, dtype=torch.float64) * 0.3)
    child = torch.where(kind == 3, scaled, child)
    crossed = parents.clone()
    crossed[:, x] = others[:, x]
    return torch.where(kind == 4, crossed, child)


# The score of rows


class Judge:
    """Scores raw rows: feasibility first, then the violation of the conclusion."""

    def __init__(self, claim: Claim, device: str = "cpu", horizon: float = 60.0) -> None:
        self.claim, self.device, self.horizon = claim, device, horizon
        self.follow = claim.parsed.asymptotic or uses_start(claim)

    def systems(self, genome: Genome, raw: Tensor) -> Systems:
        return Systems(genome, raw.to(self.device))

    def feasible(self, genome: Genome, raw: Tensor) -> Tensor:
        with torch.no_grad():
            return feasibility(self.systems(genome, raw)).cpu()

    def score(self, genome: Genome, raw: Tensor, horizon: float | None = None) -> tuple[Tensor, Tensor]:
        """Violation (B,) of rows within the hypotheses, −inf where undefined, and when it shows."""
        score, when = self._score(genome, raw, horizon)
        return torch.where(score.isnan(), -torch.inf, score), when

    def suspect(self, genome: Genome, values: Iterable[Any]) -> Suspect:
        """The row of the floats nearest to these numbers, with its score."""
        raw = torch.tensor([float(value) for value in values], dtype=torch.float64)
        score, when = self.score(genome, raw[None])
        return Suspect(genome, raw, score[0].item(), when[0].item())

    def _score(self, genome: Genome, raw: Tensor, horizon: float | None) -> tuple[Tensor, Tensor]:
        systems = self.systems(genome, raw)
        zero = torch.zeros(len(raw), dtype=torch.float64)
        with torch.no_grad():
            if self.claim.parsed.asymptotic:
                return self._lasting(genome, raw, horizon or self.horizon), zero
            found = largest(instant(systems)).cpu()
            if not self.follow:
                return found, zero
            times = self._times(10.0)
            path = systems.path(times)
            for k in range(1, len(times), 3):
                there = path.reached[:, k]
                if there.any():
                    x = torch.where(there[:, None, None], path.states[:, k], systems.x0)
                    later = torch.where(
                        there, largest(instant(systems, x, path.times[:, k])), -torch.inf
                    ).cpu()
                    zero = torch.where(later > found, path.times[:, k].cpu(), zero)
                    found = torch.maximum(found, later)
            return found, zero

    def _lasting(self, genome: Genome, raw: Tensor, horizon: float) -> Tensor:
        """The violation at a horizon; where there is one, the least up to a horizon 100 times as long."""
        found = torch.full((len(raw),), torch.inf, dtype=torch.float64)
        if self.patient:
            found[~self.systems(genome, raw).one_pace(SLOWEST).cpu()] = UNSETTLED
        rows = torch.arange(len(raw))
        for stretch in (1, 10, 100) if self.patient else (1,):
            systems = self.systems(genome, raw[rows])
            longer = min(3.0, max(1.0, stretch * horizon / self.horizon))
            path = systems.path(self._times(stretch * horizon), max_steps=int(2000 * longer))
            seen = largest(long_run(systems, path)).cpu()
            known = path.reached[:, -1].cpu() | path.grew.cpu() | (stretch == 1)  # else the steps ran out
            seen = torch.where(seen.isnan(), -torch.inf, seen)
            if self.patient:
                seen = torch.where(systems.frozen(path).cpu(), UNSETTLED, seen)
            found[rows] = torch.where(known, torch.minimum(found[rows], seen), found[rows])
            # longer runs sample growth too coarsely
            over = path.grew.cpu() & (self.claim.parsed.kind == "power")
            rows = rows[(found[rows] > 0) & ~over]
            if not len(rows):
                break
        return found

    @property
    def patient(self) -> bool:
        """Whether transients may be long, and a longer run costs little."""
        return self.claim.parsed.kind != "rate" and not self.claim.step and self.claim.attention == "softmax"

    def _times(self, horizon: float) -> Tensor:
        return times_for(self.claim, horizon).to(self.device)

    def ended(self, genome: Genome, raw: Tensor) -> Tensor:
        """The row whose start is where this one's trajectory has come to."""
        if not self.claim.parsed.asymptotic:
            return raw
        systems = self.systems(genome, raw[None])
        path = systems.path(self._times(10 * self.horizon))
        if not path.reached[0, -1]:
            return raw
        return started_at(genome, raw, path.states[0, -1].cpu())

    # Gradient steps

    def repaired(self, genome: Genome, raw: Tensor, steps: int = 30) -> Tensor:
        """Rows moved up the slope of feasibility, then by Newton's method for the worst condition."""
        raw = self._ascend(genome, raw, steps, lambda systems: feasibility(systems).clamp(max=0.05, min=-1e6))
        for _ in range(NEWTON_STEPS):
            row = raw.to(self.device).requires_grad_()
            missing = feasibility(Systems(genome, row)).clamp(max=0)
            if (slope := _slope(missing.nan_to_num(0, 0, 0).sum(), row)) is None:
                break
            move = -missing[:, None] * slope / slope.square().sum(1, keepdim=True).clamp(min=1e-30)
            raw = (row + move.nan_to_num(0, 0, 0).clamp(-1, 1)).detach().cpu()
        return raw

    def sharpened(self, genome: Genome, raw: Tensor, steps: int = 25) -> Tensor:
        """Rows moved up the slope of the violation at the start, within the hypotheses."""

        def goal(systems: Systems) -> Tensor:
            margin = feasibility(systems).clamp(min=-1e6)
            return largest(instant(systems)).clamp(min=-1e6) + 10 * (margin - 0.001).clamp(max=0)

        return self._ascend(genome, raw, steps, goal)

    def _ascend(self, genome: Genome, raw: Tensor, steps: int, goal) -> Tensor:
        row = raw.to(self.device).clone().requires_grad_()
        optimizer = torch.optim.Adam([row], lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            value = goal(Systems(genome, row))
            loss = -torch.where(value.isfinite(), value, torch.zeros_like(value)).sum()
            if not loss.requires_grad:
                break
            row.grad = _slope(loss, row)
            if row.grad is None:  # step aside
                with torch.no_grad():
                    row += 1e-6 * torch.randn(row.shape, generator=torch.Generator().manual_seed(0)).to(row)
                continue
            optimizer.step()
        return row.detach().cpu()


def _slope(value: Tensor, row: Tensor) -> Tensor | None:
    """Of a number by raw rows; None if it has none: of a constant, or of a defective matrix's eigenvalues."""
    if not value.requires_grad:
        return None
    try:
        (slope,) = torch.autograd.grad(value, row, allow_unused=True)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        return None
    return None if slope is None else slope.nan_to_num(0, 0, 0)


def least(claim: Claim) -> float:
    """The score above which a row is worth a closer look."""
    return {"compare": STRICT, "trend": 1e-5, "rate": NEARLY, "power": NEARLY}.get(claim.parsed.kind, 0.0)


@dataclass(eq=False)
class Pool:
    """Where systems of one size evolve; `symmetric`: only those with weights that commute with rotations."""

    genome: Genome
    symmetric: bool = False
    elite: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.elite = torch.empty(0, self.genome.size, dtype=torch.float64)

    def bred(self, g: Generator) -> Tensor:
        """Raw rows, fresh ones and children of the elite."""
        size = self.genome.n**2 * self.genome.d
        half = max(16, BATCH // 2 * LARGE // max(LARGE, size))
        raw = fresh(self.genome, half, g)
        if len(self.elite):
            raw = torch.cat((raw, mutated(self.genome, self.elite, half, g)))
        return equivariant(self.genome, raw) if self.symmetric else raw


def hunt(claim: Claim, deadline: float, seed: int, tally: Tally, judge: Judge) -> Iterator[Suspect]:
    """Suspects in turn, round after round over all sizes, until the deadline (of time.monotonic)."""
    g = Generator().manual_seed(seed)
    genomes = [Genome(claim, n, d) for n, d in sizes(claim)]
    plain = [Pool(genome) for genome in genomes]
    flat = [genome for genome in genomes if genome.d == 2 and genome.n > 2 and claim.parsed.asymptotic]
    symmetric = [Pool(genome, symmetric=True) for genome in flat]
    for turn in counting():
        for pool in symmetric if symmetric and turn % 3 else plain:
            if time.monotonic() > deadline:
                return
            yield from _visited(pool, judge, tally, g, sharpen=turn % 2 == 1)


def _visited(pool: Pool, judge: Judge, tally: Tally, g: Generator, sharpen: bool) -> Iterator[Suspect]:
    """Suspects among a new batch, after which the pool has a new elite."""
    genome, claim = pool.genome, judge.claim
    raw = _feasible(judge, genome, pool.bred(g), tally)
    if not len(raw):
        return
    if sharpen and not claim.parsed.asymptotic:
        best = judge.score(genome, raw)[0].topk(min(32, len(raw))).indices
        moved = judge.sharpened(genome, raw[best])
        tally.drawn += len(moved)
        raw = torch.cat((raw, moved[judge.feasible(genome, moved) >= 0]))
    score, when = judge.score(genome, raw)
    if claim.parsed.asymptotic and claim.quantifier != "every start":
        score = _shaken(judge, genome, raw, score, g)
    tally.add(genome, raw, score)
    order = score.argsort(descending=True)
    doubtful = (score > least(claim)) | (_strict(claim) & (score >= -1e-13))
    rows = order[doubtful[order]]
    rows[WORST:] = rows[WORST:][torch.randperm(len(rows[WORST:]), generator=g)]
    suspects = (Suspect(genome, raw[at], score[at].item(), when[at].item()) for at in rows.tolist())
    yield from islice((suspect for suspect in suspects if suspect.key not in tally.refused), SUSPECTS)
    if pool.symmetric:
        order = _promising(judge, genome, raw).argsort(descending=True)
    pool.elite = raw[order[:ELITE]]


def _shaken(judge: Judge, genome: Genome, raw: Tensor, score: Tensor, g: Generator) -> Tensor:
    """Scores (B,) that a small change of the start leaves: a start on a null set is no counterexample."""
    rows = (score > least(judge.claim)).nonzero()[:, 0]
    if not len(rows):
        return score
    moved, x = raw[rows], genome.parts["x"].place
    size = moved[:, x].abs().amax(1, keepdim=True).clamp(min=1e-3)
    moved[:, x] += NEAR * size * torch.randn(moved[:, x].shape, generator=g, dtype=torch.float64)
    allowed = judge.feasible(genome, moved) >= 0
    rows, moved = rows[allowed], moved[allowed]
    if len(rows):
        score = score.scatter(0, rows, torch.minimum(score[rows], judge.score(genome, moved)[0]))
    return score


def _promising(judge: Judge, genome: Genome, raw: Tensor) -> Tensor:
    """How symmetric rows (B,) with strong attention soon do, relative to equal tokens, which only V moves."""
    equal, x = raw.clone(), genome.parts["x"]
    equal[:, x.place] = equal[:, x.place][:, : genome.d].repeat(1, genome.n)
    found, plain = (judge.score(genome, rows, SOON)[0] for rows in (raw, equal))
    found = torch.where(plain.isfinite() & (plain < 0), (found - plain) / plain.abs(), found)
    strong = judge.systems(genome, raw).largest_score().cpu() > STRONG
    return torch.where(strong, found, -torch.inf)


def _strict(claim: Claim) -> bool:
    """Whether equality refutes the conclusion."""
    return (
        claim.parsed.kind == "compare" and claim.parsed.relation in ("<", ">")
    ) or claim.parsed.relation in ("increasing", "decreasing")


def _feasible(judge: Judge, genome: Genome, raw: Tensor, tally: Tally) -> Tensor:
    """The rows that satisfy the hypotheses, with some of the others repaired where these are few."""
    margin = judge.feasible(genome, raw)
    tally.drawn += len(raw)
    good = raw[margin >= 0]
    if len(good) < len(raw) // 4 and judge.claim.conditions:
        rest = raw[margin < 0][margin[margin < 0].argsort(descending=True)[:128]]
        mended = judge.repaired(genome, rest)
        margin = judge.feasible(genome, mended)
        tally.drawn += len(mended)
        good = torch.cat((good, mended[margin >= 0]))
        if len(margin) and not (margin >= 0).all():
            tally.nearest = max(tally.nearest, margin[margin < 0].max().item())
    return good
