"""Masks of objects as run lengths, made from polygons only when they are asked for: a million of them open in seconds.

Run lengths are COCO's: pixels column by column, runs of 0 and 1 in turn, beginning with 0; compressed into text as in pycocotools.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import overload

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

FURTHEST = 1.0  # how far a polygon may reach outside its picture, in widths and heights


@dataclass(frozen=True, eq=False)
class Outlines(Sequence[bytes | None]):
    """The masks of M objects: item i as compressed run lengths at `sizes[i]`, None where object i has none.

    Args:
        sizes: (M, 2) width and height of each object's picture.
        numbers: x, y, x, y, ... of all polygons, in pixels.
        corners: (P + 1,) polygon p is `numbers[corners[p]:corners[p + 1]]`.
        polygons: (M + 1,) object i has the polygons from `polygons[i]` to `polygons[i + 1]`.
        runs: run lengths of the objects that came as such.
    """

    sizes: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.float64]
    corners: npt.NDArray[np.int64]
    polygons: npt.NDArray[np.int64]
    runs: dict[int, bytes]

    @classmethod
    def of(cls, sizes: npt.NDArray[np.int64], polygons: Sequence[Sequence[Sequence[float]]], runs: dict[int, bytes]) -> "Outlines":
        """From the polygons of each object; `TypeError` or `ValueError` where they are not numbers."""
        flat = list(chain.from_iterable(polygons))
        numbers = np.fromiter(chain.from_iterable(flat), np.float64)
        return cls(sizes, numbers, starts_of(map(len, flat)), starts_of(map(len, polygons)), runs)

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> bytes | None: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[bytes | None, ...]: ...
    def __getitem__(self, index: int | slice) -> bytes | tuple[bytes | None, ...] | None:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        index = range(len(self))[index]
        if index in self.runs:
            return self.runs[index]
        width, height = self.sizes[index].tolist()
        found = self._polygons(index)
        return encoded_polygons(found, width, height) if found else None

    def _polygons(self, index: int) -> list[list[float]]:
        return [
            self.numbers[self.corners[place] : self.corners[place + 1]].tolist()
            for place in range(self.polygons[index], self.polygons[index + 1])
        ]

    def given(self) -> npt.NDArray[np.bool_]:
        """(M,) which objects have a mask."""
        has = np.diff(self.polygons) > 0
        has[list(self.runs)] = True
        return has

    def outside(self) -> npt.NDArray[np.int64]:
        """The objects with a polygon that reaches further outside its picture than that is large: it cannot be meant."""
        owner = np.repeat(np.arange(len(self)), np.diff(self.polygons))  # of polygons
        sides = np.repeat(self.sizes[owner], np.diff(self.corners) // 2, axis=0)
        points = self.numbers.reshape(-1, 2)
        wrong = ~((points >= -FURTHEST * sides) & (points <= (1 + FURTHEST) * sides)).all(axis=1)
        return np.unique(np.repeat(owner, np.diff(self.corners) // 2)[wrong])

    def take(self, places: npt.NDArray[np.int64]) -> "Outlines":
        """The masks of some objects."""
        kept = {int(place): new for new, place in enumerate(places)}
        runs = {kept[place]: run for place, run in self.runs.items() if place in kept}
        counts = np.diff(self.polygons)[places]
        chosen = range_places(self.polygons[:-1][places], counts)
        lengths = np.diff(self.corners)[chosen]
        numbers = self.numbers[range_places(self.corners[:-1][chosen], lengths)]
        return Outlines(self.sizes[places], numbers, starts_of(lengths), starts_of(counts), runs)


def encoded_polygons(polygons: Sequence[Sequence[float]], width: int, height: int) -> bytes:
    """What lies inside any of the polygons (three points or more each), as compressed run lengths."""
    parts = run_lengths.frPyObjects([list(polygon) for polygon in polygons], height, width)
    counts: bytes = (parts[0] if len(parts) == 1 else run_lengths.merge(parts))["counts"]
    return counts


def encoded_runs(counts: Sequence[int] | str, width: int, height: int) -> bytes | None:
    """Run lengths as they stand in annotations, numbers or compressed text, as compressed ones; None where they do not fill the picture.

    Text is looked through before it reaches pycocotools, which trusts it.
    """
    if isinstance(counts, str):
        text = counts.encode("ascii", errors="replace")
        return text if _fills(_decompressed(text), width * height) else None
    try:
        numbers = np.array(counts)
    except (ValueError, OverflowError):
        return None
    if numbers.dtype.kind != "i" or numbers.ndim != 1 or numbers.max(initial=0) > width * height or not _fills(numbers, width * height):
        return None
    encoded: bytes = run_lengths.frPyObjects({"size": [height, width], "counts": list(counts)}, height, width)["counts"]
    return encoded


def mask_areas(outlines: Sequence[bytes | None], places: Iterable[int], sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Pixels of the masks at `places`, all of which exist; `sizes` (M, 2) are width and height by object."""
    encoded = [{"size": sizes[place][::-1].tolist(), "counts": outlines[place]} for place in places]
    return np.asarray(run_lengths.area(encoded), dtype=np.float64) if encoded else np.zeros(0)


def _decompressed(text: bytes) -> npt.NDArray[np.int64]:
    """The runs in compressed text: 5 bits per letter (from "0"), lowest first, 0x20 where more follow, sign in 0x10; from the fourth run
    on the difference to the run before the last. Empty where the text ends within a run or holds other letters.
    """
    letters = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(letters & 0x20 == 0)
    if not len(letters) or letters.min() < 0 or letters.max() > 63 or not len(ends) or ends[-1] != len(letters) - 1:
        return np.zeros(0, np.int64)
    begins = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - begins + 1
    if lengths.max() > 7:  # more than 32 bits
        return np.zeros(0, np.int64)
    shifts = 5 * (np.arange(len(letters)) - np.repeat(begins, lengths))
    runs = np.add.reduceat((letters & 0x1F) << shifts, begins)
    runs -= np.where(letters[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    for parity in (1, 2):
        runs[parity::2] = np.cumsum(runs[parity::2])
    return runs


def _fills(runs: npt.NDArray[np.int64], pixels: int) -> bool:
    return len(runs) > 0 and bool((runs >= 0).all()) and int(runs.sum()) == pixels


def starts_of(lengths: Iterable[int]) -> npt.NDArray[np.int64]:
    """Where N stretches of these lengths begin when laid one after the other, and where the last ends: (N + 1,)."""
    counted = np.fromiter(lengths, np.int64)
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(counted)))


def range_places(begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """begins[0], begins[0] + 1, ... (`lengths[0]` of them), begins[1], ..."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(begins - before, lengths) + np.arange(int(lengths.sum()))
