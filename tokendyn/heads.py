"""Which heads of a trained model attend by position and which by content: a report of measured scores.

Two experiments on the same prompts, both of `numerics.head_behaviour`. "swapped" exchanges the keys of two
blocks of the text inside the head and leaves the query as it is; "rerun" exchanges the blocks in the text and
runs the whole model again. `docs/heads.md` says how scores are defined, `docs/heads_schema.json` describes
the report. Everything is floating point, of these prompts: it proves nothing.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from numerics.checkpoints import Checkpoint, load_checkpoint
from numerics.errors import InputError
from numerics.fetch import SOURCES, fetch
from numerics.head_behaviour import LayerBehaviour, answers, frequencies_of, measure
from numerics.positional_symbolic import Behaviour, logit_variance, mean_square_deviations
from numerics.prompts import Prompt, binding_prompts, read_prompts
from numerics.tokens import encoder
from numerics.transformer import embed_batch, hidden_states_of_batches
from tokendyn.audit import existing, setting_of, source_of

SCHEMA = "tokendyn-heads/1"
SWAPPED, RERUN = "swapped", "rerun"
MODES = {"swapped": (SWAPPED,), "rerun": (RERUN,), "both": (SWAPPED, RERUN)}
BUILTIN = "builtin"
STRONGEST = 5
"""How many heads of each kind the summary names."""

UNIFORM, HIGH, APART = 0.95, 0.9, 0.5
KINDS = {
    "uniform": f"the entropy of attention is at least {UNIFORM} of log n: nearly uniform, so that both "
    "scores are high whatever the head does",
    "positional": f"not uniform, positional score at least {HIGH} and centred score at least {APART}",
    "symbolic": f"not uniform, symbolic score at least {HIGH} and centred score at most −{APART}",
    "both ways": f"not uniform, both scores at least {HIGH}, centred score between: the block means are so "
    "close that a swap can hardly tell",
    "mixed": "none of these",
}
"""The kinds of heads, in the order in which they are decided; by means over the prompts."""

Json = dict[str, Any]
Progress = Callable[[str], None]


def heads(
    path_or_name: str | os.PathLike[str],
    *,
    prompts: str = BUILTIN,
    bindings: int = 6,
    count: int = 8,
    blocks: int | None = None,
    temperature: float | None = None,
    mode: str = "both",
    seed: int = 0,
    progress: Progress | None = None,
) -> Json:
    """Measure every head of the model at a local path, or of a package by its name in `numerics.fetch`.

    `prompts` is "builtin", `count` generated texts of `bindings` sentences each, chosen by `seed`
    (`numerics.prompts.binding_prompts`), or a file of prompts, each cut into `blocks` equal blocks (6).
    `temperature` weighs the pairs of blocks (`numerics.positional_symbolic.behaviour`); by default 1/n for
    the longest prompt, of n tokens. `mode` is a key of `MODES`. `progress` is told each stage.

    Raises `InputError` for bad options, prompts or models, without a tokenizer, or where the model cannot be
    run as a whole; the errors of `numerics.fetch` pass through.
    """
    say = progress or (lambda stage: None)
    modes = _modes(mode)
    name = str(path_or_name)
    known = None if Path(path_or_name).exists() else SOURCES.get(name)
    path = fetch(known) if known else existing(Path(path_or_name))
    checkpoint = load_checkpoint(path)
    say("prompts")
    texts = _prompts(path, checkpoint, prompts, bindings, count, blocks, seed)
    if temperature is None:
        temperature = 1 / max(len(prompt.ids) for prompt in texts)
    turning = frequencies_of(checkpoint)
    logarithms = None if turning is None else turning.log()
    found = measure(checkpoint, texts, temperature, rerun=RERUN in modes, progress=say)
    say("S1's deviations")
    own = list(own_logits(checkpoint, texts))
    layers = [_layer(layer, sides, texts, modes, logarithms) for layer, sides in zip(found, own, strict=True)]
    say("answers")
    ranks = answers(checkpoint, texts)
    return {
        "schema": SCHEMA,
        "source": source_of(name, known, path),
        "architecture": checkpoint.architecture,
        "setting": setting_of(checkpoint, checkpoint.layers[0], False),
        "run": {
            "prompts": BUILTIN if prompts == BUILTIN else Path(prompts).name,
            "count": len(texts),
            "seed": seed if prompts == BUILTIN else None,
            "temperature": temperature,
            "modes": list(modes),
        },
        "kinds": dict(KINDS),
        "frequencies_float": None if turning is None else _listed(turning),
        "prompts": [_prompt(text, ranks, i) for i, text in enumerate(texts)],
        "summary": _summary(layers, modes),
        "on_target": _on_target(layers),
        "notes": _notes(layers, modes),
        "layers": layers,
    }


def _modes(mode: str) -> tuple[str, ...]:
    if mode in MODES:
        return MODES[mode]
    fix = "both compares the two"
    raise InputError(argument="--mode", got=repr(mode), expected=f"one of {', '.join(MODES)}", fix=fix)


def _prompts(
    path: Path, checkpoint: Checkpoint, source: str, bindings: int, count: int, blocks: int | None, seed: int
) -> list[Prompt]:
    if source == BUILTIN and blocks is not None:
        raise InputError(
            argument="--blocks",
            got=f"{blocks} with the built-in prompts",
            expected="a file of prompts",
            fix="built-in prompts have one block for each binding: give --bindings instead",
        )
    encode = encoder(path, checkpoint.config)
    if source == BUILTIN:
        return binding_prompts(encode, bindings, count, seed)
    return read_prompts(source, encode, blocks or 6)


def _prompt(prompt: Prompt, ranks: Tensor | None, index: int) -> Json:
    return {
        "text": prompt.text,
        "tokens": len(prompt.ids),
        "span": list(prompt.span),
        "blocks": prompt.blocks,
        "target": prompt.target,
        "answer_rank": None if ranks is None or prompt.answer is None else int(ranks[index]) + 1,
    }


# ---- one layer


@dataclass(frozen=True, eq=False)
class OwnLogits:
    """Of one layer, (prompts, heads) each: what the logits λ of the last token say without a swap of blocks.

    `variance` is Var(λ) over all keys; S1 bounds it by `positional` + `symbolic`, the mean square deviations
    of `numerics.positional_symbolic`. `on_blocks` is the attention softmax(λ) on the prompt's span.
    """

    variance: Tensor
    positional: Tensor
    symbolic: Tensor
    on_blocks: Tensor


def own_logits(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> Iterator[OwnLogits]:
    """Every layer in turn. Raises `InputError` as `numerics.transformer.hidden_states` does."""
    texts = [embed_batch(checkpoint, torch.tensor([prompt.ids])) for prompt in prompts]
    for blocks in hidden_states_of_batches(checkpoint, texts):
        layer, found = checkpoint.layers[blocks[0].layer], []
        for block, prompt in zip(blocks, prompts, strict=True):
            logits = layer.moved_scores(block.attention_input)[0]
            attention = logits.diagonal(dim1=-2, dim2=-1).softmax(-1)
            inside = attention[:, prompt.span[0] : prompt.span[1]].sum(-1)
            found.append((logit_variance(logits), *mean_square_deviations(logits), inside))
        yield OwnLogits(*(torch.stack(parts) for parts in zip(*found, strict=True)))


def _layer(
    found: LayerBehaviour,
    own: OwnLogits,
    prompts: Sequence[Prompt],
    modes: Sequence[str],
    logarithms: Tensor | None,
) -> Json:
    lengths = torch.tensor([len(prompt.ids) for prompt in prompts], dtype=torch.float64)
    share = (found.entropy / lengths.log()[:, None]).mean(0)
    numbers = range(found.entropy.shape[1])
    by_mode = {SWAPPED: (found.swapped, found.swapped_logits)}
    if found.rerun is not None and found.rerun_logits is not None:
        by_mode[RERUN] = (found.rerun, found.rerun_logits)
    return {
        "index": found.layer,
        "rotary": found.rotary,
        "heads": [
            {
                "head": h,
                "entropy_float": _number(found.entropy[:, h].mean()),
                "entropy_share_float": _number(share[h]),
                "on_blocks_float": _number(own.on_blocks[:, h].mean()),
                "on_target_float": None if found.on_target is None else _number(found.on_target[:, h].mean()),
                **{mode: _scores(by_mode[mode], h, share[h].item()) for mode in modes},
                "frequencies": _frequencies(found, logarithms, h),
                "exclusion": {
                    "variance_float": _number(own.variance[:, h].mean()),
                    "bound_float": _number((own.positional + own.symbolic)[:, h].mean()),
                },
            }
            for h in numbers
        ],
    }


def _scores(found: tuple[Behaviour, Behaviour], head: int, share: float) -> Json:
    """Means over the prompts, of weights and of logits, and the spread of the centred score."""
    (weights, logits), names = found, ("positional", "symbolic", "centred")
    means = [getattr(weights, name)[:, head].mean().item() for name in names]
    spread = weights.centred[:, head].std(correction=0)
    positional, symbolic, centred = means
    return {
        "kind": kind_of(positional, symbolic, centred, share),
        **{f"{name}_float": _number(mean) for name, mean in zip(names, means, strict=True)},
        "centred_spread_float": _number(spread),
        "logits": {f"{name}_float": _number(getattr(logits, name)[:, head].mean()) for name in names},
    }


def _frequencies(found: LayerBehaviour, logarithms: Tensor | None, head: int) -> Json | None:
    """Each rotary frequency as a head of its own, and how much of the head's logits it makes."""
    if found.use is None or found.frequencies is None or logarithms is None:
        return None
    use, alone = found.use[:, head].mean(0), found.frequencies
    total = use.sum()
    return {
        "mean_float": _number(((use @ logarithms) / total).exp()) if total > 0 else None,
        "use_float": _listed(use),
        "positional_float": _listed(alone.positional[:, head].mean(0)),
        "symbolic_float": _listed(alone.symbolic[:, head].mean(0)),
        "centred_float": _listed(alone.centred[:, head].mean(0)),
    }


