"""The two halves compute the same numbers: 1,000 random systems, every claim of every statement.

Tolerance 1e-12: the floating-point half loses a few units of 2e-16 per operation, times condition numbers
that the random families keep below about 100. It is relative to the largest number of the claim, or of the
scores that it is computed from, because sides such as an energy rate are differences of such numbers.
"""

import pytest
import torch
from torch import Generator

from numerics import observables
from theory.evaluate import Values
from theory.registry import statements
from theory.theorem import sides
from tokendyn.registry import entries
from tokendyn.sampling import sample

TOLERANCE = 1e-12
SIZES = ((1, 1), (2, 2), (3, 1), (3, 3), (4, 2))
SYSTEMS = -(-1000 // len(statements()))  # per statement, so 1,000 in all


def _batches(theorem, row):
    for index, (n, d) in enumerate(SIZES):
        generator = Generator().manual_seed(index)
        yield sample(row.family, theorem.keys, -(-SYSTEMS // len(SIZES)), n, d, generator)


def _close(measured: list[float], exact: list[float], size: float) -> bool:
    return all(abs(p - q) <= TOLERANCE * size for p, q in zip(measured, exact, strict=True))


@pytest.mark.parametrize(("theorem", "row"), entries(), ids=lambda entry: getattr(entry, "id", None))
def test_both_sides_of_every_claim(theorem, row):
    for moment in _batches(theorem, row):
        scores = moment.system.scores(moment.x).flatten(1).abs().amax(1)
        for claim in theorem.claims:
            measured = [side.expand(len(moment.x), -1) for side in row.sides[claim.name](moment)]
            for at in range(len(moment.x)):
                exact = sides(claim, moment.exactly(at))
                for which, values in enumerate(measured):
                    expected = [float(item[which].mid()) for item in exact]
                    size = max(
                        [1e-3, scores[at].item(), *(abs(float(q.mid())) for item in exact for q in item)]
                    )
                    assert _close(values[at].tolist(), expected, size), (claim.name, at)


@pytest.mark.parametrize(("theorem", "row"), entries(), ids=lambda entry: getattr(entry, "id", None))
def test_velocities_and_energies(theorem, row):
    for moment in _batches(theorem, row):
        energies = observables.token_energy(moment.x, moment.system.score)
        for at in range(len(moment.x)):
            values = Values.at(moment.exactly(at))
            e = values.system
            exact = [float(values.enclose(symbol).mid()) for symbol in e.v]
            assert _close(moment.velocity[at].flatten().tolist(), exact, max(1e-3, *map(abs, exact)))
            self_scores = [float(values.enclose(e.s[i, i] / 2).mid()) for i in range(e.n)]
            assert _close(energies[at].tolist(), self_scores, max(1e-3, moment.x[at].square().sum().item()))


def test_a_planted_difference_is_noticed():
    """The comparison itself can fail: one relative error of 1e-11 is too much."""
    assert not _close([1 + 1e-11], [1.0], 1.0)
    assert _close([1 + 1e-13], [1.0], 1.0)
    assert not _close([torch.nan], [1.0], 1.0)
