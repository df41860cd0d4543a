"""What every back-end is given and hands on: the task, and the position of the rows still under way."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from numerics.kernel import Kernel
from numerics.quantities import Event, Observable


@dataclass(frozen=True, eq=False)
class Task:
    """A checked initial value problem for a batch; forms are None or (batch, d, d), levels (batch,)."""

    kernel: Kernel  # of the whole batch
    times: Tensor
    rtol: float
    atol: float
    max_steps: int
    log_escape: float
    growth: bool  # may rows go over to log-radius coordinates?
    stiff: bool  # should rows that turn out stiff be handed over?
    events: tuple[Event, ...] = ()
    observables: tuple[Observable, ...] = ()


@dataclass
class Position:
    """Rows under way, batch last. They have recorded everything up to t in the Solution."""

    row: Tensor  # index in the batch (rows,)
    z: Tensor  # state (n·d + 1, rows), see radial
    growing: Tensor  # (rows,)
    t: Tensor
    step: Tensor  # proposed next step; 0 if the method should choose
    goal: Tensor  # index of the next output time
    steps: Tensor  # attempted so far

    def keep(self, rows: Tensor) -> "Position":
        """The rows selected by a mask or an index."""
        return Position(*(getattr(self, field.name)[..., rows] for field in fields(self)))

    def none(self) -> "Position":
        """The same without any row."""
        return self.keep(self.row[:0])


def join(parts: list[Position]) -> Position:
    """The rows of several positions side by side."""
    return Position(*(torch.cat([getattr(part, f.name) for part in parts], -1) for f in fields(Position)))
