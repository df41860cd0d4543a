"""The canonical tasks of arXiv 2511.11579: what a configuration means, and the examples of each task.

A context of n tokens at positions 1 … n, and a question behind it at position n + 1:

index              tokens are random symbols; the question names a position; the answer is its symbol
retrieval          tokens are (symbol, attribute), all symbols different; the question names a symbol; the
                   answer is its attribute
partial induction  the symbol in question occurs exactly twice, with different attributes; the answer is the
                   attribute of the last one

The position of the answer is drawn uniformly, and with it everything else (docs/training.md).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import comb
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from numerics.checks import check_choice
from numerics.errors import InputError
from numerics.sweep_plan import Knob, check_keys
from numerics.training.config import count, read_config, seeds_of
from numerics.training.data import step_seed

TASKS = ("index", "retrieval", "partial induction")
SETTINGS = {
    "positions": count(12, 2),
    "symbols": count(24, 2),
    "attributes": count(8, 2),
    "d_model": count(32),
    "bound": Knob(50.0, lambda value: 0 < value < 1e6, "a positive number"),
    "batch": count(64),
    "steps": count(1000),
    "warmup": count(50, 0),
    "learning_rate": Knob(1e-2, lambda value: 0 < value < 1, "a number between 0 and 1"),
    "evaluate": count(500),
}
"""The entries of a task besides its frequencies."""
FREQUENCY = Knob(0.0, lambda value: 0 <= value <= 4, "a number from 0 to 4, radians per position")
MOST_PAIRS = 16


@dataclass(frozen=True)
class Problem:
    """A task and the model trained on it; the fields are the entries of [tasks.NAME].

    `bound` is the largest modulus of a logit: queries and keys are shortened to norm √bound. `evaluate` is
    the number of test examples for each position.
    """

    name: str
    positions: int
    symbols: int
    attributes: int
    d_model: int
    bound: float
    batch: int
    steps: int
    warmup: int
    learning_rate: float
    evaluate: int

    @property
    def asked(self) -> range:
        """The positions that can hold the answer, from 1."""
        return range(2 if self.name == "partial induction" else 1, self.positions + 1)

    @property
    def questions(self) -> int:
        return self.positions if self.name == "index" else self.symbols

    @property
    def answers(self) -> int:
        return self.symbols if self.name == "index" else self.attributes


Frequencies = tuple[float, ...]
"""Radians per position by which a head turns its pairs, in ascending order; equal ones are allowed."""


def frequencies_name(frequencies: Frequencies) -> str:
    """
    >>> frequencies_name((0.0, 0.05))
    '0+0.05'
    """
    return "+".join(f"{frequency:g}" for frequency in frequencies)


@dataclass(frozen=True)
class Group:
    """Runs trained at once: one for each of the sets of frequencies, all of one length, with one seed."""

    problem: Problem
    frequencies: tuple[Frequencies, ...]
    seed: int

    @property
    def pairs(self) -> int:
        """Turned pairs of each head, half of its size."""
        return len(self.frequencies[0])

    @property
    def name(self) -> str:
        """Also the name of its folder."""
        return f"{self.problem.name.replace(' ', '-')}-{self.pairs}-{self.seed}"

    @property
    def config(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class CanonicalGrid:
    """Every task × set of frequencies × seed. `config` has all defaults filled in."""

    name: str
    groups: tuple[Group, ...]
    config: dict[str, Any]

    @property
    def count(self) -> int:
        """Of runs."""
        return sum(len(group.frequencies) for group in self.groups)

    @property
    def steps(self) -> int:
        """Of the optimizer, in all runs together."""
        return sum(len(group.frequencies) * group.problem.steps for group in self.groups)


def is_canonical(given: Mapping[str, Any]) -> bool:
    """Whether this configuration, as TOML gives it, is of canonical tasks."""
    tasks = given.get("tasks")
    return isinstance(tasks, Mapping) and any(
        name in TASKS or (isinstance(table, Mapping) and "frequencies" in table)
        for name, table in tasks.items()
    )


def read_canonical(name_or_path: str) -> CanonicalGrid:
    """The grid of `canonical`, or of a TOML file. InputError if it cannot be used."""
    return make_canonical(*read_config(name_or_path))


def make_canonical(name: str, given: Mapping[str, Any]) -> CanonicalGrid:
    """The grid for a configuration as TOML gives it. InputError for an entry that cannot be used."""
    check_keys("config", given, ("seeds", "tasks"))
    seeds = seeds_of(given)
    tables = given.get("tasks")
    if not isinstance(tables, Mapping) or not tables:
        raise InputError("tasks", repr(tables), "a table for each task", "write [tasks.index]")
    groups, filled = [], {}
    for task, table in tables.items():
        check_choice("tasks", task, TASKS)
        problem, sets = _problem(task, table)
        settings = {key: value for key, value in asdict(problem).items() if key != "name"}
        filled[task] = {**settings, "frequencies": [list(chosen) for chosen in sets]}
        for pairs in sorted(set(map(len, sets))):
            same = tuple(chosen for chosen in sets if len(chosen) == pairs)
            groups += [Group(problem, same, seed) for seed in seeds]
    return CanonicalGrid(name, tuple(groups), {"seeds": seeds, "tasks": filled})


def _problem(name: str, table: object) -> tuple[Problem, list[Frequencies]]:
    where = f"tasks.{name}"
    if not isinstance(table, Mapping):
        raise InputError(where, repr(table), "a table of settings", f"write [{where}]")
    check_keys(where, table, ("frequencies", *SETTINGS))
    sets = _frequencies(f"{where}.frequencies", table.get("frequencies"))
    found = {
        key: knob.check(f"{where}.{key}", table.get(key, knob.default)) for key, knob in SETTINGS.items()
    }
    if name == "retrieval" and found["symbols"] < found["positions"]:
        expected = f"at least the {found['positions']} positions, whose symbols all differ"
        raise InputError(f"{where}.symbols", found["symbols"], expected, "take more symbols")
    return Problem(name, **found), sets


def _frequencies(where: str, given: object) -> list[Frequencies]:
    if not isinstance(given, list) or not given:
        fix = "e.g. [0, 0.1, [0, 0.1]]"
        raise InputError(where, repr(given), "a list of frequencies, or of lists of them", fix)
    sets = []
    for entry in given:
        chosen = entry if isinstance(entry, list) else [entry]
        if not 1 <= len(chosen) <= MOST_PAIRS:
            raise InputError(where, repr(entry), f"1 to {MOST_PAIRS} frequencies in a set", "shorten it")
        sets.append(tuple(sorted(FREQUENCY.check(where, number) + 0.0 for number in chosen)))  # -0 is 0
    names = [frequencies_name(chosen) for chosen in sets]
    if len(set(names)) < len(names):
        got = next(name for name in names if names.count(name) > 1)
        raise InputError(where, f"{got} more than once", "different sets", "drop the repeated ones")
    return sets


@dataclass(frozen=True, eq=False)
class Examples:
    """Contexts with their questions and answers.

    `tokens` (count, n, symbols + attributes) has a 1 for the symbol and one for the attribute, if there is
    one; `question` and `answer` are (count,) and numbered from 0.
    """

    tokens: Float[Tensor, "count n inputs"]
    question: Int[Tensor, " count"]
    answer: Int[Tensor, " count"]


def draw(problem: Problem, seed: int) -> Examples:
    """The examples of one step, the answers' positions drawn uniformly from `problem.asked`."""
    generator = torch.Generator().manual_seed(seed)
    asked = problem.asked
    positions = torch.randint(asked.start, asked.stop, (problem.batch,), generator=generator)
    return examples(problem, positions, generator)


