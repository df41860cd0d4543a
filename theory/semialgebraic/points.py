"""A point where polynomial signs and equations hold: rational where possible, else certified by balls."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flint import arb, ctx, fmpq, fmpz_poly
from sympy import Add, Expr, Integer, Mul, Poly, Rational, Symbol, real_roots

from theory.enclosure import PRECISION
from theory.semialgebraic.angles import angle_at, ball, rational_cosines
from theory.semialgebraic.branches import Branch
from theory.semialgebraic.generators import Generators
from theory.semialgebraic.positivity import NONZERO, POSITIVE, ZERO, Polynomial, Sign
from theory.semialgebraic.simplify import circle

SMALL = [Rational(p, q) for q in (1, 2, 3, 4, 5, 10) for p in (1, -1, 0, 2, -2, 3, -3)]
SMALL = list(dict.fromkeys(sorted(SMALL, key=lambda r: (r.q * (1 + abs(r.p)) + 3 * (r == 0), bool(r < 0)))))
WIDTHS = (2, 4, 8, len(SMALL))  # numbers tried for each generator, round by round
MOST_STEPS = 5000  # values tried in one round

Number = fmpq | arb


@dataclass(frozen=True)
class Value:
    """A generator's value as an exact expression and as a rational or a ball around it."""

    exact: Expr
    number: Number

    @classmethod
    def of(cls, exact: Expr) -> "Value":
        return cls(exact, fmpq(int(exact.p), int(exact.q)) if exact.is_Rational else ball(exact))


@dataclass(frozen=True)
class Constraint:
    """A sign with its polynomial's terms and generators at hand."""

    poly: Polynomial
    relation: str
    terms: tuple[tuple[tuple[tuple[int, int], ...], fmpq], ...]
    variables: frozenset[int]

    @classmethod
    def of(cls, sign: Sign) -> "Constraint":
        terms = tuple(
            (tuple((k, int(e)) for k, e in enumerate(exponents) if e), coefficient)
            for exponents, coefficient in sign.poly.to_dict().items()
        )
        return cls(sign.poly, sign.relation, terms, frozenset(k for term, _ in terms for k, _ in term))

    def coefficients(self, values: dict[int, Value], unknown: int | None = None) -> list[Number]:
        """The polynomial at the values, by powers of the unknown generator."""
        found: list[Number] = [fmpq(0)]
        for term, coefficient in self.terms:
            degree, product = 0, coefficient
            for k, exponent in term:
                if k == unknown:
                    degree = exponent
                else:
                    for _ in range(exponent):
                        product = product * values[k].number
            found += [fmpq(0)] * (degree + 1 - len(found))
            found[degree] = found[degree] + product
        return found

    def holds(self, values: dict[int, Value]) -> bool:
        """Does it certainly hold? An equation only in rationals."""
        (number,) = self.coefficients(values)
        if self.relation == ZERO:
            return isinstance(number, fmpq) and number == 0
        if self.relation == NONZERO:
            return bool(number > 0 or number < 0)
        return bool(number > 0 if self.relation == POSITIVE else number >= 0)


class Search:
    """Depth-first search for values of the generators that occur in the constraints."""

    def __init__(self, generators: Generators, signs: Sequence[Sign], equations: Sequence[Polynomial]):
        self.generators = generators
        signs = [*signs, *(Sign(poly, ZERO) for poly in equations)]
        found = [Constraint.of(sign) for sign in signs if not sign.poly.is_constant()]
        # An equation between functions of the same arguments, such as cos² + sin² = 1, is true of itself.
        self.constraints = [c for c in found if c.relation != ZERO or not c.variables <= {*generators.opaque}]
        needed = {k for constraint in self.constraints for k in constraint.variables}
        functions = [k for k in sorted(needed) if k in generators.opaque]
        self.arguments = {
            generators.symbols.index(s) for k in functions for s in generators.opaque[k].free_symbols
        }
        self.cosines = {pair[1] for poly in equations if (pair := circle(poly)) is not None}
        plain = sorted((needed | self.arguments) - set(functions), key=lambda k: (k not in self.cosines, k))
        self.order = [*plain, *functions]

    def assignments(self) -> Iterator[dict[int, Value]]:
        """Values that certainly satisfy every constraint, simple ones first."""
        for self.rational in (True, False):
            for width in WIDTHS:
                self.steps = 0
                yield from self._extended({}, width)

    def _extended(self, values: dict[int, Value], width: int) -> Iterator[dict[int, Value]]:
        if len(values) == len(self.order):
            yield values
            return
        k = self.order[len(values)]
        checked = [c for c in self.constraints if k in c.variables and c.variables <= {*values, k}]
        for value, solved in self._candidates(k, values, checked, width):
            self.steps += 1
            if self.steps > MOST_STEPS:
                return
            wider = {**values, k: value}
            if all(c is solved or c.holds(wider) for c in checked):
                yield from self._extended(wider, width)

    def _candidates(
        self, k: int, values: dict[int, Value], checked: list[Constraint], width: int
    ) -> Iterator[tuple[Value, Constraint | None]]:
        """Values to try, each with the equation that it solves if it is not rational."""
        if k in self.generators.opaque:
            named = {self.generators.symbols[j]: value.exact for j, value in values.items()}
            yield Value.of(self.generators.opaque[k].xreplace(named)), None
            return
        polys = [(c, c.coefficients(values, k)) for c in checked]
        exact = [
            (c, fmpz_poly(_integers(found))) for c, found in polys if all(isinstance(x, fmpq) for x in found)
        ]
        equations = [(c, poly) for c, poly in exact if c.relation == ZERO and poly != 0]
        if equations:
            yield from ((value, equations[0][0]) for value in _roots(equations[0][1], self.rational))
            return
        tried = rational_cosines() if k in self.cosines else _samples([poly for _, poly in exact])
        closed = k not in self.arguments and len(checked) == len(
            [c for c in self.constraints if k in c.variables]
        )
        if k in self.cosines:
            tried = tried[: width**2]
        elif not closed or len(exact) < len(checked):
            tried = list(dict.fromkeys([*tried, *SMALL[:width]]))
        yield from ((Value.of(number), None) for number in tried)


