"""Segmentation: a class for every pixel."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.card import ModelCard, WholePicture
from foveate.data.dense_transforms import DenseAugmentation, MaskTransform, whole_picture
from foveate.data.examples import Examples, PicturesWithMasks
from foveate.data.masks import IGNORED, MaskSet
from foveate.data.reading import upright_size
from foveate.tasks.base import Batch, Forward
from foveate.tasks.classify import inverse_frequencies
from foveate.tasks.dense_batches import whole_picture_batches
from foveate.tasks.pixels import PixelResults, class_map, gather_pixels, score_pixels
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


@torch.inference_mode()
def classes_on(forward: Forward, pictures: MaskSet, index: int, *, recipe: WholePicture, device: torch.device) -> npt.NDArray[np.uint8]:
    """(H, W) the model's class of every pixel of a picture, at the picture's own size."""
    with pictures.open(index) as image:
        width, height = upright_size(image)
        logits = forward(whole_picture(image, recipe)[None].to(device))[0]
    classes: npt.NDArray[np.uint8] = class_map(logits, (height, width)).cpu().numpy()
    return classes


def segmentation(fabric: Fabric, settings: TrainSettings, card: ModelCard, train_set: MaskSet, held_out: MaskSet) -> Segmentation:
    """The task of `settings` on these pictures."""
    recipe = card.whole_picture
    augmentation = DenseAugmentation(
        (settings.scale_low, settings.scale_high), settings.crop_size or recipe.short, settings.flip, settings.color_jitter
    )
    evaluation = whole_picture_batches(fabric, held_out, recipe, settings.batch_size, settings.num_workers)
    weights = balanced_pixel_weights(train_set).to(fabric.device) if settings.class_weights == "balanced" else None
    return Segmentation(PicturesWithMasks(train_set, MaskTransform(recipe, augmentation)), evaluation, held_out, weights)


def balanced_pixel_weights(masks: MaskSet) -> Tensor:
    """Class weights (K,) inverse to the classes' shares of the pixels, with mean 1 over these; 0 for a class without pixels. Reads every
    mask.
    """

    def counted(index: int) -> npt.NDArray[np.int64]:
        return np.bincount(masks.mask(index).ravel(), minlength=IGNORED + 1)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        total = sum(threads.map(counted, range(len(masks))), np.zeros(IGNORED + 1, dtype=np.int64))
    return inverse_frequencies(torch.from_numpy(total[: len(masks.class_names)]))
