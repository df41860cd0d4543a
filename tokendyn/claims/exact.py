"""The algebra of one system, exact where it can be: rationals, and Arb balls once a function is irrational.

A vector is a list of scalars, a matrix a list of rows; a scalar is an fmpq or an arb. Balls are as sharp as
the working precision `flint.ctx.prec` allows.
"""

# python-flint's constructors are typed too narrowly for lists of numbers of both kinds.
# pyright: reportArgumentType=false, reportReturnType=false, reportCallIssue=false

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from math import isqrt
from typing import Any

from flint import acb_mat, arb, arb_mat, fmpq, fmpq_mat

from theory.definiteness import inertia
from theory.weights import symmetric_part
from tokendyn.claims.language import LanguageError, Value

Scalar = fmpq | arb

UNARY: dict[str, Callable[[arb], arb]] = {
    name: getattr(arb, name)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh", "lambertw")
}


def rational(value: Any) -> fmpq:
    """An int, a decimal or a fraction (also as text), exactly."""
    if isinstance(value, fmpq):
        return value
    fraction = Fraction(value)
    return fmpq(fraction.numerator, fraction.denominator)


LONGEST = 100_000
"""Bits of the longest power that is multiplied out; longer ones are balls, of exp(b·log(a)) where need be."""


def is_rational(rows: list[list[Scalar]]) -> bool:
    return all(isinstance(entry, fmpq) for row in rows for entry in row)


class Exact:
    """One system; every value is exact or a ball that contains it."""

    def shape(self, value: Value) -> tuple[int, ...]:
        match value.rank:
            case 0:
                return ()
            case 1:
                return (len(value.data),)
        return (len(value.data), len(value.data[0]))

    def whole(self, value: Value) -> int:
        return int(value.data.p)

    def number(self, value: Any) -> Value:
        if value == "pi":
            return Value(0, arb.pi())
        if value == "e":
            return Value(0, arb.const_e())
        return Value(0, rational(value))

    def binary(self, operator: str, left: Value, right: Value) -> Value:
        a, b = left.data, right.data
        if operator == "@":
            return _product(left, right)
        if operator == "**":
            return _power(left, right)
        if operator in "+-":
            return Value(left.rank, _each(lambda p, q: p + q if operator == "+" else p - q, left.rank, a, b))
        if operator == "/":
            return Value(left.rank, _each(lambda p: _divide(p, b), left.rank, a))
        if left.rank == 0:
            return Value(right.rank, _each(lambda q: a * q, right.rank, b))
        return Value(left.rank, _each(lambda p: p * b, left.rank, a))

    def transpose(self, value: Value) -> Value:
        return Value(2, _transposed(value.data)) if value.rank == 2 else value

    def entry(self, value: Value, index: tuple[int, ...]) -> Value:
        found = value.data
        for k in index:
            if not 1 <= k <= len(found):
                raise LanguageError(
                    f"entry {index}", f"1 … {len(found)}", "ask for more dimensions (dimension = …)"
                )
            found = found[k - 1]
        return Value(0, found)

    def stack(self, parts: list[Value]) -> Value:
        return Value(parts[0].rank + 1, [part.data for part in parts])

    def reduce(self, name: str, parts: list[Value]) -> Value:
        if name in ("min", "max"):
            return Value(0, reduce(_largest if name == "max" else _smallest, (part.data for part in parts)))
        total = reduce(lambda a, b: self.binary("+", a, b), parts)
        return total if name == "sum" else self.binary("/", total, self.number(len(parts)))

    def call(self, name: str, arguments: list[Value]) -> Value:
        first, *others = (argument.data for argument in arguments)
        if name in UNARY:
            return Value(0, _unary(name, first))
        if name in SCALAR:
            return Value(0, SCALAR[name](first, *others))
        if name == "unit":
            length = SCALAR["norm"](first)
            return Value(1, [_divide(entry, length) for entry in first])
        if name == "eye":
            size = int(first.p)
            return Value(2, [[fmpq(r == c) for c in range(size)] for r in range(size)])
        if name == "diag":
            entries = [first, *others]
            return Value(
                2, [[x if r == c else fmpq(0) for c in range(len(entries))] for r, x in enumerate(entries)]
            )
        return Value(2, MATRIX[name](first, *others))


