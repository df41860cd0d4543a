"""Refuse work that does not fit into memory before it starts, and say how much it needs."""

from pathlib import Path

import torch
from torch import Tensor

from numerics.errors import InputError
from numerics.kernel import LARGE

MEMINFO = Path("/proc/meminfo")


def available(device: torch.device) -> int | None:
    """Bytes of memory free for new tensors on a device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    sizes = dict(line.split(":") for line in MEMINFO.read_text().splitlines())
    return int(sizes["MemAvailable"].split()[0]) * 1024


def require(argument: str, needed: int, what: str, fix: str, device: torch.device) -> None:
    """InputError if ``what`` needs more bytes than are free on the device."""
    free = available(device)
    if free is not None and needed > free:
        got, there = f"{what}: {needed / 2**30:.3g} GiB", f"at most the {free / 2**30:.3g} GiB that are free"
        raise InputError(argument, got, f"{there} on {device}", fix)


def of_integration(x0: Tensor, times: Tensor, heads: int) -> int:
    """Bytes, roughly: states at all times, slopes and as much again, and the scores where all are formed.

    heads is 0 where no scores of all systems are formed at once.
    """
    batch, n, d = x0.shape
    scores = 3 * heads * n * n if n <= LARGE else 0
    return batch * (n * d * (len(times) + 16) + scores) * x0.itemsize
