"""T16: residual layers x_i + hVm_i: the sharp step for convergence, divergence for every step, a step without n."""

from collections.abc import Callable

from flint import arb, ctx, fmpq
from sympy import Add, Expr, IndexedBase, Integer, Limit, Max, Rational, Sum, Symbol, exp, oo

from theory.definiteness import inertia
from theory.derivation import (
    Argued,
    Certified,
    Cited,
    Equality,
    FromLemma,
    Given,
    MatrixIdentity,
    Positive,
    Satisfies,
    Step,
    SumIdentity,
)
from theory.enclosure import PRECISION
from theory.evaluate import CONSTANTS
from theory.hypotheses import A_NEGATIVE, A_POSITIVE, A_SYMMETRIC, START_NONZERO, W_POSITIVE, Hypothesis
from theory.instance import Instance
from theory.lemmas.mixing import MIXING, total_attended, total_of_means
from theory.lemmas.response import RESPONSE
from theory.lemmas.softmax import NORMALISER, SOFTMAX, over
from theory.notation import A, P, V, W, gain, j, k, kappa, lam, m_i, n, step, sym, u, unit, x_i
from theory.quantities import energy, for_tokens, quadratic, token_energy
from theory.system import ExplicitSystem
from theory.theorem import AT_LEAST, EQUAL, MORE_THAN, Claim, Examples, Planted, Sides, Theorem
from theory.theorems.convergence import row_of_attention
from theory.theorems.thresholds import FREE_ENERGY_OF_ROW
from theory.verdict import Grade, Verdict, fails, holds, undecided
from theory.weights import symmetric_part

# Hypotheses on the step


def _with_step(decide: Callable[[Instance, fmpq], Verdict]) -> Callable[[Instance], Verdict]:
    def guarded(instance: Instance) -> Verdict:
        h = instance.number("step")
        if h is None:
            return undecided("the step h is not given")
        return decide(instance, h) if h > 0 else fails(Grade.EXACT, f"h = {h} is not positive")

    return guarded


def _small(instance: Instance, h: fmpq) -> Verdict:
    """W + Wᵀ + nhWᵀV ⪰ 0, which for A = Aᵀ is 2W_s − nhVᵀ(−A)V; a positive scale of W factors out."""
    if instance.tokens is None:
        return undecided("the bound depends on the number of tokens")
    count, form = instance.tokens.nrows(), instance.form
    room = symmetric_part(form) * 2 + symmetric_part(form.transpose() * instance.value) * (h * count)
    found = inertia(room)
    if found is None:
        return undecided("the signs of the pivots stay undetermined at the highest precision")
    signs, grade = found
    reason = f"Sylvester's law: {signs.negative} negative and {signs.zero} zero pivots"
    inside = signs.negative == 0 and (count > 1 or signs.zero == 0)
    return holds(grade, reason) if inside else fails(grade, reason)


def _moderate(instance: Instance, h: fmpq) -> Verdict:
    with ctx.workprec(PRECISION):
        smallest, largest = (arb(CONSTANTS[symbol](instance)) for symbol in (lam, gain))
        rooms = (2 * smallest - h * largest, 1 - h * h * largest)
    margin = ", ".join(room.str(6) for room in rooms)
    if all(room > 0 for room in rooms):
        return holds(Grade.INTERVAL, f"2λ − hΓ and 1 − h²Γ are {margin}", margin)
    if any(room <= 0 for room in rooms):
        return fails(Grade.INTERVAL, f"2λ − hΓ and 1 − h²Γ are {margin}", margin)
    return undecided(f"2λ − hΓ and 1 − h²Γ are {margin}", margin)


STEP_POSITIVE = Hypothesis(
    "step positive", "h > 0", "choice", _with_step(lambda i, h: holds(Grade.EXACT, f"h = {h}"))
)
STEP_SMALL = Hypothesis(
    "step small",
    r"h > 0,\ 2W_s \succeq nh\,V^\top(-A)V \text{ (for } n=1 \text{ with} \succ)",
    "choice",
    _with_step(_small),
)
STEP_MODERATE = Hypothesis(
    "step moderate", r"h > 0,\ h\Gamma < 2\lambda,\ h^2\Gamma < 1", "choice", _with_step(_moderate)
)


