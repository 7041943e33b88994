"""Settings for all tests; small generated sets for detection and segmentation: bright rectangles of two colours on grey noise."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from command_line import Command, command_line

settings.register_profile("untimed", deadline=None)  # a busy machine is no defect
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def foveate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    """The command line."""
    with command_line(tmp_path_factory.mktemp("commands")) as command:
        yield command


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


COLOURS = {"red": (230, 40, 40), "blue": (40, 40, 230)}
CATEGORIES = [{"id": 3, "name": "red"}, {"id": 7, "name": "blue"}]


def scene(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[tuple[int, tuple[int, int, int, int]]]]:
    """Pixels, classes (0 ground, 1 red, 2 blue) and objects (class, (left, top, width, height)); sizes differ, wide and tall."""
    width, height = (80, 64) if random.random() < 0.5 else (64, 72)
    pixels = random.integers(90, 130, (height, width, 3), dtype=np.uint8)
    classes = np.zeros((height, width), dtype=np.uint8)
    objects = []
    for kind in range(1, 1 + int(random.integers(1, 3))):
        w, h = (int(side) for side in random.integers(20, 30, 2))
        left, top = (kind - 1) * 32, int(random.integers(0, height - h))
        pixels[top : top + h, left : left + w] = list(COLOURS.values())[kind - 1]
        classes[top : top + h, left : left + w] = kind
        objects.append((kind, (left, top, w, h)))
    return pixels, classes, objects


def write_coco(folder: Path, *, outlines: bool, pictures: tuple[int, int] = (6, 4)) -> Path:
    """`annotations/instances_{train,val}.json` with category numbers 3 and 7, one picture without objects and one crowd each."""
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for split, count in zip(("train", "val"), pictures, strict=True):
        random = np.random.default_rng(len(split))
        images, annotations = [], []
        for number in range(count):
            pixels, _, objects = scene(random)
            name = f"{split}_{number}.jpg"
            Image.fromarray(pixels).save(folder / "images" / name, quality=95)
            images.append({"id": 10 + number, "file_name": name, "width": pixels.shape[1], "height": pixels.shape[0]})
            for kind, (x, y, w, h) in objects if number else []:
                entry = {"id": len(annotations) + 1, "image_id": 10 + number, "category_id": CATEGORIES[kind - 1]["id"]}
                entry |= {"bbox": [x, y, w, h], "area": w * h, "iscrowd": int(number == 1 and kind == 2)}
                if outlines:
                    entry["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                    if entry["iscrowd"]:
                        mask = np.zeros(pixels.shape[:2], dtype=np.uint8)
                        mask[y : y + h, x : x + w] = 1
                        entry["segmentation"] = {"size": list(mask.shape), "counts": uncompressed(mask)}
                annotations.append(entry)
        content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return folder


def uncompressed(mask: np.ndarray) -> list[int]:
    """COCO's run lengths of a mask as a list: zeros first, column by column."""
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], edges, [len(flat)]])).tolist()
    return runs if flat[0] == 0 else [0, *runs]


def write_masks(folder: Path, *, pictures: tuple[int, int] = (6, 4)) -> Path:
    """`images/` and `masks/` by split with `classes.txt`; a border of every mask has no class."""
    folder.mkdir()
    (folder / "classes.txt").write_text("ground\nred\nblue\n")
    for split, count in zip(("train", "val"), pictures, strict=True):
        random = np.random.default_rng(len(split))
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            pixels, classes, _ = scene(random)
            classes[:2] = 255
            Image.fromarray(pixels).save(folder / "images" / split / f"{number}.png")
            Image.fromarray(classes).save(folder / "masks" / split / f"{number}.png")
    return folder


@pytest.fixture(scope="session")
def coco_folder():
    """`write_coco`."""
    return write_coco


@pytest.fixture(scope="session")
def mask_folder():
    """`write_masks`."""
    return write_masks
