"""T10: distances follow the sign of A, the consensus follows the signs of A and W_s together."""

import torch
from torch import Tensor

from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.pairing.pairwise import DISTANCES_MONOTONE, is_distance, monotone, moves_one_way
from tokendyn.pairing.thresholds import token_energies
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import RESPONSE


def _consensus(moment: Moment) -> tuple[Tensor, Tensor]:
    pushed = moment.x @ (moment.response @ moment.value).mT
    return against_zero(moment.constant("omega")[:, None] * (moment.x * pushed).sum(-1))


def _consensus_energy(run: Run) -> Tensor:
    """Equal tokens under the same weights: ½xᵀ(σA)x of e^{Vt}x moves with the sign σω."""
    flow = torch.linalg.matrix_exp(run.start.value[:, None] * run.times[:, None, None])
    states = torch.einsum("btde,be->btd", flow, run.start.x[:, 0])
    energies = torch.stack(
        [token_energies(run.start.at(states[:, k : k + 1])) for k in range(len(run.times))], dim=1
    )
    return monotone(energies, run.start.constant("sigma") * run.start.constant("omega"))


T10 = Row(
    id="T10",
    family=RESPONSE,
    sides={
        "it is a distance": is_distance,
        "it moves one way": moves_one_way,
        "the consensus moves one way": _consensus,
        "the consensus' spectrum": lambda m: against_zero(m.constant("beta")[:, None]),
    },
    conclusions=(
        DISTANCES_MONOTONE,
        Conclusion(
            "consensus energy moves one way", _consensus_energy, 1e-9, "rounding of the matrix exponential"
        ),
    ),
    horizon=2.0,
)
