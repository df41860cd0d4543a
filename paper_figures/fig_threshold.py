"""T4: above a threshold of its energy a token diverges; with A ≺ 0 its bound falls to the threshold."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.lines import Line2D
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from numerics.observables import free_energy_gap, pencil_minimum, token_energy
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, CONVERGES, DIVERGES, OPEN, TEXT, THEORY

N = 3
"""Tokens of a system: as many as T8's {a, −a, 0}."""
THRESHOLD = free_energy_gap(N) / 2
"""κ_n/(2λ) for λ = 1, to which all systems are scaled."""
ROUNDING = 1e-6
"""Of an energy, relative to energy plus bound: the integrator keeps 1e-8 per step."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Energies of random tokens for both signs of A; system 0 has T8's mirrored tokens."""
    systems, energies = zip(*(_energies(p, sign, device) for sign in (1, -1)), strict=True)
    return {"systems": stack(systems), "energies": stack(energies)}


def _energies(p: Parameters, sign: int, device: torch.device) -> tuple[Table, Table]:
    generator, panel, d = Generator().manual_seed(p["seed"]), p["panels"][sign < 0], p["d"]
    share = p["antisymmetric"] * torch.rand(p["systems"], dtype=torch.float64, generator=generator)
    share[0] = 0  # then tokens along a slowest direction stay there
    spectrum = tuple(p["spectrum"])
    W = families.random_form(
        p["systems"], d, positive=d, spectrum=spectrum, antisymmetric_share=share, generator=generator
    )
    A = families.random_form(p["systems"], d, positive=d, spectrum=spectrum, generator=generator)
    A = A * pencil_minimum(W, A)[:, None, None]  # now λ = 1
    x = _tokens(p, panel["starts"], W, A, generator)
    times = torch.linspace(0, panel["until"], p["samples"], dtype=torch.float64)
    system = AttentionSystem.from_response(W, sign * A)
    path = simulate(system, x, times, device, method="dormand-prince")
    energies = torch.stack([token_energy(states, A) for states in path.unbind(1)], 1)
    system, (i, j) = np.arange(p["systems"])[:, None, None], np.indices((d, d))
    weights = table(sign=sign, system=system, i=i, j=j, W=W, A=sign * A)
    return weights, table(sign=sign, system=system, token=np.arange(N), t=times[:, None], energy=energies)


def _tokens(p: Parameters, starts: list[float], W: Tensor, A: Tensor, generator: Generator) -> Tensor:
    """Gaussian directions with energies log-uniform between `starts` thresholds.

    In system 0 T8's {a, −a, 0}, a of the energy p["mirrored"] along the slowest eigenvector of V.
    """
    x = families.random_tokens(len(A), N, A.shape[1], 1.0, generator)
    root = torch.linalg.cholesky(A[0])
    half = torch.linalg.solve_triangular(root, W[0], upper=False)
    vectors = torch.linalg.eigh(torch.linalg.solve_triangular(root, half.mT, upper=False)).eigenvectors
    x[0] = torch.linalg.solve_triangular(root.mT, vectors[:, :1], upper=True)[:, 0]
    low, high = (math.log(start) for start in starts)
    wanted = (low + (high - low) * torch.rand(len(A), N, dtype=torch.float64, generator=generator)).exp()
    wanted[0] = p["mirrored"]
    x = x * (wanted * THRESHOLD / token_energy(x, A)).sqrt()[..., None]
    x[0, 1], x[0, 2] = -x[0, 0], 0
    return x


def bound(energies: np.ndarray, t: np.ndarray, sign: int, rate: np.ndarray) -> np.ndarray:
    """T4's bound of energies (…, times) from their first value: from below if sign is 1; rate is λ."""
    threshold = THRESHOLD / rate
    return threshold + (energies[..., :1] - threshold) * np.exp(2 * sign * rate * t)


def rates(data: Data, p: Parameters, sign: int) -> np.ndarray:
    """λ of each system, the smallest eigenvalue of |A|⁻¹W_s."""
    part = rows(data["systems"], data["systems"]["sign"] == sign)
    W, A = (part[name].reshape(-1, p["d"], p["d"]) for name in ("W", "A"))
    return np.linalg.eigvals(np.linalg.solve(sign * A, W + W.swapaxes(1, 2)) / 2).real.min(1)


def check(data: Data, p: Parameters) -> None:
    """Every token, at every sample, is on T4's side of the exponential; T8's third token stays at 0."""
    for sign in (1, -1):
        t, energies = _curves(data, p, sign)
        limit = bound(energies, t, sign, rates(data, p, sign)[:, None, None])
        kept = sign * (energies - limit) >= -ROUNDING * (np.abs(energies) + np.abs(limit))
        if not kept.all():
            system, token, _ = np.argwhere(~kept)[0]
            raise ContradictionError(f"sign {sign}, system {system}, token {token}: energy beyond T4's bound")
        if (energies[0, 2] > 0).any():
            raise ContradictionError(f"sign {sign}: the token at 0 moves, which T8 excludes")


