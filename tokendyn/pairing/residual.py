"""T16: residual layers, one step at a time and layer after layer."""

from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import observables
from theory.hypotheses import Hypothesis
from theory.instance import Instance
from theory.system import Setting
from theory.theorems.residual import STEP_MODERATE, STEP_SMALL
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero, energy, of_order_one, vanishes
from tokendyn.pairing.mixing import total_attended, total_of_means
from tokendyn.pairing.pairwise import monotone
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import RESPONSE, Family, Keys

LAYERS = 2000
IDLE = 1e-3
"""Horizon of the flow, which these statements are not about: their conclusions run layers instead."""

# One layer


def _after(moment: Moment) -> Moment:
    return moment.at(moment.next_layer)


def _rise(moment: Moment) -> Tensor:
    """½ Σ y_iᵀAy_i − ½ Σ x_iᵀAx_i, (batch, 1)."""
    return energy(_after(moment)) - energy(moment)


def _moved(moment: Moment) -> Tensor:
    """h²/2 Σ (Vm_i)ᵀA(Vm_i), (batch, 1)."""
    return _step(moment) ** 2 * energy(moment.at(moment.velocity))


def _step(moment: Moment) -> Tensor:
    return moment.constant("h")[:, None]


def _unit(moment: Moment) -> Tensor:
    return moment.constant("c")[:, None]


def _balance(moment: Moment) -> tuple[Tensor, Tensor]:
    return _rise(moment), _step(moment) * total_attended(moment) + _moved(moment)


def _fall(moment: Moment) -> tuple[Tensor, Tensor]:
    twice, gain = 2 * moment.constant("lambda")[:, None], moment.constant("Gamma")[:, None]
    room = twice - _unit(moment) * moment.n * _step(moment) * gain
    return twice * _rise(moment), _step(moment) * room * total_attended(moment)


def _growth(moment: Moment) -> tuple[Tensor, Tensor]:
    means = _unit(moment) * _step(moment) * total_of_means(moment) / moment.n
    return _rise(moment), means + _moved(moment)


# Layer after layer


def layers(run: Run, observe: Callable[[Moment], Tensor], count: int, size: float = 1e4) -> Tensor:
    """An observable (batch, items) before and after each of `count` layers: (batch, count + 1, items).

    A system stops where a coordinate passes `size`, and repeats its last value.
    """
    moment, seen = run.start, [observe(run.start)]
    for _ in range(count):
        going = (moment.x.flatten(1).abs().amax(1) <= size)[:, None, None]
        moment = moment.at(torch.where(going, moment.next_layer, moment.x))
        seen.append(observe(moment))
    return torch.stack(seen, 1)


def _energies(moment: Moment) -> Tensor:
    """E_i = −½ x_iᵀAx_i, (batch, n)."""
    return -observables.token_energy(moment.x, moment.response)


def _falls(run: Run) -> Tensor:
    return monotone(layers(run, energy, LAYERS), run.start.constant("c"))


def _tokens_vanish(run: Run) -> Tensor:
    return vanishes(-layers(run, energy, LAYERS)[:, :, 0])


def _grows(run: Run) -> Tensor:
    return monotone(layers(run, energy, LAYERS), run.start.constant("c"))


def _crosses(run: Run) -> Tensor:
    """1 where a coordinate passes 1e4 within the layers, else −1."""
    last = layers(run, lambda moment: moment.x.flatten(1).abs().amax(1, keepdim=True), LAYERS)[:, -1, 0]
    return (last > 1e4).to(last.dtype) * 2 - 1


def _factor(moment: Moment) -> Tensor:
    """q = max(0, 1 − 2hλ) + h²Γ, (batch, 1)."""
    h, slowest, gain = _step(moment), moment.constant("lambda")[:, None], moment.constant("Gamma")[:, None]
    return (1 - 2 * h * slowest).clamp(min=0) + h**2 * gain


def _recursion(moment: Moment) -> tuple[Tensor, Tensor]:
    largest = _energies(moment).amax(1, keepdim=True)
    bound = _factor(moment) * largest + _step(moment) * moment.constant("kappa")[:, None]
    return bound.expand(-1, moment.n), _energies(_after(moment))


