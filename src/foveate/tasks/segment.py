"""Segmentation: a class for every pixel."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.card import ModelCard
from foveate.data.dense_transforms import DenseAugmentation, MaskTransform
from foveate.data.examples import Examples, PicturesWithMasks
from foveate.data.loader import equal_size_loader
from foveate.data.masks import IGNORED, MaskSet
from foveate.data.sizes import input_sizes
from foveate.tasks.base import Batch, Forward
from foveate.tasks.pixels import PixelResults, gather_pixels, score_pixels
from foveate.tasks.settings import TrainSettings


class Segmentation:
    """Cross-entropy, the mean over the pixels that have a class.

    Args:
        examples: the training pictures.
        evaluation: batches of the held-out pictures that fall to this process.
        held_out: all of these.
        class_weights: (K,) factors on the loss of each class, or None.
    """

    chances = None
    groups = None

    def __init__(self, examples: Examples, evaluation: Iterable[Batch], held_out: MaskSet, class_weights: Tensor | None = None) -> None:
        self.examples, self.evaluation, self.held_out, self.class_weights = examples, evaluation, held_out, class_weights

    def parts(self, batch: Batch, count: int, random: np.random.Generator) -> Sequence[Batch]:
        columns = {name: batch[name].chunk(count) for name in ("image", "mask")}
        return [{name: column[part] for name, column in columns.items()} for part in range(count)]

    def loss(self, forward: Forward, part: Batch) -> Tensor:
        """0, and no gradients, where no pixel of the part has a class."""
        logits, mask = forward(part["image"]).float(), part["mask"].long()
        total = F.cross_entropy(logits, mask, weight=self.class_weights, ignore_index=IGNORED, reduction="sum")
        known = mask != IGNORED
        weight = known.sum() if self.class_weights is None else self.class_weights[mask[known]].sum()
        return total / weight.clamp(min=torch.finfo(torch.float32).tiny)

    def results(self, fabric: Fabric, forward: Forward) -> PixelResults:
        mine = score_pixels(forward, self.evaluation, self.held_out, fabric.device)
        return gather_pixels(fabric, mine, len(self.held_out))


def segmentation(fabric: Fabric, settings: TrainSettings, card: ModelCard, train_set: MaskSet, held_out: MaskSet) -> Segmentation:
    """The task of `settings` on these pictures."""
    recipe = card.whole_picture
    augmentation = DenseAugmentation(
        (settings.scale_low, settings.scale_high), settings.crop_size or recipe.short, settings.flip, settings.color_jitter
    )
    evaluation = equal_size_loader(
        PicturesWithMasks(held_out, MaskTransform(recipe)),
        input_sizes(held_out, recipe),
        settings.batch_size,
        fabric.global_rank,
        fabric.world_size,
        settings.num_workers,
    )
    return Segmentation(PicturesWithMasks(train_set, MaskTransform(recipe, augmentation)), evaluation, held_out)
