"""Finding certificates: a semidefinite program proposes M in floats, rationals near it are proved exactly.

The solver (cvxpy with Clarabel, the extra `certify`) is never believed: what it proposes is rounded and then
decided by theory.certificate.check.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from flint import fmpq, fmpq_mat

from theory.certificate import SIGNS, Bounds, Certificate, bounds, check, free_energy_constant
from theory.definiteness import positive_definite
from theory.eigenpairs import hurwitz
from theory.errors import InputError
from theory.layer import Form, Layer
from theory.proposals import approximate, dyadic
from theory.verdict import Verdict, undecided
from theory.weights import symmetric_part

LARGEST_DIM = 24
"""Beyond it the semidefinite programs take many minutes each search."""

KINDS = (*SIGNS, "either")
MULTIPLIERS = np.geomspace(1e-3, 1e2, 41)
"""Values of μ/‖V‖ to start from, in coordinates where W_s = I."""

TOLERANCE = 1e-7  # margins below it are the solver's noise
CLEAR = 1e-3  # a margin at which no finer grid is needed
ROUNDS = 6  # of alternating between the energy and the multipliers
EVALUATIONS = 60  # of the radius
HOPELESS = 1e6  # the logarithm of the radius where there is no certificate
SMALLEST_COST = 1e-3  # one token alone has κ = 0, which would leave the scale open
RELAXATION = 1.02  # how much of the radius is given up for room to round
BITS = (6, 10, 16, 24, 32, 48)  # lengths to round to, shortest first


@dataclass(frozen=True)
class Result:
    """The verdict on a kind of certificate for a layer, and the certificate where it HOLDS.

    HOLDS is proved. UNDECIDED says only that none was found (or, where the reason says so, that none exists):
    the layer may still do what the certificate would have proved.
    """

    kind: str
    verdict: Verdict
    certificate: Certificate | None = None
    bounds: Bounds | None = None


def certify(layer: Layer, kind: str = "either") -> Result:
    """Look for a certificate of divergence or boundedness; "either" lets the trace of Σ_h V_h choose.

    Raises InputError for an unknown kind, d > 24, or a missing solver.
    """
    if kind not in KINDS:
        raise InputError(
            "kind", got=repr(kind), expected=f"one of {', '.join(KINDS)}", fix="pass one of these"
        )
    if layer.dim > LARGEST_DIM:
        raise InputError(
            "layer",
            got=f"d = {layer.dim}",
            expected=f"d ≤ {LARGEST_DIM}",
            fix="give theory.certificate.check a certificate of your own: checking is fast, searching is not",
        )
    if kind == "either":
        trace = sum((layer.value[i, i] for i in range(layer.dim)), fmpq(0))
        kind = "divergence" if trace > 0 else "boundedness"
    reason = obstacle(layer, kind)
    if reason:
        return Result(kind, undecided(reason))
    try:
        floats = _Floats.of(layer, kind)
    except (ArithmeticError, ValueError):  # numpy's LinAlgError is a ValueError
        return Result(kind, undecided("the weights leave the range of floats, in which the solver works"))
    start = _start(floats)
    if start is None or start.margin < TOLERANCE:
        best = "it failed" if start is None else f"best margin ≈ {start.margin:.2g}"
        return Result(kind, undecided(f"the solver found none ({best})"))
    verdict = undecided("the solver failed")
    for proposal in _proposals(floats, start, kind):
        verdict = check(proposal, layer)
        if verdict.holds:
            return Result(kind, verdict, proposal, bounds(proposal, layer))
    return Result(kind, undecided(f"no proposal survived the exact check; the last: {verdict.reason}"))


def obstacle(layer: Layer, kind: str) -> str:
    """A proved reason why no certificate of this kind exists, or "" where nothing excludes one."""
    if hurwitz(layer.value * -SIGNS[kind]).fails:
        side = "negative" if kind == "boundedness" else "positive"
        return f"none exists: not every eigenvalue of V has {side} real part, and equal tokens obey ẋ = Vx"
    if len(layer.heads) == 1 and positive_definite(symmetric_part(layer.heads[0].weights.form)).fails:
        return "none exists: one head needs W_s ≻ 0 (at offset 0)"
    return ""


@dataclass(frozen=True)
class _Floats:
    """A layer for the solver, in coordinates x = Tz with Σ_h W_{h,s} = I, and V divided by a power of two.

    `own` W_{h,s}, `response` σV_h, `pairs` W_{h,r} by offset, `turned` whether the self term is separate,
    `cost` κ_h/scale_h, `change` T⁻¹, `gram` TᵀT/‖T‖², `speed` the power of two.
    """

    own: list[np.ndarray]
    response: list[np.ndarray]
    pairs: list[dict[int, np.ndarray]]
    turned: list[bool]
    cost: np.ndarray
    change: np.ndarray
    gram: np.ndarray
    speed: float

    @classmethod
    def of(cls, layer: Layer, kind: str) -> "_Floats":
        own = [approximate(symmetric_part(head.weights.form)) for head in layer.heads]
        spectrum, basis = np.linalg.eigh(sum(own))
        largest = np.abs(spectrum).max() or 1.0
        root = np.sqrt(np.where(spectrum > 1e-9 * largest, spectrum, largest))
        T, change = basis / root, (basis * root).T
        response = [change @ approximate(head.weights.value) @ T * SIGNS[kind] for head in layer.heads]
        speed = 2.0 ** round(math.log2(max(np.linalg.norm(V, 2) for V in response)))
        costs = (
            (free_energy_constant(layer.excess(head)) / head.weights.scale).mid() for head in layer.heads
        )
        return cls(
            own=[T.T @ form @ T for form in own],
            response=[V / speed for V in response],
            pairs=[{r: T.T @ _float(form) @ T for r, form in layer.pairs(h).items()} for h in layer.heads],
            turned=[bool(head.turned) for head in layer.heads],
            cost=np.array([max(float(cost), SMALLEST_COST) for cost in costs]),
            change=change,
            gram=T.T @ T / np.linalg.norm(T, 2) ** 2,
            speed=speed,
        )


def _float(form: Form) -> np.ndarray:
    """The nearest float matrix of rationals or balls."""
    if isinstance(form, fmpq_mat):
        return approximate(form)
    return np.array([[float(x.mid()) for x in row] for row in form.tolist()])


@dataclass(frozen=True)
class _Point:
    """The solver's numbers in the coordinates of _Floats; `margin` is what the program maximised."""

    metric: np.ndarray
    shares: list[np.ndarray]
    score: list[dict[int, float]]
    energy: list[dict[int, float]]
    rate: float = 0.0
    margin: float = 0.0


