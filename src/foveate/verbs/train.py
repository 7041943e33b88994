"""`foveate train`: from a folder of pictures to a run folder with a model that can be trusted."""

import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

import lightning
import timm
import torch
import torchvision
from lightning.fabric import Fabric
from rich.console import Console

from foveate import __version__
from foveate.counting import count_parameters
from foveate.data.check import Checked, require_sound
from foveate.data.loader import stream_loader
from foveate.data.opening import open_data
from foveate.data.order import TrainingStream
from foveate.data.pictures import Splits, StoredPictures
from foveate.errors import UserError
from foveate.metric_names import HEADLINES, spoken
from foveate.run import RunFolder
from foveate.tasks.base import Task
from foveate.tasks.choose import make_task, prepare
from foveate.tasks.devices import Devices, launch, repeatable
from foveate.tasks.loop import Length, Training
from foveate.tasks.progress import Report
from foveate.tasks.settings import TrainSettings
from foveate.verbs.drawings import draw_results, draw_training, gabor_filters
from foveate.verbs.training_plan import plan, resolved, tell_warnings, warmup_note

FREE_ON_RESUME = {"num_workers", "checkpoint_minutes", "checkpoint_every_steps", "tensorboard", "resume"}


@dataclass(frozen=True)
class TrainResult:
    """What came out of a training.

    Args:
        run: the run folder.
        model: name of the model.
        parameters: their number, frozen tables included.
        pictures: held-out pictures that the figures were measured on.
        figures: of the shipped weights, shares of 1: `loss`, `top1` and perhaps `top5`; `box_ap`, `mask_ap` ...; `miou` ...; with averaging
            also `last_top1`... of the raw ones.
        steps: weight updates.
        minutes: of wall-clock time, evaluations included.
        images_per_second: training pictures per second of the last epoch, over all processes.
        replaced: broken training pictures, and how often another one took their place.
    """

    run: Path
    model: str
    parameters: int
    pictures: int
    figures: dict[str, float]
    steps: int
    minutes: float
    images_per_second: float
    replaced: dict[str, int]

    def __str__(self) -> str:
        names = {name: spoken(name) for name in (*HEADLINES, "top5", "box_ap50", "pixel_accuracy")}
        names |= {f"last_{name}": f"{words} before averaging" for name, words in HEADLINES.items()}
        shares = [f"{words} {self.figures[name]:.2%}" for name, words in names.items() if name in self.figures]
        shares += [f"loss {self.figures['loss']:.4f}"] if "loss" in self.figures else []
        text = f"{self.model}: {', '.join(shares)} on {self.pictures} held-out pictures"
        text += f"; {self.steps} steps in {self.minutes:.1f} min, {self.images_per_second:.0f} pictures/s; run folder {self.run}"
        if self.replaced:
            text += f"\n{len(self.replaced)} broken training pictures, each time replaced by another: {'; '.join(self.replaced)}"
        return text

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "run": str(self.run)}, indent=2)


def train(settings: TrainSettings) -> TrainResult:
    """Train a model and leave a run folder.

    Raises:
        UserError: for unsound pictures, settings that do not go together, a loss that is not finite; always before or instead of a result.
    """
    if settings.resume is not None:
        settings = _continued(settings)
    if not settings.data:
        raise UserError("found no data to train on, expected a folder of pictures or 'digits': name one")
    devices = Devices(settings.accelerator, settings.devices, settings.nodes, settings.strategy, settings.precision)
    settings = replace(settings, precision=devices.resolved_precision())
    result = launch(devices, _train, settings)
    return TrainResult(**{**result, "run": Path(result["run"])})


def _continued(given: TrainSettings) -> TrainSettings:
    """The settings of the run to resume; `UserError` where another value was given for one that the result depends on."""
    assert given.resume is not None
    if given.out is not None:
        raise UserError(f"out: found {given.out} beside --resume, expected one of them: a resumed run stays in its folder")
    run = RunFolder.open(given.resume)
    kept = TrainSettings.from_plain(run.read_recipe())
    default = TrainSettings()
    free = {}
    for name in (entry.name for entry in fields(TrainSettings)):
        value = getattr(given, name)
        if name in FREE_ON_RESUME:
            free[name] = getattr(kept, name) if value == getattr(default, name) else value
        elif value not in (getattr(default, name), getattr(kept, name)):
            raise UserError(f"{name}: found {value}, expected {getattr(kept, name)} as in {run.recipe}; a resumed run keeps its settings")
    return replace(kept, **free)


