"""Conjecture C1 searched for a counterexample: is the constant 1 right?

C1: `W_s ≻ 0`, `A_s ≺ 0`, `τ_W τ_A < 1` ⇒ `X → 0`; `τ_M = ‖M_s^(−1/2) M_a M_s^(−1/2)‖`, with −A for A.
`python -m benchmarks.skewness_product [--systems 10_000_000] [--each 200_000] [--jobs 2]` tries that many
systems with a product below 1, and `--each` for products just below and above it, where counterexamples are
known. It writes benchmarks/results/skewness_product.json. Nothing it finds or does not find is a proof.

Every row has its product by construction. A change of basis makes `W_s = I`, so `W = I + aS` and
`−A = M(I + bT)M`, `M = e^H`, with antisymmetric `S, T` of norm 1, `ab` given, and symmetric H. Two rounds of
three are near weights that commute with a rotation of order n, and start near one of its orbits; one of these
has large tokens only, where attention is all but hardmax. Orbits themselves stay bounded below 1 (P2 in
docs/conjecture.md), so all are disturbed there; from 1 on, half of them. Half of the rows are children of the
best so far.

Time is counted in units of 1/|max Re λ(V)|. A row has an exponent over each decade of time, the slope of
log max|x| in log t: −1/2 where tokens tend to 0 as theory says, 0 where they come to rest, larger where they
grow, 99 where they pass ESCAPED. Rows above SLOW, or with tokens still larger than SMALL, are followed ten
times as long, again and again; rows whose steps run out are counted. The best of the large orbits are those
that grow fastest, or shrink slowest, over 4 ≤ t ≤ 8; this rate is −1 for equal tokens.
"""

import argparse
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Generator, Tensor

from benchmarks.machine import processor, versions
from numerics import AttentionSystem, Outcome, Solution, integrate

RESULT = Path(__file__).parent / "results" / "skewness_product.json"
SIZES = [(n, d) for d in (2, 3, 4) for n in range(3, 9)]
BATCH, ELITE = 1024, 64
HORIZONS = (10.0, 100.0, 1000.0, 10_000.0)
SLOW = -0.35
"""Exponents above are not yet those of tokens that tend to 0."""
BESIDE = (0.9, 0.97, 0.99, 0.999, 1.001, 1.01, 1.03, 1.1, 1.3, 2.0)
"""Products to search on either side of the conjectured constant."""
SMALL, NEAR = 1.0, 0.1
"""Largest tokens, where W_s = I, of rows that shrink and need not be followed; of those that have settled:
with scores below 0.01 linear and cubic terms decide, and 0 is stable (P5 in docs/conjecture.md)."""
ESCAPED = 1e6
RESTS = -0.02
"""Exponents above, at one of the last two horizons, violate C1."""
SLOWEST = 0.05
"""Least decay rate of V relative to ‖V‖: where V is hardly stable, long runs say nothing about attention."""
LONGEST = 1.5
"""Of H: the axes of A_s differ by at most e^6."""
SIZE = (1.5, 30.0)
"""Of the largest token at the start, where W_s = I: score ≤ 900 with itself. Small tokens hardly move."""


@dataclass
class Count:
    """Rows tried, rows not settled at each horizon, those whose steps ran out, and the worst.

    The worst at each horizon is the row with the largest exponent over the decade before it.
    """

    tried: int = 0
    slow: list[int] = field(default_factory=lambda: [0] * len(HORIZONS))
    ran_out: int = 0
    first: int = 0  # rows tried when the first violation was found; 0: none was
    worst: list[float] = field(default_factory=lambda: [-math.inf] * len(HORIZONS))
    where: list[dict | None] = field(default_factory=lambda: [None] * len(HORIZONS))
    growth: float = -math.inf
    grows: dict | None = None

    def add(self, other: "Count") -> None:
        if other.first and not self.first:
            self.first = self.tried + other.first
        self.tried += other.tried
        self.slow = [a + b for a, b in zip(self.slow, other.slow, strict=True)]
        self.ran_out += other.ran_out
        for k, worst in enumerate(other.worst):
            if worst > self.worst[k]:
                self.worst[k], self.where[k] = worst, other.where[k]
        if other.growth > self.growth:
            self.growth, self.grows = other.growth, other.grows


