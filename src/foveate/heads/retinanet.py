"""RetinaNet (Lin et al. 2017, "Focal loss for dense object detection") on any backbone."""

from torchvision.models.detection.retinanet import RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from foveate.heads.backbone import Backbone
from foveate.heads.detector import Detector, StridedAnchors, to_float32
from foveate.heads.pyramid import PYRAMID_WIDTH, Pyramid

OCTAVE = tuple(2 ** (third / 3) for third in range(3))
RATIOS = (0.5, 1.0, 2.0)
FINEST = 1  # P2 is not used


def retinanet(backbone: Backbone, name: str, num_classes: int) -> Detector:
    """The paper's RetinaNet: levels P3 to P7, nine anchors a place (4 strides x {1, 2^(1/3), 2^(2/3)}, ratios 1:2, 1:1, 2:1), four
    convolutions without norm in each branch, a sigmoid per class.

    Of torchvision's two forms neither is the paper's: `retinanet_resnet50_fpn` makes P6 from P5, `..._v2` adds group norm to the
    branches. Here P6 comes from the backbone's last map and there are no norms: 37.97 M parameters with ResNet-50 and 80 classes,
    of which the papers print 37.7 M, leaving out the 0.23 M of stem and first stage that they freeze.

    Args:
        backbone: its maps from P3 on (`FINEST` left out).
        name: what messages call it.
        num_classes: without a background.
    """
    coarsest = LastLevelP6P7(backbone.channels[-1], PYRAMID_WIDTH)
    coarsest.use_P5 = False
    pyramid = Pyramid(backbone, extra=coarsest)
    last = backbone.strides[-1]
    strides = (*backbone.strides, 2 * last, 4 * last)
    anchors = StridedAnchors([[4 * stride * scale for scale in OCTAVE] for stride in strides], RATIOS, strides)
    net = RetinaNet(pyramid, num_classes, anchor_generator=anchors)
    net.head.register_forward_hook(to_float32)
    detector = Detector(name, net, first_label=0)
    detector.class_layers = ("net.head.classification_head.cls_logits",)
    return detector
