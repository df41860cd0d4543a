"""The Torch back-end: every row has its own step size, and rows leave when they have finished.

Only elementwise operations, maxima, ``exp`` and ``log`` act on the working set: they round the same way
wherever a number lies in memory, which is what keeps a row's answer independent of its batch mates. ``pow``,
matrix kernels and ``sum`` do not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from numerics import dormand_prince as dp
from numerics import radial
from numerics.dense import Polynomial
from numerics.kernel import Kernel, flow, on_sphere
from numerics.radial import largest
from numerics.solution import Outcome, Solution
from numerics.task import Position, Task, join
from numerics.watch import Watch, watch

BUCKETS = 4


class CompileError(RuntimeError):
    """torch.compile does not work on this machine."""


class Step(NamedTuple):
    """A step as a method proposes it: its end, the slope and the error there.

    Dormand–Prince adds its last state but one and k₁ … k₇; other methods add the coefficients c₃, c₄, c₅ of
    their interpolant (``dense.Polynomial``).
    """

    z: Tensor
    slope: Tensor
    error: Tensor
    before: Tensor | None = None
    slopes: tuple[Tensor, ...] = ()
    bends: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Method:
    """A one-step method: step(z, slope, h, kernel, growing) and the exponents of its step-size control."""

    step: Callable[[Tensor, Tensor, Tensor, Kernel, Tensor | None], Step]
    alpha: float
    beta: float
    stiff: bool = False


class Accepted(NamedTuple):
    """A step that some rows accepted."""

    row: Tensor  # index in the batch (rows,)
    goal: Tensor  # index of the output time it ends on, or −1
    h: Tensor
    z: Tensor  # at its start (n·d + 1, rows)
    slope: Tensor  # there


class Trial(NamedTuple):
    """A step that has been judged; a step of size h from t."""

    new: Step
    size: Tensor  # max|u| at its end
    h: Tensor
    error: Tensor  # as a multiple of the tolerance
    accepted: Tensor
    lands: Tensor  # does it end on the next output time?
    proposal: Tensor  # the next step


@dataclass
class _Working:
    """The rows under way, and those that have finished but not yet left; the batch is the last axis."""

    kernel: Kernel
    at: Position
    live: Tensor
    slope: Tensor
    size: Tensor  # max|u|
    error: Tensor  # of the last accepted step
    rejected: Tensor  # was the last step rejected?
    begun: Tensor  # steps when this method took over
    stiffness: Tensor  # mean of h times the dominant eigenvalue, over recent steps
    watch: Watch | None

    def keep(self, rows: Tensor) -> "_Working":
        """The rows selected by a mask or an index."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: part[..., rows] for name, part in parts.items() if isinstance(part, Tensor)}
        watch = self.watch and self.watch.keep(rows)
        return replace(self, kernel=self.kernel.keep(rows), at=self.at.keep(rows), watch=watch, **tensors)


def _power(base: Tensor, exponent: float) -> Tensor:
    return torch.exp(exponent * torch.log(base))


