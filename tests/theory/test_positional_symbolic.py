"""S1: the exclusion, its equality case, and what it does not say."""

from itertools import permutations
from math import factorial

import pytest
from flint import arb, fmpq
from hypothesis import given
from hypothesis import strategies as st

from theory.instance import Instance
from theory.registry import statement
from theory.theorem import sides

S1 = statement("S1")
ENTRIES = st.fractions(-3, 3, max_denominator=3)


def head(logits) -> Instance:
    return Instance.of(score=[[0]], value=[[0]], tokens=[[0]] * len(logits), logits=logits)


def squares(m: int):
    return st.lists(st.lists(ENTRIES, min_size=m, max_size=m), min_size=m, max_size=m)


@given(st.integers(1, 4).flatmap(squares))
def test_the_reduced_sum_is_the_sum_over_all_permutations(logits):
    m = len(logits)
    total = sum(
        (logits[p[c]][c] - logits[c][c]) ** 2 + (logits[c][p[c]] - logits[c][c]) ** 2
        for p in permutations(range(m))
        for c in range(m)
    ) / (factorial(m) * m)
    [(bound, _)] = sides(S1.claim("exclusion"), head(logits))
    gap = bound - arb(fmpq(total.numerator, total.denominator)) if m else bound
    assert gap.contains(0)
    assert float(gap.rad()) < 1e-12  # the test itself computes with 53 bits


@given(st.integers(1, 4).flatmap(squares))
def test_the_claims_hold(logits):
    for claim in S1.claims:
        assert not S1.judge(claim, head(logits)).fails


@given(st.lists(ENTRIES, min_size=2, max_size=4))
def test_equality_where_content_and_position_count_alike(own):
    """M_kj = (λ_j + λ_k)/2 attains the bound."""
    m = len(own)
    instance = head([[(own[j] + own[k]) / 2 for j in range(m)] for k in range(m)])
    [(bound, variance)] = sides(S1.claim("exclusion"), instance)
    assert (bound - variance).contains(0)


@pytest.mark.parametrize("kind", ["positional", "symbolic"])
def test_a_pure_head_pays_with_the_other_deviation(kind):
    """Positional: M_kj = λ_j. Symbolic: M_kj = λ_k. Either way the other half carries twice the variance."""
    own = [0, 3, 1]
    rows = [[own[j] if kind == "positional" else own[k] for j in range(3)] for k in range(3)]
    [(bound, variance)] = sides(S1.claim("exclusion"), head(rows))
    assert (bound - 2 * variance).contains(0)
    assert variance > 1


def test_both_at_once_means_constant_logits():
    [(bound, variance)] = sides(S1.claim("exclusion"), head([[2, 2], [2, 2]]))
    assert bound == 0
    assert variance == 0
