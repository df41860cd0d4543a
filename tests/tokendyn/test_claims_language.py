"""The language of claims: what is read, what is refused with a hint, and one value in floats and exactly."""

import json
import math
import re
from dataclasses import fields
from fractions import Fraction
from itertools import combinations
from pathlib import Path

import pytest
import torch
import yaml
from flint import arb, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import tokendyn.claims
from theory.definiteness import inertia
from theory.errors import InputError
from theory.weights import symmetric_part
from tokendyn.claims import Claim, read_claim
from tokendyn.claims.check import check
from tokendyn.claims.claim import ENCODINGS, QUANTIFIERS, SUGAR, TRENDS, conclusion, make_claim, raw_scalar
from tokendyn.claims.dynamics import FloatRows
from tokendyn.claims.exact import Exact
from tokendyn.claims.floats import Floats
from tokendyn.claims.genome import Genome
from tokendyn.claims.language import (
    FUNCTIONS,
    PER_PAIR,
    PER_TOKEN,
    REDUCTIONS,
    Evaluation,
    LanguageError,
    Value,
    assignments,
    parse,
    parse_comparison,
)
from tokendyn.claims.recipes import CONDITIONS, WORDS
from tokendyn.claims.system import ExactRow

LIBRARY = sorted((Path(tokendyn.claims.__file__).parent / "library").glob("*.toml"))
SETS = Path(__file__).parents[1] / "claims_sets"
FALSE, TRUE = sorted((SETS / "false").glob("*.toml")), sorted((SETS / "true").glob("*.toml"))
FIRST = """
conclude = "X tends to 0"
causal = true
tokens = "2..4"
dimension = 2
where = ["norm(x[i]) <= c", "0 < c <= 2"]
[matrices]
W = "positive definite"
[scalars]
c = "> 0"
[define]
V = "-W"
"""


# Reading


def test_a_claim_from_toml_and_from_yaml_and_from_python_is_the_same(tmp_path):
    toml, yml = tmp_path / "a.toml", tmp_path / "a.yaml"
    toml.write_text(FIRST)
    claim = read_claim(toml)
    yml.write_text(yaml.safe_dump(claim.describe()))
    assert read_claim(yml) == claim
    python = Claim(
        "X tends to 0",
        title="a",
        tokens=(2, 4),
        dimension=(2, 2),
        causal=True,
        where=("norm(x[i]) <= c", "0 < c <= 2"),
        matrices={"W": "positive definite"},
        scalars={"c": "> 0"},
        define={"V": "-W"},
    )
    assert python == claim


