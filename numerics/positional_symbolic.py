"""Does a head attend by position or by content? The metric of block swaps, and S1's deviations.

A head is given by its logits M (*batch, m, m): M_kj is the logit that the last query gives to key content k
put at position j, the query being fixed. λ_j = M_jj are its logits on the text as it stands. Positional: M_kj
does not depend on k. Symbolic: not on j. The axes of the batch (layers, heads, frequencies, prompts) are any.
After Urrutia et al., Decoupling positional and symbolic attention behavior in Transformers, arXiv 2511.11579.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from numerics.checks import check_choice, check_match, check_shape, check_tensor
from numerics.encodings import LAYOUTS
from numerics.errors import InputError
from numerics.observables import score_entropy

Logits = Float[Tensor, "*batch m m"]
PerHead = Float[Tensor, "*batch"]
Frequencies = Float[Tensor, "frequencies"]
Deviations = Float[Tensor, "*batch orders m"]
Span = tuple[int, int]
KINDS = ("weights", "logits")
ROUNDINGS = 64
"""Contrasts of block means below so many roundings of the logits count as none in the centred score."""


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Scores of heads, (*batch,) each, and the entropy of their attention softmax(λ), in nats.

    The entropy is needed to read the scores: a head that attends nearly uniformly scores high on both.
    ``centred`` is 1 for a purely positional head, −1 for a purely symbolic one, 0 for a uniform one.
    """

    positional: PerHead
    symbolic: PerHead
    centred: PerHead
    entropy: PerHead


def behaviour(
    logits: Logits, blocks: int, temperature: float, of: str = "weights", span: Span | None = None
) -> Behaviour:
    """Positional, symbolic and centred scores by swapping blocks of keys, over all pairs of blocks at once.

    Keys start … stop − 1 of ``span`` (all m by default) are cut into contiguous ``blocks`` of equal size,
    with means d of the softmax weights, or of the "logits"; the softmax is over all m keys, and those outside
    the span stay where they are. Swapping the contents of blocks i and j gives d';
    pos_ij = cos((d'_i, d'_j), (d_i, d_j)), sym_ij = cos((d'_i, d'_j), (d_j, d_i)); the cosine of two zero
    vectors is 1. The scores are means over the pairs i < j weighted by w_ij = softmax(|d_i − d_j| /
    temperature) (S2).

    Scores of weights lie in [0, 1], of logits in [−1, 1]. Those of logits change if a constant is added to
    all logits, which attention does not notice. A pure head's other score is a mean of 2ab/(a² + b²) for
    block means a and b, high where these are close: one high score does not make a head positional or
    symbolic. So there is ``centred``, which compares contrasts, c_ij = (d_i − d_j)/(d_i + d_j) of weights and
    d_i − d_j of logits, before and after:

        centred = Σ_{i<j} w_ij 2 c_ij c'_ij / Σ_{i<j} w_ij (c_ij² + c'_ij²),

    in [−1, 1]. It is 1 if every contrast stays with its positions (positional), −1 if every one turns over
    with the contents (symbolic), however small the contrasts, and 0 where there are none: below 64 roundings
    of the logits they count as none. No constant added to the logits changes it.

    Raises InputError for logits of another shape, blocks not dividing the span, or a temperature ≤ 0.
    """
    _check_logits(logits)
    start, stop = _check_cut(logits.shape[-1], blocks, temperature, span)
    check_choice("of", of, KINDS)
    moved = _moved(logits[..., start:stop, start:stop], blocks)
    level = moved.logsumexp(0) if of == "weights" else moved.mean(0)
    i, j = _pairs(blocks, logits.device)
    after = torch.stack((level[..., j, i], level[..., i, j]), -1)
    return _scores(_own(logits), _own(level), after, (start, stop), temperature, of)


