"""T12, T12b, T13c at their edges."""

from fractions import Fraction

import pytest
from flint import arb

from theory.evaluate import Values
from theory.instance import Instance
from theory.notation import floor, rate_at_zero
from theory.registry import statement
from theory.theorems.encodings import DIFFERENT_POSITIONS, ORTHOGONAL, SCORED, SCORES_COMMUTE, SHIFTED, TURNED
from theory.verdict import Status

BARE = Instance.of(score=[[1]], value=[[1]])


def velocities(instance: Instance) -> list[arb]:
    values = Values.at(instance)
    return [values.enclose(symbol) for symbol in values.system.v]


def scored(tokens, **weights) -> Instance:
    return Instance.of(tokens=tokens, setting=SCORED, **weights)


def test_minus_the_encoding_is_at_rest_only_if_values_carry_it():
    weights = {"score": [[1]], "value": [[-1]], "positions": [[1], [-2]], "tokens": [[-1], [2]]}
    assert all(v == 0 for v in velocities(Instance.of(setting=SHIFTED, **weights)))
    assert not all(v == 0 for v in velocities(Instance.of(setting=SCORED, **weights)))


def test_local_only_another_equilibrium():
    """d = 1, W = 1, V = −1, p = (1, −1): X = (−1, 1) has x + p = 0, so uniform attention on mean 0."""
    instance = scored([[-1], [1]], score=[[1]], value=[[-1]], positions=[[1], [-1]])
    assert statement("T12b").applies(instance).holds
    assert all(v == 0 for v in velocities(instance))


def test_linearisation_of_two_opposite_encodings():
    """P⁰ = [[p, q], [q, p]] with p = e/(e + 1/e): eigenvalues 1 and p − q = tanh 1."""
    values = Values.at(scored([[0], [0]], score=[[1]], value=[[-3]], positions=[[1], [-1]]))
    for name, expected in ((floor, arb(1).tanh()), (rate_at_zero, -3 * arb(1).tanh())):
        gap = values[name] - expected
        assert gap.contains(0)
        assert float(gap.rad()) < 1e-12  # the test itself computes with 53 bits


def test_negative_scores_make_the_linearisation_unstable():
    values = Values.at(scored([[0], [0]], score=[[-1]], value=[[-3]], positions=[[1], [-1]]))
    assert values[floor] < 0
    assert values[rate_at_zero] > 0


@pytest.mark.parametrize(
    ("hypothesis", "holds", "fails"),
    [
        (
            DIFFERENT_POSITIONS,
            scored([[0], [0]], score=[[1]], value=[[1]], positions=[[1], [Fraction(1, 2)]]),
            scored([[0], [0]], score=[[1]], value=[[1]], positions=[[1], [1]]),
        ),
        (
            ORTHOGONAL,
            statement("T13c").examples.witness,
            Instance.of(query=[[1]], key=[[1]], value=[[1]], rotation=[[2]], tokens=[[1]], setting=TURNED),
        ),
        (
            SCORES_COMMUTE,
            statement("T13c").examples.witness,
            Instance.of(
                query=[[1, 0], [0, 2]],
                key=[[1, 0], [0, 1]],
                value=[[1, 0], [0, 1]],
                rotation=[[0, -1], [1, 0]],
                tokens=[[1, 0]],
                setting=TURNED,
            ),
        ),
    ],
    ids=lambda case: getattr(case, "key", ""),
)
def test_hypotheses_both_ways(hypothesis, holds, fails):
    assert hypothesis.decide(holds).status is Status.HOLDS
    assert hypothesis.decide(fails).status is Status.FAILS
    assert hypothesis.decide(BARE).status is Status.UNDECIDED


def test_turning_by_the_own_position_only_is_no_change_of_frame():
    """Σ_j P_ij R^j V x_j: the second token's velocity differs from the one that the frame explains."""
    instance = Instance.of(
        query=[[1, 0], [0, 1]],
        key=[[1, 0], [0, 1]],
        value=[[-1, 0], [0, -1]],
        rotation=[[0, -1], [1, 0]],
        tokens=[[1, 0], [1, 0]],
        setting=TURNED,
    )
    values = Values.at(instance)
    e = values.system
    absolute = sum((e.P[1, j] * e.turns[j] * e.V * e.token(j) for j in range(2)), e.token(0) * 0)
    relative = e.velocity(1)
    assert any(not values.enclose(p - q).contains(0) for p, q in zip(absolute, relative, strict=True))
