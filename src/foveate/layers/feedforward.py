"""Multi-path feed-forward (MPFFN) of FViT, after Res2Net (arXiv 1904.01169)."""

import torch
from torch import Tensor, nn


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
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, channels)
        self.drop = nn.Dropout(drop)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        groups = self.drop(self.fc1(x_bhwc)).permute(0, 3, 1, 2).chunk(self.num_paths, dim=1)
        untouched = self.num_paths - len(self.paths)
        outputs = list(groups[:untouched])
        for path, group in zip(self.paths, groups[untouched:], strict=True):
            entering = group + outputs[-1] if len(outputs) > untouched else group
            outputs.append(self.act(path(entering.contiguous(memory_format=torch.channels_last))))
        return self.drop(self.fc2(torch.cat(outputs, dim=1).permute(0, 2, 3, 1)))
