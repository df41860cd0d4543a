"""The attention of one layer as the model computes it: maps, biases, scale, mask, rotary encoding, norm.

This is the border of the project's convention. Checkpoints store linear maps as (out, in) and act on row
vectors, `q = x @ query.T`; the theory's tokens are columns, `q = query x`. The stored matrix is the same one
in both, so `W = scale * query^T key` and the value map is `V = output value`.
"""

from dataclasses import dataclass, replace
from fractions import Fraction
from math import sqrt
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from numerics.errors import InputError

Tokens = Float[Tensor, "*batch n d"]
HeadRows = Float[Tensor, "*batch H n dk"]
NormKind = Literal["layer", "rms"]
RotaryLayout = Literal["interleaved", "half-split"]


class Head(NamedTuple):
    """The four maps of one head, each of rank at most dk, acting on column tokens of length d."""

    query: Float[Tensor, "dk d"]
    key: Float[Tensor, "dk d"]
    value: Float[Tensor, "dk d"]
    output: Float[Tensor, "d dk"]
    scale: float

    def score_matrix(self) -> Float[Tensor, "d d"]:
        """`W = scale query^T key`: the score is `s_ij = x_i^T W x_j`, without biases; rotary: at offset 0."""
        return self.query.mT @ self.key * self.scale

    def value_map(self) -> Float[Tensor, "d d"]:
        """`V = output value`: what the head adds for an attended mean `m` is `V m` (biases left out)."""
        return self.output @ self.value


@dataclass(frozen=True, eq=False)
class Norm:
    """LayerNorm (Ba et al. 2016) or RMSNorm (Zhang and Sennrich 2019), called on tokens (..., d).

    `gain` (d,); `bias` (d,) or None; `eps` stands under the root.
    """

    kind: NormKind
    gain: Float[Tensor, " d"]
    bias: Float[Tensor, " d"] | None
    eps: float

    def __call__(self, x: Float[Tensor, "*leading d"]) -> Float[Tensor, "*leading d"]:
        shape = self.gain.shape
        if self.kind == "layer":
            return layer_norm(x, shape, self.gain, self.bias, self.eps)
        scaled = rms_norm(x, shape, self.gain, self.eps)
        return scaled if self.bias is None else scaled + self.bias