def _integers(coefficients: list[Number]) -> list[int]:
    common = 1
    for coefficient in coefficients:
        common *= int((fmpq(common) * coefficient).q)
    return [int((coefficient * common).p) for coefficient in coefficients]


def _real_balls(poly: fmpz_poly) -> list[arb]:
    return sorted(
        (root.real for root, _ in poly.complex_roots() if root.imag == 0), key=lambda r: float(r.mid())
    )


def _roots(poly: fmpz_poly, rational: bool) -> Iterator[Value]:
    """Real roots: the rational ones, and unless `rational` the others as algebraic numbers."""
    symbol = Symbol("x")
    for factor, _ in sorted(poly.factor()[1], key=lambda pair: pair[0].degree()):
        if factor.degree() == 1:
            yield Value.of(Rational(-int(factor[0]), int(factor[1])))
        elif factor.degree() > 1 and not rational:
            exact = real_roots(Poly([int(c) for c in factor.coeffs()][::-1], symbol))
            yield from (Value(*pair) for pair in zip(exact, _real_balls(factor), strict=True))


def _samples(polys: list[fmpz_poly]) -> list[Rational]:
    """A simple rational in every interval between the roots, and every rational root."""
    edges: list[tuple[Rational, Rational]] = []
    rational: list[Rational] = []
    for poly in polys:
        if poly.degree() > 0:
            edges += [(_rational(root.lower()), _rational(root.upper())) for root in _real_balls(poly)]
            rational += [
                Rational(-int(factor[0]), int(factor[1]))
                for factor, _ in poly.factor()[1]
                if factor.degree() == 1
            ]
    edges.sort()
    lows = [None, *(high for _, high in edges)]
    highs = [*(low for low, _ in edges), None]
    between = [simplest(low, high) for low, high in zip(lows, highs, strict=True) if _apart(low, high)]
    return sorted({*between, *rational}, key=lambda r: (r.q + abs(r.p), bool(r < 0)))


def _apart(low: Rational | None, high: Rational | None) -> bool:
    return low is None or high is None or low < high


def _rational(number: arb) -> Rational:
    mantissa, exponent = number.man_exp()
    return Rational(int(mantissa)) * Rational(2) ** int(exponent)


def simplest(low: Rational | None, high: Rational | None) -> Rational:
    """The rational strictly between with the smallest denominator, 1 or −1 before 0; None is infinity."""
    for whole in (Integer(1), Integer(-1), Integer(0)):
        if (low is None or low < whole) and (high is None or whole < high):
            return whole
    if low is None or (high is not None and high <= 0):
        return -simplest(None if high is None else -high, None if low is None else -low)
    base = low.floor()
    if high is None or base + 1 < high:
        return base + 1
    return base + 1 / simplest(1 / (high - base), None if low == base else 1 / (low - base))


def user_point(generators: Generators, branch: Branch, values: dict[int, Value]) -> dict[Symbol, Expr] | None:
    """The values in the user's own symbols; None where an angle leaves its bound or a denominator is zero."""
    values = dict(values)
    solved = {solution.index for solution in branch.solutions}
    for k in range(len(generators.symbols)):
        if k not in values and k not in solved and k not in generators.opaque:
            values[k] = Value.of(Integer(1))
    for solution in reversed(branch.solutions):
        top, bottom = (_at(poly, values) for poly in (solution.numerator, solution.denominator))
        if not (bottom.number > 0 or bottom.number < 0):
            return None
        values[solution.index] = Value(top.exact / bottom.exact, top.number / bottom.number)
    point = {s: values[k].exact for k, s in enumerate(generators.symbols) if s not in generators.meaning}
    for free in generators.circles:
        cosine, sine = values[free.cosine].exact, values[free.sine].exact
        angle = angle_at(cosine, sine, free.bound.times(free.step))
        if angle is None:
            return None
        point[free.symbol] = angle / free.step
    return point


def _at(poly: Polynomial, values: dict[int, Value]) -> Value:
    """The polynomial's value, exactly and as a number."""
    constraint = Constraint.of(Sign(poly, ZERO))
    exact = Add(
        *(
            Mul(Rational(int(c.p), int(c.q)), *(values[k].exact ** exponent for k, exponent in term))
            for term, c in constraint.terms
        )
    )
    return Value(exact, constraint.coefficients(values)[0])


def find_points(
    generators: Generators, branch: Branch, signs: Sequence[Sign]
) -> Iterator[dict[Symbol, Expr]]:
    """Points of a branch, in the user's own symbols, where all signs certainly hold; simple ones first."""
    with ctx.workprec(PRECISION):
        for values in Search(generators, signs, branch.left).assignments():
            point = user_point(generators, branch, values)
            if point is not None:
                yield point
