import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import AttentionSystem, InputError
from numerics.families import random_form, random_tokens

f64 = partial(torch.tensor, dtype=torch.float64)

SEEDS = st.integers(0, 2**32)
SIZES = st.integers(1, 6)


def random_system(batch, d, generator):
    return AttentionSystem(*torch.randn(2, batch, d, d, generator=generator, dtype=torch.float64))


def naive_velocity(W, V, x):
    """The definition, one token and one system at a time, in Python floats."""
    d = len(W)
    out = []
    for xi in x:
        s = [sum(xi[a] * W[a][b] * xj[b] for a in range(d) for b in range(d)) for xj in x]
        e = [math.exp(v - max(s)) for v in s]
        m = [sum(p * xj[a] for p, xj in zip(e, x, strict=True)) / sum(e) for a in range(d)]
        out.append([sum(V[a][b] * m[b] for b in range(d)) for a in range(d)])
    return out


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, SIZES, st.integers(1, 3), st.sampled_from([0.01, 1.0, 5.0]))
def test_velocity_is_the_definition(seed, n, d, batch, scale):
    g = torch.Generator().manual_seed(seed)
    system, x = random_system(batch, d, g), random_tokens(batch, n, d, scale, g)
    expected = [
        naive_velocity(*row)
        for row in zip(*(t.tolist() for t in (system.score, system.value, x)), strict=True)
    ]
    torch.testing.assert_close(system.velocity(x), f64(expected), rtol=1e-11, atol=1e-12 * scale)


@settings(max_examples=60, deadline=None)
@given(SEEDS, SIZES, SIZES, st.sampled_from([1e-160, 1e-3, 1.0, 3.0]))
def test_attention_is_the_plain_softmax_at_ordinary_scale(seed, n, d, scale):
    g = torch.Generator().manual_seed(seed)
    system, x = random_system(2, d, g), random_tokens(2, n, d, scale, g)
    attention = system.attention(x)
    torch.testing.assert_close(attention, torch.softmax(system.scores(x), -1), rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(system.attended_mean(x), attention @ x, rtol=1e-12, atol=1e-14 * scale)
    torch.testing.assert_close(
        system.velocity(x), attention @ x @ system.value.mT, rtol=1e-12, atol=1e-13 * scale
    )


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(2, 6), st.integers(1, 5), st.sampled_from([2.0**100, 2.0**400, 2.0**660, 2.0**900]))
def test_attention_at_huge_norm_is_the_hard_maximum(seed, n, d, scale):
    g = torch.Generator().manual_seed(seed)
    system, x = random_system(2, d, g), random_tokens(2, n, d, 1.0, g)
    leader = torch.nn.functional.one_hot(system.scores(x).argmax(-1), n).double()
    assert torch.equal(system.attention(scale * x), leader)
    velocity = system.velocity(scale * x)
    assert velocity.isfinite().all()
    torch.testing.assert_close(velocity / scale, leader @ x @ system.value.mT, rtol=1e-12, atol=1e-12)


def test_a_small_token_beside_huge_ones_attends_correctly():
    system = AttentionSystem(torch.ones(1, 1, 1).double(), torch.ones(1, 1, 1).double())
    x = f64([[[1e-200], [1e200], [3e200]]])
    expected = torch.softmax(f64([0.0, 1.0, 3.0]), 0)
    torch.testing.assert_close(system.attention(x)[0, 0], expected)
    x = f64([[[1e-150], [1e200], [3e200]]])
    assert system.attention(x)[0, 0].tolist() == [0, 0, 1]


def test_equal_scores_give_uniform_attention_at_any_scale():
    system = AttentionSystem(torch.eye(2).double()[None], torch.eye(2).double()[None])
    for scale in (0.0, 1.0, 1e200):
        assert torch.equal(
            system.attention(scale * torch.ones(1, 4, 2).double()),
            torch.full((1, 4, 4), 0.25, dtype=torch.float64),
        )