class _Program:
    """A semidefinite program: unknown S_h, c, c̄_h ≥ c, and either M (for given μ) or μ (for given M)."""

    def __init__(self, floats: _Floats, goal: Any, *, given: str = "energy"):
        cp, d = _cvxpy(), len(floats.change)
        unknown, parameter = (cp.Variable, cp.Parameter) if given == "energy" else (cp.Parameter, cp.Variable)
        self.floats, self.eye = floats, np.eye(d)
        self.metric = unknown((d, d), symmetric=True)
        self.energy = [{r: parameter(nonneg=True) for r in pairs} for pairs in floats.pairs]
        self.score = [{r: cp.Variable(nonneg=True) for r in pairs} for pairs in floats.pairs]
        self.shares = [cp.Variable((d, d), symmetric=True) for _ in floats.own]
        self.largest = cp.Variable(len(floats.own), nonneg=True)
        self.rate = cp.Parameter(nonneg=True, value=0.0)
        self.limit = cp.Parameter(nonneg=True, value=0.0)
        self.margin = cp.Variable()
        aim, room, rules = goal(cp, self)
        self.problem = cp.Problem(aim, [*rules, *self._conditions(cp, room)])

    @property
    def cost(self):
        """Σ_h c̄_h κ_h, the certificate's constant K."""
        return self.floats.cost @ self.largest

    @property
    def surplus(self):
        """Σ_h S_h − ηM."""
        return sum(self.shares) - self.rate * self.metric

    def _conditions(self, cp: ModuleType, room: Any) -> Iterator[Any]:
        """Those of theory.certificate.conditions for every head, each with `room` to spare."""
        floats = self.floats
        for h, (share, score) in enumerate(zip(self.shares, self.score, strict=True)):
            response = self.metric @ floats.response[h]
            if floats.turned[h]:
                yield (response + response.T) / 2 - share >> room * self.eye
            for r, form in floats.pairs[h].items():
                gap, corner = self.energy[h][r] * self.metric, (response - score[r] * form) / 2
                block = cp.bmat([[score[r] * floats.own[h] - share - gap, corner], [corner.T, gap]])
                yield (block + block.T) / 2 >> room * np.eye(2 * len(self.eye))
                yield score[r] <= self.largest[h]

    def solve(self, **given: Any) -> float | None:
        """The optimum for the given parameters, or None where the solver found none."""
        for name, value in given.items():
            if name == "energy":
                for parameters, values in zip(self.energy, value, strict=True):
                    for r, parameter in parameters.items():
                        parameter.value = values[r]
            else:
                getattr(self, name).value = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # inaccurate solutions are welcome: they are only proposals
            try:
                self.problem.solve(solver="CLARABEL")
            except _cvxpy().SolverError:
                return None
        return None if self.metric.value is None else self.problem.value

    def point(self) -> _Point:
        """The solution last found."""
        score, energy = (
            [{r: float(x.value) for r, x in head.items()} for head in by_head]
            for by_head in (self.score, self.energy)
        )
        shares = [np.array(share.value) for share in self.shares]
        margin = 0.0 if self.margin.value is None else float(self.margin.value)
        return _Point(np.array(self.metric.value), shares, score, energy, float(self.rate.value), margin)


