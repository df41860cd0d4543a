"""The promises of numerics.layers, decided by the theory: signs and stability, and certificates by check."""

import warnings

import numpy as np
import pytest
import torch
from flint import fmpq, fmpq_mat
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import softplus

from numerics.adapters.layer import Rotary
from numerics.layers import (
    AttentionMaps,
    DefiniteResponse,
    RotaryDiagonal,
    attention_maps,
    certificate_margin,
    definite_response,
    margin_penalty,
    plain_weights,
)
from theory.certificate import Certificate, check
from theory.definiteness import Inertia, inertia
from theory.eigenpairs import hurwitz, unstable
from theory.factors import Factors
from theory.layer import Head, Layer
from theory.weights import Weights, identity, rational_matrix, symmetric_part

D, HEADS = 6, 2
SOUND = ("none", "values", "scores")
OPTIONS = (*SOUND, "both")

seeds = st.integers(0, 2**31)
shares = st.sampled_from([0.0, 0.5, 1.0])
spreads = st.sampled_from([1e-3, 1.0, 5.0, 20.0])
"""Of the Gaussian parameters; at 20 pivots lie between e^(−60) and 60."""


def refined(negative: float, antisymmetric: str, heads: int = HEADS, size: int = D) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return definite_response(nn.MultiheadAttention(size, heads), negative, antisymmetric)


def response_of(module: nn.Module) -> DefiniteResponse:
    return next(part for part in module.modules() if isinstance(part, DefiniteResponse))


def scatter(module: nn.Module, spread: float, seed: int) -> nn.Module:
    """Gaussian parameters, whatever they were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in response_of(module).parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return module


def exact(matrix: Tensor) -> fmpq_mat:
    return rational_matrix("matrix", matrix.detach().double().numpy())


def floats(matrix: fmpq_mat) -> Tensor:
    return torch.tensor([[int(x.p) / int(x.q) for x in row] for row in matrix.tolist()], dtype=torch.float64)


def unit_lower(raw: Tensor) -> fmpq_mat:
    return exact(raw.tril(-1) + torch.eye(len(raw)))


def exact_form(raw: Tensor, signs: Tensor, turn: Tensor | None) -> fmpq_mat:
    """LD(± + T − Tᵀ)DLᵀ without rounding, from the floats L, D and T."""
    half = unit_lower(raw) * exact(softplus(raw.double().diagonal()).sqrt().diag())
    strict = exact(torch.zeros_like(raw) if turn is None else turn.tril(-1))
    return half * (exact(signs.diag()) + strict - strict.transpose()) * half.transpose()


def exact_matrices(response: DefiniteResponse) -> tuple[fmpq_mat, fmpq_mat]:
    """(W, V) without the scale, as rational functions of the factors: nothing is rounded but D."""
    raw = response.query.detach()
    query = (
        unit_lower(raw)
        * exact(softplus(raw.double().diagonal()).diag())
        * unit_lower(raw.mT).transpose()
        * exact(response.frame)
    )
    size = response.scores.shape[1]
    blocks = fmpq_mat(len(raw), len(raw))
    for h, scores in enumerate(response.scores.detach()):
        turn = None if response.scores_turn is None else response.scores_turn.detach()[h]
        block = exact_form(scores, torch.ones(size), turn)
        for i in range(size):
            for j in range(size):
                blocks[h * size + i, h * size + j] = block[i, j]
    turn = None if response.response_turn is None else response.response_turn.detach()
    W = query.transpose() * blocks * query
    return W, exact_form(response.response.detach(), response.signs, turn) * W


def expected(negative: float, size: int = D) -> Inertia:
    count = round(negative * size)
    return Inertia(size - count, count, 0)


def factors(module: nn.Module, heads: int = HEADS) -> Factors:
    """Of the plain weights."""
    maps = attention_maps(module)
    rows = [m.detach().double().numpy() for m in maps[:4]]
    return Factors(*rows, fmpq(heads, len(rows[0])), heads)


# -------------------------------------------------------------------------- for all parameter values


@settings(max_examples=40)
@given(seeds, spreads, shares, st.sampled_from(OPTIONS), st.sampled_from([1, 2, 3]))
def test_signs_for_all_parameters(seed: int, spread: float, negative: float, antisymmetric: str, heads: int):
    """W_s ≻ 0, A_s of the chosen inertia, and which of A and W is symmetric."""
    W, V = exact_matrices(response_of(scatter(refined(negative, antisymmetric, heads), spread, seed)))
    A = W * V.inv()
    assert inertia(symmetric_part(W))[0] == Inertia(D, 0, 0)
    assert inertia(symmetric_part(A))[0] == expected(negative)
    assert (W.transpose() == W) == (antisymmetric in ("none", "values"))
    assert (A.transpose() == A) == (antisymmetric in ("none", "scores"))


@settings(max_examples=20)
@given(seeds, shares, st.sampled_from(OPTIONS), st.sampled_from([1, 2, 3]))
def test_those_matrices_are_the_modules(seed: int, negative: float, antisymmetric: str, heads: int):
    """What is decided above is what the module computes with: A V_h = W_h included, for every head."""
    module = scatter(refined(negative, antisymmetric, heads).double(), 0.5, seed)
    W, V = exact_matrices(response_of(module))
    maps = attention_maps(module)
    forms = maps.scores().detach(), maps.values().detach()
    A = floats(W * V.inv())
    for found, matrix in zip(forms, (W, V), strict=True):
        torch.testing.assert_close(found.sum(0), floats(matrix) * maps.scale, rtol=0, atol=1e-11)
    torch.testing.assert_close(A @ forms[1], forms[0], rtol=0, atol=1e-7)  # A's condition: below 1e4


@settings(max_examples=30)
@given(seeds, spreads, st.sampled_from(SOUND))
def test_the_sound_options_are_stable(seed: int, spread: float, antisymmetric: str):
    """T6: convergence needs V Hurwitz. Lyapunov's M is −A where A is symmetric (L5), and W where W is."""
    W, V = exact_matrices(response_of(scatter(refined(1.0, antisymmetric, size=4), spread, seed)))
    M = W if antisymmetric == "values" else -(W * V.inv())
    assert M.transpose() == M
    assert inertia(M)[0] == Inertia(4, 0, 0)
    assert inertia(symmetric_part(M * V))[0] == Inertia(0, 4, 0)
    if spread <= 1:
        assert hurwitz(V).holds


