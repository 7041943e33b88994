"""FViT's stem joined for training learns what its layers learn, running statistics too, and steps aside, for these, where it should."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import foveate
from foveate.models.fvit import Stem
from foveate.speed.joined.training_stem import JoinedTrainingStem
from foveate.speed.native import stem_training as native_stem
from foveate.speed.native.stem_training import can_join, gelu_moments
from joined_modules import joined_copy, random_map
from stem_changes import STEM_CHANGES
from training_blocks import SMALL
from training_steps import assert_bfloat16_is_no_worse, assert_close, assert_threads_change_nothing, learnt

pytestmark = pytest.mark.skipif(not can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")


def make_stem(width: int = 24, channels: int = 3, stride: int = 2) -> Any:
    """A stem in training with random weights everywhere."""
    stem = Stem(channels, width, stride)
    with torch.no_grad():
        for index, parameter in enumerate(stem.parameters()):
            parameter.copy_(0.3 * random_map(*parameter.shape, seed=index))
    stem.norm1.eps, stem.norm2.eps, stem.norm3.eps = 1e-2, 1e-3, 1e-4
    stem.norm1.momentum, stem.norm2.momentum = 0.2, 0.3
    return stem.train()


joined = partial(joined_copy, JoinedTrainingStem)


def step(stem: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What a step learns, and the running statistics after it."""
    return learnt(stem, x) | {name: value.float() for name, value in stem.named_buffers()}


@pytest.mark.parametrize(("width", "channels", "stride"), [(24, 3, 2), (32, 1, 2), (36, 4, 1), (5, 3, 2)])
def test_a_joined_stem_learns_as_the_stem(width: int, channels: int, stride: int) -> None:
    stem = make_stem(width, channels, stride)
    for seed, shape in enumerate([(2, channels, 64, 48), (1, channels, 5, 3), (3, channels, 33, 20)]):
        x = random_map(*shape, seed=seed)
        before = x.clone()
        assert_close(step(joined(stem), x), step(copy.deepcopy(stem).double(), x.double()), tolerance=1e-4)
        assert torch.equal(x, before)


@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_statistics_over_several_batches(momentum: float | None) -> None:
    stem = make_stem()
    for norm in (stem.norm1, stem.norm2, stem.norm3):
        norm.momentum = momentum
    fast = joined(stem)
    for seed in range(3):
        for one in (stem, fast):
            one(random_map(2, 3, 20, 14, seed=seed) * (seed + 1))
    assert_close(dict(fast.named_buffers()), dict(stem.named_buffers()))
    x = random_map(1, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(x), stem.eval()(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_moments_hold_where_the_mean_is_far_from_zero(shift: float) -> None:
    h = random_map(3, 41, 37, 20) + shift
    mean, variance = gelu_moments(h)
    exact = nn.functional.gelu(h.double()).flatten(0, 2)
    torch.testing.assert_close(mean.double(), exact.mean(dim=0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(variance.double(), exact.var(dim=0, unbiased=False), atol=1e-6, rtol=1e-3)


def test_biases_may_change_before_the_way_back_as_those_of_the_layers() -> None:
    stem, x = make_stem(), random_map(2, 3, 20, 14)
    gradients = []
    for one in (stem, joined(stem)):
        y = one(x)
        with torch.no_grad():
            for name, parameter in one.named_parameters():
                if name.endswith("bias"):
                    parameter.mul_(2)
        (y * random_map(*y.shape)).sum().backward()
        gradients.append({name: parameter.grad for name, parameter in one.named_parameters()})
    assert_close(gradients[1], gradients[0], tolerance=1e-3)


def test_of_each_layer_one_map_is_kept_beside_the_picture() -> None:
    fast, x, kept = joined(make_stem(width=32)), random_map(2, 3, 40, 32), []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        fast(x)
    assert [shape for shape in kept if len(shape) == 4 and shape[2:] != (3, 3)] == [(2, 40, 32, 3), *[(2, 20, 16, 32)] * 3]


def test_threads_change_nothing_but_rounding() -> None:
    assert_threads_change_nothing(joined(make_stem()), random_map(2, 3, 37, 29), tolerance=1e-4)


def test_bfloat16_under_autocast() -> None:
    stem = make_stem()
    assert_bfloat16_is_no_worse(joined(stem), stem, random_map(2, 3, 40, 32))


def test_frozen_weights_get_no_gradients() -> None:
    fast, x, frozen = joined(make_stem()), random_map(2, 3, 20, 14), ("conv2.weight", "norm3.weight", "conv1.bias")
    expected = learnt(fast, x)
    for name in frozen:
        fast.get_parameter(name).requires_grad_(False)
    found = learnt(fast, x)
    assert {name for name, value in found.items() if value is None} == set(frozen)
    assert all(torch.equal(value, expected[name]) for name, value in found.items() if value is not None)


def test_a_whole_model_is_joined_with_its_stem() -> None:
    model = foveate.create_model("fvit_tiny", **SMALL)
    assert "1 stem joined: convolutions with GELU and batch norm, forward and backward" in foveate.optimize_for_training(model)
    assert type(foveate.optimize(model, compile=False).stem) is Stem


def in_evaluation(stem: Any) -> None:
    stem.eval()


def with_a_frozen_norm(stem: Any) -> None:
    stem.norm3.eval()


@pytest.mark.parametrize("change", [*STEM_CHANGES, in_evaluation, with_a_frozen_norm])
def test_what_the_native_code_is_not_made_for_goes_through_the_layers(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = make_stem()
    fast = joined(stem)
    change(stem)
    change(fast)
    monkeypatch.setattr(native_stem, "gelu_moments", None)  # would fail
    assert JoinedTrainingStem.fits(stem) == (change is in_evaluation)
    x = random_map(2, 3, 20, 14).to(stem.conv1.weight.dtype)
    found, expected = learnt(fast, x), learnt(stem, x)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", ["conv2", "norm2"])
def test_shapes_that_do_not_fit_are_refused_as_by_the_layers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_stem, "gelu_moments", None)  # would fail
    fast = joined(make_stem())
    with pytest.raises(RuntimeError):
        fast(random_map(2, 4, 20, 14))
    fast.set_submodule(name, nn.Conv2d(16, 24, 3, padding=1) if name == "conv2" else nn.BatchNorm2d(16))
    with pytest.raises(RuntimeError):
        fast(random_map(2, 3, 20, 14))


def test_one_value_a_channel_is_refused_as_by_the_layers() -> None:
    with pytest.raises(ValueError, match="more than 1 value"):
        joined(make_stem())(random_map(1, 3, 2, 2))
