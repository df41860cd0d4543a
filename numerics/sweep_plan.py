"""What a sweep computes: a checked configuration, cut into chunks of systems of one shape (docs/sweep.md)."""

import itertools
import math
import tomllib
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from numerics.checks import check_choice
from numerics.errors import InputError

ENCODINGS = ("none", "absolute", "rotary", "alibi")
METHODS = ("dormand-prince", "auto")
MOST_SYSTEMS = 10**9
MOST_CHUNKS = 10**6
MOST_SHAPES = 10_000
SEEDS = 2**32
"""PyTorch's CPU generator uses the lower 32 bits of a seed."""


@dataclass(frozen=True)
class Knob:
    """One coordinate of the design: its default, and which values it may take."""

    default: int | float | bool | str
    valid: Callable[[Any], bool]
    expected: str

    def check(self, argument: str, value: Any) -> Any:
        """The value in the default's type. InputError if it has none such, or one that is not valid."""
        kind = type(self.default)
        if type(value) not in ((int, float) if kind is float else (kind,)) or not self.valid(value):
            got = "nothing: it is missing" if value is None else repr(value)
            raise InputError(argument, got, self.expected, f"e.g. {self.default!r}")
        return kind(value)


def _count(default: int) -> Knob:
    return Knob(default, lambda value: value >= 1, "a whole number ≥ 1")


def _positive(default: float) -> Knob:
    return Knob(default, lambda value: 0 < value < math.inf, "a positive number")


_SHARE = Knob(1.0, lambda value: 0 <= value <= 1, "a number from 0 to 1")
_SKEW = Knob(0.0, lambda value: 0 <= value < 1, "a number in [0, 1)")
_SWITCH = Knob(False, lambda value: True, "true or false")

SHAPE = {
    "n": _count(8),
    "d": _count(4),
    "heads": _count(1),
    "causal": _SWITCH,
    "encoding": Knob("none", lambda value: value in ENCODINGS, "one of " + ", ".join(ENCODINGS)),
    "sphere": _SWITCH,
}
"""What systems of one batch share."""

NUMBERS = {
    "score_positive": _SHARE,
    "response_positive": _SHARE,
    "score_smallest": _positive(0.5),
    "score_largest": _positive(2.0),
    "response_smallest": _positive(0.5),
    "response_largest": _positive(2.0),
    "score_antisymmetric": _SKEW,
    "response_antisymmetric": _SKEW,
    "scale": Knob(1.0, lambda value: 0 <= value < math.inf, "a number ≥ 0"),
    "position_scale": Knob(1.0, lambda value: 0 <= value < math.inf, "a number ≥ 0"),
    "rotary_base": _positive(10000.0),
    "alibi_slope": Knob(0.5, math.isfinite, "a finite number"),
}
"""What may differ from system to system."""

NEEDS = {"position_scale": "absolute", "rotary_base": "rotary", "alibi_slope": "alibi"}
"""The encoding without which a knob has no effect; it is then absent (NaN in the table)."""

RUN = {
    "until": Knob(10.0, lambda value: 0 < value < math.inf, "a positive time"),
    "rtol": Knob(1e-8, lambda value: 2.3e-16 <= value < 1, "machine epsilon 2.3e-16 ≤ rtol < 1"),
    "atol": _positive(1e-10),
    "escape": Knob(1e100, lambda value: value > 0, "a positive threshold, or inf"),
    "max_steps": _count(100_000),
    "method": Knob("dormand-prince", lambda value: value in METHODS, "one of " + ", ".join(METHODS)),
    "chunk": _count(8192),
}


SEED = Knob(0, lambda value: 0 <= value < SEEDS, "a whole number from 0 to 4294967295")
AMOUNT = {"grid": "replicas", "random": "systems"}
"""The entry that says how many systems: per combination, or in all."""


@dataclass(frozen=True)
class Range:
    """Numbers drawn uniformly between low and high, or log-uniformly."""

    low: float
    high: float
    log: bool = False


Values = tuple | Range


@dataclass(frozen=True)
class Shape:
    """What the systems of one batch share."""

    n: int
    d: int
    heads: int
    causal: bool
    encoding: str
    sphere: bool


@dataclass(frozen=True)
class Group:
    """All systems of one shape: the values of their numbers, and how many there are."""

    shape: Shape
    values: dict[str, Values]
    systems: int


@dataclass(frozen=True)
class Run:
    """How every system is integrated, and how many at a time."""

    until: float
    rtol: float
    atol: float
    escape: float
    max_steps: int
    method: str
    chunk: int


@dataclass(frozen=True)
class Chunk:
    """`size` systems of a group from its `start`-th on; `first` is the number of the first in the sweep."""

    number: int
    group: Group
    start: int
    size: int
    first: int
    seed: int


