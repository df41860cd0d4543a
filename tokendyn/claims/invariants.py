"""Facts about the trajectory of one exact system, each with the theorem that proves it.

All speak of the system's start; `certify` also tries starts that it makes itself.
"""

from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import numpy as np
from flint import arb, fmpq, fmpq_mat, fmpq_poly, fmpz_poly

from theory.eigenpairs import enclose_eigenpair
from theory.proposals import eigenpairs
from theory.verdict import Grade
from theory.weights import identity
from tokendyn.claims.exact import SCALAR, Scalar, inner, is_rational
from tokendyn.claims.laws import Fact, shown
from tokendyn.claims.system import ExactSystem, State, decide, grade

MOST_MAPS = 400  # candidates for symmetries


def facts(system: ExactSystem) -> Iterator[Fact]:
    """All facts that the quick certificates prove, most special first."""
    for certificate in (still_tokens, linear_tokens, levels, hyperplane, orbit):
        yield from certificate(system)


def everyone(system: ExactSystem) -> frozenset[int]:
    return frozenset(range(1, system.n + 1))


def _plain_values(system: ExactSystem) -> bool:
    """Whether ẋ_i = Σ_h V_h Σ_j P_ij x_j: no positions in the values, no sphere; weights rational."""
    encoded = system.claim.encoding == "absolute in scores and values"
    return not (encoded or system.claim.sphere) and all(map(is_rational, system.V))


def still_tokens(system: ExactSystem) -> Iterator[Fact]:
    """Velocity exactly 0 stays so: of all tokens, or of the first k under a causal mask, who see no others.

    And a token that a symmetry g of weights and tokens keeps, with no vector but 0 fixed by g, stays at 0.
    """
    velocity = system.velocity(system.x0)
    at_rest = [all(decide("==", c, fmpq(0)) is True for c in row) for row in velocity]
    count = at_rest.index(False) if False in at_rest else system.n
    if count == system.n or (count and system.claim.causal):
        whole = count == system.n
        reason = (
            "the start is an equilibrium" if whole else f"tokens 1 … {count} see no others and are at rest"
        )
        proof, reason = grade(*(c for row in velocity[:count] for c in row)), f"{reason}: the velocity is 0"
        yield Fact("still", frozenset(range(1, count + 1)), proof, reason)
        return
    kept = {
        k + 1
        for g, moved in symmetries(system)
        for k in range(system.n)
        if system.x0[moved[k]] == system.x0[k] and (g - identity(system.d)).det() != 0
    }
    if kept:
        reason = "a symmetry of weights and tokens fixes these tokens and no vector but 0, so they stay at 0"
        yield Fact("still", frozenset(kept), Grade.EXACT, reason)


# Tokens that obey a linear equation


def linear_tokens(system: ExactSystem) -> Iterator[Fact]:
    """Equal tokens stay equal and obey ẏ = (Σ_h V_h)y; so does the first token under a causal mask.

    Let p be the minimal polynomial of y(0) relative to V. By V's Jordan form on the Krylov space of y(0),
    |y(t)| grows like t^(m−1)e^{αt}, α the largest real part of a root of p and m − 1 < its multiplicity. A
    residual layer has I + hV and log|root| in their place.
    """
    rows = system.x0
    if not _plain_values(system) or not any(rows[0]) or not isinstance(system.h, fmpq | None):
        return
    equal = all(row == rows[0] for row in rows)
    if not (equal or system.claim.causal):
        return
    size, tokens = system.d, everyone(system) if equal else frozenset({1})
    value = sum((fmpq_mat(v) for v in system.V[1:]), fmpq_mat(system.V[0]))
    matrix = value if system.h is None else identity(size) + value * system.h
    polynomial = _minimal_polynomial(matrix, fmpq_mat([[c] for c in rows[0]]))
    found = _growth(polynomial, residual=system.h is not None)
    if found is None:
        return
    rate, multiplicity, proof = found
    generic = (system.n == 1 or not equal) and polynomial.degree() == matrix.minpoly().degree()
    who = "equal tokens stay equal and obey" if equal and system.n > 1 else "the first token obeys"
    reason = f"{who} a linear equation, with growth rate {shown(rate)}"
    if polynomial.degree() == 1:
        root = -polynomial[0] / polynomial[1]
        if system.h is None or root > 0:
            yield Fact("scaled", tokens, proof, f"{reason}, along an eigenvector", rate, generic=generic)
    yield Fact("lower", tokens, proof, reason, rate, generic=generic)
    yield Fact("upper", tokens, proof, reason, rate, slow=multiplicity > 1, generic=generic)


