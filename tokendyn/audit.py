"""What the theory says about the attention layers of a trained model, and what it does not say.

Every layer is read twice: as a whole, where W sums the heads' score matrices (a single-head idealisation),
and head by head. Verdicts are about the stored weights, which are exact rationals; numbers computed in
floating point are for display and are labelled so. `docs/audit_schema.json` describes the report.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from flint import arb, fmpq

from numerics import layer_measures as measures
from numerics.checkpoints import AttentionLayer, Checkpoint, Head, load_checkpoint
from numerics.errors import InputError
from numerics.fetch import SOURCES, Source, fetch
from numerics.mapping import read_mapping
from theory.certificate import SIGNS
from theory.factors import Factors, Signs
from theory.layer import Head as ExactHead
from theory.layer import Layer
from theory.registry import statements
from theory.system import Setting
from theory.theorem import Theorem
from theory.verdict import Verdict, undecided
from theory.weights import Weights, rational_matrix
from tokendyn.activations import activations
from tokendyn.audit_text import says
from tokendyn.certify import LARGEST_DIM, certify
from tokendyn.check import Applicability, apply, is_family
from tokendyn.selection import selected

SCHEMA = "tokendyn-audit/2"
LAYER, IDEALISATION, HEAD = "attention-only layer", "single-head idealisation", "this head alone"
UNMASKED = "all heads, without mask and encoding"
MULTI_HEAD = frozenset({"T6", "T6b", "T14c", "T14d", "T15"})
"""Statements about several heads at once; equal tokens, and the first token of a causal layer, give all
heads the same mean, so that the V_h's sum counts."""
ANY_SCORES = frozenset({"T6", "T6b", "T17", "T14", "T14c", "T14d"})
"""Statements that no rotary encoding changes, and, but for T14's, no mask."""

GRADES = {
    "exact": "the hypotheses are proved in rational arithmetic about the stored weights",
    "interval": "they are proved about the stored weights with outward-rounded ball arithmetic",
    "float": "computed in double precision, for display: not a proof",
}

Json = dict[str, Any]
Progress = Callable[[str], None]
Maps = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def audit(
    path_or_name: str | os.PathLike[str],
    *,
    layers: str | None = None,
    heads: str | None = None,
    num_heads: int | None = None,
    mapping: str | os.PathLike[str] | None = None,
    fold_norm: bool = False,
    tokens: Callable[[Path, Checkpoint], Any] | None = None,
    depth: int | None = None,
    context: int | None = None,
    progress: Progress | None = None,
) -> Json:
    """Audit the checkpoint at a local path, or a package's by its name in `numerics.fetch.SOURCES`.

    `layers` and `heads` select some, as "0,3-5". `num_heads` is needed only where no config.json gives it,
    `mapping` is a file as `numerics.mapping` describes, for models that no adapter knows. `fold_norm`
    multiplies the gain of the norm before attention into the weights. `tokens` makes the input for the
    model's own activations from the path and the checkpoint; `depth` iterates shared layers further than
    trained. `context` is the number of tokens for which to look for T11's certificates (d ≤ 24).
    `progress` is told each stage. Errors of the loaders (InputError, FetchError) pass through.
    """
    say = progress or (lambda stage: None)
    name = str(path_or_name)
    known = None if Path(path_or_name).exists() else SOURCES.get(name)
    path = fetch(known) if known else existing(Path(path_or_name))
    checkpoint = load_checkpoint(path, num_heads, None if mapping is None else read_mapping(mapping))
    numbers = selected("--layers", layers, len(checkpoint.layers))
    first = checkpoint.layers[numbers[0]]
    chosen = selected("--heads", heads, first.heads)
    _check_options(first, tokens, depth, context)
    observed = None
    if tokens is not None:
        say("activations")
        observed = activations(checkpoint, tokens(path, checkpoint), depth)
    parts = [_layer(checkpoint, number, chosen, fold_norm, context, say) for number in numbers]
    return {
        "schema": SCHEMA,
        "source": source_of(name, known, path),
        "architecture": checkpoint.architecture,
        "setting": setting_of(checkpoint, first, fold_norm),
        "shared_layers": checkpoint.shared_layers,
        "iteration": _iteration(checkpoint),
        "ignores": list(checkpoint.ignores),
        "grades": dict(GRADES),
        "layers_audited": numbers,
        "heads_audited": chosen,
        "summary": _summary(parts),
        "layers": parts,
        "activations": observed,
    }


