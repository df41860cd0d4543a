"""T1, T2, T3: tokens in one, two and three dimensions as A has all, half or no eigenvalues positive."""

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.ticker import LogLocator, NullLocator

from numerics import AttentionSystem
from numerics.families import random_form, random_tokens
from numerics.layerwise import positive_eigenvalues
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.forms import pair_forms, require_growth
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, GREY, SCENARIOS, TEXT

TITLES = {"pd": r"pd: $A \succ 0$", "hd": "hd: $A$ indefinite", "nd": r"nd: $A \prec 0$"}
COORDINATES = ("x1", "x2", "x3")
ROUNDING = 1e-7
"""Of a form, relative to ‖A‖ max_i ‖x_i‖² at that time: the integrator's tolerance is 1e-8."""


def cases(dimensions: list[int]) -> list[tuple[int, str]]:
    """Dimensions with their scenarios; one eigenvalue has no half."""
    return [(d, name) for d in dimensions for name in SCENARIOS if (d, name) != (1, "hd")]


def compute(p: Parameters, device: torch.device) -> Data:
    """For each dimension one W and one start; the scenarios differ in the signs of A's eigenvalues."""
    parts = [compute_run(p, d, name, device) for d, name in cases(p["dimensions"])]
    return {"systems": stack(system for system, _ in parts), "paths": stack(path for _, path in parts)}


def compute_run(p: Parameters, d: int, scenario: str, device: torch.device) -> tuple[Table, Table]:
    """The entries of W and A, and the tokens at all times (coordinates beyond d are 0)."""
    generator = torch.Generator().manual_seed(p["seed"])
    share = p["antisymmetric_share"] if d > 1 else 0.0
    W = random_form(
        1, d, positive=d, spectrum=p["score_spectrum"], antisymmetric_share=share, generator=generator
    )
    start = random_tokens(1, p["n"], d, p["scale"], generator)
    positive = positive_eigenvalues(scenario, d)
    A = random_form(1, d, positive=positive, spectrum=p["response_spectrum"], generator=generator)
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    states = simulate(AttentionSystem.from_response(W, A), start, times, device)[0]
    states = torch.nn.functional.pad(states, (0, len(COORDINATES) - d))
    row, column = np.indices((d, d))
    entries = table(d=d, scenario=scenario, row=row, column=column, score=W[0], response=A[0])
    token = np.arange(p["n"])
    coordinates = {name: states[..., k] for k, name in enumerate(COORDINATES)}
    return entries, table(d=d, scenario=scenario, t=times[:, None], token=token, **coordinates)