@dataclass(frozen=True)
class Plan:
    """A sweep. `config` is the checked configuration with every default filled in, as plain data.

    `replicas` is the number of systems per combination of a grid, 0 for a random design.
    """

    config: dict[str, Any]
    seed: int
    run: Run
    groups: tuple[Group, ...]
    replicas: int

    @property
    def systems(self) -> int:
        return self._systems[-1]

    @property
    def chunks(self) -> int:
        return self._chunks[-1]

    @cached_property
    def _systems(self) -> list[int]:
        """The number of systems before each group, and of all."""
        return list(itertools.accumulate((g.systems for g in self.groups), initial=0))

    @cached_property
    def _chunks(self) -> list[int]:
        """The number of chunks before each group, and of all."""
        sizes = (math.ceil(g.systems / self.run.chunk) for g in self.groups)
        return list(itertools.accumulate(sizes, initial=0))

    def chunk(self, number: int) -> Chunk:
        """The chunk with this number. InputError if there is none."""
        if type(number) is not int or not 0 <= number < self.chunks:
            expected = f"a whole number from 0 to {self.chunks - 1}"
            raise InputError("chunk", number, expected, "see `tokendyn sweep FOLDER --summary`")
        index = bisect_right(self._chunks, number) - 1
        group = self.groups[index]
        start = (number - self._chunks[index]) * self.run.chunk
        size = min(self.run.chunk, group.systems - start)
        return Chunk(number, group, start, size, self._systems[index] + start, self._chunk_seed(number))

    def first_chunk(self, group: int) -> int:
        """The number of the first chunk of a group; one past the last group, the number of chunks."""
        return self._chunks[group]

    def _chunk_seed(self, number: int) -> int:
        """Different for all chunks of a sweep, as long as there are fewer than 2³²."""
        start = torch.randint(SEEDS, (), generator=torch.Generator().manual_seed(self.seed)).item()
        return (int(start) + number) % SEEDS


def read_plan(path: str | Path) -> Plan:
    """The plan in a TOML file. Raises InputError for a file or an entry that cannot be used."""
    fix = "see docs/sweep.md for a full example"
    try:
        config = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("config", f"{path}: {error.strerror}", "a TOML file", fix) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError("config", f"{path}: {error}", "a TOML file", fix) from error
    return make_plan(config)


def make_plan(config: Mapping[str, Any]) -> Plan:
    """The plan for a configuration as TOML gives it. Raises InputError for an entry that cannot be used.

    ``make_plan(plan.config)`` is the plan again.
    """
    check_keys("config", config, ("seed", "run", "grid", "random"))
    kinds = [kind for kind in ("grid", "random") if kind in config]
    if len(kinds) != 1:
        got = " and ".join(kinds) or "no design"
        raise InputError("config", got, "one of [grid] and [random]", "keep one")
    kind = kinds[0]
    for section in ("run", kind):
        if not isinstance(config.get(section, {}), Mapping):
            raise InputError(section, repr(config[section]), "a table of settings", f"write [{section}]")
    seed = SEED.check("seed", config.get("seed", 0))
    run = _run(config.get("run", {}))
    design, amount = config[kind], AMOUNT[kind]
    check_keys(kind, design, (*SHAPE, *NUMBERS, amount))
    number = _count(1).check(f"{kind}.{amount}", design.get(amount, 1 if kind == "grid" else None))
    shapes = {
        name: _choices(f"{kind}.{name}", design.get(name, knob.default), knob) for name, knob in SHAPE.items()
    }
    numbers = _numbers(kind, design, shapes["encoding"])
    groups = _groups(kind, shapes, numbers, number)
    settings = {
        **asdict(run),
        "escape": None if math.isinf(run.escape) else run.escape,
    }  # JSON has no infinity
    filled = {"seed": seed, "run": settings, kind: {amount: number, **_plain({**shapes, **numbers})}}
    plan = Plan(filled, seed, run, groups, number if kind == "grid" else 0)
    if plan.systems > MOST_SYSTEMS:
        raise InputError(
            kind, f"{plan.systems:.3g} systems", f"at most {MOST_SYSTEMS:.0e}", "shorten the lists"
        )
    if plan.chunks > MOST_CHUNKS:
        got = f"{run.chunk}: {plan.chunks:,} chunks"
        raise InputError("run.chunk", got, f"at most {MOST_CHUNKS:,} chunks", "raise run.chunk")
    return plan


def check_keys(argument: str, given: Mapping, known: tuple[str, ...]) -> None:
    """InputError for a key that is not known; says which one was probably meant."""
    for key in given:
        check_choice(argument, key, known)


