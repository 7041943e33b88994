"""Classification: one label per picture."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.tasks.base import Batch, Forward
from foveate.tasks.mixing import Mixing, mix
from foveate.tasks.results import PictureResults, gather_results, score_pictures


class Classification:
    """Cross-entropy against soft targets, weighted by class.

    Args:
        mixing: Mixup, CutMix and label smoothing.
        class_weights: (K,) factors on the loss of each class, or None.
        evaluation: batches of the held-out pictures that fall to this process.
        num_held_out: held-out pictures of all processes together.
    """

    def __init__(self, mixing: Mixing, class_weights: Tensor | None, evaluation: Iterable[Batch], num_held_out: int) -> None:
        self.mixing = mixing
        self.class_weights = class_weights
        self.evaluation = evaluation
        self.num_held_out = num_held_out

    def parts(self, batch: Batch, count: int, random: np.random.Generator) -> Sequence[Batch]:
        images, targets = mix(batch["image"], batch["label"], self.mixing, random)
        images = images.contiguous(memory_format=torch.channels_last)
        return [{"image": i, "target": t} for i, t in zip(images.chunk(count), targets.chunk(count), strict=True)]

    def loss(self, forward: Forward, part: Batch) -> Tensor:
        """Mean over the part of `- sum_k w_k t_k log p_k`."""
        return F.cross_entropy(forward(part["image"]).float(), part["target"], weight=self.class_weights)

    def results(self, fabric: Fabric, forward: Forward) -> PictureResults:
        """What the model says to every held-out picture, on every process alike."""
        mine = score_pictures(forward, self.evaluation, self.mixing.num_classes, fabric.device)
        return gather_results(fabric, mine, self.num_held_out)

    def evaluate(self, fabric: Fabric, forward: Forward) -> dict[str, float]:
        return self.results(fabric, forward).figures()


def balanced_class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Class weights (K,) inverse to the classes' frequencies, with mean 1 over the pictures; 0 for a class without pictures."""
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes).double()
    present = counts > 0
    weights = torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.float()