def held_out(problem: Problem, position: int) -> Examples:
    """`problem.evaluate` examples with the answer at this position, the same for all runs."""
    generator = torch.Generator().manual_seed(step_seed(-1, position))
    return examples(problem, torch.full((problem.evaluate,), position), generator)


def examples(problem: Problem, positions: Int[Tensor, " count"], generator: torch.Generator) -> Examples:
    """One example for each of these positions (from 1) of the answer."""
    at, shape = (positions - 1)[:, None], (len(positions), problem.positions)
    if problem.name == "index":
        symbols = torch.randint(problem.symbols, shape, generator=generator)
        return Examples(_one_hot(symbols, problem.symbols), at[:, 0], symbols.gather(1, at)[:, 0])
    attributes = torch.randint(problem.attributes, shape, generator=generator)
    if problem.name == "retrieval":
        order = torch.rand(len(positions), problem.symbols, generator=generator).argsort(1)
        symbols = order[:, : problem.positions]
        question = symbols.gather(1, at)
    else:
        question = torch.randint(problem.symbols, at.shape, generator=generator)
        others = torch.randint(problem.symbols - 1, shape, generator=generator)
        symbols = others + (others >= question)
        earlier = (torch.rand(at.shape, generator=generator) * at).long()
        symbols.scatter_(1, at, question).scatter_(1, earlier, question)
        shift = torch.randint(1, problem.attributes, at.shape, generator=generator)
        attributes.scatter_(1, earlier, (attributes.gather(1, at) + shift) % problem.attributes)
    tokens = torch.cat([_one_hot(symbols, problem.symbols), _one_hot(attributes, problem.attributes)], dim=-1)
    return Examples(tokens, question[:, 0], attributes.gather(1, at)[:, 0])


def _one_hot(numbers: Tensor, count: int) -> Tensor:
    return torch.nn.functional.one_hot(numbers, count).float()


def symbolic_ceiling(problem: Problem) -> Fraction:
    """The largest accuracy, expected over the examples, of any model whose head does not see positions.

    Its answer is the same for every order of the context. In index all orders are equally likely, and the
    best guess is the most frequent symbol: E max count / n. In partial induction the two tokens of the
    symbol in question may be swapped: 1/2. In retrieval there is no such bound: 1.
    """
    if problem.name == "retrieval":
        return Fraction(1)
    if problem.name == "partial induction":
        return Fraction(1, 2)
    n, symbols = problem.positions, problem.symbols
    below = [_contexts(n, symbols, most) for most in range(n)]  # whose counts are all at most 0, 1, …
    total = symbols**n
    return Fraction(sum(total - contexts for contexts in below), n * total)


def _contexts(n: int, symbols: int, most: int) -> int:
    """How many words of n symbols have none more than `most` times."""
    ways = [1, *[0] * n]  # of the words of each length over the symbols so far
    for _ in range(symbols):
        ways = [
            sum(ways[length - k] * comb(length, k) for k in range(min(most, length) + 1))
            for length in range(n + 1)
        ]
    return ways[n]
