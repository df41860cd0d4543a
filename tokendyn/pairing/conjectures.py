"""R1: squares that grow. C1: hunted on trajectories close to its bound."""

from collections.abc import Callable
from fractions import Fraction

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import Outcome, observables
from theory.system import Setting
from tokendyn.moment import Moment
from tokendyn.pairing.convergence import against_zero, vanishes
from tokendyn.row import Conclusion, Row, Run
from tokendyn.sampling import INTEGERS, Family, Keys, exact_form, exact_matrix, random_form, uniform

_PLAIN = Setting()
QUARTER = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)


def _slanted(slope: Tensor) -> Tensor:
    """[[1, −slope], [slope, 1]], (batch, 2, 2)."""
    return torch.eye(2, dtype=torch.float64) + slope[:, None, None] * QUARTER


def _square_family(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    steep = "steeper response" in keys
    a = uniform(batch, 1.1, 2.0, generator) if steep else uniform(batch, -2, 2, generator)
    b = a + uniform(batch, 0.1, 2.0, generator) if steep else uniform(batch, -2, 2, generator)
    W = _slanted(a) if "W normal form" in keys else random_form(frozenset(), "W", batch, 2, generator)
    A = -_slanted(b) if "A normal form" in keys else random_form(frozenset(), "A", batch, 2, generator)
    if "square start" not in keys:
        return {"score": W, "response": A}
    first = torch.randn(batch, 2, dtype=torch.float64, generator=generator)
    first = first / first.norm(dim=1, keepdim=True) * _large_radius(keys, a, b, generator)[:, None]
    corners = [first]
    for _ in range(3):
        corners.append(corners[-1] @ QUARTER.T)
    return {"score": W, "response": A, "tokens": torch.stack(corners, 1)}


def _large_radius(keys: Keys, a: Tensor, b: Tensor, generator: Generator) -> Tensor:
    """Radii with (b−a) sinh(au) > (1+ab) sinh u where keys ask for it: sinh(au)/sinh(u) ≥ e^{(a−1)u}."""
    free = uniform(len(a), 0.3, 1.5, generator)
    if not {"large square", "steeper response"} <= keys:
        return free
    return (((1 + a * b) / (b - a)).log().clamp(min=0) / (a - 1) + free).sqrt()


def _exact_square(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    a = Fraction(draw(st.sampled_from([4, 6]) if "steeper response" in keys else INTEGERS), 2)
    b = a + draw(st.integers(1, 3)) if "steeper response" in keys else Fraction(draw(INTEGERS))
    score, response = [[Fraction(1), -a], [a, Fraction(1)]], [[Fraction(-1), b], [-b, Fraction(-1)]]
    if "W normal form" not in keys:
        score = exact_form(draw, frozenset(), "W", 2)
    if "A normal form" not in keys:
        response = exact_form(draw, frozenset(), "A", 2)
    large = "large square" in keys
    if "square start" not in keys:
        return {"score": score, "response": response, "tokens": exact_matrix(draw, 4, 2, st.integers(-4, 4))}
    x = [Fraction(draw(st.integers(2, 4) if large else st.integers(0, 3))), Fraction(draw(st.integers(0, 3)))]
    assume(any(x))
    return {"score": score, "response": response, "tokens": [x, [-x[1], x[0]], [-x[0], -x[1]], [x[1], -x[0]]]}


def _minors(moment: Moment) -> tuple[Tensor, Tensor]:
    """The first entry of W and −A, and four times the determinants of their symmetric parts."""
    W, A = moment.score, moment.response
    parts = [W[:, 0, 0], _fourfold_determinant(W), -A[:, 0, 0], _fourfold_determinant(A)]
    return against_zero(torch.stack(parts, 1))


def _fourfold_determinant(M: Tensor) -> Tensor:
    return 4 * M[:, 0, 0] * M[:, 1, 1] - (M[:, 0, 1] + M[:, 1, 0]) ** 2


def _turned(moment: Moment) -> tuple[Tensor, Tensor]:
    v = moment.velocity
    return v[:, 1:].flatten(1), (moment.constant("c")[:, None, None] * v[:, :3] @ QUARTER.T).flatten(1)


def _outgrows(run: Run) -> Tensor:
    """Smallest relative growth of the squared radius between output times."""
    sizes = run.along(lambda moment: (moment.x**2).sum((1, 2))[:, None])[:, :, 0]
    return (sizes[:, 1:] / sizes[:, :-1] - 1).nan_to_num(nan=torch.inf).amin(1)


R1 = Row(
    id="R1",
    family=Family(_square_family, _exact_square, dimension=2, count=4),
    sides={
        "W and −A have positive definite symmetric parts": _minors,
        "V is Hurwitz": lambda m: against_zero(-m.constant("alpha")[:, None]),
        "the square grows": lambda m: against_zero(2 * (m.x * m.velocity).sum(-1)),
        "it stays a square": _turned,
    },
    conclusions=(Conclusion("the radius grows", _outgrows, 1e-9, "rounding of a ratio"),),
    horizon=2.0,
)


# C1


def _near_bound(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    """Antisymmetric parts scaled so that τ_W τ_A lies below 1, mostly just below; half the rows rotations."""
    W, A = (random_form(keys, name, batch, d, generator) for name in "WA")
    if d == 1:
        return {"score": W, "response": A}
    W, A = _with_rotations(W, keys, "W", generator), _with_rotations(A, keys, "A", generator)
    wanted = 1 - 10 ** uniform(batch, -3, -0.1, generator)
    if "antisymmetric parts bounded" not in keys:
        wanted = uniform(batch, 0.5, 3, generator)
    zero = torch.zeros(batch, 1, d, dtype=torch.float64)
    moment = Moment.of(_PLAIN, zero, score=W, response=A)
    tau = moment.constant("tau_W") * moment.constant("tau_A")
    factor = torch.where(tau > 0, wanted / tau, 1.0).nan_to_num(nan=1.0)
    symmetric = observables.symmetric_part(A)
    return {"score": W, "response": symmetric + factor[:, None, None] * (A - symmetric)}


def _with_rotations(M: Tensor, keys: Keys, name: str, generator: Generator) -> Tensor:
    """Half of the matrices replaced by ±(I + slope·J) in the first plane: R1's weights."""
    batch = len(M)
    plane = torch.eye(M.shape[1], dtype=torch.float64).repeat(batch, 1, 1)
    plane[:, :2, :2] = _slanted(uniform(batch, 0.5, 3, generator))
    sign = -1.0 if f"{name} negative" in keys else 1.0
    chosen = torch.rand(batch, generator=generator) < 0.5
    return torch.where(chosen[:, None, None], sign * plane, M)


def _exact_near_bound(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    score, response = exact_form(draw, keys, "W", d), exact_form(draw, keys, "A", d)
    if "antisymmetric parts bounded" in keys:
        response = _tamed(score, response)
    return {"score": score, "response": response}


def _tamed(score: list[list[Fraction]], response: list[list[Fraction]]) -> list[list[Fraction]]:
    """The response with its antisymmetric part divided by an integer large enough for τ_W τ_A < 1."""
    W, A = (torch.tensor([[[float(q) for q in row] for row in rows]]).double() for rows in (score, response))
    moment = Moment.of(_PLAIN, torch.zeros(1, 1, len(score)).double(), score=W, response=A)
    tau = (moment.constant("tau_W") * moment.constant("tau_A")).item()
    factor = int(tau) + 2 if tau == tau and tau >= 0.99 else 1
    size = range(len(response))
    return [
        [
            (response[i][j] + response[j][i]) / 2 + (response[i][j] - response[j][i]) / (2 * factor)
            for j in size
        ]
        for i in size
    ]


def _converges(run: Run) -> Tensor:
    """Whether the energy −½Σx_iᵀAx_i vanishes; −1 where tokens escape; NaN where it is too early to tell."""
    energies = -run.along(lambda m: observables.token_energy(m.x, m.response).sum(1, keepdim=True))[:, :, 0]
    margin = vanishes(energies)
    escaped = run.solution.outcome == Outcome.ESCAPED
    return torch.where(escaped, -1.0, torch.where(margin >= 0, margin, torch.nan))


def _large_polygons(moment: Moment) -> Moment:
    """Starts of size 0.5 to 4; a third of them regular polygons in the first plane, where d ≥ 2."""
    batch, n, d = moment.x.shape
    size = torch.linspace(0.5, 4, batch, dtype=torch.float64)[:, None, None]
    x = moment.x / observables.norms(moment.x).amax(1)[:, None, None].clamp(min=1e-9)
    if d > 1:
        angle = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
        polygon = torch.zeros_like(x)
        polygon[..., 0], polygon[..., 1] = angle.cos(), angle.sin()
        x[::3] = polygon[::3]
    return moment.at(size * x)


C1 = Row(
    id="C1",
    family=Family(_near_bound, _exact_near_bound),
    sides={
        "V is Hurwitz": lambda m: against_zero(-m.constant("alpha")[:, None]),
        "equal tokens decay": lambda m: (
            -m.constant("alpha")[:, None] * (1 + m.constant("tau_A")[:, None] ** 2),
            m.constant("lambda")[:, None] * (1 - m.constant("tau_W") * m.constant("tau_A"))[:, None],
        ),
    },
    conclusions=(
        Conclusion(
            "tokens vanish", _converges, 0.0, "none: a trajectory that neither vanishes nor escapes is open"
        ),
    ),
    horizon=200.0,
    prepare=_large_polygons,
    trajectories=300,
)
