"""Derived regions against the exact deciders, the registry, and each other; and what is refused."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import (
    And,
    Eq,
    Integer,
    Matrix,
    Ne,
    Or,
    Rational,
    Symbol,
    atan,
    cos,
    false,
    gamma,
    pi,
    sin,
    sqrt,
    true,
)

from theory import closed_form, conditions
from theory.closed_form import instance_of, recheck, stages
from theory.conditions import ROWS, derive
from theory.errors import DerivationError, InputError
from theory.expressions import parse_matrix
from theory.hypotheses import A_DEFINITE, A_NEGATIVE, W_DEFINITE, W_POSITIVE
from theory.instance import Instance
from theory.region import Region, decide, text
from theory.registry import statements
from theory.semialgebraic.problem import Inputs
from theory.verdict import Grade, Status, undecided
from theory.worker import Outcome, messages

a, b, c, d, theta = (Symbol(name, real=True) for name in ("a", "b", "c", "d", "theta"))
ROTATION = "[[cos(theta), -sin(theta)], [sin(theta), cos(theta)]]"
EYE = "[[1, 0], [0, 1]]"


def in_process(function, context, jobs, timeout):
    """theory.worker.run without a child process."""
    found = []
    for job in jobs:
        said = list(messages(function, context, job))
        if said[-1][0] == "input":
            raise InputError(**said[-1][1])
        items = [content for kind, content in said if kind == "item"]
        found.append(Outcome(items[-1] if items else None, "" if said[-1][0] == "done" else str(said[-1])))
    return found


@pytest.fixture
def here(monkeypatch):
    """`derive` in this process."""
    monkeypatch.setattr(conditions, "run", in_process)
    return derive


# The rows are those of the theorems


def signed(row):
    """The row's hypotheses with its signs forgotten."""
    forget = {
        "A positive": A_DEFINITE.key,
        "A negative": A_DEFINITE.key,
        "W positive": W_DEFINITE.key,
        "W negative": W_DEFINITE.key,
    }
    return [forget.get(key, key) for key in row.hypotheses]


@pytest.mark.parametrize("row", [r for r in ROWS if r.encoding == "none"], ids=lambda r: r.name)
def test_every_row_has_the_hypotheses_of_its_statements(row):
    """What a theorem asks of the weights is what the row asks, with one choice for each sign."""
    for identifier in row.says:
        keys = {h.key for h in statements()[identifier].hypotheses if h.on == "weights"}
        assert len(keys) == len(row.hypotheses), identifier
        for own, forgotten in zip(row.hypotheses, signed(row), strict=True):
            assert {own, forgotten} & keys, (identifier, own)


@pytest.mark.parametrize(
    ("identifier", "definite"),
    [("T1", A_DEFINITE), ("T4", A_DEFINITE), ("T5", A_DEFINITE), ("T10", A_DEFINITE), ("T10", W_DEFINITE)],
)
def test_a_definite_matrix_has_a_row_for_each_sign(identifier, definite):
    letter = definite.key[0]
    rows = [row for row in ROWS if identifier in row.says]
    found = {
        key for row in rows for key in row.hypotheses if key in (f"{letter} positive", f"{letter} negative")
    }
    assert found == {f"{letter} positive", f"{letter} negative"}
    assert len(rows) == (4 if identifier == "T10" else 2)


def test_rows_use_known_hypotheses():
    beyond = {"W negative", "positive eigenvalue", "rotary margin"}
    assert {key for row in ROWS for key in row.hypotheses} - beyond <= closed_form.HYPOTHESES.keys()


# Against the exact deciders


@pytest.fixture(scope="module")
def general():
    """General 2×2 W and V: every region of it, derived once."""
    score, value = parse_matrix("score", "[[a, b], [c, d]]"), parse_matrix("value", "[[p, q], [r, s]]")
    inputs = Inputs(score=score, value=value)
    rows = [row for row in ROWS if {"T1", "T2", "T5", "T6", "T17"} & row.says.keys()]
    return [list(stages(inputs, row))[-1] for row in rows]


ENTRIES = st.lists(st.integers(-2, 2), min_size=4, max_size=4)