@pytest.mark.parametrize(
    "path", [*LIBRARY, *FALSE, *TRUE], ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_describe_is_plain_data_that_gives_the_claim_back(path):
    claim = read_claim(path)
    assert make_claim(json.loads(json.dumps(claim.describe()))) == claim


def test_defaults_are_not_described():
    assert Claim("X tends to 0").describe() == {"conclude": "X tends to 0"}
    assert make_claim({"conclude": "X tends to 0", "where": "norm(x[1]) <= 1"}).where == ("norm(x[1]) <= 1",)


@pytest.mark.parametrize(
    ("text", "least", "most"), [("3", 3, 3), ("2..4", 2, 4), ("2 to 4", 2, 4), (3, 3, 3), ([1, 4], 1, 4)]
)
def test_ranges(text, least, most):
    assert make_claim({"conclude": "X tends to 0", "tokens": text}).tokens == (least, most)


def test_weights_that_nobody_mentions_are_free():
    assert Claim("X tends to 0").free_matrices == {"W": "any", "V": "any"}
    assert Claim("X tends to 0", heads=2, define={"V1": "W1"}).free_matrices.keys() == {"W1", "W2", "V2"}
    rotary = Claim("trace(W) >= 0", encoding="rotary")
    assert rotary.free_matrices.keys() == {"Q", "K", "V"}
    assert "W" in rotary.names


@pytest.mark.parametrize(
    ("given", "wrong", "hint"),
    [
        ({"conclude": "X tends to 0", "sphear": True}, "claim", "sphere"),
        ({}, "conclude", "X tends to 0"),
        ({"conclude": 3}, "conclude", "X tends to 0"),
        ({"conclude": "X tends to 0", "where": ["norm(x[i])"]}, "where", "norm"),
        ({"conclude": "norm(x[i]) <="}, "conclude", "docs/claims.md"),
        ({"conclude": "norm(x[i]) <= lamda", "scalars": {"lam": "> 0"}}, "conclude", "lam"),
        ({"conclude": "0 <= norm(x[i]) <= 1"}, "conclude", "claim of its own"),
        ({"conclude": "lambda x: x is bounded"}, "conclude", "docs/claims.md"),
        ({"conclude": "X tends to 0", "encoding": "rotery"}, "encoding", "rotary"),
        ({"conclude": "X tends to 0", "quantifier": "all starts"}, "quantifier", "use one of these"),
        ({"conclude": "X tends to 0", "attention": "hard max"}, "attention", "hardmax"),
        ({"conclude": "X tends to 0", "tokens": [5, 2]}, "tokens", "2..5"),
        ({"conclude": "X tends to 0", "tokens": 99}, "tokens", "2..5"),
        ({"conclude": "X tends to 0", "dimension": True}, "dimension", "2..5"),
        ({"conclude": "X tends to 0", "heads": 9}, "heads", "few heads"),
        ({"conclude": "X tends to 0", "causal": "yes"}, "causal", "without quotes"),
        ({"conclude": "X tends to 0", "encoding": "rotary", "heads": 2}, "encoding", "one head"),
        ({"conclude": "X tends to 0", "sphere": True, "step": "1/2"}, "step", "leave one out"),
        (
            {"conclude": "X tends to 0", "matrices": {"W": "positive"}},
            "matrices.W",
            "did you mean 'positive definite'?",
        ),
        ({"conclude": "X tends to 0", "matrices": {"W": "-eye(d)"}}, "matrices.W", "define"),
        ({"matrices": {"W": "any", "conclude": "X tends to 0"}}, "conclude", "before the first"),
        ({"conclude": "X tends to 0", "matrices": {"x": "any"}}, "define", "rename"),
        (
            {"conclude": "X tends to 0", "matrices": {"W": "any"}, "define": {"W": "eye(d)"}},
            "define",
            "drop one",
        ),
        ({"conclude": "X tends to 0", "matrices": "any"}, "matrices", "[matrices]"),
        ({"conclude": "X tends to 0", "scalars": {"c": "positive"}}, "scalars.c", "where"),
        ({"conclude": "X tends to 0", "vectors": {"v": "unit"}}, "vectors.v", "unit(v)"),
        ({"conclude": "X tends to 0", "define": {"V": ["a"]}}, "define.V", "in quotes"),
        ({"conclude": "X tends to 0", "define": {"V": "A @ B"}}, "define.V", "declare it"),
        ({"conclude": "at most 4 clusters"}, "conclude", "four tokens"),
        ({"conclude": "X tends to 0", "where": 3}, "where", "in quotes"),
        ({"conclude": "X tends to 0", "where": [3]}, "where", "in quotes"),
        ({"conclude": "X tends to 0", "title": 3}, "title", "in quotes"),
        ({"conclude": "X tends to 0", "step": True}, "step", "in quotes"),
        ({"conclude": "X tends to 0", "matrices": {"W": 3}}, "matrices.W", "positive definite"),
        ({"conclude": "X tends to 0", "matrices": {"V": "rank 1, rank 2"}}, "matrices.V", "drop one"),
        ({"conclude": "X tends to 0", "matrices": {"V": "rank 0"}}, "matrices.V", "1 … 8"),
        ({"conclude": "X tends to 0", "matrices": {"_A": "any"}}, "matrices._A", "rename"),
        ({"conclude": "X tends to 0", "define": {"a b": "3"}}, "define.a b", "rename"),
        ({"conclude": "X tends to 0", "scalars": {"lambda": "> 0"}}, "scalars.lambda", "write lam"),
        ({"conclude": "norm(x[i]) <= 2*lambda"}, "conclude", "write lam"),
        ({"conclude": "X tends to 0", "scalars": {"µ": "any", "μ": "any"}}, "scalars", "drop one"),
        ({"conclude": "X tends to 0", "scalars": {"c": "0...5"}}, "scalars.c", "where"),
        ({"conclude": "X tends to 0", "scalars": {"c": "1..0"}}, "scalars.c", "smaller number first"),
        ({"conclude": "X tends to 0", "scalars": {"c": "1.2.3"}}, "scalars.c", "where"),
        ({"conclude": "X tends to 0", "scalars": {"c": "1/0"}}, "scalars.c", "where"),
        ({"conclude": "X tends to 0", "scalars": {"c": "0..1e400"}}, "scalars.c", "rescale"),
        ({"conclude": "max(norm(x[a]) for a in tokens if a is i) <= 1"}, "conclude", "'is'"),
        ({"conclude": "norm(x[i]) <= (1 and 2)"}, "conclude", "docs/claims.md"),
        ({"conclude": "norm(x[i]) <= 1e400"}, "conclude", "rescale"),
        ({"conclude": "norm(x[i]) <= 1\0"}, "conclude", "docs/claims.md"),
        ({"conclude": "norm(x[i]) <= " + "-" * 6000 + "1"}, "conclude", "within each other"),
        ({"conclude": "norm(x[i]) <= 1" + "+1" * 3000}, "conclude", "within each other"),
        ({"conclude": "norm(x[i]) <= 1" + "+1" * 100}, "conclude", "within each other"),
        ({"conclude": "consensus", "tokens": 1}, "conclude", "tokens = 2"),
        ({"conclude": "at most 3 clusters", "tokens": 16, "dimension": 8}, "conclude", "fewer tokens"),
        (
            {
                "conclude": "X tends to 0",
                "tokens": 16,
                "where": "sum(x[a][1] for a in tokens for b in tokens for c in tokens for q in tokens) > 0",
            },
            "where",
            "fewer tokens",
        ),
        (
            {"conclude": "X tends to 0", "heads": 2, "matrices": {"V": "identity"}},
            "matrices",
            "check `heads`",
        ),
        (
            {"conclude": "X tends to 0", "encoding": "rotary", "matrices": {"W": "identity"}},
            "matrices",
            "Q.T @ K",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_hint(given, wrong, hint):
    with pytest.raises(InputError) as caught:
        make_claim(given)
    message = str(caught.value)
    assert message.startswith(wrong + ":")
    assert hint in message


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "conclude = "), ("a.yaml", "a: ["), ("a.yaml", "- a"), ("no.toml", None)]
)
def test_files_that_hold_no_claim_are_refused(tmp_path, name, text):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match="claim"):
        read_claim(path)


