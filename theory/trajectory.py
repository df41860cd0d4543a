"""Enclosed trajectories of one rational system: Taylor steps whose error is proved afterwards in Arb balls.

docs/trajectories.md explains the method. Tokens are counted from 0. Nothing here computes in floats.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

from flint import arb, arb_mat, arb_poly, arb_series, ctx, fmpq, fmpq_mat

from theory.derivation import INTERVAL, Context, Evidence
from theory.errors import DerivationError, InputError
from theory.instance import Instance
from theory.velocity import Field, Rows, Velocity, apply, balls, difference, dot, each, plus
from theory.verdict import Grade, Status, Verdict, fails, holds, undecided
from theory.weights import rational_matrix

PRECISIONS = (64, 128, 256, 512, 1024)
"""Bits; the next is tried when the ones before lose too many."""
TOLERANCE = fmpq(1, 10**9)
"""Largest radius of an enclosure, relative to 1 + the largest coordinate."""
STEPS = 2000
SHORTEST = -240  # an index of _length

Observable = Callable[[arb_mat], arb]
"""A function of the tokens (n, d), evaluated at the working precision."""


class _TooWideError(ArithmeticError):
    """The enclosure outgrows the tolerance, or is too wide for any step: more bits may help."""


class _TooSlowError(ArithmeticError):
    """The steps are used up: more bits would not help."""


def _flat(rows: Rows) -> list[Any]:
    return [entry for row in rows for entry in row]


def _largest(entries: list[arb]) -> arb:
    """An upper bound on every |entry|; not finite if one is not."""
    return reduce(arb.max, (abs(entry).upper() for entry in entries))


@contextmanager
def _series(length: int) -> Iterator[None]:
    """Power series keep `length` coefficients."""
    before, ctx.cap = ctx.cap, length
    try:
        yield
    finally:
        ctx.cap = before


def _coefficient(series: arb_series, k: int) -> arb:
    """Raises ValueError for one that the series does not know (flint would return 0)."""
    if k >= series.prec:
        raise ValueError(f"coefficient {k} of {series}")
    return series[k]


def _taylor(velocity: Velocity, centre: Rows, order: int) -> Rows:
    """Exact polynomials of that degree, close to the solution from the exact centre."""
    with _series(order + 1):
        tokens = each(lambda entry: arb_series([entry], 1), centre)
        for _ in range(order):  # each round knows one more coefficient
            tokens = plus(centre, each(arb_series.integral, velocity(tokens)))
        return each(lambda series: arb_poly([c.mid() for c in series.coeffs()]), tokens)


def _shift(polynomials: Rows, by: arb | fmpq) -> Rows:
    """p(by + s) as polynomials in s."""
    return each(lambda p: p(arb_poly([by, 1])), polynomials)


def _defects(velocity: Velocity, p: Rows, at: arb, wanted: range) -> list[list[arb]]:
    """The wanted coefficients of p' − f(p) for every coordinate, expanded at every point of the ball."""
    shifted = _shift(p, at)
    with _series(wanted.stop):
        fields = _flat(velocity(each(lambda q: arb_series(q.coeffs(), wanted.stop), shifted)))
    slopes = _flat(each(arb_poly.derivative, shifted))
    return [[p[k] - _coefficient(f, k) for k in wanted] for p, f in zip(slopes, fields, strict=True)]


def _defect(velocity: Velocity, p: Rows, middle: fmpq, reach: fmpq) -> arb:
    """A bound on |p'(s) − f(p(s))|, |s − middle| ≤ reach: its Taylor polynomial and Lagrange's remainder."""
    order, p = _order(), _shift(p, middle)
    known = _defects(velocity, p, arb(0), range(order))
    remainder = _defects(velocity, p, arb(0, reach), range(order, order + 1))
    powers = [arb(reach) ** k for k in range(order + 1)]
    return _largest([dot(list(map(abs, a + b)), powers) for a, b in zip(known, remainder, strict=True)])


