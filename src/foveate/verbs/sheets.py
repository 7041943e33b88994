"""A contact sheet of a data set with what is known of its pictures drawn in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from foveate.data.masks import IGNORED, MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import PictureSet, Splits
from foveate.data.reading import read_picture, read_thumbnail
from foveate.errors import UserError
from foveate.overlays import draw_classes, draw_objects
from foveate.plots.contact_sheet import contact_sheet

MOST_CLASSIFIED = 48
MOST_ANNOTATED = 12
LOOKED_AT = 200  # masks are large, some say enough
SIDE = 448
COLUMNS = 3


def spread(length: int, most: int) -> list[int]:
    """At most `most` places, evenly spread from the first to the last of `length`."""
    return sorted({round(place) for place in np.linspace(0, length - 1, min(length, most))})


def draw_sheet(splits: Splits[Any], sheet: Path) -> None:
    """Some pictures of the first split, so that as many classes as possible are shown; broken ones are left out, the report names them."""
    pictures = next(iter(splits.present().values()))
    if isinstance(pictures, PictureSet):
        _draw_labelled(splits.source, pictures, sheet)
    else:
        _draw_annotated(splits.source, pictures, sheet)


def _draw_labelled(source: str, pictures: PictureSet, sheet: Path) -> None:
    """The first whole pictures of each class, as many of each as fit."""
    names = pictures.class_names
    each = max(1, MOST_CLASSIFIED // max(1, len(names)))
    chosen: dict[int, list[Image.Image]] = {}
    for index, label in enumerate(pictures.labels):
        shown = chosen.setdefault(label, []) if label in chosen or len(chosen) < MOST_CLASSIFIED else None
        if shown is not None and len(shown) < each and (picture := _whole(pictures, index)) is not None:
            shown.append(picture)
    labelled = [(picture, names[label]) for label, shown in sorted(chosen.items()) for picture in shown]
    if labelled:
        title = f"{source}, {pictures.split}: {len(chosen)} of {len(names)} classes"
        contact_sheet([picture for picture, _ in labelled], [name for _, name in labelled], None, sheet, title=title)


def _whole(pictures: PictureSet, index: int) -> Image.Image | None:
    """The picture, small enough to keep many; None where it is broken."""
    try:
        with pictures.open(index) as image:
            return read_thumbnail(image)
    except UserError:
        return None


def _draw_annotated(source: str, pictures: ObjectSet | MaskSet, sheet: Path) -> None:
    """Pictures that together show many classes, with objects or classes drawn in; of those whose annotations do not fit, none."""
    classes = _classes_on(pictures)
    drawn: list[tuple[Image.Image, str]] = []
    shown: set[int] = set()
    for index in varied(classes):
        picture = with_objects(pictures, index) if isinstance(pictures, ObjectSet) else with_classes(pictures, index)
        if picture is not None:
            shown |= classes[index]
            drawn.append((picture, Path(pictures.name(index)).name))
        if len(drawn) == MOST_ANNOTATED:
            break
    if drawn:
        title = f"{source}, {pictures.split}: {len(shown)} of {len(pictures.class_names)} classes, as annotated"
        contact_sheet([picture for picture, _ in drawn], [name for _, name in drawn], None, sheet, columns=COLUMNS, side=SIDE, title=title)


def _classes_on(pictures: ObjectSet | MaskSet) -> dict[int, set[int]]:
    """The classes on each picture, of many masks only on some, evenly spread."""
    if isinstance(pictures, ObjectSet):
        return {index: set(pictures.objects.labels[pictures.objects.of(index)].tolist()) for index in range(len(pictures))}
    found: dict[int, set[int]] = {}
    for index in range(0, len(pictures), -(-len(pictures) // LOOKED_AT) or 1):
        try:
            found[index] = set(np.unique(pictures.mask(index)).tolist()) - {IGNORED}
        except UserError:
            found[index] = set()
    return found


def varied(classes: Mapping[int, set[int]]) -> list[int]:
    """All pictures, ordered so that the first ones bring the most classes that those before them lack, and the next are spread evenly."""
    left = dict(classes)
    seen: set[int] = set()
    order: list[int] = []
    while left and len(order) < MOST_ANNOTATED:
        best = max(left, key=lambda index: (len(left[index] - seen), -len(left[index])))
        if not left[best] - seen:
            break
        seen |= left.pop(best)
        order.append(best)
    rest = list(left)
    evenly = rest[:: max(1, len(rest) // MOST_ANNOTATED)]
    return [*order, *evenly, *(index for index in rest if index not in set(evenly))]


def with_objects(pictures: ObjectSet, index: int) -> Image.Image | None:
    """The picture with all its objects, crowds named so; None where it is broken or of another size than annotated."""
    picture = _of_size(pictures, index, (int(pictures.sizes[index][0]), int(pictures.sizes[index][1])))
    if picture is None:
        return None
    objects, names = pictures.objects, pictures.class_names
    there = range(*objects.of(index).indices(len(objects.labels)))
    labels = [int(objects.labels[place]) + len(names) * bool(objects.crowd[place]) for place in there]
    masks = None
    if objects.outlined[list(there)].any():
        blank = np.zeros((picture.height, picture.width), np.uint8)
        masks = [pictures.mask(place) if objects.outlined[place] else blank for place in there]
    all_names = [*names, *(f"{name} (crowd)" for name in names)]
    return draw_objects(picture, objects.boxes[objects.of(index)], labels, all_names, masks=masks)


def with_classes(pictures: MaskSet, index: int) -> Image.Image | None:
    """The picture with its classes; None where it or its mask is broken, or the sizes differ."""
    try:
        mask = pictures.mask(index)
    except UserError:
        return None
    picture = _of_size(pictures, index, (mask.shape[1], mask.shape[0]))
    return None if picture is None else draw_classes(picture, mask, pictures.class_names)


def _of_size(pictures: ObjectSet | MaskSet, index: int, size: tuple[int, int]) -> Image.Image | None:
    try:
        with pictures.open(index) as image:
            picture = read_picture(image, 3)
    except UserError:
        return None
    return picture if picture.size == size else None
