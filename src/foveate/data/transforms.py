"""From a stored picture to the model's input: one exact way for evaluation, random ways for training.

Both give float32 tensors (C, H, W), normalised, with the strides of channels-last memory. Random numbers come from Python's and PyTorch's
global generators, which the loader seeds per picture (`loader.seeded`), and from nowhere else.
"""

import math
import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageEnhance
from timm.data.auto_augment import AugmentOp, rand_augment_choices, rand_augment_ops
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn.functional import pad

from foveate.card import Preprocessing
from foveate.data.reading import read_picture, upright_size
from foveate.errors import UserError

RAND_AUGMENT_DEVIATION = 0.5


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
        self.operations = _rand_augment(preprocessing, augmentation) if augmentation.rand_augment else []
        self.erase = RandomErasing(augmentation.erasing, mode="pixel", device="cpu")

    def __call__(self, image: Image.Image) -> Tensor:
        augmentation = self.augmentation
        picture = self._resized_crop(image) if augmentation.crop == "resized" else self._shifted(image)
        if random.random() < augmentation.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.operations:
            for operation in random.choices(self.operations, k=augmentation.rand_layers):
                picture = operation(picture)
        elif augmentation.color_jitter:
            picture = jittered(picture, augmentation.color_jitter)
        x = normalised(picture, self.preprocessing.mean, self.preprocessing.std)
        return self.erase(x) if augmentation.erasing else x

    def _resized_crop(self, image: Image.Image) -> Image.Image:
        """A random part at the input size. JPEG files are decoded no larger than the part needs, and the part is never copied out."""
        width, height = upright_size(image)
        left, top, right, bottom = random_part(width, height, self.augmentation.scale, self.augmentation.ratio)
        size = self.preprocessing.size[::-1]
        shrink = min((right - left) / size[0], (bottom - top) / size[1])
        picture = read_picture(image, self.preprocessing.channels, shrink=shrink)
        across, down = picture.width / width, picture.height / height
        box = (left * across, top * down, min(right * across, picture.width), min(bottom * down, picture.height))
        name = self.augmentation.interpolation
        chosen = resample(random.choice(("bilinear", "bicubic")) if name == "random" else name)
        return picture.resize(size, chosen, box=box, reducing_gap=2.0)

    def _shifted(self, image: Image.Image) -> Image.Image:
        picture = self.evaluation.cut(image)
        height, width = self.preprocessing.size
        reach = self.augmentation.padding
        left = (width - picture.width) // 2 + random.randint(-reach, reach)
        top = (height - picture.height) // 2 + random.randint(-reach, reach)
        shifted = Image.new(picture.mode, (width, height))
        shifted.paste(picture, (left, top))
        return shifted


def evaluation_transform(preprocessing: Preprocessing) -> EvaluationTransform:
    """Stored picture -> (C, H, W) float32 normalised; nothing random."""
    return EvaluationTransform(preprocessing)


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> TrainingTransform:
    """Stored picture -> (C, H, W) float32 normalised, varied at random."""
    return TrainingTransform(preprocessing, augmentation)


def normalised(picture: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(value / 255 - mean) / std per channel: float32 (C, H, W) over (H, W, C) memory."""
    pixels = torch.from_numpy(np.array(picture))
    height, width = pixels.shape[:2]
    # rows of W * C values: passes over long rows, not over pixels of C values
    rows = pixels.view(height, -1).to(torch.float32).div_(255)
    rows.sub_(_along_row(mean, width)).div_(_along_row(std, width))
    return rows.view(height, width, -1).permute(2, 0, 1)


@lru_cache(maxsize=16)
def _along_row(values: tuple[float, ...], width: int) -> Tensor:
    return torch.tensor(values).repeat(width)


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


def _rand_augment(preprocessing: Preprocessing, augmentation: Augmentation) -> list[AugmentOp]:
    """The operations of RandAugment, timm's; its own drawing of them would take NumPy's global generator."""
    if preprocessing.channels == 4:
        raise UserError("found RandAugment for 4 channels, expected 1 or 3, which its operations know: set rand_augment to 0")
    mean = tuple(min(255, round(255 * value)) for value in preprocessing.mean)
    parameters = {"img_mean": mean if len(mean) > 1 else mean[0], "magnitude_std": RAND_AUGMENT_DEVIATION}
    operations = rand_augment_ops(augmentation.rand_augment, hparams=parameters, transforms=rand_augment_choices("", increasing=True))
    for operation in operations:
        if operation.name == "PosterizeIncreasing":
            operation.level_fn = _posterize_bits
    return list(operations)


def _posterize_bits(level: float, _: object) -> tuple[int]:
    """Bits to keep, from 4 at level 0. At level 10 timm keeps none, a black picture that newer Pillow refuses to make; here one stays."""
    return (max(1, 4 - int(level / 10 * 4)),)


def jittered(picture: Image.Image, strength: float) -> Image.Image:
    """Brightness, contrast and saturation, in random order, each scaled by a random factor from 1 - strength to 1 + strength."""
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for enhance in random.sample(enhancers, len(enhancers)):
        picture = enhance(picture).enhance(random.uniform(max(0.0, 1 - strength), 1 + strength))
    return picture
