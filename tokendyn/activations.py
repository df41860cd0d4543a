"""Real tokens through real layers: what the activations do, beside the signs that the theory gives.

Two systems start from the model's own embedding of the tokens. "model" is the whole model: its residual
stream after every block. "attention only" is the theory's residual step x⁺ = x + Σ_h V_h m^h with the same
weights, layer after layer, without normalisation, feed-forward blocks and biases. Everything here is floating
point, of one sequence of tokens: it can agree with a statement or not, and proves nothing.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from numerics.checkpoints import AttentionLayer, Checkpoint
from numerics.errors import InputError
from numerics.layerwise import mean_cosine, sharpness, squared_distances
from numerics.observables import norms, score_entropy
from numerics.transformer import BlockStates, hidden_states

__all__ = ["activations"]

Json = dict[str, Any]

MODEL, ATTENTION, IDEALISATION = "model", "attention only", "single-head idealisation"

LARGEST = 1e100
"""Tokens of the attention-only system are scaled down to this norm. Its square, a score, is still finite."""

ROUNDING = 1e-10
"""Relative error below which two quantities that are computed in different ways count as equal."""

ALIGNED = 1e-8
"""Sine below which two vectors count as parallel: eigenvectors are less accurate than products."""


def activations(checkpoint: Checkpoint, tokens: Any, depth: int | None = None) -> Json:
    """What the tokens' states do, layer by layer, and where that agrees with the theory, as plain JSON.

    `tokens` are what `numerics.transformer.hidden_states` takes: ids (n,), for a vision model an image
    (C, H, W). `depth` is the number of layers to run, by default the trained one; it may exceed that only
    where layers share their weights. `checkpoint` is as it was loaded: gains of norms are not folded.

    `rows` hold one state each: step 0 is the embedding (`layer` null), step k the state after k layers, of
    which `layer` is the last. Norms and distances are Euclidean, in the units of the embedding;
    `distance_sum_float` is Σ_ij ‖x_i − x_j‖² over ordered pairs (`numerics.layerwise.squared_distances`),
    `attention_entropy_float` the mean over heads and tokens, in nats, of the attention inside `layer`, and
    `one_side_share_float` the larger share of tokens on one side of T17's hyperplane ℓᵀx = 0 of `layer`, ℓ
    the left eigenvector of Σ_h V_h at its largest positive real eigenvalue; tokens that are on it to rounding
    count for neither side. Null is what is undefined: pairs of one token, a hyperplane without such an
    eigenvalue, norms and distances above 1e100 (their scale is then in `log_norm_max_float`, the natural
    logarithm of the largest norm).

    `agreement` holds, for every layer run, what statements predict and what was observed. `applies` says
    whether the statement's hypotheses hold there, in floats. `agrees` is null where nothing is compared;
    where a sign is compared in the full model although the statement leaves parts of it out, `applies` is
    false. T6b and T14c are about almost every start and long times, so a single layer that disagrees in sign
    refutes neither.

    Raises InputError for tokens that are empty, of the wrong kind, shape or range, or too many for the model,
    and for a `depth` that the model does not have.
    """
    trained = _trained_blocks(checkpoint)
    keep = len(checkpoint.layers) if checkpoint.model.adapter.shared else 1
    theory_of = lru_cache(maxsize=keep)(lambda index: _theory(checkpoint.layers[index]))
    rows: list[Json] = []
    agreement: list[Json] = []
    state = _Stream(torch.zeros(0, 0))
    for step, block in enumerate(hidden_states(checkpoint, _tensor(tokens), depth), start=1):
        if step == 1:
            state = _Stream(block.before).rescaled()
            place = {"layer": None, "step": 0, "beyond_trained_depth": False}
            rows += [{**place, "system": system, **_measures(state)} for system in (MODEL, ATTENTION)]
        theory = theory_of(block.layer)
        after = state.moved(theory.layer.velocity(state.tokens))
        place = {
            "layer": block.layer,
            "step": step,
            "beyond_trained_depth": trained is not None and step > trained,
        }
        plain = _without_biases(theory.layer)
        inside = _attention(theory.layer, block.attention_input), _attention(plain, state.tokens)
        rows += [
            {**place, "system": MODEL, **_measures(_Stream(block.after), theory, inside[0])},
            {**place, "system": ATTENTION, **_measures(after, theory, inside[1])},
        ]
        found = _agreement(theory, block, state, after)
        agreement += [{"layer": block.layer, "step": step, **record} for record in found]
        state = after
    return {
        "grade": "float",
        "tokens": len(state.tokens),
        "trained_depth": trained,
        "rows": rows,
        "agreement": agreement,
    }


def _tensor(tokens: Any) -> Tensor:
    """What `hidden_states` checks further."""
    try:
        return torch.as_tensor(tokens)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            "tokens",
            f"{type(tokens).__name__} that makes no tensor",
            "token ids (n,) or an image (C, H, W)",
            "pass the ids of one sequence",
        ) from error


def _trained_blocks(checkpoint: Checkpoint) -> int | None:
    """How many blocks the trained model runs; None where they are shared and no config says it."""
    layers = len(checkpoint.layers)
    if not checkpoint.model.adapter.shared:
        return layers
    groups = len({numbers[0] for numbers in checkpoint.model.numbers})
    return checkpoint.shared_layers and checkpoint.shared_layers * layers // groups


@dataclass(frozen=True, eq=False)
class _Stream:
    """Tokens x = e^{log_scale} · `tokens`; log_scale is 0 until their norms pass `LARGEST`.

    There scores differ by far more than a softmax resolves: attention has become a hard maximum, so the
    velocity is homogeneous in x and can be taken at any scale as large.
    """

    tokens: Tensor
    log_scale: float = 0.0

    @property
    def log_norm(self) -> float:
        """log max_i ‖x_i‖; −∞ if all tokens are zero."""
        largest = norms(self.tokens).max().item()
        return self.log_scale + math.log(largest) if largest > 0 else -math.inf

    def rescaled(self) -> "_Stream":
        if self.log_norm == -math.inf:
            return _Stream(self.tokens)
        shift = max(self.log_norm - self.log_scale - math.log(LARGEST), -self.log_scale)
        return _Stream(self.tokens * math.exp(-shift), self.log_scale + shift)

    def moved(self, velocity: Tensor) -> "_Stream":
        return _Stream(self.tokens + velocity, self.log_scale).rescaled()


@dataclass(frozen=True, eq=False)
class _Theory:
    """What the statements need of one layer, in floats: W = Σ_h W_h, V = Σ_h V_h, ℓ with ℓᵀV = λℓᵀ."""

    layer: AttentionLayer
    score: Tensor
    value: Tensor
    size: float  # ‖V‖₂
    regular: bool  # V is invertible, to double precision
    abscissa: float  # max Re of the eigenvalues of V
    rate: float | None  # λ, the largest positive real eigenvalue of V
    ell: Tensor | None
    obstacle: float  # the largest sine of the angle between V_hᵀℓ and ℓ; 0 if ℓ is shared by all heads
    signed: bool  # whether ℓᵀV_hℓ ≥ 0 for every head


def _theory(layer: AttentionLayer) -> _Theory:
    score = layer.scale * (layer.query.mT @ layer.key)
    value = layer.output @ layer.value
    singular = torch.linalg.svdvals(value)
    size = singular[0].item()
    rates, vectors = torch.linalg.eig(value.mT)
    positive = (rates.imag == 0) & (rates.real > ROUNDING * size)
    abscissa = rates.real.max().item()
    rate, ell, obstacle, signed = None, None, 0.0, False
    if positive.any():
        best = torch.where(positive, rates.real, -torch.inf).argmax()
        rate, ell = rates[best].real.item(), vectors[:, best].real
        obstacle, signed = _shared(layer, ell, ROUNDING * size)
    regular = bool(singular[-1] > ROUNDING * size)
    return _Theory(layer, score, value, size, regular, abscissa, rate, ell, obstacle, signed)


def _shared(layer: AttentionLayer, ell: Tensor, rounding: float) -> tuple[float, bool]:
    """How far the unit vector ℓ is from a left eigenvector of every V_h, and whether all ℓᵀV_hℓ ≥ 0."""
    mapped = (ell @ layer.output).view(layer.heads, 1, -1)
    images = (mapped @ layer.value.view(layer.heads, -1, layer.d_model)).squeeze(1)  # row h is ℓᵀV_h
    along = images @ ell
    lengths = norms(images)
    sines = norms(images - along[:, None] * ell) / lengths
    return torch.where(lengths > rounding, sines, 0.0).max().item(), bool((along >= -rounding).all())


def _without_biases(layer: AttentionLayer) -> AttentionLayer:
    """The layer whose scores are those of `layer.velocity`."""
    return replace(layer, query_bias=None, key_bias=None)


def _attention(layer: AttentionLayer, x: Tensor) -> Tensor:
    return layer.scores(x).softmax(-1)


# Rows


def _measures(state: _Stream, theory: _Theory | None = None, attention: Tensor | None = None) -> Json:
    x, scaled = state.tokens, state.log_scale > 0
    sizes = norms(x)
    norm = {"mean": sizes.mean(), "min": sizes.min(), "max": sizes.max(), "first": sizes[0]}
    absolute = {f"norm_{name}_float": None if scaled else _number(size) for name, size in norm.items()}
    return {
        **absolute,
        "log_norm_max_float": _number(state.log_norm),
        "first_token_ratio_float": _first_token_ratio(x),
        **_pair_measures(x, scaled),
        "one_side_share_float": None if theory is None else _one_side_share(x, theory.ell),
        "attention_entropy_float": None if attention is None else _number(score_entropy(attention).mean()),
    }


def _pair_measures(x: Tensor, scaled: bool) -> Json:
    names = ("distance_mean_float", "distance_sum_float", "cosine_float", "sharpness_float")
    if len(x) < 2:
        return dict.fromkeys(names)
    mean, total = (None, None) if scaled else (torch.pdist(x).mean(), squared_distances(x))
    return dict(zip(names, map(_number, (mean, total, mean_cosine(x), sharpness(x))), strict=True))


def _first_token_ratio(x: Tensor) -> float | None:
    """‖x_1‖ over the median norm of the others; None if there are none or their median is 0."""
    sizes = norms(x)
    median = sizes[1:].quantile(0.5).item() if len(x) > 1 else 0.0
    return _number(sizes[0] / median) if median > 0 else None


def _one_side_share(x: Tensor, ell: Tensor | None) -> float | None:
    if ell is None:
        return None
    return _number(max(_above(x, ell).sum(), _above(x, -ell).sum()) / len(x))


def _above(x: Tensor, ell: Tensor) -> Tensor:
    """Whether ℓᵀx_i > 0 beyond rounding, for the unit vector ℓ."""
    return x @ ell > ROUNDING * norms(x)


def _number(value: Tensor | float | None) -> float | None:
    """Six digits, for display; None for what is not finite."""
    number = math.nan if value is None else float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


# Agreement


def _record(
    name: str,
    system: str,
    statement: str,
    why: str,
    predicted: str,
    observed: str,
    *,
    applies: bool,
    agrees: bool | None,
) -> Json:
    return {
        "id": name,
        "system": system,
        "statement": statement,
        "applies": applies,
        "why": why,
        "predicted": predicted,
        "observed": observed,
        "agrees": agrees,
    }


def _agreement(theory: _Theory, block: BlockStates, state: _Stream, after: _Stream) -> list[Json]:
    whole = (_Stream(block.before), _Stream(block.after))
    return [
        _growth(theory, ATTENTION, state, after),
        _growth(theory, MODEL, *whole),
        _first_growth(theory, ATTENTION, state, after),
        *(_causal(theory, block, state) if theory.layer.causal else ()),
        _hyperplane(theory, state),
        _idealisation(theory, block.attention_input),
        _pairwise(theory, block.attention_input, block.attention_output),
    ]


def _causal(theory: _Theory, block: BlockStates, state: _Stream) -> list[Json]:
    """T14c: the model's first token, and what attention gives to the first token in both systems."""
    layer, x = theory.layer, state.tokens
    biases = layer.attend(torch.zeros_like(x[:1]))  # what attention gives to every token: rows sum to 1
    return [
        _first_growth(theory, MODEL, _Stream(block.before), _Stream(block.after), block.attention_output),
        _first_velocity(theory, ATTENTION, x, layer.velocity(x)),
        _first_velocity(theory, MODEL, block.attention_input, block.attention_output - biases),
    ]


