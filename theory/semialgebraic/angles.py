"""Angles: their multiples, bounds on them as signs of sines and cosines, and balls around their functions."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from flint import arb, ctx, fmpq
from sympy import ComplexRootOf, Dummy, Expr, Rational, S, Symbol, atan, atan2, cos, igcd, pi, sin, tan
from sympy.core.relational import Eq, Ge, Gt, Lt, Ne, Relational

from theory.enclosure import PRECISION, enclose

_BALLS = {cos: arb.cos, sin: arb.sin, tan: arb.tan, atan: arb.atan}


def ball(number: Expr) -> arb:
    """An Arb ball around a constant, trigonometric functions included; TypeError for other functions."""
    with ctx.workprec(PRECISION):
        return _ball(number)


def _ball(number: Expr) -> arb:
    values = {part: _BALLS[part.func](_ball(part.args[0])) for part in number.atoms(*_BALLS)}
    values |= {root: _root(root) for root in number.atoms(ComplexRootOf)} | {pi: arb.pi()}
    names = {part: Dummy() for part in values}
    return enclose(number.xreplace(names), {names[part]: value for part, value in values.items()})


def _root(root: ComplexRootOf) -> arb:
    """A ball around a real algebraic number, from SymPy's isolating intervals."""
    error = Rational(1, 2**PRECISION)
    middle = root.eval_rational(error, error)
    return arb(fmpq(int(middle.p), int(middle.q)), arb(2) ** -PRECISION)


def compare(one: Expr, other: Expr) -> int | None:
    """Sign of one − other, for constants; None where the balls cannot tell."""
    difference = one - other
    if difference == 0:
        return 0
    enclosed = ball(difference)
    return 1 if enclosed > 0 else -1 if enclosed < 0 else None


def multiples(angle: Expr) -> dict[Expr, Rational]:
    """The angle as a sum of rational multiples of terms: 2θ + π/3 is {θ: 2, π: 1/3}."""
    return {term: factor for term, factor in angle.expand().as_coefficients_dict().items() if factor}


def steps(functions: Iterable[Expr]) -> dict[Expr, Rational]:
    """For every term of the functions' angles (π aside) the largest step that divides all its multiples."""
    found: dict[Expr, Rational] = {}
    for function in functions:
        for term, factor in multiples(function.args[0]).items():
            if term != pi:
                a, b = found.get(term, abs(factor)), abs(factor)
                found[term] = Rational(igcd(a.p * b.q, b.p * a.q), a.q * b.q)
    return found


@dataclass(frozen=True)
class Bound:
    """low < angle < high, strictly or not; None where there is no bound."""

    low: Expr | None = None
    low_strict: bool = False
    high: Expr | None = None
    high_strict: bool = False

    def narrowed(self, end: Expr, strict: bool, upper: bool) -> "Bound":
        """With one more bound, unless the one that is there is tighter."""
        if upper:
            keep = self.high is not None and compare(end, self.high) != -1
            return self if keep else replace(self, high=end, high_strict=strict)
        keep = self.low is not None and compare(end, self.low) != 1
        return self if keep else replace(self, low=end, low_strict=strict)

    def times(self, factor: Rational) -> "Bound":
        """The same for factor·angle, factor > 0."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return replace(self, low=low, high=high)

    def contains(self, angle: Expr) -> bool:
        """Is a constant certainly within?"""
        above = 1 if self.low is None else compare(angle, self.low)
        below = 1 if self.high is None else compare(self.high, angle)
        return (above == 1 or (above == 0 and not self.low_strict)) and (
            below == 1 or (below == 0 and not self.high_strict)
        )


def bound_on(relation: Relational) -> tuple[Symbol, Expr, bool, bool] | None:
    """(angle, end, strict, upper) of an inequality linear in its one symbol, else None."""
    if isinstance(relation, Eq | Ne) or len(relation.free_symbols) != 1:
        return None
    (symbol,) = relation.free_symbols
    gap = relation.lhs - relation.rhs if isinstance(relation, Gt | Ge) else relation.rhs - relation.lhs
    slope, rest = gap.expand().coeff(symbol), gap.expand().coeff(symbol, 0)
    if not slope.is_Rational or slope == 0 or (gap - slope * symbol - rest).expand() != 0:
        return None
    return symbol, -rest / slope, isinstance(relation, Gt | Lt), bool(slope < 0)


def quadrants(bound: Bound, finest: int = 4) -> Iterator[tuple[int, str, int, bool]]:
    """(k, "cos" or "sin", sign, strict): signs of cos kθ and sin kθ that a bound on θ fixes.

    For 1 < k ≤ finest only those that an end of the bound makes sharp.
    """
    if bound.low is None or bound.high is None:
        return
    for k in range(1, finest + 1):
        scaled = bound.times(Rational(k))
        for name, shift in (("sin", S.Zero), ("cos", -pi / 2)):
            for turn in range(-2 * finest, 2 * finest + 1):
                start = shift + turn * pi
                above, below = compare(scaled.low, start), compare(start + pi, scaled.high)
                if above in (0, 1) and below in (0, 1) and (k == 1 or 0 in (above, below)):
                    strict = (above == 1 or bound.low_strict) and (below == 1 or bound.high_strict)
                    yield k, name, -1 if turn % 2 else 1, strict


def rational_cosines() -> list[Rational]:
    """Cosines (1 − t²)/(1 + t²) of rational points of the circle, simple ones first."""
    ratios = {Rational(p, q) for q in range(1, 13) for p in range(q + 1)} | {
        Rational(1, q) for q in (20, 50, 200)
    }
    ordered = sorted(ratios, key=lambda t: (t in (0, 1), t.q, t.p))
    cosines = [(1 - t**2) / (1 + t**2) for t in ordered]
    return list(dict.fromkeys(signed for cosine in cosines for signed in (cosine, -cosine)))


def angle_at(cosine: Expr, sine: Expr, bound: Bound) -> Expr | None:
    """An angle within the bound with this cosine and sine, or None."""
    angles = (atan2(sine, cosine) + 2 * pi * turn for turn in (0, 1, -1, 2, -2))
    return next((angle for angle in angles if bound.contains(angle)), None)
