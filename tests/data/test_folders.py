"""Every layout is recognised, labels are right in all of them, and what cannot be understood is said in one line."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from foveate.data.folders import open_pictures
from foveate.data.pictures import PictureSet, PictureSplits
from foveate.errors import UserError


def labelled(pictures: PictureSet | None) -> dict[str, str]:
    """Name -> class name."""
    assert pictures is not None
    assert all(path.is_file() for path in pictures.files)
    return {pictures.name(index): pictures.class_names[label] for index, label in enumerate(pictures.labels)}


def counts(splits: PictureSplits) -> dict[str, int]:
    return {split: len(pictures) for split, pictures in splits.present().items()}


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_three_splits_of_class_folders(make_tree, val: str) -> None:
    root = make_tree(
        "train/cat/a.png", "train/dog/b.JPG", "train/dog/c.jpeg", f"{val}/cat/d.png", f"{val}/dog/e.png", "test/cat/f.bmp", "test/dog/g.png"
    )
    splits = open_pictures(root)
    assert splits.class_names == ("cat", "dog")
    assert labelled(splits.train) == {"train/cat/a.png": "cat", "train/dog/b.JPG": "dog", "train/dog/c.jpeg": "dog"}
    assert labelled(splits.val) == {f"{val}/cat/d.png": "cat", f"{val}/dog/e.png": "dog"}
    assert labelled(splits.test) == {"test/cat/f.bmp": "cat", "test/dog/g.png": "dog"}
    assert splits.notes == ("3 splits (train, val, test) by class folders",)
    assert [pictures.split for pictures in splits.present().values()] == ["train", "val", "test"]


def test_a_missing_class_in_one_split_does_not_move_the_labels(make_tree) -> None:
    splits = open_pictures(make_tree("train/ant/1.png", "train/bee/2.png", "train/cow/3.png", "val/cow/4.png", "val/dog/5.png"))
    assert splits.class_names == ("ant", "bee", "cow", "dog")
    assert labelled(splits.val) == {"val/cow/4.png": "cow", "val/dog/5.png": "dog"}


def test_one_folder_of_class_folders_is_parted_by_class(make_tree) -> None:
    root = make_tree(*(f"{name}/{place}.png" for name, size in (("cat", 10), ("dog", 20)) for place in range(size)))
    splits = open_pictures(root, val_fraction=0.3)
    assert counts(splits) == {"train": 21, "val": 9}
    assert Counter(labelled(splits.val).values()) == {"cat": 3, "dog": 6}
    assert not labelled(splits.train).keys() & labelled(splits.val).keys()
    assert splits.notes == ("one set by class folders", "30% of each class held out as val (seed 0)")
    assert labelled(open_pictures(root, val_fraction=0.3).val) == labelled(splits.val)
    assert labelled(open_pictures(root, val_fraction=0.3, seed=1).val) != labelled(splits.val)
    assert counts(open_pictures(root, val_fraction=0)) == {"train": 30}
    assert counts(open_pictures(root, val_fraction=1)) == {"val": 30}


def test_train_alone_is_parted_and_train_with_test_is_not(make_tree) -> None:
    root = make_tree(*(f"train/{name}/{place}.png" for name in ("cat", "dog") for place in range(5)))
    assert counts(open_pictures(root)) == {"train": 8, "val": 2}
    make_tree("test/cat/x.png", "test/dog/y.png")
    assert counts(open_pictures(root)) == {"train": 10, "test": 2}


def test_a_class_called_train_is_a_class(make_tree) -> None:
    splits = open_pictures(make_tree("bus/1.png", "car/2.png", "train/3.png", "train/4.png"), val_fraction=0)
    assert splits.class_names == ("bus", "car", "train")
    assert labelled(splits.train)["train/3.png"] == "train"


def test_pictures_in_deeper_folders_belong_to_the_class_above(make_tree) -> None:
    splits = open_pictures(make_tree("cat/black/1.png", "cat/2.png", "dog/3.png", "dog/4.png"), val_fraction=0)
    assert labelled(splits.train) == {"cat/2.png": "cat", "cat/black/1.png": "cat", "dog/3.png": "dog", "dog/4.png": "dog"}


def test_a_link_that_leads_in_circles_ends(make_tree) -> None:
    root = make_tree("cat/1.png", "dog/2.png")
    (root / "cat/again").symlink_to(root / "cat")
    splits = open_pictures(root, val_fraction=0)
    assert counts(splits) == {"train": 2}
    assert splits.notes[1] == "1 left alone: cat/again"


def test_a_class_folder_may_be_a_link(make_tree, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "elsewhere/1.png")
    root = make_tree("dog/2.png")
    (root / "cat").symlink_to(tmp_path / "elsewhere")
    assert labelled(open_pictures(root, val_fraction=0).train) == {"cat/1.png": "cat", "dog/2.png": "dog"}


def test_the_only_folder_of_an_unpacked_archive_is_entered(make_tree) -> None:
    root = make_tree(
        "set/v1/train/cat/1.png", "set/v1/train/dog/2.png", "set/v1/val/cat/3.png", "set/v1/val/dog/4.png", texts={"README.txt": ""}
    )
    splits = open_pictures(root)
    assert counts(splits) == {"train": 2, "val": 2}
    assert splits.notes[:2] == ("looked in the only folder there, set/", "looked in the only folder there, v1/")
    assert open_pictures(root / "set/v1").class_names == splits.class_names


def test_files_left_alone_are_counted_and_named(make_tree) -> None:
    texts = {"README.md": "", "cat/notes.txt": "", "cat/.hidden.png": "", ".git/config": "", "__MACOSX/cat/x.png": ""}
    splits = open_pictures(make_tree("cat/1.png", "dog/2.png", "stray.png", texts=texts), val_fraction=0)
    assert splits.class_names == ("cat", "dog")
    assert splits.notes[1] == "6 left alone: .git, README.md, __MACOSX, cat/.hidden.png, cat/notes.txt and 1 more"


def test_folders_beside_the_splits_are_named(make_tree) -> None:
    splits = open_pictures(make_tree("train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png", "extra/5.png"))
    assert splits.notes == ("2 splits (train, val) by class folders", "1 left alone: extra/")


def test_the_imagenet_form(make_tree) -> None:
    """Train in class folders, val flat, its list beside it with numbers that count the sorted class folders."""
    texts = {"val_list.txt": "val/ILSVRC2012_val_00000001.JPEG 2\nval/ILSVRC2012_val_00000002.JPEG 0\n\n"}
    train = [f"train/n0{wnid}/{place}.JPEG" for wnid in (3, 1, 2) for place in range(2)]
    root = make_tree(*train, *(f"val/ILSVRC2012_val_0000000{place}.JPEG" for place in (1, 2, 3)), texts=texts)
    splits = open_pictures(root)
    assert splits.class_names == ("n01", "n02", "n03")
    assert labelled(splits.val) == {"val/ILSVRC2012_val_00000001.JPEG": "n03", "val/ILSVRC2012_val_00000002.JPEG": "n01"}
    assert splits.notes == (
        "2 splits (train, val) by class folders and the list val_list.txt",
        "1 left alone: val/ILSVRC2012_val_00000003.JPEG",
    )


@pytest.mark.parametrize("place", ["val/val_list.txt", "val/list.txt"])
def test_a_list_inside_the_flat_split_names_files_relative_to_it(make_tree, place: str) -> None:
    root = make_tree("train/cat/1.png", "train/dog/2.png", "val/a b.png", "val/c.png", texts={place: "a b.png dog\nc.png\tcat\n"})
    assert labelled(open_pictures(root).val) == {"val/a b.png": "dog", "val/c.png": "cat"}


def test_a_flat_folder_with_lists_of_its_own(make_tree) -> None:
    root = make_tree("1.png", "2.png", "3.png", texts={"train_list.txt": "1.png 0\n2.png 1\n", "val_list.txt": "3.png 1\n"})
    splits = open_pictures(root)
    assert splits.class_names == ("0", "1")
    assert labelled(splits.train) == {"1.png": "0", "2.png": "1"}
    assert labelled(splits.val) == {"3.png": "1"}


def test_classes_txt_names_the_numbers(make_tree) -> None:
    texts = {"list.txt": "1.png 1\n2.png 0\n", "classes.txt": "zebra\nant\n\n"}
    splits = open_pictures(make_tree("1.png", "2.png", texts=texts), val_fraction=0)
    assert splits.class_names == ("zebra", "ant")
    assert labelled(splits.train) == {"1.png": "ant", "2.png": "zebra"}
    assert splits.notes[0] == "one set by the list list.txt"


def test_class_folders_with_numbers_for_names_are_labelled_by_name(make_tree) -> None:
    """Sorted as text, folder "10" comes before "2": a list that says 2 means the folder "2"."""
    train = [f"train/{number}/x.png" for number in range(11)]
    root = make_tree(*train, "val/a.png", "val/b.png", texts={"val_list.txt": "a.png 2\nb.png 10\n"})
    assert labelled(open_pictures(root).val) == {"val/a.png": "2", "val/b.png": "10"}


def test_a_given_list_says_what_to_open(make_tree, tmp_path: Path) -> None:
    root = make_tree("pool/1.png", "pool/2.png", "pool/3.png", "train/cat/4.png", texts={"mine.txt": "pool/1.png cat\npool/2.png dog\n"})
    splits = open_pictures(root, list_file=root / "mine.txt", val_fraction=0)
    assert labelled(splits.train) == {"pool/1.png": "cat", "pool/2.png": "dog"}
    absolute = tmp_path / "test_absolute.txt"
    absolute.write_text(f"{root}/pool/3.png cow\n")
    (test,) = open_pictures(root, list_file=absolute).present().values()
    assert (test.split, list(test.files), test.class_names) == ("test", [root / "pool/3.png"], ("cow",))


def test_digits_take_no_list(tmp_path: Path) -> None:
    assert counts(open_pictures("digits")) == {"train": 1438, "val": 359}
    with pytest.raises(UserError, match="for the embedded digits"):
        open_pictures("digits", list_file=tmp_path / "list.txt")


WRONG = {
    "flat": (["1.png", "2.png"], {}, r"found 2 pictures without class folders or a list, expected one folder per class or a list\.txt"),
    "flat val": (["train/a/1.png", "train/b/2.png", "val/3.png"], {}, r"val: found 1 pictures without class folders .* a val_list\.txt"),
    "no pictures": (
        ["cat/", "dog/"],
        {"cat/a.txt": ""},
        r"found 2 folders without pictures \(cat, dog\), expected picture files \(\.jpg, ",
    ),
    "nothing": (["./"], {}, "found no pictures, expected one folder of pictures per class"),
    "empty split": (["train/a/1.png", "val/"], {}, "val: found no pictures"),
    "two vals": (["val/a/1.png", "valid/a/2.png"], {}, "found val and valid, expected one val folder: rename or merge them"),
    "absent": (
        ["1.png"],
        {"list.txt": "1.png 0\n2.png 1\n3.png 1\n"},
        r"list\.txt: files that are not in .*: 2 of 3 \(line 2: 2\.png, line 3: 3\.png\)",
    ),
    "malformed": (["1.png"], {"list.txt": "1.png 0\n\nalone\n"}, r"list\.txt: lines without a file and a label: 1 \(line 3: 'alone'\)"),
    "twice": (
        ["1.png"],
        {"list.txt": "1.png 0\n1.png 1\n"},
        r"list\.txt: lines that name a file again: 1 \(line 2: 1\.png, as in line 1\)",
    ),
    "empty list": (["1.png"], {"list.txt": "\n"}, r"list\.txt: found no lines, expected one 'file label' line per picture"),
    "large number": (["1.png"], {"list.txt": "1.png 99999999\n"}, r"list\.txt: found the class number 99999999"),
    "beyond": (
        ["train/a/1.png", "train/b/2.png", "val/3.png", "val/4.png"],
        {"val_list.txt": "3.png 1\n4.png 2\n"},
        r"val_list\.txt: unknown labels in 1 lines \(line 2: 2\), expected names or numbers \(0 to 1\) of the 2 classes \(a, b\)",
    ),
    "negative": (
        ["1.png", "2.png"],
        {"list.txt": "1.png 0\n2.png -1\n", "classes.txt": "a\nb"},
        r"unknown labels in 1 lines \(line 2: -1\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_understood_is_one_line(make_tree, case: str) -> None:
    names, texts, message = WRONG[case]
    with pytest.raises(UserError, match=message) as error:
        open_pictures(make_tree(*names, texts=texts))
    assert "\n" not in str(error.value)
    assert ": " in str(error.value).rsplit("expected", maxsplit=1)[1]  # what to do


def test_a_missing_folder_an_archive_and_a_bad_fraction(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no readable folder \(No such file or directory\), expected a folder of pictures or 'digits'"):
        open_pictures(tmp_path / "gone")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"set\.zip: no readable folder .*: unpack it"):
        open_pictures(tmp_path / "set.zip")
    with pytest.raises(UserError, match=r"val_fraction: found 20, expected a number from 0 to 1"):
        open_pictures(tmp_path, val_fraction=20)


def test_a_list_that_is_no_text(make_tree) -> None:
    root = make_tree("1.png")
    (root / "list.txt").write_bytes(b"1.png \xff\xfe\x00")
    with pytest.raises(UserError, match=r"list\.txt: found bytes that are no UTF-8, expected a text file"):
        open_pictures(root)
