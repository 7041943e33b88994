"""COCO json in all its layouts and with all its traps; real annotations score 1.0 against themselves."""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from foveate.data import outlines
from foveate.data.objects import ObjectSet
from foveate.data.opening import open_data
from foveate.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


def content(names: list[str] | None = None, first: int = 1) -> dict[str, Any]:
    """Two pictures of 40 x 30, categories 3 and 7, two objects on the first picture and none on the second."""
    names = names or ["a.png", "b.png"]
    return {
        "images": [{"id": first + place, "file_name": name, "width": 40, "height": 30} for place, name in enumerate(names)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 5, "image_id": first, "category_id": 7, "bbox": [10, 5, 20, 15], "area": 280, "iscrowd": 0},
            {"id": 6, "image_id": first, "category_id": 3, "bbox": [0.5, 0, 4, 30.0], "area": 100.5, "iscrowd": 1},
        ],
    }


@pytest.fixture
def write(tmp_path: Path):
    """`write({"annotations/instances_train.json": content()}, "images/a.png", ...)` -> the folder."""

    def write(files: dict[str, Any], *pictures: str) -> Path:
        root = tmp_path / "data"
        for name, value in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(value if isinstance(value, str) else json.dumps(value))
        for place, name in enumerate(pictures):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (place, place // 256, 7)).save(root / name)
        return root

    return write


def opened(root: Path, val_fraction: float = 0.0) -> ObjectSet:
    train = open_data(root, val_fraction=val_fraction).train
    assert isinstance(train, ObjectSet)
    return train


def test_boxes_ids_crowds_and_empty_pictures(write) -> None:
    train = opened(write({"annotations/instances_train.json": content()}, "images/a.png", "images/b.png"))
    assert (train.class_names, train.category_ids, train.picture_ids) == (("cat", "dog"), (3, 7), (1, 2))
    assert train.sizes.tolist() == [[40, 30], [40, 30]]
    objects = train.objects
    assert objects.starts.tolist() == [0, 2, 2]
    assert objects.boxes.tolist() == [[10, 5, 30, 20], [0.5, 0, 4.5, 30]]
    assert objects.labels.tolist() == [1, 0]
    assert objects.crowd.tolist() == [False, True]
    assert objects.area.tolist() == [280, 100.5]
    assert objects.outlines is None
    assert not train.has_outlines
    assert train.counts() == (0, 1)
    assert [train.name(index) for index in range(2)] == ["images/a.png", "images/b.png"]


LAYOUTS = {
    "plain": ("annotations/instances_train.json", "annotations/instances_val.json", "images/", "images/"),
    "year": ("annotations/instances_train2017.json", "annotations/instances_val2017.json", "train2017/", "val2017/"),
    "nested": ("annotations/train.json", "annotations/valid.json", "images/train/", "images/val/"),
    "folders": ("annotations/train.json", "annotations/val.json", "train/", "val/"),
    "folders of images": ("annotations/train.json", "annotations/val.json", "train/images/", "val/images/"),
    "roboflow": ("train/_annotations.coco.json", "valid/_annotations.coco.json", "train/", "valid/"),
    "loose": ("instances_train.json", "instances_val.json", "", ""),
    "bare": ("train.json", "val.json", "images/", "images/"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(write, layout: str) -> None:
    train_json, val_json, train_folder, val_folder = LAYOUTS[layout]
    files = {train_json: content(["a.png", "b.png"]), val_json: content(["c.png", "d.png"], first=11)}
    root = write(files, *(train_folder + name for name in ("a.png", "b.png")), *(val_folder + name for name in ("c.png", "d.png")))
    for source in (root, root.parent):  # also as the only folder in another
        splits = open_data(source)
        assert splits.val.picture_ids == (11, 12)
        assert splits.train.name(1) == f"{train_folder}b.png"
        assert all(path.is_file() for pictures in (splits.train, splits.val) for path in pictures.files)
        assert splits.notes[0] == "COCO annotations, 2 splits (train, val): 4 objects of 2 categories"


@pytest.mark.parametrize("pictures", ["images/default/", "images/", "default/", ""])
@pytest.mark.parametrize("file", ["annotations/instances_default.json", "instances_default.json"])
def test_an_export_of_cvat_without_splits_is_one_set(write, file: str, pictures: str) -> None:
    others = {"annotations/person_keypoints_default.json": "{}"}
    root = write({file: content([f"{place}.png" for place in range(8)]), **others}, *(f"{pictures}{place}.png" for place in range(8)))
    splits = open_data(root, val_fraction=0.25)
    assert sorted([*splits.train.picture_ids, *splits.val.picture_ids]) == list(range(1, 9))
    assert (len(splits.train), len(splits.val)) == (6, 2)
    assert all(path.is_file() for path in splits.train.files)
    assert splits.notes[0] == "COCO annotations, one set: 2 objects of 2 categories"
    assert "25% of the pictures held out as val (seed 0)" in splits.notes


def test_named_splits_go_before_a_default_one(write) -> None:
    files = {"annotations/instances_train.json": content(), "annotations/instances_default.json": content(["c.png", "d.png"], first=11)}
    splits = open_data(write(files, *(f"images/{name}.png" for name in "abcd")), val_fraction=0)
    assert splits.train.picture_ids == (1, 2)


def test_a_train_json_beside_class_folders_is_no_coco(write) -> None:
    root = write({"train.json": {"any": 1}}, "train/ant/1.png", "train/bee/2.png", "val/ant/3.png", "val/bee/4.png")
    splits = open_data(root)
    assert splits.class_names == ("ant", "bee")
    assert type(splits.train).__name__ == "PictureSet"


def test_other_json_kinds_are_left_alone_and_train_is_parted_by_pictures(write) -> None:
    names = [f"{place:03}.png" for place in range(20)]
    whole = content(names)
    whole["annotations"] = [{**whole["annotations"][0], "id": place + 1, "image_id": place + 1} for place in range(20)]
    others = {f"annotations/{kind}_train2017.json": "{}" for kind in ("captions", "person_keypoints", "image_info", "panoptic")}
    root = write({"annotations/instances_train2017.json": whole, **others}, *(f"train2017/{name}" for name in names))
    splits = open_data(root, val_fraction=0.25)
    assert (len(splits.train), len(splits.val)) == (15, 5)
    assert sorted([*splits.train.picture_ids, *splits.val.picture_ids]) == list(range(1, 21))
    assert splits.val.objects.starts.tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.notes[-1] == "25% of the pictures held out as val (seed 0)"
    assert splits.train.split == "train"
    assert open_data(root, val_fraction=0.25).val.picture_ids == splits.val.picture_ids
    assert open_data(root, val_fraction=0.25, seed=1).val.picture_ids != splits.val.picture_ids


def test_outlines_of_every_form(write) -> None:
    square = np.zeros((30, 40), np.uint8)
    square[4:10, 20:26] = 1
    compressed = run_lengths.encode(np.asfortranarray(square))
    flat = square.T.ravel()
    edges = np.flatnonzero(np.diff(flat)) + 1
    uncompressed = np.diff(np.concatenate(([0], edges, [flat.size]))).tolist()
    value = content()
    base = {"image_id": 2, "category_id": 7, "bbox": [20, 4, 6, 6]}
    value["annotations"] = [
        {**base, "id": 1, "segmentation": [[20, 4, 26, 4, 26, 10, 20, 10]]},
        {**base, "id": 2, "segmentation": {"size": [30, 40], "counts": compressed["counts"].decode()}},
        {**base, "id": 3, "segmentation": {"size": [30, 40], "counts": uncompressed}, "iscrowd": 1},
        {**base, "id": 4, "segmentation": [[20, 4, 26, 4, 26, 7, 20, 7], [20, 7, 26, 7, 26, 10, 20, 10], [1, 1, 2, 2]]},
        {**base, "id": 5, "segmentation": [], "image_id": 1},
    ]
    splits = open_data(write({"annotations/instances_train.json": value}, "images/a.png", "images/b.png"), val_fraction=0)
    train = splits.train
    assert train.objects.area.tolist() == [36] * 5
    assert train.objects.outlined.tolist() == [False, True, True, True, True]
    assert not train.has_outlines
    for place in range(1, 5):
        assert np.array_equal(train.mask(place), square), place
    assert "annotations/instances_train.json: polygons of fewer than three points left out: 1" in splits.notes
    second = train.take([1], "val")
    assert second.has_outlines
    assert second.split == "val"
    assert np.array_equal(second.mask(2), square)
    assert second.objects.outlines[0] == train.objects.outlines[1]


def test_what_is_not_annotated_is_computed(write) -> None:
    value = content()
    for image in value["images"]:
        del image["width"], image["height"]
    value["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[10, 10, 20, 10, 20, 15, 10, 15]]},
    ]
    train = opened(write({"annotations/train.json": value}, "images/a.png", "images/b.png"))
    assert train.sizes.tolist() == [[40, 30], [40, 30]]
    assert train.objects.boxes.tolist() == [[1, 2, 4, 6], [10, 10, 20, 15]]
    assert train.objects.area.tolist() == [12, 50]
    assert train.objects.crowd.tolist() == [False, False]


def test_degenerate_boxes_stay_in_the_objects_and_out_of_training(write) -> None:
    value = content()
    boxes = [[5, 5, 0, 10], [5, 5, 10, 0.5], [50, 5, 9, 9], [5, 5, -3, 4], [-5, -5, 100, 100]]
    value["annotations"] = [{"id": place, "image_id": 1, "category_id": 7, "bbox": box} for place, box in enumerate(boxes)]
    train = opened(write({"annotations/train.json": value}, "images/a.png", "images/b.png"))
    assert len(train.objects.labels) == 5
    assert train.usable.tolist() == [False, False, False, False, True]
    assert train.places(0).tolist() == [4]
    assert train.clipped[4].tolist() == [0, 0, 40, 30]


def test_a_heading_is_no_class_and_unused_categories_stay(write) -> None:
    value = content()
    value["categories"] = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
        {"id": 7, "name": "dog", "supercategory": "animals"},
        {"id": 9, "name": "eel", "supercategory": "animals"},
    ]
    splits = open_data(write({"train/_annotations.coco.json": value}, "train/a.png", "train/b.png"), val_fraction=0)
    assert splits.class_names == ("cat", "dog", "eel")
    assert splits.train.category_ids == (3, 7, 9)
    assert "the category 0 animals is a heading over all others and has no objects: left out" in splits.notes
    assert "1 of 3 categories have no objects (eel)" in splits.notes


def changed(**changes: Any) -> dict[str, Any]:
    """`content()` with its first annotation changed."""
    value = content()
    value["annotations"][0].update(changes)
    return value


BROKEN = {
    "unknown picture": (changed(image_id=99), r"annotations with such image_id: 1 \(id 5: 99\), expected ids of the 2 listed pictures"),
    "unknown category": (changed(category_id=1), r"annotations with such category_id: 1 \(id 5: 1\)"),
    "picture id as text": (changed(image_id="1"), r"annotations with such image_id: 1 \(id 5: 1\)"),
    "picture id as list": (changed(image_id=[1]), r"such image_id: 1 \(id 5: \[1\]\)"),
    "three numbers": (changed(bbox=[1, 2, 3]), r"annotations with such bbox: 1 \(id 5: \[1, 2, 3\]\), expected \[left, top"),
    "text in box": (changed(bbox=[1, 2, 3, "4"]), "annotations with such bbox: 1"),
    "no box": (changed(bbox=None), "annotations with such bbox: 1"),
    "huge box": (changed(bbox=[1, 2, 3, 10**400]), "annotations with such bbox: 1"),
    "not a number": (json.dumps(content()).replace("280", "NaN"), "broken json .NaN is no number."),
    "area as text": (changed(area="big"), r"annotations with such area: 1 \(id 5: big\)"),
    "crowd of 2": (changed(iscrowd=2), r"annotations with such iscrowd: 1 \(id 5: 2\), expected 0 or 1"),
    "odd polygon": (changed(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "annotations with such segmentation: 1"),
    "flat polygon": (changed(segmentation=[1, 2, 3, 4, 5, 6]), "annotations with such segmentation: 1"),
    "text polygon": (changed(segmentation=[["a"] * 6]), "annotations with such segmentation: 1"),
    "far polygon": (changed(segmentation=[[0, 0, 1e9, 0, 5, 5]]), "annotations with such segmentation: 1 .*not far outside"),
    "short runs": (changed(segmentation={"size": [30, 40], "counts": [100, 5]}), "annotations with such segmentation: 1"),
    "negative runs": (changed(segmentation={"size": [30, 40], "counts": [-5, 1205]}), "annotations with such segmentation: 1"),
    "runs of another size": (changed(segmentation={"size": [40, 30], "counts": [1200]}), "annotations with such segmentation: 1"),
    "empty text": (changed(segmentation={"size": [30, 40], "counts": ""}), "annotations with such segmentation: 1"),
    "wrong text": (changed(segmentation={"size": [30, 40], "counts": "PPYo0"}), "annotations with such segmentation: 1"),
    "endless text": (changed(segmentation={"size": [30, 40], "counts": "o" * 4000}), "annotations with such segmentation: 1"),
    "foreign text": (changed(segmentation={"size": [30, 40], "counts": "\u00e9\x00"}), "annotations with such segmentation: 1"),
    "outside": (content(["../a.png", "b.png"]), r"file_name '../a.png', expected a path below"),
    "absolute": (content(["/etc/passwd", "b.png"]), "file_name '/etc/passwd'"),
    "drive": (content(["C:\\a.png", "b.png"]), "file_name"),
    "missing pictures": (content(["a.png", "x.png"]), r"pictures that are not in .*images: 1 of 2 \(x.png\)"),
    "same picture twice": (content(["a.png", "a.png"]), r"pictures listed several times: 1 \(a.png\)"),
    "no lists": ({"images": []}, "found no 'categories'"),
    "list of numbers": ({**content(), "images": [1]}, "found 'images' that is no list of objects"),
    "a list": ([1, 2], "found a json list"),
    "cut off": (json.dumps(content())[:-40], "broken json"),
    "nested": ("[" * 100_000, "broken json"),
    "same category": ({**content(), "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "cat"}]}, "names that several categories"),
    "same category id": ({**content(), "categories": [{"id": 3, "name": "a"}, {"id": 3, "name": "b"}]}, "ids that several categories have"),
    "no name": ({**content(), "categories": [{"id": 3}, {"id": 7, "name": "b"}]}, r"categories without name: 1 \(3\)"),
    "size as text": (
        {**content(), "images": [{"id": 1, "file_name": "a.png", "width": "40", "height": 30}]},
        "images of such width and height: 1",
    ),
    "id as text": ({**content(), "images": [{"id": "1", "file_name": "a.png"}]}, "images with such ids: 1"),
    "no file_name": ({**content(), "images": [{"id": 1}]}, r"images without file_name: 1 \(1\)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_annotations_give_one_line_with_the_file(write, case: str) -> None:
    value, message = BROKEN[case]
    root = write({"annotations/instances_train.json": value}, "images/a.png", "images/b.png")
    with pytest.raises(UserError, match=message) as error:
        open_data(root)
    assert "\n" not in str(error.value)
    assert "instances_train.json: " in str(error.value)
    assert "expected" in str(error.value)


def test_splits_must_have_the_same_categories(write) -> None:
    other = {**content(["c.png"], 5), "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "cow"}], "annotations": []}
    root = write({"annotations/train.json": content(), "annotations/val.json": other}, "images/a.png", "images/b.png", "images/c.png")
    with pytest.raises(UserError, match=r"val.json: found categories other than in train.json: 2 \(7 cow, 7 dog\)"):
        open_data(root)


def test_annotations_without_any_object_and_odd_names(write) -> None:
    value = {**content(["x..a.png", "12:30.png", "deep\\b.png"]), "annotations": []}
    train = opened(write({"annotations/train.json": value}, "images/x..a.png", "images/12:30.png", "images/deep/b.png"))
    assert [train.name(index) for index in range(3)] == ["images/x..a.png", "images/12:30.png", "images/deep/b.png"]
    assert (train.counts(), train.objects.starts.tolist()) == ((0, 0), [0, 0, 0, 0])
    assert train.objects.boxes.shape == (0, 4)


def test_two_files_for_one_split_are_refused(write) -> None:
    root = write({"annotations/train.json": content(), "annotations/instances_train.json": content()}, "images/a.png", "images/b.png")
    with pytest.raises(UserError, match=r"found annotations/instances_train.json and annotations/train.json for train"):
        open_data(root)


def unpacked(archive: str, tmp_path: Path) -> Path:
    """A real data set, its pictures replaced by their smallest stand-ins of the same size."""
    if not (SHARED / archive).exists():
        pytest.skip(f"{archive} is not beside the repository")
    with zipfile.ZipFile(SHARED / archive) as stored:
        for name in stored.namelist():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".jpg"):
                with Image.open(BytesIO(stored.read(name))) as picture:
                    Image.new("1", picture.size).save(path)
            elif not name.endswith("/"):
                path.write_bytes(stored.read(name))
    return tmp_path


@pytest.mark.parametrize("archive", ["bccd_coco.zip", "coco_subset.zip"])
def test_real_annotations_score_one_against_themselves(tmp_path: Path, archive: str) -> None:
    splits = open_data(unpacked(archive, tmp_path))
    val = splits.val
    stored = json.loads(next(tmp_path.glob("*/annotations/instances_val.json")).read_text())
    assert len(val.objects.labels) == len(stored["annotations"])
    assert val.category_ids == tuple(sorted(entry["id"] for entry in stored["categories"]))
    truth, ours = COCO(), COCO()
    truth.dataset, ours.dataset = stored, val.ground_truth()
    truth.createIndex()
    ours.createIndex()
    for annotation in stored["annotations"]:
        annotation.setdefault("iscrowd", 0)
    results = [{**annotation, "score": 1.0} for annotation in val.ground_truth()["annotations"] if not annotation["iscrowd"]]
    for kind in ["bbox", "segm"] if val.has_outlines else ["bbox"]:
        for reference in (truth, ours):
            scored = COCOeval(reference, reference.loadRes([dict(result) for result in results]), kind)
            scored.evaluate()
            scored.accumulate()
            scored.summarize()
            assert scored.stats[0] == pytest.approx(1.0)


def test_polygons_are_drawn_only_when_asked_for(write, monkeypatch: pytest.MonkeyPatch) -> None:
    value = content()
    outline = [[float(10 + 8 * np.cos(turn)) if even else float(12 + 8 * np.sin(turn)) for turn in np.arange(20) / 3 for even in (1, 0)]]
    value["annotations"] = [
        {"id": place, "image_id": 1, "category_id": 7, "bbox": [2, 4, 16, 16], "area": 9.0, "segmentation": outline} for place in range(50)
    ]
    root = write({"annotations/train.json": value}, "images/a.png", "images/b.png")
    drawn = []
    draw = outlines.encoded_polygons
    monkeypatch.setattr(outlines, "encoded_polygons", lambda *given: drawn.append(given) or draw(*given))
    train = opened(root)
    assert train.has_outlines
    assert train.take([0], "val").has_outlines
    assert drawn == []
    assert train.mask(49).sum() == pytest.approx(np.pi * 64, rel=0.1)
    assert len(drawn) == 1
