"""Spoilt data of the layers are refused; the refinements are drawn from files, and bad files are named."""

import csv
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from paper_figures import fig_layers, fig_refinements, regenerate
from paper_figures.figure import ContradictionError, Data, MissingError, Parameters
from paper_figures.regenerate import make
from theory.errors import InputError

# Layers

LAYERS = fig_layers.FIGURE.sized(quick=True)


@cache
def _layers() -> Data:
    return fig_layers.compute(LAYERS, torch.device("cpu"))


def spoilt(of: str, /, **changes) -> Data:
    """The layers with columns of a scenario changed by functions."""
    layers = {name: column.copy() for name, column in _layers()["layers"].items()}
    own = layers["scenario"] == of
    for name, change in changes.items():
        layers[name][own] = change(layers[name][own])
    return _layers() | {"layers": layers}


def with_balance(scenario: str, factor: float) -> Data:
    """The change of E times a factor, and Σe_i so that the balance still holds."""
    layers = _layers()["layers"]
    own, h = layers["scenario"] == scenario, LAYERS["step"]
    rise = factor * (layers["next_energy"] - layers["energy"])[own]
    return spoilt(
        scenario,
        next_energy=lambda _: layers["energy"][own] + rise,
        attended=lambda _: (rise - h**2 / 2 * layers["moved"][own]) / h,
    )


def test_true_layers_pass():
    fig_layers.check(_layers(), LAYERS)
    small = fig_layers.small_steps(_layers(), LAYERS)
    assert len(small["layer"]) == LAYERS["stacks"] * LAYERS["layers"]


@pytest.mark.parametrize("scenario", ["pd", "hd", "nd"])
@pytest.mark.parametrize("name", ["attended", "moved", "next_energy"])
def test_every_term_of_the_balance_counts(scenario, name):
    with pytest.raises(ContradictionError, match=f"{scenario}.*balance"):
        fig_layers.check(spoilt(scenario, **{name: lambda column: 1.05 * column}), LAYERS)


NEGATED = dict.fromkeys(("energy", "next_energy", "attended", "moved"), np.negative)
"""As with −A for A; the balance still holds."""
SPOILT = [
    (lambda: with_balance("pd", -1), "pd, stack 0, layer 1: E does not grow, which T16a excludes"),
    (lambda: with_balance("nd", -1), "nd, stack 0, layer 1: E does not fall, which T16 excludes"),
    (lambda: spoilt("nd", gain=lambda gain: gain / 100), "nd.*E falls by less than T16 says"),
    (lambda: spoilt("pd", growth=lambda growth: growth - 0.1), "pd.*an A-distance shrinks"),
    (lambda: spoilt("nd", **NEGATED), "nd.*½ΣxᵀAx is not negative"),
    (lambda: spoilt("pd", **NEGATED), "pd.*½ΣxᵀAx is not positive"),
]


@pytest.mark.parametrize(("data", "message"), SPOILT)
def test_spoilt_layers_are_refused(data, message):
    with pytest.raises(ContradictionError, match=message):
        fig_layers.check(data(), LAYERS)


def test_nothing_is_claimed_of_large_steps_and_a_claim_would_be_refused():
    """h = 3 is far beyond the bound, and under A ≺ 0 E rises, which a bound without Γ would exclude."""
    large = LAYERS | {"step": 3.0, "stacks": 3, "layers": 3}
    data = fig_layers.compute(large, torch.device("cpu"))
    fig_layers.check(data, large)
    assert not len(fig_layers.small_steps(data, large)["layer"])
    data["layers"]["gain"][:] = 1e-9
    with pytest.raises(ContradictionError, match=r"nd.*E does not fall"):
        fig_layers.check(data, large)


def scaled(factor: float, name: str, kind: str = "", layers: bool = True) -> Data:
    """A metric times a factor, for one kind of layers or both, at the start or after the layers."""
    metrics = {column: values.copy() for column, values in _layers()["metrics"].items()}
    chosen = ((metrics["layer"] > 0) == layers) & np.isin(
        metrics["kind"], [kind] if kind else list(fig_layers.KINDS)
    )
    metrics[name][chosen] *= factor
    return _layers() | {"metrics": metrics}


