"""T17: tokens on one side of a hyperplane diverge at its rate, whatever the scores."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families, integrate
from numerics.encodings import alibi_bias, rotary_turns
from numerics.observables import hyperplane
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import CONVERGES, DIVERGES, TEXT, THEORY

KINDS = {
    "plain": "full attention",
    "causal": "causal mask",
    "bias": "ALiBi bias",
    "rotary": "rotary encoding",
    "positions": "absolute encoding in scores",
}
"""The scores, in the order of the panels."""
ROUNDING = 1e-7
"""Of z_i, relative to ‖ℓ‖ times the largest entry of X, to which the integrator keeps 1e-9 per step."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Random W and V, ℓᵀV = λℓᵀ, under five kinds of scores; and one W, V with one- and two-sided starts."""
    return {
        "one_side": stack(_one_side(p, number, kind, device) for number, kind in enumerate(KINDS)),
        "two_sides": stack(_two_sides(p, start, device) for start in p["starts"]),
    }


def _one_side(p: Parameters, number: int, kind: str, device: torch.device) -> Table:
    generator = Generator().manual_seed(p["seed"] + number)
    batch, n, d = p["systems"], p["n"], p["d"]
    V, ell = _values(p, generator)
    x = families.random_tokens(batch, n, d, 1.0, generator)
    x = x * hyperplane(x, ell).sign()[..., None]
    system = _system(kind, batch, n, d, V, generator).to(device)
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    states = integrate(system, x.to(device), times.to(device), rtol=1e-9).states.cpu()
    z = torch.stack([hyperplane(part, ell) for part in states.unbind(1)], 1)
    size = (states.abs().amax((2, 3)) * ell.norm(dim=1)[:, None])[..., None]
    number = np.arange(batch)[:, None, None]
    return table(kind=kind, system=number, t=times[:, None], token=np.arange(n), z=z, size=size)


def _values(p: Parameters, generator: Generator) -> tuple[Tensor, Tensor]:
    """V and ℓ; none whose other eigenvalues make X so much larger than z that rounding blurs z."""
    pool = families.random_value_with_left_eigenvector(p["pool"], p["d"], p["rate"], generator)
    others = torch.linalg.eigvals(pool[0])
    mild = (others.real <= p["rate"] + 1e-6).all(1) & (others.abs() <= p["reach"]).all(1)
    kept = mild.nonzero().flatten()[: p["systems"]]
    return pool[0][kept], pool[1][kept]


def _system(kind: str, batch: int, n: int, d: int, V: Tensor, generator: Generator) -> AttentionSystem:
    """Gaussian scores of the kind."""
    W = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
    if kind == "causal":
        return AttentionSystem(W, V, causal=True)
    if kind == "bias":
        return AttentionSystem(W, V, bias=alibi_bias(n, 0.5).expand(batch, n, n))
    if kind == "positions":
        return AttentionSystem(W, V, positions=families.random_tokens(batch, n, d, 1.0, generator))
    if kind == "rotary":
        key = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
        return AttentionSystem.from_projections(W, key, V, turns=rotary_turns(n, d, base=10.0))
    return AttentionSystem(W, V)


def _two_sides(p: Parameters, start: dict, device: torch.device) -> Table:
    """z_i = ℓᵀx_i for d = 2, W = −I, V = λI and ℓ = (1, 0)."""
    eye = torch.eye(2, dtype=torch.float64)[None]
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    x = torch.tensor([start["tokens"]], dtype=torch.float64)
    system = AttentionSystem(-eye, p["rate"] * eye).to(device)
    states = integrate(system, x.to(device), times.to(device), rtol=1e-9).states[0].cpu()
    return table(start=start["name"], t=times[:, None], token=np.arange(x.shape[1]), z=states[..., 0])


