"""Large systems against the same attention with all its scores in memory, which ``attention`` returns."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import AttentionSystem, tiles
from numerics.families import random_tokens
from numerics.kernel import LARGE, flow
from tests.numerics.test_system import VARIANTS, random_system, random_variant

SEEDS = st.integers(0, 2**32)


def dense_velocity(system, x):
    """ẋ from the matrix of all attention weights, batch first."""
    encoded = system.positions is not None and system.positions_in == "scores and values"
    tokens = x + system.positions if encoded else x
    value, attention = system.value, system.attention(x)
    if not system.has_heads:
        value, attention = value[:, None], attention[:, None]
    moved = tokens[:, None] @ value.mT
    if system.rotary is not None and system.rotary.rotated_values:
        turns = system.rotary.turns[..., : x.shape[1], :, :]
        turns = turns if system.rotary.shared else turns[:, None]
        moved = (turns.mT @ (attention @ (turns @ moved[..., None])[..., 0])[..., None])[..., 0]
    else:
        moved = attention @ moved
    velocity = moved.sum(1)
    return velocity - (x * velocity).sum(-1, keepdim=True) * x if system.sphere else velocity


def close(actual, expected, tolerance):
    """Within a share of the largest entry: sums of n terms cancel, and small entries carry its rounding."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance * expected.abs().max().item())


@settings(max_examples=40, deadline=None)
@given(SEEDS, VARIANTS, st.sampled_from([LARGE, LARGE + 1, 127, 130, 300]), st.integers(1, 5))
def test_large_systems_obey_the_definition_with_any_switch(seed, variant, n, d):
    system, x, _ = random_variant(seed, batch=2, n=n, d=d, **variant)
    close(system.velocity(x), dense_velocity(system, x), 1e-12)
    tokens = x + system.positions if variant["positions"] and variant["encoded_values"] else x
    mean = system.attention(x) @ (tokens[:, None] if system.has_heads else tokens)
    close(system.attended_mean(x), mean, 1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS, VARIANTS)
def test_log_radius_is_the_size_of_the_tokens(seed, variant):
    """e⁻ʳ ẋ(eʳu) from u and r; by powers of two, so that only the encoding is rounded."""
    system, u, _ = random_variant(seed, batch=2, n=LARGE + 9, d=3, **{**variant, "sphere": False})
    factor = torch.tensor([0.5, 4.0], dtype=torch.float64)
    velocity = flow(u.movedim(0, -1), system.kernel(LARGE + 9), factor.log()).movedim(-1, 0)
    close(velocity, system.velocity(factor[:, None, None] * u) / factor[:, None, None], 1e-12)


def test_attention_at_a_log_radius_beyond_float64_is_the_hard_maximum():
    g = torch.Generator().manual_seed(0)
    system, u = random_system(1, 3, g), random_tokens(1, LARGE + 1, 3, 1.0, g)
    leader = torch.nn.functional.one_hot(system.scores(u).argmax(-1), LARGE + 1).double()
    velocity = flow(u.movedim(0, -1), system.kernel(LARGE + 1), torch.tensor([2000.0]).double()).movedim(
        -1, 0
    )
    close(velocity, leader @ u @ system.value.mT, 1e-14)


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"),
    [
        (torch.float64, 1e20, 1e-13),
        (torch.float64, 1e150, 1e-13),
        (torch.float64, 1e300, 1e-13),
        (torch.float32, 1e20, 1e-5),
        (torch.float32, 1e35, 1e-5),
    ],
)
def test_huge_tokens_attend_to_the_largest_score(dtype, size, tolerance):
    g = torch.Generator().manual_seed(1)
    system, x = random_system(2, 4, g), random_tokens(2, 200, 4, 1.0, g)
    leader = torch.nn.functional.one_hot(system.scores(x).argmax(-1), 200).double()
    system = AttentionSystem(system.score.to(dtype), system.value.to(dtype))
    velocity = system.velocity((size * x).to(dtype))
    close(velocity.double() / size, leader @ x @ system.value.double().mT, tolerance)


@pytest.mark.parametrize("size", [1e-30, 1.0, 3.0])
def test_float32_is_as_accurate_as_its_scores(size):
    """Scores up to 40 in size are rounded to 40 eps, about 5e-6, and so is the logarithm of the attention."""
    g = torch.Generator().manual_seed(2)
    system, x = random_system(2, 4, g), random_tokens(2, 300, 4, size, g)
    half = AttentionSystem(system.score.float() / 4, system.value.float(), causal=True)
    whole = AttentionSystem(half.score.double(), half.value.double(), causal=True)
    x = x.float()
    velocity = half.velocity(x)
    assert velocity.dtype == torch.float32
    close(velocity.double(), whole.velocity(x.double()), 2e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-13), (torch.float32, 1e-5)])
