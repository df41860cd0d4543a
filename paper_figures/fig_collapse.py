"""T9: from every start tokens collapse to zero with the same covariance, t·Cov → C*."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from numerics.profile import covariance
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, TEXT, THEORY, VERMILLION

NEAR = 0.05
"""Largest relative distance of t·Cov from C* at t = 10⁴; it is the start's memory, (1/t)·C*Cov(0)⁻¹ or so."""
POWER = 0.15
"""Of the power −1 of that distance over the last decade; terms like (log t)/t make it smaller by 1/log t."""
MARKERS = {2: "o", 3: "s", 5: "^"}
"""By dimension."""
COLORS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)
"""By start."""


def compute(p: Parameters, device: torch.device) -> Data:
    """For each dimension one system with T9's hypotheses, and covariances over time from several starts."""
    systems, covariances = zip(*(_collapse(p, d, device) for d in p["dimensions"]), strict=True)
    return {"systems": stack(systems), "covariances": stack(covariances)}


def _collapse(p: Parameters, d: int, device: torch.device) -> tuple[Table, Table]:
    generator, starts = Generator().manual_seed(p["seed"] + d), p["starts"]
    W = families.random_form(1, d, positive=d, generator=generator)
    A = families.random_form(1, d, positive=0, generator=generator)
    low, high = p["scales"]
    scale = torch.linspace(low, high, starts, dtype=torch.float64)
    x = families.random_tokens(starts, d + p["more"], d, scale, generator)
    shape = families.random_form(starts, d, positive=d, spectrum=(0.5, 1.0), generator=generator)
    times = _times(p)
    system = AttentionSystem.from_response(W.expand(starts, d, d), A.expand(starts, d, d))
    C = covariance(simulate(system, x @ shape, times, device, rtol=1e-9, atol=1e-13))
    i, j = np.indices((d, d))
    start, sample = np.arange(starts)[:, None, None, None], times[:, None, None]
    return table(d=d, i=i, j=j, W=W[0], A=A[0]), table(d=d, start=start, t=sample, i=i, j=j, cov=C)


def _times(p: Parameters) -> Tensor:
    """0, then `per_decade` times in each decade from 1."""
    exponents = torch.arange(p["decades"] * p["per_decade"] + 1, dtype=torch.float64) / p["per_decade"]
    return torch.cat([exponents.new_zeros(1), 10**exponents])


def _system(data: Data, d: int) -> tuple[np.ndarray, np.ndarray]:
    """W and A, (d, d)."""
    part = rows(data["systems"], data["systems"]["d"] == d)
    return part["W"].reshape(d, d), part["A"].reshape(d, d)


def _covariances(data: Data, p: Parameters, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Times without 0, and Cov (starts, times, d, d)."""
    part = rows(data["covariances"], data["covariances"]["d"] == d)
    C = part["cov"].reshape(p["starts"], -1, d, d)
    return part["t"].reshape(C.shape)[0, 1:, 0, 0], C[:, 1:]


def collapse_profile(W: np.ndarray, A: np.ndarray) -> np.ndarray:
    """C* = ½ W⁻¹(−A)W⁻ᵀ of matrices (…, d, d)."""
    inverse = np.linalg.inv(W)
    return -inverse @ A @ inverse.swapaxes(-1, -2) / 2


def distances(data: Data, p: Parameters, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, and ‖t·Cov − C*‖/‖C*‖ (starts, times) in the Frobenius norm."""
    (t, C), expected = _covariances(data, p, d), collapse_profile(*_system(data, d))
    gap = np.linalg.norm(t[:, None, None] * C - expected, axis=(2, 3))
    return t, gap / np.linalg.norm(expected)


def slopes(p: Parameters, gap: np.ndarray) -> np.ndarray:
    """The power of t like which distances (starts, times) fell over the last decade."""
    return np.log10(gap[:, -1] / gap[:, -1 - p["per_decade"]])


def check(data: Data, p: Parameters) -> None:
    """Each distance is small at the end and over the last decade fell like 1/t."""
    for d in p["dimensions"]:
        _, gap = distances(data, p, d)
        for start, (end, slope) in enumerate(zip(gap[:, -1], slopes(p, gap), strict=True)):
            if not end <= NEAR:
                raise ContradictionError(f"d = {d}, start {start}: t·Cov is {end:.3g} away from T9's C*")
            if not abs(slope + 1) <= POWER:
                raise ContradictionError(
                    f"d = {d}, start {start}: t·Cov approaches T9's C* like t^{slope:.2g}, not 1/t"
                )


def draw(data: Data, p: Parameters) -> Page:
    """Top: ellipses of t·Cov in the plane. Bottom: distance from C*, and the size of Cov itself."""
    page = Page(figsize=(TEXT, 4.4))
    top, bottom = page.subfigures(2, 1, squeeze=False, height_ratios=(1.75, 2.65))[:, 0]
    t, C = _covariances(data, p, 2)
    wanted = collapse_profile(*_system(data, 2))
    for axes, decade in zip(top.subplots(1, len(p["shown"]), sharey=True), p["shown"], strict=True):
        sample = decade * p["per_decade"]
        _ellipses(axes, t[sample] * C[:, sample], wanted)
        axes.set_title(f"$t = 10^{decade}$" if decade > 1 else f"$t = {10**decade}$")
    left, right = bottom.subplots(1, 2)
    for d in p["dimensions"]:
        _curves(left, *distances(data, p, d), d)
        t, C = _covariances(data, p, d)
        size = np.linalg.norm(C, axis=(2, 3)) / np.linalg.norm(collapse_profile(*_system(data, d)))
        _curves(right, t, size, d)
    late = t >= t[-1] / 100
    left.plot(t[late], 100 / t[late], color=BLACK, linewidth=1, linestyle=":")
    left.text(t[-1] / 10, 2000 / t[-1], "slope $-1$")
    left.set_title(r"distance of $t\,\mathrm{Cov}$ from $C^*$, relative")
    left.set(xlabel="$t$", ylabel=r"$\|t\,\mathrm{Cov}-C^*\|\;/\;\|C^*\|$")
    right.plot(t, 1 / t, label="T9: $1/t$", **THEORY)
    right.set_title(r"covariances themselves")
    right.set(xlabel="$t$", ylabel=r"$\|\mathrm{Cov}\|\;/\;\|C^*\|$")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlim=(1, t[-1]))
        axes.legend(loc="lower left")
    return page


