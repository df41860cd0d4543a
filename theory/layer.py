"""Attention layers in exact numbers: heads, rotary forms at every offset, biases, mask and context length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

from theory.enclosure import PRECISION
from theory.errors import InputError
from theory.weights import Weights, rational_matrix

LAYOUTS = ("interleaved", "half-split")

Form = fmpq_mat | arb_mat
Turn = arb | tuple[fmpq, fmpq]
"""The angle of one coordinate pair per position: a ball of radians, or an exact (cos, sin)."""


@dataclass(frozen=True)
class Head:
    """One head: s_ij = scale · x_iᵀ form_{j−i} x_j + b_ij, and its value map V.

    `weights.form` is the form at offset 0 and, unless `turned` gives those at the others, at every offset.
    The bias is −slope·|i − j| (ALiBi), or any matrix (n, n) of rationals.
    """

    weights: Weights
    turned: Mapping[int, Form] = field(default_factory=dict)
    slope: fmpq = fmpq(0)
    bias: fmpq_mat | None = None

    @classmethod
    def rotary(
        cls,
        query: Any,
        key: Any,
        value: Any,
        turns: Sequence[Turn],
        n: int,
        *,
        scale: Any = None,
        layout: str = "interleaved",
        slope: Any = 0,
    ) -> "Head":
        """s_ij = scale · x_iᵀ Qᵀ R_{j−i} K x_j for |j − i| < n; `turns` are those of R_1's pairs."""
        weights = Weights.from_projections(query, key, value, scale)
        query, key = rational_matrix("query", query), rational_matrix("key", key)
        with ctx.workprec(PRECISION):
            rotations = {r: _rotation(query.nrows(), turns, r, layout) for r in range(1 - n, n) if r}
            turned = {
                r: query.transpose() * rotation * key
                if isinstance(rotation, fmpq_mat)
                else arb_mat(query.transpose()) * rotation * arb_mat(key)
                for r, rotation in rotations.items()
            }
        return cls(weights, turned, rational("slope", slope))


def rational(argument: str, value: Any) -> fmpq:
    """A number as the exact rational it is. Raises InputError for anything else."""
    return rational_matrix(argument, [[value]])[0, 0]


