"""Derived conditions as text for a terminal, Markdown, a LaTeX document, or JSON."""

import io
import json
from collections.abc import Iterable
from typing import Any

from pylatexenc.latexencode import unicode_to_latex
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from sympy import ImmutableDenseMatrix, latex
from sympy.logic.boolalg import And, Boolean, Or

from theory.conditions import Derived
from theory.errors import InputError
from theory.one_line import sentence
from theory.region import Case, Region, text
from theory.verdict import Status

LONGEST = 600  # characters of one condition that are printed in full
STYLES = {"everywhere": "green", "somewhere": "green", "nowhere": "red", "undecided": "yellow"}
NOTE_SCALE = (
    r"$W=Q^\top K/\sqrt{d_k}$; the factor is positive, changes no sign and is left out of all conditions."
)
NOTE_RESPONSE = (
    r"$A=WV^{-1}$ is symmetric iff $V^\top W$ is, and $A_s$ has the signs of $(V^\top W)_s$: "
    r"congruence by an invertible $V$."
)
NOTE_ROTARY = (
    r"With rotary encoding scores use $W_r=Q^\top R^rK/\sqrt{{d_k}}$, $|r|<{context}$. $\lambda$ is the "
    r"smallest eigenvalue of the pencil $(W_s,\sigma A)$ with $\sigma A\succ0$, $\delta$ the largest norm of "
    r"$(\sigma A)^{{-1/2}}(W_r-W)(\sigma A)^{{-1/2}}$."
)
NOTE_SYNTAX = (
    "Conditions are in the syntax of the input. exact: decided in rational arithmetic; interval: by balls. "
    "The hypotheses are sufficient: outside a region its statements are silent."
)


def check_format(style: str) -> None:
    """Raises InputError for an unknown format."""
    if style not in FORMATS:
        raise InputError(
            "format",
            got=repr(style),
            expected=f"one of {', '.join(FORMATS)}",
            fix="ask for one of these formats",
        )


def render(derived: Derived, style: str, console: Console | None = None) -> str:
    """The answer as "text", "markdown", "latex" or "json"; text takes the console's width and colours."""
    check_format(style)
    return FORMATS[style](derived, console or Console(width=110, file=io.StringIO()))


def where(region: Region) -> str:
    """In one word where the hypotheses hold: everywhere, somewhere, nowhere or undecided."""
    if region.status is Status.UNDECIDED:
        return "undecided"
    if region.status is Status.FAILS:
        return "nowhere"
    return "everywhere" if region.everywhere else "somewhere"


def notes(derived: Derived) -> list[str]:
    """What a reader must know of the conventions."""
    given = derived.inputs.matrices
    found = [NOTE_SCALE] if "query" in given and given["query"].rows > 1 else []
    if "value" in given and ({"query", "score"} & given.keys()):
        found.append(NOTE_RESPONSE)
    if derived.inputs.context is not None:
        found.append(NOTE_ROTARY.format(context=derived.inputs.context))
    return [*found, NOTE_SYNTAX]


# Text


def _text(derived: Derived, console: Console) -> str:
    with console.capture() as capture:
        console.print(_given(derived))
        console.print()
        for line in (*(f"Not asked: {reason}." for reason in derived.left_out), *notes(derived)):
            console.print(Text(sentence(line), style="dim"))
    given, closing = _stripped(capture.get()).split("\n\n", 1)
    return f"{given}\n\n{regions_text(derived.regions, console)}{closing}"


def regions_text(regions: Iterable[Region], console: Console) -> str:
    """One paragraph for each region."""
    with console.capture() as capture:
        for region in regions:
            console.print(Text(region.name, style="bold"))
            console.print(Padding(_details(region), (0, 0, 0, 2)))
            console.print()
    return _stripped(capture.get())


def _stripped(lines: str) -> str:
    return "\n".join(line.rstrip() for line in lines.splitlines()) + "\n"


def _rows() -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    return table


