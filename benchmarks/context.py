"""One long context, float32, classical Runge–Kutta steps: time and extra memory of four ways to attend.

`python -m benchmarks.context METHOD N` prints the extra peak memory of one step in its own process.
"""

import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchmarks import workloads
from benchmarks.machine import stay_on_one_core, timed
from numerics import integrate

DIM = 64
Flow = Callable[[Tensor], Tensor]


def naive(W: Tensor, V: Tensor) -> Flow:
    """softmax(xWxᵀ) xVᵀ as written."""
    return lambda x: torch.softmax(x @ W @ x.mT, -1) @ (x @ V.mT)


def compiled(W: Tensor, V: Tensor) -> Flow:
    """The same through torch.compile."""
    return torch.compile(naive(W, V), dynamic=False)


def sdpa(W: Tensor, V: Tensor) -> Flow:
    """torch.nn.functional.scaled_dot_product_attention."""
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda x: attend((x @ W)[None], x[None], (x @ V.mT)[None], scale=1.0)[0]


FLOWS = {"naive softmax": naive, "torch.compile of it": compiled, "SDPA": sdpa}
METHODS = (*FLOWS, "ours")


@torch.no_grad()
def solve(method: str, workload: workloads.Workload, steps: int) -> Tensor:
    """The tokens at the end of ``steps`` classical Runge–Kutta steps."""
    h = workload.end / steps
    if method == "ours":
        times = workload.times
        return integrate(workload.system, workload.x0, times, method="rk4", step=h, rtol=1e-6).states[:, -1]
    flow, x = FLOWS[method](workload.score, workload.value), workload.x0
    for _ in range(steps):
        k1 = flow(x)
        k2 = flow(x + h / 2 * k1)
        k3 = flow(x + h / 2 * k2)
        k4 = flow(x + h * k3)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@dataclass
class Row:
    """One method: CPU seconds, extra peak memory of one step (MiB), relative error against float64."""

    method: str
    seconds: float
    memory: float
    error: float


def compare(n: int, steps: int, rounds: int) -> list[Row]:
    """All methods in turn, ``rounds`` times."""
    workload = workloads.context(n)
    exact = solve("SDPA", workload.to(torch.float64), steps)
    seconds: dict[str, list[float]] = {method: [] for method in METHODS}
    ends = {method: solve(method, workload, 1) for method in METHODS}  # warm-up
    for _ in range(rounds):
        for method in METHODS:
            done = timed(lambda method=method: solve(method, workload, steps))
            seconds[method].append(done.cpu)
            ends[method] = done.result
    size = exact.abs().max()
    return [
        Row(
            method,
            median(seconds[method]),
            extra_memory(method, n),
            float((ends[method] - exact).abs().max() / size),
        )
        for method in METHODS
    ]


def extra_memory(method: str, n: int) -> float:
    """MiB that one step takes beyond what a fresh process held before; NaN if the platform cannot tell."""
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    settings = {
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }  # freed memory goes back
    command = [sys.executable, "-m", "benchmarks.context", method, str(n)]
    done = subprocess.run(command, env=os.environ | settings, capture_output=True, text=True, check=True)
    return float(done.stdout)


def _peak() -> float:
    """The largest resident size since the last reset, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main(method: str, n: int) -> None:
    stay_on_one_core()
    workload = workloads.context(n)
    small = workloads.context(n if "compile" in method else 512)
    solve(method, small, 1)  # code is loaded and compiled before
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _peak()
    solve(method, workload, 1)
    print(_peak() - before)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
