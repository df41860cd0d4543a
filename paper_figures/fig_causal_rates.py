"""T14b: under a causal mask token k decays k times more slowly than the first."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, BLUE, TEXT, THEORY, VERMILLION

CLOSE = 0.02
"""Relative tolerance of a rate: the next faster exponential is e⁻⁸ smaller where the fit begins, or less."""
STYLES = {0: {"color": BLUE, "marker": "o"}, 1: {"color": VERMILLION, "marker": "^"}}
"""By group."""
LATE = 0.75
"""Share of the time after which a rate is fitted."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Token k = 1 … most as the last of k, since later ones do not act on it, for random Hurwitz V."""
    groups = [_group(p, number, device) for number in range(len(p["groups"]))]
    values, paths = zip(*groups, strict=True)
    return {"values": stack(values), "paths": stack(paths)}


def _group(p: Parameters, number: int, device: torch.device) -> tuple[Table, Table]:
    group, generator = p["groups"][number], Generator().manual_seed(p["seed"] + number)
    systems, d, most = p["systems"], p["d"], p["most"]
    V = _values(p, generator)
    W = families.random_form(systems, d, positive=group["positive"], generator=generator)
    x = families.random_tokens(systems, most, d, 1.0, generator)
    largest = (x @ W @ x.mT).abs().amax((1, 2))
    x = x * (group["scores"] / largest).sqrt()[:, None, None]
    i, j = np.indices((d, d))
    values = table(group=number, system=np.arange(systems)[:, None, None], i=i, j=j, V=V)
    paths = stack(_path(p, k, W, V, x, device) for k in range(1, most + 1))
    return values, table(group=number, **paths)


def _values(p: Parameters, generator: Generator) -> Tensor:
    """Gaussian V, shifted and scaled to α = −1; kept if no eigenvalue is larger than p["reach"]."""
    V = torch.randn(20 * p["systems"], p["d"], p["d"], dtype=torch.float64, generator=generator)
    spectrum = torch.linalg.eigvals(V)
    V = V - (spectrum.real.amax(1) + p["shift"])[:, None, None] * torch.eye(p["d"], dtype=torch.float64)
    V = V / p["shift"]
    return V[torch.linalg.eigvals(V).abs().amax(1) <= p["reach"]][: p["systems"]]


def _path(p: Parameters, k: int, W: Tensor, V: Tensor, x: Tensor, device: torch.device) -> Table:
    """Log-norm of token k, and log |ℓᵀx_k| with ℓ the left eigenvector of V for its α."""
    times = torch.linspace(0, p["until"] * k * max(k - 1, 1), p["samples"], dtype=torch.float64)
    system, options = AttentionSystem(W, V, causal=True), {"rtol": 1e-9, "atol": 1e-290}
    last = simulate(system, x[:, :k], times, device, method="dormand-prince", **options)[:, :, -1]
    eigenvalues, vectors = torch.linalg.eig(V.mT)
    ell = vectors[torch.arange(len(V)), :, eigenvalues.real.argmax(1)]
    amplitude = torch.einsum("btd,bd->bt", last.to(ell.dtype), ell).abs()
    number, log_norm = np.arange(len(V))[:, None], last.norm(dim=2).log()
    return table(system=number, k=k, t=times, log_norm=log_norm, log_amplitude=amplitude.log())


