"""L8: attended means near zero."""

from torch import Tensor

from numerics.profile import covariance
from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import VALUE


def reach(values: Tensor, axis: int) -> Tensor:
    """Largest minus smallest along an axis, which is kept."""
    return values.amax(axis, keepdim=True) - values.amin(axis, keepdim=True)


def _remainders(moment: Moment) -> tuple[Tensor, Tensor]:
    """Bound and size of what the cubic expansion leaves, (batch, n·d)."""
    x, scores = moment.x, moment.system.scores(moment.x)
    linear = x @ moment.score @ covariance(x)
    left_out = moment.system.attended_mean(x) - x.mean(1, keepdim=True) - linear
    bound = moment.constant("c")[:, None, None] * reach(scores, 2) ** 2 * reach(x, 1) / 8
    return bound.flatten(1), left_out.abs().flatten(1)


L8 = Row(id="L8", family=VALUE, sides={"cubic expansion": _remainders})
