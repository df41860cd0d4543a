"""T3: energy grows past any threshold."""

import torch
from torch import Tensor

from numerics import Outcome
from tokendyn.pairing.convergence import against_zero, energy, energy_rate, mean_total_score, of_order_one
from tokendyn.pairing.pairwise import monotone
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import RESPONSE


def _grows(run: Run) -> Tensor:
    return monotone(run.along(energy), run.start.constant("c"))


def escapes(run: Run) -> Tensor:
    """1 where a coordinate crossed the threshold, −1 where the time ran out, NaN where the steps did."""
    crossed = (run.solution.outcome == Outcome.ESCAPED).to(run.times.dtype) * 2 - 1
    return torch.where(run.solution.outcome == Outcome.STALLED, torch.nan, crossed)


ESCAPES = Conclusion("a token crosses 1e4", escapes, 0.0, "none: a threshold is crossed or not")

T3 = Row(
    id="T3",
    family=RESPONSE,
    sides={
        "energy is positive": lambda m: against_zero(energy(m)),
        "energy grows": lambda m: against_zero(energy_rate(m)),
        "energy increases": lambda m: (energy_rate(m), mean_total_score(m)),
    },
    conclusions=(Conclusion("energy grows", _grows, 1e-7, "the integrator's error per output time"), ESCAPES),
    horizon=800.0,
    prepare=of_order_one,
)