# ---- all layers


def _summary(layers: Sequence[Json], modes: Sequence[str]) -> Json:
    return {mode: _summary_of(layers, mode) for mode in modes}


def _summary_of(layers: Sequence[Json], mode: str) -> Json:
    every = [(layer["index"], head) for layer in layers for head in layer["heads"]]
    kinds = Counter(head[mode]["kind"] for _, head in every)
    turning = [head for _, head in every if head["frequencies"] and head["frequencies"]["mean_float"]]
    centred = [head[mode]["centred_float"] for head in turning]
    logarithms = [math.log(head["frequencies"]["mean_float"]) for head in turning]
    return {
        "heads": len(every),
        "kinds": {kind: kinds[kind] for kind in KINDS},
        "positional": _strongest(every, mode, "positional"),
        "symbolic": _strongest(every, mode, "symbolic"),
        "correlation": {"spearman_float": _number(spearman(logarithms, centred)), "heads": len(turning)},
    }


def _strongest(every: Sequence[tuple[int, Json]], mode: str, kind: str) -> list[Json]:
    """The heads of a kind with the largest product of |centred score| and attention on the blocks."""
    found = [(layer, head) for layer, head in every if head[mode]["kind"] == kind]
    found.sort(key=lambda pair: -abs(pair[1][mode]["centred_float"]) * pair[1]["on_blocks_float"])
    return [
        {
            "layer": layer,
            "head": head["head"],
            "centred_float": head[mode]["centred_float"],
            "on_blocks_float": head["on_blocks_float"],
        }
        for layer, head in found[:STRONGEST]
    ]


