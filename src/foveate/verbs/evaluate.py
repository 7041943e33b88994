"""`foveate evaluate`: how good a trained model is on pictures, exactly, and class by class; here of models that classify."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from rich.console import Group, RenderableType
from rich.table import Table

from foveate.card import ModelCard
from foveate.data.loader import evaluation_loader
from foveate.data.opening import open_data
from foveate.data.pictures import PictureSet, StoredPictures, shortened
from foveate.data.transforms import evaluation_transform
from foveate.errors import UserError
from foveate.metric_names import spoken
from foveate.opening import open_model, read_card
from foveate.run import RunFolder
from foveate.tasks.devices import Devices, launch
from foveate.tasks.results import gather_results, score_pictures
from foveate.tasks.settings import Accelerator, Precision
from foveate.verbs.dense_evaluation import DenseEvaluation, DenseOptions, measure
from foveate.verbs.own_options import require_own_options
from foveate.verbs.picture_files import check_writable
from foveate.whole_files import write_text

Split = Literal["auto", "train", "val", "test"]
# The options that only models of one task understand.
OWN_OPTIONS = {"classify": ("results",), "detect": ("results",), "segment": ("flip", "tile")}


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on a set of pictures.

    Args:
        source, data, split: the weights and the pictures.
        notes: what the data was recognised as.
        pictures: how many were seen, each exactly once.
        figures: `loss` (cross-entropy), `top1` and, with more than five classes, `top5`; shares of 1.
        class_names: K names.
        confusion: (K, K) counts, rows = truth, columns = prediction.
        seconds: of wall-clock time for reading and scoring the pictures.
        processes: that shared the work.
    """

    source: str
    data: str
    split: str
    notes: tuple[str, ...]
    pictures: int
    figures: dict[str, float]
    class_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    seconds: float
    processes: int

    def classes(self) -> list[dict[str, Any]]:
        """Per class: name, precision and recall (None where nothing was predicted or present), count of pictures, count of predictions."""
        matrix = torch.tensor(self.confusion)
        hits, present, predicted = (values.tolist() for values in (matrix.diagonal(), matrix.sum(dim=1), matrix.sum(dim=0)))
        return [
            {
                "class": name,
                "precision": hits[k] / predicted[k] if predicted[k] else None,
                "recall": hits[k] / present[k] if present[k] else None,
                "count": present[k],
                "predicted": predicted[k],
            }
            for k, name in enumerate(self.class_names)
        ]

    def to_json(self) -> str:
        speed = {"pictures_per_second": self.pictures / self.seconds}
        values = {**asdict(self), **speed, "classes": self.classes()}
        return json.dumps(values, indent=2)

    def __str__(self) -> str:
        shares = [f"{spoken(name)} {self.figures[name]:.2%}" for name in ("top1", "top5") if name in self.figures]
        shares.append(f"loss {self.figures['loss']:.4f}")
        speed = f"{self.seconds:.1f} s, {self.pictures / self.seconds:.0f} pictures/s, processes: {self.processes}"
        return f"{self.source} on {self.data} ({self.split}): {', '.join(shares)}; {self.pictures} pictures seen; {speed}"

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("class")
        for heading in ("precision", "recall", "pictures", "predicted", "taken for"):
            table.add_column(heading, justify="left" if heading == "taken for" else "right")
        for row, counts in zip(self.classes(), self.confusion, strict=True):
            precision, recall = ("-" if row[name] is None else f"{row[name]:.1%}" for name in ("precision", "recall"))
            table.add_row(row["class"], precision, recall, str(row["count"]), str(row["predicted"]), self._confused(row["class"], counts))
        return Group(table, "", str(self), *(f"note: {note}" for note in self.notes))

    def _confused(self, name: str, counts: tuple[int, ...], most: int = 3) -> str:
        """The classes that pictures of class `name` are most often taken for, with how often."""
        others = [(count, other) for count, other in zip(counts, self.class_names, strict=True) if count and other != name]
        others.sort(key=lambda pair: -pair[0])
        return ", ".join(f"{other} {count}" for count, other in others[:most])


