"""Selections of numbers on the command line, such as 0,3-5."""

import re

from numerics.errors import InputError


def selected(argument: str, text: str | None, count: int) -> list[int]:
    """The numbers that `text` names, ascending; all from 0 to count − 1 for None.

    Raises `InputError` for another form or a number outside.
    """
    if text is None:
        return list(range(count))
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", part)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, -1)
        if not 0 <= first <= last < count:
            raise InputError(
                argument=argument,
                got=repr(text),
                expected=f"numbers from 0 to {count - 1}, such as 0 or 0-{count - 1}" if count > 1 else "0",
                fix="name some that exist, or leave it out for all",
            )
        chosen.update(range(first, last + 1))
    return sorted(chosen)
