"""Certificates: what they prove is so, and what is true is never refuted."""

import math
from fractions import Fraction

import pytest
import torch
from flint import arb, ctx, fmpq

from theory.errors import InputError
from tokendyn.claims import certify as certifying
from tokendyn.claims.certify import Certificate, certify
from tokendyn.claims.claim import make_claim
from tokendyn.claims.dynamics import Systems
from tokendyn.claims.flow import affordable, states_at
from tokendyn.claims.genome import Genome, static
from tokendyn.claims.hunt import fresh
from tokendyn.claims.invariants import facts
from tokendyn.claims.system import ExactSystem

R1 = {
    "conclude": "X tends to 0",
    "matrices": {"W": "positive definite", "A": "negative definite"},
    "define": {"V": "inv(A) @ W"},
    "where": ["abscissa(V) < 0"],
    "dimension": 2,
}
SQUARE = [1, 0, 1, 0, -4, 0, 0, 1, 0, 1, 0, 6, 0, 0, 2, 0, 0, 2, -2, 0, 0, -2]
"""W = [[1, −2], [2, 1]], A = −[[1, −3], [3, 1]], the square of radius 2."""


def _row(genome: Genome, seed: int = 1) -> list[Fraction]:
    g = torch.Generator().manual_seed(seed)
    return [Fraction(round(v * 8), 8) for v in torch.randn(genome.size, generator=g).tolist()]


def _proof(n: int, d: int, raw=None, time=0, **entries) -> Certificate | None:
    claim = make_claim(entries)
    genome = Genome(claim, n, d)
    return certify(claim, genome, _row(genome) if raw is None else raw, time)


# The long run


def test_r1_is_certified_from_its_row():
    found = _proof(4, 2, SQUARE, **R1)
    assert (found.kind, found.n, found.raw) == ("lower", 4, tuple(map(Fraction, SQUARE)))
    assert "orbit of 4 symmetries" in found.reason


def test_a_small_square_is_enlarged():
    found = _proof(4, 2, [*SQUARE[:14], *(Fraction(q, 4) for q in SQUARE[14:])], **R1)
    assert found.raw[14] > Fraction(1, 2)


def test_a_small_square_is_not_certified_itself():
    claim = make_claim(R1)
    raw = [*SQUARE[:14], *(Fraction(q, 4) for q in SQUARE[14:])]
    assert certify(claim, Genome(claim, 4, 2), raw, elsewhere=False) is None  # it does tend to 0


def test_r1_is_found_from_untidy_weights_and_three_tokens():
    raw = [1.125, 0, 1, 0.125, -4.25, 0, 0, 1, 0, 1, 0, 6.125, 0.25, 0, 4, 0, -2, 3, -2, -3]
    found = _proof(3, 2, [Fraction(q) for q in raw], **R1)
    assert (found.n, found.d) == (4, 2)


@pytest.mark.parametrize(
    "conclude",
    [
        "X is bounded",
        "consensus",
        "directions align up to sign",
        "rate of norm(x[i]) <= 0",
        "eventually norm(x[i]) <= 9",
    ],
)
def test_other_conclusions_about_the_same_square(conclude):
    assert _proof(4, 2, SQUARE, **{**R1, "conclude": conclude}) is not None


