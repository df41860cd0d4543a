"""What an integration returns."""

from dataclasses import dataclass
from enum import IntEnum

import torch

from numerics.dense import Dense
from numerics.shapes import Counts, EventTimes, Path, Records, Rows, RowTimes, Times


class Outcome(IntEnum):
    """How the integration of one system ended."""

    REACHED = 0
    ESCAPED = 1
    STALLED = 2
    INVALID = 3
    STOPPED = 4


ADVICE = {
    Outcome.REACHED: "every output time was reached.",
    Outcome.ESCAPED: "a coordinate passed `escape`. This is a threshold crossing, not a proof of divergence: "
    "quote the threshold and last_time, or raise `escape` (math.inf for none).",
    Outcome.STALLED: "max_steps was used up, or the step fell below rounding. Usually the system is stiff "
    "(large tokens, contracting): use method='auto', raise max_steps, loosen rtol, or shorten the horizon.",
    Outcome.INVALID: "the weights, the start, or the first scores or velocity are not finite: repair or "
    "drop the rows.",
    Outcome.STOPPED: "a terminal event occurred; its time is in events.",
}


@dataclass(frozen=True, eq=False)
class Solution:
    """Sampled trajectories, one row per system.

    The tokens at times[k] are states[:, k] · e^log_scale[:, k]; log_scale (batch, times) is 0 wherever the
    tokens themselves are below 1e300. states (batch, times, n, d) is NaN wherever a row did not get to that
    time; outcome (batch,) holds ``Outcome`` values; steps (batch,) counts attempted steps, stiff_steps those
    of the stiff method among them; last_time (batch,) is where the last accepted step ended. events
    (batch, events) holds the time of each event, NaN where it did not occur up to last_time; observed
    (batch, observables) the records up to last_time. dense, if asked for, gives the tokens at any time.

    What it is not: REACHED is accuracy to tolerance per step, not a bound on the global error. ESCAPED is a
    coordinate larger than ``escape`` at last_time, neither blow-up (impossible in finite time, L6) nor
    divergence (a statement about all later times). STALLED speaks about the method, not about the system.
    """

    times: Times
    states: Path
    log_scale: RowTimes
    outcome: Counts
    steps: Counts
    stiff_steps: Counts
    last_time: Rows
    events: EventTimes
    observed: Records
    dense: Dense | None = None

    @property
    def log_norm(self) -> RowTimes:
        """log max |x| over all entries (batch, times), also where x itself overflows; −inf at 0."""
        return self.states.abs().amax((-2, -1)).log() + self.log_scale

    def explain(self) -> str:
        """One line for each outcome that occurs: how many rows, the first few, and what to do next."""
        lines = []
        for kind in Outcome:
            rows = (self.outcome == kind).nonzero().flatten().tolist()
            if rows:
                shown = ", ".join(map(str, rows[:5])) + (", …" if len(rows) > 5 else "")
                lines.append(f"{kind.name} {len(rows)} of {len(self.outcome)} (rows {shown}): {ADVICE[kind]}")
        return "\n".join(lines)


def empty(
    times: Times, batch: int, n: int, d: int, events: int, observables: int, dense: Dense | None = None
) -> Solution:
    """A record in which no row has got anywhere: all outcomes INVALID, everything else NaN or 0."""
    at = {"dtype": times.dtype, "device": times.device}
    counts = torch.zeros(batch, dtype=torch.int64, device=times.device)
    return Solution(
        times=times,
        states=torch.full((batch, len(times), n, d), torch.nan, **at),
        log_scale=torch.zeros(batch, len(times), **at),
        outcome=torch.full_like(counts, Outcome.INVALID),
        steps=counts,
        stiff_steps=counts.clone(),
        last_time=times[0].repeat(batch),
        events=torch.full((batch, events), torch.nan, **at),
        observed=torch.full((batch, observables), torch.nan, **at),
        dense=dense,
    )