@pytest.mark.parametrize("kind", fig_layers.KINDS)
@pytest.mark.parametrize("factor", [7, 1 / 7, -1])
@pytest.mark.parametrize("name", ["squares", *fig_layers.METRICS])
def test_metrics_that_do_not_belong_together_are_refused(name, factor, kind):
    with pytest.raises(ContradictionError, match=r"is not (one|that) of"):
        fig_layers.check(scaled(factor, name, kind), LAYERS)


@pytest.mark.parametrize("name", ["squares", *fig_layers.METRICS])
def test_runs_with_another_start_are_refused(name):
    with pytest.raises(ContradictionError, match=f"{name}: another start"):
        fig_layers.check(scaled(1 + 1e-9, name, "blocks", layers=False), LAYERS)


def test_sizes_that_are_not_those_of_the_energy_are_refused():
    """Tokens three times as large have metrics that belong together, but another E."""
    data = scaled(9, "squares", "attention")["metrics"]
    for name, factor in (("squared distances", 9), ("norm", 3)):
        data[name] = scaled(factor, name, "attention")["metrics"][name]
    with pytest.raises(ContradictionError, match="Σ‖x_i‖² is not that of tokens with this E"):
        fig_layers.check(_layers() | {"metrics": data}, LAYERS)


def test_a_layer_starts_where_the_one_before_ended():
    """One layer with all energies 1 % larger: T16's balance and bound still hold."""
    number = _layers()["layers"]["layer"][_layers()["layers"]["scenario"] == "nd"]
    factor = np.where(number == 5, 1.01, 1)
    larger = dict.fromkeys(("energy", "next_energy", "attended", "moved"), lambda column: factor * column)
    with pytest.raises(
        ContradictionError, match="nd, stack 0, layer 5: E is not that after the layer before"
    ):
        fig_layers.check(spoilt("nd", **larger), LAYERS)


@pytest.mark.parametrize("name", ["energy", "next_energy", "attended", "smallest", "gain", "growth"])
def test_layers_that_are_not_numbers_are_refused(name):
    with pytest.raises(ContradictionError, match=rf"layers\.{name}: a number is not finite"):
        fig_layers.FIGURE.accept(spoilt("pd", **{name: lambda column: np.nan * column}), LAYERS)


@pytest.mark.parametrize("name", ["squares", *fig_layers.METRICS])
def test_metrics_that_are_not_numbers_are_refused(name):
    """Also by `check` alone, which takes no comparison with NaN for agreement."""
    for refuse in (fig_layers.check, fig_layers.FIGURE.accept):
        with pytest.raises(ContradictionError):
            refuse(scaled(np.nan, name), LAYERS)


# Refinements

HEADER = list(fig_refinements.COLUMNS)
RUNS = list(product(["text_8", "images"], ["pd", "none"], ["rotary", "rotary+D"], ["0", "1"]))


def lines() -> list[list[str]]:
    """Two metrics at three steps and one at the end, of every run."""
    found = []
    for run in RUNS:
        for step, metric in product(["0", "50", "100"], ["train loss", "valid loss"]):
            found.append([*run, step, metric, str(3 - int(step) / 100 + int(run[3]) / 10)])
        found.append([*run, "100", "test accuracy", "0.5"])
    return found


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENDYN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(regenerate, "RESULTS", tmp_path)
    Path("out").mkdir()
    Path("refinements").mkdir()


def put(name: str, content: list[list[str]], header: list[str] = HEADER) -> None:
    with Path("refinements", name).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *content])


def draw():
    return make(fig_refinements.FIGURE, Path("out"))


def read() -> tuple[Data, Parameters]:
    p = regenerate.with_results(fig_refinements.FIGURE, quick=False)
    return fig_refinements.compute(p, torch.device("cpu")), p


def test_without_results_there_is_no_figure():
    with pytest.raises(MissingError, match=r"refinements/\*\.csv"):
        draw()


def test_refinements_are_drawn_from_several_files():
    own = lines()
    put("a.csv", own[:56])
    put("b.csv", own[56:])
    made = draw()
    assert made.how == "computed"
    assert r"text\_8 (2 seeds), images (2 seeds)" in made.caption
    assert made.caption.endswith(".")
    assert Path("out/refinements.pdf").stat().st_size > 1000
    with Path("out/refinements.values.csv").open(encoding="utf-8", newline="") as stream:
        assert list(csv.reader(stream)) == [HEADER, *own]
    assert draw().how == "unchanged"


