"""Where a live attention module keeps its query, key, value and output maps, and the maps as they are now.

Known by their attributes, without importing their library: `nn.MultiheadAttention`, and of Hugging Face the
attention of BERT, ALBERT, DistilBERT, ViT, GPT-2, BART, OPT, Llama and whatever names its maps as one of
these does. Of any other module the caller names the maps.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from numerics.errors import InputError

Attention = nn.Module | Sequence[nn.Module]
"""A module that holds its maps, or the maps themselves."""

ROLES = ("query", "key", "value", "output")
_NAMES = (
    ("q_proj", "k_proj", "v_proj", "o_proj"),
    ("q_proj", "k_proj", "v_proj", "out_proj"),
    ("q_lin", "k_lin", "v_lin", "out_lin"),
    ("self.query", "self.key", "self.value", "output.dense"),
    ("attention.query", "attention.key", "attention.value", "output.dense"),
    ("query", "key", "value", "dense"),
    ("c_attn", "c_proj"),
)
_NORMED = ("q_norm", "k_norm", "attn_logit_softcapping")  # what makes scores other than QᵀK
_HEADS = ("num_heads", "num_attention_heads", "n_heads")


class AttentionMaps(NamedTuple):
    """The maps of all heads, which act on column tokens of length d; dk rows (of `output`: columns) a head.

    `scale` is the factor of the scores. Without an output map `output` is the identity.
    """

    query: Float[Tensor, "d d"]
    key: Float[Tensor, "d d"]
    value: Float[Tensor, "d d"]
    output: Float[Tensor, "d d"]
    heads: int
    scale: float

    def scores(self) -> Float[Tensor, "H d d"]:
        """`W_h = scale Q_hᵀ K_h`."""
        query, key = (rows.unflatten(0, (self.heads, -1)) for rows in (self.query, self.key))
        return query.mT @ key * self.scale

    def values(self) -> Float[Tensor, "H d d"]:
        """`V_h = O_h U_h`."""
        output = self.output.mT.unflatten(0, (self.heads, -1))
        return output.mT @ self.value.unflatten(0, (self.heads, -1))


@dataclass(frozen=True, eq=False)
class Slot:
    """A weight that holds the maps of `roles`, one below the other; `transposed`: stored (in, out)."""

    owner: nn.Module
    name: str
    roles: tuple[str, ...]
    transposed: bool

    def weight(self) -> Tensor:
        """As stored: a parameter, or what its parametrisation computes."""
        return getattr(self.owner, self.name)

    def maps(self) -> dict[str, Tensor]:
        weight = self.weight()
        rows = weight.mT if self.transposed else weight
        return dict(zip(self.roles, rows.chunk(len(self.roles)), strict=True))


@dataclass(frozen=True, eq=False)
class Places:
    """The slots of one attention module, with the number of its heads and the factor of its scores."""

    slots: tuple[Slot, ...]
    heads: int
    scale: float

    def maps(self) -> dict[str, Tensor]:
        """By role, each (d, d) in the orientation of `nn.Linear`; "output" may be missing."""
        return {role: rows for slot in self.slots for role, rows in slot.maps().items()}


def attention_maps(
    module: Attention, *, maps: Sequence[str] | None = None, heads: int | None = None
) -> AttentionMaps:
    """The weights that the module computes with now, differentiable in whatever they are computed from.

    Arguments and errors are those of `definite_response`.
    """
    places = locate(module, maps, heads)
    found = places.maps()
    if "output" not in found:
        found["output"] = torch.eye(len(found["query"])).to(found["query"])
    return AttentionMaps(**found, heads=places.heads, scale=places.scale)


def no_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Leaves autocast, whose rounding of products would cost the signs of the forms."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def locate(module: Attention, maps: Sequence[str] | None, heads: int | None) -> Places:
    """Raises `InputError` if the maps are not found or not (d, d), or the heads are unknown or do not fit."""
    if isinstance(module, nn.MultiheadAttention):
        slots = _multihead(module)
    elif isinstance(module, nn.Module):
        slots = _slots([_get(module, name) for name in maps or _known_names(module)])
    else:
        slots = _slots(list(module))
    if normed := [name for name in _NORMED if _find(module, (name,))]:
        raise InputError(
            "module",
            got=f"attention with {', '.join(normed)}",
            expected="scores that are QᵀK and nothing more",
            fix="build it without: its score matrix is not the one whose signs are imposed",
        )
    own = _find(module, _HEADS)
    if heads is not None and own not in (None, heads):
        raise InputError("heads", got=f"{heads}", expected=f"{own}, as the module says", fix="leave it out")
    heads = heads or own or (1 if len(slots) == 3 else None)
    if heads is None:
        raise InputError(
            "heads",
            got="a module that does not say how many heads it has",
            expected="a number",
            fix="pass heads=",
        )
    _check(slots, heads)
    size = len(slots[0].maps()["query"])
    return Places(slots, heads, _find(module, ("scaling",)) or (size // heads) ** -0.5)


def _multihead(module: nn.MultiheadAttention) -> tuple[Slot, ...]:
    obstacle = None
    if module.in_proj_weight is None:
        obstacle = "keys or values of another width (kdim, vdim)"
    elif module.bias_k is not None or module.add_zero_attn:
        obstacle = "a token appended to keys and values (add_bias_kv, add_zero_attn)"
    if obstacle:
        raise InputError(
            "module",
            got=f"nn.MultiheadAttention with {obstacle}",
            expected="self-attention over the tokens alone",
            fix="build it without",
        )
    return (
        Slot(module, "in_proj_weight", ROLES[:3], transposed=False),
        Slot(module.out_proj, "weight", ROLES[3:], transposed=False),
    )


def _known_names(module: nn.Module) -> tuple[str, ...]:
    names = {name for name, _ in module.named_modules()}
    for known in _NAMES:
        if names.issuperset(known):
            return known
    raise InputError(
        "module",
        got=f"{type(module).__name__}, whose maps have unknown names",
        expected="nn.MultiheadAttention, or attention with " + ", or ".join("/".join(n) for n in _NAMES),
        fix="name its query, key, value and output map in maps=",
    )


def _get(module: nn.Module, name: str) -> nn.Module:
    try:
        return module.get_submodule(name)
    except AttributeError:
        raise InputError(
            "maps",
            got=f"{name!r}, which {type(module).__name__} has not",
            expected="names of linear maps inside the module",
            fix="look at module.named_modules()",
        ) from None


def _slots(found: list[nn.Module]) -> tuple[Slot, ...]:
    """Two modules are query, key and value stacked in one, and the output; three have no output map."""
    roles = {2: (ROLES[:3], ROLES[3:]), 3: ROLES[:3], 4: ROLES}.get(len(found))
    if roles is None:
        raise InputError(
            "maps",
            got=f"{len(found)} maps",
            expected="query, key, value and output; the first three; or all of q/k/v in one and the output",
            fix="give them in this order",
        )
    for module in found:
        if not (isinstance(module, nn.Linear) or _is_conv1d(module)):
            raise InputError(
                "maps",
                got=type(module).__name__,
                expected="nn.Linear (or Conv1D of Hugging Face)",
                fix="use unquantised linear maps",
            )
    given = ((role,) if isinstance(role, str) else role for role in roles)
    return tuple(
        Slot(m, "weight", role, transposed=_is_conv1d(m)) for m, role in zip(found, given, strict=True)
    )


def _is_conv1d(module: nn.Module) -> bool:
    """GPT-2's linear map, which stores (in, out)."""
    return hasattr(module, "nf") and getattr(module, "weight", torch.empty(0)).ndim == 2


