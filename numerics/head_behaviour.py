"""Positional and symbolic behaviour of the heads of a trained model on real prompts.

The query is the last token of a prompt, and attention is that of the model as it is: over all keys, itself
included. In the mode "swapped" keys change places within the head and the query stays; in "rerun" blocks
change places in the text and the model runs again, so that queries and all layers below change too.
After Urrutia et al., Decoupling positional and symbolic attention behavior in Transformers, arXiv 2511.11579.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from numerics.adapters.layer import AttentionLayer
from numerics.checkpoints import Checkpoint
from numerics.errors import InputError
from numerics.observables import score_entropy
from numerics.positional_symbolic import (
    Behaviour,
    behaviour,
    behaviour_of_reruns,
    rotary_pair_logits,
    swap_blocks,
)
from numerics.prompts import Prompt
from numerics.transformer import (
    depth_of,
    embed_batch,
    final_norm,
    hidden_states_of_batches,
    require_whole,
)

PromptHeads = Float[Tensor, "prompts heads"]
TEXTS = 32
"""At most so many texts pass a block at once: some 10⁷ bytes of scores for a hundred tokens and ten heads."""
ROWS = 4096
"""Rows of the unembedding that are converted to float64 at once."""
UNEMBEDDINGS = ("lm_head.weight", "output.weight")
"""Keys of the map to the logits of tokens, where it has weights of its own."""


@dataclass(frozen=True, eq=False)
class LayerBehaviour:
    """What was measured in one layer; scores (prompts, heads), of frequencies (prompts, heads, pairs).

    `layer` counts the blocks that tokens pass, from 0. `rotary`: whether the scores of this layer see
    positions; where not, a key gives the same logit wherever it is put, and `swapped` finds every head
    symbolic by construction: only `rerun` then tells. `..._logits` are the scores of logits in place of
    attention weights.

    `frequencies` are the scores (of weights) of each rotary frequency taken as a head of its own, keys
    swapped. `use` is the share of each frequency in a head's logits: the variance over the span's keys of the
    part that this frequency adds to the logit, as a share of the sum of these variances. It leaves their
    covariances out, and entries that do not turn; 0 where nothing varies. Both are None without rotary
    encoding.

    `entropy` is in nats, over all keys the query sees. `on_target` is the attention on each prompt's target;
    None unless all prompts have one.
    """

    layer: int
    rotary: bool
    swapped: Behaviour
    swapped_logits: Behaviour
    rerun: Behaviour | None
    rerun_logits: Behaviour | None
    frequencies: Behaviour | None
    use: Float[Tensor, "prompts heads pairs"] | None
    entropy: PromptHeads
    on_target: PromptHeads | None


def measure(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    temperature: float,
    rerun: bool = True,
    progress: Callable[[str], None] = lambda stage: None,
) -> Iterator[LayerBehaviour]:
    """Every layer in turn, on `prompts`, which may differ in length, span and number of blocks.

    `temperature` is that of `numerics.positional_symbolic.behaviour`. With `rerun`, each prompt also runs
    with each two of its blocks swapped, blocks(blocks − 1)/2 texts: all texts pass a layer before the next
    layer is read. `progress` is told what is being done, before each layer.

    Raises `InputError` if there is no prompt, a span has no room for its blocks or includes the query, a
    sliding window hides part of a span from the query, the temperature is not positive, or of this model only
    attention is known; and, as layers are asked for, if ids or weights are unusable.
    """
    require_whole(checkpoint)
    if not prompts:
        raise InputError("prompts", "none", "at least one", "pass a prompt")
    if not 0 < temperature < float("inf"):
        raise InputError("temperature", temperature, "a positive number", "0.01 is a size of weights")
    for prompt in prompts:
        _check(checkpoint, prompt)
    texts = [_texts(prompt, rerun) for prompt in prompts]
    return _measured(checkpoint, prompts, texts, temperature, progress)


def frequencies_of(checkpoint: Checkpoint) -> Float[Tensor, " pairs"] | None:
    """The rotary frequencies of the model's heads, in radians per position; None without rotary encoding."""
    rotary = checkpoint.layers[0].rotary
    return rotary.inverse_frequencies if rotary else None


def answers(checkpoint: Checkpoint, prompts: Sequence[Prompt]) -> Int64[Tensor, " prompts"] | None:
    """The rank, from 0, of each prompt's answer among all tokens, by the probability of coming next.

    None if a prompt has no answer, if the model is not causal, or if its file has no unembedding: weights of
    its own (`lm_head`, `output`), taken without a bias, or the embedding where the format or the config says
    that it serves. Raises `InputError` as `measure` does for ids.
    """
    require_whole(checkpoint)
    key = _unembedding(checkpoint)
    if key is None or not checkpoint.model.settings.causal or any(p.answer is None for p in prompts):
        return None
    batches = [embed_batch(checkpoint, torch.tensor([prompt.ids])) for prompt in prompts]
    (last,) = deque(hidden_states_of_batches(checkpoint, batches), 1)
    final = torch.stack([final_norm(checkpoint, states.after)[0, -1] for states in last])
    logits = torch.cat([final @ rows.double().mT for rows in checkpoint.model.state[key].split(ROWS)], -1)
    said = torch.tensor([prompt.answer for prompt in prompts])
    return (logits > logits.gather(-1, said[:, None])).sum(-1)


