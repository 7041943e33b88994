"""The entries of one COCO json file, each looked at: what is wrong is counted and named, with the file."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from foveate.data.objects import Objects
from foveate.data.outlines import Outlines, encoded_runs, mask_areas, starts_of
from foveate.data.pictures import shortened
from foveate.errors import UserError

Entry = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """The three lists of a COCO json."""

    path: Path
    images: list[Entry]
    categories: list[Entry]
    annotations: list[Entry]

    @classmethod
    def read(cls, path: Path) -> "CocoFile":
        """`UserError` where the file is no json or lacks a list."""
        try:
            content = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}), expected COCO annotations there: check the path") from None
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path}: broken json ({reason}), expected COCO annotations: export or copy the file anew") from None
        if not isinstance(content, dict):
            raise UserError(f"{path}: found a json {type(content).__name__}, expected COCO's object of images, categories and annotations")
        return cls(path, *(_entries(path, content, key) for key in ("images", "categories", "annotations")))

    def refuse(self, wrong: Sequence[object], found: str, expected: str) -> None:
        """`UserError` with the number of wrong entries and the first of them, where there are any."""
        if wrong:
            named = shortened([str(entry)[:80] for entry in wrong], 3)
            raise UserError(f"{self.path}: {found}: {len(wrong)} ({named}), expected {expected}: mend the file")


@dataclass(frozen=True)
class ListedPictures:
    """The pictures of a file in its order; `sizes` (N, 2) are width and height, 0 where they are not given."""

    ids: tuple[int, ...]
    file_names: tuple[str, ...]
    sizes: npt.NDArray[np.int64]


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _entries(path: Path, content: Entry, key: str) -> list[Entry]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        found = f"found no '{key}'" if entries is None else f"found '{key}' that is no list of objects"
        raise UserError(f"{path}: {found}, expected COCO's lists of images, categories and annotations: is this another json?")
    return entries


def _ids(file: CocoFile, entries: Sequence[Entry], key: str) -> tuple[int, ...]:
    """Their ids: whole numbers, none twice."""
    file.refuse([entry.get("id") for entry in entries if type(entry.get("id")) is not int], f"{key} with such ids", "whole numbers")
    ids = tuple(entry["id"] for entry in entries)
    file.refuse(_repeated(ids), f"ids that several {key} have", "each once")
    return ids


def _repeated(values: Sequence[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


def read_pictures(file: CocoFile) -> ListedPictures:
    """`UserError` for ids or files that stand twice, and for sizes that are none."""
    ids = _ids(file, file.images, "images")
    names = [entry.get("file_name") for entry in file.images]
    file.refuse(
        [number for number, name in zip(ids, names, strict=True) if not (isinstance(name, str) and name)], "images without file_name", "one"
    )
    file.refuse(_repeated(names), "pictures listed several times", "each once")
    sizes = [(entry.get("width") or 0, entry.get("height") or 0) for entry in file.images]
    wrong = [
        f"{name}: {size}"
        for name, size in zip(names, sizes, strict=True)
        if not all(type(side) is int and 0 <= side < 1 << 20 for side in size)
    ]
    file.refuse(wrong, "images of such width and height", "whole numbers of pixels")
    return ListedPictures(ids, tuple(map(str, names)), np.array(sizes, dtype=np.int64).reshape(-1, 2))


def same_categories(files: Sequence[CocoFile]) -> None:
    """`UserError` where two files differ in their categories, by id and name."""
    first, *others = files
    known = _categories(first)
    for other in others:
        differing = set(known.items()) ^ set(_categories(other).items())
        if differing:
            named = shortened([f"{number} {name}" for number, name in sorted(differing)])
            raise UserError(
                f"{other.path}: found categories other than in {first.path.name}: {len(differing)} ({named}), "
                "expected the same ids and names in both: mend the files"
            )


def _categories(file: CocoFile) -> dict[int, str]:
    """Id -> name, in the order of the ids."""
    ids = _ids(file, file.categories, "categories")
    file.refuse(
        [number for number, entry in zip(ids, file.categories, strict=True) if not isinstance(entry.get("name"), str)],
        "categories without name",
        "one",
    )
    return dict(sorted((number, entry["name"]) for number, entry in zip(ids, file.categories, strict=True)))


def category_names(files: Sequence[CocoFile]) -> tuple[dict[int, str], list[str]]:
    """Id -> name of the categories that count as classes, in the order of their ids, and what was left out.

    A category without any object that all others name as their supercategory is a heading, as some tools export it, and no class.
    """
    names = _categories(files[0])
    used = {annotation.get("category_id") for file in files for annotation in file.annotations}
    notes = []
    for number, name in list(names.items()):
        parents = {entry.get("supercategory") for entry in files[0].categories if entry["id"] != number}
        if number not in used and parents == {name}:
            del names[number]
            notes.append(f"the category {number} {name} is a heading over all others and has no objects: left out")
    files[0].refuse(_repeated(list(names.values())), "names that several categories have", "each once")
    files[0].refuse([] if names else ["none at all"], "categories", "one or more")
    return names, notes


def read_objects(
    file: CocoFile, picture_ids: Sequence[int], sizes: npt.NDArray[np.int64], category_ids: Sequence[int]
) -> tuple[Objects, list[str]]:
    """The objects in the order of their pictures, and remarks on what was mended; `UserError` for what cannot be."""
    annotations = file.annotations
    pictures = _places(file, "image_id", "pictures", picture_ids)
    order = np.argsort(pictures, kind="stable")
    pictures, annotations = pictures[order], [annotations[place] for place in order]
    labels = _places(file, "category_id", "categories", category_ids)[order]
    flags = [annotation.get("iscrowd") or 0 for annotation in annotations]
    _refuse_values(file, annotations, [flag not in (0, 1) for flag in flags], "iscrowd", "0 or 1")
    outlines, remarks = _outlines(file, annotations, sizes[pictures])
    boxes = _boxes(file, annotations, outlines, sizes[pictures])
    area = _areas(file, annotations, boxes, outlines, sizes[pictures])
    starts = starts_of(np.bincount(pictures, minlength=len(picture_ids)))
    outlines_or_none = outlines if outlines.given().any() else None
    return Objects(starts, boxes, labels, np.array(flags, dtype=np.bool_), area, outlines_or_none), remarks


def _places(file: CocoFile, key: str, what: str, ids: Sequence[int]) -> npt.NDArray[np.int64]:
    """The place in `ids` of each annotation's entry `key`."""
    place = {number: index for index, number in enumerate(ids)}
    numbers = [annotation.get(key) for annotation in file.annotations]
    known = [isinstance(number, int) and number in place for number in numbers]
    _refuse_values(file, file.annotations, [not is_known for is_known in known], key, f"ids of the {len(ids)} listed {what}")
    return np.array([place[number] for number in numbers if number is not None], dtype=np.int64)


