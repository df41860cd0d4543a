"""T9, T9b and T9c against simulation: the limit of t·Cov, its threshold, the slaved mean, rotations.

Deviations of the full system from the cubic flow are of relative order |x|² ~ 1/t, which is where the
tolerances come from unless a test says otherwise.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Generator, Tensor

from numerics import AttentionSystem, Outcome, families, integrate
from numerics.collapse import (
    clock,
    decay_rates,
    fitted_limit,
    partial_profile,
    relative_error,
    roundness,
    slaved_mean,
    with_covariance,
)
from numerics.profile import (
    covariance,
    linearisation,
    profile,
    profile_decay,
    profile_size,
    symmetric_matrices,
)
from theory import profile as exact
from theory.instance import Instance
from theory.verdict import Status

TIMES = torch.tensor([0.0, 100.0, 200.0, 1000.0, 2000.0], dtype=torch.float64)
NORMS = torch.linalg.vector_norm


def generator(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@dataclass
class Collapse:
    """Random systems with T9's hypotheses, d + 2 standard Gaussian tokens, and their trajectories."""

    W: Tensor
    A: Tensor
    V: Tensor
    states: Tensor


@pytest.fixture(scope="module", params=[2, 3], ids=lambda d: f"d = {d}")
def collapse(request) -> Collapse:
    """50 systems: W ≻ 0 and −A ≻ 0 symmetric with eigenvalues in [0.5, 2], Haar-distributed axes."""
    d, random = request.param, generator(request.param)
    W = families.random_form(50, d, positive=d, generator=random)
    A = families.random_form(50, d, positive=0, generator=random)
    system = AttentionSystem.from_response(W, A)
    x = families.random_tokens(50, d + 2, d, 1.0, random)
    solution = integrate(system, x, TIMES, rtol=1e-10, atol=1e-14)
    assert (solution.outcome == Outcome.REACHED).all()
    return Collapse(W, A, system.value, solution.states)


# T9


def test_the_limit_is_the_profile(collapse):
    """Fitted over t = 1000…2000, within 2 % in Frobenius norm, for at least 95 % of them; none excluded."""
    error = relative_error(fitted_limit(TIMES, collapse.states), profile(collapse.W, collapse.A))
    assert (error < 0.02).double().mean() >= 0.95
    assert error.median() < 1e-3


def test_the_limit_is_not_the_start_s(collapse):
    """Universal: other tokens, same limit. And t·Cov itself is there to first order in the start's memory."""
    C = profile(collapse.W, collapse.A)
    before, after = (
        relative_error(t * covariance(collapse.states[:, k]), C) for k, t in ((3, 1e3), (4, 2e3))
    )
    shrunk = after / before
    assert (after < 0.1).double().mean() >= 0.9
    assert abs(shrunk.median() - 0.5) < 0.05  # the error is of order 1/t, times log t at most


def test_tokens_shrink_like_the_square_root_of_time(collapse):
    sizes = NORMS(collapse.states[:, 3:], dim=-1)
    exponents = (sizes[:, 1] / sizes[:, 0]).log2()
    assert abs(exponents.median() + 0.5) < 0.005
    assert ((exponents + 0.5).abs() < 0.05).double().mean() >= 0.9


def test_the_mean_is_slaved_to_the_third_cumulant(collapse):
    """Relative error of order 1/t and exponent −5/2, while the integrator's errors are still far below it."""
    x = collapse.states[:, 1:3]
    means = x.mean(2)
    predicted = torch.stack([slaved_mean(collapse.W, x[:, k]) for k in (0, 1)], 1)
    error = NORMS(means - predicted, dim=-1) / NORMS(predicted, dim=-1)
    assert (error.median(0).values < torch.tensor([0.06, 0.03])).all()
    exponents = (NORMS(means[:, 1], dim=-1) / NORMS(means[:, 0], dim=-1)).log2()
    assert abs(exponents.median() + 2.5) < 0.15
    doubled = 2 * predicted
    assert (NORMS(means - doubled, dim=-1) / NORMS(doubled, dim=-1)).median() > 0.4


