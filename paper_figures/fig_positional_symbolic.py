"""S1: a head both nearly positional and nearly symbolic attends nearly uniformly; scores of built heads."""

from collections.abc import Iterable, Iterator
from math import log, pi

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Generator, Tensor

from numerics.encodings import rotary_turns
from numerics.positional_symbolic import (
    behaviour,
    logit_variance,
    mean_square_deviations,
    rotary_logits,
    rotary_pair_logits,
)
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, TEXT, THEORY, VERMILLION

COLORS = {"positional": VERMILLION, "symbolic": BLUE}
ROUNDING = 1e-10
"""Of float64 sums of at most m² logits below 100; relative to a variance, or absolute if it is below 1."""
TITLES = ("built heads", "positional", "symbolic", "heads of one frequency", "exclusion (S1)")
KINDS = {"frequency": "one frequency", "rotary": "rotary", "interpolated": "interpolated"}
SCORES = ("positional", "symbolic", "entropy")


def compute(p: Parameters, device: torch.device) -> Data:
    """Score the heads, and take S1's deviations from the same logits."""
    generator = Generator().manual_seed(p["seed"])
    own = torch.randn(p["keys"], dtype=torch.float64, generator=generator)
    rotary, rotary_vectors = _rotary(p, generator, device)
    scanned, vectors = zip(*(_scanned(p, share, generator, device) for share in p["shares"]), strict=True)
    return {
        "own": table(key=np.arange(p["keys"]), logit=own),
        "interpolated": _interpolated(p, own.to(device)),
        "rotary": rotary,
        "rotary_vectors": rotary_vectors,
        "frequency": stack(scanned),
        "frequency_vectors": stack(vectors),
        "map": stack(_layer(p, layer, generator, device) for layer in range(p["layers"])),
    }


def _measured(p: Parameters, logits: Tensor) -> dict[str, Tensor]:
    found = behaviour(logits, p["blocks"], p["temperature"])
    columns = {name: getattr(found, name) for name in SCORES}
    columns["variance"] = logit_variance(logits)
    columns["positional_deviation"], columns["symbolic_deviation"] = mean_square_deviations(logits)
    return {name: column.cpu() for name, column in columns.items()}


def _interpolated(p: Parameters, own: Tensor) -> Table:
    """M_kj = (1 − s) λ_j + s λ_k: positional at s = 0, S1's case of equality at ½, symbolic at 1."""
    size = torch.tensor(p["sizes"], dtype=torch.float64)[:, None]
    share = torch.linspace(0, 1, p["steps"], dtype=torch.float64)
    logits, part = (size.to(own)[..., None] * own)[..., None, :], share.to(own)[:, None, None]
    return table(size=size, share=share, **_measured(p, (1 - part) * logits + part * logits.mT))


def _query_and_keys(
    heads: int, m: int, d_k: int, share: float | Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """A query of length 1; keys √(1 − s) μ + √s ξ_k, |μ| = 1, Gaussian ξ_k of mean square length 1."""
    content = torch.as_tensor(share, dtype=torch.float64).expand(heads)[:, None, None]
    pair = torch.randn(2, heads, d_k, dtype=torch.float64, generator=generator)
    query, common = torch.nn.functional.normalize(pair, dim=-1)
    own = torch.randn(heads, m, d_k, dtype=torch.float64, generator=generator) / d_k**0.5
    return query, (1 - content).sqrt() * common[:, None] + content.sqrt() * own


def _vectors(query: Tensor, keys: Tensor) -> Table:
    """Pairs of coordinates of each head's keys and, as token m, of its query."""
    pairs = torch.cat([keys, query[:, None]], 1).cpu().unflatten(-1, (-1, 2))
    head, token, pair = (np.arange(size) for size in pairs.shape[:-1])
    head, token = head[:, None, None], token[:, None]
    return table(head=head, token=token, pair=pair, first=pairs[..., 0], second=pairs[..., 1])


def _rotary(p: Parameters, generator: Generator, device: torch.device) -> tuple[Table, Table]:
    """Heads of several frequencies, with a random share of content and a random size of the query."""
    heads, m, d_k = p["rotary_heads"], p["keys"], p["d_k"]
    share, exponent = torch.rand(2, heads, dtype=torch.float64, generator=generator)
    query, keys = _query_and_keys(heads, m, d_k, share, generator)
    query = d_k**0.5 * p["largest"] ** exponent[:, None] * query
    turns = rotary_turns(m + 1, d_k, base=p["base"])
    logits = rotary_logits(query.to(device), keys.to(device), turns.to(device))
    return table(head=np.arange(heads), **_measured(p, logits)), _vectors(query, keys)


def _scan(
    p: Parameters, share: float, heads: int, frequencies: Tensor, generator: Generator, device: torch.device
) -> tuple[dict[str, Tensor], Table]:
    """The same random heads turning at each of the frequencies, (frequencies, heads); the first's vectors."""
    query, keys = _query_and_keys(heads, p["keys"], 2, share, generator)
    query, keys = p["query"] * query.to(device), keys.to(device)
    turned = (rotary_pair_logits(query, keys, frequency.to(device)) for frequency in frequencies[:, None])
    parts = [_measured(p, logits[:, 0]) for logits in turned]
    return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}, _vectors(
        query[:1], keys[:1]
    )


