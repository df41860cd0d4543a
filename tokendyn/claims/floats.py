"""The algebra of batches in floats: scalars (B,), vectors (B, d), matrices (B, d, d); differentiable."""

import math
from typing import Any

import torch
from torch import Tensor

from tokendyn.claims.language import LanguageError, Value

UNARY = {
    name: getattr(torch, name)
    for name in ("exp", "log", "sqrt", "abs", "sin", "cos", "tan", "sinh", "cosh", "tanh")
}


def sym(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mT) / 2


class Floats:
    """Torch tensors with a leading batch axis."""

    def __init__(self, batch: int, device: torch.device | str = "cpu") -> None:
        self.batch = batch
        self.options: Any = {"dtype": torch.float64, "device": device}

    def shape(self, value: Value) -> tuple[int, ...]:
        return tuple(value.data.shape[1:])

    def whole(self, value: Value) -> int:
        return int(value.data[0])

    def number(self, value: Any) -> Value:
        if isinstance(value, str):
            value = {"pi": math.pi, "e": math.e}.get(value) or float(value)
        return Value(0, torch.full((self.batch,), float(value), **self.options))

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        a, b, rank = left.data, right.data, max(left.rank, right.rank)
        if operator == "@":
            return _product(left, right)
        if operator == "**":
            return _power(left, right)
        a, b = (part.reshape(part.shape + (1,) * (rank - of.rank)) for part, of in ((a, left), (b, right)))
        if operator == "+":
            return Value(rank, a + b)
        if operator == "-":
            return Value(rank, a - b)
        return Value(rank, a * b if operator == "*" else a / b)

    def transpose(self, value: Value) -> Value:
        return Value(value.rank, value.data.mT) if value.rank == 2 else value

    def entry(self, value: Value, index: tuple[int, ...]) -> Value:
        shape = value.data.shape[1:]
        if any(not 1 <= k <= size for k, size in zip(index, shape, strict=True)):
            raise LanguageError(
                f"entry {index}", f"1 … {shape[0]}", "ask for more dimensions (dimension = …)"
            )
        return Value(0, value.data[(slice(None), *(k - 1 for k in index))])

    def stack(self, parts: list[Value]) -> Value:
        return Value(parts[0].rank + 1, torch.stack([part.data for part in parts], 1))

    def reduce(self, name: str, parts: list[Value]) -> Value:
        stacked = torch.stack([part.data for part in parts])
        reduced = {"sum": torch.sum, "mean": torch.mean, "min": torch.amin, "max": torch.amax}[name](
            stacked, 0
        )
        return Value(parts[0].rank, reduced)

    def call(self, name: str, arguments: list[Value]) -> Value:
        first = arguments[0].data
        second: Any = arguments[1].data if len(arguments) > 1 else None
        if name in UNARY:
            return Value(0, UNARY[name](first))
        scalar = {
            "lambertw": lambda: _lambertw(first),
            "trace": lambda: first.diagonal(dim1=-2, dim2=-1).sum(-1),
            "det": lambda: torch.linalg.det(first),
            "eigmin": lambda: _safely(torch.linalg.eigvalsh, sym(first))[..., 0],
            "eigmax": lambda: _safely(torch.linalg.eigvalsh, sym(first))[..., -1],
            "abscissa": lambda: eigenvalues(first).real.amax(-1),
            "radius": lambda: eigenvalues(first).abs().amax(-1),
            "pencil_min": lambda: _pencil(first, second)[..., 0],
            "pencil_max": lambda: _pencil(first, second)[..., -1],
            "inner": lambda: (first * second).sum(-1),
            "quad": lambda: (second * (first @ second[..., None])[..., 0]).sum(-1),
            "norm": lambda: _length(first),
            "spectral_norm": lambda: _safely(lambda m: torch.linalg.matrix_norm(m, 2), first),
            "fro": lambda: torch.linalg.matrix_norm(first),
        }
        if name in scalar:
            return Value(0, scalar[name]())
        other = {
            "sym": lambda: sym(first),
            "skew": lambda: (first - first.mT) / 2,
            "inv": lambda: _inverse(first),
            "outer": lambda: first[..., :, None] * second[..., None, :],
            "R": lambda: torch.stack((first.cos(), -first.sin(), first.sin(), first.cos()), -1).unflatten(
                -1, (2, 2)
            ),
            "eye": lambda: torch.eye(int(first[0]), **self.options).expand(self.batch, -1, -1),
            "diag": lambda: torch.diag_embed(torch.stack([value.data for value in arguments], -1)),
        }
        if name == "unit":
            return Value(1, first / _length(first)[..., None])
        return Value(2, other[name]())


