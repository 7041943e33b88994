"""Pictures with a class for every pixel, stored as mask files of numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from foveate.data.pictures import StoredPictures, places_among, shortened, taken
from foveate.data.reading import naming, open_picture
from foveate.errors import UserError

IGNORED = 255
UNKNOWN = 254
ABSENT = -1  # the value of a class that the masks do not declare


@dataclass(frozen=True, eq=False)
class MaskSet(StoredPictures):
    """Picture i is `files[i]`, and the pixels of `masks[i]` are numbers: `values[k]` for class k, one of `ignored` for none.

    Masks are grey or palette pictures of 8 bits as large as their picture; 255 means none unless it is declared a class.
    """

    files: Sequence[Path]
    class_names: tuple[str, ...]
    split: str
    masks: Sequence[Path]
    values: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORED,)

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """(H, W) places in `class_names`, 255 where no class is given.

        `UserError` naming the file where it is broken, no picture of single numbers, or holds numbers that are not declared.
        """
        file = self.masks[index]
        with open_picture(file) as image:
            if image.mode not in ("L", "P", "1"):
                raise UserError(
                    f"{file}: found a mask of pixel type {image.mode}, expected numbers of 8 bits (grey or palette): convert it"
                )
            with naming(str(file)):
                numbers = np.array(image)
        classes = self._table()[numbers.astype(np.uint8)]
        if (classes == UNKNOWN).any():
            wrong = [str(value) for value in np.unique(numbers[classes == UNKNOWN])]
            raise UserError(
                f"{file}: found the mask values {shortened(wrong)}, expected {self.declared()}; declare them in the classes file, "
                "as a class or as 'ignore', or mend the mask"
            )
        return classes

    def mask_size(self, index: int) -> tuple[int, int]:
        """(width, height) of a mask, by its file's header."""
        with open_picture(self.masks[index]) as image:
            return image.size

    def take(self, pictures: Sequence[int], split: str) -> "MaskSet":
        """Some of the pictures, as a set of another split."""
        return replace(self, files=taken(self.files, pictures), masks=taken(self.masks, pictures), split=split)

    def with_classes(self, class_names: Sequence[str]) -> "MaskSet":
        """The same masks, read as places in `class_names`, a model's order; `UserError` where a declared class is not among them.

        A class that is not declared here has no value: no pixel is of it.
        """
        places_among(class_names, self.class_names, [True] * len(self.class_names), self.split)
        value = dict(zip(self.class_names, self.values, strict=True))
        values = tuple(value.get(name, ABSENT) for name in class_names)
        return replace(self, class_names=tuple(class_names), values=values)

    def declared(self) -> str:
        """The values that masks may have, in words."""
        known = [f"{value} ({name})" for value, name in zip(self.values, self.class_names, strict=True) if value != ABSENT]
        return f"{shortened(known)}, or {', '.join(map(str, self.ignored))} to ignore"

    def _table(self) -> npt.NDArray[np.uint8]:
        table = np.full(256, UNKNOWN, dtype=np.uint8)
        table[list(self.ignored)] = IGNORED
        for place, value in enumerate(self.values):
            if value != ABSENT:
                table[value] = place
        return table
