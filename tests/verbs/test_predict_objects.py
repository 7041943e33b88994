"""What a detector finds arrives in the pixels of the upright picture, in every form of output."""

import csv
import io
import json
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from rich.console import Console
from torch import nn

from foveate.card import ModelCard, WholePicture
from foveate.cli import run_verb
from foveate.data.dense_transforms import whole_picture
from foveate.errors import UserError
from foveate.heads.create import create_dense
from foveate.opening import open_model
from foveate.verbs import predict as verb
from foveate.verbs.predict import predict
from foveate.weights.save import write_safetensors

NAMES = ("cell", "platelet", "größe [x]")
RECIPE = WholePicture(short=32, long=48)
ORIENTATION = 0x0112


def stored(path, head, in_chans):
    """A detector of random weights that finds something everywhere."""
    torch.manual_seed(0)
    model, _ = create_dense("resnet10t", head, len(NAMES), in_chans=in_chans)
    with torch.no_grad():
        if head == "retinanet":
            bias = model.net.head.classification_head.cls_logits.bias
            bias.copy_(torch.linspace(-2, 0.5, len(bias)))
        else:
            model.net.roi_heads.box_predictor.cls_score.bias.copy_(torch.tensor([0, 1.5, 0.5, 0]))
            model.net.roi_heads.box_predictor.cls_score.weight.normal_(std=0.05)
    recipe = WholePicture(RECIPE.short, RECIPE.long, mean=(0.5,) * in_chans, std=(0.25,) * in_chans)
    card = ModelCard("resnet10t", len(NAMES), in_chans, {}, NAMES, recipe, "detect", head, (7, 3, 90))
    write_safetensors(path, model.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def retinanet(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("retinanet") / "grey.safetensors", "retinanet", 1)


@pytest.fixture(scope="module")
def mask_rcnn(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("mask_rcnn") / "model.safetensors", "mask_rcnn", 3)


@pytest.fixture
def pictures(tmp_path):
    """Two pictures of one name in two folders, 90 x 70 and 60 x 100 px, and a broken one."""
    pixels = np.random.default_rng(1).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    for folder, (width, height) in (("x", (90, 70)), ("y", (60, 100))):
        (tmp_path / folder).mkdir()
        Image.fromarray(pixels[:height, :width]).save(tmp_path / folder / "1.png")
    (tmp_path / "y" / "broken.jpg").write_bytes(b"no picture")
    return [tmp_path / "x", tmp_path / "y"]


class FindsBright(nn.Module):
    """Finds what is bright: one object, its box and mask in pixels of the input; the dimmer it is the lower the score."""

    def forward(self, images):
        (image,) = images
        rows, columns = (image[0] > 0.25).nonzero(as_tuple=True)
        if not len(rows):
            return [
                {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long(), "masks": torch.zeros(0, 1, 28, 28)}
            ]
        box = torch.stack((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))[None].float()
        masks = torch.ones(1, 1, 28, 28)
        masks[..., 14:] = 0  # the left half
        return [{"boxes": box, "scores": image.max()[None], "labels": torch.tensor([2]), "masks": masks}]


@pytest.fixture
def bright(monkeypatch):
    """Instead of a trained model `FindsBright`, whose input is twice or half as large as the pictures."""

    def use(short):
        recipe = WholePicture(short, 10 * short, mean=(0.0,) * 3, std=(1.0,) * 3)
        card = ModelCard("bright", len(NAMES), 3, {}, NAMES, recipe, "detect", "mask_rcnn")
        monkeypatch.setattr(verb, "open_model", lambda _: (FindsBright(), card))

    return use


def draw_spot(path, size, box, value=255, orientation=1):
    """A black picture with a bright rectangle, stored as a camera held in some way does."""
    picture = Image.new("RGB", size)
    ImageDraw.Draw(picture).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), (value,) * 3)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    turned = {1: picture, 6: picture.transpose(Image.Transpose.ROTATE_90), 3: picture.transpose(Image.Transpose.ROTATE_180)}[orientation]
    turned.save(path, exif=exif)
    return path


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("short", [30, 60, 120])
def test_boxes_masks_and_drawings_lie_on_the_upright_picture(bright, tmp_path, short, orientation):
    bright(short)
    file = draw_spot(tmp_path / "a.png", (100, 60), (20, 10, 60, 30), orientation=orientation)
    result = predict(tmp_path, [file], out=tmp_path / "out")
    (one,) = result.predictions
    (seen,) = one.objects
    assert one.size == (100, 60) and seen.name == NAMES[2] and seen.score > 0.9
    np.testing.assert_allclose(seen.box, (20, 10, 60, 30), atol=2.1)
    mask = run_lengths.decode(seen.mask)
    assert mask.shape == (60, 100)
    rows, columns = mask.nonzero()
    np.testing.assert_allclose((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), (20, 10, 40, 30), atol=3)
    assert Path(one.written).name == "a_objects.png"
    with Image.open(one.written) as drawn:
        factor = drawn.width // 100
        assert drawn.size == (100 * factor, 60 * factor)
        changed = np.abs(np.asarray(drawn, dtype=int)[::factor, ::factor] - np.asarray(draw_reference())).max(axis=2) > 30
    assert changed[12:28, 24:37].all(), "the mask is drawn over the left half"
    assert not changed[32:, :].any() and not changed[:, 90:].any(), "nothing is drawn far from the object"


