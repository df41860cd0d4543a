"""A region: where hypotheses hold, as conditions on symbols, with a point or a proof that it is empty."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sympy import And, Eq, Expr, Ne, Or, Symbol, true
from sympy.core.relational import Ge, Gt, Le, Lt
from sympy.logic.boolalg import Boolean, BooleanAtom

from theory.errors import InputError
from theory.expressions import parse_expression
from theory.one_line import sentence
from theory.semialgebraic.angles import ball
from theory.verdict import Grade, Status, Verdict, every, exactly, fails, holds, undecided


@dataclass(frozen=True, eq=False)
class Row:
    """One set of hypotheses and what each statement that needs it concludes (English with LaTeX in dollars).

    `hypotheses` are keys of `theory.hypotheses` with the sign of a definite matrix made definite, and besides
    "W negative", "positive eigenvalue" and "rotary margin". `encoding` says for which scores it is stated:
    "none", "rotary" or "any".
    """

    name: str
    hypotheses: tuple[str, ...]
    says: Mapping[str, str]
    encoding: str = "none"


@dataclass(frozen=True)
class Case:
    """Part of a region: equations, solved for symbols where that is possible, and what else must hold."""

    equations: tuple[Boolean, ...]
    conditions: tuple[Boolean, ...]


@dataclass(frozen=True)
class Region:
    """Where one set of hypotheses holds, under the assumptions.

    `conditions` together are equivalent to the hypotheses: () if these hold everywhere, None while they are
    not known. `branches` are cases whose union is the region, its equations solved. `implied` follows from
    the conditions. `otherwise` is the complement (T6: where V is Hurwitz). The verdict HOLDS if `point` is
    in the region, FAILS if the region is proved empty, and is UNDECIDED else, with the reason.
    """

    row: Row
    assumptions: tuple[Boolean, ...]
    conditions: tuple[Boolean, ...] | None = None
    branches: tuple[Case, ...] = ()
    implied: tuple[Boolean, ...] = ()
    otherwise: tuple[Boolean, ...] | None = None
    point: Mapping[Symbol, Expr] | None = None
    verdict: Verdict = field(default_factory=lambda: undecided("nothing was derived"))

    @property
    def name(self) -> str:
        """The hypotheses as plain text."""
        return sentence(self.row.name)

    @property
    def says(self) -> Mapping[str, str]:
        return self.row.says

    @property
    def statements(self) -> tuple[str, ...]:
        return tuple(self.row.says)

    @property
    def status(self) -> Status:
        return self.verdict.status

    @property
    def reason(self) -> str:
        return self.verdict.reason

    @property
    def everywhere(self) -> bool:
        """Do the hypotheses hold for all values that the assumptions allow?"""
        return self.conditions == () and self.status is not Status.FAILS

    def contains(self, point: Mapping[Any, Any]) -> Verdict:
        """Does the point (symbol or name: a number, or text such as "3/5" or "pi/3") lie in the region?

        Decided exactly where the conditions become rational there, else by balls; UNDECIDED where these
        cannot tell (on a boundary), or where the conditions are not known. Raises InputError for a symbol
        without a value.
        """
        if self.status is Status.FAILS:
            return fails(self.verdict.grade, "the region is empty")
        if self.conditions is None:
            return undecided("the conditions are not known")
        parts = (*self.assumptions, *self.conditions)
        values = _values(point, {symbol for part in parts for symbol in part.free_symbols})
        return every(decide(part, values) for part in parts)


def _values(point: Mapping[Any, Any], needed: set[Symbol]) -> dict[Symbol, Expr]:
    given = {
        getattr(name, "name", name): value
        if isinstance(value, Expr)
        else parse_expression("point", str(value))
        for name, value in point.items()
    }
    if missing := sorted(s.name for s in needed if s.name not in given):
        raise InputError(
            "point",
            got=f"no value for {', '.join(missing)}",
            expected=f"a value for each of {', '.join(sorted(s.name for s in needed))}",
            fix="pass a dictionary with all of them",
        )
    return {symbol: given[symbol.name] for symbol in needed}


def text(condition: Boolean) -> str:
    """The condition in the syntax of the input, with `and` and `or`."""
    if isinstance(condition, And | Or):
        word, inner = (" and ", Or) if isinstance(condition, And) else (" or ", And)
        ordered = sorted(condition.args, key=lambda part: (part.count_ops(), str(part)))
        return word.join(f"({text(part)})" if isinstance(part, inner) else text(part) for part in ordered)
    if isinstance(condition, Eq | Ne):
        return f"{condition.lhs} {'=' if isinstance(condition, Eq) else '!='} {condition.rhs}"
    return str(condition)


def decide(condition: Boolean, point: Mapping[Symbol, Expr]) -> Verdict:
    """A condition at constant values of its symbols: three-valued, exact or by balls."""
    if isinstance(condition, BooleanAtom):
        return exactly(condition == true)
    if isinstance(condition, And):
        return every(decide(part, point) for part in condition.args)
    if isinstance(condition, Or):
        verdicts = [decide(part, point) for part in condition.args]
        best = [v for v in verdicts if v.holds] or [v for v in verdicts if v.status is Status.UNDECIDED]
        return best[0] if best else every(verdicts)
    gap = (condition.lhs - condition.rhs).xreplace(dict(point)).doit().expand(trig=True)
    if gap.is_Rational:
        return exactly(condition.func(gap, 0) == true, str(condition))
    try:
        enclosed = ball(gap)
    except TypeError:
        return undecided(f"{condition} cannot be enclosed")
    positive, negative = bool(enclosed > 0), bool(enclosed < 0)
    if not positive and not negative:
        return undecided(f"{condition}: the balls cannot tell")
    truth = {Gt: positive, Ge: positive, Lt: negative, Le: negative, Ne: True, Eq: False}[condition.func]
    return (holds if truth else fails)(Grade.INTERVAL, str(condition))
