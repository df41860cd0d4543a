"""Certified spectra: enclosures contain, and Hurwitz is decided by every route or left open."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from flint import acb, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theory import eigenpairs
from theory.definiteness import EXACT_SIZE
from theory.eigenpairs import (
    eigenvalues,
    enclose_eigenpair,
    hurwitz,
    pencil_minimum,
    positive_eigenvalue,
    unstable,
)
from theory.proposals import approximate, lyapunov_solution
from theory.proposals import eigenpairs as guesses
from theory.verdict import Grade, Status
from theory.weights import identity, rational_matrix

SMALL = st.integers(-3, 3)
LARGE = EXACT_SIZE + 4


def _matrix(rows) -> fmpq_mat:
    return rational_matrix("m", rows)


def _diagonal(entries) -> fmpq_mat:
    return _matrix([[q if i == j else 0 for j in range(len(entries))] for i, q in enumerate(entries)])


def _contains(ball, exact) -> bool:
    """Does the ball contain this rational? (Converted to a ball, 1/3 would have a radius of its own.)"""
    exact = Fraction(int(exact.p), int(exact.q)) if isinstance(exact, fmpq) else Fraction(exact)
    return (ball * exact.denominator - exact.numerator).contains(0)


def _margin(text: str) -> float:
    return float(text.split()[-1])


def _similar(diagonal, coupling=Fraction(1, 8)) -> fmpq_mat:
    """S D S⁻¹ with a full S: the eigenvalues are exactly the diagonal's."""
    size = len(diagonal)
    random = np.random.default_rng(1)
    upper = np.triu(random.integers(-1, 2, (size, size)), 1)
    lower = np.tril(random.integers(-1, 2, (size, size)), -1)
    change = (identity(size) + _matrix(upper) * fmpq(1, 8)) * (identity(size) + _matrix(lower) * fmpq(1, 8))
    return change * _diagonal(diagonal) * change.inv()


@st.composite
def integer_matrices(draw, max_size: int = 4):
    size = draw(st.integers(1, max_size))
    return _matrix([[draw(SMALL) for _ in range(size)] for _ in range(size)])


@st.composite
def known_spectra(draw):
    """S D S⁻¹ with distinct rational eigenvalues."""
    size = draw(st.integers(1, 5))
    values = draw(st.lists(st.fractions(-5, 5, max_denominator=7), min_size=size, max_size=size, unique=True))
    return _similar(values), sorted(values, reverse=True)


# Enclosed eigenpairs


@given(known_spectra())
@settings(max_examples=60, deadline=None)
def test_the_enclosure_contains_the_rational_eigenvalue_and_a_vector_of_it(case):
    matrix, values = case
    gap = min((float(a - b) for a, b in itertools.pairwise(values)), default=1.0)
    assume(gap > 1e-3)
    for exact, (value, vector) in zip(values, guesses(matrix), strict=True):
        pair = enclose_eigenpair(matrix, value, vector)
        assert pair is not None
        assert _contains(pair.value, exact)
        assert float(pair.value.real.rad()) < 1e-20
        shifted = matrix - identity(matrix.nrows()) * fmpq(exact.numerator, exact.denominator)
        columns, rank = shifted.rref()
        assert rank == matrix.nrows() - 1
        free = _null_vector(columns, rank)
        pinned = next(
            k for k in range(matrix.nrows()) if (pair.vector[k, 0] - 1).contains(0) and free[k] != 0
        )
        for k, entry in enumerate(free):
            assert _contains(pair.vector[k, 0], entry / free[pinned])


def _null_vector(reduced: fmpq_mat, rank: int) -> list[fmpq]:
    """The kernel of a row-reduced matrix of corank 1."""
    size = reduced.ncols()
    pivots = [next(c for c in range(size) if reduced[r, c] != 0) for r in range(rank)]
    free = next(c for c in range(size) if c not in pivots)
    vector = [fmpq(0)] * size
    vector[free] = fmpq(1)
    for row, pivot in enumerate(pivots):
        vector[pivot] = -reduced[row, free]
    return vector


