"""What a training of a detector or segmenter draws into its run folder: held-out pictures, the truth beside what was found."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as run_lengths

from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.reading import read_picture
from foveate.overlays import draw_classes, draw_objects
from foveate.plots.confusion import confusion_matrix
from foveate.plots.contact_sheet import contact_sheet
from foveate.run import RunFolder
from foveate.tasks.detections import DetectionResults
from foveate.tasks.pixels import PixelResults
from foveate.verbs.sheets import spread, with_classes, with_objects

EXAMPLES = 6
SHOWN_FROM = 0.3
SIDE = 448


def draw_found(run: RunFolder, title: str, pictures: ObjectSet, results: DetectionResults) -> None:
    """Pictures spread evenly over the set, as annotated and as found."""
    pairs = []
    for index in spread(len(pictures), EXAMPLES):
        with pictures.open(index) as image:
            picture = read_picture(image, 3)
        pairs.append((with_objects(pictures, index) or picture, found_on(picture, results.found[index], pictures), pictures.name(index)))
    _draw_pairs(run, f"{title}: as annotated, and as found (scores from {SHOWN_FROM:.0%})", pairs)


def found_on(picture: Image.Image, entries: Sequence[dict[str, Any]], pictures: ObjectSet) -> Image.Image:
    """The picture with the entries of a results file that are sure enough."""
    sure = [entry for entry in entries if entry["score"] >= SHOWN_FROM]
    place = {number: label for label, number in enumerate(pictures.category_ids)}
    boxes = np.array([entry["bbox"] for entry in sure], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = [run_lengths.decode(entry["segmentation"]) for entry in sure] if all("segmentation" in entry for entry in sure) else None
    labels = [place[entry["category_id"]] for entry in sure]
    return draw_objects(picture, boxes, labels, pictures.class_names, scores=[entry["score"] for entry in sure], masks=masks)


def draw_segmented(
    run: RunFolder, title: str, pictures: MaskSet, results: PixelResults, classes_on: Callable[[int], npt.NDArray[np.uint8]]
) -> None:
    """The confusion of pixels, and pictures spread evenly over the set, as annotated and as the model sees them.

    Args:
        run, title: where to, and of what.
        pictures: the held-out set.
        results: on it.
        classes_on: the model's (H, W) classes of a picture of the set.
    """
    confusion_matrix(results.counts, pictures.class_names, run.confusion, title=title, unit="pixels")
    pairs = []
    for index in spread(len(pictures), EXAMPLES):
        with pictures.open(index) as image:
            picture = read_picture(image, 3)
        seen = draw_classes(picture, classes_on(index), pictures.class_names)
        pairs.append((with_classes(pictures, index) or picture, seen, pictures.name(index)))
    _draw_pairs(run, f"{title}: as annotated, and as found", pairs)


def _draw_pairs(run: RunFolder, title: str, pairs: Sequence[tuple[Image.Image, Image.Image, str]]) -> None:
    shown = [picture for truth, found, _ in pairs for picture in (truth, found)]
    captions = [caption for _, _, name in pairs for caption in (Path(name).name, "found")]
    contact_sheet(shown, captions, None, run.examples, columns=4, side=SIDE, title=title)
