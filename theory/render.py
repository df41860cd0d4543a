"""A statement as text for a terminal, as Markdown, or as a LaTeX document.

Formulas have one source, LaTeX; the terminal gets a one-line form of it in which every fraction, exponent
and index that could be misread keeps its brackets.
"""

import re
import textwrap
from collections import Counter
from itertools import groupby

from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder
from sympy import Basic, Symbol
from sympy.printing.latex import LatexPrinter

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
from theory.errors import InputError
from theory.notation import norm_V
from theory.one_line import one_line, unbroken
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
WIDTH = 100


def render(theorem: Theorem, format: str) -> str:
    """The statement with its whole derivation; `format` is "text", "markdown" or "latex"."""
    formats = {"text": _text, "markdown": _markdown, "latex": _latex}
    if format not in formats:
        expected = f"one of {', '.join(formats)}"
        raise InputError("format", got=repr(format), expected=expected, fix="ask for one of these formats")
    return formats[format](theorem)


def evidence_summary(theorem: Theorem) -> dict[str, int]:
    """How many steps rest on each kind of evidence, by the kind's short name (absent kinds left out)."""
    counts = Counter(step.evidence.kind for step in theorem.steps)
    return {SHORT[kind]: counts[kind] for kind in KINDS if kind in counts}


def _summary(theorem: Theorem) -> str:
    counts = evidence_summary(theorem).items()
    parts = (f"{count} {name}" + (f" ({MEANING[name]})" if name in MEANING else "") for name, count in counts)
    return f"{len(theorem.steps)} steps: {', '.join(parts)}"


def _text(theorem: Theorem) -> str:
    def block(title: str, *lines: str) -> list[str]:
        return ["", title, *lines] if lines else []

    def pairs(rows: list[tuple[str, str]]) -> list[str]:
        return [_fill(f"{name}:  {one_line(formula)}", "  ") for name, formula in rows]

    title = f"{theorem.id} ({theorem.kind}): {theorem.title}"
    steps = []
    for number, step in enumerate(theorem.steps, start=1):
        claim = [_fill(one_line(part), " " * 9) for part in _halves(step.evidence.claim(), WIDTH - 10)]
        steps += ["", _fill(f"[{step.evidence.label}]", f"{number:3}. "), *claim]
        steps += [_fill(unbroken(step.because), " " * 5, hang="")]
    hypotheses = [(f"{h.key} (about the {h.on})", h.formula) for h in theorem.hypotheses]
    remark = [_fill(unbroken(theorem.remark), "  ", "")] if theorem.remark else []
    lines = [title, "=" * len(title), "", _fill(unbroken(theorem.statement), hang="")]
    lines += block("Hypotheses", *pairs(hypotheses))
    lines += block("Claimed at every instant", *pairs([(c.name, c.formula) for c in theorem.claims]))
    lines += ["", _fill(f"Derivation, {_summary(theorem)}"), *steps]
    lines += block("Remark", *remark)
    lines += block("Source", _fill(unbroken(theorem.source), "  ", ""))
    return "\n".join([*lines, ""])


def _markdown(theorem: Theorem) -> str:
    def prose(words: str) -> str:
        return _by_dollars(words, lambda part: re.sub(r"([_*<\[\]])", r"\\\1", part), _github)

    lines = [f"## {theorem.id} ({theorem.kind}): {prose(theorem.title)}", "", prose(theorem.statement)]
    if theorem.hypotheses:
        lines += ["", "### Hypotheses", ""]
        lines += [f"- **{h.key}** (about the {h.on}): ${_github(h.formula)}$" for h in theorem.hypotheses]
    lines += ["", "### Claimed at every instant", ""]
    lines += [f"- **{prose(c.name)}**: ${_github(c.formula)}$" for c in theorem.claims]
    lines += ["", "### Derivation", "", f"{_summary(theorem)}.", ""]
    for number, step in enumerate(theorem.steps, start=1):
        claim = _github(_displayed(step.evidence.claim()))
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
    def prose(words: str) -> str:
        return _by_dollars(words, _escape, str)

    def items(environment: str, entries: list[str]) -> list[str]:
        body = [f"\\item {entry}" for entry in entries]
        return [f"\\begin{{{environment}}}", *body, f"\\end{{{environment}}}"] if entries else []

    hypotheses = [
        f"\\textbf{{{_escape(h.key)}}} (about the {h.on}): ${h.formula}$" for h in theorem.hypotheses
    ]
    claims = [f"\\textbf{{{_escape(c.name)}}}: ${c.formula}$" for c in theorem.claims]
    steps = [
        f"{{\\small\\textsf{{[{_escape(step.evidence.label)}]}}}}\n"
        f"\\[{_displayed(step.evidence.claim())}\\]\n{prose(step.because)}"
        for step in theorem.steps
    ]
    return "\n".join(
        [PREAMBLE + r"\begin{document}"]
        + [f"\\section*{{{theorem.id} ({theorem.kind}): {_escape(theorem.title)}}}", prose(theorem.statement)]
        + ([r"\subsection*{Hypotheses}"] if hypotheses else [])
        + items("itemize", hypotheses)
        + [r"\subsection*{Claimed at every instant}", *items("itemize", claims)]
        + [r"\subsection*{Derivation}", f"{_escape(_summary(theorem))}.", *items("enumerate", steps)]
        + ([r"\subsection*{Remark}", prose(theorem.remark)] if theorem.remark else [])
        + [r"\subsection*{Source}", prose(theorem.source), r"\end{document}", ""]
    )


