"""The search for certificates: what it finds is proved again, and simulations obey it."""

import json
import math
import sys
from fractions import Fraction

import cvxpy
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from flint import arb, fmpq, fmpq_mat

from numerics import AttentionSystem, integrate
from numerics.encodings import alibi_bias
from numerics.families import random_form
from theory.certificate import SIGNS, Certificate, bounds, check
from theory.errors import InputError
from theory.layer import Head, Layer
from theory.proposals import approximate
from theory.verdict import Grade, Status
from theory.weights import Weights, rational_matrix
from tokendyn import certify as module
from tokendyn.certify import Result, certify
from tokendyn.certify_text import as_json
from tokendyn.cli import main

N = 6


def _forms(seed: int, share: float, d: int = 3, count: int = 2) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return random_form(count, d, positive=d, antisymmetric_share=share, generator=generator).numpy()


def _system(seed: int, sign: int, share: float = 0.4, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """W and V = ±A⁻¹W; neither W nor A is symmetric."""
    W, A = _forms(seed, share, d)
    return W, sign * np.linalg.solve(A, W)


def _batch(*matrices: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(np.asarray(m, dtype=float))[None] for m in matrices]


def _energies(result: Result, states: torch.Tensor) -> torch.Tensor:
    """E of every token: (…, n, d) to (…, n)."""
    metric = torch.from_numpy(approximate(result.certificate.metric))
    return ((states @ metric) * states).sum(-1) / 2


def _numbers(result: Result) -> tuple[float, float, float]:
    """η, K and the radius in E as floats."""
    found = result.bounds
    return float(Fraction(str(found.rate))), float(found.constant.mid()), float(found.energy.mid())


# Every case: a layer, the same system in floats, and the kind


def _plain_case(sign: int, **switches):
    W, V = _system(3, sign)
    return Layer.of(W, V, N, **switches), AttentionSystem(*_batch(W, V), causal=switches.get("causal", False))


def _heads_case():
    (W, V), (X, U) = _system(5, 1, 0.3), _system(6, 1, 0.3)
    layer = Layer((Head(Weights.of(W, V)), Head(Weights.of(X, U))), N)
    return layer, AttentionSystem(*_batch(np.stack([W, X]), np.stack([V, U])))


def _rotary_case(causal: bool):
    """Q = K + noise, V = −QᵀK; two pairs that turn by 1/20 and 1/50 per position; d_k = 4 > d = 3."""
    rng, angles = np.random.default_rng(1), (20, 50)
    K = np.vstack([1.5 * np.eye(3), np.zeros((1, 3))]) + 0.2 * rng.normal(size=(4, 3))
    Q = K + 0.1 * rng.normal(size=(4, 3))
    V = -Q.T @ K
    head = Head.rotary(Q, K, V, [arb(1) / angle for angle in angles], 4, scale=0.5)
    turns = torch.stack(
        [torch.block_diag(*(torch.tensor(_rotation(i / a)).double() for a in angles)) for i in range(4)]
    )
    system = AttentionSystem.from_projections(*_batch(Q, K, V), scale=0.5, turns=turns, causal=causal)
    return Layer((head,), 4, causal), system


def _rotation(angle: float) -> list[list[float]]:
    return [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]


def _alibi_case(causal: bool):
    W, V = _system(8, 1)
    bias = alibi_bias(N, torch.tensor([0.5]).double())
    layer = Layer.of(W, V, None, slope=0.5, causal=causal)
    return layer, AttentionSystem(*_batch(W, V), bias=bias, causal=causal)


def _bias_case():
    W, V = _system(9, -1)
    bias = np.random.default_rng(2).integers(-4, 5, (N, N)) / 2
    return Layer.of(W, V, N, bias=bias), AttentionSystem(*_batch(W, V, bias)[:2], bias=_batch(bias)[0])


CASES = {
    "divergence": lambda: _plain_case(1),
    "boundedness": lambda: _plain_case(-1),
    "causal boundedness": lambda: _plain_case(-1, causal=True),
    "two heads": _heads_case,
    "causal ALiBi of any length": lambda: _alibi_case(True),
    "ALiBi of any length": lambda: _alibi_case(False),
    "arbitrary bias": _bias_case,
    "rotary": lambda: _rotary_case(False),
    "causal rotary": lambda: _rotary_case(True),
}
FOUND: dict[str, tuple[Layer, AttentionSystem, Result]] = {}


def _found(name: str) -> tuple[Layer, AttentionSystem, Result]:
    """Each case is searched once."""
    if name not in FOUND:
        layer, system = CASES[name]()
        FOUND[name] = layer, system, certify(layer)
    return FOUND[name]


@pytest.mark.parametrize("name", CASES)
def test_a_certificate_is_found_and_proved(name):
    layer, _, result = _found(name)
    assert result.verdict.holds, result.verdict.reason
    assert check(result.certificate, layer).holds
    assert result.verdict.grade is (Grade.INTERVAL if "rotary" in name else Grade.EXACT)
    assert result.kind == ("divergence" if np.trace(approximate(layer.value)) > 0 else "boundedness")
    assert result.bounds == bounds(result.certificate, layer)


@pytest.mark.parametrize("name", CASES)
def test_the_energy_inequality_holds_at_the_largest_token(name):
    """σĖ ≥ 2ηE − K for random tokens from far below to far above the radius, in float64.

    Tokens are also drawn close to one energy shell, where attention picks any of them. The tolerance,
    relative to the terms, is rounding.
    """
    layer, system, result = _found(name)
    eta, constant, radius = _numbers(result)
    n = layer.n or N
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, n, layer.dim, dtype=torch.float64, generator=generator)
    shell = x / (2 * _energies(result, x))[..., None].sqrt()
    x[200:] = shell[200:] * (0.9 + 0.1 * torch.rand(200, n, 1, dtype=torch.float64, generator=generator))
    size = torch.logspace(-2, 2, 400, dtype=torch.float64)[torch.randperm(400, generator=generator)]
    x = x * (size * (2 * radius) ** 0.5)[:, None, None]
    velocity = torch.cat([system.velocity(one[None]) for one in x])
    metric = torch.from_numpy(approximate(result.certificate.metric))
    change = ((x @ metric) * velocity).sum(-1) * SIGNS[result.kind]
    energy = _energies(result, x)
    top = energy.argmax(1, keepdim=True)
    left, right = change.gather(1, top), 2 * eta * energy.gather(1, top) - constant
    assert (left >= right - 1e-9 * (left.abs() + right.abs() + constant)).all()


