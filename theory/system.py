"""The ODE ẋ_i = Σ_h V_h Σ_j P_ij x_j and its variants in symbols: quantities defined by earlier ones."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from sympy import Add, Expr, ImmutableDenseMatrix, Integer, Matrix, Symbol, exp, eye

from theory.errors import InputError
from theory.notation import step

PARAMETERS: Mapping[str, tuple[str | int, str | int]] = MappingProxyType(
    {
        "ell": ("d", 1),  # T17's left eigenvector
        "rate": (1, 1),  # and its eigenvalue
        "positions": ("n", "d"),  # absolute encoding p_i
        "bias": ("n", "n"),  # added to the scores
        "query": ("d", "d"),  # Q, K and one turn R of a rotary encoding
        "key": ("d", "d"),
        "rotation": ("d", "d"),
        "W_2": ("d", "d"),  # the second head
        "V_2": ("d", "d"),
        "coefficient": (1, 1),  # T15's c_2; c_1 = 1
        "metric": ("d", "d"),  # M of a quadratic form
        "multiplier": (1, 1),  # ν of a certificate
        "margin": (1, 1),  # and its η
        "step": (1, 1),  # h of a residual layer
        "logits": ("n", "n"),  # S1's M_kj
    }
)
"""What an instance may add to weights and tokens: name to shape."""

POSITIONS = ("", "scores", "scores and values")


@dataclass(frozen=True)
class Setting:
    """Switches of the system; the default is full attention with one head and without encoding.

    positions: an absolute encoding p_i added to x_i at every layer, in the scores or in scores and values.
    rotary: s_ij = (R^i Q x_i)ᵀ(R^j K x_j). rotated_values: ẋ_i = Σ_j P_ij R^{j−i} V x_j. sphere: the velocity
    loses its component along x_i. Raises InputError for a combination that is not defined.
    """

    causal: bool = False
    heads: int = 1
    positions: str = ""
    bias: bool = False
    rotary: bool = False
    rotated_values: bool = False
    sphere: bool = False

    def __post_init__(self) -> None:
        if self.positions not in POSITIONS or self.heads not in (1, 2) or (self.rotary and self.heads > 1):
            raise InputError(
                "setting",
                got=f"{self.heads} heads, positions {self.positions!r}, rotary {self.rotary}",
                expected=f"one or two heads (one with rotary), positions in {POSITIONS}",
                fix="sum or split heads; encode in one of the two ways",
            )
        if self.rotated_values and not self.rotary:
            raise InputError("setting", got="rotated values alone", expected="rotary", fix="set rotary too")

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the parameters that the switches take."""
        wanted = (
            (self.positions, ("positions",)),
            (self.bias, ("bias",)),
            (self.rotary, ("query", "key", "rotation")),
            (self.heads > 1, ("W_2", "V_2")),
        )
        return tuple(name for switch, names in wanted if switch for name in names)

    def describe(self) -> str:
        """The switches in words; empty for the default."""
        words = (
            (self.causal, "causal mask"),
            (self.heads > 1, f"{self.heads} heads"),
            (self.positions, f"absolute encoding in {self.positions}"),
            (self.bias, "additive score bias"),
            (self.rotary, "rotary encoding"),
            (self.rotated_values, "rotated values"),
            (self.sphere, "on the sphere"),
        )
        return ", ".join(text for switch, text in words if switch)


def _symbols(name: str, rows: int, columns: int) -> ImmutableDenseMatrix:
    return ImmutableDenseMatrix(rows, columns, lambda r, c: Symbol(f"{name}_{{{r + 1}{c + 1}}}", real=True))


class Head:
    """Names of one head: W, V (d, d); scores s, weights g = e^s, attention P (n, n); Z (n, 1); m (n, d)."""

    def __init__(self, number: int, n: int, d: int):
        mark = "" if number == 1 else f"^{number}"
        self.W, self.V = (_symbols(name + mark, d, d) for name in "WV")
        self.s, self.g, self.P = (_symbols(name + mark, n, n) for name in "sgP")
        self.Z, self.m = _symbols("Z" + mark, n, 1), _symbols("m" + mark, n, d)


