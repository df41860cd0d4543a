"""T7 and T8: an unstable rotation, and a token that never moves."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import ROTATION, VALUE


def _minors(matrix: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    half = observables.symmetric_part(matrix)
    trace = sign * half.diagonal(dim1=1, dim2=2).sum(1)
    return against_zero(torch.stack([trace, torch.linalg.det(half)], dim=1))


def _growth_rate(moment: Moment) -> tuple[Tensor, Tensor]:
    a, b = moment.score[:, 0, :1], moment.score[:, 1, :1]
    return moment.constant("alpha")[:, None] * (a**2 + b**2), moment.constant("c")[:, None] * (b**2 - a**2)


def _together(moment: Moment) -> Moment:
    """All tokens moved onto the first."""
    return moment.at(moment.x[:, :1].expand_as(moment.x).clone())


def _spirals_out(run: Run) -> Tensor:
    """−|measured − claimed| growth rate of equal tokens, whose norm is exactly exponential here."""
    norms = torch.linalg.vector_norm(run.solution.states[:, :, 0], dim=-1)
    measured = (norms[:, -1] / norms[:, 0]).log() / (run.times[-1] - run.times[0])
    return torch.where(norms[:, 0] > 0, -(measured - run.start.constant("alpha")).abs(), 0.0)


T7 = Row(
    id="T7",
    family=ROTATION,
    sides={
        "W_s is positive definite": lambda m: _minors(m.score, 1),
        "A_s is negative definite": lambda m: _minors(m.response, -1),
        "V is unstable": lambda m: against_zero(m.constant("alpha")[:, None]),
        "its growth rate": _growth_rate,
    },
    conclusions=(
        Conclusion(
            "equal tokens spiral out at rate −cos 2θ", _spirals_out, 1e-6, "the integrator's relative error"
        ),
    ),
    horizon=4.0,
    prepare=_together,
)


def _rests(moment: Moment) -> tuple[Tensor, Tensor]:
    third = moment.velocity[:, 2:3].flatten(1)
    claimed = (moment.constant("c")[:, None] - 1) * moment.x[:, 0]
    return third, claimed[:, : third.shape[1]]


def _mirrored(moment: Moment) -> tuple[Tensor, Tensor]:
    mirror = -moment.constant("c")[:, None, None] * moment.velocity[:, 1:2]
    return moment.velocity[:, : mirror.shape[1]].flatten(1), mirror.flatten(1)


def _stays(run: Run) -> Tensor:
    """−‖x_3(t)‖ relative to the largest token."""
    states = run.solution.states
    size = states.flatten(2).abs().amax(2)
    resting = states[:, :, 2].abs().amax(-1)
    return -torch.where(size > 0, resting / size, 0.0).nan_to_num(nan=0.0).amax(1)


T8 = Row(
    id="T8",
    family=VALUE,
    sides={"the zero token rests": _rests, "the pair stays mirrored": _mirrored},
    conclusions=(
        Conclusion(
            "the zero token stays",
            _stays,
            1e-6,
            "rounding breaks the mirror symmetry, and the flow amplifies it",
        ),
    ),
    horizon=3.0,
)
