"""Every kind of evidence passes where it is true, raises where it is false, needs what it says it needs."""

from dataclasses import replace

import pytest
from sympy import (
    Derivative,
    Dummy,
    Eq,
    Ge,
    Gt,
    Integer,
    LambertW,
    Matrix,
    Q,
    Rational,
    Sum,
    Symbol,
    ZeroMatrix,
    cos,
    cosh,
    exp,
    expint,
    log,
    sin,
    symbols,
)

from theory import derivation
from theory.derivation import (
    ARGUED,
    CITED,
    EARLIER,
    EXACT,
    FIXED,
    HYPOTHESIS,
    INTERVAL,
    KINDS,
    SYMBOLIC,
    Argued,
    Certified,
    Cited,
    Context,
    ConvexMinimum,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Positive,
    Quoted,
    Satisfies,
    Step,
    SumIdentity,
    along_flow,
    check_steps,
    references,
)
from theory.errors import DerivationError
from theory.hypotheses import A_SYMMETRIC, W_POSITIVE
from theory.instance import Instance
from theory.notation import A, P, V, W, Z, a, b, d, j, k, m_i, n, s, sym, u, w, x_i
from theory.sums import Definition, Total
from theory.verdict import Grade, fails, holds, undecided

p, q = symbols("p q", positive=True)
r = Symbol("r", real=True)
SOFTMAX = (Definition(P, lambda index: exp(s[index]) / Z),)
NORMALISER = (Total(lambda index: exp(s[index]), Z, n),)
QUOTED = {
    "L0": Quoted(Ge(Sum(P[j], (j, 1, n)), 0)),
    "T0": Quoted("the sky is blue", (A_SYMMETRIC, W_POSITIVE)),
}
EYE = [[1, 0], [0, 1]]
MEETS = Instance.of(score=EYE, response=EYE)
MISSES = Instance.of(score=EYE, response=[[1, 1], [0, 1]])
SINGULAR = Instance.of(score=EYE, value=[[1, 1], [1, 1]])
EVERYTHING = Context(
    frozenset({"A symmetric", "W positive", "W symmetric"}),
    Q.symmetric(A) & Q.symmetric(W),
    QUOTED.__getitem__,
)
NOTHING = Context()

TRUE = {
    "matrices": MatrixIdentity(u.T * W * u, u.T * sym(W) * u),
    "matrices, by a definition": MatrixIdentity(A * V, W, where={W: A * V}),
    "matrices, by a symmetry": MatrixIdentity(A * V + V.T * A, 2 * sym(W), where={W: A * V}),
    "flow": along_flow(x_i.T * A * x_i / 2, x_i.T * W * m_i),
    "sums": SumIdentity(Sum(P[j] * r, (j, 1, n)), r, SOFTMAX, NORMALISER),
    "symmetric sums": SumIdentity(
        Sum(s[a] * w[a, b], (a, 1, d), (b, 1, d)),
        Sum(s[a] * w[b, a], (a, 1, d), (b, 1, d)),
        symmetric=(w,),
        needs=("W symmetric",),
    ),
    "scalars": Equality((p + q) ** 2, p**2 + 2 * p * q + q**2),
    "derivative": Equality(Derivative(exp(p * r), r), p * exp(p * r)),
    "explicit matrices": Equality(
        Matrix([[cos(r), -sin(r)], [sin(r), cos(r)]]).det() * Matrix.eye(2), Matrix.eye(2)
    ),
    "fixed size": Equality(Integer(2) + 2, Integer(4), kind=FIXED),
    "positive": Positive(p + q**2),
    "non-negative": Positive(r**2, weak=True),
    "convex": ConvexMinimum(exp(r) - 1 - r, r, Integer(0)),
    "convex elsewhere": ConvexMinimum(cosh(r - 3) - 1 + (r - 3) ** 2, r, Integer(3)),
    "certified": Certified(exp(-expint(1, Rational(13, 20))), Rational(13, 20)),
    "satisfies": Satisfies("holds", lambda: [holds(Grade.EXACT), holds(Grade.EXACT)]),
    "earlier": FromLemma("L0", QUOTED["L0"].formula),
    "earlier, renamed": FromLemma("L0", Ge(Sum(P[k], (k, 1, n)), 0), lambda f: f.xreplace({j: k})),
    "earlier, with hypotheses": FromLemma("T0", "the sky is blue"),
    "earlier, on one system": FromLemma("T0", "the sky is blue", on=MEETS),
    "given": Given("so it is", ("A symmetric", "W positive")),
    "argued from a hypothesis": Argued("therefore", (), needs=("A symmetric", "W positive")),
    "cited": Cited("a theorem", sorted(references())[0]),
}

