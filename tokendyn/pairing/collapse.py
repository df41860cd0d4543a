"""T9, T9b and T9c: covariances near zero, against the profile C* and its linearisation."""

from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import families, observables
from numerics.collapse import clock, decay_rates, fitted_limit, relative_error, roundness, slaved_mean
from numerics.profile import covariance, cubic_field, profile, profile_decay
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero, of_order_one
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import INTEGERS, Family, Keys, exact_form, exact_matrix, random_form

Sides = tuple[Tensor, Tensor]


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(-1)


# Sides


def size(moment: Moment) -> Tensor:
    """tr(−AC), (batch, 1)."""
    return -_trace(moment.response @ covariance(moment.x))[:, None]


def _size_falls(moment: Moment) -> Sides:
    C, W = covariance(moment.x), moment.score
    pace = 2 * moment.constant("u_*")[:, None] * _trace(W @ C @ W.mT @ C)[:, None]
    return pace, size(moment) ** 2


def _volume_rate(moment: Moment) -> Tensor:
    """tr(VCWᵀ), (batch, 1)."""
    return _trace(moment.value @ covariance(moment.x) @ moment.score.mT)[:, None]


def _stretches(moment: Moment) -> Sides:
    x, W, A = moment.x, moment.score[:, None], moment.response[:, None]
    i, j = torch.triu_indices(moment.n, moment.n, 1)
    outer = x[:, i, :, None] * x[:, j, None, :]
    H = outer + outer.mT
    return _trace(W @ moment.value[:, None] @ H @ A @ H), _trace(W @ H @ W @ H)


def _volumes(moment: Moment) -> Sides:
    d, det = moment.x.shape[2], torch.linalg.det
    shape = det(-moment.response) * det(moment.value) ** 2 * det(covariance(moment.x))
    return (-_volume_rate(moment)) ** d, (moment.constant("c") * d**d * shape)[:, None]


def _mean_pulled(moment: Moment) -> Sides:
    mean = moment.x.mean(1, keepdim=True)
    return against_zero(2 * observables.token_energy(mean, moment.score))


def _excess(moment: Moment) -> Tensor:
    """a² − b², (batch,)."""
    return moment.score[:, 0, 0] ** 2 - moment.score[:, 1, 0] ** 2


def _plane(rates: Callable[[Moment, Tensor, Tensor], Sides]) -> Callable[[Moment], Sides]:
    """One identity between C and its velocity under the cubic flow, for d = 2."""

    def sides(moment: Moment) -> Sides:
        C = covariance(moment.x)
        left, right = rates(moment, C, cubic_field(moment.score, moment.value, C))
        return left[:, None], (moment.constant("c") * right)[:, None]

    return sides


def _area_rate(C: Tensor, C_dot: Tensor) -> Tensor:
    return C[:, 0, 0] * C_dot[:, 1, 1] + C_dot[:, 0, 0] * C[:, 1, 1] - 2 * C[:, 0, 1] * C_dot[:, 0, 1]


def _size_rate(moment: Moment, C: Tensor, C_dot: Tensor) -> Sides:
    expected = 4 * _excess(moment) * torch.linalg.det(C) - 2 * moment.score[:, 0, 0] ** 2 * _trace(C) ** 2
    return _trace(C_dot), expected


def _area(moment: Moment, C: Tensor, C_dot: Tensor) -> Sides:
    return _area_rate(C, C_dot), -2 * torch.linalg.det(moment.score) * _trace(C) * torch.linalg.det(C)


def _stretch_rate(moment: Moment, C: Tensor, C_dot: Tensor) -> Sides:
    """(s² − 4D)˙ = 2sṡ − 4Ḋ, the squared difference of the eigenvalues of C."""
    s, gap = _trace(C), _trace(C) ** 2 - 4 * torch.linalg.det(C)
    return 2 * s * _trace(C_dot) - 4 * _area_rate(C, C_dot), -4 * moment.score[:, 0, 0] ** 2 * s * gap


def _threshold(moment: Moment) -> Sides:
    left = torch.linalg.det(moment.score) * moment.constant("rho")
    return left[:, None], (moment.constant("c") * _excess(moment))[:, None]


# Families


