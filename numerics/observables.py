"""What the statements speak about, measured on tokens x (batch, n, d): pure functions of systems and tokens.

Rates are exact derivatives along given velocities, not differences, and assume no symmetry of any matrix.
"""

import math

import torch

from numerics.errors import InputError
from numerics.shapes import (
    Flags,
    Forms,
    HeadScores,
    PerHeadToken,
    PerPair,
    PerProbe,
    PerToken,
    Probes,
    Rows,
    Tokens,
    Vectors,
    Visible,
)
from numerics.system import AttentionSystem

# Matrices


def symmetric_part(M: Forms) -> Forms:
    """M_s = (M + Mᵀ)/2."""
    return (M + M.mT) / 2


def antisymmetric_share(M: Forms) -> Rows:
    """‖M_a‖_F / ‖M‖_F, between 0 (symmetric) and 1 (antisymmetric); NaN for M = 0."""
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


# Scores and attention. With a bias the scores include it. Under a causal mask, or a bias of −inf, maxima and
# means run over the keys that a token sees, and L1 and L2 hold with their number for n. Systems with heads
# give one number per head and token.


def _visible_mean(values: HeadScores, visible: Visible) -> PerHeadToken:
    return torch.where(visible, values, 0.0).sum(-1) / visible.sum(-1)


def attended_score(system: AttentionSystem, x: Tokens) -> PerHeadToken:
    """e_i = Σ_j P_ij s_ij (L1, L2, L4)."""
    weighted = system.attention(x) * system.scores(x)
    return torch.where(system.visible(x.shape[1]), weighted, 0.0).sum(-1)


def mean_score(system: AttentionSystem, x: Tokens) -> PerHeadToken:
    """(1/n) Σ_j s_ij (L1), over the n keys that token i sees."""
    return _visible_mean(system.scores(x), system.visible(x.shape[1]))


def max_score(system: AttentionSystem, x: Tokens) -> PerHeadToken:
    """max_j s_ij (L2), over the keys that token i sees."""
    return torch.where(system.visible(x.shape[1]), system.scores(x), -torch.inf).amax(-1)


def self_score(system: AttentionSystem, x: Tokens) -> PerHeadToken:
    """s_ii = x_iᵀ W x_i (T4)."""
    return system.scores(x).diagonal(dim1=-2, dim2=-1)


def score_entropy(attention: HeadScores) -> PerHeadToken:
    """Entropy −Σ_j P_ij log P_ij of attention rows, in nats, with 0 log 0 = 0 (L2)."""
    return torch.special.entr(attention).sum(-1)


def kl_to_uniform(attention: HeadScores, visible: Visible | None = None) -> PerHeadToken:
    """KL(P_i ‖ U) = log n − H(P_i) ≥ 0, in nats (L1); U is uniform on all keys, or on the visible ones."""
    log_n = math.log(attention.shape[-1]) if visible is None else visible.sum(-1).double().log()
    return (log_n - score_entropy(attention)).clamp(min=0)


def kl_from_uniform(scores: HeadScores, visible: Visible | None = None) -> PerHeadToken:
    """KL(U ‖ P_i) = logsumexp_j(s_ij) − mean_j(s_ij) − log n ≥ 0, in nats (L1), over all or the visible keys.

    From the scores, because it stays finite where entries of P underflow to 0.
    """
    visible = torch.ones_like(scores, dtype=torch.bool) if visible is None else visible
    excess = scores - torch.where(visible, scores, -torch.inf).amax(-1, keepdim=True)
    return (_visible_mean(excess.exp(), visible).log() - _visible_mean(excess, visible)).clamp(min=0)


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


# Potentials. They need one φ shared by all tokens: a plain system, on the sphere or not.


def _check_plain(system: AttentionSystem) -> None:
    switches = {
        "heads": system.has_heads,
        "a causal mask": system.causal,
        "positions": system.positions is not None,
        "a bias": system.bias is not None,
        "rotary encoding": system.rotary is not None,
    }
    on = [name for name, given in switches.items() if given]
    if on:
        expected = "one head without mask, encoding or bias, where all tokens share one potential"
        raise InputError("system", "a system with " + ", ".join(on), expected, "drop these switches")


def potential(system: AttentionSystem, y: Probes, x: Tokens) -> PerProbe:
    """φ(y) = logsumexp_k(yᵀ W x_k) at probes y (batch, q, d) (L3).

    InputError, as for all potentials, with heads, a mask, an encoding or a bias.
    """
    _check_plain(system)
    return torch.logsumexp(y @ system.score @ x.mT, -1)


def potential_gradient(system: AttentionSystem, y: Probes, x: Tokens) -> Probes:
    """∇φ(y) = W Σ_k P_k(y) x_k (L3); at y = x_i it is W m_i."""
    _check_plain(system)
    return torch.softmax(y @ system.score @ x.mT, -1) @ x @ system.score.mT


def log_partition_total(system: AttentionSystem, x: Tokens) -> Rows:
    """log F, finite where F itself overflows."""
    _check_plain(system)
    return system.scores(x).flatten(1).logsumexp(1)


def partition_total(system: AttentionSystem, x: Tokens) -> Rows:
    """F = Σ_ij exp(s_ij) (T5)."""
    _check_plain(system)
    return system.scores(x).exp().sum((1, 2))


def partition_total_rate(system: AttentionSystem, x: Tokens) -> Rows:
    """Ḟ = Σ_ij exp(s_ij) (ẋ_iᵀ W x_j + x_iᵀ W ẋ_j) along the flow, for W of any symmetry (T5)."""
    _check_plain(system)
    velocity = system.velocity(x)
    score_rate = velocity @ system.score @ x.mT + x @ system.score @ velocity.mT
    return (system.scores(x).exp() * score_rate).sum((1, 2))
