"""How far a system is from its claim's hypotheses, and how far from its conclusion: numbers for a search."""

import torch
from torch import Generator, Tensor

from tokendyn.claims.claim import Claim
from tokendyn.claims.dynamics import Path, Systems
from tokendyn.claims.genome import static
from tokendyn.claims.language import Comparison, Evaluation, assignments

STRICT = 1e-7
"""Relative margin by which a condition holds, or a conclusion fails, before floats are believed."""
FLOOR = 1e-9
"""Relative size below which a quantity counts as having come to its limit."""
GONE, GONE_POWER = 1e-200, -1e3
"""What is smaller, from sizes above its root, has vanished exponentially; its power of time stands for −∞."""
BLUR = 1e-13
"""A change of states, relative to their largest entry, that shows what becomes of errors and rounding."""


def _gap(left: Tensor, right: Tensor, relation: str) -> Tensor:
    """≥ 0 where the relation holds; relative to the larger side, absolute for sides below 1e-3."""
    gap = (left - right) / _size(left, right)
    signed = {">": gap, ">=": gap, "<": -gap, "<=": -gap, "==": -gap.abs()}[relation]
    return torch.where(signed.isnan(), -torch.inf, signed)


def _size(left: Tensor, right: Tensor) -> Tensor:
    return torch.maximum(left.abs(), right.abs()).detach().clamp(min=1e-3)


def _worst(comparison: Comparison, evaluate: Evaluation) -> Tensor | float:
    """The smallest gap over all assignments of its free indices, (B,); +inf if there are none."""
    gaps = [
        _gap(evaluate(comparison.left, at).data, evaluate(comparison.right, at).data, comparison.relation)
        for at in assignments(comparison.free, evaluate.n)
    ]
    return torch.stack(gaps).amin(0) if gaps else torch.inf


def feasibility(systems: Systems) -> Tensor:
    """Smallest gap of all conditions at the start, (B,): ≥ 0 where the hypotheses hold."""
    evaluate = systems.at(systems.x0)
    found = torch.full((len(systems.raw),), torch.inf, dtype=torch.float64, device=systems.raw.device)
    for comparison in systems.claim.conditions:
        gap = _worst(comparison, evaluate)
        slack = 1e-9 if comparison.relation == "==" else 0.0 if comparison.relation in (">=", "<=") else -1e-9
        found = torch.minimum(found, torch.as_tensor(gap).to(found) + slack)
    for matrix in (systems.system.score, systems.system.value):
        found = torch.where(matrix.isfinite().flatten(1).all(1), found, -torch.inf)
    if systems.h is not None:
        found = torch.where((systems.h > 0) & systems.h.isfinite(), found, -torch.inf)
    return found


def quantities(systems: Systems, evaluate: Evaluation) -> tuple[Tensor, Tensor | None]:
    """Left and right side of the conclusion for every assignment: (B, items) each."""
    conclusion = systems.claim.parsed
    items = list(assignments(conclusion.free, evaluate.n))
    if not items:
        empty = systems.raw.new_empty(len(systems.raw), 0)
        return empty, empty
    left = torch.stack([evaluate(conclusion.left, at).data for at in items], 1)
    right = conclusion.right
    return left, None if right is None else torch.stack([evaluate(right, at).data for at in items], 1)


def blurred(systems: Systems, x: Tensor, size: float = BLUR) -> tuple[Tensor, Tensor]:
    """States (B, …, n, d) with an error, in units of their largest entry, either way."""
    pattern = torch.randn(x.shape[1:], generator=Generator().manual_seed(0), dtype=torch.float64).to(x.device)
    error = size * x.abs().amax((-2, -1), keepdim=True) * pattern
    more, less = x + error, x - error
    if not systems.claim.sphere:
        return more, less
    return more / more.norm(dim=-1, keepdim=True), less / less.norm(dim=-1, keepdim=True)


def _repeated(systems: Systems, times: int) -> Systems:
    return Systems(systems.genome, systems.raw.repeat_interleave(times, 0))


