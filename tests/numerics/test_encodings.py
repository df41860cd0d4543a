import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import AttentionSystem, InputError, Rotary
from numerics.encodings import alibi_bias, rotary_frequencies, rotary_turns, turns_from_matrix


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def randn(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Turns


def test_frequencies():
    assert rotary_frequencies(4).tolist() == pytest.approx([1.0, 0.01], rel=1e-15)
    assert rotary_frequencies(6, base=8.0).tolist() == pytest.approx([1.0, 0.5, 0.25], rel=1e-15)


@pytest.mark.parametrize(
    ("layout", "pairs"), [("interleaved", [(0, 1), (2, 3)]), ("half-split", [(0, 2), (1, 3)])]
)
def test_turns_rotate_each_pair_by_its_angle(layout, pairs):
    turns = rotary_turns(5, 6, d_rot=4, base=100.0, layout=layout)
    assert turns.shape == (5, 6, 6)
    x = randn(6, seed=1)
    for i in range(5):
        y = turns[i] @ x
        for f, (a, b) in enumerate(pairs):
            angle = i * 100.0 ** (-2 * f / 4)
            turned = complex(x[a], x[b]) * complex(math.cos(angle), math.sin(angle))
            assert complex(y[a], y[b]) == pytest.approx(turned, rel=1e-13)
        assert torch.equal(y[4:], x[4:])


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.sampled_from(["interleaved", "half-split"])
)
def test_turns_are_powers_of_a_rotation(n, half, rest, layout):
    d_k = 2 * half + rest
    turns = rotary_turns(n, d_k, d_rot=2 * half, layout=layout)
    close(turns @ turns.mT, torch.eye(d_k).double().expand(n, d_k, d_k))
    if n > 1:
        close(turns, turns_from_matrix(turns[1:2], n)[0])


def test_half_split_is_interleaved_after_a_permutation():
    order = [0, 3, 1, 4, 2, 5, 6]  # interleaved coordinate c is half-split coordinate order[c]
    split = rotary_turns(4, 7, d_rot=6, layout="half-split")
    assert torch.equal(split[:, order][:, :, order], rotary_turns(4, 7, d_rot=6))
    q, k, V, x = (
        randn(2, 7, 3, seed=2),
        randn(2, 7, 3, seed=3),
        randn(2, 3, 3, seed=4),
        randn(2, 4, 3, seed=5),
    )
    one = AttentionSystem.from_projections(q, k, V, turns=split)
    other = AttentionSystem.from_projections(q[:, order], k[:, order], V, turns=rotary_turns(4, 7, d_rot=6))
    close(one.velocity(x), other.velocity(x))


def test_rotary_scores_depend_on_positions_through_their_difference():
    """The same tokens later in the context have the same scores, and s_ij = x_iᵀ Qᵀ R_{j−i} K x_j."""
    q, k, V, x = (
        randn(2, 4, 3, seed=6),
        randn(2, 4, 3, seed=7),
        randn(2, 3, 3, seed=8),
        randn(2, 3, 3, seed=9),
    )
    turns = rotary_turns(8, 4, base=20.0)
    scores = AttentionSystem.from_projections(q, k, V, turns=turns[:3]).scores(x)
    later = AttentionSystem.from_projections(q, k, V, turns=turns[5:]).scores(x)
    close(later, scores)
    for i, j in [(0, 2), (1, 1), (1, 2)]:
        form = q.mT @ turns[j - i] @ k / 2
        close(scores[:, i, j], torch.einsum("ba,bac,bc->b", x[:, i], form, x[:, j]))
    assert (scores - AttentionSystem.from_projections(q, k, V).scores(x)).abs().max() > 0.1


def test_turns_from_a_rational_rotation():
    rotation = torch.tensor([[[3.0, -4.0], [4.0, 3.0]], [[0.0, -5.0], [5.0, 0.0]]]).double() / 5
    turns = turns_from_matrix(rotation, 5)
    assert turns.shape == (2, 5, 2, 2)
    close(turns[0, 2], torch.tensor([[-7.0, -24.0], [24.0, -7.0]]).double() / 25)
    assert torch.equal(turns[1, 4], torch.eye(2).double())
    assert torch.equal(turns[:, 1], rotation)


def test_rows_with_finite_projections_and_turns():
    parts = [torch.eye(2).double().repeat(4, *[1] * k, 1, 1) for k in (0, 0, 1)]
    for row, part in enumerate(parts):
        part[row, ..., 0, 1] = torch.nan
    rotary = Rotary(*parts)
    assert rotary.finite.tolist() == [False, False, False, True]
    assert rotary.rows(slice(2, 4)).finite.tolist() == [False, True]
    assert Rotary(*parts[:2], parts[2][3]).finite.tolist() == [False, False, True, True]


