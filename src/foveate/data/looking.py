"""Looking at stored pictures in threads: all of their data, decoded once."""

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

import numpy as np
import numpy.typing as npt

from foveate.data.masks import IGNORED, MaskSet
from foveate.data.pictures import StoredPictures
from foveate.data.reading import naming, open_picture, orientation_of, read_picture, upright_size
from foveate.errors import UserError

CHUNK = 64

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class MaskLook:
    """What a mask shows of itself: `size` (width, height), pixels of each class, pixels without class; `problem` where it is wrong."""

    size: tuple[int, int]
    pixels: npt.NDArray[np.int64]
    ignored: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What one picture shows of itself, `size` upright; `problem` is empty where it decodes to the end."""

    size: tuple[int, int]
    kind: str
    digest: bytes
    problem: str = ""
    orientation: int = 1
    mask: MaskLook | None = None


def look_at_all(present: Mapping[str, StoredPictures], progress: Progress | None) -> dict[str, list[Look]]:
    """Split -> a look at each picture. Pillow decodes outside the interpreter's lock, so threads share the work."""
    total = sum(len(pictures) for pictures in present.values())
    looks: dict[str, list[Look]] = {split: [] for split in present}
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for split, pictures in present.items():
            starts = range(0, len(pictures), CHUNK)
            for found in threads.map(_look_at_some, [pictures] * len(starts), starts):
                looks[split] += found
                done += len(found)
                if progress is not None:
                    progress(done, total)
    return looks


def _look_at_some(pictures: StoredPictures, start: int) -> list[Look]:
    return [_look(pictures, index) for index in range(start, min(start + CHUNK, len(pictures)))]


def _look(pictures: StoredPictures, index: int) -> Look:
    """Reads the file once, for its hash and its pixels; JPEG files are decoded small, for which all their data must be read too."""
    try:
        if pictures.in_memory:
            image = pictures.open(index)
            content = image.tobytes()
        else:
            with naming(pictures.name(index)):
                content = pictures.files[index].read_bytes()
            image = open_picture(BytesIO(content), pictures.name(index))
        size, kind, orientation = upright_size(image), f"{image.format or 'array'} {image.mode}", orientation_of(image)
        read_picture(image, 3, shrink=8)
    except UserError as error:
        return Look((0, 0), "", b"", str(error))
    mask = _look_at_mask(pictures, index) if isinstance(pictures, MaskSet) else None
    return Look(size, kind, blake2b(content, digest_size=16).digest(), orientation=orientation, mask=mask)


def _look_at_mask(pictures: MaskSet, index: int) -> MaskLook:
    """Decodes the mask of a picture and counts its pixels."""
    count = len(pictures.class_names)
    try:
        mask = pictures.mask(index)
    except UserError as error:
        return MaskLook((0, 0), np.zeros(count, np.int64), 0, str(error))
    pixels = np.bincount(mask.ravel(), minlength=IGNORED + 1)
    return MaskLook((mask.shape[1], mask.shape[0]), pixels[:count], int(pixels[IGNORED]))
