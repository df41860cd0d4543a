"""The Numba back-end: eight systems at a time, one in each lane of the processor's vectors.

Every lane has its own time, step and outcome; a lane whose system has ended takes the next one from the
queue. No operation crosses lanes, so a system's answer does not depend on its neighbours.
"""

# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context, its first parameter)

import math
import sys
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from inspect import getsource
from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from numerics import dormand_prince as dp
from numerics import lane_flow, lanes, radial, watch
from numerics.dormand_prince import (
    ALPHA,
    BETA,
    LANDING,
    LEAST,
    MOST,
    SAFETY,
    SMALLEST_ERROR,
    STIFF_LIMIT,
    STIFF_SHARE,
)
from numerics.kernel import Kernel
from numerics.lane_flow import Known, Shape, normalise, room, slope
from numerics.lanes import (
    LANES,
    Rows,
    absolute,
    ceiling,
    exp,
    fast,
    fill,
    fma,
    load,
    maximum,
    minimum,
    negate,
    rough_log,
    some,
    store,
    where,
)
from numerics.quantities import RECORDS
from numerics.radial import FAR, OUTGROWN, PLAIN
from numerics.solution import Outcome, Solution
from numerics.task import Position, Task, join

PENDING = -2
REACHED, ESCAPED, STALLED, INVALID, STOPPED = (int(kind) for kind in Outcome)
HANDED = -1  # found stiff: goes on elsewhere
WORTH_COMPILING = 2048  # systems of one shape for which code of its own pays
EPS = np.finfo(np.float64).eps
LOG_PLAIN = math.log(PLAIN)
PATIENCE = 0.8  # share of max_steps before the test for stiffness; a stiff step costs some 300 of these
GAUSS = np.array(watch.GAUSS)
MAXIMUM, MINIMUM, INTEGRAL = map(RECORDS.index, ("maximum", "minimum", "integral"))

# Rows of the control array: one number for each lane.
T, STEP, TARGET, ERROR, REJECTED, ACTIVE, STEPS, STIFFNESS = range(8)
LANDED, STOPS, LAST, CALLS, ATTENTION = range(8, 13)
CONTROLS = 13


class Weights(NamedTuple):
    """One row of numbers for each system, or a single row that all share."""

    left: np.ndarray
    value: np.ndarray
    right: np.ndarray
    turns: np.ndarray
    bias: np.ndarray
    positions: np.ndarray
    forms: np.ndarray


class Queue(NamedTuple):
    """``Position`` with the batch first, and what the method starts from."""

    row: np.ndarray
    z: np.ndarray
    growing: np.ndarray
    t: np.ndarray
    step: np.ndarray
    goal: np.ndarray
    steps: np.ndarray
    slope: np.ndarray  # at z
    outcome: np.ndarray


class Book(NamedTuple):
    """The arrays of the ``Solution``, to write into."""

    states: np.ndarray
    log_scale: np.ndarray
    outcome: np.ndarray
    steps: np.ndarray
    last_time: np.ndarray
    events: np.ndarray
    observed: np.ndarray


class Options(NamedTuple):
    times: np.ndarray
    rtol: float
    atol: float
    max_steps: int
    log_escape: float
    stiff: int
    patience: float  # steps before the test for stiffness
    form: np.ndarray  # of each watched quantity, events first: index of its form, −1 for the identity
    differences: np.ndarray  # of tokens, or the tokens themselves
    smallest: np.ndarray
    rising: np.ndarray  # of each event
    terminal: np.ndarray
    levels: np.ndarray  # (batch, events)
    record: np.ndarray  # of each observable


class Desk(NamedTuple):
    """What eight systems under way need besides ``Lanes``."""

    control: Rows  # (CONTROLS, LANES)
    levels: Rows  # of each event, NaN once it has occurred
    when: Rows  # of each event on this step, else inf
    values: Rows  # of each observable, somewhere on the step
    records: Rows
    between: Rows  # a state inside the step
    index: np.ndarray  # in the queue, of each lane
    goal: np.ndarray


def _weighted(weights: tuple[float, ...]):
    """Compiled: Σ weight · slope of one component."""
    slopes = np.array([j for j, weight in enumerate(weights) if weight])
    weight = np.array([weight for weight in weights if weight])

    @fast
    def total(w, m, i):
        result = fill(weight[0]) * load(w.k, slopes[0] * m + i)
        for j in range(1, len(slopes)):
            result = fma(fill(weight[j]), load(w.k, slopes[j] * m + i), result)
        return result

    return total


