"""Exact systems of claims: they agree with the floats, and what holds by construction holds exactly."""

from fractions import Fraction

import pytest
import torch
from flint import arb, ctx, fmpq, fmpq_mat

from theory.velocity import Field, balls
from theory.weights import identity
from tokendyn.claims.claim import Claim, make_claim
from tokendyn.claims.dynamics import Systems
from tokendyn.claims.flow import integrated, layers, shortly, states_at
from tokendyn.claims.genome import Genome
from tokendyn.claims.system import ExactSystem, decide, hypotheses

VARIANTS = [
    {},
    {"causal": True},
    {"heads": 3},
    {"attention": "hardmax"},
    {"attention": "hardmax", "sphere": True, "causal": True},
    {"encoding": "absolute in scores"},
    {"encoding": "absolute in scores and values"},
    {"encoding": "bias"},
    {"encoding": "alibi"},
    {"encoding": "rotary"},
    {"sphere": True},
    {"step": "1/2"},
    {"matrices": {"W": "normal", "V": "orthogonal"}},
    {"matrices": {"W": "2 positive eigenvalues", "V": "hurwitz, normal"}},
    {"matrices": {"W": "positive definite", "V": "rank 1"}},
    {"matrices": {"W": "nonnegative", "V": "commutes with W"}},
    {"matrices": {"W": "diagonal", "V": "symmetric, positive definite"}, "scalars": {"c": "0..1"}},
]


def _claim(**entries) -> Claim:
    return make_claim({"conclude": "X tends to 0", **entries})


def _row(genome: Genome, seed: int = 0) -> list[Fraction]:
    """Eighths, which floats hold exactly."""
    g = torch.Generator().manual_seed(seed)
    return [Fraction(round(v * 8), 8) for v in torch.randn(genome.size, generator=g).tolist()]


def _system(claim: Claim, n: int, d: int, raw=None) -> ExactSystem:
    genome = Genome(claim, n, d)
    return ExactSystem(genome, _row(genome) if raw is None else raw)


@pytest.mark.parametrize("entries", VARIANTS, ids=str)
@pytest.mark.parametrize("d", [2, 3])
def test_agrees_with_the_floats(entries, d):
    exact = _system(_claim(**entries), 3, d)
    floats = Systems(exact.genome, torch.tensor([[float(q) for q in exact.raw]], dtype=torch.float64))
    found, expected = exact.velocity(exact.x0), floats.velocity(floats.x0)[0]
    for token, row in zip(found, expected.tolist(), strict=True):
        # rounding of a few dozen float operations on numbers up to a few hundred
        assert [float(arb(c)) for c in token] == pytest.approx(row, abs=1e-11, rel=1e-11)
    q = exact.at(exact.x0)(exact.claim.parsed.left, {"i": 2}).data
    assert float(arb(q)) == pytest.approx(floats.x0[0, 1].norm().item(), rel=1e-12)


@pytest.mark.parametrize(
    "entries", [e for e in VARIANTS if e.get("attention") != "hardmax" and e.get("heads") != 3]
)
def test_is_the_verifier_s_instance(entries):
    system = _system(_claim(**entries), 3, 3)
    instance = system.instance()
    rows = balls(instance.tokens)
    for ours, theirs in zip(system.velocity(system.x0), Field(instance).near(rows)(rows), strict=True):
        assert all(arb(a).overlaps(b) for a, b in zip(ours, theirs, strict=True))


def test_properties_hold_exactly():
    claim = _claim(
        matrices={
            "W": "symmetric",
            "V": "commutes with W",
            "U": "orthogonal",
            "N": "normal",
            "S": "antisymmetric",
        }
    )
    values = _system(claim, 2, 3).values
    W, V, U, N, S = (fmpq_mat(values[name].data) for name in "WVUNS")
    assert W.transpose() == W
    assert V * W == W * V
    assert U.transpose() * U == identity(3)
    assert N * N.transpose() == N.transpose() * N
    assert S.transpose() == S * -1


def test_unit_tokens_and_turns_are_exact():
    sphere = _system(_claim(sphere=True), 3, 3)
    assert all(sum((c * c for c in token), fmpq(0)) == 1 for token in sphere.x0)
    turn = fmpq_mat(_system(_claim(encoding="rotary"), 2, 3).rotation)
    assert turn.transpose() * turn == identity(3)


def test_a_velocity_that_vanishes_is_exactly_zero():
    claim = _claim(matrices={"W": "identity"}, tokens=3)
    raw = [*_row(Genome(claim, 3, 2))[:4], 1, 2, -1, -2, 0, 0]
    velocity = _system(claim, 3, 2, raw).velocity(_system(claim, 3, 2, raw).x0)
    assert velocity[2] == [fmpq(0), fmpq(0)]  # the scores of the zero token are equal, and ±a cancel
    assert not decide("==", velocity[0][0], fmpq(0))


def test_cancellation_between_heads_is_seen():
    claim = _claim(heads=2, matrices={"W1": "any", "V1": "any"}, define={"W2": "W1", "V2": "-V1"})
    system = _system(claim, 3, 2)
    assert all(c == 0 and isinstance(c, fmpq) for token in system.velocity(system.x0) for c in token)


def test_hypotheses_are_decided_exactly():
    claim = _claim(matrices={"W": "any"}, where=["eigmin(W) >= 0", "norm(x[i]) <= 5", "trace(W) == 2"])
    at = [*[0] * 4, 3, 4, 0, 0]  # V, then the start; one token on the boundary
    order = list(Genome(claim, 2, 2).parts)
    raw = [1, 2, 0, 1, *at] if order.index("_W") < order.index("_V") else ([*at[:4], 1, 2, 0, 1, *at[4:]])
    assert str(hypotheses(_system(claim, 2, 2, raw))) == "HOLDS (exact)"  # [[1, 1], [1, 1]] is singular
    raw[-1] = Fraction(6)
    assert hypotheses(_system(claim, 2, 2, raw)).fails


def test_flows_agree():
    system = _system(_claim(), 3, 2)
    with ctx.workprec(256):
        enclosed, accurate = states_at(system, [0, 1])[1], integrated(system, [Fraction(1)], 20)[0]
        soon, exact = shortly(system, system.x0, fmpq(1, 2**10)), states_at(system, [fmpq(1, 2**10)])[0]
    for a, b in zip(enclosed, accurate, strict=True):
        assert all(abs(p - q) < 1e-18 for p, q in zip(a, b, strict=True))  # 20 digits were asked for
    for a, b in zip(soon, exact, strict=True):
        assert all(p.overlaps(q) and p.rad() < 1e-3 for p, q in zip(a, b, strict=True))


def test_layers_are_enclosed():
    system = _system(_claim(step="1/4"), 2, 2)
    states = layers(system, 2)
    by_hand = system.next_layer(system.next_layer(system.x0))
    assert all(
        arb(a).overlaps(arb(b))
        for x, y in zip(states[2], by_hand, strict=True)
        for a, b in zip(x, y, strict=True)
    )
