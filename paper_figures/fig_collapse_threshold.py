"""T9b and T9c: the profile C* of the collapse is stable or not as an operator's spectrum says.

Run `python -m paper_figures.fig_collapse_threshold OUT.png` (or .pdf, .svg).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Generator, Tensor

from numerics import AttentionSystem, families, integrate
from numerics.collapse import Decay, decay_rates, relative_error, with_covariance
from numerics.profile import covariance, profile, profile_decay

ANGLES = [5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 44.0, 46.0, 50.0, 55.0, 60.0, 65.0, 70.0, 75.0, 80.0]
ROUND, FLAT = (0.52, 0.48), (2.0, 0.02)
"""Eigenvalues of t·Cov where the rotations below and beyond 45° start."""
SIZES = {2: 300, 3: 300, 4: 300}
"""Dimension and number of random systems followed near C*; a fifth of them also from afar."""
CLEAR = 0.02
"""Random systems closer to neutral than this are left out of the count of signs."""

CAPTION = (
    "$t\\,\\mathrm{Cov}-C^*$, $C^*=\\frac{1}{2}W^{-1}(-A)W^{-\\top}$, moves like $t^{-\\rho}$: "
    "lines computed from the operator $L$, dots simulated;\n"
    "top: $W=R(\\varphi)$, $A=-I$; bottom: random systems with $W_s\\succ0$, $A=A^\\top\\prec0$"
)


@dataclass(frozen=True)
class Distance:
    """Random systems from starts far from C*/t: ρ and the relative distance of t·Cov from C* at t = 2000."""

    computed: Tensor
    distance: Tensor


@dataclass(frozen=True)
class Threshold:
    """Rotations by ANGLES: decay rates and lim t·tr Cov, (angles,). Random systems by dimension."""

    rotations: Decay
    trace: Tensor
    near: dict[int, Decay]
    far: dict[int, Distance]


def rotations(degrees: list[float]) -> tuple[Tensor, Tensor]:
    """W = R(φ) and A = −I, (angles, 2, 2) each."""
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    rows = [[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]]
    W = torch.stack([torch.stack(row, 1) for row in rows], 1)
    return W, -torch.eye(2, dtype=torch.float64).expand_as(W)


def flat_trace(degrees: Tensor) -> Tensor:
    """1/(2cos²φ), the trace of the turning profile of rank one."""
    return 1 / (2 * degrees.deg2rad().cos() ** 2)


def compute() -> Threshold:
    """Measure decay rates near C*, the limit of t·tr Cov of rotations, and where far starts have got to."""
    W, A = rotations(ANGLES)
    found = Threshold(
        rotations=decay_rates(W, A, Generator().manual_seed(0)),
        trace=_limiting_trace(W, A),
        near={d: decay_rates(*_random(batch, d), Generator().manual_seed(d)) for d, batch in SIZES.items()},
        far={d: _distances(*_random(batch // 5, d)) for d, batch in SIZES.items()},
    )
    _check(found)
    return found


def _random(batch: int, d: int) -> tuple[Tensor, Tensor]:
    """W and A with symmetric spectra in [0.5, 2]; the antisymmetric share of W is uniform up to 0.95."""
    generator = Generator().manual_seed(d)
    share = 0.95 * torch.rand(batch, dtype=torch.float64, generator=generator)
    W = families.random_form(batch, d, positive=d, antisymmetric_share=share, generator=generator)
    return W, families.random_form(batch, d, positive=0, generator=generator)


def _distances(W: Tensor, A: Tensor) -> Distance:
    """From d + 2 standard Gaussian tokens."""
    system, d = AttentionSystem.from_response(W, A), W.shape[1]
    x = families.random_tokens(len(W), d + 2, d, 1.0, Generator().manual_seed(d))
    times = torch.tensor([0.0, 2000.0], dtype=torch.float64)
    C = times[1] * covariance(integrate(system, x, times).states[:, 1])
    return Distance(profile_decay(W, system.value, A), relative_error(C, profile(W, A)))


def _limiting_trace(W: Tensor, A: Tensor) -> Tensor:
    """The inverse slope of 1/tr Cov from t = 1000 to 2000, of tokens that start near the attracting shape."""
    shapes = [ROUND if angle < 45 else FLAT for angle in ANGLES]
    start = torch.diag_embed(torch.tensor(shapes, dtype=torch.float64)) / 50
    x = with_covariance(families.random_tokens(len(W), 5, 2, 1.0, Generator().manual_seed(1)), start)
    times = torch.tensor([50.0, 1000.0, 2000.0], dtype=torch.float64)
    states = integrate(AttentionSystem.from_response(W, A), x, times, rtol=1e-9, atol=1e-13).states
    inverse = 1 / covariance(states).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (times[2] - times[1]) / (inverse[:, 2] - inverse[:, 1])


def _check(found: Threshold) -> None:
    """ArithmeticError if the data contradict T9b or T9c: no picture of a statement that its data refute."""
    for name, decay in {"rotations": found.rotations, **found.near}.items():
        if (decay.measured.sign() != decay.computed.sign())[_clear(decay)].any():
            raise ArithmeticError(f"{name}: a deviation does not move to the side that T9b computes")
    degrees = torch.tensor(ANGLES, dtype=torch.float64)
    expected = torch.where(degrees < 45, 1.0, flat_trace(degrees))
    if ((found.trace / expected - 1).abs() > 0.02).any():
        raise ArithmeticError("rotations: a limit of t·tr Cov is not the one of T9c")


def _clear(decay: Decay) -> Tensor:
    return decay.computed.abs() > CLEAR


def draw(found: Threshold) -> Figure:
    """Top, rotations: decay rate and trace. Bottom, random systems: near C* and from afar."""
    figure = Figure(figsize=(7.4, 6.8), layout="constrained")
    figure.suptitle(CAPTION, fontsize=8)
    (rate, trace), (near, far) = figure.subplots(2, 2)
    _rates(rate, found.rotations)
    _traces(trace, found.trace)
    _near(near, found.near)
    _far(far, found.far)
    return figure


def _angle_axis(axes: Axes, title: str, label: str) -> Tensor:
    """Angles from 0° to 84° for the computed curve, on prepared axes with the threshold marked."""
    axes.axvline(45, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("angle $\\varphi$ in degrees")
    axes.set_ylabel(label)
    axes.set(xlim=(0, 85), xticks=range(0, 90, 15))
    return torch.linspace(0, 84, 337, dtype=torch.float64)


def _rates(axes: Axes, decay: Decay) -> None:
    degrees = _angle_axis(axes, "decay rate: $\\rho=\\cos2\\varphi$", "$\\rho$")
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.plot(degrees, (2 * degrees).deg2rad().cos())
    axes.plot(ANGLES, decay.measured, marker="o", markersize=4, linestyle="none", color="C1")
    axes.text(4, -0.9, "$C^*$ attracts", fontsize=9)
    axes.text(81, 0.85, "$C^*$ repels", fontsize=9, ha="right")


def _traces(axes: Axes, trace: Tensor) -> None:
    degrees = _angle_axis(
        axes, "the profile's trace: 1, then $1/(2\\cos^2\\varphi)$", "$\\lim\\; t\\,\\mathrm{tr\\,Cov}$"
    )
    below, flat = degrees < 45, flat_trace(degrees)
    axes.plot(degrees, torch.where(below, 1.0, flat))
    axes.plot(degrees, torch.where(below, flat, 1.0), color="C0", linestyle="--", linewidth=1)
    axes.plot(ANGLES, trace, marker="o", markersize=4, linestyle="none", color="C1")
    axes.set(yscale="log", ylim=(0.3, 40), yticks=[0.5, 1, 2, 5, 10, 20])
    axes.set_yticklabels(["0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.text(4, 1.15, "round", fontsize=9)
    axes.text(4, 0.36, "flat (dashed: repels)", fontsize=9)
    axes.text(81, 1.15, "round", fontsize=9, ha="right")
    axes.text(61, 4.2, "flat, turning", fontsize=9, ha="right")


def _near(axes: Axes, near: dict[int, Decay]) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.axline((0, 0), slope=1, linewidth=1)
    for d, decay in near.items():
        _dots(axes, d, decay.computed, decay.measured)
    clear = sum(int(_clear(decay).sum()) for decay in near.values())
    agree = sum(
        int((decay.measured.sign() == decay.computed.sign())[_clear(decay)].sum()) for decay in near.values()
    )
    _rate_axis(
        axes, f"near $C^*$: sign agrees in {agree} of {clear} ($|\\rho|>{CLEAR}$)", "simulated $\\rho$"
    )
    axes.legend(fontsize=8, loc="upper left")


def _far(axes: Axes, far: dict[int, Distance]) -> None:
    for d, found in far.items():
        _dots(axes, d, found.computed, found.distance)
    axes.set_yscale("log")
    _rate_axis(axes, "from afar: Gaussian tokens at $t=2000$", "$|t\\,\\mathrm{Cov}-C^*|\\;/\\;|C^*|$")


def _dots(axes: Axes, d: int, across: Tensor, up: Tensor) -> None:
    axes.plot(across, up, marker="o", markersize=2, linestyle="none", color=f"C{d - 1}", label=f"$d={d}$")


def _rate_axis(axes: Axes, title: str, label: str) -> None:
    axes.axvline(0, color="0.6", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("computed $\\rho$")
    axes.set_ylabel(label)


def main(path: str) -> None:
    """Write the figure; the format follows the suffix."""
    temporary = Path(path).with_stem(f".{Path(path).stem}")
    draw(compute()).savefig(temporary, dpi=150)
    temporary.replace(path)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) == 2 else "")
    if target.suffix not in (".png", ".pdf", ".svg") or not target.parent.is_dir():
        name = "python -m paper_figures.fig_collapse_threshold"
        print(f"usage: {name} OUT.png (or .pdf, .svg; in an existing folder)")
        sys.exit(2)
    main(str(target))
