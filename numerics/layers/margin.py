"""A differentiable margin of the robust certificate (T11), for attention that stays unconstrained.

For M ≻ 0 let N_h = σMV_h − W_h (σ = 1 for divergence, −1 for boundedness) and ν_h the norm of M^(−1/2) N_h
M^(−1/2). If W_s − Σ_h ν_h M ≻ 0, then S_h = W_{h,s} − ν_h M, c = 1, μ_h = ν_h/2 satisfy the pair certificate
of docs/certificates.md: its blocks become ½[[ν_h M, N_h], [N_hᵀ, ν_h M]] ⪰ 0. So the largest energy ½xᵀMx
grows exponentially from large starts, or stays bounded. It holds under a causal mask too; biases, norms, the
MLP and encodings are not in it.
"""

from collections.abc import Sequence
from math import inf
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from numerics.errors import InputError
from numerics.layers.places import Attention, attention_maps, no_autocast

Kind = Literal["divergence", "boundedness"]

_POWER = 32  # of the Schatten norm that stands for the largest singular value: above it by at most d^(1/32)


def certificate_margin(
    module: Attention,
    kind: Kind = "divergence",
    metric: Tensor | None = None,
    *,
    sharpness: float = 100.0,
    maps: Sequence[str] | None = None,
    heads: int | None = None,
) -> Float[Tensor, ""]:
    """A smooth lower bound on λ_min(W_s − Σ_h ν_h M), in units of the scores per squared length of a token.

    Positive: T11's certificate exists for this M, in floats; `theory.certificate.check` proves it. Negative:
    none with this M and c = 1 was found, which says nothing.

    `metric` is M, a diagonal (d,) or a matrix (d, d); it may be learned, as `softplus(parameter)` say. By
    default M = μI with the μ ≥ 0 that brings μV nearest to σW; where that is 0 the margin is not positive.

    The bound: ν_h is at most the Schatten norm of power 32, equal where N_h = 0; λ_min is at least
    −log Σ exp(−bλ)/b with b = `sharpness`·√d/‖W‖, below it by at most log(d)/b. Takes H singular value
    decompositions of size d.

    Raises `InputError` as `attention_maps` does, for an unknown kind, a sharpness that is not positive, and
    a metric of another shape or that is not positive definite.
    """
    if kind not in get_args(Kind):
        raise InputError(
            "kind",
            got=repr(kind),
            expected=" or ".join(get_args(Kind)),
            fix="choose what the certificate proves",
        )
    if not 0 < sharpness < inf:
        raise InputError(
            "sharpness", got=f"{sharpness}", expected="a finite number > 0", fix="leave it at its default"
        )
    found = attention_maps(module, maps=maps, heads=heads)
    with no_autocast(found.query.device):
        wide = torch.promote_types(found.query.dtype, torch.float32)
        scores = found.scores().to(wide)
        values = found.values().to(wide) * (1 if kind == "divergence" else -1)
        return _margin(scores, values, metric, sharpness)


def margin_penalty(
    module: Attention,
    kind: Kind = "divergence",
    metric: Tensor | None = None,
    *,
    target: float = 0.0,
    sharpness: float = 100.0,
    maps: Sequence[str] | None = None,
    heads: int | None = None,
) -> Float[Tensor, ""]:
    """`max(0, target − certificate_margin)`, to be added to a loss: it pulls until the margin is `target`.

    With a target of 0 the weights may also shrink towards it; a positive one must be met.
    """
    margin = certificate_margin(module, kind, metric, sharpness=sharpness, maps=maps, heads=heads)
    return relu(target - margin)


def _margin(scores: Tensor, values: Tensor, metric: Tensor | None, sharpness: float) -> Tensor:
    W, V = scores.sum(0), values.sum(0)
    size = len(W)
    unit = (W.norm() / size**0.5).clamp_min(torch.finfo(W.dtype).tiny)
    if metric is None:
        M = relu((V * W).sum()) / V.square().sum().clamp_min(torch.finfo(V.dtype).tiny)
        gaps, root = M * values - scores, None
    else:
        M = _matrix(metric, W)
        root = _root(M)
        gaps = whiten(root, M @ values - scores)
    nu = _schatten(gaps).sum()
    base = torch.eye(size, dtype=W.dtype, device=W.device) if root is None else M
    lowest = torch.linalg.eigvalsh(((W + W.mT) / 2 - nu * base) / unit)
    return -torch.logsumexp(-sharpness * lowest, 0) / sharpness * unit


def _matrix(metric: Tensor, like: Tensor) -> Tensor:
    size = len(like)
    if tuple(metric.shape) not in ((size,), (size, size)):
        raise InputError(
            "metric",
            got=f"shape {tuple(metric.shape)}",
            expected=f"({size},) or ({size}, {size})",
            fix="one entry, or row, for each dimension of a token",
        )
    M = torch.diag(metric) if metric.ndim == 1 else (metric + metric.mT) / 2
    return M.to(like)


def _root(M: Tensor) -> Tensor:
    """G lower triangular with GGᵀ = M."""
    root, info = torch.linalg.cholesky_ex(M)
    if not M.is_meta and bool(info):
        raise InputError(
            "metric",
            got="a matrix that is not positive definite",
            expected="M ≻ 0",
            fix="pass softplus of a parameter, or a positive diagonal",
        )
    return root


def whiten(root: Tensor, matrix: Tensor) -> Tensor:
    """G⁻¹ N G⁻ᵀ for G lower triangular."""
    left = torch.linalg.solve_triangular(root, matrix, upper=False)
    return torch.linalg.solve_triangular(root.mT, left, upper=True, left=False)


def _schatten(matrices: Float[Tensor, "H d d"]) -> Float[Tensor, " H"]:
    """(Σσ^p)^(1/p) of each; scaled by the largest σ, which cancels, so that no power leaves the range."""
    sigma = torch.linalg.svdvals(matrices)
    largest = sigma.detach().amax(-1, keepdim=True).clamp_min(torch.finfo(sigma.dtype).tiny)
    return (largest * torch.linalg.vector_norm(sigma / largest, ord=_POWER, dim=-1, keepdim=True)).squeeze(-1)
