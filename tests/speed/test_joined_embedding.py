"""FViT's embedding of patches joined for inference gives what its layers give, and steps aside, for these, where it should."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import foveate
from foveate.models.fvit import PatchEmbedding
from foveate.speed.joined.embedding import JoinedEmbedding
from foveate.speed.native import embedding as native
from joined_modules import assert_threads_change_no_bit, joined_copy, random_map, with_products
from training_blocks import SMALL

pytestmark = pytest.mark.skipif(not native.can_join(torch.float32), reason="no C++ compiler, or PyTorch without GNU OpenMP")

joined = partial(joined_copy, JoinedEmbedding)
SHAPES = [(2, 16, 12), (1, 1, 1), (3, 33, 20), (1, 2, 71), (5, 14, 15)]


def make_embedding(channels: int = 24, width: int = 40, stride: int = 2) -> Any:
    """An embedding in evaluation with random weights everywhere."""
    embedding = PatchEmbedding(channels, width, stride)
    with torch.no_grad():
        for index, values in enumerate(embedding.parameters()):
            values.copy_(0.3 * random_map(*values.shape, seed=index))
    embedding.norm.eps = 1e-3
    return embedding.eval().requires_grad_(requires_grad=False)


@pytest.fixture(params=[True, False], ids=["native products", "products of PyTorch's"])
def of_products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Those in bfloat16, whatever this processor is the faster with."""
    with_products(monkeypatch, native, native=request.param)
    return bool(request.param)


@pytest.mark.parametrize(("channels", "width", "stride"), [(24, 40, 2), (32, 64, 2), (36, 63, 1), (5, 16, 2), (17, 3, 1)])
def test_a_joined_embedding_is_the_embedding(channels: int, width: int, stride: int) -> None:
    embedding = make_embedding(channels, width, stride)
    fast, exact = joined(embedding), make_embedding(channels, width, stride).double()
    for seed, (pictures, height, length) in enumerate(SHAPES):
        x = random_map(pictures, channels, height, length, seed=seed)
        for given in (x, x.to(memory_format=torch.channels_last), x.flip(3).flip(3)):
            before = given.clone()
            found = fast(given)
            assert found.shape == embedding(x).shape
            torch.testing.assert_close(found.double(), exact(x.double()), atol=2e-5, rtol=2e-5)
            assert torch.equal(given, before)


def test_many_patches_are_taken_in_pieces() -> None:
    embedding, x = make_embedding(64, 128), random_map(2, 64, 90, 102)
    torch.testing.assert_close(joined(embedding)(x), embedding(x), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("channels", "width", "stride"), [(24, 40, 2), (32, 64, 2), (36, 63, 1), (5, 16, 2)])
@pytest.mark.usefixtures("of_products")
def test_bfloat16_is_no_worse_than_by_the_layers(channels: int, width: int, stride: int) -> None:
    embedding = make_embedding(channels, width, stride)
    fast, exact = joined(embedding), make_embedding(channels, width, stride).double()
    half = joined(make_embedding(channels, width, stride).bfloat16())
    for seed, (pictures, height, length) in enumerate([(2, 16, 12), (50, 1, 1), (3, 33, 20), (1, 2, 71)]):
        x = random_map(pictures, channels, height, length, seed=seed).bfloat16()
        with torch.autocast("cpu"):
            found, by_layers = fast(x), embedding(x)
        assert found.shape == by_layers.shape
        deviation, whole, allowed = ((one.double() - exact(x.double())).norm() for one in (found, half(x), by_layers))
        assert deviation <= 1.05 * allowed
        assert whole < 0.02 * exact(x.double()).norm()


