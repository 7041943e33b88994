"""COCO annotations: json files that list pictures, categories and objects. Nothing in them is taken on trust.

Recognised by name: annotations/instances_train2017.json, annotations/train.json, the like for val and test, such files in the folder
itself, and <split>/_annotations.coco.json beside the pictures; where there are none of these, one file for all pictures, such as
instances.json or, as CVAT writes it, instances_default.json. Pictures lie in images/<split>/, <split>/, images/, beside the json or in
the folder itself; their file_name may begin with further folders.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from posixpath import join, normpath

import numpy as np
import numpy.typing as npt

from foveate.data.coco_entries import CocoFile, category_names, read_objects, read_pictures, same_categories
from foveate.data.folders import ALL
from foveate.data.layouts import PICTURE_FOLDERS, Form, in_words, one_each, split_folders, split_of
from foveate.data.objects import ObjectSet
from foveate.data.pictures import Paths, shortened
from foveate.data.scanning import Listing, list_folder, pictures_below
from foveate.data.sizes import sizes_of
from foveate.errors import UserError

OTHER_KINDS = ("keypoints", "captions", "image_info", "panoptic", "stuff")
UNSPLIT = "default"  # what CVAT calls pictures that it was given no split of
WHOLE = {"instances", "annotations", "coco", "all", UNSPLIT, ""}


@dataclass(frozen=True)
class _Place:
    """An annotation file, as its path below the root, and what it was taken for."""

    split: str
    file: str


def recognise(top: Listing) -> Form | None:
    """COCO annotations in the folder, None where there are none by name."""
    places = _places(top)
    if not places:
        return None
    return Form("detect", f"COCO annotations ({shortened([place.file for place in places], 3)})", lambda: _read(top, places))


def _places(top: Listing) -> list[_Place]:
    """Annotation files of distinct splits, from the first place that has any."""
    folder = next((name for name in top.folders if name.lower() == "annotations"), None)
    if folder is not None and (found := _by_name(list_folder(top.folder / folder), folder, bare=True)):
        return found
    beside = [
        _Place(split, f"{name}/{file}")
        for split, name in split_folders(top)
        for file in list_folder(top.folder / name).others
        if file.lower().endswith(".coco.json")
    ]
    one_each(top.folder, [(place.split, place.file) for place in beside])
    return beside or _by_name(top, "", bare=_has_loose_pictures(top))


def _has_loose_pictures(top: Listing) -> bool:
    """Whether pictures lie there that are not in class folders, so that a train.json can be about objects."""
    if top.pictures or any(name.lower() in PICTURE_FOLDERS for name in top.folders):
        return True
    return any(list_folder(top.folder / name).pictures for _, name in split_folders(top))


def _by_name(here: Listing, prefix: str, *, bare: bool) -> list[_Place]:
    """The files whose names say so; with `bare` also train.json and the like."""
    found: dict[str, str] = {}
    for file in here.others:
        stem, dot, suffix = file.lower().rpartition(".")
        if (dot + suffix) != ".json" or file.startswith(".") or any(kind in stem for kind in OTHER_KINDS):
            continue
        words = set(re.split(r"[^a-z]+", stem))
        split = next(filter(None, map(split_of, sorted(words))), ALL if words <= WHOLE and words != {""} else None)
        if split is None or not (bare or words & {"instances", "coco", "annotations"}):
            continue
        if split in found:
            named = f"{found[split]} and {join(prefix, file)}"
            raise UserError(f"{here.folder}: found {named} for {split}, expected one annotation file: move the other away")
        found[split] = join(prefix, file)
    parted = {split: file for split, file in found.items() if split != ALL}
    return [_Place(split, found[split]) for split in ("train", "val", "test", ALL) if split in (parted or found)]


def _read(top: Listing, places: Sequence[_Place]) -> tuple[Mapping[str, ObjectSet], list[str]]:
    files = {place.split: CocoFile.read(top.folder / place.file) for place in places}
    same_categories(list(files.values()))
    names, notes = category_names(list(files.values()))
    below = _cached_listing(top.folder)
    sets = {place.split: _set(top, place, files[place.split], names, below, notes) for place in places}
    counts = np.sum([np.bincount(part.objects.labels, minlength=len(names)) for part in sets.values()], axis=0)
    unused = [name for name, count in zip(names.values(), counts, strict=True) if not count]
    if unused:
        notes.append(f"{len(unused)} of {len(names)} categories have no objects ({shortened(unused)})")
    total = sum(len(part.objects.labels) for part in sets.values())
    return sets, [f"COCO annotations, {in_words(sets)}: {total:,} objects of {len(names)} categories", *notes]


def _set(
    top: Listing, place: _Place, file: CocoFile, names: dict[int, str], below: Callable[[str], set[str]], notes: list[str]
) -> ObjectSet:
    pictures = read_pictures(file)
    located = _locate(top, place, [normalised(file.path, name) for name in pictures.file_names], below)
    files = Paths(top.folder, tuple(located))
    sizes = _sizes(files, pictures.sizes)
    objects, remarks = read_objects(file, pictures.ids, sizes, list(names))
    notes += [f"{place.file}: {remark}" for remark in remarks]
    return ObjectSet(files, tuple(names.values()), place.split, tuple(names), pictures.ids, sizes, objects)


def _sizes(files: Paths, annotated: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Width and height as annotated, read from the files where they are not."""
    unknown = np.flatnonzero((annotated == 0).any(axis=1))
    if len(unknown):
        annotated = annotated.copy()
        annotated[unknown] = sizes_of([files[int(place)] for place in unknown])
    return annotated