@dataclass(frozen=True)
class Rotary:
    """Rotary encoding (Su et al. 2021): at position p, pair k of a head turns by `p base^(-2k/dims)`.

    The first `dims` entries of a head turn, the others do not. Pair k is entries 2k and 2k + 1 where `layout`
    is "interleaved", and k and k + dims/2 where it is "half-split".
    """

    base: float
    dims: int
    layout: RotaryLayout

    @property
    def inverse_frequencies(self) -> Float[Tensor, " pairs"]:
        """`base^(-2k/dims)` for k < dims/2, in radians per position."""
        return self.base ** (-torch.arange(0, self.dims, 2, dtype=torch.float64) / self.dims)

    def turn(self, x: Float[Tensor, "*leading n dk"]) -> Float[Tensor, "*leading n dk"]:
        """Entries of queries or keys turned according to their positions 0 ... n - 1."""
        angles = torch.arange(x.shape[-2], dtype=torch.float64)[:, None] * self.inverse_frequencies
        turning, still = x[..., : self.dims], x[..., self.dims :]
        pairs = (self.dims // 2, 2) if self.layout == "interleaved" else (2, self.dims // 2)
        axis = -1 if self.layout == "interleaved" else -2
        first, second = turning.unflatten(-1, pairs).unbind(axis)
        turned = (
            first * angles.cos() - second * angles.sin(),
            first * angles.sin() + second * angles.cos(),
        )
        return torch.cat((torch.stack(turned, axis).flatten(-2), still), -1)


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """The attention of one layer; weights are float64 copies of the stored numbers.

    Shapes, with d = `d_model` and H = `heads`: `query`, `key`, `value` are (H*head_dim, d), `output` is
    (d, H*head_dim). Rows (columns of `output`) of head h are `h*head_dim ... (h+1)*head_dim - 1`. Where
    `kv_heads` < H, several heads share keys and values (Ainslie et al. 2023); these rows are repeated here,
    one copy for each query head. Biases are (H*head_dim,), that of the output (d,), or None.

    `scale_squared` is the exact square of the factor of the scores, normally 1/head_dim. `window`, if given,
    is how many tokens, itself included, a causal layer's token attends to at most. `norm` is the
    normalisation that stands before attention; None where there is none (post-LN) or it is not known. The
    methods take tokens behind it.

    `stored_dtype` is the type in the file; every floating type of up to 64 bits converts to float64 exactly,
    so results are about the stored weights, not about a rounding of them.
    """

    name: str
    query: Float[Tensor, "hk d"]
    key: Float[Tensor, "hk d"]
    value: Float[Tensor, "hk d"]
    output: Float[Tensor, "d hk"]
    heads: int
    kv_heads: int
    stored_dtype: str
    scale_squared: Fraction
    query_bias: Float[Tensor, " hk"] | None = None
    key_bias: Float[Tensor, " hk"] | None = None
    value_bias: Float[Tensor, " hk"] | None = None
    output_bias: Float[Tensor, " d"] | None = None
    causal: bool = False
    window: int | None = None
    rotary: Rotary | None = None
    norm: Norm | None = None

    @property
    def d_model(self) -> int:
        """Length d of a token."""
        return self.query.shape[1]

    @property
    def head_dim(self) -> int:
        """Rows dk of one head's query map."""
        return self.query.shape[0] // self.heads

    @property
    def scale(self) -> float:
        """The factor of the scores, normally 1/sqrt(head_dim)."""
        return sqrt(self.scale_squared)

    @property
    def has_biases(self) -> bool:
        """Whether any of the four maps has a bias."""
        return any(
            bias is not None for bias in (self.query_bias, self.key_bias, self.value_bias, self.output_bias)
        )

    def head(self, h: int) -> Head:
        """Views of the weights of head `h`, counted from 0. Raises `InputError` unless 0 <= h < heads."""
        if not 0 <= h < self.heads:
            raise InputError(
                argument="h",
                got=str(h),
                expected=f"a head number from 0 to {self.heads - 1}",
                fix=f"layer {self.name} has {self.heads} heads, counted from 0",
            )
        rows = slice(h * self.head_dim, (h + 1) * self.head_dim)
        return Head(self.query[rows], self.key[rows], self.value[rows], self.output[:, rows], self.scale)

    def scores(self, x: Tokens) -> Float[Tensor, "*batch H n n"]:
        """Scores of row tokens (..., n, d) as the model computes them, with biases; -inf where masked.

        Raises `InputError`, as the other methods do, unless `x` is float64 of this shape.
        """
        return self._scores(x, self.query_bias, self.key_bias)

    def queries_and_keys(self, x: Tokens) -> tuple[HeadRows, HeadRows]:
        """Each head's queries and keys of row tokens (..., n, d), with biases and not turned."""
        self._require_tokens(x)
        queries, keys = _affine(x, self.query, self.query_bias), _affine(x, self.key, self.key_bias)
        return self._split(queries), self._split(keys)

    def moved_scores(self, x: Tokens) -> Float[Tensor, "*batch H n n"]:
        """Entry (k, j): the score that the last token's query, at its place, gives key k put at position j.

        Without rotary encoding it is the same for every j; -inf where a window hides position j. The diagonal
        is the last row of `scores`.
        """
        asked, keys = self._last_query(x)
        return self._unless_hidden(keys @ asked.mT * self.scale)

    def last_scores(self, x: Tokens) -> Float[Tensor, "*batch H n"]:
        """The last row of `scores`, without the others."""
        asked, keys = self._last_query(x)
        return self._unless_hidden((keys * asked).sum(-1) * self.scale)

    def attend(self, x: Tokens) -> Tokens:
        """What attention adds to the residual stream for tokens (..., n, d), biases included."""
        mixed = self.scores(x).softmax(-1) @ self._split(_affine(x, self.value, self.value_bias))
        return _affine(mixed.transpose(-3, -2).flatten(-2), self.output, self.output_bias)

    def velocity(self, x: Tokens) -> Tokens:
        """`sum_h V_h sum_j P^h_ij x_j`, the right-hand side of the theory's dynamics, without any bias.

        P is the softmax of the scores of queries and keys without biases, with the layer's scale, mask and
        rotary encoding.
        """
        mixed = self._scores(x, None, None).softmax(-1) @ self._split(x @ self.value.mT)
        return mixed.transpose(-3, -2).flatten(-2) @ self.output.mT

    def fold_norm(self) -> "AttentionLayer":
        """The same layer with the gain of the norm before it moved into its maps, which act on columns.

        Query, key and value maps become `map diag(gain)`: exactly, where both are stored in 32 bits or fewer.
        The norm's bias moves into their biases; the output map stays. What is left as `norm` is the
        normalisation without gain and bias (LayerNorm's centring included), so that
        `folded.attend(folded.norm(x))` is `self.attend(self.norm(x))`.

        Raises `InputError` if no norm is known to stand before the layer.
        """
        norm = self.norm
        if norm is None:
            raise InputError(
                argument="fold_norm",
                got=f"layer {self.name}, which has no normalisation before attention (or none is known)",
                expected="a pre-LN layer",
                fix="do not fold: in a post-LN model the norm acts on the sum behind attention",
            )
        folded = {}
        for part in ("query", "key", "value"):
            weight, bias = getattr(self, part), getattr(self, f"{part}_bias")
            folded[part] = weight * norm.gain
            if norm.bias is not None:
                shift = weight @ norm.bias
                bias = shift if bias is None else bias + shift
            folded[f"{part}_bias"] = bias
        return replace(self, **folded, norm=replace(norm, gain=torch.ones_like(norm.gain), bias=None))

    def _scores(self, x: Tokens, query_bias: Tensor | None, key_bias: Tensor | None) -> Tensor:
        self._require_tokens(x)
        queries = self._split(_affine(x, self.query, query_bias))
        keys = self._split(_affine(x, self.key, key_bias))
        if self.rotary:
            queries, keys = self.rotary.turn(queries), self.rotary.turn(keys)
        scores = queries @ keys.mT * self.scale
        if self.causal:
            open_ = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            if self.window is not None:
                open_ = open_.triu(1 - self.window)
            scores = scores.masked_fill(~open_, -torch.inf)
        return scores

    def _last_query(self, x: Tokens) -> tuple[HeadRows, HeadRows]:
        """The last token's query, turned as a key at each position sees it, and the keys, not turned."""
        self._require_tokens(x)
        keys = self._split(_affine(x, self.key, self.key_bias))
        asked = self._split(_affine(x[..., -1:, :], self.query, self.query_bias)).expand_as(keys)
        if self.rotary:
            asked = self.rotary.turn(asked).flip(-2)  # q^T R_(j-last) k = (R_(last-j) q)^T k
        return asked, keys

    def _unless_hidden(self, scores: Tensor) -> Tensor:
        """Of the last query: -inf at the positions that a window hides from it."""
        if self.causal and self.window is not None:
            scores[..., : max(0, scores.shape[-1] - self.window)] = -torch.inf
        return scores

    def _require_tokens(self, x: Tokens) -> None:
        if x.ndim < 2 or x.shape[-1] != self.d_model or x.dtype != torch.float64:
            raise InputError(
                argument="x",
                got=f"shape {tuple(x.shape)} of {x.dtype}",
                expected=f"tokens (n, {self.d_model}) of torch.float64, or a batch of such",
                fix="pass sequences of one length, converted with .double()",
            )

    def _split(self, rows: Float[Tensor, "*batch n hk"]) -> HeadRows:
        return rows.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x @ weight.mT if bias is None else x @ weight.mT + bias
