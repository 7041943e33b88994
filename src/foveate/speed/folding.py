"""Exact rewritings of a model that no longer learns: constants move into the weights next to them, and passes over memory fall away."""

import torch
from torch import nn


@torch.no_grad()
def fold_norm(norm: nn.LayerNorm, linear: nn.Linear) -> None:
    """A LayerNorm's gain and bias into the linear layer that alone reads it: `W (g n + b) + c = (W g) n + (W b + c)`."""
    if norm.weight is None:
        return
    shift = torch.zeros_like(norm.weight) if norm.bias is None else norm.bias
    constant = linear.weight @ shift
    linear.bias = nn.Parameter(constant if linear.bias is None else linear.bias + constant, requires_grad=False)
    linear.weight.mul_(norm.weight)
    norm.register_parameter("weight", None)
    norm.register_parameter("bias", None)
    norm.elementwise_affine = False


@torch.no_grad()
def fold_batch_norm(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """A convolution with the running statistics of the batch norm right behind it in its weights."""
    return nn.utils.fusion.fuse_conv_bn_eval(convolution, norm)
