"""The checks of the scenarios and of their movie can fail; the movie repeats to the byte."""

from functools import cache

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import style as matplotlib_style
from PIL import Image

from paper_figures import fig_movie, fig_scenarios
from paper_figures.figure import ContradictionError, Data, Figure, Parameters
from paper_figures.style import STYLE

FIGURES = {figure.name: figure for figure in (fig_scenarios.FIGURE, fig_movie.FIGURE)}


def quick(figure: Figure) -> Parameters:
    return figure.sized(quick=True)


@cache
def computed(name: str) -> Data:
    return FIGURES[name].compute(quick(FIGURES[name]), torch.device("cpu"))


def changed(name: str, part: str, **columns: np.ndarray) -> Data:
    data = computed(name)
    return {**data, part: {**data[part], **columns}}


@pytest.mark.parametrize("name", FIGURES)
def test_paths_run_backwards_contradict_t1(name):
    paths = computed(name)["paths"]
    order = np.lexsort((paths["token"], -paths["t"], paths["scenario"], paths["d"]))
    forward = np.lexsort((paths["token"], paths["t"], paths["scenario"], paths["d"]))
    columns = {column: np.empty_like(values) for column, values in paths.items()}
    for column, values in paths.items():
        columns[column][forward] = values if column == "t" else values[order]
    columns["t"] = paths["t"]
    with pytest.raises(ContradictionError, match="A-form of a pair decreases, which T1 excludes"):
        FIGURES[name].check(changed(name, "paths", **columns), quick(FIGURES[name]))


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(("scenario", "statement"), [("pd", "T3"), ("nd", "T2")])
def test_a_wandering_mean_contradicts_t2_and_t3(name, scenario, statement):
    """A common shift leaves all pairs alone: 9 at the start for pd, at the end for nd."""
    paths, until = computed(name)["paths"], quick(FIGURES[name])["until"]
    left = paths["t"] / until if scenario == "nd" else 1 - paths["t"] / until
    shift = np.where(paths["scenario"] == scenario, 9 * left, 0)
    with pytest.raises(ContradictionError, match=f"{scenario}: ½ Σ .* as {statement} has it"):
        FIGURES[name].check(changed(name, "paths", x1=paths["x1"] + shift), quick(FIGURES[name]))


@pytest.mark.parametrize("column", ["score", "response"])
def test_a_flipped_sign_is_another_scenario(column):
    spoilt = changed("scenarios", "systems", **{column: -computed("scenarios")["systems"][column]})
    with pytest.raises(ContradictionError, match="not those of this scenario"):
        fig_scenarios.check(spoilt, quick(fig_scenarios.FIGURE))


@pytest.mark.parametrize("name", FIGURES)
def test_paths_that_are_not_numbers_are_refused(name):
    """Also by `check` alone, which takes no comparison with NaN for agreement."""
    paths = computed(name)["paths"]
    spoilt = changed(name, "paths", x1=np.where(paths["scenario"] == "hd", np.nan, paths["x1"]))
    with pytest.raises(ContradictionError, match=r"paths\.x1: a number is not finite"):
        FIGURES[name].accept(spoilt, quick(FIGURES[name]))
    with pytest.raises(ContradictionError, match="hd: the A-form of a pair decreases"):
        FIGURES[name].check(spoilt, quick(FIGURES[name]))


def test_captions_say_which_dimensions_have_an_antisymmetric_part():
    few = {**quick(fig_scenarios.FIGURE), "dimensions": [2, 3]}
    captions = [
        fig_scenarios.caption(computed("scenarios"), quick(fig_scenarios.FIGURE)),
        fig_scenarios.caption(computed("scenarios"), few),
        fig_movie.caption(computed("movie"), quick(fig_movie.FIGURE)),
    ]
    assert [("in $d = 1, 2, 3$" in text, "in $d = 2, 3$" in text) for text in captions[:2]] == [
        (True, False),
        (False, True),
    ]
    assert ["where $d > 1$" in text for text in captions] == [True, False, False]


@pytest.mark.parametrize(("scenario", "match"), [("pd", "not grown, T3"), ("nd", "not fallen, T2")])
def test_the_largest_norm_must_grow_or_fall(scenario, match):
    """A = ±diag(1, 100) and two tokens whose forms behave while their norms do not."""
    A = np.diag([1.0, 100.0]) * (1 if scenario == "pd" else -1)
    wide, tall = np.array([[3.0, 0.0], [-3.0, 0.0]]), np.array([[0.0, 1.0], [0.0, -1.0]])
    x = np.stack([wide, tall] if scenario == "pd" else [tall, wide])
    with pytest.raises(ContradictionError, match=match):
        fig_scenarios.check_run(np.arange(2.0), x, np.eye(2), A, scenario)


def test_the_movie_repeats_to_the_byte(tmp_path):
    few = {**quick(fig_movie.FIGURE), "samples_per_frame": 25}
    files = [tmp_path / "first.gif", tmp_path / "second.gif"]
    for file in files:
        with matplotlib.rc_context(), matplotlib_style.context(["default", STYLE]):
            fig_movie.animate(computed("movie"), few).save(file, writer="pillow", dpi=50)
    assert files[0].read_bytes() == files[1].read_bytes()
    with Image.open(files[0]) as movie:
        assert getattr(movie, "n_frames", 1) == 5
