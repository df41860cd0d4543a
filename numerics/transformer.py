"""The forward pass of a whole Transformer in float64 on the CPU, one block's weights in memory at a time.

One pass for every architecture: what differs is data, in `numerics.adapters`. It is the model at inference,
for sequences without padding: no dropout, and token type 0 for every token.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from numerics.adapters.base import Body
from numerics.adapters.layer import Tokens
from numerics.adapters.model import Model, usable
from numerics.checkpoints import Checkpoint
from numerics.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
"""By the names that configs give them."""
TOKEN_IDS = "token ids (n,) of an integer type"


@dataclass(frozen=True, eq=False)
class BlockStates:
    """Tokens (..., n, d) before, in and behind one block, and `layer`, the index of its weights.

    `attention_input` is what attention sees: `before`, normalised where a norm stands before attention.
    `attention_output` is what attention adds to `before`. `after` is `before` of the next block.
    """

    layer: int
    before: Tokens
    attention_input: Tokens
    attention_output: Tokens
    after: Tokens


def hidden_states(checkpoint: Checkpoint, tokens: Tensor, depth: int | None = None) -> Iterator[BlockStates]:
    """The states of each block in turn, for one sequence of `tokens`.

    `tokens` are ids (n,) of an integer type; for an image model an image (C, H, W), scaled as the model
    expects; for a model without an embedding of its own (`nn.TransformerEncoder`) embedded tokens (n, d).
    `depth` is how many blocks to run, all by default; more than the model was trained with only where weights
    are shared, the last group then going on.

    Raises `InputError` if of this checkpoint only attention is known, `tokens` do not fit it, or `depth` is
    out of range; and, as blocks are asked for, if a weight is missing or unusable.
    """
    order = _order(checkpoint, depth)
    return (states for (states,) in _blocks(checkpoint, order, [embed(checkpoint, tokens)]))


def hidden_states_of_batches(
    checkpoint: Checkpoint, batches: Sequence[Float[Tensor, "batch n d"]], depth: int | None = None
) -> Iterator[list[BlockStates]]:
    """As `hidden_states` for many sequences, whose embedded tokens are given in batches of one length each.

    The weights of a block are read once and every batch passes it before the next block is read. `embed`
    gives the tokens. Raises `InputError` as `hidden_states` does.
    """
    return _blocks(checkpoint, _order(checkpoint, depth), list(batches))


def depth_of(checkpoint: Checkpoint) -> int:
    """How many blocks tokens pass by default. `InputError` where weights are shared and no config says it."""
    return len(_order(checkpoint, None))


def require_whole(checkpoint: Checkpoint) -> None:
    """`InputError` if of this checkpoint only attention is known, so that it cannot be run."""
    _body(checkpoint)


def embed(checkpoint: Checkpoint, tokens: Tensor) -> Tokens:
    """What the first block is given, for `tokens` as in `hidden_states`, which says what is raised."""
    model, body = checkpoint.model, _body(checkpoint)
    if body.patches is not None:
        return _mapped(model, body, _embed_image(checkpoint, body, tokens))
    if body.tokens is None:
        return _embedded(model, tokens)
    if tokens.ndim != 1:
        raise _bad_tokens(f"shape {tuple(tokens.shape)} of {tokens.dtype}", TOKEN_IDS)
    return _mapped(model, body, _embed_ids(model, body, tokens))


def embed_batch(checkpoint: Checkpoint, ids: Tensor) -> Float[Tensor, "batch n d"]:
    """`embed` for sequences of token ids (batch, n), with the tables of embeddings read once for all.

    Raises `InputError` as `embed` does, and if the model reads no token ids.
    """
    model, body = checkpoint.model, _body(checkpoint)
    if body.tokens is None or ids.ndim != 2 or ids.numel() == 0:
        got = f"shape {tuple(ids.shape)} for a {model.adapter.architecture}"
        raise _bad_tokens(got, "token ids (batch, n) of a model that reads tokens")
    return _mapped(model, body, _embed_ids(model, body, ids))


def _mapped(model: Model, body: Body, x: Float[Tensor, "*batch n e"]) -> Tokens:
    if body.embedding_norm:
        x = model.norm(body.embedding_norm, x.shape[-1])(x)
    if body.embedding_map:
        x = _linear(model, body.embedding_map, (model.d_model, x.shape[-1]), 0)(x)
    return x


def final_norm(checkpoint: Checkpoint, x: Tokens) -> Tokens:
    """The model's output for `after` of its last block: behind the final norm, where there is one."""
    model, template = checkpoint.model, _body(checkpoint).final_norm
    if template is None or (template in _body(checkpoint).optional and not model.has(template)):
        return x
    return model.norm(template, model.d_model)(x)


