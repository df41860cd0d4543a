"""Every statement reads in three formats, and no kind of evidence is shown as another."""

import re
import shutil
import subprocess
import unicodedata
from dataclasses import replace

import pytest
from latex2mathml.converter import convert
from latex2mathml.exceptions import ExtraLeftOrMissingRightError
from pylatexenc.latexwalker import LatexMathNode, LatexWalker, LatexWalkerParseError

from theory.derivation import ARGUED, CITED, EARLIER, EXACT, HYPOTHESIS, INTERVAL, SYMBOLIC
from theory.errors import InputError
from theory.registry import statement, statements
from theory.render import SHORT, evidence_summary, render

ALL = pytest.mark.parametrize("theorem", statements().values(), ids=statements().keys())
FORMATS = pytest.mark.parametrize("format", ["text", "markdown", "latex"])
COMPUTED = (SYMBOLIC, EXACT, INTERVAL)
NOT_COMPUTED = (EARLIER, HYPOTHESIS, CITED, ARGUED)


def words(text: str) -> str:
    """The plain words and numbers of a rendered text: without line breaks, markup, accents and macros."""
    text = re.sub(r"\{?\\[\"'`^~]\{?([a-zA-Z])\}*", r"\1", text)
    text = unicodedata.normalize("NFD", re.sub(r"\\[a-zA-Z]+", " ", text)).replace("\u0308", "")
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
    rendered = render(theorem, format)
    shown = words(rendered)
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
    assert badges(render(theorem, format)) == expected


@ALL
@FORMATS
def test_what_is_not_computed_never_looks_computed(theorem, format):
    for step, badge in zip(theorem.steps, badges(render(theorem, format)), strict=True):
        kinds = {kind for kind in SHORT if badge.startswith(words(kind))}
        assert kinds == {step.evidence.kind}
        if step.evidence.kind in NOT_COMPUTED:
            assert not any(words(kind) in badge for kind in COMPUTED)


@ALL
def test_the_summary_counts_every_step(theorem):
    summary = evidence_summary(theorem)
    assert sum(summary.values()) == len(theorem.steps)
    for short, count in summary.items():
        assert words(f"{count} {short}") in words(render(theorem, "text"))


def test_the_summary_names_each_kind():
    assert evidence_summary(statement("T2")) == {
        "symbolic": 4, "earlier": 2, "hypothesis": 1, "cited": 1, "argued": 3
    }  # fmt: skip


@ALL
@pytest.mark.parametrize("format", ["markdown", "latex"])
def test_formulas_are_well_formed(theorem, format):
    document = render(theorem, format)
    displayed = document.count("$$") // 2 if format == "markdown" else document.count(r"\[") - 1
    assert displayed == len(theorem.steps)
    assert convert_all(document) >= len(theorem.steps) + len(theorem.claims) + len(theorem.hypotheses)


@ALL
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_within_its_margins(theorem, tmp_path):
    (tmp_path / "statement.tex").write_text(render(theorem, "latex"), encoding="utf-8")
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
    rendered = render(theorem, "text")
    assert not re.search("[\\\\$\ue000-\uf8ff\U000f0000-\U0010ffff]", rendered)
    assert max(map(len, rendered.splitlines())) <= 100


def test_text_cannot_break_the_document():
    hostile = replace(statement("L1"), title="100% of a_b & {c} ~ ^ # \\ ≻ × κ ″", source="'x_1' < *y*")
    assert convert_all(render(hostile, "latex")) > 0
    assert r"100\% of a\_b \& \{c\}" in render(hostile, "latex")
    assert r"'x\_1' \< \*y\*" in render(hostile, "markdown")


def test_derivatives_are_ordinary_and_transposes_uniform():
    document = "".join(render(theorem, "latex") for theorem in statements().values())
    assert r"\frac{d}{d t}\left(" in document
    assert r"\partial" not in document
    assert "^{T}" not in document


def test_unknown_format():
    with pytest.raises(
        InputError, match=r"^format: got 'html'; expected one of text, markdown, latex\. Fix: "
    ):
        render(statement("L1"), "html")