# Quantities of a layer


def next_energy(e: ExplicitSystem, i: int) -> Expr:
    """½ y_iᵀAy_i at the next layer y = x + hVm."""
    return quadratic(e.A, e.y.row(i).T) / 2


def rise(e: ExplicitSystem) -> Expr:
    """½ Σ y_iᵀAy_i − ½ Σ x_iᵀAx_i."""
    return Add(*(next_energy(e, i) for i in range(e.n))) - energy(e)


def _moved(e: ExplicitSystem) -> Expr:
    """Σ (Vm_i)ᵀA(Vm_i)."""
    return Add(*(quadratic(e.A, e.velocity(i)) for i in range(e.n)))


BALANCE = Claim(
    "layer balance",
    r"\tfrac12\sum_i y_i^\top Ay_i - \tfrac12\sum_i x_i^\top Ax_i = h\sum_i e_i + \tfrac{h^2}2\sum_i (Vm_i)^\top A(Vm_i)",
    EQUAL,
    lambda e: [(rise(e), step * total_attended(e) + step**2 * _moved(e) / 2)],
)
SCORES_BEAT_MEANS = (
    r"n\sum_i e_i \ge \sum_i m_i^\top W m_i \ge 0, \text{ and } \sum_i e_i = 0 \text{ only for } X = 0;"
    r" \text{ for } n \ge 2 \text{ the first is an equality only for } X = 0"
)

next_token, many = x_i + step * V * m_i, u + n * step * V * u
room = 2 * sym(W) + n * step * V.T * A * V
LAYER_STEPS = (
    Step(
        MatrixIdentity(
            next_token.T * A * next_token / 2,
            x_i.T * A * x_i / 2 + step * x_i.T * W * m_i + step**2 / 2 * m_i.T * V.T * A * V * m_i,
            where={W: A * V},
        ),
        r"One token in one layer, $y_i=x_i+hVm_i$, with $W=AV$ and $A=A^\top$.",
    ),
    Step(FromLemma("L4", RESPONSE), r"The middle term is the attended score $e_i$."),
    Step(FromLemma("L7", MIXING), r"Attended scores against attended means."),
    Step(
        Argued(SCORES_BEAT_MEANS, (3,), ("W positive",)),
        r"$W_s\succ0$. For $n\ge2$ equality gives $r=0$ and equality in step 3, so attention is uniform, $r=(n-1)\sum_jx_j=0$, and "
        r"$s_{ij}$ does not depend on $j$ while its sum over $j$ is $x_i^\top W\sum_jx_j=0$: so $s_{ii}=0$ and $x_i=0$. For $n=1$, $e=x^\top Wx$.",
    ),
)

# Convergence

large, score = Symbol("tau", positive=True), Symbol("w", positive=True)
RESIDUAL_CONVERGES = r"X_l\to0 \text{ from every start}"

