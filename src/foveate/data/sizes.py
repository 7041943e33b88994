"""How large pictures are, as stored and as a model sees them, without decoding them."""

import os
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import numpy as np
import numpy.typing as npt

from foveate.card import WholePicture
from foveate.data.objects import ObjectSet
from foveate.data.pictures import StoredPictures
from foveate.data.reading import upright_size

SAMPLE = 100


def stored_sizes(pictures: StoredPictures) -> npt.NDArray[np.int64]:
    """(N, 2) width and height of each picture: as annotated, or as its file's header says."""
    if isinstance(pictures, ObjectSet):
        return pictures.sizes
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return np.array(list(threads.map(lambda index: _size(pictures, index), range(len(pictures)))), dtype=np.int64).reshape(-1, 2)


def input_sizes(pictures: StoredPictures, recipe: WholePicture) -> npt.NDArray[np.int64]:
    """(N, 2) width and height of each picture after `recipe`."""
    return np.array([recipe.size(width, height) for width, height in stored_sizes(pictures).tolist()], dtype=np.int64).reshape(-1, 2)


def wide_or_tall(pictures: StoredPictures) -> npt.NDArray[np.int64]:
    """(N,) 1 for pictures that are at least as wide as high, else 0: batches of one kind need little padding."""
    sizes = stored_sizes(pictures)
    return (sizes[:, 0] >= sizes[:, 1]).astype(np.int64)


def median_side(pictures: StoredPictures) -> int:
    """The median shorter side in pixels over up to `SAMPLE` pictures spread over the set."""
    return int(median(min(_size(pictures, index)) for index in range(0, len(pictures), -(-len(pictures) // SAMPLE))))


def _size(pictures: StoredPictures, index: int) -> tuple[int, int]:
    with pictures.open(index) as image:
        return upright_size(image)
