"""Semantic FPN at any size: every pixel gets its logits, padding is invisible, half precision is finite."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.decoders.fpn.decoder import SegmentationBlock
from torch import Tensor, nn

from foveate.heads.semantic_fpn import LevelBlock

NAMES = ("fvit_tiny", "t2t_vit_7", "resnet10t")


@pytest.mark.parametrize("name", NAMES)
def test_every_pixel_of_any_picture_gets_logits(make, name: str) -> None:
    model = make(name, "semantic_fpn").eval()
    with torch.inference_mode():
        for height, width in ((32, 64), (1, 1), (1, 70), (37, 53), (63, 65)):
            logits = model(torch.randn(2, 3, height, width))
            assert logits.shape == (2, 3, height, width) and logits.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_is_zeros_at_the_end_and_cut_off_again(make, name: str) -> None:
    model = make(name, "semantic_fpn").eval()
    x = torch.randn(1, 3, 50, 41)
    with torch.inference_mode():
        assert torch.equal(model(x), model(F.pad(x, (0, 23, 0, 14)))[..., :50, :41])
        whole = F.pad(x, (0, 23, 0, 14))
        assert torch.equal(model(whole[..., :64, :64]), model(whole)), "a size that divides is not padded"


def test_logits_are_the_maps_enlarged_bilinearly(make) -> None:
    model = make("resnet10t", "semantic_fpn").eval()
    coarse: list[Tensor] = []
    handle = model.classifier.register_forward_hook(lambda _module, _given, output: coarse.append(output))
    with torch.inference_mode():
        logits = model(torch.randn(1, 3, 64, 96))
    handle.remove()
    assert coarse[0].shape == (1, 3, 16, 24), "stride 4"
    expected = F.interpolate(coarse[0], scale_factor=4, mode="bilinear", align_corners=False)
    torch.testing.assert_close(logits, expected)


def test_a_picture_does_not_depend_on_its_batch(make, pictures: Tensor) -> None:
    model = make("fvit_tiny", "semantic_fpn").eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(pictures)[:1], model(pictures[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_finite_logits_in_float32(make, pictures: Tensor, name: str) -> None:
    model = make(name, "semantic_fpn").eval()
    with torch.inference_mode():
        exact = model(pictures)
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(pictures)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max() + 0.1


@pytest.mark.parametrize("level", range(4))
def test_a_place_of_every_level_stays_over_its_own_pixels(level: int) -> None:
    block = LevelBlock(level)
    assert block.state_dict().keys() == SegmentationBlock(256, 128, n_upsamples=level).state_dict().keys()
    for layer in block.block:
        layer.block = nn.Identity()
    side = 2**level
    centres = (torch.arange(8.0) + 0.5) * side  # where each place stands, in places of the finest level
    fine = block(centres.expand(1, 1, 8, 8))
    assert fine.shape[-2:] == (8 * side, 8 * side)
    inner = slice(side, -side)
    torch.testing.assert_close(fine[0, 0, 0, inner], (torch.arange(8.0 * side) + 0.5)[inner])
