"""Named hypotheses, each with an exact three-valued test on the user's own weights or start."""

from collections.abc import Callable
from dataclasses import dataclass

from flint import fmpq, fmpq_mat
from sympy import Basic, Q, true

from theory import notation
from theory.definiteness import decimal, positive_definite
from theory.eigenpairs import hurwitz, positive_eigenvalue, unstable
from theory.instance import Instance
from theory.verdict import Grade, Verdict, exactly, fails, holds, undecided
from theory.weights import symmetric_part


@dataclass(frozen=True)
class Hypothesis:
    """`key` names it everywhere; `formula` is LaTeX; `on` says what it is about.

    That is "weights", "start" (tokens), or "choice" (what a statement adds: a metric, a step). `decide` tests
    it exactly on an Instance. `assumption` is what SymPy may use of it in a derivation.
    """

    key: str
    formula: str
    on: str
    decide: Callable[[Instance], Verdict]
    assumption: Basic = true


def _symmetric(name: str, matrix: fmpq_mat, roundoff: fmpq, terms: int) -> Verdict:
    """Is a product of weights symmetric? UNDECIDED if it is not, but by no more than their rounding.

    The rounding test asks whether |M − Mᵀ| ≤ 4·terms·u·|M|max (and at most 1 % of it), with u the weights'
    unit roundoff. It proves nothing: however small, an antisymmetric part can destabilise.
    """
    gap = _largest(matrix - matrix.transpose())
    if gap == 0:
        return holds(Grade.EXACT, f"{name} equals its transpose")
    size = _largest(matrix)
    share = f"|M − Mᵀ|/|M| = {decimal(gap / size, 2)}"
    if gap <= min(4 * terms * roundoff, fmpq(1, 100)) * size:
        return undecided(f"{name} is symmetric only to within the rounding of the stored floats ({share})")
    return fails(Grade.EXACT, f"{name} is not symmetric ({share})", f"{decimal(gap / size)}")


def _largest(matrix: fmpq_mat) -> fmpq:
    return max(abs(entry) for entry in matrix.entries())


def _with_response(decide: Callable[[Instance], Verdict]) -> Callable[[Instance], Verdict]:
    def guarded(instance: Instance) -> Verdict:
        if not instance.has_response:
            return undecided("V is singular, so A = W V⁻¹ is not defined")
        return decide(instance)

    return guarded


def _response_definite(instance: Instance, sign: int) -> Verdict:
    """Sign of A_s, decided on its congruent VᵀA_sV = (VᵀW)_s against the metric VᵀV: no inverse needed."""
    if instance.given_response is not None:
        return positive_definite(symmetric_part(instance.given_response) * sign)
    gram = instance.value.transpose() * instance.value
    return positive_definite(
        symmetric_part(instance.weights.congruent_response) * sign, gram, instance.weights.scale
    )


def _score_definite(instance: Instance, sign: int) -> Verdict:
    return positive_definite(symmetric_part(instance.form) * sign, unit=instance.weights.scale)


def _either(decide: Callable[[int], Verdict], what: str) -> Verdict:
    positive = decide(1)
    if positive.holds:
        return holds(positive.grade, f"{what} ≻ 0: {positive.reason}", positive.margin)
    negative = decide(-1)
    if negative.holds:
        return holds(negative.grade, f"{what} ≺ 0: {negative.reason}", negative.margin)
    if positive.fails and negative.fails:
        return fails(min(positive.grade, negative.grade), f"{what} is not definite", positive.margin)
    return undecided(f"the sign of {what} stays open")


def _symmetric_response(instance: Instance) -> Verdict:
    if instance.given_response is not None:
        return _symmetric("A", instance.given_response, fmpq(0), 1)
    weights = instance.weights
    return _symmetric("VᵀW (so A)", weights.congruent_response, weights.unit_roundoff, weights.dim)


def _not_hurwitz(instance: Instance) -> Verdict:
    verdict = hurwitz(instance.value)
    if verdict.holds:
        return fails(verdict.grade, f"V is Hurwitz: {verdict.reason}")
    return holds(verdict.grade, verdict.reason) if verdict.fails else verdict


def _left_eigenvector(instance: Instance) -> Verdict:
    if instance.ell is None:
        return positive_eigenvalue(instance.value)
    gap = instance.value.transpose() * instance.ell - instance.ell * instance.number("rate")
    if not any(instance.ell.entries()):
        return fails(Grade.EXACT, "ℓ = 0 is no eigenvector")
    return exactly(not any(gap.entries()), "ℓᵀV − μℓᵀ, computed exactly")


def _rate_positive(instance: Instance) -> Verdict:
    rate = instance.number("rate")
    if rate is None:
        return positive_eigenvalue(instance.value)
    return exactly(rate > 0, f"μ = {rate}")


