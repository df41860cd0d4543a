"""L8: attended means near zero."""

from torch import Tensor

from numerics.profile import covariance
from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import VALUE


def _remainders(moment: Moment) -> tuple[Tensor, Tensor]:
    """Bound and size of what the cubic expansion leaves, (batch, n·d)."""
    x, scores = moment.x, moment.system.scores(moment.x)
    linear = x @ moment.score @ covariance(x)
    left_out = moment.system.attended_mean(x) - x.mean(1, keepdim=True) - linear
    reach = x.amax(1, keepdim=True) - x.amin(1, keepdim=True)
    widths = (scores.amax(-1) - scores.amin(-1))[..., None]
    bound = moment.constant("c")[:, None, None] * widths**2 * reach / 8
    return bound.flatten(1), left_out.abs().flatten(1)


L8 = Row(id="L8", family=VALUE, sides={"cubic expansion": _remainders})