def _minimal_polynomial(matrix: fmpq_mat, vector: fmpq_mat) -> fmpq_poly:
    """The monic p of least degree with p(matrix)·vector = 0, from the Krylov vectors."""
    columns = [vector]
    while True:
        following = matrix * columns[-1]
        rows = [[column[i, 0] for column in [*columns, following]] for i in range(matrix.nrows())]
        if fmpq_mat(rows).rank() == len(columns):
            basis = fmpq_mat([row[:-1] for row in rows])
            gram = basis.transpose() * basis
            weights = gram.solve(basis.transpose() * following)
            return fmpq_poly([*(-weights[k, 0] for k in range(len(columns))), fmpq(1)])
        columns.append(following)


def _growth(polynomial: fmpq_poly, residual: bool) -> tuple[Scalar, int, Grade] | None:
    """The largest Re λ over its roots (log|λ| if residual), an upper bound on the multiplicity there, and
    how both were found."""
    rates, many, factors = [], 1, polynomial.factor()[1]
    for factor, multiplicity in factors:
        many = max(many, multiplicity)
        if factor.degree() == 1:
            root = -factor[0] / factor[1]
            rates.append(_logarithm(abs(root)) if residual else root)
            continue
        imaginary = not residual and _only_imaginary(factor)
        for root in _roots(factor):
            rates.append(fmpq(0) if imaginary else abs(root).log() if residual else arb(root.real))
    rates = [rate for rate in rates if rate is not None]
    if not rates:
        return None
    best = rates[0]
    for rate in rates[1:]:
        best = rate if rate >= best else best if rate <= best else arb(rate).max(arb(best))
    rational_roots = all(factor.degree() == 1 for factor, _ in factors)
    return best, many, grade(*rates) if rational_roots else Grade.INTERVAL


def _logarithm(value: fmpq) -> Scalar | None:
    return None if value == 0 else fmpq(0) if value == 1 else arb(value).log()


def _only_imaginary(factor: fmpq_poly) -> bool:
    """Whether all roots of an irreducible polynomial are imaginary: it is q(x²), all roots of q < 0."""
    coefficients = factor.coeffs()
    if any(coefficients[1::2]):
        return False
    roots = _roots(fmpq_poly(coefficients[::2]))
    return all(decide("==", root.imag, arb(0)) is True and root.real < 0 for root in roots)


def _roots(polynomial: fmpq_poly) -> list[Any]:
    """Balls around all complex roots; real ones have imaginary part exactly 0."""
    return [root for root, _ in fmpz_poly(list(polynomial.numer())).complex_roots()]  # pyright: ignore


# Left eigenvectors


def levels(system: ExactSystem) -> Iterator[Fact]:
    """ℓᵀV_h = 0 for every head: then ℓ·ẋ_i = 0, and |x_i| ≥ |ℓ·x_i(0)|/|ℓ| for ever."""
    if not _plain_values(system):
        return
    stacked = fmpq_mat([list(column) for v in system.V for column in zip(*v, strict=True)])
    for ell in _kernel(stacked):
        length = SCALAR["norm"](ell)
        heights = tuple(arb(inner(ell, token)) / arb(length) for token in system.x0)
        reason = f"ℓ = ({', '.join(map(str, ell))}) has ℓᵀV = 0, so every ℓ·x_i is constant"
        yield Fact("levels", everyone(system), Grade.EXACT, reason, levels=heights, generic=True)


def _kernel(matrix: fmpq_mat) -> list[list[Any]]:
    """A basis of the vectors that the matrix maps to 0."""
    reduced, rank = matrix.rref()
    pivots = [next(c for c in range(matrix.ncols()) if reduced[r, c] != 0) for r in range(rank)]
    basis = []
    for free in (c for c in range(matrix.ncols()) if c not in pivots):
        vector = [fmpq(c == free) for c in range(matrix.ncols())]
        for r, c in enumerate(pivots):
            vector[c] = -reduced[r, free]
        basis.append(vector)
    return basis


def hyperplane(system: ExactSystem) -> Iterator[Fact]:
    """T17: ℓᵀV = μℓᵀ, μ > 0, and all ℓ·x_i > 0. Then ℓ·x_i ≥ e^{μt} min_j ℓ·x_j(0) for every token.

    For several heads ℓ is one of V_1 that all others share. A residual layer multiplies the least by 1 + hμ.
    """
    if not _plain_values(system) or (system.h is not None and not system.h > 0):
        return
    for mu, ell, proof in _left_eigenpairs(fmpq_mat(system.V[0])):
        rates = [mu, *(_rate_of(ell, v) for v in system.V[1:])]
        if not all(rate is not None and rate >= 0 for rate in rates):
            continue
        total = sum(rates, fmpq(0))
        heights = [inner(ell, token) for token in system.x0]
        if total > 0 and (all(z > 0 for z in heights) or all(z < 0 for z in heights)):
            rate = total if system.h is None else arb(1 + system.h * total).log()
            reason = f"T17: ℓᵀV = μℓᵀ, μ = {shown(total)}, and all tokens are on one side of ℓ·x = 0"
            yield Fact("lower", everyone(system), proof, reason, rate, generic=True)


