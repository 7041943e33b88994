"""What lies between the matrix products of a transformer block, in training: the functions of `native/token_training.cpp` on tensors.

Tokens are contiguous, on the processor. From block to block they are float32, what products read and give is in one of `FORMATS`; weights
are float32, filled up with zeros to whole groups of `LANES`, and their gradients float32, not filled up. Factors are float32, one for each
picture.
"""

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from foveate.speed.native import tokens as native_tokens
from foveate.speed.native.library import function, has_library, pointer, pointers, rows_of
from foveate.speed.native.training import NONE, Dropped

LIBRARY = "token_training"


class Norm(NamedTuple):
    """A layer norm: gain and shift (D filled up,)."""

    gain: Tensor
    shift: Tensor
    eps: float


class Branch(NamedTuple):
    """What is done with a branch's last product before it is added to the tokens."""

    bias: Tensor | None
    """(D filled up,); not read on the way back."""
    factors: Tensor
    """(B,)."""
    dropped: Dropped


def can_join(dtype: torch.dtype) -> bool:
    """Whether the functions could be compiled here for products in this number format; the first call does it."""
    return native_tokens.can_join(dtype) and has_library(LIBRARY, dtype)


def attend_gradients(qkv: Tensor, y: Tensor, peaks: Tensor, outer: Tensor, bias: Tensor, scale: float) -> Tensor:
    """The gradient to `qkv`, (B, T, 3 * D), and so to its bias, from that to the outcome `y` of `tokens.attend`, (B, T, D)."""
    to_qkv = torch.empty_like(qkv)
    call = function(LIBRARY, "attend_gradients", qkv.dtype)
    sizes = (ctypes.c_int64 * 4)(*outer.shape, peaks.shape[1])
    call(*map(pointer, (qkv, y, peaks, outer, to_qkv)), sizes, pointer(bias), ctypes.c_float(scale), torch.get_num_threads())
    return to_qkv


def norm(x: Tensor, of: Norm, dtype: torch.dtype) -> Tensor:
    """The layer norm of tokens `x`, (B, T, D), in `dtype`."""
    normal = torch.empty_like(x, dtype=dtype)
    _forward(x, None, None, normal, None, of)
    return normal


def add(x: Tensor, product: Tensor, branch: Branch) -> Tensor:
    """`x + factor dropped(product + bias)`, float32, in the product's place where that is float32, too."""
    y = _room(x, product)
    _forward(x, product, y, None, branch, None)
    return y


def add_norm(x: Tensor, product: Tensor, branch: Branch, of: Norm) -> tuple[Tensor, Tensor]:
    """`add`, and `norm` of it in the product's number format."""
    y, normal = _room(x, product), torch.empty_like(product)
    _forward(x, product, y, normal, branch, of)
    return y, normal


def add_gradients(outer: Tensor, branch: Branch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Gradients to the product, in `dtype`, and the bias of `add` from that to its outcome, which is also that to its tokens."""
    product, to_bias = torch.empty_like(outer, dtype=dtype), outer.new_zeros(outer.shape[-1])
    _backward((None, outer, None, None, product), branch, None, (to_bias, None, None))
    return product, to_bias


def norm_gradients(s: Tensor, outer: Tensor, inner: Tensor, of: Norm) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to tokens `s`, gain and shift of `norm`, from that to its outcome and, beside it, `outer` to `s`.

    `inner`, the former, becomes the outcome itself.
    """
    to_s, to_gain, to_shift = torch.empty_like(outer), *(outer.new_zeros(outer.shape[-1]) for _ in range(2))
    _backward((s, outer, inner, to_s, None), None, of, (None, to_gain, to_shift))
    return to_s, to_gain, to_shift


def add_norm_gradients(s: Tensor, outer: Tensor, inner: Tensor, branch: Branch, of: Norm) -> tuple[Tensor, ...]:
    """Gradients to tokens, product, bias, gain and shift of `add_norm` from those to both of its outcomes, the sum `s` and the normed one.

    `inner`, the latter, becomes the normed sum itself.
    """
    to_s, to_product, sums = torch.empty_like(outer), torch.empty_like(inner), [outer.new_zeros(outer.shape[-1]) for _ in range(3)]
    _backward((s, outer, inner, to_s, to_product), branch, of, sums)
    return to_s, to_product, *sums


def activate(hidden: Tensor, bias: Tensor, dropped: Dropped) -> Tensor:
    """`dropped(GELU(hidden + bias))`."""
    leaving = torch.empty_like(hidden)
    call = function(LIBRARY, "activate", hidden.dtype)
    call(pointer(hidden), pointer(leaving), rows_of(hidden), pointer(bias), *dropped.words(), torch.get_num_threads())
    return leaving


def activate_gradients(hidden: Tensor, inner: Tensor, bias: Tensor, dropped: Dropped) -> tuple[Tensor, Tensor]:
    """What `activate` gave, and the gradient to the bias; `inner`, the gradient to the former, becomes that to `hidden`."""
    leaving, to_bias = torch.empty_like(hidden), hidden.new_zeros(hidden.shape[-1], dtype=torch.float32)
    call = function(LIBRARY, "activate_gradients", hidden.dtype)
    given = map(pointer, (hidden, inner, leaving))
    call(*given, rows_of(hidden), pointer(bias), *dropped.words(), pointer(to_bias), torch.get_num_threads())
    return leaving, to_bias


def _room(x: Tensor, product: Tensor) -> Tensor:
    return product if product.dtype == x.dtype else torch.empty_like(x)


def _forward(x: Tensor, product: Tensor | None, y: Tensor | None, normal: Tensor | None, branch: Branch | None, of: Norm | None) -> None:
    written = product if normal is None else normal
    assert written is not None, "one of both is asked for"
    call = function(LIBRARY, "add_norm", written.dtype)
    call(*map(pointer, (x, product, y, normal)), *_words(x, branch, of), torch.get_num_threads())


def _backward(maps: Sequence[Tensor | None], branch: Branch | None, of: Norm | None, sums: Sequence[Tensor | None]) -> None:
    """`maps`: s, outer, inner, the gradients to s and to the product; `sums`: the gradients to bias, gain and shift."""
    _, outer, inner, _, product = maps
    written = product if inner is None else inner
    assert outer is not None and written is not None, "one of both is asked for"
    call = function(LIBRARY, "add_norm_gradients", written.dtype)
    call(*map(pointer, maps), *_words(outer, branch, of), pointers(sums), torch.get_num_threads())


def _words(x: Tensor, branch: Branch | None, of: Norm | None) -> tuple[object, ...]:
    """Sizes, weights, eps, dropout and factors as the C++ takes them."""
    bias, factors, dropped = branch or (None, None, NONE)
    gain, shift, eps = of or (None, None, 0.0)
    sizes = (ctypes.c_int64 * 3)(*x.shape)
    return sizes, pointers((bias, gain, shift)), ctypes.c_float(eps), *dropped.words(), pointer(factors)
