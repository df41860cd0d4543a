"""The refinements inside other people's modules: same module, same calls, other weights."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from numerics.adapters.layer import Rotary
from numerics.errors import InputError
from numerics.layers import (
    RotaryDiagonal,
    attention_maps,
    certificate_margin,
    definite_response,
    margin_penalty,
    plain_weights,
)

D, HEADS, N = 8, 2, 5
OPTIONS = ("none", "values", "scores", "both")

Call = Callable[[nn.Module, Tensor], Tensor]


def tokens(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(3, N, D, generator=torch.Generator().manual_seed(1)).to(dtype)


def multihead(**options: object) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(D, HEADS, batch_first=True, **options)


def attend(module: nn.Module, x: Tensor) -> Tensor:
    return module(x, x, x, need_weights=False)[0]


class Plain(nn.Module):
    """Attention with maps of its own names; `fused`: one map for query, key and value."""

    def __init__(self, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(D, 3 * D) if fused else None
        if not fused:
            self.q, self.k, self.v = (nn.Linear(D, D) for _ in range(3))
        self.proj = nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.qkv(x).chunk(3, -1) if self.qkv else (self.q(x), self.k(x), self.v(x))
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in rows)
        mixed = (query @ key.mT * (D // self.heads) ** -0.5).softmax(-1) @ value
        return self.proj(mixed.transpose(-2, -3).flatten(-2))


def _bert() -> tuple[nn.Module, Call]:
    from transformers import BertConfig
    from transformers.models.bert.modeling_bert import BertAttention

    config = BertConfig(hidden_size=D, num_attention_heads=HEADS, attn_implementation="eager")
    return BertAttention(config).eval(), lambda module, x: module(x)[0]


def _gpt2() -> tuple[nn.Module, Call]:
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    config = GPT2Config(n_embd=D, n_head=HEADS, attn_implementation="eager")
    return GPT2Attention(config, layer_idx=0).eval(), lambda module, x: module(x)[0]


def _llama(kv_heads: int = HEADS) -> tuple[nn.Module, Call]:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention

    config = LlamaConfig(
        hidden_size=D,
        num_attention_heads=HEADS,
        num_key_value_heads=kv_heads,
        attn_implementation="eager",
    )
    angles = torch.arange(N)[:, None] * torch.tensor([1.0, 0.01] * 2)[None]
    turn = angles.cos()[None], angles.sin()[None]
    return LlamaAttention(config, 0).eval(), lambda module, x: module(x, position_embeddings=turn)[0]


def _vit() -> tuple[nn.Module, Call]:
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTAttention

    config = ViTConfig(hidden_size=D, num_attention_heads=HEADS, attn_implementation="eager")
    return ViTAttention(config).eval(), lambda module, x: module(x)[0]


def _named(fused: bool) -> tuple[nn.Module, Call]:
    return Plain(HEADS, fused), lambda module, x: module(x)


MODULES = {
    "torch": lambda: (multihead(), attend),
    "torch without bias": lambda: (multihead(bias=False), attend),
    "named": lambda: _named(fused=False),
    "fused": lambda: _named(fused=True),
    "bert": _bert,
    "gpt2": _gpt2,
    "llama": _llama,
    "vit": _vit,
}
GIVEN = {
    "named": {"maps": ("q", "k", "v", "proj"), "heads": HEADS},
    "fused": {"maps": ("qkv", "proj"), "heads": HEADS},
}


def stir(module: nn.Module, size: float = 0.3, seed: int = 0) -> nn.Module:
    """Gaussian noise on every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator).to(parameter))
    return module


def quiet(*arguments: object, **options: object) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return definite_response(*arguments, **options)


def forms(module: nn.Module, **given: object) -> tuple[Tensor, Tensor]:
    """W and A of the whole layer, in float64."""
    maps = attention_maps(module, **given)
    maps = maps._replace(**{role: getattr(maps, role).detach().double() for role in maps._fields[:4]})
    W, V = maps.scores().sum(0), maps.values().sum(0)
    return W, W @ V.inverse()


def signs(matrix: Tensor) -> tuple[int, int]:
    values = torch.linalg.eigvalsh((matrix + matrix.mT) / 2)
    return int((values > 0).sum()), int((values < 0).sum())


