"""T1, T2, T3: a movie of the same tokens in the plane as A has all, half or no eigenvalues positive."""

import numpy as np
import torch
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.patches import Circle

from paper_figures.fig_scenarios import TITLES, check_run, compute_run, run, sampling
from paper_figures.figure import Data, Figure, Parameters, stack
from paper_figures.style import BLACK, SCENARIOS, TEXT

DIMENSION = 2
MARGIN = 1.25
"""Half the width of a panel over the largest norm so far."""


def compute(p: Parameters, device: torch.device) -> Data:
    """One W and one start; the scenarios differ in the signs of A's eigenvalues."""
    parts = [compute_run(p, DIMENSION, name, device) for name in SCENARIOS]
    return {"systems": stack(system for system, _ in parts), "paths": stack(path for _, path in parts)}


def check(data: Data, p: Parameters) -> None:
    """T1 for every A; T2 and T3: ½ Σ x_iᵀAx_i increases, the largest norm falls (nd) or grows (pd)."""
    for scenario in SCENARIOS:
        check_run(*run(data, DIMENSION, scenario), scenario)


def draw(data: Data, p: Parameters) -> Page:
    """Stills of the movie: a row for each scenario."""
    page = Page(figsize=(TEXT, 5.6))
    panels = page.subplots(len(SCENARIOS), len(p["stills"]))
    for row, scenario in zip(panels, SCENARIOS, strict=True):
        t, x, _, _ = run(data, DIMENSION, scenario)
        for axes, time in zip(row, p["stills"], strict=True):
            sample = int(np.abs(t - time).argmin())
            _panel(axes, x, sample, scenario, p)
            if scenario == next(iter(SCENARIOS)):
                axes.set_title(f"$t = {t[sample]:.1f}$")
        row[0].set_ylabel(TITLES[scenario])
    return page


def animate(data: Data, p: Parameters) -> FuncAnimation:
    """The scenarios side by side, one frame for every few samples."""
    page = Page(figsize=(TEXT, 2.7))
    panels = page.subplots(1, len(SCENARIOS))
    tokens = {scenario: run(data, DIMENSION, scenario)[1] for scenario in SCENARIOS}
    t = np.unique(data["paths"]["t"])

    def show(sample: int) -> list[Axes]:
        for axes, (scenario, x) in zip(panels, tokens.items(), strict=True):
            axes.clear()
            _panel(axes, x, sample, scenario, p)
            axes.set_title(TITLES[scenario])
        panels[1].set_xlabel(f"$t = {t[sample]:.1f}$")
        return list(panels)

    show(0)
    page.draw_without_rendering()
    page.set_layout_engine("none")  # panels stay where they are now
    samples = range(0, p["samples"], p["samples_per_frame"])
    return FuncAnimation(page, show, frames=samples, interval=p["milliseconds"], blit=False)


def _panel(axes: Axes, x: np.ndarray, sample: int, scenario: str, p: Parameters) -> None:
    """Tokens with their latest path; circles about the origin, at powers of ten, tell the scale."""
    half = MARGIN * np.linalg.norm(x[: sample + 1], axis=2).max()
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(True)
    for exponent in range(int(np.ceil(np.log10(half))) - 2, int(np.ceil(np.log10(half)))):
        radius = 10.0**exponent
        axes.add_patch(Circle((0, 0), radius, fill=False, color="0.75", linewidth=0.8))
        if radius > half / 8:
            axes.text(0.73 * radius, 0.73 * radius, f"{radius:g}", color="0.3", fontsize=7)
    axes.plot(0, 0, marker="+", markersize=6, color=BLACK, zorder=1)
    tail = x[max(0, sample - p["trail"]) : sample + 1]
    axes.plot(tail[..., 0], tail[..., 1], color=SCENARIOS[scenario], linewidth=1, alpha=0.5)
    axes.plot(*x[sample].T, "o", markersize=4, color=SCENARIOS[scenario], linestyle="none")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    trail = p["trail"] * p["until"] / (p["samples"] - 1)
    return (
        rf"Movie and stills: ${p['n']}$ simulated tokens in the plane, $W_s \succ 0$ and $A = A^\top$ "
        r"with two (pd), one (hd) or no (nd) positive eigenvalues; starts, $W$ and the moduli of $A$'s "
        r"eigenvalues are the same. Every panel zooms out with the largest norm so far: circles about "
        rf"the origin (cross) have the radii written beside them. Lines: the last {trail:g} units of "
        r"time. T3: in pd the largest norm diverges; T2: in nd all tokens tend to 0; T1: in all three no "
        r"$A$-form of a pair decreases, also where tokens overlap on the scale of the panel. "
        + sampling(p, [DIMENSION])
    )


FIGURE = Figure(
    name="movie",
    title="Movie: tokens in the plane as A has all, half or no eigenvalues positive",
    statements=("T2", "T3", "T1"),
    parameters={
        "n": 12,
        "scale": 1.0,
        "score_spectrum": [0.4, 1.2],
        "response_spectrum": [0.5, 2.0],
        "antisymmetric_share": 0.3,
        "until": 8.0,
        "samples": 401,
        "samples_per_frame": 4,
        "trail": 40,
        "milliseconds": 80,
        "stills": [0.0, 1.0, 3.0, 8.0],
        "seed": 11,
    },
    quick={"samples": 101, "samples_per_frame": 10, "trail": 10},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
    animate=animate,
)
