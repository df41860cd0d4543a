"""Rotary attention with a positive term without rotation added to its scores."""

from math import inf
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, softplus

from numerics.errors import InputError
from numerics.layers.margin import whiten
from numerics.layers.places import AttentionMaps, attention_maps

Diagonal = Literal["learned", "margin", "none"]

_START = 0.05  # the diagonal's first value in the released code of arXiv 2512.03058


class RotaryDiagonal(nn.Module):
    """Self-attention with scores q_iᵀR_{j−i}k_j/√dk (rotary, Su et al. 2021, half-split) and something added.

    `diagonal` says what is added to those of head h:

    - "learned": x_iᵀ D_h x_j with a trained D_h = diag(softplus(·)) ≻ 0 (d entries, 0.05 at first), as in
      arXiv 2512.03058. By T13 it adds λ_min(D̂) to the margin of a system with A V = W + D. Here V is what
      v_proj and o_proj make it, and with several heads V_h has rank dk where D_h has rank d, so that
      A V_h = W_h + D_h is out of reach: **no theorem is claimed**.
    - "margin": κ q_iᵀk_j/√dk, not rotated: T13's D = κW, which with A V = W relaxes δ < λ to δ < (1 + κ)λ.
      κ is a buffer, 0 at first, that `fit_kappa` sets from the weights; it is not trained.
    - "none": nothing, for comparison.

    Each is one call of scaled_dot_product_attention, with queries and keys longer by √D x, or √κ times
    themselves. "learned" makes them d longer, so its scores cost about H + 1 times those of "none", and
    flash kernels, which end at 256 entries, refuse most of them; "margin" doubles them.

    Maps are `q_proj`, `k_proj`, `v_proj`, `o_proj`, so `definite_response` takes this module. Tokens are
    (…, n, d_model), at positions 0 … n − 1. Raises `InputError` for d_model that is not heads × an even head
    size and an unknown `diagonal`.
    """

    def __init__(
        self,
        d_model: int,
        heads: int,
        *,
        diagonal: Diagonal = "learned",
        causal: bool = False,
        base: float = 10_000.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if heads < 1 or d_model < 1 or d_model % (2 * heads):
            raise InputError(
                "d_model",
                got=f"{d_model} with {heads} heads",
                expected="heads × head size, with an even head size: each frequency turns two coordinates",
                fix=f"use a multiple of {2 * max(heads, 1)}",
            )
        if diagonal not in get_args(Diagonal):
            raise InputError(
                "diagonal",
                got=repr(diagonal),
                expected=", ".join(get_args(Diagonal)),
                fix="'learned' is the paper's refinement",
            )
        self.num_heads, self.causal, self.base, self.mode = heads, causal, base, diagonal
        self.scaling = (d_model // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(d_model, d_model, bias=bias) for _ in range(4)
        )
        raw = torch.full((heads, d_model), _START).expm1().log()  # softplus's inverse
        self.diagonal = nn.Parameter(raw) if diagonal == "learned" else None
        self.kappa: Tensor | None
        self.register_buffer("kappa", torch.zeros(()) if diagonal == "margin" else None)

    def forward(self, x: Float[Tensor, "*leading n d"]) -> Float[Tensor, "*leading n d"]:
        """What attention gives for tokens x, biases included."""
        query, key, value = (self._split(proj(x)) for proj in (self.q_proj, self.k_proj, self.v_proj))
        positions = torch.arange(x.shape[-2], device=x.device)
        longer = self._extra(x, query, key)
        query, key = (
            torch.cat((turn(rows, positions, self.base), *extra), -1)
            for rows, extra in zip((query, key), longer, strict=True)
        )
        mixed = scaled_dot_product_attention(query, key, value, is_causal=self.causal, scale=self.scaling)
        return self.o_proj(mixed.transpose(-2, -3).flatten(-2))

    def _split(self, rows: Tensor) -> Tensor:
        return rows.unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)

    def _extra(self, x: Tensor, query: Tensor, key: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """What lengthens queries and keys; their product, times the scale, is added to the scores."""
        if self.diagonal is not None:
            positive = softplus(self.diagonal).clamp_min(torch.finfo(self.diagonal.dtype).tiny)
            longer = x.unsqueeze(-3) * (positive / self.scaling).sqrt()[:, None]
            return [longer.to(query.dtype)], [longer.to(query.dtype)]
        if self.kappa is not None:
            root = self.kappa.sqrt().to(query.dtype)
            return [root * query], [root * key]
        return [], []

    @torch.no_grad()
    def fit_kappa(self, length: int, slack: float = 0.05) -> float:
        """Set κ so that T13's condition holds for contexts of up to `length` tokens, and return it.

        With M = (1 + κ)|A_s|, W_{h,r} the rotated forms and all norms taken in |A_s|:

            λ = λ_min(W_s),   e = Σ_h ‖A_s V_h − W_h‖,   δ = Σ_h max_{r≠0} ‖W_{h,r} − W_h‖,

        the pair certificate (docs/certificates.md) with S_h = (1 + κ)W_{h,s} − ν_h M exists, at the rate
        η = λ − e − δ/(1 + κ), if η > 0. e is 0 where A is symmetric and common to the heads, as after
        `definite_response(module)`; κ is the smallest number ≥ 0 with 1 + κ ≥ (1 + slack)·δ/(λ − e).

        It certifies that the largest token diverges from large starts (A_s ≻ 0), or that tokens stay bounded
        (A_s ≺ 0). It claims neither convergence to 0, nor anything of longer contexts, of biases, norms or
        an MLP, or of other weights: after a training step, call it again. Computed in float64, not proved.

        Raises `InputError` unless the mode is "margin", `length` ≥ 1, `slack` > 0, A_s is definite and λ > e.
        """
        if self.kappa is None or type(length) is not int or length < 1 or not 0 < slack < inf:
            raise InputError(
                "fit_kappa",
                got=f"diagonal {self.mode!r}, length {length}, slack {slack}",
                expected="diagonal='margin', a whole length ≥ 1 and a finite slack > 0",
                fix="build the module with diagonal='margin'",
            )
        maps = attention_maps(self)
        query, key, value, output = (rows.double() for rows in maps[:4])
        maps = AttentionMaps(query, key, value, output, maps.heads, maps.scale)
        W, V = maps.scores(), maps.values()
        response = _response(W.sum(0), V.sum(0))
        root = torch.linalg.cholesky(response.abs_part)
        lowest = torch.linalg.eigvalsh(whiten(root, _symmetric(W.sum(0))))[0]
        gap = torch.linalg.matrix_norm(whiten(root, response.symmetric @ V - W), ord=2).sum()
        if not lowest > gap:
            raise InputError(
                "fit_kappa",
                got=f"λ_min(W_s) = {lowest:.3g}, not above ‖A_s V − W‖ = {gap:.3g} (both in |A_s|)",
                expected="W_s ≻ 0 and a response A that is nearly symmetric and common to all heads",
                fix="call definite_response(module) on it first",
            )
        spread = sum(_spread(maps, h, root, length, self.base) for h in range(self.num_heads))
        kappa = max(0.0, (1 + slack) * float(spread / (lowest - gap)) - 1)
        self.kappa.fill_(kappa)
        return kappa


def turn(
    x: Float[Tensor, "*leading n dk"], positions: Float[Tensor, " n"], base: float
) -> Float[Tensor, "*leading n dk"]:
    """Each row turned by its position; pair k, entries k and k + dk/2, at `base^(−2k/dk)` radians a step."""
    half = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    frequencies = base ** (-torch.arange(half, device=x.device, dtype=wide) / half)
    angles = positions.to(wide)[:, None] * frequencies
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), -1)


