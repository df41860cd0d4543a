"""T15 in numbers: which of theory.md's conditions on heads matter, and the hypotheses both ways."""

from dataclasses import replace
from fractions import Fraction

import pytest
from flint import arb, fmpq

from theory.definiteness import positive_definite
from theory.evaluate import CONSTANTS
from theory.instance import Instance
from theory.notation import lam
from theory.registry import statement
from theory.theorem import sides
from theory.theorems.heads import COEFFICIENTS, HEADS_POSITIVE, HEADS_TIED, TWO_HEADS
from theory.weights import Weights, symmetric_part

T15, T4 = statement("T15"), statement("T4")


def heads(first, second, coefficient, tokens, response=-1):
    """d = 1, with V_h = c_h W_h/A."""
    value = Fraction(coefficient) * second / response
    return Instance.of(
        score=[[first]],
        response=[[response]],
        W_2=[[second]],
        V_2=[[value]],
        coefficient=coefficient,
        tokens=[[x] for x in tokens],
        setting=TWO_HEADS,
    )


@pytest.mark.parametrize("response", [-1, 1])
@pytest.mark.parametrize("tokens", [(1, -1), (1, -1, 0), (2, 3, -5), (1, 1)])
def test_a_single_head_may_have_scores_of_any_sign(response, tokens):
    """Only the weighted sum must be positive: a head with W_s ≺ 0 does no harm."""
    for first, second in ((3, -2), (-2, 3), (-1, 2)):
        instance = heads(first, second, 1, tokens, response)
        assert T15.applies(instance).holds
        for claim in T15.claims:
            assert not T15.judge(claim, instance).fails
        assert T15.judge(replace(T15.claim("energy moves one way"), relation=">"), instance).holds


def test_the_witness_has_an_indefinite_head():
    witness = T15.examples.witness
    assert T15.applies(witness).holds
    assert positive_definite(symmetric_part(witness.form)).fails


def test_an_idle_head_changes_nothing():
    """c_2 = 0: V_2 = 0, whatever W_2; the claims are those of T4 with its constants."""
    tokens = [[2], [-1], [3]]
    idle, alone = (
        heads(2, -7, 0, (2, -1, 3)),
        Instance.of(score=[[2]], response=[[-1]], tokens=tokens),
    )
    assert T15.applies(idle).holds
    ours = sides(T15.claim("energy of each token"), idle)
    theirs = sides(T4.claim("energy inequality"), alone)
    for (rate, bound), (other_rate, other_bound) in zip(ours, theirs, strict=True):
        assert (rate - other_rate).contains(0)
        assert (bound - other_bound).contains(0)


def test_two_equal_heads_are_one_head_twice_as_fast():
    """κ_n and λ both carry the factor Σ c_h = 2, and so does the rate."""
    twice, alone = (
        heads(2, 2, 1, (2, -1, 3)),
        Instance.of(score=[[2]], response=[[-1]], tokens=[[2], [-1], [3]]),
    )
    assert arb(CONSTANTS[lam](twice)).contains(arb(4))
    ours = sides(T15.claim("energy of each token"), twice)
    theirs = sides(T4.claim("energy inequality"), alone)
    for (rate, bound), (other_rate, other_bound) in zip(ours, theirs, strict=True):
        assert (rate - 2 * other_rate).contains(0)
        assert (bound - 2 * other_bound).contains(0)


def test_the_equality_case_holds_without_signs_of_single_heads():
    """Ė = 0 only at X = 0, also where Σx = 0 and both heads together are barely positive."""
    barely = heads(-1, Fraction(101, 100), 1, (1, -1))
    claim = T15.claim("energy moves one way")
    assert T15.applies(barely).holds
    assert T15.judge(replace(claim, relation=">"), barely).holds
    assert T15.judge(replace(claim, relation=">"), heads(-1, Fraction(101, 100), 1, (0, 0))).fails


def test_the_hypotheses_both_ways():
    good = heads(3, -2, 1, (1, -1))
    for hypothesis in (HEADS_TIED, COEFFICIENTS, HEADS_POSITIVE):
        assert hypothesis.decide(good).holds
        single = Instance.of(score=[[1]], value=[[1]])
        assert str(hypothesis.decide(single)) == "UNDECIDED"
    assert HEADS_TIED.decide(
        replace(good, parameters={**good.parameters, "V_2": good.parameters["V_2"] * fmpq(2)})
    ).fails
    assert HEADS_POSITIVE.decide(heads(2, -2, 1, (1, -1))).fails
    assert COEFFICIENTS.decide(heads(2, -2, -1, (1, -1))).fails
    singular = Instance.of(
        score=[[0]], value=[[0]], W_2=[[1]], V_2=[[1]], coefficient=1, tokens=[[1]], setting=TWO_HEADS
    )
    assert str(HEADS_TIED.decide(singular)) == "UNDECIDED"


def test_weights_with_a_scale_of_their_own_are_left_open():
    """W = QᵀK/√2 would meet W_2 in other units."""
    eye = [[1, 0], [0, 1]]
    scaled = Instance(
        Weights.from_projections(eye, eye, eye),
        parameters={name: Weights.of(eye, eye).form for name in ("W_2", "V_2")}
        | {"coefficient": Weights.of([[1]], [[1]]).form},
        setting=TWO_HEADS,
    )
    for hypothesis in (HEADS_TIED, COEFFICIENTS, HEADS_POSITIVE):
        assert str(hypothesis.decide(scaled)) == "UNDECIDED"


def test_tied_heads_with_a_negative_coefficient_fall_back():
    """T15's near miss: both heads are tied and T = 1, yet the energy of {1, −1} falls for A = 1."""
    near_miss = T15.examples.near_miss
    assert HEADS_POSITIVE.decide(near_miss).holds
    assert T15.judge(T15.claim("energy moves one way"), near_miss).fails