def test_complex_eigenvalues_are_enclosed_too():
    """[[3, −4], [4, 3]]/5: 0.6 ± 0.8i."""
    matrix = _matrix([[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]])
    pairs = [enclose_eigenpair(matrix, *guess) for guess in guesses(matrix)]
    found = [pair.value * 5 for pair in pairs]
    exact = [acb(3, 4), acb(3, -4)]
    assert all(any(ball.contains(value) for ball in found) for value in exact)
    assert all(sum(ball.contains(value) for value in exact) == 1 for ball in found)


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 0], [0, 1]],
        [[1, 1], [0, 1]],
        [[0, 1], [0, 0]],
        [[2, 1, 0], [0, 2, 0], [0, 0, 2]],
        [[1, 0], [0, 1 + Fraction(1, 10**40)]],
    ],
)
def test_a_multiple_eigenvalue_is_refused(rows):
    matrix = _matrix(rows)
    assert all(enclose_eigenpair(matrix, *guess) is None for guess in guesses(matrix))


@pytest.mark.parametrize("value", [1.4, 1.6, 5.0, 1 + 0.4j])
def test_a_guess_far_from_any_eigenvalue_is_refused(value):
    assert enclose_eigenpair(_diagonal([1, 2]), value, np.array([1.0, 0.9])) is None


def test_a_rough_guess_is_enlarged_until_it_contains_or_refused():
    pair = enclose_eigenpair(_diagonal([1, 2]), 1 + 1e-7, np.array([1.0, 1e-7]))
    assert pair is not None
    assert pair.value.contains(acb(1))
    assert not pair.value.contains(acb(2))


@given(integer_matrices())
@settings(max_examples=60, deadline=None)
def test_every_enclosure_is_near_an_eigenvalue_that_numpy_finds(matrix):
    found = np.linalg.eigvals(approximate(matrix))
    for value, vector in guesses(matrix):
        pair = enclose_eigenpair(matrix, value, vector)
        if pair is not None:
            middle = complex(pair.value)
            assert min(abs(found - middle)) < 1e-5 * (1 + abs(middle))


# Hurwitz


@given(integer_matrices())
@settings(max_examples=100, deadline=None)
def test_hurwitz_agrees_with_numpy(matrix):
    abscissa = np.linalg.eigvals(approximate(matrix)).real.max()
    verdict = hurwitz(matrix)
    if abs(abscissa) > 1e-3:
        assert verdict.status is not (Status.HOLDS if abscissa > 0 else Status.FAILS)
    instability = unstable(matrix)
    if abs(abscissa) > 1e-3:
        assert instability.status is not (Status.FAILS if abscissa > 0 else Status.HOLDS)
    if instability.holds:
        assert verdict.fails
        assert _margin(instability.margin) <= abscissa + 1e-6


@given(known_spectra())
@settings(max_examples=60, deadline=None)
def test_hurwitz_is_decided_where_the_eigenvalues_are_distinct(case):
    matrix, values = case
    gap = min((float(a - b) for a, b in itertools.pairwise(values)), default=1.0)
    assume(gap > 1e-2)
    verdict = hurwitz(matrix)
    assert verdict.status is (Status.HOLDS if values[0] < 0 else Status.FAILS)
    assert unstable(matrix).status is (
        Status.HOLDS if values[0] > 0 else Status.UNDECIDED if values[0] == 0 else Status.FAILS
    )