@pytest.mark.parametrize("antisymmetric", OPTIONS)
def test_both_can_be_unstable(antisymmetric: str):
    """T7's W = [[3, −4], [4, 3]]/5, A = −Wᵀ, as parameters; the other options ignore or refuse a part."""
    response = response_of(refined(1.0, antisymmetric, heads=1, size=2))
    one = float(torch.tensor(1.0, dtype=torch.float64).expm1().log())  # softplus(one) = 1
    with torch.no_grad():
        response.double()
        response.query.copy_(one * torch.eye(2))
        response.frame.copy_(torch.eye(2))
        response.scores.copy_(one * torch.eye(2))
        response.response.copy_(one * torch.eye(2))
        for turn, sign in ((response.scores_turn, 1), (response.response_turn, -1)):
            if turn is not None:
                turn.copy_(sign * torch.tensor([[0.0, 0.0], [4 / 3, 0.0]]))
    W, V = exact_matrices(response)
    assert inertia(symmetric_part(W * V.inv()))[0] == Inertia(0, 2, 0)
    assert unstable(V).holds == (antisymmetric == "both")


def test_random_parameters_of_both_are_unstable_at_times():
    """Of a seeded sample of Gaussian parameters some, and not all."""
    found = [
        unstable(exact_matrices(response_of(scatter(refined(1.0, "both"), 3.0, s)))[1]).holds
        for s in range(30)
    ]
    assert 0 < sum(found) < 30


# -------------------------------------------------------------------------------- the plain weights


