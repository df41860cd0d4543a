"""The two halves compute the same numbers: 1,000 random systems, every claim of every statement.

Tolerance 1e-12: the floating-point half loses a few units of 2e-16 per operation, times condition numbers
that the random families keep below about 100. It is relative to the largest number of the claim, or of the
scores that it is computed from, because sides such as an energy rate are differences of such numbers.
"""

import pytest
import torch
from torch import Generator

from theory.evaluate import Values
from theory.registry import statements
from theory.system import PARAMETERS, Setting
from theory.theorem import sides
from tokendyn.moment import Moment
from tokendyn.registry import entries
from tokendyn.sampling import sample

TOLERANCE = 1e-12
SIZES = ((1, 1), (2, 2), (3, 1), (3, 3), (4, 2))
SYSTEMS = -(-1000 // len(statements()))  # per statement, so 1,000 in all


def _batches(theorem, row):
    for index, (n, d) in enumerate(SIZES):
        generator = Generator().manual_seed(index)
        yield sample(row.family, theorem.keys, theorem.setting, -(-SYSTEMS // len(SIZES)), n, d, generator)


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
def test_velocities_and_scores(theorem, row):
    for moment in _batches(theorem, row):
        scores = moment.system.scores(moment.x)
        first_head = scores if scores.ndim == 3 else scores[:, 0]
        for at in range(len(moment.x)):
            values = Values.at(moment.exactly(at))
            for measured, symbols in (
                (moment.velocity[at], values.system.v),
                (first_head[at], values.system.s),
            ):
                exact = [float(values.enclose(symbol).mid()) for symbol in symbols]
                assert _close(measured.flatten().tolist(), exact, max(1e-3, *map(abs, exact)))


VARIANTS = (
    Setting(causal=True),
    Setting(heads=2, causal=True),
    Setting(positions="scores"),
    Setting(positions="scores and values", bias=True),
    Setting(heads=2, positions="scores", bias=True),
    Setting(rotary=True),
    Setting(rotary=True, rotated_values=True, causal=True),
    Setting(rotary=True, positions="scores", bias=True),
    Setting(rotary=True, rotated_values=True, positions="scores and values"),
    Setting(sphere=True),
    Setting(sphere=True, heads=2, causal=True, bias=True, positions="scores and values"),
)


@pytest.mark.parametrize("setting", VARIANTS, ids=Setting.describe)
def test_every_variant_of_the_velocity(setting):
    generator = Generator().manual_seed(7)
    for n, d in ((1, 2), (2, 1), (3, 2), (4, 3)):
        sizes = {"n": n, "d": d}
        parameters = {
            name: torch.randn(
                4, *(sizes[s] for s in PARAMETERS[name]), dtype=torch.float64, generator=generator
            )
            for name in setting.needs
        }
        if setting.rotary:  # any matrix is a turn for the definitions, but numerics wants an orthogonal one
            parameters["rotation"] = torch.linalg.qr(parameters["rotation"]).Q
        score, value = torch.randn(2, 4, d, d, dtype=torch.float64, generator=generator)
        x = torch.randn(4, n, d, dtype=torch.float64, generator=generator)
        moment = Moment.of(setting, x, score=None if setting.rotary else score, value=value, **parameters)
        for at in range(4):
            values = Values.at(moment.exactly(at))
            exact = [float(values.enclose(symbol).mid()) for symbol in values.system.v]
            assert _close(moment.velocity[at].flatten().tolist(), exact, max(1e-3, *map(abs, exact)))


def test_a_planted_difference_is_noticed():
    """The comparison itself can fail: one relative error of 1e-11 is too much."""
    assert not _close([1 + 1e-11], [1.0], 1.0)
    assert _close([1 + 1e-13], [1.0], 1.0)
    assert not _close([torch.nan], [1.0], 1.0)
