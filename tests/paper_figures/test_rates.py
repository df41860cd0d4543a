"""Figures of thresholds, collapse and rates: data that contradict their statements are refused."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch

from paper_figures import (
    fig_absolute_rates,
    fig_causal_rates,
    fig_collapse,
    fig_collapse_threshold,
    fig_hyperplane,
    fig_threshold,
)
from paper_figures.figure import ContradictionError, Data, Table

MODULES = (
    fig_absolute_rates,
    fig_causal_rates,
    fig_collapse,
    fig_collapse_threshold,
    fig_hyperplane,
    fig_threshold,
)
FIGURES = {module.FIGURE.name: module.FIGURE for module in MODULES}


@cache
def computed(name: str) -> Data:
    return FIGURES[name].compute(FIGURES[name].sized(quick=True), torch.device("cpu"))


def times(column: str, factor: float | Callable[[Table], np.ndarray]) -> Callable[[Table], Table]:
    """The table with a column multiplied by a number or by what a function makes of the table."""
    return lambda t: {**t, column: t[column] * (factor(t) if callable(factor) else factor)}


def constant(column: str, value: float) -> Callable[[Table], Table]:
    return lambda t: {**t, column: np.full_like(t[column], value)}


def exponential(rate: float) -> Callable[[Table], np.ndarray]:
    return lambda t: np.exp(rate * t["t"])


def late(factor: float) -> Callable[[Table], np.ndarray]:
    return lambda t: np.where(t["t"] > t["t"].max() / 5, factor, 1.0)


PLANTS = {
    "λ larger by 5 %: W": ("threshold", "systems", times("W", 1.05), "sign 1, .* beyond T4's bound"),
    "signs exchanged": ("threshold", "energies", times("sign", -1), "sign 1, .* beyond T4's bound"),
    "a limsup above the threshold": (
        "threshold",
        "energies",
        times("energy", lambda t: np.where((t["sign"] < 0) & (t["t"] > 0), 1.1, 1.0)),
        "sign -1, .* beyond T4's bound",
    ),
    "the zero token moves": (
        "threshold",
        "energies",
        lambda t: {**t, "energy": t["energy"] + 1e-12 * t["t"]},
        "the token at 0 moves",
    ),
    "C* of other weights": ("collapse", "systems", times("W", 1.05), "away from T9's C\\*"),
    "C* without the ½": ("collapse", "covariances", times("cov", 2), "away from T9's C\\*"),
    "a faster power": (
        "collapse",
        "covariances",
        times("cov", lambda t: np.where(t["t"] > 0, np.maximum(t["t"], 1) ** -0.02, 1.0)),
        "away from T9's C\\*",
    ),
    "no further approach": ("collapse", "covariances", times("cov", late(1.03)), "like t\\^.*, not 1/t"),
    "an approach like 1/√t": (
        "collapse",
        "covariances",
        times("cov", lambda t: 1 - 0.5 / np.sqrt(np.maximum(t["t"], 1))),
        "like t\\^-0.65, not 1/t",
    ),
    "C* attracts where it repels": ("collapse_threshold", "near", times("measured", -1), "near: .* T9b"),
    "rates near C* times 0.3": ("collapse_threshold", "near", times("measured", 0.3), "near: .* T9b"),
    "rates of rotations times 0.9": (
        "collapse_threshold",
        "rotations",
        times("measured", 0.9),
        "rotations: a deviation's rate",
    ),
    "far starts as far from every C*": (
        "collapse_threshold",
        "far",
        constant("distance", 0.5),
        "does not come",
    ),
    "far starts as close to every C*": (
        "collapse_threshold",
        "far",
        constant("distance", 0.05),
        "far: a start comes",
    ),
    "far distances exchanged": ("collapse_threshold", "far", times("computed", -1), "does not come"),
    "rate cos φ": (
        "collapse_threshold",
        "rotations",
        lambda t: {
            **t,
            "computed": np.cos(np.deg2rad(t["angle"])),
            "measured": np.cos(np.deg2rad(t["angle"])),
        },
        "not the cos 2φ",
    ),
    "another trace": (
        "collapse_threshold",
        "paths",
        lambda t: {**t, "xx": 1.05 * t["xx"], "xy": 1.05 * t["xy"], "yy": 1.05 * t["yy"]},
        "limit of t·tr Cov",
    ),
    "turning backwards": ("collapse_threshold", "paths", times("xy", -1), "does not turn"),
    "a rate 5 % larger": ("causal_rates", "paths", times("log_amplitude", 1.05), "5 % from T14b"),
    "a norm that falls faster": ("causal_rates", "paths", times("log_norm", 1.05), "norm of a token"),
    "another V": ("causal_rates", "values", times("V", 1.05), "from T14b"),
    "rates in reverse": (
        "causal_rates",
        "paths",
        lambda t: {**t, "k": t["k"].max() + 1 - t["k"]},
        "from T14b",
    ),
    "a rate of other values": ("absolute_rates", "systems", times("V", 1.05), "scores only, .* T12b"),
    "a rate of other encodings": (
        "absolute_rates",
        "positions",
        times("position", 1.1),
        "scores only, .* T12b",
    ),
    "a rate of the one system 5 % larger": (
        "absolute_rates",
        "kinds",
        times("norm", lambda t: np.where(t["kind"] == "scores", np.exp(-0.0036 * t["t"]), 1.0)),
        "encoding in scores: .* T12b",
    ),
    "no −1/2": ("absolute_rates", "kinds", times("norm", lambda t: t["t"] ** 0.02), "encoding in none"),
    "collapse to 0 in place of −p": (
        "absolute_rates",
        "kinds",
        lambda t: {**t, "shifted": t["norm"]},
        "encoding in scores and values",
    ),
    "a rate 5 % smaller": ("hyperplane", "one_side", times("z", exponential(-0.05)), "leaves T17's envelope"),
    "a larger rate": ("hyperplane", "one_side", times("z", exponential(0.05)), "leaves T17's envelope"),
    "another side": ("hyperplane", "one_side", times("z", -1), "leaves T17's envelope"),
    "one side, slower": (
        "hyperplane",
        "two_sides",
        times("z", lambda t: np.where(t["start"] == "one side", np.exp(-t["t"]), 1.0)),
        "one side: a token leaves",
    ),
    "one side, above the envelope": (
        "hyperplane",
        "two_sides",
        times("z", lambda t: np.where((t["start"] == "one side") & (t["t"] > 0), 1.5, 1.0)),
        "one side: a token leaves",
    ),
    "one side, below the envelope for a while": (
        "hyperplane",
        "two_sides",
        times("z", lambda t: np.where((t["start"] == "one side") & (t["t"] > 0) & (t["t"] < 0.15), 0.5, 1.0)),
        "one side: a token leaves",
    ),
    "two sides grow for a while": (
        "hyperplane",
        "two_sides",
        times("z", lambda t: np.where((t["start"] == "two sides") & (t["t"] > 1.5) & (t["t"] < 2), 2.0, 1.0)),
        "no example",
    ),
    "two sides diverge": (
        "hyperplane",
        "two_sides",
        times("z", lambda t: np.where(t["start"] == "two sides", np.exp(t["t"]), 1.0)),
        "no example",
    ),
}
"""Figure, table, what is done to it, and what the refusal must say."""

LOST = {
    "absolute_rates": ("rates", "log_norm"),
    "causal_rates": ("paths", "log_amplitude"),
    "collapse": ("covariances", "cov"),
    "collapse_threshold": ("paths", "xx"),
    "hyperplane": ("one_side", "z"),
    "threshold": ("energies", "energy"),
}
"""By figure: table and column with values to lose."""


@pytest.mark.parametrize(("name", "part", "spoil", "refusal"), PLANTS.values(), ids=PLANTS)
def test_a_false_variant_is_refused(name, part, spoil, refusal):
    data = computed(name)
    with pytest.raises(ContradictionError, match=refusal):
        FIGURES[name].check({**data, part: spoil(data[part])}, FIGURES[name].sized(quick=True))


@pytest.mark.parametrize("name", FIGURES)
def test_missing_values_are_refused(name):
    """A row that stalled leaves NaN behind, which is no agreement."""
    (part, column), data = LOST[name], computed(name)
    lost = data[part][column].copy()
    lost[-1] = np.nan
    with pytest.raises(ContradictionError, match="not finite"):
        FIGURES[name].accept({**data, part: {**data[part], column: lost}}, FIGURES[name].sized(quick=True))


def test_the_sharp_constant():
    """κ e^κ = (n − 1)/e for the κ behind the threshold."""
    kappa = 2 * fig_threshold.THRESHOLD
    assert kappa * np.exp(kappa) == pytest.approx((fig_threshold.N - 1) / np.e, rel=1e-14)


@pytest.mark.parametrize("name", FIGURES)
def test_true_data_pass(name):
    FIGURES[name].check(computed(name), FIGURES[name].sized(quick=True))
