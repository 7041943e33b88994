"""Pascal VOC annotations: one xml file per picture.

Recognised: Annotations/*.xml with JPEGImages/ and ImageSets/Main/{train,val,trainval,test}.txt; images and annotations in folders of their
own, with or without splits; pictures and xml files side by side, in one folder or in train/, val/ and test/.
Boxes count pixels from 1, both ends included, and become edges: a box from 1 to 10 is 0.0 to 10.0. Objects marked `difficult` are kept as
crowd: never trained on, and in scoring neither missed nor wrong.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from foveate.data.folders import ALL
from foveate.data.layouts import Form, Matched, Pair, find_pairs, in_words, match, names_in, without_partner
from foveate.data.lists import read_lines
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.data.pictures import Paths, shortened
from foveate.data.scanning import Listing
from foveate.data.sizes import sizes_of
from foveate.errors import UserError

SUFFIXES = (".xml",)
NAME_FILES = ("classes.txt", "labels.txt")

Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Record:
    """What one xml file says: (width, height) or zeros, and the name, box and difficulty of each object."""

    file: str
    size: tuple[int, int]
    objects: list[tuple[str, Corners, bool]]


def recognise(top: Listing) -> Form | None:
    """VOC annotations in the folder, None where there are none."""
    pairs = find_pairs(top, ("annotations", "xml", "xmls", "labels"), SUFFIXES, beside=True)
    if not pairs:
        return None
    return Form("detect", f"Pascal VOC annotations ({shortened([str(pair) for pair in pairs], 3)})", lambda: _read(top, pairs))


def _read(top: Listing, pairs: list[Pair]) -> tuple[Mapping[str, ObjectSet], list[str]]:
    notes: list[str] = []
    matched = {pair.split: match(top.folder, pair, SUFFIXES) for pair in pairs}
    files = _by_lists(top, matched[ALL], notes) if ALL in matched else {split: _complete(top, found) for split, found in matched.items()}
    records = {split: {picture: _parse(top.folder, file) for picture, file in part.items()} for split, part in files.items()}
    names = _class_names(top, records)
    sets = {split: _set(top.folder, split, part, names) for split, part in records.items()}
    total = sum(len(part.objects.labels) for part in sets.values())
    return sets, [f"Pascal VOC annotations, {in_words(sets)}: {total:,} objects of {len(names)} classes", *notes]


def _complete(top: Listing, found: Matched) -> dict[str, str]:
    without_partner(top.folder, "pictures without an xml file", found.only_pictures, "add it (without objects where there are none)")
    without_partner(top.folder, "xml files without a picture", found.only_annotations, "add the picture or remove the file")
    return found.both


def _by_lists(top: Listing, found: Matched, notes: list[str]) -> dict[str, dict[str, str]]:
    """Split -> picture -> xml file, by the lists in ImageSets/Main where there are any; what no list names is left alone."""
    folder = top.folder / "ImageSets" / "Main"
    lists = {split: path for split in ("train", "val", "test", "trainval") if (path := folder / f"{split}.txt").is_file()}
    whole = lists.pop("trainval", None)
    if whole is not None and "train" not in lists:
        lists = {"train": whole, **lists}
    if not lists:
        return {ALL: _complete(top, found)}
    by_stem = {Path(picture).stem: picture for picture in found.both}
    parts = {}
    for split, path in lists.items():
        stems = [line.split()[0] for line in read_lines(path) if line.strip()]
        without_partner(
            path, "names without picture or xml file", [stem for stem in stems if stem not in by_stem], "bring both or mend the list"
        )
        parts[split] = {by_stem[stem]: found.both[by_stem[stem]] for stem in stems}
    unlisted = set(found.both) - {picture for part in parts.values() for picture in part}
    notes.append(f"parted by ImageSets/Main ({', '.join(path.name for path in lists.values())})")
    if unlisted:
        notes.append(f"{len(unlisted)} pictures that no list names left alone ({shortened(sorted(unlisted), 3)})")
    return parts


def _parse(root: Path, file: str) -> _Record:
    """Reads one xml file; `UserError` naming it where it is broken. A file that declares entities is refused: they can grow without end."""
    path = root / file
    try:
        content = path.read_bytes()
        if b"\0" in content or b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise UserError(f"{path}: found a document type or entities, or no UTF-8, expected plain VOC xml: export it anew")
        tree = ElementTree.fromstring(content)
        objects = [_object(element) for element in tree.findall("object")]
        size = int(tree.findtext("size/width") or 0), int(tree.findtext("size/height") or 0)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}), expected VOC xml there: check the path") from None
    except (ElementTree.ParseError, ValueError) as error:
        reason = " ".join(str(error).split())
        expected = "expected VOC xml with name and bndbox (xmin, ymin, xmax, ymax) of each object: mend the file"
        raise UserError(f"{path}: broken annotation ({reason}), {expected}") from None
    return _Record(file, size if min(size) > 0 else (0, 0), objects)


def _object(element: ElementTree.Element) -> tuple[str, Corners, bool]:
    name = (element.findtext("name") or "").strip()
    edges = [element.findtext(f"bndbox/{edge}") for edge in ("xmin", "ymin", "xmax", "ymax")]
    if not name:
        raise ValueError("an object without name")
    left, top, right, bottom = (_number(edge) for edge in edges)
    return name, (left - 1, top - 1, right, bottom), (element.findtext("difficult") or "0").strip() in ("1", "true", "True")


def _number(text: str | None) -> float:
    value = float(text or "")
    if not np.isfinite(value):
        raise ValueError(f"a box edge of {value}")
    return value


def _class_names(top: Listing, records: Mapping[str, Mapping[str, _Record]]) -> tuple[str, ...]:
    """The lines of classes.txt or labels.txt; without them the names found, sorted."""
    found: dict[str, str] = {}
    for part in records.values():
        for record in part.values():
            for name, _, _ in record.objects:
                found.setdefault(name, record.file)
    path = next((top.folder / name for name in NAME_FILES if name in top.others), None)
    if path is None:
        if not found:
            raise UserError(f"{top.folder}: found no objects in any xml file, expected some: check the annotations")
        return tuple(sorted(found))
    names = names_in(path, read_lines(path))
    unknown = [f"{name} in {found[name]}" for name in sorted(set(found) - set(names))]
    if unknown:
        raise UserError(
            f"{path}: found objects of {len(unknown)} other classes ({shortened(unknown, 3)}), expected its names: add or rename"
        )
    return names


def _set(root: Path, split: str, records: Mapping[str, _Record], names: tuple[str, ...]) -> ObjectSet:
    label = {name: place for place, name in enumerate(names)}
    files = Paths(root, tuple(records))
    sizes = np.array([record.size for record in records.values()], dtype=np.int64).reshape(-1, 2)
    unknown = np.flatnonzero(sizes[:, 0] == 0)
    if len(unknown):
        sizes[unknown] = sizes_of([files[int(place)] for place in unknown])
    annotated = [[Annotated(label[name], box, difficult) for name, box, difficult in record.objects] for record in records.values()]
    numbers = tuple(range(1, len(files) + 1))
    return ObjectSet(files, names, split, tuple(range(1, len(names) + 1)), numbers, sizes, gathered(annotated, sizes))
