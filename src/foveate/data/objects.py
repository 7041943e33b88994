"""Pictures with objects on them: boxes, classes and outlines, in flat arrays that a million objects fit into."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from foveate.data.pictures import StoredPictures

SMALLEST_SIDE = 1.0


@dataclass(frozen=True, eq=False)
class Objects:
    """The M objects of a set, those of picture i from `starts[i]` to `starts[i + 1]`, as they were annotated.

    Args:
        starts: (N + 1,) int64.
        boxes: (M, 4) float64, left, top, right, bottom in pixels, not clipped to the picture.
        labels: (M,) int64, places in the set's `class_names`.
        crowd: (M,) bool: a region of many objects, or one too difficult to count. It is never trained on, and in scoring neither missed nor
            wrong (COCO's iscrowd, VOC's difficult).
        area: (M,) float64 in square pixels, by which scoring tells small from large.
        outlines: M masks as COCO's compressed run lengths at their picture's size, None for an object without one; or None where no
            object has one.
    """

    starts: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    area: npt.NDArray[np.float64]
    outlines: tuple[bytes | None, ...] | None = None

    def of(self, picture: int) -> slice:
        """The places of a picture's objects."""
        return slice(int(self.starts[picture]), int(self.starts[picture + 1]))


@dataclass(frozen=True, eq=False)
class ObjectSet(StoredPictures):
    """Picture i is `files[i]`, `sizes[i]` = (width, height) pixels large as annotated, and called `picture_ids[i]` in results files.

    `category_ids` are the numbers that annotations and results files call the classes by, in the order of `class_names`.
    """

    files: Sequence[Path]
    class_names: tuple[str, ...]
    split: str
    category_ids: tuple[int, ...]
    picture_ids: tuple[int, ...]
    sizes: npt.NDArray[np.int64]
    objects: Objects

    @property
    def has_outlines(self) -> bool:
        """Whether every object that can be trained on has an outline."""
        outlines = self.objects.outlines
        return outlines is not None and all(outlines[place] is not None for place in np.flatnonzero(self.usable))

    @cached_property
    def pictures(self) -> npt.NDArray[np.int64]:
        """(M,) the picture that each object is on."""
        return np.repeat(np.arange(len(self)), np.diff(self.objects.starts))

    @cached_property
    def clipped(self) -> npt.NDArray[np.float64]:
        """(M, 4) the boxes, cut off at the edges of their pictures."""
        edges = np.tile(self.sizes[self.pictures], (1, 2)).astype(np.float64)
        return np.clip(self.objects.boxes, 0.0, edges)

    @cached_property
    def usable(self) -> npt.NDArray[np.bool_]:
        """(M,) whether an object can be trained on: no crowd, and inside the picture at least a pixel wide and high."""
        sides = self.clipped[:, 2:] - self.clipped[:, :2]
        return ~self.objects.crowd & (sides >= SMALLEST_SIDE).all(axis=1)

    def counts(self) -> tuple[int, ...]:
        """Number of usable objects of each class."""
        return tuple(np.bincount(self.objects.labels[self.usable], minlength=len(self.class_names)).tolist())

    def places(self, picture: int) -> npt.NDArray[np.int64]:
        """Where the usable objects of a picture stand among all objects."""
        there = self.objects.of(picture)
        return np.flatnonzero(self.usable[there]) + there.start

    def mask(self, place: int) -> npt.NDArray[np.uint8]:
        """(H, W) of 0 and 1: the outline of the object at `place`, at its picture's size."""
        width, height = self.sizes[self.pictures[place]].tolist()
        assert self.objects.outlines is not None
        decoded: npt.NDArray[np.uint8] = run_lengths.decode({"size": [height, width], "counts": self.objects.outlines[place]})
        return decoded

    def ground_truth(self) -> dict[str, Any]:
        """All annotations in COCO's form, crowds and degenerate boxes too: what scoring compares results with."""
        return {
            "images": [
                {"id": number, "file_name": self.name(index), "width": int(width), "height": int(height)}
                for index, (number, (width, height)) in enumerate(zip(self.picture_ids, self.sizes, strict=True))
            ],
            "categories": [{"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names, strict=True)],
            "annotations": [self._annotation(place) for place in range(len(self.objects.labels))],
        }

    def _annotation(self, place: int) -> dict[str, Any]:
        left, top, right, bottom = self.objects.boxes[place].tolist()
        picture = int(self.pictures[place])
        annotation = {
            "id": place + 1,
            "image_id": self.picture_ids[picture],
            "category_id": self.category_ids[int(self.objects.labels[place])],
            "bbox": [left, top, right - left, bottom - top],
            "area": float(self.objects.area[place]),
            "iscrowd": int(self.objects.crowd[place]),
        }
        if self.objects.outlines is not None and (counts := self.objects.outlines[place]) is not None:
            width, height = self.sizes[picture].tolist()
            annotation["segmentation"] = {"size": [height, width], "counts": counts.decode()}
        return annotation
