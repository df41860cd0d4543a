from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import InputError
from numerics.families import (
    random_form,
    random_orthogonal,
    random_tokens,
    random_value_with_left_eigenvector,
)
from numerics.observables import antisymmetric_share, symmetric_part

f64 = partial(torch.tensor, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 7), st.data())
def test_forms_have_the_promised_inertia_spectrum_and_share(seed, d, data):
    positive = data.draw(st.integers(0, d))
    share = data.draw(st.sampled_from([0.0, 0.1, 0.7, 0.99]))
    low, high = data.draw(st.sampled_from([(0.5, 2.0), (1e-3, 1e3), (1.0, 1.0)]))
    M = random_form(
        4, d, positive=positive, spectrum=(low, high), antisymmetric_share=share, generator=generator(seed)
    )
    eigenvalues = torch.linalg.eigvalsh(symmetric_part(M))
    assert ((eigenvalues > 0).sum(1) == positive).all()
    rounding = 1e-13 * high
    assert (eigenvalues.abs() >= low - rounding).all()
    assert (eigenvalues.abs() <= high + rounding).all()
    torch.testing.assert_close(
        antisymmetric_share(M), torch.full((4,), share, dtype=torch.float64), rtol=1e-12, atol=1e-15
    )


def test_parameters_may_differ_by_row_and_symmetric_is_exact():
    positive, share = torch.tensor([0, 1, 2, 3]), f64([0.0, 0.2, 0.4, 0.6])
    M = random_form(4, 3, positive=positive, antisymmetric_share=share, generator=generator())
    assert (torch.linalg.eigvalsh(symmetric_part(M)) > 0).sum(1).tolist() == positive.tolist()
    torch.testing.assert_close(antisymmetric_share(M), share)
    assert torch.equal(M[0], M[0].mT)
    assert (random_form(5, 1, positive=0, generator=generator()) < 0).all()


def test_left_eigenvector_and_orthogonal():
    rate = f64([0.125, 1.0, -3.0])
    V, ell = random_value_with_left_eigenvector(3, 4, rate, generator())
    assert torch.equal((ell[:, :, None] * V).sum(1), rate[:, None] * ell)
    with pytest.raises(InputError, match="rate"):
        random_value_with_left_eigenvector(3, 4, 0.1, generator())
    O = random_orthogonal(3, 4, generator())  # noqa: E741
    torch.testing.assert_close(O @ O.mT, torch.eye(4).double().expand(3, 4, 4), rtol=0, atol=1e-14)


def test_tokens_scale_and_determinism():
    scale = f64([0.0, 1.0, 10.0])
    x = random_tokens(3, 2000, 2, scale, generator())
    torch.testing.assert_close(x.std((1, 2)), scale, rtol=0.05, atol=0)
    assert torch.equal(x, random_tokens(3, 2000, 2, scale, generator()))
    assert not torch.equal(x, random_tokens(3, 2000, 2, scale, generator(1)))
    M = [random_form(2, 3, positive=1, antisymmetric_share=0.3, generator=generator()) for _ in range(2)]
    assert torch.equal(*M)


@pytest.mark.parametrize(
    ("argument", "change"),
    [
        ("positive", {"positive": 4}),
        ("positive", {"positive": -1}),
        ("positive", {"positive": 1.5}),
        ("positive", {"positive": torch.tensor([1, 2, 3])}),
        ("spectrum", {"spectrum": (2.0, 1.0)}),
        ("spectrum", {"spectrum": (0.0, 1.0)}),
        ("spectrum", {"spectrum": (1.0, float("nan"))}),
        ("antisymmetric_share", {"antisymmetric_share": 1.0}),
        ("antisymmetric_share", {"antisymmetric_share": -0.1}),
        ("antisymmetric_share", {"antisymmetric_share": 0.5, "d": 1, "positive": 1}),
    ],
)
def test_bad_form_requests(argument, change):
    with pytest.raises(InputError) as error:
        random_form(**{"batch": 2, "d": 3, "positive": 1, "generator": generator(), **change})
    assert error.value.argument == argument


def test_per_row_numbers_must_match_the_batch():
    with pytest.raises(InputError, match="rate"):
        random_value_with_left_eigenvector(2, 3, torch.ones(3), generator())
    with pytest.raises(InputError, match="scale"):
        random_tokens(2, 3, 3, torch.ones(2, 1), generator())