@pytest.mark.parametrize(
    ("rows", "status", "grade", "reason"),
    [
        ([[-1, 2], [-2, -1]], Status.HOLDS, Grade.EXACT, "Lyapunov"),
        ([[1, 0], [0, -1]], Status.FAILS, Grade.EXACT, "trace"),
        ([[0, -1], [1, 0]], Status.FAILS, Grade.EXACT, "trace"),
        ([[0]], Status.FAILS, Grade.EXACT, "0 is an eigenvalue"),
        ([[1, 0], [0, -3]], Status.FAILS, Grade.INTERVAL, "enclosed eigenvalue"),
        ([[1, -2, 0], [2, 1, 0], [0, 0, -3]], Status.FAILS, Grade.INTERVAL, "enclosed eigenvalue"),
        ([[-1, 0], [0, 0]], Status.FAILS, Grade.EXACT, "0 is an eigenvalue"),
        ([[1, 0, 0], [0, 1, 0], [0, 0, -5]], Status.FAILS, Grade.EXACT, "coefficient"),
    ],
)
def test_every_route_of_hurwitz(rows, status, grade, reason):
    verdict = hurwitz(_matrix(rows))
    assert (verdict.status, verdict.grade) == (status, grade)
    assert reason in verdict.reason


def test_a_large_matrix_is_hurwitz_by_a_lyapunov_matrix_of_balls():
    verdict = hurwitz(_similar([-1 - Fraction(k, 8) for k in range(LARGE)]))
    assert verdict.holds
    assert verdict.grade is Grade.INTERVAL
    assert _margin(verdict.margin) == pytest.approx(1, abs=1e-3)


def test_a_large_matrix_is_not_hurwitz_by_an_enclosed_eigenvalue():
    matrix = _similar([Fraction(1, 2), *[-2 - Fraction(k, 8) for k in range(LARGE - 1)]])
    verdict = hurwitz(matrix)
    assert verdict.fails
    assert verdict.grade is Grade.INTERVAL
    assert "0.5" in verdict.reason
    assert unstable(matrix).margin in ("≥ 0.4999", "≥ 0.5")


def test_a_large_matrix_with_a_double_unstable_eigenvalue_stays_undecided():
    """No enclosure of a multiple eigenvalue, a negative trace, and no polynomial at this size."""
    verdict = hurwitz(_diagonal([1, 1, *[-2] * (LARGE - 2)]))
    assert verdict.status is Status.UNDECIDED
    assert unstable(_diagonal([1, 1, *[-2] * (LARGE - 2)])).status is Status.UNDECIDED


def test_an_eigenvalue_on_the_imaginary_axis_is_never_called_hurwitz():
    rotation = [[0, 1, 0], [-1, 0, 0], [0, 0, -1]]
    for entry in (0, Fraction(1, 2**80), Fraction(-1, 2**80)):
        matrix = _matrix(
            [[entry if i == j < 2 else q for j, q in enumerate(r)] for i, r in enumerate(rotation)]
        )
        assert hurwitz(matrix).status is not (Status.HOLDS if entry >= 0 else Status.FAILS)
        assert unstable(matrix).status is not (Status.HOLDS if entry <= 0 else Status.FAILS)


def test_without_a_lyapunov_guess_nothing_is_claimed(monkeypatch):
    monkeypatch.setattr(eigenpairs, "lyapunov_solution", lambda matrix: None)
    assert hurwitz(_matrix([[-1, 2], [-2, -1]])).status is Status.UNDECIDED
    assert unstable(_matrix([[-1, 2], [-2, -1]])).status is Status.UNDECIDED


@pytest.mark.parametrize("factor", [fmpq(1), fmpq(-1), fmpq(0)])
def test_a_wrong_lyapunov_guess_cannot_make_an_unstable_matrix_hurwitz(monkeypatch, factor):
    monkeypatch.setattr(eigenpairs, "lyapunov_solution", lambda m: identity(m.nrows()) * factor)
    assert not hurwitz(_diagonal([-1, 0])).holds
    assert not hurwitz(_matrix([[-3, 100], [100, 1]])).holds