def combine(weights: tuple[float, ...], slopes: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Σ weight · slope, added in order."""
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * slope if weight else total
    return total


def _explicit(z: Tensor, slope: Tensor, h: Tensor, kernel: Kernel, growing: Tensor | None) -> Step:
    slopes, states = [slope], [z]
    for weights in dp.STAGES:
        states.append(z + h * combine(weights, slopes))
        slopes.append(radial.slope(states[-1], kernel, growing))
    return Step(states[-1], slopes[-1], h * combine(dp.ERROR, slopes), states[-2], tuple(slopes))


DORMAND_PRINCE = Method(_explicit, dp.ALPHA, dp.BETA)


def path(z: Tensor, slope: Tensor, h: Tensor, new: Step) -> Polynomial:
    """The interpolant of a step of size h from z."""
    rise = new.z - z
    if new.bends:
        return z, rise, *new.bends
    bend = h * slope - rise
    return z, rise, bend, rise - h * new.slope - bend, h * combine(dp.BEND, new.slopes)


def measure(
    error: Tensor, size: Tensor, r: Tensor, growing: Tensor | None, rtol: float | Tensor, atol: float | Tensor
) -> Tensor:
    """An error or slope (n·d + 1, batch) in multiples of the tolerance, for states with max|u| = size."""
    if growing is None:
        return largest(error) / (atol + rtol * size)
    ratio = largest(error) / (atol * torch.exp(-r) + rtol * size)
    return torch.where(growing, torch.maximum(ratio, error[-1].abs() / rtol), ratio)


def _starting_step(w: _Working, growing: Tensor | None, rtol: float, atol: float) -> Tensor:
    """Hairer, Nørsett & Wanner I, II.4, "Starting step size" (a)–(f), order 5."""
    z, r = w.at.z, w.at.z[-1]
    d0 = measure(torch.cat([z[:-1], torch.zeros_like(r)[None]]), w.size, r, growing, rtol, atol)
    d1 = measure(w.slope, w.size, r, growing, rtol, atol)
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    change = radial.slope(z + h0 * w.slope, w.kernel, growing) - w.slope
    d2 = measure(change, w.size, r, growing, rtol, atol) / h0
    steepest = torch.maximum(d1, d2)
    h1 = torch.where(steepest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), _power(0.01 / steepest, 1 / 5))
    return torch.minimum(100 * h0, h1)


def advance(
    method: Method, z: Tensor, slope: Tensor, h: Tensor, kernel: Kernel, growing: Tensor | None
) -> Step:
    """A step of size h (rows,) from z.

    On the sphere its end is projected (Hairer, Lubich & Wanner, Geometric Numerical Integration, IV.4): where
    the sphere repels, as for V = −I, rounding would else grow like e^{2t}. Its slope is that of the state
    before, which differs by the local error.
    """
    new = method.step(z, slope, h, kernel, growing)
    if not kernel.sphere:
        return new
    u, r = radial.unpack(new.z, kernel)
    return new._replace(z=radial.pack(on_sphere(u), r))


def _attempt(
    method: Method,
    kernel: Kernel,
    growing: Tensor | None,
    z: Tensor,
    slope: Tensor,
    size: Tensor,
    t: Tensor,
    step: Tensor,
    target: Tensor,
    error: Tensor,
    rejected: Tensor,
    rtol: Tensor,
    atol: Tensor,
) -> Trial:
    """One attempted step of every row."""
    lands = t + dp.LANDING * step >= target
    h = torch.where(lands, target - t, step)
    new = advance(method, z, slope, h, kernel, growing)
    new_size = largest(new.z)
    ratio = measure(new.error, torch.maximum(size, new_size), z[-1], growing, rtol, atol)
    ratio = torch.where(ratio.isfinite() & new.slope.abs().amax(0).isfinite(), ratio, torch.inf)
    accepted = ratio <= 1
    growth = dp.SAFETY * _power(ratio, -method.alpha) * _power(error, method.beta)
    growth = growth.clamp(dp.LEAST, dp.MOST)
    growth = torch.where(accepted & ~rejected, growth, growth.clamp(max=1))
    proposal = h * growth
    proposal = torch.where(accepted & (growth >= 1), torch.maximum(proposal, step), proposal)
    return Trial(new, new_size, h, ratio, accepted, lands, proposal)


def _begin(method: Method, task: Task, at: Position, record: Solution) -> _Working:
    """The working set for rows at a position: slopes, coordinates, first steps."""
    at, kernel = replace(at), task.kernel.keep(at.row)
    slope = radial.slope(at.z, kernel, at.growing if at.growing.any() else None)
    if task.growth:
        at.z, slope, at.growing = radial.change(at.z, slope, at.growing)
    none = torch.zeros_like(at.steps)
    w = _Working(
        kernel=kernel,
        at=at,
        live=none == 0,
        slope=slope,
        size=largest(at.z),
        error=torch.full_like(at.t, dp.SMALLEST_ERROR),
        rejected=none > 0,
        begun=at.steps,
        stiffness=torch.zeros_like(at.t),
        watch=watch(task, at, kernel, record),
    )
    if (at.step == 0).any():
        first = _starting_step(w, at.growing if at.growing.any() else None, task.rtol, task.atol)
        at.step = torch.where(at.step == 0, first, at.step)
    return w


def _test_stiffness(w: _Working, trial: Trial, accepted: Tensor) -> Tensor:
    """Follows the mean of h times the dominant eigenvalue; returns which rows it tells to be stiff."""
    new = trial.new
    if new.before is not None and (w.at.steps >= dp.STIFF_AFTER).any():
        tested = accepted & (w.at.steps >= dp.STIFF_AFTER)
        bent, moved = largest(new.slopes[6] - new.slopes[5]), largest(new.z - new.before)
        change = dp.STIFF_SHARE * (trial.h * bent / moved.clamp(min=1e-300) - w.stiffness)
        w.stiffness = torch.where(tested, w.stiffness + change, w.stiffness)
    return w.stiffness > dp.STIFF_LIMIT


def _write_samples(w: _Working, landed: Tensor, record: Solution) -> None:
    row, goal = w.at.row[landed], w.at.goal[landed]
    record.states[row, goal], record.log_scale[row, goal] = radial.sample(w.at.z[:, landed], w.kernel)


def _follow(
    w: _Working, trial: Trial, t: Tensor, accepted: Tensor, record: Solution
) -> tuple[Tensor, Tensor]:
    """Watches a step to t and keeps it for dense output; returns which rows stop on it, and its end."""
    stopped = torch.zeros_like(w.live)
    if w.watch or record.dense is not None:
        start, curve = w.at.t, path(w.at.z, w.slope, trial.h, trial.new)
        if w.watch:
            stopped, t = w.watch.advance(curve, trial.new.z, start, trial.h, t, accepted, w.kernel)
        if record.dense is not None:
            record.dense.add(w.at.row, start, t, trial.h, curve, accepted)
    return stopped, t


def _move(w: _Working, trial: Trial, t: Tensor, accepted: Tensor) -> None:
    """Takes the accepted steps, and everybody's next step size."""
    at, new = w.at, trial.new
    at.z, w.slope = torch.where(accepted, new.z, at.z), torch.where(accepted, new.slope, w.slope)
    at.t, w.size = torch.where(accepted, t, at.t), torch.where(accepted, trial.size, w.size)
    w.error = torch.where(accepted, trial.error.clamp(min=dp.SMALLEST_ERROR), w.error)
    w.rejected, at.step, at.steps = ~accepted, trial.proposal.clone(), at.steps + 1


def _leave(
    w: _Working, stopped: Tensor, stiff: Tensor, task: Task, record: Solution, method: Method
) -> Tensor:
    """Writes the outcomes of the rows that have ended; returns which are to be handed over instead."""
    at, eps = w.at, torch.finfo(w.at.t.dtype).eps
    escaped, reached = w.size.log() + at.z[-1] > task.log_escape, at.goal == len(task.times)
    stalled = (at.steps >= task.max_steps) | (0.1 * at.step <= eps * at.t.abs())
    ended = w.live & (stopped | escaped | reached | stalled)
    outcome = torch.where(reached, Outcome.REACHED, Outcome.STALLED)
    outcome = torch.where(escaped, Outcome.ESCAPED, outcome)
    outcome = torch.where(stopped, Outcome.STOPPED, outcome)
    leaving = ended | (w.live & stiff)
    if leaving.any():
        row = at.row[ended]
        record.outcome[row], record.steps[row] = outcome[ended], at.steps[ended]
        record.last_time[row] = at.t[ended]
        if method.stiff:
            record.stiff_steps[row] = (at.steps - w.begun)[ended]
        if w.watch:
            w.watch.write(record, at.row, leaving)
        w.live = w.live & ~leaving
    return leaving & ~ended


def _drop(w: _Working, compiled: bool) -> _Working:
    """Lets finished rows leave, when they are many enough to be worth the copying.

    Compiled code is bound to a number of rows: it sees powers of BUCKETS only, filled up with finished rows.
    """
    rows, live = len(w.live), int(w.live.sum())
    if compiled:
        spare = _bucket(live) - live
        return w.keep(w.live | (~w.live & ((~w.live).cumsum(0) <= spare))) if live + spare < rows else w
    return w.keep(w.live) if live <= 7 / 8 * rows else w


def _bucket(rows: int) -> int:
    """The smallest power of BUCKETS that is at least rows, from its cube on."""
    return max(BUCKETS**3, BUCKETS ** math.ceil(math.log(max(rows, 1), BUCKETS)))


def _pad(w: _Working) -> _Working:
    """Fills the working set up to a bucket, with copies of its first row that count as finished."""
    rows, bucket = len(w.live), _bucket(len(w.live))
    w = w.keep(torch.cat([w.at.row.new_tensor(range(rows)), w.at.row.new_zeros(bucket - rows)]))
    w.live[rows:] = False
    return w


def march(
    method: Method,
    task: Task,
    at: Position,
    record: Solution,
    attempt: Callable[..., Trial] = _attempt,
    tape: list[Accepted] | None = None,
) -> Position:
    """Advances the rows at a position to their ends with one method; returns those it hands over as stiff.

    A tape receives every accepted step.
    """
    w, compiled = _begin(method, task, at, record), attempt is not _attempt
    if compiled and len(w.live):
        w = _pad(w)
    rtol, atol = w.at.t.new_tensor((task.rtol, task.atol))  # as numbers they would be compiled in
    handed = [w.at.none()]
    while w.live.any():
        at, live = w.at, w.live
        growing = at.growing if task.growth and (compiled or at.growing.any()) else None
        target = task.times[at.goal.clamp(max=len(task.times) - 1)]
        trial = attempt(
            method, w.kernel, growing, at.z, w.slope, w.size, at.t, at.step, target, w.error, w.rejected,
            rtol, atol,
        )  # fmt: skip
        accepted = trial.accepted & live
        t = torch.where(trial.lands, target, at.t + trial.h)
        stopped, t = _follow(w, trial, t, accepted, record)
        stiff = _test_stiffness(w, trial, accepted) if task.stiff else torch.zeros_like(live)
        landed = accepted & trial.lands & (t == target)
        if tape is not None:
            goal = torch.where(landed, at.goal, -1)
            tape.append(Accepted(*(part[..., accepted] for part in (at.row, goal, trial.h, at.z, w.slope))))
        _move(w, trial, t, accepted)
        if landed.any():
            _write_samples(w, landed, record)
            at.goal = at.goal + landed
        if task.growth:
            at.z, w.slope, at.growing = radial.change(at.z, w.slope, at.growing)
            w.size = largest(at.z)
        stiff = _leave(w, stopped, stiff, task, record, method)
        if stiff.any():
            handed.append(at.keep(stiff))
        if w.live is not live:
            w = _drop(w, compiled)
    return join(handed)


def run(task: Task, at: Position, record: Solution) -> Position:
    """Dormand–Prince steps on any device, row by row adaptive."""
    return march(DORMAND_PRINCE, task, at, record)


def run_compiled(task: Task, at: Position, record: Solution) -> Position:
    """The same with ``torch.compile``, on numbers of rows that are powers of BUCKETS.

    Raises CompileError where compiling is impossible.
    """
    from torch._dynamo import config  # slow to import
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(_attempt, dynamic=False, mode="reduce-overhead" if at.z.is_cuda else None)
    try:
        with config.patch(cache_size_limit=1024):
            return march(DORMAND_PRINCE, task, at, record, compiled)
    except TorchDynamoException as error:
        raise CompileError(type(error).__name__) from error


def _runge_kutta(x: Tensor, h: float, kernel: Kernel) -> Tensor:
    """The classical fourth-order step, in place to save memory; on the sphere its end is projected."""
    slope = flow(x, kernel)
    total = slope.clone()
    for share, weight in ((0.5, 2.0), (0.5, 2.0), (1.0, 1.0)):
        slope = flow(slope.mul_(share * h).add_(x), kernel)
        total += weight * slope
    total = total.mul_(h / 6).add_(x)
    return on_sphere(total) if kernel.sphere else total


def run_fixed(task: Task, at: Position, record: Solution, step: float) -> Position:
    """Classical Runge–Kutta steps, the same for all rows: equal parts of each interval, ``step`` at most.

    A row whose tokens are no longer numbers is STALLED, and so is one that used up max_steps.
    """
    row, kernel, steps = at.row, task.kernel.keep(at.row), 0
    x = radial.unpack(at.z, kernel)[0]
    for goal, (start, end) in enumerate(pairwise(task.times.tolist()), 1):
        count = max(1, math.ceil(min((end - start) / step, 2.0**53) * (1 - 1e-12)))
        for k in range(1, count + 1):
            if not len(row):
                break
            x, steps = _runge_kutta(x, (end - start) / count, kernel), steps + 1
            size = x.abs().amax((0, 1))
            if k == count:
                record.states[row, goal] = torch.where(size.isfinite(), x, torch.nan).movedim(-1, 0)
            reached = k == count and goal == len(task.times) - 1
            escaped = size.log() > task.log_escape
            ended = escaped | ~size.isfinite() | reached | (steps == task.max_steps)
            if ended.any():
                outcome = torch.full_like(row, Outcome.REACHED if reached else Outcome.STALLED)
                outcome = torch.where(size.isfinite(), outcome, Outcome.STALLED)
                outcome = torch.where(escaped, Outcome.ESCAPED, outcome)
                rows = row[ended]
                record.outcome[rows], record.steps[rows] = outcome[ended], steps
                record.last_time[rows] = end if k == count else start + k * (end - start) / count
                row, x, kernel = row[~ended], x[..., ~ended], kernel.keep(~ended)
    return at.none()
