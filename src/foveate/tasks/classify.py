"""Classification: one label per picture."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.card import ModelCard
from foveate.data.examples import Examples, LabelledPictures
from foveate.data.loader import evaluation_loader
from foveate.data.order import balanced_weights
from foveate.data.pictures import PictureSet
from foveate.data.transforms import Augmentation, evaluation_transform, training_transform
from foveate.tasks.base import Batch, Forward
from foveate.tasks.mixing import Mixing, mix
from foveate.tasks.results import PictureResults, gather_results, score_pictures
from foveate.tasks.settings import TrainSettings


class Classification:
    """Cross-entropy against soft targets, weighted by class.

    Args:
        mixing: Mixup, CutMix and label smoothing.
        class_weights: (K,) factors on the loss of each class, or None.
        evaluation: batches of the held-out pictures that fall to this process.
        num_held_out: held-out pictures of all processes together.
        examples, chances: see `Task`.
    """

    groups = None

    def __init__(
        self,
        mixing: Mixing,
        class_weights: Tensor | None,
        evaluation: Iterable[Batch],
        num_held_out: int,
        examples: Examples,
        chances: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.examples, self.chances = examples, chances
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


def classification(fabric: Fabric, settings: TrainSettings, card: ModelCard, train_set: PictureSet, held_out: PictureSet) -> Classification:
    """The task of `settings` on these pictures."""
    recipe = card.picture_recipe
    mixing = Mixing(card.num_classes, settings.mixup, settings.cutmix, settings.mixup_switch, settings.smoothing)
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_class_weights(train_set.labels, card.num_classes).to(fabric.device)
    evaluation = evaluation_loader(
        held_out, evaluation_transform(recipe), settings.batch_size, fabric.global_rank, fabric.world_size, settings.num_workers
    )
    examples = LabelledPictures(train_set, training_transform(recipe, augmentation(settings)))
    chances = balanced_weights(train_set.labels) if settings.balanced_sampling else None
    return Classification(mixing, weights, evaluation, len(held_out), examples, chances)


def augmentation(settings: TrainSettings) -> Augmentation:
    """What `settings` does to a training picture."""
    return Augmentation(
        crop=settings.crop,
        scale=(settings.scale_min, 1.0),
        padding=settings.padding,
        flip=settings.flip,
        rand_augment=settings.rand_augment,
        rand_layers=settings.rand_augment_layers,
        color_jitter=settings.color_jitter,
        erasing=settings.erasing,
    )


def balanced_class_weights(labels: Sequence[int], num_classes: int) -> Tensor:
    """Class weights (K,) inverse to the classes' frequencies, with mean 1 over the pictures; 0 for a class without pictures."""
    return inverse_frequencies(torch.bincount(torch.tensor(labels), minlength=num_classes))


def inverse_frequencies(counts: Tensor) -> Tensor:
    """(K,) float32 weights inverse to the `counts` (K,), with mean 1 over all that is counted; 0 where nothing is."""
    present, counts = counts > 0, counts.double()
    weights = torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 0.0)
    return weights.float()
