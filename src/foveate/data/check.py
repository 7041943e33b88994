"""Is a set of pictures sound? What would spoil a training or its numbers, found before it starts, one line each."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

from foveate.data.pictures import PictureSet, PictureSplits, shortened
from foveate.data.reading import naming, open_picture, read_picture, upright_size
from foveate.errors import UserError

DECODED_BEFORE_TRAINING = 20_000
IMBALANCE = 10
MOST_LINES = 20
CHUNK = 64

Progress = Callable[[int, int], None]


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
    """`problems` make training or evaluation wrong and must be mended; `warnings` are for the user to judge."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one picture shows of itself; `problem` is empty where it decodes to the end."""

    size: tuple[int, int]
    kind: str
    digest: bytes
    problem: str = ""


def check_pictures(splits: PictureSplits, progress: Progress | None = None) -> Findings:
    """Reads and decodes every picture once, in threads, and compares the splits.

    Problems: broken pictures, and all of `quick_check`. Warnings: the same file content in two splits or under two classes, one class
    with less than a tenth of another's pictures. `progress` is told (pictures done, pictures in all).
    """
    looks = _looks(splits, progress)
    broken = [look.problem for found in looks.values() for look in found if look.problem]
    warnings = (*_imbalance(splits), *_repeated(splits, looks))
    return Findings((*quick_check(splits), *broken), warnings, _statistics([look for found in looks.values() for look in found]))


def quick_check(splits: PictureSplits) -> list[str]:
    """Problems that show without opening a picture: no pictures, one class only, empty classes, classes that some split lacks."""
    if not any(len(pictures) for pictures in splits.present().values()):
        return [f"{splits.source}: found no pictures, expected some: check the path"]
    problems = []
    names = splits.class_names
    counts = {split: pictures.counts() for split, pictures in splits.present().items()}
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


def require_sound(splits: PictureSplits, progress: Progress | None = None) -> str:
    """What training calls first: says in words what was checked; `UserError` with one line per problem.

    Sets of up to `DECODED_BEFORE_TRAINING` pictures are decoded in full (some seconds), of larger ones only the classes are compared: a
    broken picture among them is replaced and named during training, and `foveate doctor` finds it beforehand.
    """
    total = sum(len(pictures) for pictures in splits.present().values())
    if total > DECODED_BEFORE_TRAINING:
        problems: tuple[str, ...] = tuple(quick_check(splits))
        checked = f"{total:,} pictures: classes compared, pictures not decoded (foveate doctor {splits.source} does it)"
    else:
        problems = check_pictures(splits, progress).problems
        checked = f"{total:,} pictures: all decoded, classes compared"
    if len(problems) > MOST_LINES:
        problems = (
            *problems[:MOST_LINES],
            f"and {len(problems) - MOST_LINES} more problems: foveate doctor {splits.source} --json lists all",
        )
    if problems:
        raise UserError("\n".join(problems))
    return checked


def _looks(splits: PictureSplits, progress: Progress | None) -> dict[str, list[Look]]:
    """Split -> a look at each picture. Pillow decodes outside the interpreter's lock, so threads share the work."""
    present = splits.present()
    total = sum(len(pictures) for pictures in present.values())
    looks: dict[str, list[Look]] = {split: [] for split in present}
    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for split, pictures in present.items():
            starts = range(0, len(pictures), CHUNK)
            for found in threads.map(_look_at_some, [pictures] * len(starts), starts):
                looks[split] += found
                done += len(found)
                if progress is not None:
                    progress(done, total)
    return looks


def _look_at_some(pictures: PictureSet, start: int) -> list[Look]:
    return [_look(pictures, index) for index in range(start, min(start + CHUNK, len(pictures)))]


def _look(pictures: PictureSet, index: int) -> Look:
    """Reads the file once, for its hash and its pixels; JPEG files are decoded small, for which all their data must be read too."""
    try:
        if pictures.in_memory:
            image = pictures.open(index)
            content = image.tobytes()
        else:
            with naming(pictures.name(index)):
                content = pictures.files[index].read_bytes()
            image = open_picture(BytesIO(content), pictures.name(index))
        size, kind = upright_size(image), f"{image.format or 'array'} {image.mode}"
        read_picture(image, 3, shrink=8)
    except UserError as error:
        return Look((0, 0), "", b"", str(error))
    return Look(size, kind, blake2b(content, digest_size=16).digest())


def _statistics(looks: list[Look]) -> Statistics | None:
    sound = [look for look in looks if not look.problem]
    if not sound:
        return None
    sizes = sorted((look.size for look in sound), key=lambda size: (size[0] * size[1], size))
    kinds = dict(Counter(look.kind for look in sound).most_common())
    return Statistics(len(sound), sizes[0], sizes[len(sizes) // 2], sizes[-1], kinds)


def _imbalance(splits: PictureSplits) -> Iterator[str]:
    for split, pictures in splits.present().items():
        counts = [(count, name) for count, name in zip(pictures.counts(), pictures.class_names, strict=True) if count]
        (fewest, rare), (most, common) = min(counts, default=(1, "")), max(counts, default=(1, ""))
        if fewest * IMBALANCE <= most:
            yield f"{split}: class {rare} has {fewest} pictures, {common} has {most}: consider class weights or balanced sampling"


def _repeated(splits: PictureSplits, looks: dict[str, list[Look]]) -> Iterator[str]:
    """Equal file contents in two splits make a score too good; equal contents under two classes contradict each other."""
    first: dict[bytes, tuple[str, int]] = {}
    shared: list[str] = []
    contradicting: list[str] = []
    for split, pictures in splits.present().items():
        for index, look in enumerate(looks[split]):
            if look.problem:
                continue
            other_split, other = first.setdefault(look.digest, (split, index))
            earlier = splits.present()[other_split]
            pair = f"{pictures.name(index)} = {earlier.name(other)}"
            if other_split != split:
                shared.append(pair)
            if earlier.labels[other] != pictures.labels[index]:
                contradicting.append(pair)
    if shared:
        yield f"same pictures in two splits: {len(shared)} ({shortened(shared, 3)}): scores on them are too good, remove one of each"
    if contradicting:
        yield f"same pictures in two classes: {len(contradicting)} ({shortened(contradicting, 3)}): keep the right one of each"
