"""T14, T14b–f: causal systems with a Lyapunov metric, and the rates at which their tokens decay."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import Outcome, families, integrate, observables
from theory.system import Setting
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero
from tokendyn.pairing.thresholds import PENCIL_SIDES, token_energies
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import (
    INTEGERS,
    RESPONSE,
    Family,
    Keys,
    Matrix,
    exact_form,
    exact_matrix,
    random_scores,
)

METRIC_KEYS = frozenset({"Lyapunov metric", "common metric"})
GRID = 8
TAME = 1.0
"""Largest |score| at the start of a trajectory: a token then gives itself a fair share of its attention."""

# Families


def _grid(*shape: int, generator: Generator) -> Tensor:
    """Gaussians on multiples of 1/8: the products below are then exact."""
    return (torch.randn(*shape, dtype=torch.float64, generator=generator) * GRID).round() / GRID


def _triangular(batch: int, d: int, generator: Generator) -> Tensor:
    """Lower triangular with a diagonal between 5/8 and 12/8."""
    diagonal = torch.randint(5, 13, (batch, d), generator=generator).double() / GRID
    return _grid(batch, d, d, generator=generator).tril(-1) / 2 + torch.diag_embed(diagonal)


def _values(metric: Tensor, heads: int, generator: Generator) -> list[Tensor]:
    """V_h = K_h M with (K_h)_s = −G_hG_hᵀ, where the G_h together have full rank, some of them none."""
    batch, d, _ = metric.shape
    G = _triangular(batch, d, generator)
    owner = torch.randint(0, heads, (batch, 1, d), generator=generator)
    values = []
    for head in range(heads):
        skew, part = _grid(batch, d, d, generator=generator) / 2, torch.where(owner == head, G, 0.0)
        values.append((skew - skew.mT - part @ part.mT) @ metric)
    return values


def _metric_family(heads: int) -> Family:
    names = ["value", *(f"V_{h}" for h in range(2, heads + 1))]
    forms = ["score", *(f"W_{h}" for h in range(2, heads + 1))]

    def random(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
        scores = {form: random_scores(keys, batch, d, generator) for form in forms}
        if keys & METRIC_KEYS:
            root = _triangular(batch, d, generator)
            metric = root @ root.mT
            values = _values(metric, heads, generator)
        else:
            metric = observables.symmetric_part(_grid(batch, d, d, generator=generator))
            values = [_grid(batch, d, d, generator=generator) for _ in names]
        return scores | dict(zip(names, values, strict=True)) | {"metric": metric}

    def exact(draw: Callable, keys: Keys, n: int, d: int) -> dict:
        scores = {form: exact_form(draw, keys, "W", d) for form in forms}
        metric = exact_form(
            draw, keys | {"M symmetric"} | ({"M positive"} if keys & METRIC_KEYS else set()), "M", d
        )
        values = [exact_matrix(draw, d, d) for _ in names]
        if keys & METRIC_KEYS:
            values = _exact_values(draw, metric, heads)
        return scores | dict(zip(names, values, strict=True)) | {"metric": metric}

    return Family(random, exact)


def _exact_values(draw: Callable, metric: Matrix, heads: int) -> list[Matrix]:
    """As `_values`; the positive diagonal −(K_h)_s sums to one that is positive."""
    d = len(metric)
    owner = [draw(st.integers(0, heads - 1)) for _ in range(d)]
    values = []
    for head in range(heads):
        K = exact_matrix(draw, d, d)
        for i in range(d):
            for j in range(i):
                K[i][j] = -K[j][i]
            K[i][i] = Fraction(-draw(st.integers(1, 3)) if owner[i] == head else 0)
        values.append([[sum(K[i][k] * metric[k][j] for k in range(d)) for j in range(d)] for i in range(d)])
    return values


def _random_heads(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    first, second = torch.randn(2, batch, d, d, dtype=torch.float64, generator=generator)
    if "sum of values unstable" in keys:
        lift = (0.5 - observables.spectral_abscissa(first + second)).clamp(min=0)
        second = second + lift[:, None, None] * torch.eye(d, dtype=torch.float64)
    scores = {name: random_scores(keys, batch, d, generator) for name in ("score", "W_2")}
    return scores | {"value": first, "V_2": second}


def _exact_heads(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    first, second = exact_matrix(draw, d, d), exact_matrix(draw, d, d)
    if "sum of values unstable" in keys:  # a positive trace is enough
        trace = sum((first[i][i] + second[i][i] for i in range(d)), Fraction(0))
        second[0][0] += max(Fraction(0), 1 - trace)
    scores = {name: exact_form(draw, keys, "W", d) for name in ("score", "W_2")}
    return scores | {"value": first, "V_2": second}


def _random_pair(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, dtype=torch.float64, generator=generator)

    W, V, x = uniform(0.1, 2), torch.randn(batch, dtype=torch.float64, generator=generator), uniform(0.1, 0.7)
    x = x * V.sign()
    tokens = torch.stack([torch.zeros_like(x), x, x * uniform(0.91, 0.99)], 1)
    if "close pair" not in keys:
        tokens = torch.randn(batch, 3, dtype=torch.float64, generator=generator)
    return {"score": W[:, None, None], "value": V[:, None, None], "tokens": tokens[..., None]}


def _exact_pair(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    W, V = draw(st.integers(1, 3)), draw(INTEGERS.filter(bool))
    x = Fraction(draw(st.sampled_from([-1, 1])), draw(st.integers(2, 4)))
    tokens = [[Fraction(0)], [x], [x * Fraction(draw(st.integers(18, 19)), 20)]]
    if "close pair" not in keys:
        tokens = exact_matrix(draw, 3, 1)
    return {"score": [[Fraction(W)]], "value": [[Fraction(V)]], "tokens": tokens}


ONE_HEAD, TWO_HEADS = _metric_family(1), _metric_family(2)
HEADS = Family(_random_heads, _exact_heads)
PAIR = Family(_random_pair, _exact_pair, dimension=1, count=3)

# Claims


def _attention(moment: Moment) -> Tensor:
    """P^h_ij, (batch, heads, n, n)."""
    attention = moment.system.attention(moment.x)
    return attention if attention.ndim == 4 else attention[:, None]


def _first_token(moment: Moment) -> tuple[Tensor, Tensor]:
    linear = torch.einsum("bde,be->bd", moment.value_sum, moment.x[:, 0])
    return moment.velocity[:, 0], moment.constant("c")[:, None] * linear


def metric_energies(moment: Moment) -> Tensor:
    """E_i = ½ x_iᵀMx_i, (batch, n)."""
    return observables.token_energy(moment.x, moment.parameters["metric"])


def _pull(moment: Moment) -> Tensor:
    """x_iᵀ M Σ_h V_h x_i, (batch, n)."""
    return 2 * observables.token_energy(moment.x, moment.parameters["metric"] @ moment.value_sum)


def push(moment: Moment) -> Tensor:
    """f_i = Σ_h Σ_{j<i} P^h_ij ‖V_h x_j‖_M, (batch, n)."""
    metric = moment.parameters["metric"]
    norms = [(2 * observables.token_energy(moment.x @ V.mT, metric)).sqrt() for V in moment.head_values]
    return torch.einsum("bhij,bhj->bi", _attention(moment).tril(-1), torch.stack(norms, 1))


def _induction_step(moment: Moment) -> tuple[Tensor, Tensor]:
    own = _attention(moment).diagonal(dim1=2, dim2=3).amin(1)
    bound = (2 * metric_energies(moment)).sqrt() * push(moment) + own * _pull(moment)
    rate = observables.token_energy_rate(moment.x, moment.velocity, moment.parameters["metric"])
    return bound[:, 1:], rate[:, 1:]


def _linear_limit(moment: Moment) -> tuple[Tensor, Tensor]:
    number = torch.arange(1, moment.n + 1, dtype=moment.x.dtype, device=moment.x.device)[:, None]
    means = moment.x.cumsum(1) / number
    gap = moment.velocity - moment.constant("c")[:, None, None] * means @ moment.value.mT
    scores = moment.system.scores(moment.x)
    visible = torch.ones_like(scores, dtype=torch.bool).tril()
    low = torch.where(visible, scores, torch.inf).amin(2)
    high = torch.where(visible, scores, -torch.inf).amax(2)
    reach = 2 * moment.constant("norm_V")[:, None] * -torch.expm1(low - high)
    largest = moment.x.square().sum(2).cummax(1).values
    return (reach**2 * largest)[:, 1:], gap.square().sum(2)[:, 1:]


def _wrong_way(moment: Moment) -> tuple[Tensor, Tensor]:
    rates = observables.pairwise_form_rate(moment.x, moment.velocity, moment.response)
    return against_zero(-rates[:, 2:3])


def _means(moment: Moment) -> tuple[Tensor, Tensor]:
    """Z_2 Z_3 (m_3 − m_2) against its closed form for x_1 = 0."""
    _, second, third = moment.x[..., 0].unbind(1)
    weights = moment.system.scores(moment.x).exp().tril()
    mean = moment.system.attended_mean(moment.x)[..., 0]
    product = weights[:, 1].sum(1) * weights[:, 2].sum(1) * (mean[:, 2] - mean[:, 1])
    own, cross, last = weights[:, 1, 1], weights[:, 2, 1], weights[:, 2, 2]
    closed = second * cross + third * last - second * own - (second - third) * own * last
    return product[:, None], (moment.constant("c") * closed)[:, None]


def _kappas(moment: Moment) -> Tensor:
    """c κ_i of a row of i scores, (batch, n)."""
    kappas = [observables.free_energy_gap(i) for i in range(1, moment.n + 1)]
    return moment.constant("c")[:, None] * torch.tensor(kappas, dtype=moment.x.dtype, device=moment.x.device)


def _token_inequality(moment: Moment) -> tuple[Tensor, Tensor]:
    rate = observables.token_energy_rate(moment.x, moment.velocity, moment.response)
    return rate, 2 * moment.constant("lambda")[:, None] * token_energies(moment) - _kappas(moment)


# Trajectories


def tame(moment: Moment) -> Moment:
    """The same systems with scores of at most TAME and the time scaled so that the last token's |α|/n is 1/4.

    Where W_s is indefinite and tokens are large, a token may hardly see itself, and nothing shows in time.
    """
    rate = 4 * moment.constant("alpha").abs() / moment.n
    rate = torch.where(rate > 0, rate, 1.0)
    norm = torch.stack([torch.linalg.matrix_norm(W, 2) for W in moment.head_scores]).amax(0)
    score = norm * moment.x.square().sum(2).amax(1)
    x = moment.x * (TAME / score.clamp(min=TAME)).sqrt()[:, None, None]
    values = [V / rate[:, None, None] for V in moment.head_values]
    given = {f"V_{h}": V for h, V in enumerate(values[1:], start=2)}
    scaled = Moment.of(
        moment.setting, x, score=moment.score, value=values[0], **{**moment.parameters, **given}
    )
    return replace(scaled, scale=moment.scale)


def _vanishes(run: Run) -> Tensor:
    """0.01 − ‖X(end)‖/‖X(0)‖ where that is positive; −1 where tokens escaped; NaN where not yet small."""
    size = observables.norms(run.solution.states.flatten(0, 1)).amax(1).reshape(len(run.start.x), -1)
    ratio = torch.where(size[:, 0] > 0, size[:, -1] / size[:, 0], 0.0)
    room = torch.where(ratio <= 0.01, 0.01 - ratio, torch.nan)
    return torch.where(run.solution.outcome == Outcome.ESCAPED, -1.0, room)


def _first_follows(run: Run) -> Tensor:
    """−‖x_1(t) − e^{Σ_h V_h t}x_1(0)‖ relative to the largest token so far."""
    flow = torch.linalg.matrix_exp(run.start.value_sum[:, None] * run.times[:, None, None])
    exact = torch.einsum("btde,be->btd", flow, run.start.x[:, 0])
    gap = (run.solution.states[:, :, 0] - exact).abs().amax(2)
    size = run.solution.states.flatten(2).abs().amax(2).cummax(1).values
    return smallest(-torch.where(gap > 0, gap / size, gap))


def leading_left_eigenvector(moment: Moment) -> Tensor:
    """ℓ of Σ_h V_h for an eigenvalue of largest real part, complex (batch, d), of norm 1."""
    eigenvalues, vectors = torch.linalg.eig(moment.value_sum.mT)
    leading = eigenvalues.real.argmax(1)
    return vectors[torch.arange(len(leading)), :, leading]


def amplitudes(run: Run) -> Tensor:
    """|ℓᵀx_k(t)|, (batch, times, n): free of the oscillation of a complex pair and of faster modes of V."""
    ell = leading_left_eigenvector(run.start)
    return torch.einsum("btnd,bd->btn", run.solution.states.to(ell.dtype), ell).abs()


SETTLED, CLOSE = 0.005, 0.02


def last_rate(run: Run) -> Tensor:
    """Decay rate of the last token over the last quarter of the times; NaN unless it has settled.

    Settled: from half of the times on scores are at most 0.5 %, so that attention is nearly uniform, and
    over the quarter before the rate differed by at most 0.5 %. The first rules out tokens that still wait.
    """
    steps = len(run.times) - 1
    marks = [steps // 2, 3 * steps // 4, -1]
    half, quarter, end = amplitudes(run)[:, marks, -1].log().unbind(1)
    spans = run.times[marks].diff()
    before, rate = (half - quarter) / spans[0], (quarter - end) / spans[1]
    scores = run.start.system.scores(run.solution.states[:, marks[0]]).flatten(1).abs().amax(1)
    settled = (scores <= SETTLED) & ((before - rate).abs() <= SETTLED * rate.abs())
    return torch.where(settled, rate, torch.nan)


def _last_rate_agrees(run: Run) -> Tensor:
    """2 % minus the relative distance of the measured rate from |α|/n; NaN for equal tokens, an exception."""
    claimed = run.start.constant("alpha").abs() / run.start.n
    generic = (run.start.x != run.start.x[:, :1]).flatten(1).any(1)
    return torch.where(generic, CLOSE - (last_rate(run) / claimed - 1).abs(), torch.nan)


def rate_ratios(most: int, systems: int, d: int, seed: int) -> Tensor:
    """Measured over claimed decay rate of tokens k = 1 … most, (most, systems); NaN where not settled.

    Token k is simulated as the last of k tokens, since later ones do not act on it, until the next faster
    exponential, of rate |α|/(k−1), is e^{−8} times smaller. Starts are Gaussian of size 0.3; no eigenvalue
    of V exceeds 3|α|, which keeps the steps few.
    """
    ratios, generator = [], Generator().manual_seed(seed)
    for n in range(1, most + 1):
        weights = ONE_HEAD.random(METRIC_KEYS, 16 * systems, n, d, generator)
        size = torch.linalg.eigvals(weights["value"]).abs().amax(1)
        mild = (size <= -3 * observables.spectral_abscissa(weights["value"])).nonzero().flatten()[:systems]
        x = families.random_tokens(len(mild), n, d, 0.3, generator)
        moment = tame(Moment.of(Setting(causal=True), x, **{name: w[mild] for name, w in weights.items()}))
        times = torch.linspace(0, 32.0 * max(n - 1, 1), 41, dtype=torch.float64)
        solution = integrate(
            moment.system, moment.x, times, rtol=1e-9, atol=1e-290, max_steps=4000, method="dormand-prince"
        )
        ratios.append(4 * last_rate(Run(moment, solution)))
    return torch.stack(ratios)


def _grows(run: Run) -> Tensor:
    """−| |ℓᵀx_1(t)| − e^{αt}|ℓᵀx_1(0)| | relative to the largest token so far."""
    measured = amplitudes(run)[:, :, 0]
    claimed = measured[:, :1] * torch.exp(run.start.constant("alpha")[:, None] * run.times)
    gap, size = (measured - claimed).abs(), run.solution.states.flatten(2).abs().amax(2).cummax(1).values
    return smallest(-torch.where(gap > 0, gap / size, gap))


def _gap_turns(run: Run) -> Tensor:
    """−σ times the change of |x_3 − x_2| over a moment, relative: against T1."""
    x = run.solution.states[..., 0]
    gap = (x[:, :, 2] - x[:, :, 1]).abs()
    return run.start.constant("sigma") * (gap[:, 0] - gap[:, 1]) / gap[:, 0]


def _curve(run: Run) -> Tensor:
    """σ(E_i(t) − bound_i(t)), relative: each energy stays on its side of its exponential."""
    energies, sigma = run.along(token_energies), run.start.constant("sigma")[:, None, None]
    rate = run.start.constant("lambda")[:, None, None]
    threshold = _kappas(run.start)[:, None] / (2 * rate)
    bound = threshold + (energies[:, :1] - threshold) * torch.exp(2 * sigma * rate * run.times[:, None])
    size = energies.abs().amax(2, keepdim=True) + bound.abs() + threshold
    return smallest(torch.where(size > 0, sigma * (energies - bound) / size, 0.0))


METRIC_SIDES = {
    "the first token is linear": _first_token,
    "energy is non-negative": lambda m: against_zero(metric_energies(m)),
    "a token pulls itself inward": lambda m: against_zero(-_pull(m)),
    "only earlier tokens push": _induction_step,
}
VANISH = (
    Conclusion("tokens vanish", _vanishes, 0.0, "none: below 1/100 of the start, or nothing is said"),
    Conclusion("the first token moves linearly", _first_follows, 1e-6, "the integrator's relative error"),
)

T14 = Row(id="T14", family=ONE_HEAD, sides=METRIC_SIDES, conclusions=VANISH, horizon=40.0, prepare=tame)
T14d = Row(id="T14d", family=TWO_HEADS, sides=METRIC_SIDES, conclusions=VANISH, horizon=40.0, prepare=tame)

T14b = Row(
    id="T14b",
    family=ONE_HEAD,
    sides={
        "the first rate": lambda m: against_zero(-m.constant("alpha")[:, None]),
        "close to the linear limit": _linear_limit,
    },
    conclusions=(
        Conclusion("token n decays at the rate |α|/n", _last_rate_agrees, 0.0, "none: 2 % are in the margin"),
    ),
    horizon=96.0,
    prepare=tame,
)

T14c = Row(
    id="T14c",
    family=HEADS,
    sides={
        "the first token is linear": _first_token,
        "the sum is unstable": lambda m: against_zero(m.constant("alpha")[:, None]),
    },
    conclusions=(
        Conclusion("the first token grows at the rate α", _grows, 1e-6, "the integrator's relative error"),
    ),
    horizon=3.0,
    prepare=tame,
)

T14e = Row(
    id="T14e",
    family=PAIR,
    sides={"the distance moves the wrong way": _wrong_way, "difference of the means": _means},
    conclusions=(Conclusion("the distance starts the wrong way", _gap_turns, 0.0, "none: it moves at once"),),
    horizon=0.1,
)

T14f = Row(
    id="T14f",
    family=RESPONSE,
    sides={
        **PENCIL_SIDES,
        "energy inequality": _token_inequality,
    },
    conclusions=(
        Conclusion(
            "energy beyond the exponential of its rate", _curve, 1e-6, "the integrator's relative error"
        ),
    ),
    horizon=2.0,
)