# What can be read and has no value


@pytest.mark.parametrize(
    ("given", "wrong", "hint"),
    [
        ({"conclude": "norm(eye(5) @ x[i]) <= 1"}, "conclude", "(5 × 5) @ a vector (1)"),
        ({"conclude": "norm([[1, 2], [3, 4]] @ x[i]) <= 1"}, "conclude", "(2 × 2)"),
        ({"conclude": "norm([1, 2] + x[i]) <= 1", "dimension": 1}, "conclude", "(2) + a vector (1)"),
        ({"conclude": "norm(R(1) @ x[i]) <= 1"}, "conclude", "(2 × 2)"),
        ({"conclude": "norm(eye(1/2)) <= 1"}, "conclude", "whole number"),
        ({"conclude": "norm(eye(0)) <= 1"}, "conclude", "eye(d)"),
        ({"conclude": "norm(x[i], 2) <= 1"}, "conclude", "norm of a vector or a matrix"),
        ({"conclude": "entropy(x[i]) <= 1"}, "conclude", "declare it under define"),
        ({"conclude": "det(X) <= 1", "dimension": 2}, "conclude", "(3 × 2)"),
        ({"conclude": "quad(X, x[1]) <= 1", "dimension": 2}, "conclude", "(3 × 2)"),
        ({"conclude": "pencil_min(eye(3), V) <= 1", "dimension": 2}, "conclude", "(3 × 3)"),
        ({"conclude": "norm(x[3]) <= 1"}, "conclude", "tokens 1 … 2"),
        ({"conclude": "norm(x[i + 1]) <= 1"}, "conclude", "tokens 1 … 2"),
        ({"conclude": "V[3, 3] <= 1"}, "conclude", "more dimensions"),
        ({"conclude": "x[i] tends to 0"}, "conclude", "norm(…)"),
        ({"conclude": "norm(x[i]) <= True"}, "conclude", "arithmetic"),
        ({"conclude": "norm(x[i]) <= h"}, "conclude", "declare it"),
        ({"conclude": "X tends to 0", "where": "sum() == 0"}, "where", "check the arguments"),
        ({"conclude": "X tends to 0", "where": "b[i, j] <= 1"}, "where", "encoding"),
        ({"conclude": "X tends to 0", "define": {"V": "[[1, 2], [3]]"}}, "define.V", "rows of numbers"),
        ({"conclude": "X tends to 0", "define": {"V": "[[1]]"}}, "define.V", "(1 × 1) at d = 2"),
        ({"conclude": "X tends to 0", "define": {"V": "3"}}, "define.V", "eye(d)"),
        ({"conclude": "X tends to 0", "define": {"V": "X"}}, "define.V", "a name of the claim"),
        ({"conclude": "X tends to 0", "scalars": {"a": "any"}, "define": {"V": "W**a"}}, "define.V", "V**2"),
        ({"conclude": "X tends to 0", "matrices": {"W": "commutes with Q"}}, "matrices.W", "declare it"),
        ({"conclude": "X tends to 0", "step": "x[1][1]"}, "step", "weights and numbers"),
        ({"conclude": "X tends to 0", "step": 0}, "step", "> 0"),
        ({"conclude": "X tends to 0", "step": "-1/2"}, "step", "> 0"),
        ({"conclude": "X tends to 0", "step": "V"}, "step", "> 0"),
    ],
)
def test_what_has_no_value_at_some_size_is_refused_by_its_entry(given, wrong, hint):
    claim = make_claim(given)
    with pytest.raises(InputError) as caught:
        check(claim)
    assert str(caught.value).startswith(wrong + ":")
    assert hint in str(caught.value)


@pytest.mark.parametrize("path", [*LIBRARY, *FALSE[::4], *TRUE[::4]], ids=lambda path: path.stem)
def test_claims_that_are_used_have_values_at_every_size(path):
    check(read_claim(path))


def test_a_step_that_is_a_number_is_a_step():
    claim = make_claim({"conclude": "X tends to 0", "step": 0.1})
    assert claim.step_size is not None
    assert make_claim(claim.describe()) == claim
    assert make_claim({"conclude": "X tends to 0", "step": 0}).step_size is not None


def test_names_are_read_as_python_reads_them():
    claim = make_claim({"conclude": "X tends to 0", "scalars": {"µ": "> 0"}, "define": {"V": "µ*eye(d)"}})
    assert list(claim.scalars) == ["\N{GREEK SMALL LETTER MU}"]
    check(claim)


def test_a_bound_index_hides_a_name_only_where_it_is_bound():
    hidden = parse("sum(norm(x[a]) for a in tokens) * a + sum(i for i in tokens) + x[j][1]")
    assert hidden.names() == {"x", "a"}
    assert hidden.free == ("j",)
    assert parse("sum(norm(x[a]) for a in tokens)").names() == {"x"}
    values = {"a": Value(0, fmpq(5))}
    evaluate = Evaluation(Exact(), values, lambda _, at: Value(1, [fmpq(at[0])]), 3)
    assert evaluate(parse("sum(a for a in tokens) * a")).data == 30
    with pytest.raises(InputError, match="declared name"):
        make_claim({"conclude": "sum(norm(x[a]) for a in tokens) <= a"})


