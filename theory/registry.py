"""All statements, found by walking `lemmas` and `theorems`: adding a file adds its statements."""

import importlib
import pkgutil
import re
from functools import cache
from types import ModuleType

from theory import lemmas, theorems
from theory.derivation import Quoted
from theory.errors import InputError, did_you_mean
from theory.theorem import Theorem


@cache
def statements() -> dict[str, Theorem]:
    """Every statement by id, lemmas first, in numerical order."""
    found = [
        value
        for package in (lemmas, theorems)
        for module in _modules(package)
        for value in vars(module).values()
        if isinstance(value, Theorem)
    ]
    return {theorem.id: theorem for theorem in sorted(found, key=lambda theorem: _order(theorem.id))}


def _modules(package: ModuleType) -> list[ModuleType]:
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


FAMILIES = ("L", "T", "S", "R", "C")
"""Lemmas, theorems, the exclusion of positional and symbolic heads, refuted conjectures, conjectures."""


def _order(identifier: str) -> tuple[int, int, str]:
    family, number, part = re.fullmatch(r"([A-Z])(\d+)([a-z]?)", identifier).groups()  # type: ignore[union-attr]
    return FAMILIES.index(family), int(number), part


def statement(identifier: str) -> Theorem:
    """The statement with this id (any case). Raises InputError with the known ids."""
    known = statements()
    name = identifier[:1].upper() + identifier[1:].lower()
    if name not in known:
        fix = f"{did_you_mean(name, known)} `tokendyn theorems` lists them".strip()
        raise InputError("id", got=repr(identifier), expected=f"one of {', '.join(known)}", fix=fix)
    return known[name]


@cache
def quoted_formula(identifier: str) -> Quoted:
    """The formula of a statement and its hypotheses, after rechecking its derivation."""
    theorem = statement(identifier)
    theorem.check(quoted_formula)
    if theorem.formula is None:
        raise InputError(
            "id", got=identifier, expected="a statement with a quotable formula", fix="state one"
        )
    return Quoted(theorem.formula, theorem.hypotheses)
