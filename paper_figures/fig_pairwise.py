"""T1: A-distances of pairs are monotone; Euclidean distances in the same runs are not."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Tensor

from numerics import AttentionSystem
from numerics.families import random_tokens
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.forms import means, pair_forms, require_growth
from paper_figures.simulate import simulate
from paper_figures.style import BLACK, SCENARIOS, TEXT, THEORY

RUNS = {"example": 1, "spread": 1, "contract": -1}
"""Runs with the sign of A: the two tokens of T1's example, then more tokens under both signs."""
COLOR = {1: SCENARIOS["pd"], -1: SCENARIOS["nd"]}
SIGNS = {
    1: ("", r"A \succ 0", "decrease", "decreasing"),
    -1: ("-", r"A \prec 0", "increase", "increasing"),
}
"""By the sign of A: sign of the form, A, what no form does, what some Euclidean distances do."""
FORM = r"(x_i - x_j)^\top A\,(x_i - x_j)"
ROUNDING = 1e-7
"""Of a form, relative to ‖A‖ max_i ‖x_i‖² at that time: the integrator's tolerance is 1e-8."""
QUOTIENT = 1e-2
"""Relative error of a three-point difference quotient at the first samples, far above h² f‴/(3 f′)."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Integrate the example, and the same random tokens under A and −A."""
    return {"paths": stack(_path(p, name, device) for name in RUNS)}


def _path(p: Parameters, name: str, device: torch.device) -> Table:
    system = AttentionSystem.from_response(_batch(p["score"]), _batch(_response(p, name)))
    generator = torch.Generator().manual_seed(p["seed"])
    pair = _batch([p["token"], [-value for value in p["token"]]])
    x = pair if name == "example" else random_tokens(1, p["n"], len(p["score"]), p["scale"], generator)
    times = p["until"][name] * torch.linspace(0, 1, p["samples"], dtype=torch.float64) ** p["power"][name]
    states = simulate(system, x, times, device)[0]
    token = np.arange(states.shape[1])
    return table(run=name, t=times[:, None], token=token, x1=states[..., 0], x2=states[..., 1])


def _batch(values: list | np.ndarray) -> Tensor:
    return torch.as_tensor(np.array(values, dtype=float))[None]


def _response(p: Parameters, name: str) -> np.ndarray:
    return RUNS[name] * np.diag(p["response"])


