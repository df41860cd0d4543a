"""T14 on trajectories: convergence under every kind of score, rates of tokens, what the mask changes."""

import math

import pytest
import torch
from flint import fmpq
from torch import Generator, Tensor

from numerics import AttentionSystem, Outcome, families, integrate, observables
from numerics.encodings import alibi_bias, rotary_turns
from theory.instance import Instance
from theory.notation import abscissa, lam
from theory.registry import statement
from theory.system import Setting
from theory.theorem import Planted
from theory.theorems.causal import CAUSAL, T14d
from theory.verdict import Status
from tokendyn.moment import Moment, from_instance
from tokendyn.pairing.causal import (
    CLOSE,
    HEADS,
    METRIC_KEYS,
    ONE_HEAD,
    TWO_HEADS,
    amplitudes,
    leading_left_eigenvector,
    metric_energies,
    push,
    rate_ratios,
    tame,
)
from tokendyn.registry import rows
from tokendyn.row import Run
from tokendyn.verify import TRUE_STATEMENT, trajectories


def evenly(horizon: float, steps: int = 40) -> Tensor:
    return torch.linspace(0, horizon, steps + 1, dtype=torch.float64)


def run(moment: Moment, horizon: float, **switches) -> Run:
    solution = integrate(moment.system, moment.x, evenly(horizon), rtol=1e-9, **{"atol": 1e-14, **switches})
    return Run(moment, solution)


def one(score, value, tokens, setting=CAUSAL, **parameters) -> Moment:
    return from_instance(Instance.of(score=score, value=value, tokens=tokens, setting=setting, **parameters))


# Rates


def test_token_k_decays_k_times_more_slowly():
    """Rates |α|/k to 2 %, k ≤ 8.

    Stated in advance: a rate counts once scores are below 0.5 % and it changed by at most 0.5 % between the
    last two quarters, with e^{−8} left of the next exponential; at least half of the systems must settle.
    """
    ratios = rate_ratios(most=8, systems=8, d=2, seed=1)
    settled = ~ratios.isnan()
    assert (settled.sum(1) >= ratios.shape[1] / 2).all()
    assert ((ratios - 1).abs()[settled] <= CLOSE).all()


def test_a_wrong_rate_is_refuted():
    theorem, row = statement("T14b"), rows()["T14b"]
    wrong = Planted("rate times 1.05", scale={abscissa: fmpq(21, 20)})
    (found,) = trajectories(theorem, row, wrong, seed=0)
    assert not found["agrees"]
    assert found["systems"] - found["inconclusive"] >= 60


