"""The doctor reports everything in words and as JSON, and the command line's exit code follows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.cli import run_verb
from foveate.verbs.doctor import doctor


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Two splits of two classes with 3 and 2 pictures each."""
    for place, name in enumerate(
        f"{split}/{animal}/{n}.png" for split, size in (("train", 3), ("val", 2)) for animal in ("cat", "dog") for n in range(size)
    ):
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(place).integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pets"


def test_a_sound_set(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = doctor(str(pets))
    assert report.splits == {"train": {"cat": 3, "dog": 3}, "val": {"cat": 2, "dog": 2}}
    assert str(report).splitlines() == [
        f"{pets}: 2 splits (train, val) by class folders",
        "",
        "class  train  val",
        "cat        3    2",
        "dog        3    2",
        "all        6    4",
        "",
        "10 pictures decoded: 10 PNG RGB; width x height: smallest 30 x 20, median 30 x 20, largest 30 x 20",
        "",
        "no warnings",
        "",
        "no problems",
    ]
    assert run_verb("doctor", [str(pets)]) == 0
    assert capsys.readouterr().out.strip() == str(report)


def test_problems_are_listed_and_give_exit_code_2(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "train/cat/0.png").write_bytes(b"")
    (pets / "train/cow").mkdir()
    assert run_verb("doctor", [str(pets)]) == 2
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("2 problems:")
    assert lines[start + 1].startswith("  classes without pictures: found 1 of 3 (cow)")
    assert lines[start + 2].startswith("  train/cat/0.png: not a picture of a known format")


def test_json_holds_everything(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"train/dog/broken{place:02}.png" for place in range(30)]
    for name in names:
        (pets / name).write_bytes(b"")
    assert "  ... and 10 more; --json lists all" in str(doctor(str(pets)))
    assert run_verb("doctor", [str(pets), "--json"]) == 2
    values = json.loads(capsys.readouterr().out)
    assert [problem.split(":")[0] for problem in values["problems"]] == names
    assert values["splits"]["train"] == {"cat": 3, "dog": 33}
    assert values["statistics"]["smallest"] == [30, 20]
    assert values["warnings"] == ["train: class cat has 3 pictures, dog has 33: consider class weights or balanced sampling"]


def test_what_cannot_be_opened_is_a_problem_too(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = pets / "train/cat"
    report = doctor(str(flat))
    assert report.splits == {}
    assert len(report.problems) == 1
    assert "found 3 pictures without class folders or a list" in report.problems[0]
    assert run_verb("doctor", [str(flat)]) == 2
    assert report.problems[0] in capsys.readouterr().out
    list_file = pets / "mine.txt"
    list_file.write_text("0.png 0\n9.png 1\n")
    (problem,) = doctor(str(flat), list_file=list_file).problems
    assert "files that are not in" in problem
    assert "line 2: 9.png" in problem


def test_many_classes_are_summed_up(tmp_path: Path) -> None:
    for place in range(25):
        (tmp_path / f"train/class{place:02}").mkdir(parents=True)
        for number in range(2 + place % 3):
            colour = (place * 10, number * 60, 9)
            Image.new("RGB", (4, 4), colour).save(tmp_path / f"train/class{place:02}/{number}.png")
    report = str(doctor(str(tmp_path), val_fraction=0))
    assert "25 classes: train 74 (2 to 4 per class)" in report
    assert "class07" not in report


def test_the_sheet_shows_every_class_and_leaves_broken_pictures_out(pets: Path, tmp_path: Path) -> None:
    (pets / "train/cat/0.png").write_bytes(b"")
    report = doctor(str(pets), sheet=tmp_path / "sheet.png")
    assert len(report.problems) == 1
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > sheet.height  # five pictures in a row
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "sheet.png"]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """COCO annotations: two classes, a crowd, a box without width, outlines; train and val of two pictures each."""
    root = tmp_path / "cells"
    for split in ("train", "val"):
        images = [{"id": place, "file_name": f"{split}{place}.png", "width": 60, "height": 40} for place in range(2)]
        outline = [[5, 5, 25, 5, 25, 25, 5, 25]]
        annotations = [
            {"id": 1, "image_id": 0, "category_id": 4, "bbox": [5, 5, 20, 20], "area": 400, "segmentation": outline},
            {"id": 2, "image_id": 0, "category_id": 9, "bbox": [5, 5, 20, 20], "area": 400, "segmentation": outline, "iscrowd": 1},
            {"id": 3, "image_id": 1, "category_id": 9, "bbox": [30, 10, 20, 20], "area": 2000},
            {"id": 4, "image_id": 1, "category_id": 9, "bbox": [30, 10, 0, 20], "area": 0},
        ]
        categories = [{"id": 4, "name": "red"}, {"id": 9, "name": "white"}]
        (root / "annotations").mkdir(parents=True, exist_ok=True)
        (root / "images").mkdir(exist_ok=True)
        content = {"images": images, "categories": categories, "annotations": annotations}
        (root / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        for place, image in enumerate(images):
            pixels = np.random.default_rng([place, split == "val"]).integers(0, 60, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / image["file_name"])
    return root


def test_objects(cells: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert run_verb("doctor", [str(cells), "--sheet", str(sheet)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{cells}: COCO annotations, 2 splits (train, val): 8 objects of 2 categories"
    assert lines[2:6] == ["class  train  val", "red        1    1", "white      1    1", "all        2    2"]
    figures = "(on average 1.0, at most 1, 0 without), 50% small, 50% medium, 0% large, 1 crowds, some outlined"
    assert f"train: 2 objects on 2 pictures {figures}" in lines
    assert "6 warnings:" in lines
    with Image.open(sheet) as drawn:
        pixels = np.asarray(drawn.convert("RGB")).reshape(-1, 3)
    # the pictures are nearly black and the sheet is white: strong colours are drawn boxes and masks
    assert (np.ptp(pixels.astype(int), axis=1) > 120).mean() > 0.002
    assert doctor(str(cells), task="detect").to_dict()["objects"]["val"]["crowds"] == 1


def test_a_sheet_leaves_out_pictures_that_do_not_fit_their_annotations(cells: Path, tmp_path: Path) -> None:
    Image.new("RGB", (61, 40)).save(cells / "images/train0.png")
    report = doctor(str(cells), sheet=tmp_path / "sheet.png")
    assert report.problems == ("images/train0.png: found boxes for 60 x 40 pixels, expected 61 x 40 as the picture is",)
    assert (tmp_path / "sheet.png").exists()


def test_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "roads"
    for split, far in (("train", 2), ("val", 3)):
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True)
        Image.new("RGB", (8, 5), (far, far, far)).save(root / f"images/{split}/a.jpg")
        mask = np.zeros((5, 8), np.uint8)
        mask[:far] = 1
        mask[4] = 255
        Image.fromarray(mask).save(root / f"masks/{split}/a.png")
    (root / "classes.txt").write_text("road\nsky\n")
    sheet = tmp_path / "sheet.png"
    report = doctor(str(root), sheet=sheet)
    assert report.splits == {"train": {"road": 16, "sky": 16, "(no class)": 8}, "val": {"road": 8, "sky": 24, "(no class)": 8}}
    assert (report.task, report.problems, report.warnings) == ("segment", (), ())
    assert str(report).splitlines()[2:7] == [
        "class        train     val",
        "road         40.0%   20.0%",
        "sky          40.0%   60.0%",
        "(no class)   20.0%   20.0%",
        "all         100.0%  100.0%",
    ]
    with Image.open(sheet) as drawn:
        assert (np.ptp(np.asarray(drawn.convert("RGB")).astype(int), axis=2) > 50).mean() > 0.05
    assert run_verb("doctor", [str(root), "--task", "detect"]) == 2
    assert "which looks like segmentation, but the task is detect" in capsys.readouterr().out
