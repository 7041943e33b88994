"""GELU with batch norm in training: the functions of `native/stem.cpp` on tensors.

Maps are contiguous, (B, H, W, C), on the processor, all in one number format; weights and their gradients are float32.
"""

import torch
from torch import Tensor

from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.library import function, has_library, pointer, pointers, rows_of

LIBRARY = "stem"


def can_join(dtype: torch.dtype) -> bool:
    """Whether the functions could be compiled here for maps in this number format; the first call does it."""
    return has_library(LIBRARY, dtype)


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