FALSE = {
    "unstable value": ({"conclude": "X tends to 0", "matrices": {"V": "unstable"}}, 3, 2),
    "stable value": ({"conclude": "X is unbounded", "matrices": {"V": "hurwitz"}}, 3, 2),
    "zero token": (
        {"conclude": "each token is unbounded", "matrices": {"W": "identity", "V": "identity"}},
        3,
        2,
    ),
    "first token zero": (
        {
            "conclude": "each token is unbounded",
            "causal": True,
            "matrices": {"W": "identity", "V": "identity"},
        },
        3,
        2,
    ),
    "rotation": ({"conclude": "X tends to 0", "matrices": {"V": "antisymmetric"}}, 2, 2),
    "one side": (
        {"conclude": "X is bounded", "quantifier": "almost every start", "matrices": {"V": "identity"}},
        2,
        2,
    ),
    "kernel": ({"conclude": "consensus", "matrices": {"V": "rank 2"}}, 3, 3),
    "antipodes": ({"conclude": "consensus", "sphere": True}, 3, 3),
    "first rate": ({"conclude": "rate of norm(x[1]) >= abscissa(V) + 1/10", "causal": True}, 2, 2),
    "residual": ({"conclude": "X tends to 0", "step": "3", "matrices": {"V": "hurwitz"}}, 3, 2),
    "rest": ({"conclude": "norm(x[1]) is increasing", "matrices": {"V": "identity"}, "causal": True}, 2, 2),
    "trend of layers": (
        {"conclude": "norm(x[i]) is nonincreasing", "step": "1/2", "matrices": {"V": "hurwitz"}},
        3,
        2,
    ),
    "trend": ({"conclude": "norm(x[i]) is nonincreasing", "heads": 3}, 3, 2),
    "start": ({"conclude": "norm(x[i]) <= 1"}, 3, 2),
}


@pytest.mark.parametrize("name", FALSE)
def test_false_claims_are_refuted(name):
    entries, n, d = FALSE[name]
    found = _proof(n, d, **entries)
    assert found is not None
    assert found.grade in ("exact", "interval")
    again = certify(
        make_claim(entries), Genome(make_claim(entries), found.n, found.d), found.raw, elsewhere=False
    )
    assert again == found


def test_an_irrational_equilibrium_is_enclosed():
    claim = make_claim(
        {"conclude": "consensus", "sphere": True, "matrices": {"V": "symmetric"}, "where": ["det(V) < 0"]}
    )
    genome = Genome(claim, 2, 2)
    raw = {"_W": [1, 2, -1, 1], "_V": [1, 1, 1, -2], "x": IRRATIONAL}
    row = [Fraction(entry) for part in genome.parts for entry in raw[part]]
    assert certify(claim, genome, row, elsewhere=False) is None  # beside an eigenvector, which is irrational
    found = certify(claim, genome, row, elsewhere=False, thorough=True)
    assert found.kind == "equilibrium"
    assert found.violation.startswith("norm(x[i] - x[j]) = 2.0")
    assert found == certify(claim, genome, found.raw, elsewhere=False, thorough=True)


def test_another_equilibrium_proves_nothing_about_a_start():
    """Two tokens that reach consensus; Newton's method leads from them to antipodes."""
    claim = make_claim({"conclude": "consensus", "sphere": True, "define": {"V": "diag(2, 1)"}, **PAIR})
    genome = Genome(claim, 2, 2)
    row = [1, 0, 0, 1, Fraction(-1, 4), 1, Fraction(9, 8), 1]
    assert certify(claim, genome, row, elsewhere=False, thorough=True) is None
    assert certify(claim, genome, row, thorough=True).raw != tuple(row)


def test_rows_beside_an_equilibrium_meet_the_hypotheses():
    """The second condition holds close to the eigenvector only, closer than 40, or 150, bits reach."""
    for width, bits in (("1e-9", 40), ("1e-15", 150)):
        where = ["norm(x[1] - x0[2]) > 1", f"abs(x[1][1]**2 - x[1][2]**2 - 3*x[1][1]*x[1][2]) < {width}"]
        claim = make_claim({**ANTIPODES, "where": where})
        start = _eigenvector(bits)
        found = certify(claim, Genome(claim, 2, 2), start, elsewhere=False, thorough=True)
        assert found.raw == start
    claim = make_claim({**ANTIPODES, "where": [where[0], where[1].replace("1e-15", "1e-50")]})
    start = _eigenvector(200)
    assert certify(claim, Genome(claim, 2, 2), start, elsewhere=False, thorough=True) is None


