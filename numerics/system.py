"""Batches of self-attention token systems ẋ_i = V Σ_j P_ij x_j, with P = softmax(s) and s_ij = x_iᵀ W x_j.

Tokens are rows of x; W and V act on column vectors. The kernels ``stable_attention`` and ``flow`` keep the
batch as the last axis and add in a fixed order, so that no system's rounding depends on its batch mates.
"""

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from numerics.errors import InputError
from numerics.shapes import Flags, Forms, Projections, Scores, Tokens


def check_tensor(argument: str, value: object, axes: str) -> None:
    """InputError unless value is a float64 tensor with the axes named in ``axes``, e.g. "batch n d"."""
    if not isinstance(value, Tensor):
        raise InputError(argument, type(value).__name__, "a torch.Tensor", "torch.as_tensor(value).double()")
    if value.dtype != torch.float64:
        raise InputError(argument, value.dtype, "torch.float64", "convert with .double()")
    if value.ndim != len(axes.split()):
        raise InputError(
            argument, f"shape {tuple(value.shape)}", f"axes ({axes})", "reshape, or add a batch axis"
        )


def _solve(name: str, matrix: Tensor, right: Tensor, undefined: str, *, left: bool) -> Tensor:
    """right times matrix⁻¹ (matrix⁻¹ times right if ``left``), refused when singular to working precision."""
    inverse, info = torch.linalg.inv_ex(matrix)
    condition = matrix.abs().sum(-2).amax(-1) * inverse.abs().sum(-2).amax(-1)
    regular = (info == 0) & (condition < 1 / torch.finfo(torch.float64).eps)
    if not regular.all():
        rows = (~regular).nonzero().flatten().tolist()
        fix = f"drop those systems; there {undefined}"
        raise InputError(name, f"singular matrices in rows {rows[:8]}", "invertible matrices", fix)
    return torch.linalg.solve(matrix, right, left=left)


def contract(a: Tensor, b: Tensor) -> Tensor:
    """Matrix products a @ b of shapes (i, k, batch) and (k, j, batch), added in the order of k."""
    total = a[:, 0, None] * b[0]
    for k in range(1, len(b)):
        total = total + a[:, k, None] * b[k]
    return total


def _power_of_two(size: Tensor) -> Tensor:
    """The largest power of two not above size > 0, so that division by it is exact; 1 where size is 0."""
    return torch.where(size > 0, size / (2 * torch.frexp(size).mantissa), 1.0)


def stable_attention(x: Tensor, W: Tensor) -> Tensor:
    """Attention (n, n, batch) of tokens x (n, d, batch) under W (d, d, batch), at any finite scale.

    Scores are formed on tokens divided by powers of two, their row maximum is subtracted, and only then are
    they scaled back. At ordinary scale this is the softmax of the plain scores, rounding included; where the
    plain scores overflow, attention still goes to the largest of them.
    """
    size = x.detach().abs().amax(1, keepdim=True)
    own, largest = _power_of_two(size), _power_of_two(size.amax(0, keepdim=True))
    scores = contract(contract(x / own, W), (x / largest).movedim(0, 1))
    excess = scores - scores.amax(1, keepdim=True)
    weights = torch.exp(excess * (own * largest).clamp(max=1e300))
    return weights / reduce(torch.add, weights.unbind(1))[:, None]


def flow(x: Tensor, W: Tensor, V: Tensor) -> Tensor:
    """Velocities (n, d, batch) of tokens x (n, d, batch); W and V are (d, d, batch)."""
    return contract(contract(stable_attention(x, W), x), V.movedim(0, 1))


def batch_last(tensor: Tensor) -> Tensor:
    """The batch axis moved from first to last, contiguous."""
    return tensor.movedim(0, -1).contiguous()


