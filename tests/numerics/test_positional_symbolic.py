"""The metric of block swaps against its definition in loops, its extreme heads, and S1's quantities."""

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from numerics import InputError
from numerics.encodings import rotary_frequencies, rotary_turns
from numerics.positional_symbolic import (
    KINDS,
    behaviour,
    deviations,
    logit_variance,
    mean_square_deviations,
    rotary_logits,
    rotary_pair_logits,
)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def positional(own):
    """M_kj = λ_j."""
    return own[..., None, :].expand(*own.shape, own.shape[-1])


def symbolic(own):
    """M_kj = λ_k."""
    return positional(own).mT


def mixture(own, share):
    return (1 - share) * positional(own) + share * symbolic(own)


# The metric


def swap(size, i, j, m):
    """Content at each position once blocks i and j have changed places: from one copy, both at once."""
    content = torch.arange(m)
    order = content.clone()
    order[i * size : (i + 1) * size] = content[j * size : (j + 1) * size]
    order[j * size : (j + 1) * size] = content[i * size : (i + 1) * size]
    return order


def careless_swap(size, i, j, m):
    """Labels of blocks renamed one after the other: the second write undoes the first."""
    label = torch.arange(m) // size
    label[label == i] = j
    label[label == j] = i
    return label * size + torch.arange(m) % size


def directly(M, blocks, temperature, of, swap=swap):
    """The definition of one head's scores, in loops."""
    m = len(M)
    size = m // blocks

    def levels(logits):
        values = torch.softmax(logits, 0) if of == "weights" else logits
        return [values[b * size : (b + 1) * size].mean() for b in range(blocks)]

    def cosine(u, v):
        return (u[0] * v[0] + u[1] * v[1]) / math.sqrt((u[0] ** 2 + u[1] ** 2) * (v[0] ** 2 + v[1] ** 2))

    d = levels(M.diagonal())
    scores, gaps = [], []
    for i in range(blocks):
        for j in range(i + 1, blocks):
            after = levels(M[swap(size, i, j, m), torch.arange(m)])
            pair = after[i], after[j]
            scores.append((cosine(pair, (d[i], d[j])), cosine(pair, (d[j], d[i]))))
            gaps.append(abs(d[i] - d[j]) / temperature)
    weight = torch.softmax(torch.stack(gaps), 0)
    return weight @ torch.tensor(scores, dtype=torch.float64)


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize(("m", "blocks"), [(2, 2), (6, 2), (6, 3), (6, 6), (12, 4)])
def test_the_scores_are_those_of_the_definition(m, blocks, of):
    M = 2 * randn(2, 3, m, m, seed=m + blocks)
    found = behaviour(M, blocks, 0.3, of)
    for index in [(layer, head) for layer in range(2) for head in range(3)]:
        expected = directly(M[index], blocks, 0.3, of)
        assert found.positional[index] == pytest.approx(float(expected[0]), rel=1e-10)
        assert found.symbolic[index] == pytest.approx(float(expected[1]), rel=1e-10)


def test_both_blocks_move_in_a_swap():
    """Renaming block labels one after the other puts one block's content into both places."""
    assert swap(2, 0, 2, 6).tolist() == [4, 5, 2, 3, 0, 1]
    assert careless_swap(2, 0, 2, 6).tolist() == [0, 1, 2, 3, 0, 1]
    M = symbolic(torch.tensor([3.0, 0, 0, 0, 0, 1]).double())
    right, careless = (directly(M, 3, 0.1, "weights", how) for how in (swap, careless_swap))
    found = behaviour(M, 3, 0.1)
    assert float(found.symbolic) == pytest.approx(float(right[1]), rel=1e-12) == pytest.approx(1, rel=1e-12)
    assert careless[1] < 0.9


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("make", [positional, symbolic])
def test_a_pure_head_scores_one_and_its_other_score_depends_on_the_block_means(make, of):
    """The other score is the weighted mean of 2ab/(a² + b²)."""
    own = 2 * randn(4, 12, seed=1)
    found = behaviour(make(own), 6, 0.05, of)
    pure, other = found.positional, found.symbolic
    if make is symbolic:
        pure, other = other, pure
    close(pure, torch.ones(4).double())
    d = (torch.softmax(own, -1) if of == "weights" else own).view(4, 6, 2).mean(-1)
    i, j = torch.triu_indices(6, 6, 1)
    a, b = d[:, i], d[:, j]
    weight = torch.softmax((a - b).abs() / 0.05, -1)
    close(other, (weight * 2 * a * b / (a**2 + b**2)).sum(-1))
    assert (other < 0.9).all()


def test_two_very_different_blocks_tell_positional_from_symbolic():
    own = torch.tensor([9.0, 9, 0, 0], dtype=torch.float64)
    assert behaviour(positional(own), 2, 0.1).symbolic < 1e-3
    assert behaviour(symbolic(own), 2, 0.1).positional < 1e-3


