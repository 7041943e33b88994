"""`foveate train`: from a folder of pictures to a run folder with a model that can be trusted."""

import platform
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields, replace
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
from torch import nn

from foveate import __version__
from foveate.card import ModelCard
from foveate.counting import count_parameters
from foveate.data.check import Checked, require_sound
from foveate.data.loader import stream_loader
from foveate.data.opening import open_data
from foveate.data.order import TrainingStream
from foveate.data.pictures import Splits, StoredPictures
from foveate.errors import UserError
from foveate.run import RunFolder
from foveate.speed.optimizing import optimize_for_training
from foveate.tasks.base import Task
from foveate.tasks.choose import make_task, prepare
from foveate.tasks.devices import Devices, launch, repeatable
from foveate.tasks.loop import Length, Training
from foveate.tasks.preparation import Prepared
from foveate.tasks.progress import Report
from foveate.tasks.settings import TrainSettings
from foveate.verbs.drawings import GaborFilters, draw_results, draw_training, gabor_filters
from foveate.verbs.training_plan import plan, resolved, tell_warnings, warmup_note
from foveate.verbs.training_result import TrainResult

MANY_STEPS = 100
"""From so many weight updates on blocks are joined: compiling takes eight to eleven seconds, once on a machine."""

FREE_ON_RESUME = {"num_workers", "checkpoint_minutes", "checkpoint_every_steps", "tensorboard", "resume"}


def train(settings: TrainSettings, named: Collection[str] = ()) -> TrainResult:
    """Train a model and leave a run folder.

    Args:
        settings: how.
        named: settings that the user gave a value, beside those that are not at their defaults: a resumed run has to have the same.

    Raises:
        UserError: for unsound pictures, settings that do not go together, a loss that is not finite; always before or instead of a result.
    """
    if settings.resume is not None:
        settings = _continued(settings, named)
    if not settings.data:
        raise UserError("found no data to train on, expected a folder of pictures or 'digits': name one")
    if settings.out is not None and settings.resume is None:
        RunFolder(settings.out).check_free()
    devices = Devices(settings.accelerator, settings.devices, settings.nodes, settings.strategy, settings.precision)
    settings = replace(settings, precision=devices.resolved_precision())
    result = launch(devices, _train, settings)
    return TrainResult(**{**result, "run": Path(result["run"])})


def _continued(given: TrainSettings, named: Collection[str]) -> TrainSettings:
    """The settings of the run to resume; `UserError` where another value was given for one that the result depends on."""
    assert given.resume is not None
    if given.out is not None:
        raise UserError(f"out: found {given.out} beside --resume, expected one of them: a resumed run stays in its folder")
    run = RunFolder.open(given.resume)
    kept, default = TrainSettings.from_plain(run.read_recipe()), TrainSettings()
    free = {}
    for name in (entry.name for entry in fields(TrainSettings)):
        value, own = getattr(given, name), getattr(kept, name)
        chosen = value != "auto" and (name in named or value != getattr(default, name))
        if name in FREE_ON_RESUME:
            free[name] = value if chosen else own
        elif chosen and value != own:
            instead = f", a new one can start from its weights: --weights {given.resume} --out NEW" if run.weights.is_file() else ""
            raise UserError(f"{name}: found {value}, expected {own} as in {run.recipe}; a resumed run keeps its settings{instead}")
    return replace(kept, **free)


def _train(fabric: Fabric, settings: TrainSettings) -> dict[str, Any]:
    """The training on one process; the fields of `TrainResult`, on every process."""
    with repeatable(settings.seed, deterministic=settings.deterministic):
        pictures = _pictures(fabric, settings)
        prepared = prepare(settings, pictures.train, __version__)
        filters = gabor_filters(prepared.model)
        if prepared.card.task == "detect":
            torch.backends.cudnn.benchmark = False  # nearly every batch has another size, and trying algorithms for each takes longer
        task = make_task(fabric, settings, prepared.card, pictures.train, pictures.held_out)
        stream = _stream(fabric, settings, task, 0)
        if settings.steps:
            settings = replace(settings, epochs=max(1, ceil(settings.steps / stream.steps_per_epoch) - settings.cooldown_epochs))
        run = _run_folder(fabric, settings)
        report = _announced(fabric, settings, pictures, prepared, stream, run)
        length = Length(stream.total_steps, stream.steps_per_epoch, stream.global_batch)
        _speed_up(fabric, settings, prepared.model, stream, report)
        training = Training(fabric, prepared.model, settings, length, run.checkpoint, report)
        if settings.resume is not None:
            training.resume()
            if training.finished:
                report.note("this training had come to its end: nothing is left to train, its model is measured again")
        loader = stream_loader(task.examples, _stream(fabric, settings, task, training.position.step), settings.num_workers)
        with report:
            training.run(task, loader)
        return _left(fabric, training, task, pictures, prepared.card, run, filters) | {"replaced": _of_all(fabric, loader.replaced)}


