"""T4: each token, with a rate: a threshold on its energy decides."""

from flint import fmpq
from sympy import Derivative, Symbol, exp

from theory.derivation import Argued, Cited, Equality, FromLemma, Given, MatrixIdentity, Step, along_flow
from theory.hypotheses import A_DEFINITE, A_SYMMETRIC, W_POSITIVE
from theory.instance import Instance
from theory.lemmas.response import RESPONSE
from theory.lemmas.softmax import FREE_ENERGY
from theory.notation import A, W, kappa, lam, m_i, sigma, sym, t, x_i
from theory.quantities import for_tokens, token_energy, token_energy_rate
from theory.theorem import AT_LEAST, MORE_THAN, Claim, Examples, Planted, Theorem
from theory.theorems.convergence import row_of_attention

start = Symbol("E_0", real=True)
rate = Symbol("lambda", positive=True)
bound = kappa / (2 * rate) + (start - kappa / (2 * rate)) * exp(2 * rate * t)
FREE_ENERGY_OF_ROW = row_of_attention(FREE_ENERGY)

PENCIL_CLAIMS = (
    Claim(
        "energy is non-negative",
        r"E_i \ge 0",
        AT_LEAST,
        for_tokens(lambda e, i: (sigma * token_energy(e, i), 0)),
    ),
    Claim("the rate is positive", r"\lambda > 0", MORE_THAN, lambda e: [(lam, 0)]),
)
PENCIL_STEPS = (
    Step(
        Given(r"\lambda > 0", ("A definite", "W positive")),
        r"Both matrices of the pencil are positive definite.",
    ),
    Step(
        Cited(r"x_i^\top W_s x_i \ge \lambda\, x_i^\top(\sigma A)x_i = 2\lambda E_i", "horn2012"),
        r"Rayleigh quotient of the pencil $(W_s, \sigma A)$.",
    ),
)

T4 = Theorem(
    id="T4",
    kind="theorem",
    title="Each token, with a rate",
    statement=r"If $A=A^\top$ is definite of sign $\sigma$ and $W_s\succ0$, then $E_i=\frac12x_i^\top(\sigma A)x_i$ obeys "
    r"$\sigma\dot E_i\ge2\lambda E_i-\kappa_n$, $\lambda$ the smallest eigenvalue of the pencil $(W_s,\sigma A)$. For "
    r"$A\succ0$ a token with $E_i$ above $\kappa_n/(2\lambda)$ diverges at least like $e^{\lambda t}$; for $A\prec0$ "
    r"$\limsup_t E_i\le\kappa_n/(2\lambda)$ for every token, approached at least like $e^{-2\lambda t}$.",
    hypotheses=(A_SYMMETRIC, A_DEFINITE, W_POSITIVE),
    claims=(
        *PENCIL_CLAIMS,
        Claim(
            "energy inequality",
            r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_n",
            AT_LEAST,
            for_tokens(lambda e, i: (token_energy_rate(e, i), 2 * lam * sigma * token_energy(e, i) - kappa)),
        ),
    ),
    steps=(
        Step(
            along_flow(x_i.T * A * x_i / 2, x_i.T * W * m_i),
            r"Energy of one token; since $\sigma^2=1$, $\sigma\dot E_i$ is this derivative.",
        ),
        Step(FromLemma("L4", RESPONSE), r"The right-hand side is the attended score $e_i$."),
        Step(
            FromLemma("L2", FREE_ENERGY_OF_ROW, row_of_attention),
            r"The attended score is close to the largest score.",
        ),
        Step(
            MatrixIdentity(x_i.T * W * x_i, x_i.T * sym(W) * x_i),
            r"The largest score is at least the self score.",
        ),
        *PENCIL_STEPS,
        Step(Argued(r"\sigma\dot E_i \ge 2\lambda E_i - \kappa_n", (1, 2, 3, 4, 6)), r"Put together."),
        Step(
            Equality(Derivative(bound, t), 2 * rate * bound - kappa),
            r"The comparison solution from $E_0$, for $\sigma=1$; for $\sigma=-1$ replace $t$ by $-t$.",
        ),
        Step(
            Cited(
                r"\sigma\left(E_i(t) - \left[\tfrac{\kappa_n}{2\lambda} + \left(E_i(0)-\tfrac{\kappa_n}{2\lambda}\right)e^{2\sigma\lambda t}\right]\right) \ge 0",
                "khalil_comparison",
            ),
            r"Comparison lemma. Energy is quadratic, so norms move like $e^{\lambda t}$.",
        ),
    ),
    source="Stated here, with the sharp constant of L2.",
    remark=r"Nothing is claimed of a token that starts below the threshold when $A\succ0$.",
    concludes="a threshold on each token's energy (A ≻ 0: diverges above it, A ≺ 0: limsup at most it)",
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]], response=[[2, 1], [1, 1]], tokens=[[3, 2], [0, -1], [3, 1]]
        ),
        near_miss=Instance.of(score=[[1, 0], [0, -1]], response=[[1, 0], [0, 1]], tokens=[[1, 2], [2, 1]]),
        missing="W positive",
        boundary=Instance.of(score=[[1, 0], [0, 1]], response=[[-1, 0], [0, -1]], tokens=[[2, 1]]),
    ),
    wrong=(
        Planted("κ_n replaced by κ_n/2", scale={kappa: fmpq(1, 2)}),
        Planted("λ replaced by 3λ/2", scale={lam: fmpq(3, 2)}),
    ),
)
