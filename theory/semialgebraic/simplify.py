"""Conjunctions of polynomial signs: factored, freed of what is known, and refuted where a proof is found."""

from collections.abc import Iterable, Sequence
from functools import cached_property

from flint import Ordering, fmpz_mpoly_ctx, fmpz_mpoly_vec

from theory.semialgebraic.positivity import (
    NONNEGATIVE,
    NONZERO,
    POSITIVE,
    ZERO,
    Certificate,
    Polynomial,
    Reduce,
    Sign,
    contradiction,
    primitive,
)

SHORT_EQUATION = 4  # terms up to which an equation to refute is substituted, not only added up
MOST_EQUATIONS = 8  # beyond, no Gröbner basis is attempted and equations are used one by one


def normal_form(equations: Sequence[Polynomial]) -> Reduce:
    """The remainder modulo a Gröbner basis of the equations."""
    basis = groebner(equations)

    def reduce(poly: Polynomial) -> Polynomial:
        while True:
            before = poly
            for divisor in basis:
                poly = divmod(poly, divisor)[1]
            if poly == before:
                return poly

    return reduce


def groebner(equations: Sequence[Polynomial]) -> list[Polynomial]:
    nonzero = [primitive(poly) for poly in equations if not poly.is_zero()]
    if not nonzero or len(nonzero) > MOST_EQUATIONS:
        return nonzero
    context = nonzero[0].context()
    integers = fmpz_mpoly_ctx.get(context.names(), Ordering.degrevlex)
    polys = [integers.from_dict({m: int(c.p) for m, c in poly.to_dict().items()}) for poly in nonzero]
    basis = fmpz_mpoly_vec(polys, integers).buchberger_naive().autoreduction()
    return [context.from_dict(dict(poly.to_dict())) for poly in basis]


class Known:
    """Signs and equations taken as given, and what can be proved from them."""

    def __init__(self, signs: Iterable[Sign] = (), equations: Sequence[Polynomial] = ()):
        self.signs, self.equations = [*signs], [*equations]
        self._proved: dict[tuple, bool] = {}

    @cached_property
    def reduce(self) -> Reduce:
        return normal_form(self.equations)

    def shortest(self, poly: Polynomial) -> Polynomial:
        """The normal form, or with x² = 1 − y² used the other way round where that factors into less."""
        poly = self.reduce(poly)
        forms = [poly, *(_folded(poly, *pair) for circle in self.circles for pair in (circle, circle[::-1]))]
        return min(forms, key=lambda form: sum(len(factor) for factor, _ in form.factor()[1]))

    @cached_property
    def circles(self) -> list[tuple[int, int]]:
        """Pairs of generators with x² + y² = 1."""
        return [pair for equation in self.equations if (pair := circle(equation)) is not None]

    def beside(self, signs: Iterable[Sign]) -> "Known":
        """The same with more signs."""
        wider = Known([*self.signs, *signs], self.equations)
        wider.__dict__["reduce"] = self.reduce  # the equations are the same
        return wider

    def proves(self, sign: Sign) -> bool:
        """Does the sign certainly hold wherever all that is known does?"""
        poly = primitive(self.reduce(sign.poly))
        if poly.is_constant():
            return _constant_sign(Sign(poly, sign.relation))
        sign = Sign(poly, sign.relation)
        if sign.key not in self._proved:
            cases = sign.negated()
            self._proved[sign.key] = all(self.refutes([case]) is not None for case in cases)
        return self._proved[sign.key]

    def refutes(self, signs: Sequence[Sign]) -> Certificate | None:
        """A proof that the signs contradict what is known, or None."""
        short = [sign for sign in signs if sign.relation == ZERO and len(sign.poly) <= SHORT_EQUATION]
        rest = [sign for sign in signs if sign not in short]
        polys = [*self.equations, *(sign.poly for sign in short)]
        return contradiction([*self.signs, *rest], normal_form(polys) if short else self.reduce)

    def side(self, poly: Polynomial) -> int | None:
        """1 or −1 if the polynomial certainly has this sign, else None."""
        if self.proves(Sign(poly, POSITIVE)):
            return 1
        return -1 if self.proves(Sign(-poly, POSITIVE)) else None


def circle(equation: Polynomial) -> tuple[int, int] | None:
    """The two generators if the equation is a multiple of x² + y² − 1, else None."""
    used = [k for k, degree in enumerate(equation.degrees()) if degree]
    if len(used) != 2:
        return None
    x, y = (equation.context().gen(k) for k in used)
    return (used[0], used[1]) if (x**2 + y**2 - 1) * equation.leading_coefficient() == equation else None


def _folded(poly: Polynomial, x: int, y: int) -> Polynomial:
    """The polynomial with x² replaced by 1 − y²."""
    context = poly.context()
    square, total = 1 - context.gen(y) ** 2, context.constant(0)
    for exponents, coefficient in poly.to_dict().items():
        rest = list(exponents)
        half, rest[x] = int(rest[x]) // 2, rest[x] % 2
        total += context.from_dict({tuple(rest): coefficient}) * square**half
    return total


