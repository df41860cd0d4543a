import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import AttentionSystem, InputError, Rotary
from numerics.encodings import alibi_bias, rotary_turns
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


# Switches


def reference_velocity(x, W, V, *, causal, positions, encoded_values, bias, rotary, rotated_values, sphere):
    """The definition for one system, one head and token at a time: x (n, d), W and V (heads, d, d)."""
    n = len(x)
    y = x if positions is None else x + positions
    tokens = y if encoded_values else x
    velocity = torch.zeros_like(x)
    for h in range(len(W)):
        for i in range(n):
            seen = range(i + 1 if causal else n)
            if rotary is None:
                scores = [y[i] @ W[h] @ y[j] for j in seen]
            else:
                Q, K, R = rotary
                scores = [(R[i] @ Q[h] @ y[i]) @ (R[j] @ K[h] @ y[j]) for j in seen]
            if bias is not None:
                scores = [s + bias[h, i, j] for s, j in zip(scores, seen, strict=True)]
            weights = torch.softmax(torch.stack(scores), 0)
            moved = [V[h] @ tokens[j] for j in seen]
            if rotated_values:
                moved = [rotary[2][i].T @ rotary[2][j] @ v for v, j in zip(moved, seen, strict=True)]
            velocity[i] += sum(p * v for p, v in zip(weights, moved, strict=True))
    return velocity - (x * velocity).sum(-1, keepdim=True) * x if sphere else velocity


