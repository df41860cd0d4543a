"""What every statement must satisfy, whichever it is: its derivation, its examples, its hypotheses."""

import importlib
import pkgutil
import re
from dataclasses import replace
from fractions import Fraction

import pytest
from flint import arb, fmpq
from hypothesis import given, settings
from hypothesis import strategies as st

from theory import lemmas, registry, theorems
from theory.derivation import KINDS, Given
from theory.errors import DerivationError, InputError
from theory.evaluate import CONSTANTS
from theory.instance import Instance
from theory.notation import unit
from theory.registry import quoted_formula, statement, statements
from theory.theorem import (
    AT_LEAST,
    EQUAL,
    KINDS_OF_STATEMENT,
    MORE_THAN,
    Claim,
    Planted,
    Theorem,
    judge_sides,
    sides,
)
from theory.verdict import Grade, Status

STATEMENTS = statements()
WITH_EXAMPLES = {key: theorem for key, theorem in STATEMENTS.items() if theorem.examples}
ALL = pytest.mark.parametrize("theorem", STATEMENTS.values(), ids=STATEMENTS.keys())
ILLUSTRATED = pytest.mark.parametrize("theorem", WITH_EXAMPLES.values(), ids=WITH_EXAMPLES.keys())
USED = [(theorem, h.key) for theorem in STATEMENTS.values() for h in theorem.hypotheses]

# Counterexamples state a family; their steps compute with its entries, so no step names the hypotheses.
FAMILIES = {key for key, theorem in STATEMENTS.items() if theorem.kind == "counterexample"}


@ALL
def test_the_derivation_checks(theorem):
    theorem.check(quoted_formula)


@ALL
def test_every_step_has_evidence_of_a_known_kind(theorem):
    assert theorem.steps
    for step in theorem.steps:
        assert step.evidence.kind in KINDS
        assert step.evidence.label
        assert step.because


@ALL
def test_a_statement_is_complete(theorem):
    assert theorem.kind in KINDS_OF_STATEMENT
    for text in (theorem.title, theorem.statement, theorem.source):
        assert text.strip()
    assert theorem.statement.count("$") % 2 == 0
    assert theorem.remark.count("$") % 2 == 0
    names = [claim.name for claim in theorem.claims]
    assert names
    assert len(set(names)) == len(names)
    assert all(claim.relation in (AT_LEAST, MORE_THAN, EQUAL) for claim in theorem.claims)
    assert theorem.examples or not theorem.hypotheses or theorem.kind == "lemma"


@ALL
def test_given_steps_name_hypotheses_of_the_statement_itself(theorem):
    for step in theorem.steps:
        if isinstance(step.evidence, Given):
            assert set(step.evidence.hypotheses) <= theorem.keys


# Dropping a hypothesis


@pytest.mark.parametrize(
    ("theorem", "key"), USED, ids=[f"{theorem.id} without {key}" for theorem, key in USED]
)
def test_without_a_hypothesis_the_derivation_raises(theorem, key):
    weaker = theorem.plant(Planted("dropped", drop=key))
    assert weaker.keys == theorem.keys - {key}
    if theorem.id in FAMILIES:
        weaker.check(quoted_formula)
        return
    with pytest.raises(DerivationError, match="step "):
        weaker.check(quoted_formula)


# Examples


@ILLUSTRATED
def test_the_witness_meets_the_hypotheses_and_satisfies_the_claims(theorem):
    witness = theorem.examples.witness
    assert theorem.applies(witness).status is Status.HOLDS
    for claim in theorem.claims:
        verdict = theorem.judge(claim, witness)
        if claim.relation == EQUAL:
            assert not verdict.fails, claim.name
            for left, right in sides(claim, witness):
                assert (left - right).contains(0)
                assert float((left - right).rad()) < 1e-20
        else:
            assert verdict.holds, (claim.name, verdict)
    assert any(sides(claim, witness) for claim in theorem.claims)


@ILLUSTRATED
def test_the_near_miss_fails_one_hypothesis_and_a_claim(theorem):
    near_miss, missing = theorem.examples.near_miss, theorem.examples.missing
    verdicts = {h.key: h.decide(near_miss).status for h in theorem.hypotheses}
    assert verdicts.pop(missing) is Status.FAILS
    assert set(verdicts.values()) <= {Status.HOLDS}
    assert theorem.applies(near_miss).fails
    assert any(theorem.judge(claim, near_miss).fails for claim in theorem.claims)


@ILLUSTRATED
def test_the_boundary_attains_a_claim(theorem):
    boundary = theorem.examples.boundary
    assert theorem.applies(boundary).status is Status.HOLDS
    judged = [theorem.judge(claim, boundary) for claim in theorem.claims]
    assert not any(verdict.fails for verdict in judged)
    attainable = [claim for claim in theorem.claims if claim.relation == AT_LEAST]
    exact = [claim for claim in theorem.claims if claim.relation == EQUAL]  # all there is in an open family
    gaps = [left - right for claim in attainable or exact for left, right in sides(claim, boundary)]
    assert any(gap.contains(0) and float(gap.rad()) < 1e-20 for gap in gaps)


