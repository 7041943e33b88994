"""What a segmenter says of every pixel arrives at the size of the upright picture, in every form of output."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

from foveate.card import ModelCard, WholePicture
from foveate.class_colours import class_colours
from foveate.errors import UserError
from foveate.heads.create import create_dense
from foveate.opening import open_model
from foveate.verbs import predict as verb
from foveate.verbs.predict import predict
from foveate.weights.save import write_safetensors

NAMES = ("sky", "road [wet]", "größe")
SIZE = (50, 40)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory):
    torch.manual_seed(0)
    model, _ = create_dense("resnet10t", "semantic_fpn", len(NAMES), in_chans=1)
    path = tmp_path_factory.mktemp("segmenter") / "grey.safetensors"
    recipe = WholePicture(64, 96, mean=(0.5,), std=(0.25,))
    write_safetensors(path, model.state_dict(), ModelCard("resnet10t", len(NAMES), 1, {}, NAMES, recipe, "segment", "semantic_fpn"))
    return path


class StrongestColour(nn.Module):
    """Red, green and blue are the three classes; `inputs` are the sizes it saw."""

    def __init__(self):
        super().__init__()
        self.inputs = []

    def forward(self, images):
        self.inputs.append(tuple(images.shape[2:]))
        return images * 10


class LeftHanded(nn.Module):
    """Surer of class 1 on the left, of class 2 a little everywhere."""

    def forward(self, images):
        logits = torch.zeros(len(images), 3, *images.shape[2:])
        logits[:, 1] = torch.linspace(6, -6, images.shape[3])
        logits[:, 2] = 1
        return logits


@pytest.fixture
def use(monkeypatch):
    """Instead of a trained model another one, whose input has this short side."""

    def instead(model, short=SIZE[1]):
        recipe = WholePicture(short, 10 * short, mean=(0.0,) * 3, std=(1.0,) * 3)
        card = ModelCard("made", len(NAMES), 3, {}, NAMES, recipe, "segment", "semantic_fpn")
        monkeypatch.setattr(verb, "open_model", lambda _: (model, card))
        return model

    return instead


@pytest.fixture
def truth():
    """Rectangles of all classes, of which class 0 covers most and class 2 least."""
    classes = np.zeros(SIZE[::-1], dtype=np.uint8)
    classes[:20, 10:30] = 1
    classes[30:, 40:] = 2
    return classes


def paint(path, classes, orientation=1):
    """The classes as red, green and blue, stored as a camera held in some way does."""
    picture = Image.fromarray(np.eye(3, dtype=np.uint8)[classes] * 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (picture if orientation == 1 else picture.transpose(Image.Transpose.ROTATE_90)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 6])
def test_every_pixel_of_the_upright_picture_has_its_class(use, truth, tmp_path, orientation):
    use(StrongestColour())
    result = predict(tmp_path, [paint(tmp_path / "a.png", truth, orientation)], out=tmp_path / "out", sheet=tmp_path / "sheet.png")
    (one,) = result.predictions
    assert one.size == SIZE and [seen.name for seen in one.classes] == list(NAMES)
    assert [seen.pixels for seen in one.classes] == np.bincount(truth.ravel()).tolist()
    np.testing.assert_allclose([seen.share for seen in one.classes], np.bincount(truth.ravel()) / truth.size)
    assert [Path(path).name for path in one.written] == ["a_classes.png", "a_colours.png", "a_overlay.png"]
    assert sorted(Path(path).name for path in (tmp_path / "out").iterdir()) == ["a_classes.png", "a_colours.png", "a_overlay.png"]
    with Image.open(one.written[0]) as numbers:
        assert numbers.mode == "L" and np.array_equal(np.asarray(numbers), truth)
    with Image.open(one.written[1]) as colours:
        assert np.array_equal(np.asarray(colours.convert("RGB")), class_colours(3)[truth])
    with Image.open(one.written[2]) as overlay:
        assert overlay.width % SIZE[0] == 0 and overlay.height > overlay.width // SIZE[0] * SIZE[1], "with names below it"
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 448


@pytest.mark.parametrize("short", [20, 97])
def test_another_size_of_input_changes_only_edges(use, truth, tmp_path, short):
    use(StrongestColour(), short)
    predict(tmp_path, [paint(tmp_path / "a.png", truth)], out=tmp_path / "out")
    with Image.open(tmp_path / "out" / "a_classes.png") as mask:
        wrong = np.asarray(mask) != truth
    edges = np.zeros_like(wrong)
    for axis in (0, 1):
        for step in (-3, -2, -1, 1, 2, 3):
            edges |= np.roll(truth, step, axis) != truth
    assert not (wrong & ~edges).any()


def test_tiles_see_no_more_than_themselves_and_give_the_same(use, truth, tmp_path):
    model = use(StrongestColour())
    file = paint(tmp_path / "a.png", truth)
    predict(tmp_path, [file], out=tmp_path / "tiled", tile=16)
    assert set(model.inputs) == {(16, 16)} and len(model.inputs) > 6
    predict(tmp_path, [file], out=tmp_path / "whole")
    assert model.inputs[-1] == SIZE[::-1]
    for name in ("a_classes.png", "a_overlay.png"):
        assert (tmp_path / "tiled" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_mirrored_picture_is_asked_too(use, truth, tmp_path):
    use(LeftHanded())
    file = paint(tmp_path / "a.png", truth)
    masks = {}
    for flip in (False, True):
        predict(tmp_path, [file], out=tmp_path / str(flip), flip=flip)
        with Image.open(tmp_path / str(flip) / "a_classes.png") as mask:
            masks[flip] = np.asarray(mask)
    assert set(np.unique(masks[False])) == {1, 2} and (masks[False] != masks[False][:, ::-1]).any()
    assert np.array_equal(masks[True], masks[True][:, ::-1])


@pytest.fixture
def pictures(tmp_path, truth):
    folder = tmp_path / "pictures"
    folder.mkdir()
    paint(folder / "a.png", truth)
    (folder / "b.png").write_bytes(b"no picture")
    paint(folder / "c.png", truth[:, :30])
    return folder


def test_a_stored_segmenters_classes_in_every_form(segmenter, pictures, tmp_path):
    result = predict(segmenter, [pictures], csv=tmp_path / "o.csv", out=tmp_path / "out", flip=True, tile=32)
    assert [(Path(one.file).name, one.size) for one in result.predictions] == [("a.png", SIZE), ("c.png", (30, 40))]
    for one in result.predictions:
        with Image.open(one.written[0]) as mask:
            counts = np.bincount(np.asarray(mask).ravel(), minlength=3)
        assert {seen.name: seen.pixels for seen in one.classes} == {name: count for name, count in zip(NAMES, counts, strict=True) if count}
        assert [seen.share for seen in one.classes] == sorted((seen.share for seen in one.classes), reverse=True)
        assert sum(seen.share for seen in one.classes) == pytest.approx(1)
    with (tmp_path / "o.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(one.file, seen.name, str(seen.pixels), "") for one in result.predictions for seen in one.classes]
    assert [(row["file"], row["class"], row["pixels"], row["error"]) for row in rows[:-1]] == expected
    assert rows[-1]["error"] == result.problems[0] and "b.png" in result.problems[0]
    console = Console(file=io.StringIO(), width=300)
    console.print(result)
    assert all(one.file in console.file.getvalue() and one.shares() in console.file.getvalue() for one in result.predictions)


def test_many_classes_are_cut_short_in_the_table(use, tmp_path):
    use(StrongestColour())
    one = predict(tmp_path, [paint(tmp_path / "a.png", np.tile(np.arange(3, dtype=np.uint8), (4, 4)))]).predictions[0]
    assert one.shares(2) == "sky 33.3%, road [wet] 33.3% and 1 more" and one.shares(3) == one.shares(99)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"top": 3}, "found --top for a model that segments"),
        ({"threshold": 0.0}, "--threshold"),
        ({"results": Path("r.json"), "annotations": Path("a.json")}, "--results, --annotations"),
        ({"tile": -1}, "found -1 px"),
    ],
)
def test_mistakes_are_found_before_the_work(segmenter, pictures, options, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        predict(segmenter, [pictures], **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("options", [{}, {"flip": True}, {"tile": 32}])
def test_output_that_is_not_finite_is_refused(segmenter, pictures, tmp_path, options):
    model, card = open_model(segmenter)
    with torch.no_grad():
        model.classifier.bias[0] = torch.nan
    write_safetensors(tmp_path / "damaged.safetensors", model.state_dict(), card)
    with pytest.raises(UserError, match="not finite"):
        predict(tmp_path / "damaged.safetensors", [pictures], **options)


def test_the_command_as_people_type_it(segmenter, pictures, tmp_path, foveate):
    words = [str(segmenter), str(pictures), "--flip", "--tile=48", "--device", "cpu", "--json", "--out", str(tmp_path / "out")]
    done = foveate("predict", *words)
    assert done.returncode == 2, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(line["file"]).name for line in lines] == ["a.png", "c.png", "b.png"] and "error" in lines[2]
    for line in lines[:2]:
        assert len(line["written"]) == 3 and sum(entry["share"] for entry in line["classes"]) == pytest.approx(1)
