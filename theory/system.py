"""The ODE ẋ_i = V Σ_j P_ij x_j in symbols, and its exact evaluation on rational systems.

`ExplicitSystem(n, d)` names every quantity of the system by a symbol and defines it by the earlier ones;
`Instance` is one system with rational entries; `evaluate` encloses all named quantities in Arb balls.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from flint import arb, ctx, fmpq, fmpq_mat
from sympy import Add, Expr, ImmutableDenseMatrix, Matrix, Symbol, exp

from theory import notation
from theory.definiteness import inertia, positive_definite
from theory.eigenpairs import eigenvalues, pencil_minimum
from theory.enclosure import PRECISION, enclose
from theory.errors import InputError
from theory.weights import Weights, identity, rational_matrix, symmetric_part


def _symbols(name: str, rows: int, columns: int) -> ImmutableDenseMatrix:
    return ImmutableDenseMatrix(rows, columns, lambda r, c: Symbol(f"{name}_{{{r + 1}{c + 1}}}", real=True))


class ExplicitSystem:
    """Symbols and definitions of the system with n tokens in R^d (entries named, nothing multiplied out).

    Free: X (n, d), W, V, A (d, d), ell (d, 1). Defined from them: scores s (n, n), weights g = e^s (n, n),
    normalisers Z (n), attention P (n, n), means m (n, d), velocity v (n, d).
    """

    def __init__(self, n: int, d: int):
        self.n, self.d = n, d
        self.X, self.ell = _symbols("x", n, d), _symbols("ell", d, 1)
        self.W, self.V, self.A = (_symbols(name, d, d) for name in "WVA")
        self.s, self.g, self.P = (_symbols(name, n, n) for name in "sgP")
        self.m, self.v = _symbols("m", n, d), _symbols("v", n, d)
        self.Z = _symbols("Z", n, 1)
        meanings = (
            (self.s, self.X * self.W * self.X.T),
            (self.g, self.s.applyfunc(exp)),
            (self.Z, Matrix(n, 1, lambda r, _: Add(*self.g.row(r)))),
            (self.P, Matrix(n, n, lambda r, c: self.g[r, c] / self.Z[r])),
            (self.m, self.P * self.X),
            (self.v, self.m * self.V.T),
        )
        self.definitions: dict[Symbol, Expr] = {
            symbol: meaning
            for symbols, meaning_of in meanings
            for symbol, meaning in zip(symbols, meaning_of, strict=True)
        }

    def token(self, index: int) -> Matrix:
        """Token `index` (from 0) as a column (d, 1)."""
        return self.X.row(index).T

    def velocity(self, index: int) -> Matrix:
        return self.v.row(index).T

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs i < j in lexicographic order."""
        return [(i, j) for i in range(self.n) for j in range(i + 1, self.n)]


@lru_cache(maxsize=64)
def explicit_system(n: int, d: int) -> ExplicitSystem:
    return ExplicitSystem(n, d)


@dataclass(frozen=True)
class Instance:
    """One system with rational entries: weights, tokens X (n, d), and what a statement may add to them.

    `given_response` is an A with A V = W (by default W V⁻¹); `ell` (d, 1) and `rate` belong to T17.
    """

    weights: Weights
    tokens: fmpq_mat | None = None
    given_response: fmpq_mat | None = None
    ell: fmpq_mat | None = None
    rate: fmpq | None = None

    @classmethod
    def of(cls, *, score, value=None, response=None, tokens=None, ell=None, rate=None) -> "Instance":
        """From nested lists of ints, Fractions or floats; give either `value` or `response`."""
        if (value is None) == (response is None):
            raise InputError(
                "value",
                got="both or neither of value and response",
                expected="one of them",
                fix="pass just one",
            )
        if response is None:
            weights, given = Weights.of(score, value), None
        else:
            given = rational_matrix("response", response)
            weights = Weights.from_response(score, given)
        return cls(
            weights,
            None if tokens is None else rational_matrix("tokens", tokens),
            given,
            None if ell is None else rational_matrix("ell", [[entry] for entry in ell]),
            None if rate is None else rational_matrix("rate", [[rate]])[0, 0],
        )

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens.ncols() != self.weights.dim:
            raise InputError(
                "tokens",
                got=f"shape ({self.tokens.nrows()}, {self.tokens.ncols()})",
                expected=f"(n, {self.weights.dim}), one token per row",
                fix="match the tokens' dimension to the weights'",
            )
        self._check_response()
        self._check_eigenvector()

    def _check_response(self) -> None:
        given, dim = self.given_response, self.weights.dim
        if given is None:
            return
        if (given.nrows(), given.ncols()) != (dim, dim) or given * self.value != self.form:
            raise InputError(
                "given_response",
                got="a matrix A with A V ≠ W",
                expected=f"a ({dim}, {dim}) matrix with A V = W",
                fix="leave it out, or use Instance.of(score=…, response=…), which computes V",
            )
        if self.weights.scale_squared != 1:
            raise InputError(
                "given_response",
                got=f"a response beside scale² = {self.weights.scale_squared}",
                expected="weights with scale 1",
                fix="leave it out: A = W V⁻¹ is computed",
            )

    def _check_eigenvector(self) -> None:
        if (self.ell is None) != (self.rate is None):
            raise InputError(
                "ell", got="only one of ell and rate", expected="both or neither", fix="pass both or neither"
            )
        if self.ell is not None and (self.ell.nrows(), self.ell.ncols()) != (self.weights.dim, 1):
            raise InputError(
                "ell",
                got=f"shape ({self.ell.nrows()}, {self.ell.ncols()})",
                expected=f"({self.weights.dim}, 1), one entry per coordinate",
                fix="match it to the weights' dimension",
            )

    @property
    def form(self) -> fmpq_mat:
        return self.weights.form

    @property
    def value(self) -> fmpq_mat:
        return self.weights.value

    @property
    def has_response(self) -> bool:
        return self.given_response is not None or self.weights.response_exists

    @cached_property
    def response(self) -> fmpq_mat:
        return self.weights.response_form if self.given_response is None else self.given_response


