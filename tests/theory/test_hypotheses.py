"""Every decider on weights where it holds, where it fails, and where nobody can tell."""

from fractions import Fraction

import numpy as np
import pytest
from flint import fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import definiteness, hypotheses
from theory.definiteness import EXACT_SIZE
from theory.hypotheses import (
    A_DEFINITE,
    A_MINUS_W_TRANSPOSED,
    A_NEGATIVE,
    A_POSITIVE,
    A_SYMMETRIC,
    LEFT_EIGENVECTOR,
    ONE_SIDE,
    RATE_POSITIVE,
    START_NONZERO,
    STEEP_ROTATION,
    TOKENS_EQUAL,
    TOKENS_MIRRORED,
    V_HURWITZ,
    V_NOT_HURWITZ,
    V_UNSTABLE,
    W_DEFINITE,
    W_POSITIVE,
    W_ROTATION,
    W_SYMMETRIC,
    Hypothesis,
)
from theory.instance import Instance
from theory.registry import statements
from theory.verdict import Grade, Status, undecided
from theory.weights import Weights, rational_matrix

EYE, MINUS = [[1, 0], [0, 1]], [[-1, 0], [0, -1]]
ALL = [value for value in vars(hypotheses).values() if isinstance(value, Hypothesis)]


def of(score=EYE, value=None, response=None, **more) -> Instance:
    if value is None and response is None:
        value = EYE
    return Instance.of(score=score, value=value, response=response, **more)