def _left_eigenpairs(value: fmpq_mat) -> Iterator[tuple[Scalar, list[Scalar], Grade]]:
    """Real left eigenpairs: rational eigenvalues exactly, others enclosed."""
    size, turned = value.nrows(), value.transpose()
    rational_roots = [-f[0] / f[1] for f, _ in value.charpoly().factor()[1] if f.degree() == 1]
    for root in rational_roots:
        for ell in _kernel(turned - identity(size) * root):
            yield root, list(ell), Grade.EXACT
    try:
        guesses = eigenpairs(turned)
    except (ArithmeticError, ValueError):
        return
    for mu, vector in guesses:
        near = any(abs(mu - float(arb(root))) < 1e-9 * (1 + abs(mu)) for root in rational_roots)
        if mu.imag == 0 and not near:
            pair = enclose_eigenpair(turned, mu, np.real(vector))
            if pair is not None:  # the ball is its own conjugate, so its only eigenpair is real
                yield pair.value.real, [entry.real for entry in pair.vector.entries()], Grade.INTERVAL


def _rate_of(ell: list[Any], value: State) -> Any:
    """μ with ℓᵀV = μℓᵀ exactly, or None."""
    if not is_rational([ell]):
        return None
    image = [inner(ell, list(column)) for column in zip(*value, strict=True)]
    pivot = next(k for k, entry in enumerate(ell) if entry != 0)
    mu = image[pivot] / ell[pivot]
    return mu if all(a == mu * b for a, b in zip(image, ell, strict=True)) else None


# Orbits of a symmetry


def symmetries(system: ExactSystem) -> list[tuple[fmpq_mat, list[int]]]:
    """Matrices g with gᵀW_hg = W_h and gV_h = V_hg that permute the tokens, g x_k = x_{moved[k]}.

    Full attention without encoding sees tokens only through scores and means: X(t) keeps such a symmetry.
    """
    claim, rows = system.claim, system.x0
    if claim.causal or claim.encoding != "none" or not all(map(is_rational, (rows, *system.W, *system.V))):
        return []
    places = {tuple(map(str, row)): k for k, row in enumerate(rows)}
    own = sorted(tuple(map(str, row)) for row in rows)
    forms, values = [fmpq_mat(w) for w in system.W], [fmpq_mat(v) for v in system.V]
    found = []
    for g in _candidates(system):
        images = [tuple(map(str, (fmpq_mat([row]) * g.transpose()).entries())) for row in rows]
        if sorted(images) != own:
            continue
        kept = all(g.transpose() * w * g == w for w in forms) and all(g * v == v * g for v in values)
        if kept and (not claim.sphere or g.transpose() * g == identity(system.d)):
            found.append((g, [places[image] for image in images]))
    return found


def _candidates(system: ExactSystem) -> Iterator[fmpq_mat]:
    """Maps of a basis of tokens to other tokens; signed permutations where the tokens span less, or d ≤ 3."""
    d, rows = system.d, system.x0
    seen: set[str] = set()
    basis: list[int] = []
    for k in range(system.n):
        if fmpq_mat([rows[j] for j in [*basis, k]]).rank() == len(basis) + 1:
            basis.append(k)
    maps = _signed_permutations(d) if d <= 3 else iter([identity(d) * -1])
    if len(basis) == d:
        inverse = fmpq_mat([rows[k] for k in basis]).inv()
        maps = (m for part in (maps, _images(inverse, rows, d)) for m in part)
    for count, g in enumerate(maps):
        if count > MOST_MAPS:
            return
        if str(g) not in seen:
            seen.add(str(g))
            yield g


def _images(inverse: fmpq_mat, rows: State, d: int) -> Iterator[fmpq_mat]:
    for chosen in permutations(range(len(rows)), d):
        yield (inverse * fmpq_mat([rows[k] for k in chosen])).transpose()


def _signed_permutations(d: int) -> Iterator[fmpq_mat]:
    for order in permutations(range(d)):
        for signs in product((1, -1), repeat=d):
            yield fmpq_mat([[signs[r] if order[r] == c else 0 for c in range(d)] for r in range(d)])


