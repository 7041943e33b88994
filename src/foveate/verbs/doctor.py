"""`foveate doctor`: look a data set over before training on it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foveate.data.check import Findings, Statistics, check_pictures
from foveate.data.folders import open_pictures
from foveate.data.pictures import PictureSet, PictureSplits
from foveate.data.reading import read_thumbnail
from foveate.errors import UserError
from foveate.plots import contact_sheet

MOST_LINES = 20
MOST_SHOWN = 48


@dataclass(frozen=True)
class DoctorReport:
    """What a data set holds and what is wrong with it.

    Args:
        source: what was looked at.
        notes: what was recognised, in words.
        splits: split -> class -> number of pictures.
        problems: what must be mended before training, one line each.
        warnings: what to judge.
        statistics: sizes and kinds of the pictures that decode; None where none does.
    """

    source: str
    notes: tuple[str, ...]
    splits: dict[str, dict[str, int]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    statistics: Statistics | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    def __str__(self) -> str:
        lines = [f"{self.source}: {'; '.join(self.notes)}" if self.notes else self.source, *self._table()]
        if self.statistics is not None:
            found = self.statistics
            sizes = (f"{name} {size[0]} x {size[1]}" for name, size in zip(("smallest", "median", "largest"), found.sizes(), strict=True))
            kinds = ", ".join(f"{count} {kind}" for kind, count in found.kinds.items())
            lines += ["", f"{found.pictures} pictures decoded: {kinds}; width x height: {', '.join(sizes)}"]
        return "\n".join([*lines, *_listed("warning", self.warnings), *_listed("problem", self.problems)])

    def _table(self) -> list[str]:
        """Pictures per class and split; of many classes only the extremes."""
        if not self.splits:
            return []
        names = list(next(iter(self.splits.values())))
        totals = {split: sum(counts.values()) for split, counts in self.splits.items()}
        if len(names) > MOST_LINES:
            ranges = (
                f"{split} {totals[split]} ({min(counts.values())} to {max(counts.values())} per class)"
                for split, counts in self.splits.items()
            )
            return ["", f"{len(names)} classes: {', '.join(ranges)}"]
        rows = [["class", *self.splits], *([name, *(str(counts[name]) for counts in self.splits.values())] for name in names)]
        rows.append(["all", *map(str, totals.values())])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["", *("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)]


def doctor(source: str, list_file: Path | None = None, val_fraction: float = 0.2, seed: int = 0, sheet: Path | None = None) -> DoctorReport:
    """Decode every picture of a data set once, compare its splits, and say what would spoil a training.

    Args:
        source: folder of pictures, or "digits".
        list_file: lines of `file label` for a flat folder of pictures.
        val_fraction: share held out where the data has no splits of its own: the same as in training.
        seed: which share is held out: the same as in training.
        sheet: PNG file to draw some pictures of every class into, with their labels.

    Everything found stands in the report, an unreadable source or list too; nothing is raised for it.
    """
    try:
        splits = open_pictures(source, val_fraction=val_fraction, list_file=list_file, seed=seed)
    except UserError as error:
        return DoctorReport(source, (), {}, (str(error),), (), None)
    findings = _checked(splits)
    if sheet is not None:
        _draw(splits, sheet)
    present = splits.present().items()
    counts = {split: dict(zip(splits.class_names, pictures.counts(), strict=True)) for split, pictures in present}
    return DoctorReport(source, splits.notes, counts, findings.problems, findings.warnings, findings.statistics)


def _checked(splits: PictureSplits) -> Findings:
    console = Console(stderr=True)
    columns = (TextColumn("looking at pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return check_pictures(splits, lambda done, total: bar.update(task, completed=done, total=total))


def _draw(splits: PictureSplits, sheet: Path) -> None:
    """The first whole pictures of each class of the first split, as many of each as fit."""
    pictures = next(iter(splits.present().values()))
    each = max(1, MOST_SHOWN // max(1, len(splits.class_names)))
    chosen: dict[int, list[Image.Image]] = {}
    for index, label in enumerate(pictures.labels):
        shown = chosen.setdefault(label, []) if label in chosen or len(chosen) < MOST_SHOWN else None
        if shown is not None and len(shown) < each and (picture := _whole(pictures, index)) is not None:
            shown.append(picture)
    labelled = [(picture, splits.class_names[label]) for label, shown in sorted(chosen.items()) for picture in shown]
    if labelled:
        title = f"{splits.source}, {pictures.split}: {len(chosen)} of {len(splits.class_names)} classes"
        contact_sheet([picture for picture, _ in labelled], [name for _, name in labelled], None, sheet, title=title)


def _whole(pictures: PictureSet, index: int) -> Image.Image | None:
    """The picture, small enough to keep many; None where it is broken, which the report says."""
    try:
        with pictures.open(index) as image:
            return read_thumbnail(image)
    except UserError:
        return None


def _listed(what: str, lines: tuple[str, ...]) -> list[str]:
    if not lines:
        return ["", f"no {what}s"]
    more = [f"  ... and {len(lines) - MOST_LINES} more; --json lists all"] if len(lines) > MOST_LINES else []
    return ["", f"{len(lines)} {what}{'s' * (len(lines) > 1)}:", *(f"  {line}" for line in lines[:MOST_LINES]), *more]
