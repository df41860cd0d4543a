"""The model of the experiments: an ordinary pre-LN Transformer of bytes or of patches of images."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from numerics.layers import RotaryDiagonal, definite_response
from numerics.layerwise import SCENARIOS as POSITIVE
from numerics.training.config import Run, Task

BYTES = 256


class Attention(nn.Module):
    """Self-attention (…, n, d) without biases, with the maps' names of `RotaryDiagonal`, but no encoding."""

    def __init__(self, d_model: int, heads: int, causal: bool) -> None:
        super().__init__()
        self.num_heads, self.causal = heads, causal
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(d_model, d_model, bias=False) for _ in range(4)
        )

    def forward(self, x: Float[Tensor, "*leading n d"]) -> Float[Tensor, "*leading n d"]:
        query, key, value = (
            proj(x).unflatten(-1, (self.num_heads, -1)).transpose(-2, -3)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        return self.o_proj(mixed.transpose(-2, -3).flatten(-2))


class Block(nn.Module):
    """x + attention(LN x), then y + MLP(LN y) with GELU."""

    def __init__(self, task: Task, attention: nn.Module) -> None:
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(task.d_model), attention
        self.mlp = nn.Sequential(
            nn.LayerNorm(task.d_model),
            nn.Linear(task.d_model, task.width),
            nn.GELU(),
            nn.Linear(task.width, task.d_model),
        )
        self.dropout = nn.Dropout(task.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm(x)))
        return x + self.dropout(self.mlp(x))


class Model(nn.Module):
    """Embedding, blocks, a last norm and a linear head; of images, the mean over patches comes before it.

    `embed` takes bytes (batch, n), or images as patches (batch, n, inputs); positions are learned and added
    where the encoding is absolute, else None.
    """

    def __init__(self, run: Run, tokens: int, inputs: int, classes: int) -> None:
        super().__init__()
        task = run.task
        d = task.d_model
        self.is_text = task.is_text
        self.embed = nn.Embedding(BYTES, d) if task.is_text else nn.Linear(inputs, d)
        self.blocks = nn.ModuleList(Block(task, _attention(run)) for _ in range(task.layers))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, classes)
        if task.is_text:
            nn.init.normal_(self.embed.weight, std=d**-0.5)
        positions = torch.randn(tokens, d) * d**-0.5  # the last draw: other encodings do without
        self.positions = nn.Parameter(positions) if run.encoding == "absolute" else None

    def states(self, x: Tensor) -> list[Float[Tensor, "batch n d"]]:
        """The tokens before the first block and after every block."""
        states = [self.embed(x)]
        if self.positions is not None:
            states[0] = states[0] + self.positions[: x.shape[1]]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states

    def forward(self, x: Int[Tensor, "batch n"] | Float[Tensor, "batch n inputs"]) -> Tensor:
        """Logits: (batch, n, 256) for bytes, (batch, classes) for images."""
        last = self.norm(self.states(x)[-1])
        return self.head(last if self.is_text else last.mean(1))


def _attention(run: Run) -> nn.Module:
    task = run.task
    if run.encoding == "absolute":
        return Attention(task.d_model, task.heads, causal=task.is_text)
    diagonal = "learned" if run.encoding == "rotary+D" else "none"
    return RotaryDiagonal(task.d_model, task.heads, diagonal=diagonal, causal=task.is_text)


def build(run: Run, tokens: int, inputs: int, classes: int) -> Model:
    """The model of a run as it starts, refined by its scenario.

    All draws come from the seed, in the same order for every scenario and encoding: runs of one seed start
    from the same plain weights, of which `definite_response` keeps the norms of queries, keys and V.
    """
    torch.manual_seed(run.seed)
    model = Model(run, tokens, inputs, classes)
    if run.scenario != "unconstrained":
        for block in model.blocks:
            definite_response(
                block.get_submodule("attention"),
                negative=1 - POSITIVE[run.scenario],
                antisymmetric=run.task.antisymmetric,  # pyright: ignore[reportArgumentType]
            )
    return model
