"""The task is recognised from what lies in a folder; a task that does not fit is said in one line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.opening import TASKS, open_data, task_of
from foveate.data.pictures import PictureSet
from foveate.errors import UserError

COCO = json.dumps(
    {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}],
    }
)
VOC = "<annotation><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object></annotation>"
FORMS = {
    "coco": ({"annotations/instances_val.json": COCO, "images/a.jpg": ""}, "detect"),
    "voc": ({"Annotations/a.xml": VOC, "JPEGImages/a.jpg": ""}, "detect"),
    "yolo": ({"labels/a.txt": "0 .5 .5 .5 .5", "classes.txt": "cat", "images/a.jpg": ""}, "detect"),
    "masks": ({"masks/a.png": "", "classes.txt": "cat\ndog", "images/a.jpg": ""}, "segment"),
    "classes": ({"cat/a.jpg": "", "dog/b.jpg": ""}, "classify"),
    "list": ({"a.jpg": "", "b.jpg": "", "list.txt": "a.jpg cat\nb.jpg dog\n"}, "classify"),
}


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".jpg", ".png"):
            Image.new("L", (9, 6)).save(path)
        else:
            path.write_text(text)
    return root


@pytest.mark.parametrize("form", FORMS)
def test_the_task_is_recognised(tmp_path: Path, form: str) -> None:
    files, task = FORMS[form]
    for source in (make(tmp_path / "outer" / "inner", files), tmp_path / "outer"):
        if form == "list" and source.name == "outer":
            continue  # a folder of pictures in a folder is a class
        splits = open_data(source)
        (first, *_) = splits.present().values()
        assert task_of(first) == task
        assert isinstance(first, {"classify": PictureSet, "detect": ObjectSet, "segment": MaskSet}[task])
        assert len(open_data(source, task=task).notes) == len(splits.notes)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("task", TASKS)
def test_a_task_that_does_not_fit_is_refused(tmp_path: Path, form: str, task: str) -> None:
    files, right = FORMS[form]
    if task == right:
        return
    with pytest.raises(UserError, match="expected") as error:
        open_data(make(tmp_path, files), task=task)
    assert "\n" not in str(error.value)
    assert f"the task {task}" in str(error.value) or f"the task is {task}" in str(error.value)


def test_class_folders_beside_annotations_are_classification_where_that_is_asked_for(tmp_path: Path) -> None:
    pictures = {"train/cat/a.jpg": "", "train/dog/b.jpg": "", "val/cat/c.jpg": "", "val/dog/d.jpg": ""}
    root = make(tmp_path, {**pictures, "annotations/instances_train.json": COCO.replace("a.jpg", "cat/a.jpg")})
    assert task_of(open_data(root).train) == "detect"
    splits = open_data(root, task="classify")
    assert splits.class_names == ("cat", "dog") and [len(splits.train), len(splits.val)] == [2, 2]
    assert any(note.startswith("left alone: COCO annotations") for note in splits.notes)


def test_digits_and_lists_are_classification(tmp_path: Path) -> None:
    assert task_of(open_data("digits").train) == "classify"
    root = make(tmp_path, FORMS["list"][0])
    assert len(open_data(root, list_file=root / "list.txt", val_fraction=0).train) == 2
    with pytest.raises(UserError, match=r"found the embedded digits \(classification\), but the task is detect"):
        open_data("digits", task="detect")
    with pytest.raises(UserError, match=r"found the list .*list.txt \(classification\), but the task is segment"):
        open_data(root, list_file=root / "list.txt", task="segment")


def test_of_several_forms_the_first_is_taken_and_the_others_named(tmp_path: Path) -> None:
    root = make(tmp_path, {**FORMS["yolo"][0], **FORMS["masks"][0]})
    splits = open_data(root, val_fraction=0)
    assert task_of(splits.train) == "detect"
    assert "left alone: pictures and masks (images/ + masks/)" in splits.notes
    assert task_of(open_data(root, task="segment", val_fraction=0).train) == "segment"
    json_too = open_data(make(root, FORMS["coco"][0]))
    assert json_too.notes[0].startswith("COCO annotations")
    assert "left alone: YOLO labels (images/ + labels/)" in json_too.notes


def test_fractions_of_nothing_and_all(tmp_path: Path) -> None:
    root = make(tmp_path, {**FORMS["yolo"][0], "images/b.jpg": "", "images/c.jpg": ""})
    assert list(open_data(root, val_fraction=0).present()) == ["train"]
    assert list(open_data(root, val_fraction=1).present()) == ["val"]
    assert len(open_data(root, val_fraction=0.01).val) == 1
    with pytest.raises(UserError, match=r"val_fraction: found 1\.5"):
        open_data(root, val_fraction=1.5)


def test_mistakes_in_the_source_are_those_of_classification(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no readable folder"):
        open_data(tmp_path / "absent")
    with pytest.raises(UserError, match="task: found 'draw', expected auto, classify, detect, segment"):
        open_data("digits", task="draw")
    make(tmp_path, {"a.jpg": "", "b.jpg": ""})
    with pytest.raises(UserError, match="found 2 pictures without class folders or a list"):
        open_data(tmp_path)


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    files = {f"{folder}/{split}/a{end}": "" for split in ("val", "valid") for folder, end in (("images", ".jpg"), ("masks", ".png"))}
    with pytest.raises(UserError, match="found val and valid for val, expected one"):
        open_data(make(tmp_path, {**files, "classes.txt": "a\nb"}))


def test_pictures_of_other_years_do_not_disturb_and_are_named(tmp_path: Path) -> None:
    years = {"train2014/x.jpg": "", "train2017/a.jpg": "", "test2017/y.jpg": "", "annotations/instances_train2017.json": COCO}
    splits = open_data(make(tmp_path, years), val_fraction=0)
    assert [splits.train.name(index) for index in range(len(splits.train))] == ["train2017/a.jpg"]
    assert splits.notes[1] == "left alone, without annotations: test2017/"


def test_a_split_without_labels_is_named(tmp_path: Path) -> None:
    files = {f"{folder}/{split}/a{end}": "" for split in ("train", "val") for folder, end in (("images", ".jpg"), ("masks", ".png"))}
    splits = open_data(make(tmp_path, {**files, "images/test/b.jpg": "", "classes.txt": "a\nb"}))
    assert list(splits.present()) == ["train", "val"]
    assert "left alone, without annotations: images/test/" in splits.notes
