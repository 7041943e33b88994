"""Pairs of layers that keep less for the backward pass: what costs little is computed again.

PyTorch keeps the input of every layer. That of a linear layer behind a layer norm, or behind GELU, is one pass over memory away from the
input before it, which is kept as well. Numbers and gradients are those of the two layers one after the other, but the gradients cannot be
differentiated once more: that takes a model in evaluation mode, where every layer is called.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from foveate.layers.in_place import gelu
from foveate.layers.products import linear_product, product, product_over_rows
from foveate.layers.watching import is_recorded, is_watched


def recomputes(*layers: nn.Module) -> bool:
    """Whether `layers` are in training, gradients are recorded, and none of them has to be called for what it is.

    Under `torch.compile` all of them are called: the compiler decides for itself what to compute again.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or _has_any_global_hook():
        return False
    devices = {parameter.device.type for layer in layers for parameter in layer.parameters()}
    return all(layer.training and is_plain(layer) for layer in layers) and all(map(torch.amp.is_autocast_available, devices))


def is_plain(layer: nn.Module) -> bool:
    """Whether calling a layer means nothing but its equation: PyTorch's own class, with weights, without hooks or another `forward`.

    An adapter that stands in a linear layer's place, for one, is not.
    """
    return is_untouched(layer, nn.LayerNorm, nn.Linear, nn.Conv2d) and layer.weight is not None


def is_untouched(module: nn.Module, *classes: type[nn.Module]) -> bool:
    """Whether a module is of one of `classes` itself, without hooks or another `forward`."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
    return type(module) in classes and not any(hooks) and "forward" not in vars(module)


def compute_dtype(weight: Tensor) -> torch.dtype:
    """The number format in which a layer with this weight computes: autocast's where that is on, which leaves float64 alone."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) and weight.dtype != torch.float64 else weight.dtype


def called(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` of a linear layer by `linear_product`; what has hooks or is watched, or stands in its place, is called."""
    if type(layer) is not nn.Linear or is_recorded() or not is_plain(layer) or is_watched():
        y: Tensor = layer(x)
        return y
    return linear_product(x, layer.weight, layer.bias)


def norm_linear(x: Tensor, norm: nn.Module, linear: nn.Linear) -> Tensor:
    """`linear(norm(x))`, (..., D) -> (..., E); in training the layer norm is computed again in the backward pass, its output not kept."""
    if not recomputes(norm, linear):
        return called(linear, norm(x))
    weight, bias = _in_compute_dtype(linear)
    with torch.autocast(x.device.type, enabled=False):
        y: Tensor = _NormLinear.apply(x, norm.weight, norm.bias, norm.eps, weight, bias)
    return y


def gelu_linear(hidden: Tensor, linear: nn.Linear) -> Tensor:
    """`linear(GELU(hidden))`, (..., D) -> (..., E); in training GELU is computed again in the backward pass, its output not kept.

    Where no gradients are recorded GELU overwrites `hidden`.
    """
    if not recomputes(linear):
        return called(linear, gelu(hidden))
    weight, bias = _in_compute_dtype(linear)
    with torch.autocast(hidden.device.type, enabled=False):
        y: Tensor = _GeluLinear.apply(hidden.to(weight.dtype), weight, bias)
    return y


def _in_compute_dtype(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    dtype = compute_dtype(linear.weight)
    bias: Tensor | None = linear.bias
    return linear.weight.to(dtype), None if bias is None else bias.to(dtype)


def norm_forward(x: Tensor, gain: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm over the last axis in the number format of its gain: the output in `dtype`, the means and the inverse deviations."""
    y, mean, rstd = torch.native_layer_norm(x.to(gain.dtype), x.shape[-1:], gain, shift, eps)
    return y.to(dtype), mean, rstd


def norm_backward(
    gradient: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gain: Tensor, shift: Tensor | None, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """Gradients to x, gain and shift of a layer norm over the last axis, None for what is not `wanted`."""
    own = x.to(gain.dtype)
    to_x, to_gain, to_shift = torch.ops.aten.native_layer_norm_backward(
        gradient.to(own.dtype), own, x.shape[-1:], mean, rstd, gain, shift, list(wanted)
    )
    return None if to_x is None else to_x.to(x.dtype), to_gain, to_shift


class _NormLinear(torch.autograd.Function):
    """x (..., D), gain and shift (D,), weight (E, D), bias (E,) -> (..., E)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor | None, eps: float, weight: Tensor, bias: Tensor | None) -> Tensor:
        y, mean, rstd = norm_forward(x, gain, shift, eps, weight.dtype)
        ctx.save_for_backward(x, mean, rstd, gain, shift, weight)
        ctx.eps = eps
        return linear_product(y, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, rstd, gain, shift, weight = ctx.saved_tensors
        y = norm_forward(x, gain, shift, ctx.eps, weight.dtype)[0]
        outer = _rows(gradient)
        to_norm = norm_backward(product(outer, weight).view_as(x), x, mean, rstd, gain, shift, ctx.needs_input_grad[:3])
        return *to_norm, None, *_linear_backward(outer, _rows(y), *ctx.needs_input_grad[4:])


class _GeluLinear(torch.autograd.Function):
    """hidden (..., D), weight (E, D), bias (E,) -> (..., E)."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return linear_product(F.gelu(hidden), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        hidden, weight = ctx.saved_tensors
        outer = _rows(gradient)
        to_linear = _linear_backward(outer, _rows(F.gelu(hidden)), *ctx.needs_input_grad[1:])
        return torch.ops.aten.gelu_backward(product(outer, weight).view_as(hidden), hidden), *to_linear


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


def _linear_backward(outer: Tensor, tokens: Tensor, weight: bool, bias: bool) -> tuple[Tensor | None, Tensor | None]:
    """Gradients to the weight (E, D) and the bias (E,) that are learnt, from those to the output (T, E) and the tokens (T, D)."""
    return product_over_rows(outer, tokens) if weight else None, outer.sum(dim=0) if bias else None
