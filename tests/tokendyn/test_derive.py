"""Derived conditions against floating point on many points, the documented examples, and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console
from sympy import And, Eq, Ge, Gt, Le, Lt, Ne, Or, lambdify
from sympy.logic.boolalg import BooleanAtom

from theory import conditions
from theory.verdict import Status
from theory.worker import Outcome, messages
from tokendyn.cli import main
from tokendyn.derive import answer, exit_code, read_request
from tokendyn.derive_text import as_json, regions_text, render, where

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = {e["name"]: e for e in json.loads((DOCS / "derive_examples.json").read_text(encoding="utf-8"))}
POINTS, BATCH, MOST_BATCHES = 10_000, 50_000, 60
NEAR = 1e-9  # relative distance to a boundary below which floats decide nothing


def in_process(function, context, jobs, timeout):
    """theory.worker.run without a child process."""
    found = []
    for job in jobs:
        said = list(messages(function, context, job))
        items = [content for kind, content in said if kind == "item"]
        stopped = "" if said[-1][0] == "done" else str(said[-1])
        found.append(Outcome(items[-1] if items else None, stopped))
    return found


@pytest.fixture(scope="module")
def derived():
    """Every documented example, derived once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conditions, "run", in_process)
        return {name: answer(example["request"]) for name, example in EXAMPLES.items()}


# Floating point, independent of the derivation: from the user's matrices alone


class Numbers:
    """Arrays (points, rows, columns) of the matrices of a request, and of W, V and A, at many points."""

    def __init__(self, inputs, values: dict):
        self.size = len(next(iter(values.values())))
        given = {name: self.array(m, values) for name, m in inputs.matrices.items()}
        self.given, self.context = given, inputs.context
        self.W, self.V, self.A = given.get("score"), given.get("value"), given.get("response")
        if "query" in given:
            self.W = np.swapaxes(given["query"], 1, 2) @ given["key"] / np.sqrt(given["query"].shape[1])
        self.clear = np.ones(self.size, bool)  # nothing is nearly singular
        if self.W is not None and self.A is None:
            self.A = np.swapaxes(self.divide(np.swapaxes(self.V, 1, 2), np.swapaxes(self.W, 1, 2)), 1, 2)
        elif self.W is not None and self.V is None:
            self.V = self.divide(self.A, self.W)

    def array(self, matrix, values):
        entries = [np.broadcast_to(evaluate(e, values), self.size) for e in matrix]
        return np.stack(entries, axis=1).reshape(self.size, *matrix.shape)

    def divide(self, left, right):
        singular = np.linalg.cond(left) > 1e9
        self.clear &= ~singular
        return np.linalg.solve(np.where(singular[:, None, None], np.eye(left.shape[1]), left), right)


def evaluate(expression, values):
    names = list(values)
    return lambdify(names, expression, "numpy")(*values.values()) + np.zeros(len(next(iter(values.values()))))


def size_of(matrix):
    return np.abs(matrix).max(axis=(1, 2)) + 1e-300


def symmetric_part(matrix):
    return (matrix + np.swapaxes(matrix, 1, 2)) / 2


def symmetric(matrix):
    gap = size_of(matrix - np.swapaxes(matrix, 1, 2)) / size_of(matrix)
    return gap < NEAR, gap > 1e-6


def positive(matrix, sign=1):
    least = np.linalg.eigvalsh(sign * symmetric_part(matrix))[:, 0] / size_of(matrix)
    return least > NEAR, least < -NEAR


def not_hurwitz(value):
    most = np.linalg.eigvals(value).real.max(axis=1) / size_of(value)
    return most > NEAR, most < -NEAR


def positive_eigenvalue(value):
    found = np.linalg.eigvals(value) / size_of(value)[:, None]
    slope = np.abs(found.imag)
    real = (slope < NEAR) & (found.real > NEAR)
    unclear = ((slope >= NEAR) & (slope < 1e-6) & (found.real > -NEAR)) | (
        (slope < 1e-6) & (np.abs(found.real) <= NEAR)
    )
    return real.any(axis=1), ~real.any(axis=1) & ~unclear.any(axis=1)


