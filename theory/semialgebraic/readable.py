"""Polynomial signs as SymPy relations that read well."""

from sympy import Add, Eq, Expr, Ge, Gt, Le, Lt, Mul, Ne, Pow, cos, sin
from sympy.core.relational import Relational
from sympy.simplify.fu import TR8

from theory.semialgebraic.generators import Generators
from theory.semialgebraic.positivity import NONNEGATIVE, NONZERO, POSITIVE, ZERO, Polynomial, Sign, primitive

_RELATIONS = {POSITIVE: Gt, NONNEGATIVE: Ge, NONZERO: Ne, ZERO: Eq}
_REVERSED = {Gt: Lt, Ge: Le, Ne: Ne, Eq: Eq}


def relation(generators: Generators, sign: Sign) -> Relational:
    """The sign as a relation in the user's symbols: `a*d > b**2` rather than `a*d - b**2 > 0`.

    A product keeps its factors, `(a - b)*c > 0`. SymPy's true or false for a constant.
    """
    kind = _RELATIONS[sign.relation]
    poly = primitive(sign.poly)
    if poly.is_constant():
        return kind(generators.expression(poly), 0)
    constant, factors = poly.factor()
    if len(factors) == 1 and factors[0][1] == 1:
        return _sum(generators, poly, kind)
    negative = bool(constant < 0)
    product: list[Expr] = []
    for part, power in factors:
        expression = shortest(generators.expression(primitive(part)))
        turned = _starts_negative(expression)
        negative ^= turned and power % 2 == 1
        product.append((-expression if turned else expression) ** int(power))
    return (_REVERSED[kind] if negative else kind)(Mul(*product), 0)


def shortest(expression: Expr) -> Expr:
    """Products of cosines and sines as multiple angles where that is shorter."""
    if not expression.has(cos, sin):
        return expression
    return min(expression, TR8(expression).expand(), key=lambda e: (e.count_ops(), _powers(e)))


def _powers(expression: Expr) -> int:
    return sum(int(p.exp) for p in expression.atoms(Pow) if p.exp.is_Integer)


def _starts_negative(expression: Expr) -> bool:
    return bool(expression.as_ordered_terms()[0].as_coeff_Mul()[0] < 0)


def _sum(generators: Generators, poly: Polynomial, kind: type) -> Relational:
    """Positive terms on the left, negative ones on the right; a multiple of one term against a number."""
    expression = generators.expression(poly)
    turned = shortest(expression)
    constant, rest = turned.as_coeff_Add()
    coefficient, term = rest.as_coeff_Mul()
    if not isinstance(term, Add):
        return (_REVERSED[kind] if coefficient < 0 else kind)(term, -constant / coefficient)
    if turned != expression:
        one, other = (Add(*(p for p in (s * t for t in turned.args) if _positive(p))) for s in (1, -1))
    else:
        terms = poly.to_dict()
        parts = ({m: s * c for m, c in terms.items() if s * c > 0} for s in (1, -1))
        one, other = (_compact(generators, poly.context().from_dict(part)) for part in parts)
    return _REVERSED[kind](other, one) if one.is_number else kind(one, other)


def _positive(term: Expr) -> bool:
    return bool(term.as_coeff_Mul()[0] > 0)


def _compact(generators: Generators, poly: Polynomial) -> Expr:
    """Expanded or factored, whichever is shorter."""
    expression = generators.expression(poly)
    return min(expression, polynomial(generators, poly), key=lambda e: e.count_ops())


def polynomial(generators: Generators, poly: Polynomial) -> Expr:
    """A polynomial as a product of readable factors."""
    constant, factors = poly.factor()
    parts = [shortest(generators.expression(part)) ** int(power) for part, power in factors]
    return shortest(Mul(generators.expression(poly.context().constant(constant)), *parts))
