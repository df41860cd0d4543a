"""T9b and T9c: the profile C* of the collapse is stable or not as an operator's spectrum says."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from numerics.collapse import Decay, decay_rates, relative_error, with_covariance
from numerics.profile import covariance, profile_decay
from paper_figures.fig_collapse import collapse_profile
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, BLUE, GREEN, GREY, TEXT, THEORY, VERMILLION

ROUND, FLAT = (0.52, 0.48), (2.0, 0.02)
"""Eigenvalues of t·Cov where the rotations below and beyond 45° start."""
BEGIN = 50.0
"""Time at which they start."""
RATE = 0.05
"""Of a simulated ρ, from t ≥ 100: what the cubic flow neglects is relatively 1/t, times moments of tokens."""
ATTRACTS, WITHIN = 0.5, 0.1
"""From afar those with a larger ρ must end this close to C*: t^−ρ < 0.01, times what the start gives."""
REPELS, BEYOND = -0.2, 0.2
"""From afar those with a smaller ρ must end farther from C* than this."""
LIMITS = 0.02
"""Relative tolerance of limits and slopes: at finite t they are off by terms of relative order 1/t."""
ROUNDING = 1e-8
"""Of eigenvalues of L."""
MARKS = {2: (BLUE, "o"), 3: (VERMILLION, "s"), 4: (GREEN, "^")}
"""By dimension."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Decay rates near C*, the trace and the direction of rotations, and where far starts have got to."""
    W, A = _rotations(p["angles"])
    W, A = W.to(device), A.to(device)
    near = decay_rates(W, A, Generator().manual_seed(p["seed"]))
    return {
        "rotations": table(angle=p["angles"], **_decay(near)),
        "paths": _paths(p, W, A),
        "near": stack(_near_rates(p, d, device) for d in p["dimensions"]),
        "far": stack(_far_distances(p, d, device) for d in p["dimensions"]),
    }


def _rotations(degrees: list[float]) -> tuple[Tensor, Tensor]:
    """W = R(φ) and A = −I, (angles, 2, 2) each."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    entries = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
    W = torch.stack([torch.stack(row, 1) for row in entries], 1)
    return W, -torch.eye(2, dtype=torch.float64).expand_as(W)


def _decay(found: Decay) -> dict[str, Tensor]:
    return {"computed": found.computed.cpu(), "measured": found.measured.cpu()}


def _paths(p: Parameters, W: Tensor, A: Tensor) -> Table:
    """Covariances of rotated tokens that start near the attracting shape."""
    shapes = [ROUND if angle < 45 else FLAT for angle in p["angles"]]
    start = torch.diag_embed(W.new_tensor(shapes)) / BEGIN
    generator = Generator().manual_seed(p["seed"] + 1)
    x = with_covariance(families.random_tokens(len(W), 5, 2, 1.0, generator, W.device), start)
    times = torch.logspace(np.log10(BEGIN), np.log10(p["turns_until"]), p["samples"], dtype=torch.float64)
    system = AttentionSystem.from_response(W, A)
    C = covariance(simulate(system, x, times, W.device, rtol=1e-9, atol=1e-13))
    xx, xy, yy = C[..., 0, 0], C[..., 0, 1], C[..., 1, 1]
    return table(angle=np.array(p["angles"])[:, None], t=times, xx=xx, xy=xy, yy=yy)


def _random(p: Parameters, d: int, batch: int) -> tuple[Tensor, Tensor]:
    """W and A with symmetric spectra in [0.5, 2]; the antisymmetric share of W is uniform up to 0.95."""
    generator = Generator().manual_seed(p["seed"] + d)
    share = 0.95 * torch.rand(batch, dtype=torch.float64, generator=generator)
    W = families.random_form(batch, d, positive=d, antisymmetric_share=share, generator=generator)
    return W, families.random_form(batch, d, positive=0, generator=generator)


def _near_rates(p: Parameters, d: int, device: torch.device) -> Table:
    W, A = _random(p, d, p["near"])
    found = decay_rates(W.to(device), A.to(device), Generator().manual_seed(p["seed"] + d))
    return table(d=d, **_decay(found))


def _far_distances(p: Parameters, d: int, device: torch.device) -> Table:
    """From d + 2 standard Gaussian tokens."""
    W, A = _random(p, d, p["far"])
    system, generator = AttentionSystem.from_response(W, A), Generator().manual_seed(p["seed"] + d)
    x = families.random_tokens(len(W), d + 2, d, 1.0, generator)
    end = simulate(system, x, torch.tensor([0, p["until"]], dtype=torch.float64), device)[:, -1]
    expected = torch.from_numpy(collapse_profile(W.numpy(), A.numpy()))
    distance = relative_error(p["until"] * covariance(end), expected)
    return table(d=d, computed=profile_decay(W, system.value, A), distance=distance)


def flat_trace(degrees: np.ndarray) -> np.ndarray:
    """1/(2cos²φ), the trace of the turning profile of rank one."""
    return 1 / (2 * np.cos(np.deg2rad(degrees)) ** 2)


def traces(data: Data, p: Parameters) -> np.ndarray:
    """Lim t·tr Cov for each angle: the inverse slope of 1/tr Cov over the last doubling of the time or so."""
    t, C = _covariances(data, p)
    first = np.searchsorted(t, t[-1] / 2)
    inverse = 1 / (C[0] + C[2])
    return (t[-1] - t[first]) / (inverse[:, -1] - inverse[:, first])


def directions(data: Data, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the angle of the longer axis of Cov for each W, in radians without jumps."""
    t, (xx, xy, yy) = _covariances(data, p)
    return t, np.unwrap(np.arctan2(2 * xy, xx - yy)) / 2


