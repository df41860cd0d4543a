"""Typed errors of the exact half."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """A user's argument cannot be used: which one, what it was, what was expected, and what to do."""

    def __init__(self, argument: str, *, got: str, expected: str, fix: str):
        super().__init__(f"{argument}: got {got}; expected {expected}. Fix: {fix}")
        self.argument, self.got, self.expected, self.fix = argument, got, expected, fix


class DerivationError(ArithmeticError):
    """A derivation step did not check: the computation does not settle the claim."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A fix for a misspelt name: "did you mean …?" with the nearest known one, empty if none is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else ""
