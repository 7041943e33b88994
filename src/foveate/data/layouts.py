"""Pictures in one folder, what is annotated of each in another: the layouts that index masks, VOC and YOLO share.

images/{train,val,test} + labels/{train,val,test}      (train2017 and the like count as train)
{train,val,test}/{images,labels}
images + labels
{train,val,test}, or one folder, with both side by side
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from foveate.data.folders import ALL, SPLIT_FOLDERS
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import shortened
from foveate.data.scanning import Listing, files_below, list_folder, pictures_below
from foveate.errors import UserError

PICTURE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "pictures")


@dataclass(frozen=True)
class Form:
    """A form of annotated data that was recognised in a folder.

    Args:
        task: "detect" or "segment".
        words: what was recognised.
        read: reads it: split -> set, and notes; the split is "all" where the data does not part its pictures itself.
    """

    task: str
    words: str
    read: Callable[[], tuple[Mapping[str, ObjectSet | MaskSet], list[str]]]


@dataclass(frozen=True)
class Pair:
    """The pictures of one split and what is annotated of them, two folders below the root, "" being the root."""

    split: str
    pictures: str
    annotations: str

    def __str__(self) -> str:
        folders = dict.fromkeys((self.pictures or ".", self.annotations or "."))
        return " + ".join(f"{folder}/" for folder in folders)


@dataclass(frozen=True)
class Matched:
    """Picture -> its annotation file, both as paths below the root, and the names of those without the other."""

    both: dict[str, str]
    only_pictures: list[str]
    only_annotations: list[str]


def split_of(name: str) -> str | None:
    """Train, val or test where the name says so, with or without a year (train2017), else None."""
    word = name.lower().rstrip("0123456789_-")
    return next((split for split, names in SPLIT_FOLDERS.items() if word in names), None)


def split_folders(here: Listing) -> list[tuple[str, str]]:
    """(split, folder) of every folder there that is called as one, in the order train, val, test."""
    found = [(split, name) for name in here.folders if (split := split_of(name)) is not None]
    return sorted(found, key=lambda pair: list(SPLIT_FOLDERS).index(pair[0]))


def one_each(place: Path, found: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Split -> name; `UserError` where two could be one split."""
    named: dict[str, str] = {}
    for split, name in found:
        if named.setdefault(split, name) != name:
            raise UserError(f"{place}: found {named[split]} and {name} for {split}, expected one: rename, merge or move the other away")
    return named


def find_pairs(top: Listing, annotation_folders: Sequence[str], suffixes: tuple[str, ...], *, beside: bool = False) -> list[Pair]:
    """The pairs of folders that hold pictures and annotation files of one of the suffixes; with `beside` also both in one folder."""
    inside = _inside(top, annotation_folders, suffixes)
    if inside is not None:
        return inside
    pairs = []
    for split, name in split_folders(top):
        here = list_folder(top.folder / name)
        found = _inside(here, annotation_folders, suffixes)
        if found is not None:
            pairs += [Pair(split, f"{name}/{pair.pictures}", f"{name}/{pair.annotations}") for pair in found if pair.split == ALL]
        elif beside and _side_by_side(here, suffixes):
            pairs.append(Pair(split, name, name))
    one_each(top.folder, [(pair.split, pair.pictures) for pair in pairs])
    if not pairs and beside and _side_by_side(top, suffixes):
        return [Pair(ALL, "", "")]
    return pairs


def _inside(here: Listing, annotation_folders: Sequence[str], suffixes: tuple[str, ...]) -> list[Pair] | None:
    """The pairs of a folder that has one folder of pictures and one of annotations."""
    pictures = next((name for name in here.folders if name.lower() in PICTURE_FOLDERS), None)
    annotations = next((name for name in here.folders if name.lower() in annotation_folders and _holds(here.folder / name, suffixes)), None)
    if pictures is None or annotations is None:
        return None
    parted = [split_folders(list_folder(here.folder / name)) for name in (pictures, annotations)]
    if not all(parted):
        return [Pair(ALL, pictures, annotations)]
    of_pictures, of_annotations = (one_each(here.folder / name, found) for name, found in zip((pictures, annotations), parted, strict=True))
    both = [split for split in of_pictures if split in of_annotations]
    return [Pair(split, f"{pictures}/{of_pictures[split]}", f"{annotations}/{of_annotations[split]}") for split in both]


def unannotated(top: Listing, sets: Mapping[str, object]) -> list[str]:
    """Folders of pictures called as a split of which nothing was read, in words."""
    places = {"": top} | {f"{name}/": list_folder(top.folder / name) for name in top.folders if name.lower() in PICTURE_FOLDERS}
    found = [f"{prefix}{name}/" for prefix, here in places.items() for split, name in split_folders(here) if split not in sets]
    return [f"left alone, without annotations: {', '.join(found)}"] if found and ALL not in sets else []


def _side_by_side(here: Listing, suffixes: tuple[str, ...]) -> bool:
    return bool(here.pictures) and any(name.lower().endswith(suffixes) for name in here.others)


def _holds(folder: Path, suffixes: tuple[str, ...]) -> bool:
    return any(file.lower().endswith(suffixes) for _, _, files in os.walk(folder) for file in files)


def match(root: Path, pair: Pair, suffixes: tuple[str, ...]) -> Matched:
    """Each picture with the annotation file of the same path and stem; `UserError` where two pictures share one."""
    pictures = _by_stem(root, pair.pictures, pictures_below(root / pair.pictures, pair.pictures)[0])
    annotations = _by_stem(root, pair.annotations, files_below(root / pair.annotations, pair.annotations, suffixes))
    both = {file: annotations[stem] for stem, file in pictures.items() if stem in annotations}
    return Matched(
        both,
        [file for stem, file in pictures.items() if stem not in annotations],
        [file for stem, file in annotations.items() if stem not in pictures],
    )


def _by_stem(root: Path, folder: str, files: Sequence[str]) -> dict[str, str]:
    """Path below `folder` without suffix -> path below the root."""
    found: dict[str, str] = {}
    twice = []
    for file in files:
        stem = file[len(folder) :].lstrip("/").rpartition(".")[0]
        if found.setdefault(stem, file) != file:
            twice.append(f"{found[stem]} and {file}")
    if twice:
        raise UserError(f"{root}: found {len(twice)} files of one name ({shortened(twice, 3)}), expected one of each: remove the others")
    return found


def names_in(path: Path, lines: Sequence[str]) -> tuple[str, ...]:
    """Names of classes, one per line; `UserError` where there are none or one stands twice."""
    names = [line.strip() for line in lines if line.strip()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not names:
        found = f"the names {shortened(twice)} twice" if twice else "no names"
        raise UserError(f"{path}: found {found}, expected the name of one class per line: mend the file")
    return tuple(names)


def without_partner(place: Path, found: str, files: Sequence[str], cure: str) -> None:
    """`UserError` with the number of such files and the first of them, where there are any."""
    if files:
        raise UserError(f"{place}: found {found}: {len(files)} ({shortened(sorted(files), 3)}), expected none: {cure}")


def in_words(splits: Mapping[str, object]) -> str:
    """The splits that were found."""
    names = [name for name in splits if name != ALL]
    return f"{len(names)} splits ({', '.join(names)})" if len(names) > 1 else f"{names[0]} alone" if names else "one set"
