"""Detections as a results file of COCO, its pictures and classes numbered so that pycocotools finds them in the annotations."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveate.card import ModelCard
from foveate.data.coco_entries import CocoFile, category_names, read_pictures
from foveate.data.pictures import shortened
from foveate.errors import UserError
from foveate.whole_files import write_text

Entry = dict[str, Any]


@dataclass(frozen=True)
class Numbers:
    """How a results file calls things.

    Args:
        pictures: one per picture.
        classes: one per class, None for a class that the annotations lack.
        notes: what a reader should know of them.
    """

    pictures: tuple[int, ...]
    classes: tuple[int | None, ...]
    notes: tuple[str, ...] = ()

    @classmethod
    def running(cls, count: int, card: ModelCard) -> "Numbers":
        """Pictures from 1 in their order; classes as the card says, or from 1."""
        return cls(tuple(range(1, count + 1)), card.category_ids or tuple(range(1, card.num_classes + 1)))

    @classmethod
    def of_annotations(cls, path: Path, files: Sequence[Path], class_names: Sequence[str]) -> "Numbers":
        """Pictures by their file names and classes by their names, as in the COCO annotations `path`.

        Raises:
            UserError: for annotations that cannot be read, or that lack one of the pictures or all of the classes.
        """
        content = CocoFile.read(path)
        listed = read_pictures(content)
        pictures = _picture_ids(path, files, dict(zip(listed.file_names, listed.ids, strict=True)))
        known = {name: number for number, name in category_names([content])[0].items()}
        classes = tuple(known.get(name) for name in class_names)
        lacking = [name for name in class_names if name not in known]
        if len(lacking) == len(class_names):
            raise UserError(
                f"{path}: found none of the model's classes ({shortened(class_names)}), expected annotations of the same classes"
            )
        notes = [f"{path}: lacks {len(lacking)} of the model's classes ({shortened(lacking)}): not in the results"] if lacking else []
        absent = len(listed.ids) - len(set(pictures))
        if absent:
            notes.append(f"{path}: {absent} of its {len(listed.ids)} pictures were not given; scoring counts their objects as missed")
        return cls(pictures, classes, tuple(notes))


def _picture_ids(path: Path, files: Sequence[Path], listed: Mapping[str, int]) -> tuple[int, ...]:
    """The number of each file: of the listed one with its name or, where several have it, with its folders as well."""
    by_name: dict[str, list[str]] = defaultdict(list)
    for name in listed:
        by_name[Path(name).name].append(name)
    found: dict[str, Path] = {}
    unclear: list[str] = []
    for file in files:
        candidates = by_name[file.name]
        if len(candidates) > 1:
            candidates = [name for name in candidates if file.resolve().as_posix().endswith(f"/{name}")]
        if len(candidates) != 1:
            unclear.append(str(file))
        elif candidates[0] in found:
            raise UserError(f"{path}: found {candidates[0]} once, expected one entry each for {found[candidates[0]]} and {file}")
        else:
            found[candidates[0]] = file
    if unclear:
        wrong = f"found no single entry for {len(unclear)} of {len(files)} pictures ({shortened(unclear, 3)})"
        raise UserError(f"{path}: {wrong}, expected one by its file name for each; give the pictures that were annotated")
    return tuple(listed[name] for name in found)


class ResultsFile:
    """A results file in the making.

    Where pictures have running numbers, a second file <name>.images.json tells them: COCO annotations of pictures and categories without
    objects. `COCO("r.images.json").loadRes("r.json")` of pycocotools opens both.

    Args:
        path: the file.
        numbers: of pictures and classes.
        class_names: the model's.
        with_images: whether to write the second file.
    """

    def __init__(self, path: Path, numbers: Numbers, class_names: Sequence[str], *, with_images: bool) -> None:
        self.path, self.numbers, self.class_names, self.with_images = path, numbers, class_names, with_images
        self.entries: list[Entry] = []
        self.images: list[Entry] = []

    @property
    def images_path(self) -> Path:
        return self.path.with_name(f"{self.path.name.removesuffix('.json')}.images.json")

    def add(self, place: int, file: Path, size: tuple[int, int], found: Sequence[Entry]) -> None:
        """Take over what was found on picture `place`, whose `category_id` are places of the classes."""
        picture, classes = self.numbers.pictures[place], self.numbers.classes
        self.images.append({"id": picture, "file_name": str(file), "width": size[0], "height": size[1]})
        for entry in found:
            number = classes[entry["category_id"]]
            if number is not None:
                self.entries.append({**entry, "image_id": picture, "category_id": number})

    def write(self) -> list[str]:
        """Write the file or both; a sentence on what is in them."""
        write_text(self.path, json.dumps(self.entries))
        sentence = f"{self.path}: {len(self.entries)} detections of any score on {len(self.images)} pictures"
        if not self.with_images:
            return [sentence, *self.numbers.notes]
        categories = [{"id": number, "name": name} for number, name in zip(self.numbers.classes, self.class_names, strict=True)]
        listing = {"info": {}, "images": self.images, "categories": categories, "annotations": []}
        write_text(self.images_path, json.dumps(listing, ensure_ascii=False))
        return [f"{sentence}; which number is which picture stands in {self.images_path}", *self.numbers.notes]
