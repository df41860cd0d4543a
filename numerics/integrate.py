"""Batched adaptive integration: every system has its own step size and its own outcome.

Dormand & Prince (1980), "A family of embedded Runge-Kutta formulae", J. Comput. Appl. Math. 6; starting step
(II.4) and step-size control as in the code DOPRI5 of Hairer, Nørsett & Wanner, "Solving Ordinary Differential
Equations I", 2nd ed. (1993), here with the maximum norm.

Only elementwise operations, maxima, ``exp`` and ``log`` act on the working set: they round the same way
wherever a number lies in memory, which is what keeps a row's answer independent of its batch mates. ``pow``,
matrix kernels and ``sum`` do not.
"""

from dataclasses import dataclass, fields
from enum import IntEnum

import torch
from torch import Tensor

from numerics.checks import check_tensor
from numerics.errors import InputError
from numerics.kernel import Kernel, flow, on_sphere
from numerics.shapes import Counts, Path, Rows, Times, Tokens
from numerics.system import AttentionSystem, batch_last

EPS = torch.finfo(torch.float64).eps

# Dormand & Prince (1980), Table 2, RK5(4)7M. The last stage is the fifth-order solution itself
# ("first same as last"); ERROR is the fifth- minus the fourth-order weights.
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


class Outcome(IntEnum):
    """How the integration of one system ended."""

    REACHED = 0
    ESCAPED = 1
    STALLED = 2
    INVALID = 3


ADVICE = {
    Outcome.REACHED: "every output time was reached.",
    Outcome.ESCAPED: "a coordinate passed `escape`. This is a threshold crossing, not a proof of divergence: "
    "quote the threshold and last_time, or raise `escape`.",
    Outcome.STALLED: "max_steps was used up, or the step fell below rounding. Usually the system is stiff "
    "(large tokens, contracting): raise max_steps, loosen rtol, or shorten the horizon.",
    Outcome.INVALID: "the weights, the start or the first velocity are not finite: repair or drop the rows.",
}


@dataclass(frozen=True, eq=False)
class Solution:
    """Sampled trajectories, one row per system.

    states (batch, times, n, d) is NaN wherever a row did not get to that time; outcome (batch,) holds
    ``Outcome`` values; steps (batch,) counts attempted steps; last_time (batch,) is where the last accepted
    step ended.

    What it is not: REACHED is accuracy to tolerance per step, not a bound on the global error. ESCAPED is a
    coordinate larger than ``escape`` at last_time, neither blow-up (impossible in finite time, L6) nor
    divergence (a statement about all later times). STALLED speaks about the method, not about the system.
    """

    times: Times
    states: Path
    outcome: Counts
    steps: Counts
    last_time: Rows

    def explain(self) -> str:
        """One line for each outcome that occurs: how many rows, the first few, and what to do next."""
        lines = []
        for kind in Outcome:
            rows = (self.outcome == kind).nonzero().flatten().tolist()
            if rows:
                shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
                lines.append(f"{kind.name} {len(rows)} of {len(self.outcome)} (rows {shown}): {ADVICE[kind]}")
        return "\n".join(lines)


@dataclass
class _Working:
    """The unfinished rows; every field has the batch as its last axis."""

    kernel: Kernel
    row: Tensor  # index in the caller's batch
    x: Tensor
    velocity: Tensor
    t: Tensor
    step: Tensor  # proposed next step
    goal: Tensor  # index of the next output time
    error: Tensor  # of the last accepted step, for the PI controller
    rejected: Tensor  # was the last step rejected?
    steps: Tensor

    def keep(self, mask: Tensor) -> "_Working":
        tensors = [field.name for field in fields(self) if field.name != "kernel"]
        kept = {name: getattr(self, name)[..., mask] for name in tensors}
        return _Working(kernel=self.kernel.keep(mask), **kept)


def _norm(x: Tensor) -> Tensor:
    """Largest absolute entry of each system: (n, d, batch) to (batch,)."""
    return x.abs().amax((0, 1))


def _power(base: Tensor, exponent: float) -> Tensor:
    return torch.exp(exponent * torch.log(base))


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for weight, slope in zip(weights[1:], slopes[1:], strict=True):
        total = total + weight * slope if weight else total
    return total


def _dormand_prince(x: Tensor, velocity: Tensor, h: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor, Tensor]:
    """One step of size h: the new state, its velocity, and the error estimate.

    On the sphere the new state is projected (Hairer, Lubich & Wanner, Geometric Numerical Integration, IV.4):
    where the sphere repels, as for V = −I, rounding would else grow like e^{2t}. Its velocity is that of the
    state before, which differs by the local error.
    """
    slopes, state = [velocity], x
    for weights in STAGES:
        state = x + h * _combine(weights, slopes)
        slopes.append(flow(state, kernel))
    state = on_sphere(state) if kernel.sphere else state
    return state, slopes[-1], h * _combine(ERROR, slopes)


def _starting_step(x: Tensor, velocity: Tensor, kernel: Kernel, rtol: float, atol: float) -> Tensor:
    """Hairer, Nørsett & Wanner I, II.4, "Starting step size" (a)–(f), order 5."""
    scale = atol + rtol * _norm(x)
    d0, d1 = _norm(x) / scale, _norm(velocity) / scale
    h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
    d2 = _norm(flow(x + h0 * velocity, kernel) - velocity) / scale / h0
    largest = torch.maximum(d1, d2)
    h1 = torch.where(largest <= 1e-15, (h0 * 1e-3).clamp(min=1e-6), _power(0.01 / largest, 1 / 5))
    return torch.minimum(100 * h0, h1)


