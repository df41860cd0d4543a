"""One system of a claim, exactly: the same weights, states and velocity as `dynamics`, in rationals or balls.

A state is a list of n tokens, each a list of d scalars (fmpq or arb). Where scores are rational, tokens with
equal scores are attended to equally; a softmax over one score only is then rational, and a velocity that
vanishes is exactly 0 (see `_vanishing`).
"""

import ast
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cached_property, reduce
from itertools import product
from typing import Any

from flint import arb, ctx, fmpq, fmpq_mat

from theory.definiteness import inertia
from theory.eigenpairs import hurwitz
from theory.instance import Instance
from theory.system import Setting
from theory.verdict import Grade, Verdict, every, fails, holds, undecided
from theory.weights import identity, symmetric_part
from tokendyn.claims.exact import Exact, Scalar, applied, inner, is_rational, rational
from tokendyn.claims.genome import Genome, Part
from tokendyn.claims.language import Comparison, Evaluation, Expression, LanguageError, Value, assignments

State = list[list[Any]]
TERMS = 20_000  # at most so many products of exponentials are collected
PRECISIONS = (128, 512)  # bits


class ExactRow:
    """A raw row of rationals as values of `Exact`; `dynamics.FloatRows` in exact arithmetic."""

    def __init__(self, raw: Sequence[Any], genome: Genome) -> None:
        self.raw, self.genome = [rational(entry) for entry in raw], genome

    def rows(self, part: Part) -> State:
        return _shaped(self.raw[part.place], part.shape[1])

    def part(self, part: Part, d: int) -> Value:
        flat = self.raw[part.place]
        match part.kind:
            case "number":
                return Value(0, flat[0])
            case "vector":
                return Value(1, flat)
            case "matrix" | "tall":
                return Value(2, _shaped(flat, part.shape[1]))
            case "squares":
                return Value(2, _shaped([q * q for q in flat], part.shape[1]))
            case "lower":
                return Value(
                    2,
                    [[flat[r * (r + 1) // 2 + c] if c <= r else fmpq(0) for c in range(d)] for r in range(d)],
                )
            case "diagonal":
                return Value(2, _diagonal(flat))
            case "signs":
                return Value(2, _diagonal([fmpq(-1 if q < 0 else 1) for q in flat]))
            case "blocks" | "signed blocks":
                return Value(2, _blocks(flat, part.kind != "blocks"))
        positive = int(part.kind.split()[1])
        return Value(2, _diagonal([fmpq(1 if k < positive else -1) for k in range(d)]))


def _shaped(flat: list[fmpq], width: int) -> State:
    return [list(flat[k : k + width]) for k in range(0, len(flat), width)] if width else []


def _diagonal(entries: Sequence[Scalar]) -> State:
    return [[entry if r == c else fmpq(0) for c in range(len(entries))] for r, entry in enumerate(entries)]


def _blocks(flat: list[fmpq], signed: bool) -> State:
    """Blocks [[a, −b], [b, a]] on the diagonal; `signed`: a² for a. Without a partner, a alone."""
    matrix = _diagonal([fmpq(0)] * len(flat))
    for k in range(0, len(flat), 2):
        a = flat[k] * flat[k] if signed else flat[k]
        matrix[k][k] = a
        if k + 1 < len(flat):
            matrix[k + 1][k + 1] = a
            matrix[k][k + 1], matrix[k + 1][k] = -flat[k + 1], flat[k + 1]
    return matrix


def on_sphere(token: list[fmpq]) -> list[fmpq]:
    """A unit token: stereographic in the first d − 1 entries, the sign of the last."""
    y, sign = token[:-1], fmpq(-1 if token[-1] < 0 else 1)
    square = inner(y, y)  # pyright: ignore[reportArgumentType]
    return [sign * entry / (1 + square) for entry in [*(2 * q for q in y), 1 - square]]  # type: ignore[misc]


def decide(relation: str, left: Scalar, right: Scalar) -> bool | None:
    """Whether left relation right is proved (True), refuted (False) or neither (None)."""
    if relation == "==":
        if isinstance(left, fmpq) and isinstance(right, fmpq):
            return left == right
        apart = arb(left) < arb(right) or arb(left) > arb(right)
        return False if apart else True if _one_point(left) and _one_point(right) else None
    if relation in (">", ">="):
        left, right = right, left
    strict = relation in ("<", ">")
    if (left < right) if strict else (left <= right):
        return True
    return False if ((left >= right) if strict else (left > right)) else None


def _one_point(value: Scalar) -> bool:
    return isinstance(value, fmpq) or bool(value.is_exact() and value.is_finite())


def grade(*values: Scalar) -> Grade:
    return Grade.EXACT if all(isinstance(value, fmpq) for value in values) else Grade.INTERVAL


class ExactSystem:
    """The system of one raw row: `values` of all names, the start `x0`, and what attention makes of states.

    x0 is the row's, or the one given. `nearby`, as in every claim about almost every start: statements are
    decided on small balls around states, so for all starts near x0. Balls have the working precision at the
    time of the call. Raises LanguageError as evaluations do.
    """

    def __init__(
        self, genome: Genome, raw: Sequence[Any], *, x0: State | None = None, nearby: bool = False
    ) -> None:
        self.genome, self.claim, self.n, self.d = genome, genome.claim, genome.n, genome.d
        self.given = {"x0": x0, "nearby": nearby}
        self.nearby = nearby or self.claim.quantifier == "almost every start"
        self.raw = tuple(Fraction(entry) for entry in raw)
        self.algebra, rows = Exact(), ExactRow(raw, genome)
        self.values = genome.values(rows, self.algebra)  # pyright: ignore[reportArgumentType]
        x = rows.rows(genome.parts["x"])
        own: State = [on_sphere(token) for token in x] if self.claim.sphere else x  # type: ignore
        self.x0 = own if x0 is None else x0
        self.p = rows.rows(genome.parts["p"]) if "p" in genome.parts else None
        self.b = self._bias(rows)
        marks = [""] if self.claim.heads == 1 else [str(k + 1) for k in range(self.claim.heads)]
        self.W: list[State] = [self.values["W" + mark].data for mark in marks]
        self.V: list[State] = [self.values["V" + mark].data for mark in marks]

    def again(self, **changed: Any) -> "ExactSystem":
        """The same system at the working precision of now; with another `x0` or `nearby` where given."""
        return ExactSystem(self.genome, self.raw, **{**self.given, **changed})

    @property
    def start(self) -> State:
        """x0 as statements take it."""
        return self.around(self.x0)

    def around(self, x: State) -> State:
        """The state, or for `nearby` a box around it, wider than rounding makes it and hardly more."""
        if not self.nearby:
            return x
        radius = arb(2) ** (32 - ctx.prec)
        return [[arb(c) + arb(0, radius) for c in token] for token in x]

    def _bias(self, rows: ExactRow) -> State | None:
        if "b" in self.genome.parts:
            return rows.rows(self.genome.parts["b"])
        if "_slope" not in self.genome.parts:
            return None
        slope = self.values["_slope"].data
        return [[-slope * slope * abs(i - j) for j in range(self.n)] for i in range(self.n)]

    @cached_property
    def rotation(self) -> State:
        """One turn of the rotary encoding: blocks by 2·atan of the raw numbers."""
        turned = _diagonal([fmpq(1)] * self.d)
        for k, t in enumerate(self.values["_turns"].data):
            c, s = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
            r = 2 * k
            turned[r][r], turned[r][r + 1], turned[r + 1][r], turned[r + 1][r + 1] = c, -s, s, c
        return turned

    @cached_property
    def h(self) -> Any:
        """The residual step, or None for the flow."""
        if self.claim.step_size is None:
            return None
        return Evaluation(self.algebra, self.values, self._none, self.n)(self.claim.step_size).data

    # Attention

    def scores(self, x: State, head: int = 0) -> State:
        """s_ij + b_ij (n, n), those of hidden tokens included."""
        seen = self._plus_positions(x)
        if self.claim.encoding == "rotary":
            queries, keys = (self._turned(applied(self.values[name].data, y) for y in seen) for name in "QK")
        else:
            form = self.W[head]
            queries, keys = seen, [applied(form, y) for y in seen]
        scores = [[inner(query, key) for key in keys] for query in queries]
        return (
            scores if self.b is None else [[*map(_add, *rows)] for rows in zip(scores, self.b, strict=True)]
        )

    def _turned(self, vectors: Any) -> State:
        found = []
        for index, vector in enumerate(vectors):
            for _ in range(index):
                vector = applied(self.rotation, vector)
            found.append(vector)
        return found

    def _plus_positions(self, x: State) -> State:
        return x if self.p is None else [[*map(_add, *rows)] for rows in zip(x, self.p, strict=True)]

    def visible(self, i: int) -> range:
        return range(i + 1 if self.claim.causal else self.n)

    def attention(self, x: State, head: int = 0) -> State:
        """P (n, n); NaN rows where balls cannot tell which key of a hardmax is largest."""
        share = _softmax if self.claim.attention == "softmax" else _hardmax
        rows = [share([row[j] for j in self.visible(i)]) for i, row in enumerate(self.scores(x, head))]
        return [row + [fmpq(0)] * (self.n - len(row)) for row in rows]

    def velocity(self, x: State) -> State:
        """ẋ (n, d); without the factor h of a residual layer."""
        carried, total = self._carried(x), self.drive(x)
        if self.claim.sphere:
            total = [_tangent(token, v) for token, v in zip(x, total, strict=True)]
        zeros = self._vanishing(x, carried)
        return [[fmpq(0) if (i, c) in zeros else v for c, v in enumerate(row)] for i, row in enumerate(total)]

    def _carried(self, x: State) -> State:
        return self._plus_positions(x) if self.claim.encoding == "absolute in scores and values" else x

    def drive(self, x: State) -> State:
        """Σ_h V_h m_i^h (n, d), before the sphere's projection."""
        carried = self._carried(x)
        total: State = [[fmpq(0)] * self.d for _ in x]
        for head, value in enumerate(self.V):
            for i, row in enumerate(self.attention(x, head)):
                mean = [inner(row, list(column)) for column in zip(*carried, strict=True)]
                total[i] = [a + b for a, b in zip(total[i], applied(value, mean), strict=True)]
        return total

    def _vanishing(self, x: State, carried: State) -> set[tuple[int, int]]:
        """Coordinates (i, c) of the velocity that are exactly 0, where everything is rational.

        Times its positive denominators, a coordinate is Σ_s e^s a_s with different rational exponents s and
        rational a_s. By Lindemann and Weierstrass that is 0 only if every a_s is.
        """
        if self.claim.attention != "softmax" or not all(map(is_rational, (x, carried, *self.V))):
            return set()
        scores = [self.scores(x, head) for head in range(len(self.V))]
        if not all(map(is_rational, scores)):
            return set()
        found: set[tuple[int, int]] = set()
        for i in range(self.n):
            sums = self._exponential_sum(x[i], [score[i] for score in scores], carried, self.visible(i))
            found |= {
                (i, c) for c in range(self.d) if sums is not None and not any(a[c] for a in sums.values())
            }
        return found

    def _exponential_sum(self, token: list, scores: list, carried: State, visible: range) -> dict | None:
        """Exponent: coefficient (d,) of one token's velocity times the denominators of all heads."""
        groups = [_groups(row, visible) for row in scores]
        if reduce(lambda a, b: a * b, map(len, groups)) > TERMS:
            return None
        total: dict[fmpq, list] = {}
        for chosen in product(*(group.items() for group in groups)):
            exponent = sum((s for s, _ in chosen), fmpq(0))
            count = reduce(lambda a, b: a * b, (len(keys) for _, keys in chosen))
            term = [fmpq(0)] * self.d
            for value, (_, keys) in zip(self.V, chosen, strict=True):
                mean = [sum((carried[j][c] for j in keys), fmpq(0)) / len(keys) for c in range(self.d)]
                term = [a + count * b for a, b in zip(term, applied(value, mean), strict=True)]
            term = _tangent(token, term) if self.claim.sphere else term
            total[exponent] = [
                a + b for a, b in zip(total.get(exponent, [fmpq(0)] * self.d), term, strict=True)
            ]
        return total

    def next_layer(self, x: State) -> State:
        """x + h·velocity, for residual steps."""
        return [
            [a + self.h * b for a, b in zip(token, moved, strict=True)]
            for token, moved in zip(x, self.velocity(x), strict=True)
        ]

    # Evaluation

    def at(self, x: State, t: Scalar | int = 0) -> Evaluation:
        """Evaluates expressions at a state."""
        lazy: dict[str, Any] = {"x": x, "p": self.p, "b": self.b}
        makers: dict[str, Callable[[], Any]] = {
            "x0": lambda: self.start,
            "dx": lambda: [[v if self.h is None else self.h * v for v in row] for row in self.velocity(x)],
            "P": lambda: self.attention(x),
            "s": lambda: self.scores(x),
            "m": lambda: [[inner(row, list(c)) for c in zip(*x, strict=True)] for row in self.attention(x)],
        }

        def tokens(name: str, index: tuple[int, ...]) -> Value:
            if name not in lazy:
                lazy[name] = makers[name]()
            if lazy[name] is None:
                self._none(name, index)
            entry = lazy[name]
            for k in index:
                entry = entry[k - 1]
            return Value(1 if len(index) == 1 else 0, entry)

        now = fmpq(t) if isinstance(t, int) else t
        values = {**self.values, "t": Value(0, now), "X": Value(2, x), "Cov": Value(2, _covariance(x))}
        if self.h is not None:
            values["h"] = Value(0, self.h)
        return Evaluation(self.algebra, values, tokens, self.n)

    def _none(self, name: str, index: tuple[int, ...]) -> Value:
        raise LanguageError(
            name, "a claim with that encoding, and states", "set encoding, or write it elsewhere"
        )

    # As the theory's verifier takes it

    def instance(self) -> Instance | None:
        """The same flow as an Instance, or None: irrational weights, hardmax, or more than two heads."""
        claim = self.claim
        if claim.attention != "softmax" or len(self.V) > 2 or not all(map(is_rational, (*self.W, *self.V))):
            return None
        given: dict[str, Any] = {"bias": self.b, "positions": self.p}
        if claim.encoding == "rotary":
            given |= {"query": self.values["Q"].data, "key": self.values["K"].data, "rotation": self.rotation}
        if len(self.V) == 2:
            given |= {"W_2": self.W[1], "V_2": self.V[1]}
        exact = {name: fmpq_mat(rows) for name, rows in given.items() if rows is not None}
        if not all(is_rational(rows) for rows in given.values() if rows is not None):
            return None
        setting = Setting(
            causal=claim.causal,
            heads=len(self.V),
            positions=claim.encoding.removeprefix("absolute in ") if self.p is not None else "",
            bias=self.b is not None,
            rotary=claim.encoding == "rotary",
            sphere=claim.sphere,
        )
        tokens, score, value = fmpq_mat(self.x0), fmpq_mat(self.W[0]), fmpq_mat(self.V[0])
        return Instance.of(score=score, value=value, tokens=tokens, setting=setting, **exact)


def _add(a: Scalar, b: Scalar) -> Scalar:
    return a + b


def _groups(scores: list[fmpq], visible: range) -> dict[fmpq, list[int]]:
    found: dict[fmpq, list[int]] = {}
    for j in visible:
        found.setdefault(scores[j], []).append(j)
    return found


def _softmax(scores: list[Any]) -> list[Scalar]:
    if is_rational([scores]) and len(set(scores)) == 1:
        return [fmpq(1, len(scores))] * len(scores)
    lead = max(range(len(scores)), key=lambda j: arb(scores[j]).mid())
    weights = [arb(score - scores[lead]).exp() if j != lead else arb(1) for j, score in enumerate(scores)]
    total = sum(weights, arb(0))
    return [weight / total for weight in weights]


def _hardmax(scores: list[Any]) -> list[Scalar]:
    if is_rational([scores]):
        best = [fmpq(score == max(scores)) for score in scores]
        return [share / sum(best, fmpq(0)) for share in best]
    for j, score in enumerate(scores):
        if all(score > other for k, other in enumerate(scores) if k != j):
            return [fmpq(k == j) for k in range(len(scores))]
    return [arb.nan()] * len(scores)


def _tangent(token: list[Any], v: list[Any]) -> list[Any]:
    along = inner(token, v)
    return [b - along * a for a, b in zip(token, v, strict=True)]


def _covariance(x: State) -> State:
    n = len(x)
    mean = [sum(column, fmpq(0)) / n for column in zip(*x, strict=True)]
    rows = [[a - b for a, b in zip(token, mean, strict=True)] for token in x]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [[inner(a, b) / n for b in columns] for a in columns]


def hypotheses(system: ExactSystem) -> Verdict:
    """Whether the start satisfies every condition of the claim: exactly, or by balls.

    UNDECIDED where the balls of an irrational quantity do not separate the two sides, and of a system with
    an entry that has no value.
    """
    verdicts = [_defined(system), *([] if system.h is None else [_positive_step(system)])]
    for comparison in system.claim.conditions:
        verdict = undecided(comparison.text)
        for bits in PRECISIONS:
            with ctx.workprec(bits):
                fine = system if bits == PRECISIONS[0] else system.again()
                verdict = _condition(fine, comparison)
            if verdict.holds or verdict.fails:
                break
        verdicts.append(verdict)
        if verdict.fails:
            break
    return every(verdicts)


def _defined(system: ExactSystem) -> Verdict:
    parts = [*(value.data for value in system.values.values()), *system.W, *system.V, system.p, system.b]
    entries = [entry for part in parts for entry in _entries(part)]
    defined = all(arb(entry).is_finite() for entry in entries)
    return holds(grade(*entries)) if defined else undecided("a formula without a value")


def _entries(part: Any) -> list[Scalar]:
    """Of a number, vector or matrix, or of None."""
    if isinstance(part, list):
        return [entry for inner_part in part for entry in _entries(inner_part)]
    return [] if part is None else [part]


def _positive_step(system: ExactSystem) -> Verdict:
    positive = decide(">", system.h, fmpq(0))  # type: ignore[arg-type]
    if positive is None:
        return undecided("the step's sign")
    return (holds if positive else fails)(grade(system.h), "the step is positive")


def _condition(system: ExactSystem, comparison: Comparison) -> Verdict:
    evaluate = system.at(system.start)
    return every(_at(evaluate, comparison, at) for at in assignments(comparison.free, system.n))


def _at(evaluate: Evaluation, comparison: Comparison, at: dict[str, int]) -> Verdict:
    reason = f"{comparison.text}{_where(at)}"
    if (verdict := _by_matrix(evaluate, comparison, at, reason)) is not None:
        return verdict
    left, right = evaluate(comparison.left, at).data, evaluate(comparison.right, at).data
    true = decide(comparison.relation, left, right)
    return undecided(reason) if true is None else (holds if true else fails)(grade(left, right), reason)


def _by_matrix(
    evaluate: Evaluation, comparison: Comparison, at: dict[str, int], reason: str
) -> Verdict | None:
    """eigmin or eigmax of a rational matrix against a rational, by inertia; abscissa < r by Lyapunov."""
    match comparison.left.tree:
        case ast.Call(func=ast.Name(id="eigmin" | "eigmax" | "abscissa" as name), args=[argument]):
            rows = evaluate(Expression("", argument, ()), at).data
            bound = evaluate(comparison.right, at).data
        case _:
            return None
    if not isinstance(bound, fmpq) or not is_rational(rows):
        return None
    matrix, relation = fmpq_mat(rows), comparison.relation
    if name == "abscissa":
        verdict = hurwitz(matrix - identity(len(rows)) * bound)
        return holds(verdict.grade, reason) if verdict.holds and relation in ("<", "<=") else None
    found = inertia(symmetric_part(matrix) - identity(len(rows)) * bound)
    if found is None or relation == "==":
        return None
    signs, proof = found
    if name == "eigmin":
        extreme = -1 if signs.negative else 0 if signs.zero else 1
    else:
        extreme = 1 if signs.positive else 0 if signs.zero else -1
    true = {">": extreme > 0, ">=": extreme >= 0, "<": extreme < 0, "<=": extreme <= 0}[relation]
    return (holds if true else fails)(proof, reason)


def _where(at: dict[str, int]) -> str:
    return f" at {', '.join(f'{index} = {number}' for index, number in at.items())}" if at else ""