def test_a_uniform_head_scores_high_on_both_and_its_entropy_says_why():
    found = behaviour(torch.full((3, 8, 8), 0.7).double(), 4, 0.1)
    for score in (found.positional, found.symbolic):
        close(score, torch.ones(3).double())
    close(found.entropy, torch.full((3,), math.log(8), dtype=torch.float64))
    assert behaviour(positional(4 * randn(8, seed=2)), 4, 0.1).entropy < 0.7 * math.log(8)


@pytest.mark.parametrize("of", KINDS)
def test_mixtures_lie_between_and_go_one_way(of):
    """Logits constant on blocks: then each pair's score is monotone in the share of content."""
    own = randn(5, 6, seed=3).exp().repeat_interleave(2, -1)
    shares = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None, None, None]
    found = behaviour(mixture(own, shares), 6, 0.1, of)
    assert (found.positional.diff(dim=0) < 0).all()
    assert (found.symbolic.diff(dim=0) > 0).all()
    close(found.positional[10], found.symbolic[10])
    close(found.positional, found.symbolic.flip(0))


def test_zero_logits_leave_cosines_of_zero_vectors_which_count_as_one():
    found = behaviour(torch.zeros(4, 4).double(), 2, 0.1, "logits")
    assert found.positional == found.symbolic == 1


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("size", [1e-200, 1e3, 1e200])
def test_sharp_attention_and_extreme_logits_leave_finite_scores(size, of):
    """Weights that underflow to 0 in two blocks still have a ratio, so a cosine."""
    found = behaviour(symbolic(size * torch.arange(1.0, 9).double()), 4, 0.1, of)
    close(found.symbolic, torch.tensor(1.0).double())
    assert 0 <= found.positional <= 1 + 1e-12


def test_weights_do_not_notice_a_constant_and_logits_do():
    M = randn(3, 8, 8, seed=4)
    close(behaviour(M, 4, 0.1).positional, behaviour(M + 5, 4, 0.1).positional)
    change = behaviour(M, 4, 0.1, "logits").positional - behaviour(M + 5, 4, 0.1, "logits").positional
    assert (change.abs() > 0.05).all()


def test_the_temperature_moves_weight_to_pairs_of_different_blocks():
    """Cold: only the pair that differs most counts. Hot: all pairs alike."""
    M = randn(6, 6, seed=5)
    d = torch.softmax(M.diagonal(), 0)
    i, j = int(d.argmin()), int(d.argmax())
    ratio = M[j, i].exp(), M[i, j].exp()
    cold = (ratio[0] * d[i] + ratio[1] * d[j]) / math.hypot(*ratio) / math.hypot(d[i], d[j])
    assert float(behaviour(M, 6, 1e-4).positional) == pytest.approx(float(cold), rel=1e-9)
    pairs = torch.combinations(torch.arange(6))
    hot = torch.stack([behaviour(M[pair][:, pair], 2, 1.0).positional for pair in pairs])
    assert float(behaviour(M, 6, 1e9).positional) == pytest.approx(float(hot.mean()), rel=1e-6)


def test_any_leading_axes_and_float32():
    M = randn(2, 3, 4, 8, 8, seed=6)
    found = behaviour(M, 4, 0.1)
    assert found.positional.shape == found.symbolic.shape == found.entropy.shape == (2, 3, 4)
    close(found.symbolic[1, 2, 3], behaviour(M[1, 2, 3], 4, 0.1).symbolic)
    close(behaviour(M.float(), 4, 0.1).positional.double(), found.positional, 1e-5)


# Rotary heads


def test_rotary_logits_turn_by_the_distance_to_the_query():
    """M_kj = qᵀ R_{j−m} k_k, written out with turns by negative angles."""
    query, keys, turns = randn(2, 4, seed=7), randn(2, 5, 4, seed=8), rotary_turns(9, 4, base=20.0)
    M = rotary_logits(query, keys, turns)
    for head, k, j in [(0, 0, 0), (1, 3, 1), (0, 2, 4), (1, 4, 0)]:
        assert float(M[head, k, j]) == pytest.approx(
            float(query[head] @ turns[5 - j].T @ keys[head, k]), rel=1e-12
        )
    close(rotary_logits(query, keys, turns.expand(2, -1, -1, -1)), M)


@pytest.mark.parametrize("layout", ["interleaved", "half-split"])
def test_the_logits_of_the_frequencies_add_up_to_the_head(layout):
    query, keys = randn(3, 2, 6, seed=9), randn(3, 2, 7, 6, seed=10)
    parts = rotary_pair_logits(query, keys, rotary_frequencies(6, 30.0), layout)
    assert parts.shape == (3, 2, 3, 7, 7)
    close(parts.sum(-3), rotary_logits(query, keys, rotary_turns(8, 6, base=30.0, layout=layout)))
    one = rotary_pair_logits(query[0, 0, :2], keys[0, 0, :, :2], rotary_frequencies(6, 30.0)[1:2])
    turns = rotary_turns(8, 2, base=1.0)  # the frequency 1
    turned = rotary_pair_logits(query[0, 0, :2], keys[0, 0, :, :2], torch.ones(1).double())
    close(turned[0], rotary_logits(query[0, 0, :2], keys[0, 0, :, :2], turns))
    assert (one - turned).abs().max() > 0.1


