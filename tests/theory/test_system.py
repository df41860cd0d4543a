"""The symbolic system and its exact evaluation, against a direct computation that shares no code."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from flint import arb, ctx, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sympy import Integer, Symbol

from theory import notation
from theory.enclosure import PRECISION
from theory.errors import InputError
from theory.evaluate import CONSTANTS, Values, orientation
from theory.instance import Instance
from theory.quantities import (
    attended_score,
    energy,
    energy_rate,
    for_pairs,
    for_tokens,
    hyperplane,
    hyperplane_rate,
    pair_form,
    pair_form_rate,
    quadratic,
    symmetric,
    token_energy,
    token_energy_rate,
    total_score,
)
from theory.registry import statement
from theory.system import ExplicitSystem, explicit_system
from theory.theorem import AT_LEAST, Claim, sides
from theory.verdict import Status
from theory.weights import Weights, rational_matrix

EYE = [[1, 0], [0, 1]]
SMALL = st.fractions(-2, 2, max_denominator=4)


def _rows(matrix: fmpq_mat) -> list[list[mpmath.mpf]]:
    return [[mpmath.mpf(int(q.p)) / int(q.q) for q in row] for row in matrix.tolist()]


def _floats(matrix: fmpq_mat) -> np.ndarray:
    return np.array([[float(q) for q in row] for row in _rows(matrix)])


def _close(ball: arb, value, tolerance="1e-25") -> bool:
    """Does a narrow ball contain an mpmath number of 40 digits?"""
    with ctx.workprec(PRECISION):
        return bool(abs(ball - arb(mpmath.nstr(value, 38))) < arb(tolerance) * (1 + abs(ball)))


@st.composite
def instances(draw, max_n: int = 3, max_d: int = 3):
    n, size = draw(st.integers(1, max_n)), draw(st.integers(1, max_d))

    def matrix(rows, columns):
        return [[draw(SMALL) for _ in range(columns)] for _ in range(rows)]

    return Instance.of(
        score=matrix(size, size),
        value=matrix(size, size),
        tokens=matrix(n, size),
        ell=matrix(1, size)[0],
        rate=draw(SMALL),
    )


class Direct:
    """The ODE once more, in mpmath, from its definition, entry by entry."""

    def __init__(self, instance: Instance):
        x, w, v = (_rows(m) for m in (instance.tokens, instance.form, instance.value))
        n, size = len(x), len(x[0])
        self.s = [
            [sum(x[i][a] * w[a][b] * x[j][b] for a in range(size) for b in range(size)) for j in range(n)]
            for i in range(n)
        ]
        self.Z = [sum(mpmath.exp(score) for score in row) for row in self.s]
        self.P = [[mpmath.exp(score) / z for score in row] for row, z in zip(self.s, self.Z, strict=True)]
        self.m = [[sum(self.P[i][j] * x[j][a] for j in range(n)) for a in range(size)] for i in range(n)]
        self.v = [[sum(v[a][b] * self.m[i][b] for b in range(size)) for a in range(size)] for i in range(n)]


@given(instances())
@settings(max_examples=40, deadline=None)
def test_the_named_quantities_are_those_of_the_definition(instance):
    values = Values.at(instance)
    with mpmath.workdps(40):
        direct = Direct(instance)
        for name in ("s", "P", "m", "v"):
            symbols = getattr(values.system, name)
            for (i, j), expected in np.ndenumerate(np.array(getattr(direct, name), dtype=object)):
                assert _close(values.enclose(symbols[i, j]), expected), name
        for i, expected in enumerate(direct.Z):
            assert _close(values.enclose(values.system.Z[i]), expected)
        rows_sum_to_one = [
            sum(values.enclose(p) for p in values.system.P.row(i)) for i in range(values.system.n)
        ]
        assert all(total.contains(1) for total in rows_sum_to_one)


@given(instances(max_d=2))
@settings(max_examples=30, deadline=None)
def test_the_quantities_of_claims(instance):
    assume(instance.has_response)
    values = Values.at(instance)
    e = values.system
    x, w, a = (_floats(m) for m in (instance.tokens, instance.form, instance.response))
    with mpmath.workdps(40):
        direct = Direct(instance)
        s, attention, velocity = (
            np.array([[float(q) for q in row] for row in m]) for m in (direct.s, direct.P, direct.v)
        )
    a_s = (a + a.T) / 2

    def near(expression, expected):
        return float(values.enclose(expression)) == pytest.approx(float(expected), abs=1e-9, rel=1e-9)

    for i in range(e.n):
        assert near(attended_score(e, i), attention[i] @ s[i])
        assert near(token_energy(e, i), x[i] @ a @ x[i] / 2)
        assert near(token_energy_rate(e, i), x[i] @ a_s @ velocity[i])
        assert near(hyperplane(e, i), _floats(instance.ell)[:, 0] @ x[i])
        assert near(hyperplane_rate(e, i), _floats(instance.ell)[:, 0] @ velocity[i])
    assert near(energy(e), np.einsum("ia,ab,ib->", x, a, x) / 2)
    assert near(energy_rate(e), np.einsum("ia,ab,ib->", x, a_s, velocity))
    assert near(total_score(e), x.sum(0) @ w @ x.sum(0))
    for i, j in e.pairs():
        gap, moving = x[i] - x[j], velocity[i] - velocity[j]
        assert near(pair_form(e, i, j), gap @ a @ gap)
        assert near(pair_form_rate(e, i, j), 2 * gap @ a_s @ moving)
        assert near(quadratic(e.W, e.token(i), e.token(j)), x[i] @ w @ x[j])


def test_the_explicit_system_names_and_shapes():
    e = ExplicitSystem(3, 2)
    assert e.pairs() == [(0, 1), (0, 2), (1, 2)]
    assert e.token(1) == e.X.row(1).T
    assert e.velocity(2).shape == (2, 1)
    assert e.definitions[e.v[0, 1]] == e.m[0, 0] * e.V[1, 0] + e.m[0, 1] * e.V[1, 1]
    assert len(set(e.definitions)) == 9 * 3 + 3 + 3 * 6  # s, g, P; Z; m, v, y
    assert not {*e.X, *e.W, *e.V, *e.A, *e.ell} & set(e.definitions)
    assert symmetric(e.W)[0, 1] == (e.W[0, 1] + e.W[1, 0]) / 2
    assert for_tokens(lambda e, i: (i,))(e) == [(0,), (1,), (2,)]
    assert for_pairs(lambda e, i, j: (i, j))(e) == e.pairs()
    assert explicit_system(3, 2) is explicit_system(3, 2)


# Instances


@pytest.mark.parametrize(
    ("build", "argument"),
    [
        (lambda: Instance.of(score=EYE), "value"),
        (lambda: Instance.of(score=EYE, value=EYE, response=EYE), "value"),
        (lambda: Instance.of(score=EYE, value=[[1]]), "value"),
        (lambda: Instance.of(score=EYE, response=[[1, 1], [1, 1]]), "response"),
        (lambda: Instance.of(score=EYE, value=EYE, tokens=[[1, 2, 3]]), "tokens"),
        (lambda: Instance.of(score=EYE, value=EYE, tokens=[[1, 2], [3]]), "tokens"),
        (lambda: Instance.of(score=EYE, value=EYE, tokens=[]), "tokens"),
        (lambda: Instance.of(score=EYE, value=EYE, ell=[1, 0]), "ell"),
        (lambda: Instance.of(score=EYE, value=EYE, rate=1), "ell"),
        (lambda: Instance.of(score=EYE, value=EYE, ell=[1, 0, 0], rate=1), "ell"),
        (lambda: Instance.of(score=EYE, value=EYE, ell=[1, float("nan")], rate=1), "ell"),
        (lambda: Instance.of(score=EYE, value=EYE, ell=[1, 0], rate=float("inf")), "rate"),
        (
            lambda: Instance(Weights.of(EYE, EYE), given_response=fmpq_mat(2, 2, [2, 0, 0, 1])),
            "given_response",
        ),
        (lambda: Instance(Weights.of(EYE, EYE), given_response=fmpq_mat(1, 1, [1])), "given_response"),
        (
            lambda: Instance(
                Weights.from_projections(EYE, EYE, EYE), given_response=fmpq_mat(2, 2, [1, 0, 0, 1])
            ),
            "given_response",
        ),
    ],
)
def test_an_instance_that_makes_no_sense_is_refused_by_name(build, argument):
    with pytest.raises(InputError, match=f"^{argument}: got .*Fix: ") as caught:
        build()
    assert caught.value.argument == argument


def test_the_response_is_the_given_one_or_computed():
    given_one = Instance.of(score=[[2, 1], [0, 1]], response=[[1, 1], [0, 2]])
    assert given_one.response.tolist() == [[1, 1], [0, 2]]
    assert given_one.response * given_one.value == given_one.form
    computed = Instance.of(score=[[2, 1], [0, 1]], value=given_one.value.tolist())
    assert computed.response == given_one.response
    assert computed.given_response is None
    assert computed.has_response
    assert not Instance.of(score=EYE, value=[[1, 1], [1, 1]]).has_response


def test_a_response_beside_a_singular_value_map():
    """A V = W with V singular: A is not unique, so one may be given."""
    instance = Instance(
        Weights.of([[0, 0], [0, 1]], [[0, 0], [0, 1]]), given_response=rational_matrix("a", [[7, 0], [0, 1]])
    )
    assert instance.has_response
    assert orientation(instance.response) == 1


def test_evaluation_needs_tokens():
    with pytest.raises(InputError, match=r"^tokens: got none"):
        Values.at(Instance.of(score=EYE, value=EYE))


def test_orientation():
    assert orientation(rational_matrix("m", [[1, 5], [-5, 2]])) == 1
    assert orientation(rational_matrix("m", [[-1, 5], [-5, -2]])) == -1


# Constants


def _constant(instance: Instance, symbol: Symbol) -> arb:
    with ctx.workprec(PRECISION):
        return Values.at(instance)[symbol]


def _undefined(ball: arb) -> bool:
    return not (ball > 0 or ball <= 0)


@given(instances())
@settings(max_examples=60, deadline=None)
def test_constants_agree_with_numpy(instance):
    v = _floats(instance.value)
    values = np.linalg.eigvals(v)
    gaps = [abs(a - b) for i, a in enumerate(values) for b in values[i + 1 :]]
    assume(min(gaps, default=1) > 1e-3)
    assert float(_constant(instance, notation.norm_V)) == pytest.approx(np.linalg.norm(v, 2), abs=1e-9)
    assert float(_constant(instance, notation.abscissa)) == pytest.approx(values.real.max(), abs=1e-9)
    n = instance.tokens.nrows()
    with mpmath.workdps(40):
        assert _close(_constant(instance, notation.kappa), mpmath.lambertw((n - 1) / mpmath.e).real)
    assert float(_constant(instance, notation.rate)) == pytest.approx(
        float(_rows(fmpq_mat(1, 1, [instance.number("rate")]))[0][0])
    )
    assert _constant(instance, notation.unit) == 1
    unstable = _constant(instance, notation.unstable_V)
    if np.abs(values.real).min() > 1e-6:
        assert unstable == int((values.real > 0).sum())
    sign_w = 1 if np.trace(_floats(instance.form)) >= 0 else -1
    assert _constant(instance, notation.omega) == sign_w
    if instance.has_response:
        a = _floats(instance.response)
        symmetric_a = np.linalg.eigvalsh((a + a.T) / 2)
        sign = _constant(instance, notation.sigma)
        if abs(np.trace(a)) > 1e-9:
            assert sign == np.sign(np.trace(a))
            outward = (int(float(sign)) * sign_w * values.real).min()
            assert float(_constant(instance, notation.outward)) == pytest.approx(outward, abs=1e-9)
        if np.abs(symmetric_a).min() > 1e-6:
            assert _constant(instance, notation.unstable_A) == int((symmetric_a > 0).sum())


@given(
    st.lists(SMALL, min_size=4, max_size=4), st.lists(SMALL, min_size=4, max_size=4), st.sampled_from([1, -1])
)
@settings(max_examples=60, deadline=None)
def test_the_pencil_constant(score, root, sign):
    lower = np.array(root, dtype=object).reshape(2, 2)
    response = sign * (lower @ lower.T + np.eye(2, dtype=int))
    response[0, 1] += 2  # only the symmetric part counts
    response[1, 0] -= 2
    w = np.array(score, dtype=object).reshape(2, 2)
    instance = Instance.of(score=w.tolist(), response=response.tolist(), tokens=[[1, 2]])
    a = response.astype(float) * sign
    metric, form = (a + a.T) / 2, (w.astype(float) + w.astype(float).T) / 2
    found = np.linalg.eigvals(np.linalg.solve(metric, form)).real
    ball = _constant(instance, notation.lam)
    assert (
        float(ball) == pytest.approx(found.min(), abs=1e-6)
        or float(ball.rad()) > 1e-6
        or not ball.is_finite()
    )


def test_constants_that_are_undefined_prove_nothing():
    singular = Instance.of(score=EYE, value=[[1, 1], [1, 1]], tokens=[[1, 2]])
    for name in ("sigma", "lam", "outward", "unstable_A", "rate"):
        assert _undefined(_constant(singular, getattr(notation, name))), name
    indefinite = Instance.of(score=EYE, response=[[1, 0], [0, -1]], tokens=[[1, 2]])
    assert _undefined(_constant(indefinite, notation.lam))
    nilpotent = Instance.of(score=EYE, value=[[0, 1], [0, 0]], tokens=[[1, 2]])
    for name in ("abscissa", "unstable_V"):
        assert _undefined(_constant(nilpotent, getattr(notation, name))), name
    rotation = Instance.of(score=EYE, value=[[0, -1], [1, 0]], tokens=[[1, 2]])
    assert _undefined(_constant(rotation, notation.unstable_V))
    assert _constant(rotation, notation.abscissa).contains(0)


def test_entries_that_are_undefined_prove_nothing():
    values = Values.at(Instance.of(score=EYE, value=[[1, 1], [1, 1]], tokens=[[1, 2]]))
    for symbol in (values.system.A[0, 0], values.system.ell[1]):
        assert _undefined(values[symbol])
        assert _undefined(values.enclose(symbol * 0 + symbol**2))


def test_a_planted_scale_multiplies_a_constant():
    instance = Instance.of(score=EYE, value=EYE, tokens=[[1, 2], [3, 4]])
    true = Values.at(instance)[notation.kappa]
    planted = Values.at(instance, {notation.kappa: fmpq(1, 2)})[notation.kappa]
    assert (2 * planted - true).contains(0)
    assert planted < true
    claim = Claim("unit", "c = 1", AT_LEAST, lambda e: [(notation.unit, Integer(2))])
    assert sides(claim, instance, {notation.unit: fmpq(5, 2)})[0][0] == fmpq(5, 2)
    assert sides(claim, instance)[0][0] == 1


def test_every_constant_has_a_name_in_the_notation():
    named = {value for value in vars(notation).values() if isinstance(value, Symbol)}
    assert set(CONSTANTS) <= named


def test_scores_carry_the_scale_of_the_projections():
    """W = QᵀK/√d_k: with d_k = 2 the scores are those of QᵀK/√2, and A = W V⁻¹ carries the same factor."""
    query, key, value = [[1, 2], [0, 1]], [[2, 0], [1, 1]], [[1, 1], [0, 2]]
    tokens = rational_matrix("tokens", [[1, 0], [Fraction(1, 2), 1]])
    values = Values.at(Instance(Weights.from_projections(query, key, value), tokens))
    w = np.array(query).T @ np.array(key) / 2**0.5
    np.testing.assert_allclose([[float(values[q]) for q in row] for row in values.system.W.tolist()], w)
    response = [[float(values[q]) for q in row] for row in values.system.A.tolist()]
    np.testing.assert_allclose(response, w @ np.linalg.inv(value))
    x = _floats(tokens)
    weights = np.exp(x @ w @ x.T)
    expected = weights / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(
        [[float(values[q]) for q in row] for row in values.system.P.tolist()], expected
    )


def test_a_claim_on_undefined_quantities_is_undecided():
    singular = Instance.of(score=EYE, value=[[1, 1], [1, 1]], tokens=[[1, 2], [0, 1]])
    for identifier in ("T1", "T2", "T4", "T10", "T17", "L5"):
        theorem = statement(identifier)
        for claim in theorem.claims:
            assert theorem.judge(claim, singular).status is Status.UNDECIDED, (identifier, claim.name)
