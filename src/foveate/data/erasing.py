"""Random erasing (Zhong et al. 2017): a rectangle of a picture becomes normal noise.

The noise is normal in the model's numbers, not in 8-bit values. So the readers, who have the picture's random numbers, draw rectangle and
noise, and these are put in on the device, after normalising.
"""

import math
import random

import torch
from torch import Tensor

AREA = (0.02, 1 / 3)
RATIO = (0.3, 1 / 0.3)
ATTEMPTS = 10


def drawn_noise(probability: float, size: torch.Size) -> dict[str, Tensor]:
    """What is to be erased of a picture of `size` (C, H, W): with `probability` a rectangle, its share of the area uniform in `AREA` and
    its height : width log-uniform in `RATIO`.

    `erased` (4,) int64 is (top, left, height, width), all 0 for nothing; `noise` (C * height * width,) float32 stands in its place.
    """
    top, left, height, width = _drawn_rectangle(*size[1:]) if random.random() <= probability else (0, 0, 0, 0)
    return {"erased": torch.tensor([top, left, height, width]), "noise": torch.empty(size[0], height, width).normal_().flatten()}


def _drawn_rectangle(rows: int, columns: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) smaller than the picture; all 0 where ten draws were not."""
    for _ in range(ATTEMPTS):
        area = random.uniform(*AREA) * rows * columns
        proportion = math.exp(random.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        height, width = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
        if height < rows and width < columns:
            return random.randint(0, rows - height), random.randint(0, columns - width), height, width
    return 0, 0, 0, 0


def erase(images: Tensor, erased: Tensor, noise: Tensor) -> None:
    """Put the noise of all pictures, one after the other, into their rectangles `erased` (B, 4) of `images` (B, C, H, W), in place.

    `erased` should lie on the CPU: reading it elsewhere waits for the device.
    """
    start = 0
    for image, (top, left, height, width) in zip(images, erased.tolist(), strict=True):
        end = start + len(image) * height * width
        if end > start:
            image[:, top : top + height, left : left + width] = noise[start:end].view(-1, height, width)
        start = end