def test_wrong_eigenvalue_guesses_cannot_make_a_wrong_verdict(monkeypatch):
    monkeypatch.setattr(eigenpairs, "eigenpairs", lambda m: [(-1 + 0j, np.ones(m.nrows()))] * m.nrows())
    assert not hurwitz(_diagonal([1, -3])).holds
    assert not unstable(_diagonal([1, -3])).fails
    monkeypatch.setattr(eigenpairs, "eigenpairs", lambda m: [(2 + 0j, np.ones(m.nrows()))] * m.nrows())
    assert not hurwitz(_diagonal([-1, -3])).fails
    assert not unstable(_diagonal([-1, -3])).holds


@pytest.mark.parametrize(
    ("rows", "status", "grade"),
    [
        ([[2, 0], [0, -5]], Status.HOLDS, Grade.INTERVAL),
        ([[1, 0], [0, 1]], Status.HOLDS, Grade.EXACT),  # double: by the trace
        ([[1, 1], [0, 1]], Status.HOLDS, Grade.EXACT),
        ([[-1, 0], [0, -2]], Status.FAILS, Grade.EXACT),
        ([[0, 1], [-1, 0]], Status.UNDECIDED, None),
        ([[0, 0], [0, -1]], Status.UNDECIDED, None),
    ],
)
def test_every_route_of_unstable(rows, status, grade):
    verdict = unstable(_matrix(rows))
    assert verdict.status is status
    assert grade is None or verdict.grade is grade


@pytest.mark.parametrize("size", [2, LARGE])
def test_entries_that_overflow_floats_never_mislead_or_crash(size):
    huge = identity(size) * fmpq(10) ** 400
    assert not hurwitz(-huge).fails
    assert not hurwitz(huge).holds
    assert not unstable(huge).fails
    assert not unstable(-huge).holds
    assert not positive_eigenvalue(huge).fails
    assert not positive_eigenvalue(-huge).holds


# Real positive eigenvalues


@given(integer_matrices())
@settings(max_examples=100, deadline=None)
def test_positive_eigenvalues_agree_with_numpy(matrix):
    found = np.linalg.eigvals(approximate(matrix))
    real = [z.real for z in found if abs(z.imag) < 1e-12 and abs(z.real) > 1e-3]
    verdict = positive_eigenvalue(matrix)
    assert verdict.status is not Status.UNDECIDED
    assert verdict.grade is Grade.EXACT
    simple = (
        len(found) == 1 or min(abs(a - b) for i, a in enumerate(found) for b in found[i + 1 :]) > 1e-3
    )  # floats split multiple real eigenvalues into complex pairs
    if simple:
        assert verdict.holds == any(z > 0 for z in real)
    if simple and verdict.holds:
        assert _margin(verdict.margin) == pytest.approx(max(real), rel=1e-3)


@pytest.mark.parametrize(
    ("rows", "largest"),
    [
        ([[0, 2], [1, 0]], 2**0.5),
        ([[1, 1], [0, 1]], 1),
        ([[0, 1], [0, 0]], None),
        ([[0, -1], [1, 0]], None),
        ([[-1]], None),
        ([[0]], None),
        ([[Fraction(1, 2**60), 0], [0, 0]], 2.0**-60),
        ([[0, Fraction(1, 2**79)], [1, 0]], 2.0**-39.5),
        ([[Fraction(-6, 2**60), Fraction(-1, 2**60)], [Fraction(1, 2**60), 0]], None),
        ([[3, 0, 0], [0, 3, 0], [0, 0, -1]], 3),
    ],
)
def test_small_matrices_by_sturm(rows, largest):
    verdict = positive_eigenvalue(_matrix(rows))
    assert verdict.grade is Grade.EXACT
    assert verdict.status is (Status.FAILS if largest is None else Status.HOLDS)
    assert "Sturm" in verdict.reason
    if largest and largest > 1e-6:
        assert _margin(verdict.margin) == pytest.approx(largest, rel=1e-3)


