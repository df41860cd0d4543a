"""The expressions of claims: a small subset of Python, parsed once and evaluated over any algebra.

An algebra computes with scalars (rank 0), vectors (rank 1) and matrices (rank 2): `floats` in batches that
can be differentiated, `exact` in rationals and, where these do not suffice, balls.
"""

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from math import perm
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
"""Name: the ranks of the arguments and of the value."""
OTHERS = {"norm": "a vector or a matrix (its largest singular value)", "eye": "a number", "diag": "numbers"}
"""Functions of several kinds of arguments, or of several arguments: what they take."""
SQUARE = {
    "trace",
    "det",
    "eigmin",
    "eigmax",
    "abscissa",
    "radius",
    "pencil_min",
    "pencil_max",
    "quad",
    "sym",
    "skew",
    "inv",
}
ALIKE = {"pencil_min", "pencil_max", "inner", "quad"}
"""Functions whose matrices are square, and whose arguments have the same number of rows."""
LARGEST = 16
"""Of an identity matrix: the largest number of tokens."""
KINDS = ("a number", "a vector", "a matrix")
DEEPEST = 64
"""At most so many operations stand within each other: evaluations are recursive."""
MOST = 25_000
"""At most so many operations are evaluated for one text, over all tokens that its indices stand for."""


class Value(NamedTuple):
    """A number, vector or matrix of some algebra."""

    rank: int
    data: Any


class Algebra(Protocol):
    """What an evaluation needs of values that fit; `number` takes an int, a decimal's text, or pi and e.

    `shape` is () for a number, (rows,) or (rows, columns); `whole` is for numbers known to be whole.
    """

    def shape(self, value: Value) -> tuple[int, ...]: ...
    def whole(self, value: Value) -> int: ...
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
        return _names(self.tree) - set(self.free) - {"tokens"}


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
    source = _source(text)
    sides = [
        _expression(side, ast.get_source_segment(source, side) or "")
        for side in (tree.left, *tree.comparators)
    ]
    return [
        Comparison(f"{left.text} {RELATIONS[type(op)]} {right.text}", RELATIONS[type(op)], left, right)
        for op, left, right in zip(tree.ops, sides, sides[1:], strict=False)
    ]


def _source(text: str) -> str:
    return text.strip().replace("^", "**")


def _python(text: str) -> ast.expr:
    source = _source(text)
    try:
        tree = ast.parse(source, mode="eval").body
    except (RecursionError, MemoryError) as error:
        raise _too_deep(text) from error
    except (SyntaxError, ValueError) as error:  # ValueError for null bytes, in Python 3.11
        begin = max(0, (getattr(error, "offset", None) or 1) - 1)
        where = f"{_short(text)!r}, at {(getattr(error, 'text', None) or '')[begin:][:12]!r}"
        lam = re.search(r"\blambda\b", source)
        raise LanguageError(
            where,
            "an expression in Python's notation",
            "write lam: Python takes lambda" if lam else "see docs/claims.md, 'Expressions', 'Conclusions'",
        ) from error
    if _depth(tree) > DEEPEST:
        raise _too_deep(text)
    return _with_literals(tree, source)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:60] + "…"


def _too_deep(text: str) -> LanguageError:
    return LanguageError(
        _short(text), f"at most {DEEPEST} operations within each other", "use sum(…), or parts under define"
    )


def _depth(tree: ast.AST) -> int:
    """Without recursion."""
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


