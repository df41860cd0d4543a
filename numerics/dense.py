"""Trajectories between output times: the interpolants of all accepted steps."""

import torch
from torch import Tensor

from numerics.checks import check_tensor
from numerics.errors import InputError
from numerics.kernel import Kernel, on_sphere
from numerics.radial import tokens

Polynomial = tuple[Tensor, ...]
"""The coefficients of z(θ) = c₁ + θ(c₂ + (1−θ)(c₃ + θ(c₄ + (1−θ)c₅))), 0 ≤ θ ≤ 1."""


def interpolate(path: Polynomial, theta: Tensor) -> Tensor:
    """z(θ) for theta (batch,)."""
    c1, c2, c3, c4, c5 = path
    return c1 + theta * (c2 + (1 - theta) * (c3 + theta * (c4 + (1 - theta) * c5)))


class Dense:
    """Tokens at any time: dense(t) with t (times,) or (batch, times) gives (batch, times, n, d).

    Between the ends of steps it is the method's own interpolant, with a local error of the fifth order. NaN
    outside a row's span, from times[0] to last_time, and everywhere in a row without a step; inf where tokens
    overflow. Memory: five states for each accepted step of each row.
    """

    def __init__(self, kernel: Kernel, batch: int, n: int, start: Tensor):
        self._kernel, self._batch, self._n, self._start = kernel, batch, n, start
        self._steps: list[tuple[Tensor, ...]] = []

    def add(self, row: Tensor, t: Tensor, end: Tensor, h: Tensor, path: Polynomial, accepted: Tensor) -> None:
        """Keeps the accepted steps among these: of size h from t, used up to end ≤ t + h."""
        parts = (row, t, end, h, torch.stack(path))
        self._steps.append(tuple(part[..., accepted] for part in parts))

    def _sorted(self) -> tuple[Tensor, ...]:
        """All steps by row, and in a row by time."""
        if len(self._steps) > 1:
            parts = [torch.cat(part, -1) for part in zip(*self._steps, strict=True)]
            order = torch.argsort(parts[0], stable=True)
            self._steps = [tuple(part[..., order] for part in parts)]
        return self._steps[0]

    def __call__(self, t: Tensor) -> Tensor:
        check_tensor("t", t, "times", "batch times")
        wanted = (t.expand(self._batch, -1) if t.ndim == 1 else t).to(self._start) - self._start
        if len(wanted) != self._batch:
            expected = f"(times,) or (batch, times), batch = {self._batch}"
            raise InputError("t", f"shape {tuple(t.shape)}", expected, "check the axes")
        x = wanted.new_full((*wanted.shape, self._n, self._kernel.value.shape[0]), torch.nan)
        if not self._steps or not len(self._sorted()[0]):
            return x
        row, start, end, h, path = self._sorted()
        count = torch.bincount(row, minlength=self._batch)[:, None]
        low = (count.cumsum(0) - count).expand_as(wanted)
        high = low + count - 1
        last = len(start) - 1  # a row without steps has high = low − 1
        inside = (low <= high) & (start[low.clamp(max=last)] <= wanted) & (wanted <= end[high.clamp(min=0)])
        low, high, wanted = low[inside], high[inside], wanted[inside]
        while (low < high).any():  # the last step of the row that starts at or before the wanted time
            middle = (low + high + 1) // 2
            before = start[middle] <= wanted
            low, high = torch.where(before, middle, low), torch.where(before, high, middle - 1)
        z = interpolate(tuple(path[..., low]), (wanted - start[low]) / h[low])
        u = tokens(z, self._kernel)
        x[inside] = (on_sphere(u) if self._kernel.sphere else u).movedim(-1, 0)
        return x
