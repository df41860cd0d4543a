"""A layer or head as stored factors of W and V, and what is proved about its W_s, A_s and V.

The factors are floats and so exact rationals. Up to d = 24 rationals and Arb balls decide. Beyond,
floating-point balls (theory.spectra) enclose whole spectra in about a second; what they leave open is decided
by Arb balls, which may take minutes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR
from functools import cached_property
from typing import TypeVar

import numpy as np
from flint import arb, fmpq, fmpq_mat

from theory.balls import Ball, exact, stack
from theory.definiteness import EXACT_SIZE, Inertia, decimal_bound, inertia, positive_definite
from theory.eigenpairs import hurwitz, positive_eigenvalue, unstable
from theory.hypotheses import (
    A_DEFINITE,
    A_NEGATIVE,
    A_POSITIVE,
    A_SYMMETRIC,
    LEFT_EIGENVECTOR,
    RATE_POSITIVE,
    V_HURWITZ,
    V_NOT_HURWITZ,
    V_UNSTABLE,
    W_DEFINITE,
    W_POSITIVE,
    W_SYMMETRIC,
)
from theory.instance import Instance
from theory.spectra import (
    Discs,
    Enclosure,
    low_rank_spectrum,
    smallest_singular_value,
    solve_right,
    spectrum,
    symmetric_spectrum,
)
from theory.spectra import inertia as enclosed_inertia
from theory.theorems.causal import COMMON_METRIC, LYAPUNOV_METRIC, SUM_UNSTABLE
from theory.theorems.collapse import PROFILE_STABLE
from theory.theorems.heads import COEFFICIENTS, HEADS_POSITIVE, HEADS_TIED
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import Weights, rational_matrix, symmetric_part

T = TypeVar("T")
SINGULAR = "V is singular, so A = W V⁻¹ is not defined"


@dataclass(frozen=True)
class Signs:
    """Signs of a symmetric part M_s: its inertia, M_s ≻ 0 and M_s ≺ 0 with bounds on both extremes.

    The margin of `positive` bounds λ_min(M_s), that of `negative` bounds λ_min(−M_s).
    """

    inertia: tuple[Inertia, Grade] | None
    positive: Verdict
    negative: Verdict

    @property
    def definite(self) -> Verdict:
        """Is M_s definite, of either sign?"""
        for verdict, sign in ((self.positive, "≻"), (self.negative, "≺")):
            if verdict.holds:
                return holds(verdict.grade, f"{sign} 0: {verdict.reason}", verdict.margin)
        if self.positive.fails and self.negative.fails:
            grade = min(self.positive.grade, self.negative.grade)
            counts = self.inertia and self.inertia[0]
            reason = counts and f"{counts.positive} eigenvalues > 0, {counts.negative} < 0, {counts.zero} = 0"
            return fails(grade, reason or "it has eigenvalues on both sides", self.positive.margin)
        return undecided("its sign stays open")


@dataclass(frozen=True, eq=False)
class Factors:
    """W = Σ_h Q_hᵀK_h·scale and V = Σ_h O_h U_h of `heads` heads, from float64 arrays as exact numbers.

    `query`, `key` (heads·d_k, d), `value` (heads·d_v, d) and `output` (d, heads·d_v) hold the heads in order;
    each run of `sharing` heads has the same keys and values. One head alone has heads = sharing = 1. scale²
    is `scale_squared`.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    output: np.ndarray
    scale_squared: fmpq
    heads: int = 1
    sharing: int = 1

    @property
    def dim(self) -> int:
        return self.query.shape[1]

    @property
    def scale(self) -> float:
        """Of W, as a float."""
        return math.sqrt(int(self.scale_squared.p) / int(self.scale_squared.q))

    @cached_property
    def scores(self) -> Signs:
        """Signs of W_s."""
        return (
            self._enclosed(self._score_enclosure, self._score_zeros, self._score_inertia)
            or self._slow_scores()
        )

    @cached_property
    def response(self) -> Signs | None:
        """Signs of A_s, A = W V⁻¹; None where V is singular."""
        if self.singular:
            return None
        return (
            self._enclosed(self._response_enclosure, counts=self._response_inertia) or self._slow_response()
        )

    @cached_property
    def singular(self) -> bool:
        """Whether V is singular: by its rank, by a proved inverse, or exactly."""
        if self.low_rank:
            return True
        return self._response_ball is None and not self.weights.response_exists

    @property
    def low_rank(self) -> bool:
        """V factors through fewer than d dimensions."""
        return self._values_size < self.dim

    @cached_property
    def growth(self) -> Verdict:
        """Has V an eigenvalue with positive real part? FAILS with margin "= 0" where 0 is the rightmost."""
        found = self._enclosed_growth()
        verdict = unstable(self._exact_core) if found is None else found
        if self.low_rank and verdict.fails:
            return fails(verdict.grade, f"0 is an eigenvalue; the others: {verdict.reason}", "= 0")
        return verdict

    @cached_property
    def real_rate(self) -> Verdict:
        """Has V a real eigenvalue μ > 0?"""
        found = self._enclosed_rate()
        return positive_eigenvalue(self._exact_core) if found is None else found

    @cached_property
    def excludes(self) -> dict[str, str]:
        """Why T11's certificates cannot exist: equal tokens obey ẋ = Vx, so all of V must lie on one side."""
        reasons = {}
        if self.growth.holds:
            reasons["boundedness"] = "V has an eigenvalue with positive real part"
        if self.low_rank or (
            hurwitz(self.weights.value * -1).fails
            if self.unstable_count is None
            else self.unstable_count[1] < self.dim
        ):
            reasons["divergence"] = "V has an eigenvalue whose real part is not positive"
        return reasons

    @property
    def unstable_count(self) -> tuple[int, int] | None:
        """Proved bounds on the number of eigenvalues of V with positive real part."""
        return None if self._discs is None else self._discs.unstable()

    @cached_property
    def not_hurwitz(self) -> Verdict:
        if self.low_rank:
            reason = f"V has rank ≤ {self._values_size} < {self.dim}, so 0 is an eigenvalue"
            return holds(Grade.EXACT, reason, "0")
        if self.growth.holds:
            return self.growth
        if self.growth.fails:
            return fails(self.growth.grade, f"V is {self.growth.reason}")
        verdict = hurwitz(self.weights.value)
        return holds(verdict.grade, verdict.reason) if verdict.fails else undecided(verdict.reason)

    @cached_property
    def heads_tied(self) -> Verdict:
        """T15's A V_h = c_h W_h with c_1 = 1: fails where the rows of K_1 and of U_1 are independent.

        The rows of W_1 ≠ 0 are combinations of those of K_1, the rows of A V_1 of those of U_1.
        """
        head = self._split()[0]
        found = None
        if head.query.any() and 2 * len(head.key) <= self.dim:
            found = _attempt(lambda: smallest_singular_value(exact(np.vstack([head.key, head.value]))))
        if found:
            reason = "the rows of K_1 and of V_1 are independent, so A V_1 = W_1 for no A"
            return fails(Grade.INTERVAL, reason)
        return undecided("no obstacle was found, and no A was looked for")

    def verdicts(self) -> dict[str, Verdict]:
        """What is proved of the hypotheses about the weights, by key. Those missing: `instance` decides."""
        hurwitz_sum = self._negated(self.not_hurwitz)
        known = {
            W_POSITIVE.key: self.scores.positive,
            W_DEFINITE.key: self.scores.definite,
            V_NOT_HURWITZ.key: self.not_hurwitz,
            V_HURWITZ.key: hurwitz_sum,
            LYAPUNOV_METRIC.key: hurwitz_sum,
            V_UNSTABLE.key: self.growth,
            SUM_UNSTABLE.key: self.growth,
            LEFT_EIGENVECTOR.key: self.real_rate,
            RATE_POSITIVE.key: self.real_rate,
            COMMON_METRIC.key: hurwitz_sum
            if hurwitz_sum.fails
            else undecided("no common metric M of the heads is given"),
            **self._response_verdicts(),
            **self._score_symmetry(),
        }
        if self.heads > 1:
            known[HEADS_TIED.key] = self.heads_tied
            known[COEFFICIENTS.key] = undecided("no A and c_h were looked for")
            known[HEADS_POSITIVE.key] = undecided("no A and c_h were looked for")
        if not (known[A_NEGATIVE.key].holds and known[W_POSITIVE.key].holds):
            known[PROFILE_STABLE.key] = undecided("asked only where A_s ≺ 0 and W_s ≻ 0")
        return known

    def _response_verdicts(self) -> Mapping[str, Verdict]:
        if self.response is None:
            keys = (A_SYMMETRIC.key, A_POSITIVE.key, A_NEGATIVE.key, A_DEFINITE.key)
            return dict.fromkeys(keys, undecided(SINGULAR))
        return {
            A_POSITIVE.key: self.response.positive,
            A_NEGATIVE.key: self.response.negative,
            A_DEFINITE.key: self.response.definite,
            **self._symmetry(A_SYMMETRIC.key, "A", self._response_ball),
        }

    def _score_symmetry(self) -> Mapping[str, Verdict]:
        if self._is_small:
            return {}
        if self._score_zeros and self._score_enclosure is not None:
            reason = "W − Wᵀ has the rank of [Q; K], whose rows are independent"
            return {W_SYMMETRIC.key: fails(Grade.INTERVAL, reason)}
        return self._symmetry(W_SYMMETRIC.key, "W", _attempt(lambda: self._form_ball))

    @staticmethod
    def _symmetry(key: str, name: str, ball: Ball | None) -> Mapping[str, Verdict]:
        """FAILS where an entry of M − Mᵀ is proved not to be 0; nothing where exact arithmetic must tell."""
        if ball is None:
            return {}
        gap = ball - ball.T
        if not (np.abs(gap.mid) > gap.rad).any():
            return {}
        share = np.abs(gap.mid).max() / np.abs(ball.mid).max()
        margin = f"|{name} − {name}ᵀ|/|{name}| ≈ {share:.2g}"
        return {key: fails(Grade.INTERVAL, f"{name} is not symmetric", margin)}

    @staticmethod
    def _negated(verdict: Verdict) -> Verdict:
        if verdict.holds:
            return fails(verdict.grade, verdict.reason, verdict.margin)
        return holds(verdict.grade, verdict.reason, verdict.margin) if verdict.fails else verdict

    # ---- by floating-point balls

    @property
    def _is_small(self) -> bool:
        return self.dim <= EXACT_SIZE

    @property
    def _groups(self) -> int:
        return self.heads // self.sharing

    @property
    def _values_size(self) -> int:
        return self.value.shape[0] // self.sharing

    @cached_property
    def _balls(self) -> tuple[Ball, Ball, Ball, Ball]:
        """Q, K, U, O with what multiplies shared keys and values added up: ΣQ_h, K, U, ΣO_h of a group."""

        def shaped(rows: np.ndarray) -> np.ndarray:
            return rows.reshape(self._groups, self.sharing, -1, self.dim)

        key, value = (np.vstack(list(shaped(m)[:, 0])) for m in (self.key, self.value))
        query, output = (_total(shaped(m)) for m in (self.query, self.output.T))
        return query, exact(key), exact(value), output.T

    @cached_property
    def _form_ball(self) -> Ball:
        """QᵀK (d, d), without the scale."""
        query, key, _, _ = self._balls
        return query.T @ key

    @cached_property
    def _value_ball(self) -> Ball:
        """V (d, d), or where it is of low rank U O, which has the same eigenvalues but zeros."""
        _, _, value, output = self._balls
        return value @ output if self.low_rank else output @ value

    @property
    def _score_rank(self) -> int:
        """Twice the rows of Q, a bound of the rank of W_s."""
        return 2 * self._balls[0].shape[0]

    @property
    def _score_zeros(self) -> int:
        return max(self.dim - self._score_rank, 0)

    @property
    def _score_inertia(self) -> Inertia | None:
        """Of a W_s of low rank: its enclosed spectrum proves that the rows of [Q; K] are independent."""
        half = self._score_rank // 2
        low_rank = self._score_rank <= self.dim and self._score_enclosure is not None
        return Inertia(half, half, self._score_zeros) if low_rank else None

    @cached_property
    def _score_enclosure(self) -> Enclosure | None:
        """The spectrum of (QᵀK)_s without the zeros that its rank leaves."""
        if self._is_small:
            return None
        if self._score_rank <= self.dim:
            return _attempt(lambda: low_rank_spectrum(stack(*self._balls[:2])))
        return _attempt(lambda: symmetric_spectrum(self._form_ball.symmetric_part()))

    @cached_property
    def _response_ball(self) -> Ball | None:
        """A (d, d) without the scale."""
        if self._is_small or self.low_rank:
            return None
        return _attempt(lambda: solve_right(self._form_ball, self._value_ball))

    @property
    def _response_enclosure(self) -> Enclosure | None:
        ball = self._response_ball
        return None if ball is None else symmetric_spectrum(ball.symmetric_part())

    @property
    def _response_inertia(self) -> Inertia | None:
        """Of VᵀA_sV = (VᵀW)_s, which is A_s's: told more sharply than by A_s itself."""
        if self._response_ball is None:
            return None
        found = _attempt(lambda: symmetric_spectrum((self._value_ball.T @ self._form_ball).symmetric_part()))
        return found and enclosed_inertia(found)

    @cached_property
    def _discs(self) -> Discs | None:
        """The spectrum of V but for the zeros that its rank leaves."""
        if self._is_small:
            return None
        return _attempt(lambda: spectrum(self._value_ball))

    def _enclosed(
        self, found: Enclosure | None, zeros: int = 0, counts: Inertia | None = None
    ) -> Signs | None:
        """The signs that an enclosed spectrum tells, or None where an extreme stays open."""
        counts = counts or (found and enclosed_inertia(found, zeros))
        if found is None or counts is None:
            return None
        low, high = (found.lower[0], found.upper[0]), (found.lower[-1], found.upper[-1])
        smallest = (0.0, 0.0) if zeros and low[0] > 0 else low
        largest = (0.0, 0.0) if zeros and high[1] < 0 else high
        sides = self._above_zero(*smallest), self._above_zero(-largest[1], -largest[0])
        return None if None in sides else Signs((counts, Grade.INTERVAL), *sides)

    def _above_zero(self, low: float, high: float) -> Verdict | None:
        """Is an eigenvalue in [low, high], in multiples of the scale, positive?"""
        if low > 0:
            return holds(
                Grade.INTERVAL, "every eigenvalue is enclosed", f"≥ {self._scaled(low, ROUND_FLOOR)}"
            )
        if high > 0:
            return None
        return fails(Grade.INTERVAL, "an enclosed eigenvalue", f"≤ {self._scaled(high, ROUND_CEILING)}")

    def _scaled(self, bound: float, rounding: str) -> str:
        return decimal_bound(_rational(bound) * arb(self.scale_squared).sqrt(), rounding)

    def _enclosed_growth(self) -> Verdict | None:
        if self._discs is None:
            return None
        low, high = self._discs.abscissa()
        if low > 0:
            margin = f"≥ {decimal_bound(_rational(low), ROUND_FLOOR)}"
            return holds(Grade.INTERVAL, "an eigenvalue with positive real part is enclosed", margin)
        return fails(Grade.INTERVAL, "Hurwitz: every eigenvalue is enclosed", "< 0") if high < 0 else None

    def _enclosed_rate(self) -> Verdict | None:
        if self._discs is None:
            return None
        real = self._discs.real_positive()
        if real:
            margin = f"μ ≥ {decimal_bound(_rational(max(real)[0]), ROUND_FLOOR)}"
            return holds(Grade.INTERVAL, "an enclosed real eigenvalue", margin)
        centres, radii = self._discs.centres, self._discs.radii
        if not ((np.abs(centres.imag) <= radii) & (centres.real + radii > 0)).any():
            return fails(Grade.INTERVAL, "no enclosed eigenvalue is real and positive")
        return None

    # ---- in rationals and Arb balls

    @cached_property
    def weights(self) -> Weights:
        """QᵀK and V in rationals."""
        query, key, value, output = (
            rational_matrix(name, getattr(self, name)) for name in ("query", "key", "value", "output")
        )
        return Weights(query.transpose() * key, output * value, self.scale_squared)

    @cached_property
    def instance(self) -> Instance:
        """For the hypotheses that `verdicts` leaves out."""
        return Instance(self.weights)

    @property
    def _exact_core(self) -> fmpq_mat:
        """A matrix with V's eigenvalues but zeros."""
        if not self.low_rank or self.sharing > 1:
            return self.weights.value
        return rational_matrix("value", self.value) * rational_matrix("output", self.output)

    def _slow_scores(self) -> Signs:
        form = symmetric_part(self.weights.form)
        return self._slow_signs(self._stacked_inertia() or inertia(form), form)

    def _stacked_inertia(self) -> tuple[Inertia, Grade] | None:
        """W_s = ½BᵀJB, B = [Q; K] = CP, J = [[0, I], [I, 0]], P of independent rows: the signs of CᵀJC."""
        rows = self.query.shape[0]
        if self.sharing > 1 or 2 * rows > self.dim:
            return None
        stacked = rational_matrix("query and key", np.vstack([self.query, self.key]))
        rank = stacked.rank()
        if rank == 2 * rows:  # C is regular
            return Inertia(rows, rows, self.dim - rank), Grade.EXACT
        reduced = stacked.rref()[0]
        pivots = [next(j for j in range(self.dim) if reduced[i, j] != 0) for i in range(rank)]
        above, below = (
            fmpq_mat(rows, rank, [stacked[i, j] for i in range(start, start + rows) for j in pivots])
            for start in (0, rows)
        )
        found = (
            inertia(symmetric_part(above.transpose() * below)) if rank else (Inertia(0, 0, 0), Grade.EXACT)
        )
        return found and (replace(found[0], zero=found[0].zero + self.dim - rank), found[1])

    def _slow_response(self) -> Signs:
        form, value = symmetric_part(self.weights.congruent_response), self.weights.value
        return self._slow_signs(inertia(form), form, value.transpose() * value)

    def _slow_signs(
        self, found: tuple[Inertia, Grade] | None, form: fmpq_mat, metric: fmpq_mat | None = None
    ) -> Signs:
        sides = [positive_definite(form * sign, metric, self.weights.scale) for sign in (1, -1)]
        if found and found[0].zero:
            singular = fails(found[1], "0 is an eigenvalue", "≤ 0")
            sides = [side if side.fails else singular for side in sides]
        return Signs(found, *sides)

    def _split(self) -> list["Factors"]:
        """The heads one by one."""
        if self.heads == 1:
            return [self]
        rows = [np.split(m, self.heads) for m in (self.query, self.key, self.value)]
        columns = np.split(self.output, self.heads, axis=1)
        return [Factors(*parts, self.scale_squared) for parts in zip(*rows, columns, strict=True)]


def _total(parts: np.ndarray) -> Ball:
    """Σ_h of parts (groups, sharing, rows, d), as (groups·rows, d); exact where nothing is added."""
    total = parts[:, 0].copy()
    size = np.abs(total)
    for h in range(1, parts.shape[1]):
        total = total + parts[:, h]
        size = size + np.abs(parts[:, h])
    rounding = 0.0 if parts.shape[1] == 1 else parts.shape[1] * float(np.finfo(float).eps)
    rows = (-1, parts.shape[-1])
    return Ball(total.reshape(rows), (rounding * size).reshape(rows))


def _attempt(compute: Callable[[], T]) -> T | None:
    """None where the floats overflow, so that exact numbers must tell."""
    try:
        with np.errstate(all="ignore"):
            return compute()
    except ArithmeticError:
        return None


def _rational(number: float) -> fmpq:
    return fmpq(*float(number).as_integer_ratio())
