"""Figures: drawn from data that agree with their statement, or not at all."""

from dataclasses import replace

import pytest

from paper_figures import fig_collapse_threshold, fig_quadrants


def test_quadrants_are_computed_and_written(tmp_path):
    fig_quadrants.main(str(tmp_path / "quadrants.png"))
    assert [p.name for p in tmp_path.iterdir()] == ["quadrants.png"]
    assert (tmp_path / "quadrants.png").read_bytes().startswith(b"\x89PNG")


def test_data_that_contradict_the_statement_are_not_drawn(monkeypatch):
    """With the sign of A claimed wrongly, the checked form decreases."""
    honest = fig_quadrants._check
    monkeypatch.setattr(fig_quadrants, "_check", lambda signs, states, A: honest(signs, states, -A))
    with pytest.raises(ArithmeticError, match="T1 excludes"):
        fig_quadrants.compute()


@pytest.fixture(scope="module")
def threshold():
    """Few systems, all angles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig_collapse_threshold, "SIZES", {2: 20})
        return fig_collapse_threshold.compute()


def test_the_collapse_threshold_is_written(threshold, tmp_path, monkeypatch):
    monkeypatch.setattr(fig_collapse_threshold, "compute", lambda: threshold)
    fig_collapse_threshold.main(str(tmp_path / "collapse.svg"))
    assert "<svg" in (tmp_path / "collapse.svg").read_text()


def test_a_threshold_that_the_data_contradict_is_not_drawn(threshold):
    rates = threshold.rotations
    turned = replace(threshold, rotations=replace(rates, computed=-rates.computed))
    with pytest.raises(ArithmeticError, match="side that T9b computes"):
        fig_collapse_threshold._check(turned)
    with pytest.raises(ArithmeticError, match="not the one of T9c"):
        fig_collapse_threshold._check(replace(threshold, trace=1.05 * threshold.trace))
