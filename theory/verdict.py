"""Three-valued verdicts with a grade.

A verdict is about what a *proof* says. UNDECIDED is not FAILS: a sufficient condition that is not met
leaves its conclusion open. A simulation never produces a verdict of this kind.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum


class Status(Enum):
    HOLDS = "HOLDS"
    FAILS = "FAILS"
    UNDECIDED = "UNDECIDED"


class Grade(IntEnum):
    """How a verdict was reached; the larger, the stronger."""

    FLOAT = 0  # computed in floating point: orientation, never a proof
    INTERVAL = 1  # proved with outward-rounded ball arithmetic
    EXACT = 2  # proved in rational arithmetic

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Verdict:
    """Status, grade and a one-line reason; `margin` with ≥ or ≤ is a proved bound, with ≈ orientation.

    `bool(verdict)` raises TypeError: with three values there is no safe default for UNDECIDED.
    """

    status: Status
    grade: Grade
    reason: str = ""
    margin: str = ""

    def __bool__(self) -> bool:
        raise TypeError("a Verdict has three values; compare verdict.status with Status.HOLDS")

    @property
    def holds(self) -> bool:
        return self.status is Status.HOLDS

    @property
    def fails(self) -> bool:
        return self.status is Status.FAILS

    def __str__(self) -> str:
        grade = "" if self.status is Status.UNDECIDED else str(self.grade)
        margin = f"margin {self.margin}" if self.margin else ""
        details = ", ".join(part for part in (grade, margin) if part)
        return f"{self.status.value} ({details})" if details else self.status.value


def holds(grade: Grade, reason: str = "", margin: str = "") -> Verdict:
    return Verdict(Status.HOLDS, grade, reason, margin)


def fails(grade: Grade, reason: str = "", margin: str = "") -> Verdict:
    return Verdict(Status.FAILS, grade, reason, margin)


def undecided(reason: str, margin: str = "") -> Verdict:
    return Verdict(Status.UNDECIDED, Grade.FLOAT, reason, margin)


def exactly(truth: bool, reason: str = "") -> Verdict:
    """A truth decided in exact arithmetic."""
    return (holds if truth else fails)(Grade.EXACT, reason)


def every(verdicts: Iterable[Verdict]) -> Verdict:
    """Conjunction: a failure wins, then an undecided part; the weakest grade is kept."""
    verdicts = list(verdicts)
    for status in (Status.FAILS, Status.UNDECIDED):
        for verdict in verdicts:
            if verdict.status is status:
                return verdict
    return holds(min((v.grade for v in verdicts), default=Grade.EXACT))
