"""`foveate predict`: what a trained model sees on pictures."""

import csv as csv_files
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text
from torch import Tensor, nn

from foveate import plots
from foveate.data.reading import SUFFIXES, open_picture, read_thumbnail
from foveate.data.transforms import evaluation_transform
from foveate.errors import UserError
from foveate.opening import open_model
from foveate.run import write_text

MOST_ON_SHEET = 96


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, most probable first; probabilities are shares of 1 over all classes of the model."""

    file: str
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Predictions:
    """What a model said to pictures.

    Attributes:
        model: the model's name.
        predictions: one per readable picture, in the order in which the pictures were given.
        broken: file and what is wrong with it, for each picture that could not be read.
        notes: what else a reader should know, one sentence each.
    """

    model: str
    predictions: tuple[Prediction, ...]
    broken: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, one sentence each: the command line then leaves with exit code 2."""
        return tuple(problem for _, problem in self.broken)

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("picture", overflow="fold")
        table.add_column("class", overflow="fold")
        table.add_column("probability", justify="right", no_wrap=True)
        table.add_column("then")
        for seen in self.predictions:
            others = zip(seen.names[1:], seen.probabilities[1:], strict=True)
            then = ", ".join(f"{name} {probability:.1%}" for name, probability in others)
            table.add_row(Text(seen.file), Text(seen.names[0]), f"{seen.probabilities[0]:.1%}", Text(then))
        counts = f"{len(self.predictions)} pictures" + (f", {len(self.broken)} more could not be read:" if self.broken else "")
        lines = [*self.notes, counts, *self.problems]
        return Group(table, "", *map(Text, lines))

    def to_json(self) -> str:
        """Write one JSON object per line and picture: `file` and `predictions`, or `file` and `error` where it could not be read."""
        seen = (
            {"file": one.file, "predictions": [{"name": n, "probability": p} for n, p in zip(one.names, one.probabilities, strict=True)]}
            for one in self.predictions
        )
        broken = ({"file": file, "error": problem} for file, problem in self.broken)
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in (*seen, *broken))

    def to_csv(self) -> str:
        """Write a header and one row per picture: file, class_1, probability_1, class_2, ..., error (empty where the picture was read)."""
        ranks = range(1, 1 + max((len(one.names) for one in self.predictions), default=0))
        text = io.StringIO()
        table = csv_files.writer(text, lineterminator="\n")
        table.writerow(["file", *(f"{column}_{rank}" for rank in ranks for column in ("class", "probability")), "error"])
        for one in self.predictions:
            pairs = zip(one.names, one.probabilities, strict=True)
            table.writerow([one.file, *(cell for name, probability in pairs for cell in (name, f"{probability:.6f}")), ""])
        table.writerows([file, *("" for _ in ranks for _ in range(2)), problem] for file, problem in self.broken)
        return text.getvalue()


def predict(
    source: Path,
    pictures: list[Path],
    *,
    top: int = 5,
    batch_size: int = 32,
    csv: Path | None = None,
    sheet: Path | None = None,
    device: str = "auto",
) -> Predictions:
    """Name what is on pictures, with probabilities.

    Pictures are prepared as the model's card says, its class names come from there too. A picture that cannot be read is named at the end,
    the others are done all the same.

    Args:
        source: a run folder, or a weight file written by this project.
        pictures: picture files, and folders that are searched through and through.
        top: how many classes to name per picture, the most probable first; at most all that the model knows.
        batch_size: pictures per forward pass.
        csv: a CSV file to write as well.
        sheet: a PNG to write as well: the first 96 pictures with their class.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for an accelerator where there is one.

    Raises:
        UserError: for a path that does not exist, a folder without pictures, an unusable device or source, or output that is not finite.
    """
    _check(top, batch_size, csv, sheet)
    files, notes = find_pictures(pictures)
    model, card = open_model(source)
    place = choose_device(device)
    model.to(place)
    names = card.class_names or tuple(map(str, range(card.num_classes)))
    seen: list[Prediction] = []
    broken: list[tuple[str, str]] = []
    for chunk, inputs in _read_ahead(files, batch_size, evaluation_transform(card.picture_recipe)):
        broken += [(str(file), str(error)) for file, error in zip(chunk, inputs, strict=True) if isinstance(error, UserError)]
        readable = [(str(file), tensor) for file, tensor in zip(chunk, inputs, strict=True) if isinstance(tensor, Tensor)]
        if readable:
            probabilities = classify(model, torch.stack([tensor for _, tensor in readable]).to(place))
            seen += [_prediction(file, row, names, top) for (file, _), row in zip(readable, probabilities, strict=True)]
    if sheet is not None and seen:
        notes += _draw_sheet(sheet, card.model, seen)
    result = Predictions(card.model, tuple(seen), tuple(broken), tuple(notes))
    if csv is not None:
        write_text(csv, result.to_csv())
    return result


