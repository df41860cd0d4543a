"""How matrices with given properties are made from free numbers, by rational formulas.

A recipe is a formula of the claims' own language over raw parts, so the same free numbers give floats for the
search and rationals for the proof; simplifying the free numbers keeps the properties. What a formula only
makes likely is checked afterwards, by the recipe's conditions.
"""

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any
from unicodedata import normalize

from theory.errors import InputError

WORDS = (
    "symmetric",
    "antisymmetric",
    "diagonal",
    "orthogonal",
    "rotation",
    "normal",
    "identity",
    "scalar",
    "positive definite",
    "negative definite",
    "positive semidefinite",
    "negative semidefinite",
    "indefinite",
    "hurwitz",
    "unstable",
    "invertible",
    "nonnegative",
    "any",
)
SHAPES = ("rank R", "commutes with M", "P positive eigenvalues")
SYMMETRIC = {"symmetric", "normal"}
DIAGONAL = {"diagonal", *SYMMETRIC}
"""What a formula is that is certain to give a symmetric, or a diagonal matrix."""
CAYLEY = "((eye(d) - skew({0})) @ inv(eye(d) + skew({0})))"
SIGNS = {
    "positive definite": 1,
    "positive semidefinite": 1,
    "negative definite": -1,
    "negative semidefinite": -1,
}
CONDITIONS = {
    "positive definite": "eigmin({0}) > 0",
    "negative definite": "eigmax({0}) < 0",
    "positive semidefinite": "eigmin({0}) >= 0",
    "negative semidefinite": "eigmax({0}) <= 0",
    "hurwitz": "abscissa({0}) < 0",
    "unstable": "abscissa({0}) > 0",
    "invertible": "abs(det({0})) > 0",
}


@dataclass(frozen=True)
class Recipe:
    """`parts` are raw names with kinds (and a rank); `formula` makes the matrix; `conditions` are checked.

    Kinds: matrix (d, d); lower, its lower triangle; squares, a matrix with entries squared; tall (d, rank);
    diagonal; signs, a diagonal of ±1; "inertia P", a diagonal of P ones and else −1; blocks [[a, −b], [b, a]]
    on the diagonal, or "signed blocks" with a² for a; vector (d,); number.
    """

    name: str
    parts: tuple[tuple[str, str, int], ...]
    formula: str
    conditions: tuple[str, ...]


def recipe(name: str, text: str) -> Recipe:
    """The recipe for a matrix with properties such as "symmetric, positive definite" (of its symmetric part).

    Raises InputError for words that are not known or cannot be combined.
    """
    known, shapes = _words(name, text)
    rank, commutes, positive = (shapes.get(shape) for shape in SHAPES)
    wanted = known - {*CONDITIONS, "indefinite", "any"} | shapes.keys()
    parts, formula, ensured = _formula(name, known, rank, commutes, positive)
    if wanted - ensured:
        raise InputError(
            f"matrices.{name}",
            got=repr(text),
            expected="properties that one formula gives together",
            fix=f"drop {', '.join(sorted(wanted - ensured))}, or write a formula under `define`",
        )
    conditions = [CONDITIONS[word].format(name) for word in CONDITIONS if word in known]
    if "indefinite" in known:
        conditions += [f"eigmin({name}) < 0", f"eigmax({name}) > 0"]
    if commutes and "symmetric" in known:
        conditions.append(f"fro({name} - {name}.T) == 0")
    if positive is not None:
        conditions += [f"d >= {positive}", f"abs(det(sym({name}))) > 0"]
    return Recipe(name, tuple(parts), formula, tuple(conditions))


def _words(name: str, text: Any) -> tuple[set[str], dict[str, Any]]:
    """The plain words, and for each of SHAPES that is named its number or matrix."""
    if not isinstance(text, str):
        raise InputError(
            f"matrices.{name}", got=repr(text), expected="properties, as text", fix='e.g. "positive definite"'
        )
    known: set[str] = set()
    shapes: dict[str, Any] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        shape, given = _shape(word)
        if not shape and word.lower() not in WORDS:
            close = get_close_matches(word.lower(), WORDS, 1)
            fix = "commas stand between properties; formulas go into `define`, conditions into `where`"
            raise InputError(
                f"matrices.{name}",
                got=repr(word),
                expected=", ".join((*WORDS, *SHAPES)),
                fix=f"did you mean {close[0]!r}?" if close else fix,
            )
        if shapes.get(shape, given) != given or (shape == "rank R" and not 1 <= given <= 8):
            raise InputError(
                f"matrices.{name}",
                got=repr(text),
                expected=f"one {shape}, with R within 1 … 8",
                fix="drop one",
            )
        known |= set() if shape else {word.lower()}
        shapes |= {shape: given} if shape else {}
    return known, shapes


