"""Small random models of `transformers`, saved and read back; what it computes is the reference."""

import json
import math
import re
from itertools import pairwise

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    ViTConfig,
    ViTModel,
)

from numerics.checkpoints import load_checkpoint
from numerics.errors import InputError
from numerics.layerwise import mean_cosine, mean_norm, sharpness, squared_distances
from tokendyn.activations import activations

IDS = [3, 14, 15, 9, 2, 6, 5]
DIGITS = 1e-5  # the report keeps six digits
EAGER = {"attn_implementation": "eager"}
ALBERT = {
    "vocab_size": 50,
    "embedding_size": 16,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "hidden_dropout_prob": 0,
    "attention_probs_dropout_prob": 0,
    **EAGER,
}
GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 12, **EAGER}
LLAMA = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    **EAGER,
}
VIT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "image_size": 8,
    "patch_size": 4,
    **EAGER,
}


def randomised(model, seed=0):
    """Every parameter random, biases and norm gains too, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            gain = parameter.ndim == 1 and "norm" in name.lower() and name.endswith("weight")
            parameter.normal_(1.0 if gain else 0.0, 0.3, generator=generator)
    return model.double().eval()


def read(model, folder):
    model.save_pretrained(folder)
    return load_checkpoint(folder)


def rows(report, system):
    return [row for row in report["rows"] if row["system"] == system]


def records(report, name, system):
    return [r for r in report["agreement"] if (r["id"], r["system"]) == (name, system)]


def near(value):
    return pytest.approx(value, rel=DIGITS)


@pytest.fixture(scope="module")
def albert(tmp_path_factory):
    model = randomised(AlbertModel(AlbertConfig(**ALBERT)))
    return model, read(model, tmp_path_factory.mktemp("albert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    model = randomised(GPT2Model(GPT2Config(**GPT2)))
    return model, read(model, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    model = randomised(LlamaModel(LlamaConfig(**LLAMA)))
    return model, read(model, tmp_path_factory.mktemp("llama"))


@pytest.fixture
def ungrouped(tmp_path):
    """The Llama with keys and values of its own for every head."""
    model = randomised(LlamaModel(LlamaConfig(**{**LLAMA, "num_key_value_heads": 4})))
    return model, read(model, tmp_path)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    model = randomised(ViTModel(ViTConfig(**VIT), add_pooling_layer=False))
    return model, read(model, tmp_path_factory.mktemp("vit"))


@pytest.fixture
def still(tmp_path):
    """A GPT-2 of one head: V a multiple of 1 in each layer, uniform attention (Q = K = 0), given tokens."""

    def build(embedding, values=(1.0,)):
        d = len(embedding[0])
        model = randomised(
            GPT2Model(GPT2Config(vocab_size=len(embedding), n_embd=d, n_layer=len(values), n_head=1, **EAGER))
        )
        with torch.no_grad():
            model.wte.weight.copy_(torch.tensor(embedding))
            model.wpe.weight.zero_()
            for block, value in zip(model.h, values, strict=True):
                block.attn.c_attn.weight.zero_()[:, 2 * d :] = value * torch.eye(
                    d, dtype=torch.float64
                )  # Conv1D: (in, out)
                block.attn.c_proj.weight.copy_(torch.eye(d))
        return read(model, tmp_path)

    return build


# Rows


@pytest.mark.parametrize("name", ["albert", "gpt2", "llama"])
def test_the_model_rows_measure_the_hidden_states_of_transformers(name, request):
    model, checkpoint = request.getfixturevalue(name)
    with torch.no_grad():
        out = model(torch.tensor([IDS]), output_hidden_states=True, output_attentions=True)
    report = activations(checkpoint, IDS)
    found = rows(report, "model")
    assert report["grade"] == "float"
    assert report["tokens"] == len(IDS)
    assert report["trained_depth"] == 3
    assert [row["step"] for row in found] == [0, 1, 2, 3]
    assert not any(row["beyond_trained_depth"] for row in found)
    last_is_normed = name != "albert"  # transformers puts the final norm into its last hidden state
    for row, hidden in list(zip(found, out.hidden_states, strict=True))[: 3 if last_is_normed else 4]:
        x = hidden[0]
        sizes = x.norm(dim=1)
        assert row["norm_mean_float"] == near(mean_norm(x).item())
        assert row["norm_min_float"] == near(sizes.min().item())
        assert row["norm_max_float"] == near(sizes.max().item())
        assert row["norm_first_float"] == near(sizes[0].item())
        assert row["log_norm_max_float"] == pytest.approx(sizes.max().log().item(), abs=DIGITS)
        assert row["first_token_ratio_float"] == near((sizes[0] / sizes[1:].sort().values[2:4].mean()).item())
        assert row["distance_mean_float"] == near(torch.cdist(x, x).sum().item() / (7 * 6))
        assert row["distance_sum_float"] == near(squared_distances(x).item())
        assert row["cosine_float"] == pytest.approx(mean_cosine(x).item(), abs=DIGITS)
        assert row["sharpness_float"] == near(sharpness(x).item())
    for row, attention in zip(found[1:], out.attentions, strict=True):
        entropy = -(attention * attention.clamp(min=1e-300).log()).sum(-1).mean().item()
        assert row["attention_entropy_float"] == near(entropy)


def attention_only_albert(model, largest):
    """States of x⁺ = x + Σ_h O_h Σ_j P_ij V'_h x_j until a norm is `largest`, and each P's mean entropy."""
    attention = model.encoder.albert_layer_groups[0].albert_layers[0].attention
    maps = [getattr(attention, part).weight.detach() for part in ("query", "key", "value", "dense")]
    with torch.no_grad():
        x = model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[0][0]
    states, entropies, heads = [x], [], attention.num_attention_heads
    size = len(maps[0]) // heads
    while x.norm(dim=1).max() < largest:
        total, entropy = torch.zeros_like(x), 0.0
        for h in range(heads):
            part = slice(h * size, (h + 1) * size)
            query, key, value = (x @ matrix[part].mT for matrix in maps[:3])
            weights = torch.softmax(query @ key.mT / math.sqrt(size), -1)
            total += weights @ value @ maps[3][:, part].mT
            entropy += torch.special.entr(weights).sum(-1).mean().item() / heads
        x = x + total
        states.append(x)
        entropies.append(entropy)
    return states, entropies


def test_attention_alone_goes_past_the_trained_depth_and_past_the_largest_norm(albert):
    """The reference runs without rescaling, which doubles allow up to norms of 1e154."""
    model, checkpoint = albert
    states, entropies = attention_only_albert(model, largest=1e130)
    depth = len(states) - 1
    report = activations(checkpoint, IDS, depth=depth)
    found = rows(report, "attention only")
    assert [row["beyond_trained_depth"] for row in found] == [k > 3 for k in range(depth + 1)]
    assert {row["layer"] for row in found} == {None, 0}
    for row, x in zip(found, states, strict=True):
        largest = x.norm(dim=1).max()
        assert row["log_norm_max_float"] == pytest.approx(largest.log().item(), rel=DIGITS)
        assert (row["norm_max_float"] is None) == (row["distance_sum_float"] is None) == (largest > 1e100)
        assert row["sharpness_float"] == pytest.approx(sharpness(x).item(), rel=DIGITS, abs=1e-12)
    for row, entropy, x in zip(found[1:], entropies, states, strict=False):
        if sharpness(x) < 1e-8:  # later, rounding decides between scores of tokens that are all but equal
            break
        assert row["attention_entropy_float"] == pytest.approx(entropy, rel=DIGITS, abs=1e-12)
    json.dumps(report, allow_nan=False)


def test_without_a_config_no_depth_is_known_to_be_the_trained_one(albert, tmp_path):
    weights = tmp_path / "model.pt"
    torch.save(albert[0].state_dict(), weights)
    report = activations(load_checkpoint(weights, heads=4), IDS, depth=5)
    assert report["trained_depth"] is None
    assert [row["step"] for row in rows(report, "model")] == list(range(6))
    assert not any(row["beyond_trained_depth"] for row in report["rows"])


@pytest.mark.parametrize(("depth", "blocks"), [(None, [0, 1, 0, 1, 2, 3, 2, 3]), (1, [0, 1])])
def test_the_depth_of_groups_of_layers_is_counted_in_blocks(tmp_path, depth, blocks):
    config = AlbertConfig(**{**ALBERT, "num_hidden_layers": 4, "num_hidden_groups": 2, "inner_group_num": 2})
    report = activations(read(randomised(AlbertModel(config)), tmp_path), IDS, depth)
    assert report["trained_depth"] == 8
    assert [row["layer"] for row in rows(report, "model")] == [None, *blocks]
    assert not any(row["beyond_trained_depth"] for row in report["rows"])


def test_uniform_causal_attention_with_the_identity_by_hand(still):
    """x⁺_i = x_i + the mean of x_1 … x_i: (3, 0), (0, 4), (0, 0) become (6, 0), (3/2, 6), (1, 4/3)."""
    report = activations(still([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]]), [0, 1, 2])
    start, end = rows(report, "attention only")
    middle, last = math.hypot(1.5, 6), math.hypot(1, 4 / 3)
    assert (start["norm_mean_float"], start["norm_min_float"], start["norm_max_float"]) == (near(7 / 3), 0, 4)
    assert start["first_token_ratio_float"] == 3 / 2
    assert start["cosine_float"] is None  # the third token is zero
    assert end["norm_mean_float"] == near((6 + middle + last) / 3)
    assert end["first_token_ratio_float"] == near(6 / ((middle + last) / 2))
    assert end["attention_entropy_float"] == near((math.log(2) + math.log(3)) / 3)


def test_equal_tokens_double_at_every_layer(still):
    """V = 1 and equal tokens: ẋ = Vx = x (T6), so a residual step doubles every token."""
    report = activations(still([[3.0, 4.0]], values=[1.0] * 3), [0, 0, 0, 0])
    for step, row in enumerate(rows(report, "attention only")):
        assert row["norm_mean_float"] == row["norm_min_float"] == row["norm_max_float"] == 5 * 2**step
        assert row["first_token_ratio_float"] == 1
        assert (row["distance_mean_float"], row["distance_sum_float"], row["sharpness_float"]) == (0, 0, 0)
        assert row["cosine_float"] == near(1)
        assert row["one_side_share_float"] == (None if step == 0 else 1)
    for name in ("T6b", "T14c", "T17", "L4"):
        assert all(r["agrees"] for r in records(report, name, "attention only") if r["applies"])
    assert [r["observed"] for r in records(report, "T6b", "attention only")] == [
        "the largest norm changes by the factor 2"
    ] * 3
    for record in records(report, "T17", "attention only"):
        assert "factors 2 and 2" in record["observed"]
        distance = re.search(r"by (\S+) \(relative\)", record["observed"])
        assert float(distance[1]) < 1e-12


def test_norms_come_back_from_beyond_the_largest(still):
    """Two layers multiply equal tokens by 1 + 1e60, forty by 1/1000, the last by 0."""
    report = activations(still([[3.0, 4.0]], values=[1e60, 1e60, *[-0.999] * 40, -1.0]), [0, 0])
    found = rows(report, "attention only")
    assert [row["norm_max_float"] is None for row in found[1:4]] == [False, True, True]
    assert found[2]["log_norm_max_float"] == near(math.log(5) + 120 * math.log(10))
    assert found[42]["norm_max_float"] == near(5)
    assert (found[43]["norm_max_float"], found[43]["log_norm_max_float"]) == (0, None)
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("name", ["albert", "gpt2", "llama"])
def test_one_token_has_no_pairs(name, request):
    report = activations(request.getfixturevalue(name)[1], [7])
    json.dumps(report, allow_nan=False)
    pairs = ("distance_mean_float", "distance_sum_float", "cosine_float", "sharpness_float")
    for row in report["rows"]:
        assert [row[key] for key in (*pairs, "first_token_ratio_float")] == [None] * 5
        assert row["norm_mean_float"] == row["norm_max_float"] == row["norm_first_float"]
        assert row["attention_entropy_float"] in (None, 0)
    for record in records(report, "L4", "model") + records(report, "L4", "single-head idealisation"):
        assert (record["applies"], record["agrees"], record["why"]) == (
            False,
            None,
            "one token makes no pairs",
        )


def test_an_image(vit):
    model, checkpoint = vit
    image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        states = model(image[None], output_hidden_states=True).hidden_states
    report = activations(checkpoint, image.numpy())
    assert report["tokens"] == 5  # four patches and the class token
    found = rows(report, "model")
    for row, hidden in list(zip(found, states, strict=True))[:2]:
        assert row["norm_mean_float"] == near(mean_norm(hidden[0]).item())


# Agreement


def test_causal_models_give_the_first_token_the_sum_of_the_heads(gpt2, llama):
    for _, checkpoint in (gpt2, llama):
        report = activations(checkpoint, IDS)
        for system in ("attention only", "model"):
            found = [r for r in records(report, "T14c", system) if "whatever the other" in r["statement"]]
            assert len(found) == 3
            assert all(r["applies"] and r["agrees"] for r in found)
        grown = [r for r in records(report, "T14c", "model") if "almost every" in r["statement"]]
        assert not any(r["applies"] for r in grown)


def test_what_breaks_t14c_is_noticed(gpt2, monkeypatch):
    """A layer that adds a little of the second token to the first is not causal, and is found out."""
    _, checkpoint = gpt2
    layer = type(checkpoint.layers[0])
    velocity = layer.velocity
    monkeypatch.setattr(layer, "velocity", lambda self, x: velocity(self, x) + 1e-6 * x.roll(-1, 0))
    found = records(activations(checkpoint, IDS), "T14c", "attention only")
    assert [r["agrees"] for r in found if "whatever the other" in r["statement"]] == [False] * 3


def test_what_breaks_t17_is_noticed(still, monkeypatch):
    """A velocity that is 0.1 % too large passes the upper bound."""
    checkpoint = still([[3.0, 4.0], [1.0, 2.0]])
    layer = type(checkpoint.layers[0])
    velocity = layer.velocity
    monkeypatch.setattr(layer, "velocity", lambda self, x: 1.001 * velocity(self, x))
    (record,) = records(activations(checkpoint, [0, 0]), "T17", "attention only")
    assert (record["applies"], record["agrees"]) == (True, False)


def test_growth_is_the_sign_of_the_change_of_the_largest_norm(albert, gpt2):
    for _, checkpoint in (albert, gpt2):
        report = activations(checkpoint, IDS)
        for system in ("attention only", "model"):
            logs = [row["log_norm_max_float"] for row in rows(report, system)]
            found = records(report, "T6b", system)
            assert [r["agrees"] for r in found] == [b > a for a, b in pairwise(logs)]
            assert all(r["applies"] == (system == "attention only") for r in found)


def test_without_growth_t6b_and_t17_are_silent(still):
    """V = −1 has no eigenvalue with positive real part."""
    report = activations(still([[3.0, 4.0], [1.0, 0.0]], values=[-1.0]), [0, 1])
    for name in ("T6b", "T17"):
        (record,) = records(report, name, "attention only")
        assert (record["applies"], record["agrees"], record["predicted"]) == (False, None, "nothing")
    assert rows(report, "attention only")[1]["one_side_share_float"] is None


@pytest.mark.parametrize(
    ("rates", "ids", "share", "why"),
    [
        ((0.5, 0.25), [0, 1], 1, None),
        ((0.5, -0.25), [0, 1], 1, "a negative multiple"),
        ((0.5, 0.25), [0, 2, 2], 2 / 3, "only 2 of 3 tokens"),
    ],
)
def test_heads_with_a_common_left_eigenvector(tmp_path, rates, ids, share, why):
    """ℓ = e_1 of both V_h, at the given rates; the tokens' z are 1, 3 and −2, and no step changes a sign."""
    model = randomised(GPT2Model(GPT2Config(vocab_size=3, n_embd=4, n_layer=1, n_head=2, **EAGER)))
    with torch.no_grad():
        model.wte.weight[:, 0] = torch.tensor([1.0, 3.0, -2.0])
        model.wpe.weight.zero_()
        values, output = model.h[0].attn.c_attn.weight[:, 8:], model.h[0].attn.c_proj.weight
        output[:, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0])  # O_h's first row is (1, 0); Conv1D: (in, out)
        values[:, [0, 2]] = 0.0
        values[0, 0], values[0, 2] = rates  # V'_h's first row is rate · e_1
        values[:, [1, 3]] *= 0.1  # so that the rates' sum is the largest eigenvalue
    report = activations(read(model, tmp_path), ids)
    assert rows(report, "attention only")[1]["one_side_share_float"] == near(share)
    (record,) = records(report, "T17", "attention only")
    assert record["applies"] == (why is None)
    assert record["agrees"] == (True if why is None else None)
    assert "1 + λ = 1.75" in record["predicted"] if why is None else why in record["why"]


