"""YOLO labels: shares become pixels, names come from where they stand, and every wrong line is named."""

from functools import partial

import numpy as np
import pytest
from PIL import Image

from foveate.data.objects import ObjectSet
from foveate.data.opening import open_data
from foveate.errors import UserError

NAMES = "names: [cat, dog]\n"


@pytest.fixture
def write(annotated):
    return partial(annotated, (40, 20))


def test_boxes_and_pictures_without_labels(write) -> None:
    root = write(
        {"labels/a.txt": "1 0.5 0.5 0.25 0.5\n\n0 0 0 0.1 0.1\n", "labels/c.txt": "", "data.yaml": NAMES},
        *(f"images/{n}.jpg" for n in "abc"),
    )
    splits = open_data(root, val_fraction=0)
    train = splits.train
    assert isinstance(train, ObjectSet)
    assert (train.class_names, train.category_ids) == (("cat", "dog"), (1, 2))
    np.testing.assert_allclose(train.objects.boxes, [[15, 5, 25, 15], [-2, -1, 2, 1]])
    np.testing.assert_allclose(train.objects.area, [100, 8])
    assert train.objects.labels.tolist() == [1, 0]
    assert train.objects.starts.tolist() == [0, 2, 2, 2]
    assert train.objects.outlines is None
    assert train.sizes.tolist() == [[40, 20]] * 3
    assert splits.notes[:2] == (
        "YOLO labels, one set: 2 objects of 2 classes",
        "images: 1 pictures without label file taken as without objects",
    )


def test_outlines(write) -> None:
    root = write({"labels/a.txt": "0 0.25 0.2 0.75 0.2 0.75 0.7 0.25 0.7\n", "data.yaml": NAMES}, "images/a.png")
    train = open_data(root, val_fraction=0).train
    assert train.has_outlines
    np.testing.assert_allclose(train.objects.boxes, [[10, 4, 30, 14]])
    mask = np.zeros((20, 40))
    mask[4:14, 10:30] = 1
    assert np.array_equal(train.mask(0), mask)
    assert train.objects.area.tolist() == [200]


def test_shares_are_of_the_upright_picture(write) -> None:
    root = write({"labels/a.txt": "0 0.5 0.5 1 1\n", "data.yaml": NAMES})
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "images").mkdir()
    Image.new("RGB", (40, 20)).save(root / "images/a.jpg", exif=exif)
    train = open_data(root, val_fraction=0).train
    assert train.sizes.tolist() == [[20, 40]]
    assert train.objects.boxes.tolist() == [[0, 0, 20, 40]]


@pytest.mark.parametrize("pattern", ["{kind}/{split}/a", "{split}/{kind}/a", "{kind}/{split}2017/deep/a"])
@pytest.mark.parametrize("val", ["val", "valid"])
def test_layouts_with_splits(write, pattern: str, val: str) -> None:
    texts = {pattern.format(kind="labels", split=split) + ".txt": "0 .5 .5 .5 .5" for split in ("train", val, "test")}
    pictures = [pattern.format(kind="images", split=split) + ".jpg" for split in ("train", val, "test")]
    splits = open_data(write({**texts, "data.yaml": NAMES}, *pictures))
    assert list(splits.present()) == ["train", "val", "test"]
    assert splits.val.name(0) == pictures[1]
    assert [len(part.objects.labels) for part in splits.present().values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        ("data.yaml", "nc: 2\nnames: ['a b', c]", ("a b", "c")),
        ("mine.yml", "names:\n  0: x\n  1: y", ("x", "y")),
        ("classes.txt", "x\n\ny\n", ("x", "y")),
        ("obj.names", "x\ny", ("x", "y")),
        ("data.yaml", "names: [1, 2]", ("1", "2")),
    ],
)
def test_names(write, file: str, text: str, names: tuple[str, ...]) -> None:
    root = write({"labels/a.txt": "1 .5 .5 .5 .5", file: text}, "images/a.jpg")
    assert open_data(root).class_names == names


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "found YOLO labels without names of classes, expected data.yaml"),
        ({"data.yaml": "names: [a, b]\nnc: 3"}, "found 2 names and nc: 3"),
        ({"data.yaml": "names: {1: a, 2: b}"}, "found 'names' of another form"),
        ({"data.yaml": "names: [[a], b]"}, "found 'names' of another form"),
        ({"data.yaml": "names: [a, a]"}, "found the names a twice"),
        ({"data.yaml": "names: [a"}, "broken yaml"),
        ({"data.yaml": "names: !!python/object/apply:os.mkdir [made_by_yaml]"}, "broken yaml"),
        ({"a.yaml": "names: [a]", "b.yaml": "names: [b]"}, "found class names in a.yaml and b.yaml"),
    ],
)
def test_names_that_are_missing_or_wrong(write, texts: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write({"labels/a.txt": "0 .5 .5 .5 .5", **texts}, "images/a.jpg")
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=message):
        open_data(root)
    assert not (root / "made_by_yaml").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 .5 .5 .5", "found 4 numbers"),
        ("0 .5 .5 .5 .5 .9", "found 6 numbers"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "found 8 numbers"),
        ("2 .5 .5 .5 .5", "found class 2 of the 2 classes 0 to 1"),
        ("-1 .5 .5 .5 .5", "found class -1"),
        ("0.5 .5 .5 .5 .5", "found class 0.5"),
        ("0 20 5 10 10", "found the values 20, 5, 10 and 1 more outside 0 to 1"),
        ("0 .5 .5 nan .5", "found the values nan outside"),
        ("cat .5 .5 .5 .5", "could not convert"),
    ],
)
def test_wrong_lines_are_named(write, line: str, message: str) -> None:
    root = write({"labels/a.txt": f"0 .5 .5 1.005 .5\n{line}\n", "data.yaml": NAMES}, "images/a.jpg")
    with pytest.raises(UserError, match=message) as error:
        open_data(root)
    assert str(error.value).startswith(f"{root / 'labels/a.txt'}: line 2: found ")
    assert "\n" not in str(error.value)


def test_labels_without_picture_and_pictures_that_do_not_open(write) -> None:
    root = write({"labels/a.txt": "", "labels/b.txt": "", "labels/classes.txt": "cat", "data.yaml": NAMES}, "images/a.jpg")
    with pytest.raises(UserError, match=r"found label files without a picture: 1 \(labels/b.txt\)"):
        open_data(root)
    (root / "images/b.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"b\.jpg: not a picture of a known format"):
        open_data(root)
