"""A user's text as exact SymPy expressions, matrices and relations: read by a whitelist, never evaluated.

Python's `ast` reads the text; only numbers, names, `+ - * / **`, a few functions, lists and comparisons pass.
Sizes are bounded, so that no input can make the reading slow. Every name is a real symbol.
"""

import ast
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Rational as RationalNumber
from typing import Any

import numpy as np
from sympy import (
    Abs,
    Add,
    Basic,
    Eq,
    Expr,
    Ge,
    Gt,
    I,
    ImmutableDenseMatrix,
    Le,
    Lt,
    MatrixBase,
    Mul,
    Ne,
    Number,
    Pow,
    Rational,
    Symbol,
    cos,
    exp,
    nan,
    oo,
    pi,
    preorder_traversal,
    sin,
    sqrt,
    tan,
    zoo,
)
from sympy.core.numbers import Exp1
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from theory.errors import InputError

LONGEST = 5000  # characters of one text
DEEPEST = 200  # nested operations
LARGEST_EXPONENT = 16  # of a power, and denominator of a root
LONGEST_NUMBER = 1024  # bits of a numerator or denominator
LARGEST_SIZE = 16  # rows or columns

FUNCTIONS: dict[str, Callable[[Expr], Expr]] = {"cos": cos, "sin": sin, "tan": tan, "sqrt": sqrt, "exp": exp}
RELATIONS = {ast.Lt: Lt, ast.LtE: Le, ast.Gt: Gt, ast.GtE: Ge, ast.Eq: Eq, ast.NotEq: Ne}
_SYNTAX = "a matrix such as [[a, -1/2], [cos(theta), b**2]]"