def _scanned(p: Parameters, share: float, generator: Generator, device: torch.device) -> tuple[Table, Table]:
    """Log-spaced frequencies, and the two that a swap of blocks cannot see."""
    first, last = p["decades"]
    spaced = torch.logspace(first, last, p["frequencies"], dtype=torch.float64)
    frequencies = torch.cat([spaced, torch.tensor(_blind(p), dtype=torch.float64)]).sort().values
    found, vectors = _scan(p, share, p["heads"], frequencies, generator, device)
    scanned = table(share=share, frequency=frequencies[:, None], head=np.arange(p["heads"]), **found)
    return scanned, vectors


def _blind(p: Parameters) -> list[float]:
    """Frequencies up to π at which a block's length is a whole number of turns."""
    length = p["keys"] // p["blocks"]
    return [2 * pi * turns / length for turns in range(1, length // 2 + 1)]


def _layer(p: Parameters, layer: int, generator: Generator, device: torch.device) -> Table:
    """Means over draws; s rises from 0 to 1 with the layer, the frequency falls to 0 with the head."""
    share = layer / (p["layers"] - 1)
    frequencies = torch.tensor([*p["map_frequencies"], 0.0], dtype=torch.float64)
    found, _ = _scan(p, share, p["draws"], frequencies, generator, device)
    means = {name: found[name].mean(1) for name in COLORS}
    return table(
        layer=layer + 1, head=np.arange(len(frequencies)) + 1, frequency=frequencies, share=share, **means
    )


def check(data: Data, p: Parameters) -> None:
    """S1's bounds for every head; all columns by definition where the head is kept; pure and blind heads."""
    for kind in KINDS:
        _check_exclusion(kind, data[kind], p)
    interpolated, built, scanned = data["interpolated"], data["map"], data["frequency"]
    _check_one("positional heads", interpolated["positional"][interpolated["share"] == 0])
    _check_one("symbolic heads", interpolated["symbolic"][interpolated["share"] == 1])
    for score, keep in (("positional", built["share"] == 0), ("symbolic", built["frequency"] == 0)):
        _check_one(f"map, {score} heads", built[score][keep])
    _check_one("frequencies of whole turns", scanned["symbolic"][np.isin(scanned["frequency"], _blind(p))])
    equal = rows(interpolated, interpolated["share"] == 0.5)
    if not np.allclose(
        equal["positional_deviation"] + equal["symbolic_deviation"], equal["variance"], ROUNDING
    ):
        raise ContradictionError("interpolated heads: S1 holds without equality at s = ½")
    _check_columns("interpolated", interpolated, _interpolated_logits(data), p)
    _check_columns("rotary", data["rotary"], _rotary_logits(data, p), p)
    _check_columns("frequency", rows(scanned, scanned["head"] == 0), _frequency_logits(data, p), p)
    for kind in (*KINDS, "map"):
        scores = np.stack([data[kind][name] for name in COLORS])
        if not ((scores >= 0) & (scores <= 1 + ROUNDING)).all():
            raise ContradictionError(f"{kind} heads: a score is not between 0 and 1")


def _check_exclusion(kind: str, heads: Table, p: Parameters) -> None:
    variance, bound = heads["variance"], heads["positional_deviation"] + heads["symbolic_deviation"]
    if not (variance <= bound * (1 + ROUNDING)).all():
        raise ContradictionError(f"{kind} heads: Var(λ) exceeds S1's bound by the deviations")
    if not (heads["entropy"] >= log(p["keys"]) - np.sqrt(2 * p["keys"] * variance) - ROUNDING).all():
        raise ContradictionError(f"{kind} heads: the entropy is below log m − √(2m Var), which S1 excludes")


def _check_columns(kind: str, heads: Table, logits: Iterable[np.ndarray], p: Parameters) -> None:
    """Each column against its definition, head by head."""
    found = [_by_definition(M, p) for M in logits]
    scale = np.maximum(1, heads["variance"])
    for name in found[0]:
        if not (np.abs(heads[name] - [head[name] for head in found]) <= ROUNDING * scale).all():
            raise ContradictionError(f"{kind} heads: the {name} is not that of the logits")


def _by_definition(M: np.ndarray, p: Parameters) -> dict[str, float]:
    """Scores from whole texts with two blocks swapped; deviations as sums over all keys and places."""
    own, blocks = M.diagonal(), p["blocks"]
    pairs = np.stack(np.triu_indices(blocks, 1), 1)
    keys = np.tile(np.arange(len(M)).reshape(blocks, -1), (len(pairs), 1, 1))
    np.put_along_axis(keys, pairs[..., None], keys[0, pairs[:, ::-1]], 1)
    swapped = M[keys.reshape(len(pairs), -1), np.arange(len(M))]
    weights, after = _softmax(own), _softmax(swapped).reshape(len(pairs), blocks, -1).mean(2)
    old, new = weights.reshape(blocks, -1).mean(1)[pairs], np.take_along_axis(after, pairs, 1)
    lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    emphasis = _softmax(np.abs(old[:, 0] - old[:, 1]) / p["temperature"])
    return {
        "positional": emphasis @ ((new * old).sum(1) / lengths),
        "symbolic": emphasis @ ((new * old[:, ::-1]).sum(1) / lengths),
        "entropy": -(weights * np.log(weights)).sum(),
        "variance": own.var(),
        "positional_deviation": ((M - own) ** 2).mean(),
        "symbolic_deviation": ((M - own[:, None]) ** 2).mean(),
    }


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def _interpolated_logits(data: Data) -> Iterator[np.ndarray]:
    own = data["own"]["logit"]
    for size, share in zip(data["interpolated"]["size"], data["interpolated"]["share"], strict=True):
        yield size * ((1 - share) * own + share * own[:, None])


def _rotary_logits(data: Data, p: Parameters) -> list[np.ndarray]:
    frequencies = p["base"] ** (-2 * np.arange(p["d_k"] // 2) / p["d_k"])
    return [_turned(head, frequencies) for head in _complex(data["rotary_vectors"], p)]


def _frequency_logits(data: Data, p: Parameters) -> Iterator[np.ndarray]:
    frequencies = np.unique(data["frequency"]["frequency"])
    for head in _complex(data["frequency_vectors"], p):
        yield from (_turned(head, frequencies[[i]]) for i in range(len(frequencies)))


def _complex(vectors: Table, p: Parameters) -> np.ndarray:
    """(heads, m + 1, pairs)."""
    return (vectors["first"] + 1j * vectors["second"]).reshape(-1, p["keys"] + 1, vectors["pair"].max() + 1)


def _turned(head: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """M_kj = Re Σ_f q̄_f k_f exp(i(j − m)θ_f), the last row of `head` being q."""
    turns = np.exp(1j * frequencies[:, None] * np.arange(1 - len(head), 0))
    return (head[:-1] * head[-1].conj() @ turns).real


def _check_one(heads: str, scores: np.ndarray) -> None:
    if not np.allclose(scores, 1, 0, ROUNDING):
        raise ContradictionError(f"{heads}: a score is {scores[np.abs(scores - 1).argmax()]:.6g}, not 1")


def draw(data: Data, p: Parameters) -> Page:
    """The plane of both scores and the maps above; scores by frequency and S1's bound below."""
    page = Page(figsize=(TEXT, 5.9))
    axes = page.subplot_mosaic("aabc;ddee")
    _plane(axes["a"], data, p)
    _maps([axes["b"], axes["c"]], data["map"], p)
    _by_frequency(axes["d"], data["frequency"], p)
    _bound(axes["e"], data)
    for letter, title in zip("abcde", TITLES, strict=True):
        axes[letter].set_title(f"{letter}. {title}", loc="left")
    return page


def _plane(axes: Axes, data: Data, p: Parameters) -> None:
    heads, uniform = data["interpolated"], log(p["keys"])
    for size in p["sizes"]:
        line = rows(heads, heads["size"] == size)
        axes.plot(line["positional"], line["symbolic"], color="0.8", linewidth=0.8, zorder=1)
    style = {"vmin": 0, "vmax": 1, "edgecolors": BLACK, "linewidths": 0.3}
    for kind, marker, area in (("rotary", "D", 9), ("interpolated", "o", 20)):
        points = axes.scatter(
            data[kind]["positional"],
            data[kind]["symbolic"],
            area,
            data[kind]["entropy"] / uniform,
            marker=marker,
            label=kind,
            **style,
        )
    axes.legend(loc="lower left", bbox_to_anchor=(0, 0.02))
    axes.set(
        xlabel="positional score", ylabel="symbolic score", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal"
    )
    axes.figure.colorbar(points, ax=axes, label=r"entropy / $\log m$")


def _maps(panels: list[Axes], built: Table, p: Parameters) -> None:
    layers, heads = p["layers"], len(p["map_frequencies"]) + 1
    ticks = np.arange(1, heads + 1, 3)
    for axes, score in zip(panels, ("positional", "symbolic"), strict=True):
        cells = built[score].reshape(layers, heads)
        extent = (0.5, heads + 0.5, 0.5, layers + 0.5)
        image = axes.imshow(cells, vmin=0, vmax=1, origin="lower", aspect="auto", extent=extent)
        labels = [f"{[*p['map_frequencies'], 0][tick - 1]:.1g}" for tick in ticks]
        axes.set(xlabel=r"head, by its $\theta$", yticks=(1, layers))
        axes.set_xticks(ticks, labels)
    panels[0].set_ylabel(r"layer (share $s$ from 0 up to 1)")
    panels[1].figure.colorbar(image, ax=panels, label="score")


def _by_frequency(axes: Axes, scanned: Table, p: Parameters) -> None:
    blind = _blind(p)
    for marked in (1 / p["keys"], *blind):
        axes.axvline(marked, ymax=0.92, color=GREY, linewidth=0.8, linestyle=":")
    axes.text(1 / p["keys"], 1.04, "$1/m$", ha="center")
    if blind:
        axes.text((blind[0] * blind[-1]) ** 0.5, 1.04, r"$2\pi\ell/b$", ha="center")
    for share, style in zip(p["shares"], ("-", "--"), strict=True):
        part = rows(scanned, scanned["share"] == share)
        frequency = np.unique(part["frequency"])
        axes.plot([], [], style, color=BLACK, label=f"$s={share:g}$")
        for score, color in COLORS.items():
            low, median, high = _quartiles(part, score)
            axes.plot(frequency, median, style, color=color)
            axes.fill_between(frequency, low, high, color=color, alpha=0.15, linewidth=0)
    axes.text(frequency[0], 0.93, "symbolic", color=COLORS["symbolic"])
    axes.text(frequency[0], 0.41, "positional", color=COLORS["positional"])
    axes.set(xscale="log", xlabel=r"rotary frequency $\theta$", ylabel="score", ylim=(0, 1.11))
    axes.legend(loc="center left", bbox_to_anchor=(0.01, 0.6))


def _quartiles(part: Table, score: str) -> np.ndarray:
    """The three, (3, frequencies)."""
    heads = part[score].reshape(-1, part["head"].max() + 1)
    return np.quantile(heads, (0.25, 0.5, 0.75), axis=1)


def _bound(axes: Axes, data: Data) -> None:
    styles = {"frequency": (".", ORANGE, 2), "rotary": ("D", GREEN, 3), "interpolated": ("o", PURPLE, 5)}
    for kind, (marker, color, size) in styles.items():
        heads = rows(data[kind], data[kind]["variance"] > 0)
        bound = heads["positional_deviation"] + heads["symbolic_deviation"]
        style = {"linestyle": "none", "markerfacecolor": "none", "rasterized": kind == "frequency"}
        axes.plot(bound, heads["variance"], marker, color=color, markersize=size, label=KINDS[kind], **style)
    axes.axline((1, 1), (10, 10), **THEORY, label="equality")
    axes.set(xscale="log", yscale="log", ylabel=r"$\mathrm{Var}(\lambda)$")
    axes.set(xlabel=r"$(\|\delta^{\mathrm{pos}}\|^2+\|\delta^{\mathrm{sym}}\|^2)/(m!\,m)$")
    axes.legend(loc="upper left")


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    m, b, scanned = p["keys"], p["keys"] // p["blocks"], data["frequency"]
    heads = sum(len(data[kind]["variance"]) for kind in KINDS)
    sizes = ", ".join(f"{size:g}" for size in p["sizes"])
    peaks = [_quartiles(rows(scanned, scanned["share"] == s), "positional")[1].max() for s in p["shares"]]
    shares = " and ".join(
        f"{peak:.2f} for $s={share:g}$" for share, peak in zip(p["shares"], peaks, strict=True)
    )
    return (
        "Positional and symbolic scores of softmax weights, of heads built for this figure, none trained: "
        rf"$m={m}$ keys in {p['blocks']} blocks of $b={b}$, $\tau=1/{1 / p['temperature']:g}$, seed "
        rf"{p['seed']}. (a) Circles: $M_{{kj}}=(1-s)\lambda_j+s\lambda_k$ with $s$ from 0 (positional) to 1 "
        rf"(symbolic) along each line; $\lambda$ is one Gaussian sample times {sizes}, where 0 is uniform "
        f"attention. Diamonds: {p['rotary_heads']} random rotary heads, $d_k={p['d_k']}$, base "
        rf"{p['base']:g}. (b, c) Heads of one rotary frequency $\theta$, with keys "
        rf"$\sqrt{{1-s}}\,\mu+\sqrt{{s}}\,\xi_k$ of common $\mu$ and random $\xi_k$, query of length "
        rf"{p['query']:g}: means of {p['draws']} draws. The gradient was put in; row $s=0$ of (b) and "
        r"column $\theta=0$ of (c) are 1 up to rounding. "
        f"(d) Median and quartiles of {p['heads']} such heads; the median positional score "
        rf"reaches {shares}. At $\theta=2\pi\ell/b$ a swap turns keys by full circles, so the metric takes "
        rf"every head for symbolic. (e) S1 for the {heads} heads of (a) and (d), those with $\lambda=0$ not "
        r"drawn; equality at $s=\frac{1}{2}$ of (a)."
    )


FIGURE = Figure(
    name="positional_symbolic",
    title="Positional and symbolic heads: scores, entropy and S1's exclusion",
    statements=("S1",),
    parameters={
        "seed": 0,
        "keys": 64,
        "blocks": 16,
        "temperature": 1 / 64,
        "sizes": [0.0, 0.1, 0.5, 1.0, 1.5, 3.0],
        "steps": 21,
        "rotary_heads": 150,
        "d_k": 16,
        "base": 1000.0,
        "largest": 10.0,
        "shares": [0.2, 1.0],
        "query": 6.0,
        "decades": [-4.0, 0.45],
        "frequencies": 48,
        "heads": 200,
        "layers": 12,
        "map_frequencies": [0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625, 0.0078125, 0.00390625, 0.001953125],
        "draws": 100,
    },
    quick={"frequencies": 12, "heads": 20, "draws": 4, "rotary_heads": 40},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