def test_the_clock_and_the_size_bound(collapse):
    """tr(W⁻¹C⁻¹)/(−2 tr V) runs like time, and t·tr(−AC) stays below tr(−AC*), up to 1 %."""
    ticks = [clock(collapse.W, collapse.V, collapse.states[:, k]) for k in (3, 4)]
    assert ((ticks[1] - ticks[0]) / 1000 - 1).abs().max() < 0.01
    sizes = -(collapse.A @ covariance(collapse.states[:, 4])).diagonal(dim1=1, dim2=2).sum(1)
    share = 2000 * sizes / profile_size(collapse.W, collapse.A)
    assert share.max() < 1.01
    assert share.median() > 0.98


def test_few_tokens_collapse_onto_the_smallest_eigenvectors():
    """n = 3 tokens in R⁴, pencil eigenvalues 0.5, 0.7, 2.1, 3: the gap makes the others die like t^{−1}."""
    random, batch, d = generator(7), 40, 4
    values = torch.tensor([0.5, 0.7, 2.1, 3.0], dtype=torch.float64)
    scale = 0.8 + 0.4 * torch.rand(batch, 1, d, dtype=torch.float64, generator=random)
    Q = families.random_orthogonal(batch, d, random) * scale
    W, A = Q @ Q.mT, -(Q / values) @ Q.mT
    x = families.random_tokens(batch, 3, d, 3.0, random)
    states = integrate(AttentionSystem.from_response(W, A), x, TIMES, rtol=1e-9, atol=1e-13).states
    expected = partial_profile(W, A, 2)
    before, after = (relative_error(TIMES[k] * covariance(states[:, k]), expected) for k in (3, 4))
    assert (after < 0.1).double().mean() >= 0.95
    assert after.median() < 0.02
    assert abs((after / before).median() - 0.5) < 0.1
    assert (relative_error(expected, profile(W, A)) > 0.03).all()
    whole = partial_profile(W, A, d)
    assert relative_error(whole, profile(W, A)).max() < 1e-12


# T9b


def nonsymmetric(batch: int, d: int, random: Generator) -> tuple[Tensor, Tensor]:
    """W with W_s ≻ 0 and any antisymmetric share up to 0.95, A = Aᵀ ≺ 0; spectra in [0.5, 2]."""
    share = 0.95 * torch.rand(batch, dtype=torch.float64, generator=random)
    W = families.random_form(batch, d, positive=d, antisymmetric_share=share, generator=random)
    return W, families.random_form(batch, d, positive=0, generator=random)


@pytest.mark.parametrize(("d", "batch"), [(2, 120), (3, 120)])
def test_both_sides_of_the_threshold(d, batch):
    """Deviations from C* grow or die as the operator says, unless within 0.02 of neutral; rates to 0.03."""
    W, A = nonsymmetric(batch, d, generator(d))
    found = decay_rates(W, A, generator(10 + d))
    assert min((found.computed > 0.02).sum(), (found.computed < -0.02).sum()) >= 15
    clear = found.computed.abs() > 0.02
    assert (found.measured.sign() == found.computed.sign())[clear].all()
    assert (found.measured - found.computed).abs().max() < 0.03


def test_generic_starts_agree_with_the_threshold():
    """Starts far from C*/t: at t = 2000 those with rate above 0.5 have arrived, those below −0.2 have not."""
    random = generator(3)
    W, A = nonsymmetric(100, 2, random)
    system = AttentionSystem.from_response(W, A)
    x = families.random_tokens(100, 5, 2, 1.0, random)
    C = 2000 * covariance(integrate(system, x, TIMES, rtol=1e-8, atol=1e-12).states[:, -1])
    error, decay = relative_error(C, profile(W, A)), profile_decay(W, system.value, A)
    assert (error[decay > 0.5] < 0.1).double().mean() >= 0.95
    assert (error[decay < -0.2] > 0.5).all()


def test_the_certified_verdict_agrees_with_floating_point():
    """Random systems of dimension 1 to 3: the sign of min Re λ(L), and its value to 1e-10."""
    counts = {Status.HOLDS: 0, Status.FAILS: 0}
    for d in (1, 2, 3):
        share = 0.0 if d == 1 else 0.9
        random = generator(20 + d)
        W = families.random_form(25, d, positive=d, antisymmetric_share=share, generator=random)
        A = families.random_form(25, d, positive=0, generator=random)
        decay = profile_decay(W, torch.linalg.solve(A, W), A)
        for row in range(25):
            instance = Instance.of(score=W[row].tolist(), response=A[row].tolist())
            assert abs(float(exact.profile_decay(instance).mid()) - decay[row]) < 1e-10
            verdict = exact.profile_is_stable(instance)
            assert verdict.status is (Status.HOLDS if decay[row] > 0 else Status.FAILS)
            counts[verdict.status] += 1
    assert min(counts.values()) >= 20


