"""The spectra of trained layers: a made checkpoint in place of the fetched ones, and spoiled data."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from paper_figures import fig_spectra
from paper_figures.fig_spectra import FIGURE
from paper_figures.figure import ContradictionError, Data

D, HEADS = 8, 2
NAME = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention"
P = FIGURE.sized(quick=True)


def save(folder: Path, **maps: np.ndarray) -> Path:
    """An ALBERT-like checkpoint with the given (out, in) maps, float64."""
    state = {f"{NAME}.{part}.weight": torch.tensor(matrix) for part, matrix in maps.items()}
    torch.save(state, folder / "model.bin")
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}), encoding="utf-8")
    return folder / "model.bin"


@pytest.fixture
def maps() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {part: generator.standard_normal((D, D)) for part in ("query", "key", "value", "dense")}


@pytest.fixture
def data(maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    return computed(maps, tmp_path, monkeypatch)


def computed(maps: dict[str, np.ndarray], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Data:
    path = save(folder, **maps)
    monkeypatch.setattr(fig_spectra, "fetch", lambda source: path)
    return FIGURE.compute(P, torch.device("cpu"))


def refused(data: Data, match: str) -> None:
    with pytest.raises(ContradictionError, match=match):
        FIGURE.accept(data, P)


def of(data: Data, name: str) -> np.ndarray:
    return data["eigenvalues"]["of"] == name


def test_the_eigenvalues_are_those_of_the_heads_sums(data: Data, maps: dict[str, np.ndarray]):
    FIGURE.accept(data, P)
    rows = [slice(h * D // HEADS, (h + 1) * D // HEADS) for h in range(HEADS)]
    W = sum(maps["query"][r].T @ maps["key"][r] for r in rows) / np.sqrt(D / HEADS)
    V = sum(maps["dense"][:, r] @ maps["value"][r] for r in rows)
    A = W @ np.linalg.inv(V)
    real = data["eigenvalues"]["real"]
    np.testing.assert_allclose(np.sort(real[of(data, "V")]), np.sort(np.linalg.eigvals(V).real))
    np.testing.assert_allclose(np.sort(real[of(data, "W")]), np.linalg.eigvalsh((W + W.T) / 2))
    np.testing.assert_allclose(np.sort(real[of(data, "A")]), np.linalg.eigvalsh((A + A.T) / 2))
    np.testing.assert_allclose(real[of(data, "singular V")], np.linalg.svd(V)[1])
    layers = {name: column.item() for name, column in fig_spectra._summary(data).items()}
    assert (layers["d"], layers["heads"]) == (D, HEADS)
    np.testing.assert_allclose(layers["right_V"] * np.linalg.norm(V, 2), np.linalg.eigvals(V).real.max())
    for name, M in (("W", W), ("A", A)):
        np.testing.assert_allclose(layers[f"negative_{name}"], 100 * np.mean(np.linalg.eigvalsh(M + M.T) < 0))
        np.testing.assert_allclose(
            layers[f"antisymmetric_{name}"], np.linalg.norm(M - M.T) / 2 / np.linalg.norm(M)
        )


@pytest.mark.parametrize("name", ["V", "W", "A"])
def test_eigenvalues_of_another_size_are_refused(data: Data, name: str):
    data["eigenvalues"]["real"][of(data, name)] *= 1.001
    refused(data, f"albert, layer 1: the eigenvalues of {name} do not add up to its trace")


@pytest.mark.parametrize("name", ["V", "W", "A"])
def test_spread_eigenvalues_of_the_same_sum_are_refused(data: Data, name: str):
    """As if the rightmost were farther right, or one fewer were negative."""
    real = data["eigenvalues"]["real"]
    ends = np.flatnonzero(of(data, name))[np.argsort(real[of(data, name)])[[0, -1]]]
    real[ends] += np.array([-1, 1]) * 0.01 * data["layers"][f"frobenius_{name}"][0]
    refused(data, f"the squared eigenvalues of {name} do not add up")


def test_a_flat_spectrum_is_refused(data: Data):
    data["eigenvalues"]["imag"] *= 0.99
    refused(data, "the squared eigenvalues of V do not add up")


def test_another_norm_of_the_value_map_is_refused(data: Data):
    data["eigenvalues"]["real"][np.flatnonzero(of(data, "singular V"))[0]] *= 1.001
    refused(data, "the singular values of V do not fit its Frobenius norm")


NUMBERS = {
    "heads": r"eigenvalues of W do not add up",
    "trace_V": "eigenvalues of V do not add up to its trace",
    "trace_V2": "squared eigenvalues of V do not add up",
    "frobenius_V": "singular values of V",
    "trace_QtK": "eigenvalues of W do not add up to its trace",
    "trace_W2": "squared eigenvalues of W do not add up",
    "frobenius_W": "squared eigenvalues of W do not add up",
    "trace_A": "eigenvalues of A do not add up to its trace",
    "trace_A2": "squared eigenvalues of A do not add up",
    "frobenius_A": "squared eigenvalues of A do not add up",
    "negative_VtW": "A_s has other signs than VᵀA_sV, against Sylvester's law",
}


def test_no_number_of_a_layer_may_be_another(data: Data):
    assert {*data["layers"]} == {*NUMBERS, "checkpoint", "layer"}
    for name, match in NUMBERS.items():
        column = data["layers"][name]
        change = 1 if column.dtype.kind == "i" else 0.001 * column
        column += change
        refused(data, match)
        column -= change
    FIGURE.accept(data, P)


def test_a_stable_value_map_is_refused(maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch):
    V = maps["dense"] @ maps["value"]
    stable = V - (np.linalg.eigvals(V).real.max() + 1) * np.eye(D)
    spoiled = maps | {"dense": stable, "value": np.eye(D)}
    refused(computed(spoiled, tmp_path, monkeypatch), "V has no eigenvalue right of 0, so T6 is silent")


def test_definite_scores_are_refused(maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch):
    spoiled = maps | {"key": maps["query"]}
    refused(computed(spoiled, tmp_path, monkeypatch), "W_s has one sign, so T2 or T3 may speak")


def test_a_definite_response_is_refused(maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch):
    W = maps["query"].T @ maps["key"]
    spoiled = maps | {"dense": W, "value": np.eye(D)}
    refused(computed(spoiled, tmp_path, monkeypatch), "A_s has one sign, so T2 or T3 may speak")


def test_several_models_and_layers_are_drawn(maps: dict[str, np.ndarray], tmp_path: Path, monkeypatch):
    """Another architecture with two layers, one row of three panels and a strip for each model."""
    parts = {"query": "self.query", "key": "self.key", "value": "self.value", "dense": "output.dense"}
    state = {
        f"encoder.layer.{layer}.attention.{parts[part]}.weight": torch.tensor((1 + layer) * matrix)
        for layer in (0, 1)
        for part, matrix in maps.items()
    }
    torch.save(state, tmp_path / "model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}), encoding="utf-8")
    monkeypatch.setattr(fig_spectra, "fetch", lambda source: tmp_path / "model.bin")
    p = {"checkpoints": ["minilm", "stories15m"]}
    data = FIGURE.compute(p, torch.device("cpu"))
    FIGURE.accept(data, p)
    assert data["layers"]["layer"].tolist() == [1, 2, 1, 2]
    assert len(FIGURE.draw(data, p).axes) == 8
    assert "T14c" in FIGURE.caption(data, p)
    assert "$d = 8, 8$; $2, 2$ heads" in FIGURE.caption(data, p)
    assert "4 layers in all" in FIGURE.caption(data, p)
