"""One training run that may be killed at any moment: the same call goes on from its last checkpoint.

All that is random is a function of the run's seed and the step, so a run that was resumed ends with the same
bits as one that was not, on the same machine and number of threads.
"""

import copy
import hashlib
import io
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from numerics.errors import InputError
from numerics.layers import plain_weights
from numerics.layerwise import METRICS
from numerics.store import identity, write_file
from numerics.sweep import versions
from numerics.training.config import Run
from numerics.training.data import PARTS, Batch, Images, Text, load, step_seed
from numerics.training.models import Model, build

CHECKPOINT, DONE, WEIGHTS, MAPPING = "checkpoint.pt", "done.json", "weights.safetensors", "mapping.json"
MEASURED = 64
"""Held-out examples on which layers are measured."""
CLIP = 1.0
"""The largest norm of a gradient; a longer one is shortened to it."""
LAST_SHARPNESS = "sharpness after the last block"

Progress = Callable[[int], None]
"""Is told the steps done since it was told last."""


@dataclass(frozen=True)
class World:
    """This process's place among those that share every batch: the others run the same code."""

    rank: int = 0
    size: int = 1


@dataclass
class Course:
    """What a run has measured so far, as plain data.

    `rows` are (step, metric, value); `layers` are (step, state, metric, value), state 0 before the first
    block. `loss` is the sum over the steps since the last evaluation.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    rows: list[tuple[int, str, float]] = field(default_factory=list)
    layers: list[tuple[int, int, str, float]] = field(default_factory=list)


def run_identity(run: Run, device: str, world: World) -> str:
    """The hash of all that a run's results depend on."""
    config = {**run.config, "device": torch.device(device).type, "processes": world.size}
    return identity(config, versions())