def _check_options(layer: AttentionLayer, tokens: Any, depth: int | None, context: int | None) -> None:
    if depth is not None and tokens is None:
        raise InputError(
            argument="--depth",
            got=f"{depth} without tokens",
            expected="tokens to run through the layers",
            fix="give --text, --ids or --image too, or leave --depth out",
        )
    if context is not None and not 1 <= context <= (layer.window or context):
        raise InputError(
            argument="--certify",
            got=f"{context} tokens",
            expected=f"1 to {layer.window}, the sliding window" if layer.window else "at least one",
            fix="give the number of tokens that the certificate is for",
        )


def existing(path: Path) -> Path:
    """The path itself. Raises `InputError`, with the names that can be fetched, if there is nothing."""
    if path.exists():
        return path
    close = get_close_matches(str(path), SOURCES, 1)
    raise InputError(
        argument="path",
        got=f"{path}: no such file or folder",
        expected=f"one that exists, or a name: {', '.join(SOURCES)}",
        fix=f"did you mean {close[0]!r}?" if close else "check the path",
    )


def source_of(name: str, known: Source | None, path: Path) -> Json:
    """Where the weights are from: package, version and licence if fetched, and their SHA-256."""
    return {
        "name": name if known else path.resolve().name,
        "package": known.package if known else None,
        "version": known.version if known else None,
        "licence": known.licence if known else None,
        "sha256": _sha256(sorted(f for f in path.iterdir() if f.is_file()) if path.is_dir() else [path]),
    }


