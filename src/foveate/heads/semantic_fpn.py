"""Semantic FPN (Kirillov et al. 2019, "Panoptic feature pyramid networks", section 3) on any backbone."""

import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import MergeBlock, SegmentationBlock
from torch import Tensor, nn

from foveate.heads.backbone import NUM_MAPS, Backbone
from foveate.heads.dense import DenseModel
from foveate.heads.pyramid import PYRAMID_WIDTH, Pyramid
from foveate.layers.padding import pad_end

WIDTH = 128


class LevelBlock(SegmentationBlock):
    """smp's block, level l of the pyramid -> the finest level's stride: (B, 256, H/2^l, W/2^l) -> (B, 128, H, W).

    3x3 convolution, group norm, ReLU and a doubling, l times (once without doubling for l = 0). smp doubles with aligned corners, which
    stretches a map: a place of the coarsest level came to lie up to 3.5 places of the finest from where the pyramid saw it. Here a place
    stays over its own pixels. The parameters are the same.
    """

    def __init__(self, level: int) -> None:
        super().__init__(PYRAMID_WIDTH, WIDTH, n_upsamples=level)
        self.level = level
        for layer in self.block:
            layer.upsample = False

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.block:
            x = layer(x)
            if self.level:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        return x


class SemanticFPN(DenseModel):
    """Every level of the pyramid is brought to the finest one's stride by convolutions, group norms and doublings, then all are added.

    The blocks are segmentation-models-pytorch's but for their doublings (`LevelBlock`). Its own `FPN` has no 3x3 convolutions behind the
    pyramid's levels (26.1 M parameters with ResNet-50 and 150 classes), the paper and its followers have: torchvision's pyramid stands
    here, 28.5 M as the papers print. Group norm is the paper's too (mmsegmentation has batch norm there); the paper knows no dropout here,
    and neither does this.
    """

    class_layers = ("classifier",)

    def __init__(self, backbone: Backbone, name: str, num_classes: int) -> None:
        super().__init__(name)
        self.pyramid = Pyramid(backbone)
        self.blocks = nn.ModuleList(LevelBlock(level) for level in range(NUM_MAPS))
        self.merge = MergeBlock("add")
        self.classifier = nn.Conv2d(WIDTH, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, num_classes, H, W) of normalised pictures (B, C, H, W) of any size."""
        x = pad_end(images, self.backbone.multiple)
        levels = self.pyramid(x).values()
        merged = self.merge([block(level) for block, level in zip(self.blocks, levels, strict=True)])
        logits = self.classifier(merged).float()
        logits = F.interpolate(logits, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., : images.shape[-2], : images.shape[-1]]
