"""T4: each token's energy against its threshold and rate."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import RESPONSE


def token_energies(moment: Moment) -> Tensor:
    """E_i = ½ x_iᵀ(σA)x_i, (batch, n)."""
    return moment.constant("sigma")[:, None] * observables.token_energy(moment.x, moment.response)


def _inequality(moment: Moment) -> tuple[Tensor, Tensor]:
    rate = observables.token_energy_rate(moment.x, moment.velocity, moment.response)
    bound = (
        2 * moment.constant("lambda")[:, None] * token_energies(moment) - moment.constant("kappa")[:, None]
    )
    return rate, bound


def _curve(run: Run) -> Tensor:
    """σ(E_i(t) − bound(t)), relative: the energy stays on its side of the claimed exponential."""
    energies, sigma = run.along(token_energies), run.start.constant("sigma")[:, None, None]
    rate = run.start.constant("lambda")[:, None, None]
    threshold = run.start.constant("kappa")[:, None, None] / (2 * rate)
    bound = threshold + (energies[:, :1] - threshold) * torch.exp(2 * sigma * rate * run.times[:, None])
    margin = sigma * (energies - bound) / (energies.abs() + bound.abs() + threshold)
    return smallest(margin)


PENCIL_SIDES = {
    "energy is non-negative": lambda m: against_zero(token_energies(m)),
    "the rate is positive": lambda m: against_zero(m.constant("lambda")[:, None]),
}

T4 = Row(
    id="T4",
    family=RESPONSE,
    sides={
        **PENCIL_SIDES,
        "energy inequality": _inequality,
    },
    conclusions=(
        Conclusion(
            "energy beyond the exponential of its rate", _curve, 1e-6, "the integrator's relative error"
        ),
    ),
    horizon=2.0,
)
