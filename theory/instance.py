"""One system with rational entries."""

from dataclasses import dataclass
from functools import cached_property

from flint import fmpq, fmpq_mat

from theory.errors import InputError
from theory.weights import Weights, rational_matrix


@dataclass(frozen=True)
class Instance:
    """One system with rational entries: weights, tokens X (n, d), and what a statement may add to them.

    `given_response` is an A with A V = W (by default W V⁻¹); `ell` (d, 1) and `rate` belong to T17.
    """

    weights: Weights
    tokens: fmpq_mat | None = None
    given_response: fmpq_mat | None = None
    ell: fmpq_mat | None = None
    rate: fmpq | None = None

    @classmethod
    def of(cls, *, score, value=None, response=None, tokens=None, ell=None, rate=None) -> "Instance":
        """From nested lists of ints, Fractions or floats; give either `value` or `response`."""
        if (value is None) == (response is None):
            raise InputError(
                "value",
                got="both or neither of value and response",
                expected="one of them",
                fix="pass just one",
            )
        if response is None:
            weights, given = Weights.of(score, value), None
        else:
            given = rational_matrix("response", response)
            weights = Weights.from_response(score, given)
        return cls(
            weights,
            None if tokens is None else rational_matrix("tokens", tokens),
            given,
            None if ell is None else rational_matrix("ell", [[entry] for entry in ell]),
            None if rate is None else rational_matrix("rate", [[rate]])[0, 0],
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
        self._check_eigenvector()

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

    def _check_eigenvector(self) -> None:
        if (self.ell is None) != (self.rate is None):
            raise InputError(
                "ell", got="only one of ell and rate", expected="both or neither", fix="pass both or neither"
            )
        if self.ell is not None and (self.ell.nrows(), self.ell.ncols()) != (self.weights.dim, 1):
            raise InputError(
                "ell",
                got=f"shape ({self.ell.nrows()}, {self.ell.ncols()})",
                expected=f"({self.weights.dim}, 1), one entry per coordinate",
                fix="match it to the weights' dimension",
            )

    @property
    def form(self) -> fmpq_mat:
        return self.weights.form

    @property
    def value(self) -> fmpq_mat:
        return self.weights.value

    @property
    def has_response(self) -> bool:
        return self.given_response is not None or self.weights.response_exists

    @cached_property
    def response(self) -> fmpq_mat:
        return self.weights.response_form if self.given_response is None else self.given_response
