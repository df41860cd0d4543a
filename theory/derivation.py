"""A derivation is a list of steps, each carrying evidence that `check` recomputes.

What is computed, what is assumed, what is cited and what is argued in words are different kinds of evidence
and are never shown as one another. A step that the computation does not settle raises DerivationError.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sympy import (
    Basic,
    Derivative,
    Dummy,
    Eq,
    Expr,
    Ge,
    Gt,
    Integer,
    MatrixExpr,
    Symbol,
    exp,
    simplify,
    sympify,
    true,
)
from sympy.core.relational import Relational

from theory import notation
from theory.enclosure import enclose_constant
from theory.errors import DerivationError
from theory.hypotheses import Hypothesis
from theory.instance import Instance
from theory.matrices import componentwise, difference_normal_form, directional_derivative, is_zero
from theory.sums import Definition, Total, at_size, normal_form, sort_symmetric, unfold
from theory.verdict import Grade, Verdict

Claim = Relational | str  # a SymPy relation that is computed, or LaTeX for what is not


@dataclass(frozen=True)
class Quoted:
    """The formula of a checked statement and the hypotheses under which it holds."""

    formula: Claim
    hypotheses: tuple[Hypothesis, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a derivation may use: hypothesis keys, their SymPy assumptions, and formulas of checked lemmas."""

    hypotheses: frozenset[str] = frozenset()
    assumptions: Basic = true
    lemma: Callable[[str], Quoted] | None = None

    def require(self, keys: Sequence[str]) -> None:
        missing = [key for key in keys if key not in self.hypotheses]
        if missing:
            raise DerivationError(f"the step needs the hypothesis {', '.join(missing)}, which is not given")


class Evidence:
    """What a step rests on: `claim` states it, `check` recomputes it, `label` says of what kind it is."""

    kind: str

    @property
    def label(self) -> str:
        return self.kind

    def claim(self) -> Claim:
        raise NotImplementedError

    def check(self, context: Context) -> None:
        """Raises DerivationError unless the claim is settled."""
        raise NotImplementedError


SYMBOLIC, EXACT, INTERVAL = (
    "symbolic, any n and d",
    "exact rationals, this instance",
    "certified by intervals",
)
FIXED = "symbolic, this n and d"
EARLIER, HYPOTHESIS, CITED, ARGUED = "earlier statement", "hypothesis", "cited", "argued in words"
KINDS = (SYMBOLIC, FIXED, EXACT, INTERVAL, EARLIER, HYPOTHESIS, CITED, ARGUED)


FLOW = {notation.x_i: notation.V * notation.m_i, notation.x_j: notation.V * notation.m_j}


@dataclass(frozen=True)
class MatrixIdentity(Evidence):
    """left = right as matrix expressions, for every d, and again entry by entry at small d.

    Symmetries come from the hypotheses in force; `where` substitutes definitions such as W = AV.
    """

    left: MatrixExpr
    right: MatrixExpr
    where: Mapping[MatrixExpr, MatrixExpr] | None = None
    sizes: tuple[int, ...] = (1, 2, 3)
    derivative_of: MatrixExpr | None = None
    kind = SYMBOLIC

    @property
    def label(self) -> str:
        return f"{SYMBOLIC}; entry by entry at d = {', '.join(map(str, self.sizes))}"

    def claim(self) -> Relational:
        if self.derivative_of is not None:
            return Eq(Derivative(self.derivative_of, notation.t, evaluate=False), self.right, evaluate=False)
        return Eq(self.left, self.right, evaluate=False)

    def check(self, context: Context) -> None:
        if self.derivative_of is not None and self.left != directional_derivative(self.derivative_of, FLOW):
            raise DerivationError(f"the left-hand side is not the derivative of {self.derivative_of}")
        left, right = (side.subs(dict(self.where or {})) for side in (self.left, self.right))
        if not is_zero(rest := difference_normal_form(left, right, context.assumptions)):
            raise DerivationError(f"{self.claim()} leaves {rest}")
        for size in self.sizes:
            entries = [componentwise(side, {notation.d: size}, context.assumptions) for side in (left, right)]
            if not simplify(entries[0] - entries[1]).is_zero_matrix:
                raise DerivationError(f"{self.claim()} fails entry by entry at d = {size}")


def along_flow(expression: MatrixExpr, right: MatrixExpr) -> MatrixIdentity:
    """d/dt expression = right, where ẋ_i = V m_i, ẋ_j = V m_j (product rule) and W = AV."""
    left = directional_derivative(expression, FLOW)
    return MatrixIdentity(left, right, where={notation.W: notation.A * notation.V}, derivative_of=expression)


