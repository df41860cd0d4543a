"""L7: attended means against attended scores; what a residual layer may not undo."""

from flint import fmpq
from sympy import Expr, IndexedBase, Matrix, Sum, Symbol, exp, log

from theory.derivation import Argued, ConvexMinimum, Equality, Step, SumIdentity
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import P, Z, a, b, d, i, j, k, n, s, unit, w, x
from theory.quantities import attended_score, quadratic
from theory.sums import Definition, Total
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, Claim, Planted, Theorem

p, tilt, psi = IndexedBase("p", real=True), IndexedBase("t", real=True), IndexedBase("psi", real=True)
column, centre = IndexedBase("c", real=True), IndexedBase("z", real=True)
Y, first, second = (Symbol(name, positive=True) for name in ("Y", "p", "q"))
shift = Symbol("u", real=True)

ANY = (*SOFTMAX, Definition(p, lambda index: exp(tilt[index]) / Y))  # p_k > 0 with sum 1, whatever it is
SUMS_TO_ONE = (*NORMALISER, Total(lambda index: exp(tilt[index]), Y, n))
CENTRED = (
    Definition(centre, lambda index: Sum(p[k] * x[k, index], over(k))),
    Definition(s, lambda row, key: Sum(x[row, a] * w[a, b] * x[key, b], over(a, d), over(b, d))),
)
COLUMNS = (Definition(column, lambda key: Sum(P[i, key], over(i))),)

MIXING = (
    r"n(n-1)\left(n\sum_i e_i - \sum_i m_i^\top W m_i\right) \ge r^\top W r,\ r = \sum_i (nx_i - m_i),"
    r" \text{ with equality iff every } P_{ij} = \tfrac1n"
)


def total_attended(e: ExplicitSystem) -> Expr:
    """Σ_i e_i."""
    return sum(attended_score(e, i) for i in range(e.n))


def total_of_means(e: ExplicitSystem) -> Expr:
    """Σ_i m_iᵀ W m_i."""
    return sum(quadratic(e.W, e.m.row(i).T) for i in range(e.n))


def _mixing(e: ExplicitSystem) -> list[tuple[Expr, Expr]]:
    rest = Matrix(e.d, 1, lambda c, _: sum(e.n * e.X[i, c] - e.m[i, c] for i in range(e.n)))
    excess = unit * e.n * total_attended(e) - total_of_means(e)
    return [(e.n * (e.n - 1) * excess, quadratic(e.W, rest))]