def _escape(words: str) -> str:
    extra = UnicodeToLatexConversionRule(RULE_DICT, {ord("ᵀ"): r"\ensuremath{^\top}"})
    encoder = UnicodeToLatexEncoder(conversion_rules=[extra, "defaults"], unknown_char_policy="fail")
    return encoder.unicode_to_latex(re.sub(r"(?<!\w)'", "‘", words))


def _by_dollars(sentence: str, words, formula) -> str:
    """Apply `words` outside single dollars; inside, apply `formula` and keep the dollars."""
    parts = sentence.split("$")
    return "".join(f"${formula(part)}$" if odd % 2 else words(part) for odd, part in enumerate(parts))


def _formula(claim: Basic | str) -> str:
    return claim if isinstance(claim, str) else _Printer(PRINTING).doprint(claim)


def _halves(claim: Claim, width: int) -> list[str]:
    """A relation longer than `width` in two parts, the second from its sign on; otherwise the claim whole."""
    whole = _formula(claim)
    if isinstance(claim, str) or len(one_line(whole)) <= width:
        return [whole]
    left = _formula(claim.lhs)
    return [left, whole.removeprefix(left)]


def _displayed(claim: Claim) -> str:
    parts = _halves(claim, 75)
    return r"\begin{aligned} & " + r" \\ & \quad ".join(parts) + r" \end{aligned}" if parts[1:] else parts[0]


PRINTING = {
    "symbol_names": {norm_V: r"\|V\|", Symbol("l", real=True): r"\ell"},
    "mat_delim": "",
    "mat_str": "pmatrix",
}


class _Printer(LatexPrinter):
    """SymPy's LaTeX in the notation of the sentences: ⊤, P_{ij}, one sum over several indices, d/dt."""

    def _print_Transpose(self, expr):  # noqa: N802
        return super()._print_Transpose(expr).removesuffix("^{T}") + r"^{\top}"

    def _print_Inverse(self, expr):  # noqa: N802
        printed = self._print(expr.arg)
        turned = printed.endswith(r"^{\top}")
        return printed.removesuffix(r"^{\top}") + r"^{-\top}" if turned else self._print_MatPow(expr)

    def _print_Indexed(self, expr):  # noqa: N802
        return f"{self._print(expr.base.label)}_{{{''.join(map(self._print, expr.indices))}}}"

    def _print_MatMul(self, expr):  # noqa: N802
        return re.sub(r"\\left\((\\frac\{\d+\}\{\d+\})\\right\)(?!\^)", r"\1", super()._print_MatMul(expr))

    def _print_Sum(self, expr):  # noqa: N802
        signs = []
        for (low, high), limits in groupby(expr.limits, key=lambda limit: limit[1:]):
            indices = ",".join(self._print(index) for index, _, _ in limits)
            signs.append(rf"\sum_{{{indices}={low}}}^{{{self._print(high)}}}")
        body = self._print(expr.function)
        return " ".join(signs) + (rf" \left({body}\right)" if expr.function.is_Add else f" {body}")

    def _print_Derivative(self, expr):  # noqa: N802
        variable, order = expr.variable_count[0]
        power = f"^{{{order}}}" if order > 1 else ""
        return rf"\frac{{d{power}}}{{d {self._print(variable)}{power}}}\left({self._print(expr.expr)}\right)"


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