def test_t6b_speaks_of_starts_near_the_row():
    """This very start tends to 0: it lies on the axis of the eigenvalue −1."""
    found = _at(2, 2, {**SADDLE, "where": ["x[2][2] > x[1][2]"]}, thorough=True, x=[0, 1, 0, 2])
    assert found.violation.startswith("from almost every start near this one norm(x[i]) does not tend to 0")


def test_a_later_time_is_enclosed():
    entries = {"conclude": "norm(x[i]) <= 2*norm(x[1]) + exp(t)/100"}
    raw = [2, 0, 0, 2, 1, 0, 0, 1, 1, 0, 1, 0]
    assert _proof(2, 2, raw, **entries) is None  # equal tokens: the bound holds by far at the start
    assert _proof(2, 2, raw, 1, conclude="norm(x[i]) <= 1 + t") is not None  # |x| = e^t or e^2t at t = 1


LATER = [
    ({"conclude": "norm(x[i]) <= 1 + t"}, 1),  # e or e² at t = 1
    ({"conclude": "max(norm(x[1]), 101/100) is nonincreasing"}, 0),  # grows after a hundredth
    ({"conclude": "norm(x[i]) <= 1 + t", "step": "1"}, 2),
]


@pytest.mark.parametrize(("entries", "time"), LATER)
def test_only_a_search_runs_out_of_time(monkeypatch, entries, time):
    claim = make_claim({**entries, **PAIR})
    genome, raw = Genome(claim, 2, 2), [1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 1, 0]
    assert certify(claim, genome, raw, time) is not None
    monkeypatch.setattr(certifying, "SECONDS", 0.0)
    assert certify(claim, genome, raw, time) is None
    assert certify(claim, genome, raw, time, patient=True, digits=5) is not None


def test_a_search_encloses_no_system_whose_steps_take_too_long():
    genome = Genome(make_claim({"conclude": "X tends to 0", "tokens": 16, "dimension": 8}), 16, 8)
    large = ExactSystem(genome, _row(genome))
    assert states_at(large, [Fraction(1, 1000)], seconds=4) is None  # one step takes more
    assert affordable(large, math.inf)


def test_hypotheses_that_fail_give_no_certificate():
    assert _proof(4, 2, [*SQUARE[:4], 0, *SQUARE[5:]], **{**R1, "where": ["abscissa(V) > 0"]}) is None


def test_equality_refutes_only_strict_relations():
    raw = [1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1]
    assert _proof(2, 2, raw, conclude="norm(x[1]) < norm(x[2])").grade == "exact"
    assert _proof(2, 2, raw, conclude="norm(x[1]) <= norm(x[2])") is None
    almost = {"conclude": "norm(x[1]) < norm(x[2])", "quantifier": "almost every start"}
    assert _proof(2, 2, raw, **almost) is None


TRUE = [
    {
        "conclude": "X tends to 0",
        "matrices": {"W": "symmetric, positive definite", "V": "identity, negative definite"},
    },
    {
        "conclude": "X is unbounded",
        "matrices": {"W": "positive definite", "V": "identity"},
        "where": ["norm(x[1]) >= 1"],
    },
    {"conclude": "X tends to 0", "causal": True, "matrices": {"V": "symmetric, negative definite"}},
    {
        "conclude": "max(norm(x[i]) for i in tokens) is nonincreasing",
        "matrices": {"W": "identity", "V": "identity, negative definite"},
    },
    {"conclude": "norm(x[i]) <= exp(norm(V)*t)*max(norm(x[k]) for k in tokens)"},
    {"conclude": "norm(x[1] - x[2]) is constant", "define": {"V": "0*eye(d)"}},
    {"conclude": "rate of norm(x[1]) <= abscissa(V)", "causal": True},
    {"conclude": "power of norm(x[1]) <= 0", "causal": True, "matrices": {"V": "antisymmetric"}},
]


