"""The registry: every statement of `theory` with its floating-point row."""

import importlib
import pkgutil
from functools import cache

from theory.registry import statements
from theory.theorem import Theorem
from tokendyn import pairing
from tokendyn.row import Row


@cache
def rows() -> dict[str, Row]:
    """Row by statement id, in the statements' order; LookupError if statement and row disagree."""
    modules = [
        importlib.import_module(f"{pairing.__name__}.{m.name}")
        for m in pkgutil.iter_modules(pairing.__path__)
    ]
    found = {row.id: row for module in modules for row in vars(module).values() if isinstance(row, Row)}
    for identifier, theorem in statements().items():
        claims = {claim.name for claim in theorem.claims}
        if identifier not in found or set(found[identifier].sides) != claims:
            raise LookupError(
                f"{identifier}: tokendyn/pairing must have a row with the sides {sorted(claims)}"
            )
    return {identifier: found[identifier] for identifier in statements()}


def entries() -> list[tuple[Theorem, Row]]:
    """Statement and row, in order."""
    return [(theorem, rows()[identifier]) for identifier, theorem in statements().items()]