@dataclass(frozen=True)
class _Pictures:
    """What to train on and what to measure on, and what was found when they were opened and checked."""

    train: StoredPictures
    held_out: StoredPictures
    notes: tuple[str, ...]
    checked: Checked


def _pictures(fabric: Fabric, settings: TrainSettings) -> _Pictures:
    """The pictures, opened on every process and checked on the first; `UserError` where they are unsound."""
    files = settings.list_file
    splits = open_data(settings.data, task=settings.task, val_fraction=settings.val_fraction, list_file=files, seed=settings.seed)
    train_set, held_out = _sets(splits)
    checked = require_sound(splits) if fabric.is_global_zero else Checked("", ())
    return _Pictures(train_set, held_out, splits.notes, checked)


def _announced(
    fabric: Fabric, settings: TrainSettings, pictures: _Pictures, prepared: Prepared, stream: TrainingStream, run: RunFolder
) -> Report:
    """Tell the user what is going to happen and keep it in the run folder, on the first process; what reports the rest of it."""
    if not fabric.is_global_zero:
        return Report(None, stream.total_steps)
    console, values = Console(stderr=True), resolved(fabric, settings, prepared, stream)
    notes = (*pictures.notes, pictures.checked.words, *prepared.notes, *warmup_note(settings))
    console.print(plan(notes, settings, (pictures.train, pictures.held_out), values))
    tell_warnings(console, pictures.checked.warnings, settings.data)
    if settings.resume is None:
        run.write_recipe(replace(settings, out=None).plain(), {**values, **_versions()})
    return Report(console, stream.total_steps, run.write_metrics, run.path / "tensorboard" if settings.tensorboard else None)


def _speed_up(fabric: Fabric, settings: TrainSettings, model: nn.Module, stream: TrainingStream, report: Report) -> None:
    """On processors, join the model's blocks where the training is long enough to earn back the seconds of compiling."""
    if fabric.device.type == "cpu" and stream.total_steps >= MANY_STEPS and not settings.compile and settings.strategy != "fsdp":
        with fabric.autocast():
            steps = optimize_for_training(model)
        for step in steps:
            report.note(step)


def _left(
    fabric: Fabric, training: Training, task: Task, pictures: _Pictures, card: ModelCard, run: RunFolder, filters: GaborFilters | None
) -> dict[str, Any]:
    """Measure the trained model and leave it in the run folder, with its pictures; the fields of `TrainResult`, `replaced` aside.

    `filters`: the Gabor filters as they were before the training.
    """
    forward, rows = training.forward(averaged=True), training.position.rows
    results = task.results(fabric, forward)
    figures = results.figures()
    if training.average is not None:
        figures |= {f"last_{name}": rows[-1][f"val_{name}"] for name in figures}
    if fabric.is_global_zero:
        shipped, title = training.shipped(), " on ".join(filter(None, (card.head, card.model)))
        run.write_model(shipped, replace(card, results=figures))
        draw_training(run, title, rows, filters, gabor_filters(shipped))
        draw_results(run, title, pictures.held_out, results, card, forward, fabric.device)
    fabric.barrier()
    return {
        "run": str(run.path),
        "model": card.model,
        "parameters": count_parameters(training.model),
        "pictures": len(results),
        "figures": figures,
        "steps": training.position.step,
        "epochs": training.position.step / training.length.steps_per_epoch,
        "minutes": training.position.minutes,
        "images_per_second": rows[-1]["images_per_second"],
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


def _of_all(fabric: Fabric, counts: Mapping[str, int]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for rank in range(fabric.world_size):
        total.update(fabric.broadcast(dict(counts), src=rank))
    return dict(total)