def draw_reference():
    picture = Image.new("RGB", (100, 60))
    ImageDraw.Draw(picture).rectangle((20, 10, 59, 29), (255, 255, 255))
    return picture.convert("RGB")


def test_the_threshold_is_the_least_score(bright, tmp_path):
    bright(60)
    files = [draw_spot(tmp_path / f"{value}.png", (100, 60), (20, 10, 60, 30), value) for value in (51 * 2, 51 * 3, 51 * 4)]
    Image.new("RGB", (100, 60)).save(tmp_path / "black.png")
    for threshold, expected in ((None, (0, 1, 1, 0)), (0.3, (1, 1, 1, 0)), (0.7, (0, 0, 1, 0)), (1.0, (0, 0, 0, 0))):
        result = predict(tmp_path, [*files, tmp_path / "black.png"], threshold=threshold, results=tmp_path / "all.json")
        assert tuple(len(one.objects) for one in result.predictions) == expected
        assert len(json.loads((tmp_path / "all.json").read_text())) == 3, "the results file holds all, whatever the threshold"
        assert any(f"{sum(expected)} objects" in note for note in result.notes)
    assert result.predictions[3].counts() == "nothing"


def direct(source, file):
    """Scores and boxes in pixels of the picture, by the model itself."""
    model, card = open_model(source)
    with Image.open(file) as image, torch.no_grad():
        size = np.array(image.size * 2)
        x = whole_picture(image, card.whole_picture)
        (found,) = model(x[None])
    order = found["scores"].argsort(descending=True, stable=True)[:100]
    return found["scores"][order].numpy(), found["boxes"][order].numpy() * size / np.array((x.shape[2], x.shape[1]) * 2)


