"""Verdicts have three values, no default, and an honest conjunction."""

from itertools import permutations

import pytest

from theory.verdict import Grade, Status, every, fails, holds, undecided

EXACT = holds(Grade.EXACT, "proved", "≥ 1")
INTERVAL = holds(Grade.INTERVAL)
FLOAT = holds(Grade.FLOAT)
FAILS = fails(Grade.INTERVAL, "refuted", "≤ -1")
OPEN = undecided("nobody knows", "≈ 0")


@pytest.mark.parametrize("verdict", [EXACT, FAILS, OPEN])
def test_a_verdict_has_no_truth_value(verdict):
    with pytest.raises(TypeError, match="three values"):
        bool(verdict)
    with pytest.raises(TypeError, match=r"verdict\.status"):
        _ = 1 if verdict else 0


def test_predicates_name_one_value_each():
    assert [(v.holds, v.fails) for v in (EXACT, FAILS, OPEN)] == [
        (True, False),
        (False, True),
        (False, False),
    ]
    assert [v.status for v in (EXACT, FAILS, OPEN)] == [Status.HOLDS, Status.FAILS, Status.UNDECIDED]


def test_it_prints_status_grade_and_margin():
    assert str(EXACT) == "HOLDS (exact, margin ≥ 1)"
    assert str(INTERVAL) == "HOLDS (interval)"
    assert str(FAILS) == "FAILS (interval, margin ≤ -1)"
    assert str(OPEN) == "UNDECIDED (margin ≈ 0)"
    assert str(undecided("why")) == "UNDECIDED"


@pytest.mark.parametrize("order", list(permutations([EXACT, FAILS, OPEN, FLOAT])))
def test_a_failure_wins_wherever_it_stands(order):
    assert every(order) is FAILS


@pytest.mark.parametrize("order", list(permutations([EXACT, OPEN, FLOAT])))
def test_an_open_part_leaves_the_conjunction_open(order):
    assert every(order) is OPEN


@pytest.mark.parametrize(
    ("parts", "grade"),
    [
        ([EXACT, EXACT], Grade.EXACT),
        ([EXACT, INTERVAL], Grade.INTERVAL),
        ([INTERVAL, FLOAT, EXACT], Grade.FLOAT),
        ([], Grade.EXACT),
    ],
)
def test_a_conjunction_is_as_strong_as_its_weakest_part(parts, grade):
    verdict = every(iter(parts))
    assert verdict.holds
    assert verdict.grade is grade


def test_the_first_failure_gives_the_reason():
    second = fails(Grade.EXACT, "another")
    assert every([EXACT, FAILS, second]).reason == "refuted"
    assert every([second, FAILS]).reason == "another"
