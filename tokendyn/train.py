"""`tokendyn train`: run a grid of small trainings, audit what came out, and say what the differences are."""

import csv
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import distributed as dist

from numerics import workers
from numerics.errors import InputError
from numerics.fetch import FetchError
from numerics.layerwise import SCENARIOS as POSITIVE
from numerics.store import write_file
from numerics.training.canonical import CanonicalGrid, Group, is_canonical, make_canonical
from numerics.training.config import Grid, Run, make_grid, read_config
from numerics.training.cost import canonical_cost, cost, require_possible
from numerics.training.data import load
from numerics.training.loop import MAPPING, WEIGHTS, World, result
from numerics.training.loop import train as train_run
from tokendyn.audit import audit
from tokendyn.sweep_text import duration
from tokendyn.train_canonical import FIGURE as CANONICAL_FIGURE
from tokendyn.train_canonical import canonical_markdown, canonical_tables, print_canonical, run_groups
from tokendyn.train_text import Row, markdown, print_cost, print_summary

AUDIT = "audit.json"
FIGURE = "refinements"
QUIET_SECONDS = 60
Report = Callable[[Run, dict[str, Any]], None]


def run_grid(
    grid: Grid,
    out: Path,
    *,
    jobs: int = 1,
    device: str = "cpu",
    world: World | None = None,
    report: Report = lambda run, done: None,
    progress: Callable[[int], None] = lambda steps: None,
) -> None:
    """Do what is missing of the grid: each run in a folder of its own below `out`, audited.

    On a CPU in `jobs` processes of one thread; on CUDA, or with a `world` of several processes, one run after
    another, and then `progress` is told the steps done since it was told last. `report` is told each run as
    it is there. Raises as `numerics.training.train` does.
    """
    world = world or World()
    if world.size > 1 or torch.device(device).type != "cpu":
        for number, run in enumerate(grid.runs):
            report(run, _one(grid, out, device, world, number, progress))
        return
    task = partial(_one, grid, out, device, world)
    try:
        for number, done in workers.on_cores(task, range(len(grid.runs)), jobs):
            report(grid.runs[number], done)
    except InputError as error:
        if not error.argument.startswith("chunk "):
            raise
        run = grid.runs[int(error.argument.removeprefix("chunk "))]  # its process died three times
        fix = "lower batch or --jobs if memory ran out; the command goes on from the last checkpoint"
        raise InputError(run.name, error.got, error.expected, fix) from error


def _one(
    grid: Grid,
    out: Path,
    device: str,
    world: World,
    number: int,
    progress: Callable[[int], None] = lambda steps: None,
) -> dict[str, Any]:
    """Train and audit one run, in this process."""
    run, threads = grid.runs[number], torch.get_num_threads()
    folder = out / run.name
    if torch.device(device).type == "cpu":
        torch.set_num_threads(1)  # more would be slower here, and might round differently
    try:
        done = train_run(run, folder, device=device, world=world, progress=progress)
        if world.rank == 0 and not (folder / AUDIT).exists():
            write_file(folder / AUDIT, (json.dumps(audit_run(run, folder), indent=1) + "\n").encode())
    except FetchError as error:  # it cannot leave a process
        raise InputError("data", error.got, error.tried, error.fix) from error
    except OSError as error:
        fix = "make room; the command goes on from what is there"
        raise InputError("out", f"{folder}: {error.strerror}", "a folder that can be written", fix) from error
    finally:
        torch.set_num_threads(threads)
    return done


def audit_run(run: Run, folder: Path) -> list[dict[str, Any]]:
    """The key figures of `tokendyn audit` of the run's plain weights, one entry for each layer.

    Inertias and verdicts are certified about the stored weights, of W = Σ W_h and A with A V = W (without
    rotary encoding and diagonal); `signs` is the verdict on what the scenario imposes, None if nothing.
    """
    report = audit(folder / WEIGHTS, mapping=folder / MAPPING, heads="0")
    return [_key_figures(run, layer["whole"], layer["index"]) for layer in report["layers"]]


