"""Boxes and masks stay on what they belong to, whatever happens to the picture; nothing is random in evaluation."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.card import WholePicture
from foveate.data.dense_transforms import DenseAugmentation, MaskTransform, ObjectTransform
from foveate.data.loader import preserved_random_numbers, seed_random_numbers
from foveate.data.masks import MaskSet
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.errors import UserError

PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # tensors are then values from 0 to 1
Box = tuple[int, int, int, int]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    with preserved_random_numbers():
        seed_random_numbers(seed)
        yield


def outlined(box: Box, label: int = 0, *, crowd: bool = False) -> Annotated:
    left, top, right, bottom = box
    return Annotated(label, box, crowd, ((left, top, right, top, right, bottom, left, bottom),))


class Painted(ObjectSet):
    """One picture, black with its first object's box in white; kept in memory."""

    def open(self, index: int) -> Image.Image:
        width, height = self.sizes[index].tolist()
        pixels = np.zeros((height, width, 3), np.uint8)
        left, top, right, bottom = self.objects.boxes[0].astype(int).tolist()
        pixels[top:bottom, left:right] = 255
        return Image.fromarray(pixels)


def painted(size: tuple[int, int], *objects: Annotated) -> ObjectSet:
    sizes = np.array([size])
    return Painted([Path("painted.png")], ("a", "b", "c"), "train", (1, 2, 3), (1,), sizes, gathered([objects], sizes))


RECTANGLES = st.tuples(st.integers(8, 90), st.integers(8, 90)).flatmap(
    lambda size: st.tuples(st.just(size), *(st.lists(st.integers(0, side), min_size=2, max_size=2, unique=True) for side in size))
)


def edges(bright: torch.Tensor) -> list[float]:
    """Where a brightness profile rises and falls through a half, in pixels and parts of them."""
    inside = (bright > 0.5).nonzero().flatten()
    return [float(inside[0]), float(inside[-1]) + 1]


@settings(deadline=None, max_examples=60)
@given(RECTANGLES, st.integers(0, 1), st.integers(16, 70), st.integers(0, 10_000))
def test_boxes_and_masks_enclose_what_is_bright(given_picture: Any, flip: int, short: int, seed: int) -> None:
    size, (left, right), (top, bottom) = given_picture[0], sorted(given_picture[1]), sorted(given_picture[2])
    pictures = painted(size, outlined((left, top, right, bottom), 2))
    transform = ObjectTransform(WholePicture(short, 120, **PLAIN), DenseAugmentation((0.6, 1.7), flip=flip), outlines=True)
    with seeded(seed):
        example = transform(pictures, 0)
    _, height, width = example["image"].shape
    across, down = width / size[0], height / size[1]
    expected = [left * across, top * down, right * across, bottom * down]
    if flip:
        expected = [width - expected[2], expected[1], width - expected[0], expected[3]]
    large = min(expected[2] - expected[0], expected[3] - expected[1]) >= 1
    assert len(example["boxes"]) == len(example["labels"]) == len(example["masks"]) == int(large)
    assert example["masks"].shape[1:] == (height, width) and example["masks"].dtype == torch.uint8
    if not large:
        return
    torch.testing.assert_close(example["boxes"], torch.tensor([expected]))
    assert (example["boxes"].dtype, example["labels"].dtype, example["labels"].tolist()) == (torch.float32, torch.int64, [2])
    mask = example["masks"][0].bool()
    if mask.any():
        columns, rows = mask.any(dim=0).nonzero().flatten(), mask.any(dim=1).nonzero().flatten()
        found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert all(abs(float(a) - b) <= 1 for a, b in zip(found, expected, strict=True))
    if min(expected[2] - expected[0], expected[3] - expected[1]) > 6 and min(across, down) > 0.5:
        bright = example["image"][0]
        seen = [edges(bright.amax(dim=0)), edges(bright.amax(dim=1))]
        found = [seen[0][0], seen[1][0], seen[0][1], seen[1][1]]
        assert all(abs(a - b) <= 1.1 + max(across, down) / 2 for a, b in zip(found, expected, strict=True))


