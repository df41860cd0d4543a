"""L6: no token outruns e^{‖V‖t}."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import VALUE


def _speed_limit(moment: Moment) -> tuple[Tensor, Tensor]:
    largest = observables.norms(moment.x).amax(1, keepdim=True)
    limit = moment.constant("c")[:, None] * (moment.constant("norm_V")[:, None] * largest) ** 2
    return limit.expand(-1, moment.n), (moment.velocity**2).sum(-1)


def _envelope(run: Run) -> Tensor:
    """How far below its bound the largest norm stays, relative to the bound."""
    norms = run.along(_norms).amax(2)
    bound = norms[:, :1] * torch.exp(run.start.constant("norm_V")[:, None] * run.times)
    return smallest(torch.where(bound > 0, 1 - norms / bound, 0.0))


def _norms(moment: Moment) -> Tensor:
    return observables.norms(moment.x)


L6 = Row(
    id="L6",
    family=VALUE,
    sides={"speed limit": _speed_limit},
    conclusions=(
        Conclusion("below e^{‖V‖t}", _envelope, 1e-6, "the integrator's relative error over the horizon"),
    ),
    horizon=3.0,
)
