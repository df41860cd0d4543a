"""Batches of self-attention token systems ẋ_i = V Σ_j P_ij x_j, with P = softmax(s) and s_ij = x_iᵀ W x_j.

Tokens are rows of x; W and V act on column vectors. Masks, encodings, biases, heads and the sphere are
switches of the one system; its velocity is ``numerics.kernel.flow``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from numerics.checks import check_choice, check_match, check_shape, check_tensor
from numerics.encodings import Rotary
from numerics.errors import InputError
from numerics.kernel import Kernel, attended_mean, flow, stable_attention
from numerics.shapes import (
    Flags,
    Forms,
    HeadForms,
    HeadProjections,
    HeadScores,
    HeadTokens,
    Index,
    Tokens,
    Visible,
)

ENCODED = ("scores", "scores and values")
ROTARY_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}  # far above the rounding of QᵀK


def _solve(name: str, matrix: Tensor, right: Tensor, undefined: str, *, left: bool) -> Tensor:
    """right times matrix⁻¹ (matrix⁻¹ times right if ``left``), refused when singular to working precision."""
    inverse, info = torch.linalg.inv_ex(matrix)
    condition = matrix.abs().sum(-2).amax(-1) * inverse.abs().sum(-2).amax(-1)
    regular = (info == 0) & (condition < 1 / torch.finfo(matrix.dtype).eps)
    if not regular.all():
        rows = (~regular).nonzero().flatten().tolist()
        fix = f"drop those systems; there {undefined}"
        raise InputError(name, f"singular matrices in rows {rows[:8]}", "invertible matrices", fix)
    return torch.linalg.solve(matrix, right, left=left)


def batch_last(tensor: Tensor) -> Tensor:
    """The batch axis moved from first to last, contiguous."""
    return tensor.movedim(0, -1).contiguous()


@dataclass(frozen=True, eq=False)
class AttentionSystem:
    """A batch of systems ẋ_i = Σ_h V_h m_i^h with switches for the variants, on one device.

    - score W and value V: (batch, d, d), or (batch, heads, d, d) for several heads, whose velocities add up.
    - causal: token i attends to j ≤ i only.
    - positions p (batch, n, d): an absolute encoding applied at every layer, s_ij = (x_i+p_i)ᵀ W (x_j+p_j).
      With ``positions_in`` "scores and values" also m_i = Σ_j P_ij (x_j+p_j). An encoding of the input only
      needs no switch: it is the start x + p.
    - bias b (batch, n, n), the same for every head, or (batch, heads, n, n): s_ij + b_ij. An entry of −inf
      hides token j from token i.
    - rotary: s_ij = (R_i Q x_i)ᵀ (R_j K x_j) with positions added to x first; score must be QᵀK, the form
      at equal positions. See ``Rotary`` for turned values. ``from_projections`` builds it.
    - sphere: the velocity v_i is projected to v_i − (x_i·v_i) x_i, tangent at unit tokens; ``integrate`` then
      starts from unit tokens and keeps them so.

    All tensors are float64, or all float32. Positions and bias fix the number of tokens n. Raises InputError
    for any other shape, dtype or device, a bias that is NaN or +inf or hides every token from some token, and
    a score that is not rotary's QᵀK. Weights may be NaN or infinite: such a system is still a row, which
    ``integrate`` reports as INVALID; ``finite`` tells which rows are usable.
    """

    score: HeadForms
    value: HeadForms
    causal: bool = False
    positions: Tokens | None = None
    positions_in: str = "scores"
    bias: HeadScores | None = None
    rotary: Rotary | None = None
    sphere: bool = False

    def __post_init__(self):
        for name, matrix in (("score", self.score), ("value", self.value)):
            check_tensor(name, matrix, "batch d d", "batch heads d d")
            if matrix.shape[-1] != matrix.shape[-2] or 0 in matrix.shape[1:]:
                got = f"shape {tuple(matrix.shape)}"
                expected = "square matrices (batch, d, d) or (batch, heads, d, d), d ≥ 1"
                raise InputError(name, got, expected, "check the axes")
        check_shape("value", self.value, self.score.shape, "the shape of score")
        check_match("value", self.value, "score", self.score)
        for name, flag in (("causal", self.causal), ("sphere", self.sphere)):
            if type(flag) is not bool:
                raise InputError(name, type(flag).__name__, "True or False", "other masks go into bias")
        check_choice("positions_in", self.positions_in, ENCODED)
        if self.positions is not None:
            check_tensor("positions", self.positions, "batch n d")
            shape = (self.batch, self.positions.shape[1], self.dim)
            check_shape("positions", self.positions, shape, "(batch, n, d)")
            check_match("positions", self.positions, "score", self.score)
        if self.bias is not None:
            self._check_bias(self.bias)
        if self.rotary is not None:
            self._check_rotary(self.rotary)

    def _check_bias(self, bias: Tensor) -> None:
        check_tensor("bias", bias, "batch n n", "batch heads n n")
        n = bias.shape[-1]
        heads = self.score.shape[1:-2] if bias.ndim == 4 else ()
        check_shape("bias", bias, (self.batch, *heads, n, n), "(batch, n, n), or with the heads of score")
        check_match("bias", bias, "score", self.score)
        bad = ~(bias < torch.inf)
        if bad.any():
            got = f"{int(bad.sum())} entries that are NaN or +inf"
            raise InputError("bias", got, "finite numbers, or −inf to hide a token", "repair those entries")
        blind = (~self.visible(n).any(-1)).nonzero().tolist()
        if blind:
            expected = "at least one visible token for each"
            fix = "leave one entry of the row finite" + (", at j ≤ i" if self.causal else "")
            raise InputError("bias", f"every token hidden in rows {blind[:4]}", expected, fix)

    def _check_rotary(self, rotary: Rotary) -> None:
        if not isinstance(rotary, Rotary):
            raise InputError("rotary", type(rotary).__name__, "a Rotary", "Rotary(query, key, turns)")
        shape = (*self.score.shape[:-2], rotary.query.shape[-2], self.dim)
        check_shape("rotary", rotary.query, shape, "a query with the batch, heads and d of score")
        check_match("rotary", rotary.query, "score", self.score)
        error = (rotary.query.mT @ rotary.key - self.score).abs()
        size = (rotary.query.abs().mT @ rotary.key.abs()).amax((-2, -1), keepdim=True)
        if (error > ROTARY_TOLERANCE[size.dtype] * size).any():  # a NaN passes; its row is not finite
            expected = "score = QᵀK, with the scale in the query"
            raise InputError("rotary", "another form than score", expected, "use from_projections(turns=…)")

    @classmethod
    def from_projections(
        cls,
        query: HeadProjections,
        key: HeadProjections,
        value: HeadForms,
        scale: float | None = None,
        *,
        output: HeadForms | None = None,
        turns: Tensor | None = None,
        rotated_values: bool = False,
        **switches: Any,
    ) -> "AttentionSystem":
        """W = scale · QᵀK from query and key (batch, d_k, d) or (batch, heads, d_k, d).

        The scale is 1/√d_k by default. With ``output`` O (…, d, d_v) the value is V' (…, d_v, d): V = OV'.
        With ``turns`` the scores are rotary (see ``Rotary``). ``switches`` are those of the class.
        Raises InputError as the class does.
        """
        check_tensor("query", query, "batch d_k d", "batch heads d_k d")
        check_tensor("key", key, "batch d_k d", "batch heads d_k d")
        if query.shape != key.shape or query.shape[-2] == 0:
            got, expected = f"shape {tuple(key.shape)}", f"the shape of query {tuple(query.shape)}, d_k ≥ 1"
            raise InputError("key", got, expected, "give one key row per query row")
        scale = math.pow(query.shape[-2], -0.5) if scale is None else scale
        if output is not None:
            check_tensor("value", value, "batch d_v d", "batch heads d_v d")
            check_tensor("output", output, "batch d d_v", "batch heads d d_v")
            check_shape("output", output, value.mT.shape, "the shape of value, transposed")
            value = output @ value
        if turns is not None:
            switches["rotary"] = Rotary(query * scale, key, turns, rotated_values)
        elif rotated_values:
            raise InputError("rotated_values", True, "turns to rotate by", "pass turns=…")
        return cls((query.mT @ key) * scale, value, **switches)

    @classmethod
    def from_response(cls, score: Forms, response: Forms, **switches: Any) -> "AttentionSystem":
        """V = A⁻¹W from the response matrix A (batch, d, d). Raises InputError where A is singular."""
        cls(score, response)._check_single_head()
        value = _solve("response", response, score, "V = A⁻¹W is undefined", left=True)
        return cls(score, value, **switches)

    @property
    def batch(self) -> int:
        return self.score.shape[0]

    @property
    def dim(self) -> int:
        return self.score.shape[-1]

    @property
    def has_heads(self) -> bool:
        """Whether score has an axis of heads."""
        return self.score.ndim == 4

    @property
    def heads(self) -> int:
        return self.score.shape[1] if self.has_heads else 1

    @property
    def device(self) -> torch.device:
        return self.score.device

    @property
    def finite(self) -> Flags:
        """Which systems have finite weights (score, value, positions and rotary)."""
        parts = [self.score, self.value] + ([] if self.positions is None else [self.positions])
        finite = torch.stack([part.isfinite().flatten(1).all(1) for part in parts]).all(0)
        return finite if self.rotary is None else finite & self.rotary.finite

    @property
    def response(self) -> Forms:
        """A = W V⁻¹ of a single head. InputError naming ``value`` where V is numerically singular."""
        self._check_single_head()
        return _solve("value", self.value, self.score, "A = WV⁻¹ is undefined", left=False)

    def to(self, device: torch.device | str) -> "AttentionSystem":
        return self._each(lambda part: part.to(device))

    def rows(self, index: Index) -> "AttentionSystem":
        """The systems selected by a slice, a list, or a mask or index tensor."""
        return self._each(lambda part: part.rows(index) if isinstance(part, Rotary) else part[index])

    def _each(self, change: Callable[[Any], Any]) -> "AttentionSystem":
        parts = {name: getattr(self, name) for name in ("score", "value", "positions", "bias", "rotary")}
        return replace(self, **{name: change(part) for name, part in parts.items() if part is not None})

    def visible(self, n: int) -> Visible:
        """Which tokens j token i may attend to: (n, n), or, with a bias, (batch, [1 or heads,] n, n)."""
        visible = torch.ones(n, n, dtype=torch.bool, device=self.device)
        visible, bias = visible.tril() if self.causal else visible, self._head_bias
        return visible if bias is None else visible & (bias > -torch.inf)

    @property
    def _head_bias(self) -> Tensor | None:
        """bias with the axes of scores."""
        return self.bias[:, None] if self.bias is not None and self.bias.ndim < self.score.ndim else self.bias

    def scores(self, x: Tokens) -> HeadScores:
        """s_ij + b_ij (batch, [heads,] n, n), those of tokens that the causal mask hides included.

        They overflow to ±inf or NaN for tokens near 1e154, where ``attention`` does not.
        """
        self.check_tokens(x)
        x = x if self.positions is None else x + self.positions
        x = x[:, None] if self.has_heads else x
        scores, bias = (
            x @ self.score @ x.mT if self.rotary is None else self.rotary.scores(x),
            self._head_bias,
        )
        return scores if bias is None else scores + bias

    def attention(self, x: Tokens) -> HeadScores:
        """P_ij = softmax of the scores over visible j (batch, [heads,] n, n), exactly 0 elsewhere.

        Rows sum to 1 for tokens of any finite size.
        """
        self.check_tokens(x)
        return self._batch_first(stable_attention(batch_last(x), self.kernel(x.shape[1])))

    def attended_mean(self, x: Tokens) -> HeadTokens:
        """m_i = Σ_j P_ij x_j (batch, [heads,] n, d); of x_j + p_j where values carry the positions."""
        self.check_tokens(x)
        return self._batch_first(attended_mean(batch_last(x), self.kernel(x.shape[1])))

    def velocity(self, x: Tokens) -> Tokens:
        """ẋ_i = Σ_h V_h m_i^h, turned or projected as the switches say."""
        self.check_tokens(x)
        return flow(batch_last(x), self.kernel(x.shape[1])).movedim(-1, 0)

    def step(self, x: Tokens, h: float | Tensor) -> Tokens:
        """One residual layer x + h · velocity(x), h a number or (batch, 1, 1).

        A plain Euler step: on the sphere it is not normalised afterwards.
        """
        return x + h * self.velocity(x)

    def kernel(self, n: int) -> Kernel:
        """The weights for n tokens as ``flow`` takes them."""
        rotary = self.rotary
        left = self.score if rotary is None else rotary.query.mT
        return Kernel(
            left=self._last(left),
            value=self._last(self.value),
            right=None if rotary is None else self._last(rotary.key.mT),
            turns=None if rotary is None else self._kernel_turns(rotary, n),
            bias=None if self._head_bias is None else self._last(self._head_bias),
            causal=self.causal,
            positions=None if self.positions is None else batch_last(self.positions),
            encoded_values=self.positions_in == "scores and values",
            rotated_values=rotary is not None and rotary.rotated_values,
            sphere=self.sphere,
        )

    def _kernel_turns(self, rotary: Rotary, n: int) -> Tensor:
        turns = rotary.turns[None] if rotary.shared else rotary.turns
        return self._last(turns[:, None, :n] if self.has_heads else turns[:, :n])

    def _last(self, part: Tensor) -> Tensor:
        """(batch, [heads,] …) to (…, [heads,] batch), contiguous."""
        return part.movedim((0, 1), (-1, -2)).contiguous() if self.has_heads else batch_last(part)

    def _batch_first(self, part: Tensor) -> Tensor:
        """(…, [heads,] batch) to (batch, [heads,] …)."""
        return part.movedim((-1, -2), (0, 1)) if self.has_heads else part.movedim(-1, 0)

    def _check_single_head(self) -> None:
        if self.has_heads:
            got = f"shape {tuple(self.score.shape)}"
            raise InputError("score", got, "a single head (batch, d, d)", "take one head, score[:, h]")

    def check_tokens(self, x: Tokens, argument: str = "x") -> None:
        """Raises InputError unless x is (batch, n ≥ 1, d), of the dtype and on the device of the weights.

        n must be that of positions and bias, and at most that of the rotary turns.
        """
        check_tensor(argument, x, "batch n d")
        if x.shape[0] != self.batch or x.shape[2] != self.dim:
            expected = f"(batch, n, d) with batch = {self.batch}, d = {self.dim}"
            raise InputError(argument, f"shape {tuple(x.shape)}", expected, "tokens are rows; check the axes")
        n = x.shape[1]
        if n == 0:
            raise InputError(argument, "no tokens", "n ≥ 1", "give at least one token")
        for name, part in (("positions", self.positions), ("bias", self.bias)):
            if part is not None and part.shape[-2] != n:
                expected = f"n = {part.shape[-2]}, as {name} has"
                raise InputError(argument, f"{n} tokens", expected, f"rebuild the system with other {name}")
        if self.rotary is not None and self.rotary.positions < n:
            expected = f"at most {self.rotary.positions} tokens, as rotary has turns"
            raise InputError(argument, f"{n} tokens", expected, f"give turns for {n} positions")
        check_match(argument, x, "the weights", self.score)
