"""What the released code of arXiv 2512.03058 does, done again from a description (docs/released_code.md).

Nothing of that code is here. Its parametrisation, as described: M = L diag(±softplus(s)) Lᵀ + T − Tᵀ with L
unit lower triangular, so that the sign of M_s is as wanted and M_a is free. Every share below is of a seeded
sample, drawn with unit Gaussian entries of s, T and L unless said otherwise.
"""

import pytest
import torch
from torch import Generator, Tensor

from numerics.encodings import rotary_turns
from theory.definiteness import Inertia, inertia, positive_definite
from theory.eigenpairs import hurwitz, unstable
from theory.verdict import Grade
from theory.weights import Weights, rational_matrix, symmetric_part

SIZES = [(2, 2000), (4, 1000), (8, 400), (16, 100)]  # (d, systems)


def _gaussian(*shape: int, generator: Generator) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def _definite(
    batch: int, d: int, generator: Generator, antisymmetric: float = 1.0, lower: float = 1.0
) -> Tensor:
    """M (batch, d, d) with M_s ≻ 0. T has entries of size `antisymmetric`, L below its diagonal `lower`."""
    L = lower * _gaussian(batch, d, d, generator=generator).tril(-1) + torch.eye(d, dtype=torch.float64)
    sizes = torch.nn.functional.softplus(_gaussian(batch, d, generator=generator))
    T = antisymmetric * _gaussian(batch, d, d, generator=generator)
    return (L * sizes[:, None]) @ L.mT + T - T.mT


def _symmetric_spectrum(M: Tensor) -> Tensor:
    return torch.linalg.eigvalsh((M + M.mT) / 2)


# ------------------------------------------ definiteness of WqWkᵀ is not definiteness of WqᵀWk


def _projections(d: int, batch: int, orthogonal: bool = False, **sizes: float) -> tuple[Tensor, Tensor]:
    """(Wq, Wk) (batch, d, d) with (WqWkᵀ)_s ≻ 0: Wq Gaussian, or orthogonal, and Wk solved."""
    generator = Generator().manual_seed(0)
    M = _definite(batch, d, generator, **sizes)
    query = _gaussian(batch, d, d, generator=generator)
    query = torch.linalg.qr(query).Q if orthogonal else query
    return query, torch.linalg.solve(query, M).mT


def _negative_share(M: Tensor) -> float:
    return float((_symmetric_spectrum(M) < 0).double().mean())


@pytest.mark.parametrize(("d", "batch"), SIZES)
def test_a_third_of_the_scores_eigenvalues_are_negative_though_all_were_made_positive(d, batch):
    query, key = _projections(d, batch)
    assert (_symmetric_spectrum(query @ key.mT) > 0).all()
    # theory.md says 33–41 %; here 34.6, 36.1, 37.3 and 37.8 %. The error of a share is below 1 %.
    assert 0.33 < _negative_share(query.mT @ key) < 0.41
    if d >= 4:
        assert (
            _symmetric_spectrum(query.mT @ key)[:, 0] < 0
        ).double().mean() > 0.99  # hardly a system escapes


def test_the_share_depends_on_the_sampling_but_is_never_nought():
    """It is a property of the sampling, not of the mistake: from an eighth to nearly a half."""
    small = _negative_share(_scores(*_projections(2, 2000, antisymmetric=0, lower=0)))
    large = _negative_share(_scores(*_projections(16, 100, antisymmetric=1, lower=0.1)))
    assert 0.10 < small < 0.14
    assert 0.42 < large < 0.46


def _scores(query: Tensor, key: Tensor) -> Tensor:
    """What nn.Linear weights give: q_iᵀk_j = x_iᵀ(WqᵀWk)x_j."""
    return query.mT @ key


@pytest.mark.parametrize(("d", "batch"), SIZES)
def test_no_eigenvalue_is_negative_while_the_query_map_is_orthogonal(d, batch):
    query, key = _projections(d, batch, orthogonal=True)
    assert (_symmetric_spectrum(_scores(query, key)) > 0).all()


def test_a_query_and_key_for_which_only_one_of_the_products_is_definite():
    query = rational_matrix("query", [[1, 2], [0, 1]])
    key = rational_matrix("key", [[1, 0], [-8, 4]])
    imposed = query * key.transpose()
    assert imposed == rational_matrix("imposed", [[1, 0], [0, 4]])
    assert positive_definite(symmetric_part(imposed)).holds
    scores = Weights.from_projections(query, key, [[1, 0], [0, 1]]).form
    assert scores == query.transpose() * key
    assert inertia(symmetric_part(scores)) == (Inertia(1, 1, 0), Grade.EXACT)
    assert (
        scores.charpoly() == imposed.charpoly()
    )  # similar up to a transpose: the mistake leaves eigenvalues alone


