"""What theory.md speaks about, measured on tokens x (batch, n, d): pure functions of a system and its tokens.

Rates are exact derivatives along given velocities, not differences, and assume no symmetry of any matrix.
"""

import math

import torch

from numerics.errors import InputError
from numerics.shapes import Flags, Forms, PerPair, PerProbe, PerToken, Probes, Rows, Scores, Tokens, Vectors
from numerics.system import AttentionSystem

# Matrices


def symmetric_part(M: Forms) -> Forms:
    """M_s = (M + Mᵀ)/2."""
    return (M + M.mT) / 2


def antisymmetric_share(M: Forms) -> Rows:
    """‖M_a‖_F / ‖M‖_F, between 0 (symmetric) and 1 (antisymmetric); NaN for M = 0. (Theory, §7.)"""
    return torch.linalg.matrix_norm(M - M.mT) / (2 * torch.linalg.matrix_norm(M))


def _finite(M: Forms) -> Flags:
    return M.isfinite().flatten(1).all(1)


def _identity_unless(keep: Flags, M: Forms) -> Forms:
    return torch.where(keep[:, None, None], M, torch.eye(M.shape[-1], dtype=M.dtype, device=M.device))


def pencil_minimum(S: Forms, M: Forms) -> Rows:
    """Smallest λ with det(S_s − λ M_s) = 0, the λ_min of the pencil in T4 and T11; NaN where M_s is not ≻ 0.

    By Cholesky reduction (Golub & Van Loan, Matrix Computations, §8.7).
    """
    factor, info = torch.linalg.cholesky_ex(symmetric_part(M))
    half = torch.linalg.solve_triangular(factor, symmetric_part(S), upper=False)
    reduced = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    definite = (info == 0) & _finite(reduced)
    smallest = torch.linalg.eigvalsh(_identity_unless(definite, symmetric_part(reduced)))[:, 0]
    return torch.where(definite, smallest, torch.nan)


def spectral_abscissa(V: Forms) -> Rows:
    """max Re of the eigenvalues of V; negative iff V is Hurwitz (T6, T14a). NaN where V is not finite."""
    finite = _finite(V)
    largest = torch.linalg.eigvals(_identity_unless(finite, V)).real.amax(1)
    return torch.where(finite, largest, torch.nan)


# Energies and distances


def _pair_differences(x: Tokens) -> Tokens:
    i, j = torch.triu_indices(x.shape[1], x.shape[1], 1, device=x.device)
    return x[:, i] - x[:, j]


def norms(x: Tokens) -> PerToken:
    """Euclidean norms ‖x_i‖; they overflow to inf for entries above 1e154."""
    return torch.linalg.vector_norm(x, dim=-1)


def hyperplane(x: Tokens, ell: Vectors) -> PerToken:
    """z_i = ℓᵀx_i (T17)."""
    return (x * ell[:, None]).sum(-1)


def token_energy(x: Tokens, form: Forms) -> PerToken:
    """E_i = ½ x_iᵀ M x_i (T4)."""
    return ((x @ form) * x).sum(-1) / 2


def token_energy_rate(x: Tokens, velocity: Tokens, form: Forms) -> PerToken:
    """Ė_i = x_iᵀ M_s ẋ_i, for M of any symmetry."""
    return ((x @ symmetric_part(form)) * velocity).sum(-1)


def pairwise_form(x: Tokens, form: Forms) -> PerPair:
    """(x_i − x_j)ᵀ M (x_i − x_j) (T1) for i < j in the order of ``torch.triu_indices``."""
    return 2 * token_energy(_pair_differences(x), form)


def pairwise_form_rate(x: Tokens, velocity: Tokens, form: Forms) -> PerPair:
    """d/dt of ``pairwise_form``, for M of any symmetry (L4, T1)."""
    return 2 * token_energy_rate(_pair_differences(x), _pair_differences(velocity), form)


