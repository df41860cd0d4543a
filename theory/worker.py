"""Computations in a child process that is killed at a time limit, keeping the last result it sent."""

import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from theory.errors import DerivationError, InputError

_CHILD = "from theory.worker import main; main()"
MEMORY = 4 << 30  # bytes that a child may address, where the system can limit it


@dataclass(frozen=True)
class Outcome:
    """The last item that a job yielded (None: none), and why it did not finish (empty: it did)."""

    item: Any
    stopped: str = ""


def run(
    function: Callable[[Any, Any], Iterator[Any]], context: Any, jobs: Sequence[Any], timeout: float
) -> list[Outcome]:
    """`function(context, job)` for every job, each at most `timeout` seconds of wall time.

    `function` is a module-level generator; whatever it yielded last counts. A job that runs too long, or
    takes its process down, is reported as stopped, and the others go on in a new process. An InputError or
    a DerivationError is raised here.
    """
    found: list[Outcome] = []
    while len(found) < len(jobs):
        with _Child() as child:
            child.send((function, context, list(jobs[len(found) :])))
            while len(found) < len(jobs):
                outcome, alive = _finish(child, timeout)
                found.append(outcome)
                if not alive:
                    break
    return found


def _finish(child: "_Child", timeout: float) -> tuple[Outcome, bool]:
    """One job's outcome, and whether the child can take the next."""
    deadline, item = time.monotonic() + timeout, None
    while True:
        try:
            kind, content = child.messages.get(timeout=max(deadline - time.monotonic(), 0))
        except queue.Empty:
            return Outcome(item, f"the time limit of {timeout:g} s was reached"), False
        if kind == "item":
            item = content
        elif kind == "done":
            return Outcome(item), True
        elif kind == "failed":
            return Outcome(item, content), True
        elif kind == "input":
            raise InputError(**content)
        elif kind == "wrong":
            raise DerivationError(content)
        else:
            return Outcome(item, "the computation ran out of memory or crashed"), False


class _Child:
    """A Python process that serves jobs; leaving the block kills it."""

    def __enter__(self) -> "_Child":
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.messages: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        return self

    def _listen(self) -> None:
        stream: BinaryIO = self.process.stdout  # type: ignore[assignment]
        try:
            while True:
                self.messages.put(pickle.load(stream))
        except (EOFError, pickle.UnpicklingError, ValueError, OSError):
            self.messages.put(("gone", None))

    def send(self, work: Any) -> None:
        stream: BinaryIO = self.process.stdin  # type: ignore[assignment]
        pickle.dump(work, stream)
        stream.flush()

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def main() -> None:
    """In the child: serve standard input, with its own output kept apart from whatever prints."""
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _limit_memory()
    serve(sys.stdin.buffer, output)


def serve(source: BinaryIO, target: BinaryIO) -> None:
    """Read (function, context, jobs); write what each job says."""
    function, context, jobs = pickle.load(source)
    for job in jobs:
        for message in messages(function, context, job):
            pickle.dump(message, target)
            target.flush()


def messages(function: Callable, context: Any, job: Any) -> Iterator[tuple[str, Any]]:
    """What the child says about one job; a failure of the computation is reported, not raised."""
    try:
        for item in function(context, job):
            yield "item", item
    except InputError as error:
        yield (
            "input",
            {"argument": error.argument, "got": error.got, "expected": error.expected, "fix": error.fix},
        )
    except DerivationError as error:
        yield "wrong", str(error)
    except (
        Exception
    ) as error:  # of whatever kind: the other jobs go on, and this one says why it has no result
        yield "failed", f"the computation failed ({type(error).__name__}: {str(error)[:120]})"
    else:
        yield "done", None


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