def _stays_bounded(run: Run) -> Tensor:
    """The comparison sequence minus the largest energy, relative to the sequence."""
    count = LAYERS // 10
    largest = layers(run, _energies, count, size=torch.inf).amax(2)
    q = _factor(run.start)
    limit = _step(run.start) * run.start.constant("kappa")[:, None] / (1 - q)
    bound = limit + (largest[:, :1] - limit) * q ** torch.arange(count + 1)
    return smallest(torch.where(bound > 0, 1 - largest / bound, 0.0))


# Families


def _random_step(low: float, high: float, batch: int, generator: Generator) -> Tensor:
    return low + (high - low) * torch.rand(batch, dtype=torch.float64, generator=generator)


def _without_last(W: Tensor, some: Tensor) -> Tensor:
    """W with its last row and column zeroed in `some` systems: W_s ⪰ 0 is then singular."""
    keep = torch.ones_like(W)
    keep[:, -1], keep[:, :, -1] = 0.0, 0.0
    return torch.where(some[:, None, None], W * keep, W)


def _largest_small_step(W: Tensor, A: Tensor, n: int) -> Tensor:
    """The largest h with 2W_s ⪰ nhVᵀ(−A)V, at most 4; directions in which W vanishes do not count."""
    blank = (W == 0).all(2).to(W.dtype)
    stretched = -observables.symmetric_part(W.mT @ torch.linalg.solve(A, W))
    largest = -observables.pencil_minimum(-stretched, W + torch.diag_embed(blank))
    return torch.where(largest > 0, 2 / (n * largest), torch.inf).clamp(max=4)