def _covariances(data: Data, p: Parameters) -> tuple[np.ndarray, np.ndarray]:
    """Times, and the entries xx, xy, yy of Cov, (3, angles, times)."""
    part = data["paths"]
    entries = np.stack([part["xx"], part["xy"], part["yy"]]).reshape(3, len(p["angles"]), -1)
    return part["t"][: entries.shape[2]], entries


def check(data: Data, p: Parameters) -> None:
    """T9b: deviations from C* move at the computed rate. T9c: rates, traces and turns of rotations."""
    angles = np.array(p["angles"])
    for kind in ("rotations", "near"):
        if not (error := errors(data[kind]).max()) <= RATE:
            raise ContradictionError(f"{kind}: a deviation's rate differs by {error:.2g} from T9b's ρ")
    rate, distance = data["far"]["computed"], data["far"]["distance"]
    if not (distance[rate > ATTRACTS] <= WITHIN).all():
        raise ContradictionError(f"far: a start does not come to a C* with ρ > {ATTRACTS:g}")
    if not (distance[rate < REPELS] > BEYOND).all():
        raise ContradictionError(f"far: a start comes to a C* with ρ < {REPELS:g}")
    if (np.abs(data["rotations"]["computed"] - np.cos(np.deg2rad(2 * angles))) > ROUNDING).any():
        raise ContradictionError("rotations: the rate computed from L is not the cos 2φ of T9c")
    expected = np.where(angles < 45, 1.0, flat_trace(angles))
    if not (np.abs(traces(data, p) / expected - 1) < LIMITS).all():
        raise ContradictionError("rotations: a limit of t·tr Cov is not the one of T9c")
    flat = angles > 45
    if not (np.abs(turning(data, p)[flat] / (-np.tan(np.deg2rad(angles[flat])) / 2) - 1) < LIMITS).all():
        raise ContradictionError("rotations: a flat profile does not turn as T9c says")


def turning(data: Data, p: Parameters) -> np.ndarray:
    """Slope of the direction over log t, over its last decade, for each angle."""
    t, turned = directions(data, p)
    late = t >= t[-1] / 10
    return np.array([np.polyfit(np.log(t[late]), path[late], 1)[0] for path in turned])


def errors(decay: Table) -> np.ndarray:
    """|simulated ρ − computed ρ|."""
    return np.abs(decay["measured"] - decay["computed"])


def draw(data: Data, p: Parameters) -> Page:
    """Top, rotations: decay rate, trace and direction. Bottom, random systems: near C* and from afar."""
    page = Page(figsize=(TEXT, 4.8))
    top, bottom = page.subfigures(2, 1, squeeze=False)[:, 0]
    rate, trace, turn = top.subplots(1, 3)
    near, far = bottom.subplots(1, 2)
    _rates(rate, data["rotations"])
    _traces(trace, np.array(p["angles"]), traces(data, p))
    _turns(turn, data, p)
    _near(near, data["near"], p)
    _far(far, data["far"], p)
    return page


