"""Predictions of a segmenter: a class for every pixel of each picture, as masks and as shares of the picture."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from rich.table import Table
from rich.text import Text

from foveate.data.reading import read_picture
from foveate.errors import UserError
from foveate.heads.tiling import Segment, looking
from foveate.overlays import colour_mask, draw_classes
from foveate.tasks.pixels import class_map
from foveate.verbs.picture_files import ResultFolder, read_ahead
from foveate.verbs.predictions import READ_AHEAD, AnnotatedSheet, Job, Predictions, Whole, plain_table, reader_of

MOST_SHOWN = 6


@dataclass(frozen=True)
class ClassShare:
    """A class that occurs on a picture: how many pixels it has, and which share of the picture (0 to 1) these are."""

    name: str
    pixels: int
    share: float


@dataclass(frozen=True)
class PixelsOfPicture:
    """The classes on one picture, the largest first; `size` is its (width, height), `written` the pictures made of it, if any."""

    file: str
    size: tuple[int, int]
    classes: tuple[ClassShare, ...]
    written: tuple[str, ...] = ()

    def shares(self, most: int = MOST_SHOWN) -> str:
        """The `most` largest classes: "sky 51.2%, road 30.1%"."""
        more = len(self.classes) - most
        return ", ".join(f"{one.name} {one.share:.1%}" for one in self.classes[:most]) + (f" and {more} more" if more > 0 else "")


@dataclass(frozen=True)
class PixelPredictions(Predictions[PixelsOfPicture]):
    """JSON: `width`, `height`, `classes` and, with a folder of masks, `written`. A class has `name`, `pixels` and `share`.
    CSV: one row per picture and class that occurs on it.
    """

    def table(self) -> Table:
        table = plain_table("picture", "share of the pixels")
        for one in self.predictions:
            table.add_row(Text(one.file), Text(one.shares()))
        return table

    def plain(self, one: PixelsOfPicture) -> dict[str, Any]:
        classes = [{"name": seen.name, "pixels": seen.pixels, "share": seen.share} for seen in one.classes]
        written = {"written": one.written} if one.written else {}
        return {"width": one.size[0], "height": one.size[1], "classes": classes, **written}

    def columns(self) -> Sequence[str]:
        return ["class", "pixels", "share"]

    def cells(self, one: PixelsOfPicture) -> Iterable[Sequence[object]]:
        return [[seen.name, seen.pixels, f"{seen.share:.6f}"] for seen in one.classes]


def predict_masks(job: Job, *, out: Path | None = None, flip: bool = False, tile: int = 0) -> PixelPredictions:
    """Find the class of every pixel of every picture; the arguments are those of `foveate.verbs.predict.predict`.

    Raises:
        UserError: for tiles of less than a pixel, a folder that cannot be written, and output that is not finite.
    """
    forward = looking(job.model, tile=tile, flip=flip)
    folder = None if out is None else ResultFolder.make(out, job.files)
    sheet = AnnotatedSheet(job.sheet)
    seen: list[PixelsOfPicture] = []
    broken: list[tuple[str, str]] = []
    for place, (file, picture) in enumerate(read_ahead(job.files, reader_of(job.card.whole_picture), READ_AHEAD)):
        if isinstance(picture, UserError):
            broken.append((str(file), str(picture)))
            continue
        classes = _segment(forward, picture, job.device)
        seen.append(PixelsOfPicture(str(file), picture.size, _shares(classes, job.class_names)))
        if folder is not None or sheet.wants_more:
            overlay = draw_classes(read_picture(file, 3), classes, job.class_names)
            if folder is not None:
                seen[-1] = replace(seen[-1], written=_save(folder, place, classes, overlay, len(job.class_names)))
            sheet.add(overlay, file.name)
    cut = sheet.write(job.card.model, len(seen))
    return PixelPredictions(job.card.model, tuple(seen), tuple(broken), (*job.notes, *cut))


@torch.inference_mode()
def _segment(forward: Segment, picture: Whole, device: torch.device) -> npt.NDArray[np.uint8]:
    """(H, W) places of classes, at the picture's own size."""
    logits = forward(picture.image[None].to(device, memory_format=torch.channels_last))[0]
    if not logits.isfinite().all():
        raise UserError("the model gives numbers that are not finite; its weights are damaged or its training diverged")
    width, height = picture.size
    return class_map(logits, (height, width)).cpu().numpy()


def _shares(classes: npt.NDArray[np.uint8], names: Sequence[str]) -> tuple[ClassShare, ...]:
    counts = np.bincount(classes.ravel(), minlength=len(names))
    order = np.argsort(-counts, kind="stable")
    return tuple(ClassShare(names[place], int(counts[place]), float(counts[place] / classes.size)) for place in order if counts[place])


def _save(folder: ResultFolder, place: int, classes: npt.NDArray[np.uint8], overlay: Image.Image, num_classes: int) -> tuple[str, ...]:
    """The three pictures made of one: the numbers of its classes, their colours, and these over the picture."""
    pictures = {"classes": Image.fromarray(classes), "colours": colour_mask(classes, num_classes), "overlay": overlay}
    return tuple(folder.save(place, ending, picture) for ending, picture in pictures.items())
