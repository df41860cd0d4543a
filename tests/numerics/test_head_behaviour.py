"""Scores of real heads against `transformers`, texts swapped and run one by one, and built models.

Models are small and random, in float32 over there and float64 here, hence the tolerance.
"""

import json
import math
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from numerics.checkpoints import Checkpoint, load_checkpoint
from numerics.errors import InputError
from numerics.fetch import SOURCES, UnavailableError, fetch
from numerics.head_behaviour import LayerBehaviour, answers, frequencies_of, measure
from numerics.positional_symbolic import Behaviour, swap_blocks
from numerics.prompts import Prompt, binding_prompts
from numerics.tokens import encoder
from numerics.transformer import depth_of, embed_batch, hidden_states, hidden_states_of_batches

CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}
"""Theirs is float32: scores of a few units off by some 1e-6, and cosines and contrasts of their weights."""
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}
VOCABULARY = 50
COMMON = {"vocab_size": VOCABULARY, "max_position_embeddings": 32, "num_hidden_layers": 3}
LLAMA = COMMON | {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
LLAMA |= {"intermediate_size": 20, "bos_token_id": 1, "eos_token_id": 2, "attention_bias": True}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 32}
GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
BERT = COMMON | {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", LLAMA),
    "gpt2": ("GPT2", GPT2),
    "bert": ("Bert", BERT),
    "roberta": ("Roberta", BERT),
    "albert": ("Albert", BERT | {"embedding_size": 10}),
    "mistral": ("Mistral", {k: v for k, v in LLAMA.items() if k != "attention_bias"} | {"sliding_window": 9}),
}
PROMPT = Prompt((3, 17, 44, 8, 29, 5, 11, 31, 2), (1, 7), 3, 4, 29, "")
LONGER = Prompt((3, 1, 44, 9, 29, 5, 11, 31, 2, 40, 41, 7), (3, 11), 2, 10, 7, "")


def model_of(name: str, head: str = "Model", **changed: Any) -> Any:
    """Every parameter random, gains of norms about 1."""
    kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**settings | changed, attn_implementation="eager")
    model = getattr(transformers, f"{kind}{head}")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.normal_(0, 0.3, generator=generator)
            if parameter.ndim == 1 and key.endswith("weight"):
                parameter += 1
    return model.eval()


def saved(model: Any, folder: Path) -> Checkpoint:
    model.save_pretrained(folder)
    return load_checkpoint(folder)


def rows(model: Any, ids: Tensor) -> list[Tensor]:
    """Their attention of the last token, (heads, n), of each layer."""
    with torch.no_grad():
        found = model.base_model(ids[None], output_attentions=True)
    return [attention[0, :, -1].double() for attention in found.attentions]


def close(a: Tensor, b: Tensor, tolerance: dict[str, Any] = CLOSE) -> None:
    torch.testing.assert_close(a, b, **tolerance)


def same(one: LayerBehaviour, other: LayerBehaviour, tolerance: dict[str, Any]) -> None:
    for field in fields(LayerBehaviour):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if isinstance(a, Behaviour):
            for part in fields(Behaviour):
                close(getattr(a, part.name), getattr(b, part.name), tolerance)
        elif isinstance(a, Tensor):
            close(a, b, tolerance)
        else:
            assert a == b


def directly(before: Tensor, after: list[Tensor], prompt: Prompt, temperature: float) -> tuple[float, ...]:
    """The scores of one head from attention over a text and over each swapped text, in loops."""
    start, stop = prompt.span

    def means(row: Tensor) -> list[float]:
        return row[start:stop].view(prompt.blocks, -1).mean(1).tolist()

    d, found = means(before), []
    for (i, j), row in zip(combinations(range(prompt.blocks), 2), after, strict=True):
        a, b, c, e = d[i], d[j], means(row)[i], means(row)[j]
        norm = math.hypot(a, b) * math.hypot(c, e)
        contrasts = (a - b) / (a + b), (c - e) / (c + e)
        found.append(
            (math.exp(abs(a - b) / temperature), (c * a + e * b) / norm, (c * b + e * a) / norm, *contrasts)
        )
    total = sum(weight for weight, *_ in found)
    positional, symbolic = (sum(pair[0] * pair[k] for pair in found) / total for k in (1, 2))
    products = sum(2 * weight * one * other for weight, _, _, one, other in found)
    squares = sum(weight * (one**2 + other**2) for weight, _, _, one, other in found)
    return positional, symbolic, products / squares


# Against transformers


