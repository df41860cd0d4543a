"""Shapes, named once. They are annotations for the reader and the type checker; nothing runs on them.

An axis "*heads" is either absent (one head) or one axis.
"""

from jaxtyping import Bool, Float64, Int64
from torch import Tensor

Forms = Float64[Tensor, "batch d d"]
"""One matrix per system, acting on column vectors."""
HeadForms = Float64[Tensor, "batch *heads d d"]
HeadProjections = Float64[Tensor, "batch *heads d_k d"]
Tokens = Float64[Tensor, "batch n d"]
"""Tokens are rows."""
HeadTokens = Float64[Tensor, "batch *heads n d"]
Probes = Float64[Tensor, "batch q d"]
Vectors = Float64[Tensor, "batch d"]
HeadScores = Float64[Tensor, "batch *heads n n"]
"""Entry (i, j): token i attends to token j."""
Visible = Bool[Tensor, "*batch n n"]
"""Entry (i, j): token i may attend to token j."""
PerToken = Float64[Tensor, "batch n"]
PerHeadToken = Float64[Tensor, "batch *heads n"]
PerProbe = Float64[Tensor, "batch q"]
PerPair = Float64[Tensor, "batch pairs"]
"""Pairs i < j in lexicographic order: (0, 1), (0, 2), …, (n-2, n-1)."""
Rows = Float64[Tensor, "batch"]
"""One number per system; a row of the batch is one system."""
Flags = Bool[Tensor, "batch"]
Counts = Int64[Tensor, "batch"]
Times = Float64[Tensor, "times"]
Path = Float64[Tensor, "batch times n d"]
Index = Tensor | slice | list[int]
"""A selection of systems: a slice, a list, or a mask or index tensor."""
