"""The profile C* of the collapse (T9), the cubic flow that leads to it, and its linearisation (T9b)."""

import torch
from torch import Tensor

from numerics.shapes import Forms, Rows, Tokens


def covariance(x: Tokens) -> Forms:
    """Cov = (1/n) Σ (x_i − x̄)(x_i − x̄)ᵀ, (batch, d, d); more axes may stand in front."""
    centred = x - x.mean(-2, keepdim=True)
    return centred.mT @ centred / x.shape[-2]


def cubic_field(W: Forms, V: Forms, C: Forms) -> Forms:
    """VCWᵀC + CWCᵀVᵀ, the velocity of the covariance near 0 (T9)."""
    half = V @ C @ W.mT @ C
    return half + half.mT


def profile(W: Forms, A: Forms) -> Forms:
    """C* = ½ W⁻¹(−A)W⁻ᵀ, (batch, d, d); NaN where W is singular."""
    inverse, info = torch.linalg.inv_ex(W)
    return torch.where((info == 0)[:, None, None], -inverse @ A @ inverse.mT / 2, torch.nan)


def profile_size(W: Forms, A: Forms) -> Rows:
    """tr(−AC*); NaN where W is singular."""
    return -(A @ profile(W, A)).diagonal(dim1=1, dim2=2).sum(1)


def linearisation(W: Forms, V: Forms, A: Forms) -> Forms:
    """The matrix (batch, d(d+1)/2, d(d+1)/2) of L: H ↦ −(VHWᵀC* + (VHWᵀC*)ᵀ) on symmetric H.

    In the basis of `symmetric_matrices`: L is minus the derivative at C* of the cubic flow of tC in log t.
    """
    d = W.shape[-1]
    basis = symmetric_matrices(torch.eye(d * (d + 1) // 2, dtype=W.dtype, device=W.device))
    half = V[:, None] @ basis @ (W.mT @ profile(W, A))[:, None]
    i, j = torch.triu_indices(d, d, device=W.device)
    return -(half + half.mT)[..., i, j].mT


def symmetric_matrices(entries: Tensor) -> Tensor:
    """Symmetric matrices (…, d, d) from their entries (…, d(d+1)/2) on and above the diagonal, row by row."""
    d = int((2 * entries.shape[-1]) ** 0.5)
    i, j = torch.triu_indices(d, d, device=entries.device)
    matrices = entries.new_zeros(*entries.shape[:-1], d, d)
    matrices[..., i, j] = entries
    matrices[..., j, i] = entries
    return matrices


def profile_decay(W: Forms, V: Forms, A: Forms) -> Rows:
    """The smallest real part of the spectrum of L: C* is linearly stable iff it is positive (T9b).

    NaN where W is singular.
    """
    operator = linearisation(W, V, A)
    regular = operator.isfinite().flatten(1).all(1)
    spectrum = torch.linalg.eigvals(torch.where(regular[:, None, None], operator, 0.0))
    return torch.where(regular, spectrum.real.amin(1), torch.nan)
