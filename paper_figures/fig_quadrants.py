"""T10: the signs of A and W_s give four regimes of the same four tokens."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Tensor

from numerics import AttentionSystem, integrate
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import BLACK, TEXT

SIGNS = {"++": (1, 1), "-+": (-1, 1), "--": (-1, -1), "+-": (1, -1)}
"""Of A and of W_s, in the order of the panels."""
SYMBOL = {1: r"\succ 0", -1: r"\prec 0"}
DISTANCES = {1: "distances grow", -1: "distances shrink"}
CONSENSUS = {1: "consensus unstable", -1: "consensus stable"}
ROUNDING = 1e-7
"""Of a form, relative to its largest value: the integrator's tolerance is 1e-8."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate the same tokens under the four sign patterns of diagonal A and W."""
    return {"paths": stack(_paths(p, signs, device) for signs in SIGNS)}


def _paths(p: Parameters, signs: str, device: torch.device) -> Table:
    a, w = SIGNS[signs]
    score, response = w * _diagonal(p["score"]), a * _diagonal(p["response"])
    times = torch.linspace(0, p["until"][signs], p["samples"], dtype=torch.float64)
    x = torch.tensor([p["tokens"]], dtype=torch.float64)
    system = AttentionSystem.from_response(score, response).to(device)
    states = integrate(system, x.to(device), times.to(device)).states[0].cpu()
    token = np.arange(states.shape[1])
    return table(signs=signs, t=times[:, None], token=token, x1=states[..., 0], x2=states[..., 1])


def _diagonal(values: list[float]) -> Tensor:
    return torch.diag(torch.tensor(values, dtype=torch.float64))[None]


def check(data: Data, p: Parameters) -> None:
    """The A-form of every pair never decreases (T1, for any sign of A)."""
    for signs, (a, _) in SIGNS.items():
        x = _states(data, p, signs)
        i, j = np.triu_indices(x.shape[1], 1)
        forms = a * ((x[:, i] - x[:, j]) ** 2 @ np.array(p["response"]))
        if (np.diff(forms, axis=0) < -ROUNDING * np.abs(forms).max()).any():
            raise ContradictionError(f"signs {signs}: the A-form of a pair decreases, which T1 excludes")


def _states(data: Data, p: Parameters, signs: str) -> np.ndarray:
    """Tokens (times, n, 2)."""
    paths = rows(data["paths"], data["paths"]["signs"] == signs)
    return np.stack([paths["x1"], paths["x2"]], -1).reshape(p["samples"], -1, 2)


def draw(data: Data, p: Parameters) -> Page:
    """Two by two panels: tokens from start (open) to end (filled) over the field of the consensus."""
    page = Page(figsize=(TEXT, TEXT))
    for axes, signs in zip(page.subplots(2, 2).flat, SIGNS, strict=True):
        _panel(axes, _states(data, p, signs), signs, p)
    return page


def _panel(axes: Axes, x: np.ndarray, signs: str, p: Parameters) -> None:
    a, w = SIGNS[signs]
    reach = 1.15 * max(1.0, np.abs(x).max())
    grid = np.linspace(-reach, reach, 13)
    across, up = np.meshgrid(grid, grid)
    V = a * w * np.array(p["score"]) / np.array(p["response"])
    axes.quiver(across, up, V[0] * across, V[1] * up, color="0.82", angles="xy")
    for token in range(x.shape[1]):
        (line,) = axes.plot(*x[:, token].T)
        axes.plot(*x[0, token], marker="o", markerfacecolor="white", color=line.get_color())
        axes.plot(*x[-1, token], marker="o", color=line.get_color())
    axes.plot(0, 0, marker="+", markersize=7, color=BLACK)
    title = f"$A {SYMBOL[a]}$, $W_s {SYMBOL[w]}$, to $t = {p['until'][signs]:g}$"
    axes.set_title(f"{title}\n{DISTANCES[a]}, {CONSENSUS[a * w]}")
    axes.set(
        xlabel="$x^{(1)}$", ylabel="$x^{(2)}$", aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach)
    )


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    response, score = (", ".join(f"{value:g}" for value in p[name]) for name in ("response", "score"))
    return (
        f"The same {len(p['tokens'])} tokens from start (open) to end (filled) under the four signs of $A$ "
        rf"and $W_s$; $|A| = \mathrm{{diag}}({response})$, $|W| = \mathrm{{diag}}({score})$. Arrows: the "
        r"flow $\dot x = Vx$ of equal tokens. Distances are those of the metric $|A|$ (T10). "
        "Cross: the origin."
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
    quick={"samples": 40},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
