"""S1: positional and symbolic heads of trained models on binding prompts, by both ways of swapping blocks."""

from collections.abc import Iterator

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as Page
from matplotlib.ticker import MaxNLocator

from numerics.checkpoints import Checkpoint, load_checkpoint
from numerics.fetch import SOURCES, fetch
from numerics.head_behaviour import LayerBehaviour, frequencies_of, measure
from numerics.positional_symbolic import Behaviour
from numerics.prompts import Prompt, binding_prompts
from numerics.tokens import encoder
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import BLACK, BLUE, TEXT, VERMILLION
from tokendyn.heads import OwnLogits, own_logits, spearman

MODES = {"swapped": BLUE, "rerun": VERMILLION}
TITLES = {
    "stories15m": "stories15M (Llama)",
    "smollm2": "SmolLM2-135M (Llama)",
    "minilm": "all-MiniLM-L6-v2 (BERT)",
}
SCORES = ("positional", "symbolic", "centred")
ROUNDING = 1e-9
"""Of scores, entropies and shares, sums of at most some hundred terms; relative to a variance."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Measure every head of every checkpoint, on the CPU, which is where models run here.

    Scores and logits are of each prompt, frequencies means over the prompts.
    """
    parts: dict[str, list[Table]] = {"prompts": [], "scores": [], "logits": [], "frequencies": []}
    for name in p["checkpoints"]:
        path = fetch(SOURCES[name])
        checkpoint = load_checkpoint(path)
        encode = encoder(path, checkpoint.config)
        prompts = binding_prompts(encode, p["bindings"], p["count"], p["seed"])
        tokens = [len(prompt.ids) for prompt in prompts]
        parts["prompts"].append(table(checkpoint=name, prompt=np.arange(len(prompts)), tokens=tokens))
        for part, found in _measured(name, checkpoint, prompts, p["temperature"]):
            parts[part].append(found)
    return {part: stack(tables) for part, tables in parts.items() if tables}


def _measured(
    name: str, checkpoint: Checkpoint, prompts: list[Prompt], temperature: float
) -> Iterator[tuple[str, Table]]:
    own = own_logits(checkpoint, prompts)
    theta = frequencies_of(checkpoint)
    for found, logits in zip(measure(checkpoint, prompts, temperature), own, strict=True):
        about = {"checkpoint": name, "layer": found.layer, "rotary": found.rotary}
        for mode in MODES:
            yield "scores", _scores({**about, "mode": mode}, getattr(found, mode))
        yield "logits", _logits(about, found, logits)
        if theta is not None and found.frequencies is not None and found.use is not None:
            head, pair = _places(found.use.shape[1:])
            numbers = {score: getattr(found.frequencies, score).mean(0) for score in SCORES}
            place = {"head": head, "pair": pair, "theta": theta, "use": found.use.mean(0)}
            yield "frequencies", table(**about, **place, **numbers)