def _sha256(files: Iterable[Path]) -> str:
    """Of the file, or of the files of a folder one behind another."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def setting_of(checkpoint: Checkpoint, layer: AttentionLayer, fold_norm: bool) -> Json:
    """Sizes and kind of the attention layers, as `layer` has them."""
    return {
        "layers": len(checkpoint.layers),
        "d": layer.d_model,
        "heads": layer.heads,
        "kv_heads": layer.kv_heads,
        "head_dim": layer.head_dim,
        "causal": layer.causal,
        "rotary": None if layer.rotary is None else layer.rotary.layout,
        "biases": layer.has_biases,
        "norm_before_attention": None if layer.norm is None else layer.norm.kind,
        "norm_folded": fold_norm,
    }


def _iteration(checkpoint: Checkpoint) -> str:
    depth, count = checkpoint.shared_layers, len(checkpoint.layers)
    if depth is None and count > 1:
        return "Every layer has weights of its own and is audited as a system of its own."
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


def _layer(
    checkpoint: Checkpoint,
    number: int,
    heads: Sequence[int],
    fold_norm: bool,
    context: int | None,
    say: Progress,
) -> Json:
    layer = checkpoint.layers[number]
    if fold_norm:
        layer = layer.fold_norm()
    _require_range(layer)
    say(f"{layer.name}: the whole layer")
    factors = Factors(
        *_maps(layer), _scale_squared(layer), heads=layer.heads, sharing=layer.heads // layer.kv_heads
    )
    whole = _part(factors, layer, None)
    parts = []
    for h in heads:
        say(f"{layer.name}: head {h + 1} of {layer.heads}")
        parts.append({"head": h, **_part(Factors(*_maps(layer.head(h)), _scale_squared(layer)), layer, h)})
    report = {
        "index": number,
        "name": layer.name,
        "d": layer.d_model,
        "heads_count": layer.heads,
        "kv_heads": layer.kv_heads,
        "head_dim": layer.head_dim,
        "stored_dtype": layer.stored_dtype,
        "has_biases": layer.has_biases,
        "audited": _audited(layer),
        "whole": whole,
        "heads": parts,
        "left_eigenvector_gap": _left_eigenvector_gap(layer),
        "heads_tie": _heads_tie(layer, factors),
        "no_certificate": {kind: factors.excludes.get(kind) for kind in SIGNS},
        "certificate": None if context is None else _certificate(layer, factors, context),
    }
    return {**report, "says": says(report)}


def _require_range(layer: AttentionLayer) -> None:
    """`InputError` where W or V leaves the range of floats, in which spectra are proposed and displayed."""
    with np.errstate(all="ignore"):
        query, key, value, output = _maps(layer)
        finite = np.isfinite(query.T @ key).all() and np.isfinite(output @ value).all()
    if not finite:
        raise InputError(
            argument="path",
            got=f"{layer.name} with products of weights beyond 1e308",
            expected="W and V within the range of double precision",
            fix="scale the weights: the signs of W_s and A_s do not depend on it",
        )


def _maps(maps: AttentionLayer | Head) -> Maps:
    return maps.query.numpy(), maps.key.numpy(), maps.value.numpy(), maps.output.numpy()


def _scale_squared(layer: AttentionLayer) -> fmpq:
    squared = layer.scale_squared
    return fmpq(squared.numerator, squared.denominator)


def _audited(layer: AttentionLayer) -> str:
    missing = ["the causal mask"] * layer.causal + ["the rotary encoding"] * (layer.rotary is not None)
    plain = f" (without {' and '.join(missing)}, where a statement is not about them)" if missing else ""
    if layer.heads == 1:
        return f"The layer has one head: W = QᵀK/√{1 / layer.scale_squared} and V = OV' are its own{plain}."
    return (
        f"W = Σ_h W_h = WqᵀWk/√{1 / layer.scale_squared} adds up the score matrices of the {layer.heads} "
        f"heads: a single-head idealisation{plain}, not the model's multi-head dynamics. V = WoWv is the sum "
        "of the heads' value maps V_h, so what T6 says of equal tokens (ẋ = Vx) holds for the multi-head "
        "attention-only layer too."
    )


def _part(factors: Factors, layer: AttentionLayer, head: int | None) -> Json:
    """The whole layer or one head, as if it were a system of its own."""
    theorems = [t for t in statements().values() if _speaks_of(t, layer, head)]
    verdicts = factors.verdicts()
    applied = [apply(theorem, lambda h: h.decide(factors.instance), verdicts) for theorem in theorems]
    keys = {h.key for found in applied for h, _ in found.hypotheses}
    return {
        "scores": _scores(factors, head is None),
        "response": _response(factors),
        "values": _values(factors),
        "hypotheses": {key: _verdict(verdict) for key, verdict in verdicts.items() if key in keys},
        "theorems": [_theorem(found, _about(found.theorem, layer, head)) for found in applied],
    }


def _speaks_of(theorem: Theorem, layer: AttentionLayer, head: int | None) -> bool:
    """Whether weights and a start are all it takes, and the layer is of its kind.

    Left out is what needs a metric or a step that somebody must choose, and what is about two heads for one.
    """
    about = {h.on for h in theorem.hypotheses}
    settings = {Setting()}
    if head is None and layer.heads > 1:
        settings.add(Setting(heads=2))
    if layer.causal:
        settings.add(Setting(causal=True))
    if layer.causal and head is None:  # of any number of heads
        settings.add(Setting(causal=True, heads=2))
    return (
        theorem.kind == "theorem"
        and theorem.setting in settings
        and "weights" in about
        and "choice" not in about
        and not is_family(theorem)
    )


def _about(theorem: Theorem, layer: AttentionLayer, head: int | None) -> str:
    """Which system a statement is about."""
    if head is not None:
        return HEAD
    all_heads = layer.heads == 1 or theorem.id in MULTI_HEAD
    as_scored = theorem.id in ANY_SCORES or (theorem.setting.causal == layer.causal and layer.rotary is None)
    if not all_heads:
        return IDEALISATION
    return LAYER if as_scored else UNMASKED


def _scores(factors: Factors, whole: bool) -> Json:
    query, key, scale = factors.query, factors.key, factors.scale
    signs = factors.scores
    spectrum = None
    diagonal = {"largest_entry": _diagonal_entry(signs), "trace_float": None, "trace_bound_float": None}
    if whole:
        score = query.T @ key * scale
        symmetric = (score + score.T) / 2
        spectrum = np.linalg.eigvalsh(symmetric)
        least = measures.smallest_diagonal(symmetric)
        diagonal |= {
            "trace_float": _rounded(least.trace),
            "trace_bound_float": _rounded(least.trace_bound),
        }
    return {
        **_signs(signs),
        "antisymmetric_share_float": _optional(measures.antisymmetric_share(query, key)),
        "symmetry_float": _optional(measures.symmetry_score(query, key)),
        "directionality_float": _optional(measures.directionality_score(query, key)),
        "smallest_diagonal": diagonal,
        "spectrum_float": None if spectrum is None else _listed(spectrum),
    }


def _diagonal_entry(signs: Signs) -> str:
    """The largest entry of the smallest D: −λ_min of W_s, or 0 where W_s ≻ 0."""
    if signs.positive.holds:
        return "0"
    relation, number = (signs.positive.margin or "≤ ?").split(maxsplit=1)
    return f"≥ {number.removeprefix('-') if number.startswith('-') else '0'}" if relation == "≤" else ""


def _response(factors: Factors) -> Json | None:
    if factors.response is None:
        return None
    score = factors.query.T @ factors.key * factors.scale
    try:
        response = np.linalg.solve((factors.output @ factors.value).T, score.T).T
    except np.linalg.LinAlgError:  # regular in rationals, singular in floats
        response = None
    found = {} if response is None else measures.response_changes(response)
    return {
        **_signs(factors.response),
        "antisymmetric_share_float": None
        if response is None
        else _optional(measures.antisymmetric_share(response)),
        "change_to_negative_float": _optional(found.get("to_negative")),
        "change_to_positive_float": _optional(found.get("to_positive")),
        "spectrum_float": None
        if response is None
        else _listed(np.linalg.eigvalsh((response + response.T) / 2)),
    }


def _signs(found: Signs) -> Json:
    """Signs of a symmetric part: its inertia and proofs about both extremes."""
    return {
        "inertia": found.inertia
        and {
            "positive": found.inertia[0].positive,
            "negative": found.inertia[0].negative,
            "zero": found.inertia[0].zero,
            "grade": str(found.inertia[1]),
        },
        "positive_definite": _verdict(found.positive),
        "negative_definite": _verdict(found.negative),
    }


def _values(factors: Factors) -> Json:
    value, output = factors.value, factors.output
    spectrum = np.linalg.eigvals(value @ output if factors.low_rank else output @ value)
    abscissa = max(spectrum.real.max(), 0.0) if factors.low_rank else spectrum.real.max()
    return {
        "singular": factors.singular,
        "growth": _verdict(factors.growth),
        "real_rate": _verdict(factors.real_rate),
        "abscissa_float": _rounded(abscissa),
        "unstable_count_float": int((spectrum.real > 0).sum()),
        "unstable_count": None if factors.unstable_count is None else list(factors.unstable_count),
        "spectrum_float": [[_short(x.real), _short(x.imag)] for x in spectrum],
    }


def _theorem(found: Applicability, about: str) -> Json:
    theorem, verdict = found.theorem, found.verdict
    return {
        "id": theorem.id,
        "title": theorem.title,
        "status": verdict.status.value,
        "grade": str(verdict.grade) if verdict.holds else None,
        "about": about,
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
    sines = [_sine(_maps(layer.head(h)), ell) for h in range(layer.heads)]
    return {"smallest_sine_float": _rounded(min(sines)), "largest_sine_float": _rounded(max(sines))}


def _sine(maps: Maps, vector: np.ndarray) -> float:
    *_, value, output = maps
    image = value.T @ (output.T @ vector)
    length = np.linalg.norm(image)
    along = vector * (vector @ image) / (vector @ vector)
    return float(np.linalg.norm(image - along) / length) if length > 0 else 0.0


def _heads_tie(layer: AttentionLayer, factors: Factors) -> Json | None:
    """T15's A V_h = c_h W_h: the best relative residuals, and a proved obstacle where there is one."""
    heads = [_maps(layer.head(h)) for h in range(layer.heads)]
    if layer.heads == 1 or not all((q.T @ k).any() and (o @ u).any() for q, k, u, o in heads):
        return None
    found = measures.head_tie([(q, k) for q, k, _, _ in heads], [(o, u) for _, _, u, o in heads])
    obstacle = factors.heads_tied
    return {
        "equal_float": _rounded(found["equal"]),
        "best_float": _rounded(found["residual"]),
        "symmetric_float": _rounded(found["symmetric_residual"]),
        "obstacle": obstacle.reason if obstacle.fails else None,
    }