def _stage(weights: tuple[float, ...]):
    """Compiled: stage = z + h Σ weight · slope."""
    total = _weighted(weights)

    @fast
    def advance(w, m, h):
        for i in range(m):
            store(w.stage, i, fma(h, total(w, m, i), load(w.z, i)))

    return advance


@fast
def _stage_1(w, m, h):
    for i in range(m):
        store(w.stage, i, load(w.z, i))


_stage_euler = _stage((1.0,))
_stage_2, _stage_3, _stage_4, _stage_5, _stage_6, _stage_7 = map(_stage, dp.STAGES)
_error, _bend, _sixth = map(_weighted, (dp.ERROR, dp.BEND, dp.STAGES[4]))


@njit(error_model="numpy")
def _slopes(p, w, first, last):
    """Slopes ``first`` to ``last`` of a step of size ``w.h``; the state of the last one is left in ``stage``.

    Slope 1 is that of z itself. Slope 0 is that of the Euler step, written in the place of slope 2. The
    choice is made in a loop, so that the velocity is compiled once.
    """
    m, h = p.n * p.d + 1, load(w.h, 0)
    for s in range(first, last + 1):
        if s == 0:
            _stage_euler(w, m, h)
        elif s == 1:
            _stage_1(w, m, h)
        elif s == 2:
            _stage_2(w, m, h)
        elif s == 3:
            _stage_3(w, m, h)
        elif s == 4:
            _stage_4(w, m, h)
        elif s == 5:
            _stage_5(w, m, h)
        elif s == 6:
            _stage_6(w, m, h)
        else:
            _stage_7(w, m, h)
        slope(p, w, (s - 1) * m if s else m)


# One lane at a time: what happens rarely


@fast
def _seat_weights(w, weights, row, lane):
    for target, source in (
        (w.left, weights.left),
        (w.value, weights.value),
        (w.right, weights.right),
        (w.turns, weights.turns),
        (w.bias, weights.bias),
        (w.positions, weights.positions),
        (w.forms, weights.forms),
    ):
        if source.shape[1]:
            shared = row if source.shape[0] > 1 else 0
            for i in range(source.shape[1]):
                target[i, lane] = source[shared, i]


@fast
def _size(p, w, lane):
    """max|u| of the state in z."""
    size = 0.0
    for i in range(p.n * p.d):
        size = max(size, abs(w.z[i, lane]))
    return size


@njit(error_model="numpy")
def _change(p, w, lane):
    """The coordinates that suit the state in z, with its slope in the first of k; see ``radial.change``."""
    nd = p.n * p.d
    size, dot = _size(p, w, lane), 0.0
    for i in range(nd):
        dot += w.z[i, lane] * w.k[i, lane]
    if w.growing[0, lane] == 0.0 and size > OUTGROWN and (dot > 0 or size > FAR) and size < np.inf:
        radius = math.ldexp(1.0, math.frexp(size)[1] - 1)
        dot, square = 0.0, 0.0
        for i in range(nd):
            w.z[i, lane] /= radius
            w.k[i, lane] /= radius
            dot += w.z[i, lane] * w.k[i, lane]
            square += w.z[i, lane] * w.z[i, lane]
        for i in range(nd):
            w.k[i, lane] -= dot / square * w.z[i, lane]
        w.z[nd, lane], w.k[nd, lane], w.growing[0, lane] = math.log(radius), dot / square, 1.0
    elif w.growing[0, lane] == 1.0 and math.log(size) + w.z[nd, lane] < 0:
        radius, rate = math.exp(w.z[nd, lane]), w.k[nd, lane]
        for i in range(nd):
            w.k[i, lane] = (w.k[i, lane] + rate * w.z[i, lane]) * radius
            w.z[i, lane] *= radius
        w.z[nd, lane], w.k[nd, lane], w.growing[0, lane] = 0.0, 0.0, 0.0


