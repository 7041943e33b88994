"""Pictures and index masks in folders: a mask has the stem of its picture, and its pixels are numbers of classes.

Recognised: images/ and masks/ (annotations/, labels/), each with or without train/, val/, test/ in it, or {train,val,test}/{images,masks}.
classes.txt declares the numbers: one name per line for 0, 1, 2, ..., or `NUMBER NAME` in every line. A class called "ignore" or "void"
means pixels without a class, as 255 does where it is not declared otherwise.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foveate.data.layouts import Form, Matched, Pair, find_pairs, in_words, match, names_in, without_partner
from foveate.data.lists import read_lines
from foveate.data.masks import IGNORED, UNKNOWN, MaskSet
from foveate.data.pictures import Paths, shortened
from foveate.data.reading import naming, open_picture
from foveate.data.scanning import Listing
from foveate.errors import UserError

SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
NAME_FILES = ("classes.txt", "labels.txt")
WITHOUT_CLASS = ("ignore", "void")
MASKS_LOOKED_AT = 16
_NUMBERED = re.compile(r"\s*(\d+)\s*[\s:,;=]\s*(\S.*?)\s*")


@dataclass(frozen=True)
class Declared:
    """What mask values mean: `values[k]` is class `names[k]`, `ignored` values are none."""

    names: tuple[str, ...]
    values: tuple[int, ...]
    ignored: tuple[int, ...]


def recognise(top: Listing) -> Form | None:
    """Pictures and index masks in the folder, None where there are none."""
    pairs = find_pairs(top, ("masks", "mask", "annotations", "labels"), SUFFIXES)
    if not pairs:
        return None
    return Form("segment", f"pictures and masks ({shortened([str(pair) for pair in pairs], 3)})", lambda: _read(top, pairs))


def _read(top: Listing, pairs: Sequence[Pair]) -> tuple[Mapping[str, MaskSet], list[str]]:
    matched = {pair.split: match(top.folder, pair, SUFFIXES) for pair in pairs}
    for found in matched.values():
        without_partner(top.folder, "pictures without a mask", found.only_pictures, "add the mask or remove the picture")
        without_partner(top.folder, "masks without a picture", found.only_annotations, "add the picture or remove the mask")
    declared = _declared(top, matched)
    sets = {split: _set(top.folder, split, found, declared) for split, found in matched.items()}
    ignored = ", ".join(map(str, declared.ignored))
    note = f"pictures and masks, {in_words(sets)}: {len(declared.names)} classes"
    return sets, [note + (f", pixels of value {ignored} have none" if ignored else "")]


def _set(root: Path, split: str, found: Matched, declared: Declared) -> MaskSet:
    pictures, masks = Paths(root, tuple(found.both)), Paths(root, tuple(found.both.values()))
    return MaskSet(pictures, declared.names, split, masks, declared.values, declared.ignored)


def _declared(top: Listing, matched: Mapping[str, Matched]) -> Declared:
    path = next((top.folder / name for name in NAME_FILES if name in top.others), None)
    if path is not None:
        return read_classes(path)
    masks = [top.folder / mask for found in matched.values() for mask in found.both.values()]
    values, looked_at = _values_in(masks[:: max(1, len(masks) // MASKS_LOOKED_AT)][:MASKS_LOOKED_AT])
    found = f"the values {shortened(list(map(str, values)), 30)} in {looked_at} masks" if values else "no masks of numbers"
    names = ["ignore" if value == IGNORED and len(values) > 2 else "NAME" for value in values]
    example = ", ".join(f"'{value} {name}'" for value, name in list(zip(values, names, strict=True))[:4]) or "'0 NAME'"
    raise UserError(
        f"{top.folder}: found {found} and no classes.txt, expected one that declares what they mean: write one line per value, "
        f"{example} and so on, 'ignore' as the name of those without class"
    )


def _values_in(masks: Iterable[Path]) -> tuple[list[int], int]:
    """All numbers in these masks, in order, and how many masks have numbers."""
    found: set[int] = set()
    readable = 0
    for mask in masks:
        with open_picture(mask) as image, naming(str(mask)):
            if image.mode in ("L", "P", "1"):
                found |= set(np.unique(np.asarray(image)).astype(int).tolist())
                readable += 1
    return sorted(found), readable


def read_classes(path: Path) -> Declared:
    """What a classes file declares; `UserError` where its lines are of different forms, or numbers or names stand twice."""
    lines = [line for line in read_lines(path) if line.strip()]
    numbered = [_NUMBERED.fullmatch(line) for line in lines]
    matching = [found for found in numbered if found is not None]
    if matching and len(matching) < len(lines):
        others = [line.strip() for line, found in zip(lines, numbered, strict=True) if found is None]
        raise UserError(
            f"{path}: found {len(matching)} lines that begin with a number and {len(others)} that do not ({shortened(others, 3)}), "
            "expected 'NUMBER NAME' in every line or names alone: mend the file"
        )
    declared = [(int(found[1]), found[2]) for found in matching] or list(enumerate(names_in(path, lines)))
    classes = [(value, name) for value, name in declared if name.lower() not in WITHOUT_CLASS]
    names = names_in(path, [name for _, name in classes])
    values = [value for value, _ in declared]
    wrong = sorted({value for value in values if value > IGNORED or values.count(value) > 1})
    if wrong:
        raise UserError(f"{path}: found the numbers {shortened(list(map(str, wrong)))}, expected 0 to {IGNORED}, each once: mend the file")
    if len(names) > UNKNOWN:
        raise UserError(f"{path}: found {len(names)} classes, expected {UNKNOWN} at most in masks of 8 bits: merge some")
    ignored = {value for value, name in declared if name.lower() in WITHOUT_CLASS}
    if IGNORED not in values:
        ignored.add(IGNORED)
    return Declared(names, tuple(value for value, _ in classes), tuple(sorted(ignored)))