def _blocks(checkpoint: Checkpoint, order: list[int], xs: list[Tokens]) -> Iterator[list[BlockStates]]:
    body, activation = _body(checkpoint), _activation(checkpoint.model)

    def steps(xs: list[Tokens]) -> Iterator[list[BlockStates]]:
        for index in order:
            states = _block(checkpoint.model, body, activation, index, xs)
            xs = [state.after for state in states]
            yield states

    return steps(xs)


def _block(
    model: Model, body: Body, activation: Callable[[Tensor], Tensor], index: int, xs: list[Tokens]
) -> list[BlockStates]:
    """One block: `x + attention(norm x)`, then `y + mlp(norm y)`; norms stand behind the sums if post-LN."""
    attention, name = model.layer(index), model.adapter.attention_norm
    if attention.norm is not None:
        seen = [attention.norm(x) for x in xs]
    elif name is not None:
        seen = xs
    else:
        raise _only_attention(model)
    added = [attention.attend(x) for x in seen]
    ys = [x + more for x, more in zip(xs, added, strict=True)]
    if attention.norm is None and name is not None:
        ys = list(map(model.norm(name, model.d_model, index), ys))
    del attention
    norm = model.norm(body.mlp_norm, model.d_model, index)
    perceptron = _perceptron(model, body, activation, index)
    if model.settings.norm_first:
        after = [y + perceptron(norm(y)) for y in ys]
    else:
        after = [norm(y + perceptron(y)) for y in ys]
    return [BlockStates(index, *states) for states in zip(xs, seen, added, after, strict=True)]


def _perceptron(
    model: Model, body: Body, activation: Callable[[Tensor], Tensor], index: int
) -> Callable[[Tokens], Tokens]:
    d = model.d_model
    up = _linear(model, body.up, (None, d), index)
    gate = None if body.gate is None else _linear(model, body.gate, (up.width, d), index)
    down = _linear(model, body.down, (d, up.width), index)
    if gate is None:
        return lambda x: down(activation(up(x)))
    return lambda x: down(activation(gate(x)) * up(x))


@dataclass(frozen=True, eq=False)
class _Linear:
    """A map (out, in) and its bias, called on tokens (..., in)."""

    weight: Tensor
    bias: Tensor | None

    @property
    def width(self) -> int:
        return self.weight.shape[0]

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def _linear(model: Model, template: str, shape: tuple[int | None, int | None], index: int) -> _Linear:
    weight = model.matrix(template, shape, index)
    return _Linear(weight, model.bias(template, weight.shape[0], index))


# ---- embedding


def _embed_ids(model: Model, body: Body, ids: Tensor) -> Float[Tensor, "*batch n e"]:
    if body.tokens is None or ids.dtype.is_floating_point or ids.dtype.is_complex:
        raise _bad_tokens(f"shape {tuple(ids.shape)} of {ids.dtype}", TOKEN_IDS)
    if ids.numel() == 0 or ids.dtype == torch.bool:
        raise _bad_tokens(f"{ids.numel()} ids of {ids.dtype}", "at least one token id")
    x = _rows(model, body.tokens, ids.long(), "a token id") * model.settings.embedding_scale
    if body.positions:
        x = x + _rows(model, body.positions, _positions(model, ids), "a position")
    if body.types:
        x = x + _rows(model, body.types, torch.zeros_like(ids, dtype=torch.long), "a token type")
    return x


def _positions(model: Model, ids: Tensor) -> Tensor:
    first, padding = model.settings.first_position, model.settings.padding
    if padding is None:
        return torch.arange(first, first + ids.shape[-1])
    counted = (ids != padding).long()
    return counted.cumsum(-1) * counted + padding


def _rows(model: Model, template: str, numbers: Tensor, what: str) -> Float[Tensor, "*batch n e"]:
    """Rows of a table, alone converted to float64."""
    key, adapter = model.key(template), model.adapter.architecture
    table = usable(model.state[key], key, (None, None), adapter) if key in model.state else None
    if table is None:
        return model.tensor(key, (None, None))  # which says that it is missing
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high >= len(table):
        got = f"{what} {low if low < 0 else high}"
        raise _bad_tokens(got, f"numbers from 0 to {len(table) - 1}, the rows of {key!r}")
    found = table[numbers].double()
    if not bool(found.isfinite().all()):
        raise _bad_tokens(f"rows of {key!r} that are NaN or infinite", "finite rows of the embedding")
    return found


