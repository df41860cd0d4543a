"""How many random systems get a certificate, and how small a radius: plain T11 or the pair certificate.

Run `python -m benchmarks.certificates`. A system of d = 4 has W and A with symmetric parts O diag(λ) Oᵀ,
O Haar and λ uniform in [0.1, 2], and Gaussian antisymmetric parts of the given share ‖M_a‖/‖M‖ in both;
V = A⁻¹W and n = 10. A system counts where the certificate is proved in rational arithmetic. Divergence of
(W, V) and boundedness of (W, −V) have the same certificates, so one kind is enough. The last columns:
systems whose V does not exclude every certificate; certified ones among those with τ_W τ_A < 1 (in floats);
and, where both are proved, the median of the plain radius in ‖x‖ over the sharp one.
"""

import math
import sys
import warnings
from statistics import median
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from flint import fmpq
from scipy.optimize import minimize, minimize_scalar

from numerics.families import random_form
from theory.certificate import Certificate, bounds, check, semidefinite
from theory.layer import Layer
from theory.proposals import dyadic
from theory.weights import symmetric_part
from tokendyn.certify import certify, obstacle

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
SYSTEMS, DIM, TOKENS, SPECTRUM, SEED = 40, 4, 10, (0.1, 2.0), 0
MULTIPLIERS = np.geomspace(1e-3, 1e2, 41)
KIND, HOPELESS = "divergence", 1e6


def systems(share: float) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """W, A and V = A⁻¹W, each (d, d)."""
    generator = torch.Generator().manual_seed(SEED)
    W, A = (
        random_form(
            SYSTEMS,
            DIM,
            positive=DIM,
            spectrum=SPECTRUM,
            antisymmetric_share=share,
            generator=generator,
        ).numpy()
        for _ in range(2)
    )
    return list(zip(W, A, np.linalg.solve(A, W), strict=True))


class Plain:
    """T11 as a semidefinite program: W_s ⪰ (ν+η)M and [[νM, N], [Nᵀ, νM]] ⪰ 0, where W_s = I."""

    def __init__(self, W: np.ndarray, V: np.ndarray):
        spectrum, basis = np.linalg.eigh((W + W.T) / 2)
        self.T, self.change = basis / np.sqrt(spectrum), (basis * np.sqrt(spectrum)).T
        form, value = self.T.T @ W @ self.T, self.change @ V @ self.T
        self.speed = 2.0 ** round(math.log2(np.linalg.norm(value, 2)))
        self.metric: Any = cp.Variable((DIM, DIM), symmetric=True)
        self.nu, self.eta, self.smallest = (cp.Parameter(nonneg=True, value=0.0) for _ in range(3))
        self.margin, self.size = cp.Variable(), cp.Variable()
        gap, N = self.nu * self.metric, self.metric @ value / self.speed - form
        block = cp.bmat([[gap, N], [N.T, gap]])
        block, eye = (block + block.T) / 2, np.eye(DIM)
        score = eye - gap - self.eta * self.metric
        large = self.metric >> self.size * self.T.T @ self.T
        self.feasible = cp.Problem(cp.Maximize(self.margin), [block >> 0, score >> self.margin * eye])
        self.largest = cp.Problem(cp.Maximize(self.size), [block >> 0, score >> 0, large])
        room = [block >> self.margin * np.eye(2 * DIM), score >> self.margin * eye]
        self.centre = cp.Problem(cp.Maximize(self.margin), [*room, large, self.size >= self.smallest])

    def value(self, problem: Any, nu: float, eta: float, smallest: float = 0.0) -> float:
        """The optimum, or −inf."""
        self.nu.value, self.eta.value, self.smallest.value = nu, eta, smallest
        try:
            problem.solve(solver="CLARABEL")
        except cp.SolverError:
            return -math.inf
        return -math.inf if self.metric.value is None else float(problem.value)

    def width(self, logarithm: float) -> float:
        """The margin at the ν with this logarithm; a large negative number where the solver fails."""
        return max(self.value(self.feasible, math.exp(logarithm), 0.0), -HOPELESS)

    def certificate(self, layer: Layer) -> Certificate | None:
        """The proved certificate of nearly the smallest radius, or None."""
        grid = np.log(MULTIPLIERS)
        centre = max(grid, key=self.width)
        around = (centre - grid[1] + grid[0], centre + grid[1] - grid[0])
        refined: Any = minimize_scalar(
            lambda logarithm: -self.width(logarithm), bounds=around, method="bounded"
        )
        margin, nu = max((self.width(logarithm), math.exp(logarithm)) for logarithm in (centre, refined.x))
        if margin < 1e-7:
            return None
        self.value(self.feasible, nu, 0.0)
        eta = margin / np.linalg.eigvalsh(self.metric.value).max() / 2

        def radius(logarithms: np.ndarray) -> float:
            nu, eta = np.exp(logarithms)
            size = self.value(self.largest, nu, eta)
            return -math.log(size * eta) if size > 0 else HOPELESS

        guess = np.log([nu, eta])
        simplex = guess + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, -1.0]])
        options = {"initial_simplex": simplex, "maxfev": 60}
        found = minimize(radius, guess, method="Nelder-Mead", options=options)
        nu, eta = np.exp(found.x)
        self.value(self.centre, nu, eta, math.exp(-found.fun) / eta / 1.02)
        for bits in (10, 16, 24, 32, 48):
            moved = self.change.T @ self.metric.value @ self.change / self.speed
            metric = dyadic(np.round((moved + moved.T) / 2 * 2**bits) / 2**bits)
            nu_exact, eta_exact = (fmpq(*float(x * self.speed).as_integer_ratio()) for x in (nu, eta))
            proposal = _proved(metric, nu_exact, eta_exact, layer)
            if proposal:
                return proposal
        return None


