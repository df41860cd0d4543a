"""The main job: recompute every derivation, simulate, probe, and make sure that false variants are caught."""

import platform
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from multiprocessing import get_context

import torch
from torch import Generator

from numerics import Outcome, integrate
from theory.derivation import KINDS
from theory.errors import DerivationError, InputError
from theory.registry import quoted_formula, statement
from theory.theorem import Planted, Theorem
from theory.verdict import Status
from tokendyn.probe import Counterexample, float_scale, search, sweep
from tokendyn.registry import rows
from tokendyn.row import Row, Run
from tokendyn.sampling import sample

SCHEMA = 2
TRAJECTORY_SIZES = ((2, 1), (3, 2), (4, 3))
PROBE_EXAMPLES = 400  # exact systems that Hypothesis tries on a true statement
PLANTED_EXAMPLES = 2000  # and, at most, on a planted false one

TRUE_STATEMENT = Planted("")

Progress = Callable[[str], None]


def verify(
    identifiers: Sequence[str] = (),
    *,
    samples: int = 10_000,
    seed: int = 0,
    device: str = "cpu",
    jobs: int = 1,
    progress: Progress = lambda message: None,
) -> dict:
    """Check the statements named (all by default); a report as plain data (docs/verify_schema.json).

    `jobs` processes share the statements, which changes no result. Raises InputError for an unknown id or
    device and for samples or jobs < 1. The report's `verdict` is FAILS if a
    derivation, a trajectory or a probe contradicts its statement or a planted variant is not caught;
    UNDECIDED if some check could not be settled; else HOLDS. A conjecture that stands is OPEN, and leaves the
    report's verdict as it is. Simulation and probes never turn a cited or
    argued step into a computed one: the evidence of each step stands beside the verdict.
    """
    chosen = dict.fromkeys(statement(identifier).id for identifier in identifiers or rows())
    theorems = [statement(identifier) for identifier in chosen]
    if samples < 1:
        raise InputError("samples", got=str(samples), expected="at least 1", fix="leave it out for 10000")
    if jobs < 1:
        raise InputError("jobs", got=str(jobs), expected="at least 1", fix="leave it out")
    require_device(device)
    rows()  # statements and rows must match before anything is checked
    tasks = [(theorem.id, samples, seed, device) for theorem in theorems]
    results = list(_checked(tasks, jobs, progress))
    statuses = {result["verdict"] for result in results}
    overall = next(
        (s.value for s in (Status.FAILS, Status.UNDECIDED) if s.value in statuses), Status.HOLDS.value
    )
    return {
        "schema": SCHEMA,
        "verdict": overall,
        "settings": {"samples": samples, "seed": seed, "device": device},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("tokendyn", "torch", "sympy", "python-flint", "hypothesis")},
        },
        "statements": results,
    }


def _checked(tasks: list[tuple], jobs: int, progress: Progress) -> Iterator[dict]:
    if jobs == 1 or len(tasks) == 1:
        for task in tasks:
            yield _check(task, progress)
        return
    with get_context("spawn").Pool(min(jobs, len(tasks)), torch.set_num_threads, (1,)) as pool:
        for result in pool.imap(_check, tasks):
            progress(f"{result['id']} checked")
            yield result


def _check(task: tuple, progress: Progress = lambda message: None) -> dict:
    identifier, samples, seed, device = task
    return check_statement(statement(identifier), rows()[identifier], samples, seed, device, progress)


def require_device(device: str) -> None:
    """InputError unless this PyTorch can use the device."""
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            "device", got=repr(device), expected="a device that this PyTorch can use", fix="use --device cpu"
        ) from error


def check_statement(
    theorem: Theorem,
    row: Row,
    samples: int,
    seed: int,
    device: str = "cpu",
    progress: Progress = lambda message: None,
) -> dict:
    """All checks of one statement, as plain data."""
    progress(f"{theorem.id} derivation")
    derivation = _derivation(theorem)
    progress(f"{theorem.id} random systems")
    swept = sweep(theorem, row, TRUE_STATEMENT, samples, seed, device)
    progress(f"{theorem.id} trajectories")
    conclusions = trajectories(theorem, row, TRUE_STATEMENT, seed, device)
    progress(f"{theorem.id} probe")
    probed = search(theorem, row, TRUE_STATEMENT, PROBE_EXAMPLES, seed)
    planted = []
    for number, variant in enumerate(theorem.planted, start=1):
        progress(f"{theorem.id} planted variant {number} of {len(theorem.planted)}")
        caught = search(theorem.plant(variant), row, variant, PLANTED_EXAMPLES, seed).counterexample
        planted.append(
            {"name": variant.name, "caught": caught is not None, "counterexample": _describe(caught)}
        )
    result = {
        "id": theorem.id,
        "kind": theorem.kind,
        "title": theorem.title,
        "statement": theorem.statement,
        "setting": theorem.setting.describe(),
        "derivation": derivation,
        "sweep": {
            "systems": swept.systems,
            "smallest_margins": {name: _finite(value) for name, value in swept.smallest.items()},
            "alarms": swept.alarms,
            "open_alarms": swept.open_alarms,
            "counterexample": _describe(swept.counterexample),
        },
        "trajectories": conclusions,
        "probe": {"examples": probed.tried, "counterexample": _describe(probed.counterexample)},
        "planted": planted,
    }
    problems = _problems(result)
    return {**result, "problems": problems, "verdict": _verdict(result, problems)}