def result(run: Run, folder: Path, device: str = "cpu", world: World | None = None) -> dict[str, Any] | None:
    """What the finished run left in its folder; None if it is not finished.

    Raises InputError for a folder with a run of another configuration, device or version.
    """
    try:
        done = json.loads((folder / DONE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise foreign(folder / DONE, f"a file that cannot be read ({error})") from error
    if done.get("identity") != run_identity(run, device, world or World()):
        raise foreign(folder / DONE, "a run of another configuration, device or version")
    return done


def train(
    run: Run,
    folder: Path,
    *,
    device: str = "cpu",
    world: World | None = None,
    progress: Progress = lambda steps: None,
) -> dict[str, Any]:
    """Train, measure and save one run in its folder, or go on with it; what `result` would return.

    Leaves done.json and, as weights.safetensors with mapping.json, the plain weights that every audit can
    read. float32 on CPU; on CUDA the forward pass under bfloat16 autocast. With a `world` of several
    processes each takes its part of every batch (`DistributedDataParallel`, the group must exist), and the
    first writes.

    Raises InputError if the folder cannot be written (the last checkpoint stays as it is), holds another
    run, if the batch cannot be shared, or the loss is not finite; and as `load` does.
    """
    world = world or World()
    found = result(run, folder, device, world)
    if found is not None:
        progress(run.task.steps)
        return found
    if run.task.batch % world.size:
        expected = f"a multiple of the {world.size} processes"
        raise InputError(f"tasks.{run.task.name}.batch", run.task.batch, expected, "change one of them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with deterministic():
            return _Training(run, folder, device, world).go(progress)
    except OSError as error:
        got = f"{folder}: {error.strerror}"
        fix = "make room, or name another folder; the last checkpoint is intact, and the run goes on from it"
        raise InputError("out", got, "a folder that can be written", fix) from error


@contextmanager
def deterministic() -> Iterator[None]:
    """The same sums in the same order every time, where PyTorch can; where it cannot, it warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, warns = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


class _Training:
    """A run under way: its data, model, optimizer and course."""

    def __init__(self, run: Run, folder: Path, device: str, world: World) -> None:
        self.run, self.task, self.folder, self.world = run, run.task, folder, world
        self.device = torch.device(device)
        self.identity = run_identity(run, device, world)
        self.data: Text | Images = load(run.task)
        self.model: Model = build(run, *self.data.shape).to(self.device)
        self.optimizer = torch.optim.AdamW(
            _groups(self.model, run.task.weight_decay), lr=run.task.learning_rate, betas=(0.9, 0.95)
        )
        self.course = Course()
        self._resume()
        self.parallel: nn.Module = DistributedDataParallel(self.model) if world.size > 1 else self.model

    def go(self, progress: Progress) -> dict[str, Any]:
        began, before, told = time.perf_counter(), self.course.seconds, 0
        if self.course.step == 0:
            self._measure()
        while (step := self.course.step) < self.task.steps:
            self._step(step)
            self.course.step = done = step + 1
            last = done == self.task.steps
            if last or done % self.task.evaluate_every == 0:
                self._measure()
                progress(done - told)
                told = done
            if not last and done % self.task.checkpoint_every == 0:
                self.course.seconds = before + time.perf_counter() - began
                self._require_finite(self.course.loss, done)
                self._checkpoint()
        self.course.seconds = before + time.perf_counter() - began
        return self._finish()

    def _step(self, step: int) -> None:
        task = self.task
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, task.learning_rate, task.warmup, task.steps)
        inputs, targets = self.data.draw("train", task.batch, step_seed(self.run.seed, step))
        share = slice(self.world.rank, None, self.world.size)
        torch.manual_seed(step_seed(self.run.seed, step, self.world.rank))  # of dropout
        self.parallel.train()
        loss = self._loss(self.parallel, (inputs[share], targets[share]))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.course.loss += self._total(loss.detach()).item() / self.world.size

    def _loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross-entropy, in nats."""
        inputs, targets = (part.to(self.device) for part in batch)
        with self._precision():
            logits = model(inputs)
        return cross_entropy(logits.float().flatten(0, -2), targets.flatten())

    def _precision(self) -> AbstractContextManager[object]:
        on = self.device.type == "cuda"
        return torch.autocast("cuda", torch.bfloat16) if on else nullcontext()

    def _total(self, value: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world.size > 1:
            dist.all_reduce(value)
        return value

    @torch.no_grad()
    def _measure(self) -> None:
        """The held-out metric, the training loss since the last time, and the layers at start and end."""
        course, task = self.course, self.task
        step, last = course.step, course.step == task.steps
        self.model.eval()
        course.rows.append((step, f"valid {task.metric}", self._score("valid")))
        if step:
            since = step % task.evaluate_every or min(step, task.evaluate_every)
            loss = course.loss / since
            self._require_finite(loss, step)
            name, unit = ("train bits per byte", math.log(2)) if task.is_text else ("train cross-entropy", 1)
            course.rows.append((step, name, loss / unit))
            course.loss = 0.0
        if last:
            course.rows.append((step, f"test {task.metric}", self._score("test")))
        states = self._states()
        course.rows.append((step, LAST_SHARPNESS, METRICS["sharpness"](states[-1]).mean().item()))
        if last or step == 0:
            course.layers += [
                (step, layer, name, metric(x).mean().item())
                for layer, x in enumerate(states)
                for name, metric in METRICS.items()
            ]

    def _require_finite(self, loss: float, step: int) -> None:
        """`InputError` for a run that diverged, before it replaces the last good checkpoint."""
        if not math.isfinite(loss):
            got = f"a loss of {loss} before step {step} of {self.run.name}"
            raise InputError(f"tasks.{self.task.name}.learning_rate", got, "a finite loss", "lower it")

    def _states(self) -> list[Tensor]:
        inputs, _ = self.data.draw("valid", min(MEASURED, self.task.evaluate), step_seed(0, -1))
        with self._precision():
            return [x.double() for x in self.model.states(inputs.to(self.device))]

    def _score(self, part: str) -> float:
        """Bits per byte, or the share of right classes in percent, on the same examples in all runs."""
        inputs, targets = self.data.draw(part, self.task.evaluate, step_seed(0, PARTS.index(part)))
        share = slice(self.world.rank, None, self.world.size)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        parts = zip(inputs[share].split(self.task.batch), targets[share].split(self.task.batch), strict=True)
        for x, y in parts:
            if self.task.is_text:
                total += self._loss(self.model, (x, y)).double() * y.numel() / math.log(2)
            else:
                with self._precision():
                    guess = self.model(x.to(self.device)).argmax(-1)
                total += (guess == y.to(self.device)).sum() * 100
        return self._total(total).item() / targets.numel()

    def _checkpoint(self) -> None:
        if self.world.rank == 0:
            stream = io.BytesIO()
            torch.save(
                {
                    "identity": self.identity,
                    "model": self.model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "course": vars(self.course),
                },
                stream,
            )
            write_file(self.folder / CHECKPOINT, stream.getvalue())

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.world.size > 1:
            dist.barrier()
        path = self.folder / CHECKPOINT
        if not path.exists():
            return
        try:
            found = torch.load(path, map_location=self.device, weights_only=True)
        except Exception as error:  # the unpickler raises anything
            raise foreign(path, f"a damaged file ({type(error).__name__})") from error
        if found.get("identity") != self.identity:
            raise foreign(path, "a run of another configuration, device or version")
        self.model.load_state_dict(found["model"])
        self.optimizer.load_state_dict(found["optimizer"])
        self.course = Course(**found["course"])

    def _finish(self) -> dict[str, Any]:
        """Save the plain weights, then what was measured, on which the run counts as finished."""
        model = copy.deepcopy(self.model)
        if self.run.scenario != "unconstrained":
            plain_weights(model)
        state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        weights = save(state)
        done = {
            "identity": self.identity,
            "run": self.run.name,
            "versions": versions(),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
            **vars(self.course),
        }
        if self.world.rank == 0:
            write_file(self.folder / WEIGHTS, weights)
            write_file(self.folder / MAPPING, _json(_mapping(self.run)))
            write_file(self.folder / DONE, _json(done))
            (self.folder / CHECKPOINT).unlink(missing_ok=True)
        if self.world.size > 1:
            dist.barrier()
        return json.loads(_json(done))


def learning_rate(step: int, highest: float, warmup: int, steps: int) -> float:
    """Linear up to `highest` over `warmup` steps, then half a cosine down to 0 at `steps`."""
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup))) / 2


def _groups(model: Model, decay: float) -> list[dict[str, Any]]:
    """Matrices of the MLPs and the head decay. Attention never does: decay pulls a refined one elsewhere."""
    decays = {
        id(p) for name, p in model.named_parameters() if p.ndim == 2 and (".mlp." in name or "head" in name)
    }
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if id(p) in decays], "weight_decay": decay},
        {"params": [p for p in parameters if id(p) not in decays], "weight_decay": 0.0},
    ]


def _mapping(run: Run) -> dict[str, Any]:
    """How an audit reads the weights (numerics.mapping)."""
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    maps = {role: f"blocks.{{layer}}.attention.{name}.weight" for role, name in names.items()}
    rotary = {} if run.encoding == "absolute" else {"rotary_base": 10000.0, "rotary_layout": "half-split"}
    norm = {"norm": "blocks.{layer}.norm.weight", "norm_kind": "layer"}
    return {**maps, "heads": run.task.heads, "causal": run.task.is_text, **rotary, **norm}


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def foreign(path: Path, got: str) -> InputError:
    """The error for a file of a run that is not this one."""
    expected = "an empty folder, or one of the same configuration"
    return InputError("out", f"{path}: {got}", expected, "name another folder, or delete this one")
