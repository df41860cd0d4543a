"""Batches of a claim's systems in floating point: their weights, states and trajectories."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from numerics import AttentionSystem, Outcome, integrate
from numerics.encodings import Rotary, alibi_bias, turns_from_matrix
from tokendyn.claims.floats import Floats, eigenvalues
from tokendyn.claims.genome import Genome, Part, no_tokens
from tokendyn.claims.language import Evaluation, LanguageError, Value

ESCAPE = 1e40
"""Trajectories end where a coordinate is larger."""
TINY = 0.03
"""Scores below move tokens much more slowly than V does."""
LONGEST = 0.25
"""The longest Runge–Kutta step of the hardmax flow, in units of 1/‖V‖: far from unstable, and 1e-5 off."""


class FloatRows:
    """Raw rows (B, size) as values of `Floats`."""

    def __init__(self, raw: Tensor, genome: Genome) -> None:
        self.raw, self.genome = raw, genome

    def rows(self, name: str) -> Tensor:
        part = self.genome.parts[name]
        return self.raw[:, part.place].unflatten(1, part.shape)

    def part(self, part: Part, d: int) -> Value:
        flat = self.raw[:, part.place]
        match part.kind:
            case "number":
                return Value(0, flat[:, 0])
            case "vector":
                return Value(1, flat)
            case "matrix" | "tall":
                return Value(2, flat.unflatten(1, part.shape))
            case "squares":
                return Value(2, flat.unflatten(1, part.shape).square())
            case "lower":
                r, c = torch.tril_indices(d, d)
                matrix = flat.new_zeros(len(flat), d, d)
                matrix[:, r, c] = flat
                return Value(2, matrix)
            case "diagonal":
                return Value(2, torch.diag_embed(flat))
            case "signs":
                return Value(2, torch.diag_embed(torch.where(flat < 0, -1.0, 1.0).to(flat)))
            case "blocks" | "signed blocks":
                return Value(2, _blocks(flat, part.kind != "blocks"))
        positive = int(part.kind.split()[1])
        signs = torch.where(torch.arange(d, device=flat.device) < positive, 1.0, -1.0).to(flat)
        return Value(2, torch.diag_embed(signs.expand(len(flat), d)))


def _blocks(flat: Tensor, signed: bool) -> Tensor:
    """Blocks [[a, −b], [b, a]] on the diagonal; `signed`: a² for a. Without a partner, a alone."""
    d = flat.shape[1]
    matrix = flat.new_zeros(len(flat), d, d)
    for k in range(0, d, 2):
        a = flat[:, k].square() if signed else flat[:, k]
        matrix[:, k, k] = a
        if k + 1 < d:
            matrix[:, k + 1, k + 1] = a
            matrix[:, k, k + 1], matrix[:, k + 1, k] = -flat[:, k + 1], flat[:, k + 1]
    return matrix


def half_angle(t: Tensor) -> Tensor:
    """Rotations (…, 2, 2) by 2·atan(t)."""
    c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return torch.stack((c, -s, s, c), -1).unflatten(-1, (2, 2))


def on_sphere(raw: Tensor) -> Tensor:
    """Unit tokens from raw ones (…, d): stereographic in the first d − 1 entries, the sign of the last."""
    y, sign = raw[..., :-1], torch.where(raw[..., -1:] < 0, -1.0, 1.0).to(raw)
    square = y.square().sum(-1, keepdim=True)
    return sign * torch.cat((2 * y, 1 - square), -1) / (1 + square)


def off_sphere(x: Tensor) -> Tensor:
    """Raw tokens that `on_sphere` makes into unit tokens x (…, d)."""
    sign = torch.where(x[..., -1:] < 0, -1.0, 1.0).to(x)
    return torch.cat((sign * x[..., :-1] / (1 + x[..., -1:].abs()), sign), -1)


def started_at(genome: Genome, raw: Tensor, x: Tensor) -> Tensor:
    """The raw row (size,) with tokens x (n, d) to start from."""
    row = raw.clone()
    row[genome.parts["x"].place] = (off_sphere(x) if genome.claim.sphere else x).flatten()
    return row


@dataclass(frozen=True, eq=False)
class Path:
    """States (B, samples, n, d) at `times` (B, samples); which were reached. `grew`: ended by its size."""

    times: Tensor
    states: Tensor
    reached: Tensor
    grew: Tensor

    @property
    def last(self) -> Tensor:
        """The last sample (B,) that was reached."""
        return self.reached.double().cumsum(1).argmax(1)


class Systems:
    """The systems of raw rows (B, size): `values` of all names, and what attention makes of states."""

    def __init__(self, genome: Genome, raw: Tensor) -> None:
        self.genome, self.claim, self.raw = genome, genome.claim, raw
        self.algebra = Floats(len(raw), raw.device)
        rows = FloatRows(raw, genome)
        self.values = genome.values(rows, self.algebra)  # pyright: ignore[reportArgumentType]
        x = rows.rows("x")
        self.x0 = on_sphere(x) if self.claim.sphere else x
        self.p = rows.rows("p") if "p" in genome.parts else None
        self.b = self._bias(rows)

    def _bias(self, rows: FloatRows) -> Tensor | None:
        if "b" in self.genome.parts:
            return rows.rows("b")
        if "_slope" in self.genome.parts:
            return alibi_bias(self.genome.n, self.values["_slope"].data.square())
        return None

    @cached_property
    def system(self) -> AttentionSystem:
        claim, values = self.claim, self.values
        names = [""] if claim.heads == 1 else [str(k + 1) for k in range(claim.heads)]
        score, value = (torch.stack([values[kind + mark].data for mark in names], 1) for kind in "WV")
        if claim.heads == 1:
            score, value = score[:, 0], value[:, 0]
        switches: dict[str, Any] = {"causal": claim.causal, "sphere": claim.sphere, "bias": self.b}
        if self.p is not None:
            switches |= {"positions": self.p, "positions_in": claim.encoding.removeprefix("absolute in ")}
        if claim.encoding == "rotary":
            turns = turns_from_matrix(self.rotation, self.genome.n)
            switches["rotary"] = Rotary(values["Q"].data, values["K"].data, turns, False)
        return AttentionSystem(score, value, **switches)

    @property
    def rotation(self) -> Tensor:
        d = self.genome.d
        found = torch.eye(d, dtype=torch.float64, device=self.raw.device).repeat(len(self.raw), 1, 1)
        turns = half_angle(self.raw[:, self.genome.parts["_turns"].place])
        for k in range(d // 2):
            found[:, 2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = turns[:, k]
        return found

    @cached_property
    def h(self) -> Tensor | None:
        """Residual steps (B,), or None for the flow."""
        if self.claim.step_size is None:
            return None
        return Evaluation(self.algebra, self.values, no_tokens, self.genome.n)(self.claim.step_size).data

    # States

    def attention(self, x: Tensor) -> Tensor:
        """P (B, [heads,] n, n)."""
        if self.claim.attention == "softmax":
            return self.system.attention(x)
        scores = self.system.scores(x)
        scores = scores.masked_fill(~self.system.visible(x.shape[1]), -torch.inf)
        best = scores == scores.amax(-1, keepdim=True)
        return best / best.sum(-1, keepdim=True).to(x)

    def velocity(self, x: Tensor) -> Tensor:
        if self.claim.attention == "softmax":
            return self.system.velocity(x)
        mean = self.attention(x) @ (x if self.claim.heads == 1 else x[:, None])
        moved = mean @ self.system.value.mT
        moved = moved if self.claim.heads == 1 else moved.sum(1)
        return moved - (x * moved).sum(-1, keepdim=True) * x if self.claim.sphere else moved

    def at(self, x: Tensor, t: float | Tensor = 0.0) -> Evaluation:
        """Evaluates expressions at states x (B, n, d)."""
        first = (slice(None), 0) if self.claim.heads > 1 else (slice(None),)
        lazy: dict[str, Tensor] = {"x": x, "x0": self.x0}

        def state(name: str) -> Tensor:
            if name not in lazy:
                if name == "dx":
                    lazy[name] = (
                        self.velocity(x) if self.h is None else self.h[:, None, None] * self.velocity(x)
                    )
                elif name == "P":
                    lazy[name] = self.attention(x)[first]
                elif name == "s":
                    lazy[name] = self.system.scores(x)[first]
                elif name == "m":
                    lazy[name] = state("P") @ x
                else:
                    given = {"p": self.p, "b": self.b}[name]
                    if given is None:
                        _none(name, ())
                    lazy[name] = given  # pyright: ignore[reportArgumentType]
            return lazy[name]

        def tokens(name: str, index: tuple[int, ...]) -> Value:
            entries = state(name)[(slice(None), *(k - 1 for k in index))]
            return Value(1 if len(index) == 1 else 0, entries)

        centred = x - x.mean(1, keepdim=True)
        now = torch.as_tensor(t, dtype=torch.float64, device=x.device).expand(len(x))
        values = {
            **self.values,
            "t": Value(0, now),
            "X": Value(2, x),
            "Cov": Value(2, centred.mT @ centred / x.shape[1]),
        }
        if self.h is not None:
            values["h"] = Value(0, self.h)
        return Evaluation(self.algebra, values, tokens, self.genome.n)

    # Trajectories

    def one_pace(self, slowest: float) -> Tensor:
        """Whether (B,) no eigenvalue of a V_h or their sum makes runs end too soon.

        It does if it or its decay, relative to the norm, is below `slowest`, or almost of modulus 1 after a
        layer, but not exactly so.
        """
        found, norm = self._spectra
        size = found / norm
        decay = size.real if self.h is None else (1 + self.h[:, None, None] * found).abs() - 1
        slow = torch.stack((size.abs(), decay.abs()), 1).flatten(1)
        return ~((slow < slowest) & (slow > 1e-12)).any(1)

    @cached_property
    def _spectra(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (B, heads + 1, d) of the V_h and their sum, and norms (B, heads + 1, 1) of these."""
        value = self.system.value if self.claim.heads > 1 else self.system.value[:, None]
        value = torch.cat((value, value.sum(1, keepdim=True)), 1)
        return eigenvalues(value), torch.linalg.matrix_norm(value).clamp(min=1e-300)[..., None]

    def tells_rates_apart(self, end: Tensor) -> Tensor:
        """Whether (B,) runs up to time `end` (B,) show the faster of any two modes of a V_h or their sum.

        By e^14: what starts a thousandth in the direction of the faster mode has forgotten the other.
        """
        found, norm = self._spectra
        rate = found.real
        if self.h is not None:
            rate = (1 + self.h[:, None, None] * found).abs().clamp(min=1e-300).log()
        apart = (rate[..., None] - rate[..., None, :]).abs()
        close = (apart > 1e-12 * norm[..., None]) & (apart * end[:, None, None, None] < 14)
        return ~close.flatten(1).any(1)

    def frozen(self, path: Path) -> Tensor:
        """Whether (B,) a run ends where scores are so small, but not 0, that what they do takes longer."""
        decade_before, last = path.states[:, -9], path.states[:, -1]
        scores, size = self.system.scores(last).abs().flatten(1).amax(1), last.norm(dim=-1).amax(1)
        return (scores > 0) & (scores < TINY) & (size > 0.5 * decade_before.norm(dim=-1).amax(1))

    def largest_score(self, x: Tensor | None = None) -> Tensor:
        """A bound (B,) of |s_ij| at states x, by default the start."""
        x = self.x0 if x is None else x
        form = torch.linalg.matrix_norm(self.system.score)
        return (form if self.claim.heads == 1 else form.amax(1)) * x.square().sum(-1).amax(1)

    @cached_property
    def pace(self) -> Tensor:
        """The rate (B,) by which a flow's time is measured: ‖V‖, less where scores are small; 1 for layers.

        Differences of tokens contract at about ‖V‖·‖W‖·|x|² where scores are small; hardmax knows no size,
        and one token no scores.
        """
        if self.h is not None:
            return torch.ones(len(self.raw), dtype=torch.float64, device=self.raw.device)
        speed = torch.linalg.matrix_norm(self.system.value)
        if self.claim.heads > 1:
            speed = speed.sum(1)
        speed = torch.where(speed > 0, speed, 1.0)
        if self.claim.attention == "hardmax" or self.genome.n == 1:
            return speed.clamp(min=1e-300)
        return (speed * self.largest_score().clamp(TINY, 1.0)).clamp(min=1e-300)

    def path(
        self, times: Tensor, x0: Tensor | None = None, rtol: float = 1e-7, max_steps: int = 2000
    ) -> Path:
        """Trajectories from x0 (by default the start), sampled at increasing times from 0.

        For flows `times` are in units of 1/pace, which a factor of V does not change; else they count layers.
        """
        x0 = self.x0 if x0 is None else x0
        if self.h is not None or self.claim.attention == "hardmax":
            return self._stepped(times, x0, fine=rtol < 1e-8)
        pace = self.pace if self.claim.heads == 1 else self.pace[:, None]
        paced = replace(self.system, value=self.system.value / pace[..., None, None])
        with torch.no_grad():
            options = {"rtol": rtol, "max_steps": max_steps, "escape": ESCAPE, "method": "dormand-prince"}
            endless = self.claim.parsed.kind in ("rate", "power")
            options["atol"] = 1e-250 if endless else 1e-14
            found = integrate(paced, x0, times=times, **options)
        reached = found.states[..., 0, 0].isfinite()
        return Path(times / self.pace[:, None], found.states, reached, found.outcome == Outcome.ESCAPED)

    @torch.no_grad()
    def _stepped(self, times: Tensor, x0: Tensor, fine: bool) -> Path:
        """Residual layers, or the hardmax flow in Runge–Kutta steps, of first order where it jumps.

        A fine run takes shorter steps between any two samples: chattering across a tie shows the difference.
        """
        least, most, longest = (4, 150, LONGEST / 2) if fine else (1, 60, LONGEST)
        states, reached = [x0], [torch.ones(len(x0), dtype=torch.bool, device=x0.device)]
        x, alive = x0, reached[0]
        for before, after in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            if self.h is not None:
                count, size = max(0, round(after) - round(before)), self.h[:, None, None]
            else:
                gap = after - before
                count = max(least, min(most, math.ceil(gap * most / 3)), math.ceil(gap / longest))
                size = (gap / count / self.pace)[:, None, None]
            for _ in range(count):
                x = x + size * (self.velocity(x) if self.h is not None else self._mean_velocity(x, size))
                if self.claim.sphere:
                    x = x / x.norm(dim=-1, keepdim=True)
            alive = alive & (x.abs().amax((1, 2)) < ESCAPE)
            x = torch.where(alive[:, None, None], x, torch.zeros_like(x))
            states.append(torch.where(alive[:, None, None], x, torch.nan))
            reached.append(alive)
        return Path(times / self.pace[:, None], torch.stack(states, 1), torch.stack(reached, 1), ~alive)

    def _mean_velocity(self, x: Tensor, size: Tensor) -> Tensor:
        """Over a step of the classical Runge–Kutta method."""
        a = self.velocity(x)
        b = self.velocity(x + size / 2 * a)
        c = self.velocity(x + size / 2 * b)
        return (a + 2 * b + 2 * c + self.velocity(x + size * c)) / 6


def _none(name: str, index: tuple[int, ...]) -> Value:
    raise LanguageError(name, "a claim with that encoding, and states", "set encoding, or write it elsewhere")