def _embed_image(checkpoint: Checkpoint, body: Body, image: Tensor) -> Tokens:
    model, d = checkpoint.model, checkpoint.model.d_model
    if body.patches is None or image.ndim != 3 or not image.dtype.is_floating_point:
        got = f"shape {tuple(image.shape)} of {image.dtype}"
        raise _bad_tokens(got, "an image (C, H, W) of a floating-point type")
    weight = model.tensor(model.key(body.patches), (d, None, None, None))
    bias = model.bias(body.patches, d)
    size = checkpoint.config.get("image_size", list(image.shape[1:]))
    size = [size, size] if isinstance(size, int) else list(size)
    patch = weight.shape[2:]
    if image.shape[0] != weight.shape[1] or list(image.shape[1:]) != size:
        raise _bad_tokens(f"an image {tuple(image.shape)}", f"an image {(weight.shape[1], *size)}")
    patches = functional.conv2d(image.double()[None], weight, bias, stride=tuple(patch))[0].flatten(1).mT
    first = [
        model.tensor(model.key(template), (1, 1, d))[0]
        for template in body.first_tokens
        if template not in body.optional or model.has(template)
    ]
    x = torch.cat((*first, patches))
    return x if body.positions is None else x + model.tensor(model.key(body.positions), (1, len(x), d))[0]


def _embedded(model: Model, tokens: Tensor) -> Tokens:
    d = model.d_model
    if tokens.ndim != 2 or tokens.shape[1] != d or len(tokens) == 0 or not tokens.dtype.is_floating_point:
        got = f"shape {tuple(tokens.shape)} of {tokens.dtype}"
        raise _bad_tokens(got, f"embedded tokens (n, {d}), for this model has no embedding")
    if not bool(tokens.isfinite().all()):
        raise _bad_tokens("entries that are NaN or infinite", "finite tokens")
    return tokens.double()


# ---- what the checkpoint allows


def _body(checkpoint: Checkpoint) -> Body:
    model = checkpoint.model
    body = model.adapter.body
    if body is None or model.settings.norm_first is None or model.crosses():
        raise _only_attention(model)
    return body


def _order(checkpoint: Checkpoint, depth: int | None) -> list[int]:
    """Indices of layers in the order in which tokens pass them."""
    model, count, trained = checkpoint.model, len(checkpoint.layers), checkpoint.shared_layers
    if not model.adapter.shared:
        trained = count
    elif trained is None:
        trained = depth
    depth = trained if depth is None else depth
    most = None if model.adapter.shared else count
    if type(depth) is not int or trained is None or depth < 1 or (most is not None and depth > most):
        raise InputError(
            argument="depth",
            got=repr(depth),
            expected="a positive number of blocks" + ("" if most is None else f", at most {most}"),
            fix="iterate further only where weights are shared; pass depth where no config gives it",
        )
    if not model.adapter.shared:
        return list(range(depth))
    groups = len({numbers[0] for numbers in model.numbers})
    inner = count // groups
    which = [min(step * groups // trained, groups - 1) for step in range(depth)]
    return [group * inner + i for group in which for i in range(inner)]


def _activation(model: Model) -> Callable[[Tensor], Tensor]:
    name = model.settings.activation
    if name not in ACTIVATIONS:
        raise InputError(
            argument="path",
            got=f"a config with the activation {name!r}",
            expected="one of " + ", ".join(ACTIVATIONS),
            fix="use a model with one of these; its attention layers can be audited all the same",
        )
    return ACTIVATIONS[name]


def _only_attention(model: Model) -> InputError:
    reason = "its blocks attend to another sequence too" if model.crosses() else "only its attention is known"
    if model.adapter.body is not None and model.settings.norm_first is None:
        reason = "whether norms stand before or behind attention is not in the file"
    return InputError(
        argument="checkpoint",
        got=f"a checkpoint of {model.adapter.architecture}: {reason}",
        expected="a whole model",
        fix="audit its layers without running it (no --text, --ids or --image)"
        if model.adapter.body is None or model.crosses()
        else 'say "norm_first" in config.json',
    )


def _bad_tokens(got: str, expected: str) -> InputError:
    return InputError(argument="tokens", got=got, expected=expected, fix="pass what the model was trained on")
