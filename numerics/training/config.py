"""What a training grid is: a checked configuration, and its runs (docs/training.md lists the entries)."""

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from numerics.checks import check_choice
from numerics.errors import InputError
from numerics.layerwise import SCENARIOS as POSITIVE
from numerics.sweep_plan import Knob, check_keys

FOLDER = Path(__file__).parent
SIZES = ("tiny", "small", "paper")
"""The grids of refinements that come with the package."""
CONFIGS = (*SIZES, "canonical")
"""All configurations that come with the package."""

SCENARIOS = ("unconstrained", *POSITIVE)
ENCODINGS = ("absolute", "rotary", "rotary+D")
TEXT = ("enwik8", "text", "synthetic-text")
"""`text` is any file, by its path; the synthetic tasks need none, and are for tests."""
IMAGES = ("mnist", "cifar10", "synthetic-images")
ANTISYMMETRIC = ("none", "scores", "values", "both")


def count(default: int, least: int = 1) -> Knob:
    """A whole number that is at least `least`."""
    return Knob(default, lambda value: value >= least, f"a whole number ≥ {least}")


TASK = {
    "d_model": count(64),
    "heads": count(4),
    "head_size": count(16),
    "layers": count(2),
    "width": count(256),
    "context": count(64, 2),
    "patch": count(7),
    "batch": count(32),
    "steps": count(300),
    "warmup": count(30, 0),
    "learning_rate": Knob(2e-3, lambda value: 0 < value < 1, "a number between 0 and 1"),
    "weight_decay": Knob(0.01, lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "dropout": Knob(0.0, lambda value: 0 <= value < 1, "a number in [0, 1)"),
    "antisymmetric": Knob(
        "scores", lambda value: value in ANTISYMMETRIC, "one of " + ", ".join(ANTISYMMETRIC)
    ),
    "evaluate_every": count(100),
    "evaluate": count(256, 2),
    "checkpoint_every": count(100),
    "data": Knob("", lambda value: True, "a path"),
}
"""The settings of a task besides its encodings."""


@dataclass(frozen=True)
class Task:
    """One data set and the model trained on it; the fields are the entries of [tasks.NAME]."""

    name: str
    d_model: int
    heads: int
    layers: int
    width: int
    context: int
    patch: int
    batch: int
    steps: int
    warmup: int
    learning_rate: float
    weight_decay: float
    dropout: float
    antisymmetric: str
    evaluate_every: int
    evaluate: int
    checkpoint_every: int
    data: str

    @property
    def is_text(self) -> bool:
        return self.name in TEXT

    @property
    def metric(self) -> str:
        """What is reported, with its unit."""
        return "bits per byte" if self.is_text else "accuracy (%)"


@dataclass(frozen=True)
class Run:
    """One training run."""

    task: Task
    scenario: str
    encoding: str
    seed: int

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.task.name}-{self.scenario}-{self.encoding}-{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Grid:
    """Every scenario × encoding × task × seed. `config` is the configuration with all defaults filled in."""

    name: str
    runs: tuple[Run, ...]
    config: dict[str, Any]

    @property
    def count(self) -> int:
        """Of runs."""
        return len(self.runs)

    @property
    def steps(self) -> int:
        """Of the optimizer, in all runs together."""
        return sum(run.task.steps for run in self.runs)


def read_grid(name_or_path: str | Path) -> Grid:
    """One of the configurations in `SIZES`, or the TOML file at a path. InputError if it cannot be used."""
    return make_grid(*read_config(name_or_path))


def read_config(name_or_path: str | Path) -> tuple[str, dict[str, Any]]:
    """Name and content, as TOML gives it, of one of `CONFIGS` or of a file. InputError if it is not TOML."""
    known = str(name_or_path) in CONFIGS
    path = FOLDER / f"{name_or_path}.toml" if known else Path(name_or_path)
    fix = "see docs/training.md for the entries"
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        if path.suffix != ".toml" and "/" not in str(path):
            check_choice("config", str(path), CONFIGS)
        raise InputError(
            "config", f"{path}: {error.strerror}", f"one of {', '.join(CONFIGS)}, or a TOML file", fix
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("config", f"{path}: {error}", "a TOML file", fix) from error
    return path.stem, given


def make_grid(name: str, given: Mapping[str, Any]) -> Grid:
    """The grid for a configuration as TOML gives it. InputError for an entry that cannot be used."""
    check_keys("config", given, ("scenarios", "seeds", "tasks"))
    scenarios = _names("scenarios", given.get("scenarios", list(SCENARIOS)), SCENARIOS)
    seeds = seeds_of(given)
    tables = given.get("tasks")
    if not isinstance(tables, Mapping) or not tables:
        raise InputError("tasks", repr(tables), "a table for each task", "write [tasks.enwik8]")
    runs, filled = [], {}
    for task_name, table in tables.items():
        check_choice("tasks", task_name, TEXT + IMAGES)
        task, encodings = _task(task_name, table)
        settings = {key: value for key, value in asdict(task).items() if key != "name"}
        filled[task_name] = {**settings, "encodings": encodings}
        runs += [Run(task, s, e, seed) for seed in seeds for e in encodings for s in scenarios]
        if any(s != "unconstrained" for s in scenarios):
            _require_inertia(task, scenarios)
    config = {"scenarios": scenarios, "seeds": seeds, "tasks": filled}
    return Grid(name, tuple(runs), config)


def seeds_of(given: Mapping[str, Any]) -> list[int]:
    """The seeds of a configuration. InputError if they are not different whole numbers."""
    seeds = given.get("seeds", [0, 1, 2])
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) < len(seeds):
        raise InputError("seeds", repr(seeds), "a list of different whole numbers ≥ 0", "e.g. [0, 1, 2]")
    for seed in seeds:
        Knob(0, lambda value: 0 <= value < 2**31, "a whole number from 0 to 2147483647").check("seeds", seed)
    return seeds


def _names(argument: str, given: object, known: tuple[str, ...]) -> list[str]:
    if not isinstance(given, list) or not given:
        raise InputError(argument, repr(given), "a list of names", f"e.g. [{known[0]!r}]")
    for name in given:
        check_choice(argument, name, known)
    if len(set(given)) < len(given):
        raise InputError(argument, given, "different names", "drop the repeated ones")
    return list(given)


def _task(name: str, table: object) -> tuple[Task, list[str]]:
    where = f"tasks.{name}"
    if not isinstance(table, Mapping):
        raise InputError(where, repr(table), "a table of settings", f"write [{where}]")
    check_keys(where, table, ("encodings", *TASK))
    encodings = _names(f"{where}.encodings", table.get("encodings", ["absolute"]), ENCODINGS)
    found = {
        key: knob.check(f"{where}.{key}", table.get(key, knob.default))
        for key, knob in TASK.items()
        if key not in ("head_size", "width") or key in table
    }
    head_size = found.pop("head_size", None)
    d, heads = found["d_model"], found["heads"]
    rotary = [e for e in encodings if e != "absolute"]
    if d % heads or head_size not in (None, d // heads) or (rotary and d % (2 * heads)):
        size = "" if head_size is None else f" of size {head_size}"
        even = f", which is even for {rotary[0]}" if rotary else ""
        raise InputError(
            f"{where}.d_model",
            f"{d} with {heads} heads{size}",
            f"heads × head size{even}",
            f"e.g. {2 * heads * max(1, d // (2 * heads))} with {heads} heads, and leave head_size out",
        )
    if name == "text" and not found["data"]:
        raise InputError(f"{where}.data", "nothing", "the path of a file to learn from", "set data = 'FILE'")
    return Task(name=name, **{"width": 4 * d, **found}), encodings


def _require_inertia(task: Task, scenarios: list[str]) -> None:
    """Half of d eigenvalues must be a whole number of them."""
    if "hd" in scenarios and task.d_model % 2:
        raise InputError(
            f"tasks.{task.name}.d_model",
            f"{task.d_model}, of which half the eigenvalues cannot be negative",
            "an even number for the scenario hd",
            "take another d_model, or leave hd out",
        )
