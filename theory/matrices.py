"""Matrix identities for every d: non-commutative expansion under stated symmetries."""

from collections.abc import Mapping

from sympy import (
    And,
    Basic,
    Expr,
    ImmutableDenseMatrix,
    Integer,
    Inverse,
    MatAdd,
    MatMul,
    MatrixExpr,
    MatrixSymbol,
    Q,
    Symbol,
    Transpose,
    ZeroMatrix,
    expand,
    refine,
    true,
)


def difference_normal_form(left: MatrixExpr, right: MatrixExpr, assumptions: Basic = true) -> MatrixExpr:
    """left − right, expanded; a 1×1 difference is added to its transpose, which it equals."""
    difference = left - right
    if difference.shape == (1, 1):
        difference = difference + difference.T
    return refine(expand(difference.doit()).doit(), assumptions).doit()


def is_zero(matrix: MatrixExpr) -> bool:
    return isinstance(matrix, ZeroMatrix) or matrix == ZeroMatrix(*matrix.shape)


def directional_derivative(expression: MatrixExpr, velocity: Mapping[MatrixSymbol, MatrixExpr]) -> MatrixExpr:
    """d/dt of a polynomial matrix expression along the given velocities (product rule)."""
    if isinstance(expression, MatrixSymbol):
        return velocity.get(expression, ZeroMatrix(*expression.shape))
    if isinstance(expression, Transpose):
        return directional_derivative(expression.arg, velocity).T
    if isinstance(expression, MatAdd):
        return MatAdd(*(directional_derivative(term, velocity) for term in expression.args)).doit()
    if isinstance(expression, MatMul):
        factors = list(expression.args)
        for factor in factors:
            if not isinstance(factor, MatrixExpr) and factor.atoms(MatrixSymbol) & velocity.keys():
                raise TypeError(f"no product rule for the moving scalar {type(factor).__name__}")
        terms = [
            MatMul(*factors[:at], directional_derivative(factor, velocity), *factors[at + 1 :])
            for at, factor in enumerate(factors)
            if isinstance(factor, MatrixExpr)
        ]
        return MatAdd(*terms).doit()
    if isinstance(expression, Inverse) and not expression.atoms(MatrixSymbol) & velocity.keys():
        return ZeroMatrix(*expression.shape)
    raise TypeError(f"no product rule for {type(expression).__name__}")


def componentwise(
    expression: MatrixExpr, sizes: Mapping[Symbol, int], assumptions: Basic = true
) -> ImmutableDenseMatrix:
    """The matrix expression with explicit entries at the given sizes, symmetric where assumed."""
    symmetric = {p.arg for p in And.make_args(assumptions) if getattr(p, "function", None) == Q.symmetric}
    replacements = {
        symbol: _explicit(symbol, sizes, symbol in symmetric) for symbol in expression.atoms(MatrixSymbol)
    }
    lengths = {symbol: Integer(size) for symbol, size in sizes.items()}
    return _evaluate(expression, replacements, lengths)


def _explicit(symbol: MatrixSymbol, sizes: Mapping[Symbol, int], symmetric: bool) -> ImmutableDenseMatrix:
    rows, columns = (int(length.subs(sizes)) for length in symbol.shape)

    def entry(r: int, c: int) -> Expr:
        return Symbol(
            f"{symbol.name}_{min(r, c)}{max(r, c)}" if symmetric else f"{symbol.name}_{r}{c}", real=True
        )

    return ImmutableDenseMatrix(rows, columns, entry)


def _evaluate(expression: Expr, matrices: Mapping, lengths: Mapping[Symbol, Integer]):
    if isinstance(expression, MatrixSymbol):
        return matrices[expression]
    if isinstance(expression, ZeroMatrix):
        return ImmutableDenseMatrix.zeros(*(int(length.subs(lengths)) for length in expression.shape))
    if isinstance(expression, Transpose):
        return _evaluate(expression.arg, matrices, lengths).T
    if isinstance(expression, Inverse):
        return _evaluate(expression.arg, matrices, lengths).inv()
    if isinstance(expression, MatAdd | MatMul):
        first, *rest = (_evaluate(arg, matrices, lengths) for arg in expression.args)
        for other in rest:
            first = first + other if isinstance(expression, MatAdd) else first * other
        return first
    if isinstance(expression, MatrixExpr) or expression.atoms(MatrixSymbol):
        raise TypeError(f"cannot write out {type(expression).__name__}")
    return expression
