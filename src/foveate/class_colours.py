"""A colour for each class: alike on every picture, as unlike the others as can be, with letters on it that can be read."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FIRST_COLOUR = (0, 114, 178)
SRGB_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
CONES_TO_OKLAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)

Colour = tuple[int, int, int]
Array = npt.NDArray[Any]


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """(count, 3) RGB colours, each as unlike those before it as can be, so that a class keeps its colour however many follow it.

    None is near black, white or grey.
    """
    return _palette(count).copy()


def readable_on(colour: Sequence[int]) -> Colour:
    """Black or white, whichever stands out more from `colour`: never less than 4.5 to 1 in the measure of WCAG 2."""
    return BLACK if _light(np.asarray(colour)) @ (0.2126, 0.7152, 0.0722) > 0.179 else WHITE


@lru_cache(maxsize=8)
def _palette(count: int) -> npt.NDArray[np.uint8]:
    levels = np.linspace(0, 255, 16)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    places = _oklab(candidates)
    vivid = (np.hypot(places[:, 1], places[:, 2]) > 0.07) & (places[:, 0] > 0.35) & (places[:, 0] < 0.93)
    candidates, places = candidates[vivid], places[vivid]
    chosen = [FIRST_COLOUR]
    nearest = np.full(len(places), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, np.linalg.norm(places - _oklab(np.array(chosen[-1])), axis=1))
        red, green, blue = candidates[nearest.argmax()].astype(int).tolist()
        chosen.append((red, green, blue))
    return np.array(chosen[:count], dtype=np.uint8).reshape(count, 3)


def _oklab(colours: Array) -> Array:
    """(..., 3) sRGB 0..255 to a space in which distance is difference as seen.

    Source: B. Ottosson, "A perceptual color space for image processing", 2020.
    """
    return np.cbrt(_light(colours) @ np.array(SRGB_TO_CONES).T) @ np.array(CONES_TO_OKLAB).T


def _light(colours: Array) -> Array:
    """sRGB 0..255 to amounts of light 0..1."""
    values = colours / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
