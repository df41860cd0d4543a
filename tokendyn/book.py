"""All statements as one book: a self-contained HTML page and a LaTeX source."""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

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
    references,
)
from theory.errors import InputError
from theory.hypotheses import Hypothesis
from theory.links import hypothesis_anchor, reference_anchor, step_anchor
from theory.notation import TABLE
from theory.registry import statements
from theory.render import (
    PREAMBLE,
    SHORT,
    TEMPLATES,
    html_article,
    html_links,
    latex_body,
    latex_links,
    latex_prose,
    latex_words,
)
from theory.theorem import Theorem
from tokendyn.files import write_text

EVIDENCE = {
    SYMBOLIC: "Recomputed with symbols for every number n of tokens and every dimension d.",
    FIXED: "Recomputed with symbols at the sizes that the step names, and claimed for no others.",
    EXACT: "Decided in rational arithmetic for one named system.",
    INTERVAL: "Proved by ball arithmetic with outward rounding.",
    EARLIER: "The formula of another statement, as sure as its steps; its hypotheses must hold here.",
    HYPOTHESIS: "What a named hypothesis says.",
    CITED: "A published theorem. It is used, not recomputed.",
    ARGUED: "Follows in words from the steps and hypotheses that it names. It is for you to check.",
}
CHAPTERS = {
    "lemma": ("Lemmas", ""),
    "theorem": ("Theorems", ""),
    "counterexample": ("Counterexamples", "What is not true, each with a system that shows it."),
    "conjecture": (
        "Which conjectures stand",
        "No conjecture is proved; what is derived of one is only what its steps say. It stands while no "
        "counterexample is known, and a search that finds none proves nothing.",
    ),
}


class Chapter(NamedTuple):
    """Statements of one kind, in the registry's order."""

    kind: str
    title: str
    intro: str
    statements: Sequence[Theorem]


class Entry(NamedTuple):
    """A hypothesis or a reference, with the ids of the statements that use it."""

    name: str
    anchor: str
    meaning: Any
    users: Sequence[str]


def write_book(folder: str, report: dict | None = None) -> list[Path]:
    """Write book.html and book.tex into the folder, which is made if need be; each whole or not at all.

    With a report of `verify`, what it found stands beside each statement. Raises InputError if the folder
    cannot be written, or if the report is not one.
    """
    target = Path(folder)
    content = contents(report)
    books = {target / "book.html": html_book(content), target / "book.tex": latex_book(content)}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, text in books.items():
            write_text(path, text)
    except OSError as error:
        raise InputError(
            "OUT",
            got=f"{folder}: {error.strerror}",
            expected="a folder that can be made and written",
            fix="name a folder of your own, not a file",
        ) from error
    return list(books)


def contents(report: dict | None = None) -> dict:
    """What both forms of the book show, as plain data."""
    theorems = statements()
    steps = {theorem.id: [step.evidence for step in theorem.steps] for theorem in theorems.values()}
    index = {
        kind: {
            name: [number for number, evidence in enumerate(found, start=1) if evidence.kind == kind]
            for name, found in steps.items()
            if any(evidence.kind == kind for evidence in found)
        }
        for kind in KINDS
    }
    used = {name: _users(steps, "lemma", name) for name in theorems}
    return {
        "version": version("tokendyn"),
        "chapters": _chapters(theorems),
        "notation": TABLE,
        "evidence": EVIDENCE,
        "hypotheses": _hypotheses(theorems),
        "references": [
            Entry(key, reference_anchor(key), words, _users(steps, "key", key))
            for key, words in sorted(references().items(), key=lambda entry: entry[1])
        ],
        "index": index,
        "used": used,
        "checked": None if report is None else _checked(report, theorems),
    }


def html_book(content: dict) -> str:
    """The book as one HTML page that needs nothing else."""
    anchors = _anchors(content)
    return HTML.get_template("book.html.jinja").render(
        **content, article=partial(html_article, anchors=anchors), links=html_links(anchors)
    )


def latex_book(content: dict) -> str:
    """The book as a LaTeX document for pdflatex."""
    anchors = _anchors(content)
    return LATEX.get_template("book.tex.jinja").render(
        **content, body=partial(latex_body, anchors=anchors), links=latex_links(anchors)
    )


