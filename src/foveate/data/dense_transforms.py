"""Whole pictures and what is known of their places, to the input of detection and segmentation: one exact way, and random ways.

Nothing is ever squeezed to a square. Random numbers come from Python's global generator, which the loader seeds per picture.
"""

import random
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from foveate.card import WholePicture
from foveate.data.augmenting import jittered
from foveate.data.masks import IGNORED, MaskSet
from foveate.data.objects import SMALLEST_SIDE, ObjectSet
from foveate.data.pixels import normalised
from foveate.data.reading import read_picture, upright_size
from foveate.data.transforms import Example, resample
from foveate.errors import UserError


@dataclass(frozen=True)
class DenseAugmentation:
    """What training does to a whole picture at random; the defaults change nothing.

    Args:
        scale: smallest and largest factor on the size that evaluation resizes to, drawn uniformly.
        crop: side in pixels of a random square cut out of it (segmentation), filled up with the mean colour and "no class"; 0: none.
        flip: probability of a mirror image, left and right exchanged.
        color_jitter: brightness, contrast and saturation are scaled by factors from 1 - x to 1 + x.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    crop: int = 0
    flip: float = 0.0
    color_jitter: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise UserError(f"scale: found {self.scale[0]} to {self.scale[1]}, expected two factors above 0, the smaller one first")
        if not 0 <= self.flip <= 1:
            raise UserError(f"flip: found {self.flip}, expected a probability from 0 to 1")
        if self.crop < 0 or self.color_jitter < 0:
            raise UserError(f"found the crop {self.crop} and the color_jitter {self.color_jitter}, expected 0 or more")


def whole_picture(image: Image.Image, recipe: WholePicture) -> Tensor:
    """A stored picture as (C, h, w) float32, resized as `recipe` says and normalised; nothing random."""
    return normalised(resized(image, recipe), recipe.mean, recipe.std)


def resized(image: Image.Image, recipe: WholePicture, *, shrink: bool = False) -> Image.Image:
    """The upright picture at the size of `recipe`. `shrink` lets a JPEG file be decoded smaller, which is faster and not quite the same."""
    width, height = upright_size(image)
    size = recipe.size(width, height)
    least = min(width / size[0], height / size[1])
    picture = read_picture(image, recipe.channels, shrink=least if shrink else 1.0)
    return picture if picture.size == size else picture.resize(size, resample(recipe.interpolation), reducing_gap=2.0 if shrink else None)


class ObjectTransform:
    """From a set of objects to examples: `image` (C, h, w) float32, `boxes` (n, 4) float32 xyxy in its pixels, `labels` (n,) int64, and,
    with `outlines`, `masks` (n, h, w) uint8. Boxes that resizing makes smaller than a pixel are left out, as are crowds. `UserError` where
    a picture has another size than annotated.

    Args:
        recipe: see `WholePicture`.
        augmentation: None for evaluation, whose examples hold `image` alone.
        outlines: whether the head learns masks.
    """

    def __init__(self, recipe: WholePicture, augmentation: DenseAugmentation | None = None, *, outlines: bool = False) -> None:
        self.recipe, self.augmentation, self.outlines = recipe, augmentation, outlines

    def __call__(self, pictures: ObjectSet, index: int) -> Example:
        with pictures.open(index) as image:
            width, height = pictures.sizes[index].tolist()
            _require_size(pictures.name(index), upright_size(image), (width, height), "boxes")
            if self.augmentation is None:
                return {"image": whole_picture(image, self.recipe)}
            picture, flipped = _varied(image, self.recipe, self.augmentation)
        picture = jittered(picture, self.augmentation.color_jitter) if self.augmentation.color_jitter else picture
        places = pictures.places(index)
        boxes = pictures.clipped[places] * np.tile(np.divide(picture.size, pictures.sizes[index]), 2)
        if flipped:
            boxes[:, [0, 2]] = picture.width - boxes[:, [2, 0]]
        seen = (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)
        example = {
            "image": normalised(picture, self.recipe.mean, self.recipe.std),
            "boxes": torch.from_numpy(boxes[seen]).float(),
            "labels": torch.from_numpy(pictures.objects.labels[places[seen]]),
        }
        if self.outlines:
            masks = [_resized_mask(pictures.mask(place), picture.size, flipped) for place in places[seen]]
            empty = np.zeros((0, picture.height, picture.width), dtype=np.uint8)
            example["masks"] = torch.from_numpy(np.stack(masks) if masks else empty)
        return example


class MaskTransform:
    """From a set of masks to examples: `image` (C, h, w) float32 and `mask` (h, w) uint8, 255 where no class is given. `UserError` where a
    picture and its mask differ in size.

    Args:
        recipe: see `WholePicture`.
        augmentation: None for evaluation, whose examples hold `image` alone: there the mask is compared at its own size.
    """

    def __init__(self, recipe: WholePicture, augmentation: DenseAugmentation | None = None) -> None:
        self.recipe, self.augmentation = recipe, augmentation

    def __call__(self, pictures: MaskSet, index: int) -> Example:
        with pictures.open(index) as image:
            _require_size(pictures.name(index), upright_size(image), pictures.mask_size(index), "mask")
            if self.augmentation is None:
                return {"image": whole_picture(image, self.recipe)}
            picture, flipped = _varied(image, self.recipe, self.augmentation)
        mask = _resized_mask(pictures.mask(index), picture.size, flipped)
        part = self.augmentation.crop
        if part:
            left, top = (random.randint(0, max(0, side - part)) for side in picture.size)
            picture = picture.crop((left, top, min(left + part, picture.width), min(top + part, picture.height)))
            mask = mask[top : top + part, left : left + part]
        picture = jittered(picture, self.augmentation.color_jitter) if self.augmentation.color_jitter else picture
        example = {"image": normalised(picture, self.recipe.mean, self.recipe.std), "mask": torch.from_numpy(np.ascontiguousarray(mask))}
        return _filled_up(example, part) if part else example


def _require_size(name: str, found: tuple[int, int], annotated: tuple[int, int], what: str) -> None:
    """`UserError` where a picture, upright, is not as large as its annotations say: all of them would lie in wrong places."""
    if found != annotated:
        wanted = f"{found[0]} x {found[1]} as the picture is, upright; foveate doctor names all such"
        raise UserError(f"{name}: found {what} for {annotated[0]} x {annotated[1]} pixels, expected {wanted}")


def _varied(image: Image.Image, recipe: WholePicture, augmentation: DenseAugmentation) -> tuple[Image.Image, bool]:
    """The picture at a random size, perhaps mirrored; whether it was."""
    factor = random.uniform(*augmentation.scale)
    scaled = replace(recipe, short=max(1, round(recipe.short * factor)), long=max(1, round(recipe.long * factor)))
    picture = resized(image, scaled, shrink=True)
    flipped = random.random() < augmentation.flip
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture, flipped


def _resized_mask(mask: npt.NDArray[np.uint8], size: tuple[int, int], flipped: bool) -> npt.NDArray[np.uint8]:
    picture = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
    values = np.array(picture)
    return np.ascontiguousarray(values[:, ::-1]) if flipped else values


def _filled_up(example: Example, side: int) -> Example:
    """A part smaller than `side` x `side`, filled up below and to the right."""
    height, width = example["mask"].shape
    if (height, width) == (side, side):
        return example
    around = (0, side - width, 0, side - height)
    image = torch.nn.functional.pad(example["image"], around)
    return {"image": image, "mask": torch.nn.functional.pad(example["mask"], around, value=IGNORED)}
