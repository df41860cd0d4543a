"""The figure of canonical tasks: stored results are read and drawn, or refused with the place."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from paper_figures import fig_canonical_tasks, regenerate
from paper_figures.figure import MissingError
from theory.errors import InputError

TASKS = fig_canonical_tasks.FIGURE
CPU = torch.device("cpu")


def lines():
    return [
        (task, frequencies, 0, seed, position, round(0.1 + 0.2 * seed + 0.05 * position, 6))
        for task in ("index", "retrieval")
        for frequencies in ("1", "0.01")
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
    panel, other, below, _ = TASKS.draw(TASKS.compute(parameters, CPU), parameters).axes
    assert (panel.get_title(), other.get_title()) == ("index", "retrieval")
    assert [line.get_label() for line in panel.lines] == [r"$\theta=1$", r"$\theta=0.01$"]
    np.testing.assert_allclose(np.asarray(panel.lines[0].get_ydata()), 0.2 + 0.05 * np.arange(1, 9))
    (line,) = below.lines
    np.testing.assert_allclose(np.asarray(line.get_ydata()), 2 * [0.2 + 0.05 * 4.5])


def test_heads_of_two_pairs_are_drawn_by_frequency_with_and_without_a_pair(results):
    """Sets that are neither 0 and θ nor θ twice are left out, and so is position from all of these."""
    level = {("0.5", 0): 0.3, ("0+0.5", 0): 1.0, ("0+0.5", 1): 0.25, ("0+0.5", 2): 0.5, ("0.5+0.5", 0): 0.7}
    level |= {("0+0", 0): 0.4, ("0+0", 1): 0.35, ("0+0", 2): 0.35, ("0.1+0.5", 0): 0.9, ("0+0+0.5", 0): 0.9}
    store(results, [("index", *key, 0, at, value) for key, value in level.items() for at in (1, 2)])
    parameters = regenerate.with_results(TASKS, quick=False)
    above, below = TASKS.draw(TASKS.compute(parameters, CPU), parameters).axes
    assert [line.get_label() for line in above.lines] == [r"$\theta=0.5$"]
    found = {line.get_label(): np.asarray(line.get_ydata()).tolist() for line in below.lines}
    assert [*found.values()] == [[0.3], [0.4, 1.0], [0.35, 0.5], [0.35, 0.25], [0.4, 0.7]]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "0.5"]


@pytest.mark.parametrize("removed", [-1, 3])
def test_a_pair_that_the_head_does_not_have_is_not_removed(results, removed):
    store(results, [("index", "0+0.5", removed, 0, 1, 0.5)])
    with pytest.raises(InputError, match=rf"pair {removed} removed of frequencies 0\+0.5"):
        made(results)


def test_absent_results_are_missing(results):
    with pytest.raises(MissingError, match="canonical_tasks"):
        regenerate.make(TASKS, results)


@pytest.mark.parametrize(
    ("column", "entry"),
    [
        ("task", "indexing"),
        ("frequencies", "high"),
        ("frequencies", "-1"),
        ("frequencies", "nan"),
        ("frequencies", "inf"),
        ("frequencies", "0.1+0"),
        ("frequencies", "0.1+"),
        ("removed", "first"),
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
        ("task,frequencies,removed,seed,position,acc\n", "runs.csv, header"),
        ("task,frequencies,removed,seed,position,position,accuracy\n", "runs.csv, header"),
        ("", "runs.csv, header"),
        ("task,frequencies,removed,seed,position,accuracy\n", "runs.csv"),
        ("task,frequencies,removed,seed,position,accuracy\nindex,1,0,0,1\n", "runs.csv, line 2"),
        ("task,frequencies,removed,seed,position,accuracy\nindex,1,0,0,1,0.5,0.5\n", "runs.csv, line 2"),
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
        (
            lambda lines: lines[:-1],
            "no line of task retrieval, frequencies 0.01, removed 0, seed 1, position 8",
        ),
        (
            lambda lines: [*lines, lines[-1]],
            "line 66: got task retrieval, frequencies 0.01, removed 0, seed 1, position 8 again",
        ),
        (
            lambda lines: [*lines, ("index", "0.5", 0, 0, 3, 0.5)],
            "task index, frequencies 0.5, removed 0, seed 0, position 1",
        ),
    ],
)
def test_incomplete_and_repeated_runs_are_not_drawn(results, change, match):
    store(results, change(lines()))
    with pytest.raises(InputError, match=match):
        made(results)
    assert not list((results / "out").iterdir())
