import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import eigh
from scipy.special import lambertw

from numerics import AttentionSystem, InputError, Rotary
from numerics import observables as ob
from numerics.encodings import rotary_turns
from numerics.families import random_form, random_tokens

f64 = partial(torch.tensor, dtype=torch.float64)


def case(seed, batch=3, n=4, d=3, scale=0.7):
    g = torch.Generator().manual_seed(seed)
    W, V, M = torch.randn(3, batch, d, d, generator=g, dtype=torch.float64)
    return AttentionSystem(W, V), random_tokens(batch, n, d, scale, g), M


def close(a, b, tolerance=1e-12):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def test_free_energy_gap():
    assert ob.free_energy_gap(1) == 0.0
    for n in (2, 3, 10, 1000, 10**9):
        assert ob.free_energy_gap(n) == pytest.approx(lambertw((n - 1) / math.e).real, rel=1e-15)
        assert ob.free_energy_gap(n) < math.log(n)
    assert ob.free_energy_gap(2) == pytest.approx(0.278, abs=5e-4)
    with pytest.raises(InputError, match="n: got 0"):
        ob.free_energy_gap(0)


@pytest.mark.parametrize("n", [2, 3, 8, 50])
def test_free_energy_gap_is_sharp(n):
    """The extremal scores of L2 are (a, 0, …, 0) with a = 1 + κ_n."""
    kappa = ob.free_energy_gap(n)
    s = torch.zeros(n).double()
    s[0] = 1 + kappa
    assert float(s[0] - torch.softmax(s, 0) @ s) == pytest.approx(kappa, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(1, 4), st.sampled_from([1e-5, 0.3, 1.0, 20.0]))
def test_lemmas_on_random_systems(seed, n, d, scale):
    system, x, _ = case(seed, n=n, d=d, scale=scale)
    s, P, e = system.scores(x), system.attention(x), ob.attended_score(system, x)
    size = 1 + s.abs().amax(-1)
    to, back, entropy = ob.kl_to_uniform(P), ob.kl_from_uniform(s), ob.score_entropy(P)
    assert (to >= 0).all()
    assert (back >= 0).all()
    assert ((e - ob.mean_score(system, x) - to - back).abs() <= 1e-13 * size).all()  # L1
    assert ((e - s.logsumexp(-1) + entropy).abs() <= 1e-13 * size).all()  # L2
    assert (e >= ob.max_score(system, x) - ob.free_energy_gap(n) - 1e-13 * size).all()  # L2
    close(ob.self_score(system, x), torch.einsum("bia,bac,bic->bi", x, system.score, x), 1e-11)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 4))
