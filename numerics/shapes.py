"""Shapes, named once. They are annotations for the reader and the type checker; nothing runs on them.

An axis "*heads" is either absent (one head) or one axis.
"""

from jaxtyping import Bool, Float, Int64
from torch import Tensor

Forms = Float[Tensor, "batch d d"]
"""One matrix per system, acting on column vectors."""
HeadForms = Float[Tensor, "batch *heads d d"]
HeadProjections = Float[Tensor, "batch *heads d_k d"]
Tokens = Float[Tensor, "batch n d"]
"""Tokens are rows."""
HeadTokens = Float[Tensor, "batch *heads n d"]
Probes = Float[Tensor, "batch q d"]
Vectors = Float[Tensor, "batch d"]
HeadScores = Float[Tensor, "batch *heads n n"]
"""Entry (i, j): token i attends to token j."""
Visible = Bool[Tensor, "*batch n n"]
"""Entry (i, j): token i may attend to token j."""
PerToken = Float[Tensor, "batch n"]
PerHeadToken = Float[Tensor, "batch *heads n"]
PerProbe = Float[Tensor, "batch q"]
PerPair = Float[Tensor, "batch pairs"]
"""Pairs i < j in lexicographic order: (0, 1), (0, 2), …, (n-2, n-1)."""
Rows = Float[Tensor, "batch"]
"""One number per system; a row of the batch is one system."""
Flags = Bool[Tensor, "batch"]
Counts = Int64[Tensor, "batch"]
Times = Float[Tensor, "times"]
RowTimes = Float[Tensor, "batch times"]
EventTimes = Float[Tensor, "batch events"]
Records = Float[Tensor, "batch observables"]
Path = Float[Tensor, "batch times n d"]
Index = Tensor | slice | list[int]
"""A selection of systems: a slice, a list, or a mask or index tensor."""