def _advance(w: _Working, times: Tensor, rtol: float, atol: float) -> Tensor:
    """One attempted step of every working row, in place; returns which rows landed on an output time.

    A step that would end within 1 % of the next output time is cut or stretched to end on it.
    """
    target = times[w.goal]
    lands = w.t + 1.01 * w.step >= target
    h = torch.where(lands, target - w.t, w.step)
    x, velocity, error = _dormand_prince(w.x, w.velocity, h, w.kernel)
    ratio = _norm(error) / (atol + rtol * torch.maximum(_norm(w.x), _norm(x)))
    ratio = torch.where(ratio.isfinite() & _norm(velocity).isfinite(), ratio, torch.inf)
    accepted = ratio <= 1
    growth = (0.9 * _power(ratio, -0.17) * _power(w.error, 0.04)).clamp(0.2, 10)
    growth = torch.where(accepted & ~w.rejected, growth, growth.clamp(max=1))
    proposal = h * growth
    w.step = torch.where(accepted & (growth >= 1), torch.maximum(proposal, w.step), proposal)
    w.x, w.velocity = torch.where(accepted, x, w.x), torch.where(accepted, velocity, w.velocity)
    w.t = torch.where(accepted, torch.where(lands, target, w.t + h), w.t)
    w.error = torch.where(accepted, ratio.clamp(min=1e-4), w.error)
    w.rejected, w.steps = ~accepted, w.steps + 1
    return accepted & lands


def _check_sphere(x0: Tokens) -> None:
    length = torch.linalg.vector_norm(x0, dim=-1)
    rows = ((length - 1).abs() > 1e-9).logical_and(length.isfinite()).any(1).nonzero().flatten().tolist()
    if rows:
        fix = "torch.nn.functional.normalize(x0, dim=-1)"
        raise InputError("x0", f"tokens off the unit sphere in rows {rows[:8]}", "unit tokens", fix)


def _check(
    system: object, x0: Tokens, times: Times, rtol: float, atol: float, max_steps: int, escape: float
) -> None:
    if not isinstance(system, AttentionSystem):
        raise InputError(
            "system", type(system).__name__, "an AttentionSystem", "AttentionSystem(score, value)"
        )
    system.check_tokens(x0, "x0")
    if system.sphere:
        _check_sphere(x0)
    check_tensor("times", times, "times")
    if len(times) < 2 or not times.isfinite().all() or not (times.diff() > 0).all():
        expected = "at least two finite, strictly increasing times, the first being that of x0"
        raise InputError("times", times.tolist()[:8], expected, "sort them, drop repeats, prepend the start")
    if not EPS <= rtol < 1:
        raise InputError("rtol", rtol, f"machine epsilon {EPS:.1e} ≤ rtol < 1", "use e.g. 1e-8")
    if not 0 < atol < float("inf"):
        raise InputError("atol", atol, "a positive number", "use e.g. 1e-10, far below the tokens' size")
    if max_steps < 1:
        raise InputError("max_steps", max_steps, "at least 1", "use the default")
    if not escape > 0:
        raise InputError("escape", escape, "a positive threshold", "use the default")


@torch.no_grad()
def integrate(
    system: AttentionSystem,
    x0: Tokens,
    times: Times,
    *,
    rtol: float = 1e-8,
    atol: float = 1e-10,
    max_steps: int = 100_000,
    escape: float = 1e100,
) -> Solution:
    """Solve ẋ = velocity(x) for every system from x0 (batch, n, d), sampled at ``times`` (x0 at times[0]).

    The error of a step is measured per system: its largest entry against atol + rtol · (largest entry of x),
    so a small token beside a huge one is resolved relative to the huge one. A row ends as ESCAPED as soon as
    the start or an accepted step has an entry above ``escape``, as STALLED after ``max_steps`` attempts.
    No row's answer depends, to the last bit, on the other rows. With ``sphere`` every accepted state is
    normalised; x0 must be. Raises InputError for unusable arguments.
    """
    _check(system, x0, times, rtol, atol, max_steps, escape)
    times = times.to(x0.device)
    x, kernel = batch_last(x0), system.kernel(x0.shape[1])
    velocity = flow(x, kernel)
    states = x0.new_full((len(x0), len(times), *x0.shape[1:]), torch.nan)
    outcome = torch.full_like(x0[:, 0, 0], Outcome.INVALID, dtype=torch.int64)
    steps, last_time = torch.zeros_like(outcome), times[0].repeat(len(x0))

    valid = system.finite & _norm(x).isfinite() & _norm(velocity).isfinite()
    states[valid, 0] = x0[valid]
    outcome[valid] = Outcome.ESCAPED
    ones = torch.ones_like(last_time)
    first_step = _starting_step(x, velocity, kernel, rtol, atol)
    w = _Working(
        kernel=kernel,
        row=torch.arange(len(x0), device=x0.device),
        x=x,
        velocity=velocity,
        t=last_time,
        step=first_step,
        goal=steps + 1,
        error=1e-4 * ones,
        rejected=ones < 0,
        steps=steps,
    ).keep(valid & (_norm(x) <= escape))
    while len(w.row):
        landed = _advance(w, times, rtol, atol)
        states[w.row[landed], w.goal[landed]] = w.x[..., landed].movedim(-1, 0)
        w.goal = w.goal + landed
        escaped, reached = _norm(w.x) > escape, w.goal == len(times)
        stalled = (w.steps >= max_steps) | (0.1 * w.step <= EPS * w.t.abs())
        finished = escaped | reached | stalled
        if finished.any():
            ended = torch.where(reached, Outcome.REACHED, Outcome.STALLED)
            ended = torch.where(escaped, Outcome.ESCAPED, ended)
            rows = w.row[finished]
            outcome[rows], steps[rows], last_time[rows] = ended[finished], w.steps[finished], w.t[finished]
            w = w.keep(~finished)
    return Solution(times, states, outcome, steps, last_time)
