"""What proved facts about tokens say of a quantity in the long run, and whether a conclusion fails."""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from flint import arb, fmpq

from theory.verdict import Grade
from tokendyn.claims.claim import Conclusion
from tokendyn.claims.exact import Scalar, rational
from tokendyn.claims.language import Evaluation, Expression, LanguageError, Value, assignments
from tokendyn.claims.system import ExactSystem, State, decide, grade

PIECES = 64  # of the unit circle
FIXED = ("x0", "p", "b")  # what stays while tokens move


@dataclass(frozen=True)
class Fact:
    """A proved statement about `tokens` (from 1), for all times from the start on.

    still: they never move. scaled: X(t) = s(t)X(0), s like e^{rate·t}. lower: |x_i| ≥ c·e^{rate·t}, c > 0,
    for each of them (`some`: for one of them). upper: |x_i| ≤ C·e^{rate·t}, times a power of t if `slow`.
    `vanishing`: they tend to 0. `escaping`: the largest norm is unbounded. `restless`: from almost every
    start near this one X does not tend to 0, and nothing else. levels: ℓ·x_i is constant and `levels` holds
    it over |ℓ|. orbit: x_i = g_i y(t) with matrices `maps`, y like `lower`. `generic`: so it is from a set of
    starts that is not of measure zero.
    Rates are per unit time, or per layer.
    """

    kind: str
    tokens: frozenset[int]
    grade: Grade
    reason: str
    rate: Scalar = fmpq(0)
    some: bool = False
    slow: bool = False
    vanishing: bool = False
    escaping: bool = False
    restless: bool = False
    generic: bool = False
    levels: tuple[Scalar, ...] = ()
    maps: tuple[State, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Law:
    """q = value for ever, or c·e^{lower·t} ≤ q ≤ C·e^{upper·t} (times a power of t if `slow`), q ≥ 0.

    grade: of the comparison by which c > 0.
    """

    value: Scalar | None = None
    lower: Scalar | None = None
    upper: Scalar | None = None
    slow: bool = False
    vanishing: bool = False
    escaping: bool = False
    restless: bool = False
    grade: Grade = Grade.EXACT


# Shapes of expressions


def degree(node: ast.AST) -> Fraction | None:
    """k with q(sX) = s^k q(X) for every s > 0, where the shape of the expression shows it; else None."""
    match node:
        case ast.Subscript(value=ast.Name(id="x")) | ast.Name(id="x" | "X"):
            return Fraction(1)
        case ast.Name(id="Cov"):
            return Fraction(2)
        case ast.Subscript(value=ast.Name(id="m" | "s" | "P" | "dx")) | ast.Name(id="t"):
            return None
        case ast.Constant() | ast.Name():
            return Fraction(0)
        case ast.Subscript(value=inner) | ast.Attribute(value=inner) | ast.UnaryOp(operand=inner):
            return degree(inner)
        case ast.BinOp(left=left, op=op, right=right):
            return _degree_of_pair(degree(left), op, degree(right), right)
        case ast.List(elts=parts):
            return _common(map(degree, parts))
        case ast.Call(func=ast.Name(id=name), args=[ast.GeneratorExp(elt=element)]) if name != "sum":
            return degree(element)
        case ast.Call(func=ast.Name(id="sum"), args=[ast.GeneratorExp(elt=element)]):
            return degree(element)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _degree_of_call(name, [degree(a) for a in arguments])
    return None


def _common(degrees: Any) -> Fraction | None:
    found = set(degrees)
    return found.pop() if len(found) == 1 else None


def _degree_of_pair(
    a: Fraction | None, op: ast.operator, b: Fraction | None, right: ast.expr
) -> Fraction | None:
    if a is None or b is None:
        return None
    match op:
        case ast.Add() | ast.Sub():
            return a if a == b else None
        case ast.Mult() | ast.MatMult():
            return a + b
        case ast.Div():
            return a - b
        case ast.Pow() if (power := _literal(right)) is not None:
            return a * power
    return Fraction(0) if a == b == 0 else None


def _degree_of_call(name: str, degrees: list[Fraction | None]) -> Fraction | None:
    if None in degrees:
        return None
    known = [d for d in degrees if d is not None]
    if not any(known):
        return Fraction(0)
    if name in ("norm", "abs", "fro", "sym", "skew", "trace", "eigmin", "eigmax", "abscissa", "radius"):
        return known[0]
    if name in ("inner", "outer"):
        return known[0] + known[1]
    if name == "quad":
        return known[0] + 2 * known[1]
    if name in ("sum", "min", "max", "mean", "diag"):
        return _common(known)
    return {"sqrt": known[0] / 2, "unit": Fraction(0), "inv": -known[0]}.get(name)


def _literal(node: ast.AST) -> Fraction | None:
    match node:
        case ast.Constant(value=int() | float() as value, kind=text):
            return Fraction(text or value) if not isinstance(value, bool) else None
        case ast.BinOp(
            left=ast.Constant(value=int() as a), op=ast.Div(), right=ast.Constant(value=int() as b)
        ) if b:
            return Fraction(a, b)
    return None


def is_size(node: ast.AST, atom: Callable[[ast.AST], bool]) -> bool:
    """Whether the expression grows with each norm(v) in it and depends on tokens in no other way."""

    def sized(part: ast.AST) -> bool:
        return is_size(part, atom)

    match node:
        case ast.Constant(value=int() | float() as value):
            return value >= 0
        case ast.Name(id="n" | "e" | "pi"):
            return True
        case ast.Call(func=ast.Name(id="norm"), args=[inner]):
            return atom(inner)
        case ast.Call(func=ast.Name(id="inner"), args=[a, b]) | ast.BinOp(left=a, op=ast.MatMult(), right=b):
            return ast.dump(a) == ast.dump(b) and atom(a)
        case ast.BinOp(left=a, op=ast.Add() | ast.Mult(), right=b):
            return sized(a) and sized(b)
        case ast.BinOp(left=a, op=ast.Pow() | ast.Div(), right=b):
            number = _literal(b)
            return sized(a) and (
                (number is not None and number > 0) or (isinstance(b, ast.Name) and b.id == "n")
            )
        case ast.Call(func=ast.Name(id="max" | "min" | "sum" | "mean" | "sqrt"), args=arguments):
            inner = [a.elt if isinstance(a, ast.GeneratorExp) else a for a in arguments]
            return all(map(sized, inner))
    return False


def _token(node: ast.AST) -> bool:
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "x"


def _combination(node: ast.AST) -> bool:
    """A linear combination of tokens with numbers as coefficients."""
    match node:
        case ast.BinOp(left=a, op=ast.Add() | ast.Sub(), right=b):
            return _combination(a) and _combination(b)
        case ast.BinOp(left=a, op=ast.Mult(), right=b):
            return (_literal(a) is not None and _combination(b)) or (
                _combination(a) and _literal(b) is not None
            )
        case ast.BinOp(left=a, op=ast.Div(), right=b):
            return _combination(a) and _literal(b) is not None
        case ast.UnaryOp(operand=inner):
            return _combination(inner)
    return _token(node)


# Laws


def _side(system: ExactSystem, expression: Expression, at: dict[str, int]) -> tuple[Scalar, frozenset[int]]:
    """A side's value at the start, and the tokens that it may change with."""
    evaluate, everyone = system.at(system.start), range(1, system.n + 1)
    tokens = set(everyone if {"X", "Cov"} & expression.names() else ())

    def noted(name: str, index: tuple[int, ...]) -> Value:
        if name not in FIXED:
            tokens.update(index if name == "x" else everyone)  # attention is of all tokens
        return evaluate.tokens(name, index)

    noting = Evaluation(evaluate.algebra, evaluate.values, noted, system.n)
    return noting(expression, at).data, frozenset(tokens)


def _hides_states(expression: Expression) -> bool:
    """Whether a `for` takes the name of a state for its index: shapes are read by names."""
    bound = (node.target for node in ast.walk(expression.tree) if isinstance(node, ast.comprehension))
    return any(isinstance(target, ast.Name) and target.id in ("x", "X", "Cov") for target in bound)


def laws(system: ExactSystem, conclusion: Conclusion, fact: Fact) -> Iterator[tuple[dict[str, int], Law]]:
    """For each assignment of the free indices, what the fact says of the conclusion's left side."""
    if "t" in conclusion.names() or _hides_states(conclusion.left):
        return
    if fact.some:
        if law := _law_of_some(system, conclusion, fact):
            yield {}, law
        return
    for at in assignments(conclusion.free, system.n):
        try:
            if law := _law(system, conclusion, fact, at):
                yield at, law
        except LanguageError:
            continue


def _law(system: ExactSystem, conclusion: Conclusion, fact: Fact, at: dict[str, int]) -> Law | None:
    left = conclusion.left
    now, used = _side(system, left, at)
    alone = used <= fact.tokens
    if fact.kind == "still":
        return Law(value=now) if alone else None
    shape = degree(left.tree)
    if shape is None:
        return None
    power = rational(shape)

    def at_state(x: State) -> Scalar:
        return system.at(x)(left, at).data

    if fact.kind == "scaled" and alone:
        if decide("==", now, fmpq(0)):
            return Law(value=fmpq(0), grade=grade(now))
        return _above(now, lower=power * fact.rate, upper=power * fact.rate)
    if fact.kind == "levels":
        low = (
            at_state(_along_axis(system, list(fact.levels))) if is_size(left.tree, _combination) else fmpq(0)
        )
        return _above(low, lower=fmpq(0))
    if fact.kind == "orbit":
        low = _least_on_orbit(system, fact, at_state)
        rate = power * fact.rate if power else fmpq(0)
        return _above(low, lower=rate) if low is not None and power >= 0 else None
    if power <= 0 or not is_size(left.tree, _token):
        return None
    if fact.kind == "upper":
        return Law(upper=power * fact.rate, slow=fact.slow, vanishing=fact.vanishing) if alone else None
    chosen = [fmpq(k + 1 in fact.tokens) for k in range(system.n)]
    return _above(at_state(_along_axis(system, chosen)), lower=power * fact.rate)


def _above(least: Scalar, lower: Scalar, upper: Scalar | None = None) -> Law | None:
    """The law with these rates where the constant before the exponential is positive."""
    if not (least > 0 and arb(least).is_finite()):
        return None
    return Law(lower=lower, upper=upper, grade=grade(least))


def _law_of_some(system: ExactSystem, conclusion: Conclusion, fact: Fact) -> Law | None:
    """Of the largest quantity over all indices, where one token is large, whichever it is."""
    left, power, proof = conclusion.left, degree(conclusion.left.tree), Grade.EXACT
    if power is None or power <= 0 or not is_size(left.tree, _token):
        return None
    if conclusion.right is not None and conclusion.right.free:
        return None
    for large in range(system.n):
        evaluate = system.at(_along_axis(system, [fmpq(k == large) for k in range(system.n)]))
        found = [evaluate(left, at).data for at in assignments(left.free, system.n)]
        grades = [grade(value) for value in found if value > 0]
        if not grades:
            return None
        proof = min(proof, max(grades))
    if fact.restless:
        return Law(restless=True, grade=proof)
    return Law(lower=rational(power) * fact.rate, escaping=fact.escaping, grade=proof)


def _along_axis(system: ExactSystem, lengths: list[Any]) -> State:
    return [[length] + [fmpq(0)] * (system.d - 1) for length in lengths]


def _least_on_orbit(system: ExactSystem, fact: Fact, quantity: Callable[[State], Scalar]) -> Scalar | None:
    """A lower bound of q over the orbits of unit vectors (d ≤ 2), in pieces of the circle."""
    if system.d == 1:
        points: list[list[Scalar]] = [[fmpq(1)], [fmpq(-1)]]
    elif system.d == 2:
        width = arb.pi() / PIECES
        angles = [(2 * k + 1) * width + arb(0, 1) * width for k in range(PIECES)]
        points = [[angle.cos(), angle.sin()] for angle in angles]
    else:
        return None
    values = []
    for y in points:
        state = [[sum((a * b for a, b in zip(row, y, strict=True)), fmpq(0)) for row in g] for g in fact.maps]
        values.append(arb(quantity(state)))
        if not values[-1] > 0:
            return None
    return min((value.lower() for value in values), key=float)


# Contradictions


def contradicts(conclusion: Conclusion, law: Law, right: Scalar | None) -> bool:
    """Whether a quantity with this law certainly does not do what the conclusion says."""
    relation = conclusion.relation
    if law.value is not None:
        return _constant_contradicts(conclusion, law.value, right)
    lower, upper = law.lower, law.upper
    grows = lower is not None and (lower > 0 or law.escaping)
    falls = upper is not None and (upper < 0 or law.vanishing)
    stays = lower is not None and lower >= 0
    match conclusion.kind:
        case "limit":
            assert right is not None
            zero = decide("==", right, fmpq(0))
            return (
                grows
                or ((stays or law.restless) and zero is True)
                or (falls and zero is False)
                or (lower is not None and right < 0)
            )
        case "unbounded":
            return falls or (upper is not None and upper <= 0 and not law.slow)
        case "bounded":
            return grows
        case "eventually":
            assert right is not None
            return (grows and relation in ("<", "<=")) or (falls and relation in (">", ">=") and right > 0)
        case "rate":
            return right is not None and _rate_contradicts(relation, lower, upper, right)
        case "power":
            up = lower is not None and lower > 0
            down = upper is not None and upper < 0
            return (up and relation in ("<", "<=", "==")) or (down and relation in (">", ">=", "=="))
    return False


def _rate_contradicts(relation: str, lower: Scalar | None, upper: Scalar | None, right: Scalar) -> bool:
    above = lower is not None and lower > right, lower is not None and lower >= right
    below = upper is not None and upper < right, upper is not None and upper <= right
    return {"<=": above[0], "<": above[1], ">=": below[0], ">": below[1], "==": above[0] or below[0]}[
        relation
    ]


def _constant_contradicts(conclusion: Conclusion, value: Scalar, right: Scalar | None) -> bool:
    match conclusion.kind:
        case "unbounded":
            return bool(arb(value).is_finite())
        case "trend":
            return conclusion.relation in ("increasing", "decreasing")
        case "limit":
            return right is not None and decide("==", value, right) is False
        case "eventually":
            return right is not None and decide(conclusion.relation, value, right) is False
        case "rate" | "power" if right is not None:
            if value > 0:
                return decide(conclusion.relation, fmpq(0), right) is False
            return value == 0 and conclusion.relation in (">", ">=", "==")
    return False


def refuted_by(
    system: ExactSystem, conclusion: Conclusion, fact: Fact, digits: int = 12
) -> tuple[dict[str, int], str, Grade] | None:
    """Where the fact contradicts the conclusion: the indices, what the quantity does, and how surely."""
    for at, law in laws(system, conclusion, fact):
        right = None
        if conclusion.right is not None:
            # `restless` is about almost every start near this one
            right, used = _side(system.again(nearby=True) if fact.restless else system, conclusion.right, at)
            if used and not (fact.kind == "still" and used <= fact.tokens):
                continue
        values = [value for value in (law.value, law.lower, law.upper, right) if value is not None]
        defined = all(arb(value).is_finite() for value in (law.value, right) if value is not None)
        if defined and contradicts(conclusion, law, right):
            return at, _says(conclusion, law, digits), min(fact.grade, law.grade, grade(*values))
    return None


def _says(conclusion: Conclusion, law: Law, digits: int) -> str:
    name = conclusion.left.text
    if law.value is not None:
        return f"{name} = {shown(law.value, digits)} for ever"
    if law.escaping:
        return f"{name} is unbounded, for some indices"
    if law.restless:
        return f"from almost every start near this one {name} does not tend to 0, for some indices"
    if law.vanishing:
        return f"{name} tends to 0"
    parts = []
    if law.lower is not None:
        parts.append(f"at least c·exp({shown(law.lower, digits)}·t), c > 0")
    if law.upper is not None:
        parts.append(
            f"at most C·exp({shown(law.upper, digits)}·t)" + (" times a power of t" if law.slow else "")
        )
    return f"{name} is {' and '.join(parts)}"


def shown(value: Scalar, digits: int = 12) -> str:
    """A rational as it is if short, else its decimals; a ball's certain digits."""
    if isinstance(value, fmpq):
        text = str(value)
        return text if len(text) <= 24 else arb(value).str(digits, radius=False)
    return value.str(digits, radius=False)