def _unembedding(checkpoint: Checkpoint) -> str | None:
    """The key of the map from the last state to the logits of tokens."""
    state, config, body = checkpoint.model.state, checkpoint.config, checkpoint.model.adapter.body
    own = [key for key in UNEMBEDDINGS if key in state]
    if own:
        return own[0]
    packed = "general.architecture" in config or (config.get("vocab_size", 0) > 0 and "dim" in config)
    tied = config.get("tie_word_embeddings", config.get("model_type") == "gpt2")
    if body is None or body.tokens is None or not (packed or tied):
        return None
    return checkpoint.model.key(body.tokens)


# Texts


def _check(checkpoint: Checkpoint, prompt: Prompt) -> None:
    n, (start, stop), size = len(prompt.ids), prompt.span, prompt.span[1] - prompt.span[0]
    if not 0 <= start < stop < n or prompt.blocks < 2 or size % prompt.blocks:
        got = f"span {prompt.span} in {prompt.blocks} blocks, of {n} tokens"
        expected = "2 or more blocks of equal length before the last token"
        raise InputError("prompts", got, expected, "cut the prompt otherwise")
    if prompt.target is not None and not 0 <= prompt.target < n:
        raise InputError(
            "prompts", f"target {prompt.target}", f"a position from 0 to {n - 1}", "count from 0"
        )
    for index in range(len(checkpoint.layers)):
        window = checkpoint.model.settings.window(index)
        if window is not None and start < n - window:
            got = f"a span from {start} of {n} tokens, where layer {index} sees the last {window} only"
            raise InputError("prompts", got, "a span within the window", "use shorter prompts")


def _texts(prompt: Prompt, rerun: bool) -> Tensor:
    """The prompt's ids and, with `rerun`, those with each two blocks swapped."""
    ids = torch.tensor(prompt.ids)
    pairs = combinations(range(prompt.blocks), 2) if rerun else ()
    return torch.stack([ids, *(swap_blocks(ids, i, j, prompt.blocks, prompt.span) for i, j in pairs)])


def _measured(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    texts: Sequence[Tensor],
    temperature: float,
    progress: Callable[[str], None],
) -> Iterator[LayerBehaviour]:
    batches = [embed_batch(checkpoint, ids).split(TEXTS) for ids in texts]
    states = hidden_states_of_batches(checkpoint, [chunk for chunks in batches for chunk in chunks])
    depth = depth_of(checkpoint)
    for number in range(depth):
        progress(f"layer {number + 1} of {depth}")
        blocks = next(states)
        layer, seen = checkpoint.layers[blocks[0].layer], iter(blocks)
        found = []
        for prompt, chunks in zip(prompts, batches, strict=True):
            x = torch.cat([next(seen).attention_input for _ in chunks])
            found.append(_of_prompt(layer, prompt, x, temperature))
        measures = {name: _stacked([one[name] for one in found]) for name in found[0]}
        yield LayerBehaviour(layer=number, rotary=layer.rotary is not None, **measures)


# One layer


def _of_prompt(
    layer: AttentionLayer, prompt: Prompt, x: Float[Tensor, "texts n d"], temperature: float
) -> dict[str, Any]:
    """The measures of `LayerBehaviour` without their first axis, from what attention sees of each text."""
    cut = {"blocks": prompt.blocks, "temperature": temperature, "span": prompt.span}
    rows, moved = layer.last_scores(x), layer.moved_scores(x[0])
    own, reran = rows[0], rows[1:].transpose(0, 1)
    attention = own.softmax(-1)
    frequencies, use = _frequencies(layer, x[0], cut)
    return {
        "swapped": behaviour(moved, of="weights", **cut),
        "swapped_logits": behaviour(moved, of="logits", **cut),
        "rerun": behaviour_of_reruns(own, reran, of="weights", **cut) if len(x) > 1 else None,
        "rerun_logits": behaviour_of_reruns(own, reran, of="logits", **cut) if len(x) > 1 else None,
        "frequencies": frequencies,
        "use": use,
        "entropy": score_entropy(attention),
        "on_target": None if prompt.target is None else attention[:, prompt.target],
    }


def _frequencies(
    layer: AttentionLayer, x: Float[Tensor, "n d"], cut: dict[str, Any]
) -> tuple[Behaviour | None, Tensor | None]:
    """Scores and use of each frequency, (heads, pairs), one head at a time for the sake of memory."""
    rotary, n = layer.rotary, len(x)
    if rotary is None:
        return None, None
    queries, keys = (part[..., : rotary.dims] for part in layer.queries_and_keys(x))
    hidden = max(0, n - layer.window) if layer.window is not None else 0
    scores, variances = [], []
    for query, key in zip(queries[:, -1], keys, strict=True):
        pairs = rotary_pair_logits(query, key, rotary.inverse_frequencies, rotary.layout, n - 1)
        pairs = pairs * layer.scale
        pairs[..., :hidden] = -torch.inf
        scores.append(behaviour(pairs, of="weights", **cut))
        own = pairs.diagonal(dim1=-2, dim2=-1)
        variances.append(own[:, slice(*cut["span"])].var(-1, correction=0))
    use = torch.stack(variances)
    total = use.sum(-1, keepdim=True)
    return _stacked(scores), use / torch.where(total == 0, 1.0, total)


def _stacked(found: list[Any]) -> Any:
    """Tensors, or the fields of `Behaviour`, along a new first axis; None if one is None."""
    if any(one is None for one in found):
        return None
    if not isinstance(found[0], Behaviour):
        return torch.stack(found)
    names = [field.name for field in fields(Behaviour)]
    return Behaviour(**{name: torch.stack([getattr(one, name) for one in found]) for name in names})
