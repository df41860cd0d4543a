"""Attention whose response matrix A has chosen signs, for all values of its parameters.

With W = Σ_h W_h and V = Σ_h V_h the response is A = W V⁻¹, and T2, T3, T5 and T15 ask for the signs of W_s
and A_s, and for a symmetric A or W. Here the weights are computed as

    Q_h = rows of head h of Q,   K_h = P_h Q_h,   U_h = Q_h,   O_h = B Q_hᵀ P_h·scale,

so W_h = scale Q_hᵀP_hQ_h and V_h = O_h U_h = B W_h: all of T15's A V_h = c_h W_h hold with A = B⁻¹, c_h = 1.

- Q = (unit lower) diag(softplus) (unit upper) (fixed orthogonal) is regular, and P_h = LD(I + T − Tᵀ)DLᵀ, L
  unit lower and D² = diag(softplus), has P_{h,s} = LD²Lᵀ ≻ 0; so W_s = scale Qᵀ diag(P_{h,s}) Q ≻ 0.
- B = LD(± + T − Tᵀ)DLᵀ has a symmetric part of the chosen signs, and A_s = A B_s Aᵀ has the same (Sylvester's
  law). No inverse is ever computed.

All triangles and T count in units of the pivots: a step of an optimizer is a relative one, for weights of any
size, and ‖T − Tᵀ‖ is the ratio τ of C1 (of one head's W; of A where A_s is definite).

What is lost: T15 with W_{h,s} ⪰ 0 and heads of full rank forces the rows of K_h and U_h to span what those of
Q_h span, so a head cannot look for one thing and copy another. Only its dk coordinates are free, and they
cancel in W_h and V_h: so the positive pivots of Q lose nothing (but a null set), and neither does U_h = Q_h.
Factors c_h ≠ 1 are left out: with them A would not be the layer's own W V⁻¹.
"""

import warnings
from collections.abc import Sequence
from typing import Literal, TypeVar, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.nn.utils import parametrize

from numerics.errors import InputError
from numerics.layers.places import Attention, Places, Slot, locate, no_autocast

Antisymmetric = Literal["none", "values", "scores", "both"]
AttentionT = TypeVar("AttentionT", bound=Attention)

_SMALLEST = 1e-3  # where a scale starts that the given weights have at 0, as a zero-initialised output does


class DefiniteResponse(nn.Module):
    """The parameters of one attention module and the maps computed from them.

    `query` (d, d) holds the unit triangular factors of Q below and above its diagonal and on it the pivots,
    before softplus. `scores` (H, dk, dk) and `response` (d, d) hold the factors L of the P_h and of B below
    their diagonals, on them the pivots before softplus, and above them nothing that is used. `scores_turn`
    and `response_turn` hold T below the diagonal where an antisymmetric part is wanted, else they are None.
    Buffers: `frame` (d, d), orthogonal; `signs` (d,), those of B's pivots.
    """

    frame: Tensor
    signs: Tensor
    scores_turn: nn.Parameter | None
    response_turn: nn.Parameter | None

    def __init__(self, places: Places, negative: int, antisymmetric: Antisymmetric) -> None:
        super().__init__()
        given = {role: rows.detach() for role, rows in places.maps().items()}
        query, self.heads, self.scale = given["query"], places.heads, places.scale
        size = len(query) // self.heads
        query_norms, key_norms = (_head_norms(given[role], self.heads) for role in ("query", "key"))
        pivots = _ratio(query_norms, torch.as_tensor(size**0.5)).repeat_interleave(size)
        scores = torch.diag_embed(_softplus_inverse(_ratio(key_norms, query_norms))[:, None].expand(-1, size))
        self.query = self._parameter(_softplus_inverse(pivots).diag(), query)
        self.scores = self._parameter(scores, query)
        frame = torch.linalg.qr(_wide(query).mT).Q.mT  # Gram–Schmidt of the rows
        self.register_buffer("frame", frame.to(query.dtype).contiguous())
        signs = torch.ones(len(query), device=query.device, dtype=query.dtype)
        signs[:negative] = -1
        self.register_buffer("signs", signs)
        self.response = self._parameter(torch.eye(len(query), device=query.device), query)
        free = {
            "scores": antisymmetric in ("scores", "both"),
            "response": antisymmetric in ("values", "both"),
        }
        for name, wanted in free.items():
            start = torch.zeros_like(getattr(self, name))
            self.register_parameter(f"{name}_turn", nn.Parameter(start) if wanted else None)
        self._start_response(given)

    @staticmethod
    def _parameter(value: Tensor, like: Tensor) -> nn.Parameter:
        return nn.Parameter(value.to(like.dtype).clone())

    def _start_response(self, given: dict[str, Tensor]) -> None:
        """B = ±β, with ‖V‖ as given."""
        value = _wide(given["value"])
        value = _wide(given["output"]) @ value if "output" in given else value
        Q = self._query()
        scores = (Q.mT @ self._rows(self._scores(), Q)).detach() * self.scale
        size = _softplus_inverse(_ratio(value.norm(), scores.norm()))
        with torch.no_grad():
            self.response.copy_(size.to(self.response.dtype) * torch.eye(len(Q), device=size.device))

    def forward(self, roles: Sequence[str]) -> list[Tensor]:
        """The maps of these roles (d, d) as `nn.Linear` stores them, in the parameters' own type.

        Computed in float32 at least, and never under autocast, whose rounding would cost the signs.
        "product" is V = OU itself, for attention without an output map.
        """
        with no_autocast(self.query.device):
            Q = self._query()
            return [self._map(role, Q).to(self.query.dtype) for role in roles]

    def _map(self, role: str, Q: Tensor) -> Tensor:
        if role in ("query", "value"):
            return Q
        P = self._scores()
        if role == "key":
            return self._rows(P, Q)
        output = self._response() @ self._rows(P.mT, Q).mT * self.scale
        return output if role == "output" else output @ Q

    def factors(self) -> tuple[Float[Tensor, "d d"], Float[Tensor, "H dk dk"], Float[Tensor, "d d"]]:
        """Q, the P_h and B = A⁻¹."""
        with no_autocast(self.query.device):
            return self._query(), self._scores(), self._response()

    def _query(self) -> Tensor:
        raw = _wide(self.query)
        rows = _unit_lower(raw.mT).mT @ _wide(self.frame)
        return _unit_lower(raw) @ (_positive(raw.diagonal())[:, None] * rows)

    def _scores(self) -> Tensor:
        return _form(self.scores, None, self.scores_turn)

    def _response(self) -> Tensor:
        return _form(self.response, _wide(self.signs), self.response_turn)

    def _rows(self, P: Tensor, Q: Tensor) -> Tensor:
        """P_h Q_h, one below the other."""
        return (P @ Q.unflatten(0, (self.heads, -1))).flatten(0, 1)


