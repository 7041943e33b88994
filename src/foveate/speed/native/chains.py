"""What lies between the matrix products of an FViT block, for inference: two functions of `native/chains.cpp` on tensors.

A block of FViT reads and writes its map some twenty times, and what it does on the way between the matrix products (depthwise convolutions,
layer norms, GELU, sums) is bound by memory. The two chains here do it in one pass each.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.speed.native.library import ACTIVATIONS, function, has_library, pointer

LIBRARY = "chains"


class MixingWeights(NamedTuple):
    """What `mix` needs beside the map; S is C filled up to whole groups of `LANES`, every vector (S,)."""

    position_taps: Tensor
    """(9, S), the identity in the centre's row."""
    position_bias: Tensor
    gain: Tensor
    shift: Tensor
    taps: Tensor
    """(k * k, S)."""
    bias: Tensor
    later_bias: Tensor
    side: int
    activation: str
    released: bool
    """Whether the filter's response is handed on in the order of the authors' code, see `layers/gabor.py`."""
    eps: tuple[float, float]
    """Of the first norm, whose gain and shift these are, and of the second, which has none."""


class FilteringWeights(NamedTuple):
    """What `filter_groups` needs beside the hidden map; S is a group's width filled up to whole groups of `LANES`."""

    entering: Tensor
    """(groups, S): the bias of the linear layer before."""
    taps: Tensor
    """(filters, 9, S); groups before the last `filters` pass with their bias alone."""
    bias: Tensor
    """(filters, S)."""


def mix(x_bhwc: Tensor, weights: MixingWeights) -> tuple[Tensor, Tensor]:
    """`p = position(x); r = p + activation(filter(gain norm(p) + shift))`: the maps `r + later_bias` and `norm(r)`, (B, H, W, C) each.

    `x_bhwc` is contiguous, on the processor, in one of `FORMATS`; so are the maps.
    """
    y, normal = torch.empty_like(x_bhwc), torch.empty_like(x_bhwc)
    stride = weights.gain.shape[-1]
    sizes = (ctypes.c_int64 * 8)(*x_bhwc.shape, stride, weights.side, ACTIVATIONS[weights.activation], weights.released)
    pointers = (ctypes.c_void_p * 7)(*(tensor.data_ptr() for tensor in weights[:7]))
    call = function(LIBRARY, "mix_all", x_bhwc.dtype)
    call(pointer(x_bhwc), pointer(y), pointer(normal), sizes, pointers, (ctypes.c_float * 2)(*weights.eps), torch.get_num_threads())
    return y, normal


def filter_groups(hidden_bhwc: Tensor, weights: FilteringWeights) -> None:
    """`y1 = GELU(dw1(x1 + b1)), yi = GELU(dwi(xi + bi + y(i-1)))` in the place of the groups xi of hidden channels.

    `hidden_bhwc`, (B, H, W, groups * width), is contiguous, on the processor, in one of `FORMATS`.
    """
    groups, filters = len(weights.entering), len(weights.taps)
    sizes = (ctypes.c_int64 * 6)(*hidden_bhwc.shape, groups, groups - filters)
    call = function(LIBRARY, "filter_all", hidden_bhwc.dtype)
    call(pointer(hidden_bhwc), sizes, *map(pointer, weights), torch.get_num_threads())


def can_join(dtype: torch.dtype) -> bool:
    """Whether the chains could be compiled here for maps in this number format; the first call does it."""
    return has_library(LIBRARY, dtype)