T6B = "If Σ_h V_h has an eigenvalue with positive real part, almost no start tends to 0"
T14C_VELOCITY = "Under a causal mask attention gives the first token (Σ_h V_h)x_1, whatever the other tokens"
T14C_GROWTH = (
    "Under a causal mask, if Σ_h V_h has an eigenvalue with positive real part, the first token tends to "
    "infinity from almost every start"
)
T17 = (
    "If all heads share the left eigenvector ℓ and ℓᵀx_i > 0 for every token, a residual step multiplies the "
    "smallest ℓᵀx_i by at least 1 + λ and the largest by at most that"
)
L4 = "(x_i − x_j)ᵀA(ẋ_i − ẋ_j) ≥ 0 for all pairs of the tokens that enter attention, A = WV⁻¹"
LEFT_OUT = (
    "the model's normalisation, feed-forward block and biases are not in the statement; only the sign is "
    "compared"
)
LONG_RUN = "of the layer iterated, from almost every start in the long run: one step may do otherwise"


def _unstable(theory: _Theory) -> tuple[bool, str]:
    """Whether V has an eigenvalue with positive real part, to rounding."""
    unstable = theory.abscissa > ROUNDING * theory.size
    return unstable, f"max Re λ(Σ_h V_h) = {theory.abscissa:.3g} " + (
        "> 0" if unstable else "is not positive"
    )