def _one_kind(data: Data, p: Parameters, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, z and size, (systems, times, tokens)."""
    part = rows(data["one_side"], data["one_side"]["kind"] == kind)
    t, z, size = (part[name].reshape(p["systems"], p["samples"], p["n"]) for name in ("t", "z", "size"))
    return t[0, :, 0], z, size


def scaled(t: np.ndarray, z: np.ndarray, rate: float) -> np.ndarray:
    """z_i e^{−λt}, 0 at the smallest z_j(0) and 1 at the largest."""
    low, high = z[:, :1].min(2, keepdims=True), z[:, :1].max(2, keepdims=True)
    return (z * np.exp(-rate * t)[:, None] - low) / (high - low)


def check(data: Data, p: Parameters) -> None:
    """Every z_i(t) lies between e^{λt} min z and e^{λt} max z; the two-sided start does not diverge."""
    for kind in KINDS:
        t, z, size = _one_kind(data, p, kind)
        growth, slack = np.exp(p["rate"] * t)[:, None], ROUNDING * size
        low, high = growth * z[:, :1].min(2, keepdims=True), growth * z[:, :1].max(2, keepdims=True)
        outside = ~((z >= low - slack) & (z <= high + slack))
        if (z[:, 0] <= 0).any() or outside.any():
            system = np.argwhere(outside)[0][0] if outside.any() else 0
            raise ContradictionError(f"{KINDS[kind]}, system {system}: a token leaves T17's envelope")
    growth = np.exp(p["rate"] * p["until"])
    z = {start["name"]: np.abs(_start(data, p, start["name"])) for start in p["starts"]}
    if not (z["one side"][-1] >= growth * z["one side"][0].min() * (1 - ROUNDING)).all():
        raise ContradictionError("W = −I, one side: a token leaves T17's envelope")
    if not (z["two sides"][-1] < z["two sides"][0]).all():
        raise ContradictionError("W = −I, two sides: a token grows, so it is no example of the contrary")


def _start(data: Data, p: Parameters, name: str) -> np.ndarray:
    """z of one of the two starts, (times, tokens)."""
    return data["two_sides"]["z"][data["two_sides"]["start"] == name].reshape(p["samples"], -1)


def draw(data: Data, p: Parameters) -> Page:
    """One panel for each kind of scores, and one for starts on one side and on two."""
    page = Page(figsize=(TEXT, 4.0))
    panels = page.subplots(2, 3)
    for axes, (kind, title) in zip(panels.flat, KINDS.items(), strict=False):
        t, z, _ = _one_kind(data, p, kind)
        for curves in scaled(t, z, p["rate"])[: p["shown"]]:
            axes.plot(t, curves, color=DIVERGES, linewidth=0.6)
        for level in (0, 1):
            axes.axhline(level, zorder=3, **THEORY)
        axes.set(xlim=(0, t[-1]), ylim=(-0.06, 1.06), xlabel="$t$", yticks=[])
        axes.set_title(title)
    for axes in panels[:, 0]:
        axes.set_yticks([0, 1], [r"$\min_j z_j(0)$", r"$\max_j z_j(0)$"])
        axes.set_ylabel(r"$e^{-\lambda t}z_i(t)$")
    _starts(panels[1, 2], data, p)
    return page


def _starts(axes: Axes, data: Data, p: Parameters) -> None:
    t = np.linspace(0, p["until"], p["samples"])
    for start, color, style in zip(p["starts"], (DIVERGES, CONVERGES), ("-", "-."), strict=True):
        z = _start(data, p, start["name"])
        axes.plot(t, np.abs(z), color=color, linestyle=style, linewidth=1)
        if start["name"] == "one side":
            for level in (z[0].min(), z[0].max()):
                axes.plot(t, level * np.exp(p["rate"] * t), **THEORY)
    axes.text(0.05, 8, "one side", color=DIVERGES)
    axes.text(t[-1], 0.11, "two sides, mirrored", color=CONVERGES, ha="right")
    axes.set(yscale="log", xlim=(0, t[-1]), ylim=(0.09, 40), xlabel="$t$")
    axes.set_title(r"$|z_i(t)|$ for $W=-I$, $V=\lambda I$")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    return (
        rf"T17, simulated: $\ell^\top V=\lambda\ell^\top$, $\lambda={p['rate']:g}$, and all $n={p['n']}$ "
        rf"tokens start with $z_i=\ell^\top x_i>0$, $d={p['d']}$; Gaussian $W$, {p['systems']} systems for "
        rf"each kind of scores, {p['shown']} of them drawn (seed {p['seed']}; of random $V$ those without "
        r"eigenvalues of larger real part, so that rounding does not blur $z$). Each $e^{-\lambda t}z_i$ "
        r"stays between the smallest and the largest $z_j(0)$ of its system (dashed). Last panel, $d=2$, "
        r"$\ell=(1,0)$: with the same $W$ and $V$ tokens on one side grow within their envelope, while "
        r"two mirrored pairs, on both sides, shrink."
    )


FIGURE = Figure(
    name="hyperplane",
    title="One side of a hyperplane: an envelope for any scores",
    statements=("T17",),
    parameters={
        "systems": 40,
        "pool": 4000,
        "reach": 3.0,
        "shown": 8,
        "n": 5,
        "d": 4,
        "rate": 1.0,
        "until": 3.0,
        "samples": 61,
        "starts": [
            {"name": "one side", "tokens": [[1.0, 0.5], [0.4, -0.3], [0.7, 0.8], [0.25, 0.1]]},
            {"name": "two sides", "tokens": [[1.0, 0.5], [-1.0, -0.5], [0.4, -0.8], [-0.4, 0.8]]},
        ],
        "seed": 1,
    },
    quick={"systems": 10, "samples": 31},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