@dataclass(frozen=True)
class SumIdentity(Evidence):
    """left = right for every n and d, by the normal form of finite sums; again written out at small n, d.

    `needs` names the hypotheses that the identity rests on; treating entries as symmetric takes one.
    """

    left: Expr
    right: Expr
    definitions: tuple[Definition, ...] = ()
    totals: tuple[Total, ...] = ()
    symmetric: tuple[Basic, ...] = ()
    needs: tuple[str, ...] = ()
    kind = SYMBOLIC

    @property
    def label(self) -> str:
        return f"{SYMBOLIC}; written out at n = 1, 2, 3"

    def claim(self) -> Relational:
        return Eq(self.left, self.right, evaluate=False)

    def check(self, context: Context) -> None:
        if self.symmetric and not self.needs:
            raise DerivationError(f"no hypothesis is named for the symmetry of {self.symmetric}")
        context.require(self.needs)
        difference = self.left - self.right
        rest = normal_form(difference, self.definitions, self.totals, self.symmetric)
        if rest != 0:
            raise DerivationError(f"{self.claim()} leaves {rest}")
        for size in (1, 2, 3):
            if self._written_out(difference, {notation.n: size, notation.d: min(size, 2)}) != 0:
                raise DerivationError(f"{self.claim()} fails written out at n = {size}")

    def _written_out(self, expression: Expr, sizes: dict[Symbol, int]) -> Expr:
        explicit = at_size(unfold(expression, self.definitions), sizes)
        for total in self.totals:
            explicit = explicit.subs(total.value, at_size(total.written(Dummy(integer=True)), sizes))
        return simplify(sort_symmetric(explicit, self.symmetric))


@dataclass(frozen=True)
class Equality(Evidence):
    """left = right between scalar or explicit-matrix expressions, by simplification (e.g. a derivative)."""

    left: Basic
    right: Basic
    kind: str = field(default=SYMBOLIC, kw_only=True)

    def claim(self) -> Relational:
        return Eq(self.left, self.right, evaluate=False)

    def check(self, context: Context) -> None:
        difference = self.left.doit() - self.right.doit()  # type: ignore[operator]
        if not _vanishes(rest := simplify(difference)):
            rest = simplify(sympify(difference).rewrite(exp))  # hyperbolic functions cancel as exponentials
        if not _vanishes(rest):
            raise DerivationError(f"{self.claim()} leaves {rest}")


def _vanishes(expression) -> bool:
    return expression == 0 or getattr(expression, "is_zero_matrix", None) is True


@dataclass(frozen=True)
class Positive(Evidence):
    """expression > 0 (or ≥ 0 if `weak`), settled by SymPy from the declared signs of the symbols."""

    expression: Expr
    weak: bool = False
    kind = SYMBOLIC

    def claim(self) -> Relational:
        relation = Ge if self.weak else Gt
        return relation(self.expression, Integer(0), evaluate=False)

    def check(self, context: Context) -> None:
        settled = self.expression.is_nonnegative if self.weak else self.expression.is_positive
        if settled is not True:
            raise DerivationError(f"SymPy does not settle {self.claim()}")


@dataclass(frozen=True)
class ConvexMinimum(Evidence):
    """f(u) ≥ 0 with equality only at `at`: f and f′ vanish there and f″ > 0 on the whole line."""

    function: Expr
    variable: Symbol
    at: Expr
    kind = SYMBOLIC

    @property
    def label(self) -> str:
        return f"{SYMBOLIC}; f = f′ = 0 at the minimum and f″ > 0 everywhere"

    def claim(self) -> Relational:
        return Ge(self.function, Integer(0), evaluate=False)

    def check(self, context: Context) -> None:
        slope = self.function.diff(self.variable)
        at_minimum = [simplify(f.subs(self.variable, self.at)) for f in (self.function, slope)]
        anywhere = Dummy(self.variable.name, real=True)  # whatever is assumed of the variable itself
        curvature = simplify(slope.diff(self.variable).subs(self.variable, anywhere))
        if at_minimum != [0, 0] or curvature.is_positive is not True:
            raise DerivationError(f"{self.function} is not convex with minimum 0 at {self.at}")


@dataclass(frozen=True)
class Certified(Evidence):
    """greater > lesser between numbers, proved by evaluating both sides in Arb balls."""

    greater: Expr
    lesser: Expr
    kind = INTERVAL

    def claim(self) -> Relational:
        return Gt(self.greater, self.lesser, evaluate=False)

    def check(self, context: Context) -> None:
        gap = enclose_constant(self.greater - self.lesser)
        if not gap > 0:
            raise DerivationError(f"balls do not separate the sides of {self.claim()}: difference {gap}")


@dataclass(frozen=True)
class Satisfies(Evidence):
    """What is decided exactly, as a rule that a named rational system meets hypotheses."""

    text: str
    decide: Callable[[], Sequence[Verdict]]
    kind: str = field(default=EXACT, kw_only=True)

    def claim(self) -> str:
        return self.text

    def check(self, context: Context) -> None:
        _require_exact(self.text, list(self.decide()))


