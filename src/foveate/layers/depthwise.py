"""Depthwise convolution of maps that lie channels-last: (B, H, W, C) in, (B, H, W, C) out, zeros around the map."""

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise(x_bhwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Each channel with its own kernel of odd side; `weight` (C, 1, k, k), `bias` (C,); the size stays."""
    return F.conv2d(x_bhwc.permute(0, 3, 1, 2), weight, bias, padding=weight.shape[-1] // 2, groups=len(weight)).permute(0, 2, 3, 1)


def depthwise_backward(gradient_bhwc: Tensor, x_bhwc: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to the map, the weight and the bias of `depthwise`."""
    gradient, x, half = gradient_bhwc.permute(0, 3, 1, 2), x_bhwc.permute(0, 3, 1, 2), weight.shape[-1] // 2
    plain = [len(weight)], [1, 1], [half, half], [1, 1], False, [0, 0]  # size of the bias, stride, padding, dilation, not transposed
    to_x, to_weight, to_bias = torch.ops.aten.convolution_backward(gradient, x, weight, *plain, len(weight), [True, True, True])
    return to_x.permute(0, 2, 3, 1), to_weight, to_bias