def decided(row, instance) -> bool:
    """All hypotheses of a row, by theory.hypotheses."""
    negative = Instance.of(
        score=[[-e for e in line] for line in rational(instance.form)], value=rational(instance.value)
    )
    found = []
    for key in row.hypotheses:
        if key == "W negative":
            found.append(W_POSITIVE.decide(negative).holds)
        else:
            key = {"positive eigenvalue": "rate positive"}.get(key, key)
            found.append(closed_form.HYPOTHESES[key].decide(instance).holds)
    return all(found)


def rational(matrix):
    return [[Fraction(int(e.p), int(e.q)) for e in row] for row in matrix.tolist()]


@given(ENTRIES, ENTRIES, st.booleans())
@settings(max_examples=100)
def test_a_point_lies_in_a_region_iff_the_hypotheses_hold_there(general, score, value, tied):
    """Exactly, boundaries included; half of the systems have W = ±V, so that A is symmetric."""
    value = [-e for e in score] if tied and value[0] < 0 else score if tied else value
    instance = Instance.of(score=[score[:2], score[2:]], value=[value[:2], value[2:]])
    point = dict(zip("abcdpqrs", (*score, *value), strict=True))
    for region in general:
        verdict = region.contains(point)
        assert verdict.grade is Grade.EXACT
        assert verdict.holds == decided(region.row, instance), (region.name, point)


def test_branches_are_the_region(general):
    """At its own point a region's conditions hold, and so do those of one of its branches."""
    for region in general:
        assert region.status is Status.HOLDS
        assert region.contains(region.point).holds
        if region.branches:
            parts = [And(*case.equations, *case.conditions) for case in region.branches]
            assert decide(Or(*parts), region.point).holds


def test_a_wrong_point_is_noticed():
    """The deciders of theory.hypotheses have the last word."""
    inputs = Inputs(score=parse_matrix("s", "[[a]]"), value=parse_matrix("v", "[[b]]"))
    row = next(row for row in ROWS if "T2" in row.says)
    recheck(inputs, row, {a: Integer(1), b: Integer(-1)})
    recheck(inputs, row, {a: sqrt(2), b: Integer(1)})  # not rational: nothing to decide
    with pytest.raises(DerivationError, match="'A negative' fails"):
        recheck(inputs, row, {a: Integer(1), b: Integer(1)})


@pytest.mark.parametrize(
    "given_",
    [
        {"score": [[1]], "value": [[-2]]},
        {"query": [[1], [1]], "key": [[2], [3]], "value": [[-2]]},
        {"score": [[1]], "response": [[-1]]},
        {"response": [[-1]], "value": [[-2]]},
        {"response": [[-1]]},
        {"value": [[-2]]},
    ],
)
def test_instances_of_every_kind_of_input(given_):
    instance = instance_of({name: parse_matrix(name, m) for name, m in given_.items()})
    assert A_NEGATIVE.decide(instance).holds
    if "value" in given_:
        assert rational(instance.value) == [[Fraction(-2)]]


# Inputs of every kind


def conditions_of(found, statement):
    return [[text(condition) for condition in region.conditions] for region in found.about(statement)]


def test_a_child_process_gives_the_same():
    found = derive("[[q]]", "[[k]]", "[[v]]", where="q > 0", statements=["T2", "t17"])
    assert conditions_of(found, "T2") == [["k > 0", "v < 0"]]
    assert conditions_of(found, "T17") == [["v > 0"]]
    k, q, v = (Symbol(name, real=True) for name in "kqv")
    assert found.shown["$V^\\top Q^\\top K$"] == Matrix([[k * q * v]])
    assert [region.statements for region in found.regions] == [("T2", "T4", "T10"), ("T17",)]


def test_sympy_matrices_and_their_assumptions(here):
    p, x = Symbol("p", positive=True), Symbol("x")
    found = here(score=Matrix([[p]]), value=[[x]], statements=["T2"])
    assert found.assumptions == (Symbol("p", real=True) > 0,)
    assert conditions_of(found, "T2") == [["x < 0"]]


def test_the_scale_and_the_height_of_projections_do_not_matter(here):
    found = here(query="[[1], [2], [q]]", key="[[k], [k], [0]]", value="[[-1]]", statements=["T2"])
    assert conditions_of(found, "T2") == [["k > 0"]]


def test_value_and_response_determine_the_scores(here):
    found = here(response="[[a]]", value="[[b]]", statements=["T2"])
    assert conditions_of(found, "T2") == [["a < 0", "b < 0"]]