def test_decimals_are_exact():
    (one,) = parse_comparison("0.30000000000000000001 > 0.3")
    evaluate = Evaluation(Exact(), {}, lambda *_: Value(0, 0), 1)
    assert evaluate(one.left).data - evaluate(one.right).data == fmpq(1, 10**20)
    assert evaluate(parse("1e-2 + 1/3")).data == fmpq(103, 300)


@pytest.mark.parametrize("text", ["q**100000000", "q**-100000000", "(((q**1000)**1000)**1000)**1000"])
def test_large_powers_are_enclosed_and_do_not_take_for_ever(text):
    for q, grows in ((fmpq(3, 2), True), (fmpq(2, 3), False)):
        found = Evaluation(Exact(), {"q": Value(0, q)}, lambda *_: Value(0, 0), 1)(parse(text)).data
        assert isinstance(found, arb)
        assert (found > 1) == (grows == ("-" not in text))


def test_products_of_a_negative_number_are_exact_powers():
    values = {"q": Value(0, fmpq(-3, 2)), "b": Value(0, arb(0, 1))}
    evaluate = Evaluation(Exact(), values, lambda *_: Value(0, 0), 1)
    assert evaluate(parse("q**3")).data == fmpq(-27, 8)
    assert evaluate(parse("q**-2")).data == fmpq(4, 9)
    assert evaluate(parse("b**2")).data.contains(1)  # a ball about 0 has powers too


@pytest.mark.parametrize(
    "given",
    [
        {"encoding": "alibi", "scalars": {"slope": "> 0"}},
        {"encoding": "rotary", "scalars": {"turns": "> 0"}, "vectors": {"t1": "any"}},
        {"matrices": {"A": "orthogonal", "A0": "any"}, "scalars": {"A0a": "> 0", "A1": "any"}},
        {"matrices": {"A": "symmetric, rank 2", "A1a": "any"}, "scalars": {"c": "any"}},
        {"heads": 2, "matrices": {"V": "hurwitz", "V1": "any"}, "define": {"V2": "V"}},
    ],
)
def test_raw_parts_never_share_a_name(given):
    claim = make_claim({"conclude": "X tends to 0", **given})
    genome = Genome(claim, 3, 2)
    assert genome.size == max(part.place.stop for part in genome.parts.values())
    taken = sorted(k for part in genome.parts.values() for k in range(part.place.start, part.place.stop))
    assert taken == list(range(genome.size))  # no number serves two parts
    assert not {*claim.names} & {part.name for part in genome.parts.values() if part.name[0] == "_"}


def test_a_matrix_with_the_name_of_a_raw_part_is_refused():
    with pytest.raises(InputError, match="rename"):
        Genome(
            make_claim({"conclude": "X tends to 0", "encoding": "alibi", "matrices": {"slope": "any"}}), 2, 2
        )


# Conclusions


@pytest.mark.parametrize("short", SUGAR)
def test_named_conclusions_are_their_long_forms(short):
    named, written = conclusion(short), conclusion(SUGAR[short])
    assert named.text == short
    assert (named.kind, named.left.text, named.free) == (written.kind, written.left.text, written.free)


@pytest.mark.parametrize(
    ("text", "kind", "relation", "free"),
    [
        ("norm(x[i]) tends to norm(x0[j])", "limit", "", ("i", "j")),
        ("norm(x[1]) is unbounded", "unbounded", "", ()),
        ("max(norm(x[i]) for i in tokens) is bounded", "bounded", "", ()),
        ("sum(norm(x[a]) for a in tokens) + norm(x[k]) is nondecreasing", "trend", "nondecreasing", ("k",)),
        ("eventually norm(x[i]) <= 1", "eventually", "<=", ("i",)),
        ("rate of norm(x[i]) >= 1/2", "rate", ">=", ("i",)),
        ("power of norm(x[i]) == -1/2", "power", "==", ("i",)),
        ("norm(x[i])^2 <= exp(t) always", "compare", "<=", ("i",)),
        ("at most 2 clusters", "limit", "", ("i", "j", "k")),
        ("at most 1 cluster", "limit", "", ("i", "j")),
    ],
)
def test_kinds_of_conclusions(text, kind, relation, free):
    found = conclusion(text)
    assert (found.kind, found.relation, found.free) == (kind, relation, free)
    assert found.asymptotic == (kind not in ("compare", "trend"))


def test_free_indices_stand_for_different_tokens():
    found = list(assignments(("i", "j"), 3))
    assert len(found) == 6
    assert all(at["i"] != at["j"] for at in found)
    assert list(assignments(("i", "j", "k"), 2)) == []
    assert list(assignments((), 2)) == [{}]


def test_a_chain_is_several_comparisons():
    assert [one.text for one in parse_comparison("0 < a <= 2")] == ["0 < a", "a <= 2"]


# Values: the same in floats and exactly