@dataclass(frozen=True, eq=False)
class AttentionSystem:
    """A batch of systems: score matrices W and value matrices V, both (batch, d, d), float64, on one device.

    Raises InputError for any other shape, dtype or device. Weights may be NaN or infinite: such a system is
    still a row, which ``integrate`` reports as INVALID; ``finite`` tells which rows are usable.
    """

    score: Forms
    value: Forms

    def __post_init__(self):
        for name, matrix in (("score", self.score), ("value", self.value)):
            check_tensor(name, matrix, "batch d d")
            if matrix.shape[1] != matrix.shape[2] or matrix.shape[2] == 0:
                got = f"shape {tuple(matrix.shape)}"
                raise InputError(name, got, "square matrices (batch, d, d), d ≥ 1", "check the axes")
        if self.value.shape != self.score.shape:
            got, expected = (
                f"shape {tuple(self.value.shape)}",
                f"the shape of score {tuple(self.score.shape)}",
            )
            raise InputError("value", got, expected, "give one value matrix per score matrix")
        if self.value.device != self.score.device:
            raise InputError(
                "value", self.value.device, f"the device of score {self.score.device}", "move one"
            )

    @classmethod
    def from_projections(
        cls, query: Projections, key: Projections, value: Forms, scale: float | None = None
    ) -> "AttentionSystem":
        """W = scale · QᵀK from query and key (batch, d_k, d); scale is 1/√d_k by default."""
        check_tensor("query", query, "batch d_k d")
        check_tensor("key", key, "batch d_k d")
        if query.shape != key.shape or query.shape[1] == 0:
            got, expected = f"shape {tuple(key.shape)}", f"the shape of query {tuple(query.shape)}, d_k ≥ 1"
            raise InputError("key", got, expected, "give one key row per query row")
        return cls((query.mT @ key) * (query.shape[1] ** -0.5 if scale is None else scale), value)

    @classmethod
    def from_response(cls, score: Forms, response: Forms) -> "AttentionSystem":
        """V = A⁻¹W from the response matrix A (batch, d, d). Raises InputError where A is singular."""
        cls(score, response)
        return cls(score, _solve("response", response, score, "V = A⁻¹W is undefined", left=True))

    @property
    def batch(self) -> int:
        return self.score.shape[0]

    @property
    def dim(self) -> int:
        return self.score.shape[1]

    @property
    def device(self) -> torch.device:
        return self.score.device

    @property
    def finite(self) -> Flags:
        """Which systems have finite weights."""
        return (self.score.isfinite() & self.value.isfinite()).flatten(1).all(1)

    @property
    def response(self) -> Forms:
        """A = W V⁻¹. Raises InputError naming ``value`` where V is singular to working precision."""
        return _solve("value", self.value, self.score, "A = WV⁻¹ is undefined", left=False)

    def to(self, device: torch.device | str) -> "AttentionSystem":
        return AttentionSystem(self.score.to(device), self.value.to(device))

    def rows(self, index: Tensor | slice | list[int]) -> "AttentionSystem":
        """The systems selected by a slice, a list, or a mask or index tensor."""
        return AttentionSystem(self.score[index], self.value[index])

    def scores(self, x: Tokens) -> Scores:
        """s_ij = x_iᵀ W x_j; overflows to ±inf or NaN for tokens near 1e154, where ``attention`` does not."""
        self.check_tokens(x)
        return x @ self.score @ x.mT

    def attention(self, x: Tokens) -> Scores:
        """P_ij = softmax of s_ij over j; rows sum to 1 for tokens of any finite size."""
        self.check_tokens(x)
        return stable_attention(batch_last(x), batch_last(self.score)).movedim(-1, 0)

    def attended_mean(self, x: Tokens) -> Tokens:
        """m_i = Σ_j P_ij x_j."""
        self.check_tokens(x)
        tokens = batch_last(x)
        return contract(stable_attention(tokens, batch_last(self.score)), tokens).movedim(-1, 0)

    def velocity(self, x: Tokens) -> Tokens:
        """ẋ_i = V m_i."""
        self.check_tokens(x)
        return flow(batch_last(x), batch_last(self.score), batch_last(self.value)).movedim(-1, 0)

    def check_tokens(self, x: Tokens, argument: str = "x") -> None:
        """Raises InputError unless x is (batch, n ≥ 1, d), float64, on the device of the weights."""
        check_tensor(argument, x, "batch n d")
        if x.shape[0] != self.batch or x.shape[2] != self.dim:
            expected = f"(batch, n, d) with batch = {self.batch}, d = {self.dim}"
            raise InputError(argument, f"shape {tuple(x.shape)}", expected, "tokens are rows; check the axes")
        if x.shape[1] == 0:
            raise InputError(argument, "no tokens", "n ≥ 1", "give at least one token")
        if x.device != self.device:
            raise InputError(
                argument, x.device, f"the device of the weights {self.device}", "x.to(system.device)"
            )
