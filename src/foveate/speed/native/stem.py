"""FViT's stem for inference: `native/stem.cpp` on tensors, on the processor. Pictures are float32."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.library import function, has_library, has_products, pointer, pointers

LIBRARY = "stem"


class Weights(NamedTuple):
    """Of three layers `gain GELU(conv(.)) + shift`, as the C++ reads them."""

    taps: tuple[Tensor, ...]
    """(9 entering, leaving filled up) each: row and column of the kernel, then the channel that enters. In bfloat16 those behind the first
    (9 entering / 2, leaving filled up, 2)."""
    rows: tuple[Tensor, ...]
    """Bias, gain and shift of the first layer, of the second, of the third: (leaving filled up,) each."""
    channels: int
    stride: tuple[int, int]
    """Of the first convolution."""
    dtype: torch.dtype
    """Of what the layers make."""


def can_join(dtype: torch.dtype) -> bool:
    """Whether `run` could be compiled here for maps in this number format; the first call does it."""
    return has_products(dtype) and has_library(LIBRARY, dtype)


def packed(taps: Sequence[Tensor], rows: Sequence[tuple[Tensor, Tensor, Tensor]], stride: tuple[int, int], dtype: torch.dtype) -> Weights:
    """`taps`: (9 entering, leaving) of each layer, in bfloat16 of an even number of channels; `rows`: its bias, gain and shift."""
    first, *later = map(filled_up, taps)
    filled = tuple(filled_up(row) for layer in rows for row in layer)
    return Weights((first, *(_in_pairs(one, dtype) for one in later)), filled, len(rows[0][0]), stride, dtype)


def _in_pairs(taps: Tensor, dtype: torch.dtype) -> Tensor:
    """Neighbours in depth side by side, where the format is bfloat16."""
    return taps if dtype == torch.float32 else taps.unflatten(0, (-1, 2)).transpose(1, 2).to(dtype).contiguous()


def run(x_bhwc: Tensor, weights: Weights) -> Tensor:
    """(B, H, W, in_chans), contiguous -> (B, ceil(H/s), ceil(W/s), C)."""
    pictures, height, width, channels = x_bhwc.shape
    down, across = weights.stride
    y = x_bhwc.new_empty(pictures, -(-height // down), -(-width // across), weights.channels, dtype=weights.dtype)
    sizes = (ctypes.c_int64 * 7)(pictures, height, width, channels, weights.channels, down, across)
    call = function(LIBRARY, "stem", weights.dtype)
    call(pointer(x_bhwc), pointer(y), sizes, pointers(weights.taps), pointers(weights.rows), torch.get_num_threads())
    return y
