"""What lies in a folder: one pass of the operating system over each, no look into any file."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from foveate.data.reading import SUFFIXES
from foveate.errors import UserError


@dataclass(frozen=True)
class Listing:
    """What lies directly in `folder`, by name, sorted. `others` are files that are no pictures, and everything hidden."""

    folder: Path
    folders: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def list_folder(folder: Path) -> Listing:
    """What lies in `folder`; `UserError` where it is not a readable folder. Links count as what they lead to."""
    found = Listing(folder)
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    found.others.append(entry.name)
                elif entry.is_dir():
                    found.folders.append(entry.name)
                else:
                    (found.pictures if _is_picture(entry.name) else found.others).append(entry.name)
    except OSError as error:
        hint = "unpack it" if folder.is_file() else "check the path"
        raise UserError(f"{folder}: no readable folder ({error.strerror}), expected a folder of pictures or 'digits': {hint}") from None
    for names in (found.folders, found.pictures, found.others):
        names.sort()
    return found


def pictures_below(folder: Path, prefix: str) -> tuple[list[str], list[str]]:
    """All pictures in `folder` and the folders in it, and what was left alone; sorted paths that begin with `prefix`.

    Links to folders are left alone here: they may lead in circles.
    """
    return _below(folder, prefix, SUFFIXES)


def files_below(folder: Path, prefix: str, suffixes: tuple[str, ...]) -> list[str]:
    """All files with one of the suffixes (in small letters), found as `pictures_below` finds pictures."""
    return _below(folder, prefix, suffixes)[0]


def _below(folder: Path, prefix: str, suffixes: tuple[str, ...]) -> tuple[list[str], list[str]]:
    names: list[str] = []
    others: list[str] = []
    waiting = [(str(folder), prefix)]
    while waiting:
        place, written = waiting.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = f"{written}/{entry.name}" if written else entry.name
                if entry.name.lower().endswith(suffixes) and not _is_hidden(entry.name):
                    names.append(name)
                elif entry.is_dir(follow_symlinks=False) and not _is_hidden(entry.name):
                    waiting.append((entry.path, name))
                else:
                    others.append(name)
    return sorted(names), others


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "__MACOSX"))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)
