"""T10: the signs of (A, W_s) give four regimes; and a gap with a positive limit."""

from sympy import Derivative, Rational, Symbol, exp, expint

from theory.derivation import (
    FIXED,
    Argued,
    Certified,
    Cited,
    Equality,
    FromLemma,
    MatrixIdentity,
    Step,
)
from theory.hypotheses import A_DEFINITE, A_SYMMETRIC, W_DEFINITE
from theory.instance import Instance
from theory.notation import A, V, W, omega, outward, sym, t
from theory.quantities import for_tokens, quadratic
from theory.theorem import AT_LEAST, MORE_THAN, Claim, Examples, Theorem
from theory.theorems.hyperplane import ENVELOPE
from theory.theorems.pairwise import DISTANCE, MONOTONE_DISTANCE, MONOTONE_DISTANCES

first, gap, query = (Symbol(name, positive=True) for name in ("x_1", "g", "y"))
exponent, threshold = Symbol("u", positive=True), Symbol("c", positive=True)
floor = Rational(13, 20)
weight_on_second = exp(-query * (first + gap)) / (exp(-query * first) + exp(-query * (first + gap)))

ONE_AND_TWO = Instance.of(score=[[-1]], value=[[1]], ell=[1], rate=1, tokens=[[1], [2]])

T10 = Theorem(
    id="T10",
    kind="theorem",
    title="Quadrants",
    statement=r"Let $A=A^\top$ and $W_s$ be definite, of signs $\sigma$ and $\omega$. Pairwise $\sigma A$-distances never shrink for $\sigma=1$ and "
    r"never grow for $\sigma=-1$; equal tokens obey $\dot x=Vx$, unstable in every direction for $\sigma\omega=1$ and stable for "
    r"$\sigma\omega=-1$.",
    hypotheses=(A_SYMMETRIC, A_DEFINITE, W_DEFINITE),
    claims=(
        DISTANCE,
        MONOTONE_DISTANCE,
        Claim(
            "the consensus moves one way",
            r"\omega\,x_i^\top A V x_i \ge 0",
            AT_LEAST,
            for_tokens(lambda e, i: (omega * quadratic(e.A * e.V, e.token(i)), 0)),
        ),
        Claim(
            "the consensus' spectrum",
            r"\sigma\omega\,\mathrm{Re}\,\lambda(V) > 0",
            MORE_THAN,
            lambda e: [(outward, 0)],
        ),
    ),
    steps=(
        Step(FromLemma("T1", MONOTONE_DISTANCES), r"Distances: the sign of $A$ decides."),
        Step(
            MatrixIdentity(A * V + V.T * A, 2 * sym(W), where={W: A * V}),
            r"Consensus: Lyapunov's equation for $\dot x=Vx$.",
        ),
        Step(
            Argued(
                r"\omega\,\tfrac{d}{dt}\,x^\top Ax = 2\,\omega\,x^\top W_s x > 0,\quad x \neq 0",
                (2,),
                ("W definite",),
            ),
            r"Equal tokens: the $A$-form grows for $\omega=1$ and falls for $\omega=-1$.",
        ),
        Step(
            Cited(r"\sigma\omega\,\mathrm{Re}\,\lambda(V) > 0 \text{ for every eigenvalue}", "ostrowski1962"),
            r"Inertia theorem for $\pm A$: all eigenvalues of $V$ lie on one side.",
        ),
        Step(
            Equality(weight_on_second, 1 / (1 + exp(query * gap)), kind=FIXED),
            r"Distances that shrink need not vanish. Take $d=1$, $W=A=-1$, $V=1$, tokens $x_1>0$ and $x_2=x_1+g$: a query $y$ gives "
            r"token 2 this weight $p(y)$, so $\dot g=m_2-m_1=g\,(p(x_2)-p(x_1))$.",
        ),
        Step(
            Equality(exp(-exponent) - 1 / (1 + exp(exponent)), exp(-exponent) / (1 + exp(exponent))),
            r"The right-hand side is positive, so with $u=x_1g$: $\dot g/g\ge-p(x_1)\ge-e^{-x_1g}$.",
        ),
        Step(
            FromLemma("T17", ENVELOPE, on=ONE_AND_TWO),
            r"With $\ell=1$, $\mu=1$ and the start $x=(1,2)$: $x_1(t)\ge e^t$.",
        ),
        Step(
            Equality(Derivative(-expint(1, threshold * exp(t)), t), exp(-threshold * exp(t))),
            r"While $g\ge c$, $\log g(t)\ge-\int_0^\infty e^{-ce^t}dt=-E_1(c)$, as $E_1(\infty)=0$.",
        ),
        Step(
            Certified(exp(-expint(1, floor)), floor),
            r"For $c=0.65$ the bound $e^{-E_1(c)}$ exceeds $c$: the gap cannot fall to $0.65$.",
        ),
        Step(
            Argued(r"g(t) > 0.65 \text{ for all } t,\text{ so its limit is positive}", (1, 5, 6, 7, 8, 9)),
            r"A first time with $g=c$ would contradict $g\ge e^{-E_1(c)}>c$; and $g$ does not increase. (Simulated limit: about 0.907.)",
        ),
    ),
    source="Stated here.",
    remark=r"Shrinking distances do not mean that tokens meet; what generically happens to the mean is not claimed.",
    concludes="which quadrant: distances follow the sign of A, the consensus follows the product of the signs",
    examples=Examples(
        witness=Instance.of(
            score=[[-2, 1], [-1, -1]], response=[[-2, 1], [1, -1]], tokens=[[1, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(score=[[1, 0], [0, -1]], response=[[1, 0], [0, 1]], tokens=[[0, 1], [1, 3]]),
        missing="W definite",
        boundary=Instance.of(score=[[1, 0], [0, 1]], response=[[-1, 0], [0, -1]], tokens=[[1, 1], [1, 1]]),
    ),
)
