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
    behaviour_of_reruns,
    deviations,
    logit_variance,
    mean_square_deviations,
    rotary_logits,
    rotary_pair_logits,
    swap_blocks,
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


# The centred score


def contrast(pair, of):
    """Of two block means."""
    return (pair[0] - pair[1]) / (pair[0] + pair[1]) if of == "weights" else pair[0] - pair[1]


def centred_directly(M, blocks, temperature, of):
    """The centred score of one head, in loops, from softmaxes taken anew after each swap."""
    m = len(M)
    size = m // blocks

    def levels(logits):
        values = torch.softmax(logits, 0) if of == "weights" else logits
        return values.view(blocks, size).mean(1)

    d, parts = levels(M.diagonal()), []
    for i in range(blocks):
        for j in range(i + 1, blocks):
            after = levels(M[swap(size, i, j, m), torch.arange(m)])
            parts.append(((d[i] - d[j]).abs(), contrast(d[[i, j]], of), contrast(after[[i, j]], of)))
    gap, before, after = torch.tensor(parts, dtype=torch.float64).T
    weight = torch.softmax(gap / temperature, 0)
    return 2 * weight @ (before * after) / (weight @ (before**2 + after**2))


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize(("m", "blocks"), [(2, 2), (6, 3), (12, 4)])
def test_the_centred_score_is_that_of_the_definition(m, blocks, of):
    M = 2 * randn(5, m, m, seed=m + blocks)
    close(
        behaviour(M, blocks, 0.3, of).centred,
        torch.stack([centred_directly(M[h], blocks, 0.3, of) for h in range(5)]),
        1e-9,
    )


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("contrast", [1e-6, 1e-3, 1.0, 30.0])
def test_the_centred_score_of_a_pure_head_is_one_whatever_the_contrast_of_its_blocks(contrast, of):
    """Where the block means are nearly alike, the two other scores are both nearly 1."""
    own = 1 + contrast * randn(4, 12, seed=21)
    for make, sign in [(positional, 1.0), (symbolic, -1.0)]:
        found = behaviour(make(own), 6, 0.05, of)
        close(found.centred, torch.full((4,), sign).double(), 1e-9)  # 1e-10 of rounding in contrasts of 1e-6
        if contrast <= 1e-3:
            assert (torch.minimum(found.positional, found.symbolic) > 0.999).all()


@pytest.mark.parametrize("of", KINDS)
def test_the_centred_score_of_a_uniform_head_is_neutral(of):
    """Also where its logits are equal up to rounding."""
    exact = torch.full((3, 8, 8), 0.7).double()
    for M in (exact, 0 * exact, exact + 1e-16 * randn(3, 8, 8, seed=22), exact * (1 + 2e-16)):
        close(behaviour(M, 4, 0.1, of).centred, torch.zeros(3).double())


@pytest.mark.parametrize("of", KINDS)
def test_the_centred_score_of_mixtures_falls_through_zero_in_the_middle(of):
    own = randn(5, 6, seed=23).exp().repeat_interleave(2, -1)
    shares = torch.linspace(0, 1, 21, dtype=torch.float64)[:, None, None, None]
    found = behaviour(mixture(own, shares), 6, 0.1, of).centred
    assert (found.diff(dim=0) < 0).all()
    close(found, -found.flip(0))
    close(found[[0, 10, 20]], torch.tensor([1.0, 0, -1]).double()[:, None].expand(3, 5))


def test_of_unrelated_content_and_position_the_centred_score_is_near_zero():
    """Swaps that give block means drawn anew: 200 heads of 28 pairs each, so a standard error near 0.02."""
    assert behaviour(randn(200, 8, 8, seed=24), 8, 1e9, "logits").centred.mean().abs() < 0.1


@pytest.mark.parametrize("of", KINDS)
def test_a_constant_added_to_all_logits_leaves_the_centred_score(of):
    M = randn(3, 8, 8, seed=4)
    close(behaviour(M, 4, 1e9, of).centred, behaviour(M + 5, 4, 1e9, of).centred)


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("size", [1e-200, 1e-3, 1e200])
def test_the_centred_score_is_finite_at_every_scale(size, of):
    found = behaviour(symbolic(size * torch.arange(1.0, 9).double()), 4, 0.1, of).centred
    assert found == pytest.approx(-1 if of == "logits" or size > 1e-200 else 0, abs=1e-12)


# A span, texts and reruns


