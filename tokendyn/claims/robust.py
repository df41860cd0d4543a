"""Facts that need a search or a statement of the registry: slower than `invariants`, tried last."""

from collections.abc import Iterator
from dataclasses import replace

from flint import fmpq_mat

from theory.definiteness import positive_definite
from theory.eigenpairs import unstable
from theory.errors import InputError as TheoryError
from theory.instance import Instance
from theory.layer import Head, Layer
from theory.registry import statement
from theory.verdict import Grade, Verdict, every, undecided
from theory.weights import Weights, symmetric_part
from tokendyn.certify import Result, certify
from tokendyn.claims.invariants import everyone
from tokendyn.claims.laws import Fact, shown
from tokendyn.claims.system import ExactSystem, hypotheses

TO_ZERO = ("T2", "T5", "T14", "T14d", "T15")
OUTWARD = ("T3", "T5", "T15")
"""Statements that conclude X(t) → 0 (A ≺ 0 where they leave that open), or max|x_i| → ∞ (A ≻ 0)."""
FOUND: dict[str, Result] = {}
"""Certificates by kind and layer, as their search takes a second; emptied when it has grown."""


def robust_facts(system: ExactSystem) -> Iterator[Fact]:
    """From statements of the registry, then from T11's certificates; for flows with rational weights."""
    instance = system.instance()
    if instance is None or system.h is not None:
        return
    yield from from_the_registry(system, instance)
    yield from from_certificates(system, instance)


def from_the_registry(system: ExactSystem, instance: Instance) -> Iterator[Fact]:
    """X → 0 by T2, T5, T14, T14d, T15; an unbounded norm by T3, T5, T15; almost no start converges by T6b.

    T6b is taken where all starts near this one satisfy the hypotheses: of some of them it then speaks.
    """
    tokens = everyone(system)
    signs = {name: _sign(instance, sign) for name, sign in (("in", -1), ("out", 1))}
    for names, way in ((TO_ZERO, "in"), (OUTWARD, "out")):
        for name in names:
            applies = statement(name).applies(instance)
            verdict = every([applies, signs[way]]) if name in ("T5", "T15") else applies
            if verdict.holds and way == "in":
                yield Fact("upper", tokens, verdict.grade, f"{name}: X(t) → 0", vanishing=True, generic=True)
            elif verdict.holds and any(map(any, system.x0)):
                reason = f"{name}: the largest norm is unbounded"
                yield Fact("lower", tokens, verdict.grade, reason, some=True, escaping=True, generic=True)
    near = hypotheses(system.again(nearby=True))
    verdict = every([statement("T6b").applies(instance), unstable(instance.value_sum), near])
    if verdict.holds:
        reason = "T6b: V has an eigenvalue with positive real part, so X(t) → 0 from almost no start near"
        yield Fact("lower", tokens, verdict.grade, reason, some=True, restless=True, generic=True)


def _sign(instance: Instance, sign: int) -> Verdict:
    """Whether sign·A_s ≻ 0, by congruence sign·(VᵀW)_s ≻ 0 (V is invertible wherever A is defined)."""
    return positive_definite(symmetric_part(instance.value.transpose() * instance.form) * sign)


def from_certificates(system: ExactSystem, instance: Instance) -> Iterator[Fact]:
    """T11: a proved certificate says σĖ ≥ 2ηE − K of the largest energy E = max_i ½x_iᵀMx_i.

    divergence: from E(0) > K/(2η) on, E − K/(2η) grows at least like e^{2ηt}. boundedness: E stays below
    max(E(0), K/(2η)).
    """
    layer = _layer(system, instance)
    if layer is None:
        return
    for kind in ("divergence", "boundedness"):
        found = _search(layer, kind)
        if not found.verdict.holds or found.certificate is None or found.bounds is None:
            continue
        metric, rate = found.certificate.metric, found.certificate.rate
        energies = [(fmpq_mat([x]) * metric * fmpq_mat([x]).transpose())[0, 0] / 2 for x in system.x0]
        if kind == "boundedness":
            reason = "T11: a certificate of boundedness is proved for these weights"
            yield Fact("upper", everyone(system), Grade.INTERVAL, reason, generic=True)
        elif any(energy > found.bounds.energy for energy in energies):
            radius = shown(found.bounds.energy, 6)
            reason = f"T11: a certificate of divergence is proved, and the largest energy exceeds {radius}"
            yield Fact("lower", everyone(system), Grade.INTERVAL, reason, rate, some=True, generic=True)


def _layer(system: ExactSystem, instance: Instance) -> Layer | None:
    """The weights as a Layer; None for positions, the sphere and rotary encodings."""
    setting = instance.setting
    if setting.positions or setting.sphere or setting.rotary:
        return None
    bias = instance.parameters.get("bias")
    pairs = zip(instance.head_forms, instance.head_values, strict=True)
    heads = tuple(replace(Head(Weights.of(form, value)), bias=bias) for form, value in pairs)
    return Layer(heads, system.n, setting.causal)


def _search(layer: Layer, kind: str) -> Result:
    key = f"{kind} {layer}"
    if key not in FOUND:
        if len(FOUND) > 200:
            FOUND.clear()
        try:
            FOUND[key] = certify(layer, kind)
        except TheoryError as error:  # no solver installed
            FOUND[key] = Result(kind, undecided(str(error)))
    return FOUND[key]
