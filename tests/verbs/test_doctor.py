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
