"""L1 and L2 on attention rows."""

import torch
from torch import Tensor

from numerics import observables
from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import VALUE


def _excess(moment: Moment) -> Tensor:
    return observables.attended_score(moment.system, moment.x) - observables.mean_score(
        moment.system, moment.x
    )


def _relative_entropies(moment: Moment) -> Tensor:
    attention, scores = moment.system.attention(moment.x), moment.system.scores(moment.x)
    return observables.kl_to_uniform(attention) + observables.kl_from_uniform(scores)


def _free_energy(moment: Moment) -> Tensor:
    entropy = observables.score_entropy(moment.system.attention(moment.x))
    return moment.system.scores(moment.x).logsumexp(-1) - entropy


def _attended(moment: Moment) -> Tensor:
    return observables.attended_score(moment.system, moment.x)


def _near_largest(moment: Moment) -> Tensor:
    return observables.max_score(moment.system, moment.x) - moment.constant("kappa")[:, None]


L1 = Row(
    id="L1",
    family=VALUE,
    sides={
        "excess is Jeffreys' divergence": lambda m: (
            _excess(m),
            m.constant("c")[:, None] * _relative_entropies(m),
        ),
        "excess is non-negative": lambda m: (_excess(m), torch.zeros_like(_excess(m))),
    },
)

L2 = Row(
    id="L2",
    family=VALUE,
    sides={
        "free-energy identity": lambda m: (_attended(m), m.constant("c")[:, None] * _free_energy(m)),
        "attended score near the largest": lambda m: (_attended(m), _near_largest(m)),
    },
)