def _key_figures(run: Run, whole: dict[str, Any], index: int) -> dict[str, Any]:
    figures: dict[str, Any] = {"layer": index}
    for name, part in (("w", whole["scores"]), ("a", whole["response"])):
        inertia = (part or {}).get("inertia")
        for key in ("positive", "negative", "zero", "grade"):
            figures[f"{name}_{key}"] = "" if inertia is None else inertia[key]
    figures["w_antisymmetric_float"] = whole["scores"]["antisymmetric_share_float"]
    figures["a_antisymmetric_float"] = (whole["response"] or {}).get("antisymmetric_share_float")
    figures["v_abscissa_float"] = whole["values"]["abscissa_float"]
    figures["holds"] = " ".join(t["id"] for t in whole["theorems"] if t["status"] == "HOLDS")
    figures["signs"] = _signs(run, figures)
    return figures


def _signs(run: Run, figures: dict[str, Any]) -> str | None:
    """HOLDS, FAILS or UNDECIDED: W_s ≻ 0 and the imposed number of negative eigenvalues of A_s."""
    if run.scenario == "unconstrained":
        return None
    d = run.task.d_model
    negative = round((1 - POSITIVE[run.scenario]) * d)
    wanted = {"w": (d, 0, 0), "a": (d - negative, negative, 0)}
    found = {
        name: tuple(figures[f"{name}_{key}"] for key in ("positive", "negative", "zero")) for name in wanted
    }
    if any("" in inertia for inertia in found.values()):
        return "UNDECIDED"
    return "HOLDS" if found == wanted else "FAILS"


def tables(grid: Grid, out: Path, device: str, world: World | None = None) -> dict[str, list[Row]]:
    """What a finished grid measured: `runs`, `layers`, `audit`, and `curves` for the figure."""
    found: dict[str, list[Row]] = {"runs": [], "layers": [], "audit": [], "curves": []}
    for run in grid.runs:
        folder = out / run.name
        done = result(run, folder, device, world)
        if done is None:
            raise InputError("out", f"{folder}: not finished", "a finished run", "run the command again")
        audited = json.loads((folder / AUDIT).read_bytes())
        key = {"task": run.task.name, "scenario": run.scenario, "encoding": run.encoding, "seed": run.seed}
        found["runs"].append({**key, **_run_row(run, done, audited, device)})
        found["audit"] += [{**key, **layer} for layer in audited]
        found["layers"] += [
            {**key, "step": step, "state": state, "metric": metric, "value": value}
            for step, state, metric, value in done["layers"]
        ]
        own = {"experiment": f"{run.task.name} ({grid.name})", **key}
        own |= {"scenario": "none" if run.scenario == "unconstrained" else run.scenario}
        del own["task"]
        found["curves"] += [
            {**own, "step": step, "metric": metric, "value": value} for step, metric, value in done["rows"]
        ]
    return found


def _run_row(run: Run, done: dict[str, Any], audited: list[dict[str, Any]], device: str) -> Row:
    last = {metric: value for _, metric, value in done["rows"]}
    verdicts = {layer["signs"] for layer in audited}
    signs = next((v for v in ("FAILS", "UNDECIDED", "HOLDS") if v in verdicts), "")
    return {
        "metric": run.task.metric,
        "test": last[f"test {run.task.metric}"],
        "valid": last[f"valid {run.task.metric}"],
        "train": next(value for metric, value in last.items() if metric.startswith("train")),
        "steps": done["step"],
        "seconds": round(done["seconds"], 1),
        "parameters": done["parameters"],
        "signs": signs,
        "identity": done["identity"][:16],
        "weights_sha256": done["weights_sha256"][:16],
        "device": torch.device(device).type,
        "tokendyn": done["versions"]["tokendyn"],
        "torch": done["versions"]["torch"],
    }


def write_tables(found: dict[str, list[Row]], grid: Grid, results: Path) -> list[Path]:
    """runs.csv, layers.csv, audit.csv, summary.md and config.json, and the file of the figure."""
    own = results / "training" / grid.name
    files = {own / f"{name}.csv": _csv(found[name]) for name in ("runs", "layers", "audit")}
    files[results / FIGURE / f"{grid.name}.csv"] = _csv(found["curves"])
    files[own / "summary.md"] = markdown(found["runs"], grid.name, found["layers"])
    files[own / "config.json"] = json.dumps(grid.config, indent=1) + "\n"
    return _write(files)


