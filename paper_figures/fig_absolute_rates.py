"""T12 and T12b: with an absolute encoding tokens vanish faster than without one, or not at all."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics import AttentionSystem, families
from paper_figures.fig_collapse import collapse_profile
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.simulate import simulate
from paper_figures.style import BLUE, GREEN, TEXT, THEORY, VERMILLION

KINDS = {"none": VERMILLION, "scores": BLUE, "scores and values": GREEN}
CLOSE = 0.02
"""Relative tolerance of an exponential rate, and of the exponent −1/2."""
LATE = 0.75
"""Share of the time after which a rate is fitted."""


def compute(p: Parameters, device: torch.device) -> Data:
    """One system with no encoding, in scores, in scores and values; many with one in scores only."""
    W, A, positions, x = _systems(p)
    value = torch.linalg.solve(A, W)
    rate = predicted(W.numpy(), value.numpy(), positions.numpy())
    number, n, d = np.arange(len(W)), p["n"], p["d"]
    i, j = np.indices((d, d))
    token, k = np.indices((n, d))
    one = torch.tensor([p["shown"]])
    return {
        "systems": table(system=number[:, None, None], i=i, j=j, W=W, V=value),
        "positions": table(system=number[:, None, None], token=token, k=k, position=positions),
        "kinds": stack(_kind(p, kind, W[one], value[one], positions[one], x[one], device) for kind in KINDS),
        "rates": _scaled(p, rate, W, value, positions, x, device),
    }


def _systems(p: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random W = Wᵀ ≻ 0, A = Aᵀ ≺ 0, encodings and tokens, of systems whose leading rate stands apart."""
    generator, batch, n, d = Generator().manual_seed(p["seed"]), p["pool"], p["n"], p["d"]
    W = families.random_form(batch, d, positive=d, generator=generator)
    A = families.random_form(batch, d, positive=0, generator=generator)
    positions = families.random_tokens(batch, n, d, p["encoding"], generator)
    x = families.random_tokens(batch, n, d, p["start"], generator)
    spectrum = -_spectrum(W.numpy(), torch.linalg.solve(A, W).numpy(), positions.numpy())
    apart = torch.from_numpy(spectrum[:, 1] > p["apart"] * spectrum[:, 0]).nonzero().flatten()
    kept = apart[: p["systems"]]
    return W[kept], A[kept], positions[kept], x[kept]


