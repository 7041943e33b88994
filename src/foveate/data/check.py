"""Is a set of pictures sound? What would spoil a training or its numbers, found before it starts, one line each."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from foveate.data.looking import Look, Progress, look_at_all
from foveate.data.mask_check import PixelStatistics, class_pixels, mask_problems, mask_warnings
from foveate.data.masks import MaskSet
from foveate.data.object_check import ObjectStatistics, object_problems, object_statistics, object_warnings, set_problems
from foveate.data.objects import ObjectSet
from foveate.data.pictures import PictureSet, Splits, StoredPictures, shortened
from foveate.errors import UserError

DECODED_BEFORE_TRAINING = 20_000
IMBALANCE = 10
MOST_LINES = 20

Kind = TypeVar("Kind", bound=StoredPictures)


@dataclass(frozen=True)
class Statistics:
    """Of all pictures that decode: number of files, (width, height) of the smallest, median and largest by area, counts of kinds."""

    pictures: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    kinds: dict[str, int]

    def sizes(self) -> tuple[tuple[int, int], ...]:
        return self.smallest, self.median, self.largest


@dataclass(frozen=True)
class Findings:
    """`problems` make training or evaluation wrong and must be mended; `warnings` are for the user to judge.

    `objects` and `pixels` are the figures of each split with objects or masks, empty for other tasks.
    """

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    statistics: Statistics | None = None
    objects: Mapping[str, ObjectStatistics] = field(default_factory=dict)
    pixels: Mapping[str, PixelStatistics] = field(default_factory=dict)


def check_pictures(splits: Splits[Any], progress: Progress | None = None) -> Findings:
    """Reads and decodes every picture once, in threads, and compares the splits: `Splits` of any task.

    Problems: broken pictures, and all of `quick_check`; for objects and masks also sizes other than annotated, and mask values that are
    not declared. Warnings: the same file content in two splits or under two classes, one class with less than a tenth of another's
    pictures; boxes that stick out or are empty, classes that only some splits have. `progress` is told (pictures done, pictures in all).
    """
    present: Mapping[str, StoredPictures] = splits.present()
    looks = look_at_all(present, progress)
    problems = [*quick_check(splits), *(look.problem for found in looks.values() for look in found if look.problem)]
    warnings = _repeated(present, looks)
    objects, masks = _of_type(present, ObjectSet), _of_type(present, MaskSet)
    if objects:
        problems += object_problems(objects, looks)
        warnings += object_warnings(objects, looks)
    elif masks:
        problems += mask_problems(masks, looks)
        warnings += mask_warnings(masks, looks)
    else:
        warnings = [*_imbalance(_of_type(present, PictureSet)), *warnings]
    return Findings(
        tuple(problems),
        tuple(warnings),
        _statistics([look for found in looks.values() for look in found]),
        {split: object_statistics(pictures) for split, pictures in objects.items()},
        {split: class_pixels(pictures, looks[split]) for split, pictures in masks.items()},
    )


def quick_check(splits: Splits[Any]) -> list[str]:
    """Problems that show without opening a picture: no pictures; one class only, empty classes, classes that some split lacks.

    Of objects: none to train on, splits that differ in their classes; a class that a split lacks is usual there.
    """
    present: Mapping[str, StoredPictures] = splits.present()
    if not any(len(pictures) for pictures in present.values()):
        return [f"{splits.source}: found no pictures, expected some: check the path"]
    annotated = {split: pictures for split, pictures in present.items() if isinstance(pictures, ObjectSet | MaskSet)}
    return set_problems(annotated) if annotated else _class_problems(splits, _of_type(present, PictureSet))


def _of_type(present: Mapping[str, StoredPictures], kind: type[Kind]) -> dict[str, Kind]:
    return {split: pictures for split, pictures in present.items() if isinstance(pictures, kind)}


def _class_problems(splits: Splits[Any], present: Mapping[str, PictureSet]) -> list[str]:
    problems = []
    names = splits.class_names
    counts = {split: pictures.counts() for split, pictures in present.items()}
    shown = [label for label in range(len(names)) if any(count[label] for count in counts.values())]
    empty = [name for label, name in enumerate(names) if label not in set(shown)]
    if empty:
        hint = "; numbers count from 0, does the list count from 1?" if empty == ["0"] else ""
        found = f"classes without pictures: found {len(empty)} of {len(names)} ({shortened(empty)})"
        problems.append(f"{found}, expected none: add pictures or remove these classes{hint}")
    if len(shown) == 1 and splits.train is not None:
        problems.append(
            f"found one class only ({names[shown[0]]}), expected two or more: is {splits.source} the folder above the class folders?"
        )
    for split, count in counts.items():
        absent = [names[label] for label in shown if not count[label]]
        if absent:
            found = f"{split}: found no pictures of {len(absent)} classes that other splits have ({shortened(absent)})"
            problems.append(f"{found}, expected the same classes in every split: add pictures, or remove or rename classes")
    return problems


@dataclass(frozen=True)
class Checked:
    """What was looked at, in words, and what the user is to judge, one line each."""

    words: str
    warnings: tuple[str, ...]


def require_sound(splits: Splits[Any], progress: Progress | None = None) -> Checked:
    """What training calls first; `UserError` with one line per problem.

    Sets of up to `DECODED_BEFORE_TRAINING` pictures are decoded in full (some seconds), of larger ones only the classes are compared: a
    broken picture among them is replaced and named during training, and `foveate doctor` finds it beforehand.
    """
    total = sum(len(pictures) for pictures in splits.present().values())
    if total > DECODED_BEFORE_TRAINING:
        findings = Findings(tuple(quick_check(splits)), tuple(_imbalance(_of_type(splits.present(), PictureSet))))
        words = f"{total:,} pictures: classes compared, pictures not decoded (foveate doctor {splits.source} does it)"
    else:
        findings = check_pictures(splits, progress)
        words = f"{total:,} pictures: all decoded, classes compared"
    problems = findings.problems
    if len(problems) > MOST_LINES:
        problems = (
            *problems[:MOST_LINES],
            f"and {len(problems) - MOST_LINES} more problems: foveate doctor {splits.source} --json lists all",
        )
    if problems:
        raise UserError("\n".join(problems))
    return Checked(words, findings.warnings)


def _statistics(looks: list[Look]) -> Statistics | None:
    sound = [look for look in looks if not look.problem]
    if not sound:
        return None
    sizes = sorted((look.size for look in sound), key=lambda size: (size[0] * size[1], size))
    kinds = dict(Counter(look.kind for look in sound).most_common())
    return Statistics(len(sound), sizes[0], sizes[len(sizes) // 2], sizes[-1], kinds)


def _imbalance(present: Mapping[str, PictureSet]) -> Iterator[str]:
    for split, pictures in present.items():
        counts = [(count, name) for count, name in zip(pictures.counts(), pictures.class_names, strict=True) if count]
        (fewest, rare), (most, common) = min(counts, default=(1, "")), max(counts, default=(1, ""))
        if fewest * IMBALANCE <= most:
            yield f"{split}: class {rare} has {fewest} pictures, {common} has {most}: consider class weights or balanced sampling"


def _repeated(present: Mapping[str, StoredPictures], looks: Mapping[str, list[Look]]) -> list[str]:
    """Equal file contents in two splits make a score too good; equal contents under two classes contradict each other."""
    first: dict[bytes, tuple[StoredPictures, int]] = {}
    shared: list[str] = []
    contradicting: list[str] = []
    for split, pictures in present.items():
        for index, look in enumerate(looks[split]):
            if look.problem:
                continue
            earlier, other = first.setdefault(look.digest, (pictures, index))
            pair = f"{pictures.name(index)} = {earlier.name(other)}"
            if earlier is not pictures:
                shared.append(pair)
            if isinstance(pictures, PictureSet) and isinstance(earlier, PictureSet) and earlier.labels[other] != pictures.labels[index]:
                contradicting.append(pair)
    warnings = []
    if shared:
        cure = "scores on them are too good, remove one of each"
        warnings.append(f"same pictures in two splits: {len(shared)} ({shortened(shared, 3)}): {cure}")
    if contradicting:
        warnings.append(f"same pictures in two classes: {len(contradicting)} ({shortened(contradicting, 3)}): keep the right one of each")
    return warnings