def test_heads_without_a_common_left_eigenvector(albert):
    for record in records(activations(albert[1], IDS), "T17", "attention only"):
        assert (record["applies"], record["agrees"]) == (False, None)
        assert "share no ℓ" in record["why"] or "no positive real eigenvalue" in record["why"]


@pytest.mark.parametrize(
    ("name", "on"), [("albert", "4 heads"), ("gpt2", "a causal mask"), ("ungrouped", "rotary encoding")]
)
def test_the_pairwise_form_of_the_idealisation_is_never_negative(name, on, request):
    _, checkpoint = request.getfixturevalue(name)
    report = activations(checkpoint, IDS)
    for record in records(report, "L4", "single-head idealisation"):
        assert (record["applies"], record["agrees"]) == (True, True)
    layer = records(report, "L4", "model")
    assert all(on in r["why"] and r["agrees"] is None and not r["applies"] for r in layer)
    assert any("share of 1 " not in r["observed"] for r in layer)  # these heads are far from one


def test_the_share_of_pairs_of_the_layer_itself(albert):
    """(x_i − x_j)ᵀWV⁻¹(u_i − u_j) of the embedding, pair by pair, with an inverse."""
    model, checkpoint = albert
    layer = checkpoint.layers[0]
    with torch.no_grad():
        x = model(torch.tensor([IDS]), output_hidden_states=True).hidden_states[0][0]
    response = layer.query.mT @ layer.key / 2 @ torch.linalg.inv(layer.output @ layer.value)  # √d_k = 2
    u = layer.attend(x)
    pairs = [(x[i] - x[j]) @ response @ (u[i] - u[j]) for i in range(7) for j in range(i)]
    share = sum(pair.item() >= 0 for pair in pairs) / 21
    assert 0 < share < 1
    record = records(activations(checkpoint, IDS), "L4", "model")[0]
    assert f"a share of {share:.6g} of the pairs" in record["observed"]