def test_rational_entries_and_their_domain(here):
    found = here(score="[[1/a]]", value="[[-1/(b - 1)]]", statements=["T2", "T6"])
    assert set(found.assumptions) == {Ne(a, 0), Ne(b - 1, 0)}
    assert conditions_of(found, "T2") == [["a > 0", "b > 1"]]
    assert conditions_of(found, "T6") == [["b < 1"]]
    assert found.about("T2")[0].contains({"a": "1/2", "b": 1}).fails


def test_roots_exponentials_and_half_angles(here):
    found = here(
        score="[[sqrt(a)]]", value="[[-exp(b)*tan(theta/2)]]", where="0 < theta < pi", statements=["T2"]
    )
    region = found.about("T2")[0]
    assert {text(condition) for condition in region.conditions} in ({"sqrt(a) > 0"}, {"a > 0"})
    assert region.contains({"a": 4, "b": 1, "theta": "pi/2"}).holds
    assert region.contains({"a": 0, "b": 1, "theta": "pi/2"}).fails
    assert region.contains({"a": 4, "b": 1, "theta": 4}).fails


def test_a_fixed_symbol_is_substituted(here):
    found = here(score="[[cos(theta)*a]]", value="[[-1]]", where="theta = pi/3, a < theta", statements=["T2"])
    assert conditions_of(found, "T2") == [["a > 0"]]
    with pytest.raises(InputError, match="where: got"):
        here(score="[[a]]", value="[[-1]]", where=["a = 1", "a < 0"])


def test_angles_give_exact_points(here):
    region = here(score=ROTATION, response="[[-1, 0], [0, -1]]", statements=["T2"]).about("T2")[0]
    assert [text(condition) for condition in region.conditions] == ["cos(theta) > 0"]
    assert region.verdict.grade is Grade.EXACT
    assert cos(region.point[theta]).is_Rational


def test_a_singular_value_map_leaves_no_response(here):
    found = here(score="[[a, b], [c, d]]", value="[[p, p], [q, q]]")
    for identifier in ("T1", "T2", "T3", "T5", "T10"):
        assert {region.status for region in found.about(identifier)} == {Status.FAILS}
    assert found.about("T6")[0].everywhere


def test_definite_for_all_values_is_everywhere(here):
    found = here(score="[[1 + a**2, a], [a, 1]]", value="[[-1, 0], [0, -1]]")
    assert found.about("T2")[0].everywhere
    assert found.about("T3")[0].status is Status.FAILS
    assert "V is Hurwitz for all values" in found.about("T6")[0].reason


def test_contradictory_assumptions_leave_nothing(here):
    found = here(score="[[a]]", value="[[b]]", where="a > 0, a < -b**2")
    assert {region.status for region in found.regions} == {Status.FAILS}
    assert found.regions[0].contains({"a": 1, "b": -1}).fails


def test_a_region_without_points_or_proof_is_undecided(here, monkeypatch):
    monkeypatch.setattr(closed_form, "find_points", lambda *_: iter(()))
    region = here(score="[[a]]", value="[[b]]", statements=["T2"]).about("T2")[0]
    assert region.status is Status.UNDECIDED
    assert "neither a point was found nor a proof" in region.reason
    assert [text(condition) for condition in region.conditions] == ["a > 0", "b < 0"]


def test_long_proofs_are_counted_not_printed(here, monkeypatch):
    monkeypatch.setattr(closed_form, "LONGEST_PROOF", 10)
    region = here(score="[[a, b], [b, -a]]", value=EYE, statements=["T3"]).about("T3")[0]
    assert region.status is Status.FAILS
    assert "exact certificate" in region.reason


def test_an_algebraic_point_is_certified_by_balls(here):
    """A root without radicals solves its equation only to within balls: not a proof."""
    region = here(score="[[a]]", value="[[-1]]", where="a**3 = a + 1", statements=["T2"]).about("T2")[0]
    assert (region.status, region.verdict.grade) == (Status.UNDECIDED, Grade.FLOAT)
    region = here(score="[[a]]", value="[[-1]]", where="a**2 = 2", statements=["T2"]).about("T2")[0]
    assert (region.point, region.verdict.grade) == ({a: sqrt(2)}, Grade.INTERVAL)


