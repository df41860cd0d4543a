"""T1: pairwise distances in the response metric."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.potential import monotone_gradient
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import RESPONSE


def distances(moment: Moment) -> Tensor:
    """q_ij = (x_i − x_j)ᵀ(σA)(x_i − x_j)."""
    return moment.constant("sigma")[:, None] * observables.pairwise_form(moment.x, moment.response)


def is_distance(moment: Moment) -> tuple[Tensor, Tensor]:
    return distances(moment), torch.zeros_like(distances(moment))


def moves_one_way(moment: Moment) -> tuple[Tensor, Tensor]:
    rate = observables.pairwise_form_rate(moment.x, moment.velocity, moment.response)
    return rate, torch.zeros_like(rate)


def _balance(moment: Moment) -> tuple[Tensor, Tensor]:
    return moves_one_way(moment)[0], 2 * moment.constant("c")[:, None] * monotone_gradient(moment)


def monotone(values: Tensor, direction: Tensor) -> Tensor:
    """Smallest step of (batch, times, items) in its direction (±1), relative to the larger end.

    Below 1e-12 of its start a series counts as vanished, and steps are measured against that floor, where
    the integrator's absolute tolerance shows. Steps that were not reached do not count.
    """
    before, after = values[:, :-1], values[:, 1:]
    size = torch.maximum(torch.maximum(before.abs(), after.abs()), 1e-12 * values[:, :1].abs())
    step = torch.where(size > 0, direction[:, None, None] * (after - before) / size, 0.0)
    return smallest(step)


def distances_monotone(run: Run) -> Tensor:
    return monotone(run.along(distances), run.start.constant("sigma"))


DISTANCES_MONOTONE = Conclusion(
    "distances move one way",
    distances_monotone,
    1e-5,
    "a distance far below the tokens' size carries the integrator's error relative to the tokens",
)

T1 = Row(
    id="T1",
    family=RESPONSE,
    sides={"it is a distance": is_distance, "it moves one way": moves_one_way, "distance balance": _balance},
    conclusions=(DISTANCES_MONOTONE,),
    horizon=2.0,
)
