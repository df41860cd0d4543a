from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import AttentionSystem, InputError
from numerics.families import random_form, random_tokens
from numerics.layerwise import (
    METRICS,
    SCENARIOS,
    block,
    mean_cosine,
    mean_norm,
    normalised,
    positive_eigenvalues,
    random_perceptron,
    random_stacks,
    run,
    sharpness,
    squared_distances,
)
from numerics.observables import antisymmetric_share, pairwise_form, symmetric_part, token_energy

f64 = partial(torch.tensor, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_metrics_of_three_tokens_by_hand():
    """Differences (3,−4), (3,0), (0,4): Σ over ordered pairs 2(25 + 9 + 16), Σ‖x‖² = 25, one zero product."""
    x = f64([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    assert squared_distances(x) == 100
    assert sharpness(x) == 100 / (2 * 2 * 25)
    assert mean_norm(x) == 7 / 3
    close(mean_cosine(f64([[1.0, 0.0], [1.0, 1.0], [0.0, -2.0]])), f64(0.0))


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 5))
def test_metrics_agree_with_sums_over_pairs(seed, n, d):
    x = random_tokens(2 * 3, n, d, 1.0, generator(seed)).reshape(2, 3, n, d)
    differences = x[..., :, None, :] - x[..., None, :, :]
    pairs, squares = differences.square().sum((-3, -2, -1)), x.square().sum((-2, -1))
    gram = x @ x.mT / (x.norm(dim=-1)[..., None] * x.norm(dim=-1)[..., None, :])
    cosines = gram.sum((-2, -1)) - gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    close(squared_distances(x), pairs)
    close(sharpness(x), pairs / (2 * (n - 1) * squares))
    close(mean_cosine(x), cosines / (n * (n - 1)))
    close(mean_norm(x), x.norm(dim=-1).sum(-1) / n)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(1, 5), st.sampled_from([1e-6, 3.0, 1e9]))
def test_extreme_values_and_scale(seed, n, d, scale):
    """Equal tokens: sharpness 0, cosine 1. Mean zero: Σ_ij‖x_i − x_j‖² = 2nΣ‖x_i‖², so n/(n−1)."""
    x = random_tokens(4, n, d, 1.0, generator(seed))
    equal, centred = x[:, :1].expand_as(x), x - x.mean(1, keepdim=True)
    close(sharpness(equal), torch.zeros(4).double())
    close(mean_cosine(equal), torch.ones(4).double())
    close(sharpness(centred), torch.full((4,), n / (n - 1), dtype=torch.float64))
    assert (sharpness(x) <= n / (n - 1) + 1e-12).all()
    assert (mean_cosine(x) >= -1 / (n - 1) - 1e-12).all()
    close(sharpness(scale * x), sharpness(x))
    close(mean_cosine(scale * x), mean_cosine(x))
    close(mean_norm(scale * x) / scale, mean_norm(x))
    close(squared_distances(scale * x) / scale**2, squared_distances(x))


def test_metrics_turn_with_the_tokens_and_forget_their_order():
    x = random_tokens(4, 6, 3, 1.0, generator())
    turned, _ = torch.linalg.qr(random_form(4, 3, positive=3, generator=generator(1)))
    for metric in METRICS.values():
        close(metric(x @ turned), metric(x))
        close(metric(x[:, torch.randperm(6, generator=generator(2))]), metric(x))


@pytest.mark.parametrize("metric", [sharpness, squared_distances, mean_cosine])
def test_one_token_is_refused(metric):
    with pytest.raises(InputError, match=r"x: got shape \(5, 1, 3\); expected .* n ≥ 2"):
        metric(torch.zeros(5, 1, 3).double())


def test_undefined_metrics_are_nan():
    zero = torch.zeros(3, 2).double()
    assert sharpness(zero).isnan()
    assert mean_cosine(zero).isnan()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stacks_have_the_signs_of_their_scenario_and_one_response(scenario):
    stacks = random_stacks(
        scenario, 5, 3, 4, score=(0.1, 0.2), response=(0.3, 0.9), score_share=0.4, generator=generator()
    )
    A = torch.linalg.eigvalsh(stacks.response)
    assert (A > 0).sum(1).tolist() == [{"pd": 4, "hd": 2, "nd": 0}[scenario]] * 5
    assert len(stacks.layers) == 3
    for layer in stacks.layers:
        close(layer.response, stacks.response)
        close(antisymmetric_share(layer.score), torch.full((5,), 0.4, dtype=torch.float64))
        spectrum = torch.linalg.eigvalsh(symmetric_part(layer.score))
        assert ((spectrum > 0.1 - 1e-12) & (spectrum < 0.2 + 1e-12)).all()
    assert not torch.equal(stacks.layers[0].score, stacks.layers[1].score)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 7])
