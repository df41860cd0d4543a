"""Work shared among processes that may die: those of this machine, or those of a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from numerics.errors import InputError

Task = Callable[[int], Any]
Results = Generator[tuple[int, Any], None, None]
MOST_DEATHS = 3
CONNECT_SECONDS = 30


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def on_cores(task: Task, items: Sequence[int], jobs: int) -> Results:
    """(item, task(item)) as they finish, from `jobs` processes.

    An item whose process died is computed again. Processes die with this one, and when the iteration is left.
    An exception of the task is raised here; InputError if MOST_DEATHS processes died at one item.
    """
    waiting, deaths = deque(items), Counter()
    idle = [_Process() for _ in range(min(jobs, len(items)))]
    busy: dict[Future, tuple[_Process, int]] = {}
    try:
        while waiting or busy:
            while waiting and idle:
                process, item = idle.pop(), waiting.popleft()
                busy[process.start(task, item)] = process, item
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                process, item = busy.pop(future)
                idle.append(process)
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield item, future.result()
                    continue
                process.restart()
                waiting.appendleft(item)
                deaths[item] += 1
                if deaths[item] == MOST_DEATHS:
                    raise _deadly(item)
    finally:
        for process in [*idle, *(process for process, _ in busy.values())]:
            process.end()


def on_dask(task: Task, items: Sequence[int], address: str) -> Results:
    """(item, task(item)) as they finish, from the workers of the Dask scheduler at `address`.

    Twice as many tasks as the cluster has threads are under way. What a dead worker had is computed again.
    Raises as `on_cores` does, and InputError if the scheduler cannot be reached or is lost.
    """
    distributed = _distributed()
    waiting = deque(items)
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        expected = "the address of a running Dask scheduler, e.g. tcp://127.0.0.1:8786"
        raise InputError("scheduler", f"{address}: {error}", expected, "start one: dask scheduler") from error
    with client:
        under_way: dict[str, int] = {}
        finished = distributed.as_completed(loop=client.loop)

        def top_up() -> None:
            threads = sum(client.nthreads().values())
            while waiting and len(under_way) < 2 * max(threads, 1):
                item = waiting.popleft()
                future = client.submit(task, item, pure=False)
                under_way[future.key] = item
                finished.add(future)

        top_up()
        for future in finished:
            item = under_way.pop(future.key)
            try:
                result = future.result()
            except distributed.KilledWorker as error:
                raise _deadly(item) from error
            except (CancelledError, OSError) as error:
                fix = "start it, and this command, again: finished chunks are kept"
                raise InputError("scheduler", f"{address} is lost", "one that keeps running", fix) from error
            yield item, result
            top_up()


def _deadly(item: int) -> InputError:
    """Three deaths are no accident: memory, most likely."""
    return InputError(
        f"chunk {item}",
        f"{MOST_DEATHS} workers that died computing it",
        "workers that finish it",
        "lower run.chunk or --jobs if memory ran out; to see it alone, in Python: from numerics.sweep import "
        f"compute, read_plan; plan = read_plan('CONFIG.toml'); compute(plan, plan.chunk({item}))",
    )


class _Process:
    """A pool of one process, so that its death concerns one item only."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare)
        self.pid = self.pool.submit(os.getpid)

    def start(self, task: Task, item: int) -> Future:
        try:
            return self.pool.submit(task, item)
        except BrokenProcessPool:  # it died while idle
            self.restart()
            return self.pool.submit(task, item)

    def end(self) -> None:
        """Kill the process, whatever it does."""
        if self.pid.done() and self.pid.exception() is None:
            for child in multiprocessing.active_children():
                if child.pid == self.pid.result():
                    child.kill()
        self.pool.shutdown(cancel_futures=True)


def _prepare() -> None:
    """In a new process: leave Ctrl-C to the parent, and die when it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise InputError(
            "scheduler", "no Dask", "the package distributed", "pip install 'tokendyn[cluster]'"
        ) from error
    return distributed
