"""What an integration can watch while it runs: quadratic quantities, events and running records on them."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

OF = ("tokens", "differences")
EXTREMA = ("largest", "smallest")
RECORDS = ("maximum", "minimum", "integral")


@dataclass(frozen=True, eq=False)
class Quantity:
    """The largest or smallest vᵀMv over the tokens v = x_i, or over the differences v = x_i − x_j, i < j.

    form M: (d, d), (batch, d, d), or None for the identity. Examples: T4's energies are
    ``Quantity(A / 2)``, the squared diameter is ``Quantity(of="differences")``.
    """

    form: Tensor | None = None
    of: str = "tokens"
    extremum: str = "largest"


Watched = Quantity | Callable[[Tensor], Tensor]
"""A Quantity, or any function of tokens (rows, n, d) that gives one number per row (rows,)."""


@dataclass(frozen=True, eq=False)
class Event:
    """The first time at which the quantity is ≥ level (``rising``) or ≤ level (not), the start included.

    level: a number, or one per system (batch,). A ``terminal`` event ends its row there.
    """

    quantity: Watched
    level: float | Tensor
    rising: bool = True
    terminal: bool = False


@dataclass(frozen=True, eq=False)
class Observable:
    """A running ``record`` of a quantity along the trajectory: maximum, minimum, or integral over time.

    Maximum and minimum are over the ends of the accepted steps, the start included. The integral is the
    three-point Gauss–Legendre rule on every step, cut into equal parts in which log-radius r changes by about
    ¼ at most; its error is not controlled.
    """

    quantity: Watched
    record: str = "maximum"