def orbit(system: ExactSystem) -> Iterator[Fact]:
    """Tokens g_1y, …, g_ny of one orbit: symmetries keep x_k = g_ky, so ẏ = Σ_h V_h Σ_k p_k g_k y.

    With M = Σ gᵀg over the symmetries and E = ½yᵀMy, Ė/2E = Σ_h Σ_k p_k r_k, r_k a Rayleigh quotient of
    sym(MV_hg_k) in M, in [a_k, b_k]. For a fixed key o, p_k ≤ w_k = min(1, exp(−γ_k|y|²)), γ_k the least
    eigenvalue of sym(W_h(g_o − g_k)). As p_o = 1 − Σ p_k,
        a_o − Σ w_k (a_o − a_k)⁺ ≤ Σ_k p_k r_k ≤ b_o + Σ w_k (b_k − b_o)⁺,
    and for γ_k ≥ 0 the left bound does not fall, the right one does not rise, as |y|² grows. If the sum over
    the heads of the left bounds is ρ > 0 at the least |y| on the start's level of E, E never falls below it
    and grows at least like e^{2ρt} (residual: by 1 + 2hρ per layer, as E is convex). If that of the right
    bounds is < 0 there, E never rises above it; and it decays at the rate Σ_h max_k b_k if that is < 0.
    """
    maps = _single_orbit(system)
    if maps is None or system.claim.sphere or not any(system.x0[0]):
        return
    y = fmpq_mat([[c] for c in system.x0[0]])
    metric = sum((g.transpose() * g for g, _ in symmetries(system)), identity(system.d) * 0)
    top = SCALAR["eigmax"](metric.tolist())
    square = arb((y.transpose() * metric * y)[0, 0]) / arb(top)
    states, tokens = tuple(g.tolist() for g in maps), everyone(system)
    low = _sum([_best(_head_bounds(system, h, maps, metric, square, 1)) for h in range(len(system.V))])
    who = f"the tokens are one orbit of {len(maps)} symmetries of the weights and stay one"
    if low[0] is not None and low[0] > 0:
        rate = low[1] if system.h is None else arb(1 + 2 * system.h * low[1]).log() / 2
        reason = f"{who}; their energy grows at a rate of at least {shown(2 * low[0])}"
        yield Fact("lower", tokens, Grade.INTERVAL, reason, rate)
        yield Fact("orbit", tokens, Grade.INTERVAL, reason, rate, maps=states)
    elif system.h is None:
        yield Fact("orbit", tokens, Grade.EXACT, who, arb.neg_inf(), maps=states)
    if system.h is not None:
        return
    high = _sum([_best(_head_bounds(system, h, maps, metric, square, -1)) for h in range(len(system.V))])
    if high[2] is not None and high[2] > 0:
        yield Fact("upper", tokens, Grade.INTERVAL, f"{who}; their energy decays", -high[2])
    elif high[0] is not None and high[0] > 0:
        yield Fact("upper", tokens, Grade.INTERVAL, f"{who}; their energy decreases on its level", fmpq(0))


def _single_orbit(system: ExactSystem) -> list[fmpq_mat] | None:
    """g_k with x_k = g_k x_1, or None."""
    if system.n < 2:
        return None
    found = {moved[0]: g for g, moved in symmetries(system)}
    places: dict[str, int] = {}
    for k, row in enumerate(system.x0):
        places[str(row)] = k
    try:
        return [found[places[str(row)]] for row in system.x0]
    except KeyError:
        return None


Bounds = tuple[Any, Any, Any]
"""At the start's level; in the limit of large |y|; and whatever the attention."""


def _head_bounds(
    system: ExactSystem, h: int, maps: list[fmpq_mat], metric: fmpq_mat, square: arb, sign: int
) -> Iterator[Bounds]:
    """For each key o the lower bounds on ±Σ p_k r_k of one head."""
    value, form = fmpq_mat(system.V[h]), fmpq_mat(system.W[h])
    quotients = [SCALAR["pencil_min"]((metric * value * g * sign).tolist(), metric.tolist()) for g in maps]
    least = quotients[0]
    for r in quotients[1:]:
        least = arb(least).min(arb(r))
    for o, own in enumerate(maps):
        now, far = quotients[o], quotients[o]
        for k, g in enumerate(maps):
            if k == o or quotients[k] >= quotients[o]:
                continue
            gap = SCALAR["eigmin"]((form * (own - g)).tolist())
            loss = (arb(quotients[o]) - arb(quotients[k])).nonnegative_part()
            if gap > 0:
                now = now - (arb(0) if system.claim.attention == "hardmax" else loss * (-gap * square).exp())
            else:
                now, far = now - loss, far - loss
        yield now, far, least


def _best(bounds: Iterator[Bounds]) -> Bounds:
    """Of the key with the largest bound at the start's level."""
    best: Bounds = (None, None, None)
    for found in bounds:
        if found[0] is not None and arb(found[0]).is_finite() and (best[0] is None or found[0] > best[0]):
            best = found
    return best


def _sum(parts: list[Bounds]) -> Bounds:
    if any(part[0] is None for part in parts):
        return None, None, None
    now, far, least = (sum((part[k] for part in parts), fmpq(0)) for k in range(3))  # type: ignore[misc]
    return now, far, least
