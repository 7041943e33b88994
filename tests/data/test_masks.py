"""Masks of numbers: grey, palette and two-valued files, values that are not declared, parts of sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data.masks import MaskSet
from foveate.errors import UserError


def mask_set(path: Path, image: Image.Image, values: tuple[int, ...] = (0, 1), ignored: tuple[int, ...] = (255,)) -> MaskSet:
    image.save(path)
    return MaskSet([path.with_suffix(".jpg")], ("a", "b", "c", "d")[: len(values)], "train", [path], values, ignored)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_numbers_of_every_pixel_type(tmp_path: Path, mode: str) -> None:
    numbers = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    image = Image.fromarray(numbers)
    if mode == "P":
        image = Image.frombytes("P", (3, 2), numbers.tobytes())
        image.putpalette([200, 0, 0, 0, 200, 0])
    if mode == "1":
        image = Image.fromarray(numbers.astype(bool))
    found = mask_set(tmp_path / "m.png", image).mask(0)
    assert (found.dtype, found.tolist()) == (np.uint8, numbers.tolist())


def test_values_are_mapped_and_ignored_ones_are_255(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 7, 9, 255]], np.uint8))
    assert mask_set(tmp_path / "m.png", image, (9, 7), (0, 255)).mask(0).tolist() == [[255, 1, 0, 255]]
    assert mask_set(tmp_path / "m.png", image, (0, 7, 9, 255), ()).mask(0).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("undeclared", [2, 128, 254, 255])
def test_undeclared_values_are_named_with_the_file(tmp_path: Path, undeclared: int) -> None:
    image = Image.fromarray(np.array([[0, 1, undeclared]], np.uint8))
    with pytest.raises(UserError, match=rf"m.png: found the mask values {undeclared}, expected 0 \(a\), 1 \(b\)"):
        mask_set(tmp_path / "m.png", image, ignored=()).mask(0)


def test_pictures_of_colours_are_no_masks(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m.png: found a mask of pixel type RGB, expected numbers of 8 bits"):
        mask_set(tmp_path / "m.png", Image.new("RGB", (3, 2))).mask(0)
    with pytest.raises(UserError, match=r"m.png: found a mask of pixel type I;16"):
        mask_set(tmp_path / "m.png", Image.fromarray(np.zeros((2, 3), np.uint16))).mask(0)


def test_a_part_keeps_pictures_and_masks_together() -> None:
    files = [Path(f"{place}.jpg") for place in range(4)]
    whole = MaskSet(files, ("a",), "train", [path.with_suffix(".png") for path in files], (0,))
    part = whole.take([2, 0], "val")
    assert (part.split, [path.name for path in part.files], [path.name for path in part.masks]) == (
        "val",
        ["2.jpg", "0.jpg"],
        ["2.png", "0.png"],
    )
