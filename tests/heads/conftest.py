"""Detectors and segmenters on one small backbone of each family."""

from collections.abc import Callable

import pytest
import torch

from foveate.heads.create import create_dense
from foveate.heads.dense import DenseModel

TINY_FVIT = {"widths": (8, 8, 8, 16), "depths": (1, 1, 1, 1), "stem_width": 8}
BACKBONES = {"fvit_tiny": TINY_FVIT, "t2t_vit_7": {}, "resnet10t": {}}

Make = Callable[..., DenseModel]


def quickened(model: DenseModel) -> DenseModel:
    """Few regions of each picture go into the second stage of Mask R-CNN, where there is one."""
    net = getattr(model, "net", None)
    if hasattr(net, "roi_heads"):
        net.rpn._post_nms_top_n = {"training": 30, "testing": 30}
        net.roi_heads.fg_bg_sampler.batch_size_per_image = 12
    return model


@pytest.fixture(scope="module")
def make() -> Make:
    """`make("resnet10t", "retinanet")`: a model of three classes in training mode, one and the same for all that ask in a file."""
    made: dict[tuple[str, str], DenseModel] = {}

    def of(name: str, head: str) -> DenseModel:
        if (name, head) not in made:
            torch.manual_seed(0)
            made[name, head] = quickened(create_dense(name, head, 3, **BACKBONES[name])[0])
        model = made[name, head]
        model.zero_grad()
        return model.train()

    return of


@pytest.fixture(scope="session")
def pictures() -> torch.Tensor:
    """(2, 3, 64, 64) noise."""
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def targets() -> list[dict[str, torch.Tensor]]:
    """Two objects on the first picture, none on the second."""
    boxes = torch.tensor([[4.0, 6.0, 30.0, 40.0], [10.0, 10.0, 50.0, 60.0]])
    masks = torch.zeros(2, 64, 64, dtype=torch.uint8)
    masks[0, 6:40, 4:30] = masks[1, 10:60, 10:50] = 1
    full = {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}
    return [full, {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]}]


@pytest.fixture(scope="session")
def lenient() -> Callable[[DenseModel], DenseModel]:
    """`lenient(detector)`: it reports its seven surest guesses per picture, however unsure they are."""

    def of(detector: DenseModel) -> DenseModel:
        judge = getattr(detector.net, "roi_heads", detector.net)
        judge.score_thresh, judge.detections_per_img = 0.0, 7
        return quickened(detector)

    return of