def _certificate(layer: AttentionLayer, factors: Factors, context: int) -> Json:
    """A search for T11's certificate of divergence or boundedness, with all heads, mask and encoding."""
    if layer.d_model > LARGEST_DIM:
        excluded = "; ".join(f"{kind}: {reason}" for kind, reason in factors.excludes.items())
        reason = f"the search is for d ≤ {LARGEST_DIM}" + (
            f", and none exists of {excluded}" if excluded else ""
        )
        return {"context": context, "kind": "either", "verdict": _verdict(undecided(reason))}
    heads = tuple(_exact_head(layer, h, context) for h in range(layer.heads))
    found = certify(Layer(heads, context, layer.causal))
    return {"context": context, "kind": found.kind, "verdict": _verdict(found.verdict)}


def _exact_head(layer: AttentionLayer, h: int, context: int) -> ExactHead:
    query, key, value, output = _maps(layer.head(h))
    values = rational_matrix("output", output) * rational_matrix("value", value)
    if layer.rotary is None:
        head = ExactHead(Weights.from_projections(query, key, values))
    else:
        turns = [arb(float(frequency)) for frequency in layer.rotary.inverse_frequencies]
        head = ExactHead.rotary(query, key, values, turns, context, layout=layer.rotary.layout)
    return replace(head, weights=replace(head.weights, scale_squared=_scale_squared(layer)))