def test_equal_keys_make_a_rotary_head_positional_and_no_turning_makes_it_symbolic():
    query, keys = randn(4, 6, seed=11), randn(4, 12, 6, seed=12)
    equal = rotary_logits(query, keys[:, :1].expand_as(keys), rotary_turns(13, 6))
    close(behaviour(equal, 6, 0.1).positional, torch.ones(4).double())
    still = rotary_pair_logits(query, keys, torch.zeros(3).double())
    close(behaviour(still, 6, 0.1).symbolic, torch.ones(4, 3).double())


# S1


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_the_sum_over_all_permutations_is_its_reduction(seed, m):
    M = randn(2, m, m, seed=seed)
    orders = torch.tensor(list(permutations(range(m))))
    for written, reduced in zip(deviations(M, orders), mean_square_deviations(M), strict=True):
        close(written.square().sum((-2, -1)) / (math.factorial(m) * m), reduced)


@given(st.integers(0, 10_000), st.integers(2, 20), st.floats(0, 1))
def test_exclusion(seed, m, share):
    """S1's bound, near its equality for small noise; 1e-12 is rounding of sums of at most 400 terms."""
    own = randn(m, seed=seed)
    M = mixture(own, share) + share * (1 - torch.eye(m).double()) * randn(m, m, seed=seed + 1)
    assert logit_variance(M) <= sum(mean_square_deviations(M)) * (1 + 1e-12)


def test_exclusion_is_an_equality_where_content_and_position_count_alike():
    own = randn(6, 9, seed=13)
    close(sum(mean_square_deviations(mixture(own, 0.5))), own.var(-1, correction=0))
    close(sum(mean_square_deviations(mixture(own, 0.25))), 1.25 * own.var(-1, correction=0))
    zero, twice = mean_square_deviations(positional(own))
    close(zero, torch.zeros(6).double())
    close(twice, 2 * own.var(-1, correction=0))


def test_deviations_of_one_permutation():
    M = torch.arange(9).double().view(3, 3)
    moved_keys, moved_positions = deviations(M, torch.tensor([[1, 2, 0]]))
    assert moved_keys.tolist() == [[3 - 0, 7 - 4, 2 - 8]]
    assert moved_positions.tolist() == [[1 - 0, 5 - 4, 6 - 8]]


# Bad input

SQUARE, QUERY, KEYS = torch.zeros(2, 6, 6).double(), torch.zeros(2, 4).double(), torch.zeros(2, 6, 4).double()
TURNS, FREQUENCIES = torch.zeros(7, 4, 4).double(), torch.zeros(2).double()


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("logits", lambda: behaviour(SQUARE[..., :5], 2, 0.1)),
        ("logits", lambda: behaviour(SQUARE[0, 0], 2, 0.1)),
        ("logits", lambda: behaviour(SQUARE.tolist(), 2, 0.1)),
        ("logits", lambda: behaviour(SQUARE.long(), 2, 0.1)),
        ("logits", lambda: behaviour(SQUARE[:, :0, :0], 2, 0.1)),
        ("logits", lambda: logit_variance(SQUARE[..., :5])),
        ("logits", lambda: mean_square_deviations(SQUARE[..., :5, :])),
        ("blocks", lambda: behaviour(SQUARE, 4, 0.1)),
        ("blocks", lambda: behaviour(SQUARE, 1, 0.1)),
        ("blocks", lambda: behaviour(SQUARE, 12, 0.1)),
        ("blocks", lambda: behaviour(SQUARE, 2.0, 0.1)),
        ("temperature", lambda: behaviour(SQUARE, 2, 0.0)),
        ("temperature", lambda: behaviour(SQUARE, 2, -1.0)),
        ("temperature", lambda: behaviour(SQUARE, 2, math.nan)),
        ("temperature", lambda: behaviour(SQUARE, 2, math.inf)),
        ("of", lambda: behaviour(SQUARE, 2, 0.1, "weight")),
        ("keys", lambda: rotary_logits(QUERY, KEYS[:1], TURNS)),
        ("keys", lambda: rotary_logits(QUERY, KEYS.float(), TURNS)),
        ("turns", lambda: rotary_logits(QUERY, KEYS, TURNS[:6])),
        ("turns", lambda: rotary_logits(QUERY, KEYS, TURNS[:, :2])),
        ("turns", lambda: rotary_logits(QUERY, KEYS, TURNS.expand(3, -1, -1, -1))),
        ("frequencies", lambda: rotary_pair_logits(QUERY, KEYS, FREQUENCIES[:1])),
        ("layout", lambda: rotary_pair_logits(QUERY, KEYS, FREQUENCIES, "halves")),
        ("orders", lambda: deviations(SQUARE, torch.tensor([[0, 1, 2, 3, 4, 4]]))),
        ("orders", lambda: deviations(SQUARE, torch.tensor([0, 1, 2, 3, 4, 5]))),
    ],
)
def test_bad_input(argument, call):
    with pytest.raises(InputError) as raised:
        call()
    assert raised.value.argument == argument
