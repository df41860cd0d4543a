"""The expressions of claims: a small subset of Python, parsed once and evaluated over any algebra.

An algebra computes with scalars (rank 0), vectors (rank 1) and matrices (rank 2): `floats` in batches that
can be differentiated, `exact` in rationals and, where these do not suffice, balls.
"""

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from typing import Any, NamedTuple, Protocol

from theory.errors import InputError

INDICES = ("i", "j", "k", "l")
"""Free in a statement, they stand for any different tokens."""
PER_TOKEN = {"x": 1, "x0": 1, "dx": 1, "m": 1, "p": 1}
PER_PAIR = {"s": 0, "P": 0, "b": 0}
"""Names that take one or two tokens, and the rank of what they then are."""
REDUCTIONS = ("sum", "min", "max", "mean")
FUNCTIONS: dict[str, tuple[tuple[int, ...], int]] = {
    **dict.fromkeys(
        ("exp", "log", "sqrt", "abs", "sin", "cos", "tan", "sinh", "cosh", "tanh", "lambertw"), ((0,), 0)
    ),
    "trace": ((2,), 0),
    "det": ((2,), 0),
    "eigmin": ((2,), 0),
    "eigmax": ((2,), 0),
    "abscissa": ((2,), 0),
    "radius": ((2,), 0),
    "pencil_min": ((2, 2), 0),
    "pencil_max": ((2, 2), 0),
    "inner": ((1, 1), 0),
    "quad": ((2, 1), 0),
    "sym": ((2,), 2),
    "skew": ((2,), 2),
    "inv": ((2,), 2),
    "outer": ((1, 1), 2),
    "R": ((0,), 2),
    "fro": ((2,), 0),
    "unit": ((1,), 1),
}
"""Name: the ranks of the arguments and of the value. `norm` takes a vector or a matrix (spectral norm)."""


class Value(NamedTuple):
    """A number, vector or matrix of some algebra."""

    rank: int
    data: Any


class Algebra(Protocol):
    """What an evaluation needs; `number` takes int, Fraction or the names pi and e."""

    def number(self, value: Any) -> Value: ...
    def binary(self, operator: str, left: Value, right: Value) -> Value: ...
    def call(self, name: str, arguments: list[Value]) -> Value: ...
    def transpose(self, value: Value) -> Value: ...
    def entry(self, value: Value, index: tuple[int, ...]) -> Value: ...
    def stack(self, parts: list[Value]) -> Value: ...
    def reduce(self, name: str, parts: list[Value]) -> Value: ...


class LanguageError(ValueError):
    """What is wrong with an expression, and what to write instead."""

    def __init__(self, got: str, expected: str, fix: str) -> None:
        self.got, self.expected, self.fix = got, expected, fix
        super().__init__(got)


OPERATORS: dict[type, str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.MatMult: "@",
}
RELATIONS: dict[type, str] = {ast.GtE: ">=", ast.Gt: ">", ast.LtE: "<=", ast.Lt: "<", ast.Eq: "=="}


@dataclass(frozen=True)
class Expression:
    """A parsed expression: its text, and the indices of tokens that are free in it."""

    text: str
    tree: ast.expr
    free: tuple[str, ...]

    def names(self) -> set[str]:
        """All names in it but indices, `tokens` and functions."""
        bound = _bound(self.tree)
        called = {
            node.func.id
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        found = {node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name)}
        return found - called - bound - set(self.free) - {"tokens"}


@dataclass(frozen=True)
class Comparison:
    """left relation right, for all different tokens in place of the free indices."""

    text: str
    relation: str
    left: Expression
    right: Expression

    @property
    def free(self) -> tuple[str, ...]:
        return tuple(index for index in INDICES if index in {*self.left.free, *self.right.free})

    def names(self) -> set[str]:
        return self.left.names() | self.right.names()


def parse(text: str) -> Expression:
    """An expression. Raises LanguageError where it is none of this language."""
    tree = _python(text)
    if isinstance(tree, ast.Compare):
        raise LanguageError(text, "an expression", "leave the comparison out here")
    return _expression(tree, text)


def parse_comparison(text: str) -> list[Comparison]:
    """One comparison, or the parts of a chain such as 0 < a <= 1. Raises LanguageError for anything else."""
    tree = _python(text)
    if not isinstance(tree, ast.Compare) or any(type(op) not in RELATIONS for op in tree.ops):
        raise LanguageError(text, "a comparison with <=, >=, <, > or ==", "e.g. norm(x[i]) <= 1")
    sides = [_expression(side, ast.unparse(side)) for side in (tree.left, *tree.comparators)]
    return [
        Comparison(f"{left.text} {RELATIONS[type(op)]} {right.text}", RELATIONS[type(op)], left, right)
        for op, left, right in zip(tree.ops, sides, sides[1:], strict=False)
    ]


