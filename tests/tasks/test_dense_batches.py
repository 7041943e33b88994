"""Detectors and segmenters are measured on whole pictures, each once, in batches of one size."""

import pytest
from lightning.fabric import Fabric

from foveate.card import WholePicture
from foveate.data.opening import open_data
from foveate.data.sizes import input_sizes
from foveate.tasks.dense_batches import whole_picture_batches


@pytest.mark.parametrize("kind", ["objects", "masks"])
def test_every_picture_comes_once_whole_and_without_padding(kind, coco_folder, mask_folder, tmp_path) -> None:
    folder = coco_folder(tmp_path / "data", outlines=False) if kind == "objects" else mask_folder(tmp_path / "data")
    pictures, recipe = open_data(folder).train, WholePicture(32, 48)
    fabric = Fabric(accelerator="cpu", devices=1)
    batches = list(whole_picture_batches(fabric, pictures, recipe, 2, 0))
    expected = input_sizes(pictures, recipe).tolist()
    seen = []
    for batch in batches:
        assert set(batch) == {"image", "size", "index"}
        height, width = batch["image"].shape[2:]
        for place, size in zip(batch["index"].tolist(), batch["size"].tolist(), strict=True):
            assert size == [height, width] == expected[place][::-1]
            seen.append(place)
    assert sorted(seen) == list(range(len(pictures)))
    assert max(len(batch["index"]) for batch in batches) == 2
