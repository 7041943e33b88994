"""FViT's stem in training on processors: native passes, in float32 convolutions too, in both directions, see `native/stem_training.py`."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.recomputing import compute_dtype
from foveate.layers.watching import is_recorded
from foveate.models.fvit import Stem
from foveate.speed.joined.joinable import InTraining, are_for_chains, is_for_chains, readable, way_back
from foveate.speed.joined.parts import parts_of
from foveate.speed.joined.stem import is_joinable, layers_of
from foveate.speed.native import stem_training as native


class JoinedTrainingStem(InTraining, Stem):
    """The stem's equation with GELU and batch norm within the passes of the convolutions: (B, in_chans, H, W) -> (B, C, H/s, W/s).

    Numbers, gradients and running statistics are those of the layers up to rounding. What each convolution makes is kept for the backward
    pass, the rest is computed again. The first convolution, and all in bfloat16, are the library's. Gradients can neither be differentiated
    once more nor be taken in batches. In evaluation, and where the native code is not meant, the layers are called, as in
    `JoinedTrainingBlock`.
    """

    LAYERS = Stem
    KIND = "stem joined: convolutions with GELU and batch norm, forward and backward"
    can_join = staticmethod(native.can_join)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a stem on the processor of the layers that the native code computes."""
        return type(module) is Stem and is_joinable(module) and are_for_chains(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        dtype = compute_dtype(self.conv1.weight)
        weights = [weight for convolution, norm in layers_of(self) for weight in self._weights(convolution, norm, dtype)]
        with torch.autocast("cpu", enabled=False):
            form = self.conv1.stride, (self.norm1.eps, self.norm2.eps, self.norm3.eps)
            y_bhwc, *statistics = _Joined.apply(x.to(dtype).permute(0, 2, 3, 1), *form, *weights)
        for (_, norm), mean, variance in zip(layers_of(self), statistics[::2], statistics[1::2], strict=True):
            _keep_statistics(norm, mean, variance, y_bhwc[..., 0].numel())
        return y_bhwc.permute(0, 3, 1, 2)

    @staticmethod
    def _weights(convolution: Any, norm: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return convolution.weight.to(dtype), convolution.bias.to(dtype), norm.weight.float(), norm.bias.float()

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        rows, columns = self.conv1.stride
        if not self.training or x.dim() != 4 or x.shape[1] != self.conv1.weight.shape[1] or not is_for_chains(x, parameters):
            return False
        places = len(x) * -(-x.shape[2] // int(rows)) * -(-x.shape[3] // int(columns))
        return places > 1 and native.can_join(compute_dtype(self.conv1.weight))


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
    """The gradients to what `_Joined` is given."""
    x, *saved = ctx.saved_tensors
    layers = [_Made(*saved[at : at + len(_Made._fields)]) for at in range(0, len(saved), len(_Made._fields))]
    found: list[Tensor | None] = []
    for before, layer in reversed(list(zip([None, *layers[:-1]], layers, strict=True))):
        if before is None:
            gradient, to_gain, to_shift, to_kernel, to_bias = _lead_back(x, layer, gradient, ctx.stride, ctx.needs_input_grad[0])
        elif gradient.dtype == torch.float32:
            weights = *before.affine(), layer.kernel
            norm = layer.mean, layer.scale, layer.gain
            gradient, to_gain, to_shift, to_kernel, to_bias = native.convolve_gradients(before.h, *weights, layer.h, gradient, norm)
        else:
            entering = native.scale_gelu(before.h, *before.affine())
            gradient, to_gain, to_shift, to_kernel, to_bias = _lead_back(entering, layer, gradient, (1, 1), wanted=True)
        found = [to_kernel, to_bias.to(to_kernel.dtype), to_gain, to_shift, *found]
    return gradient, None, None, *found


def _lead_back(entering: Tensor, layer: "_Made", gradient: Tensor, stride: tuple[int, int], wanted: bool) -> tuple[Any, ...]:
    """Back through one layer around a convolution of PyTorch's: to what enters, where it is wanted, gain, shift, kernel and bias."""
    to_h, to_gain, to_shift, to_bias = native.gelu_norm_gradients(layer.h, gradient, layer.mean, layer.scale, layer.gain)
    maps = (map_bhwc.permute(0, 3, 1, 2) for map_bhwc in (to_h, entering))
    form = None, stride, (1, 1), (1, 1), False, (0, 0), 1
    to_entering, to_kernel, _ = torch.ops.aten.convolution_backward(*maps, layer.kernel, *form, (wanted, True, False))
    return (to_entering.permute(0, 2, 3, 1).contiguous() if wanted else None), to_gain, to_shift, to_kernel, to_bias


class _Made(NamedTuple):
    """One layer of the stem after its forward pass."""

    h: Tensor
    """The outcome of its convolution."""
    kernel: Tensor
    mean: Tensor
    """Of `GELU(h)`, and one over its deviation."""
    scale: Tensor
    gain: Tensor
    offset: Tensor
    """What the norm adds to `gain scale GELU(h)`."""

    def affine(self) -> tuple[Tensor, Tensor]:
        """What the norm multiplies `GELU(h)` by, and adds then."""
        return self.gain * self.scale, self.offset


class _Joined(torch.autograd.Function):
    """x (B, H, W, C) -> `batch_norm(GELU(conv(x)))` three times, then mean and variance of each GELU.

    `weights`: of each layer kernel (C', C, 3, 3), bias, gain and shift (C',). Kept for the backward pass: x and what the convolutions make.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, stride: tuple[int, int], eps: tuple[float, ...], *weights: Tensor) -> tuple[Tensor, ...]:
        weights = tuple(map(readable, weights))
        layers: list[_Made] = []
        statistics: list[Tensor] = []
        for index, one in enumerate(eps):
            kernel, bias, gain, shift = weights[4 * index : 4 * index + 4]
            h = _convolve(layers[-1], kernel, bias) if layers else _convolved(x, kernel, bias, stride)
            mean, variance = native.gelu_moments(h)
            scale = torch.rsqrt(variance + one)
            layers.append(_Made(h, kernel, mean, scale, gain, shift - mean * gain * scale))
            statistics += mean, variance
        ctx.stride = stride
        ctx.save_for_backward(x, *(tensor for layer in layers for tensor in layer))
        ctx.mark_non_differentiable(*statistics)
        return native.scale_gelu(layers[-1].h, *layers[-1].affine()), *statistics

    backward = staticmethod(way_back(_backward))


def _convolve(before: _Made, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution of what a layer made."""
    if kernel.dtype == torch.float32:
        return native.convolve(before.h, *before.affine(), kernel, bias)
    return _convolved(native.scale_gelu(before.h, *before.affine()), kernel, bias, (1, 1))


def _convolved(x_bhwc: Tensor, kernel: Tensor, bias: Tensor, stride: tuple[int, int]) -> Tensor:
    return F.conv2d(x_bhwc.permute(0, 3, 1, 2), kernel, bias, stride, padding=1).permute(0, 2, 3, 1).contiguous()