def _proved(metric, nu: fmpq, eta: fmpq, layer: Layer) -> Certificate | None:
    """The plain conditions in rational arithmetic. Plain implies sharp, or something is wrong here."""
    W, V = layer.heads[0].weights.form, layer.heads[0].weights.value
    N, gap = metric * V - W, metric * nu
    size = 2 * DIM
    rows = [
        [*a, *b]
        for a, b in zip(gap.tolist() + N.transpose().tolist(), N.tolist() + gap.tolist(), strict=True)
    ]
    block = type(gap)(size, size, [entry for row in rows for entry in row])
    if not (semidefinite(block).holds and semidefinite(symmetric_part(W) - metric * (nu + eta)).holds):
        return None
    certificate = Certificate.plain(KIND, metric, nu, eta)
    if not check(certificate, layer).holds:
        raise ArithmeticError("a plain certificate that the sharper condition refuses")
    return certificate


def antisymmetry(W: np.ndarray) -> float:
    """τ = ‖W_s^{−1/2} W_a W_s^{−1/2}‖."""
    inverse = np.linalg.inv(np.linalg.cholesky((W + W.T) / 2))
    return float(np.linalg.norm(inverse @ (W - W.T) / 2 @ inverse.T, 2))


def measure(share: float) -> str:
    """One row of the table."""
    plain = sharp = possible = 0
    mild, ratios = [], []
    for W, A, V in systems(share):
        layer = Layer.of(W, V, TOKENS)
        before, after = Plain(W, V).certificate(layer), certify(layer, KIND)
        plain, sharp = plain + (before is not None), sharp + after.verdict.holds
        possible += not obstacle(layer, KIND)
        if antisymmetry(W) * antisymmetry(A) < 1:
            mild.append(after.verdict.holds)
        if before and after.bounds:
            ratios.append(float(bounds(before, layer).norm.mid()) / float(after.bounds.norm.mid()))
    counts = " | ".join(f"{count}/{SYSTEMS}" for count in (plain, sharp, possible))
    return f"| {share:.1f} | {counts} | {sum(mild)}/{len(mild)} | {median(ratios):.2f} |"


def main() -> None:
    warnings.simplefilter("ignore")  # inaccurate solutions are welcome: they are only proposals
    print("| share | plain T11 | pair certificate | V allows one | of τ_W τ_A < 1 | radius ratio |")
    print("|---|---|---|---|---|---|")
    for share in SHARES:
        print(measure(share))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
