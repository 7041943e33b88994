"""Every way in which a set of pictures can be wrong is found, in one line, and sound sets are left in peace."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data import check
from foveate.data.check import check_pictures, quick_check, require_sound
from foveate.data.folders import open_pictures
from foveate.data.opening import open_data
from foveate.errors import UserError

SOUND = [f"{split}/{name}/{place}.png" for split in ("train", "val") for name in ("ant", "bee") for place in range(3)]


def test_a_sound_set_has_no_findings(make_tree) -> None:
    findings = check_pictures(open_pictures(make_tree(*SOUND)))
    assert (findings.problems, findings.warnings) == ((), ())
    assert findings.statistics is not None
    assert findings.statistics.kinds == {"PNG RGB": 12}
    assert findings.statistics.sizes() == ((12, 10), (12, 10), (12, 10))


def test_the_embedded_digits_are_sound() -> None:
    findings = check_pictures(open_pictures("digits"))
    assert (findings.problems, findings.warnings) == ((), ())
    assert require_sound(open_pictures("digits")).words == "1,797 pictures: all decoded, classes compared"


@pytest.mark.parametrize("suffix", ["jpg", "png", "gif", "bmp", "tif", "webp"])
def test_each_broken_picture_is_named_in_a_line_of_its_own(make_tree, suffix: str) -> None:
    names = [f"val/bee/{place}x.{suffix}" for place in range(2)]
    root = make_tree(*SOUND, *names)
    for name in names:
        content = (root / name).read_bytes()
        (root / name).write_bytes(content[: len(content) // 2])
    findings = check_pictures(open_pictures(root))
    assert len(findings.problems) == 2
    for name, problem in zip(names, findings.problems, strict=True):
        assert problem.startswith(f"{name}: ")
        assert "expected" in problem
        assert "\n" not in problem
    assert findings.statistics is not None
    assert findings.statistics.pictures == 12


def test_pixels_nothing_is_known_of_are_a_problem(make_tree) -> None:
    root = make_tree(*SOUND)
    Image.new("F", (5, 5), 0.5).save(root / "train/ant/heights.tif")
    (problem,) = check_pictures(open_pictures(root)).problems
    assert problem.startswith("train/ant/heights.tif: values from 0.5 to 0.5 in pixel type F, expected whole numbers")


def test_empty_classes_and_differing_class_sets(make_tree) -> None:
    root = make_tree(*SOUND, "train/cow/", "train/dog/1.png", "val/eel/2.png", "val/fox/3.png")
    problems = quick_check(open_pictures(root))
    assert problems == [
        "classes without pictures: found 1 of 6 (cow), expected none: add pictures or remove these classes",
        "train: found no pictures of 2 classes that other splits have (eel, fox), expected the same classes in every split: "
        "add pictures, or remove or rename classes",
        "val: found no pictures of 1 classes that other splits have (dog), expected the same classes in every split: "
        "add pictures, or remove or rename classes",
    ]
    assert list(check_pictures(open_pictures(root)).problems) == problems


def test_lists_that_count_from_one_are_suspected(make_tree) -> None:
    root = make_tree("1.png", "2.png", "3.png", "4.png", texts={"list.txt": "1.png 1\n2.png 1\n3.png 2\n4.png 2\n"})
    (problem,) = quick_check(open_pictures(root))
    assert problem.startswith("classes without pictures: found 1 of 3 (0)")
    assert problem.endswith("; numbers count from 0, does the list count from 1?")


def test_one_class_only_is_a_problem_for_training_alone(make_tree) -> None:
    root = make_tree("train/ant/1.png", "train/ant/2.png", "train/ant/3.png")
    (problem,) = quick_check(open_pictures(root))
    assert problem.startswith("found one class only (ant), expected two or more: is ")
    assert quick_check(open_pictures(root, val_fraction=1)) == []


def test_the_same_content_in_two_splits_or_two_classes_is_a_warning(make_tree) -> None:
    root = make_tree(*SOUND)
    shutil.copy(root / "train/ant/0.png", root / "val/ant/copy.png")
    shutil.copy(root / "train/bee/1.png", root / "train/ant/twin.png")
    shutil.copy(root / "train/bee/2.png", root / "train/bee/harmless.png")
    findings = check_pictures(open_pictures(root))
    assert findings.problems == ()
    assert findings.warnings == (
        "same pictures in two splits: 1 (val/ant/copy.png = train/ant/0.png): scores on them are too good, remove one of each",
        "same pictures in two classes: 1 (train/bee/1.png = train/ant/twin.png): keep the right one of each",
    )


def test_a_class_ten_times_rarer_than_another_is_a_warning(make_tree) -> None:
    root = make_tree(*SOUND, *(f"train/bee/more{place}.png" for place in range(26)))
    assert check_pictures(open_pictures(root)).warnings == ()
    make_tree("train/bee/one_more.png")
    assert check_pictures(open_pictures(root)).warnings == (
        "train: class ant has 3 pictures, bee has 30: consider class weights or balanced sampling",
    )


def test_statistics_count_sizes_as_shown_and_kinds_as_stored(make_tree) -> None:
    root = make_tree(*SOUND)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (400, 300)).save(root / "train/ant/portrait.jpg", exif=exif)
    Image.new("RGBA", (2, 3)).save(root / "val/bee/tiny.webp")
    statistics = check_pictures(open_pictures(root)).statistics
    assert statistics is not None
    assert statistics.sizes() == ((2, 3), (12, 10), (300, 400))
    assert statistics.kinds == {"PNG RGB": 12, "JPEG L": 1, "WEBP RGBA": 1}


def test_progress_counts_every_picture_once(make_tree) -> None:
    root = make_tree(*SOUND, *(f"train/ant/more{place}.png" for place in range(130)))
    told: list[tuple[int, int]] = []
    check_pictures(open_pictures(root), lambda done, total: told.append((done, total)))
    assert told[-1] == (142, 142)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert {total for _, total in told} == {142}


def test_training_stops_on_problems_and_says_what_it_checked(make_tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(*SOUND)
    assert require_sound(open_pictures(root)).words == "12 pictures: all decoded, classes compared"
    (root / "train/ant/0.png").write_bytes(b"no picture")
    (root / "train/bee/1.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        require_sound(open_pictures(root))
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["train/ant/0.png", "train/bee/1.png"]
    monkeypatch.setattr(check, "DECODED_BEFORE_TRAINING", 11)
    unseen = require_sound(open_pictures(root))
    assert unseen.words == f"12 pictures: classes compared, pictures not decoded (foveate doctor {root} does it)"
    assert unseen.warnings == ()
    for name in ("0.png", "1.png", "2.png"):
        (root / "val/bee" / name).unlink()
    with pytest.raises(UserError, match="val: found no pictures of 1 classes"):
        require_sound(open_pictures(root))


def test_training_is_told_what_to_judge_too(make_tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_tree(*SOUND, *(f"train/ant/more{place}.png" for place in range(40)))
    (root / "val/ant/0.png").write_bytes((root / "train/ant/0.png").read_bytes())
    few, shared = require_sound(open_pictures(root)).warnings
    assert few.startswith("train: class bee has 3 pictures, ant has 43")
    assert shared.startswith("same pictures in two splits: 1 (val/ant/0.png = train/ant/0.png)")
    monkeypatch.setattr(check, "DECODED_BEFORE_TRAINING", 11)
    assert require_sound(open_pictures(root)).warnings == (few,), "classes are compared without looking at pictures"


def test_many_problems_are_cut_short_before_training(make_tree) -> None:
    root = make_tree(*SOUND, *(f"train/ant/more{place}.png" for place in range(40)))
    for place in range(40):
        (root / f"train/ant/more{place}.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        require_sound(open_pictures(root))
    assert len(str(error.value).splitlines()) == 21
    assert str(error.value).endswith(f"and 20 more problems: foveate doctor {root} --json lists all")


def test_real_photographs_are_sound(real_jpegs: list[Path]) -> None:
    root = real_jpegs[0].parents[2]
    findings = check_pictures(open_pictures(root))
    assert findings.statistics is not None
    assert findings.statistics.pictures == len(real_jpegs)
    assert not [problem for problem in findings.problems if "broken" in problem]
    assert min(findings.statistics.smallest) == 224


def make_annotated(root: Path, boxes: dict[str, list[list[float]]], size: tuple[int, int] = (40, 30), **changes: object) -> Path:
    """COCO annotations of classes cat and dog in turn; split/name -> boxes (left, top, width, height)."""
    for split in {name.split("/")[0] for name in boxes}:
        names = [name for name in boxes if name.startswith(split)]
        annotations = [
            {"image_id": place, "category_id": 1 + number % 2, "bbox": box, **changes}
            for place, name in enumerate(names)
            for number, box in enumerate(boxes[name])
        ]
        value = {
            "images": [{"id": i, "file_name": n.split("/")[1], "width": size[0], "height": size[1]} for i, n in enumerate(names)],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [{"id": place, **annotation} for place, annotation in enumerate(annotations)],
        }
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / split / "_annotations.coco.json").write_text(json.dumps(value))
        for name in names:
            picture_of(name).resize((40, 30)).save(root / name)
    return root


def picture_of(name: str) -> Image.Image:
    return Image.fromarray(np.random.default_rng(list(name.encode())).integers(0, 256, (6, 8, 3), dtype=np.uint8))


GOOD = [[1.0, 1, 10, 10], [5, 5, 20, 20]]


def test_sound_objects_have_no_findings_and_figures(tmp_path: Path) -> None:
    root = make_annotated(tmp_path, {"train/a.png": [[0, 0, 40, 30], [5, 5, 20, 20]], "train/b.png": [], "val/c.png": GOOD})
    splits = open_data(root)
    findings = check_pictures(splits)
    assert (findings.problems, findings.warnings) == ((), ())
    train = findings.objects["train"]
    assert (train.pictures, train.empty, train.objects, train.most, train.small, train.medium, train.large) == (2, 1, 2, 2, 1, 1, 0)
    assert (
        str(train)
        == "2 objects on 2 pictures (on average 1.0, at most 2, 1 without), 50% small, 50% medium, 0% large, 0 crowds, boxes only"
    )
    assert require_sound(splits).words == "3 pictures: all decoded, classes compared"


def test_degenerate_boxes_crowds_and_boxes_that_stick_out_are_warnings(tmp_path: Path) -> None:
    boxes = {"train/a.png": [*GOOD, [5, 5, 0, 9], [30, 5, 11.5, 9], [30, 5, 10.5, 9]], "val/c.png": GOOD}
    findings = check_pictures(open_data(make_annotated(tmp_path, boxes)))
    assert findings.problems == ()
    assert findings.warnings == (
        "train: boxes less than a pixel wide or high inside their picture: 1 (train/a.png): never trained on",
        "train: boxes that stick out of their picture by more than a pixel: 1 (train/a.png): cut off at its edges in training",
    )
    findings = check_pictures(open_data(make_annotated(tmp_path, {"train/a.png": GOOD, "val/c.png": GOOD}, iscrowd=1)))
    assert findings.problems == tuple(
        f"{split}: found 2 objects, none of them usable on 1 pictures, expected some: check the annotations" for split in ("train", "val")
    )
    assert findings.warnings[0] == (
        "train: crowds or difficult objects: 2 (train/a.png): never trained on, and in scoring neither missed nor wrong"
    )


def test_classes_that_train_lacks_are_a_warning_of_objects(tmp_path: Path) -> None:
    findings = check_pictures(open_data(make_annotated(tmp_path, {"train/a.png": GOOD[:1], "val/c.png": GOOD})))
    assert findings.problems == ()
    assert findings.warnings == ("train: no objects of 1 classes that other splits have (dog): they cannot be learnt",)


def test_sizes_other_than_annotated_are_problems(tmp_path: Path) -> None:
    root = make_annotated(tmp_path, {"train/a.png": GOOD, "val/c.png": GOOD}, size=(41, 30))
    assert check_pictures(open_data(root)).problems == (
        "train/a.png: found boxes for 41 x 30 pixels, expected 40 x 30 as the picture is",
        "val/c.png: found boxes for 41 x 30 pixels, expected 40 x 30 as the picture is",
    )


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("upright", [True, False])
def test_turned_pictures_must_be_annotated_as_they_are_read(tmp_path: Path, orientation: int, upright: bool) -> None:
    turned = orientation == 6
    root = make_annotated(tmp_path, {"train/a.jpg": GOOD, "val/c.jpg": GOOD}, size=(30, 40) if turned and upright else (40, 30))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture_of("train/a.jpg").resize((40, 30)).save(root / "train/a.jpg", exif=exif)
    picture_of("val/c.jpg").resize((30, 40) if turned and upright else (40, 30)).save(root / "val/c.jpg")
    findings = check_pictures(open_data(root))
    if turned and not upright:
        (problem,) = findings.problems
        assert problem.startswith("train/a.jpg: found boxes for 40 x 30 pixels, expected 30 x 40 as the picture is when upright (EXIF ")
    else:
        assert findings.problems == ()
    assert len(findings.warnings) == (orientation == 3)


def test_broken_and_repeated_pictures_are_found_among_objects(tmp_path: Path) -> None:
    root = make_annotated(tmp_path, {"train/a.png": GOOD, "train/b.png": GOOD, "val/c.png": GOOD})
    shutil.copy(root / "train/b.png", root / "val/c.png")
    (root / "train/a.png").write_bytes((root / "train/a.png").read_bytes()[:90])
    findings = check_pictures(open_data(root))
    assert len(findings.problems) == 1
    assert findings.problems[0].startswith("train/a.png: broken picture")
    assert findings.warnings[0].startswith("same pictures in two splits: 1 (val/c.png = train/b.png)")
    with pytest.raises(UserError, match=r"^train/a.png: broken picture"):
        require_sound(open_data(root))


def make_masked(root: Path, masks: dict[str, list[list[int]]], classes: str = "a\nb\n") -> Path:
    """split/name -> the numbers of its mask; pictures of 4 x 2."""
    for name, numbers in masks.items():
        split, stem = name.split("/")
        for folder in ("images", "masks"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        picture_of(name).resize((4, 2)).save(root / f"images/{name}.png")
        Image.fromarray(np.array(numbers, np.uint8)).save(root / f"masks/{split}/{stem}.png")
    (root / "classes.txt").write_text(classes)
    return root


MASK = [[0, 0, 1, 255], [0, 0, 0, 1]]


def test_sound_masks_have_no_findings_and_shares(tmp_path: Path) -> None:
    findings = check_pictures(open_data(make_masked(tmp_path, {"train/x": MASK, "train/y": MASK, "val/z": MASK})))
    assert (findings.problems, findings.warnings) == ((), ())
    assert findings.pixels["train"].pixels == (10, 4)
    assert findings.pixels["train"].shares() == (10 / 16, 4 / 16, 2 / 16)


def test_masks_of_wrong_values_and_sizes_are_problems(tmp_path: Path) -> None:
    wrong = {"train/x": MASK, "train/y": [[0, 1, 2, 3], [0, 0, 0, 0]], "val/z": [[0, 1, 1]], "val/w": MASK}
    root = make_masked(tmp_path, wrong)
    problems = check_pictures(open_data(root)).problems
    assert len(problems) == 2
    assert "masks/train/y.png: found the mask values 2, 3, expected 0 (a), 1 (b)" in problems[0]
    assert problems[1] == "images/val/z.png: found mask for 3 x 1 pixels, expected 4 x 2 as the picture is"
    (root / "masks/val/w.png").write_bytes(b"")
    assert any("masks/val/w.png: not a picture" in problem for problem in check_pictures(open_data(root)).problems)


def test_masks_of_255_alone_are_suspected(tmp_path: Path) -> None:
    two = [[0, 0, 255, 255], [0, 0, 0, 0]]
    findings = check_pictures(open_data(make_masked(tmp_path, {"train/x": two, "val/y": two})))
    assert findings.problems == ()
    assert findings.warnings == (
        "classes without pixels: 1 of 2 (b): they cannot be learnt or scored",
        "masks hold one class and 255, which means none: if 255 is a class, declare it: '255 NAME'",
    )
    empty = [[255] * 4] * 2
    findings = check_pictures(open_data(make_masked(tmp_path, {"train/x": empty})))
    assert findings.problems[0].startswith("train: found masks of 255 alone, which mean no class")
    assert findings.warnings[0].startswith("train: masks without any class: 1 (images/train/x.png)")
