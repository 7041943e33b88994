"""Convolutions joined with what follows them: the same numbers, and nobody who watches misses a step."""

from typing import get_args
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from foveate.layers import one_call
from foveate.layers.depthwise import depthwise
from foveate.layers.feedforward import FEW_PIXELS, MultiPathFeedForward
from foveate.layers.in_place import Activation, activated
from foveate.layers.one_call import convolved, filtered, plus_pointwise, takes
from foveate.models.fvit import BionicFocalVisionBlock

ACTIVATIONS = get_args(Activation)
BFLOAT16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether oneDNN computes in bfloat16 here: with AVX-512."""
side = st.integers(1, 9)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), side, side, st.integers(1, 20), st.sampled_from((1, 3, 5)), st.sampled_from(ACTIVATIONS), st.booleans())
def test_a_filter_with_its_activation(b: int, h: int, w: int, c: int, k: int, activation: Activation, shared: bool) -> None:
    x, filters = torch.randn(b, h, w, c), 1 if shared else c
    weight, bias = torch.randn(filters, 1, k, k).expand(c, 1, k, k), torch.randn(filters).expand(c)
    with torch.no_grad():
        assert takes(x, weight)
        torch.testing.assert_close(filtered(x, weight, bias, activation), activated(depthwise(x, weight, bias), activation))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), side, side, st.integers(1, 20), st.integers(1, 20), st.integers(1, 2), st.booleans(), st.sampled_from(ACTIVATIONS)
)
def test_a_convolution_with_its_activation(b: int, h: int, w: int, c: int, e: int, stride: int, bias: bool, activation: Activation) -> None:
    layer = nn.Conv2d(c, e, 3, stride, padding=1, bias=bias)
    x = torch.randn(b, c, h, w)
    with torch.no_grad():
        for given_x in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3)):
            torch.testing.assert_close(convolved(layer, given_x, activation), activated(layer(given_x), activation), atol=1e-5, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), side, side, st.integers(1, 20), st.integers(1, 20))
def test_a_sum_with_a_product(b: int, h: int, w: int, c: int, e: int) -> None:
    x, total, weight, bias = torch.randn(b, h, w, c), torch.randn(b, h, w, e), torch.randn(2 * c, e).T[:, ::2], torch.randn(e)
    expected = total + F.linear(x, weight, bias)
    with torch.no_grad():
        assert takes(x, weight)
        y = plus_pointwise(total, x, weight, bias)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    assert y.data_ptr() == total.data_ptr()


def test_bfloat16_and_its_autocast() -> None:
    x, layer = torch.randn(2, 8, 9, 9), nn.Conv2d(8, 8, 3, padding=1, groups=8)
    expected = F.gelu(layer(x))
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert takes(x, layer.weight) == BFLOAT16
            cast = convolved(layer, x, "gelu")
        own = convolved(layer.bfloat16(), x.bfloat16(), "gelu")
    for y in (cast, own):
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), expected, atol=0.03, rtol=0.03)


def test_other_number_formats_are_left_to_pytorch() -> None:
    x, weight = torch.randn(1, 4, 4, 3), torch.randn(3, 1, 3, 3)
    with torch.no_grad():
        assert takes(x, weight)
        assert not takes(x.double(), weight.double())
        assert not takes(x.double(), weight)
        assert not takes(x[:0], weight)
        with torch.autocast("cpu", torch.float16):
            assert not takes(x, weight)
        with torch.backends.mkldnn.flags(enabled=False):
            assert not takes(x, weight)
        assert filtered(x.double(), weight.double(), torch.zeros(3).double(), "relu").dtype == torch.float64


def test_whoever_watches_sees_every_step() -> None:
    x, weight = torch.randn(1, 4, 4, 3), torch.randn(3, 1, 3, 3)
    assert not takes(x, weight), "gradients may be asked for"
    with torch.no_grad():
        handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
        assert not takes(x, weight)
        handle.remove()
        with FlopCounterMode(display=False):
            assert not takes(x, weight)
        seen: list[bool] = []
        torch.vmap(lambda x: x * float(seen.append(takes(x, weight)) is None))(x)
        torch.jit.trace(lambda x: x * float(seen.append(takes(x, weight)) is None), x, check_trace=False)
        assert seen == [False, False]


def test_hooks_on_a_convolution_are_called() -> None:
    layer, x, seen = nn.Conv2d(3, 4, 3), torch.randn(1, 3, 5, 5), []
    with torch.no_grad():
        expected = convolved(layer, x, "relu")
        layer.register_forward_hook(lambda module, given, y: seen.append(y.clone()))
        torch.testing.assert_close(convolved(layer, x, "relu"), expected)
    assert len(seen) == 1
    assert (seen[0] < 0).any(), "what the convolution gave, before the activation"


def large_map(channels: int) -> Tensor:
    x = torch.randn(1, 45, 45, channels)
    assert x[..., 0].numel() >= FEW_PIXELS
    return x


@pytest.mark.parametrize(("paths", "untouched"), [(1, 0), (2, 0), (4, 0), (4, 1), (3, 2)])
def test_a_block_with_joined_calls_is_the_block(paths: int, untouched: int) -> None:
    ffn = MultiPathFeedForward(8, 24, paths=paths, untouched=untouched, drop=0.1)
    block = BionicFocalVisionBlock(8, nn.Module(), ffn, 0.1).eval()
    block.mixer.forward = lambda x, norm: 0.5 * norm(x)
    x = large_map(8)
    with torch.no_grad():
        assert ffn.adds_to(x)
        joined = block(x)
        with patch.object(one_call, "takes", return_value=False), patch("foveate.layers.feedforward.takes", return_value=False):
            expected = block(x)
    torch.testing.assert_close(joined, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(joined, block(x).detach(), atol=1e-5, rtol=1e-5)


def test_the_sum_with_a_feed_forward_takes_the_memory_of_the_map() -> None:
    ffn, x = MultiPathFeedForward(8, 24).eval(), large_map(8)
    with torch.no_grad():
        expected = x + ffn(x, nn.LayerNorm(8))
        y = ffn.added_to(x, nn.LayerNorm(8))
    assert y.data_ptr() == x.data_ptr()
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)


def test_a_feed_forward_that_is_watched_or_drops_is_called() -> None:
    x = large_map(8)
    for part in ("", "fc1", "fc2", "drop"):
        ffn = MultiPathFeedForward(8, 24, drop=0.1).eval()
        with torch.no_grad():
            assert ffn.adds_to(x)
            ffn.get_submodule(part).register_forward_hook(lambda *_: None)
            assert not ffn.adds_to(x), part
    ffn = MultiPathFeedForward(8, 24)
    with torch.no_grad():
        assert not ffn.adds_to(x), "in training"
        assert not ffn.eval().adds_to(x[:, :3]), "few pixels: linear layers"
        with torch.autocast("cpu", torch.bfloat16):
            assert not ffn.adds_to(x), "the map stays in its number format"
            assert ffn.adds_to(x.bfloat16()) == BFLOAT16


def test_maps_that_do_not_fit_are_refused_as_by_the_layers() -> None:
    layer, kernel, x = nn.Conv2d(3, 4, 3), torch.randn(5, 1, 3, 3), torch.randn(2, 6, 6, 4)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="expected input"):
            convolved(layer, torch.randn(1, 4, 8, 8), "gelu")
        with pytest.raises(RuntimeError, match="expected"):
            filtered(x, kernel, torch.randn(5), "relu")
        with pytest.raises(RuntimeError, match="size of tensor"):
            plus_pointwise(torch.randn(2, 6, 6, 3), x, torch.randn(5, 4), torch.randn(5))
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            plus_pointwise(x, x, torch.randn(4, 3), torch.randn(4))
        torch.testing.assert_close(convolved(layer, torch.ones(3, 8, 8), "none"), layer(torch.ones(3, 8, 8)))


def test_a_map_that_later_paths_read_is_not_overwritten() -> None:
    ffn, x = MultiPathFeedForward(8, 24).eval(), large_map(8)
    with torch.no_grad():
        expected = x + ffn(x, nn.Identity())
        torch.testing.assert_close(ffn.added_to(x, nn.Identity()), expected, atol=1e-5, rtol=1e-5)


def test_stochastic_depth_drops_wherever_it_is_in_training() -> None:
    ffn = MultiPathFeedForward(8, 24).eval()
    block = BionicFocalVisionBlock(8, nn.Module(), ffn, 0.999).eval()
    block.mixer.forward = lambda x, norm: 0.5 * norm(x)
    x = large_map(8)
    with torch.no_grad():
        whole = block(x)
        block.drop_path2.train()
        torch.manual_seed(0)
        dropped = block(x)
        torch.testing.assert_close(dropped, block.position(x) + 0.5 * block.norm1(block.position(x)))
    assert not torch.allclose(dropped, whole)