def test_cases_within_others_are_left_out(here):
    assert conditions_of(here(value="[[a, 0], [0, 2*a]]", statements=["T17"]), "T17") == [["a > 0"]]


def test_branches_that_contradict_themselves_are_left_out(here):
    found = here(score="[[a, 0], [0, b]]", value="[[c, -s], [s, c]]", statements=["T1"])
    for region in found.about("T1"):
        (case,) = region.branches
        assert [text(equation) for equation in case.equations] == ["s = 0"]


def test_rotary_encoding_asks_only_what_is_stated_for_it(here):
    request = {"query": EYE, "key": EYE, "value": "[[-v, 0], [0, -v]]", "rotation": ROTATION, "context": 2}
    found = here(**request)
    assert {name for region in found.regions for name in region.says} == {"T6", "T13", "T17"}
    assert found.left_out == ("T1, T2, T3, T4, T5, T10: stated for attention without rotary encoding",)
    assert conditions_of(found, "T13") == [["v < 0", "cos(theta) > 1/2"], ["v > 0", "cos(theta) > 1/2"]]


def test_the_rotary_margin_with_a_given_response(here):
    """A = −1: V = −W, and the margin compares W_r − W with W_s itself."""
    request = {"query": EYE, "key": "[[a, 0], [0, a]]", "rotation": ROTATION, "context": 2}
    found = here(**request, response="[[-1, 0], [0, -1]]", statements=["T13"])
    assert [region.status for region in found.regions] == [Status.FAILS, Status.HOLDS]
    assert conditions_of(found, "T13")[1] == ["a > 0", "cos(theta) > 1/2"]


def test_matrices_that_are_missing_leave_statements_out(here):
    assert here(value="[[a]]").left_out == (
        "T2, T3, T4, T5, T10: needs W (give query and key, or score)",
        "T1: needs A = W V⁻¹ (give query and key, or score)",
    )
    only = here(response="[[a]]")
    assert [region.statements for region in only.regions] == [("T1",), ("T1",)]
    assert "T6, T17: needs V (give value, or score beside response)" in only.left_out
    assert here(value="[[a]]", statements=["T13"]).left_out == (
        "T13: about rotary encoding (give a rotation and a context)",
    )
    with pytest.raises(InputError, match="statement: got 'T2'"):
        only.about("T2")


# Time limits


def test_what_does_not_finish_in_time_says_so_and_what_it_has():
    score = [[f"w{i}{j}" for j in range(4)] for i in range(4)]
    value = [[f"v{i}{j}" for j in range(4)] for i in range(4)]
    found = derive(score=score, value=value, statements=["T3"], timeout=1)
    (region,) = found.about("T3")
    assert region.status is Status.UNDECIDED
    assert region.reason.startswith("the time limit of 1 s was reached; so far: ")
    assert region.contains({}).status is Status.UNDECIDED or region.conditions is not None


# Verdicts on points


@pytest.mark.parametrize(
    ("condition", "point", "status", "grade"),
    [
        (a > 0, {a: Rational(1, 3)}, Status.HOLDS, Grade.EXACT),
        (a > 0, {a: Integer(0)}, Status.FAILS, Grade.EXACT),
        (a >= 0, {a: Integer(0)}, Status.HOLDS, Grade.EXACT),
        (Eq(a, b), {a: Integer(1), b: Integer(1)}, Status.HOLDS, Grade.EXACT),
        (Ne(a, b), {a: Integer(1), b: Integer(1)}, Status.FAILS, Grade.EXACT),
        (a < 4, {a: pi}, Status.HOLDS, Grade.INTERVAL),
        (a > 4, {a: pi}, Status.FAILS, Grade.INTERVAL),
        (a <= pi, {a: sqrt(2)}, Status.HOLDS, Grade.INTERVAL),
        (Eq(a, 3), {a: pi}, Status.FAILS, Grade.INTERVAL),
        (Ne(a, 3), {a: pi}, Status.HOLDS, Grade.INTERVAL),
        (cos(2 * theta) < 0, {theta: sin(1)}, Status.HOLDS, Grade.INTERVAL),
        (cos(2 * theta) > 0, {theta: atan(Rational(3, 4))}, Status.HOLDS, Grade.EXACT),
        (Eq(a**2, b), {a: cos(1), b: 1 - sin(1) ** 2}, Status.UNDECIDED, Grade.FLOAT),
        (And(a > 0, b > 0), {a: Integer(1), b: Integer(-1)}, Status.FAILS, Grade.EXACT),
        (Or(a > 0, b > 0), {a: Integer(1), b: Integer(-1)}, Status.HOLDS, Grade.EXACT),
        (Or(a > 0, b > 0), {a: Integer(-1), b: Integer(-1)}, Status.FAILS, Grade.EXACT),
        (Or(a > 0, Eq(c, 1)), {a: -pi, c: cos(1) ** 2 + sin(1) ** 2}, Status.UNDECIDED, Grade.FLOAT),
        (true, {}, Status.HOLDS, Grade.EXACT),
        (false, {}, Status.FAILS, Grade.EXACT),
    ],
)
def test_conditions_are_decided_in_three_values(condition, point, status, grade):
    verdict = decide(condition, point)
    assert (verdict.status, verdict.grade) == (status, grade)


