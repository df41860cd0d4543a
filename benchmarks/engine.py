"""numerics.integrate against other solvers, on one core: `python -m benchmarks.engine [--quick]`.

Prints its tables, and leaves every number in benchmarks/results/engine.json and the work–precision curves in
benchmarks/results/work_precision.png. README.md beside it says what is measured and how.
"""

import datetime
import json
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click
import matplotlib.pyplot as plt
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks import context, gpu, machine, peers, workloads
from benchmarks.contest import Contest, Entrant, log_errors, relative_errors
from benchmarks.workloads import Workload
from numerics import InputError, integrate

RESULTS = Path(__file__).parent / "results"
TARGET = 1e-6  # p99 error at which solvers are compared
LOG_TARGET = 1e-3  # the same for the log-norm of systems that grow to 1e100
TOLERANCES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
GOALS = {
    "convergent": {"SciPy RK45": 100, "torchdiffeq dopri5": 35, "torchode": 35, "diffrax vmap+jit": 10},
    "divergent": {"SciPy RK45": 250, "torchode": 120, "diffrax vmap+jit": 35},
    "to 1e100": {"SciPy RK45": 1000},
    "context": {"naive softmax": 2.1, "SDPA": 1.0},
}
MEMORY_GOAL = 8.0  # MiB
console = Console(width=130)


def ours(backend: str, workload: Workload, rtol: float, atol: float) -> np.ndarray:
    """The tokens at the end, through ``integrate``; no row is stopped for its size."""
    solution = integrate(
        workload.system, workload.x0, workload.times, rtol=rtol, atol=atol, escape=math.inf, backend=backend
    )
    return solution.states[:, -1].numpy()


def our_log_norm(workload: Workload, rtol: float, atol: float) -> np.ndarray:
    """log max|x| at the end (batch,), also where x itself overflows."""
    solution = integrate(workload.system, workload.x0, workload.times, rtol=rtol, atol=atol, escape=math.inf)
    return solution.log_norm[:, -1].numpy()


def scipy_log_norm(workload: Workload, rtol: float, atol: float) -> np.ndarray:
    return np.log(np.abs(peers.scipy("RK45", workload, rtol, atol)).max((1, 2)))


def entrants(quick: bool, without: tuple[str, ...]) -> list[Entrant]:
    """Ours with every back-end that runs here, then the peers, ``without`` those with such a word."""
    rows, limit = (32, 10.0) if quick else (128, 75.0)
    probe, found = workloads.sweep("convergent", 2), []
    for backend in ("auto", "torch") if quick else ("auto", "compiled", "torch"):
        try:
            ours(backend, probe, 1e-3, 1e-5)
        except InputError as error:
            console.print(f"ours, {backend}: {error}", soft_wrap=True)
        else:
            found.append(Entrant(f"ours, {backend}", partial(ours, backend), compiles=True))
    for name, solver in peers.installed(limit).items():
        slow = name.startswith("SciPy")
        if quick and name in ("SciPy DOP853", "SciPy LSODA"):
            continue
        found.append(Entrant(name, solver, rows if slow else None, compiles=name.startswith("diffrax")))
    return [entrant for entrant in found if not any(word in entrant.name for word in without)]


def sweep(kind: str, quick: bool, without: tuple[str, ...]) -> Contest:
    """All solvers on the sweep; errors against DOP853 at 1e-12 on the first rows."""
    workload = workloads.sweep(kind, 512 if quick else 4096)
    reference = peers.scipy("DOP853", workload.first(64 if quick else 512), 1e-12, 1e-14)
    contest = Contest(workload, relative_errors(reference), TARGET, entrants(quick, without))
    contest.run(budget=0.5 if quick else 10.0, start=3e-6 if kind == "convergent" else 1e-7)
    contest.extend(0.5 if quick else 15.0, TOLERANCES)
    return contest


def growth(exponent: int, quick: bool) -> Contest:
    """Ours and, where float64 suffices, SciPy; errors of the log-norm against DOP853 in log-radius."""
    workload = workloads.growth(exponent, 512 if quick else 4096)
    reference = peers.log_radius(workload.first(16 if quick else 128), 1e-12, 1e-12)
    found = [Entrant("ours, auto", our_log_norm, compiles=True)]
    if exponent < 150:  # scores, the squares of tokens, overflow beyond
        found.append(Entrant("SciPy RK45", scipy_log_norm, 8 if quick else 64))
    contest = Contest(workload, log_errors(reference), LOG_TARGET, found)
    contest.run(budget=0.5 if quick else 10.0, start=1e-5)
    contest.extend(math.inf, (1e-8,))
    return contest


