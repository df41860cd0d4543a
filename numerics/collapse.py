"""How tokens collapse to zero (T9), measured: the limit of t·Cov, the mean, and how fast deviations decay.

Tokens must affinely span R^d wherever a covariance is inverted; torch raises LinAlgError otherwise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from numerics import families
from numerics.integrate import integrate
from numerics.profile import covariance, linearisation, profile, symmetric_matrices
from numerics.shapes import Forms, Path, Rows, Times, Tokens, Vectors
from numerics.system import AttentionSystem


def fitted_limit(times: Times, states: Path) -> Forms:
    """The limit of t·Cov, from the last two output times.

    It is the inverse of the slope of Cov⁻¹: Cov⁻¹ = t·C*⁻¹ + memory of the start, and the slope forgets the
    memory, which t·Cov itself keeps as an error of order 1/t.
    """
    inverses = torch.linalg.inv(covariance(states[:, -2:]))
    return torch.linalg.inv((inverses[:, 1] - inverses[:, 0]) / (times[-1] - times[-2]))


def relative_error(found: Forms, expected: Forms) -> Rows:
    """Frobenius norm of the difference over that of `expected`."""
    norm = torch.linalg.matrix_norm
    return norm(found - expected) / norm(expected)


def clock(W: Forms, V: Forms, x: Tokens) -> Rows:
    """tr(W⁻¹C⁻¹)/(−2 tr V): for W = Wᵀ and the cubic flow it runs like time, from what C(0) sets it to."""
    inverse = torch.linalg.inv(W) @ torch.linalg.inv(covariance(x))
    return -inverse.diagonal(dim1=1, dim2=2).sum(1) / (2 * V.diagonal(dim1=1, dim2=2).sum(1))


def slaved_mean(W: Forms, x: Tokens) -> Vectors:
    """−½ Σ_bk κ_abk (WᵀCW)_bk, κ the third cumulant of the tokens."""
    centred = x - x.mean(1, keepdim=True)
    weights = ((centred @ (W.mT @ covariance(x) @ W)) * centred).sum(-1, keepdim=True)
    return -(weights * centred).mean(1) / 2


def partial_profile(W: Forms, A: Forms, rank: int) -> Forms:
    """C* on the `rank` smallest eigenvectors of the pencil (W, −A), 0 on the others; for W and A symmetric.

    The limit of t·Cov for rank + 1 ≤ d tokens.
    """
    root = torch.linalg.cholesky(-A)
    half = torch.linalg.solve_triangular(root, W, upper=False)
    values, vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.mT, upper=False))
    basis = torch.linalg.solve_triangular(root.mT, vectors[..., :rank], upper=True)
    return basis @ (basis.mT / (2 * values[:, :rank, None] ** 2))


def roundness(C: Tensor) -> Tensor:
    """4 det C/(tr C)² of covariances (…, 2, 2): 1 for round, 0 for flat (T9c)."""
    return 4 * torch.linalg.det(C) / C.diagonal(dim1=-2, dim2=-1).sum(-1) ** 2


def with_covariance(x: Tokens, wanted: Forms) -> Tokens:
    """The tokens centred and mapped linearly so that their covariance is `wanted`."""
    centred = x - x.mean(1, keepdim=True)
    root, goal = torch.linalg.cholesky(covariance(x)), torch.linalg.cholesky(wanted)
    return torch.linalg.solve_triangular(root, centred.mT, upper=False).mT @ goal.mT


@dataclass(frozen=True, eq=False)
class Decay:
    """min Re λ(L) of T9b, computed and measured: near C* the difference tC − C* moves like t^{−decay}."""

    computed: Rows
    measured: Rows


def decay_rates(
    W: Forms,
    A: Forms,
    generator: Generator,
    *,
    start: float = 100.0,
    times: float = 4.0,
    kick: float = 0.05,
) -> Decay:
    """Follow pairs of starts whose covariances lie on either side of C*/start, from `start` to `times`·start.

    They differ along the slowest eigenvector H of L, C*⁻¹H having spectral radius `kick`. Half the difference
    of a pair, read off by the left eigenvector, moves like t^{−λ} whatever the centre does in higher order,
    which is of relative size 1/start. Each start is d + 2 random tokens made to have the covariance.
    """
    system, centre = AttentionSystem.from_response(W, A), profile(W, A)
    values, vectors = torch.linalg.eig(linearisation(W, system.value, A))
    slowest = values.real.argmin(1)
    rows = torch.arange(len(W), device=W.device)
    direction = symmetric_matrices(vectors[rows, :, slowest].real)
    radius = torch.linalg.eigvals(torch.linalg.solve(centre, direction)).abs().amax(1)
    push = direction * (kick / radius)[:, None, None]
    tokens = families.random_tokens(len(W), W.shape[1] + 2, W.shape[1], 1.0, generator, W.device)
    span = W.new_tensor([start, times * start])
    ends = []
    for side in (centre + push, centre - push):
        x = with_covariance(tokens, side / start)
        states = integrate(system, x, span, rtol=1e-9, atol=1e-13).states
        ends.append(span[:, None, None] * covariance(states))
    i, j = torch.triu_indices(W.shape[1], W.shape[1], device=W.device)
    reading = torch.linalg.inv(vectors)[rows, slowest]
    sizes = ((ends[0] - ends[1])[..., i, j].to(reading.dtype) * reading[:, None]).sum(-1).abs()
    return Decay(values.real.amin(1), -(sizes[:, 1] / sizes[:, 0]).log() / math.log(times))
