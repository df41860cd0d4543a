"""T6: equal tokens follow the linear system ẋ = Vx; near zero, the mean of any tokens does."""

from dataclasses import replace

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.pairing.expansion import reach
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import VALUE


def _linear(moment: Moment) -> tuple[Tensor, Tensor]:
    linear = moment.constant("c")[:, None, None] * (moment.x @ moment.value.mT)
    return moment.velocity.flatten(1), linear.flatten(1)


def _flow(run: Run, x: Tensor) -> Tensor:
    """e^{Vt}x_i (batch, times, n, d) for x (batch, n, d)."""
    flow = torch.linalg.matrix_exp(run.start.value[:, None] * run.times[:, None, None])
    return torch.einsum("btde,bne->btnd", flow, x)


def _closeness(run: Run, exact: Tensor) -> Tensor:
    """Minus the distance from the exact path, relative to its largest state so far, at its largest."""
    gap = (run.solution.states - exact).flatten(2).abs().amax(2)
    size = exact.flatten(2).abs().amax(2).cummax(1).values
    return -torch.where(size > 0, gap / size, 0.0).nan_to_num(nan=0.0).amax(1)


def _matches_exponential(run: Run) -> Tensor:
    """x_i(t) against e^{Vt}x_i(0)."""
    return _closeness(run, _flow(run, run.start.x))


T6 = Row(
    id="T6",
    family=VALUE,
    sides={
        "equal tokens are linear": _linear,
        "some eigenvalue does not decay": lambda m: against_zero(m.constant("alpha")[:, None]),
    },
    conclusions=(
        Conclusion(
            "equal tokens follow e^{Vt}", _matches_exponential, 1e-6, "the integrator's relative error"
        ),
    ),
    horizon=4.0,
)


# T6b


def _distances_from_the_mean(moment: Moment) -> tuple[Tensor, Tensor]:
    """¼ R_i r_a and |(m_i − x̄)_a|, (batch, n·d)."""
    x, scores = moment.x, moment.system.scores(moment.x)
    gaps = (moment.system.attended_mean(x) - x.mean(1, keepdim=True)).abs()
    bound = moment.constant("c")[:, None, None] * reach(scores, 2) * reach(x, 1) / 4
    return bound.flatten(1), gaps.flatten(1)


def _near_zero(moment: Moment) -> Moment:
    """Starts of norm 1e-4, as the linearisation is local."""
    size = observables.norms(moment.x).amax(1)[:, None, None]
    return replace(moment, x=torch.where(size > 0, 1e-4 * moment.x / size, 1e-4))


def _matches_linearisation(run: Run) -> Tensor:
    """x_i(t) against x_i(0) − x̄(0) + e^{Vt}x̄(0)."""
    x = run.start.x
    mean = x.mean(1, keepdim=True)
    return _closeness(run, (x - mean)[:, None] + _flow(run, mean))


T6b = Row(
    id="T6b",
    family=VALUE,
    sides={
        "attended means are near the mean": _distances_from_the_mean,
        "some eigenvalue grows": lambda m: against_zero(m.constant("alpha")[:, None]),
    },
    conclusions=(
        Conclusion(
            "near zero the mean follows e^{Vt} and differences stay",
            _matches_linearisation,
            1e-4,
            "the nonlinear part, of relative size ‖V‖tR with scores R of about 1e-8, grown by e^{2αt}",
        ),
    ),
    horizon=0.5,
    prepare=_near_zero,
)
