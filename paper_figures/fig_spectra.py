"""T6, T2, T3: eigenvalues of V, W_s and A_s in the attention layers of trained models."""

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Page
from torch import Tensor

from numerics.checkpoints import AttentionLayer, load_checkpoint
from numerics.fetch import SOURCES, fetch
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table, rows, stack, table
from paper_figures.style import TEXT, THEORY

TITLES = {
    "albert": "ALBERT\none layer, used 12 times",
    "minilm": "all-MiniLM-L6-v2 (BERT)\n6 layers",
    "stories15m": "stories15M (Llama, causal)\n6 layers",
}
CAUSAL = "under the causal mask of stories15M its first token diverges from almost every start (T14c)"
ROUNDING = 1e-11
"""Of a sum of eigenvalues (of squares), relative to the Frobenius norm (its square): d = 384 times the unit
roundoff, and a margin."""
LINEAR = {"W": 1e-3, "A": 1e-7}
"""Part of the norm below which the axis is linear: few eigenvalues are smaller."""


def compute(p: Parameters, device: torch.device) -> Data:
    """Eigenvalues of every layer, in double precision, from the stored weights, and what they add up to."""
    layers = [
        (name, number, *_spectra(layer, device))
        for name in p["checkpoints"]
        for number, layer in enumerate(load_checkpoint(fetch(SOURCES[name])).layers, 1)
    ]
    return {
        "eigenvalues": stack(
            table(checkpoint=name, layer=number, of=of, real=np.real(values), imag=np.imag(values))
            for name, number, spectra, _ in layers
            for of, values in spectra.items()
        ),
        "layers": stack(table(checkpoint=name, layer=number, **about) for name, number, _, about in layers),
    }


