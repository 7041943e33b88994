"""The model card: what a weight file says of its model, so that the file alone is enough to use it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from foveate.errors import UserError

HEADS = {"classify": ("",), "detect": ("retinanet", "mask_rcnn"), "segment": ("semantic_fpn",)}


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes the model's input when nothing is random.

    The short side is resized to `resize` pixels with `interpolation` (for an input that is not square: just so far that the picture covers
    `size * resize / min(size)`), the centre `size` = (H, W) is cut out, values in 0..1 are normalised with `mean` and `std`, one number per
    channel. Pictures are read with `len(mean)` channels.
    """

    size: tuple[int, int] = (224, 224)
    resize: int = 256
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def channels(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class WholePicture:
    """How a whole picture becomes the input of detection or segmentation: keeping its proportions, nothing cut off.

    The short side is resized to `short` pixels, or less far where the long side would exceed `long`; values in 0..1 are normalised with
    `mean` and `std`, one number per channel. Pictures are read with `len(mean)` channels.
    """

    short: int = 800
    long: int = 1333
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def channels(self) -> int:
        return len(self.mean)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) in pixels that a picture of `width` x `height` is resized to."""
        scale = min(self.short / min(width, height), self.long / max(width, height))
        return max(1, round(width * scale)), max(1, round(height * scale))


@dataclass(frozen=True)
class ModelCard:
    """Everything needed to build a model again and to feed it: stored as JSON inside every weight file we write.

    Args:
        model: the backbone's name.
        num_classes: K, without a background.
        in_chans: channels of the pictures.
        options: further arguments of the backbone.
        class_names: K names, or none where they are not known.
        preprocessing: `Preprocessing` to classify, `WholePicture` for the other tasks.
        task: "classify", "detect" or "segment".
        head: of the other tasks: "retinanet", "mask_rcnn" or "semantic_fpn".
        category_ids: K numbers that results files call the classes by, as in the annotations trained on; none: 1 to K.
        results: figures that were measured when it was trained.
        foveate: version of this package.
    """

    model: str
    num_classes: int
    in_chans: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing | WholePicture = field(default_factory=Preprocessing)
    task: str = "classify"
    head: str = ""
    category_ids: tuple[int, ...] = ()
    results: dict[str, float] = field(default_factory=dict)
    foveate: str = ""

    @property
    def picture_recipe(self) -> Preprocessing:
        """The preprocessing of a model that classifies; `UserError` for another."""
        if not isinstance(self.preprocessing, Preprocessing):
            raise UserError(f"{self.model}: found a model for the task {self.task!r}, expected one that classifies pictures")
        return self.preprocessing

    @property
    def whole_picture(self) -> WholePicture:
        """The preprocessing of a model that detects or segments; `UserError` for one that classifies."""
        if not isinstance(self.preprocessing, WholePicture):
            raise UserError(f"{self.model}: found a model that classifies whole pictures, expected one that detects or segments")
        return self.preprocessing

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """The card written in `text`; `UserError` where it is not one."""
        try:
            values = json.loads(text)
            recipe = values.pop("preprocessing", {})
            tuples: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
            lists: dict[str, Any] = {name: tuple(values.pop(name, ())) for name in ("class_names", "category_ids")}
            task = values.get("task", "classify")
            if values.get("head", "") not in HEADS.get(task, ()):
                raise TypeError(f"the task {task!r} with the head {values.get('head', '')!r}, which this version does not know")
            kind = Preprocessing if task == "classify" else WholePicture
            card = cls(**values, **lists, preprocessing=kind(**tuples))
            if not (isinstance(card.model, str) and isinstance(card.num_classes, int) and isinstance(card.options, dict)):
                raise TypeError("a model, a number of classes or options of another type")
            return card
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"unreadable model card: found {error}, expected the JSON that this project writes into its weight files"
            ) from None