def _product(left: Value, right: Value) -> Value:
    match left.rank, right.rank:
        case 1, 1:
            return Value(0, (left.data * right.data).sum(-1))
        case 2, 1:
            return Value(1, (left.data @ right.data[..., None])[..., 0])
        case 1, 2:
            return Value(1, (left.data[..., None, :] @ right.data)[..., 0, :])
    return Value(2, left.data @ right.data)


def _power(left: Value, right: Value) -> Value:
    if left.rank == 0:
        return Value(0, left.data**right.data)
    exponent = int(right.data[0])
    base = left.data if exponent >= 0 else _inverse(left.data)
    return Value(2, torch.linalg.matrix_power(base, abs(exponent)))


def _length(vector: Tensor) -> Tensor:
    """Euclidean, without overflow, and with a gradient (0) at 0."""
    size = vector.detach().abs().amax(-1, keepdim=True).clamp(min=1e-300)
    scaled = (vector / size).square().sum(-1)
    return torch.where(scaled > 0, scaled, 1.0).sqrt() * size[..., 0] * (scaled > 0)


def _finite(matrix: Tensor) -> Tensor:
    return matrix.isfinite().all(-1).all(-1)[..., None, None]


def _safely(function: Any, matrix: Tensor) -> Tensor:
    """NaN for matrices that are not finite, which LAPACK refuses."""
    good, instead = _finite(matrix), torch.eye(*matrix.shape[-2:], dtype=matrix.dtype, device=matrix.device)
    found = function(torch.where(good, matrix, instead))
    flags = good.reshape(good.shape[:-2] + (1,) * (found.ndim - matrix.ndim + 2))
    return torch.where(flags, found, torch.nan)


def eigenvalues(matrix: Tensor) -> Tensor:
    """Of matrices (…, d, d), NaN where they are not finite; scaled, as LAPACK may fail on tiny ones."""
    size = matrix.detach().abs().amax((-2, -1)).clamp(min=1e-300)[..., None]
    scaled = matrix / size[..., None]
    try:
        return size * _safely(torch.linalg.eigvals, scaled)
    except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
        noise = torch.randn(
            matrix.shape[-2:], generator=torch.Generator().manual_seed(0), dtype=torch.float64
        )
        return size * _safely(torch.linalg.eigvals, scaled + 1e-14 * noise.to(scaled))


def _inverse(matrix: Tensor) -> Tensor:
    inverse, info = torch.linalg.inv_ex(matrix)
    return torch.where((info == 0)[..., None, None], inverse, torch.nan)


def _pencil(form: Tensor, metric: Tensor | None) -> Tensor:
    """Eigenvalues of sym(form) relative to sym(metric) ≻ 0; NaN where that is not positive definite."""
    assert metric is not None
    root, info = torch.linalg.cholesky_ex(sym(metric))
    good = (info == 0)[..., None, None]
    root = torch.where(good, root, torch.eye(form.shape[-1], dtype=form.dtype, device=form.device))
    half = torch.linalg.solve_triangular(root, sym(form), upper=False)
    whitened = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return torch.where(good[..., 0], _safely(torch.linalg.eigvalsh, sym(whitened)), torch.nan)


def _lambertw(value: Tensor) -> Tensor:
    """The principal branch for value ≥ 0, by Newton's method from above; NaN below 0."""
    w = torch.log1p(value.clamp(min=0))
    for _ in range(20):
        w = w - (w * w.exp() - value) / (w.exp() * (w + 1))
    return torch.where(value >= 0, w, torch.nan)
