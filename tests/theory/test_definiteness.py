"""Signs of symmetric matrices: prescribed inertia, SymPy as oracle, margins that really bound."""

import itertools
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from fractions import Fraction

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sympy import Matrix, Rational

from theory import definiteness, proposals
from theory.definiteness import (
    EXACT_SIZE,
    Inertia,
    decimal,
    decimal_bound,
    inertia,
    positive_definite,
    rayleigh_quotient,
)
from theory.verdict import Grade, Status
from theory.weights import identity, rational_matrix, symmetric_part

SMALL = st.integers(-3, 3)
FRACTIONS = st.fractions(-4, 4, max_denominator=9)


def _matrix(rows) -> fmpq_mat:
    return rational_matrix("m", rows)


def _floats(matrix: fmpq_mat) -> np.ndarray:
    return np.array([[float(Fraction(int(q.p), int(q.q))) for q in row] for row in matrix.tolist()])


def _margin(text: str) -> float:
    return float(text.split()[-1])


def _diagonal(entries) -> fmpq_mat:
    size = len(entries)
    return _matrix([[entries[i] if i == j else 0 for j in range(size)] for i in range(size)])


def _unit_triangular(draw, size: int) -> fmpq_mat:
    return _matrix(
        [[draw(SMALL) if j < i else Fraction(int(i == j)) for j in range(size)] for i in range(size)]
    )


@st.composite
def congruences(draw, max_size: int = 6):
    """P L D Lᵀ Pᵀ with the diagonal D at hand: its inertia by Sylvester's law."""
    size = draw(st.integers(1, max_size))
    diagonal = [draw(FRACTIONS) for _ in range(size)]
    lower = _unit_triangular(draw, size)
    order = draw(st.permutations(range(size)))
    moved = _matrix([[int(order[i] == j) for j in range(size)] for i in range(size)]) * lower
    return moved * _diagonal(diagonal) * moved.transpose(), diagonal


@st.composite
def symmetric_matrices(draw, max_size: int = 4):
    size = draw(st.integers(1, max_size))
    full = _matrix([[draw(SMALL) for _ in range(size)] for _ in range(size)])
    return full + full.transpose()


@given(congruences())
@settings(max_examples=100, deadline=None)
def test_the_inertia_is_the_prescribed_one(case):
    matrix, diagonal = case
    signs = [(q > 0) - (q < 0) for q in diagonal]
    assert inertia(matrix) == (Inertia(signs.count(1), signs.count(-1), signs.count(0)), Grade.EXACT)


@st.composite
def hollow_matrices(draw):
    """Zero diagonal: pairs [[0, a], [a, 0]] (and zeros) under a permutation need 2×2 pivots."""
    pairs = draw(st.lists(SMALL, min_size=1, max_size=3))
    size = 2 * len(pairs)
    order = draw(st.permutations(range(size)))
    rows = [[Fraction(0)] * size for _ in range(size)]
    for number, entry in enumerate(pairs):
        i, j = order[2 * number], order[2 * number + 1]
        rows[i][j] = rows[j][i] = Fraction(entry)
    return _matrix(rows), sum(1 for entry in pairs if entry)


@given(hollow_matrices())
@settings(max_examples=50, deadline=None)
def test_a_zero_diagonal_takes_two_by_two_pivots(case):
    matrix, regular = case
    assert inertia(matrix) == (Inertia(regular, regular, matrix.nrows() - 2 * regular), Grade.EXACT)


@given(symmetric_matrices())
@settings(max_examples=60, deadline=None)
def test_inertia_and_definiteness_agree_with_sympy(matrix):
    """Descartes' rule is exact for a characteristic polynomial with real roots only."""
    oracle = Matrix(matrix.nrows(), matrix.nrows(), [Rational(int(q.p), int(q.q)) for q in matrix.entries()])
    coefficients = oracle.charpoly().all_coeffs()
    zero = next(k for k, c in enumerate(reversed(coefficients)) if c != 0)
    nonzero = [c for c in coefficients if c != 0]
    positive = sum(1 for p, q in itertools.pairwise(nonzero) if p * q < 0)
    found, grade = inertia(matrix)
    assert grade is Grade.EXACT
    assert found == Inertia(positive, matrix.nrows() - positive - zero, zero)
    verdict = positive_definite(matrix)
    minors = [oracle[:k, :k].det() > 0 for k in range(1, matrix.nrows() + 1)]
    assert verdict.status is (Status.HOLDS if all(minors) else Status.FAILS)
    assert verdict.grade is Grade.EXACT


