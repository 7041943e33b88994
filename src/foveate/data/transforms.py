"""From a stored picture to the model's input: one exact way for evaluation, random ways for training.

A transform has two halves: `start` in the processes that read, one picture at a time, and `finish` on the device, a whole batch. Training
hands 8-bit values from one to the other, a quarter of the bytes. Random numbers come from Python's and PyTorch's global generators, which
the loader seeds per picture, and from nowhere else.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from foveate.card import Preprocessing
from foveate.data.augmenting import jittered, rand_augment_operations
from foveate.data.erasing import drawn_noise, erase
from foveate.data.pixels import normalised, normalised_batch, picture_of, pixels_of, resized_pixels
from foveate.data.reading import read_picture, upright_size
from foveate.errors import UserError

Example = dict[str, Tensor]
Batch = dict[str, Tensor]


class Transform(Protocol):
    """From stored pictures to the model's input `image` (B, C, H, W): float32, normalised, in channels-last memory."""

    def start(self, image: Image.Image) -> Example:
        """What the batches for `finish` are made of: `image` (C, H, W) over (H, W, C) memory, and whatever else `finish` needs."""
        ...

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        """The batch on the device, ready for the model."""
        ...


@dataclass(frozen=True)
class Augmentation:
    """What training does to a picture at random; the defaults are those of both papers' ImageNet training. 0 switches a thing off.

    Args:
        crop: "resized" cuts a random part and scales it to the input size; "pad", for small pictures, takes the evaluation's cut and
            shifts it by up to `padding` pixels with black coming in at the edges.
        scale: smallest and largest share of the picture's area that "resized" cuts.
        ratio: smallest and largest width : height of that part.
        padding: pixels of the input.
        interpolation: of "resized"; "random" draws bilinear or bicubic for each picture.
        flip: probability of a mirror image, left and right exchanged.
        rand_augment: magnitude 0..10 of RandAugment with increasing severity, magnitudes drawn with deviation 0.5 ("rand-m9-mstd0.5-inc1").
        rand_layers: operations of RandAugment per picture, each carried out with probability 0.5.
        color_jitter: brightness, contrast and saturation are scaled by factors from 1 - x to 1 + x. As in the papers' code it is left out
            where RandAugment is on, which holds these operations itself.
        erasing: probability that a rectangle of 2% to 33% of the area becomes normal noise.
    """

    crop: Literal["resized", "pad"] = "resized"
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    padding: int = 4
    interpolation: Literal["random", "bilinear", "bicubic"] = "random"
    flip: float = 0.5
    rand_augment: int = 9
    rand_layers: int = 2
    color_jitter: float = 0.4
    erasing: float = 0.25

    def __post_init__(self) -> None:
        wanted = {
            "crop": ("resized or pad", self.crop in ("resized", "pad")),
            "scale": ("two shares 0 < smallest <= largest <= 1", 0 < self.scale[0] <= self.scale[1] <= 1),
            "ratio": ("two ratios 0 < smallest <= largest", 0 < self.ratio[0] <= self.ratio[1]),
            "padding": ("0 or more pixels", self.padding >= 0),
            "interpolation": ("random, bilinear or bicubic", self.interpolation in ("random", "bilinear", "bicubic")),
            "flip": ("a probability from 0 to 1", 0 <= self.flip <= 1),
            "rand_augment": ("a magnitude from 0 to 10", 0 <= self.rand_augment <= 10),
            "rand_layers": ("1 or more", self.rand_layers >= 1),
            "color_jitter": ("0 or more", self.color_jitter >= 0),
            "erasing": ("a probability from 0 to 1", 0 <= self.erasing <= 1),
        }
        for name, (expected, right) in wanted.items():
            if not right:
                raise UserError(f"augmentation: found {name} {getattr(self, name)}, expected {expected}: change it")


