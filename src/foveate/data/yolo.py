"""YOLO labels: one text file per picture, one line per object, all positions as shares of the picture's width and height.

    class x_centre y_centre width height        a box
    class x y x y x y ...                       an outline of three points or more

Recognised: images/ and labels/, each with or without train/, val/, test/ in it, or {train,val,test}/{images,labels}. Class names stand in
data.yaml (or another yaml file) under `names`, or in classes.txt or obj.names, one per line. A picture without a label file has no objects.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foveate.data.layouts import Form, Pair, find_pairs, in_words, match, names_in, without_partner
from foveate.data.lists import read_lines
from foveate.data.objects import Annotated, ObjectSet, gathered
from foveate.data.pictures import Paths, shortened
from foveate.data.scanning import Listing
from foveate.data.sizes import sizes_of
from foveate.errors import UserError

SUFFIXES = (".txt",)
NAME_FILES = ("classes.txt", "obj.names")
SLACK = 0.01  # how far outside 0..1 a rounded value may lie
LONGEST_NAMES = 1_000_000  # bytes of a yaml file


def recognise(top: Listing) -> Form | None:
    """YOLO labels in the folder, None where there are none."""
    pairs = find_pairs(top, ("labels",), SUFFIXES)
    if not pairs:
        return None
    return Form("detect", f"YOLO labels ({shortened([str(pair) for pair in pairs], 3)})", lambda: _read(top, pairs))


def _read(top: Listing, pairs: Sequence[Pair]) -> tuple[Mapping[str, ObjectSet], list[str]]:
    names = _class_names(top)
    sets = {}
    notes = []
    for pair in pairs:
        found = match(top.folder, pair, SUFFIXES)
        strangers = [file for file in found.only_annotations if Path(file).name not in NAME_FILES]
        without_partner(top.folder, "label files without a picture", strangers, "add the picture or remove the file")
        labels: dict[str, str | None] = {**dict.fromkeys(found.only_pictures), **found.both}
        sets[pair.split] = _set(top.folder, pair.split, dict(sorted(labels.items())), names)
        if found.only_pictures:
            notes.append(f"{pair.pictures}: {len(found.only_pictures)} pictures without label file taken as without objects")
    total = sum(len(part.objects.labels) for part in sets.values())
    return sets, [f"YOLO labels, {in_words(sets)}: {total:,} objects of {len(names)} classes", *notes]


def _set(root: Path, split: str, labels: Mapping[str, str | None], names: tuple[str, ...]) -> ObjectSet:
    """`labels`: picture -> label file, None where it has none."""
    files = Paths(root, tuple(labels))
    sizes = sizes_of(files)
    annotated = [
        [] if file is None else _objects(root / file, size, len(names)) for file, size in zip(labels.values(), sizes.tolist(), strict=True)
    ]
    numbers = tuple(range(1, len(files) + 1))
    return ObjectSet(files, names, split, tuple(range(1, len(names) + 1)), numbers, sizes, gathered(annotated, sizes))


def _objects(path: Path, size: Sequence[int], num_classes: int) -> list[Annotated]:
    found = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            found.append(_object(line.split(), size, num_classes))
        except ValueError as error:
            expected = "'class x_centre y_centre width height' or 'class x y x y x y ...' as shares of the picture: mend the line"
            raise UserError(f"{path}: line {number}: found {error}, expected {expected}") from None
    return found


def _object(words: Sequence[str], size: Sequence[int], num_classes: int) -> Annotated:
    """One line's object in pixels; `ValueError` saying what is wrong with it."""
    values = [float(word) for word in words]
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise ValueError(f"{len(values)} numbers")
    if values[0] not in range(num_classes):
        raise ValueError(f"class {words[0]} of the {num_classes} classes 0 to {num_classes - 1}")
    wrong = [word for word, value in zip(words[1:], values[1:], strict=True) if not -SLACK <= value <= 1 + SLACK]
    if wrong:
        raise ValueError(f"the values {shortened(wrong, 3)} outside 0 to 1")
    width, height = size
    label, shares = int(values[0]), values[1:]
    if len(shares) == 4:
        x, y, wide, high = shares[0] * width, shares[1] * height, shares[2] * width, shares[3] * height
        return Annotated(label, (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2))
    xs, ys = [x * width for x in shares[::2]], [y * height for y in shares[1::2]]
    polygon = tuple(number for point in zip(xs, ys, strict=True) for number in point)
    return Annotated(label, (min(xs), min(ys), max(xs), max(ys)), polygons=(polygon,))


def _class_names(top: Listing) -> tuple[str, ...]:
    """From data.yaml, else the only yaml file with names, else a list of names."""
    named = {file: names for file in top.others if file.lower().endswith((".yaml", ".yml")) and (names := _yaml_names(top.folder / file))}
    if "data.yaml" in named or len(named) == 1:
        return named.get("data.yaml") or next(iter(named.values()))
    if len(set(named.values())) > 1:
        raise UserError(
            f"{top.folder}: found class names in {' and '.join(named)}, expected one file: name it data.yaml or remove the others"
        )
    if named:
        return next(iter(named.values()))
    path = next((top.folder / file for file in NAME_FILES if file in top.others), None)
    if path is None:
        wanted = "data.yaml with 'names: [cat, dog]', or classes.txt with one name per line, in the order of the class numbers"
        raise UserError(f"{top.folder}: found YOLO labels without names of classes, expected {wanted}: add one")
    return names_in(path, read_lines(path))


def _yaml_names(path: Path) -> tuple[str, ...]:
    """The `names` in a yaml file, a list or a mapping from number to name; none where it has none."""
    text = "\n".join(read_lines(path))
    try:
        content: Any = yaml.safe_load(text) if len(text) < LONGEST_NAMES else None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UserError(f"{path}: broken yaml ({' '.join(str(error).split())}), expected 'names' of classes in it: mend the file") from None
    if not isinstance(content, dict) or "names" not in content:
        return ()
    names = content["names"]
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, str | int | float) for name in names):
        raise UserError(
            f"{path}: found 'names' of another form, expected a list of names, or numbers from 0 with a name each: mend the file"
        )
    if content.get("nc", len(names)) != len(names):
        raise UserError(f"{path}: found {len(names)} names and nc: {content['nc']}, expected as many: mend the file")
    return names_in(path, [str(name) for name in names])
