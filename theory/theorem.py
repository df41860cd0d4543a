"""A statement of the theory as one object: hypotheses, claims, derivation, examples, planted variants."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from flint import arb, ctx, fmpq
from sympy import And, Expr, Symbol, sympify
from sympy.core.relational import Relational

from theory.derivation import Context, Quoted, Step, check_steps
from theory.enclosure import PRECISION
from theory.evaluate import Values
from theory.hypotheses import Hypothesis
from theory.instance import Instance
from theory.system import ExplicitSystem, Setting
from theory.verdict import Grade, Verdict, every, fails, holds, undecided

Sides = list[tuple[Expr, Expr]]

KINDS_OF_STATEMENT = ("lemma", "theorem", "counterexample", "conjecture")
AT_LEAST, MORE_THAN, EQUAL = ">=", ">", "=="


@dataclass(frozen=True)
class Claim:
    """An inequality or identity that holds at every instant: `left relation right`, item by item.

    `sides(system)` lists (left, right) for every token, pair or entry in the names of an ExplicitSystem and
    the constants of `theory.evaluate.CONSTANTS`.
    """

    name: str
    formula: str  # LaTeX
    relation: str
    sides: Callable[[ExplicitSystem], Sides]
    reverse: bool = False  # planted: the sides change places

    def oriented(self, left, right):
        """The two sides as they stand in the relation: swapped by a planted reversal."""
        return (right, left) if self.reverse else (left, right)


@dataclass(frozen=True)
class Planted:
    """A false variant that the machinery must refute: one change to a theorem."""

    name: str
    drop: str = ""  # a hypothesis key
    reverse: str = ""  # a claim name
    scale: Mapping[Symbol, fmpq] = field(default_factory=dict)  # a constant multiplied
    setting: Setting | None = None  # another variant of the system


@dataclass(frozen=True)
class Examples:
    """Exact systems that every theorem is tested on.

    witness: all hypotheses hold; near_miss: exactly the hypothesis named `missing` fails, and a claim with
    it; boundary: all hypotheses hold and some claim is attained with equality.
    """

    witness: Instance
    near_miss: Instance
    missing: str
    boundary: Instance


@dataclass(frozen=True)
class Theorem:
    """One statement. `statement` and `remark` are English with LaTeX between dollars.

    `formula` is the conclusion that later derivations may quote. `remark` says what the statement is not.
    `concludes` says in a few words what the weights' hypotheses buy, for `tokendyn check`. `setting` is the
    variant of the system that it speaks about. A conjecture's derivation proves only what its steps say.
    """

    id: str
    kind: str  # one of KINDS_OF_STATEMENT
    title: str
    statement: str
    hypotheses: tuple[Hypothesis, ...]
    claims: tuple[Claim, ...]
    steps: tuple[Step, ...]
    source: str
    remark: str = ""
    concludes: str = ""
    formula: Relational | str | None = None
    examples: Examples | None = None
    wrong: tuple[Planted, ...] = ()  # planted by hand: constants multiplied, another setting
    setting: Setting = Setting()

    def check(self, lemma: Callable[[str], Quoted]) -> None:
        """Recompute the derivation; raises DerivationError at the first step that does not hold."""
        check_steps(self.steps, self.context(lemma))

    def context(self, lemma: Callable[[str], Quoted]) -> Context:
        return Context(self.keys, And(*(h.assumption for h in self.hypotheses)), lemma)

    @cached_property
    def keys(self) -> frozenset[str]:
        return frozenset(h.key for h in self.hypotheses)

    @cached_property
    def planted(self) -> tuple[Planted, ...]:
        """Every dropped hypothesis, every reversed inequality, and the wrong variants stated by hand."""
        dropped = tuple(Planted(f"without '{h.key}'", drop=h.key) for h in self.hypotheses)
        turned = tuple(
            Planted(f"'{c.name}' with its sign reversed", reverse=c.name)
            for c in self.claims
            if c.relation != EQUAL
        )
        return dropped + turned + self.wrong

    def plant(self, planted: Planted) -> "Theorem":
        """The same theorem, changed as planted (a scaled constant is passed to `judge`)."""
        return replace(
            self,
            setting=planted.setting or self.setting,
            hypotheses=tuple(h for h in self.hypotheses if h.key != planted.drop),
            claims=tuple(replace(c, reverse=True) if c.name == planted.reverse else c for c in self.claims),
        )

    def claim(self, name: str) -> Claim:
        return next(claim for claim in self.claims if claim.name == name)

    def applies(self, instance: Instance) -> Verdict:
        """Conjunction of the hypotheses; those on the start are left out where no tokens are given.

        UNDECIDED for an instance of another variant of the system.
        """
        if instance.setting != self.setting:
            return undecided(
                f"{self.id} is about another variant: {self.setting.describe() or 'the plain one'}"
            )
        about = [h for h in self.hypotheses if h.on != "start" or instance.tokens is not None]
        return every(h.decide(instance) for h in about)

    def judge(self, claim: Claim, instance: Instance, scale: Mapping[Symbol, fmpq] | None = None) -> Verdict:
        """Certified truth of one claim on one instance (its hypotheses are not consulted)."""
        with ctx.workprec(PRECISION):
            return judge_sides(claim.relation, sides(claim, instance, scale))


def sides(
    claim: Claim, instance: Instance, scale: Mapping[Symbol, fmpq] | None = None
) -> list[tuple[arb, arb]]:
    """Enclosures of (left, right) of every item of the claim, 128 bits; `scale` multiplies constants."""
    values = Values.at(instance, dict(scale or {}))
    pairs = claim.sides(values.system)
    return [claim.oriented(*(values.enclose(sympify(side)) for side in pair)) for pair in pairs]


def judge_sides(relation: str, items: list[tuple[arb, arb]]) -> Verdict:
    """HOLDS if balls prove the relation for every item, FAILS if they refute it for one, else UNDECIDED.

    Balls can refute an identity or agree with it, never prove it: that is the derivation's task.
    """
    verdicts = []
    for left, right in items:
        gap = left - right
        true, false = {
            AT_LEAST: (gap >= 0, gap < 0),
            MORE_THAN: (gap > 0, gap <= 0),
            EQUAL: (gap == 0, gap > 0 or gap < 0),
        }[relation]
        margin = gap.str(6)
        if false:
            verdicts.append(fails(Grade.INTERVAL, f"left − right = {margin}", margin))
        elif true:
            verdicts.append(holds(Grade.INTERVAL, "", margin))
        else:
            verdicts.append(undecided(f"left − right = {margin}", margin))
    return every(verdicts)