class EvaluationTransform:
    """Reads a picture, resizes it, cuts out the centre, normalises: equal to torchvision's Resize, CenterCrop, ToTensor, Normalize.

    The picture is made just large enough to cover `size` * `resize` / min(`size`), keeping its proportions; for a square size that is the
    usual "short side to `resize`". Where `resize` is smaller than the input, what the picture does not fill is the mean colour.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self.preprocessing = preprocessing
        self.resample = resample(preprocessing.interpolation)

    def __call__(self, image: Image.Image) -> Tensor:
        height, width = self.preprocessing.size
        x = normalised(self.cut(image), self.preprocessing.mean, self.preprocessing.std)
        missing_rows, missing_columns = height - x.shape[1], width - x.shape[2]
        if missing_rows or missing_columns:
            left, top = missing_columns // 2, missing_rows // 2
            x = pad(x, (left, missing_columns - left, top, missing_rows - top))
        return x

    def start(self, image: Image.Image) -> Example:
        return {"image": self(image)}

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        return moved(batch, device)

    def cut(self, image: Image.Image) -> Image.Image:
        """The part of the picture that evaluation looks at, at most `size` large."""
        picture = read_picture(image, self.preprocessing.channels)
        picture = picture.resize(_covering(picture.size, self.preprocessing), self.resample)
        height, width = (min(wanted, found) for wanted, found in zip(self.preprocessing.size, picture.size[::-1], strict=True))
        left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
        return picture.crop((left, top, left + width, top + height))


class TrainingTransform:
    """Reads a picture and varies it as `augmentation` says, in the order crop, flip, RandAugment or colour jitter, erasing."""

    def __init__(self, preprocessing: Preprocessing, augmentation: Augmentation) -> None:
        self.preprocessing = preprocessing
        self.augmentation = augmentation
        self.evaluation = EvaluationTransform(preprocessing)
        self.operations = rand_augment_operations(preprocessing, augmentation.rand_augment) if augmentation.rand_augment else []

    def start(self, image: Image.Image) -> Example:
        """`image` uint8 and, where there is erasing, what `erasing.drawn_noise` gives."""
        augmentation = self.augmentation
        pixels = self._resized_crop(image) if augmentation.crop == "resized" else self._shifted(image)
        if random.random() < augmentation.flip:
            pixels = pixels.flip(2)
        if self.operations or augmentation.color_jitter:
            pixels = pixels_of(self._recoloured(picture_of(pixels)))
        return {"image": pixels, **(drawn_noise(augmentation.erasing, pixels.shape) if augmentation.erasing else {})}

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        """`image` normalised and, where there is erasing, with noise in it; `erased` and `noise` are used up."""
        rest = moved({name: value for name, value in batch.items() if name != "erased"}, device)
        rest["image"] = normalised_batch(rest["image"], self.preprocessing.mean, self.preprocessing.std)
        if self.augmentation.erasing:
            erase(rest["image"], batch["erased"], rest.pop("noise"))
        return rest

    def _resized_crop(self, image: Image.Image) -> Tensor:
        """A random part (C, H, W) at the input size. A JPEG file is decoded smaller where the part stays at least as large as the input."""
        width, height = upright_size(image)
        left, top, right, bottom = random_part(width, height, self.augmentation.scale, self.augmentation.ratio)
        rows, columns = self.preprocessing.size
        shrink = min((right - left) / columns, (bottom - top) / rows)
        picture = read_picture(image, self.preprocessing.channels, shrink=shrink)
        across, down = picture.width, picture.height
        # outwards to whole pixels of what was decoded, so that the part has no fewer of them than the input
        part = picture.crop((left * across // width, top * down // height, -(-right * across // width), -(-bottom * down // height)))
        name = self.augmentation.interpolation
        chosen = random.choice(("bilinear", "bicubic")) if name == "random" else name
        return resized_pixels(pixels_of(part), (rows, columns), chosen)

    def _recoloured(self, picture: Image.Image) -> Image.Image:
        if not self.operations:
            return jittered(picture, self.augmentation.color_jitter)
        for operation in random.choices(self.operations, k=self.augmentation.rand_layers):
            picture = operation(picture)
        return picture

    def _shifted(self, image: Image.Image) -> Tensor:
        """The evaluation's cut (C, H, W), a few pixels aside."""
        picture = self.evaluation.cut(image)
        height, width = self.preprocessing.size
        reach = self.augmentation.padding
        left = (width - picture.width) // 2 + random.randint(-reach, reach)
        top = (height - picture.height) // 2 + random.randint(-reach, reach)
        shifted = Image.new(picture.mode, (width, height))
        shifted.paste(picture, (left, top))
        return pixels_of(shifted)


def evaluation_transform(preprocessing: Preprocessing) -> EvaluationTransform:
    """Stored picture -> (C, H, W) float32 normalised; nothing random."""
    return EvaluationTransform(preprocessing)


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> TrainingTransform:
    """Stored picture -> (C, H, W) uint8, varied at random, normalised by the batch."""
    return TrainingTransform(preprocessing, augmentation)


def moved(batch: Mapping[str, Tensor], device: torch.device) -> Batch:
    """The same batch on the device."""
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def random_part(width: int, height: int, scale: tuple[float, float], ratio: tuple[float, float]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a part: its share of the area uniform in `scale`, its width : height log-uniform in `ratio`.

    Where ten draws do not fit into the picture, the largest centred part with a proportion in `ratio` (Szegedy et al. 2015, torchvision).
    """
    for _ in range(10):
        area = random.uniform(*scale) * width * height
        proportion = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
        w, h = round(math.sqrt(area * proportion)), round(math.sqrt(area / proportion))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    proportion = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, round(height * proportion)), min(height, round(width / proportion))
    w, h = max(w, 1), max(h, 1)
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def _covering(found: tuple[int, int], preprocessing: Preprocessing) -> tuple[int, int]:
    """(width, height) of a picture of size `found`, scaled to cover the input's proportions with the short side `resize`."""
    width, height = found
    unit = preprocessing.resize / min(preprocessing.size)
    rows, columns = (round(side * unit) for side in preprocessing.size)
    if width * rows <= height * columns:
        return columns, max(height * columns // width, rows)
    return max(width * rows // height, columns), rows


def resample(name: str) -> Image.Resampling:
    """Pillow's filter of that name; `UserError` for an unknown one."""
    try:
        return Image.Resampling[name.upper()]
    except KeyError:
        known = ", ".join(each.name.lower() for each in Image.Resampling)
        raise UserError(f"found interpolation {name}, expected one of {known}: change it") from None