@ILLUSTRATED
def test_examples_of_the_other_statements_never_contradict(theorem):
    """Any example that meets the hypotheses satisfies the claims, whoever it was written for."""
    for other in WITH_EXAMPLES.values():
        for instance in (other.examples.witness, other.examples.near_miss, other.examples.boundary):
            if theorem.applies(instance).status is Status.HOLDS:
                for claim in theorem.claims:
                    assert not theorem.judge(claim, instance).fails, (other.id, claim.name)


ENTRIES = st.fractions(-2, 2, max_denominator=4)
UNCONDITIONAL = {
    key: theorem for key, theorem in STATEMENTS.items() if theorem.kind == "lemma" and not theorem.hypotheses
}


@st.composite
def instances(draw):
    n, d = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    score, value, tokens = ([[draw(ENTRIES) for _ in range(d)] for _ in range(rows)] for rows in (d, d, n))
    return Instance.of(score=score, value=value, tokens=tokens)


@given(instances())
@settings(max_examples=25, deadline=None)
def test_statements_without_hypotheses_hold_everywhere(instance):
    """No claim is refuted, and the identities agree to more than 20 digits where they are defined."""
    for theorem in UNCONDITIONAL.values():
        for claim in theorem.claims:
            assert not theorem.judge(claim, instance).fails, (theorem.id, claim.name)
            for left, right in sides(claim, instance):
                if claim.relation == EQUAL and (left - right).is_finite():
                    assert float((left - right).rad()) < 1e-20


def test_the_lemmas_refute_their_planted_constants():
    """Each wrong constant of an unconditional statement fails somewhere on a small system."""
    instance = Instance.of(score=[[3]], value=[[1]], tokens=[[1], [Fraction(-1, 2)], [Fraction(1, 3)]])
    sharp = Instance.of(score=[[1]], value=[[1]], tokens=[[1], [Fraction(-1, 4)]])
    for theorem in UNCONDITIONAL.values():
        for planted in theorem.wrong:
            verdicts = [
                theorem.judge(claim, at, planted.scale)
                for claim in theorem.claims
                for at in (instance, sharp)
            ]
            assert any(verdict.fails for verdict in verdicts), (theorem.id, planted.name)


# Planted variants


@ALL
def test_planted_variants_change_the_statement(theorem):
    names = [planted.name for planted in theorem.planted]
    assert len(set(names)) == len(names)
    for planted in theorem.planted:
        changes = (planted.drop, planted.reverse, planted.scale, planted.setting)
        assert sum(map(bool, changes)) == 1
        changed = theorem.plant(planted)
        if planted.drop:
            assert changed.keys == theorem.keys - {planted.drop}
            assert planted.drop in theorem.keys
        elif planted.reverse:
            before, after = theorem.claim(planted.reverse), changed.claim(planted.reverse)
            assert (before.reverse, after.reverse) == (False, True)
            assert after.oriented(1, 2) == (2, 1)
            assert before.oriented(1, 2) == (1, 2)
        elif planted.setting:
            assert changed.setting == planted.setting != theorem.setting
        else:
            assert set(planted.scale) <= set(CONSTANTS)
            assert all(factor != 1 for factor in planted.scale.values())


@ILLUSTRATED
def test_a_reversed_inequality_is_refuted_by_the_witness_or_attained_there(theorem):
    witness = theorem.examples.witness
    for claim in theorem.claims:
        if claim.relation != EQUAL:
            turned = theorem.judge(replace(claim, reverse=True), witness)
            gaps = [left - right for left, right in sides(claim, witness)]
            assert turned.fails or all(gap.contains(0) for gap in gaps)


# The registry


def test_ids_are_unique_over_all_files():
    """Two statements with one id would silently shadow each other."""
    found: dict[str, list[Theorem]] = {}
    for package in (lemmas, theorems):
        for info in pkgutil.iter_modules(package.__path__):
            for value in vars(importlib.import_module(f"{package.__name__}.{info.name}")).values():
                if isinstance(value, Theorem) and not any(value is t for t in found.get(value.id, [])):
                    found.setdefault(value.id, []).append(value)
    assert {key for key, same in found.items() if len(same) > 1} == set()
    assert found.keys() == STATEMENTS.keys()


def test_statements_come_in_numerical_order():
    assert list(STATEMENTS)[:6] == ["L1", "L2", "L3", "L4", "L5", "L6"]
    assert "".join(dict.fromkeys(key[0] for key in STATEMENTS)) == "LTSRC"
    for letter in "LTSRC":
        numbers = [int(re.sub(r"\D", "", key)) for key in STATEMENTS if key[0] == letter]
        assert numbers == sorted(numbers)


def test_a_statement_is_found_in_any_case():
    assert statement("t1") is STATEMENTS["T1"]
    assert statement("T1").id == "T1"


@pytest.mark.parametrize("unknown", ["T99", "", "1", "theorem 1"])
def test_an_unknown_id_lists_the_known_ones(unknown):
    with pytest.raises(InputError, match=r"^id: got .*expected one of L1, L2,.*T17.*tokendyn theorems"):
        statement(unknown)