def skew(matrix: Tensor) -> float:
    return float((matrix - matrix.mT).norm() / matrix.norm())


# ------------------------------------------------------------------------------------- the response


@pytest.mark.parametrize("kind", MODULES)
@pytest.mark.parametrize(("negative", "antisymmetric"), [(0.0, "none"), (1.0, "scores"), (0.25, "values")])
def test_signs_and_symmetry_in_every_kind_of_module(kind: str, negative: float, antisymmetric: str):
    module, call = MODULES[kind]()
    given = GIVEN.get(kind, {})
    before = call(module, tokens())
    definite_response(module, negative, antisymmetric, **given)
    stir(module)
    W, A = forms(module, **given)
    assert signs(W) == (D, 0)
    assert signs(A) == (D - round(negative * D), round(negative * D))
    # 1e-5: float32 products, and an inverse of condition below 100; a free part is of the order of 1
    assert (skew(W) > 1e-2) if antisymmetric == "scores" else (skew(W) < 1e-5)
    assert (skew(A) > 1e-2) if antisymmetric == "values" else (skew(A) < 1e-5)
    after = call(module, tokens())
    assert after.shape == before.shape
    assert (after - before).abs().max() > 1e-3
    plain_weights(module)
    assert not any("parametrizations" in name for name in module.state_dict())
    torch.testing.assert_close(call(module, tokens()), after, rtol=0, atol=1e-6)
    assert torch.equal(forms(module, **given)[0], W)


def test_every_head_has_the_same_response():
    """T15: A V_h = W_h for each head, whatever is symmetric."""
    module = stir(quiet(multihead(), 0.5, "both"))
    maps = attention_maps(module)
    _, A = forms(module)
    W, V = maps.scores().double(), maps.values().double()
    torch.testing.assert_close(A @ V, W, rtol=0, atol=1e-4 * W.abs().max().item())  # A: condition below 1e3


