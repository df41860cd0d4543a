"""The normal form of finite sums: what is equal agrees, and every near miss does not."""

import pytest
from sympy import Derivative, IndexedBase, Integer, Rational, Sum, Symbol, exp, log, simplify, symbols

from theory.notation import P, Z, a, b, d, i, j, k, n, s, tau, w, x
from theory.sums import Definition, Total, at_size, normal_form, unfold

y, z = IndexedBase("y", real=True), IndexedBase("z", real=True)
c = Symbol("c", real=True)
SOFTMAX = (Definition(P, lambda index: exp(s[index]) / Z),)
NORMALISER = (Total(lambda index: exp(s[index]), Z, n),)
excess = Sum((P[j] - 1 / n) * s[j], (j, 1, n))


def over(index, upper=n):
    return (index, 1, upper)


def equal(left, right, **rules) -> bool:
    return normal_form(left - right, **rules) == 0


TRUE = {
    "linearity": (Sum(2 * x[j, a] + c, over(j)), 2 * Sum(x[k, a], over(k)) + n * c),
    "an index that occurs nowhere": (Sum(c, over(i), over(j)), n**2 * c),
    "a range of another length": (Sum(c, over(i), over(a, d)), n * d * c),
    "only the second range": (Sum(s[i], over(i), over(a, d)), d * Sum(s[j], over(j))),
    "renaming": (Sum(s[i] * s[j] ** 2, over(i), over(j)), Sum(s[k] ** 2 * s[b], over(k), over(b))),
    "swapping": (Sum(s[i] * x[i, j], over(i), over(j, d)), Sum(s[k] * x[k, a], over(a, d), over(k))),
    "nesting": (Sum(s[i] * Sum(P[j], over(j)), over(i)), Sum(s[i], over(i)) * Sum(P[k], over(k))),
    "the square of a sum": (Sum(s[j], over(j)) ** 2, Sum(s[i] * s[j], over(i), over(j))),
    "the cube of a sum": (Sum(s[j], over(j)) ** 3, Sum(s[i] * s[j] * s[k], over(i), over(j), over(k))),
    "a product of brackets": ((s[i] + 1) * (s[i] - 1), s[i] ** 2 - 1),
    "brackets under a sum": (
        Sum((s[j] + c) ** 2, over(j)),
        Sum(s[j] ** 2 + 2 * c * s[j], over(j)) + n * c**2,
    ),
    "the double sum of squared differences": (
        Sum((s[i] - s[j]) ** 2, over(i), over(j)),
        2 * n * Sum(s[j] ** 2, over(j)) - 2 * Sum(s[j], over(j)) ** 2,
    ),
    "the same name inside and outside": (
        Sum(s[j], over(j)) * Sum(s[j], over(j)) * s[j],
        s[j] * Sum(s[i] * s[k], over(i), over(k)),
    ),
}

FALSE = {
    "a wrong coefficient": (Sum(2 * s[j], over(j)), 3 * Sum(s[j], over(j))),
    "a forgotten range": (Sum(c, over(i), over(j)), n * c),
    "the wrong range": (Sum(c, over(i), over(a, d)), n**2 * c),
    "a range of another length": (Sum(s[i], over(i)), Sum(s[i], over(i, d))),
    "the range of the other index": (Sum(s[i], over(i), over(a, d)), n * Sum(s[j], over(j))),
    "free is not bound": (Sum(s[i], over(i)), n * s[i]),
    "another free index": (Sum(s[i], over(i)) * s[j], Sum(s[i], over(i)) * s[k]),
    "the sum of squares": (Sum(s[j], over(j)) ** 2, Sum(s[j] ** 2, over(j))),
    "the cube is not the sum of cubes": (Sum(s[j], over(j)) ** 3, Sum(s[j] ** 3, over(j))),
    "the diagonal": (Sum(s[i] * s[j], over(i), over(j)), Sum(s[i] ** 2, over(i)) * n),
    "swapped entries": (Sum(x[i, j] * s[i], over(i), over(j)), Sum(x[i, j] * s[j], over(i), over(j))),
    "transposed entries": (Sum(w[a, b] * s[a], over(a), over(b)), Sum(w[b, a] * s[a], over(a), over(b))),
    "two chains": (
        Sum(w[i, j] * w[j, k], over(i), over(j), over(k)),
        Sum(w[i, j] * w[i, k], over(i), over(j), over(k)),
    ),
    "a sign in the squared differences": (
        Sum((s[i] - s[j]) ** 2, over(i), over(j)),
        2 * n * Sum(s[j] ** 2, over(j)) + 2 * Sum(s[j], over(j)) ** 2,
    ),
    "a product of sums": (Sum(s[i] * P[i], over(i)), Sum(s[i], over(i)) * Sum(P[j], over(j)) / n),
    "another base": (Sum(s[i], over(i)), Sum(P[i], over(i))),
    "one off": (Sum(s[i], over(i)) + 1, Sum(s[i], over(i))),
}


