"""SymPy expressions evaluated as Arb balls that provably contain their value."""

from collections.abc import Callable, Mapping

from flint import arb, ctx, fmpq
from sympy import Abs, Add, Expr, LambertW, Max, Min, Mul, Number, Pow, Symbol, exp, expint, log
from sympy.core.numbers import Exp1

PRECISION = 128  # bits

_FUNCTIONS: dict[type, Callable[..., arb]] = {
    exp: arb.exp,
    log: arb.log,
    LambertW: arb.lambertw,
    Abs: abs,
    expint: lambda order, argument: argument.expint(order),
}


def enclose(expression: Expr, values: Mapping[Symbol, arb], cache: dict[Expr, arb] | None = None) -> arb:
    """A ball that contains `expression` at the given values; TypeError for an unknown function."""
    cache = {} if cache is None else cache
    if expression not in cache:
        cache[expression] = _enclose(expression, values, cache)
    return cache[expression]


def _enclose(expression: Expr, values: Mapping[Symbol, arb], cache: dict[Expr, arb]) -> arb:
    if isinstance(expression, Symbol):
        return values[expression]
    if isinstance(expression, Number):
        if not expression.is_Rational:
            raise TypeError(f"{expression} is not an exact number")
        return arb(fmpq(int(expression.p), int(expression.q)))
    if isinstance(expression, Exp1):
        return arb.const_e()
    parts = [enclose(part, values, cache) for part in expression.args]
    if isinstance(expression, Add):
        return sum(parts, arb(0))
    if isinstance(expression, Mul):
        product = arb(1)
        for part in parts:
            product *= part
        return product
    if isinstance(expression, Max | Min):
        best = parts[0]
        for part in parts[1:]:
            best = best.max(part) if isinstance(expression, Max) else best.min(part)
        return best
    if isinstance(expression, Pow):
        exponent = expression.exp
        return _power(parts[0], int(exponent)) if exponent.is_Integer else parts[0] ** parts[1]
    if type(expression) in _FUNCTIONS:
        return _FUNCTIONS[type(expression)](*parts)
    raise TypeError(f"no enclosure for {type(expression).__name__}")


def _power(base: arb, exponent: int) -> arb:
    """base**exponent; arb's own power is NaN on a ball centred at 0."""
    power, square, left = arb(1), base, abs(exponent)
    while left:
        power, square, left = power * square if left & 1 else power, square * square, left >> 1
    return power if exponent >= 0 else 1 / power


def rational_point(point: arb) -> fmpq:
    """The exact value of a ball of radius 0, such as a midpoint or an end."""
    mantissa, exponent = point.man_exp()
    return fmpq(mantissa) * fmpq(2) ** int(exponent)


def enclose_constant(expression: Expr) -> arb:
    """A ball around an expression without free symbols."""
    with ctx.workprec(PRECISION):
        return enclose(expression, {})