def _check(top: int, batch_size: int, *outputs: Path | None) -> None:
    """Find out before the work what would fail after it."""
    if top < 1 or batch_size < 1:
        raise UserError(f"predict: found top {top} and batch size {batch_size}, expected at least 1 for both")
    for out in outputs:
        if out is not None and not out.parent.is_dir():
            raise UserError(f"{out}: found no folder {out.parent}, expected one to write into; make it first")


def find_pictures(paths: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """List the picture files of `paths`, folders searched through and through in sorted order, and name what was left out of them.

    Raises:
        UserError: for a path that does not exist, and where there is no picture at all.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: found nothing there, expected a picture or a folder of pictures; check the path")
        inside = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found = [file for file in inside if file.suffix.lower() in SUFFIXES] if path.is_dir() else inside
        if not found:
            raise UserError(f"{path}: found no picture in this folder, expected files ending in {', '.join(SUFFIXES)}")
        if len(found) < len(inside):
            endings = sorted({file.suffix or file.name for file in inside} - {file.suffix for file in found})
            notes.append(
                f"{path}: left out {len(inside) - len(found)} of {len(inside)} files, not ending as pictures do ({', '.join(endings)})"
            )
        files += found
    if not files:
        raise UserError("predict: found no pictures, expected picture files or folders after the model")
    return files, notes


def choose_device(name: str) -> torch.device:
    """Turn "auto" or a name such as "cuda:1" into a device that works here; UserError where it does not."""
    if name == "auto":
        name = str(torch.accelerator.current_accelerator()) if torch.accelerator.is_available() else "cpu"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise UserError(f"device: found {name!r}, expected auto, cpu or an accelerator of this machine ({reason})") from None


@torch.inference_mode()
def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Give the probabilities (B, K) of images (B, C, H, W), float32 on the CPU: the softmax of the logits, taken in float32."""
    logits = model(images.contiguous(memory_format=torch.channels_last)).float()
    if not logits.isfinite().all():
        raise UserError("the model gives numbers that are not finite; its weights are damaged or its training diverged")
    return logits.softmax(dim=1).cpu()


def _read_ahead(
    files: Sequence[Path], size: int, transform: Callable[[Image.Image], Tensor]
) -> Iterator[tuple[Sequence[Path], list[Tensor | UserError]]]:
    """Chunks of files and what they hold, or why not; the next chunk is read in threads meanwhile. Progress goes to a terminal's stderr."""

    def read(file: Path) -> Tensor | UserError:
        try:
            return transform(open_picture(file))
        except UserError as error:
            return error

    chunks = [files[start : start + size] for start in range(0, len(files), size)]
    console = Console(stderr=True)
    with (
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
        Progress(console=console, transient=True, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("pictures", total=len(files))
        ahead = pool.map(read, chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], []], strict=True):
            current, ahead = list(ahead), pool.map(read, following)
            yield chunk, current
            bar.advance(task, len(chunk))


def _prediction(file: str, probabilities: Tensor, names: Sequence[str], top: int) -> Prediction:
    best = probabilities.topk(min(top, len(names)))
    return Prediction(file, tuple(names[index] for index in best.indices.tolist()), tuple(best.values.tolist()))


def _draw_sheet(out: Path, model: str, seen: Sequence[Prediction]) -> list[str]:
    shown = seen[:MOST_ON_SHEET]
    captions = [f"{one.names[0]} {one.probabilities[0]:.1%}\n{Path(one.file).name}" for one in shown]
    cut = f"the first {len(shown)} of {len(seen)} pictures"
    title = f"{model}: {cut if len(shown) < len(seen) else f'{len(seen)} pictures'}"
    plots.contact_sheet([read_thumbnail(Path(one.file)) for one in shown], captions, None, out, title=title)
    return [f"{out}: shows {cut}"] if len(shown) < len(seen) else []