def _shape(word: str) -> tuple[str, Any]:
    """Which of SHAPES a word is, and its number or matrix; ("", None) for others."""
    patterns = (r"rank (\d{1,3})", r"commutes with (\w+)", r"(\d{1,3}) positive eigenvalues?")
    for shape, pattern in zip(SHAPES, patterns, strict=True):
        if found := re.fullmatch(pattern, word, re.IGNORECASE):
            return shape, normalize("NFKC", found[1]) if "commutes" in shape else int(found[1])
    return "", None


def _formula(name: str, known: set[str], rank: int | None, commutes: str | None, positive: int | None):
    """Raw parts, the formula, and which properties it is certain to have."""

    def raw(kind: str, mark: str = "") -> str:
        part = f"_{mark}_{name}" if mark else f"_{name}"  # a name cannot start with a digit
        parts.append((part, kind, rank or 0))
        return part

    parts: list[tuple[str, str, int]] = []
    sign = next((SIGNS[word] for word in sorted(known) if word in SIGNS), 0)
    if "hurwitz" in known and "symmetric" in known:
        sign = -1
    symmetric = "symmetric" in known
    minus = "-" if sign < 0 else ""
    if "identity" in known:
        return parts, "eye(d)", {"identity", "scalar", "nonnegative", "rotation", "orthogonal", *DIAGONAL}
    if "scalar" in known:
        a = raw("number")
        return parts, f"{minus}{a}*{a}*eye(d)" if sign else f"{a}*eye(d)", {"scalar", *DIAGONAL}
    if commutes:
        a, b, c = (raw("number", str(k)) for k in range(3))
        return (
            parts,
            f"{a}*eye(d) + {b}*{commutes} + {c}*({commutes} @ {commutes})",
            {"commutes with M", "symmetric"},
        )
    if rank is not None and symmetric and not sign:
        factors = [(raw("number", f"{k}a"), raw("vector", f"{k}b")) for k in range(rank)]
        terms = [f"{a}*outer({v}, {v})" for a, v in factors]
        return parts, " + ".join(terms), {"rank R", "symmetric", "normal"}
    if rank is not None:
        a = raw("tall", "0")
        if sign and symmetric:
            return parts, f"{minus}{a} @ {a}.T", {"rank R", "symmetric", "normal"}
        return parts, f"{a} @ {raw('tall', '1')}.T", {"rank R"}
    if "antisymmetric" in known:
        return parts, f"skew({raw('matrix')})", {"antisymmetric", "normal"}
    if "nonnegative" in known:
        a = raw("squares")
        return parts, f"sym({a})" if symmetric else a, {"nonnegative", *(SYMMETRIC if symmetric else ())}
    if "diagonal" in known:
        a = raw("diagonal")
        return parts, f"{minus}{a} @ {a}" if sign or ("hurwitz" in known and (minus := "-")) else a, DIAGONAL
    if "rotation" in known:
        return parts, CAYLEY.format(raw("matrix")), {"rotation", "orthogonal", "normal"}
    if "orthogonal" in known:
        if symmetric:
            v = raw("vector")
            return parts, f"eye(d) - 2*outer({v}, {v})/({v} @ {v})", {"orthogonal", *SYMMETRIC}
        return parts, f"{raw('signs', '0')} @ " + CAYLEY.format(raw("matrix", "1")), {"orthogonal", "normal"}
    if positive is not None:
        a = raw("matrix", "0")
        core = f"{a} @ {raw(f'inertia {positive}', '1')} @ {a}.T"
        if symmetric:
            return parts, core, {"P positive eigenvalues", *SYMMETRIC}
        return parts, f"{core} + skew({raw('matrix', '2')})", {"P positive eigenvalues"}
    if "normal" in known and not symmetric:
        negative = sign < 0 or "hurwitz" in known
        turn, kind = CAYLEY.format(raw("matrix", "0")), "signed blocks" if sign or negative else "blocks"
        core = raw(kind, "1")
        return parts, f"{turn} @ ({'-' if negative else ''}{core}) @ {turn}.T", {"normal"}
    if symmetric:
        if sign:
            a = raw("lower")
            return parts, f"{minus}{a} @ {a}.T", SYMMETRIC
        return parts, f"sym({raw('matrix')})", SYMMETRIC
    if sign:
        a = raw("lower", "0")
        return parts, f"{minus}{a} @ {a}.T + skew({raw('matrix', '1')})", set()
    if "hurwitz" in known:
        a, b = raw("lower", "0"), raw("lower", "1")
        return parts, f"inv({a} @ {a}.T) @ (skew({raw('matrix', '2')}) - {b} @ {b}.T)", set()
    return parts, raw("matrix"), set()
