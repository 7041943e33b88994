"""Elementwise steps that take no new memory where no gradient will ask for the old values.

Fresh memory costs more than the arithmetic on it: the system hands pages out one by one and wipes each. The tensor that is overwritten must
belong to the caller: the output of a convolution or a linear layer that nobody else reads. A forward hook that wants to keep such an
output has to copy it.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["relu", "gelu", "none"]


def added(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in the memory of x where no gradients are recorded."""
    return x + y if torch.is_grad_enabled() or x.dtype != y.dtype else x.add_(y)


def gelu(x: Tensor) -> Tensor:
    """GELU with the error function, in the memory of x where no gradients are recorded."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


def activated(response: Tensor, activation: Activation) -> Tensor:
    """The activation of a convolution's response, which nobody else reads."""
    if activation == "relu":
        return response.relu_()
    return gelu(response) if activation == "gelu" else response


def batch_norm(norm: nn.BatchNorm2d, x_bchw: Tensor) -> Tensor:
    """Batch norm; with running statistics and without gradients as one product and sum in the memory of x."""
    mean, variance = norm.running_mean, norm.running_var
    if torch.is_grad_enabled() or norm.training or mean is None or variance is None:
        return norm(x_bchw)
    gain = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * gain
    return torch.addcmul(shift[:, None, None], x_bchw, gain[:, None, None], out=x_bchw)
