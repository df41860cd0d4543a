"""From hypotheses on symbolic weights to a region: derived, simplified, solved, met at a point or refuted."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any

from sympy import And, Eq, Expr, ImmutableDenseMatrix, Or, Symbol, eye, factor, true
from sympy.logic.boolalg import Boolean

from theory import hypotheses
from theory.errors import DerivationError
from theory.instance import Instance
from theory.region import Case, Region, Row, text
from theory.semialgebraic.branches import Branch, branches
from theory.semialgebraic.generators import Generators
from theory.semialgebraic.points import find_points
from theory.semialgebraic.positivity import (
    NONNEGATIVE,
    POSITIVE,
    ZERO,
    Certificate,
    Polynomial,
    Sign,
    primitive,
)
from theory.semialgebraic.problem import Formula, Inputs, Problem
from theory.semialgebraic.readable import polynomial, relation
from theory.semialgebraic.simplify import Known, simplified
from theory.verdict import Grade, Verdict, fails, undecided

MOST_POINTS = 40  # candidates verified before a search is given up
MOST_EQUATIONS = 3  # beyond, inequalities are not simplified by equations before these are solved
LONGER_SOLVED = 4  # operations by which solved conditions may exceed unsolved ones and still be preferred
LONGEST_PROOF = 600  # characters of a proof that is written out


def stages(inputs: Inputs, row: Row) -> Iterator[Region]:
    """The row's region, refined step by step: derived, simplified, solved, met at a point or refuted."""
    problem = Problem(inputs)
    generators = problem.generators
    region = Region(row, (*inputs.where, *generators.domain))
    yield region
    formula = problem.formula(row.hypotheses)
    if formula is None:
        reason = "no closed form: V's characteristic polynomial has an irreducible factor of degree above 3"
        yield replace(region, verdict=undecided(reason))
        return
    if not formula.cases:
        yield replace(region, conditions=(), verdict=fails(Grade.EXACT, formula.never))
        return
    raw = [_relations(generators, case) for case in formula.cases]
    equations = _relations(generators, [Sign(poly, ZERO) for poly in formula.equations])
    region = replace(
        region,
        conditions=(*equations, *_union(raw)),
        verdict=undecided("derived, not simplified"),
    )
    yield region
    yield from _settled(problem, formula, region)


def _settled(problem: Problem, formula: Formula, region: Region) -> Iterator[Region]:
    proofs: list[str] = []
    alive = _alive(problem, formula, proofs)
    if alive:
        region = replace(region, **_simpler(problem, formula, alive))
        yield region
    solved = [part for case in alive for part in _solved(problem, formula.equations, case, proofs)]
    if not solved:
        verdict = _empty(_impossible(problem, region.row) or proofs)
        yield replace(region, conditions=(), branches=(), implied=(), verdict=verdict)
        return
    if formula.equations or any(sign.relation == ZERO for case in alive for sign in case):
        shown = [_shown(problem.generators, branch, signs) for branch, signs, _ in solved]
        region = replace(region, branches=tuple(shown))
        if len(shown) == 1:
            one = (*shown[0].equations, *shown[0].conditions)
            if _length(one) <= _length(region.conditions) + LONGER_SOLVED:
                region = replace(region, conditions=one)
    region = replace(region, verdict=undecided("derived and simplified; no point found"))
    yield region
    for branch, signs, facts in solved:
        for point in islice(find_points(problem.generators, branch, [*facts, *signs]), MOST_POINTS):
            verdict = region.contains(point)
            if verdict.holds:
                recheck(problem.inputs, region.row, point)
                yield replace(region, point=point, verdict=replace(verdict, reason="a point is known"))
                return
    yield replace(region, verdict=undecided("neither a point was found nor a proof that there is none"))


def _impossible(problem: Problem, row: Row) -> list[str]:
    """The proof that one of several hypotheses fails by itself, if there is one."""
    for key in row.hypotheses if len(row.hypotheses) > 1 else ():
        formula = problem.formula((key,))
        if formula is not None and not formula.equations:
            found = simplified(formula.cases[0], problem.known)
            if isinstance(found, Certificate):
                return [f"'{key}' fails for all values: {_certificate(problem.generators, found)}"]
    return []


