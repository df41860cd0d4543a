"""The profile C* of the collapse (T9) and its linearisation (T9b), in exact arithmetic."""

from flint import arb, fmpq, fmpq_mat, fmpq_poly

from theory.definiteness import EXACT_SIZE
from theory.eigenpairs import eigenvalues, hurwitz
from theory.errors import InputError
from theory.instance import Instance
from theory.verdict import Grade, Verdict, fails, holds, undecided


def has_profile(instance: Instance) -> bool:
    """Whether A and W⁻¹ exist."""
    return instance.has_response and instance.form.rank() == instance.weights.dim


def profile(instance: Instance) -> fmpq_mat:
    """C* = ½ W⁻¹(−A)W⁻ᵀ, (d, d), in units of 1/scale of the weights. InputError unless `has_profile`."""
    if not has_profile(instance):
        raise InputError(
            "instance", got="a singular V or W", expected="invertible ones", fix="ask has_profile first"
        )
    inverse = instance.form.inv()
    return inverse * instance.response * inverse.transpose() * fmpq(-1, 2)


def profile_size(instance: Instance) -> arb:
    """tr(−AC*), a number without units; NaN without a profile."""
    return -arb(_trace(instance.response * profile(instance))) if has_profile(instance) else arb.nan()


def linearisation(instance: Instance) -> fmpq_mat:
    """The matrix of L: H ↦ −(VHWᵀC* + (VHWᵀC*)ᵀ) on symmetric H, square of size d(d+1)/2.

    The basis is e_ae_bᵀ + e_be_aᵀ (e_ae_aᵀ for a = b), a ≤ b in lexicographic order. InputError unless
    `has_profile`.
    """
    size, right = instance.weights.dim, instance.form.transpose() * profile(instance)
    pairs = [(a, b) for a in range(size) for b in range(a, size)]
    columns = []
    for a, b in pairs:
        direction = fmpq_mat(size, size)
        direction[a, b] = direction[b, a] = fmpq(1)
        half = instance.value * direction * right
        columns.append([-(half[r, c] + half[c, r]) for r, c in pairs])
    return fmpq_mat(columns).transpose()


def profile_decay(instance: Instance) -> arb:
    """The smallest real part of the spectrum of L as a ball; NaN without a profile; small d only."""
    if not has_profile(instance):
        return arb.nan()
    smallest, *rest = (value.real for value in eigenvalues(linearisation(instance)))
    for real in rest:
        smallest = smallest.min(real)
    return smallest


def profile_is_stable(instance: Instance) -> Verdict:
    """Does the spectrum of L lie in the open right half-plane (T9b)? Decided for d ≤ 6.

    HOLDS by a Lyapunov matrix, FAILS by an enclosed eigenvalue to the left or by the characteristic
    polynomial, also for one on the imaginary axis. UNDECIDED in larger dimensions and without a profile.
    """
    size = instance.weights.dim
    if size * (size + 1) // 2 > EXACT_SIZE:
        return undecided(f"the profile's spectrum is decided for d ≤ 6 only, here d = {size}")
    if not has_profile(instance):
        return undecided("V or W is singular, so C* is not defined")
    matrix = linearisation(instance)
    if _meets_the_axis(matrix):
        return fails(Grade.EXACT, "L has an eigenvalue on the imaginary axis", "≤ 0")
    verdict = hurwitz(-matrix)
    if verdict.holds:
        return holds(verdict.grade, f"−L is Hurwitz: {verdict.reason}", verdict.margin)
    return fails(verdict.grade, f"−L: {verdict.reason}", verdict.margin) if verdict.fails else verdict


def _meets_the_axis(matrix: fmpq_mat) -> bool:
    """Is some eigenvalue iω? Its characteristic polynomial is E(x²) + xO(x²), so −ω² is a root of both."""
    coefficients = list(matrix.charpoly())
    even, odd = fmpq_poly(coefficients[::2]), fmpq_poly(coefficients[1::2])
    roots = [root for root, _ in even.gcd(odd).numer().complex_roots()]
    return any(root.imag == 0 and root.real <= 0 for root in roots)


def _trace(matrix: fmpq_mat) -> fmpq:
    return sum((matrix[i, i] for i in range(matrix.nrows())), fmpq(0))
