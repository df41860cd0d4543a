"""Balls contain the values of expressions, computed independently by mpmath."""

import mpmath
import pytest
from flint import arb, ctx, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import (
    Abs,
    Expr,
    Float,
    Integer,
    LambertW,
    Max,
    Min,
    Rational,
    Symbol,
    cos,
    exp,
    expint,
    log,
    nan,
    oo,
    pi,
    sqrt,
    zoo,
)

from theory.enclosure import PRECISION, enclose, enclose_constant

x, y = Symbol("x", real=True), Symbol("y", real=True)
EXPRESSIONS: dict[Expr, object] = {
    x + y - Rational(1, 3): lambda a, b: a + b - mpmath.mpf(1) / 3,
    x * y * 7: lambda a, b: a * b * 7,
    exp(x) * y: lambda a, b: mpmath.exp(a) * b,
    log(1 + x**2): lambda a, b: mpmath.log(1 + a**2),
    LambertW(x**2 + y**2): lambda a, b: mpmath.lambertw(a**2 + b**2).real,
    Abs(x - y): lambda a, b: abs(a - b),
    expint(1, 1 + x**2): lambda a, b: mpmath.expint(1, 1 + a**2),
    expint(2, 1 + y**2): lambda a, b: mpmath.expint(2, 1 + b**2),
    Max(x, y, Rational(1, 7)): lambda a, b: max(a, b, mpmath.mpf(1) / 7),
    Min(x, y, -Rational(1, 7)): lambda a, b: min(a, b, -mpmath.mpf(1) / 7),
    x**5 - y**3: lambda a, b: a**5 - b**3,
    1 / (1 + x**2): lambda a, b: 1 / (1 + a**2),
    sqrt(1 + x**2): lambda a, b: mpmath.sqrt(1 + a**2),
    (2 + x**2) ** y: lambda a, b: (2 + a**2) ** b,
    (1 + y**2) ** Rational(-2, 3): lambda a, b: (1 + b**2) ** (-mpmath.mpf(2) / 3),
    exp(1) * x: lambda a, b: mpmath.e * a,
}
RATIONALS = st.fractions(-5, 5, max_denominator=999)


def _ball(value) -> arb:
    """A ball of relative radius 1e-50 around an mpmath number of 60 digits."""
    return arb(mpmath.nstr(value, 58), abs(arb(mpmath.nstr(value, 10))) * arb("1e-50") + arb("1e-60"))


def _contains(ball: arb, value) -> bool:
    """Is an mpmath number of 60 digits in the ball (to within those digits) and the ball tight?"""
    return (ball - _ball(value)).contains(0) and float(ball.rad()) <= 1e-25 * (1 + abs(float(value)))


@given(a=RATIONALS, b=RATIONALS)
@settings(max_examples=60, deadline=None)
def test_balls_contain_the_value(a, b):
    with ctx.workprec(PRECISION):
        _compare(a, b)


def _compare(a, b):
    values = {x: arb(fmpq(a.numerator, a.denominator)), y: arb(fmpq(b.numerator, b.denominator))}
    with mpmath.workdps(60):
        p, q = mpmath.mpf(a.numerator) / a.denominator, mpmath.mpf(b.numerator) / b.denominator
        for expression, reference in EXPRESSIONS.items():
            assert _contains(enclose(expression, values), reference(p, q)), expression


@given(centre=st.integers(-20, 20), radius=st.integers(1, 8), part=st.fractions(-1, 1, max_denominator=64))
@settings(max_examples=60, deadline=None)
def test_a_wide_ball_contains_the_value_at_every_point_of_the_input(centre, radius, part):
    wide = {x: arb(centre, radius), y: arb(1)}
    point = fmpq(centre) + fmpq(part.numerator, part.denominator) * radius
    inside = {x: arb(point), y: arb(1)}
    for expression in (x**3 - 2 * x, x**2, x**7, Abs(x), Max(x, y), Min(x, 2 * y), exp(x / 8), x * x - x):
        ball = enclose(expression, wide)
        assert ball.is_finite(), expression
        assert ball.contains(enclose(expression, inside)), expression


def test_a_power_of_a_ball_around_zero_is_small_not_undefined():
    """Equal tokens with entries like 1/3 differ by a ball around 0, and its square must stay one."""
    for exponent in (1, 2, 3, 10):
        ball = enclose(x**exponent, {x: arb(0, 0.5)})
        assert ball.contains(0)
        assert abs(ball) < 0.75**exponent
    assert not enclose(x**-2, {x: arb(0, 0.5)}).is_finite()
    assert enclose(x**-3, {x: arb(2)}) == 0.125


def test_constants_are_sharp():
    ball = enclose_constant(exp(-expint(1, Rational(13, 20))) - Rational(13, 20))
    assert ball > 0
    assert ball.rad() < arb("1e-30")
    with mpmath.workdps(60), ctx.workprec(PRECISION):
        assert _contains(enclose_constant(LambertW(2 / exp(1))), mpmath.lambertw(2 / mpmath.e).real)


def test_undefined_values_are_never_small():
    """A logarithm or a root of a negative number proves nothing."""
    for expression in (log(x), sqrt(x), x ** Rational(1, 3), 1 / (x + 2)):
        ball = enclose(expression, {x: arb(-2)})
        assert not ball > 0
        assert not ball < 0
        assert not ball.is_finite()


@pytest.mark.parametrize("expression", [cos(x), pi * x, 1 + cos(x)])
def test_an_unknown_function_is_refused(expression):
    with pytest.raises(TypeError, match="no enclosure"):
        enclose(expression, {x: arb(1)})


@pytest.mark.parametrize("number", [Float("0.1"), Float(2), oo, -oo, nan])
def test_an_inexact_number_is_refused(number):
    with pytest.raises(TypeError, match="not an exact number"):
        enclose(number, {})
    with pytest.raises(TypeError):
        enclose_constant(zoo)


def test_a_float_inside_an_expression_is_refused():
    with pytest.raises(TypeError, match="not an exact number"):
        enclose(x + Float("0.5"), {x: arb(1)})


def test_a_missing_value_is_an_error():
    with pytest.raises(KeyError):
        enclose(x + 1, {})


def test_shared_parts_are_computed_once():
    cache: dict = {}
    enclose(exp(x) + exp(x) ** 2, {x: arb(2)}, cache)
    assert cache[exp(x)].contains(arb(2).exp())
    poisoned = {exp(x): arb(5)}
    assert enclose(exp(x) + Integer(1), {x: arb(2)}, poisoned) == 6