L7 = Theorem(
    id="L7",
    kind="lemma",
    title="Mixing",
    statement=r"For any $W$, $n(n-1)\left(n\sum_ie_i-\sum_im_i^\top Wm_i\right)\ge r^\top Wr$ with $r=\sum_i(nx_i-m_i)$, with equality "
    r"iff attention is uniform. So $W_s\succeq0$ gives $n\sum_ie_i\ge\sum_im_i^\top Wm_i$.",
    hypotheses=(),
    claims=(
        Claim(
            "means are within n times the scores",
            r"n(n-1)\left(n\sum_i e_i - \sum_i m_i^\top W m_i\right) \ge r^\top W r",
            AT_LEAST,
            _mixing,
        ),
    ),
    steps=(
        Step(
            SumIdentity(
                Sum(P[j] * s[j], over(j)),
                log(Z / n) + Sum(P[j] * log(n * P[j]), over(j)),
                SOFTMAX,
                NORMALISER,
            ),
            r"One row, $P_j=e^{s_j}/Z$: its attended score is $e=\psi+D$ with $\psi=\log(Z/n)$ and $D=\mathrm{KL}(P\|U)$, "
            r"$U$ uniform.",
        ),
        Step(
            ConvexMinimum(exp(shift) - 1 - shift, shift, 0 * shift),
            r"$e^u\ge1+u$, with equality only at $u=0$.",
        ),
        Step(
            Equality(
                first * log(first / second) - (first - second),
                (first * (exp(shift) - 1 - shift)).subs(shift, log(second / first)),
            ),
            r"So $p\log(p/q)\ge p-q$ for positive numbers, with equality only for $p=q$.",
        ),
        Step(
            SumIdentity(
                Sum(p[j] * log(p[j] / P[j]), over(j)) - Sum(p[j] - P[j], over(j)),
                log(Z / n) - Sum(p[j] * s[j], over(j)) + Sum(p[j] * log(n * p[j]), over(j)),
                ANY,
                SUMS_TO_ONE,
            ),
            r"Gibbs' principle: for every probability vector $p>0$ (written $p_j=e^{t_j}/Y$, $Y=\sum_je^{t_j}$) step 3 makes this "
            r"non-negative, $\psi\ge\sum_jp_js_j-\mathrm{KL}(p\|U)$, with equality only for $p=P$.",
        ),
        Step(
            SumIdentity(
                Sum(p[k] * p[j] * s[k, j], over(k), over(j)),
                Sum(centre[a] * w[a, b] * centre[b], over(a, d), over(b, d)),
                CENTRED,
            ),
            r"Step 4 in every row $k$, averaged with the weights $p_k$: the scores give $z^\top Wz$, $z=\sum_kp_kx_k$.",
        ),
        Step(
            Argued(r"\sum_k p_k\psi_k \ge z^\top W z - \mathrm{KL}(p\|U),\quad z = \sum_k p_k x_k", (4, 5)),
            r"For every probability vector $p>0$, with equality only if $P_k=p$ for every row $k$.",
        ),
        Step(
            SumIdentity(
                Sum(P[j, k] * psi[k], over(j), over(k)) + Sum((n - column[k]) * psi[k], over(k)),
                n * Sum(psi[k], over(k)),
                COLUMNS,
            ),
            r"It is used for $n+1$ vectors $p$: the rows $P_j$, where $z=m_j$, and, for $n\ge2$, "
            r"$\omega_k=(n-c_k)/(n(n-1))$ with the column sums $c_k=\sum_iP_{ik}$.",
        ),
        Step(
            SumIdentity(Sum(1 - P[k], over(k)), n - 1, SOFTMAX, NORMALISER),
            r"In each row $i$ the numbers $(1-P_{ik})/(n-1)$ are positive and add up to 1; $\omega$ is their mean over $i$, so it is a "
            r"probability vector.",
        ),
        Step(
            SumIdentity(
                Sum((n - column[k]) * x[k, a], over(k)),
                Sum(n * x[k, a] - Sum(P[k, j] * x[j, a], over(j)), over(k)),
                COLUMNS,
            ),
            r"Its centre is $z=r/(n(n-1))$, coordinate by coordinate.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * log(P[j] / p[k]), over(k), over(j))
                - Sum(P[k] * log(P[k] / p[k]), over(k))
                - Sum(P[j] - p[k], over(k), over(j))
                + Sum(P[k] - p[k], over(k)),
                (n - 1) * Sum(P[j] * log(n * P[j]), over(j)) - Sum((1 - P[k]) * log(n * p[k]), over(k)),
                ANY,
                SUMS_TO_ONE,
            ),
            r"Step 3 for $P_j$ and $p_k$, $j\ne k$, in one row: its sum is $(n-1)D$ minus a cross entropy.",
        ),
        Step(
            Argued(r"(n-1)\sum_i D_i \ge n(n-1)\,\mathrm{KL}(\omega\|U)", (3, 8, 10)),
            r"For $p=\omega$, summed over the rows $i$: $\sum_i(1-P_{ik})=n(n-1)\omega_k$.",
        ),
        Step(
            Argued(
                r"n\sum_i e_i \ge \sum_j m_j^\top W m_j + (n-1)\sum_i D_i + n(n-1)\left(z^\top W z - \mathrm{KL}(\omega\|U)\right)",
                (1, 6, 7),
            ),
            r"Step 6 for the $n$ rows and $n(n-1)$ times for $\omega$ adds up to $n\sum_k\psi_k$ on the left.",
        ),
        Step(
            Argued(MIXING, (6, 8, 9, 11, 12)),
            r"Multiplied by $n(n-1)$. Equality asks for equality in step 6 with $p=\omega$: all rows equal $\omega$, so $c_k=n\omega_k$ and "
            r"$\omega_k=\frac1n$; and uniform rows give $m_i=\frac1n\sum_jx_j$ and equality. For $n=1$ both sides are 0.",
        ),
    ),
    source="Stated here; Gibbs' variational principle.",
    remark=r"It needs all rows to score the same tokens: under a causal mask it is false. The factor $n$ cannot be lowered, as T16 is sharp.",
    formula=MIXING,
    wrong=(Planted("n replaced by n/2", scale={unit: fmpq(1, 2)}),),
)
