"""Every figure at its quick size: data repeat to the byte, agree with the statement and look as before."""

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import style as matplotlib_style

from numerics.fetch import UnavailableError
from paper_figures.figure import Data, Figure
from paper_figures.registry import FIGURES
from paper_figures.style import STYLE
from theory.registry import statements

DOCS = Path(__file__).parents[2] / "docs"
COMPUTED = [figure for figure in FIGURES if not figure.results]


def compute(figure: Figure) -> Data:
    try:
        return figure.compute(figure.sized(quick=True), torch.device("cpu"))
    except UnavailableError as error:
        pytest.skip(f"a package could not be downloaded here; run the test with a network: {error.got}")


@cache
def data(name: str) -> Data:
    (figure,) = (figure for figure in FIGURES if figure.name == name)
    return compute(figure)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_names_known_statements_and_only_known_parameters(figure):
    assert set(figure.statements) <= set(statements())
    assert set(figure.quick) <= set(figure.parameters)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
def test_a_figure_is_on_the_page_of_figures(figure):
    page = (DOCS / "figures.md").read_text(encoding="utf-8")
    assert f"## {figure.title}\n\n`tokendyn figures {figure.name}`" in page
    image = f"figures/{figure.name}.{'gif' if figure.animate else 'png'}"
    drawn = not figure.results or any(DOCS.parent.glob(f"results/{figure.results}"))
    assert (f"]({image})" in page) == (DOCS / image).exists() == drawn


@pytest.mark.parametrize("figure", COMPUTED, ids=lambda figure: figure.name)
def test_the_same_seed_gives_the_same_data(figure):
    again = compute(figure)
    for part, columns in data(figure.name).items():
        assert len({len(column) for column in columns.values()}) == 1
        for name, column in columns.items():
            assert column.dtype.kind in "fibU"
            np.testing.assert_array_equal(column, again[part][name])


@pytest.mark.parametrize("figure", COMPUTED, ids=lambda figure: figure.name)
def test_the_data_agree_with_the_statement_and_have_a_caption(figure):
    figure.accept(data(figure.name), figure.sized(quick=True))
    caption = figure.caption(data(figure.name), figure.sized(quick=True))
    assert caption.endswith(".")
    assert caption.count("$") % 2 == 0


@pytest.mark.parametrize("figure", COMPUTED, ids=lambda figure: figure.name)
@pytest.mark.mpl_image_compare(tolerance=3, savefig_kwargs={"dpi": 60})
def test_a_figure_looks_as_before(figure):
    """Tolerance: root mean square of the difference, of 255; the same build of Matplotlib gives 0."""
    with matplotlib.rc_context(), matplotlib_style.context(["default", STYLE]):
        return figure.draw(data(figure.name), figure.sized(quick=True))
