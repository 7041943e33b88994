"""What lies between the matrix products of an FViT block, in training: the functions of `native/training.cpp` on tensors.

Forward and backward each go over the map in one pass, as in `native/chains.py`; what the forward pass does not keep is computed again.
Maps are contiguous, on the processor, all in one number format; weights are float32 in PyTorch's own layouts, and so are their gradients.
Factors are float32, one for each picture.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.layers.dropout import Dropout
from foveate.speed.native import gabor as native_gabor
from foveate.speed.native.library import ACTIVATIONS, function, has_library, pointer, pointers

LIBRARY = "training"


class Mixing(NamedTuple):
    """What `mix` is beside its weights."""

    side: int
    activation: str
    released: bool
    """Whether the filter's response is handed on in the order of the authors' code, see `layers/gabor.py`."""
    eps: tuple[float, float]
    """Of the first norm and the later one."""


class Dropped(NamedTuple):
    """Dropout without a mask: whether a number stays follows from its place in the map and from the seed, the same in both directions."""

    seed: int
    """Of 64 bits."""
    levels: int
    """How many of 65536 are dropped; 0 for none."""
    scale: float
    """What a number that stays is multiplied by."""
    start: int = 0
    """Where a map's numbers begin among those of all pictures; beyond 2**32 of them the same numbers are dropped again."""

    @classmethod
    def by(cls, drop: Dropout) -> "Dropped":
        """As a layer drops now, seeded from PyTorch's generator where it does."""
        return cls(int(torch.randint(2**63 - 1, (), device="cpu")) if drop.levels else 0, drop.levels, drop.scale)

    def words(self) -> tuple[ctypes.Array[ctypes.c_int64], ctypes.c_float]:
        """As the C++ takes it."""
        return (ctypes.c_int64 * 4)(self.seed & 0xFFFFFFFF, self.seed >> 32, self.levels, self.start), ctypes.c_float(self.scale)


NONE = Dropped(0, 0, 1.0)
"""No dropout."""


def can_join(dtype: torch.dtype) -> bool:
    """Whether the chains could be compiled here for maps in this number format; the first call does it."""
    return has_library(LIBRARY, dtype) and native_gabor.can_make()


def mix(x_bhwc: Tensor, form: Mixing, factors: Tensor | None, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`p = position(x); r = p + factor activation(filter(gain norm(p) + shift))`: the maps `r` and `later_gain norm(r) + later_shift`.

    Weights: kernel (C, 1, 3, 3), without the identity, and bias of the position embedding, gain and shift of the first norm, kernel
    (C, 1, k, k) and bias of the filter, gain and shift of the later norm.
    """
    r, normal = torch.empty_like(x_bhwc), torch.empty_like(x_bhwc)
    call = function(LIBRARY, "mix_all", x_bhwc.dtype)
    maps = map(pointer, (x_bhwc, r, normal))
    call(*maps, _mixing_sizes(x_bhwc, form), pointers(weights), _eps(form), pointer(factors), torch.get_num_threads())
    return r, normal


def mix_gradients(
    x_bhwc: Tensor, outer: Tensor, inner: Tensor, form: Mixing, factors: Tensor | None, weights: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Gradients to `x` and the weights of `mix` from those to `r` (`outer`) and to the normed map (`inner`)."""
    to_x, gradients = torch.empty_like(x_bhwc), [torch.zeros_like(weight) for weight in weights]
    call = function(LIBRARY, "mix_gradients_of_all", x_bhwc.dtype)
    maps = map(pointer, (x_bhwc, outer, inner, to_x))
    sizes = _mixing_sizes(x_bhwc, form)
    call(*maps, sizes, pointers(weights), _eps(form), pointer(factors), pointers(gradients), torch.get_num_threads())
    return to_x, gradients


def filter_groups(hidden_bhwc: Tensor, groups: int, dropped: Dropped, weights: Sequence[Tensor]) -> Tensor:
    """`x1 = dropped(h1 + b1), y1 = GELU(dw1(x1)), xi = dropped(hi + bi) + y(i-1), yi = GELU(dwi(xi))`: the y; the x take the h's place.

    Weights: the bias b (groups * width,), then kernel (width, 1, 3, 3) and bias of each filter; groups beyond these come first and pass.
    """
    leaving = torch.empty_like(hidden_bhwc)
    call = function(LIBRARY, "filter_all", hidden_bhwc.dtype)
    sizes = _filtering_sizes(hidden_bhwc, groups, weights)
    call(pointer(hidden_bhwc), pointer(leaving), sizes, pointers(weights), *dropped.words(), torch.get_num_threads())
    return leaving


def filter_gradients(
    entering: Tensor, inner: Tensor, groups: int, dropped: Dropped, weights: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor:
    """What left the groups, from what entered; `inner`, the gradient to it, becomes that to the hidden map, the weights' are added up."""
    leaving = torch.empty_like(entering)
    call = function(LIBRARY, "filter_gradients_of_all", entering.dtype)
    sizes, maps = _filtering_sizes(entering, groups, weights), map(pointer, (entering, inner, leaving))
    call(*maps, sizes, pointers(weights), *dropped.words(), pointers(gradients), torch.get_num_threads())
    return leaving


def add_residual(x_bhwc: Tensor, product: Tensor, bias: Tensor, dropped: Dropped, factors: Tensor) -> None:
    """`x + factor dropped(product + bias)` in the place of the product."""
    call = function(LIBRARY, "add_residual", x_bhwc.dtype)
    sizes = _residual_sizes(x_bhwc)
    call(pointer(x_bhwc), pointer(product), sizes, pointer(bias), *dropped.words(), pointer(factors), torch.get_num_threads())


def residual_gradients(gradient_bhwc: Tensor, dropped: Dropped, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients to the product and the bias (C,) of `add_residual`."""
    to_product, to_bias = torch.empty_like(gradient_bhwc), gradient_bhwc.new_zeros(gradient_bhwc.shape[-1], dtype=torch.float32)
    call = function(LIBRARY, "residual_gradients", gradient_bhwc.dtype)
    sizes, maps = _residual_sizes(gradient_bhwc), map(pointer, (gradient_bhwc, to_product))
    call(*maps, sizes, *dropped.words(), pointer(factors), pointer(to_bias), torch.get_num_threads())
    return to_product, to_bias


def _mixing_sizes(x_bhwc: Tensor, form: Mixing) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 7)(*x_bhwc.shape, form.side, ACTIVATIONS[form.activation], form.released)


def _filtering_sizes(hidden_bhwc: Tensor, groups: int, weights: Sequence[Tensor]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 6)(*hidden_bhwc.shape, groups, groups - len(weights) // 2)


def _residual_sizes(x_bhwc: Tensor) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * 3)(len(x_bhwc), x_bhwc[0, ..., 0].numel(), x_bhwc.shape[-1])


def _eps(form: Mixing) -> ctypes.Array[ctypes.c_float]:
    return (ctypes.c_float * 2)(*form.eps)
