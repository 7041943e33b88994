"""Pictures and masks: layouts, what a classes file declares, and values that are not declared."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data.mask_folders import read_classes
from foveate.data.masks import MaskSet
from foveate.data.opening import open_data
from foveate.errors import UserError

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture
def write(tmp_path: Path):
    """`write(pictures, masks, classes)`: files below the folder, masks with the values 0, 1, 2 and 255."""

    def write(pictures: list[str], masks: list[str], classes: str | None = "a\nb\nc\n") -> Path:
        root = tmp_path / "data"
        for name in [*pictures, *masks]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
        for place, name in enumerate(pictures):
            Image.new("RGB", (4, 2), (place, 9, 7)).save(root / name)
        for name in masks:
            Image.fromarray(np.array([[0, 1, 2, 255], [2, 2, 2, 0]], np.uint8)).save(root / name)
        if classes is not None:
            (root / "classes.txt").write_text(classes)
        return root

    return write


@pytest.mark.parametrize(
    "pattern",
    [
        ("images/{}/x", "masks/{}/x", "train", "val", "test"),
        ("{}/images/x", "{}/masks/x", "train", "valid", "test"),
        ("images/{}/x", "annotations/{}/x", "training", "validation", "test"),
        ("images/{}/x", "labels/{}/x", "train", "val", "test"),
    ],
)
def test_layouts_with_splits(write, pattern: tuple[str, ...]) -> None:
    pictures, masks, *names = pattern
    root = write([f"{pictures.format(name)}.jpg" for name in names], [f"{masks.format(name)}.png" for name in names])
    for source in (root, root.parent):
        splits = open_data(source)
        assert list(splits.present()) == ["train", "val", "test"]
        assert isinstance(splits.val, MaskSet)
        assert splits.val.name(0) == f"{pictures.format(names[1])}.jpg"
        assert splits.val.mask(0).tolist() == [[0, 1, 2, 255], [2, 2, 2, 0]]
        assert splits.notes[0] == "pictures and masks, 3 splits (train, val, test): 3 classes, pixels of value 255 have none"


def test_one_set_is_parted_by_pictures(write) -> None:
    names = [f"{place:02}" for place in range(10)]
    splits = open_data(write([f"images/{name}.jpg" for name in names], [f"masks/{name}.png" for name in names]), val_fraction=0.3)
    assert (len(splits.train), len(splits.val)) == (7, 3)
    assert all(picture.stem == mask.stem for picture, mask in zip(splits.val.files, splits.val.masks, strict=True))
    assert splits.notes[-1] == "30% of the pictures held out as val (seed 0)"


@pytest.mark.parametrize(
    ("text", "names", "values", "ignored"),
    [
        ("a\nb\n", ("a", "b"), (0, 1), (255,)),
        ("a\nvoid\nb\n", ("a", "b"), (0, 2), (1, 255)),
        ("0 ignore\n1 wall\n2 tall building\n", ("wall", "tall building"), (1, 2), (0, 255)),
        ("0: background\n255: crack\n", ("background", "crack"), (0, 255), ()),
        ("7, road\n\n11,  Ignore \n5,sky", ("road", "sky"), (7, 5), (11, 255)),
        ("3\tcat\n4\tdog", ("cat", "dog"), (3, 4), (255,)),
    ],
)
def test_declared_values(tmp_path: Path, text: str, names: tuple[str, ...], values: tuple[int, ...], ignored: tuple[int, ...]) -> None:
    (tmp_path / "classes.txt").write_text(text)
    declared = read_classes(tmp_path / "classes.txt")
    assert (declared.names, declared.values, declared.ignored) == (names, values, ignored)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found no names"),
        ("a\na\n", "found the names a twice"),
        ("0 a\n0 b\n", "found the numbers 0, expected 0 to 255, each once"),
        ("0 a\n256 b\n", "found the numbers 256"),
        ("0 a\nb\n", r"found 1 lines that begin with a number and 1 that do not \(b\)"),
        ("0 ignore\n", "found no names"),
        ("\n".join(f"{value} c{value}" for value in range(256)), "found 256 classes, expected 254 at most"),
    ],
)
def test_wrong_classes_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_classes(tmp_path / "classes.txt")
    assert "\n" not in str(error.value)


def test_values_become_places(write) -> None:
    splits = open_data(write(["images/x.jpg"], ["masks/x.png"], "2 c\n0 ignore\n1 a\n"), val_fraction=0)
    assert splits.train.mask(0).tolist() == [[255, 1, 0, 255], [0, 0, 0, 255]]
    assert splits.train.declared() == "2 (c), 1 (a), or 0, 255 to ignore"


def test_without_classes_the_values_are_listed(write) -> None:
    with pytest.raises(UserError, match=r"found the values 0, 1, 2, 255 in 1 masks and no classes.txt, .*'0 NAME', '1 NAME'") as error:
        open_data(write(["images/x.jpg"], ["masks/x.png"], None))
    assert "'255 ignore'" in str(error.value)


def test_pictures_and_masks_without_partner(write) -> None:
    root = write(["images/x.jpg", "images/y.jpg"], ["masks/x.png"])
    with pytest.raises(UserError, match=r"found pictures without a mask: 1 \(images/y.jpg\)"):
        open_data(root)
    write([], ["masks/y.png", "masks/z.png"])
    with pytest.raises(UserError, match=r"found masks without a picture: 1 \(masks/z.png\)"):
        open_data(root)


def test_real_masks(tmp_path: Path) -> None:
    if not (SHARED / "camvid.zip").exists():
        pytest.skip("camvid.zip is not beside the repository")
    with zipfile.ZipFile(SHARED / "camvid.zip") as stored:
        names = [name for name in stored.namelist() if not name.endswith("/")]
        stems = {Path(name).stem for split in ("train", "val", "test") for name in [n for n in names if f"masks/{split}/" in n][:4]}
        chosen = [name for name in names if name.endswith("classes.txt") or Path(name).stem in stems]
        stored.extractall(tmp_path, chosen)
    splits = open_data(tmp_path)
    assert {split: len(part) for split, part in splits.present().items()} == {"train": 4, "val": 4, "test": 4}
    assert splits.class_names[:4] == ("sky", "building", "pole", "road")
    for part in splits.present().values():
        for index in range(4):
            with Image.open(part.masks[index]) as mask:
                assert np.array_equal(part.mask(index), np.asarray(mask))
            assert part.mask(index).shape == (360, 480)
            assert (part.mask(index) != 255).mean() > 0.8
