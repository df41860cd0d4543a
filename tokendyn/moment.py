"""A batch of systems at one instant, as the floating-point half sees it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from flint import fmpq, fmpq_mat
from torch import Tensor

from numerics import AttentionSystem, observables
from numerics.encodings import Rotary, turns_from_matrix
from numerics.profile import profile_decay, profile_size
from theory.instance import Instance
from theory.system import Setting


@dataclass
class Moment:
    """A batch of systems with tokens x (batch, n, d), and what some statements add to them.

    `parameters` are named and shaped as in theory.system.PARAMETERS, with a batch axis in front; `setting`
    is the variant of the system. `scale` multiplies named constants, so that a planted wrong constant is
    wrong in both halves.
    """

    system: AttentionSystem
    x: Tensor
    given_response: Tensor | None = None
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    setting: Setting = Setting()
    scale: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        setting: Setting,
        x: Tensor,
        *,
        score: Tensor | None = None,
        value: Tensor | None = None,
        response: Tensor | None = None,
        **parameters: Tensor,
    ) -> "Moment":
        """From a batch of weights (batch, d, d), with either `value` or `response`; see Instance.of."""
        if score is None:
            score = parameters["query"].mT @ parameters["key"]
        if response is not None:
            value = AttentionSystem.from_response(score, response).value
        assert value is not None
        system = _system(setting, score, value, x.shape[1], parameters)
        return cls(system, x, response, parameters, setting)

    @property
    def n(self) -> int:
        return self.x.shape[1]

    @property
    def score(self) -> Tensor:
        """W of the first head, (batch, d, d)."""
        return self.head_scores[0]

    @property
    def value(self) -> Tensor:
        """V of the first head, (batch, d, d)."""
        return self.head_values[0]

    @property
    def head_scores(self) -> list[Tensor]:
        return _heads(self.system.score)

    @property
    def head_values(self) -> list[Tensor]:
        return _heads(self.system.value)

    @property
    def value_sum(self) -> Tensor:
        """Σ_h V_h, (batch, d, d)."""
        return torch.stack(self.head_values).sum(0)

    @property
    def ell(self) -> Tensor:
        """ℓ, (batch, d)."""
        return self.parameters["ell"][..., 0]

    def number(self, name: str) -> Tensor:
        """A parameter of shape (1, 1), one number per system, (batch,)."""
        return self.parameters[name][:, 0, 0]

    @cached_property
    def velocity(self) -> Tensor:
        return self.system.velocity(self.x)

    @property
    def next_layer(self) -> Tensor:
        """x + h·velocity."""
        return self.x + self.constant("h")[:, None, None] * self.velocity

    @cached_property
    def response(self) -> Tensor:
        return self.system.response if self.given_response is None else self.given_response

    @property
    def symmetric_response(self) -> Tensor:
        return observables.symmetric_part(self.response)

    def at(self, x: Tensor) -> "Moment":
        """The same systems with other tokens."""
        return replace(self, x=x)

    def to(self, device: str) -> "Moment":
        return replace(
            self,
            system=self.system.to(device),
            x=self.x.to(device),
            given_response=None if self.given_response is None else self.given_response.to(device),
            parameters={name: value.to(device) for name, value in self.parameters.items()},
        )

    def constant(self, name: str) -> Tensor:
        """A constant that the statements name (see theory.evaluate.CONSTANTS), one number per system."""
        return CONSTANTS[name](self) * self.scale.get(name, 1.0)

    def exactly(self, row: int) -> Instance:
        """One system as exact rationals: every float is one."""
        given = self.given_response
        return Instance.of(
            score=None if self.setting.rotary else self.score[row].tolist(),
            value=self.value[row].tolist() if given is None else None,
            response=None if given is None else given[row].tolist(),
            tokens=self.x[row].tolist(),
            setting=self.setting,
            **{name: value[row].tolist() for name, value in self.parameters.items()},
        )


def _heads(matrices: Tensor) -> list[Tensor]:
    return [matrices] if matrices.ndim == 3 else list(matrices.unbind(1))


def _system(
    setting: Setting, score: Tensor, value: Tensor, n: int, parameters: Mapping[str, Tensor]
) -> AttentionSystem:
    """The batch under the switches of `setting`."""
    if setting.heads > 1:
        numbers = range(2, setting.heads + 1)
        score = torch.stack([score, *(parameters[f"W_{h}"] for h in numbers)], 1)
        value = torch.stack([value, *(parameters[f"V_{h}"] for h in numbers)], 1)
    rotary = None
    if setting.rotary:
        turns = turns_from_matrix(parameters["rotation"], n)
        rotary = Rotary(parameters["query"], parameters["key"], turns, setting.rotated_values)
    return AttentionSystem(
        score,
        value,
        causal=setting.causal,
        positions=parameters["positions"] if setting.positions else None,
        positions_in=setting.positions or "scores",
        bias=parameters["bias"] if setting.bias else None,
        rotary=rotary,
        sphere=setting.sphere,
    )


def _sign(matrix: Tensor) -> Tensor:
    """The sign of a definite matrix; of the trace where it is not definite."""
    return torch.where(matrix.diagonal(dim1=1, dim2=2).sum(1) >= 0, 1.0, -1.0).to(matrix.dtype)


def _definite_response(moment: Moment) -> Tensor:
    return moment.symmetric_response * _sign(moment.response)[:, None, None]


def _skewness(matrix: Tensor) -> Tensor:
    """‖|M_s|^{-1/2} M_a |M_s|^{-1/2}‖; NaN unless M_s is definite."""
    metric = observables.symmetric_part(matrix) * _sign(matrix)[:, None, None]
    root, info = torch.linalg.cholesky_ex(metric)
    root = torch.where((info == 0)[:, None, None], root, torch.eye(matrix.shape[1], dtype=matrix.dtype))
    half = torch.linalg.solve_triangular(root, matrix - matrix.mT, upper=False) / 2
    skew = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return torch.where(info == 0, torch.linalg.matrix_norm(skew, 2), torch.nan)


def attention_at_zero(moment: Moment) -> Tensor:
    """P⁰, attention at X = 0, (batch, n, n): uniform unless the scores carry an encoding or a bias."""
    return moment.system.attention(torch.zeros_like(moment.x))


def spectrum_at_zero(moment: Moment) -> Tensor:
    """Eigenvalues of P⁰ ⊗ V, (batch, n·d), complex."""
    product = torch.einsum("bij,bkl->bikjl", attention_at_zero(moment), moment.value)
    return torch.linalg.eigvals(product.flatten(3).flatten(1, 2))


def _pencil(moment: Moment) -> Tensor:
    """λ of (W_s, σA_s), of (W_s + c_2 W_{2,s}, σA_s) with a second head."""
    form = moment.score
    if "coefficient" in moment.parameters:
        form = form + moment.parameters["coefficient"] * moment.head_scores[1]
    return observables.pencil_minimum(form, _definite_response(moment))


def _gain(moment: Moment) -> Tensor:
    """‖V‖² in the metric σA_s; NaN where that is not positive definite."""
    metric = _definite_response(moment)
    return -observables.pencil_minimum(-(moment.value.mT @ metric @ moment.value), metric)


def _outward(moment: Moment) -> Tensor:
    quadrant = _sign(moment.response) * _sign(moment.score)
    return (quadrant[:, None] * torch.linalg.eigvals(moment.value).real).amin(1)


CONSTANTS = {
    "kappa": lambda moment: torch.full_like(moment.x[:, 0, 0], observables.free_energy_gap(moment.n)),
    "sigma": lambda moment: _sign(moment.response),
    "omega": lambda moment: _sign(moment.score),
    "lambda": _pencil,
    "mu": lambda moment: moment.number("rate"),
    "h": lambda moment: moment.number("step"),
    "nu": lambda moment: moment.number("multiplier"),
    "eta": lambda moment: moment.number("margin"),
    "c_2": lambda moment: moment.number("coefficient"),
    "norm_V": lambda moment: torch.linalg.matrix_norm(moment.value, 2),
    "Gamma": _gain,
    "u_*": lambda moment: profile_size(moment.score, moment.response),
    "rho": lambda moment: profile_decay(moment.score, moment.value, moment.response),
    "mu_0": lambda moment: torch.linalg.eigvals(attention_at_zero(moment)).real.amin(1),
    "alpha_0": lambda moment: spectrum_at_zero(moment).real.amax(1),
    "tau_W": lambda moment: _skewness(moment.score),
    "tau_A": lambda moment: _skewness(moment.response),
    "alpha": lambda moment: observables.spectral_abscissa(moment.value_sum),
    "beta": _outward,
    "u_V": lambda moment: (torch.linalg.eigvals(moment.value).real > 0).sum(1).to(moment.x.dtype),
    "u_A": lambda moment: (torch.linalg.eigvalsh(moment.symmetric_response) > 0).sum(1).to(moment.x.dtype),
    "c": lambda moment: torch.ones_like(moment.x[:, 0, 0]),
}


def from_instance(instance: Instance, scale: Mapping[str, float] | None = None) -> Moment:
    """A batch of one from an exact system; ValueError if it has no tokens."""
    if instance.tokens is None:
        raise ValueError("the instance has no tokens")
    value, given = _tensor(instance.value), instance.given_response
    parameters = {name: _tensor(matrix) for name, matrix in instance.parameters.items()}
    moment = Moment.of(
        instance.setting, _tensor(instance.tokens), score=_tensor(instance.form), value=value, **parameters
    )
    return replace(moment, given_response=None if given is None else _tensor(given), scale=scale or {})


def nearest_float(number: fmpq) -> float:
    return int(number.p) / int(number.q)


def _tensor(matrix: fmpq_mat) -> Tensor:
    """The nearest float64 matrix, as a batch of one."""
    rows = [[nearest_float(q) for q in row] for row in matrix.tolist()]
    return torch.tensor([rows], dtype=torch.float64)
