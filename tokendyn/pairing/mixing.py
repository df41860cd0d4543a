"""L7: attended means against attended scores."""

from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import VALUE


def total_attended(moment: Moment) -> Tensor:
    """Σ_i e_i, (batch, 1)."""
    return observables.attended_score(moment.system, moment.x).sum(1, keepdim=True)


def total_of_means(moment: Moment) -> Tensor:
    """Σ_i m_iᵀWm_i, (batch, 1)."""
    means = moment.system.attended_mean(moment.x)
    return 2 * observables.token_energy(means, moment.score).sum(1, keepdim=True)


def _mixing(moment: Moment) -> tuple[Tensor, Tensor]:
    n = moment.n
    rest = (n * moment.x - moment.system.attended_mean(moment.x)).sum(1, keepdim=True)
    excess = moment.constant("c")[:, None] * n * total_attended(moment) - total_of_means(moment)
    return n * (n - 1) * excess, 2 * observables.token_energy(rest, moment.score)


L7 = Row(id="L7", family=VALUE, sides={"means are within n times the scores": _mixing})
