"""Small training runs, to see whether the refinements matter: grids, data, models, and runs that resume."""

from numerics.training.canonical import CanonicalGrid, make_canonical, read_canonical
from numerics.training.canonical_loop import train_group
from numerics.training.config import SIZES, Grid, Run, Task, make_grid, read_grid
from numerics.training.loop import World, result, train

__all__ = [
    "SIZES",
    "CanonicalGrid",
    "Grid",
    "Run",
    "Task",
    "World",
    "make_canonical",
    "make_grid",
    "read_canonical",
    "read_grid",
    "result",
    "train",
    "train_group",
]
