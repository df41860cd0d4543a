"""What a grid will take, roughly: operations, memory, and time on a machine. Estimates, not measurements."""

import os
import time
from dataclasses import dataclass

import torch

from numerics.errors import InputError
from numerics.training.canonical import CanonicalGrid, Group
from numerics.training.config import Grid, Run

LONG = 2 * 3600.0
"""Seconds from which on a grid is started only if somebody says so."""
UTILISATION = {"cpu": 0.35, "cuda": 0.15}
"""Assumed share of the speed of large matrix products."""
OVERHEAD = {"cpu": 0.002, "cuda": 0.003}
"""Assumed seconds for each block and step besides: some hundred small operations, forward and backward."""
EACH = 0.0004
"""Assumed seconds for each run and step of canonical tasks, whose tensors are small, besides `OVERHEAD`."""
IMAGE = {"mnist": (28, 1, 10), "cifar10": (32, 3, 10), "synthetic-images": (8, 1, 4)}
"""Height and width, channels, classes."""


@dataclass(frozen=True)
class Cost:
    """Of a grid: operations, the parameters and bytes of its largest run, and seconds of one process."""

    operations: float
    parameters: int
    memory: float
    seconds: float


def parameters(run: Run) -> int:
    """Of the model with plain weights."""
    task = run.task
    tokens, inputs, classes = _shape(run)
    d, width = task.d_model, task.width
    block = 4 * d * d + 2 * d * width + width + d + 4 * d
    if run.encoding == "rotary+D":
        block += task.heads * d
    ends = inputs * d + (0 if task.is_text else d) + 2 * d + d * classes + classes
    return task.layers * block + ends + (tokens * d if run.encoding == "absolute" else 0)


def step_operations(run: Run) -> float:
    """Of one step, forward and backward (three times forward), with all n² scores.

    A refined layer computes its weights anew in every step: about 20 d³ forward.
    """
    task = run.task
    tokens, inputs, classes = _shape(run)
    d = task.d_model
    block = 8 * d * d + 4 * d * task.width + 4 * tokens * d
    if run.encoding == "rotary+D":
        block += 2 * tokens * task.heads * d
    ends = 2 * d * classes + (0 if task.is_text else 2 * inputs * d)
    refined = 0 if run.scenario == "unconstrained" else 20 * task.layers * d**3
    return 3 * (task.batch * tokens * (task.layers * block + ends) + refined)


def memory(run: Run) -> float:
    """Bytes: 16 for each parameter (weight, gradient, two moments of Adam) and what backward needs."""
    task = run.task
    tokens, _, classes = _shape(run)
    extra = 2 * task.heads if run.encoding == "rotary+D" else 0
    per_token = task.layers * ((12 + extra) * task.d_model + 3 * task.width) + 3 * classes
    return 16 * parameters(run) + 4 * task.batch * tokens * per_token


def cost(grid: Grid, device: str = "cpu") -> Cost:
    """Of the whole grid, at the speed that this device reaches on a large matrix product right now."""
    kind = torch.device(device).type
    rate = _rate(device) * UTILISATION.get(kind, UTILISATION["cuda"])
    overhead = OVERHEAD.get(kind, OVERHEAD["cuda"])
    operations = [step_operations(run) * run.task.steps for run in grid.runs]
    blocks = sum(run.task.layers * run.task.steps for run in grid.runs)
    return Cost(
        sum(operations),
        max(map(parameters, grid.runs)),
        max(map(memory, grid.runs)),
        sum(operations) / rate + blocks * overhead,
    )


def canonical_cost(grid: CanonicalGrid, device: str = "cpu") -> Cost:
    """Of canonical tasks; nearly all of their time goes into small operations, not into products."""
    kind = torch.device(device).type
    steps = sum(group.problem.steps for group in grid.groups)
    operations = sum(
        _group_operations(group) * len(group.frequencies) * group.problem.steps for group in grid.groups
    )
    parameters = max(map(group_parameters, grid.groups))
    memory = max(
        4 * len(group.frequencies) * (4 * group_parameters(group) + 20 * _pairs_of_tokens(group))
        for group in grid.groups
    )
    seconds = steps * OVERHEAD.get(kind, OVERHEAD["cuda"]) + grid.steps * EACH
    return Cost(operations, parameters, memory, seconds)


def group_parameters(group: Group) -> int:
    """Of one model of the group."""
    problem = group.problem
    inputs = problem.symbols + (0 if problem.name == "index" else problem.attributes)
    rows = inputs + problem.questions + 4 * group.pairs + problem.d_model + problem.answers
    return rows * problem.d_model


def _pairs_of_tokens(group: Group) -> int:
    return group.problem.batch * group.problem.positions * group.pairs


def _group_operations(group: Group) -> float:
    """Of one model and step, forward and backward: scores and mean from one-hot tokens, tables, answers."""
    problem, d = group.problem, group.problem.d_model
    inputs = problem.symbols + (0 if problem.name == "index" else problem.attributes)
    per_token = 2 * inputs * (2 * group.pairs + 1) + 12 * group.pairs
    tables = 2 * inputs * d * (2 * group.pairs + d + problem.answers)
    answers = 2 * (inputs + problem.questions) * problem.answers
    return 3 * (problem.batch * (problem.positions * per_token + answers) + tables)


def require_possible(
    grid: Grid | CanonicalGrid, found: Cost, device: str, processes: int, long: bool
) -> None:
    """InputError if the runs do not fit into memory, or, unless `long`, take longer than `LONG`."""
    if torch.device(device).type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory
    else:
        room = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if found.memory * processes > room:
        got = f"{grid.name}: about {found.memory * processes / 1e9:.3g} GB in {processes} process(es)"
        raise InputError("config", got, f"what fits into {room / 1e9:.3g} GB", "lower batch, or --jobs")
    seconds = found.seconds / processes
    if seconds > LONG and not long:
        got = f"{grid.name}: about {seconds / 3600:.3g} hours here ({found.operations:.2g} operations)"
        fix = "start it on a faster device, or say --yes; --dry-run shows the plan"
        raise InputError("config", got, f"at most {LONG / 3600:g} hours", fix)


def _shape(run: Run) -> tuple[int, int, int]:
    """Tokens, rows of the embedding, classes."""
    task = run.task
    if task.is_text:
        return task.context, 256, 256
    size, channels, classes = IMAGE[task.name]
    return (size // task.patch) ** 2, task.patch**2 * channels, classes


def _rate(device: str) -> float:
    """Operations per second of a matrix product, on one thread of a CPU or on the whole of a GPU."""
    on_cpu = torch.device(device).type == "cpu"
    size, dtype = (384, torch.float32) if on_cpu else (4096, torch.bfloat16)
    x = torch.randn(size, size, device=device, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        (x @ x).sum().item()  # waits for the device
        best = min(best, time.perf_counter() - start)
    torch.set_num_threads(threads)
    return 2 * size**3 / best
