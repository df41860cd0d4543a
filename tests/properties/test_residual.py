"""Residual layers in floating point, at the steps that the exact half decides."""

from fractions import Fraction

import pytest
import torch
from torch import Generator

from numerics import families, integrate, observables
from theory.instance import Instance
from theory.registry import statement
from theory.theorems.residual import STEP_MODERATE, STEP_SMALL
from tokendyn.moment import from_instance
from tokendyn.pairing.convergence import energy, vanishes
from tokendyn.pairing.residual import layers
from tokendyn.registry import rows
from tokendyn.row import Run
from tokendyn.sampling import sample


def run_of(instance: Instance) -> Run:
    moment = from_instance(instance)
    return Run(moment, integrate(moment.system, moment.x, torch.tensor([0.0, 1e-3], dtype=torch.float64)))


def scalar(tokens, step) -> Instance:
    return Instance.of(score=[[1]], response=[[-1]], tokens=[[x] for x in tokens], step=step)


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_layers_converge_at_the_very_bound(n):
    """d = 1, nh = 2: E falls strictly at each layer above rounding, and tends to zero."""
    tokens = torch.randn(n, generator=Generator().manual_seed(n), dtype=torch.float64).tolist()
    instance = scalar(tokens, Fraction(2, n))
    assert STEP_SMALL.decide(instance).holds
    energies = -layers(run_of(instance), energy, 1200)[:, :, 0]
    falling = energies[:, :-1] > 1e-25
    assert (energies[:, 1:] < energies[:, :-1])[falling].all()
    assert vanishes(energies) > 0


def test_one_token_at_the_bound_only_changes_sign():
    states = layers(run_of(scalar([3], 2)), lambda m: m.x[:, :, 0], 10)[0, :, 0]
    assert states.tolist() == [3.0 * (-1) ** k for k in range(11)]
    assert STEP_SMALL.decide(scalar([3], 2)).fails


@pytest.mark.parametrize("n", [2, 8, 64])
def test_the_radius_of_moderate_steps(n):
    """T16c with h = 1/2, q = 1/4 for every n: far-away tokens come within hκ_n/(1 − q) of energy."""
    generator = Generator().manual_seed(n)
    tokens = (100 * torch.randn(n, generator=generator, dtype=torch.float64)).tolist()
    instance = scalar(tokens, Fraction(1, 2))
    assert STEP_MODERATE.decide(instance).holds
    largest = layers(run_of(instance), lambda m: m.x.square().amax(1) / 2, 60)[0, :, 0]
    radius = 0.5 * observables.free_energy_gap(n) / (1 - 0.25)
    assert largest[0] > 1000 * radius
    assert (largest[-30:] <= radius * (1 + 1e-9)).all()


@pytest.mark.parametrize("identifier", ["T16", "T16a", "T16c"])
def test_samples_meet_their_hypotheses_exactly(identifier):
    """Random systems are floats, and as such rationals: the step is inside without any tolerance."""
    theorem, row = statement(identifier), rows()[identifier]
    for n, d in ((1, 1), (3, 2), (4, 3)):
        moment = sample(row.family, theorem.keys, theorem.setting, 12, n, d, Generator().manual_seed(n))
        for at in range(12):
            assert theorem.applies(moment.exactly(at)).holds


def test_samples_of_heads_are_tied_exactly():
    theorem, row = statement("T15"), rows()["T15"]
    for n, d in ((2, 1), (3, 2), (2, 4)):
        moment = sample(row.family, theorem.keys, theorem.setting, 20, n, d, Generator().manual_seed(d))
        for at in range(20):
            assert theorem.applies(moment.exactly(at)).holds


def test_without_w_positive_samples_have_singular_forms():
    theorem, row = statement("T16"), rows()["T16"]
    keys = theorem.keys - {"W positive"}
    moment = sample(row.family, keys, theorem.setting, 40, 2, 3, Generator().manual_seed(0))
    ranks = torch.linalg.matrix_rank(moment.score)
    assert {2, 3} == set(ranks.tolist())
    assert all(STEP_SMALL.decide(moment.exactly(at)).holds for at in range(40))


def test_layers_stop_at_the_given_size():
    form = families.random_form(3, 2, positive=2, generator=Generator().manual_seed(0))
    moment = from_instance(
        Instance.of(score=form[0].tolist(), value=[[1, 0], [0, 1]], tokens=[[1, 2], [0, 1]], step=1)
    )
    run = Run(moment, integrate(moment.system, moment.x, torch.tensor([0.0, 1e-3], dtype=torch.float64)))
    sizes = layers(run, lambda m: m.x.flatten(1).abs().amax(1, keepdim=True), 100, size=50.0)[0, :, 0]
    crossed = (sizes > 50).nonzero()[0, 0]
    assert sizes.shape == (101,)
    assert (sizes[crossed:] == sizes[crossed]).all()
    assert (sizes[1 : crossed + 1] > sizes[:crossed]).all()