def write_canonical(found: dict[str, list[Row]], grid: CanonicalGrid, results: Path) -> list[Path]:
    """runs.csv, summary.md and config.json, and the file of the figure."""
    own = results / "training" / grid.name
    return _write(
        {
            own / "runs.csv": _csv(found["runs"]),
            results / CANONICAL_FIGURE / f"{grid.name}.csv": _csv(found["accuracy"]),
            own / "summary.md": canonical_markdown(found, grid),
            own / "config.json": json.dumps(grid.config) + "\n",
        }
    )


def _write(files: dict[Path, str]) -> list[Path]:
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, text.encode())
        except OSError as error:
            expected, fix = "a folder that can be written", "name another one, or make room"
            raise InputError("--results", f"{path}: {error.strerror}", expected, fix) from error
    return list(files)


def _csv(rows: list[Row]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows)
    return stream.getvalue()


@contextmanager
def lock(out: Path) -> Iterator[None]:
    """The folder, made if need be, for this process alone. InputError if it cannot be had."""
    import fcntl

    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        expected, fix = "a folder that can be written", "name another one"
        raise InputError("--out", f"{out}: {error.strerror}", expected, fix) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            expected = "a folder that no other training is writing to"
            raise InputError("--out", f"{out}: in use", expected, "wait for it, or stop it") from error
        yield
    finally:
        os.close(handle)