def test_response_identities(seed, n, d):
    """L4, and T1 for symmetric A."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(2, d, d, generator=g, dtype=torch.float64)
    positive = torch.tensor([0, d])
    A = random_form(2, d, positive=positive, generator=g)
    system, x = AttentionSystem.from_response(W, A), random_tokens(2, n, d, 1.0, g)
    v = system.velocity(x)
    close(((x @ A) * v).sum(-1), ob.attended_score(system, x), 1e-10)
    close(ob.token_energy_rate(x, v, A), ob.attended_score(system, x), 1e-10)
    assert (ob.pairwise_form_rate(x, v, A) >= -1e-11).all()
    close(ob.potential_gradient(system, x, x), system.attended_mean(x) @ W.mT, 1e-12)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32), st.integers(1, 6), st.sampled_from([None, 2]), st.sampled_from([0.3, 1.0, 20.0])
)
def test_lemmas_over_the_visible_keys(seed, n, heads, scale):
    """L1 and L2 under a causal mask and a bias that hides more, with the number of visible keys for n."""
    g = torch.Generator().manual_seed(seed)
    W, V = torch.randn(2, 2, *([heads] if heads else []), 3, 3, generator=g, dtype=torch.float64)
    bias = torch.randn(2, n, n, generator=g, dtype=torch.float64)
    bias = torch.where((torch.rand(2, n, n, generator=g) < 0.4).tril(-1), -torch.inf, bias)
    x = random_tokens(2, n, 3, scale, g)
    for system in (AttentionSystem(W, V, causal=True), AttentionSystem(W, V, causal=True, bias=bias)):
        s, P, e = system.scores(x), system.attention(x), ob.attended_score(system, x)
        visible = system.visible(n).expand_as(s)
        assert (visible.sum(-1) <= torch.arange(1, n + 1)).all()
        size = 1 + s.where(visible, 0.0).abs().amax(-1)
        to, back = ob.kl_to_uniform(P, visible), ob.kl_from_uniform(s, visible)
        assert ((e - ob.mean_score(system, x) - to - back).abs() <= 1e-13 * size).all()
        free_energy = s.where(visible, -torch.inf).logsumexp(-1)
        assert ((e - free_energy + ob.score_entropy(P)).abs() <= 1e-13 * size).all()
        kappa = f64([ob.free_energy_gap(i) for i in range(1, n + 1)])  # at most i visible keys
        assert (e >= ob.max_score(system, x) - kappa - 1e-13 * size).all()
        assert (ob.max_score(system, x) <= free_energy + 1e-13 * size).all()
        assert torch.equal(ob.self_score(system, x), s.diagonal(dim1=-2, dim2=-1))


def test_visible_keys_of_a_causal_system_by_hand():
    """d = 1, W = 1, tokens 1, 2, 3: row i has scores i·j for j ≤ i."""
    one = torch.ones(1, 1, 1).double()
    system, x = AttentionSystem(one, one, causal=True), f64([[[1.0], [2.0], [3.0]]])
    assert ob.mean_score(system, x).tolist() == [[1, 3, 6]]
    assert ob.max_score(system, x).tolist() == [[1, 4, 9]]
    assert ob.attended_score(system, x)[0, 0] == 1
    assert system.scores(x)[0, 0].tolist() == [1, 2, 3]
    hidden = torch.zeros(1, 3, 3).double()
    hidden[0, 2, 1] = -torch.inf
    assert ob.mean_score(AttentionSystem(one, one, causal=True, bias=hidden), x).tolist() == [[1, 3, 6]]
    hidden[0, 2, 2] = -torch.inf
    assert ob.max_score(AttentionSystem(one, one, bias=hidden), x).tolist() == [[3, 6, 3]]


@pytest.mark.parametrize(
    ("switches", "message"),
    [
        ({"causal": True}, "a causal mask"),
        ({"positions": torch.zeros(1, 3, 2).double()}, "positions"),
        ({"bias": torch.zeros(1, 3, 3).double(), "causal": True}, "a causal mask, a bias"),
        (
            {"rotary": Rotary(*torch.eye(2).double().expand(2, 1, 2, 2), rotary_turns(3, 2))},
            "rotary encoding",
        ),
        ({"heads": True}, "heads"),
    ],
)
def test_potentials_need_a_plain_system(switches, message):
    eye, x = torch.eye(2).double()[None], torch.ones(1, 3, 2).double()
    eye = eye[None] if switches.pop("heads", False) else eye
    system = AttentionSystem(eye, eye, **switches)
    for call in (ob.log_partition_total, ob.partition_total, ob.partition_total_rate):
        with pytest.raises(InputError, match=f"system: got a system with {message}; expected one head"):
            call(system, x)
    for call in (ob.potential, ob.potential_gradient):
        with pytest.raises(InputError, match=message):
            call(system, x, x)


def test_partition_rate_on_the_sphere():
    """W = V symmetric: the sphere's flow is a gradient flow of F, which therefore increases."""
    g = torch.Generator().manual_seed(6)
    W = random_form(5, 3, positive=torch.arange(5) % 4, generator=g)
    x = torch.nn.functional.normalize(random_tokens(5, 4, 3, 1.0, g), dim=-1)
    assert (ob.partition_total_rate(AttentionSystem(W, W, sphere=True), x) > 0).all()


def test_rates_are_derivatives_along_the_flow():
    system, x, M = case(3)
    v, h = system.velocity(x), 1e-5

    def difference(observable):
        return (observable(x + h * v) - observable(x - h * v)) / (2 * h)

    close(ob.token_energy_rate(x, v, M), difference(lambda y: ob.token_energy(y, M)), 1e-8)
    close(ob.pairwise_form_rate(x, v, M), difference(lambda y: ob.pairwise_form(y, M)), 1e-8)
    rate, total = ob.partition_total_rate(system, x), ob.partition_total(system, x)
    close(rate / total, difference(lambda y: ob.log_partition_total(system, y)), 1e-7)
    close(rate / total, difference(lambda y: ob.partition_total(system, y)) / total, 1e-7)
    probe, direction = x[:, :2].clone(), v[:, :2]
    slope = ob.potential(system, probe + h * direction, x) - ob.potential(system, probe - h * direction, x)
    close((ob.potential_gradient(system, probe, x) * direction).sum(-1), slope / (2 * h), 1e-8)