def _growth(theory: _Theory, system: str, before: _Stream, after: _Stream) -> Json:
    unstable, why = _unstable(theory)
    change = after.log_norm - before.log_norm
    if unstable:
        why += f"; {LEFT_OUT if system == MODEL else LONG_RUN}"
    return _record(
        "T6b",
        system,
        T6B,
        why,
        "the largest norm grows" if unstable else "nothing",
        f"the largest norm changes by the factor {_factor(change)}",
        applies=unstable and system == ATTENTION,
        agrees=change > ROUNDING if unstable and math.isfinite(change) else None,
    )


def _factor(log_change: float) -> str:
    return f"{math.exp(log_change):.4g}" if log_change < math.log(LARGEST) else f"e^{log_change:.4g}"


def _first_growth(
    theory: _Theory, system: str, before: _Stream, after: _Stream, added: Tensor | None = None
) -> Json:
    """T14c's divergence, in either system; `added` is what attention adds to the model's tokens."""
    unstable, why = _unstable(theory)
    speaks = theory.layer.causal and unstable
    if not theory.layer.causal:
        why = "the layer has no causal mask"
    elif unstable:
        why += f"; {LEFT_OUT if system == MODEL else LONG_RUN}"
    first, change = before.tokens[0], _first(after).log_norm - _first(before).log_norm
    observed = f"the first token's norm changes by the factor {_factor(change)}"
    if added is not None:
        observed += f" (by attention alone {norms(first + added[0]) / norms(first):.4g})"
    ratio = _first_token_ratio(after.tokens)
    if ratio is not None:
        observed += f", to {ratio:.4g} times the median of the others"
    return _record(
        "T14c",
        system,
        T14C_GROWTH,
        why,
        "the first token's norm grows" if speaks else "nothing",
        observed,
        applies=speaks and system == ATTENTION,
        agrees=change > ROUNDING if speaks and math.isfinite(change) else None,
    )


