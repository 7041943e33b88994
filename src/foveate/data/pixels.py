"""Pictures as tensors: 8-bit values, resized for training, and from these the model's numbers.

All have the strides of channels-last memory.
"""

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def pixels_of(picture: Image.Image) -> Tensor:
    """(C, H, W) uint8 of a picture in mode L, RGB or RGBA."""
    values = np.array(picture)
    return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)


def picture_of(pixels: Tensor) -> Image.Image:
    """The picture in mode L, RGB or RGBA with the values (C, H, W) uint8."""
    values = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(values[..., 0] if values.shape[2] == 1 else values)


def resized_pixels(pixels: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """(C, h, w) uint8 -> (C, H, W) uint8 with `size` (H, W), by "bilinear" or "bicubic" filters that widen when they shrink.

    What Pillow gives, but for rounding and where cubic filters leave the range of the values; several times as fast.
    """
    # the batch of one is made by way of (1, h, w, C): only so does torch see channels-last memory, for which it has its fastest code
    batch = pixels.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return F.interpolate(batch, size, mode=interpolation, antialias=True)[0]


def normalised(picture: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(value / 255 - mean) / std per channel: float32 (C, H, W)."""
    return normalised_batch(pixels_of(picture)[None], mean, std)[0]


def normalised_batch(pixels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(value / 255 - mean) / std per channel: uint8 (B, C, H, W) -> float32 (B, C, H, W), on the device of `pixels`."""
    count, channels, height, width = pixels.shape
    mean_row, std_row = (_along_row(values, width, pixels.device) for values in (mean, std))
    # rows of W * C values: passes over long rows, not over pixels of C values
    rows = pixels.permute(0, 2, 3, 1).reshape(count * height, width * channels)
    result = torch.empty(rows.shape, device=pixels.device)
    # one picture after the other stays in a processor's cache from pass to pass
    together = height if pixels.device.type == "cpu" else len(rows)
    for values, part in zip(rows.split(together), result.split(together), strict=True):
        part.copy_(values).div_(255).sub_(mean_row).div_(std_row)
    return result.view(count, height, width, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)
def _along_row(values: tuple[float, ...], width: int, device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).repeat(width)