def _spectra(layer: AttentionLayer, device: torch.device) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Eigenvalues of V, W_s and A_s, singular values of V, and numbers to check them that need neither."""
    query, key, value, output = (m.to(device) for m in (layer.query, layer.key, layer.value, layer.output))
    W, V = query.T @ key * layer.head_dim**-0.5, output @ value
    A = torch.linalg.solve(V, W, left=False)
    spectra = {
        "V": torch.linalg.eigvals(V).cpu().numpy(),
        "W": torch.linalg.eigvalsh(_sym(W)).cpu().numpy(),
        "A": torch.linalg.eigvalsh(_sym(A)).cpu().numpy(),
        "singular V": torch.linalg.svdvals(V).cpu().numpy(),
    }
    about = {
        "heads": layer.heads,
        "trace_V": (output * value.T).sum().item(),
        "trace_QtK": (query * key).sum().item(),
        "trace_A": A.trace().item(),
        "negative_VtW": int((torch.linalg.eigvalsh(_sym(V.T @ W)) < 0).sum()),
    }
    for name, matrix in (("V", V), ("W", W), ("A", A)):
        about |= {f"trace_{name}2": (matrix * matrix.T).sum().item()}
        about |= {f"frobenius_{name}": matrix.norm().item()}
    return spectra, about


def _sym(matrix: Tensor) -> Tensor:
    return (matrix + matrix.T) / 2


def check(data: Data, p: Parameters) -> None:
    """Each layer is what the caption says: V unstable (T6 speaks), W_s and A_s indefinite (T2, T3 do not).

    The eigenvalues and their squares are held against traces, where ‖M_s‖² = (‖M‖² + tr M²)/2, the singular
    values against ‖V‖_F, and the signs of A_s against those of VᵀA_sV = (VᵀW)_s, the same by Sylvester's law.
    """
    about = data["layers"]
    for i, (name, layer) in enumerate(zip(about["checkpoint"], about["layer"], strict=True)):
        where = f"{name}, layer {layer}"
        one = {column: values[i] for column, values in about.items()}
        V, W, A, singular = (_values(data, name, layer, of) for of in ("V", "W", "A", "singular V"))
        trace_W = one["trace_QtK"] * np.sqrt(one["heads"] / len(V))
        for of, values, trace in (("V", V, one["trace_V"]), ("W", W, trace_W), ("A", A, one["trace_A"])):
            size, squares = one[f"frobenius_{of}"], one[f"trace_{of}2"]
            if abs(values.sum() - trace) > ROUNDING * size:
                raise ContradictionError(f"{where}: the eigenvalues of {of} do not add up to its trace")
            expected = squares if of == "V" else (size**2 + squares) / 2
            if abs((values**2).sum() - expected) > ROUNDING * size**2:
                raise ContradictionError(f"{where}: the squared eigenvalues of {of} do not add up")
            if of != "V" and not (np.real(values).min() < 0 < np.real(values).max()):
                raise ContradictionError(f"{where}: {of}_s has one sign, so T2 or T3 may speak of the layer")
        if abs((singular**2).sum() / one["frobenius_V"] ** 2 - 1) > ROUNDING:
            raise ContradictionError(f"{where}: the singular values of V do not fit its Frobenius norm")
        if (np.real(A) < 0).sum() != one["negative_VtW"]:
            raise ContradictionError(f"{where}: A_s has other signs than VᵀA_sV, against Sylvester's law")
        if not np.real(V).max() > 0:
            raise ContradictionError(f"{where}: V has no eigenvalue right of 0, so T6 is silent")


def _values(data: Data, name: str, layer: int, of: str) -> np.ndarray:
    every = data["eigenvalues"]
    found = rows(every, (every["checkpoint"] == name) & (every["layer"] == layer) & (every["of"] == of))
    return found["real"] + 1j * found["imag"]


def _summary(data: Data) -> Table:
    """The layers with what bars and caption say of them, all from eigenvalues, singular values and norms."""
    layers, found = data["layers"], []
    for i, (name, layer) in enumerate(zip(layers["checkpoint"], layers["layer"], strict=True)):
        V, W, A, singular = (np.real(_values(data, name, layer, of)) for of in ("V", "W", "A", "singular V"))
        about = {"d": len(V), "norm_V": singular.max(), "right_V": V.max() / singular.max()}
        for of, values in (("W", W), ("A", A)):
            about[f"negative_{of}"] = 100 * (values < 0).mean()
            about[f"antisymmetric_{of}"] = np.sqrt(1 - (values**2).sum() / layers[f"frobenius_{of}"][i] ** 2)
        found.append(table(**about))
    return layers | stack(found)


def draw(data: Data, p: Parameters) -> Page:
    """A row for each model: V in the complex plane and its abscissa, then W_s and A_s sorted."""
    names, summary = p["checkpoints"], _summary(data)
    page = Page(figsize=(TEXT, 2.45 * len(names)))
    grid = page.add_gridspec(len(names), 3, width_ratios=(1.3, 1, 1))
    for row, name in enumerate(names):
        layers = rows(summary, summary["checkpoint"] == name)
        values = grid[row, 0].subgridspec(2, 1, height_ratios=(1.9, 1))
        plane = page.add_subplot(values[0])
        _plane(plane, data, layers)
        _abscissas(page.add_subplot(values[1], sharex=plane), layers)
        _sorted(page.add_subplot(grid[row, 1]), data, layers, "W")
        _sorted(page.add_subplot(grid[row, 2]), data, layers, "A")
        plane.set_title(TITLES[name], loc="left")
    return page


def _colours(layers: Table) -> np.ndarray:
    return matplotlib.colormaps["cividis"](np.linspace(0, 0.9, len(layers["layer"])))


def _plane(axes: Axes, data: Data, layers: Table) -> None:
    for name, layer, norm, colour in zip(
        layers["checkpoint"], layers["layer"], layers["norm_V"], _colours(layers), strict=True
    ):
        values = _values(data, name, layer, "V") / norm
        axes.plot(np.real(values), np.imag(values), ".", markersize=2, markeredgewidth=0, color=colour)
    axes.axvline(0, **THEORY)
    axes.set(ylabel=r"Im $\lambda(V)\,/\,\|V\|$", xlim=(-0.6, 0.75), ylim=(-0.45, 0.45))
    axes.tick_params(labelbottom=False)


def _abscissas(axes: Axes, layers: Table) -> None:
    axes.barh(layers["layer"], layers["right_V"], color=_colours(layers))
    axes.axvline(0, **THEORY)
    axes.set(xlabel=r"Re $\lambda(V)\,/\,\|V\|$; bars: largest", ylabel="layer", yticks=layers["layer"])
    axes.set_ylim(layers["layer"].max() + 0.7, 0.3)
    axes.tick_params(axis="y", labelsize=6.5, length=0)


def _sorted(axes: Axes, data: Data, layers: Table, of: str) -> None:
    for name, layer, colour in zip(layers["checkpoint"], layers["layer"], _colours(layers), strict=True):
        values = np.sort(np.real(_values(data, name, layer, of)))
        below = 100 * (np.arange(len(values)) + 0.5) / len(values)
        axes.plot(below, values / np.abs(values).max(), color=colour)
    axes.axhline(0, **THEORY)
    axes.set_yscale("symlog", linthresh=LINEAR[of])
    ticks = [10.0**power for power in (range(-3, 1) if of == "W" else range(-6, 1, 2))]
    axes.set_yticks([*(-tick for tick in ticks), 0, *ticks])
    axes.text(0.05, 0.9, f"{_span(layers[f'negative_{of}'], 0)} % negative", transform=axes.transAxes)
    axes.set(xlabel="eigenvalues, sorted (%)", ylabel=rf"$\lambda({of}_s)\,/\,\|{of}_s\|$", xlim=(0, 100))


def _span(values: np.ndarray, digits: int) -> str:
    """The smallest and the largest value, once if they look the same."""
    return "–".join(dict.fromkeys(f"{value:.{digits}f}" for value in (values.min(), values.max())))


def caption(data: Data, p: Parameters) -> str:
    """LaTeX."""
    layers = _summary(data)
    files = ", ".join(f"{SOURCES[name].package} {SOURCES[name].version}" for name in p["checkpoints"])
    widths, heads = (
        ", ".join(str(rows(layers, layers["checkpoint"] == name)[of][0]) for name in p["checkpoints"])
        for of in ("d", "heads")
    )
    causal = "stories15m" in p["checkpoints"]
    return (
        rf"Attention layers of trained models (packages {files}; $d = {widths}$; ${heads}$ heads; "
        rf"{len(layers['d'])} layers in all) with their heads merged: $V = W_oW_v = \sum_h V_h$, "
        r"$W = W_q^\top W_k/\sqrt{d_k}$ sums the scores of the heads as if one head had them, $A = WV^{-1}$. "
        "Colours as the bars; eigenvalues in double precision, not proved; axes are linear near 0. Left: in "
        rf"every layer $V$ has an eigenvalue right of 0, at {_span(layers['right_V'], 2)}$\,\|V\|$, so the "
        "attention-only layer does not converge to zero from every start (T6)"
        + (f"; {CAUSAL}. Both hold" if causal else ". This holds")
        + r" with the heads apart too: equal tokens, or a token alone, move by $V$. Middle and right: "
        rf"{_span(layers['negative_W'], 1)}\,\% of the eigenvalues of $W_s$ and "
        rf"{_span(layers['negative_A'], 1)}\,\% of those of $A_s$ are negative, and the antisymmetric parts "
        rf"are large ($\|W_a\|/\|W\|$: {_span(layers['antisymmetric_W'], 2)}, $\|A_a\|/\|A\|$: "
        rf"{_span(layers['antisymmetric_A'], 2)}), so T2 and T3 say nothing about these layers taken as one "
        "head; with the heads apart T15 would be the statement. Biases, normalisation, encodings and "
        "feed-forward blocks are left out."
    ).replace("–", "--")


FIGURE = Figure(
    name="spectra",
    title="Eigenvalues of V, W_s and A_s in the attention layers of trained models",
    statements=("T6", "T2", "T3", "T14c"),
    parameters={"checkpoints": ["albert", "minilm", "stories15m"]},
    quick={"checkpoints": ["albert"]},
    compute=compute,
    check=check,
    draw=draw,
    caption=caption,
)
