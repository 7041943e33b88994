"""Mixup, CutMix and label smoothing as one pure function of a batch and a random generator."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """How the pictures of a batch are mixed with one another.

    Args:
        num_classes: K, columns of the targets.
        mixup: alpha of Mixup's Beta(alpha, alpha), arXiv 1710.09412; 0 is off.
        cutmix: alpha of CutMix's, arXiv 1905.04899; 0 is off.
        switch: probability of CutMix where both are on.
        smoothing: share of a target spread evenly over all classes.
    """

    num_classes: int
    mixup: float = 0.0
    cutmix: float = 0.0
    switch: float = 0.5
    smoothing: float = 0.0


def mix(images: Tensor, labels: Tensor, rules: Mixing, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Images (B,C,H,W) and labels (B,) -> mixed images and soft targets (B,K), rows summing to 1.

    Picture i meets picture B-1-i, with one share and one rectangle for the whole batch.
    """
    targets = soft_targets(labels, rules)
    if rules.mixup <= 0 and rules.cutmix <= 0:
        return images, targets
    cut = rules.cutmix > 0 and (rules.mixup <= 0 or random.random() < rules.switch)
    alpha = rules.cutmix if cut else rules.mixup
    share = float(random.beta(alpha, alpha))
    if cut:
        images, share = _paste(images, share, random)
    else:
        images = torch.lerp(images.flip(0), images, share)
    return images, torch.lerp(targets.flip(0), targets, share)


def soft_targets(labels: Tensor, rules: Mixing) -> Tensor:
    """Labels (B,) -> (B,K): 1 - smoothing on the label, smoothing spread evenly over all K classes, the label's own included."""
    targets = torch.full((len(labels), rules.num_classes), rules.smoothing / rules.num_classes, device=labels.device)
    return targets.scatter_add_(1, labels[:, None], torch.full_like(targets[:, :1], 1.0 - rules.smoothing))


def _paste(images: Tensor, share: float, random: np.random.Generator) -> tuple[Tensor, float]:
    """Paste a rectangle of area 1 - share, cut at the border, from the partner; the share of the picture itself that is left."""
    height, width = images.shape[-2:]
    side = float(np.sqrt(1.0 - share))
    top, bottom = _extent(height, side, random)
    left, right = _extent(width, side, random)
    pasted = images.clone()
    pasted[..., top:bottom, left:right] = images.flip(0)[..., top:bottom, left:right]
    return pasted, 1.0 - (bottom - top) * (right - left) / (height * width)


def _extent(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """A stretch of `share * length` around a random centre, cut at both ends."""
    centre, half = int(random.integers(length)), int(length * share) // 2
    return max(0, centre - half), min(length, centre + half)