def rotary_margin(numbers):
    """λ_min(Ŵ_s) − max_r ‖Ŵ_r − Ŵ‖ from the eigenvectors of ±A."""
    A = symmetric_part(numbers.A)
    A = A * np.where(np.trace(A, axis1=1, axis2=2) > 0, 1, -1)[:, None, None]
    values, vectors = np.linalg.eigh(A)
    usable = values[:, 0] > NEAR
    root = vectors / np.sqrt(np.where(usable[:, None], values, 1.0))[:, None, :]
    query, key, turn = (numbers.given[name] for name in ("query", "key", "rotation"))
    scale = np.sqrt(query.shape[1])

    def hat(matrix):
        return np.swapaxes(root, 1, 2) @ matrix @ root

    gaps = []
    for r in (r for r in range(1 - numbers.context, numbers.context) if r):
        step = turn if r > 0 else np.swapaxes(turn, 1, 2)
        power = np.linalg.matrix_power(step, abs(r))
        rotated = np.swapaxes(query, 1, 2) @ power @ key / scale
        gaps.append(np.linalg.norm(hat(rotated - numbers.W), ord=2, axis=(1, 2)))
    least = np.linalg.eigvalsh(hat(symmetric_part(numbers.W)))[:, 0]
    margin = (least - np.max(gaps, axis=0)) / (np.abs(least) + np.max(gaps, axis=0) + 1e-300)
    return usable & (margin > 1e-7), usable & (margin < -1e-7)


CHECKS = {
    "A symmetric": lambda n: symmetric(n.A),
    "A positive": lambda n: positive(n.A),
    "A negative": lambda n: positive(n.A, -1),
    "W symmetric": lambda n: symmetric(n.W),
    "W positive": lambda n: positive(n.W),
    "W negative": lambda n: positive(n.W, -1),
    "rotary margin": rotary_margin,
    "V not Hurwitz": lambda n: not_hurwitz(n.V),
    "positive eigenvalue": lambda n: positive_eigenvalue(n.V),
}


def hypotheses(row, numbers):
    """(all certainly hold, one certainly fails) in floating point."""
    pairs = [CHECKS[key](numbers) for key in row.hypotheses]
    holds = np.logical_and.reduce([pair[0] for pair in pairs])
    return holds & numbers.clear, np.logical_or.reduce([pair[1] for pair in pairs]) & numbers.clear


def region_of(condition, values):
    """(certainly true, certainly false) of a derived condition, away from its boundary."""
    size = len(next(iter(values.values())))
    if isinstance(condition, BooleanAtom):
        return np.full(size, bool(condition)), np.full(size, not condition)
    if isinstance(condition, And | Or):
        parts = [region_of(part, values) for part in condition.args]
        every, some = np.logical_and.reduce, np.logical_or.reduce
        one, other = (every, some) if isinstance(condition, And) else (some, every)
        return one([p[0] for p in parts]), other([p[1] for p in parts])
    left, right = (evaluate(side, values) for side in (condition.lhs, condition.rhs))
    gap = (left - right) / (np.abs(left) + np.abs(right) + 1e-300)
    above, below = gap > NEAR, gap < -NEAR
    if isinstance(condition, Gt | Ge):
        return above, below
    if isinstance(condition, Lt | Le):
        return below, above
    same = np.abs(gap) <= 1e-6
    return (~same, same & False) if isinstance(condition, Ne) else (np.abs(gap) <= NEAR, ~same)


def all_of(parts, values):
    return region_of(And(*parts), values) if parts else region_of(And(), values)