@given(congruences(max_size=5))
@settings(max_examples=80, deadline=None)
def test_the_margin_bounds_the_smallest_eigenvalue(case):
    matrix, _ = case
    verdict = positive_definite(matrix)
    smallest = np.linalg.eigvalsh(_floats(matrix))[0]
    slack = 1e-9 * max(1, np.abs(_floats(matrix)).max())
    if verdict.holds and verdict.margin != "> 0":
        assert verdict.margin.startswith("≥ ")
        assert 0 < _margin(verdict.margin) <= smallest + slack
        assert _margin(verdict.margin) >= 0.99 * smallest - slack  # a bound, and a useful one
    elif verdict.fails and verdict.margin != "≤ 0":
        assert verdict.margin.startswith("≤ ")
        assert smallest - slack <= _margin(verdict.margin) < 0
        assert "known exactly" in verdict.reason
    assert verdict.holds == (smallest > 0) or abs(smallest) < slack


@given(congruences(max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_against_a_metric_the_margin_bounds_the_pencil(case, data):
    matrix, diagonal = case
    size = matrix.nrows()
    root = _unit_triangular(data.draw, size)
    metric = root * _diagonal([data.draw(st.integers(1, 5)) for _ in range(size)]) * root.transpose()
    verdict = positive_definite(matrix, metric)
    assert verdict.holds == all(q > 0 for q in diagonal)
    values = np.linalg.eigvals(np.linalg.solve(_floats(metric), _floats(matrix))).real
    if verdict.holds and verdict.margin != "> 0":
        assert 0 < _margin(verdict.margin) <= values.min() * (1 + 1e-6)
    if verdict.fails and verdict.margin != "≤ 0":
        assert values.min() - 1e-6 * (1 + abs(values).max()) <= _margin(verdict.margin) < 0


def test_the_margin_is_in_multiples_of_the_unit_and_rounded_to_the_safe_side():
    third = arb(1) / 3
    assert positive_definite(_matrix([[2, 1], [1, 2]])).margin == "≥ 1"
    assert positive_definite(_matrix([[2, 1], [1, 2]]), unit=third).margin == "≥ 0.3333"
    assert positive_definite(_matrix([[1, 2], [2, 1]]), unit=third).margin == "≤ -0.3333"
    assert positive_definite(-identity(2), unit=2).margin == "≤ -2"


@pytest.mark.parametrize(
    ("rows", "status", "margin"),
    [
        ([[1]], Status.HOLDS, "≥ 1"),
        ([[0]], Status.FAILS, "≤ 0"),
        ([[-1]], Status.FAILS, "≤ -1"),
        ([[1, 1], [1, 1]], Status.FAILS, None),  # singular: semidefinite is not definite
        ([[0, 0], [0, 0]], Status.FAILS, "≤ 0"),
        ([[0, 1], [1, 0]], Status.FAILS, "≤ -1"),
        ([[1, 1, 0], [1, 1, 0], [0, 0, 1]], Status.FAILS, None),
    ],
)
def test_known_matrices(rows, status, margin):
    verdict = positive_definite(_matrix(rows))
    assert verdict.status is status
    assert verdict.grade is Grade.EXACT
    assert margin is None or verdict.margin == margin


@pytest.mark.parametrize("sign", [1, 0, -1])
def test_a_borderline_far_below_float_resolution_is_decided_exactly(sign):
    """[[1, 1], [1, 1 + ε]] with |ε| = 2⁻²⁰⁰: floats see a singular matrix, the rationals see the sign."""
    verdict = positive_definite(_matrix([[1, 1], [1, 1 + Fraction(sign, 2**200)]]))
    assert verdict.status is (Status.HOLDS if sign > 0 else Status.FAILS)
    assert verdict.grade is Grade.EXACT
    assert verdict.margin in ({"> 0"} if sign > 0 else {"≤ 0"}) or sign < 0


@pytest.mark.parametrize("size", [2, EXACT_SIZE + 1])
@pytest.mark.parametrize("scale", [fmpq(10) ** 400, fmpq(1, 10**400)])
def test_entries_outside_the_range_of_floats(size, scale):
    big = (identity(size) * 2 + _matrix([[1] * size] * size)) * scale
    assert positive_definite(big).holds
    assert positive_definite(-big).fails
    assert inertia(-big)[0] == Inertia(0, size, 0)


def test_an_ill_conditioned_metric_does_not_mislead():
    form, metric = _matrix([[1, 0], [0, 1]]), _matrix([[1, 1], [1, 1 + Fraction(1, 2**200)]])
    verdict = positive_definite(form, metric)
    assert verdict.holds
    assert verdict.margin == "> 0"
    assert positive_definite(-form, metric).fails


# Above EXACT_SIZE, where balls take over


def _large(diagonal) -> fmpq_mat:
    """A congruence of the diagonal that mixes its first entry with all the others."""
    size = len(diagonal)
    random = np.random.default_rng(0)
    upper = np.triu(random.integers(-1, 2, (size, size)), 1) / 8 + np.eye(size)
    left = rational_matrix("m", upper)
    return left * _diagonal(diagonal) * left.transpose()


LARGE = EXACT_SIZE + 6


def test_large_definite_matrices_hold_by_balls_with_a_margin_that_bounds():
    matrix = _large([1 + k % 5 for k in range(LARGE)])
    verdict = positive_definite(matrix)
    assert verdict.holds
    assert verdict.grade is Grade.INTERVAL
    smallest = np.linalg.eigvalsh(_floats(matrix))[0]
    assert 0.99 * smallest <= _margin(verdict.margin) <= smallest * (1 + 1e-9)


def test_large_indefinite_matrices_fail_by_an_exact_witness():
    matrix = _large([-1, *[2] * (LARGE - 1)])
    verdict = positive_definite(matrix)
    assert verdict.fails
    assert verdict.grade is Grade.EXACT
    assert _margin(verdict.margin) >= np.linalg.eigvalsh(_floats(matrix))[0] * (1 + 1e-9)
    assert positive_definite(-matrix).fails


@pytest.mark.parametrize("negative", [0, 7, LARGE])
def test_the_inertia_of_large_matrices(negative):
    matrix = _large([-3] * negative + [2] * (LARGE - negative))
    assert inertia(matrix) == (Inertia(LARGE - negative, negative, 0), Grade.INTERVAL)


def test_a_large_eigenvalue_below_float_resolution_is_still_decided_by_wider_balls():
    """One eigenvalue of about 2⁻¹⁵⁰: no dominance, but LDLᵀ at 768 bits separates it from zero."""
    for sign in (1, -1):
        matrix = _large([Fraction(sign, 2**150), *[1] * (LARGE - 1)])
        found, grade = inertia(matrix)
        assert found == Inertia(LARGE - (sign < 0), int(sign < 0), 0)
        assert grade is Grade.INTERVAL
        assert positive_definite(matrix).status is (Status.HOLDS if sign > 0 else Status.FAILS)


def test_a_large_singular_matrix_stays_undecided():
    """A zero pivot is a ball around zero: nothing separates it, at any precision."""
    matrix = _large([0, *[Fraction(1, 3)] * (LARGE - 1)])
    assert inertia(matrix) is None
    verdict = positive_definite(matrix)
    assert verdict.status is Status.UNDECIDED
    assert "highest precision" in verdict.reason


def test_a_large_zero_matrix_is_seen_to_be_zero():
    zero = fmpq_mat(LARGE, LARGE)
    assert inertia(zero) == (Inertia(0, 0, LARGE), Grade.INTERVAL)
    assert positive_definite(zero).fails


def test_too_little_precision_is_undecided_not_wrong(monkeypatch):
    matrix = _large([Fraction(1, 2**150), *[1] * (LARGE - 1)])
    monkeypatch.setattr(definiteness, "BALL_PRECISIONS", (64,))
    assert inertia(matrix) is None
    assert positive_definite(matrix).status is Status.UNDECIDED


def test_large_hollow_matrices_take_two_by_two_pivots_of_balls(monkeypatch):
    monkeypatch.setattr(definiteness, "EXACT_SIZE", 1)
    monkeypatch.setattr(definiteness, "_by_congruence", lambda matrix: None)
    assert inertia(_matrix([[0, 3], [3, 0]])) == (Inertia(1, 1, 0), Grade.INTERVAL)


# The floats only propose


def _refuse(*_):
    raise np.linalg.LinAlgError("no convergence")


@pytest.mark.parametrize("rows", [[[2, 1], [1, 2]], [[1, 2], [2, 1]], [[1, 1], [1, 1]]])
def test_when_the_floats_give_up_the_proof_remains(monkeypatch, rows):
    expected = positive_definite(_matrix(rows)).status
    monkeypatch.setattr(definiteness, "smallest_pencil_eigenpair", _refuse)
    verdict = positive_definite(_matrix(rows))
    assert verdict.status is expected
    assert verdict.grade is Grade.EXACT


@pytest.mark.parametrize("guess", [fmpq(100), fmpq(1, 100), fmpq(0), fmpq(-100)])
@pytest.mark.parametrize("vector", [[1, 0], [1, -1], [1, 1]])
@pytest.mark.parametrize("rows", [[[2, 1], [1, 2]], [[1, 2], [2, 1]], [[1, -1], [-1, 1]], [[-1, 0], [0, -1]]])
def test_a_wrong_proposal_cannot_make_a_wrong_verdict(monkeypatch, rows, vector, guess):
    matrix = _matrix(rows)
    smallest = np.linalg.eigvalsh(_floats(matrix))[0]
    proposal = (guess, _matrix([[q] for q in vector]))
    monkeypatch.setattr(definiteness, "smallest_pencil_eigenpair", lambda form, metric: proposal)
    verdict = positive_definite(matrix)
    assert verdict.status is (Status.HOLDS if smallest > 1e-9 else Status.FAILS)
    if verdict.margin[2:] not in ("", "0"):
        bound = _margin(verdict.margin)
        assert bound <= smallest if verdict.holds else bound >= smallest - 1e-12


def test_when_the_floats_give_up_on_a_large_matrix_balls_factor_it(monkeypatch):
    monkeypatch.setattr(definiteness, "eigenpairs", _refuse)
    matrix = _large([-1, *[2] * (LARGE - 1)])
    assert inertia(matrix) == (Inertia(LARGE - 1, 1, 0), Grade.INTERVAL)


def test_a_wrong_congruence_proves_nothing(monkeypatch):
    """Rows that are not independent cannot make a dominant diagonal."""
    matrix = _large([2] * LARGE)
    real = proposals.eigenpairs(matrix)
    monkeypatch.setattr(definiteness, "eigenpairs", lambda m: [real[0]] * LARGE)
    assert inertia(matrix) == (Inertia(LARGE, 0, 0), Grade.INTERVAL)  # by LDLᵀ


# Helpers for people


@given(st.fractions(-(10**9), 10**9, max_denominator=10**9))
@settings(max_examples=100, deadline=None)
def test_a_printed_bound_is_a_bound(value):
    exact = fmpq(value.numerator, value.denominator)
    low, high = (Fraction(decimal_bound(exact, r)) for r in (ROUND_FLOOR, ROUND_CEILING))
    assert low <= value <= high
    assert high - low <= abs(value) * Fraction(1, 400)


def test_a_printed_bound_of_a_wide_ball_covers_the_ball():
    low, high = (Decimal(decimal_bound(arb(1, 0.25), rounding)) for rounding in (ROUND_FLOOR, ROUND_CEILING))
    assert Decimal("0.749") < low <= Decimal("0.75") < Decimal("1.25") <= high < Decimal("1.252")
    assert decimal(fmpq(1, 3)) == "0.3333"
    assert decimal(fmpq(2, 3), 2) == "0.67"


@given(symmetric_matrices(), st.data())
@settings(max_examples=30, deadline=None)
def test_the_rayleigh_quotient_is_exact(matrix, data):
    entries = [data.draw(FRACTIONS) for _ in range(matrix.nrows())]
    assume(any(entries))
    vector = _matrix([[q] for q in entries])
    oracle = Matrix(matrix.nrows(), matrix.nrows(), [Rational(int(q.p), int(q.q)) for q in matrix.entries()])
    u = Matrix([Rational(q.numerator, q.denominator) for q in entries])
    expected = (u.T * oracle * u)[0] / (u.T * u)[0]
    found = rayleigh_quotient(matrix, identity(matrix.nrows()), vector)
    assert Rational(int(found.p), int(found.q)) == expected
    assert symmetric_part(matrix) == matrix
