"""A transformer block for inference in float32: the three functions of `native/token_block.cpp` on tensors.

Tokens go through its matrix products in blocks of up to 64 that stay in the cache, with what lies before and behind each product. All are
float32, contiguous, on the processor; weights are as the linear layers hold them.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.speed.native.library import LANES, function, has_library, pointer, pointers

LIBRARY = "token_block"


def can_join() -> bool:
    """Whether the functions could be compiled here; the first call does it."""
    return has_library(LIBRARY, torch.float32)


def ask(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """`linear(norm(x))` of tokens (B, T, D), the norm without gain and shift, turned: (B, N, T filled up to multiples of `LANES`)."""
    asked = x.new_empty(len(x), len(weight), -(-x.shape[1] // LANES) * LANES)
    call, sizes = function(LIBRARY, "ask", x.dtype), (ctypes.c_int64 * 4)(*x.shape, len(weight))
    call(pointer(x), pointer(asked), sizes, pointer(weight), pointer(bias), ctypes.c_float(eps), torch.get_num_threads())
    return asked


def attend(asked: Tensor, tokens: int, heads: int, scale: float) -> Tensor:
    """`softmax(scale q k^T) v` of every head from queries, keys and values as `ask` gives them for so many tokens: (B, T, D)."""
    channels = asked.shape[1] // 3
    y = asked.new_empty(len(asked), tokens, channels)
    call, sizes = function(LIBRARY, "attend_turned", asked.dtype), (ctypes.c_int64 * 4)(len(asked), tokens, channels, heads)
    call(pointer(asked), pointer(y), sizes, ctypes.c_float(scale), torch.get_num_threads())
    return y


def finish(x: Tensor, attended: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], eps: float) -> Tensor:
    """`s = x + proj(attended)`, then `s + fc2(GELU(fc1(norm(s))))`, (B, T, D), the norm without gain and shift.

    Args:
        weights, biases: of the three linear layers in this order.
    """
    y = torch.empty_like(x)
    call, sizes = function(LIBRARY, "finish", x.dtype), (ctypes.c_int64 * 3)(x[..., 0].numel(), x.shape[-1], len(weights[1]))
    maps = map(pointer, (x, attended, y))
    call(*maps, sizes, pointers(weights), pointers(biases), ctypes.c_float(eps), torch.get_num_threads())
    return y