@pytest.mark.parametrize("entries", TRUE, ids=lambda e: e["conclude"])
def test_true_claims_are_not_refuted(entries):
    g = torch.Generator().manual_seed(3)
    claim = make_claim(entries)
    for n, d in ((2, 1), (2, 2), (4, 2)):
        genome = Genome(claim, n, d)
        for row in fresh(genome, 6, g).tolist():
            assert certify(claim, genome, [Fraction(round(v * 4), 4) for v in row]) is None


@pytest.mark.parametrize(
    "entries", [{}, {"causal": True}, {"attention": "hardmax"}, {"step": "1/4"}], ids=str
)
def test_facts_agree_with_simulations(entries):
    """Rates from below and above, with room for constants: t = 0 … 6/‖V‖, before rounding hides decay."""
    g = torch.Generator().manual_seed(5)
    claim = make_claim({"conclude": "X tends to 0", **entries})
    genome, seen = Genome(claim, 2, 2), 0
    for row in fresh(genome, 60, g):
        raw = [Fraction(round(v * 4), 4) for v in row.tolist()]
        known = [f for f in facts(ExactSystem(genome, raw)) if f.kind in ("lower", "upper") and not f.slow]
        if not known or max(map(abs, raw)) > 8:
            continue
        systems = Systems(genome, torch.tensor([[float(q) for q in raw]], dtype=torch.float64))
        times = torch.tensor([0.0, 1.0, 2.0, 4.0, 6.0], dtype=torch.float64)
        if systems.h is None:  # which counts layers
            times = times * systems.pace[0] / systems.system.value.norm().clamp(min=1)
        path = systems.path(times)
        norms = path.states[0].norm(dim=-1)
        for fact in known:
            rate = float(arb(fact.rate)) * (path.times[0, -1] - path.times[0, 1]).item()
            for token in fact.tokens:
                change = (norms[-1, token - 1] / norms[1, token - 1]).log().item()
                # the constants before the exponentials: eigenvectors at an angle, rotations
                assert change > rate - 5 if fact.kind == "lower" else change < rate + 5
                seen += 1
    assert seen > 20


def test_rows_of_another_length_are_refused():
    with pytest.raises(InputError, match="12"):
        _proof(2, 2, [fmpq(1)] * 3, conclude="X tends to 0")


# What is true, or says nothing, and its neighbours that are false


def _at(n: int, d: int, entries: dict, time=0, thorough=False, **parts) -> Certificate | None:
    """A certificate of the system with these raw parts (flat; zeros for the others) and of no other."""
    claim = make_claim(entries)
    genome = Genome(claim, n, d)
    assert parts.keys() <= genome.parts.keys()
    row = [Fraction(q) for part in genome.parts.values() for q in parts.get(part.name, [0] * part.size)]
    return certify(claim, genome, row, time, elsewhere=False, thorough=thorough)


UNIT = {"V": "eye(d)", "W": "eye(d)"}
ALMOST = {"quantifier": "almost every start"}
ANTIPODES = {
    "conclude": "consensus",
    "sphere": True,
    "define": {"V": "[[1, 1], [1, -2]]", "W": "[[1, 2], [-1, 1]]"},
    "tokens": 2,
    "dimension": 2,
}


def _eigenvector(bits: int) -> tuple[Fraction, ...]:
    """± the first eigenvector of [[1, 1], [1, −2]] as raw tokens, rounded to so many bits."""
    with ctx.workprec(300):
        angle = (arb(2) / 3).atan() / 2
        scaled = angle.cos() / (1 + angle.sin()) * 2**bits
        y = Fraction(int((scaled + arb(1) / 2).floor().unique_fmpz()), 2**bits)
    return y, Fraction(1), y, Fraction(-1)


