"""The model card: what a weight file says of its model, so that the file alone is enough to use it."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from foveate.errors import UserError


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
class ModelCard:
    """Everything needed to build a model again and to feed it: stored as JSON inside every weight file we write."""

    model: str
    num_classes: int
    in_chans: int = 3
    options: dict[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    task: str = "classify"
    results: dict[str, float] = field(default_factory=dict)
    foveate: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelCard":
        """The card written in `text`; `UserError` where it is not one."""
        try:
            values = json.loads(text)
            recipe = values.pop("preprocessing", {})
            tuples: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in recipe.items()}
            names = tuple(values.pop("class_names", ()))
            card = cls(**values, class_names=names, preprocessing=Preprocessing(**tuples))
            if card.task != "classify":
                raise TypeError(f"the task {card.task!r}, which this version does not know")
            if not (isinstance(card.model, str) and isinstance(card.num_classes, int) and isinstance(card.options, dict)):
                raise TypeError("a model, a number of classes or options of another type")
            return card
        except (TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"unreadable model card: found {error}, expected the JSON that this project writes into its weight files"
            ) from None
