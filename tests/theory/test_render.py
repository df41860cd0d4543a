"""Every statement reads in four formats, and no kind of evidence is shown as another."""

import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace
from functools import cache

import pytest
from latex2mathml.converter import convert
from latex2mathml.exceptions import ExtraLeftOrMissingRightError
from pylatexenc.latexwalker import LatexMathNode, LatexWalker, LatexWalkerParseError

from tests.pages import Page, outside_formulas
from tests.pages import words as plain_words
from theory.derivation import ARGUED, CITED, EARLIER, EXACT, HYPOTHESIS, INTERVAL, SYMBOLIC
from theory.errors import InputError
from theory.registry import statement, statements
from theory.render import SHORT, STANDING, evidence_summary, render
from theory.system import Setting

ALL = pytest.mark.parametrize("theorem", statements().values(), ids=statements().keys())
FORMATS = pytest.mark.parametrize("format", ["text", "markdown", "latex"])
COMPUTED = (SYMBOLIC, EXACT, INTERVAL)
NOT_COMPUTED = (EARLIER, HYPOTHESIS, CITED, ARGUED)


@cache
def rendered(identifier: str, format: str) -> str:
    return render(statement(identifier), format)


@cache
def page_of(identifier: str) -> Page:
    return Page(rendered(identifier, "html"))


def words(text: str) -> str:
    """The plain words and numbers of a rendered text: without line breaks, markup, accents and macros."""
    text = re.sub(r"\{?\\[\"'`^~]\{?([a-zA-Z])\}*", r"\1", text)
    text = unicodedata.normalize("NFD", re.sub(r"\\[a-zA-Z]+", " ", text))
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return " ".join(re.findall(r"[A-Za-z0-9]+", text))


def badges(rendered: str) -> list[str]:
    """The bracketed label at the head of every numbered step."""
    found = re.findall(
        r"^(?:\s*\d+\.\s+(?:\*\*)?|\\item \{\\small\\textsf\{)\[(.*?)\](?:\*\*$|\}\}$|$)",
        rendered,
        flags=re.MULTILINE | re.DOTALL,
    )
    return [words(badge) for badge in found]


def formulas(document: str) -> list[str]:
    """Every formula of a LaTeX or Markdown text, by a parser that tolerates nothing."""
    body = document.split(r"\begin{document}")[-1].removesuffix("\\end{document}\n")
    nodes, _, _ = LatexWalker(body, tolerant_parsing=False).get_latex_nodes()
    found, left = [], list(nodes)
    while left:
        node = left.pop(0)
        if isinstance(node, LatexMathNode):
            found.append("".join(child.latex_verbatim() for child in node.nodelist))
        else:
            left += [*(getattr(node, "nodelist", None) or []), *_arguments(node)]
    return found


def _arguments(node) -> list:
    arguments = getattr(node, "nodeargd", None)
    return [argument for argument in (arguments.argnlist or []) if argument] if arguments else []


def convert_all(document: str) -> int:
    found = formulas(document)
    for formula in found:
        assert convert(formula).startswith("<math")
    return len(found)


@ALL
@FORMATS
def test_everything_stated_is_shown(theorem, format):
    shown = words(rendered(theorem.id, format))
    for part in (theorem.id, theorem.kind, theorem.title, theorem.source.split("$")[0]):
        assert words(part) in shown
    for hypothesis in theorem.hypotheses:
        assert words(f"{hypothesis.key} about the {hypothesis.on}") in shown
    for claim in theorem.claims:
        assert words(claim.name) in shown
    for step in theorem.steps:
        assert words(step.because.split("$")[0]) in shown
    assert words(theorem.remark.split("$")[0]) in shown


@ALL
@FORMATS
def test_every_step_has_its_number_and_its_own_label(theorem, format):
    expected = [words(step.evidence.label) for step in theorem.steps]
    assert badges(rendered(theorem.id, format)) == expected


@ALL
@FORMATS
def test_what_is_not_computed_never_looks_computed(theorem, format):
    for step, badge in zip(theorem.steps, badges(rendered(theorem.id, format)), strict=True):
        kinds = {kind for kind in SHORT if badge.startswith(words(kind))}
        assert kinds == {step.evidence.kind}
        if step.evidence.kind in NOT_COMPUTED:
            assert not any(words(kind) in badge for kind in COMPUTED)


