"""A statement as text for a terminal, as Markdown, or as a LaTeX document.

Formulas have one source, LaTeX; the terminal gets a one-line form of it in which every fraction, exponent
and index that could be misread keeps its brackets.
"""

import re
import textwrap
from collections import Counter
from functools import cache
from itertools import groupby

from pylatexenc.latex2text import (
    EnvironmentTextSpec,
    LatexNodes2Text,
    MacroTextSpec,
    SpecialsTextSpec,
    get_default_latex_context_db,
)
from pylatexenc.latexencode import RULE_DICT, UnicodeToLatexConversionRule, UnicodeToLatexEncoder
from pylatexenc.latexwalker import LatexWalker
from pylatexenc.latexwalker import get_default_latex_context_db as get_default_grammar
from pylatexenc.macrospec import MacroSpec, MacroStandardArgsParser, SpecialsSpec
from sympy import Basic, Symbol
from sympy.printing.latex import LatexPrinter

from theory.derivation import ARGUED, CITED, EXACT, HYPOTHESIS, INTERVAL, KINDS, LEMMA, SYMBOLIC, Claim
from theory.errors import InputError
from theory.notation import norm_V
from theory.theorem import Theorem

SHORT = {
    SYMBOLIC: "symbolic",
    EXACT: "exact",
    INTERVAL: "interval",
    LEMMA: "lemma",
    HYPOTHESIS: "hypothesis",
    CITED: "cited",
    ARGUED: "argued",
}
MEANING = {"symbolic": "any n and d", "exact": "this instance", "interval": "certified", "argued": "in words"}
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
        return [_fill(f"{name}:  {_linear(formula)}", "  ") for name, formula in rows]

    title = f"{theorem.id} ({theorem.kind}): {theorem.title}"
    steps = []
    for number, step in enumerate(theorem.steps, start=1):
        claim = [_fill(_linear(part), " " * 9) for part in _halves(step.evidence.claim(), WIDTH - 10)]
        steps += ["", _fill(f"[{step.evidence.label}]", f"{number:3}. "), *claim]
        steps += [_fill(_sentence(step.because), " " * 5, hang="")]
    hypotheses = [(f"{h.key} (about the {h.on})", h.formula) for h in theorem.hypotheses]
    remark = [_fill(_sentence(theorem.remark), "  ", "")] if theorem.remark else []
    lines = [title, "=" * len(title), "", _fill(_sentence(theorem.statement), hang="")]
    lines += block("Hypotheses", *pairs(hypotheses))
    lines += block("Claimed at every instant", *pairs([(c.name, c.formula) for c in theorem.claims]))
    lines += ["", _fill(f"Derivation, {_summary(theorem)}"), *steps]
    lines += block("Remark", *remark)
    lines += block("Source", _fill(_sentence(theorem.source), "  ", ""))
    return "\n".join([*lines, ""])


def _markdown(theorem: Theorem) -> str:
    def prose(sentence: str) -> str:
        return _by_dollars(sentence, lambda words: re.sub(r"([_*<\[\]])", r"\\\1", words), _github)

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
    def prose(sentence: str) -> str:
        return _by_dollars(sentence, _escape, str)

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
    if isinstance(claim, str) or len(_linear(whole)) <= width:
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


# The one-line form. While it is built, `_hide` takes finished pieces out of the reach of the spacing rules.
SUBSCRIPTS = str.maketrans("0123456789aeijklmnoprstuvx+−=", "₀₁₂₃₄₅₆₇₈₉ₐₑᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₊₋₌")
SUPERSCRIPTS = str.maketrans("0123456789nd+−⊤∘", "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿᵈ⁺⁻ᵀ°")
RAISED = "".join(map(chr, (*SUBSCRIPTS.values(), *SUPERSCRIPTS.values())))
SOFT, OPEN, CLOSE, HIDDEN = "\ue000", "\ue001", "\ue002", 0xF0000
FINISHED = "\U000f0021-\U0010ffff"  # without a hidden space


def _hide(piece: str) -> str:
    return "".join(chr(HIDDEN + ord(c)) if ord(c) < HIDDEN else c for c in piece)


def _show(piece: str) -> str:
    return "".join(chr(ord(c) - HIDDEN) if ord(c) >= HIDDEN else c for c in piece)


def _linear(formula: str) -> str:
    """LaTeX mathematics on one line of Unicode."""
    grammar, text = _contexts()
    nodes, _, _ = LatexWalker(formula, latex_context=grammar, tolerant_parsing=False).get_latex_nodes()
    line = LatexNodes2Text(latex_context=text).nodelist_to_text(nodes)
    return re.sub(" +", " ", _show(_spaced(line))).strip()


def _sentence(sentence: str) -> str:
    """A sentence for the terminal; short formulas are kept on one line."""
    parts = [part if k % 2 == 0 else _linear(part) for k, part in enumerate(sentence.split("$"))]
    kept = [p.replace(" ", "\u00a0") if k % 2 and len(p) < 40 else p for k, p in enumerate(parts)]
    return "".join(kept)


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


WORDS = ("max", "min", "log", "exp", "sin", "cos", "sinh", "det")
SIGNS = {"sum": "∑", "int": "∫", "implies": "⟹", "iff": "⟺", "forall": "∀", "exists": "∃"}
SCRIPTS = rf"(?:[{RAISED}]|_\{{[^}}]*\}}|[_^][^{{(])"