@njit(error_model="numpy")
def _sample(p, w, lane, states, log_scale, place):
    """Writes the state in z as tokens over e^log_scale; see ``radial.sample``."""
    nd = p.n * p.d
    size, r = _size(p, w, lane), w.z[nd, lane]
    plain = size == 0.0 or math.log(size) + r < LOG_PLAIN
    scale = math.exp(r) if plain else 1.0
    log_scale[place] = 0.0 if plain else r
    for i in range(nd):
        states[place, i] = w.z[i, lane] * scale


@njit(error_model="numpy")
def _seat(p, w, desk, weights, queue, options, book, lane, waiting):
    """Takes the next system of the queue into a lane, if there is one; returns the queue's new head."""
    c, m = desk.control, p.n * p.d + 1
    while waiting < len(queue.row) and queue.outcome[waiting] != PENDING:
        waiting += 1
    for i in range(CONTROLS):
        c[i, lane] = 0.0
    c[TARGET, lane], c[ERROR, lane] = np.inf, SMALLEST_ERROR
    if waiting == len(queue.row):
        return waiting
    row = queue.row[waiting]
    desk.index[lane], desk.goal[lane] = waiting, queue.goal[waiting]
    _seat_weights(w, weights, row, lane)
    for i in range(m):
        w.z[i, lane], w.k[i, lane] = queue.z[waiting, i], queue.slope[waiting, i]
    w.growing[0, lane] = 1.0 if queue.growing[waiting] else 0.0
    c[T, lane], c[STEP, lane], c[STEPS, lane] = queue.t[waiting], queue.step[waiting], queue.steps[waiting]
    c[TARGET, lane], c[ACTIVE, lane] = options.times[queue.goal[waiting]], 1.0
    for e in range(len(options.rising)):
        desk.levels[e, lane] = options.levels[row, e] if np.isnan(book.events[row, e]) else np.nan
    for o in range(len(options.record)):
        desk.records[o, lane] = book.observed[row, o]
    return waiting + 1


@njit(error_model="numpy")
def _leave(p, w, desk, queue, options, book, lane, outcome):
    """Writes what is known of the system in a lane, which ends here or is handed over."""
    c, k = desk.control, desk.index[lane]
    row = queue.row[k]
    queue.outcome[k] = outcome
    for o in range(len(options.record)):
        book.observed[row, o] = desk.records[o, lane]
    if outcome == HANDED:
        for i in range(p.n * p.d + 1):
            queue.z[k, i] = w.z[i, lane]
        queue.growing[k], queue.t[k], queue.step[k] = w.growing[0, lane] > 0, c[T, lane], c[STEP, lane]
        queue.goal[k], queue.steps[k] = desk.goal[lane], int(c[STEPS, lane])
    else:
        book.outcome[row], book.steps[row], book.last_time[row] = outcome, int(c[STEPS, lane]), c[T, lane]


@njit(error_model="numpy")
def _attend(p, w, desk, queue, options, book, lane):
    """Writes a sample that is due, changes coordinates, ends the row; returns whether it left."""
    c = desk.control
    if c[LANDED, lane] == 1.0:
        row, goal = queue.row[desk.index[lane]], desk.goal[lane]
        _sample(p, w, lane, book.states[row], book.log_scale[row], goal)
        desk.goal[lane] = goal + 1
        c[TARGET, lane] = options.times[goal + 1] if goal + 1 < len(options.times) else np.inf
    size, outcome = _size(p, w, lane), PENDING
    if c[STEPS, lane] >= options.max_steps or 0.1 * c[STEP, lane] <= EPS * abs(c[T, lane]):
        outcome = STALLED
    if c[CALLS, lane] == 1.0:
        outcome = HANDED if outcome == PENDING else outcome
    if desk.goal[lane] == len(options.times):
        outcome = REACHED
    if size > 0 and math.log(size) + w.z[p.n * p.d, lane] > options.log_escape:
        outcome = ESCAPED
    if c[STOPS, lane] == 1.0:
        outcome = STOPPED
    if p.growth:
        _change(p, w, lane)
    if outcome != PENDING:
        _leave(p, w, desk, queue, options, book, lane, outcome)
    return outcome != PENDING


# Quantities


