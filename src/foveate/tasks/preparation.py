"""From settings and pictures to a model and its preprocessing: what is left open in the settings is decided here, and said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from foveate.card import ModelCard, Preprocessing, WholePicture
from foveate.data.pictures import PictureSet
from foveate.data.sizes import median_side
from foveate.factory import create_model, list_models, weight_file
from foveate.tasks.settings import TrainSettings
from foveate.weights.load import LoadReport, load_weights

SMALL_SIDE = 64
SMALLEST_INPUT = 32
USUAL_INPUT = 224


@dataclass(frozen=True)
class Prepared:
    """A model ready to be trained, what its card says of it, and how it came to be, in words."""

    model: nn.Module
    card: ModelCard
    notes: tuple[str, ...]


def prepare_model(settings: TrainSettings, pictures: PictureSet, version: str) -> Prepared:
    """The model of `settings` for these pictures' classes; `version` is the package's, written into the card."""
    img_size, notes = _input_size(settings, pictures)
    options = dict(settings.model_options)
    ours = settings.model in list_models()
    small = img_size <= SMALL_SIDE and ours if settings.small_images is None else settings.small_images
    if small:
        options.setdefault("small_images", True)
        notes.append("the model's form for small pictures (--small-images)")
    rates = {"drop_path_rate": settings.drop_path, "drop_rate": settings.drop}
    arguments: dict[str, Any] = {name: rate for name, rate in rates.items() if rate is not None} | options
    model: Any = create_model(
        settings.model, num_classes=len(pictures.class_names), in_chans=settings.in_chans, img_size=img_size, **arguments
    )
    if settings.weights is not None:
        take_note(load_weights(model, weight_file(settings.weights)), options, notes)
    if settings.grad_checkpointing:
        model.set_grad_checkpointing(True)
    preprocessing = preprocessing_of(model.pretrained_cfg, img_size, settings.in_chans)
    return Prepared(model, card_of(settings, pictures.class_names, options, preprocessing, version), tuple(notes))


def _input_size(settings: TrainSettings, pictures: PictureSet) -> tuple[int, list[str]]:
    """The side of the model's input in pixels, and why that one, where it was not given."""
    if settings.img_size is not None:
        return settings.img_size, []
    side = median_side(pictures)
    img_size = max(SMALLEST_INPUT, side) if side <= SMALL_SIDE else USUAL_INPUT
    return img_size, [f"input {img_size} x {img_size} px, since the median side of the pictures is {side} px (--img-size)"]


def take_note(report: LoadReport, options: dict[str, Any], notes: list[str]) -> None:
    """Put what was loaded into `notes`, and into the model's `options` what the weights asked for, so that the card has it."""
    notes.append(str(report))
    if report.token_order is not None:
        options["token_order"] = report.token_order


def card_of(
    settings: TrainSettings,
    class_names: Sequence[str],
    options: dict[str, Any],
    preprocessing: Preprocessing | WholePicture,
    version: str,
    **dense: Any,
) -> ModelCard:
    """The card of a model made from `settings` for these classes; `dense`: the card's fields that classifiers leave as they are."""
    return ModelCard(
        model=settings.model,
        num_classes=len(class_names),
        in_chans=settings.in_chans,
        options=options,
        class_names=tuple(class_names),
        preprocessing=preprocessing,
        foveate=version,
        **dense,
    )


def preprocessing_of(config: dict[str, Any], img_size: int, in_chans: int) -> Preprocessing:
    """Evaluation as timm's `pretrained_cfg` describes it, at another size; nothing is cropped off small pictures.

    Mean and deviation are those of the published weights for three channels, their averages over the channels for any other number.
    """
    crop = 1.0 if img_size <= SMALL_SIDE else float(config.get("crop_pct") or 1.0)
    mean, std = (per_channel(config[name], in_chans) for name in ("mean", "std"))
    interpolation = str(config.get("interpolation") or "bicubic")
    return Preprocessing(size=(img_size, img_size), resize=round(img_size / crop), interpolation=interpolation, mean=mean, std=std)


def per_channel(values: tuple[float, ...], in_chans: int) -> tuple[float, ...]:
    """One number per channel: those of the published weights for as many as they have, their average for any other count."""
    return tuple(map(float, values)) if in_chans == len(values) else (sum(values) / len(values),) * in_chans
