"""Gabor kernels from their parameters, and the way back: the functions of `native/gabor.cpp` on tensors, float32, on the processor.

Parameters are those of `layers.gabor.LearnableGaborFilter`, (F,) each, contiguous: frequency, orientation, phase, aspect ratio, sharpness,
amplitude, shift_x, shift_y, the last two still without their tanh.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.speed.native.library import function, has_library, pointer, pointers

LIBRARY = "gabor"


def can_make() -> bool:
    """Whether the functions could be compiled here; the first call does it."""
    return has_library(LIBRARY, torch.float32)


def kernels(parameters: Sequence[Tensor], side: int) -> Tensor:
    """Kernels (F, side, side), as `LearnableGaborFilter.kernels` makes them."""
    filters = len(parameters[0])
    made, sizes = parameters[0].new_empty(filters, side, side), (ctypes.c_int64 * 2)(filters, side)
    function(LIBRARY, "gabor_all", torch.float32)(pointers(parameters), pointer(made), sizes, torch.get_num_threads())
    return made


def gradients(parameters: Sequence[Tensor], to_kernels: Tensor) -> list[Tensor]:
    """Gradients to the parameters from that to the kernels, (F, side, side)."""
    to_parameters, sizes = [torch.empty_like(parameter) for parameter in parameters], (ctypes.c_int64 * 2)(*to_kernels.shape[:2])
    call = function(LIBRARY, "gabor_gradients_of_all", torch.float32)
    call(pointers(parameters), pointer(to_kernels), pointers(to_parameters), sizes, torch.get_num_threads())
    return to_parameters