@ALL
def test_the_summary_counts_every_step(theorem):
    summary = evidence_summary(theorem)
    assert sum(summary.values()) == len(theorem.steps)
    for short, count in summary.items():
        assert words(f"{count} {short}") in words(rendered(theorem.id, "text"))


def test_the_summary_names_each_kind():
    assert evidence_summary(statement("T2")) == {
        "symbolic": 4, "earlier": 2, "hypothesis": 1, "cited": 1, "argued": 3
    }  # fmt: skip


@ALL
@pytest.mark.parametrize("format", ["markdown", "latex"])
def test_formulas_are_well_formed(theorem, format):
    document = rendered(theorem.id, format)
    displayed = document.count("$$") // 2 if format == "markdown" else document.count(r"\[") - 1
    assert displayed == len(theorem.steps)
    assert convert_all(document) >= len(theorem.steps) + len(theorem.claims) + len(theorem.hypotheses)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_within_its_margins(tmp_path):
    """One statement; tests/tokendyn/test_book.py compiles all of them."""
    (tmp_path / "statement.tex").write_text(render(statement("T7"), "latex"), encoding="utf-8")
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "statement.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    log = (tmp_path / "statement.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert not re.search(r"Overfull|Missing character|invalid in math mode", log)


@pytest.mark.parametrize("formula", [r"\frac{a}{b", r"\left( x", "x^{2", "{a"])
@pytest.mark.parametrize("document", ["$%s$", "\\[%s\\]"])
def test_an_unbalanced_formula_is_caught(formula, document):
    assert convert_all(document % "x") == 1
    with pytest.raises((LatexWalkerParseError, ExtraLeftOrMissingRightError)):
        convert_all(document % formula)


@pytest.mark.parametrize(
    ("formula", "line"),
    [
        (r"\frac{a+b}{c}", "(a + b)/c"),
        (r"\frac{a}{bc}", "a/(bc)"),
        (r"\frac{\frac ab}{c}", "(a/b)/c"),
        (r"\frac{d+1}{d+2}", "(d + 1)/(d + 2)"),
        (r"\tfrac1n S^\top W S", "(1/n)SᵀWS"),
        (r"\left(\frac{a}{b}\right)^{2}", "(a/b)²"),
        (r"\log\frac{a}{b}", "log(a/b)"),
        (r"e^{a+b}", "e^(a + b)"),
        (r"e^{\kappa} x", "e^κ x"),
        (r"e^{u}(1+x)", "e^u (1 + x)"),
        (r"x_i^\top A^{-1}\dot x_j=-1", "xᵢᵀA⁻¹ẋⱼ = −1"),
        (r"\sum_{ij}e^{s_{ij}}-n", "∑ᵢⱼ e^(sᵢⱼ) − n"),
        (r"w_{ab} u_{b} q", "w_{ab}u_b q"),
        (r"\|x\|\to\infty", "‖x‖ → ∞"),
        (r"\begin{pmatrix}a&-b\\b&\frac{a}{2}\end{pmatrix}", "[[a, −b], [b, a/2]]"),
        (r"x=0 \text{ on the } \omega\text{-limit set}", "x = 0 on the ω-limit set"),
        (r"\tfrac{d}{dt} (x-y)", "d/dt (x − y)"),
        (r"e^{Vt}y\not\to0", "e^(Vt) y ↛ 0"),
    ],
)
def test_one_line_formulas_keep_their_meaning(formula, line):
    stated = replace(statement("L1"), statement=f"Here ${formula}$ holds.")
    assert f"\nHere {line} holds.\n" in render(stated, "text")


def test_a_macro_without_a_one_line_form_is_an_error():
    with pytest.raises(ValueError, match=r"no one-line form for .*nosuchmacro"):
        render(replace(statement("L1"), statement=r"$\nosuchmacro$"), "text")


@ALL
def test_text_is_plain_and_narrow(theorem):
    text = rendered(theorem.id, "text")
    assert not re.search("[\\\\$\ue000-\uf8ff\U000f0000-\U0010ffff]", text)
    assert max(map(len, text.splitlines())) <= 100