def rotary_turns(size: int, base: Any = 10_000) -> list[arb]:
    """θ_f = base^(−2f/size), f = 0 … size/2 − 1, as balls; `size` coordinates turn."""
    base = rational("rotary", base)
    if size < 2 or size % 2 or base <= 0:
        raise InputError(
            "rotary",
            got=f"{size} coordinates, base {base}",
            expected="a positive even number of coordinates and a positive base",
            fix="each frequency turns two coordinates",
        )
    with ctx.workprec(PRECISION):
        return [arb(base) ** (-arb(2 * f) / size) for f in range(size // 2)]


def _rotation(size: int, turns: Sequence[Turn], offset: int, layout: str) -> Form:
    """R_offset (size, size): coordinate pair f turned by offset·θ_f; coordinates beyond the pairs stay."""
    if 2 * len(turns) > size or layout not in LAYOUTS:
        raise InputError(
            "turns",
            got=f"{len(turns)} pairs in {size} coordinates, layout {layout!r}",
            expected=f"at most {size // 2} pairs and a layout in {LAYOUTS}",
            fix="turn no more coordinates than queries have",
        )
    exact = not any(isinstance(turn, arb) for turn in turns)
    entries: list[list[Any]] = [[int(i == j) for j in range(size)] for i in range(size)]
    for f, turn in enumerate(turns):
        i, j = (2 * f, 2 * f + 1) if layout == "interleaved" else (f, f + len(turns))
        cosine, sine = _power(turn, offset)
        entries[i][i], entries[i][j], entries[j][i], entries[j][j] = cosine, -sine, sine, cosine
    return (fmpq_mat if exact else arb_mat)(size, size, [entry for row in entries for entry in row])


def _power(turn: Turn, offset: int) -> tuple[Any, Any]:
    """(cos, sin) of `offset` times the angle."""
    if isinstance(turn, arb):
        return (turn * offset).cos(), (turn * offset).sin()
    cosine, sine = turn
    if cosine**2 + sine**2 != 1:
        raise InputError(
            "turns",
            got=f"cos² + sin² = {cosine**2 + sine**2}",
            expected="exactly 1",
            fix="use a Pythagorean pair such as 4/5, 3/5, or give the angle as a ball",
        )
    result = fmpq(1), fmpq(0)
    for _ in range(abs(offset)):
        result = result[0] * cosine - result[1] * sine, result[0] * sine + result[1] * cosine
    return result[0], result[1] if offset >= 0 else -result[1]


@dataclass(frozen=True)
class Layer:
    """Attention heads whose velocities add up, over at most n tokens; `causal` lets token i see j ≤ i only.

    n = None is a context of any length; it needs a positive slope in every head and no rotary encoding.
    Raises InputError for heads of different sizes, missing offsets, and a bias of another shape than (n, n).
    """

    heads: tuple[Head, ...]
    n: int | None
    causal: bool = False

    def __post_init__(self) -> None:
        if len({head.weights.dim for head in self.heads}) != 1:
            got = ", ".join(str(head.weights.dim) for head in self.heads) or "none"
            raise InputError(
                "heads", got=f"sizes {got}", expected="heads of one size d", fix="check the shapes"
            )
        if self.n is not None and self.n < 1:
            raise InputError("n", got=f"{self.n}", expected="at least one token", fix="give the context")
        for head in self.heads:
            self._check_head(head)

    def _check_head(self, head: Head) -> None:
        if self.n is None and (head.slope <= 0 or head.turned or head.bias is not None):
            raise InputError(
                "n",
                got="no context length",
                expected="a number of tokens",
                fix="give n; only a positive ALiBi slope without rotary encoding bounds every length",
            )
        if head.slope < 0 or (head.slope != 0 and head.bias is not None):
            raise InputError(
                "slope",
                got=f"{head.slope}" + (" beside a bias" if head.bias is not None else ""),
                expected="a slope ≥ 0, or a bias",
                fix="put everything into the bias",
            )
        if head.bias is not None and (head.bias.nrows(), head.bias.ncols()) != (self.n, self.n):
            raise InputError(
                "bias",
                got=f"shape ({head.bias.nrows()}, {head.bias.ncols()})",
                expected=f"({self.n}, {self.n})",
                fix="give one entry for each pair of tokens",
            )
        missing = [r for r in self._offsets() if r not in head.turned] if head.turned else []
        if missing or any(
            (form.nrows(), form.ncols()) != (self.dim, self.dim) for form in head.turned.values()
        ):
            raise InputError(
                "turned",
                got=f"no form at offset {missing[0]}" if missing else "a form of another size",
                expected=f"({self.dim}, {self.dim}) forms at every offset of {self.n} tokens",
                fix="build the head for the same n",
            )

    @classmethod
    def of(
        cls, score: Any, value: Any, n: int | None, *, causal: bool = False, slope: Any = 0, bias: Any = None
    ) -> "Layer":
        """One head without rotary encoding, from W and V themselves."""
        bias = None if bias is None else rational_matrix("bias", bias)
        return cls((Head(Weights.of(score, value), slope=rational("slope", slope), bias=bias),), n, causal)

    @classmethod
    def from_projections(
        cls,
        queries: Sequence[Any],
        keys: Sequence[Any],
        values: Sequence[Any],
        n: int | None,
        *,
        scale: Any = None,
        causal: bool = False,
        rotary: Any = None,
        layout: str = "interleaved",
        slope: Any = 0,
    ) -> "Layer":
        """Heads from their Q, K (d_k, d) and V (d, d), with common switches; `rotary` is the angles' base.

        Raises InputError as Weights and Head do, and for unequal numbers of matrices.
        """
        if not len(queries) == len(keys) == len(values):
            raise InputError(
                "heads",
                got=f"{len(queries)} queries, {len(keys)} keys, {len(values)} values",
                expected="one of each per head",
                fix="give the three together",
            )
        if rotary is not None and n is None:
            raise InputError(
                "n", got="no context length", expected="a number of tokens", fix="rotary encoding needs it"
            )
        heads = []
        for query, key, value in zip(queries, keys, values, strict=True):
            if rotary is None or n is None:
                head = Head(
                    Weights.from_projections(query, key, value, scale), slope=rational("slope", slope)
                )
            else:
                turns = rotary_turns(rational_matrix("query", query).nrows(), rotary)
                head = Head.rotary(query, key, value, turns, n, scale=scale, layout=layout, slope=slope)
            heads.append(head)
        return cls(tuple(heads), n, causal)

    @property
    def dim(self) -> int:
        return self.heads[0].weights.dim

    @property
    def value(self) -> fmpq_mat:
        """Σ_h V_h, the velocity map of equal tokens."""
        return reduce(lambda left, right: left + right, (head.weights.value for head in self.heads))

    def _offsets(self) -> list[int]:
        """Offsets r = j − i ≠ 0 between a token and those it sees."""
        return [r for r in range(1 - (self.n or 1), 1 if self.causal else (self.n or 1)) if r]

    def pairs(self, head: Head) -> dict[int, Form]:
        """The forms of a head that need a block, by offset; offset 0 alone where all offsets share one."""
        return {r: head.turned[r] for r in self._offsets()} if head.turned else {0: head.weights.form}

    def excess(self, head: Head) -> arb:
        """T = max_i Σ_{j≠i} e^{b_ij − b_ii} over the tokens j that i sees: n − 1 without bias."""
        with ctx.workprec(PRECISION):
            if head.bias is not None:
                return reduce(arb.max, (self._row_excess(head.bias, i) for i in range(head.bias.nrows())))
            n = self.n
            if head.slope == 0:
                return arb((n or 1) - 1)
            sides = (n and n - 1,) if self.causal else (n and n // 2, n and (n - 1) // 2)
            return sum((_geometric(head.slope, count) for count in sides), arb(0))

    def _row_excess(self, bias: fmpq_mat, i: int) -> arb:
        seen = range(i) if self.causal else [j for j in range(bias.ncols()) if j != i]
        return sum(((arb(bias[i, j]) - arb(bias[i, i])).exp() for j in seen), arb(0))


def _geometric(slope: fmpq, count: int | None) -> arb:
    """Σ_{k=1}^count e^{−slope·k}; without end for None."""
    ratio = (-arb(slope)).exp()
    return ratio * (1 - (arb(0) if count is None else (-arb(slope) * count).exp())) / (1 - ratio)
