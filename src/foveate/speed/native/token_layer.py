"""A token layer of T2T-ViT for inference: the function of `native/token_layer.cpp` on tensors.

All are float32, contiguous, on the processor. Tokens go through the layer in blocks of up to 64 that stay in the cache: neither the
patches, nor keys and features are ever whole in memory.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.layers.soft_split import soft_split_padding
from foveate.speed.native.library import function, has_library, pointer, pointers

LIBRARY = "token_layer"


class Weights(NamedTuple):
    """As the layers hold them, but for the norms, which are folded into what follows them."""

    kqv: Tensor
    """(3 * E, D)."""
    kqv_bias: Tensor
    features: Tensor
    """(M, E)."""
    proj: Tensor
    proj_bias: Tensor
    fc1: Tensor
    fc1_bias: Tensor
    fc2: Tensor
    fc2_bias: Tensor


class Split(NamedTuple):
    """Of a soft split: the side of a patch and the step from one to the next, in pixels."""

    kernel: int
    stride: int


def can_join() -> bool:
    """Whether the function could be compiled here; the first call does it."""
    return has_library(LIBRARY, torch.float32)


def token_layer(x_bhwc: Tensor, split: Split, weights: Weights, eps: tuple[float, float]) -> Tensor:
    """Soft split, norm, performer attention and MLP: (B, T, E).

    Args:
        weights: E is a multiple of 16.
        eps: of the patches' norm and of the MLP's.
    """
    padding = soft_split_padding(*split)
    height, width = ((side + 2 * padding - split.kernel) // split.stride + 1 for side in x_bhwc.shape[1:3])
    count, size = weights.features.shape
    y = x_bhwc.new_empty(len(x_bhwc), height * width, size)
    sizes = (ctypes.c_int64 * 10)(*x_bhwc.shape, *split, padding, size, count, len(weights.fc1))
    call = function(LIBRARY, "token_layer", torch.float32)
    call(pointer(x_bhwc), pointer(y), sizes, pointers(weights), (ctypes.c_float * 2)(*eps), torch.get_num_threads())
    return y