def _first(state: _Stream) -> _Stream:
    return _Stream(state.tokens[:1], state.log_scale)


def _first_velocity(theory: _Theory, system: str, x: Tensor, velocity: Tensor) -> Json:
    predicted, got = theory.value @ x[0], velocity[0]
    scale = (theory.size * norms(x[0]) + norms(got)).item()
    error = norms(got - predicted).item() / scale if scale > 0 else 0.0
    biases = system == MODEL and theory.layer.has_biases
    return _record(
        "T14c",
        system,
        T14C_VELOCITY,
        "the layer has a causal mask",
        "equal, once what the biases add is subtracted" if biases else "equal",
        f"relative error {error:.2g}",
        applies=True,
        agrees=error <= ROUNDING,
    )


def _hyperplane(theory: _Theory, state: _Stream) -> Json:
    """T17 on the residual step, and how far ℓᵀẋ_i is from λℓᵀm_i, m_i averaged over heads."""
    rate, ell, x = theory.rate, theory.ell, state.tokens
    if rate is None or ell is None:
        why = "Σ_h V_h has no positive real eigenvalue"
        return _record("T17", ATTENTION, T17, why, "nothing", "nothing", applies=False, agrees=None)
    levels = x @ ell
    ell = ell if levels.sum() >= 0 else -ell
    levels, rates = x @ ell, theory.layer.velocity(x) @ ell
    expected = rate * (_attention(_without_biases(theory.layer), x) @ levels).mean(0)
    distance = norms(rates - expected) / norms(rates) if rates.any() else 0.0
    factor, moved = 1 + rate, levels + rates
    slack = ROUNDING * factor * norms(x).max() * (1 + theory.size)
    holds = moved.min() >= factor * levels.min() - slack and moved.max() <= factor * levels.max() + slack
    why, applies = _shares_side(theory, _above(x, ell))
    return _record(
        "T17",
        ATTENTION,
        T17,
        why,
        f"1 + λ = {factor:.4g}" if applies else "nothing",
        f"ℓᵀẋ_i differs from λℓᵀm_i, averaged over heads, by {distance:.2g} (relative)"
        + (
            f"; factors {moved.min() / levels.min():.4g} and {moved.max() / levels.max():.4g}"
            if applies
            else ""
        ),
        applies=applies,
        agrees=bool(holds) if applies else None,
    )


