"""Pictures with objects on them: boxes, classes and outlines, in flat arrays that a million objects fit into."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from foveate.data.outlines import Outlines, mask_areas, range_places, starts_of
from foveate.data.pictures import StoredPictures, places_among, taken

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
    outlines: Sequence[bytes | None] | None = None

    @cached_property
    def outlined(self) -> npt.NDArray[np.bool_]:
        """(M,) which objects have an outline."""
        if isinstance(self.outlines, Outlines):
            return self.outlines.given()
        return np.array([outline is not None for outline in self.outlines or [None] * len(self.labels)], dtype=np.bool_)

    def take(self, pictures: npt.NDArray[np.int64]) -> "Objects":
        """The objects of some pictures, in these pictures' order."""
        counts = np.diff(self.starts)[pictures]
        places = range_places(self.starts[:-1][pictures], counts)
        outlines = self.outlines
        if isinstance(outlines, Outlines):
            outlines = outlines.take(places)
        elif outlines is not None:
            outlines = tuple(outlines[place] for place in places)
        return Objects(starts_of(counts), self.boxes[places], self.labels[places], self.crowd[places], self.area[places], outlines)

    def of(self, picture: int) -> slice:
        """The places of a picture's objects."""
        return slice(int(self.starts[picture]), int(self.starts[picture + 1]))


@dataclass(frozen=True)
class Annotated:
    """One object of a picture as a reader finds it: box (left, top, right, bottom) and polygons [x, y, x, y, ...] in pixels."""

    label: int
    box: tuple[float, float, float, float]
    crowd: bool = False
    polygons: tuple[tuple[float, ...], ...] = ()


def gathered(annotated: Sequence[Sequence[Annotated]], sizes: npt.NDArray[np.int64]) -> Objects:
    """The objects of each picture, (N, 2) `sizes` its width and height; an object's area is its outline's, else its box's."""
    found = [one for some in annotated for one in some]
    counts = np.array([len(some) for some in annotated], dtype=np.int64)
    boxes = np.array([one.box for one in found], dtype=np.float64).reshape(-1, 4)
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)
    outlines = Outlines.of(np.repeat(sizes, counts, axis=0), [one.polygons for one in found], {})
    places = np.flatnonzero(outlines.given())
    area[places] = mask_areas(outlines, places.tolist(), outlines.sizes)
    return Objects(
        starts_of(counts),
        boxes,
        np.array([one.label for one in found], dtype=np.int64),
        np.array([one.crowd for one in found], dtype=np.bool_),
        area,
        outlines if len(places) else None,
    )


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
        return self.objects.outlines is not None and bool(self.objects.outlined[self.usable].all())

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

    def take(self, pictures: Sequence[int], split: str) -> "ObjectSet":
        """Some of the pictures, as a set of another split."""
        chosen = np.asarray(pictures, dtype=np.int64)
        return replace(
            self,
            files=taken(self.files, pictures),
            split=split,
            picture_ids=tuple(self.picture_ids[index] for index in pictures),
            sizes=self.sizes[chosen],
            objects=self.objects.take(chosen),
        )

    def with_classes(self, class_names: Sequence[str]) -> "ObjectSet":
        """The same objects, labelled by the place of their class's name in `class_names`, a model's order.

        A class that the annotations do not know gets a category number that they do not use. `UserError` where a class that has objects
        here is not among the names.
        """
        counts = np.bincount(self.objects.labels, minlength=len(self.class_names))
        new = np.array(places_among(class_names, self.class_names, (counts > 0).tolist(), self.split), dtype=np.int64)
        number = dict(zip(self.class_names, self.category_ids, strict=True))
        free = itertools.count(max(self.category_ids, default=0) + 1)
        return replace(
            self,
            class_names=tuple(class_names),
            category_ids=tuple(number[name] if name in number else next(free) for name in class_names),
            objects=replace(self.objects, labels=new[self.objects.labels]),
        )

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
