"""Where a token stands: the sinusoid table, its resizing to any grid, and the convolutional position embedding."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoid_table(positions: int, width: int) -> Tensor:
    """`angle = pos / 10000^(2 (j // 2) / width)`; sine on even j, cosine on odd j; shape (1, positions, width), float32.

    Computed in float64 and rounded once, as the authors of T2T-ViT do. Source: "Attention is all you need", arXiv 1706.03762, section 3.5.
    """
    j = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(positions, dtype=torch.float64)[:, None] / 10000 ** (2 * (j // 2) / width)
    table = torch.where(j % 2 == 0, angle.sin(), angle.cos())
    return table.float()[None]


def resize_position_table(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table (1, 1 + h*w, width) for another grid: the class token's row stays, the grid part is resized bicubically, per axis.

    Args:
        table: the class token's row first, then the grid in raster order.
        old, new: the grids (h, w), in tokens.

    Raises:
        ValueError: where the table does not hold `old` and a class token.
    """
    if table.shape[1] != 1 + old[0] * old[1]:
        raise ValueError(f"position table: found {table.shape[1]} rows, expected 1 + {old[0]} x {old[1]}")
    if old == new:
        return table
    grid = table[:, 1:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid.float(), size=new, mode="bicubic", antialias=False, align_corners=False)
    return torch.cat((table[:, :1], resized.to(table.dtype).flatten(2).transpose(1, 2)), dim=1)


class ConvPositionEmbedding(nn.Conv2d):
    """`X + DWConv3x3(X)`, with bias: the position is read off the zero border; (B, H, W, C) -> (B, H, W, C).

    Computed as one convolution whose centre taps are 1 larger, which saves a pass over the map.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        weight = self.weight + F.pad(self.weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        return self._conv_forward(x_bhwc.permute(0, 3, 1, 2), weight, self.bias).permute(0, 2, 3, 1)
