"""FViT's feed-forward with its matrix products: `native/{feed_forward,feed_forward_training,few_pixels_training}.cpp`.

A picture goes through both products and the filters between them by one thread, while its hidden map is in the cache; few pixels go through
one after the other by all threads together. Maps are contiguous, weights of the products (hidden, C) and (C, hidden).
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foveate.speed.native.chains import FilteringWeights
from foveate.speed.native.library import LANES, function, has_libraries, has_library, has_products, pointer, pointers
from foveate.speed.native.training import Dropped

LIBRARY, TRAINING, TRAINING_OF_FEW = "feed_forward", "feed_forward_training", "few_pixels_training"


class Branch(NamedTuple):
    """A feed-forward in training, and the end of its branch."""

    fc1: Tensor
    fc2: Tensor
    groups: int
    weights: Sequence[Tensor]
    """In the order of `training.filter_groups`."""
    dropped: tuple[Dropped, Dropped]
    """Of the hidden map, and of what is added at the end."""
    factors: Tensor
    """Of the branch, one for each picture."""


def can_join(dtype: torch.dtype) -> bool:
    """Whether `feed_forward` could be compiled here for maps in this number format; the first call does it."""
    return has_products(dtype) and has_library(LIBRARY, dtype)


def can_train() -> bool:
    """The same of `run` and `lead_back`, float32 alone."""
    return has_libraries((TRAINING, TRAINING_OF_FEW), torch.float32)


def fits(fc1: Tensor, fc2: Tensor) -> bool:
    """Whether the products of these weights can be native: one number format that has them, widths in whole groups of `LANES`."""
    return fc1.dtype == fc2.dtype and has_products(fc1.dtype) and len(fc1) % LANES == len(fc2) % LANES == 0


def are_enough(pictures: int) -> bool:
    """Whether every thread may take whole pictures: all together are to wait for no more than a fifth of the time."""
    threads = torch.get_num_threads()
    longest = -(-pictures // threads)
    return 4 * longest * threads <= 5 * pictures


def feed_forward(normal_bhwc: Tensor, y_bhwc: Tensor, fc1: Tensor, fc2: Tensor, weights: FilteringWeights) -> None:
    """`y += fc2(filters(fc1(normal)))`, maps (B, H, W, C)."""
    groups, filters = len(weights.entering), len(weights.taps)
    sizes = (ctypes.c_int64 * 7)(*normal_bhwc.shape, len(fc1), groups, groups - filters)
    call = function(LIBRARY, "feed_forward", normal_bhwc.dtype)
    call(pointer(normal_bhwc), pointer(y_bhwc), sizes, *map(pointer, (fc1, fc2, *weights)), torch.get_num_threads())


def run(normal_bhwc: Tensor, r_bhwc: Tensor, bias: Tensor, branch: Branch) -> tuple[Tensor, Tensor]:
    """`r + factor dropped(fc2(filters(fc1(normal))) + bias)`, and what enters the filters, (B, H, W, hidden), for `lead_back`."""
    y, entering = torch.empty_like(r_bhwc), r_bhwc.new_empty(*r_bhwc.shape[:3], len(branch.fc1))
    maps = map(pointer, (normal_bhwc, r_bhwc, entering, y))
    call = _training_function("feed_forward", r_bhwc)
    call(*maps, *_given(r_bhwc, branch, pointer(bias)), torch.get_num_threads())
    return y, entering


def lead_back(
    gradient_bhwc: Tensor,
    normal_bhwc: Tensor,
    entering: Tensor,
    branch: Branch,
    to_products: tuple[Tensor | None, Tensor | None],
    to_weights: Sequence[Tensor],
    to_bias: Tensor,
) -> Tensor:
    """The gradient to `normal`, from that to the outcome of `run`.

    Those to the weights of the products are written to `to_products`, where they are wanted; those to the filters' weights and the bias are
    added to `to_weights` and `to_bias`.
    """
    to_normal = torch.empty_like(gradient_bhwc)
    maps = map(pointer, (gradient_bhwc, normal_bhwc, entering, to_normal))
    call, products = _training_function("feed_back", gradient_bhwc), map(pointer, to_products)
    call(*maps, *_given(gradient_bhwc, branch), *products, pointers(to_weights), pointer(to_bias), torch.get_num_threads())
    return to_normal


def _training_function(name: str, x_bhwc: Tensor) -> Any:
    """For maps like this: with few pixels, bringing weights together for each thread and adding up parts of their gradients costs more than
    maps that leave the cache.
    """
    channels = x_bhwc.shape[-1]
    return function(TRAINING_OF_FEW if x_bhwc.numel() <= 2 * channels**2 else TRAINING, name, torch.float32)


def _given(x_bhwc: Tensor, branch: Branch, *bias: ctypes.c_void_p) -> tuple[object, ...]:
    """Sizes, weights and dropout as both directions take them; the bias stands behind the weights."""
    hidden = len(branch.fc1)
    sizes = (ctypes.c_int64 * 7)(*x_bhwc.shape, hidden, branch.groups, branch.groups - len(branch.weights) // 2)
    (inner, scale), (end, end_scale) = (dropped.words() for dropped in branch.dropped)
    dropped, scales = (ctypes.c_int64 * 8)(*inner, *end), (ctypes.c_float * 2)(scale.value, end_scale.value)
    weights = pointer(branch.fc1), pointer(branch.fc2), pointers(branch.weights)
    return sizes, *weights, *bias, dropped, scales, pointer(branch.factors)
