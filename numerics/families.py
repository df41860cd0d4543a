"""Random parameters with prescribed properties.

Numbers are drawn on the CPU from the given ``torch.Generator`` and then moved, so that a seed names the same
systems on every device.
"""

import torch
from torch import Generator, Tensor

from numerics.errors import InputError
from numerics.shapes import Forms, Tokens, Vectors

GRID = 1024


def _per_row(name: str, value: float | Tensor, batch: int) -> Tensor:
    """A number, or one number per system, as a CPU tensor (batch,)."""
    rows = torch.as_tensor(value, dtype=torch.float64, device="cpu")
    if rows.shape not in ((), (batch,)):
        got = f"shape {tuple(rows.shape)}"
        raise InputError(name, got, f"a number or shape ({batch},)", "give one value per system")
    return rows.expand(batch)


def _gaussian(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def random_orthogonal(batch: int, d: int, generator: Generator) -> Forms:
    """Haar-distributed orthogonal matrices (batch, d, d), on the CPU (Mezzadri, Notices AMS 54, 2007)."""
    Q, R = torch.linalg.qr(_gaussian(batch, d, d, generator=generator))
    return Q * torch.where(R.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0)[:, None]


def random_form(
    batch: int,
    d: int,
    *,
    positive: int | Tensor,
    spectrum: tuple[float | Tensor, float | Tensor] = (0.5, 2.0),
    antisymmetric_share: float | Tensor = 0.0,
    generator: Generator,
    device: torch.device | str = "cpu",
) -> Forms:
    """Matrices (batch, d, d) whose symmetric part is O diag(±λ) Oᵀ with ``positive`` plus signs.

    O is Haar-distributed and λ uniform in ``spectrum``. A Gaussian antisymmetric part is scaled so that
    ‖M_a‖_F / ‖M‖_F = antisymmetric_share. ``positive``, the ends of the spectrum and the share are numbers or
    tensors (batch,).
    Raises InputError unless positive is an integer in [0, d], 0 < spectrum[0] ≤ spectrum[1], the share is in
    [0, 1), and the share is 0 when d = 1.
    """
    positive, share = (
        _per_row("positive", positive, batch),
        _per_row("antisymmetric_share", antisymmetric_share, batch),
    )
    low, high = (_per_row("spectrum", end, batch) for end in spectrum)
    if not ((positive >= 0) & (positive <= d) & (positive == positive.round())).all():
        raise InputError(
            "positive", positive.tolist()[:8], f"integers from 0 to d = {d}", "count eigenvalues"
        )
    if not ((low > 0) & (low <= high) & (high < torch.inf)).all():
        raise InputError("spectrum", spectrum, "0 < low ≤ high", "give the range of |eigenvalue|")
    if not ((share >= 0) & (share < 1)).all():
        raise InputError("antisymmetric_share", share.tolist()[:8], "numbers in [0, 1)", "give ‖M_a‖/‖M‖")
    if d == 1 and share.any():
        raise InputError("antisymmetric_share", share.tolist()[:8], "0 when d = 1", "use d ≥ 2")
    signs = torch.where(torch.arange(d) < positive[:, None], 1.0, -1.0)
    sizes = torch.rand(batch, d, dtype=torch.float64, generator=generator)
    sizes = low[:, None] + (high - low)[:, None] * sizes
    O = random_orthogonal(batch, d, generator)  # noqa: E741
    symmetric = (O * (signs * sizes)[:, None]) @ O.mT
    symmetric = (symmetric + symmetric.mT) / 2
    skew = _gaussian(batch, d, d, generator=generator)
    skew = skew - skew.mT
    norm = torch.linalg.matrix_norm
    ratio = (
        share
        / (1 - share**2).sqrt()
        * norm(symmetric)
        / norm(skew).clamp(min=torch.finfo(torch.float64).tiny)
    )
    return (symmetric + ratio[:, None, None] * skew).to(device)


def random_value_with_left_eigenvector(
    batch: int, d: int, rate: float | Tensor, generator: Generator, device: torch.device | str = "cpu"
) -> tuple[Forms, Vectors]:
    """(V, ℓ) with ℓᵀV = rate · ℓᵀ exactly, ℓ_1 = 1, otherwise Gaussian rounded to multiples of 2⁻¹⁰ (T17).

    `rate` is a number or a tensor (batch,) of multiples of 2⁻¹⁰: then no product or sum here is rounded.
    Raises InputError for another rate.
    """
    rate = _per_row("rate", rate, batch)
    if not (rate * GRID == (rate * GRID).round()).all():
        raise InputError(
            "rate", rate.tolist()[:8], f"multiples of 1/{GRID}", "round it: (rate * 1024).round() / 1024"
        )
    V = (_gaussian(batch, d, d, generator=generator) * GRID).round() / GRID
    ell = (_gaussian(batch, d, generator=generator) * GRID).round() / GRID
    ell[:, 0] = 1
    V[:, 0] = rate[:, None] * ell - (ell[:, 1:, None] * V[:, 1:]).sum(1)
    return V.to(device), ell.to(device)


def random_tokens(
    batch: int,
    n: int,
    d: int,
    scale: float | Tensor,
    generator: Generator,
    device: torch.device | str = "cpu",
) -> Tokens:
    """Gaussian tokens (batch, n, d) with standard deviation ``scale``, a number or a tensor (batch,)."""
    scale = _per_row("scale", scale, batch)
    return (scale[:, None, None] * _gaussian(batch, n, d, generator=generator)).to(device)
