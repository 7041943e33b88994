"""T2T-ViT's blocks joined for training learn what their layers learn."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import foveate
from foveate.layers.dropout import Dropout
from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.token_training import attend_gradients, can_join
from foveate.speed.native.tokens import attend
from joined_modules import random_map
from training_blocks import joined_tokens, make_token_block
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


@pytest.mark.parametrize(
    "form", [{}, {"width": 64, "heads": 1, "hidden": 192}, {"width": 36, "hidden": 37}, {"width": 33, "drop_path": 0.0}], ids=str
)
def test_a_joined_block_learns_as_the_block(form: dict[str, Any]) -> None:
    block = make_token_block(**form)
    fast, exact, width = joined_tokens(block), copy.deepcopy(block).double(), block.attn.proj.in_features
    for seed, (pictures, tokens) in enumerate([(1, 1), (2, 3), (3, 17), (1, 197), (5, 50)]):
        x = random_map(pictures, tokens, width, seed=seed)
        before = x.clone()
        assert_close(learnt(fast, x), learnt(exact, x.double()))
        assert torch.equal(x, before)


def test_threads_change_nothing_but_rounding() -> None:
    assert_threads_change_nothing(joined_tokens(make_token_block()), random_map(2, 61, 48))


def test_what_is_not_contiguous_is_read_as_the_layers_do() -> None:
    """Tokens, weights, and the gradient of a sum, which is one number in memory."""
    block, x, gradients = make_token_block(drop_path=0.0), random_map(2, 96, 9).transpose(1, 2)[..., ::2], []
    for model in (joined_tokens(block), copy.deepcopy(block).double()):
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
    fast, x = joined_tokens(make_token_block(drop_path=0.0)), random_map(2, 9, 48).requires_grad_()
    y, gradient = fast(x), random_map(2, 9, 48, seed=1)
    (expected,) = torch.autograd.grad(y, x, -gradient, retain_graph=True)
    (found,) = torch.autograd.grad(y, x, torch._neg_view(gradient))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    view = torch._neg_view(x.detach())
    torch.testing.assert_close(fast(view), fast(-x.detach()), atol=2e-5, rtol=2e-5)


def test_biases_may_change_between_two_backward_passes() -> None:
    """As where they alone are learnt."""
    fast, x = joined_tokens(make_token_block(hidden=96)), random_map(2, 9, 48)
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
    assert_default_format_does_not_matter(joined_tokens(make_token_block()), random_map(2, 9, 48), dtype)


def test_backward_may_run_twice() -> None:
    fast, x = joined_tokens(make_token_block(drop=0.2)), random_map(3, 17, 48).requires_grad_()
    loss = fast(x).square().sum()
    once = torch.autograd.grad(loss, (x, *fast.parameters()), retain_graph=True)
    twice = torch.autograd.grad(loss, (x, *fast.parameters()))
    assert all(torch.equal(first, second) for first, second in zip(once, twice, strict=True))


def test_gradients_go_through_the_numbers_that_dropout_kept() -> None:
    assert_gradients_are_slopes(joined_tokens(make_token_block(drop=0.4)), random_map(3, 17, 48))


def test_no_dropout_in_evaluation_and_everything_at_rate_one() -> None:
    block, x = make_token_block(drop=0.3), random_map(2, 9, 48)
    with torch.no_grad():
        torch.testing.assert_close(joined_tokens(block.eval())(x), block(x.clone()), atol=1e-5, rtol=1e-5)
    found = learnt(joined_tokens(make_token_block(drop=1.0, drop_path=0.0)), x)
    assert float(found["mlp.fc2.weight"].abs().max()) == 0.0
    assert found["y"].isfinite().all()


@pytest.mark.parametrize("drop", [0.0, 0.2])
def test_bfloat16_under_autocast(drop: float) -> None:
    """Tokens stay in float32 from block to block."""
    block, x = make_token_block(drop=drop, drop_path=0.0), random_map(3, 50, 48)
    assert_bfloat16_is_no_worse(joined_tokens(block), block, x, exactly=drop == 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert joined_tokens(block)(x).dtype == torch.float32


def test_a_backward_pass_under_autocast_is_in_the_number_format_of_the_forward_pass() -> None:
    assert_backward_leaves_autocast(joined_tokens(make_token_block(drop_path=0.0)), random_map(2, 9, 48))


def test_frozen_weights_get_no_gradients() -> None:
    fast, frozen = joined_tokens(make_token_block()), ("attn.qkv.weight", "norm2.weight", "mlp.fc1.weight", "mlp.fc2.bias")
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
    assert "2 blocks joined: native attention, norms and products" in inferring.optimized[-1]
    with torch.no_grad():
        torch.testing.assert_close(inferring(x), fast.eval()(x), atol=1e-4, rtol=1e-4)
