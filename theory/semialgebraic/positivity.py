"""Proofs that polynomial signs contradict each other: exact certificates found by linear programming.

A system f_i > 0, g_j ≥ 0, h_k = 0 has no solution if non-negative multiples of products of its members and of
squares add up to zero modulo the h_k while a product of strict members takes part (Krivine–Stengle, here with
at most two factors and squares of one or two monomials). Not finding a certificate proves nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement, product
from math import gcd, lcm, prod
from operator import add

from flint import fmpq, fmpq_mpoly, fmpq_mpoly_ctx

POSITIVE, NONNEGATIVE, NONZERO, ZERO = ">", ">=", "!=", "=="
LARGEST_PROGRAM = 60_000  # rows times columns; beyond, no certificate is attempted
MOST_TERMS = 1500  # of all products of two facts
MOST_SQUARED = 80  # monomials whose pairwise sums are squared too

Polynomial = fmpq_mpoly
Monomial = tuple[int, ...]
Reduce = Callable[[Polynomial], Polynomial]


@dataclass(frozen=True, eq=False)
class Sign:
    """`poly relation 0`, with relation one of >, >=, != and ==."""

    poly: Polynomial
    relation: str

    @property
    def key(self) -> tuple:
        return self.relation, *sorted((tuple(map(int, m)), c.p, c.q) for m, c in self.poly.to_dict().items())

    def negated(self) -> list["Sign"]:
        """The cases in which it fails."""
        if self.relation == ZERO:
            return [Sign(self.poly, POSITIVE), Sign(-self.poly, POSITIVE)]
        other = {POSITIVE: NONNEGATIVE, NONNEGATIVE: POSITIVE, NONZERO: ZERO}[self.relation]
        return [Sign(-self.poly, other)]


def primitive(poly: Polynomial) -> Polynomial:
    """A positive multiple with coprime integer coefficients."""
    coefficients = poly.coeffs()
    if not coefficients:
        return poly
    return poly * fmpq(lcm(*(int(c.q) for c in coefficients)), gcd(*(int(c.p) for c in coefficients)))


@dataclass(frozen=True)
class Term:
    """multiplier · product of factors, known to be ≥ 0, or > 0 if it is strict."""

    multiplier: int
    factors: tuple[Polynomial, ...]
    strict: bool


@dataclass(frozen=True)
class Certificate:
    """Terms whose sum is 0: what cannot be, as each is ≥ 0 and one is > 0."""

    terms: tuple[Term, ...]

    def total(self) -> Polynomial:
        """The sum: zero as it stands, or modulo the equations that were used."""
        return sum(prod(term.factors, start=fmpq(term.multiplier)) for term in self.terms)


def contradiction(signs: Sequence[Sign], reduce: Reduce) -> Certificate | None:
    """A proof that no real point satisfies all the signs, or None; `reduce` is modulo equations."""
    facts = [(sign.poly, sign.relation == POSITIVE) for sign in _as_inequalities(signs)]
    if not facts:
        return None
    for products in (_single(facts), [*_single(facts), *_pairs(facts)]):
        found = _certificate(products, reduce)
        if found is not None:
            return found
    return None


def _as_inequalities(signs: Sequence[Sign]) -> Iterator[Sign]:
    for sign in signs:
        if sign.relation == NONZERO:
            yield Sign(sign.poly**2, POSITIVE)
        elif sign.relation == ZERO:
            yield from (Sign(sign.poly, NONNEGATIVE), Sign(-sign.poly, NONNEGATIVE))
        else:
            yield sign


@dataclass(frozen=True)
class _Product:
    factors: tuple[Polynomial, ...]
    value: Polynomial
    strict: bool


Fact = tuple[Polynomial, bool]


def _single(facts: list[Fact]) -> list[_Product]:
    return [_Product((poly,), poly, strict) for poly, strict in facts]


def _pairs(facts: list[Fact]) -> list[_Product]:
    """Products of two facts, and of a fact with a generator's square, the shortest up to MOST_TERMS."""
    context = facts[0][0].context()
    squares = [(g**2, False) for g in context.gens() if any(_shares(g, poly) for poly, _ in facts)]
    couples = [*combinations_with_replacement(facts, 2), *product(facts, squares)]
    found, terms = [], 0
    for (p, strict_p), (q, strict_q) in sorted(
        couples, key=lambda couple: len(couple[0][0]) * len(couple[1][0])
    ):
        terms += len(p) * len(q)
        if terms > MOST_TERMS:
            break
        found.append(_Product((p, q), p * q, strict_p and strict_q))
    return found


