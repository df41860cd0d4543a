"""The quantities and constants that claims name, enclosed in Arb balls at one rational instance."""

from collections.abc import Callable
from dataclasses import dataclass, field

from flint import arb, ctx, fmpq, fmpq_mat
from sympy import Expr, Symbol

from theory import notation
from theory.definiteness import inertia, positive_definite
from theory.eigenpairs import eigenvalues, pencil_minimum
from theory.enclosure import PRECISION, enclose
from theory.errors import InputError
from theory.instance import Instance
from theory.system import ExplicitSystem, explicit_system
from theory.weights import identity, symmetric_part


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
    smallest, *rest = (sign * value.real for value in eigenvalues(instance.value))
    for real in rest:
        smallest = smallest.min(real)
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