def test_several_objects_keep_their_order_labels_and_masks() -> None:
    boxes = [(2, 3, 20, 30), (25, 5, 39, 28), (10, 10, 15, 12)]
    pictures = painted((40, 32), *(outlined(box, label) for label, box in enumerate(boxes)))
    example = ObjectTransform(WholePicture(64, 200, **PLAIN), DenseAugmentation(flip=1.0), outlines=True)(pictures, 0)
    assert example["labels"].tolist() == [0, 1, 2]
    for mask, (left, top, right, bottom) in zip(example["masks"], boxes, strict=True):
        expected = torch.zeros(64, 80, dtype=torch.uint8)
        expected[2 * top : 2 * bottom, 80 - 2 * right : 80 - 2 * left] = 1
        assert (mask != expected).sum() <= 2 * 2 * (2 * (right - left) + 2 * (bottom - top))
        assert mask[expected.bool()].float().mean() > 0.9
    assert "masks" not in ObjectTransform(WholePicture(64, 200), DenseAugmentation())(pictures, 0)


def test_crowds_and_degenerate_objects_are_never_targets() -> None:
    objects = [
        outlined((5, 5, 20, 20)),
        outlined((5, 5, 20, 20), crowd=True),
        outlined((10, 10, 10, 20)),
        outlined((20, 20, 10, 10)),
        outlined((60, 5, 80, 20)),  # outside
        outlined((30, 5, 80, 20), 1),  # half outside
        outlined((5, 30, 8, 33), 2),  # smaller than a pixel once resized
    ]
    example = ObjectTransform(WholePicture(10, 10, **PLAIN), DenseAugmentation(), outlines=True)(painted((50, 50), *objects), 0)
    assert example["boxes"].tolist() == [[1, 1, 4, 4], [6, 1, 10, 4]]
    assert example["labels"].tolist() == [0, 1]
    assert example["masks"].shape == (2, 10, 10)


def test_a_picture_without_objects_gives_empty_targets() -> None:
    example = ObjectTransform(WholePicture(16, 40, **PLAIN), DenseAugmentation(), outlines=True)
    found = example(painted((20, 40), outlined((1, 1, 9, 9), crowd=True)), 0)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "image": (3, 32, 16),
        "boxes": (0, 4),
        "labels": (0,),
        "masks": (0, 32, 16),
    }
    assert (found["boxes"].dtype, found["labels"].dtype) == (torch.float32, torch.int64)


