"""Picture files named on the command line: found, read ahead of the model, and results saved under their names."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image
from rich.console import Console
from rich.progress import Progress

from foveate.data.pictures import shortened
from foveate.data.reading import SUFFIXES
from foveate.errors import UserError
from foveate.whole_files import whole_file

Read = TypeVar("Read")


def find_pictures(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """List the picture files of `paths`, folders searched through and through in sorted order, and name what was left out of them.

    Raises:
        UserError: for a path that does not exist, and where there is no picture at all.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: found nothing there, expected a picture or a folder of pictures; check the path")
        inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found = [file for file in inside if file.suffix.lower() in SUFFIXES] if path.is_dir() else inside
        if not found:
            raise UserError(f"{path}: found no picture in this folder, expected files ending in {', '.join(SUFFIXES)}")
        if len(found) < len(inside):
            endings = sorted({file.suffix or file.name for file in inside} - {file.suffix for file in found})
            notes.append(
                f"{path}: left out {len(inside) - len(found)} of {len(inside)} files, not ending as pictures do ({', '.join(endings)})"
            )
        files += found
    if not files:
        raise UserError("predict: found no pictures, expected picture files or folders after the model")
    return files, notes


def read_ahead(files: Sequence[Path], read: Callable[[Path], Read], ahead: int) -> Iterator[tuple[Path, Read | UserError]]:
    """Each file with what `read` makes of it, or why it cannot; the `ahead` next ones are read in threads meanwhile.

    Progress goes to a terminal's stderr.
    """

    def attempt(file: Path) -> Read | UserError:
        try:
            return read(file)
        except UserError as error:
            return error

    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("pictures", total=len(files))
        waiting = deque(pool.submit(attempt, file) for file in files[:ahead])
        for place, file in enumerate(files):
            waiting.extend(pool.submit(attempt, following) for following in files[place + ahead : place + ahead + 1])
            yield file, waiting.popleft().result()
            bar.advance(task)


def check_writable(*outputs: Path | None) -> None:
    """Find out before the work that a file could not be written after it."""
    for out in outputs:
        if out is not None and not out.parent.is_dir():
            raise UserError(f"{out}: found no folder {out.parent}, expected one to write into; make it first")
        if out is not None and out.is_dir():
            raise UserError(f"{out}: found a folder, expected the name of a file to write; choose another name")


@dataclass(frozen=True)
class ResultFolder:
    """A folder for pictures made of other pictures, each named after the one it is made of.

    Args:
        path: the folder.
        names: one per picture, all different.
    """

    path: Path
    names: tuple[str, ...]

    @classmethod
    def make(cls, path: Path, files: Sequence[Path]) -> "ResultFolder":
        """The folder, made where it is absent; `UserError` where that fails, or where the pictures themselves lie in it."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error.strerror}), expected a folder to write into; choose another --out") from None
        inside = [file.name for file in files if file.resolve().parent == path.resolve()]
        if inside:
            raise UserError(
                f"{path}: found pictures to be looked at in it ({shortened(inside, 3)}), expected a folder of its own; choose another --out"
            )
        return cls(path, unique_names(files))

    def save(self, place: int, ending: str, picture: Image.Image) -> str:
        """Write what was made of picture `place` as a PNG; the path it got."""
        path = self.path / f"{self.names[place]}_{ending}.png"
        with whole_file(path) as part:
            picture.save(part, format="PNG")
        return str(path)


def unique_names(files: Sequence[Path]) -> tuple[str, ...]:
    """A name for each file, different from all others even where upper and lower case are one.

    It is the file's own without its ending; where several files have that, with their folder's name ahead, and where that is not enough, a
    number behind.
    """
    stems = Counter(file.stem.casefold() for file in files)
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for file in files:
        wish = name = file.stem if stems[file.stem.casefold()] == 1 else f"{file.resolve().parent.name}_{file.stem}"
        while name.casefold() in names:
            numbers[wish.casefold()] += 1
            name = f"{wish}_{numbers[wish.casefold()] + 1}"
        names[name.casefold()] = name
    return tuple(names.values())