def test_one_head_without_a_mask_obeys_l4_in_the_model_biases_included(tmp_path):
    config = AlbertConfig(**{**ALBERT, "num_attention_heads": 1})
    report = activations(read(randomised(AlbertModel(config), seed=1), tmp_path), IDS, depth=6)
    found = records(report, "L4", "model")
    assert len(found) == 6
    assert all(r["applies"] and r["agrees"] for r in found)


def test_what_breaks_l4_is_noticed(tmp_path, monkeypatch):
    """One head whose output has the wrong sign."""
    config = AlbertConfig(**{**ALBERT, "num_attention_heads": 1})
    checkpoint = read(randomised(AlbertModel(config), seed=1), tmp_path)
    layer = type(checkpoint.layers[0])
    attend = layer.attend
    monkeypatch.setattr(layer, "attend", lambda self, x: -attend(self, x))
    found = records(activations(checkpoint, IDS, depth=1), "L4", "model")
    assert [(r["applies"], r["agrees"]) for r in found] == [(True, False)]


def test_without_a_response_matrix_l4_is_silent(llama):
    """Four heads of size 4 in d = 16, but two of keys and values: V has rank 8 at most."""
    report = activations(llama[1], IDS)
    for record in records(report, "L4", "model") + records(report, "L4", "single-head idealisation"):
        assert (record["applies"], record["observed"]) == (False, "nothing")
        assert record["why"] == "Σ_h V_h has rank ≤ 8 < 16, so A does not exist"


# Bad input


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [50],
        [-1],
        [[1, 2], [3, 4]],
        [0.5, 1.5],
        "abc",
        None,
        torch.zeros(3, 8, 8),
        [1] * 13,  # the position table holds 12
        3,
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["albert", "gpt2"])
def test_bad_tokens(name, tokens, request):
    with pytest.raises(InputError) as raised:
        activations(request.getfixturevalue(name)[1], tokens)
    assert raised.value.argument == "tokens"


@pytest.mark.parametrize("tokens", [IDS, torch.zeros(3, 8, 9), torch.zeros(1, 8, 8), torch.zeros(8, 8)])
def test_a_vision_model_takes_images_of_its_size(vit, tokens):
    with pytest.raises(InputError) as raised:
        activations(vit[1], tokens)
    assert raised.value.argument == "tokens"


@pytest.mark.parametrize(("name", "depth"), [("gpt2", 4), ("llama", 4), ("albert", 0), ("gpt2", -1)])
def test_bad_depth(name, depth, request):
    with pytest.raises(InputError) as raised:
        activations(request.getfixturevalue(name)[1], IDS, depth)
    assert raised.value.argument == "depth"