def _spaced(line: str) -> str:
    """Spaces around relations, binary signs and words; brackets around fractions inside products."""
    line = line.replace(" ", "").replace("-", "−").replace("¬→", "↛")
    line = re.sub(r"([=≥≤<>≻≺≽≠→↛∈⟹⟺])", r" \1 ", line)
    line = re.sub(r"([,:;])", r"\1 ", line)
    line = re.sub(rf"{SOFT}(?:{SCRIPTS}|{SOFT})+", lambda match: match[0].replace(SOFT, "") + SOFT, line)
    line = re.sub(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}", _fraction, line)
    line = re.sub(rf"(?<=[\w)\]}}‖|∞…\u0307{RAISED}{FINISHED}]){SOFT}?([+−±])", r" \1 ", line)
    line = re.sub(rf"((?:[A-Za-z]{{2,}}|_\w)[{RAISED}]*){SOFT}(?=\()", r"\1", line)
    line = re.sub(rf"(?:^|(?<=[(\[{{−|/ ])){SOFT}|{SOFT}(?=[)\]}},:;/ ]|$)", "", line)
    return re.sub(f"{SOFT}+", " ", line)


def _fraction(match: re.Match) -> str:
    """A quotient in its surroundings: bracketed when it is a factor, an argument or a base."""
    before, after = match.string[: match.start()][-1:], match.string[match.end() :][:1]
    if re.fullmatch("d²?/d.²?", _show(match[1])):
        return f"{SOFT}{match[1]}{_hide(' ')}"
    free = not re.match(rf"[\w)\]}}‖/{RAISED}{FINISHED}{SOFT}{CLOSE}]", before)
    free = free and not re.match(rf"[\w(\[‖|/^{RAISED}{FINISHED}{SOFT}{OPEN}]", after)
    return match[1] if free else f"({match[1]})"


def _quotient(node, l2tobj) -> str:
    top, bottom = (_spaced(l2tobj.node_arg_to_text(node, k)) for k in (0, 1))
    if not (re.fullmatch("d²?", top) and re.fullmatch("d.²?", bottom)):
        atom = rf"\d+|\w{SCRIPTS}*|(?:sin|cos|log)\([^()]*\)"
        top = f"({top})" if re.search(r"[ /∑∫]", _without_brackets(_show(top))) else top
        bottom = bottom if re.fullmatch(atom, bottom) else f"({bottom})"
    return f"{OPEN}{_hide(top)}/{_hide(bottom)}{CLOSE}"


def _without_brackets(line: str) -> str:
    while (shorter := re.sub(r"\([^()]*\)", "", line)) != line:
        line = shorter
    return line


def _subscript(node, l2tobj) -> str:
    index = _spaced(l2tobj.node_arg_to_text(node, 0)).replace(" ", "")
    small = index.translate(SUBSCRIPTS)
    if all(c in RAISED for c in small):
        return small
    return f"_{{{_hide(index)}}}" if len(index) > 1 else f"_{index}{SOFT}"


def _superscript(node, l2tobj) -> str:
    exponent = _spaced(l2tobj.node_arg_to_text(node, 0))
    small = exponent.translate(SUPERSCRIPTS)
    if all(c in RAISED for c in small):
        return small
    return f"^{exponent}{SOFT}" if len(exponent) == 1 else f"^({_hide(exponent)}){SOFT}"


def _matrix(node, l2tobj) -> str:
    rows, row, cell = [], [], []
    for child in [*node.nodelist, None]:
        name = getattr(child, "macroname", None) or getattr(child, "specials_chars", None)
        if child is not None and name not in ("\\", "&"):
            cell.append(child)
            continue
        row.append(_spaced(l2tobj.nodelist_to_text(cell)))
        cell = []
        if name != "&":
            rows.append(f"[{', '.join(row)}]")
            row = []
    return SOFT + _hide(f"[{', '.join(rows)}]")


def _unknown(node) -> str:
    raise ValueError(f"no one-line form for {node.latex_verbatim()}")


@cache
def _contexts():
    """The grammar of the formulas and what each macro becomes on one line."""

    def word(node, l2tobj) -> str:
        letters = l2tobj.node_arg_to_text(node, 0)
        return f"{SOFT}{letters}{SOFT}" if len(letters) > 1 else letters

    def words(node, l2tobj) -> str:
        return _hide(l2tobj.node_arg_to_text(node, 0))

    grammar, text = get_default_grammar(), get_default_latex_context_db()
    spaced = dict(zip(WORDS, WORDS, strict=True)) | SIGNS
    macros = [MacroTextSpec(name, f"{SOFT}{shown}{SOFT}") for name, shown in spaced.items()]
    macros += [MacroTextSpec(name, _hide(" ")) for name in (" ", "quad", "qquad")]
    macros += [MacroTextSpec(name, SOFT) for name in (",", ";")]
    macros += [MacroTextSpec(name, "") for name in ("left", "right")]
    macros += [MacroTextSpec("|", "‖"), MacroTextSpec("not", "¬"), MacroTextSpec("ne", "≠")]
    macros += [MacroTextSpec(name, _quotient) for name in ("frac", "tfrac")]
    macros += [MacroTextSpec(name, word) for name in ("mathrm", "operatorname")]
    macros += [MacroTextSpec("text", words)]
    scripts = [SpecialsTextSpec("_", _subscript), SpecialsTextSpec("^", _superscript)]
    text.add_context_category(
        "one line", macros, [EnvironmentTextSpec("pmatrix", _matrix)], scripts, prepend=True
    )
    text.set_unknown_macro_spec(MacroTextSpec("", _unknown))
    arguments = [MacroSpec("tfrac", "{{"), MacroSpec("operatorname", "{"), MacroSpec("not", "")]
    scripts = [SpecialsSpec(sign, MacroStandardArgsParser("{")) for sign in "_^"]
    grammar.add_context_category("one line", arguments, specials=scripts, prepend=True)
    return grammar, text
