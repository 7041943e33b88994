"""`foveate doctor`: look a data set over before training on it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from foveate.data.check import Findings, Statistics, check_pictures
from foveate.data.object_check import ObjectStatistics
from foveate.data.objects import ObjectSet
from foveate.data.opening import Task, open_data, task_of
from foveate.data.pictures import PictureSet, Splits
from foveate.errors import UserError
from foveate.verbs.picture_files import check_writable
from foveate.verbs.sheets import draw_sheet

MOST_LINES = 20
NO_CLASS = "(no class)"


@dataclass(frozen=True)
class DoctorReport:
    """What a data set holds and what is wrong with it.

    Args:
        source: what was looked at.
        notes: what was recognised, in words.
        splits: split -> class -> number of pictures, of objects that can be trained on, or of pixels, as the task is.
        problems: what must be mended before training, one line each.
        warnings: what to judge.
        statistics: sizes and kinds of the pictures that decode; None where none does.
        task: "classify", "detect" or "segment"; empty where the source could not be read.
        objects: split -> figures of its objects, for detection.
    """

    source: str
    notes: tuple[str, ...]
    splits: dict[str, dict[str, int]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    statistics: Statistics | None
    task: str = ""
    objects: dict[str, ObjectStatistics] = field(default_factory=dict)

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
        lines += [f"{split}: {found}" for split, found in self.objects.items()]
        for what, findings in (("warning", self.warnings), ("problem", self.problems)):
            lines += ["", *(listed(what, findings, MOST_LINES, "--json lists all") or [f"no {what}s"])]
        return "\n".join(lines)

    def _table(self) -> list[str]:
        """Pictures, objects or shares of pixels by class and split; of many classes only the extremes."""
        if not self.splits:
            return []
        names = list(next(iter(self.splits.values())))
        totals = {split: sum(counts.values()) for split, counts in self.splits.items()}
        if len(names) > MOST_LINES:
            ranges = (
                f"{split} {self._figure(totals[split], split)} ({self._figure(min(counts.values()), split)} to "
                f"{self._figure(max(counts.values()), split)} per class)"
                for split, counts in self.splits.items()
            )
            return ["", f"{len(names)} classes: {', '.join(ranges)}"]
        rows = [["class", *self.splits]]
        rows += [[name, *(self._figure(counts[name], split) for split, counts in self.splits.items())] for name in names]
        rows.append(["all", *(self._figure(total, split) for split, total in totals.items())])
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        return ["", *("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)]

    def _figure(self, count: int, split: str) -> str:
        """A number of pictures or objects as it is, of pixels as a share of the split's."""
        return str(count) if self.task != "segment" else f"{count / max(1, sum(self.splits[split].values())):.1%}"


def doctor(
    source: str,
    task: Task = "auto",
    list_file: Path | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
    sheet: Path | None = None,
) -> DoctorReport:
    """Decode every picture of a data set once, compare its splits, and say what would spoil a training.

    Args:
        source: folder of pictures, or "digits".
        task: what the data is for; "auto" recognises it: class folders, COCO, VOC or YOLO annotations, masks.
        list_file: lines of `file label` for a flat folder of pictures.
        val_fraction: share held out where the data has no splits of its own: the same as in training.
        seed: which share is held out: the same as in training.
        sheet: PNG file to draw some pictures of many classes into, with their labels, objects or masks.

    Everything found stands in the report, an unreadable source or list too; nothing is raised for it.

    Raises:
        UserError: where the sheet cannot be written, before anything is decoded.
    """
    check_writable(sheet)
    try:
        splits = open_data(source, task=task, val_fraction=val_fraction, list_file=list_file, seed=seed)
    except UserError as error:
        return DoctorReport(source, (), {}, (str(error),), (), None)
    findings = _checked(splits)
    if sheet is not None:
        draw_sheet(splits, sheet)
    kind = task_of(next(iter(splits.present().values())))
    return DoctorReport(
        source,
        splits.notes,
        _counts(splits, findings),
        findings.problems,
        findings.warnings,
        findings.statistics,
        kind,
        dict(findings.objects),
    )


def _counts(splits: Splits[Any], findings: Findings) -> dict[str, dict[str, int]]:
    """What the table of classes counts."""
    counts: dict[str, dict[str, int]] = {}
    for split, pictures in splits.present().items():
        if isinstance(pictures, PictureSet | ObjectSet):
            counts[split] = dict(zip(splits.class_names, pictures.counts(), strict=True))
        else:
            found = findings.pixels[split]
            counts[split] = {**dict(zip(splits.class_names, found.pixels, strict=True)), NO_CLASS: found.ignored}
    return counts


def _checked(splits: Splits[Any]) -> Findings:
    console = Console(stderr=True)
    columns = (TextColumn("looking at pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return check_pictures(splits, lambda done, total: bar.update(task, completed=done, total=total))


def listed(what: str, lines: Sequence[str], most: int, elsewhere: str) -> list[str]:
    """How many there are, the first `most` of them, and where all can be seen; nothing where there are none."""
    if not lines:
        return []
    more = [f"  ... and {len(lines) - most} more; {elsewhere}"] if len(lines) > most else []
    return [f"{len(lines)} {what}{'s' * (len(lines) > 1)}:", *(f"  {line}" for line in lines[:most]), *more]
