"""Measures of a layer's matrices against dense definitions, solvers and planted errors."""

import math

import cvxpy
import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Generator, Tensor

from numerics import InputError
from numerics.layer_measures import (
    antisymmetric_share,
    directionality_score,
    head_tie,
    response_changes,
    score_change,
    smallest_diagonal,
    smallest_trace_diagonal,
    symmetry_score,
)

ROUNDING = 1e-12  # a few hundred float64 operations on numbers of order one
MEASURES = [symmetry_score, directionality_score, antisymmetric_share]


def _gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=Generator().manual_seed(seed))


def _symmetric(d: int, seed: int) -> Tensor:
    square = _gaussian(d, d, seed=seed)
    return square + square.mT


# ---------------------------------------------------------------- symmetry and directionality


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("r", "d"), [(3, 20), (10, 20), (15, 20), (20, 20), (1, 2)])
def test_a_factored_matrix_measures_as_the_dense_one(measure, r, d):
    for seed in range(20):
        left, right = _gaussian(r, d, seed=seed), _gaussian(r, d, seed=100 + seed)
        right[:, 0] *= 5  # one large column, so that directionality is not always 0
        assert measure(left, right) == pytest.approx(measure(left.mT @ right), abs=ROUNDING)


def test_symmetry_is_the_definition_and_its_extremes():
    W = _gaussian(7, 7, seed=1)
    even, odd = (W + W.mT) / 2, (W - W.mT) / 2
    expected = (even.norm() ** 2 - odd.norm() ** 2) / W.norm() ** 2
    assert symmetry_score(W) == pytest.approx(float(expected), abs=ROUNDING)
    assert symmetry_score(W) == pytest.approx(1 - 2 * antisymmetric_share(W) ** 2, abs=ROUNDING)
    assert symmetry_score(even) == pytest.approx(1)
    assert symmetry_score(odd) == pytest.approx(-1)


def test_a_tiny_antisymmetric_part_keeps_its_digits_without_the_matrix():
    key = _gaussian(4, 30, seed=2)
    query = key.clone()
    query[0] += 1e-9 * _gaussian(30, seed=3)
    W = query.mT @ key
    # The share is 1e-9 of W, so entries rounded to 1e-16 leave seven of its digits.
    assert antisymmetric_share(query, key) == pytest.approx(antisymmetric_share(W), rel=1e-6)
    assert 0 < antisymmetric_share(query, key) < 1e-8


def test_directionality_by_hand():
    """One large entry: its row and its column stand out alike. Two in one column: the column stands out."""
    W = torch.eye(10, dtype=torch.float64)
    assert directionality_score(W) == 0.0
    W[0, 0] = 9.0
    assert directionality_score(W) == 0.0
    W[1, 0] = 9.0  # rows 0 and 1 are of norm 9 and 9.06, column 0 of 12.7
    rows, columns = W.norm(dim=1).numpy(), W.norm(dim=0).numpy()
    excess = [(n - n.mean() - 2 * n.std(ddof=1)).clip(min=0).sum() for n in (rows, columns)]
    assert directionality_score(W) == pytest.approx((excess[0] - excess[1]) / sum(excess), abs=ROUNDING)
    assert directionality_score(W) < -0.5
    assert directionality_score(W.mT) == -directionality_score(W)


def test_directionality_weighs_the_excess_of_rows_against_that_of_columns():
    """One large row and one large column, of different sizes."""
    W = torch.eye(30, dtype=torch.float64)
    W[3, :20] = 4.0
    W[:8, 5] = 6.0
    rows, columns = W.norm(dim=1).numpy(), W.norm(dim=0).numpy()
    excess = [(n - n.mean() - 2 * n.std(ddof=1)).clip(min=0).sum() for n in (rows, columns)]
    assert min(excess) > 1
    assert directionality_score(W) == pytest.approx((excess[0] - excess[1]) / sum(excess), abs=ROUNDING)


def test_equal_norms_have_no_direction_in_spite_of_rounding():
    turn = torch.linalg.qr(_gaussian(30, 30, seed=4)).Q
    assert directionality_score(turn) == 0.0
    assert directionality_score(turn, torch.eye(30)) == 0.0


@pytest.mark.parametrize("measure", [*MEASURES, score_change])
def test_zero_has_no_score(measure):
    assert math.isnan(measure(np.zeros((3, 3))))


# ---------------------------------------------------------------- the smallest diagonal