HOLDS = [
    (A_SYMMETRIC, of(response=[[1, 2], [2, -7]])),
    (A_SYMMETRIC, of(score=[[2, 1], [1, 3]], value=EYE)),
    (A_POSITIVE, of(response=[[1, 5], [-5, 1]])),
    (A_POSITIVE, of(score=[[1, 5], [-5, 1]])),
    (A_NEGATIVE, of(response=[[-1, 5], [-5, -1]])),
    (A_NEGATIVE, of(score=[[1, 5], [-5, 1]], value=MINUS)),
    (A_DEFINITE, of(response=[[1, 5], [-5, 1]])),
    (A_DEFINITE, of(response=[[-1, 5], [-5, -1]])),
    (A_DEFINITE, of(value=[[-2, 1], [-1, -2]])),
    (W_POSITIVE, of(score=[[1, 5], [-5, 1]])),
    (W_DEFINITE, of(score=[[1, 5], [-5, 1]])),
    (W_DEFINITE, of(score=[[-1, 5], [-5, -1]])),
    (W_SYMMETRIC, of(score=[[1, 5], [5, 1]])),
    (V_HURWITZ, of(value=[[-1, 3], [0, -2]])),
    (V_NOT_HURWITZ, of(value=[[0, 1], [-1, 0]])),
    (V_NOT_HURWITZ, of(value=[[0, 0], [0, -9]])),
    (V_UNSTABLE, of(value=EYE)),  # a double eigenvalue: the trace decides
    (LEFT_EIGENVECTOR, of(value=[[2, 0], [5, -1]], ell=[1, 0], rate=2)),
    (LEFT_EIGENVECTOR, of(value=[[2, 0], [5, -1]])),  # one exists
    (RATE_POSITIVE, of(ell=[1, 0], rate=Fraction(1, 10**30))),
    (RATE_POSITIVE, of(value=[[2, 0], [5, -1]])),
    (START_NONZERO, of(tokens=[[0, 0], [0, Fraction(1, 10**30)]])),
    (TOKENS_EQUAL, of(tokens=[[1, 2], [1, 2]])),
    (TOKENS_EQUAL, of(tokens=[[1, 2]])),
    (TOKENS_MIRRORED, of(tokens=[[1, 2], [-1, -2], [0, 0]])),
    (ONE_SIDE, of(tokens=[[1, -9], [2, 5]], ell=[1, 0], rate=1)),
    (W_ROTATION, of(score=[[1, -2], [2, 1]])),
    (A_MINUS_W_TRANSPOSED, of(score=[[1, -2], [2, 1]], response=[[-1, -2], [2, -1]])),
    (STEEP_ROTATION, of(score=[[1, -2], [2, 1]])),
    (STEEP_ROTATION, of(score=[[1, 2], [-2, 1]])),
]
FAILS = [
    (A_SYMMETRIC, of(response=[[1, 2], [2 + Fraction(1, 10**30), 1]])),
    (A_SYMMETRIC, of(score=[[2, 1], [0, 3]])),
    (A_POSITIVE, of(response=[[1, 0], [0, -1]])),
    (A_POSITIVE, of(score=[[1, 0], [0, 0]])),
    (A_NEGATIVE, of(response=EYE)),
    (A_NEGATIVE, of()),
    (A_DEFINITE, of(response=[[1, 2], [2, 1]])),
    (A_DEFINITE, of(score=[[1, 1], [1, 1]])),  # singular
    (W_POSITIVE, of(score=[[1, 2], [2, 1]])),
    (W_POSITIVE, of(score=[[0, 5], [-5, 0]])),
    (W_DEFINITE, of(score=[[1, 0], [0, -1]])),
    (W_DEFINITE, of(score=[[0, 5], [-5, 0]])),
    (W_SYMMETRIC, of(score=[[1, 5], [5 + Fraction(1, 10**30), 1]])),
    (V_NOT_HURWITZ, of(value=[[-1, 3], [-3, -1]])),
    (V_UNSTABLE, of(value=[[-1, 3], [-3, -1]])),
    (LEFT_EIGENVECTOR, of(value=[[2, 0], [5, -1]], ell=[1, Fraction(1, 10**30)], rate=2)),
    (LEFT_EIGENVECTOR, of(value=[[2, 1], [0, -1]], ell=[1, 0], rate=2)),  # a right one
    (LEFT_EIGENVECTOR, of(value=[[-1, 3], [-3, -1]])),
    (LEFT_EIGENVECTOR, of(ell=[0, 0], rate=2)),
    (RATE_POSITIVE, of(ell=[1, 0], rate=0)),
    (RATE_POSITIVE, of(value=[[-1, 3], [-3, -1]])),
    (START_NONZERO, of(tokens=[[0, 0], [0, 0]])),
    (TOKENS_EQUAL, of(tokens=[[1, 2], [1, 2 + Fraction(1, 10**30)]])),
    (TOKENS_MIRRORED, of(tokens=[[1, 2], [-1, -2], [0, Fraction(1, 10**30)]])),
    (TOKENS_MIRRORED, of(tokens=[[1, 2], [-1, -2]])),
    (TOKENS_MIRRORED, of(tokens=[[1, 2], [1, 2], [0, 0]])),
    (ONE_SIDE, of(tokens=[[1, 0], [0, 5]], ell=[1, 0], rate=1)),
    (W_ROTATION, of(score=[[1, -2], [2, 1 + Fraction(1, 10**30)]])),
    (W_ROTATION, of(score=[[1, 2], [2, 1]])),
    (W_ROTATION, of(score=[[1]], value=[[1]])),
    (A_MINUS_W_TRANSPOSED, of(score=[[1, -2], [2, 1]], response=[[-1, 2], [-2, -1]])),
    (V_HURWITZ, of(value=[[-1, 3], [0, 0]])),
    (STEEP_ROTATION, of(score=[[2, -2], [2, 2]])),
    (STEEP_ROTATION, of(score=[[0, -2], [2, 0]])),
    (STEEP_ROTATION, of(score=[[1]], value=[[1]])),
]


def _name(case) -> str:
    return case[0].key


@pytest.mark.parametrize(("hypothesis", "instance"), HOLDS, ids=map(_name, HOLDS))
def test_holds(hypothesis, instance):
    verdict = hypothesis.decide(instance)
    assert verdict.status is Status.HOLDS
    assert verdict.grade is Grade.EXACT


@pytest.mark.parametrize(("hypothesis", "instance"), FAILS, ids=map(_name, FAILS))
def test_fails(hypothesis, instance):
    verdict = hypothesis.decide(instance)
    assert verdict.status is Status.FAILS
    assert verdict.grade is Grade.EXACT


def test_every_hypothesis_is_tested_both_ways_and_named_once():
    keys = [h.key for h in ALL]
    assert len(set(keys)) == len(keys)
    assert {h.key for h, _ in HOLDS} == {h.key for h, _ in FAILS} == set(keys)
    assert {h.on for h in ALL} == {"weights", "start"}
    used = {h for theorem in statements().values() for h in theorem.hypotheses}
    assert set(ALL) <= used
    assert len({h.key for h in used}) == len(used)