def _logarithmic_norm(velocity: Velocity, box: Rows) -> arb:
    """A bound on max_a (J_aa + Σ_{b≠a} |J_ab|) over the box, J the Jacobian of the velocity; at least 0."""
    width, entries = len(box[0]), _flat(box)
    rows = [arb(0)] * len(entries)
    with _series(2):
        for b in range(len(entries)):
            dual = [arb_series([entry, int(a == b)], 2) for a, entry in enumerate(entries)]
            shaped = [dual[k : k + width] for k in range(0, len(dual), width)]
            column = [_coefficient(v, 1) for v in _flat(velocity(shaped))]
            rows = [rows[a] + (slope if a == b else abs(slope)) for a, slope in enumerate(column)]
    return reduce(arb.max, (row.upper() for row in rows), arb(0))


def _integral(bound: Callable[[fmpq, fmpq], arb], middle: fmpq, reach: fmpq, fine: arb, halvings: int) -> arb:
    """A bound on ∫ over |s − middle| ≤ reach from bounds on pieces, halved until theirs is fine."""
    try:
        total = bound(middle, reach) * (2 * reach)
    except (ValueError, ZeroDivisionError):
        total = arb.pos_inf()
    if total < fine or not halvings:
        return total
    half, total = reach / 2, arb(0)
    for centre in (middle - half, middle + half):
        total += _integral(bound, centre, half, fine, halvings - 1)
        if not total.is_finite():
            break
    return total


def _error(velocity: Velocity, p: Rows, radius: arb, length: fmpq, allowed: arb) -> arb:
    """A bound on |x − p|, 0 ≤ s ≤ length, from within `radius`; infinite if it or the defect is too large.

    While e = x − p stays within the tube, D⁺|e| ≤ μ|e| + |p' − f(p)| in the largest-coordinate norm, μ the
    logarithmic norm within the tube. So the bound, being less than the tube, keeps e inside by continuity.
    """
    half, tube = length / 2, 16 * (radius + allowed)

    def norm(middle: fmpq, reach: fmpq) -> arb:
        times, around = arb(middle, reach), arb(0, tube)
        return _logarithmic_norm(velocity, each(lambda q: q(times) + around, p))

    defect = _integral(partial(_defect, velocity, p), half, half, fine=allowed / 8, halvings=3)
    if not defect < allowed:
        return arb.pos_inf()
    growth = _integral(norm, half, half, fine=arb(1) / 16, halvings=5)
    error = (growth.exp() * (radius + defect)).upper()
    return error if error < tube else arb.pos_inf()


def _order() -> int:
    """A sixteenth of the radius of convergence, to that power, is a unit in the last place."""
    return ctx.prec // 4 + 4