def _summary(layers: Sequence[Json]) -> list[Json]:
    """Each statement over all layers, and over all heads: on how many it speaks, by which margins."""
    groups: dict[tuple[str, str], list[tuple[Json, Json]]] = {}
    for layer in layers:
        for part in (layer["whole"], *layer["heads"]):
            for entry in part["theorems"]:
                groups.setdefault((entry["id"], entry["about"]), []).append((part, entry))
    return [_summed(group) for group in groups.values()]


def _summed(group: Sequence[tuple[Json, Json]]) -> Json:
    entry = group[0][1]
    speaking = [(part, e) for part, e in group if e["status"] == "HOLDS"]
    silent = [e["first_unmet"] for _, e in group if e["status"] != "HOLDS"]
    missing = max(silent, key=silent.count, default=None)
    unmet = [part["hypotheses"][missing] for part, e in group if missing and e["first_unmet"] == missing]
    reasons = [verdict["reason"] for verdict in unmet]
    key = entry["hypotheses"][0] if speaking else missing
    margins = [part["hypotheses"][key]["margin"] for part, _ in speaking or group]
    numbers = sorted(filter(None, margins), key=_number)
    return {
        **{name: entry[name] for name in ("id", "title", "about", "concludes")},
        "speaks": len(speaking),
        "of": len(group),
        "grade": min((e["grade"] for _, e in speaking), key=list(GRADES)[::-1].index, default=None),
        "margin_of": key,
        "margin_smallest": numbers[0] if numbers else "",
        "margin_largest": numbers[-1] if numbers else "",
        "silent_because": missing,
        "silent_reason": max(reasons, key=reasons.count) if missing else None,
    }


def _number(margin: str) -> float:
    return float(margin.split()[-1])


def _listed(numbers: np.ndarray) -> list[float]:
    return [_short(x) for x in numbers]


def _short(number: Any) -> float:
    return float(f"{float(number):.4g}")


def _rounded(number: Any) -> float:
    return float(f"{float(number):.6g}")


def _optional(number: float | None) -> float | None:
    return None if number is None or not np.isfinite(number) else _rounded(number)
