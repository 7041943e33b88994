"""Are boxes, classes and sizes of objects sound? What would spoil a detector or its score, one line each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foveate.data.looking import Look
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import StoredPictures, shortened

SMALL, LARGE = 32.0**2, 96.0**2  # COCO's bounds of area
STICKING_OUT = 1.0  # pixels that a rounded box may reach outside its picture
NAMED = 3


@dataclass(frozen=True)
class ObjectStatistics:
    """Of one split: numbers of pictures, of those without objects, of objects that can be trained on, of crowds, of objects without
    outline, the most objects on a picture, and how many are small (area below 32^2), medium and large (from 96^2).
    """

    pictures: int
    empty: int
    objects: int
    crowds: int
    without_outline: int
    most: int
    small: int
    medium: int
    large: int

    def __str__(self) -> str:
        shares = ", ".join(f"{getattr(self, size) / max(1, self.objects):.0%} {size}" for size in ("small", "medium", "large"))
        outlined = "all outlined" if not self.without_outline else "boxes only" if self.without_outline == self.objects else "some outlined"
        return (
            f"{self.objects:,} objects on {self.pictures:,} pictures (on average {self.objects / max(1, self.pictures):.1f}, at most "
            f"{self.most}, {self.empty} without), {shares}, {self.crowds} crowds, {outlined}"
        )


def object_statistics(pictures: ObjectSet) -> ObjectStatistics:
    usable, area = pictures.usable, pictures.objects.area[pictures.usable]
    each = np.bincount(pictures.pictures[usable], minlength=len(pictures))
    small, large = int((area < SMALL).sum()), int((area >= LARGE).sum())
    return ObjectStatistics(
        pictures=len(pictures),
        empty=int((each == 0).sum()),
        objects=int(usable.sum()),
        crowds=int(pictures.objects.crowd.sum()),
        without_outline=int((~pictures.objects.outlined[usable]).sum()),
        most=int(each.max(initial=0)),
        small=small,
        medium=len(area) - small - large,
        large=large,
    )


def set_problems(present: Mapping[str, ObjectSet | MaskSet]) -> list[str]:
    """Splits that differ in their classes, or hold nothing to train on or only one class of pixels."""
    problems = []
    classes = {split: (pictures.class_names, getattr(pictures, "category_ids", ())) for split, pictures in present.items()}
    first = next(iter(classes))
    for split, found in classes.items():
        if found != classes[first]:
            differing = sorted(set(found[0]) ^ set(classes[first][0])) or ["their ids or order"]
            problems.append(f"{split}: found classes other than in {first} ({shortened(differing)}), expected the same in every split")
    for split, pictures in present.items():
        if len(pictures) == 0:
            problems.append(f"{split}: found no pictures, expected some: fill or remove its folders")
        elif isinstance(pictures, MaskSet) and split == "train" and len(pictures.class_names) == 1:
            only = pictures.class_names[0]
            problems.append(f"found one class only ({only}), expected two or more: declare what lies around it too, such as '0 background'")
        elif isinstance(pictures, ObjectSet) and not pictures.usable.any():
            found_objects = f"{len(pictures.usable)} objects, none of them usable" if len(pictures.usable) else "no objects"
            problems.append(f"{split}: found {found_objects} on {len(pictures)} pictures, expected some: check the annotations")
    return problems


def size_problems(pictures: StoredPictures, looks: Sequence[Look], annotated: Sequence[tuple[int, int]], what: str) -> Iterator[str]:
    """Pictures that are read at another size, upright, than their boxes or masks were made for."""
    for index, (look, size) in enumerate(zip(looks, annotated, strict=True)):
        if look.problem or look.size == size:
            continue
        expected = f"{look.size[0]} x {look.size[1]} as the picture is"
        if look.orientation >= 5 and look.size == size[::-1]:
            expected = (
                f"{expected} when upright (EXIF orientation {look.orientation}): save the picture upright without EXIF, or turn the {what}"
            )
        yield f"{pictures.name(index)}: found {what} for {size[0]} x {size[1]} pixels, expected {expected}"


def turned_warning(pictures: StoredPictures, looks: Sequence[Look], what: str) -> Iterator[str]:
    """Pictures that are turned over or mirrored while read: their size does not tell whether the annotations are too."""
    turned = [pictures.name(index) for index, look in enumerate(looks) if look.orientation in (2, 3, 4)]
    if turned:
        yield (
            f"{pictures.split}: {len(turned)} pictures are mirrored or turned by 180 degrees by their EXIF orientation "
            f"({shortened(turned, NAMED)}): look at the {what} with --sheet"
        )


def object_problems(present: Mapping[str, ObjectSet], looks: Mapping[str, Sequence[Look]]) -> list[str]:
    """Annotated sizes that are not those of the pictures."""
    problems: list[str] = []
    for split, pictures in present.items():
        sizes = [(int(width), int(height)) for width, height in pictures.sizes]
        problems += size_problems(pictures, looks[split], sizes, "boxes")
    return problems


def object_warnings(present: Mapping[str, ObjectSet], looks: Mapping[str, Sequence[Look]]) -> list[str]:
    """Boxes that are left out of training or cut, outlines that some objects lack, classes that train lacks."""
    warnings: list[str] = []
    for split, pictures in present.items():
        objects = pictures.objects
        edges = np.tile(pictures.sizes[pictures.pictures], (1, 2))
        out = ~objects.crowd & ((objects.boxes < -STICKING_OUT) | (objects.boxes > edges + STICKING_OUT)).any(axis=1)
        bare = pictures.usable & ~objects.outlined
        kinds = (
            (~pictures.usable & ~objects.crowd, "boxes less than a pixel wide or high inside their picture", "never trained on"),
            (out, "boxes that stick out of their picture by more than a pixel", "cut off at its edges in training"),
            (objects.crowd, "crowds or difficult objects", "never trained on, and in scoring neither missed nor wrong"),
            (
                bare if objects.outlines is not None else np.zeros_like(bare),
                "objects without outline among others with one",
                "no masks can be trained",
            ),
        )
        warnings += [f"{split}: {what}: {int(which.sum())} ({_where(pictures, which)}): {so}" for which, what, so in kinds if which.any()]
        warnings += turned_warning(pictures, looks[split], "boxes")
    warnings += lacking_classes({split: pictures.counts() for split, pictures in present.items()}, next(iter(present.values())), "objects")
    return warnings


def _where(pictures: ObjectSet, which: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> str:
    return shortened(list(dict.fromkeys(pictures.name(int(place)) for place in pictures.pictures[which])), NAMED)


def lacking_classes(counts: Mapping[str, Sequence[int]], pictures: ObjectSet | MaskSet, what: str) -> list[str]:
    """Classes that no split has, and those that train lacks but others have."""
    names = pictures.class_names
    shown = [any(count[label] for count in counts.values()) for label in range(len(names))]
    warnings = []
    nowhere = [name for name, is_shown in zip(names, shown, strict=True) if not is_shown]
    if nowhere:
        warnings.append(f"classes without {what}: {len(nowhere)} of {len(names)} ({shortened(nowhere)}): they cannot be learnt or scored")
    untaught = [name for label, name in enumerate(names) if shown[label] and not counts.get("train", shown)[label]]
    if untaught:
        warnings.append(
            f"train: no {what} of {len(untaught)} classes that other splits have ({shortened(untaught)}): they cannot be learnt"
        )
    return warnings