def test_what_an_enclosure_proves_has_grade_interval():
    for hypothesis in (V_NOT_HURWITZ, V_UNSTABLE):
        verdict = hypothesis.decide(of(value=[[1, 0], [0, -3]]))
        assert (verdict.status, verdict.grade) == (Status.HOLDS, Grade.INTERVAL)


def test_an_eigenvalue_on_the_imaginary_axis_is_no_unstable_one():
    assert V_UNSTABLE.decide(of(value=[[0, 1], [-1, 0]])).status is Status.UNDECIDED


# Undecided


@pytest.mark.parametrize(
    "hypothesis", [A_SYMMETRIC, A_POSITIVE, A_NEGATIVE, A_DEFINITE, A_MINUS_W_TRANSPOSED]
)
def test_a_singular_value_map_leaves_the_response_open_and_is_named(hypothesis):
    verdict = hypothesis.decide(of(value=[[1, 2], [2, 4]]))
    assert verdict.status is Status.UNDECIDED
    assert "V is singular" in verdict.reason


@pytest.mark.parametrize("hypothesis", [h for h in ALL if h.on == "start"])
def test_a_condition_on_the_start_is_open_without_tokens(hypothesis):
    assert hypothesis.decide(of(ell=[1, 0], rate=1)).status is Status.UNDECIDED


def test_one_side_of_an_unknown_hyperplane_is_open():
    verdict = ONE_SIDE.decide(of(tokens=[[1, 0], [-1, 0]]))
    assert verdict.status is Status.UNDECIDED
    assert "not given" in verdict.reason


LARGE = EXACT_SIZE + 6


def _mixed(diagonal) -> fmpq_mat:
    upper = np.triu(np.random.default_rng(0).integers(-1, 2, (len(diagonal),) * 2), 1) / 8 + np.eye(
        len(diagonal)
    )
    left = rational_matrix("m", upper)
    middle = rational_matrix(
        "m", [[q if i == j else 0 for j in range(len(diagonal))] for i, q in enumerate(diagonal)]
    )
    return left * middle * left.transpose()


def test_large_nearly_singular_scores_are_open():
    eye = [[int(i == j) for j in range(LARGE)] for i in range(LARGE)]
    singular = of(score=_mixed([0, *[1] * (LARGE - 1)]), value=eye)
    for hypothesis in (W_POSITIVE, W_DEFINITE, A_POSITIVE, A_DEFINITE):
        assert hypothesis.decide(singular).status is Status.UNDECIDED, hypothesis.key
    assert "stays open" in W_DEFINITE.decide(singular).reason


def test_a_large_value_map_with_a_double_eigenvalue_is_open():
    value = [[(1 if i < 2 else -2) * int(i == j) for j in range(LARGE)] for i in range(LARGE)]
    verdict = V_NOT_HURWITZ.decide(of(score=value, value=value))
    assert verdict.status is Status.UNDECIDED
    for hypothesis in (LEFT_EIGENVECTOR, RATE_POSITIVE):
        assert hypothesis.decide(of(score=value, value=value)).status is Status.UNDECIDED


def test_either_sign_open_is_open(monkeypatch):
    monkeypatch.setattr(hypotheses, "positive_definite", lambda *_, **__: undecided("balls too wide"))
    for hypothesis in (W_DEFINITE, A_DEFINITE):
        verdict = hypothesis.decide(of())
        assert verdict.status is Status.UNDECIDED
        assert "stays open" in verdict.reason
    monkeypatch.undo()
    monkeypatch.setattr(definiteness, "EXACT_SIZE", 0)
    monkeypatch.setattr(definiteness, "BALL_PRECISIONS", (2,))
    assert (
        W_DEFINITE.decide(of(score=[[3, 1], [1, Fraction(1, 3) + Fraction(1, 10**9)]])).status
        is not Status.FAILS
    )


# Rounding


def test_asymmetry_at_the_level_of_rounding_is_open():
    """W = QᵀK of float32 weights, symmetric but for the last bit."""
    key = np.array([[1, 0.1], [0.1, 1]], dtype=np.float32)
    key[0, 1] = np.nextafter(key[0, 1], np.float32(1))
    rounded = Instance(
        Weights.from_projections(np.eye(2, dtype=np.float32), key, np.eye(2, dtype=np.float32))
    )
    for hypothesis in (W_SYMMETRIC, A_SYMMETRIC):
        verdict = hypothesis.decide(rounded)
        assert verdict.status is Status.UNDECIDED
        assert "rounding" in verdict.reason
    exact = Instance(Weights.of(key, EYE))  # the same entries, taken as exact
    assert W_SYMMETRIC.decide(exact).fails


