"""States of one exact system at later times: enclosed in balls, or accurate in high precision."""

import math
import time as clock
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import Any

from flint import arb, arb_mat, arb_series, ctx, fmpq

from theory.trajectory import enclose
from theory.velocity import Field
from tokendyn.claims.exact import rational
from tokendyn.claims.system import ExactSystem, State

PRECISION = 256  # bits
TOLERANCE = fmpq(1, 10**20)
MOST_LAYERS = 500
STEPS = 200
STEP_COST = 5e-5
"""Seconds of a Taylor step over n³d², as it takes nd derivatives of n²d products (n = 16, d = 2: 0.67 s)."""


def bits_for(digits: int) -> int:
    """The working precision for that many decimal digits."""
    return max(PRECISION, math.ceil(digits * 3.33) + 64)


def states_at(
    system: ExactSystem,
    times: Sequence[Any],
    digits: int = 12,
    steps: int = STEPS,
    seconds: float = math.inf,
) -> list[State] | None:
    """Enclosed states at the times (numbers of layers); None where so much work does not enclose the flow.

    The time is looked at between steps, so systems of which one step takes a large part of it are left alone.
    `around` is taken of a later state too: as softmax makes flows continuous, a box around it is that of a
    neighbourhood of x0. Layers, which hardmax makes discontinuous, start from a box.
    """
    wanted = [rational(time) for time in times]
    if not any(wanted):
        return [system.start for _ in wanted]
    if system.h is not None:
        count = int(max(wanted).ceil())
        states = layers(system, count, digits, seconds) if count <= MOST_LAYERS else None
        return None if states is None else [states[int(time)] for time in wanted]
    instance = system.instance()
    if instance is None or not affordable(system, seconds):
        return None
    tolerance = min(TOLERANCE, fmpq(1, 10 ** (digits + 3)))
    found = enclose(instance, wanted, tolerance=tolerance, steps=steps, seconds=seconds)
    if not found.verdict.holds:
        return None
    states = (system.x0 if t == 0 else s.tolist() for t, s in zip(wanted, found.states, strict=True))
    return [system.around(state) for state in states]


def affordable(system: ExactSystem, seconds: float) -> bool:
    """Whether one Taylor step, which nothing interrupts, takes at most about a quarter of the seconds."""
    return 4 * STEP_COST * system.n**3 * system.d**2 <= seconds


def layers(
    system: ExactSystem, count: int, digits: int = 12, seconds: float = math.inf
) -> list[State] | None:
    """Balls around the states after 0, …, count residual layers, kept narrow by precision; else None."""
    allowed, deadline = arb(10) ** -(digits + 8), clock.monotonic() + seconds
    for bits in (bits_for(digits), 1024, 4096):
        with ctx.workprec(bits):
            fine = system.again()
            states = [fine.start]
            for _ in range(count):
                if clock.monotonic() > deadline:
                    return None
                states.append([[arb(c) for c in token] for token in fine.next_layer(states[-1])])
            if all(c.rad() < allowed * (1 + abs(c)) for token in states[-1] for c in map(arb, token)):
                return states
    return None


def shortly(system: ExactSystem, state: State, span: fmpq) -> State | None:
    """X(t + span) ∈ X(t) + span·ẋ(box), if the box holds X(t) + [0, span]·ẋ(box) (Picard); else None."""
    speed = _largest(system.velocity(state))
    radius = 2 * arb(span) * speed + arb(2) ** -200
    if not radius.is_finite():
        return None
    box: State = [[arb(c) + arb(0, radius.upper()) for c in token] for token in state]
    velocity = system.velocity(box)
    reach = arb(span / 2, span / 2)
    swept = _moved(state, velocity, reach)
    inside = all(b.contains(a) for x, y in zip(swept, box, strict=True) for a, b in zip(x, y, strict=True))
    return _moved(state, velocity, arb(span)) if inside else None


def _moved(state: State, velocity: State, by: arb) -> State:
    return [
        [arb(a) + by * b for a, b in zip(x, v, strict=True)] for x, v in zip(state, velocity, strict=True)
    ]


def _largest(rows: State) -> arb:
    return reduce(arb.max, (abs(arb(c)) for row in rows for c in row), arb(0))


def integrated(system: ExactSystem, times: Sequence[Fraction], digits: int) -> list[State]:
    """States by extrapolated midpoint steps (Gragg) in high precision: accurate, but nothing is enclosed."""
    x, now, states = [[arb(c).mid() for c in token] for token in system.x0], Fraction(0), []
    if system.h is not None:
        return _layers_in_floats(system, x, times)
    columns = 4 + digits // 4
    for time in times:
        count = math.ceil(float(time - now) * 8 * max(_speed(system), 1e-300))
        for _ in range(count):
            x = _extrapolated(system, x, rational((time - now) / count), columns)
        now = time
        states.append(x)
    return states