@pytest.mark.parametrize("of", KINDS)
def test_keys_outside_the_span_stay_and_count_in_the_softmax(of):
    M = 2 * randn(11, 11, seed=25)
    found = behaviour(M, 3, 0.1, of, span=(3, 9))
    own = M.diagonal()

    def levels(content):
        logits = M[content, torch.arange(11)]
        values = torch.softmax(logits, 0) if of == "weights" else logits
        return values[3:9].view(3, 2).mean(1)

    d, rows = levels(torch.arange(11)), []
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        content = swap_blocks(torch.arange(11), i, j, 3, (3, 9))
        before, after = d[[i, j]], levels(content)[[i, j]]
        cosines = [torch.cosine_similarity(after, other, dim=0) for other in (before, before.flip(0))]
        rows.append(torch.stack([(d[i] - d[j]).abs(), *cosines]))
    gap, first, second = torch.stack(rows).T
    weight = torch.softmax(gap / 0.1, 0)
    close(found.positional, weight @ first)
    close(found.symbolic, weight @ second)
    close(found.entropy, -(own.softmax(0) * own.log_softmax(0)).sum())
    hidden = M.clone()
    hidden[:, :3] = -torch.inf  # a sliding window hides the keys before the span
    assert behaviour(hidden, 3, 0.1, of, span=(3, 9)).positional.isfinite()


def test_swap_blocks_moves_both_blocks_at_once():
    ids = torch.tensor([9, 0, 1, 2, 3, 4, 5, 8])
    assert swap_blocks(ids, 0, 2, 3, (1, 7)).tolist() == [9, 4, 5, 2, 3, 0, 1, 8]
    assert swap_blocks(ids, 1, 1, 4).tolist() == ids.tolist()
    assert swap_blocks(ids.view(2, 4), 0, 1, 2).tolist() == [[1, 2, 9, 0], [5, 8, 3, 4]]
    assert ids.tolist() == [9, 0, 1, 2, 3, 4, 5, 8]
    for size in (1, 2):
        order = swap_blocks(torch.arange(3 * size), 0, 2, 3)
        assert order.tolist() == swap(size, 0, 2, 3 * size).tolist()
        assert order.tolist() != careless_swap(size, 0, 2, 3 * size).tolist()


@pytest.mark.parametrize("of", KINDS)
def test_reruns_in_which_only_keys_move_score_as_swapped_keys_do(of):
    M, span = 2 * randn(2, 3, 10, 10, seed=26), (1, 9)
    pairs = torch.triu_indices(4, 4, 1).T.tolist()
    contents = torch.stack([swap_blocks(torch.arange(10), i, j, 4, span) for i, j in pairs])
    rows = M[..., contents, torch.arange(10)]
    found = behaviour_of_reruns(M.diagonal(dim1=-2, dim2=-1), rows, 4, 0.2, of, span)
    expected = behaviour(M, 4, 0.2, of, span)
    for name in ("positional", "symbolic", "centred", "entropy"):
        close(getattr(found, name), getattr(expected, name))


def test_reruns_may_shift_all_logits_of_a_text():
    """A rerun's softmax has its own denominator: no score of weights sees it."""
    M = randn(6, 6, seed=27)
    contents = torch.stack([swap_blocks(torch.arange(6), i, j, 3) for i, j in [(0, 1), (0, 2), (1, 2)]])
    rows = M[contents, torch.arange(6)]
    plain, shifted = (
        behaviour_of_reruns(M.diagonal(), r, 3, 0.2) for r in (rows, rows + torch.tensor([[1.0], [-2], [3]]))
    )
    close(plain.positional, shifted.positional)
    close(plain.centred, shifted.centred)


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


def test_a_query_at_the_last_key_sees_it_unturned():
    query, keys, turns = randn(2, 6, seed=28), randn(2, 7, 6, seed=29), rotary_turns(8, 6, base=30.0)
    found = rotary_pair_logits(query, keys, rotary_frequencies(6, 30.0), position=6).sum(-3)
    close(found[..., 6], (keys @ query[..., None])[..., 0])
    close(found[..., :6, :6], rotary_logits(query, keys[:, :6], turns))


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
        ("span", lambda: behaviour(SQUARE, 2, 0.1, span=(2, 8))),
        ("span", lambda: behaviour(SQUARE, 2, 0.1, span=(4, 4))),
        ("span", lambda: behaviour(SQUARE, 2, 0.1, span=(-2, 4))),
        ("blocks", lambda: behaviour(SQUARE, 2, 0.1, span=(1, 4))),
        ("swapped", lambda: behaviour_of_reruns(QUERY, KEYS[..., :3, :], 4, 0.1)),
        ("swapped", lambda: behaviour_of_reruns(QUERY, KEYS.float(), 4, 0.1)),
        ("of", lambda: behaviour_of_reruns(QUERY, KEYS, 4, 0.1, "weight")),
        ("i", lambda: swap_blocks(torch.arange(6), 3, 0, 3)),
        ("j", lambda: swap_blocks(torch.arange(6), 0, -1, 3)),
        ("blocks", lambda: swap_blocks(torch.arange(6), 0, 1, 4)),
        ("sequence", lambda: swap_blocks([0, 1], 0, 1, 2)),
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