IRRATIONAL = _eigenvector(40)
PAIR = {"tokens": 2, "dimension": 2}
HARDMAX = {"attention": "hardmax", "define": UNIT, **PAIR, **ALMOST}
FIRST = {"causal": True, "define": {"V": "eye(d)"}, **ALMOST}
CAUSAL = {"causal": True, "define": UNIT, "where": ["norm(x[1]) == 0", "norm(x[2]) > 0"]}
SADDLE = {"conclude": "X tends to 0", "define": {"V": "diag(1, -1)", "W": "eye(d)"}, **PAIR}
EQUAL = ["norm(x[i] - x[j]) == 0"]
NEVER = {
    "a bound that moves": ({"conclude": "eventually norm(x[1]) <= norm(x[2]) - 5", **CAUSAL}, 1, [0, 1]),
    "a bound by attention": ({"conclude": "eventually norm(x[1]) <= norm(m[2]) - 5", **CAUSAL}, 1, [0, 1]),
    "a bound by all tokens": (
        {"conclude": "eventually norm(x[1]) <= norm(X)", "define": UNIT},
        2,
        [1, 0, 1, 0],
    ),
    "a limit by all tokens": (
        {"conclude": "norm(x[1]) tends to norm(X)/sqrt(2)", "define": {"V": "-eye(d)"}, "where": EQUAL},
        2,
        [1, 0, 1, 0],
    ),
    "a bound by the covariance": (
        {"conclude": "eventually norm(x[1])**2 <= 2*(trace(Cov) + norm(X)**2)", "define": UNIT},
        2,
        [1, 0, 2, 0],
    ),
    "a rate by all tokens": ({"conclude": "rate of norm(x[1]) <= norm(X)", "define": UNIT}, 1, [0.25, 0.25]),
    "an index named like a state": (
        {"conclude": "rate of max(norm(x[1])*X for X in tokens) <= 3/2", "define": UNIT},
        1,
        [1, 1],
    ),
    "a bound without a value": (
        {"conclude": "eventually norm(x[1]) <= log(norm(x0[1] - x0[2]))", "define": UNIT},
        2,
        [1, 0, 1, 0],
    ),
    "a limit without a value": (
        {"conclude": "norm(x[1]) tends to 1/norm(x0[1] - x0[2])", "define": UNIT},
        2,
        [1, 0, 1, 0],
    ),
    "a constant without a value": (
        {"conclude": "log(norm(x[1])) is increasing", "define": UNIT},
        1,
        [0, 0],
    ),
    "almost: a coordinate of 0": ({"conclude": "abs(x[1][1]) is unbounded", **FIRST}, 2, [0, -3, 1, 0]),
    "almost: its square": ({"conclude": "x[1][1]**2 is increasing", **FIRST}, 2, [0, 1, 1, 1]),
    "almost: a rate attained once": (
        {"conclude": "rate of norm(x[1]) < 1 + (x0[1][1] - x0[2][1])**2", **FIRST},
        2,
        [1, 0, 1, 5],
    ),
    "almost: a tie": ({"conclude": "P[i, j]*(1 - P[i, j]) <= 0", **HARDMAX}, 2, [1, 0, 1, 0]),
    "almost: a mean at a tie": (
        {"conclude": "norm(m[1] - x[1])*norm(m[1] - x[2]) <= 0", **HARDMAX},
        2,
        [1, 1, -1, 3],
    ),
    "almost: a trend at a tie": (
        {"conclude": "P[1, 1]*P[1, 2] is constant", "step": "1", **HARDMAX},
        2,
        [1, 0, 1, 1],
    ),
    "almost: an isolated start": (
        {
            "conclude": "norm(x[1]) >= 1/2",
            "define": {"V": "0*eye(d)"},
            "where": ["norm(x[1])*(norm(x[1]) - 1) >= 0"],
            **ALMOST,
        },
        2,
        [0, 0, 1, 0],
    ),
    "almost: a null set": (
        {"conclude": "norm(x[1] - x[2]) >= 1", "where": ["norm(x[1] - x[2]) <= 0"], **ALMOST},
        2,
        [1, 1, 1, 1],
    ),
    "almost: a null set of x0": (
        {"conclude": "norm(x[1] - x[2]) >= 1", "where": ["norm(x0[1] - x0[2]) <= 0"], **ALMOST},
        2,
        [1, 1, 1, 1],
    ),
    "a null set for T6b": ({**SADDLE, "where": [*EQUAL, "x[1][1] == 0"]}, 2, [0, 1, 0, 1]),
    "a limit for T6b at one start": (
        {**SADDLE, "conclude": "norm(x[1]) + norm(x[2]) tends to abs(x0[1][1])"},
        2,
        [0, 1, 0, 1],
    ),
    "an equilibrium outside (x0)": (
        {"conclude": "X is unbounded", "tokens": 1, "define": UNIT, "where": ["norm(x0[1]) >= 1e-12"]},
        2,
        [2**-38, 2**-38],
    ),
    "an equilibrium outside (X)": (
        {"conclude": "X is unbounded", "tokens": 1, "define": UNIT, "where": ["norm(X) >= 1e-12"]},
        2,
        [2**-38, 2**-38],
    ),
    "no weights": ({"conclude": "abs(det(W)) > 0", "define": {"V": "inv(W)"}}, 2, [1, 0, 1, 0]),
    "weights over 0": (
        {"conclude": "abs(a) > 0", "scalars": {"a": "any"}, "define": {"V": "eye(d)/a"}},
        2,
        [1, 0, 1, 0],
    ),
    "no reflection": (
        {
            "conclude": "norm(v) > 0",
            "vectors": {"v": "any"},
            "define": {"V": "eye(d) - 2*outer(v, v)/(v @ v)"},
        },
        2,
        [1, 0, 1, 0],
    ),
    "no entry of a definition": ({"conclude": "norm(x[1]) <= 0", "define": {"B": "inv(W)"}}, 2, [1, 0, 1, 0]),
}


