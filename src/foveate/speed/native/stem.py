"""FViT's stem for inference: `native/stem.cpp` on tensors, float32, on the processor."""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.library import function, has_library, pointer, pointers

LIBRARY = "stem"


class Weights(NamedTuple):
    """Of three layers `gain GELU(conv(.)) + shift`, as the C++ reads them."""

    taps: tuple[Tensor, ...]
    """(9 entering, leaving filled up) each: row and column of the kernel, then the channel that enters."""
    rows: tuple[Tensor, ...]
    """Bias, gain and shift of the first layer, of the second, of the third: (leaving filled up,) each."""
    channels: int
    stride: tuple[int, int]
    """Of the first convolution."""


def can_join(dtype: torch.dtype) -> bool:
    """Whether `run` could be compiled here for maps in this number format; the first call does it."""
    return dtype == torch.float32 and has_library(LIBRARY, dtype)


def packed(taps: Sequence[Tensor], rows: Sequence[tuple[Tensor, Tensor, Tensor]], stride: tuple[int, int]) -> Weights:
    """`taps`: (9 entering, leaving) of each layer, `rows`: its bias, gain and shift."""
    filled = tuple(filled_up(row) for layer in rows for row in layer)
    return Weights(tuple(map(filled_up, taps)), filled, len(rows[0][0]), stride)


def run(x_bhwc: Tensor, weights: Weights) -> Tensor:
    """(B, H, W, in_chans), contiguous -> (B, ceil(H/s), ceil(W/s), C)."""
    pictures, height, width, channels = x_bhwc.shape
    down, across = weights.stride
    y = x_bhwc.new_empty(pictures, -(-height // down), -(-width // across), weights.channels)
    sizes = (ctypes.c_int64 * 7)(pictures, height, width, channels, weights.channels, down, across)
    call = function(LIBRARY, "stem", torch.float32)
    call(pointer(x_bhwc), pointer(y), sizes, pointers(weights.taps), pointers(weights.rows), torch.get_num_threads())
    return y
