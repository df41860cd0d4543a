"""One typed exception for bad input."""


class InputError(ValueError):
    """An argument that cannot be used; ``argument``, ``got``, ``expected`` and ``fix`` are kept as fields."""

    def __init__(self, argument: str, got: object, expected: str, fix: str):
        super().__init__(argument, got, expected, fix)
        self.argument, self.got, self.expected, self.fix = argument, got, expected, fix

    def __str__(self) -> str:
        stop = "" if self.fix.endswith("?") else "."
        return f"{self.argument}: got {self.got}; expected {self.expected}. Fix: {self.fix}{stop}"