def test_only_statements_with_a_formula_can_be_quoted():
    quotable = {key for key, theorem in STATEMENTS.items() if theorem.formula is not None}
    assert {"L1", "L2", "L3", "L4"} <= quotable
    for key in ("L1", "L2", "L3", "L4"):
        quoted = quoted_formula(key)
        assert quoted.formula == STATEMENTS[key].formula
        assert {h.key for h in quoted.hypotheses} == STATEMENTS[key].keys
    with pytest.raises(InputError, match="a statement with a quotable formula"):
        quoted_formula(next(key for key in STATEMENTS if key not in quotable))


def test_quoting_rechecks_the_quoted_derivation(monkeypatch):
    """A lemma whose derivation breaks takes down every statement that quotes it."""
    broken = replace(STATEMENTS["L3"], steps=(*STATEMENTS["L3"].steps, _false_step()))
    monkeypatch.setattr(registry, "statements", lambda: {**STATEMENTS, "L3": broken})
    quoted_formula.cache_clear()
    try:
        for key in ("L4", "T1"):
            with pytest.raises(DerivationError, match="no hypothesis"):
                STATEMENTS[key].check(quoted_formula)
    finally:
        quoted_formula.cache_clear()


def _false_step():
    return replace(STATEMENTS["L3"].steps[0], evidence=Given("anything", ()))


def test_a_quotation_needs_the_quoted_hypotheses():
    """T10 quotes T1, which needs A definite: T10 without it may not."""
    with pytest.raises(DerivationError, match="needs the hypothesis A definite"):
        STATEMENTS["T10"].plant(Planted("", drop="A definite")).check(quoted_formula)


# Judging


TOY = Theorem(
    id="X1",
    kind="theorem",
    title="toy",
    statement="toy",
    hypotheses=(),
    claims=(Claim("squares", "x^2 ≥ 0", AT_LEAST, lambda e: [(x**2, unit - 1) for x in e.X]),),
    steps=(),
    source="here",
)
POINTS = Instance.of(score=[[1]], value=[[1]], tokens=[[0], [2]])


def test_a_claim_is_judged_item_by_item():
    claim = TOY.claim("squares")
    assert [(left, right) for left, right in sides(claim, POINTS)] == [(0, 0), (4, 0)]
    assert TOY.judge(claim, POINTS).holds
    assert TOY.judge(claim, POINTS, {unit: fmpq(3)}).fails
    assert TOY.judge(replace(claim, relation=MORE_THAN), POINTS).fails
    assert TOY.judge(replace(claim, reverse=True), POINTS).fails
    with pytest.raises(DerivationError, match="at least one step"):
        TOY.check(quoted_formula)
    with pytest.raises(StopIteration):
        TOY.claim("cubes")


@pytest.mark.parametrize(
    ("relation", "gap", "status"),
    [
        (AT_LEAST, "1 +/- 0.5", Status.HOLDS),
        (AT_LEAST, "0", Status.HOLDS),
        (AT_LEAST, "0 +/- 0.5", Status.UNDECIDED),
        (AT_LEAST, "-1 +/- 0.5", Status.FAILS),
        (MORE_THAN, "1 +/- 0.5", Status.HOLDS),
        (MORE_THAN, "0", Status.FAILS),
        (MORE_THAN, "0 +/- 0.5", Status.UNDECIDED),
        (MORE_THAN, "-1 +/- 0.5", Status.FAILS),
        (EQUAL, "0", Status.HOLDS),
        (EQUAL, "0 +/- 1e-30", Status.UNDECIDED),
        (EQUAL, "1 +/- 0.5", Status.FAILS),
        (EQUAL, "-1 +/- 0.5", Status.FAILS),
        (AT_LEAST, "nan", Status.UNDECIDED),
        (MORE_THAN, "nan", Status.UNDECIDED),
        (EQUAL, "nan", Status.UNDECIDED),
    ],
)
def test_balls_settle_a_relation_only_when_they_do(relation, gap, status):
    ball = arb(gap) if "/" in gap or gap == "nan" else arb(int(gap))
    verdict = judge_sides(relation, [(ball, arb(0))])
    assert verdict.status is status
    if status is not Status.UNDECIDED:
        assert verdict.grade is Grade.INTERVAL
    assert judge_sides(relation, [(arb(1), arb(0)), (ball, arb(0))]).status in (status, Status.FAILS)


def test_no_items_hold_vacuously():
    assert judge_sides(AT_LEAST, []).holds


@ALL
def test_hypotheses_on_the_start_are_left_out_without_tokens(theorem):
    bare = Instance.of(score=[[1, 0], [0, 1]], value=[[1, 0], [0, 1]])
    about = [h.decide(bare).status for h in theorem.hypotheses if h.on != "start"]
    verdict = theorem.applies(bare)
    here = theorem.setting == bare.setting
    assert verdict.holds == (here and all(status is Status.HOLDS for status in about))


@pytest.mark.parametrize(
    "theorem", [t for t in statements().values() if t.formula is not None], ids=lambda t: t.id
)
def test_what_others_may_quote_is_what_a_step_claims(theorem):
    assert theorem.formula in [step.evidence.claim() for step in theorem.steps]
