"""Layers one after the other, as in T16 and T16a, and what is measured after each: metrics, stacks, blocks.

Metrics are pure functions of tokens (..., n, d) with n ≥ 2, one number per leading index.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional

from numerics.checks import check_choice
from numerics.errors import InputError
from numerics.families import random_form
from numerics.shapes import Forms, Tokens
from numerics.system import AttentionSystem

Sequences = Float[Tensor, "*leading n d"]
Measured = Float[Tensor, "*leading"]

SCENARIOS = {"pd": 1.0, "hd": 0.5, "nd": 0.0}
"""The share of the eigenvalues of A_s that are positive; W_s ≻ 0 in all three."""


def positive_eigenvalues(scenario: str, d: int) -> int:
    """How many eigenvalues of A_s are positive: d (pd), ⌊d/2⌋ (hd) or 0 (nd). InputError for other names."""
    check_choice("scenario", scenario, SCENARIOS)
    return math.floor(SCENARIOS[scenario] * d)


# Metrics


def _tokens(x: Sequences) -> int:
    """n. InputError unless there are two tokens to compare."""
    if x.ndim < 2 or x.shape[-2] < 2:
        raise InputError("x", f"shape {tuple(x.shape)}", "tokens (..., n, d) with n ≥ 2", "check the axes")
    return x.shape[-2]


def squared_distances(x: Sequences) -> Measured:
    """Σ_ij ‖x_i − x_j‖² over ordered pairs, as 2n Σ_i ‖x_i − x̄‖²."""
    return 2 * _tokens(x) * (x - x.mean(-2, keepdim=True)).square().sum((-2, -1))


def sharpness(x: Sequences) -> Measured:
    """Σ_ij ‖x_i − x_j‖² / (2(n−1) Σ_i ‖x_i‖²), from 0 (equal tokens) to n/(n−1) (mean zero).

    It does not depend on the scale of x; NaN if all tokens are zero. Expected value 1 for independent
    tokens of mean zero.
    """
    return squared_distances(x) / (2 * (_tokens(x) - 1) * x.square().sum((-2, -1)))


def mean_cosine(x: Sequences) -> Measured:
    """Mean of the cosine between x_i and x_j over i ≠ j, from −1/(n−1) to 1; NaN if a token is zero."""
    n = _tokens(x)
    total = (x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)).sum(-2)
    return (total.square().sum(-1) - n) / (n * (n - 1))


def mean_norm(x: Sequences) -> Measured:
    """(1/n) Σ_i ‖x_i‖."""
    return torch.linalg.vector_norm(x, dim=-1).mean(-1)


METRICS: dict[str, Callable[[Sequences], Measured]] = {
    "sharpness": sharpness,
    "squared distances": squared_distances,
    "cosine": mean_cosine,
    "norm": mean_norm,
}

# Layers


@dataclass(frozen=True)
class Stacks:
    """A batch of independent stacks: in each, one response matrix A for all layers, but its own W per layer.

    So E = ½ Σ_i x_iᵀAx_i is one function for all layers of a stack, and T16 speaks about every one of them.
    """

    response: Forms
    layers: tuple[AttentionSystem, ...]


def random_stacks(
    scenario: str,
    batch: int,
    depth: int,
    d: int,
    *,
    score: tuple[float, float] = (0.5, 2.0),
    response: tuple[float, float] = (0.5, 2.0),
    score_share: float = 0.0,
    response_share: float = 0.0,
    generator: Generator,
    device: torch.device | str = "cpu",
) -> Stacks:
    """Stacks of ``depth`` layers with V = A⁻¹W, W_s ≻ 0 and the signs of A_s those of a scenario.

    ``score`` and ``response`` are the ranges of the |eigenvalues| of W_s and A_s, the shares those of the
    antisymmetric parts (see ``families.random_form``). A seed gives the same W and, but for the signs, the
    same eigenvalues and eigenvectors of A_s in every scenario.
    Raises InputError for an unknown scenario and as ``random_form`` does.
    """
    A = random_form(
        batch,
        d,
        positive=positive_eigenvalues(scenario, d),
        spectrum=response,
        antisymmetric_share=response_share,
        generator=generator,
        device=device,
    )
    layers = []
    for _ in range(depth):
        W = random_form(
            batch,
            d,
            positive=d,
            spectrum=score,
            antisymmetric_share=score_share,
            generator=generator,
            device=device,
        )
        layers.append(AttentionSystem.from_response(W, A))
    return Stacks(A, tuple(layers))


@dataclass(frozen=True, eq=False)
class Perceptron:
    """down · GELU(up · x) without biases, one for each row of the batch."""

    up: Float[Tensor, "batch width d"]
    down: Float[Tensor, "batch d width"]

    def __call__(self, x: Tokens) -> Tokens:
        return functional.gelu(x @ self.up.mT) @ self.down.mT


def random_perceptron(
    batch: int, d: int, generator: Generator, device: torch.device | str = "cpu", ratio: int = 4
) -> Perceptron:
    """Width ``ratio`` · d and Gaussian weights of variance 1/(number of inputs)."""
    up = torch.randn(batch, ratio * d, d, dtype=torch.float64, generator=generator) / math.sqrt(d)
    down = torch.randn(batch, d, ratio * d, dtype=torch.float64, generator=generator)
    return Perceptron(up.to(device), (down / math.sqrt(ratio * d)).to(device))


def normalised(x: Sequences) -> Sequences:
    """Layer norm without learned scale and shift: each token with mean 0 and variance 1 over its entries."""
    return functional.layer_norm(x, x.shape[-1:])


def block(attention: AttentionSystem, perceptron: Perceptron, x: Tokens) -> Tokens:
    """A pre-layer-norm Transformer block: x + attention(LN x), then y + perceptron(LN y).

    Xiong et al., On layer normalization in the Transformer architecture, ICML 2020. No statement is
    about it.
    """
    y = x + attention.velocity(normalised(x))
    return y + perceptron(normalised(y))


def run(layers: Iterable[Callable[[Tokens], Tokens]], x: Tokens) -> Float[Tensor, "states batch n d"]:
    """The tokens before the first layer and after every layer."""
    return torch.stack(list(accumulate(layers, lambda tokens, layer: layer(tokens), initial=x)))