Goal = Callable[[ModuleType, _Program], tuple[Any, Any, list[Any]]]
"""cvxpy and a program's unknowns to what to optimise, the room of each condition, and further rules."""


def _widest(cp: ModuleType, p: _Program):
    """Is there any certificate? Maximise t with Σ_h S_h ⪰ tI, M having trace d."""
    scale = [cp.trace(p.metric) == len(p.eye)] * isinstance(p.metric, cp.Variable)
    return cp.Maximize(p.margin), 0.0, [p.surplus >> p.margin * p.eye, *scale]


def _smallest(cp: ModuleType, p: _Program):
    """Minimise the constant K for M above a multiple of I in the user's coordinates, at the given rate."""
    return cp.Minimize(p.cost), 0.0, [p.surplus >> 0, p.metric >> p.floats.gram]


def _central(cp: ModuleType, p: _Program):
    """Maximise the distance from the boundary of every condition while K stays within the limit."""
    rules = [p.surplus >> p.margin * p.eye, p.metric >> p.floats.gram, p.cost <= p.limit]
    return cp.Maximize(p.margin), p.margin, rules


def _cvxpy() -> ModuleType:
    try:
        import clarabel  # noqa: F401
        import cvxpy
    except ImportError as error:
        raise InputError(
            "certify",
            got=f"no module named {error.name}",
            expected="the semidefinite solver",
            fix="pip install 'tokendyn[certify]'",
        ) from error
    return cvxpy


def _start(floats: _Floats) -> _Point | None:
    """The widest margin with one μ for all offsets, then with their own; None where the solver fails."""
    from scipy.optimize import minimize_scalar

    program, points = _Program(floats, _widest), {}

    def narrowness(logarithm: float) -> float:
        """Minus the margin at the common μ with this logarithm; its point is kept."""
        energy = [dict.fromkeys(pairs, math.exp(logarithm)) for pairs in floats.pairs]
        if program.solve(energy=energy) is None:
            return HOPELESS
        points[logarithm] = program.point()
        return -points[logarithm].margin

    grid = np.log(MULTIPLIERS)
    for part in (grid[::4], grid):
        centre = min(part, key=narrowness)
        clear = any(point.margin > CLEAR for point in points.values())
        if clear:
            break
    else:
        around = (centre - grid[1] + grid[0], centre + grid[1] - grid[0])
        minimize_scalar(narrowness, bounds=around, method="bounded", options={"maxiter": 15})
    best = max(points.values(), key=lambda point: point.margin, default=None)
    several = sum(map(len, floats.pairs)) > 1
    return _alternate(floats, program, best) if best and several else best