T16 = Theorem(
    id="T16",
    kind="theorem",
    title="Residual layers converge for small steps",
    statement=r"A residual layer maps $x_i$ to $y_i=x_i+hVm_i$. If $A=A^\top\prec0$, $W_s\succ0$, $h>0$ and $2W_s\succeq nhV^\top(-A)V$ "
    r"($\succ$ for $n=1$), then $E=-\frac12\sum_ix_i^\top Ax_i$ falls strictly at every layer while $X\ne0$, and layer after layer "
    r"$X\to0$ from every start. The condition says that $I+nhV$, the layer of a single token with the step $nh$, expands nothing in the "
    r"metric $-A$; it holds for $h\le2\lambda/(n\Gamma)$ ($<$ for $n=1$), $\Gamma=\|\hat W\|^2$, $\hat W=(-A)^{-1/2}W(-A)^{-1/2}$. "
    r"It is sharp: where $2W_s\succeq nhV^\top(-A)V$ fails, $E$ rises for some $n$ tokens.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, W_POSITIVE, STEP_SMALL, START_NONZERO),
    claims=(
        Claim(
            "energy is non-negative",
            r"E = -\tfrac12\sum_i x_i^\top Ax_i \ge 0",
            AT_LEAST,
            lambda e: [(-energy(e), 0)],
        ),
        Claim("energy falls at the next layer", r"E(X) - E(Y) > 0", MORE_THAN, lambda e: [(rise(e), 0)]),
        BALANCE,
        Claim(
            "by how much",
            r"2\lambda\,(E(X)-E(Y)) \ge h\,(2\lambda-nh\Gamma)\sum_i e_i",
            AT_LEAST,
            lambda e: [(2 * lam * rise(e), step * (2 * lam - unit * e.n * step * gain) * total_attended(e))],
        ),
    ),
    steps=(
        *LAYER_STEPS,
        Step(
            Argued(
                r"E(X)-E(Y) = h\sum_i e_i - \tfrac{h^2}2\sum_i m_i^\top V^\top(-A)Vm_i \ge \tfrac hn\left(n\sum_i e_i - \sum_i m_i^\top Wm_i\right)",
                (1, 2),
                ("step small",),
            ),
            r"$nhV^\top(-A)V\preceq2W_s$ for each $m_i$; strictly for $n=1$ and $m_1\ne0$.",
        ),
        Step(
            Argued(r"E(Y) < E(X) \text{ unless } X = 0", (4, 5), ("step small", "start nonzero")),
            r"For $n\ge2$ by the equality case of step 4, for $n=1$ by the strict sign in step 5.",
        ),
        Step(
            Given(r"E > 0 \text{ unless } X=0,\ E\to\infty \text{ as } \|X\|\to\infty", ("A negative",)),
            r"$E$ is positive and proper.",
        ),
        Step(
            Argued(RESIDUAL_CONVERGES, (6, 7)),
            r"Layers repeat one continuous map $F$. $E$ falls along them, so they stay bounded and $E$ has a limit; at a limit point $X^*$ "
            r"continuity gives $E(F(X^*))=E(X^*)$, so $X^*=0$ by step 6, and the limit of $E$ is 0.",
        ),
        Step(
            MatrixIdentity(u.T * V.T * A * V * u, u.T * W.T * A.I * W * u, where={W: A * V}),
            r"So $V^\top(-A)V=W^\top(-A)^{-1}W$, and $\Gamma$, the largest eigenvalue of its pencil with $-A$, is $\|\hat W\|^2$.",
        ),
        Step(
            Cited(
                r"u^\top W_su \ge \lambda\,u^\top(-A)u,\quad u^\top V^\top(-A)Vu \le \Gamma\,u^\top(-A)u",
                "horn2012",
            ),
            r"Rayleigh quotients of the two pencils with $-A$; so $nh\Gamma\le2\lambda$ ($<$ for $n=1$) is enough.",
        ),
        Step(
            Argued(r"2\lambda\,(E(X)-E(Y)) \ge h\,(2\lambda-nh\Gamma)\sum_i e_i", (4, 5, 10)),
            r"$\lambda\sum_im_i^\top V^\top(-A)Vm_i\le\Gamma\sum_im_i^\top Wm_i\le n\Gamma\sum_ie_i$ in the balance of step 5.",
        ),
        Step(
            MatrixIdentity(many.T * A * many - u.T * A * u, n * step * u.T * room * u, where={W: A * V}),
            r"The condition, read for $I+nhV$: $-u^\top Au$ does not grow.",
        ),
        Step(
            MatrixIdentity(
                (n - 1) * step**2 * u.T * V.T * A * V * u
                + (u + step * V * u).T * A * (u + step * V * u)
                - u.T * A * u,
                step * u.T * room * u,
                where={W: A * V},
            ),
            r"Sharpness: $n-1$ tokens at 0 and one at $u$, if all of them attended to $u$ alone.",
        ),
        Step(
            Equality(Limit(1 / (1 + (n - 1) * exp(score / large**2 - score * large)), large, oo), Integer(1)),
            r"They do in the limit: of $n-1$ tokens $u/\tau$ and one $\tau^2u$, $w=u^\top Wu>0$, a small one puts this weight on the large one,",
        ),
        Step(
            Equality(Limit(1 / (1 + (n - 1) * exp(score * large - score * large**4)), large, oo), Integer(1)),
            r"and the large one this weight on itself.",
        ),
        Step(
            Argued(
                r"\tau^{-4}\left(E(Y)-E(X)\right) \to -\tfrac h2\,u^\top\left(2W_s-nhV^\top(-A)V\right)u",
                (13, 14, 15),
                ("W positive",),
            ),
            r"So where the condition fails at $u$ the energy rises for large $\tau$.",
        ),
    ),
    source="Stated here; for one token it is the stability of Euler's method in the metric $-A$.",
    remark=r"The step shrinks like $1/n$: without the factor $n$ the energy may rise (T16b), though for a step independent of $n$ tokens stay "
    r"bounded (T16c). Nothing is claimed of the trajectory for a larger step. The bound $2\lambda/(n\Gamma)$ is in general smaller than the largest step allowed.",
    concludes="residual layers with h > 0 and 2W_s ⪰ nhVᵀ(−A)V (≻ for one token) converge to 0 from every start",
    formula=RESIDUAL_CONVERGES,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]],
            response=[[-2, 1], [1, -1]],
            tokens=[[1, 2], [0, -1], [3, 1]],
            step=fmpq(1, 16),
        ),
        near_miss=Instance.of(score=[[1]], response=[[-1]], tokens=[[1], [1], [1], [4]], step=1),
        missing="step small",
        boundary=Instance.of(score=[[1]], response=[[-1]], tokens=[[3]], step=1),
    ),
    wrong=(
        Planted("a step half as large again", scale={step: fmpq(3, 2)}),
        Planted("n replaced by n/2", scale={unit: fmpq(1, 2)}),
    ),
)

