"""Predictions of a model that classifies: the most probable classes of each picture."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from foveate.data.reading import open_picture, read_thumbnail
from foveate.data.transforms import evaluation_transform
from foveate.errors import UserError
from foveate.plots.contact_sheet import contact_sheet
from foveate.verbs.picture_files import read_ahead
from foveate.verbs.predictions import MOST_ON_SHEET, Job, Predictions, plain_table


@dataclass(frozen=True)
class ClassesOfPicture:
    """The most probable classes of one picture, most probable first; probabilities are shares of 1 over all classes of the model."""

    file: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class ClassPredictions(Predictions[ClassesOfPicture]):
    """JSON: `predictions`, a list of `name` and `probability`. CSV: one row per picture with class_1, probability_1, class_2, ..."""

    def table(self) -> Table:
        table = plain_table("picture", "class")
        table.add_column("probability", justify="right", no_wrap=True)
        table.add_column("then")
        for seen in self.predictions:
            others = zip(seen.names[1:], seen.probabilities[1:], strict=True)
            then = ", ".join(f"{name} {probability:.1%}" for name, probability in others)
            table.add_row(Text(seen.file), Text(seen.names[0]), f"{seen.probabilities[0]:.1%}", Text(then))
        return table

    def plain(self, one: ClassesOfPicture) -> dict[str, Any]:
        return {"predictions": [{"name": n, "probability": p} for n, p in zip(one.names, one.probabilities, strict=True)]}

    def columns(self) -> Sequence[str]:
        ranks = range(1, 1 + max((len(one.names) for one in self.predictions), default=0))
        return [f"{column}_{rank}" for rank in ranks for column in ("class", "probability")]

    def cells(self, one: ClassesOfPicture) -> Iterable[Sequence[object]]:
        pairs = zip(one.names, one.probabilities, strict=True)
        return [[cell for name, probability in pairs for cell in (name, f"{probability:.6f}")]]


def predict_classes(job: Job, *, top: int = 5, batch_size: int = 32) -> ClassPredictions:
    """Name the `top` most probable classes of every picture, `batch_size` pictures at a time.

    Raises:
        UserError: where either is below 1, and for output that is not finite.
    """
    if top < 1 or batch_size < 1:
        raise UserError(f"predict: found top {top} and batch size {batch_size}, expected at least 1 for both")
    transform = evaluation_transform(job.card.picture_recipe)
    seen: list[ClassesOfPicture] = []
    broken: list[tuple[str, str]] = []
    pictures = read_ahead(job.files, lambda file: transform(open_picture(file)), 2 * batch_size)
    for some in _batches(pictures, batch_size):
        broken += [(str(file), str(error)) for file, error in some if isinstance(error, UserError)]
        readable = [(str(file), tensor) for file, tensor in some if isinstance(tensor, Tensor)]
        if readable:
            probabilities = classify(job.model, torch.stack([tensor for _, tensor in readable]).to(job.device))
            seen += [_best(file, row, job.class_names, top) for (file, _), row in zip(readable, probabilities, strict=True)]
    cut = _draw_sheet(job.sheet, job.card.model, seen) if job.sheet is not None and seen else []
    return ClassPredictions(job.card.model, tuple(seen), tuple(broken), (*job.notes, *cut))


@torch.inference_mode()
def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Give the probabilities (B, K) of images (B, C, H, W), float32 on the CPU: the softmax of the logits, taken in float32."""
    logits = model(images.contiguous(memory_format=torch.channels_last)).float()
    if not logits.isfinite().all():
        raise UserError("the model gives numbers that are not finite; its weights are damaged or its training diverged")
    return logits.softmax(dim=1).cpu()


def _batches(pictures: Iterator[tuple[Path, Tensor | UserError]], size: int) -> Iterator[list[tuple[Path, Tensor | UserError]]]:
    while some := list(islice(pictures, size)):
        yield some


def _best(file: str, probabilities: Tensor, names: Sequence[str], top: int) -> ClassesOfPicture:
    best = probabilities.topk(min(top, len(names)))
    return ClassesOfPicture(file, tuple(names[index] for index in best.indices.tolist()), tuple(best.values.tolist()))


def _draw_sheet(out: Path, model: str, seen: Sequence[ClassesOfPicture]) -> list[str]:
    shown = seen[:MOST_ON_SHEET]
    captions = [f"{one.names[0]} {one.probabilities[0]:.1%}\n{Path(one.file).name}" for one in shown]
    cut = f"the first {len(shown)} of {len(seen)} pictures"
    title = f"{model}: {cut if len(shown) < len(seen) else f'{len(seen)} pictures'}"
    contact_sheet([read_thumbnail(Path(one.file)) for one in shown], captions, None, out, title=title)
    return [f"{out}: shows {cut}"] if len(shown) < len(seen) else []