def along(systems: Systems, path: Path) -> tuple[Tensor, Tensor | None]:
    """Both sides at all states of a path: (B, times, items); NaN where not reached."""
    batch, count = path.reached.shape
    many = _repeated(systems, count)
    safe = torch.where(path.reached[..., None, None], path.states, torch.zeros_like(path.states)).flatten(
        0, 1
    )
    if systems.claim.sphere:
        safe = torch.where(path.reached.flatten()[:, None, None], safe, many.x0)
    sides = quantities(many, many.at(safe, path.times.flatten()))
    left, right = (
        None
        if side is None
        else torch.where(path.reached.flatten()[:, None], side, torch.nan).unflatten(0, (batch, count))
        for side in sides
    )
    assert left is not None
    return left, right


# Conclusions at one instant


def instant(systems: Systems, x: Tensor | None = None, t: float | Tensor = 0.0) -> Tensor:
    """Violation (B, items) of "compare" and "trend" at states x (by default the start): > 0 where so.

    What floats cannot tell from rounding is no violation.
    """
    x = systems.x0 if x is None else x
    found = _violation(systems, x, t)
    rows = (found.detach() > 0).any(1).nonzero()[:, 0]
    if not len(rows):
        return found
    error = torch.zeros_like(found)
    with torch.no_grad():
        some, there = Systems(systems.genome, systems.raw[rows]), x[rows]
        now = t[rows] if isinstance(t, Tensor) else t
        changes = [_violation(some, moved, now) - found[rows] for moved in blurred(some, there)]
        error[rows] = 4 * torch.stack(changes).abs().amax(0).nan_to_num(torch.inf, torch.inf)
        if systems.claim.parsed.kind == "trend":
            error[rows] = torch.maximum(error[rows], found[rows] - _violation(some, there, now, stride=1e-4))
    return torch.where(found > 0, (found - error).clamp(min=0), found)


def _violation(systems: Systems, x: Tensor, t: float | Tensor, stride: float = 1e-5) -> Tensor:
    """The same as floats show it."""
    conclusion = systems.claim.parsed
    if conclusion.kind == "compare":
        left, right = quantities(systems, systems.at(x, t))
        assert right is not None
        gap = _gap(left, right, conclusion.relation)
        return torch.where(gap.isfinite(), -gap, -torch.inf)  # what has no value violates nothing
    slope, size = _slope(systems, x, t, stride)
    slope = slope / size
    match conclusion.relation:
        case "nondecreasing" | "increasing":
            return -slope
        case "nonincreasing" | "decreasing":
            return slope
    return slope.abs() - STRICT


def _slope(systems: Systems, x: Tensor, t: float | Tensor, stride: float) -> tuple[Tensor, Tensor]:
    """d/dt of the quantity (B, items) at t, or its change from layer t to t + 1, and its measure of size.

    `stride`: by how much states differ, relative to their size, whose difference tells d/dt.
    """
    velocity = systems.velocity(x)
    if systems.h is not None:
        now, _ = quantities(systems, systems.at(x, t))
        then, _ = quantities(systems, systems.at(x + systems.h[:, None, None] * velocity, t + 1))
        return then - now, _size(now, then)
    speed = velocity.detach().abs().amax((1, 2)).clamp(min=1e-12)
    size = x.detach().abs().amax((1, 2)).clamp(min=1e-6)
    step = (stride * size / torch.maximum(speed, size))[:, None]
    sides = []
    for sign in (1, -1):
        moved = x + sign * step[..., None] * velocity
        if systems.claim.sphere:
            moved = moved / moved.norm(dim=-1, keepdim=True)
        sides.append(quantities(systems, systems.at(moved, t + sign * step[:, 0]))[0])
    slope = (sides[0] - sides[1]) / (2 * step)
    return slope, _size(*sides) * (speed / size)[:, None].clamp(min=1e-3)


# Conclusions about the long run


def times_for(claim: Claim, horizon: float) -> Tensor:
    """0, then eight times per decade up to the horizon, even for rates; whole numbers for layers."""
    even = claim.parsed.kind == "rate"
    grid = torch.linspace(0, 1, 41)[1:] if even else torch.logspace(-3, 0, 25)
    grid = torch.cat((torch.zeros(1), horizon * grid)).double()
    return grid.round().unique() if claim.step else grid


def long_run(systems: Systems, path: Path) -> Tensor:
    """Violation (B, items) of an asymptotic conclusion as paths show it; −inf where they show nothing."""
    sides = along(systems, path)
    course = _Course(path, "t" in systems.claim.parsed.names(), _unsure(systems, path), *sides)
    found = LONG_RUN[systems.claim.parsed.kind](course, systems.claim.parsed.relation)
    return torch.where(course.usable & ~found.isnan(), found, -torch.inf)


