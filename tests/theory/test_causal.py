"""T14: what its hypotheses decide, and the numbers that it names."""

from fractions import Fraction

import pytest
from flint import arb, fmpq
from hypothesis import given
from hypothesis import strategies as st
from sympy import LambertW, N, exp

from theory.evaluate import Values
from theory.instance import Instance
from theory.notation import abscissa
from theory.quantities import pair_form_rate, token_energy, token_energy_rate
from theory.system import Setting
from theory.theorem import sides
from theory.theorems.causal import (
    CAUSAL,
    CLOSE_PAIR,
    COMMON_METRIC,
    LYAPUNOV_METRIC,
    SUM_UNSTABLE,
    T14,
    TWO_HEADS,
    T14b,
    T14c,
    T14d,
    T14e,
    T14f,
)
from theory.verdict import Grade, Status

EYE = [[1, 0], [0, 1]]
SHEAR = [[-1, 4], [0, -2]]  # Hurwitz, though its symmetric part is indefinite


def one_head(value, metric=None, **others):
    return Instance.of(score=EYE, value=value, metric=metric, setting=CAUSAL, **others)


def two_heads(first, second, metric=None, **others):
    size = [[0] * len(first) for _ in first]
    return Instance.of(
        score=size, value=first, W_2=size, V_2=second, metric=metric, setting=TWO_HEADS, **others
    )


# Hypotheses


@pytest.mark.parametrize(
    ("value", "metric", "status"),
    [
        (SHEAR, [[1, 1], [1, 6]], Status.HOLDS),
        (SHEAR, EYE, Status.FAILS),
        (SHEAR, None, Status.HOLDS),  # some metric exists
        ([[-1, 0], [0, 1]], None, Status.FAILS),  # and here none
        ([[0, -1], [1, 0]], EYE, Status.FAILS),  # MV + VᵀM = 0
        ([[-1, 0], [0, -1]], [[1, 1], [0, 1]], Status.FAILS),  # not symmetric
        ([[1, 0], [0, 1]], [[-1, 0], [0, -1]], Status.FAILS),  # not positive
    ],
)
def test_lyapunov_metric(value, metric, status):
    verdict = LYAPUNOV_METRIC.decide(one_head(value, metric))
    assert verdict.status is status
    assert verdict.grade is Grade.EXACT


TINY = Fraction(1, 10**30)


@pytest.mark.parametrize(
    ("first", "second", "metric", "status"),
    [
        ([[-1, 0], [0, 0]], [[0, 0], [0, -1]], EYE, Status.HOLDS),  # each head only semidefinite
        ([[0, 5], [-5, 0]], [[-1, 0], [0, -1]], EYE, Status.HOLDS),  # one head only turns
        ([[-1, 0], [0, TINY]], [[0, 0], [0, -1]], EYE, Status.FAILS),  # one head pushes, ever so little
        ([[-1, 0], [0, 0]], [[-1, 0], [0, 0]], EYE, Status.FAILS),  # the sum is only semidefinite
        ([[-1, 0], [0, 0]], [[0, 0], [0, -1]], None, Status.UNDECIDED),
        ([[1, 0], [0, 0]], [[0, 0], [0, -1]], None, Status.FAILS),  # T14c: no metric exists
    ],
)
def test_common_metric(first, second, metric, status):
    assert COMMON_METRIC.decide(two_heads(first, second, metric)).status is status


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ([[1, 9], [0, -9]], [[0, 0], [0, 0]], Status.HOLDS),
        ([[-1, 0], [0, -1]], [[2, 0], [0, 0]], Status.HOLDS),
        ([[1, 0], [0, 1]], [[-2, 0], [0, -2]], Status.FAILS),
        ([[0, 1], [0, 0]], [[0, 0], [-1, 0]], Status.UNDECIDED),  # purely imaginary
    ],
)
def test_unstable_sum(first, second, status):
    assert SUM_UNSTABLE.decide(two_heads(first, second)).status is status