# Rows: tokens (n d), S, T, H (d d each), the logarithm of a over b, log10(1 − product) where that is drawn


def _parts(rows: Tensor, n: int, d: int) -> list[Tensor]:
    x, s, t, m, rest = rows.split([n * d, d * d, d * d, d * d, 2], 1)
    return [x.unflatten(1, (n, d)), *(part.unflatten(1, (d, d)) for part in (s, t, m)), rest]


def fresh(count: int, n: int, d: int, g: Generator) -> Tensor:
    """Random rows: token sizes over two decades, H from small to large, any ratio of a and b."""
    rows = torch.randn(count, n * d + 3 * d * d + 2, generator=g, dtype=torch.float64)
    x, s, t, m, rest = _parts(rows, n, d)
    x *= 10 ** (2 * torch.rand(count, 1, 1, generator=g).double() - 0.7)
    m *= 10 ** (torch.rand(count, 1, 1, generator=g).double() * 2 - 2)
    alike = torch.rand(count, 1, 1, generator=g) < 0.5
    t.copy_(torch.where(alike, s + 0.1 * t, t))
    rest[:, 1] = -4 * torch.rand(count, generator=g).double()
    return torch.cat([x.flatten(1), s.flatten(1), t.flatten(1), m.flatten(1), rest], 1)


def mutated(elite: Tensor, count: int, n: int, d: int, g: Generator) -> Tensor:
    """Children of elite rows: noise of all sizes, mixtures, scaled tokens."""
    one, other = (elite[torch.randint(0, len(elite), (count,), generator=g)] for _ in range(2))
    size = 10 ** (3 * torch.rand(count, 1, generator=g).double() - 3)
    few = torch.rand(one.shape, generator=g) < 0.3
    noise = torch.randn(one.shape, generator=g, dtype=torch.float64) * size
    kind = torch.randint(0, 4, (count, 1), generator=g)
    share = torch.rand(count, 1, generator=g).double()
    child = torch.where(kind == 0, one + noise, torch.where(few, one + noise * 3, one))
    child = torch.where(kind == 1, one + share * (other - one), child)
    scaled = one.clone()
    scaled[:, : n * d] *= 10 ** (0.2 * torch.randn(count, 1, generator=g).double())
    return torch.where(kind == 2, scaled, child)


