"""Attention of one large system in memory linear in the number of tokens: no matrix of all scores is formed.

On the CPU the tiles of ``numerics.flash``, shared out to Torch's threads; on other devices, under a compiler
and where derivatives are wanted, the same sums in blocks of Torch operations.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual
from torch.nn.functional import pad
from torch.utils.checkpoint import checkpoint

BLOCK, CUDA_BLOCK = 512, 8192  # rows and columns of scores at a time in Torch operations


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, scale: Tensor, bias: Tensor | None, causal: bool
) -> Tensor:
    """Σ_j P_ij values_j (n, c), where P_ij = softmax_j of (q_i · k_j) scale_i + bias_ij over visible j.

    queries and keys (n, r), values (n, c), scale (n, 1) > 0, bias (n, n) or None; ``causal`` hides j > i.
    Row maxima are taken before scores are scaled, so that neither a scale nor the sum of large values
    overflows.
    """
    parts = [queries, keys, values, scale] + ([] if bias is None else [bias])
    followed = any(_is_followed(part) for part in parts)
    recorded = torch.is_grad_enabled() and any(part.requires_grad for part in parts)
    if values.device.type == "cpu" and not followed and not recorded:
        return _in_tiles(*parts, causal=causal)
    add = _add_block
    if recorded and not followed:  # computed once more in the backward pass instead of kept
        add = partial(checkpoint, _add_block, use_reentrant=False)
    return _in_blocks(add, *parts, causal=causal)


def _is_followed(part: Tensor) -> bool:
    """Whether a compiler, forward differentiation or a transform of torch.func looks on."""
    if torch.compiler.is_compiling() or unpack_dual(part).tangent is not None:
        return True
    try:
        part.data_ptr()
    except RuntimeError:  # inside torch.func a tensor has no memory of its own
        return True
    return False


def _in_tiles(
    queries: Tensor, keys: Tensor, values: Tensor, scale: Tensor, bias: Tensor | None = None, *, causal: bool
) -> Tensor:
    from numerics import flash  # compiles by Numba, which takes memory that most programs do not need

    rows, width = -len(keys) % flash.ROWS, -values.shape[1] % flash.ROWS
    out = torch.empty_like(values)
    parts = (
        queries.contiguous(),
        _padded(keys, 0, rows),
        _padded(values, width, rows),
        scale.flatten(),
        values.new_empty(0, 0) if bias is None else bias.contiguous(),
    )
    q, k, v, s, b = (part.detach().numpy() for part in parts)
    step = 4 * flash.tile_width(values.itemsize)
    starts = range(0, len(out), step)

    def work(start: int) -> None:
        flash.attend(q, k, v, s, b, causal, out.numpy(), start, min(start + step, len(out)))

    if torch.get_num_threads() == 1 or len(starts) == 1:
        for start in starts:
            work(start)
    else:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            list(pool.map(work, starts))
    return out


def _padded(part: Tensor, columns: int, rows: int) -> Tensor:
    """The part, contiguous, with so many columns and rows of zeros more; not copied if there are none."""
    return (pad(part, (0, columns, 0, rows)) if columns or rows else part).contiguous()


def _in_blocks(
    add: Callable[..., tuple[Tensor, Tensor, Tensor]],
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    causal: bool,
) -> Tensor:
    n, size, means = len(queries), CUDA_BLOCK if values.is_cuda else BLOCK, []
    for first in range(0, n, size):
        rows = slice(first, first + size)
        largest = torch.full_like(scale[rows], torch.finfo(scale.dtype).min)
        total = mean = torch.zeros_like(largest)
        for low in range(0, min(first + size, n) if causal else n, size):
            columns = slice(low, low + size)
            shift = None if bias is None else bias[rows, columns] / scale[rows]
            hidden = first - low + 1 if causal else size
            largest, total, mean = add(
                largest,
                total,
                mean,
                queries[rows],
                keys[columns],
                values[columns],
                scale[rows],
                shift,
                hidden,
                n,
            )
        means.append(mean / total)
    return torch.cat(means)


def _add_block(
    largest: Tensor,
    total: Tensor,
    mean: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    hidden: int,
    n: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest score, total of the weights and weighted sum of the values with a block of keys added.

    Keys on the diagonal of number ``hidden`` and above it are hidden. Weights are at most 1/n, so that no sum
    exceeds its values.
    """
    scores = queries @ keys.mT
    if shift is not None:
        scores = scores + shift
    above = torch.ones_like(scores, dtype=torch.bool).triu(hidden)
    scores = scores.masked_fill(above, -torch.inf)
    higher = torch.maximum(largest, scores.detach().amax(1, keepdim=True))
    fade, weights = torch.exp((largest - higher) * scale), torch.exp((scores - higher) * scale) / n
    return higher, total * fade + weights.sum(1, keepdim=True), mean * fade + weights @ values
