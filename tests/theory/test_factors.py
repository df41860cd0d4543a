"""What is proved of a layer from its factors, against rationals and Arb balls that share no code with it."""

from fractions import Fraction

import numpy as np
import pytest
from flint import arb, fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.high_precision import arb_eigenvalues, exact_inertia, rationals
from theory.factors import Factors, Signs
from theory.verdict import Grade, Verdict

SIZE = 32
"""Beyond what is decided in rationals, and small enough for Arb's eigenvalues."""


def single(seed: int, size: int, heads: int, sharing: int, width: int) -> Factors:
    """Gaussian float32 factors; `sharing` heads have the same keys and values."""
    generator = np.random.default_rng(seed)

    def gaussian(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32).astype(float)

    key, value = (
        np.repeat(gaussian(heads // sharing, 1, width, size), sharing, 1).reshape(-1, size) for _ in range(2)
    )
    query, output = gaussian(heads * width, size), gaussian(size, heads * width)
    return Factors(query, key, value, output, fmpq(1, width), heads, sharing)


def forms(factors: Factors) -> tuple[fmpq_mat, fmpq_mat]:
    """(QᵀK)_s and V in rationals, from the expanded factors."""
    query, key, value, output = map(rationals, (factors.query, factors.key, factors.value, factors.output))
    form = query.transpose() * key
    return (form + form.transpose()) * fmpq(1, 2), output * value


def bound(verdict: Verdict) -> fmpq:
    return fmpq(*Fraction(verdict.margin.split()[-1]).as_integer_ratio())


def assert_margin(verdict: Verdict, smallest: arb, what: str) -> None:
    """The margin bounds the smallest eigenvalue from the right side, and closely (four digits)."""
    margin = arb(bound(verdict))
    if verdict.holds:
        assert margin <= smallest, what
        assert smallest > 0
    else:
        assert verdict.fails
        assert margin >= smallest, what
        assert not smallest > 0
    assert abs(margin - smallest) <= abs(smallest) * arb("1e-3") + arb("1e-30"), what


def assert_signs(signs: Signs, form: fmpq_mat, scale: arb) -> None:
    counts, grade = signs.inertia
    assert (counts.positive, counts.negative, counts.zero) == exact_inertia(form)
    assert grade in (Grade.INTERVAL, Grade.EXACT)
    if exact_inertia(form)[2] <= 1:  # Arb separates no multiple zeros
        values = sorted((value.real for value in arb_eigenvalues(form)), key=float)
        assert_margin(signs.positive, values[0] * scale, "the smallest eigenvalue")
        assert_margin(signs.negative, -values[-1] * scale, "the largest eigenvalue")


CASES = [(SIZE, 1, 1, 32), (SIZE, 4, 1, 8), (SIZE, 4, 2, 8), (SIZE, 6, 3, 4), (40, 2, 1, 20), (SIZE, 1, 1, 8)]


@pytest.mark.parametrize(("size", "heads", "sharing", "width"), CASES)
@pytest.mark.parametrize("seed", range(3))
def test_everything_proved_is_confirmed_at_high_precision(
    seed: int, size: int, heads: int, sharing: int, width: int
):
    factors = single(seed, size, heads, sharing, width)
    form, value = forms(factors)
    scale = arb(factors.scale_squared).sqrt()
    assert_signs(factors.scores, form, scale)
    singular = value.rank() < size
    assert factors.singular == singular
    if singular:
        assert factors.response is None
    else:
        assert_signs(factors.response, response_part(factors), scale)
    assert_values(factors, value, singular)


def response_part(factors: Factors) -> fmpq_mat:
    """A_s without the scale, in rationals."""
    query, key = rationals(factors.query), rationals(factors.key)
    _, value = forms(factors)
    response = value.transpose().solve((query.transpose() * key).transpose()).transpose()
    return (response + response.transpose()) * fmpq(1, 2)


def assert_values(factors: Factors, value: fmpq_mat, singular: bool) -> None:
    """Growth, real rate and number of unstable eigenvalues, against Arb's eigenvalues of V."""
    rank = value.rank()
    nonzero = compressed(value) if singular else value
    values = arb_eigenvalues(nonzero)
    assert len(values) == rank
    unstable = [v for v in values if v.real > 0]
    assert len(unstable) + sum(v.real < 0 for v in values) == rank
    assert factors.unstable_count == (len(unstable), len(unstable))
    if unstable:
        assert factors.growth.holds
        abscissa = max((v.real for v in unstable), key=float)
        assert arb(bound(factors.growth)) <= abscissa
        assert arb(bound(factors.growth)) >= abscissa * arb("0.999")
    else:
        assert factors.growth.fails
    real = [v.real for v in unstable if v.imag.contains(0)]
    assert factors.real_rate.holds == bool(real)
    if real:
        largest = max(real, key=float)
        assert abs(arb(bound(factors.real_rate)) - largest) <= largest * arb("1e-3")


def compressed(value: fmpq_mat) -> fmpq_mat:
    """B A for V = A B over the rationals, of V's rank: it has V's nonzero eigenvalues."""
    reduced, rank = value.rref()[0], value.rank()
    rows = fmpq_mat(rank, value.ncols(), reduced.entries()[: rank * value.ncols()])
    columns = [next(j for j in range(value.ncols()) if rows[i, j] != 0) for i in range(rank)]
    basis = fmpq_mat(value.nrows(), rank, [value[i, j] for i in range(value.nrows()) for j in columns])
    return rows * basis


def test_the_whole_of_shared_heads_is_that_of_the_repeated_ones():
    """Adding up what multiplies shared keys rounds; the verdicts are about the exact sums all the same."""
    shared = single(5, SIZE, 4, 2, 8)
    plain = Factors(shared.query, shared.key, shared.value, shared.output, shared.scale_squared, 4, 1)
    for name in ("scores", "growth", "real_rate"):
        assert str(getattr(shared, name)) == str(getattr(plain, name)) or name == "scores"
    assert shared.scores.inertia[0] == plain.scores.inertia[0]
    assert shared.singular
    assert plain.singular


def eye(size: int = SIZE) -> np.ndarray:
    return np.eye(size)


def skewed(seed: int, size: int = SIZE) -> np.ndarray:
    """Small integers with symmetric part 100·1 + something small: definite, not symmetric."""
    return 100 * np.eye(size) + np.random.default_rng(seed).integers(-2, 3, (size, size))


def test_a_convergent_layer_beyond_the_rationals_meets_t2():
    """Q = I, K = M, V = −M: A = −I exactly, which balls alone cannot prove symmetric."""
    form = skewed(0)
    factors = Factors(eye(), form, form, -eye(), fmpq(1))
    known = factors.verdicts()
    assert "A symmetric" not in known  # equal to its transpose, as only exact arithmetic tells
    assert known["A negative"].holds
    assert known["W positive"].holds
    assert known["A definite"].holds
    assert known["W definite"].holds
    assert known["V not Hurwitz"].fails
    assert known["V Hurwitz"].holds
    assert known["Lyapunov metric"].holds
    assert known["V unstable"].fails
    assert known["left eigenvector"].fails
    assert known["W symmetric"].fails
    assert "profile stable" not in known
    assert factors.excludes == {"divergence": "V has an eigenvalue whose real part is not positive"}
    assert known["common metric"].status.value == "UNDECIDED"
    assert factors.instance.has_response


def test_one_entry_off_is_no_longer_convergent():
    """A near miss: one eigenvalue of V moved across the axis."""
    form = skewed(0)
    values = form.copy()
    values[0] -= 110 * eye()[0]
    known = Factors(eye(), form, values, -eye(), fmpq(1)).verdicts()
    assert known["V not Hurwitz"].holds
    assert known["V Hurwitz"].fails
    assert known["sum of values unstable"].holds
    assert known["common metric"].fails


def test_an_eigenvalue_on_the_axis_stays_open_or_exact():
    """V = diag(0, −1, …): singular, so not Hurwitz, exactly; and not unstable as far as it is told."""
    values = -eye()
    values[0, 0] = 0
    factors = Factors(eye(), eye(), values, eye(), fmpq(1))
    assert factors.singular
    known = factors.verdicts()
    assert known["V not Hurwitz"].holds
    assert not known["V unstable"].holds
    assert {known[key].reason for key in ("A symmetric", "A negative")} == {
        "V is singular, so A = W V⁻¹ is not defined"
    }


def test_dependent_rows_go_the_slow_way():
    """K = Q: W = QᵀQ has no negative eigenvalue, and [Q; K] no full rank."""
    query = np.random.default_rng(1).integers(-3, 4, (3, SIZE)).astype(float)
    factors = Factors(query, query, query, query.T, fmpq(1, 3))
    counts, _ = factors.scores.inertia
    assert (counts.positive, counts.negative, counts.zero) == (3, 0, SIZE - 3)
    assert factors.scores.positive.fails
    assert factors.scores.negative.fails
    assert factors.scores.definite.fails
    assert not factors.heads_tied.fails  # A = 1 ties this head


def test_tied_heads_are_not_denied():
    """A V_h = c_h W_h with A = 1: the rows of K_h are those of U_h."""
    rng = np.random.default_rng(2)
    query, key = (rng.standard_normal((8, SIZE)) for _ in range(2))
    tied = Factors(query, key, key, query.T, fmpq(1, 4), heads=2)
    assert tied.heads_tied.status.value == "UNDECIDED"
    free = Factors(query, key, rng.standard_normal((8, SIZE)), query.T, fmpq(1, 4), heads=2)
    assert free.heads_tied.fails
    silent = Factors(0 * query, key, rng.standard_normal((8, SIZE)), query.T, fmpq(1, 4), heads=2)
    assert not silent.heads_tied.fails  # W_h = 0 is tied by c_h = 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([(25, 5), (26, 13), (30, 30)]))
def test_integer_layers_have_the_signs_that_rationals_tell(seed: int, shape: tuple[int, int]):
    size, width = shape
    rng = np.random.default_rng(seed)
    maps = [rng.integers(-2, 3, (width, size)).astype(float) for _ in range(3)]
    factors = Factors(*maps, rng.integers(-2, 3, (size, width)).astype(float), fmpq(1))
    form, value = forms(factors)
    found = factors.scores.inertia
    assert found is not None
    assert (found[0].positive, found[0].negative, found[0].zero) == exact_inertia(form)
    assert factors.singular == (value.rank() < size)


def test_a_bound_that_a_wrong_sign_would_give_is_caught():
    """The checks above can fail: swapped signs, a bound a thousandth off, another count."""
    factors = single(0, SIZE, 4, 1, 8)
    form, _ = forms(factors)
    scale = arb(factors.scale_squared).sqrt()
    signs = factors.scores
    swapped = Signs(signs.inertia, signs.negative, signs.positive)
    for wrong, matrix in ((swapped, form), (signs, form * -1), (signs, form * fmpq(1001, 1000))):
        with pytest.raises(AssertionError):
            assert_signs(wrong, matrix, scale)