def pair(second, third, score=1, value=1, first=0):
    tokens = [[first], [second], [third]]
    return Instance.of(score=[[score]], value=[[value]], tokens=tokens, setting=CAUSAL)


@pytest.mark.parametrize(
    ("instance", "holds"),
    [
        (pair(1, Fraction(9, 10)), True),
        (pair(-1, Fraction(-9, 10), value=-3), True),
        (pair(1, Fraction(9, 10) - TINY), False),
        (pair(1, 1 - TINY), True),
        (pair(1, 1), False),
        (pair(1, Fraction(9, 10), first=TINY), False),
        (pair(Fraction(1, 2), Fraction(19, 40), score=4), True),
        (pair(Fraction(1, 2), Fraction(19, 40), score=4 + TINY), False),
        (pair(1, Fraction(9, 10), score=-1), False),
        (pair(0, 0), False),
        (pair(1, Fraction(9, 10), value=0), False),
        (Instance.of(score=EYE, value=EYE, tokens=[[0, 0], [1, 0], [1, 0]], setting=CAUSAL), False),
        (Instance.of(score=[[1]], value=[[1]], tokens=[[0], [1]], setting=CAUSAL), False),
    ],
)
def test_close_pair(instance, holds):
    verdict = CLOSE_PAIR.decide(instance)
    assert (verdict.holds, verdict.fails, verdict.grade) == (holds, not holds, Grade.EXACT)


def test_close_pair_is_about_the_start():
    bare = Instance.of(score=[[1]], value=[[1]], setting=CAUSAL)
    assert CLOSE_PAIR.decide(bare).status is Status.UNDECIDED


def test_statements_keep_to_their_variant():
    full = Instance.of(score=EYE, value=[[-1, 0], [0, -1]], metric=EYE, tokens=[[1, 0]])
    for theorem in (T14, T14b, T14c, T14d, T14e, T14f):
        assert theorem.applies(full).status is Status.UNDECIDED


# Numbers


def number(instance: Instance, expression) -> arb:
    return Values.at(instance).enclose(expression)


def test_the_pair_of_the_counterexample():
    """theory: (x_3 − x_2)(ẋ_3 − ẋ_2) ≈ −0.0054 at W = V = 1, tokens (0, 1, 9/10)."""
    e = Values.at(T14e.examples.witness).system
    half_rate = pair_form_rate(e, 1, 2) / 2
    assert abs(float(number(T14e.examples.witness, half_rate).mid()) + 0.00543) < 1e-5
    plain = Instance.of(score=[[1]], value=[[1]], tokens=[[0], [1], [Fraction(9, 10)]])
    assert number(plain, pair_form_rate(Values.at(plain).system, 1, 2)) > 0


@given(st.integers(2, 9), st.fractions(Fraction(1, 4), Fraction(3, 2), max_denominator=8))
def test_any_positive_score_has_such_a_pair(score, size):
    """Beyond the family: for W > 0 the pair turns as soon as x_3 is close enough below x_2."""
    nearest = 1 - Fraction(1, 2 * 3 ** int(score * size**2 + 2))
    instance = pair(size, size * nearest, score=score)
    assert T14e.judge(T14e.claim("the distance moves the wrong way"), instance).holds


@pytest.mark.parametrize(("x", "outward"), [(Fraction(5, 6), True), (Fraction(4, 5), False)])
def test_a_hurwitz_sum_of_heads_is_not_enough(x, outward):
    """T14d's example: V_1 + V_2 = −1, yet tokens (0, x) move outward for x² > log 2 ≈ 0.693."""
    instance = Instance.of(
        score=[[1]],
        value=[[1]],
        W_2=[[-1]],
        V_2=[[-2]],
        metric=[[1]],
        tokens=[[0], [x]],
        setting=TWO_HEADS,
    )
    values = Values.at(instance)
    assert values[abscissa] == -1
    assert COMMON_METRIC.decide(instance).fails
    speed = values.enclose(values.system.v[1, 0])
    assert (speed > 0, speed < 0) == (outward, not outward)