RATIONALS = st.integers(-12, 12).map(lambda k: Fraction(k, 4))
POSITIVE = st.integers(1, 12).map(lambda k: Fraction(k, 4))
VECTORS = st.lists(RATIONALS, min_size=2, max_size=2)
MATRICES = st.lists(VECTORS, min_size=2, max_size=2)
CONTEXT = {"a": 0, "q": 0, "u": 1, "v": 1, "M": 2, "N": 2}
"""a and q > 0 are numbers, u and v vectors, M and N matrices, all for d = 2."""
DRAWN = st.tuples(
    RATIONALS, POSITIVE, VECTORS, VECTORS, MATRICES, MATRICES, st.lists(VECTORS, min_size=3, max_size=3)
)

ARGUMENTS = {(0,): "q", (1,): "u", (2,): "M", (1, 1): "u, v", (2, 1): "M, v", (2, 2): "M, N @ N.T + eye(d)"}
EXPRESSIONS = [
    *(f"{name}({ARGUMENTS[ranks]})" for name, (ranks, _) in FUNCTIONS.items()),
    "abs(a)",
    "sin(a)",
    "tanh(a)",
    "exp(a)",
    "norm(u)",
    "norm(M)",
    "norm(u - u)",
    "eye(d)",
    "eye(2) - M",
    "diag(a, q)",
    "diag(1, 2, 3)",
    "a + q*a - q/3",
    "-a^2",
    "q**(1/2)",
    "q^1.5",
    "a**-1*a",
    "2*M - N.T",
    "M @ N @ u",
    "u @ M",
    "u @ v",
    "M/q",
    "M**3",
    "pi*e",
    "0.1 + 1e-2",
    "[a, q]",
    "[[1, -a], [a, 1]] @ u",
    "u[2]",
    "M[1, 2]",
    "x[3][1]",
    "x[n][2]*n",
    "x[n - 1] @ x[1]",
    "max(a, q, 1)",
    "min(u[1], v[1])",
    "sum(x[i] for i in tokens)",
    "mean(norm(x[i]) for i in tokens)",
    "max(inner(x[i], x[j]) for i in tokens for j in tokens if i < j)",
    "sum(i*norm(x[i]) for i in tokens if i != 2)",
    "min(x[i][1] for i in tokens if i >= 2)",
    "sum(a for i in tokens if i > n)",
]


def _floats(rank: int, data) -> Value:
    tensor = torch.tensor([float(data)] if rank == 0 else _nested(data), dtype=torch.float64)
    return Value(rank, tensor if rank == 0 else tensor[None])


def _nested(data):
    return [_nested(part) for part in data] if isinstance(data, list) else float(data)


def _exact(data):
    return (
        [_exact(part) for part in data] if isinstance(data, list) else fmpq(data.numerator, data.denominator)
    )


def _both(text: str, drawn) -> tuple[Value, Value]:
    """The value of an expression in Floats and in Exact, over the same rationals."""
    *named, tokens = drawn
    expression = parse(text)
    values = dict(zip(CONTEXT, named, strict=True))
    floats = {name: _floats(CONTEXT[name], data) for name, data in values.items()}
    exactly = {name: Value(CONTEXT[name], _exact(data)) for name, data in values.items()}
    algebra, exact = Floats(1), Exact()
    floats["d"], exactly["d"] = algebra.number(2), exact.number(2)
    left = Evaluation(algebra, floats, lambda _, at: _floats(1, tokens[at[0] - 1]), 3)(expression)
    right = Evaluation(exact, exactly, lambda _, at: Value(1, _exact(tokens[at[0] - 1])), 3)(expression)
    return left, right


def _middles(data):
    if isinstance(data, list):
        return [_middles(part) for part in data]
    return float(data.mid()) if isinstance(data, arb) else float(data.p) / float(data.q)


@pytest.mark.parametrize("text", EXPRESSIONS)
@settings(max_examples=12)
@given(drawn=DRAWN)
def test_floats_and_exact_arithmetic_agree(text, drawn):
    a, _, u, _, M, _, _ = drawn
    assume(a != 0 and any(u))
    assume(abs(M[0][0] * M[1][1] - M[0][1] * M[1][0]) > Fraction(1, 8))
    left, right = _both(text, drawn)
    assert left.rank == right.rank
    expected = torch.tensor(_middles(right.data), dtype=torch.float64)
    # Eigenvalues near a double one carry the square root of the rounding: 1e-7 for numbers up to 100.
    torch.testing.assert_close(left.data[0], expected, rtol=1e-9, atol=1e-7)


def test_rational_functions_of_rationals_are_exact():
    drawn = (
        Fraction(1, 2),
        Fraction(9, 4),
        [Fraction(3), Fraction(4)],
        [Fraction(1), Fraction(0)],
        [[Fraction(1), Fraction(2)], [Fraction(-2), Fraction(1)]],
    )
    drawn = (*drawn, [[Fraction(1), Fraction(0)], [Fraction(0), Fraction(2)]], [[Fraction(0)] * 2] * 3)
    expected = {
        "norm(u)": 5,
        "sqrt(q)": (3, 2),
        "det(M)": 5,
        "inv(N)[2, 2]": (1, 2),
        "norm(M - M)": 0,
        "eigmin(M - M)": 0,
        "unit(u)[2]": (4, 5),
        "exp(0)": 1,
        "q^-1": (4, 9),
    }
    for text, value in expected.items():
        found = _both(text, drawn)[1].data
        assert found == (fmpq(*value) if isinstance(value, tuple) else value), text