def _python(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip().replace("^", "**"), mode="eval").body
    except SyntaxError as error:
        where = f"{text!r}, at {(error.text or '')[max(0, (error.offset or 1) - 1) :][:12]!r}"
        raise LanguageError(
            where, "an expression in Python's notation", "see docs/claims.md, 'Expressions'"
        ) from error


def _expression(tree: ast.expr, text: str) -> Expression:
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise LanguageError(
                f"{ast.unparse(node)!r} in {text!r}",
                "arithmetic, functions and x[i]",
                "see docs/claims.md, 'Expressions'",
            )
    bound = _bound(tree)
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return Expression(text.strip(), tree, tuple(index for index in INDICES if index in found - bound))


_ALLOWED = (
    ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Call, ast.Name, ast.Load, ast.Store, ast.Constant,
    ast.Subscript, ast.Tuple, ast.List, ast.Attribute, ast.GeneratorExp, ast.comprehension, ast.Compare,
    ast.cmpop, ast.operator, ast.BoolOp, ast.boolop,
)  # fmt: skip


def _bound(tree: ast.expr) -> set[str]:
    return {
        generator.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.GeneratorExp)
        for generator in node.generators
        if isinstance(generator.target, ast.Name)
    }


def assignments(free: tuple[str, ...], n: int) -> Iterator[dict[str, int]]:
    """Different tokens (from 1) for the free indices: none if there are fewer tokens than indices."""
    for chosen in permutations(range(1, n + 1), len(free)):
        yield dict(zip(free, chosen, strict=True))