class _Weight(nn.Module):
    """The parametrisation of one slot. The response's parameters are registered in the first slot only."""

    def __init__(self, response: DefiniteResponse, slot: Slot, roles: Sequence[str]) -> None:
        super().__init__()
        self.roles, self.transposed, self.registered = tuple(roles), slot.transposed, False
        self._response = (response,)  # a tuple keeps it out of this module's own parameters
        if "query" in roles:
            self.response = response

    @property
    def trainable(self) -> bool:
        return self._response[0].query.requires_grad

    def forward(self) -> Tensor:
        rows = torch.cat(self._response[0](self.roles))
        return rows.mT.contiguous() if self.transposed else rows

    def right_inverse(self, weight: Tensor) -> tuple[()]:
        """Nothing is stored besides the response's parameters, so a weight can be read but not set."""
        if self.registered:
            raise InputError(
                "weight",
                got=f"a new weight of shape {tuple(weight.shape)}",
                expected="no assignment: the weights are computed from the response's parameters",
                fix="call plain_weights first, or load a state dict of the refined module",
            )
        self.registered = True
        return ()


def definite_response(
    module: AttentionT,
    negative: float = 0.0,
    antisymmetric: Antisymmetric = "none",
    *,
    maps: Sequence[str] | None = None,
    heads: int | None = None,
) -> AttentionT:
    """Reparametrise attention, in place, so that W_s ≻ 0 and A_s has `negative·d` negative eigenvalues.

    `module` is an `nn.MultiheadAttention`, an attention module of Hugging Face without grouped heads
    (`numerics.layers.places` lists the names it knows), any module whose linear maps are named in `maps`, or
    the sequence of linear maps itself: query, key, value, output (or without output, for one head). `heads`
    is needed where the module does not say it.

    `negative` = 1 is the convergent scenario, 0 the divergent one. `antisymmetric` says which parts are free:

    - "none": A and W are symmetric (T2, T3, T5, T15).
    - "scores": A is symmetric, W_a free (T2, T3, T15): X → 0 for negative = 1, divergence for 0.
    - "values": W is symmetric, A_a free: T5's setting. With several heads each is T5's alone; of their sum
      T15 needs a symmetric A.
    - "both": A_a and W_a are free, as in the released code of arXiv 2512.03058. **Insufficient**: by T7 V can
      be unstable although every eigenvalue of A_s is negative. Warns.

    The theorems are about attention alone, without biases, norms, MLP and encodings: biases stay as they are
    and train on; a rotary model has these W and A at offset 0 only (`RotaryDiagonal`).

    Starts with orthogonal query rows (Gram–Schmidt of the given ones), P_h and ±B multiples of I, and the
    norms that the heads' queries and keys and V have in `module`: W_s and A_s are then as well conditioned as
    can be. Nothing else of the weights is kept. A weight decay draws pivots to softplus(0) = log 2, not to 0.

    The promise holds for real numbers; pivots stop at the smallest normal float. The weights that the module
    multiplies with are rounded, and have the promised signs while the condition of the factors is well below
    1/eps. Equalities are lost: a symmetric A or W, T15's A V_h = W_h and W_{h,s} ⪰ 0 of rank dk hold up to
    rounding only, and an exact audit says so. The certificate of T11 (`certificate_margin`) bears rounding.

    Returns `module`. Its optimizer must be made after this call. Only `state_dict` saves it, as for every
    parametrised module; `nn.DataParallel`, which copies modules flat, is not supported.

    Raises `InputError` for an unknown option; `negative` outside [0, 1] or negative·d not whole; maps that
    are not found, quantised, grouped or not (d, d) with d = heads × head size; weights that are not finite
    or parametrised already.
    """
    if antisymmetric not in get_args(Antisymmetric):
        raise InputError(
            "antisymmetric",
            got=repr(antisymmetric),
            expected="one of " + ", ".join(get_args(Antisymmetric)),
            fix="'none' keeps every theorem",
        )
    places = locate(module, maps, heads)
    _require_plain(places)
    response = DefiniteResponse(places, _count(negative, len(places.maps()["query"])), antisymmetric)
    if antisymmetric == "both":
        warnings.warn(
            "antisymmetric='both' frees both antisymmetric parts: no theorem holds, V may be unstable (T7)",
            stacklevel=2,
        )
    has_output = "output" in places.maps()
    for slot in places.slots:
        roles = [role if has_output or role != "value" else "product" for role in slot.roles]
        trainable = slot.weight().requires_grad
        parametrize.register_parametrization(slot.owner, slot.name, _Weight(response, slot, roles))
        if "query" in roles and not trainable:
            response.requires_grad_(False)
    return module