@dataclass(frozen=True)
class _Reader:
    """Turns a syntax tree into SymPy; `symbols` are the names allowed (None: any)."""

    argument: str
    text: str
    symbols: Collection[str] | None

    def error(self, got: str, expected: str, fix: str) -> InputError:
        return InputError(self.argument, got=got, expected=expected, fix=fix)

    def tree(self) -> ast.expr:
        if len(self.text) > LONGEST:
            raise self.error(
                f"{len(self.text)} characters", f"at most {LONGEST}", "give fewer or shorter entries"
            )
        try:
            tree = ast.parse(self.text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = getattr(error, "msg", None) or "too deeply nested"
            raise self.error(
                f"{_short(self.text)}: {reason}",
                "an expression in Python's syntax, such as a*b**2 - 1/2",
                "write products as a*b, powers as a**2, and no Python keyword such as lambda as a name",
            ) from error
        if _depth(tree) > DEEPEST:
            raise self.error("nested operations", f"at most {DEEPEST} levels", "simplify the expression")
        return tree

    def matrix(self) -> list[list[Expr]]:
        tree = self.tree()
        if not isinstance(tree, ast.List) or not all(isinstance(row, ast.List) for row in tree.elts):
            raise self.error(
                _short(self.text),
                f"a list of rows, {_SYNTAX}",
                "write a 1×1 matrix as [[a]], rows in brackets",
            )
        return [[self.expression(entry) for entry in row.elts] for row in tree.elts]

    def relations(self) -> list[Relational]:
        tree = self.tree()
        parts = tree.elts if isinstance(tree, ast.Tuple) else [tree]
        return [relation for part in parts for relation in self.comparison(part)]

    def comparison(self, node: ast.expr) -> list[Relational]:
        if not isinstance(node, ast.Compare) or not all(type(op) in RELATIONS for op in node.ops):
            raise self.error(
                _short(self.text),
                "comparisons such as 'a > 0', '0 < theta < pi/2' or 'c**2 + s**2 = 1'",
                "compare with <, <=, >, >=, = or !=, and separate several by commas",
            )
        sides = [self.expression(side) for side in (node.left, *node.comparators)]
        found = [
            RELATIONS[type(op)](left, right)
            for op, left, right in zip(node.ops, sides[:-1], sides[1:], strict=True)
        ]
        for relation in found:
            if relation == False:  # noqa: E712  (SymPy's false)
                raise self.error(_short(self.text), "a condition that can hold", "correct or drop it")
        return [relation for relation in found if not isinstance(relation, BooleanAtom)]

    def expression(self, node: ast.expr) -> Expr:
        """The value of one entry. Raises InputError for whatever is not on the whitelist."""
        if isinstance(node, ast.Constant):
            return self.number(node)
        if isinstance(node, ast.Name):
            return self.name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.UAdd | ast.USub):
            value = self.expression(node.operand)
            return value if isinstance(node.op, ast.UAdd) else -value
        if isinstance(node, ast.BinOp):
            return self.operation(node)
        if isinstance(node, ast.Call):
            return self.call(node)
        raise self.error(
            f"{_short(ast.unparse(node))} ({type(node).__name__})",
            f"numbers, names, + - * / **, and {', '.join(FUNCTIONS)}",
            "write the entry with these",
        )

    def number(self, node: ast.Constant) -> Expr:
        """An integer or a decimal, exactly as it is written."""
        written = ast.get_source_segment(self.text.strip(), node) or ""
        if not re.fullmatch(r"[0-9][0-9_]*(\.[0-9_]*)?([eE][+-]?[0-9]{1,2})?|\.[0-9]+", written):
            raise self.error(
                _short(written),
                "a real number such as 3, 0.25 or 1/3",
                "entries are real numbers and symbols",
            )
        fraction = Fraction(written.replace("_", ""))
        return self.bounded(Rational(fraction.numerator, fraction.denominator))

    def name(self, name: str) -> Expr:
        if name == "pi":
            return pi
        if name in FUNCTIONS:
            raise self.error(f"{name} without an argument", "a function call", f"write {name}(…)")
        if name == "I" or "__" in name or name.startswith("_"):
            raise self.error(
                repr(name), "names of real symbols, letters first", "the entries are real; rename the symbol"
            )
        if self.symbols is not None and name not in self.symbols:
            raise self.error(
                f"the unknown symbol {name!r}",
                f"one of the declared symbols {', '.join(sorted(self.symbols))}",
                "declare it or correct its name",
            )
        return Symbol(name, real=True)

    def call(self, node: ast.Call) -> Expr:
        name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
        if name not in FUNCTIONS or len(node.args) != 1 or node.keywords:
            raise self.error(
                _short(ast.unparse(node)), f"a call of {', '.join(FUNCTIONS)}, one argument each", "use these"
            )
        argument = self.expression(node.args[0])
        if name == "exp" and argument.has(exp, Exp1):
            raise self.error(
                _short(ast.unparse(node)), "no exponential of an exponential", "simplify the entry"
            )
        return self.real(FUNCTIONS[name](argument), node)

    def operation(self, node: ast.BinOp) -> Expr:
        left, right = self.expression(node.left), self.expression(node.right)
        if isinstance(node.op, ast.Add):
            return self.bounded(left + right)
        if isinstance(node.op, ast.Sub):
            return self.bounded(left - right)
        if isinstance(node.op, ast.Mult):
            return self.bounded(left * right)
        if isinstance(node.op, ast.Div):
            return self.real(left / self.nonzero(right, node), node)
        if isinstance(node.op, ast.Pow):
            return self.power(left, right, node)
        raise self.error(_short(ast.unparse(node)), "the operations + - * / **", "rewrite it with these")

    def power(self, base: Expr, exponent: Expr, node: ast.expr) -> Expr:
        small = exponent.is_Rational and max(abs(exponent.p), exponent.q) <= LARGEST_EXPONENT
        if not small:
            raise self.error(
                f"the exponent {_short(str(exponent))}",
                f"a whole number or fraction of whole numbers up to {LARGEST_EXPONENT}",
                "write out small powers; use exp(…) for exponentials",
            )
        if exponent < 0:
            self.nonzero(base, node)
        if max(map(_bits, base.atoms(Rational)), default=0) * abs(exponent.p) > LONGEST_NUMBER:
            raise self.error(_short(ast.unparse(node)), "numbers of moderate size", "use smaller numbers")
        return self.real(Pow(base, exponent), node)

    def nonzero(self, value: Expr, node: ast.expr) -> Expr:
        if value.is_zero:
            raise self.error(
                f"{_short(ast.unparse(node))}: division by zero", "a nonzero divisor", "correct it"
            )
        return value

    def bounded(self, value: Expr) -> Expr:
        if value.is_Rational and _bits(value) > LONGEST_NUMBER:
            raise self.error(
                f"a number of {_bits(value)} bits", f"at most {LONGEST_NUMBER}", "use smaller numbers"
            )
        return value

    def real(self, value: Expr, node: ast.expr) -> Expr:
        if value.has(zoo, nan, oo, -oo):
            raise self.error(
                f"{_short(ast.unparse(node))}, which is not defined", "a real number", "correct it"
            )
        if value.has(I) or value.is_real is False:
            raise self.error(f"{_short(ast.unparse(node))}, which is not real", "a real number", "correct it")
        if any(p.exp.is_Rational and p.exp.q > LARGEST_EXPONENT for p in value.atoms(Pow)):
            raise self.error(
                f"{_short(ast.unparse(node))}, a nested root",
                f"roots of a degree up to {LARGEST_EXPONENT}",
                "simplify the entry",
            )
        return self.bounded(value)


