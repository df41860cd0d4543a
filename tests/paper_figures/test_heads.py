"""Figures of heads: what contradicts S1 or the metric is found, and stored results are read or refused."""

import csv
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from numerics.positional_symbolic import Behaviour, behaviour
from paper_figures import fig_canonical_tasks, fig_positional_symbolic, regenerate
from paper_figures.figure import ContradictionError, MissingError
from theory.errors import InputError

HEADS, TASKS = fig_positional_symbolic.FIGURE, fig_canonical_tasks.FIGURE
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
    return Behaviour(found.symbolic, found.positional, found.entropy)


def of_logits(logits, blocks, temperature):
    return behaviour(logits, blocks, temperature, "logits")


@pytest.mark.parametrize("false", [exchanged, of_logits])
def test_another_metric_is_found(monkeypatch, false):
    monkeypatch.setattr(fig_positional_symbolic, "behaviour", false)
    with pytest.raises(ContradictionError, match="heads"):
        HEADS.accept(HEADS.compute(QUICK, CPU), QUICK)


# Canonical tasks


def lines():
    return [
        (task, frequency, seed, position, round(0.1 + 0.2 * seed + 0.05 * position, 6))
        for task in ("index", "retrieval")
        for frequency in (1.0, 0.01)
        for seed in (0, 1)
        for position in range(1, 9)
    ]


def store(root, lines, header=tuple(fig_canonical_tasks.COLUMNS), name="runs.csv"):
    folder = root / "canonical_tasks"
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *lines])


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(regenerate, "RESULTS", tmp_path)
    monkeypatch.setenv("TOKENDYN_CACHE", str(tmp_path / "cache"))
    return tmp_path


def made(results):
    """What `make` leaves behind, by name."""
    out = results / "out"
    out.mkdir(exist_ok=True)
    made = regenerate.make(TASKS, out)
    assert made.caption.endswith(".")
    return {path.name: path for path in out.iterdir()}


def test_stored_results_are_drawn(results):
    store(results, lines()[:16], name="a.csv")
    store(results, lines()[16:], name="b.csv")
    files = made(results)
    with files["canonical_tasks.accuracy.csv"].open(encoding="utf-8", newline="") as stream:
        found = list(csv.reader(stream))
    assert found == [[*fig_canonical_tasks.COLUMNS], *([str(entry) for entry in line] for line in lines())]
    assert {"canonical_tasks.pdf", "canonical_tasks.png", "canonical_tasks.json"} <= set(files)


def test_lines_and_columns_come_in_any_order(results):
    store(results, [line[::-1] for line in reversed(lines())], tuple(fig_canonical_tasks.COLUMNS)[::-1])
    parameters = regenerate.with_results(TASKS, quick=False)
    (panel, other) = TASKS.draw(TASKS.compute(parameters, CPU), parameters).axes
    assert (panel.get_title(), other.get_title()) == ("index", "retrieval")
    assert [line.get_label() for line in panel.lines] == [r"$\theta=1$", r"$\theta=0.01$"]
    np.testing.assert_allclose(np.asarray(panel.lines[0].get_ydata()), 0.2 + 0.05 * np.arange(1, 9))


def test_absent_results_are_missing(results):
    with pytest.raises(MissingError, match="canonical_tasks"):
        regenerate.make(TASKS, results)


@pytest.mark.parametrize(
    ("column", "entry"),
    [
        ("task", "indexing"),
        ("frequency", "high"),
        ("frequency", "-1"),
        ("frequency", "nan"),
        ("seed", "1.5"),
        ("position", ""),
        ("accuracy", "90 %"),
        ("accuracy", "1.001"),
        ("accuracy", "-0.1"),
        ("accuracy", "nan"),
    ],
)
def test_a_bad_entry_is_named(results, column, entry):
    place = list(fig_canonical_tasks.COLUMNS).index(column)
    bad = list(lines()[1])
    bad[place] = entry
    store(results, [lines()[0], bad, *lines()[2:]])
    with pytest.raises(InputError) as raised:
        made(results)
    assert raised.value.argument == f"{results / 'canonical_tasks' / 'runs.csv'}, line 3, column {column}"
    assert raised.value.got == repr(entry)
    assert raised.value.expected == fig_canonical_tasks.COLUMNS[column][1]
    assert raised.value.fix


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("task,frequency,seed,position,acc\n", "runs.csv, header"),
        ("task,frequency,seed,position,position,accuracy\n", "runs.csv, header"),
        ("", "runs.csv, header"),
        ("task,frequency,seed,position,accuracy\n", "runs.csv"),
        ("task,frequency,seed,position,accuracy\nindex,1,0,1\n", "runs.csv, line 2"),
        ("task,frequency,seed,position,accuracy\nindex,1,0,1,0.5,0.5\n", "runs.csv, line 2"),
        (b"\xff\xfe", "runs.csv"),
    ],
)
def test_a_malformed_file_is_named(results, content, where):
    store(results, [])
    content = content if isinstance(content, bytes) else content.encode()
    Path(results, "canonical_tasks", "runs.csv").write_bytes(content)
    with pytest.raises(InputError) as raised:
        made(results)
    assert raised.value.argument.endswith(where)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda lines: lines[:-1], "no line of task retrieval, frequency 0.01, seed 1, position 8"),
        (
            lambda lines: [*lines, lines[-1]],
            "line 66: got task retrieval, frequency 0.01, seed 1, position 8 again",
        ),
        (lambda lines: [*lines, ("index", 0.5, 0, 3, 0.5)], "task index, frequency 0.5, seed 0, position 1"),
    ],
)
def test_incomplete_and_repeated_runs_are_not_drawn(results, change, match):
    store(results, change(lines()))
    with pytest.raises(InputError, match=match):
        made(results)
    assert not list((results / "out").iterdir())