FALSE = {
    "matrices": MatrixIdentity(u.T * W * u, 2 * u.T * sym(W) * u),
    "matrices that do not commute": MatrixIdentity(A * V, V * A),
    "matrices, by a wrong definition": MatrixIdentity(A * V, W, where={W: V * A}),
    "matrices, by a symmetry not assumed": MatrixIdentity(V, V.T),
    "flow, without its half": along_flow(x_i.T * A * x_i, x_i.T * W * m_i),
    "flow, with the wrong sign": along_flow(x_i.T * A * x_i / 2, -x_i.T * W * m_i),
    "a derivative of something else": replace(
        along_flow(x_i.T * A * x_i / 2, x_i.T * W * m_i), derivative_of=x_i.T * V * x_i
    ),
    "a derivative by hand": MatrixIdentity(W, W, derivative_of=A),
    "sums": SumIdentity(Sum(P[j] * r, (j, 1, n)), n * r, SOFTMAX, NORMALISER),
    "sums, without the rule": SumIdentity(Sum(P[j], (j, 1, n)), Integer(1)),
    "symmetric sums, of another base": SumIdentity(
        Sum(s[a] * w[a, b], (a, 1, d), (b, 1, d)),
        Sum(s[a] * w[b, a], (a, 1, d), (b, 1, d)),
        symmetric=(P,),
        needs=("W symmetric",),
    ),
    "symmetric sums, by no hypothesis": SumIdentity(
        Sum(s[a] * w[a, b], (a, 1, d), (b, 1, d)),
        Sum(s[a] * w[b, a], (a, 1, d), (b, 1, d)),
        symmetric=(w,),
    ),
    "scalars": Equality((p + q) ** 2, p**2 + q**2),
    "derivative": Equality(Derivative(exp(p * r), r), exp(p * r)),
    "explicit matrices": Equality(Matrix([[1, 2], [3, 4]]), Matrix([[1, 2], [3, 5]])),
    "undefined scalars": Equality(log(Integer(0)), log(Integer(0))),
    "positive": Positive(p - q),
    "positive, at zero": Positive(r**2),
    "non-negative": Positive(r, weak=True),
    "convex, with another minimum": ConvexMinimum(exp(r) - 1 - r, r, Integer(1)),
    "convex, with another value": ConvexMinimum(exp(r) - r, r, Integer(0)),
    "concave": ConvexMinimum(1 + r - exp(r), r, Integer(0)),
    "not convex": ConvexMinimum(r**2 * (r - 1) ** 2, r, Integer(0)),
    "convex on each side of a pole": ConvexMinimum(
        (v := Symbol("v", real=True, nonzero=True)) ** -2 + 2 * v - 3, v, Integer(1)
    ),
    "convex on the half-line only": ConvexMinimum(1 / p + p - 2, p, Integer(1)),
    "certified the other way": Certified(Rational(13, 20), exp(-expint(1, Rational(13, 20)))),
    "certified equality": Certified(Integer(1), Integer(1)),
    "certified of equal irrationals": Certified(exp(Integer(1)) ** 2, exp(Integer(2))),
    "certified of nothing": Certified(LambertW(Integer(-1)), Integer(0)),
    "satisfies": Satisfies("fails", lambda: [holds(Grade.EXACT), fails(Grade.EXACT, "no")]),
    "satisfies, perhaps": Satisfies("open", lambda: [undecided("who knows")]),
    "satisfies, by balls": Satisfies("balls", lambda: [holds(Grade.INTERVAL)]),
    "satisfies, by floats": Satisfies("floats", lambda: [holds(Grade.FLOAT)]),
    "satisfies nothing": Satisfies("nothing", lambda: []),
    "earlier, misquoted": FromLemma("L0", Gt(Sum(P[j], (j, 1, n)), 0)),
    "earlier, another index": FromLemma("L0", Ge(Sum(P[k], (k, 1, n)), 0)),
    "earlier, badly renamed": FromLemma("L0", QUOTED["L0"].formula, lambda f: f.xreplace({j: k})),
    "earlier, in other words": FromLemma("T0", "the sky is green"),
    "earlier, on a system that misses a hypothesis": FromLemma("T0", "the sky is blue", on=MISSES),
    "earlier, on a system without a response": FromLemma("T0", "the sky is blue", on=SINGULAR),
    "earlier, misquoted on one system": FromLemma("T0", "the sky is green", on=MEETS),
    "argued from a hypothesis that is not": Argued("therefore", (), needs=("A symmetric", "A definite")),
    "argued from nothing": Argued("therefore", ()),
    "given, a hypothesis that is not": Given("so it is", ("A symmetric", "A definite")),
    "given nothing": Given("so it is", ()),
    "cited from nowhere": Cited("a theorem", "nobody1900"),
}


