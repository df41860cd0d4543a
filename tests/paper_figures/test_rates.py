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
from paper_figures.figure import ContradictionError, Data, Figure, Parameters, Table

MODULES = (
    fig_absolute_rates,
    fig_causal_rates,
    fig_collapse,
    fig_collapse_threshold,
    fig_hyperplane,
    fig_threshold,
)
FIGURES = {module.FIGURE.name: module.FIGURE for module in MODULES}


def quick(figure: Figure) -> Parameters:
    return {**figure.parameters, **figure.quick}


@cache
def computed(name: str) -> Data:
    return FIGURES[name].compute(quick(FIGURES[name]), torch.device("cpu"))


def times(column: str, factor: float | Callable[[Table], np.ndarray]) -> Callable[[Table], Table]:
    """The table with a column multiplied by a number or by what a function makes of the table."""
    return lambda t: {**t, column: t[column] * (factor(t) if callable(factor) else factor)}


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
    "no further approach": ("collapse", "covariances", times("cov", late(1.03)), "stopped approaching"),
    "C* attracts where it repels": ("collapse_threshold", "near", times("measured", -1), "near: .* T9b"),
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
        FIGURES[name].check({**data, part: spoil(data[part])}, quick(FIGURES[name]))


@pytest.mark.parametrize("name", FIGURES)
def test_missing_values_are_refused(name):
    """A row that stalled leaves NaN behind, which is no agreement."""
    (part, column), data = LOST[name], computed(name)
    lost = data[part][column].copy()
    lost[-1] = np.nan
    with pytest.raises(ContradictionError):
        FIGURES[name].check({**data, part: {**data[part], column: lost}}, quick(FIGURES[name]))


def test_the_sharp_constant():
    """κ e^κ = (n − 1)/e for the κ behind the threshold."""
    kappa = 2 * fig_threshold.THRESHOLD
    assert kappa * np.exp(kappa) == pytest.approx((fig_threshold.N - 1) / np.e, rel=1e-14)


@pytest.mark.parametrize("name", FIGURES)
def test_true_data_pass(name):
    FIGURES[name].check(computed(name), quick(FIGURES[name]))
