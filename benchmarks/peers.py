"""The same initial value problem through other solvers; the tokens at the end (batch, n, d).

Every solver is a function of a workload, rtol and atol. Those in Torch raise ``TooSlowError`` after
``limit`` seconds of CPU time.
"""

import os
import time
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from benchmarks.workloads import Workload

Solver = Callable[[Workload, float, float], np.ndarray]
MAX_STEPS = 20_000  # of diffrax, which cannot be interrupted


class TooSlowError(Exception):
    """More CPU seconds than the limit."""

    def __init__(self, limit: float):
        super().__init__(f"more than {limit:g} s")
        self.limit = limit


def velocity(x: np.ndarray, W: np.ndarray, V: np.ndarray) -> np.ndarray:
    """V Σ_j P_ij x_j of one system, x (n, d)."""
    scores = x @ W @ x.T
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights @ x @ V.T / weights.sum(1, keepdims=True)


def scipy(method: str, workload: Workload, rtol: float, atol: float) -> np.ndarray:
    """solve_ivp, one system at a time."""
    ends = []
    for W, V, x0 in zip(*workload.arrays(), strict=True):

        def slope(_, y, W=W, V=V, shape=x0.shape):
            return velocity(y.reshape(shape), W, V).ravel()

        solution = solve_ivp(slope, (0, workload.end), x0.ravel(), method, rtol=rtol, atol=atol)
        ends.append(solution.y[:, -1].reshape(x0.shape) if solution.success else np.full_like(x0, np.nan))
    return np.stack(ends)


def log_radius(workload: Workload, rtol: float, atol: float) -> np.ndarray:
    """log max|x| at the end (batch,), by DOP853 on x = eʳu: r' = ⟨u, F⟩/⟨u, u⟩, u' = F − r'u.

    Written apart from the engine, as a reference where x itself overflows. Beyond e^650 the attention goes to
    the largest score alone, ties apart.
    """
    logs = []
    for W, V, x0 in zip(*workload.arrays(), strict=True):

        def slope(_, z, W=W, V=V, shape=x0.shape):
            u, scale = z[:-1].reshape(shape), np.exp(min(2 * z[-1], 650.0))
            scores = u @ W @ u.T
            weights = np.exp(scale * (scores - scores.max(1, keepdims=True)))
            F = weights @ u @ V.T / weights.sum(1, keepdims=True)
            rate = (u * F).sum() / (u * u).sum()
            return np.append(F - rate * u, rate)

        z = solve_ivp(slope, (0, workload.end), np.append(x0, 0.0), "DOP853", rtol=rtol, atol=atol).y[:, -1]
        logs.append(np.log(np.abs(z[:-1]).max()) + z[-1])
    return np.array(logs)


def batched(workload: Workload, limit: float) -> Callable[[Tensor], Tensor]:
    """The velocity of the whole batch in eager Torch, x (batch, n, d). TooSlowError after the limit."""
    W, V, deadline = workload.score, workload.value.mT, time.process_time() + limit

    def slope(x: Tensor) -> Tensor:
        if time.process_time() > deadline:
            raise TooSlowError(limit)
        return torch.softmax(x @ W @ x.mT, -1) @ (x @ V)

    return slope


@torch.no_grad()
def torchdiffeq(workload: Workload, rtol: float, atol: float, limit: float = 60.0) -> np.ndarray:
    """dopri5 on the whole batch as one system: one step size for all rows."""
    from torchdiffeq import odeint

    slope = batched(workload, limit)
    end: Any = odeint(
        lambda _, x: slope(x), workload.x0, workload.times, rtol=rtol, atol=atol, method="dopri5"
    )
    return end[-1].cpu().numpy()


@torch.no_grad()
def torchode(workload: Workload, rtol: float, atol: float, limit: float = 60.0) -> np.ndarray:
    """Dopri5 with a step size per row, eager."""
    import torchode as to

    slope, shape = batched(workload, limit), workload.x0.shape
    term = to.ODETerm(lambda _, y: slope(y.view(shape)).flatten(1))  # pyright: ignore[reportArgumentType]
    method, controller = to.Dopri5(term=term), to.IntegralController(atol=atol, rtol=rtol, term=term)
    solver = to.AutoDiffAdjoint(method, controller)  # pyright: ignore[reportArgumentType]
    start: Any = workload.times.expand(len(workload.x0), 2)
    y0: Any = workload.x0.flatten(1)
    problem = to.InitialValueProblem(y0=y0, t_eval=start)
    solution = solver.solve(problem)
    return solution.ys[:, -1].view(shape).cpu().numpy()


@cache
def _diffrax() -> Callable:
    """vmap and jit of diffeqsolve, with the tolerances as arguments so that one compilation serves all."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def slope(_, x, weights):
        W, V = weights
        return jax.nn.softmax(x @ W @ x.T, axis=-1) @ (x @ V.T)

    def solve(W, V, x0, end, rtol, atol):
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),  # pyright: ignore[reportArgumentType]
            diffrax.Dopri5(),
            t0=0.0,
            t1=end,
            dt0=None,
            y0=x0,
            args=(W, V),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
            max_steps=MAX_STEPS,
            throw=False,
        )
        return jnp.where(solution.result == diffrax.RESULTS.successful, solution.ys[-1], jnp.nan)  # pyright: ignore

    return jax.jit(jax.vmap(solve, in_axes=(0, 0, 0, None, None, None)))


def diffrax(workload: Workload, rtol: float, atol: float) -> np.ndarray:
    """Dopri5 under vmap and jit: a step size per row, every row in the loop until the last is done."""
    return np.asarray(_diffrax()(*workload.arrays(), workload.end, rtol, atol))


def installed(limit: float) -> dict[str, Solver]:
    """The peers that can run here; the others are named in one line each."""
    found: dict[str, Solver] = {}
    for name, package, solver in (
        ("SciPy RK45", "scipy", partial(scipy, "RK45")),
        ("SciPy DOP853", "scipy", partial(scipy, "DOP853")),
        ("SciPy LSODA", "scipy", partial(scipy, "LSODA")),
        ("torchdiffeq dopri5", "torchdiffeq", partial(torchdiffeq, limit=limit)),
        ("torchode", "torchode", partial(torchode, limit=limit)),
        ("diffrax vmap+jit", "diffrax", diffrax),
    ):
        if find_spec(package):
            found[name] = solver
        else:
            print(f"{name}: not installed, skipped (pip install {package})")
    return found