def test_what_cannot_be_enclosed_is_undecided():
    assert decide(a > 0, {a: gamma(Rational(1, 3))}).status is Status.UNDECIDED


def test_points_may_be_named_by_text_and_must_be_complete():
    region = Region(ROWS[0], (a > 0,), conditions=(a < b,))
    assert region.contains({"a": "1/3", b: 1}).holds
    assert region.contains({"a": 2, "b": "sqrt(2)"}).fails
    with pytest.raises(InputError, match="no value for b"):
        region.contains({"a": 1})
    assert Region(ROWS[0], ()).contains({}).status is Status.UNDECIDED
    assert Region(ROWS[0], (), verdict=undecided("why")).reason == "why"


def test_conditions_are_printed_in_the_syntax_of_the_input():
    assert text(Or(And(a > 0, b > 0), Eq(c, 1))) == "c = 1 or (a > 0 and b > 0)"
    assert text(Ne(a, 0)) == "a != 0"
    assert text(And(a > 0, Or(b > 0, c > 0))) == "a > 0 and (b > 0 or c > 0)"


# Refused


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({}, "value: got neither value nor response"),
        ({"score": "[[a]]"}, "value: got neither"),
        ({"query": "[[a]]", "value": "[[a]]"}, "query: got only one"),
        ({"query": "[[a]]", "key": "[[a]]", "score": "[[a]]", "value": "[[a]]"}, "score: got score beside"),
        ({"score": "[[a]]", "value": "[[a]]", "response": "[[a]]"}, "response: got W, V and A"),
        ({"score": "[[a, b]]", "value": "[[a]]"}, r"score: got shape \(1, 2\)"),
        ({"score": EYE, "value": "[[a]]"}, "the same d for all"),
        ({"query": "[[a, b]]", "key": "[[a]]", "value": "[[a]]"}, "key: got shape"),
        ({"query": "[[a]]", "key": "[[a]]", "value": "[[a]]", "context": 3}, "rotation: got only one"),
        (
            {"score": EYE, "value": EYE, "rotation": ROTATION, "context": 3},
            "a rotation without query and key",
        ),
        (
            {"query": EYE, "key": EYE, "value": EYE, "rotation": ROTATION, "context": 1},
            "context: got 1",
        ),
        (
            {"query": EYE, "key": EYE, "value": EYE, "rotation": ROTATION, "context": True},
            "context: got True",
        ),
        ({"query": EYE, "key": EYE, "value": EYE, "rotation": "[[1]]", "context": 2}, "rotation: got shape"),
        ({"query": EYE, "key": EYE, "value": EYE, "rotation": "[[1, a], [0, 1]]", "context": 2}, "R Rᵀ ≠ 1"),
        ({"value": "[[a]]", "timeout": 0}, "timeout: got 0"),
        ({"value": "[[a]]", "timeout": float("nan")}, "timeout: got nan"),
        ({"value": "[[a]]", "statements": ["T7"]}, "statements: got T7"),
        ({"value": "[[cos(theta) + cos(999*theta)]]"}, "angle: got multiples"),
        ({"value": "[[a]]", "where": "a > 0, 1 > 2"}, "where: got"),
    ],
)
def test_bad_requests_are_refused_with_a_fix(here, request_, message):
    with pytest.raises(InputError, match=message) as caught:
        here(**request_)
    assert caught.value.fix
