"""T12, T12b, T13: the same tokens under every encoding, and how far rotary encoding can be certified."""

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.lines import Line2D
from matplotlib.typing import LineStyleType
from torch import Generator, Tensor

from numerics import AttentionSystem, Event, Observable, Quantity, Rotary, families, integrate, observables
from numerics.encodings import rotary_turns
from numerics.profile import profile
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, TEXT, THEORY, VERMILLION

ENCODINGS: dict[str, tuple[str, str, LineStyleType]] = {
    "none": ("none", BLACK, "-"),
    "input": ("absolute, input only", GREY, ":"),
    "values": ("absolute, scores and values", VERMILLION, "-"),
    "scores": ("absolute, scores only", ORANGE, "-"),
    "full": ("rotary, all coordinates", BLUE, "-"),
    "part": ("rotary, part of them", SKY, "--"),
    "diagonal": ("rotary, all, with $D = I$", GREEN, "-."),
}
"""Name, colour and line."""
SERIES = ((BLUE, "o"), (PURPLE, "s"), (ORANGE, "^"))
"""Colour and marker of each base in (c), and of each length n of a context in (d–f)."""
ADDED: dict[LineStyleType, str] = {"-": r"$D=\kappa W$", "--": r"$D=\kappa I$"}
MARGIN = r"margin $\eta$"
SAME = 1e-6
"""Of tokens of order 1: two integrations to a relative error of 1e-8 per step."""
LATE = 0.05
"""Relative: t·Cov remembers its start, by about 1/t (T9), and a decay the faster terms that it began with."""
LINEAR = (1e-7, 1e-2)
"""Sizes of tokens where the linearisation at 0 rules and the absolute tolerance 1e-10 does not show."""
ROUNDING = 1e-5
"""Of energies, relative: about a thousand steps, each to a relative error of 1e-8."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate one system under every encoding and random rotary systems; sweep the certified margin."""
    generator = Generator().manual_seed(p["seed"])
    return {
        **_paths(p, generator, device),
        "certified": stack(
            _certified(p, sign, base, generator, device) for sign in (-1, 1) for base in p["bases"]
        ),
        "margins": stack(_sweeps(p, generator)),
    }


