"""T2: energy falls, tokens converge to zero."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.pairwise import monotone
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import RESPONSE


def energy(moment: Moment) -> Tensor:
    """½ Σ x_iᵀAx_i, (batch, 1)."""
    return observables.token_energy(moment.x, moment.response).sum(1, keepdim=True)


def energy_rate(moment: Moment) -> Tensor:
    return observables.token_energy_rate(moment.x, moment.velocity, moment.response).sum(1, keepdim=True)


def mean_total_score(moment: Moment) -> Tensor:
    """c (Σx_i)ᵀW(Σx_i)/n, (batch, 1)."""
    total = moment.x.sum(1, keepdim=True)
    score = 2 * observables.token_energy(total, moment.score)
    return moment.constant("c")[:, None] * score / moment.n


def against_zero(value: Tensor) -> tuple[Tensor, Tensor]:
    return value, torch.zeros_like(value)


def _falls(run: Run) -> Tensor:
    return monotone(run.along(energy), run.start.constant("c"))


def vanishes(values: Tensor) -> Tensor:
    """Whether a positive quantity (batch, times) that should vanish does: the better of two margins.

    Either it is below 1/100 of its start, or it keeps falling: near zero the flow is at least cubic, so
    energy falls like 1/t or faster, doubling t at least halves it in the limit, and 0.75 leaves room for
    the approach.
    """
    start, half, end = values[:, 0], values[:, values.shape[1] // 2], values[:, -1]
    small = torch.where(start > 0, 0.01 - end / start, 0.01)
    falling = torch.where(half > 0, 0.75 - end / half, 0.75)
    return torch.maximum(small, falling)


def _tokens_vanish(run: Run) -> Tensor:
    return vanishes(-run.along(energy)[:, :, 0])


def of_order_one(moment: Moment) -> Moment:
    """The same systems with the largest token scaled to norm 2: slow starts near 0 need longer horizons."""
    size = observables.norms(moment.x).amax(1)[:, None, None]
    return moment.at(torch.where(size > 0, 2 * moment.x / size, moment.x))


T2 = Row(
    id="T2",
    family=RESPONSE,
    sides={
        "energy is non-negative": lambda m: against_zero(-energy(m)),
        "energy never grows": lambda m: against_zero(energy_rate(m)),
        "energy decreases": lambda m: (energy_rate(m), mean_total_score(m)),
    },
    conclusions=(
        Conclusion("energy falls", _falls, 1e-7, "the integrator's error per output time"),
        Conclusion("tokens vanish", _tokens_vanish, 0.0, "none: the margin has room for decay like 1/t"),
    ),
    horizon=800.0,
    prepare=of_order_one,
)
