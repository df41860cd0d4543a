"""T2, T3, T5, T6, T7, T11, R1, C1: random systems as the antisymmetric parts of W and A grow."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Page
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import LineStyleType
from torch import Generator, Tensor

from numerics import AttentionSystem, Event, Observable, Outcome, Quantity, families, integrate, observables
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import BLACK, CONVERGES, DIVERGES, TEXT

REGIMES = ("converged", "diverged", "neither", "unfinished")
SIGNS = {"-": -1, "+": 1}
"""Of A_s; W_s is positive definite."""
POINTS = {
    "T7": ([[0.6, -0.8], [0.8, 0.6]], [[-0.6, -0.8], [0.8, -0.6]], [[1.0, 0.0]] * 3),
    "R1": ([[1.0, -2.0], [2.0, 1.0]], [[-1.0, 3.0], [-3.0, -1.0]], [[4.0, 0.0], [-2.0, 3.0], [-2.0, -3.0]]),
}
"""W, A and the tokens of the counterexamples."""
POINTS_UNTIL = 40.0
T7_RATE, R1_NORM = 0.28, 1e8
"""Equal tokens grow at the real part of T7's eigenvalues; R1's tokens pass this norm by t = 40."""
ROUNDING = 1e-5
"""Of logarithms of norms and energies: about a thousand steps, each to a relative error of 1e-8."""
SHARE = "antisymmetric share of ${}$"
LINES: tuple[tuple[str, float, LineStyleType, str], ...] = (
    ("certified", 0.5, "solid", r"50 % certified: T11b in (a), T11 in (d), $M=\mp A_s$, float"),
    ("certified", 0.05, "dotted", "5 % certified so"),
    ("conjectured", 0.5, "dashed", r"50 % have $\tau_W\tau_A<1$ (C1, a conjecture)"),
    ("stable", 0.95, "dashdot", "95 % have a stable $V$ (T6)"),
)
"""Contours: a property, the fraction of a cell's systems that have it, the line and its name."""
PANELS = (
    ("-", ("converged",), r"$A_s \prec 0$: converged", CONVERGES, ("certified", "conjectured")),
    ("-", ("diverged",), r"$A_s \prec 0$: diverged", DIVERGES, ("conjectured", "stable")),
    ("-", ("neither", "unfinished"), r"$A_s \prec 0$: neither", "0.3", ("conjectured", "stable")),
    ("+", ("diverged",), r"$A_s \succ 0$: diverged", DIVERGES, ("certified",)),
)
"""Sign of A_s, regimes, title, colour, and properties whose contours are drawn."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate random systems in every cell of the plane of shares, for both signs of A_s."""
    generator = Generator().manual_seed(p["seed"])
    cells = [_strip(p, sign, share, generator, device) for sign in SIGNS for share in _shares(p)]
    return {"cells": stack(cells), "points": stack(_point(name, device) for name in POINTS)}


def _shares(p: Parameters) -> list[float]:
    return np.round(np.linspace(0, p["largest_share"], p["shares"]), 6).tolist()


def _strip(p: Parameters, sign: str, share_a: float, generator: Generator, device: torch.device) -> Table:
    """The cells with one share of A: systems by regime, and those among them with each property."""
    share_w = torch.tensor(_shares(p)).double().repeat_interleave(p["systems"])
    size, positive = len(share_w), p["d"] * (sign == "+")
    W, A = (
        families.random_form(
            size,
            p["d"],
            positive=plus,
            spectrum=tuple(p["spectrum"]),
            antisymmetric_share=share,
            generator=generator,
        )
        for plus, share in ((p["d"], share_w), (positive, share_a))
    )
    x = families.random_tokens(size, p["n"], p["d"], p["scale"], generator)
    system, M = AttentionSystem.from_response(W, A), SIGNS[sign] * (A + A.mT) / 2
    regime, peak, last_time = _simulate(p, system, x, M, device)
    certified, slack = _certify(system, x, M, SIGNS[sign], peak, last_time)
    properties = {
        "systems": regime >= 0,
        "certified": certified,
        "conjectured": _norm((W - W.mT) / 2, (W + W.mT) / 2) * _norm((A - A.mT) / 2, M) < 1,
        "stable": observables.spectral_abscissa(system.value) < 0,
    }
    cell = torch.arange(size) // p["systems"] * len(REGIMES) + regime
    count = len(_shares(p)) * len(REGIMES)
    least = torch.full((count,), torch.inf, dtype=torch.float64)
    return table(
        sign=sign,
        share_w=np.repeat(_shares(p), len(REGIMES)),
        share_a=share_a,
        regime=REGIMES * p["shares"],
        **{name: cell[having].bincount(minlength=count) for name, having in properties.items()},
        slack=least.scatter_reduce(0, cell[certified], slack[certified], "amin"),
    )


