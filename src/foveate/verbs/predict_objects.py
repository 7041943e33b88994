"""Predictions of a detector: the objects on each picture, with scores, boxes and, where the model gives them, masks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as run_lengths
from rich.table import Table
from rich.text import Text

from foveate.data.reading import read_picture
from foveate.errors import UserError
from foveate.overlays import draw_objects
from foveate.tasks.detections import picture_results
from foveate.verbs.coco_results import Entry, Numbers, ResultsFile
from foveate.verbs.picture_files import ResultFolder, check_writable, read_ahead
from foveate.verbs.predictions import READ_AHEAD, AnnotatedSheet, Job, Predictions, Whole, plain_table, reader_of


@dataclass(frozen=True)
class SeenObject:
    """One object.

    Args:
        label: place of its class among the model's.
        name: of its class.
        score: 0 to 1.
        box: left, top, right, bottom in pixels of the upright picture.
        mask: COCO's compressed run lengths at the picture's size (`size` [height, width], `counts`), None from a model of boxes alone.
    """

    label: int
    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class ObjectsOfPicture:
    """The objects of one picture by falling score; `size` is its (width, height), `written` the annotated picture, if any."""

    file: str
    size: tuple[int, int]
    objects: tuple[SeenObject, ...]
    written: str = ""

    def counts(self) -> str:
        """How many of each class: "3 RBC, 1 WBC", the most frequent first."""
        counts = Counter(one.name for one in self.objects).most_common()
        return ", ".join(f"{count} {name}" for name, count in counts) or "nothing"


@dataclass(frozen=True)
class ObjectPredictions(Predictions[ObjectsOfPicture]):
    """JSON: `width`, `height`, `objects` and, with a folder of annotated pictures, `written`. An object has `name`, `score`, `box` and,
    from a model of masks, `mask`, as in `SeenObject`. CSV: one row per object, none for a picture without objects; `mask_pixels` is the
    area of the mask.
    """

    def table(self) -> Table:
        table = plain_table("picture", "objects")
        for one in self.predictions:
            table.add_row(Text(one.file), Text(one.counts()))
        return table

    def plain(self, one: ObjectsOfPicture) -> dict[str, Any]:
        objects = [
            {"name": seen.name, "score": seen.score, "box": seen.box, **({} if seen.mask is None else {"mask": seen.mask})}
            for seen in one.objects
        ]
        written = {"written": one.written} if one.written else {}
        return {"width": one.size[0], "height": one.size[1], "objects": objects, **written}

    def columns(self) -> Sequence[str]:
        return ["class", "score", "left", "top", "right", "bottom", "mask_pixels"]

    def cells(self, one: ObjectsOfPicture) -> Iterable[Sequence[object]]:
        for seen in one.objects:
            pixels = "" if seen.mask is None else int(run_lengths.area(seen.mask))
            yield [seen.name, f"{seen.score:.6f}", *seen.box, pixels]


def predict_objects(
    job: Job, *, threshold: float = 0.5, out: Path | None = None, results: Path | None = None, annotations: Path | None = None
) -> ObjectPredictions:
    """Find the objects on every picture; the arguments are those of `foveate.verbs.predict.predict`.

    Raises:
        UserError: for a threshold out of range, annotations that do not fit, files that cannot be written, and weights that are not finite.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"predict: found the threshold {threshold}, expected a score from 0 to 1")
    _refuse_damaged(job)
    table = _results_file(job, results, annotations)
    folder = None if out is None else ResultFolder.make(out, job.files)
    sheet = AnnotatedSheet(job.sheet)
    seen: list[ObjectsOfPicture] = []
    broken: list[tuple[str, str]] = []
    for place, (file, picture) in enumerate(read_ahead(job.files, reader_of(job.card.whole_picture), READ_AHEAD)):
        if isinstance(picture, UserError):
            broken.append((str(file), str(picture)))
            continue
        entries = _detect(job, picture)
        if table is not None:
            table.add(place, file, picture.size, entries)
        objects = tuple(_object(entry, job.class_names) for entry in entries if entry["score"] >= threshold)
        seen.append(ObjectsOfPicture(str(file), picture.size, objects))
        if folder is not None or sheet.wants_more:
            drawn = _drawn(file, objects, job.class_names)
            if folder is not None:
                seen[-1] = replace(seen[-1], written=folder.save(place, "objects", drawn))
            sheet.add(drawn, f"{seen[-1].counts()}\n{file.name}")
    notes = [*job.notes, *sheet.write(job.card.model, len(seen)), *([] if table is None else table.write())]
    notes.append(f"{sum(len(one.objects) for one in seen)} objects with a score of at least {threshold:g}")
    return ObjectPredictions(job.card.model, tuple(seen), tuple(broken), tuple(notes))


def _refuse_damaged(job: Job) -> None:
    """A detector of numbers that are not finite finds nothing and says nothing of it."""
    values = [value for value in job.model.state_dict().values() if value.is_floating_point()]
    if not all(bool(value.isfinite().all()) for value in values):
        raise UserError("the model's weights hold numbers that are not finite; the file is damaged or its training diverged")


def _results_file(job: Job, results: Path | None, annotations: Path | None) -> ResultsFile | None:
    if results is None:
        if annotations is not None:
            raise UserError(
                f"predict: found --annotations {annotations} without --results, expected the results file to be numbered by them"
            )
        return None
    check_writable(results)
    if annotations is None:
        return ResultsFile(results, Numbers.running(len(job.files), job.card), job.class_names, with_images=True)
    return ResultsFile(results, Numbers.of_annotations(annotations, job.files, job.class_names), job.class_names, with_images=False)


@torch.inference_mode()
def _detect(job: Job, picture: Whole) -> list[Entry]:
    """All that the model finds, by falling score, in COCO's form with places of classes as `category_id`."""
    images = picture.image[None].to(job.device, memory_format=torch.channels_last)
    (found,) = job.model(images)
    scale = picture.size[0] / images.shape[3], picture.size[1] / images.shape[2]
    return picture_results(found, 0, picture.size, scale, range(job.card.num_classes))


def _object(entry: Entry, names: Sequence[str]) -> SeenObject:
    left, top, width, height = entry["bbox"]
    box = left, top, round(left + width, 3), round(top + height, 3)
    return SeenObject(entry["category_id"], names[entry["category_id"]], entry["score"], box, entry.get("segmentation"))


def _drawn(file: Path, objects: Sequence[SeenObject], names: Sequence[str]) -> Image.Image:
    masks = [run_lengths.decode(one.mask) for one in objects if one.mask is not None]
    boxes = np.array([one.box for one in objects], dtype=np.float64)
    scores = [one.score for one in objects]
    return draw_objects(read_picture(file, 3), boxes, [one.label for one in objects], names, scores=scores, masks=masks or None)