def _curves(data: Data, p: Parameters, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Times, and energies (systems, tokens, times)."""
    part = rows(data["energies"], data["energies"]["sign"] == sign)
    shape = (p["systems"], p["samples"], N)
    return part["t"].reshape(shape)[0, :, 0], part["energy"].reshape(shape).swapaxes(1, 2)


def draw(data: Data, p: Parameters) -> Page:
    """Energies in thresholds: left A ≻ 0, right A ≺ 0; T4's bounds of some of them are dashed."""
    page = Page(figsize=(TEXT, 3.2))
    left, right = page.subplots(1, 2)
    left.set_yscale("symlog", linthresh=0.1)
    left.set(ylim=(-0.015, 2e3), yticks=[0, 0.1, 1, 10, 100, 1000])
    left.set_yticklabels(["0", "0.1", "1", "10", "100", "1000"])
    left.minorticks_off()
    right.set(yscale="log", ylim=(5e-2, 2e3))
    for axes, sign in ((left, 1), (right, -1)):
        _panel(axes, *_curves(data, p, sign), sign, p)
    left.set_ylabel("energy of a token, in thresholds:  $2\\lambda E_i/\\kappa_n$")
    left.set_title("$A \\succ 0$: tokens above the threshold diverge")
    left.text(1.47, 0.003, "$0$ of $\\{a, -a, 0\\}$ stays", ha="right", va="bottom")
    right.set_title("$A \\prec 0$: all bounds tend to the threshold")
    left.legend(handles=_legend(), loc="upper left", handlelength=2.2)
    return page


def _panel(axes: Axes, t: np.ndarray, energies: np.ndarray, sign: int, p: Parameters) -> None:
    scaled, limits = energies[: p["shown"]] / THRESHOLD, bound(energies, t, sign, np.ones(1)) / THRESHOLD
    for system, token in np.ndindex(*scaled.shape[:2]):
        curve = scaled[system, token]
        color = CONVERGES if sign < 0 else DIVERGES if curve[0] > 1 else OPEN
        marked = system < p["marked"] and curve[0] > 1
        axes.plot(t, curve, color=color, linewidth=1.8 if marked else 0.5, zorder=2 + marked)
        if marked:
            axes.plot(t, limits[system, token], zorder=4, **THEORY)
    if sign > 0:
        axes.plot(t, scaled[0, 2], color=OPEN, linewidth=1.8, clip_on=False)
    for level, label in ((1, "$\\kappa_n$"), (math.log(N) / (2 * THRESHOLD), "$\\log n$")):
        axes.axhline(level, color=BLACK, linewidth=0.8, linestyle=":" if level > 1 else "-")
        axes.text(1.01, level, label, transform=axes.get_yaxis_transform(), va="center")
    axes.set(xlabel="time  $\\lambda t$", xlim=(0, t[-1]))


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=DIVERGES, label="above $\\kappa_n$ at first"),
        Line2D([], [], color=OPEN, label="below it at first"),
        Line2D([], [], label="T4's bound", **THEORY),
    ]


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    t, energies = _curves(data, p, 1)
    above = float((energies[0, 0] / bound(energies[0, 0], t, 1, np.ones(1)))[-1] - 1)
    return (
        rf"Energies $E_i=\frac12x_i^\top(\pm A)x_i$ of the $n={N}$ tokens of {p['systems']} random systems "
        rf"for each sign of $A=A^\top$ ($d={p['d']}$, $W_s\succ0$, $\|W_a\|/\|W\|$ up to "
        rf"{p['antisymmetric']:g}, seed {p['seed']}), simulated; {p['shown']} of them are drawn. Time is in "
        r"units of $1/\lambda$, energy in units of T4's threshold $\theta=\kappa_n/(2\lambda)$ (solid line; "
        r"dotted: the simpler $\log n/(2\lambda)$). Dashed, for the thick curves: T4's bound "
        r"$\theta+(E_i(0)-\theta)e^{\pm2\lambda t}$, from below on the left, from above on the right. Every "
        r"token of every system keeps to its own bound at every sample; of those that start below the "
        r"threshold on the left (grey) nothing more is claimed. Among the tokens are $\{a,-a,0\}$, $a$ along "
        rf"the slowest eigenvector of $V$: for $A\succ0$ the tokens $\pm a$ end {100 * above:.0f}\,\% above "
        r"their bound, and $0$ stays (T8). For $A\prec0$ T2 says more in the long run: $E_i\to0$."
    )


FIGURE = Figure(
    name="threshold",
    title="A threshold of a token's energy, with exponential bounds",
    statements=("T4", "T8", "T2"),
    parameters={
        "systems": 60,
        "d": 3,
        "spectrum": [0.7, 1.4],
        "antisymmetric": 0.6,
        "mirrored": 10.0,
        "panels": [{"starts": [0.05, 10.0], "until": 1.5}, {"starts": [0.2, 1000.0], "until": 4.0}],
        "marked": 3,
        "shown": 12,
        "samples": 81,
        "seed": 4,
    },
    quick={"systems": 12, "samples": 41},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