def _layers_in_floats(system: ExactSystem, x: State, times: Sequence[Fraction]) -> list[State]:
    found = {}
    for k in range(int(max(times)) + 1):
        found[k] = x
        x = _centres(system.next_layer(x))
    return [found[int(time)] for time in times]


def _speed(system: ExactSystem) -> float:
    """The sum of the Frobenius norms of the V_h, a bound of how fast tokens move by their own size."""
    return sum(math.hypot(*(float(arb(c).mid()) for row in value for c in row)) for value in system.V)


def _extrapolated(system: ExactSystem, x: State, length: fmpq, columns: int) -> State:
    """A step of the Gragg–Bulirsch–Stoer method (Hairer, Nørsett & Wanner, §II.9), 2, 4, 6, … substeps."""
    table: list[State] = []
    for k in range(1, columns + 1):
        row = [_midpoints(system, x, length, 2 * k)]
        for j in range(1, k):
            ratio = fmpq(k, k - j) ** 2 - 1
            row.append(_combined(row[-1], table[j - 1], 1 / ratio))
        table = row  # type: ignore[assignment]
    return table[-1]


def _combined(fine: State, coarse: State, by: fmpq) -> State:
    return _centres(
        [[a + (a - b) * by for a, b in zip(p, q, strict=True)] for p, q in zip(fine, coarse, strict=True)]
    )


def _midpoints(system: ExactSystem, x: State, length: fmpq, count: int) -> State:
    """An even number of midpoint steps: its error is a series in the square of the step."""
    step = length / count
    before, now = x, _centres(_moved(x, system.velocity(x), arb(step)))
    for _ in range(count - 1):
        before, now = now, _centres(_moved(before, system.velocity(now), arb(2 * step)))
    return now


def _centres(x: State) -> State:
    return [[arb(c).mid() for c in token] for token in x]


def drifted(system: ExactSystem, time: int = 40) -> State:
    """Roughly where the start has drifted by then, in high precision without any bound."""
    x = _centres(system.x0)
    for _ in range(4 * time):
        x = _extrapolated(system, x, fmpq(1, 4), 2)
        if not all(abs(c) < 1e6 for token in x for c in token):
            return system.x0
    return x


def equilibrium_near(system: ExactSystem, state: State, rounds: int = 30) -> State | None:
    """Balls that hold exactly one zero of the velocity, found by Newton's method from `state`; else None.

    Krawczyk's test: with C ≈ f'(c)⁻¹ and a box B around c, −Cf(c) + (I − Cf'(B))(B − c) inside B − c proves a
    zero in it (Rump, Verification methods, Acta Numerica 2010, §13). On the sphere a zero of
    v − (x·v)x with x·v ≠ 0 is a unit vector.
    """
    instance = system.instance()
    if instance is None:
        return None
    field, x = Field(instance), [c for token in _centres(state) for c in token]
    for _ in range(rounds):
        value, slopes = _linearised(field, x, system.d)
        try:
            move = (slopes.inv().mid() * value).entries()
        except (ZeroDivisionError, ValueError):
            return None
        x = [(a - b).mid() for a, b in zip(x, move, strict=True)]
        if not all(c.is_finite() and abs(c) < 1e6 for c in x):
            return None
        if all(abs(b) < arb(2) ** (-ctx.prec // 2) for b in move):
            break
    return _krawczyk(field, x, system.d)


def _krawczyk(field: Field, centre: list[arb], d: int) -> State | None:
    radius = arb(2) ** (-2 * ctx.prec // 5)
    value, slopes = _linearised(field, centre, d)
    try:
        inverse = slopes.inv().mid()
    except (ZeroDivisionError, ValueError):
        return None
    size = len(centre)
    around = _linearised(field, [c + arb(0, radius) for c in centre], d)[1]
    one = arb_mat(size, size, [arb(i == j) for i in range(size) for j in range(size)])
    spread = arb_mat(size, 1, [arb(0, radius)] * size)
    image = (inverse * value * -1 + (one - inverse * around) * spread).entries()
    if not all(abs(c) < radius for c in image):
        return None
    found = [c + shift for c, shift in zip(centre, image, strict=True)]
    return [found[k : k + d] for k in range(0, size, d)]  # type: ignore[return-value]


def _linearised(field: Field, x: list[arb], d: int) -> tuple[arb_mat, arb_mat]:
    """The velocity (nd, 1) and its derivative (nd, nd) on balls, by power series of length 2."""
    before, ctx.cap = ctx.cap, 2
    try:
        velocity = field.near(_shaped([c.mid() for c in x], d))
        columns = []
        for b in range(len(x)):
            dual = [arb_series([c, int(a == b)], 2) for a, c in enumerate(x)]
            columns.append([c for row in velocity(_shaped(dual, d)) for c in row])
    finally:
        ctx.cap = before
    value = arb_mat(len(x), 1, [c[0] for c in columns[0]])
    return value, arb_mat([[column[a][1] for column in columns] for a in range(len(x))])


def _shaped(flat: list, d: int) -> list[list]:
    return [flat[k : k + d] for k in range(0, len(flat), d)]
