"""A convolution and what follows it in one call of the processor's library, oneDNN, where no gradients are recorded.

The map is then written once, instead of written, read and written again. The calls are those that PyTorch's compiler makes of the same
layers; elsewhere the convolution is called and then what follows it. Numbers are the same up to rounding.
"""

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.depthwise import depthwise
from foveate.layers.in_place import Activation, activated
from foveate.layers.recomputing import compute_dtype, is_plain
from foveate.layers.watching import is_recorded, is_watched

FORMATS = torch.float32, torch.bfloat16


def convolved(layer: nn.Module, x_bchw: Tensor, activation: Activation) -> Tensor:
    """`activation(layer(x))` of a convolution; one with hooks, or what stands in its place, is called."""
    if not _is_plain(layer) or not _fits(layer, x_bchw) or not takes(x_bchw, layer.weight):
        return activated(layer(x_bchw), activation)
    return _in_one_call(x_bchw, layer.weight, layer.bias, (layer.padding, layer.stride, layer.dilation, layer.groups), activation)


def filtered(x_bhwc: Tensor, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """`activation(depthwise(x))`, see `layers/depthwise.py`: (B, H, W, C) -> (B, H, W, C)."""
    if x_bhwc.dim() != 4 or weight.shape[:2] != (x_bhwc.shape[-1], 1) or not takes(x_bhwc, weight):
        return activated(depthwise(x_bhwc, weight, bias), activation)
    form = (weight.shape[-1] // 2,) * 2, (1, 1), (1, 1), len(weight)
    return _in_one_call(x_bhwc.permute(0, 3, 1, 2), weight, bias, form, activation).permute(0, 2, 3, 1)


def plus_pointwise(total_bhwc: Tensor, x_bhwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`total + linear(x)`, in the memory of `total` where it can be: (B, H, W, E), (B, H, W, C), (E, C), (E,) -> (B, H, W, E).

    For maps that `takes` says yes to.
    """
    if total_bhwc.shape != (*x_bhwc.shape[:-1], len(weight)) or x_bhwc.shape[-1] != weight.shape[1]:
        return total_bhwc + F.linear(x_bhwc, weight, bias)  # which says what is wrong
    x, kernel, offset = _in_one_format(x_bhwc.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    form = [0, 0], [1, 1], [1, 1], 1
    total = total_bhwc.to(x.dtype).contiguous().permute(0, 3, 1, 2)
    y: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(total, x, kernel, offset, *form, "add", 1.0, None, [], None)
    return y.permute(0, 2, 3, 1)


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether a map and a convolution's weight can go to oneDNN without anybody missing the steps between."""
    if torch.is_grad_enabled() or is_recorded() or type(x) is not Tensor or x.device.type != "cpu" or not x.numel() or is_watched():
        return False
    dtype = compute_dtype(weight)
    if dtype not in FORMATS or (x.dtype != weight.dtype and not torch.is_autocast_enabled("cpu")) or x.is_neg() or weight.is_neg():
        return False
    if not torch.backends.mkldnn.is_available() or not torch._C._get_mkldnn_enabled():
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution as it was made, with zeros around the map."""
    return type(layer) is nn.Conv2d and is_plain(layer) and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _fits(layer: nn.Conv2d, x_bchw: Tensor) -> bool:
    """Whether a map is one for this convolution, which itself would say what is wrong."""
    return x_bchw.dim() == 4 and x_bchw.shape[1] == layer.weight.shape[1] * layer.groups


def _in_one_call(x_bchw: Tensor, weight: Tensor, bias: Tensor | None, form: tuple[Any, ...], activation: Activation) -> Tensor:
    """`form`: padding, stride, dilation and groups of the convolution."""
    y: Tensor = torch.ops.mkldnn._convolution_pointwise(*_in_one_format(x_bchw, weight, bias), *form, activation, [], "none")
    return y


def _in_one_format(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """The map and weights, as oneDNN reads them: a filter's may be one for all channels, expanded."""
    dtype = compute_dtype(weight)
    return x.to(dtype), weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype).contiguous()
