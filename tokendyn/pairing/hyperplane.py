"""T17: the exact envelope of the distances to a hyperplane."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import HYPERPLANE


def levels(moment: Moment) -> Tensor:
    """z_i = ℓᵀx_i, (batch, n)."""
    return observables.hyperplane(moment.x, moment.ell)


def _rates(moment: Moment) -> Tensor:
    return observables.hyperplane(moment.velocity, moment.ell)


def _lags(moment: Moment) -> tuple[Tensor, Tensor]:
    slowest = moment.constant("mu")[:, None] * levels(moment).amin(1, keepdim=True)
    return _rates(moment), slowest.expand(-1, moment.n)


def _leads(moment: Moment) -> tuple[Tensor, Tensor]:
    fastest = moment.constant("mu")[:, None] * levels(moment).amax(1, keepdim=True)
    return fastest.expand(-1, moment.n), _rates(moment)


def _envelope(run: Run) -> Tensor:
    """Distance of every z_i(t) from the edges of [e^{μt} min z, e^{μt} max z], relative to the size of x."""
    z = run.along(levels)
    growth = torch.exp(run.start.constant("mu")[:, None] * run.times)
    low, high = z[:, 0].amin(1, keepdim=True) * growth, z[:, 0].amax(1, keepdim=True) * growth
    room = torch.minimum(z.amin(2) - low, high - z.amax(2))
    size = run.solution.states.flatten(2).abs().amax(2)
    return smallest(room / size)


T17 = Row(
    id="T17",
    family=HYPERPLANE,
    sides={
        "no token lags": _lags,
        "no token leads": _leads,
        "every token moves outward": lambda m: against_zero(_rates(m)),
    },
    conclusions=(
        Conclusion(
            "exact envelope e^{μt}[min z, max z]",
            _envelope,
            1e-6,
            "the integrator's error relative to the tokens",
        ),
    ),
    horizon=4.0,
)
