"""T11, T11b, T11c, T13, T13b: certificates that hold by construction, and the largest token's energy."""

import math
from collections.abc import Callable
from fractions import Fraction

import torch
from flint import fmpq, fmpq_mat
from hypothesis import reject
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import observables
from theory.weights import identity, rational_matrix, symmetric_part
from tokendyn.moment import Moment, nearest_float
from tokendyn.pairing.convergence import against_zero
from tokendyn.row import Conclusion, Row, Run, Sides, smallest
from tokendyn.sampling import Family, Keys, exact_form, exact_matrix, random_form, uniform

# Claims

Metric = Callable[[Moment], Tensor]


def _chosen(moment: Moment) -> Tensor:
    return moment.parameters["metric"]


def _response(moment: Moment) -> Tensor:
    return moment.response


def _sides(sign: int, metric: Metric) -> dict[str, Sides]:
    def energies(moment: Moment) -> Tensor:
        return observables.token_energy(moment.x, metric(moment))

    def pairs(moment: Moment) -> tuple[Tensor, Tensor]:
        E, nu = energies(moment), moment.constant("nu")[:, None, None]
        responses = moment.x @ metric(moment) @ moment.value @ moment.x.mT
        bound = moment.system.scores(moment.x) - nu * (E[:, :, None] + E[:, None])
        return sign * responses.flatten(1), bound.flatten(1)

    def rates(moment: Moment) -> tuple[Tensor, Tensor]:
        E = energies(moment)
        nu, eta, kappa = (moment.constant(name)[:, None] for name in ("nu", "eta", "kappa"))
        rate = observables.token_energy_rate(moment.x, moment.velocity, metric(moment))
        return sign * rate, (nu + 2 * eta) * E - nu * E.amax(1, keepdim=True) - kappa

    return {
        "energy is non-negative": lambda m: against_zero(energies(m)),
        "the rate is positive": lambda m: against_zero(m.constant("eta")[:, None]),
        "each pair": pairs,
        "energy inequality": rates,
    }


def _largest_stays_beyond(sign: int, metric: Metric) -> Conclusion:
    def margin(run: Run) -> Tensor:
        """±(E(t) − bound(t)), relative, where bound' = ±(2η·bound − κ) starts at E(0)."""
        energy = run.along(lambda m: observables.token_energy(m.x, metric(m)).amax(1, keepdim=True))[..., 0]
        rate = 2 * run.start.constant("eta")[:, None]
        threshold = run.start.constant("kappa")[:, None] / rate
        bound = threshold + (energy[:, :1] - threshold) * torch.exp(sign * rate * run.times)
        return smallest(sign * (energy - bound) / (energy + bound.abs() + threshold).clamp(min=1e-300))

    return Conclusion(
        "largest energy beyond the exponential of its rate", margin, 1e-6, "the integrator's relative error"
    )


# Random certificates: ν and η from the weights, with a slack that keeps rounding harmless

SLACK = 1e-6


def needed(metric: Tensor, corners: list[Tensor]) -> Tensor:
    """The smallest ν with [[νM, N], [Nᵀ, νM]] ⪰ 0 for every corner N, (batch,); 0 without corners."""
    least = metric.new_zeros(len(metric))
    for corner in corners:
        zero = torch.zeros_like(corner)
        form = torch.cat([torch.cat([zero, corner], 2), torch.cat([corner.mT, zero], 2)], 1)
        doubled = torch.cat([torch.cat([metric, zero], 2), torch.cat([zero, metric], 2)], 1)
        least = torch.maximum(least, -observables.pencil_minimum(form, doubled))
    return least


def _below(form: Tensor, metric: Tensor) -> Tensor:
    """The smallest ν with form_s ⪯ νM, (batch,)."""
    return -observables.pencil_minimum(-form, metric)


def _column(numbers: Tensor) -> Tensor:
    return numbers[:, None, None]


def _gaussian(batch: int, d: int, generator: Generator) -> Tensor:
    return torch.randn(batch, d, d, dtype=torch.float64, generator=generator)


def _random_metric(batch: int, d: int, generator: Generator) -> Tensor:
    return random_form(frozenset({"M positive", "M symmetric"}), "M", batch, d, generator)


