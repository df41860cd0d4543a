"""LaTeX mathematics as MathML Core, for a browser.

latex2mathml converts; what is added here is what browsers need to space a formula as TeX does: signs that
are not between two terms, function names, limits below an operator, bars without space, and places where
a long formula may go on in the next line.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from html import unescape
from xml.etree.ElementTree import Element, tostring

from latex2mathml.converter import convert_to_element

RELATIONS = frozenset("=≠≥≤<>≻≺⪰⪯≽≼→↛⟹⟺∈≈∼")
SIGNS, OPENING, CLOSING, BARS = frozenset("−+±∓"), frozenset("([{⟨"), frozenset(")]}⟩"), frozenset("|‖")
LETTERS = frozenset("⊤∞∅…⋯")  # which latex2mathml takes for operators
TALL = frozenset(("mfrac", "munder", "munderover", "mtable", "msqrt"))  # what brackets grow for
WORD = re.compile(r"[^\W\d]{2,}(\u2006[^\W\d]+)?")
LIMITS = frozenset(("∑", "max", "min", "lim", "sup", "inf", "lim\u2006sup", "lim\u2006inf"))
BELOW = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
THIN = "0.1667em"
LONG = 24  # elements of a formula that may go on in the next line


@cache
def mathml(formula: str, display: bool = False) -> str:
    """One `<math>` element; a long formula becomes several, between which a line may break.

    Raises ValueError for what has no MathML form: an unknown macro, an alignment sign outside a table.
    """
    style = "block" if display else "inline"
    root = convert_to_element(_prepared(formula), xmlns="", display=style)
    for element in root.iter():
        element.text = unescape(element.text or "")
        if re.search(r"[\\$&]", element.text) or "linebreak" in element.attrib:
            raise ValueError(f"no MathML form for {formula}")
    _tidy(root, display)
    pieces = [list(root)] if len(list(root.iter())) < LONG else _pieces(list(root), display)
    return "<wbr>".join(_serialised(piece, style) for piece in pieces)


def _serialised(children: list[Element], style: str) -> str:
    root = Element("math", {"display": style})
    root.extend(children)
    return tostring(root, encoding="unicode")


def _prepared(formula: str) -> str:
    """The same formula in forms that latex2mathml knows: words without mathematics, braces where needed."""
    plain = re.sub(r"\\text\{((?:[^{}$]|\$[^$]*\$)*)\}", _words, formula)
    plain = re.sub(r"\\begin\{(\w*matrix)\}.*?\\end\{\1\}", r"{\g<0>}", plain, flags=re.DOTALL)
    plain = re.sub(r"\\(math(?!rm)\w+) (\w)", r"\\\1{\2}", plain)
    return re.sub(r"\\mathrm\{(\w)\}", r"\\mathrm \1 ", plain).replace("{aligned}", "{split}")


def _words(match: re.Match) -> str:
    parts = match[1].split("$")
    return "".join(f"{{{part}}}" if k % 2 else rf"\text{{{part}}}" for k, part in enumerate(parts) if part)


def _tidy(parent: Element, display: bool) -> None:
    for child in parent:
        _tidy(child, display)
    children = list(_without_rows(_negated(list(parent)), parent.tag))
    tall = any(part.tag in TALL or part.text == "∑" for part in parent.iter())
    for index, child in enumerate(children):
        core = _core(child)
        if core.tag in ("mi", "mo"):
            _space(core, children[:index], children[index + 1 : index + 2], tall)
        if display and core.text in LIMITS:
            core.set("movablelimits", "true")
            child.tag = BELOW.get(child.tag, child.tag)
    for child in list(parent):
        parent.remove(child)
    parent.extend(children)


def _space(core: Element, before: list[Element], after: list[Element], tall: bool) -> None:
    """Give a sign its element and its space; `tall` says what brackets stand around."""
    sign = core.text or ""
    if core.get("fence") == "true" and not tall:
        core.set("stretchy", "false")
    if sign in LETTERS:
        core.tag = "mi"
    elif "Α" <= sign <= "Ω":
        core.set("mathvariant", "normal")
    elif sign in RELATIONS:
        core.tag = "mo"
        core.attrib |= ({} if before else {"lspace": "0"}) | ({} if after else {"rspace": "0"})
    elif sign in BARS | {"/"} and "form" not in core.attrib:
        core.attrib |= {"lspace": "0", "rspace": "0"}
    elif sign in SIGNS and _opens(before):
        core.set("form", "prefix")
    elif WORD.fullmatch(sign):
        core.tag = "mo"
        apart = after and _first(after[0]) not in OPENING | RELATIONS
        core.attrib |= {"lspace": "0" if _opens(before) else THIN, "rspace": THIN if apart else "0"}


def _negated(children: list[Element]) -> Iterator[Element]:
    r"""`\not` and the relation after it as one sign."""
    pending = False
    for child in children:
        if child.tag == "mpadded" and child.get("width") == "0":
            pending = True
            continue
        if pending:
            child.text = unicodedata.normalize("NFC", f"{child.text}\u0338")
        pending = False
        yield child


def _without_rows(children: Iterator[Element], around: str) -> Iterator[Element]:
    """Rows of one element, the row around a whole formula and the letters of one upright word, made plain."""
    for child in children:
        letters = [part.text or "" for part in child if part.get("mathvariant") == "normal"]
        if child.tag == "mrow" and len(letters) == len(child) > 1:
            word = Element("mi")
            word.text = "".join(letters)
            yield word
        elif child.tag == "mrow" and (len(child) == 1 or around == "math"):
            yield from child
        else:
            yield child


def _core(element: Element) -> Element:
    """The operator under scripts, or the element itself."""
    return _core(element[0]) if element.tag in (*BELOW, *BELOW.values()) else element


def _first(element: Element) -> str:
    """The first sign of a formula."""
    return next((part.text for part in element.iter() if part.text), "")


def _opens(before: list[Element]) -> bool:
    """Is what follows at the start of a term: after nothing, a relation, another sign, an opening bracket?"""
    if not before:
        return True
    last = _core(before[-1])
    if last.text in BARS:
        return sum(_core(element).text in BARS for element in before) % 2 == 1
    closed = last.text in CLOSING or last.get("form") == "postfix"
    return (last.tag == "mo" and not closed) or last.tag == "mspace" or (last.tag == "mi" and not last.text)


def _pieces(children: list[Element], display: bool) -> Iterator[list[Element]]:
    """The row cut outside its brackets: after commas, and after relations in a sentence; if it is displayed,
    before relations, signs between two terms, and words.
    """
    piece, depth = [], 0
    for child in children:
        sign = child.text or ""
        between = child.tag == "mo" and sign in SIGNS and child.get("form") != "prefix"
        if piece and depth == 0 and display and (between or sign in RELATIONS or child.tag == "mtext"):
            if between:
                child.set("form", "infix")
            yield piece
            piece = []
        piece.append(child)
        depth += (sign in OPENING) - (sign in CLOSING)
        if depth == 0 and (sign == "," or (sign in RELATIONS and not display)):
            yield piece
            piece = []
    if piece:
        yield piece
