"""Figures: drawn from data that agree with their statement, or not at all."""

import pytest

from paper_figures import fig_quadrants


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
