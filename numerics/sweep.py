"""Sweeps over families of random systems that survive interruptions: run_sweep and what it will cost."""

import math
import os
import random
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from numerics import workers
from numerics.errors import InputError
from numerics.store import Say, Store, identity, open_store, read_plan_file, to_parquet
from numerics.sweep_plan import Chunk, Plan, make_plan, read_plan
from numerics.sweep_rows import INTERVALS, compute, draw

__all__ = ["Estimate", "compute", "draw", "estimate", "inspect", "make_plan", "read_plan", "run_sweep"]

SAMPLED_GROUPS = 32
WARM_SYSTEMS = 16


def versions() -> dict[str, str | None]:
    """The packages that results depend on to the last bit; None for one that is not installed."""
    return {name: _version(name) for name in ("tokendyn", "torch", "numba", "pyarrow")}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def run_sweep(
    plan: Plan,
    folder: str | Path,
    *,
    jobs: int | None = None,
    scheduler: str | None = None,
    new: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    say: Say = lambda message: None,
) -> dict:
    """Compute what `folder` lacks of the sweep, then write its table.parquet and summary.json; the summary.

    `jobs` processes work (by default one per core), or those of the Dask `scheduler` at an address; neither
    changes a bit of the result. `new` moves results of another configuration aside. `progress` is told the
    systems done and their total, `say` what else happens. Only this process writes. Raises InputError for
    arguments and folders that cannot be used, and for a chunk at which three workers died.
    """
    jobs = workers.cores() if jobs is None else jobs
    if type(jobs) is not int or jobs < 1:
        raise InputError("jobs", jobs, "a whole number ≥ 1", "leave it out for one per core")
    check_memory(plan, jobs if scheduler is None else 1)
    with open_store(folder, plan.config, versions(), new, say) as store:
        missing = store.missing(plan, say)
        left = sum(plan.chunk(number).size for number in missing)
        done = plan.systems - left
        progress(done, plan.systems)
        if missing:
            say(f"computing {left:,} systems in {len(missing):,} chunks")
        task = partial(_chunk, plan, versions())
        if scheduler is None:
            results = workers.on_cores(task, missing, jobs)
        else:
            results = workers.on_dask(task, missing, scheduler)
        with closing(results):
            for number, table in results:
                store.write(number, table)
                done += plan.chunk(number).size
                progress(done, plan.systems)
        return store.finish(plan)


def inspect(folder: str | Path, say: Say = lambda message: None) -> tuple[dict, list[int]]:
    """The summary of a folder's table or, before that is complete, of its finished chunks; writes nothing.

    With it the numbers of the unfinished chunks. Raises InputError for a folder that is not a sweep's.
    """
    folder = Path(folder)
    written = read_plan_file(folder)
    try:
        plan = make_plan(written["config"])
    except InputError as error:
        fix = "restore it, or start over with --new, which moves the results to replaced/"
        got = f"{error.argument} = {error.got}"
        raise InputError(f"{folder}/plan.json", got, error.expected, fix) from error
    store = Store(folder, identity(written["config"], written["versions"]))
    if (summary := store.result(plan)) is not None:
        return summary, []
    missing = store.missing(plan, say)
    return store.summary(plan, missing), missing


def _chunk(plan: Plan, expected: dict[str, str | None], number: int) -> bytes:
    """A chunk as a Parquet file, in a worker.

    Raises InputError if the worker has other versions than expected, and names the chunk in any other.
    """
    if versions() != expected:
        fix = "install the same versions everywhere"
        raise InputError("scheduler", f"a worker with {versions()}", f"workers with {expected}", fix)
    torch.set_num_threads(1)  # more would be slower here, and might round differently
    try:
        return to_parquet(compute(plan, plan.chunk(number)))
    except InputError as error:
        argument = f"chunk {number}, {error.argument}"
        raise InputError(argument, error.got, error.expected, error.fix) from error


def check_memory(plan: Plan, processes: int) -> None:
    """InputError if as many chunks at a time would not fit into this machine's memory, roughly estimated."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for group in plan.groups:
        shape, systems = group.shape, min(plan.run.chunk, group.systems)
        states = (INTERVALS + 40) * shape.n * shape.d
        numbers = states + shape.heads * (4 * shape.n**2 + 12 * shape.d**2)
        needed = 8 * numbers * systems * processes
        if needed > memory:
            size = f"n = {shape.n}, d = {shape.d}, heads = {shape.heads}"
            got = f"chunks of {systems} systems of {size}: {needed / 1e9:.3g} GB in {processes} processes"
            expected = f"what fits into {memory / 1e9:.3g} GB"
            raise InputError("run.chunk", got, expected, "lower run.chunk or --jobs")


@dataclass(frozen=True)
class Estimate:
    """What a sweep will take: seconds of one core, and bytes of the chunks and the table together."""

    seconds: float
    size: float


def estimate(plan: Plan, sample: int = 256) -> Estimate:
    """Extrapolated from about `sample` systems of each shape, or of some if there are many, on one thread.

    They are drawn at random over the whole design: a grid begins in one of its corners.
    """
    check_memory(plan, 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    spread = replace(plan, replicas=0)  # each number at random from its list
    seconds = size = covered = 0.0
    count = len(plan.groups)
    for index in random.Random(0).sample(range(count), min(count, SAMPLED_GROUPS)):
        systems, chunks = plan.groups[index].systems, _sample(plan, index, sample)
        drawn = sum(chunk.size for chunk in chunks)
        warm = replace(chunks[0], size=min(WARM_SYSTEMS, chunks[0].size))
        to_parquet(compute(spread, warm))  # so that compiling and loading are not measured
        start = time.perf_counter()
        tables = [to_parquet(compute(spread, chunk)) for chunk in chunks]
        seconds += (time.perf_counter() - start) / drawn * systems
        size += 2 * sum(map(len, tables)) / drawn * systems
        covered += systems
    torch.set_num_threads(threads)
    return Estimate(seconds * plan.systems / covered, size * plan.systems / covered)


def _sample(plan: Plan, group: int, sample: int) -> list[Chunk]:
    """Chunks of a group with about `sample` systems together: the first of a large one, many small ones."""
    numbers = range(plan.first_chunk(group), plan.first_chunk(group + 1))
    chunks = [plan.chunk(number) for number in numbers[: math.ceil(sample / plan.run.chunk)]]
    return [replace(chunk, size=min(sample, chunk.size)) for chunk in chunks]