def _flip(key: str, keys: Keys, batch: int, generator: Generator) -> Tensor:
    """−1 for half the systems if the metric may be negative: (−M, −V, −ν) meets every other condition."""
    flipped = torch.rand(batch, generator=generator) < 0.5 * (key not in keys)
    return _column(torch.where(flipped, -1.0, 1.0).double())


def _random_plain(sign: int, block: str) -> Callable[[Keys, int, int, int, Generator], dict[str, Tensor]]:
    """MV = ±W + N with N free, then ν as N needs, then W_s above (ν + η)M."""

    def random(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
        metric = _random_metric(batch, d, generator)
        corner = _column(uniform(batch, 0, 1, generator)) * _gaussian(batch, d, generator)
        nu = needed(metric, [corner]) * (1 + SLACK) + SLACK
        if block not in keys:
            nu = nu * uniform(batch, 0, 1, generator)
        eta = uniform(batch, 0.05, 1, generator)
        if "margin positive" not in keys:
            eta = -eta
        excess = random_form(frozenset({"W positive"}), "W", batch, d, generator)
        score = _column(nu + eta) * metric + _column(uniform(batch, 0.01, 1, generator)) * excess
        if "score margin" not in keys:
            score = random_form(frozenset(), "W", batch, d, generator)
        flip = _flip("M positive", keys, batch, generator)
        return {
            "score": score,
            "value": flip * torch.linalg.solve(metric, corner + sign * score),
            "metric": flip * metric,
            "multiplier": flip * _column(nu),
            "margin": _column(eta),
        }

    return random


def _random_joint(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """T11c: MV = W + N with N and ν free, then W_s as Schur's complement NM⁻¹Nᵀ/(2ν) needs it."""
    metric = _random_metric(batch, d, generator)
    corner = _column(uniform(batch, 0, 1, generator)) * _gaussian(batch, d, generator)
    nu, eta = _column(uniform(batch, 0.1, 1, generator)), _column(uniform(batch, 0.05, 1, generator))
    if "margin positive" not in keys:
        eta = -eta
    excess = random_form(frozenset({"W positive"}), "W", batch, d, generator)
    score = (eta + nu / 2 + SLACK) * metric + _column(uniform(batch, 0.01, 1, generator)) * excess
    score = score + observables.symmetric_part(corner @ torch.linalg.solve(metric, corner.mT)) / (2 * nu)
    if "joint block" not in keys:
        score = random_form(frozenset(), "W", batch, d, generator)
    flip = _flip("M positive", keys, batch, generator)
    return {
        "score": score,
        "value": flip * torch.linalg.solve(metric, corner + score),
        "metric": flip * metric,
        "multiplier": flip * nu,
        "margin": eta,
    }


def _random_rotary(batch: int, d: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """W with W_s ≻ 0, K, and a skew S of norm at most 1 that may leave coordinates alone; R = e^S."""
    score = random_form(frozenset({"W positive"}), "W", batch, d, generator)
    key = random_form(frozenset({"K positive"}), "K", batch, d, generator)
    moved = (torch.rand(batch, d, generator=generator) < 0.7).double()
    skew = moved[:, :, None] * _gaussian(batch, d, generator) * moved[:, None]
    skew = skew - skew.mT
    return score, key, skew / torch.linalg.matrix_norm(skew, 2).clamp(min=1)[:, None, None]


def _powers(turn: Tensor, n: int) -> list[Tensor]:
    """R^r, r = 1 … n−1."""
    return [torch.linalg.matrix_power(turn, r) for r in range(1, n)]


def _shrunk(nu: Callable[[Tensor], Tensor], most: Tensor, batch: int, generator: Generator) -> Tensor:
    """Sizes of perturbations (batch,), halved until they need no more than 90 % of the score margin."""
    size = uniform(batch, 0, 1.5, generator)
    for _ in range(12):
        size = torch.where(nu(size) < 0.9 * most, size, size / 2)
    return size


def _with_margin(keys: Keys, nu: Tensor, most: Tensor, generator: Generator) -> dict[str, Tensor]:
    """ν and an η of at most what it leaves of the score margin."""
    nu = nu * (1 + SLACK) + SLACK * most
    eta = (most - nu) * uniform(len(nu), 0.1, 1 - SLACK, generator)
    return {"multiplier": _column(nu), "margin": _column(eta if "margin positive" in keys else -eta)}


def _random_offsets(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """T13: MV = W + N_0 and a rotation, both small enough.

    R is orthogonal to rounding only, so no alarm could be certified: dropped conditions are the exact
    family's task.
    """
    metric = _random_metric(batch, d, generator)
    score, key, skew = _random_rotary(batch, d, generator)
    query, tilt = torch.linalg.solve(key.mT, score.mT), _gaussian(batch, d, generator)

    def nu(size: Tensor) -> Tensor:
        response, turns = score + _column(size) * tilt, _powers(torch.matrix_exp(_column(size) * skew), n)
        corners = [response - query.mT @ turn @ key for power in turns for turn in (power, power.mT)]
        return torch.maximum(needed(metric, corners), _below(score - response, metric))

    most = observables.pencil_minimum(score, metric)
    size = _shrunk(nu, most, batch, generator)
    return {
        "query": query,
        "key": key,
        "value": torch.linalg.solve(metric, score + _column(size) * tilt),
        "rotation": torch.matrix_exp(_column(size) * skew),
        "metric": metric,
        **_with_margin(keys, nu(size), most, generator),
    }


def _random_turned(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """T13b: a rotation small enough, with Q and K balanced; dropped conditions as in T13."""
    metric = random_form(frozenset({"A positive", "A symmetric"}), "A", batch, d, generator)
    score, key, skew = _random_rotary(batch, d, generator)
    query = torch.linalg.solve(key.mT, score.mT)
    rows = query * (skew != 0).any(2)[:, :, None]

    def parts(size: Tensor) -> tuple[Tensor, Tensor]:
        changes = [turn @ key - key for turn in _powers(torch.matrix_exp(_column(size) * skew), n)]
        moved = [_below(change.mT @ change, metric) for change in changes]
        tiny = torch.full((batch,), SLACK, dtype=torch.float64)
        return torch.maximum(_below(rows.mT @ rows, metric), tiny), torch.stack([tiny, *moved]).amax(0)

    most = observables.pencil_minimum(score, metric)
    size = _shrunk(lambda size: torch.mul(*parts(size)).sqrt(), most, batch, generator)
    queries, moved = parts(size)
    balance = _column((queries / moved) ** 0.25)
    return {
        "query": query / balance,
        "key": key * balance,
        "response": metric,
        "rotation": torch.matrix_exp(_column(size) * skew),
        **_with_margin(keys, (queries * moved).sqrt(), most, generator),
    }


# Exact certificates: what the conditions need is found in floats and rounded to sixteenths on the safe side

PIECES = st.sampled_from([Fraction(1, 4), Fraction(1, 8), Fraction(0), Fraction(1, 2)])


def _floats(matrix: fmpq_mat) -> Tensor:
    return torch.tensor([[[nearest_float(q) for q in row] for row in matrix.tolist()]], dtype=torch.float64)


def _up(number: Tensor) -> fmpq:
    return fmpq(math.ceil(16 * number.item() - SLACK), 16)


def _down(number: Tensor) -> fmpq:
    return fmpq(math.floor(16 * number.item() + SLACK), 16)


def _most(score: fmpq_mat, metric: fmpq_mat) -> fmpq:
    """The largest ν + η with W_s ⪰ (ν + η)M."""
    return _down(observables.pencil_minimum(_floats(score), _floats(metric)))


def _exact_form(draw: Callable, name: str, d: int, *more: str) -> fmpq_mat:
    return rational_matrix(name, exact_form(draw, frozenset({f"{name} positive", *more}), name, d))


def _exact_flip(draw: Callable, key: str, keys: Keys) -> int:
    return 1 if key in keys or draw(st.booleans()) else -1


def _exact_plain(sign: int, block: str) -> Callable[[Callable, Keys, int, int], dict]:
    def exact(draw: Callable, keys: Keys, n: int, d: int) -> dict:
        metric = _exact_form(draw, "M", d, "M symmetric")
        corner = rational_matrix("N", exact_matrix(draw, d, d, st.integers(-1, 1)))
        nu = _up(needed(_floats(metric), [_floats(corner)]))
        if block not in keys:
            nu = nu * draw(st.integers(0, 1))
        eta = fmpq(draw(st.integers(1, 4)), 2)
        if "margin positive" not in keys:
            eta = -eta
        excess = _exact_form(draw, "W", d) * draw(st.integers(0, 1))
        score = metric * (nu + eta) + excess
        if "score margin" not in keys:
            score = excess
        flip = _exact_flip(draw, "M positive", keys)
        return {
            "score": score,
            "value": metric.solve(corner + score * sign) * flip,
            "metric": metric * flip,
            "multiplier": nu * flip,
            "margin": eta,
        }

    return exact


def _exact_joint(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    metric = _exact_form(draw, "M", d, "M symmetric")
    corner = rational_matrix("N", exact_matrix(draw, d, d, st.integers(-1, 1)))
    nu, eta = fmpq(draw(st.integers(0, 4)), 2), fmpq(draw(st.integers(1, 4)), 2)
    if nu == 0:  # then only N = 0 will do
        corner = corner * 0
    if "margin positive" not in keys:
        eta = -eta
    excess = _exact_form(draw, "W", d) * draw(st.integers(0, 1))
    complement = corner * metric.solve(corner.transpose()) * (1 / (2 * nu) if nu else fmpq(0))
    score = metric * (eta + nu / 2) + complement + excess
    if "joint block" not in keys:
        score = excess
    flip = _exact_flip(draw, "M positive", keys)
    return {
        "score": score,
        "value": metric.solve(corner + score) * flip,
        "metric": metric * flip,
        "multiplier": nu * flip,
        "margin": eta,
    }


def _exact_turn(draw: Callable, keys: Keys, n: int, d: int, half: Fraction, wide: bool) -> fmpq_mat:
    """A plane turned by 2·arctan(half), or by 90° if `wide`; other lengths if R need not be orthogonal."""
    turn, first = identity(d), draw(st.integers(0, max(d - 2, 0)))
    half = Fraction(1) if wide else half
    cosine, sine = ((1 - half**2) / (1 + half**2), 2 * half / (1 + half**2))
    if d > 1:
        plane = [(0, 0, cosine), (0, 1, -sine), (1, 0, sine), (1, 1, cosine)]
        for i, j, entry in plane:
            turn[first + i, first + j] = fmpq(entry.numerator, entry.denominator)
    elif wide or (n == 1 and draw(st.booleans())):
        turn = -turn
    if "R orthogonal" not in keys:
        turn = turn * draw(st.sampled_from([fmpq(3, 2), fmpq(5, 4), fmpq(1, 2)]))
    return turn


def _exact_powers(turn: fmpq_mat, n: int) -> list[fmpq_mat]:
    return [turn**r for r in range(1, n)]


def _exact_projections(draw: Callable, metric: fmpq_mat, d: int) -> tuple[fmpq_mat, fmpq_mat, fmpq_mat]:
    """W above twice the metric, Q and a unimodular K with QᵀK = W."""
    score = metric * draw(st.integers(2, 4)) + _exact_form(draw, "W", d) * draw(st.integers(0, 1))
    key = identity(d)
    for i in range(d):
        for j in range(i):
            key[i, j] = fmpq(draw(st.integers(-1, 1)))
    return score, (score * key.inv()).transpose(), key


def _exact_margin(draw: Callable, keys: Keys, margin: str, nu: fmpq, most: fmpq) -> fmpq:
    """An η that the score margin leaves; a larger one if that condition is dropped."""
    eta = most - nu
    if margin not in keys:
        eta = max(eta, fmpq(0)) + draw(st.integers(1, 4))
    if eta <= 0:
        reject()
    return eta if "margin positive" in keys else -eta


def _exact_offsets(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    metric = _exact_form(draw, "M", d, "M symmetric")
    score, query, key = _exact_projections(draw, metric, d)
    blocks, self_term = "response blocks" in keys, "self term" in keys
    half, tilt = draw(PIECES), draw(st.sampled_from([fmpq(0), fmpq(1, 2), fmpq(-1, 2), fmpq(-1)]))
    most, M = _most(score, metric), _floats(metric)
    for _ in range(4):
        turn = _exact_turn(draw, keys, n, d, half, not blocks)
        response = score + metric * tilt
        if not self_term and n == 1:
            response = response - metric * draw(st.integers(4, 8))
        turns = [part for power in _exact_powers(turn, n) for part in (power, power.transpose())]
        corners = [_floats(response - query.transpose() * part * key) for part in turns] if blocks else []
        least = needed(M, corners)
        nu = _up(torch.maximum(least, _below(_floats(score - response), M)) if self_term else least)
        if nu < most:
            break
        half, tilt = half / 4, fmpq(0)
    eta, flip = _exact_margin(draw, keys, "score margin", nu, most), _exact_flip(draw, "M positive", keys)
    return {
        "query": query,
        "key": key,
        "value": metric.solve(response) * flip,
        "rotation": turn,
        "metric": metric * flip,
        "multiplier": nu * flip,
        "margin": eta,
    }


def _exact_turned(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    response = rational_matrix("A", exact_form(draw, keys | {"A positive"}, "A", d))
    metric = symmetric_part(response)
    score, query, key = _exact_projections(draw, metric, d)
    queries, moving = "turned queries" in keys, "turned keys" in keys
    half, most, M = draw(PIECES), _most(score, metric), _floats(metric)
    for _ in range(5):
        turn = _exact_turn(draw, keys, n, d, half, not (queries and moving))
        rows = [i for i in range(d) if any((turn - identity(d)).tolist()[i])]
        chosen = fmpq_mat([query.tolist()[i] for i in rows]) if rows else identity(d) * 0
        own = _below(_floats(chosen.transpose() * chosen), M)
        changes = [power * key - key for power in _exact_powers(turn, n)]
        moved = torch.stack(
            [torch.zeros(1), *(_below(_floats(change.transpose() * change), M) for change in changes)]
        ).amax(0)
        scale = _balance(own.item() * queries, moved.item() * moving)
        square = nearest_float(scale**2)
        nu = _up(torch.maximum(own / square * queries, moved * square * moving))
        if nu < most:
            break
        half = half / 4
    eta, flip = _exact_margin(draw, keys, "response margin", nu, most), _exact_flip(draw, "A positive", keys)
    return {
        "query": query / scale,
        "key": key * scale,
        "response": response * flip,
        "rotation": turn,
        "multiplier": nu * flip,
        "margin": eta,
    }


def _balance(own: float, moved: float) -> fmpq:
    """A power of two c that brings own/c² and moved·c² together, within 1/16 and 16."""
    powers = [fmpq(2) ** k for k in range(-4, 5)]
    return min(powers, key=lambda c: max(own / nearest_float(c**2), moved * nearest_float(c**2)))


def _row(identifier: str, family: Family, sign: int, metric: Metric, **others: Sides) -> Row:
    return Row(
        id=identifier,
        family=family,
        sides={**_sides(sign, metric), **others},
        conclusions=(_largest_stays_beyond(sign, metric),),
        horizon=1.5,
        trajectories=30,
    )


T11 = _row("T11", Family(_random_plain(1, "response block"), _exact_plain(1, "response block")), 1, _chosen)
T11b = _row(
    "T11b",
    Family(_random_plain(-1, "opposite response block"), _exact_plain(-1, "opposite response block")),
    -1,
    _chosen,
)


def _joint_pairs(moment: Moment) -> tuple[Tensor, Tensor]:
    metric, scores = _chosen(moment), moment.system.scores(moment.x)
    E = observables.token_energy(moment.x, metric)
    nu, eta = (moment.constant(name)[:, None, None] for name in ("nu", "eta"))
    own = scores.diagonal(dim1=1, dim2=2)[:, :, None]
    bound = scores - own + (nu + 2 * eta) * E[:, :, None] - nu * E[:, None]
    return (moment.x @ metric @ moment.value @ moment.x.mT).flatten(1), bound.flatten(1)


T11c = _row("T11c", Family(_random_joint, _exact_joint), 1, _chosen, **{"each pair": _joint_pairs})
T13 = _row("T13", Family(_random_offsets, _exact_offsets), 1, _chosen)
T13b = _row("T13b", Family(_random_turned, _exact_turned), 1, _response)