def _refuse_values(file: CocoFile, annotations: Sequence[Entry], wrong: Sequence[bool], key: str, expected: str) -> None:
    named = [f"id {entry.get('id')}: {entry.get(key)}" for entry, is_wrong in zip(annotations, wrong, strict=True) if is_wrong]
    file.refuse(named, f"annotations with such {key}", expected)


def _numbers(values: Sequence[Any], width: int) -> npt.NDArray[np.float64] | None:
    """(N, width) of the values where all are as many numbers, else None."""
    try:
        numbers = np.array(values)
    except (ValueError, OverflowError):
        return None
    return numbers.astype(np.float64).reshape(-1, width) if numbers.dtype.kind in "if" and numbers.size == len(values) * width else None


def _outlines(file: CocoFile, annotations: Sequence[Entry], sizes: npt.NDArray[np.int64]) -> tuple[Outlines, list[str]]:
    """Polygons as they are, run lengths compressed; polygons of fewer than three points are left out and counted."""
    polygons: list[list[list[float]]] = []
    runs: dict[int, bytes] = {}
    wrong = [False] * len(annotations)
    thin = 0
    for place, annotation in enumerate(annotations):
        outline = annotation.get("segmentation") or []
        polygons.append([])
        if isinstance(outline, dict):
            run = _run(outline, *sizes[place].tolist())
            if run is None:
                wrong[place] = True
            else:
                runs[place] = run
        elif isinstance(outline, list) and all(isinstance(polygon, list) and len(polygon) % 2 == 0 for polygon in outline):
            polygons[-1] = [polygon for polygon in outline if len(polygon) >= 6]
            thin += len(outline) - len(polygons[-1])
        else:
            wrong[place] = True
    expected = "polygons [[x, y, x, y, ...], ...] in pixels or run lengths of the picture's size"
    _refuse_values(file, annotations, wrong, "segmentation", expected)
    try:
        outlines = Outlines.of(sizes, polygons, runs)
    except (TypeError, ValueError):
        wrong = [any(_numbers(polygon, 1) is None for polygon in some) for some in polygons]
        _refuse_values(file, annotations, wrong, "segmentation", expected)
        raise
    outside = set(outlines.outside().tolist())
    _refuse_values(
        file, annotations, [place in outside for place in range(len(annotations))], "segmentation", f"{expected}, not far outside"
    )
    return outlines, [f"polygons of fewer than three points left out: {thin}"] if thin else []


def _run(outline: Entry, width: int, height: int) -> bytes | None:
    counts = outline.get("counts")
    if outline.get("size") != [height, width] or not isinstance(counts, str | list):
        return None
    return encoded_runs(counts, width, height)


def _boxes(file: CocoFile, annotations: Sequence[Entry], outlines: Outlines, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(M, 4) corners; where no box is given the smallest that holds the outline."""
    values = [annotation.get("bbox") for annotation in annotations]
    given = outlines.given()
    for place in [place for place, value in enumerate(values) if not value and given[place]]:
        values[place] = run_lengths.toBbox({"size": sizes[place][::-1].tolist(), "counts": outlines[place]}).tolist()
    boxes = _numbers(values, 4) if values else np.zeros((0, 4))
    if boxes is None:
        wrong = [not isinstance(value, list) or _numbers([value], 4) is None for value in values]
        _refuse_values(file, annotations, wrong, "bbox", "[left, top, width, height] in pixels")
        raise UserError(f"{file.path}: found bboxes that are no numbers, expected [left, top, width, height] in pixels: mend the file")
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _areas(
    file: CocoFile, annotations: Sequence[Entry], boxes: npt.NDArray[np.float64], outlines: Outlines, sizes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """(M,) as annotated; where that is missing that of the outline, else of the box."""
    values = [annotation.get("area") for annotation in annotations]
    missing = np.array([value is None for value in values], dtype=np.bool_)
    areas = _numbers([0 if value is None else value for value in values], 1) if values else np.zeros((0, 1))
    if areas is None:
        wrong = [value is not None and (isinstance(value, list) or _numbers([value], 1) is None) for value in values]
        _refuse_values(file, annotations, wrong, "area", "a number of square pixels")
        raise UserError(f"{file.path}: found areas that are no numbers, expected square pixels: mend the file")
    area = areas[:, 0]
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    area[missing] = sides[missing].prod(axis=1)
    with_mask = np.flatnonzero(missing & outlines.given())
    area[with_mask] = mask_areas(outlines, with_mask.tolist(), sizes)
    return area