class Told:
    """A bar with the time left on a terminal, elsewhere a line for each run, and now and then within one."""

    def __init__(self, grid: Grid | CanonicalGrid, console: Console) -> None:
        self.console, self.grid, self.runs, self.steps, self.finished = console, grid, 0, 0, 0
        columns = (TextColumn("steps"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self.task = self.bar.add_task("", total=grid.steps)
        self.began = self.printed = time.monotonic()

    def advance(self, steps: int) -> None:
        self._count(self.steps + steps)
        if not self.console.is_terminal and time.monotonic() - self.printed > QUIET_SECONDS:
            self._say(f"{self.steps:,} of {self.grid.steps:,} steps")

    def report(self, run: Run, done: dict[str, Any]) -> None:
        value = next(v for _, metric, v in done["rows"] if metric.startswith("test"))
        text = f"{run.name}: test {value:.3f} {run.task.metric}"
        self._finished(1, run.task.steps, text, done["seconds"])

    def report_group(self, group: Group, done: dict[str, Any]) -> None:
        runs = len(group.frequencies)
        text = f"{group.name}: {runs} sets of frequencies"
        self._finished(runs, runs * group.problem.steps, text, done["seconds"])

    def _finished(self, runs: int, steps: int, text: str, seconds: float) -> None:
        self.runs += runs
        self.finished += steps
        self._count(max(self.steps, self.finished))
        total = self.grid.count
        self._say(f"[{self.runs:{len(str(total))}}/{total}] {text}, {seconds:.0f} s")

    def _count(self, steps: int) -> None:
        self.steps = steps
        self.bar.update(self.task, completed=steps)

    def _say(self, text: str) -> None:
        self.printed = time.monotonic()
        left = (self.printed - self.began) * (self.grid.steps - self.steps) / max(1, self.steps)
        self.console.print(f"{text}; about {duration(left)} left", markup=False)


def _world(device: str) -> tuple[World, str]:
    """This process's place among those of torchrun, and its device."""
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        return World(), device
    on_cuda = torch.device(device).type == "cuda"
    if on_cuda:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_cuda else "gloo")
    return World(dist.get_rank(), size), device


def _require_device(device: str) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError("--device", f"{device} ({reason})", "a device of this machine", "use cpu") from error


@click.command(epilog="Exit codes: 0 done, 2 bad usage or input, 3 data could not be fetched.")
@click.argument("config", metavar="CONFIG")
@click.option("--out", metavar="FOLDER", help="Where the runs go: training/NAME. A rerun completes it.")
@click.option("--results", default="results", show_default=True, metavar="FOLDER", help="Where tables go.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes on a CPU; by default one for each core.")
@click.option("--device", help="Torch device; by default cuda if there is one.")
@click.option("--dry-run", is_flag=True, help="Only say what it would take.")
@click.option("--yes", is_flag=True, help="Start it even if it takes more than two hours.")
@click.option("--figure/--no-figure", default=True, help="Draw the figure of all tables in results/.")
def train(
    config: str,
    out: str | None,
    results: str,
    jobs: int | None,
    device: str | None,
    dry_run: bool,
    yes: bool,
    figure: bool,
) -> None:
    """Train small models, with and without the refinements, or on canonical tasks, and compare them.

    CONFIG is tiny, small, paper, canonical, or a TOML file (docs/training.md). Every scenario, encoding, task
    and seed is one run; of canonical tasks, every set of frequencies. It may be killed at any moment: the
    same command goes on from what is there, with the same result to the last bit. Under torchrun
    (`torchrun --nproc-per-node 2 -m tokendyn.train CONFIG`) the processes share every batch.
    """
    name, given = read_config(config)
    grid = make_canonical(name, given) if is_canonical(given) else make_grid(name, given)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    _require_device(device)
    console = Console() if Console().is_terminal else Console(width=110)
    canonical = isinstance(grid, CanonicalGrid)
    if canonical:
        _require_one_process()
        world = World()
    else:
        world, device = _world(device)
    processes = 1 if torch.device(device).type == "cuda" else world.size
    if world.size == 1 and torch.device(device).type == "cpu":
        processes = min(jobs or workers.cores(), len(grid.groups if canonical else grid.runs))
    estimated = canonical_cost(grid, device) if canonical else cost(grid, device)
    if world.rank == 0:
        print_cost(grid, estimated, device, processes, console)
    if dry_run:
        return
    require_possible(grid, estimated, device, processes, yes)
    folder, tables_in = Path(out or Path("training", grid.name)), Path(results)
    if canonical:
        _train_canonical(grid, folder, tables_in, processes, device, console)
    else:
        _train_refinements(grid, folder, tables_in, processes, device, world, console)
    if figure and world.rank == 0 and tables_in == Path("results"):  # which the figure reads
        _draw(CANONICAL_FIGURE if canonical else FIGURE, console)


def _train_canonical(
    grid: CanonicalGrid, folder: Path, results: Path, jobs: int, device: str, console: Console
) -> None:
    with lock(folder):
        with (told := Told(grid, console)).bar:
            run_groups(grid, folder, jobs=jobs, device=device, report=told.report_group)
        found = canonical_tables(grid, folder, device)
        written = write_canonical(found, grid, results)
    print_canonical(found, grid, console)
    console.print(f"written: {', '.join(map(str, written))}", markup=False)


def _train_refinements(
    grid: Grid, folder: Path, results: Path, jobs: int, device: str, world: World, console: Console
) -> None:
    if world.rank == 0:
        with lock(folder):
            _prepare(grid, world)
            with (told := Told(grid, console)).bar:
                options = {"device": device, "world": world, "report": told.report, "progress": told.advance}
                run_grid(grid, folder, jobs=jobs, **options)
            found = tables(grid, folder, device, world)
            written = write_tables(found, grid, results)
        print_summary(found["runs"], console)
        console.print(f"written: {', '.join(map(str, written))}", markup=False)
    else:
        _prepare(grid, world)
        run_grid(grid, folder, device=device, world=world)
    if world.size > 1:
        dist.destroy_process_group()


def _require_one_process() -> None:
    size = os.environ.get("WORLD_SIZE", "1")
    if int(size) > 1:
        got, expected = f"{size} processes of torchrun", "one: canonical tasks share no batch"
        raise InputError("config", got, expected, "run tokendyn train itself, with --jobs")


def _prepare(grid: Grid, world: World) -> None:
    """Have all data here before any run starts; the first process fetches them."""
    if world.rank == 0:
        for task in {run.task.name: run.task for run in grid.runs}.values():
            load(task)
    if world.size > 1:
        dist.barrier()


def _draw(figure: str, console: Console) -> None:
    found = list(entry_points(group="tokendyn.commands", name="figures"))
    if not found:
        console.print("the figures are not installed")
        return
    found[0].load().main([figure], standalone_mode=False)


if __name__ == "__main__":
    from tokendyn.cli import Commands

    Commands(commands={"train": train})(["train", *sys.argv[1:]])
