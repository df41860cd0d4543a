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
KINDS = ("weights", "logits")


@dataclass(frozen=True, eq=False)
class Behaviour:
    """Scores of heads, (*batch,) each, and the entropy of their attention softmax(λ), in nats.

    The entropy is needed to read the scores: a head that attends nearly uniformly scores high on both.
    """

    positional: PerHead
    symbolic: PerHead
    entropy: PerHead


def behaviour(logits: Logits, blocks: int, temperature: float, of: str = "weights") -> Behaviour:
    """Positional and symbolic scores by swapping blocks of keys, over all pairs of blocks at once.

    The m keys are cut into contiguous ``blocks`` of equal size, with means d of the softmax weights, or of
    the "logits". Swapping the contents of blocks i and j gives d'; pos_ij = cos((d'_i, d'_j), (d_i, d_j)),
    sym_ij = cos((d'_i, d'_j), (d_j, d_i)); the cosine of two zero vectors is 1. The scores are means over the
    pairs i < j weighted by softmax(|d_i − d_j| / temperature).

    Scores of weights lie in [0, 1], of logits in [−1, 1]. Those of logits change if a constant is added to
    all logits, which attention does not notice. A pure head's other score is a mean of 2ab/(a² + b²) for
    block means a and b, high where these are close: one high score does not make a head positional or
    symbolic. Raises InputError for logits of another shape, blocks not dividing m, or a temperature ≤ 0.
    """
    _check_logits(logits)
    _check_cut(logits.shape[-1], blocks, temperature)
    check_choice("of", of, KINDS)
    attention = torch.softmax(_own(logits), -1)
    moved = _moved(logits, blocks)
    if of == "weights":
        # Softmax's denominator, another one after each swap, leaves the cosines as they are.
        level, means = moved.logsumexp(-1), attention.unflatten(-1, (blocks, -1)).mean(-1)
    else:
        level = moved.mean(-1)
        means = _own(level)
    i, j = torch.triu_indices(blocks, blocks, 1, device=logits.device)
    before = torch.stack((level[..., i, i], level[..., j, j]), -1)
    after = torch.stack((level[..., j, i], level[..., i, j]), -1)
    if of == "weights":
        before, after = ((pair - pair.amax(-1, keepdim=True)).exp() for pair in (before, after))
    weight = torch.softmax((means[..., i] - means[..., j]).abs() / temperature, -1)
    positional, symbolic = ((weight * score).sum(-1) for score in _cosines(after, before))
    return Behaviour(positional, symbolic, score_entropy(attention))


def _own(logits: Logits) -> Float[Tensor, "*batch m"]:
    """λ_j = M_jj."""
    return logits.diagonal(dim1=-2, dim2=-1)


def _moved(logits: Logits, blocks: int) -> Float[Tensor, "*batch blocks blocks size"]:
    """Entry (k, j): the logits of the keys of block k moved, in their order, to the positions of block j."""
    size = logits.shape[-1] // blocks
    return logits.unflatten(-1, (blocks, size)).unflatten(-3, (blocks, size)).diagonal(dim1=-3, dim2=-1)


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
) -> Float[Tensor, "*batch frequencies m m"]:
    """``rotary_logits`` of each rotary frequency as a head of its own; they sum to the head's.

    There are d_k/2 frequencies, in radians per position, one for each pair of coordinates; ``layout`` places
    the pairs as in ``rotary_turns``. Leave out coordinates that do not turn. InputError as ``rotary_logits``.
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
    angles = frequencies[:, None] * torch.arange(-m, 0, dtype=query.dtype, device=query.device)
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


def _check_cut(m: int, blocks: int, temperature: float) -> None:
    if type(blocks) is not int or blocks < 2 or m % blocks:
        divisors = ", ".join(str(count) for count in range(2, m + 1) if m % count == 0)
        raise InputError(
            "blocks", blocks, f"a divisor of m = {m}, at least 2", f"use one of {divisors or '– (m ≥ 2)'}"
        )
    if not 0 < temperature < float("inf"):
        raise InputError("temperature", temperature, "a positive number", "1/m is the size of a weight")
