"""One chunk of a sweep: its systems are drawn from its seed, integrated and measured (docs/sweep.md)."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from numerics import families, observables
from numerics.encodings import Rotary, alibi_bias, rotary_turns
from numerics.integrate import integrate
from numerics.kernel import stable_attention
from numerics.shapes import HeadForms, Rows, Tokens
from numerics.solution import Outcome, Solution
from numerics.sweep_plan import NUMBERS, Chunk, Plan, Range, Shape, Values
from numerics.system import AttentionSystem, batch_last

INTERVALS = 8
"""Output times after the start. Rates are over the last quarter of those that a system reached."""

Columns = dict[str, Tensor | list]


@dataclass(frozen=True, eq=False)
class Draw:
    """The systems of a chunk: their numbers by name (batch,), response matrices, and tokens at the start."""

    numbers: dict[str, Tensor]
    response: HeadForms
    system: AttentionSystem
    tokens: Tokens


def compute(plan: Plan, chunk: Chunk) -> Columns:
    """The rows of a chunk, one per system, as columns; a function of its arguments alone (docs/sweep.md)."""
    shape, run, drawn = chunk.group.shape, plan.run, draw(plan, chunk)
    times = torch.linspace(0, run.until, INTERVALS + 1, dtype=torch.float64)
    limits = {"rtol": run.rtol, "atol": run.atol, "max_steps": run.max_steps, "escape": run.escape}
    solution = integrate(drawn.system, drawn.tokens, times, method=run.method, **limits)
    return {
        "system": torch.arange(chunk.first, chunk.first + chunk.size),
        "chunk": torch.full((chunk.size,), chunk.number),
        "seed": torch.full((chunk.size,), chunk.seed),
        **{name: [getattr(shape, name)] * chunk.size for name in vars(shape)},
        **drawn.numbers,
        "outcome": [Outcome(kind).name for kind in solution.outcome.tolist()],
        "steps": solution.steps,
        "stiff_steps": solution.stiff_steps,
        "last_time": solution.last_time,
        **_measured(solution, drawn.system),
        **_margins(drawn, shape),
    }


# Drawing


def draw(plan: Plan, chunk: Chunk) -> Draw:
    """The systems of a chunk and their starts."""
    shape, generator = chunk.group.shape, torch.Generator().manual_seed(chunk.seed)
    numbers = _numbers(plan, chunk, generator)
    score = _forms("score", numbers, chunk.size, shape, generator)
    response = _forms("response", numbers, chunk.size, shape, generator)
    value = torch.linalg.solve_ex(response, score).result  # not finite where A is singular: an INVALID row
    tokens = families.random_tokens(chunk.size, shape.n, shape.d, numbers["scale"], generator)
    if shape.sphere:
        tokens = torch.nn.functional.normalize(tokens, dim=-1)
    encoding = _encoding(shape, score, numbers, generator)
    system = AttentionSystem(score, value, causal=shape.causal, sphere=shape.sphere, **encoding)
    return Draw(numbers, response, system, tokens)


def _numbers(plan: Plan, chunk: Chunk, generator: Generator) -> dict[str, Tensor]:
    """The numbers of the design (batch,), NaN where the encoding has no use for one.

    A grid counts through its combinations, the last number fastest.
    """
    values = chunk.group.values
    if not plan.replicas:
        numbers = {name: _random(choices, chunk.size, generator) for name, choices in values.items()}
    else:
        combination = torch.arange(chunk.start, chunk.start + chunk.size) // plan.replicas
        choices = {name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()}
        indices = torch.unravel_index(combination, tuple(map(len, choices.values())))
        numbers = {name: v[index] for (name, v), index in zip(choices.items(), indices, strict=True)}
    d = chunk.group.shape.d
    for name in ("score_positive", "response_positive"):
        numbers[name] = (numbers[name] * d).round() / d
    absent = torch.full((chunk.size,), torch.nan, dtype=torch.float64)
    return {name: numbers.get(name, absent) for name in NUMBERS}


def _random(values: Values, size: int, generator: Generator) -> Tensor:
    if not isinstance(values, Range):
        return torch.tensor(values, dtype=torch.float64)[
            torch.randint(len(values), (size,), generator=generator)
        ]
    uniform = torch.rand(size, dtype=torch.float64, generator=generator)
    if not values.log:
        return values.low + (values.high - values.low) * uniform
    return values.low * torch.exp(math.log(values.high / values.low) * uniform)


def _forms(
    matrix: str, numbers: dict[str, Tensor], size: int, shape: Shape, generator: Generator
) -> HeadForms:
    """W or A, drawn for every head from the same numbers."""
    positive, smallest, largest, share = (
        numbers[f"{matrix}_{name}"].repeat_interleave(shape.heads)
        for name in ("positive", "smallest", "largest", "antisymmetric")
    )
    forms = families.random_form(
        size * shape.heads,
        shape.d,
        positive=(positive * shape.d).round(),
        spectrum=(smallest, largest),
        antisymmetric_share=share,
        generator=generator,
    )
    return forms if shape.heads == 1 else forms.view(size, shape.heads, shape.d, shape.d)


def _encoding(shape: Shape, score: HeadForms, numbers: dict[str, Tensor], generator: Generator) -> dict:
    """The switch of AttentionSystem. Rotary scores have K = I, Q = Wᵀ; an orthogonal K gives the same law."""
    size, n, d = len(score), shape.n, shape.d
    if shape.encoding == "absolute":
        return {"positions": families.random_tokens(size, n, d, numbers["position_scale"], generator)}
    if shape.encoding == "rotary":
        bases, index = numbers["rotary_base"].unique(return_inverse=True)
        turns = torch.stack([rotary_turns(n, d, base=base) for base in bases.tolist()])[index]
        return {"rotary": Rotary(score.mT.contiguous(), torch.eye(d).double().expand_as(score), turns)}
    if shape.encoding == "alibi":
        return {"bias": alibi_bias(n, numbers["alibi_slope"])}
    return {}


# Measuring


def _measured(solution: Solution, system: AttentionSystem) -> Columns:
    """Sizes and attention at the last output time that a system reached, and rates up to there."""
    last = (~solution.states.isnan().any(-1).any(-1)).sum(1).sub(1).clamp(min=0)
    earlier = 3 * last // 4
    now, before = (_sizes(solution, index) for index in (last, earlier))
    start = _sizes(solution, torch.zeros_like(last))
    span = solution.times[last] - solution.times[earlier]  # 0 if only the start was reached: NaN
    rows = torch.arange(len(last))
    tokens, log_scale = solution.states[rows, last], solution.log_scale[rows, last]
    attention = stable_attention(batch_last(tokens), system.kernel(tokens.shape[1]), log_scale)
    return {
        "time": solution.times[last],
        "log_norm_start": start[0],
        "log_norm": now[0],
        "norm_rate": (now[0] - before[0]) / span,
        "log_diameter_start": start[1],
        "log_diameter": now[1],
        "diameter_rate": (now[1] - before[1]) / span,
        "entropy": torch.special.entr(attention).sum(1).flatten(0, -2).mean(0),
    }


def _sizes(solution: Solution, index: Tensor) -> tuple[Rows, Rows]:
    """log max |x| and log of the diameter at one output time per system; −inf where they are 0."""
    rows = torch.arange(len(index))
    tokens, log_scale = solution.states[rows, index], solution.log_scale[rows, index]
    peak = tokens.abs().amax((1, 2))
    tokens = tokens / torch.where(peak > 0, peak, 1.0)[:, None, None]
    diameter = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist").amax((1, 2))
    log_norm = peak.log() + log_scale
    return log_norm, diameter.log() + log_norm.clamp(min=-1e300)


def _margins(drawn: Draw, shape: Shape) -> Columns:
    """Diagnostics of the weights in floats, never verdicts; NaN where a system has no such number."""
    V = drawn.system.value if shape.heads == 1 else drawn.system.value.sum(1)
    absent = torch.full((len(V),), torch.nan, dtype=torch.float64)
    columns: Columns = {
        "value_abscissa": observables.spectral_abscissa(V),
        "value_antisymmetric": observables.antisymmetric_share(V),
        "pencil_minimum": absent,
        "start_margin": absent,
    }
    if shape.heads == 1:
        negative = drawn.numbers["response_positive"] == 0
        form = torch.where(negative[:, None, None], -drawn.response, drawn.response)
        pencil = observables.pencil_minimum(drawn.system.score, form)
        energy = observables.token_energy(drawn.tokens, form).amax(1)
        threshold = torch.where(pencil > 0, math.log(shape.n) / (2 * pencil), torch.nan)
        columns |= {"pencil_minimum": pencil, "start_margin": energy - threshold}
    return columns
