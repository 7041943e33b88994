"""Are masks sound? What would spoil a segmenter or its score, one line each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foveate.data.looking import Look
from foveate.data.masks import IGNORED, MaskSet
from foveate.data.object_check import lacking_classes, size_problems, turned_warning
from foveate.data.pictures import shortened


@dataclass(frozen=True)
class PixelStatistics:
    """Of one split: pixels of each class, and pixels without class."""

    pixels: tuple[int, ...]
    ignored: int

    def shares(self) -> tuple[float, ...]:
        """Of each class, and last of the pixels without class: the part of all pixels."""
        total = max(1, sum(self.pixels) + self.ignored)
        return tuple(count / total for count in (*self.pixels, self.ignored))


def class_pixels(pictures: MaskSet, looks: Sequence[Look]) -> PixelStatistics:
    """Over all masks that could be read."""
    masks = [look.mask for look in looks if look.mask is not None and not look.mask.problem]
    pixels = np.sum([mask.pixels for mask in masks], axis=0) if masks else np.zeros(len(pictures.class_names), np.int64)
    return PixelStatistics(tuple(pixels.tolist()), sum(mask.ignored for mask in masks))


def mask_problems(present: Mapping[str, MaskSet], looks: Mapping[str, Sequence[Look]]) -> list[str]:
    """Masks that are broken, hold values that are not declared, are of another size than their picture, or empty everywhere."""
    problems: list[str] = []
    for split, pictures in present.items():
        problems += [look.mask.problem for look in looks[split] if look.mask is not None and look.mask.problem]
        sizes = [look.size if look.mask is None or look.mask.problem else look.mask.size for look in looks[split]]
        problems += size_problems(pictures, looks[split], sizes, "mask")
        found = class_pixels(pictures, looks[split])
        if found.ignored and not any(found.pixels):
            values = ", ".join(map(str, pictures.ignored))
            problems.append(f"{split}: found masks of {values} alone, which mean no class, expected values of classes: mend classes.txt")
    return problems


def mask_warnings(present: Mapping[str, MaskSet], looks: Mapping[str, Sequence[Look]]) -> list[str]:
    """Masks without any class, classes that train lacks."""
    warnings: list[str] = []
    counts = {split: class_pixels(pictures, looks[split]) for split, pictures in present.items()}
    for split, pictures in present.items():
        blank = [
            pictures.name(index)
            for index, look in enumerate(looks[split])
            if look.mask is not None and not look.mask.problem and not look.mask.pixels.any()
        ]
        if blank:
            warnings.append(f"{split}: masks without any class: {len(blank)} ({shortened(blank, 3)}): nothing is learnt from them")
        warnings += turned_warning(pictures, looks[split], "masks")
    first = next(iter(present.values()))
    warnings += lacking_classes({split: found.pixels for split, found in counts.items()}, first, "pixels")
    shown = [any(found.pixels[label] for found in counts.values()) for label in range(len(first.class_names))]
    if IGNORED in first.ignored and sum(shown) <= 1 and any(found.ignored for found in counts.values()):
        warnings.append(f"masks hold one class and {IGNORED}, which means none: if {IGNORED} is a class, declare it: '{IGNORED} NAME'")
    return warnings