def random_variant(seed, *, heads, batch=3, n=4, d=2, **on):
    """A system with the switches named in ``on``, its tokens, and the arguments of the reference."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    lead = (batch, heads) if heads else (batch,)
    query, key, value, x = randn(*lead, d, d), randn(*lead, d, d), randn(*lead, d, d), randn(batch, n, d)
    positions = randn(batch, n, d) if on.get("positions") else None
    bias = None
    if on.get("bias"):
        bias = randn(*(lead if on["bias"] == "by head" else (batch,)), n, n)
        bias = torch.where((torch.rand(bias.shape, generator=g) < 0.3).triu(1), -torch.inf, bias)
    turns = None
    if on.get("rotary"):  # not rotations: the definition asks for no structure
        turns = randn(n + 1, d, d) if on["rotary"] == "shared" else randn(batch, n + 1, d, d)
    rotated_values = bool(on.get("rotated_values")) and turns is not None
    switches = {
        "causal": bool(on.get("causal")),
        "positions": positions,
        "positions_in": "scores and values" if on.get("encoded_values") else "scores",
        "bias": bias,
        "sphere": bool(on.get("sphere")),
    }
    system = AttentionSystem.from_projections(
        query, key, value, turns=turns, rotated_values=rotated_values, **switches
    )
    rows = []
    for r in range(batch):
        by_head = system.bias is not None and system.bias.ndim == 4
        rows.append(
            {
                "W": system.score[r].view(-1, d, d),
                "V": value[r].view(-1, d, d),
                "causal": switches["causal"],
                "positions": None if positions is None else positions[r],
                "encoded_values": bool(on.get("encoded_values")) and positions is not None,
                "bias": None if bias is None else bias[r] if by_head else bias[r].expand(heads or 1, n, n),
                "rotary": None
                if turns is None
                else (
                    query[r].view(-1, d, d) / d**0.5,
                    key[r].view(-1, d, d),
                    turns if turns.ndim == 3 else turns[r],
                ),
                "rotated_values": rotated_values,
                "sphere": switches["sphere"],
            }
        )
    return system, x, rows


VARIANTS = st.fixed_dictionaries(
    {
        "heads": st.sampled_from([None, 1, 3]),
        "causal": st.booleans(),
        "positions": st.booleans(),
        "encoded_values": st.booleans(),
        "bias": st.sampled_from([None, "shared by heads", "by head"]),
        "rotary": st.sampled_from([None, "shared", "own"]),
        "rotated_values": st.booleans(),
        "sphere": st.booleans(),
    }
).map(lambda on: {**on, "bias": on["bias"] if on["heads"] else on["bias"] and "shared by heads"})


@settings(max_examples=80, deadline=None)
@given(SEEDS, VARIANTS, st.integers(1, 5), st.integers(1, 3))
def test_velocity_of_any_combination_of_switches_is_the_definition(seed, variant, n, d):
    system, x, rows = random_variant(seed, n=n, d=d, **variant)
    expected = torch.stack([reference_velocity(y, **row) for y, row in zip(x, rows, strict=True)])
    torch.testing.assert_close(system.velocity(x), expected, rtol=1e-9, atol=1e-10)
    assert torch.equal(system.step(x, 0.25), x + 0.25 * system.velocity(x))


@settings(max_examples=60, deadline=None)
@given(SEEDS, VARIANTS)
def test_no_row_depends_on_its_batch_mates_with_any_switch(seed, variant):
    system, x, _ = random_variant(seed, batch=7, n=5, d=3, **variant)
    velocity = system.velocity(x)
    for rows in ([2], [6, 0, 3], slice(1, 6)):
        assert torch.equal(system.rows(rows).velocity(x[rows]), velocity[rows])
    assert torch.equal(system.to("cpu").rows(torch.arange(7) > 3).velocity(x[4:]), velocity[4:])


@settings(max_examples=60, deadline=None)
@given(SEEDS, VARIANTS)
def test_attention_is_the_softmax_of_the_visible_scores(seed, variant):
    system, x, _ = random_variant(seed, batch=2, **variant)
    scores, attention = system.scores(x), system.attention(x)
    axes = (2, 4, 4) if variant["heads"] is None else (2, variant["heads"], 4, 4)
    assert scores.shape == attention.shape == axes
    hidden = torch.ones(4, 4, dtype=torch.bool).triu(1) if variant["causal"] else torch.zeros(4, 4).bool()
    hidden = (hidden | (scores == -torch.inf)).expand_as(scores)
    assert torch.equal(~system.visible(4).expand_as(scores), hidden)
    expected = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1)
    torch.testing.assert_close(attention, expected, rtol=1e-10, atol=1e-13)
    assert (attention[hidden] == 0).all()
    tokens = x + system.positions if variant["positions"] and variant["encoded_values"] else x
    tokens = tokens[:, None] if variant["heads"] else tokens
    torch.testing.assert_close(system.attended_mean(x), attention @ tokens, rtol=1e-12, atol=1e-12)


def test_heads_add_up():
    system, x, _ = random_variant(1, heads=3, causal=True, bias="by head")
    split = [
        AttentionSystem(system.score[:, h], system.value[:, h], causal=True, bias=system.bias[:, h])
        for h in range(3)
    ]
    total = split[0].velocity(x) + split[1].velocity(x) + split[2].velocity(x)
    assert torch.equal(system.velocity(x), total)
    for h in range(3):
        assert torch.equal(system.attention(x)[:, h], split[h].attention(x))
    one = AttentionSystem(system.score[:, :1], system.value[:, :1])
    assert torch.equal(one.velocity(x), AttentionSystem(system.score[:, 0], system.value[:, 0]).velocity(x))
    assert (system.heads, one.heads, split[0].heads) == (3, 1, 1)
    assert (system.batch, system.dim) == (3, 2)


def test_low_rank_values_from_an_output_map():
    g = torch.Generator().manual_seed(4)
    q, k, v = torch.randn(3, 5, 2, 3, 4, generator=g, dtype=torch.float64)
    o = torch.randn(5, 2, 4, 3, generator=g, dtype=torch.float64)
    system = AttentionSystem.from_projections(q, k, v, output=o)
    assert (torch.linalg.matrix_rank(system.value) == 3).all()
    x = random_tokens(5, 6, 4, 1.0, g)
    logits = torch.einsum("bhka,bia,bhkc,bjc->bhij", q, x, k, x) / 3**0.5
    torch.testing.assert_close(system.scores(x), logits)
    expected = torch.einsum("bhak,bhkc,bhij,bjc->bia", o, v, torch.softmax(logits, -1), x)
    torch.testing.assert_close(system.velocity(x), expected)
    with pytest.raises(InputError, match="output"):
        AttentionSystem.from_projections(q, k, v, output=v)


def test_the_first_token_of_a_causal_system_is_alone():
    """T14c: ẋ_1 = Vx_1, and no token feels a later one, however large."""
    g = torch.Generator().manual_seed(5)
    W, V = torch.randn(2, 4, 3, 3, generator=g, dtype=torch.float64)
    system, x = AttentionSystem(W, V, causal=True), random_tokens(4, 5, 3, 2.0, g)
    velocity = system.velocity(x)
    torch.testing.assert_close(velocity[:, 0], (V @ x[:, 0, :, None])[..., 0], rtol=1e-13, atol=1e-13)
    assert torch.equal(AttentionSystem(W, V, causal=True).velocity(x[:, :3]), velocity[:, :3])
    for size in (1e6, 1e150, 1e280):
        x[:, 3:] = size
        assert torch.equal(system.velocity(x)[:, :3], velocity[:, :3])


def test_encoded_scores_and_values_are_the_plain_system_at_shifted_tokens():
    """T12: z = x + p obeys the plain system, and an encoding of scores only keeps 0 an equilibrium."""
    g = torch.Generator().manual_seed(6)
    W, V = torch.randn(2, 4, 3, 3, generator=g, dtype=torch.float64)
    x, p = random_tokens(4, 5, 3, 1.0, g), random_tokens(4, 5, 3, 1.0, g)
    both = AttentionSystem(W, V, positions=p, positions_in="scores and values")
    assert torch.equal(both.velocity(x), AttentionSystem(W, V).velocity(x + p))
    assert (AttentionSystem(W, V, positions=p).velocity(torch.zeros_like(x)) == 0).all()


def test_rotary_without_rotation_is_the_plain_system():
    g = torch.Generator().manual_seed(7)
    q, k, V = torch.randn(3, 4, 3, 3, generator=g, dtype=torch.float64)
    x, still = random_tokens(4, 5, 3, 1.0, g), torch.eye(3).double().repeat(5, 1, 1)
    plain = AttentionSystem.from_projections(q, k, V)
    for rotated_values in (False, True):
        rotary = AttentionSystem.from_projections(q, k, V, turns=still, rotated_values=rotated_values)
        torch.testing.assert_close(rotary.velocity(x), plain.velocity(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rotary.scores(x), plain.scores(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(rotary.response, plain.response)


def test_rotated_values_are_a_change_of_frame_where_everything_commutes_with_the_rotation():
    """T13: y_i = R_i x_i obeys the plain system; without turning the values it does not."""
    g = torch.Generator().manual_seed(8)
    planes = torch.tensor([[[1.0, 0], [0, 1]], [[0, -1], [1, 0]]]).double()
    blocks = torch.einsum(
        "mbpr,rac->mbpac", torch.randn(3, 4, 2, 2, generator=g, dtype=torch.float64), planes
    )
    q, k, V = (torch.stack([torch.block_diag(*pair) for pair in part]) for part in blocks)
    x, turns = random_tokens(4, 6, 4, 1.0, g), rotary_turns(6, 4, base=10.0)
    system = AttentionSystem.from_projections(q, k, V, turns=turns, rotated_values=True)

    def turned(tokens):
        return (turns @ tokens[..., None])[..., 0]

    plain = AttentionSystem.from_projections(q, k, V).velocity(turned(x))
    torch.testing.assert_close(turned(system.velocity(x)), plain, rtol=1e-11, atol=1e-11)
    still = AttentionSystem.from_projections(q, k, V, turns=turns).velocity(x)
    assert (turned(still) - plain).abs().max() > 0.1


def test_bias_counts_at_any_size_of_the_tokens():
    """−inf hides, ALiBi decides where scores vanish, and huge scores decide over any finite bias."""
    eye = torch.eye(2).double()[None]
    bias = alibi_bias(3, f64([1.0]))
    system = AttentionSystem(eye, eye, bias=bias)
    for size in (0.0, 1e-310, 1e-160):
        near_zero = torch.full((1, 3, 2), size, dtype=torch.float64)
        torch.testing.assert_close(system.attention(near_zero), torch.softmax(bias, -1))
    for size in (1.0, 1e100, 1e200, 1e300):
        attention = system.attention(size * f64([[[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]]]))[0]
        torch.testing.assert_close(attention[0], torch.softmax(bias[0, 0], -1))
        if size > 1:
            assert attention[1:].tolist() == [[0, 0, 1], [0, 0, 1]]
    hides = bias.clone()
    hides[0, :, 1] = -torch.inf
    for size in (0.0, 1.0, 1e200):
        x = torch.full((1, 3, 2), size, dtype=torch.float64)
        assert (AttentionSystem(eye, eye, bias=hides).attention(x)[0, :, 1] == 0).all()


def test_velocity_on_the_sphere_is_tangent():
    system, x, _ = random_variant(9, heads=2, d=3, rotary="own", causal=True, sphere=True)
    x = torch.nn.functional.normalize(x, dim=-1)
    velocity = system.velocity(x)
    assert ((x * velocity).sum(-1).abs() < 1e-13).all()
    free = AttentionSystem(system.score, system.value, causal=True, rotary=system.rotary).velocity(x)
    torch.testing.assert_close((free - velocity).cross(x, dim=-1), torch.zeros_like(x), rtol=0, atol=1e-13)


def test_rows_that_are_not_finite():
    g = torch.Generator().manual_seed(10)
    q, k, V, p = torch.randn(4, 4, 2, 2, generator=g, dtype=torch.float64)
    turns = rotary_turns(2, 2).repeat(4, 1, 1, 1)
    q[0, 0, 0], p[1, 0, 0], turns[2, 1, 0, 0] = torch.nan, torch.inf, torch.nan
    system = AttentionSystem.from_projections(q, k, V, turns=turns, positions=p)
    assert system.finite.tolist() == [False, False, False, True]
    shared = AttentionSystem.from_projections(k, k, V, turns=turns[2])
    assert not shared.finite.any()


EYE = torch.eye(2).double()[None]
BAD_WEIGHTS = [
    ("score", [[1.0]], EYE),
    ("score", EYE.half(), EYE),
    ("value", EYE.float(), EYE),
    ("score", EYE.long(), EYE),
    ("score", EYE.to(torch.complex128), EYE),
    ("score", EYE[0], EYE),
    ("score", torch.zeros(1, 2, 3).double(), EYE),
    ("score", torch.zeros(1, 0, 0).double(), EYE),
    ("value", EYE, EYE.float()),
    ("value", EYE, EYE.repeat(2, 1, 1)),
    ("value", EYE, EYE.to("meta")),
    ("score", EYE[None, None], EYE),
    ("score", torch.zeros(1, 0, 2, 2).double(), torch.zeros(1, 0, 2, 2).double()),
    ("value", EYE[None], EYE),
]


@pytest.mark.parametrize(("argument", "score", "value"), BAD_WEIGHTS)
def test_bad_weights(argument, score, value):
    with pytest.raises(InputError) as error:
        AttentionSystem(score, value)
    assert error.value.argument == argument
    assert error.value.fix in str(error.value)


def test_wrong_dtype_says_double():
    expected = r"got torch.float16; expected torch.float64 or torch.float32. Fix: convert with .double\(\)"
    with pytest.raises(InputError, match=expected):
        AttentionSystem(EYE.half(), EYE)


def test_dtypes_do_not_mix():
    expected = "x: got torch.float32; expected the dtype of the weights, torch.float64. Fix: convert one"
    with pytest.raises(InputError, match=expected):
        AttentionSystem(EYE, EYE).velocity(torch.zeros(1, 3, 2))


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


def test_response_needs_a_single_head():
    heads = EYE[None].expand(1, 2, 2, 2)
    with pytest.raises(InputError, match="single head"):
        _ = AttentionSystem(heads, heads).response
    with pytest.raises(InputError, match="single head"):
        AttentionSystem.from_response(heads, heads)
    assert AttentionSystem.from_response(EYE, EYE, causal=True).causal


def bias_with(value, at=(0, 0, 0)):
    bias = torch.zeros(1, 3, 3).double()
    bias[at] = value
    return bias


ROTARY = Rotary(EYE, EYE, rotary_turns(3, 2))
TWO_HEADS = {"score": EYE[None].expand(1, 2, 2, 2), "value": EYE[None].expand(1, 2, 2, 2)}
BAD_SWITCHES = [
    ("causal", {"causal": torch.ones(3, 3)}, "True or False"),
    ("sphere", {"sphere": 1}, "True or False"),
    ("positions", {"positions": torch.zeros(1, 3, 2)}, "float64"),
    ("positions", {"positions": torch.zeros(3, 2).double()}, "axes"),
    ("positions", {"positions": torch.zeros(2, 3, 2).double()}, r"\(batch, n, d\), here \(1, 3, 2\)"),
    ("positions", {"positions": torch.zeros(1, 3, 2, device="meta").double()}, "device of score"),
    ("positions_in", {"positions_in": "score and value"}, "did you mean 'scores and values'"),
    ("positions_in", {"positions_in": None}, "one of 'scores', 'scores and values'"),
    ("bias", {"bias": torch.zeros(1, 3, 3)}, "float64"),
    ("bias", {"bias": torch.zeros(3, 3).double()}, "axes"),
    ("bias", {"bias": torch.zeros(1, 3, 4).double()}, "with the heads of score"),
    ("bias", {"bias": torch.zeros(1, 1, 3, 3).double()}, "with the heads of score"),
    ("bias", {**TWO_HEADS, "bias": torch.zeros(1, 3, 3, 3).double()}, r"here \(1, 2, 3, 3\)"),
    ("bias", {"bias": torch.zeros(1, 3, 3, device="meta").double()}, "device of score"),
    ("bias", {"bias": bias_with(torch.nan)}, r"1 entries that are NaN or \+inf"),
    ("bias", {"bias": bias_with(torch.inf)}, "−inf to hide a token"),
    ("bias", {"bias": bias_with(-torch.inf, (0, 1))}, r"every token hidden in rows \[\[0, 1\]\]"),
    ("bias", {"bias": bias_with(-torch.inf), "causal": True}, "at j ≤ i"),
    ("rotary", {"rotary": EYE}, "a Rotary"),
    ("rotary", {**TWO_HEADS, "rotary": ROTARY}, "batch, heads and d of score"),
    ("rotary", {"score": EYE.expand(2, 2, 2), "value": EYE.expand(2, 2, 2), "rotary": ROTARY}, "batch"),
    ("rotary", {"score": 2 * EYE, "rotary": ROTARY}, "score = QᵀK"),
]


@pytest.mark.parametrize(("argument", "change", "message"), BAD_SWITCHES)
def test_bad_switches(argument, change, message):
    with pytest.raises(InputError, match=message) as error:
        AttentionSystem(**{"score": EYE, "value": EYE, **change})
    assert error.value.argument == argument


def test_a_bias_that_blinds_a_token_only_under_the_causal_mask():
    AttentionSystem(EYE, EYE, bias=bias_with(-torch.inf))


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"positions": torch.zeros(1, 3, 2).double()}, "n = 3, as positions has"),
        ({"bias": torch.zeros(1, 3, 3).double()}, "n = 3, as bias has"),
        ({"rotary": ROTARY}, "at most 3 tokens, as rotary has turns.*give turns for 4 positions"),
    ],
)
def test_switches_fix_the_number_of_tokens(switches, message):
    system = AttentionSystem(EYE, EYE, **switches)
    system.velocity(torch.ones(1, 3, 2).double())
    with pytest.raises(InputError, match=message):
        system.velocity(torch.ones(1, 4, 2).double())


def test_values_rotate_only_with_turns():
    with pytest.raises(InputError, match="pass turns"):
        AttentionSystem.from_projections(EYE, EYE, EYE, rotated_values=True)