def show(title: str, contest: Contest, goals: dict[str, float]) -> dict[str, Any]:
    """Print one contest; its numbers for the file."""
    table = Table(title=title, title_justify="left")
    for column in (
        "solver",
        "rtol",
        "error median",
        "p99",
        "max",
        "CPU s",
        "wall s",
        "s at target",
        "ours ×",
        "goal ×",
    ):
        table.add_column(column, justify="left" if column == "solver" else "right")
    best = contest.cost(contest.entrants[0])
    for entrant in contest.entrants:
        cost, factor = contest.cost(entrant), None
        if best and (cost or entrant.limit):
            factor = (cost or entrant.limit or 0.0) / best
        bound = "" if cost or not entrant.limit else "> "
        goal = goals.get(entrant.name)
        head = [
            f"{bound}{cost or entrant.limit or math.nan:.3g}",
            "" if factor is None else f"{bound}{factor:.3g}",
            "" if goal is None else f"{goal:g}",
        ]
        runs = sorted(entrant.runs.values(), key=lambda run: -run.rtol)
        for i, run in enumerate(runs):
            errors = [f"{error:.1e}" for error in (run.error_median, run.error_p99, run.error_max)]
            seconds = [f"{run.seconds:.3g}", f"{np.median(run.wall):.3g}"]
            last = i == len(runs) - 1
            name = entrant.name if i == 0 else ""
            table.add_row(
                name,
                f"{run.rtol:.1e}",
                *errors,
                *seconds,
                *(head if last else ("", "", "")),
                end_section=last,
            )
        if not runs:
            table.add_row(entrant.name, *[""] * 6, *head, end_section=True)
    console.print(table)
    solvers = {
        entrant.name: {
            "seconds_at_target": contest.cost(entrant),
            "given_up_after": entrant.limit,
            "rows": entrant.rows or len(contest.workload.x0),
            "warm_up_seconds": entrant.warm_up,
            "runs": [asdict(run) for run in entrant.runs.values()],
        }
        for entrant in contest.entrants
    }
    return {"target": contest.target, "batch": len(contest.workload.x0), "solvers": solvers}


def verdicts(contest: Contest, goals: dict[str, float]) -> list[tuple[str, str, str]]:
    """(what, measured, goal) for each goal of a contest."""
    best, lines = contest.cost(contest.entrants[0]), []
    for entrant in contest.entrants:
        if entrant.name not in goals:
            continue
        cost = contest.cost(entrant)
        measured = "not bracketed"
        if best and cost:
            measured = f"{cost / best:.3g}"
        elif best and entrant.limit:
            measured = f"> {entrant.limit / best:.3g}"
        lines.append((f"{contest.workload.name}: {entrant.name}", measured, f"≥ {goals[entrant.name]:g}"))
    return lines


def per_velocity(limits: machine.Limits, quick: bool) -> list[dict[str, Any]]:
    """The time of a velocity within ``integrate`` against its counted limit, over n, d and the batch."""
    cells = [(8, 4, batch) for batch in (1, 64, 512, 4096, 32_768)]
    cells += [] if quick else [(2, 4, 65_536), (32, 4, 512), (8, 16, 1024)]
    rows = []
    for n, d, batch in cells:
        workload = workloads.sweep("convergent", batch, n, d)
        solve = partial(integrate, workload.system, workload.x0, workload.times, rtol=1e-7, atol=1e-9)
        solve()
        runs = [machine.timed(solve) for _ in range(3)]
        steps = int(runs[0].result.steps.sum())
        seconds = float(np.median([run.cpu for run in runs])) / (6 * steps)
        plain, least = (
            limits.seconds(*machine.step_cost(n, d, symmetric)) / 6 for symmetric in (False, True)
        )
        bounds = {"plain limit": plain, "limit, W = Wᵀ": least, "share of it": least / seconds}
        rows.append({"n": n, "d": d, "batch": batch, "seconds": seconds} | bounds)
    return rows


