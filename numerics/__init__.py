"""Float64 Torch simulation of token dynamics: batches of systems, an adaptive integrator, observables."""

from numerics.encodings import Rotary
from numerics.errors import InputError
from numerics.integrate import integrate
from numerics.quantities import Event, Observable, Quantity
from numerics.solution import Outcome, Solution
from numerics.system import AttentionSystem

__all__ = [
    "AttentionSystem",
    "Event",
    "InputError",
    "Observable",
    "Outcome",
    "Quantity",
    "Rotary",
    "Solution",
    "integrate",
]
