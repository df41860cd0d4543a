"""The free numbers of a claim: one row of raw numbers is one system with its start, in floats or exactly."""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Protocol

from theory.errors import InputError
from tokendyn.claims.claim import Claim, raw_scalar
from tokendyn.claims.language import (
    Algebra,
    Comparison,
    Evaluation,
    Expression,
    LanguageError,
    Value,
    as_input_error,
    parse,
)


@dataclass(frozen=True)
class Part:
    """One raw array: its name, kind (see `recipes`), and its place in a row."""

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def place(self) -> slice:
        return slice(self.start, self.start + self.size)


class Genome:
    """How a row of raw numbers makes a system of n tokens in dimension d."""

    def __init__(self, claim: Claim, n: int, d: int) -> None:
        self.claim, self.n, self.d = claim, n, d
        self.parts: dict[str, Part] = {}
        for recipe in claim.recipes.values():
            for name, kind, rank in recipe.parts:
                self._add(name, kind, self._shape(kind, rank))
        for name in claim.scalars:
            self._add(raw_scalar(name), "number", ())
        for name in claim.vectors:
            self._add(name, "vector", (d,))
        if claim.encoding.startswith("absolute"):
            self._add("p", "rows", (n, d))
        if claim.encoding == "bias":
            self._add("b", "rows", (n, n))
        if claim.encoding == "alibi":
            self._add("_slope", "number", ())
        if claim.encoding == "rotary":
            self._add("_turns", "vector", (d // 2,))
        self._add("x", "rows", (n, d))

    def _shape(self, kind: str, rank: int) -> tuple[int, ...]:
        d = self.d
        shapes = {
            "lower": (d * (d + 1) // 2,),
            "number": (),
            "tall": (d, min(rank, d)),
            "matrix": (d, d),
            "squares": (d, d),
        }
        return shapes.get(kind, (d,))

    def _add(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
        if name in self.parts:
            raise InputError(
                "matrices", got=name.strip("_"), expected="a name that is not taken", fix="rename"
            )
        self.parts[name] = Part(name, kind, shape, self.size)

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts.values())

    @cached_property
    def _order(self) -> list[tuple[str, Expression]]:
        """Formulas of matrices, scalars and definitions, each after those it needs."""
        claim = self.claim
        waiting = {name: parse(recipe.formula) for name, recipe in claim.recipes.items()}
        waiting |= {name: formula for name, (formula, _) in claim.ranges.items()}
        waiting |= claim.definitions
        if claim.encoding == "rotary" and "W" not in waiting:
            waiting["W"] = parse("Q.T @ K")
        done: list[tuple[str, Expression]] = []
        while waiting:
            ready = [name for name, formula in waiting.items() if not formula.names() & waiting.keys()]
            if not ready:
                raise InputError(
                    "define",
                    got=f"{', '.join(waiting)} in a circle",
                    expected="definitions that end",
                    fix="define one of them freely",
                )
            done += [(name, waiting.pop(name)) for name in ready]
        return done

    def values(self, raw: "RawRow", algebra: Algebra) -> dict[str, Value]:
        """All names of the claim but states: raw parts, matrices, scalars, definitions.

        Raises InputError, naming the entry, for a formula that cannot be evaluated.
        """
        found: dict[str, Value] = {"d": algebra.number(self.d)}
        for part in self.parts.values():
            if part.kind != "rows":
                found[part.name] = raw.part(part, self.d)
        evaluate = Evaluation(algebra, found, no_tokens, self.n)
        for name, formula in self._order:
            try:
                found[name] = evaluate(formula)
            except LanguageError as error:
                entry = "define" if name in self.claim.define else "matrices"
                raise as_input_error(f"{entry}.{name}", error) from error
        return found


class RawRow(Protocol):
    """Reads raw parts as values of an algebra; as `FloatRows` and `ExactRow` do."""

    def part(self, part: Part, d: int) -> Value: ...


def no_tokens(name: str, index: tuple[int, ...]) -> Value:
    raise LanguageError(f"{name}[…]", "weights and numbers only", "tokens belong into `where` and `conclude`")


OF_THE_START = {"x", "x0", "dx", "m", "s", "P", "X", "Cov", "t"}
"""Given names that another start or time may change; p, b and h are parameters of the system."""


def static(comparison: Comparison) -> bool:
    """Whether a condition speaks of weights only."""
    return not comparison.names() & OF_THE_START and not comparison.free
