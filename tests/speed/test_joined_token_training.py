"""T2T-ViT's blocks joined for training learn what their layers learn, and step aside, for these, where native code is not meant."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.layers.dropout import Dropout
from foveate.layers.mlp import Mlp
from foveate.models.t2t_vit import Attention, Block
from foveate.speed import native_token_training
from foveate.speed.joined_token_training import JoinedTokenTrainingBlock
from foveate.speed.joining import filled_up
from foveate.speed.native_token_training import attend_gradients, can_join
from foveate.speed.native_tokens import attend
from joined_modules import joined_copy, random_map
from training_steps import (
    assert_backward_leaves_autocast,
    assert_bfloat16_is_no_worse,
    assert_close,
    assert_default_format_does_not_matter,
    assert_gradients_are_slopes,
    assert_threads_change_nothing,
    assert_trains_alike,
    learnt,
)

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")

STEP = "blocks joined: native attention and passes around the matrix products, forward and backward"
SHAPES = [(1, 1, 1, 1), (2, 5, 3, 12), (3, 197, 2, 64), (2, 50, 2, 33), (1, 785, 3, 64), (2, 48, 1, 16), (1, 97, 2, 80), (1, 49, 1, 200)]


def exact_gradient(qkv: Tensor, bias: Tensor, outer: Tensor, heads: int, scale: float) -> Tensor:
    """The gradient through softmax attention to `qkv`, by its equation in float64."""
    qkv = qkv.double().requires_grad_()
    q, k, v = (qkv + bias.double().flatten()).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    y = ((scale * q @ k.transpose(-1, -2)).softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
    return torch.autograd.grad(y, qkv, outer.double())[0]


def native_gradient(qkv: Tensor, bias: Tensor, outer: Tensor, heads: int, scale: float) -> Tensor:
    peaks = torch.empty(len(qkv), heads, qkv.shape[1], 2)
    y = attend(qkv, heads, bias, scale, peaks)
    return attend_gradients(qkv, y, peaks, outer, bias, scale)


@pytest.mark.parametrize(("pictures", "tokens", "heads", "width"), SHAPES)
def test_gradients_through_native_attention(pictures: int, tokens: int, heads: int, width: int) -> None:
    qkv, bias = random_map(pictures, tokens, 3 * heads * width), random_map(3, heads, width, seed=1)
    outer = random_map(pictures, tokens, heads * width, seed=2)
    for dtype, tolerance in ((torch.float32, 2e-5), (torch.bfloat16, 0.02)):
        given, further = qkv.to(dtype), outer.to(dtype)
        found = native_gradient(given, filled_up(bias), further, heads, 0.3)
        assert found.dtype == dtype
        assert_close({"qkv": found}, {"qkv": exact_gradient(given, bias, further, heads, 0.3)}, tolerance)


@pytest.mark.parametrize("size", [1e-30, 3.0, 1e4])
def test_gradients_hold_at_any_magnitude(size: float) -> None:
    """At large ones a query hears of one key alone, and nothing but rounding leads back to it, times the queries to the keys."""
    qkv, outer, none = random_map(1, 70, 3 * 32), random_map(1, 70, 32, seed=1), torch.zeros(3, 1, 32)
    qkv[..., :32] *= size
    parts = (found.chunk(3, dim=-1) for found in (native_gradient(qkv, none, outer, 1, 1.0), exact_gradient(qkv, none, outer, 1, 1.0)))
    for found, expected, factor in zip(*parts, (1.0, max(size, 1.0), 1.0), strict=True):
        torch.testing.assert_close(found.double(), expected, atol=1e-3 * float(expected.abs().max()) + 2e-5 * factor, rtol=1e-3)


def make_block(width: int = 48, heads: int = 3, hidden: int = 100, drop: float = 0.0, drop_path: float = 0.3) -> Any:
    """A block in training with random weights everywhere."""
    block: Any = Block(width, Attention(width, heads), Mlp(width, hidden, inner_drop=drop, drop=drop), drop_path)
    generator = torch.Generator().manual_seed(width)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return block.train()


joined = partial(joined_copy, JoinedTokenTrainingBlock)


@pytest.mark.parametrize(
    "form", [{}, {"width": 64, "heads": 1, "hidden": 192}, {"width": 36, "hidden": 37}, {"width": 33, "drop_path": 0.0}], ids=str
)
def test_a_joined_block_learns_as_the_block(form: dict[str, Any]) -> None:
    block = make_block(**form)
    fast, exact, width = joined(block), copy.deepcopy(block).double(), block.attn.proj.in_features
    for seed, (pictures, tokens) in enumerate([(1, 1), (2, 3), (3, 17), (1, 197), (5, 50)]):
        x = random_map(pictures, tokens, width, seed=seed)
        before = x.clone()
        assert_close(learnt(fast, x), learnt(exact, x.double()))
        assert torch.equal(x, before)


def test_threads_change_nothing_but_rounding() -> None:
    assert_threads_change_nothing(joined(make_block()), random_map(2, 61, 48))


def test_what_is_not_contiguous_is_read_as_the_layers_do() -> None:
    """Tokens, weights, and the gradient of a sum, which is one number in memory."""
    block, x, gradients = make_block(drop_path=0.0), random_map(2, 96, 9).transpose(1, 2)[..., ::2], []
    for model in (joined(block), copy.deepcopy(block).double()):
        model.norm1.eps, model.norm2.eps = 0.1, 0.001
        for layer in (model.attn.proj, model.norm1):
            layer.bias.data = layer.bias.data.repeat_interleave(2)[::2]
        assert not x.is_contiguous()
        assert not model.norm1.bias.is_contiguous()
        torch.manual_seed(0)
        given = x.detach().to(next(model.parameters()).dtype).requires_grad_()
        model(given).sum().backward()
        gradients.append({"x": given.grad} | {name: parameter.grad for name, parameter in model.named_parameters()})
    assert_close(gradients[0], gradients[1])


def test_gradients_that_are_negated_in_name_alone() -> None:
    fast, x = joined(make_block(drop_path=0.0)), random_map(2, 9, 48).requires_grad_()
    y, gradient = fast(x), random_map(2, 9, 48, seed=1)
    (expected,) = torch.autograd.grad(y, x, -gradient, retain_graph=True)
    (found,) = torch.autograd.grad(y, x, torch._neg_view(gradient))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    view = torch._neg_view(x.detach())
    torch.testing.assert_close(fast(view), fast(-x.detach()), atol=2e-5, rtol=2e-5)


def test_biases_may_change_between_two_backward_passes() -> None:
    """As where they alone are learnt."""
    fast, x = joined(make_block(hidden=96)), random_map(2, 9, 48)
    for name, parameter in fast.named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    losses = [fast(x).sum(), fast(x).sum()]
    losses[0].backward()
    with torch.no_grad():
        for layer in (fast.attn.proj, fast.mlp.fc1, fast.mlp.fc2):
            layer.bias.add_(0.1)
    losses[1].backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_default_number_format_does_not_matter(dtype: torch.dtype) -> None:
    assert_default_format_does_not_matter(joined(make_block()), random_map(2, 9, 48), dtype)


def test_backward_may_run_twice() -> None:
    fast, x = joined(make_block(drop=0.2)), random_map(3, 17, 48).requires_grad_()
    loss = fast(x).square().sum()
    once = torch.autograd.grad(loss, (x, *fast.parameters()), retain_graph=True)
    twice = torch.autograd.grad(loss, (x, *fast.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(once, twice, strict=True))


def test_gradients_go_through_the_numbers_that_dropout_kept() -> None:
    assert_gradients_are_slopes(joined(make_block(drop=0.4)), random_map(3, 17, 48))


def test_no_dropout_in_evaluation_and_everything_at_rate_one() -> None:
    block, x = make_block(drop=0.3), random_map(2, 9, 48)
    with torch.no_grad():
        torch.testing.assert_close(joined(block.eval())(x), block(x.clone()), atol=1e-5, rtol=1e-5)
    found = learnt(joined(make_block(drop=1.0, drop_path=0.0)), x)
    assert float(found["mlp.fc2.weight"].abs().max()) == 0.0
    assert found["y"].isfinite().all()


@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_bfloat16_under_autocast(drop: float) -> None:
    """Tokens stay in float32 from block to block."""
    block, x = make_block(drop=drop, drop_path=0.0), random_map(3, 50, 48)
    assert_bfloat16_is_no_worse(joined(block), block, x, exactly=drop == 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert joined(block)(x).dtype == torch.float32


def test_a_backward_pass_under_autocast_is_in_the_number_format_of_the_forward_pass() -> None:
    assert_backward_leaves_autocast(joined(make_block(drop_path=0.0)), random_map(2, 9, 48))


def test_frozen_weights_get_no_gradients() -> None:
    fast, frozen = joined(make_block()), ("attn.qkv.weight", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.bias")
    expected = learnt(fast, random_map(2, 9, 48))
    for name, parameter in fast.named_parameters():
        parameter.requires_grad_(name not in frozen)
    found = learnt(fast, random_map(2, 9, 48))
    assert {name for name, value in found.items() if value is None} == set(frozen)
    assert all(torch.equal(value, expected[name]) for name, value in found.items() if value is not None)


@pytest.mark.parametrize("name", ["t2t_vit_7", "t2t_vit_t_14", "t2t_vit_14_resnext", "t2t_vit_14_wide"])
def test_a_model_learns_the_same_joined(name: str) -> None:
    """Ten steps of a whole model, of one with gradient checkpointing; what was learnt can be optimized for inference."""
    torch.manual_seed(0)
    plain = foveate.create_model(name, depth=2, num_classes=5).train()
    for layer in plain.token_stage.modules():
        if isinstance(layer, Dropout):
            layer.p = 0.0
    fast = copy.deepcopy(plain)
    assert foveate.optimize_for_training(fast)[0] == f"2 {STEP}"
    assert fast.state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(6, 3, 64, 48)
    fast.set_grad_checkpointing(name == "t2t_vit_7")
    assert_trains_alike(plain, fast, x, lr=0.01)
    inferring = foveate.optimize(fast)
    assert "2 blocks joined: native attention and passes around four matrix products" in inferring.optimized[-1]
    with torch.no_grad():
        torch.testing.assert_close(inferring(x), fast.eval()(x), atol=1e-4, rtol=1e-4)


def test_blocks_with_other_attention_are_left_alone() -> None:
    for name in ("t2t_vit_14_se", "t2t_vit_16_ghost"):
        assert not any("blocks" in step for step in foveate.optimize_for_training(foveate.create_model(name, depth=1)))


def adapted(block: Any) -> None:
    block.attn.qkv = nn.Sequential(block.attn.qkv, nn.Identity())


def hooked(block: Any) -> None:
    block.mlp.fc2.register_forward_hook(lambda module, given, y: None)


def in_evaluation(block: Any) -> None:
    block.eval()


def partly_in_evaluation(block: Any) -> None:
    block.mlp.drop.eval()


def in_float64(block: Any) -> None:
    block.double()


def in_bfloat16(block: Any) -> None:
    block.bfloat16()


def with_a_bias_of_queries(block: Any) -> None:
    block.attn.qkv.bias = nn.Parameter(torch.ones(144))


@pytest.mark.parametrize("change", [adapted, hooked, in_evaluation, partly_in_evaluation, in_float64, in_bfloat16, with_a_bias_of_queries])
def test_what_the_native_code_is_not_made_for_goes_through_the_layers(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    block = make_block()
    fast = joined(block)
    change(block)
    change(fast)
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    x = random_map(2, 9, 48).to(next(block.parameters()).dtype)
    found, expected = learnt(fast, x), learnt(block, x)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_tokens_in_bfloat16_go_through_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = make_block(), random_map(2, 9, 48).bfloat16()
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learnt(joined(block), x)["y"], learnt(block, x)["y"])


def test_gradients_are_not_differentiated_again() -> None:
    fast, x = joined(make_block()), random_map(1, 5, 48).requires_grad_()
    (gradient,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_shapes_that_do_not_fit_are_refused_as_by_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    for name, layer in (("attn.proj", nn.Linear(48, 40)), ("attn.qkv", nn.Linear(40, 144, bias=False)), ("norm2", nn.LayerNorm(32))):
        fast = joined(make_block())
        fast.set_submodule(name, layer)
        with pytest.raises(RuntimeError):
            fast(random_map(2, 9, 48))
    fast = joined(make_block())
    with pytest.raises(RuntimeError):
        fast(random_map(2, 9, 64))
    fast.norm2.weight = nn.Parameter(torch.ones(32))
    with pytest.raises(RuntimeError):
        fast(random_map(2, 9, 48))


def test_counters_and_compilers_see_every_layer() -> None:
    block, x = make_block(), random_map(2, 9, 48)
    counts = []
    for model in (block, joined(block)):
        with FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    torch.manual_seed(0)
    found = torch.compile(joined(block), backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    torch.testing.assert_close(found, block(x), atol=2e-5, rtol=2e-5)
