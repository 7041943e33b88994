"""Segmenting a picture also mirrored, or in overlapping tiles where it is too large for the memory at once.

Both turn the function of a segmenter, images (B, C, H, W) to logits (B, K, H, W), into another such function, and may be nested. What they
return are logarithms of averaged probabilities, so that softmax gives these back and the likeliest class is found as among logits.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from foveate.errors import UserError

Segment = Callable[[Tensor], Tensor]
MOST_OVERLAP = 0.9
OVERLAP = 0.25  # share of a tile's side that evaluation and prediction let neighbours have in common


def looking(forward: Segment, *, tile: int, flip: bool) -> Segment:
    """The segmenter, in tiles of `tile` pixels (0: whole) and together with the mirrored picture where asked for."""
    windows = tiled(forward, tile, OVERLAP) if tile else forward
    return flipped(windows) if flip else windows


def flipped(forward: Segment) -> Segment:
    """The mean over a picture and its mirror image, the latter mirrored back."""

    def both(images: Tensor) -> Tensor:
        mean = forward(images).float().softmax(dim=1)
        mean = mean.add(forward(images.flip(3)).float().softmax(dim=1).flip(3)).div_(2)
        return _logarithm(mean)

    return both


def tiled(forward: Segment, tile: int, overlap: float) -> Segment:
    """The blend of overlapping windows of at most `tile` x `tile` pixels; pictures that fit into one go through as they are.

    The windows lie evenly from edge to edge. Each counts fully in its middle, and linearly less towards its own edges within the overlap,
    so that no seam shows. Beside one window's computation only the output and one map of weights are held, however many windows there are.

    Args:
        forward: the segmenter.
        tile: pixels on a side; best a multiple of the coarsest stride.
        overlap: share of a tile's side that neighbours have in common at least, 0 to `MOST_OVERLAP`.

    Raises `UserError` where tile or overlap are out of range.
    """
    if tile < 1 or not 0 <= overlap <= MOST_OVERLAP:
        raise UserError(f"tiles: found {tile} px with an overlap of {overlap}, expected at least 1 px and from 0 to {MOST_OVERLAP}")
    shared = min(round(tile * overlap), tile - 1)

    def blended(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if max(height, width) <= tile:
            return forward(images)
        total, weights = None, torch.zeros(height, width, device=images.device)
        for top in _starts(height, tile, shared):
            for left in _starts(width, tile, shared):
                window = (..., slice(top, top + tile), slice(left, left + tile))
                scores = forward(images[window]).float().softmax(dim=1)
                if total is None:
                    total = scores.new_zeros(*scores.shape[:2], height, width)
                weight = _ramp(scores.shape[2], shared)[:, None] * _ramp(scores.shape[3], shared)
                weight = weight.to(scores)
                total[window] += scores.mul_(weight)
                weights[window] += weight
        assert total is not None
        return _logarithm(total.div_(weights))

    return blended


def _starts(length: int, tile: int, shared: int) -> list[int]:
    """Where windows begin, evenly from 0 to the last that fits, neighbours having at least `shared` pixels in common."""
    if length <= tile:
        return [0]
    count = -(-(length - shared) // (tile - shared))
    return (np.arange(count) * (length - tile) // (count - 1)).tolist()


def _ramp(length: int, shared: int) -> Tensor:
    """(length,) weights: 1 in the middle, falling linearly over `shared` pixels at both ends."""
    to_edge = torch.minimum(torch.arange(length), torch.arange(length).flip(0)) + 0.5
    return (to_edge / max(shared, 0.5)).clamp(max=1)


def _logarithm(probabilities: Tensor) -> Tensor:
    return probabilities.clamp_(min=torch.finfo(torch.float32).tiny).log_()
