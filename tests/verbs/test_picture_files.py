"""Every picture is read once and in order, and what is made of it gets a name of its own."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.errors import UserError
from foveate.verbs.picture_files import ResultFolder, read_ahead, unique_names

PARTS = st.sampled_from(["a", "A", "b", "a_b", "b_2", "a_2"])
PATHS = st.builds(
    lambda folders, stem, end: Path("/", *folders, stem + end), st.lists(PARTS, max_size=2), PARTS, st.sampled_from([".png", ".jpg"])
)


@settings(deadline=None)
@given(files=st.lists(PATHS, max_size=30))
def test_names_differ_even_without_case_and_hold_the_files_own(files):
    names = unique_names(files)
    assert len(names) == len(files) == len({name.casefold() for name in names})
    assert all(file.stem in name for file, name in zip(files, names, strict=True))
    stems = [file.stem.casefold() for file in files]
    for file, name in zip(files, names, strict=True):
        others = {f"{other.parent.name}_{other.stem}".casefold() for other in files if stems.count(other.stem.casefold()) > 1}
        if stems.count(file.stem.casefold()) == 1 and not any(file.stem.casefold().startswith(other) for other in others):
            assert name == file.stem, "what needs no change has none"


def test_names_of_pictures_in_several_folders_tell_these():
    assert unique_names([Path("/x/1.png"), Path("/y/1.jpg"), Path("/y/2.jpg")]) == ("x_1", "y_1", "2")
    assert unique_names([Path("/x/1.png"), Path("/x/1.jpg"), Path("/x/1.png")]) == ("x_1", "x_1_2", "x_1_3")


@pytest.mark.parametrize("ahead", [1, 3, 50])
def test_pictures_come_in_order_and_no_more_than_asked_are_read_ahead(ahead):
    started, lock = [], threading.Lock()

    def read(file):
        with lock:
            started.append(file)
        if file.name == "7":
            raise UserError("7: broken")
        return file.name

    files = [Path(str(number)) for number in range(20)]
    for place, (file, name) in enumerate(read_ahead(files, read, ahead)):
        assert file == files[place]
        assert str(name) == "7: broken" if place == 7 else name == file.name
        assert len(started) <= place + 1 + ahead
    assert sorted(started) == sorted(files)
    assert list(read_ahead([], read, ahead)) == []


class TestResultFolder:
    def test_holds_whole_pictures_and_nothing_else(self, tmp_path):
        folder = ResultFolder.make(tmp_path / "new" / "out", [tmp_path / "a.png", tmp_path / "b.jpg"])
        written = [folder.save(place, "objects", Image.new("RGB", (5, 4))) for place in (0, 1)]
        assert (
            [Path(path).name for path in written]
            == ["a_objects.png", "b_objects.png"]
            == sorted(path.name for path in folder.path.iterdir())
        )
        with Image.open(written[0]) as picture:
            assert picture.format == "PNG" and picture.size == (5, 4)

    def test_is_not_the_pictures_own_folder_and_no_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path, complaint in ((tmp_path, r"found pictures to be looked at in it \(a.png\)"), (tmp_path / "file", "cannot be made")):
            with pytest.raises(UserError, match=complaint):
                ResultFolder.make(path, [tmp_path / "a.png"])
        assert list(tmp_path.iterdir()) == [tmp_path / "file"]
