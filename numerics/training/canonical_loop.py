"""One-layer attention-only Transformers of chosen rotary frequencies, many trained at once.

A model has one head and nothing else: token x_j = E t_j of a one-hot t_j, question y = F c, and

    λ_j = q · R_{−r} k_j,   q = short(Q y),  k_j = short(K x_j),  r = n + 1 − j
    output = U (y + V Σ_j softmax(λ)_j x_j),   j = 1 … n

R turns pair f of queries and keys by r θ_f, and there are no other dimensions; short(v) = v min(1, √C/‖v‖),
so |λ_j| ≤ C and, for one content, neighbouring positions differ by at most C max θ. Softmax is over the
context alone; there is no norm, MLP, bias or causal interaction between tokens of the context.
"""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from numerics.errors import InputError
from numerics.store import identity, write_file
from numerics.sweep import versions
from numerics.training.canonical import (
    Examples,
    Group,
    draw,
    frequencies_name,
    held_out,
)
from numerics.training.data import step_seed
from numerics.training.loop import DONE, deterministic, foreign, learning_rate

Weights = dict[str, Float[Tensor, "runs rows columns"]]


def initial(group: Group) -> Weights:
    """Gaussian weights of variance 1/d for every run of the group: the same, as they come from the seed."""
    problem, d = group.problem, group.problem.d_model
    inputs = problem.symbols + (0 if problem.name == "index" else problem.attributes)
    rows = {
        "tokens": inputs,
        "questions": problem.questions,
        "query": 2 * group.pairs,
        "key": 2 * group.pairs,
        "value": d,
        "output": problem.answers,
    }
    generator = torch.Generator().manual_seed(step_seed(group.seed))
    runs = len(group.frequencies)
    return {
        name: (torch.randn(count, d, generator=generator) / math.sqrt(d)).repeat(runs, 1, 1)
        for name, count in rows.items()
    }


def outputs(
    weights: Weights,
    frequencies: Float[Tensor, "runs pairs"],
    given: Examples,
    bound: float,
    removed: int = 0,
) -> Float[Tensor, "runs count answers"]:
    """Logits of the answers. The pair numbered `removed` (from 1) adds nothing to the scores; 0 removes none.

    Tokens are multiplied in last, since they are sums of unit vectors: E, K, V and U go into small tables.
    """
    tokens, questions = weights["tokens"], weights["questions"]
    key_table = tokens @ weights["key"].mT
    query_table = _short(questions @ weights["query"].mT, bound)
    keys = _short(torch.einsum("bnt,rtk->rbnk", given.tokens, key_table), bound)
    asked = one_hot(given.question, questions.shape[1]).to(tokens)
    queries = torch.einsum("bq,rqk->rbk", asked, query_table)
    scores = _pair_scores(queries, keys, frequencies)
    if removed:
        scores = torch.cat([scores[..., : removed - 1], scores[..., removed:]], dim=-1)
    attention = scores.sum(-1).softmax(-1)
    seen = torch.einsum("rbn,bnt->rbt", attention, given.tokens)
    answer_table = tokens @ weights["value"].mT @ weights["output"].mT
    own = torch.einsum("bq,rqa->rba", asked, questions @ weights["output"].mT)
    return seen @ answer_table + own


def _short(vectors: Tensor, bound: float) -> Tensor:
    """Of norm √bound at most."""
    limit = math.sqrt(bound)
    return vectors * (limit / vectors.norm(dim=-1, keepdim=True).clamp_min(limit))


def _pair_scores(queries: Tensor, keys: Tensor, frequencies: Tensor) -> Float[Tensor, "runs count n pairs"]:
    """q · R_{−r} k of each pair, with q and k as complex numbers: the real part of q k̄ e^{i r θ}."""
    n = keys.shape[2]
    distances = torch.arange(n, 0, -1, device=keys.device)
    angles = (distances[:, None] * frequencies[:, None, :])[:, None]
    (a, b), (c, d) = (
        queries[:, :, None].unflatten(-1, (-1, 2)).unbind(-1),
        keys.unflatten(-1, (-1, 2)).unbind(-1),
    )
    return (a * c + b * d) * angles.cos() - (b * c - a * d) * angles.sin()


def group_identity(group: Group, device: str) -> str:
    """The hash of all that a group's results depend on."""
    return identity({**group.config, "device": torch.device(device).type}, versions())