def test_half_of_an_odd_number_is_rounded_down(d):
    assert [positive_eigenvalues(name, d) for name in SCENARIOS] == [d, d // 2, 0]
    stacks = random_stacks("hd", 2, 1, d, generator=generator())
    assert (torch.linalg.eigvalsh(stacks.response) > 0).sum(1).tolist() == [d // 2] * 2


def test_scenarios_of_a_seed_differ_in_signs_only():
    pd, nd = (random_stacks(name, 5, 2, 4, generator=generator(7)) for name in ("pd", "nd"))
    assert torch.equal(pd.response, -nd.response)
    assert all(torch.equal(a.score, b.score) for a, b in zip(pd.layers, nd.layers, strict=True))


def test_antisymmetric_parts_and_unknown_scenarios():
    stacks = random_stacks("hd", 5, 1, 4, response_share=0.7, generator=generator())
    close(antisymmetric_share(stacks.response), torch.full((5,), 0.7, dtype=torch.float64))
    with pytest.raises(InputError, match=r"scenario: got 'dp'.*'pd'"):
        random_stacks("dp", 5, 1, 4, generator=generator())


def test_run_keeps_every_state():
    x = torch.ones(2, 3, 1).double()
    states = run([lambda x: 2 * x, lambda x: x - 1], x)
    assert states[:, 0, 0, 0].tolist() == [1.0, 2.0, 1.0]
    assert states.shape == (3, 2, 3, 1)


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(2, 6), st.integers(1, 4), st.sampled_from([0.01, 0.5, 4.0]))
def test_energy_and_distances_of_positive_stacks_grow(seed, n, d, h):
    """T16a and T1: A ≻ 0, W_s ≻ 0, any step. A pair's form has a rounding of 1e-16 relative to the energy."""
    share = 0.5 if d > 1 else 0.0
    stacks = random_stacks("pd", 4, 5, d, score_share=share, generator=generator(seed))
    states = run(
        [partial(AttentionSystem.step, layer, h=h) for layer in stacks.layers],
        random_tokens(4, n, d, 1.0, generator(seed + 1)),
    )
    energies = torch.stack([token_energy(x, stacks.response).sum(1) for x in states])
    pairs = torch.stack([pairwise_form(x, stacks.response) for x in states])
    assert (energies.diff(dim=0) > 0).all()
    assert (pairs.diff(dim=0) >= -1e-14 * energies[1:, :, None]).all()


@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(2, 6))
def test_energy_of_negative_stacks_falls_at_the_bound_of_t16(seed, n):
    """One dimension: λ = W/(−A) and Γ = λ², so the bound is 2(−A)/(nW) for the smallest −A and largest W."""
    stacks = random_stacks("nd", 4, 5, 1, score=(1.0, 1.0), response=(1.0, 3.0), generator=generator(seed))
    x = random_tokens(4, n, 1, 2.0, generator(seed + 1))
    states = run([partial(AttentionSystem.step, layer, h=2 / n) for layer in stacks.layers], x)
    energies = torch.stack([token_energy(x, stacks.response).sum(1) for x in states])
    assert (energies.diff(dim=0) > 0).all()


def test_layer_norm():
    x = random_tokens(3, 4, 16, 5.0, generator()) + 7
    y = normalised(x)
    close(y.mean(-1), torch.zeros(3, 4).double())
    close(y.square().mean(-1), torch.ones(3, 4).double(), 1e-5)  # of layer_norm's epsilon


def test_a_block_is_attention_and_perceptron_of_normalised_tokens():
    stacks, x = random_stacks("hd", 3, 1, 6, generator=generator()), random_tokens(3, 5, 6, 2.0, generator(1))
    perceptron = random_perceptron(3, 6, generator(2))
    (layer,) = stacks.layers
    for row in range(3):
        tokens = x[row]
        P = torch.softmax(normalised(tokens) @ layer.score[row] @ normalised(tokens).mT, -1)
        y = tokens + P @ normalised(tokens) @ layer.value[row].mT
        hidden = normalised(y) @ perceptron.up[row].mT
        gelu = hidden * (1 + torch.erf(hidden / 2**0.5)) / 2
        close(block(layer, perceptron, x)[row], y + gelu @ perceptron.down[row].mT)


def test_perceptrons_keep_the_size_of_their_input():
    """Variance 1/inputs: Gaussian tokens have Gaussian hidden entries z, and E[GELU(z)²] = 0.425."""
    perceptron = random_perceptron(8, 64, generator())
    assert perceptron.up.shape == (8, 256, 64)
    assert perceptron.down.shape == (8, 64, 256)
    x = random_tokens(8, 64, 64, 1.0, generator(1))
    assert float((x @ perceptron.up.mT).var()) == pytest.approx(1, rel=0.05)
    assert float(perceptron(x).square().mean()) == pytest.approx(0.425, rel=0.1)