def _projections(
    p: Parameters, systems: int, asymmetry: float, generator: Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Q and K with W = QᵀK, and |A|."""
    shape = (2, systems, p["d_k"], p["d"])
    key, other = torch.randn(*shape, dtype=torch.float64, generator=generator) / math.sqrt(p["d_k"])
    spectrum = tuple(p["spectrum"])
    form = families.random_form(systems, p["d"], positive=p["d"], spectrum=spectrum, generator=generator)
    return key + asymmetry * other, key, form


# Paths


def _paths(p: Parameters, generator: Generator, device: torch.device) -> Data:
    """Of Q = K, so that W = Wᵀ ≻ 0, and A ≺ 0."""
    n, d, d_k = p["n"], p["d"], p["d_k"]
    query, key, form = _projections(p, 1, 0.0, generator)
    x = families.random_tokens(1, n, d, p["scale"], generator)
    positions = families.random_tokens(1, n, d, p["position_scale"], generator)
    W, A, one = query.mT @ key, -form, torch.eye(d, dtype=torch.float64)[None]
    turns = rotary_turns(n, d_k, base=p["path_base"])
    part = rotary_turns(n, d_k, d_rot=p["d_rot"], base=p["path_base"])
    fixed = torch.eye(d_k + d, dtype=torch.float64).repeat(n, 1, 1)
    fixed[:, :d_k, :d_k] = turns
    extended = Rotary(torch.cat([query, one], 1), torch.cat([key, one], 1), fixed)
    switches = {
        "none": {},
        "input": {},
        "values": {"positions": positions, "positions_in": "scores and values"},
        "scores": {"positions": positions},
        "full": {"rotary": Rotary(query, key, turns)},
        "part": {"rotary": Rotary(query, key, part)},
        "diagonal": {"rotary": extended},
    }
    times = torch.cat([torch.zeros(1), torch.logspace(-2, math.log10(p["until"]), p["samples"] - 1)]).double()
    paths = []
    for encoding, switch in switches.items():
        score = W + one if encoding == "diagonal" else W
        system = AttentionSystem.from_response(score, A, **switch)
        start = x + positions if encoding == "input" else x
        states = simulate(system, start, times, device)[0]
        token, coordinate = np.arange(n)[:, None], np.arange(d)
        paths.append(
            table(encoding=encoding, t=times[:, None, None], token=token, coordinate=coordinate, x=states)
        )
    index = np.arange(d)
    return {
        "paths": stack(paths),
        "weights": table(row=index[:, None], column=index, W=W[0], A=A[0]),
        "positions": table(token=np.arange(n)[:, None], coordinate=index, p=positions[0]),
    }


# Certificates


def _margins(
    query: Tensor, key: Tensor, form: Tensor, n: int, base: float, d_rot: int, added: Tensor | None = None
) -> Tensor:
    """T13's η = λ_min(Ŵ_s + D̂_s) − max_r ‖Ŵ_r − Ŵ‖ in the metric M = |A|, with AV = ±(W + D).

    A pair of coordinates adds (cos rθ − 1) Q_fᵀK_f + (sin rθ) Q_fᵀJK_f to W_r − W.
    """
    smallest = observables.pencil_minimum(query.mT @ key + (0 if added is None else added), form)
    if d_rot == 0 or n == 1:
        return smallest
    inverse = torch.linalg.inv(torch.linalg.cholesky(form)).mT
    q, k = ((part @ inverse)[:, :d_rot].unflatten(1, (-1, 2)) for part in (query, key))
    turned = torch.stack([-k[:, :, 1], k[:, :, 0]], 2)
    angle = torch.arange(1, n)[:, None] * base ** (-2 * torch.arange(d_rot // 2).double() / d_rot)
    along, across = (torch.einsum("bfki,bfkj->bfij", q, part) for part in (k, turned))
    along = torch.einsum("rf,bfij->brij", angle.cos() - 1, along)
    across = torch.einsum("rf,bfij->brij", angle.sin(), across)
    apart = [torch.linalg.matrix_norm(along + sign * across, 2).amax(1) for sign in (1, -1)]
    return smallest - torch.maximum(*apart)


def _certified(p: Parameters, sign: int, base: float, generator: Generator, device: torch.device) -> Table:
    """Random rotary systems: margin, and the largest ½x_iᵀ|A|x_i at the start and at the last time."""
    query, key, form = _projections(p, p["systems"], p["asymmetry"], generator)
    x = families.random_tokens(p["systems"], p["n"], p["d"], p["certified_scale"], generator)
    rotary = Rotary(query, key, rotary_turns(p["n"], p["d_k"], base=base))
    system = AttentionSystem.from_response(query.mT @ key, sign * form, rotary=rotary)
    energy = Quantity((form / 2).to(device))
    start = observables.token_energy(x, form).amax(1)
    solution = integrate(
        system.to(device),
        x.to(device),
        until=p["certified_until"],
        events=(Event(energy, (start * p["growth"]).to(device), terminal=True),),
        observe=(Observable(energy),),
        method="dormand-prince",
        max_steps=p["max_steps"],
    )
    end = observables.token_energy(solution.states[:, -1].cpu(), form).amax(1)
    return table(
        sign=sign,
        base=float(base),
        margin=_margins(query, key, form, p["n"], base, p["d_k"]),
        start=start,
        time=solution.last_time.cpu(),
        end=torch.where(end.isnan(), solution.observed[:, 0].cpu(), end),
    )


def _sweeps(p: Parameters, generator: Generator) -> list[Table]:
    """Quartiles of the margin over random weights: by base, rotated share, and κ in D = κW and D = κI."""
    query, key, form = _projections(p, p["draws"], p["asymmetry"], generator)
    one, score, d_k, base = torch.eye(p["d"]).double(), query.mT @ key, p["d_k"], p["base"]
    found = []
    for n in p["contexts"]:
        points = [("base", b, (b, d_k)) for b in np.logspace(0, 6, p["points"]).tolist()]
        points += [("share", d_rot / d_k, (base, d_rot)) for d_rot in range(0, d_k + 1, p["d_rot_step"])]
        points += [
            (name, kappa, (base, d_k, kappa * D))
            for name, D in (("W", score), ("I", one))
            for kappa in np.linspace(0, p["largest_kappa"], p["points"]).tolist()
        ]
        for sweep, at, choice in points:
            low, middle, high = np.quantile(_margins(query, key, form, n, *choice), [0.25, 0.5, 0.75])
            found.append(table(sweep=sweep, n=[n], at=float(at), low=low, median=middle, high=high))
    return found


# Checks


def check(data: Data, p: Parameters) -> None:
    """T12's change of origin and limits, T12b's rate at zero, T13's bounds, and what D adds to the margin."""
    t, x = _path(data, p, "none")[0], {name: _path(data, p, name)[1] for name in ENCODINGS}
    W, A, positions = _weights(data, p)
    shifted = x["values"] + positions
    if not np.abs(shifted - x["input"]).max() < SAME:
        raise ContradictionError(
            "x_i + p_i, encoded in scores and values, differs from the plain system (T12)"
        )
    limit = np.trace(profile(*torch.tensor(np.array([[W], [A]])))[0])
    for name, z in (("none", x["none"]), ("values", shifted)):
        if not abs(t[-1] * (z[-1] ** 2).sum(-1).mean() / limit - 1) < LATE:
            raise ContradictionError(
                f"encoding {name}: the tokens do not tend to their limit as T9 and T12 say"
            )
    size = np.abs(x["scores"]).max((1, 2))
    near = np.flatnonzero((LINEAR[0] < size) & (size < LINEAR[1]))[-2:]
    if len(near) < 2:
        raise ContradictionError("encoded in the scores only, tokens do not come near 0, so T12b is not seen")
    found = -np.diff(np.log(size[near])) / np.diff(t[near])
    if not abs(found.item() / _rate_at_zero(data, p) - 1) < LATE:
        raise ContradictionError("encoded in the scores only, tokens near 0 do not decay at T12b's rate")
    _check_bounds(data["certified"], p)
    sweeps = data["margins"]
    for n in p["contexts"]:
        for name in "WI":
            margin = sweeps["median"][(sweeps["sweep"] == name) & (sweeps["n"] == n)]
            if not (np.diff(margin) > 0).all():
                raise ContradictionError(
                    f"D = κ{name}, n = {n}: the margin does not grow with κ, as T13 says"
                )


def _weights(data: Data, p: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, A and p of the paths."""
    W, A = (data["weights"][name].reshape(p["d"], p["d"]) for name in "WA")
    return W, A, data["positions"]["p"].reshape(p["n"], p["d"])


def _rate_at_zero(data: Data, p: Parameters) -> float:
    """T12b's μ |max Re λ(V)|."""
    W, A, positions = _weights(data, p)
    weight = np.exp(positions @ W @ positions.T)
    slowest = np.linalg.eigvals(weight / weight.sum(1, keepdims=True)).real.min()
    return float(-slowest * np.linalg.eigvals(np.linalg.solve(A, W)).real.max())


def _check_bounds(found: Table, p: Parameters) -> None:
    """E ≤ ρ + (E(0) − ρ)e^(−2ηt), ρ = κ_n/(2η), for A ≺ 0; E ≥ ρ + (E(0) − ρ)e^(2ηt) > ρ for A ≻ 0."""
    found = rows(found, found["margin"] > 0)
    sign, eta, start = found["sign"], found["margin"], found["start"]
    radius = observables.free_energy_gap(p["n"]) / (2 * eta)
    bound = radius + (start - radius) * np.exp(2 * sign * eta * found["time"])
    speaks = (sign < 0) | (start > radius)
    if (speaks & ~(sign * found["end"] >= sign * bound * (1 - sign * ROUNDING))).any():
        raise ContradictionError("rotary systems with a positive margin: an energy breaks T13's bound")


def _path(data: Data, p: Parameters, encoding: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (times,) and tokens (times, n, d)."""
    paths = rows(data["paths"], data["paths"]["encoding"] == encoding)
    shape = (p["samples"], p["n"], p["d"])
    return paths["t"].reshape(shape)[:, 0, 0], paths["x"].reshape(shape)


# Drawing


def draw(data: Data, p: Parameters) -> Page:
    """Norms, distances and T13's bound above; the certified margin by base, rotated share and D below."""
    page = Page(figsize=(TEXT, 5.4))
    upper, lower = page.subplots(2, 3)
    _draw_paths(upper[:2], data, p)
    _draw_bound(upper[2], data["certified"], p)
    _draw_margins(lower, data["margins"], p)
    lines = [Line2D([], [], color=c, linestyle=line, label=name) for name, c, line in ENCODINGS.values()]
    page.legend(handles=lines, loc="outside upper center", ncols=4, title="(a) and (b)")
    return page


def _draw_paths(panels: np.ndarray, data: Data, p: Parameters) -> None:
    for encoding, (_, colour, line) in ENCODINGS.items():
        t, x = _path(data, p, encoding)
        for axes, size in zip(panels, _sizes(x), strict=True):
            axes.loglog(t[1:], size[1:], color=colour, linestyle=line)
    limits = zip(
        panels, _sizes(_weights(data, p)[2][None]), (r"$\max\,\|p_i\|$", r"mean $\|p_i-p_j\|$"), strict=True
    )
    for axes, limit, name in limits:
        axes.axhline(limit.item(), **THEORY)
        axes.annotate(name, (1, limit.item()), (0, 4), ("axes fraction", "data"), "offset points", ha="right")
        axes.set(xlabel="$t$", ylim=(0.02, 10))
    panels[0].set_title(r"(a) largest $\|x_i\|$")
    panels[1].set_title(r"(b) mean $\|x_i-x_j\|$")


def _sizes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest norm and mean distance of tokens (times, n, d)."""
    tokens = torch.from_numpy(x)
    return observables.norms(tokens).amax(1).numpy(), observables.pairwise_distance(tokens).mean(1).numpy()


def _draw_bound(axes: Axes, found: Table, p: Parameters) -> None:
    found = rows(found, found["sign"] < 0)
    for base, (colour, marker) in zip(p["bases"], SERIES, strict=True):
        of = rows(found, found["base"] == base)
        style = {"color": colour, "marker": marker, "linestyle": "", "markersize": 3, "alpha": 0.7}
        axes.plot(of["margin"], of["end"], **style, label=f"$10^{{{math.log10(base):g}}}$")
    eta = np.geomspace(0.02, max(0.5, found["margin"].max()), 100)
    axes.plot(eta, observables.free_energy_gap(p["n"]) / (2 * eta), **THEORY)
    axes.annotate(
        r"$\kappa_n/(2\eta)$", (0, 20), (-4, 0), textcoords="offset points", ha="right", va="center"
    )
    axes.axvline(0, color=BLACK, linewidth=0.7)
    title = rf"(c) largest $-\frac{{1}}{{2}}x_i^\top Ax_i$ at $t={p['certified_until']:g}$"
    axes.set(yscale="log", ylim=(None, 2000), xlabel=MARGIN, title=title)
    axes.legend(title="base", loc="upper left")


def _draw_margins(panels: np.ndarray, found: Table, p: Parameters) -> None:
    for axes, sweeps in zip(panels, (("base",), ("share",), ("W", "I")), strict=True):
        for (colour, marker), n in zip(SERIES, p["contexts"], strict=True):
            for sweep, line in zip(sweeps, ("-", "--"), strict=False):
                of = rows(found, (found["sweep"] == sweep) & (found["n"] == n))
                axes.plot(
                    of["at"], of["median"], line, color=colour, marker=marker, markersize=3, label=f"$n={n}$"
                )
                if line == "-":
                    axes.fill_between(of["at"], of["low"], of["high"], color=colour, alpha=0.15, linewidth=0)
        axes.axhline(0, color=BLACK, linewidth=0.7)
    power = f"10^{{{math.log10(p['base']):g}}}"
    panels[0].set(xscale="log", xlabel="base", ylabel=MARGIN, title="(d) all coordinates rotated")
    panels[1].set(xlabel=r"rotated share $d_{\mathrm{rot}}/d_k$", title=f"(e) base ${power}$")
    panels[2].set(xlabel=r"$\kappa$", title=f"(f) base ${power}$, $W_r+D$")
    panels[1].legend(loc="lower left")
    lines = [Line2D([], [], color=BLACK, linestyle=line, label=name) for line, name in ADDED.items()]
    panels[2].legend(handles=lines, loc="upper left")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    found, low, high = data["certified"], *p["spectrum"]
    below = found["sign"] < 0
    positive = int((below & (found["margin"] > 0)).sum())
    final = _sizes(_path(data, p, "full")[1][-1:])[0].item()
    return (
        rf"(a, b) The same tokens ($n={p['n']}$, $d={p['d']}$, seed {p['seed']}) under every encoding; "
        rf"$W=Q^\top Q\succ0$ with $d_k={p['d_k']}$, $A=A^\top\prec0$; rotary encoding with base "
        rf"{p['path_base']:g}, of all or of {p['d_rot']} coordinates, or with $D=I$ added to the scores and "
        r"$AV=W+D$. Without encoding tokens shrink like $t^{-1/2}$ (T2, T9); an encoding of the input is "
        r"another start. In scores and values $x_i\to-p_i$ (T12; dashed: the limits). In the scores only, "
        rf"these tokens come near 0 and decay at T12b's rate {_rate_at_zero(data, p):.4f}. With all "
        rf"coordinates rotated the largest norm is still {final:.2f} at $t={p['until']:g}$; whether it tends "
        r"to 0 is open. (c--f) The margin $\eta=\lambda_{\min}(\hat W_s+\hat D_s)-\delta$ of T13, in "
        rf"floating point, for Gaussian $K$, Gaussian $Q-K$ {p['asymmetry']:g} times as large, and "
        r"eigenvalues of $-A$ uniform in "
        rf"$[{low:g},{high:g}]$. Where it is positive, T13 bounds the tokens (and for $-A$ lets large ones "
        rf"diverge; checked, not shown). (c) {int(below.sum())} simulated systems, $n={p['n']}$; the "
        rf"dashed radius $\kappa_n/(2\eta)$ of T13 is an ultimate bound for the {positive} with $\eta>0$; of "
        rf"the others T13 says nothing. (d--f) Median and quartiles of {p['draws']} draws, for contexts of "
        r"$n$ tokens. In (f) $V$ changes too, so that $AV=W+D$; if $V$ stays tied to $W$, a general $D$ "
        r"need not help (T13)."
    )


FIGURE = Figure(
    name="encodings",
    title="The same tokens under every encoding, and the margin that rotary encoding leaves",
    statements=("T12", "T12b", "T13", "T9"),
    parameters={
        "seed": 2,
        "n": 8,
        "d": 4,
        "d_k": 64,
        "spectrum": [0.5, 2.0],
        "scale": 1.0,
        "position_scale": 0.7,
        "path_base": 1.0,
        "d_rot": 16,
        "until": 1000.0,
        "samples": 120,
        "asymmetry": 0.3,
        "bases": [1.0, 100.0, 1e6],
        "systems": 60,
        "certified_scale": 3.0,
        "certified_until": 50.0,
        "growth": 10.0,
        "max_steps": 5000,
        "base": 1e4,
        "contexts": [8, 64, 512],
        "draws": 24,
        "points": 13,
        "d_rot_step": 4,
        "largest_kappa": 3.0,
    },
    quick={"samples": 40, "systems": 4, "contexts": [4, 8, 16], "draws": 5, "points": 5, "d_rot_step": 16},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
