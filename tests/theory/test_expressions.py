"""Reading a user's expressions: exact, real, bounded; everything off the whitelist is a typed error."""

from contextlib import suppress
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Eq, Float, I, Integer, Matrix, Ne, Rational, Symbol, cos, exp, log, oo, pi, sin, sqrt, tan

from theory.errors import InputError
from theory.expressions import parse_expression, parse_matrix, parse_relations, signs_of_symbols

a, b, theta = (Symbol(name, real=True) for name in ("a", "b", "theta"))


def read(text, symbols=None):
    return parse_expression("entry", text, symbols)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", Integer(3)),
        ("-1/3", Rational(-1, 3)),
        ("0.1", Rational(1, 10)),
        (" 1e-3 ", Rational(1, 1000)),
        (".5", Rational(1, 2)),
        ("1_000", Integer(1000)),
        ("+a", a),
        ("a - -b", a + b),
        ("2**-2", Rational(1, 4)),
        ("a**2*b/4", a**2 * b / 4),
        ("a**(1/2)", sqrt(a)),
        ("sqrt(2)*cos(theta)", sqrt(2) * cos(theta)),
        ("sin(theta/2) + tan(2*theta)", sin(theta / 2) + tan(2 * theta)),
        ("exp(a - b)", exp(a - b)),
        ("cos(pi/3)", Rational(1, 2)),
        ("θ", Symbol("θ", real=True)),
        ("a_1", Symbol("a_1", real=True)),
        ("N", Symbol("N", real=True)),
        ("beta", Symbol("beta", real=True)),
    ],
)
def test_expressions_are_read_exactly(text, value):
    assert read(text) == value


REFUSED = [
    "",
    "a b",
    "a +",
    "lambda: 1",
    "lambda x: x",
    "f(a)",
    "log(a)",
    "eval(a)",
    "cos(a, b)",
    "cos()",
    "cos(x=a)",
    "cos",
    "a.b",
    "a.__class__",
    "__import__('os')",
    "().__class__",
    "a[0]",
    "'a'",
    '"a"',
    "f'{a}'",
    "b'a'",
    "True",
    "None",
    "...",
    "1j",
    "2 + 3j",
    "I",
    "__a",
    "_a",
    "a__b",
    "a = 1",
    "a == 1",
    "a < b",
    "a and b",
    "not a",
    "~a",
    "a if b else a",
    "a // b",
    "a % b",
    "a @ b",
    "a | b",
    "a ^ 2",
    "a << 2",
    "[a]",
    "(a, b)",
    "{a}",
    "{a: b}",
    "[x for x in a]",
    "(a := 1)",
    "*a",
    "0x10",
    "1/0",
    "a/(b - b)",
    "0**-1",
    "tan(pi/2)",
    "sqrt(-1)",
    "sqrt(-a**2 - 1)",
    "(-2)**(1/3)",
    "a**b",
    "a**17",
    "a**0.01",
    "a**pi",
    "9**9**9",
    "exp(exp(a))",
    "exp(exp(exp(exp(exp(exp(1))))))",
    "sqrt(" * 90 + "2" + ")" * 90,
    "2**(10**9)",
    "1e999",
    "9" * 5001,
    "9" * 1000,
    "(" * 300 + "a" + ")" * 300,
    "-" * 2000 + "a",
    "a" + "+a" * 400,
    "a**" * 900 + "a",
    "1" + "*9999999999" * 60,
    "((((((3*a)**16)**16)**16)**16)**16)**16",
    "a\x00b",
    "import os",
    "a; b",
    "a\nb",
]


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: repr(text[:20]))
def test_everything_else_is_refused_with_a_fix(text):
    with pytest.raises(InputError) as caught:
        read(text)
    assert caught.value.argument == "entry"
    assert caught.value.got
    assert caught.value.expected
    assert caught.value.fix
    assert len(str(caught.value)) < 600


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_read_or_refused(text):
    """Nothing else is ever raised, and what is read has real symbols only."""
    try:
        value = read(text)
    except InputError:
        return
    assert all(symbol.is_real for symbol in value.free_symbols)


@given(st.text(alphabet="ab1.2()+-*/, []pisqrtco", max_size=30))
@settings(max_examples=200)
def test_any_text_of_the_syntax_is_read_or_refused(text):
    for parse in (parse_expression, parse_matrix, parse_relations):
        with suppress(InputError):
            parse("text", text)


