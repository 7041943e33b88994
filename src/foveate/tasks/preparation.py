"""From settings and pictures to a model and its preprocessing: what is left open in the settings is decided here, and said."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from foveate.card import ModelCard, Preprocessing
from foveate.data.pictures import PictureSet
from foveate.data.sizes import median_side
from foveate.factory import create_model, list_models, weight_file
from foveate.tasks.settings import TrainSettings
from foveate.weights.load import load_weights

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
    notes = []
    img_size = settings.img_size
    if img_size is None:
        side = median_side(pictures)
        img_size = max(SMALLEST_INPUT, side) if side <= SMALL_SIDE else USUAL_INPUT
        notes.append(f"input {img_size} x {img_size} px, since the median side of the pictures is {side} px (--img-size)")
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
        report = load_weights(model, weight_file(settings.weights))
        notes.append(str(report))
        if report.token_order is not None:
            options["token_order"] = report.token_order
    if settings.grad_checkpointing:
        model.set_grad_checkpointing(True)
    card = ModelCard(
        model=settings.model,
        num_classes=len(pictures.class_names),
        in_chans=settings.in_chans,
        options=options,
        class_names=pictures.class_names,
        preprocessing=preprocessing_of(model.pretrained_cfg, img_size, settings.in_chans),
        foveate=version,
    )
    return Prepared(model, card, tuple(notes))


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