def show_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """Print rows with the same keys as a table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*(value if isinstance(value, str) else f"{value:.4g}" for value in row.values()))
    console.print(table)


def draw(contests: dict[str, Contest], file: Path) -> None:
    """Work against precision, one panel for each workload."""
    figure, panels = plt.subplots(1, len(contests), figsize=(6.2 * len(contests), 4.8), layout="constrained")
    for panel, (title, contest) in zip(np.atleast_1d(panels), contests.items(), strict=True):
        for i, entrant in enumerate(contest.entrants):
            runs = sorted(
                (run for run in entrant.runs.values() if run.error_p99 < math.inf), key=lambda run: run.rtol
            )
            style = {"color": f"C{i}", "linestyle": "-" if entrant.name.startswith("ours") else "--"}
            panel.loglog(
                [run.error_p99 for run in runs],
                [run.seconds for run in runs],
                "o",
                label=entrant.name,
                **style,
            )
        panel.axvline(contest.target, color="0.7", linewidth=1, zorder=0)
        panel.set(title=title, xlabel="99th percentile of the error", ylabel="CPU seconds, one core")
        panel.invert_xaxis()
        panel.grid(alpha=0.25)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def long_context(quick: bool) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """The long context: its rows, and its goals."""
    n, steps = (2048, 4) if quick else (4096, 32)
    rows = context.compare(n, steps, rounds=1 if quick else 2)
    own = rows[-1]
    table = [asdict(row) | {"ours ×": row.seconds / own.seconds} for row in rows]
    show_rows(f"n = {n}, d = {context.DIM}, float32, {steps} RK4 steps (CPU s; extra MiB)", table)
    goals = GOALS["context"]
    lines = [
        (f"n = {n}: {row.method}", f"{row.seconds / own.seconds:.3g}", f"≥ {goals[row.method]:g}")
        for row in rows
        if row.method in goals
    ]
    return table, [*lines, (f"n = {n}: extra MiB", f"{own.memory:.3g}", f"≤ {MEMORY_GOAL:g}")]


@click.command()
@click.option(
    "--quick", is_flag=True, help="Small batches and one round, under three minutes; writes no files."
)
@click.option(
    "--without", multiple=True, metavar="WORD", help="Leave out solvers with this word in their name."
)
def main(quick: bool, without: tuple[str, ...]) -> None:
    """Measure, print, and (unless --quick) write benchmarks/results/."""
    machine.stay_on_one_core()
    limits = machine.limits(torch.float64)
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": machine.processor(),
        "cores_used": 1,
        "versions": machine.versions(),
        "limits_float64": asdict(limits),
    }
    console.print(
        f"{record['processor']}, one core; " + ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    )
    console.print(
        f"float64: {limits.flops / 1e9:.1f} GF/s (torch.mm), {limits.exps / 1e9:.2f} G exp/s (numpy.exp), "
        f"{limits.bytes / 1e9:.1f} GB/s (copy)\n"
    )
    plans = {kind: partial(sweep, kind, quick, without) for kind in ("convergent", "divergent")}
    plans |= {f"to 1e{exponent}": partial(growth, exponent, quick) for exponent in (100, 400)}
    contests: dict[str, Contest] = {}
    lines: list[tuple[str, str, str]] = []
    for name, plan in plans.items():
        contest, goals = contests.setdefault(name, plan()), GOALS.get(name, {})
        title = f"{name}: {len(contest.workload.x0)} systems, n = 8, d = 4, at p99 error {contest.target:g}"
        record[name] = show(title, contest, goals)
        lines += verdicts(contest, goals)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        draw({name: contests[name] for name in ("convergent", "divergent")}, RESULTS / "work_precision.png")
    lines += [_same_tolerance(contests["to 1e100"]), _reached(contests["to 1e400"])]
    record["per velocity"] = per_velocity(limits, quick)
    show_rows(
        "Seconds per velocity within integrate, convergent sweep, against the counted limit",
        record["per velocity"],
    )
    record["context"], found = long_context(quick)
    lines += found
    if torch.cuda.is_available():
        record["gpu"] = gpu.report()
        for title, rows in record["gpu"].items():
            show_rows(title, rows)
    else:
        console.print("No GPU here: its rows are left out.")
    record["goals"] = [{"what": what, "measured": measured, "goal": goal} for what, measured, goal in lines]
    show_rows("Goals" + (" (they are meant for the full mode)" if quick else ""), record["goals"])
    if not quick:
        (RESULTS / "engine.json").write_text(json.dumps(record, indent=1) + "\n")


def _same_tolerance(contest: Contest) -> tuple[str, str, str]:
    """SciPy's cost over ours to 1e100, both at rtol 1e-8, where both err far less than asked."""
    own, scipy = (entrant.runs[1e-8].seconds for entrant in contest.entrants)
    return "to 1e100: SciPy RK45, both at rtol 1e-8", f"{scipy / own:.3g}", "≥ 1000"


def _reached(contest: Contest) -> tuple[str, str, str]:
    """The largest error of the log-norm at 1e400, from rtol 1e-8 on."""
    worst = max(run.error_max for run in contest.entrants[0].runs.values() if run.rtol <= 1e-8)
    return "to 1e400: error of log-norm at rtol 1e-8", f"{worst:.1e}", "≤ 0.001"


if __name__ == "__main__":
    main()