# Divergence

RESIDUAL_DIVERGES = r"E(X_l)\to\infty,\ \max_i\|x_i\|\to\infty"

T16a = Theorem(
    id="T16a",
    kind="theorem",
    title="Residual layers diverge for every step",
    statement=r"If $A=A^\top\succ0$, $W_s\succ0$ and $X_0\ne0$, then for every step $h>0$ the energy $E=\frac12\sum_ix_i^\top Ax_i$ of residual "
    r"layers $y_i=x_i+hVm_i$ increases strictly to $\infty$, so $\max_i\|x_i\|\to\infty$.",
    hypotheses=(A_SYMMETRIC, A_POSITIVE, W_POSITIVE, STEP_POSITIVE, START_NONZERO),
    claims=(
        Claim(
            "energy is positive",
            r"E = \tfrac12\sum_i x_i^\top Ax_i > 0",
            MORE_THAN,
            lambda e: [(energy(e), 0)],
        ),
        Claim("energy grows at the next layer", r"E(Y) - E(X) > 0", MORE_THAN, lambda e: [(rise(e), 0)]),
        BALANCE,
        Claim(
            "by how much",
            r"E(Y)-E(X) \ge \tfrac hn\sum_i m_i^\top Wm_i + \tfrac{h^2}2\sum_i (Vm_i)^\top A(Vm_i)",
            AT_LEAST,
            lambda e: [(rise(e), unit * step * total_of_means(e) / e.n + step**2 * _moved(e) / 2)],
        ),
    ),
    steps=(
        *LAYER_STEPS,
        Step(
            Given(
                r"E > 0 \text{ unless } X=0,\ E\to\infty \text{ iff } \|X\|\to\infty,\ m_i^\top V^\top AVm_i \ge 0",
                ("A positive",),
            ),
            r"$E$ is positive and proper, and the last term of step 1 helps.",
        ),
        Step(
            Argued(r"E(Y)-E(X) \ge h\sum_i e_i > 0 \text{ unless } X = 0", (1, 2, 4, 5), ("step positive",)),
            r"No bound on the step is needed.",
        ),
        Step(
            Argued(RESIDUAL_DIVERGES, (5, 6), ("start nonzero",)),
            r"If $E$ stayed below $B$, the layers would stay in the compact set $\{E(X_0)\le E\le B\}$, which does not contain 0; on it the "
            r"continuous rise has a positive minimum, and $E$ would pass $B$.",
        ),
    ),
    source="Stated here.",
    remark=r"It speaks of the largest token, as T3 does: a token may stay at 0.",
    concludes="residual layers with any step h > 0 drive max‖x_i‖ to ∞ from every start but 0",
    formula=RESIDUAL_DIVERGES,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]], response=[[2, 1], [1, 1]], tokens=[[1, 2], [0, -1], [3, 1]], step=3
        ),
        near_miss=Instance.of(score=[[1]], response=[[1]], tokens=[[0], [0]], step=1),
        missing="start nonzero",
        boundary=Instance.of(score=[[1, 0], [0, 2]], response=[[1, 0], [0, 3]], tokens=[[1, 2]], step=2),
    ),
    wrong=(Planted("twice the means", scale={unit: fmpq(2)}),),
)

