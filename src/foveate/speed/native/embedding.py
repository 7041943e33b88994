"""FViT's embedding of patches for inference: `native/embedding.cpp` on tensors, on the processor."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.speed.joined.blocks import filled_up
from foveate.speed.native.library import function, has_library, has_products, pointer, pointers

LIBRARY = "embedding"


class Weights(NamedTuple):
    """Of `gain norm(convolution(.)) + shift`, the channels that leave filled up to whole groups of `LANES`."""

    kernels: Tensor
    """(leaving, 2, 2, entering), in the number format of the maps."""
    rows: tuple[Tensor, Tensor, Tensor]
    """The convolution's bias, the norm's gain and shift."""
    channels: int
    """That leave."""
    stride: int
    eps: float


def can_join(dtype: torch.dtype) -> bool:
    """Whether `run` could be compiled here for maps in this number format; the first call does it."""
    return has_products(dtype) and has_library(LIBRARY, dtype)


def packed(kernels: Tensor, rows: tuple[Tensor, Tensor, Tensor], stride: int, eps: float, dtype: torch.dtype) -> Weights:
    """`kernels`: (leaving, entering, 2, 2), as PyTorch has them; `rows`: bias, gain and shift."""
    filled = filled_up(kernels.permute(1, 2, 3, 0)).permute(3, 1, 2, 0).to(dtype).contiguous()
    bias, gain, shift = map(filled_up, rows)
    return Weights(filled, (bias, gain, shift), len(kernels), stride, eps)


def run(x_bhwc: Tensor, weights: Weights) -> Tensor:
    """(B, H, W, C), contiguous, in the kernels' number format -> (B, ceil(H/s), ceil(W/s), C')."""
    pictures, height, width, channels = x_bhwc.shape
    stride = weights.stride
    y = x_bhwc.new_empty(pictures, -(-height // stride), -(-width // stride), weights.channels)
    sizes = (ctypes.c_int64 * 6)(pictures, height, width, channels, weights.channels, stride)
    call, given = function(LIBRARY, "embed", weights.kernels.dtype), (pointer(x_bhwc), pointer(y), sizes, pointer(weights.kernels))
    call(*given, pointers(weights.rows), ctypes.c_float(weights.eps), torch.get_num_threads())
    return y