def box(derived, generator, count):
    """Random values of all symbols within the assumptions of the examples."""
    symbols = sorted({s for m in derived.inputs.matrices.values() for s in m.free_symbols}, key=str)
    values = {symbol: generator.uniform(-3, 3, count) for symbol in symbols}
    by_name = {symbol.name: symbol for symbol in symbols}
    if Eq(by_name.get("c", 0) ** 2 + by_name.get("s", 0) ** 2, 1) in derived.assumptions:
        turn = generator.uniform(-np.pi, np.pi, count)
        values[by_name["c"]], values[by_name["s"]] = np.cos(turn), np.sin(turn)
    if "theta" in by_name:
        high = np.pi if len(derived.inputs.matrices) > 2 else np.pi / 2
        values[by_name["theta"]] = generator.uniform(0, high, count)
    return values


def inside_points(derived, region, generator):
    """At least POINTS points in the region: free symbols random, solved ones from a branch's equations."""
    cases = region.branches or (None,)
    found, count = [], 0
    for batch in range(MOST_BATCHES):
        values = box(derived, generator, BATCH)
        case = cases[batch % len(cases)]
        for equation in reversed(case.equations if case else ()):
            assert equation.lhs.is_Symbol
            values[equation.lhs] = evaluate(equation.rhs, values)
        parts = [*(case.conditions if case else ()), *(region.conditions or ())]
        with np.errstate(all="ignore"):
            inside = all_of([p for p in (*parts, *derived.assumptions) if not isinstance(p, Eq)], values)[0]
            for equation in (p for p in (*parts, *derived.assumptions) if isinstance(p, Eq)):
                left, right = (evaluate(side, values) for side in equation.args)
                inside &= np.abs(left - right) <= 1e-9 * (np.abs(left) + np.abs(right) + 1e-300) + 1e-12
        found.append({symbol: column[inside] for symbol, column in values.items()})
        count += int(inside.sum())
        if count >= POINTS and batch + 1 >= len(cases):
            break
    return {s: np.concatenate([part[s] for part in found])[: 2 * POINTS] for s in found[0]}


def disagreement(found, region, generator) -> str:
    """What floating point says against a region, on POINTS points outside and as many inside; or nothing."""
    everything = box(found, generator, POINTS)
    holds, fails = hypotheses(region.row, Numbers(found.inputs, everything))
    if region.status is Status.FAILS:
        return "the hypotheses hold somewhere in an empty region" if holds.any() else ""
    outside = all_of(region.conditions, everything)[1]
    if (holds & outside).any():
        return "outside, yet the hypotheses hold"
    if (fails & outside).sum() < 0.95 * outside.sum():
        return "too many points outside were skipped"
    values = inside_points(found, region, generator)
    numbers = Numbers(found.inputs, values)
    if numbers.size < POINTS:
        return f"only {numbers.size} points inside"
    holds, fails = hypotheses(region.row, numbers)
    if fails.any():
        return "inside, yet a hypothesis fails"
    return "too many points inside were skipped" if holds.sum() < 0.95 * numbers.size else ""


@pytest.mark.parametrize("name", EXAMPLES)
def test_ten_thousand_points_agree_with_floating_point(name, derived):
    """Inside a region the hypotheses hold, outside one fails; points near a boundary are skipped and few."""
    generator = np.random.default_rng(0)
    settled = [region for region in derived[name].regions if region.status is not Status.UNDECIDED]
    for region in settled:
        assert disagreement(derived[name], region, generator) == "", region.name
    assert settled


def test_rotary_encoding_with_unequal_scores_agrees_with_floating_point(monkeypatch):
    """Neither side is a multiple of the metric: the condition needs the Kronecker product."""
    monkeypatch.setattr(conditions, "run", in_process)
    unequal = {"key": "[[a, 0], [0, 1]]", "value": "[[-1, 0], [0, -v]]", "context": 2}
    found = answer({**EXAMPLES["rotary"]["request"], **unequal, "statements": ["T13"]})
    assert [where(region) for region in found.regions] == ["nowhere", "somewhere"]
    for region in found.regions:
        assert disagreement(found, region, np.random.default_rng(0)) == "", region.name