def plain_weights(module: AttentionT) -> AttentionT:
    """Turn every refined attention in `module` back into plain weights, in place; outputs stay the same.

    The weights are ordinary parameters afterwards, new ones to an optimizer, and every audit can read them.
    Raises `InputError` if nothing in `module` was refined.
    """
    roots = [module] if isinstance(module, nn.Module) else module
    found = [place for root in roots for owner in root.modules() for place in _refined(owner)]
    if not found:
        raise InputError(
            "module",
            got="no refined attention",
            expected="a module that definite_response was called on",
            fix="pass that module, or one that contains it",
        )
    with torch.no_grad():
        weights = [getattr(owner, name).clone() for owner, name, _ in found]
    for (owner, name, trainable), weight in zip(found, weights, strict=True):
        kind = type(owner)  # shared with deep copies, from which removing would take the weight as well
        owner.__class__ = cast(type[nn.Module], type(kind.__name__, kind.__bases__, dict(vars(kind))))
        parametrize.remove_parametrizations(owner, name)
        delattr(owner, name)  # it would be a buffer where it has no gradient
        owner.register_parameter(name, nn.Parameter(weight, trainable))
    return module


def _refined(owner: nn.Module) -> list[tuple[nn.Module, str, bool]]:
    """The weights of `owner` itself that a response computes, and whether that is trained."""
    if not parametrize.is_parametrized(owner):
        return []
    kept = cast(nn.ModuleDict, owner.parametrizations)
    firsts = ((name, cast(nn.ModuleList, chain)[0]) for name, chain in kept.items())
    return [(owner, name, first.trainable) for name, first in firsts if isinstance(first, _Weight)]


def _require_plain(places: Places) -> None:
    for slot in places.slots:
        if parametrize.is_parametrized(slot.owner, slot.name):
            raise InputError(
                "module",
                got=f"{slot.name} of {type(slot.owner).__name__}, which is parametrised already",
                expected="plain weights",
                fix="call plain_weights first, or remove the other parametrisation",
            )
        weight = slot.weight()
        if not weight.is_meta and not weight.isfinite().all():
            raise InputError(
                "module",
                got=f"{slot.name} with an entry that is not finite",
                expected="finite weights",
                fix="initialise or load them first",
            )


def _count(negative: float, size: int) -> int:
    count = round(negative * size) if 0 <= negative <= 1 else -1
    if count < 0 or abs(negative * size - count) > 1e-6:  # 1e-6: a share such as 1/3 is a rounded number
        raise InputError(
            "negative",
            got=f"{negative} of d = {size} eigenvalues",
            expected="a share in [0, 1] with negative·d a whole number",
            fix=f"use k/{size} for a whole number k",
        )
    return count


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _unit_lower(raw: Tensor) -> Tensor:
    return raw.tril(-1) + torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)


def _form(raw: Tensor, signs: Tensor | None, turn: Tensor | None) -> Tensor:
    """LD(± + T − Tᵀ)DLᵀ of (…, size, size)."""
    raw = _wide(raw)
    half = _unit_lower(raw) * _positive(raw.diagonal(dim1=-2, dim2=-1)).sqrt()[..., None, :]
    signed = half if signs is None else half * signs
    if turn is None:
        return signed @ half.mT
    strict = _wide(turn).tril(-1)
    return (signed + half @ (strict - strict.mT)) @ half.mT


def _head_norms(rows: Tensor, heads: int) -> Tensor:
    return _wide(rows).unflatten(0, (heads, -1)).flatten(1).norm(dim=1)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b, 1.0).clamp_min(_SMALLEST)


def _positive(raw: Tensor) -> Tensor:
    """Softplus, which would underflow to 0 and have a root without a derivative there."""
    return softplus(raw).clamp_min(torch.finfo(raw.dtype).tiny)


def _softplus_inverse(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))
