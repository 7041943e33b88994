"""FViT's stem in training: the functions of `native/stem_training.cpp` and, in float32, of `native/stem_convolution.cpp` on tensors.

Maps are contiguous, (B, H, W, C), on the processor, all in one number format; weights and their gradients are float32, contiguous.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.library import function, has_libraries, has_library, pointer, pointers, rows_of

LIBRARY, CONVOLUTION = "stem_training", "stem_convolution"


def can_join(dtype: torch.dtype) -> bool:
    """Whether the functions could be compiled here for maps in this number format; the first call does it."""
    return has_libraries((LIBRARY, CONVOLUTION), dtype) if dtype == torch.float32 else has_library(LIBRARY, dtype)


def gelu_moments(h_bhwc: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by the count) of `GELU(h)` over pictures and places, (C,) each."""
    mean, variance = (torch.empty(h_bhwc.shape[-1], dtype=torch.float32, device="cpu") for _ in range(2))
    call = function(LIBRARY, "gelu_moments", h_bhwc.dtype)
    call(pointer(h_bhwc), rows_of(h_bhwc), pointer(mean), pointer(variance), torch.get_num_threads())
    return mean, variance


def scale_gelu(h_bhwc: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """`gain GELU(h) + shift`."""
    y, gain, shift = torch.empty_like(h_bhwc), filled_up(gain), filled_up(shift)
    call = function(LIBRARY, "scale_gelu", h_bhwc.dtype)
    call(pointer(h_bhwc), pointer(y), rows_of(h_bhwc), pointer(gain), pointer(shift), torch.get_num_threads())
    return y


def gelu_norm_gradients(h_bhwc: Tensor, outer: Tensor, mean: Tensor, scale: Tensor, gain: Tensor) -> tuple[Tensor, ...]:
    """Gradients through `y = gain n + shift` with `n = scale (GELU(h) - mean)`, mean and scale being those of the batch.

    Returns:
        The gradients to h, (B, H, W, C), to gain and shift, and their sum over all places, which is that to a bias within h.
    """
    to_h, sums = torch.empty_like(h_bhwc), [torch.zeros_like(gain) for _ in range(3)]
    weights = [filled_up(weight) for weight in (mean, scale, gain)]
    call = function(LIBRARY, "gelu_norm_gradients", h_bhwc.dtype)
    maps = map(pointer, (h_bhwc, outer, to_h))
    call(*maps, rows_of(h_bhwc), pointers(weights), pointers(sums), torch.get_num_threads())
    return to_h, *sums


def convolve(before: Tensor, gain: Tensor, shift: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """`conv(gain GELU(before) + shift)`, the kernel (C', C, 3, 3), in float32."""
    h = before.new_empty(*before.shape[:3], len(kernel))
    weights = kernel, *map(filled_up, (bias, gain, shift))
    call = function(CONVOLUTION, "stem_convolution", torch.float32)
    call(pointer(before), pointer(h), _sizes(before, kernel), pointers(weights), torch.get_num_threads())
    return h


def convolve_gradients(
    before: Tensor, gain: Tensor, shift: Tensor, kernel: Tensor, h: Tensor, outer: Tensor, norm: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The way back through `convolve`, whose outcome is `h`, and what `gelu_norm_gradients` goes back through, in float32.

    Args:
        outer: the gradient to what follows GELU and batch norm.
        norm: mean, scale and gain of this one.

    Returns:
        The gradients to `gain GELU(before) + shift`, to gain and shift of the norm, kernel and bias.
    """
    to_entering, sums = torch.empty_like(before), [torch.zeros_like(weight) for weight in (norm[2], norm[2], kernel, norm[2])]
    weights = kernel, *map(filled_up, (gain, shift, *norm))
    call = function(CONVOLUTION, "stem_convolution_back", torch.float32)
    maps = map(pointer, (before, h, outer, to_entering))
    call(*maps, _sizes(before, kernel), pointers(weights), pointers(sums), torch.get_num_threads())
    return to_entering, *sums


def _sizes(before: Tensor, kernel: Tensor) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 5)(*before.shape, len(kernel))
