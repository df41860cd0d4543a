"""T6: equal tokens follow the linear system ẋ = Vx."""

import torch
from torch import Tensor

from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import VALUE


def _linear(moment: Moment) -> tuple[Tensor, Tensor]:
    linear = moment.constant("c")[:, None, None] * (moment.x @ moment.value.mT)
    return moment.velocity.flatten(1), linear.flatten(1)


def _matches_exponential(run: Run) -> Tensor:
    """−‖x_i(t) − e^{Vt}x(0)‖ relative to the largest state so far, over all tokens and times."""
    flow = torch.linalg.matrix_exp(run.start.value[:, None] * run.times[:, None, None])
    exact = torch.einsum("btde,bne->btnd", flow, run.start.x)
    gap = (run.solution.states - exact).flatten(2).abs().amax(2)
    size = exact.flatten(2).abs().amax(2).cummax(1).values
    return -torch.where(size > 0, gap / size, 0.0).nan_to_num(nan=0.0).amax(1)


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
