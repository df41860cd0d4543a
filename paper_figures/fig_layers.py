"""T16, T16a, T1: token metrics layer by layer, for stacks that differ in the signs of A only."""

from functools import partial

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from matplotlib.ticker import LogLocator, NullFormatter
from torch import Generator, Tensor

from numerics import AttentionSystem, observables
from numerics.families import random_tokens
from numerics.layerwise import METRICS, SCENARIOS, Stacks, block, random_perceptron, random_stacks, run
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import SCENARIOS as COLOURS
from paper_figures.style import TEXT

KINDS = {"attention": "attention only", "blocks": "full blocks"}
"""In the order of the rows."""
LINES = {"pd": "-", "hd": "--", "nd": "-."}
MEANINGS = {"pd": r"pd: $A \succ 0$", "hd": r"hd: $A$ indefinite", "nd": r"nd: $A \prec 0$"}
PANELS = {
    "sharpness": "sharpness",
    "squared distances": r"$\Sigma_{ij}\|x_i - x_j\|^2\,/\,1000$",
    "cosine": r"mean cosine, $i \neq j$",
    "norm": r"mean $\|x_i\|$",
    "energy": r"$E\,/\,E(\mathrm{start})$",
}
LOGARITHMIC = {"squared distances": 1000, "norm": 1, "energy": 1}
"""Metrics on a logarithmic axis, and their unit there."""
QUARTILES = (0.25, 0.5, 0.75)
DEFINITE = ("pd", "nd")
"""Where the sign of Σx_iᵀAx_i cannot vary, so that E is shown relative to the start."""
ROUNDING = 1e-11
"""Relative, of float64 sums of up to n²d terms, some of which cancel; measured below 1e-14."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Run both kinds of layers from the same tokens, in all scenarios with the same seeds."""
    metrics, layers = [], []
    for scenario in SCENARIOS:
        stacks, states, blocks = _run(p, scenario, device)
        metrics += [_metrics("attention", scenario, states), _metrics("blocks", scenario, blocks)]
        layers.append(_layers(p, scenario, stacks, states))
    return {"metrics": stack(metrics), "layers": stack(layers)}


def _run(p: Parameters, scenario: str, device: torch.device) -> tuple[Stacks, Tensor, Tensor]:
    """The stacks, and the tokens (layers + 1, stacks, n, d) of attention alone and of full blocks."""
    batch, depth, d, generator = p["stacks"], p["layers"], p["d"], Generator().manual_seed(p["seed"])
    own, common = (random_tokens(batch, n, d, 1.0, generator) for n in (p["n"], 1))
    x = ((1 - p["alike"]) ** 0.5 * own + p["alike"] ** 0.5 * common).to(device)
    ranges = {"score": tuple(p["score"]), "response": tuple(p["response"]), "score_share": p["score_share"]}
    stacks = random_stacks(scenario, batch, depth, d, **ranges, generator=generator, device=device)
    attention = [partial(AttentionSystem.step, layer, h=p["step"]) for layer in stacks.layers]
    perceptrons = [random_perceptron(batch, d, generator, device) for _ in stacks.layers]
    full = [partial(block, layer, mlp) for layer, mlp in zip(stacks.layers, perceptrons, strict=True)]
    return stacks, run(attention, x), run(full, x)


def _metrics(kind: str, scenario: str, states: Tensor) -> Table:
    """Σ‖x_i‖² and the metrics, for every state of every stack."""
    columns = {name: metric(states).cpu() for name, metric in METRICS.items()}
    layer, number = np.arange(len(states))[:, None], np.arange(states.shape[1])
    squares = states.square().sum((-2, -1)).cpu()
    return table(kind=kind, scenario=scenario, layer=layer, stack=number, squares=squares, **columns)


def _layers(p: Parameters, scenario: str, stacks: Stacks, states: Tensor) -> Table:
    """What T16 and T1 speak about, for every layer of every stack of attention alone."""
    parts = [
        _layer(layer, stacks.response, before, after, p["step"])
        for layer, before, after in zip(stacks.layers, states[:-1], states[1:], strict=True)
    ]
    columns = {name: torch.stack([part[name] for part in parts]).cpu() for name in parts[0]}
    number = np.arange(1, len(parts) + 1)[:, None]
    return table(scenario=scenario, layer=number, stack=np.arange(states.shape[1]), **columns)