def _spectrum(W: np.ndarray, V: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Eigenvalues μ_k λ_l of P⁰ ⊗ V, P⁰ = softmax(p_iᵀWp_j), real and here negative; falling."""
    scores = positions @ W @ positions.swapaxes(1, 2)
    weights = np.exp(scores - scores.max(2, keepdims=True))
    attention = weights / weights.sum(2, keepdims=True)
    mu, lam = np.linalg.eigvals(attention).real, np.linalg.eigvals(V).real
    return -np.sort(-(mu[:, :, None] * lam[:, None]).reshape(len(W), -1))


def predicted(W: np.ndarray, V: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """min_k μ_k(P⁰)·|max Re λ(V)|, T12b's rate."""
    return -_spectrum(W, V, positions)[:, 0]


def _kind(
    p: Parameters, kind: str, W: Tensor, V: Tensor, positions: Tensor, x: Tensor, device: torch.device
) -> Table:
    """‖X‖, and ‖X + p‖, from t = 1 on."""
    switches = {} if kind == "none" else {"positions": positions, "positions_in": kind}
    exponents = torch.linspace(0, p["decades"], p["samples"], dtype=torch.float64)
    times = torch.cat([exponents.new_zeros(1), 10**exponents])
    system = AttentionSystem(W, V, **switches)
    states = simulate(system, x, times, device, rtol=1e-9, atol=1e-200)[0, 1:]
    norm, shifted = (part.flatten(1).norm(dim=1) for part in (states, states + positions))
    return table(kind=kind, t=times[1:], norm=norm, shifted=shifted)


def _scaled(
    p: Parameters, rate: np.ndarray, W: Tensor, V: Tensor, positions: Tensor, x: Tensor, device: torch.device
) -> Table:
    """Log ‖X‖ with the encoding in scores only, each system with its rate for a unit of time."""
    unit = torch.from_numpy(rate)[:, None, None]
    times = torch.linspace(0, p["until"], p["samples"], dtype=torch.float64)
    system, options = AttentionSystem(W, V / unit, positions=positions), {"rtol": 1e-9, "atol": 1e-200}
    states = simulate(system, x, times, device, method="dormand-prince", **options)
    log_norm = states.flatten(2).norm(dim=2).log()
    t = times.numpy() / rate[:, None]
    return table(system=np.arange(len(W))[:, None], t=t, log_norm=log_norm)


def _parts(data: Data, p: Parameters) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """W, V and encodings of all systems."""
    n, d = p["n"], p["d"]
    W, V = (data["systems"][name].reshape(-1, d, d) for name in ("W", "V"))
    return W, V, data["positions"]["position"].reshape(-1, n, d)


def rates(data: Data, p: Parameters) -> np.ndarray:
    """Fitted exponential rate of ‖X‖ for each system."""
    t, values = (data["rates"][name].reshape(-1, p["samples"]) for name in ("t", "log_norm"))
    late = slice(int(LATE * p["samples"]), None)
    lines = zip(t[:, late], values[:, late], strict=True)
    return np.array([-np.polyfit(*line, 1)[0] for line in lines])


def collapse(data: Data, p: Parameters) -> float:
    """√(n tr C*) of the shown system: T9's limit of √t ‖X‖."""
    W, V, _ = (part[p["shown"]] for part in _parts(data, p))
    return float(np.sqrt(p["n"] * np.trace(collapse_profile(W, W @ np.linalg.inv(V)))))


def _kind_rows(data: Data, kind: str) -> Table:
    return rows(data["kinds"], data["kinds"]["kind"] == kind)


def check(data: Data, p: Parameters) -> None:
    """T12b's rates, T12's limit −p, and T9's √(n tr C*/t) without encoding and for X + p."""
    expected = predicted(*_parts(data, p))
    for system, error in enumerate(np.abs(rates(data, p) / expected - 1)):
        if not error <= CLOSE:
            raise ContradictionError(
                f"scores only, system {system}: the rate differs by {100 * error:.2g} % from T12b's"
            )
    found, rate = _kind_rows(data, "scores"), expected[p["shown"]]
    window = (found["t"] * rate >= p["until"] / 4) & (found["t"] * rate <= p["until"])
    ratio = -np.polyfit(found["t"][window], np.log(found["norm"][window]), 1)[0] / rate
    if not abs(ratio - 1) <= CLOSE:
        raise ContradictionError(f"encoding in scores: the rate is {ratio:.3g} of T12b's")
    for kind, column in (("none", "norm"), ("scores and values", "shifted")):
        found = _kind_rows(data, kind)
        ratio = found[column][-1] * np.sqrt(found["t"][-1]) / collapse(data, p)
        if not abs(ratio - 1) <= CLOSE:
            raise ContradictionError(f"encoding in {kind}: the collapse is {ratio:.3g} of T9's")


def draw(data: Data, p: Parameters) -> Page:
    """Norms of one system under the three encodings; many with one in scores only; their rates."""
    page = Page(figsize=(TEXT, 2.8))
    kinds, decay, rate = page.subplots(1, 3, width_ratios=(1.35, 1, 1))
    own = predicted(*_parts(data, p))
    _three(kinds, data, p, float(own[p["shown"]]))
    t, values = (data["rates"][name].reshape(-1, p["samples"]) for name in ("t", "log_norm"))
    decay.plot((t * own[:, None]).T, (values - values[:, :1]).T / np.log(10), color=BLUE, linewidth=0.6)
    time = np.array([0, p["until"]])
    decay.plot(time, -time / np.log(10), **THEORY)
    decay.set(xlabel=r"time  $\mu\,|\alpha|\,t$", ylabel=r"$\log_{10}\,\|X\|/\|X(0)\|$", xlim=time)
    decay.set_title(f"in scores only, {len(own)} systems")
    rate.plot(own, rates(data, p), marker="o", linestyle="none", markerfacecolor="none", color=BLUE)
    ends = np.array([own.min() / 1.3, own.max() * 1.3])
    rate.plot(ends, ends, label="equal", **THEORY)
    rate.set(xscale="log", yscale="log", xlabel=r"T12b: $\mu\,|\alpha|$", ylabel=r"measured rate of $\|X\|$")
    rate.set_title("their rates")
    rate.legend(loc="upper left")
    return page


def _three(axes: Axes, data: Data, p: Parameters, rate: float) -> None:
    plain, scores, values = (_kind_rows(data, kind) for kind in KINDS)
    t = plain["t"]
    for found, color in zip((plain, scores, values), KINDS.values(), strict=True):
        axes.plot(t, found["norm"], color=color)
    axes.plot(t, values["shifted"], color=KINDS["scores and values"], linestyle=(0, (5, 1, 1, 1)))
    late = t >= p["until"] / rate / 100
    axes.plot(t[late], collapse(data, p) / np.sqrt(t[late]), **THEORY)
    anchor = np.searchsorted(t, 5 / rate)
    late = t >= 2 / rate
    axes.plot(t[late], scores["norm"][anchor] * np.exp(-rate * (t[late] - t[anchor])), **THEORY)
    axes.text(t[-1], 4.2, r"in scores and values: $\|X\|$", ha="right", color=KINDS["scores and values"])
    axes.text(t[-1], 0.6, r"$\|X+p\|$ then", ha="right", color=KINDS["scores and values"])
    axes.text(250, 0.017, "no encoding", color=KINDS["none"])
    axes.text(1.2, 3e-4, "in scores only", color=KINDS["scores"])
    axes.set(xscale="log", yscale="log", ylim=(1e-5, 15), xlim=(t[0], t[-1]))
    axes.set(xlabel="$t$", ylabel=r"$\|X\|$")
    axes.set_title("one system, three encodings")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    own = np.abs(rates(data, p) / predicted(*_parts(data, p)) - 1).max()
    return (
        rf"Absolute encodings at every layer, simulated; $n={p['n']}$, $d={p['d']}$, $W=W^\top\succ0$, "
        rf"$A=A^\top\prec0$, Gaussian encodings $p_i$ (standard deviation {p['encoding']:g}) and starts "
        rf"({p['start']:g}), seed {p['seed']}. Left: the same $W$, $V$, $p$ and start with the encoding in "
        r"scores and values ($x_i\to-p_i$, T12: dash-dotted $\|X+p\|$), in scores only (T12b) and without "
        r"one; dashed, $\sqrt{n\,\mathrm{tr}\,C^*/t}$ of T9 and an exponential of T12b's rate "
        r"$\mu|\alpha|$, $\mu=\min_k\mu_k(P^0)$, $\alpha=\max\mathrm{Re}\,\lambda(V)$. Middle: "
        rf"{p['systems']} systems with the encoding in scores only, dashed the slope $-1$. Right: rates "
        rf"fitted over the last quarter of those times, against $\mu|\alpha|$; they agree to "
        rf"{_percent(own)}. Only systems whose second rate exceeds the first by a factor of {p['apart']:g} "
        r"are kept. T12b is local: not every start must tend to 0."
    )


def _percent(share: float) -> str:
    """LaTeX of a small share, rounded up to a power of ten in percent."""
    return rf"$10^{{{int(np.ceil(np.log10(100 * share)))}}}\,\%$"


FIGURE = Figure(
    name="absolute_rates",
    title="Absolute encodings: exponential, algebraic or no collapse",
    statements=("T12", "T12b", "T9"),
    parameters={
        "systems": 40,
        "pool": 800,
        "n": 4,
        "d": 3,
        "encoding": 1.0,
        "start": 0.3,
        "apart": 1.25,
        "until": 40.0,
        "decades": 4.0,
        "samples": 121,
        "shown": 0,
        "seed": 1,
    },
    quick={"systems": 8, "samples": 61},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