def behaviour_of_reruns(
    logits: Float[Tensor, "*batch m"],
    swapped: Float[Tensor, "*batch pairs m"],
    blocks: int,
    temperature: float,
    of: str = "weights",
    span: Span | None = None,
) -> Behaviour:
    """The scores of ``behaviour`` where d' comes from the model, run again on each swapped text.

    ``logits`` are those of the last query over the keys; ``swapped`` those in the texts with blocks i and j
    swapped (``swap_blocks``), for pairs i < j in the order of ``torch.triu_indices(blocks, blocks, 1)``.
    Raises InputError as ``behaviour`` does.
    """
    _check_axes("logits", logits, "m")
    _check_axes("swapped", swapped, "pairs m")
    check_match("swapped", swapped, "logits", logits)
    start, stop = _check_cut(logits.shape[-1], blocks, temperature, span)
    check_choice("of", of, KINDS)
    pairs = blocks * (blocks - 1) // 2
    shape = (*logits.shape[:-1], pairs, logits.shape[-1])
    check_shape("swapped", swapped, shape, "(*batch, blocks(blocks − 1)/2, m), as logits says")

    def level(rows: Tensor) -> Tensor:
        cut = rows[..., start:stop].unflatten(-1, (blocks, -1))
        return cut.logsumexp(-1) if of == "weights" else cut.mean(-1)

    of_pair = torch.stack(_pairs(blocks, logits.device), -1).expand(*logits.shape[:-1], pairs, 2)
    after = level(swapped).gather(-1, of_pair)
    return _scores(logits, level(logits), after, (start, stop), temperature, of)


def swap_blocks(sequence: Tensor, i: int, j: int, blocks: int, span: Span | None = None) -> Tensor:
    """``sequence`` (*batch, m) of token ids, or of anything, with blocks i and j of its last axis swapped.

    Both are read before either is written. Raises InputError if there is no such block, or as ``behaviour``.
    """
    if not isinstance(sequence, Tensor) or sequence.ndim == 0:
        raise InputError("sequence", type(sequence).__name__, "a tensor (*batch, m)", "torch.tensor(ids)")
    start, stop = _check_cut(sequence.shape[-1], blocks, 1.0, span)
    for name, block in (("i", i), ("j", j)):
        if type(block) is not int or not 0 <= block < blocks:
            raise InputError(name, block, f"a block from 0 to {blocks - 1}", "blocks are counted from 0")
    order = torch.arange(blocks, device=sequence.device)
    order[[i, j]] = order[[j, i]]
    inside = sequence[..., start:stop].unflatten(-1, (blocks, -1))[..., order, :].flatten(-2)
    return torch.cat((sequence[..., :start], inside, sequence[..., stop:]), -1)


def _scores(
    own: Float[Tensor, "*batch m"],
    level: Float[Tensor, "*batch blocks"],
    after: Float[Tensor, "*batch pairs 2"],
    span: Span,
    temperature: float,
    of: str,
) -> Behaviour:
    """Of logits `own`; `level` is the mean of each block, of weights up to a factor and as a logarithm.

    `after` is that of blocks i and j after their swap. The softmax's denominator, another one after each
    swap, changes neither cosines nor contrasts.
    """
    attention, blocks = torch.softmax(own, -1), level.shape[-1]
    means = level
    if of == "weights":
        means = attention[..., span[0] : span[1]].unflatten(-1, (blocks, -1)).mean(-1)
    i, j = _pairs(blocks, level.device)
    before = torch.stack((level[..., i], level[..., j]), -1)
    weight = torch.softmax((means[..., i] - means[..., j]).abs() / temperature, -1)
    centred = _centred(_contrast(after, of), _contrast(before, of), weight)
    if of == "weights":
        before, after = ((pair - pair.amax(-1, keepdim=True)).exp() for pair in (before, after))
    positional, symbolic = ((weight * score).sum(-1) for score in _cosines(after, before))
    return Behaviour(positional, symbolic, centred, score_entropy(attention))


def _pairs(blocks: int, device: torch.device) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(blocks, blocks, 1, device=device)
    return i, j


def _contrast(pair: Float[Tensor, "*batch pairs 2"], of: str) -> Float[Tensor, "*batch pairs"]:
    """(a − b)/(a + b) of weights, given as logarithms, or a − b of logits; 0 below rounding."""
    difference = pair[..., 0] - pair[..., 1]
    rounding = ROUNDINGS * torch.finfo(pair.dtype).eps * pair.abs().amax(-1)
    difference = torch.where(difference.abs() <= rounding, 0.0, difference)
    return (difference / 2).tanh() if of == "weights" else difference


def _centred(after: Tensor, before: Tensor, weight: Tensor) -> PerHead:
    """Scaled first, as squares overflow."""
    size = torch.maximum(after.abs(), before.abs()).amax(-1, keepdim=True)
    after, before = (part / torch.where(size == 0, 1.0, size) for part in (after, before))
    squares = (weight * (after.square() + before.square())).sum(-1)
    return 2 * (weight * after * before).sum(-1) / torch.where(squares == 0, 1.0, squares)