class Evaluation:
    """Expressions evaluated in one algebra: `values` of names, tensors of tokens and pairs, n tokens."""

    def __init__(
        self,
        algebra: Algebra,
        values: Mapping[str, Value],
        tokens: Callable[[str, tuple[int, ...]], Value],
        n: int,
    ) -> None:
        self.algebra, self.values, self.tokens, self.n = algebra, values, tokens, n

    def __call__(self, expression: Expression, indices: Mapping[str, int] | None = None) -> Value:
        return self._value(expression.tree, dict(indices or {}))

    def _value(self, node: ast.expr, at: dict[str, int]) -> Value:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self.algebra.number(ast.unparse(node) if isinstance(value, float) else value)
            case ast.Name(id=name):
                return self._named(name, at)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.algebra.binary("*", self.algebra.number(-1), self._value(operand, at))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self._value(operand, at)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return self._binary(OPERATORS[type(op)], left, right, at, node)
            case ast.Attribute(value=inner, attr="T"):
                return self.algebra.transpose(self._value(inner, at))
            case ast.List(elts=parts):
                return self.algebra.stack([self._value(part, at) for part in parts])
            case ast.Subscript(value=inner, slice=index):
                return self._indexed(inner, index, at)
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                return self._called(name, arguments, at, node)
        raise LanguageError(
            ast.unparse(node), "arithmetic, functions and x[i]", "see docs/claims.md, 'Expressions'"
        )

    def _named(self, name: str, at: dict[str, int]) -> Value:
        if name in at:
            return self.algebra.number(at[name])
        if name == "n":
            return self.algebra.number(self.n)
        if name in ("pi", "e"):
            return self.algebra.number(name)
        if name in self.values:
            return self.values[name]
        if name in PER_TOKEN or name in PER_PAIR:
            raise LanguageError(
                name, f"{name} of tokens", f"write {name}[i]" if name in PER_TOKEN else f"write {name}[i, j]"
            )
        raise LanguageError(
            name,
            "a name of the claim: " + ", ".join(sorted(self.values)),
            "declare it under matrices, scalars or define",
        )

    def _binary(
        self, operator: str, left: ast.expr, right: ast.expr, at: dict[str, int], node: ast.expr
    ) -> Value:
        a, b = self._value(left, at), self._value(right, at)
        good = {
            "+": a.rank == b.rank,
            "-": a.rank == b.rank,
            "*": 0 in (a.rank, b.rank),
            "/": b.rank == 0,
            "**": b.rank == 0 and a.rank in (0, 2),
            "@": a.rank > 0 and b.rank > 0,
        }[operator]
        if not good:
            kinds = ("a number", "a vector", "a matrix")
            raise LanguageError(
                ast.unparse(node),
                "operands that fit",
                f"here {kinds[a.rank]} {operator} {kinds[b.rank]}; matrices and vectors are multiplied by @",
            )
        return self.algebra.binary(operator, a, b)

    def _indexed(self, inner: ast.expr, index: ast.expr, at: dict[str, int]) -> Value:
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        numbers = tuple(self._integer(part, at) for part in parts)
        if isinstance(inner, ast.Name) and inner.id in (*PER_TOKEN, *PER_PAIR) and inner.id not in at:
            wanted = 1 if inner.id in PER_TOKEN else 2
            if len(numbers) != wanted:
                raise LanguageError(
                    ast.unparse(inner),
                    f"{wanted} index",
                    "x[i] is a token, x[i][1] its first coordinate, s[i, j] a score",
                )
            if any(not 1 <= number <= self.n for number in numbers):
                raise LanguageError(
                    f"{inner.id}[{ast.unparse(index)}]",
                    f"tokens 1 … {self.n}",
                    "ask for more tokens (tokens = …)",
                )
            return self.tokens(inner.id, numbers)
        value = self._value(inner, at)
        if value.rank != len(numbers):
            raise LanguageError(
                f"{ast.unparse(inner)}[{ast.unparse(index)}]", f"{value.rank} indices", "entries count from 1"
            )
        return self.algebra.entry(value, numbers)

    def _integer(self, node: ast.expr, at: dict[str, int]) -> int:
        match node:
            case ast.Constant(value=int() as value):
                return value
            case ast.Name(id=name) if name in at:
                return at[name]
            case ast.Name(id="n"):
                return self.n
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                a, b = self._integer(left, at), self._integer(right, at)
                return a + b if isinstance(op, ast.Add) else a - b
        raise LanguageError(ast.unparse(node), "the number of a token", "use i, j, k, l, n or a whole number")

    def _called(self, name: str, arguments: list[ast.expr], at: dict[str, int], node: ast.expr) -> Value:
        if name in REDUCTIONS:
            return self.algebra.reduce(name, self._reduced(name, arguments, at))
        values = [self._value(argument, at) for argument in arguments]
        ranks = tuple(value.rank for value in values)
        if name == "norm" and ranks in ((1,), (2,)):
            return self.algebra.call("norm" if ranks == (1,) else "spectral_norm", values)
        if (name == "eye" and ranks == (0,)) or (name == "diag" and values and set(ranks) == {0}):
            return self.algebra.call(name, values)
        if name not in FUNCTIONS:
            known = ", ".join(sorted({*FUNCTIONS, *REDUCTIONS, "norm", "eye", "diag"}))
            raise LanguageError(f"{name}(…)", f"one of {known}", "write it out, or declare it under define")
        if ranks != FUNCTIONS[name][0]:
            kinds = ("a number", "a vector", "a matrix")
            raise LanguageError(
                ast.unparse(node),
                f"{name} of " + " and ".join(kinds[rank] for rank in FUNCTIONS[name][0]),
                "check the argument",
            )
        return self.algebra.call(name, values)

    def _reduced(self, name: str, arguments: list[ast.expr], at: dict[str, int]) -> list[Value]:
        """The values of max(a, b) or of max(… for i in tokens if i != j)."""
        if len(arguments) != 1 or not isinstance(arguments[0], ast.GeneratorExp):
            return [self._value(argument, at) for argument in arguments]
        generator = arguments[0]
        values = [self._value(generator.elt, inner) for inner in self._over(generator.generators, at)]
        if not values and name != "sum":
            raise LanguageError(
                ast.unparse(generator), "at least one token", "ask for more tokens (tokens = …)"
            )
        return values or [self.algebra.number(0)]

    def _over(self, generators: list[ast.comprehension], at: dict[str, int]) -> Iterator[dict[str, int]]:
        if not generators:
            yield at
            return
        first, *rest = generators
        if (
            not isinstance(first.target, ast.Name)
            or not isinstance(first.iter, ast.Name)
            or first.iter.id != "tokens"
        ):
            raise LanguageError(ast.unparse(first), "for i in tokens", "e.g. max(norm(x[i]) for i in tokens)")
        for number in range(1, self.n + 1):
            inner = {**at, first.target.id: number}
            if all(self._true(condition, inner) for condition in first.ifs):
                yield from self._over(rest, inner)

    def _true(self, condition: ast.expr, at: dict[str, int]) -> bool:
        match condition:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                a, b = self._integer(left, at), self._integer(right, at)
                tests = {
                    ast.Eq: a == b,
                    ast.NotEq: a != b,
                    ast.Lt: a < b,
                    ast.LtE: a <= b,
                    ast.Gt: a > b,
                    ast.GtE: a >= b,
                }
                return tests[type(op)]
        raise LanguageError(ast.unparse(condition), "a comparison of indices", "e.g. if i != j")


def as_input_error(argument: str, error: LanguageError) -> InputError:
    """The typed error of the package for a text of the claim."""
    return InputError(argument, got=error.got, expected=error.expected, fix=error.fix)