def _reference_trace(S: Tensor) -> float:
    y = cvxpy.Variable(len(S), nonneg=True)
    problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.sum(y)), [S.numpy() + cvxpy.diag(y) >> 0])
    return _optimum(problem)


def _optimum(problem: cvxpy.Problem) -> float:
    problem.solve(solver=cvxpy.CLARABEL)
    return float(np.asarray(problem.value, dtype=float))


def _low_rank(d: int, seed: int) -> Tensor:
    W = _gaussian(2, d, seed=seed).mT @ _gaussian(2, d, seed=seed + 50)
    return (W + W.mT) / 2


def _barely_indefinite(d: int, seed: int) -> Tensor:
    S = _symmetric(d, seed)
    return S - (float(torch.linalg.eigvalsh(S)[0]) + 1e-3) * torch.eye(d)


CASES = {
    "gaussian": lambda seed: _symmetric(20, seed),
    "low rank": lambda seed: _low_rank(20, seed),
    "barely indefinite": lambda seed: _barely_indefinite(12, seed),
    "negative": lambda seed: -_symmetric(8, seed) @ _symmetric(8, seed),
    "uneven": lambda seed: (
        _symmetric(10, seed) * torch.logspace(-2, 2, 10) * torch.logspace(-2, 2, 10)[:, None]
    ),
    "one entry": lambda seed: torch.diag(torch.tensor([-2.0, 0, 0, 3])).double(),
    "scalar": lambda seed: -torch.ones(1, 1).double(),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_trace_is_the_semidefinite_programs(case):
    for seed in range(4):
        S = CASES[case](seed)
        y, bound = smallest_trace_diagonal(S)
        total, reference = float(y.sum()), _reference_trace(S)
        # Feasible to rounding; a gap of 1e-6 as promised; Clarabel's default accuracy is 1e-8, relative to
        # the largest numbers in the problem, hence the looser agreement.
        assert torch.linalg.eigvalsh(S + torch.diag(y))[0] > -1e-12 * S.norm()
        assert (y >= 0).all()
        assert bound <= total <= bound + 1.0001e-6 * total
        assert reference == pytest.approx(total, rel=3e-5, abs=1e-7 * float(S.norm()))


@pytest.mark.parametrize("case", CASES)
def test_an_early_stop_still_brackets_the_optimum(case):
    for seed in range(4):
        S = CASES[case](seed)
        reference = _reference_trace(S)
        slack = 3e-5 * reference + 1e-7 * float(S.norm())  # the solver's accuracy, as above
        for iterations in range(8):
            y, bound = smallest_trace_diagonal(S, tolerance=0.0, iterations=iterations)
            assert bound - slack <= reference <= float(y.sum()) + slack


def test_the_smallest_diagonal_of_minus_ones_by_hand():
    """−1 off a zero diagonal: 1ᵀ(S + D)1 ≥ 0 needs tr D ≥ d(d − 1); D = d − 1 dominates every row."""
    S = torch.eye(6) - torch.ones(6, 6)
    found = smallest_diagonal(S)
    assert found.largest_entry == pytest.approx(5)
    assert found.trace == pytest.approx(30, rel=2e-6)
    assert found.trace_bound == pytest.approx(30, rel=2e-6)


def test_the_two_measures_of_the_smallest_diagonal_differ_and_scale():
    S = _symmetric(40, 5)
    found, larger = smallest_diagonal(S), smallest_diagonal(1e6 * S)
    assert found.largest_entry == pytest.approx(-float(torch.linalg.eigvalsh(S)[0]))
    assert found.trace < 0.99 * 40 * found.largest_entry
    assert larger.trace == pytest.approx(1e6 * found.trace)
    y, _ = smallest_trace_diagonal(S)
    assert y.max() > found.largest_entry


def test_a_semidefinite_matrix_needs_no_diagonal():
    root = _gaussian(3, 9, seed=6)
    assert smallest_diagonal(root.mT @ root) == (pytest.approx(0, abs=1e-13), 0, 0)
    assert smallest_diagonal(torch.zeros(3, 3)) == (0, 0, 0)


# ---------------------------------------------------------------- changes of A and of W


def test_changes_are_the_distances_to_the_nearest_semidefinite_matrices():
    A = _gaussian(6, 6, seed=7)
    for name, sign in (("to_positive", 1), ("to_negative", -1)):
        nearest = cvxpy.Variable((6, 6), PSD=True)
        problem = cvxpy.Problem(cvxpy.Minimize(cvxpy.norm(A.numpy() - sign * nearest, "fro")))
        reference = _optimum(problem) / float(A.norm())
        assert response_changes(A)[name] == pytest.approx(reference, abs=1e-6)  # the solver's accuracy
    S = (A + A.mT) / 2
    assert score_change(S) == pytest.approx(response_changes(S)["to_positive"])


def test_changes_at_the_extremes():
    definite = torch.diag(torch.tensor([1.0, 2, 3]))
    skew = torch.tensor([[0.0, 1], [-1, 0]])
    assert response_changes(-definite) == pytest.approx({"to_negative": 0, "to_positive": 1})
    everything = {"to_negative": 1, "to_positive": 1}
    assert response_changes(skew) == pytest.approx(everything)  # to rounding, which processors do differently
    assert score_change(definite) == 0
    assert score_change(torch.diag(torch.tensor([-3.0, 4]))) == pytest.approx(0.6)


# ---------------------------------------------------------------- heads tied to one A


def _heads(d: int, heads: int, r: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """(O, U) per head."""
    return [(_gaussian(d, r, seed=seed + h), _gaussian(r, d, seed=seed + 100 + h)) for h in range(heads)]


def _tied(A: Tensor, values: list[tuple[Tensor, Tensor]], c: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(Q, K) per head with A V_h = c_h W_h."""
    return [((A @ output).mT / scale, key) for (output, key), scale in zip(values, c, strict=True)]


def _random_scores(d: int, heads: int, r: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    return [(_gaussian(r, d, seed=seed + h), _gaussian(r, d, seed=seed + 100 + h)) for h in range(heads)]


@pytest.mark.parametrize(("d", "heads", "r"), [(12, 4, 3), (6, 4, 3), (5, 3, 5), (20, 3, 4), (4, 1, 4)])
def test_heads_made_from_one_matrix_are_tied(d, heads, r):
    A, values = _symmetric(d, 8), _heads(d, heads, r, 9)
    c = 0.5 + torch.arange(heads, dtype=torch.float64)
    found = head_tie(_tied(A, values, c), values)
    # The residual is computed without squaring, so rounding, times condition numbers up to 1e3, stays below.
    assert found["residual"] < 1e-10
    assert found["symmetric_residual"] < 1e-10
    assert found["per_head"].max() < 1e-10
    norms = torch.stack([torch.linalg.matrix_norm(Q.mT @ K) for Q, K in _tied(A, values, c)])
    assert float((found["c"] * norms).norm()) == pytest.approx(1)
    assert float((found["symmetric_c"] * norms).norm()) == pytest.approx(1)
    if heads * r > d:  # the heads share A's range, so the ratios of c are determined
        ratios = found["c"] / c
        assert (ratios / ratios[0]).numpy() == pytest.approx(np.ones(heads), abs=1e-8)
        assert found["heads_used"] == heads


def test_a_tie_through_an_asymmetric_matrix_is_seen_as_that():
    A, values = _gaussian(6, 6, seed=10), _heads(6, 4, 3, 11)
    found = head_tie(_tied(A, values, torch.ones(4)), values)
    assert found["residual"] < 1e-10
    assert found["symmetric_residual"] > 0.1


def test_a_negative_factor_is_not_a_tie():
    """A V_h = c_h W_h with one c_h < 0: solvable with that sign, but not with c ≥ 0."""
    values = _heads(6, 4, 4, 12)
    found = head_tie(_tied(_symmetric(6, 13), values, torch.tensor([1.0, 1, -1, 1])), values)
    assert found["lower_bound"] < 1e-10
    assert found["residual"] > 0.1
    assert (found["c"] >= 0).all()


@pytest.mark.parametrize("planted", ["query", "key"])
def test_a_perturbed_head_is_caught_and_named(planted):
    values = _heads(20, 3, 4, 14)
    scores = _tied(_symmetric(20, 15), values, torch.ones(3))
    query, key = scores[1]
    if planted == "query":  # harmless while the heads do not compete for A: another, asymmetric A undoes it
        scores[1] = (query + _gaussian(4, 20, seed=16), key)
    else:
        scores[1] = (query, key + 1e-3 * _gaussian(4, 20, seed=16))
    found = head_tie(scores, values)
    caught = found["per_head"] > 1e-10
    assert caught.tolist() == [False, planted == "key", False]
    assert (found["equal"] > 1e-4) == (planted == "key")
    assert found["symmetric_residual"] > 1e-5


def _brute(scores: list, values: list, symmetric: bool) -> float:
    """The least residual over c ≥ 0 from many starts, each with its best A by dense least squares."""
    W = [(Q.mT @ K).numpy() for Q, K in scores]
    V = [(O @ U).numpy() for O, U in values]  # noqa: E741
    d, scales = len(W[0]), np.array([np.linalg.norm(matrix) for matrix in W])
    basis = np.eye(d * d).reshape(-1, d, d)
    if symmetric:
        basis = (basis + basis.transpose(0, 2, 1)) / 2
    design = np.stack([np.concatenate([(E @ v).ravel() for v in V]) for E in basis], 1)
    image = np.linalg.svd(design, full_matrices=False)
    reached = image.U[:, image.S / image.S[0] > 1e-10]

    def squared(t: np.ndarray) -> float:
        u = t**2 / np.linalg.norm(t**2)
        target = np.concatenate([(x * w / s).ravel() for x, w, s in zip(u, W, scales, strict=True)])
        return float(np.sum((target - reached @ (reached.T @ target)) ** 2))

    random = np.random.default_rng(0)
    starts = [*np.eye(len(W)), *random.random((30, len(W)))]
    return math.sqrt(min(minimize(squared, s + 1e-3, method="L-BFGS-B").fun for s in starts))


@pytest.mark.parametrize(("d", "heads", "r"), [(4, 3, 3), (5, 4, 2), (6, 2, 2), (3, 5, 2)])
def test_random_heads_agree_with_a_brute_force_optimiser(d, heads, r):
    for seed in range(3):
        scores, values = _random_scores(d, heads, r, 1000 * seed), _heads(d, heads, r, 1000 * seed + 500)
        found = head_tie(scores, values)
        # L-BFGS with numerical gradients stops within about 1e-6 of the minimum.
        assert found["residual"] == pytest.approx(_brute(scores, values, False), abs=1e-5)
        assert found["symmetric_residual"] == pytest.approx(_brute(scores, values, True), abs=1e-5)
        assert found["lower_bound"] <= found["residual"] + 1e-12
        assert found["residual"] <= found["equal"] + 1e-12
        assert found["residual"] <= found["symmetric_residual"] + 1e-12
        alone = [head_tie([W], [V])["residual"] for W, V in zip(scores, values, strict=True)]
        assert found["per_head"].numpy() == pytest.approx(np.array(alone))


def test_a_common_scale_does_not_matter():
    scores, values = _random_scores(6, 3, 3, 17), _heads(6, 3, 3, 18)
    found = head_tie(scores, values)
    scaled = head_tie([(Q / 8, K) for Q, K in scores], [(1e3 * output, U) for output, U in values])
    assert scaled["residual"] == pytest.approx(found["residual"])
    assert scaled["c"].numpy() == pytest.approx(8 * found["c"].numpy())


# ---------------------------------------------------------------- bad input


def _eye(d: int) -> Tensor:
    return torch.eye(d, dtype=torch.float64)


BAD = {
    "not square": (symmetry_score, (np.ones((2, 3)),), "matrix"),
    "factors of two shapes": (directionality_score, (np.ones((2, 3)), np.ones((3, 3))), r"matrix\[1\]"),
    "three factors": (antisymmetric_share, (_eye(2), _eye(2), _eye(2)), "matrix"),
    "not finite": (response_changes, (np.full((2, 2), np.nan),), "A"),
    "not symmetric": (smallest_diagonal, (np.triu(np.ones((3, 3))),), "S"),
    "fewer values than scores": (head_tie, ([(_eye(2), _eye(2))], []), "Vs"),
    "head without scores": (head_tie, ([(0 * _eye(2), _eye(2))], [(_eye(2), _eye(2))]), r"Ws\[0\]"),
    "layer without values": (head_tie, ([(_eye(2), _eye(2))], [(0 * _eye(2), _eye(2))]), "Vs"),
    "tokens of two lengths": (head_tie, ([(_eye(2), _eye(2))], [(_eye(3), _eye(3))]), "Ws, Vs"),
    "output not transposed": (head_tie, ([(_eye(3)[:2], _eye(3)[:2])], [(_eye(3)[:2], _eye(3)[:2])]), "Vs"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    function, arguments, name = BAD[case]
    with pytest.raises(InputError, match=name):
        function(*arguments)