@pytest.mark.parametrize("name", MODELS)
def test_attention_of_the_last_token_is_that_of_transformers(name: str, tmp_path: Path):
    model = model_of(name)
    found = list(measure(saved(model, tmp_path), [PROMPT, LONGER], 0.1, rerun=False))
    assert [layer.layer for layer in found] == [0, 1, 2]
    for number, prompt in enumerate([PROMPT, LONGER]):
        for layer, attention in zip(found, rows(model, torch.tensor(prompt.ids)), strict=True):
            assert layer.on_target is not None
            close(layer.on_target[number], attention[:, prompt.target])
            close(layer.entropy[number], torch.special.entr(attention).sum(-1))
            close(layer.swapped.entropy[number], layer.entropy[number], EXACT)
            assert layer.rerun is layer.rerun_logits is None


@pytest.mark.parametrize("name", MODELS)
def test_reruns_are_those_of_transformers_on_swapped_texts(name: str, tmp_path: Path):
    model = model_of(name)
    found = list(measure(saved(model, tmp_path), [PROMPT, LONGER], 0.1))
    for number, prompt in enumerate([PROMPT, LONGER]):
        ids = torch.tensor(prompt.ids)
        texts = [
            swap_blocks(ids, i, j, prompt.blocks, prompt.span)
            for i, j in combinations(range(prompt.blocks), 2)
        ]
        before, after = rows(model, ids), [rows(model, text) for text in texts]
        for layer, measured in enumerate(found):
            assert measured.rerun
            for head in range(len(before[layer])):
                expected = directly(before[layer][head], [one[layer][head] for one in after], prompt, 0.1)
                ours = [measured.rerun.positional, measured.rerun.symbolic, measured.rerun.centred]
                assert [float(score[number, head]) for score in ours] == pytest.approx(
                    expected, rel=1e-3, abs=1e-3
                )


@pytest.mark.parametrize(
    ("name", "head"), [("llama", "ForCausalLM"), ("gpt2", "LMHeadModel"), ("mistral", "ForCausalLM")]
)
@pytest.mark.parametrize("tied", [False, True])
def test_the_rank_of_the_answer_is_that_of_transformers(name: str, head: str, tied: bool, tmp_path: Path):
    model = model_of(name, head, tie_word_embeddings=tied)
    prompts = [replace(PROMPT, answer=answer) for answer in (0, 7, 29, 49)] + [LONGER]
    expected = []
    for prompt in prompts:
        with torch.no_grad():
            logits = model(torch.tensor([prompt.ids])).logits[0, -1]
        expected.append(int((logits > logits[prompt.answer]).sum()))
    found = answers(saved(model, tmp_path), prompts)
    assert found is not None
    assert found.tolist() == expected
    assert len(set(expected)) > 2


def test_no_rank_without_a_head_an_answer_or_a_mask(tmp_path: Path):
    assert answers(saved(model_of("llama", tie_word_embeddings=False), tmp_path / "a"), [PROMPT]) is None
    assert answers(saved(model_of("bert", "ForMaskedLM"), tmp_path / "b"), [PROMPT]) is None
    whole = saved(model_of("llama", "ForCausalLM"), tmp_path / "c")
    assert answers(whole, [PROMPT, replace(PROMPT, answer=None)]) is None


# Keys moved within a head


