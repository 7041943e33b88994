"""Detections in COCO's form, and how good they are by COCO's measure."""

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed
from lightning.fabric import Fabric
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from foveate.data.objects import ObjectSet
from foveate.tasks.base import Batch
from foveate.tasks.pasting import paste

MOST_RESULTS = 100
FIGURES = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "", "", "ar100", "", "", "")  # in the order of COCOeval.stats
SIZES = {"small": "below 32 x 32", "medium": "from 32 x 32 to 96 x 96", "large": "above 96 x 96"}
KINDS = {"box": "bbox", "mask": "segm"}

Detect = Callable[[Tensor, Tensor], Sequence[Mapping[str, Tensor]]]


def picture_results(
    detection: Mapping[str, Tensor], picture_id: int, size: tuple[int, int], scale: tuple[float, float], category_ids: Sequence[int]
) -> list[dict[str, Any]]:
    """What a model found on one picture as entries of a COCO results file: the `MOST_RESULTS` surest, by falling score.

    Args:
        detection: `boxes` (N, 4) xyxy in pixels of the input, `scores` (N,), `labels` (N,) places in `category_ids` and, where the model
            gives them, `masks` (N, 1, M, M): probabilities on a grid over each box.
        picture_id: `image_id` of the entries.
        size: (width, height) of the picture as annotated.
        scale: pixels of the picture per pixel of the input, across and down.
        category_ids: the number of each class.

    Returns:
        Dictionaries with `image_id`, `category_id`, `bbox` (left, top, width, height, clipped to the picture, to a thousandth of a pixel),
        `score` and, with masks, `segmentation`.
    """
    order = detection["scores"].argsort(descending=True, stable=True)[:MOST_RESULTS]
    boxes, scores, labels = (detection[name][order].cpu().double().numpy() for name in ("boxes", "scores", "labels"))
    boxes = np.round(np.clip(boxes * (*scale, *scale), 0, (*size, *size)), 3)
    found = [
        {
            "image_id": picture_id,
            "category_id": category_ids[int(label)],
            "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
            "score": score,
        }
        for (left, top, right, bottom), score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
    ]
    if "masks" in detection:
        unclipped = detection["boxes"][order].cpu().double().numpy() * (*scale, *scale)
        grids = detection["masks"][order, 0].cpu().double().numpy()
        for entry, grid, box in zip(found, grids, unclipped.tolist(), strict=True):
            entry["segmentation"] = paste(grid, box, *size)
    return found


@dataclass(frozen=True, eq=False)
class DetectionResults:
    """The entries of some pictures of a set, and what they are compared with.

    They are scored by pycocotools itself, without torchmetrics around it: what is scored is then the very results file that is written,
    under the picture and category numbers of the user's own annotations, and whoever scores that file finds the same figures.

    Args:
        index: places of the P pictures seen.
        found: P lists of entries, see `picture_results`.
        pictures: the whole set.
        with_masks: whether the model gives masks, found or not.
    """

    index: tuple[int, ...]
    found: tuple[list[dict[str, Any]], ...]
    pictures: ObjectSet
    with_masks: bool = False

    def __len__(self) -> int:
        """Pictures seen."""
        return len(self.index)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is scored: "box" and, where the model gives masks and the annotations outlines, "mask"."""
        return ("box", "mask") if self.with_masks and self.pictures.has_outlines else ("box",)

    def entries(self, kind: str = "box") -> list[dict[str, Any]]:
        """Copies of all entries in the order of the pictures.

        Those of kind "mask" have no `bbox`: pycocotools would tell small from large by it, where papers do so by the mask's own area.
        """
        left_out = {"box": "", "mask": "bbox"}[kind]
        return [{key: value for key, value in entry.items() if key != left_out} for found in self.found for entry in found]

    def to_coco_json(self, kind: str = "box") -> str:
        """A results file that pycocotools' `loadRes` reads and scores to the same figures of this kind; see `entries`."""
        return json.dumps(self.entries(kind))

    def figures(self) -> dict[str, float]:
        """`box_ap`, `box_ap50`, `box_ap75`, `box_ap_small`, `box_ap_medium`, `box_ap_large`, `box_ar100`, likewise `mask_`; shares of 1.

        A figure that is not defined, as there is no object of its size, is absent, and `notes` says why.
        """
        figures = {}
        for kind in self.kinds:
            stats = self._scored[kind].stats.tolist()
            figures.update({f"{kind}_{name}": value for name, value in zip(FIGURES, stats, strict=True) if name and value > -1})
        return figures

    def notes(self) -> tuple[str, ...]:
        """Why figures are absent, in words."""
        where, figures = self.pictures.split, self.figures()
        if "box_ap" not in figures:
            return (f"{where}: the annotations hold no object to be found, so there is no AP",)
        sizes = [
            f"{where}: no object is {size} ({words} pixels by the area in the annotations), so there is no AP of {size} ones"
            for size, words in SIZES.items()
            if f"box_ap_{size}" not in figures
        ]
        if self.with_masks and "mask" not in self.kinds:
            sizes.append(f"{where}: not every object has an outline in the annotations, so masks are not scored")
        return tuple(sizes)

    def per_class(self) -> list[dict[str, Any]]:
        """Per class `class`, `count` (objects to be found), `box_ap`, `box_ap50` and, with masks, `mask_ap`, `mask_ap50`.

        Figures are None where there is no object to be found.
        """
        objects = self.pictures.objects
        counts = np.bincount(objects.labels[~objects.crowd], minlength=len(self.pictures.class_names)).tolist()
        rows: list[dict[str, Any]] = [
            {"class": name, "count": count} for name, count in zip(self.pictures.class_names, counts, strict=True)
        ]
        for kind in self.kinds:
            scored = self._scored[kind]
            precision = scored.eval["precision"][:, :, :, 0, -1]  # thresholds of overlap, of recall, classes; any size, most results
            for row, number in zip(rows, self.pictures.category_ids, strict=True):
                of_class = precision[:, :, scored.params.catIds.index(number)]
                for name, values in (("ap", of_class), ("ap50", of_class[0])):
                    row[f"{kind}_{name}"] = float(values[values > -1].mean()) if (values > -1).any() else None
        return rows

    @cached_property
    def _scored(self) -> dict[str, COCOeval]:
        return {kind: self._score(kind) for kind in self.kinds}

    def _score(self, kind: str) -> COCOeval:
        truth, entries = self.pictures.ground_truth(), self.entries(kind)
        if kind == "mask":
            _fill_boxes(truth)
        with redirect_stdout(io.StringIO()):
            annotated = _indexed(truth)
            found = annotated.loadRes(entries) if entries else _indexed({**truth, "annotations": []})
            scored = COCOeval(annotated, found, KINDS[kind])
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
        return scored