@pytest.mark.parametrize("head", ["retinanet", "mask_rcnn"])
def test_a_stored_detectors_objects_in_every_form(head, pictures, tmp_path, request):
    source = request.getfixturevalue(head)
    outputs = {name: tmp_path / name for name in ("out", "r.json", "o.csv", "s.png")}
    scores = np.sort(np.concatenate([direct(source, folder / "1.png")[0] for folder in pictures]))
    widest = np.diff(scores).argmax()
    threshold = float(scores[widest : widest + 2].mean())
    result = predict(
        source, pictures, threshold=threshold, out=outputs["out"], results=outputs["r.json"], csv=outputs["o.csv"], sheet=outputs["s.png"]
    )
    assert [(Path(one.file).parent.name, one.size) for one in result.predictions] == [("x", (90, 70)), ("y", (60, 100))]
    assert sum(len(one.objects) for one in result.predictions) == len(scores) - widest - 1 > 0
    assert len(json.loads(outputs["r.json"].read_text())) == len(scores)
    for one in result.predictions:
        scores, boxes = direct(source, one.file)
        kept = scores >= threshold
        np.testing.assert_allclose([seen.score for seen in one.objects], scores[kept], rtol=1e-4)
        found = np.array([seen.box for seen in one.objects])
        assert (found >= 0).all() and (found[:, [0, 2]] <= one.size[0]).all() and (found[:, [1, 3]] <= one.size[1]).all()
        np.testing.assert_allclose(found, np.clip(boxes[kept], 0, one.size * 2), atol=0.05)
        assert all((seen.mask is not None) == (head == "mask_rcnn") for seen in one.objects)
    assert sorted(path.name for path in outputs["out"].iterdir()) == ["x_1_objects.png", "y_1_objects.png"]
    with Image.open(outputs["s.png"]) as sheet:
        assert sheet.format == "PNG" and sheet.width > 2 * 448
    (problem,) = result.problems
    assert "broken.jpg" in problem and "\n" not in problem
    check_tables(result, outputs["o.csv"], with_masks=head == "mask_rcnn")
    check_results(result, outputs["r.json"], with_masks=head == "mask_rcnn")


def check_tables(result, path, *, with_masks):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    seen = [(one.file, found) for one in result.predictions for found in one.objects]
    assert len(rows) == len(seen) + 1 and rows[-1]["error"] == result.problems[0] and rows[-1]["class"] == ""
    for row, (name, found) in zip(rows, seen, strict=False):
        assert (row["file"], row["class"], row["error"]) == (name, found.name, "")
        assert tuple(float(row[side]) for side in ("left", "top", "right", "bottom")) == found.box
        assert row["mask_pixels"] == (str(run_lengths.decode(found.mask).sum()) if with_masks else "")
    lines = [json.loads(line) for line in result.to_json().splitlines()]
    assert lines[-1]["error"] == result.problems[0]
    for line, one in zip(lines, result.predictions, strict=False):
        assert (line["file"], line["width"], line["height"], line["written"]) == (one.file, *one.size, one.written)
        assert [entry["name"] for entry in line["objects"]] == [found.name for found in one.objects]
        assert all(("mask" in entry) == with_masks for entry in line["objects"])
    console = Console(file=io.StringIO(), width=300)
    console.print(result)
    for one in result.predictions:
        assert one.file in console.file.getvalue() and one.counts() in console.file.getvalue()


def check_results(result, path, *, with_masks):
    """pycocotools opens the results with the listing beside them."""
    with redirect_stdout(io.StringIO()):
        listed = COCO(path.with_name("r.images.json"))
        found = listed.loadRes(str(path))
    assert [(listed.imgs[place + 1]["file_name"], listed.imgs[place + 1]["width"]) for place in range(2)] == [
        (one.file, one.size[0]) for one in result.predictions
    ]
    assert {number: entry["name"] for number, entry in listed.cats.items()} == dict(zip((7, 3, 90), NAMES, strict=True))
    for place, one in enumerate(result.predictions):
        entries = sorted(found.imgToAnns[place + 1], key=lambda entry: -entry["score"])
        assert len(entries) >= len(one.objects)
        for entry, seen in zip(entries, one.objects, strict=False):
            assert listed.cats[entry["category_id"]]["name"] == seen.name
            left, top, width, height = entry["bbox"]
            np.testing.assert_allclose((left, top, left + width, top + height), seen.box, atol=2e-3)
            assert not with_masks or found.annToMask(entry).shape == one.size[::-1]