@pytest.mark.parametrize("name", MODELS)
def test_moved_scores_are_those_of_a_text_with_that_key_at_that_place(name: str, tmp_path: Path):
    layer = saved(model_of(name), tmp_path).layers[0]
    x = torch.randn(12, layer.d_model, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = layer.moved_scores(x)
    close(moved.diagonal(dim1=-2, dim2=-1), layer.scores(x)[:, -1], EXACT)
    close(
        layer.last_scores(torch.stack([x, 2 * x])), layer.scores(torch.stack([x, 2 * x]))[..., -1, :], EXACT
    )
    for k, j in [(0, 5), (4, 10), (11, 3), (7, 0)]:
        other = x.clone()
        other[j] = x[k]
        close(moved[:, k, j], layer.scores(other)[:, -1, j], EXACT)
    assert (moved == -torch.inf).any() == (name == "mistral")
    close(layer.moved_scores(torch.stack([x, 2 * x]))[1], layer.moved_scores(2 * x), EXACT)


def test_in_the_first_layer_of_a_rotary_model_swapped_keys_and_swapped_texts_are_the_same(tmp_path: Path):
    """Its keys depend on their token alone; further up they have seen other tokens."""
    first, *later = measure(saved(model_of("llama"), tmp_path), [PROMPT, LONGER], 0.1)
    assert first.rotary
    for layer in (first, *later):
        assert layer.rerun
        assert layer.rerun_logits
        gaps = [
            (layer.swapped.positional - layer.rerun.positional).abs().max(),
            (layer.swapped_logits.symbolic - layer.rerun_logits.symbolic).abs().max(),
        ]
        assert max(gaps) < 1e-10 if layer is first else min(gaps) > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_without_positions_in_the_scores_swapped_keys_see_a_symbolic_head_and_reruns_do_not(
    name: str, tmp_path: Path
):
    for layer in measure(saved(model_of(name), tmp_path), [PROMPT], 0.1):
        assert not layer.rotary
        assert layer.frequencies is layer.use is None
        for found in (layer.swapped, layer.swapped_logits):
            close(found.symbolic, torch.ones(1, 3).double(), EXACT)
            close(found.centred, -torch.ones(1, 3).double(), EXACT)
        assert layer.rerun
        assert (layer.rerun.symbolic < 0.999).any()


@pytest.mark.parametrize("name", ["llama", "albert"])
def test_prompts_measured_together_are_measured_alike(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Also if the texts of a prompt do not fit one batch."""
    checkpoint = saved(model_of(name), tmp_path)
    together = list(measure(checkpoint, [PROMPT, LONGER], 0.1))
    for number, prompt in enumerate([PROMPT, LONGER]):
        monkeypatch.setattr("numerics.head_behaviour.TEXTS", 2)
        for both, alone in zip(together, measure(checkpoint, [prompt], 0.1), strict=True):
            only = {
                field.name: value[number : number + 1]
                for field in fields(LayerBehaviour)
                if isinstance(value := getattr(both, field.name), Tensor)
            }
            scores = {
                field.name: Behaviour(
                    *(getattr(value, part.name)[number : number + 1] for part in fields(Behaviour))
                )
                for field in fields(LayerBehaviour)
                if isinstance(value := getattr(both, field.name), Behaviour)
            }
            same(replace(both, **only, **scores), alone, EXACT)


def test_a_prompt_without_a_target_leaves_the_attention_on_it_out(tmp_path: Path):
    checkpoint = saved(model_of("llama"), tmp_path)
    said: list[str] = []
    for layer in measure(checkpoint, [PROMPT, replace(PROMPT, target=None)], 0.1, progress=said.append):
        assert layer.on_target is None
    assert said == ["layer 1 of 3", "layer 2 of 3", "layer 3 of 3"]


# Frequencies


@pytest.mark.parametrize("name", ["llama", "mistral"])
def test_a_head_that_uses_one_frequency_alone_behaves_as_that_frequency(name: str, tmp_path: Path):
    """Queries and keys of zeros but for the pair of frequency 1; pairs lie half a head apart here."""
    model, pair, half = model_of(name), 1, 4
    with torch.no_grad():
        for layer in model.base_model.layers:
            for part in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                kept = torch.zeros(8)
                kept[[pair, pair + half]] = 1
                kept = kept.repeat(len(part.weight) // 8)
                part.weight *= kept[:, None]
                if part.bias is not None:
                    part.bias *= kept
    checkpoint = saved(model, tmp_path)
    frequencies = frequencies_of(checkpoint)
    assert frequencies is not None
    close(frequencies, 10000.0 ** -(torch.arange(4).double() / 4), EXACT)
    for layer in measure(checkpoint, [PROMPT, LONGER], 0.1, rerun=False):
        assert layer.use is not None
        assert layer.frequencies
        close(layer.use, torch.nn.functional.one_hot(torch.tensor(pair), 4).double().expand(2, 4, 4), EXACT)
        for part in fields(Behaviour):
            close(getattr(layer.frequencies, part.name)[..., pair], getattr(layer.swapped, part.name), EXACT)
        idle = [number for number in range(4) if number != pair]
        close(layer.frequencies.centred[..., idle], torch.zeros(2, 4, 3).double(), EXACT)


def test_use_is_a_share_of_the_variance_over_the_keys_of_the_span(tmp_path: Path):
    checkpoint = saved(model_of("llama"), tmp_path)
    found = next(measure(checkpoint, [PROMPT], 0.1, rerun=False))
    assert found.use is not None
    close(found.use.sum(-1), torch.ones(1, 4).double(), EXACT)
    layer, states = checkpoint.layers[0], next(hidden_states(checkpoint, torch.tensor(PROMPT.ids)))
    assert layer.rotary
    queries, keys = layer.queries_and_keys(states.attention_input)
    queries, keys = (layer.rotary.turn(part)[2] for part in (queries, keys))
    parts = (queries[-1] * keys)[1:7].unflatten(-1, (2, 4)).sum(-2).var(0, correction=0)
    close(found.use[0, 2], parts / parts.sum(), EXACT)


# Batches


@pytest.mark.parametrize("name", MODELS)
def test_a_batch_passes_a_model_as_its_sequences_do(name: str, tmp_path: Path):
    checkpoint = saved(model_of(name), tmp_path)
    ids = torch.randint(0, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(2))
    ids[2, 3] = 1  # the padding token of RoBERTa, which counts positions without it
    short = ids[:1, :4]
    batches = [embed_batch(checkpoint, ids), embed_batch(checkpoint, short)]
    states = list(hidden_states_of_batches(checkpoint, batches))
    assert len(states) == depth_of(checkpoint) == 3
    for text, batch, row in [(ids[0], 0, 0), (ids[2], 0, 2), (short[0], 1, 0)]:
        for block, alone in zip(states, hidden_states(checkpoint, text), strict=True):
            assert block[batch].layer == alone.layer
            for part in ("before", "attention_input", "attention_output", "after"):
                close(getattr(block[batch], part)[row], getattr(alone, part), EXACT)


def test_a_batch_of_no_ids_is_refused(tmp_path: Path):
    checkpoint = saved(model_of("llama"), tmp_path)
    for ids in (torch.zeros(3).long(), torch.zeros(2, 0).long(), torch.zeros(2, 3), torch.full((1, 2), 99)):
        with pytest.raises(InputError, match="tokens"):
            embed_batch(checkpoint, ids)


# Bad input


@pytest.mark.parametrize(
    ("argument", "prompts", "temperature"),
    [
        ("prompts", [], 0.1),
        ("prompts", [replace(PROMPT, span=(1, 9))], 0.1),
        ("prompts", [replace(PROMPT, span=(-1, 5))], 0.1),
        ("prompts", [PROMPT, replace(PROMPT, span=(1, 8))], 0.1),
        ("prompts", [replace(PROMPT, blocks=1)], 0.1),
        ("prompts", [replace(PROMPT, target=9)], 0.1),
        ("temperature", [PROMPT], 0.0),
        ("tokens", [replace(PROMPT, ids=(3, 17, 44, 8, 29, 5, 11, 31, 50))], 0.1),
    ],
)
def test_bad_input(argument: str, prompts: list[Prompt], temperature: float, tmp_path: Path):
    checkpoint = saved(model_of("llama"), tmp_path)
    with pytest.raises(InputError) as raised:
        next(measure(checkpoint, prompts, temperature))
    assert raised.value.argument == argument


def test_a_span_beyond_a_sliding_window_is_refused(tmp_path: Path):
    checkpoint = saved(model_of("mistral"), tmp_path)
    with pytest.raises(InputError, match="sees the last 9 only"):
        measure(checkpoint, [replace(LONGER, span=(2, 10))], 0.1)


def test_a_model_of_which_only_attention_is_known_is_refused(tmp_path: Path):
    module = torch.nn.MultiheadAttention(12, 3)
    torch.save(module.state_dict(), tmp_path / "model.pt")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 3}))
    checkpoint = load_checkpoint(tmp_path / "model.pt")
    for call in (measure, lambda *args: answers(*args[:2])):
        with pytest.raises(InputError, match="only its attention is known"):
            call(checkpoint, [PROMPT], 0.1)
    assert frequencies_of(checkpoint) is None


# The real ones


@pytest.mark.parametrize("name", ["stories15m", "minilm"])
def test_the_cached_models_are_measured_on_binding_prompts(name: str):
    def absent(*_: object) -> Path:
        raise UnavailableError(tried="the cache", got="no files", fix=f"`tokendyn audit {name}`")

    try:
        path = fetch(SOURCES[name], download=absent)
    except UnavailableError:
        pytest.skip(f"{name} is not in the cache; `tokendyn audit {name}` downloads it")
    checkpoint = load_checkpoint(path)
    prompts = binding_prompts(encoder(path, checkpoint.config), 3, 2)
    found = list(measure(checkpoint, prompts, 0.01))
    assert len(found) == 6
    for layer in found:
        assert layer.rotary == (name == "stories15m")
        for scores in (layer.swapped, layer.rerun):
            assert scores
            assert 0 <= float(scores.positional.min()) <= float(scores.positional.max()) <= 1 + 1e-12
            assert float(scores.centred.abs().max()) <= 1 + 1e-12
    ranks = answers(checkpoint, prompts)
    if name == "minilm":
        assert ranks is None
    else:
        assert ranks is not None
        assert ranks.max() < 1000  # of 32,000