def symmetric(rows: Tensor, n: int, d: int, g: Generator) -> Tensor:
    """The same with weights that commute with a rotation of order n, whose orbit of a point is the start."""
    x, s, t, m, rest = _parts(rows, n, d)
    turn = torch.eye(d).double().repeat(len(rows), 1, 1)
    times = torch.randint(0, n, (len(rows), d // 2), generator=g)
    times[:, 0] = 1
    angle = 2 * math.pi * times.double() / n
    for k in range(d // 2):
        c, sine = angle[:, k].cos(), angle[:, k].sin()
        block = torch.stack((c, -sine, sine, c), -1).unflatten(-1, (2, 2))
        turn[:, 2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = block
    powers = [torch.eye(d).double().expand_as(turn)]
    for _ in range(n - 1):
        powers.append(turn @ powers[-1])
    group = torch.stack(powers, 1)  # (B, n, d, d)
    mean = [(group @ part[:, None] @ group.mT).mean(1) for part in (s, t, m)]
    x = (group @ x[:, :1, :, None])[..., 0]
    return torch.cat([x.flatten(1), *(part.flatten(1) for part in mean), rest], 1)


def disturbed(rows: Tensor, some: Tensor, g: Generator) -> Tensor:
    """The same with noise of all sizes in some rows (B,)."""
    size = 10 ** (3.5 * torch.rand(len(rows), 1, generator=g).double() - 4)
    noise = torch.randn(rows.shape, generator=g, dtype=torch.float64) * (rows.abs() + 0.1)
    return torch.where(some[:, None], rows + size * noise, rows)


def system(
    rows: Tensor, n: int, d: int, product: float | None, far: bool
) -> tuple[AttentionSystem, Tensor, Tensor]:
    """The systems, their starts (B, n, d) and products τ_W τ_A (B,); V is NaN where it is hardly stable."""
    x, s, t, m, rest = _parts(rows, n, d)
    s, t = (part - part.mT for part in (s, t))
    s, t = (part / torch.linalg.matrix_norm(part, 2)[:, None, None] for part in (s, t))
    products = (
        1 - 10 ** rest[:, 1].clamp(-4, -0.3) if product is None else torch.full_like(rest[:, 1], product)
    )
    ratio = rest[:, 0].clamp(-3, 3).exp()
    one = torch.eye(d).double()
    score = one + (products * ratio).sqrt()[:, None, None] * s
    m = (m + m.mT) / 2
    m = torch.matrix_exp(m * (LONGEST / torch.linalg.matrix_norm(m, 2)[:, None, None]).clamp(max=1))
    response = -m @ (one + (products / ratio).sqrt()[:, None, None] * t) @ m
    value = torch.linalg.solve(response, score)
    slowest = -torch.linalg.eigvals(value.nan_to_num()).real.amax(1)
    stable = slowest > SLOWEST * torch.linalg.matrix_norm(value.nan_to_num(), 2)
    value = torch.where(stable[:, None, None], value / slowest[:, None, None], torch.nan)
    size = x.norm(dim=-1).amax(1)[:, None, None]
    x = x * size.clamp(SIZE[1] if far else SIZE[0], SIZE[1]) / size
    return AttentionSystem(score, value), x, products


@dataclass(frozen=True)
class Measured:
    """Exponents (horizons, B) of rows over the decade before each horizon; −inf where not followed to it."""

    exponents: Tensor
    slow: list[int]  # rows not settled at each horizon
    ran_out: int  # rows whose steps did


def measured(tokens: AttentionSystem, x: Tensor, at: Tensor) -> Measured:
    """Follow the rows `at` to the horizons, each as far as it needs to settle."""
    exponents, slow, ran_out = torch.full((len(HORIZONS), len(x)), -torch.inf).double(), [], 0
    since, states = 1.0, _followed(_of(tokens, at), x[at], 1.0).states[:, -1]
    for k, horizon in enumerate(HORIZONS):
        found = _followed(_of(tokens, at), states, horizon - since)
        before, after = (part.norm(dim=-1).amax(-1) for part in (states, found.states[:, -1]))
        slope = torch.where(found.outcome == Outcome.ESCAPED, 99.0, (after / before).log10())
        slope = torch.where(after < NEAR, slope.clamp(max=-0.5), slope)
        exponents[k, at] = slope.nan_to_num(-torch.inf)
        ran_out += int(slope.isnan().sum())
        follow = (slope < 99) & ((slope > SLOW) | (after > SMALL))
        at, states, since = at[follow], found.states[follow, -1], horizon
        slow.append(len(at))
    return Measured(exponents, slow, ran_out)


def _followed(tokens: AttentionSystem, x: Tensor, *times: float) -> Solution:
    options = {
        "rtol": 1e-6,
        "atol": 1e-14,
        "method": "dormand-prince",
        "escape": ESCAPED,
        "max_steps": 40_000,
    }
    return integrate(tokens, x, times=torch.tensor((0.0, *times)).double(), **options)


def _of(tokens: AttentionSystem, at: Tensor) -> AttentionSystem:
    return AttentionSystem(tokens.score[at], tokens.value[at])


def growth(tokens: AttentionSystem, x: Tensor) -> Tensor:
    """Rate (B,) of max|x| over 4 ≤ t ≤ 8."""
    size = _followed(tokens, x, 4.0, 8.0).states.norm(dim=-1).amax(-1)
    return ((size[:, 2] / size[:, 1]).log() / 4).nan_to_num(-torch.inf)


def search(systems: int, seed: int, product: float | None) -> Count:
    """At least so many rows, over all sizes, in rounds; each size has elites with and without symmetry."""
    torch.set_num_threads(1)
    g, count = Generator().manual_seed(seed), Count()
    elites: dict[tuple[int, int, int], Tensor] = {}
    turn = 0
    while count.tried < systems:
        alike, far = turn % 3 > 0, turn % 3 > 1
        for n, d in SIZES:
            key = (n, d, turn % 3)
            rows = fresh(BATCH // 2 if key in elites else BATCH, n, d, g)
            if key in elites:
                rows = torch.cat((rows, mutated(elites[key], BATCH - len(rows), n, d, g)))
            if alike:
                some = torch.rand(len(rows), generator=g) < (1.0 if product is None or product < 1 else 0.5)
                rows = disturbed(symmetric(rows, n, d, g), some, g)
            one, elites[key] = _round(rows, n, d, product, far)
            count.add(one)
        turn += 1
    return count


def _round(rows: Tensor, n: int, d: int, product: float | None, far: bool) -> tuple[Count, Tensor]:
    """What came of rows, and the best of them."""
    tokens, x, products = system(rows, n, d, product, far)
    at = (tokens.value.isfinite().flatten(1).all(1) & x.isfinite().flatten(1).all(1)).nonzero()[:, 0]
    found = measured(tokens, x, at)

    def row(k: int) -> dict:
        weights = {"W": tokens.score[k].tolist(), "V": tokens.value[k].tolist(), "tokens": x[k].tolist()}
        return {"n": n, "d": d, "product": products[k].item(), **weights}

    worst = found.exponents.max(1)
    violations = (found.exponents[-2:] > RESTS).any() or (found.exponents == 99).any()
    one = Count(len(at), found.slow, found.ran_out, int(violations), worst.values.tolist())
    one.where = [row(int(k)) for k in worst.indices]
    score = found.exponents[0]
    if far:
        score = torch.full_like(score, -torch.inf)
        score[at] = growth(_of(tokens, at), x[at])
        fastest = int(score.argmax())
        one.growth, one.grows = score[fastest].item(), row(fastest)
    return one, rows[score.topk(ELITE).indices]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--systems", type=int, default=10_000_000)
    parser.add_argument("--each", type=int, default=200_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    parts = 10 * given.jobs
    plan = [("below 1", None, math.ceil(given.systems / parts), parts)] if given.systems else []
    plan += [(str(product), product, given.each, 1) for product in BESIDE if given.each]
    about = {"date": datetime.now(UTC).date().isoformat(), "processor": processor(), "versions": versions()}
    found: dict[str, Count] = {}
    with ProcessPoolExecutor(given.jobs) as pool:
        jobs = [
            (name, pool.submit(search, systems, given.seed + 1000 * k, product))
            for name, product, systems, times in plan
            for k in range(times)
        ]
        for name, job in jobs:
            one = found.setdefault(name, Count())
            one.add(job.result())
            worst = ", ".join(f"{exponent:.3f}" for exponent in one.worst)
            print(
                f"{name:8s}{one.tried:12,d} tried, slow {one.slow}, {one.ran_out} ran out of steps,",
                f"first violation after {one.first:,d}, largest exponents {worst},",
                f"fastest growth {one.growth:.4f}",
                flush=True,
            )
            counts = {name: asdict(count) for name, count in found.items()}
            RESULT.write_text(json.dumps({**about, "horizons": HORIZONS, **counts}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