def _ellipses(axes: Axes, covariances: np.ndarray, wanted: np.ndarray) -> None:
    for C, color in zip(covariances, COLORS, strict=False):
        axes.plot(*_ellipse(C), color=color)
    axes.plot(*_ellipse(wanted), **THEORY)
    reach = 1.15 * np.sqrt(np.diag(wanted))
    axes.set(xlim=(-reach[0], reach[0]), ylim=(-reach[1], reach[1]), aspect="equal", xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)


def _ellipse(C: np.ndarray) -> np.ndarray:
    """Points {x : xᵀC⁻¹x = 1}, (2, points)."""
    angle = np.linspace(0, 2 * np.pi, 181)
    return np.linalg.cholesky(C) @ [np.cos(angle), np.sin(angle)]


def _curves(axes: Axes, t: np.ndarray, curves: np.ndarray, d: int) -> None:
    style = {"linewidth": 0.9, "marker": MARKERS[d], "markersize": 3}
    for curve, color in zip(curves, COLORS, strict=False):
        axes.plot(t, curve, color=color, markevery=(d, 8), **style)
    axes.plot([], [], color=BLACK, label=f"$d = {d}$", **style)


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    gaps = np.concatenate([distances(data, p, d)[1] for d in p["dimensions"]])
    worst, slope = gaps[:, -1].max(), slopes(p, gaps)
    dimensions = ", ".join(map(str, p["dimensions"]))
    return (
        rf"T9, simulated: for each $d\in\{{{dimensions}\}}$ one random system with $W=W^\top\succ0$, "
        rf"$A=A^\top\prec0$, and {p['starts']} random starts (colours) of $d+{p['more']}$ tokens whose sizes "
        rf"differ by a factor of {p['scales'][1] / p['scales'][0]:g} (seed {p['seed']}). Top, $d=2$: the "
        r"ellipses of $t\,\mathrm{Cov}(X(t))$ approach that of $C^*=\frac12W^{-1}(-A)W^{-\top}$ (dashed), "
        r"whatever the start. Bottom left: the relative distance falls about like $t^{-1}$ (over the last "
        rf"decade with powers from ${slope.min():.2f}$ to ${slope.max():.2f}$); at "
        rf"$t=10^{p['decades']}$ it is at most {100 * worst:.1f}\,\%. Bottom right: $\|\mathrm{{Cov}}\|$ "
        r"becomes $\|C^*\|/t$, so that tokens shrink like $t^{-1/2}$."
    )


FIGURE = Figure(
    name="collapse",
    title="Universal collapse: the same covariance from every start",
    statements=("T9",),
    parameters={
        "dimensions": [2, 3, 5],
        "starts": 5,
        "scales": [0.5, 2.0],
        "more": 3,
        "decades": 4,
        "per_decade": 8,
        "shown": [0, 1, 2, 3],
        "seed": 1,
    },
    quick={"starts": 3, "per_decade": 4},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