@fast
def _value(p, w, a, i, j, form):
    """vᵀMv for v = a_i, or a_i − a_j if j ≥ 0."""
    d = p.d
    total = fill(0.0)
    for c in range(d):
        v = load(a, i * d + c)
        if j >= 0:
            v = v - load(a, j * d + c)
        turned = v
        if form >= 0:
            turned = fill(0.0)
            for k in range(d):
                u = load(a, i * d + k)
                if j >= 0:
                    u = u - load(a, j * d + k)
                turned = fma(u, load(w.forms, (form * d + k) * d + c), turned)
        total = fma(turned, v, total)
    return total


@njit(error_model="numpy")
def _measure(p, w, a, q, options, out, place):
    """The quantity q at states a, written to a row of out."""
    form, smallest = options.form[q], options.smallest[q]
    result = fill(np.inf if smallest else -np.inf)
    for i in range(p.n):
        for j in range(i) if options.differences[q] else range(-1, 0):
            value = _value(p, w, a, i, j, form)
            result = minimum(value, result) if smallest else maximum(value, result)
    scale = exp(minimum(load(a, p.n * p.d), fill(700.0)))
    store(out, place, result * scale * scale)


@fast
def _interpolate(p, w, h, share, out):
    """The state after a share of the step, on the quartic of ``dormand_prince.BEND``."""
    m = p.n * p.d + 1
    rest = fill(1.0) - share
    for i in range(m):
        start = load(w.z, i)
        rise = load(w.stage, i) - start
        bend = h * load(w.k, i) - rise
        last = rise - h * load(w.k, 6 * m + i) - bend
        inner = fma(rest, h * _bend(w, m, i), last)
        store(out, i, fma(share, fma(rest, fma(share, inner, bend), rise), start))


@fast
def _gap(p, w, desk, options, a, e):
    """≥ 0 where event e is on at states a; NaN where it has occurred."""
    _measure(p, w, a, e, options, desk.when, e)
    value, level = load(desk.when, e), load(desk.levels, e)
    return value - level if options.rising[e] else level - value


@njit(error_model="numpy")
def _locate(p, w, desk, options, t, h, t_end, accepted, e):
    """When event e occurs on this step, as row e of ``when``; inf where it does not."""
    hit = accepted & (_gap(p, w, desk, options, w.stage, e) >= fill(0.0))
    time = fill(np.inf)
    if some(hit):
        low, high = fill(0.0), fill(1.0)
        for _ in range(48):
            middle = (low + high) * fill(0.5)
            _interpolate(p, w, h, middle, desk.between)
            on = _gap(p, w, desk, options, desk.between, e) >= fill(0.0)
            high, low = where(on, middle, high), where(on, low, middle)
        time = where(hit, where(high < fill(1.0), fma(high, h, t), t_end), time)
    store(desk.when, e, time)


@njit(error_model="numpy")
def _watch(p, w, desk, queue, options, book, t, h, t_end, accepted):
    """Follows a step; returns its end, which a terminal event may bring forward."""
    c, events = desk.control, len(options.rising)
    last, stops = t_end, fill(0.0)
    for e in range(events):
        _locate(p, w, desk, options, t, h, t_end, accepted, e)
        if options.terminal[e]:
            when = load(desk.when, e)
            stops = where(when <= t_end, fill(1.0), stops)
            last = minimum(when, last)
    store(c, STOPS, stops)
    for e in range(events):
        if some(load(desk.when, e) <= last):
            store(c, LAST, last)
            for lane in range(LANES):
                if desk.when[e, lane] <= c[LAST, lane]:
                    book.events[queue.row[desk.index[lane]], e] = desk.when[e, lane]
                    desk.levels[e, lane] = np.nan
    if len(options.record):
        _record(p, w, desk, options, h, where(last < t_end, (last - t) / h, fill(1.0)), accepted)
    return last


@njit(error_model="numpy")
def _record(p, w, desk, options, h, share, accepted):
    """Adds the first ``share`` of a step to the observables."""
    whole = negate(share < fill(1.0))
    events = len(options.rising)
    for o in range(len(options.record)):
        record = load(desk.records, o)
        if options.record[o] == INTEGRAL:
            new = record + share * h * _mean(p, w, desk, options, h, share, accepted, o)
        else:
            _measure(p, w, w.stage, events + o, options, desk.values, o)
            end = load(desk.values, o)
            if some(negate(whole)):
                _interpolate(p, w, h, share, desk.between)
                _measure(p, w, desk.between, events + o, options, desk.values, o)
                end = where(whole, end, load(desk.values, o))
            new = maximum(end, record) if options.record[o] == MAXIMUM else minimum(end, record)
        store(desk.records, o, where(accepted, new, record))


