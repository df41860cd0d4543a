"""Polynomial equations solved case by case: each branch gives generators as fractions of the others."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from theory.semialgebraic.positivity import NONZERO, Polynomial, Sign, primitive
from theory.semialgebraic.simplify import Known

MOST_BRANCHES = 24


@dataclass(frozen=True)
class Solution:
    """Generator `index` = numerator/denominator, in generators that are not solved for before."""

    index: int
    numerator: Polynomial
    denominator: Polynomial

    def into(self, poly: Polynomial) -> Polynomial:
        """The polynomial at the solution, times an even power of the denominator: its sign is kept."""
        context = poly.context()
        degree = int(poly.degrees()[self.index])
        if degree == 0:
            return poly
        even = degree + degree % 2
        powers = [self.numerator**e * self.denominator ** (even - e) for e in range(degree + 1)]
        total = context.constant(0)
        for exponents, coefficient in poly.to_dict().items():
            rest = [int(e) for e in exponents]
            power, rest[self.index] = rest[self.index], 0
            total += context.from_dict({tuple(rest): coefficient}) * powers[power]
        return primitive(total)


@dataclass(frozen=True)
class Branch:
    """One case: solutions in the order they were substituted, equations left over, and what is not zero."""

    solutions: tuple[Solution, ...] = ()
    left: tuple[Polynomial, ...] = ()
    nonzero: tuple[Polynomial, ...] = ()

    def into(self, poly: Polynomial) -> Polynomial:
        for solution in self.solutions:
            poly = solution.into(poly)
        return poly

    def at(self, signs: Sequence[Sign]) -> list[Sign]:
        """The signs at the solutions."""
        return [Sign(self.into(sign.poly), sign.relation) for sign in signs]

    def divisors(self) -> list[Sign]:
        """That what was divided by is not zero."""
        return self.at([Sign(poly, NONZERO) for poly in self.nonzero])


def branches(
    equations: Sequence[Polynomial], signs: Sequence[Sign], kept: Collection[int] = ()
) -> list[Branch]:
    """Cases whose union is the solution set of the equations where the signs hold; none: no solution.

    A product splits into its factors; an irreducible factor is solved for a generator that it contains
    linearly (never a `kept` one), in two cases where the coefficient may vanish. What cannot be solved is
    left. One branch with everything left where there would be more than MOST_BRANCHES.
    """
    found: list[Branch] = []
    waiting = [(Branch(), list(equations))]
    while waiting:
        if len(waiting) + len(found) > MOST_BRANCHES:
            return [Branch(left=tuple(equations))]
        branch, pending = waiting.pop()
        if not pending:
            found.append(branch)
        else:
            waiting += reversed(_split(branch, pending, Known([*branch.at(signs), *branch.divisors()]), kept))
    return found


State = tuple[Branch, list[Polynomial]]


def _split(branch: Branch, pending: list[Polynomial], known: Known, kept: Collection[int]) -> list[State]:
    """The next cases: the easiest pending equation is split, solved, or left."""
    pending = [poly for poly in pending if not poly.is_zero()]
    factored = [(poly, _factors(poly, known)) for poly in pending]
    if any(not factors for _, factors in factored):
        return []
    if not factored:
        return [(branch, [])]
    poly, factors = min(factored, key=lambda pair: (len(pair[1]), len(pair[0]), str(pair[0])))
    rest = [other for other in pending if other is not poly]
    if len(factors) > 1:
        return [(branch, [factor, *rest]) for factor in factors]
    solved = _linear(factors[0], known, kept)
    if solved is None:
        return [(replace(branch, left=(*branch.left, factors[0])), rest)]
    solution, certain = solved
    everything = [solution.into(other) for other in (*branch.left, *rest)]
    nonzero = branch.nonzero if certain else (*branch.nonzero, solution.denominator)
    cases = [(Branch((*branch.solutions, solution), (), nonzero), everything)]
    if not certain:
        cases.append((branch, [solution.denominator, solution.numerator, *rest]))
    return cases


def _factors(poly: Polynomial, known: Known) -> list[Polynomial]:
    """Factors that may vanish, the simplest first."""
    factors = [primitive(factor) for factor, _ in poly.factor()[1]]
    able = [factor for factor in factors if not known.proves(Sign(factor, NONZERO))]
    return sorted(able, key=lambda factor: (len(factor), str(factor)))


def _linear(poly: Polynomial, known: Known, kept: Collection[int]) -> tuple[Solution, bool] | None:
    """The simplest solution for a generator, and whether its denominator is certainly not zero."""
    choices = []
    for index, degree in enumerate(poly.degrees()):
        if degree != 1 or index in kept:
            continue
        coefficient = poly.derivative(index)
        rest = coefficient * poly.context().gen(index) - poly
        certain = coefficient.is_constant() or known.proves(Sign(coefficient, NONZERO))
        order = (not certain, not coefficient.is_constant(), len(coefficient) + len(rest), -index)
        choices.append((order, Solution(index, rest, coefficient), certain))
    if not choices:
        return None
    _, solution, certain = min(choices, key=lambda choice: choice[0])
    return solution, certain
