"""Blocks joined for training step aside, for their layers, where the native chains are not meant."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import foveate
from foveate.layers.gabor import LearnableGaborFilter
from foveate.speed.native import gabor as native_gabor
from foveate.speed.native import training as native_training
from foveate.speed.native.training import can_join
from joined_modules import random_map
from training_blocks import SMALL, joined, make_block
from training_steps import assert_close, learnt

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def test_models_without_such_blocks_stay() -> None:
    with torch.autocast("cpu", torch.float16):
        assert foveate.optimize_for_training(foveate.create_model("fvit_tiny", **SMALL)) == ()
    assert foveate.optimize_for_training(foveate.create_model("t2t_vit_7", depth=1).bfloat16()) == ()
    assert foveate.optimize_for_training(timm.create_model("resnet18")) == ()
    assert foveate.optimize_for_training(foveate.create_model("fvit_tiny", **SMALL).double()) == ()


def adapted(block: Any) -> None:
    block.ffn.fc1 = nn.Sequential(block.ffn.fc1, nn.Identity())


class Reversed(nn.Module):
    """Another feed-forward, without the parts of ours."""

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        return norm(x).flip(-1)


def replaced(block: Any) -> None:
    block.ffn, block.drop_path1 = Reversed().train(block.training), nn.Identity()


def around_a_circle(block: Any) -> None:
    block.position.padding_mode = "circular"


def hooked(block: Any) -> None:
    block.ffn.fc2.register_forward_hook(lambda module, given, y: None)


def in_evaluation(block: Any) -> None:
    block.eval()


def partly_in_evaluation(block: Any) -> None:
    block.ffn.paths[0].eval()


def in_float64(block: Any) -> None:
    block.double()


@pytest.mark.parametrize("change", [adapted, replaced, around_a_circle, hooked, in_evaluation, partly_in_evaluation, in_float64])
def test_what_the_chains_are_not_made_for_goes_through_the_layers(change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    block = make_block()
    fast = joined(block)
    change(block)
    change(fast)
    monkeypatch.setattr(native_training, "mix", None)  # would fail
    x = random_map(2, 5, 5, 24).to(next(block.parameters()).dtype)
    found, expected = learnt(fast, x), learnt(block, x)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def one_shift_for_all(block: Any) -> None:
    block.mixer.shift_x = nn.Parameter(torch.full((1,), 0.3))


def test_gabor_parameters_that_are_shared_singly_are_broadcast_by_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    block = make_block()
    fast = joined(block)
    for one in (block, fast):
        one_shift_for_all(one)
    monkeypatch.setattr(native_gabor, "kernels", None)  # would fail
    assert_close(learnt(fast, random_map(2, 5, 5, 24)), learnt(block, random_map(2, 5, 5, 24)))
    fast.mixer.shift_x = block.mixer.shift_y
    fast.mixer.kernel_size = 4
    with pytest.raises(ValueError, match="expected an odd number"):
        fast(random_map(2, 5, 5, 24))


def test_maps_of_other_formats_are_refused_as_by_the_layers() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError, match="should be the same"):
        joined(make_block())(random_map(2, 5, 5, 24).double())


def test_in_evaluation_gradients_can_be_differentiated_again() -> None:
    fast, x = joined(make_block(activation="gelu")).eval(), random_map(1, 4, 4, 24).requires_grad_()
    (gradient,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    assert second.abs().max() > 0


def test_in_training_gradients_are_not_differentiated_again() -> None:
    fast, x = joined(make_block()), random_map(1, 4, 4, 24).requires_grad_()
    (gradient,) = torch.autograd.grad(fast(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.square().sum().backward()


def test_a_frozen_block_is_joined_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under --freeze-backbone: gradients are recorded elsewhere, none goes through it."""
    block, x, calls = make_block().eval().requires_grad_(False), random_map(2, 5, 5, 24), []
    monkeypatch.setattr(native_training, "mix", lambda *given, mix=native_training.mix: (calls.append(1), mix(*given))[1])
    torch.testing.assert_close(joined(block)(x), block(x.clone()), atol=1e-5, rtol=1e-5)
    assert calls


def test_operations_are_counted_through_the_layers() -> None:
    block, x = make_block(), random_map(2, 5, 5, 24)
    counts = []
    for model in (block, joined(block)):
        with FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def cut_mixer(block: Any) -> None:
    block.mixer = LearnableGaborFilter(8)


def cut_product(block: Any) -> None:
    block.ffn.fc2 = nn.Linear(30, 24)


@pytest.mark.parametrize("change", [cut_mixer, cut_product])
def test_shapes_that_do_not_fit_are_refused_as_by_the_layers(change: Callable[[Any], None]) -> None:
    fast = joined(make_block())
    change(fast)
    with pytest.raises(RuntimeError):
        fast(random_map(2, 5, 5, 24))


def test_a_joined_block_can_be_compiled() -> None:
    block = make_block()
    fast, x = torch.compile(joined(block), backend="eager"), random_map(2, 5, 5, 24)
    torch.manual_seed(0)
    found = fast(x)
    torch.manual_seed(0)
    torch.testing.assert_close(found, block(x), atol=2e-5, rtol=2e-5)