# The bound without n

high = Symbol("a", positive=True)
beyond = Symbol("b", nonnegative=True)
floor = Rational(20, 23)


def _mean_of(query: Expr) -> Expr:
    """The attended mean of a query among the tokens 1, 1, 1, a with W = 1."""
    return (3 * exp(query) + high * exp(query * high)) / (3 * exp(query) + exp(query * high))


energy_after = (3 * (1 - _mean_of(Integer(1))) ** 2 + (high - _mean_of(high)) ** 2) / 2
share = 1 + 3 * exp(1 - high)

FOUR = Instance.of(score=[[1]], response=[[-1]], tokens=[[1], [1], [1], [4]], step=1)
ALONE = Instance.of(score=[[1]], response=[[-1]], tokens=[[4]], step=1)


def _scalar_layer(instance: Instance, h: fmpq) -> Verdict:
    numbers = [*instance.form.entries(), *instance.value.entries(), h, instance.weights.scale_squared]
    return holds(Grade.EXACT) if numbers == [1, -1, 1, 1] else fails(Grade.EXACT, "another layer")


def _one_large(instance: Instance) -> Verdict:
    if instance.tokens is None:
        return undecided("a condition on the start")
    *small, largest = instance.tokens.entries()
    return holds(Grade.EXACT) if small == [1, 1, 1] and largest >= 4 else fails(Grade.EXACT, "other tokens")


SCALAR_LAYER = Hypothesis(
    "scalar layer", "d = 1,\\ W = 1,\\ V = -1,\\ h = 1", "choice", _with_step(_scalar_layer)
)
ONE_LARGE = Hypothesis("one large token", r"(x_1,\dots,x_4) = (1,1,1,a),\ a \ge 4", "start", _one_large)


def _small_tokens(e: ExplicitSystem) -> Sides:
    big = e.X[e.n - 1, 0]
    return [(e.y[i, 0] * (1 + 3 * exp(1 - big)), unit * (1 - big)) for i in range(e.n - 1)]