def test_weights_are_accurate_down_to_underflow(dtype, tolerance):
    """Values that are unit vectors return the weights, here down to near the least normal number.

    A difference of scores is rounded, which changes its exponential by up to half the last bit of 690 or 80.
    """
    n = 130
    scores = torch.linspace(0, 80 if dtype == torch.float32 else 690, n, dtype=dtype)[None]
    queries, keys, values = torch.ones(n, 1, dtype=dtype), scores.mT, torch.eye(n, dtype=dtype)
    weights = tiles.attend(queries, keys, values, torch.ones(n, 1, dtype=dtype), None, False)
    expected = torch.exp(scores.double() - scores.max())
    torch.testing.assert_close(
        weights.double(), (expected / expected.sum()).expand(n, n), rtol=tolerance, atol=0
    )


# Independence


@settings(max_examples=30, deadline=None)
@given(SEEDS, VARIANTS)
def test_no_row_depends_on_its_batch_mates_or_its_place_in_memory(seed, variant):
    system, x, _ = random_variant(seed, batch=4, n=LARGE + 11, d=3, **variant)
    velocity = system.velocity(x)
    for rows in ([2], [3, 0], slice(1, 4)):
        assert torch.equal(system.rows(rows).velocity(x[rows]), velocity[rows])
    shifted = torch.empty(x[:1].numel() + 1, dtype=x.dtype)[1:].view(x[:1].shape).copy_(x[3:])
    assert shifted.data_ptr() % 16 == 8
    assert torch.equal(system.rows([3]).velocity(shifted), velocity[3:])


@pytest.mark.parametrize("heads", [None, 2])
def test_a_batch_of_no_systems(heads):
    system, x, _ = random_variant(6, heads=heads, batch=2, n=LARGE + 1)
    assert system.rows([]).velocity(x[:0]).shape == (0, LARGE + 1, 2)


def test_a_bad_system_does_not_touch_its_neighbours():
    g = torch.Generator().manual_seed(3)
    system, x = random_system(3, 2, g), random_tokens(3, 100, 2, 1.0, g)
    system.score[1, 0, 0], x[2, 5, 1] = torch.nan, torch.inf
    velocity = system.velocity(x)
    assert velocity[1:].isnan().any((1, 2)).all()
    assert torch.equal(velocity[:1], system.rows([0]).velocity(x[:1]))


def test_the_number_of_threads_does_not_matter():
    g = torch.Generator().manual_seed(4)
    queries, keys, values = torch.randn(3, 1001, 5, generator=g, dtype=torch.float64)
    one = [
        tiles.attend(queries, keys, values, torch.ones(1001, 1).double(), None, hide)
        for hide in (False, True)
    ]
    torch.set_num_threads(2)
    try:
        two = [
            tiles.attend(queries, keys, values, torch.ones(1001, 1).double(), None, hide)
            for hide in (False, True)
        ]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


# Derivatives


@pytest.mark.parametrize(
    "variant", [{}, {"causal": True}, {"bias": "by head", "rotary": "own", "rotated_values": True}]
)
def test_derivatives_are_those_of_the_dense_velocity(variant):
    n = tiles.BLOCK + 40  # two blocks
    system, x, _ = random_variant(5, heads=2, batch=1, n=n, d=2, **variant)
    direction = torch.randn_like(x)
    x = x.requires_grad_()
    velocity, expected = system.velocity(x), dense_velocity(system, x)
    close(velocity, expected, 1e-12)
    (gradient,), (dense,) = (
        torch.autograd.grad((part * direction).sum(), x) for part in (velocity, expected)
    )
    close(gradient, dense, 1e-11)
    x = x.detach()
    slope = torch.func.jvp(system.velocity, (x,), (direction,))[1]
    torch.testing.assert_close((slope * direction).sum(), (dense * direction).sum(), rtol=1e-10, atol=0)


# Memory

MEMORY = """
import resource, torch
from numerics import AttentionSystem
torch.set_num_threads(1)
W = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 8
system = AttentionSystem(W, W, causal=True, sphere=True)
def work(n):
    x = torch.ones(1, n, 8, dtype=torch.float64, requires_grad={gradient})
    velocity = system.velocity(x)
    if {gradient}:
        velocity.sum().backward()
work(100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
work({n})
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.parametrize(("n", "gradient", "bound"), [(8192, False, 32), (4096, True, 48)])
def test_memory_is_linear_in_the_number_of_tokens(n, gradient, bound):
    """n² numbers would be 512 or 128 MiB. Freed memory is returned at once: the peak is of memory in use."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", MEMORY.format(n=n, gradient=gradient)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    mib = float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)
    assert mib < bound