# ------------------------------------------ both antisymmetric parts free: scenario nd is not stable


def _nd(d: int, batch: int, antisymmetric: float) -> tuple[Tensor, Tensor]:
    """(W, A) with W_s ≻ 0 and A_s ≺ 0, both antisymmetric parts of the given size."""
    generator = Generator().manual_seed(1)
    W = _definite(batch, d, generator, antisymmetric)
    return W, -_definite(batch, d, generator, antisymmetric)


def _unstable_share(W: Tensor, A: Tensor) -> float:
    values = torch.linalg.eigvals(torch.linalg.solve(A, W)).real
    return float((values.amax(1) > 0).double().mean())


@pytest.mark.parametrize(
    ("d", "batch", "least", "most"), [(2, 2000, 0.18, 0.25), (4, 1000, 0.47, 0.56), (8, 400, 0.78, 0.89)]
)
def test_many_systems_of_scenario_nd_are_unstable_if_both_antisymmetric_parts_are_free(d, batch, least, most):
    assert least < _unstable_share(*_nd(d, batch, 1.0)) < most
    assert _unstable_share(*_nd(d, batch, 0.0)) == 0


def test_each_of_sixty_systems_of_scenario_nd_is_certified_stable_or_unstable():
    """The signs and the (in)stability of the sampled floats themselves, taken as exact rationals."""
    found = {"unstable": 0, "stable": 0}
    for W, A in zip(*_nd(3, 60, 1.0), strict=True):
        weights = Weights.from_response(W.numpy(), A.numpy())
        assert positive_definite(symmetric_part(weights.form)).holds
        assert positive_definite(-symmetric_part(rational_matrix("A", A.numpy()))).holds
        verdicts = unstable(weights.value).holds, hurwitz(weights.value).holds
        assert sorted(verdicts) == [False, True]
        found["unstable" if verdicts[0] else "stable"] += 1
    assert found["unstable"] == round(60 * _unstable_share(*_nd(3, 60, 1.0)))
    assert found["unstable"] >= 10
    assert found["stable"] >= 10


# ------------------------------------------ rotation along the batch axis


def test_rotation_along_the_batch_axis_leaves_every_score_as_it_was():
    generator = Generator().manual_seed(2)
    batch, n, d_k = 5, 7, 8
    query, key = (_gaussian(batch, n, d_k, generator=generator) for _ in range(2))
    plain = query @ key.mT
    by_sequence = rotary_turns(batch, d_k)[:, None]  # (batch, 1, d_k, d_k): one angle for all of a sequence
    by_token = rotary_turns(n, d_k)  # (n, d_k, d_k)
    wrong, right = (_rotated(turns, query) @ _rotated(turns, key).mT for turns in (by_sequence, by_token))
    assert (_rotated(by_sequence, query) - query).abs().max() > 1  # the rotation itself does happen
    # Sums of 8 products of entries up to 3, each rounded a few times to 1e-16.
    assert (wrong - plain).abs().max() < 1e-14
    assert (right - plain).abs().max() > 1


def _rotated(turns: Tensor, x: Tensor) -> Tensor:
    return (turns @ x[..., None])[..., 0]


# ------------------------------------------ two meanings of A


def test_a_response_that_is_negative_definite_in_one_meaning_and_not_in_the_other():
    """AV = W is the response identity's A (L4); with V from A = WVᵀ the response WV⁻¹ is another matrix."""
    W, A = rational_matrix("W", [[1, 0], [-1, 1]]), rational_matrix("A", [[-1, 0], [0, -10]])
    assert positive_definite(symmetric_part(W)).holds
    assert positive_definite(-A).holds
    value = W.inv() * A
    value = value.transpose()
    assert W * value.transpose() == A
    response = Weights.of(W, value).response_form
    assert response * value == W
    assert response != response.transpose()
    assert inertia(symmetric_part(response)) == (Inertia(1, 1, 0), Grade.EXACT)
    assert Weights.from_response(W, A).response_form == A


def test_how_often_the_second_meaning_keeps_the_sign():
    """A = Aᵀ ≺ 0 as described: V from A = WVᵀ is Hurwitz all the same, but WV⁻¹ is seldom of one sign."""
    W, A = _nd(4, 1000, 1.0)
    A = (A + A.mT) / 2
    value = torch.linalg.solve(W, A).mT
    response = torch.linalg.solve(value.mT, W.mT).mT
    assert (torch.linalg.eigvals(value).real < 0).all()
    negative = (_symmetric_spectrum(response)[:, -1] < 0).double().mean()
    assert 0 < negative < 0.2