def _own(logits: Logits) -> Float[Tensor, "*batch m"]:
    """λ_j = M_jj."""
    return logits.diagonal(dim1=-2, dim2=-1)


def _moved(logits: Logits, blocks: int) -> Float[Tensor, "size *batch blocks blocks"]:
    """Entry (k, j): the logits of the keys of block k moved, in their order, to the positions of block j.

    Keys of a block stand along the first axis: reductions over it are several times faster.
    """
    size = logits.shape[-1] // blocks
    cut = logits.unflatten(-1, (blocks, size)).unflatten(-3, (blocks, size))
    return cut.diagonal(dim1=-3, dim2=-1).movedim(-1, 0).contiguous()


def _cosines(after: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Of vectors (*batch, 2) `after` with `before`, and with `before` reversed."""
    both_zero = ~(after.any(-1) | before.any(-1))
    after, before = _unit(after), _unit(before)
    cosines = ((after * other).sum(-1) for other in (before, before.flip(-1)))
    positional, symbolic = (torch.where(both_zero, 1.0, cosine) for cosine in cosines)
    return positional, symbolic


def _unit(vector: Tensor) -> Tensor:
    """Of length 1, or 0; scaled first, as squares overflow."""
    for length in (torch.amax, torch.linalg.vector_norm):
        size = length(vector.abs(), dim=-1, keepdim=True)
        vector = vector / torch.where(size == 0, 1.0, size)
    return vector


# Logits of rotary heads


def rotary_logits(
    query: Float[Tensor, "*batch d_k"], keys: Float[Tensor, "*batch m d_k"], turns: Tensor
) -> Logits:
    """M_kj = qᵀ R_{j−m} k_k of the query at position m, right behind the keys at 0 … m − 1.

    turns R_0 … R_{N−1}, N > m, are (N, d_k, d_k), or one such stack per head, (*batch, N, d_k, d_k): powers
    of a rotation, as ``numerics.encodings`` makes them. Raises InputError for other shapes or mixed dtypes.
    """
    _check_keys(query, keys)
    _check_axes("turns", turns, "N d_k d_k")
    check_match("turns", turns, "query", query)
    m, d_k = keys.shape[-2:]
    batch = query.shape[:-1] if turns.ndim > 3 else ()
    check_shape("turns", turns, (*batch, turns.shape[-3], d_k, d_k), "(N, d_k, d_k), or such for each head")
    if turns.shape[-3] <= m:
        raise InputError(
            "turns", f"{turns.shape[-3]} turns", f"more than m = {m} keys", "the query has one too"
        )
    asked = turns[..., m, :, :] @ query[..., None]
    seen = turns[..., :m, :, :].mT @ asked[..., None, :, :]
    return keys @ seen[..., 0].mT


def rotary_pair_logits(
    query: Float[Tensor, "*batch d_k"],
    keys: Float[Tensor, "*batch m d_k"],
    frequencies: Frequencies,
    layout: str = "interleaved",
    position: int | None = None,
) -> Float[Tensor, "*batch frequencies m m"]:
    """``rotary_logits`` of each rotary frequency as a head of its own; they sum to the head's.

    There are d_k/2 frequencies, in radians per position, one for each pair of coordinates; ``layout`` places
    the pairs as in ``rotary_turns``. Leave out coordinates that do not turn. The query stands at
    ``position``, by default m, right behind the keys; at m − 1 the last key is its own. InputError as
    ``rotary_logits``.
    """
    _check_keys(query, keys)
    check_choice("layout", layout, LAYOUTS)
    check_tensor("frequencies", frequencies, "frequencies")
    check_match("frequencies", frequencies, "query", query)
    m, d_k = keys.shape[-2:]
    if d_k != 2 * len(frequencies):
        fix = "give one frequency per pair"
        raise InputError("frequencies", f"{len(frequencies)} frequencies", f"d_k/2 = {d_k / 2:g}", fix)
    pairs = (-1, 2) if layout == "interleaved" else (2, -1)
    axis = pairs.index(2) - 2
    q1, q2 = query.unflatten(-1, pairs)[..., None, :, :].unbind(axis)
    k1, k2 = keys.unflatten(-1, pairs).unbind(axis)
    along, across = ((part.mT[..., None]) for part in (q1 * k1 + q2 * k2, q2 * k1 - q1 * k2))
    offsets = torch.arange(m, dtype=query.dtype, device=query.device) - (m if position is None else position)
    angles = frequencies[:, None] * offsets
    return along * angles.cos()[:, None] + across * angles.sin()[:, None]


# S1


def logit_variance(logits: Logits) -> PerHead:
    """Var(λ) over the m keys."""
    _check_logits(logits)
    return _own(logits).var(-1, correction=0)


def deviations(logits: Logits, orders: Int64[Tensor, "orders m"]) -> tuple[Deviations, Deviations]:
    """δ^pos(π, j) = M_{π(j)j} − λ_j and δ^sym(π, j) = M_{jπ(j)} − λ_j for given permutations π of 0 … m − 1.

    Raises InputError if an order is no permutation.
    """
    _check_logits(logits)
    keys = torch.arange(logits.shape[-1], device=logits.device)
    if not isinstance(orders, Tensor) or orders.dtype != torch.int64 or orders.shape[1:] != keys.shape:
        got = (
            f"{orders.dtype}, {tuple(orders.shape)}" if isinstance(orders, Tensor) else type(orders).__name__
        )
        raise InputError("orders", got, f"torch.int64, (orders, {len(keys)})", "one permutation per row")
    if not (orders.sort(-1).values == keys).all():
        fix = "swap two entries at once: one after the other loses the first"
        raise InputError("orders", "a row with a repeated key", "permutations of 0 … m − 1", fix)
    own = _own(logits)[..., None, :]
    return logits[..., orders, keys] - own, logits[..., keys, orders] - own


def mean_square_deviations(logits: Logits) -> tuple[PerHead, PerHead]:
    """‖δ^pos‖²/(m!·m) and ‖δ^sym‖²/(m!·m) over all m! permutations; by S1, Var(λ) is at most their sum.

    As (1/m²) Σ_jk (M_kj − λ_j)² and (1/m²) Σ_jk (M_jk − λ_j)²: each π(j) = k occurs in (m − 1)! permutations.
    """
    _check_logits(logits)
    own = _own(logits)
    return (logits - own[..., None, :]).square().mean((-2, -1)), (logits - own[..., None]).square().mean(
        (-2, -1)
    )


# Checks


def _check_axes(argument: str, value: object, axes: str) -> None:
    """The last axes are these; others may stand before them."""
    check_tensor(argument, value, "batch " * (getattr(value, "ndim", 0) - len(axes.split())) + axes)


def _check_logits(logits: Tensor) -> None:
    _check_axes("logits", logits, "m m")
    m = logits.shape[-1]
    check_shape(
        "logits", logits, (*logits.shape[:-2], m, m), "M (*batch, m, m), as many contents as positions"
    )
    if m == 0:
        raise InputError("logits", "no keys", "m ≥ 1", "give the query at least one key")


def _check_keys(query: Tensor, keys: Tensor) -> None:
    _check_axes("query", query, "d_k")
    _check_axes("keys", keys, "m d_k")
    check_match("keys", keys, "query", query)
    check_shape(
        "keys", keys, (*query.shape[:-1], keys.shape[-2], query.shape[-1]), "(*batch, m, d_k) as query says"
    )


def _check_cut(m: int, blocks: int, temperature: float, span: Span | None) -> Span:
    """The span, which is all of 0 … m − 1 if None."""
    start, stop = (0, m) if span is None else span
    if type(start) is not int or type(stop) is not int or not 0 <= start < stop <= m:
        raise InputError("span", f"{span}", f"0 ≤ start < stop ≤ m = {m}", "cut keys that are there")
    size = stop - start
    if type(blocks) is not int or blocks < 2 or size % blocks:
        divisors = ", ".join(str(count) for count in range(2, size + 1) if size % count == 0)
        what = f"m = {m}" if span is None else f"the span's {size} keys"
        raise InputError(
            "blocks", blocks, f"a divisor of {what}, at least 2", f"use one of {divisors or '– (m ≥ 2)'}"
        )
    if not 0 < temperature < float("inf"):
        raise InputError("temperature", temperature, "a positive number", "1/m is the size of a weight")
    return start, stop
