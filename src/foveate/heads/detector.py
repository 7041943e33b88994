"""torchvision's detectors behind one face: ready pictures in, losses or objects out, classes counted from 0."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import LevelMapper

from foveate.heads.dense import DenseModel


class Detector(DenseModel):
    """A detector of torchvision on a backbone.

    Args:
        name: the backbone's.
        net: torchvision's model; its transform is replaced, as pictures come resized and normalised.
        first_label: the label that `net` gives to class 0: 1 where it counts a background.
    """

    def __init__(self, name: str, net: nn.Module, first_label: int) -> None:
        super().__init__(name)
        self.net = net
        self.first_label = first_label
        self.net.transform = ReadyPictures(self.backbone.multiple)

    def forward(self, images: Tensor, sizes: Tensor | None = None, targets: Sequence[dict[str, Tensor]] | None = None) -> Any:
        """Losses in training, objects in evaluation.

        Args:
            images: (B, C, H, W) float, normalised; smaller pictures of the batch lie in the upper left corner.
            sizes: (B, 2) int64, H and W of each picture without its padding; None: all are as large as the batch.
            targets: in training, per picture a dictionary with `boxes` (N, 4) float32 xyxy in pixels of `images`, `labels` (N,) int64 and,
                for Mask R-CNN, `masks` (N, h, w) uint8.

        Returns:
            In training a dictionary of scalar losses, by torchvision's names. In evaluation per picture a dictionary with `boxes` (N, 4)
            float32, `scores` (N,), `labels` (N,) and, for Mask R-CNN, `masks` (N, 1, 28, 28): probabilities on a grid over each box.
        """
        spans = [images.shape[-2:]] * len(images) if sizes is None else sizes.tolist()
        pictures = [image[:, :height, :width] for image, (height, width) in zip(images, spans, strict=True)]
        shifted = None if targets is None else [{**target, "labels": target["labels"] + self.first_label} for target in targets]
        found = self.net(pictures, shifted)
        if self.training:
            return found
        return [{**objects, "labels": objects["labels"] - self.first_label} for objects in found]


class ReadyPictures(GeneralizedRCNNTransform):
    """Only pads and stacks: pictures come resized and normalised, and results stay in the pixels of the input."""

    def __init__(self, multiple: int) -> None:
        super().__init__(min_size=0, max_size=0, image_mean=[], image_std=[], size_divisible=multiple)

    def normalize(self, image: Tensor) -> Tensor:
        return image

    def resize(self, image: Tensor, target: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor] | None]:
        return image, target

    def postprocess(self, result: list[dict[str, Tensor]], image_shapes: Any, original_image_sizes: Any) -> list[dict[str, Tensor]]:
        return result


class StridedAnchors(AnchorGenerator):
    """Anchors at fixed strides, in float32.

    torchvision divides picture by map, which is off by some pixels where the coarsest maps were rounded up, and gives anchors the type of
    the maps: in bfloat16 they would lie up to 4 px beside their place from 1024 px on, and stay so.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[float]) -> None:
        super().__init__(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))
        self.strides = tuple(strides)

    def grid_anchors(self, grid_sizes: list[list[int]], strides: list[list[Tensor]]) -> list[Tensor]:
        fixed = [
            [torch.full_like(across, stride, dtype=torch.float32) for across in pair]
            for pair, stride in zip(strides, self.strides, strict=True)
        ]
        return super().grid_anchors(grid_sizes, fixed)

    def set_cell_anchors(self, dtype: torch.dtype, device: torch.device) -> None:
        super().set_cell_anchors(torch.float32, device)


class StridedRoIAlign(MultiScaleRoIAlign):
    """Regions of interest cut out of maps of fixed strides.

    torchvision guesses the strides from the first pictures it ever sees, wrongly where these are lower than one and a half strides or the
    strides are no powers of two. A region of 224 x 224 pixels is on the map of stride 16, half as large ones on the next finer one.

    Args:
        strides: of the maps, finest first.
        side: of the grid laid over each region.
    """

    def __init__(self, strides: Sequence[float], side: int) -> None:
        super().__init__([str(level) for level in range(len(strides))], output_size=side, sampling_ratio=2)
        self.scales = [1.0 / stride for stride in strides]
        finest, coarsest = (round(math.log2(stride)) for stride in (strides[0], strides[-1]))
        self.map_levels = LevelMapper(finest, coarsest, self.canonical_scale, self.canonical_level)


def to_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    """A forward hook: a layer's scores and offsets leave it in float32, for losses and non-maximum suppression, whatever it computed in."""
    if isinstance(output, Tensor):
        return output.float()
    if isinstance(output, dict):
        return {name: to_float32(_module, None, value) for name, value in output.items()}
    return type(output)(to_float32(_module, None, value) for value in output)
