"""Systems that satisfy given hypotheses and are free otherwise: random batches, and exact strategies.

Both are driven by hypothesis keys alone. Dropping a key therefore widens the family, which is how a planted
false variant is exposed to its counterexamples. A family that only one file of `pairing` needs lives there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import torch
from hypothesis import reject
from hypothesis import strategies as st
from torch import Generator, Tensor

from numerics import families, observables
from theory.errors import InputError
from theory.instance import Instance
from theory.system import Setting
from tokendyn.moment import Moment

Keys = frozenset[str]

SIZES = ((1, 2), (2, 1), (2, 2), (3, 2), (4, 3), (6, 4), (9, 5))
"""Numbers of tokens and dimensions (n, d) that random batches run through."""


@dataclass(frozen=True)
class Family:
    """Two ways to make weights and parameters (by the names of Moment.of and Instance.of) from keys.

    random(keys, batch, n, d, generator) gives tensors with a batch axis, exact(draw, keys, n, d) gives
    Fractions drawn from Hypothesis. Either may also give `tokens`, the start, which otherwise is drawn to
    satisfy the keys. `dimension` and `count` are the only d and n of the family, if there is just one;
    `most_tokens` bounds the exact search.
    """

    random: Callable[[Keys, int, int, int, Generator], dict[str, Tensor]]
    exact: Callable[[Callable, Keys, int, int], dict]
    dimension: int | None = None
    count: int | None = None
    most_tokens: int = 4


# Random batches


def sample(
    family: Family, keys: Keys, setting: Setting, batch: int, n: int, d: int, generator: Generator
) -> Moment:
    """`batch` random systems of n tokens in R^d that satisfy the hypotheses `keys` to rounding."""
    n, d = _forced_size(family, keys, n, d)
    weights = family.random(keys, batch, n, d, generator)
    scale = 10 ** (torch.rand(batch, dtype=torch.float64, generator=generator) * 1.5 - 1)
    x = families.random_tokens(batch, n, d, scale, generator)
    start = weights.pop("tokens", None)
    return Moment.of(setting, _start(keys, x, weights, generator) if start is None else start, **weights)


def _forced_size(family: Family, keys: Keys, n: int, d: int) -> tuple[int, int]:
    return 3 if "tokens mirrored" in keys else family.count or n, family.dimension or d


def uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """Numbers (batch,) between low and high."""
    return low + (high - low) * torch.rand(batch, dtype=torch.float64, generator=generator)


def _start(keys: Keys, x: Tensor, weights: Mapping[str, Tensor], generator: Generator) -> Tensor:
    """Tokens that satisfy the hypotheses on the start; a tenth of the rows get a special position."""
    batch, n, _ = x.shape
    special = torch.rand(batch, generator=generator)
    if "one side" in keys and "ell" in weights:
        ell = weights["ell"][..., 0]
        levels = observables.hyperplane(x, ell)
        wanted = levels.abs() + 0.01
        return x + (wanted - levels)[..., None] * (ell / (ell**2).sum(1, keepdim=True))[:, None]
    if "tokens equal" in keys:
        return x[:, :1].expand(batch, n, -1).clone()
    if "tokens mirrored" in keys:
        return torch.stack([x[:, 0], -x[:, 0], torch.zeros_like(x[:, 0])], dim=1)
    x = torch.where((special < 0.05)[:, None, None], x[:, :1], x)
    if n > 1:
        x[:, -1] = torch.where(((special > 0.05) & (special < 0.1))[:, None], 0.0, x[:, -1])
    if "start nonzero" not in keys:
        x = torch.where((special > 0.98)[:, None, None], 0.0, x)
    return x


def _positive_count(keys: Keys, name: str, batch: int, d: int, generator: Generator) -> Tensor:
    """How many eigenvalues of the symmetric part are positive: forced by the hypotheses, else anything."""
    free = torch.randint(0, d + 1, (batch,), generator=generator)
    if f"{name} positive" in keys:
        return torch.full_like(free, d)
    if f"{name} negative" in keys:
        return torch.zeros_like(free)
    if f"{name} definite" in keys:
        return torch.where(free > d / 2, d, 0)
    return free


def random_form(keys: Keys, name: str, batch: int, d: int, generator: Generator) -> Tensor:
    positive = _positive_count(keys, name, batch, d, generator)
    share = torch.rand(batch, dtype=torch.float64, generator=generator) * 0.9
    if f"{name} symmetric" in keys or d == 1:
        share = torch.zeros_like(share)
    return families.random_form(batch, d, positive=positive, antisymmetric_share=share, generator=generator)


def random_scores(keys: Keys, batch: int, d: int, generator: Generator) -> Tensor:
    """W; where no hypothesis gives it a sign, some rows are of rank one (as a head's may be) or zero."""
    W = random_form(keys, "W", batch, d, generator)
    if not keys & {"W positive", "W definite"}:
        special = torch.rand(batch, generator=generator)[:, None, None]
        left, right = torch.randn(2, batch, d, dtype=torch.float64, generator=generator)
        W = torch.where(special < 0.15, left[:, :, None] * right[:, None], W)
        W = torch.where(special > 0.95, 0.0, W)
    return W


def _response_family(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    W = random_scores(keys, batch, d, generator)
    return {"score": W, "response": random_form(keys, "A", batch, d, generator)}


def _value_family(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    W = random_scores(keys, batch, d, generator)
    V = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
    if {"V not Hurwitz", "V unstable"} & keys:
        lift = (0.1 - observables.spectral_abscissa(V)).clamp(min=0)
        V = V + lift[:, None, None] * torch.eye(d, dtype=V.dtype)
    if "V Hurwitz" in keys:
        V = hurwitz(V)
    return {"score": W, "value": V}


def hurwitz(V: Tensor) -> Tensor:
    """V (batch, d, d) moved to the left so that no eigenvalue has real part above −0.1."""
    excess = (observables.spectral_abscissa(V) + 0.1).clamp(min=0)
    return V - excess[:, None, None] * torch.eye(V.shape[1], dtype=V.dtype)


def _hyperplane_family(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    W = random_scores(keys, batch, d, generator)
    rate = torch.randint(200, 1200, (batch,), generator=generator).double() / families.GRID
    if "rate positive" not in keys:
        rate = rate * torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0)
    V, ell = families.random_value_with_left_eigenvector(batch, d, rate, generator)
    if "left eigenvector" not in keys:
        V = torch.randn(batch, d, d, dtype=torch.float64, generator=generator)
    return {"score": W, "value": V, "ell": ell[..., None], "rate": rate[:, None, None]}


def _rotation_family(keys: Keys, batch: int, n: int, d: int, generator: Generator) -> dict[str, Tensor]:
    a = torch.rand(batch, dtype=torch.float64, generator=generator) + 0.1
    b = a + torch.rand(batch, dtype=torch.float64, generator=generator) + 0.1
    if "steep rotation" not in keys:
        a, b = (u * torch.where(torch.rand(batch, generator=generator) < 0.5, -1.0, 1.0) for u in (b, a))
    W = torch.stack([torch.stack([a, -b], 1), torch.stack([b, a], 1)], 1)
    if "W rotation" not in keys:
        W[:, :, 1] = torch.randn(batch, 2, dtype=torch.float64, generator=generator)
    A = -W.mT.clone()
    if "A minus W transposed" not in keys:
        A = random_form(frozenset(), "A", batch, d, generator)
    return {"score": W, "response": A}


# Exact strategies

INTEGERS = st.integers(-3, 3)
_SIZES_OF_PIVOTS = st.sampled_from([Fraction(1), Fraction(2), Fraction(1, 2), Fraction(4)])

Matrix = list[list[Fraction]]


def exact_matrix(draw: Callable, rows: int, columns: int, entries: st.SearchStrategy = INTEGERS) -> Matrix:
    return [[Fraction(draw(entries)) for _ in range(columns)] for _ in range(rows)]


def _signs(draw: Callable, keys: Keys, name: str, d: int) -> list[int]:
    if f"{name} positive" in keys:
        return [1] * d
    if f"{name} negative" in keys:
        return [-1] * d
    if f"{name} definite" in keys:
        return [draw(st.sampled_from([1, -1]))] * d
    free = [1, -1, 0] if name == "W" else [1, -1]
    return [draw(st.sampled_from(free)) for _ in range(d)]


def exact_form(draw: Callable, keys: Keys, name: str, d: int) -> Matrix:
    """L·D·Lᵀ with unit lower triangular L and the signs asked for, plus an antisymmetric part if allowed."""
    pivots = [sign * draw(_SIZES_OF_PIVOTS) for sign in _signs(draw, keys, name, d)]
    lower = [
        [Fraction(int(i == j)) if i <= j else Fraction(draw(st.integers(-2, 2))) for j in range(d)]
        for i in range(d)
    ]
    form = [
        [sum((lower[i][k] * pivots[k] * lower[j][k] for k in range(d)), Fraction(0)) for j in range(d)]
        for i in range(d)
    ]
    if f"{name} symmetric" not in keys:
        for i in range(d):
            for j in range(i):
                skew = draw(st.integers(-4, 4))
                form[i][j] += skew
                form[j][i] -= skew
    return form


def _exact_tokens(draw: Callable, keys: Keys, n: int, d: int, ell: list[Fraction] | None) -> Matrix:
    entries = st.integers(-4, 4)
    if "tokens equal" in keys:
        return [*exact_matrix(draw, 1, d, entries)] * n
    if "tokens mirrored" in keys:
        token = exact_matrix(draw, 1, d, entries)[0]
        return [token, [-q for q in token], [Fraction(0)] * d]
    tokens = exact_matrix(draw, n, d, entries)
    if "start nonzero" in keys and not any(any(token) for token in tokens):
        tokens[0][0] = Fraction(1)
    if "one side" in keys and ell is not None:  # ell[0] = 1: the first coordinate sets the level
        for token in tokens:
            token[0] += Fraction(draw(st.integers(1, 4))) - sum(
                p * q for p, q in zip(ell, token, strict=True)
            )
    return tokens


def exact_sizes(family: Family, keys: Keys) -> list[tuple[int, int]]:
    """The sizes (n, d) that the exact search runs through, smallest first: n ≤ 4, d ≤ 3."""
    sizes = {_forced_size(family, keys, n, d) for n in range(1, family.most_tokens + 1) for d in range(1, 4)}
    return sorted(sizes, key=lambda size: (size[0] * size[1], size))


@st.composite
def instances(draw: Callable, family: Family, keys: Keys, setting: Setting, n: int, d: int) -> Instance:
    """Exact systems of n tokens in R^d, with small numbers, that satisfy `keys` by construction."""
    weights = family.exact(draw, keys, n, d)
    tokens = weights.pop("tokens", None) or _exact_tokens(draw, keys, n, d, weights.get("ell"))
    try:
        return Instance.of(tokens=tokens, setting=setting, **weights)
    except InputError:  # a singular response, possible where nothing forces a sign
        reject()


def _exact_response(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    return {"score": exact_form(draw, keys, "W", d), "response": exact_form(draw, keys, "A", d)}


def _exact_value(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    value = exact_matrix(draw, d, d)
    if "V not Hurwitz" in keys:  # a non-negative trace is enough, and so is a row of zeros
        if draw(st.booleans()):
            value[0][0] += max(Fraction(0), -sum((value[i][i] for i in range(d)), Fraction(0)))
        else:
            value[0] = [Fraction(0)] * d
    if "V unstable" in keys:  # a positive trace is enough
        value[0][0] += max(Fraction(0), 1 - sum((value[i][i] for i in range(d)), Fraction(0)))
    if "V Hurwitz" in keys:
        value = exact_hurwitz(draw, d)
    return {"score": exact_form(draw, keys, "W", d), "value": value}


def exact_hurwitz(draw: Callable, d: int) -> Matrix:
    """A matrix that becomes diagonally dominant with a negative diagonal in a scaled basis."""
    value = exact_matrix(draw, d, d, st.integers(-2, 2))
    for i in range(d):
        value[i][i] = -sum(abs(q) for j, q in enumerate(value[i]) if j != i) - draw(st.integers(1, 3))
    scale = [draw(st.sampled_from([Fraction(1), Fraction(3), Fraction(1, 3)])) for _ in range(d)]
    return [[scale[i] * value[i][j] / scale[j] for j in range(d)] for i in range(d)]


def _exact_hyperplane(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    ell = [Fraction(1), *(Fraction(draw(INTEGERS)) for _ in range(d - 1))]
    low = 1 if "rate positive" in keys else -3
    rate = Fraction(draw(st.integers(low, 3)))
    value = exact_matrix(draw, d, d)
    if "left eigenvector" in keys:
        value[0] = [rate * ell[j] - sum(ell[i] * value[i][j] for i in range(1, d)) for j in range(d)]
    return {"score": exact_form(draw, keys, "W", d), "value": value, "ell": ell, "rate": rate}


def _exact_rotation(draw: Callable, keys: Keys, n: int, d: int) -> dict:
    a, b = Fraction(draw(st.integers(1, 3))), Fraction(draw(st.integers(1, 3)))
    b = a + b if "steep rotation" in keys else b - 4
    a = a if "steep rotation" in keys else a - 2
    if not (a or b):
        a = Fraction(1)
    score = [[a, -b], [b, a]]
    if "W rotation" not in keys:
        score = [[row[0], Fraction(draw(INTEGERS))] for row in score]
    response = [[-score[j][i] for j in range(2)] for i in range(2)]
    if "A minus W transposed" not in keys or _determinant(response) == 0:
        response = exact_form(draw, frozenset(), "A", d)
    return {"score": score, "response": response}


def _determinant(matrix: Matrix) -> Fraction:
    return matrix[0][0] * matrix[1][1] - matrix[0][1] * matrix[1][0]


RESPONSE = Family(_response_family, _exact_response)
VALUE = Family(_value_family, _exact_value)
HYPERPLANE = Family(_hyperplane_family, _exact_hyperplane)
ROTATION = Family(_rotation_family, _exact_rotation, dimension=2)
