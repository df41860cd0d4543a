"""Gradients of sampled states by the discrete adjoint: reverse mode through the accepted steps.

Discretise, then differentiate: Hairer, Lubich & Wanner, "Geometric Numerical Integration", VI.6, on the
adjoint of a Runge–Kutta step.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from numerics import radial
from numerics.errors import InputError
from numerics.kernel import Kernel
from numerics.solution import Solution
from numerics.torch_backend import DORMAND_PRINCE, Accepted, advance

WEIGHTS = ("left", "value", "right", "turns", "bias", "positions")


def tape(kernel: Kernel, x0: Tensor, backend: str, method: str) -> list[Accepted] | None:
    """An empty tape if states may have to be differentiated by x0 or a weight of the kernel, else None.

    Raises InputError if they may, and the method or the back-end has no gradient.
    """
    parts = (x0, *_weights(kernel))
    if not torch.is_grad_enabled() or not any(part is not None and part.requires_grad for part in parts):
        return None
    for argument, value, known in (("backend", backend, "torch"), ("method", method, "dormand-prince")):
        if value not in ("auto", known):
            got = f"{value!r} with tensors that require a gradient"
            raise InputError(argument, got, f"'auto' or {known!r}", "or call it under torch.no_grad()")
    return []


def differentiable(record: Solution, tape: list[Accepted], kernel: Kernel, x0: Tensor) -> Solution:
    """The record with states that can be differentiated, once, by x0 (batch, n, d) and the kernel's weights.

    The gradient is exactly that of the Dormand–Prince steps on the tape, their sizes held constant. Samples
    that a row did not reach contribute nothing. Memory: a state and a slope for each step of each row.
    """
    return replace(record, states=_Replay.apply(record.states, tape, kernel, x0, *_weights(kernel)))


def _weights(kernel: Kernel) -> list[Tensor | None]:
    return [getattr(kernel, name) for name in WEIGHTS]


class _Pull:
    """Vector–Jacobian products of functions of rows and kernel; ``totals`` adds up those by the weights."""

    def __init__(self, kernel: Kernel, weights: dict[str, Tensor | None]):
        self.kernel, self.weights = kernel, {name: w for name, w in weights.items() if w is not None}
        self.totals = {name: torch.zeros_like(w) for name, w in self.weights.items()}

    def __call__(
        self, function: Callable, row: Tensor, inputs: tuple[Tensor, ...], outer: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """outer · ∂function/∂inputs for function(*inputs, kernel) of some rows."""
        own = {name: w if w.shape[-1] == 1 else w[..., row] for name, w in self.weights.items()}
        leaves = [part.detach().requires_grad_() for part in (*inputs, *own.values())]
        kernel = replace(self.kernel, **dict(zip(own, leaves[len(inputs) :], strict=True)))
        with torch.enable_grad():
            value = function(*leaves[: len(inputs)], kernel)
        found = torch.autograd.grad(value, leaves, outer, materialize_grads=True)
        for name, part in zip(own, found[len(inputs) :], strict=True):
            total = self.totals[name]
            total.add_(part) if total.shape[-1] == 1 else total.index_add_(-1, row, part)
        return found[: len(inputs)]


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states, tape, kernel, x0, *weights):
        ctx.tape, ctx.kernel = tape, kernel
        ctx.save_for_backward(states[:, 0].isfinite(), x0, *weights)
        return states.clone()

    @staticmethod
    def backward(ctx, grad):
        if torch.is_grad_enabled():
            expected = "False: states of a solution can be differentiated once"
            raise InputError("create_graph", True, expected, "take differences of first derivatives")
        started, x0, *weights = ctx.saved_tensors
        pull = _Pull(ctx.kernel, dict(zip(WEIGHTS, weights, strict=True)))
        z = radial.pack(x0.movedim(0, -1), torch.zeros_like(x0[:, 0, 0]))
        to_z, to_slope = torch.zeros_like(z), torch.zeros_like(z)
        for at in reversed(ctx.tape):
            landed = at.goal >= 0
            rows = at.row[landed]
            to_z[:-1, rows] += grad[rows, at.goal[landed]].flatten(1).mT
            outer = to_z[:, at.row], to_slope[:, at.row]
            inner = pull(partial(_step, at.h), at.row, (at.z, at.slope), outer)
            to_z[:, at.row], to_slope[:, at.row] = inner
        rows = torch.cat([started.new_zeros(0, dtype=int), *(at.row for at in ctx.tape)]).unique()
        to_z[:, rows] += pull(_slope, rows, (z[:, rows],), (to_slope[:, rows],))[0]
        to_x0 = to_z[:-1].unflatten(0, x0.shape[1:]).movedim(-1, 0)
        to_x0 = to_x0 + torch.where(started, grad[:, 0], 0.0)
        return None, None, None, to_x0, *(pull.totals.get(name) for name in WEIGHTS)


def _slope(z: Tensor, kernel: Kernel) -> Tensor:
    return radial.slope(z, kernel, None)


def _step(h: Tensor, z: Tensor, slope: Tensor, kernel: Kernel) -> tuple[Tensor, Tensor]:
    """State and slope at the end of a step."""
    new = advance(DORMAND_PRINCE, z, slope, h, kernel, None)
    return new.z, new.slope
