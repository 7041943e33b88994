"""FViT's stem joined for inference gives what its layers give, and steps aside, for these, where it should."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import foveate
from foveate.models.fvit import Stem
from foveate.speed.joined.stem import JoinedStem
from foveate.speed.native import stem as native
from joined_modules import assert_threads_change_no_bit, joined_copy, random_map, with_products
from stem_changes import STEM_CHANGES
from training_blocks import SMALL

pytestmark = pytest.mark.skipif(not native.can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")

joined = partial(joined_copy, JoinedStem)


def make_stem(width: int = 24, channels: int = 3, stride: int = 2) -> Any:
    """A stem in evaluation with random weights and statistics everywhere."""
    stem = Stem(channels, width, stride)
    with torch.no_grad():
        for index, values in enumerate([*stem.parameters(), *stem.buffers()]):
            if values.dtype == torch.float32:
                values.copy_(0.3 * random_map(*values.shape, seed=index))
        for norm in (stem.norm1, stem.norm2, stem.norm3):
            norm.running_var.abs_().add_(0.5)
    stem.norm1.eps, stem.norm2.eps, stem.norm3.eps = 1e-2, 1e-3, 1e-4
    return stem.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(("width", "channels", "stride"), [(24, 3, 2), (32, 1, 2), (36, 4, 1), (5, 3, 2), (16, 17, 3)])
def test_a_joined_stem_is_the_stem(width: int, channels: int, stride: int) -> None:
    stem = make_stem(width, channels, stride)
    fast, exact = joined(stem), make_stem(width, channels, stride).double()
    for seed, shape in enumerate([(2, 64, 48), (1, 1, 1), (1, 5, 3), (3, 33, 20), (1, 2, 70), (9, 14, 14)]):
        x = random_map(shape[0], channels, *shape[1:], seed=seed)
        for given in (x, x.to(memory_format=torch.channels_last), x.flip(3).flip(3)):
            before = given.clone()
            found = fast(given)
            assert found.shape == stem(x).shape
            torch.testing.assert_close(found.double(), exact(x.double()), atol=2e-5, rtol=2e-5)
            assert torch.equal(given, before)


def test_threads_change_nothing() -> None:
    assert_threads_change_no_bit(joined(make_stem()), random_map(2, 3, 61, 37))


def test_changed_weights_and_statistics_are_taken_up() -> None:
    stem, x = make_stem(), random_map(1, 3, 20, 14)
    fast = joined(stem)
    for change in (lambda one: one.conv2.weight.mul_(2), lambda one: one.norm3.running_mean.add_(1), lambda one: one.norm1.bias.add_(1)):
        for one in (stem, fast):
            change(one)
        torch.testing.assert_close(fast(x), stem(x), atol=2e-5, rtol=2e-5)


def test_settings_changed_later_are_taken_up() -> None:
    stem, x = make_stem(), random_map(1, 3, 9, 9)
    fast = joined(stem)
    for one in (stem, fast):
        one.norm1.eps, one.conv1.stride = 0.5, (1, 1)
    torch.testing.assert_close(fast(x), stem(x), atol=2e-5, rtol=2e-5)


def test_an_optimized_model_is_joined_with_its_stem() -> None:
    model = foveate.create_model("fvit_tiny", **SMALL).eval()
    once = foveate.optimize(model)
    assert type(once.stem) is JoinedStem
    assert type(foveate.optimize(once).stem) is JoinedStem
    assert type(foveate.optimize(model, compile=False).stem) is Stem
    assert once.optimized[-1].endswith("; 1 stem joined: one native pass")
    x = random_map(2, 3, 70, 50)
    torch.testing.assert_close(once(x), model(x).detach(), atol=1e-4, rtol=1e-4)


def in_training(stem: Any) -> None:
    stem.train()


def with_one_norm_in_training(stem: Any) -> None:
    stem.norm2.train()


def that_learns(stem: Any) -> None:
    stem.requires_grad_(requires_grad=True)


@pytest.mark.parametrize("change", [*STEM_CHANGES, in_training, with_one_norm_in_training, that_learns])
def test_what_the_native_code_is_not_made_for_goes_through_the_layers(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stem = make_stem()
    fast = joined(stem)
    change(stem)
    change(fast)
    monkeypatch.setattr(native, "run", None)  # would fail
    x = random_map(2, 3, 20, 14).to(stem.conv1.weight.dtype)
    assert torch.equal(fast(x), stem(x))


def test_statistics_in_another_format_are_refused_as_by_the_layers() -> None:
    fast = joined(make_stem())
    fast.norm1.running_var = fast.norm1.running_var.double()
    with pytest.raises(RuntimeError, match="Double"):
        fast(random_map(1, 3, 20, 14))


@pytest.mark.parametrize(("width", "channels", "stride"), [(24, 3, 2), (32, 1, 2), (36, 4, 1), (6, 17, 3)])
def test_under_autocast_it_is_no_worse_than_the_layers(width: int, channels: int, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with_products(monkeypatch, native, native=True)
    stem = make_stem(width, channels, stride)
    fast, exact = joined(stem), make_stem(width, channels, stride).double()
    for seed, shape in enumerate([(2, 64, 48), (50, 1, 1), (3, 33, 20), (1, 2, 70)]):
        x = random_map(shape[0], channels, *shape[1:], seed=seed)
        with torch.autocast("cpu"):
            found, by_layers = fast(x), stem(x)
        assert found.dtype == by_layers.dtype == torch.bfloat16
        assert found.shape == by_layers.shape
        deviation, allowed = ((one.double() - exact(x.double())).norm() for one in (found, by_layers))
        assert deviation <= 1.2 * allowed


def test_the_number_format_may_change_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    with_products(monkeypatch, native, native=True)
    fast, x = joined(make_stem()), random_map(1, 3, 20, 14)
    before = fast(x)
    with torch.autocast("cpu"):
        assert fast(x).dtype == torch.bfloat16
    assert torch.equal(fast(x), before)


@pytest.mark.parametrize(("width", "native_ones"), [(24, False), (5, True)], ids=["no products for it", "channels without pairs"])
def test_autocast_goes_through_the_layers(width: int, native_ones: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with_products(monkeypatch, native, native=native_ones)
    stem, x = make_stem(width), random_map(1, 3, 20, 14)
    fast = joined(stem)
    monkeypatch.setattr(native, "run", None)  # would fail
    with torch.autocast("cpu"):
        assert torch.equal(fast(x), stem(x))