def test_both_halves_have_the_same_linearisation():
    W, A = nonsymmetric(5, 3, generator(1))
    L = linearisation(W, torch.linalg.solve(A, W), A)
    for row in range(5):
        instance = Instance.of(score=W[row].tolist(), response=A[row].tolist())
        rational = exact.linearisation(instance)
        entries = [float(int(q.p)) / float(int(q.q)) for q in rational.entries()]
        assert torch.allclose(L[row].flatten(), torch.tensor(entries, dtype=torch.float64), atol=1e-12)


def test_a_singular_form_has_no_profile():
    W = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    A = -torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    assert profile_decay(W, -W, A).isnan().tolist() == [True, False]
    assert profile_size(W, A).isnan().tolist() == [True, False]


def test_symmetric_matrices_and_prescribed_covariances():
    entries = torch.arange(1.0, 7.0, dtype=torch.float64)
    assert symmetric_matrices(entries).tolist() == [[1, 2, 3], [2, 4, 5], [3, 5, 6]]
    x = families.random_tokens(3, 5, 2, 1.0, generator(0))
    wanted = families.random_form(3, 2, positive=2, generator=generator(1))
    assert torch.allclose(covariance(with_covariance(x, wanted)), wanted, atol=1e-13)


# T9c


def turned(degrees: list[float], start: Tensor, times: list[float]) -> Tensor:
    """Cov (batch, times, 2, 2) from start/t at the first time t, under A = −I and rotations W."""
    angle, clock_times = (torch.tensor(v, dtype=torch.float64) for v in (degrees, times))
    angle = angle.deg2rad()
    W = torch.stack(
        [torch.stack([angle.cos(), -angle.sin()], 1), torch.stack([angle.sin(), angle.cos()], 1)], 1
    )
    A = -torch.eye(2, dtype=torch.float64).expand_as(W)
    tokens = families.random_tokens(len(W), 5, 2, 1.0, generator(0))
    x = with_covariance(tokens, (start / times[0]).expand_as(W))
    system = AttentionSystem.from_response(W, A)
    return covariance(integrate(system, x, clock_times, rtol=1e-9, atol=1e-13).states)


def trace(C: Tensor) -> Tensor:
    return C.diagonal(dim1=-2, dim2=-1).sum(-1)


OVAL = torch.diag(torch.tensor([0.7, 0.3], dtype=torch.float64))


def test_rotations_are_round_below_45_degrees_and_flat_beyond():
    """Traces 1 and 1/(2cos²φ), 7.4641 at 75°, to 1 %; from the slope of 1/tr, which forgets the start."""
    narrow = torch.diag(torch.tensor([2.0, 0.02], dtype=torch.float64))
    for degrees, start, expected in (([15.0, 30.0], OVAL, [1.0, 1.0]), ([60.0, 75.0], narrow, [2.0, 7.4641])):
        C = turned(degrees, start, [50.0, 1000.0, 2000.0])
        measured = 1000 / (1 / trace(C[:, 2]) - 1 / trace(C[:, 1]))
        assert ((measured / torch.tensor(expected) - 1).abs() < 0.01).all()
        round_or_flat = roundness(C[:, 2])
        assert ((round_or_flat > 0.99) if start is OVAL else (round_or_flat < 0.01)).all()


def test_at_45_degrees_the_shape_persists():
    """Neutral under the cubic flow; what the next order adds up to is of order 1/t at the start."""
    C = turned([45.0], OVAL, [200.0, 1600.0])
    assert abs(1600 * trace(C)[0, 1] - 1) < 0.01
    assert abs(roundness(C)[0, 1] - roundness(OVAL)) < 0.01


def test_the_flat_profile_turns_like_the_logarithm_of_time():
    """Its axis turns by −tan φ/2 · log(t/t_0)."""
    flat = torch.diag(torch.tensor([2.0, 1e-6], dtype=torch.float64))
    C = turned([60.0], flat, [400.0, 1600.0])[0, 1]
    axis = torch.linalg.eigh(C).eigenvectors[:, -1]
    angle = math.atan2(axis[1].item(), axis[0].item())
    expected = -math.tan(math.radians(60)) / 2 * math.log(4)
    assert abs((angle - expected + math.pi / 2) % math.pi - math.pi / 2) < 0.01