def test_alpha_is_that_of_the_sum_of_the_heads():
    instance = two_heads([[1, 5], [0, -7]], [[1, -5], [0, 2]], tokens=[[1, 0]])
    assert number(instance, abscissa) == 2


@pytest.mark.parametrize("count", [2, 3, 4])
def test_the_constant_of_each_token_is_sharp(count):
    """The last of `count` tokens attains κ_i where the others score 1 + κ_i below its own score.

    With W = A = V = 1 and x_i = 2 those sit at 2 − (1 + κ_i)/2, here to 1/10⁸: the gap is of second order.
    """
    kappa = N(LambertW((count - 1) * exp(-1)), 30)
    other = Fraction(int(10**8 * (2 - (1 + kappa) / 2)), 10**8)
    tokens = [*[[other]] * (count - 1), [2]]
    instance = Instance.of(score=[[1]], response=[[1]], tokens=tokens, setting=CAUSAL)
    gaps = [left - right for left, right in sides(T14f.claim("energy inequality"), instance)]
    assert 0 <= float(gaps[-1].mid()) < 1e-12
    assert float(gaps[0].mid()) == pytest.approx(0, abs=1e-20)  # the first token sees itself only: κ_1 = 0


def test_the_first_token_needs_no_threshold():
    """However small: Ė_1 = 2λE_1 where T4 would subtract κ_n."""
    instance = Instance.of(score=[[1]], response=[[1]], tokens=[[Fraction(1, 1000)], [-5]], setting=CAUSAL)
    e = Values.at(instance).system
    gap = number(instance, token_energy_rate(e, 0) - 2 * token_energy(e, 0))
    assert gap.contains(0)
    assert number(instance, token_energy_rate(e, 0)) > 0


def test_the_linear_limit_is_exact_for_equal_scores():
    """W = 0: ẋ_k = (1/k) V Σ_{j≤k} x_j, and the claim's two sides are both 0."""
    instance = Instance.of(
        score=[[0, 0], [0, 0]],
        value=SHEAR,
        metric=[[1, 1], [1, 6]],
        tokens=[[1, 2], [3, -1], [0, 5]],
        setting=CAUSAL,
    )
    for left, right in sides(T14b.claim("close to the linear limit"), instance):
        assert left == 0
        assert right.contains(0)
    doubled = T14b.wrong[1].scale
    assert T14b.judge(T14b.claim("close to the linear limit"), instance, doubled).fails


def test_the_metric_of_the_wrong_variant_is_refuted():
    """Under full attention the first token is pushed by later ones: T14's claims are false there."""
    instance = Instance.of(
        score=EYE, value=[[-1, 0], [0, -1]], metric=EYE, tokens=[[0, 0], [3, 1]], setting=Setting()
    )
    assert T14.plant(T14.wrong[0]).applies(instance).holds
    assert T14.judge(T14.claim("the first token is linear"), instance).fails
    causal = Instance.of(
        score=EYE, value=[[-1, 0], [0, -1]], metric=EYE, tokens=[[0, 0], [3, 1]], setting=CAUSAL
    )
    assert not T14.judge(T14.claim("the first token is linear"), causal).fails


def test_planted_constants_are_scaled_where_they_stand():
    """κ_i/2 is refuted by the sharp pair, 2κ_i is not: the constant may be too large but not too small."""
    kappa = N(LambertW(exp(-1)), 30)
    other = Fraction(int(10**8 * (2 - (1 + kappa) / 2)), 10**8)
    instance = Instance.of(score=[[1]], response=[[1]], tokens=[[other], [2]], setting=CAUSAL)
    claim = T14f.claim("energy inequality")
    scale = next(p.scale for p in T14f.wrong if "κ" in p.name)
    assert T14f.judge(claim, instance, scale).fails
    assert not T14f.judge(claim, instance, {symbol: fmpq(2) for symbol in scale}).fails
