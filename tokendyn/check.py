"""Which statements apply to the user's own Q, K, V, and how sure that is."""

from collections.abc import Callable
from dataclasses import dataclass

from theory.hypotheses import W_ROTATION, Hypothesis
from theory.instance import Instance
from theory.registry import statements
from theory.theorem import Theorem
from theory.verdict import Verdict, every, undecided
from theory.weights import Weights


@dataclass(frozen=True)
class Applicability:
    """One statement on given weights: the verdict of each hypothesis on the weights, and their conjunction.

    `verdict` is HOLDS or UNDECIDED, never FAILS: a sufficient condition that is not met proves nothing.
    `others` are the hypotheses on what is not weights, which the user's start or choices must meet.
    """

    theorem: Theorem
    hypotheses: tuple[tuple[Hypothesis, Verdict], ...]
    verdict: Verdict

    @property
    def others(self) -> tuple[Hypothesis, ...]:
        return tuple(h for h in self.theorem.hypotheses if h.on != "weights")


def applicable(weights: Weights) -> list[Applicability]:
    """Every statement with hypotheses on the weights; each distinct hypothesis is decided once.

    An explicit family is listed only where the weights belong to it, a conjecture never.
    """
    instance = Instance(weights)
    decided: dict[str, Verdict] = {}
    found = [apply(theorem, lambda h: h.decide(instance), decided) for theorem in statements().values()]
    return [
        a
        for a in found
        if a.hypotheses and a.theorem.kind != "conjecture" and (not is_family(a.theorem) or a.verdict.holds)
    ]


def is_family(theorem: Theorem) -> bool:
    """Whether it is about explicit weights, such as rotations of the plane."""
    return theorem.kind == "counterexample" or W_ROTATION in theorem.hypotheses


def apply(
    theorem: Theorem, decide: Callable[[Hypothesis], Verdict], decided: dict[str, Verdict]
) -> Applicability:
    """One statement's hypotheses on the weights; verdicts are looked up in `decided` and added to it."""
    about = [h for h in theorem.hypotheses if h.on == "weights"]
    for hypothesis in about:
        if hypothesis.key not in decided:
            decided[hypothesis.key] = decide(hypothesis)
    pairs = tuple((h, decided[h.key]) for h in about)
    missing = [f"{h.key}: {v}{f', {v.reason}' if v.reason else ''}" for h, v in pairs if not v.holds]
    verdict = undecided("; ".join(missing)) if missing else every(v for _, v in pairs)
    return Applicability(theorem, pairs, verdict)
