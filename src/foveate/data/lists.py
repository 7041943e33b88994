"""List files: one `file label` line per picture, the form of ImageNet's val_list.txt."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import isfile, join
from pathlib import Path

from foveate.data.pictures import shortened
from foveate.errors import UserError


@dataclass(frozen=True)
class PictureList:
    """Line `lines[i]` of `path` says that picture `files[i]` has the label `labels[i]`, both as written."""

    path: Path
    files: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[int, ...]

    def base(self, candidates: Sequence[Path]) -> Path:
        """The first of the folders below which every listed file exists; `UserError` naming files and lines where there is none."""
        absent: dict[Path, list[int]] = {}
        for folder in candidates:
            absent[folder] = self._absent(folder)
            if not absent[folder]:
                return folder
        nearest = min(absent, key=lambda folder: len(absent[folder]))
        named = shortened([f"line {self.lines[index]}: {self.files[index]}" for index in absent[nearest]], 3)
        found = f"{self.path}: files that are not in {nearest}: {len(absent[nearest])} of {len(self.files)} ({named})"
        raise UserError(f"{found}, expected paths relative to the list or the picture folder: mend the lines or bring the files")

    def _absent(self, folder: Path) -> list[int]:
        prefix = str(folder)  # a Path per line would take several times as long
        return [index for index, file in enumerate(self.files) if not isfile(join(prefix, file))]  # noqa: PTH113, PTH118


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text; `UserError` where it is none."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected a text file there: check the path") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: found bytes that are no UTF-8, expected a text file: save it as UTF-8") from None


def read_list(path: Path) -> PictureList:
    """The lines of a list file: path, then a class number (from 0) or class name, parted by the last blank or by a tab.

    Empty lines are allowed. `UserError` with line numbers for lines of another form and for files named twice.
    """
    entries: dict[str, tuple[str, int]] = {}
    malformed: list[str] = []
    repeated: list[str] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        parts = [part.strip() for part in line.rsplit("\t" if "\t" in line else None, maxsplit=1)]
        if len(parts) != 2 or not all(parts):
            malformed.append(f"line {number}: {line.strip()[:60]!r}")
        elif parts[0] in entries:
            repeated.append(f"line {number}: {parts[0]}, as in line {entries[parts[0]][1]}")
        else:
            entries[parts[0]] = (parts[1], number)
    _refuse(path, malformed, "lines without a file and a label", "one 'file label' per line")
    _refuse(path, repeated, "lines that name a file again", "every file once")
    if not entries:
        raise UserError(f"{path}: found no lines, expected one 'file label' line per picture: write them or remove the list")
    return PictureList(path, tuple(entries), tuple(label for label, _ in entries.values()), tuple(line for _, line in entries.values()))


def _refuse(path: Path, wrong: list[str], found: str, expected: str) -> None:
    if wrong:
        raise UserError(f"{path}: {found}: {len(wrong)} ({shortened(wrong, 3)}), expected {expected}: mend or remove them")