@njit(error_model="numpy")
def _mean(p, w, desk, options, h, share, accepted, o):
    """The mean of an observable over the first ``share`` of a step; see ``Observable``."""
    nd, events = p.n * p.d, len(options.rising)
    parts = ceiling(fill(4.0) * absolute(load(w.stage, nd) - load(w.z, nd)))
    parts = minimum(maximum(parts, fill(1.0)), fill(2000.0))
    part, total = fill(0.0), fill(0.0)
    while some(accepted & (part < parts)):
        for g in range(len(GAUSS)):
            _interpolate(p, w, h, share * (part + fill(GAUSS[g, 0])) / parts, desk.between)
            _measure(p, w, desk.between, events + o, options, desk.values, o)
            total = where(part < parts, fma(fill(GAUSS[g, 1]), load(desk.values, o), total), total)
        part = part + fill(1.0)
    return total / parts


# Steps


@fast
def _finite(p, w, to):
    """Where the slope from row ``to`` of k on is finite."""
    check = fill(0.0)
    for i in range(p.n * p.d + 1):
        check = fma(load(w.k, to + i), fill(0.0), check)
    return check >= fill(0.0)


@fast
def _norm(p, a, start):
    size = fill(0.0)
    for i in range(p.n * p.d):
        size = maximum(absolute(load(a, start + i)), size)
    return size


@fast
def _ratio(p, error, error_r, size, r, growing, options):
    """An error, or a slope, in multiples of the tolerance for states with max|u| = size."""
    scale = fma(fill(options.rtol), size, fill(options.atol) * exp(fill(0.0) - r))
    ratio = error / scale
    if p.growth:
        ratio = where(growing, maximum(absolute(error_r) / fill(options.rtol), ratio), ratio)
    return ratio


@njit(inline="always", error_model="numpy")
def _prepare(p, w, desk, weights, queue, options, book):
    """Slopes, coordinates and first steps of the systems in the queue; sorts out those with no finite slope.

    The starting step is that of Hairer, Nørsett & Wanner I, II.4 (a)–(f).
    """
    nd, m = p.n * p.d, p.n * p.d + 1
    for first in range(0, len(queue.row), LANES):
        some_lanes = min(LANES, len(queue.row) - first)
        for lane in range(some_lanes):
            _seat_weights(w, weights, queue.row[first + lane], lane)
            for i in range(m):
                w.z[i, lane] = queue.z[first + lane, i]
            w.growing[0, lane] = 1.0 if queue.growing[first + lane] else 0.0
        _slopes(p, w, np.intp(1), np.intp(1))
        store(desk.control, LANDED, where(_finite(p, w, 0), fill(1.0), fill(0.0)))
        if p.growth:
            for lane in range(LANES):
                _change(p, w, lane)
        r, growing, size = load(w.z, nd), load(w.growing, 0) > fill(0.5), _norm(p, w.z, 0)
        d0 = _ratio(p, size, fill(0.0), size, r, growing, options)
        d1 = _ratio(p, _norm(p, w.k, 0), load(w.k, nd), size, r, growing, options)
        small = (d0 < fill(1e-5)) | (d1 < fill(1e-5))
        h0 = where(small, fill(1e-6), fill(0.01) * d0 / d1)
        store(w.h, 0, h0)
        _slopes(p, w, np.intp(0), np.intp(0))
        for i in range(m):
            store(w.k, m + i, load(w.k, m + i) - load(w.k, i))
        d2 = _ratio(p, _norm(p, w.k, m), load(w.k, m + nd), size, r, growing, options) / h0
        steepest = maximum(d2, d1)
        power = exp(fill(-0.2) * rough_log(fill(100.0) * maximum(steepest, fill(1e-300))))
        h1 = where(steepest <= fill(1e-15), maximum(h0 * fill(1e-3), fill(1e-6)), power)
        store(desk.control, STEP, minimum(fill(100.0) * h0, h1))
        for lane in range(some_lanes):
            k = first + lane
            if desk.control[LANDED, lane] == 0.0:
                row, queue.outcome[k] = queue.row[k], INVALID
                book.outcome[row] = INVALID
                book.states[row], book.events[row], book.observed[row] = np.nan, np.nan, np.nan
            for i in range(m):
                queue.z[k, i], queue.slope[k, i] = w.z[i, lane], w.k[i, lane]
            queue.growing[k] = w.growing[0, lane] > 0
            if queue.step[k] == 0:
                queue.step[k] = desk.control[STEP, lane]


