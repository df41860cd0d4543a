"""Batched adaptive integration: every system has its own step size and its own outcome."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from numbers import Real

import torch
from torch import Tensor

from numerics import gradient, memory, radial, rosenbrock, torch_backend
from numerics.checks import check_choice, check_match, check_shape, check_tensor
from numerics.dense import Dense
from numerics.errors import InputError
from numerics.kernel import LARGE
from numerics.quantities import EXTREMA, OF, RECORDS, Event, Observable, Quantity, Watched
from numerics.shapes import Times, Tokens
from numerics.solution import Outcome, Solution, empty
from numerics.system import AttentionSystem, batch_last
from numerics.task import Position, Task
from numerics.watch import watch

BACKENDS = ("auto", "torch", "compiled", "numba")
MANY = 1024  # rows for which "auto" compiles on CUDA
RTOL = {torch.float64: 1e-8, torch.float32: 1e-5}
METHODS = ("auto", "dormand-prince", "rosenbrock", "rk4")

Run = Callable[[Task, Position, Solution], Position]


# Arguments


def _check_sphere(x0: Tokens) -> None:
    length = torch.linalg.vector_norm(x0, dim=-1)
    tolerance = 1e-9 if x0.dtype == torch.float64 else 1e-5
    rows = ((length - 1).abs() > tolerance).logical_and(length.isfinite()).any(1).nonzero().flatten().tolist()
    if rows:
        fix = "torch.nn.functional.normalize(x0, dim=-1)"
        raise InputError("x0", f"tokens off the unit sphere in rows {rows[:8]}", "unit tokens", fix)


def _check_number(
    argument: str, value: object, expected: str, good: Callable[[float], bool], fix: str
) -> None:
    if isinstance(value, bool) or not isinstance(value, Real) or not good(value):  # pyright: ignore
        raise InputError(argument, repr(value), expected, fix)


def _times(times: object, until: object, x0: Tokens) -> Times:
    if (times is None) == (until is None):
        got = "neither times nor until" if times is None else "both times and until"
        raise InputError("times", got, "one of them", "until=T stands for times = (0, T)")
    if until is not None:
        least, most = torch.finfo(x0.dtype).tiny, torch.finfo(x0.dtype).max
        _check_number(
            "until", until, "a finite time > 0", lambda T: least <= T <= most, "use e.g. until=10.0"
        )
        return x0.new_tensor([0.0, until])
    check_tensor("times", times, "times")
    assert isinstance(times, Tensor)
    found = times.to(x0).contiguous()
    bad = ~found.isfinite()
    bad[1:] |= ~(found.diff() > 0)
    if len(found) < 2 or bad.any():
        first = int(bad.nonzero()[0]) if bad.any() else 0
        got = f"… {times[max(0, first - 2) : first + 2].tolist()} … in {x0.dtype}, entry {first}"
        expected = "at least two finite, strictly increasing times, the first being that of x0"
        raise InputError("times", got, expected, "sort them, drop repeats, prepend the start")
    return found


def _check_options(rtol: float, atol: float, max_steps: int, escape: float, dtype: torch.dtype) -> None:
    eps = torch.finfo(dtype).eps
    expected = f"machine epsilon {eps:.1e} ≤ rtol < 1"
    _check_number("rtol", rtol, expected, lambda v: eps <= v < 1, f"use e.g. {RTOL[dtype]}")
    fix = "use e.g. 1e-10, far below the tokens' size"
    tiny = torch.finfo(dtype).tiny
    _check_number("atol", atol, f"a positive number from {tiny:.1e} on", lambda v: tiny <= v < math.inf, fix)
    _check_number(
        "max_steps",
        max_steps,
        "an integer from 1 to 2⁵³",
        lambda v: 1 <= v <= 2**53 and v == int(v),
        "use the default",
    )
    fix = "use the default, or math.inf for no threshold"
    _check_number("escape", escape, "a positive threshold", lambda v: v > 0, fix)


def _check_method(backend: str, method: str, step: float | None, dense: bool, watched: bool) -> None:
    check_choice("backend", backend, BACKENDS)
    check_choice("method", method, METHODS)
    if step is None and method == "rk4":
        raise InputError("step", None, "a number with method='rk4'", "use e.g. step=0.01")
    if step is not None and method != "rk4":
        got = f"{step!r} with method={method!r}"
        raise InputError(
            "step", got, "a step with method='rk4' only", "leave it out: this method chooses its own"
        )
    if step is not None:
        _check_number("step", step, "a positive number", lambda h: 0 < h < math.inf, "use e.g. 0.01")
    if method == "rk4" and (dense or watched):
        got = "method='rk4' with events, observe or dense"
        raise InputError("method", got, "an adaptive method for these", "use method='auto'")
    if method in ("rk4", "rosenbrock") and backend not in ("auto", "torch"):
        got = f"{backend!r} with method={method!r}"
        raise InputError("backend", got, "'auto' or 'torch' for this method", "leave backend out")


def _prepare(argument: str, quantity: Watched, system: AttentionSystem, x0: Tokens) -> Watched:
    """The quantity, checked, with its form as None or (batch, d, d)."""
    if not isinstance(quantity, Quantity):
        if not callable(quantity):
            expected = "a Quantity or a function of tokens (rows, n, d)"
            raise InputError(argument, type(quantity).__name__, expected, "e.g. Quantity(of='differences')")
        value = quantity(x0)
        if not isinstance(value, Tensor) or value.shape != x0.shape[:1] or value.dtype != x0.dtype:
            got = f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else value
            raise InputError(
                argument, got, f"one {x0.dtype} per row of tokens (rows, n, d)", "reduce over n, d"
            )
        return quantity
    check_choice(f"{argument}.of", quantity.of, OF)
    check_choice(f"{argument}.extremum", quantity.extremum, EXTREMA)
    if quantity.of == "differences" and x0.shape[1] == 1:
        raise InputError(argument, "differences of a single token", "at least two tokens", "use of='tokens'")
    if quantity.form is None:
        return quantity
    check_tensor(f"{argument}.form", quantity.form, "d d", "batch d d")
    form = quantity.form.expand(system.batch, -1, -1) if quantity.form.ndim == 2 else quantity.form
    check_shape(f"{argument}.form", form, (system.batch, system.dim, system.dim), "(d, d) or (batch, d, d)")
    check_match(f"{argument}.form", form, "x0", x0)
    if not form.isfinite().all():
        raise InputError(f"{argument}.form", "NaN or infinite entries", "finite matrices", "repair the form")
    return replace(quantity, form=form)


def _events(events: Sequence[Event], system: AttentionSystem, x0: Tokens) -> tuple[Event, ...]:
    found = []
    for k, event in enumerate(_sequence("events", events, Event)):
        name = f"events[{k}]"
        if not isinstance(event.level, (Real, Tensor)):
            got = type(event.level).__name__
            raise InputError(f"{name}.level", got, "a number or a tensor", "e.g. level=1.0")
        level = torch.as_tensor(event.level)
        if level.shape not in ((), x0.shape[:1]) or level.is_complex() or level.isnan().any():
            expected = f"a number or a tensor ({len(x0)},) without NaN"
            raise InputError(f"{name}.level", event.level, expected, "give one level per system")
        quantity = _prepare(f"{name}.quantity", event.quantity, system, x0)
        found.append(replace(event, quantity=quantity, level=level.to(x0).expand(len(x0))))
    return tuple(found)


def _observables(
    observe: Sequence[Observable], system: AttentionSystem, x0: Tokens
) -> tuple[Observable, ...]:
    found = []
    for k, item in enumerate(_sequence("observe", observe, Observable)):
        check_choice(f"observe[{k}].record", item.record, RECORDS)
        quantity = _prepare(f"observe[{k}].quantity", item.quantity, system, x0)
        found.append(replace(item, quantity=quantity))
    return tuple(found)


def _sequence(argument: str, items: object, kind: type) -> Sequence:
    if not isinstance(items, (tuple, list)) or not all(isinstance(item, kind) for item in items):
        raise InputError(argument, repr(items), f"a tuple or list of {kind.__name__}", f"{argument}=(…,)")
    return items


# Back-ends


def _numba_refuses(task: Task, x0: Tokens, dense: bool) -> str | None:
    """Why the Numba back-end does not take this task; None if it does."""
    if x0.device.type != "cpu" or x0.dtype != torch.float64:
        return "tokens that are not float64 on the CPU"
    if dense:
        return "dense=True"
    if not all(isinstance(item.quantity, Quantity) for item in (*task.events, *task.observables)):
        return "functions as quantities"
    n, d = x0.shape[1:]  # eight systems at a time fit into the processor's caches
    return None if max(n, d) <= LARGE else f"n, d = {n}, {d}"


def _run_numba(task: Task, at: Position, record: Solution) -> Position:
    from numerics import numba_backend  # takes time and memory that a program without simulations saves

    return numba_backend.run(task, at, record)


def _run_compiled(task: Task, at: Position, record: Solution, optional: bool) -> Position:
    """The compiled back-end; where compiling fails, the plain one with a warning if that is allowed."""
    try:
        return torch_backend.run_compiled(task, at, record)
    except torch_backend.CompileError as error:
        reason = f"torch.compile failed ({error})"
        if not optional:
            expected = "a working torch.compile (on the CPU it needs a C++ compiler)"
            raise InputError(
                "backend", f"'compiled', but {reason}", expected, "use backend='torch'"
            ) from error
        warnings.warn(f"{reason}; running backend='torch'", stacklevel=4)
        return torch_backend.run(task, at, record)


def _backend(backend: str, method: str, task: Task, x0: Tokens, dense: bool) -> Run:
    """The back-end for adaptive steps."""
    if method == "rosenbrock":
        n, d = x0.shape[1:]
        if not rosenbrock.supports(n, d):
            fix = "use method='auto', or 'rk4' with a small step"
            raise InputError("method", f"'rosenbrock' with n·d = {n * d}", "smaller systems", fix)
        return rosenbrock.run
    refusal = _numba_refuses(task, x0, dense) if backend in ("auto", "numba") else None
    if backend == "numba" and refusal:
        expected = f"float64 on the CPU, n and d up to {LARGE}, Quantity objects, no dense output"
        raise InputError("backend", f"'numba' with {refusal}", expected, "use backend='auto'")
    if backend in ("auto", "numba") and not refusal:
        return _run_numba
    if backend == "compiled" or (backend == "auto" and x0.is_cuda and len(x0) >= MANY):
        return partial(_run_compiled, optional=backend == "auto")
    return torch_backend.run


def _start(task: Task, x0: Tokens, valid: Tensor, record: Solution) -> Position:
    """Writes what is known at the start; returns the rows that are to move."""
    n = len(x0)
    z = batch_last(x0.flatten(1))
    steps = torch.zeros_like(record.steps)
    at = Position(
        row=torch.arange(n, device=x0.device),
        z=torch.cat([z, torch.zeros_like(z[:1])]),
        growing=steps > 0,
        t=record.times[0].repeat(n),
        step=torch.zeros_like(record.last_time),
        goal=steps + 1,
        steps=steps,
    ).keep(valid)
    if task.growth:  # without slopes: rows too far away for plain coordinates only
        at.z, _, at.growing = radial.change(at.z, torch.zeros_like(at.z), at.growing)
    kernel = task.kernel.keep(at.row)
    record.states[at.row, 0] = x0[valid]
    escaped = radial.largest(at.z).log() + at.z[-1] > task.log_escape
    record.outcome[at.row[escaped]] = Outcome.ESCAPED
    if watched := watch(task, at, kernel, record):
        stopped = watched.start(at, kernel)
        watched.write(record, at.row, at.row >= 0)
        record.outcome[at.row[stopped]] = Outcome.STOPPED
        return at.keep(~escaped & ~stopped)
    return at.keep(~escaped)


def integrate(
    system: AttentionSystem,
    x0: Tokens,
    times: Times | None = None,
    *,
    until: float | None = None,
    rtol: float | None = None,
    atol: float = 1e-10,
    max_steps: int = 100_000,
    escape: float = 1e100,
    events: Sequence[Event] = (),
    observe: Sequence[Observable] = (),
    dense: bool = False,
    backend: str = "auto",
    method: str = "auto",
    step: float | None = None,
) -> Solution:
    """Solve ẋ = velocity(x) for every system from x0 (batch, n, d), sampled at ``times`` (x0 at times[0]).

    - times (times,) increase strictly; ``until=T`` stands for times (0, T).
    - rtol (1e-8, or 1e-5 in float32), atol: the error of a step is measured per system, its largest entry
      against atol + rtol · (largest entry of x), so a small token beside a huge one is resolved relative to
      the huge one. Where norms grow, tokens are kept as eʳu and the error of r is measured against rtol.
    - max_steps attempts per row; beyond it a row is STALLED. A row is ESCAPED as soon as the start or an
      accepted step has an entry above ``escape``; math.inf is allowed, and samples then carry log_scale.
    - events, observe: ``Event`` and ``Observable`` objects, evaluated at the ends of accepted steps; a
      crossing that is undone within one step is not seen. Functions as quantities see a varying number of
      rows; that they treat rows independently is the caller's part.
    - dense: keep all steps, for ``solution.dense(t)``.
    - backend: "torch" (any device), "compiled" (torch.compile; the first calls take minutes), "numba" (CPU,
      float64, without dense output and functions as quantities). "auto" takes "numba" where it can,
      "compiled" on CUDA for 1024 rows and more, else "torch".
    - method: "dormand-prince"; "rosenbrock" for stiff systems with n·d up to 256; "auto" is the former and
      hands rows that turn out stiff to the latter; "rk4" takes fixed steps of at most ``step`` without any
      control of the error, and without log-radius, events, observables and dense output.

    Where x0 or a tensor of the system requires a gradient (and gradients are enabled), ``states`` can be
    differentiated once: by reverse mode through the accepted Dormand–Prince steps, their sizes held constant,
    on the Torch back-end, without log-radius and hand-over. Everything else in the solution is constant.

    No row's answer depends, to the last bit, on the other rows ("compiled": to rounding). With ``sphere``
    every accepted state is normalised; x0 must be. Raises InputError for unusable arguments, for "rosenbrock"
    on large systems, for "numba" on what it does not cover, and for "compiled" without a working compiler.
    """
    if not isinstance(system, AttentionSystem):
        fix = "AttentionSystem(score, value)"
        raise InputError("system", type(system).__name__, "an AttentionSystem", fix)
    system.check_tokens(x0, "x0")
    if system.sphere:
        _check_sphere(x0)
    times = _times(times, until, x0)
    rtol = RTOL[x0.dtype] if rtol is None else rtol
    _check_options(rtol, atol, max_steps, escape, x0.dtype)
    _check_method(backend, method, step, dense, bool(events or observe))
    batch, n, d = x0.shape
    kernel = system.kernel(n)
    tape = gradient.tape(kernel, x0, backend, method)
    task = Task(
        kernel=kernel,
        times=times - times[0],  # exact: where they are large, a step would not show in t + h
        rtol=rtol,
        atol=atol,
        max_steps=int(max_steps),
        log_escape=math.log(escape),
        growth=tape is None and method != "rk4" and not system.sphere,
        stiff=tape is None and method == "auto" and rosenbrock.supports(n, d),
        events=_events(events, system, x0),
        observables=_observables(observe, system, x0),
    )
    if step is not None:
        run = partial(torch_backend.run_fixed, step=step)
    elif tape is not None:
        run = partial(torch_backend.march, torch_backend.DORMAND_PRINCE, tape=tape)
    else:
        run = _backend(backend, method, task, x0, dense)
    what, fix = "states at all times and work arrays", "integrate fewer systems or output times in one call"
    heads = 0 if run is _run_numba else system.heads
    memory.require("x0", memory.of_integration(x0, times, heads), what, fix, x0.device)
    keeper = Dense(task.kernel, batch, n, times[0]) if dense else None
    record = empty(task.times, batch, n, d, len(events), len(observe), keeper)
    valid = system.finite & x0.isfinite().flatten(1).all(1)
    if run is not _run_numba:  # which looks for itself
        valid &= system.velocity(x0).isfinite().flatten(1).all(1)
    with torch.no_grad():
        stiff = run(task, _start(task, x0, valid, record), record)
        if len(stiff.row):
            rosenbrock.run(task, stiff, record)
    record = replace(
        record, times=times, last_time=times[0] + record.last_time, events=times[0] + record.events
    )
    return record if tape is None else gradient.differentiable(record, tape, kernel, x0)
