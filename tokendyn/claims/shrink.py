"""Making a counterexample small: fewer tokens and dimensions, zeros and round numbers, still a violation."""

import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from tokendyn.claims.confirm import confirmed
from tokendyn.claims.genome import Genome, Part
from tokendyn.claims.hunt import Judge, Suspect

GRIDS = (1, 2, 4, 10, 20, 100, 1000, 10**6)
"""Denominators, coarse ones first."""


def shrunk(judge: Judge, suspect: Suspect, deadline: float) -> Suspect:
    """The simplest suspect found by dropping and rounding, confirmed at every turn, until the deadline."""
    for step in (_fewer, _rounded, _simpler, _fewer, _simpler):
        if time.monotonic() < deadline:
            suspect = step(judge, suspect, deadline)
    return suspect


def fractions(raw: Tensor) -> tuple[Fraction, ...]:
    """The rationals that a shrunk row stands for."""
    return tuple(Fraction(value).limit_denominator(GRIDS[-1]) for value in raw.tolist())


def _accepted(judge: Judge, suspect: Suspect, raw: Tensor, genome: Genome | None = None) -> Suspect | None:
    """The suspect at other numbers, if they still violate."""
    genome = genome or suspect.genome
    score, when = judge.score(genome, raw[None])
    found = replace(suspect, genome=genome, raw=raw, score=score[0].item(), time=when[0].item())
    return found if confirmed(judge, found) else None


def _fewer(judge: Judge, suspect: Suspect, deadline: float) -> Suspect:
    """Without one token, or one dimension, as often as possible."""
    for cut in _cuts(suspect.genome):
        if time.monotonic() > deadline:
            break
        genome, keep = cut
        if found := _accepted(judge, suspect, suspect.raw[keep], genome):
            return _fewer(judge, found, deadline)
    return suspect


def _cuts(genome: Genome) -> list[tuple[Genome, Tensor]]:
    """Genomes with one token or dimension less, and which raw numbers they keep."""
    claim, n, d = genome.claim, genome.n, genome.d
    found = []
    if n > claim.tokens[0]:
        small = Genome(claim, n - 1, d)
        found += [(small, _kept(genome, token=k)) for k in range(n)]
    if d > claim.dimension[0] and claim.encoding != "rotary":
        small = Genome(claim, n, d - 1)
        found += [(small, _kept(genome, axis=k)) for k in range(d)]
    return [(small, keep) for small, keep in found if len(keep) == small.size]


def _kept(genome: Genome, token: int = -1, axis: int = -1) -> Tensor:
    parts = [
        part.start + torch.arange(part.size).reshape(part.shape)[_mask(part, genome.d, token, axis)].flatten()
        for part in genome.parts.values()
    ]
    return torch.cat(parts)


def _mask(part: Part, d: int, token: int, axis: int) -> Tensor:
    """Which entries of a part stay."""
    keep = torch.ones(part.shape, dtype=torch.bool)
    if part.kind == "rows":
        if token >= 0:
            keep[token] = False
            if part.name == "b":
                keep[:, token] = False
        elif part.name == "x" or part.name == "p":
            keep[:, axis] = False
    elif axis >= 0:
        match part.kind:
            case "matrix" | "squares":
                keep[axis], keep[:, axis] = False, False
            case "lower":
                r, c = torch.tril_indices(d, d)
                keep = (r != axis) & (c != axis)
            case "number":
                pass
            case _:
                keep[axis] = False
    return keep


def _rounded(judge: Judge, suspect: Suspect, deadline: float) -> Suspect:
    """On the coarsest grid of rationals that works for all numbers at once."""
    for grid in GRIDS:
        if time.monotonic() > deadline:
            break
        if found := _accepted(judge, suspect, (suspect.raw * grid).round() / grid):
            return found
    return suspect


def _simpler(judge: Judge, suspect: Suspect, deadline: float) -> Suspect:
    """Number by number: the simplest value that works."""
    for at in range(len(suspect.raw)):
        for value in _simple_values(suspect.raw[at].item()):
            if time.monotonic() > deadline:
                return suspect
            raw = suspect.raw.clone()
            raw[at] = value
            if found := _accepted(judge, suspect, raw):
                suspect = found
                break
    return suspect


def _simple_values(value: float) -> list[float]:
    """Simpler than the value: 0, ±1, then ever finer roundings."""
    rounded = [round(value * grid) / grid for grid in GRIDS]
    candidates = [0.0, 1.0 if value > 0 else -1.0, *rounded]
    size: Callable[[float], tuple[int, int]] = lambda v: _size(Fraction(v).limit_denominator(GRIDS[-1]))  # noqa: E731
    return [v for k, v in enumerate(candidates) if size(v) < size(value) and v not in candidates[:k]]


def _size(value: Fraction) -> tuple[int, int]:
    return value.denominator, abs(value.numerator)
