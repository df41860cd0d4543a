"""T11, T11b, T13, T13b at their edges, and against the certificate checker."""

from dataclasses import replace
from fractions import Fraction
from math import cos, pi, sin

import pytest
import torch
from flint import fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator

from numerics import observables
from theory.certificate import SIGNS, Certificate, bounds, check, semidefinite
from theory.evaluate import Values
from theory.instance import Instance
from theory.layer import Head, Layer
from theory.notation import eta, kappa
from theory.registry import statement
from theory.theorem import Planted
from theory.theorems.certificates import SMALL_TURN
from theory.verdict import Status
from theory.weights import identity, rational_matrix, symmetric_part
from tokendyn.pairing import certificates
from tokendyn.pairing.certificates import needed
from tokendyn.sampling import instances
from tokendyn.verify import trajectories

KINDS = {"T11": "divergence", "T11b": "boundedness", "T11c": "divergence", "T13": "divergence"}
BARE = Instance.of(score=[[1]], value=[[1]])


def layer_and_certificate(identifier: str, instance: Instance) -> tuple[Certificate, Layer]:
    """The same numbers for the checker: c = 1, μ = ν/2."""
    n = instance.tokens.nrows()
    given, turned = instance.parameters, {}
    if instance.setting.rotary:
        for r in range(1, n):
            power = given["rotation"] ** r
            turned[r] = given["query"].transpose() * power * given["key"]
            turned[-r] = given["query"].transpose() * power.transpose() * given["key"]
    layer = Layer((Head(instance.weights, turned),), n)
    numbers = given["metric"], instance.number("multiplier"), instance.number("margin")
    return Certificate.plain(KINDS[identifier], *numbers, offsets=sorted(turned) or [0]), layer


@pytest.mark.parametrize("identifier", KINDS)
@given(data=st.data())
@settings(max_examples=40)
def test_the_checker_accepts_what_the_statements_certify(identifier, data):
    theorem, row = statement(identifier), getattr(certificates, identifier)
    n, d = data.draw(st.sampled_from([(2, 1), (2, 2), (3, 2), (2, 3)]))  # T13 needs no block at n = 1
    instance = data.draw(instances(row.family, theorem.keys, theorem.setting, n, d))
    assert theorem.applies(instance).holds
    certificate, layer = layer_and_certificate(identifier, instance)
    assert check(certificate, layer).holds
    found = bounds(certificate, layer)
    values = Values.at(instance)
    threshold = values[kappa] / (2 * values[eta])
    assert float(abs(found.energy - threshold).upper()) <= 1e-12 * (1 + float(threshold.mid()))
    response = symmetric_part(instance.parameters["metric"] * instance.value) * SIGNS[KINDS[identifier]]
    assert semidefinite(response - instance.parameters["metric"] * instance.number("margin")).holds


def test_the_checker_accepts_more():
    """Its joint block lets a large W_s make up for N: here |N| = 1 > ν = 1/2, but W = 2 leaves room."""
    weights = {
        "score": [[2]],
        "value": [[3]],
        "metric": [[1]],
        "margin": Fraction(1, 2),
        "tokens": [[1], [2]],
    }
    tight, loose = (Instance.of(**weights, multiplier=nu) for nu in (1, Fraction(1, 2)))
    assert statement("T11").applies(tight).holds
    assert statement("T11").applies(loose).fails
    assert check(*layer_and_certificate("T11", loose)).holds


