"""Figures of heads: what contradicts S1 or the metric is found."""

from functools import cache

import numpy as np
import pytest
import torch

from numerics.positional_symbolic import Behaviour, behaviour
from paper_figures import fig_positional_symbolic
from paper_figures.figure import ContradictionError

HEADS = fig_positional_symbolic.FIGURE
QUICK = {**HEADS.sized(quick=True), "heads": 8, "draws": 2, "layers": 3}
CPU = torch.device("cpu")


# Positional and symbolic heads


@cache
def data():
    return HEADS.compute(QUICK, CPU)


def spoiled(part, column, change):
    """The data with one column of one table changed."""
    found = data()[part]
    return {**data(), part: {**found, column: change(found[column].copy())}}


def put(index, value):
    def change(column):
        column[index] = value
        return column

    return change


@pytest.mark.parametrize("blocks", [2, 8, 24])
def test_other_parameters_pass_too(blocks):
    other = {**QUICK, "keys": 24, "blocks": blocks, "temperature": 0.5, "seed": 1}
    found = HEADS.compute(other, CPU)
    HEADS.accept(found, other)
    HEADS.draw(found, other)


@pytest.mark.parametrize("kind", ["interpolated", "rotary", "frequency"])
def test_one_head_just_beyond_the_bound_is_found(kind):
    heads = data()[kind]
    gone = 0.999 * heads["variance"][-1] - heads["positional_deviation"][-1]
    with pytest.raises(ContradictionError, match=rf"{kind} heads: Var\(λ\) exceeds"):
        HEADS.accept(spoiled(kind, "symbolic_deviation", put(-1, gone)), QUICK)


def test_a_bound_five_per_cent_smaller_is_refuted_by_the_case_of_equality():
    heads = data()["interpolated"]
    smaller = {name: 0.95 * heads[name] for name in ("positional_deviation", "symbolic_deviation")}
    with pytest.raises(ContradictionError, match="interpolated heads: Var"):
        HEADS.accept({**data(), "interpolated": {**heads, **smaller}}, QUICK)


STEPS = QUICK["steps"]
UNIFORM, POSITIONAL, SYMBOLIC = STEPS // 2, -STEPS, -1
"""Rows of interpolated heads: the first size is 0, and each runs from positional to symbolic."""


@pytest.mark.parametrize(
    ("part", "column", "change", "match"),
    [
        ("interpolated", "entropy", lambda column: 0.999 * column, "the entropy is below"),
        ("rotary", "entropy", lambda column: 0 * column, "rotary heads: the entropy is not that of"),
        ("rotary", "entropy", put(7, np.nan), "rotary.entropy: a number is not finite"),
        ("rotary", "positional", lambda column: 0 * column + 0.5, "rotary heads: the positional is not"),
        ("rotary", "symbolic", lambda column: 0 * column + 0.5, "rotary heads: the symbolic is not"),
        ("rotary", "variance", lambda column: 0.9 * column, "rotary heads: the variance is not"),
        ("rotary_vectors", "first", put(70, 0.5), "rotary heads"),
        ("interpolated", "variance", lambda column: 0.95 * column, "without equality"),
        ("interpolated", "positional_deviation", lambda column: 1.05 * column, "without equality"),
        ("interpolated", "symbolic_deviation", put(-1, 0.1), "symbolic_deviation is not"),
        ("interpolated", "positional", put(POSITIONAL, 0.999), "positional heads: a score"),
        ("interpolated", "symbolic", put(SYMBOLIC, 0.999), "symbolic heads: a score"),
        ("interpolated", "symbolic", put(POSITIONAL, 0.999), "the symbolic is not"),
        ("interpolated", "positional", put(SYMBOLIC, 0.999), "the positional is not"),
        ("interpolated", "symbolic", put(UNIFORM, 0.999), "the symbolic is not"),
        ("interpolated", "entropy", put(0, 4.2), "the entropy is not"),
        ("map", "positional", put(0, 0.999), "map, positional heads"),
        ("map", "symbolic", put(-1, 0.999), "map, symbolic heads"),
        ("map", "symbolic", put(0, 1.001), "map heads: a score is not between"),
        ("frequency", "symbolic", put(-1, 0.999), "frequencies of whole turns"),
        ("frequency", "positional", put(0, 0.5), "frequency heads: the positional is not"),
        ("frequency", "positional", put(1, -0.001), "frequency heads: a score is not between"),
    ],
)
def test_a_spoiled_column_is_found(part, column, change, match):
    with pytest.raises(ContradictionError, match=match):
        HEADS.accept(spoiled(part, column, change), QUICK)


def test_the_bound_of_the_entropy_alone_finds_heads_of_entropy_zero():
    heads = data()["interpolated"]
    concentrated = {**heads, "entropy": np.where(heads["variance"] > 0, 0, heads["entropy"])}
    with pytest.raises(ContradictionError, match="the entropy is below"):
        fig_positional_symbolic._check_exclusion("interpolated", concentrated, QUICK)


def exchanged(logits, blocks, temperature):
    """Positional and symbolic the wrong way round."""
    found = behaviour(logits, blocks, temperature)
    return Behaviour(found.symbolic, found.positional, found.centred, found.entropy)


def of_logits(logits, blocks, temperature):
    return behaviour(logits, blocks, temperature, "logits")


@pytest.mark.parametrize("false", [exchanged, of_logits])
def test_another_metric_is_found(monkeypatch, false):
    monkeypatch.setattr(fig_positional_symbolic, "behaviour", false)
    with pytest.raises(ContradictionError, match="heads"):
        HEADS.accept(HEADS.compute(QUICK, CPU), QUICK)
