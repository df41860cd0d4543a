"""T10: the signs of A and W_s give four regimes of the same four tokens.

Run `python -m paper_figures.fig_quadrants OUT.png` (or .pdf, .svg).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from numerics import AttentionSystem, integrate

TOKENS = [[0.9, 0.3], [0.4, 0.8], [-0.2, 0.5], [0.7, -0.4]]
QUADRANTS = {(1, 1): 1.6, (-1, 1): 12.0, (-1, -1): 1.6, (1, -1): 3.0}
"""(sign of A, sign of W_s) and how long to follow the tokens, in units of the weights' rates."""

CAPTION = (
    "Four tokens from start (open) to end (filled), "
    "$|A| = \\mathrm{diag}(1, 2)$, $|W| = \\mathrm{diag}(1, 1.2)$;\n"
    "arrows: the flow $\\dot x = Vx$ of equal tokens; distances are those of the metric $|A|$"
)
CONSENSUS = {1: "consensus unstable", -1: "consensus stable"}
DISTANCES = {1: "distances grow", -1: "distances shrink"}


@dataclass(frozen=True)
class Quadrant:
    """Trajectories (times, n, 2) for one pair of signs, and V (2, 2): equal tokens follow ẋ = Vx."""

    signs: tuple[int, int]
    states: Tensor
    value: Tensor


def compute() -> list[Quadrant]:
    """Integrate the same tokens under the four sign patterns of diagonal A and W."""
    return [_quadrant(signs, horizon) for signs, horizon in QUADRANTS.items()]


def _quadrant(signs: tuple[int, int], horizon: float) -> Quadrant:
    response = signs[0] * torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64))[None]
    score = signs[1] * torch.diag(torch.tensor([1.0, 1.2], dtype=torch.float64))[None]
    system = AttentionSystem.from_response(score, response)
    times = torch.linspace(0, horizon, 200, dtype=torch.float64)
    solution = integrate(system, torch.tensor([TOKENS], dtype=torch.float64), times)
    _check(signs, solution.states[0], response[0])
    return Quadrant(signs, solution.states[0], system.value[0])


def _check(signs: tuple[int, int], states: Tensor, response: Tensor) -> None:
    """ArithmeticError if the data contradict T1: no picture of a statement that its data refute."""
    i, j = torch.triu_indices(len(TOKENS), len(TOKENS), 1)
    gaps = states[:, i] - states[:, j]
    forms = ((gaps @ response) * gaps).sum(-1)
    if (forms.diff(dim=0) < -1e-7 * forms.abs().amax()).any():
        raise ArithmeticError(f"signs {signs}: the pairwise A-form decreased, which T1 excludes")


def draw(quadrants: list[Quadrant]) -> Figure:
    """Two by two panels: tokens from start (open) to end (filled) over the field of the consensus."""
    figure = Figure(figsize=(7.0, 7.0), layout="constrained")
    figure.suptitle(CAPTION, fontsize=8)
    for axes, quadrant in zip(figure.subplots(2, 2).ravel(), quadrants, strict=True):
        _panel(axes, quadrant)
    return figure


def _panel(axes: Axes, quadrant: Quadrant) -> None:
    reach = 1.15 * max(1.0, quadrant.states.abs().max().item())
    grid = torch.linspace(-reach, reach, 13, dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    field = points @ quadrant.value.mT
    axes.quiver(*points.T, *field.T, color="0.8", angles="xy")
    for token in range(len(TOKENS)):
        path = quadrant.states[:, token]
        (line,) = axes.plot(*path.T, linewidth=1.5)
        axes.plot(*path[0], marker="o", markerfacecolor="white", color=line.get_color())
        axes.plot(*path[-1], marker="o", color=line.get_color())
    axes.plot(0, 0, marker="+", color="black")
    sign = {1: r"\succ 0", -1: r"\prec 0"}
    a, w = quadrant.signs
    until = f"t = {QUADRANTS[quadrant.signs]:g}"
    title = f"$A {sign[a]}$, $W_s {sign[w]}$, to ${until}$: {DISTANCES[a]},\n{CONSENSUS[a * w]}"
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("$x^{(1)}$")
    axes.set_ylabel("$x^{(2)}$")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def main(path: str) -> None:
    """Write the figure; the format follows the suffix."""
    temporary = Path(path).with_stem(f".{Path(path).stem}")
    draw(compute()).savefig(temporary, dpi=150)
    temporary.replace(path)


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) == 2 else "")
    if target.suffix not in (".png", ".pdf", ".svg") or not target.parent.is_dir():
        print("usage: python -m paper_figures.fig_quadrants OUT.png (or .pdf, .svg; in an existing folder)")
        sys.exit(2)
    main(str(target))
