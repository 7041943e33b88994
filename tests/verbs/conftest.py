"""Real pictures on disk and a model small enough to be trained in a test."""

from pathlib import Path

import pytest

from foveate.data.digits import open_digits
from foveate.tasks.settings import TrainSettings

TINY_FVIT = {"widths": [8, 8, 8, 16], "depths": [1, 1, 1, 1], "stem_width": 8}


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory) -> Path:
    """Handwritten digits as PNG files in class folders: train/ 12 each of "one", "two", "zero", val/ 17 in all."""
    root = tmp_path_factory.mktemp("digits")
    digits = open_digits().train
    names = {0: "zero", 1: "one", 2: "two"}
    counts = dict.fromkeys(names, 0)
    val = 0
    for index, label in enumerate(digits.labels):
        if label in names:
            split = "train" if counts[label] < 12 else "val"
            if split == "val" and (val := val + 1) > 17:
                continue
            counts[label] += 1
            folder = root / split / names[label]
            folder.mkdir(parents=True, exist_ok=True)
            digits.open(index).save(folder / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def tiny(digit_folder) -> TrainSettings:
    """Two epochs of four steps on `digit_folder`, with averaging and mixing."""
    return TrainSettings(
        data=str(digit_folder),
        model="fvit_tiny",
        model_options=TINY_FVIT,
        img_size=16,
        small_images=False,
        epochs=2,
        batch_size=8,
        warmup_epochs=0.5,
        lr=0.05,
        ema_decay=0.9,
        accelerator="cpu",
        num_workers=0,
        rand_augment=2,
        drop_path=0.1,
    )
