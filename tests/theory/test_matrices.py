"""Matrix identities for every d, the product rule, and what neither can do."""

import pytest
from sympy import (
    Determinant,
    HadamardProduct,
    Identity,
    ImmutableDenseMatrix,
    MatAdd,
    MatMul,
    MatPow,
    MatrixSymbol,
    Q,
    Rational,
    Symbol,
    Trace,
    ZeroMatrix,
    simplify,
    true,
)

from theory.matrices import componentwise, difference_normal_form, directional_derivative, is_zero
from theory.notation import A, V, W, d, m_i, m_j, sym, u, x_i, x_j

SYMMETRIC_A = Q.symmetric(A)
FLOW = {x_i: V * m_i, x_j: V * m_j}


def equal(left, right, assumptions=true) -> bool:
    return is_zero(difference_normal_form(left, right, assumptions))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (A * (V + W), A * V + A * W),
        ((A * V).T, V.T * A.T),
        (2 * sym(W), W + W.T),
        (u.T * W * u, u.T * sym(W) * u),  # 1×1: equals its transpose
        (x_i.T * W * x_j, x_j.T * W.T * x_i),
        (
            (x_i - x_j).T * A * (x_i - x_j),
            x_i.T * A * x_i - x_i.T * A * x_j - x_j.T * A * x_i + x_j.T * A * x_j,
        ),
        (A * A.I * W, W),
        (A - A, ZeroMatrix(d, d)),
    ],
)
def test_identities_for_every_d(left, right):
    assert equal(left, right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (A * V, V * A),
        (A, A.T),
        (W, sym(W)),
        (x_i.T * W * x_j, x_i.T * W.T * x_j),
        (u.T * W * u, 2 * u.T * sym(W) * u),
        ((A * V).T, A.T * V.T),
        (A.I * W, W * A.I),
        (A * u, A.T * u),
    ],
)
def test_near_misses(left, right):
    assert not equal(left, right)


def test_symmetry_is_used_only_where_it_is_assumed():
    for left, right in ((A, A.T), (x_i.T * A * x_j, x_j.T * A * x_i), (A * V + V.T * A, A * V + V.T * A.T)):
        assert not equal(left, right)
        assert not equal(left, right, Q.symmetric(W))
        assert equal(left, right, SYMMETRIC_A)
        assert equal(left, right, SYMMETRIC_A & Q.symmetric(W))
    assert not equal(W, W.T, SYMMETRIC_A)


def test_zero_is_recognised_and_nothing_else_is():
    assert is_zero(ZeroMatrix(d, d))
    assert not is_zero(A)
    assert not is_zero(MatAdd(A, A.T))


# The product rule

SIZES = [1, 2, 3]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "expression",
    [
        x_i.T * A * x_i / 2,
        (x_i - x_j).T * A * (x_i - x_j),
        x_i.T * W * x_j,
        x_i * x_j.T * A.T,
        3 * x_i + A * x_j,
        x_i * x_i.T * x_j * x_i.T,
        W * x_i,
        (x_i + x_j).T,
    ],
)
def test_the_product_rule_is_the_derivative_entry_by_entry(expression, size):
    time = Symbol("time", real=True)
    moved = {
        entry: entry + time * rate
        for token, velocity in FLOW.items()
        for entry, rate in zip(
            componentwise(token, {d: size}), componentwise(velocity, {d: size}), strict=True
        )
    }
    found = componentwise(directional_derivative(expression, FLOW), {d: size})
    expected = componentwise(expression, {d: size}).subs(moved, simultaneous=True).diff(time).subs(time, 0)
    assert simplify(found - expected).is_zero_matrix
    assert not expected.is_zero_matrix


def test_the_derivative_of_a_constant_vanishes():
    for constant in (A, V.T, A.I, A * V, MatAdd(A, W)):
        assert is_zero(directional_derivative(constant, FLOW).doit())


def test_a_velocity_that_is_not_given_is_zero():
    assert directional_derivative(x_i.T * x_j, {x_i: V * m_i}).doit() == (m_i.T * V.T * x_j)


B = MatrixSymbol("B", d, d)


@pytest.mark.parametrize(
    "expression",
    [
        MatPow(B, 3),
        HadamardProduct(B, B),
        B.I,
        A * B.I,
        Identity(d),
        Trace(B) * A,
        MatMul(Determinant(B), A),
        B[0, 0] * A,
    ],
)
def test_what_has_no_product_rule_is_refused(expression):
    with pytest.raises(TypeError, match="no product rule"):
        directional_derivative(expression, {B: V})


def test_a_constant_scalar_factor_stays():
    size = Symbol("c", real=True)
    assert directional_derivative(size * Trace(A) * B, {B: V}).doit() == (size * Trace(A) * V).doit()


# Entry by entry


def test_entries_are_distinct_unless_a_symmetry_is_assumed():
    free, tied = componentwise(A, {d: 2}), componentwise(A, {d: 2}, SYMMETRIC_A)
    assert len(free.free_symbols) == 4
    assert len(tied.free_symbols) == 3
    assert tied == tied.T
    assert componentwise(A * V, {d: 2}, SYMMETRIC_A & Q.symmetric(W)).shape == (2, 2)
    assert componentwise(W, {d: 2}, SYMMETRIC_A) == componentwise(W, {d: 2})


def test_entry_by_entry_is_the_ordinary_matrix_algebra():
    a, v, x = (componentwise(m, {d: 2}) for m in (A, V, x_i))
    assert componentwise(A * V + 2 * V.T, {d: 2}) == (a * v + 2 * v.T).as_immutable()
    assert componentwise(x_i.T * A * x_i, {d: 2}) == (x.T * a * x).as_immutable()
    assert simplify(componentwise(A.I * V, {d: 2}) - a.inv() * v).is_zero_matrix
    assert componentwise(ZeroMatrix(d, 1), {d: 3}) == ImmutableDenseMatrix.zeros(3, 1)
    assert componentwise(Rational(1, 2) * A, {d: 1})[0, 0] == a[0, 0] / 2


@pytest.mark.parametrize(
    "expression",
    [MatPow(A, 3), HadamardProduct(A, V), Identity(d), A + Identity(d), Trace(A) * V, A[0, 0] * V],
)
def test_what_cannot_be_written_out_is_refused(expression):
    with pytest.raises(TypeError, match="cannot write out"):
        componentwise(expression, {d: 2})
