"""The one place where a kind of pictures becomes a model and a task."""

from typing import Any

from lightning.fabric import Fabric

from foveate.card import ModelCard
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.opening import task_of
from foveate.data.pictures import PictureSet, StoredPictures
from foveate.errors import UserError
from foveate.tasks.base import Task
from foveate.tasks.classify import classification
from foveate.tasks.dense_preparation import prepare_dense
from foveate.tasks.detect import detection
from foveate.tasks.preparation import Prepared, prepare_model
from foveate.tasks.segment import segmentation
from foveate.tasks.settings import TrainSettings

OF_LABELS = [
    "drop",
    "mixup",
    "cutmix",
    "mixup_switch",
    "smoothing",
    "crop",
    "scale_min",
    "padding",
    "rand_augment",
    "rand_augment_layers",
    "erasing",
]
OF_WHOLE_PICTURES = ["max_size", "scale_low", "scale_high", "freeze_batch_norm"]
# Settings that a task has no use for.
FOREIGN = {"classify": [*OF_WHOLE_PICTURES, "crop_size"], "detect": [*OF_LABELS, "crop_size"], "segment": OF_LABELS}


def refuse_foreign(settings: TrainSettings, task: str) -> None:
    """`UserError` where a setting was changed that this task would not read."""
    changed = [name for name in FOREIGN[task] if getattr(settings, name) != getattr(TrainSettings(), name)]
    if changed:
        found = ", ".join(f"{name} {getattr(settings, name)}" for name in changed)
        raise UserError(f"found {found} for the task {task!r}, which has no use for them; leave them out, or choose another recipe")
    if settings.strategy == "fsdp" and task != "classify":
        raise UserError(f"strategy: found fsdp for the task {task!r}, expected ddp: sharding of detectors and segmenters is not offered")


def prepare(settings: TrainSettings, pictures: StoredPictures, version: str) -> Prepared:
    """The model of `settings` for these pictures' classes, and its card. `UserError` for settings that the task has no use for."""
    refuse_foreign(settings, task_of(pictures))
    if isinstance(pictures, PictureSet):
        if settings.head != "auto":
            raise UserError(f"head: found {settings.head} for pictures of one class each, expected objects or masks; leave --head out")
        return prepare_model(settings, pictures, version)
    assert isinstance(pictures, ObjectSet | MaskSet)
    return prepare_dense(settings, pictures, version)


def make_task(fabric: Fabric, settings: TrainSettings, card: ModelCard, train_set: StoredPictures, held_out: StoredPictures) -> Task:
    """The task that these pictures, both sets of one kind, are made for."""
    pair: Any = (train_set, held_out)
    if isinstance(train_set, PictureSet):
        return classification(fabric, settings, card, *pair)
    if isinstance(train_set, ObjectSet):
        return detection(fabric, settings, card, *pair)
    return segmentation(fabric, settings, card, *pair)
