"""torchvision's detectors on our backbones: where anchors and regions lie, how classes are counted, padding, odd inputs."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from foveate.heads.detector import StridedAnchors, StridedRoIAlign

HEADS = ("retinanet", "mask_rcnn")
PAIRS = [("fvit_tiny", "retinanet"), ("t2t_vit_7", "retinanet"), ("resnet10t", "retinanet"), ("resnet10t", "mask_rcnn")]


def expected_anchors(sizes: list[float], stride: float, rows: int, columns: int) -> np.ndarray:
    """(rows * columns * n, 4): around every place, ratio (height : width) by ratio, size by size; sides rounded about the centre."""
    ratios, sides = np.meshgrid((0.5, 1.0, 2.0), sizes, indexing="ij")
    half = np.round(np.stack((sides / np.sqrt(ratios), sides * np.sqrt(ratios)), axis=-1).reshape(1, -1, 2) / 2)
    ys, xs = np.meshgrid(np.arange(rows) * stride, np.arange(columns) * stride, indexing="ij")
    centre = np.stack((xs, ys), axis=-1).reshape(-1, 1, 2)
    return np.concatenate((centre - half, centre + half), axis=-1).reshape(-1, 4)


def anchors_on(generator: StridedAnchors, side: int, maps: list[Tensor]) -> Tensor:
    (boxes,) = generator(ImageList(torch.zeros(1, 3, side, side), [(side, side)]), maps)
    return boxes


def cells(side: int, strides: tuple[float, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.zeros(1, 1, math.ceil(side / stride), math.ceil(side / stride), dtype=dtype) for stride in strides]


def test_retinanet_has_nine_anchors_a_place_at_fixed_strides(make) -> None:
    generator = make("resnet10t", "retinanet").net.anchor_generator
    strides = (8, 16, 32, 64, 128)
    assert generator.strides == strides and generator.num_anchors_per_location() == [9] * 5
    maps = cells(800, strides)
    assert [x.shape[-1] for x in maps] == [100, 50, 25, 13, 7], "800 / 13 is no stride of 64"
    found = anchors_on(generator, 800, maps).split([9 * x.shape[-1] ** 2 for x in maps])
    for boxes, stride, x in zip(found, strides, maps, strict=True):
        sizes = [4 * stride * 2 ** (third / 3) for third in range(3)]
        expected = expected_anchors(sizes, stride, x.shape[-2], x.shape[-1])
        # sides of exactly half a pixel may be rounded either way
        assert np.abs(boxes.numpy() - expected).max() <= 1
        assert np.abs(boxes.numpy() - expected).mean() < 0.01
        torch.testing.assert_close((boxes[:, :2] + boxes[:, 2:]) / 2, torch.tensor((expected[:, :2] + expected[:, 2:]) / 2).float())


def test_mask_rcnn_has_three_anchors_a_place_of_eight_strides(make) -> None:
    generator = make("fvit_tiny", "mask_rcnn").net.rpn.anchor_generator
    strides = (4, 8, 16, 32, 64)
    assert generator.strides == strides and generator.num_anchors_per_location() == [3] * 5
    maps = cells(96, strides)
    found = anchors_on(generator, 96, maps).split([3 * x.shape[-1] ** 2 for x in maps])
    for boxes, stride, x in zip(found, strides, maps, strict=True):
        assert np.abs(boxes.numpy() - expected_anchors([8 * stride], stride, x.shape[-2], x.shape[-1])).max() <= 1


def test_anchors_lie_where_the_strides_of_small_forms_and_of_odd_patches_say() -> None:
    generator = StridedAnchors([[8.0], [8.0]], (1.0,), (1, 3.5))
    small, odd = anchors_on(generator, 14, cells(14, (1, 3.5))).split([14 * 14, 4 * 4])
    for boxes, stride, side in ((small, 1, 14), (odd, 3.5, 4)):
        centres = ((boxes[:, :2] + boxes[:, 2:]) / 2).reshape(side, side, 2)
        assert centres[2, 3].tolist() == [3 * stride, 2 * stride]


def test_anchors_are_exact_whatever_type_the_maps_are(make) -> None:
    """In bfloat16 a coordinate beyond 1024 is a multiple of 8."""
    strides = (8, 16, 32, 64, 128)
    generator = copy.deepcopy(make("resnet10t", "retinanet").net.anchor_generator)
    exact = anchors_on(generator, 1344, cells(1344, strides))
    rounded = anchors_on(generator, 1344, cells(1344, strides, torch.bfloat16))
    assert rounded.dtype == torch.float32 and torch.equal(rounded, exact)
    assert torch.equal(anchors_on(generator, 1344, cells(1344, strides)), exact), "and stay so"


def rows_of(strides: tuple[float, ...], height: int, width: int) -> dict[str, Tensor]:
    """Maps of two channels: the level's number, and the y in pixels of each place, counted from the first one's as torchvision does."""
    maps = {}
    for level, stride in enumerate(strides):
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        places = torch.arange(rows) * float(stride)
        maps[str(level)] = torch.stack((torch.full((rows, columns), float(level)), places[:, None].expand(rows, columns)))[None]
    return maps


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (1, 2, 4, 8), (3.5, 7, 14, 28)])
def test_regions_are_cut_out_where_they_lie_and_from_the_level_of_their_size(strides: tuple[float, ...]) -> None:
    pool = StridedRoIAlign(strides, 1)
    boxes = torch.tensor([[40.0, 60.0, 40.0 + side, 60.0 + side] for side in (10, 100, 113, 225, 449)])
    found = pool(rows_of(strides, 1024, 1024), [boxes], [(1024, 1024)])[:, :, 0, 0]
    # stride 16 for 224 to 447 pixels, by factors of two; small and odd forms have other finest and coarsest strides
    level_of_16 = round(math.log2(16 / strides[0]))
    levels = [min(max(level_of_16 + shift, 0), 3) for shift in (-5, -2, -1, 0, 1)]
    assert found[:, 0].tolist() == levels
    torch.testing.assert_close(found[:, 1], boxes[:, [1, 3]].mean(dim=1), atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 20), st.integers(2, 20), st.integers(0, 100))
def test_regions_are_torchvisions_wherever_it_guesses_the_strides_right(height: int, width: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    size = (32 * height, 32 * width)
    maps = {str(level): torch.randn(1, 2, size[0] // s, size[1] // s, generator=random) for level, s in enumerate((4, 8, 16, 32))}
    corners = torch.rand(6, 2, 2, generator=random).sort(dim=1).values * torch.tensor(size[::-1])
    boxes = corners.reshape(6, 4)
    theirs = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)
    assert torch.equal(StridedRoIAlign((4, 8, 16, 32), 7)(maps, [boxes], [size]), theirs(maps, [boxes], [size]))


def test_the_first_picture_does_not_settle_the_scale_of_all(make, lenient, pictures: Tensor) -> None:
    fresh, used = (lenient(copy.deepcopy(make("resnet10t", "mask_rcnn"))).eval() for _ in range(2))
    with torch.inference_mode():
        used(torch.randn(1, 3, 5, 64))  # lower than one and a half strides
        for a, b in zip(fresh(pictures), used(pictures), strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_boxes_lie_inside_their_picture_and_labels_count_from_zero(make, lenient, name: str, head: str) -> None:
    model = lenient(copy.deepcopy(make(name, head))).eval()
    sizes = torch.tensor([[37, 70], [64, 33], [1, 64]])
    with torch.inference_mode():
        found = model(10 * torch.randn(3, 3, 64, 70), sizes)
    assert len(found) == 3
    for objects, (height, width) in zip(found, sizes.tolist(), strict=True):
        boxes = objects["boxes"]
        assert (boxes >= 0).all() and (boxes[:, [0, 2]] <= width).all() and (boxes[:, [1, 3]] <= height).all()
        assert objects["labels"].min() >= 0 and objects["labels"].max() < 3
        assert objects["scores"].dtype == boxes.dtype == torch.float32
        assert ("masks" in objects) == (head == "mask_rcnn")
        if head == "mask_rcnn":
            assert objects["masks"].shape == (len(boxes), 1, 28, 28)
    assert all(len(objects["boxes"]) for objects in found[:2])


@pytest.mark.parametrize(("head", "first"), [("retinanet", 0), ("mask_rcnn", 1)])
def test_a_head_that_says_one_class_only_says_its_place(make, lenient, pictures: Tensor, head: str, first: int) -> None:
    """The classifier's bias is set by hand: class 2, whose logit comes behind the background's where there is one."""
    model = lenient(copy.deepcopy(make("resnet10t", head))).eval()
    classifier = model.get_submodule(model.class_layers[0])
    torch.nn.init.zeros_(classifier.weight)
    wanted = torch.full((3 + first,), -9.0)
    wanted[2 + first] = 9.0
    classifier.bias.data = wanted.repeat(len(classifier.bias) // len(wanted))
    with torch.inference_mode():
        for objects in model(pictures):
            sure = objects["labels"][objects["scores"] > 0.9]
            assert len(sure) and (sure == 2).all()


def remember(module: torch.nn.Module) -> list[Any]:
    """What `module` is given and gives, call by call."""
    calls: list[Any] = []
    module.register_forward_hook(lambda _module, given, output: calls.append((given, output)))
    return calls


@pytest.mark.parametrize(("head", "first"), [("retinanet", 0), ("mask_rcnn", 1)])
def test_targets_reach_torchvision_counted_as_it_counts(make, pictures: Tensor, targets, head: str, first: int) -> None:
    model = copy.deepcopy(make("resnet10t", head))
    calls = remember(model.net)
    model(pictures, None, targets)
    assert [given["labels"].tolist() for given in calls[0][0][1]] == [[first, 2 + first], []]
    assert targets[0]["labels"].tolist() == [0, 2], "the caller's own are as they were"


def dense_outputs(model: Any, head: str) -> list[Any]:
    return remember(model.net.head if head == "retinanet" else model.net.rpn.head)


def tensors_in(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    return [tensor for each in (output.values() if isinstance(output, dict) else output) for tensor in tensors_in(each)]


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_the_largest_picture_does_not_depend_on_its_neighbours(make, lenient, name: str, head: str) -> None:
    """A picture that fills its batch is given as if it were alone, and whatever lies in the others' padding is not seen."""
    model = lenient(copy.deepcopy(make(name, head))).eval()
    calls = dense_outputs(model, head)
    large, small = torch.randn(1, 3, 60, 90), torch.randn(1, 3, 40, 52)
    batch = torch.cat((large, torch.nn.functional.pad(small, (0, 38, 0, 20))))
    littered = batch.clone()
    littered[1, :, 40:], littered[1, :, :, 52:] = 1e3, -1e3
    sizes = torch.tensor([[60, 90], [40, 52]])
    with torch.inference_mode():
        model(large)
        model(batch, sizes)
        model(littered, sizes)
    alone, together, with_litter = (tensors_in(output) for _, output in calls)
    for one, two, three in zip(alone, together, with_litter, strict=True):
        torch.testing.assert_close(one[0], two[0], atol=1e-4, rtol=1e-4)
        assert torch.equal(two, three)


