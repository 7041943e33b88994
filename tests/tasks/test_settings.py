import re
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from foveate.errors import UserError
from foveate.tasks.settings import TrainSettings


def test_every_setting_is_explained():
    explained = re.findall(r"^        (\w+): ", TrainSettings.__doc__, flags=re.MULTILINE)
    assert explained, "the docstring lists them"
    assert sorted(explained) == sorted(entry.name for entry in fields(TrainSettings))


def test_settings_survive_yaml():
    settings = TrainSettings(data="x", weights="a/b.pth", out=Path("runs/1"), model_options={"widths": [1, 2]}, img_size=64, drop_path=0.1)
    assert TrainSettings.from_plain(yaml.safe_load(yaml.safe_dump(settings.plain()))) == settings


def test_unknown_setting_is_named():
    with pytest.raises(UserError, match="learning_rate"):
        TrainSettings.from_plain({"learning_rate": 1.0})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": 0}, "epochs: found 0, expected 1 or more"),
        ({"lr": 0.0}, "lr: found 0.0"),
        ({"smoothing": 1.5}, "smoothing: found 1.5"),
        ({"ema_decay": 1.0}, "ema_decay: found 1.0"),
        ({"img_size": 8}, "img_size: found 8, expected 16"),
        ({"strategy": "fsdp", "ema_decay": 0.9}, "fsdp"),
        ({"steps": -1}, "steps: found -1, expected 0 or more"),
        ({"crop_size": 15}, "crop_size: found 15, expected 16 pixels or more"),
        ({"max_size": 8}, "max_size: found 8, expected 16 pixels or more"),
        ({"scale_low": 0.0}, "scale_low: found 0.0, expected a factor above 0"),
        ({"scale_low": 1.2}, "scale_low: found 1.2 above scale_high 1.0, expected the smaller factor first"),
        ({"scale_low": 2.0, "scale_high": 0.5}, "scale_low: found 2.0 above scale_high 0.5"),
        ({"schedule": "steps"}, r"step_epochs: found \[\] for the schedule 'steps'"),
        ({"step_epochs": [8]}, r"step_epochs: found \[8\] for the schedule 'cosine'"),
        ({"schedule": "poly", "step_epochs": [8]}, r"step_epochs: found \[8\] for the schedule 'poly'"),
        ({"schedule": "steps", "step_epochs": [8, 12], "epochs": 12}, r"step_epochs: found \[8, 12\], expected epochs between 0 and"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change, expected):
    with pytest.raises(UserError, match=expected) as error:
        replace(TrainSettings(), **change)
    assert "\n" not in str(error.value)
