"""The check of the quadrants can fail."""

from functools import cache

import numpy as np
import pytest
import torch

from paper_figures import fig_quadrants
from paper_figures.figure import ContradictionError, Data

QUICK = fig_quadrants.FIGURE.sized(quick=True)


@cache
def computed() -> Data:
    return fig_quadrants.compute(QUICK, torch.device("cpu"))


def changed(part: str, signs: str, **columns) -> Data:
    """The data with columns of one panel replaced."""
    found = {name: column.copy() for name, column in computed()[part].items()}
    for name, values in columns.items():
        found[name][found["signs"] == signs] = values
    return computed() | {part: found}


def own(part: str, signs: str, name: str) -> np.ndarray:
    return computed()[part][name][computed()[part]["signs"] == signs]


@pytest.mark.parametrize("signs", fig_quadrants.SIGNS)
def test_tokens_that_never_move_are_refused(signs):
    start = {name: np.resize(own("paths", signs, name)[:4], QUICK["samples"] * 4) for name in ("x1", "x2")}
    with pytest.raises(ContradictionError, match=r"not all distances (grow|shrink), as T10 has it"):
        fig_quadrants.check(changed("paths", signs, **start), QUICK)


@pytest.mark.parametrize("name", ["response", "score", "value"])
@pytest.mark.parametrize("signs", fig_quadrants.SIGNS)
def test_a_flipped_sign_is_refused(signs, name):
    match = {"response": "A has not", "score": "W_s has not", "value": r"Re λ\(V\) has not"}[name]
    with pytest.raises(ContradictionError, match=match):
        fig_quadrants.check(changed("systems", signs, **{name: -own("systems", signs, name)}), QUICK)


@pytest.mark.parametrize("of", fig_quadrants.SIGNS)
@pytest.mark.parametrize("to", fig_quadrants.SIGNS)
def test_paths_of_another_quadrant_are_refused(of, to):
    """By the distances if A has the other sign, else by the flow, which W and V give."""
    if of != to:
        match = "the paths are not those" if of[0] == to[0] else "not all distances"
        with pytest.raises(ContradictionError, match=match):
            fig_quadrants.check(
                changed("paths", to, **{name: own("paths", of, name) for name in ("x1", "x2")}), QUICK
            )


@pytest.mark.parametrize("signs", fig_quadrants.SIGNS)
def test_paths_five_per_cent_too_slow_are_refused(signs):
    with pytest.raises(ContradictionError, match="the paths are not those of this W and V"):
        fig_quadrants.check(changed("paths", signs, t=1.05 * own("paths", signs, "t")), QUICK)


def test_means_are_those_of_softmax():
    x, W = torch.randn(3, 5, 2, dtype=torch.float64), torch.tensor([[1.0, 2.0], [-1.0, 3.0]]).double()
    expected = torch.softmax(x @ W @ x.mT, -1) @ x
    np.testing.assert_allclose(fig_quadrants.means(x.numpy(), W.numpy()), expected, atol=1e-12)


def test_a_path_that_is_not_a_number_is_refused():
    with pytest.raises(ContradictionError, match=r"paths\.x2: a number is not finite"):
        fig_quadrants.FIGURE.accept(changed("paths", "+-", x2=np.nan), QUICK)
    with pytest.raises(ContradictionError, match="not all distances grow"):
        fig_quadrants.check(changed("paths", "+-", x2=np.nan), QUICK)
