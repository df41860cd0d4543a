"""Small training runs, to see whether the refinements matter: grids, data, models, and runs that resume."""

from numerics.training.config import SIZES, Grid, Run, Task, make_grid, read_grid
from numerics.training.loop import World, result, train

__all__ = ["SIZES", "Grid", "Run", "Task", "World", "make_grid", "read_grid", "result", "train"]