# ALiBi


def test_alibi_values():
    assert alibi_bias(3, 0.5).tolist() == [[0, -0.5, -1], [-0.5, 0, -0.5], [-1, -0.5, 0]]
    slopes = torch.tensor([[0.5, 0.25], [1.0, 2.0]]).double()
    bias = alibi_bias(4, slopes)
    assert bias.shape == (2, 2, 4, 4)
    assert bias.dtype == torch.float64
    assert bias[1, 1, 3].tolist() == [-6, -4, -2, 0]
    assert bias[0, 1, 2, 0] == -0.5


def test_alibi_without_scores_is_a_geometric_series():
    """W = 0 under a causal mask: P_ij ∝ e^{−slope (i−j)}, j ≤ i."""
    V = torch.eye(1).double()[None]
    system = AttentionSystem(
        0 * V, V, causal=True, bias=alibi_bias(4, torch.tensor([math.log(2)], dtype=torch.float64))
    )
    attention = system.attention(torch.ones(1, 4, 1).double())[0]
    close(attention[3], torch.tensor([1, 2, 4, 8]).double() / 15)
    close(attention[1], torch.tensor([1, 2, 0, 0]).double() / 3)


# Bad arguments

EYE = torch.eye(2).double()[None]
TURNS = rotary_turns(3, 2)


@pytest.mark.parametrize(
    ("argument", "change", "message"),
    [
        ("query", {"query": EYE[0]}, r"axes \(batch d_k d\) or axes \(batch heads d_k d\)"),
        ("query", {"query": EYE.half()}, "float64"),
        ("key", {"query": EYE.float()}, "the dtype of query, torch.float32"),
        ("key", {"key": EYE[:, :1]}, "the shape of query"),
        ("key", {"key": EYE[None]}, "the shape of query"),
        ("key", {"key": EYE.to("meta")}, "device of query"),
        ("turns", {"turns": EYE[0]}, "N d_k d_k"),
        ("turns", {"turns": TURNS.float()}, "float64"),
        ("turns", {"turns": rotary_turns(3, 4)}, r"here \(3, 2, 2\)"),
        ("turns", {"turns": TURNS.expand(2, 3, 2, 2)}, r"here \(1, 3, 2, 2\)"),
        ("turns", {"turns": TURNS.to("meta")}, "device of query"),
        (
            "rotated_values",
            {"query": EYE[:, :1], "key": EYE[:, :1], "turns": TURNS[:, :1, :1], "rotated_values": True},
            "d_k = 1, d = 2",
        ),
    ],
)
def test_bad_rotary(argument, change, message):
    with pytest.raises(InputError, match=message) as error:
        Rotary(**{"query": EYE, "key": EYE, "turns": TURNS, **change})
    assert error.value.argument == argument


@pytest.mark.parametrize(
    ("argument", "call", "message"),
    [
        ("d_rot", lambda: rotary_frequencies(5), "got 5; expected a positive even number"),
        ("d_rot", lambda: rotary_frequencies(0), "even"),
        ("base", lambda: rotary_frequencies(4, base=-1.0), "positive"),
        ("base", lambda: rotary_frequencies(4, base=math.nan), "positive"),
        ("d_rot", lambda: rotary_turns(3, 5), "got 5"),
        ("d_rot", lambda: rotary_turns(3, 4, d_rot=6), "at most d_k = 4"),
        ("layout", lambda: rotary_turns(3, 4, layout="half_split"), "did you mean 'half-split'"),
        ("layout", lambda: rotary_turns(3, 4, layout="interleave"), "did you mean 'interleaved'"),
        ("layout", lambda: rotary_turns(3, 4, layout=7), "use 'interleaved'"),
        ("n", lambda: rotary_turns(0, 4), "positive whole number"),
        ("n", lambda: turns_from_matrix(EYE, 0), "positive whole number"),
        ("rotation", lambda: turns_from_matrix(EYE[0], 3), "axes"),
        ("rotation", lambda: turns_from_matrix(EYE[:, :1], 3), "square"),
        ("n", lambda: alibi_bias(2.5, 1.0), "positive whole number"),
        ("slope", lambda: alibi_bias(2, math.inf), "finite"),
        ("slope", lambda: alibi_bias(2, torch.ones(3).half()), "float64"),
    ],
)
def test_bad_encodings(argument, call, message):
    with pytest.raises(InputError, match=message) as error:
        call()
    assert error.value.argument == argument
