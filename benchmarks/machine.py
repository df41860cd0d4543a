"""What the machine is and can do: one core, its measured throughputs, the cost of a velocity in them."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

PACKAGES = ("numpy", "scipy", "torch", "numba", "torchdiffeq", "torchode", "diffrax", "jax")


@dataclass(frozen=True)
class Timed:
    """A result and the seconds it took."""

    result: Any
    cpu: float
    wall: float


def timed(work: Callable[[], Any], device: str = "cpu") -> Timed:
    """The result of ``work`` with CPU and wall time, the latter up to the end of what it queued on a GPU."""
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    _wait(device)
    return Timed(result, time.process_time() - cpu, time.perf_counter() - wall)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def stay_on_one_core() -> None:
    """One core for every thread of this process, so that CPU time is the cost whatever a library starts."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def processor() -> str:
    """The name of the CPU and its widest vectors, as far as the platform tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = [line for line in lines if line.startswith("flags")]
    widest = next((name for name in ("avx512f", "avx2") if flags and f" {name} " in flags[0] + " "), "")
    return " ".join(filter(None, [names[0] if names else platform.machine(), widest]))


def versions() -> dict[str, str]:
    """Python and the packages measured here; those not installed are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@dataclass(frozen=True)
class Limits:
    """Measured throughputs: floating-point operations, exponentials and bytes per second."""

    flops: float
    exps: float
    bytes: float

    def seconds(self, flops: float, exps: float) -> float:
        """The least time for a computation whose exponentials use the arithmetic units too."""
        return flops / self.flops + exps / self.exps


def limits(dtype: torch.dtype, device: str = "cpu") -> Limits:
    """Flops by a matrix product, exps by numpy.exp in cache (torch.exp on a GPU), bytes by a large copy."""
    on_cpu = device == "cpu"
    size, many, large = (1024, 8192, 2**25) if on_cpu else (8192, 2**26, 2**28)
    matrix = torch.rand(size, size, dtype=dtype, device=device)
    numbers = -torch.rand(many, dtype=dtype, device=device)
    source = torch.zeros(large, dtype=dtype, device=device)
    product, powers, target = matrix.clone(), numbers.clone(), source.clone()
    traffic = 2 * large * source.element_size()

    def exp() -> None:
        if on_cpu:
            np.exp(numbers.numpy(), out=powers.numpy())
        else:
            torch.exp(numbers, out=powers)

    return Limits(
        2 * size**3 / _seconds(lambda: torch.mm(matrix, matrix, out=product), device),
        many / _seconds(exp, device),
        traffic / _seconds(lambda: target.copy_(source), device),
    )


def _repeat(work: Callable[[], Any], count: int) -> None:
    for _ in range(count):
        work()


def _seconds(work: Callable[[], Any], device: str) -> float:
    """One ``work``: the best of eight rounds of at least 20 ms, in CPU time, or wall time on a GPU."""
    rounds, count = [], 1
    while len(rounds) < 8:
        done = timed(partial(_repeat, work, count), device)
        if done.wall < 0.02:
            count *= 4
        else:
            rounds.append((done.cpu if device == "cpu" else done.wall) / count)
    return min(rounds)


def velocity_cost(n: int, d: int, symmetric: bool = False) -> tuple[int, int]:
    """Flops and exps of one velocity with plain full attention, of one head.

    Queries xW and values (Px)Vᵀ 2nd² each; scores and attended mean 2n²d each; row maximum, difference and
    sum n² each; division nd. If W is symmetric, only the pairs i ≤ j need a score and an exponential.
    """
    pairs = n * (n + 1) // 2 if symmetric else n * n
    return 4 * n * d * d + 2 * n * n * d + 2 * pairs * d + 3 * n * n + n * d, pairs


def step_cost(n: int, d: int, symmetric: bool = False) -> tuple[int, int]:
    """The same for a Dormand–Prince step: six velocities; 26 multiply-adds per entry for stages and error."""
    flops, exps = velocity_cost(n, d, symmetric)
    return 6 * flops + 52 * n * d, 6 * exps
