"""A statement as text for a terminal, as Markdown, as a LaTeX document, or as an HTML page.

Formulas have one source, LaTeX; the terminal gets a one-line form of it in which every fraction, exponent
and index that could be misread keeps its brackets, a browser gets MathML.
"""

import re
import textwrap
from collections import Counter
from collections.abc import Collection

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder

from theory.derivation import (
    ARGUED,
    CITED,
    EARLIER,
    EXACT,
    FIXED,
    HYPOTHESIS,
    INTERVAL,
    KINDS,
    SYMBOLIC,
    Claim,
)
from theory.errors import InputError, did_you_mean
from theory.links import Links, step_anchor
from theory.mathml import mathml
from theory.one_line import one_line, unbroken
from theory.printer import displayed, halves, latex
from theory.theorem import Theorem

SHORT = {
    SYMBOLIC: "symbolic",
    FIXED: "fixed size",
    EXACT: "exact",
    INTERVAL: "interval",
    EARLIER: "earlier",
    HYPOTHESIS: "hypothesis",
    CITED: "cited",
    ARGUED: "argued",
}
MEANING = {
    "symbolic": "any n and d",
    "fixed size": "symbolic, this n and d",
    "exact": "this instance",
    "earlier": "statement",
    "interval": "certified",
    "argued": "in words",
}
STANDING = {"conjecture": "Not proved. What is derived below is only what its steps say."}
WIDTH = 100


def render(theorem: Theorem, format: str) -> str:
    """The statement with its whole derivation; `format` is "text", "markdown", "latex" or "html"."""
    formats = {"text": _text, "markdown": _markdown, "latex": _latex, "html": _html}
    if format not in formats:
        expected = f"one of {', '.join(formats)}"
        fix = did_you_mean(format, formats) or "ask for one of these formats"
        raise InputError("format", got=repr(format), expected=expected, fix=fix)
    return formats[format](theorem)


def evidence_summary(theorem: Theorem) -> dict[str, int]:
    """How many steps rest on each kind of evidence, by the kind's short name (absent kinds left out)."""
    counts = Counter(step.evidence.kind for step in theorem.steps)
    return {SHORT[kind]: counts[kind] for kind in KINDS if kind in counts}


def _summary(theorem: Theorem) -> str:
    counts = evidence_summary(theorem).items()
    parts = (f"{count} {name}" + (f" ({MEANING[name]})" if name in MEANING else "") for name, count in counts)
    return f"{len(theorem.steps)} steps: {', '.join(parts)}"


def _notes(theorem: Theorem) -> list[str]:
    """What stands under the title: whether it is proved, and the variant of the system."""
    setting = theorem.setting.describe()
    return [
        *([STANDING[theorem.kind]] if theorem.kind in STANDING else []),
        *([f"System: {setting}."] if setting else []),
    ]


def _text(theorem: Theorem) -> str:
    def block(title: str, *lines: str) -> list[str]:
        return ["", title, *lines] if lines else []

    def pairs(rows: list[tuple[str, str]]) -> list[str]:
        return [_fill(f"{name}:  {one_line(formula)}", "  ") for name, formula in rows]

    title = f"{theorem.id} ({theorem.kind}): {theorem.title}"
    steps = []
    for number, step in enumerate(theorem.steps, start=1):
        claim = [_fill(one_line(part), " " * 9) for part in halves(step.evidence.claim(), WIDTH - 10)]
        steps += ["", _fill(f"[{step.evidence.label}]", f"{number:3}. "), *claim]
        steps += [_fill(unbroken(step.because), " " * 5, hang="")]
    hypotheses = [(f"{h.key} (about the {h.on})", h.formula) for h in theorem.hypotheses]
    remark = [_fill(unbroken(theorem.remark), "  ", "")] if theorem.remark else []
    lines = [title, "=" * len(title), *_notes(theorem), "", _fill(unbroken(theorem.statement), hang="")]
    lines += block("Hypotheses", *pairs(hypotheses))
    lines += block("Claimed at every instant", *pairs([(c.name, c.formula) for c in theorem.claims]))
    lines += ["", _fill(f"Derivation, {_summary(theorem)}"), *steps]
    lines += block("Remark", *remark)
    lines += block("Source", _fill(unbroken(theorem.source), "  ", ""))
    return "\n".join([*lines, ""])