@pytest.mark.parametrize("name", NEVER)
def test_no_certificate_where_a_claim_is_true_or_says_nothing(name):
    entries, d, start = NEVER[name]
    found = _at(len(start) // d, d, entries, thorough="equilibrium" in name or "T6b" in name, x=start)
    assert found is None


NEAR = {
    "a bound that stays": ({"conclude": "eventually norm(x[1]) >= norm(x0[2]) - 1/2", **CAUSAL}, 1, [0, 1]),
    "all at rest": (
        {"conclude": "eventually norm(x[1]) <= norm(X)/2 + norm(m[2])/8", "define": {"V": "0*eye(d)"}},
        2,
        [1, 0, 1, 0],
    ),
    "a bound from the start": (
        {"conclude": "eventually norm(x[i]) <= 9*norm(x0[j])", "define": UNIT},
        2,
        [1, 0, 1, 0],
    ),
    "almost: a coordinate": ({"conclude": "abs(x[1][1]) is bounded", **FIRST}, 2, [1, -3, 1, 0]),
    "almost: a rate": (
        {"conclude": "rate of norm(x[1]) < 1/2 + (x0[1][1] - x0[2][1])**2", **FIRST},
        2,
        [1, 0, 1, 5],
    ),
    "almost: no tie": ({"conclude": "P[i, j]*(1 - P[i, j]) > 0", **HARDMAX}, 2, [1, 0, 0, 1]),
    "almost: inside": (
        {"conclude": "norm(x[1]) >= 2", "where": ["norm(x[1])*(norm(x[1]) - 1) >= 0"], **ALMOST},
        2,
        [1.5, 0, 1, 0],
    ),
    "almost: a trend": ({"conclude": "norm(x[1]) is decreasing", **FIRST}, 2, [1, 0, 1, 5]),
    "almost: a trend of layers": (
        {"conclude": "norm(x[1]) is decreasing", "step": "1/2", **FIRST},
        2,
        [1, 0, 1, 5],
    ),
    "T6b": ({**SADDLE, "where": ["x[2][2] > x[1][2]"]}, 2, [0, 1, 0, 2]),
    "an equilibrium inside": (
        {**ANTIPODES, "where": ["norm(x[1] - x0[2]) > 1"]},
        2,
        IRRATIONAL,
    ),
    "an index within eigmax": (
        {"conclude": "norm(x[i]) <= 0", "where": ["eigmax(outer(x[i], x[i])) < 4"]},
        2,
        [1, 0, 1, 0],
    ),
}


@pytest.mark.parametrize("name", NEAR)
def test_their_neighbours_are_certified(name):
    entries, d, start = NEAR[name]
    found = _at(len(start) // d, d, entries, thorough=True, x=start)
    assert found is not None
    assert found.grade == "interval" or not name.startswith("almost")  # of a ball of starts


def test_a_later_time_for_almost_every_start():
    start, claim = [1, 0, 1, 5], {"conclude": "norm(x[1]) <= 2*norm(x0[1])", **FIRST}
    assert _at(2, 2, claim, x=start) is None
    assert _at(2, 2, claim, time=1, x=start).grade == "interval"  # |x_1| = e
    assert _at(2, 2, {**claim, "step": "1"}, time=2, x=start) is not None  # |x_1| = 4


def test_a_tie_of_layers_is_none_of_almost_every_start():
    """Two layers from a tie: token 1 sees both, and leaves the axis; nearby it sees one of them."""
    claim = {"conclude": "abs(x[1][2]) <= 0", "step": "1", **HARDMAX}
    tie = [1, 0, 1, 1]
    assert _at(2, 2, {**claim, "quantifier": "every start"}, time=1, x=tie) is not None
    assert _at(2, 2, claim, time=1, x=tie) is None
    assert _at(2, 2, claim, time=1, x=[1, 0, 2, 1]) is not None


@pytest.mark.parametrize("name", ["x[1]", "x0[1]", "dx[1]", "m[1]", "s[1, 1]*x0[1]", "X", "Cov", "t*p[1]"])
def test_conditions_on_the_start_are_none_on_weights(name):
    claim = make_claim({"conclude": "X tends to 0", "where": [f"norm({name}) <= 1", "norm(p[1]) <= norm(W)"]})
    assert [static(condition) for condition in claim.conditions] == [False, True]


@pytest.mark.parametrize(("step", "time"), [("1", Fraction(3, 2)), ("1", -1), ("", -1)])
def test_times_that_are_none_are_refused(step, time):
    claim = {"conclude": "norm(x[i]) >= 2**t*norm(x0[i])", "step": step, "define": {"V": "eye(d)"}}
    with pytest.raises(InputError, match="time"):
        _at(2, 1, claim, time, x=[1, 1])


STILL = {"V": "0*eye(d)"}
MIXED = {"V": "[[1, 2, 0], [1, -1, 0], [0, 0, 3]]"}  # eigenvalues 3 and ±√3


@pytest.mark.parametrize(
    ("grade", "conclude", "define", "start"),
    [
        ("exact", "eventually norm(x[1]) <= 1/2", STILL, [1, 0, 1, 0]),
        ("interval", "eventually exp(norm(x[1])) <= 1", STILL, [1, 0, 1, 0]),
        ("interval", "eventually norm(x[1]) <= 1/e", STILL, [1, 0, 1, 0]),
        ("exact", "rate of norm(x[1]) <= 1/2", UNIT, [1, 0, 1, 0]),
        ("interval", "rate of norm(x[1]) <= sqrt(1/2)", UNIT, [1, 0, 1, 0]),
        ("interval", "pi*norm(x[1]) is bounded", UNIT, [1, 0, 2, 0]),
        ("interval", "X tends to 0", {"V": "diag(0, 1)"}, [1, 1, 1, 3]),
        ("interval", "X tends to 0", MIXED, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_grades_are_those_of_what_was_compared(grade, conclude, define, start):
    d = len(start) // 2
    assert _at(2, d, {"conclude": conclude, "define": define, "dimension": d}, x=start).grade == grade
