"""T5: the partition total F moves one way."""

import torch
from torch import Tensor

from numerics import Outcome, observables
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero, of_order_one, vanishes
from tokendyn.pairing.divergence import escapes
from tokendyn.pairing.pairwise import monotone
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import RESPONSE


def _total(moment: Moment) -> tuple[Tensor, Tensor]:
    total = observables.partition_total(moment.system, moment.x)[:, None]
    return total, torch.full_like(total, moment.n**2)


def _rate(moment: Moment) -> Tensor:
    return observables.partition_total_rate(moment.system, moment.x)[:, None]


def _dissipation(moment: Moment) -> Tensor:
    """Σ_i g_iᵀA⁻¹g_i/(2Z_i) with g_i = 2Z_iWm_i, (batch, 1)."""
    normaliser = moment.system.scores(moment.x).exp().sum(-1)
    gradient = 2 * normaliser[..., None] * observables.potential_gradient(moment.system, moment.x, moment.x)
    solved = torch.linalg.solve(moment.response, gradient.mT).mT
    return ((gradient * solved).sum(-1) / (2 * normaliser)).sum(1, keepdim=True)


def _log_total(moment: Moment) -> Tensor:
    return observables.log_partition_total(moment.system, moment.x)[:, None]


def _one_way(run: Run) -> Tensor:
    return monotone(run.along(_log_total), run.start.constant("sigma"))


def _size(moment: Moment) -> Tensor:
    return (moment.x**2).sum((1, 2))[:, None]


def _fate(run: Run) -> Tensor:
    """A_s ≻ 0: a threshold is crossed; A_s ≺ 0: the squared size vanishes. The equilibrium stays."""
    converging = (run.start.constant("sigma") < 0) & (run.solution.outcome == Outcome.REACHED)
    at_rest = (run.start.x == 0).flatten(1).all(1)
    fate = torch.where(converging, vanishes(run.along(_size)[:, :, 0]), escapes(run))
    return torch.where(at_rest, 1.0, fate)


T5 = Row(
    id="T5",
    family=RESPONSE,
    sides={
        "F is at least n²": _total,
        "F moves one way": lambda m: against_zero(m.constant("sigma")[:, None] * _rate(m)),
        "F's balance": lambda m: (_rate(m), m.constant("c")[:, None] * _dissipation(m)),
    },
    conclusions=(
        Conclusion("F moves one way", _one_way, 1e-7, "the integrator's error per output time"),
        Conclusion("tokens vanish or cross 1e4", _fate, 0.0, "none: see T2 and T3"),
    ),
    horizon=800.0,
    prepare=of_order_one,
)
