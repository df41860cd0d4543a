"""Ball matrices: the exact result of every operation, in rationals, must lie inside."""

import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.high_precision import contains, exact_inertia, rationals
from theory import balls
from theory.balls import Ball, exact, inverse_root, stack
from theory.errors import InputError

FLOATS = st.floats(-1e6, 1e6) | st.sampled_from([1e-200, 2.0**-1074, -1e-160, 1e150])
RADII = st.floats(0, 1) | st.just(0.0)


def array(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@st.composite
def members(draw: st.DrawFn, rows: int, columns: int) -> tuple[Ball, fmpq_mat]:
    """A ball and a matrix in it; an extreme one where `weight` is ±1."""
    entries = rows * columns
    mid, rad, weight = (
        np.array(draw(st.lists(kind, min_size=entries, max_size=entries)), dtype=float).reshape(rows, columns)
        for kind in (FLOATS, RADII, st.sampled_from([-1.0, -0.5, 0.0, 1.0]))
    )
    spread = [r * w for r, w in zip(rationals(rad).entries(), rationals(weight).entries(), strict=True)]
    return Ball(mid, rad), rationals(mid) + fmpq_mat(rows, columns, spread)


def holds(ball: Ball, truth: fmpq_mat) -> bool:
    return contains(ball.mid, ball.rad, truth)


@given(members(2, 3), members(2, 3), FLOATS)
def test_linear_operations_hold_every_member(left, right, factor):
    (A, a), (B, b) = left, right
    assert holds(A + B, a + b)
    assert holds(A - B, a - b)
    assert holds(-A, -a)
    assert holds(A.T, a.transpose())
    assert holds(A * factor, a * fmpq(*factor.as_integer_ratio()))


@given(members(2, 3), members(3, 2))
def test_products_hold_every_member(left, right):
    (A, a), (B, b) = left, right
    assert holds(A @ B, a * b)
    assert holds((A @ B).symmetric_part(), (a * b + (a * b).transpose()) / 2)
    assert holds(stack(A, B.T), fmpq_mat(4, 3, [*a.entries(), *b.transpose().entries()]))


@given(members(2, 2), members(1, 1))
def test_a_number_known_as_a_ball_scales_every_member(left, right):
    (A, a), (B, b) = left, right
    assert holds(A * B, a * b[0, 0])
    assert holds(A.scale_columns(np.array([0.1, 3.0])), a * rationals(np.diag([0.1, 3.0])))


def product_is_enclosed() -> None:
    A, B = array((5, 200)), array((200, 5), 1)
    truth = rationals(A) * rationals(B)
    assert rationals(A @ B) != truth  # so a ball without radius cannot hold it
    product = exact(A) @ exact(B)
    assert holds(product, truth)
    # 68 roundings of 200 terms of size ≈ 0.64 each: 68·200·0.64·2⁻⁵³ ≈ 1e-12.
    assert product.rad.max() < 3e-12


def sum_is_enclosed() -> None:
    tenths = exact(np.array([[0.1, 0.3]])) + exact(np.array([[0.2, -0.1]]))
    assert rationals(tenths.mid) != rationals(np.array([[0.1, 0.3]])) + rationals(np.array([[0.2, -0.1]]))
    assert holds(tenths, rationals(np.array([[0.1, 0.3]])) + rationals(np.array([[0.2, -0.1]])))


def cancellation_is_enclosed() -> None:
    row = np.array([[2.0**53, 1.0, 1.0, -(2.0**53), 0.25]])
    assert holds(exact(row) @ exact(np.ones((5, 1))), fmpq_mat(1, 1, [fmpq(9, 4)]))


def underflow_is_enclosed() -> None:
    small = exact(np.full((2, 2), 2.0**-600))
    assert not (small @ small).mid.any()
    assert holds(small @ small, fmpq_mat(2, 2, [fmpq(2, 2**1200)] * 4))
    assert holds(small * 2.0**-600, fmpq_mat(2, 2, [fmpq(1, 2**1200)] * 4))


PROOFS = [product_is_enclosed, sum_is_enclosed, cancellation_is_enclosed, underflow_is_enclosed]


@pytest.mark.parametrize("check", PROOFS)
def test_rounding_is_enclosed(check):
    check()


@pytest.mark.parametrize(
    ("constant", "check"), [("UNIT", p) for p in PROOFS[:3]] + [("TINY", underflow_is_enclosed)]
)
def test_a_forgotten_error_term_is_caught(monkeypatch, constant, check):
    monkeypatch.setattr(balls, constant, 0.0)
    with pytest.raises(AssertionError):
        check()


def test_magnitude_and_norm_bound_are_upper_bounds():
    for scale in (1.0, 2.0**600, 2.0**-600):
        M = Ball(array((6, 4)) * scale, np.full((6, 4), 0.25 * scale))
        member = rationals(M.mid) + rationals(np.sign(M.mid) * M.rad)
        assert all(
            abs(x) <= y for x, y in zip(member.entries(), rationals(M.magnitude()).entries(), strict=True)
        )
        squared = rationals(np.array([[M.norm_bound()]]))[0, 0] ** 2
        shifted = member.transpose() * member - fmpq_mat(
            4, 4, [squared * (i == j) for i in range(4) for j in range(4)]
        )
        assert exact_inertia(shifted)[0] == 0  # no eigenvalue of MᵀM above the squared bound
    # Frobenius is sharp for rank one, √(‖·‖₁‖·‖_∞) for a permutation; both up to rounding.
    assert exact(np.outer([3.0, 4.0], [1.0, 0.0])).norm_bound() == pytest.approx(5, rel=1e-13)
    assert exact(np.eye(9)[::-1]).norm_bound() == pytest.approx(1, rel=1e-13)


def test_inverse_root_encloses_the_root():
    for number in (1, 2, 3, 64, 2**53):
        ball = inverse_root(number)
        low, high = (rationals(ball.mid + sign * ball.rad)[0, 0] for sign in (-1, 1))
        assert low * low * number <= 1 <= high * high * number
        assert ball.rad[0, 0] < 1e-15
    for number in (0, -4, 2**53 + 1):
        with pytest.raises(InputError, match="number"):
            inverse_root(number)


def test_a_shift_is_exact_until_it_underflows():
    M = Ball(array((3, 3)), np.abs(array((3, 3), 1)))
    moved = M.shifted(700)
    assert holds(moved, rationals(M.mid) * 2**700)
    assert (moved.rad == M.rad * 2.0**700).all()
    assert holds(exact(array((3, 3))).shifted(-1060), rationals(array((3, 3))) / 2**1060)


def test_slices_keep_middle_and_radius():
    M = Ball(array((4, 5)), np.abs(array((4, 5), 1)))
    part = M[1:3, [0, 4]]
    assert part.shape == (2, 2)
    assert (part.mid == M.mid[1:3, [0, 4]]).all()
    assert (part.rad == M.rad[1:3, [0, 4]]).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.int64, np.uint64])