def _chapters(theorems: Mapping[str, Theorem]) -> list[Chapter]:
    kinds = dict.fromkeys((*CHAPTERS, *(theorem.kind for theorem in theorems.values())))
    found = []
    for kind in kinds:
        title, intro = CHAPTERS.get(kind, (kind.capitalize(), ""))
        members = [theorem for theorem in theorems.values() if theorem.kind == kind]
        if members or kind == "conjecture":
            found.append(Chapter(kind, title, intro, members))
    return found


def _hypotheses(theorems: Mapping[str, Theorem]) -> list[Entry]:
    """Every hypothesis by name; `meaning` lists the distinct ones that go by it."""
    named: dict[str, dict[str, Hypothesis]] = {}
    users: dict[str, list[str]] = {}
    for theorem in theorems.values():
        for hypothesis in theorem.hypotheses:
            named.setdefault(hypothesis.key, {})[hypothesis.formula] = hypothesis
            users.setdefault(hypothesis.key, []).append(theorem.id)
    return [
        Entry(key, hypothesis_anchor(key), list(named[key].values()), users[key])
        for key in sorted(named, key=str.lower)
    ]


def _users(steps: Mapping[str, Sequence], attribute: str, name: str) -> list[str]:
    """Ids of the statements with a step whose evidence names this statement or reference."""
    return [user for user, found in steps.items() if any(getattr(e, attribute, None) == name for e in found)]


def _anchors(content: dict) -> frozenset[str]:
    theorems = [theorem for chapter in content["chapters"] for theorem in chapter.statements]
    steps = (step_anchor(t.id, number) for t in theorems for number in range(1, len(t.steps) + 1))
    entries = (entry.anchor for entry in (*content["hypotheses"], *content["references"]))
    return frozenset([*(theorem.id for theorem in theorems), *steps, *entries])


def _checked(report: dict, theorems: Mapping[str, Theorem]) -> dict:
    """What `verify` found, by id, where it was about today's statement and derivation; and its settings."""
    try:
        found = {
            result["id"]: _findings(result)
            for result in report["statements"]
            if result["id"] in theorems and _current(result, theorems[result["id"]])
        }
        return {"samples": report["settings"]["samples"], "seed": report["settings"]["seed"], "found": found}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            "--report",
            got="another JSON document",
            expected="a report of `tokendyn verify`",
            fix="pass what `tokendyn verify --json` wrote",
        ) from error


def _current(result: dict, theorem: Theorem) -> bool:
    labels = [step["label"] for step in result["derivation"]["steps"]]
    same = labels == [step.evidence.label for step in theorem.steps]
    return same and result["statement"] == theorem.statement


def _findings(result: dict) -> dict:
    """One statement's result: its verdict, and labelled numbers to show."""
    margins = [margin for margin in result["sweep"]["smallest_margins"].values() if margin is not None]
    caught = sum(planted["caught"] for planted in result["planted"])
    tried = sum(c["systems"] for c in result["trajectories"])
    settled = tried - sum(c["inconclusive"] for c in result["trajectories"])
    crossing = [c["margin"] for c in result["trajectories"] if c["margin"] is not None]
    numbers = {
        "random systems": str(result["sweep"]["systems"]),
        "smallest margin": _least(margins),
        "trajectories": f"{settled} of {tried}" if tried else "",
        "trajectory margin": _least(crossing),
        "exact probes": str(result["probe"]["examples"]),
        "variants refuted": f"{caught} of {len(result['planted'])}",
    }
    return {
        "verdict": result["verdict"],
        "numbers": {name: number for name, number in numbers.items() if number},
        "problems": result["problems"],
    }


def _least(margins: Sequence[float]) -> str:
    return f"{min(margins) + 0.0:.2g}".replace("-", "−") if margins else ""


HTML = TEMPLATES.overlay(loader=ChoiceLoader([PackageLoader("tokendyn"), PackageLoader("theory")]))

LATEX = Environment(
    loader=PackageLoader("tokendyn"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    block_start_string="<%",
    block_end_string="%>",
    variable_start_string="<<",
    variable_end_string=">>",
    comment_start_string="<#",
    comment_end_string="#>",
)
LATEX.globals |= {"PREAMBLE": PREAMBLE, "SHORT": SHORT, "step_anchor": step_anchor}
LATEX.filters |= {"words": latex_words, "prose": latex_prose}
