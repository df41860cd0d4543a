"""The quantities and constants that claims name, enclosed in Arb balls at one rational instance."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import reduce

from flint import acb_mat, arb, ctx, fmpq, fmpq_mat
from sympy import Expr, Symbol

from theory import notation
from theory.definiteness import inertia, positive_definite
from theory.eigenpairs import ball_eigenvalues, eigenvalues, pencil_minimum
from theory.enclosure import PRECISION, enclose
from theory.errors import InputError
from theory.instance import Instance
from theory.profile import profile_decay, profile_size
from theory.system import ExplicitSystem, explicit_system
from theory.weights import identity, symmetric_part


def orientation(matrix: fmpq_mat) -> int:
    """σ: the sign of a definite matrix's symmetric part; of its trace where it is not definite."""
    return 1 if sum((matrix[i, i] for i in range(matrix.nrows())), fmpq(0)) >= 0 else -1


def _response_sign(instance: Instance) -> int | arb:
    return orientation(instance.response) if instance.has_response else arb.nan()


def _metric(instance: Instance) -> fmpq_mat | None:
    """σA_s, or None where that is not positive definite."""
    if not instance.has_response:
        return None
    metric = symmetric_part(instance.response) * orientation(instance.response)
    return metric if positive_definite(metric).holds else None


def _pencil(instance: Instance) -> arb:
    """λ of (W_s, σA_s), of (W_s + c_2 W_{2,s}, σA_s) with a second head."""
    metric, second = _metric(instance), instance.number("coefficient")
    if metric is None:
        return arb.nan()
    heads = instance.head_forms
    form = instance.form if second is None or len(heads) == 1 else instance.form + heads[1] * second
    return pencil_minimum(symmetric_part(form), metric)


def _gain(instance: Instance) -> arb:
    metric = _metric(instance)
    if metric is None:
        return arb.nan()
    stretched = instance.value.transpose() * metric * instance.value
    return (-pencil_minimum(-stretched, metric)).nonnegative_part()


def skewness(matrix: fmpq_mat) -> arb:
    """τ_M, the spectral norm of |M_s|^{-1/2} M_a |M_s|^{-1/2}; NaN unless M_s is definite."""
    metric = symmetric_part(matrix) * orientation(matrix)
    if not positive_definite(metric).holds:
        return arb.nan()
    skew = matrix - symmetric_part(matrix)
    if not any(skew.entries()):
        return arb(0)
    similar = eigenvalues(metric.solve(skew))  # purely imaginary, in conjugate pairs
    return reduce(arb.max, (value.imag for value in similar), arb(0))


def _encoded_attention(instance: Instance) -> acb_mat | None:
    """P⁰ = softmax(p_iᵀWp_j), attention at X = 0 under an absolute encoding; None without one."""
    if "positions" not in instance.parameters:
        return None
    positions = instance.parameters["positions"]
    scores = (positions * instance.form * positions.transpose()).tolist()
    weights = [[(arb(s) * instance.weights.scale).exp() for s in row] for row in scores]
    return acb_mat([[weight / sum(row, arb(0)) for weight in row] for row in weights])


def _kronecker(left: acb_mat, right: acb_mat) -> acb_mat:
    rows = [[p * q for p in row for q in line] for row in left.tolist() for line in right.tolist()]
    return acb_mat(rows)


def _floor(instance: Instance) -> arb:
    attention = _encoded_attention(instance)
    return arb.nan() if attention is None else -_largest_real(-attention)


def _rate_at_zero(instance: Instance) -> arb:
    attention = _encoded_attention(instance)
    if attention is None:
        return arb.nan()
    return _largest_real(_kronecker(attention, acb_mat(instance.value)))


def _largest_real(matrix: acb_mat) -> arb:
    return reduce(arb.max, (value.real for value in ball_eigenvalues(matrix)))


def _extreme(instance: Instance, sign: int) -> arb:
    """The smallest of sign·Re λ over the eigenvalues of V, summed over the heads."""
    return reduce(arb.min, (sign * value.real for value in eigenvalues(instance.value_sum)))


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


SCALARS = {
    notation.rate: "rate",
    notation.step: "step",
    notation.nu: "multiplier",
    notation.eta: "margin",
    notation.coefficient: "coefficient",
}
"""Symbols of the parameters that are numbers."""

CONSTANTS: dict[Symbol, Callable[[Instance], arb | int | fmpq]] = {
    notation.kappa: lambda instance: (arb(instance.tokens.nrows() - 1) / arb.const_e()).lambertw(),
    notation.sigma: _response_sign,
    notation.omega: lambda instance: orientation(instance.form),
    notation.lam: _pencil,
    **{
        symbol: lambda instance, name=name: (
            instance.number(name) if name in instance.parameters else arb.nan()
        )
        for symbol, name in SCALARS.items()
    },
    notation.norm_V: _spectral_norm,
    notation.profile_size: profile_size,
    notation.profile_decay: profile_decay,
    notation.gain: _gain,
    notation.floor: _floor,
    notation.rate_at_zero: _rate_at_zero,
    notation.tau_W: lambda instance: skewness(instance.form),
    notation.tau_A: lambda instance: skewness(instance.response) if instance.has_response else arb.nan(),
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
        system = explicit_system(instance.tokens.nrows(), instance.weights.dim, instance.setting)
        values = cls(instance, system, scale or {})
        response = instance.response if instance.has_response else None
        with ctx.workprec(PRECISION):
            factor = instance.weights.scale if instance.weights.scale_squared != 1 else arb(1)
            given = [
                (system.X, instance.tokens, arb(1)),
                (system.W, instance.form, factor),
                (system.V, instance.value, arb(1)),
                (system.A, response, factor),
                *((s, instance.parameters.get(name), arb(1)) for name, s in system.parameters.items()),
            ]
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
