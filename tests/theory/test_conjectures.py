"""R1's squares in closed form, and C1's bound on both sides."""

from fractions import Fraction

import pytest
from flint import arb, fmpq
from hypothesis import given
from hypothesis import strategies as st

from theory.evaluate import Values, skewness
from theory.instance import Instance
from theory.registry import statement
from theory.theorems.conjectures import PRODUCT, SQUARE
from theory.verdict import Status
from theory.weights import rational_matrix

R1, C1 = statement("R1"), statement("C1")


def square(a, b, x, y) -> Instance:
    corners = [[x, y], [-y, x], [-x, -y], [y, -x]]
    return Instance.of(score=[[1, -a], [a, 1]], response=[[-1, b], [-b, -1]], tokens=corners)


def radial(instance: Instance) -> arb:
    """ṙ/r of the first corner, from the definitions of the system."""
    values = Values.at(instance)
    e = values.system
    return values.enclose((e.token(0).T * e.velocity(0))[0, 0] / (e.token(0).T * e.token(0))[0, 0])


@pytest.mark.parametrize("x", [1, 2, Fraction(1, 3)])
def test_the_radial_speed_is_the_closed_form(x):
    u = arb(fmpq(Fraction(x).numerator, Fraction(x).denominator)) ** 2
    claimed = ((2 * u).sinh() - 7 * u.sinh()) / (10 * (u.cosh() + (2 * u).cosh()))
    gap = radial(square(2, 3, x, 0)) - claimed
    assert gap.contains(0)
    assert float(gap.rad()) < 1e-12  # the test itself computes with 53 bits


@pytest.mark.parametrize(("x", "grows"), [(Fraction(138, 100), False), (Fraction(139, 100), True)])
def test_squares_grow_from_cosh_u_above_seven_halves(x, grows):
    """arcosh(7/2) = 1.9248, and 1.9248^½ = 1.3874."""
    instance = square(2, 3, x, 0)
    assert R1.applies(instance).status is (Status.HOLDS if grows else Status.FAILS)
    assert (radial(instance) > 0) == grows


def test_a_square_is_told_from_other_quadrilaterals():
    assert SQUARE.decide(square(2, 3, 1, 2)).holds
    for tokens in ([[1, 0], [0, 1], [-1, 0], [0, -2]], [[1, 0], [0, 1], [-1, 0]], [[0, 0]] * 4):
        assert SQUARE.decide(Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]], tokens=tokens)).fails
    assert SQUARE.decide(Instance.of(score=[[1]], value=[[1]])).status is Status.UNDECIDED


@given(st.fractions(-3, 3, max_denominator=5), st.fractions(Fraction(1, 5), 3, max_denominator=5))
def test_skewness_of_a_scaled_rotation(c, size):
    """|M_s|^{-1/2} M_a |M_s|^{-1/2} of size·(I + cJ) is cJ, whatever the sign of size."""
    for sign in (1, -1):
        p, q = sign * size, sign * size * c
        gap = skewness(rational_matrix("M", [[p, -q], [q, p]])) - abs(fmpq(c.numerator, c.denominator))
        assert gap.contains(0)


def test_skewness_needs_a_definite_symmetric_part():
    assert skewness(rational_matrix("M", [[1, 0], [0, -1]])).is_nan()


@given(st.fractions(0, 3, max_denominator=4), st.fractions(0, 3, max_denominator=4))
def test_the_product_of_slopes_decides(a, b):
    verdict = PRODUCT.decide(square(a, b, 1, 0))
    if a * b != 1:
        assert verdict.status is (Status.HOLDS if a * b < 1 else Status.FAILS)
    else:  # balls cannot prove a product that is exactly 1 to lie on either side
        assert not verdict.holds


@given(
    st.fractions(0, 3, max_denominator=4),
    st.fractions(0, 3, max_denominator=4),
    st.fractions(Fraction(1, 4), 2, max_denominator=4),
)
def test_squares_below_the_bound_shrink(a, b, x):
    """What the conjecture says of them; equal signs of a and b are the hard case."""
    if a * b < 1:
        assert radial(square(a, b, x, 0)) < 0


def test_the_constant_cannot_be_raised():
    """b > a > 1 with a product of 1.0302 diverges from large squares."""
    instance = square(Fraction(101, 100), Fraction(102, 100), 30, 0)
    assert PRODUCT.decide(instance).fails
    assert R1.applies(instance).holds


def test_the_conjecture_claims_only_what_is_proved():
    assert C1.kind == "conjecture"
    assert "Convergence itself is not proved" in C1.remark
    assert C1.formula is not None
    assert "X(t)" not in C1.formula