def _markdown(theorem: Theorem) -> str:
    def prose(words: str) -> str:
        return _by_dollars(words, lambda part: re.sub(r"([_*<\[\]])", r"\\\1", part), _github)

    lines = [f"## {theorem.id} ({theorem.kind}): {prose(theorem.title)}", ""]
    lines += [line for note in _notes(theorem) for line in (f"*{note}*", "")]
    lines += [prose(theorem.statement)]
    if theorem.hypotheses:
        lines += ["", "### Hypotheses", ""]
        lines += [f"- **{h.key}** (about the {h.on}): ${_github(h.formula)}$" for h in theorem.hypotheses]
    if theorem.claims:
        lines += ["", "### Claimed at every instant", ""]
        lines += [f"- **{prose(c.name)}**: ${_github(c.formula)}$" for c in theorem.claims]
    lines += ["", "### Derivation", "", f"{_summary(theorem)}.", ""]
    for number, step in enumerate(theorem.steps, start=1):
        claim = _github(displayed(step.evidence.claim()))
        content = [f"**[{step.evidence.label}]**", "", "$$", claim, "$$", "", prose(step.because)]
        lines += [textwrap.indent("\n".join(content), "    ").replace("    ", f"{number}.".ljust(4), 1), ""]
    lines += ["### Remark", "", prose(theorem.remark), ""] if theorem.remark else []
    return "\n".join([*lines, "### Source", "", prose(theorem.source), ""])


def _github(formula: str) -> str:
    """The same formula without what Markdown reads itself: escaped punctuation and `<`."""
    names = {r"\{": r"\lbrace ", r"\}": r"\rbrace ", r"\|": r"\Vert ", r"\,": r"\thinspace ", "<": r"\lt "}
    names |= {r"\\": r"\cr ", r"\#": r"\text{number of }"}
    return re.sub(r"\\[{}|,#\\]|<", lambda match: names[match[0]], formula)


PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{amsmath,amssymb,graphicx}
\usepackage[margin=2.5cm]{geometry}
\allowdisplaybreaks
\emergencystretch=3em
% A displayed formula that is wider than the line shrinks to it.
\newsavebox{\formula}
\renewcommand{\[}{\par\nopagebreak\smallskip\begin{lrbox}{\formula}$\displaystyle}
\renewcommand{\]}{$\end{lrbox}\noindent
  \ifdim\wd\formula>\linewidth\resizebox{\linewidth}{!}{\usebox{\formula}}\else\usebox{\formula}\fi
  \par\smallskip\noindent\ignorespaces}
