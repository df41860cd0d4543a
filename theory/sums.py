"""Finite sums over symbolic ranges: a normal form that decides identities for every n and d.

An expression built from `Sum`, products and integer powers of indexed entries is expanded into monomials
under one multiple sum each. Bound indices are renamed in the smallest of all orders, an index that occurs
nowhere contributes its range, and stated rules (Σ_j P_j = 1, Σ_j e^{s_j} = Z) remove indices. Two
expressions with the same normal form are equal.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

from sympy import (
    Add,
    Derivative,
    Dummy,
    Expr,
    Indexed,
    IndexedBase,
    Integer,
    Mul,
    Pow,
    S,
    Sum,
    Symbol,
    default_sort_key,
    expand_log,
)

Bound = tuple[tuple[Symbol, Expr], ...]  # (index, upper limit); ranges start at 1


@dataclass(frozen=True)
class Total:
    """A rule Σ_{index = 1}^upper term(index) = value, where `term` maps the index to the summand."""

    term: Callable[[Symbol], Expr]
    value: Expr
    upper: Expr

    def written(self, index: Symbol) -> Sum:
        """The sum itself, under the given bound index."""
        return Sum(self.term(index), (index, 1, self.upper))


@dataclass(frozen=True)
class Definition:
    """Entries of `base` stand for `meaning(*indices)`."""

    base: IndexedBase
    meaning: Callable[..., Expr]


def normal_form(
    expression: Expr,
    definitions: Sequence[Definition] = (),
    totals: Sequence[Total] = (),
    symmetric: Sequence[IndexedBase] = (),
) -> Expr:
    """The canonical representative of `expression`; equal expressions of the fragment get the same one."""
    flat = _known_totals(unfold(expression, definitions), totals)
    monomials = [_sum_out(term, bound, totals) for term, bound in _monomials(flat)]
    return Add(*(_canonical(term, bound, symmetric) for term, bound in monomials))


def unfold(expression: Expr, definitions: Sequence[Definition]) -> Expr:
    """Carry out derivatives, replace defined entries by their meaning, split logarithms of products."""
    expression = expression.xreplace({e: e.doit() for e in expression.atoms(Derivative)})
    for definition in definitions:
        expression = expression.replace(
            lambda e, base=definition.base: isinstance(e, Indexed) and e.base == base,
            lambda e, meaning=definition.meaning: _instantiate(meaning, e.indices),
        )
    return expand_log(expression)


def _instantiate(meaning: Callable[..., Expr], indices: Sequence[Expr]) -> Expr:
    """meaning(*indices), its own bound indices renamed first so that they capture none of the given ones."""
    holders = [Dummy(integer=True) for _ in indices]
    fresh = meaning(*holders).replace(
        lambda e: isinstance(e, Sum),
        lambda e: e.xreplace({index: Dummy(index.name, integer=True) for index, *_ in e.limits}),
    )
    return fresh.xreplace(dict(zip(holders, indices, strict=True)))


def _known_totals(expression: Expr, totals: Sequence[Total]) -> Expr:
    """Replace whole sums whose value is a rule, also where they stand in a denominator."""
    for total in totals:
        expression = expression.replace(
            lambda e, total=total: isinstance(e, Sum) and e.dummy_eq(total.written(Dummy(integer=True))),
            lambda e, value=total.value: value,
        )
    return expression


def _monomials(expression: Expr) -> list[tuple[Expr, Bound]]:
    """Σ-free monomials with their bound indices, all made distinct."""
    if isinstance(expression, Add):
        return [m for part in expression.args for m in _monomials(part)]
    if isinstance(expression, Sum):
        body, *ranges = expression.args
        fresh: list[tuple[Symbol, Expr]] = []
        for index, low, high in ranges:
            if low != 1:
                raise ValueError(f"sums start at 1, this one at {low}")
            name = Dummy(index.name, integer=True)
            body = body.xreplace({index: name})
            fresh.append((name, high))
        monomials = [(term, bound + tuple(fresh)) for term, bound in _monomials(body)]
        moving = {*(index for index, _, _ in ranges), *(name for name, _ in fresh)}
        if any(high.free_symbols & moving for _, bound in monomials for _, high in bound):
            raise ValueError(f"the range of an index depends on another index: {expression}")
        return monomials
    if (
        isinstance(expression, Pow)
        and expression.exp.is_Integer
        and expression.exp > 0
        and _composite(expression.base)
    ):
        return _monomials(Mul(*[expression.base] * int(expression.exp), evaluate=False))
    if isinstance(expression, Mul):
        product: list[tuple[Expr, Bound]] = [(S.One, ())]
        for factor in expression.args:
            right = [_refresh(m) for m in _monomials(factor)] if _composite(factor) else [(factor, ())]
            product = [(f * g, p + q) for f, p in product for g, q in (_refresh(m) for m in right)]
        return product
    return [(expression, ())]


def _composite(expression: Expr) -> bool:
    return expression.has(Sum) or (isinstance(expression, Add | Mul | Pow) and expression.has(Add))


def _refresh(monomial: tuple[Expr, Bound]) -> tuple[Expr, Bound]:
    term, bound = monomial
    names = {index: Dummy(index.name, integer=True) for index, _ in bound}
    return term.xreplace(names), tuple((names[index], high) for index, high in bound)


def _sum_out(term: Expr, bound: Bound, totals: Sequence[Total]) -> tuple[Expr, Bound]:
    """Remove indices that occur nowhere, or only in a factor whose total is known."""
    for position, (index, high) in enumerate(bound):
        with_index = Mul(*(f for f in Mul.make_args(term) if f.has(index)))
        without = Mul(*(f for f in Mul.make_args(term) if not f.has(index)))
        rest = bound[:position] + bound[position + 1 :]
        if with_index == 1:
            return _sum_out(without * high, rest, totals)
        for total in totals:
            if high == total.upper and with_index == total.term(index):
                return _sum_out(without * total.value, rest, totals)
    return term, bound


def _canonical(term: Expr, bound: Bound, symmetric: Sequence[IndexedBase]) -> Expr:
    candidates = []
    for order in permutations(bound):
        names = {index: Symbol(f"b{c}", integer=True) for c, (index, _) in enumerate(order)}
        renamed = sort_symmetric(term.xreplace(names), symmetric)
        candidates.append((renamed, tuple((names[index], 1, high) for index, high in order)))
    body, ranges = min(candidates, key=lambda c: (default_sort_key(c[0]), str(c[1])))
    coefficient, monomial = body.as_coeff_Mul()
    return coefficient * Sum(monomial, *ranges) if ranges else coefficient * monomial


def sort_symmetric(term: Expr, symmetric: Sequence[IndexedBase]) -> Expr:
    """Entries of symmetric bases with their indices in order."""
    return term.replace(
        lambda e: isinstance(e, Indexed) and e.base in symmetric,
        lambda e: e.base[tuple(sorted(e.indices, key=default_sort_key))],
    )


def at_size(expression: Expr, sizes: dict[Symbol, int]) -> Expr:
    """The same expression with symbolic ranges replaced by numbers and every sum written out."""
    return expression.subs({name: Integer(size) for name, size in sizes.items()}).doit()
