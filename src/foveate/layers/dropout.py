"""Dropout whose random numbers cost less than the layers around it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout`, on a processor with a faster generator and a mask of one byte per number instead of four.

    PyTorch draws a processor's Bernoulli numbers one after another with the Mersenne twister: at the published rate of 0.05 that was 29% of
    a training step of `fvit_tiny` (batch 8 at 224 px, float32, two cores). Here 16 random bits decide about each number, four numbers at a
    time, by the generator SFC64, which is seeded from PyTorch's: the same `torch.manual_seed` gives the same masks. The rate is rounded to
    1/65536, and what stays is scaled by the rounded rate, so that the expectation is exact.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name in the class above
        if input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        mask = self.mask(input.shape, input.device)
        return input if mask is None else _Masked.apply(input, mask, self.scale)

    def mask(self, shape: torch.Size, device: torch.device) -> Tensor | None:
        """1 for what stays and 0 for what is dropped now, uint8; None where nothing is dropped: in evaluation, and at rate 0."""
        levels = self.levels
        if not levels:
            return None
        if device.type == "cpu":
            return keep_mask(shape, levels)
        return torch.empty(shape, dtype=torch.uint8, device=device).bernoulli_(1 - levels / LEVELS)

    @property
    def scale(self) -> float:
        """What a number that stays is multiplied by: 1 in evaluation; 0 where all are dropped."""
        return LEVELS / (LEVELS - self.levels) if self.levels < LEVELS else 0.0

    @property
    def levels(self) -> int:
        """How many of 65536 numbers are dropped on average: 0 in evaluation."""
        return round(self.p * LEVELS) if self.training else 0


def keep_mask(shape: torch.Size, levels: int) -> Tensor:
    """A mask that is 0 with probability `levels` / 65536, each place on its own, and else 1; uint8, contiguous, on the processor."""
    seed = int(torch.randint(2**63 - 1, ()))
    count = shape.numel()
    bits = np.random.SFC64(seed).random_raw(-(-count // 4)).view(np.uint16)[:count]
    return torch.from_numpy((bits >= levels).view(np.uint8)).view(shape)  # products with uint8 run several times faster than with bool


class _Masked(torch.autograd.Function):
    """`x * mask * scale`, keeping only the mask for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return (x * mask).mul_(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None, None