T16b = Theorem(
    id="T16b",
    kind="counterexample",
    title="A step bound that ignores n",
    statement=r"'$h\le2\lambda/\Gamma$ makes $E$ fall for any number of tokens' is false: for $d=1$, $W=1$, $A=V=-1$ and $h=1$, where "
    r"$2\lambda/\Gamma=2$, one layer of the tokens $1,1,1,a$ raises $E=\frac12\sum_ix_i^2$ for every $a\ge4$; for $a=4$ from 9.5 to 10.219.",
    hypotheses=(SCALAR_LAYER, ONE_LARGE),
    claims=(
        Claim("energy rises", r"E(Y) > E(X)", MORE_THAN, lambda e: [(-rise(e), 0)]),
        Claim(
            "the step is inside the bound without n",
            r"2\lambda > h\Gamma",
            MORE_THAN,
            lambda e: [(2 * lam, step * gain)],
        ),
        Claim("where the small tokens go", r"y_i\,(1+3e^{1-a}) = -(a-1),\ i \le 3", EQUAL, _small_tokens),
    ),
    steps=(
        Step(
            Satisfies(
                r"W=1,\ A=-1,\ h=1 \text{ meets the hypotheses of T16 for } n=1",
                lambda: [hypothesis.decide(ALONE) for hypothesis in T16.hypotheses],
            ),
            r"So a bound without $n$ would allow the step 1.",
        ),
        Step(
            Equality(1 - _mean_of(Integer(1)), (1 - high) / share),
            r"The next layer of a token 1 among $1,1,1,a$: its query sees the scores 1, 1, 1 and $a$.",
        ),
        Step(
            Certified(energy_after.subs(high, 4), Rational(10219, 1000)),
            r"For $a=4$: $E(Y)>10.219$, while $E(X)=\frac12(3+16)=9.5$.",
        ),
        Step(
            Certified(1 / floor, share.subs(high, 4)),
            r"For $a\ge4$ the factor $1+3e^{1-a}$ is below $23/20$, so $E(Y)\ge\frac32y_1^2>\frac32\left(\frac{20}{23}(a-1)\right)^2$.",
        ),
        Step(
            Positive(
                (Rational(3, 2) * (floor * (high - 1)) ** 2 - (3 + high**2) / 2)
                .subs(high, 4 + beyond)
                .expand()
            ),
            r"That exceeds $E(X)=\frac12(3+a^2)$, with $a=4+b$, $b\ge0$.",
        ),
        Step(Argued(r"E(Y) > E(X) \text{ for every } a \ge 4", (2, 4, 5)), r"Put together."),
    ),
    source="Stated here.",
    remark=r"Each small token jumps to nearly $-(a-1)$, so $E(Y)/E(X)\to3$ as $a\to\infty$: T16's factor $n$ pays for the $n-1$ of them. "
    r"Nothing is said of later layers.",
    examples=Examples(
        witness=FOUR,
        near_miss=Instance.of(score=[[1]], response=[[-1]], tokens=[[1], [1], [1], [2]], step=1),
        missing="one large token",
        boundary=Instance.of(score=[[1]], response=[[-1]], tokens=[[1], [1], [1], [5]], step=1),
    ),
    wrong=(Planted("twice as far", scale={unit: fmpq(2)}),),
)

# A step independent of n

values = IndexedBase("q", real=True)
ratio, level, layer = (Symbol(name, positive=True) for name in ("q", "E_0", "l"))
limit = step * kappa / (1 - ratio)


def _bounded(after: Expr) -> Expr:
    """The solution of E ← qE + hκ after so many layers."""
    return limit + (level - limit) * ratio**after


def _factor() -> Expr:
    return Max(0, 1 - 2 * step * lam) + step**2 * gain


def _recursion(e: ExplicitSystem) -> Sides:
    largest = Max(*(-token_energy(e, i) for i in range(e.n)))
    return [(_factor() * largest + step * kappa, -next_energy(e, i)) for i in range(e.n)]


RECURSION = r"\max_i E_i(Y) \le q\max_i E_i(X) + h\kappa_n,\quad q = \max(0, 1-2h\lambda) + h^2\Gamma"