def _length(index: int) -> fmpq:
    """Step lengths: four to an octave, dyadic."""
    return fmpq(4 + index % 4) * fmpq(2) ** (index // 4)


@dataclass(frozen=True)
class _Segment:
    """x(start + s) = p(s) + e(s) for 0 ≤ s ≤ length, every |e| ≤ error; p is exact, (n, d)."""

    start: fmpq
    length: fmpq
    polynomials: Rows
    error: arb

    def nominal(self, s: arb) -> Rows:
        """p(s)."""
        return each(lambda p: p(s), self.polynomials)

    def at(self, low: fmpq, high: fmpq | None = None) -> arb_mat:
        """Balls around X(t) for all low ≤ t ≤ high (by default at low), within the segment."""
        high, error = low if high is None else high, arb(0, self.error)
        nominal = self.nominal(arb((low + high) / 2 - self.start, (high - low) / 2))
        return arb_mat(each(lambda entry: entry + error, nominal))


def _segment(
    field: Field, centre: Rows, radius: arb, start: fmpq, index: int, tolerance: fmpq
) -> tuple[_Segment, int]:
    """The longest proved segment up to _length(index) from within `radius` of the centre, and its index."""
    velocity, size = field.near(centre), 1 + _largest(_flat(centre))
    unit, order = size * arb(2) ** -ctx.prec, _order()
    polynomials = _taylor(velocity, centre, order)
    last = {k: _largest([p[k] for p in _flat(polynomials)]) for k in (order - 1, order)}
    fall = 1
    while index > SHORTEST:
        length = _length(index)
        if not all(bound * length**k < unit for k, bound in last.items()):
            index -= 1
            continue
        error = _error(velocity, polynomials, radius, length, 1024 * unit)
        if error < tolerance * size:
            return _Segment(start, length, polynomials, error), index
        if error.is_finite():
            raise _TooWideError(f"wider than the tolerance from t = {_decimal(start)} on, at {ctx.prec} bits")
        index, fall = index - fall, 2 * fall
    raise _TooWideError(f"no step from t = {_decimal(start)} is proved, however short, at {ctx.prec} bits")


def _segments(
    instance: Instance, until: fmpq, tolerance: fmpq, steps: int, deadline: float = math.inf
) -> Iterator[_Segment]:
    """Covering [0, until]; raises _TooWideError or _TooSlowError where it must stop."""
    field, start, tokens, error, index = Field(instance), fmpq(0), balls(instance.tokens), arb(0), 0
    while _length(index) < until:
        index += 1
    for _ in range(steps):
        if time.monotonic() > deadline:
            raise _TooSlowError(f"the time allowed reaches only t = {_decimal(start)}")
        while index > -80 and _length(index - 1) >= until - start:
            index -= 1
        radius = error + _largest([entry.rad() for entry in _flat(tokens)])
        segment, index = _segment(field, each(arb.mid, tokens), radius, start, index, tolerance)
        yield segment
        start += segment.length
        if start >= until:
            return
        tokens, error = segment.nominal(arb(segment.length)), segment.error
        index += 2
    raise _TooSlowError(f"{steps} steps reach only t = {_decimal(start)}")


def _decimal(time: fmpq, up: bool = False) -> str:
    """Six decimals, rounded down, or up."""
    scaled = int((time * 10**6).ceil() if up else (time * 10**6).floor())
    return f"{scaled // 10**6}.{scaled % 10**6:06d}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class Enclosure:
    """`states` (n, d) provably hold X at `times`; NaN at one not reached, where `verdict` is UNDECIDED."""

    verdict: Verdict
    times: tuple[fmpq, ...]
    states: tuple[arb_mat, ...]


@dataclass(frozen=True)
class Crossing(Verdict):
    """HOLDS: the threshold is not passed before `after` and is passed at the time `by`, both proved.

    FAILS: it is not passed on the whole interval. UNDECIDED: neither is proved. Then both times are None.
    """

    after: fmpq | None = None
    by: fmpq | None = None


def enclose(
    instance: Instance,
    times: Sequence[Any],
    *,
    tolerance: Any = TOLERANCE,
    steps: int = STEPS,
    seconds: float = math.inf,
) -> Enclosure:
    """Balls around the tokens at the given times ≥ 0, of radius at most tolerance·(1 + largest coordinate).

    It gives up after so many steps at one precision, or that many seconds; UNDECIDED says where it stopped
    and why. Raises InputError for an instance without tokens, and for times or a tolerance that are no such
    numbers.
    """
    wanted = tuple(_rational("times", time, least=0) for time in times)
    if not wanted:
        raise InputError("times", got="none", expected="at least one time", fix="pass a list such as [0, 1]")
    found: dict[fmpq, arb_mat] = {}

    def collect(segments: Iterator[_Segment]) -> Verdict:
        for segment in segments:
            inside = [t for t in wanted if segment.start <= t <= segment.start + segment.length]
            found.update({t: segment.at(t) for t in inside})
        return holds(Grade.INTERVAL, f"every coordinate to within {_radius(found.values())}")

    verdict = _with_enough_bits(instance, max(wanted), tolerance, steps, collect, time.monotonic() + seconds)
    unknown = _unknown(_tokens(instance))
    return Enclosure(verdict, wanted, tuple(found.get(time, unknown) for time in wanted))


def exceeds(
    instance: Instance, observable: Observable, threshold: Any, at: Any, *, tolerance: Any = TOLERANCE
) -> Verdict:
    """Whether observable(X(at)) > threshold (a number, or an arb that contains it); FAILS: ≤ is proved."""
    found = enclose(instance, [at], tolerance=tolerance)
    if not found.verdict.holds:
        return found.verdict
    with ctx.workprec(PRECISIONS[-1]):
        value, bound = observable(found.states[0]), _threshold(threshold)
        text = f"it is {value.str(10)} at t = {at}"
        if value > bound:
            return holds(Grade.INTERVAL, text)
        return fails(Grade.INTERVAL, text) if value <= bound else undecided(text)


def crosses(
    instance: Instance,
    observable: Observable,
    threshold: Any,
    until: Any,
    *,
    downward: bool = False,
    tolerance: Any = TOLERANCE,
    steps: int = STEPS,
) -> Crossing:
    """Whether observable(X(t)) > threshold (`downward`: <) at some 0 ≤ t ≤ until, and when first.

    `threshold` is a number, or an arb that contains it. Raises InputError as `enclose` does.
    """
    until, bound = _rational("until", until, least=0), _threshold(threshold)

    def excess(tokens: arb_mat) -> arb:
        return bound - observable(tokens) if downward else observable(tokens) - bound

    def scan(segments: Iterator[_Segment]) -> Verdict:
        after = None  # from here on it is open whether the threshold is passed
        for segment in segments:
            finest = segment.length / (4096 if after is None else 64)
            for low, high in _pieces(segment, until, finest, excess):
                after = low if after is None else after
                for by in (low, high):
                    if excess(segment.at(by)) > 0:
                        return _crossing(*_sharpened(segment, after, by, excess))
        if after is None:
            return fails(Grade.INTERVAL, f"not passed up to t = {_decimal(until)}")
        return undecided(f"too close to the threshold to tell, after t = {_decimal(after)}")

    found = _with_enough_bits(instance, until, tolerance, steps, scan)
    return found if isinstance(found, Crossing) else Crossing(found.status, found.grade, found.reason)


def _pieces(
    segment: _Segment, until: fmpq, finest: fmpq, excess: Callable[[arb_mat], arb]
) -> Iterator[tuple[fmpq, fmpq]]:
    """In order, the finest pieces of the segment where excess ≤ 0 is not proved, or the rest if > 0 is."""
    waiting = [(segment.start, min(segment.start + segment.length, until))]
    while waiting:
        low, high = waiting.pop()
        value = excess(segment.at(low, high))
        if value <= 0:
            continue
        if value > 0 or high - low <= finest:
            yield low, high
        else:
            middle = (low + high) / 2
            waiting += [(middle, high), (low, middle)]


def _sharpened(
    segment: _Segment, after: fmpq, by: fmpq, excess: Callable[[arb_mat], arb]
) -> tuple[fmpq, fmpq]:
    """The bracket cut by eighths within the segment, while one end is proved not to be the crossing."""
    for _ in range(100 if segment.start <= after < by else 0):
        eighth = (by - after) / 8
        if excess(segment.at(after, after + eighth)) <= 0:
            after += eighth
        elif excess(segment.at(by - eighth)) > 0:
            by -= eighth
        else:
            break
    return after, by


def _crossing(after: fmpq, by: fmpq) -> Crossing:
    between = f"first passed between t = {_decimal(after)} and {_decimal(by, up=True)}"
    reason = between if by > 0 else "passed at t = 0"
    return Crossing(Status.HOLDS, Grade.INTERVAL, reason, after=after, by=by)


def layers(instance: Instance, step: Any, count: int, *, tolerance: Any = TOLERANCE) -> Enclosure:
    """Balls around the tokens after 0, 1, …, count residual layers x⁺ = x + step·ẋ.

    `times` of the answer number the layers. UNDECIDED if even the largest precision loses them. Raises
    InputError as `enclose` does.
    """
    step, tolerance = _rational("step", step), _rational("tolerance", tolerance, least=0)
    last, exact = _rational("count", count, least=0), _tokens(instance)
    if last.q != 1:
        raise InputError("count", got=str(last), expected="a number of layers", fix="pass an integer")
    numbers = tuple(map(fmpq, range(int(last) + 1)))
    for bits in PRECISIONS:
        with ctx.workprec(bits):
            states = _layers(Field(instance), balls(exact), arb(step), len(numbers))
            if all(_narrow(_flat(state), tolerance) for state in states):
                found = tuple(map(arb_mat, states))
                reason = f"every coordinate to within {_radius(found)}"
                return Enclosure(holds(Grade.INTERVAL, reason), numbers, found)
    lost = undecided(f"wider than the tolerance at {PRECISIONS[-1]} bits")
    return Enclosure(lost, numbers, (_unknown(exact),) * len(numbers))


def _layers(field: Field, tokens: Rows, step: arb, count: int) -> list[Rows]:
    states = [tokens]
    while len(states) < count:
        velocity = field.near(each(arb.mid, states[-1]))(states[-1])
        states.append(plus(states[-1], each(lambda v: step * v, velocity)))
    return states


def _narrow(entries: list[arb], tolerance: fmpq) -> bool:
    return bool(_largest([entry.rad() for entry in entries]) <= tolerance * (1 + _largest(entries)))


def _unknown(tokens: fmpq_mat) -> arb_mat:
    return arb_mat(each(lambda _: arb.nan(), tokens.tolist()))


def _with_enough_bits(
    instance: Instance,
    until: fmpq,
    tolerance: Any,
    steps: int,
    scan: Callable[[Iterator[_Segment]], Verdict],
    deadline: float = math.inf,
) -> Verdict:
    """What the scan proves at the first precision that suffices; UNDECIDED with the reason if none does."""
    tolerance, reason = _rational("tolerance", tolerance, least=0), ""
    _tokens(instance)
    for bits in PRECISIONS:
        with ctx.workprec(bits):
            try:
                return scan(_segments(instance, until, tolerance, steps, deadline))
            except _TooWideError as stop:
                reason = str(stop)
            except _TooSlowError as stop:
                return undecided(str(stop))
    return undecided(reason)


def _tokens(instance: Instance) -> fmpq_mat:
    if instance.tokens is None:
        raise InputError("tokens", got="none", expected="an (n, d) matrix", fix="give the instance tokens")
    return instance.tokens


def _rational(argument: str, value: Any, least: int | None = None) -> fmpq:
    number = rational_matrix(argument, [[value]])[0, 0]
    if least is not None and number < least:
        raise InputError(argument, got=str(number), expected=f"a number ≥ {least}", fix="pass one")
    return number


def _threshold(value: Any) -> arb | fmpq:
    if not isinstance(value, arb):
        return _rational("threshold", value)
    if not value.is_finite():
        raise InputError("threshold", got=str(value), expected="a finite ball", fix="pass a tighter one")
    return value


def _radius(states: Iterable[arb_mat]) -> str:
    """An upper bound on every radius, rounded up to two digits."""
    largest = _largest([entry.rad() for state in states for entry in state.entries()])
    return (largest * fmpq(11, 10)).str(2, radius=False)


def _row(tokens: arb_mat, index: int) -> list[arb]:
    if not 0 <= index < tokens.nrows():
        raise InputError(
            "index", got=str(index), expected=f"0 … {tokens.nrows() - 1}", fix="count tokens from 0"
        )
    return tokens.tolist()[index]


def _length_of(vector: list[arb]) -> arb:
    return dot(vector, vector).nonnegative_part().sqrt()


def token_energy(metric: Any, i: int) -> Observable:
    """½ x_iᵀ M x_i for a (d, d) matrix of rationals."""
    exact = rational_matrix("metric", metric)

    def energy(tokens: arb_mat) -> arb:
        token = _row(tokens, i)
        return dot(token, apply(balls(exact), token)) / 2

    return energy


def norm(i: int) -> Observable:
    """‖x_i‖."""
    return lambda tokens: _length_of(_row(tokens, i))


def largest_norm(tokens: arb_mat) -> arb:
    """max_i ‖x_i‖."""
    return reduce(arb.max, map(_length_of, tokens.tolist()))


def gap(i: int, j: int) -> Observable:
    """‖x_i − x_j‖."""
    return lambda tokens: _length_of(difference(_row(tokens, i), _row(tokens, j)))


@dataclass(frozen=True)
class Trajectory(Evidence):
    """A statement about trajectories of named rational systems, enclosed until it is proved."""

    text: str
    decide: Callable[[], Sequence[Verdict]]
    kind = INTERVAL

    def claim(self) -> str:
        return self.text

    def check(self, context: Context) -> None:
        verdicts = list(self.decide())
        if not verdicts:
            raise DerivationError(f"{self.text}: nothing is decided")
        for verdict in verdicts:
            if not (verdict.holds and verdict.grade >= Grade.INTERVAL):
                raise DerivationError(f"{self.text}: {verdict} {verdict.reason}")
