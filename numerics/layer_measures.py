"""Numbers about an attention layer's matrices: how symmetric, and how far from what a theorem needs.

Everything here is computed in float64 and proves nothing. A matrix is either one array M (d, d) or two
factors L, R (r, d) with M = LᵀR, which is never formed then; for scores L is the query and R the key map.
Arrays are PyTorch tensors or whatever `torch.as_tensor` reads.
"""

from collections.abc import Sequence
from math import nan
from typing import Any, NamedTuple

import torch
from torch import Tensor

from numerics.errors import InputError

DEVIATIONS = 2.0
"""Norms count as large that exceed their mean by this many standard deviations (`directionality_score`)."""
ROUNDING = 1e-12
"""What is smaller than this, relative to what it is compared with, is taken for rounding."""


def _matrix(argument: str, value: Any) -> Tensor:
    matrix = torch.as_tensor(value).detach().to("cpu", torch.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(argument, f"shape {tuple(matrix.shape)}", "a non-empty matrix", "pass a 2-D array")
    if not matrix.isfinite().all():
        raise InputError(argument, "NaN or infinite entries", "finite entries", "check the weights")
    return matrix


def _square(argument: str, value: Any) -> Tensor:
    matrix = _matrix(argument, value)
    if matrix.shape[0] != matrix.shape[1]:
        raise InputError(argument, f"shape {tuple(matrix.shape)}", "a square matrix (d, d)", "check the axes")
    return matrix


def _symmetric(argument: str, value: Any) -> Tensor:
    matrix = _square(argument, value)
    if (matrix - matrix.mT).abs().max() > ROUNDING * matrix.abs().max():
        raise InputError(argument, "a matrix that is not symmetric", "S = Sᵀ", "pass (W + Wᵀ)/2")
    return (matrix + matrix.mT) / 2


def _factors(left_name: str, left: Any, right_name: str, right: Any) -> tuple[Tensor, Tensor]:
    left, right = _matrix(left_name, left), _matrix(right_name, right)
    if left.shape != right.shape:
        got = f"shape {tuple(right.shape)}"
        raise InputError(right_name, got, f"the shape of {left_name}, {tuple(left.shape)}", "check the axes")
    return left, right


def _compressed(matrix: tuple[Any, ...]) -> tuple[Tensor | None, Tensor]:
    """(U, C) with M = U C Uᵀ and orthonormal columns of U (d, m), m ≤ min(2r, d); U None stands for 1."""
    if len(matrix) == 1:
        return None, _square("matrix", matrix[0])
    if len(matrix) != 2:
        raise InputError("matrix", f"{len(matrix)} arrays", "one matrix or two factors", "pass M, or L and R")
    left, right = _factors("matrix[0]", matrix[0], "matrix[1]", matrix[1])
    basis, triangle = torch.linalg.qr(torch.cat([left, right]).mT)
    return basis, triangle[:, : len(left)] @ triangle[:, len(left) :].mT


def antisymmetric_share(*matrix: Any) -> float:
    """‖M_a‖_F/‖M‖_F in [0, 1], M_a = (M − Mᵀ)/2, of M (d, d) or LᵀR from L, R (r, d); NaN for M = 0.

    A large Gaussian matrix has √½. Raises InputError for shapes that do not fit or entries not finite.
    """
    core = _compressed(matrix)[1]
    return float((core - core.mT).norm() / 2 / core.norm())


def symmetry_score(*matrix: Any) -> float:
    """(‖M_s‖² − ‖M_a‖²)/‖M‖² = tr(M²)/‖M‖² (Frobenius norms): symmetric 1, antisymmetric −1, noise 0.

    Of M (d, d), or LᵀR from L, R (r, d); NaN for M = 0. It equals 1 − 2·antisymmetric_share².

    The score of Saponati, Sager, Aceituno, Stadelmann, Grewe (arXiv 2502.10927, ICML 2025). The paper's own
    formula was not at hand. Their released `utils/scores.py` (github.com/matteosaponati/attention-geometry)
    computes the ratio ‖M_s‖²/‖M‖², in [0, 1]; their released table has scores down to 0.00, which that ratio
    hardly takes (noise has ½), and others restate the paper's score as above. This is 2·ratio − 1.
    Raises InputError as `antisymmetric_share`.
    """
    core = _compressed(matrix)[1]
    return float((core * core.mT).sum() / core.square().sum())


def directionality_score(*matrix: Any) -> float:
    """(r − c)/(r + c) in [−1, 1]: negative where a few large columns dominate, positive where rows do.

    r is the sum, over the rows whose norm exceeds mean + 2 standard deviations (n − 1 in the denominator) of
    all row norms, of the excess; c is the same of the columns. 0 if nothing is in excess. Of M (d, d), or LᵀR
    from L, R (r, d); for scores rows belong to the query side and columns to the key side; NaN for M = 0.

    After Saponati et al. (arXiv 2502.10927). Norms, threshold and excess are those of their released
    `utils/scores.py` (github.com/matteosaponati/attention-geometry), which has the opposite sign; the sign
    here is that of their released table, where decoders, said to be dominated by columns, have negative
    scores. The paper's own formula was not at hand; others restate it with the norms themselves in place of
    their excess. Raises InputError as `antisymmetric_share`.
    """
    basis, core = _compressed(matrix)
    if not core.any():
        return nan
    rows, columns = (core, core.mT) if basis is None else (basis @ core, basis @ core.mT)
    of_rows, of_columns = _excess(rows.norm(dim=1)), _excess(columns.norm(dim=1))
    return (of_rows - of_columns) / (of_rows + of_columns) if of_rows + of_columns else 0.0


def _excess(norms: Tensor) -> float:
    if len(norms) < 2:
        return 0.0
    threshold = norms.mean() + DEVIATIONS * norms.std()
    above = norms - threshold
    return float(above[above > ROUNDING * threshold].sum())


class SmallestDiagonal(NamedTuple):
    """What must at least be added to the diagonal of S; see `smallest_diagonal`."""

    largest_entry: float
    trace: float
    trace_bound: float


def smallest_diagonal(S: Any, tolerance: float = 1e-6) -> SmallestDiagonal:
    """How small a diagonal D ⪰ 0 makes S + D ⪰ 0, S symmetric (d, d), by two measures, in the units of S.

    largest_entry: the smallest possible largest entry, max(−λ_min(S), 0), reached by a multiple of 1.
    trace, trace_bound: the smallest possible trace lies between trace_bound and trace, which a D reaches
    (`smallest_trace_diagonal`, which explains `tolerance`). (T13's refinement adds such a D to the scores.)
    Raises InputError unless S is symmetric and finite.
    """
    S = _symmetric("S", S)
    diagonal, bound = smallest_trace_diagonal(S, tolerance)
    return SmallestDiagonal(max(-float(torch.linalg.eigvalsh(S)[0]), 0.0), float(diagonal.sum()), bound)


def smallest_trace_diagonal(S: Any, tolerance: float = 1e-6, iterations: int = 100) -> tuple[Tensor, float]:
    """(y, bound): y (d,) > 0 with S + Diag(y) ≻ 0, and a lower bound on the sum of every such y.

    The semidefinite program min Σy, dual to max −⟨S, Z⟩ over Z ⪰ 0 with diagonal ≤ 1 (the relaxation of
    MAXCUT), by the primal-dual interior-point method of Helmberg, Rendl, Vanderbei and Wolkowicz (SIAM J.
    Optim. 6, 1996) with Mehrotra's predictor and corrector, from within both feasible sets, where it stays:
    y is feasible, and bound the dual value of a feasible Z, at every step. It stops at a gap of
    `tolerance`·Σy, about 12 steps of O(d³), or after `iterations` steps with the gap then reached. y = 0 and
    bound 0 if S ⪰ 0. Raises InputError unless S is symmetric and finite.
    """
    S = _symmetric("S", S)
    spectrum = torch.linalg.eigvalsh(S)
    unit, least = float(spectrum.abs().max()), float(spectrum[0])
    if least >= -ROUNDING * unit:
        return torch.zeros(len(S), dtype=torch.float64), 0.0
    S, one = S / unit, torch.ones(len(S), dtype=torch.float64)
    point = _Point(-1.5 * least / unit * one, torch.diag(one / 2), one / 2)
    for _ in range(iterations):
        gap = point.gap(S)
        if gap <= tolerance * point.y.sum():
            break
        point = _interior_step(S, point, gap)
    return unit * point.y, unit * float(point.y.sum() - point.gap(S))


class _Point(NamedTuple):
    """y > 0 with M = S + Diag(y) ≻ 0; Z ≻ 0 with diagonal 1 − z, z > 0. Also a direction from there."""

    y: Tensor
    Z: Tensor
    z: Tensor

    def gap(self, S: Tensor) -> float:
        """⟨M, Z⟩ + yᵀz = Σy + ⟨S, Z⟩, without the cancellation."""
        return float(((S + torch.diag(self.y)) * self.Z).sum() + self.y @ self.z)

    def moved(self, direction: "_Point", primal: float, dual: float) -> "_Point":
        y, Z, z = direction
        return _Point(self.y + primal * y, self.Z + dual * Z, self.z + dual * z)


def _interior_step(S: Tensor, point: _Point, gap: float) -> _Point:
    """The next point: towards gap 0 to see how far one gets, then towards a gap that this makes realistic."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(S + torch.diag(point.y)))
    y, Z, z = point
    system = y[:, None] * (Z * inverse) * y + torch.diag(z * y)  # for dy/y: well scaled
    root = torch.linalg.cholesky(system)
    predictor = _direction(point, inverse, root, 0.0, _Point(*map(torch.zeros_like, point)))
    reached = point.moved(predictor, *_lengths(S, point, predictor)).gap(S)
    target = max((reached / gap) ** 2, 1e-4) * gap / (2 * len(y))
    corrector = _direction(point, inverse, root, target, predictor)
    return point.moved(corrector, *_lengths(S, point, corrector))


def _direction(point: _Point, inverse: Tensor, root: Tensor, target: float, second: _Point) -> _Point:
    """Newton's direction for ZM = target·1 and zy = target, with the second-order terms of `second`."""
    y, Z, z = point
    slope = target * (inverse.diagonal() + 1 / y) - 1
    slope = slope - (second.Z * inverse) @ second.y - second.z * second.y / y
    dy = y * torch.cholesky_solve((y * slope)[:, None], root)[:, 0]
    product = (Z * dy + second.Z * second.y) @ inverse
    dz = (target - z * dy - second.z * second.y) / y - z
    return _Point(dy, target * inverse - Z - (product + product.mT) / 2, dz)


def _lengths(S: Tensor, point: _Point, direction: _Point) -> tuple[float, float]:
    """How far y, and (Z, z), may go along the direction and stay inside."""
    matrix = S + torch.diag(point.y)
    primal = _length(matrix, torch.diag(direction.y), point.y, direction.y)
    return primal, _length(point.Z, direction.Z, point.z, direction.z)


def _length(matrix: Tensor, change: Tensor, vector: Tensor, shift: Tensor) -> float:
    """1, or less than the length at which the vector stops being positive or the matrix positive definite."""
    shrinking = float((-shift / vector).max())
    length = min(1.0, 0.95 / shrinking) if shrinking > 0 else 1.0
    while torch.linalg.cholesky_ex(matrix + length * change).info:
        length *= 0.8
        if length < ROUNDING:
            return 0.0
    return length if length == 1 else 0.95 * length


def response_changes(A: Any) -> dict[str, float]:
    """Relative Frobenius distances from A (d, d) to what T2 and T3 ask of the response matrix A = WV⁻¹.

    "to_negative": to the nearest symmetric negative semidefinite matrix (T2, up to the boundary),
    "to_positive": to the nearest symmetric positive semidefinite one (T3). Squared, times ‖A‖²: ‖A_a‖² + Σλ²
    over the eigenvalues λ of A_s of the wrong sign (Higham, Linear Algebra Appl. 103, 1988). 0: nothing to
    change; 1: nothing is nearer than 0; NaN for A = 0. Raises InputError unless A is square and finite.
    """
    A = _square("A", A)
    spectrum, skew = torch.linalg.eigvalsh((A + A.mT) / 2), (A - A.mT).square().sum() / 4
    wrong = {"to_negative": spectrum.clamp(min=0), "to_positive": spectrum.clamp(max=0)}
    return {name: float((skew + part.square().sum()).sqrt() / A.norm()) for name, part in wrong.items()}


def score_change(S: Any) -> float:
    """Relative Frobenius distance from S = W_s (d, d) to the nearest positive semidefinite matrix, in [0, 1].

    √(Σ_{λ<0} λ²)/‖S‖ over the eigenvalues λ of S (Higham 1988); NaN for S = 0. Raises InputError unless S is
    symmetric and finite.
    """
    spectrum = torch.linalg.eigvalsh(_symmetric("S", S))
    return float(spectrum.clamp(max=0).norm() / spectrum.norm())


Pair = tuple[Any, Any]
HeadTie = dict[str, Any]


def head_tie(Ws: Sequence[Pair], Vs: Sequence[Pair]) -> HeadTie:
    """How far the heads of one layer are from T15's A V_h = c_h W_h with one matrix A and c_h > 0.

    Ws: per head (Q, K) of shape (r, d), W_h = QᵀK; Vs: per head (O, U) of shape (d, r), (r, d), V_h = OU.
    With Σ c_h²‖W_h‖² = 1 a dict of
      "residual": √(Σ_h ‖AV_h − c_hW_h‖²), the least found over A (d, d) and c ≥ 0; 0: tied, 1: A = 0 is best;
      "c": the c_h of it (H,), zero for heads left out; a common factor of all W_h divides them;
      "heads_used": the number of c_h > 0, which is H if T15 itself is to be met;
      "lower_bound": the least over c of any sign, which no c ≥ 0 undercuts;
      "per_head": each head alone (H,): the least ‖AV_h − c_hW_h‖ there is with a matrix A of its own;
      "equal": the least over A alone, with equal c_h‖W_h‖;
      "symmetric_residual", "symmetric_c": as residual and c, with A = Aᵀ, which T15 wants besides.
    Nothing is said about definiteness. If the ranks of the V_h add up to the rank of (V_1 … V_H), as they do
    in general where H·r ≤ d, the heads do not compete for A: the residual is that of the best head, reached
    by it alone, and "per_head" and "equal" say more.

    For given c the best A is Σ c_hW_hV_hᵀ S⁺, S = ΣV_hV_hᵀ; what remains is a quadratic form in c. It is
    minimised over c ≥ 0 by the projected power method (Journée, Nesterov, Richtárik, Sepulchre, JMLR 11,
    2010) from the eigenvector and from every single head, each result refined on its support: exact where
    the eigenvector has one sign, else a local minimum, to be compared with "lower_bound".
    Memory for H matrices (d, d) (the symmetric part). Raises InputError for shapes that do not fit, entries
    not finite, or if a W_h, or every V_h, is 0.
    """
    layer = _layer(Ws, Vs)
    norms = torch.stack([_product_norm(Q, K) for Q, K in layer.scores])
    if not norms.all():
        where = int(norms.argmin())
        raise InputError(f"Ws[{where}]", "a zero matrix", "W_h ≠ 0", "leave this head out")
    free, symmetric = _free_remainders(layer, norms), _symmetric_remainders(layer, norms)
    weights, symmetric_weights = _smallest_on_the_cone(free.form()), _smallest_on_the_cone(symmetric.form())
    equal = torch.full_like(norms, len(norms) ** -0.5)
    alone = [_layer(Ws[h : h + 1], Vs[h : h + 1]) for h in range(len(norms))]
    one = torch.ones(1, dtype=torch.float64)
    return {
        "residual": free.residual(weights),
        "c": weights / norms,
        "heads_used": int((weights > 0).sum()),
        "lower_bound": free.residual(torch.linalg.eigh(free.form()).eigenvectors[:, 0]),
        "per_head": torch.tensor(
            [_free_remainders(head, norms[h : h + 1]).residual(one) for h, head in enumerate(alone)],
            dtype=torch.float64,
        ),
        "equal": free.residual(equal),
        "symmetric_residual": symmetric.residual(symmetric_weights),
        "symmetric_c": symmetric_weights / norms,
    }


class _Layer(NamedTuple):
    """The heads' factors. V_h = L_h E_h, E_h = bases[h]ᵀ with orthonormal rows; stacked = (L_1 … L_H)."""

    scores: list[tuple[Tensor, Tensor]]
    values: list[tuple[Tensor, Tensor]]
    bases: list[Tensor]
    stacked: Tensor


def _layer(Ws: Sequence[Pair], Vs: Sequence[Pair]) -> _Layer:
    if not 0 < len(Ws) == len(Vs):
        raise InputError("Vs", f"{len(Vs)} heads", f"one or more, as many as Ws, {len(Ws)}", "pass all heads")
    scores = [_factors(f"Ws[{h}][0]", Q, f"Ws[{h}][1]", K) for h, (Q, K) in enumerate(Ws)]
    outputs = [_matrix(f"Vs[{h}][0]", output) for h, (output, _) in enumerate(Vs)]
    inputs = [_factors(f"Vs[{h}][0]ᵀ", outputs[h].mT, f"Vs[{h}][1]", U)[1] for h, (_, U) in enumerate(Vs)]
    widths = {factor.shape[1] for factor in (*(K for _, K in scores), *inputs)}
    if len(widths) > 1:
        raise InputError("Ws, Vs", f"tokens of lengths {sorted(widths)}", "one length d", "check the axes")
    split = [torch.linalg.qr(U.mT) for U in inputs]
    stacked = torch.cat([left @ triangle.mT for left, (_, triangle) in zip(outputs, split, strict=True)], 1)
    if not stacked.any():
        raise InputError("Vs", "only zero matrices", "a V_h ≠ 0", "leave this layer out")
    return _Layer(scores, list(zip(outputs, inputs, strict=True)), [basis for basis, _ in split], stacked)


def _product_norm(left: Tensor, right: Tensor) -> Tensor:
    """‖LᵀR‖_F without LᵀR."""
    triangles = [torch.linalg.qr(factor.mT, mode="r").R for factor in (left, right)]
    return (triangles[0] @ triangles[1].mT).norm()


def _rank(singular: Tensor, matrix: Tensor) -> int:
    """The number of singular values above the rounding of an SVD (the rule of numpy.linalg.matrix_rank)."""
    return int((singular > max(matrix.shape) * torch.finfo(torch.float64).eps * singular[0]).sum())


class _FreeRemainders(NamedTuple):
    """At the best A, Σ‖AV_h − c_hW_h‖² = Σ_h u_h²own_h² + ‖Σ_h u_h shared_h‖², u_h = c_h‖W_h‖.

    own (H,) is W_h off the rows of V_h, shared (H, d, p) what of W_hE_hᵀ is off the rows of L.
    """

    own: Tensor
    shared: Tensor

    def form(self) -> Tensor:
        """The quadratic form in u, (H, H)."""
        return torch.diag(self.own.square()) + self.shared.flatten(1) @ self.shared.flatten(1).mT

    def residual(self, u: Tensor) -> float:
        """The root of the form's value; not through the form, which would keep half the digits."""
        rest = torch.einsum("h,hij->ij", u, self.shared)
        return float(torch.cat([u * self.own, rest.flatten()]).norm())


def _free_remainders(layer: _Layer, norms: Tensor) -> _FreeRemainders:
    _, singular, rows = torch.linalg.svd(layer.stacked, full_matrices=True)
    missed = rows[_rank(singular, layer.stacked) :].mT
    own, shared, start = [], [], 0
    for (Q, K), basis, norm in zip(layer.scores, layer.bases, norms, strict=True):
        seen = K @ basis
        own.append(_product_norm(Q, K - seen @ basis.mT) / norm)
        shared.append(Q.mT @ (seen @ missed[start : start + basis.shape[1]]) / norm)
        start += basis.shape[1]
    return _FreeRemainders(torch.stack(own), torch.stack(shared))


class _SymmetricRemainders(NamedTuple):
    """The same for A = Aᵀ, in the eigenbasis of S = ΣV_hV_hᵀ with eigenvalues s (d,).

    There W_hV_hᵀ/‖W_h‖ = left_h right_hᵀ, W_h/‖W_h‖ = query_hᵀK_h, V_h = right_h U_h, and the best A solves
    AS + SA = B + Bᵀ, B = Σ u_h left_h right_hᵀ.
    """

    eigenvalues: Tensor
    lefts: list[Tensor]
    rights: list[Tensor]
    queries: list[Tensor]
    keys_and_inputs: list[Tensor]

    def _divided(self, symmetric: Tensor) -> Tensor:
        """Entries over s_i + s_j, 0 where both are 0 (there B is 0 as well)."""
        sums = self.eigenvalues[:, None] + self.eigenvalues
        return torch.where(sums > 0, symmetric / sums.where(sums > 0, torch.ones_like(sums)), 0.0)

    def form(self) -> Tensor:
        """The quadratic form in u, (H, H): 1 − ½ Σ_ij (B_h + B_hᵀ)_ij (B_k + B_kᵀ)_ij/(s_i + s_j)."""
        count = len(self.lefts)
        gram = torch.eye(count, dtype=torch.float64)
        symmetric = [left @ right.mT for left, right in zip(self.lefts, self.rights, strict=True)]
        symmetric = [B + B.mT for B in symmetric]
        for h in range(count):
            weighted = self._divided(symmetric[h]) / 2
            for k in range(count):
                gram[h, k] -= (weighted * symmetric[k]).sum()
        return (gram + gram.mT) / 2

    def residual(self, u: Tensor) -> float:
        """√Σ‖AV_h − c_hW_h‖² at the best symmetric A."""
        heads = zip(u, self.lefts, self.rights, strict=True)
        B = torch.stack([w * left @ right.mT for w, left, right in heads]).sum(0)
        A = self._divided(B + B.mT)
        heads = zip(u, self.rights, self.queries, self.keys_and_inputs, strict=True)
        missed = [
            _product_norm(torch.cat([-w * query, (A @ right).mT]), stack) for w, right, query, stack in heads
        ]
        return float(torch.stack(missed).norm())


def _symmetric_remainders(layer: _Layer, norms: Tensor) -> _SymmetricRemainders:
    basis, singular, _ = torch.linalg.svd(layer.stacked, full_matrices=True)
    rank = _rank(singular, layer.stacked)
    eigenvalues = torch.zeros(len(basis), dtype=torch.float64)
    eigenvalues[:rank] = singular[:rank].square()
    queries = [Q @ basis / norm for (Q, _), norm in zip(layer.scores, norms, strict=True)]
    rights = [basis.mT @ output for output, _ in layer.values]
    maps = [(K, U) for (_, K), (_, U) in zip(layer.scores, layer.values, strict=True)]
    lefts = [query.mT @ (K @ U.mT) for query, (K, U) in zip(queries, maps, strict=True)]
    return _SymmetricRemainders(eigenvalues, lefts, rights, queries, [torch.cat(pair) for pair in maps])


def _smallest_on_the_cone(form: Tensor) -> Tensor:
    """u ≥ 0, ‖u‖ = 1 with a small uᵀ form u: the smallest if its eigenvector has one sign, else local."""
    vectors = torch.linalg.eigh(form).eigenvectors
    smallest = _one_sign(vectors[:, 0])
    if smallest is not None:
        return smallest
    starts = torch.cat([torch.eye(len(form), dtype=torch.float64), vectors[:, :1].abs()], 1)
    shifted = torch.linalg.eigvalsh(form)[-1] * torch.eye(len(form), dtype=torch.float64) - form
    points = starts
    for _ in range(500):
        moved = (shifted @ points).clamp(min=0)
        points = moved / moved.norm(dim=0).clamp(min=torch.finfo(torch.float64).tiny)
    found = [_refined(form, point) for point in (*points.mT, *starts.mT)]
    return min(found, key=lambda u: float(u @ form @ u))


def _one_sign(vector: Tensor) -> Tensor | None:
    """The vector made non-negative if it is so up to sign and rounding, else None."""
    vector = vector * vector[vector.abs().argmax()].sign()
    if vector.min() < -ROUNDING:
        return None
    vector = vector.where(vector > ROUNDING, torch.zeros_like(vector))
    return vector / vector.norm()


def _refined(form: Tensor, point: Tensor) -> Tensor:
    """The smallest eigenvector on the support of the point, if it has one sign, else the point."""
    kept = (point > 1e-6 * point.max()).nonzero()[:, 0]
    inner = _one_sign(torch.linalg.eigh(form[kept][:, kept]).eigenvectors[:, 0])
    if inner is None:
        return point
    return torch.zeros_like(point).index_copy(0, kept, inner)