@fast
def _stiff(p, w, c, options, h, steps, accepted):
    """Follows the mean of h times the dominant eigenvalue; returns where it tells of stiffness."""
    m, mean = p.n * p.d + 1, load(c, STIFFNESS)
    tested = accepted & (steps >= fill(options.patience))
    if some(tested):
        bent, moved = fill(0.0), fill(1e-300)
        for i in range(m - 1):
            bent = maximum(absolute(load(w.k, 6 * m + i) - load(w.k, 5 * m + i)), bent)
            before = fma(h, _sixth(w, m, i), load(w.z, i))
            moved = maximum(absolute(load(w.stage, i) - before), moved)
        mean = where(tested, fma(fill(STIFF_SHARE), h * bent / moved - mean, mean), mean)
        store(c, STIFFNESS, mean)
    return mean > fill(STIFF_LIMIT)


@njit(inline="always", error_model="numpy")
def _step(p, w, desk, queue, options, book):
    """One attempted step of every lane; returns whether some lane needs attention, as marked in control."""
    c, nd, m = desk.control, p.n * p.d, p.n * p.d + 1
    one, none = fill(1.0), fill(0.0)
    t, step, target, steps = load(c, T), load(c, STEP), load(c, TARGET), load(c, STEPS)
    active, growing = load(c, ACTIVE) > fill(0.5), load(w.growing, 0) > fill(0.5)
    lands = t + fill(LANDING) * step >= target
    h = where(lands, target - t, step)
    store(w.h, 0, h)
    _slopes(p, w, np.intp(2), np.intp(7))
    if p.sphere:
        normalise(p, w)

    old, size, error, check = none, none, none, none
    for i in range(nd):
        end = load(w.stage, i)
        old, size = maximum(absolute(load(w.z, i)), old), maximum(absolute(end), size)
        error = maximum(absolute(_error(w, m, i)), error)
        check = fma(end, none, fma(load(w.k, 6 * m + i), none, check))
    ratio = _ratio(p, h * error, h * _error(w, m, nd), maximum(old, size), load(w.z, nd), growing, options)
    ratio = where(check >= none, ratio, fill(1e300))
    accepted = active & (ratio <= one)

    growth = fill(BETA) * rough_log(load(c, ERROR)) - fill(ALPHA) * rough_log(maximum(ratio, fill(1e-300)))
    growth = minimum(maximum(fill(SAFETY) * exp(growth), fill(LEAST)), fill(MOST))
    growth = where(accepted & (load(c, REJECTED) < fill(0.5)), growth, minimum(growth, one))
    proposal = h * growth
    proposal = where(accepted & (growth >= one), maximum(proposal, step), proposal)

    t_end = where(lands, target, t + h)
    last = t_end
    if len(options.form):
        last = _watch(p, w, desk, queue, options, book, t, h, t_end, accepted)
    stiff = _stiff(p, w, c, options, h, steps, accepted) if options.stiff else one < none
    for i in range(m):
        store(w.z, i, where(accepted, load(w.stage, i), load(w.z, i)))
        store(w.k, i, where(accepted, load(w.k, 6 * m + i), load(w.k, i)))
    t = where(accepted, last, t)
    store(c, T, t)
    store(c, STEP, proposal)
    store(c, ERROR, where(accepted, maximum(ratio, fill(SMALLEST_ERROR)), load(c, ERROR)))
    store(c, REJECTED, where(accepted, none, one))
    store(c, STEPS, steps + one)
    landed = accepted & lands & (last >= t_end)
    store(c, LANDED, where(landed, one, none))
    store(c, CALLS, where(stiff, one, none))
    size = where(accepted, size, old)
    log_size = rough_log(maximum(size, fill(1e-300))) + load(w.z, nd)
    attention = landed | stiff | (log_size > fill(options.log_escape - 1e-4))
    attention = attention | (steps + one >= fill(options.max_steps))
    attention = attention | (fill(0.1) * proposal <= fill(EPS) * absolute(t))
    if len(options.form):
        attention = attention | (load(c, STOPS) > fill(0.5))
    if p.growth:
        attention = attention | (growing & (log_size < fill(1e-4)))
        outgrown = negate(growing) & (size > fill(OUTGROWN))
        if some(outgrown):
            dot = none
            for i in range(nd):
                dot = fma(load(w.z, i), load(w.k, i), dot)
            attention = attention | (outgrown & ((dot > none) | (size > fill(FAR))))
    attention = attention & active
    store(c, ATTENTION, where(attention, one, none))
    return some(attention)


