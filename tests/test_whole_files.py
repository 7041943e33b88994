"""A file is there whole or as it was before, whatever happens while it is written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foveate.errors import UserError
from foveate.whole_files import whole_file, write_text


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old, ü")
    assert file.read_text(encoding="utf-8") == "old, ü"
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")
    assert file.read_text(encoding="utf-8") == "old, ü"
    assert list(tmp_path.iterdir()) == [file]


def test_the_new_file_is_not_there_until_it_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"old")
    with whole_file(file) as part:
        part.write_bytes(b"half")
        assert file.read_bytes() == b"old"
        assert part.parent == tmp_path
    assert file.read_bytes() == b"half"
    assert list(tmp_path.iterdir()) == [file]


def test_a_killed_program_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old")
    code = f"""
import os, signal
from pathlib import Path
from foveate.whole_files import whole_file
with whole_file(Path({str(file)!r})) as part:
    part.write_text("half of the new")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL
    assert file.read_text() == "old"


@pytest.mark.parametrize("place", ["none/a.txt", "a folder"])
def test_what_the_system_refuses_is_one_line(tmp_path: Path, place: str) -> None:
    (tmp_path / "a folder").mkdir()
    with pytest.raises(UserError, match=r"cannot be written \(.+\), expected a folder that exists") as error:
        write_text(tmp_path / place, "new")
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a folder"]
