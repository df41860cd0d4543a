"""Float64 Torch simulation of token dynamics: batches of systems, an adaptive integrator, observables."""

from numerics.encodings import Rotary
from numerics.errors import InputError
from numerics.integrate import Outcome, Solution, integrate
from numerics.system import AttentionSystem

__all__ = ["AttentionSystem", "InputError", "Outcome", "Rotary", "Solution", "integrate"]