def _given(derived: Derived) -> Table:
    table = _rows()
    for name, matrix in derived.inputs.matrices.items():
        table.add_row(name, Text(_matrix(matrix)))
    if derived.inputs.context is not None:
        table.add_row("context", str(derived.inputs.context))
    for label, matrix in derived.shown.items():
        table.add_row(sentence(label), Text(_matrix(matrix)))
    if derived.assumptions:
        table.add_row("assuming", Text(_conjunction(derived.assumptions)))
    return table


def _details(region: Region) -> Table:
    table = _rows()
    for name, conclusion in region.says.items():
        table.add_row(name, Text(sentence(conclusion)))
    table.add_row("holds", Text(_where_text(region), style=STYLES[where(region)]))
    for number, case in enumerate(region.branches, start=1):
        if len(region.branches) > 1:
            table.add_row(f"case {number}", Text(_case(case)))
        elif not set(case.equations) <= set(region.conditions or ()):
            table.add_row("that is", Text(_case(case)))
    if region.otherwise is not None:
        needed = "for X → 0 from every start this is needed"
        table.add_row(
            "fails", Text(f"where {_conjunction(region.otherwise) or 'never'} (V is Hurwitz): {needed}")
        )
    if region.implied and region.status is not Status.FAILS:
        table.add_row("inverse", Text(f"exists, as it follows that {_conjunction(region.implied)}"))
    if region.point is not None:
        table.add_row("example", Text(f"{_point(region)}  ({region.verdict.grade})"))
    return table


def _where_text(region: Region) -> str:
    word, conditions = where(region), _conjunction(region.conditions or ())
    if word == "nowhere":
        return f"nowhere ({region.verdict.grade}): {region.reason}"
    if word == "undecided":
        return f"UNDECIDED: {region.reason}" + (
            f". The conditions so far: {conditions}" if conditions else ""
        )
    return "everywhere" if word == "everywhere" else f"where {conditions}"


def _matrix(matrix: ImmutableDenseMatrix) -> str:
    return _cut(str(matrix.tolist()))


def _cut(line: str) -> str:
    return (
        line if len(line) <= LONGEST else f"{line[:LONGEST]}… ({len(line)} characters; --format json has all)"
    )


def _short(condition: Boolean) -> str:
    return _cut(text(condition))


def _conjunction(conditions: Iterable[Boolean]) -> str:
    return ", ".join(_short(condition) for condition in conditions)


def _case(case: Case) -> str:
    return "; ".join(_conjunction(part) for part in (case.equations, case.conditions) if part) or "always"


def _point(region: Region) -> str:
    return ", ".join(f"{symbol} = {value}" for symbol, value in sorted((region.point or {}).items(), key=str))


# JSON


def _json(derived: Derived, _: Console) -> str:
    return json.dumps(as_json(derived), indent=1, ensure_ascii=False)


def as_json(derived: Derived) -> dict[str, Any]:
    """Everything as strings in the syntax of the input."""
    return {
        "inputs": {name: _strings(matrix) for name, matrix in derived.inputs.matrices.items()},
        "context": derived.inputs.context,
        "assumptions": [text(condition) for condition in derived.assumptions],
        "matrices": {sentence(label): _strings(matrix) for label, matrix in derived.shown.items()},
        "regions": [_region(region) for region in derived.regions],
        "not_asked": list(derived.left_out),
    }


def _strings(matrix: ImmutableDenseMatrix) -> list[list[str]]:
    return [[str(entry) for entry in row] for row in matrix.tolist()]


def _region(region: Region) -> dict[str, Any]:
    settled = region.status is not Status.UNDECIDED
    return {
        "hypotheses": region.name,
        "statements": {name: sentence(conclusion) for name, conclusion in region.says.items()},
        "where": where(region),
        "verdict": region.status.value,
        "grade": str(region.verdict.grade) if settled else None,
        "reason": region.reason,
        "conditions": None if region.conditions is None else [text(c) for c in region.conditions],
        "branches": [
            {"equations": [text(c) for c in case.equations], "conditions": [text(c) for c in case.conditions]}
            for case in region.branches
        ],
        "implied": [text(condition) for condition in region.implied],
        "otherwise": None if region.otherwise is None else [text(c) for c in region.otherwise],
        "point": None if region.point is None else {str(s): str(v) for s, v in region.point.items()},
    }


