"""regime_map and encodings: what they must refuse, and their margins computed in other ways."""

import math
from functools import cache, partial

import numpy as np
import pytest
import torch

from numerics import observables
from numerics.encodings import rotary_turns
from paper_figures import fig_encodings, fig_regime_map
from paper_figures.figure import ContradictionError, Data, Figure
from theory.certificate import Certificate, check
from theory.instance import Instance
from theory.layer import Layer
from theory.registry import statement

MAP, ENCODINGS = fig_regime_map.FIGURE, fig_encodings.FIGURE
SETTINGS = {figure.name: figure.sized(quick=True) for figure in (MAP, ENCODINGS)}


@cache
def computed(name: str) -> Data:
    (figure,) = (figure for figure in (MAP, ENCODINGS) if figure.name == name)
    return figure.compute(SETTINGS[name], torch.device("cpu"))


def fresh(figure: Figure) -> Data:
    """A copy to spoil."""
    data = computed(figure.name)
    return {part: {name: column.copy() for name, column in columns.items()} for part, columns in data.items()}


def refused(figure: Figure, data: Data, match: str) -> None:
    with pytest.raises(ContradictionError, match=match):
        figure.accept(data, SETTINGS[figure.name])


# regime_map


def moved(sign: str, source: str, target: str, **having: float) -> Data:
    """One system with these properties, seen in another regime."""
    data = fresh(MAP)
    systems = data["systems"]
    those = (systems["sign"] == sign) & (systems["regime"] == source)
    for name, value in having.items():
        those &= systems[name] == value
    systems["regime"][np.flatnonzero(those)[-1]] = target
    return data


@pytest.mark.parametrize("share", ["share_w", "share_a"])
def test_a_system_of_t2_or_t5_that_diverges_is_refused(share):
    refused(MAP, moved("-", "converged", "diverged", **{share: 0}), "T2 and T5")


@pytest.mark.parametrize("share", ["share_w", "share_a"])
def test_a_system_of_t3_or_t5_that_converges_is_refused(share):
    refused(MAP, moved("+", "diverged", "converged", **{share: 0}), "T3 and T5")


def test_a_counterexample_to_c1_is_refused():
    data = fresh(MAP)
    systems = data["systems"]
    below = (systems["sign"] == "-") & (systems["regime"] == "diverged")
    systems["tau"][np.flatnonzero(below)[0]] = 0.99
    refused(MAP, data, "C1 excludes")


def test_a_certified_system_that_converges_is_refused():
    data = moved("+", "diverged", "converged", certified=True)
    data["systems"]["share_w"][:] = data["systems"]["share_a"][:] = 0.5
    refused(MAP, data, "T11 certifies")


@pytest.mark.parametrize(("slack", "match"), [(-0.01, "T11's bound"), (np.nan, "not finite")])
def test_a_broken_bound_is_refused(slack, match):
    data = fresh(MAP)
    data["systems"]["slack"][np.flatnonzero(data["systems"]["certified"])[0]] = slack
    refused(MAP, data, match)
    if slack != slack:
        with pytest.raises(ContradictionError, match="T11's bound"):
            MAP.check(data, SETTINGS[MAP.name])


def test_the_caption_counts_what_c1_leaves_undecided():
    systems = computed(MAP.name)["systems"]
    those = (systems["sign"] == "-") & (systems["tau"] < 1)
    late = those & (systems["regime"] != "converged")
    caption = MAP.caption(computed(MAP.name), SETTINGS[MAP.name])
    assert f"{those.sum() - late.sum()} converged, {late.sum()} are undecided" in caption


def test_a_larger_region_than_c1_states_is_refused(monkeypatch):
    """τ_W τ_A < 4."""
    true = fig_regime_map._norm
    monkeypatch.setattr(fig_regime_map, "_norm", lambda N, M: true(N, M) / 2)
    refused(MAP, MAP.compute(SETTINGS[MAP.name], torch.device("cpu")), "C1 excludes")


def test_a_larger_margin_than_t11_states_is_refused(monkeypatch):
    """η = 2 λ_min − ν."""
    true = observables.pencil_minimum
    monkeypatch.setattr(observables, "pencil_minimum", lambda S, M: 2 * true(S, M))
    refused(MAP, MAP.compute(SETTINGS[MAP.name], torch.device("cpu")), "T11's bound")


@pytest.mark.parametrize("name", ["T7", "R1"])
def test_counterexamples_that_do_not_grow_are_refused(name):
    data = fresh(MAP)
    data["points"]["norm"][data["points"]["point"] == name] *= 1e-4
    refused(MAP, data, name)


@pytest.mark.parametrize(("change", "missing"), [(-1e-6, set()), (1e-6, {"score margin"})])
def test_the_float_margin_of_t11b_is_where_the_exact_one_ends(change, missing):
    generator = torch.Generator().manual_seed(3)
    W = torch.eye(3).double() + 0.2 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
    A = -torch.eye(3).double() + 0.1 * torch.randn(3, 3, dtype=torch.float64, generator=generator)
    V, M = torch.linalg.solve(A, W), -(A + A.T) / 2
    nu = fig_regime_map._norm((M @ V + W)[None], M[None]).item()
    eta = observables.pencil_minimum(W[None], M[None]).item() - nu
    weights = {"score": W.tolist(), "value": V.tolist(), "metric": M.tolist()}

    def lacking(multiplier: float, margin: float) -> set[str]:
        instance = Instance.of(**weights, multiplier=multiplier, margin=margin)
        return {part.key for part in statement("T11b").hypotheses if not part.decide(instance).holds}

    assert lacking(multiplier=nu + 1e-9, margin=eta + change) == missing
    assert lacking(multiplier=nu - 1e-6, margin=eta) == {"opposite response block"}