@pytest.mark.parametrize("entries", [(1, 1, 1), (1, 1, 4), (2, -3, -3), (0, 0, 5)])
def test_repeated_eigenvalues_are_enclosed(entries):
    M = Value(2, [[fmpq(entries[r] if r == c else 0) for c in range(3)] for r in range(3)])
    exact = Exact()
    metric = exact.call("diag", [exact.number(k) for k in (1, 1, 1)])
    expected = {
        "eigmin": min(entries),
        "eigmax": max(entries),
        "abscissa": max(entries),
        "radius": max(map(abs, entries)),
    }
    for name, value in {**expected, "spectral_norm": expected["radius"]}.items():
        assert _middles(exact.call(name, [M]).data) == pytest.approx(value, abs=1e-12), name
    assert _middles(exact.call("pencil_min", [M, metric]).data) == pytest.approx(min(entries), abs=1e-12)


def test_what_cannot_be_enclosed_is_no_number():
    """An irrational matrix with a repeated eigenvalue: NaN decides no comparison, while 0 would."""
    exact = Exact()
    root = exact.call("sqrt", [exact.number(2)])
    M = exact.call("diag", [root, root, exact.number(3)])
    found = exact.call("spectral_norm", [M]).data
    assert found.is_nan() or found.overlaps(arb(3))
    assert not found < arb(3)


@pytest.mark.parametrize("name", ["sqrt", "sin", "tan", "sinh", "tanh", "lambertw"])
def test_a_ball_about_zero_is_not_zero(name):
    found = Exact().call(name, [Value(0, arb(0, 1e-9).nonnegative_part())]).data
    assert found.contains(arb(1e-10))
    assert found.upper() > 0


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("M * N", "@"),
        ("u + a", "a vector (2) + a number"),
        ("a @ q", "@"),
        ("u / v", "a vector (2) / a vector (2)"),
        ("norm(a)", "norm"),
        ("det(u)", "det of a matrix"),
        ("quad(u, M)", "quad of a matrix and a vector"),
        ("frobenius(M)", "fro"),
        ("x[4]", "tokens = [3, 5]"),
        ("x[0]", "tokens 1"),
        ("x[1, 2]", "one index"),
        ("x", "x[i]"),
        ("M[1]", "2 indices"),
        ("M[3, 1]", "dimension"),
        ("max(u, v)", "compares numbers"),
        ("M**0.5", "whole exponent"),
        ("max(a for i in tokens if i > n)", "more tokens"),
        ("sum(a for i in range)", "for i in tokens"),
        ("[u, a]", "rows of numbers"),
        ("[]", "rows of numbers"),
        ("[[1, 2], [3]]", "rows of numbers"),
        ("[1, 2, 3] + u", "a vector (3) + a vector (2)"),
        ("eye(3) @ u", "(3 × 3) @ a vector (2)"),
        ("[[1, 2, 3], [3, 4, 5]] ** 2", "(2 × 3)"),
        ("det([[1, 2, 3], [3, 4, 5]])", "(2 × 3)"),
        ("inner(u, [1, 2, 3])", "here of a vector (2) and a vector (3)"),
        ("quad(M, [1, 2, 3])", "here of a matrix (2 × 2) and a vector (3)"),
        ("sum(u, [1, 2, 3])", "check the arguments"),
        ("eye(q)", "whole number"),
        ("M**9", "whole exponent"),
        ("max()", "compares numbers"),
        ("a if q else a", "x[i]"),
        ("a.real", "x[i]"),
        ("'a'", "x[i]"),
        ("unknown", "declare"),
    ],
)
def test_both_algebras_refuse_the_same_mistakes_with_a_hint(text, hint):
    one, two = Fraction(1), Fraction(2)
    matrix = [[one, two], [two, one]]
    tokens = [[one, two]] * 3
    values = {"a": one, "q": two, "u": [one, two], "v": [two, one], "M": matrix, "N": matrix}
    exactly = {name: Value(CONTEXT[name], _exact(data)) for name, data in values.items()}
    evaluate = Evaluation(Exact(), exactly, lambda _, at: Value(1, _exact(tokens[at[0] - 1])), 3)
    with pytest.raises(LanguageError) as caught:
        evaluate(parse(text))
    assert hint in f"{caught.value.got} {caught.value.expected} {caught.value.fix}"
    with pytest.raises(LanguageError):
        _both(text, (one, two, [one, two], [two, one], matrix, matrix, tokens))


# Recipes

