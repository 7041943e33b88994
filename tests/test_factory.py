import logging
from pathlib import Path

import pytest
import torch

from foveate.card import ModelCard, Preprocessing
from foveate.errors import UserError
from foveate.factory import create_model, list_models
from foveate.opening import open_model
from foveate.weights.save import write_safetensors

SMALL = {"depths": (1, 1, 1, 1), "widths": (8, 8, 8, 8), "stem_width": 8}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A run folder with a small model of five classes for 48 x 64 px."""
    model = create_model("fvit_tiny", num_classes=5, **SMALL)
    options = {name: list(value) if isinstance(value, tuple) else value for name, value in SMALL.items()}
    card = ModelCard("fvit_tiny", 5, options=options, class_names=("a", "b", "c", "d", "e"), preprocessing=Preprocessing(size=(48, 64)))
    write_safetensors(tmp_path / "model.safetensors", model.state_dict(), card)
    return tmp_path


def test_a_file_alone_is_enough(stored: Path) -> None:
    for path in (stored, stored / "model.safetensors"):
        model, card = open_model(path)
        assert card.class_names == ("a", "b", "c", "d", "e")
        assert model.pretrained_cfg["input_size"] == (3, 48, 64)
        assert not model.training
        assert model(torch.randn(1, 3, 48, 64)).shape == (1, 5)


def test_what_was_left_fresh_is_said(stored: Path, caplog: pytest.LogCaptureFixture) -> None:
    create_model("fvit_tiny", stored, num_classes=5, **SMALL)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    create_model("fvit_tiny", stored, num_classes=3, in_chans=1, **SMALL)
    assert "left fresh, as the class count differs: head" in caplog.text
    assert "resized: stem.conv1.weight (8, 3, 3, 3) -> (8, 1, 3, 3)" in caplog.text


def test_names_and_options_that_do_not_exist_are_one_line() -> None:
    with pytest.raises(UserError, match="did you mean fvit_tiny or"):
        create_model("fvit_tny")
    with pytest.raises(UserError, match="unexpected keyword argument 'dept'"):
        create_model("fvit_tiny", dept=3)
    with pytest.raises(UserError, match="found no weights"):
        create_model("fvit_tiny", "/nowhere")


def test_any_model_of_timm_too() -> None:
    model = create_model("resnet18", num_classes=3, img_size=64)
    assert model.pretrained_cfg["input_size"] == (3, 64, 64)
    assert create_model("deit_tiny_patch16_224", num_classes=2, img_size=64).patch_embed.img_size == (64, 64)
    assert list_models("fvit*_dp") == ["fvit_tiny_dp", "fvit_small_dp", "fvit_base_dp", "fvit_large_dp"]