@pytest.mark.parametrize("name", CASES)
def test_trajectories_keep_to_the_bound(name):
    """E(t) against R + (E(0) − R)e^{±2ηt}; the integrator's error is far below 1e-6 of E over this time."""
    layer, system, result = _found(name)
    eta, _, radius = _numbers(result)
    n = layer.n or N
    start = torch.randn(1, n, layer.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    start = start * (1.5 * radius / _energies(result, start).max()).sqrt()
    times = torch.linspace(0, min(1 / eta, 3.0), 12, dtype=torch.float64)
    solution = integrate(system, start, times)
    largest = _energies(result, solution.states[0]).amax(-1)
    reached = largest.isfinite()
    assert reached.sum() > 3
    sign = SIGNS[result.kind]
    bound = radius + (1.5 * radius - radius) * torch.exp(2 * sign * eta * times)
    assert (sign * (largest - bound) >= -1e-6 * bound)[reached].all()


@pytest.mark.parametrize("b", [0.95, 1.05])
def test_rotations_are_found_exactly_up_to_the_boundary_of_c1(b):
    """W = 1 + i, A = 1 + ib: a certificate exists iff b < 1 (docs/certificates.md)."""
    W, A = np.array([[1, -1], [1, 1]]), np.array([[1, -b], [b, 1]])
    result = certify(Layer.of(W, -np.linalg.solve(A, W), 4))
    assert result.verdict.status is (Status.HOLDS if b < 1 else Status.UNDECIDED)
    assert result.kind == "boundedness"


def test_the_search_is_deterministic():
    layer = _found("divergence")[0]
    assert certify(layer).certificate == _found("divergence")[2].certificate


@pytest.mark.parametrize(
    ("W", "V", "kind", "reason"),
    [
        (np.eye(2), np.diag([1.0, -1.0]), "divergence", "none exists: not every eigenvalue"),
        (np.eye(2), np.eye(2), "boundedness", "none exists: not every eigenvalue"),
        (np.eye(2), np.diag([1.0, -1.0]), "either", "none exists: not every eigenvalue"),
        (np.diag([1.0, -1.0]), np.eye(2), "divergence", "W_s ≻ 0"),
        (np.zeros((2, 2)), np.eye(2), "divergence", "W_s ≻ 0"),
        (np.eye(2), np.zeros((2, 2)), "either", "none exists"),
        (np.array([[1.0, -3.0], [3.0, 1.0]]), np.eye(2), "divergence", "the solver found none (best margin"),
    ],
)
def test_infeasible_systems_are_undecided_with_a_reason(W, V, kind, reason):
    result = certify(Layer.of(W, V, 3), kind)
    assert result.verdict.status is Status.UNDECIDED
    assert reason in result.verdict.reason
    assert result.certificate is None
    assert result.bounds is None


def test_weights_beyond_floats_are_undecided():
    huge = fmpq_mat([[fmpq(10) ** 400]])
    for layer in (Layer.of(huge, [[1]], 2), Layer.of([[1]], huge, 2)):
        result = certify(layer)
        assert (result.kind, result.verdict.status) == ("divergence", Status.UNDECIDED)
        assert "range of floats" in result.verdict.reason


def test_a_failing_solver_is_undecided(monkeypatch):
    def fail(*_, **__):
        raise cvxpy.SolverError("no")

    monkeypatch.setattr(cvxpy.Problem, "solve", fail)
    result = certify(Layer.of([[1]], [[1]], 3))
    assert result.verdict.status is Status.UNDECIDED
    assert result.verdict.reason == "the solver found none (it failed)"


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_solver_that_solves_another_problem_proves_nothing(monkeypatch, sign):
    """The floats are of a system with another antisymmetric part: all they propose is refused exactly."""
    W, V = _system(3, sign)
    floats = module._Floats.of
    monkeypatch.setattr(module._Floats, "of", lambda layer, kind: floats(Layer.of(W, V, N), kind))
    skew = np.array([[0, 9, 0], [-9, 0, 9], [0, -9, 0]])
    result = certify(Layer.of(W + skew, V, N))
    assert result.verdict.status is Status.UNDECIDED
    assert "no proposal survived the exact check" in result.verdict.reason


def test_tiny_weights_are_no_obstacle():
    assert certify(Layer.of(np.eye(2) * 1e-100, np.eye(2) * 1e-100, 3)).verdict.holds


def test_a_missing_solver_names_the_extra(monkeypatch, tmp_path):
    for name in ("clarabel", "cvxpy"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(InputError, match=r"tokendyn\[certify\]"):
                certify(Layer.of([[1]], [[1]], 3))
            result = _run(*_save(tmp_path, [[1.0]], [[1.0]], [[1.0]]), "--context", 3)
            assert result.exit_code == 2
            assert "pip install 'tokendyn[certify]'" in result.output


@pytest.mark.parametrize(
    ("layer", "kind", "argument"),
    [
        (Layer.of([[1]], [[1]], 3), "convergence", "kind"),
        (Layer.of(np.eye(25), np.eye(25), 3), "divergence", "layer"),
    ],
)
def test_unusable_requests_are_refused(layer, kind, argument):
    with pytest.raises(InputError) as caught:
        certify(layer, kind)
    assert caught.value.argument == argument


# The command


def _save(folder, query, key, value) -> list:
    options = []
    for name, matrix in (("query", query), ("key", key), ("value", value)):
        np.save(folder / f"{name}.npy", np.array(matrix))
        options += [f"--{name}", folder / f"{name}.npy"]
    return options


def _run(*arguments):
    return CliRunner().invoke(main, ["certify", *map(str, arguments)])


def test_the_command_prints_the_certificate_and_writes_what_reproves_it(tmp_path):
    W, V = _system(3, -1)
    target = tmp_path / "certificate.json"
    options = _save(tmp_path, np.eye(3), W, V)
    result = _run(*options, "--alibi", 1, "--causal", "--scale", 1, "--json", target)
    assert result.exit_code == 0, result.output
    for part in (
        "certificate of boundedness: HOLDS (exact)",
        "rate η",
        "radius in ‖x‖",
        "any number of tokens",
    ):
        assert part in result.output
    written = json.loads(target.read_text("utf-8"))
    head = written["certificate"]["heads"][0]
    again = Certificate.single(
        written["kind"],
        _rationals(written["certificate"]["metric"]),
        Fraction(written["certificate"]["rate"]),
        {int(r): (Fraction(c), Fraction(mu)) for r, (c, mu) in head["multipliers"].items()},
    )
    layer = Layer.from_projections([np.eye(3)], [W], [V], None, scale=1, causal=True, slope=1)
    assert check(again, layer).holds
    assert _rationals(head["share"]) == again.shares[0]
    norm = float(bounds(again, layer).norm.mid())
    assert norm <= float(written["bounds"]["norm_radius"]) <= norm * 1.01


def _rationals(rows: list[list[str]]) -> fmpq_mat:
    return rational_matrix("m", [[Fraction(entry) for entry in row] for row in rows])


def test_the_help_fits_a_terminal():
    result = _run("--help")
    assert result.exit_code == 0
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_the_command_says_undecided_and_claims_nothing(tmp_path):
    target = tmp_path / "certificate.json"
    options = _save(tmp_path, np.eye(2), np.eye(2), np.diag([1.0, -1.0]))
    result = _run(*options, "--context", 4, "--kind", "boundedness", "--json", target)
    assert result.exit_code == 3
    assert "This claims nothing else" in result.output.replace("\n", " ")
    written = json.loads(target.read_text("utf-8"))
    assert written["verdict"] == "UNDECIDED"
    assert written["certificate"] is None
    assert written["bounds"] is None


def test_the_command_takes_heads_and_rotary_encoding(tmp_path):
    one = _save(tmp_path, np.eye(2), np.eye(2), -np.eye(2))
    result = _run(*one, *one, "--context", 2, "--rotary", 1e8, "--layout", "half-split")
    assert result.exit_code in (0, 3), result.output
    assert "boundedness" in result.output
    pair = _run(*one, *one, "--context", 2)
    assert pair.exit_code == 0
    assert "head 2" in pair.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "n: got no context length"),
        (["--context", 0], "n: got 0"),
        (["--context", 3, "--alibi", -1], "slope: got -1"),
        (["--context", 3, "--kind", "growth"], "kind: got 'growth'"),
        (["--context", 3, "--rotary", 0], "rotary: got"),
        (["--context", 3, "--rotary", 10, "--layout", "spiral"], "turns: got"),
        (["--context", 3, "--query", "Q.npy"], "query: got"),
        (["--context", 3, "--scale", 0], "scale: got"),
        (["--context", 3, "--json", "no/such/folder/c.json"], "--json: got"),
    ],
)
def test_bad_usage_of_the_command_is_exit_code_2(tmp_path, options, message):
    result = _run(*_save(tmp_path, np.eye(2), np.eye(2), np.eye(2)), *options)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize("bad", [[[np.nan, 0], [0, 1]], [[1.0, 0.0, 0.0]]])
def test_the_command_refuses_bad_matrices(tmp_path, bad):
    result = _run(*_save(tmp_path, np.eye(2), np.eye(2), bad), "--context", 3)
    assert result.exit_code == 2
    assert "value: got" in result.output


def test_json_of_every_kind_of_result_is_plain(tmp_path):
    for name in ("two heads", "rotary"):
        layer, _, result = _found(name)
        assert json.loads(json.dumps(as_json(result, layer)))["verdict"] == "HOLDS"