def _simulate(
    p: Parameters, system: AttentionSystem, x: Tensor, M: Tensor, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Index of the regime, largest ½x_iᵀMx_i up to the last time, and that time."""
    start = (x**2).sum(-1).amax(1)
    solution = integrate(
        system.to(device),
        x.to(device),
        until=p["until"],
        events=(Event(Quantity(), (start * p["diverged"] ** 2).to(device), terminal=True),),
        observe=(Observable(Quantity((M / 2).to(device))),),
        method="dormand-prince",
        max_steps=p["max_steps"],
    )
    outcome, end = solution.outcome.cpu(), (solution.states[:, -1].cpu() ** 2).sum(-1).amax(1)
    regime = torch.full((len(x),), REGIMES.index("unfinished"))
    regime[outcome == Outcome.REACHED] = REGIMES.index("neither")
    regime[end < start * p["converged"] ** 2] = REGIMES.index("converged")
    regime[outcome == Outcome.STOPPED] = REGIMES.index("diverged")
    return regime, solution.observed[:, 0].cpu(), solution.last_time.cpu()


def _certify(
    system: AttentionSystem, x: Tensor, M: Tensor, sign: int, peak: Tensor, last_time: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether T11 (T11b) speaks about a system and its start, and log peak / bound (bound / peak)."""
    margin = observables.pencil_minimum(system.score, M) - _norm(M @ system.value - sign * system.score, M)
    radius, energy = math.log(x.shape[1]) / (2 * margin), observables.token_energy(x, M).amax(1)
    if sign < 0:
        return margin > 0, (torch.maximum(energy, radius) / peak).log()
    grown = radius + (energy - radius) * (2 * margin * last_time).exp()
    return (margin > 0) & (energy > radius), (peak / grown).log()


def _norm(N: Tensor, M: Tensor) -> Tensor:
    """‖M^(−1/2) N M^(−1/2)‖, the smallest ν with [[νM, N], [Nᵀ, νM]] ⪰ 0."""
    root = torch.linalg.cholesky(M)
    half = torch.linalg.solve_triangular(root, N, upper=False)
    return torch.linalg.matrix_norm(torch.linalg.solve_triangular(root, half.mT, upper=False), 2)


def _point(name: str, device: torch.device) -> Table:
    W, A, x = (torch.tensor([part], dtype=torch.float64) for part in POINTS[name])
    system = AttentionSystem.from_response(W, A).to(device)
    solution = integrate(system, x.to(device), until=POINTS_UNTIL, method="dormand-prince", max_steps=10**6)
    norm = torch.linalg.vector_norm(solution.states[0, -1].cpu(), dim=-1).amax()
    share_w, share_a = (observables.antisymmetric_share(part) for part in (W, A))
    return table(point=name, share_w=share_w, share_a=share_a, norm=norm)


def check(data: Data, p: Parameters) -> None:
    """No system does what T2, T3, T5, T11 or C1 excludes; T7's and R1's tokens grow as they say."""
    cells = data["cells"]
    totals = cells["systems"].reshape(-1, len(REGIMES)).sum(1)
    if len(totals) != len(SIGNS) * p["shares"] ** 2 or (totals != p["systems"]).any():
        raise ContradictionError("cells: the counts of the regimes do not add up to the number of systems")
    edge = ((cells["share_w"] == 0) | (cells["share_a"] == 0)) * cells["systems"]
    for sign, regime, systems, excluded in (
        ("-", "diverged", edge, "one antisymmetric part is zero, which T2 and T5 exclude"),
        ("+", "converged", edge, "one antisymmetric part is zero, which T3 and T5 exclude"),
        ("+", "converged", cells["certified"], "T11 certifies divergence"),
        ("-", "diverged", cells["conjectured"], "τ_W τ_A < 1, which C1 excludes"),
    ):
        if systems[(cells["sign"] == sign) & (cells["regime"] == regime)].any():
            raise ContradictionError(f"A_s of sign {sign}: a system {regime} where {excluded}")
    worst = np.argmin(cells["slack"])
    if cells["slack"][worst] < -ROUNDING:
        sign, w, a = (cells[name][worst] for name in ("sign", "share_w", "share_a"))
        raise ContradictionError(f"A_s of sign {sign}, shares {w:g} and {a:g}: an energy breaks T11's bound")
    norm = dict(zip(data["points"]["point"], data["points"]["norm"], strict=True))
    if abs(math.log(norm["T7"]) - T7_RATE * POINTS_UNTIL) > ROUNDING:
        raise ContradictionError(f"T7: equal tokens do not grow at the rate {T7_RATE}")
    if not norm["R1"] > R1_NORM:
        raise ContradictionError(f"R1: its tokens have not passed norm {R1_NORM:g}")


def draw(data: Data, p: Parameters) -> Page:
    """Fractions over the plane of shares: three regimes for A_s ≺ 0, divergence for A_s ≻ 0."""
    page = Page(figsize=(TEXT, 6.5))
    for axes, letter, panel in zip(page.subplots(2, 2).flat, "abcd", PANELS, strict=True):
        sign, regimes, title, colour, properties = panel
        cells = rows(data["cells"], data["cells"]["sign"] == sign)
        _map(page, axes, _fraction(cells, p, "systems", regimes), colour, p)
        for name, level, line, _ in LINES:
            if name in properties:
                fraction = _fraction(cells, p, name)
                axes.contour(_shares(p), _shares(p), fraction, [level], colors=BLACK, linestyles=line)
        axes.set(title=f"({letter}) {title}", xlabel=SHARE.format("W"), ylabel=SHARE.format("A"))
        if letter in "ad":
            _strips(axes, p, "T2" if sign == "-" else "T3")
        if letter == "b":
            _points(axes, data["points"])
    handles = [Line2D([], [], color=BLACK, linestyle=line, label=label) for *_, line, label in LINES]
    page.legend(handles=handles, loc="outside lower center", ncols=2)
    return page


def _fraction(cells: Table, p: Parameters, name: str, regimes: tuple[str, ...] = REGIMES) -> np.ndarray:
    """(share of A, share of W): the fraction of a cell's systems with the property, in these regimes."""
    counts = np.where(np.isin(cells["regime"], regimes), cells[name], 0)
    return counts.reshape(p["shares"], p["shares"], -1).sum(2) / p["systems"]


def _half(p: Parameters) -> float:
    return p["largest_share"] / (p["shares"] - 1) / 2


def _map(page: Page, axes: Axes, fraction: np.ndarray, colour: str, p: Parameters) -> None:
    reach = (-_half(p), p["largest_share"] + _half(p))
    colours = LinearSegmentedColormap.from_list("", ["white", colour])
    image = axes.imshow(fraction, colours, origin="lower", extent=(*reach, *reach), vmin=0, vmax=1)
    page.colorbar(image, ax=axes, shrink=0.7, aspect=25, label="fraction of systems")


def _strips(axes: Axes, p: Parameters, below: str) -> None:
    """Frames around the cells with a zero share, named by the theorem that covers them."""
    low, side = -_half(p), 2 * _half(p)
    full = p["largest_share"] + side
    for width, height in ((full, side), (side, full)):
        axes.add_patch(Rectangle((low, low), width, height, fill=False, clip_on=False, linewidth=1.5))
    for x, y, name in ((0.5, side / 2 + 0.03, below), (side / 2 + 0.02, 0.7, "T5")):
        axes.text(x, y, name, ha="left", va="center", color="white", weight="bold")


def _points(axes: Axes, points: Table) -> None:
    for name, w, a in zip(points["point"], points["share_w"], points["share_a"], strict=True):
        axes.plot(w, a, marker="D", color="white", markeredgecolor=BLACK)
        axes.annotate(name, (w, a), (0, -5), textcoords="offset points", ha="center", va="top", weight="bold")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    cells = data["cells"]
    below, regime = cells["sign"] == "-", cells["regime"]
    systems, stable = cells["systems"], cells["stable"]
    total, late, unfinished = (
        int(systems[where].sum()) for where in (below, below & (regime == "neither"), regime == "unfinished")
    )
    counterexamples = int(stable[below & (regime == "diverged")].sum())
    low, high = p["spectrum"]
    return (
        rf"{p['systems']} random systems in each cell, $n={p['n']}$, $d={p['d']}$, $W_s\succ0$; eigenvalues "
        rf"of $W_s$ and $\pm A_s$ are uniform in $[{low:g},{high:g}]$, tokens Gaussian with standard "
        rf"deviation {p['scale']:g} (seed {p['seed']}); the antisymmetric share is $\|M_a\|_F/\|M\|_F$. "
        rf"Simulated to $t={p['until']:g}$. Converged: $\max_i\|x_i\|$ ends below {p['converged']:g} of its "
        r"start (where T9 applies it decays like $t^{-1/2}$). Diverged: it passes "
        rf"{p['diverged']:g} times its start. (c) The rest: {late} of {total} systems are in between, "
        rf"{int(stable[below & (regime == 'neither')].sum())} of them with a stable $V$; in {unfinished} "
        r"systems of both signs the steps ran out. Framed: the cells that T2, T3 and T5 cover, for every "
        r"start. Lines: fractions of the systems of a cell, in floating point; certified means bounded by "
        r"T11b (a), divergent from the given start by T11 (d). C1 is a conjecture, not refuted in "
        rf"{int(cells['conjectured'][below].sum())} systems. By T6 a stable $V$ is necessary for convergence "
        rf"from every start. Of the systems with a stable $V$ and $A_s\prec0$, {counterexamples} diverged "
        r"here; R1 is one that does, from special tokens, T7 one with an unstable $V$ ($d=2$). "
        rf"(d) {int(systems[~below & (regime == 'diverged')].sum())} of {total} systems diverged."
    )


FIGURE = Figure(
    name="regime_map",
    title="What random systems do as the antisymmetric parts of W and A grow",
    statements=("T2", "T3", "T5", "T6", "T7", "T11", "T11b", "R1", "C1"),
    parameters={
        "seed": 1,
        "n": 8,
        "d": 4,
        "spectrum": [0.5, 2.0],
        "scale": 1.0,
        "shares": 20,
        "largest_share": 0.95,
        "systems": 128,
        "until": 500.0,
        "max_steps": 20_000,
        "converged": 0.15,
        "diverged": 10.0,
    },
    quick={"shares": 5, "systems": 16, "until": 200.0, "max_steps": 5000},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
