"""S3–S3f: heads that retrieve or index, by their logits and by the speed of their turns."""

from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import families
from theory.theorems.canonical_tasks import turned_within
from tokendyn.moment import Moment
from tokendyn.pairing.positional_symbolic import (
    HALVES,
    asking,
    content_keys,
    exact_rotary,
    random_rotary,
    rotary_logits,
    turn_of,
)
from tokendyn.row import Row
from tokendyn.sampling import INTEGERS, Family, Keys, Matrix, exact_matrix, uniform

# S3 and S3b


def _spread_logits(key: str, axis: int) -> Callable[..., dict[str, Tensor]]:
    """Logits within η of their centre, which is constant along `axis`; a third of them at the ends ±η."""

    def random(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
        centre = 3 * torch.rand(batch, 1, 1, dtype=torch.float64, generator=generator)
        centre = centre * torch.randn(batch, n, dtype=torch.float64, generator=generator).unsqueeze(axis)
        noise = 2 * torch.rand(batch, n, n, dtype=torch.float64, generator=generator) - 1
        ends = torch.rand(batch, 1, 1, generator=generator) < 0.3
        margin = 4 * torch.rand(batch, 1, 1, dtype=torch.float64, generator=generator) ** 2
        noise = torch.where(ends, noise.sign(), noise)
        logits = centre + (margin if key in keys else margin + 1) * noise
        return {**_blind(batch, n), "logits": logits, "margin": margin}

    return random


def _blind(batch: int, n: int) -> dict[str, Tensor]:
    """Weights and tokens of which only the number of tokens counts."""
    zero = torch.zeros(batch, 1, 1, dtype=torch.float64)
    return {"score": zero, "value": zero, "tokens": zero.expand(-1, n, -1)}


def _exact_logits(key: str, transposed: bool) -> Callable:
    def exact(draw: Callable, keys: Keys, n: int, d: int) -> dict:
        margin = draw(st.sampled_from([Fraction(0), Fraction(1, 2), Fraction(1), Fraction(2)]))
        centre = [draw(INTEGERS) for _ in range(n)]
        reach = margin if key in keys else margin + draw(INTEGERS)
        signs = exact_matrix(draw, n, n, st.sampled_from([1, -1, 0]))
        logits = [[c + reach * sign for c, sign in zip(centre, row, strict=True)] for row in signs]
        if transposed:
            logits = [list(column) for column in zip(*logits, strict=True)]
        zero = [[0]]
        return {"score": zero, "value": zero, "tokens": zero * n, "logits": logits, "margin": margin}

    return exact


def _shifted_weights(moment: Moment) -> Tensor:
    """Attention (batch, shift, position) in the cyclic shifts of a text: content j − shift at position j."""
    n = moment.n
    positions = torch.arange(n)
    contents = (positions - positions[:, None]) % n  # (shift, position)
    return moment.parameters["logits"][:, contents, positions].softmax(2)


def _share(moment: Moment) -> Tensor:
    odds = (moment.n - 1) * torch.exp(-2 * moment.constant("c") * moment.constant("eta"))
    return (1 / (1 + odds))[:, None].expand(-1, moment.n)


def _found(moment: Moment) -> tuple[Tensor, Tensor]:
    """Mean weight on each content, wherever a shift puts it."""
    weights, contents = _shifted_weights(moment), torch.arange(moment.n)
    places = (contents[:, None] + contents) % moment.n  # (content, shift)
    return _share(moment), weights[:, contents, places].mean(2)


def _pointed_at(moment: Moment) -> tuple[Tensor, Tensor]:
    return _share(moment), _shifted_weights(moment).mean(1)


S3 = Row(
    id="S3",
    family=Family(
        _spread_logits("nearly positional", 1), _exact_logits("nearly positional", False), dimension=1
    ),
    sides={"content found": _found},
)
S3b = Row(
    id="S3b",
    family=Family(_spread_logits("nearly symbolic", 2), _exact_logits("nearly symbolic", True), dimension=1),
    sides={"position found": _pointed_at},
)


# S3c and S3e


def _key_sizes(moment: Moment) -> Tensor:
    """|Kx_k|², (batch, n)."""
    return content_keys(moment).square().sum(2)


def _alike(moment: Moment) -> tuple[Tensor, Tensor]:
    logits = rotary_logits(moment)
    early, late = torch.triu_indices(moment.n, moment.n, 1)
    moved = ((late - early) * (moment.constant("c") * moment.constant("eta"))[:, None]) ** 2
    bound = moved[..., None] * asking(moment)[:, None, None] * _key_sizes(moment)[:, None]
    gaps = (logits[:, :, late] - logits[:, :, early]).square().mT
    return bound.flatten(1), gaps.flatten(1)


def _among_equals(moment: Moment) -> tuple[Tensor, Tensor]:
    weights = rotary_logits(moment).softmax(2)
    size = (asking(moment)[:, None] * _key_sizes(moment)).sqrt()
    bound = torch.sigmoid((moment.constant("c") * moment.constant("eta"))[:, None] * size)
    items = moment.n if moment.n > 1 else 0
    return bound[..., None].expand(-1, -1, items).flatten(1), weights[..., :items].flatten(1)


S3c = Row(
    id="S3c",
    family=Family(random_rotary, exact_rotary),
    sides={"positions look alike": _alike, "weight beside an equal key": _among_equals},
)


def _over_positions(moment: Moment) -> tuple[Tensor, Tensor]:
    summed = moment.constant("eta")[:, None] * rotary_logits(moment).sum(2)
    return 4 * (moment.constant("c") * asking(moment))[:, None] * _key_sizes(moment), summed**2


def _against(moment: Moment) -> tuple[Tensor, Tensor]:
    """Ordered pairs (wanted, others) of contents, (first, second) before (second, first)."""
    n, logits, keys = moment.n, rotary_logits(moment), content_keys(moment)
    first, second = torch.triu_indices(n, n, 1)
    wanted, others = (torch.stack(pair, 1).flatten() for pair in ((first, second), (second, first)))
    beside = logits[:, :, None].masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf).logsumexp(3)
    odds = (logits[:, wanted] - beside[:, others]).sum(2) + n * torch.tensor(max(n - 1, 1.0)).double().log()
    size = (asking(moment)[:, None] * (keys[:, wanted] - keys[:, others]).square().sum(2)).sqrt()
    return 2 * moment.constant("c")[:, None] * size, moment.constant("eta")[:, None] * odds


