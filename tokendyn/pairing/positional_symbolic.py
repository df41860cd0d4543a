"""S1: variance of the logits against their deviations under permuted keys. S1b: pure rotary heads."""

from collections.abc import Callable
from fractions import Fraction
from math import isqrt

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from tokendyn.moment import Moment
from tokendyn.row import Row
from tokendyn.sampling import Family, Keys, Matrix, exact_matrix, uniform


def _random_logits(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Free logits, or a position part plus a content part of any weight plus a little noise."""
    parts = torch.randn(2, batch, n, dtype=torch.float64, generator=generator)
    noise = torch.randn(batch, n, n, dtype=torch.float64, generator=generator)
    share = torch.rand(3, batch, 1, 1, dtype=torch.float64, generator=generator)
    logits = share[0] * parts[0, :, None] + share[1] * parts[1, ..., None] + share[2] ** 4 * noise
    zero = torch.zeros(batch, 1, 1, dtype=torch.float64)
    return {"score": zero, "value": zero, "tokens": zero.expand(-1, n, -1), "logits": logits}


def _exact_logits(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    zero = [[0]]
    return {"score": zero, "value": zero, "tokens": zero * n, "logits": exact_matrix(draw, n, n)}


def _own(moment: Moment) -> Tensor:
    """λ_j = M_jj, (batch, m)."""
    return moment.parameters["logits"].diagonal(dim1=1, dim2=2)


def _variance(moment: Moment) -> Tensor:
    return _own(moment).var(1, correction=0, keepdim=True)


def _exclusion(moment: Moment) -> tuple[Tensor, Tensor]:
    logits, own = moment.parameters["logits"], _own(moment)
    positional = ((logits - own[:, None, :]) ** 2).sum((1, 2))
    symbolic = ((logits - own[:, :, None]) ** 2).sum((1, 2))
    bound = moment.constant("c") * (positional + symbolic) / moment.n**2
    return bound[:, None], _variance(moment)


def _together(moment: Moment) -> tuple[Tensor, Tensor]:
    own = _own(moment)
    first, second = torch.triu_indices(moment.n, moment.n, 1)
    gaps = (own[:, first] - own[:, second]) ** 2
    bound = 2 * moment.n * moment.constant("c")[:, None] * _variance(moment)
    return bound.expand_as(gaps), gaps


S1 = Row(
    id="S1",
    family=Family(_random_logits, _exact_logits, dimension=1),
    sides={"exclusion": _exclusion, "logits lie together": _together},
)


# S1b, and rotary heads in general


def turn_of(angles: Tensor) -> Tensor:
    """[[cos θ, −sin θ], [sin θ, cos θ]] for angles of any shape, (…, 2, 2)."""
    cosine, sine = angles.cos(), angles.sin()
    return torch.stack([torch.stack([cosine, -sine], -1), torch.stack([sine, cosine], -1)], -2)


def random_rotary(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Rotary heads with turns of all speeds; η is the speed of the slowest or fastest, as the keys ask."""
    query, key = torch.randn(2, batch, d, d, dtype=torch.float64, generator=generator)
    spread = 10 ** -uniform(batch, 0.0, 2.0, generator)[:, None]
    angles = torch.pi * spread * torch.rand(batch, d // 2, dtype=torch.float64, generator=generator)
    if "fast turn" in keys:
        angles = torch.pi - angles
    turn = torch.zeros(batch, d, d, dtype=torch.float64)
    for block, corner in enumerate(turn_of(angles).unbind(1)):
        turn[:, 2 * block : 2 * block + 2, 2 * block : 2 * block + 2] = corner
    speeds = [2 * torch.sin(angles / 2)]
    if d % 2:
        last = -1.0 if d == 1 or "fast turn" in keys else 1.0
        turn[:, -1, -1] = last
        speeds.append(torch.full((batch, 1), 1 - last, dtype=torch.float64))
    if "R orthogonal" not in keys:
        turn = turn * uniform(batch, 0.5, 2.0, generator)[:, None, None]
    moved = torch.cat(speeds, 1)
    margin = moved.amin(1) if "fast turn" in keys else moved.amax(1)
    value = torch.eye(d, dtype=torch.float64).expand(batch, d, d)
    return {"query": query, "key": key, "value": value, "rotation": turn, "margin": margin[:, None, None]}


HALVES = [
    tuple(Fraction(number, length) for number in (cosine, sine))
    for cosine, sine, length in (
        (1, 0, 1),
        (24, 7, 25),
        (12, 5, 13),
        (4, 3, 5),
        (3, 4, 5),
        (5, 12, 13),
        (0, 1, 1),
    )
]
"""(cos θ/2, sin θ/2) of turns of the plane that are rational, and so is η = 2 sin θ/2."""


def exact_rotary(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    turn, speeds = _exact_turn(draw, "fast turn" in keys, d)
    if "R orthogonal" not in keys:
        turn = exact_matrix(draw, d, d, st.integers(-2, 3))
        moved = [[q - (r == c) for c, q in enumerate(row)] for r, row in enumerate(turn)]
        speeds = [
            Fraction(1 + isqrt(int(sum(q * q for row in moved for q in row))))
        ]  # at least the Frobenius norm
        if "fast turn" in keys:  # a diagonal without 1
            turn = [
                [row[r] - (row[r] == 1) if r == c else Fraction(0) for c in range(d)]
                for r, row in enumerate(turn)
            ]
            speeds = [Fraction(1)]
    margin = min(speeds) if "fast turn" in keys else max(speeds)
    if not keys & {"slow turn", "fast turn"}:
        margin = draw(st.sampled_from([Fraction(1, 2), Fraction(1)]))
    return {
        "query": exact_matrix(draw, d, d),
        "key": exact_matrix(draw, d, d),
        "value": [[int(r == c) for c in range(d)] for r in range(d)],
        "rotation": turn,
        "margin": margin,
    }


def _exact_turn(draw: Callable, moving: bool, d: int) -> tuple[Matrix, list[Fraction]]:
    """A turn of the plane, ±1, or both in R³, and how far each part moves a unit vector."""
    cosine, sine = draw(st.sampled_from(HALVES[1:] if moving else HALVES))
    last = Fraction(-1 if moving else draw(st.sampled_from([1, -1])))
    c, s = cosine**2 - sine**2, 2 * sine * cosine
    full = {1: [[last]], 2: [[c, -s], [s, c]], 3: [[c, -s, Fraction(0)], [s, c, Fraction(0)], [0, 0, last]]}[
        d
    ]
    speeds = [2 * sine] * (d > 1) + [1 - last] * (d % 2)
    return [[Fraction(q) for q in row] for row in full], speeds


def content_keys(moment: Moment) -> Tensor:
    """Kx_k, (batch, n, d)."""
    return moment.x @ moment.parameters["key"].mT


def _asked(moment: Moment) -> Tensor:
    """Qx_n, (batch, d)."""
    return torch.einsum("bij,bj->bi", moment.parameters["query"], moment.x[:, -1])


def asking(moment: Moment) -> Tensor:
    """|Qx_n|², (batch,)."""
    return _asked(moment).square().sum(1)


def rotary_logits(moment: Moment) -> Tensor:
    """M_kj = (RⁿQx_n)ᵀ(R^jKx_k), (batch, n contents, n positions)."""
    assert moment.system.rotary is not None
    turns = moment.system.rotary.turns[:, : moment.n]
    query = torch.einsum("bij,bj->bi", turns[:, -1], _asked(moment))
    return torch.einsum("bi,bpij,bkj->bkp", query, turns, content_keys(moment))


def _contents_swapped(moment: Moment) -> tuple[Tensor, Tensor]:
    logits, keys = rotary_logits(moment), content_keys(moment)
    first, second = torch.triu_indices(moment.n, moment.n, 1)
    gaps = (logits[:, first] - logits[:, second]).square()
    apart = (keys[:, first] - keys[:, second]).square().sum(2)
    bound = (moment.constant("c") * asking(moment))[:, None] * apart
    return bound[..., None].expand_as(gaps).flatten(1), gaps.flatten(1)


def _positions_swapped(moment: Moment) -> tuple[Tensor, Tensor]:
    assert moment.system.rotary is not None
    turns = moment.system.rotary.turns[:, : moment.n]
    logits, keys = rotary_logits(moment), content_keys(moment)
    first, second = torch.triu_indices(moment.n, moment.n, 1)
    gaps = (logits[..., first] - logits[..., second]).square().mT
    turned = torch.einsum("bpij,bkj->bpki", turns[:, second - first], keys) - keys[:, None]
    bound = (moment.constant("c") * asking(moment))[:, None, None] * turned.square().sum(3)
    return bound.flatten(1), gaps.flatten(1)


S1b = Row(
    id="S1b",
    family=Family(random_rotary, exact_rotary),
    sides={"content changed": _contents_swapped, "position changed": _positions_swapped},
)