def _angle_axis(axes: Axes, title: str, label: str) -> np.ndarray:
    """Angles from 0° to 84° for the computed curve, on prepared axes with the threshold marked."""
    axes.axvline(45, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_title(title)
    axes.set(xlabel=r"angle $\varphi$ of $W$ in degrees", ylabel=label, xlim=(0, 85), xticks=range(0, 90, 15))
    return np.linspace(0, 84, 337)


def _rates(axes: Axes, decay: Table) -> None:
    degrees = _angle_axis(axes, r"decay rate: $\rho=\cos2\varphi$", r"$\rho$")
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(degrees, np.cos(np.deg2rad(2 * degrees)), **THEORY)
    axes.plot(decay["angle"], decay["measured"], marker="o", linestyle="none", color=BLUE)
    axes.text(4, -0.9, "$C^*$ attracts")
    axes.text(81, 0.85, "$C^*$ repels", ha="right")


def _traces(axes: Axes, angles: np.ndarray, found: np.ndarray) -> None:
    title, label = r"trace: $1$, then $1/(2\cos^2\varphi)$", r"$\lim\; t\,\mathrm{tr\,Cov}$"
    degrees = _angle_axis(axes, title, label)
    below, flat = degrees < 45, flat_trace(degrees)
    axes.plot(degrees, np.where(below, 1.0, flat), **THEORY)
    axes.plot(degrees, np.where(below, flat, 1.0), **{**THEORY, "linestyle": ":"})
    axes.plot(angles, found, marker="o", linestyle="none", color=BLUE)
    axes.set(yscale="log", ylim=(0.3, 40), yticks=[0.5, 1, 2, 5, 10, 20])
    axes.set_yticklabels(["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.text(4, 1.15, "round")
    axes.text(4, 0.36, "flat (dotted: repels)")
    axes.text(81, 1.15, "round", ha="right")
    axes.text(61, 4.2, "flat, turning", ha="right")


def _turns(axes: Axes, data: Data, p: Parameters) -> None:
    t, turned = directions(data, p)
    for angle in p["turning"]:
        path = np.rad2deg(turned[p["angles"].index(angle)])
        line = -np.rad2deg(np.tan(np.deg2rad(angle)) / 2) * np.log(t / t[-1])
        axes.plot(t, path - path[-1], color=BLUE)
        axes.plot(t, line, **THEORY)
        white = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(130, np.interp(130, t, line), f"{angle:g}°", ha="center", va="center", bbox=white)
    axes.set_title(r"turn: $-\frac{1}{2}\tan\varphi\,\log t$")
    axes.set(xlabel="$t$", ylabel="long axis of Cov, degrees", xscale="log", xlim=(t[0], t[-1]))


def _near(axes: Axes, decay: Table, p: Parameters) -> None:
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.axline((0, 0), slope=1, **THEORY, zorder=1)
    _dots(axes, decay, "measured", p)
    _rate_axis(axes, rf"near $C^*$: $t^{{-\rho}}$ in {len(decay['d'])} systems", r"simulated $\rho$")
    axes.legend(loc="upper left", markerscale=2)


def _far(axes: Axes, found: Table, p: Parameters) -> None:
    _dots(axes, found, "distance", p)
    axes.set_yscale("log")
    title = f"from afar: Gaussian tokens at $t={p['until']:g}$"
    _rate_axis(axes, title, r"$\|t\,\mathrm{Cov}-C^*\|\;/\;\|C^*\|$")


def _dots(axes: Axes, found: Table, column: str, p: Parameters) -> None:
    for d in p["dimensions"]:
        part, (color, marker) = rows(found, found["d"] == d), MARKS[d]
        style = {"marker": marker, "markersize": 2, "linestyle": "none", "color": color}
        axes.plot(part["computed"], part[column], label=f"$d={d}$", **style)


def _rate_axis(axes: Axes, title: str, label: str) -> None:
    axes.axvline(0, color=BLACK, linewidth=0.8, linestyle=":")
    axes.set_title(title)
    axes.set(xlabel=r"computed $\rho$", ylabel=label, xlim=(-1.05, 1.05), xticks=[-1, -0.5, 0, 0.5, 1])


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    dimensions = ", ".join(map(str, p["dimensions"]))
    return (
        r"T9b: close to $C^*/t$ the difference $t\,\mathrm{Cov}-C^*$, $C^*=\frac12W^{-1}(-A)W^{-\top}$, "
        r"moves like $t^{-\rho}$, $\rho=\min\mathrm{Re}\,\lambda(L)$, $L(H)=-(VHW^\top C^*+C^*WHV^\top)$ on "
        r"symmetric $H$. Dots and coloured lines are simulated, "
        r"black lines computed. Top: rotations $W=R(\varphi)$, $A=-I$, $d=2$ (T9c): the rate; the limit of "
        r"$t\,\mathrm{tr\,Cov}$, round below $45^\circ$ and flat beyond; the direction of the longer axis of "
        r"$\mathrm{Cov}$ for some $\varphi$, which turns evenly in $\log t$. "
        rf"Bottom: random systems with $W_s\succ0$, $A=A^\top\prec0$, $d\in\{{{dimensions}\}}$, "
        rf"seed {p['seed']}. Left: {p['near']} for each $d$, from starts near $C^*/t$; simulated and "
        rf"computed $\rho$ differ by at most {errors(data['near']).max():.3f}. Right: {p['far']} for "
        rf"each $d$, from $d+2$ Gaussian tokens, about which T9b says nothing; at $t={p['until']:g}$ all "
        rf"with $\rho>{ATTRACTS:g}$ are within {100 * WITHIN:g}\,\% of $C^*$ and none with $\rho<{REPELS:g}$ "
        rf"within {100 * BEYOND:g}\,\%."
    )


FIGURE = Figure(
    name="collapse_threshold",
    title="Where the profile of the collapse loses its stability",
    statements=("T9b", "T9c"),
    parameters={
        "angles": [5.0 * k for k in range(1, 9)] + [44.0, 46.0] + [5.0 * k for k in range(10, 17)],
        "turning": [50.0, 65.0, 75.0, 80.0],
        "turns_until": 1e5,
        "until": 20000.0,
        "samples": 121,
        "dimensions": [2, 3, 4],
        "near": 300,
        "far": 60,
        "seed": 0,
    },
    quick={"near": 40, "far": 12},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
