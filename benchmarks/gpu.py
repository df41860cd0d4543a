"""The engine on a GPU: agreement with the CPU, and speed as a share of the bottleneck's measured limit.

Every function takes the device by name, so that the code also runs, and can be checked, on "cpu".
"""

from functools import partial
from typing import Any

import torch

from benchmarks import machine, workloads
from benchmarks.peers import TooSlowError, torchdiffeq
from numerics import Solution, integrate

RTOL = 1e-7


def solve(workload: workloads.Workload, rtol: float = RTOL) -> Solution:
    return integrate(workload.system, workload.x0, workload.times, rtol=rtol, atol=rtol / 100)


def agreement(device: str, batch: int = 512) -> list[dict[str, Any]]:
    """Largest difference between the tokens of CPU and device over their norm, both at rtol 1e-10."""
    rows = []
    for kind, tolerance in (("convergent", 1e-8), ("divergent", 1e-6)):
        workload = workloads.sweep(kind, batch)
        here = solve(workload, 1e-10).states[:, -1]
        there = solve(workload.to(device), 1e-10).states[:, -1].cpu()
        worst = float(((here - there).abs().amax((1, 2)) / here.abs().amax((1, 2))).max())
        verdict = "yes" if worst <= tolerance else "NO"
        rows.append({"workload": kind, "difference": worst, "tolerance": tolerance, "within": verdict})
    return rows


def sweep(device: str, limits: machine.Limits, batch: int, give_up: float = 120.0) -> list[dict[str, Any]]:
    """Wall time of the convergent sweep here and through torchdiffeq.

    The share is that of the larger of two least times: the counted arithmetic of all attempted steps, and the
    traffic of a step that reads weights, state and slope, and writes state and slope, once each.
    """
    workload = workloads.sweep("convergent", batch).to(device)
    n, d = workload.x0.shape[1:]
    solve(workload)
    runs = [machine.timed(partial(solve, workload), device) for _ in range(3)]
    wall, steps = sorted(run.wall for run in runs)[1], int(runs[0].result.steps.sum())
    flops, exps = machine.step_cost(n, d)
    traffic = 8 * (2 * d * d + 4 * n * d)
    least = steps * max(limits.seconds(flops, exps), traffic / limits.bytes)
    rows = [
        {
            "solver": "ours",
            "batch": batch,
            "wall s": wall,
            "velocities/s": 6 * steps / wall,
            "share": least / wall,
        }
    ]
    try:
        other = machine.timed(lambda: torchdiffeq(workload, RTOL, RTOL / 100, give_up), device).wall
        rows.append(
            {"solver": "torchdiffeq", "batch": batch, "wall s": other, "velocities/s": "", "share": ""}
        )
    except TooSlowError as slow:
        rows.append(
            {"solver": f"torchdiffeq > {slow.limit:g} s", "batch": batch, "wall s": slow.limit}
            | {"velocities/s": "", "share": ""}
        )
    return rows


def long_context(
    device: str, limits: machine.Limits, n: int = 65_536, steps: int = 2
) -> list[dict[str, Any]]:
    """Wall time of a velocity of one system of n tokens, d = 64, float32, against the counted arithmetic."""
    workload = workloads.context(n).to(device)
    options: dict[str, Any] = {"method": "rk4", "step": workload.end / steps, "rtol": 1e-6}
    run = partial(integrate, workload.system, workload.x0, workload.times, **options)
    run()
    wall = machine.timed(run, device).wall / (4 * steps)
    least = limits.seconds(*machine.velocity_cost(n, workload.x0.shape[2]))
    return [{"n": n, "s per velocity": wall, "limit s": least, "share": least / wall}]


def report(device: str = "cuda", batch: int = 409_600, n: int = 65_536) -> dict[str, list[dict[str, Any]]]:
    """All of the above, by title."""
    double, single = machine.limits(torch.float64, device), machine.limits(torch.float32, device)
    return {
        f"{device}: agreement with the CPU": agreement(device),
        f"{device}: sweep × 100, float64": sweep(device, double, batch),
        f"{device}: the same code on one CPU core": sweep("cpu", machine.limits(torch.float64), batch // 100),
        f"{device}: long context, float32": long_context(device, single, n),
    }
