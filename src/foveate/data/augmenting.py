"""What changes a whole picture of 8-bit values at random: RandAugment (timm's operations) and colour jitter."""

import random

from PIL import Image, ImageEnhance
from timm.data.auto_augment import AugmentOp, rand_augment_choices, rand_augment_ops

from foveate.card import Preprocessing
from foveate.errors import UserError

DEVIATION = 0.5  # of magnitudes


def rand_augment_operations(preprocessing: Preprocessing, magnitude: int) -> list[AugmentOp]:
    """The operations of RandAugment, timm's; its own drawing of them would take NumPy's global generator."""
    if preprocessing.channels == 4:
        raise UserError("found RandAugment for 4 channels, expected 1 or 3, which its operations know: set rand_augment to 0")
    mean = tuple(min(255, round(255 * value)) for value in preprocessing.mean)
    parameters = {"img_mean": mean if len(mean) > 1 else mean[0], "magnitude_std": DEVIATION}
    operations = rand_augment_ops(magnitude, hparams=parameters, transforms=rand_augment_choices("", increasing=True))
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
