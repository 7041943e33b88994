"""What lies between the matrix products of a transformer block: the functions of `native/tokens.cpp` on tensors.

Tokens are contiguous, on the processor, in one of `FORMATS`; biases are float32, filled up with zeros to whole groups of `LANES`.
"""

import ctypes

import torch
from torch import Tensor

from foveate.speed.native.library import function, has_library, pointer, rows_of

LIBRARY = "tokens"


def can_join(dtype: torch.dtype) -> bool:
    """Whether the functions could be compiled here for tokens in this number format; the first call does it."""
    return has_library(LIBRARY, dtype)


def attend(qkv: Tensor, heads: int, bias: Tensor, scale: float, peaks: Tensor | None = None) -> Tensor:
    """`softmax(scale q k^T) v` of every head: (B, T, 3 * D) -> (B, T, D).

    Args:
        qkv: queries, keys and values, head after head in each; `bias`, (3, heads, width of a head filled up), is added to it.
        peaks: (B, heads, T, 2), float32: room for the largest product of each query and one over its sum of exponentials, which the way
            back asks for.
    """
    pictures, tokens, channels = len(qkv), qkv.shape[1], qkv.shape[2] // 3
    y = qkv.new_empty(pictures, tokens, channels)
    call = function(LIBRARY, "attend", qkv.dtype)
    sizes = (ctypes.c_int64 * 4)(pictures, tokens, channels, heads)
    call(pointer(qkv), pointer(y), sizes, pointer(bias), ctypes.c_float(scale), pointer(peaks), torch.get_num_threads())
    return y


def norm(x: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Layer norm over the last axis without gain and shift, in `dtype`, which is that of `x` where that is not float32."""
    normal = torch.empty_like(x, dtype=dtype)
    _add_norm(x, None, None, normal, (None, None), eps)
    return normal


def add_norm(x: Tensor, product: Tensor, biases: tuple[Tensor, Tensor], eps: float) -> tuple[Tensor, Tensor]:
    """`s = x + product + bias`: `s + later_bias` like x, in the product's place where they have one number format, and `norm(s)`.

    Args:
        x: in the product's number format, or float32.
        biases: the bias and the later one.
    """
    y = product if x.dtype == product.dtype else torch.empty_like(x)
    normal = torch.empty_like(product)
    _add_norm(x, product, y, normal, biases, eps)
    return y, normal


def activate(hidden: Tensor, bias: Tensor) -> None:
    """`GELU(hidden + bias)` in the place of `hidden`."""
    call = function(LIBRARY, "activate", hidden.dtype)
    call(pointer(hidden), rows_of(hidden), pointer(bias), torch.get_num_threads())


def _add_norm(
    x: Tensor, product: Tensor | None, y: Tensor | None, normal: Tensor, biases: tuple[Tensor | None, Tensor | None], eps: float
) -> None:
    call = function(LIBRARY, "add_norm" if x.dtype == normal.dtype else "add_norm_float", normal.dtype)
    maps = map(pointer, (x, product, y, normal))
    call(*maps, rows_of(x), *map(pointer, biases), ctypes.c_float(eps), torch.get_num_threads())
