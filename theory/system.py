"""The ODE ẋ_i = V Σ_j P_ij x_j in symbols: every quantity named, and defined by earlier ones."""

from functools import lru_cache

from sympy import Add, Expr, ImmutableDenseMatrix, Matrix, Symbol, exp


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