def _length(conditions: tuple[Boolean, ...]) -> int:
    return sum(condition.count_ops() for condition in conditions)


def _empty(proofs: list[str]) -> Verdict:
    """Every case refuted, each by its proof."""
    distinct = list(dict.fromkeys(proofs))
    joined = "; ".join(distinct)
    short = len(joined) <= LONGEST_PROOF
    return fails(Grade.EXACT, joined if short else f"{len(distinct)} cases, each with an exact certificate")


def _alive(problem: Problem, formula: Formula, proofs: list[str]) -> list[list[Sign]]:
    """The cases simplified, without those that are refuted or lie within another one."""
    found: list[list[Sign]] = []
    for case in formula.cases:
        simpler = simplified(case, problem.known)
        if isinstance(simpler, Certificate):
            proofs.append(_certificate(problem.generators, simpler))
        else:
            found.append(simpler)
    for case in sorted(found, key=len, reverse=True):
        others = [other for other in found if other is not case]
        within = problem.known.beside(case)
        if any(all(within.proves(sign) for sign in other) for other in others):
            found = others
    return found


def _simpler(problem: Problem, formula: Formula, alive: list[list[Sign]]) -> dict[str, Any]:
    """The region's conditions before its equations are solved, what follows, and the complement."""
    generators = problem.generators
    known = problem.known.beside(alive[0] if len(alive) == 1 else [])
    equations = [simpler for poly in formula.equations for simpler in _equation(poly, known)]
    if 0 < len(equations) <= MOST_EQUATIONS and len(alive) == 1:
        polys = [*generators.equations, *(sign.poly for sign in equations)]
        using = simplified(alive[0], Known(generators.facts, polys))
        alive = alive if isinstance(using, Certificate) else [using]
    inequalities = _union([_relations(generators, case) for case in alive])
    implied = simplified(formula.implied, problem.known)
    implied = [] if isinstance(implied, Certificate) else implied
    otherwise = None if formula.otherwise is None else _relations(generators, formula.otherwise)
    return {
        "conditions": (*_relations(generators, equations), *inequalities),
        "implied": _relations(generators, implied),
        "otherwise": otherwise,
        "verdict": undecided("derived and simplified; equations not solved"),
    }


def _equation(poly: Polynomial, known: Known) -> list[Sign]:
    """The equation without factors that cannot vanish."""
    pieces = simplified([Sign(poly, ZERO)], known)
    return [Sign(primitive(poly), ZERO)] if isinstance(pieces, Certificate) else pieces


Solved = tuple[Branch, list[Sign], list[Sign]]


def _solved(
    problem: Problem, equations: list[Polynomial], case: list[Sign], proofs: list[str]
) -> Iterator[Solved]:
    """Branches that are not refuted: solutions, what must hold besides, and the assumptions there."""
    generators = problem.generators
    facts = generators.facts
    equations = [*equations, *(sign.poly for sign in case if sign.relation == ZERO)]
    case = [sign for sign in case if sign.relation != ZERO]
    found = branches([*generators.equations, *equations], [*facts, *case], generators.fixed)
    if not found:
        zero = ", ".join(text(r) for r in _relations(generators, [Sign(poly, ZERO) for poly in equations]))
        proofs.append(f"the equations cannot hold, as no factor of them can vanish: {zero}")
    for branch in found:
        there = branch.at(facts)
        signs = simplified([*branch.at(case), *branch.divisors()], Known(there, branch.left))
        if isinstance(signs, Certificate):
            proofs.append(_certificate(generators, signs))
        else:
            yield branch, signs, there


def _relations(generators: Generators, signs: list[Sign]) -> tuple[Boolean, ...]:
    found = (relation(generators, sign) for sign in signs)
    return tuple(dict.fromkeys(r for r in found if r != true))