def orientation(matrix: fmpq_mat) -> int:
    """σ: the sign of a definite matrix's symmetric part; of its trace where it is not definite."""
    return 1 if sum((matrix[i, i] for i in range(matrix.nrows())), fmpq(0)) >= 0 else -1


def _response_sign(instance: Instance) -> int | arb:
    return orientation(instance.response) if instance.has_response else arb.nan()


def _pencil(instance: Instance) -> arb:
    if not instance.has_response:
        return arb.nan()
    metric = symmetric_part(instance.response) * orientation(instance.response)
    if not positive_definite(metric).holds:
        return arb.nan()
    return pencil_minimum(symmetric_part(instance.form), metric)


def _extreme(instance: Instance, sign: int) -> arb:
    """The smallest of sign·Re λ over the eigenvalues of V."""
    smallest = None
    for value in eigenvalues(instance.value):
        real = sign * value.real
        smallest = real if smallest is None else smallest.min(real)
    assert smallest is not None
    return smallest


def _spectral_norm(instance: Instance) -> arb:
    gram = instance.value.transpose() * instance.value
    return (-pencil_minimum(-gram, identity(gram.nrows()))).nonnegative_part().sqrt()


def _unstable_count(instance: Instance) -> arb:
    """How many eigenvalues of V have positive real part; NaN if the balls cannot tell."""
    reals = [value.real for value in eigenvalues(instance.value)]
    return arb(sum(1 for x in reals if x > 0)) if all(x > 0 or x < 0 for x in reals) else arb.nan()


def _positive_count(instance: Instance) -> arb:
    found = inertia(symmetric_part(instance.response)) if instance.has_response else None
    return arb(found[0].positive) if found else arb.nan()


def _outward(instance: Instance) -> arb:
    if not instance.has_response:
        return arb.nan()
    return _extreme(instance, orientation(instance.response) * orientation(instance.form))


CONSTANTS: dict[Symbol, Callable[[Instance], arb | int | fmpq]] = {
    notation.kappa: lambda instance: (arb(instance.tokens.nrows() - 1) / arb.const_e()).lambertw(),
    notation.sigma: _response_sign,
    notation.omega: lambda instance: orientation(instance.form),
    notation.lam: _pencil,
    notation.rate: lambda instance: arb.nan() if instance.rate is None else instance.rate,
    notation.norm_V: _spectral_norm,
    notation.abscissa: lambda instance: -_extreme(instance, -1),
    notation.outward: _outward,
    notation.unstable_V: _unstable_count,
    notation.unstable_A: _positive_count,
    notation.unit: lambda instance: 1,
}
"""Numbers that claims name, each computed from an instance; NaN where a constant is undefined."""


@dataclass
class Values:
    """Balls around the named quantities of one instance, computed when first asked for."""

    instance: Instance
    system: ExplicitSystem
    scale: dict[Symbol, fmpq] = field(default_factory=dict)
    known: dict[Symbol, arb] = field(default_factory=dict)
    cache: dict[Expr, arb] = field(default_factory=dict)

    @classmethod
    def at(cls, instance: Instance, scale: dict[Symbol, fmpq] | None = None) -> "Values":
        """`scale` multiplies named constants: how planted false variants change a statement."""
        if instance.tokens is None:
            raise InputError(
                "tokens", got="none", expected="an (n, d) matrix", fix="give the instance tokens"
            )
        values = cls(instance, explicit_system(instance.tokens.nrows(), instance.weights.dim), scale or {})
        response = instance.response if instance.has_response else None
        with ctx.workprec(PRECISION):
            factor = instance.weights.scale if instance.weights.scale_squared != 1 else arb(1)
            given = (
                (values.system.X, instance.tokens, arb(1)),
                (values.system.W, instance.form, factor),
                (values.system.V, instance.value, arb(1)),
                (values.system.ell, instance.ell, arb(1)),
                (values.system.A, response, factor),
            )
            for symbols, matrix, unit in given:
                entries = [arb.nan()] * len(symbols) if matrix is None else matrix.entries()
                values.known.update(zip(symbols, (arb(q) * unit for q in entries), strict=True))
        return values

    def __getitem__(self, symbol: Symbol) -> arb:
        if symbol not in self.known:
            self.known[symbol] = self._compute(symbol)
        return self.known[symbol]

    def _compute(self, symbol: Symbol) -> arb:
        if symbol in self.system.definitions:
            return self.enclose(self.system.definitions[symbol])
        return arb(CONSTANTS[symbol](self.instance)) * arb(self.scale.get(symbol, fmpq(1)))

    def enclose(self, expression: Expr) -> arb:
        with ctx.workprec(PRECISION):
            return enclose(expression, self, self.cache)  # type: ignore[arg-type]
