"""How well a class was found for every pixel, counted exactly, over all processes, each picture once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor

from foveate.data.masks import IGNORED, MaskSet
from foveate.data.pictures import shortened
from foveate.tasks.base import Batch, Forward

MOST_NUMBERS = 2**26


@dataclass(frozen=True, eq=False)
class PixelResults:
    """The pixels of some pictures, counted.

    Args:
        counts: (K, K) int64, rows = truth, columns = prediction; pixels without a class in the truth are not among them.
        index: places of the pictures seen.
        class_names: K names.
    """

    counts: npt.NDArray[np.int64]
    index: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Pictures seen."""
        return len(self.index)

    def figures(self) -> dict[str, float]:
        """`miou`, `pixel_accuracy` and `mean_accuracy`, shares of 1; none where no pixel of the truth has a class.

        `miou` is the mean over classes of right / (right + missed + wrongly found), without classes that neither truth nor prediction
        holds; `mean_accuracy` that of right / (right + missed), without classes that the truth does not hold. `notes` names both.
        """
        if not self.counts.sum():
            return {}
        return {
            "miou": float(np.nanmean(self._iou)),
            "pixel_accuracy": float(np.trace(self.counts) / self.counts.sum()),
            "mean_accuracy": float(np.nanmean(self._accuracy)),
        }

    def notes(self) -> tuple[str, ...]:
        """Which classes are left out of the means, in words."""
        if not self.counts.sum():
            return ("no pixel has a class in the masks, so there are no figures",)
        truth, predicted = self.counts.sum(axis=1) > 0, self.counts.sum(axis=0) > 0
        groups = (
            (~truth & ~predicted, "neither in the masks nor predicted, left out of both means"),
            (~truth & predicted, "predicted but not in the masks, 0 in the mean IoU and left out of the mean accuracy"),
        )
        named = [(shortened([self.class_names[place] for place in np.flatnonzero(group)]), words) for group, words in groups]
        return tuple(f"{names}: {words}" for names, words in named if names)

    def per_class(self) -> list[dict[str, Any]]:
        """Per class `class`, `iou`, `accuracy` (None where not defined) and `share` of the pixels that have a class in the truth."""
        shares = self.counts.sum(axis=1) / max(self.counts.sum(), 1)
        columns = zip(self.class_names, self._iou.tolist(), self._accuracy.tolist(), shares.tolist(), strict=True)
        return [
            {"class": name, "iou": None if np.isnan(iou) else iou, "accuracy": None if np.isnan(accuracy) else accuracy, "share": share}
            for name, iou, accuracy, share in columns
        ]

    @property
    def _iou(self) -> npt.NDArray[np.float64]:
        right = np.diagonal(self.counts)
        return _shares(right, self.counts.sum(axis=0) + self.counts.sum(axis=1) - right)

    @property
    def _accuracy(self) -> npt.NDArray[np.float64]:
        return _shares(np.diagonal(self.counts), self.counts.sum(axis=1))


def _shares(parts: npt.NDArray[np.int64], wholes: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Nan where the whole is 0."""
    return np.where(wholes > 0, parts / np.maximum(wholes, 1), np.nan)


def class_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) uint8, the likeliest class of every pixel of a picture of `size` = (H, W), from logits (K, h, w) over the whole picture.

    Logits are resized bilinearly (`align_corners=False`), some classes at a time, so that a large picture with many classes fits into
    memory.
    """
    step = max(1, MOST_NUMBERS // (size[0] * size[1]))
    best = torch.full(size, -torch.inf, device=logits.device)
    classes = torch.zeros(size, dtype=torch.uint8, device=logits.device)
    for start in range(0, len(logits), step):
        some = F.interpolate(logits[None, start : start + step].float(), size=size, mode="bilinear", align_corners=False)[0]
        value, place = some.max(dim=0)
        classes = torch.where(value > best, (place + start).to(torch.uint8), classes)
        best = torch.maximum(value, best)
    return classes


@torch.inference_mode()
def score_pixels(forward: Forward, batches: Iterable[Batch], masks: MaskSet, device: torch.device) -> PixelResults:
    """The counts of this process's batches, at the size of each mask as it is stored.

    Args:
        forward: the model, in evaluation mode: images (B, C, H, W) to logits (B, K, H, W).
        batches: with `image`, `size` (B, 2) int64 H and W of the valid area, `index` (B,) int64. Where pictures of a batch differ in size
            they are given to the model one by one without their padding, so that a result does not depend on its neighbours.
        masks: the set, its classes in the model's order.
        device: where the model is.
    """
    classes = len(masks.class_names)
    counts = np.zeros((classes, classes), dtype=np.int64)
    index: list[int] = []
    for batch in batches:
        images = batch["image"].to(device, non_blocking=True, memory_format=torch.channels_last)
        for place, logits in zip(batch["index"].tolist(), _logits(forward, images, batch["size"].tolist()), strict=True):
            if len(logits) != classes:
                raise ValueError(f"found logits of {len(logits)} classes, expected {classes}, those of the masks")
            truth = masks.mask(place)
            counts += count_pixels(truth, class_map(logits, truth.shape).cpu().numpy(), classes)
            index.append(place)
    return PixelResults(counts, tuple(index), masks.class_names)


def _logits(forward: Forward, images: Tensor, sizes: list[list[int]]) -> Iterable[Tensor]:
    if all(size == list(images.shape[2:]) for size in sizes):
        return forward(images)
    return (forward(image[None, :, :height, :width])[0] for image, (height, width) in zip(images, sizes, strict=True))


def count_pixels(truth: npt.NDArray[np.uint8], predicted: npt.NDArray[np.uint8], num_classes: int) -> npt.NDArray[np.int64]:
    """(K, K) counts of pixels, rows = truth, columns = prediction; pixels that are 255 in the truth do not count."""
    known = truth != IGNORED
    cells = truth[known].astype(np.int64) * num_classes + predicted[known]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def gather_pixels(fabric: Fabric, mine: PixelResults, expected: int) -> PixelResults:
    """The counts of all processes together, the same on every process.

    Raises `RuntimeError` unless they saw each of the `expected` pictures exactly once.
    """
    everyones: list[Any] = [(mine.counts, mine.index)]
    if fabric.world_size > 1:
        everyones = [None] * fabric.world_size
        torch.distributed.all_gather_object(everyones, (mine.counts, mine.index))
    index = tuple(sorted(place for _, places in everyones for place in places))
    if index != tuple(range(expected)):
        raise RuntimeError(f"evaluation saw {len(index)} results for {expected} pictures: some are missing or double")
    return PixelResults(sum(counts for counts, _ in everyones), index, mine.class_names)