def _union(cases: list[tuple[Boolean, ...]]) -> tuple[Boolean, ...]:
    """The disjunction of conjunctions as a tuple of conditions that must all hold."""
    common = tuple(condition for condition in cases[0] if all(condition in case for case in cases))
    union = Or(*(And(*(c for c in case if c not in common)) for case in cases))
    return common if union == true else (*common, union)


def _shown(generators: Generators, branch: Branch, signs: list[Sign]) -> Case:
    """A branch in the user's symbols, every solution in terms of what is free."""
    known = [primitive(poly) for poly in generators.equations]
    later: dict[Expr, Expr] = {}
    equations: list[Boolean] = []
    for solution in reversed(branch.solutions):
        symbol = generators.symbols[solution.index]
        left = generators.meaning.get(symbol, symbol)
        right = generators.expression(solution.numerator) / generators.expression(solution.denominator)
        later[left] = factor(right.xreplace(later))
        equations.insert(0, Eq(left, later[left]))
    equations += _relations(generators, [Sign(p, ZERO) for p in branch.left if primitive(p) not in known])
    return Case(tuple(e for e in equations if e != true), _relations(generators, signs))


def _certificate(generators: Generators, certificate: Certificate) -> str:
    """The contradiction in a form that a reader can check."""
    terms = certificate.terms
    constants = [part for term in terms for part in term.factors]
    if all(part.is_constant() for part in constants):
        return f"a condition reduces to {constants[0]} > 0"
    if len(terms) == 2 and all(len(term.factors) == 1 for term in terms):
        signs = [Sign(term.factors[0], POSITIVE if term.strict else NONNEGATIVE) for term in terms]
        return " contradicts ".join(text(relation(generators, sign)) for sign in signs)
    written = []
    for term in terms:
        parts = [f"({polynomial(generators, part)})" for part in term.factors]
        if len(parts) == 2 and parts[0] == parts[1]:
            parts = [f"{parts[0]}**2"]
        written.append("*".join([str(term.multiplier)] * (term.multiplier != 1 or not parts) + parts))
    modulo = "" if certificate.total().is_zero() else " modulo the equations"
    return f"{' + '.join(written)} = 0{modulo}, where every term would be ≥ 0 and one > 0"


HYPOTHESES = {h.key: h for h in vars(hypotheses).values() if isinstance(h, hypotheses.Hypothesis)}


def recheck(inputs: Inputs, row: Row, point: Mapping[Symbol, Expr]) -> None:
    """Decide the row's hypotheses at a rational point once more, by the deciders of `theory.hypotheses`.

    Raises DerivationError if one fails: the conditions derived here would be wrong.
    """
    matrices = {name: m.xreplace(dict(point)) for name, m in inputs.matrices.items()}
    if not all(entry.is_Rational for m in matrices.values() for entry in m):
        return
    instance = instance_of(matrices)
    keys = {"W negative": "W definite", "positive eigenvalue": "rate positive"}
    for key in row.hypotheses:
        hypothesis = HYPOTHESES.get(keys.get(key, key))
        if hypothesis is not None and hypothesis.decide(instance).fails:
            raise DerivationError(f"{row.name}: '{hypothesis.key}' fails at {dict(point)}")


def instance_of(matrices: Mapping[str, ImmutableDenseMatrix]) -> Instance:
    """Rational matrices as an exact instance; the identity stands in for a matrix that nothing asks for."""
    inputs = Inputs(**matrices)
    value, response, form = inputs.value, inputs.response, inputs.form
    one = eye(next(iter(matrices.values())).cols)
    if response is not None and value is None:
        return Instance.of(score=_fractions(form or response), response=_fractions(response))
    if form is None:
        form = one if response is None else response * value
    return Instance.of(score=_fractions(form), value=_fractions(value))


def _fractions(matrix: ImmutableDenseMatrix) -> list[list[Fraction]]:
    return [[Fraction(int(entry.p), int(entry.q)) for entry in row] for row in matrix.tolist()]