def evaluate(
    source: Path,
    data: str,
    split: Split = "auto",
    batch_size: int | None = None,
    devices: int = 1,
    precision: Precision = "auto",
    accelerator: Accelerator = "auto",
    list_file: Path | None = None,
    val_fraction: float | None = None,
    seed: int | None = None,
    num_workers: int | None = None,
    results: Path | None = None,
    flip: bool = False,
    tile: int = 0,
) -> Evaluation | DenseEvaluation:
    """Measure a trained model on pictures, by what it was trained for.

    To classify: top-1, top-5, loss, precision and recall per class, confusion matrix. To detect: COCO's AP of boxes and outlines, by size
    and class. To segment: mean IoU, pixel accuracy, IoU per class, at the size of the masks as stored.

    Preprocessing and class names are those in the weight file; every picture is seen exactly once, on any number of devices.

    Args:
        source: run folder, or weight file of this project.
        data: folder of pictures, or "digits".
        split: which part of the data; "auto": test where there is one, otherwise val.
        batch_size: pictures per process and step; None: 64 to classify, 4 (of equal size) to detect and segment.
        devices: processes (devices) that share the work.
        precision: number format; "auto": bf16 on CUDA devices that have it, otherwise fp32.
        accelerator: kind of device.
        list_file: lines of `file label` for a flat folder of pictures.
        val_fraction: share held out where the data has no val or test split of its own, 1 for all of it; None: as the run was trained, or
            0.2 for a weight file.
        seed: which share is held out; None: as the run was trained, or 0 for a weight file.
        num_workers: processes that read pictures, per device; None chooses.
        results: to classify, CSV file to write with a line per picture: its name, truth, guess, probability, loss; to detect, file for the
            results in COCO's form as pycocotools reads it, outlines in NAME-masks.json beside it.
        flip: segmentation: average the probabilities with those of the mirrored picture.
        tile: segmentation: side in pixels of the overlapping windows that larger pictures are cut into; 0: whole pictures.

    Raises:
        UserError: where classes of the data are unknown to the model, the data is of another task, or the split is absent.
    """
    check_writable(results)
    chosen = Devices(accelerator, devices, precision=precision)
    task: Any = read_card(source).task
    given = {"results": results is not None, "flip": flip, "tile": tile > 0}
    require_own_options([name for name, there in given.items() if there], OWN_OPTIONS, task, source)
    kept = RunFolder(source).read_recipe() if RunFolder(source).recipe.is_file() else {}
    fraction = kept.get("val_fraction", 0.2) if val_fraction is None else val_fraction
    held_out = kept.get("seed", 0) if seed is None else seed
    splits = open_data(data, task=task, val_fraction=fraction, list_file=list_file, seed=held_out)
    pictures = _pictures(splits.present(), split, data)
    about: dict[str, Any] = {"source": str(source), "data": data, "split": pictures.split}
    if isinstance(pictures, PictureSet):
        values = launch(chosen, _evaluate, source, pictures, 64 if batch_size is None else batch_size, num_workers, results)
        return Evaluation(**about, notes=splits.notes, **values)
    options = DenseOptions(4 if batch_size is None else batch_size, num_workers, flip, tile, results)
    values = launch(chosen, measure, source, pictures, options)
    return DenseEvaluation(**about, task=task, notes=(*splits.notes, *values.pop("more_notes")), **values)


def _pictures(present: Mapping[str, StoredPictures], split: Split, data: str) -> StoredPictures:
    """The chosen split; `UserError` where it is absent or empty."""
    wanted = ("test", "val") if split == "auto" else (split,)
    found = next((present[name] for name in wanted if name in present), None)
    if found is None:
        raise UserError(f"{data}: found {', '.join(present)}, expected {' or '.join(wanted)}; choose with --split, or set --val-fraction")
    if len(found) == 0:
        raise UserError(f"{data}: found no pictures in {found.split}, expected some to measure on; fill it, or choose with --split")
    return found


def _evaluate(
    fabric: Fabric, source: Path, pictures: PictureSet, batch_size: int, num_workers: int | None, file: Path | None
) -> dict[str, Any]:
    """One process's share of the work; the fields of `Evaluation`, the same on every process."""
    model, card = open_model(source)
    pictures = with_classes_of(card, pictures, source)
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    transform = evaluation_transform(card.picture_recipe)
    loader = evaluation_loader(pictures, transform, batch_size, fabric.global_rank, fabric.world_size, num_workers)
    fabric.barrier()  # the clock starts when the last process is ready
    start = time.perf_counter()
    with fabric.autocast():
        mine = score_pictures(model, loader, card.num_classes, fabric.device)
    results = gather_results(fabric, mine, len(pictures))
    seconds = time.perf_counter() - start
    if file is not None and fabric.is_global_zero:
        write_text(file, results.to_csv(pictures))
    return {
        "pictures": len(results),
        "figures": results.figures(),
        "class_names": pictures.class_names,
        "confusion": tuple(tuple(row) for row in results.confusion(card.num_classes).tolist()),
        "seconds": seconds,
        "processes": fabric.world_size,
    }


def with_classes_of(card: ModelCard, pictures: PictureSet, source: Path) -> PictureSet:
    """The pictures with labels in the model's order, matched by class name.

    A card without names takes the order of the data. `UserError` where the data has classes that the model has not, or, without
    names, another number of them.
    """
    if card.class_names:
        unseen = [name for name in card.class_names if name not in pictures.class_names]
        try:
            return pictures.with_classes(card.class_names)
        except UserError as error:
            missing = f"; of the model's classes the data lacks {shortened(unseen)}" if unseen else ""
            raise UserError(f"{error}{missing}") from None
    if len(pictures.class_names) != card.num_classes:
        raise UserError(
            f"{source}: found a model of {card.num_classes} classes without names, expected {len(pictures.class_names)} as in the data"
        )
    return pictures
