from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from foveate.card import Preprocessing
from foveate.data.digits import open_digits
from foveate.data.pictures import PictureSet
from foveate.tasks.preparation import median_side, prepare_model, preprocessing_of
from foveate.tasks.settings import TrainSettings

CONFIG = {"crop_pct": 0.875, "interpolation": "bicubic", "mean": (0.4, 0.5, 0.6), "std": (0.1, 0.2, 0.3)}
SETTINGS = TrainSettings(model="fvit_tiny", model_options={"widths": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "stem_width": 8})


def pictures_of(sizes, folder):
    files = []
    for number, (width, height) in enumerate(sizes):
        files.append(folder / f"{number}.png")
        Image.fromarray(np.zeros((height, width), dtype=np.uint8)).save(files[-1])
    return PictureSet(tuple(files), tuple(n % 2 for n in range(len(files))), ("a", "b"), "train")


def test_published_evaluation_of_both_families():
    assert preprocessing_of(CONFIG, 224, 3) == Preprocessing((224, 224), 256, "bicubic", (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert preprocessing_of({**CONFIG, "crop_pct": 224 / 248}, 224, 3).resize == 248
    assert preprocessing_of(CONFIG, 384, 3).resize == 439


def test_small_pictures_are_not_cropped_and_other_channels_get_the_average():
    assert preprocessing_of(CONFIG, 32, 1) == Preprocessing((32, 32), 32, "bicubic", pytest.approx((0.5,)), pytest.approx((0.2,)))
    assert preprocessing_of(CONFIG, 64, 4).channels == 4


def test_input_size_follows_the_pictures(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    assert median_side(open_digits().train) == 8
    few = pictures_of([(48, 60), (50, 48), (300, 200)], small)
    assert median_side(few) == 48
    prepared = prepare_model(SETTINGS, few, "0")
    assert prepared.card.preprocessing.size == (48, 48)
    assert prepared.card.options["small_images"] is True
    assert any("48 x 48" in note for note in prepared.notes)
    many = prepare_model(SETTINGS, pictures_of([(100, 90), (65, 65), (300, 200)], large), "0")
    assert many.card.preprocessing.size == (224, 224)
    assert "small_images" not in many.card.options


def test_explicit_choices_win_and_other_models_have_no_small_form():
    digits = open_digits().train
    assert "small_images" not in prepare_model(replace(SETTINGS, img_size=64, small_images=False), digits, "0").card.options
    card = prepare_model(TrainSettings(model="resnet10t", in_chans=1), digits, "0").card
    assert (card.options, card.num_classes, card.preprocessing.channels) == ({}, 10, 1)


def test_drop_rates_reach_the_model_but_not_the_card():
    prepared = prepare_model(replace(SETTINGS, drop_path=0.3, drop=0.2), open_digits().train, "0")
    assert prepared.model.head_drop.p == 0.2
    assert any(getattr(module, "drop_prob", 0) == pytest.approx(0.3) for module in prepared.model.modules())
    assert not {"drop_path_rate", "drop_rate"} & prepared.card.options.keys()