@pytest.mark.parametrize("identifier", [*KINDS, "T13b"])
def test_hypotheses_both_ways(identifier):
    """Each fails on the witness with one number or matrix changed; without the choice it stays open."""
    theorem = statement(identifier)
    witness = theorem.examples.witness
    given = witness.parameters
    d = witness.weights.dim
    flat = fmpq_mat(d, d, [fmpq(int(i != j)) for i in range(d) for j in range(d)])  # not positive definite
    changes = {
        "M positive": {"metric": flat},
        "A positive": {},
        "A symmetric": {},
        "R orthogonal": {"rotation": identity(d) * 2},
        "score margin": {"margin": fmpq(100)},
        "response margin": {"margin": fmpq(100)},
        "response block": {"multiplier": fmpq(-1)},
        "joint block": {"margin": fmpq(100)},
        "opposite response block": {"multiplier": fmpq(0)},
        "response blocks": {"multiplier": fmpq(1, 4)},
        "self term": {"multiplier": fmpq(-1)},
        "turned queries": {"multiplier": fmpq(1)},
        "turned keys": {"rotation": identity(d) * -1},
        "margin positive": {"margin": fmpq(0)},
    }
    for hypothesis in theorem.hypotheses:
        assert hypothesis.decide(witness).status is Status.HOLDS
        if hypothesis.on == "choice":
            assert hypothesis.decide(BARE).status is Status.UNDECIDED
            change = {
                name: value if isinstance(value, fmpq_mat) else fmpq_mat([[value]])
                for name, value in changes[hypothesis.key].items()
            }
            changed = replace(witness, parameters={**given, **change})
            assert hypothesis.decide(changed).status is Status.FAILS, hypothesis.key


def test_a_metric_that_is_not_symmetric_is_refused():
    instance = Instance.of(
        score=[[4, 0], [0, 4]],
        value=[[4, 0], [0, 4]],
        metric=[[1, 1], [-1, 1]],
        multiplier=4,
        margin=0,
        tokens=[[1, 0]],
    )
    verdict = statement("T11").hypotheses[0].decide(instance)
    assert verdict.fails
    assert "transpose" in verdict.reason


def test_trajectories_contradict_a_rate_too_large():
    theorem, row = statement("T11"), certificates.T11
    found = trajectories(theorem, row, Planted("", scale={eta: fmpq(4)}), seed=0)
    assert not found[0]["agrees"]


# Rotary encoding


def test_the_opposite_values_are_certified_bounded():
    witness = statement("T13").examples.witness
    opposite = replace(witness, weights=replace(witness.weights, value=-witness.value))
    certificate, layer = layer_and_certificate("T13", opposite)
    assert check(certificate, layer).fails
    assert check(replace(certificate, kind="boundedness"), layer).holds
    there, back = Values.at(witness), Values.at(opposite)
    for symbol in there.system.v:
        assert (there.enclose(symbol) + back.enclose(symbol)).contains(0)


def least_multiplier(query, key, response, angle: float):
    """The smallest ν of T13 at n = 2, d = 2, M = I, and λ_min(W_s), (batch,)."""
    turn = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]], dtype=torch.float64)
    one = torch.eye(2, dtype=torch.float64).expand_as(query)
    score = query.mT @ key
    corners = [response - query.mT @ part @ key for part in (turn, turn.mT)]
    own = -observables.pencil_minimum(response - score, one)
    return torch.maximum(needed(one, corners), own), observables.pencil_minimum(score, one)


def test_no_margin_at_a_right_angle():
    generator = Generator().manual_seed(0)
    query, noise, tilt = torch.randn(3, 20_000, 2, 2, dtype=torch.float64, generator=generator)
    key = torch.linalg.solve(query.mT, torch.eye(2, dtype=torch.float64) + 0.3 * noise)
    for angle in (pi / 2, 2.0, 3.0, pi):
        for response in (0.5 * tilt, 0.1 * tilt, query.mT @ key):
            nu, most = least_multiplier(query, key, response, angle)
            assert (most <= nu + 1e-9).all()


@pytest.mark.parametrize("angle", [0.5, 1.0, 1.5])
def test_a_margin_below_a_right_angle(angle):
    """W = I, MV = cos φ: ν = sin φ < 1, the best possible."""
    one = torch.eye(2, dtype=torch.float64)[None]
    nu, most = least_multiplier(one, one, cos(angle) * one, angle)
    assert nu.item() == pytest.approx(max(sin(angle), 1 - cos(angle)), abs=1e-9)
    assert (most > nu).item() == (cos(angle) > 0)


