"""Regenerating: finished figures stay, damaged ones are made again, contradicted ones are not made."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure as Page

from numerics import InputError as NumericsInputError
from numerics.fetch import FetchError, UnavailableError
from paper_figures import cache, gallery, registry
from paper_figures.figure import ContradictionError, Figure, MissingError, stack, table
from paper_figures.regenerate import make
from theory.errors import InputError
from tokendyn.cli import main


def compute(p, device):
    return {"line": table(x=np.arange(p["points"]) / 3, up=True, name="a, b", k=1)}


def check(data, p):
    if not data["line"]["up"].all():
        raise ContradictionError("the line goes down")


def draw(data, p):
    page = Page(figsize=(2, 1))
    page.subplots().plot(data["line"]["x"])
    return page


LINE = Figure(
    name="line",
    title="A line",
    statements=("T1",),
    parameters={"points": 5, "seed": 0},
    quick={"points": 3},
    compute=compute,
    check=check,
    draw=draw,
    caption=lambda data, p: f"A line of {p['points']} points.",
)


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKENDYN_CACHE", str(tmp_path / "cache"))
    Path("out").mkdir()


def made(figure: Figure, **options) -> str:
    return make(figure, Path("out"), **options).how


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("out").iterdir())}


def run(*arguments: str):
    return CliRunner().invoke(main, ["figures", *arguments])


def test_a_figure_comes_with_its_data_parameters_and_versions():
    assert made(LINE) == "computed"
    assert list(contents()) == ["line.json", "line.line.csv", "line.pdf", "line.png"]
    about = json.loads(contents()["line.json"])
    assert about["parameters"] == LINE.parameters
    assert about["caption"] == "A line of 5 points."
    assert set(about["versions"]) >= {"python", "tokendyn", "torch", "matplotlib"}
    assert contents()["line.line.csv"].decode().splitlines()[:2] == ["x,up,name,k", '0.0,True,"a, b",1']


def test_what_is_finished_is_not_made_again_and_a_fresh_run_gives_the_same_bytes():
    made(LINE)
    first = contents()
    assert made(LINE) == "unchanged"
    assert made(LINE, fresh=True) == "computed"
    assert contents() == first


def test_quick_and_other_parameters_are_other_figures():
    made(LINE)
    assert made(LINE, quick=True) == "computed"
    assert made(LINE) == "drawn"
    assert made(replace(LINE, parameters={"points": 6, "seed": 0})) == "computed"


def test_a_number_that_is_not_finite_is_not_drawn():
    def lost(p, device):
        return {"line": table(x=[0.0, np.nan], up=True)}

    with pytest.raises(ContradictionError, match=r"line\.x: a number is not finite"):
        made(replace(LINE, compute=lost))


def test_tables_of_an_earlier_version_are_removed():
    def renamed(p, device):
        return {"curve": compute(p, device)["line"]}

    made(LINE)
    Path("out", "liner.line.csv").write_text("of another figure")
    made(replace(LINE, compute=renamed, check=lambda data, p: None, draw=lambda data, p: Page()), fresh=True)
    assert [name for name in contents() if name.endswith(".csv")] == ["line.curve.csv", "liner.line.csv"]


def test_an_edited_caption_is_noticed():
    made(LINE)
    manifest = Path("out", "line.json")
    manifest.write_text(manifest.read_text(encoding="utf-8").replace("A line of 5", "A line of 6"))
    assert made(LINE) == "drawn"


@pytest.mark.parametrize("name", ["line.pdf", "line.line.csv", "line.json"])
def test_a_damaged_or_missing_output_is_drawn_again_from_the_stored_data(name):
    made(LINE)
    first = contents()
    Path("out", name).write_bytes(first[name][:-3])
    assert made(LINE) == "drawn"
    Path("out", name).unlink()
    assert made(LINE) == "drawn"
    assert contents() == first


@pytest.mark.parametrize("name", ["entry.json", "line.csv"])
def test_a_corrupt_cache_entry_is_detected_and_computed_again(name):
    made(LINE)
    (entry,) = Path("cache", "figures").iterdir()
    intact = (entry / name).read_bytes()
    other_kind = intact.replace(b'"f"', b'"U"') if name == "entry.json" else b"x"
    for damage in (b"", intact[:-2], intact.replace(b"1", b"2"), b"[]", b"{}", b"\xff", other_kind):
        (entry / name).write_bytes(damage)
        Path("out", "line.json").unlink()
        assert made(LINE) == "computed"
        assert (entry / name).read_bytes() == intact


def test_the_cache_returns_the_same_bits(tmp_path):
    wild = table(
        x=[0.1, -0.0, np.nan, np.inf, 5e-324], k=[1, -(2**63), 0, 7, 2**63 - 1], s=["", ",", '"', "\n", "é"]
    )
    for columns in (wild, {name: column[:0] for name, column in wild.items()}, stack([wild, wild])):
        cache.store("wild", "0" * 64, {"part": columns})
        found = cache.load("wild", "0" * 64)["part"]
        for name, column in columns.items():
            assert found[name].dtype.kind == column.dtype.kind
            assert found[name].tobytes() == column.tobytes() or name == "s"
            np.testing.assert_array_equal(found[name], column)


def test_the_key_follows_all_imported_code():
    names = cache.imported("paper_figures.fig_quadrants")
    assert "paper_figures.cache" in cache.imported("paper_figures.regenerate")
    assert {"paper_figures.fig_quadrants", "numerics.integrate", "numerics.numba_backend"} <= set(names)
    assert not any(name.startswith(("tests", "tokendyn", "numpy")) for name in names)


@pytest.mark.parametrize("change", ["style", "code", "version"])
def test_the_key_changes_with_style_code_and_versions(change, monkeypatch, tmp_path):
    figure = registry.FIGURES[0]
    before = cache.key(figure, {}, "cpu")
    assert cache.key(figure, {}, "cuda") != before
    changed = tmp_path / "changed"
    changed.write_text("font.size: 9\n")
    if change == "style":
        monkeypatch.setattr(cache, "STYLE", changed)
    elif change == "code":
        imported = cache.imported
        monkeypatch.setattr(
            cache, "imported", lambda module: {**imported(module), "numerics.kernel": changed}
        )
    else:
        monkeypatch.setattr(cache, "version", lambda name: "0")
    assert cache.key(figure, {}, "cpu") != before


def spoiled(p, device):
    data = compute(p, device)
    return {"line": {**data["line"], "up": ~data["line"]["up"]}}


def test_the_page_of_figures_has_image_and_caption_of_what_was_made(monkeypatch):
    stored = replace(LINE, name="stored", results="*.csv")
    monkeypatch.setattr(gallery, "FIGURES", (LINE, stored))
    made(LINE)
    Path("docs").mkdir()
    gallery.main(Path("out"), Path("docs"))
    page = Path("docs", "figures.md").read_text(encoding="utf-8")
    assert "**T1**" in page
    assert "![A line](figures/line.png)\n\nA line of 5 points." in page
    assert "`results/*.csv`; there are none yet" in page
    assert [path.name for path in Path("docs", "figures").iterdir()] == ["line.png"]
    Path("out", "line.json").unlink()
    with pytest.raises(InputError, match="without line"):
        gallery.main(Path("out"), Path("docs"))


def test_the_cache_keeps_the_latest_of_a_figure_only():
    for points in range(cache.KEPT + 3):
        made(replace(LINE, parameters={"points": points + 2, "seed": 0}))
    assert len(list(Path("cache", "figures").iterdir())) == cache.KEPT
    assert made(LINE) == "drawn"


def test_a_caption_keeps_its_formulas_and_loses_the_typesetting_of_its_text():
    assert gallery.markdown(r"$\|x\| -- y$ of 5--6\% here.") == r"$`\|x\| -- y`$ of 5–6% here."


def test_contradicted_data_are_neither_drawn_nor_stored():
    made(LINE)
    first = contents()
    with pytest.raises(ContradictionError, match="goes down"):
        make(replace(LINE, compute=spoiled), Path("out"), fresh=True)
    assert contents() == first
    assert made(LINE) == "unchanged"


def test_an_interrupted_run_leaves_nothing_half_written_and_a_rerun_does_not_compute_again():
    def interrupted(data, p):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(replace(LINE, draw=interrupted), Path("out"))
    assert contents() == {}
    assert made(LINE) == "drawn"


def test_a_movie_is_written_beside_its_stills():
    def animate(data, p):
        page = draw(data, p)
        return FuncAnimation(page, lambda frame: page.axes[0].lines, frames=3)

    made(replace(LINE, animate=animate))
    assert contents()["line.gif"].startswith(b"GIF89a")


def test_stored_results_are_read_and_their_change_is_noticed(monkeypatch):
    figure = replace(LINE, results="runs/*.csv")
    with pytest.raises(MissingError, match=r"no file results/runs/\*\.csv"):
        made(figure)
    Path("results", "runs").mkdir(parents=True)
    Path("results", "runs", "a.csv").write_text("1")
    assert made(figure) == "computed"
    assert made(figure) == "unchanged"
    Path("results", "runs", "a.csv").write_text("2")
    assert made(figure) == "computed"
    assert list(json.loads(contents()["line.json"])["parameters"]["results"]) == ["results/runs/a.csv"]


def unavailable(p, device):
    raise UnavailableError(tried="a download", got="no network", fix="connect")


def altered(p, device):
    raise FetchError(tried="a checksum", got="another file", fix="try again")


def malformed(p, device):
    raise InputError("a.csv", got="an empty file", expected="a table", fix="write it again")


def unreadable(p, device):
    raise NumericsInputError("path", "no weights", "weights", "bring some")


def full(p, device):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


PROBLEMS = {
    spoiled: (1, "CONTRADICTED, not drawn: the line goes down"),
    unavailable: (3, "missing: tried a download; got no network"),
    altered: (2, "tried a checksum; got another file"),
    malformed: (2, "a.csv: got an empty file"),
    unreadable: (2, "path: got no weights"),
    full: (2, "not written to figures: No space left"),
}


@pytest.fixture
def many(monkeypatch):
    """A good figure after one for each problem."""
    bad = [replace(LINE, name=problem.__name__, compute=problem) for problem in PROBLEMS]
    monkeypatch.setattr(registry, "FIGURES", (*bad, LINE))


def test_the_command_makes_all_it_can_and_says_what_it_could_not(many):
    result = run()
    assert result.exit_code == 1
    assert all(said in result.stdout for _, said in PROBLEMS.values())
    assert "[ 7/7] line: computed" in result.stdout
    assert "1 of 7 figures in figures" in result.stdout
    assert sorted(path.stem for path in Path("figures").glob("*.png")) == ["line"]
    for problem, (code, _) in PROBLEMS.items():
        assert run(problem.__name__).exit_code == code
    assert run("unavailable", "malformed").exit_code == 2
    assert run("line").exit_code == 0


def test_a_figure_of_an_earlier_run_is_named_when_data_contradict(many):
    Path("figures").mkdir()
    Path("figures", "spoiled.pdf").write_text("of yesterday")
    assert "figures still has the figure of an earlier run" in run("spoiled").stdout


def test_quick_figures_do_not_replace_full_ones(many):
    assert run("line", "--quick").exit_code == 0
    assert Path("figures", "quick", "line.png").exists()
    assert not Path("figures", "line.png").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_is_said_and_has_its_own_exit_code(monkeypatch, number):
    def stopped(p, device):
        os.kill(os.getpid(), number)
        return compute(p, device)

    monkeypatch.setattr(registry, "FIGURES", (replace(LINE, compute=stopped),))
    result = run()
    assert result.exit_code == 130
    assert "the same command goes on" in result.stdout
    assert not list(Path("figures").iterdir())


def test_the_list_names_each_figure_with_its_statements(many):
    result = run("--list")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("line", "spoiled", "T1", "A line"))
    assert not Path("figures").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lin"], "did you mean line?"),
        (["--out", "file"], "--out: got file"),
        (["--device", "abacus"], "a device that this PyTorch can use"),
    ],
)
def test_bad_input_is_named_before_anything_is_made(many, arguments, message):
    Path("file").write_text("")
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert contents() == {}
    assert not list(Path().glob("figures/*"))


def test_a_cache_that_cannot_be_written_is_said_before_anything_is_computed(many, monkeypatch):
    Path("file").write_text("")
    monkeypatch.setenv("TOKENDYN_CACHE", "file")
    result = run("line")
    assert result.exit_code == 2
    assert "TOKENDYN_CACHE: got file" in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere; run the tests as another user")
def test_a_folder_without_write_permission_is_refused(many):
    Path("closed").mkdir(mode=0o500)
    assert "closed" in run("--out", "closed").stderr
