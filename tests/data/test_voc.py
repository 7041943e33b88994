"""Pascal VOC xml: edges counted from 1, difficult objects, lists of splits, and files that are broken or hostile."""

from functools import partial

import pytest

from foveate.data.objects import ObjectSet
from foveate.data.opening import open_data
from foveate.errors import UserError


def xml(*objects: str, size: str = "<size><width>40</width><height>30</height><depth>3</depth></size>") -> str:
    return f"<annotation><filename>any.jpg</filename>{size}{''.join(objects)}</annotation>"


def thing(name: str, edges: tuple[object, object, object, object] = (1, 1, 10, 5), more: str = "") -> str:
    tags = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), edges, strict=True))
    return f"<object><name>{name}</name>{more}<bndbox>{tags}</bndbox></object>"


@pytest.fixture
def write(annotated):
    return partial(annotated, (40, 30))


def test_boxes_names_and_difficult_objects(write) -> None:
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    texts = {
        "Annotations/a.xml": xml(thing("dog", (1, 1, 40, 30), part), thing("cat", (11, 6, 20.5, 15), "<difficult>1</difficult>")),
        "Annotations/b.xml": xml(size=""),
    }
    splits = open_data(write(texts, "JPEGImages/a.jpg", "JPEGImages/b.jpg"), val_fraction=0)
    train = splits.train
    assert isinstance(train, ObjectSet)
    assert (train.class_names, train.category_ids, train.picture_ids) == (("cat", "dog"), (1, 2), (1, 2))
    assert train.objects.boxes.tolist() == [[0, 0, 40, 30], [10, 5, 20.5, 15]]
    assert train.objects.labels.tolist() == [1, 0]
    assert train.objects.crowd.tolist() == [False, True]
    assert train.objects.area.tolist() == [1200, 105]
    assert train.objects.starts.tolist() == [0, 2, 2]
    assert train.sizes.tolist() == [[40, 30], [40, 30]]
    assert train.counts() == (0, 1)
    assert splits.notes == ("Pascal VOC annotations, one set: 2 objects of 2 classes", "0% of the pictures held out as val (seed 0)")


def test_lists_of_splits_below_the_only_folders(write) -> None:
    base = "VOCdevkit/VOC2007/"
    texts = {f"{base}Annotations/{place:06}.xml": xml(thing("dog")) for place in range(6)}
    lists = {"train": "000000\n000001\n", "val": "000002\n", "trainval": "000000\n000001\n000002\n", "test": "000003 \n000004\n"}
    texts |= {f"{base}ImageSets/Main/{split}.txt": text for split, text in lists.items()}
    texts[f"{base}ImageSets/Main/dog_train.txt"] = "000005 1\n"
    root = write(texts, *(f"{base}JPEGImages/{place:06}.jpg" for place in range(6)))
    splits = open_data(root)
    assert {split: len(pictures) for split, pictures in splits.present().items()} == {"train": 2, "val": 1, "test": 2}
    assert splits.val.name(0) == "JPEGImages/000002.jpg"
    assert splits.notes == (
        "Pascal VOC annotations, 3 splits (train, val, test): 5 objects of 1 classes",
        "parted by ImageSets/Main (train.txt, val.txt, test.txt)",
        "1 pictures that no list names left alone (JPEGImages/000005.jpg)",
        "looked in the only folder there, VOCdevkit/",
        "looked in the only folder there, VOC2007/",
    )
    (root / f"{base}ImageSets/Main/train.txt").unlink()
    splits = open_data(root)
    assert {split: len(pictures) for split, pictures in splits.present().items()} == {"train": 3, "val": 1, "test": 2}
    (root / f"{base}ImageSets/Main/val.txt").write_text("000002\n000009\n")
    with pytest.raises(UserError, match=r"val.txt: found names without picture or xml file: 1 \(000009\)"):
        open_data(root)


@pytest.mark.parametrize(
    ("pictures", "annotations", "splits"),
    [
        ("images/{}.jpg", "annotations/{}.xml", {"train": 3, "val": 1}),
        ("{}.jpg", "{}.xml", {"train": 3, "val": 1}),
        ("train/{}.jpg", "train/{}.xml", {"train": 3, "val": 1}),
        ("train/images/{}.jpg", "train/annotations/{}.xml", {"train": 3, "val": 1}),
        ("images/val/{}.jpg", "annotations/val/{}.xml", {"val": 4}),
    ],
)
def test_layouts(write, pictures: str, annotations: str, splits: dict[str, int]) -> None:
    texts = {annotations.format(place): xml(thing("dog")) for place in range(4)}
    found = open_data(write(texts, *(pictures.format(place) for place in range(4))), val_fraction=0.25)
    assert {split: len(part) for split, part in found.present().items()} == splits
    assert all(isinstance(part, ObjectSet) and len(part.objects.labels) == len(part) for part in found.present().values())


def test_class_order_of_a_file_and_names_it_lacks(write) -> None:
    root = write({"a.xml": xml(thing("dog"), thing("cat")), "classes.txt": "dog\neel\ncat\n"}, "a.jpg")
    train = open_data(root, val_fraction=0).train
    assert (train.class_names, train.objects.labels.tolist()) == (("dog", "eel", "cat"), [0, 2])
    (root / "classes.txt").write_text("dog\neel\n")
    with pytest.raises(UserError, match=r"classes.txt: found objects of 1 other classes \(cat in a.xml\)"):
        open_data(root)


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation><object><name>&c;</name></object></annotation>'
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "found a document type or entities"),
        (OUTSIDE, "found a document type or entities"),
        (BOMB.encode("utf-16"), "or no UTF-8"),
        ("<annotation><object>", "broken annotation"),
        ("", "broken annotation"),
        (xml("<object><name>dog</name></object>"), r"broken annotation \(could not convert string to float"),
        (xml(thing("")), r"broken annotation \(an object without name\)"),
        (xml(thing("dog", ("nan", 1, 2, 3))), r"broken annotation \(a box edge of nan\)"),
        (xml(thing("dog", ("left", 1, 2, 3))), "broken annotation"),
        (xml(thing("dog"), size="<size><width>wide</width></size>"), "broken annotation"),
    ],
)
def test_broken_and_hostile_files_give_one_line(write, text: str, message: str) -> None:
    root = write({"Annotations/a.xml": text}, "JPEGImages/a.jpg")
    with pytest.raises(UserError, match=message) as error:
        open_data(root)
    assert str(error.value).startswith(f"{root / 'Annotations/a.xml'}: ")
    assert "\n" not in str(error.value)


def test_pictures_and_files_without_partner(write) -> None:
    root = write({"Annotations/a.xml": xml(thing("dog"))}, "JPEGImages/a.jpg", "JPEGImages/b.jpg")
    with pytest.raises(UserError, match=r"found pictures without an xml file: 1 \(JPEGImages/b.jpg\)"):
        open_data(root)
    (root / "JPEGImages/b.jpg").rename(root / "JPEGImages/a.png")
    with pytest.raises(UserError, match=r"found 1 files of one name \(JPEGImages/a.jpg and JPEGImages/a.png\)"):
        open_data(root)
    (root / "JPEGImages/a.png").unlink()
    (root / "Annotations/c.xml").write_text(xml())
    with pytest.raises(UserError, match=r"found xml files without a picture: 1 \(Annotations/c.xml\)"):
        open_data(root)