@pytest.mark.parametrize("name", TRUE)
def test_true_identities_have_one_normal_form(name):
    left, right = TRUE[name]
    assert equal(left, right)
    assert normal_form(left) == normal_form(right)


@pytest.mark.parametrize("name", FALSE)
def test_near_misses_keep_different_normal_forms(name):
    left, right = FALSE[name]
    assert not equal(left, right)
    assert not equal(right, left)


@pytest.mark.parametrize("name", TRUE)
@pytest.mark.parametrize("sizes", [{n: 1, d: 1}, {n: 2, d: 3}, {n: 3, d: 2}])
def test_the_true_identities_are_true_written_out(name, sizes):
    left, right = TRUE[name]
    assert at_size(left - right, sizes).expand() == 0


@pytest.mark.parametrize("name", FALSE)
def test_the_near_misses_are_false_written_out(name):
    left, right = FALSE[name]
    assert at_size(left - right, {n: 2, d: 3}).expand() != 0


def test_the_normal_form_is_stable():
    for left, _ in TRUE.values():
        assert normal_form(normal_form(left)) == normal_form(left)


# Definitions and totals

SOFTMAX_TRUE = {
    "rows sum to one": (Sum(P[j], over(j)), Integer(1)),
    "an average of a constant": (Sum(P[j] * c, over(j)), c),
    "Chebyshev's sum": (excess, Sum((P[j] - P[k]) * (s[j] - s[k]), over(j), over(k)) / (2 * n)),
    "Jeffreys' divergence": (
        excess,
        Sum(P[j] * log(n * P[j]), over(j)) - Sum(log(n * P[j]) / n, over(j)),
    ),
    "free energy": (Sum(P[j] * s[j], over(j)), log(Z) + Sum(P[j] * log(P[j]), over(j))),
    "variance": (
        Sum(P[j] * s[j] ** 2, over(j)) - Sum(P[j] * s[j], over(j)) ** 2,
        Sum(P[j] * P[k] * (s[j] - s[k]) ** 2, over(j), over(k)) / 2,
    ),
    "a total in a denominator": (
        Sum(exp(s[j]) * x[j, a], over(j)) / Sum(exp(s[k]), over(k)),
        Sum(P[j] * x[j, a], over(j)),
    ),
    "a total under a logarithm": (log(Sum(exp(s[k]), over(k))), log(Z)),
}
SOFTMAX_FALSE = {
    "rows do not sum to n": (Sum(P[j], over(j)), n),
    "Chebyshev's sum without the half": (excess, Sum((P[j] - P[k]) * (s[j] - s[k]), over(j), over(k)) / n),
    "half of Jeffreys' divergence": (excess, Sum(P[j] * log(n * P[j]), over(j))),
    "free energy with the other sign": (
        Sum(P[j] * s[j], over(j)),
        log(Z) - Sum(P[j] * log(P[j]), over(j)),
    ),
    "variance without the half": (
        Sum(P[j] * s[j] ** 2, over(j)) - Sum(P[j] * s[j], over(j)) ** 2,
        Sum(P[j] * P[k] * (s[j] - s[k]) ** 2, over(j), over(k)),
    ),
    "the second moment is not the variance": (
        Sum(P[j] * s[j] ** 2, over(j)),
        Sum(P[j] * P[k] * (s[j] - s[k]) ** 2, over(j), over(k)) / 2,
    ),
    "an average is not a mean": (Sum(P[j] * s[j], over(j)), Sum(s[j], over(j)) / n),
    "twice the exponent": (Sum(exp(2 * s[j]), over(j)), Z**2),
    "the square of a weight": (Sum(P[j] ** 2, over(j)), Integer(1)),
    "a total of another row": (Sum(exp(x[j, a]), over(j)), Z),
}


@pytest.mark.parametrize("name", SOFTMAX_TRUE)
def test_attention_identities(name):
    left, right = SOFTMAX_TRUE[name]
    assert equal(left, right, definitions=SOFTMAX, totals=NORMALISER)


@pytest.mark.parametrize("name", SOFTMAX_FALSE)
def test_false_attention_identities(name):
    left, right = SOFTMAX_FALSE[name]
    assert not equal(left, right, definitions=SOFTMAX, totals=NORMALISER)


@pytest.mark.parametrize("name", ["rows sum to one", "Chebyshev's sum", "free energy", "variance"])
def test_without_the_rules_nothing_is_known_of_attention(name):
    left, right = SOFTMAX_TRUE[name]
    assert not equal(left, right)
    assert not equal(left, right, definitions=SOFTMAX)


