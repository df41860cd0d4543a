"""Robust certificates (T11, T13): a matrix M that proves growth or boundedness of the largest token.

The energy of a token is E(x) = ½xᵀMx, the layer ẋ_i = Σ_h V_h m_i^h, σ = 1 for "divergence" and −1 for
"boundedness". Let M ≻ 0, η > 0, S_h symmetric with Σ_h S_h ⪰ ηM, and let c, μ ≥ 0 satisfy, for every head h
and offset r = j − i,

    [[c W_{h,0,s} − S_h − μM, ½(σMV_h − c W_{h,r})], [·, μM]] ⪰ 0

(at r = 0 of a rotary head only (σMV_h)_s ⪰ S_h). Then a token with the largest energy obeys σĖ ≥ 2ηE − K,
K = Σ_h max_r c_{h,r} κ(T_h). The proof, and how this contains T4, T11, T13 and T15: docs/certificates.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb, arb_mat, ctx, fmpq, fmpq_mat

from theory.definiteness import inertia, positive_definite
from theory.enclosure import PRECISION, rational_point
from theory.errors import InputError
from theory.layer import Form, Layer, rational
from theory.proposals import smallest_pencil_eigenpair
from theory.verdict import Grade, Verdict, every, fails, holds, undecided
from theory.weights import identity, rational_matrix, symmetric_part

SIGNS = {"divergence": 1, "boundedness": -1}


@dataclass(frozen=True)
class Certificate:
    """All numbers rational: kind, M (d, d), η, and for each head S_h (d, d) and (c, μ) by offset.

    It says nothing before `check` has proved it for a layer.
    """

    kind: str
    metric: fmpq_mat
    rate: fmpq
    shares: tuple[fmpq_mat, ...]
    multipliers: tuple[Mapping[int, tuple[fmpq, fmpq]], ...]

    @classmethod
    def single(
        cls, kind: str, metric: Any, rate: Any, multipliers: Mapping[int, tuple[Any, Any]]
    ) -> "Certificate":
        """For one head, where S = ηM is best; numbers may be ints, Fractions or floats."""
        metric, rate = rational_matrix("metric", metric), rational("rate", rate)
        numbers = {r: (rational("c", c), rational("μ", energy)) for r, (c, energy) in multipliers.items()}
        return cls(kind, metric, rate, (metric * rate,), (numbers,))

    @classmethod
    def plain(cls, kind: str, metric: Any, nu: Any, eta: Any, offsets: Sequence[int] = (0,)) -> "Certificate":
        """From W_s ⪰ (ν+η)M and [[νM, N], [Nᵀ, νM]] ⪰ 0 with N = σMV − W: the case c = 1, μ = ν/2.

        W stands for the form without its scale: c counts in units of 1/scale.
        """
        return cls.single(kind, metric, eta, {r: (1, rational("nu", nu) / 2) for r in offsets})


def check(certificate: Certificate, layer: Layer) -> Verdict:
    """Does the certificate hold for the layer? FAILS refutes the certificate, and says nothing of the layer.

    Raises InputError where the certificate does not belong to the layer (kind, shapes, offsets).
    """
    _require_match(certificate, layer)
    numbers = [certificate.rate > 0] + [
        number >= 0 for head in certificate.multipliers for pair in head.values() for number in pair
    ]
    if not all(numbers):
        return fails(Grade.EXACT, "η > 0 and c, μ ≥ 0 are required")
    if any(matrix != matrix.transpose() for matrix in (certificate.metric, *certificate.shares)):
        return fails(Grade.EXACT, "M and every S_h must be symmetric")
    verdicts = [_named("M ≻ 0", positive_definite(certificate.metric))]
    for name, matrix in conditions(certificate, layer):
        if verdicts[-1].holds:
            verdicts.append(_named(name, semidefinite(matrix)))
    found = every(verdicts)
    return holds(found.grade, f"{len(verdicts)} matrices are positive semidefinite") if found.holds else found


def _named(name: str, verdict: Verdict) -> Verdict:
    return Verdict(verdict.status, verdict.grade, f"{name}: {verdict.reason}", verdict.margin)


def _require_match(certificate: Certificate, layer: Layer) -> None:
    wrong = None
    if certificate.kind not in SIGNS:
        wrong = f"kind {certificate.kind!r}", f"one of {', '.join(SIGNS)}"
    elif not len(certificate.shares) == len(certificate.multipliers) == len(layer.heads):
        wrong = f"{len(certificate.shares)} heads", f"{len(layer.heads)}"
    elif any(
        (m.nrows(), m.ncols()) != (layer.dim, layer.dim) for m in (certificate.metric, *certificate.shares)
    ):
        wrong = "a matrix of another size", f"({layer.dim}, {layer.dim})"
    elif any(
        set(layer.pairs(head)) - set(given)
        for head, given in zip(layer.heads, certificate.multipliers, strict=True)
    ):
        wrong = "multipliers that miss an offset", "(c, μ) for each offset of Layer.pairs"
    if wrong:
        raise InputError(
            "certificate", got=wrong[0], expected=wrong[1], fix="use the one made for this layer"
        )


def conditions(certificate: Certificate, layer: Layer) -> Iterator[tuple[str, Form]]:
    """The symmetric matrices that must be positive semidefinite, each with its name."""
    metric, total = certificate.metric, certificate.metric * -certificate.rate
    for number, (head, share, multipliers) in enumerate(
        zip(layer.heads, certificate.shares, certificate.multipliers, strict=True), start=1
    ):
        response = metric * head.weights.value * SIGNS[certificate.kind]
        own, total = symmetric_part(head.weights.form), total + share
        if head.turned:
            yield f"head {number}, self term", symmetric_part(response) - share
        for offset, form in layer.pairs(head).items():
            score, energy = multipliers[offset]
            corner = _minus(response, form, score)
            yield (
                f"head {number}, offset {offset}",
                block(own * score - share - metric * energy, corner, metric * energy),
            )
    yield "Σ S_h ⪰ ηM", total


def _minus(response: fmpq_mat, form: Form, score: fmpq) -> Form:
    """½(response − score·form)."""
    if isinstance(form, fmpq_mat):
        return (response - form * score) * fmpq(1, 2)
    with ctx.workprec(PRECISION):
        return (arb_mat(response) - form * arb(score)) * arb(0.5)


def block(top: fmpq_mat, corner: Form, bottom: fmpq_mat) -> Form:
    """[[top, corner], [cornerᵀ, bottom]]."""
    size = top.nrows()
    upper = [[*top.tolist()[i], *corner.tolist()[i]] for i in range(size)]
    lower = [[*corner.transpose().tolist()[i], *bottom.tolist()[i]] for i in range(size)]
    with ctx.workprec(PRECISION):
        return type(corner)(2 * size, 2 * size, [entry for row in upper + lower for entry in row])


def semidefinite(matrix: Form) -> Verdict:
    """Is the symmetric matrix positive semidefinite? For balls: is every symmetric matrix inside them?

    Balls are a rational centre up to a symmetric error of norm at most the largest row sum of radii.
    """
    centre, radius = (matrix, fmpq(0)) if isinstance(matrix, fmpq_mat) else _centre(matrix)
    error = identity(centre.nrows()) * radius
    found = inertia(centre - error)
    if found and found[0].negative == 0:
        return holds(found[1] if radius == 0 else Grade.INTERVAL, "no negative pivot")
    if radius != 0:
        found = inertia(centre + error)
    if found and found[0].negative:
        return fails(found[1] if radius == 0 else Grade.INTERVAL, f"{found[0].negative} negative pivots")
    return undecided("the signs of the pivots stay undetermined")


def _centre(matrix: arb_mat) -> tuple[fmpq_mat, fmpq]:
    """Symmetric rational centre, and a bound on the norm of the error."""
    rows = matrix.tolist()
    centre = fmpq_mat([[rational_point(entry.mid()) for entry in row] for row in rows])
    radii = symmetric_part(fmpq_mat([[rational_point(entry.rad().upper()) for entry in row] for row in rows]))
    return symmetric_part(centre), max(sum(row, fmpq(0)) for row in radii.tolist())


@dataclass(frozen=True)
class Bounds:
    """What a proved certificate says of E = max_i ½x_iᵀMx_i: σĖ ≥ 2ηE − K. Balls with exact upper ends.

    `rate` is η (energies move like e^{2ηt}, norms like e^{ηt}); `constant` K; `energy` the radius K/(2η);
    `norm` an upper bound on ‖x‖ wherever E(x) is at most that radius.
    """

    rate: fmpq
    constant: arb
    energy: arb
    norm: arb


def bounds(certificate: Certificate, layer: Layer) -> Bounds:
    """Upper bounds that follow if `check` holds; without that they mean nothing."""
    with ctx.workprec(PRECISION):
        constant = sum(
            (
                arb(max((score for score, _ in multipliers.values()), default=fmpq(0)))
                * free_energy_constant(layer.excess(head))
                / head.weights.scale
                for head, multipliers in zip(layer.heads, certificate.multipliers, strict=True)
            ),
            arb(0),
        ).upper()
        energy = (constant / (2 * arb(certificate.rate))).upper()
        norm = (2 * energy / arb(smallest_eigenvalue(certificate.metric))).sqrt().upper()
    return Bounds(certificate.rate, constant, energy, norm)


def free_energy_constant(excess: arb) -> arb:
    """κ = W₀(T/e): Σ_j P_j (s_i − s_j)⁺ ≤ κ if P_j ∝ e^{s_j + b_j} and Σ_{j≠i} e^{b_j − b_i} ≤ T."""
    return (excess / arb.const_e()).lambertw()


def smallest_eigenvalue(matrix: fmpq_mat) -> fmpq:
    """A proved lower bound on the smallest eigenvalue of a positive definite matrix, nearly sharp."""
    one = identity(matrix.nrows())
    try:
        guess = smallest_pencil_eigenpair(matrix, one)[0] * (1 - fmpq(1, 2**20))
    except (ArithmeticError, ValueError):
        guess = fmpq(0)
    found = inertia(matrix - one * guess) if guess > 0 else None
    if found and found[0].negative == 0:
        return guess
    inverse = matrix.inv()
    return 1 / sum((inverse[i, i] for i in range(matrix.nrows())), fmpq(0))
