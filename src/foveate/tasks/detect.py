"""Detection: boxes, and with Mask R-CNN outlines, of the objects on a picture."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import Tensor

from foveate.card import ModelCard
from foveate.data.dense_transforms import DenseAugmentation, ObjectTransform
from foveate.data.examples import Examples, PicturesWithObjects
from foveate.data.objects import ObjectSet
from foveate.data.sizes import wide_or_tall
from foveate.tasks.base import Batch, Forward
from foveate.tasks.dense_batches import whole_picture_batches
from foveate.tasks.detections import DetectionResults, gather_objects, score_objects
from foveate.tasks.settings import TrainSettings

FLAT = ("boxes", "labels", "masks")  # values of all pictures one after the other


class Detection:
    """The sum of the losses of torchvision's detectors, unweighted as there.

    Args:
        examples: the training pictures.
        evaluation: batches of the held-out pictures that fall to this process.
        held_out: all of these.
    """

    chances = None

    def __init__(self, examples: Examples, evaluation: Iterable[Batch], held_out: ObjectSet) -> None:
        self.examples, self.evaluation, self.held_out = examples, evaluation, held_out
        self.groups = wide_or_tall(examples.pictures)

    def parts(self, batch: Batch, count: int, random: np.random.Generator) -> Sequence[Batch]:
        if count == 1:
            return [batch]
        pictures = len(batch["count"]) // count
        ends = [0, *accumulate(batch["count"].tolist())]
        cuts = [(start, start + pictures) for start in range(0, count * pictures, pictures)]
        return [
            {name: value[ends[start] : ends[end]] if name in FLAT else value[start:end] for name, value in batch.items()}
            for start, end in cuts
        ]

    def loss(self, forward: Forward, part: Batch) -> Tensor:
        losses = forward(part["image"], part["size"], targets(part))
        return torch.stack(list(losses.values())).sum()

    def results(self, fabric: Fabric, forward: Forward) -> DetectionResults:
        mine = score_objects(forward, self.evaluation, self.held_out, fabric.device)
        return gather_objects(fabric, mine)


def targets(batch: Batch) -> list[dict[str, Tensor]]:
    """What torchvision's detectors take, per picture: `boxes`, `labels` and, where there are any, `masks`."""
    counts = batch["count"].tolist()
    columns = {name: batch[name].split(counts) for name in FLAT if name in batch}
    return [{name: column[place] for name, column in columns.items()} for place in range(len(counts))]


def detection(fabric: Fabric, settings: TrainSettings, card: ModelCard, train_set: ObjectSet, held_out: ObjectSet) -> Detection:
    """The task of `settings` on these pictures."""
    recipe = card.whole_picture
    scale = (settings.scale_low, settings.scale_high)
    augmentation = DenseAugmentation(scale, flip=settings.flip, color_jitter=settings.color_jitter)
    examples = PicturesWithObjects(train_set, ObjectTransform(recipe, augmentation, outlines=card.head == "mask_rcnn"))
    evaluation = whole_picture_batches(fabric, held_out, recipe, settings.batch_size, settings.num_workers)
    return Detection(examples, evaluation, held_out)
