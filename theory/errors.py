"""Typed errors of the exact half."""


class InputError(ValueError):
    """A user's argument cannot be used: which one, what it was, what was expected, and what to do."""

    def __init__(self, argument: str, *, got: str, expected: str, fix: str):
        super().__init__(f"{argument}: got {got}; expected {expected}. Fix: {fix}")
        self.argument, self.got, self.expected, self.fix = argument, got, expected, fix


class DerivationError(ArithmeticError):
    """A derivation step did not check: the computation does not settle the claim."""