def _paths(data: Data, p: Parameters, k: int, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Times, and a column (groups · systems, times)."""
    part = rows(data["paths"], data["paths"]["k"] == k)
    values = part[column].reshape(-1, p["samples"])
    return part["t"][: p["samples"]], values


def rates(data: Data, p: Parameters, column: str = "log_amplitude") -> np.ndarray:
    """Fitted decay rate of token k's amplitude, or norm, over |α|, (most, groups · systems)."""
    found = []
    for k in range(1, p["most"] + 1):
        t, values = _paths(data, p, k, column)
        late = t >= LATE * t[-1]
        found.append(-np.polyfit(t[late], values[:, late].T, 1)[0])
    V = data["values"]["V"].reshape(-1, p["d"], p["d"])
    return np.array(found) / -np.linalg.eigvals(V).real.max(1)


def errors(data: Data, p: Parameters, column: str = "log_amplitude") -> np.ndarray:
    """Relative distance of the rates from 1/k, (most, groups · systems)."""
    return np.abs(rates(data, p, column) * np.arange(1, p["most"] + 1)[:, None] - 1)


def check(data: Data, p: Parameters) -> None:
    """Every fitted rate is |α|/k, α from the eigenvalues of V in the data; so is each of the norms shown."""
    for k, found in enumerate(errors(data, p), start=1):
        for number, error in enumerate(found):
            if not error <= CLOSE:
                which = f"group {number // p['systems']}, system {number % p['systems']}, token {k}"
                raise ContradictionError(
                    f"{which}: the rate differs by {100 * error:.2g} % from T14b's |α|/k"
                )
    if not (errors(data, p, "log_norm")[:, p["shown"]] <= CLOSE).all():
        raise ContradictionError("the norm of a token of the system shown does not decay at T14b's |α|/k")


def draw(data: Data, p: Parameters) -> Page:
    """Norms over time in one system; rates of all; their distance from |α|/k."""
    page = Page(figsize=(TEXT, 2.7))
    norms, rate, error = page.subplots(1, 3, width_ratios=(1.25, 1, 1))
    _norms(norms, data, p)
    k = np.arange(1, p["most"] + 1)
    for number, group in enumerate(p["groups"]):
        own = slice(number * p["systems"], (number + 1) * p["systems"])
        style = {"linestyle": "none", "markersize": 3.5, "markerfacecolor": "none", **STYLES[number]}
        rate.plot(k, rates(data, p)[:, own], **style)
        across = k[:, None] + 0.24 * (number - 0.5) + np.zeros(p["systems"])
        error.plot(across.ravel(), errors(data, p)[:, own].ravel(), label=group["label"], **style)
    rate.plot(k, 1 / k, label="T14b: $1/k$", **THEORY)
    rate.set(xscale="log", yscale="log", xlabel="token $k$", ylabel=r"measured rate $/\,|\alpha|$")
    rate.set_xticks(k, map(str, k))
    rate.set_yticks(1 / k, ["1", *(f"1/{number}" for number in k[1:])])
    rate.minorticks_off()
    rate.set_title("rates")
    rate.legend(loc="upper right")
    error.axhline(CLOSE, color=BLACK, linewidth=0.8, linestyle=":")
    error.set(
        yscale="log",
        xlabel="token $k$",
        ylabel=r"$|\,k\cdot\mathrm{rate}/|\alpha|-1|$",
        xticks=k,
        ylim=(1e-11, 0.1),
    )
    error.set_title("distance from $1/k$")
    error.legend(loc="lower right")
    return page


def _norms(axes: Axes, data: Data, p: Parameters) -> None:
    for k in range(1, p["most"] + 1):
        t, values = _paths(data, p, k, "log_norm")
        path = values[p["shown"]] / np.log(10)
        shown = t <= p["window"]
        axes.plot(t[shown], path[shown], color=BLUE, linewidth=1)
        last = np.flatnonzero(shown)[-1]
        axes.annotate(str(k), (t[last], path[last]), (2, 0), textcoords="offset points", va="center")
        half = t[: last + 1] >= t[last] / 2
        line = path[last] - (t[: last + 1] - t[last]) / k / np.log(10)
        axes.plot(t[: last + 1][half], line[half], **THEORY)
    axes.set(xlabel=r"time  $|\alpha|t$", ylabel=r"$\log_{10}\|x_k\|$", xlim=(0, p["window"]))
    axes.set_title(f"tokens $1$ to ${p['most']}$ of one system")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    positive, mixed = (group["scores"] for group in p["groups"])
    return (
        r"T14b under a causal mask, simulated: token $k$ decays at the rate $|\alpha|/k$, "
        rf"$\alpha=\max\mathrm{{Re}}\,\lambda(V)<0$. Random systems, $d={p['d']}$, $V$ Gaussian, shifted and "
        rf"scaled to $\alpha=-1$, kept only if no eigenvalue has modulus above {p['reach']:g}; "
        rf"{p['systems']} with $W=W^\top\succ0$ and scores up to {positive:g} at the start, {p['systems']} "
        rf"with indefinite $W$ and scores up to {mixed:g} (seed {p['seed']}); from larger starts the latter "
        r"may wait longer than one can simulate. Left: one of the former; dashed lines have slope $-1/k$. "
        rf"Middle: slope of $\log|\ell^\top x_k|$ over the last {100 * (1 - LATE):g}\,\% of "
        rf"$|\alpha|t\le{p['until']:g}\,k\,\max(k-1,1)$, $\ell$ the left eigenvector of $V$ for $\alpha$. "
        rf"Right: its relative distance from $1/k$; dotted, the {100 * CLOSE:g}\,\% that are tolerated. "
        r"Token 1 is linear, $\dot x_1=Vx_1$."
    )


FIGURE = Figure(
    name="causal_rates",
    title="Under a causal mask token k decays k times more slowly",
    statements=("T14b",),
    parameters={
        "groups": [
            {"label": "$W\\succ0$", "positive": 3, "scores": 4.0},
            {"label": "$W$ indefinite", "positive": 1, "scores": 0.05},
        ],
        "systems": 16,
        "d": 3,
        "most": 8,
        "shift": 1.0,
        "reach": 4.0,
        "until": 11.0,
        "samples": 201,
        "shown": 0,
        "window": 120.0,
        "seed": 1,
    },
    quick={"systems": 4, "samples": 121},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