class Pixels(MaskSet):
    """Pictures whose red is their own mask's class times 50, so that both can be compared."""

    def open(self, index: int) -> Image.Image:
        grey = self.mask(index) * 50
        return Image.fromarray(np.stack([grey] * 3, axis=-1))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], MaskSet]:
    folder = tmp_path_factory.mktemp("masks")

    def of(width: int, height: int) -> MaskSet:
        """Blocks of 8 x 8 pixels of one of four classes."""
        blocks = np.random.default_rng(width * 1000 + height).integers(0, 4, (-(-height // 8), -(-width // 8)), dtype=np.uint8)
        path = folder / f"{width}x{height}.png"
        Image.fromarray(blocks.repeat(8, 0).repeat(8, 1)[:height, :width]).save(path)
        return Pixels([path], ("a", "b", "c", "d"), "train", [path], (0, 1, 2, 3))

    return of


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(16, 60), st.integers(16, 80), st.integers(0, 1), st.integers(0, 10_000))
def test_crops_are_square_filled_up_and_the_mask_lies_on_the_picture(
    masked, width: int, height: int, short: int, crop: int, flip: int, seed: int
) -> None:
    recipe = WholePicture(short, 160, "nearest", **PLAIN)
    with seeded(seed):
        example = MaskTransform(recipe, DenseAugmentation((1.0, 1.0), crop, flip))(masked(width, height), 0)
    assert example["image"].shape == (3, crop, crop) and example["mask"].shape == (crop, crop)
    assert example["mask"].dtype == torch.uint8
    columns, rows = (min(crop, side) for side in recipe.size(width, height))
    inside = torch.zeros(crop, crop, dtype=torch.bool)
    inside[:rows, :columns] = True
    assert (example["mask"][~inside] == 255).all() and (example["mask"][inside] < 4).all()
    assert (example["image"][:, ~inside] == 0).all()
    assert torch.equal((example["image"][0] * 255 / 50).round()[inside], example["mask"][inside].float())


def test_a_mask_is_mirrored_with_its_picture(masked) -> None:
    pictures, recipe = masked(48, 40), WholePicture(40, 100, "nearest", **PLAIN)
    plain, mirrored = (MaskTransform(recipe, DenseAugmentation(flip=flip))(pictures, 0) for flip in (0.0, 1.0))
    assert plain["mask"].tolist() == pictures.mask(0).tolist()
    assert torch.equal(mirrored["mask"], plain["mask"].flip(1)) and torch.equal(mirrored["image"], plain["image"].flip(2))


def test_crops_reach_every_edge(masked) -> None:
    pictures = masked(64, 48)
    whole = pictures.mask(0)
    recipe = WholePicture(48, 100, "nearest", **PLAIN)
    corners = set()
    for draw in range(200):
        with seeded(draw):
            part = MaskTransform(recipe, DenseAugmentation(crop=44))(pictures, 0)["mask"].numpy()
        corners |= {(x, y) for x in range(21) for y in range(5) if np.array_equal(whole[y : y + 44, x : x + 44], part)}
    assert {x for x, _ in corners} == set(range(21)) and {y for _, y in corners} == set(range(5))


def test_the_same_seed_gives_the_same_picture_and_another_another(masked) -> None:
    pictures, recipe = masked(64, 48), WholePicture(48, 100, **PLAIN)
    transform = MaskTransform(recipe, DenseAugmentation((0.5, 2.0), 32, 0.5, 0.4))
    drawn = []
    for key in (1, 1, 2):
        with seeded(key):
            drawn.append(transform(pictures, 0)["image"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_sizes_are_drawn_from_the_whole_range() -> None:
    pictures = painted((100, 50), outlined((10, 10, 40, 40)))
    transform = ObjectTransform(WholePicture(40, 1000, **PLAIN), DenseAugmentation((0.5, 2.0)))
    heights = []
    for draw in range(60):
        with seeded(draw):
            heights.append(transform(pictures, 0)["image"].shape[1])
    assert min(heights) >= 20 and max(heights) <= 80 and min(heights) < 26 and max(heights) > 72


def test_colours_vary_and_boxes_do_not() -> None:
    pictures = painted((100, 50), outlined((10, 10, 40, 40)))
    recipe = WholePicture(50, 100, **PLAIN)
    plain, varied = (ObjectTransform(recipe, DenseAugmentation(color_jitter=strength)) for strength in (0.0, 0.4))
    changed = []
    for draw in range(8):
        with seeded(draw):
            one, other = plain(pictures, 0), varied(pictures, 0)
        assert torch.equal(one["boxes"], other["boxes"])
        changed.append(not torch.equal(one["image"], other["image"]))
    assert sum(changed) > 4, "white can become darker only"


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(1, 300))
def test_evaluation_is_the_recipe_and_nothing_else(width: int, height: int) -> None:
    pictures = painted((width, height), outlined((0, 0, max(1, width // 2), height)))
    recipe = WholePicture(24, 60, mean=(0.5,) * 3, std=(0.25,) * 3)
    before = random.getstate(), torch.get_rng_state()
    example = ObjectTransform(recipe)(pictures, 0)
    assert set(example) == {"image"}
    assert example["image"].shape == (3, *recipe.size(width, height)[::-1]) and example["image"].dtype == torch.float32
    pixels = np.asarray(pictures.open(0).resize(recipe.size(width, height), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    torch.testing.assert_close(example["image"], (torch.tensor(pixels / 255).float() - 0.5) / 0.25)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (4, "RGBA")])
def test_other_channels_can_be_varied_too(tmp_path: Path, channels: int, mode: str) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)).convert(mode).save(tmp_path / "a.png")
    Image.new("L", (40, 30)).save(tmp_path / "m.png")
    pictures = MaskSet([tmp_path / "a.png"], ("a",), "train", [tmp_path / "m.png"], (0,))
    recipe = WholePicture(24, 60, mean=(0.5,) * channels, std=(0.25,) * channels)
    example = MaskTransform(recipe, DenseAugmentation((0.5, 2.0), 32, 0.5, 0.4))(pictures, 0)
    assert example["image"].shape == (channels, 32, 32) and example["image"].isfinite().all()


@pytest.mark.parametrize("wrong", [{"scale": (1.2, 0.8)}, {"scale": (0.0, 1.0)}, {"flip": 1.5}, {"flip": -0.1}, {"color_jitter": -1.0}])
def test_impossible_variations_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"found .* expected"):
        DenseAugmentation(**wrong)