def normalised(path: Path, name: str) -> str:
    """A picture's path as written, "/" between folders; `UserError` where it leads out of the data's folder."""
    written = normpath(name.replace("\\", "/"))
    if written == ".." or written.startswith(("/", "../")) or re.match("[A-Za-z]:/", written) or "\0" in written:
        raise UserError(f"{path}: found the file_name {name[:80]!r}, expected a path below the pictures' folder: mend the file")
    return written


def _cached_listing(root: Path) -> Callable[[str], set[str]]:
    """Folder below the root -> the pictures below it, as paths below it; each folder is listed once."""
    known: dict[str, set[str]] = {}

    def below(folder: str) -> set[str]:
        if folder not in known:
            there = root / folder
            known[folder] = set(pictures_below(there, "")[0]) if there.is_dir() else set()
        return known[folder]

    return below


def _locate(top: Listing, place: _Place, names: Sequence[str], below: Callable[[str], set[str]]) -> list[str]:
    """Paths below the root of all pictures; `UserError` naming those that are missing from where most are."""
    missing: dict[str, list[str]] = {}
    for folder in _candidates(top, place):
        there = below(folder)
        missing[folder] = [name for name in names if name not in there]
        if not missing[folder]:
            return [join(folder, name) for name in names]
    nearest = min(missing, key=lambda folder: len(missing[folder]))
    found = f"{top.folder / place.file}: pictures that are not in {top.folder / nearest}: {len(missing[nearest])} of {len(names)}"
    raise UserError(f"{found} ({shortened(missing[nearest], 3)}), expected all of them there: bring the files or mend the annotations")


def _candidates(top: Listing, place: _Place) -> list[str]:
    """Folders below the root that may hold a split's pictures, the likely ones first."""
    folders = [name for name in top.folders if name.lower() in PICTURE_FOLDERS]
    nested = [f"{folder}/{name}" for folder in folders for name in list_folder(top.folder / folder).folders if _is_of(name, place.split)]
    own = [name for name in top.folders if _is_of(name, place.split)]
    return list(dict.fromkeys([*nested, *(f"{name}/images" for name in own), *own, *folders, place.file.rpartition("/")[0], ""]))


def _is_of(folder: str, split: str) -> bool:
    """Whether a folder is called as a split, or as what is in none."""
    return folder.lower() == UNSPLIT if split == ALL else split_of(folder) == split
