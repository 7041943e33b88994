"""Multi-path feed-forward (MPFFN) of FViT, after Res2Net (arXiv 1904.01169)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveate.layers.dropout import Dropout
from foveate.layers.in_place import added, gelu, plus_product


class MultiPathFeedForward(nn.Module):
    """Linear to the hidden width, split into paths that filter one after another, linear back: (B, H, W, C) -> (B, H, W, C).

    `y1 = GELU(dw1(x1))`, `yi = GELU(dwi(xi + y(i-1)))`, every dw a 3x3 depthwise convolution with bias; no activation directly after the
    first linear. Two paths are the released DPFFN; the paper draws a stack of three convolutions, which may be three paths, or four of
    which the first passes untouched.

    Args:
        channels: C.
        hidden: the hidden width, divisible by `paths`.
        paths: number of groups of the hidden channels, at least 1.
        untouched: how many leading groups pass as they are (Res2Net keeps one).
        drop: dropout after each linear.

    Raises:
        ValueError: where the hidden width cannot be split evenly.
    """

    def __init__(self, channels: int, hidden: int, *, paths: int = 2, untouched: int = 0, drop: float = 0.0) -> None:
        super().__init__()
        if hidden % paths or not 0 <= untouched < paths:
            raise ValueError(
                f"found {paths} paths, {untouched} untouched, for {hidden} hidden channels; expected equal groups and one convolution"
            )
        width = hidden // paths
        self.num_paths = paths
        self.fc1 = nn.Linear(channels, hidden)
        self.paths = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in range(paths - untouched))
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = Dropout(drop)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        """The hidden map is never whole in memory: each path has its own rows of the first linear, its own columns of the second, and their
        products are added up. The numbers are those of the equation, up to the order of the additions.
        """
        rows = zip(self.fc1.weight.chunk(self.num_paths), self.fc1.bias.chunk(self.num_paths), strict=True)
        columns = self.fc2.weight.chunk(self.num_paths, dim=1)
        untouched = self.num_paths - len(self.paths)
        total = previous = None
        for index, ((weight, bias), column) in enumerate(zip(rows, columns, strict=True)):
            hidden = self.drop(_pointwise(x_bhwc, weight, bias))
            if index >= untouched:
                entering = hidden if previous is None else added(hidden, previous)
                response = self.paths[index - untouched](entering.permute(0, 3, 1, 2))
                hidden = previous = gelu(response.permute(0, 2, 3, 1))
            tokens = hidden.flatten(0, 2)
            total = F.linear(tokens, column, self.fc2.bias) if total is None else plus_product(total, tokens, column)
        return self.drop(total).view_as(x_bhwc)


def _pointwise(x_bhwc: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer; without gradients as a 1x1 convolution, which is faster on narrow maps, while its backward pass is slower."""
    if torch.is_grad_enabled():
        return F.linear(x_bhwc, weight, bias)
    return F.conv2d(x_bhwc.permute(0, 3, 1, 2), weight[:, :, None, None], bias).permute(0, 2, 3, 1)
