"""Whether a claim can be evaluated at all: every formula once, at every size, on one random system."""

import torch

from theory.errors import InputError
from tokendyn.claims.claim import Claim
from tokendyn.claims.dynamics import Systems
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import fresh, sizes
from tokendyn.claims.language import LanguageError, as_input_error


def check(claim: Claim) -> None:
    """InputError, naming the entry, for a formula that has no value of the right shape at some size (n, d).

    Weights are d × d matrices, steps and sides of comparisons numbers. What a size leaves without tokens for
    its indices is not evaluated there.
    """
    for n, d in sizes(claim):
        genome = Genome(claim, n, d)
        systems = Systems(genome, fresh(genome, 1, torch.Generator().manual_seed(0)))
        _require_weights(systems)
        _require_step(systems)
        _require_numbers(systems)


def _require_weights(systems: Systems) -> None:
    claim, d = systems.claim, systems.genome.d
    for name in claim.weight_names:
        shape = systems.algebra.shape(systems.values[name])
        if shape != (d, d):
            sizes = " × ".join(map(str, shape)) or "a number"
            raise InputError(
                f"{'define' if name in claim.define else 'matrices'}.{name}",
                got=f"{claim.define.get(name, name)} ({sizes}) at d = {d}",
                expected="a d × d matrix",
                fix="multiply a number by eye(d), or ask for one dimension (dimension = …)",
            )


def _require_step(systems: Systems) -> None:
    expression = systems.claim.step_size
    if expression is None:
        return
    try:
        h = systems.h
    except LanguageError as error:
        raise as_input_error("step", error) from error
    constant = not expression.names() - {"n", "d", "e", "pi"}
    if h is None or h.ndim != 1 or (constant and not (h > 0).all()):
        raise InputError(
            "step",
            got=expression.text,
            expected="a number > 0",
            fix='e.g. step = "1/10"; leave it out for the flow',
        )


def _require_numbers(systems: Systems) -> None:
    said, n = systems.claim.parsed, systems.genome.n
    evaluate = systems.at(systems.x0)
    sides = [("conclude", side, said.free) for side in (said.left, said.right) if side]
    sides += [
        (entry, side, one.free) for entry, one in systems.claim.sourced for side in (one.left, one.right)
    ]
    for entry, side, free in sides:
        for numbers in _extremes(len(free), n):
            try:
                value = evaluate(side, dict(zip(free, numbers, strict=True)))
            except LanguageError as error:
                raise as_input_error(entry, error) from error
            if value.rank != 0:
                raise InputError(
                    entry, got=side.text, expected="a number", fix="write its norm(…), or one entry of it"
                )


def _extremes(count: int, n: int) -> list[range]:
    """The first and the last tokens: where sums and differences of indices leave 1 … n."""
    return [range(1, count + 1), range(n, n - count, -1)] if count <= n else []
