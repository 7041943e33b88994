"""The sentences of docs/conventions.md that no other test holds, and the promise that every sentence is held."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from foveate.card import Preprocessing
from foveate.data.folders import open_pictures
from foveate.data.loader import evaluation_loader
from foveate.data.transforms import evaluation_transform
from foveate.factory import create_model
from foveate.layers.gabor import gabor_kernels

ROOT = Path(__file__).resolve().parents[1]
REFERENCES = re.findall(r"`(tests/[\w/]+\.py)::([\w:]+)`", (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8"))


@pytest.fixture
def pictures(tmp_path):
    """Two classes of red, green and blue pictures, 24 px wide and 16 px high; folders made in the other order than their names."""
    for name in ("zebra", "ant"):
        for colour in ("red", "lime", "blue"):
            (tmp_path / "train" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (24, 16), colour).save(tmp_path / "train" / name / f"{colour}.png")
    return open_pictures(tmp_path / "train", val_fraction=0.5)


@pytest.mark.parametrize(("file", "name"), REFERENCES)
def test_every_sentence_is_held(file, name):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert set(name.split("::")) <= defined


def test_every_row_names_its_test():
    rows = [line for line in (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert len(rows) - 1 == len(REFERENCES) > 10


def test_pictures_are_rgb_float32_and_normalised():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 0.125)
    x = evaluation_transform(Preprocessing((16, 16), 16, mean=mean, std=std))(Image.new("RGB", (16, 16), (255, 0, 51)))
    assert x.dtype == torch.float32 and x.shape == (3, 16, 16)
    expected = [(1 - 0.1) / 0.5, (0 - 0.2) / 0.25, (0.2 - 0.3) / 0.125]
    np.testing.assert_allclose(x[:, 3, 5], expected, atol=1e-6)


def test_a_batch_is_channels_last_with_labels_and_indices(pictures):
    (batch,) = evaluation_loader(pictures.val, evaluation_transform(Preprocessing((16, 16), 16)), 8, num_workers=0)
    assert set(batch) == {"image", "label", "index"}
    assert batch["image"].is_contiguous(memory_format=torch.channels_last) and batch["image"].ndim == 4
    assert batch["label"].dtype == batch["index"].dtype == torch.int64
    assert batch["index"].tolist() == list(range(len(pictures.val))) and batch["label"].tolist() == list(pictures.val.labels)


def test_sizes_are_height_and_width():
    x = evaluation_transform(Preprocessing((20, 32), 20))(Image.new("RGB", (64, 40)))
    assert x.shape == (3, 20, 32)
    model = create_model("t2t_vit_7", depth=1, img_size=(32, 64), num_classes=0)
    assert model.grid_size((32, 64)) == (2, 4)


def test_tokens_stand_in_raster_order():
    """A picture that is changed in one corner changes the token of this corner most."""
    torch.manual_seed(0)
    model = create_model("t2t_vit_7", depth=1, num_classes=0).eval()
    del model.blocks[0]  # leaves the tokens as they enter the backbone
    plain, changed = torch.zeros(2, 1, 3, 32, 64)
    for row, column in ((0, 3), (1, 0)):
        changed = plain.clone()
        changed[..., 16 * row + 6 : 16 * row + 10, 16 * column + 6 : 16 * column + 10] = 3
        with torch.no_grad():
            change = (model.forward_features(changed) - model.forward_features(plain))[0].norm(dim=-1)
        assert change[0] == 0, "the class token stands first and has not looked yet"
        assert change[1:].argmax() == row * 4 + column


def test_orientation_zero_has_upright_stripes():
    one = torch.ones(1)
    kernel = gabor_kernels(one * 2 * math.pi / 4, one * 0, one * 0, one * 0, one * 0, 9)[0]
    assert torch.equal(kernel, kernel[:1].expand(9, 9)), "constant from top to bottom"
    np.testing.assert_allclose(kernel[0, ::2], [1, -1, 1, -1, 1], atol=1e-6)


def test_labels_follow_the_sorted_class_names(pictures):
    assert pictures.class_names == ("ant", "zebra")
    for split in pictures.present().values():
        assert [pictures.class_names[label] for label in split.labels] == [file.parent.name for file in split.files]