def _random_small(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    weights = RESPONSE.random(keys | {"W positive"}, batch, n, d, generator)
    if "W positive" not in keys:
        weights["score"] = _without_last(weights["score"], torch.rand(batch, generator=generator) < 0.5)
    shares = _random_step(0.1, 0.98 if "step small" in keys else 4.0, batch, generator)
    steps = shares * _largest_small_step(weights["score"], weights["response"], n)
    return {**weights, "step": steps[:, None, None]}


def _random_positive(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    steps = _random_step(0.05 if "step positive" in keys else -2.0, 2.0, batch, generator)
    return {**RESPONSE.random(keys, batch, n, d, generator), "step": steps[:, None, None]}


def _random_moderate(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    weights = RESPONSE.random(_of_moderate(keys), batch, n, d, generator)
    tokens = torch.zeros(batch, n, d, dtype=torch.float64)
    bare = Moment.of(Setting(), tokens, score=weights["score"], response=weights["response"])
    slowest, gain = bare.constant("lambda"), bare.constant("Gamma")
    shares = _random_step(0.1, 0.98 if "step moderate" in keys else 4.0, batch, generator)
    steps = shares * torch.minimum(2 * slowest / gain, gain**-0.5)
    return {**weights, "step": steps[:, None, None]}


def _of_moderate(keys: Keys) -> Keys:
    """λ > 0 follows from the step condition, and its constants need a definite A."""
    return keys | {"W positive"} | (frozenset() if "A negative" in keys else {"A definite"})


STEPS = st.sampled_from([Fraction(1, 4), Fraction(1, 2), Fraction(1), Fraction(2), Fraction(4)])


def _halved(hypothesis: Hypothesis, step: Fraction, weights: dict, n: int) -> Fraction:
    """The step, halved until the hypothesis holds."""
    tokens = [[0] * len(weights["score"])] * n
    for _ in range(12):
        if hypothesis.decide(Instance.of(**weights, tokens=tokens, step=step)).holds:
            return step
        step /= 2
    return reject()


def _exact_small(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    weights = RESPONSE.exact(draw, keys | {"W positive"}, n, d)
    if "W positive" not in keys and draw(st.booleans()):
        for index in range(d):
            weights["score"][-1][index] = weights["score"][index][-1] = Fraction(0)
    step = draw(STEPS)
    return {**weights, "step": _halved(STEP_SMALL, step, weights, n) if "step small" in keys else step}


def _exact_positive(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    sign = 1 if "step positive" in keys else draw(st.sampled_from([-1, 0, 1]))
    return {**RESPONSE.exact(draw, keys, n, d), "step": sign * draw(STEPS)}


def _exact_moderate(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    weights, step = RESPONSE.exact(draw, _of_moderate(keys), n, d), draw(STEPS)
    return {**weights, "step": _halved(STEP_MODERATE, step, weights, n) if "step moderate" in keys else step}


def _random_four(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    one = torch.ones(batch, 1, 1, dtype=torch.float64)
    score, value, step = one, -one, one
    if "scalar layer" not in keys:
        score, value, step = torch.randn(3, batch, 1, 1, dtype=torch.float64, generator=generator)
    tokens = 3 * torch.randn(batch, n, d, dtype=torch.float64, generator=generator)
    if "one large token" in keys:
        tokens[:, :3], tokens[:, 3] = 1.0, 4 + tokens[:, 3].abs()
    return {"score": score, "value": value, "step": step, "tokens": tokens}


def _exact_four(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    free = st.integers(-3, 3)
    score, step, value = (
        Fraction(draw(free)),
        Fraction(draw(free)),
        Fraction(draw(st.sampled_from([-2, -1, 1, 2]))),
    )
    if "scalar layer" in keys:
        score, value, step = Fraction(1), Fraction(-1), Fraction(1)
    tokens = [[Fraction(draw(free))] for _ in range(n)]
    if "one large token" in keys:
        tokens = [[Fraction(1)]] * 3 + [[Fraction(draw(st.integers(4, 7)))]]
    return {"score": [[score]], "value": [[value]], "step": step, "tokens": tokens}


# Rows

T16 = Row(
    id="T16",
    family=Family(_random_small, _exact_small),
    sides={
        "energy is non-negative": lambda m: against_zero(-energy(m)),
        "energy falls at the next layer": lambda m: against_zero(_rise(m)),
        "layer balance": _balance,
        "by how much": _fall,
    },
    conclusions=(
        Conclusion("energy falls at every layer", _falls, 1e-12, "rounding of one layer"),
        Conclusion(
            "tokens vanish layer after layer", _tokens_vanish, 0.0, "none: the margin has room for 1/l"
        ),
    ),
    horizon=IDLE,
    prepare=of_order_one,
)

T16a = Row(
    id="T16a",
    family=Family(_random_positive, _exact_positive),
    sides={
        "energy is positive": lambda m: against_zero(energy(m)),
        "energy grows at the next layer": lambda m: against_zero(_rise(m)),
        "layer balance": _balance,
        "by how much": _growth,
    },
    conclusions=(
        Conclusion("energy grows at every layer", _grows, 1e-12, "rounding of one layer"),
        Conclusion("a token crosses 1e4", _crosses, 0.0, "none: a threshold is crossed or not"),
    ),
    horizon=IDLE,
    prepare=of_order_one,
)


def _small_tokens(moment: Moment) -> tuple[Tensor, Tensor]:
    big, small = moment.x[:, -1], moment.next_layer[:, :-1, 0]
    return small * (1 + 3 * torch.exp(1 - big)), (_unit(moment) * (1 - big)).expand(-1, moment.n - 1)


T16b = Row(
    id="T16b",
    family=Family(_random_four, _exact_four, dimension=1, count=4),
    sides={
        "energy rises": lambda m: against_zero(-_rise(m)),
        "the step is inside the bound without n": lambda m: (
            2 * m.constant("lambda")[:, None],
            _step(m) * m.constant("Gamma")[:, None],
        ),
        "where the small tokens go": _small_tokens,
    },
)

T16c = Row(
    id="T16c",
    family=Family(_random_moderate, _exact_moderate),
    sides={
        "energies are non-negative": lambda m: against_zero(_energies(m)),
        "the factor is below 1": lambda m: (torch.ones_like(_factor(m)), _factor(m)),
        "the largest energy contracts": _recursion,
    },
    conclusions=(
        Conclusion("below the comparison sequence", _stays_bounded, 1e-12, "rounding of the layers"),
    ),
    horizon=IDLE,
    prepare=of_order_one,
)