@torch.no_grad()
def _unsure(systems: Systems, path: Path) -> Tensor:
    """What a BLUR of the last state reached makes of the left side, or of the difference of both."""
    rows, last = torch.arange(len(path.times), device=path.times.device), path.last
    sides = [
        quantities(systems, systems.at(x, path.times[rows, last]))
        for x in blurred(systems, path.states[rows, last])
    ]
    one, other = (left if right is None else left - right for left, right in sides)
    return (one - other).abs().nan_to_num(torch.inf)


class _Course:
    """Both sides (B, samples, items) along paths, with their last decade of time.

    `timed`: the sides name t, and so may be small or large where tokens are not. `blur` (B, items): what
    becomes of an error of BLUR at the end.
    """

    def __init__(self, path: Path, timed: bool, blur: Tensor, left: Tensor, right: Tensor | None) -> None:
        self.path, self.timed, self.blur, self.left, self.right = path, timed, blur, left, right
        self.last = path.last
        self.end = self.of_row(path.times, self.last)
        norms = path.states.nan_to_num(0).abs().amax((2, 3))
        seen_growing = path.grew & (self.of_row(norms, self.last) > 1e6 * norms[:, 0])
        self.usable = ((path.reached[:, -1] | seen_growing) & (self.last > 3))[:, None]
        self.early = self.index(0.1)
        ratio = self.end / self.of_row(path.times, self.early).clamp(min=1e-300)
        self.decades = ratio.log10().clamp(min=0.3)[:, None]

    @staticmethod
    def of_row(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(1, index[:, None])[:, 0]

    def index(self, share: float) -> Tensor:
        """The last sample up to a share of the end, (B,)."""
        return ((self.path.times <= self.end[:, None] * share * (1 + 1e-12)).sum(1) - 1).clamp(min=0)

    def peak(self, values: Tensor, index: Tensor) -> Tensor:
        """The largest |values| of four samples up to that of each row (B, items): zeros do not count."""
        return torch.stack([self.pick(values.abs(), (index - k).clamp(min=0)) for k in range(4)]).amax(0)

    @staticmethod
    def pick(values: Tensor, index: Tensor) -> Tensor:
        """(B, items) at the sample of each row."""
        return values.gather(1, index[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]

    def slope(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Change of log10|values| per decade of time, over the last one; what it rose from half to half."""
        floor = (FLOOR / BLUR * self.blur).clamp(min=1e-300)
        early, middle, late = (
            torch.maximum(self.peak(values, index), floor).log10()
            for index in (self.early, self.index(0.1**0.5), self.last)
        )
        return (late - early) / self.decades, 2 * (late - 2 * middle + early) / self.decades


def _onward(found: Tensor, rise: Tensor) -> Tensor:
    """Without a violation, less by what it falls from half to half: what is yet to settle is no near miss."""
    return torch.where(found < 0, found + rise.clamp(max=0), found)


def _limit(course: _Course, relation: str) -> Tensor:
    assert course.right is not None
    distance = (course.left - course.right).abs()
    late = course.pick(distance, course.last)
    floor = torch.maximum(FLOOR * distance[:, 0].clamp(min=1e-3), 10 * course.blur)
    slope, rise = course.slope(distance)
    return torch.where(late > floor, _onward(slope + 0.02, rise), -torch.inf)


def _unbounded(course: _Course, relation: str) -> Tensor:
    late, (slope, rise) = course.pick(course.left, course.last).abs(), course.slope(course.left)
    found = _onward(torch.where(course.path.grew[:, None] & (late > 1e6), -slope, 0.02 - slope), -rise)
    return torch.where(late < FLOOR * course.left[:, 0].abs().clamp(min=1e-3), 1.0, found)


def _bounded(course: _Course, relation: str) -> Tensor:
    late, (slope, rise) = course.pick(course.left, course.last), course.slope(course.left)
    grown = late > 3 * course.left[:, 0].abs().clamp(min=1e-2)
    return _onward(torch.where(grown, slope - 0.2, slope - 1.0), rise)


def _eventually(course: _Course, relation: str) -> Tensor:
    assert course.right is not None
    samples = torch.arange(course.left.shape[1], device=course.left.device)
    tail = (samples >= course.early[:, None]) & course.path.reached
    gaps = -_gap(course.left, course.right, relation)
    return torch.where(tail[..., None], gaps, torch.inf).amin(1) - 1e-6


def _speed(course: _Course, relation: str, clock: Tensor, folds: float, wary: bool) -> Tensor:
    """Of lim log(left)/clock: fitted over the later half of the part that runs resolve, or −inf.

    Powers of what has vanished are −∞. A measured or claimed change of less than e^folds there tells nothing
    about a limit, nor does a slope that still drifts, unless it goes to ±∞; if `wary`, unless the miss is
    more than the drift to come and oscillations may make up.
    """
    assert course.right is not None
    left = course.left.abs()
    floor = 1e-6 * course.path.states.nan_to_num(0).abs().amax((2, 3))[..., None]
    alive = ((course.timed | (left > floor)) & (left > GONE) & course.path.reached[..., None]).all(2)
    last = alive.long().cumprod(1).sum(1) - 1
    logs = left.nan_to_num(1.0).clamp(min=1e-300).log()
    known, last = last > 8, last.clamp(min=min(8, logs.shape[1] - 1))
    (early, _), (late, _), (_, width) = (
        _line(clock, logs, (last * start).long(), (last * end).long())
        for start, end in ((0.5, 0.75), (0.75, 1.0), (0.5, 1.0))
    )
    bound = course.pick(course.right, last)
    gone = (course.pick(left, course.last) < GONE) & (left[:, 0] > GONE**0.5)
    gone = gone & _exponential(early, late) & (not wary)
    late = torch.where(gone, (10 * bound).clamp(max=GONE_POWER), late)
    miss = {">=": bound - late, ">": bound - late, "<=": late - bound, "<": late - bound}.get(
        relation, (late - bound).abs()
    )
    span = (course.of_row(clock, last) - course.of_row(clock, (last * 0.5).long()))[:, None]
    size, drift = torch.maximum(bound.abs(), late.abs()), (late - early).abs()
    open_still = wary * (3 * drift + 4 * width / span)
    gap = (miss - open_still) / size.clamp(min=1e-2) - 0.05
    told = (drift < 0.05 * size) | (wary & (gap > 0)) | (not wary and _exponential(early, late))
    return torch.where(gone | (told & (size * span > folds) & known[:, None]), gap, -torch.inf)


def _exponential(early: Tensor, late: Tensor) -> Tensor:
    """Whether slopes in log t are those of e^{±t}: large, and in proportion to t. The power is then ±∞."""
    return (late.abs() > 12) & (late / early > 1.5)


def _line(clock: Tensor, values: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """Slope of the values (B, samples, items) over the clock, fitted to samples start … end of each row; the
    largest distance from the fitted line."""
    sample = torch.arange(clock.shape[1], device=clock.device)
    inside = ((sample >= start[:, None]) & (sample <= end[:, None])).to(clock)
    share = inside / inside.sum(1, keepdim=True)
    moved = clock - (share * clock).sum(1, keepdim=True)
    off = values - (share[..., None] * values).sum(1, keepdim=True)
    weight = share * moved
    slope = (weight[..., None] * off).sum(1) / (weight * moved).sum(1).clamp(min=1e-300)[:, None]
    distance = (off - slope[:, None] * moved[..., None]).abs() * inside[..., None]
    return slope, distance.amax(1)


def _rate(course: _Course, relation: str) -> Tensor:
    """A factor t^k in the quantity makes its slope drift by 0.4 of what is still to come."""
    return _speed(course, relation, course.path.times, 8.0, wary=True)


def _power(course: _Course, relation: str) -> Tensor:
    return _speed(course, relation, course.path.times.clamp(min=1e-300).log(), 0.3, wary=False)


LONG_RUN = {
    "limit": _limit,
    "unbounded": _unbounded,
    "bounded": _bounded,
    "eventually": _eventually,
    "rate": _rate,
    "power": _power,
}


def uses_start(claim: Claim) -> bool:
    """Whether later states are no starts: hypotheses restrict these, or the conclusion names them or t."""
    restricted = any(not static(condition) for condition in claim.conditions)
    return restricted or bool({"t", "x0"} & claim.parsed.names())


def largest(items: Tensor) -> Tensor:
    """The worst item of each system, (B,); −inf without items."""
    return items.amax(1) if items.shape[1] else items.new_full((len(items),), -torch.inf)