def test_declared_symbols_are_the_only_ones():
    assert read("a + 2*b", ["a", "b"]) == a + 2 * b
    with pytest.raises(InputError, match="the unknown symbol 'c'"):
        read("a + c", ["a", "b"])
    with pytest.raises(InputError, match="unknown symbols c"):
        parse_matrix("m", Matrix([[Symbol("c")]]), ["a"])


# Matrices


@pytest.mark.parametrize(
    ("given_", "rows"),
    [
        ("[[a, 1/2], [0.1, -b]]", [[a, Rational(1, 2)], [Rational(1, 10), -b]]),
        ([["a", "0.1"], [2, Fraction(1, 3)]], [[a, Rational(1, 10)], [2, Rational(1, 3)]]),
        ([[0.5, np.float64(0.25)], [np.int64(3), 0.1]], [[0.5, 0.25], [3, Rational(0.1)]]),
        (np.array([[1.0, 2.0]]), [[1, 2]]),
        (((1, 2), (3, 4)), [[1, 2], [3, 4]]),
        (Matrix([[Symbol("a", positive=True), sqrt(2)]]), [[a, sqrt(2)]]),
        ([[Symbol("a") + pi, exp(1)]], [[a + pi, exp(1)]]),
    ],
)
def test_matrices_of_every_kind_become_exact(given_, rows):
    matrix = parse_matrix("m", given_)
    assert matrix == Matrix(rows).applyfunc(lambda e: Rational(e) if e.is_Float else e)


@pytest.mark.parametrize(
    "given_",
    [
        "a",
        "[a]",
        "[[a], b]",
        "[[a, b], [a]]",
        "[]",
        "[[]]",
        "[[[a]]]",
        "[['a']]",
        "[[a]] + [[b]]",
        "[[True]]",
        [],
        [[]],
        [[1, 2], [3]],
        [1, 2],
        5,
        {"a": 1},
        [[None]],
        [[True]],
        [[float("nan")]],
        [[float("inf")]],
        [[1j]],
        [[b"a"]],
        Matrix([[I]]),
        Matrix([[Float("0.1")]]),
        Matrix([[oo]]),
        Matrix([[log(Symbol("a"))]]),
        Matrix([[Symbol("a") ** Symbol("b")]]),
        Matrix([[sqrt(-(a**2) - 1)]]),
        np.zeros((0, 2)),
        "[" + ", ".join("[" + ", ".join(["0"] * 17) + "]" for _ in range(17)) + "]",
    ],
    ids=lambda value: repr(value)[:25],
)
def test_what_is_no_real_matrix_is_refused(given_):
    with pytest.raises(InputError) as caught:
        parse_matrix("m", given_)
    assert caught.value.argument == "m"
    assert caught.value.fix


# Relations


@pytest.mark.parametrize(
    ("given_", "relations"),
    [
        ("a > 0", [a > 0]),
        ("0 < theta <= pi/2", [theta > 0, theta <= pi / 2]),
        ("a = b", [Eq(a, b)]),
        ("a == b, a != 0", [Eq(a, b), Ne(a, 0)]),
        ("a >= b", [a >= b]),
        ("1 < 2, a > 0", [a > 0]),
        ("", []),
        (["a > 0", "b < 1"], [a > 0, b < 1]),
        (Symbol("a") > 0, [a > 0]),
        ([Symbol("a") > 0, "b > a"], [a > 0, b > a]),
        ((), []),
    ],
)
def test_relations_are_read(given_, relations):
    found = parse_relations("where", given_)
    assert [r.canonical for r in found] == [r.canonical for r in relations]


@pytest.mark.parametrize(
    "given_", ["a", "a + b", "a > 0 and b > 0", "a in b", "1 > 2", "a := 1", "not a > 0", "a > 'b'", 3, [3]]
)
def test_what_is_no_relation_is_refused(given_):
    with pytest.raises(InputError, match="where: got"):
        parse_relations("where", given_)


def test_assumptions_of_sympy_symbols_are_kept():
    symbols = Matrix([[Symbol("p", positive=True), Symbol("n", negative=True), Symbol("z", nonzero=True)]])
    others = [[Symbol("u", nonnegative=True), Symbol("d", nonpositive=True), Symbol("x"), "y", 3]]
    p, n, z, u, d = (Symbol(name, real=True) for name in "pnzud")
    assert set(signs_of_symbols([symbols, others])) == {p > 0, n < 0, Ne(z, 0), u >= 0, d <= 0}
    assert signs_of_symbols(["[[a]]"]) == ()