def test_norms_have_the_rate_of_the_amplitude():
    """The rate is read off the amplitude |ℓᵀx_k|; the norm itself decays like it, here for a real λ."""
    moment = one([[1, 0], [2, 1]], [[-1, 3], [0, -3]], [[1, 2], [-2, 1], [0, 1]])
    path = run(moment, 60.0, atol=1e-200)
    norms = observables.norms(path.solution.states[0])
    for values in (norms, amplitudes(path)[0]):
        for token, until in ((0, 10), (1, 20), (2, 40)):
            rate = (values[until // 2, token] / values[until, token]).log() / (
                path.times[until] - path.times[until // 2]
            )
            assert rate.item() == pytest.approx(1 / (token + 1), rel=0.02)


def test_a_complex_pair_turns_but_its_amplitude_does_not_oscillate():
    moment = one([[1, 0], [0, 1]], [[-1, -4], [4, -1]], [[1, 0], [0, 1]])
    path = run(moment, 24.0, atol=1e-200)
    logs = amplitudes(path)[0, 20:, 1].log()
    rates = -logs.diff() / path.times.diff()[0]
    assert ((rates - 0.5).abs() < 0.02).all()
    first = path.solution.states[0, 20:, 1, 0]
    assert (first.sign().diff() != 0).sum() >= 6


def test_equal_tokens_are_the_exception():
    """They all decay at the first rate, and no rate is concluded from them."""
    moment = one([[2, 1], [0, 1]], [[-1, 1], [0, -2]], [[1, 2]] * 4)
    sizes = observables.norms(run(moment, 8.0, atol=1e-200).solution.states[0])
    rates = (sizes[20] / sizes[40]).log() / 4
    assert torch.allclose(rates, torch.ones(4, dtype=torch.float64), rtol=0.02)
    margin = rows()["T14b"].conclusions[0].margin(run(tame(moment), 96.0))
    assert margin.isnan().all()


def test_the_left_eigenvector_belongs_to_the_largest_real_part():
    moment = tame(_sample(ONE_HEAD, 20, 3, 3))
    ell = leading_left_eigenvector(moment)
    image = torch.einsum("bd,bde->be", ell, moment.value.to(ell.dtype))
    quotient = (image * ell.conj()).sum(1)
    assert (image - quotient[:, None] * ell).abs().max() < 1e-10
    assert torch.allclose(quotient.real, moment.constant("alpha"))
    assert torch.allclose(moment.constant("alpha") / moment.n, torch.tensor(-0.25, dtype=torch.float64))


# Convergence


def _sample(family, batch: int, n: int, d: int, keys=METRIC_KEYS) -> Moment:
    """Gaussian starts and seeded weights of a family, under the causal mask."""
    generator = Generator().manual_seed(1)
    weights = family.random(keys, batch, n, d, generator)
    x = families.random_tokens(batch, n, d, 1.0, generator)
    heads = 2 if "V_2" in weights else 1
    return Moment.of(Setting(causal=True, heads=heads), x, **weights)


def _brisk(n: int, d: int) -> tuple[Moment, Tensor]:
    """20 systems, and forms WWᵀ ⪰ 0 under which large tokens attend to themselves: none waits long."""
    moment = tame(_sample(ONE_HEAD, 20, n, d))
    return moment, moment.score @ moment.score.mT


def _switches(kind: str, n: int, d: int) -> dict:
    generator = Generator().manual_seed(2)
    if kind == "bias":
        return {"bias": alibi_bias(n, 0.5).expand(20, n, n)}
    if kind == "positions":
        return {"positions": torch.randn(20, n, d, dtype=torch.float64, generator=generator) / 2}
    query, key = torch.randn(2, 20, d, d, dtype=torch.float64, generator=generator) / 2
    return {"query": query, "key": key, "turns": rotary_turns(n, d, base=10.0)}


@pytest.mark.parametrize("kind", ["bias", "positions", "rotary"])
def test_convergence_with_other_scores(kind):
    """Only the weight that a token gives itself matters; the rates change, the limit does not."""
    n, d = 4, 2
    moment, form = _brisk(n, d)
    switches = _switches(kind, n, d)
    if kind == "rotary":
        system = AttentionSystem.from_projections(
            switches.pop("query"), switches.pop("key"), moment.value, causal=True, **switches
        )
    else:
        system = AttentionSystem(form, moment.value, causal=True, **switches)
    assert (system.velocity(moment.x) - moment.velocity).abs().amax((1, 2)).median() > 1e-3
    solution = integrate(system, moment.x, evenly(100.0), rtol=1e-8, atol=1e-12)
    left = solution.states[:, -1].abs().amax((1, 2)) / moment.x.abs().amax((1, 2))
    assert (solution.outcome == Outcome.REACHED).all()
    assert (left < 1e-3).all()


def test_convergence_under_a_sparser_mask():
    """A window of two tokens, the token itself and the one before, is a mask that keeps the diagonal."""
    moment, form = _brisk(4, 2)
    hidden = torch.full((4, 4), -torch.inf, dtype=torch.float64)
    bias = (hidden.triu(1) + hidden.tril(-2)).expand(20, 4, 4)
    system = AttentionSystem(form, moment.value, causal=True, bias=bias)
    assert (system.attention(moment.x)[:, 3, :2] == 0).all()
    end = integrate(system, moment.x, evenly(60.0), rtol=1e-8, atol=1e-12).states[:, -1]
    assert (end.abs().amax((1, 2)) < 1e-3).all()


def test_the_mask_decides():
    """R1's weights: full attention drives these tokens outward, the causal mask lets every token vanish."""
    tokens = [[4, 0], [-2, 3], [-2, -3]]
    weights = {"score": [[1, -2], [2, 1]], "value": [[-0.7, -0.1], [0.1, -0.7]], "tokens": tokens}
    full = run(one(**weights, setting=Setting()), 40.0, escape=1e9).solution
    causal = run(one(**weights), 40.0).solution
    assert full.states[0].isnan().any() or full.states[0, -1].norm() > 1e6
    assert causal.outcome.tolist() == [int(Outcome.REACHED)]
    assert causal.states[0, -1].norm() < 0.01


def test_an_unstable_value_contradicts():
    """Where V is not Hurwitz tokens escape, and the conclusion says so; where it is they must be small."""
    weights = {"score": [[1, 0], [0, 1]], "tokens": [[1, 0], [0, 1]]}
    margin = rows()["T14"].conclusions[0].margin
    assert margin(run(one(**weights, value=[[-1, 0], [0, 1]]), 40.0, escape=1e4)) == -1
    assert margin(run(one(**weights, value=[[-1, 0], [0, -1]]), 40.0, escape=1e4)) > 0


def test_a_long_transient_is_inconclusive():
    """W = −4: token 2 gives itself the weight e^{−36}, and waits at 3 for longer than anyone can simulate."""
    path = run(one([[-4]], [[-1]], [[0], [3]]), 40.0)
    assert path.solution.states[0, -1, 1, 0] > 2.99
    assert rows()["T14"].conclusions[0].margin(path).isnan().all()
    assert statement("T14").applies(path.start.exactly(0)).status is Status.HOLDS


def test_energies_stay_below_the_push_of_earlier_tokens():
    """‖x_i(t)‖_M ≤ ‖x_i(0)‖_M + ∫ f_i, the step that bounds the tokens; 2 % for the integral by Simpson."""
    path = run(tame(_sample(TWO_HEADS, 10, 3, 2)), 10.0)
    sizes = (2 * path.along(metric_energies)).sqrt()
    pushes = path.along(push)
    pieces = (
        (pushes[:, :-2:2] + 4 * pushes[:, 1:-1:2] + pushes[:, 2::2]) * (path.times[2] - path.times[0]) / 6
    )
    bound = sizes[:, :1] + pieces.cumsum(1)
    assert (sizes[:, 2::2] <= bound + 2e-2 * sizes.amax((1, 2), keepdim=True)).all()


# Heads


def test_a_hurwitz_sum_of_heads_does_not_suffice():
    """T14d's example: V_1 + V_2 = −1, and token 2 still runs off; a bit closer to 0 it does not."""
    near_miss = T14d.examples.near_miss
    far = run(from_instance(near_miss), 20.0, escape=1e6).solution
    assert far.outcome.tolist() == [int(Outcome.ESCAPED)]
    close = from_instance(near_miss)
    close = close.at(torch.tensor([[[0.0], [0.8]]], dtype=torch.float64))
    assert math.log(2) > 0.8**2
    assert run(close, 60.0).solution.states[0, -1].abs().max() < 1e-3


def test_a_wrong_growth_rate_of_the_first_token_is_refuted():
    theorem, row = statement("T14c"), rows()["T14c"]
    assert all(c["agrees"] for c in trajectories(theorem, row, TRUE_STATEMENT, seed=1))
    wrong = Planted("rate times 1.05", scale={abscissa: fmpq(21, 20)})
    assert not all(c["agrees"] for c in trajectories(theorem, row, wrong, seed=1))


def test_the_other_tokens_do_not_move_the_first():
    moment = _sample(HEADS, 10, 4, 3, keys=frozenset({"sum of values unstable"}))
    others = moment.x.clone()
    others[:, 1:] = 3.0
    assert torch.equal(moment.velocity[:, 0], moment.at(others).system.velocity(others)[:, 0])
    assert (moment.constant("alpha") > 0.4).all()


# Thresholds


def test_a_wrong_rate_of_the_thresholds_is_refuted():
    theorem, row = statement("T14f"), rows()["T14f"]
    wrong = next(p for p in theorem.wrong if lam in p.scale)
    assert not all(c["agrees"] for c in trajectories(theorem, row, wrong, seed=0))


def test_the_first_token_diverges_from_any_start_but_zero():
    """κ_1 = 0, while token 2 of the same system returns to 0, below its threshold κ_2/(2λ) = 0.139."""
    moment = one([[1]], [[1]], [[1e-3], [-1e-3]])
    path = run(moment, 5.0).solution.states[0, :, :, 0]
    assert path[-1, 0].item() == pytest.approx(1e-3 * math.exp(5), rel=1e-6)
    moment = one([[1]], [[1]], [[0], [0.5]])
    growth = run(moment, 1.0).solution.states[0, :, 1, 0]
    assert observables.free_energy_gap(2) / 2 > 0.5**2 / 2
    assert (growth.diff() > 0).all()  # below the threshold nothing is claimed


def test_rows_exist_for_all_parts():
    assert [key for key in rows() if key.startswith("T14")] == ["T14", "T14b", "T14c", "T14d", "T14e", "T14f"]
