"""The attention of T2T-ViT's token layers in training: the functions of `native/performer_training.cpp` on tensors.

All are float32 and contiguous. Keys and queries are never whole in memory.
"""

import ctypes

import torch
from torch import Tensor

from foveate.speed.native.library import function, has_library, pointer

LIBRARY = "performer_training"


def can_join() -> bool:
    """Whether the functions could be compiled here; the first call does it."""
    return has_library(LIBRARY, torch.float32)


def perform(response: Tensor, scales: Tensor, constant: Tensor, features: Tensor, gathered: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`performer_attention` of `k, q, v = response * scales + constant`: what the queries read, and v, (B, T, E) each.

    Args:
        response: (B, T, 3 * E), keys, queries and values; scales: (B, T); constant: (3 * E,).
        features: (E, M), the random features as columns; E and M are multiples of 16.
        gathered: `room_to_gather`, in which to leave what `perform_gradients` asks for.
    """
    y, v = (response.new_empty(*response.shape[:2], len(features)) for _ in range(2))
    sizes = (ctypes.c_int64 * 4)(*response.shape[:2], *features.shape)
    call = function(LIBRARY, "perform", torch.float32)
    call(*map(pointer, (response, scales, constant, features, y, v, gathered)), sizes, torch.get_num_threads())
    return y, v


def room_to_gather(pictures: int, features: Tensor) -> Tensor:
    """(B, n): for what the keys and values of each picture come to."""
    call = function(LIBRARY, "gathered_size", torch.float32)
    call.argtypes, call.restype = (ctypes.c_int64, ctypes.c_int64), ctypes.c_int64
    width, count = features.shape
    return features.new_empty(pictures, call(count, width))


def perform_gradients(
    response: Tensor, scales: Tensor, constant: Tensor, features: Tensor, gathered: Tensor, outer: Tensor, to_values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to response, scales and constant of `perform` from that to what the queries read, `outer`, and that to v, (B, T, E)."""
    to_response, to_scales, to_constant = torch.empty_like(response), torch.empty_like(scales), torch.zeros_like(constant)
    rows, sizes = features.t().contiguous(), (ctypes.c_int64 * 4)(*response.shape[:2], *features.shape)
    given = response, scales, constant, features, rows, gathered, outer, to_values, to_response, to_scales, to_constant
    function(LIBRARY, "perform_gradients", torch.float32)(*map(pointer, given), sizes, torch.get_num_threads())
    return to_response, to_scales, to_constant
