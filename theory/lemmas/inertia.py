"""L5: how many unstable directions the value map has."""

from flint import fmpq

from theory.derivation import Cited, Given, MatrixIdentity, Step
from theory.hypotheses import A_SYMMETRIC, W_POSITIVE
from theory.notation import A, V, W, sym, unit, unstable_A, unstable_V
from theory.theorem import EQUAL, Claim, Planted, Theorem

INERTIA = r"V \text{ has as many eigenvalues with positive (negative) real part as } A"

L5 = Theorem(
    id="L5",
    kind="lemma",
    title="Inertia",
    statement=r"If $A=A^\top$ and $W_s\succ 0$, then $V$ has as many eigenvalues with positive (negative) real part as $A$.",
    hypotheses=(A_SYMMETRIC, W_POSITIVE),
    claims=(
        Claim(
            "equal inertia",
            r"\#\{\mathrm{Re}\,\lambda(V)>0\} = \#\{\lambda(A_s)>0\}",
            EQUAL,
            lambda e: [(unstable_V, unit * unstable_A)],
        ),
    ),
    steps=(
        Step(
            MatrixIdentity(A * V + V.T * A, 2 * sym(W), where={W: A * V}),
            r"Lyapunov's equation, from $AV = W$ and $A=A^\top$.",
        ),
        Step(Given(r"AV + V^\top A \succ 0", ("A symmetric", "W positive")), r"By the hypothesis on $W_s$."),
        Step(
            Cited(INERTIA, "ostrowski1962"),
            r"Main inertia theorem, for $AV+V^\top A\succ0$ and $A=A^\top$.",
        ),
    ),
    source="Ostrowski and Schneider 1962.",
    formula=INERTIA,
    concludes="V has the inertia of A",
    wrong=(Planted("twice as many", scale={unit: fmpq(2)}),),
)
