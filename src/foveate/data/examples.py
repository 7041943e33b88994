"""From a set of pictures and a transform to examples and batches, for each kind of set."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from foveate.data.dense_transforms import MaskTransform, ObjectTransform
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import PictureSet, StoredPictures
from foveate.data.transforms import Batch, Example, Transform, moved


class Examples(Protocol):
    """What a loader reads: picture `index`, several of them as a batch, and what is left to do with a batch where the model is.

    `UserError` for a broken picture.
    """

    @property
    def pictures(self) -> StoredPictures: ...

    def __call__(self, index: int) -> Example: ...

    def collate(self, examples: Sequence[Example]) -> Batch: ...

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        """A batch of a loader on the device, as the model and the losses take it."""
        ...


class LabelledPictures:
    """What `transform.start` gives, and `label`. Batches: image (B, C, H, W) channels-last, as `transform.finish` takes it, and label (B,)
    int64; of pictures with erasing also erased (B, 4) and noise, that of all pictures one after the other.
    """

    def __init__(self, pictures: PictureSet, transform: Transform) -> None:
        self.pictures, self.transform = pictures, transform

    def __call__(self, index: int) -> Example:
        with self.pictures.open(index) as image:
            return {**self.transform.start(image), "label": torch.tensor(self.pictures.labels[index])}

    def collate(self, examples: Sequence[Example]) -> Batch:
        # stacked as (B, H, W, C): contiguous items, one copy, straight into the memory that workers share
        image = default_collate([example["image"].permute(1, 2, 0) for example in examples]).permute(0, 3, 1, 2)
        batch = {"image": image, "label": torch.stack([example["label"] for example in examples])}
        if "noise" in examples[0]:
            batch["erased"] = torch.stack([example["erased"] for example in examples])
            batch["noise"] = torch.cat([example["noise"] for example in examples])
        return batch

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        return self.transform.finish(batch, device)


class PicturesWithObjects:
    """Examples of `ObjectTransform`. Batches: image (B, C, H, W) float32 channels-last, filled up with zeros (the mean colour); size (B, 2)
    int64, H and W of each picture in it; and in training boxes (M, 4), labels (M,) and masks (M, H, W) of all pictures one after the other,
    with count (B,) of each picture.
    """

    def __init__(self, pictures: ObjectSet, transform: ObjectTransform) -> None:
        self.pictures, self.transform = pictures, transform

    def __call__(self, index: int) -> Example:
        return self.transform(self.pictures, index)

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = stacked([example["image"] for example in examples])
        if "boxes" in examples[0]:
            batch["count"] = torch.tensor([len(example["boxes"]) for example in examples])
            batch |= {name: torch.cat([example[name] for example in examples]) for name in ("boxes", "labels")}
        if "masks" in examples[0]:
            batch["masks"] = _padded_masks([example["masks"] for example in examples], batch["image"].shape[-2:])
        return batch

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        return moved(batch, device)


class PicturesWithMasks:
    """Examples of `MaskTransform`. Batches: image (B, C, H, W) float32 channels-last, size (B, 2), and in training mask (B, H, W) uint8."""

    def __init__(self, pictures: MaskSet, transform: MaskTransform) -> None:
        self.pictures, self.transform = pictures, transform

    def __call__(self, index: int) -> Example:
        return self.transform(self.pictures, index)

    def collate(self, examples: Sequence[Example]) -> Batch:
        batch = stacked([example["image"] for example in examples])
        if "mask" in examples[0]:
            batch["mask"] = torch.stack([example["mask"] for example in examples])
        return batch

    def finish(self, batch: Mapping[str, Tensor], device: torch.device) -> Batch:
        return moved(batch, device)


def stacked(images: Sequence[Tensor]) -> Batch:
    """image (B, C, H, W) as large as the largest of `images` (C, h, w), these in its upper left corners, and size (B, 2) of each."""
    sizes = torch.tensor([image.shape[-2:] for image in images])
    height, width = sizes.amax(dim=0).tolist()
    batch = torch.zeros(len(images), height, width, images[0].shape[0]).permute(0, 3, 1, 2)
    for place, image in zip(batch, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return {"image": batch, "size": sizes}


def _padded_masks(masks: Sequence[Tensor], size: torch.Size) -> Tensor:
    """All masks (n, h, w) as one (M, H, W)."""
    ends = np.cumsum([len(each) for each in masks])
    padded = torch.zeros(int(ends[-1]), *size, dtype=torch.uint8)
    for each, end in zip(masks, ends, strict=True):
        padded[end - len(each) : end, : each.shape[1], : each.shape[2]] = each
    return padded
