"""L4: the response identity."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.pairing.potential import pair_products
from tokendyn.row import Row
from tokendyn.sampling import RESPONSE


def _response_of_velocity(moment: Moment) -> Tensor:
    """A ẋ_i, as rows."""
    return moment.velocity @ moment.response.mT


def _identity(moment: Moment) -> tuple[Tensor, Tensor]:
    attended = observables.attended_score(moment.system, moment.x)
    return (moment.x * _response_of_velocity(moment)).sum(-1), moment.constant("c")[:, None] * attended


def _pairwise(moment: Moment) -> tuple[Tensor, Tensor]:
    products = pair_products(moment.x, _response_of_velocity(moment))
    return products, torch.zeros_like(products)


L4 = Row(id="L4", family=RESPONSE, sides={"response identity": _identity, "pairwise response": _pairwise})
