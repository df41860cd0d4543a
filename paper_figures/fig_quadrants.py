"""T10: the signs of A and W_s give four regimes of the same four tokens."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Tensor

from numerics import AttentionSystem
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.forms import means, pair_forms
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, TEXT

SIGNS = {"++": (1, 1), "-+": (-1, 1), "--": (-1, -1), "+-": (1, -1)}
"""Of A and of W_s, in the order of the panels."""
SYMBOL = {1: r"\succ 0", -1: r"\prec 0"}
DISTANCES = {1: "distances grow", -1: "distances shrink"}
CONSENSUS = {1: "consensus unstable", -1: "consensus stable"}
QUADRATURE = 0.01
"""Of the trapezoidal rule along a path, relative to the path's length; measured below 0.002 at quick size."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate the same tokens under the four sign patterns of diagonal A and W."""
    parts = [_path(p, signs, device) for signs in SIGNS]
    return {"systems": stack(system for system, _ in parts), "paths": stack(path for _, path in parts)}


def _path(p: Parameters, signs: str, device: torch.device) -> tuple[Table, Table]:
    a, w = SIGNS[signs]
    system = AttentionSystem.from_response(w * _diagonal(p["score"]), a * _diagonal(p["response"]))
    times = torch.linspace(0, p["until"][signs], p["samples"], dtype=torch.float64)
    states = simulate(system, torch.tensor([p["tokens"]], dtype=torch.float64), times, device)[0]
    row, column = np.indices((2, 2))
    matrices = {name: getattr(system, name)[0] for name in ("score", "response", "value")}
    paths = table(
        signs=signs, t=times[:, None], token=np.arange(states.shape[1]), x1=states[..., 0], x2=states[..., 1]
    )
    return table(signs=signs, row=row, column=column, **matrices), paths


def _diagonal(values: list[float]) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))[None]


def _run(data: Data, signs: str) -> tuple[np.ndarray, ...]:
    """Times, tokens (times, n, 2), W, A and V."""
    system, path = (rows(part, part["signs"] == signs) for part in (data["systems"], data["paths"]))
    t = np.unique(path["t"])
    x = np.stack([path["x1"], path["x2"]], -1).reshape(len(t), -1, 2)
    return t, x, *(system[name].reshape(2, 2) for name in ("score", "response", "value"))


def check(data: Data, p: Parameters) -> None:
    """T10, strictly: the sign of A says how pairs move, the product with that of W_s how equal tokens do."""
    for signs, (a, w) in SIGNS.items():
        t, x, W, A, V = _run(data, signs)
        spectra = (np.linalg.eigvalsh(A), np.linalg.eigvalsh(W + W.T), np.linalg.eigvals(V).real)
        for name, sign, spectrum in zip(("A", "W_s", "Re λ(V)"), (a, w, a * w), spectra, strict=True):
            if not (sign * spectrum > 0).all():
                raise ContradictionError(f"signs {signs}: {name} has not the sign {sign:+d} that T10 says")
        if not (a * np.diff(pair_forms(x, a * A), axis=0) > 0).all():
            raise ContradictionError(f"signs {signs}: not all {DISTANCES[a]}, as T10 has it")
        speeds, steps = means(x, W) @ V.T, np.diff(x, axis=0)
        wrong = (steps - np.diff(t)[:, None, None] * (speeds[1:] + speeds[:-1]) / 2).sum(0)
        if not (np.linalg.norm(wrong, axis=1) <= QUADRATURE * np.linalg.norm(steps, axis=2).sum(0)).all():
            raise ContradictionError(f"signs {signs}: the paths are not those of this W and V")


def draw(data: Data, p: Parameters) -> Page:
    """Four panels: tokens from start (open) to end (filled) over the field of the consensus."""
    page = Page(figsize=(TEXT, 2.3))
    for axes, signs in zip(page.subplots(1, 4), SIGNS, strict=True):
        _panel(axes, data, signs)
    return page


def _panel(axes: Axes, data: Data, signs: str) -> None:
    a, w = SIGNS[signs]
    t, x, _, _, V = _run(data, signs)
    low, high = np.minimum(x.min((0, 1)), 0), np.maximum(x.max((0, 1)), 0)
    centre, half = (low + high) / 2, 0.6 * (high - low).max()
    grid = np.stack(np.meshgrid(*np.linspace(centre - half, centre + half, 9).T), -1)
    axes.quiver(*np.moveaxis(grid, -1, 0), *np.moveaxis(grid @ V.T, -1, 0), color="0.8", angles="xy")
    for token in np.moveaxis(x, 1, 0):
        (line,) = axes.plot(*token.T)
        axes.plot(*token[0], marker="o", markersize=4, markerfacecolor="white", color=line.get_color())
        axes.plot(*token[-1], marker="o", markersize=4, color=line.get_color())
    axes.plot(0, 0, marker="+", markersize=7, color=BLACK)
    axes.set_title(
        f"$A {SYMBOL[a]}$, $W_s {SYMBOL[w]}$, $t \\leq {t[-1]:g}$\n{DISTANCES[a]},\n{CONSENSUS[a * w]}"
    )
    (left, bottom), (right, top) = centre - half, centre + half
    axes.set(xlabel="$x^{(1)}$", aspect="equal", xlim=(left, right), ylim=(bottom, top))
    if signs == next(iter(SIGNS)):
        axes.set_ylabel("$x^{(2)}$")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    response, score = (", ".join(f"{value:g}" for value in p[name]) for name in ("response", "score"))
    return (
        f"The same {len(p['tokens'])} simulated tokens from start (open) to end (filled) under the four "
        rf"signs of $A$ and $W_s$; $|A| = \mathrm{{diag}}({response})$, $|W| = \mathrm{{diag}}({score})$. "
        r"T10: distances of pairs in the metric $|A|$ never shrink for $A \succ 0$ and never grow for "
        r"$A \prec 0$; here, tested between samples, all grow or shrink strictly. Arrows: the flow $\dot x = "
        r"Vx$ of equal tokens, unstable where the signs agree, else stable. Cross: the origin."
    )


FIGURE = Figure(
    name="quadrants",
    title="Four regimes of the same tokens, by the signs of A and W_s",
    statements=("T10", "T1"),
    parameters={
        "tokens": [[0.9, 0.3], [0.4, 0.8], [-0.2, 0.5], [0.7, -0.4]],
        "score": [1.0, 1.2],
        "response": [1.0, 2.0],
        "until": {"++": 1.6, "-+": 12.0, "--": 1.6, "+-": 3.0},
        "samples": 200,
    },
    quick={"samples": 80},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
