"""The check of the pairwise figure can fail."""

from functools import cache

import numpy as np
import pytest
import torch

from paper_figures import fig_pairwise
from paper_figures.figure import ContradictionError, Data

QUICK = fig_pairwise.FIGURE.sized(quick=True)


@cache
def computed() -> Data:
    return fig_pairwise.compute(QUICK, torch.device("cpu"))


@pytest.mark.parametrize("run", fig_pairwise.RUNS)
def test_a_claim_about_euclidean_distances_is_refuted_in_every_run(run):
    """With A = ±1 in place of the true A the check asks whether Euclidean distances are monotone."""
    path = computed()["paths"]
    others = {**path, "x1": np.where(path["run"] == run, path["x1"], 0)}
    others["x2"] = np.where(path["run"] == run, path["x2"], 0)
    with pytest.raises(ContradictionError, match=f"run {run}: the A-form of a pair decreases"):
        fig_pairwise.check({"paths": others}, {**QUICK, "response": [1.0, 1.0]})


def test_the_opposite_sign_of_the_response_is_refuted():
    with pytest.raises(ContradictionError, match="which T1 excludes"):
        fig_pairwise.check(computed(), {**QUICK, "response": [-1.0, -10.0]})


@pytest.mark.parametrize("stated", [[-4.87, 6.10], [-4.88, 6.09], [4.87, 6.09]])
def test_other_rates_are_refuted(stated):
    with pytest.raises(ContradictionError, match=r"is not the .* of T1's example"):
        fig_pairwise.check(computed(), {**QUICK, "stated": stated})


def test_a_path_five_per_cent_too_slow_is_refuted():
    path = computed()["paths"]
    with pytest.raises(ContradictionError, match="the path starts with the rate"):
        fig_pairwise.check({"paths": {**path, "t": 1.05 * path["t"]}}, QUICK)


def test_the_rates_are_those_of_the_closed_form():
    """For tokens ±u: 8 tanh(uᵀWu) uᵀA⁻¹Wu and 8 tanh(uᵀWu) uᵀWu; here uᵀWu = 1 and uᵀA⁻¹Wu = −4/5."""
    u, W, A = np.array(QUICK["token"]), np.array(QUICK["score"]), np.diag(QUICK["response"])
    found = [fig_pairwise.rates(np.stack([u, -u])[None], W, A, M).item() for M in (np.eye(2), A)]
    np.testing.assert_allclose(found, [-6.4 * np.tanh(1), 8 * np.tanh(1)], rtol=1e-14)


def test_marked_distances_do_go_the_other_way():
    """Between neighbouring marked samples, for each sign of A."""
    for name, sign in fig_pairwise.RUNS.items():
        path = computed()["paths"]
        x = np.stack([path[column][path["run"] == name] for column in ("x1", "x2")], -1)
        x = x.reshape(QUICK["samples"], -1, 2)
        i, j = np.triu_indices(x.shape[1], 1)
        change = np.diff(((x[:, i] - x[:, j]) ** 2).sum(2), axis=0)
        marked = fig_pairwise._wrong(computed(), QUICK, name)
        assert (sign * change < 1e-7)[marked[1:] & marked[:-1]].all()
        assert marked.any()


def test_a_path_that_is_not_a_number_is_refused():
    path = computed()["paths"]
    with pytest.raises(ContradictionError, match="not finite"):
        fig_pairwise.FIGURE.accept({"paths": {**path, "x1": np.nan * path["x1"]}}, QUICK)
    with pytest.raises(ContradictionError, match="which T1 excludes"):
        fig_pairwise.check({"paths": {**path, "x1": np.nan * path["x1"]}}, QUICK)