S3e = Row(
    id="S3e",
    family=Family(random_rotary, exact_rotary),
    sides={"logits cancel over the positions": _over_positions, "mean log-odds": _against},
)


# S3d


def _plane(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    full = torch.full((batch,), 2 * torch.pi / n, dtype=torch.float64).clamp(max=torch.pi)
    angles = full * uniform(batch, 0.0, 1.0, generator) if "within one turn" in keys else 3 * full
    key, free = torch.randn(2, batch, 2, 2, dtype=torch.float64, generator=generator)
    gain = uniform(batch, 0.0, 2.0, generator)[:, None, None]
    stretch = 1.0 if "R orthogonal" in keys else uniform(batch, 0.5, 2.0, generator)[:, None, None]
    return {
        "query": gain * key if "query like key" in keys else free,
        "key": key,
        "value": torch.eye(2, dtype=torch.float64).expand(batch, 2, 2),
        "rotation": stretch * turn_of(angles),
    }


QUARTER = (Fraction(0), Fraction(1))
TURNS = [QUARTER, *((cosine**2 - sine**2, 2 * sine * cosine) for cosine, sine in HALVES)]
"""(cos θ, sin θ)."""


def _exact_corner(draw: Callable, count: int, halves: int) -> Matrix:
    """[[cos θ, −sin θ], [sin θ, cos θ]] with count·θ ≤ halves·π."""
    c, s = draw(st.sampled_from([turn for turn in TURNS if turned_within(*turn, count, halves)]))
    return [[c, -s], [s, c]]


def _exact_plane(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    turn = _exact_corner(draw, n, 2 if "within one turn" in keys else n)
    stretch = 1 if "R orthogonal" in keys else draw(st.integers(1, 3))
    key, gain = exact_matrix(draw, 2, 2), draw(st.integers(0, 2))
    return {
        "query": [[gain * q for q in row] for row in key]
        if "query like key" in keys
        else exact_matrix(draw, 2, 2),
        "key": key,
        "value": [[1, 0], [0, 1]],
        "rotation": [[stretch * q for q in row] for row in turn],
    }


def _step_gap(moment: Moment) -> Tensor:
    scores = moment.system.scores(moment.x)
    return moment.constant("c") * (scores[:, 0, 0] - scores[:, 0, 1])


def _off_diagonal(moment: Moment) -> tuple[Tensor, Tensor]:
    row, column = (~torch.eye(moment.n, dtype=torch.bool)).nonzero().unbind(1)
    return row, column


def _own_leads(moment: Moment) -> tuple[Tensor, Tensor]:
    scores, (row, column) = moment.system.scores(moment.x), _off_diagonal(moment)
    gaps = scores[:, row, row] - scores[:, row, column]
    return gaps, _step_gap(moment)[:, None].expand_as(gaps) if moment.n > 1 else gaps


def _own_weight(moment: Moment) -> tuple[Tensor, Tensor]:
    own = moment.system.attention(moment.x).diagonal(dim1=1, dim2=2)
    if moment.n == 1:
        return own[:, :0], own[:, :0]
    bound = 1 / (1 + (moment.n - 1) * torch.exp(-_step_gap(moment)))
    return own, bound[:, None].expand_as(own)


S3d = Row(
    id="S3d",
    family=Family(_plane, _exact_plane, dimension=2),
    sides={"the position asked for leads": _own_leads, "weight on it": _own_weight},
)


# S3f


def _two_parts(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Contents of one coordinate and a mark of two; contents far from each other or near."""
    limit = torch.pi / max(n - 1, 1) if "within half a turn" in keys else 2 * torch.pi
    angles = limit * uniform(batch, 0.0, 1.0, generator)
    turn = torch.zeros(batch, 3, 3, dtype=torch.float64)
    turn[:, 0, 0], turn[:, 1:, 1:] = 1, turn_of(angles)
    query = torch.zeros(batch, 3, 3, dtype=torch.float64)
    query[:, 0, 0] = 4 * torch.randn(batch, dtype=torch.float64, generator=generator)
    query[:, 1, 1] = query[:, 2, 2] = uniform(batch, 0.0, 2.0, generator)
    if "two parts" not in keys:
        query = torch.randn(batch, 3, 3, dtype=torch.float64, generator=generator)
    scale = uniform(batch, 0.1, 2.0, generator)
    tokens = families.random_tokens(batch, n, 3, scale, generator)
    if "marked alike" in keys:
        tokens[:, :, 1:] = tokens[:, :1, 1:]
    eye = torch.eye(3, dtype=torch.float64).expand(batch, 3, 3)
    return {"query": query, "key": eye, "value": eye, "rotation": turn, "tokens": tokens}


def _exact_two_parts(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    turn = _exact_corner(draw, n - 1, 1 if "within half a turn" in keys else n)
    content, gain = draw(INTEGERS), draw(st.integers(0, 3))
    query = [[content, 0, 0], [0, gain, 0], [0, 0, gain]]
    if "two parts" not in keys:
        query = exact_matrix(draw, 3, 3)
    mark = [draw(INTEGERS), draw(INTEGERS)]
    tokens = [
        [draw(INTEGERS), *(mark if "marked alike" in keys else (draw(INTEGERS), draw(INTEGERS)))]
        for _ in range(n)
    ]
    eye = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    return {
        "query": query,
        "key": eye,
        "value": eye,
        "rotation": [[1, 0, 0], *([0, *row] for row in turn)],
        "tokens": [[Fraction(q) for q in token] for token in tokens],
    }


def _recency(moment: Moment, offset: int) -> Tensor:
    """b|v|² cos(offset·θ), (batch,), by the angle itself."""
    turn, v = moment.parameters["rotation"], moment.x[:, -1, -2:]
    angle = torch.atan2(turn[:, -1, -2], turn[:, -2, -2])
    return moment.parameters["query"][:, -1, -1] * v.square().sum(1) * torch.cos(offset * angle)


def _later(moment: Moment) -> Tensor:
    return moment.constant("c") * (_recency(moment, 0) - _recency(moment, 1))


def _matching(moment: Moment) -> Tensor:
    """What the match is worth over contents 1 … n − 1, (batch, n − 1)."""
    contents = moment.x[:, :, :-2]
    asked = torch.einsum("bij,bj->bi", moment.parameters["query"][:, :-2, :-2], contents[:, -1])
    scores = torch.einsum("bi,bki->bk", asked, contents)
    return scores[:, -1:] - scores[:, :-1] - (_recency(moment, 0) - _recency(moment, moment.n - 1))[:, None]


def _later_leads(moment: Moment) -> tuple[Tensor, Tensor]:
    logits = rotary_logits(moment)
    early, late = torch.triu_indices(moment.n - 1, moment.n - 1, 1)
    gaps = (logits[:, :, late] - logits[:, :, early]).mT
    bound = (late - early) * _later(moment)[:, None]
    return gaps.flatten(1), bound[..., None].expand_as(gaps).flatten(1)


def _match_leads(moment: Moment) -> tuple[Tensor, Tensor]:
    n, logits = moment.n, rotary_logits(moment)
    match, other = (~torch.eye(n - 1, dtype=torch.bool)).nonzero(as_tuple=True)
    gaps = logits[:, -1:, match] - logits[:, :-1, other]
    return gaps.flatten(1), _matching(moment)[..., None].expand_as(gaps).flatten(1)


def _last_match(moment: Moment) -> tuple[Tensor, Tensor]:
    """Texts (content, last): the match at positions up to `last`, the content at the later ones."""
    keys = moment.n - 1
    logits, positions = rotary_logits(moment)[..., :keys], torch.arange(keys)
    matched = positions <= positions[:, None]  # (last, position)
    texts = torch.where(matched, logits[:, -1, None, None], logits[:, :keys, None])
    weights = texts.softmax(3).diagonal(dim1=2, dim2=3)
    gap = torch.minimum(_later(moment)[:, None], _matching(moment))
    bound = 1 / (1 + (moment.n - 2) * torch.exp(-gap))
    return weights.flatten(1), bound[..., None].expand_as(weights).flatten(1)


S3f = Row(
    id="S3f",
    family=Family(_two_parts, _exact_two_parts, dimension=3),
    sides={
        "the later of equal contents leads": _later_leads,
        "a match leads": _match_leads,
        "weight on the last match": _last_match,
    },
)