def test_a_total_may_have_any_value():
    totals = (Total(lambda index: P[index], Integer(1), n),)
    assert equal(Sum(P[j] * c, over(j)), c, totals=totals)
    assert not equal(Sum(P[j] ** 2, over(j)), 1, totals=totals)
    assert equal(1 / Sum(P[j], over(j)), 1, totals=totals)


def test_a_total_holds_over_its_own_range_only():
    totals = (Total(lambda index: P[index], Integer(1), n),)
    assert not equal(Sum(P[j], over(j, d)), 1, totals=totals)
    assert not equal(Sum(P[j] * c, over(j, d)), c, totals=totals)
    assert not equal(1 / Sum(P[j], over(j, d)), 1, totals=totals)


@pytest.mark.parametrize("row", [a, b, i, j])
def test_a_definition_captures_no_index(row):
    """y_b with y_i = Σ_b w_ib is Σ_a w_ba, not Σ_b w_bb."""
    rows = (Definition(y, lambda index: Sum(w[index, b], over(b))),)
    assert equal(y[row], Sum(w[row, k], over(k)), definitions=rows)
    assert not equal(y[row], Sum(w[k, k], over(k)), definitions=rows)
    assert equal(Sum(y[b], over(b)), Sum(w[i, j], over(i), over(j)), definitions=rows)


def test_a_definition_by_a_sum_with_its_own_index():
    scores = (Definition(y, lambda row: Sum(w[row, b] * x[row, b], over(b, d))),)
    assert equal(Sum(y[i], over(i)), Sum(w[i, a] * x[i, a], over(a, d), over(i)), definitions=scores)
    assert not equal(Sum(y[i], over(i)), Sum(w[a, i] * x[i, a], over(a, d), over(i)), definitions=scores)


def test_derivatives_are_carried_out():
    left = Derivative(log(Sum(exp(tau * s[k]), over(k))), tau)
    right = Sum(s[k] * exp(tau * s[k]), over(k)) / Z
    totals = (Total(lambda index: exp(tau * s[index]), Z, n),)
    assert equal(left, right, totals=totals)
    assert not equal(2 * left, right, totals=totals)
    assert unfold(Derivative(tau**3, tau), ()) == 3 * tau**2


def test_logarithms_of_products_are_split():
    assert unfold(log(P[j]), SOFTMAX) == s[j] - log(Z)


# Symmetric entries


def test_symmetric_entries_take_a_declaration():
    left, right = Sum(s[a] * w[a, b], over(a), over(b)), Sum(s[a] * w[b, a], over(a), over(b))
    assert not equal(left, right)
    assert equal(left, right, symmetric=(w,))
    assert not equal(left, right, symmetric=(x,))


def test_a_symmetry_does_not_identify_more_than_it_says():
    left, right = Sum(w[a, b] * w[b, i], over(a), over(b)), Sum(w[a, b] * w[a, i], over(a), over(b))
    assert equal(left, right, symmetric=(w,))
    other = Sum(w[a, a] * w[b, i], over(a), over(b))
    assert not equal(left, other, symmetric=(w,))
    assert equal(w[i, j], w[j, i], symmetric=(w,))
    assert not equal(w[i, j], w[i, k], symmetric=(w,))


# What the fragment does not contain


def test_sums_start_at_one():
    with pytest.raises(ValueError, match="start at 1, this one at 0"):
        normal_form(Sum(s[j], (j, 0, n)))


@pytest.mark.parametrize(
    "triangular",
    [
        Sum(s[j], (j, 1, i), (i, 1, n)),
        Sum(y[i] * Sum(s[j], (j, 1, i)), (i, 1, n)),
        Sum(c, (j, 1, i), (i, 1, n)),
        Sum(Sum(c, (j, 1, i)) ** 2, (i, 1, n)),
    ],
)
def test_a_causal_range_is_refused_rather_than_misread(triangular):
    """Σ_i Σ_{j≤i} c is n(n+1)/2·c, not n·i·c."""
    with pytest.raises(ValueError, match="depends on another index"):
        normal_form(triangular)


def test_a_range_up_to_a_free_index_is_fine():
    assert equal(Sum(c, (j, 1, i)), i * c)


def test_a_denominator_that_is_not_a_total_stays_as_it_is():
    p, q = symbols("p q", positive=True)
    assert equal((p + q) * (p + q) ** -1 - 1, 0) or simplify(normal_form((p + q) / (p + q) - 1)) == 0
    assert not equal(1 / (1 + Sum(s[j], over(j))), 1 / (2 + Sum(s[j], over(j))))


def test_written_out_at_a_size():
    expression = Sum(Rational(1, 2) * s[j] * n, over(j))
    assert at_size(expression, {n: 3}) == Rational(3, 2) * (s[1] + s[2] + s[3])
    assert at_size(Sum(x[i, a], over(i), over(a, d)), {n: 1, d: 2}) == x[1, 1] + x[1, 2]
