"""T15: several heads that share one response matrix."""

from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import Outcome, observables
from numerics.families import GRID
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero, energy, energy_rate, of_order_one, vanishes
from tokendyn.pairing.divergence import escapes
from tokendyn.pairing.pairwise import monotone
from tokendyn.pairing.thresholds import token_energies
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import Family, Keys, exact_form, exact_matrix, random_form

# Claims


def _factors(moment: Moment) -> Tensor:
    """c_h, (batch, heads)."""
    second = moment.constant("c_2")
    return torch.stack([torch.ones_like(second), second], 1)


def _attended(moment: Moment) -> Tensor:
    """Σ_h c_h Σ_i e_i^h, (batch, 1)."""
    per_head = observables.attended_score(moment.system, moment.x).sum(-1)
    return (_factors(moment) * per_head).sum(1, keepdim=True)


def _mean_total_score(moment: Moment) -> Tensor:
    """c (Σx_i)ᵀ T (Σx_i)/n with T = Σ_h c_h W_h, (batch, 1)."""
    together = (_factors(moment)[..., None, None] * moment.system.score).sum(1)
    score = 2 * observables.token_energy(moment.x.sum(1, keepdim=True), together)
    return moment.constant("c")[:, None] * score / moment.n


def _of_each_token(moment: Moment) -> tuple[Tensor, Tensor]:
    rate = observables.token_energy_rate(moment.x, moment.velocity, moment.response)
    allowance = moment.constant("kappa") * _factors(moment).sum(1)
    return rate, 2 * moment.constant("lambda")[:, None] * token_energies(moment) - allowance[:, None]


# Trajectories


def _one_way(run: Run) -> Tensor:
    return monotone(run.along(energy), torch.ones_like(run.start.constant("sigma")))


def _fate(run: Run) -> Tensor:
    """σ = 1: a threshold is crossed; σ = −1: the energy vanishes. The equilibrium stays."""
    converging = (run.start.constant("sigma") < 0) & (run.solution.outcome == Outcome.REACHED)
    at_rest = (run.start.x == 0).flatten(1).all(1)
    fate = torch.where(converging, vanishes(-run.along(energy)[:, :, 0]), escapes(run))
    return torch.where(at_rest, 1.0, fate)


# Family: T = W_1 + c_2W_2 and V_2 are free, and the rest follows from A V_2 = c_2 W_2


def _together(keys: Keys) -> Keys:
    return frozenset({"W positive"} if "heads positive together" in keys else set())


def _random(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """On grids and with powers of two for c_2, so that nothing here is rounded."""

    def gaussian() -> Tensor:
        return (torch.randn(batch, d, d, dtype=torch.float64, generator=generator) * GRID).round() / GRID

    A = (random_form(keys, "A", batch, d, generator) * GRID).round() / GRID
    T = (random_form(_together(keys), "W", batch, d, generator) * GRID**2).round() / GRID**2
    factor = 2.0 ** torch.randint(-2, 2, (batch, 1, 1), generator=generator).double()
    if "coefficients non-negative" not in keys:
        factor = factor * torch.where(torch.rand(batch, 1, 1, generator=generator) < 0.5, -1.0, 1.0)
    idle = torch.rand(batch, 1, 1, generator=generator) < 0.05
    V_2 = torch.where(idle, 0.0, gaussian() / 2)
    W_2 = torch.where(idle, gaussian(), A @ V_2 / factor)
    factor = torch.where(idle, 0.0, factor)
    if "heads tied" not in keys:
        V_2 = gaussian()
    return {"score": T - factor * W_2, "response": A, "W_2": W_2, "V_2": V_2, "coefficient": factor}


FACTORS = st.sampled_from([Fraction(1), Fraction(0), Fraction(2), Fraction(1, 2)])


def _exact(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    A, T = exact_form(draw, keys, "A", d), exact_form(draw, _together(keys), "W", d)
    factor, free = draw(FACTORS), exact_matrix(draw, d, d)
    if "coefficients non-negative" not in keys:
        factor -= 2
    product = [[sum(A[i][k] * free[k][j] for k in range(d)) for j in range(d)] for i in range(d)]
    V_2 = free if factor else exact_matrix(draw, d, d, st.just(0))
    W_2 = [[q / factor for q in row] for row in product] if factor else free
    if "heads tied" not in keys:
        V_2 = exact_matrix(draw, d, d)
    score = [[T[i][j] - factor * W_2[i][j] for j in range(d)] for i in range(d)]
    return {"score": score, "response": A, "W_2": W_2, "V_2": V_2, "coefficient": factor}


T15 = Row(
    id="T15",
    family=Family(_random, _exact),
    sides={
        "energies are non-negative": lambda m: against_zero(token_energies(m)),
        "energy balance": lambda m: (energy_rate(m), _attended(m)),
        "energy moves one way": lambda m: against_zero(energy_rate(m)),
        "by how much": lambda m: (energy_rate(m), _mean_total_score(m)),
        "energy of each token": _of_each_token,
    },
    conclusions=(
        Conclusion("energy moves one way", _one_way, 1e-7, "the integrator's error per output time"),
        Conclusion("tokens vanish or cross 1e4", _fate, 0.0, "none: see T2 and T3"),
    ),
    horizon=400.0,
    prepare=of_order_one,
)