T16c = Theorem(
    id="T16c",
    kind="theorem",
    title="Residual layers stay bounded for steps independent of n",
    statement=r"If $A=A^\top\prec0$ and $0<h<\min(2\lambda/\Gamma,1/\sqrt\Gamma)$, which implies $W_s\succ0$, then the energies "
    r"$E_i=-\frac12x_i^\top Ax_i$ of residual layers obey $\max_iE_i(Y)\le q\max_iE_i(X)+h\kappa_n$ with "
    r"$q=\max(0,1-2h\lambda)+h^2\Gamma<1$. So tokens stay bounded, and $\limsup_l\max_iE_i\le h\kappa_n/(1-q)$ from every start.",
    hypotheses=(A_SYMMETRIC, A_NEGATIVE, STEP_MODERATE),
    claims=(
        Claim(
            "energies are non-negative",
            r"E_i \ge 0",
            AT_LEAST,
            for_tokens(lambda e, i: (-token_energy(e, i), 0)),
        ),
        Claim("the factor is below 1", r"1 > q", MORE_THAN, lambda e: [(Integer(1), _factor())]),
        Claim(
            "the largest energy contracts",
            r"q\max_j E_j(X) + h\kappa_n \ge E_i(Y)",
            AT_LEAST,
            _recursion,
        ),
    ),
    steps=(
        *LAYER_STEPS[:2],
        Step(
            FromLemma("L2", FREE_ENERGY_OF_ROW, row_of_attention),
            r"The attended score is close to the largest score, so to the self score at least.",
        ),
        Step(
            MatrixIdentity(x_i.T * W * x_i, x_i.T * sym(W) * x_i),
            r"The self score is a Rayleigh quotient of $W_s$.",
        ),
        Step(
            Cited(
                r"u^\top W_su \ge \lambda\,u^\top(-A)u,\quad u^\top V^\top(-A)Vu \le \Gamma\,u^\top(-A)u",
                "horn2012",
            ),
            r"Rayleigh quotients of the two pencils with $-A$; so $e_i\ge2\lambda E_i(X)-\kappa_n$.",
        ),
        Step(
            SumIdentity(
                Sum(P[j] * values[j] ** 2, over(j)) - Sum(P[j] * values[j], over(j)) ** 2,
                Sum(P[j] * P[k] * (values[j] - values[k]) ** 2, over(j), over(k)) / 2,
                SOFTMAX,
                NORMALISER,
            ),
            r"Jensen, in each coordinate of a basis orthonormal for $-A$: $m_i^\top(-A)m_i\le\sum_jP_{ij}x_j^\top(-A)x_j\le2\max_jE_j(X)$.",
        ),
        Step(
            Given(r"-A \succ 0,\ E_i \ge 0,\ E_i\to\infty \text{ as } \|x_i\|\to\infty", ("A negative",)),
            r"The energies are squared norms.",
        ),
        Step(
            Argued(
                r"E_i(Y) \le (1-2h\lambda)E_i(X) + h\kappa_n + h^2\Gamma\max_j E_j(X)",
                (1, 2, 3, 4, 5, 6, 7),
                ("step moderate",),
            ),
            r"Step 1 with $h>0$.",
        ),
        Step(
            Argued(RECURSION, (8,)),
            r"$(1-2h\lambda)E_i\le\max(0,1-2h\lambda)\max_jE_j$.",
        ),
        Step(
            Given(r"q < 1", ("step moderate",)),
            r"If $2h\lambda\le1$, $q-1=h(h\Gamma-2\lambda)<0$; if not, $q=h^2\Gamma<1$.",
        ),
        Step(
            Equality(ratio * _bounded(layer) + step * kappa, _bounded(layer + 1)),
            r"The comparison sequence $E_{l+1}=qE_l+h\kappa$ from $E_0$.",
        ),
        Step(
            Argued(
                r"\max_iE_i(X_l) \le \tfrac{h\kappa_n}{1-q} + q^l\left(\max_iE_i(X_0)-\tfrac{h\kappa_n}{1-q}\right)",
                (7, 9, 10, 11),
            ),
            r"By induction on the layers.",
        ),
    ),
    source="Stated here, with the sharp constant of L2.",
    remark=r"The step does not depend on $n$; the radius does, through $\kappa_n\le\log n$. Boundedness only: no convergence is claimed, and "
    r"the energy may rise on the way (T16b). Neither bound on the step is claimed to be necessary.",
    concludes="residual layers stay bounded for 0 < h < min(2λ/Γ, 1/√Γ), whatever n (there is such an h if λ > 0)",
    formula=RECURSION,
    examples=Examples(
        witness=Instance.of(
            score=[[2, 1], [-1, 1]],
            response=[[-2, 1], [1, -1]],
            tokens=[[1, 2], [0, -1], [3, 1]],
            step=fmpq(1, 16),
        ),
        near_miss=Instance.of(score=[[1]], response=[[-1]], tokens=[[1]], step=3),
        missing="step moderate",
        boundary=Instance.of(score=[[1]], response=[[-1]], tokens=[[1], [0]], step=fmpq(1, 2)),
    ),
    wrong=(
        Planted("κ_n replaced by κ_n/2", scale={kappa: fmpq(1, 2)}),
        Planted("λ replaced by 3λ/2", scale={lam: fmpq(3, 2)}),
    ),
)
