"""Any classification network as the four maps that dense prediction works on."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from foveate.errors import UserError

NUM_MAPS = 4


class Backbone(nn.Module):
    """Four maps of falling resolution, usually at strides 4, 8, 16 and 32, from a network with timm's `feature_info`.

    A network with maps at four or more strides gives the last map of each of its last four strides. One with fewer (a plain vision
    transformer, or T2T-ViT, whose depth works at stride 16) gives its last map, normed, from which `PlainPyramid` makes four.

    Maps of networks that norm by layers or groups anywhere are layer-normed each, as the dense forms of Swin and ConvNeXt do (Liu et al.
    2021, 2022): between such norms a residual stream may have any size (a fresh FViT's third stage has a deviation of thousands).

    Args:
        network: one of ours or of timm, without classifier; whatever lies behind the last map used is cut off it.
        name: what messages call it.
        finest: how many of the finest maps the head leaves out.
        frozen_statistics: batch norms keep the statistics they were loaded with, as is usual when detectors are tuned from weights on
            batches of few pictures.

    Attributes:
        channels, strides: of the maps; a stride is no whole number where a plain one does not divide by 4.
        multiple: what H and W of the pictures must divide by.

    Raises `UserError` for a network that tells nothing of its maps.
    """

    def __init__(self, network: nn.Module, name: str, *, finest: int = 0, frozen_statistics: bool = False) -> None:
        super().__init__()
        info = _feature_info(network, name)
        last_of = {int(entry["reduction"]): index for index, entry in enumerate(info)}
        self.plain = len(last_of) < NUM_MAPS
        self.indices = [len(info) - 1] if self.plain else [last_of[stride] for stride in sorted(last_of)[-NUM_MAPS:]][finest:]
        self.frozen_statistics = frozen_statistics
        widths = [int(info[index]["num_chs"]) for index in self.indices]
        strides: list[float] = [int(info[index]["reduction"]) for index in self.indices]
        normed_before_use = any(isinstance(module, nn.LayerNorm | nn.GroupNorm | nn.RMSNorm) for module in network.modules())
        network.prune_intermediate_layers(self.indices, prune_norm=not self.plain, prune_head=True)  # type: ignore[operator]
        self.network = network
        if self.plain:
            self.neck: nn.Module = PlainPyramid(widths[0], finest)
            widths = [max(1, widths[0] // 4), widths[0] // 2, widths[0], widths[0]][finest:]
            strides = [strides[0] / 4, strides[0] / 2, strides[0], 2 * strides[0]][finest:]
        else:
            self.neck = MapNorms(widths) if normed_before_use else nn.Identity()
        self.channels, self.strides, self.multiple = tuple(widths), tuple(strides), int(strides[-1])

    def forward(self, x_bchw: Tensor) -> list[Tensor]:
        """The maps, finest first; H and W of the pictures divide by `multiple`."""
        x_bchw = x_bchw.contiguous(memory_format=torch.channels_last)
        network: Any = self.network
        maps = network.forward_intermediates(
            x_bchw, indices=self.indices, norm=self.plain, stop_early=not self.plain, output_fmt="NCHW", intermediates_only=True
        )
        return self.neck(maps)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        if self.frozen_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


class MapNorms(nn.Module):
    """A layer norm over the channels of each map."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm2d(width) for width in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        return [norm(x_bchw) for norm, x_bchw in zip(self.norms, maps, strict=True)]


class PlainPyramid(nn.Module):
    """Four maps from one of stride s: at s/4 and s/2 by transposed convolutions, s as it is, and 2s by max pooling.

    The simple feature pyramid of ViTDet (Li et al. 2022, "Exploring plain vision transformer backbones for object detection", section 3);
    its convolutions behind each map are those of the feature pyramid network that follows here.
    """

    def __init__(self, width: int, finest: int) -> None:
        super().__init__()
        half, quarter = width // 2, max(1, width // 4)
        quadruple = nn.Sequential(
            nn.ConvTranspose2d(width, half, 2, stride=2), LayerNorm2d(half), nn.GELU(), nn.ConvTranspose2d(half, quarter, 2, stride=2)
        )
        ways = [quadruple, nn.ConvTranspose2d(width, half, 2, stride=2), nn.Identity(), nn.MaxPool2d(2, ceil_mode=True)]
        self.ways = nn.ModuleList(ways[finest:])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        (x_bchw,) = maps
        return [way(x_bchw) for way in self.ways]


def _feature_info(network: nn.Module, name: str) -> list[dict[str, Any]]:
    info: Any = getattr(network, "feature_info", None)
    usable = info and hasattr(network, "forward_intermediates") and hasattr(network, "prune_intermediate_layers")
    if not usable:
        raise UserError(f"model {name}: found a network that gives no feature maps, expected one with timm's forward_intermediates")
    return list(getattr(info, "info", info))
