"""The tokens' velocity on any numbers that have exp: Arb balls, or power series of them.

The variants are those of theory.system.Setting. Weights are taken at the working precision.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul, sub
from typing import Any

from flint import arb, arb_series, ctx, fmpq_mat

from theory.instance import Instance

Rows = list[list[Any]]
"""An (n, d) matrix of numbers of one kind."""
Map = list[list[arb]] | None
"""A matrix; None is the identity."""
Velocity = Callable[[Rows], Rows]


def dot(left: Sequence[Any], right: Sequence[Any]) -> Any:
    return reduce(add, map(mul, left, right))


def apply(matrix: Map, vector: list[Any]) -> list[Any]:
    return vector if matrix is None else [dot(row, vector) for row in matrix]


def difference(left: Sequence[Any], right: Sequence[Any]) -> list[Any]:
    return list(map(sub, left, right))


def plus(left: Rows, right: Rows) -> Rows:
    return [list(map(add, *rows)) for rows in zip(left, right, strict=True)]


def each(function: Callable[[Any], Any], rows: Rows) -> Rows:
    return [list(map(function, row)) for row in rows]


def balls(matrix: fmpq_mat, factor: arb | int = 1) -> Rows:
    return each(lambda entry: arb(entry) * factor, matrix.tolist())


@dataclass(frozen=True)
class Head:
    """s_ij = (queries_i x_i)·(keys_j x_j), ẋ_i = outputs_i Σ_j P_ij values_j x_j: a map for every token."""

    queries: list[Map]
    keys: list[Map]
    values: list[Map]
    outputs: list[Map]


def _heads(instance: Instance) -> list[Head]:
    n, given, weights = instance.tokens.nrows(), instance.parameters, instance.weights
    same: list[Map] = [None] * n
    if not instance.setting.rotary:
        scales = [weights.scale if weights.scale_squared != 1 else 1] + [1] * (instance.setting.heads - 1)
        matrices = zip(instance.head_forms, instance.head_values, scales, strict=True)
        return [
            Head([balls(form.transpose(), scale)] * n, same, same, [balls(value)] * n)
            for form, value, scale in matrices
        ]
    turns = [given["rotation"] ** i for i in range(n)]
    queries, keys = ([balls(turn * given[name]) for turn in turns] for name in ("query", "key"))
    if not instance.setting.rotated_values:
        return [Head(queries, keys, same, [balls(instance.value)] * n)]
    values = [balls(turn * instance.value) for turn in turns]
    return [Head(queries, keys, values, [balls(turn.transpose()) for turn in turns])]


class Field:
    """The velocity field of an instance with tokens."""

    def __init__(self, instance: Instance):
        self.setting, self.heads = instance.setting, _heads(instance)
        self.positions = balls(instance.parameters["positions"]) if self.setting.positions else None
        self.bias = balls(instance.parameters["bias"]) if self.setting.bias else None

    def near(self, centre: Rows) -> Velocity:
        """The velocity; each softmax is taken relative to the key with the largest score at the centre.

        That is exact anywhere, and sharp near the centre. Where balls are too wide to normalise a softmax the
        velocity is NaN, and on series it raises ZeroDivisionError or ValueError.
        """
        seen = self._seen(centre)
        leads = [[self._lead(head, seen, i) for i in range(len(seen))] for head in self.heads]
        return lambda x: self._velocity(x, leads)

    def _seen(self, x: Rows) -> Rows:
        return x if self.positions is None else plus(x, self.positions)

    def _visible(self, i: int, n: int) -> range:
        return range(i + 1 if self.setting.causal else n)

    def _lead(self, head: Head, seen: Rows, i: int) -> int:
        query = apply(head.queries[i], seen[i])
        scores = [dot(query, apply(head.keys[j], seen[j])) for j in self._visible(i, len(seen))]
        if self.bias is not None:
            scores = list(map(add, scores, self.bias[i]))
        return max(range(len(scores)), key=lambda j: scores[j].mid())

    def _velocity(self, x: Rows, leads: list[list[int]]) -> Rows:
        seen = self._seen(x)
        carried = seen if self.setting.positions == "scores and values" else x
        parts = (self._of_head(*of, seen, carried) for of in zip(self.heads, leads, strict=True))
        velocity = reduce(plus, parts)
        if not self.setting.sphere:
            return velocity
        along = [dot(*rows) for rows in zip(x, velocity, strict=True)]
        return plus(velocity, [[-a * c for c in token] for a, token in zip(along, x, strict=True)])

    def _of_head(self, head: Head, leads: list[int], seen: Rows, carried: Rows) -> Rows:
        keys = list(map(apply, head.keys, seen))
        values = list(map(apply, head.values, carried))
        means = []
        for i, lead in enumerate(leads):
            mean, query = values[lead], apply(head.queries[i], seen[i])
            others = [j for j in self._visible(i, len(seen)) if j != lead]
            if others:
                scores = [dot(query, difference(keys[j], keys[lead])) for j in others]
                if self.bias is not None:
                    bias = self.bias[i]
                    scores = [s + (bias[j] - bias[lead]) for s, j in zip(scores, others, strict=True)]
                weights = list(map(_exp, scores))
                share = 1 / reduce(add, weights, 1)
                offsets = zip(*(difference(values[j], mean) for j in others), strict=True)
                mean = [base + share * dot(weights, moved) for base, moved in zip(mean, offsets, strict=True)]
            means.append(mean)
        return list(map(apply, head.outputs, means))


def _exp(score: Any) -> Any:
    """e^score; a series far below the working precision becomes balls around 0, which multiply faster."""
    weight, floor = score.exp(), arb(2) ** (-4 * ctx.prec)
    if isinstance(weight, arb) or not abs(weight[0]) < floor:
        return weight
    negligible = all(abs(c) < floor for c in weight.coeffs())
    return arb_series([arb(0, floor)] * weight.prec, weight.prec) if negligible else weight
