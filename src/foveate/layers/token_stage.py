"""The token stage of T2T-ViT (arXiv 2101.11986): from a picture to the tokens of the backbone.

Legend: B batch, C x H x W map, N tokens, D width of a token. A map becomes tokens, and tokens a map, here alone, in raster order.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from foveate.layers.choices import check_choice
from foveate.layers.soft_split import soft_split_padding, split_linear
from foveate.layers.token_layers import TokenPerformer, TokenTransformer

TokenStageName = Literal["performer", "transformer", "convolution", "none"]

TOKEN_WIDTH = 64
KERNELS = (7, 3, 3)
STRIDES = (4, 2, 2)
SMALL_STRIDES = (2, 2, 1)
"""For small pictures. On the digits (recipe digits_t2t_vit, seed 0) 98.9% after 16 epochs, against 98.1% after 24 with (1, 2, 2), which
also took longer per epoch; one run each."""


def map_to_tokens(x_bchw: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C) in raster order; a view where the map is channels-last."""
    return x_bchw.flatten(2).transpose(1, 2)


def tokens_to_map(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) -> (B, C, H, W), channels-last in memory; a view."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


class TokenStage(nn.Module):
    """Tokens-to-token: split -> layer -> map -> split -> layer -> map -> split -> linear.

    (B, in_chans, H, W), H and W divisible by the first stride -> the maps after the two layers, (B, 64, H', W') channels-last, and the
    tokens (B, N, D).
    """

    def __init__(self, in_chans: int, width: int, layer: type[TokenPerformer] | type[TokenTransformer], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.layer1 = layer(in_chans * KERNELS[0] ** 2, TOKEN_WIDTH, KERNELS[0], strides[0])
        self.layer2 = layer(TOKEN_WIDTH * KERNELS[1] ** 2, TOKEN_WIDTH, KERNELS[1], strides[1])
        self.project = nn.Linear(TOKEN_WIDTH * KERNELS[2] ** 2, width)

    def forward(self, x_bchw: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = []
        height, width = x_bchw.shape[-2:]
        for layer, stride in ((self.layer1, self.strides[0]), (self.layer2, self.strides[1])):
            height, width = -(-height // stride), -(-width // stride)
            x_bchw = tokens_to_map(layer(x_bchw), (height, width))
            maps.append(x_bchw)
        return maps, split_linear(x_bchw, self.project.weight, self.project.bias, KERNELS[2], self.strides[2])


class ConvTokenStage(nn.Module):
    """The paper's comparison: three plain convolutions (sides 7, 3, 3) in place of the token layers; in and out as `TokenStage`."""

    def __init__(self, in_chans: int, width: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        paddings = [soft_split_padding(kernel, stride) for kernel, stride in zip(KERNELS, strides, strict=True)]
        self.conv1 = nn.Conv2d(in_chans, TOKEN_WIDTH, KERNELS[0], strides[0], paddings[0])
        self.conv2 = nn.Conv2d(TOKEN_WIDTH, TOKEN_WIDTH, KERNELS[1], strides[1], paddings[1])
        self.project = nn.Conv2d(TOKEN_WIDTH, width, KERNELS[2], strides[2], paddings[2])

    def forward(self, x_bchw: Tensor) -> tuple[list[Tensor], Tensor]:
        first = self.conv1(x_bchw)
        second = self.conv2(first)
        return [first, second], map_to_tokens(self.project(second))


class PatchStage(nn.Module):
    """No token stage: each patch of 16 x 16 pixels (4 x 4 in the form for small pictures) by itself becomes a token, as in ViT.

    (B, in_chans, H, W), H and W divisible by the side of a patch -> no maps, and the tokens (B, N, D).
    """

    def __init__(self, in_chans: int, width: int, strides: Sequence[int]) -> None:
        super().__init__()
        side = math.prod(strides)
        self.strides = (side,)
        self.patches = nn.Conv2d(in_chans, width, side, side)

    def forward(self, x_bchw: Tensor) -> tuple[list[Tensor], Tensor]:
        return [], map_to_tokens(self.patches(x_bchw))


def make_token_stage(name: TokenStageName, in_chans: int, width: int, strides: Sequence[int]) -> TokenStage | ConvTokenStage | PatchStage:
    """The token stage called `name`, whose `strides` say by how much each of its steps shrinks the map; ValueError for another name."""
    makers: dict[str, Callable[[], TokenStage | ConvTokenStage | PatchStage]] = {
        "performer": lambda: TokenStage(in_chans, width, TokenPerformer, strides),
        "transformer": lambda: TokenStage(in_chans, width, TokenTransformer, strides),
        "convolution": lambda: ConvTokenStage(in_chans, width, strides),
        "none": lambda: PatchStage(in_chans, width, strides),
    }
    check_choice("token_stage", name, TokenStageName)
    return makers[name]()


def fit_channels(value: Tensor, in_chans: int) -> Tensor:
    """A first layer's tensor for other picture channels: a convolution, or a linear or LayerNorm over patches (channel first)."""
    area = KERNELS[0] ** 2
    if value.ndim == 4:
        return adapt_input_conv(in_chans, value)
    if value.ndim == 2:
        return adapt_input_conv(in_chans, value.unflatten(1, (-1, KERNELS[0], KERNELS[0]))).flatten(1)
    if value.numel() % area:
        return value
    per_channel = value.reshape(-1, area)
    return per_channel.mean(dim=0) if in_chans == 1 else per_channel[torch.arange(in_chans) % len(per_channel)].flatten()