@pytest.mark.parametrize("head", HEADS)
def test_pictures_without_objects_and_of_one_pixel_can_be_learnt_from(make, pictures: Tensor, targets, head: str) -> None:
    model = make("fvit_tiny", head)
    losses = model(pictures, None, [targets[1]] * 2)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    tiny = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([1]), "masks": torch.ones(1, 1, 1, dtype=torch.uint8)}
    losses = model(torch.randn(1, 3, 1, 1), None, [tiny])
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("head", HEADS)
def test_half_precision_gives_finite_losses_in_float32(make, pictures: Tensor, targets, head: str) -> None:
    model = make("fvit_tiny", head)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(pictures, None, targets)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(loss.isfinite() for loss in losses.values())
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(pictures, None, targets)
    torch.manual_seed(0)
    exact = model(pictures, None, targets)
    for name in exact:
        torch.testing.assert_close(rough[name], exact[name], atol=0.05, rtol=0.1)


def test_half_precision_finds_boxes_and_scores_in_float32(make, lenient: Callable[..., Any], pictures: Tensor) -> None:
    for head in HEADS:
        model = lenient(copy.deepcopy(make("resnet10t", head))).eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for objects in model(pictures):
                assert objects["boxes"].dtype == objects["scores"].dtype == torch.float32
