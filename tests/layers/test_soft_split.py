import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.layers.soft_split import soft_split_padding, split_linear, split_norm_linear

SIDES = st.integers(7, 21)
SPLITS = [(7, 4), (3, 2), (7, 1), (7, 2), (3, 1)]


def patches(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    return F.unfold(x, kernel, padding=soft_split_padding(kernel, stride), stride=stride).transpose(1, 2)


@settings(max_examples=30, deadline=None)
@given(split=st.sampled_from(SPLITS), channels=st.integers(1, 5), height=SIDES, width=SIDES, seed=st.integers(0, 99))
def test_equals_unfold_norm_linear_with_gradients(split: tuple[int, int], channels: int, height: int, width: int, seed: int) -> None:
    kernel, stride = split
    torch.manual_seed(seed)
    length = channels * kernel**2
    x, gain, shift, weight, bias = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, channels, height, width), (length,), (length,), (6, length), (6,))
    )
    inputs = (x, gain, shift, weight, bias)
    expected = F.linear(F.layer_norm(patches(x, kernel, stride), (length,), gain, shift), weight, bias)
    found = split_norm_linear(x, gain, shift, weight, bias, kernel, stride)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-8)
    direction = torch.randn_like(expected)
    for ours, theirs in zip(torch.autograd.grad(found, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)
    torch.testing.assert_close(split_linear(x, weight, bias, kernel, stride), F.linear(patches(x, kernel, stride), weight, bias))


def test_flat_and_bright_patches_stay_finite_in_float32() -> None:
    x = torch.full((1, 3, 16, 16), 264.0)
    gain, shift, weight = torch.ones(147), torch.zeros(147), torch.randn(8, 147) * 0.1
    assert torch.isfinite(split_norm_linear(x, gain, shift, weight, None, 7, 4)).all()


@pytest.mark.parametrize(
    ("split", "side", "tokens"), [((7, 4), 224, 56), ((3, 2), 56, 28), ((7, 4), 384, 96), ((7, 2), 32, 16), ((3, 1), 8, 8)]
)
def test_number_of_tokens_along_an_axis(split: tuple[int, int], side: int, tokens: int) -> None:
    assert split_linear(torch.randn(1, 1, side, 7), torch.randn(2, split[0] ** 2), None, *split).shape[1] % tokens == 0
    assert (side + 2 * soft_split_padding(*split) - split[0]) // split[1] + 1 == tokens
