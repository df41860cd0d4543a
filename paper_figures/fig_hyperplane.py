"""T17: tokens on one side of a hyperplane diverge at its rate, whatever the scores."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from numerics.encodings import alibi_bias, rotary_turns
from numerics.observables import hyperplane
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
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
    V, ell = _values(p, generator)
    x = families.random_tokens(p["systems"], p["n"], p["d"], 1.0, generator)
    x = x * hyperplane(x, ell).sign()[..., None]
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    states = simulate(_system(p, kind, V, generator), x, times, device, rtol=1e-9)
    z = torch.stack([hyperplane(part, ell) for part in states.unbind(1)], 1)
    size = (states.abs().amax((2, 3)) * ell.norm(dim=1)[:, None])[..., None]
    system, token = np.arange(len(V))[:, None, None], np.arange(p["n"])
    return table(kind=kind, system=system, t=times[:, None], token=token, z=z, size=size)


def _values(p: Parameters, generator: Generator) -> tuple[Tensor, Tensor]:
    """V and ℓ; none whose other eigenvalues make X so much larger than z that rounding blurs z."""
    pool = families.random_value_with_left_eigenvector(p["pool"], p["d"], p["rate"], generator)
    others = torch.linalg.eigvals(pool[0])
    mild = (others.real <= p["rate"] + 1e-6).all(1) & (others.abs() <= p["reach"]).all(1)
    kept = mild.nonzero().flatten()[: p["systems"]]
    return pool[0][kept], pool[1][kept]


def _system(p: Parameters, kind: str, V: Tensor, generator: Generator) -> AttentionSystem:
    """Gaussian W, or for rotary encodings Gaussian Q and K with W = QᵀK/√d, and scores of the kind."""
    batch, n, d = p["systems"], p["n"], p["d"]
    W = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
    if kind == "causal":
        return AttentionSystem(W, V, causal=True)
    if kind == "bias":
        return AttentionSystem(W, V, bias=alibi_bias(n, p["bias_slope"]).expand(batch, n, n))
    if kind == "positions":
        return AttentionSystem(W, V, positions=families.random_tokens(batch, n, d, 1.0, generator))
    if kind == "rotary":
        key = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
        return AttentionSystem.from_projections(W, key, V, turns=rotary_turns(n, d, base=p["rotary_base"]))
    return AttentionSystem(W, V)


def _two_sides(p: Parameters, start: dict, device: torch.device) -> Table:
    """z_i = ℓᵀx_i for d = 2, W = −I, V = λI and ℓ = (1, 0)."""
    eye = torch.eye(2, dtype=torch.float64)[None]
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    x = torch.tensor([start["tokens"]], dtype=torch.float64)
    states = simulate(AttentionSystem(-eye, p["rate"] * eye), x, times, device, rtol=1e-9)[0]
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


def leaving(t: np.ndarray, z: np.ndarray, size: np.ndarray, rate: float) -> np.ndarray:
    """Which systems, as of `_one_kind`, have a token not in 0 < e^{λt} min z(0) ≤ z_i ≤ e^{λt} max z(0)."""
    growth, slack = np.exp(rate * t)[:, None], ROUNDING * size
    low, high = growth * z[:, :1].min(2, keepdims=True), growth * z[:, :1].max(2, keepdims=True)
    return ~((low > 0) & (z >= low - slack) & (z <= high + slack)).all((1, 2))


def check(data: Data, p: Parameters) -> None:
    """Every z_i(t) lies between e^{λt} min z and e^{λt} max z; the two-sided start shrinks all the time."""
    for kind in KINDS:
        t, z, size = _one_kind(data, p, kind)
        if (outside := leaving(t, z, size, p["rate"])).any():
            raise ContradictionError(
                f"{KINDS[kind]}, system {outside.argmax()}: a token leaves T17's envelope"
            )
    t, z = _start(data, p, "one side")
    if leaving(t, z[None], np.abs(z).max(1)[None, :, None], p["rate"]).any():
        raise ContradictionError("W = −I, one side: a token leaves T17's envelope")
    if not (np.diff(np.abs(_start(data, p, "two sides")[1]), axis=0) < 0).all():
        raise ContradictionError("W = −I, two sides: a token grows, so it is no example of the contrary")


def _start(data: Data, p: Parameters, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times, and z of one of the two starts, (times, tokens)."""
    part = rows(data["two_sides"], data["two_sides"]["start"] == name)
    t, z = (part[column].reshape(p["samples"], -1) for column in ("t", "z"))
    return t[:, 0], z


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
    for start, color, style in zip(p["starts"], (DIVERGES, CONVERGES), ("-", "-."), strict=True):
        t, z = _start(data, p, start["name"])
        axes.plot(t, np.abs(z), color=color, linestyle=style, linewidth=1)
        if start["name"] == "one side":
            for level in (z[0].min(), z[0].max()):
                axes.plot(t, level * np.exp(p["rate"] * t), **THEORY)
    axes.text(0.05, 8, "one side", color=DIVERGES)
    axes.text(p["until"], 0.11, "two sides, mirrored", color=CONVERGES, ha="right")
    axes.set(yscale="log", xlim=(0, p["until"]), ylim=(0.09, 40), xlabel="$t$")
    axes.set_title(r"$|z_i(t)|$ for $W=-I$, $V=\lambda I$")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    return (
        rf"T17, simulated: $\ell^\top V=\lambda\ell^\top$, $\lambda={p['rate']:g}$, and all $n={p['n']}$ "
        rf"tokens start with $z_i=\ell^\top x_i>0$, $d={p['d']}$; {p['systems']} systems for "
        rf"each kind of scores, {p['shown']} of them drawn (seed {p['seed']}). $W$ is Gaussian, with rotary "
        rf"encoding (base {p['rotary_base']:g}) $W=Q^\top K/\sqrt d$ of Gaussian $Q$ and $K$; the bias "
        rf"has slope {p['bias_slope']:g}, absolute encodings are standard Gaussian. Of random $V$, Gaussian "
        r"but for the column that $\ell$ fixes, only those are kept whose eigenvalues have real part at most "
        rf"$\lambda$ and modulus at most {p['reach']:g}, so that rounding does not blur $z$. Each "
        r"$e^{-\lambda t}z_i$ stays between the smallest and the largest $z_j(0)$ of its system (dashed). "
        r"Last panel, $d=2$, $\ell=(1,0)$: with the same $W$ and $V$ tokens on one side grow within their "
        r"envelope, while two mirrored pairs, on both sides, shrink."
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
        "bias_slope": 0.5,
        "rotary_base": 10.0,
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
