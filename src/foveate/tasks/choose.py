"""The one place where a kind of pictures becomes a model and a task."""

from typing import Any

from lightning.fabric import Fabric

from foveate.card import ModelCard
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import PictureSet, StoredPictures
from foveate.errors import UserError
from foveate.tasks.base import Task
from foveate.tasks.classify import classification
from foveate.tasks.dense_preparation import prepare_dense
from foveate.tasks.detect import detection
from foveate.tasks.preparation import Prepared, prepare_model
from foveate.tasks.segment import segmentation
from foveate.tasks.settings import TrainSettings


def prepare(settings: TrainSettings, pictures: StoredPictures, version: str) -> Prepared:
    """The model of `settings` for these pictures' classes, and its card."""
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