def run(data: Data, d: int, scenario: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Times (times,), tokens (times, n, d), W and A of one run."""
    entries, path = (
        rows(part, (part["d"] == d) & (part["scenario"] == scenario))
        for part in (data["systems"], data["paths"])
    )
    t = np.unique(path["t"])
    x = np.stack([path[name] for name in COORDINATES[:d]], -1).reshape(len(t), -1, d)
    return t, x, entries["score"].reshape(d, d), entries["response"].reshape(d, d)


def check(data: Data, p: Parameters) -> None:
    """T1 for every A; T2 and T3: ½ Σ x_iᵀAx_i increases, the largest norm falls (nd) or grows (pd)."""
    for d, scenario in cases(p["dimensions"]):
        check_run(*run(data, d, scenario), scenario)


def check_run(t: np.ndarray, x: np.ndarray, W: np.ndarray, A: np.ndarray, scenario: str) -> None:
    """ContradictionError if tokens contradict or do not show T1, T2 or T3, or A or W_s has other signs."""
    d = len(A)
    where = f"d = {d}, {scenario}"
    positive = (np.linalg.eigvalsh(A) > 0).sum()
    if positive != positive_eigenvalues(scenario, d) or not (np.linalg.eigvalsh(W + W.T) > 0).all():
        raise ContradictionError(f"{where}: the eigenvalues of W_s and A are not those of this scenario")
    size = np.linalg.norm(x, axis=2).max(1)
    require_growth(pair_forms(x, A), ROUNDING * np.linalg.norm(A, 2) * size[1:, None] ** 2, where)
    if not (np.diff(np.einsum("tia,ab,tib->t", x, A, x) / 2) > 0).all():
        statement = {"pd": "T3", "hd": "L1 with L4", "nd": "T2"}[scenario]
        raise ContradictionError(f"{where}: ½ Σ x_iᵀAx_i does not increase strictly, as {statement} has it")
    if scenario == "pd" and not size[-1] > size[0]:
        raise ContradictionError(f"{where}: the largest norm has not grown, T3 is not shown")
    if scenario == "nd" and not size[-1] < size[0]:
        raise ContradictionError(f"{where}: the largest norm has not fallen, T2 is not shown")


def draw(data: Data, p: Parameters) -> Page:
    """A row for each dimension: the three scenarios, and the norms of all their tokens."""
    count = len(p["dimensions"])
    page = Page(figsize=(TEXT, 1.9 * count))
    for row, d in enumerate(p["dimensions"]):
        norms = page.add_subplot(count, 4, 4 * row + 4)
        for column, scenario in enumerate(SCENARIOS):
            kind = "3d" if d == 3 else "rectilinear"
            axes = page.add_subplot(count, 4, 4 * row + column + 1, projection=kind)
            if (d, scenario) not in cases(p["dimensions"]):
                axes.axis("off")
                axes.text(0.5, 0.5, "hd needs\n$d \\geq 2$", ha="center", va="center", color="0.4")
                continue
            t, x, _, _ = run(data, d, scenario)
            _norms(norms, t, x, scenario)
            keep = np.linalg.norm(x, axis=2).max(1) <= p["reach"]
            _trajectories(axes, t[keep], x[keep])
            axes.set_title(f"{TITLES[scenario]}, $t \\leq {t[keep][-1]:.1f}$")
        norms.set(yscale="log", xlabel="$t$", title=rf"$\|x_i\|$, $d = {d}$", xlim=(0, p["until"]))
        norms.yaxis.set_major_locator(LogLocator(numticks=7))
        norms.yaxis.set_minor_locator(NullLocator())
    return page


def _norms(axes: Axes, t: np.ndarray, x: np.ndarray, scenario: str) -> None:
    size = np.linalg.norm(x, axis=2)
    axes.plot(t, size, color=SCENARIOS[scenario], linewidth=0.8)
    axes.text(1.02 * t[-1], size[-1].max(), scenario, color=SCENARIOS[scenario], va="center")


def _trajectories(axes: Axes, t: np.ndarray, x: np.ndarray) -> None:
    """From start (open) to end (filled); against time if tokens are numbers."""
    d = x.shape[2]
    for token in np.moveaxis(x, 1, 0):
        path = np.stack([t, token[:, 0]] if d == 1 else list(token.T))
        (line,) = axes.plot(*path, linewidth=1)
        axes.plot(*path[:, :1], "o", ms=3.2, color=line.get_color(), markerfacecolor="white")
        axes.plot(*path[:, -1:], "o", ms=3.2, color=line.get_color())
    if d == 1:
        axes.axhline(0, color=GREY, linewidth=0.7, zorder=0)
        axes.set(xlabel="$t$", ylabel="$x$")
        return
    axes.plot(*[[0]] * d, marker="+", markersize=7, color=BLACK, zorder=0)
    if d == 2:
        axes.set(xlabel="$x^{(1)}$", ylabel="$x^{(2)}$")
        axes.set_aspect("equal", adjustable="datalim")
    else:
        _cube(axes, x)


def _cube(axes: Any, x: np.ndarray) -> None:
    """The smallest cube about the paths and the origin, with the coordinate axes and shadows on its floor."""
    low, high = np.minimum(x.min((0, 1)), 0), np.maximum(x.max((0, 1)), 0)
    half = 0.55 * (high - low).max()
    low, high = (low + high) / 2 - half, (low + high) / 2 + half
    for k, name in enumerate("xyz"):
        axes.set(**{f"{name}lim": (low[k], high[k]), f"{name}ticks": []})
        ends = np.zeros((3, 2))
        ends[k] = low[k], high[k]
        axes.plot(*ends, color="0.5", linewidth=0.7, zorder=0)
    axes.set_xlabel("$x^{(1)}$", labelpad=-16)
    axes.set_ylabel("$x^{(2)}$", labelpad=-16)
    axes.text(0, 0, high[2], "$x^{(3)}$", ha="right", va="center")
    for token in np.moveaxis(x, 1, 0):
        axes.plot(token[:, 0], token[:, 1], low[2], color="0.8", linewidth=1, zorder=0)
    axes.set_box_aspect(None, zoom=1.25)
    axes.text2D(0.5, -0.2, f"edge of the cube: {2 * half:.1f}", transform=axes.transAxes, ha="center")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    sizes = {case: np.linalg.norm(run(data, *case)[1], axis=2).max(1) for case in cases(p["dimensions"])}
    grown = min(size[-1] / size[0] for (_, name), size in sizes.items() if name == "pd")
    fallen = min(size[0] / size[-1] for (_, name), size in sizes.items() if name == "nd")
    dimensions = ", ".join(map(str, p["dimensions"]))
    return (
        rf"Simulated paths of ${p['n']}$ tokens from start (open) to end (filled) in $d = {dimensions}$ "
        r"dimensions, $W_s \succ 0$, $A = A^\top$ with all (pd), $\lfloor d/2 \rfloor$ (hd) or no (nd) "
        r"eigenvalues positive; within a row the starts, $W$ and the moduli of $A$'s eigenvalues are the "
        rf"same. Paths are drawn until $t = {p['until']:g}$ or until $\max_i \|x_i\|$ passes "
        rf"{p['reach']:g}. Cross: the origin; grey curves: shadows on the floor. Right: all norms. By $t "
        rf"= {p['until']:g}$ the largest has grown by a factor of {np.floor(grown):g} or more in pd, "
        rf"where T3 says that it diverges, and fallen by a factor of {np.floor(10 * fallen) / 10:g} or "
        r"more in nd, where T2 says that all tokens tend to 0. For hd only T1 is claimed: no $A$-form of a "
        r"pair decreases. " + sampling(p, p["dimensions"])
    )


def sampling(p: Parameters, dimensions: list[int]) -> str:
    """LaTeX: how systems and starts were drawn; one number has no antisymmetric part."""
    where = " where $d > 1$" if 1 in dimensions else ""
    score, response = ("[{:g}, {:g}]".format(*p[f"{name}_spectrum"]) for name in ("score", "response"))
    return (
        rf"Eigenvalues of $W_s$ in ${score}$, moduli of those of $A$ in ${response}$, $\|W_a\|_F = "
        rf"{p['antisymmetric_share']:g} \|W\|_F${where}, Gaussian starts of standard deviation "
        rf"{p['scale']:g}, seed {p['seed']}."
    )


FIGURE = Figure(
    name="scenarios",
    title="Tokens in one, two and three dimensions as A has all, half or no eigenvalues positive",
    statements=("T2", "T3", "T1"),
    parameters={
        "dimensions": [1, 2, 3],
        "n": 6,
        "scale": 1.0,
        "score_spectrum": [0.4, 1.2],
        "response_spectrum": [0.5, 2.0],
        "antisymmetric_share": 0.3,
        "until": 10.0,
        "samples": 500,
        "reach": 6.0,
        "seed": 11,
    },
    quick={"samples": 100},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
