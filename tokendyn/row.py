"""A registry row: what the floating-point half computes for one statement."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from numerics import Solution
from tokendyn.moment import Moment
from tokendyn.sampling import Family

Sides = Callable[[Moment], tuple[Tensor, Tensor]]
"""Both sides of a claim, (batch, items) each, items in the order of the exact half."""


@dataclass(frozen=True)
class Run:
    """Trajectories of a batch: the start and the sampled solution."""

    start: Moment
    solution: Solution

    @property
    def times(self) -> Tensor:
        return self.solution.times

    def along(self, observe: Callable[[Moment], Tensor]) -> Tensor:
        """An observable (batch, items) at every output time: (batch, times, items); NaN where not reached."""
        return torch.stack(
            [observe(self.start.at(self.solution.states[:, k])) for k in range(len(self.times))], dim=1
        )


def smallest(margins: Tensor) -> Tensor:
    """Smallest reached margin of each system, (batch, …) to (batch,); NaN where there is none to compare."""
    least = margins.flatten(1).nan_to_num(nan=torch.inf)
    least = least.amin(1) if least.shape[1] else margins.new_full((len(margins),), torch.inf)
    return torch.where(least == torch.inf, torch.nan, least)


@dataclass(frozen=True)
class Conclusion:
    """What trajectories must show: margins (batch,), ≥ 0 where they agree; NaN where too short to tell.

    `tolerance` is what integration error may take from the margin, and `why` explains it.
    """

    name: str
    margin: Callable[[Run], Tensor]
    tolerance: float
    why: str


@dataclass(frozen=True)
class Row:
    """One statement in floating point.

    `family` makes random and exact systems (the statement's hypotheses and setting choose its members);
    `sides` has one entry per claim; `conclusions` are checked on trajectories over `horizon`.
    """

    id: str
    family: Family
    sides: Mapping[str, Sides]
    conclusions: tuple[Conclusion, ...] = ()
    horizon: float = 0.0
    trajectories: int = 40  # per size
    prepare: Callable[[Moment], Moment] = field(default=lambda moment: moment)
