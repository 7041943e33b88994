"""A library is compiled once, and never again until something in it changes."""

from pathlib import Path

import pytest

from foveate.speed.native.kept_libraries import cache_folder, load
from foveate.speed.native.library import find_compiler

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")

OPTIONS = ["-shared", "-fPIC"]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "answer.h").write_text("constexpr int NUMBER = 41;\n")
    (folder / "answer.cpp").write_text('#include "answer.h"\nextern "C" int answer() { return NUMBER + EXTRA; }\n')
    return folder / "answer.cpp"


@pytest.fixture
def compiler(tmp_path: Path) -> list[str]:
    """The real one, which notes down what it makes."""
    script, real = tmp_path / "compiler", " ".join(find_compiler() or [])
    script.write_text(f'#!/bin/sh\nfor last; do :; done\necho "$last" >> {tmp_path / "made"}\nexec {real} "$@"\n')
    script.chmod(0o755)
    return [str(script)]


def made(folder: Path) -> int:
    return sum(line.endswith(".so") for line in (folder / "made").read_text().splitlines())


def test_a_library_is_compiled_once_and_anew_when_anything_in_it_changes(
    cache: Path, source: Path, compiler: list[str], tmp_path: Path
) -> None:
    assert [load(source, compiler, [*OPTIONS, "-DEXTRA=1"]).answer() for _ in range(3)] == [42, 42, 42]
    assert made(tmp_path) == len(list(cache.iterdir())) == 1
    assert load(source, compiler, [*OPTIONS, "-DEXTRA=2"]).answer() == 43
    (source.parent / "answer.h").write_text("constexpr int NUMBER = 10;\n")
    assert load(source, compiler, [*OPTIONS, "-DEXTRA=1"]).answer() == 11
    assert made(tmp_path) == len(list(cache.iterdir())) == 3


def test_a_library_is_kept_for_the_processor_it_was_made_for(cache: Path, source: Path, compiler: list[str], tmp_path: Path) -> None:
    load(source, compiler, [*OPTIONS, "-DEXTRA=1"])
    script = Path(compiler[0])
    script.write_text(script.read_text().replace("#!/bin/sh\n", '#!/bin/sh\ncase "$*" in *-dM*) echo "#define OTHER 1"; exit;; esac\n'))
    assert load(source, compiler, [*OPTIONS, "-DEXTRA=1"]).answer() == 42
    assert made(tmp_path) == len(list(cache.iterdir())) == 2


def test_a_damaged_library_is_made_anew(cache: Path, source: Path, compiler: list[str], tmp_path: Path) -> None:
    cache.mkdir()
    load(source, compiler, [*OPTIONS, "-DEXTRA=1"])
    (kept,) = cache.iterdir()
    kept.rename(tmp_path / "loaded")  # what is mapped must not change
    kept.write_text("no library")
    assert load(source, compiler, [*OPTIONS, "-DEXTRA=1"]).answer() == 42
    assert made(tmp_path) == 2 and kept.stat().st_size > 1000


def test_what_fails_is_not_kept(cache: Path, source: Path, compiler: list[str]) -> None:
    source.write_text("no C++")
    with pytest.raises(Exception, match="non-zero exit status"):
        load(source, compiler, OPTIONS)
    assert list(cache.iterdir()) == []


def test_a_folder_in_which_others_may_write_is_not_used(cache: Path, source: Path, compiler: list[str], tmp_path: Path) -> None:
    cache.mkdir()
    cache.chmod(0o770)
    assert cache_folder() is None
    assert [load(source, compiler, [*OPTIONS, "-DEXTRA=1"]).answer() for _ in range(2)] == [42, 42]
    assert made(tmp_path) == 2 and list(cache.iterdir()) == []


def test_where_libraries_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FOVEATE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert cache_folder() == tmp_path / "caches" / "foveate"
    assert (tmp_path / "caches" / "foveate").stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "foveate"
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "file"))
    assert cache_folder() is None
