"""T2, T3, T5, T6, T7, T11, R1, C1: random systems as the antisymmetric parts of W and A grow."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize
from matplotlib.figure import Figure as Page
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.typing import LineStyleType
from torch import Generator, Tensor

from numerics import AttentionSystem, Event, Observable, Outcome, Quantity, families, integrate, observables
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
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
    ("-", "converged", r"$A_s \prec 0$: converged", CONVERGES, ("certified", "conjectured")),
    ("-", "diverged", r"$A_s \prec 0$: diverged", DIVERGES, ("conjectured", "stable")),
    ("-", "neither", r"$A_s \prec 0$: neither", "0.3", ("conjectured", "stable")),
    ("+", "diverged", r"$A_s \succ 0$: time to diverge", DIVERGES, ("certified",)),
)
"""Sign of A_s, regime, title, colour, and properties whose contours are drawn."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate random systems in every cell of the plane of shares, for both signs of A_s."""
    generator = Generator().manual_seed(p["seed"])
    strips = [_strip(p, sign, share, generator, device) for sign in SIGNS for share in _shares(p)]
    return {"systems": stack(strips), "points": stack(_point(name, device) for name in POINTS)}


def _shares(p: Parameters) -> list[float]:
    return np.round(np.linspace(0, p["largest_share"], p["shares"]), 6).tolist()


