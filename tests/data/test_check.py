"""Every way in which a set of pictures can be wrong is found, in one line, and sound sets are left in peace."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from foveate.data import check
from foveate.data.check import check_pictures, quick_check, require_sound
from foveate.data.folders import open_pictures
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
    assert require_sound(open_pictures("digits")) == "1,797 pictures: all decoded, classes compared"


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
    assert require_sound(open_pictures(root)) == "12 pictures: all decoded, classes compared"
    (root / "train/ant/0.png").write_bytes(b"no picture")
    (root / "train/bee/1.png").write_bytes(b"")
    with pytest.raises(UserError) as error:
        require_sound(open_pictures(root))
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["train/ant/0.png", "train/bee/1.png"]
    monkeypatch.setattr(check, "DECODED_BEFORE_TRAINING", 11)
    assert require_sound(open_pictures(root)) == f"12 pictures: classes compared, pictures not decoded (foveate doctor {root} does it)"
    for name in ("0.png", "1.png", "2.png"):
        (root / "val/bee" / name).unlink()
    with pytest.raises(UserError, match="val: found no pictures of 1 classes"):
        require_sound(open_pictures(root))


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