PROPERTIES = {
    "symmetric": lambda M: _t(M) == M,
    "antisymmetric": lambda M: _times(M, -1) == _t(M),
    "diagonal": lambda M: all(M[r][c] == 0 for r in range(3) for c in range(3) if r != c),
    "orthogonal": lambda M: _dot(_t(M), M) == _unit(),
    "rotation": lambda M: _dot(_t(M), M) == _unit() and _det(M) == 1,
    "normal": lambda M: _dot(_t(M), M) == _dot(M, _t(M)),
    "identity": lambda M: _unit() == M,
    "scalar": lambda M: _times(_unit(), M[0][0]) == M,
    "positive semidefinite": lambda M: _semidefinite(M),
    "negative semidefinite": lambda M: _semidefinite(_times(M, -1)),
    "symmetric, positive semidefinite": lambda M: _t(M) == M and _semidefinite(M),
    "symmetric, negative semidefinite, rank 1": lambda M: (
        _t(M) == M and _semidefinite(_times(M, -1)) and _minors(M)
    ),
    "rank 1": lambda M: _minors(M),
    "symmetric, rank 1": lambda M: _t(M) == M and _minors(M),
    "rank 2": lambda M: _det(M) == 0,
    "nonnegative": lambda M: all(entry >= 0 for row in M for entry in row),
    "symmetric, nonnegative": lambda M: _t(M) == M and all(entry >= 0 for row in M for entry in row),
    "orthogonal, symmetric": lambda M: _t(M) == M and _dot(M, M) == _unit(),
    "normal, negative semidefinite": lambda M: (
        _dot(_t(M), M) == _dot(M, _t(M)) and _semidefinite(_times(M, -1))
    ),
    "diagonal, negative semidefinite": lambda M: M[0][1] == 0 and _semidefinite(_times(M, -1)),
}
"""Exact tests, for d = 3, of what a recipe promises by its formula alone."""


def _t(M):
    return [list(column) for column in zip(*M, strict=True)]


def _dot(M, N):
    return [
        [sum((a * b for a, b in zip(row, column, strict=True)), fmpq(0)) for column in zip(*N, strict=True)]
        for row in M
    ]


def _times(M, a):
    return [[a * entry for entry in row] for row in M]


def _unit():
    return [[fmpq(r == c) for c in range(3)] for r in range(3)]


def _det(M):
    return Exact().call("det", [Value(2, M)]).data


def _semidefinite(M):
    """Whether the symmetric part has no negative eigenvalue, by its inertia over the rationals."""
    found = inertia(symmetric_part(fmpq_mat(M)))
    return found is not None and found[0].negative == 0


def _minors(M):
    return all(
        M[a][c] * M[b][e] == M[a][e] * M[b][c]
        for a in range(3)
        for b in range(a)
        for c in range(3)
        for e in range(c)
    )


def _genome(text: str) -> Genome:
    return Genome(Claim("X tends to 0", matrices={"W": "any", "V": text}), 2, 3)


def _values(genome: Genome, numbers: list[Fraction]) -> dict[str, Value]:
    """All names of the claim, exactly."""
    return genome.values(ExactRow(numbers, genome), Exact())  # pyright: ignore[reportArgumentType]


def _drawn(genome: Genome, numbers: list[Fraction]) -> list[list[fmpq]]:
    return _values(genome, numbers)["V"].data


@pytest.mark.parametrize("text", PROPERTIES)
@settings(max_examples=12)
@given(data=st.data())
def test_recipes_give_their_properties_exactly(text, data):
    genome = _genome(text)
    numbers = data.draw(st.lists(RATIONALS, min_size=genome.size, max_size=genome.size))
    if "orthogonal, symmetric" in text:
        assume(any(numbers[genome.parts["_V"].place]))
    matrix = _drawn(genome, numbers)
    assert all(isinstance(entry, fmpq) for row in matrix for entry in row)
    assert PROPERTIES[text](matrix)


PLAIN = {
    "symmetric": lambda M: _t(M) == M,
    "antisymmetric": PROPERTIES["antisymmetric"],
    "diagonal": PROPERTIES["diagonal"],
    "orthogonal": PROPERTIES["orthogonal"],
    "rotation": PROPERTIES["rotation"],
    "normal": PROPERTIES["normal"],
    "identity": PROPERTIES["identity"],
    "scalar": PROPERTIES["scalar"],
    "nonnegative": PROPERTIES["nonnegative"],
    "rank 1": PROPERTIES["rank 1"],
}
SIGNED = ("positive definite", "negative semidefinite", "hurwitz", "indefinite")


@pytest.mark.parametrize("pair", [*combinations([*PLAIN, *SIGNED], 2)], ids=", ".join)
def test_no_word_of_a_pair_is_dropped(pair):
    """Either both hold for every draw, exactly or as a condition that is checked, or the pair is refused."""
    try:
        claim = Claim("X tends to 0", matrices={"W": "any", "V": ", ".join(pair)})
    except InputError:
        return
    genome, conditions = Genome(claim, 2, 3), " ".join(claim.recipes["V"].conditions)
    numbers = [Fraction(1 + (7 * k * k + 3 * k) % 11, 3) * (-1) ** (k % 3) for k in range(genome.size)]
    matrix = _drawn(genome, numbers)
    for word in pair:
        if word in PLAIN:
            assert PLAIN[word](matrix), word
        else:
            assert CONDITIONS.get(word, "eigmin({0}) < 0").format("V") in conditions, word


@pytest.mark.parametrize("word", [word for word in PLAIN if word != "symmetric"])
def test_what_no_formula_gives_with_a_polynomial_is_refused(word):
    with pytest.raises(InputError, match="drop"):
        Claim("X tends to 0", matrices={"W": "any", "V": f"commutes with W, {word}"})