def _run(given: Mapping[str, Any]) -> Run:
    check_keys("run", given, tuple(RUN))
    if given.get("escape", 0) is None:  # as Plan.config has it
        given = {**given, "escape": math.inf}
    return Run(
        **{name: knob.check(f"run.{name}", given.get(name, knob.default)) for name, knob in RUN.items()}
    )


def _choices(argument: str, given: object, knob: Knob) -> tuple:
    if isinstance(given, Mapping):
        fix = "ranges are for the real numbers in [random]"
        raise InputError(argument, "a range", "a value or a list of values", fix)
    values = tuple(given) if isinstance(given, list) else (given,)
    if not values:
        raise InputError(argument, "an empty list", "at least one value", "leave it out for the default")
    checked = tuple(knob.check(argument, value) for value in values)
    if len(set(checked)) < len(checked):
        raise InputError(argument, given, "different values", "drop the repeated ones")
    return checked


def _numbers(kind: str, design: Mapping[str, Any], encodings: tuple[str, ...]) -> dict[str, Values]:
    """The values of the numbers that some encoding has a use for, defaults filled in."""
    for name, encoding in NEEDS.items():
        if name in design and encoding not in encodings:
            got, expected = f"a value without the encoding {encoding!r}", f"it only with {encoding!r}"
            raise InputError(f"{kind}.{name}", got, expected, f"add {encoding!r} to encoding, or drop {name}")
    numbers: dict[str, Values] = {}
    for name, knob in NUMBERS.items():
        if NEEDS.get(name) in (None, *encodings):
            given = design.get(name, knob.default)
            make = _range if kind == "random" and isinstance(given, Mapping) else _choices
            numbers[name] = make(f"{kind}.{name}", given, knob)
    for matrix in ("score", "response"):
        smallest, largest = _ends(numbers[f"{matrix}_smallest"])[1], _ends(numbers[f"{matrix}_largest"])[0]
        if smallest > largest:
            expected = f"at most {matrix}_largest, in every combination"
            fix = f"the |eigenvalues| of {matrix}'s symmetric part lie between the two"
            raise InputError(f"{kind}.{matrix}_smallest", f"{smallest:g} > {largest:g}", expected, fix)
    return numbers


def _range(argument: str, given: Mapping[str, Any], knob: Knob) -> Range:
    check_keys(argument, given, ("low", "high", "log"))
    low, high = (knob.check(f"{argument}.{end}", given.get(end)) for end in ("low", "high"))
    log = _SWITCH.check(f"{argument}.log", given.get("log", False))
    if not low < high or (log and low <= 0):
        expected = "low < high" + (", and low > 0 on a logarithmic scale" if log else "")
        raise InputError(argument, f"low = {low:g}, high = {high:g}", expected, "exchange or change them")
    return Range(low, high, log)


def _ends(values: Values) -> tuple[float, float]:
    return (values.low, values.high) if isinstance(values, Range) else (min(values), max(values))


def _groups(
    kind: str, shapes: Mapping[str, tuple], numbers: Mapping[str, Values], number: int
) -> tuple[Group, ...]:
    """One group per shape. A random design spreads its systems evenly over them."""
    count = math.prod(map(len, shapes.values()))
    if count > MOST_SHAPES:
        raise InputError(
            kind, f"{count} shapes", f"at most {MOST_SHAPES}", "shorten the lists of n, d, heads …"
        )
    groups = []
    for index, entries in enumerate(itertools.product(*shapes.values())):
        shape = Shape(*entries)
        values = {name: v for name, v in numbers.items() if NEEDS.get(name) in (None, shape.encoding)}
        _check_shape(kind, shape, values)
        if kind == "grid":
            systems = number * math.prod(len(v) for v in values.values() if not isinstance(v, Range))
        else:
            systems = number // count + (index < number % count)
        if systems:
            groups.append(Group(shape, values, systems))
    return tuple(groups)


def _check_shape(kind: str, shape: Shape, values: Mapping[str, Values]) -> None:
    if shape.encoding == "rotary" and shape.d % 2:
        fix = "each frequency turns two coordinates"
        raise InputError(f"{kind}.d", shape.d, "an even d with rotary encoding", fix)
    if shape.sphere and _ends(values["scale"])[0] == 0:
        fix = "with sphere only the directions of the tokens count: leave scale out"
        raise InputError(f"{kind}.scale", 0, "scales > 0 with sphere", fix)
    for name in ("score_antisymmetric", "response_antisymmetric"):
        if shape.d == 1 and _ends(values[name])[1] > 0:
            raise InputError(f"{kind}.{name}", _ends(values[name])[1], "0 when d = 1", "use d ≥ 2")


def _plain(values: Mapping[str, Values]) -> dict[str, Any]:
    return {name: asdict(v) if isinstance(v, Range) else list(v) for name, v in values.items()}
