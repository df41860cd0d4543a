"""LaTeX mathematics on one line of Unicode, for a terminal.

pylatexenc parses; what is added here is that every fraction, exponent and index that could be misread keeps
its brackets, and that an unknown macro is an error, never dropped. While a line is built, `_hide` takes
finished pieces out of the reach of the spacing rules.
"""

import re
from functools import cache

from pylatexenc.latex2text import (
    EnvironmentTextSpec,
    LatexNodes2Text,
    MacroTextSpec,
    SpecialsTextSpec,
    get_default_latex_context_db,
)
from pylatexenc.latexwalker import LatexWalker
from pylatexenc.latexwalker import get_default_latex_context_db as get_default_grammar
from pylatexenc.macrospec import MacroSpec, MacroStandardArgsParser, SpecialsSpec

SUBSCRIPTS = str.maketrans("0123456789aeijklmnoprstuvx+−=", "₀₁₂₃₄₅₆₇₈₉ₐₑᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ₊₋₌")
SUPERSCRIPTS = str.maketrans("0123456789nd+−⊤∘", "⁰¹²³⁴⁵⁶⁷⁸⁹ⁿᵈ⁺⁻ᵀ°")
RAISED = "".join(map(chr, (*SUBSCRIPTS.values(), *SUPERSCRIPTS.values())))
SOFT, OPEN, CLOSE, HIDDEN = "\ue000", "\ue001", "\ue002", 0xF0000
FINISHED = "\U000f0021-\U0010ffff"  # without a hidden space


def _hide(piece: str) -> str:
    return "".join(chr(HIDDEN + ord(c)) if ord(c) < HIDDEN else c for c in piece)


def _show(piece: str) -> str:
    return "".join(chr(ord(c) - HIDDEN) if ord(c) >= HIDDEN else c for c in piece)


@cache
def one_line(formula: str) -> str:
    """LaTeX mathematics on one line of Unicode."""
    grammar, text = _contexts()
    nodes, _, _ = LatexWalker(formula, latex_context=grammar, tolerant_parsing=False).get_latex_nodes()
    line = LatexNodes2Text(latex_context=text).nodelist_to_text(nodes)
    return re.sub(" +", " ", _show(_spaced(line))).strip()


def sentence(prose: str) -> str:
    """English with LaTeX between dollars as plain text."""
    return unbroken(prose).replace("\u00a0", " ")


def unbroken(prose: str) -> str:
    """The same with no-break spaces that keep short formulas on one line."""
    parts = [part if k % 2 == 0 else one_line(part) for k, part in enumerate(prose.split("$"))]
    kept = [p.replace(" ", "\u00a0") if k % 2 and len(p) < 40 else p for k, p in enumerate(parts)]
    return "".join(kept)


WORDS = ("max", "min", "log", "exp", "sin", "cos", "sinh", "det")
SIGNS = {"sum": "∑", "int": "∫", "implies": "⟹", "iff": "⟺", "forall": "∀", "exists": "∃"}
SCRIPTS = rf"(?:[{RAISED}]|_\{{[^}}]*\}}|[_^][^{{(])"


def _spaced(line: str) -> str:
    """Spaces around relations, binary signs and words; brackets around fractions inside products."""
    line = line.replace(" ", "").replace("-", "−").replace("¬→", "↛")
    line = re.sub(r"([=≥≤<>≻≺≽≼≠→↛∈⟹⟺])", r" \1 ", line)
    line = re.sub(r"([,:;])", r"\1 ", line)
    line = re.sub(rf"{SOFT}(?:{SCRIPTS}|{SOFT})+", lambda match: match[0].replace(SOFT, "") + SOFT, line)
    line = re.sub(f"{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}", _fraction, line)
    line = re.sub(rf"(?<=[\w)\]}}‖|∞…*\u0305\u0307{RAISED}{FINISHED}]){SOFT}?([+−±])", r" \1 ", line)
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
