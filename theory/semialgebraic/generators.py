"""Expressions as polynomials: cosine and sine become a point of the circle, roots and exponentials variables.

The polynomials are exact (FLINT). What is known of the new variables comes as equations (c² + s² = 1,
z² = a) and signs (z ≥ 0, e^a > 0, sin θ > 0 for 0 < θ < π).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from flint import Ordering, fmpq, fmpq_mpoly_ctx
from sympy import Abs, Add, Expr, Mul, Pow, Rational, S, Symbol, cos, false, pi, sin, tan, true
from sympy.core.relational import Eq, Ge, Gt, Le, Lt, Ne, Relational

from theory.errors import InputError
from theory.semialgebraic.angles import Bound, bound_on, multiples, quadrants, steps
from theory.semialgebraic.positivity import NONNEGATIVE, NONZERO, POSITIVE, ZERO, Polynomial, Sign, primitive

MOST_TURNS = 64  # largest multiple of one base angle

Fraction = tuple[Polynomial, Polynomial]


@dataclass(frozen=True)
class Circle:
    """Generators that stand for the cosine and sine of `angle` = step·symbol, a point to choose freely."""

    symbol: Symbol
    step: Rational
    cosine: int
    sine: int
    bound: Bound


class Generators:
    """The polynomial ring of a problem whose expressions and assumptions are given in real symbols.

    `symbols[k]` names generator k and `meaning[k]` is what it stands for. `equations` vanish and `facts` hold
    wherever the expressions are defined and the assumptions met; `domain` says where they are defined.
    `opaque` generators are functions of others and `fixed` ones are their arguments: neither is solved for.
    """

    def __init__(self, expressions: Iterable[Expr], assumptions: Sequence[Relational] = ()):
        rewriting = _Rewriting([*expressions], assumptions)
        self.meaning = dict(rewriting.meaning)
        used = {
            s for e in (*rewriting.results, *rewriting.equations) for s in e.free_symbols
        } | rewriting.fixed
        self.symbols = (*sorted(used - self.meaning.keys(), key=lambda s: s.name), *self.meaning)
        self._index = {symbol: k for k, symbol in enumerate(self.symbols)}
        names = [f"x{k}" for k in range(max(len(self.symbols), 1))]
        self.context = fmpq_mpoly_ctx.get(names, Ordering.degrevlex)
        self._rewriting = rewriting
        self.opaque = {self._index[s]: self.meaning[s] for s in rewriting.opaque}
        self.fixed = {self._index[s] for s in rewriting.fixed if s in self._index} | self.opaque.keys()
        self.circles = [
            Circle(symbol, step, self._index[c], self._index[s], rewriting.bounds.get(symbol, Bound()))
            for symbol, step, c, s in rewriting.circles
        ]
        self.domain = tuple(r for r in dict.fromkeys(rewriting.domain) if r != true)
        if false in self.domain:
            raise InputError(
                "entries",
                got="an entry that is defined for no values",
                expected="real entries",
                fix="look for roots of negative numbers",
            )
        self.equations = [self._plain(equation)[0] for equation in rewriting.equations]
        self.facts = [Sign(self._plain(e)[0], relation) for e, relation in rewriting.facts]
        self.facts += [sign for circle in self.circles for sign in self._quadrants(circle)]
        for relation in (*self.domain, *rewriting.others):
            self._assume(self.sign(relation))

    def _assume(self, sign: Sign) -> None:
        if sign.relation == ZERO:
            self.equations.append(sign.poly)
        else:
            self.facts.append(sign)

    def _quadrants(self, circle: Circle) -> Iterable[Sign]:
        pair = self.context.gen(circle.cosine), self.context.gen(circle.sine)
        for k, name, sign, strict in quadrants(circle.bound.times(circle.step)):
            turned = _turned(pair, k)[name == "sin"]
            yield Sign(turned * sign, POSITIVE if strict else NONNEGATIVE)

    def fraction(self, expression: Expr) -> Fraction:
        """Numerator and denominator of an expression in the user's symbols."""
        return self._plain(self._rewriting.of(expression))

    def sign(self, relation: Relational) -> Sign:
        """The relation as the sign of one polynomial (a denominator is squared away)."""
        left, right = map(
            self.fraction,
            (relation.gts, relation.lts) if isinstance(relation, Ge | Gt | Le | Lt) else relation.args,
        )
        numerator, denominator = add_fractions(left, (-right[0], right[1]))
        kind = {Eq: ZERO, Ne: NONZERO}.get(relation.func)
        if kind:
            return Sign(primitive(numerator), kind)
        kind = NONNEGATIVE if isinstance(relation, Ge | Le) else POSITIVE
        return Sign(primitive(numerator * denominator), kind)

    def _plain(self, expression: Expr) -> Fraction:
        one = self.context.constant(1)
        if expression.is_Rational:
            return self.context.constant(fmpq(int(expression.p), int(expression.q))), one
        if expression.is_Symbol:
            return self.context.gen(self._index[expression]), one
        if isinstance(expression, Pow):
            top, bottom = self._plain(expression.base)
            power = int(expression.exp)
            return (top**power, bottom**power) if power > 0 else (bottom**-power, top**-power)
        combine = add_fractions if isinstance(expression, Add) else multiply_fractions
        return reduce(combine, map(self._plain, expression.args))

    def expression(self, poly: Polynomial) -> Expr:
        """The polynomial in the user's symbols, expanded."""
        standing = [self.meaning.get(symbol, symbol) for symbol in self.symbols]
        return Add(
            *(
                Mul(
                    Rational(int(c.p), int(c.q)),
                    *(standing[k] ** int(e) for k, e in enumerate(exponents) if e),
                )
                for exponents, c in poly.to_dict().items()
            )
        )


