"""FViT's stem for inference on processors: its three layers in one native pass over each picture, see `native/stem.py`."""

from typing import Any

import torch
from torch import Tensor, nn

from foveate.layers.recomputing import compute_dtype, is_plain, is_untouched
from foveate.layers.watching import is_recorded
from foveate.models.fvit import Stem
from foveate.speed.joined.joinable import Packed, are_float32, is_for_chains, is_in_one_mode, records_gradients
from foveate.speed.joined.parts import parts_of
from foveate.speed.native import stem as native


class JoinedStem(Packed, Stem):
    """The stem's equation in one pass: (B, in_chans, H, W) -> (B, C, H/s, W/s).

    A stem becomes one by `join`, and gives the same up to rounding; under autocast in bfloat16, too, where `has_products` of it. What the
    native code is not made for goes through the layers, as in `JoinedBlock`.
    """

    KIND = "stem joined: one native pass"
    can_join = staticmethod(native.can_join)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether `module` is a stem in evaluation, on the processor, of the layers that the native code computes."""
        return type(module) is Stem and not module.training and is_joinable(module) and are_float32(module.parameters())

    def forward(self, x: Tensor) -> Tensor:
        if is_recorded() or not (parts := parts_of(self)).says(is_joinable) or not self._takes(x, parts.parameters):
            return super().forward(x)
        return native.run(x.permute(0, 2, 3, 1).contiguous(), self.kept(parts.parameters)).permute(0, 3, 1, 2)

    def _takes(self, x: Tensor, parameters: list[nn.Parameter]) -> bool:
        if self.training or x.dim() != 4 or x.shape[1] != self.conv1.weight.shape[1] or records_gradients(x, parameters):
            return False
        if not is_for_chains(x, parameters) or not are_float32([x, *parameters, *_statistics(self)]):
            return False
        dtype = compute_dtype(self.conv1.weight)
        return (dtype == torch.float32 or len(self.conv1.weight) % 2 == 0) and self.can_join(dtype)

    def kept(self, parameters: list[nn.Parameter]) -> Any:
        return super().kept([*parameters, *_statistics(self)])

    def setting(self) -> object:
        return compute_dtype(self.conv1.weight), self.conv1.stride, self.norm1.eps, self.norm2.eps, self.norm3.eps

    def pack(self) -> native.Weights:
        taps, rows = [], []
        for convolution, norm in layers_of(self):
            gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            taps.append(convolution.weight.permute(2, 3, 1, 0).flatten(0, 2))
            rows.append((convolution.bias, gain, norm.bias - norm.running_mean * gain))
        down, across = self.conv1.stride
        return native.packed(taps, rows, (down, across), compute_dtype(self.conv1.weight))


def layers_of(stem: Any) -> tuple[tuple[Any, Any], ...]:
    """A stem's convolutions, each with its norm."""
    return (stem.conv1, stem.norm1), (stem.conv2, stem.norm2), (stem.conv3, stem.norm3)


def _statistics(stem: Any) -> list[Any]:
    return [values for _, norm in layers_of(stem) for values in (norm.running_mean, norm.running_var)]


def is_joinable(stem: Any) -> bool:
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