def _find(module: Attention, names: Sequence[str]) -> Any:
    """The first attribute of these names, of the module or what it consists of."""
    if not isinstance(module, nn.Module):
        return None
    parts = [module, *(getattr(module, part, None) for part in ("self", "attention", "config"))]
    values = (getattr(part, name, None) for part in parts for name in names)
    return next((value for value in values if value is not None), None)


def _check(slots: tuple[Slot, ...], heads: int) -> None:
    shapes = {role: tuple(rows.shape) for slot in slots for role, rows in slot.maps().items()}
    rows, size = shapes["query"]
    expected = f"maps of shape (d, d), d = {size}, and a number of heads that divides d"
    if shapes["key"] != shapes["query"] and shapes["key"][1] == size:
        raise InputError(
            "module",
            got=f"grouped heads: {shapes['key'][0]} rows of keys for {rows} of queries",
            expected=expected,
            fix="use as many key and value heads as query heads (num_key_value_heads = num_attention_heads)",
        )
    if set(shapes.values()) != {(size, size)} or heads < 1 or size % heads:
        listed = ", ".join(f"{role} {shape}" for role, shape in shapes.items())
        raise InputError(
            "module",
            got=f"{heads} heads with {listed}",
            expected=expected,
            fix="d_model must be heads × head size",
        )
    if len(shapes) == 3 and heads > 1:
        raise InputError(
            "maps",
            got=f"{heads} heads without an output map",
            expected="an output map, or one head",
            fix="heads that are only concatenated cannot share a response A: give the output map as well",
        )
    weights = [slot.weight() for slot in slots]
    if len({(weight.dtype, weight.device) for weight in weights}) > 1 or not weights[0].is_floating_point():
        raise InputError(
            "module",
            got=", ".join(f"{w.dtype} on {w.device}" for w in weights),
            expected="floating weights of one type on one device",
            fix="convert the module with .to(...) first",
        )