def _depth(tree: ast.AST) -> int:
    deepest, left = 0, [(tree, 1)]
    while left:
        node, depth = left.pop()
        deepest = max(deepest, depth)
        left += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return deepest


def _bits(number: Rational) -> int:
    return max(int(number.p).bit_length(), int(number.q).bit_length())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}…")


def parse_expression(argument: str, text: str, symbols: Collection[str] | None = None) -> Expr:
    """One real expression. Raises InputError, naming `argument`, for what is not on the whitelist."""
    reader = _Reader(argument, text, symbols)
    return reader.expression(reader.tree())


def parse_relations(
    argument: str, relations: Any, symbols: Collection[str] | None = None
) -> tuple[Relational, ...]:
    """Comparisons such as "0 < theta < pi/2, c**2 + s**2 = 1": text, a SymPy relation, or several of them.

    What always holds is dropped; raises InputError for what never does, and for anything else.
    """
    if isinstance(relations, str):
        spelled = re.sub(r"(?<![<>=!])=(?!=)", "==", relations)
        return tuple(_Reader(argument, spelled, symbols).relations()) if spelled.strip() else ()
    if isinstance(relations, Relational):
        sides = (_adopted(argument, side, symbols) for side in relations.args)
        return tuple(r for r in [relations.func(*sides)] if not isinstance(r, BooleanAtom))
    if isinstance(relations, Sequence | set | frozenset):
        return tuple(found for r in relations for found in parse_relations(argument, r, symbols))
    raise InputError(
        argument,
        got=_short(str(relations)),
        expected="comparisons, as strings or SymPy relations",
        fix="write for instance 'a > 0'",
    )


