"""The one table of symbols, shapes and the column-vector convention.

Tokens x_1 … x_n are columns of R^d. `X` stacks them as rows, (n, d). Weights act on columns, so a
PyTorch layer `q = x @ Wq.T` has W = Wqᵀ Wk/√d_k.
"""

from dataclasses import dataclass

from sympy import IndexedBase, MatrixExpr, MatrixSymbol, Rational, Symbol

n = Symbol("n", integer=True, positive=True)
d = Symbol("d", integer=True, positive=True)
i, j, k = (Symbol(name, integer=True) for name in "ijk")
a, b = (Symbol(name, integer=True) for name in "ab")
t = Symbol("t", real=True)
tau = Symbol("tau", real=True)

# Matrices for identities that hold for every d.
W, V, A, M = (MatrixSymbol(name, d, d) for name in ("W", "V", "A", "M"))
x_i, x_j, m_i, m_j, u = (MatrixSymbol(name, d, 1) for name in ("x_i", "x_j", "m_i", "m_j", "u"))
ell = MatrixSymbol("ell", d, 1)

# Indexed entries for identities that hold for every n (and d).
s = IndexedBase("s", real=True)
P = IndexedBase("P", real=True)
x = IndexedBase("x", real=True)
w = IndexedBase("w", real=True)
z = IndexedBase("z", real=True)
Z = Symbol("Z", positive=True)

# Numbers that the theorems name.
kappa = Symbol("kappa", nonnegative=True)
lam = Symbol("lambda", real=True)
sigma = Symbol("sigma", real=True)  # sign of A
omega = Symbol("omega", real=True)  # sign of W_s
rate = Symbol("mu", positive=True)  # T17's eigenvalue of V
tau_W, tau_A = Symbol("tau_W", real=True), Symbol("tau_A", real=True)  # C1's relative antisymmetric parts
floor = Symbol("mu_0", real=True)  # smallest real part of the eigenvalues of T12b's P⁰
rate_at_zero = Symbol("alpha_0", real=True)  # largest real part of those of P⁰ ⊗ V
norm_V = Symbol("norm_V", positive=True)
profile_size = Symbol("u_*", real=True)  # T9's tr(−AC*)
profile_decay = Symbol("rho", real=True)  # T9b's smallest real part of the spectrum of L
gain = Symbol("Gamma", nonnegative=True)  # ‖V‖² in the metric σA_s
abscissa = Symbol("alpha", real=True)  # max Re of the eigenvalues of V (of the heads' sum)
outward = Symbol("beta", real=True)  # min of sigma*omega*Re over V's eigenvalues
unstable_V = Symbol("u_V", integer=True)  # number of eigenvalues of V with positive real part
unstable_A = Symbol("u_A", integer=True)  # number of positive eigenvalues of A_s
step = Symbol("h", real=True)  # of a residual layer
nu, eta = Symbol("nu", real=True), Symbol("eta", real=True)  # multiplier and margin (S3: deviation, speed)
coefficient = Symbol("c_2", real=True)  # T15's multiple of the second head; c_1 = 1
unit = Symbol("c", real=True)  # 1, unless a planted variant plants a wrong constant


def sym(matrix: MatrixExpr) -> MatrixExpr:
    """Symmetric part M_s."""
    return Rational(1, 2) * (matrix + matrix.T)


@dataclass(frozen=True)
class Term:
    """One row of the notation table: symbol in LaTeX, shape, meaning."""

    symbol: str
    shape: str
    meaning: str


TABLE = (
    Term(r"x_i", "(d, 1)", "token i, a column; X stacks the tokens as rows, (n, d)"),
    Term(r"Q,\ K", "($d_k$, d)", "query and key weights, acting on columns"),
    Term(r"V", "(d, d)", "value map (for several heads: the sum of output times value)"),
    Term(r"W = Q^\top K/\sqrt{d_k}", "(d, d)", "score matrix"),
    Term(r"s_{ij} = x_i^\top W x_j", "(n, n)", "score of query i and key j"),
    Term(r"P_{ij} = e^{s_{ij}}/Z_i", "(n, n)", "attention; rows sum to 1, $Z_i$ the row's normaliser"),
    Term(r"m_i = \sum_j P_{ij} x_j", "(d, 1)", "attended mean; the flow is $\\dot x_i = V m_i$"),
    Term(r"A = W V^{-1}", "(d, d)", "response matrix, where V is invertible"),
    Term(r"M_s,\ M_a", "(d, d)", "symmetric and antisymmetric part of M"),
    Term(r"e_i = \sum_j P_{ij}s_{ij}", "number", "attended score"),
    Term(r"\kappa_n = W_0((n-1)/e)", "number", "sharp constant of the free-energy bound L2"),
    Term(r"\sigma,\ \omega", "±1", "sign of a definite $A_s$, of a definite $W_s$"),
    Term(r"\ell,\ \mu", "(d, 1), number", r"left eigenvector of V and its real eigenvalue (T17)"),
    Term(r"z_i = \ell^\top x_i", "number", r"level of token i over the hyperplane of $\ell$"),
    Term(r"\lambda", "number", "smallest eigenvalue of the pencil $(W_s, \\sigma A)$"),
    Term(r"\|x\|_M = \sqrt{x^\top M x}", "number", r"norm in a metric $M = M^\top \succ 0$ (T14)"),
    Term(r"\alpha", "number", "largest real part of V's eigenvalues (of the heads' sum)"),
    Term(
        r"C^* = \tfrac12 W^{-1}(-A)W^{-\top}",
        "(d, d)",
        r"profile of the collapse: $t\,\mathrm{Cov}(X(t)) \to C^*$ (T9)",
    ),
    Term(
        r"L,\ \rho",
        "map, number",
        r"minus the linearised flow of $tC$ in $\log t$ at $C^*$ (T9b), its smallest real part",
    ),
    Term(r"M_{kj}", "(n, n)", "logit that one query gives key content k at position j (S1, S3)"),
    Term(r"\Gamma", "number", "largest eigenvalue of the pencil $(V^\\top\\sigma AV, \\sigma A)$ (T16)"),
)