def test_partition_rate_is_the_quadratic_form_of_t5():
    g = torch.Generator().manual_seed(5)
    W = random_form(3, 3, positive=3, generator=g)
    A = random_form(3, 3, positive=torch.tensor([0, 3, 3]), antisymmetric_share=0.6, generator=g)
    system, x = AttentionSystem.from_response(W, A), random_tokens(3, 4, 3, 0.7, g)
    Z = system.scores(x).exp().sum(-1, keepdim=True)
    gradient = 2 * Z * (system.attended_mean(x) @ W.mT)
    expected = (gradient * torch.linalg.solve(A, gradient.mT).mT / (2 * Z)).sum((1, 2))
    close(ob.partition_total_rate(system, x), expected, 1e-10)
    assert (expected.sign() == torch.tensor([-1.0, 1.0, 1.0])).all()


def test_pairs_are_in_lexicographic_order():
    x = f64([[[0.0], [1.0], [3.0], [7.0]]])
    assert ob.pairwise_distance(x).tolist() == [[1, 3, 7, 2, 6, 4]]
    assert torch.equal(ob.pairwise_form(x, torch.eye(1).double()[None]), ob.pairwise_distance(x) ** 2)
    assert ob.pairwise_distance(x[:, :1]).shape == (1, 0)


def test_euclidean_distance_may_fall_while_the_form_grows():
    """The example of T1."""
    A, W = f64([[[1.0, 0], [0, 10]]]), f64([[[2.0, 3], [3, 5]]])
    system = AttentionSystem.from_response(W, A)
    x = f64([[[1.0, -1], [-1, 1]]])
    v = system.velocity(x)
    assert ob.pairwise_form_rate(x, v, torch.eye(2).double()[None]).item() == pytest.approx(-4.87, abs=5e-3)
    assert ob.pairwise_form_rate(x, v, A).item() == pytest.approx(6.09, abs=5e-3)


def test_entropies_at_the_extremes():
    hard = f64([[[1.0, 0.0], [0.0, 1.0]]])
    assert ob.score_entropy(hard).tolist() == [[0, 0]]
    assert ob.kl_to_uniform(hard).tolist() == [[math.log(2)] * 2]
    scores = f64([[[0.0, 5000.0], [3.0, 3.0]]])
    assert ob.kl_from_uniform(scores).tolist() == [[pytest.approx(2500 - math.log(2)), 0.0]]


def test_symmetric_part_and_share():
    M = f64([[[1.0, 2], [0, 1]], [[0, 1], [-1, 0]], [[2, 1], [1, 0]]])
    assert ob.symmetric_part(M)[0].tolist() == [[1, 1], [1, 1]]
    close(ob.antisymmetric_share(M), f64([math.sqrt(2 / 6), 1.0, 0.0]))


def test_norms_and_hyperplane():
    x = f64([[[3.0, 4.0], [0.0, 1e100]]])
    assert ob.norms(x)[0, 0] == 5
    assert ob.norms(x)[0, 1] == 1e100
    assert ob.hyperplane(x, f64([[2.0, -1.0]])).tolist() == [[2.0, -1e100]]


def test_pencil_minimum_and_its_bad_rows():
    g = torch.Generator().manual_seed(2)
    S, M = torch.randn(6, 3, 3, generator=g, dtype=torch.float64), random_form(6, 3, positive=3, generator=g)
    M[1], M[2] = -M[1], torch.nan
    S[3] = torch.inf
    value = ob.pencil_minimum(S, M)
    assert value.isnan().tolist() == [False, True, True, True, False, False]
    for row in (0, 4, 5):
        expected = eigh(
            ob.symmetric_part(S)[row].numpy(), ob.symmetric_part(M)[row].numpy(), eigvals_only=True
        )[0]
        assert value[row].item() == pytest.approx(expected, rel=1e-10)


def test_spectral_abscissa_and_its_bad_rows():
    """T7: V = −R(2θ) with W = R(θ) = [[3, −4], [4, 3]]/5 and A = −Wᵀ is unstable."""
    W = f64([[[3.0, -4], [4, 3]]]) / 5
    V = AttentionSystem.from_response(W, -W.mT).value
    V = torch.cat([V, torch.full_like(V, torch.nan), -torch.eye(2).double()[None]])
    torch.testing.assert_close(
        ob.spectral_abscissa(V),
        f64([0.28, torch.nan, -1.0]),
        equal_nan=True,
        rtol=1e-12,
        atol=0,
    )