def _shares_side(theory: _Theory, above: Tensor) -> tuple[str, bool]:
    """Why T17 applies or not, and whether it does; `above` says which tokens are above the hyperplane."""
    if theory.obstacle > ALIGNED:
        return (
            f"the heads share no ℓ: the angle between V_hᵀℓ and ℓ has sine up to {theory.obstacle:.2g}",
            False,
        )
    if not theory.signed:
        return "ℓᵀV_h is a negative multiple of ℓᵀ for some head", False
    if not above.all():
        return f"only {above.sum().item()} of {len(above)} tokens are on one side of ℓᵀx = 0", False
    return "all heads share ℓ and all tokens are on one side of ℓᵀx = 0", True


def _idealisation(theory: _Theory, x: Tensor) -> Json:
    """L4 for W = Σ_h W_h and V = Σ_h V_h, one head without mask and encoding: a check of the theory."""
    share = None
    if theory.regular and len(x) > 1:
        means = (x @ theory.score @ x.mT).softmax(-1) @ x
        share = _nonnegative_share(x, means @ theory.score.mT)  # Aẋ_i = AVm_i = Wm_i
    return _pairs(theory, x, IDEALISATION, "one head without mask and encoding, as L4 asks", share, True)


def _pairwise(theory: _Theory, x: Tensor, velocity: Tensor) -> Json:
    """The same form on the model's own attention output: constants that biases add cancel in differences."""
    layer, share = theory.layer, None
    if theory.regular and len(x) > 1:
        response = theory.score @ torch.linalg.solve(theory.value, velocity.mT)  # columns Aẋ_i = WV⁻¹ẋ_i
        share = _nonnegative_share(x, response.mT)
    switches = {
        f"{layer.heads} heads": layer.heads > 1,
        "a causal mask": layer.causal,
        "rotary encoding": layer.rotary is not None,
    }
    on = [name for name, given in switches.items() if given]
    why = "the layer has " + (" and ".join(on) if on else "one head without mask and rotary encoding")
    return _pairs(theory, x, MODEL, why, share, not on)


def _pairs(theory: _Theory, x: Tensor, system: str, why: str, share: float | None, allowed: bool) -> Json:
    if len(x) < 2:
        why = "one token makes no pairs"
    elif not theory.regular:
        why = f"Σ_h V_h {_singular(theory.layer)}, so A does not exist"
    applies = allowed and share is not None
    return _record(
        "L4",
        system,
        L4,
        why,
        "a share of 1" if applies else "nothing",
        "nothing" if share is None else f"≥ 0 for a share of {share:.6g} of the pairs",
        applies=applies,
        agrees=share == 1 if applies else None,
    )


def _singular(layer: AttentionLayer) -> str:
    rank = layer.kv_heads * layer.head_dim  # heads that share values share the row space of V_h
    return f"has rank ≤ {rank} < {layer.d_model}" if rank < layer.d_model else "is singular in floats"


def _nonnegative_share(x: Tensor, images: Tensor) -> float:
    """Share of pairs i < j with (x_i − x_j)ᵀ(g_i − g_j) ≥ 0 up to rounding, g the `images`, both (n, d)."""
    spread_x, spread_g = x - x.mean(0), images - images.mean(0)
    gram = spread_x @ spread_g.mT
    form = _summed(gram.diagonal()) - gram - gram.mT
    slack = _summed(norms(x)) * _summed(norms(spread_g)) + _summed(norms(spread_x)) * _summed(norms(images))
    nonnegative = (form >= -ROUNDING * slack).triu(1)
    return nonnegative.sum().item() / (len(x) * (len(x) - 1) / 2)


def _summed(values: Tensor) -> Tensor:
    """a_i + a_j, (n, n)."""
    return values[:, None] + values