class _Signed(NamedTuple):
    """A_s, and |A_s| = ±A_s ≻ 0."""

    symmetric: Tensor
    abs_part: Tensor


def _response(W: Tensor, V: Tensor) -> _Signed:
    """Of A = W V⁻¹. Raises `InputError` unless A_s is definite."""
    inverse, info = torch.linalg.inv_ex(V)
    symmetric = _symmetric(W @ inverse)
    values = torch.linalg.eigvalsh(symmetric) if not info and symmetric.isfinite().all() else torch.zeros(1)
    if not (values[0] > 0 or values[-1] < 0):
        raise InputError(
            "fit_kappa",
            got=f"eigenvalues of A_s from {values[0]:.3g} to {values[-1]:.3g}",
            expected="a definite A_s, A = W V⁻¹",
            fix="call definite_response(module, negative=0) or (module, negative=1) first",
        )
    return _Signed(symmetric, symmetric if values[0] > 0 else -symmetric)


def _symmetric(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


def _spread(maps: AttentionMaps, h: int, root: Tensor, length: int, base: float) -> Tensor:
    """max over 0 < |r| < length of ‖G⁻¹ Q_hᵀ(R_r − I)K_h G⁻ᵀ‖·scale, from dk × dk matrices."""
    query, key = (
        torch.linalg.qr(
            torch.linalg.solve_triangular(root, rows.unflatten(0, (maps.heads, -1))[h].mT, upper=False)
        ).R
        for rows in (maps.query, maps.key)
    )
    offsets = torch.cat([torch.arange(1, length), -torch.arange(1, length)]).to(root)
    if not len(offsets):
        return root.new_zeros(())
    size = len(query)
    identity = torch.eye(size).to(root)
    turned = turn(identity[:, None].expand(-1, len(offsets), -1), offsets, base)  # rows R_r e_i
    gaps = query @ (turned.permute(1, 2, 0) - identity) @ key.mT
    return torch.linalg.matrix_norm(gaps, ord=2).max() * maps.scale
