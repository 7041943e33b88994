"""The batches that detectors and segmenters are measured on, in training and afterwards alike."""

from lightning.fabric import Fabric

from foveate.card import WholePicture
from foveate.data.dense_transforms import MaskTransform, ObjectTransform
from foveate.data.examples import Examples, PicturesWithMasks, PicturesWithObjects
from foveate.data.loader import PictureLoader, equal_size_loader
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.sizes import input_sizes


def whole_picture_batches(
    fabric: Fabric, pictures: ObjectSet | MaskSet, recipe: WholePicture, batch_size: int, num_workers: int | None
) -> PictureLoader:
    """Batches of whole pictures that come out of `recipe` at one size, those that fall to this process; see `Examples` for their form."""
    examples: Examples = (
        PicturesWithObjects(pictures, ObjectTransform(recipe))
        if isinstance(pictures, ObjectSet)
        else PicturesWithMasks(pictures, MaskTransform(recipe))
    )
    sizes = input_sizes(pictures, recipe)
    return equal_size_loader(examples, sizes, batch_size, fabric.global_rank, fabric.world_size, num_workers)