def pairwise_distance(x: Tokens) -> PerPair:
    """Euclidean distances ‖x_i − x_j‖, i < j; they need not be monotone where T1's form is."""
    return norms(_pair_differences(x))


# Scores and attention


def attended_score(system: AttentionSystem, x: Tokens) -> PerToken:
    """e_i = Σ_j P_ij s_ij (L1, L2, L4)."""
    return (system.attention(x) * system.scores(x)).sum(-1)


def mean_score(system: AttentionSystem, x: Tokens) -> PerToken:
    """(1/n) Σ_j s_ij (L1)."""
    return system.scores(x).mean(-1)


def max_score(system: AttentionSystem, x: Tokens) -> PerToken:
    """max_j s_ij (L2)."""
    return system.scores(x).amax(-1)


def self_score(system: AttentionSystem, x: Tokens) -> PerToken:
    """s_ii = x_iᵀ W x_i (T4)."""
    return system.scores(x).diagonal(dim1=1, dim2=2)


def score_entropy(attention: Scores) -> PerToken:
    """Entropy −Σ_j P_ij log P_ij of attention rows, in nats, with 0 log 0 = 0 (L2)."""
    return torch.special.entr(attention).sum(-1)


def kl_to_uniform(attention: Scores) -> PerToken:
    """KL(P_i ‖ U) = log n − H(P_i) ≥ 0, in nats (L1)."""
    return (math.log(attention.shape[-1]) - score_entropy(attention)).clamp(min=0)


def kl_from_uniform(scores: Scores) -> PerToken:
    """KL(U ‖ P_i) = logsumexp_j(s_ij) − mean_j(s_ij) − log n ≥ 0, in nats (L1).

    From the scores, because it stays finite where entries of P underflow to 0.
    """
    excess = scores - scores.amax(-1, keepdim=True)
    return (excess.exp().mean(-1).log() - excess.mean(-1)).clamp(min=0)


def free_energy_gap(n: int) -> float:
    """κ_n = W₀((n−1)/e), the sharp constant of L2; exactly 0 at n = 1, always ≤ log n.

    Halley's iteration for w eʷ = z (Corless et al., On the Lambert W function, 1996, §4).
    Raises InputError for n < 1.
    """
    if n < 1:
        raise InputError("n", n, "at least one token", "n ≥ 1")
    z = (n - 1) / math.e
    w = math.log1p(z)
    for _ in range(8):
        residual = w - z * math.exp(-w)
        w -= residual / (w + 1 - (w + 2) * residual / (2 * w + 2))
    return w


# Potentials


def potential(system: AttentionSystem, y: Probes, x: Tokens) -> PerProbe:
    """φ(y) = logsumexp_k(yᵀ W x_k) at probes y (batch, q, d) (L3)."""
    return torch.logsumexp(y @ system.score @ x.mT, -1)


def potential_gradient(system: AttentionSystem, y: Probes, x: Tokens) -> Probes:
    """∇φ(y) = W Σ_k P_k(y) x_k (L3); at y = x_i it is W m_i."""
    return torch.softmax(y @ system.score @ x.mT, -1) @ x @ system.score.mT


def log_partition_total(system: AttentionSystem, x: Tokens) -> Rows:
    """log F, finite where F itself overflows."""
    return system.scores(x).flatten(1).logsumexp(1)


def partition_total(system: AttentionSystem, x: Tokens) -> Rows:
    """F = Σ_ij exp(s_ij) (T5)."""
    return system.scores(x).exp().sum((1, 2))


def partition_total_rate(system: AttentionSystem, x: Tokens) -> Rows:
    """Ḟ = Σ_ij exp(s_ij) (ẋ_iᵀ W x_j + x_iᵀ W ẋ_j) along the flow, for W of any symmetry (T5)."""
    velocity = system.velocity(x)
    score_rate = velocity @ system.score @ x.mT + x @ system.score @ velocity.mT
    return (system.scores(x).exp() * score_rate).sum((1, 2))