def _strip(p: Parameters, sign: str, share_a: float, generator: Generator, device: torch.device) -> Table:
    """The systems with one share of A: what they did until which time, and their properties."""
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
    system, M = AttentionSystem.from_response(W, A), SIGNS[sign] * observables.symmetric_part(A)
    regime, peak, last_time = _simulate(p, system, x, M, device)
    certified, slack = _certify(system, x, M, SIGNS[sign], peak, last_time)
    W_s = observables.symmetric_part(W)
    return table(
        sign=sign,
        share_w=share_w,
        share_a=share_a,
        regime=np.array(REGIMES)[regime],
        until=last_time,
        certified=certified,
        slack=torch.where(certified, slack, 0.0),
        tau=_norm(W - W_s, W_s) * _norm(A - SIGNS[sign] * M, M),
        stable=observables.spectral_abscissa(system.value) < 0,
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
    kappa, energy = observables.free_energy_gap(x.shape[1]), observables.token_energy(x, M).amax(1)
    radius = kappa / (2 * margin)
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
    times = torch.tensor([0.0, POINTS_UNTIL]).double()
    system = AttentionSystem.from_response(W, A)
    states = simulate(system, x, times, device, method="dormand-prince", max_steps=10**6)
    norm = observables.norms(states[:, -1]).max()
    share_w, share_a = (observables.antisymmetric_share(part) for part in (W, A))
    return table(point=name, share_w=share_w, share_a=share_a, norm=norm)


def check(data: Data, p: Parameters) -> None:
    """No system does what T2, T3, T5, T11 or C1 excludes; T7's and R1's tokens grow as they say."""
    systems = data["systems"]
    edge, conjectured = _edge(systems), systems["tau"] < 1
    for sign, regime, those, excluded in (
        ("-", "diverged", edge, "one antisymmetric part is zero, which T2 and T5 exclude"),
        ("+", "converged", edge, "one antisymmetric part is zero, which T3 and T5 exclude"),
        ("+", "converged", systems["certified"], "T11 certifies divergence"),
        ("-", "diverged", conjectured, "τ_W τ_A < 1, which C1 excludes"),
    ):
        if (those & (systems["sign"] == sign) & (systems["regime"] == regime)).any():
            raise ContradictionError(f"A_s of sign {sign}: a system {regime} where {excluded}")
    kept = systems["slack"] >= -ROUNDING
    if not kept.all():
        sign, w, a = (systems[name][kept.argmin()] for name in ("sign", "share_w", "share_a"))
        raise ContradictionError(f"A_s of sign {sign}, shares {w:g} and {a:g}: an energy breaks T11's bound")
    norm = dict(zip(data["points"]["point"], data["points"]["norm"], strict=True))
    if not abs(math.log(norm["T7"]) - T7_RATE * POINTS_UNTIL) <= ROUNDING:
        raise ContradictionError(f"T7: equal tokens do not grow at the rate {T7_RATE}")
    if not norm["R1"] > R1_NORM:
        raise ContradictionError(f"R1: its tokens have not passed norm {R1_NORM:g}")


def _edge(systems: Table) -> np.ndarray:
    """Those that T2, T3 and T5 cover."""
    return (systems["share_w"] == 0) | (systems["share_a"] == 0)


def draw(data: Data, p: Parameters) -> Page:
    """Over the plane of shares: fractions of three regimes for A_s ≺ 0, the time to diverge for A_s ≻ 0."""
    page = Page(figsize=(TEXT, 6.5))
    for axes, letter, panel in zip(page.subplots(2, 2).flat, "abcd", PANELS, strict=True):
        sign, regime, title, colour, properties = panel
        systems = rows(data["systems"], data["systems"]["sign"] == sign)
        _map(page, axes, systems, regime, colour, p)
        having = {"certified": systems["certified"], "conjectured": systems["tau"] < 1}
        having["stable"] = systems["stable"]
        for name, level, line, _ in LINES:
            if name in properties:
                fraction = _cells(having[name], p).mean(2)
                axes.contour(_shares(p), _shares(p), fraction, [level], colors=BLACK, linestyles=line)
        axes.set(title=f"({letter}) {title}", xlabel=SHARE.format("W"), ylabel=SHARE.format("A"))
        if letter in "ad":
            _strips(axes, p, *(("T2", "white") if sign == "-" else ("T3", BLACK)))
        if letter == "b":
            _points(axes, data["points"])
    handles = [Line2D([], [], color=BLACK, linestyle=line, label=label) for *_, line, label in LINES]
    page.legend(handles=handles, loc="outside lower center", ncols=2)
    return page


def _cells(column: np.ndarray, p: Parameters) -> np.ndarray:
    """(share of A, share of W, systems)."""
    return column.reshape(p["shares"], p["shares"], p["systems"])


def _half(p: Parameters) -> float:
    return p["largest_share"] / (p["shares"] - 1) / 2


def _map(page: Page, axes: Axes, systems: Table, regime: str, colour: str, p: Parameters) -> None:
    """Fractions for A_s ≺ 0, with those that did not finish under "neither"; median times for A_s ≻ 0."""
    reach = (-_half(p), p["largest_share"] + _half(p))
    colours = LinearSegmentedColormap.from_list("", ["white", colour])
    found = systems["regime"] == regime
    if systems["sign"][0] == "+":
        shown, label = np.median(_cells(np.where(found, systems["until"], np.inf), p), 2), "median time"
        colours, norm, ticks = colours.reversed(), LogNorm(), [0.5, 1, 2, 4, 8, 16]
    else:
        found |= (systems["regime"] == "unfinished") & (regime == "neither")
        shown, label, norm, ticks = _cells(found, p).mean(2), "fraction of systems", Normalize(0, 1), None
    image = axes.imshow(shown, colours, norm, origin="lower", extent=(*reach, *reach))
    bar = page.colorbar(image, ax=axes, shrink=0.7, aspect=25, label=label, ticks=ticks, format="%g")
    bar.minorticks_off()


def _strips(axes: Axes, p: Parameters, below: str, colour: str) -> None:
    """Frames around the cells with a zero share, named by the theorem that covers them."""
    low, side = -_half(p), 2 * _half(p)
    full = p["largest_share"] + side
    for width, height in ((full, side), (side, full)):
        axes.add_patch(Rectangle((low, low), width, height, fill=False, clip_on=False, linewidth=1.5))
    for x, y, name in ((0.5, side / 2 + 0.03, below), (side / 2 + 0.02, 0.7, "T5")):
        axes.text(x, y, name, ha="left", va="center", color=colour, weight="bold")


def _points(axes: Axes, points: Table) -> None:
    for name, w, a in zip(points["point"], points["share_w"], points["share_a"], strict=True):
        axes.plot(w, a, marker="D", color=BLACK, markeredgecolor="white")
        place = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        axes.annotate(f"{name} ($d=2$)", (w, a), weight="bold", **place)


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    systems = data["systems"]
    below, regime, conjectured = systems["sign"] == "-", systems["regime"], systems["tau"] < 1
    late, converged, diverged = (regime == name for name in ("neither", "converged", "diverged"))
    unfinished, stable = int((regime == "unfinished").sum()), below & systems["stable"]
    total, framed = int(below.sum()), below & late & _edge(systems)
    undecided = below & conjectured & ~converged
    margin = 1 - systems["tau"][undecided].max(initial=0)
    closest = rf" (the smallest $1-\tau_W\tau_A$ among these is ${margin:.2g}$)" if undecided.any() else ""
    low, high = p["spectrum"]
    return (
        rf"{p['systems']} random systems in each cell, $n={p['n']}$, $d={p['d']}$, $W_s\succ0$; eigenvalues "
        rf"of $W_s$ and $\pm A_s$ are uniform in $[{low:g},{high:g}]$, tokens Gaussian with standard "
        rf"deviation {p['scale']:g} (seed {p['seed']}); the antisymmetric share is $\|M_a\|_F/\|M\|_F$. "
        rf"Simulated to $t={p['until']:g}$. Converged: $\max_i\|x_i\|$ ends below {p['converged']:g} of its "
        r"start. Diverged: it passes "
        rf"{p['diverged']:g} times its start. (c) The rest: {(below & late).sum()} of {total} systems are in "
        rf"between, {(stable & late).sum()} of them with a stable $V$; in {unfinished} systems of both signs "
        r"the steps ran out. Framed: the cells that T2, T3 and T5 cover, for every start; "
        rf"{framed.sum()} systems in those of T2 and T5 are still in between (where T9 applies the decay is "
        r"slow, like $t^{-1/2}$). Lines: fractions of the systems of a cell, in floating point; certified "
        r"means ultimately bounded by T11b (a), divergent from the given start, beyond $\kappa_n/(2\eta)$, "
        rf"by T11 (d). C1 is a conjecture: of {(below & conjectured).sum()} systems with $\tau_W\tau_A<1$, "
        rf"{(below & conjectured & converged).sum()} converged, {undecided.sum()} are undecided{closest} and "
        r"none diverged. By T6 a stable $V$ is necessary for convergence from every start. Of the systems "
        rf"with a stable $V$ and $A_s\prec0$, {(stable & diverged).sum()} diverged here; R1 is one that "
        r"does, from special tokens, T7 one with an unstable $V$, both with $d=2$. "
        rf"(d) {(~below & diverged).sum()} of {total} systems diverged; colour: the median time."
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
