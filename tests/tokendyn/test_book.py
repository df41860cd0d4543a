"""The book holds every statement whole and needs nothing else, in a browser, on paper and as LaTeX."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner

from tests.browser import IN_A_BROWSER, browse
from tests.pages import Page, outside_formulas, words
from theory import registry
from theory.derivation import KINDS, Cited, FromLemma, Given
from theory.errors import InputError
from theory.links import hypothesis_anchor, reference_anchor
from theory.notation import TABLE
from theory.registry import statement, statements
from theory.render import SHORT, STANDING
from tokendyn import book as book_module
from tokendyn.book import contents, html_book, latex_book, write_book
from tokendyn.cli import main

ALL = pytest.mark.parametrize("theorem", statements().values(), ids=statements().keys())


@cache
def source() -> str:
    return html_book(contents())


@cache
def page() -> Page:
    return Page(source())


@cache
def latex() -> str:
    return latex_book(contents())


def step_of(theorem, number: int) -> str:
    return page().parts[f"{theorem.id}-{number}"]


@ALL
def test_the_page_holds_the_whole_statement(theorem):
    article = words(page().parts[theorem.id])
    said = [theorem.title, theorem.statement, theorem.remark, theorem.source]
    said += [h.key for h in theorem.hypotheses] + [claim.name for claim in theorem.claims]
    for number, step in enumerate(theorem.steps, start=1):
        assert f"Step {number}: {SHORT[step.evidence.kind]}\n" in step_of(theorem, number)
        assert words(step.evidence.label) in words(step_of(theorem, number))
        said.append(step.because)
    assert all(part in article for sentence in said for part in outside_formulas(sentence))


@ALL
def test_evidence_leads_to_what_it_names(theorem):
    for number, step in enumerate(theorem.steps, start=1):
        found = page().links_in(f"{theorem.id}-{number}")
        evidence = step.evidence
        expected = {f"#{theorem.id}-{used}" for used in getattr(evidence, "uses", ())}
        expected |= {
            f"#{hypothesis_anchor(key)}" for key in getattr(evidence, "needs", ()) if key in evidence.label
        }
        if isinstance(evidence, FromLemma):
            expected |= {f"#{evidence.lemma}"}
        if isinstance(evidence, Cited):
            expected |= {f"#{reference_anchor(evidence.key)}"}
        if isinstance(evidence, Given):
            expected |= {f"#{hypothesis_anchor(key)}" for key in evidence.hypotheses}
        mentioned = {
            f"#{name}" for name in re.findall(r"\b[A-Z]\d+[a-z]?\b", step.because) if name in statements()
        }
        assert found == (expected | mentioned) - {f"#{theorem.id}"}


def test_every_link_stays_on_the_page_and_nothing_is_loaded():
    assert {target[:1] for _, target in page().links} == {"#"}
    assert {target[1:] for _, target in page().links} <= page().parts.keys()
    assert not page().resources
    assert not re.search(r"https?:|url\(|@import|//[a-z]", source())
    assert "default-src 'none'" in source()
    assert len(source().encode()) < 3_000_000


def test_it_contains_each_statement_once_and_in_order():
    ids = re.findall(r'<article id="(\w+)"', source())
    assert sorted(ids) == sorted(statements())
    for kind in {theorem.kind for theorem in statements().values()}:
        chapter = [name for name in ids if statement(name).kind == kind]
        assert chapter == [name for name, theorem in statements().items() if theorem.kind == kind]
        assert all(
            words(statement(name).title.split("$")[0]) in words(page().parts["contents"]) for name in chapter
        )


def test_conjectures_are_said_to_be_not_proved():
    assert "No conjecture is proved" in page().parts["conjecture"]
    for theorem in statements().values():
        shown = STANDING["conjecture"] in page().parts[theorem.id]
        assert shown == (theorem.kind == "conjecture")
        assert (f"{theorem.id} {theorem.title.split('$')[0]}" in page().parts["conjecture"]) == shown


def test_without_a_conjecture_the_chapter_says_so(monkeypatch):
    proved = {"L1": statement("L1"), "T2": replace(statement("T2"), kind="observation")}
    monkeypatch.setattr(book_module, "statements", lambda: proved)
    small = Page(html_book(contents()))  # of a kind that the book has no chapter for
    assert "None is stated in this version" in small.parts["conjecture"]
    assert "T2" in small.parts["observation"]


def test_the_glossary_tells_who_uses_a_hypothesis():
    for theorem in statements().values():
        for hypothesis in theorem.hypotheses:
            assert f"#{theorem.id}" in page().links_in(hypothesis_anchor(hypothesis.key))
            assert f"#{hypothesis_anchor(hypothesis.key)}" in page().links_in(theorem.id)


def test_two_hypotheses_of_one_name_are_both_explained(monkeypatch):
    theorem = statement("T2")
    other = replace(theorem.hypotheses[0], formula="A = 2A^\\top")
    pair = {"T2": theorem, "T3": replace(statement("T3"), hypotheses=(other,))}
    monkeypatch.setattr(book_module, "statements", lambda: pair)
    entry = next(e for e in contents()["hypotheses"] if e.name == other.key)
    assert [meaning.formula for meaning in entry.meaning] == [theorem.hypotheses[0].formula, other.formula]
    assert entry.users == ["T2", "T3"]


def test_the_index_lists_every_step_once_under_its_kind():
    index = contents()["index"]
    listed = [
        (name, number, kind) for kind in KINDS for name, found in index[kind].items() for number in found
    ]
    assert sorted(listed) == sorted(
        (theorem.id, number, step.evidence.kind)
        for theorem in statements().values()
        for number, step in enumerate(theorem.steps, start=1)
    )
    assert {f"#{name}-{number}" for name, number, _ in listed} <= page().links_in("evidence")


def test_the_bibliography_tells_who_cites():
    for theorem in statements().values():
        for step in theorem.steps:
            if isinstance(step.evidence, Cited):
                assert f"#{theorem.id}" in page().links_in(reference_anchor(step.evidence.key))


def test_the_notation_is_complete():
    for term in TABLE:
        assert all(part in words(page().parts["notation"]) for part in outside_formulas(term.meaning))


def test_the_same_book_every_time():
    assert html_book(contents()) == source()
    assert latex_book(contents()) == latex()


# With a report of verify


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "verify_schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def report() -> dict:
    """What `verify` might write about T8, in the layout of its schema."""
    theorem = statement("T8")
    steps = [{"kind": step.evidence.kind, "label": step.evidence.label} for step in theorem.steps]
    result = {
        "id": "T8",
        "kind": theorem.kind,
        "title": theorem.title,
        "statement": theorem.statement,
        "setting": "",
        "derivation": {"holds": True, "error": None, "evidence": {}, "steps": steps},
        "sweep": {
            "systems": 1234,
            "smallest_margins": {
                "the zero token rests": 0.25,
                "the pair stays mirrored": -3e-16,
                "none": None,
            },
            "alarms": 0,
            "open_alarms": 0,
            "counterexample": None,
        },
        "trajectories": [
            {"name": n, "systems": 60, "inconclusive": k, "margin": m, "tolerance": 1e-6, "agrees": True}
            for n, k, m in (("rests", 0, 0.5), ("diverges", 7, None))
        ],
        "probe": {"examples": 408, "counterexample": None},
        "planted": [{"name": n, "caught": n == "a", "counterexample": None} for n in "ab"],
        "problems": [],
        "verdict": "HOLDS",
    }
    settings = {"samples": 40, "seed": 7, "device": "cpu"}
    whole = {"schema": SCHEMA["properties"]["schema"]["const"], "verdict": "HOLDS", "settings": settings}
    whole |= {"versions": {}, "statements": [result]}
    jsonschema.validate(whole, SCHEMA)
    return whole


def test_a_report_stands_beside_its_statements(report):
    shown = Page(html_book(contents(report)))
    for found in (
        "verify HOLDS",
        "random systems 1234",
        "smallest margin −3e−16",
        "trajectories 113 of 120",
        "trajectory margin 0.5",
        "exact probes 408",
        "variants refuted 1 of 2",
    ):
        assert found in " ".join(shown.parts["T8"].split())
    assert "not in this report" in shown.parts["L1"]
    assert "verified with 40 random systems each, seed 7" in shown.text
    assert "verify: HOLDS; random systems: 1234" in latex_book(contents(report))
    assert "random systems" not in page().parts["T8"]


def test_a_failure_is_shown_with_its_problem(report):
    report["statements"][0] |= {
        "verdict": "FAILS",
        "problems": ["trajectories contradict it: 100 % <bad> & worse_"],
    }
    assert "FAILS" in (shown := Page(html_book(contents(report))).parts["T8"])
    assert "100 % <bad> & worse_" in shown
    assert r"100 \% " in latex_book(contents(report))


def test_a_report_of_another_wording_or_derivation_is_not_shown(report):
    result = report["statements"][0]
    for part, key in ((result, "statement"), (result["derivation"]["steps"][0], "label")):
        assert "T8" in contents(report)["checked"]["found"]
        kept = part[key]
        part[key] += " and more"
        assert "T8" not in contents(report)["checked"]["found"]
        part[key] = kept
    report["statements"] = []
    assert "otherwise there" in Page(html_book(contents(report))).parts["T8"]


@pytest.mark.parametrize(
    "content", ["[]", "{}", '{"statements": [{"id": "T8"}]}', '{"statements": []}', "no JSON"]
)
def test_another_document_is_no_report(tmp_path, content):
    (tmp_path / "report.json").write_text(content)
    result = run("book", tmp_path / "book", "--report", tmp_path / "report.json")
    assert result.exit_code == 2
    assert result.output.startswith("tokendyn: --report: got")
    assert not (tmp_path / "book").exists()


# Writing it


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_the_command_writes_both_books(tmp_path):
    result = run("book", tmp_path / "a" / "b")
    assert result.exit_code == 0
    assert result.output.split() == [str(tmp_path / "a/b/book.html"), str(tmp_path / "a/b/book.tex")]
    assert (tmp_path / "a/b/book.html").read_text(encoding="utf-8") == source()
    assert (tmp_path / "a/b/book.tex").read_text(encoding="utf-8") == latex()


def test_a_file_in_the_way_is_an_error(tmp_path):
    (tmp_path / "file").write_text("mine")
    for target in (tmp_path / "file", tmp_path / "file" / "book"):
        result = run("book", target)
        assert result.exit_code == 2
        assert result.output.startswith(f"tokendyn: OUT: got {target}: ")
        assert "Fix: name a folder of your own" in result.output
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("module", "function", "number", "reason"),
    [(tempfile, "mkstemp", 13, "Permission denied"), (os, "replace", 28, "No space left on device")],
)
def test_nothing_is_left_half_written(tmp_path, monkeypatch, module, function, number, reason):
    (tmp_path / "book.html").write_text("before")

    def refused(*_, **__):
        raise OSError(number, reason)

    monkeypatch.setattr(module, function, refused)
    with pytest.raises(InputError, match=f"OUT: got {tmp_path}: {reason}; "):
        write_book(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["book.html"]
    assert (tmp_path / "book.html").read_text() == "before"


def test_show_names_the_nearest_statement_and_format():
    assert "did you mean T2?" in run("show", "T22").output
    assert "did you mean html?" in run("show", "T2", "--format", "htm").output
    assert run("show", "t2", "--format", "html").output.startswith("<!DOCTYPE html>")
    assert registry.statement("t2").id == "T2"


# On paper


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="no pdflatex on the PATH; with one (texlive) this test runs"
)
def test_latex_compiles_within_its_margins(tmp_path):
    (tmp_path / "book.tex").write_text(latex(), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "book.tex"]
    for _ in range(2):  # the second time with the table of contents
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
        log = (tmp_path / "book.log").read_text(encoding="utf-8", errors="replace")
        assert done.returncode == 0, log[-2000:]
    assert not re.search(r"Missing character|undefined|invalid in math mode|multiply defined", log)
    assert all(float(width) < 20 for width in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log))
    assert not re.search(r"has been referenced but does not exist", log)


# In a browser


SCRIPT = """
const open = kind => document.querySelectorAll(`details.${kind}[open]`).length;
const counts = () => [open("derivation"), open("step")];
const press = key => dispatchEvent(new KeyboardEvent("keydown", {key}));
const found = {start: counts()};
for (const level of ["statements", "outlines", "everything"]) {
  document.querySelector(`[data-show=${level}]`).click();
  found[level] = counts();
}
press("1"); found.key1 = counts();
press("3"); found.key3 = counts();
const formulas = [...document.querySelectorAll("math")], box = one => one.getBoundingClientRect();
found.flat = formulas.filter(one => !(box(one).width > 0 && box(one).height > 0)).length;
found.outside = formulas.filter(one => !one.closest(".formula, .wide") && box(one).right > innerWidth).length;
found.scrolls = document.documentElement.scrollWidth - document.documentElement.clientWidth;
press("1");
dispatchEvent(new Event("beforeprint")); found.printing = counts();
dispatchEvent(new Event("afterprint")); found.printed = counts();
found.bar = getComputedStyle(document.querySelector(".folding")).display;
found.focusable = [...document.querySelectorAll("summary")].every(one => one.tabIndex >= 0);
location.hash = "#TARGET";
addEventListener("hashchange", () => {
  found.revealed = document.querySelector("#TARGET").closest("details").open;
  document.documentElement.dataset.found = JSON.stringify(found);
});
"""


@IN_A_BROWSER
@pytest.mark.parametrize("width", [1300, 390])
def test_the_page_works_in_a_browser(tmp_path, width):
    driver = "<script>" + SCRIPT.replace("TARGET", "T2-3") + "</script></body>"
    (tmp_path / "book.html").write_text(source().replace("</body>", driver), encoding="utf-8")
    done = browse(
        tmp_path / "book.html", f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom"
    )
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-found="(.*?)"', done.stdout)
    assert told
    found = json.loads(told[1].replace("&quot;", '"'))
    derivations = sum(bool(theorem.steps) for theorem in statements().values())
    steps = sum(len(theorem.steps) for theorem in statements().values())
    assert found["start"] == [0, steps]  # a derivation that is opened shows everything
    assert found["statements"] == found["key1"] == found["printed"] == [0, steps]
    assert found["outlines"] == [derivations, 0]
    assert found["everything"] == found["key3"] == found["printing"] == [derivations, steps]
    assert (found["flat"], found["outside"], found["scrolls"]) == (0, 0, 0)
    assert found["bar"] == "flex"
    assert found["focusable"]
    assert found["revealed"]


@IN_A_BROWSER
@pytest.mark.skipif(
    shutil.which("pdftotext") is None,
    reason="no pdftotext on the PATH; with one (poppler-utils) this test runs",
)
def test_print_unfolds_every_step_even_without_scripts(tmp_path, monkeypatch):
    chosen = of_every_kind()
    monkeypatch.setattr(book_module, "statements", lambda: chosen)
    still = re.sub(r"<script>.*?</script>", "", html_book(contents()), flags=re.DOTALL)
    (tmp_path / "book.html").write_text(still, encoding="utf-8")
    browse(tmp_path / "book.html", f"--print-to-pdf={tmp_path / 'book.pdf'}", "--no-pdf-header-footer")
    command = ["pdftotext", "-raw", str(tmp_path / "book.pdf"), "-"]
    printed = words(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for theorem in chosen.values():
        for step in theorem.steps:
            for part in (words(step.evidence.label), *outside_formulas(step.because)):
                assert part in printed


def of_every_kind() -> dict:
    """Few statements whose steps rest on every kind of evidence."""
    chosen, seen = {}, set()
    for name, theorem in statements().items():
        if new := {step.evidence.kind for step in theorem.steps} - seen:
            chosen[name] = theorem
            seen |= new
    return chosen