@settings(max_examples=12)
@given(data=st.data())
def test_a_hurwitz_matrix_has_a_lyapunov_matrix(data):
    """V = P^-1 (S - B B^T) with P = A A^T has P V + V^T P = -2 B B^T, negative definite for invertible B."""
    genome = _genome("hurwitz")
    numbers = data.draw(st.lists(RATIONALS, min_size=genome.size, max_size=genome.size))
    lower = [genome.parts[f"_{mark}_V"].place for mark in "01"]
    diagonal = [numbers[place.start + k] for place in lower for k in (0, 2, 5)]
    assume(all(diagonal))
    V = _drawn(genome, numbers)
    factor = ExactRow(numbers, genome).part(genome.parts["_0_V"], 3).data
    P = _dot(factor, _t(factor))
    form = _dot(P, V)
    # All leading minors of -(PV + V^T P) are positive: Sylvester's criterion.
    N = [[-(form[r][c] + form[c][r]) for c in range(3)] for r in range(3)]
    assert N[0][0] > 0
    assert N[0][0] * N[1][1] > N[0][1] * N[1][0]
    assert _det(N) > 0


@settings(max_examples=12)
@given(data=st.data())
def test_commuting_matrices_commute(data):
    genome = Genome(Claim("X tends to 0", matrices={"W": "any", "V": "commutes with W"}), 2, 3)
    numbers = data.draw(st.lists(RATIONALS, min_size=genome.size, max_size=genome.size))
    values = _values(genome, numbers)
    V, W = values["V"].data, values["W"].data
    assert _dot(V, W) == _dot(W, V)


@pytest.mark.parametrize(
    ("text", "count"),
    [("1 positive eigenvalue", 1), ("symmetric, 2 positive eigenvalues", 2), ("0 positive eigenvalues", 0)],
)
def test_inertia(text, count):
    genome = _genome(text)
    raw = torch.randn(64, genome.size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    V = genome.values(FloatRows(raw, genome), Floats(64))["V"].data  # pyright: ignore[reportArgumentType]
    eigenvalues = torch.linalg.eigvalsh((V + V.mT) / 2)
    assert ((eigenvalues > 0).sum(-1) == count).all()


@pytest.mark.parametrize("text", ["> 0", "<= 1", "-1..1", "> 1/3", "< -2.5", "2"])
@settings(max_examples=12)
@given(value=RATIONALS)
def test_scalars_lie_in_their_range(text, value):
    claim = Claim("X tends to 0", scalars={"c": text})
    formula, _ = claim.ranges["c"]
    found = Evaluation(
        Exact(),
        {raw_scalar("c"): Value(0, fmpq(value.numerator, value.denominator))},
        lambda *_: Value(0, 0),
        1,
    )(formula).data
    low, high = {
        "> 0": (0, math.inf),
        "<= 1": (-math.inf, 1),
        "-1..1": (-1, 1),
        "> 1/3": (1 / 3, math.inf),
        "< -2.5": (-math.inf, -2.5),
        "2": (2, 2),
    }[text]
    assert low <= float(found.p) / float(found.q) <= high


def test_definitions_in_a_circle_are_refused():
    genome = Genome(Claim("X tends to 0", define={"V": "W", "W": "V"}), 2, 2)
    with pytest.raises(InputError, match="circle"):
        _values(genome, [Fraction(0)] * genome.size)


# The library and the test sets


def test_the_library_is_as_large_as_it_should_be():
    papers = {
        word.strip(",;:")
        for path in LIBRARY
        for word in read_claim(path).source.split()
        if word[:4].isdigit() and "." in word
    }
    assert len(LIBRARY) >= 18
    assert len(papers) >= 6


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_library_claims_have_a_title_a_source_and_say_what_is_known(path):
    claim = read_claim(path)
    assert claim.title != path.stem
    assert "restated" in claim.source or claim.source.startswith("registry")
    assert path.read_text().startswith("# Known: ")


def test_the_test_sets_are_large_enough_and_say_why():
    assert len(FALSE) >= 32
    assert len(TRUE) >= 22
    assert all(path.read_text().startswith("# ") for path in [*FALSE, *TRUE])
    outcomes = {
        json.dumps({**read_claim(path).describe(), "title": ""}, sort_keys=True): path.parent.name
        for path in FALSE
    }
    for path in TRUE:
        assert json.dumps({**read_claim(path).describe(), "title": ""}, sort_keys=True) not in outcomes, path


# The how-to page

PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")


def test_the_page_names_every_entry_property_function_and_short_form():
    wanted = [
        *(entry.name for entry in fields(Claim)),
        *WORDS,
        *FUNCTIONS,
        *ENCODINGS,
        *QUANTIFIERS,
        *SUGAR,
        *TRENDS,
        *REDUCTIONS,
        *PER_TOKEN,
        *PER_PAIR,
    ]
    assert [word for word in wanted if not re.search(rf"\b{re.escape(word)}\b", PAGE)] == []


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_the_claims_on_the_page_can_be_read(tmp_path, block):
    path = tmp_path / "claim.toml"
    path.write_text(block, encoding="utf-8")
    claim = read_claim(path)
    genome = Genome(claim, 2, 2)
    numbers = [Fraction(1 + 3 * k % 5, 2) for k in range(genome.size)]
    assert set(claim.names) <= set(_values(genome, numbers))