@pytest.mark.parametrize("name", TRUE)
def test_true_evidence_passes(name):
    evidence = TRUE[name]
    evidence.check(EVERYTHING)
    check_steps([Step(evidence, "why")], EVERYTHING)
    assert evidence.kind in KINDS
    assert evidence.kind.split(",")[0] in evidence.label


@pytest.mark.parametrize("name", FALSE)
def test_false_evidence_raises(name):
    with pytest.raises(DerivationError):
        FALSE[name].check(EVERYTHING)
    with pytest.raises(DerivationError, match=r"^step 2: "):
        check_steps([Step(TRUE["scalars"], ""), Step(FALSE[name], "")], EVERYTHING)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("symmetric sums", "W symmetric"),
        ("given", "A symmetric, W positive"),
        ("earlier, with hypotheses", "A symmetric, W positive"),
        ("argued from a hypothesis", "A symmetric, W positive"),
    ],
)
def test_a_missing_hypothesis_is_named(name, missing):
    without = replace(EVERYTHING, hypotheses=frozenset())
    with pytest.raises(DerivationError, match=f"needs the hypothesis {missing}, which is not given"):
        TRUE[name].check(without)


def test_on_one_system_the_hypotheses_are_decided_there_not_assumed():
    TRUE["earlier, on one system"].check(replace(EVERYTHING, hypotheses=frozenset()))


@pytest.mark.parametrize("name", ["matrices, by a symmetry", "flow"])
def test_without_its_symmetry_a_matrix_identity_raises(name):
    with pytest.raises(DerivationError, match="leaves"):
        TRUE[name].check(replace(EVERYTHING, assumptions=Q.symmetric(W)))


@pytest.mark.parametrize(
    "name", ["matrices", "sums", "scalars", "positive", "convex", "certified", "satisfies", "cited"]
)
def test_what_needs_no_hypothesis_checks_without_any(name):
    TRUE[name].check(NOTHING)


def test_a_quotation_needs_a_way_to_look_it_up():
    with pytest.raises(DerivationError, match="no way to look up L0"):
        TRUE["earlier"].check(NOTHING)


# Each computation is made twice: either half refuses alone


@pytest.mark.parametrize(
    "name", ["matrices", "matrices that do not commute", "matrices, by a wrong definition"]
)
def test_a_false_identity_for_every_d_fails_entry_by_entry_too(monkeypatch, name):
    monkeypatch.setattr(derivation, "difference_normal_form", lambda *_: ZeroMatrix(d, d))
    with pytest.raises(DerivationError, match="fails entry by entry at d = "):
        FALSE[name].check(EVERYTHING)


def test_a_false_identity_at_one_size_only_is_found(monkeypatch):
    """A V = V A holds at d = 1 and fails at d = 2."""
    monkeypatch.setattr(derivation, "difference_normal_form", lambda *_: ZeroMatrix(d, d))
    with pytest.raises(DerivationError, match="at d = 2"):
        FALSE["matrices that do not commute"].check(NOTHING)


@pytest.mark.parametrize("name", ["sums", "sums, without the rule", "symmetric sums, of another base"])
def test_a_false_sum_fails_written_out_too(monkeypatch, name):
    monkeypatch.setattr(derivation, "normal_form", lambda *_: Integer(0))
    with pytest.raises(DerivationError, match="fails written out at n = "):
        FALSE[name].check(EVERYTHING)