def _places(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The index along each axis, shaped to broadcast."""
    return list(np.ogrid[tuple(slice(size) for size in shape)])


def _scores(about: dict, found: Behaviour) -> Table:
    prompt, head = _places(found.positional.shape)
    return table(**about, prompt=prompt, head=head, **{score: getattr(found, score) for score in SCORES})


def _logits(about: dict, found: LayerBehaviour, logits: OwnLogits) -> Table:
    prompt, head = _places(found.entropy.shape)
    return table(
        **about,
        prompt=prompt,
        head=head,
        entropy=found.entropy,
        on_blocks=logits.on_blocks,
        variance=logits.variance,
        positional_deviation=logits.positional,
        symbolic_deviation=logits.symbolic,
    )


def check(data: Data, p: Parameters) -> None:
    """S1 in every head; scores and entropies in range; heads without encoding are symbolic if keys swap."""
    for name in p["checkpoints"]:
        scores, logits = (_of(data[part], name) for part in ("scores", "logits"))
        _check_logits(name, logits, _of(data["prompts"], name))
        for score, least in zip(SCORES, (0, 0, -1), strict=True):
            if not ((scores[score] >= least - ROUNDING) & (scores[score] <= 1 + ROUNDING)).all():
                raise ContradictionError(f"{name}: a {score} score is not between {least} and 1")
        blind = (scores["mode"] == "swapped") & ~scores["rotary"]
        if not (np.abs(scores["symbolic"][blind] - 1) <= ROUNDING).all():
            raise ContradictionError(
                f"{name}: a head without encoding is not symbolic as its keys are swapped"
            )
        if not (scores["centred"][blind] <= ROUNDING).all():
            raise ContradictionError(f"{name}: a head without encoding leans to the positional side")
    for name in _turning(data, p):
        _check_frequencies(name, _of(data["frequencies"], name))


def _check_logits(name: str, heads: Table, prompts: Table) -> None:
    n, variance = prompts["tokens"][heads["prompt"]], heads["variance"]
    bound = heads["positional_deviation"] + heads["symbolic_deviation"]
    if not (variance <= bound * (1 + ROUNDING)).all():
        raise ContradictionError(f"{name}: Var(λ) exceeds S1's bound by the deviations")
    if not (heads["entropy"] <= np.log(n) + ROUNDING).all():
        raise ContradictionError(f"{name}: an entropy exceeds log n")
    if not (heads["entropy"] >= np.log(n) - np.sqrt(2 * n * variance) - ROUNDING).all():
        raise ContradictionError(f"{name}: an entropy is below log n − √(2n Var), which S1 excludes")
    if not ((heads["on_blocks"] >= 0) & (heads["on_blocks"] <= 1 + ROUNDING)).all():
        raise ContradictionError(f"{name}: the attention on the blocks is not between 0 and 1")
    still = ~heads["rotary"]
    if not (heads["symbolic_deviation"][still] <= ROUNDING * variance[still]).all():
        raise ContradictionError(f"{name}: a head without encoding deviates from a symbolic one")
    twice = 2 * variance[still]
    if not (np.abs(heads["positional_deviation"][still] - twice) <= ROUNDING * twice).all():
        raise ContradictionError(f"{name}: of a head without encoding δ^pos is not twice Var(λ)")


def _check_frequencies(name: str, found: Table) -> None:
    theta = np.unique(found["theta"])
    if not np.allclose(np.diff(np.log(theta)), np.ptp(np.log(theta)) / (len(theta) - 1)):
        raise ContradictionError(f"{name}: the frequencies are not a geometric sequence")
    use = found["use"].reshape(-1, len(theta))
    if not ((use >= 0).all() and (np.abs(use.sum(1) - 1) <= ROUNDING).all()):
        raise ContradictionError(f"{name}: the shares of the frequencies do not add up to 1")


def _of(data: Table, name: str) -> Table:
    return rows(data, data["checkpoint"] == name)


def _turning(data: Data, p: Parameters) -> list[str]:
    """The checkpoints with rotary encoding."""
    found = data.get("frequencies", {"checkpoint": np.array([])})["checkpoint"]
    return [name for name in p["checkpoints"] if name in found]


def _heads(data: Data, name: str, mode: str = "") -> dict[str, np.ndarray]:
    """Means over the prompts, (layers, heads): of scores in a `mode`, or else of entropy / log n."""
    if mode:
        found = _of(data["scores"], name)
        found = rows(found, found["mode"] == mode)
        return {score: _grid(found, found[score]) for score in SCORES}
    found, prompts = _of(data["logits"], name), _of(data["prompts"], name)
    share = found["entropy"] / np.log(prompts["tokens"][found["prompt"]])
    return {"share": _grid(found, share), "on_blocks": _grid(found, found["on_blocks"])}


def _grid(found: Table, values: np.ndarray) -> np.ndarray:
    """Rows come by layer, prompt and head."""
    shape = tuple(found[axis].max() + 1 for axis in ("layer", "prompt", "head"))
    return values.reshape(shape).mean(1)


def _used(data: Data, name: str) -> np.ndarray:
    """The mean of log θ of each head (heads,), weighted by the use of the frequencies."""
    theta, use = _pairs(data, name, "use")
    return use @ np.log(theta)


def _pairs(data: Data, name: str, column: str) -> tuple[np.ndarray, np.ndarray]:
    """The frequencies (pairs,), and a column by head and frequency (heads of all layers, pairs)."""
    found = _of(data["frequencies"], name)
    pairs = found["pair"].max() + 1
    return found["theta"][:pairs], found[column].reshape(-1, pairs)


def draw(data: Data, p: Parameters) -> Page:
    """A column for each model: the plane, maps of the centred score; below, the frequencies."""
    names, turning = p["checkpoints"], _turning(data, p)
    maps = 0.9 + 0.09 * max(_heads(data, name)["share"].shape[0] for name in names)
    page = Page(figsize=(TEXT, 2.2 + maps + 2.1))
    ratios = {"height_ratios": (2.2, maps, 2.1), "width_ratios": (*(1 for _ in names), 0.05)}
    grid = page.add_gridspec(3, len(names) + 1, **ratios)
    for column, name in enumerate(names):
        plane = page.add_subplot(grid[0, column])
        dots = _plane(plane, data, name)
        plane.set_title(TITLES[name], loc="left")
        pair = grid[1, column].subgridspec(1, 2)
        for place, mode in enumerate(MODES):
            image = _map(page.add_subplot(pair[place]), data, name, mode)
        if name == names[-1]:
            page.colorbar(dots, cax=page.add_subplot(grid[0, -1]), label=r"entropy $/\,\log n$")
            page.colorbar(image, cax=page.add_subplot(grid[1, -1]), label="centred score")
    bottom = grid[2, :].subgridspec(1, len(turning) + 1)
    for column, name in enumerate(turning):
        axes = page.add_subplot(bottom[column])
        _against(axes, data, name)
        if column == 0:
            axes.legend(loc="lower right", handletextpad=0.1)
    _alone(page.add_subplot(bottom[len(turning)]), data, turning)
    return page


def _plane(axes: Axes, data: Data, name: str):
    """The mode rerun, which means the same for every encoding."""
    found, share = _heads(data, name, "rerun"), _heads(data, name)["share"]
    dots = axes.scatter(
        found["positional"],
        found["symbolic"],
        9,
        share,
        norm=Normalize(0, 1),
        edgecolors=BLACK,
        linewidths=0.2,
    )
    axes.set(xlabel="positional score", ylabel="symbolic score", xlim=(0, 1.04), ylim=(0, 1.04))
    axes.set_aspect("equal", adjustable="box")
    return dots


def _map(axes: Axes, data: Data, name: str, mode: str):
    image = axes.imshow(_heads(data, name, mode)["centred"], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.set_title(mode, fontsize=7.5)
    axes.set_xlabel("head")
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    if mode == "swapped":
        axes.set_ylabel("layer")
    else:
        axes.tick_params(labelleft=False)
    return image


def _against(axes: Axes, data: Data, name: str) -> None:
    used = np.exp(_used(data, name))
    for mode, colour in MODES.items():
        axes.plot(
            used,
            _heads(data, name, mode)["centred"].ravel(),
            ".",
            markersize=3,
            color=colour,
            label=mode,
        )
    axes.axhline(0, color=BLACK, linewidth=0.5)
    axes.set(xscale="log", xlabel=r"mean frequency used (rad)", ylabel="centred score", ylim=(-1.08, 1.08))
    axes.set_title(_short(name), loc="left")


def _alone(axes: Axes, data: Data, names: list[str]) -> None:
    """Median and quartiles over the heads of the centred score of each frequency alone."""
    for name, colour in zip(
        names, matplotlib.colormaps["cividis"](np.linspace(0.05, 0.75, len(names))), strict=True
    ):
        theta, centred = _pairs(data, name, "centred")
        low, middle, high = np.quantile(centred, (0.25, 0.5, 0.75), axis=0)
        axes.plot(theta, middle, color=colour, label=_short(name))
        axes.fill_between(theta, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.axhline(0, color=BLACK, linewidth=0.5)
    axes.set(
        xscale="log", xlabel=r"frequency $\theta$ alone (rad)", ylabel="centred score", ylim=(-1.08, 1.08)
    )
    axes.legend(loc="upper left", handlelength=1)


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    logits, tokens = data["logits"], data["prompts"]["tokens"]
    ratios = logits["variance"] / (logits["positional_deviation"] + logits["symbolic_deviation"])
    files = ", ".join(f"{SOURCES[name].package} {SOURCES[name].version}" for name in p["checkpoints"])
    lengths = "--".join(str(number) for number in dict.fromkeys((tokens.min(), tokens.max())))
    return (
        rf"Heads of trained models (packages {files}) on {p['count']} prompts of {p['bindings']} sentences "
        "“Alice likes red.” and a question about one of them; "
        rf"{lengths} tokens, a block for each sentence, $\tau={p['temperature']}$, seed {p['seed']}; means "
        "over the prompts. Swapped: the keys of two blocks change places inside the head; rerun: the blocks "
        "change places in the text. Top: scores of attention weights, mode rerun. Middle: the centred score, "
        "1 if contrasts between blocks stay with their places (positional), $-1$ if they go with the "
        f"contents (symbolic).{_blind(data, p)} Bottom: against the mean frequency used (geometric, weighted "
        "by each frequency's share of the variance of the logits over the blocks' keys); rank correlations "
        f"(Spearman), swapped and rerun: {_correlations(data, p)}. Heads of one model are not independent, "
        "and no cause is named. Last panel: each frequency as a head of its own, keys swapped, median and "
        f"quartiles over the heads. S1 was tested for the {len(ratios)} pairs of a head and a prompt: "
        rf"$\mathrm{{Var}}(\lambda)$ over its bound is at most {ratios.max():.2f} "
        f"(median {np.median(ratios):.2f}). All else is measured, and nothing proved."
    )


def _correlations(data: Data, p: Parameters) -> str:
    said = []
    for name in _turning(data, p):
        used = _used(data, name).tolist()
        found = [spearman(used, _heads(data, name, mode)["centred"].ravel().tolist()) for mode in MODES]
        numbers = " and ".join("–" if number is None else f"${number:.2f}$" for number in found)
        said.append(f"{numbers} over the {len(used)} heads of {_short(name)}")
    return ", ".join(said)


def _blind(data: Data, p: Parameters) -> str:
    names = [_short(name) for name in p["checkpoints"] if name not in _turning(data, p)]
    if not names:
        return ""
    return (
        f" {', '.join(names)} has no rotary encoding: a key gives one logit wherever it is put, and swapped "
        "finds its heads symbolic by construction."
    )


def _short(name: str) -> str:
    return TITLES[name].split()[0]


FIGURE = Figure(
    name="head_behaviour",
    title="Positional and symbolic heads of trained models",
    statements=("S1",),
    parameters={
        "checkpoints": ["stories15m", "smollm2", "minilm"],
        "bindings": 6,
        "count": 4,
        "temperature": 0.025,
        "seed": 0,
    },
    quick={"checkpoints": ["stories15m"], "bindings": 3, "count": 2},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
