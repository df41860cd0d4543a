"""How matrices with given properties are made from free numbers, by rational formulas.

A recipe is a formula of the claims' own language over raw parts, so the same free numbers give floats for the
search and rationals for the proof; simplifying the free numbers keeps the properties. What a formula only
makes likely is checked afterwards, by the recipe's conditions.
"""

import re
from dataclasses import dataclass

from theory.errors import InputError

KINDS = ("matrix", "lower", "diagonal", "vector", "number", "signs", "blocks", "tall", "squares")
"""Shapes of raw parts: (d, d), its lower triangle, a diagonal, (d,), a number, a diagonal of ±1, blocks
[[a, −b], [b, a]] on the diagonal, (d, rank), and entries squared."""

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
    """`parts` are raw names with kinds (and a rank); `formula` makes the matrix; `conditions` are checked."""

    name: str
    parts: tuple[tuple[str, str, int], ...]
    formula: str
    conditions: tuple[str, ...]
    needs: tuple[str, ...] = ()


def recipe(name: str, text: str) -> Recipe:
    """The recipe for a matrix with properties such as "symmetric, positive definite" (of its symmetric part).

    Raises InputError for words that are not known or cannot be combined.
    """
    words = [word.strip() for word in text.lower().split(",") if word.strip()]
    rank, commutes, positive, plain = None, None, None, []
    for word in words:
        if found := re.fullmatch(r"rank (\d+)", word):
            rank = int(found[1])
        elif found := re.fullmatch(r"commutes with (\w+)", word):
            commutes = text[text.lower().index(word) :].split(",")[0].split()[-1]
        elif found := re.fullmatch(r"(\d+) positive eigenvalues?", word):
            positive = int(found[1])
        elif word in WORDS:
            plain.append(word)
        else:
            raise InputError(
                f"matrices.{name}",
                got=repr(word),
                expected=", ".join((*WORDS, "rank R", "commutes with M", "P positive eigenvalues")),
                fix="write properties with commas between them; anything else goes into `define` or `where`",
            )
    known = set(plain)
    parts, formula = _formula(name, known, rank, commutes, positive)
    conditions = [CONDITIONS[word].format(name) for word in plain if word in CONDITIONS]
    if "indefinite" in known:
        conditions += [f"eigmin({name}) < 0", f"eigmax({name}) > 0"]
    return Recipe(name, tuple(parts), formula, tuple(conditions), (commutes,) if commutes else ())


def _formula(name: str, known: set[str], rank: int | None, commutes: str | None, positive: int | None):
    """Raw parts and the formula."""

    def raw(kind: str, mark: str = "") -> str:
        part = f"_{name}{mark}"
        parts.append((part, kind, rank or 0))
        return part

    parts: list[tuple[str, str, int]] = []
    sign = next((SIGNS[word] for word in sorted(known) if word in SIGNS), 0)
    if "hurwitz" in known and "symmetric" in known:
        sign = -1
    symmetric = "symmetric" in known
    minus = "-" if sign < 0 else ""
    if "identity" in known:
        return parts, f"{minus}eye(d)"
    if "scalar" in known:
        a = raw("number")
        return parts, f"{minus}{a}*{a}*eye(d)" if sign else f"{a}*eye(d)"
    if commutes:
        a, b, c = (raw("number", str(k)) for k in range(3))
        return parts, f"{a}*eye(d) + {b}*{commutes} + {c}*({commutes} @ {commutes})"
    if rank is not None:
        a = raw("tall", "0")
        if sign and symmetric:
            return parts, f"{minus}{a} @ {a}.T"
        if symmetric:
            b = raw("tall", "1")
            return parts, f"{a} @ {b}.T + {b} @ {a}.T" if rank > 1 else f"{raw('number', '2')}*({a} @ {a}.T)"
        b = raw("tall", "1")
        return parts, f"{a} @ {b}.T"
    if "antisymmetric" in known:
        return parts, f"skew({raw('matrix')})"
    if "nonnegative" in known:
        a = raw("squares")
        return parts, f"sym({a})" if symmetric else a
    if "diagonal" in known:
        a = raw("diagonal")
        return parts, f"{minus}{a} @ {a}" if sign or ("hurwitz" in known and (minus := "-")) else a
    if "rotation" in known:
        return parts, CAYLEY.format(raw("matrix"))
    if "orthogonal" in known:
        if symmetric:
            v = raw("vector")
            return parts, f"eye(d) - 2*outer({v}, {v})/({v} @ {v})"
        return parts, f"{raw('signs', '0')} @ " + CAYLEY.format(raw("matrix", "1"))
    if positive is not None:
        a = raw("matrix", "0")
        core = f"{a} @ {raw(f'inertia {positive}', '1')} @ {a}.T"
        return parts, core if symmetric else f"{core} + skew({raw('matrix', '2')})"
    if "normal" in known and not symmetric:
        negative = sign < 0 or "hurwitz" in known
        turn, kind = CAYLEY.format(raw("matrix", "0")), "signed blocks" if sign or negative else "blocks"
        core = raw(kind, "1")
        return parts, f"{turn} @ ({'-' if negative else ''}{core}) @ {turn}.T"
    if symmetric:
        if sign:
            a = raw("lower")
            return parts, f"{minus}{a} @ {a}.T"
        return parts, f"sym({raw('matrix')})"
    if sign:
        a = raw("lower", "0")
        return parts, f"{minus}{a} @ {a}.T + skew({raw('matrix', '1')})"
    if "hurwitz" in known:
        a, b = raw("lower", "0"), raw("lower", "1")
        return parts, f"inv({a} @ {a}.T) @ (skew({raw('matrix', '2')}) - {b} @ {b}.T)"
    return parts, raw("matrix")
