"""Detectors and segmenters by the names of their backbone and head."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
from torch import nn

from foveate.errors import UserError
from foveate.factory import create_model, list_models, weight_file
from foveate.heads.backbone import Backbone
from foveate.heads.dense import DenseModel
from foveate.heads.mask_rcnn import mask_rcnn
from foveate.heads.retinanet import FINEST, retinanet
from foveate.heads.semantic_fpn import SemanticFPN
from foveate.weights.load import LoadReport, load_file
from foveate.weights.readers import read_weights

Build = Callable[[Backbone, str, int], DenseModel]

# Each head, and how many of the finest maps it leaves out.
HEADS: Mapping[str, tuple[Build, int]] = {"retinanet": (retinanet, FINEST), "mask_rcnn": (mask_rcnn, 0), "semantic_fpn": (SemanticFPN, 0)}
# How networks of timm that are made for one size are told to take any, tried in this order.
ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})


def create_dense(
    name: str,
    head: str,
    num_classes: int,
    weights: str | Path | None = None,
    *,
    in_chans: int = 3,
    freeze_batch_norm: bool = False,
    **options: Any,
) -> tuple[DenseModel, LoadReport | None]:
    """A head on a backbone, and what became of the weights.

    Args:
        name: of `foveate models`, or any of timm that gives feature maps.
        head: "retinanet", "mask_rcnn" or "semantic_fpn".
        num_classes: without a background.
        weights: a file or run folder: of a classifier, which fills the backbone, or of a model with the same backbone and head; layers that
            depend on the number of classes stay fresh where it differs.
        in_chans: channels of the pictures.
        freeze_batch_norm: see `Backbone`.
        options: further arguments of the backbone.

    Raises:
        UserError: for unknown names and options, a backbone without feature maps or of one size only, and weights that do not fit.
    """
    if head not in HEADS:
        raise UserError(f"head: found {head!r}, expected one of {', '.join(HEADS)}")
    network = _network(name, in_chans, options)
    build, finest = HEADS[head]

    def whole() -> DenseModel:
        return build(Backbone(network, name, finest=finest, frozen_statistics=freeze_batch_norm), name, num_classes)

    if weights is None:
        return whole(), None
    file = weight_file(weights)
    content = read_weights(file)
    if content.card is None or content.card.task == "classify":
        report = load_file(network, content, file)  # before the backbone loses what lies behind its last map
        return whole(), report
    if content.card.head != head:
        found = f"found weights of a {content.card.head} on {content.card.model}"
        raise UserError(f"{weights}: {found}, expected {head} on {name}; choose --head")
    model = whole()
    return model, load_file(model, content, file)


def _network(name: str, in_chans: int, options: dict[str, Any]) -> nn.Module:
    """The network without classifier, ready for pictures of any size."""
    if name in list_models() or not timm.is_model(name) or not timm.get_pretrained_cfg(name).fixed_input_size:
        return create_model(name, num_classes=0, in_chans=in_chans, **options)
    for flexible in ANY_SIZE:
        try:
            return create_model(name, num_classes=0, in_chans=in_chans, **{**flexible, **options})
        except UserError:
            continue
    create_model(name, num_classes=0, in_chans=in_chans, **options)  # says so where it is the options that do not fit
    raise UserError(f"model {name}: found a network for pictures of one size only, expected one that takes any; choose another backbone")
