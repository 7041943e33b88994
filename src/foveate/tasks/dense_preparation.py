"""From settings and pictures to a detector or segmenter and its preprocessing: what is left open is decided here, and said."""

from typing import Any

from foveate.card import HEADS, WholePicture
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.sizes import median_side
from foveate.errors import UserError
from foveate.heads.create import create_dense
from foveate.tasks.preparation import Prepared, card_of, per_channel, take_note
from foveate.tasks.settings import TrainSettings

LARGEST_SHORT = {"detect": 800, "segment": 512}


def prepare_dense(settings: TrainSettings, pictures: ObjectSet | MaskSet, version: str) -> Prepared:
    """The model of `settings` for these pictures' classes; `version` is the package's, written into the card."""
    task = "detect" if isinstance(pictures, ObjectSet) else "segment"
    _refuse_options_of_classes(settings, task)
    head, why_head = _head(settings, pictures, task)
    short, why_short = _short_side(settings, pictures, task)
    notes = why_head + why_short
    options = dict(settings.model_options)
    rates: dict[str, Any] = {} if settings.drop_path is None else {"drop_path_rate": settings.drop_path}
    if settings.small_images:
        options.setdefault("small_images", True)
    frozen = settings.freeze_batch_norm
    if frozen is None:
        frozen = task == "detect" and settings.weights is not None
    model, report = create_dense(
        settings.model,
        head,
        len(pictures.class_names),
        settings.weights,
        in_chans=settings.in_chans,
        freeze_batch_norm=frozen,
        **rates,
        **options,
    )
    if report is not None:
        take_note(report, options, notes)
    if settings.grad_checkpointing:
        model.set_grad_checkpointing()
    mean, std = (per_channel(model.network.pretrained_cfg[name], settings.in_chans) for name in ("mean", "std"))
    whole = WholePicture(short, max(settings.max_size, short), mean=mean, std=std)
    ids = pictures.category_ids if isinstance(pictures, ObjectSet) else ()
    card = card_of(settings, pictures.class_names, options, whole, version, task=task, head=head, category_ids=ids)
    return Prepared(model, card, tuple(notes))


def _refuse_options_of_classes(settings: TrainSettings, task: str) -> None:
    if settings.balanced_sampling:
        raise UserError(f"balanced_sampling: found with the task {task!r}, expected pictures of one class each; leave it out")
    if settings.class_weights != "none" and task == "detect":
        raise UserError(f"class_weights: found {settings.class_weights} to detect objects, expected none; leave it out")


def _short_side(settings: TrainSettings, pictures: ObjectSet | MaskSet, task: str) -> tuple[int, list[str]]:
    """The short side in pixels to which pictures are resized, and why that one, where it was not given."""
    if settings.img_size is not None:
        return settings.img_size, []
    side = median_side(pictures)
    short = min(side, LARGEST_SHORT[task])
    return short, [f"short side {short} px, since the median short side of the pictures is {side} px (--img-size)"]


def _head(settings: TrainSettings, pictures: ObjectSet | MaskSet, task: str) -> tuple[str, list[str]]:
    """The head to train, and why that one, where it was not named."""
    if settings.head not in ("auto", *HEADS[task]):
        raise UserError(f"head: found {settings.head} for the task {task!r}, expected {' or '.join(HEADS[task])}")
    outlined = isinstance(pictures, ObjectSet) and pictures.has_outlines
    if settings.head == "mask_rcnn" and not outlined:
        raise UserError("head: found mask_rcnn for objects without outlines, expected an outline of each; take --head retinanet")
    if settings.head != "auto":
        return settings.head, []
    if task == "segment":
        return "semantic_fpn", []
    head = "mask_rcnn" if outlined else "retinanet"
    return head, [f"{head}, since {'every object has an outline' if outlined else 'objects have boxes only'} (--head)"]