def add_fractions(one: Fraction, other: Fraction) -> Fraction:
    if one[1] == other[1]:
        return one[0] + other[0], one[1]
    return _lowest(one[0] * other[1] + other[0] * one[1], one[1] * other[1])


def multiply_fractions(one: Fraction, other: Fraction) -> Fraction:
    return _lowest(one[0] * other[0], one[1] * other[1])


def _lowest(top: Polynomial, bottom: Polynomial) -> Fraction:
    if bottom.is_constant():
        return top / bottom.leading_coefficient(), bottom.context().constant(1)
    common = top.gcd(bottom)
    return divmod(top, common)[0], divmod(bottom, common)[0]


def _turned(pair, k: int):
    """(cos kθ, sin kθ) from (cos θ, sin θ), for polynomials or expressions; k may be negative."""
    cosine, sine = pair[0], pair[1] if k > 0 else -pair[1]
    turned = (cosine, sine)
    for _ in range(abs(k) - 1):
        turned = _added(turned, (cosine, sine))
    return turned


def _added(one, other):
    return one[0] * other[0] - one[1] * other[1], one[1] * other[0] + one[0] * other[1]


class _Rewriting:
    """Replaces functions by generators; remembers what these are and what is known of them."""

    def __init__(self, expressions: list[Expr], assumptions: Sequence[Relational]):
        self.meaning: dict[Symbol, Expr] = {}
        self.opaque: list[Symbol] = []
        self.fixed: set[Symbol] = set()
        self.circles: list[tuple[Symbol, Rational, Symbol, Symbol]] = []
        self.domain: list[Relational] = []
        self.equations: list[Expr] = []
        self.facts: list[tuple[Expr, str]] = []
        self._known: dict[Expr, Expr] = {}
        self._pairs: dict[Expr, tuple[Symbol, Symbol]] = {}
        used = {f for e in (*expressions, *assumptions) for f in e.atoms(cos, sin, tan)}
        self._steps = steps(used)
        self.bounds, self.others = self._split(expressions, assumptions)
        sides = [side for relation in self.others for side in relation.args]
        self.results = [self.of(e) for e in (*expressions, *sides)]
        self.results += [self.of(side) for r in self.domain for side in r.args]

    def _split(self, expressions: list[Expr], assumptions: Sequence[Relational]):
        """Bounds on angles that occur nowhere else, and the other assumptions."""
        found = {relation: bound for relation in assumptions if (bound := bound_on(relation))}
        rest = [relation for relation in assumptions if relation not in found]
        outside = {s for e in (*expressions, *rest) for s in _outside_of_angles(e)}
        self._free = {term for term in self._steps if term.is_Symbol and term not in outside}
        bounds: dict[Symbol, Bound] = {}
        for relation, (symbol, *bound) in found.items():
            if symbol in self._free:
                bounds[symbol] = bounds.get(symbol, Bound()).narrowed(*bound)
            else:
                rest.append(relation)
        return bounds, rest

    def of(self, expression: Expr) -> Expr:
        """The expression in the generators' symbols: rational operations only."""
        if expression not in self._known:
            self._known[expression] = self._rewritten(expression)
        return self._known[expression]

    def _rewritten(self, expression: Expr) -> Expr:
        if expression.is_Symbol or expression.is_Rational:
            return expression
        if isinstance(expression, Add | Mul):
            return expression.func(*map(self.of, expression.args))
        if isinstance(expression, cos | sin | tan):
            return self._trigonometric(expression)
        if isinstance(expression, Abs):
            return self._root(self.of(expression.args[0]) ** 2, 2, expression)
        if isinstance(expression, Pow) and expression.exp.is_Rational:
            return self._power(expression)
        return self._opaque(expression, POSITIVE)  # e^x, π, e

    def _power(self, power: Expr) -> Expr:
        base, exponent = power.args
        if exponent < 0:
            self.domain.append(Ne(base, 0))
        if exponent.q > 1:
            self.domain.append(Ge(base, 0))
            return self._root(self.of(base), exponent.q, base ** Rational(1, exponent.q)) ** exponent.p
        return self.of(base) ** exponent

    def _root(self, base: Expr, degree: int, meaning: Expr) -> Expr:
        if meaning not in self._known:
            root = self._new(meaning)
            self._known[meaning] = root
            numerator, denominator = base.together().as_numer_denom()
            self.equations.append(denominator * root**degree - numerator)
            self.facts.append((root, NONNEGATIVE))
        return self._known[meaning]

    def _opaque(self, meaning: Expr, relation: str | None) -> Symbol:
        symbol = self._new(meaning)
        self.opaque.append(symbol)
        self.fixed |= meaning.free_symbols
        if relation:
            self.facts.append((symbol, relation))
        return symbol

    def _new(self, meaning: Expr) -> Symbol:
        symbol = Symbol(f"<{len(self.meaning)}>", real=True)
        self.meaning[symbol] = meaning
        return symbol

    def _trigonometric(self, function: Expr) -> Expr:
        pair = (S.One, S.Zero)
        for term, factor in multiples(function.args[0]).items():
            pair = _added(pair, self._exact(factor) if term == pi else self._point(term, factor))
        if isinstance(function, tan):
            self.domain.append(Ne(cos(function.args[0]), 0))
            return pair[1] / pair[0]
        return pair[isinstance(function, sin)]

    def _exact(self, half_turns: Rational) -> tuple[Expr, Expr]:
        values = cos(half_turns * pi), sin(half_turns * pi)
        return tuple(self._opaque(v, None) if isinstance(v, cos | sin) else self.of(v) for v in values)  # type: ignore[return-value]

    def _point(self, term: Expr, factor: Rational) -> tuple[Expr, Expr]:
        step = self._steps[term]
        turns = int(factor / step)
        if abs(turns) > MOST_TURNS:
            raise InputError(
                "angle",
                got=f"multiples of {term} as different as {factor} and {step}",
                expected=f"multiples up to {MOST_TURNS} of one base angle",
                fix="use a second symbol for the other angle",
            )
        if term not in self._pairs:
            angle = step * term
            if term in self._free:
                pair = self._new(sin(angle)), self._new(cos(angle))
                self.circles.append((term, step, pair[1], pair[0]))
            else:
                pair = self._opaque(sin(angle), None), self._opaque(cos(angle), None)
            self._pairs[term] = pair[1], pair[0]
            self.equations.append(pair[0] ** 2 + pair[1] ** 2 - 1)
        return _turned(self._pairs[term], turns)


def _outside_of_angles(expression: Expr) -> set[Symbol]:
    """Symbols that occur other than as a rational multiple inside a trigonometric function."""
    if isinstance(expression, cos | sin | tan):
        terms = multiples(expression.args[0])
        return {s for term in terms if not term.is_Symbol for s in term.free_symbols}
    if expression.is_Symbol:
        return {expression}
    return {s for part in expression.args for s in _outside_of_angles(part)}
