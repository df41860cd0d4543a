"""Definite, Hurwitz, a positive eigenvalue: conditions on polynomial matrices as signs of polynomials."""

from collections.abc import Sequence

from flint import Ordering, fmpq, fmpq_mpoly_ctx

from theory.semialgebraic.positivity import NONNEGATIVE, POSITIVE, Polynomial, Reduce, Sign

Matrix = list[list[Polynomial]]
LARGEST_FACTORED = 400  # terms of a characteristic polynomial; beyond, minors are taken without factoring it
CLOSED_FORM = 3  # degree up to which a positive root has one here


def transpose(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix, strict=True)]


def add(one: Matrix, other: Matrix, factor: int = 1) -> Matrix:
    return [[a + factor * b for a, b in zip(p, q, strict=True)] for p, q in zip(one, other, strict=True)]


def multiply(one: Matrix, other: Matrix, reduce: Reduce = lambda poly: poly) -> Matrix:
    columns = transpose(other)
    return [[reduce(_dot(row, column)) for column in columns] for row in one]


def _dot(one: Sequence[Polynomial], other: Sequence[Polynomial]) -> Polynomial:
    total = one[0] * other[0]
    for a, b in zip(one[1:], other[1:], strict=True):
        total += a * b
    return total


def scale(matrix: Matrix, factor: Polynomial | int) -> Matrix:
    return [[entry * factor for entry in row] for row in matrix]


def twice_symmetric(matrix: Matrix) -> Matrix:
    """M + Mᵀ."""
    return add(matrix, transpose(matrix))


def kronecker(one: Matrix, other: Matrix) -> Matrix:
    return [[a * b for a in p for b in q] for p in one for q in other]


def determinant_and_adjugate(matrix: Matrix, reduce: Reduce) -> tuple[Polynomial, Matrix]:
    """By Faddeev and LeVerrier, without division by polynomials (Gantmacher, Theory of Matrices, ch. IV)."""
    size, context = len(matrix), matrix[0][0].context()
    one = [[context.constant(int(i == j)) for j in range(size)] for i in range(size)]
    product, coefficient = scale(one, 0), context.constant(1)
    for k in range(1, size + 1):
        adjugate = add(product, scale(one, coefficient))
        product = multiply(matrix, adjugate, reduce)
        trace = product[0][0]
        for i in range(1, size):
            trace = trace + product[i][i]
        coefficient = trace * fmpq(-1, k)
    sign = -1 if size % 2 else 1
    return coefficient * sign, scale(adjugate, -sign)


def determinant(matrix: Matrix, reduce: Reduce) -> Polynomial:
    return determinant_and_adjugate(matrix, reduce)[0]


def eigenfactors(left: Matrix, right: Matrix, reduce: Reduce) -> list[list[Polynomial]]:
    """Distinct irreducible factors of det(λ·left − right), each by its coefficients from λ⁰ up."""
    context = left[0][0].context()
    wider = fmpq_mpoly_ctx.get([*context.names(), "eigenvalue"], Ordering.degrevlex)
    variable = wider.gens()[-1]

    def lifted(poly: Polynomial) -> Polynomial:
        return wider.from_dict({(*m, 0): c for m, c in poly.to_dict().items()})

    def reduced(poly: Polynomial) -> Polynomial:
        powers = _coefficients(poly, context)
        return sum((lifted(reduce(c)) * variable**k for k, c in enumerate(powers)), wider.constant(0))

    pencil = [
        [variable * lifted(a) - lifted(b) for a, b in zip(p, q, strict=True)]
        for p, q in zip(left, right, strict=True)
    ]
    poly = determinant(pencil, reduced)
    factors = [f for f, _ in poly.factor()[1]] if len(poly) <= LARGEST_FACTORED else [poly]
    found = [_coefficients(factor, context) for factor in factors]
    return [coefficients for coefficients in found if len(coefficients) > 1]


def _coefficients(poly: Polynomial, context) -> list[Polynomial]:
    """By powers of the last generator, as polynomials in the others."""
    parts: dict[int, dict] = {}
    for exponents, coefficient in poly.to_dict().items():
        parts.setdefault(int(exponents[-1]), {})[tuple(exponents[:-1])] = coefficient
    return [context.from_dict(parts.get(k, {})) for k in range(max(parts, default=0) + 1)]


