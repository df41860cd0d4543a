"""A batch of systems at one instant, as the floating-point half sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import torch
from flint import fmpq, fmpq_mat
from torch import Tensor

from numerics import AttentionSystem, observables
from theory.instance import Instance


@dataclass
class Moment:
    """Weights and tokens x (batch, n, d), with what some statements add: A, ℓ (batch, d), μ (batch,).

    `scale` multiplies named constants, so that a planted wrong constant is wrong in both halves.
    """

    system: AttentionSystem
    x: Tensor
    given_response: Tensor | None = None
    ell: Tensor | None = None
    rate: Tensor | None = None
    scale: Mapping[str, float] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return self.x.shape[1]

    @cached_property
    def velocity(self) -> Tensor:
        return self.system.velocity(self.x)

    @cached_property
    def response(self) -> Tensor:
        return self.system.response if self.given_response is None else self.given_response

    @property
    def symmetric_response(self) -> Tensor:
        return observables.symmetric_part(self.response)

    def at(self, x: Tensor) -> "Moment":
        """The same systems with other tokens."""
        return Moment(self.system, x, self.given_response, self.ell, self.rate, self.scale)

    def to(self, device: str) -> "Moment":
        A, ell, rate = (
            None if t is None else t.to(device) for t in (self.given_response, self.ell, self.rate)
        )
        return Moment(self.system.to(device), self.x.to(device), A, ell, rate, self.scale)

    def constant(self, name: str) -> Tensor:
        """A constant that the statements name (see theory.evaluate.CONSTANTS), one number per system."""
        return CONSTANTS[name](self) * self.scale.get(name, 1.0)

    def exactly(self, row: int) -> Instance:
        """One system as exact rationals: every float is one."""
        given = self.given_response is not None
        return Instance.of(
            score=self.system.score[row].tolist(),
            value=None if given else self.system.value[row].tolist(),
            response=self.response[row].tolist() if given else None,
            tokens=self.x[row].tolist(),
            ell=None if self.ell is None else self.ell[row].tolist(),
            rate=None if self.rate is None else self.rate[row].item(),
        )


def _sign(matrix: Tensor) -> Tensor:
    """The sign of a definite matrix; of the trace where it is not definite."""
    return torch.where(matrix.diagonal(dim1=1, dim2=2).sum(1) >= 0, 1.0, -1.0).to(matrix.dtype)


def _definite_response(moment: Moment) -> Tensor:
    return moment.symmetric_response * _sign(moment.response)[:, None, None]


def _outward(moment: Moment) -> Tensor:
    quadrant = _sign(moment.response) * _sign(moment.system.score)
    return (quadrant[:, None] * torch.linalg.eigvals(moment.system.value).real).amin(1)


CONSTANTS = {
    "kappa": lambda moment: torch.full_like(moment.x[:, 0, 0], observables.free_energy_gap(moment.n)),
    "sigma": lambda moment: _sign(moment.response),
    "omega": lambda moment: _sign(moment.system.score),
    "lambda": lambda moment: observables.pencil_minimum(moment.system.score, _definite_response(moment)),
    "mu": lambda moment: moment.rate,
    "norm_V": lambda moment: torch.linalg.matrix_norm(moment.system.value, 2),
    "alpha": lambda moment: observables.spectral_abscissa(moment.system.value),
    "beta": _outward,
    "u_V": lambda moment: (torch.linalg.eigvals(moment.system.value).real > 0).sum(1).to(moment.x.dtype),
    "u_A": lambda moment: (torch.linalg.eigvalsh(moment.symmetric_response) > 0).sum(1).to(moment.x.dtype),
    "c": lambda moment: torch.ones_like(moment.x[:, 0, 0]),
}


def from_instance(instance: Instance, scale: Mapping[str, float] | None = None) -> Moment:
    """A batch of one from an exact system; ValueError if it has no tokens."""
    if instance.tokens is None:
        raise ValueError("the instance has no tokens")
    given = instance.given_response
    return Moment(
        AttentionSystem(_tensor(instance.form), _tensor(instance.value)),
        _tensor(instance.tokens),
        None if given is None else _tensor(given),
        None if instance.ell is None else _tensor(instance.ell)[..., 0],
        None if instance.rate is None else torch.tensor([nearest_float(instance.rate)]).double(),
        scale or {},
    )


def nearest_float(number: fmpq) -> float:
    return int(number.p) / int(number.q)


def _tensor(matrix: fmpq_mat) -> Tensor:
    """The nearest float64 matrix, as a batch of one."""
    rows = [[nearest_float(q) for q in row] for row in matrix.tolist()]
    return torch.tensor([rows], dtype=torch.float64)