def test_stored_weights_convert_exactly(dtype):
    given = np.array([[0, 1], [3, 100]], dtype=dtype)
    ball = exact(given)
    assert ball.mid.dtype == np.float64
    assert (ball.mid == given).all()
    assert not ball.rad.any()


@pytest.mark.parametrize(
    "bad",
    [
        np.array([[2**53 + 1]]),
        np.array([[2**63 - 1]]),
        np.array([[np.nan]]),
        np.array([[np.inf]], dtype=np.float32),
        np.array([[1j]]),
        np.array([["a"]]),
        np.ones(3),
        np.ones((0, 2)),
    ],
)
def test_what_floats_cannot_hold_is_refused(bad):
    with pytest.raises(InputError, match="Wq: got"):
        exact(bad, "Wq")


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="long double is double here")
def test_extended_precision_is_refused():
    with pytest.raises(InputError, match="53 bits"):
        exact(np.array([[1 + np.longdouble(2) ** -60]]))


def test_balls_refuse_what_they_cannot_mean():
    ones = np.ones((2, 2))
    for mid, rad in (
        (ones, np.ones((2, 3))),
        (ones[0], ones[0]),
        (ones, -ones),
        (ones.astype(np.float32), ones),
    ):
        with pytest.raises(InputError):
            Ball(mid, rad)
    A = exact(np.ones((2, 3)))
    for operation in (lambda: A @ A, lambda: A + A.T, lambda: A * A):
        with pytest.raises(InputError, match="shapes"):
            operation()


def test_overflow_raises():
    huge = exact(np.full((2, 2), 1e308))
    for operation in (lambda: huge + huge, lambda: huge * 10.0, lambda: huge @ huge, lambda: huge.shifted(9)):
        with pytest.raises(ArithmeticError):
            operation()
    with pytest.raises(ArithmeticError, match="norm"):
        huge.norm_bound()