@pytest.mark.parametrize(
    ("name", "statement"), [("blocks", "T2"), ("minus identity", "T17"), ("rotary", "T13")]
)
def test_a_wrong_region_is_noticed(name, statement, derived):
    """With one condition dropped or turned round, floating point disagrees."""
    region = derived[name].about(statement)[0]
    proper = [c for c in region.conditions if not isinstance(c, Eq)]
    for condition in proper:
        rest = tuple(c for c in region.conditions if c is not condition)
        for wrong in (rest, (*rest, condition.negated)) if condition.is_Relational else (rest,):
            changed = replace(region, conditions=wrong, branches=())
            if not any(isinstance(c, Eq) for c in wrong):
                assert disagreement(derived[name], changed, np.random.default_rng(0)), condition


# The documented examples


def documented(found, example) -> str:
    shown = [region for region in found.regions if set(region.statements) & set(example["shown"])]
    return regions_text(shown, Console(width=110))


def test_the_documentation_shows_what_is_derived(derived):
    """docs/derive.md holds for every example its request as a command and these regions, word for word."""
    written = (DOCS / "derive.md").read_text(encoding="utf-8")
    for name, example in EXAMPLES.items():
        assert f"## {example['title']}\n" in written
        assert f"```\n{documented(derived[name], example).strip()}\n```" in written, name
        for key, value in example["request"].items():
            assert f"--{key} '{value}'" in written or f"--{key} {value}" in written, (name, key)


@pytest.mark.parametrize(
    ("name", "statement", "conditions_"),
    [
        ("scalar", "T2", ["v < 0", "k*q > 0"]),
        ("diagonal", "T2", ["a > 0", "b > 0", "c < 0", "d < 0"]),
        ("rotation values", "T2", ["s = 0", "c = -1"]),
        ("rotation values", "T17", ["s = 0", "c = 1"]),
        ("symmetric", "T3", ["a > 0", "p > 0", "a*d > b**2", "p*r > q**2"]),
        ("minus identity", "T2", ["a > 0", "4*a*d > (b + c)**2"]),
        ("minus identity", "T6", ["a + d <= 0 or b*c >= a*d"]),
        ("rotary", "T13", ["a > 0", "v < 0", "cos(theta) > 1/2", "cos(2*theta) > 1/2"]),
        ("T7", "T6", ["cos(2*theta) <= 0"]),
        ("blocks", "T17", ["q = 0", "p > 0"]),
        ("circulant", "T2", ["r = q", "a + 2*b > 0", "a > b", "q > p", "p + 2*q < 0"]),
        ("companion", "T6", ["a <= 0 or d <= 0 or b >= c*d or a*d**2 + b**2 >= b*c*d"]),
    ],
)
def test_the_closed_forms_are_the_known_ones(name, statement, conditions_, derived):
    region = as_json(derived[name])["regions"][derived[name].regions.index(derived[name].about(statement)[0])]
    assert region["conditions"] == conditions_


def test_in_t7s_family_no_sufficient_condition_holds_although_the_signs_do(derived):
    for statement in ("T1", "T2", "T3", "T4", "T5", "T10"):
        assert {where(region) for region in derived["T7"].about(statement)} == {"nowhere"}
    assert where(derived["T7"].about("T6")[0]) == "somewhere"


def test_what_has_no_closed_form_is_said_to_be_undecided(derived):
    region = derived["companion"].about("T17")[0]
    assert where(region) == "undecided"
    assert "degree above 3" in region.reason
    assert exit_code(derived["companion"]) == 3
    assert exit_code(derived["circulant"]) == 0


