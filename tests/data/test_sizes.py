"""Sizes of pictures without decoding them, and what a recipe makes of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.card import WholePicture
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet, gathered
from foveate.data.sizes import SAMPLE, input_sizes, median_side, sizes_of, stored_sizes, wide_or_tall
from foveate.errors import UserError

SIZES = [(40, 30), (30, 40), (30, 30), (7, 90)]


@pytest.fixture
def masks(tmp_path: Path) -> MaskSet:
    files = []
    for number, size in enumerate(SIZES):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", size).save(files[-1])
    return MaskSet(files, ("a",), "train", files, (0,))


def test_sizes_are_read_from_the_files(masks: MaskSet) -> None:
    assert stored_sizes(masks).tolist() == [list(size) for size in SIZES]
    assert wide_or_tall(masks).tolist() == [1, 0, 1, 0]
    assert input_sizes(masks, WholePicture(15, 45)).tolist() == [[20, 15], [15, 20], [15, 15], [4, 45]]
    assert median_side(masks) == 30


def test_a_picture_that_lies_on_its_side_is_measured_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    assert stored_sizes(MaskSet([tmp_path / "a.jpg"], ("a",), "train", [tmp_path / "a.jpg"], (0,))).tolist() == [[30, 40]]


def test_pictures_that_cannot_be_opened_are_counted_and_the_first_is_named(masks: MaskSet) -> None:
    files = list(masks.files)
    assert sizes_of(files).tolist() == [list(size) for size in SIZES]
    assert sizes_of([]).shape == (0, 2)
    for file in files[1:3]:
        file.write_bytes(b"no picture")
    for measure in (lambda: sizes_of(files), lambda: stored_sizes(masks)):
        with pytest.raises(UserError, match=r"1\.png.* \(and 1 more pictures like it\)") as error:
            measure()
        assert "\n" not in str(error.value)


def test_annotated_sizes_open_no_file() -> None:
    sizes = np.array([[640, 480], [480, 640]])
    objects = ObjectSet([Path("absent.jpg")] * 2, ("a",), "val", (1,), (1, 2), sizes, gathered([[], []], sizes))
    assert stored_sizes(objects).tolist() == sizes.tolist()
    assert wide_or_tall(objects).tolist() == [1, 0]


@given(st.integers(1, 5 * SAMPLE))
def test_the_median_looks_at_a_part_of_the_set_only(count: int) -> None:
    opened = []

    class Grey(MaskSet):
        def open(self, index: int) -> Image.Image:
            opened.append(index)
            return Image.new("L", (9, 7))

    assert median_side(Grey([Path("x")] * count, ("a",), "train", [Path("x")] * count, (0,))) == 7
    assert min(count, SAMPLE // 2) <= len(opened) <= SAMPLE
    assert len(set(opened)) == len(opened) and max(opened) < count


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(16, 900), st.integers(0, 900))
def test_the_recipe_keeps_proportions_within_its_limits(width: int, height: int, short: int, more: int) -> None:
    recipe = WholePicture(short, short + more)
    new = recipe.size(width, height)
    assert min(new) <= short and max(new) <= short + more and min(new) >= 1
    assert min(new) == short or max(new) == short + more
    scale = min(short / min(width, height), (short + more) / max(width, height))
    assert all(abs(side - max(1, old * scale)) <= 0.5 for side, old in zip(new, (width, height), strict=True))