def with_constant(value, D, metric, nu, margin, n=3) -> tuple[Certificate, Layer]:
    """Scores W_r + D of T13b's witness without its third coordinate: D by two more rows that stay."""
    query = rational_matrix("Q", [[Fraction(4, 3), Fraction(-1, 3)], [Fraction(1, 3), Fraction(4, 3)]])
    query = fmpq_mat([*query.tolist(), *identity(2).tolist()])
    key = fmpq_mat([*(identity(2) * 3).tolist(), *D.tolist()])
    turns = [(SMALL_TURN[0][0], SMALL_TURN[1][0])]
    head = Head.rotary(query, key, value, turns, n, scale=1)
    return Certificate.plain("divergence", metric, nu, margin, offsets=sorted(head.turned)), Layer((head,), n)


W = rational_matrix("W", [[4, 1], [-1, 4]])
NU, ETA = fmpq(9, 4), fmpq(7, 4)  # λ_min(W_s) = 4 = ν + η


@pytest.mark.parametrize("D", [[[1, 0], [0, 2]], [[3, 5], [-5, 3]], [[fmpq(1, 2), 1], [1, 4]]])
def test_a_constant_adds_its_smallest_eigenvalue(D):
    D = rational_matrix("D", D)
    gain = fmpq(int(observables.pencil_minimum(_floats(D), _floats(identity(2))).item() * 1000), 1000)
    plain = with_constant(W, D * 0, identity(2), NU, ETA)
    assert check(*plain).holds
    more = with_constant(W + D, D, identity(2), NU, ETA + gain)
    assert check(*more).holds


def _floats(matrix: fmpq_mat) -> torch.Tensor:
    return torch.tensor(
        [[[int(q.p) / int(q.q) for q in row] for row in matrix.tolist()]], dtype=torch.float64
    )


@pytest.mark.parametrize("k", [fmpq(1), fmpq(1, 4), fmpq(-1, 4), fmpq(-1, 2)])
def test_tied_values_relax_the_condition_by_one_plus_k(k):
    """D = kW and AV = W = V: the metric (1+k)A with ν = δ/(1+k), that is ν + η = λ still."""
    nu = NU / (1 + k)
    certificate = with_constant(W, W * k, identity(2) * (1 + k), nu, 4 - nu)
    assert check(*certificate).holds is (nu < 4)


# T11c


@st.composite
def any_choice(draw) -> Instance:
    """Weights near the border: V close to M⁻¹W, W_s close to a multiple of M."""
    d = draw(st.integers(1, 2))
    halves = st.integers(-4, 4).map(lambda k: fmpq(k, 2))
    metric = identity(d) * draw(st.sampled_from([fmpq(1), fmpq(2)]))
    corner, skew = (fmpq_mat(d, d, [draw(halves) for _ in range(d * d)]) for _ in range(2))
    nu, eta = (draw(st.integers(0, 4).map(lambda k: fmpq(k, 2))) for _ in range(2))
    score = metric * draw(st.integers(0, 5)) + skew - skew.transpose()
    value = metric.inv() * (score + corner)
    return Instance.of(
        score=score, value=value, metric=metric, multiplier=nu, margin=eta, tokens=[[1] * d, [2] * d]
    )


@given(any_choice())
@settings(max_examples=200)
def test_the_pair_certificate_is_the_checkers_condition(instance):
    """T11c's hypotheses hold exactly where `check` accepts (c, μ) = (1, ν/2); T11's imply them."""
    accepted = check(*layer_and_certificate("T11c", instance))
    assert accepted.status is not Status.UNDECIDED
    assert accepted.holds == statement("T11c").applies(instance).holds
    if statement("T11").applies(instance).holds:
        assert accepted.holds


def test_the_pair_certificate_certifies_what_T11_does_not():  # noqa: N802
    witness = statement("T11c").examples.witness
    assert statement("T11c").applies(witness).holds
    assert statement("T11").applies(witness).fails