# Formats


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_format_tells_every_region(name, derived):
    found = derived[name]
    for style in ("text", "markdown", "latex", "json"):
        shown = render(found, style)
        for region in found.regions:
            assert all(statement in shown for statement in region.statements)
    assert json.loads(render(found, "json"))["regions"][0]["where"] == where(found.regions[0])
    assert all(line == line.rstrip() and len(line) <= 110 for line in render(found, "text").splitlines())
    latex = render(found, "latex")
    assert latex.count(r"\begin{itemize}") == latex.count(r"\end{itemize}") == len(found.regions) + 1
    assert latex.isascii() or not [c for c in latex if ord(c) > 127]


def test_conditions_read_back_as_assumptions(derived, monkeypatch):
    """What is printed is in the syntax of the input: assuming a region, its hypotheses hold everywhere."""
    monkeypatch.setattr(conditions, "run", in_process)
    request = EXAMPLES["blocks"]["request"]
    printed = as_json(derived["blocks"])["regions"][0]["conditions"]
    again = answer({**request, "where": printed, "statements": ["T2"]}).about("T2")[0]
    assert again.status is Status.HOLDS
    assert [c for c in again.conditions if not isinstance(c, Eq)] == []


# The command


def run(*arguments):
    return CliRunner().invoke(main, ["derive", *map(str, arguments)])


SCALAR = ("--query", "[[q]]", "--key", "[[k]]", "--value", "[[v]]")


def test_help_reads_well():
    result = run("--help")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_the_command_prints_regions():
    result = run(*SCALAR, "--where", "q > 0", "--where", "k > 0", "--statements", "T2")
    assert result.exit_code == 0, result.output
    assert "holds    where v < 0" in result.output
    assert "assuming  q > 0, k > 0" in result.output
    assert "T17" not in result.output


def test_a_request_file_and_options_together(tmp_path):
    """Decimals in JSON are exact; options win over the file."""
    file = tmp_path / "request.json"
    file.write_text('{"score": [["a", 0.1], [0.1, 1]], "value": [[-1, 0], [0, -1]], "statements": ["T6"]}')
    result = run(file, "--statements", "T2", "--format", "json")
    assert result.exit_code == 0, result.output
    (region,) = json.loads(result.output)["regions"]
    assert region["conditions"] == ["a > 1/100"]
    assert list(region["statements"]) == ["T2", "T4", "T10"]


def test_an_open_region_is_exit_code_3():
    result = run(
        "--value", "[[0, 0, 0, -a], [1, 0, 0, -b], [0, 1, 0, -c], [0, 0, 1, -d]]", "--statements", "T17"
    )
    assert result.exit_code == 3
    assert "UNDECIDED" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "value: got neither value nor response"),
        ([*SCALAR, "--format", "papyrus"], "format: got 'papyrus'"),
        ([*SCALAR, "--timeout", "soon"], "timeout: got 'soon'"),
        ([*SCALAR, "--timeout", "0"], "timeout: got 0"),
        ([*SCALAR, "--context", "many"], "context: got 'many'"),
        ([*SCALAR, "--statements", "T99"], "statements: got T99"),
        ([*SCALAR, "--symbols", "q, k"], "value: got the unknown symbol 'v'"),
        ([*SCALAR, "--where", "q"], "where: got 'q'"),
        (["no-such-file.json"], "file: got no-such-file.json: FileNotFoundError"),
    ],
)
def test_bad_usage_is_exit_code_2_with_a_message(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Fix:" in result.output


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[1]",
        '{"scores": "[[a]]"}',
        '{"symbols": 3, "value": "[[a]]"}',
        '{"where": 3, "value": "[[a]]"}',
    ],
)
def test_a_bad_request_file_is_refused(tmp_path, content):
    (tmp_path / "request.json").write_text(content)
    result = run(tmp_path / "request.json")
    assert result.exit_code == 2
    assert "Fix:" in result.output


def test_a_misspelt_key_is_named_with_its_correction(tmp_path):
    (tmp_path / "request.json").write_text('{"quary": "[[a]]"}')
    with pytest.raises(Exception, match="did you mean query"):
        read_request(str(tmp_path / "request.json"))