"""


def _latex(theorem: Theorem) -> str:
    title = rf"\section*{{{theorem.id} ({theorem.kind}): {latex_prose(theorem.title)}}}"
    return "\n".join([PREAMBLE + r"\begin{document}", title, latex_body(theorem), r"\end{document}", ""])


def latex_body(theorem: Theorem, anchors: Collection[str] = ()) -> str:
    """All of a statement below its heading; what has an anchor in the document is linked to it (hyperref)."""
    links = latex_links(anchors)

    def prose(words: str) -> str:
        return _by_dollars(words, lambda part: links.prose(part, besides=theorem.id), str)

    def items(environment: str, entries: list[str]) -> list[str]:
        body = [f"\\item {entry}" for entry in entries]
        return [f"\\begin{{{environment}}}", *body, f"\\end{{{environment}}}"] if entries else []

    def target(number: int) -> str:
        anchor = step_anchor(theorem.id, number)
        return rf"\hypertarget{{{anchor}}}{{}}" if anchor in anchors else ""

    hypotheses = [
        f"\\textbf{{{links.hypothesis(h.key)}}} (about the {h.on}): ${h.formula}$" for h in theorem.hypotheses
    ]
    claims = [f"\\textbf{{{latex_words(c.name)}}}: ${c.formula}$" for c in theorem.claims]
    steps = [
        f"{target(number)}{{\\small\\textsf{{[{links.label(step.evidence, theorem.id)}]}}}}\n"
        f"\\[{displayed(step.evidence.claim())}\\]\n{prose(step.because)}"
        for number, step in enumerate(theorem.steps, start=1)
    ]
    return "\n".join(
        [rf"\emph{{{latex_words(note)}}}\par" for note in _notes(theorem)]
        + [prose(theorem.statement)]
        + ([r"\subsection*{Hypotheses}"] if hypotheses else [])
        + items("itemize", hypotheses)
        + ([r"\subsection*{Claimed at every instant}"] if claims else [])
        + items("itemize", claims)
        + [r"\subsection*{Derivation}", f"{latex_words(_summary(theorem))}.", *items("enumerate", steps)]
        + ([r"\subsection*{Remark}", prose(theorem.remark)] if theorem.remark else [])
        + [r"\subsection*{Source}", prose(theorem.source)]
    )


def latex_links(anchors: Collection[str]) -> Links:
    return Links(anchors, latex_words, lambda words, anchor: rf"\hyperlink{{{anchor}}}{{{words}}}")


def latex_prose(words: str) -> str:
    """English with LaTeX between dollars as LaTeX."""
    return _by_dollars(words, latex_words, str)


def latex_words(words: str) -> str:
    """Plain words as LaTeX; raises ValueError for a character that LaTeX does not know."""
    return ENCODER.unicode_to_latex(re.sub(r"(?<!\w)'", "‘", words))


ENCODER = UnicodeToLatexEncoder(
    conversion_rules=[
        UnicodeToLatexConversionRule(RULE_DICT, {ord("ᵀ"): r"\ensuremath{^\top}"}),
        "defaults",
    ],
    unknown_char_policy="fail",
)


def _html(theorem: Theorem) -> str:
    anchors = {theorem.id, *(step_anchor(theorem.id, number) for number in range(1, len(theorem.steps) + 1))}
    page = TEMPLATES.get_template("page.html.jinja")
    return page.render(theorem=theorem, article=html_article(theorem, anchors, unfolded=True))


def html_article(
    theorem: Theorem, anchors: Collection[str], unfolded: bool = False, below: Markup | None = None
) -> Markup:
    """An `<article>` with the statement; what has an anchor in the document is linked to it.

    `unfolded` says whether its derivation is open; `below` stands between its claims and its derivation.
    """
    links = html_links(anchors)
    article = TEMPLATES.get_template("statement.html.jinja").render(
        theorem=theorem,
        unfolded=unfolded,
        below=below or "",
        notes=_notes(theorem),
        summary=Counter(step.evidence.kind for step in theorem.steps),
        prose=lambda words: html_prose(words, links, theorem.id),
        label=lambda evidence: links.label(evidence, theorem.id),
        hypothesis=links.hypothesis,
    )
    return Markup(article)


def html_links(anchors: Collection[str]) -> Links:
    return Links(anchors, escape, Markup('<a href="#{1}">{0}</a>').format)


def html_prose(words: str, links: Links | None = None, besides: str = "") -> Markup:
    """English with LaTeX between dollars as HTML with MathML."""
    links = links or html_links(())
    first, *parts = re.split(r"\$([^$]*)\$([^\s\w]*)", words)
    shown = Markup("") + links.prose(first, besides)
    for formula, after, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        shown += _with_mark(mathml(formula), after) + links.prose(text, besides)
    return shown


def _with_mark(math: str, mark: str) -> Markup:
    """A formula and the punctuation after it, on one line."""
    before, cut, last = math.rpartition("<wbr>")
    kept = Markup('<span class="kept">{}{}</span>').format(Markup(last), mark) if mark else Markup(last)
    return Markup(before + cut) + kept


def _displayed(claim: Claim) -> Markup:
    return Markup(mathml(latex(claim), display=True))


TEMPLATES = Environment(
    loader=PackageLoader("theory"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.globals |= {"KINDS": KINDS, "SHORT": SHORT, "step_anchor": step_anchor}
TEMPLATES.filters |= {
    "prose": html_prose,
    "displayed": _displayed,
    "css": lambda kind: SHORT[kind].replace(" ", "-"),
}


def _by_dollars(sentence: str, words, formula) -> str:
    """Apply `words` outside single dollars; inside, apply `formula` and keep the dollars."""
    parts = sentence.split("$")
    return "".join(f"${formula(part)}$" if odd % 2 else words(part) for odd, part in enumerate(parts))


def _fill(line: str, indent: str = "", hang: str = "    ") -> str:
    filled = textwrap.fill(
        line,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=" " * len(indent) + hang,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\u00a0", " ")
