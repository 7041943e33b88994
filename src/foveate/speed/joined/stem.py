"""FViT's stem in training on processors: convolutions with native passes between them, in both directions, see `native/stem.py`."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.recomputing import compute_dtype, is_plain, is_untouched
from foveate.layers.watching import is_recorded
from foveate.models.fvit import Stem
from foveate.speed.joined.joinable import InTraining, are_for_chains, is_for_chains, is_in_one_mode, way_back
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import stem as native


class JoinedStem(InTraining, Stem):
    """The stem's equation with GELU and batch norm in one pass each, with gradients: (B, in_chans, H, W) -> (B, C, H/s, W/s).

    Numbers, gradients and running statistics are those of the layers up to rounding. Of each convolution its map and its outcome are kept
    for the backward pass, GELU is computed again. Gradients can neither be differentiated once more nor be taken in batches. In
    evaluation, and where the native code is not meant, the layers are called, as in `JoinedTrainingBlock`.
    """

    LAYERS = Stem
    KIND = "stem joined: GELU and batch norm in one pass, forward and backward"
    can_join = staticmethod(native.can_join)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a stem on the processor of the layers that the native code computes."""
        return type(module) is Stem and _is_joinable(module) and are_for_chains(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(_is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        dtype = compute_dtype(self.conv1.weight)
        x_bhwc = x.to(dtype).permute(0, 2, 3, 1)
        for convolution, norm in self._layers():
            weights = convolution.weight.to(dtype), convolution.bias.to(dtype), norm.weight.float(), norm.bias.float()
            with torch.autocast("cpu", enabled=False):
                x_bhwc, mean, variance = _Layer.apply(x_bhwc, *weights, convolution.stride, norm.eps)
            _keep_statistics(norm, mean, variance, x_bhwc[..., 0].numel())
        return x_bhwc.permute(0, 3, 1, 2)

    def _layers(self) -> tuple[tuple[Any, Any], ...]:
        return (self.conv1, self.norm1), (self.conv2, self.norm2), (self.conv3, self.norm3)

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        rows, columns = self.conv1.stride
        if not self.training or x.dim() != 4 or x.shape[1] != self.conv1.weight.shape[1] or not is_for_chains(x, parameters):
            return False
        places = len(x) * -(-x.shape[2] // int(rows)) * -(-x.shape[3] // int(columns))
        return places > 1 and native.can_join(compute_dtype(self.conv1.weight))


def _is_joinable(stem: Any) -> bool:
    """Whether a stem's layers are what the native code computes, and all in training or all in evaluation."""
    convolutions, norms = (stem.conv1, stem.conv2, stem.conv3), (stem.norm1, stem.norm2, stem.norm3)
    if not all(type(layer) is nn.Conv2d and is_plain(layer) and layer.bias is not None for layer in convolutions):
        return False
    if not all(is_untouched(norm, nn.BatchNorm2d) and _keeps_statistics(norm) for norm in norms):
        return False
    return all(map(_is_square, convolutions)) and _agree(convolutions, norms) and is_in_one_mode(stem)


def _keeps_statistics(norm: nn.BatchNorm2d) -> bool:
    """Whether a batch norm has weights and keeps running statistics."""
    needed: list[Tensor | None] = [norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked]
    return norm.track_running_stats and all(values is not None for values in needed)


def _is_square(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is 3x3, of all channels, with a border of one zero."""
    around = convolution.kernel_size == (3, 3) and convolution.padding == (1, 1) and convolution.padding_mode == "zeros"
    return around and convolution.dilation == (1, 1) and convolution.groups == 1


def _agree(convolutions: tuple[Any, ...], norms: tuple[Any, ...]) -> bool:
    """Whether the shapes of a stem's weights fit one another."""
    width, entering = convolutions[0].weight.shape[:2]
    for convolution, norm in zip(convolutions, norms, strict=True):
        if convolution.weight.shape != (width, entering, 3, 3) or len(convolution.bias) != width:
            return False
        if any(len(values) != width for values in (norm.weight, norm.bias, norm.running_mean, norm.running_var)):
            return False
        entering = width
    return all(convolution.stride == (1, 1) for convolution in convolutions[1:])


def _keep_statistics(norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor, count: int) -> None:
    """As `nn.BatchNorm2d` keeps them: the variance divided by one less than the count; without a momentum the mean of all batches."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    with torch.no_grad():
        norm.num_batches_tracked.add_(1)
        share = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_((variance * (count / (count - 1))).to(norm.running_var.dtype), share)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients to what `_Layer` is given."""
    x, kernel, h, mean, scale, gain = ctx.saved_tensors
    to_h, to_gain, to_shift, to_bias = native.gelu_norm_gradients(h, gradient, mean, scale, gain)
    maps = (map_bhwc.permute(0, 3, 1, 2) for map_bhwc in (to_h, x))
    form, wanted = (None, ctx.stride, (1, 1), (1, 1), False, (0, 0), 1), (*ctx.needs_input_grad[:2], False)
    to_x, to_kernel, _ = torch.ops.aten.convolution_backward(*maps, kernel, *form, wanted)
    to_x = None if to_x is None else to_x.permute(0, 2, 3, 1)
    return to_x, to_kernel, to_bias.to(kernel.dtype), to_gain, to_shift, None, None


class _Layer(torch.autograd.Function):
    """x (B, H, W, C), kernel (C', C, 3, 3), bias, gain and shift (C',) -> `batch_norm(GELU(conv(x)))`, mean and variance of the GELU.

    Kept for the backward pass: x and the convolution's outcome.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, stride: tuple[int, int], eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        h = F.conv2d(x.permute(0, 3, 1, 2), kernel, bias, stride, padding=1).permute(0, 2, 3, 1).contiguous()
        mean, variance = native.gelu_moments(h)
        scale = torch.rsqrt(variance + eps)
        y = native.scale_gelu(h, gain * scale, shift - mean * gain * scale)
        ctx.stride = stride
        ctx.save_for_backward(x, kernel, h, mean, scale, gain)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    backward = staticmethod(way_back(_backward))