def test_linear_maps_without_a_module():
    torch.manual_seed(0)
    maps = [nn.Linear(D, D) for _ in range(4)]
    stir(nn.ModuleList(definite_response(maps, 1.0, heads=4)))
    assert signs(forms(maps, heads=4)[1]) == (0, D)
    torch.manual_seed(0)
    triple = definite_response([nn.Linear(D, D) for _ in range(3)], 0.5)
    stir(nn.ModuleList(triple))
    W, A = forms(triple)
    assert (signs(W), signs(A)) == ((D, 0), (D // 2, D // 2))
    assert skew(A) < 1e-5
    torch.testing.assert_close(attention_maps(triple).value.detach(), triple[2].weight.detach())
    assert not hasattr(plain_weights(triple)[2], "parametrizations")


def test_starts_with_the_norms_it_was_given():
    module = multihead()
    before = attention_maps(copy.deepcopy(module))
    after = attention_maps(definite_response(module))
    for role in ("query", "key"):
        torch.testing.assert_close(getattr(after, role).norm(), getattr(before, role).norm())
    torch.testing.assert_close(after.values().sum(0).norm(), before.values().sum(0).norm())


def test_starts_from_outputs_of_zero():
    module = multihead()
    nn.init.zeros_(module.out_proj.weight)
    definite_response(module, 1.0)
    assert 0 < attention_maps(module).output.norm() < 0.1
    assert signs(forms(module)[1]) == (0, D)


def test_biases_stay():
    module = multihead()
    nn.init.normal_(module.in_proj_bias)
    before = module.in_proj_bias.clone()
    definite_response(module)
    assert torch.equal(module.in_proj_bias, before)
    assert isinstance(module.in_proj_bias, nn.Parameter)


def test_both_says_that_it_is_not_enough():
    with pytest.warns(UserWarning, match="no theorem holds"):
        definite_response(multihead(), 1.0, "both")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for antisymmetric in OPTIONS[:3]:
            definite_response(multihead(), 1.0, antisymmetric)


@pytest.mark.parametrize("antisymmetric", OPTIONS)
def test_gradients(antisymmetric: str):
    module = stir(quiet(multihead(), 0.5, antisymmetric)).double()
    names, parameters = zip(*module.named_parameters(), strict=True)
    x = tokens(torch.float64)[:1]

    def run(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(module, named, (x, x, x), {"need_weights": False})[0]

    assert torch.autograd.gradcheck(run, tuple(p.detach().requires_grad_() for p in parameters))


def test_every_parameter_is_trained():
    for antisymmetric in OPTIONS:
        module = stir(quiet(multihead(), 0.5, antisymmetric))
        attend(module, tokens()).square().sum().backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.norm() > 0, name


def test_gradients_where_a_pivot_underflows():
    """softplus(−1000) is 0 in floats, and √ has no derivative there."""
    modules = definite_response(multihead(), 0.5), rotary("learned")
    for module in modules:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name.endswith(("query", "scores", "response", "diagonal")):
                    parameter.sub_(1000 * torch.ones_like(parameter).tril().triu())
    outputs = attend(modules[0], tokens()), modules[1](tokens())
    sum(output.square().sum() for output in outputs).backward()
    for module in modules:
        assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


def test_autocast_leaves_the_forms_alone():
    module = stir(definite_response(multihead(), 0.5))
    exact = forms(module)
    outside = attend(module, tokens())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = attend(module, tokens())
        assert all(torch.equal(a, b) for a, b in zip(forms(module), exact, strict=True))
    assert inside.dtype is torch.bfloat16
    # bfloat16 has 8 bits, a few products follow each other, and values are of the size of 1
    torch.testing.assert_close(inside.float(), outside, rtol=0, atol=0.05)


def test_half_precision_parameters():
    module = stir(definite_response(multihead(), 0.5)).bfloat16()
    assert module.in_proj_weight.dtype is torch.bfloat16
    W, A = forms(module)
    assert (signs(W), signs(A)) == ((D, 0), (D // 2, D // 2))


@pytest.mark.parametrize("kind", ["torch", "gpt2", "named"])
def test_compiles_without_a_graph_break(kind: str):
    module, call = MODULES[kind]()
    stir(definite_response(module, 0.5, "scores", **GIVEN.get(kind, {})))
    compiled = torch.compile(lambda x: call(module, x), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(tokens()), call(module, tokens()))
    compiled(tokens()).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_state_dict(tmp_path: Path):
    module = stir(definite_response(multihead(), 0.5, "values"))
    torch.save(module.state_dict(), tmp_path / "state.pt")
    torch.manual_seed(7)
    other = definite_response(nn.MultiheadAttention(D, HEADS, batch_first=True), 0.5, "values")
    assert not torch.allclose(attend(other, tokens()), attend(module, tokens()))
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(attend(other, tokens()), attend(module, tokens()))
    pointers = [value.data_ptr() for value in module.state_dict().values()]
    assert len(set(pointers)) == len(pointers)  # nothing is stored twice
    with pytest.raises(RuntimeError, match="response_turn"):
        definite_response(multihead(), 0.5).load_state_dict(module.state_dict())


def test_copies_are_independent():
    module = stir(definite_response(multihead(), 0.5))
    before = attend(module, tokens())
    copied = stir(copy.deepcopy(module), seed=1)
    assert torch.equal(attend(module, tokens()), before)
    assert not torch.allclose(attend(copied, tokens()), before)
    assert signs(forms(copied)[1]) == (D // 2, D // 2)
    plain_weights(copied)
    assert torch.equal(attend(module, tokens()), before)
    assert type(copied) is nn.MultiheadAttention


def test_moves():
    module = stir(definite_response(multihead(), 0.5))
    before, state = attend(module, tokens()), module.state_dict()
    module.to("meta")
    assert module.in_proj_weight.is_meta
    assert module.out_proj.weight.is_meta
    module.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(attend(module, tokens()), before)
    with torch.device("meta"):
        skeleton = definite_response(nn.MultiheadAttention(D, HEADS, batch_first=True), 0.5)
    skeleton.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(attend(skeleton, tokens()), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    module = stir(definite_response(multihead(), 0.5))
    before = attend(module, tokens())
    module.cuda()
    torch.testing.assert_close(attend(module, tokens().cuda()).cpu(), before, rtol=1e-3, atol=1e-3)
    assert signs(forms(module)[1].cpu()) == (D // 2, D // 2)


def test_inside_a_transformer_encoder():
    """Its fast path reads weights by attribute, so it must see the computed ones."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, HEADS, 16, dropout=0.0, batch_first=True)
    definite_response(layer.self_attn, 1.0)
    encoder = stir(nn.TransformerEncoder(layer, 2)).eval()
    slow = encoder(tokens())  # autograd is on
    with torch.no_grad():
        fast = encoder(tokens())
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)  # another kernel's order of summation
    for part in encoder.layers:
        assert signs(forms(part.self_attn)[1]) == (0, D)
    plain_weights(encoder)
    torch.testing.assert_close(encoder(tokens()), slow, rtol=0, atol=1e-6)


def test_frozen_weights_stay_frozen():
    module = multihead().requires_grad_(False)
    definite_response(module)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    plain_weights(module)
    assert {"in_proj_weight", "in_proj_bias"} <= dict(module.named_parameters()).keys()
    assert not module.in_proj_weight.requires_grad


def test_weights_cannot_be_assigned():
    module = definite_response(multihead())
    with pytest.raises(InputError, match="computed from the response"):
        module.in_proj_weight = torch.zeros(3 * D, D)


class Wide(nn.Module):
    """Heads of 3 rows in 8 dimensions."""

    num_heads = 2

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(D, 6) for _ in range(3))
        self.o_proj = nn.Linear(6, D)


def _broken() -> nn.MultiheadAttention:
    module = multihead()
    with torch.no_grad():
        module.in_proj_weight[0, 0] = torch.nan
    return module


def _normed() -> nn.MultiheadAttention:
    module = multihead()
    module.q_norm = nn.LayerNorm(D // HEADS)
    return module


BAD = {
    "normed queries": (_normed, {}, "scores that are QᵀK"),
    "other heads": (multihead, {"heads": 2 * HEADS}, "as the module says"),
    "antisymmetric": (multihead, {"antisymmetric": "all"}, "'none' keeps every theorem"),
    "negative": (multihead, {"negative": 1.5}, r"share in \[0, 1\]"),
    "nan": (multihead, {"negative": float("nan")}, r"share in \[0, 1\]"),
    "not whole": (multihead, {"negative": 0.3}, "whole number"),
    "twice": (lambda: definite_response(multihead()), {}, "parametrised already"),
    "head size": (Wide, {}, "heads × head size"),
    "heads": (lambda: [nn.Linear(D, D) for _ in range(4)], {"heads": 3}, "heads × head size"),
    "no heads": (lambda: [nn.Linear(D, D) for _ in range(4)], {}, "pass heads="),
    "grouped": (lambda: _llama(1)[0], {}, "grouped heads"),
    "keys": (lambda: nn.MultiheadAttention(D, HEADS, kdim=4), {}, "another width"),
    "appended": (lambda: multihead(add_bias_kv=True), {}, "appended"),
    "unknown": (lambda: nn.Sequential(nn.Linear(D, D)), {}, "unknown names"),
    "name": (lambda: Plain(2, fused=False), {"maps": ("a", "b", "c")}, "'a', which Plain"),
    "two": (lambda: Plain(2, fused=False), {"maps": ("q",), "heads": 2}, "1 maps"),
    "kind": (lambda: Wide().requires_grad_(), {"maps": ("", "q_proj"), "heads": 2}, "nn.Linear"),
    "concatenated": (lambda: [nn.Linear(D, D) for _ in range(3)], {"heads": 2}, "one head"),
    "types": (lambda: [nn.Linear(D, D).to(t) for t in (torch.float64, *[torch.float32] * 2)], {}, "one type"),
    "not finite": (_broken, {}, "not finite"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str):
    make, options, message = BAD[case]
    with pytest.raises(InputError, match=message):
        definite_response(make(), **options)


def test_nothing_to_turn_back():
    with pytest.raises(InputError, match="no refined attention"):
        plain_weights(multihead())


def _other(name: str) -> nn.Module:
    from transformers import AlbertConfig, BartConfig, DistilBertConfig
    from transformers.models.albert.modeling_albert import AlbertAttention
    from transformers.models.bart.modeling_bart import BartAttention
    from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention

    if name == "albert":
        config = AlbertConfig(hidden_size=D, num_attention_heads=HEADS, embedding_size=4)
        return AlbertAttention(config)
    if name == "distilbert":
        return DistilBertSelfAttention(DistilBertConfig(dim=D, n_heads=HEADS))
    return BartAttention(D, HEADS, config=BartConfig(d_model=D))


@pytest.mark.parametrize("name", ["albert", "distilbert", "bart"])
def test_other_names(name: str):
    module = stir(definite_response(_other(name), 0.25))
    assert attention_maps(module).heads == HEADS
    assert signs(forms(module)[1]) == (6, 2)


def test_scale_of_the_scores_is_the_modules_own():
    """GPT-2 can divide its scores by the number of the layer."""
    from transformers import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2Attention

    config = GPT2Config(n_embd=D, n_head=HEADS, scale_attn_by_inverse_layer_idx=True)
    maps = attention_maps(GPT2Attention(config, layer_idx=2))
    assert maps.scale == pytest.approx((D // HEADS) ** -0.5 / 3)
    query, key = maps.query[: D // HEADS], maps.key[: D // HEADS]
    torch.testing.assert_close(maps.scores()[0], query.mT @ key * maps.scale)


# --------------------------------------------------------------------------------------- the margin


@torch.no_grad()
def _exact_margin(module: nn.Module, kind: str, metric: Tensor) -> float:
    """λ_min(W_s − Σν_h M) by its definition, with square roots of M from its eigenvectors."""
    maps = attention_maps(module)
    sign = 1 if kind == "divergence" else -1
    values, vectors = torch.linalg.eigh(metric)
    root = (vectors / values.sqrt()) @ vectors.mT
    W = maps.scores().sum(0)
    gaps = root @ (sign * metric @ maps.values() - maps.scores()) @ root
    nu = torch.linalg.matrix_norm(gaps, ord=2).sum()
    lowest = torch.linalg.eigvalsh((W + W.mT) / 2 - nu * metric)[0]
    return float(lowest)


@pytest.mark.parametrize("kind", ["divergence", "boundedness"])
def test_margin_is_a_lower_bound(kind: str):
    for seed in range(5):
        module = stir(multihead(), seed=seed).double()
        generator = torch.Generator().manual_seed(seed)
        metric = softplus(torch.randn(D, generator=generator).double())
        exact = _exact_margin(module, kind, metric.diag())
        bound = certificate_margin(module, kind, metric).item()
        matrix = certificate_margin(module, kind, metric.diag()).item()
        assert bound <= exact
        assert bound > exact - 0.2 * abs(exact) - 0.1  # the norm costs a factor d^(1/32) at most, here 1.07
        assert matrix == pytest.approx(bound, rel=1e-9)


@pytest.mark.parametrize(("negative", "kind"), [(0.0, "divergence"), (1.0, "boundedness")])
def test_a_definite_response_has_a_margin(negative: float, kind: str):
    """With M = |A| every N_h is 0, so that the margin is λ_min(W_s) itself, up to the smooth minimum."""
    module = stir(definite_response(multihead(), negative)).double()
    W, A = forms(module)
    metric = (A + A.mT) / 2 * (1 if negative == 0 else -1)
    margin = certificate_margin(module, kind, metric, sharpness=1e4).item()
    lowest = torch.linalg.eigvalsh((W + W.mT) / 2)[0]
    assert margin == pytest.approx(float(lowest), abs=1e-3)  # log(8)/1e4 = 2e-4, and A's own rounding
    assert margin > 0
    other = "boundedness" if kind == "divergence" else "divergence"
    assert certificate_margin(module, other, metric) < 0


def test_margin_without_a_multiple_of_the_identity():
    """Where V points away from W no μ > 0 helps, and M → 0 leaves λ_min(W_s) − Σ‖W_h‖."""
    module = definite_response(multihead(), 1.0).double()
    with torch.no_grad():
        scores = attention_maps(module).scores()
        worst = torch.linalg.matrix_norm(scores, ord=2).sum()
    lowest = torch.linalg.eigvalsh(scores.sum(0))[0]
    margin = certificate_margin(module, "divergence", sharpness=1e4).item()
    assert margin < 0
    assert margin > lowest - 1.1 * worst  # 8^(1/32) = 1.07, and the smooth minimum
    assert margin <= lowest - worst + 1e-12


def test_margin_scales_with_the_scores_alone():
    module = stir(multihead()).double()
    before = certificate_margin(module)
    with torch.no_grad():
        module.in_proj_weight[:D] *= 3
        module.out_proj.weight *= 5
    torch.testing.assert_close(certificate_margin(module), 3 * before)


def test_penalty_trains_an_unconstrained_module():
    """From no certificate to one, with a learned diagonal M."""
    module = multihead()
    raw = nn.Parameter(torch.zeros(D))
    optimizer = torch.optim.Adam([*module.parameters(), raw], lr=0.01)
    assert certificate_margin(module, metric=softplus(raw)) < -0.5
    for _ in range(600):
        optimizer.zero_grad()
        margin_penalty(module, metric=softplus(raw), target=0.05).backward()
        optimizer.step()
    exact = _exact_margin(module.double(), "divergence", softplus(raw.detach().double()).diag())
    assert exact > 0


def test_penalty_is_zero_beyond_its_target():
    module = definite_response(multihead())
    margin = certificate_margin(module).item()
    assert margin > 0
    assert margin_penalty(module, target=margin / 2) == 0
    assert margin_penalty(module, target=margin + 1).item() == pytest.approx(1)


def test_margin_gradients():
    module = stir(multihead()).double()
    names, parameters = zip(*module.named_parameters(), strict=True)
    metric = torch.linspace(1, 2, D).double().requires_grad_()

    def margin(metric: Tensor, *values: Tensor) -> Tensor:
        holder = copy.deepcopy(module)
        for name, value in zip(names, values, strict=True):
            owner = holder.get_submodule(name.rpartition(".")[0])
            delattr(owner, name.rpartition(".")[2])
            setattr(owner, name.rpartition(".")[2], value)
        return certificate_margin(holder, "divergence", metric)

    assert torch.autograd.gradcheck(margin, (metric, *(p.detach().requires_grad_() for p in parameters)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "growth"}, "divergence or boundedness"),
        ({"metric": torch.ones(3)}, "shape"),
        ({"metric": -torch.ones(D)}, "not positive definite"),
    ],
)
def test_margin_bad_input(options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        certificate_margin(multihead(), **options)


# --------------------------------------------------------------------------------- rotary + diagonal


def _dense(module: RotaryDiagonal, x: Tensor, extra: Tensor | float, causal: bool) -> Tensor:
    """Attention of tokens (n, d) from its whole matrix of scores, with rotations of another module."""
    rotary = Rotary(base=module.base, dims=D // HEADS, layout="half-split")
    query, key, value = (
        proj(x).unflatten(-1, (HEADS, -1)).transpose(-2, -3)
        for proj in (module.q_proj, module.k_proj, module.v_proj)
    )
    scores = rotary.turn(query) @ rotary.turn(key).mT * module.scaling + extra
    if causal:
        scores = scores.masked_fill(~torch.ones(N, N, dtype=torch.bool).tril(), -torch.inf)
    return module.o_proj((scores.softmax(-1) @ value).transpose(0, 1).flatten(1))


def rotary(diagonal: str, **options: object) -> RotaryDiagonal:
    torch.manual_seed(0)
    return RotaryDiagonal(D, HEADS, diagonal=diagonal, **options)


@pytest.mark.parametrize("causal", [False, True])
def test_learned_diagonal_is_added_to_the_scores(causal: bool):
    module = stir(rotary("learned", causal=causal, bias=True)).double()
    x = tokens(torch.float64)
    extra = [(row * softplus(module.diagonal)[:, None]) @ row.mT for row in x]
    expected = torch.stack([_dense(module, row, add, causal) for row, add in zip(x, extra, strict=True)])
    torch.testing.assert_close(module(x), expected)


def test_learned_diagonal_starts_as_in_the_paper():
    diagonal = rotary("learned").diagonal
    assert diagonal is not None
    torch.testing.assert_close(softplus(diagonal), torch.full((HEADS, D), 0.05))


def test_margin_mode_adds_unrotated_scores():
    module = definite_response(rotary("margin"), 0.0).double()
    x = tokens(torch.float64)[0]
    torch.testing.assert_close(module(x), _dense(module, x, 0.0, causal=False))
    kappa = module.fit_kappa(N)
    assert kappa > 0
    split = [proj(x).unflatten(-1, (HEADS, -1)).transpose(-2, -3) for proj in (module.q_proj, module.k_proj)]
    extra = kappa * module.scaling * split[0] @ split[1].mT
    # 1e-6: κ is kept in the type of the module's buffers when it was made, float32, then widened
    torch.testing.assert_close(module(x), _dense(module, x, extra, causal=False), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("negative", "antisymmetric"), [(0.0, "none"), (1.0, "none"), (1.0, "values")])
def test_kappa_meets_the_condition_and_no_more(negative: float, antisymmetric: str):
    """δ < (1 + κ)(λ − e) with dense d × d matrices in the norm of |A_s|: δ = (1 + κ)(λ − e)/1.05."""
    module = stir(definite_response(rotary("margin"), negative, antisymmetric), 0.05).double()
    kappa = module.fit_kappa(N)
    maps = attention_maps(module)
    W, A = forms(module)
    values, vectors = torch.linalg.eigh((A + A.mT) / 2)
    root = (vectors / values.abs().sqrt()) @ vectors.mT
    encoding = Rotary(base=module.base, dims=D // HEADS, layout="half-split")
    # row i of the turned stack of equal rows is R_i times the row
    turned = encoding.turn(torch.eye(D // HEADS).double()[:, None].expand(-1, N, -1))
    rotations = [turned[:, r].mT for r in range(1, N)]
    delta = 0.0
    for query, key in zip(maps.query.chunk(HEADS), maps.key.chunk(HEADS), strict=True):
        gaps = [
            query.mT @ (turn - torch.eye(D // HEADS)) @ key * maps.scale
            for rotation in rotations
            for turn in (rotation, rotation.mT)
        ]
        delta += max(float(torch.linalg.matrix_norm(root @ gap.detach() @ root, ord=2)) for gap in gaps)
    lowest = float(torch.linalg.eigvalsh(root @ ((W + W.mT) / 2) @ root)[0])
    gaps = root @ ((A + A.mT) / 2 @ maps.values().detach() - maps.scores().detach()) @ root
    tie = float(torch.linalg.matrix_norm(gaps, ord=2).sum())
    assert (tie > 0.05 * lowest) == (antisymmetric == "values")
    assert kappa > 0
    assert 1 + kappa == pytest.approx(1.05 * delta / (lowest - tie), rel=1e-6)  # float64, twice
    assert module.fit_kappa(1) == 0
    assert module.fit_kappa(2) <= kappa


def test_rotary_compiles_and_saves():
    for diagonal in ("learned", "margin", "none"):
        module = definite_response(rotary(diagonal), 1.0)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(tokens()), module(tokens()))
        stir(module)
        if diagonal == "margin":
            module.fit_kappa(N)
        other = definite_response(rotary(diagonal), 1.0)
        other.load_state_dict(module.state_dict())
        assert torch.equal(other(tokens()), module(tokens()))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert module(tokens()).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RotaryDiagonal(6, 2), "even head size"),
        (lambda: RotaryDiagonal(D, 3), "even head size"),
        (lambda: rotary("free"), "learned, margin, none"),
        (lambda: rotary("learned").fit_kappa(4), "diagonal='margin'"),
        (lambda: rotary("margin").fit_kappa(0), "length ≥ 1"),
        (lambda: rotary("margin").fit_kappa(2.5), "length ≥ 1"),  # pyright: ignore[reportArgumentType]
        (lambda: rotary("margin").fit_kappa(4, slack=float("nan")), "finite slack > 0"),
        (lambda: rotary("margin").fit_kappa(4), "definite A_s"),
        (lambda: definite_response(rotary("margin"), 0.5).fit_kappa(4), "definite A_s"),
        (lambda: stir(definite_response(rotary("margin"), 0.0, "values"), 0.3).fit_kappa(4), "symmetric"),
    ],
)
def test_rotary_bad_input(make: Callable[[], object], message: str):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("sharpness", [0.0, -5.0, float("nan"), float("inf")])
def test_a_sharpness_that_bounds_nothing_is_refused(sharpness: float):
    with pytest.raises(InputError, match="sharpness"):
        certificate_margin(multihead(), sharpness=sharpness)


def test_scores_that_are_zero_have_no_positive_margin():
    module = multihead()
    with torch.no_grad():
        module.in_proj_weight[:D] = 0
    assert certificate_margin(module).item() <= 0