def test_text_cannot_break_the_document():
    hostile = replace(statement("L1"), title="100% of a_b & {c} ~ ^ # \\ ≻ × κ ″", source="'x_1' < *y*")
    assert convert_all(render(hostile, "latex")) > 0
    assert r"100\% of a\_b \& \{c\}" in render(hostile, "latex")
    assert r"'x\_1' \< \*y\*" in render(hostile, "markdown")


def test_derivatives_are_ordinary_and_transposes_uniform():
    document = "".join(rendered(theorem.id, "latex") for theorem in statements().values())
    assert r"\frac{d}{d t}\left(" in document
    assert r"\partial" not in document
    assert "^{T}" not in document


def test_unknown_format():
    with pytest.raises(
        InputError,
        match=r"^format: got 'markdwon'; expected one of text, markdown, latex, html\. "
        r"Fix: did you mean markdown\?$",
    ):
        render(statement("L1"), "markdwon")
    with pytest.raises(InputError, match="Fix: ask for one of these formats"):
        render(statement("L1"), "pdf")


def html_steps(page: Page, theorem) -> list[str]:
    return [page.parts[f"{theorem.id}-{number}"] for number in range(1, len(theorem.steps) + 1)]


@ALL
def test_html_shows_everything_stated(theorem):
    page = page_of(theorem.id)
    article = plain_words(page.parts[theorem.id])
    said = [theorem.title, theorem.statement, theorem.remark, theorem.source]
    said += [h.key for h in theorem.hypotheses] + [claim.name for claim in theorem.claims]
    for sentence in said:
        for part in outside_formulas(sentence):
            assert part in article
    for step, shown in zip(theorem.steps, html_steps(page, theorem), strict=True):
        for part in outside_formulas(step.because):
            assert part in plain_words(shown)


@ALL
def test_html_gives_every_step_its_own_evidence(theorem):
    for number, (step, shown) in enumerate(
        zip(theorem.steps, html_steps(page_of(theorem.id), theorem), strict=True), start=1
    ):
        assert f"Step {number}: {SHORT[step.evidence.kind]}\n" in shown
        assert plain_words(step.evidence.label) in plain_words(shown)
        if step.evidence.kind in NOT_COMPUTED:
            assert not any(plain_words(kind) in plain_words(shown) for kind in COMPUTED)


@ALL
def test_html_formulas_are_mathml(theorem):
    page = page_of(theorem.id)
    displayed = [math for math in page.formulas if math.get("display") == "block"]
    assert len(displayed) >= len(theorem.steps) + len(theorem.claims) + len(theorem.hypotheses)
    assert not set("\\$") & set(page.text)


@ALL
def test_html_stands_alone(theorem):
    page = page_of(theorem.id)
    assert not page.resources
    assert {target.removeprefix("#") for _, target in page.links} <= page.parts.keys()
    for number, step in enumerate(theorem.steps, start=1):
        used = {f"#{theorem.id}-{used}" for used in getattr(step.evidence, "uses", ())}
        assert page.links_in(f"{theorem.id}-{number}") == used


def test_html_takes_hostile_words_as_words():
    hostile = replace(statement("L1"), title="<script>alert(1)</script> & </title>", source='"><b>')
    page = Page(render(hostile, "html"))
    assert "<script>alert(1)</script> & </title>" in page.parts["L1"]
    assert '"><b>' in page.parts["L1"]


def test_punctuation_stays_with_its_formula():
    said = replace(statement("L1"), statement="With $a$, $b=c$-sums ($d$) and $e$ see L2.")
    shown = render(said, "html")
    for letter, mark in ((r"<mi>a</mi>", ","), (r"<mi>c</mi>", "-"), (r"<mi>d</mi>", ")")):
        assert f"{letter}</math>{mark}</span>" in shown
    assert "<mi>e</mi></math> see L2." in shown


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "html"])
def test_what_is_not_proved_says_so_first(format):
    for kind, note in STANDING.items():
        shown = render(replace(statement("L1"), kind=kind), format)
        assert note in shown
        assert shown.index(note) < shown.index("score is at least")
    assert not any(note in render(statement("L1"), format) for note in STANDING.values())


@pytest.mark.parametrize("format", ["text", "markdown", "latex", "html"])
def test_the_variant_of_the_system_is_named(format):
    masked = replace(statement("L1"), setting=Setting(causal=True, heads=2))
    assert f"System: {masked.setting.describe()}." in render(masked, format)
    assert "System:" not in render(statement("L1"), format)