# Scalars


def _divide(a: Scalar, b: Scalar) -> Scalar:
    return arb(a) / arb(b) if isinstance(a, arb) or isinstance(b, arb) or b == 0 else a / b


def _unary(name: str, value: Scalar) -> Scalar:
    if name == "sqrt" and isinstance(value, fmpq) and value >= 0:
        root = fmpq(isqrt(int(value.p)), isqrt(int(value.q)))
        if root * root == value:
            return root
    if isinstance(value, fmpq) and value == 0 and name in ("sin", "tan", "sinh", "tanh", "lambertw"):
        return value
    return UNARY[name](arb(value))


def _largest(a: Scalar, b: Scalar) -> Scalar:
    if a >= b:
        return a
    return b if a <= b else arb(a).max(arb(b))


def _smallest(a: Scalar, b: Scalar) -> Scalar:
    if a <= b:
        return a
    return b if a >= b else arb(a).min(arb(b))


def _bits(value: Scalar) -> int:
    """Of an exact number's digits, or 100: the length of a product grows by as much with every factor."""
    return max(1, value.height_bits()) if isinstance(value, fmpq) else 100


def _power(left: Value, right: Value) -> Value:
    exponent = right.data
    whole = isinstance(exponent, fmpq) and exponent.q == 1
    if left.rank == 2:
        base = left if exponent >= 0 else Value(2, _inverse(left.data))
        start = Value(2, [[fmpq(r == c) for c in range(len(left.data))] for r in range(len(left.data))])
        return reduce(_product, [base] * abs(int(exponent.p)), start)
    if whole and abs(exponent) * _bits(left.data) <= LONGEST:
        power = reduce(lambda a, b: a * b, [left.data] * abs(int(exponent.p)), fmpq(1))
        return Value(0, power if exponent >= 0 else _divide(fmpq(1), power))
    if exponent == fmpq(1, 2):
        return Value(0, _unary("sqrt", left.data))
    return Value(0, arb(left.data) ** arb(exponent))


# Vectors and matrices


def _each(function: Callable[..., Scalar], rank: int, *parts: Any) -> Any:
    if rank == 0:
        return function(*parts)
    return [_each(function, rank - 1, *entries) for entries in zip(*parts, strict=True)]


def _transposed(rows: list[list[Scalar]]) -> list[list[Scalar]]:
    return [list(column) for column in zip(*rows, strict=True)]


def inner(a: list[Scalar], b: list[Scalar]) -> Scalar:
    return sum((p * q for p, q in zip(a, b, strict=True)), fmpq(0))


def applied(matrix: list[list[Scalar]], vector: list[Scalar]) -> list[Scalar]:
    return [inner(row, vector) for row in matrix]


def _product(left: Value, right: Value) -> Value:
    match left.rank, right.rank:
        case 1, 1:
            return Value(0, inner(left.data, right.data))
        case 2, 1:
            return Value(1, applied(left.data, right.data))
        case 1, 2:
            return Value(1, applied(_transposed(right.data), left.data))
    columns = _transposed(right.data)
    return Value(2, [[inner(row, column) for column in columns] for row in left.data])


def _inverse(rows: list[list[Scalar]]) -> list[list[Scalar]]:
    """NaN balls for a matrix that is not proved invertible."""
    try:
        kind = fmpq_mat if is_rational(rows) else arb_mat
        return kind(rows).inv().tolist()
    except ZeroDivisionError:
        return [[arb.nan()] * len(rows) for _ in rows]


def _symmetric(rows: list[list[Scalar]]) -> list[list[Scalar]]:
    return _each(lambda a, b: (a + b) / 2, 2, rows, _transposed(rows))