def test_a_bad_system_does_not_touch_its_neighbours():
    g = torch.Generator().manual_seed(0)
    system, x = random_system(3, 2, g), random_tokens(3, 4, 2, 1.0, g)
    system.score[1, 0, 0] = torch.nan
    velocity = system.velocity(x)
    assert velocity[1].isnan().any()
    assert torch.equal(velocity[[0, 2]], system.rows([0, 2]).velocity(x[[0, 2]]))
    assert system.finite.tolist() == [True, False, True]


def test_constructors():
    g = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 5, 4, 3, generator=g, dtype=torch.float64)
    V = random_form(5, 3, positive=2, antisymmetric_share=0.5, generator=g)
    system = AttentionSystem.from_projections(q, k, V)
    x = random_tokens(5, 6, 3, 1.0, g)
    logits = (x @ q.mT) @ (x @ k.mT).mT / 2
    torch.testing.assert_close(system.scores(x), logits)
    torch.testing.assert_close(AttentionSystem.from_projections(q, k, V, scale=1.0).scores(x), 2 * logits)
    torch.testing.assert_close(system.response @ V, system.score)
    again = AttentionSystem.from_response(system.score, V)
    torch.testing.assert_close(V @ again.value, system.score)
    torch.testing.assert_close(again.response, V)
    assert (system.batch, system.dim, system.device.type) == (5, 3, "cpu")
    assert torch.equal(system.to("cpu").rows(torch.tensor([3])).score, system.score[3:4])


def test_response_of_a_singular_value_is_refused_by_row():
    eye = torch.eye(2).double().repeat(3, 1, 1)
    value = eye.clone()
    value[1] = torch.tensor([[1.0, 2.0], [2.0, 4.0 + 1e-15]])
    with pytest.raises(
        InputError, match=r"value: got singular matrices in rows \[1\].*A = WV⁻¹ is undefined"
    ):
        _ = AttentionSystem(eye, value).response
    with pytest.raises(InputError, match="response"):
        AttentionSystem.from_response(eye, value)


EYE = torch.eye(2).double()[None]
BAD_WEIGHTS = [
    ("score", [[1.0]], EYE),
    ("score", EYE.float(), EYE),
    ("score", EYE.long(), EYE),
    ("score", EYE.to(torch.complex128), EYE),
    ("score", EYE[0], EYE),
    ("score", torch.zeros(1, 2, 3).double(), EYE),
    ("score", torch.zeros(1, 0, 0).double(), EYE),
    ("value", EYE, EYE.float()),
    ("value", EYE, EYE.repeat(2, 1, 1)),
    ("value", EYE, EYE.to("meta")),
]


@pytest.mark.parametrize(("argument", "score", "value"), BAD_WEIGHTS)
def test_bad_weights(argument, score, value):
    with pytest.raises(InputError) as error:
        AttentionSystem(score, value)
    assert error.value.argument == argument
    assert error.value.fix in str(error.value)


def test_wrong_dtype_says_double():
    with pytest.raises(
        InputError, match=r"got torch.float32; expected torch.float64. Fix: convert with .double\(\)"
    ):
        AttentionSystem(EYE.float(), EYE)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(1, 0, 2).double(),
        torch.zeros(1, 3, 4).double(),
        torch.zeros(2, 3, 2).double(),
        torch.zeros(3, 2).double(),
        torch.zeros(1, 3, 2),
        torch.zeros(1, 3, 2).double().to("meta"),
        [[1.0, 2.0]],
    ],
)
def test_bad_tokens(x):
    system = AttentionSystem(EYE, EYE)
    for method in (system.scores, system.attention, system.attended_mean, system.velocity):
        with pytest.raises(InputError, match="x: got"):
            method(x)


def test_bad_projections():
    for query, key in [(EYE[0], EYE), (EYE, EYE[0]), (EYE, EYE[:, :1]), (EYE[:, :0], EYE[:, :0])]:
        with pytest.raises(InputError):
            AttentionSystem.from_projections(query, key, EYE)
