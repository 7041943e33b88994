"""How good a trained detector or segmenter is, by the measures that papers report, and class by class."""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from rich.console import Group, RenderableType
from rich.table import Table

from foveate.data.masks import MaskSet
from foveate.data.objects import ObjectSet
from foveate.heads.tiling import looking
from foveate.metric_names import spoken
from foveate.opening import open_model
from foveate.tasks.dense_batches import whole_picture_batches
from foveate.tasks.detections import DetectionResults, gather_objects, score_objects
from foveate.tasks.pixels import PixelResults, gather_pixels, score_pixels
from foveate.whole_files import write_text

FIGURES = ("box_ap", "box_ap50", "mask_ap", "mask_ap50", "iou", "accuracy")
COLUMNS = {"count": "objects", **{name: spoken(name) for name in FIGURES}, "share": "share of pixels"}


@dataclass(frozen=True)
class DenseOptions:
    """How pictures are looked at.

    Args:
        batch_size: pictures of equal size per process and step.
        num_workers: processes that read pictures; None chooses.
        flip: segmentation: average with the mirrored picture.
        tile: segmentation: side in pixels of the windows that larger pictures are cut into; 0: none.
        results: detection: file for the results in COCO's form; outlines go beside it, into NAME-masks.json.
    """

    batch_size: int = 4
    num_workers: int | None = None
    flip: bool = False
    tile: int = 0
    results: Path | None = None


@dataclass(frozen=True)
class DenseEvaluation:
    """What a detector or segmenter is worth on a set of pictures.

    Args:
        source, data, split: the weights and the pictures.
        task: "detect" or "segment".
        notes: what the data was recognised as, and which figures are missing, and why.
        pictures: how many were seen, each exactly once.
        figures: shares of 1: `box_ap`, `box_ap50`, `box_ap75`, `box_ap_small` ..., `mask_ap` ...; or `miou`, `pixel_accuracy`,
            `mean_accuracy`.
        classes: per class its name and figures, None where one is not defined.
        files: written with the results.
        seconds: of wall-clock time for reading and scoring the pictures.
        processes: that shared the work.
    """

    source: str
    data: str
    split: str
    task: str
    notes: tuple[str, ...]
    pictures: int
    figures: dict[str, float]
    classes: tuple[dict[str, Any], ...]
    files: tuple[str, ...]
    seconds: float
    processes: int

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "pictures_per_second": self.pictures / self.seconds}, indent=2)

    def __str__(self) -> str:
        shares = ", ".join(f"{spoken(name)} {value:.2%}" for name, value in self.figures.items()) or "no figures"
        speed = f"{self.seconds:.1f} s, {self.pictures / self.seconds:.1f} pictures/s, processes: {self.processes}"
        return f"{self.source} on {self.data} ({self.split}): {shares}; {self.pictures} pictures seen; {speed}"

    def __rich__(self) -> RenderableType:
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("class")
        columns = [name for name in COLUMNS if any(name in row for row in self.classes)]
        for name in columns:
            table.add_column(COLUMNS[name], justify="right")
        for row in self.classes:
            table.add_row(row["class"], *(_cell(row[name]) for name in columns))
        written = [f"written: {file}" for file in self.files]
        return Group(table, "", str(self), *(f"note: {note}" for note in self.notes), *written)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1%}"


def measure(fabric: Fabric, source: Path, pictures: ObjectSet | MaskSet, options: DenseOptions) -> dict[str, Any]:
    """One process's share of the work; fields of `DenseEvaluation`, the same on every process."""
    model, card = open_model(source)
    pictures = pictures.with_classes(card.class_names)
    model.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loader = whole_picture_batches(fabric, pictures, card.whole_picture, options.batch_size, options.num_workers)
    fabric.barrier()  # the clock starts when the last process is ready
    start = time.perf_counter()
    results: DetectionResults | PixelResults
    with fabric.autocast():
        if isinstance(pictures, ObjectSet):
            results = gather_objects(fabric, score_objects(model, loader, pictures, fabric.device))
        else:
            forward = looking(model, tile=options.tile, flip=options.flip)
            results = gather_pixels(fabric, score_pixels(forward, loader, pictures, fabric.device), len(pictures))
    return {
        "pictures": len(results),
        "figures": results.figures(),
        "classes": tuple(results.per_class()),
        "more_notes": results.notes(),
        "files": _written(results, options.results) if fabric.is_global_zero and isinstance(results, DetectionResults) else (),
        "seconds": time.perf_counter() - start,
        "processes": fabric.world_size,
    }


def _written(results: DetectionResults, file: Path | None) -> tuple[str, ...]:
    if file is None:
        return ()
    names = {"box": file, "mask": file.with_name(f"{file.stem}-masks.json")}
    for kind in results.kinds:
        write_text(names[kind], results.to_coco_json(kind))
    return tuple(str(names[kind]) for kind in results.kinds)
