"""The second half of a transformer block or token layer in training, behind its attention: projection, sum, norm, MLP, sum.

Native passes around three matrix products, in both directions, see `native/token_training.py`; for whoever makes a function of autograd of
them. Legend: B pictures, T tokens, D width.
"""

from typing import NamedTuple

from torch import Tensor

from foveate.layers.products import linear_product, product, product_over_rows
from foveate.speed.joined.blocks import filled_up
from foveate.speed.native import token_training as native
from foveate.speed.native.library import LANES
from foveate.speed.native.token_training import Branch, Norm
from foveate.speed.native.training import Dropped


class Half(NamedTuple):
    """What it computes with; the weights of the products in their number format, the others as the native code reads them."""

    proj: Tensor
    fc1: Tensor
    fc2: Tensor
    attention: Branch
    norm: Norm
    fc1_bias: Tensor
    inner: Dropped
    """Behind GELU."""
    mlp: Branch


class HalfGradients(NamedTuple):
    """To the tokens, what the attention gave, and the weights; None for what is not wanted."""

    tokens: Tensor
    attended: Tensor
    proj: Tensor | None
    fc1: Tensor | None
    fc2: Tensor | None
    gain: Tensor
    shift: Tensor
    proj_bias: Tensor
    fc1_bias: Tensor
    fc2_bias: Tensor


def run(x: Tensor, attended: Tensor, half: Half) -> tuple[Tensor, Tensor, Tensor]:
    """`s = x + attention(proj(attended))`, the first linear's response to `norm(s)`, and `s + mlp(fc2(GELU(response)))`."""
    s, normal = native.add_norm(x, linear_product(attended, half.proj), half.attention, half.norm)
    hidden = linear_product(normal, half.fc1)
    del normal
    leaving = native.activate(hidden, half.fc1_bias, half.inner)
    return s, hidden, native.add(s, linear_product(leaving, half.fc2), half.mlp)


def gradients(gradient: Tensor, s: Tensor, hidden: Tensor, attended: Tensor, half: Half, wanted: tuple[bool, ...]) -> HalfGradients:
    """From that to the outcome of `run`; `wanted`: of the weights of the three products."""
    outer, to_fc2_bias = native.add_gradients(gradient, half.mlp, hidden.dtype)
    inner = before(outer, half.fc2)
    leaving, to_fc1_bias = native.activate_gradients(hidden, inner, half.fc1_bias, half.inner)
    to_fc2 = to_weight(outer, leaving, wanted[2])
    del leaving, outer
    normal = before(inner, half.fc1)
    to_s, outer, to_proj_bias, to_gain, to_shift = native.add_norm_gradients(s, gradient, normal, half.attention, half.norm)
    to_fc1 = to_weight(inner, normal, wanted[1])
    del inner, normal
    to_proj = to_weight(outer, attended, wanted[0])
    to_attended = before(outer, half.proj)
    return HalfGradients(to_s, to_attended, to_proj, to_fc1, to_fc2, to_gain, to_shift, to_proj_bias, to_fc1_bias, to_fc2_bias)


def before(outer: Tensor, weight: Tensor) -> Tensor:
    """The gradient to a product's tokens, (B, T, D), from that to its outcome, (B, T, E), and its weight (E, D)."""
    return product(outer.flatten(0, 1), weight).unflatten(0, outer.shape[:2])


def to_weight(outer: Tensor, tokens: Tensor, wanted: bool) -> Tensor | None:
    """The gradient to a product's weight (E, D) from that to its outcome, (B, T, E), and its tokens, (B, T, D)."""
    return product_over_rows(outer.flatten(0, 1), tokens.flatten(0, 1)) if wanted else None


def filled(weight: Tensor) -> Tensor:
    """As the native code reads it: the weight itself where its width allows, since small copies among large tensors break up the heap."""
    return filled_up(weight) if len(weight) % LANES else weight.contiguous()
