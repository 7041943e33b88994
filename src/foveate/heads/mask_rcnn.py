"""Mask R-CNN (He et al. 2017) with a feature pyramid, on any backbone."""

from torchvision.models.detection.mask_rcnn import MaskRCNN
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from foveate.heads.backbone import Backbone
from foveate.heads.detector import Detector, StridedAnchors, StridedRoIAlign, to_float32
from foveate.heads.pyramid import Pyramid

RATIOS = (0.5, 1.0, 2.0)


def mask_rcnn(backbone: Backbone, name: str, num_classes: int) -> Detector:
    """Mask R-CNN as papers report it at the 1x schedule: levels P2 to P5 and a pooled P6 for proposals, three anchors a place (8 strides,
    ratios 1:2, 1:1, 2:1), two linear layers for the box, four convolutions for the mask; torchvision's first form has these already
    (44.40 M parameters with ResNet-50 and 80 classes; papers print 44.2 M, without the 0.23 M that they freeze).
    """
    pyramid = Pyramid(backbone, extra=LastLevelMaxPool())
    strides = (*backbone.strides, 2 * backbone.strides[-1])
    net = MaskRCNN(
        pyramid,
        num_classes + 1,
        rpn_anchor_generator=StridedAnchors([[8 * stride] for stride in strides], RATIOS, strides),
        box_roi_pool=StridedRoIAlign(backbone.strides, 7),
        mask_roi_pool=StridedRoIAlign(backbone.strides, 14),
    )
    for layer in (net.rpn.head, net.roi_heads.box_predictor, net.roi_heads.mask_predictor):
        layer.register_forward_hook(to_float32)
    detector = Detector(name, net, first_label=1)
    predictors = ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
    detector.class_layers = tuple(f"net.roi_heads.{predictor}" for predictor in predictors)
    return detector