def test_asymmetry_above_rounding_fails_exactly():
    key = np.array([[1, 0.1], [0.1001, 1]], dtype=np.float32)
    verdict = W_SYMMETRIC.decide(Instance(Weights.from_projections(np.eye(2, dtype=np.float32), key, EYE)))
    assert (verdict.status, verdict.grade) == (Status.FAILS, Grade.EXACT)
    assert "not symmetric" in verdict.reason


def test_symmetric_floats_hold_exactly():
    key = np.array([[1, 0.1], [0.1, 1]], dtype=np.float32)
    verdict = W_SYMMETRIC.decide(Instance(Weights.from_projections(np.eye(2, dtype=np.float32), key, EYE)))
    assert (verdict.status, verdict.grade) == (Status.HOLDS, Grade.EXACT)


def test_a_given_response_is_taken_exactly():
    """No rounding is granted to an A that is given, and its sign is decided without V."""
    skewed = of(response=[[1, 0.1], [0.1 + 2**-50, 1]])
    assert A_SYMMETRIC.decide(skewed).fails
    assert A_POSITIVE.decide(skewed).grade is Grade.EXACT
    computed = Instance(Weights(skewed.form, skewed.value, unit_roundoff=fmpq(1, 2**40)))
    assert A_SYMMETRIC.decide(computed).status is Status.UNDECIDED


# Properties

ENTRIES = st.lists(st.integers(-3, 3), min_size=4, max_size=4)


@given(ENTRIES, ENTRIES)
@settings(max_examples=100, deadline=None)
def test_the_response_is_judged_without_an_inverse_as_with_it(score, value):
    """Deciders see (VᵀW)_s against VᵀV; the response itself, given, must get the same verdicts."""
    score, value = ([q[:2], q[2:]] for q in (score, value))
    plain = of(score=score, value=value)
    if not plain.has_response:
        assert A_POSITIVE.decide(plain).status is Status.UNDECIDED
        return
    given_one = Instance(plain.weights, given_response=plain.response)
    for hypothesis in (A_SYMMETRIC, A_POSITIVE, A_NEGATIVE, A_DEFINITE):
        assert hypothesis.decide(plain).status is hypothesis.decide(given_one).status
    smallest, largest = np.linalg.eigvalsh(_symmetric(score, value))
    if min(abs(smallest), abs(largest)) > 1e-9:
        assert A_POSITIVE.decide(plain).holds == (smallest > 0)
        assert A_NEGATIVE.decide(plain).holds == (largest < 0)
        assert A_DEFINITE.decide(plain).holds == (smallest * largest > 0)
        for hypothesis, bound in ((A_POSITIVE, smallest), (A_NEGATIVE, -largest)):
            verdict = hypothesis.decide(plain)
            if verdict.margin.startswith("≥"):
                assert float(verdict.margin[2:]) <= bound * (1 + 1e-9)


def _symmetric(score, value) -> np.ndarray:
    response = np.array(score, dtype=float) @ np.linalg.inv(np.array(value, dtype=float))
    return (response + response.T) / 2


@pytest.mark.parametrize("scale", [Fraction(1, 7), 1, 1000])
def test_no_sign_condition_depends_on_the_scale_but_margins_do(scale):
    instance = Instance(Weights.from_projections([[2, 1], [0, 1]], [[1, 1], [0, 3]], [[1, 1], [0, 2]], scale))
    one = Instance(Weights.from_projections([[2, 1], [0, 1]], [[1, 1], [0, 3]], [[1, 1], [0, 2]], 1))
    for hypothesis in (W_POSITIVE, W_DEFINITE, W_SYMMETRIC, A_SYMMETRIC, A_POSITIVE, A_DEFINITE):
        assert hypothesis.decide(instance).status is hypothesis.decide(one).status
    margins = [float(W_POSITIVE.decide(i).margin[2:]) for i in (instance, one)]
    assert margins[0] == pytest.approx(margins[1] * float(scale), rel=1e-2)


def test_an_open_failure_of_definiteness_does_not_call_a_semidefinite_matrix_indefinite():
    verdict = W_DEFINITE.decide(of(score=[[1, 1], [1, 1]]))
    assert verdict.fails
    assert "indefinite" not in verdict.reason
