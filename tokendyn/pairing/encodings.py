"""T12, T12b: absolute encodings at every layer. T13c: rotated values as a change of frame."""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import AttentionSystem, integrate, observables
from tokendyn.moment import Moment, spectrum_at_zero
from tokendyn.pairing.convergence import against_zero, energy, mean_total_score, of_order_one, vanishes
from tokendyn.row import Conclusion, Row, Run, smallest
from tokendyn.sampling import (
    INTEGERS,
    RESPONSE,
    VALUE,
    Family,
    Keys,
    Matrix,
    exact_matrix,
    random_form,
)

# T12


def _with_positions(family: Family) -> Family:
    """The family with free encodings; the keys may ask that they differ."""

    def random(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
        positions = torch.randn(batch, n, d, dtype=torch.float64, generator=generator)
        if "positions differ" not in keys:
            same = torch.rand(batch, generator=generator) < 0.1
            positions = torch.where(same[:, None, None], positions[:, :1], positions)
        return {**family.random(keys, batch, n, d, generator), "positions": positions}

    def exact(draw: Callable, keys: Keys, n: int, d: int) -> dict:
        positions = exact_matrix(draw, n, d)
        if "positions differ" in keys:  # steps of 7 in the first coordinate, whose entries lie within ±3
            positions = [[7 * i + row[0], *row[1:]] for i, row in enumerate(positions)]
            positions = [[q / 7 for q in row] for row in positions]
        return {**family.exact(draw, keys, n, d), "positions": positions}

    return Family(random, exact)


def _encoded(moment: Moment) -> Moment:
    """The same systems at z = x + p, for observables of z; the velocity stays that of x."""
    return moment.at(moment.x + moment.parameters["positions"])


def _energy_rate(moment: Moment) -> Tensor:
    z = _encoded(moment).x
    return observables.token_energy_rate(z, moment.velocity, moment.response).sum(1, keepdim=True)


def _settles(run: Run) -> Tensor:
    """Whether the energy of z = x + p vanishes."""
    return vanishes(-run.along(lambda moment: energy(_encoded(moment)))[:, :, 0])


def _of_order_one(moment: Moment) -> Moment:
    """Tokens moved so that the largest z = x + p has norm 2: slow starts near 0 need longer horizons."""
    return moment.at(of_order_one(_encoded(moment)).x - moment.parameters["positions"])


T12 = Row(
    id="T12",
    family=_with_positions(RESPONSE),
    sides={
        "energy is non-negative": lambda m: against_zero(-energy(_encoded(m))),
        "energy never grows": lambda m: against_zero(_energy_rate(m)),
        "energy decreases": lambda m: (_energy_rate(m), mean_total_score(_encoded(m))),
    },
    conclusions=(Conclusion("x tends to −p", _settles, 0.0, "none: the margin has room for decay like 1/t"),),
    horizon=800.0,
    prepare=_of_order_one,
)


# T12b


def _separations(moment: Moment) -> tuple[Tensor, Tensor]:
    positions = moment.parameters["positions"]
    first, second = torch.triu_indices(moment.n, moment.n, 1)
    gaps = positions[:, first] - positions[:, second]
    return against_zero(2 * observables.token_energy(gaps, moment.score))


def fitted_rate(run: Run) -> Tensor:
    """Exponential rate of ‖X‖ by least squares over the last quarter of the run, (batch,)."""
    late = 3 * len(run.times) // 4
    times = run.times[late:] - run.times[late:].mean()
    logs = run.solution.states[:, late:].flatten(2).norm(dim=2).log()
    return -(times * (logs - logs.mean(1, keepdim=True))).sum(1) / (times**2).sum()


def _decays(run: Run) -> Tensor:
    """2 % minus the relative error of the fitted rate; NaN where the spectrum is too crowded to tell.

    The criterion, fixed beforehand: the leading eigenvalue of P⁰ ⊗ V is real (a complex pair would make the
    fit depend on the phase), and the next real part is half as large again. The time scale is set so that the
    leading part has fallen by e^{−12} when the fit begins: the others are smaller by e^{−6} at least. And
    μ > 0.05: tokens of size 1e-3 change P⁰ by less; and not all tokens equal, a start without the slow part.
    """
    spectrum = spectrum_at_zero(run.start)
    reals, order = spectrum.real.sort(1, descending=True)
    leading = spectrum.gather(1, order)[:, 0]
    following = reals[:, 1] if reals.shape[1] > 1 else torch.full_like(reals[:, 0], -torch.inf)
    generic = (run.start.x != run.start.x[:, :1]).any(-1).any(-1) & (run.start.constant("mu_0") > 0.05)
    settled = generic & (following < 1.5 * reals[:, 0]) & (leading.imag == 0)
    error = (fitted_rate(run) / -run.start.constant("alpha_0") - 1).abs()
    return torch.where(settled, 0.02 - error, torch.nan)


def _near_zero(moment: Moment) -> Moment:
    """Starts of norm 1e-3, as the statement is local; V scaled to the rate 0.05 sets the unit of time."""
    unit = (0.05 / -moment.constant("alpha_0")).clamp(max=20)[:, None, None]  # crowded spectra stay slow
    size = observables.norms(moment.x).amax(1)[:, None, None]
    x = torch.where(size > 0, 1e-3 * moment.x / size, 1e-3)
    return replace(moment, system=replace(moment.system, value=unit * moment.value), x=x)


T12b = Row(
    id="T12b",
    family=_with_positions(VALUE),
    sides={
        "encodings differ": _separations,
        "attention at zero has positive eigenvalues": lambda m: against_zero(m.constant("mu_0")[:, None]),
        "rate of the linearisation": lambda m: (
            m.constant("alpha_0")[:, None],
            (m.constant("c") * m.constant("mu_0") * m.constant("alpha"))[:, None],
        ),
        "the linearisation is stable": lambda m: against_zero(-m.constant("alpha_0")[:, None]),
    },
    conclusions=(
        Conclusion("exponential rate near zero", _decays, 0.0, "none: the margin is 2 % minus the error"),
    ),
    horizon=320.0,
    prepare=_near_zero,
)


# T13c


def _blocks(pairs: Tensor, last: Tensor, d: int) -> Tensor:
    """[[p, −q], [q, p]] for each pair (batch, d // 2, 2) of coordinates, then `last` (batch,) if d is odd."""
    blocks = torch.zeros(len(pairs), d, d, dtype=torch.float64)
    for c, (p, q) in enumerate(pair.unbind(1) for pair in pairs.unbind(1)):
        corner = torch.stack([torch.stack([p, -q], 1), torch.stack([q, p], 1)], 1)
        blocks[:, 2 * c : 2 * c + 2, 2 * c : 2 * c + 2] = corner
    if d % 2:
        blocks[:, -1, -1] = last
    return blocks


def _frames(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Matrices of one block form, which commute; free ones where the keys do not ask for that."""
    numbers = torch.randn(4, batch, d // 2 + 1, 2, dtype=torch.float64, generator=generator)
    query, key, value = (_blocks(part[:, 1:], part[:, 0, 0], d) for part in numbers[:3])
    sides = numbers[3]
    turn = _blocks(sides[:, 1:] / sides[:, 1:].norm(dim=2, keepdim=True), sides[:, 0, 0].sign(), d)
    free = random_form(frozenset(), "W", 3 * batch, d, generator).unflatten(0, (3, batch))
    if "Q, K commute with R" not in keys:
        query, key = free[0], free[1]
    if "V commutes with R" not in keys:
        value = free[2]
    return {"query": query, "key": key, "value": value, "rotation": turn}


def _exact_frames(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    def block(p: Fraction, q: Fraction) -> Matrix:
        """[[p, −q], [q, p]] cut to d = 1 or 2, or followed by p + q for d = 3."""
        full = [[p, -q, 0], [q, p, 0], [0, 0, p + q]]
        return [[Fraction(entry) for entry in row[:d]] for row in full[:d]]

    def commuting() -> Matrix:
        return block(Fraction(draw(INTEGERS)), Fraction(draw(INTEGERS)))

    turn = draw(st.sampled_from([block(Fraction(0), Fraction(1)), block(Fraction(-1), Fraction(0))]))
    if d == 1:
        turn = [[Fraction(-1)]]
    if "R orthogonal" not in keys:
        turn = commuting()
    both = "Q, K commute with R" in keys
    return {
        "query": commuting() if both else exact_matrix(draw, d, d),
        "key": commuting() if both else exact_matrix(draw, d, d),
        "value": commuting() if "V commutes with R" in keys else exact_matrix(draw, d, d),
        "rotation": turn,
    }


def _framed(moment: Moment, rows: Tensor) -> Tensor:
    """R^i applied to row i."""
    assert moment.system.rotary is not None
    return torch.einsum("bnij,bnj->bni", moment.system.rotary.turns[:, : moment.n], rows)


def _frame_scores(moment: Moment) -> tuple[Tensor, Tensor]:
    y = _framed(moment, moment.x)
    plain = y @ moment.score @ y.mT
    return moment.system.scores(moment.x).flatten(1), (moment.constant("c")[:, None, None] * plain).flatten(1)


def _frame_velocities(moment: Moment) -> tuple[Tensor, Tensor]:
    means = moment.system.attention(moment.x) @ _framed(moment, moment.x)
    return _framed(moment, moment.velocity).flatten(1), (means @ moment.value.mT).flatten(1)


def _follows(run: Run) -> Tensor:
    """−‖R^i x_i(t) − y_i(t)‖ relative to y, where y obeys the system without encoding."""
    plain = AttentionSystem(run.start.score, run.start.value)
    unencoded = integrate(
        plain, _framed(run.start, run.start.x), run.times, rtol=1e-9, atol=1e-14, escape=1e4, max_steps=5000
    )
    gap = torch.stack(
        [
            (_framed(run.start, run.solution.states[:, k]) - unencoded.states[:, k]).flatten(1).norm(dim=1)
            for k in range(len(run.times))
        ],
        dim=1,
    )
    size = unencoded.states.flatten(2).norm(dim=2)
    return smallest(-gap / size.clamp(min=1e-300))


T13c = Row(
    id="T13c",
    family=Family(_frames, _exact_frames),
    sides={"scores in the frame": _frame_scores, "velocities in the frame": _frame_velocities},
    conclusions=(
        Conclusion(
            "the frame obeys the plain system",
            _follows,
            1e-5,
            "two integrations to 1e-9, amplified by the flow",
        ),
    ),
    horizon=1.0,
)