def _constant_sign(sign: Sign) -> bool:
    value = 0 if sign.poly.is_zero() else sign.poly.leading_coefficient()
    return {POSITIVE: value > 0, NONNEGATIVE: value >= 0, NONZERO: value != 0, ZERO: value == 0}[
        sign.relation
    ]


def simplified(signs: Sequence[Sign], known: Known) -> list[Sign] | Certificate:
    """Signs equivalent to the given ones under what is known, or a proof that they cannot all hold.

    Products are split where the signs of factors are known, squares are dropped, and a sign is left out only
    if it provably follows from what is known and the rest.
    """
    signs = _distinct(piece for sign in signs for piece in _pieces(sign, known))
    if (certificate := known.refutes(signs)) is not None:
        return certificate
    changed = True
    while changed:
        changed = False
        for sign in signs:
            rest = [other for other in signs if other is not sign]
            pieces = _pieces(sign, known.beside(rest))
            if [piece.key for piece in pieces] != [sign.key]:
                signs, changed = _distinct([*rest, *pieces]), True
                break
    for sign in sorted(signs, key=lambda sign: (sign.relation == NONZERO, size(sign)), reverse=True):
        rest = [other for other in signs if other is not sign]
        if known.beside(rest).proves(sign):
            signs = rest
    certificate = known.refutes(signs)
    return sorted(signs, key=size) if certificate is None else certificate


def size(sign: Sign) -> tuple:
    """For sorting, the simplest first."""
    return sign.poly.total_degree(), len(sign.poly), sign.relation, str(sign.poly).lstrip("-")


def _distinct(signs: Iterable[Sign]) -> list[Sign]:
    return list({sign.key: sign for sign in signs}.values())


def _pieces(sign: Sign, known: Known) -> list[Sign]:
    """The sign of a product as signs of what is left of its factors: equivalent under what is known."""
    poly = known.shortest(sign.poly)
    if poly.is_constant():
        return [] if _constant_sign(Sign(poly, sign.relation)) else [Sign(primitive(poly), sign.relation)]
    constant, factors = poly.factor()
    if len(factors) == 1 and factors[0][1] == 1 and sign.relation != NONNEGATIVE:
        return [Sign(primitive(poly), sign.relation)]
    factors = [(primitive(factor), int(power)) for factor, power in factors]
    nonzero, unit = [], poly.context().constant(1 if constant > 0 else -1)
    if sign.relation == POSITIVE:
        nonzero = [factor for factor, power in factors if power % 2 == 0]
    elif sign.relation == NONZERO:
        nonzero, factors, unit = [factor for factor, _ in factors], [], unit**2
    elif sign.relation == ZERO:
        able = [factor for factor, _ in factors if not known.proves(Sign(factor, NONZERO))]
        return [Sign(_product(able, unit**2), ZERO)]
    pieces = [Sign(_leading_positive(f), NONZERO) for f in nonzero if not known.proves(Sign(f, NONZERO))]
    left, unit = _signed(factors, unit, sign.relation, known)
    if sign.relation == NONNEGATIVE and all(power % 2 == 0 for _, power in left):
        # A square: it is ≥ 0, and its negative only where it vanishes.
        return [] if unit == 1 else [Sign(_product([factor for factor, _ in left], unit**2), ZERO)]
    rest = _product([factor**power for factor, power in left], unit)
    if rest.is_constant() and _constant_sign(Sign(rest, sign.relation)):
        return pieces
    weak = sign.relation == NONNEGATIVE and not known.proves(Sign(rest, NONZERO))
    return [*pieces, Sign(rest, NONNEGATIVE if weak else POSITIVE)]


Factors = list[tuple[Polynomial, int]]


def _signed(factors: Factors, unit: Polynomial, relation: str, known: Known) -> tuple[Factors, Polynomial]:
    """The factors whose signs are not known, with powers 1 or 2, and the sign of all the others."""
    left: Factors = []
    for factor, power in factors:
        side = known.side(factor) if power % 2 or relation == NONNEGATIVE else None
        if side is not None:
            unit *= side ** (power % 2)
        elif power % 2 or relation == NONNEGATIVE:
            left.append((factor, 2 - power % 2))
    for factor in left if len(left) > 1 else []:
        others = _product([f**p for f, p in left if f is not factor[0]], unit)
        if (side := known.side(others)) is not None:
            return [factor], unit**2 * side
    return left, unit


def _product(factors: Iterable[Polynomial], unit: Polynomial) -> Polynomial:
    for factor in factors:
        unit = unit * factor
    return unit


def _leading_positive(poly: Polynomial) -> Polynomial:
    return poly if poly.leading_coefficient() > 0 else -poly