def _on_target(layers: Sequence[Json]) -> list[Json]:
    """The heads whose last token attends most to the target, first the most; none without targets."""
    every = [
        {"layer": layer["index"], "head": head["head"], "on_target_float": head["on_target_float"]}
        for layer in layers
        for head in layer["heads"]
        if head["on_target_float"] is not None
    ]
    return sorted(every, key=lambda head: -head["on_target_float"])[:STRONGEST]


def _notes(layers: Sequence[Json], modes: Sequence[str]) -> list[str]:
    """What the numbers do not say."""
    notes = [
        "Scores are means over these prompts, in double precision: they prove nothing, and other prompts may "
        "give others.",
        "A score says how two blocks share the last token's attention after a swap, no more. Words that both "
        "blocks have (in built-in prompts all but the name and the colour) look the same in either place: a "
        "head that attends to these words counts as positional if the place decides between them.",
    ]
    blind = [str(layer["index"]) for layer in layers if not layer["rotary"]]
    if SWAPPED in modes and blind:
        which = "no layer has any" if len(blind) == len(layers) else f"layers {', '.join(blind)} have no"
        notes.append(
            f"{which[0].upper()}{which[1:]} rotary encoding: there a key gives the same logit wherever it is "
            "put, so that the mode swapped finds every head symbolic by construction. Only rerun can tell."
        )
    if any(head["frequencies"] for layer in layers for head in layer["heads"]):
        notes.append(
            "The correlation between frequency and behaviour is one over the heads of one model, which are "
            "not independent: it names no cause."
        )
    notes.append(
        "S1 bounds the variance of the logits over the keys, with the keys swapped and the query fixed, by "
        "how far the head is from both ideals; it says nothing about attention weights or about rerun."
    )
    return notes


# ---- numbers


def kind_of(positional: float, symbolic: float, centred: float, entropy_share: float) -> str:
    """The kind of a head by its mean scores and its mean entropy over log n, one of `KINDS`."""
    if entropy_share >= UNIFORM:
        return "uniform"
    if positional >= HIGH and centred >= APART:
        return "positional"
    if symbolic >= HIGH and centred <= -APART:
        return "symbolic"
    return "both ways" if min(positional, symbolic) >= HIGH else "mixed"


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, ties sharing their mean rank; None if one side is constant or n < 3."""
    if len(first) < 3:
        return None
    ranks = [_ranks(np.asarray(values, dtype=float)) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return None
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _number(value: Tensor | float | None) -> float | None:
    """Six digits, for display; None for what is not finite."""
    number = math.nan if value is None else float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None


def _listed(values: Tensor) -> list[float | None]:
    return [_number(value) for value in values.tolist()]