def _derivation(theorem: Theorem) -> dict:
    evidence = {kind: sum(step.evidence.kind == kind for step in theorem.steps) for kind in KINDS}
    steps = [{"kind": step.evidence.kind, "label": step.evidence.label} for step in theorem.steps]
    try:
        theorem.check(quoted_formula)
        error = None
    except DerivationError as reason:
        error = str(reason)
    return {"holds": error is None, "error": error, "evidence": evidence, "steps": steps}


def trajectories(theorem: Theorem, row: Row, planted: Planted, seed: int, device: str = "cpu") -> list[dict]:
    """Integrate random systems and check every conclusion, with the planted constants if any."""
    found = {c.name: {"systems": 0, "inconclusive": 0, "margin": None} for c in row.conclusions}
    for index, (n, d) in enumerate(TRAJECTORY_SIZES if row.conclusions else ()):
        run = _run(theorem, row, planted, n, d, Generator().manual_seed(seed * 100 + index), device)
        for conclusion in row.conclusions:
            margins = conclusion.margin(run)
            settled = margins[~margins.isnan()]
            entry = found[conclusion.name]
            entry["systems"] += len(margins)
            entry["inconclusive"] += int(margins.isnan().sum())
            if len(settled):
                smallest = settled.min().item()
                entry["margin"] = smallest if entry["margin"] is None else min(entry["margin"], smallest)
    return [
        {
            "name": c.name,
            **found[c.name],
            "tolerance": c.tolerance,
            "agrees": found[c.name]["margin"] is None or found[c.name]["margin"] >= -c.tolerance,
        }
        for c in row.conclusions
    ]


def _run(
    theorem: Theorem, row: Row, planted: Planted, n: int, d: int, generator: Generator, device: str
) -> Run:
    moment = row.prepare(
        sample(row.family, theorem.keys, theorem.setting, row.trajectories, n, d, generator)
    ).to(device)
    moment.scale = float_scale(planted.scale)
    times = torch.linspace(0, row.horizon, 41, dtype=torch.float64)
    solution = integrate(
        moment.system,
        moment.x,
        times,
        rtol=1e-9,
        atol=1e-14,
        escape=1e4,
        max_steps=50_000,
        method="dormand-prince",
    )
    if (solution.outcome == Outcome.INVALID).any():
        raise ArithmeticError(f"{theorem.id}: the sampled systems are not finite: {solution.explain()}")
    return Run(moment, solution)


def _describe(counterexample: Counterexample | None) -> dict | None:
    return None if counterexample is None else counterexample.describe()


def _finite(value: float) -> float | None:
    """JSON has no infinity: None where a claim had no items or was not a number."""
    return value if abs(value) < float("inf") else None


def _problems(result: dict) -> list[str]:
    """Why the statement does not stand, in words; empty if all agrees."""
    found = []
    if not result["derivation"]["holds"]:
        found.append(f"derivation: {result['derivation']['error']}")
    for where in ("sweep", "probe"):
        if refuted := result[where]["counterexample"]:
            found.append(f"{where}: certified counterexample to '{refuted['claim']}' (gap {refuted['gap']})")
    found += [
        f"trajectories contradict '{c['name']}': margin {c['margin']:.3g} below −{c['tolerance']:.0e}"
        for c in result["trajectories"]
        if not c["agrees"]
    ]
    found += [f"planted variant not caught: {p['name']}" for p in result["planted"] if not p["caught"]]
    return found


OPEN = "OPEN"
"""Verdict of a conjecture that nothing here refuted: neither proved nor settled."""


def _verdict(result: dict, problems: list[str]) -> str:
    if problems:
        return Status.FAILS.value
    unsettled = any(c["systems"] == c["inconclusive"] for c in result["trajectories"])
    if unsettled or result["sweep"]["open_alarms"]:
        return Status.UNDECIDED.value
    return OPEN if result["kind"] == "conjecture" else Status.HOLDS.value
