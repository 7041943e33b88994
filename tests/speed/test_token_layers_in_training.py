"""T2T-ViT's blocks joined for training step aside, for their layers, where native code is not meant."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.speed.native import token_training as native_token_training
from foveate.speed.native.token_training import can_join
from joined_modules import random_map
from training_blocks import joined_tokens, make_token_block
from training_steps import learnt

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


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
    block = make_token_block()
    fast = joined_tokens(block)
    change(block)
    change(fast)
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    x = random_map(2, 9, 48).to(next(block.parameters()).dtype)
    found, expected = learnt(fast, x), learnt(block, x)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_tokens_in_bfloat16_go_through_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    block, x = make_token_block(), random_map(2, 9, 48).bfloat16()
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learnt(joined_tokens(block), x)["y"], learnt(block, x)["y"])


def test_gradients_are_not_differentiated_again() -> None:
    fast, x = joined_tokens(make_token_block()), random_map(1, 5, 48).requires_grad_()
    (gradient,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_shapes_that_do_not_fit_are_refused_as_by_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_token_training, "norm", None)  # would fail
    for name, layer in (("attn.proj", nn.Linear(48, 40)), ("attn.qkv", nn.Linear(40, 144, bias=False)), ("norm2", nn.LayerNorm(32))):
        fast = joined_tokens(make_token_block())
        fast.set_submodule(name, layer)
        with pytest.raises(RuntimeError):
            fast(random_map(2, 9, 48))
    fast = joined_tokens(make_token_block())
    with pytest.raises(RuntimeError):
        fast(random_map(2, 9, 64))
    fast.norm2.weight = nn.Parameter(torch.ones(32))
    with pytest.raises(RuntimeError):
        fast(random_map(2, 9, 48))


def test_counters_and_compilers_see_every_layer() -> None:
    block, x = make_token_block(), random_map(2, 9, 48)
    counts = []
    for model in (block, joined_tokens(block)):
        with FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
    torch.manual_seed(0)
    found = torch.compile(joined_tokens(block), backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    torch.testing.assert_close(found, block(x), atol=2e-5, rtol=2e-5)
