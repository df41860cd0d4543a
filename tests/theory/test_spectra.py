"""Certified spectra: exact counts and 256-bit eigenvalues must agree, whatever the floats proposed."""

import numpy as np
import pytest
from flint import acb, fmpq, fmpq_mat
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.high_precision import (
    arb_eigenvalues,
    arb_inertia,
    contains,
    exact_inertia,
    rationals,
    reaches,
)
from theory import spectra
from theory.balls import Ball, exact
from theory.definiteness import Inertia
from theory.errors import InputError
from theory.spectra import (
    Discs,
    Enclosure,
    inertia,
    low_rank_spectrum,
    smallest_singular_value,
    solve_right,
    spectrum,
    symmetric_spectrum,
)

SMALL = st.integers(-3, 3)


def gaussian(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def square(entries: list[int]) -> np.ndarray:
    size = round(len(entries) ** 0.5)
    return np.array(entries, dtype=float).reshape(size, size)


def scalar(size: int, number: float) -> fmpq_mat:
    return rationals(np.diag(np.full(size, float(number))))


# --- symmetric ---------------------------------------------------------------------------------------------


def assert_encloses(enclosure: Enclosure | None, S: fmpq_mat) -> None:
    """Exact counts: at most i eigenvalues below lower[i], and more than i not above upper[i]."""
    assert enclosure is not None
    size = S.nrows()
    assert len(enclosure.lower) == size
    for i, (low, high) in enumerate(zip(enclosure.lower, enclosure.upper, strict=True)):
        assert exact_inertia(S - scalar(size, low))[1] <= i
        assert exact_inertia(S - scalar(size, high))[0] <= size - 1 - i


def width(enclosure: Enclosure) -> float:
    return (enclosure.upper - enclosure.lower).max() / np.abs(enclosure.upper).max()


GRADED = np.logspace(0, -12, 8)
SYMMETRIC = {
    "random": gaussian((8, 8)),
    "graded": gaussian((8, 8)) * np.outer(GRADED, GRADED),
    "repeated": np.kron(np.eye(4), np.array([[2.0, 1.0], [1.0, 2.0]])),
    "identity": np.eye(6),
    "zero": np.zeros((3, 3)),
    "nearly singular": np.ones((6, 6)) + 1e-9 * np.eye(6),
    "huge": gaussian((6, 6), 1) * 2.0**900,
    "tiny": gaussian((6, 6), 2) * 2.0**-900,
    "one": np.array([[-3.0]]),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_symmetric_spectrum_encloses_every_eigenvalue(name):
    S = np.tril(SYMMETRIC[name]) + np.tril(SYMMETRIC[name], -1).T
    enclosure = symmetric_spectrum(exact(S))
    assert_encloses(enclosure, rationals(S))
    # Rounding alone: (64 + 1)·8·2⁻⁵³ ≈ 6e-14 for a matrix of size 8 and norm 1; a zero matrix has no scale.
    assert name == "zero" or width(enclosure) < 1e-12


@given(st.lists(SMALL, min_size=16, max_size=16))
def test_symmetric_spectrum_of_integers(entries):
    S = square(entries) + square(entries).T
    assert_encloses(symmetric_spectrum(exact(S)), rationals(S))


def symmetric_members_are_enclosed() -> None:
    mid, rad = gaussian((7, 7)), np.full((7, 7), 0.01)
    mid = (mid + mid.T) / 2
    enclosure = symmetric_spectrum(Ball(mid, rad))
    for seed in range(4):
        signs = np.sign(gaussian((7, 7), seed))
        member = np.tril(mid + rad * signs) + np.tril(mid + rad * signs, -1).T
        assert_encloses(enclosure, rationals(np.clip(member, mid - rad, mid + rad)))
    extreme = mid + rad  # moves the eigenvalue along (1, …, 1) by all of ‖rad‖ = 0.07
    assert_encloses(enclosure, rationals(extreme))


def test_symmetric_spectrum_holds_for_all_members():
    symmetric_members_are_enclosed()


def sloppy(monkeypatch: pytest.MonkeyPatch, name: str, noise: float) -> None:
    """Make a LAPACK proposal wrong by a relative `noise`: the proof must not care."""
    proposed = getattr(np.linalg, name)
    generator = np.random.default_rng(3)

    def worse(*args, **kwargs):
        found = proposed(*args, **kwargs)
        parts = found if isinstance(found, tuple) else (found,)
        spoilt = tuple(part * (1 + noise * generator.normal(size=part.shape)) for part in parts)
        return spoilt if isinstance(found, tuple) else spoilt[0]

    monkeypatch.setattr(np.linalg, name, worse)


def bad_eigenvectors_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    S = np.diag([1.0, 2.0, 3.0, -4.0]) + 0.1 * (gaussian((4, 4)) + gaussian((4, 4)).T)
    sloppy(monkeypatch, "eigh", 0.02)
    enclosure = symmetric_spectrum(exact(S))
    assert_encloses(enclosure, rationals(S))
    assert width(enclosure) > 1e-3


def test_symmetric_proof_does_not_trust_its_proposal(monkeypatch):
    bad_eigenvectors_do_no_harm(monkeypatch)


@pytest.mark.parametrize("check", [symmetric_members_are_enclosed, bad_eigenvectors_do_no_harm])
def test_a_proof_without_its_residual_is_caught(monkeypatch, check):
    monkeypatch.setattr(Ball, "norm_bound", lambda self: 0.0)
    with pytest.raises(AssertionError):
        check(*([monkeypatch] if check is bad_eigenvectors_do_no_harm else []))


def test_ostrowski_is_needed(monkeypatch):
    """Eigenvectors 1 % too long: QᵀSQ is diagonal, yet its diagonal is 2 % off."""
    S = np.diag([1.0, 2.0, 5.0])
    monkeypatch.setattr(np.linalg, "eigh", lambda M: (np.diag(M) * 1.01**2, np.eye(3) * 1.01))
    assert_encloses(symmetric_spectrum(exact(S)), rationals(S))
    monkeypatch.setattr(np.linalg, "eigh", lambda M: (np.diag(M), np.eye(3) * 1.3))
    assert symmetric_spectrum(exact(S)) is None  # ‖QᵀQ − I‖ = 0.69: not provably a basis


def test_what_floats_cannot_do_gives_none(monkeypatch):
    assert symmetric_spectrum(exact(np.full((9, 9), 1e308))) is None  # the eigenvalue 9e308 has no float

    def fail(*args, **kwargs):
        raise np.linalg.LinAlgError("no convergence")

    for name in ("eigh", "eig", "svd", "inv", "qr"):
        monkeypatch.setattr(np.linalg, name, fail)
    one = exact(np.eye(2))
    assert symmetric_spectrum(one) is None
    assert low_rank_spectrum(one) is None
    assert spectrum(one) is None
    assert solve_right(one, one) is None
    assert smallest_singular_value(one) == 0.0


def test_hopeless_proposals_give_none(monkeypatch):
    M = exact(np.eye(4) + 0.1 * gaussian((4, 4)))
    for name in ("eigh", "inv"):
        sloppy(monkeypatch, name, 3.0)
    assert symmetric_spectrum(M.symmetric_part()) is None
    assert low_rank_spectrum(M) is None
    assert spectrum(M) is None
    assert solve_right(M, M) is None


def test_inertia_counts_signs():
    enclosed = symmetric_spectrum(exact(np.diag([2.0, -1.0, 5.0])))
    assert enclosed is not None
    assert inertia(enclosed) == Inertia(2, 1, 0)
    assert inertia(enclosed, zeros=4) == Inertia(2, 1, 4)
    singular = symmetric_spectrum(exact(np.diag([2.0, 0.0])))
    assert singular is not None
    assert inertia(singular) is None


@pytest.mark.parametrize("seed", range(3))
def test_inertia_agrees_with_two_referees(seed):
    M = gaussian((40, 40), seed)
    S = M + M.T
    enclosed = symmetric_spectrum(exact(S))
    assert enclosed is not None
    found = inertia(enclosed)
    assert found is not None
    assert (found.positive, found.negative, found.zero) == arb_inertia(S) == exact_inertia(S)


def test_referees_know_zero_eigenvalues():
    S = np.ones((3, 3))
    assert exact_inertia(S) == (1, 0, 2)
    assert arb_inertia(S) is None
    assert exact_inertia(-np.eye(2)) == (0, 2, 0)


# --- low rank ----------------------------------------------------------------------------------------------


def assert_encloses_low_rank(enclosure: Enclosure | None, B: np.ndarray) -> None:
    """The zeros of S belong between the enclosed negative and positive eigenvalues."""
    assert enclosure is not None
    rank, size = B.shape
    assert (enclosure.lower[rank // 2 :] >= 0).all()
    assert (enclosure.upper[: rank // 2] <= 0).all()
    product = rationals(B[: rank // 2]).transpose() * rationals(B[rank // 2 :])
    low, high = (
        np.concatenate([ends[: rank // 2], np.zeros(size - rank), ends[rank // 2 :]])
        for ends in (enclosure.lower, enclosure.upper)
    )
    assert_encloses(Enclosure(low, high), (product + product.transpose()) / 2)


LOW_RANK = {
    "random": gaussian((4, 9)),
    "square": gaussian((6, 6)),
    "unequal scales": gaussian((4, 9)) * np.array([[2.0**30], [2.0**30], [2.0**-30], [2.0**-30]]),
    "graded": gaussian((6, 10)) * np.logspace(0, -6, 6)[:, None],
    "huge": gaussian((4, 6)) * 2.0**450,
    "tiny": gaussian((4, 6)) * 2.0**-450,
    "nearly dependent": np.array([[1.0, 0, 0], [1, 2.0**-20, 0]]),
    "one pair": np.array([[1.0, 2, 3], [-3, 0, 1]]),
}


@pytest.mark.parametrize("name", LOW_RANK)
def test_low_rank_spectrum_encloses_every_eigenvalue(name):
    enclosure = low_rank_spectrum(exact(LOW_RANK[name]))
    assert_encloses_low_rank(enclosure, LOW_RANK[name])
    assert enclosure is not None
    # Rounding times the condition number of B: 1e6 where nearly dependent, where the small one may touch 0.
    assert width(enclosure) < 1e-8
    if name != "nearly dependent":
        rank, size = LOW_RANK[name].shape
        assert inertia(enclosure, size - rank) == Inertia(rank // 2, rank // 2, size - rank)


@given(st.lists(SMALL, min_size=20, max_size=20))
def test_low_rank_spectrum_of_integers(entries):
    B = np.array(entries, dtype=float).reshape(4, 5)
    enclosure = low_rank_spectrum(exact(B))
    if rationals(B).rank() == 4:
        assert_encloses_low_rank(enclosure, B)
    else:
        assert enclosure is None


def test_low_rank_proof_does_not_trust_its_proposal(monkeypatch):
    sloppy(monkeypatch, "eigh", 0.005)
    sloppy(monkeypatch, "qr", 0.005)
    B = np.eye(4, 6) + 0.1 * gaussian((4, 6), 5)
    assert_encloses_low_rank(low_rank_spectrum(exact(B)), B)


def test_low_rank_spectrum_holds_for_all_members():
    B, rad = gaussian((4, 7)), np.full((4, 7), 1e-3)
    enclosure = low_rank_spectrum(Ball(B, rad))
    for seed in range(3):
        member = B + 0.999 * rad * np.sign(gaussian((4, 7), seed))
        assert_encloses_low_rank(enclosure, member)


# --- general -----------------------------------------------------------------------------------------------


def assert_discs_hold(discs: Discs | None, eigenvalues: list[acb]) -> None:
    """Every component holds as many eigenvalues as it has discs, and the derived facts are true."""
    assert discs is not None
    held = np.array(
        [
            [reaches(complex(c), float(r), value) for c, r in zip(discs.centres, discs.radii, strict=True)]
            for value in eigenvalues
        ]
    )
    assert held.any(axis=1).all()
    for number in np.unique(discs.component):
        members = discs.component == number
        assert held[:, members].any(axis=1).sum() == members.sum()
    low, high = discs.abscissa()
    assert all(value.real <= high for value in eigenvalues)
    assert any(value.real >= low for value in eigenvalues)
    least, most = discs.unstable()
    assert least <= sum(not value.real <= 0 for value in eigenvalues)
    assert sum(value.real > 0 for value in eigenvalues) <= most
    for low, high in discs.real_positive():
        assert low > 0
        assert sum(low <= v.real and v.real <= high and v.imag.contains(0) for v in eigenvalues) == 1


SQUARES = {
    "random": gaussian((12, 12)),
    "graded": gaussian((8, 8)) * np.logspace(0, -8, 8)[:, None],
    "rotation": np.array([[3.0, -4.0], [4.0, 3.0]]) / 5,
    "symmetric": gaussian((8, 8)) + gaussian((8, 8)).T,
    "nearly singular": np.vstack([gaussian((5, 6)), np.full((1, 6), 1e-13)]),
    "nearly defective": np.array([[1.0, 1.0], [2.0**-30, 1.0]]),
    "huge": gaussian((6, 6), 1) * 2.0**900,
    "tiny": gaussian((6, 6), 2) * 2.0**-900,
    "repeated": np.kron(np.eye(3), np.array([[1.0, -2.0], [2.0, 1.0]])),
    "real": np.triu(gaussian((6, 6))) + np.diag(np.arange(6.0)),
}


@pytest.mark.parametrize("name", SQUARES)
def test_spectrum_encloses_every_eigenvalue(name):
    discs = spectrum(exact(SQUARES[name]))
    assert_discs_hold(discs, arb_eigenvalues(SQUARES[name], 512))
    # Rounding times the eigenvalues' condition numbers: ≤ 1e4 here, but for the near-Jordan block (2¹⁵).
    assert discs.radii.max() < 1e-9 * np.abs(discs.centres).max()


@given(st.lists(SMALL, min_size=16, max_size=16))
def test_spectrum_of_integers(entries):
    V = square(entries)
    roots = rationals(V).charpoly().numer().complex_roots()  # of the characteristic polynomial, certified
    eigenvalues = [root for root, multiplicity in roots for _ in range(int(multiplicity))]
    discs = spectrum(exact(V))
    if discs is not None:
        assert_discs_hold(discs, eigenvalues)
    else:
        assert any(multiplicity > 1 for _, multiplicity in roots)


def test_defective_matrices_are_enclosed_or_left_open():
    jordan = np.diag([2.0, 2.0, 2.0, -1.0]) + np.diag([1.0, 1.0, 0.0], 1)
    lower = np.array([[1, 0, 0, 0], [2, 1, 0, 0], [0, 1, 1, 0], [1, 0, 2, 1]], dtype=float)
    basis = rationals(lower) * rationals(lower.T)  # integers of determinant 1
    V = basis * rationals(jordan) * basis.inv()
    assert all(entry.q == 1 for entry in V.entries())
    discs = spectrum(exact(np.array([[int(entry.p) for entry in row] for row in V.tolist()])))
    if discs is not None:
        assert_discs_hold(discs, [acb(2), acb(2), acb(2), acb(-1)])
    block = np.eye(5) + np.diag(np.ones(4), 1)
    assert_discs_hold(spectrum(exact(block)), [acb(1)] * 5)
    singular = np.array([[0.0, 1.0], [0.0, 0.0]])
    around = spectrum(Ball(singular, np.full((2, 2), 1e-6)))
    assert_discs_hold(around, arb_eigenvalues(singular + np.array([[0, 0], [1e-6, 0]])))  # ±1e-3


def general_members_are_enclosed() -> None:
    V, rad = np.diag([1.0, -2.0, 3.0, 5.0]) + 0.1 * gaussian((4, 4)), np.full((4, 4), 1e-3)
    discs = spectrum(Ball(V, rad))
    for seed in range(4):
        assert_discs_hold(discs, arb_eigenvalues(V + 0.999 * rad * np.sign(gaussian((4, 4), seed))))


def pairs_do_not_trust_their_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Complex pairs, real eigenvalues, and eigenvectors and values that are 0.2 % wrong."""
    blocks = np.diag([1.0, 1, -3, -3, 4]) + np.diag([2.0, 0, 1, 0], 1) - np.diag([2.0, 0, 1, 0], -1)
    V = blocks + 0.05 * gaussian((5, 5), 4)
    sloppy(monkeypatch, "eig", 0.002)
    sloppy(monkeypatch, "inv", 0.002)
    discs = spectrum(exact(V))
    assert_discs_hold(discs, arb_eigenvalues(V))
    assert discs is not None
    assert len(np.unique(discs.component)) == 5
    assert discs.radii.max() > 1e-3


def shrunk_discs_keep_their_eigenvalue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float eigenvectors replaced by the unit vectors: the radii are the row sums, then shrink."""
    V = np.diag([1.0, 2.0, 4.0]) + 0.05 * np.array([[0, 1, -1], [1, 0, 1], [1, -1, 0.0]])
    monkeypatch.setattr(np.linalg, "eig", lambda M: (np.diag(M).astype(complex), np.eye(3)))
    discs = spectrum(exact(V))
    assert_discs_hold(discs, arb_eigenvalues(V))
    assert discs is not None
    assert 1e-4 < discs.radii.max() < 0.1


def test_spectrum_holds_for_all_members():
    general_members_are_enclosed()


@pytest.mark.parametrize("check", [pairs_do_not_trust_their_proposal, shrunk_discs_keep_their_eigenvalue])
def test_general_proof_does_not_trust_its_proposal(monkeypatch, check):
    check(monkeypatch)


def test_discs_without_the_residual_are_caught(monkeypatch):
    monkeypatch.setattr(spectra, "_unitary_pairs", lambda bounds, first: np.full(bounds.shape, 1e-300))
    with pytest.raises(AssertionError):
        general_members_are_enclosed()
    for check in (pairs_do_not_trust_their_proposal, shrunk_discs_keep_their_eigenvalue):
        with monkeypatch.context() as patch, pytest.raises(AssertionError):
            check(patch)


def test_pairs_need_their_change_of_basis(monkeypatch):
    """One real entry is off, in the first row; both conjugate eigenvalues move, so both discs must grow."""
    near, V = np.array([[0.25, 0.5], [-0.5, 0.25]]), np.array([[0.375, 0.5], [-0.5, 0.25]])
    proposed = np.linalg.eig(near)
    monkeypatch.setattr(np.linalg, "eig", lambda M: proposed)
    assert_discs_hold(spectrum(exact(V)), arb_eigenvalues(V))
    monkeypatch.setattr(spectra, "_unitary_pairs", lambda bounds, first: bounds)
    with pytest.raises(AssertionError):
        assert_discs_hold(spectrum(exact(V)), arb_eigenvalues(V))


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_sharp_on_a_larger_matrix(seed):
    V = gaussian((40, 40), seed)
    truth, discs = arb_eigenvalues(V), spectrum(exact(V))
    assert_discs_hold(discs, truth)
    assert discs is not None
    positive = sum(value.real > 0 for value in truth)
    assert discs.unstable() == (positive, positive)
    assert len(discs.real_positive()) == sum(v.real > 0 and v.imag.contains(0) for v in truth)
    low, high = discs.abscissa()
    assert high - low < 1e-10


def test_facts_of_overlapping_discs_stay_weak():
    discs = Discs(
        np.array([1.0 + 0j, -1.0, 5.0, -9.0]), np.array([1.5, 1.5, 1.0, 1.0]), np.array([0, 0, 2, 3])
    )
    assert discs.unstable() == (1, 3)
    assert discs.real_positive() == [pytest.approx((4, 6))]
    assert discs.abscissa() == pytest.approx((4, 6))
    chain = spectrum(Ball(np.diag([1.0, 1.3, 1.6, 9.0]), np.diag([0.2, 0.2, 0.2, 0.2])))
    assert chain is not None
    assert chain.component.tolist() == [0, 0, 0, 3]


def test_spectrum_overflow_and_underflow():
    assert spectrum(exact(np.full((9, 9), 1e308))) is None
    zero = spectrum(exact(np.zeros((3, 3))))
    assert zero is not None
    assert zero.unstable() == (0, 3)


# --- solving and singular values ---------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 2.0**300, 2.0**-300])
def test_solve_right_encloses_the_quotient(scale):
    W, V = gaussian((6, 8)), gaussian((8, 8), 1) * scale
    A = solve_right(exact(W), exact(V))
    assert A is not None
    assert contains(A.mid, A.rad, rationals(W) * rationals(V).inv())
    assert A.rad.max() < 1e-11 * np.abs(A.mid).max()


def test_solve_right_does_not_trust_its_proposal(monkeypatch):
    W, V = gaussian((3, 5)), np.eye(5) + 0.1 * gaussian((5, 5), 1)
    sloppy(monkeypatch, "inv", 0.05)
    A = solve_right(exact(W), exact(V))
    assert A is not None
    truth = rationals(W) * rationals(V).inv()
    assert contains(A.mid, A.rad, truth)
    assert not contains(A.mid, A.rad * 0.01, truth)  # an error that the residual alone accounts for


@given(st.lists(SMALL, min_size=18, max_size=18))
def test_solve_right_of_integers(entries):
    W, V = square(entries[:9]), square(entries[9:])
    A = solve_right(exact(W), exact(V))
    if rationals(V).rank() == 3:
        assert A is not None
        assert contains(A.mid, A.rad, rationals(W) * rationals(V).inv())
    else:
        assert A is None


def test_solve_right_holds_for_all_members():
    W, V = gaussian((2, 3)), np.eye(3)
    A = solve_right(Ball(W, np.full((2, 3), 0.01)), Ball(V, np.full((3, 3), 0.01)))
    assert A is not None
    for sign in (1, -1):
        shift = np.full((3, 3), 0.0099 * sign)
        assert contains(A.mid, A.rad, rationals(W - shift[:2]) * rationals(V + shift).inv())
    assert solve_right(exact(V), Ball(V, np.full((3, 3), 0.4))) is None  # (1, 1, 1) may be in the kernel


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 5)])
@pytest.mark.parametrize("scale", [1.0, 2.0**800, 2.0**-800])
def test_smallest_singular_value_is_a_sharp_lower_bound(shape, scale):
    B = gaussian(shape) * scale
    bound = smallest_singular_value(exact(B))
    rows = rationals(B if shape[0] <= shape[1] else B.T)
    gram, size = rows * rows.transpose(), min(shape)
    square_of = rationals(np.array([[bound]]))[0, 0] ** 2
    identity = scalar(size, 1)
    assert exact_inertia(gram - identity * square_of)[1] == 0
    assert exact_inertia(gram - identity * square_of * fmpq(1000001, 1000000))[1] == 1


def test_smallest_singular_value_does_not_trust_its_proposal(monkeypatch):
    B = np.eye(3, 4) + 0.1 * gaussian((3, 4))
    true = np.linalg.svd(B)[1][-1]
    sloppy(monkeypatch, "svd", 0.01)
    bound = smallest_singular_value(exact(B))
    assert 0.5 * true < bound < true * (1 - 1e-4)


def test_dependent_rows_have_no_lower_bound():
    assert smallest_singular_value(exact(np.ones((2, 3)))) == 0.0
    assert smallest_singular_value(exact(np.zeros((2, 3)))) == 0.0
    assert smallest_singular_value(Ball(np.eye(2), np.ones((2, 2)))) == 0.0


def test_shapes_are_checked():
    wide, tall = exact(np.ones((2, 3))), exact(np.ones((4, 3)))
    for call in (
        lambda: symmetric_spectrum(wide),
        lambda: spectrum(wide),
        lambda: solve_right(wide, wide),
        lambda: low_rank_spectrum(tall),
        lambda: low_rank_spectrum(exact(np.ones((3, 4)))),
    ):
        with pytest.raises(InputError, match="got shape"):
            call()


def test_sizes_of_real_layers_stay_tight():
    """Measured at d = 200: 5e-12, 4e-12, 7e-12 and 5e-11, relative to the largest; a factor 10 is left."""
    V, W = exact(gaussian((200, 200))), exact(gaussian((200, 200), 1))
    enclosed, discs, A = symmetric_spectrum(V.symmetric_part()), spectrum(V), solve_right(W, V)
    assert enclosed is not None
    assert discs is not None
    assert A is not None
    assert width(enclosed) < 5e-11
    assert inertia(enclosed) is not None
    assert discs.radii.max() < 5e-11 * np.abs(discs.centres).max()
    assert A.rad.max() < 1e-10 * np.abs(A.mid).max()
    heads = low_rank_spectrum(exact(gaussian((64, 200))))
    assert heads is not None
    assert width(heads) < 5e-10
