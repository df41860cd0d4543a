"""Solvers compared on one workload at equal error: work against precision, and the cost at a target error."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

import numpy as np

from benchmarks.machine import timed
from benchmarks.peers import Solver, TooSlowError
from benchmarks.workloads import Workload

Errors = Callable[[np.ndarray], np.ndarray]
LOOSEST, TIGHTEST = 1e-2, 1e-12


@dataclass
class Run:
    """One solver at one tolerance; seconds are those of the whole batch."""

    rtol: float
    error_median: float
    error_p99: float
    error_max: float
    cpu: list[float]
    wall: list[float]

    @property
    def seconds(self) -> float:
        return median(self.cpu)


@dataclass
class Entrant:
    """A solver, how many rows of the batch it is given (its cost is scaled up), and what it has done."""

    name: str
    solve: Solver
    rows: int | None = None
    compiles: bool = False
    warm_up: float = 0.0  # CPU seconds of the first call beyond those of the second
    limit: float | None = None  # CPU seconds after which it was given up
    spent: float = 0.0  # CPU seconds so far
    runs: dict[float, Run] = field(default_factory=dict)


@dataclass
class Contest:
    """Entrants on a workload; ``errors`` maps a result to one error per row, for as many rows as it knows."""

    workload: Workload
    errors: Errors
    target: float
    entrants: list[Entrant]

    def run(self, budget: float, start: float) -> None:
        """Bracket the target error by tolerances, from ``start``; then repeat in turn while the budget lasts.

        ``budget`` is CPU seconds per entrant; the first bracketing is not bound by it.
        """
        for entrant in self.entrants:
            self._warm_up(entrant)
            self._bracket(entrant, start)
        for _ in range(4):
            for entrant in self.entrants:
                for rtol in list(entrant.runs):
                    if entrant.limit is None and entrant.spent < budget:
                        self._measure(entrant, rtol)

    def extend(self, budget: float, tolerances: tuple[float, ...]) -> None:
        """More points of the curves, for entrants within the budget."""
        for entrant in self.entrants:
            for rtol in tolerances:
                if entrant.limit is None and entrant.spent < budget:
                    self._measure(entrant, rtol)

    def cost(self, entrant: Entrant) -> float | None:
        """CPU seconds of the whole batch at the target error, interpolated; None without a bracket."""
        points = sorted((run.error_p99, run.seconds) for run in entrant.runs.values())
        for (error, seconds), (larger, fewer) in pairwise(points):
            if error <= self.target <= larger < math.inf:
                share = math.log(self.target / error) / math.log(larger / error) if larger > error else 0.0
                return seconds * (fewer / seconds) ** share
        return None

    def _rows(self, entrant: Entrant) -> Workload:
        return self.workload if entrant.rows is None else self.workload.first(entrant.rows)

    def _warm_up(self, entrant: Entrant) -> None:
        workload = self._rows(entrant) if entrant.compiles else self.workload.first(2)
        entrant.warm_up = timed(lambda: entrant.solve(workload, 1e-3, 1e-5)).cpu
        if entrant.compiles:
            entrant.warm_up -= timed(lambda: entrant.solve(workload, 1e-3, 1e-5)).cpu

    def _bracket(self, entrant: Entrant, start: float) -> None:
        rtol = start
        for _ in range(8):
            try:
                error = self._measure(entrant, rtol).error_p99
            except TooSlowError as slow:
                entrant.limit = slow.limit
                return
            found = [run.error_p99 for run in entrant.runs.values()]
            if min(found) <= self.target <= max(found):
                return
            aim = self.target / max(error, 1e-300) * (0.7 if error > self.target else 1.5)
            rtol = min(max(rtol * min(max(aim, 0.01), 100), TIGHTEST), LOOSEST)

    def _measure(self, entrant: Entrant, rtol: float) -> Run:
        workload = self._rows(entrant)
        scale = len(self.workload.x0) / len(workload.x0)
        done = timed(lambda: entrant.solve(workload, rtol, rtol / 100))
        if rtol not in entrant.runs:
            errors = np.nan_to_num(self.errors(done.result), nan=np.inf)
            middle, p99, largest = np.quantile(errors, (0.5, 0.99, 1.0), method="higher").tolist()
            entrant.runs[rtol] = Run(rtol, middle, p99, largest, [], [])
        run = entrant.runs[rtol]
        entrant.spent += done.cpu
        run.cpu.append(done.cpu * scale)
        run.wall.append(done.wall * scale)
        return run


def relative_errors(reference: np.ndarray) -> Errors:
    """max|x − reference| / max|reference| of each row, for the rows of the reference."""

    def errors(x: np.ndarray) -> np.ndarray:
        known = reference[: len(x)]
        return np.abs(x[: len(known)] - known).max((1, 2)) / np.abs(known).max((1, 2))

    return errors


def log_errors(reference: np.ndarray) -> Errors:
    """|log-norm − reference| of each row, from log-norms (batch,)."""
    return lambda logs: np.abs(logs[: len(reference)] - reference[: len(logs)])