def _layer(layer: AttentionSystem, A: Tensor, before: Tensor, after: Tensor, h: float) -> dict[str, Tensor]:
    """E, the next E, Σe_i, Σ(Vm_i)ᵀA(Vm_i), λ, Γ; the least growth of a pair's A-form over the largest."""
    pairs, next_pairs = (observables.pairwise_form(x, A) for x in (before, after))
    smallest, gain = _whitened(layer.score, A)
    return {
        "energy": observables.token_energy(before, A).sum(1),
        "next_energy": observables.token_energy(after, A).sum(1),
        "attended": observables.attended_score(layer, before).sum(1),
        "moved": 2 * observables.token_energy((after - before) / h, A).sum(1),
        "smallest": smallest,
        "gain": gain,
        "growth": (next_pairs - pairs).amin(1) / pairs.abs().amax(1),
    }


def _whitened(W: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """λ_min(Ŵ_s) and Γ = ‖Ŵ‖² of Ŵ = |A|^(−1/2) W |A|^(−1/2); of use where A is definite."""
    sizes, axes = torch.linalg.eigh(A)
    root = (axes / sizes.abs().sqrt()[:, None]) @ axes.mT
    whitened = root @ W @ root
    smallest = torch.linalg.eigvalsh(observables.symmetric_part(whitened))[:, 0]
    return smallest, torch.linalg.matrix_norm(whitened, 2) ** 2


def check(data: Data, p: Parameters) -> None:
    """T16's balance in every layer; E grows for A ≻ 0, falls for A ≺ 0 and small steps; T1's A-distances.

    E is ½|Σx_iᵀAx_i|, as in T16 and T16a. The metrics are tested for what ties them together and to E.
    """
    for scenario in SCENARIOS:
        _check_balance(rows(data["layers"], data["layers"]["scenario"] == scenario), p["step"])
    growing = rows(data["layers"], data["layers"]["scenario"] == "pd")
    _require(growing["energy"] > 0, growing, "½ΣxᵀAx is not positive, yet A ≻ 0")
    _require(growing["next_energy"] > growing["energy"], growing, "E does not grow, which T16a excludes")
    _require(growing["growth"] >= -ROUNDING, growing, "an A-distance shrinks, which T1's argument excludes")
    falling = small_steps(data, p)
    fall, h = falling["next_energy"] - falling["energy"], p["step"]
    room = 2 * falling["smallest"] - p["n"] * h * falling["gain"]
    least = h * room * falling["attended"] / (2 * falling["smallest"])
    _require(falling["energy"] < 0, falling, "½ΣxᵀAx is not negative, yet A ≺ 0")
    _require(fall > 0, falling, "E does not fall, which T16 excludes")
    _require(fall >= least * (1 - ROUNDING), falling, "E falls by less than T16 says")
    for kind in KINDS:
        _check_metrics(rows(data["metrics"], data["metrics"]["kind"] == kind), data["metrics"], p)
    for scenario in DEFINITE:
        _check_size(data, p, scenario)


def small_steps(data: Data, p: Parameters) -> Table:
    """The layers with A ≺ 0 of which T16 speaks: h ≤ 2λ/(nΓ)."""
    layers = rows(data["layers"], data["layers"]["scenario"] == "nd")
    return rows(layers, p["step"] <= 2 * layers["smallest"] / (p["n"] * layers["gain"]))


def _check_balance(layers: Table, h: float) -> None:
    """½ΣyᵀAy − ½ΣxᵀAx = hΣe_i + (h²/2)Σ(Vm_i)ᵀA(Vm_i), y = x + hVm, for any signs."""
    rise = layers["next_energy"] - layers["energy"]
    balance = h * layers["attended"] + h**2 / 2 * layers["moved"]
    right = np.abs(rise - balance) <= ROUNDING * np.abs(layers["energy"]).max()
    _require(right, layers, "½ΣxᵀAx changes by another amount than T16's balance says")


def _check_metrics(metrics: Table, start: Table, p: Parameters) -> None:
    """Of one kind of layers: all starts are those of `start`; distances, norms and cosines belong together.

    With r = mean ‖x_i‖ and q = n²‖x̄‖² = nΣ‖x_i‖² − ½Σ_ij‖x_i − x_j‖²: q ≤ n²r² ≤ nΣ‖x_i‖², and the unit
    tokens' sum, of length √(n + n(n−1)·cosine), is within Σ|1 − ‖x_i‖/r| ≤ √(nΣ‖x_i‖²/r² − n²) of √q/r.
    """
    n, (squares, r) = p["n"], (metrics[name] for name in ("squares", "norm"))
    for name in ("squares", *METRICS):
        same = metrics[name] == np.resize(start[name][: p["stacks"]], len(r))
        _require(same | (metrics["layer"] > 0), metrics, f"{name}: another start than in the other runs")
    distances, slack = metrics["squared distances"], ROUNDING * squares
    ratio = np.abs(metrics["sharpness"] * 2 * (n - 1) * squares - distances) <= n * slack
    _require(ratio, metrics, "sharpness is not that of the squared distances")
    q = n * squares - distances / 2
    bounded = (q <= (n * r) ** 2 + n * slack) & (n * r**2 <= squares + slack)
    _require(bounded, metrics, "the mean norm is not one of tokens with these squares and distances")
    length = np.sqrt(np.maximum(n + n * (n - 1) * metrics["cosine"], 0))
    room = np.sqrt(np.maximum(n * squares / r**2 - n**2, 0)) + ROUNDING * n
    close = np.abs(length - np.sqrt(np.maximum(q, 0)) / r) <= room
    _require(close, metrics, "the mean cosine is not one of tokens with these norms and distances")


def _check_size(data: Data, p: Parameters, scenario: str) -> None:
    """A layer starts where the one before ended; 2E/Σ‖x_i‖² is between the extreme |eigenvalues| of A."""
    layers, metrics = (data[name] for name in ("layers", "metrics"))
    energies, layers = _energies(data, p, scenario), rows(layers, layers["scenario"] == scenario)
    same = np.isclose(layers["energy"], energies[:-1].ravel(), ROUNDING, 0)
    _require(same, layers, "E is not that after the layer before")
    own = rows(metrics, (metrics["kind"] == "attention") & (metrics["scenario"] == scenario))
    mean = 2 * np.abs(energies.ravel()) / own["squares"]
    low, high = p["response"]
    right = (low * (1 - ROUNDING) <= mean) & (mean <= high * (1 + ROUNDING))
    _require(right, own, "Σ‖x_i‖² is not that of tokens with this E")


def _require(right: np.ndarray, layers: Table, what: str) -> None:
    """ContradictionError naming the first layer where this is not so, if there is one."""
    if not right.all():
        scenario, number, at = (rows(layers, ~right)[name][0] for name in ("scenario", "layer", "stack"))
        raise ContradictionError(f"{scenario}, stack {at}, layer {number}: {what}")


def _energies(data: Data, p: Parameters, scenario: str) -> np.ndarray:
    """½ΣxᵀAx of attention alone at the start and after every layer, (layers + 1, stacks)."""
    layers = rows(data["layers"], data["layers"]["scenario"] == scenario)
    before, after = (layers[name].reshape(-1, p["stacks"]) for name in ("energy", "next_energy"))
    return np.concatenate([before[:1], after])


def draw(data: Data, p: Parameters) -> Page:
    """A row for each kind of layers, a column for each metric; the place without data holds the legend."""
    page = Page(figsize=(TEXT, 3.5))
    grid = page.subplots(len(KINDS), len(PANELS), sharex=True)
    for kind, line in zip(KINDS, grid, strict=True):
        line[0].set_ylabel(KINDS[kind])
        for metric, axes in zip(PANELS, line, strict=True):
            if (kind, metric) != ("blocks", "energy"):
                _panel(axes, data, p, kind, metric)
    for top, bottom, title in zip(*grid, PANELS.values(), strict=True):
        top.set_title(title)
        bottom.set(xlabel="layer", xlim=(0, p["layers"]), xticks=range(0, p["layers"] + 1, p["layers"] // 3))
    grid[0, -1].set_xlabel("layer")
    grid[0, -1].tick_params(labelbottom=True)
    grid[1, -1].axis("off")
    grid[1, -1].legend(*grid[0, 0].get_legend_handles_labels(), loc="center", handlelength=2.5)
    return page


def _panel(axes: Axes, data: Data, p: Parameters, kind: str, metric: str) -> None:
    for scenario, colour in COLOURS.items():
        if metric == "energy" and scenario not in DEFINITE:
            continue
        values = _values(data, p, kind, scenario, metric) / LOGARITHMIC.get(metric, 1)
        low, median, high = np.quantile(values, QUARTILES, axis=1)
        layer = np.arange(len(median))
        axes.plot(layer, median, color=colour, linestyle=LINES[scenario], label=MEANINGS[scenario])
        axes.fill_between(layer, low, high, color=colour, alpha=0.25, linewidth=0)
    if metric in LOGARITHMIC:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())


def _values(data: Data, p: Parameters, kind: str, scenario: str, metric: str) -> np.ndarray:
    """(layers + 1, stacks)."""
    if metric == "energy":
        energies = _energies(data, p, scenario)
        return energies / energies[0]
    metrics = data["metrics"]
    own = (metrics["kind"] == kind) & (metrics["scenario"] == scenario)
    return metrics[metric][own].reshape(-1, p["stacks"])


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    layers, spoken = data["layers"], len(small_steps(data, p)["layer"])
    of = int((layers["scenario"] == "nd").sum())
    scores, responses = p["score"], p["response"]
    return (
        f"Metrics of $n = {p['n']}$ tokens in dimension $d = {p['d']}$, layer by layer: median and "
        f"quartiles over {p['stacks']} random stacks of {p['layers']} layers (seed {p['seed']}). Each "
        r"stack has one $A = A^\top$, and in each layer a new $W$ with $W_s \succ 0$. The scenarios differ "
        "only in the signs of the eigenvalues of $A$: all, half (hd) or none positive. These have sizes "
        rf"in ${responses}$, those of $W_s$ are in ${scores}$, and $\|W_a\| / \|W\| = {p['score_share']}$. "
        f"Starts: Gaussian, expected cosine {p['alike']:g}. Top: layers $x_i + hVm_i$ with $h = "
        rf"{p['step']:g}$. $E = \frac12|\sum_i x_i^\top A x_i|$: if $A \succ 0$, it must grow at every "
        r"layer, whatever $h$ (T16a), and no $A$-distance may shrink (as in T1); if $A \prec 0$, it must "
        r"fall where $h \le 2\lambda/(n\Gamma)$, $\lambda = \lambda_{\min}(\hat W_s)$, $\Gamma = "
        rf"\|\hat W\|^2$ (T16): in {spoken} of {of} layers. The data were tested for this. $E$ is shown "
        r"relative to the start, but not for hd, where $\sum_i x_i^\top A x_i$ may change sign. On the "
        "other metrics nothing is claimed. Bottom: pre-layer-norm blocks with the same $W$ and $V$, without "
        "$h$, and a Gaussian perceptron; no statement is about them."
    )


FIGURE = Figure(
    name="layers",
    title="Token metrics layer by layer, by the signs of A: attention only and full blocks",
    statements=("T16", "T16a", "T1"),
    parameters={
        "n": 16,
        "d": 32,
        "layers": 24,
        "stacks": 200,
        "step": 1 / 32,
        "score": [0.16, 0.25],
        "response": [0.16, 0.25],
        "score_share": 0.3,
        "alike": 0.3,
        "seed": 1,
    },
    quick={"stacks": 20, "layers": 12, "n": 8, "d": 16},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
