"""How large pictures are, as stored and as a model sees them, without decoding them."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from foveate.card import WholePicture
from foveate.data.objects import ObjectSet
from foveate.data.pictures import StoredPictures
from foveate.data.reading import open_picture, upright_size
from foveate.errors import UserError

SAMPLE = 100

Place = TypeVar("Place")


def stored_sizes(pictures: StoredPictures) -> npt.NDArray[np.int64]:
    """(N, 2) width and height of each picture: as annotated, or as its file's header says."""
    return pictures.sizes if isinstance(pictures, ObjectSet) else _read_sizes(pictures.open, range(len(pictures)))


def sizes_of(files: Sequence[Path]) -> npt.NDArray[np.int64]:
    """(N, 2) width and height of pictures as they are read, upright; `UserError` naming the first of those that cannot be opened."""
    return _read_sizes(open_picture, files)


def input_sizes(pictures: StoredPictures, recipe: WholePicture) -> npt.NDArray[np.int64]:
    """(N, 2) width and height of each picture after `recipe`."""
    return np.array([recipe.size(width, height) for width, height in stored_sizes(pictures).tolist()], dtype=np.int64).reshape(-1, 2)


def wide_or_tall(pictures: StoredPictures) -> npt.NDArray[np.int64]:
    """(N,) 1 for pictures that are at least as wide as high, else 0: batches of one kind need little padding."""
    sizes = stored_sizes(pictures)
    return (sizes[:, 0] >= sizes[:, 1]).astype(np.int64)


def median_side(pictures: StoredPictures) -> int:
    """The median shorter side in pixels over up to `SAMPLE` pictures spread over the set."""
    places = range(0, len(pictures), -(-len(pictures) // SAMPLE))
    return int(median(_read_sizes(pictures.open, places).min(axis=1).tolist()))


def _read_sizes(opened: Callable[[Place], Image.Image], places: Sequence[Place]) -> npt.NDArray[np.int64]:
    """(N, 2) by the headers of the files, read in threads; `UserError` naming the first of those that cannot be opened."""

    def size(place: Place) -> tuple[int, int] | str:
        try:
            with opened(place) as image:
                return upright_size(image)
        except UserError as error:
            return str(error)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        found = list(threads.map(size, places))
    problems = [value for value in found if isinstance(value, str)]
    if problems:
        more = f" (and {len(problems) - 1} more pictures like it)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}")
    return np.array(found, dtype=np.int64).reshape(-1, 2)
