"""Symbolic Q, K, V as polynomial matrices, and hypotheses on them as polynomial equations and signs."""

from dataclasses import dataclass, field
from functools import cached_property, reduce

from sympy import Expr, ImmutableDenseMatrix, eye
from sympy.core.relational import Relational

from theory.errors import InputError
from theory.semialgebraic.generators import Fraction, Generators, add_fractions, multiply_fractions
from theory.semialgebraic.positivity import NONZERO, POSITIVE, Certificate, Polynomial, Sign
from theory.semialgebraic.readable import polynomial
from theory.semialgebraic.simplify import Known, simplified
from theory.semialgebraic.spectra import (
    Matrix,
    add,
    determinant,
    determinant_and_adjugate,
    hurwitz,
    kronecker,
    multiply,
    positive_definite,
    positive_eigenvalue,
    scale,
    transpose,
    twice_symmetric,
)


@dataclass(frozen=True)
class Inputs:
    """What the user gave, parsed: matrices in real symbols, and assumptions on these."""

    query: ImmutableDenseMatrix | None = None
    key: ImmutableDenseMatrix | None = None
    value: ImmutableDenseMatrix | None = None
    score: ImmutableDenseMatrix | None = None
    response: ImmutableDenseMatrix | None = None
    rotation: ImmutableDenseMatrix | None = None
    context: int | None = None
    where: tuple[Relational, ...] = ()

    @property
    def matrices(self) -> dict[str, ImmutableDenseMatrix]:
        return {name: m for name in MATRICES if (m := getattr(self, name)) is not None}

    @property
    def form(self) -> ImmutableDenseMatrix | None:
        """QᵀK, or W as given; unmultiplied where neither is."""
        if self.score is not None:
            return self.score
        return None if self.query is None or self.key is None else self.query.T * self.key


MATRICES = ("query", "key", "score", "value", "response", "rotation")


@dataclass(frozen=True)
class Formula:
    """Equations and, in each of several cases, signs: the hypotheses of a row as polynomials."""

    equations: list[Polynomial]
    cases: list[list[Sign]]
    implied: list[Sign] = field(default_factory=list)
    otherwise: list[Sign] | None = None
    never: str = "the hypotheses fail for all values"  # said where there is no case at all