def _alternate(floats: _Floats, by_metric: _Program, best: _Point) -> _Point:
    """A margin at least as wide, with (c, μ) of their own at every offset of every head."""
    by_energy = _Program(floats, _widest, given="metric")
    for _ in range(ROUNDS):
        before = best.margin
        for program, given in ((by_energy, "metric"), (by_metric, "energy")):
            found = program.solve(**{given: getattr(best, given)})
            if found is not None and found > best.margin:
                best = program.point()
        if best.margin <= before + 0.01 * abs(before):
            break
    return best


def _proposals(floats: _Floats, start: _Point, kind: str) -> Iterator[Certificate]:
    """Certificates of nearly the smallest radius K/η, rounded to longer and longer rationals."""
    from scipy.optimize import minimize

    smallest, central = _Program(floats, _smallest), _Program(floats, _central)

    def scaled(factor: float) -> list[dict[int, float]]:
        return [{r: _short(mu * factor) for r, mu in head.items()} for head in start.energy]

    def radius(logarithms: np.ndarray) -> float:
        factor, rate = np.exp(logarithms)
        constant = smallest.solve(energy=scaled(factor), rate=rate)
        return HOPELESS if constant is None or constant <= 0 else math.log(constant / rate)

    slowest = np.linalg.eigvalsh(sum(start.shares)).min() / np.linalg.eigvalsh(start.metric).max()
    guess = np.array([0.0, math.log(slowest / 2)])
    simplex = guess + np.array([[0.0, 0.0], [0.5, 0.0], [0.0, -1.0]])
    options = {"initial_simplex": simplex, "maxfev": EVALUATIONS, "xatol": 0.02, "fatol": 0.01}
    factor, rate = np.exp(minimize(radius, guess, method="Nelder-Mead", options=options).x)
    energy, rate = scaled(factor), _short(rate, math.floor)
    constant = smallest.solve(energy=energy, rate=rate)
    if constant is None or central.solve(energy=energy, rate=rate, limit=RELAXATION * constant) is None:
        return
    point = central.point()
    for bits in BITS:
        yield _rounded(floats, point, kind, bits)


def _short(number: float, rounding: Callable[[float], int] = round) -> float:
    """The number rounded to eight bits."""
    mantissa, exponent = math.frexp(number)
    return math.ldexp(rounding(mantissa * 256), exponent - 8)


def _rounded(floats: _Floats, point: _Point, kind: str, bits: int) -> Certificate:
    """The point in the user's coordinates, scaled to max c = 1 and rounded to `bits` bits of each matrix."""
    largest = max((c for head in point.score for c in head.values()), default=1.0)
    back = floats.change / math.sqrt(largest)
    metric = _grid(back.T @ point.metric @ back / floats.speed, bits)
    rate, unit = _exact(point.rate * floats.speed), 2.0**-bits
    scores = [{r: _exact(round(c / largest / unit) * unit) for r, c in head.items()} for head in point.score]
    energies = [{r: _exact(mu * floats.speed) for r, mu in head.items()} for head in point.energy]
    several = len(point.shares) > 1
    shares = [_grid(back.T @ share @ back, bits) if several else metric * rate for share in point.shares]
    multipliers = [
        {r: (c, energy[r]) for r, c in score.items()} for score, energy in zip(scores, energies, strict=True)
    ]
    return Certificate(kind, metric, rate, tuple(shares), tuple(multipliers))


def _grid(matrix: np.ndarray, bits: int) -> fmpq_mat:
    """The symmetric matrix with entries rounded to multiples of 2^(e − bits), 2^e above its largest entry."""
    unit = math.ldexp(1.0, math.frexp(np.abs(matrix).max())[1] - bits)
    return dyadic(np.round((matrix + matrix.T) / (2 * unit)) * unit)


def _exact(number: float) -> fmpq:
    return fmpq(*number.as_integer_ratio())
