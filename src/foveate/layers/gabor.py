"""Learnable Gabor filters: the token mixer of FViT (arXiv 2402.11303).

Legend: B batch, H x W map, C channels, F filters (C, or 1 shared by all channels), k kernel side. Maps are channels-last: (B, H, W, C).
"""

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from foveate.layers.choices import check_choice
from foveate.layers.depthwise import depthwise, depthwise_backward
from foveate.layers.in_place import Activation
from foveate.layers.one_call import filtered, takes
from foveate.layers.recomputing import compute_dtype, norm_backward, norm_forward, recomputes

GaborStart = Literal["spread", "random"]

SHARPNESS_TIMES_WAVELENGTH = 1 / (math.sqrt(2) * 0.56)
"""In V1 the bandwidth sigma is near 0.56 wavelengths, and sharpness = 1 / (sqrt(2) sigma)."""

V1_ASPECT_RATIO = 0.5

PRODUCTS = 13
"""In one number of a kernel: four of the turned coordinates, four in the exponent, one in the cosine's, two of the three factors, and one
each for the exponential and the cosine."""


def gabor_kernels(
    frequency: Tensor,
    orientation: Tensor,
    phase: Tensor,
    aspect_ratio: Tensor,
    sharpness: Tensor,
    size: int,
    amplitude: Tensor | float = 1.0,
    shift_x: Tensor | float = 0.0,
    shift_y: Tensor | float = 0.0,
) -> Tensor:
    """The real part of F Gabor functions, sampled on the pixels of a `size` x `size` kernel centred at zero.

    `K = amplitude * exp(-sharpness^2 (x'^2 + aspect_ratio^2 y'^2)) * cos(frequency x' + phase)` with
    `x' = x cos(orientation) - y sin(orientation) + shift_x`, `y' = x sin(orientation) + y cos(orientation) + shift_y`;
    x runs to the right and y downwards, in pixels.

    Equal to the textbook form with `wavelength = 2 pi / frequency` (pixels) and `bandwidth sigma = 1 / (sqrt(2) sharpness)` (pixels): see
    `frequency_of` and `sharpness_of`. Since y points down, `orientation` (radians) turns counter-clockwise as seen on the picture. The
    authors' released code computes the same function; at other sides than 3 it squeezes its grid into -1..1, here a coordinate is always
    a pixel.

    Args:
        frequency, orientation, phase, aspect_ratio, sharpness: shape (F,); radians per pixel, radians, radians, 1, 1 per pixel.
        size: odd side k of the kernel, in pixels.
        amplitude, shift_x, shift_y: shape (F,) or numbers; the shifts in pixels along the turned axes.

    Returns:
        Kernels of shape (F, size, size), in the dtype of the parameters.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"size: found {size}, expected an odd number of pixels")
    steps = torch.arange(size, dtype=frequency.dtype, device=frequency.device) - size // 2
    y, x = steps[:, None], steps[None, :]
    frequency, orientation, phase, aspect_ratio, sharpness, amplitude, shift_x, shift_y = (
        value[:, None, None] if isinstance(value, Tensor) else frequency.new_tensor(value)
        for value in (frequency, orientation, phase, aspect_ratio, sharpness, amplitude, shift_x, shift_y)
    )
    along = x * orientation.cos() - y * orientation.sin() + shift_x
    across = x * orientation.sin() + y * orientation.cos() + shift_y
    envelope = torch.exp(-(sharpness**2) * (along**2 + aspect_ratio**2 * across**2))
    return amplitude * envelope * torch.cos(frequency * along + phase)


def frequency_of(wavelength: Tensor) -> Tensor:
    """Radians per pixel of a wavelength in pixels."""
    return 2 * math.pi / wavelength


def sharpness_of(bandwidth: Tensor) -> Tensor:
    """The inverse bandwidth `1 / (sqrt(2) sigma)` of a bandwidth sigma in pixels."""
    return 1 / (math.sqrt(2) * bandwidth)


class LearnableGaborFilter(nn.Module):
    """Layer norm, depthwise convolution with Gabor kernels whose parameters are learnt, activation: (B, H, W, C) -> (B, H, W, C).

    The parameters (each of shape (F,)) are those of `gabor_kernels`; the shifts go through tanh, so that a filter stays within a pixel of
    its place. None of them takes weight decay: they are one-dimensional. The layer norm belongs to the block and comes along so that
    training need not keep its output. Passes without gradients on a processor make kernels anew only where a parameter has other numbers
    than before; for inference they may be made constants for good: see `bake`.

    Args:
        channels: C.
        shared: one filter for all channels (the released models) instead of one per channel (the paper's bank).
        kernel_size: k, odd, in pixels.
        start: "random" draws every parameter from a standard normal, as the released code does; "spread" lays orientations evenly over
            half a turn and wavelengths evenly in their logarithm from 2 px (the Nyquist limit) to the kernel's width, with the bandwidth
            and the aspect ratio of V1 cells and phases alternating between even and odd. Open in the paper.
        activation: behind the convolution; "relu" in the released code, open in the paper.
        learnt: False freezes kernels and bias as they start.

    Raises:
        ValueError: for another start or activation.
    """

    _standing: tuple[tuple[Tensor, ...], Tensor] | None = None

    def __init__(
        self,
        channels: int,
        *,
        shared: bool = False,
        kernel_size: int = 3,
        start: GaborStart = "spread",
        activation: Activation = "relu",
        learnt: bool = True,
    ) -> None:
        super().__init__()
        check_choice("activation", activation, Activation)
        check_choice("start", start, GaborStart)
        self.activation = activation
        self.channels = channels
        self.kernel_size = kernel_size
        self.start = start
        filters = 1 if shared else channels
        self.frequency = nn.Parameter(torch.empty(filters))
        self.orientation = nn.Parameter(torch.empty(filters))
        self.phase = nn.Parameter(torch.empty(filters))
        self.aspect_ratio = nn.Parameter(torch.empty(filters))
        self.sharpness = nn.Parameter(torch.empty(filters))
        self.shift_x = nn.Parameter(torch.empty(filters))
        self.shift_y = nn.Parameter(torch.empty(filters))
        self.amplitude = nn.Parameter(torch.empty(filters))
        self.bias = nn.Parameter(torch.empty(filters))
        self.requires_grad_(learnt)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draws the start that `start` names; the bias begins at zero."""
        self.bias.zero_()
        if self.start == "random":
            for name, parameter in self.named_parameters():
                if name != "bias":
                    parameter.normal_()
            return
        filters = self.bias.numel()
        scales = max(1, round(math.sqrt(filters / 4)))
        index = torch.arange(filters)
        wavelengths = torch.logspace(math.log10(2), math.log10(max(self.kernel_size, 3)), scales)[index % scales]
        turns = index.div(scales, rounding_mode="floor") / math.ceil(filters / scales)
        self.frequency.copy_(frequency_of(wavelengths))
        self.orientation.copy_(math.pi * turns)
        self.phase.copy_(math.pi / 2 * (index.div(scales, rounding_mode="floor") % 2))
        self.aspect_ratio.fill_(V1_ASPECT_RATIO)
        self.sharpness.copy_(SHARPNESS_TIMES_WAVELENGTH / wavelengths)
        self.amplitude.fill_(1.0)
        self.shift_x.zero_()
        self.shift_y.zero_()

    def kernels(self) -> Tensor:
        """The kernels as they stand, (F, k, k)."""
        return gabor_kernels(
            self.frequency,
            self.orientation,
            self.phase,
            self.aspect_ratio,
            self.sharpness,
            self.kernel_size,
            amplitude=self.amplitude,
            shift_x=self.shift_x.tanh(),
            shift_y=self.shift_y.tanh(),
        )

    @property
    def generation_macs(self) -> int:
        """Multiplications that make the kernels anew in a forward pass: `PRODUCTS` for each number of each kernel."""
        return PRODUCTS * self.bias.numel() * self.kernel_size**2

    @property
    def wavelength(self) -> Tensor:
        """Wavelengths in pixels, (F,); infinite where the frequency is zero."""
        return 2 * math.pi / self.frequency.abs()

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        kernels = self._standing_kernels() if takes(x_bhwc, self.frequency) else self.kernels()
        weight = kernels[:, None].expand(self.channels, 1, -1, -1)
        return norm_filter(x_bhwc, norm, weight, self.bias.expand(self.channels), self.activation)

    def _standing_kernels(self) -> Tensor:
        """`kernels`, those of the last time where all parameters have the same numbers, which are sooner compared."""
        shape = self.frequency, self.orientation, self.phase, self.aspect_ratio, self.sharpness
        parameters = *shape, self.amplitude, self.shift_x, self.shift_y
        standing = self._standing
        if standing is None or standing[1].shape[-1] != self.kernel_size or not all(map(_is_same, standing[0], parameters)):
            with torch.inference_mode(False), torch.no_grad():
                standing = self._standing = tuple(parameter.detach().clone() for parameter in parameters), self.kernels()
        return standing[1]

    def bake(self) -> "BakedGaborFilter":
        """The same filter as a constant depthwise convolution, for inference."""
        baked = BakedGaborFilter(self.channels, self.kernel_size, self.activation)
        with torch.no_grad():
            baked.weight.copy_(self.kernels()[:, None].expand_as(baked.weight))
            baked.bias.copy_(self.bias.expand(self.channels))
        return baked.to(self.bias)


def _is_same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same numbers in one format."""
    return a.dtype == b.dtype and torch.equal(a, b)


class BakedGaborFilter(nn.Module):
    """A learnt Gabor filter frozen into numbers, behind its layer norm: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, channels: int, kernel_size: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(channels))

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        return norm_filter(x_bhwc, norm, self.weight, self.bias, self.activation)