def _indexed(content: dict[str, Any]) -> COCO:
    coco = COCO()
    coco.dataset = {"info": {}, **content}
    coco.createIndex()
    return coco


def _fill_boxes(truth: dict[str, Any]) -> None:
    """Gives objects without an outline (where masks are scored, only crowds and degenerate boxes are such) that of their box."""
    sizes = {picture["id"]: (picture["height"], picture["width"]) for picture in truth["images"]}
    for annotation in truth["annotations"]:
        if "segmentation" not in annotation:
            annotation["segmentation"] = run_lengths.frPyObjects(np.array([annotation["bbox"]]), *sizes[annotation["image_id"]])[0]


@torch.inference_mode()
def score_objects(forward: Detect, batches: Iterable[Batch], pictures: ObjectSet, device: torch.device) -> DetectionResults:
    """The results of this process's batches.

    Args:
        forward: the model, in evaluation mode: images (B, C, H, W) and valid sizes (B, 2) in, a detection per picture out.
        batches: with `image`, `size` (B, 2) int64 H and W of the valid area, `index` (B,) int64.
        pictures: the set, its classes in the model's order.
        device: where the model is.
    """
    index: list[int] = []
    found: list[list[dict[str, Any]]] = []
    with_masks = False
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True, memory_format=torch.channels_last)
        detections = forward(images, batch["size"])
        for place, (height, width), detection in zip(batch["index"].tolist(), batch["size"].tolist(), detections, strict=True):
            size = pictures.sizes[place].tolist()
            scale = size[0] / width, size[1] / height
            with_masks = with_masks or "masks" in detection
            index.append(place)
            found.append(picture_results(detection, pictures.picture_ids[place], tuple(size), scale, pictures.category_ids))
    return DetectionResults(tuple(index), tuple(found), pictures, with_masks)


def gather_objects(fabric: Fabric, mine: DetectionResults) -> DetectionResults:
    """The results of all processes in the order of the pictures, the same on every process.

    Raises `RuntimeError` unless they hold each picture of the set exactly once.
    """
    everyones: list[Any] = [(mine.index, mine.found, mine.with_masks)]
    if fabric.world_size > 1:
        everyones = [None] * fabric.world_size
        torch.distributed.all_gather_object(everyones, (mine.index, mine.found, mine.with_masks))
    pairs = sorted((pair for index, found, _ in everyones for pair in zip(index, found, strict=True)), key=lambda pair: pair[0])
    index = tuple(place for place, _ in pairs)
    if index != tuple(range(len(mine.pictures))):
        raise RuntimeError(f"evaluation saw {len(index)} results for {len(mine.pictures)} pictures: some are missing or double")
    return DetectionResults(index, tuple(found for _, found in pairs), mine.pictures, any(masks for _, _, masks in everyones))