def test_columns_may_come_in_any_order():
    put("a.csv", lines())
    expected = read()[0]["values"]
    put("a.csv", [line[::-1] for line in lines()], HEADER[::-1])
    found = read()[0]["values"]
    assert all((found[name] == expected[name]).all() for name in HEADER)


def panels() -> dict[str, list[str]]:
    put("a.csv", lines())
    page = fig_refinements.draw(*read())
    return {
        block.get_supylabel(): [axes.get_title() for axes in block.axes if axes.axison]
        for block in page.subfigs[1:]
    }


def test_a_block_has_curves_and_values_at_the_end():
    expected = ["train loss", "valid loss", "valid loss, end", "test accuracy, end"]
    assert panels() == {"text_8": expected, "images": expected}


def changed(number: int, column: str, text: str) -> list[list[str]]:
    """The lines with one field changed; number counts as an editor does, the header being line 1."""
    own = lines()
    own[number - 2][HEADER.index(column)] = text
    return own


MALFORMED = [
    ([], HEADER, r"a\.csv: got a header only"),
    (lines(), [*HEADER[:-1], "result"], r"header: got .*result; expected the columns experiment,.*value"),
    ([*lines(), ["x"]], HEADER, r"a\.csv, line 114: got 1 fields; expected 7"),
    (changed(3, "scenario", "dp"), HEADER, r"a\.csv, line 3, column scenario: got 'dp'; expected one of pd"),
    (changed(4, "encoding", "rotray"), HEADER, r"a\.csv, line 4, column encoding: .*did you mean rotary\?"),
    (changed(5, "seed", "one"), HEADER, r"a\.csv, line 5, column seed: got 'one'; expected an integer"),
    (changed(6, "step", "1e3"), HEADER, r"a\.csv, line 6, column step: got '1e3'; expected an integer"),
    (changed(7, "metric", ""), HEADER, r"a\.csv, line 7, column metric: got ''; expected a name"),
    (
        changed(8, "value", "3,1"),
        HEADER,
        r"line 8, column value: got '3,1'; expected a finite number",
    ),
    (
        changed(9, "value", "nan"),
        HEADER,
        r"line 9, column value: got 'nan'; expected a finite",
    ),
    (
        changed(9, "value", "inf"),
        HEADER,
        r"line 9, column value: got 'inf'; expected a finite",
    ),
    (changed(9, "seed", str(2**63)), HEADER, r"a\.csv, line 9, column seed: .*expected an integer"),
    (
        [*lines(), lines()[0]],
        HEADER,
        r"a\.csv, line 114: got experiment text_8, scenario pd, .* metric train loss, step 0 again",
    ),
    (
        lines()[:-1],
        HEADER,
        r"a\.csv: got no line of experiment images, .*rotary\+D, seed 1, metric test acc.*, step 100",
    ),
    (
        changed(2, "step", "7"),
        HEADER,
        r"a\.csv: got no line of experiment text_8, .* metric train loss, step 7;.*Fix: finish",
    ),
]


@pytest.mark.parametrize(("content", "header", "message"), MALFORMED)
def test_a_malformed_file_is_named_with_its_place(content, header, message):
    put("a.csv", content, header)
    with pytest.raises(InputError, match=message):
        draw()
    assert not list(Path("out").iterdir())


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b'"' + b"x" * 200_000])
def test_a_file_that_is_no_table_is_refused(content):
    Path("refinements/a.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.csv"):
        draw()


def test_the_mark_that_spreadsheets_put_first_is_no_part_of_a_name():
    put("a.csv", lines())
    expected = read()[0]["values"]
    Path("refinements/a.csv").write_bytes(b"\xef\xbb\xbf" + Path("refinements/a.csv").read_bytes())
    found = read()[0]["values"]
    assert all((found[name] == expected[name]).all() for name in HEADER)


def test_special_characters_of_latex_are_escaped():
    put("a.csv", [["50% & _x_ $y$", *line[1:]] for line in lines()[:56]])
    assert r"50\% \& \_x\_ \$y\$ (2 seeds)" in fig_refinements.caption(*read())


def test_runs_may_have_different_numbers_of_seeds():
    put("a.csv", [line for line in lines() if line[:3] != ["images", "pd", "rotary"] or line[3] == "0"])
    assert r"text\_8 (2 seeds), images (1--2 seeds)" in fig_refinements.caption(*read())