@njit(inline="always", error_model="numpy")
def _march(p, w, desk, weights, queue, options, book):
    """Advances the systems of the queue to their ends."""
    waiting, busy = np.intp(0), 0
    for lane in range(LANES):
        waiting = _seat(p, w, desk, weights, queue, options, book, lane, waiting)
        busy += desk.control[ACTIVE, lane] == 1.0
    while busy:
        if not _step(p, w, desk, queue, options, book):
            continue
        for lane in range(LANES):
            if desk.control[ATTENTION, lane] == 1.0 and _attend(p, w, desk, queue, options, book, lane):
                waiting = _seat(p, w, desk, weights, queue, options, book, lane, waiting)
                busy -= desk.control[ACTIVE, lane] == 0.0


def _entry_points(source: str):
    """``_prepare`` and ``_march``, compiled code being kept on disk.

    What a function closes over is part of its key in Numba's cache: ``source`` tells builds of different code
    apart, which the date of one file does not.
    """

    @njit(error_model="numpy", nogil=True, cache=True)
    def prepare(p, w, desk, weights, queue, options, book):
        if source:
            _prepare(p, w, desk, weights, queue, options, book)

    @njit(error_model="numpy", nogil=True, cache=True)
    def march(p, w, desk, weights, queue, options, book):
        if source:
            _march(p, w, desk, weights, queue, options, book)

    return prepare, march


_SOURCES = (sys.modules[__name__], dp, lanes, lane_flow, radial, watch)
_prepare_all, _march_all = _entry_points(sha256("".join(map(getsource, _SOURCES)).encode()).hexdigest())


# From tensors to arrays and back


def _flat(part: Tensor | None, heads: bool) -> np.ndarray:
    """Weights (…, [heads,] batch) as (batch, heads · …)."""
    if part is None:
        return np.zeros((1, 0))
    part = part.movedim((-1, -2), (0, 1)) if heads else part.movedim(-1, 0)
    return np.ascontiguousarray(part.flatten(1).numpy())


def _weights(kernel: Kernel, forms: list[Tensor]) -> Weights:
    parts = [kernel.left, kernel.value, kernel.right, kernel.turns, kernel.bias]
    left, value, right, turns, bias = (_flat(part, kernel.has_heads) for part in parts)
    positions = _flat(kernel.positions, False)
    watched = torch.cat([form.flatten(1) for form in forms], 1).numpy() if forms else np.zeros((1, 0))
    return Weights(left, value, right, turns, bias, positions, np.ascontiguousarray(watched))


def _shape(task: Task, n: int, symmetric: bool, forms: int) -> Shape:
    kernel = task.kernel
    bias_heads = 0 if kernel.bias is None else kernel.bias.shape[2] if kernel.has_heads else 1
    return Shape(
        n=n,
        d=kernel.value.shape[0],
        r=kernel.left.shape[1],
        heads=kernel.value.shape[2] if kernel.has_heads else 1,
        symmetric=symmetric,
        causal=kernel.causal,
        rotary=kernel.right is not None,
        rotated=kernel.rotated_values and kernel.turns is not None,
        bias=kernel.bias is not None,
        bias_heads=bias_heads,
        positions=kernel.positions is not None,
        encoded=kernel.encoded_values,
        sphere=kernel.sphere,
        growth=task.growth,
        forms=forms,
    )


def _symmetric(kernel: Kernel) -> Tensor:
    """Which systems have s_ij = s_ji, up to the rounding of W (batch or 1,)."""
    W = kernel.left
    if kernel.right is not None or kernel.bias is not None or kernel.causal:
        return torch.zeros(W.shape[-1], dtype=torch.bool)
    gap, size = (W - W.transpose(0, 1)).abs(), W.abs()
    return gap.flatten(0, -2).amax(0) <= 4 * EPS * size.flatten(0, -2).amax(0)