def norm_filter(x_bhwc: Tensor, norm: nn.Module, weight: Tensor, bias: Tensor, activation: Activation) -> Tensor:
    """Layer norm, depthwise convolution with odd (C, 1, k, k) kernels, activation: (B, H, W, C) -> (B, H, W, C).

    In training with ReLU the layer norm is computed again in the backward pass; its output is not kept, and of ReLU's a byte per number.
    """
    if activation == "relu" and recomputes(norm):
        dtype = compute_dtype(weight)
        with torch.autocast(x_bhwc.device.type, enabled=False):
            y: Tensor = _NormFilterReLU.apply(x_bhwc, norm.weight, norm.bias, norm.eps, weight.to(dtype), bias.to(dtype))
        return y
    return filtered(norm(x_bhwc), weight, bias, activation)


class _NormFilterReLU(torch.autograd.Function):
    """x (B, H, W, C), gain and shift (C,), weight (C, 1, k, k), bias (C,) -> (B, H, W, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, shift: Tensor | None, eps: float, weight: Tensor, bias: Tensor) -> Tensor:
        normal, mean, rstd = norm_forward(x, gain, shift, eps, weight.dtype)
        response = depthwise(normal, weight, bias).relu_()
        ctx.save_for_backward(x, mean, rstd, gain, shift, weight, (response > 0).view(torch.uint8))
        ctx.eps = eps
        return response

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, mean, rstd, gain, shift, weight, positive = ctx.saved_tensors
        normal = norm_forward(x, gain, shift, ctx.eps, weight.dtype)[0]
        to_normal, to_weight, to_bias = depthwise_backward(gradient * positive, normal, weight)
        return *norm_backward(to_normal, x, mean, rstd, gain, shift, ctx.needs_input_grad[:3]), None, to_weight, to_bias


def released_order(x_bhwc: Tensor) -> Tensor:
    """The order in which the authors' code hands the filter's response on, (B, H, W, C) -> (B, H, W, C).

    Their `transpose(1, 2)` and reshape of the (B, C, H, W) response read, within each image row, the C x W block as if it were W x C. The
    published weights were trained with it and need it; a model trained here should not have it.
    """
    return x_bhwc.transpose(2, 3).reshape(x_bhwc.shape)
