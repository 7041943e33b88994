"""From a folder on disk to labelled splits: the layout is recognised, said in words, and never guessed at in silence.

Layouts, in the order in which they are tried:
    1. a list file that is given: its pictures are one split (train, val or test where its name begins so) or are parted
    2. train/, val/ (valid/, validation/), test/: each with one folder per class, or flat with a list file in it or beside it
    3. train_list.txt, val_list.txt, test_list.txt, list.txt in the folder itself
    4. one folder per class, parted into train and val
Pictures that come as one set, or as train/ alone, are parted by `val_fraction`. Class folders are ordered by name.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foveate.data.digits import open_digits
from foveate.data.holdout import held_out
from foveate.data.lists import read_lines, read_list
from foveate.data.pictures import Paths, PictureSet, PictureSplits, shortened
from foveate.data.reading import SUFFIXES
from foveate.data.scanning import Listing, list_folder, pictures_below
from foveate.errors import UserError

SPLIT_FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}
ALL = "all"
MOST_CLASSES = 1_000_000


@dataclass(frozen=True)
class Part:
    """Pictures found together. `names` are paths below the root, `labels` class names or numbers as found, `folders` all class folders."""

    split: str
    names: Sequence[str]
    labels: Sequence[str]
    form: str
    folders: tuple[str, ...] = ()
    origin: Path = Path()
    lines: Sequence[int] = ()


def open_pictures(source: str | Path, *, val_fraction: float = 0.2, list_file: Path | None = None, seed: int = 0) -> PictureSplits:
    """The pictures of the folder `source`, or the embedded ones when it is "digits" (a folder of that name is "./digits").

    Args:
        source: a folder in one of the layouts above.
        val_fraction: part of every class held out as val where the source does not part its pictures itself; 0 leaves all in train, 1 puts
            all in val.
        list_file: the list of `file label` lines that says what to open.
        seed: which pictures are held out; of the digits always the same.

    Raises `UserError` where the folder is missing, holds no pictures, holds pictures of unknown class, or a list is wrong.
    """
    if not 0 <= val_fraction <= 1:
        raise UserError(f"val_fraction: found {val_fraction}, expected a number from 0 to 1, such as 0.2")
    if str(source) == "digits":
        if list_file is not None:
            raise UserError(
                f"found the list {list_file} for the embedded digits, expected none: leave it out, or name a folder of pictures"
            )
        return open_digits()
    top = list_folder(Path(source))
    notes: list[str] = []
    if list_file is None:
        top = _descend(top, notes)
    parts, unused = _given(top, Path(list_file)) if list_file is not None else _parts(top)
    notes.append(_in_words(parts))
    if unused:
        notes.append(f"{len(unused)} left alone: {shortened(sorted(unused))}")
    if [part.split for part in parts] in ([ALL], ["train"]):
        parts = _with_val(parts[0], val_fraction, seed)
        notes.append(f"{val_fraction:.0%} of each class held out as val (seed {seed})")
    class_names = _class_names(parts, top)
    sets = {
        part.split: PictureSet(Paths(top.folder, tuple(part.names)), _numbers(part, class_names), class_names, part.split) for part in parts
    }
    return PictureSplits(sets.get("train"), sets.get("val"), sets.get("test"), str(source), class_names, tuple(notes))


def _descend(top: Listing, notes: list[str]) -> Listing:
    """Step into the only folder, as archives leave it when unpacked (`data/clothing/train/...`), while it cannot be a class."""
    while len(top.folders) == 1 and not top.pictures and not _split_folders(top) and not _lists(top):
        inner = list_folder(top.folder / top.folders[0])
        if not inner.folders:
            break
        notes.append(f"looked in the only folder there, {inner.folder.name}/")
        top = inner
    return top


def _list_file(here: Listing, split: str) -> Path | None:
    """The list file of a split that lies there."""
    name = "list.txt" if split == ALL else f"{split}_list.txt"
    return here.folder / name if name in here.others else None


def _lists(here: Listing) -> dict[str, Path]:
    """The lists of single splits that lie there; where there are none, the list of all pictures."""
    named = {split: path for split in SPLIT_FOLDERS if (path := _list_file(here, split)) is not None}
    whole = _list_file(here, ALL)
    return named or ({} if whole is None else {ALL: whole})


def _parts(top: Listing) -> tuple[list[Part], list[str]]:
    """The parts of a folder that brings its own order, and the names of what was left alone."""
    splits = _split_folders(top)
    if splits:
        inner = {split: list_folder(top.folder / name) for split, name in splits.items()}
        results = [_split_part(split, listing, top) for split, listing in inner.items()]
        beside = [f"{name}/" for name in top.folders if name not in splits.values()]
        return _gather(results, [*beside, *top.pictures, *top.others])
    lists = _lists(top)
    if lists:
        return _gather([_list_part(split, path, top) for split, path in lists.items()], top.others)
    return _gather([_split_part(ALL, top, top)], [])


def _gather(results: Iterable[tuple[Part, list[str]]], unused: Iterable[str]) -> tuple[list[Part], list[str]]:
    parts, left = [], list(unused)
    for part, more in results:
        parts.append(part)
        left += more
    used = {part.origin.name for part in parts} | {"classes.txt"}
    return parts, [name for name in left if name not in used]


def _given(top: Listing, list_file: Path) -> tuple[list[Part], list[str]]:
    split = next((split for split in SPLIT_FOLDERS if list_file.name.lower().startswith(split)), ALL)
    part, unused = _list_part(split, list_file, top)
    return [part], unused


def _split_folders(top: Listing) -> dict[str, str]:
    """Split -> folder name. A folder called train among other folders is a class (locomotives) unless something in it says otherwise."""
    splits: dict[str, str] = {}
    for split, names in SPLIT_FOLDERS.items():
        matching = [name for name in top.folders if name.lower() in names]
        if len(matching) > 1:
            raise UserError(f"{top.folder}: found {' and '.join(matching)}, expected one {split} folder: rename or merge them")
        if matching:
            splits[split] = matching[0]
    if len(splits) == len(top.folders):
        return splits
    inner = {split: list_folder(top.folder / name) for split, name in splits.items()}
    meant = any(listing.folders or _list_file(listing, split) or _list_file(top, split) for split, listing in inner.items())
    return splits if meant else {}


def _split_part(split: str, here: Listing, top: Listing) -> tuple[Part, list[str]]:
    """The pictures of one split: class folders, or a flat folder with its list."""
    if here.folders:
        return _class_folders(split, here, top)
    lists = (_list_file(here, split), _list_file(here, ALL), _list_file(top, split))
    path = next((path for path in lists if path is not None), None)
    if path is not None:
        return _list_part(split, path, top, here)
    if here.pictures:
        wanted = "list.txt" if split == ALL else f"{split}_list.txt"
        found = f"{here.folder}: found {len(here.pictures)} pictures without class folders or a list"
        raise UserError(
            f"{found}, expected one folder per class or a {wanted} of 'file label' lines: sort them into folders or add the list"
        )
    raise UserError(f"{here.folder}: found no pictures, expected one folder of pictures per class: check the path")


def _class_folders(split: str, here: Listing, top: Listing) -> tuple[Part, list[str]]:
    prefix = "" if here.folder == top.folder else f"{here.folder.name}/"
    names: list[str] = []
    labels: list[str] = []
    unused = [f"{prefix}{name}" for name in (*here.pictures, *here.others)]
    for folder in here.folders:
        found, others = pictures_below(here.folder / folder, f"{prefix}{folder}")
        names += found
        unused += others
        labels += [folder] * len(found)
    if not names:
        found_folders = f"{len(here.folders)} folders without pictures ({shortened(here.folders)})"
        raise UserError(f"{here.folder}: found {found_folders}, expected picture files ({', '.join(SUFFIXES)}) in them: check the path")
    return Part(split, names, labels, "class folders", folders=tuple(here.folders)), unused


def _list_part(split: str, path: Path, top: Listing, here: Listing | None = None) -> tuple[Part, list[str]]:
    listed = read_list(path)
    here = here or top
    base = listed.base([here.folder, path.parent, top.folder])
    prefix = os.path.relpath(base, top.folder)
    names = [os.path.normpath(os.path.join(prefix, file)) for file in listed.files]  # noqa: PTH118
    beside = "" if here.folder == top.folder else f"{here.folder.name}/"
    unlisted = {f"{beside}{name}" for name in here.pictures} - set(names)
    part = Part(split, names, listed.labels, f"the list {path.name}", origin=path, lines=listed.lines)
    return part, sorted(unlisted)


def _in_words(parts: Sequence[Part]) -> str:
    forms = sorted({part.form for part in parts})
    if len(parts) == 1:
        return f"one set by {forms[0]}" if parts[0].split == ALL else f"{parts[0].split} by {forms[0]}"
    return f"{len(parts)} splits ({', '.join(part.split for part in parts)}) by {' and '.join(forms)}"


def _with_val(part: Part, val_fraction: float, seed: int) -> list[Part]:
    """Train and val out of one part; only one of them where the fraction is 0 or 1."""
    in_val = held_out(part.names, part.labels, val_fraction, seed)
    halves = []
    for split, side in (("train", False), ("val", True)):
        keep = [index for index, chosen in enumerate(in_val) if chosen is side]
        names, labels = ([values[index] for index in keep] for values in (part.names, part.labels))
        lines = [part.lines[index] for index in keep] if part.lines else ()
        halves.append(replace(part, split=split, names=names, labels=labels, lines=lines))
    return [half for half in halves if half.names]


def _class_names(parts: Sequence[Part], top: Listing) -> tuple[str, ...]:
    """The sorted names of all class folders; without folders the lines of classes.txt, else the labels in the lists, sorted or counted."""
    folders = {name for part in parts for name in part.folders}
    if folders:
        return tuple(sorted(folders))
    if "classes.txt" in top.others:
        return tuple(line.strip() for line in read_lines(top.folder / "classes.txt") if line.strip())
    labels = {label for part in parts for label in part.labels}
    if not all(label.isdecimal() for label in labels):
        return tuple(sorted(labels))
    last = max(int(label) for label in labels)
    if last >= MOST_CLASSES:
        raise UserError(
            f"{parts[0].origin}: found the class number {last}, expected numbers counted from 0: use class names or mend the list"
        )
    return tuple(str(label) for label in range(last + 1))


def _numbers(part: Part, class_names: tuple[str, ...]) -> tuple[int, ...]:
    """Labels as places in `class_names`: by name where every label is one of the names, else as numbers."""
    place = {name: number for number, name in enumerate(class_names)}
    if all(label in place for label in part.labels):
        return tuple(place[label] for label in part.labels)
    wrong = [
        f"line {line}: {label}"
        for line, label in zip(part.lines, part.labels, strict=True)
        if not label.isdecimal() or int(label) >= len(class_names)
    ]
    if wrong:
        known = f"names or numbers (0 to {len(class_names) - 1}) of the {len(class_names)} classes ({shortened(class_names)})"
        raise UserError(f"{part.origin}: unknown labels in {len(wrong)} lines ({shortened(wrong, 3)}), expected {known}: mend these lines")
    return tuple(int(label) for label in part.labels)