@settings(max_examples=15)
@given(seeds, shares, st.sampled_from(OPTIONS), st.sampled_from([torch.float32, torch.float64]))
def test_plain_weights_audit_as_promised(seed: int, negative: float, antisymmetric: str, dtype: torch.dtype):
    """The rounded weights themselves. Spread 0.3: factors of condition below 1e3, against 1/eps = 1e7."""
    module = plain_weights(scatter(refined(negative, antisymmetric).to(dtype), 0.3, seed))
    audited = factors(module)
    assert audited.scores.positive.holds
    assert audited.response is not None
    assert audited.response.inertia is not None
    assert audited.response.inertia[0] == expected(negative)
    if negative == 1 and antisymmetric != "both":
        assert audited.growth.fails
        assert audited.not_hurwitz.fails


def test_a_larger_layer_audits_as_promised():
    """d = 64, where the theory's balls decide instead of rationals."""
    torch.manual_seed(0)
    module = definite_response(nn.MultiheadAttention(64, 4), 0.5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in response_of(module).parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    audited = factors(plain_weights(module), heads=4)
    assert audited.scores.positive.holds
    assert audited.response is not None
    assert audited.response.inertia is not None
    assert audited.response.inertia[0] == Inertia(32, 32, 0)


@pytest.mark.parametrize(("optimizer", "rate"), [(torch.optim.SGD, 0.5), (torch.optim.Adam, 0.05)])
@pytest.mark.parametrize(("negative", "antisymmetric"), [(1.0, "none"), (0.5, "scores"), (0.0, "both")])
def test_signs_stay_while_training(
    optimizer: type[torch.optim.Optimizer], rate: float, negative: float, antisymmetric: str
):
    """50 steps on random targets, in float32; every tenth state, as plain weights and as exact factors."""
    torch.manual_seed(0)
    module = refined(negative, antisymmetric)
    steps = optimizer(module.parameters(), lr=rate)
    start = response_of(module).query.detach().clone()
    for step in range(1, 51):
        x, target = torch.randn(2, 5, 4, D)
        steps.zero_grad()
        (module(x, x, x, need_weights=False)[0] - target).square().mean().backward()
        steps.step()
        if step % 10 == 0:
            audited = factors(module)
            assert audited.scores.positive.holds
            assert audited.response is not None
            assert audited.response.inertia is not None
            assert audited.response.inertia[0] == expected(negative)
            W, V = exact_matrices(response_of(module))
            assert inertia(symmetric_part(W * V.inv()))[0] == expected(negative)
    assert (response_of(module).query - start).norm() > 0.1  # it did train


# ------------------------------------------------------------------------------------- certificates


def closed_form(maps: AttentionMaps, kind: str, metric: np.ndarray) -> Certificate:
    """S_h = W_{h,s} − ν_h M, c = 1, μ_h = ν_h/2, each ν_h rounded up and the rate down."""
    sign = 1 if kind == "divergence" else -1
    scores, values = (forms.detach().numpy() for forms in (maps.scores(), maps.values()))
    root = np.linalg.cholesky(metric)
    whiten = lambda N: np.linalg.solve(root, np.linalg.solve(root, N.T).T)  # noqa: E731
    nus = [
        np.linalg.norm(whiten(sign * metric @ V - W), 2) * (1 + 1e-9) + 1e-12
        for W, V in zip(scores, values, strict=True)
    ]
    M = rational_matrix("M", metric)
    parts = [
        symmetric_part(rational_matrix("W", W)) - M * fmpq(*nu.as_integer_ratio())
        for W, nu in zip(scores, nus, strict=True)
    ]
    total = scores.sum(0) - sum(nus) * metric
    rate = np.linalg.eigvalsh(whiten((total + total.T) / 2))[0] * (1 - 1e-6)
    multipliers = tuple({0: (fmpq(1), fmpq(*nu.as_integer_ratio()) / 2)} for nu in nus)
    return Certificate(kind, M, fmpq(*float(rate).as_integer_ratio()), tuple(parts), multipliers)


def layer_of(maps: AttentionMaps, n: int = 8) -> Layer:
    heads = [
        Head(Weights.of(W.detach().numpy(), V.detach().numpy()))
        for W, V in zip(maps.scores(), maps.values(), strict=True)
    ]
    return Layer(tuple(heads), n)


@pytest.mark.parametrize("antisymmetric", OPTIONS)
@pytest.mark.parametrize(("negative", "kind"), [(0.0, "divergence"), (1.0, "boundedness")])
def test_a_positive_margin_is_a_certificate(antisymmetric: str, negative: float, kind: str):
    """A penalty drives the margin for M = I above 0; then the theory proves that certificate."""
    torch.manual_seed(0)
    module = refined(negative, antisymmetric).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in response_of(module).parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    metric = torch.eye(D).double()
    steps = torch.optim.Adam(module.parameters(), lr=0.02)
    slower = torch.optim.lr_scheduler.LinearLR(steps, 1.0, 0.0, 400)
    assert certificate_margin(module, kind, metric) < 0
    for _ in range(400):
        steps.zero_grad()
        penalty = margin_penalty(module, kind, metric, target=0.05)
        if penalty == 0:
            break
        penalty.backward()
        steps.step()
        slower.step()
    assert certificate_margin(module, kind, metric) > 0
    maps = attention_maps(plain_weights(module))
    assert check(closed_form(maps, kind, metric.numpy()), layer_of(maps)).holds


def test_rounded_weights_keep_a_certificate():
    """A of float32 weights is symmetric up to rounding only, which T2 does not bear and T11 does."""
    torch.manual_seed(0)
    module = plain_weights(scatter(refined(1.0, "none"), 0.3, 0)).double()
    maps = attention_maps(module)
    W, V = (forms.sum(0).detach() for forms in (maps.scores(), maps.values()))
    A = W @ V.inverse()
    assert (A - A.mT).abs().max() > 0
    metric = -(A + A.mT).numpy() / 2
    assert check(closed_form(maps, "boundedness", metric), layer_of(maps)).holds


@pytest.mark.parametrize(("negative", "kind"), [(0.0, "divergence"), (1.0, "boundedness")])
def test_kappa_gives_a_certificate(negative: float, kind: str):
    """Every rotated form W_{h,r} + κW_h, with rotations computed elsewhere, under T13's pair certificate."""
    n, size = 4, 4
    torch.manual_seed(0)
    module = definite_response(RotaryDiagonal(size, 1, diagonal="margin").double(), negative)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in response_of(module).parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    kappa = module.fit_kappa(n)
    assert kappa > 0
    maps = attention_maps(plain_weights(module))
    W, V = maps.scores()[0].detach(), maps.values()[0].detach()
    A = W @ V.inverse()
    response = ((A + A.mT) / 2 * (1 if negative == 0 else -1)).numpy()
    turned = Rotary(module.base, size, "half-split").turn(torch.eye(size).double()[:, None].expand(-1, n, -1))

    def proved(kappa: float) -> bool:
        rotations = {r: turned[:, r].mT for r in range(1, n)}
        rotations |= {-r: rotation.mT for r, rotation in rotations.items()}
        forms = {
            r: (maps.query.mT @ rotation @ maps.key * maps.scale + kappa * W).detach().numpy()
            for r, rotation in rotations.items()
        }
        head = Head(
            Weights.of(((1 + kappa) * W).numpy(), V.numpy()),
            {r: rational_matrix("W_r", form) for r, form in forms.items()},
        )
        metric = (1 + kappa) * response
        root = np.linalg.cholesky(metric)
        whiten = lambda N: np.linalg.solve(root, np.linalg.solve(root, N.T).T)  # noqa: E731
        sign = 1 if negative == 0 else -1
        norms = [np.linalg.norm(whiten(sign * metric @ V.numpy() - form), 2) for form in forms.values()]
        nu = float(max(norms)) * (1 + 1e-9)
        own = (1 + kappa) * W.numpy()
        eta = (float(np.linalg.eigvalsh(whiten((own + own.T) / 2))[0]) - nu) * (1 - 1e-6)
        certificate = Certificate.plain(kind, metric, nu, eta, tuple(forms))
        return check(certificate, Layer((head,), n)).holds

    assert proved(kappa)
    assert not proved(kappa * 0.5)


def test_identity_is_the_unit():
    """The helper that widens L by 1 is exact."""
    assert unit_lower(torch.zeros(3, 3)) == identity(3)
