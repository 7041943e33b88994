"""A backbone with a feature pyramid network on its maps."""

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, FeaturePyramidNetwork

from foveate.heads.backbone import Backbone

PYRAMID_WIDTH = 256


class Pyramid(nn.Module):
    """torchvision's feature pyramid network (Lin et al. 2017) on the maps of a backbone.

    Attributes:
        out_channels: of every level, as torchvision's detectors ask for it.
    """

    def __init__(self, backbone: Backbone, extra: ExtraFPNBlock | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.fpn = FeaturePyramidNetwork(list(backbone.channels), PYRAMID_WIDTH, extra_blocks=extra)
        self.out_channels = PYRAMID_WIDTH

    def forward(self, x_bchw: Tensor) -> dict[str, Tensor]:
        """Levels by name, finest first: "0", "1", ... and those of the extra block."""
        levels: dict[str, Tensor] = self.fpn(OrderedDict((str(level), x) for level, x in enumerate(self.backbone(x_bchw))))
        return levels
