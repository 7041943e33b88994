"""What predictions of every kind have in common: the work to be done, the form of its result, and a sheet of annotated pictures."""

import csv
import io
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from PIL import Image
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from foveate.card import ModelCard, WholePicture
from foveate.data.dense_transforms import whole_picture
from foveate.data.reading import open_picture, upright_size
from foveate.plots.contact_sheet import contact_sheet

MOST_ON_SHEET = 96
READ_AHEAD = 4
SIDE = 448
MOST_COLUMNS = 6


@dataclass(frozen=True)
class Job:
    """A model and the pictures it shall look at.

    Args:
        model: on `device`, in evaluation mode.
        card: the model's.
        device: where it computes.
        files: the pictures.
        notes: what is known of them, one sentence each.
        sheet: a contact sheet to write, or None.
    """

    model: nn.Module
    card: ModelCard
    device: torch.device
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    sheet: Path | None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The card's, or numbers where it has none."""
        return self.card.class_names or tuple(map(str, range(self.card.num_classes)))


class OfOnePicture(Protocol):
    """What a model said to one picture."""

    @property
    def file(self) -> str: ...


Said = TypeVar("Said", bound=OfOnePicture)


@dataclass(frozen=True)
class Predictions(ABC, Generic[Said]):
    """What a model said to pictures.

    Args:
        model: the model's name.
        predictions: one per readable picture, in the order in which the pictures were given.
        broken: file and what is wrong with it, for each picture that could not be read.
        notes: what else a reader should know, one sentence each.
    """

    model: str
    predictions: tuple[Said, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, one sentence each: the command line then leaves with exit code 2."""
        return tuple(problem for _, problem in self.broken)

    @abstractmethod
    def table(self) -> Table:
        """What people are shown, one row per picture."""

    @abstractmethod
    def plain(self, one: Said) -> dict[str, Any]:
        """What `to_json` writes of a picture beside its `file`."""

    @abstractmethod
    def columns(self) -> Sequence[str]:
        """The columns of `to_csv` between `file` and `error`."""

    @abstractmethod
    def cells(self, one: Said) -> Iterable[Sequence[object]]:
        """The rows of a picture in `to_csv`, each as long as `columns`."""

    def __str__(self) -> str:
        counts = f"{len(self.predictions)} pictures" + (f", {len(self.broken)} more could not be read:" if self.broken else "")
        return "\n".join([*self.notes, counts, *self.problems])

    def __rich__(self) -> RenderableType:
        return Group(self.table(), "", Text(str(self)))

    def to_json(self) -> str:
        """Write one JSON object per line and picture: `file` and what was said to it, or `file` and `error` where it could not be read."""
        seen = ({"file": one.file, **self.plain(one)} for one in self.predictions)
        broken = ({"file": file, "error": problem} for file, problem in self.broken)
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in (*seen, *broken))

    def to_csv(self) -> str:
        """Write a header and the rows of every picture: file, `columns`, error (empty where the picture was read)."""
        columns = self.columns()
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", *columns, "error"])
        table.writerows([one.file, *row, ""] for one in self.predictions for row in self.cells(one))
        table.writerows([file, *("" for _ in columns), problem] for file, problem in self.broken)
        return text.getvalue()


def plain_table(*columns: str) -> Table:
    """An empty table in the style of all verbs."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@dataclass(frozen=True)
class Whole:
    """A picture made ready for detection or segmentation: `image` (C, h, w) float32, `size` the upright picture's own (width, height)."""

    image: Tensor
    size: tuple[int, int]


def reader_of(recipe: WholePicture) -> Callable[[Path], Whole]:
    """What reads a file as `recipe` says; it raises `UserError` for a broken one."""

    def read(file: Path) -> Whole:
        with open_picture(file) as image:
            size = upright_size(image)
            return Whole(whole_picture(image, recipe), size)

    return read


class AnnotatedSheet:
    """A contact sheet of the first `MOST_ON_SHEET` annotated pictures, kept small until it is written.

    Args:
        out: the PNG; None: nothing is kept.
    """

    def __init__(self, out: Path | None) -> None:
        self.out = out
        self.pictures: list[Image.Image] = []
        self.captions: list[str] = []

    @property
    def wants_more(self) -> bool:
        return self.out is not None and len(self.pictures) < MOST_ON_SHEET

    def add(self, picture: Image.Image, caption: str) -> None:
        """Keep the picture, which it may make smaller, if there is room on the sheet."""
        if self.wants_more:
            picture.thumbnail((SIDE, SIDE))
            self.pictures.append(picture)
            self.captions.append(caption)

    def write(self, model: str, of: int) -> list[str]:
        """Write the sheet, if there is anything on it; a sentence where it does not show all `of` pictures."""
        shown = len(self.pictures)
        if self.out is None or not shown:
            return []
        cut = f"the first {shown} of {of} pictures"
        columns = min(MOST_COLUMNS, math.ceil(math.sqrt(shown)))
        title = f"{model}: {cut if shown < of else f'{of} pictures'}"
        contact_sheet(self.pictures, self.captions, None, self.out, columns=columns, side=SIDE, title=title)
        return [f"{self.out}: shows {cut}"] if shown < of else []
