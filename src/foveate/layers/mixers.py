"""What may stand in the Gabor filter's place: other ways for a token to learn of its neighbours. (B, H, W, C) -> (B, H, W, C).

Each takes the map and the layer norm before it, as the Gabor filter does.
"""

from collections.abc import Callable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.choices import check_choice
from foveate.layers.in_place import Activation
from foveate.layers.one_call import convolved
from foveate.layers.recomputing import called, norm_linear

MixerName = Literal["gabor", "attention", "pooling", "convolution", "identity"]
HEAD_WIDTH = 32


class MapAttention(nn.Module):
    """Softmax self-attention of every place of the map with every other, heads of 32 channels or fewer.

    Time grows with the square of the places, memory with them. The number of heads is `ceil(C / 32)`, or the next one that divides C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = next(heads for heads in range(-(-channels // HEAD_WIDTH), channels + 1) if channels % heads == 0)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        q, k, v = norm_linear(x_bhwc.flatten(1, 2), norm, self.qkv).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return called(self.proj, F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).view_as(x_bhwc)


class Pooling(nn.Module):
    """The mean of a 3x3 neighbourhood, without what lies outside the map, less the token itself: PoolFormer's mixer (arXiv 2111.11418)."""

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        x = norm(x_bhwc).permute(0, 3, 1, 2)
        return (F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) - x).permute(0, 2, 3, 1)


class DepthwiseConvolution(nn.Module):
    """What the Gabor filter is, but with kernels that are learnt freely: depthwise convolution, then the activation; the size stays."""

    def __init__(self, channels: int, kernel_size: int, activation: Activation) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels)
        check_choice("activation", activation, Activation)
        self.activation = activation

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        return convolved(self.conv, norm(x_bhwc).permute(0, 3, 1, 2), self.activation).permute(0, 2, 3, 1)


class Unmixed(nn.Module):
    """Every token as the layer norm gives it."""

    def forward(self, x_bhwc: Tensor, norm: nn.Module) -> Tensor:
        return norm(x_bhwc)


def make_mixer(name: MixerName, channels: int, gabor: Callable[[], nn.Module], kernel_size: int, activation: Activation) -> nn.Module:
    """The mixer called `name`; ValueError for another name.

    Args:
        name: "gabor" makes what `gabor` makes.
        channels: C.
        gabor: makes the Gabor filter.
        kernel_size, activation: of "convolution", as of the Gabor filter.
    """
    makers: dict[str, Callable[[], nn.Module]] = {
        "gabor": gabor,
        "attention": lambda: MapAttention(channels),
        "pooling": Pooling,
        "convolution": lambda: DepthwiseConvolution(channels, kernel_size, activation),
        "identity": Unmixed,
    }
    check_choice("mixer", name, MixerName)
    return makers[name]()
