"""Weights become rationals exactly; anything else is refused with the argument's name and the fix."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from theory.errors import InputError
from theory.weights import Weights, identity, rational_matrix, symmetric_part

EYE = [[1, 0], [0, 1]]


def _floats(matrix: fmpq_mat) -> np.ndarray:
    return np.array([[float(Fraction(int(q.p), int(q.q))) for q in row] for row in matrix.tolist()])


@pytest.mark.parametrize(
    ("values", "got"),
    [
        ([[1, 2], [3]], "ragged"),
        ([], r"shape \(0,\)"),
        ([[]], r"shape \(1, 0\)"),
        (np.zeros((0, 3)), r"shape \(0, 3\)"),
        ([1, 2], r"shape \(2,\)"),
        (3, r"shape \(\)"),
        ([[[1]]], r"shape \(1, 1, 1\)"),
        (np.zeros((2, 2, 2)), r"shape \(2, 2, 2\)"),
        ([[1j, 0], [0, 1]], "dtype complex128"),
        ([["1", "2"]], "dtype <U1"),
        (np.array([["1/2", 1]], dtype=object), "'1/2' is a string"),
        ([[None, 1]], "an entry that is not a finite number"),
        ([[Fraction(1, 2), 1j]], "an entry that is not a finite number"),
        ([[Fraction(1, 2), float("nan")]], "an entry that is not a finite number"),
        ([[Fraction(1, 2), float("inf")]], "an entry that is not a finite number"),
        ([[1, float("nan")]], r"nan at \(0, 1\)"),
        (np.array([[1, 2], [-np.inf, 4]], dtype=np.float32), r"-inf at \(1, 0\)"),
        (np.array([["2020-01-01"]], dtype="datetime64[D]"), "dtype datetime64"),
    ],
)
def test_what_is_not_a_real_matrix_is_refused(values, got):
    with pytest.raises(InputError, match=rf"^query: got .*{got}.*expected .*Fix: ") as caught:
        rational_matrix("query", values)
    assert caught.value.argument == "query"


@pytest.mark.parametrize(
    "error", [TypeError("Got unsupported ScalarType BFloat16"), RuntimeError("requires grad")]
)
def test_a_tensor_that_numpy_cannot_read_is_refused_with_the_way_out(error):
    class Tensor:
        def __array__(self, *args, **kwargs):
            raise error

    with pytest.raises(InputError, match=r"value: got an array that NumPy cannot read.*detach"):
        Weights.of(EYE, Tensor())


def test_an_input_error_is_a_value_error_with_parts():
    with pytest.raises(ValueError, match="value"):
        Weights.of(EYE, [[1, 2, 3]])
    error = InputError("a", got="b", expected="c", fix="d")
    assert (error.argument, error.got, error.expected, error.fix) == ("a", "b", "c", "d")
    assert str(error) == "a: got b; expected c. Fix: d"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_stored_float_is_represented_exactly(dtype):
    stored = np.array([[0.1, -2.5e-5], [3.0, 1 / 3]], dtype=dtype)
    for mine, entry in zip(rational_matrix("m", stored).entries(), stored.ravel(), strict=True):
        exact = Fraction(float(entry))
        assert mine == fmpq(exact.numerator, exact.denominator)


@given(
    arrays(
        np.float32,
        array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
@settings(max_examples=50, deadline=None)
def test_every_finite_float_comes_back(stored):
    np.testing.assert_array_equal(_floats(rational_matrix("m", stored)), stored.astype(np.float64))


def test_integers_fractions_and_matrices_are_taken_as_they_are():
    big = 3 * 2**80 + 1
    assert rational_matrix("m", [[big, -7]]).entries() == [big, -7]
    assert rational_matrix("m", [[Fraction(1, 3), 0.5]]).entries() == [fmpq(1, 3), fmpq(1, 2)]
    assert rational_matrix("m", np.array([[True, False]])).entries() == [1, 0]
    assert rational_matrix("m", np.array([[np.float32(0.1)]], dtype=object))[0, 0] == fmpq(
        *np.float32(0.1).item().as_integer_ratio()
    )
    given_already = fmpq_mat(1, 2, [fmpq(1, 3), 2])
    assert rational_matrix("m", given_already) is given_already


def test_one_row_and_one_entry():
    assert rational_matrix("m", [[1, 2, 3]]).ncols() == 3
    weights = Weights.of([[2]], [[3]])
    assert weights.dim == 1
    assert weights.response_form == fmpq_mat(1, 1, [fmpq(2, 3)])
    single = Weights.from_projections([[1, 2]], [[3, 4]], EYE)  # d_k = 1
    assert single.form.tolist() == [[3, 4], [6, 8]]
    assert single.scale_squared == 1


def test_helpers():
    assert identity(2).tolist() == [[1, 0], [0, 1]]
    assert symmetric_part(fmpq_mat(2, 2, [1, 2, 5, 4])).tolist() == [[1, fmpq(7, 2)], [fmpq(7, 2), 4]]


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: Weights.of([[1, 2]], EYE), "form"),
        (lambda: Weights.of(EYE, [[1, 2, 3], [4, 5, 6]]), "value"),
        (lambda: Weights.of(EYE, [[1]]), "value"),
        (lambda: Weights.from_projections([[1, 2]], [[1, 2], [3, 4]], EYE), "key"),
        (lambda: Weights.from_projections([[1, 2]], [[1, 2, 3]], EYE), "key"),
        (lambda: Weights.from_projections([[1, 2]], [[3, 4]], [[1, 2]]), "value"),
        (lambda: Weights.from_projections([[1, 2]], [[3, 4]], [[1]]), "value"),
        (lambda: Weights.from_projections([[1, 2], [3]], [[1, 2]], EYE), "query"),
        (lambda: Weights.from_projections(EYE, [[1j, 0], [0, 1]], EYE), "key"),
        (lambda: Weights.from_projections(EYE, EYE, [[1, np.nan], [0, 1]]), "value"),
        (lambda: Weights.from_response(EYE, [[1, 1], [1, 1]]), "response"),
        (lambda: Weights.from_response(EYE, [[1, 2, 3], [4, 5, 6]]), "response"),
        (lambda: Weights.from_response(EYE, [[1]]), "response"),
        (lambda: Weights.from_response([[1, 2, 3], [4, 5, 6]], EYE), "form"),
    ],
)
def test_mismatched_matrices_are_refused_by_name(build, argument):
    with pytest.raises(InputError, match=f"^{argument}: got .*Fix: ") as caught:
        build()
    assert caught.value.argument == argument


def test_a_singular_response_is_told_from_a_mismatched_one():
    with pytest.raises(InputError, match="singular"):
        Weights.from_response(EYE, [[1, 1], [1, 1]])
    with pytest.raises(InputError, match="mismatched"):
        Weights.from_response(EYE, [[1]])


@pytest.mark.parametrize(
    "scale", [0, -1, -0.5, float("nan"), float("inf"), 1j, "0.5", np.float32(-1), fmpq(-1, 2)]
)
def test_a_scale_that_is_not_positive_and_finite_is_refused(scale):
    with pytest.raises(InputError, match=r"^scale: got .*positive finite.*leave it out"):
        Weights.from_projections(EYE, EYE, EYE, scale)


@pytest.mark.parametrize("scale", [0.5, Fraction(1, 2), fmpq(1, 2), np.float32(0.5), np.float64(0.5)])
def test_a_positive_scale_of_any_type_is_taken(scale):
    weights = Weights.from_projections(EYE, EYE, EYE, scale)
    assert weights.scale_squared == fmpq(1, 4)
    assert weights.scale.contains(arb(fmpq(1, 2)))


def test_the_default_scale_is_one_over_the_root_of_the_rows():
    weights = Weights.from_projections([[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1], [0, 0]], EYE)
    assert weights.scale_squared == fmpq(1, 3)
    assert (weights.scale**2 * 3).contains(1)


def test_scores_are_query_transposed_times_key():
    """The convention trap: W = QᵀK, not QKᵀ."""
    q, k = np.array([[1, 2], [3, 4]]), np.array([[0, 1], [5, 6]])
    np.testing.assert_array_equal(_floats(Weights.from_projections(q, k, EYE).form), q.T @ k)
    assert not np.array_equal(q.T @ k, q @ k.T)


def test_the_response_does_not_depend_on_the_scale():
    """A/scale is kept, so two scales give the same forms: no sign condition can see the scale."""
    q, k, v = [[1, 2], [3, 5]], [[2, 1], [0, 1]], [[1, 4], [2, 1]]
    one, two = (Weights.from_projections(q, k, v, scale) for scale in (1, Fraction(7, 3)))
    assert one.form == two.form
    assert one.response_form == two.response_form
    assert one.congruent_response == two.congruent_response


@pytest.mark.parametrize(
    ("dtype", "roundoff"),
    [
        (np.float16, fmpq(1, 2**11)),
        (np.float32, fmpq(1, 2**24)),
        (np.float64, fmpq(1, 2**53)),
        (np.int64, fmpq(0)),
    ],
)
def test_the_unit_roundoff_is_that_of_the_stored_type(dtype, roundoff):
    eye = np.eye(2, dtype=dtype)
    assert Weights.from_projections(eye, eye, eye).unit_roundoff == roundoff
    assert Weights.from_projections(np.eye(2, dtype=np.int64), eye, EYE).unit_roundoff == roundoff


def test_the_coarsest_type_decides_the_roundoff_and_exact_input_has_none():
    coarse, fine = np.eye(2, dtype=np.float32), np.eye(2)
    assert Weights.from_projections(fine, coarse, fine).unit_roundoff == fmpq(1, 2**24)
    assert Weights.from_projections([[1.0]], [[1]], [[1]]).unit_roundoff == fmpq(1, 2**53)
    assert Weights.from_projections([[Fraction(1, 3)]], [[1]], [[1]]).unit_roundoff == 0
    assert Weights.from_projections(fmpq_mat(1, 1, [1]), [[1]], [[1]]).unit_roundoff == 0
    assert Weights.of(fine, fine).unit_roundoff == 0


@given(
    arrays(np.int64, (3, 3), elements=st.integers(-4, 4)),
    arrays(np.int64, (3, 3), elements=st.integers(-4, 4)),
)
@settings(max_examples=60, deadline=None)
def test_the_response_undoes_the_value_map(form, value):
    weights = Weights.of(form, value)
    assert weights.response_exists == (round(np.linalg.det(value)) != 0)
    assert weights.congruent_response == rational_matrix("m", value.T @ form)
    if weights.response_exists:
        assert weights.response_form * weights.value == weights.form
        back = Weights.from_response(form, weights.response_form) if weights.form.det() != 0 else None
        assert back is None or back.value == weights.value


def test_a_singular_value_map_has_no_response():
    weights = Weights.of(EYE, [[1, 2], [2, 4]])
    assert not weights.response_exists
    with pytest.raises(ZeroDivisionError):
        _ = weights.response_form


def test_integers_beside_floats_in_a_list_are_not_rounded():
    assert rational_matrix("m", [[2**53 + 1, 0.5], [2**63 + 1, -1]]).entries() == [
        2**53 + 1,
        fmpq(1, 2),
        2**63 + 1,
        -1,
    ]