def _monic(coefficients: list[Polynomial]) -> list[Polynomial]:
    """Times the leading coefficient: a positive leading one, and the same roots where it is not zero."""
    return [coefficient * coefficients[-1] for coefficient in coefficients]


def positive_definite(symmetric: Matrix, reduce: Reduce) -> list[Polynomial]:
    """Polynomials that are all positive exactly where the symmetric matrix is positive definite.

    Block by block: coefficients of the characteristic polynomial's factors, which are real-rooted (Descartes'
    rule), where it has several; else Sylvester's leading minors.
    """
    return [poly for block in _blocks(symmetric) for poly in _definite_block(block, reduce)]


def _definite_block(block: Matrix, reduce: Reduce) -> list[Polynomial]:
    size = len(block)
    if size == 1:
        return [block[0][0]]
    context = block[0][0].context()
    one = [[context.constant(int(i == j)) for j in range(size)] for i in range(size)]
    factors = eigenfactors(one, block, reduce)
    if [len(factor) for factor in factors] != [size + 1]:
        return [
            coefficient * (-1) ** (len(factor) - 1 - k)
            for factor in map(_monic, factors)
            for k, coefficient in enumerate(factor[:-1])
        ]
    order = sorted(range(size), key=lambda i: len(block[i][i]))
    return [
        determinant([[block[i][j] for j in order[:k]] for i in order[:k]], reduce) for k in range(1, size + 1)
    ]


def _blocks(matrix: Matrix) -> list[Matrix]:
    """The blocks along the diagonal, up to a permutation of the coordinates."""
    left, found = set(range(len(matrix))), []
    while left:
        block, frontier = set(), {min(left)}
        while frontier:
            block |= frontier
            frontier = {j for i in frontier for j in left - block if not matrix[i][j].is_zero()}
        left -= block
        found.append([[matrix[i][j] for j in sorted(block)] for i in sorted(block)])
    return found


def hurwitz(left: Matrix, right: Matrix, reduce: Reduce) -> list[Polynomial]:
    """Polynomials all positive exactly where left⁻¹·right is Hurwitz (left invertible): Routh and Hurwitz."""
    return [poly for factor in eigenfactors(left, right, reduce) for poly in _stable(_monic(factor), reduce)]


def _stable(coefficients: list[Polynomial], reduce: Reduce) -> list[Polynomial]:
    """Hurwitz determinants Δ_1 … Δ_{m−1} and the constant coefficient, for a positive leading one."""
    degree = len(coefficients) - 1
    zero = coefficients[0].context().constant(0)

    def entry(i: int, j: int) -> Polynomial:
        k = degree - 1 - 2 * j + i
        return coefficients[k] if 0 <= k <= degree else zero

    minors = [
        determinant([[entry(i, j) for j in range(k)] for i in range(k)], reduce) for k in range(1, degree)
    ]
    return [coefficients[0], *minors] if degree > 1 else [coefficients[0]]


def positive_eigenvalue(left: Matrix, right: Matrix, reduce: Reduce) -> list[list[Sign]] | None:
    """Cases whose union says that left⁻¹·right has a real eigenvalue > 0; None without a closed form here.

    A factor of degree at most three has a positive root iff its constant coefficient is negative, or all its
    roots are real and an inner coefficient is negative (Descartes' rule).
    """
    cases: list[list[Sign]] = []
    for factor in eigenfactors(left, right, reduce):
        degree = len(factor) - 1
        if degree > CLOSED_FORM:
            return None
        constant, *inner, _ = _monic(factor)
        cases.append([Sign(-constant, POSITIVE)])
        if inner:
            discriminant = Sign(reduce(_discriminant(factor)), NONNEGATIVE)
            cases += [[Sign(-coefficient, POSITIVE), discriminant] for coefficient in inner]
    return cases


def _discriminant(c: list[Polynomial]) -> Polynomial:
    if len(c) == 3:
        return c[1] ** 2 - 4 * c[0] * c[2]
    return (
        18 * c[0] * c[1] * c[2] * c[3]
        - 4 * c[2] ** 3 * c[0]
        + c[2] ** 2 * c[1] ** 2
        - 4 * c[3] * c[1] ** 3
        - 27 * c[3] ** 2 * c[0] ** 2
    )
