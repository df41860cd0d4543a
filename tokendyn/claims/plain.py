"""The first stage of the search: Hypothesis draws plain systems, climbs, and shrinks what it finds."""

import random
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, Verbosity, find, settings, target
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from torch import Tensor

from tokendyn.claims.confirm import confirmed
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import Judge, Suspect, Tally, least, sizes

LARGEST = 4
OVER = (1, 2, 4, 10)
"""Denominators, one for all numbers of a row."""
STARTS = ("as drawn", "all equal", "mirrored", "one zero")
EXAMPLES = 100_000


class _TimeIsUp(BaseException):
    """Which Hypothesis lets through, in the middle of its work."""


@st.composite
def plain_rows(draw: st.DrawFn, genomes: list[Genome]) -> tuple[Genome, Tensor]:
    """A genome, small ones first, and a raw row of small whole numbers or simple fractions."""
    genome = draw(st.sampled_from(genomes))
    whole = st.integers(-LARGEST, LARGEST)
    numbers = draw(st.lists(whole, min_size=genome.size, max_size=genome.size))
    raw = torch.tensor(numbers, dtype=torch.float64) / draw(st.sampled_from(OVER))
    x = raw[genome.parts["x"].place].view(genome.n, genome.d)
    match draw(st.sampled_from(STARTS)):
        case "all equal":
            x[:] = x[0].clone()
        case "mirrored" if genome.n > 1:
            x[1] = -x[0]
        case "one zero":
            x[-1] = 0
    return genome, raw


def plain(judge: Judge, seconds: float, seed: int, tally: Tally) -> Iterator[Suspect]:
    """The simplest suspect found within about so many seconds, if any. A seed draws the same rows again."""
    genomes = [Genome(judge.claim, n, d) for n, d in sizes(judge.claim)]
    deadline = time.monotonic() + seconds

    simplest: list[Suspect] = []

    def violates(row: tuple[Genome, Tensor]) -> bool:
        if time.monotonic() > deadline:
            raise _TimeIsUp
        genome, raw = row
        tally.drawn += 1
        margin = judge.feasible(genome, raw[None])[0].item()
        if not margin >= 0:
            target(max(margin, -1e6), label="feasibility")
            return False
        suspect = judge.suspect(genome, raw.tolist())
        tally.add(genome, raw[None], torch.tensor([suspect.score]))
        target(max(suspect.score, -1e6), label="violation")
        if suspect.score > max(least(judge.claim), 0) and confirmed(judge, suspect):
            simplest[:] = [suspect]
            return True
        return False

    options: dict[str, Any] = {
        "max_examples": EXAMPLES,
        "database": None,
        "deadline": None,
        "verbosity": Verbosity.quiet,
        "suppress_health_check": list(HealthCheck),
        "phases": (Phase.generate, Phase.target, Phase.shrink),
    }
    with suppress(NoSuchExample, _TimeIsUp):
        find(plain_rows(genomes), violates, settings=settings(**options), random=random.Random(seed))
    yield from simplest