class Problem:
    """The user's matrices as polynomial matrices, each up to a positive factor.

    Only what the given matrices determine may be asked for.
    """

    def __init__(self, inputs: Inputs):
        self.inputs = inputs
        self.generators = Generators((e for m in inputs.matrices.values() for e in m), inputs.where)
        self.known = Known(self.generators.facts, self.generators.equations)
        self.reduce = self.known.reduce

    def scaled(self, *matrices: ImmutableDenseMatrix) -> list[Matrix]:
        """Polynomial matrices that are one common positive multiple (a square) of the given ones."""
        fractions = [[[self.generators.fraction(e) for e in row] for row in m.tolist()] for m in matrices]
        common = self.generators.context.constant(1)
        for _, bottom in (entry for m in fractions for row in m for entry in row):
            common = divmod(common * bottom, common.gcd(bottom))[0]
        return [
            [[self.reduce(top * divmod(common, bottom)[0] * common) for top, bottom in row] for row in m]
            for m in fractions
        ]

    @cached_property
    def one(self) -> Matrix:
        size = next(iter(self.inputs.matrices.values())).shape[1]
        return [[self.generators.context.constant(int(i == j)) for j in range(size)] for i in range(size)]

    @cached_property
    def form(self) -> Matrix:
        """W, given or as QᵀK or A V."""
        given = self.inputs
        if given.score is not None:
            return self.scaled(given.score)[0]
        if given.query is not None and given.key is not None:
            query, key = (self.scaled(m)[0] for m in (given.query, given.key))
            return multiply(transpose(query), key, self.reduce)
        return multiply(self.scaled(given.response)[0], self.scaled(given.value)[0], self.reduce)

    @cached_property
    def value(self) -> Matrix | None:
        return None if self.inputs.value is None else self.scaled(self.inputs.value)[0]

    @cached_property
    def response(self) -> Matrix:
        """A where it is given, else VᵀAV = VᵀW: the same symmetry and, V being invertible, the same signs."""
        if self.inputs.response is not None:
            return self.scaled(self.inputs.response)[0]
        return multiply(transpose(self.value), self.form, self.reduce)

    @cached_property
    def pencil(self) -> tuple[Matrix, Matrix]:
        """(L, R) with V = L⁻¹R, up to a positive factor."""
        return (self.response, self.form) if self.value is None else (self.one, self.value)

    @cached_property
    def divisor(self) -> Polynomial | None:
        """det V where A = W V⁻¹, det A where V = A⁻¹W; None where nothing is inverted."""
        if self.inputs.response is None:
            return None if self.value is None else determinant(self.value, self.reduce)
        return determinant(self.response, self.reduce) if self.inputs.value is None else None

    def require_rotation(self) -> None:
        """Raises InputError unless the given rotation is orthogonal wherever the assumptions hold."""
        if self.inputs.rotation is None:
            return
        unit, turn = self.scaled(eye(self.inputs.rotation.rows).as_immutable(), self.inputs.rotation)
        gap = add(multiply(turn, transpose(turn), self.reduce), scale(unit, unit[0][0]), -1)
        if not all(self.reduce(entry).is_zero() for row in gap for entry in row):
            raise InputError(
                "rotation",
                got="a matrix R with R Rᵀ ≠ 1 for some values of the symbols",
                expected="an orthogonal matrix",
                fix="write cos(theta) and sin(theta), or add an assumption such as c**2 + s**2 = 1",
            )

    def shown(self) -> dict[str, ImmutableDenseMatrix]:
        """By LaTeX labels: QᵀK, VᵀW, and for d ≤ 2 the one of A and V that is not given."""
        given = {name: self._fractions(m) for name, m in self.inputs.matrices.items()}
        value, response, form = given.get("value"), given.get("response"), given.get("score")
        found, score = {}, "W"
        if "query" in given:
            score = r"Q^\top K"
            found[score] = form = _times(transpose(given["query"]), given["key"])
        elif value and response:
            found[score] = _times(response, value)
        if form and value:
            found[rf"V^\top {score}"] = _times(transpose(value), form)
            if (inverse := _inverse(value)) is not None:
                found[f"{score} V^{{-1}}"] = _times(form, inverse)
        if form and response and (inverse := _inverse(response)) is not None:
            found[f"A^{{-1}} {score}"] = _times(inverse, form)
        return {f"${label}$": self._readable(matrix) for label, matrix in found.items()}

    def _fractions(self, matrix: ImmutableDenseMatrix) -> list[list[Fraction]]:
        return [[self.generators.fraction(entry) for entry in row] for row in matrix.tolist()]

    def _readable(self, matrix: list[list[Fraction]]) -> ImmutableDenseMatrix:
        def entry(top: Polynomial, bottom: Polynomial) -> Expr:
            return polynomial(self.generators, self.reduce(top)) / polynomial(
                self.generators, self.reduce(bottom)
            )

        return ImmutableDenseMatrix([[entry(*fraction) for fraction in row] for row in matrix])

    def symmetry(self, matrix: Matrix) -> list[Polynomial]:
        size = len(matrix)
        gaps = [matrix[i][j] - matrix[j][i] for i in range(size) for j in range(i)]
        return [gap for gap in gaps if not gap.is_zero()]

    def definite(self, matrix: Matrix, sign: int) -> list[Sign]:
        polys = positive_definite(scale(twice_symmetric(matrix), sign), self.reduce)
        return [Sign(poly, POSITIVE) for poly in polys]

    def rotary_margin(self, sign: int) -> list[Sign]:
        """λ_min(Ŵ_s) > ‖Ŵ_r − Ŵ‖ for every offset r: Ŵ_s² ⊗ 1 − 1 ⊗ (Ŵ_r − Ŵ)ᵀ(Ŵ_r − Ŵ) ≻ 0, W_s ≻ 0.

        Hats are congruences by (±A)^{−1/2}; here all is transported to V's coordinates instead, where ±A is
        G = ±VᵀW and its inverse adj G/det G. Equal matrices on either side shrink the Kronecker product.
        """
        scores = self.rotated_scores
        score = scores.pop(0)
        frame = self.one if self.inputs.response is not None else self.value
        turn = transpose(frame)  # type: ignore[arg-type]
        metric = scale(self.response, sign)  # type: ignore[arg-type]
        _, inverse = determinant_and_adjugate(metric, self.reduce)

        def moved(matrix: Matrix) -> Matrix:
            return multiply(multiply(turn, matrix, self.reduce), frame, self.reduce)  # type: ignore[arg-type]

        def squared(matrix: Matrix) -> Matrix:
            return multiply(multiply(transpose(matrix), inverse, self.reduce), matrix, self.reduce)

        level = squared(moved(twice_symmetric(score)))
        found = []
        for rotated in scores:
            gap = scale(squared(moved(add(rotated, score, -1))), 4)
            if (ratio := self._multiple(gap, metric)) is not None:
                matrix = add(scale(level, ratio[1]), scale(metric, ratio[0]), -1)
            elif (ratio := self._multiple(level, metric)) is not None:
                matrix = add(scale(metric, ratio[0]), scale(gap, ratio[1]), -1)
            else:
                matrix = add(kronecker(level, metric), kronecker(metric, gap), -1)
            matrix = [[self.reduce(entry) for entry in row] for row in matrix]
            found += [Sign(poly, POSITIVE) for poly in positive_definite(matrix, self.reduce)]
        return found

    def _multiple(self, matrix: Matrix, metric: Matrix) -> tuple[Polynomial, Polynomial] | None:
        """(p, q), q > 0, with q·matrix = p·metric, for a positive definite metric; None if there is none."""
        top, bottom = matrix[0][0], metric[0][0]
        pairs = [(a, b) for p, q in zip(matrix, metric, strict=True) for a, b in zip(p, q, strict=True)]
        if all(self.reduce(a * bottom - b * top).is_zero() for a, b in pairs):
            return top, bottom
        return None

    @property
    def rotated_scores(self) -> list[Matrix]:
        """W, W_1, W_{−1}, W_2, …: QᵀR^rK up to one common positive factor."""
        given = self.inputs
        query, key, turn = (self.scaled(m)[0] for m in (given.query, given.key, given.rotation))
        unit = self.scaled(eye(given.rotation.rows).as_immutable(), given.rotation)[0]
        back, left = transpose(turn), transpose(query)
        count = (given.context or 1) - 1
        forward, backward = [unit], [unit]
        for _ in range(count):
            forward.append(multiply(forward[-1], turn, self.reduce))
            backward.append(multiply(backward[-1], back, self.reduce))
        spread = unit[0][0]
        powers = [forward[0], *(m for pair in zip(forward[1:], backward[1:], strict=True) for m in pair)]
        return [
            multiply(
                multiply(left, scale(power, spread ** (count - (k + 1) // 2)), self.reduce), key, self.reduce
            )
            for k, power in enumerate(powers)
        ]

    def formula(self, hypotheses: tuple[str, ...]) -> Formula | None:
        """The hypotheses' conjunction as polynomial equations and signs; None without a closed form."""
        if hypotheses == ("V not Hurwitz",):
            return self._not_hurwitz()
        if hypotheses == ("positive eigenvalue",):
            cases = positive_eigenvalue(*self.pencil, self.reduce)  # type: ignore[misc]
            return None if cases is None else Formula([], [[*self._invertible, *case] for case in cases])
        equations: list[Polynomial] = []
        signs: list[Sign] = []
        side = -1 if "A negative" in hypotheses else 1
        for key in hypotheses:
            matrix = self.response if key.startswith("A") else self.form
            if key.endswith("symmetric"):
                equations += self.symmetry(matrix)  # type: ignore[arg-type]
            elif key == "rotary margin":
                signs += self.rotary_margin(side)
            else:
                signs += self.definite(matrix, -1 if key.endswith("negative") else 1)  # type: ignore[arg-type]
        implied = [] if self.divisor is None else [Sign(self.divisor, NONZERO)]
        return Formula(equations, [signs], implied)

    def _not_hurwitz(self) -> Formula:
        stable = [Sign(poly, POSITIVE) for poly in hurwitz(*self.pencil, self.reduce)]  # type: ignore[misc]
        simple = simplified(stable, self.known.beside(self._invertible))
        if isinstance(simple, Certificate):
            return Formula([], [self._invertible])
        failing = [[*self._invertible, case] for sign in simple for case in sign.negated()]
        return Formula(
            [],
            failing,
            otherwise=[*self._invertible, *simple],
            never="V is Hurwitz for all values",
        )

    @property
    def _invertible(self) -> list[Sign]:
        """V = A⁻¹W exists."""
        from_response = self.inputs.response is not None and self.inputs.value is None
        return [Sign(self.divisor, NONZERO)] if from_response else []


def _times(one: list[list[Fraction]], other: list[list[Fraction]]) -> list[list[Fraction]]:
    columns = list(zip(*other, strict=True))
    return [
        [reduce(add_fractions, map(multiply_fractions, row, column)) for column in columns] for row in one
    ]


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]] | None:
    """For d ≤ 2; None if larger or singular for all values."""
    if len(matrix) > 2:
        return None
    if len(matrix) == 1:
        determinant, adjugate = matrix[0][0], [[(matrix[0][0][1] ** 0,) * 2]]
    else:
        ((a, b), (c, d)) = matrix
        determinant = add_fractions(multiply_fractions(a, d), _minus(multiply_fractions(b, c)))
        adjugate = [[d, _minus(b)], [_minus(c), a]]
    if determinant[0].is_zero():
        return None
    return [[multiply_fractions(entry, determinant[::-1]) for entry in row] for row in adjugate]


def _minus(fraction: Fraction) -> Fraction:
    return -fraction[0], fraction[1]