# encodings


def test_an_encoding_in_the_values_that_is_not_a_shift_is_refused():
    data = fresh(ENCODINGS)
    data["positions"]["p"] *= 1.001
    refused(ENCODINGS, data, "differs from the plain system")


@pytest.mark.parametrize("encoding", ["none", "values"])
def test_a_wrong_limit_is_refused(encoding):
    """Tokens a little too large at the end; with T12's change of origin left intact."""
    data = fresh(ENCODINGS)
    paths = data["paths"]
    last = paths["t"] == paths["t"].max()
    if encoding == "none":
        paths["x"][last & (paths["encoding"] == "none")] *= 1.05
    else:
        positions = data["positions"]["p"]
        z = 1.05 * paths["x"][last & (paths["encoding"] == "input")]
        paths["x"][last & (paths["encoding"] == "input")] = z
        paths["x"][last & (paths["encoding"] == "values")] = z - positions
    refused(ENCODINGS, data, f"encoding {encoding}")


def test_a_wrong_rate_at_zero_is_refused():
    data = fresh(ENCODINGS)
    paths = data["paths"]
    scores = paths["encoding"] == "scores"
    paths["x"][scores] *= np.exp(-0.001 * paths["t"][scores])
    refused(ENCODINGS, data, "T12b")


def test_a_rate_at_zero_that_is_not_seen_is_refused():
    """Tokens encoded in the scores only that run as without encoding do not come near 0."""
    data = fresh(ENCODINGS)
    paths = data["paths"]
    paths["x"][paths["encoding"] == "scores"] = paths["x"][paths["encoding"] == "none"]
    refused(ENCODINGS, data, "do not come near 0, so T12b is not seen")


@pytest.mark.parametrize(("table", "column"), [("paths", "x"), ("certified", "end"), ("margins", "median")])
def test_what_did_not_arrive_is_refused(table, column):
    data = fresh(ENCODINGS)
    data[table][column][-1] = np.nan
    refused(ENCODINGS, data, f"{table}.{column}: a number is not finite")


@pytest.mark.parametrize(("sign", "factor"), [(-1, 1e4), (1, 1e-2)])
def test_an_energy_beyond_the_bound_is_refused(sign, factor):
    data = fresh(ENCODINGS)
    data["certified"]["end"][data["certified"]["sign"] == sign] *= factor
    refused(ENCODINGS, data, "T13's bound")


def test_a_margin_that_d_lowers_is_refused():
    data = fresh(ENCODINGS)
    chosen = data["margins"]["sweep"] == "I"
    data["margins"]["median"][chosen] *= -1
    refused(ENCODINGS, data, "does not grow")


@pytest.mark.parametrize("d_rot", [4, 8])
def test_the_margin_is_that_of_turned_scores(d_rot):
    """Against W_r from numerics' turns and the inverse square root of |A|."""
    generator = torch.Generator().manual_seed(5)
    query, key = torch.randn(2, 1, 8, 3, dtype=torch.float64, generator=generator)
    form = torch.diag(torch.tensor([0.5, 1.0, 2.0]).double())[None]
    root = form.diagonal(dim1=1, dim2=2)[0] ** -0.5
    turns = rotary_turns(6, 8, base=50.0, d_rot=d_rot)
    score = query[0].T @ key[0]
    apart = max(
        torch.linalg.matrix_norm(root[:, None] * (query[0].T @ R @ key[0] - score) * root, 2).item()
        for turn in turns[1:]
        for R in (turn, turn.T)
    )
    smallest = torch.linalg.eigvalsh(root[:, None] * (score + score.T) / 2 * root)[0].item()
    found = fig_encodings._margins(query, key, form, 6, 50.0, d_rot)
    assert found.item() == pytest.approx(smallest - apart, rel=1e-12)


def test_d_adds_at_least_its_smallest_eigenvalue():
    generator = torch.Generator().manual_seed(6)
    query, key = torch.randn(2, 5, 8, 3, dtype=torch.float64, generator=generator)
    form, added = (
        torch.diag(torch.tensor([0.5, 1.0, 2.0]).double()).expand(5, 3, 3),
        0.7 * torch.eye(3).double(),
    )
    without = fig_encodings._margins(query, key, form, 6, 50.0, 8)
    gained = fig_encodings._margins(query, key, form, 6, 50.0, 8, added) - without
    assert (gained >= 0.7 / 2 - 1e-12).all()


def test_contexts_of_one_token_lose_nothing_to_rotation():
    query = torch.eye(2).double()[None]
    assert math.isclose(fig_encodings._margins(query, query, query, 1, 10.0, 2).item(), 1.0)


def test_the_float_margin_of_t13_gives_an_exact_certificate():
    """Two pairs of coordinates, and tokens at most two positions apart."""
    query = torch.tensor([[1.0, 0.1], [0.0, 1.2], [1.5, 0.0], [0.2, 1.4]]).double() / 2
    form = torch.tensor([[0.8, 0.1], [0.1, 1.0]]).double()
    margin = partial(fig_encodings._margins, query[None], query[None], form[None], 3, 1000.0)
    eta, smallest = margin(4).item(), margin(0).item()
    V = torch.linalg.solve(form, query.T @ query)
    parts = ([part.tolist()] for part in (query, query, V))
    layer = Layer.from_projections(*parts, n=3, scale=1, rotary=1000)
    given = Certificate.plain("divergence", form.tolist(), smallest - eta + 1e-9, eta - 1e-8, range(-2, 3))
    assert check(given, layer).holds
