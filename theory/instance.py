"""One system with rational entries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flint import fmpq, fmpq_mat

from theory.errors import InputError
from theory.system import PARAMETERS, Setting
from theory.weights import Weights, rational_matrix


@dataclass(frozen=True)
class Instance:
    """One system with rational entries: weights, tokens X (n, d), and what a statement may add to them.

    `weights` are those of the first head. `given_response` is an A with A V = W (by default W V⁻¹).
    `parameters` holds matrices named and shaped as in theory.system.PARAMETERS; `setting` tells the variant.
    """

    weights: Weights
    tokens: fmpq_mat | None = None
    given_response: fmpq_mat | None = None
    parameters: Mapping[str, fmpq_mat] = field(default_factory=dict)
    setting: Setting = Setting()

    @classmethod
    def of(
        cls, *, score=None, value=None, response=None, tokens=None, setting: Setting = Setting(), **parameters
    ) -> "Instance":
        """From nested lists of ints, Fractions or floats; give either `value` or `response`.

        `parameters` may be numbers, vectors or matrices. With a rotary encoding the score matrix is QᵀK.
        """
        if (value is None) == (response is None):
            raise InputError(
                "value",
                got="both or neither of value and response",
                expected="one of them",
                fix="pass just one",
            )
        exact = {name: _parameter(name, entry) for name, entry in parameters.items() if entry is not None}
        if score is None and {"query", "key"} <= set(exact):
            score = exact["query"].transpose() * exact["key"]
        if response is None:
            weights, given = Weights.of(score, value), None
        else:
            given = rational_matrix("response", response)
            weights = Weights.from_response(score, given)
        return cls(
            weights, None if tokens is None else rational_matrix("tokens", tokens), given, exact, setting
        )

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens.ncols() != self.weights.dim:
            raise InputError(
                "tokens",
                got=f"shape ({self.tokens.nrows()}, {self.tokens.ncols()})",
                expected=f"(n, {self.weights.dim}), one token per row",
                fix="match the tokens' dimension to the weights'",
            )
        self._check_response()
        self._check_parameters()

    def _check_response(self) -> None:
        given, dim = self.given_response, self.weights.dim
        if given is None:
            return
        if (given.nrows(), given.ncols()) != (dim, dim) or given * self.value != self.form:
            raise InputError(
                "given_response",
                got="a matrix A with A V ≠ W",
                expected=f"a ({dim}, {dim}) matrix with A V = W",
                fix="leave it out, or use Instance.of(score=…, response=…), which computes V",
            )
        if self.weights.scale_squared != 1:
            raise InputError(
                "given_response",
                got=f"a response beside scale² = {self.weights.scale_squared}",
                expected="weights with scale 1",
                fix="leave it out: A = W V⁻¹ is computed",
            )

    def _check_parameters(self) -> None:
        sizes = {"d": self.weights.dim} | ({} if self.tokens is None else {"n": self.tokens.nrows()})
        for name, matrix in self.parameters.items():
            if name not in PARAMETERS:
                raise InputError(
                    name, got="an unknown parameter", expected=f"one of {', '.join(PARAMETERS)}", fix="rename"
                )
            got = (matrix.nrows(), matrix.ncols())
            expected = tuple(sizes.get(size, size) for size in PARAMETERS[name])
            if any(
                isinstance(size, int) and size != found for size, found in zip(expected, got, strict=True)
            ):
                raise InputError(
                    name,
                    got=f"shape {got}",
                    expected=f"shape {PARAMETERS[name]}",
                    fix="match it to the weights and tokens",
                )
        if ("ell" in self.parameters) != ("rate" in self.parameters):
            raise InputError(
                "ell", got="only one of ell and rate", expected="both or neither", fix="pass both or neither"
            )
        if missing := [name for name in self.setting.needs if name not in self.parameters]:
            raise InputError(
                "setting",
                got=f"{self.setting.describe()} without {', '.join(missing)}",
                expected=f"the parameters {', '.join(self.setting.needs)}",
                fix="pass them, or leave the switch off",
            )

    @property
    def form(self) -> fmpq_mat:
        return self.weights.form

    @property
    def value(self) -> fmpq_mat:
        return self.weights.value

    @property
    def ell(self) -> fmpq_mat | None:
        return self.parameters.get("ell")

    def number(self, name: str) -> fmpq | None:
        """A parameter of shape (1, 1), or None where it is not given."""
        return self.parameters[name][0, 0] if name in self.parameters else None

    @property
    def has_response(self) -> bool:
        return self.given_response is not None or self.weights.response_exists

    @cached_property
    def response(self) -> fmpq_mat:
        return self.weights.response_form if self.given_response is None else self.given_response

    @property
    def head_values(self) -> list[fmpq_mat]:
        """V_h of every head."""
        return [self.value, *(self.parameters[f"V_{h}"] for h in range(2, self.setting.heads + 1))]

    @property
    def value_sum(self) -> fmpq_mat:
        """Σ_h V_h, the map of equal tokens and of the first token under a causal mask."""
        first, *others = self.head_values
        return sum(others, first)

    @property
    def head_forms(self) -> list[fmpq_mat]:
        """W_h of every head."""
        return [self.form, *(self.parameters[f"W_{h}"] for h in range(2, self.setting.heads + 1))]


def _parameter(name: str, values: Any) -> fmpq_mat:
    """A number as (1, 1), a flat list as a column, anything else as the matrix it is."""
    if isinstance(values, list | tuple) and values and not isinstance(values[0], list | tuple):
        values = [[entry] for entry in values]
    elif not hasattr(values, "__len__") and not isinstance(values, fmpq_mat):
        values = [[values]]
    return rational_matrix(name, values)
