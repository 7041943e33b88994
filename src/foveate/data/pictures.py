"""Sets of pictures: where each one lies, what it shows, how to open it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveate.data.reading import open_picture
from foveate.errors import UserError


@dataclass(frozen=True)
class Paths(Sequence[Path]):
    """Files below one folder, kept as text: a million `Path` objects would take most of a gigabyte."""

    root: Path
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> "Paths": ...
    def __getitem__(self, index: int | slice) -> "Path | Paths":
        if isinstance(index, slice):
            return Paths(self.root, self.names[index])
        return self.root / self.names[index]


def taken(files: Sequence[Path], places: Sequence[int]) -> Sequence[Path]:
    """Some of the files, kept as text where they are."""
    if isinstance(files, Paths):
        return Paths(files.root, tuple(files.names[place] for place in places))
    return [files[place] for place in places]


class StoredPictures:
    """What every set of pictures has, whatever is known of them: files, names of classes, and "train", "val" or "test"."""

    files: Sequence[Path]
    class_names: tuple[str, ...]
    split: str

    in_memory: ClassVar[bool] = False

    def __len__(self) -> int:
        return len(self.files)

    def open(self, index: int) -> Image.Image:
        """The picture as stored, not yet decoded (see `reading.read_picture`); `UserError` naming the file when that fails."""
        return open_picture(self.files[index])

    def name(self, index: int) -> str:
        """What reports call picture `index`: its path, below the set's folder where there is one."""
        return self.files.names[index] if isinstance(self.files, Paths) else str(self.files[index])


@dataclass(frozen=True)
class PictureSet(StoredPictures):
    """Picture i is `files[i]` and shows `class_names[labels[i]]`; `split` is "train", "val" or "test"."""

    files: Sequence[Path]
    labels: tuple[int, ...]
    class_names: tuple[str, ...]
    split: str

    def __len__(self) -> int:
        return len(self.labels)

    def counts(self) -> tuple[int, ...]:
        """Number of pictures of each class."""
        return tuple(np.bincount(np.asarray(self.labels, dtype=np.int64), minlength=len(self.class_names)).tolist())

    def with_classes(self, class_names: Sequence[str]) -> "PictureSet":
        """The same pictures, labelled by the place of their class's name in `class_names`, a model's order.

        `UserError` where a class that has pictures here is not among them.
        """
        new = places_among(class_names, self.class_names, [count > 0 for count in self.counts()], self.split)
        return replace(self, labels=tuple(new[label] for label in self.labels), class_names=tuple(class_names))


@dataclass(frozen=True, eq=False)
class ArrayPictures(PictureSet):
    """Pictures held in memory: `pixels` is (N, H, W) grey or (N, H, W, 3) RGB uint8, `files` is empty."""

    pixels: npt.NDArray[np.uint8]

    in_memory: ClassVar[bool] = True

    def open(self, index: int) -> Image.Image:
        return Image.fromarray(self.pixels[index])

    def name(self, index: int) -> str:
        return f"{self.split}[{index}]"


Pictures_co = TypeVar("Pictures_co", bound=StoredPictures, covariant=True)


@dataclass(frozen=True)
class Splits(Generic[Pictures_co]):
    """What one source holds. `notes` say in words what was recognised and what was left alone."""

    train: Pictures_co | None
    val: Pictures_co | None
    test: Pictures_co | None
    source: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def present(self) -> Mapping[str, Pictures_co]:
        """The splits that exist, by name, in the order train, val, test."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: pictures for name, pictures in named.items() if pictures is not None}


PictureSplits = Splits[PictureSet]


def places_among(class_names: Sequence[str], own: Sequence[str], used: Sequence[bool], split: str) -> list[int]:
    """The place of each of the `own` names among `class_names`, a model's; -1 for one that is not there.

    `UserError` where such a one is `used`.
    """
    place = {name: label for label, name in enumerate(class_names)}
    foreign = [name for name, needed in zip(own, used, strict=True) if needed and name not in place]
    if foreign:
        known = f"{len(class_names)} classes ({shortened(class_names)})"
        raise UserError(f"{split}: found classes {shortened(foreign)}, expected only the model's {known}: rename or remove them")
    return [place.get(name, -1) for name in own]


def shortened(names: Sequence[str], most: int = 5) -> str:
    """At most `most` of the names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