def _options(task: Task, forms: list[int]) -> Options:
    watched = [item.quantity for item in (*task.events, *task.observables)]
    levels = [torch.as_tensor(event.level) for event in task.events]
    return Options(
        times=task.times.numpy(),
        rtol=task.rtol,
        atol=task.atol,
        max_steps=task.max_steps,
        log_escape=task.log_escape,
        stiff=task.stiff,
        patience=max(dp.STIFF_AFTER, PATIENCE * task.max_steps),
        form=np.array(forms, dtype=np.int64),
        differences=np.array([quantity.of == "differences" for quantity in watched], dtype=np.bool_),
        smallest=np.array([quantity.extremum == "smallest" for quantity in watched], dtype=np.bool_),
        rising=np.array([event.rising for event in task.events], dtype=np.bool_),
        terminal=np.array([event.terminal for event in task.events], dtype=np.bool_),
        levels=torch.stack(levels, 1).contiguous().numpy() if levels else np.zeros((1, 0)),
        record=np.array([RECORDS.index(item.record) for item in task.observables], dtype=np.int64),
    )


def _queue(at: Position) -> Queue:
    rows = len(at.row)
    z = np.ascontiguousarray(at.z.mT.numpy())
    return Queue(
        row=at.row.numpy(),
        z=z,
        growing=at.growing.numpy().copy(),
        t=at.t.numpy().copy(),
        step=at.step.numpy().copy(),
        goal=at.goal.numpy().copy(),
        steps=at.steps.numpy().copy(),
        slope=np.empty_like(z),
        outcome=np.full(rows, PENDING),
    )


def _handed(at: Position, queue: Queue) -> Position:
    """The systems that were found stiff, where they are now."""
    left = torch.from_numpy(queue.outcome == HANDED)
    parts = (queue.growing, queue.t, queue.step, queue.goal, queue.steps)
    z = torch.from_numpy(queue.z).mT
    return Position(at.row, z, *map(torch.from_numpy, parts)).keep(left)


def _desk(shape: Shape, options: Options) -> Desk:
    events, observables = len(options.rising), len(options.record)
    return Desk(
        control=Rows(CONTROLS),
        levels=Rows(events),
        when=Rows(events),
        values=Rows(observables),
        records=Rows(observables),
        between=Rows(shape.n * shape.d + 1),
        index=np.zeros(LANES, dtype=np.int64),
        goal=np.zeros(LANES, dtype=np.int64),
    )


def run(task: Task, at: Position, record: Solution) -> Position:
    """Dormand–Prince steps on the CPU, eight systems at a time, on as many threads as Torch uses."""
    n = (len(at.z) - 1) // task.kernel.value.shape[0]
    watched = [item.quantity for item in (*task.events, *task.observables)]
    given = [quantity.form for quantity in watched if quantity.form is not None]
    numbers = iter(range(len(given)))
    forms = [-1 if quantity.form is None else next(numbers) for quantity in watched]
    weights, options = _weights(task.kernel, given), _options(task, forms)
    book = Book(
        record.states.flatten(2).numpy(),
        *(getattr(record, name).numpy() for name in Book._fields[1:]),
    )
    symmetric = _symmetric(task.kernel).expand(len(record.outcome))[at.row]

    def march(part: Position, shape: Shape, known: bool) -> Position:
        queue, p = _queue(part), Known(shape) if known else shape
        w, desk = room(shape), _desk(shape, options)
        _prepare_all(p, w, desk, weights, queue, options, book)
        _march_all(p, w, desk, weights, queue, options, book)
        return _handed(part, queue)

    jobs = []
    for kind in (False, True):
        part = at.keep(symmetric == kind)
        if len(part.row):
            shape = Shape(*map(int, _shape(task, n, kind, len(given))))
            known = len(part.row) >= WORTH_COMPILING
            threads = max(1, min(torch.get_num_threads(), len(part.row) // (8 * LANES)))
            order = torch.arange(len(part.row))
            jobs += [(part.keep(order % threads == k), shape, known) for k in range(threads)]
    with ThreadPoolExecutor(max(1, len(jobs))) as pool:
        return join([at.none(), *pool.map(lambda job: march(*job), jobs)])