def annotations(path, names, categories):
    """COCO annotations that list pictures by these names and categories by these numbers."""
    images = [{"id": 1000 + place, "file_name": name, "width": 9, "height": 9} for place, name in enumerate(names)]
    content = {"images": images, "categories": [{"id": number, "name": name} for name, number in categories.items()], "annotations": []}
    path.write_text(json.dumps(content))
    return path


class TestAnnotations:
    def test_tell_the_numbers_by_names(self, retinanet, pictures, tmp_path):
        truth = annotations(
            tmp_path / "truth.json", ["y/1.png", "z/else.png", "x/1.png", "broken.jpg"], {"cell": 4, "platelet": 2, "car": 1}
        )
        out = tmp_path / "results"
        result = predict(retinanet, pictures, results=out, annotations=truth, threshold=0)
        entries = json.loads(out.read_text())
        assert {entry["image_id"] for entry in entries} == {1002, 1000}
        by_picture = {1002: result.predictions[0], 1000: result.predictions[1]}
        for number, one in by_picture.items():
            expected = [{"cell": 4, "platelet": 2}[seen.name] for seen in one.objects if seen.name != NAMES[2]]
            assert [entry["category_id"] for entry in entries if entry["image_id"] == number] == expected
        assert not (tmp_path / "results.images.json").exists()
        assert any("lacks 1 of the model's classes (größe [x])" in note for note in result.notes)
        assert any("1 of its 4 pictures were not given" in note for note in result.notes)

    @pytest.mark.parametrize(
        ("names", "categories", "complaint"),
        [
            (["x/1.png", "broken.jpg"], {"cell": 4}, "found x/1.png once, expected one entry each for"),
            (["x/1.png", "y/1.png"], {"cell": 4}, r"no single entry for 1 of 3 pictures \(.*broken.jpg\)"),
            (["z/1.png", "w/1.png", "broken.jpg"], {"cell": 4}, "no single entry for 2 of 3"),
            (["x/1.png", "y/1.png", "broken.jpg"], {"car": 4}, "found none of the model's classes"),
        ],
    )
    def test_that_do_not_fit_are_refused_before_the_work(self, retinanet, pictures, tmp_path, names, categories, complaint):
        truth = annotations(tmp_path / "truth.json", names, categories)
        with pytest.raises(UserError, match=complaint) as error:
            predict(retinanet, pictures, results=tmp_path / "r.json", annotations=truth, out=tmp_path / "out")
        assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"top": 3, "batch_size": 2}, "found --top, --batch-size for a model that detects"),
        ({"flip": True}, "--flip"),
        ({"tile": 64}, "--tile"),
        ({"threshold": 1.5}, "threshold 1.5"),
        ({"results": Path("no/such/folder/r.json")}, "found no folder"),
        ({"annotations": Path("a.json")}, "without --results"),
    ],
)
def test_mistakes_are_found_before_the_work(retinanet, pictures, options, complaint):
    with pytest.raises(UserError, match=complaint) as error:
        predict(retinanet, pictures, **options)
    assert "\n" not in str(error.value)


def test_damaged_weights_are_refused(retinanet, pictures, tmp_path):
    model, card = open_model(retinanet)
    with torch.no_grad():
        model.net.head.classification_head.cls_logits.bias[0] = torch.nan
    write_safetensors(tmp_path / "damaged.safetensors", model.state_dict(), card)
    with pytest.raises(UserError, match="not finite"):
        predict(tmp_path / "damaged.safetensors", pictures)


def test_the_command_as_people_type_it(retinanet, pictures, tmp_path):
    command = [sys.executable, "-m", "foveate", "predict", str(retinanet), *map(str, pictures), "--threshold", "0.3"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "out"), "--json", "--device", "cpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3 and all(Path(line["written"]).is_file() for line in lines[:2]) and "broken.jpg" in lines[2]["error"]


def test_a_wrong_option_is_one_line(retinanet, pictures, capsys):
    assert run_verb("predict", [str(retinanet), str(pictures[0]), "--top", "3"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "--top" in line and "--threshold" in line
