"""Events and observables of the rows under way, followed from step to step."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from numerics.dense import Polynomial, interpolate
from numerics.kernel import Kernel, contract, inner
from numerics.quantities import Event, Observable, Quantity, Watched
from numerics.radial import tokens, unpack
from numerics.solution import Solution
from numerics.task import Position, Task

RESOLUTION = 2.0**-48  # of an event's time, as a share of its step
GAUSS = (
    (0.5 - math.sqrt(0.15), 5 / 18),
    (0.5, 8 / 18),
    (0.5 + math.sqrt(0.15), 5 / 18),
)  # on [0, 1], order 6


def evaluate(quantity: Watched, form: Tensor | None, z: Tensor, kernel: Kernel) -> Tensor:
    """The quantity (batch,) at states z; form (d, d, batch). It may overflow to ±inf."""
    if not isinstance(quantity, Quantity):
        return quantity(tokens(z, kernel).movedim(-1, 0))
    u, r = unpack(z, kernel)
    larger = quantity.extremum == "largest"

    def extremum(v: Tensor) -> Tensor:
        values = inner(v if form is None else contract(v, form), v)[:, 0]
        return values.amax(0) if larger else values.amin(0)

    if quantity.of == "tokens":
        value = extremum(u)
    else:
        value = extremum(u[1:] - u[:-1])
        for k in range(2, len(u)):
            other = extremum(u[k:] - u[:-k])
            value = torch.maximum(value, other) if larger else torch.minimum(value, other)
    scale = r.clamp(max=700).exp()
    return value * scale * scale


def _first_root(gap, at_end: Tensor) -> Tensor:
    """The end of a bracket of width 2·RESOLUTION in (0, 1] with gap ≥ 0 there and < 0 at its other end.

    ITP (Oliveira & Takahashi, ACM TOMS 47, 2020), every entry for itself; at_end is gap(1) ≥ 0, gap(0) < 0.
    """
    low, high = torch.zeros_like(at_end), torch.ones_like(at_end)
    gap_low, gap_high = gap(low), at_end
    reach = 1.0
    while (open_ := high - low > 2 * RESOLUTION).any():
        middle, half = (low + high) / 2, (high - low) / 2
        secant = (gap_high * low - gap_low * high) / (gap_high - gap_low)
        side = torch.sign(middle - secant)
        shift = 0.2 * (high - low) ** 2
        point = torch.where(shift <= (middle - secant).abs(), secant + side * shift, middle)
        slack = reach - half
        point = torch.where((point - middle).abs() <= slack, point, middle - side.nan_to_num() * slack)
        value = gap(point)
        passed = value >= 0
        high, gap_high = torch.where(open_ & passed, point, high), torch.where(passed, value, gap_high)
        low, gap_low = torch.where(open_ & ~passed, point, low), torch.where(passed, gap_low, value)
        reach /= 2
    return high


@dataclass
class Watch:
    """What the rows under way are watched for; every tensor has the batch as its last axis."""

    events: tuple[Event, ...]
    observables: tuple[Observable, ...]
    forms: list[Tensor | None]  # (d, d, batch) of the events' quantities, then the observables'
    levels: Tensor  # (events, batch)
    times: Tensor  # (events, batch), NaN before the event
    records: Tensor  # (observables, batch)

    def keep(self, rows: Tensor) -> "Watch":
        forms = [None if form is None else form[..., rows] for form in self.forms]
        names = ("levels", "times", "records")
        return replace(self, forms=forms, **{name: getattr(self, name)[:, rows] for name in names})

    def _gap(self, e: int, z: Tensor, kernel: Kernel, rows: Tensor | slice = slice(None)) -> Tensor:
        """≥ 0 where event e is on."""
        event, form = self.events[e], self.forms[e]
        value = evaluate(event.quantity, None if form is None else form[..., rows], z, kernel)
        level = self.levels[e, rows]
        return value - level if event.rising else level - value

    def _observe(self, z: Tensor, kernel: Kernel) -> list[Tensor]:
        forms = self.forms[len(self.events) :]
        return [
            evaluate(o.quantity, form, z, kernel) for o, form in zip(self.observables, forms, strict=True)
        ]

    def start(self, at: Position, kernel: Kernel) -> Tensor:
        """Events and records at the start; returns which rows a terminal event stops there."""
        stopped = torch.zeros_like(at.growing)
        for e, event in enumerate(self.events):
            on = self._gap(e, at.z, kernel) >= 0
            self.times[e] = torch.where(on, at.t, torch.nan)
            stopped = stopped | (on & event.terminal)
        for o, (item, value) in enumerate(zip(self.observables, self._observe(at.z, kernel), strict=True)):
            self.records[o] = 0.0 if item.record == "integral" else value
        return stopped

    def advance(
        self,
        path: Polynomial,
        end: Tensor,
        t: Tensor,
        h: Tensor,
        t_end: Tensor,
        accepted: Tensor,
        kernel: Kernel,
    ) -> tuple[Tensor, Tensor]:
        """Follows a step from t to t_end with state z = end there; returns (stopped, time) of each row."""
        when = torch.full_like(self.times, torch.inf)
        for e in range(len(self.events)):
            gaps = self._gap(e, end, kernel)
            rows = (accepted & self.times[e].isnan() & (gaps >= 0)).nonzero()[:, 0]
            if len(rows):
                root = self._locate(e, rows, gaps[rows], tuple(c[..., rows] for c in path), kernel.keep(rows))
                when[e, rows] = torch.where(root == 1, t_end[rows], t[rows] + root * h[rows])
        terminal = [when[e] for e, event in enumerate(self.events) if event.terminal]
        last = torch.stack([*terminal, t_end]).amin(0)
        stopped = torch.stack([*terminal, torch.full_like(t, torch.inf)]).amin(0) <= t_end
        self.times = torch.where(when <= last, when, self.times)
        if self.observables:
            span = torch.where(last < t_end, (last - t) / h, 1.0)
            if (last < t_end).any():
                end = torch.where(last < t_end, interpolate(path, span), end)
            self._record(path, end, span, h, accepted, kernel)
        return stopped, last

    def _locate(self, e: int, rows: Tensor, gaps: Tensor, path: Polynomial, kernel: Kernel) -> Tensor:
        """When event e occurs on a step of these rows, as a share of it; at its end the gap is ``gaps``."""
        return _first_root(lambda share: self._gap(e, interpolate(path, share), kernel, rows), gaps)

    def _record(
        self, path: Polynomial, end: Tensor, span: Tensor, h: Tensor, accepted: Tensor, kernel: Kernel
    ) -> None:
        """Adds the first ``span`` of a step."""
        new = self._observe(end, kernel)
        kinds = [o.record for o in self.observables]
        integral = self._integral(path, span, h, accepted, kernel) if "integral" in kinds else new
        for o, kind in enumerate(kinds):
            if kind == "integral":
                record = self.records[o] + integral[o]
            else:
                record = (torch.maximum if kind == "maximum" else torch.minimum)(self.records[o], new[o])
            self.records[o] = torch.where(accepted, record, self.records[o])

    def _integral(
        self, path: Polynomial, span: Tensor, h: Tensor, accepted: Tensor, kernel: Kernel
    ) -> Tensor:
        """∫ over the first ``span`` of a step, in parts in which e²ʳ changes by about e^½ at most."""
        parts = (4 * path[1][-1].abs()).ceil().nan_to_num().clamp(1, 2000)
        total = torch.zeros_like(self.records)
        for part in range(int(torch.where(accepted, parts, 1).max())):
            for node, weight in GAUSS:
                value = torch.stack(self._observe(interpolate(path, span * (part + node) / parts), kernel))
                total = torch.where(part < parts, total + weight * value, total)
        return total * (span * h / parts)

    def write(self, record: Solution, row: Tensor, mask: Tensor) -> None:
        """Writes times and records of the rows selected by a mask into the record."""
        record.events[row[mask]] = self.times[:, mask].mT
        record.observed[row[mask]] = self.records[:, mask].mT


def watch(task: Task, at: Position, kernel: Kernel, record: Solution) -> Watch | None:
    """The watch over rows at a position, from what the record says of them so far; None without a task."""
    if not task.events and not task.observables:
        return None
    quantities = [item.quantity for item in (*task.events, *task.observables)]
    forms = [q.form if isinstance(q, Quantity) else None for q in quantities]
    levels = [torch.as_tensor(event.level)[at.row] for event in task.events]
    return Watch(
        events=task.events,
        observables=task.observables,
        forms=[None if form is None else form[at.row].movedim(0, -1).contiguous() for form in forms],
        levels=torch.stack(levels) if levels else record.events[at.row].mT,
        times=record.events[at.row].mT.clone(),
        records=record.observed[at.row].mT.clone(),
    )
