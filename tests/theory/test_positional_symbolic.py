"""S1: the exclusion, its equality case, and what it does not say. S1b: pure heads."""

from fractions import Fraction
from itertools import permutations
from math import factorial
from random import Random
from statistics import pvariance

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sympy import Integer, Rational, sympify

from theory.instance import Instance
from theory.notation import unit
from theory.registry import statement
from theory.system import Setting, explicit_system
from theory.theorem import sides
from tokendyn.moment import Moment
from tokendyn.registry import rows

S1 = statement("S1")
ENTRIES = st.fractions(-3, 3, max_denominator=3)


def head(logits) -> Instance:
    return Instance.of(score=[[0]], value=[[0]], tokens=[[0]] * len(logits), logits=logits)


def squares(m: int):
    return st.lists(st.lists(ENTRIES, min_size=m, max_size=m), min_size=m, max_size=m)


def exactly(claim, logits) -> list[tuple[Rational, Rational]]:
    """Both sides of a claim in rational arithmetic, the claim's own expressions."""
    system = explicit_system(len(logits), 1)
    entries = [sympify(entry) for row in logits for entry in row]
    values = {unit: Integer(1), **dict(zip(system.parameters["logits"].flat(), entries, strict=True))}
    return [tuple(side.xreplace(values) for side in pair) for pair in claim.sides(system)]


def over_all_permutations(logits) -> Fraction:
    """(‖δ^pos‖² + ‖δ^sym‖²)/(m!·m) as it is defined."""
    m = len(logits)
    total = sum(
        (logits[p[c]][c] - logits[c][c]) ** 2 + (logits[c][p[c]] - logits[c][c]) ** 2
        for p in permutations(range(m))
        for c in range(m)
    )
    return Fraction(total) / (factorial(m) * m)


@pytest.mark.parametrize("m", range(1, 7))
def test_the_reduced_sum_is_the_sum_over_all_permutations(m):
    """The O(m²) form, exactly: for m = 6 there are 720 permutations."""
    random = Random(m)
    logits = [[Fraction(random.randint(-9, 9), random.randint(1, 9)) for _ in range(m)] for _ in range(m)]
    [(bound, variance)] = exactly(S1.claim("exclusion"), logits)
    assert bound == sympify(over_all_permutations(logits))
    assert bound > variance or m == 1
    assert variance == sympify(pvariance([logits[j][j] for j in range(m)]))


@pytest.mark.parametrize("noise", [0.0, 1e-6, 1e-3, 1.0])
def test_many_keys_leave_the_slack_that_the_derivation_states(noise):
    """m = 200, from equality to far from it; 1e-12 is the rounding of sums of 40,000 terms of order 1."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(3, 200, dtype=torch.float64, generator=generator)
    logits = (own[:, :, None] + own[:, None]) / 2
    free = torch.randn(3, 200, 200, dtype=torch.float64, generator=generator)
    logits = logits + noise * (free - torch.diag_embed(free.diagonal(dim1=1, dim2=2)))
    zero = torch.zeros(3, 1, 1, dtype=torch.float64)
    moment = Moment.of(Setting(), zero.expand(-1, 200, -1), score=zero, value=zero, logits=logits)
    bound, variance = rows()["S1"].sides["exclusion"](moment)
    slack = (2 * logits - own[:, :, None] - own[:, None]).square().sum((1, 2)) / (2 * 200**2)
    assert (bound - variance - slack[:, None]).abs().max() < 1e-12
    gaps, spread = rows()["S1"].sides["logits lie together"](moment)
    assert (gaps >= spread).all()


@given(st.integers(1, 4).flatmap(squares))
def test_the_claims_hold(logits):
    for claim in S1.claims:
        assert not S1.judge(claim, head(logits)).fails


@given(st.lists(ENTRIES, min_size=2, max_size=6))
def test_equality_where_content_and_position_count_alike(own):
    """M_kj = (λ_j + λ_k)/2 leaves exactly nothing, and any other entry something."""
    m = len(own)
    logits = [[(own[j] + own[k]) / 2 for j in range(m)] for k in range(m)]
    [(bound, variance)] = exactly(S1.claim("exclusion"), logits)
    assert bound - variance == 0
    logits[1][0] += Fraction(1, 7)
    [(bound, variance)] = exactly(S1.claim("exclusion"), logits)
    assert bound - variance > 0


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


# S1b

S1b = statement("S1b")
TURN = [[Fraction(3, 5), Fraction(-4, 5)], [Fraction(4, 5), Fraction(3, 5)]]
VECTORS = st.lists(st.integers(-3, 3), min_size=2, max_size=2)


def rotary(key, rotation, tokens) -> Instance:
    unity = [[1, 0], [0, 1]]
    return Instance.of(
        query=unity, key=key, value=unity, rotation=rotation, tokens=tokens, setting=Setting(rotary=True)
    )


@given(st.lists(VECTORS, min_size=2, max_size=4))
def test_heads_without_encoding_are_symbolic_and_equal_keys_positional(tokens):
    """The bounds of S1b are 0 there, so the logits cannot move."""
    plain = sides(S1b.claim("position changed"), rotary([[1, 2], [0, 1]], [[1, 0], [0, 1]], tokens))
    equal = sides(S1b.claim("content changed"), rotary([[0, 0], [1, 1]], TURN, [[q, -q] for q, _ in tokens]))
    for bound, moved in (*plain, *equal):
        assert bound == 0
        assert float(moved.mid()) < 1e-60  # the turns are balls of 128 bits, squared


@given(st.lists(VECTORS, min_size=2, max_size=4))
def test_the_bounds_of_pure_heads_hold(tokens):
    for claim in S1b.claims:
        assert not S1b.judge(claim, rotary([[1, 2], [0, 1]], TURN, tokens)).fails