def _random_collapse(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    weights = {
        "score": random_form(keys, "W", batch, d, generator),
        "response": random_form(keys, "A", batch, d, generator),
    }
    if "tokens span" in keys:
        scale = 10 ** (torch.rand(batch, dtype=torch.float64, generator=generator) * 1.5 - 1)
        weights["tokens"] = families.random_tokens(batch, max(n, d + 1), d, scale, generator)
    return weights


def _exact_collapse(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    weights: dict = {"score": exact_form(draw, keys, "W", d), "response": exact_form(draw, keys, "A", d)}
    if "tokens span" in keys:
        corner, *others = exact_matrix(draw, max(n, d + 1), d)
        for axis, token in enumerate(others[:d]):  # differences to the corner: upper triangular
            token[: axis + 1] = [*corner[:axis], corner[axis] + draw(st.integers(1, 3))]
        weights["tokens"] = [corner, *others]
    return weights


MARGIN = 0.05
"""Members of the stable family have min Re λ(L) above it, so that rounding cannot put them on the axis."""


def _signed(keys: Keys) -> Keys:
    """With a sign for W and A where none is asked for: indefinite forms hardly ever have a stable profile."""
    return keys | {"W definite", "A definite"} if "profile stable" in keys else keys


def _decay(W: Tensor, A: Tensor) -> Tensor:
    return profile_decay(W, torch.linalg.solve(A, W), A)


def _random_stable(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    W, A = (random_form(_signed(keys), name, batch, d, generator) for name in "WA")
    if "profile stable" in keys:
        while (unstable := _decay(W, A) < MARGIN).any():
            W, A = (torch.where(unstable[:, None, None], _calmer(M), M) for M in (W, A))
    return {"score": W, "response": A}


def _calmer(M: Tensor) -> Tensor:
    """With the antisymmetric part halved; exactly symmetric once that is small."""
    symmetric = observables.symmetric_part(M)
    skew = (M - symmetric) / 2
    return symmetric + torch.where(skew.abs() > 1e-6, skew, 0.0)


def _exact_stable(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    W, A = (exact_form(draw, _signed(keys), name, d) for name in "WA")
    while "profile stable" in keys and not _stable(W, A):
        W, A = _halved(W), _halved(A)
    return {"score": W, "response": A}


def _stable(W: list[list[Fraction]], A: list[list[Fraction]]) -> bool:
    tensors = [torch.tensor([[[float(q) for q in row] for row in M]], dtype=torch.float64) for M in (W, A)]
    return _decay(*tensors).item() > MARGIN


def _halved(M: list[list[Fraction]]) -> list[list[Fraction]]:
    """The antisymmetric part halved."""
    size = range(len(M))
    return [[(3 * M[i][j] + M[j][i]) / 4 for j in size] for i in size]


def _random_turn(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    a, b = torch.rand(2, batch, dtype=torch.float64, generator=generator) + 0.1
    b = b * torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    if "W positive" not in keys:
        a = -a
    W = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    if "W rotation" not in keys:
        W = random_form(keys, "W", batch, 2, generator)
    A = -torch.eye(2, dtype=torch.float64).expand(batch, 2, 2)
    if "A minus identity" not in keys:
        A = random_form(frozenset(), "A", batch, 2, generator)
    return {"score": W, "response": A}


def _exact_turn(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    a, b = draw(st.integers(1, 3)), draw(INTEGERS)
    if "W positive" not in keys:
        a = draw(st.sampled_from([a, -a]))
    score = [[Fraction(a), Fraction(-b)], [Fraction(b), Fraction(a)]]
    if "W rotation" not in keys:
        score = exact_form(draw, keys, "W", 2)
    response = [[Fraction(-1), Fraction(0)], [Fraction(0), Fraction(-1)]]
    if "A minus identity" not in keys:
        response = exact_form(draw, frozenset(), "A", 2)
    return {"score": score, "response": response}


# Trajectories


def _halves(run: Run) -> tuple[Tensor, Tensor]:
    """Times and states half way and at the end."""
    at = [len(run.times) // 2, -1]
    return run.times[at], run.solution.states[:, at]


def _clocks(run: Run) -> Tensor:
    """Half way and at the end, (batch, 2)."""
    states = _halves(run)[1]
    return torch.stack([clock(run.start.score, run.start.value, states[:, k]) for k in (0, 1)], 1)


def _settled(run: Run, margins: Tensor) -> Tensor:
    """NaN where half way the start weighs over a tenth of the profile, by the clock: not settled yet.

    Along one axis it may then weigh up to d tenths.
    """
    return torch.where(_clocks(run)[:, 0] < 1.1 * _halves(run)[0][0], margins, torch.nan)


def _limit(run: Run) -> Tensor:
    expected = profile(run.start.score, run.start.response) * run.start.scale.get("u_*", 1.0)
    return _settled(run, 0.02 - relative_error(fitted_limit(*_halves(run)), expected))


def _clock_runs(run: Run) -> Tensor:
    times, clocks = _halves(run)[0], _clocks(run)
    return _settled(run, 0.02 - ((clocks[:, 1] - clocks[:, 0]) / (times[1] - times[0]) - 1).abs())


def _shrinking(run: Run) -> Tensor:
    """0.1 − |exponent + ½| of the largest token; what is left of the start takes up to 0.09."""
    sizes = observables.norms(_halves(run)[1].flatten(0, 1)).amax(1).view(-1, 2)
    return _settled(run, 0.1 - ((sizes[:, 1] / sizes[:, 0]).log2() + 0.5).abs())


def _mean_follows(run: Run) -> Tensor:
    """How far the mean is from −½κ₃:(WᵀCW), over the size that such a term can have."""
    x = run.solution.states[:, -1]
    error = torch.linalg.vector_norm(x.mean(1) - slaved_mean(run.start.score, x), dim=-1)
    C, W = covariance(x), run.start.score
    scale = _trace(C).sqrt() * _trace(W.mT @ C @ W @ C) / 2
    return _settled(run, 0.1 - error / scale)


T9 = Row(
    id="T9",
    family=Family(_random_collapse, _exact_collapse),
    sides={
        "size is non-negative": lambda m: against_zero(size(m)),
        "size falls at the profile's pace": _size_falls,
        "volume falls": lambda m: against_zero(-2 * _volume_rate(m)),
        "the profile attracts": _stretches,
    },
    conclusions=(
        Conclusion("t·Cov tends to C*", _limit, 0.0, "none: the margin is what 2 % leaves"),
        Conclusion("tr(W⁻¹C⁻¹) grows at −2 tr V", _clock_runs, 0.0, "none: the margin is what 2 % leaves"),
        Conclusion("tokens shrink like t^(−1/2)", _shrinking, 0.0, "none: the margin has room for order 1/t"),
        Conclusion(
            "the mean follows its cumulants", _mean_follows, 0.0, "none: the margin has room for order 1/t"
        ),
    ),
    horizon=400.0,
    prepare=of_order_one,
)


def _decays_as_computed(run: Run) -> Tensor:
    found = decay_rates(run.start.score, run.start.response, Generator().manual_seed(0))
    return 0.03 - (found.measured - found.computed).abs()


T9b = Row(
    id="T9b",
    family=Family(_random_stable, _exact_stable),
    sides={
        "size is non-negative": lambda m: against_zero(size(m)),
        "the mean is pulled to zero": _mean_pulled,
        "volume falls at the profile's pace": _volumes,
        "the profile is stable": lambda m: against_zero(m.constant("rho")[:, None]),
    },
    conclusions=(
        Conclusion(
            "deviations decay at the computed rate",
            _decays_as_computed,
            0.0,
            "none: the margin is what 0.03 leaves",
        ),
    ),
    horizon=1.0,
)


def _compared(run: Run, margins: Tensor) -> Tensor:
    """NaN for equal tokens, and within 3° of the threshold, where terms of higher order decide."""
    spread = _trace(covariance(_halves(run)[1][:, 1])) > 1e-12
    return torch.where(
        spread & (_excess(run.start).abs() > 0.1 * torch.linalg.det(run.start.score)), margins, torch.nan
    )


def _roundness_moves(run: Run) -> Tensor:
    now = roundness(covariance(_halves(run)[1]))
    return _compared(run, torch.sign(_excess(run.start)) * (now[:, 1] - now[:, 0]))


def _trace_falls(run: Run) -> Tensor:
    """d/dt (1/tr C) = 2a² − (a²−b²)ε: how far the mean slope lies inside the range that ε leaves it."""
    times, states = _halves(run)
    C = covariance(states)
    slope = (1 / _trace(C[:, 1]) - 1 / _trace(C[:, 0])) / (times[1] - times[0])
    ends = 2 * run.start.score[:, :1, 0] ** 2 - _excess(run.start)[:, None] * roundness(C)
    return _compared(run, torch.minimum(slope / ends.amin(1) - 1, 1 - slope / ends.amax(1)))


T9c = Row(
    id="T9c",
    family=Family(_random_turn, _exact_turn, dimension=2),
    sides={
        "the mean is pulled to zero": _mean_pulled,
        "size under the cubic flow": _plane(_size_rate),
        "area under the cubic flow": _plane(_area),
        "stretch under the cubic flow": _plane(_stretch_rate),
        "the threshold is 45°": _threshold,
    },
    conclusions=(
        Conclusion("rounder below 45°, flatter beyond", _roundness_moves, 1e-5, "the integrator's error"),
        Conclusion(
            "the trace falls as ε says", _trace_falls, 0.02, "the next order, 1/t beside the cubic one"
        ),
    ),
    horizon=400.0,
    prepare=of_order_one,
)
