"""L5: V has the inertia of A."""

from tokendyn.row import Row
from tokendyn.sampling import RESPONSE

L5 = Row(
    id="L5",
    family=RESPONSE,
    sides={
        "equal inertia": lambda m: (
            m.constant("u_V")[:, None],
            (m.constant("c") * m.constant("u_A"))[:, None],
        )
    },
)