def test_a_large_matrix_by_an_enclosed_real_eigenvalue():
    verdict = positive_eigenvalue(
        _similar([Fraction(7, 4), *[-1 - Fraction(k, 8) for k in range(LARGE - 1)]])
    )
    assert verdict.holds
    assert verdict.grade is Grade.INTERVAL
    assert _margin(verdict.margin) == 1.749  # rounded down


def test_a_large_matrix_without_one_is_undecided_never_refuted():
    complex_pair = [[1 if i == j < 2 else -2 if i == j else 0 for j in range(LARGE)] for i in range(LARGE)]
    complex_pair[0][1], complex_pair[1][0] = -1, 1  # 1 ± i
    double = _diagonal([1, 1, *[-2] * (LARGE - 2)])
    negative = _diagonal([-1 - Fraction(k, 8) for k in range(LARGE)])
    for matrix in (_matrix(complex_pair), double, negative):
        assert positive_eigenvalue(matrix).status is Status.UNDECIDED


# Balls around all eigenvalues


@given(integer_matrices(max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_balls_of_all_eigenvalues_contain_them(matrix):
    balls = eigenvalues(matrix)
    assert len(balls) == matrix.nrows()
    polynomial = list(matrix.charpoly())
    for ball in balls:
        value = sum((acb(c) * ball**k for k, c in enumerate(polynomial)), acb(0))
        assert value.contains(0) or not ball.is_finite()
    for root in np.linalg.eigvals(approximate(matrix)):
        assert any(
            abs(complex(ball.mid()) - root) <= float(ball.rad()) + 1e-4 for ball in balls if ball.is_finite()
        ) or not all(ball.is_finite() for ball in balls)


@pytest.mark.parametrize("rows", [[[0, 1], [0, 0]], [[0, 1, 0], [0, 0, 1], [0, 0, 0]]])
def test_eigenvalues_that_flint_cannot_isolate_are_undefined_balls(rows):
    for ball in eigenvalues(_matrix(rows)):
        assert not ball.real > 0
        assert not ball.real < 0
        assert not ball.is_finite()


@given(st.lists(st.fractions(-5, 5, max_denominator=7), min_size=1, max_size=3), st.data())
@settings(max_examples=50, deadline=None)
def test_the_smallest_eigenvalue_of_a_pencil(values, data):
    size = len(values)
    lower = _matrix([[data.draw(SMALL) if j < i else int(i == j) for j in range(size)] for i in range(size)])
    metric = lower * lower.transpose()
    ball = pencil_minimum(lower * _diagonal(values) * lower.transpose(), metric)
    smallest = min(values)
    assert _contains(ball, smallest) or not ball.is_finite()
    if len(set(values)) == size:
        assert float(ball.rad()) < 1e-20


# Proposals


def test_a_lyapunov_guess_solves_the_equation():
    matrix = _matrix([[-1, 2], [-3, -4]])
    guess = approximate(lyapunov_solution(matrix))
    v = approximate(matrix)
    np.testing.assert_allclose(guess @ v + v.T @ guess, -np.eye(2), atol=1e-12)


def test_a_singular_lyapunov_equation_has_no_guess():
    """Eigenvalues 1 and −1 add up to 0, so the equation has no solution; above 24 rows likewise."""
    assert lyapunov_solution(_matrix([[1, 0], [0, -1]])) is None


@pytest.mark.parametrize("size", [3, 30])
def test_lyapunov_guesses_solve_the_equation_for_small_and_large_matrices(size):
    matrix = np.random.default_rng(1).integers(-3, 3, (size, size)) - 20 * np.eye(size, dtype=int)
    guess = np.array(lyapunov_solution(_matrix(matrix.tolist())).table(), dtype=float)
    np.testing.assert_allclose(guess @ matrix + matrix.T @ guess, -np.eye(size), atol=1e-10)


def test_a_defective_hurwitz_matrix_is_proved_hurwitz():
    for rows in ([[-1, 1], [0, -1]], [[-1, 1, 0], [0, -1, 1], [0, 0, -1]]):
        assert hurwitz(_matrix(rows)).holds