# Markdown and LaTeX: the same lines, in English with LaTeX between dollars


def _markdown(derived: Derived, _: Console) -> str:
    lines = ["# Conditions", "", *(f"- {line}" for line in _header(derived))]
    for region in derived.regions:
        lines += ["", f"## {region.row.name}", "", *(f"- {line}" for line in _lines(region, "**{}**"))]
    return "\n".join([*(_github(line) for line in lines), "", *(f"{note}\n" for note in notes(derived))])


def _latex(derived: Derived, _: Console) -> str:
    def items(lines: list[str]) -> list[str]:
        return [r"\begin{itemize}", *(rf"\item {_escaped(line)}" for line in lines), r"\end{itemize}"]

    lines = [r"\section*{Conditions}", *items(_header(derived))]
    for region in derived.regions:
        lines += [rf"\subsection*{{{region.row.name}}}", *items(_lines(region, "{}:"))]
    closing = [_escaped(note) + "\n" for note in notes(derived)]
    return "\n".join([PREAMBLE, *lines, "", *closing, r"\end{document}", ""])


def _github(line: str) -> str:
    """Formulas without a double backslash and <, which Markdown would read before the mathematics does."""
    parts = line.split("$")
    return "$".join(
        p.replace(r"\\", r"\cr ").replace("<", r"\lt") if k % 2 else p for k, p in enumerate(parts)
    )


def _escaped(line: str) -> str:
    parts = line.split("$")
    return "".join(f"${part}$" if k % 2 else unicode_to_latex(part) for k, part in enumerate(parts))


def _header(derived: Derived) -> list[str]:
    given = {f"given {name}": matrix for name, matrix in derived.inputs.matrices.items()}
    lines = [f"{label}: ${_formula(matrix)}$" for label, matrix in (given | dict(derived.shown)).items()]
    if derived.inputs.context is not None:
        lines.append(f"context: {derived.inputs.context}")
    return [*lines, f"assuming {_formulas(derived.assumptions)}"] if derived.assumptions else lines


def _lines(region: Region, name_style: str) -> list[str]:
    lines = [f"{name_style.format(name)} {conclusion}" for name, conclusion in region.says.items()]
    word, conditions = where(region), _formulas(region.conditions or ())
    holds = {
        "everywhere": "holds everywhere",
        "somewhere": f"holds where {conditions}",
        "nowhere": f"holds nowhere ({region.verdict.grade}): {region.reason}",
        "undecided": f"UNDECIDED: {region.reason}" + (f"; so far {conditions}" if conditions else ""),
    }
    lines.append(holds[word])
    if len(region.branches) > 1:
        for number, case in enumerate(region.branches, start=1):
            lines.append(f"case {number}: {_formulas((*case.equations, *case.conditions))}")
    if region.otherwise is not None:
        lines.append(f"$V$ is Hurwitz where {_formulas(region.otherwise)}")
    if region.implied and word != "nowhere":
        lines.append(f"implies {_formulas(region.implied)}")
    if region.point is not None:
        values = ", ".join(f"${latex(symbol)} = {latex(value)}$" for symbol, value in region.point.items())
        lines.append(f"example: {values} ({region.verdict.grade})")
    return lines


def _formulas(conditions: Iterable[Boolean]) -> str:
    return ", ".join(f"${_formula(condition)}$" for condition in conditions)


def _formula(thing: Any) -> str:
    if isinstance(thing, And | Or):
        word = r" \text{ and } " if isinstance(thing, And) else r" \text{ or } "
        return word.join(f"({_formula(p)})" if isinstance(p, And | Or) else _formula(p) for p in thing.args)
    return latex(thing, mat_str="pmatrix", mat_delim="")


PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[utf8]{inputenc}
\usepackage[T1]{fontenc}
\usepackage{amsmath,amssymb,textcomp}
\usepackage[margin=2.5cm]{geometry}
\emergencystretch=3em
\begin{document}"""

FORMATS = {"text": _text, "markdown": _markdown, "latex": _latex, "json": _json}