def test_bfloat16_may_be_native(of_products: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fast, x, run = joined(make_embedding()), random_map(1, 24, 6, 6), native.run
    taken: list[torch.dtype] = []
    monkeypatch.setattr(native, "run", lambda x, weights: (taken.append(x.dtype), run(x, weights))[1])
    with torch.autocast("cpu"):
        found = fast(x)
        expected = make_embedding()(x)
    assert taken == [torch.bfloat16] * of_products
    assert found.dtype == expected.dtype
    assert fast(x).dtype == torch.float32


def test_threads_change_nothing() -> None:
    assert_threads_change_no_bit(joined(make_embedding()), random_map(2, 24, 61, 37))


@pytest.mark.usefixtures("of_products")
def test_threads_may_call_in_several_number_formats_at_once() -> None:
    fast, x = joined(make_embedding()), random_map(1, 24, 6, 6)

    def called(half: bool) -> torch.Tensor:
        with torch.autocast("cpu", enabled=half), torch.inference_mode():
            return [fast(x) for _ in range(100)][-1]

    alone = called(False), called(True)
    with ThreadPoolExecutor(4) as pool:
        for place, found in enumerate(pool.map(called, [False, True] * 20)):
            assert torch.equal(found, alone[place % 2])


def test_changed_weights_and_settings_are_taken_up() -> None:
    embedding, x = make_embedding(), random_map(1, 24, 20, 14)
    fast = joined(embedding)
    changes = (
        lambda one: one.proj.weight.mul_(2),
        lambda one: one.norm.bias.add_(1),
        lambda one: setattr(one.norm, "eps", 0.5),
        lambda one: (setattr(one, "stride", 1), setattr(one.proj, "stride", (1, 1))),
    )
    for change in changes:
        for one in (embedding, fast):
            change(one)
        torch.testing.assert_close(fast(x), embedding(x), atol=2e-5, rtol=2e-5)


def test_an_optimized_model_is_joined_with_its_embeddings() -> None:
    model = foveate.create_model("fvit_tiny", **SMALL).eval()
    once = foveate.optimize(model)
    assert [type(stage.embed) for stage in once.stages] == [JoinedEmbedding] * 4
    assert [type(stage.embed) for stage in foveate.optimize(model, compile=False).stages] == [PatchEmbedding] * 4
    assert "; 4 embeddings joined: one native pass; " in once.optimized[-1]
    assert foveate.optimize(once).optimized[-1] == once.optimized[-1]


def adapted(embedding: Any) -> None:
    class Adapter(nn.Conv2d):
        pass

    embedding.proj.__class__ = Adapter


def hooked(embedding: Any) -> None:
    embedding.norm.register_forward_hook(lambda module, given, found: found + 1)


def without_bias(embedding: Any) -> None:
    embedding.proj.bias = None


def without_gain(embedding: Any) -> None:
    embedding.norm.weight = None


def that_learns(embedding: Any) -> None:
    embedding.requires_grad_(requires_grad=True)


def with_a_mirrored_border(embedding: Any) -> None:
    embedding.proj.padding, embedding.proj.padding_mode = (1, 1), "reflect"
    embedding.proj._reversed_padding_repeated_twice = [1, 1, 1, 1]


def spread_out(embedding: Any) -> None:
    embedding.proj.dilation = (2, 2)


def with_other_strides(embedding: Any) -> None:
    embedding.proj.stride = (2, 1)


def in_float64(embedding: Any) -> None:
    embedding.double()


CHANGES = (adapted, hooked, without_bias, without_gain, that_learns, with_a_mirrored_border, spread_out, with_other_strides, in_float64)


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_native_code_is_not_made_for_goes_through_the_layers(
    change: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = make_embedding()
    fast = joined(embedding)
    change(embedding)
    change(fast)
    monkeypatch.setattr(native, "run", None)  # would fail
    x = random_map(2, 24, 20, 14).to(embedding.proj.weight.dtype)
    assert torch.equal(fast(x), embedding(x))


@pytest.mark.parametrize("shape", [(24, 20, 14), (1, 23, 20, 14)])
def test_maps_of_another_shape_are_refused_as_by_the_layers(shape: tuple[int, ...]) -> None:
    with pytest.raises((RuntimeError, IndexError)) as by_layers:
        make_embedding()(random_map(*shape))
    with pytest.raises(by_layers.type):
        joined(make_embedding())(random_map(*shape))