def _require_exact(what: str, verdicts: Sequence[Verdict]) -> None:
    if not verdicts:
        raise DerivationError(f"{what}: nothing is decided")
    for verdict in verdicts:
        if not (verdict.holds and verdict.grade is Grade.EXACT):
            raise DerivationError(f"{what}: {verdict} {verdict.reason}")


@dataclass(frozen=True)
class FromLemma(Evidence):
    """An instance of an earlier statement's formula, under that statement's hypotheses.

    That statement's own derivation is rechecked. Its hypotheses must be among those in force; or, for a step
    about one rational system, `on` is that system and each hypothesis is decided on it.
    """

    lemma: str
    formula: Claim
    rename: Callable[[Claim], Claim] = lambda formula: formula
    on: Instance | None = None
    kind = EARLIER

    @property
    def label(self) -> str:
        return f"{EARLIER} {self.lemma}" + (", its hypotheses decided on this instance" if self.on else "")

    def claim(self) -> Claim:
        return self.formula

    def check(self, context: Context) -> None:
        if context.lemma is None:
            raise DerivationError(f"no way to look up {self.lemma}")
        quoted = context.lemma(self.lemma)
        if self.on is None:
            context.require(sorted(h.key for h in quoted.hypotheses))
        else:
            _require_exact(self.label, [h.decide(self.on) for h in quoted.hypotheses])
        instance = self.rename(quoted.formula)
        if instance != self.formula:
            raise DerivationError(f"{self.lemma} reads {instance}, the step claims {self.formula}")


@dataclass(frozen=True)
class Given(Evidence):
    """A consequence of named hypotheses by their definition."""

    text: str
    hypotheses: tuple[str, ...]
    kind = HYPOTHESIS

    @property
    def label(self) -> str:
        return f"{HYPOTHESIS} {', '.join(self.hypotheses)}"

    def claim(self) -> str:
        return self.text

    def check(self, context: Context) -> None:
        if not self.hypotheses:
            raise DerivationError(f"no hypothesis is named for {self.text}")
        context.require(self.hypotheses)


@dataclass(frozen=True)
class Cited(Evidence):
    """A published theorem that is used, not computed; `key` is an entry of references.bib."""

    text: str
    key: str
    kind = CITED

    @property
    def label(self) -> str:
        return f"{CITED}: {references()[self.key]}" if self.key in references() else f"{CITED}: {self.key}"

    def claim(self) -> str:
        return self.text

    def check(self, context: Context) -> None:
        if self.key not in references():
            raise DerivationError(f"references.bib has no entry {self.key}")


@dataclass(frozen=True)
class Argued(Evidence):
    """A logical link between earlier steps and named hypotheses, in words; nothing is computed."""

    text: str
    uses: tuple[int, ...]
    needs: tuple[str, ...] = ()
    kind = ARGUED

    @property
    def label(self) -> str:
        steps = f"step{'s' if len(self.uses) > 1 else ''} {', '.join(map(str, self.uses))}"
        return f"{ARGUED}, from {steps}" + "".join(f", hypothesis {key}" for key in self.needs)

    def claim(self) -> str:
        return self.text

    def check(self, context: Context) -> None:
        """Only the hypotheses are looked up; `check_steps` sees to it that the steps used come before."""
        if not (self.uses or self.needs):
            raise DerivationError(f"nothing is named that {self.text} follows from")
        context.require(self.needs)


@dataclass(frozen=True)
class Step:
    """One line of a derivation: evidence (which states the claim) and a sentence that says why."""

    evidence: Evidence
    because: str


def check_steps(steps: Sequence[Step], context: Context) -> None:
    """Recompute every step; raises DerivationError naming the first that does not hold."""
    if not steps:
        raise DerivationError("a derivation needs at least one step")
    for number, step in enumerate(steps, start=1):
        try:
            if not all(1 <= used < number for used in getattr(step.evidence, "uses", ())):
                raise DerivationError("a step may use only earlier ones")
            step.evidence.check(context)
        except DerivationError as error:
            raise DerivationError(f"step {number}: {error}") from error


@cache
def references() -> dict[str, str]:
    """Key → 'authors, title, year' of every entry of references.bib."""
    text = (Path(__file__).parent / "references.bib").read_text(encoding="utf-8")
    entries = re.findall(r"@\w+\{([^,]+),(.*?)\n\}", text, flags=re.DOTALL)
    fields = {key: dict(re.findall(r"(\w+)\s*=\s*\{(.*)\}", body)) for key, body in entries}
    return {key: f"{f['author']}, {f['title']} ({f['year']})" for key, f in fields.items()}