def _run(data: Data, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Times, and tokens (times, n, 2)."""
    path = rows(data["paths"], data["paths"]["run"] == name)
    t = np.unique(path["t"])
    return t, np.stack([path["x1"], path["x2"]], -1).reshape(len(t), -1, 2)


def rates(x: np.ndarray, W: np.ndarray, A: np.ndarray, M: np.ndarray) -> np.ndarray:
    """d/dt of the M-forms of all pairs: 2DᵀMḊ with D = x_i − x_j and Ḋ = A⁻¹W(m_i − m_j)."""
    i, j = np.triu_indices(x.shape[1], 1)
    speeds = means(x, W) @ np.linalg.solve(A, W).T
    return 2 * ((x[:, i] - x[:, j]) @ M * (speeds[:, i] - speeds[:, j])).sum(-1)


def _wrong(data: Data, p: Parameters, name: str) -> np.ndarray:
    """Where a squared Euclidean distance visibly falls (A ≻ 0) or grows (A ≺ 0), (times, pairs)."""
    _, x = _run(data, name)
    rate = rates(x, np.array(p["score"]), _response(p, name), np.eye(2))
    return RUNS[name] * rate < -p["visible"] * pair_forms(x, np.eye(2))


def check(data: Data, p: Parameters) -> None:
    """T1: no A-form of a pair decreases; the example's two rates are the stated ones."""
    for name in RUNS:
        _, x = _run(data, name)
        A = _response(p, name)
        slack = ROUNDING * np.linalg.norm(A, 2) * (np.linalg.norm(x, axis=2).max(1) ** 2)[1:, None]
        require_growth(pair_forms(x, A), slack, f"run {name}")
    t, x = _run(data, "example")
    W, A = np.array(p["score"]), _response(p, "example")
    for stated, M in zip(p["stated"], (np.eye(2), A), strict=True):
        rate = float(rates(x[:1], W, A, M)[0, 0])
        if round(rate, 2) != stated:
            raise ContradictionError(f"run example: the rate {rate:.4f} is not the {stated} of T1's example")
        form = pair_forms(x[:3], M)[:, 0]
        quotient = (4 * form[1] - 3 * form[0] - form[2]) / t[2]
        if not abs(quotient - rate) <= QUOTIENT * abs(rate):
            found = f"the path starts with the rate {quotient:.4f}, not {rate:.4f}"
            raise ContradictionError(f"run example: {found} as in T1's example")


def draw(data: Data, p: Parameters) -> Page:
    """A row for each run: A-forms and squared Euclidean distances of all pairs."""
    page = Page(figsize=(TEXT, 6.3))
    for (left, right), (name, sign) in zip(page.subplots(3, 2), RUNS.items(), strict=True):
        t, x = _run(data, name)
        forms, squares = sign * pair_forms(x, _response(p, name)), pair_forms(x, np.eye(2))
        left.plot(t, forms, color=COLOR[sign], linewidth=0.8)
        right.plot(t, squares, color=COLOR[sign], linewidth=0.8)
        right.plot(t, np.where(_wrong(data, p, name), squares, np.nan), color=BLACK, linewidth=1.8)
        minus, relation, never, black = SIGNS[sign]
        left.set_title(f"${relation}$, $n = {x.shape[1]}$: forms never {never} (T1)")
        right.set_title(f"the same pairs; black: {black}")
        left.set(xlabel="$t$", ylabel=f"${minus}{FORM}$")
        right.set(xlabel="$t$", ylabel=r"$\|x_i - x_j\|^2$")
        for axes, values, rate in ((left, forms, p["stated"][1]), (right, squares, p["stated"][0])):
            if name == "example":
                _tangent(axes, t[-1] / 2, values[0, 0], rate)
            else:
                axes.set(yscale="log")
            if p["power"][name] > 1:
                axes.set(xscale="log", xlim=(1e-4 * t[-1], t[-1]))
    return page


def _tangent(axes: Axes, until: float, value: float, rate: float) -> None:
    end = value + rate * until
    axes.plot([0, until], [value, end], **THEORY)
    axes.annotate(f"slope ${rate:g}$", (until, end), (0, -9 if rate > 0 else 5), textcoords="offset points")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    wrong = {name: _wrong(data, p, name).any(0) for name in RUNS}
    score = " and ".join(f"$({first:g}, {second:g})$" for first, second in p["score"])
    response, token = (", ".join(f"{value:g}" for value in p[name]) for name in ("response", "token"))
    return (
        rf"$W$ with rows {score}, $A = \pm\mathrm{{diag}}({response})$: simulated $A$-forms (left) and "
        r"squared Euclidean distances (right) of all pairs. T1: the form of no pair decreases for $A "
        r"\succ 0$, and minus the form increases for none if $A \prec 0$. Euclidean distances need not "
        rf"follow; black: where they go the other way, by more than a fraction {p['visible']:g} per unit "
        rf"of time. Top: tokens $\pm({token})$; dashed: the rates {p['stated'][1]:g} and "
        rf"${p['stated'][0]:g}$ at $t = 0$, from the derivative formula, to two decimals. Middle and "
        rf"bottom: the same {p['n']} Gaussian tokens (standard deviation {p['scale']:g}, seed "
        rf"{p['seed']}) under $A \succ 0$ and $A \prec 0$; {wrong['spread'].sum()} and "
        rf"{wrong['contract'].sum()} of the {wrong['spread'].size} Euclidean distances do so. Times up to "
        rf"{p['until']['example']:g}, {p['until']['spread']:g} and {p['until']['contract']:g}."
    )


FIGURE = Figure(
    name="pairwise",
    title="A-distances of pairs are monotone, Euclidean distances are not",
    statements=("T1",),
    parameters={
        "score": [[2.0, 3.0], [3.0, 5.0]],
        "response": [1.0, 10.0],
        "token": [1.0, -1.0],
        "stated": [-4.87, 6.09],
        "n": 8,
        "scale": 0.5,
        "until": {"example": 0.7, "spread": 1.2, "contract": 100.0},
        "power": {"example": 1, "spread": 1, "contract": 4},
        "samples": 1001,
        "visible": 1e-3,
        "seed": 3,
    },
    quick={"samples": 201},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
