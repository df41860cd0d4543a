"""The systems that benchmarks.engine integrates."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from numerics import AttentionSystem

SEED = 0


@dataclass(frozen=True, eq=False)
class Workload:
    """A batch of systems ẋ_i = V Σ_j P_ij x_j from x0 (batch, n, d), to be solved on [0, end]."""

    name: str
    score: Tensor  # W (batch, d, d)
    value: Tensor  # V (batch, d, d)
    x0: Tensor
    end: float

    @property
    def system(self) -> AttentionSystem:
        return AttentionSystem(self.score, self.value)

    @property
    def times(self) -> Tensor:
        return torch.tensor([0.0, self.end], dtype=self.x0.dtype, device=self.x0.device)

    def first(self, count: int) -> "Workload":
        return replace(self, score=self.score[:count], value=self.value[:count], x0=self.x0[:count])

    def to(self, place: str | torch.dtype) -> "Workload":
        """The same on another device or in another dtype."""
        return replace(self, score=self.score.to(place), value=self.value.to(place), x0=self.x0.to(place))

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W, V and x0."""
        return self.score.numpy(), self.value.numpy(), self.x0.numpy()


def sweep(kind: str, batch: int = 4096, n: int = 8, d: int = 4) -> Workload:
    """W = GGᵀ/d + ¼I, A = ∓(HHᵀ/d + ½I), V = A⁻¹W, x0 ~ N(0, I), t ∈ [0, 10]: "convergent" or "divergent"."""
    generator = torch.Generator().manual_seed(SEED)
    G, H = torch.randn(2, batch, d, d, generator=generator, dtype=torch.float64)
    x0 = torch.randn(batch, n, d, generator=generator, dtype=torch.float64)
    eye = torch.eye(d, dtype=torch.float64)
    W, A = G @ G.mT / d + eye / 4, H @ H.mT / d + eye / 2
    V = torch.linalg.solve(A, W) * (-1 if kind == "convergent" else 1)
    return Workload(kind, W, V, x0, 10.0)


def growth(exponent: int, batch: int = 4096) -> Workload:
    """The divergent sweep with V over its largest eigenvalue, so that every row gets to about 10^exponent."""
    base = sweep("divergent", batch)
    rate = torch.linalg.eigvals(base.value).real.amax(-1)  # V is similar to a positive definite matrix
    end = exponent * float(np.log(10))
    return replace(base, name=f"to 1e{exponent}", value=base.value / rate[:, None, None], end=end)


def context(n: int = 4096, d: int = 64, dtype: torch.dtype = torch.float32) -> Workload:
    """One system of n tokens, Gaussian Q, K and V of ordinary size, t ∈ [0, 1]."""
    generator = torch.Generator().manual_seed(SEED)
    Q, K, V = torch.randn(3, 1, d, d, generator=generator, dtype=torch.float64) / d**0.5
    x0 = torch.randn(1, n, d, generator=generator, dtype=torch.float64)
    return Workload(f"n = {n}", (Q.mT @ K / d**0.5).to(dtype), V.to(dtype), x0.to(dtype), 1.0)