def _shares(one: Polynomial, other: Polynomial) -> bool:
    return any(a and b for a, b in zip(one.degrees(), other.degrees(), strict=True))


def _certificate(products: list[_Product], reduce: Reduce) -> Certificate | None:
    columns = [_Product((), products[0].value.context().constant(1), True), *products]
    rows = [reduce(column.value).to_dict() for column in columns]
    squares = _squares(products[0].value.context(), {m for row in rows for m in row})
    columns += squares
    rows += [reduce(square.value).to_dict() for square in squares]
    kept = _cancellable(rows)
    if not any(columns[k].strict for k in kept):
        return None
    monomials = sorted({m for k in kept for m in rows[k]})
    if len(monomials) * len(kept) > LARGEST_PROGRAM:
        return None
    matrix = [[rows[k].get(m, fmpq(0)) for m in monomials] + [fmpq(columns[k].strict)] for k in kept]
    multipliers = combination(matrix, [fmpq(0)] * len(monomials) + [fmpq(1)])
    if multipliers is None:
        return None
    common = lcm(*(int(multiplier.q) for multiplier in multipliers))
    return Certificate(
        tuple(
            Term(int((multiplier * common).p), columns[k].factors, columns[k].strict)
            for k, multiplier in zip(kept, multipliers, strict=True)
            if multiplier
        )
    )


def _squares(context: fmpq_mpoly_ctx, present: set[Monomial]) -> list[_Product]:
    """m² and (m ± m')² for generators and monomials m with m² or mm' among the terms present."""
    halves = {tuple(e // 2 for e in m) for m in present if not any(e % 2 for e in m)}
    halves |= {g.monoms()[0] for k, g in enumerate(context.gens()) if any(m[k] for m in present)}
    halves |= {context.constant(1).monoms()[0]}
    monomials = {m: context.from_dict({m: 1}) for m in sorted(halves)}
    found = [_Product((m, m), m**2, False) for m in monomials.values() if not m.is_one()]
    if len(monomials) > MOST_SQUARED:
        return found
    for (a, p), (b, q) in combinations(monomials.items(), 2):
        if tuple(map(add, a, b)) in present:
            found += [_Product((r, r), r**2, False) for r in (p + q, p - q)]
    return found


def _cancellable(rows: list[dict[Monomial, fmpq]]) -> list[int]:
    """Columns that can take part in a sum to zero: none has a term that no other one can cancel."""
    kept = list(range(len(rows)))
    while True:
        signs: dict[Monomial, set[bool]] = {}
        for k in kept:
            for monomial, coefficient in rows[k].items():
                signs.setdefault(monomial, set()).add(coefficient > 0)
        left = [k for k in kept if all(len(signs[m]) == 2 for m in rows[k])]
        if len(left) == len(kept):
            return kept
        kept = left


def combination(columns: list[list[fmpq]], target: list[fmpq]) -> list[fmpq] | None:
    """Non-negative x with Σ x_k columns[k] = target ≥ 0, or None if there is none; all exact.

    Phase 1 of the simplex method with Bland's rule, which terminates (Chvátal, Linear Programming, ch. 3).
    """
    size = len(columns)
    table = [[column[i] for column in columns] + [value] for i, value in enumerate(target)]
    basis = [size + i for i in range(len(target))]  # artificial variables, whose sum is driven to zero
    cost = [sum(column, fmpq(0)) for column in zip(*table, strict=True)]
    while cost[-1] != 0:
        entering = next((k for k in range(size) if cost[k] > 0), None)
        if entering is None:
            return None
        ratios = [(row[-1] / row[entering], basis[i], i) for i, row in enumerate(table) if row[entering] > 0]
        _, _, pivot = min(ratios)
        row = table[pivot] = [entry / table[pivot][entering] for entry in table[pivot]]
        support = [k for k, entry in enumerate(row) if entry != 0]
        for other in (*(r for i, r in enumerate(table) if i != pivot), cost):
            if factor := other[entering]:
                for k in support:
                    other[k] -= factor * row[k]
        basis[pivot] = entering
    found = [fmpq(0)] * size
    for i, variable in enumerate(basis):
        if variable < size:
            found[variable] = table[i][-1]
    return found