def _train(fabric: Fabric, settings: TrainSettings) -> dict[str, Any]:
    """The training on one process; the fields of `TrainResult`, on every process."""
    with repeatable(settings.seed, deterministic=settings.deterministic):
        splits = open_data(
            settings.data, task=settings.task, val_fraction=settings.val_fraction, list_file=settings.list_file, seed=settings.seed
        )
        train_set, held_out = _sets(splits)
        checked = require_sound(splits) if fabric.is_global_zero else Checked("", ())
        prepared = prepare(settings, train_set, __version__)
        filters = gabor_filters(prepared.model)
        if prepared.card.task == "detect":
            torch.backends.cudnn.benchmark = False  # nearly every batch has another size, and trying algorithms for each takes longer
        task = make_task(fabric, settings, prepared.card, train_set, held_out)
        stream = _stream(fabric, settings, task, 0)
        if settings.steps:
            settings = replace(settings, epochs=max(1, ceil(settings.steps / stream.steps_per_epoch) - settings.cooldown_epochs))
        length = Length(stream.total_steps, stream.steps_per_epoch, stream.global_batch)
        run = _run_folder(fabric, settings)
        report = Report(None, length.steps)
        if fabric.is_global_zero:
            values = resolved(fabric, settings, prepared, stream)
            console = Console(stderr=True)
            notes = (*splits.notes, checked.words, *prepared.notes, *warmup_note(settings))
            console.print(plan(notes, settings, (train_set, held_out), values))
            tell_warnings(console, checked.warnings, settings.data)
            if settings.resume is None:
                run.write_recipe(replace(settings, out=None).plain(), {**values, **_versions()})
            report = Report(console, length.steps, run.write_metrics, run.path / "tensorboard" if settings.tensorboard else None)

        training = Training(fabric, prepared.model, settings, length, run.checkpoint, report)
        if settings.resume is not None:
            training.resume()
        rest = _stream(fabric, settings, task, training.position.step)
        loader = stream_loader(task.examples, rest, settings.num_workers)
        with report:
            training.run(task, loader)

        forward = training.forward(averaged=True)
        results = task.results(fabric, forward)
        figures, rows = results.figures(), training.position.rows
        if training.average is not None:
            figures |= {f"last_{name}": rows[-1][f"val_{name}"] for name in results.figures()}
        if fabric.is_global_zero:
            run.write_model(training.shipped(), replace(prepared.card, results=figures))
            title = " on ".join(filter(None, (prepared.card.head, settings.model)))
            draw_training(run, title, rows, filters, gabor_filters(training.shipped()))
            draw_results(run, title, held_out, results, prepared.card, forward, fabric.device)
        fabric.barrier()
        return {
            "run": str(run.path),
            "model": settings.model,
            "parameters": count_parameters(prepared.model),
            "pictures": len(results),
            "figures": figures,
            "steps": training.position.step,
            "minutes": training.position.minutes,
            "images_per_second": rows[-1]["images_per_second"],
            "replaced": _of_all_processes(fabric, loader.replaced),
        }


def _sets(splits: Splits[StoredPictures]) -> tuple[StoredPictures, StoredPictures]:
    """What to train on and what to measure on: the val split, or the test split where there is no other."""
    held_out = splits.val or splits.test
    if splits.train is None or held_out is None:
        found = " and ".join(splits.present()) or "nothing"
        raise UserError(f"{splits.source}: found {found}, expected pictures to train on and pictures held out; set --val-fraction above 0")
    return splits.train, held_out


def _stream(fabric: Fabric, settings: TrainSettings, task: Task, start_step: int) -> TrainingStream:
    """The batches of the whole training from `start_step` on: one for each weight update, cut into `accumulate` parts on the device."""
    per_update, pictures = settings.batch_size * settings.accumulate, len(task.examples.pictures)
    return TrainingStream(
        pictures,
        per_update,
        settings.steps or settings.total_epochs * (pictures // (per_update * fabric.world_size)),
        settings.seed,
        fabric.global_rank,
        fabric.world_size,
        start_step=start_step,
        weights=task.chances,
        groups=task.groups,
    )


def _run_folder(fabric: Fabric, settings: TrainSettings) -> RunFolder:
    """The run to continue, or a new one, made by the first process."""
    if settings.resume is not None:
        return RunFolder.open(settings.resume)
    made = str(RunFolder.create(settings.out or _free_name(settings)).path) if fabric.is_global_zero else ""
    return RunFolder(Path(fabric.broadcast(made)))


def _free_name(settings: TrainSettings) -> Path:
    name = f"{Path(settings.data).resolve().name}-{settings.model}"
    return next(path for n in count(1) if not (path := Path("runs") / f"{name}-{n}").exists())


def _versions() -> dict[str, str]:
    versions = {module.__name__: str(module.__version__) for module in (torch, torchvision, timm, lightning)}
    return {"foveate": __version__, "python": platform.python_version(), **versions}


def _of_all_processes(fabric: Fabric, counts: Mapping[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for rank in range(fabric.world_size):
        total.update(fabric.broadcast(dict(counts), src=rank))
    return dict(total)
