"""Soft split of T2T-ViT (arXiv 2101.11986): overlapping patches, LayerNorm, linear, without ever building the patches.

Legend: B batch, C channels, H x W map, k patch side, T tokens = H' * W', D = C * k * k the patch's length (channel first, as `nn.Unfold`
lays it), E output width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def soft_split_padding(kernel: int, stride: int) -> int:
    """Zeros around the map: 2 for 7/4, 1 for 3/2, as published; in general so that n / stride tokens come out of n pixels.

    The number of tokens along an axis is `floor((n + 2p - k) / s) + 1`.
    """
    return (kernel - stride + 1) // 2


def split_linear(x_bchw: Tensor, weight: Tensor, bias: Tensor | None, kernel: int, stride: int) -> Tensor:
    """`linear(patch)` for every overlapping patch, as one strided convolution: (B, C, H, W) -> (B, T, E).

    Args:
        weight: (E, D); bias: (E,) or None.
    """
    padding = soft_split_padding(kernel, stride)
    filters = weight.reshape(weight.shape[0], x_bchw.shape[1], kernel, kernel)
    return F.conv2d(x_bchw, filters, bias, stride=stride, padding=padding).flatten(2).transpose(1, 2)


def split_norm_linear(
    x_bchw: Tensor, gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, kernel: int, stride: int, eps: float = 1e-5
) -> Tensor:
    """`linear(LayerNorm(patch))` for every overlapping patch: (B, C, H, W) -> (B, T, E); the (B, T, D) patches never exist.

    With `W' = weight * gain`, each row centred to sum zero over the patch, `linear(LN(patch)) = rstd(patch) * conv(x, W') + (weight @
    shift + bias)`: the mean of a patch falls out of a row that sums to zero. Means of x and x^2 over each patch come from a convolution
    with equal weights, on a processor several times faster than sums over the channels with pooling; other devices pool, since their
    convolutions may round to TF32, which the difference of mean squares does not survive. Gradients flow through the same identity.

    Args:
        gain, shift: the LayerNorm's (D,); weight: (E, D); bias: (E,) or None; eps: the LayerNorm's.
    """
    response, scales, constant = split_response(x_bchw, gain, shift, weight, bias, kernel, stride, eps)
    scaled_response = torch.addcmul(constant[:, None, None], response, scales)  # one pass over the largest map of the model
    return scaled_response.flatten(2).transpose(1, 2)


def split_response(
    x_bchw: Tensor, gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, kernel: int, stride: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """What `split_norm_linear` comes to as `response * scales + constant`: (B, E, H', W'), (B, 1, H', W'), (E,)."""
    padding = soft_split_padding(kernel, stride)
    filters, constant = centred_filters(gain, shift, weight, bias, kernel)
    response = F.conv2d(x_bchw, filters, stride=stride, padding=padding)
    mean, square = (_patch_means(moment, kernel, stride, padding) for moment in (x_bchw, x_bchw.square()))
    return response, torch.rsqrt((square - mean.square()).clamp_min(0) + eps), constant


def centred_filters(gain: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, kernel: int) -> tuple[Tensor, Tensor]:
    """The filters (E, C, k, k) whose response needs no mean of the patch, and the constant (E,) behind it, see `split_norm_linear`."""
    scaled = weight * gain
    filters = (scaled - scaled.mean(dim=1, keepdim=True)).unflatten(1, (-1, kernel, kernel))
    return filters, weight @ shift if bias is None else weight @ shift + bias


def _patch_means(x_bchw: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """The mean of every patch, (B, C, H, W) -> (B, 1, H', W'); zeros around the map count."""
    if x_bchw.device.type != "cpu":
        return F.avg_pool2d(x_bchw.mean(dim=1, keepdim=True), kernel, stride, padding)
    channels = x_bchw.shape[1]
    equal = x_bchw.new_full((1, channels, kernel, kernel), 1 / (channels * kernel**2))
    return F.conv2d(x_bchw, equal, stride=stride, padding=padding)