def test_true_sums_are_true_written_out(monkeypatch):
    monkeypatch.setattr(derivation, "normal_form", lambda *_: Integer(0))
    for name in ("sums", "symmetric sums"):
        TRUE[name].check(EVERYTHING)


# What each evidence says it claims


def test_claims_are_what_is_checked():
    assert TRUE["scalars"].claim() == Eq((p + q) ** 2, p**2 + 2 * p * q + q**2, evaluate=False)
    assert TRUE["sums"].claim().lhs == Sum(P[j] * r, (j, 1, n))
    assert TRUE["positive"].claim() == Gt(p + q**2, 0, evaluate=False)
    assert TRUE["non-negative"].claim() == Ge(r**2, 0, evaluate=False)
    assert TRUE["convex"].claim() == Ge(exp(r) - 1 - r, 0, evaluate=False)
    assert TRUE["certified"].claim().gts == exp(-expint(1, Rational(13, 20)))
    assert TRUE["certified"].claim().lts == Rational(13, 20)
    assert TRUE["earlier, with hypotheses"].claim() == "the sky is blue"
    assert TRUE["given"].claim() == "so it is"
    assert TRUE["cited"].claim() == "a theorem"
    assert TRUE["satisfies"].claim() == "holds"
    assert Argued("therefore", (1,)).claim() == "therefore"
    assert isinstance(TRUE["flow"].claim().lhs, Derivative)
    assert TRUE["matrices"].claim().lhs == u.T * W * u


def test_labels_tell_the_kinds_apart():
    kinds = [SYMBOLIC, FIXED, EXACT, INTERVAL, EARLIER, HYPOTHESIS, CITED, ARGUED]
    assert sorted(kinds) == sorted(KINDS)
    assert len(set(kinds)) == len(kinds)
    assert "d = 1, 2, 3" in TRUE["matrices"].label
    assert "n = 1, 2, 3" in TRUE["sums"].label
    assert TRUE["given"].label == "hypothesis A symmetric, W positive"
    assert "L0" in TRUE["earlier"].label
    assert "from steps 1, 2" in Argued("x", (1, 2)).label
    key = TRUE["cited"].key
    assert references()[key] in TRUE["cited"].label
    assert "decided on this instance" in TRUE["earlier, on one system"].label
    assert "hypothesis W positive" in TRUE["argued from a hypothesis"].label
    assert FALSE["cited from nowhere"].label == "cited: nobody1900"


# Lists of steps


@pytest.mark.parametrize("uses", [(2,), (3,), (1, 2), (0,), (-1,), (1, 99)])
def test_a_step_uses_only_earlier_steps(uses):
    evidence = Argued("so", uses)
    with pytest.raises(DerivationError, match="step 2: a step may use only earlier ones"):
        check_steps([Step(TRUE["scalars"], ""), Step(evidence, "")], EVERYTHING)


def test_a_step_may_use_every_earlier_step():
    check_steps(
        [Step(TRUE["scalars"], ""), Step(TRUE["positive"], ""), Step(Argued("so", (1, 2)), "")], NOTHING
    )


def test_a_derivation_without_steps_derives_nothing():
    with pytest.raises(DerivationError, match="at least one step"):
        check_steps([], NOTHING)


def test_the_first_false_step_is_named():
    steps = [Step(TRUE["scalars"], ""), Step(FALSE["scalars"], ""), Step(FALSE["positive"], "")]
    with pytest.raises(DerivationError, match=r"^step 2: .*leaves"):
        check_steps(steps, NOTHING)


def test_a_crash_is_not_a_derivation():
    """An error of another type is not swallowed."""

    def broken():
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        check_steps([Step(Satisfies("x", broken), "")], NOTHING)


# References


def test_references_parse():
    found = references()
    text = (derivation.Path(derivation.__file__).parent / "references.bib").read_text(encoding="utf-8")
    assert len(found) == text.count("\n@") + text.startswith("@")
    for entry in found.values():
        assert entry.endswith(")")
        assert "{" not in entry
        assert int(entry[-5:-1]) in range(1850, 2030)


def test_a_dummy_is_as_good_as_any_variable():
    t = Dummy("t", real=True)
    ConvexMinimum(exp(t) - 1 - t, t, Integer(0)).check(NOTHING)