def _on_start(decide: Callable[[Instance], bool]) -> Callable[[Instance], Verdict]:
    def guarded(instance: Instance) -> Verdict:
        return undecided("a condition on the start") if instance.tokens is None else exactly(decide(instance))

    return guarded


def _rows(instance: Instance) -> list[list[fmpq]]:
    return instance.tokens.tolist()  # type: ignore[union-attr]


def _mirrored(instance: Instance) -> bool:
    rows = _rows(instance)
    return len(rows) == 3 and rows[0] == [-entry for entry in rows[1]] and not any(rows[2])


def _rotation(instance: Instance) -> bool:
    form = instance.form
    return form.nrows() == 2 and form[0, 0] == form[1, 1] and form[0, 1] == -form[1, 0]


_one_side = _on_start(lambda i: all(z > 0 for z in (i.tokens * i.ell).entries()))  # type: ignore[operator]

A_SYMMETRIC = Hypothesis(
    "A symmetric", r"A = A^\top", "weights", _with_response(_symmetric_response), Q.symmetric(notation.A)
)
A_POSITIVE = Hypothesis(
    "A positive", r"A_s \succ 0", "weights", _with_response(lambda i: _response_definite(i, 1))
)
A_NEGATIVE = Hypothesis(
    "A negative", r"A_s \prec 0", "weights", _with_response(lambda i: _response_definite(i, -1))
)
A_DEFINITE = Hypothesis(
    "A definite",
    r"\sigma A_s \succ 0,\ \sigma = \pm 1",
    "weights",
    _with_response(lambda i: _either(lambda sign: _response_definite(i, sign), "A_s")),
)
W_POSITIVE = Hypothesis(
    "W positive",
    r"W_s \succ 0",
    "weights",
    lambda i: _score_definite(i, 1),
)
W_DEFINITE = Hypothesis(
    "W definite",
    r"\omega W_s \succ 0,\ \omega = \pm 1",
    "weights",
    lambda i: _either(lambda sign: _score_definite(i, sign), "W_s"),
)
W_SYMMETRIC = Hypothesis(
    "W symmetric",
    r"W = W^\top",
    "weights",
    lambda i: _symmetric("W", i.form, i.weights.unit_roundoff, i.weights.dim),
    Q.symmetric(notation.W),
)
V_NOT_HURWITZ = Hypothesis("V not Hurwitz", r"\max \mathrm{Re}\,\lambda(V) \ge 0", "weights", _not_hurwitz)
V_HURWITZ = Hypothesis(
    "V Hurwitz", r"\max \mathrm{Re}\,\lambda(V) < 0", "weights", lambda i: hurwitz(i.value)
)
V_UNSTABLE = Hypothesis(
    "V unstable", r"\max \mathrm{Re}\,\lambda(V) > 0", "weights", lambda i: unstable(i.value)
)
LEFT_EIGENVECTOR = Hypothesis(
    "left eigenvector", r"\ell^\top V = \mu\,\ell^\top", "weights", _left_eigenvector
)
RATE_POSITIVE = Hypothesis("rate positive", r"\mu > 0", "weights", _rate_positive)

START_NONZERO = Hypothesis(
    "start nonzero", r"X(0) \neq 0", "start", _on_start(lambda i: any(any(row) for row in _rows(i)))
)
TOKENS_EQUAL = Hypothesis(
    "tokens equal",
    r"x_1 = \dots = x_n",
    "start",
    _on_start(lambda i: all(row == _rows(i)[0] for row in _rows(i))),
)
TOKENS_MIRRORED = Hypothesis("tokens mirrored", r"\{x_i\} = \{a, -a, 0\}", "start", _on_start(_mirrored))
ONE_SIDE = Hypothesis(
    "one side",
    r"\ell^\top x_i(0) > 0 \text{ for every } i",
    "start",
    lambda i: undecided("ℓ is not given") if i.ell is None else _one_side(i),
)
W_ROTATION = Hypothesis(
    "W rotation",
    r"W = \begin{pmatrix} a & -b \\ b & a \end{pmatrix}",
    "weights",
    lambda i: exactly(_rotation(i), "d = 2 and W commutes with rotations"),
)
A_MINUS_W_TRANSPOSED = Hypothesis(
    "A minus W transposed",
    r"A = -W^\top",
    "weights",
    _with_response(lambda i: exactly(i.response == -i.form.transpose())),
)
STEEP_ROTATION = Hypothesis(
    "steep rotation",
    r"0 < W_{11} < |W_{21}|",
    "weights",
    lambda i: exactly(i.weights.dim > 1 and 0 < i.form[0, 0] < abs(i.form[1, 0])),
)