def group_result(group: Group, folder: Path, device: str = "cpu") -> dict[str, Any] | None:
    """What the finished group left in its folder; None if it is not finished.

    Raises InputError for a folder with a group of another configuration, device or version.
    """
    try:
        done = json.loads((folder / DONE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise foreign(folder / DONE, f"a file that cannot be read ({error})") from error
    if not isinstance(done, dict) or done.get("identity") != group_identity(group, device):
        raise foreign(folder / DONE, "a run of another configuration, device or version")
    return done


def train_group(group: Group, folder: Path, device: str = "cpu") -> dict[str, Any]:
    """Train and measure the runs of one group, unless its folder has them; what `group_result` returns.

    All that is random is a function of seed and step: a group that was killed starts anew and ends with the
    same bits, on the same machine. float32 everywhere; on a CPU one thread, more being slower here.

    Raises InputError if the folder cannot be written or holds another group, or a loss is not finite.
    """
    found = group_result(group, folder, device)
    if found is not None:
        return found
    began = time.perf_counter()
    with deterministic(), one_thread():
        weights, losses = _train(group, device)
        rows = _measure(group, weights, device)
    done = {
        "identity": group_identity(group, device),
        "group": group.name,
        "versions": versions(),
        "parameters": sum(value[0].numel() for value in weights.values()),
        "seconds": time.perf_counter() - began,
        "losses": losses,
        "rows": rows,
    }
    text = json.dumps(done, allow_nan=False) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / DONE, text.encode())
    except OSError as error:
        got, fix = f"{folder}: {error.strerror}", "make room, or name another folder"
        raise InputError("out", got, "a folder that can be written", fix) from error
    return json.loads(text)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's sums on a CPU in one thread, so in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(group: Group, device: str) -> tuple[Weights, dict[str, float]]:
    """The trained weights, and each set's mean loss (nats) over the last tenth of the steps."""
    problem = group.problem
    weights = {name: value.to(device).requires_grad_() for name, value in initial(group).items()}
    frequencies = torch.tensor(group.frequencies, device=device)
    optimizer = torch.optim.Adam(weights.values(), lr=problem.learning_rate, betas=(0.9, 0.98))
    late = max(1, problem.steps // 10)
    total = torch.zeros(len(group.frequencies), device=device)
    for step in range(problem.steps):
        for parameters in optimizer.param_groups:
            parameters["lr"] = learning_rate(step, problem.learning_rate, problem.warmup, problem.steps)
        given = _on(draw(problem, step_seed(group.seed, step)), device)
        guess = outputs(weights, frequencies, given, problem.bound)
        losses = cross_entropy(guess.movedim(-1, 1), given.answer.expand(guess.shape[:2]), reduction="none")
        losses = losses.mean(1)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()  # the runs share nothing, so each has its own gradient
        optimizer.step()
        if step >= problem.steps - late:
            total += losses.detach() / late
    if not total.isfinite().all():
        where, got = f"tasks.{problem.name}.learning_rate", f"a loss that is not finite in {group.name}"
        raise InputError(where, got, "a finite loss", "lower it")
    names = map(frequencies_name, group.frequencies)
    return {name: value.detach() for name, value in weights.items()}, dict(
        zip(names, total.tolist(), strict=True)
    )


@torch.no_grad()
def _measure(group: Group, weights: Weights, device: str) -> list[tuple[str, int, int, float]]:
    """(frequencies, removed pair or 0, position, accuracy); pairs are removed only from heads of several."""
    problem, pairs = group.problem, group.pairs
    frequencies = torch.tensor(group.frequencies, device=device)
    found = []
    for position in problem.asked:
        given = _on(held_out(problem, position), device)
        for removed in range(pairs + 1 if pairs > 1 else 1):
            guess = outputs(weights, frequencies, given, problem.bound, removed).argmax(-1)
            accuracies = (guess == given.answer).double().mean(1).tolist()
            found += [
                (frequencies_name(chosen), removed, position, accuracy)
                for chosen, accuracy in zip(group.frequencies, accuracies, strict=True)
            ]
    return found


def _on(given: Examples, device: str) -> Examples:
    return Examples(given.tokens.to(device), given.question.to(device), given.answer.to(device))
