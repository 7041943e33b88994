"""Any network's maps: where they lie, how wide they are, what is left of the network, and what its batch norms do."""

import pytest
import torch
from torch import nn

from foveate.errors import UserError
from foveate.factory import create_model
from foveate.heads.backbone import Backbone, MapNorms, PlainPyramid
from foveate.heads.create import create_dense

# timm's test_* are its own tiny members of a family
FAMILIES = {
    "fvit_tiny": ({}, (4, 8, 16, 32), (64, 128, 256, 512), MapNorms),
    "fvit_tiny_dp": ({}, (4, 8, 16, 32), (64, 128, 256, 512), MapNorms),
    "fvit_tiny, small": ({"small_images": True}, (1, 2, 4, 8), (64, 128, 256, 512), MapNorms),
    "t2t_vit_7": ({}, (4, 8, 16, 32), (64, 128, 256, 256), PlainPyramid),
    "t2t_vit_7, small": ({"small_images": True}, (1, 2, 4, 8), (64, 128, 256, 256), PlainPyramid),
    "t2t_vit_7, patches": ({"token_stage": "none"}, (4, 8, 16, 32), (64, 128, 256, 256), PlainPyramid),
    "resnet18": ({}, (4, 8, 16, 32), (64, 128, 256, 512), nn.Identity),
    "deit_tiny_patch16_224": ({"depth": 2}, (4, 8, 16, 32), (48, 96, 192, 192), PlainPyramid),
    "test_vit": ({"patch_size": 14}, (3.5, 7, 14, 28), (16, 32, 64, 64), PlainPyramid),
    "swin_tiny_patch4_window7_224": ({"depths": (1, 1, 1, 1)}, (4, 8, 16, 32), (96, 192, 384, 768), MapNorms),
    "convnext_atto": ({"depths": (1, 1, 1, 1)}, (4, 8, 16, 32), (40, 80, 160, 320), MapNorms),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_four_maps_lie_where_their_strides_say(case: str) -> None:
    options, strides, channels, neck = FAMILIES[case]
    backbone = create_dense(case.partition(",")[0], "semantic_fpn", 3, **options)[0].backbone
    assert (backbone.strides, backbone.channels, type(backbone.neck)) == (strides, channels, neck)
    assert backbone.multiple == strides[-1]
    height, width = 2 * backbone.multiple, 3 * backbone.multiple
    with torch.inference_mode():
        maps = backbone(torch.randn(1, 3, height, width))
    assert [tuple(x.shape[1:]) for x in maps] == [
        (wide, height / stride, width / stride) for wide, stride in zip(channels, strides, strict=True)
    ]
    assert not [name for name, _ in backbone.named_parameters() if ".fc." in name or name.startswith("network.head")], "no classifier"


@pytest.mark.parametrize("name", ["resnet10t", "t2t_vit_7"])
def test_the_finest_maps_can_be_left_out(name: str) -> None:
    whole, coarse = (Backbone(create_model(name, num_classes=0), name, finest=finest) for finest in (0, 1))
    assert (coarse.strides, coarse.channels) == (whole.strides[1:], whole.channels[1:])
    coarse.network.load_state_dict(whole.network.state_dict())
    if whole.plain:
        assert [len(backbone.neck.ways) for backbone in (whole, coarse)] == [4, 3], "what made the finest map is not built"
        coarse.neck.ways.load_state_dict(whole.neck.ways[1:].state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        for a, b in zip(whole.eval()(x)[1:], coarse.eval()(x), strict=True):
            assert torch.equal(a, b)


def test_maps_of_networks_without_batch_norm_are_normed() -> None:
    backbone = create_dense("convnext_atto", "retinanet", 3, depths=(1, 1, 1, 1))[0].backbone
    with torch.inference_mode():
        maps = backbone(100 * torch.randn(1, 3, 64, 64))
    for x in maps:
        torch.testing.assert_close(x.mean(dim=1), torch.zeros_like(x[:, 0]), atol=1e-4, rtol=0)
        torch.testing.assert_close(x.var(dim=1, unbiased=False), torch.ones_like(x[:, 0]), atol=1e-2, rtol=0)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
@pytest.mark.parametrize("frozen", [True, False])
def test_statistics_of_batch_norm_stay_only_where_they_are_frozen(name: str, frozen: bool) -> None:
    backbone = Backbone(create_model(name, num_classes=0), name, frozen_statistics=frozen).train()
    before = {key: value.clone() for key, value in backbone.named_buffers() if "running" in key or "num_batches" in key}
    assert before
    backbone(torch.randn(2, 3, 64, 64))
    same = [torch.equal(value, before[key]) for key, value in backbone.named_buffers() if key in before]
    assert all(same) if frozen else not any(same)
    assert backbone.training, "drop path and the like stay on"
    assert all(parameter.requires_grad for parameter in backbone.parameters()), "scale and shift still learn"


def test_frozen_statistics_are_used_in_training_too() -> None:
    backbone = Backbone(create_model("resnet10t", num_classes=0), "resnet10t", frozen_statistics=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for trained, evaluated in zip(backbone.train()(x), backbone.eval()(x), strict=True):
            assert torch.equal(trained, evaluated)


def test_a_network_that_tells_nothing_of_its_maps_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="model mine: found a network that gives no feature maps") as error:
        Backbone(nn.Linear(3, 3), "mine")
    assert "\n" not in str(error.value)
