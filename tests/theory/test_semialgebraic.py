"""Signs of polynomials: certificates, simplification, branches and points, each against exact evaluation."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from flint import Ordering, fmpq, fmpq_mpoly_ctx
from hypothesis import given, settings
from hypothesis import strategies as st
from sympy import Abs, Eq, Rational, S, Symbol, cos, exp, lambdify, pi, sin, sqrt, tan, true

from theory.eigenpairs import hurwitz as decide_hurwitz
from theory.eigenpairs import positive_eigenvalue as decide_positive_eigenvalue
from theory.errors import InputError
from theory.expressions import parse_relations
from theory.semialgebraic import positivity
from theory.semialgebraic.angles import Bound, ball, bound_on, compare, quadrants, rational_cosines
from theory.semialgebraic.branches import Branch, branches
from theory.semialgebraic.generators import Generators
from theory.semialgebraic.points import find_points, simplest
from theory.semialgebraic.positivity import (
    NONNEGATIVE,
    NONZERO,
    POSITIVE,
    ZERO,
    Certificate,
    Sign,
    combination,
    contradiction,
)
from theory.semialgebraic.readable import relation
from theory.semialgebraic.simplify import Known, normal_form, simplified
from theory.semialgebraic.spectra import (
    determinant_and_adjugate,
    hurwitz,
    multiply,
    positive_definite,
    positive_eigenvalue,
    scale,
    twice_symmetric,
)
from theory.weights import rational_matrix

CONTEXT = fmpq_mpoly_ctx.get(["x", "y", "z"], Ordering.degrevlex)
x, y, z = CONTEXT.gens()
ONE = CONTEXT.constant(1)
a, b, theta = (Symbol(name, real=True) for name in ("a", "b", "theta"))
MONOMIALS = [m for m in product(range(3), repeat=3) if sum(m) <= 2]
POLYNOMIALS = st.dictionaries(st.sampled_from(MONOMIALS), st.integers(-3, 3), min_size=1, max_size=4).map(
    CONTEXT.from_dict
)
RELATIONS = st.sampled_from([POSITIVE, NONNEGATIVE, NONZERO, ZERO])
SIGNS = st.builds(Sign, POLYNOMIALS, RELATIONS)
GRID = list(product([fmpq(k, 2) for k in range(-4, 5)], repeat=3))


def value(poly, point):
    return sum((c * _power(point, m) for m, c in poly.to_dict().items()), fmpq(0))


def _power(point, exponents):
    result = fmpq(1)
    for entry, exponent in zip(point, exponents, strict=True):
        result *= entry ** int(exponent)
    return result


def true_at(sign, point):
    number = value(sign.poly, point)
    return {POSITIVE: number > 0, NONNEGATIVE: number >= 0, NONZERO: number != 0, ZERO: number == 0}[
        sign.relation
    ]


def all_at(signs, point):
    return all(true_at(sign, point) for sign in signs)


def same(poly):
    return poly


# Certificates


CONTRADICTIONS = [
    [Sign(x, POSITIVE), Sign(x * y - z**2, POSITIVE), Sign(-y, NONNEGATIVE)],
    [Sign(x, POSITIVE), Sign(-x - y**2, NONNEGATIVE)],
    [Sign(x + y + z, POSITIVE), Sign(2 * x - y - z, POSITIVE), Sign(-x, NONNEGATIVE)],
    [Sign(-(x**2) + x * y - y**2 - 1, NONNEGATIVE)],
    [Sign(x**2 + y**2, ZERO), Sign(x, NONZERO)],
    [Sign(y + z - 2 * x, POSITIVE), Sign(x * y + y * z + z * x - x**2 - y**2 - z**2, NONNEGATIVE)],
    [Sign(ONE * 0, POSITIVE)],
    [Sign(-ONE, NONNEGATIVE)],
]


@pytest.mark.parametrize("signs", CONTRADICTIONS)
def test_contradictions_are_proved_by_a_sum_that_vanishes(signs):
    certificate = contradiction(signs, same)
    assert certificate is not None
    check(certificate)


def check(certificate, reduce=same):
    total = ONE * 0
    for term in certificate.terms:
        assert term.multiplier > 0
        part = ONE * term.multiplier
        for factor in term.factors:
            part *= factor
        total += part
    assert certificate.total() == total
    assert reduce(total).is_zero()
    assert any(term.strict for term in certificate.terms)


def test_equations_are_used():
    reduce = normal_form([x**2 + y**2 - 1])
    certificate = contradiction([Sign(x - 2, NONNEGATIVE)], reduce)
    check(certificate, reduce)
    assert contradiction([Sign(x - 2, NONNEGATIVE)], same) is None


@pytest.mark.parametrize("signs", [[], [Sign(x, POSITIVE)], [Sign(x * y, POSITIVE), Sign(-x - y, POSITIVE)]])
def test_what_can_hold_is_never_refuted(signs):
    assert contradiction(signs, same) is None


@given(st.lists(SIGNS, min_size=1, max_size=4))
@settings(max_examples=80)
def test_whatever_is_refuted_holds_nowhere(signs):
    certificate = contradiction(signs, same)
    if certificate is not None:
        check(certificate)
        assert not any(all_at(signs, point) for point in GRID)


def test_a_program_too_large_is_not_attempted(monkeypatch):
    monkeypatch.setattr(positivity, "LARGEST_PROGRAM", 1)
    assert contradiction(CONTRADICTIONS[0], same) is None


def test_few_products_and_squares_are_tried_where_they_are_many(monkeypatch):
    monkeypatch.setattr(positivity, "MOST_TERMS", 0)
    assert contradiction(CONTRADICTIONS[0], same) is None
    monkeypatch.setattr(positivity, "MOST_SQUARED", 0)
    assert contradiction(CONTRADICTIONS[3], same) is None


NUMBERS = st.integers(-3, 3).map(fmpq)


@given(st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=1, max_size=5))
@settings(max_examples=100)
def test_combinations_solve_their_equations(columns):
    target = [fmpq(0), fmpq(1)]
    found = combination(columns, target)
    if found is None:
        assert not any(c[0] == 0 and c[1] > 0 for c in columns)
        return
    assert all(q >= 0 for q in found)
    assert [sum((q * c[i] for q, c in zip(found, columns, strict=True)), fmpq(0)) for i in (0, 1)] == target


# Simplification


@given(st.lists(SIGNS, min_size=1, max_size=3), st.lists(SIGNS, max_size=2))
@settings(max_examples=60)
def test_what_is_simplified_is_equivalent_under_what_is_known(signs, given_):
    known = [sign for sign in given_ if sign.relation != ZERO]
    found = simplified(signs, Known(known))
    for point in GRID[::3]:
        if all_at(known, point):
            kept = not isinstance(found, Certificate) and all_at(found, point)
            assert kept == all_at(signs, point)


@pytest.mark.parametrize(
    ("signs", "known", "expected"),
    [
        ([Sign(x * y, POSITIVE), Sign(x * y * z, POSITIVE)], [], [Sign(z, POSITIVE), Sign(x * y, POSITIVE)]),
        ([Sign((x - y) ** 2 * z, POSITIVE)], [], [Sign(z, POSITIVE), Sign(x - y, NONZERO)]),
        ([Sign(x, POSITIVE), Sign(x * z - y**2, POSITIVE), Sign(z, POSITIVE)], [], None),
        ([Sign(-(x**2), NONNEGATIVE)], [], [Sign(x, ZERO)]),
        ([Sign(x**2, NONNEGATIVE)], [], []),
        ([Sign(x * y, ZERO)], [Sign(x, NONZERO)], [Sign(y, ZERO)]),
        ([Sign(x, NONZERO), Sign(x * y, POSITIVE)], [], [Sign(x * y, POSITIVE)]),
        ([Sign(x, NONNEGATIVE)], [Sign(x, NONZERO)], [Sign(x, POSITIVE)]),
        ([Sign(-x * y, NONNEGATIVE)], [Sign(x, POSITIVE)], [Sign(-y, NONNEGATIVE)]),
        ([Sign(x, POSITIVE), Sign(-x, POSITIVE)], [], "empty"),
        ([Sign(ONE, POSITIVE)], [], []),
    ],
)
def test_products_are_split_and_what_follows_is_left_out(signs, known, expected):
    found = simplified(signs, Known(known))
    if expected == "empty":
        assert isinstance(found, Certificate)
    elif expected is None:
        assert len(found) == 2
    else:
        assert [sign.key for sign in found] == [sign.key for sign in expected]


def test_the_circle_is_used_in_both_directions():
    known = Known([], [x**2 + y**2 - 1])
    assert [sign.key for sign in simplified([Sign(1 - y**2, POSITIVE)], known)] == [Sign(x, NONZERO).key]
    assert [sign.key for sign in simplified([Sign(1 - x**2, POSITIVE)], known)] == [Sign(y, NONZERO).key]


@given(POLYNOMIALS, POLYNOMIALS)
@settings(max_examples=50)
def test_normal_forms_agree_on_the_equations(poly, other):
    equation = x * y - z**2
    reduce = normal_form([equation])
    assert reduce(poly + other * equation) == reduce(poly)


def test_many_equations_are_used_one_by_one():
    equations = [x - k * ONE for k in range(12)]
    assert normal_form(equations)(x).is_constant()


# Equations


@given(st.lists(POLYNOMIALS, min_size=1, max_size=2))
@settings(max_examples=60)
def test_branches_cover_the_solutions_and_nothing_else(equations):
    found = branches(equations, [])
    for point in GRID:
        solved = all(value(poly, point) == 0 for poly in equations)
        assert solved == any(within(branch, point) for branch in found), point


def within(branch, point):
    """Is the point described by the branch? Earlier solutions may use what later ones solve for."""
    for solution in branch.solutions:
        bottom = value(solution.denominator, point)
        if bottom == 0 or point[solution.index] * bottom != value(solution.numerator, point):
            return False
    return all(value(p, point) == 0 for p in branch.left) and all(
        value(p, point) != 0 for p in branch.nonzero
    )


def test_factors_that_cannot_vanish_make_no_branch():
    assert branches([x * y], [Sign(x, POSITIVE), Sign(y, NONZERO)]) == []
    (branch,) = branches([x * y], [Sign(x, POSITIVE)])
    assert [solution.index for solution in branch.solutions] == [1]


def test_kept_generators_are_not_solved_for():
    (branch,) = branches([x - y], [], kept={0, 1})
    assert branch == Branch(left=(x - y,))


def test_too_many_branches_are_left_unsolved():
    equations = [(v - 1) * (v - 2) * (v - 3) for v in (x, y, z)]
    (branch,) = branches(equations, [])
    assert branch.left == tuple(equations)


# Points


@given(
    st.fractions(-5, 5, max_denominator=20).map(lambda q: Rational(q.numerator, q.denominator)),
    st.fractions(0, 3, max_denominator=50).map(lambda q: Rational(q.numerator, q.denominator)),
)
def test_the_simplest_rational_lies_between(low, width):
    if width == 0:
        return
    middle = simplest(low, low + width)
    assert low < middle < low + width
    assert not any(
        low < Rational(p, q) < low + width for q in range(1, int(middle.q)) for p in range(-6 * q, 9 * q)
    )


def test_the_simplest_rational_without_bounds():
    assert simplest(None, None) == 1
    assert simplest(Rational(7, 2), None) == 4
    assert simplest(None, Rational(-7, 2)) == -4
    assert simplest(None, S.Zero) == -1


def points_of(conditions, assumptions=""):
    """Points of a conjunction, by its branches."""
    assumed, relations = parse_relations("where", assumptions), parse_relations("where", conditions)
    generators = Generators([side for r in relations for side in r.args], assumed)
    signs = [generators.sign(r) for r in relations]
    equations = [*generators.equations, *(s.poly for s in signs if s.relation == ZERO)]
    rest = [*generators.facts, *(s for s in signs if s.relation != ZERO)]
    for branch in branches(equations, rest, generators.fixed):
        yield from find_points(generators, branch, [*branch.at(rest), *branch.divisors()])


@pytest.mark.parametrize(
    ("conditions", "assumptions", "point"),
    [
        ("a > 0, a*b < 0", "", {"a": 1, "b": -1}),
        ("a > 41/10, a < 42/10", "", {"a": Rational(25, 6)}),
        ("a**2 = 2, a > 0", "", {"a": sqrt(2)}),
        ("a**3 = a + 1, a*b = 1", "", None),
        ("a**2 + b**2 = 1, a > 1/2, b > 1/2", "", {"a": Rational(4, 5), "b": Rational(3, 5)}),
        ("cos(theta) > 9/10, theta < 1/10", "0 < theta < pi/2", {"theta": Rational(1, 11)}),
        ("cos(theta) = 2*sin(theta)", "0 < theta < pi/2", None),
        ("tan(theta) > 1, a > 0", "pi < theta < 2*pi", None),
        ("exp(a) > 3, a < 2", "", None),
        ("sqrt(a) = 3/2, b > a", "", {"a": Rational(9, 4), "b": 3}),
        ("abs_ > 1", "", {"abs_": 2}),
        ("a*b = c, c > 5, a < 0", "", None),
        ("a >= 1, a <= 1", "", {"a": 1}),
        ("cos(1)*a > 1", "", {"a": 2}),
        ("a > cos(theta)", "6/5 < theta < 5/4", None),
        ("a != 1, a > 0, a <= 1", "", {"a": Rational(1, 2)}),
    ],
)
def test_a_point_is_found_and_satisfies_everything(conditions, assumptions, point):
    found = next(points_of(conditions, assumptions))
    for relation_ in (*parse_relations("w", conditions), *parse_relations("w", assumptions)):
        gap = (relation_.lhs - relation_.rhs).xreplace(found)
        number = complex(gap.evalf(30))
        assert abs(number.imag) < 1e-20
        assert relation_.func(round(number.real, 15), 0) == true, (relation_, found)
    if point is not None:
        assert {symbol.name: value_ for symbol, value_ in found.items()} == point


@pytest.mark.parametrize(
    "conditions", ["a > 0, a < 0", "a*b = 1, a*b = 2", "a**2 + b**2 = 3/10, a > 1, b > 1"]
)
def test_no_point_is_invented(conditions):
    assert next(points_of(conditions), None) is None


# Angles and generators


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("theta < pi/2", (theta, pi / 2, True, True)),
        ("2*theta >= 1", (theta, Rational(1, 2), False, False)),
        ("3 > -theta", (theta, S(-3), True, False)),
        ("theta**2 < 1", None),
        ("theta < a", None),
        ("theta = 1", None),
    ],
)
def test_bounds_on_one_symbol(text, expected):
    (found,) = parse_relations("where", text)
    assert bound_on(found) == expected


def test_bounds_are_narrowed_and_contain_their_ends_where_they_may():
    bound = Bound().narrowed(S.Zero, True, False).narrowed(-pi, False, False).narrowed(pi, False, True)
    bound = bound.narrowed(4 * pi, True, True)
    assert bound == Bound(S.Zero, True, pi, False)
    assert bound.contains(pi)
    assert not bound.contains(S.Zero)
    assert Bound().contains(S(7))


@given(
    st.integers(-8, 8),
    st.integers(1, 8),
    st.booleans(),
    st.booleans(),
    st.floats(0.01, 0.99, allow_nan=False),
)
@settings(max_examples=25)
def test_signs_fixed_by_a_bound_hold_within_it(low, width, low_strict, high_strict, part):
    bound = Bound(low * pi / 4, low_strict, (low + width) * pi / 4, high_strict)
    angle = float(low + width * part) * np.pi / 4
    found = list(quadrants(bound))
    for k, name, sign, _strict in found:
        assert sign * getattr(np, name)(k * angle) > -1e-12
    if width <= 1:
        assert found
    for end, strict in ((low, low_strict), (low + width, high_strict)):
        for k, name, sign, is_strict in found:
            attained = sign * {"sin": sin, "cos": cos}[name](k * end * pi / 4)
            assert compare(attained, S.Zero) in (0, 1)
            assert not (is_strict and compare(attained, S.Zero) == 0 and not strict)


def test_cosines_are_rational_points_of_the_circle():
    for cosine in rational_cosines():
        assert sqrt(1 - cosine**2).is_Rational


def test_balls_contain_trigonometric_numbers():
    for number in (cos(1) + sin(2) * tan(Rational(1, 3)), pi**2 - sin(cos(1)), exp(1) + pi):
        enclosed = ball(number)
        assert abs(float(enclosed.mid()) - float(number)) < 1e-12
        assert float(enclosed.rad()) < 1e-30
    assert compare(pi, Rational(22, 7)) == -1
    assert compare(cos(1) ** 2 + sin(1) ** 2, S.One) is None


EXPRESSIONS = [
    a * b / (1 + a**2),
    cos(theta) ** 2 - sin(2 * theta) * a,
    cos(theta / 2) + sin(3 * theta / 2) / (2 + b**2),
    tan(theta) + 1 / (a**2 + 1),
    cos(theta + a) * sin(theta - pi / 4),
    cos(theta + pi / 7),
    sqrt(1 + a**2) * b,
    (1 + b**2) ** Rational(2, 3) / sqrt(3),
    exp(a) * b + pi,
    Abs(a) - a,
    cos(a * b) + sin(1),
    sqrt(cos(theta) ** 2 + 1),
]


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=str)
def test_an_expression_is_what_its_fraction_says(expression):
    generators = Generators([expression])
    top, bottom = (generators.expression(p) for p in generators.fraction(expression))
    symbols = [a, b, theta]
    for values in ((0.7, -1.3, 0.4), (-0.2, 2.1, 1.1)):
        got, expected = (lambdify(symbols, e)(*values) for e in (top / bottom, expression))
        assert got == pytest.approx(expected, rel=1e-12)
        for equation in generators.equations:
            assert lambdify(symbols, generators.expression(equation))(*values) == pytest.approx(0, abs=1e-12)
        for fact in generators.facts:
            assert lambdify(symbols, generators.expression(fact.poly))(*values) > -1e-12


def test_domains_are_stated():
    generators = Generators([1 / a + sqrt(b), tan(theta)])
    assert {str(r) for r in generators.domain} == {"Ne(a, 0)", "b >= 0", "Ne(cos(theta), 0)"}


def test_an_entry_defined_nowhere_is_refused():
    with pytest.raises(InputError, match="defined for no values"):
        Generators([sqrt(-(a**2) - 1)])


def test_multiples_too_different_are_refused():
    with pytest.raises(InputError, match="angle"):
        Generators([cos(theta) + cos(1000 * theta)])


# Matrices


def constant(rows):
    return [[CONTEXT.constant(entry) for entry in row] for row in rows]


def holds(polys):
    return all(value(poly, (0, 0, 0)) > 0 for poly in polys)


MATRICES = st.integers(1, 4).flatmap(
    lambda d: st.lists(st.lists(st.integers(-2, 2), min_size=d, max_size=d), min_size=d, max_size=d)
)
IDENTITY = {d: constant([[int(i == j) for j in range(d)] for i in range(d)]) for d in range(1, 5)}


@given(MATRICES)
@settings(max_examples=100)
def test_conditions_on_matrices_agree_with_the_exact_deciders(rows):
    matrix, exact, one = constant(rows), rational_matrix("m", rows), IDENTITY[len(rows)]
    least = np.linalg.eigvalsh(np.array(rows) + np.array(rows).T)[0]
    if abs(least) > 1e-9:
        assert holds(positive_definite(twice_symmetric(matrix), same)) == (least > 0)
    decided = decide_hurwitz(exact)
    if decided.holds or decided.fails:
        assert holds(hurwitz(one, matrix, same)) == decided.holds
    cases = positive_eigenvalue(one, matrix, same)
    if cases is not None:
        found = any(all_at(case, (0, 0, 0)) for case in cases)
        assert found == decide_positive_eigenvalue(exact).holds


@given(MATRICES)
@settings(max_examples=50)
def test_the_adjugate_inverts(rows):
    matrix = constant(rows)
    determinant, adjugate = determinant_and_adjugate(matrix, same)
    assert multiply(matrix, adjugate) == scale(IDENTITY[len(rows)], determinant)
    assert float(value(determinant, (0, 0, 0))) == pytest.approx(np.linalg.det(np.array(rows)), abs=1e-9)


def test_the_generalised_spectrum_has_a_leading_coefficient_of_any_sign():
    """V = A⁻¹W: its signs do not change with that of A."""
    for sign in (1, -1):
        left, right = constant([[sign, 0], [0, sign]]), constant([[-sign, 0], [0, -2 * sign]])
        assert holds(hurwitz(left, right, same))
        cases = positive_eigenvalue(left, scale(right, -1), same)
        assert any(all_at(case, (0, 0, 0)) for case in cases)


# Readable relations


@given(SIGNS)
@settings(max_examples=100)
def test_relations_say_what_the_signs_say(sign):
    generators = Generators([Symbol(name, real=True) for name in "xyz"])
    poly = generators.context.from_dict(dict(sign.poly.to_dict()))
    shown = relation(generators, Sign(poly, sign.relation))
    for point in GRID[::41]:
        values = {s: Rational(int(q.p), int(q.q)) for s, q in zip(generators.symbols, point, strict=True)}
        assert (shown.xreplace(values) == true) == true_at(sign, point)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a*d - b**2 > 0", "a*d > b**2"),
        ("-a > 0", "a < 0"),
        ("2*a - 1 > 0", "a > 1/2"),
        ("-a - b > 0", "a + b < 0"),
        ("4*a*d - (b + c)**2 > 0", "4*a*d > (b + c)**2"),
        ("(a - b)*c < 0", "c*(a - b) < 0"),
        ("2*cos(theta)**2 - 1 > 0", "cos(2*theta) > 0"),
        ("1 - 2*sin(theta) >= 0", "sin(theta) <= 1/2"),
        ("a**2*b > 0", "a**2*b > 0"),
        ("2*cos(theta)**2 - 1 + a - b > 0", "a + cos(2*theta) > b"),
    ],
)
def test_relations_read_well(text, shown):
    (given_,) = parse_relations("where", text)
    generators = Generators([given_.lhs])
    assert str(relation(generators, generators.sign(given_))) == shown


def test_equalities_read_well():
    generators = Generators([a, b])
    assert relation(generators, generators.sign(Eq(a * b - a**2, 0))) == Eq(a * (a - b), 0)
    assert Fraction(1, 2) == Fraction("0.5")