def parse_matrix(argument: str, matrix: Any, symbols: Collection[str] | None = None) -> ImmutableDenseMatrix:
    """A real matrix from text, or from nested lists, an array or a SymPy matrix with entries of any kind.

    In text decimals are exact (0.1 is 1/10); a Python float is the dyadic rational it stores. Raises
    InputError for ragged or empty rows, and for entries that are not real expressions.
    """
    if isinstance(matrix, str):
        rows = _Reader(argument, matrix, symbols).matrix()
    else:
        if isinstance(matrix, MatrixBase | np.ndarray):
            matrix = matrix.tolist()
        if not isinstance(matrix, list | tuple) or not all(isinstance(row, list | tuple) for row in matrix):
            raise InputError(
                argument,
                got=_short(str(matrix)),
                expected=f"rows of entries, {_SYNTAX}",
                fix="pass a list of rows",
            )
        rows = [[_entry(argument, entry, symbols) for entry in row] for row in matrix]
    widths = {len(row) for row in rows}
    if len(widths) != 1 or 0 in widths:
        got = "rows of different lengths" if len(widths) > 1 else "an empty matrix"
        raise InputError(argument, got=got, expected=_SYNTAX, fix="give every row the same length")
    if max(len(rows), *widths) > LARGEST_SIZE:
        raise InputError(
            argument,
            got=f"shape ({len(rows)}, {max(widths)})",
            expected=f"at most {LARGEST_SIZE} rows and columns",
            fix="derive conditions for a smaller d; decide numeric weights with `tokendyn check`",
        )
    return ImmutableDenseMatrix(rows)


def _entry(argument: str, entry: Any, symbols: Collection[str] | None) -> Expr:
    if isinstance(entry, str):
        return parse_expression(argument, entry, symbols)
    if isinstance(entry, Basic):
        return _adopted(argument, entry, symbols)
    if isinstance(entry, np.generic):
        entry = entry.item()
    if isinstance(entry, bool) or not isinstance(entry, RationalNumber | float) or entry - entry != 0:
        raise InputError(
            argument,
            got=f"the entry {_short(str(entry))} ({type(entry).__name__})",
            expected="finite real numbers, text or SymPy expressions",
            fix="pass these",
        )
    fraction = Fraction(entry)
    return Rational(fraction.numerator, fraction.denominator)


def _adopted(argument: str, expression: Basic, symbols: Collection[str] | None) -> Expr:
    """A caller's SymPy expression over real symbols of the same names, if it is on the whitelist."""
    allowed = (Add, Mul, Pow, Symbol, Rational, cos, sin, tan, exp, Abs, Exp1, type(pi))
    for part in preorder_traversal(expression):
        odd_power = isinstance(part, Pow) and not part.exp.is_Rational and part.base != Exp1()
        if not isinstance(part, allowed) or odd_power:
            hint = "Rational(1, 10) for 0.1" if isinstance(part, Number) else "whitelisted functions only"
            raise InputError(
                argument,
                got=f"{_short(str(part))} ({type(part).__name__})",
                expected=f"a real expression with + - * / **, {', '.join(FUNCTIONS)}",
                fix=hint,
            )
    if symbols is not None and (unknown := {s.name for s in expression.free_symbols} - set(symbols)):
        raise InputError(
            argument,
            got=f"unknown symbols {', '.join(sorted(unknown))}",
            expected=f"one of the declared symbols {', '.join(sorted(symbols))}",
            fix="declare them",
        )
    if expression.is_real is False or expression.has(zoo, nan, oo, -oo):
        raise InputError(
            argument, got=_short(str(expression)), expected="a real expression", fix="correct the entry"
        )
    return expression.xreplace({s: Symbol(s.name, real=True) for s in expression.free_symbols})


def signs_of_symbols(values: Iterable[Any]) -> tuple[Relational, ...]:
    """What the symbols of SymPy matrices assume of themselves, such as positive=True, as relations."""
    symbols = {s for value in values for s in _symbols(value)}
    kinds = {
        "is_positive": Gt,
        "is_negative": Lt,
        "is_nonnegative": Ge,
        "is_nonpositive": Le,
        "is_nonzero": Ne,
    }
    found = []
    for symbol in sorted(symbols, key=lambda s: s.name):
        kind = next((kind for name, kind in kinds.items() if getattr(symbol, name)), None)
        if kind is not None:
            found.append(kind(Symbol(symbol.name, real=True), 0))
    return tuple(found)


def _symbols(value: Any) -> set[Symbol]:
    if isinstance(value, Basic | MatrixBase):
        return value.free_symbols
    return {s for part in value for s in _symbols(part)} if isinstance(value, list | tuple) else set()