def _eigenvalues(rows: list[list[Scalar]]) -> list:
    """Balls around all eigenvalues, NaN without; repeated ones are found for rational matrices."""
    try:
        if is_rational(rows):
            roots = fmpq_mat(rows).charpoly().complex_roots()
            return [root for root, times in roots for _ in range(times)]  # pyright: ignore[reportGeneralTypeIssues]
        return acb_mat(arb_mat(rows)).eig(multiple=True, algorithm="rump")
    except (ValueError, ArithmeticError):
        return [arb.nan()] * len(rows)


def _reals(rows: list[list[Scalar]]) -> list[arb]:
    return [arb(value.real) if not isinstance(value, arb) else value for value in _eigenvalues(rows)]


def _eigmax(rows: list[list[Scalar]]) -> Scalar:
    return -_eigmin([[-entry for entry in row] for row in rows])


def _eigmin(rows: list[list[Scalar]]) -> Scalar:
    """Of the symmetric part. Exactly 0 where that is semidefinite and singular."""
    form = _symmetric(rows)
    if len(form) == 1:
        return form[0][0]
    if is_rational(form):
        found = inertia(symmetric_part(fmpq_mat(form)))
        if found is not None and found[0].negative == 0 and found[0].positive < len(form):
            return fmpq(0)
    return reduce(arb.min, _reals(form))


def _pencil(form: list[list[Scalar]], metric: list[list[Scalar]]) -> list[arb]:
    """Eigenvalues of sym(form) relative to sym(metric); NaN unless that is positive definite."""
    form, metric = _symmetric(form), _symmetric(metric)
    if not _eigmin(metric) > 0:
        return [arb.nan()]
    try:
        kind = fmpq_mat if is_rational(metric) and is_rational(form) else arb_mat
        quotient = kind(metric).solve(kind(form)).tolist()
    except ZeroDivisionError:
        return [arb.nan()]
    return [quotient[0][0]] if len(form) == 1 else _reals(quotient)


def _norm(vector: list[Scalar]) -> Scalar:
    return _unary("sqrt", _nonnegative(inner(vector, vector)))


def _nonnegative(value: Scalar) -> Scalar:
    """NaN stays NaN, which `nonnegative_part` would make 0."""
    return value.nonnegative_part() if isinstance(value, arb) and not value.is_nan() else value


def _spectral_norm(rows: list[list[Scalar]]) -> Scalar:
    gram = _product(Value(2, _transposed(rows)), Value(2, rows)).data
    return _unary("sqrt", _nonnegative(_eigmax(gram)))


def _determinant(rows: list[list[Scalar]]) -> Scalar:
    return (fmpq_mat if is_rational(rows) else arb_mat)(rows).det()


SCALAR: dict[str, Callable[..., Scalar]] = {
    "abs": lambda value: abs(value),
    "trace": lambda rows: sum((row[k] for k, row in enumerate(rows)), fmpq(0)),
    "det": _determinant,
    "eigmin": _eigmin,
    "eigmax": _eigmax,
    "abscissa": lambda rows: reduce(arb.max, _reals(rows)) if len(rows) > 1 else rows[0][0],
    "radius": lambda rows: reduce(arb.max, (abs(value) for value in _eigenvalues(rows))),
    "pencil_min": lambda form, metric: reduce(arb.min, _pencil(form, metric)),
    "pencil_max": lambda form, metric: reduce(arb.max, _pencil(form, metric)),
    "inner": inner,
    "quad": lambda rows, vector: inner(vector, applied(rows, vector)),
    "norm": _norm,
    "spectral_norm": _spectral_norm,
    "fro": lambda rows: _norm([entry for row in rows for entry in row]),
}
MATRIX: dict[str, Callable[..., list[list[Scalar]]]] = {
    "sym": _symmetric,
    "skew": lambda rows: _each(lambda a, b: (a - b) / 2, 2, rows, _transposed(rows)),
    "inv": _inverse,
    "outer": lambda a, b: [[p * q for q in b] for p in a],
    "R": lambda angle: [
        [_unary("cos", angle), -_unary("sin", angle)],
        [_unary("sin", angle), _unary("cos", angle)],
    ],
}
