"""Batches of pictures of different sizes, with what is on them: nothing is lost, moved or mixed up."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.card import WholePicture
from foveate.data.dense_transforms import DenseAugmentation, MaskTransform, ObjectTransform
from foveate.data.examples import PicturesWithMasks, PicturesWithObjects, stacked
from foveate.data.loader import equal_size_loader, stream_loader
from foveate.data.masks import MaskSet
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.data.order import TrainingStream
from foveate.data.sizes import input_sizes
from foveate.data.transforms import Example
from foveate.tasks.detect import targets

SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=5)
collate_objects = PicturesWithObjects.collate


def example(height: int, width: int, count: int, seed: int) -> Example:
    random = torch.Generator().manual_seed(seed)
    return {
        "image": torch.randn(3, height, width, generator=random),
        "boxes": torch.rand(count, 4, generator=random),
        "labels": torch.randint(0, 9, (count,), generator=random),
        "masks": torch.randint(0, 2, (count, height, width), generator=random).to(torch.uint8),
    }


@settings(deadline=None, max_examples=50)
@given(SIZES)
def test_a_batch_of_objects_gives_back_its_examples(sizes: list[tuple[int, int, int]]) -> None:
    examples = [example(*size, seed) for seed, size in enumerate(sizes)]
    batch = collate_objects(PicturesWithObjects.__new__(PicturesWithObjects), examples)
    height, width = max(size[0] for size in sizes), max(size[1] for size in sizes)
    assert batch["image"].shape == (len(sizes), 3, height, width)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert batch["size"].tolist() == [[*size[:2]] for size in sizes]
    assert batch["count"].tolist() == [size[2] for size in sizes]
    assert batch["masks"].shape == (sum(size[2] for size in sizes), height, width)
    for image, one, own in zip(batch["image"], examples, targets(batch), strict=True):
        _, h, w = one["image"].shape
        assert torch.equal(image[:, :h, :w], one["image"])
        assert not image[:, h:].any() and not image[:, :, w:].any()
        assert torch.equal(own["boxes"], one["boxes"]) and torch.equal(own["labels"], one["labels"])
        assert torch.equal(own["masks"][:, :h, :w], one["masks"])
        assert not own["masks"][:, h:].any() and not own["masks"][:, :, w:].any()


def test_batches_of_evaluation_hold_pictures_and_sizes_alone() -> None:
    images = [{"image": torch.ones(3, 4, 6)}, {"image": torch.ones(3, 5, 2)}]
    batch = collate_objects(PicturesWithObjects.__new__(PicturesWithObjects), images)
    assert set(batch) == {"image", "size"} == set(stacked([each["image"] for each in images]))
    assert batch["image"].sum() == 3 * (24 + 10)


@pytest.fixture
def objects(tmp_path: Path) -> ObjectSet:
    """Seven pictures, wide and tall in turns; picture i holds i % 3 objects of class i % 3, each i + 5 pixels wide."""
    files, annotated, sizes = [], [], []
    for number in range(7):
        width, height = (40, 30) if number % 2 else (24, 48)
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (width, height), (number * 30, 0, 0)).save(files[-1])
        box = (2.0, 3.0, number + 7.0, 20.0)
        outline = ((2.0, 3.0, number + 7.0, 3.0, number + 7.0, 20.0, 2.0, 20.0),)
        annotated.append([Annotated(number % 3, box, polygons=outline)] * (number % 3))
        sizes.append((width, height))
    return ObjectSet(files, ("a", "b", "c"), "train", (1, 2, 3), tuple(range(7)), np.array(sizes), gathered(annotated, np.array(sizes)))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_training_batches_of_objects_come_through_the_loader(objects: ObjectSet, num_workers: int) -> None:
    recipe = WholePicture(24, 60, mean=(0.0,) * 3, std=(1.0,) * 3)
    examples = PicturesWithObjects(objects, ObjectTransform(recipe, DenseAugmentation(), outlines=True))
    stream = TrainingStream(7, 3, 4, seed=0)
    batches = list(stream_loader(examples, stream, num_workers))
    assert [batch["index"].tolist() for batch in batches] == [[index for index, _ in step] for step in stream]
    for batch in batches:
        assert batch["count"].tolist() == [index % 3 for index in batch["index"].tolist()]
        for index, image, size, own in zip(batch["index"].tolist(), batch["image"], batch["size"].tolist(), targets(batch), strict=True):
            width, height = recipe.size(*objects.sizes[index].tolist())
            assert size == [height, width]
            assert image[0, height - 1, width - 1] == pytest.approx(index * 30 / 255, abs=0.01)
            assert own["labels"].tolist() == [index % 3] * (index % 3)
            scale = width / objects.sizes[index][0]
            for box, mask in zip(own["boxes"], own["masks"], strict=True):
                assert box[2] - box[0] == pytest.approx((index + 5) * scale, rel=1e-5)
                assert mask.any(dim=0).sum() == pytest.approx((index + 5) * scale, abs=1)


def test_evaluation_batches_need_no_padding(objects: ObjectSet) -> None:
    recipe = WholePicture(24, 60)
    loader = equal_size_loader(PicturesWithObjects(objects, ObjectTransform(recipe)), input_sizes(objects, recipe), 2, num_workers=0)
    batches = list(loader)
    assert sorted(index for batch in batches for index in batch["index"].tolist()) == list(range(7))
    for batch in batches:
        assert set(batch) == {"image", "size", "index"}
        assert batch["size"].tolist() == [list(batch["image"].shape[2:])] * len(batch["index"])


def test_batches_of_masks(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (20 + number, 30)).save(tmp_path / f"{number}.png")
        Image.new("L", (20 + number, 30), number).save(tmp_path / f"mask{number}.png")
    files = [tmp_path / f"{number}.png" for number in range(4)]
    masks = [tmp_path / f"mask{number}.png" for number in range(4)]
    pictures = MaskSet(files, ("a", "b", "c", "d"), "train", masks, (0, 1, 2, 3))
    examples = PicturesWithMasks(pictures, MaskTransform(WholePicture(20, 60), DenseAugmentation(crop=26)))
    (batch,) = stream_loader(examples, TrainingStream(4, 4, 1, seed=0), num_workers=0)
    assert batch["image"].shape == (4, 3, 26, 26) and batch["image"].is_contiguous(memory_format=torch.channels_last)
    assert (batch["mask"].shape, batch["mask"].dtype) == ((4, 26, 26), torch.uint8)
    for index, mask in zip(batch["index"].tolist(), batch["mask"], strict=True):
        assert mask.unique().tolist() == [index, 255]
    recipe = WholePicture(20, 60)
    loader = equal_size_loader(PicturesWithMasks(pictures, MaskTransform(recipe)), input_sizes(pictures, recipe), 4, num_workers=0)
    assert all(set(batch) == {"image", "size", "index"} for batch in loader)