class ExplicitSystem:
    """Symbols and definitions of the system with n tokens in R^d (entries named, nothing multiplied out).

    Free: X (n, d), A (d, d), the heads' W and V, and the matrices among PARAMETERS. Defined from them: what
    `Head` names, the velocity v (n, d), and the next layer y = X + h v (n, d). W, V, s, g, Z, P, m are those
    of the first head.
    """

    def __init__(self, n: int, d: int, setting: Setting = Setting()):
        self.n, self.d, self.setting = n, d, setting
        self.X, self.A = _symbols("x", n, d), _symbols("A", d, d)
        self.heads = [Head(number, n, d) for number in range(1, setting.heads + 1)]
        first = self.heads[0]
        self.W, self.V, self.s, self.g = first.W, first.V, first.s, first.g
        self.P, self.Z, self.m = first.P, first.Z, first.m
        sizes = {"n": n, "d": d}
        self.parameters = {
            name: _symbols(name, *(sizes.get(size, size) for size in shape))
            for name, shape in PARAMETERS.items()
        }
        for number, head in enumerate(self.heads[1:], start=2):
            self.parameters |= {f"W_{number}": head.W, f"V_{number}": head.V}
        self.ell, self.M = self.parameters["ell"], self.parameters["metric"]
        self.v, self.y = _symbols("v", n, d), _symbols("y", n, d)
        self.turns = [_symbols(f"R^{i}", d, d) for i in range(n if setting.rotary else 0)]
        self.definitions: dict[Symbol, Expr] = {}
        self._define_turns()
        for head in self.heads:
            self._define_head(head)
        self._define(self.v, self._velocity())
        self._define(self.y, self.X + step * self.v)

    def _define(self, symbols: ImmutableDenseMatrix, meaning) -> None:
        self.definitions.update(zip(symbols, meaning, strict=True))

    def _define_turns(self) -> None:
        """R⁰ = I, R^{i+1} = R R^i."""
        for i, turn in enumerate(self.turns):
            self._define(turn, self.parameters["rotation"] * self.turns[i - 1] if i else eye(self.d))

    def _define_head(self, head: Head) -> None:
        n = self.n
        seen = self._encoded() if self.setting.positions else self.X
        scores = self._rotated_scores(seen) if self.turns else seen * head.W * seen.T
        self._define(head.s, scores + self.parameters["bias"] if self.setting.bias else scores)
        hidden = self.setting.causal
        weight = head.s.applyfunc(exp)
        self._define(head.g, Matrix(n, n, lambda r, c: Integer(0) if hidden and c > r else weight[r, c]))
        self._define(head.Z, Matrix(n, 1, lambda r, _: Add(*head.g.row(r))))
        self._define(head.P, Matrix(n, n, lambda r, c: head.g[r, c] / head.Z[r]))
        self._define(head.m, head.P * self._valued())

    def _encoded(self) -> Matrix:
        return self.X + self.parameters["positions"]

    def _valued(self) -> Matrix:
        """The tokens as the values see them."""
        return self._encoded() if self.setting.positions == "scores and values" else self.X

    def _rotated_scores(self, seen) -> Matrix:
        queries, keys = (
            Matrix.vstack(
                *((turn * self.parameters[name] * seen.row(i).T).T for i, turn in enumerate(self.turns))
            )
            for name in ("query", "key")
        )
        return queries * keys.T

    def _velocity(self) -> Matrix:
        if self.setting.rotated_values:
            turned = Matrix.vstack(
                *((turn * self.V * self._valued().row(j).T).T for j, turn in enumerate(self.turns))
            )
            velocity = Matrix.vstack(*(self.P.row(i) * turned * turn for i, turn in enumerate(self.turns)))
        else:
            velocity = sum((head.m * head.V.T for head in self.heads), Matrix.zeros(self.n, self.d))
        if self.setting.sphere:
            along = [(self.X.row(i) * velocity.row(i).T)[0, 0] for i in range(self.n)]
            return velocity - Matrix(self.n, self.d, lambda r, c: along[r] * self.X[r, c])
        return velocity

    def token(self, index: int) -> Matrix:
        """Token `index` (from 0) as a column (d, 1)."""
        return self.X.row(index).T

    def velocity(self, index: int) -> Matrix:
        return self.v.row(index).T

    def pairs(self) -> list[tuple[int, int]]:
        """Pairs i < j in lexicographic order."""
        return [(i, j) for i in range(self.n) for j in range(i + 1, self.n)]


@lru_cache(maxsize=64)
def explicit_system(n: int, d: int, setting: Setting = Setting()) -> ExplicitSystem:
    return ExplicitSystem(n, d, setting)