def _with_literals(tree: ast.expr, source: str) -> ast.expr:
    """Decimals keep their text, as `kind`: Python's value of them is rounded."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            literal = ast.get_source_segment(source, node) or ""
            decimal = isinstance(node.value, float)
            exponent = literal.lower().partition("e")[2] if decimal else ""
            if len(literal) > 300 or abs(int(exponent or 0)) > 300:
                raise LanguageError(f"{literal[:20]}…", "a number between 1e-300 and 1e300", "rescale")
            node.kind = literal if decimal else None
    return tree


def _expression(tree: ast.expr, text: str) -> Expression:
    for node in ast.walk(tree):
        if not isinstance(node, _ALLOWED):
            raise LanguageError(
                f"{ast.unparse(node) or type(node).__name__.lower()!r} in {_short(text)!r}",
                "arithmetic, functions and x[i]",
                "see docs/claims.md, 'Expressions'",
            )
    found = _names(tree)
    return Expression(text.strip(), tree, tuple(index for index in INDICES if index in found))


_ALLOWED = (
    ast.BinOp, ast.UnaryOp, ast.USub, ast.UAdd, ast.Call, ast.Name, ast.expr_context, ast.Constant,
    ast.Subscript, ast.Tuple, ast.List, ast.Attribute, ast.GeneratorExp, ast.comprehension, ast.Compare,
    ast.NotEq, *OPERATORS, *RELATIONS,
)  # fmt: skip


def _names(node: ast.AST, bound: frozenset[str] = frozenset()) -> set[str]:
    """Names that are used where no `for` around them binds them; not those of functions."""
    match node:
        case ast.Name(id=name):
            return set() if name in bound else {name}
        case ast.GeneratorExp(generators=generators):
            targets = [one.target.id for one in generators if isinstance(one.target, ast.Name)]
            bound = bound.union(targets)
    children = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
    return {name for child in children for name in _names(child, bound)}


def assignments(free: tuple[str, ...], n: int) -> Iterator[dict[str, int]]:
    """Different tokens (from 1) for the free indices: none if there are fewer tokens than indices."""
    for chosen in permutations(range(1, n + 1), len(free)):
        yield dict(zip(free, chosen, strict=True))


def require_few(text: str, sides: Sequence[Expression], free: tuple[str, ...], n: int) -> None:
    """LanguageError where evaluating the sides for all n tokens in place of `free` takes too long."""
    count = perm(n, len(free)) * sum(_operations(side.tree, n) for side in sides)
    if count > MOST:
        raise LanguageError(
            f"{_short(text)!r} with {n} tokens, {count:,} operations",
            f"at most {MOST:,} operations over all tokens that its indices stand for",
            "ask for fewer tokens (tokens = …), or use fewer indices",
        )


def _operations(node: ast.AST, n: int) -> int:
    """How many operations an evaluation with n tokens takes, conditions on indices left out."""
    times = n ** len(node.generators) if isinstance(node, ast.GeneratorExp) else 1
    return times * (
        isinstance(node, ast.BinOp | ast.UnaryOp | ast.Call | ast.Subscript)
        + sum(_operations(child, n) for child in ast.iter_child_nodes(node))
    )


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
                return self.algebra.number(node.kind if isinstance(value, float) else value)
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
                return self._stacked([self._value(part, at) for part in parts], node)
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
            "a name of the claim: " + ", ".join(sorted(known for known in self.values if known[0] != "_")),
            "declare it under matrices, scalars or define",
        )

    def _binary(
        self, operator: str, left: ast.expr, right: ast.expr, at: dict[str, int], node: ast.expr
    ) -> Value:
        a, b = self._value(left, at), self._value(right, at)
        if operator == "**" and a.rank == 2:
            self._small_power(right, at, node)
        p, q = self.algebra.shape(a), self.algebra.shape(b)
        good = {
            "+": p == q,
            "-": p == q,
            "*": 0 in (a.rank, b.rank),
            "/": b.rank == 0,
            "**": b.rank == 0 and (a.rank == 0 or (a.rank == 2 and p[0] == p[1])),
            "@": a.rank > 0 and b.rank > 0 and p[-1] == q[0],
        }[operator]
        if not good:
            raise LanguageError(
                ast.unparse(node),
                "operands that fit",
                f"here {self._kind(a)} {operator} {self._kind(b)}; matrices and vectors are multiplied by @",
            )
        return self.algebra.binary(operator, a, b)

    def _small_power(self, exponent: ast.expr, at: dict[str, int], node: ast.expr) -> None:
        fit = LanguageError(ast.unparse(node), "a small whole exponent of a matrix", "e.g. V**2, up to 8")
        try:
            power = self._integer(exponent, at)
        except LanguageError as error:
            raise fit from error
        if abs(power) > 8:
            raise fit

    def _kind(self, value: Value) -> str:
        """E.g. "a matrix (2 × 3)"."""
        sizes = " × ".join(map(str, self.algebra.shape(value)))
        return KINDS[value.rank] + (f" ({sizes})" if sizes else "")

    def _alike(self, values: list[Value]) -> bool:
        return len({self.algebra.shape(value) for value in values}) == 1

    def _stacked(self, parts: list[Value], node: ast.expr) -> Value:
        if not self._alike(parts) or parts[0].rank > 1:
            raise LanguageError(
                ast.unparse(node), "a list of numbers, or of rows of numbers", "e.g. [[1, -a], [a, 1]]"
            )
        return self.algebra.stack(parts)

    def _indexed(self, inner: ast.expr, index: ast.expr, at: dict[str, int]) -> Value:
        parts = index.elts if isinstance(index, ast.Tuple) else [index]
        numbers = tuple(self._integer(part, at) for part in parts)
        if isinstance(inner, ast.Name) and inner.id in (*PER_TOKEN, *PER_PAIR) and inner.id not in at:
            wanted = 1 if inner.id in PER_TOKEN else 2
            if len(numbers) != wanted:
                raise LanguageError(
                    ast.unparse(inner),
                    "one index" if wanted == 1 else "two indices",
                    "x[i] is a token, x[i][1] its first coordinate, s[i, j] a score",
                )
            if any(not 1 <= number <= self.n for number in numbers):
                raise LanguageError(
                    f"{inner.id}[{ast.unparse(index)}]",
                    f"tokens 1 … {self.n}",
                    "tokens count from 1; for more at every size write e.g. tokens = [3, 5]",
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
            case ast.Constant(value=int() as value) if not isinstance(value, bool):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._integer(operand, at)
            case ast.Name(id=name) if name in at:
                return at[name]
            case ast.Name(id="n"):
                return self.n
            case ast.Name(id="d") if "d" in self.values:
                return self.algebra.whole(self.values["d"])
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                a, b = self._integer(left, at), self._integer(right, at)
                return a + b if isinstance(op, ast.Add) else a - b
        raise LanguageError(ast.unparse(node), "the number of a token", "use i, j, k, l, n or a whole number")

    def _called(self, name: str, arguments: list[ast.expr], at: dict[str, int], node: ast.expr) -> Value:
        if name in REDUCTIONS:
            parts = self._reduced(name, arguments, at)
            if not self._alike(parts) or (name in ("min", "max") and parts[0].rank):
                raise LanguageError(
                    ast.unparse(node),
                    "numbers, or sums of what is alike",
                    f"{name} compares numbers" if name in ("min", "max") else "check the arguments",
                )
            return self.algebra.reduce(name, parts)
        values = [self._value(argument, at) for argument in arguments]
        ranks = tuple(value.rank for value in values)
        if name == "norm" and ranks in ((1,), (2,)):
            return self.algebra.call("norm" if ranks == (1,) else "spectral_norm", values)
        if name == "eye" and ranks == (0,):
            if not 1 <= self._integer(arguments[0], at) <= LARGEST:
                raise LanguageError(ast.unparse(node), f"a size within 1 … {LARGEST}", "write eye(d)")
            return self.algebra.call(name, values)
        if name == "diag" and values and set(ranks) == {0}:
            return self.algebra.call(name, values)
        if name in OTHERS:
            raise LanguageError(ast.unparse(node), f"{name} of {OTHERS[name]}", "check the argument")
        if name not in FUNCTIONS:
            known = ", ".join(sorted({*FUNCTIONS, *REDUCTIONS, *OTHERS}))
            raise LanguageError(f"{name}(…)", f"one of {known}", "write it out, or declare it under define")
        shapes = [self.algebra.shape(value) for value in values]
        if ranks != FUNCTIONS[name][0]:
            wanted = " and ".join(KINDS[rank] for rank in FUNCTIONS[name][0])
            raise LanguageError(ast.unparse(node), f"{name} of {wanted}", "check the argument")
        square = name not in SQUARE or all(len(set(shape)) == 1 for shape in shapes)
        if not square or (name in ALIKE and len({shape[0] for shape in shapes}) > 1):
            got = " and ".join(map(self._kind, values))
            raise LanguageError(ast.unparse(node), f"{name} of what fits", f"here of {got}")
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
