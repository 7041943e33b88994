"""From a folder on disk to splits of any task: the form of the data is recognised from what lies there and said in words.

Forms, in the order in which they are tried: COCO annotations, Pascal VOC, YOLO labels, pictures with index masks (each file of this room
named so says which layouts it knows); whatever is none of these is classification (see folders.py).
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from foveate.data import coco, mask_folders, voc, yolo
from foveate.data.folders import ALL, open_pictures
from foveate.data.holdout import held_out
from foveate.data.layouts import PICTURE_FOLDERS, Form, unannotated
from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.data.pictures import Splits, StoredPictures
from foveate.data.scanning import Listing, list_folder
from foveate.errors import UserError

TASKS = ("classify", "detect", "segment")
Task = Literal["auto", "classify", "detect", "segment"]
READERS = (coco, voc, yolo, mask_folders)
EXPECTED = {
    "classify": "one folder of pictures per class, or a list",
    "detect": "COCO annotations (annotations/instances_train.json), Pascal VOC xml (Annotations/) or YOLO labels (labels/)",
    "segment": "pictures in images/ and index masks of the same names in masks/",
}
LOOKS_LIKE = {"classify": "classification", "detect": "detection", "segment": "segmentation"}


def task_of(pictures: StoredPictures) -> str:
    """The task that a set of pictures is for: "classify", "detect" or "segment"."""
    if isinstance(pictures, ObjectSet):
        return "detect"
    return "segment" if isinstance(pictures, MaskSet) else "classify"


def likely_task(source: str | Path) -> str:
    """The task that `open_data` would recognise, by the names of files and folders alone; "classify" where there is nothing to look at."""
    if str(source) == "digits" or not Path(source).is_dir():
        return "classify"
    forms = _forms(_descend(list_folder(Path(source)))[0])
    return forms[0].task if forms else "classify"


def open_data(
    source: str | Path, *, task: Task = "auto", val_fraction: float = 0.2, list_file: Path | None = None, seed: int = 0
) -> Splits[Any]:
    """The pictures of the folder `source` with what is known of them: `Splits` of `PictureSet`, `ObjectSet` or `MaskSet`.

    Args:
        source: a folder, or "digits".
        task: what the data must be for; "auto" takes what is recognised first.
        val_fraction: part held out as val where the source has no splits, or train alone: of each class, else of the pictures.
        list_file: a list of `file label` lines, for classification.
        seed: which pictures are held out.

    Raises `UserError` where the data is not of that task, and for whatever is wrong in it that cannot be read past.
    """
    if task not in ("auto", *TASKS):
        raise UserError(f"task: found {task!r}, expected auto, {', '.join(TASKS)}")
    if str(source) == "digits" or list_file is not None:
        if task in ("detect", "segment"):
            found = "the embedded digits" if list_file is None else f"the list {list_file}"
            raise UserError(f"{source}: found {found} (classification), but the task is {task}: expected {EXPECTED[task]}")
        return open_pictures(source, val_fraction=val_fraction, list_file=list_file, seed=seed)
    top, steps = _descend(list_folder(Path(source)))
    forms = _forms(top)
    fitting = [form for form in forms if task in ("auto", form.task)]
    if fitting:
        others = _left_alone([form for form in forms if form is not fitting[0]])
        return _opened(str(source), top, fitting[0], [*steps, *others], val_fraction, seed)
    if forms and task == "classify":
        splits = open_pictures(source, val_fraction=val_fraction, seed=seed)
        if not any(name.lower() in PICTURE_FOLDERS for name in splits.class_names):  # which are never classes
            return replace(splits, notes=(*splits.notes, *_left_alone(forms)))
    if forms:
        found = f"{forms[0].words}, which looks like {LOOKS_LIKE[forms[0].task]}"
        raise UserError(f"{top.folder}: found {found}, but the task is {task}: expected {EXPECTED[task]}; or leave the task out")
    if task in ("detect", "segment"):
        raise UserError(f"{top.folder}: found no annotations for the task {task} ({_contents(top)}), expected {EXPECTED[task]}")
    return open_pictures(source, val_fraction=val_fraction, seed=seed)


def _forms(top: Listing) -> list[Form]:
    return [form for reader in READERS if (form := reader.recognise(top)) is not None]


def _descend(top: Listing) -> tuple[Listing, list[str]]:
    """Step into the only folder, as archives leave it when unpacked, while nothing is recognised; the last place, and notes."""
    notes: list[str] = []
    here = top
    while len(here.folders) == 1 and not here.pictures and not _forms(here):
        here = list_folder(here.folder / here.folders[0])
        notes.append(f"looked in the only folder there, {here.folder.name}/")
    return here, notes


def _left_alone(forms: list[Form]) -> list[str]:
    return [f"left alone: {form.words}" for form in forms]


def _contents(top: Listing) -> str:
    folders = f"{len(top.folders)} folders: {', '.join(top.folders[:5])}" if top.folders else "no folders"
    return f"{folders}; {len(top.pictures)} pictures"


def _opened(source: str, top: Listing, form: Form, notes: list[str], val_fraction: float, seed: int) -> Splits[Any]:
    if not 0 <= val_fraction <= 1:
        raise UserError(f"val_fraction: found {val_fraction}, expected a number from 0 to 1, such as 0.2")
    sets, more = form.read()
    notes = [*more, *unannotated(top, sets), *notes]
    if list(sets) in ([ALL], ["train"]):
        sets = _parted(next(iter(sets.values())), val_fraction, seed)
        notes.append(f"{val_fraction:.0%} of the pictures held out as val (seed {seed})")
    names = next(iter(sets.values())).class_names
    return Splits(sets.get("train"), sets.get("val"), sets.get("test"), source, names, tuple(notes))


def _parted(whole: ObjectSet | MaskSet, val_fraction: float, seed: int) -> Mapping[str, ObjectSet | MaskSet]:
    """Train and val out of one set; only one of them where the fraction is 0 or 1."""
    names = [whole.name(index) for index in range(len(whole))]
    in_val = held_out(names, [0] * len(names), val_fraction, seed)
    sides = {split: [index for index, chosen in enumerate(in_val) if chosen is side] for split, side in (("train", False), ("val", True))}
    return {split: whole.take(places, split) for split, places in sides.items() if places} or {"train": whole}
